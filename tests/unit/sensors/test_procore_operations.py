"""Waits for background jobs of Procore: the same result in every mode."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.sensors.procore import ProcoreAsyncOperationSensor
from airflow_provider_workflows.triggers.procore import ProcoreAsyncOperationWaitTrigger
from tests.unit.sensors.test_procore import deferred, first_event

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

TOOL = "purchase_order_contract"
OPERATION = "/async_operations/"


def order(*item_ids: str, delay: float = 0, emulator=None) -> str:
    """Order the start of some items and return the operation."""
    emulator.control("PATCH", "flags", operation_delay=delay)
    items = [{"item_id": item_id} for item_id in item_ids]
    return ProcoreHook().bulk_start_instances(TOOL, items)["operation_id"]


def operation_sensor(operation_id: str | int = "901001", **parameters) -> ProcoreAsyncOperationSensor:
    fixed = {"task_id": "wait", "poke_interval": 0.05, "timeout": 30}
    return ProcoreAsyncOperationSensor(**{**fixed, "operation_id": operation_id, **parameters})


def polls(emulator) -> int:
    return len([r for r in emulator.requests() if OPERATION in r["path"]])


def shown(emulator, **operation) -> None:
    """Let the next poll of an operation show this."""
    whole = {"id": "901001", "operation_type": "x", "status": "done", "completed_at": None, **operation}
    emulator.control("POST", "faults", path=OPERATION, times=99, status=200, json={"data": whole})


def test_every_mode_returns_the_same(emulator, store):
    order("11", "5001", delay=600, emulator=emulator)
    context = {"task_state_store": store}
    assert operation_sensor().poke(context) is False
    deferral = deferred(operation_sensor(), context)
    emulator.control("POST", "clock", advance=600)

    by_poke = operation_sensor().execute(context)
    at_once = operation_sensor(901001, deferrable=True).execute(context)
    event = first_event(deferral.trigger)
    resumed = operation_sensor().execute_complete(context, event)

    assert by_poke == at_once == resumed
    assert resumed == {
        "operation_id": "901001",
        "operation_type": "workflows_instance_bulk_create",
        "status": "partial_done",
        "started_at": resumed["started_at"],
        "completed_at": resumed["completed_at"],
        "error": None,
        "completed": 1,
        "failed": 1,
        "completed_items": [{"item_id": "11", "instance_id": "700002"}],
        "failed_items": [
            {"item_id": "5001", "step": "create", "message": "Item 5001 already has an active workflow instance."}
        ],
    }
    assert None not in (resumed["started_at"], resumed["completed_at"])


def test_the_items_are_not_in_the_triggers_event(emulator, store):
    order("11", "12", delay=600, emulator=emulator)
    deferral = deferred(operation_sensor(), {"task_state_store": store})
    emulator.control("POST", "clock", advance=600)

    event = first_event(deferral.trigger)

    (operation,) = event["result"]["operations"]
    assert (operation["completed"], operation["failed"]) == (2, 0)
    assert "items" not in repr(event)


def test_an_operation_that_is_over_never_defers(emulator, store):
    order("11", emulator=emulator)

    assert operation_sensor(deferrable=True).execute({"task_state_store": store})["status"] == "done"


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ({}, AirflowFailException),
        ({"soft_fail": True}, AirflowSkipException),
        ({"skip_on": "failed"}, AirflowSkipException),
        ({"skip_on": ["failed"], "until": {"failed"}}, AirflowSkipException),
        ({"until": ["done", "failed"]}, None),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_failed_operation_follows_until_and_skip_on(emulator, store, states, outcome, deferrable):
    order("5001", emulator=emulator)
    sensor = operation_sensor(deferrable=deferrable, **states)

    if outcome is None:
        assert sensor.execute({"task_state_store": store})["error"] == "No workflow could be started."
    else:
        with pytest.raises(outcome, match="901001 is failed .No workflow could be started"):
            sensor.execute({"task_state_store": store})


def test_partial_success_is_success_unless_configured_otherwise(emulator, store):
    order("11", "5001", emulator=emulator)

    assert operation_sensor().execute({"task_state_store": store})["status"] == "partial_done"
    with pytest.raises(AirflowFailException, match="partial_done, 1 done, 1 failed"):
        operation_sensor(until="done").execute({"task_state_store": store})


def test_a_cancelled_operation_is_over(emulator, store):
    shown(emulator, status="cancelled")

    with pytest.raises(AirflowFailException, match="is cancelled"):
        operation_sensor().execute({"task_state_store": store})


@pytest.mark.parametrize(("completed_at", "over"), [("2026-01-01T00:00:00Z", True), (None, False)])
def test_operation_of_unknown_status_with_an_end_has_ended(emulator, store, completed_at, over):
    shown(emulator, status="archived", completed_at=completed_at)

    if over:
        with pytest.raises(AirflowFailException, match="is archived"):
            operation_sensor().execute({"task_state_store": store})
    else:
        assert operation_sensor().poke({"task_state_store": store}) is False


@pytest.mark.parametrize(
    "result", [None, {}, 7, {"completed_items": None}, {"failed_items": "x"}, {"completed_items": [1]}]
)
def test_a_result_of_another_format_has_no_items(emulator, store, result):
    shown(emulator, result=result)

    ended = operation_sensor().execute({"task_state_store": store})

    assert (ended["completed_items"], ended["failed_items"], ended["completed"]) == ([], [], 0)


def test_a_malformed_operation_is_polled_again(emulator, store):
    shown(emulator, status=["done"])

    assert operation_sensor().poke({"task_state_store": store}) is False


@pytest.mark.parametrize("deferrable", [False, True])
def test_operation_shown_only_later_is_waited_for(emulator, store, monkeypatch, deferrable):
    emulator.control("PATCH", "flags", operation_visible_after=300)
    order("11", emulator=emulator)
    context = {"task_state_store": store}
    if deferrable:
        deferral = deferred(operation_sensor(), context)
        trigger_reads(monkeypatch, emulator, pass_after=3, seconds=300)
        ended = operation_sensor().execute_complete(context, first_event(deferral.trigger))
    else:
        trigger_reads(monkeypatch, emulator, pass_after=3, seconds=300)
        ended = operation_sensor().execute(context)

    assert ended["status"] == "done"
    assert polls(emulator) >= 4


def trigger_reads(monkeypatch, emulator, *, pass_after: int, seconds: float) -> None:
    """Let the emulator's clock move on after a number of polls."""
    really, polls = ProcoreHook.get_async_operation, []

    def read(hook, operation_id):
        polls.append(operation_id)
        if len(polls) == pass_after + 1:
            emulator.control("POST", "clock", advance=seconds)
        return really(hook, operation_id)

    monkeypatch.setattr(ProcoreHook, "get_async_operation", read)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_lasting_404_of_an_operation_ends_the_wait(emulator, store, deferrable):
    context = {"task_state_store": store}

    def wait():
        if not deferrable:
            return operation_sensor("1").execute(context)
        event = first_event(deferred(operation_sensor("1"), context).trigger)
        return operation_sensor().execute_complete(context, event)

    with pytest.raises(WorkflowsError, match="Operation 1 was not found"):
        wait()

    # The first poke is the worker's; a triggerer counts for itself.
    assert polls(emulator) == 3 + deferrable


