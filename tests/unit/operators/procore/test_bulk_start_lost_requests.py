"""A bulk start whose outcome is unknown: no item is started twice, and what remains unknown is reported."""

from __future__ import annotations

import logging

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import ServerError, WorkflowsError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreBulkStartInstancesOperator
from tests.support.killed import Killed
from tests.unit.operators.procore.test_bulk_start import ORDER, TOOL, items_of, start, started
from tests.unit.sensors.test_procore import deferred, first_event

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")


def end(emulator, *instance_ids: str) -> None:
    for instance_id in instance_ids:
        emulator.control("POST", f"procore/instances/{instance_id}/terminate")


def completed(result: dict) -> dict[str, str]:
    return {row["item_id"]: row["instance_id"] for row in result["completed"]}


@pytest.mark.sample(3)
@pytest.mark.parametrize("idempotency", ["ignored", "honoured"])
@pytest.mark.parametrize("ended", [(), ("700002",), ("700002", "700003")])
def test_kill_after_a_request_starts_no_item_twice(emulator, store, idempotency, ended, dies):
    emulator.control("PATCH", "flags", idempotency=idempotency)
    dies(ProcoreHook, "bulk_start_instances", "after")
    with pytest.raises(Killed):
        start("11", "12").execute({"task_state_store": store})
    end(emulator, *ended)

    result = start("11", "12", "13").execute({"task_state_store": store})

    assert started(emulator) == ["11", "12", "13"]
    assert items_of(emulator) == [["11", "12"], ["13"]]
    assert completed(result) == {"11": "700002", "12": "700003", "13": "700004"}


@pytest.mark.parametrize("idempotency", ["ignored", "honoured"])
@pytest.mark.parametrize("on_active_instance", ["adopt", "fail"])
def test_request_in_progress_starts_no_item_twice(emulator, store, idempotency, on_active_instance, dies):
    emulator.control("PATCH", "flags", idempotency=idempotency, operation_delay=600)
    dies(ProcoreHook, "bulk_start_instances", "after")
    with pytest.raises(Killed):
        start("11", "12").execute({"task_state_store": store})

    deferral = deferred(start("11", "12", on_active_instance=on_active_instance), {"task_state_store": store})
    emulator.control("POST", "clock", advance=600)
    event = first_event(deferral.trigger)
    end(emulator, "700002")
    resumed = start("11", "12", on_active_instance=on_active_instance)
    result = resumed.execute_complete({"task_state_store": store}, event)

    assert started(emulator) == ["11", "12"]
    assert completed(result) == {"11": "700002", "12": "700003"}
    assert result["failed"] == []


@pytest.mark.parametrize("fault", [{"reset": "after"}, {"status": 500, "json": {}, "after": True}])
def test_lost_response_to_a_request_is_reconciled_by_its_instances(emulator, store, fault):
    emulator.control("POST", "faults", method="POST", path=ORDER, **fault)

    result = start("11", "12", "13").execute({"task_state_store": store})

    assert items_of(emulator) == [["11", "12"], ["13"]]
    assert sorted(completed(result)) == ["11", "12", "13"]


def test_server_error_without_effect_leaves_a_retry_that_requests(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, status=500, json={})
    with pytest.raises(ServerError):
        start("11").execute({"task_state_store": store})

    assert list(completed(start("11").execute({"task_state_store": store}))) == ["11"]
    assert started(emulator) == ["11"]


@pytest.mark.sample(3)
@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize("body", [{}, {"data": {}}, {"data": {"operation_id": None}}, []])
def test_request_without_an_operation_is_reconciled_by_its_instances(emulator, store, status, body):
    emulator.control("POST", "faults", method="POST", path=ORDER, status=status, json=body, after=True)

    result = start("11", "12").execute({"task_state_store": store})

    assert completed(result) == {"11": "700002", "12": "700003"}
    assert items_of(emulator) == [["11", "12"]]


def test_request_without_operation_or_instance_is_an_unknown_outcome(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, status=201, json={})

    with pytest.raises(AirflowFailException, match=r"OutcomeUnknown: .*11, 12"):
        start("11", "12").execute({"task_state_store": store})
    assert len(items_of(emulator)) == 1


def test_request_that_conflicts_with_a_lost_one_is_an_unknown_outcome(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="before")
    emulator.control("POST", "faults", method="POST", path=ORDER, status=409, json={"error": "in progress"})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown: .*in progress"):
        start("11").execute({"task_state_store": store})


@pytest.mark.parametrize("status", [403, 404, 500])
def test_reading_rejected_after_a_lost_request_is_an_unknown_outcome(emulator, store, status):
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="after")
    emulator.control("POST", "faults", method="GET", path="/workflows/instances$", status=status, json={}, times=99)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown: .*11"):
        start("11").execute({"task_state_store": store})
    assert started(emulator) == ["11"]


