"""One record that the server cannot show is one record: exports and lists go on, and say which it was."""

from __future__ import annotations

import json

import pytest
import requests

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.transport import Session
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from tests.unit.operators.procore.test_history_export import (
    BULK,
    calls,
    export,
    export_legacy,
    ids,
    instance_of,
    start,
)
from tests.unit.operators.procore.test_list_instances import TOOL, listing, start_instance

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

FAULTS = {
    "500": {"status": 500, "json": {"error": "boom"}},
    "504": {"status": 504, "body": "<html>Gateway timeout</html>"},
    "malformed": {"status": 200, "json": {"data": "?"}},
    "not_json": {"status": 200, "body": "?"},
}
EVERY_FAULT = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


@pytest.fixture
def folder(tmp_path) -> str:
    return f"file://{tmp_path}/audit"


@pytest.fixture
def broken_items(emulator, monkeypatch):
    """Return a function that lets every call fail that names one of some items, with or without others."""

    def break_them(*item_ids: str, **fault) -> None:
        read_bulk, read_item = ProcoreHook.each_bulk_history, ProcoreHook.list_item_histories

        def failing(call):
            emulator.control("POST", "faults", path="history$", **fault)
            return call()

        def bulk(self, tool_type, items, **where):
            call = lambda: read_bulk(self, tool_type, items, **where)  # noqa: E731
            return failing(call) if set(items) & set(item_ids) else call()

        def item(self, tool_type, item_id, **where):
            call = lambda: read_item(self, tool_type, item_id, **where)  # noqa: E731
            return failing(call) if item_id in item_ids else call()

        monkeypatch.setattr(ProcoreHook, "each_bulk_history", bulk)
        monkeypatch.setattr(ProcoreHook, "list_item_histories", item)

    return break_them


def break_instance(emulator, instance_id: str, **fault) -> None:
    emulator.control("POST", "faults", method="GET", path=f"/instances/{instance_id}/history$", times=10**6, **fault)


@pytest.mark.sample(3)
@EVERY_FAULT
def test_export_continues_after_a_broken_item(emulator, folder, broken_items, fault):
    items = start(emulator, 9)
    broken = instance_of(emulator, items[4])
    broken_items(items[4], times=5 if fault["status"] == 504 else 1, **fault)
    break_instance(emulator, broken, **fault)

    result = export(folder, batch_size=4)

    assert [(entry["instance_id"], entry["tool_type"]) for entry in result["failed"]] == [(broken, TOOL)]
    assert result["instances"] == 9
    assert broken not in ids(result)


@pytest.mark.sample(3)
@EVERY_FAULT
@pytest.mark.parametrize("item_history", ["present", "absent"])
def test_export_reads_each_instance_of_a_failing_item(emulator, folder, broken_items, fault, item_history):
    emulator.control("PATCH", "flags", bulk_history="absent", item_history=item_history)
    items = start(emulator, 2)
    broken = instance_of(emulator, items[0])
    emulator.control("POST", f"procore/instances/{broken}/terminate")
    newer = start_instance(emulator, items[0])
    break_instance(emulator, broken, **fault)
    if item_history == "present":
        export(folder)  # so that the route is known to be there
        broken_items(items[0], times=5 if fault["status"] == 504 else 1, **fault)

    result = export(folder)

    assert [entry["instance_id"] for entry in result["failed"]] == [broken]
    assert {newer, "700001"} < set(ids(result))


@pytest.mark.sample(3)
@EVERY_FAULT
def test_export_returns_to_large_calls_after_a_broken_item(emulator, folder, broken_items, fault):
    items = start(emulator, 99)
    broken_items(items[28], times=5 if fault["status"] == 504 else 1, **fault)
    before = calls(emulator)["bulk_history"]

    result = export(folder, batch_size=20)

    assert (result["instances"], result["failed"]) == (100, [])
    attempts = 5 if fault["status"] == 504 else 1
    assert calls(emulator)["bulk_history"] - before <= 4 + 5 * attempts + 6  # 20, 10, 5, 2, 1 fail; others of the 20


def test_export_reads_an_item_that_a_bulk_history_leaves_out(emulator, folder):
    (other,) = start(emulator, 1)
    entry = {"item_id": other, "instances": []}
    emulator.control("POST", "faults", method="POST", path=BULK, status=200, json={"data": [entry]})

    result = export(folder)

    assert ids(result) == ["700001"]
    assert [entry["item_id"] for entry in result["failed"]] == [other]


def test_export_gives_up_a_bulk_history_that_always_fails(emulator, folder):
    items = start(emulator, 12)
    emulator.control("POST", "faults", method="POST", path=BULK, times=10**6, status=500, json={})

    result = export(folder, batch_size=4)

    assert (result["instances"], result["failed"]) == (13, [])
    assert calls(emulator)["bulk_history"] < len(items)


