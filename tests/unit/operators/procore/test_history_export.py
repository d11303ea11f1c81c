"""The export of histories: complete, in few calls, whole files or none, and honest about what it could not read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.operators.procore import ProcoreHistoryToObjectStorageOperator
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyHistoryToObjectStorageOperator
from airflow_provider_workflows.rules import procore_history as rules
from tests.support import examples
from tests.support.examples import once_and_in_full

pytestmark = pytest.mark.usefixtures("airflow_connections")

TOOL = "purchase_order_contract"
BULK = "/bulk_history$"


@pytest.fixture
def folder(tmp_path) -> str:
    return f"file://{tmp_path}/audit"


def export(folder: str, **parameters) -> dict:
    requested = {"tool_type": TOOL, "file_format": "jsonl", **parameters}
    return ProcoreHistoryToObjectStorageOperator(task_id="export", path=folder, **requested).execute({})


def export_legacy(folder: str, **parameters) -> dict:
    requested = {"file_format": "jsonl", **parameters}
    return ProcoreLegacyHistoryToObjectStorageOperator(task_id="export", path=folder, **requested).execute({})


def lines(result: dict, table: str) -> list[dict]:
    return [json.loads(line) for line in ObjectStoragePath(result["paths"][table]).read_text().splitlines()]


def ids(result: dict) -> list[str]:
    return [row["instance_id"] for row in lines(result, "instances")]


def start(emulator, count: int) -> list[str]:
    """Start instances of new items; return the ids of the items."""
    items = [str(6000 + number) for number in range(count)]
    for item_id in items:
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item_id)
    return items


def finish(emulator, instance_id: str = "700001") -> None:
    for login in ("integration@example.com", "dana@example.com"):
        emulator.control(
            "POST", f"procore/instances/{instance_id}/respond", login=login, option="Approve", comment="ok"
        )


def instance_of(emulator, item_id: str) -> str:
    instances = emulator.control("GET", "state")["procore"]
    return next(instance["id"] for instance in instances if instance["item_id"] == item_id)


def calls(emulator) -> Counter:
    """Count the requests by the last part of their path, sign-ins left out."""
    return Counter(r["path"].rpartition("/")[2] for r in emulator.requests() if not r["path"].endswith("/token"))


def test_approval_becomes_rows_of_who_decided_what_and_how_long(emulator, folder):
    emulator.control("POST", "clock", advance=3600)
    finish(emulator)

    result = export(folder)

    (instance,) = lines(result, "instances")
    assert (instance["status"], instance["item_status"], instance["item_id"]) == ("complete", "Approved", "5001")
    assert instance["duration_seconds"] >= 3600
    steps = {step["name"]: step for step in lines(result, "steps")}
    assert 3600 <= steps["Budget Check"]["duration_seconds"] < 3700
    responses = [(r["step"], r["login"], r["response"], r["comment"]) for r in lines(result, "responses")]
    assert responses == [
        ("Budget Check", "integration@example.com", "Approve", "ok"),
        ("Director Approval", "dana@example.com", "Approve", "ok"),
    ]
    assert {key: result[key] for key in ("instances", "steps", "responses", "forbidden", "failed")} == {
        "instances": 1,
        "steps": len(steps),
        "responses": 2,
        "forbidden": [],
        "failed": [],
    }
    assert {Path(url).name for url in result["paths"].values()} == {
        "instances.jsonl",
        "steps.jsonl",
        "responses.jsonl",
    }


def test_both_file_formats_have_the_same_rows(emulator, folder):
    start(emulator, 3)
    finish(emulator)

    plain, columnar = export(folder), export(folder, file_format="parquet")

    for table, columns in rules.TABLES.items():
        read = pq.read_table(columnar["paths"][table].removeprefix("file://"))
        times = {name for name, kind in columns.items() if kind == "time"}
        assert {
            name for name in read.column_names if read.schema.field(name).type == pa.timestamp("ms", "UTC")
        } == times
        rows = [
            {name: rules.iso(value) if isinstance(value, datetime) else value for name, value in row.items()}
            for row in read.to_pylist()
        ]
        assert rows == lines(plain, table)
        assert len(rows) == plain[table] == columnar[table]


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_an_export_of_nothing_still_writes_every_table(emulator, folder, file_format):
    result = export(folder, tool_type="correspondence", tool_subtype="-9", file_format=file_format)

    assert (result["instances"], result["steps"], result["responses"]) == (0, 0, 0)
    assert result["watermark"] is None
    for table, url in result["paths"].items():
        if file_format == "parquet":
            assert pq.read_schema(url.removeprefix("file://")).names == list(rules.TABLES[table])
        else:
            assert lines(result, table) == []


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("flags", "routes"),
    [
        ({"bulk_history": "present"}, {"bulk_history": 1}),
        ({"bulk_history": "no_instance_ids"}, {"bulk_history": 1}),
        ({"bulk_history": "absent"}, {"bulk_history": 3, "history": 4}),
        ({"bulk_history": "absent", "item_history": "absent"}, {"bulk_history": 3, "history": 6}),
        ({"history": "events_only"}, {"bulk_history": 1}),
        ({"history": "no_status"}, {"bulk_history": 1}),
        ({"history_order": "newest_first"}, {"bulk_history": 1}),
        ({"active_default": "active_only"}, {"bulk_history": 1}),
    ],
)
def test_rows_are_the_same_with_any_routes_of_the_api(emulator, folder, flags, routes):
    start(emulator, 3)
    emulator.control("POST", "clock", advance=60)
    finish(emulator)
    emulator.control("POST", "clock", advance=60)
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5001")
    usual = export(folder)
    expected = {table: sorted(map(str, lines(usual, table))) for table in ("steps", "responses")}
    instances = sorted(ids(usual))
    before = calls(emulator)
    emulator.control("PATCH", "flags", **flags)

    result = export(folder)

    assert {table: sorted(map(str, lines(result, table))) for table in expected} == expected
    assert sorted(ids(result)) == instances
    assert {row["status"] for row in lines(result, "instances")} == {"complete", "in_progress"}
    assert result["failed"] == result["forbidden"] == []
    assert calls(emulator) - before == Counter({"instances": 2, **routes})  # the active ones and the ended ones


def test_an_absent_route_is_logged_once(emulator, folder, capsys):
    start(emulator, 3)
    emulator.control("PATCH", "flags", bulk_history="absent", item_history="absent")

    export(folder, batch_size=1)

    output = capsys.readouterr().out
    assert output.count("The bulk history does not exist") == output.count("The item history does not exist") == 1


def test_how_an_instance_was_recognised_is_in_its_row(emulator, folder):
    emulator.control("PATCH", "flags", bulk_history="no_instance_ids")

    assert [row["id_from"] for row in lines(export(folder), "instances")] == ["started_at"]


@pytest.mark.usefixtures("no_delays")
@pytest.mark.parametrize(("status", "attempts"), [("400", 1), ("413", 1), ("504", 5)])
def test_batches_are_halved_until_procore_takes_them_and_stay_so(emulator, folder, status, attempts):
    start(emulator, 19)
    emulator.control("PATCH", "flags", bulk_history_limit=6, bulk_history_too_many=status)

    result = export(folder, batch_size=20)

    assert result["instances"] == 20
    assert result["failed"] == []
    assert calls(emulator)["bulk_history"] == 2 * attempts + 4  # 20 and 10 are rejected, then four times 5


def test_item_rejected_alone_is_reported_and_batches_grow_again(emulator, folder):
    start(emulator, 17)
    emulator.control("POST", "faults", method="POST", path=BULK, status=400, json={"error": "odd item"}, times=4)

    result = export(folder, batch_size=9)

    assert [(entry["item_id"], "odd item" in entry["reason"]) for entry in result["failed"]] == [("5001", True)]
    assert result["instances"] == 17
    assert calls(emulator)["bulk_history"] == 4 + 3 + 1  # 9, 4, 2, 1 rejected, their other halves, then 9 at once


def test_forbidden_item_is_reported_and_all_others_are_exported(emulator, folder):
    items = start(emulator, 9)
    hidden = instance_of(emulator, items[4])
    finish(emulator, hidden)
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=items[4])
    emulator.control("POST", f"procore/instances/{hidden}/hide")

    result = export(folder)

    (forbidden,) = result["forbidden"]
    assert (forbidden["tool_type"], forbidden["item_id"]) == (TOOL, items[4])
    assert "403" in forbidden["reason"]
    assert {row["item_id"] for row in lines(result, "instances")} == {"5001", *items} - {items[4]}


@pytest.mark.parametrize(("status", "where"), [(403, "forbidden"), (404, "failed")])
def test_an_instance_that_cannot_be_read_by_itself_is_reported(emulator, folder, status, where):
    items = start(emulator, 2)
    emulator.control("PATCH", "flags", bulk_history="absent", item_history="absent")
    failing = instance_of(emulator, items[1])
    emulator.control("POST", "faults", method="GET", path=f"/instances/{failing}/history$", status=status, json={})

    result = export(folder)

    assert [entry["instance_id"] for entry in result[where]] == [failing]
    assert len(result["forbidden"] + result["failed"]) == 1
    assert result["instances"] == 2


@pytest.mark.parametrize(("status", "error"), [(403, PermissionDenied), (400, InvalidRequest)])
def test_when_nothing_at_all_may_be_read_the_export_stops_early(emulator, folder, status, error):
    start(emulator, 100)
    emulator.control("POST", "faults", method="POST", path=BULK, status=status, json={"error": "no"}, times=1000)

    with pytest.raises(error):
        export(folder)
    assert calls(emulator)["bulk_history"] < 150


def test_a_listed_instance_without_a_history_is_reported(emulator, folder):
    emulator.control(
        "POST", "faults", method="POST", path=BULK, status=200, json={"data": [{"item_id": "5001", "instances": []}]}
    )

    result = export(folder)

    assert result["failed"] == [
        {"tool_type": TOOL, "item_id": "5001", "instance_id": "700001", "reason": "Procore returned no history of it"}
    ]


def test_events_of_unknown_types_are_stored_whole(emulator, folder):
    event = {"type": "Teleported", "details": {"id": "1", "to": "Mars"}}
    history = {"instance_id": "700001", "status": "in_progress", "mood": "good", "history": [event]}
    response = {"data": [{"item_id": "5001", "instances": [history]}]}
    emulator.control("POST", "faults", method="POST", path=BULK, status=200, json=response)

    (step,) = lines(export(folder), "steps")

    assert (step["event_type"], json.loads(step["raw"])) == ("Teleported", event)


# --- what has changed ---


@pytest.mark.parametrize("updated_at", ["moves", "start_only"])
def test_export_has_only_changed_and_active_instances(emulator, folder, updated_at):
    emulator.control("PATCH", "flags", updated_at=updated_at)
    items = start(emulator, 3)
    ended = [instance_of(emulator, item_id) for item_id in items]
    finish(emulator, ended[0])
    emulator.control("POST", "clock", advance=3600)
    since = emulator.control("GET", "clock")["now"]
    emulator.control("POST", "clock", advance=60)
    finish(emulator, ended[1])
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=items[0])

    result = export(folder, changed_since=since)

    newer = [i["id"] for i in emulator.control("GET", "state")["procore"] if i["item_id"] == items[0]][1]
    assert set(ids(result)) == {"700001", ended[1], ended[2], newer}
    assert result["changed_since"] == rules.iso(rules.changed_since(since))


def test_watermark_of_an_export_is_changed_since_of_the_next(emulator, folder):
    first = export(folder)

    assert rules.time(first["watermark"]) is not None
    assert export(folder, changed_since=first["watermark"])["watermark"] >= first["watermark"]


@pytest.mark.parametrize("transition_time", ["when_it_moves", "when_decided"])
def test_end_that_shows_late_is_exported_by_the_next_run(emulator, folder, transition_time):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=30, transition_time=transition_time)
    emulator.control("POST", "procore/instances/700001/respond", login="integration@example.com", option="Approve")
    emulator.control("POST", "clock", advance=31)
    emulator.control("POST", "procore/instances/700001/respond", login="dana@example.com", option="Approve")
    emulator.control("POST", "clock", advance=5)
    start(emulator, 1)
    first = export(folder)
    before = {row["instance_id"]: row["ended_at"] for row in lines(first, "instances")}
    emulator.control("POST", "clock", advance=60)

    second = export(folder, changed_since=first["watermark"])

    after = {row["instance_id"]: row["ended_at"] for row in lines(second, "instances")}
    assert before == {"700001": None, "700002": None}
    assert set(after) == {"700001", "700002"}
    assert after["700001"] is not None


@pytest.mark.parametrize("exported", [export, export_legacy])
def test_watermark_is_earlier_than_the_latest_change_by_overlap(emulator, folder, exported):
    latest = rules.time(emulator.control("GET", "clock")["now"])
    emulator.control("POST", "clock", advance=7200)
    seen = rules.time(exported(folder, overlap=0)["watermark"])

    assert abs(seen - latest) < timedelta(seconds=30)
    for overlap, expected in (({}, 3600), ({"overlap": timedelta(minutes=5)}, 300)):
        assert rules.time(exported(folder, **overlap)["watermark"]) == seen - timedelta(seconds=expected)


@pytest.mark.parametrize("ahead", [10_800, -10_800])
def test_clock_of_a_worker_that_is_wrong_loses_no_end(emulator, folder, monkeypatch, ahead):
    """An instance ends, and another one changes later, while a long list is read."""
    monkeypatch.setitem(RestClient.__init__.__kwdefaults__, "clock", lambda: time.time() + ahead)
    list_instances = ProcoreHook.list_instances

    def listed(self, tool_type, **filters):
        found = list(list_instances(self, tool_type, **filters))
        if tool_type == TOOL:
            emulator.control("POST", "clock", advance=60)
            finish(emulator)
            emulator.control("POST", "clock", advance=7200)
            emulator.control("POST", "procore/instances", tool_type="generic_tool_item", item_id="7")
        return iter(found)

    with monkeypatch.context() as patched:
        patched.setattr(ProcoreHook, "list_instances", listed)
        # The histories of the first tool are read before its instance ends.
        patched.setattr(
            ProcoreHook,
            "each_bulk_history",
            lambda self, tool_type, items, **where: [{"item_id": item, "instances": []} for item in items],
        )
        first = export(folder, tool_type=[TOOL, "generic_tool_item"])

    second = export(folder, changed_since=first["watermark"])

    assert [(row["instance_id"], row["status"]) for row in lines(second, "instances")] == [("700001", "complete")]


def test_watermark_of_some_items_is_not_that_of_all(emulator, folder):
    emulator.control("POST", "clock", advance=7200)
    since = "2026-01-01T00:00:00.000Z"

    assert export(folder, item_ids="5001")["watermark"] is None
    assert export(folder, item_ids="5001", changed_since=since)["watermark"] == since
    assert export_legacy(folder, instance_ids="568150")["watermark"] is None


def test_listed_items_are_exported_whole_and_nothing_else(emulator, folder):
    start(emulator, 3)
    finish(emulator)
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5001")

    result = export(folder, item_ids=[5001, "5001", "4711"], changed_since="2990-01-01T00:00:00Z")

    assert {row["item_id"] for row in lines(result, "instances")} == {"5001"}
    assert len(ids(result)) == 2
    assert [entry["item_id"] for entry in result["failed"]] == ["4711"]


def test_several_tools_and_projects_are_exported_together(emulator, folder):
    export(folder, tool_type=[TOOL, "generic_tool_item"], project_id=["1001", "1001"])

    assert calls(emulator)["instances"] == 2 * 2  # the active ones and the ended ones


@pytest.mark.parametrize("where", [{"project_id": "1001"}, {"project_id": "company"}, {}])
@pytest.mark.parametrize("which", [{}, {"item_ids": "5001"}, {"changed_since": "2026-01-01T00:00:00Z"}])
def test_tool_that_is_not_there_is_named_and_nothing_is_written(emulator, folder, tmp_path, where, which):
    with pytest.raises(ConfigurationError, match=f"'purchase_ordr'.*{TOOL}"):
        export(folder, tool_type="purchase_ordr", **where, **which)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [400, 403, 404, 422])
def test_tool_that_is_not_there_is_named_where_its_list_is_rejected(emulator, folder, tmp_path, status):
    emulator.control("POST", "faults", method="GET", path="/instances$", times=10, status=status, json={})

    with pytest.raises(ConfigurationError, match="purchase_ordr"):
        export(folder, tool_type="purchase_ordr", project_id="1001")
    assert list(tmp_path.iterdir()) == []


def test_empty_tool_is_accepted_if_tools_may_not_be_listed(emulator, folder):
    emulator.control("PATCH", "flags", tools_list="forbidden")

    assert export(folder, tool_type="purchase_ordr", project_id="1001")["instances"] == 0


@pytest.mark.parametrize(("status", "where"), [(403, "forbidden"), (404, "failed")])
def test_forbidden_project_is_named_and_the_others_continue(emulator, folder, status, where):
    since = "2026-01-01T00:00:00.000Z"
    emulator.control(
        "POST", "faults", method="GET", path="/projects/1002/.*instances$", times=10, status=status, json={}
    )

    result = export(folder, project_id=["1002", "1001"], changed_since=since)

    assert [(entry["tool_type"], entry["project_id"]) for entry in result[where]] == [(TOOL, "1002")]
    assert ids(result) == ["700001"]
    assert result["watermark"] == since  # what changed in the other one is for the next run
    with pytest.raises(PermissionDenied if status == 403 else NotFound):
        export(folder, project_id="1002")


def test_project_in_which_nothing_changed_was_read(emulator, folder):
    emulator.control("POST", "faults", method="GET", path="/projects/1001/.*instances$", times=10, status=403, json={})

    result = export(folder, project_id=["1001", "1002"])

    assert (result["instances"], len(result["forbidden"])) == (0, 1)


def test_list_row_without_an_id_concerns_only_itself(emulator, folder):
    items = start(emulator, 1)
    list_instances = ProcoreHook.list_instances

    def listed(self, tool_type, **filters):
        for row in list_instances(self, tool_type, **filters):
            yield {**row, "id": None} if row["item_id"] == "5001" else row

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ProcoreHook, "list_instances", listed)
        result, of_items = export(folder), export(folder, item_ids=["5001", *items])

    for found in (result, of_items):
        assert [(entry["tool_type"], entry["item_id"]) for entry in found["failed"]][:1] == [(TOOL, "5001")]
        assert "instance_id" not in found["failed"][0]
        assert {row["item_id"] for row in lines(found, "instances")} >= set(items)


# --- files ---


def test_a_new_run_writes_over_the_files_of_the_last_one(emulator, folder, tmp_path):
    start(emulator, 3)
    export(folder)

    result = export(folder, item_ids="5001")

    assert len(ids(result)) == 1
    assert sorted(file.name for file in (tmp_path / "audit").iterdir()) == [
        "instances.jsonl",
        "responses.jsonl",
        "steps.jsonl",
    ]


def test_a_run_that_fails_midway_leaves_what_was_there(emulator, folder, tmp_path):
    start(emulator, 3)
    export(folder)
    before = {file.name: file.read_bytes() for file in (tmp_path / "audit").iterdir()}
    finish(emulator)
    wait = {"status": 429, "headers": {"Retry-After": "9999"}}
    emulator.control("POST", "faults", method="POST", path=BULK, skip=2, times=10, **wait)

    with pytest.raises(RateLimited):
        export(folder, batch_size=1)

    assert {file.name: file.read_bytes() for file in (tmp_path / "audit").iterdir()} == before


@pytest.mark.parametrize("path_type", [str, ObjectStoragePath])
def test_any_object_storage_will_do(emulator, path_type):
    attach("memory", fs=MemoryFileSystem())

    result = export(path_type("memory://audit/today"), file_format="parquet")

    assert ObjectStoragePath(result["paths"]["steps"]).read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"changed_since": "2026-01-01T00:00:00"}, "changed_since"),
        ({"changed_since": datetime(2026, 1, 1)}, "changed_since"),
        ({"changed_since": ""}, "changed_since"),
        ({"tool_type": ""}, "tool_type"),
        ({"tool_type": []}, "tool_type"),
        ({"project_id": ["1001", ""]}, "project_id"),
        ({"item_ids": ["1", None]}, "item_ids"),
        ({"item_ids": ["1"], "tool_type": [TOOL, "drawing"]}, "item_ids"),
        ({"file_format": "csv"}, "file_format"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"overlap": -1}, "overlap"),
        ({"overlap": 1e308}, "overlap"),
        ({"overlap": timedelta(days=10**6)}, "overlap"),
        ({"overlap": "an hour"}, "overlap"),
        ({"path": ""}, "path"),
        ({"path": "carrier-pigeon://here"}, "path"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, folder, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        export(parameters.pop("path", folder), **parameters)
    assert emulator.requests() == []


def test_parquet_without_pyarrow_says_what_to_install(emulator, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigurationError, match=r"airflow-provider-workflows\[parquet\]"):
        export(folder, file_format="parquet")
    assert emulator.requests() == []


# --- legacy ---


def perform(emulator, instance_id: str = "568150") -> None:
    emulator.control(
        "POST",
        f"procore/legacy/instances/{instance_id}/perform",
        activity="Submit for Approval",
        login="integration@example.com",
        comments="please",
    )


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_legacy_activities_become_rows(emulator, folder, file_format):
    perform(emulator)

    result = export_legacy(folder, file_format=file_format)

    assert (result["instances"], result["activities"]) == (2, 1)
    if file_format == "jsonl":
        (activity,) = lines(result, "activities")
        assert (activity["instance_id"], activity["activity"]) == ("568150", "Submit for Approval")
        assert (activity["performed_by_id"], activity["comments"]) == ("90001", "please")


def test_legacy_instances_in_the_same_state_are_left_out(emulator, folder):
    emulator.control("POST", "clock", advance=3600)
    since = emulator.control("GET", "clock")["now"]
    emulator.control("POST", "clock", advance=60)
    perform(emulator)

    assert ids(export_legacy(folder, changed_since=since)) == ["568150"]


def test_named_legacy_instances_are_exported_after_their_end(emulator, folder):
    emulator.control("POST", "procore/legacy/instances/568151/terminate", login="pat@example.com")

    only = export_legacy(folder, instance_ids=["568151", 4711], changed_since="2990-01-01T00:00:00Z")

    assert [(row["instance_id"], row["terminated_by_login"]) for row in lines(only, "instances")] == [
        ("568151", "pat@example.com")
    ]
    assert [entry["instance_id"] for entry in only["failed"]] == ["4711"]
    assert sorted(ids(export_legacy(folder, instance_ids="568151", include_active=True))) == ["568150", "568151"]


@pytest.mark.parametrize(
    ("parameters", "exported", "failed"),
    [
        ({"project_id": 1001}, ["568150"], ["568151"]),
        ({"project_id": "1002"}, ["568152"], ["568151"]),
        ({"project_id": "company"}, ["568150", "568151", "568152"], []),
        ({"project_id": "1001", "instance_ids": ["568150", "568152"]}, ["568150"], ["568152"]),
    ],
)
@pytest.mark.parametrize("part_size", [None, 10])
def test_only_instances_of_the_project_are_exported(folder, monkeypatch, parameters, exported, failed, part_size):
    list_instances, get_instance = ProcoreLegacyHook.list_instances, ProcoreLegacyHook.get_instance
    projects = {"568150": {"id": "1001"}, "568151": None, "568152": {"id": "1002"}}

    def shown(self, instance_id):
        return {**get_instance(self, "568151"), "id": instance_id, "project": projects[instance_id]}

    def listed(self):
        [row, *_] = list_instances(self)
        return [{**row, "id": instance_id, "project": project} for instance_id, project in projects.items()]

    monkeypatch.setattr(ProcoreLegacyHook, "list_instances", listed)
    monkeypatch.setattr(ProcoreLegacyHook, "get_instance", shown)
    monkeypatch.setattr(ProcoreLegacyHook, "list_activity_histories", lambda self, instance_id: [])

    result = export_legacy(folder, part_size=part_size, **parameters)

    assert result["instances"] == len(exported)
    assert [entry["instance_id"] for entry in result["failed"]] == failed
    if part_size is None:
        assert sorted(ids(result)) == exported


def test_a_forbidden_legacy_instance_is_reported(emulator, folder):
    emulator.control("POST", "faults", method="GET", path="/workflow_activity_histories$", status=403, json={})

    result = export_legacy(folder)

    assert [entry["instance_id"] for entry in result["forbidden"]] == ["568150"]
    assert ids(result) == ["568151"]


def test_legacy_row_without_an_id_concerns_only_itself(emulator, folder, monkeypatch):
    list_instances = ProcoreLegacyHook.list_instances

    def listed(self, **filters):
        return ({**row, "id": None} if row["id"] == "568150" else row for row in list_instances(self, **filters))

    monkeypatch.setattr(ProcoreLegacyHook, "list_instances", listed)

    result = export_legacy(folder)

    assert len(result["failed"]) == 1
    assert ids(result) == ["568151"]


@pytest.mark.parametrize(
    ("parameters", "named"), [({"instance_ids": [""]}, "instance_ids"), ({"changed_since": "today"}, "changed_since")]
)
def test_a_bad_legacy_parameter_is_named_before_anything_is_sent(emulator, folder, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        export_legacy(folder, **parameters)
    assert emulator.requests() == []


# --- the example ---


@pytest.mark.usefixtures("airflow_db")
@once_and_in_full()
def test_example_exports_what_changed_since_the_last_run(emulator, tmp_path, again):
    emulator.control("POST", "clock", advance=7200)
    finish(emulator)
    dag = examples.load("example_procore_nightly_audit_export")

    first = dag.test(run_conf={"root": f"file://{tmp_path}"})

    assert {task.state for task in first.get_task_instances()} == {"success"}
    assert len(list(tmp_path.rglob("*.jsonl"))) == 5
    assert examples.result(first, "measure_steps")["Budget Check"] == 2.0

    if not again:
        assert examples.result(first, "export_histories")["changed_since"] == "2026-01-01T00:00:00.000Z"
        return
    second = dag.test(run_conf={"root": f"file://{tmp_path}"})

    assert {task.state for task in second.get_task_instances()} == {"success"}
    changed_since = examples.result(second, "export_histories")["changed_since"]
    assert changed_since == rules.iso(first.start_date - timedelta(hours=1))


# --- size ---

# VmHWM and not getrusage, whose peak a new process inherits from the one that started it.
MEASURE = """
import json, re, sys
from types import SimpleNamespace
from airflow_provider_workflows.operators.procore import ProcoreHistoryToObjectStorageOperator as Export
ti = SimpleNamespace(xcom_push=lambda key, value: None)
def run(**more):
    return Export(task_id="export", tool_type="purchase_order_contract", path=sys.argv[1], **more).execute({"ti": ti})
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
run(item_ids="5001", file_format="jsonl")
before = peak()
result = run(file_format="parquet")
print(json.dumps([result["instances"], peak() - before]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, which this system lacks")
# Fewer than a tenth, because the process that is measured imports Airflow first.
@pytest.mark.parametrize("many", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_instances_take_little_memory_and_few_calls(emulator, folder, many):
    if many == 10_000:
        emulator.control("POST", "reset", seed="large")
    else:
        emulator.control("POST", "procore/instances/many", count=many)

    done = subprocess.run([sys.executable, "-c", MEASURE, folder], capture_output=True, text=True, check=True)

    instances, megabytes = json.loads(done.stdout.splitlines()[-1])
    assert instances == many + 1
    assert megabytes < 150
    counted = calls(emulator)
    assert counted["bulk_history"] <= 2 + many / 50
    assert counted["instances"] <= 4 + many / 100