def test_instances_of_other_items_are_not_claimed(emulator, store):
    """A server may ignore the filters of its list."""
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="before")
    operator = start("11")
    list_instances = operator.hook.list_instances
    operator.hook.list_instances = lambda tool_type, **filters: list_instances(
        tool_type, project_id=filters["project_id"]
    )
    send = operator.hook.bulk_start_instances

    def lose(*args, **kwargs):
        if not started(emulator):
            operator.hook.start_instance(TOOL, "12", project_id="1001")
            operator.hook.start_instance("generic_tool_item", "11", project_id="1001")
        return send(*args, **kwargs)

    operator.hook.bulk_start_instances = lose

    result = operator.execute({"task_state_store": store})

    assert started(emulator) == ["12", "11", "11"]
    assert completed(result) == {"11": "700004"}


def test_request_that_arrives_during_the_poll_is_claimed(emulator, store, monkeypatch):
    first = start("11", "12")
    bulk_start, sent = first.hook.bulk_start_instances, []

    def die(*args, **kwargs):
        sent.append((args, kwargs))
        raise Killed

    monkeypatch.setattr(first.hook, "bulk_start_instances", die)
    with pytest.raises(Killed):
        first.execute({"task_state_store": store})
    again = start("11", "12")
    list_instances = again.hook.list_instances

    def poll_and_let_it_arrive(*args, **kwargs):
        rows = list(list_instances(*args, **kwargs))
        if sent:
            args, kwargs = sent.pop()
            bulk_start(*args, **kwargs)
        return iter(rows)

    monkeypatch.setattr(again.hook, "list_instances", poll_and_let_it_arrive)

    result = again.execute({"task_state_store": store})

    assert started(emulator) == ["11", "12"]
    assert completed(result) == {"11": "700002", "12": "700003"}


def test_instance_of_another_user_is_not_claimed(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="before")
    operator = start("11", "12")
    send = operator.hook.bulk_start_instances

    def faster(*args, **kwargs):
        if not emulator.effects():
            emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="11")
        return send(*args, **kwargs)

    operator.hook.bulk_start_instances = faster

    result = operator.execute({"task_state_store": store})

    assert result["already_active"] == [{"item_id": "11", "instance_id": "700002"}]
    assert completed(result) == {"12": "700003"}


def test_older_ended_instance_is_not_the_lost_start(emulator, store):
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="11", by="integration@example.com")
    end(emulator, "700002")
    emulator.control("POST", "clock", advance=3600)
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="before")

    assert completed(start("11").execute({"task_state_store": store})) == {"11": "700003"}


# --- a rejected request ---


def test_rejected_request_has_its_reason_without_a_store(emulator):
    emulator.control("PATCH", "flags", operation_delay=600)
    emulator.control("POST", "faults", method="POST", path=ORDER, skip=1, status=422, json={"error": "no such preset"})
    deferral = deferred(start("11", "12", "13", on_failed_items="return"), {})
    emulator.control("POST", "clock", advance=600)

    event = first_event(deferral.trigger)
    result = start("11", "12", "13", on_failed_items="return").execute_complete({}, event)

    (failed,) = result["failed"]
    assert failed["item_id"] == "13"
    assert "no such preset" in failed["message"]
    assert sorted(completed(result)) == ["11", "12"]


@pytest.mark.sample(3)
@pytest.mark.parametrize("status", ["422", "400", "413"])
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_request_that_is_too_large_is_split(emulator, store, limit, status):
    emulator.control("PATCH", "flags", bulk_start_limit=limit, bulk_start_too_many=status)
    items = [str(number) for number in range(11, 18)]

    result = start(*items, chunk_size=5).execute({"task_state_store": store})

    assert sorted(completed(result)) == started(emulator) == items
    assert result["failed"] == []


def test_requests_rejected_at_any_size_cost_few_calls(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, status=400, json={"error": "no"}, times=999)
    items = [str(number) for number in range(100, 180)]

    with pytest.raises(WorkflowsError, match="80 of 80"):
        start(*items, chunk_size=16).execute({"task_state_store": store})
    assert len(items_of(emulator)) <= 5 + 4 + 4


# --- the log ---


def info_messages(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "logged" and record.levelname == "INFO"]


@pytest.fixture
def log(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="logged")
    monkeypatch.setattr(ProcoreBulkStartInstancesOperator, "log", logging.getLogger("logged"))
    return caplog


def test_log_names_each_instance_that_was_started_and_as_whom(emulator, store, log):
    start("11", "12", "5001").execute({"task_state_store": store})

    (line,) = [line for line in info_messages(log) if "700002" in line]
    assert all(text in line for text in ("user 90001", "700002 (item 11)", "700003 (item 12)"))
    assert [line for line in info_messages(log) if "700001 (item 5001)" in line]


def test_log_of_a_try_with_nothing_to_do_says_why(emulator, store, log):
    start("11").execute({"task_state_store": store})
    before = len(info_messages(log))

    start("11").execute({"task_state_store": store})

    assert len(info_messages(log)) == before + 1


def test_log_does_not_contradict_itself_about_a_second_request(emulator, store, log):
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="before")

    start("11").execute({"task_state_store": store})

    assert not [line for line in log.text.splitlines() if "not sent again" in line]
