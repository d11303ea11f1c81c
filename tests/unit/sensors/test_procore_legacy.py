"""Waits on a legacy workflow: the same result in every mode, and yesterday's state is not today's answer."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import ConfigurationError, NotFound
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from tests.support import examples
from tests.support.people import People
from tests.unit.operators.test_procore_legacy_perform_activity import INSTANCE, perform, performed, person
from tests.unit.sensors.test_procore import deferred, first_event

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]


def sensor(**parameters) -> ProcoreLegacyInstanceSensor:
    where = {} if {"instance_id", "object_id"} & set(parameters) else {"instance_id": INSTANCE}
    defaults = {"until": {"PO Approved", "Start"}, "timeout": 30, "poke_interval": 0.05}
    return ProcoreLegacyInstanceSensor(task_id="wait", **{**defaults, **where, **parameters})


def test_every_mode_returns_the_same(emulator, store):
    context = {"task_state_store": store}
    after = perform().execute(context)["history_id"]
    deferral = deferred(sensor(after=after), context)
    person(emulator, "Approve")

    at_once = sensor(after=after, deferrable=True).execute(context)
    by_poke = sensor(after=after).execute(context)
    resumed = sensor(after=after).execute_complete(context, first_event(deferral.trigger))

    assert at_once == by_poke == resumed
    assert resumed == {
        "instance_id": INSTANCE,
        "object_id": "1953145",
        "object_type": "Contract",
        "project_id": "1001",
        "state": "PO Approved",
        "state_id": "18708",
        "status": "Approved",
        "state_set_at": resumed["state_set_at"],
        "activities": [],
        "ball_in_court": [],
        "terminated_at": None,
        "workflow": "Purchase Order Approval Workflow",
    }


@pytest.mark.parametrize("by", ["history_id", "performed_at"])
def test_start_again_is_a_denial_and_start_before_is_not(emulator, store, by):
    context = {"task_state_store": store}
    emulator.control("POST", "clock", advance=60)
    after = perform().execute(context)[by]
    assert sensor(after=after).poke(context) is False

    person(emulator, "Deny")

    assert sensor(after=after).execute(context)["state"] == "Start"


def test_the_state_from_before_our_activity_is_no_answer_while_it_still_lasts(emulator, store):
    joint = {"instance_id": "568151", "activity": "Accept", "role": "Project Manager"}
    emulator.control("POST", "clock", advance=60)
    after = perform(**joint).execute({"task_state_store": store})["history_id"]

    wait = sensor(instance_id="568151", until={"Joint Review", "Accepted"}, after=after)

    assert wait.poke({"task_state_store": store}) is False
    person(emulator, "Accept", "rita@example.com", "568151")
    assert wait.execute({"task_state_store": store})["state"] == "Accepted"


def test_a_denial_within_the_second_of_our_activity_is_seen(emulator, store):
    context = {"task_state_store": store}
    after = perform().execute(context)["history_id"]
    where = f"procore/legacy/instances/{INSTANCE}/perform"
    emulator.control("POST", where, activity="Deny", login="rita@example.com")

    assert sensor(after=after).execute(context)["state"] == "Start"


# --- until an activity can be performed ---


def test_every_mode_ends_when_the_activity_opens_and_its_result_pins_the_activity(emulator, store):
    context = {"task_state_store": store}
    opens = {"until": (), "activity": "approve", "role": "reviewer"}
    assert sensor(**opens).poke(context) is False
    deferral = deferred(sensor(**opens), context)
    person(emulator, "Submit for Approval", "pat@example.com")

    at_once = sensor(**opens, deferrable=True).execute(context)
    by_poke = sensor(**opens).execute(context)
    resumed = sensor(**opens).execute_complete(context, first_event(deferral.trigger))

    assert at_once == by_poke == resumed
    assert resumed["state"] == "Pending Approval"
    pin = {name: resumed[name] for name in ("state_id", "state_set_at")}
    result = perform(activity="Approve", performed_by="rita@example.com", **pin).execute({})
    assert result["state_before"] == {
        "id": resumed["state_id"],
        "name": "Pending Approval",
        "status": "Under Review",
        "set_at": resumed["state_set_at"],
    }


@pytest.mark.parametrize("wish", [{"activity": 29950}, {"activity": "Accept", "role": "14304"}])
def test_an_activity_and_its_role_are_named_by_name_or_id(emulator, store, wish):
    found = sensor(instance_id="568151", until=(), **wish).execute({"task_state_store": store})

    assert found["state"] == "Joint Review"


def test_an_activity_that_is_open_to_another_role_only_is_not_meant(emulator, store):
    perform(instance_id="568151", activity="Accept", role="Project Manager").execute({"task_state_store": store})

    waits = {"instance_id": "568151", "until": (), "activity": "Accept"}
    assert sensor(**waits, role="Project Manager").poke({}) is False
    assert sensor(**waits, role="Reviewer").execute({})["state"] == "Joint Review"


@pytest.mark.parametrize(("decision", "state"), [("Approve", "PO Approved"), ("Deny", "Start")])
def test_a_state_and_an_activity_are_waited_for_whichever_comes_first(emulator, store, decision, state):
    person(emulator, "Submit for Approval", "pat@example.com")
    wait = sensor(until={"PO Approved"}, activity="Submit for Approval")
    assert wait.poke({"task_state_store": store}) is False

    person(emulator, decision)

    assert wait.execute({"task_state_store": store})["state"] == state


def test_an_activity_from_before_our_own_is_no_answer(emulator, store):
    emulator.control("POST", "clock", advance=60)
    ours = {"instance_id": "568151", "activity": "Accept"}
    after = perform(**ours, role="Project Manager").execute({"task_state_store": store})["history_id"]

    assert sensor(**ours, until=()).execute({})["state"] == "Joint Review"
    assert sensor(**ours, until=(), after=after).poke({}) is False


def test_an_instance_that_ends_fails_the_wait_for_an_activity(emulator, store):
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="without reaching activity 'Approve'"):
        sensor(until=(), activity="Approve").execute({"task_state_store": store})


# --- what ends a wait otherwise ---


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ({"fail_on": {"pending approval"}}, AirflowFailException),
        ({"skip_on": {"Under Review"}}, AirflowSkipException),
    ],
)
def test_the_author_says_what_a_state_does(emulator, store, words, outcome):
    person(emulator, "Submit for Approval", "pat@example.com")

    with pytest.raises(outcome):
        sensor(until={"PO Approved"}, **words).execute({"task_state_store": store})


def test_a_terminated_instance_fails_a_wait_for_something_else(emulator, store):
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="was terminated"):
        sensor(until={"PO Approved"}).execute({"task_state_store": store})
    assert sensor(until={"terminated"}).execute({"task_state_store": store})["terminated_at"] is not None


def test_the_object_can_be_named_instead_and_is_looked_up_once(emulator, store):
    trigger = deferred(
        sensor(object_type="Contract", object_id=1953145, until={"PO Approved"}), {"task_state_store": store}
    ).trigger

    assert trigger.serialize()[1]["instance_id"] == INSTANCE


def test_what_does_not_exist_ends_the_wait(emulator, store):
    with pytest.raises(NotFound):
        sensor(instance_id="4711").execute({"task_state_store": store})


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"instance_id": "1", "object_id": "2"}, "instance_id and object_id"),
        ({"object_id": "2"}, "object_type"),
        ({"until": ()}, "until must hold a state, or activity must be given"),
        ({"until": {""}}, "until must hold"),
        ({"activity": " "}, "activity is missing"),
        ({"activity": "Approve", "role": ""}, "role is missing"),
        ({"role": "Reviewer"}, "activity is missing"),
        ({"fail_on": {""}}, "fail_on must hold"),
        ({"after": "yesterday"}, "after must be a history id"),
        ({"after": ""}, "after is missing"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        sensor(**parameters).execute({})
    assert emulator.requests() == []


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize(
    ("reviewer", "reached"),
    [("Approve", "order_the_goods"), pytest.param("Deny", "rework", marks=pytest.mark.slow)],
)
@examples.EITHER_MODE
def test_example_submits_once_and_branches_on_the_decision(emulator, monkeypatch, reviewer, reached, deferrable):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)

    with People(emulator, reviewer=reviewer, thinking=1.0):
        run = examples.run("example_procore_legacy_purchase_order_approval")

    states = {task.task_id: task.state for task in run.get_task_instances()}
    assert states[reached] == "success"
    assert performed(emulator) == [("90001", "Submit for Approval"), ("90003", reviewer)]
