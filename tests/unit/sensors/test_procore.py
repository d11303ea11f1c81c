"""Waits on Procore: the same result in every mode, within the deadline."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    PokeReturnValue,
    TaskDeferred,
)

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.exceptions import ConfigurationError, NotFound, WorkflowsError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from tests.support.virtual_time import VirtualTime

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

INSTANCE = "700001"
TOOL = "purchase_order_contract"


def instance_sensor(**parameters) -> ProcoreInstanceSensor:
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    defaults = {"timeout": 30, "poke_interval": 0.05}
    return ProcoreInstanceSensor(task_id="wait", **{**defaults, **where, **parameters})


def respond(emulator, option: str, login: str = "integration@example.com") -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login=login, option=option)


def approve(emulator) -> None:
    respond(emulator, "Approve")
    respond(emulator, "Approve", "dana@example.com")


async def first_payload(trigger) -> dict:
    """Run a trigger as the triggerer does: built again from its serialized arguments."""
    path, arguments = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    async for event in type(trigger)(**arguments).run():
        return event.payload
    raise AssertionError("the trigger ended without an event")


def first_event(trigger) -> dict:
    return asyncio.run(first_payload(trigger))


def soon() -> str:
    """Return a deadline before which a trigger has time to poll."""
    return (datetime.now(timezone.utc) + timedelta(seconds=1)).isoformat()


def deferred(sensor, context) -> TaskDeferred:
    sensor.deferrable = True
    with pytest.raises(TaskDeferred) as deferral:
        sensor.execute(context)
    return deferral.value


def test_every_mode_returns_the_same(emulator, store):
    context = {"task_state_store": store}
    deferral = deferred(instance_sensor(), context)
    approve(emulator)

    by_poke = instance_sensor().poke(context)
    assert isinstance(by_poke, PokeReturnValue)
    at_once = instance_sensor(deferrable=True).execute(context)
    resumed = instance_sensor().execute_complete(context, first_event(deferral.trigger))

    assert by_poke.xcom_value == at_once == resumed
    assert resumed == {
        "instance_id": INSTANCE,
        "item_id": "5001",
        "state": "complete",
        "step": None,
        "item_status": "Approved",
        "decision": {
            "option": "Approve",
            "type": "approve",
            "by": "dana@example.com",
            "at": resumed["last_response"]["at"],
            "source": "overall_response",
            "candidates": [],
            "problem": None,
        },
        "last_response": {
            "option": "Approve",
            "type": "approve",
            "comment": None,
            "by": "dana@example.com",
            "at": resumed["last_response"]["at"],
        },
        "started_at": resumed["started_at"],
        "ended_at": resumed["ended_at"],
        "blocked_reason": None,
        "ambiguous": [],
        "project_id": "1001",
        "occurrence": None,
    }


def test_poking_sensor_continues_until_people_have_decided(emulator, store):
    sensor = instance_sensor()
    assert sensor.poke({"task_state_store": store}) is False
    approve(emulator)

    assert sensor.execute({"task_state_store": store})["item_status"] == "Approved"


def test_a_wait_that_is_over_never_defers(emulator, store):
    approve(emulator)

    assert instance_sensor(deferrable=True).execute({"task_state_store": store})["state"] == "complete"


def test_trigger_waits_for_a_change_with_one_request_a_poll(emulator, store):
    trigger = deferred(instance_sensor(), {"task_state_store": store}).trigger
    before = len(emulator.requests())

    async def decide_after_two_polls():
        event = asyncio.create_task(anext(aiter(trigger.run())))
        while len(emulator.requests()) < before + 2:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(approve, emulator)
        return (await event).payload

    payload = asyncio.run(decide_after_two_polls())

    assert payload["status"] == "done"
    paths = {request["path"].rpartition("/")[2] for request in emulator.requests()[before:]}
    assert paths == {"bulk_history"}


def test_nothing_secret_is_in_what_a_trigger_stores(emulator, store):
    _, arguments = deferred(instance_sensor(), {"task_state_store": store}).trigger.serialize()

    assert "secret" not in repr(arguments)
    assert arguments["procore_conn_id"] == "procore_default"


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ({"fail_on": {"terminated"}}, AirflowFailException),
        ({"skip_on": {"terminated"}}, AirflowSkipException),
        ({"until": {"complete"}}, AirflowFailException),
        ({"until": {"complete"}, "soft_fail": True}, AirflowSkipException),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_outcome_follows_until_fail_on_and_skip_on_in_every_mode(emulator, store, states, outcome, deferrable):
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")

    with pytest.raises(outcome):
        instance_sensor(deferrable=deferrable, **states).execute({"task_state_store": store})


def test_rejection_is_a_result_and_not_a_failure(emulator, store):
    respond(emulator, "Reject")

    result = instance_sensor().execute({"task_state_store": store})

    assert (result["state"], result["item_status"]) == ("complete", "Rejected")


def test_a_state_before_the_end_can_be_waited_for(emulator, store):
    emulator.control("POST", "clock", advance=4 * 24 * 3600)

    assert instance_sensor(until="overdue").execute({"task_state_store": store})["state"] == "overdue"


def test_waiting_by_item_follows_a_restart_to_the_new_instance(emulator, store):
    sensor = instance_sensor(item_id=5001, tool_type=TOOL, until={"complete"})
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")
    new = emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5001")["id"]

    assert sensor.poke({"task_state_store": store}) is False
    emulator.control("POST", f"procore/instances/{new}/respond", login="integration@example.com", option="Reject")
    assert sensor.execute({"task_state_store": store})["instance_id"] == new


def test_an_item_without_a_workflow_ends_the_wait_with_its_name(emulator, store):
    with pytest.raises(NotFound, match="Item 4711"):
        instance_sensor(item_id="4711", tool_type=TOOL).execute({"task_state_store": store})


@pytest.mark.parametrize("history", ["full", "events_only"])
def test_both_formats_of_the_history_are_read(emulator, store, history):
    emulator.control("PATCH", "flags", history=history)
    approve(emulator)

    result = instance_sensor().execute({"task_state_store": store})

    assert (result["state"], result["item_status"]) == ("complete", "Approved")
    assert result["ended_at"] is not None


# --- deadlines ---


def test_the_deadline_survives_a_retry(emulator, store):
    first = instance_sensor()
    first.poke({"task_state_store": store})
    again = instance_sensor()
    again.poke({"task_state_store": store})

    assert first.deadline == again.deadline == store["deadline"]


def test_passed_deadline_ends_the_wait_in_every_mode(emulator, store):
    store.set("deadline", (datetime.now(timezone.utc) - timedelta(seconds=1)).isoformat())

    for deferrable in (False, True):
        with pytest.raises(AirflowSensorTimeout):
            instance_sensor(deferrable=deferrable).execute({"task_state_store": store})
        with pytest.raises(AirflowSkipException):
            instance_sensor(deferrable=deferrable, soft_fail=True).execute({"task_state_store": store})


def test_trigger_ends_at_its_deadline_and_the_task_times_out(emulator, store):
    sensor = instance_sensor()
    trigger = deferred(sensor, {"task_state_store": store}).trigger
    trigger.deadline = soon()
    payload = first_event(trigger)

    assert payload["status"] == "timeout"
    assert "at step 'Budget Check'" in payload["last_poll"]
    with pytest.raises(AirflowSensorTimeout):
        sensor.execute_complete({"task_state_store": store}, payload)


def test_airflows_timeout_comes_after_the_deadline(emulator, store):
    assert deferred(instance_sensor(timeout=60), {"task_state_store": store}).timeout > timedelta(seconds=60)


def test_trigger_polls_after_a_delay_and_at_each_interval(emulator, store, monkeypatch):
    """Airflow can fail a task whose trigger fires within seconds of its deferral."""
    monkeypatch.setattr("airflow_provider_workflows.polling.poll.MIN_FIRST_DELAY_SECONDS", 5.0)
    trigger = deferred(instance_sensor(timeout=3600), {"task_state_store": store}).trigger
    trigger.poll_interval = 60.0
    polled_at: list[float] = []
    call = RestClient.call

    def recorded(client, method, path, **kwargs):
        if path.endswith("/bulk_history"):
            polled_at.append(clock.elapsed)
            if len(polled_at) == 3:
                approve(emulator)
        return call(client, method, path, **kwargs)

    monkeypatch.setattr(RestClient, "call", recorded)
    with VirtualTime() as clock:
        event = clock.run(first_payload(trigger))

    assert event["status"] == "done"
    assert 5 <= polled_at[0] <= 60
    assert [later for before, later in pairwise(polled_at) if not 59 <= later - before <= 72] == []
    assert len(polled_at) == 3


# --- faults ---


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"status": 500}, {"reset": "before"}])
def test_wait_continues_through_transient_errors(emulator, store, fault):
    deferral = deferred(instance_sensor(), {"task_state_store": store})
    emulator.control("POST", "faults", path="history$", times=3, **fault)
    approve(emulator)

    assert first_event(deferral.trigger)["result"]["state"] == "complete"
    after_the_workers = [request for request in emulator.requests() if request["path"].endswith("history")][1:]
    assert len(after_the_workers) == 4


def test_poke_survives_an_error_longer_than_the_clients_retries(emulator, store):
    emulator.control("POST", "faults", path="/history$", status=500)

    assert instance_sensor().poke({"task_state_store": store}) is False


def test_trigger_polls_no_earlier_than_the_server_stated(emulator, store):
    trigger = deferred(instance_sensor(timeout=3), {"task_state_store": store}).trigger
    emulator.control("POST", "faults", path="history$", times=99, status=429, headers={"Retry-After": "3600"})
    before = len(emulator.requests())

    event = first_event(trigger)
    assert event["status"] == "timeout"
    assert event["last_poll"].startswith("Instance 700001 of item 5001")
    assert "The last poll failed: Rate-limited by the server until" in event["last_poll"]
    assert len(emulator.requests()) == before + 1


@pytest.mark.usefixtures("impatient")
def test_a_rejection_ends_the_wait_and_says_why(emulator, store):
    sensor = instance_sensor()
    deferral = deferred(sensor, {"task_state_store": store})
    emulator.control("POST", "faults", path="history$", times=99, status=403, json={"error": {"message": "No access"}})
    payload = first_event(deferral.trigger)

    assert (payload["status"], payload["error"]) == ("error", "PermissionDenied")
    with pytest.raises(WorkflowsError, match="PermissionDenied: .*No access"):
        sensor.execute_complete({"task_state_store": store}, payload)


@pytest.mark.parametrize("malformed", [{"history": 7}, {"history": [], "status": ["malformed"]}])
@pytest.mark.usefixtures("impatient")
def test_unexpected_response_is_a_typed_error_in_a_trigger(emulator, store, malformed):
    deferral = deferred(instance_sensor(), {"task_state_store": store})
    of_items = [{"item_id": "5001", "instances": [{"instance_id": INSTANCE, **malformed}]}]
    emulator.control("POST", "faults", path="bulk_history$", times=99, status=200, json={"data": of_items})
    emulator.control("POST", "faults", path="/history$", times=99, status=200, json={"data": malformed})

    assert first_event(deferral.trigger)["error"] == "UnexpectedResponse"
    assert instance_sensor().poke({"task_state_store": store}) is False


@pytest.mark.parametrize("whole", [{"json": {"data": {"malformed": 7}}}, {"body": "<html>Maintenance</html>"}])
def test_a_malformed_bulk_history_ends_no_wait(emulator, store, whole):
    deferral = deferred(instance_sensor(), {"task_state_store": store})
    emulator.control("POST", "faults", path="bulk_history$", times=99, status=200, **whole)
    approve(emulator)

    assert first_event(deferral.trigger)["status"] == "done"


@pytest.mark.parametrize("event", [None, {}, {"status": "surprise"}])
def test_unknown_event_is_an_error(event):
    with pytest.raises(WorkflowsError, match="does not know"):
        instance_sensor().execute_complete({}, event)


def test_revoked_tokens_are_renewed_during_a_wait(emulator, store):
    deferral = deferred(instance_sensor(), {"task_state_store": store})
    approve(emulator)
    emulator.control("POST", "tokens/revoke")

    assert first_event(deferral.trigger)["status"] == "done"


# --- parameters ---


@pytest.mark.parametrize("parameter", ["step_reached", "step_decided"])
def test_name_of_a_step_may_read_like_a_fraction(parameter):
    assert instance_sensor(**{parameter: ["2.1"]}).poke({}) is False


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"instance_id": "1", "item_id": "2"}, "instance_id and item_id"),
        ({"instance_id": None}, "instance_id, item_id"),
        ({"item_id": "5001"}, "tool_type"),
        ({"until": {"approved"}}, "until: unknown state 'approved'"),
        ({"until": ()}, "until must name"),
        ({"fail_on": "gone"}, "fail_on: unknown state 'gone'"),
        ({"poke_interval": 0}, "poke_interval must be seconds or a timedelta, more than 0"),
        ({"poke_interval": timedelta(0)}, "poke_interval must be seconds or a timedelta, more than 0"),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named, deferrable):
    with pytest.raises(ConfigurationError, match=named):
        instance_sensor(deferrable=deferrable, **parameters).execute({})
    assert emulator.requests() == []


# --- who is waited for ---


def requested_sensor(**parameters) -> ProcoreResponseRequestedSensor:
    return ProcoreResponseRequestedSensor(task_id="wait", poke_interval=0.05, **{"tool_type": TOOL, **parameters})


def test_requests_to_the_connections_user_are_returned_with_options(emulator, store):
    context = {"task_state_store": store}

    (request,) = requested_sensor().execute(context)

    assert (request["instance_id"], request["item_id"], request["project_id"]) == (INSTANCE, "5001", "1001")
    assert request["step"] == "Budget Check"
    assert [option["name"] for option in request["options"]] == ["Approve", "Return", "Reject"]


def test_trigger_finds_a_request_that_comes_later(emulator, store):
    respond(emulator, "Approve")
    sensor = requested_sensor()
    deferral = deferred(sensor, {"task_state_store": store})
    respond(emulator, "Return", "dana@example.com")

    resumed = sensor.execute_complete({"task_state_store": store}, first_event(deferral.trigger))

    assert [request["step"] for request in resumed] == ["Budget Check"]


def test_request_to_another_user_is_found_over_tools_and_projects(emulator, store):
    sensor = requested_sensor(user=90004, tool_type=[TOOL, "generic_tool_item"], project_id=["1001"])
    assert sensor.poke({"task_state_store": store}) is False
    respond(emulator, "Approve")

    assert sensor.execute({"task_state_store": store})[0]["step"] == "Director Approval"


def test_instances_of_other_tools_and_items_do_not_count(emulator, store):
    emulator.control("PATCH", "flags", filters="ignored")
    emulator.control("POST", "procore/instances", tool_type="generic_tool_item", item_id="5001")
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")
    emulator.control("POST", "procore/instances/700003/terminate")

    rows = ProcoreResponseRequestedSensor(task_id="waiting", tool_type=TOOL).execute({"task_state_store": store})
    waited = ProcoreInstanceSensor(task_id="wait", tool_type=TOOL, item_id="5002").execute({"task_state_store": store})

    assert [row["instance_id"] for row in rows] == [INSTANCE]
    assert (waited["instance_id"], waited["state"]) == ("700003", "terminated")


def test_a_tool_must_be_named(emulator):
    with pytest.raises(ConfigurationError, match="tool_type"):
        requested_sensor(tool_type=[]).execute({})


# --- the link ---


def test_link_leads_to_the_item_if_the_connection_has_item_url(emulator, store, set_connection):
    connection = emulator.connection("procore")
    connection["extra"]["item_url"] = "https://app.example.com/{project_id}/orders/{item_id}"
    set_connection("procore_default", connection)
    approve(emulator)
    sensor = instance_sensor()
    link, _ = sensor.operator_extra_links

    assert link.get_link(sensor, ti_key=None) == ""
    sensor.execute({"task_state_store": store})
    assert link.get_link(sensor, ti_key=None) == "https://app.example.com/1001/orders/5001"


def test_trigger_survives_a_round_trip_through_the_database():
    arguments = {
        "procore_conn_id": "c",
        "company_id": "1",
        "project_id": None,
        "instance_id": "2",
        "tool_type": None,
        "tool_subtype": "-1",
        "item_id": "3",
        "until": ["complete"],
        "fail_on": [],
        "skip_on": [],
        "step_reached": ["Director Approval"],
        "step_decided": [],
        "after": "2026-01-01T00:00:00Z",
        "terminate_on_kill": False,
        "poll_interval": 60.0,
        "deadline": None,
    }

    assert ProcoreInstanceWaitTrigger(**arguments).serialize()[1] == arguments


# --- steps ---


def test_reached_step_ends_the_wait_in_every_mode(emulator, store):
    context = {"task_state_store": store}
    desired = {"step_reached": "director approval"}
    assert instance_sensor(**desired).poke(context) is False
    deferral = deferred(instance_sensor(**desired), context)
    respond(emulator, "Approve")

    by_poke = instance_sensor(**desired).poke(context).xcom_value
    resumed = instance_sensor(**desired).execute_complete(context, first_event(deferral.trigger))

    assert by_poke == resumed
    assert (resumed["state"], resumed["step"]) == ("in_progress", "Director Approval")
    assert resumed["occurrence"] == {
        "step": "Director Approval",
        "step_occurrence_id": f"{INSTANCE}03",
        "started_at": resumed["occurrence"]["started_at"],
        "ended_at": None,
        "decision": None,
        "response": None,
    }
    assert resumed["occurrence"]["started_at"] is not None


def test_a_step_is_named_by_its_uuid_too(emulator, store):
    uuid = ProcoreHook().get_instance(INSTANCE)["current_step_occurrence"]["step_uuid"]

    result = instance_sensor(step_reached=[uuid.upper()]).execute({"task_state_store": store})

    assert result["occurrence"]["step"] == "Budget Check"


def test_step_decided_ends_after_the_response(emulator, store):
    sensor = instance_sensor(step_decided=["Budget Check"])
    assert sensor.poke({"task_state_store": store}) is False
    respond(emulator, "Approve")

    occurrence = sensor.execute({"task_state_store": store})["occurrence"]

    assert occurrence["response"]["option"] == "Approve"
    assert occurrence["ended_at"] is not None


def test_the_first_of_several_steps_ends_the_wait(emulator, store):
    respond(emulator, "Return")

    result = instance_sensor(step_reached={"Director Approval", "Correct Order"}).execute({"task_state_store": store})

    assert result["occurrence"]["step"] == "Correct Order"


def test_an_earlier_occurrence_of_the_step_does_not_count(emulator, store):
    first = instance_sensor(step_decided="Budget Check")
    respond(emulator, "Return")
    seen = first.execute({"task_state_store": store})["occurrence"]["step_occurrence_id"]
    again = instance_sensor(step_decided="Budget Check", after=seen)
    assert again.poke({"task_state_store": store}) is False

    respond(emulator, "Resubmit", "pat@example.com")
    assert again.poke({"task_state_store": store}) is False
    respond(emulator, "Reject")
    occurrence = again.execute({"task_state_store": store})["occurrence"]

    assert occurrence["step_occurrence_id"] != seen
    assert occurrence["response"]["option"] == "Reject"


def test_an_occurrence_before_a_time_does_not_count(emulator, store):
    emulator.control("POST", "clock", advance=60)
    after = emulator.control("GET", "clock")["now"]
    emulator.control("POST", "clock", advance=60)
    sensor = instance_sensor(step_reached=["Budget Check", "Director Approval"], after=after)
    assert sensor.poke({"task_state_store": store}) is False

    respond(emulator, "Approve")

    assert sensor.execute({"task_state_store": store})["occurrence"]["step"] == "Director Approval"


@pytest.mark.parametrize("after", ["2026", "10000101", 20260101, "0190f0a0-1111-7abc-8def-001122334455", "PRJ-7"])
def test_occurrence_with_digits_like_a_date_is_not_a_time(emulator, store, after):
    assert instance_sensor(step_reached="Budget Check", after=after).poke({"task_state_store": store}) is False


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_instance_that_ends_without_the_step_fails_the_wait(emulator, store, deferrable):
    respond(emulator, "Reject")

    with pytest.raises(AirflowFailException, match="ended without reaching step 'Director Approval' reached"):
        instance_sensor(step_reached="Director Approval", deferrable=deferrable).execute({"task_state_store": store})


def test_a_step_and_a_state_can_be_waited_for_together(emulator, store):
    respond(emulator, "Reject")

    result = instance_sensor(step_reached="Director Approval", until="complete").execute({"task_state_store": store})

    assert (result["state"], result["occurrence"]) == ("complete", None)


def test_fail_on_overrides_a_reached_step(emulator, store):
    emulator.control("POST", f"procore/instances/{INSTANCE}/block", reason="x")

    with pytest.raises(AirflowFailException, match="is blocked"):
        instance_sensor(step_reached="Budget Check", fail_on="blocked").execute({"task_state_store": store})


@pytest.mark.parametrize("parameters", [{"step_reached": None}, {"step_reached": [], "step_decided": None}])
def test_empty_step_waits_for_no_step(emulator, store, parameters):
    sensor = instance_sensor(**parameters)
    assert sensor.poke({"task_state_store": store}) is False
    approve(emulator)

    assert sensor.execute({"task_state_store": store})["state"] == "complete"


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"step_reached": ""}, "step_reached"),
        ({"step_reached": "None"}, "step_reached"),
        ({"step_decided": ["Budget Check", None]}, "step_decided"),
        ({"step_reached": "x", "after": ""}, "after"),
        ({"step_reached": "x", "after": "next tuesday"}, "after must be a step occurrence"),
        ({"step_reached": "x", "after": "20261130T080000"}, "an ISO-8601 time with its zone; got '20261130T080000'"),
        ({"step_reached": "x", "after": "2026-W49-1"}, "after must be a step occurrence"),
        ({"step_reached": "x", "after": "P1D"}, "after must be a step occurrence"),
        ({"project_id": ""}, "project_id"),
        ({"company_id": ""}, "company_id"),
        ({"item_id": "1", "tool_type": "x", "tool_subtype": " "}, "tool_subtype"),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_bad_parameter_of_a_step_is_named_before_sending(emulator, parameters, named, deferrable):
    with pytest.raises(ConfigurationError, match=named):
        instance_sensor(deferrable=deferrable, **parameters).execute({})
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"tool_type": None}, "tool_type"),
        ({"tool_type": [TOOL, ""]}, "tool_type"),
        ({"project_id": []}, "project_id"),
        ({"project_id": ["1001", "None"]}, "project_id"),
        ({"user": ""}, "user"),
        ({"tool_subtype": ""}, "tool_subtype"),
    ],
)
@pytest.mark.parametrize("deferrable", [False, True])
def test_bulk_replace_names_a_bad_parameter_before_sending(emulator, parameters, named, deferrable):
    with pytest.raises(ConfigurationError, match=named):
        requested_sensor(deferrable=deferrable, **parameters).execute({})
    assert emulator.requests() == []


# --- restarts, levels, subtypes ---


def test_a_deferred_wait_by_item_follows_a_restart(emulator, store):
    sensor = instance_sensor(item_id="5001", tool_type=TOOL, until={"complete"})
    deferral = deferred(sensor, {"task_state_store": store})
    new = ProcoreHook().restart_instance(INSTANCE)["id"]
    emulator.control("POST", f"procore/instances/{new}/respond", login="integration@example.com", option="Reject")

    result = sensor.execute_complete({"task_state_store": store}, first_event(deferral.trigger))

    assert (result["instance_id"], result["state"]) == (new, "complete")


def test_a_wait_for_an_instance_ends_with_it_when_it_is_restarted(emulator, store):
    ProcoreHook().restart_instance(INSTANCE)

    assert instance_sensor().execute({"task_state_store": store})["state"] == "terminated"


@pytest.mark.parametrize("deferrable", [False, True])
def test_company_tool_is_polled_at_company_level(emulator, store, deferrable):
    tool = {"tool_type": "prequalification", "item_id": "81"}
    new = emulator.control("POST", "procore/instances", **tool, project_id=None)["id"]
    emulator.control("POST", f"procore/instances/{new}/terminate")

    by_item = instance_sensor(**tool, deferrable=deferrable).execute({"task_state_store": store})
    by_id = instance_sensor(instance_id=new, project_id="company").execute({})

    assert (by_item["instance_id"], by_item["state"]) == (new, "terminated")
    assert by_id == by_item


def test_company_level_request_can_be_responded_to(emulator, store):
    emulator.control("POST", "procore/instances", tool_type="prequalification", item_id="81", project_id=None)

    (request,) = requested_sensor(tool_type="prequalification").execute({"task_state_store": store})

    assert (request["item_id"], request["project_id"]) == ("81", "company")
    where = {name: request[name] for name in ("instance_id", "project_id", "step_occurrence_id")}
    result = ProcoreRespondOperator(task_id="respond", option="approve", **where).execute({"task_state_store": store})
    assert result["already_recorded"] is False


LETTER = {"tool_type": "correspondence", "tool_subtype": "-123456789"}


def test_correspondence_is_waited_for_by_item_in_both_modes(emulator, store):
    new = emulator.control("POST", "procore/instances", **LETTER, item_id="9")["id"]
    sensor = instance_sensor(**{**LETTER, "tool_subtype": -123456789}, item_id="9")
    deferral = deferred(sensor, {"task_state_store": store})
    emulator.control("POST", f"procore/instances/{new}/respond", login="rita@example.com", option="Approve")

    resumed = sensor.execute_complete({"task_state_store": store}, first_event(deferral.trigger))

    assert (resumed["instance_id"], resumed["item_status"]) == (new, "Approved")
    assert instance_sensor(**LETTER, item_id="9").execute({}) == resumed


def test_correspondence_request_is_found_with_its_subtype(emulator, store):
    emulator.control("POST", "procore/instances", **LETTER, item_id="9")

    (request,) = requested_sensor(**LETTER).execute({"task_state_store": store})

    assert (request["item_id"], request["step"]) == ("9", "Letter Review")


def test_a_misspelt_tool_is_named_even_with_a_project(emulator, store):
    sensor = requested_sensor(tool_type="purchase_order", project_id="1001")

    with pytest.raises(ConfigurationError, match=r"Unknown tool_type 'purchase_order'.*purchase_order_contract"):
        sensor.execute({"task_state_store": store})


def test_forbidden_instance_does_not_hide_the_others(emulator, store):
    emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="77")
    emulator.control("POST", "faults", method="GET", path="/instances/700001$", times=9, status=404, json={})

    found = requested_sensor().execute({"task_state_store": store})

    assert [request["item_id"] for request in found] == ["77"]


def test_an_instance_listed_under_two_names_is_one_request(emulator, store):
    sensor = requested_sensor(tool_type=["purchase_order_contract", "PurchaseOrderContract"], project_id=["1001", 1001])

    assert [request["instance_id"] for request in sensor.execute({"task_state_store": store})] == ["700001"]


def test_request_to_another_user_is_found_by_login(emulator, store):
    approve_own(emulator)

    found = requested_sensor(user="dana@example.com").execute({"task_state_store": store})

    assert [request["step"] for request in found] == ["Director Approval"]
    with pytest.raises(ConfigurationError, match="user: no user .* 'nobody@example.com'"):
        requested_sensor(user="nobody@example.com").execute({"task_state_store": store})


def approve_own(emulator) -> None:
    where = f"procore/instances/{INSTANCE}/respond"
    emulator.control("POST", where, login="integration@example.com", option="Approve")