def test_export_halves_batches_that_are_too_heavy(emulator, folder, monkeypatch):
    start(emulator, 20)
    read_bulk = ProcoreHook.each_bulk_history

    def bulk(self, tool_type, items, **where):
        if len(items) > 5:
            emulator.control("POST", "faults", path=BULK, status=504, json={}, times=5)
        return read_bulk(self, tool_type, items, **where)

    monkeypatch.setattr(ProcoreHook, "each_bulk_history", bulk)

    result = export(folder, batch_size=20)

    assert (result["instances"], result["failed"]) == (21, [])
    assert calls(emulator)["bulk_history"] == 2 * 5 + 5


@pytest.fixture
def at_most(monkeypatch):
    """Return a function that lets a bulk history of more items than a number fail before its response is read."""

    def limit(items: int, error: Exception) -> None:
        send = Session.send

        def sent(self, request, **settings):
            if request.url.endswith("/bulk_history") and len(json.loads(request.body)["item_ids"]) > items:
                raise error
            return send(self, request, **settings)

        monkeypatch.setattr(Session, "send", sent)

    return limit


@pytest.mark.parametrize(
    "error",
    [
        requests.exceptions.ReadTimeout(),
        requests.exceptions.ConnectionError("reset"),
        requests.exceptions.ChunkedEncodingError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_export_halves_batches_that_take_too_long(emulator, folder, at_most, error):
    start(emulator, 20)
    at_most(10, error)

    result = export(folder)

    assert (result["instances"], result["failed"]) == (21, [])
    assert calls(emulator)["bulk_history"] == 3


def test_export_reads_a_slow_item_by_instance(emulator, folder, at_most):
    start(emulator, 3)
    at_most(0, requests.exceptions.ReadTimeout())

    result = export(folder)

    assert (result["instances"], result["failed"]) == (4, [])


@pytest.mark.parametrize("most", [10, 1])
def test_export_halves_batches_with_too_large_responses(emulator, folder, monkeypatch, most):
    items = start(emulator, 20)
    hook = ProcoreHook("procore_default")
    sizes = [len(json.dumps({"data": hook.bulk_history(TOOL, items[:count])})) for count in (most, 20)]
    before = calls(emulator)["bulk_history"]
    monkeypatch.setitem(RestClient.__init__.__kwdefaults__, "max_bytes", max(sizes[0] * 5 // 4, 7000))

    result = export(folder)

    assert sizes[1] > max(sizes[0] * 5 // 4, 7000)
    assert (result["instances"], result["failed"]) == (21, [])
    assert calls(emulator)["bulk_history"] - before <= 15


def test_instance_whose_history_is_above_the_limit_is_reported(emulator, folder, monkeypatch):
    items = start(emulator, 2)
    large = instance_of(emulator, items[0])
    history = {"data": {"history": [], "name": "x" * 100_000}}
    emulator.control(
        "POST", "faults", method="GET", path=f"/instances/{large}/history$", times=100, status=200, json=history
    )
    monkeypatch.setitem(RestClient.__init__.__kwdefaults__, "max_bytes", 50_000)
    bulk = {"data": [{"item_id": items[0], "instances": [{**history["data"], "instance_id": large}]}]}
    emulator.control("POST", "faults", method="POST", path=BULK, times=2, status=200, json=bulk)

    result = export(folder, item_ids=[items[0], items[1], "5001"], batch_size=2)

    (failed,) = result["failed"]
    assert (failed["tool_type"], failed["item_id"], failed["instance_id"]) == (TOOL, items[0], large)
    assert result["instances"] == 2


@pytest.mark.parametrize("fault", [{"reset": "before"}, {"truncate": 1, "status": 200, "json": {"data": []}}])
def test_export_continues_after_a_broken_connection(emulator, folder, broken_items, fault):
    items = start(emulator, 5)
    broken = instance_of(emulator, items[2])
    broken_items(items[2], times=5, **fault)
    break_instance(emulator, broken, **fault)

    result = export(folder, batch_size=4)

    assert [entry["instance_id"] for entry in result["failed"]] == [broken]
    assert result["instances"] == 5


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 500, "json": {}}, ServerError),
        ({"status": 403, "json": {}}, PermissionDenied),
        ({"status": 422, "json": {}}, InvalidRequest),
        ({"status": 200, "json": {"data": "?"}}, UnexpectedResponse),
    ],
)
def test_export_of_which_nothing_can_be_read_fails(emulator, folder, fault, error):
    start(emulator, 3)
    emulator.control("POST", "faults", path="history$", times=10**6, **fault)

    with pytest.raises(error):
        export(folder)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"status": 401, "json": {}}, AuthenticationError),
        ({"status": 429, "json": {}, "headers": {"Retry-After": "9999"}}, RateLimited),
        ({"reset": "before"}, ConnectionFailed),
    ],
)
def test_trouble_of_the_whole_server_ends_an_export(emulator, folder, fault, error):
    start(emulator, 3)
    emulator.control("POST", "faults", path="history$|/me$", times=20, skip=1, **fault)

    with pytest.raises(error):
        export(folder, batch_size=1)