def test_timeout_says_that_procore_does_not_show_the_operation(emulator, store):
    trigger = deferred(operation_sensor("1"), {"task_state_store": store}).trigger
    trigger.deadline = (datetime.now(timezone.utc) + timedelta(seconds=1)).isoformat()

    event = first_event(trigger)

    assert event["status"] == "timeout"
    assert "Operation 1 was not found" in event["last_poll"]


@pytest.mark.parametrize("case", BEHAVIOUR_FLAGS["background_status_case"].values)
def test_the_status_of_an_operation_counts_in_any_case(emulator, store, case):
    emulator.control("PATCH", "flags", background_status_case=case)
    order("11", "5001", emulator=emulator)

    assert operation_sensor().execute({"task_state_store": store})["status"] == "partial_done"
    with pytest.raises(AirflowSkipException):
        operation_sensor(skip_on="partial_done").execute({"task_state_store": store})


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 500}, {"status": 429}, {"reset": "before"}])
def test_wait_continues_through_transient_errors(emulator, store, fault):
    order("11", delay=600, emulator=emulator)
    deferral = deferred(operation_sensor(), {"task_state_store": store})
    emulator.control("POST", "clock", advance=600)
    emulator.control("POST", "faults", path=OPERATION, times=2, **fault)

    assert first_event(deferral.trigger)["result"]["operations"][0]["status"] == "done"


def test_a_wait_beyond_its_time_ends_in_every_mode(emulator, store):
    order("11", delay=600, emulator=emulator)
    trigger = deferred(operation_sensor(), {"task_state_store": store}).trigger
    trigger.deadline = (datetime.now(timezone.utc) + timedelta(seconds=1)).isoformat()
    event = first_event(trigger)

    assert event == {"status": "timeout", "last_poll": "Operation 901001 is created"}
    with pytest.raises(AirflowSensorTimeout):
        operation_sensor().execute_complete({"task_state_store": store}, event)
    with pytest.raises(AirflowSensorTimeout):
        operation_sensor(timeout=0.2).execute({})


def test_several_operations_are_polled_until_each_has_ended(emulator, store):
    ended = order("11", emulator=emulator)
    running = order("12", delay=600, emulator=emulator)
    arguments = {
        "procore_conn_id": "procore_default",
        "company_id": None,
        "operation_ids": [ended, running],
        "poll_interval": 0.01,
        "deadline": None,
    }
    trigger = ProcoreAsyncOperationWaitTrigger(**arguments)
    hook = ProcoreHook()

    assert trigger.poll_once(hook)[1] is None
    assert trigger.poll_once(hook)[1] is None
    before = polls(emulator)
    assert before == 3
    emulator.control("POST", "clock", advance=600)
    wait_result = trigger.poll_once(hook)[1]

    assert wait_result.action == "succeed"
    assert [o["operation_id"] for o in wait_result.result["operations"]] == [ended, running]
    assert polls(emulator) == before + 1


def test_trigger_survives_a_round_trip_through_the_database():
    arguments = {
        "procore_conn_id": "c",
        "company_id": "1",
        "operation_ids": ["2", "3"],
        "until": ["done"],
        "skip_on": ["failed"],
        "poll_interval": 60.0,
        "deadline": None,
        "resume_kwargs": {"x": 1},
    }

    assert ProcoreAsyncOperationWaitTrigger(**arguments).serialize()[1] == arguments


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"operation_id": ""}, "operation_id"),
        ({"operation_id": None}, "operation_id"),
        ({"until": "finished"}, "until: unknown state 'finished'"),
        ({"until": ()}, "until must name"),
        ({"until": ["in_progress"]}, "until: unknown state 'in_progress'"),
        ({"skip_on": "x"}, "skip_on: unknown state 'x'"),
        ({"company_id": ""}, "company_id"),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named, deferrable):
    with pytest.raises(ConfigurationError, match=named):
        operation_sensor(deferrable=deferrable, **parameters).execute({})
    assert emulator.requests() == []