def test_server_that_fails_from_now_on_ends_an_export(emulator, folder):
    start(emulator, 40)
    emulator.control("POST", "faults", path="history$", times=10**6, skip=2, status=500, json={})

    with pytest.raises(ServerError):
        export(folder, batch_size=5)


@EVERY_FAULT
def test_export_of_listed_items_continues_after_a_failed_list(emulator, folder, monkeypatch, fault):
    items = start(emulator, 3)
    list_instances = ProcoreHook.list_instances

    def listed(self, tool_type, *, item_id=None, **filters):
        if item_id == items[1]:
            emulator.control("POST", "faults", path="/instances$", times=5 if fault["status"] == 504 else 1, **fault)
        return list_instances(self, tool_type, item_id=item_id, **filters)

    monkeypatch.setattr(ProcoreHook, "list_instances", listed)

    result = export(folder, item_ids=items)

    assert [entry["item_id"] for entry in result["failed"]] == [items[1]]
    assert result["instances"] == 2


def test_export_of_listed_items_takes_no_other_items_for_them(emulator, folder, monkeypatch):
    """A server may ignore the filter."""
    items = start(emulator, 2)
    list_instances = ProcoreHook.list_instances
    monkeypatch.setattr(
        ProcoreHook,
        "list_instances",
        lambda self, tool_type, *, item_id=None, **filters: list_instances(self, tool_type, **filters),
    )

    result = export(folder, item_ids=items[:1])

    assert ids(result) == [instance_of(emulator, items[0])]


@EVERY_FAULT
def test_legacy_export_continues_after_a_broken_instance(emulator, folder, fault):
    times = 5 if fault["status"] == 504 else 1
    emulator.control("POST", "faults", method="GET", path="/workflow_activity_histories$", times=times, **fault)

    result = export_legacy(folder)

    assert [entry["instance_id"] for entry in result["failed"]] == ["568150"]
    assert ids(result) == ["568151"]


def test_legacy_export_continues_after_a_broken_connection(emulator, folder):
    emulator.control("POST", "faults", path="/workflow_activity_histories$", times=5, reset="before")

    result = export_legacy(folder)

    assert [entry["instance_id"] for entry in result["failed"]] == ["568150"]
    assert ids(result) == ["568151"]


@EVERY_FAULT
def test_legacy_export_continues_after_a_broken_listed_instance(emulator, folder, fault):
    times = 5 if fault["status"] == 504 else 1
    emulator.control("POST", "faults", method="GET", path="/workflow_instances/568150$", times=times, **fault)

    result = export_legacy(folder, instance_ids=["568150", "568151"])

    assert [entry["instance_id"] for entry in result["failed"]] == ["568150"]
    assert ids(result) == ["568151"]


def test_legacy_export_of_which_nothing_can_be_read_fails(emulator, folder):
    with pytest.raises(NotFound):
        export_legacy(folder, instance_ids=["4711", "4712"])


# --- the list by state ---


@EVERY_FAULT
def test_list_by_state_continues_after_a_broken_instance(emulator, broken_items, fault):
    broken, other = start_instance(emulator, "11"), start_instance(emulator, "12")
    broken_items("11", times=5 if fault["status"] == 504 else 1, **fault)
    break_instance(emulator, broken, **fault)

    rows = listing(states="in_progress").execute({})

    assert [row["instance_id"] for row in rows] == ["700001", other]


def test_list_by_state_continues_after_a_broken_connection(emulator, broken_items):
    broken, other = start_instance(emulator, "11"), start_instance(emulator, "12")
    broken_items("11", times=5, reset="before")
    break_instance(emulator, broken, reset="before")

    rows = listing(states="in_progress").execute({})

    assert [row["instance_id"] for row in rows] == ["700001", other]


def test_list_continues_after_a_row_without_an_id(emulator, monkeypatch):
    other = start_instance(emulator, "11")
    list_instances = ProcoreHook.list_instances

    def listed(self, tool_type, **filters):
        return (
            {**row, "id": None} if row["item_id"] == "5001" else row
            for row in list_instances(self, tool_type, **filters)
        )

    monkeypatch.setattr(ProcoreHook, "list_instances", listed)

    assert [row["instance_id"] for row in listing().execute({})] == [other]


def test_list_by_state_continues_after_a_malformed_history(emulator):
    other = start_instance(emulator, "11")
    histories = [{"instance_id": "700001", "history": "?"}]
    more = [{"instance_id": other, "status": "in_progress", "history": []}]
    response = {"data": [{"item_id": "5001", "instances": histories}, {"item_id": "11", "instances": more}]}
    emulator.control("POST", "faults", method="POST", path=BULK, status=200, json=response)

    assert [row["instance_id"] for row in listing(states="in_progress").execute({})] == [other]
