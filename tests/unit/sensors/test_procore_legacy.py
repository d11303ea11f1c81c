"""Waits on a Legacy workflow: the same result in every mode, and no state from before the wait counts."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import ConfigurationError, NotFound, UnexpectedResponse
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from tests.unit.operators.procore_legacy.test_perform_activity import INSTANCE, perform, person
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
        "matched_by": None,
    }


@pytest.mark.parametrize("by", ["history_id", "performed_at"])
def test_later_start_state_is_a_denial_and_an_earlier_one_is_not(emulator, store, by):
    context = {"task_state_store": store}
    emulator.control("POST", "clock", advance=60)
    after = perform().execute(context)[by]
    assert sensor(after=after).poke(context) is False

    person(emulator, "Deny")

    assert sensor(after=after).execute(context)["state"] == "Start"


def test_state_before_the_activity_does_not_end_the_wait(emulator, store):
    joint = {"instance_id": "568151", "activity": "Accept", "role": "Project Manager"}
    emulator.control("POST", "clock", advance=60)
    after = perform(**joint).execute({"task_state_store": store})["history_id"]

    wait = sensor(instance_id="568151", until={"Joint Review", "Accepted"}, after=after)

    assert wait.poke({"task_state_store": store}) is False
    person(emulator, "Accept", "rita@example.com", "568151")
    assert wait.execute({"task_state_store": store})["state"] == "Accepted"


def test_denial_within_the_second_of_the_activity_is_noticed(emulator, store):
    context = {"task_state_store": store}
    after = perform().execute(context)["history_id"]
    where = f"procore/legacy/instances/{INSTANCE}/perform"
    emulator.control("POST", where, activity="Deny", login="rita@example.com")

    assert sensor(after=after).execute(context)["state"] == "Start"


# --- until an activity can be performed ---


def test_every_mode_ends_when_the_activity_opens_and_pins_it(emulator, store):
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


@pytest.mark.parametrize("desired", [{"activity": 29950}, {"activity": "Accept", "role": "14304"}])
def test_an_activity_and_its_role_are_named_by_name_or_id(emulator, store, desired):
    found = sensor(instance_id="568151", until=(), **desired).execute({"task_state_store": store})

    assert found["state"] == "Joint Review"


def test_activity_of_another_role_does_not_end_the_wait(emulator, store):
    perform(instance_id="568151", activity="Accept", role="Project Manager").execute({"task_state_store": store})

    waits = {"instance_id": "568151", "until": (), "activity": "Accept"}
    assert sensor(**waits, role="Project Manager").poke({}) is False
    assert sensor(**waits, role="Reviewer").execute({})["state"] == "Joint Review"


@pytest.mark.parametrize(("decision", "state"), [("Approve", "PO Approved"), ("Deny", "Start")])
def test_wait_ends_with_a_state_or_an_activity(emulator, store, decision, state):
    person(emulator, "Submit for Approval", "pat@example.com")
    wait = sensor(until={"PO Approved"}, activity="Submit for Approval")
    assert wait.poke({"task_state_store": store}) is False

    person(emulator, decision)

    assert wait.execute({"task_state_store": store})["state"] == state


def test_activity_before_the_performed_one_does_not_end_the_wait(emulator, store):
    emulator.control("POST", "clock", advance=60)
    own = {"instance_id": "568151", "activity": "Accept"}
    after = perform(**own, role="Project Manager").execute({"task_state_store": store})["history_id"]

    assert sensor(**own, until=()).execute({})["state"] == "Joint Review"
    assert sensor(**own, until=(), after=after).poke({}) is False


def test_an_instance_that_ends_fails_the_wait_for_an_activity(emulator, store):
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="without reaching activity 'Approve'"):
        sensor(until=(), activity="Approve").execute({"task_state_store": store})


# --- an instance that lists no activity ---


@pytest.fixture
def gap(emulator):
    """An instance between two states: denied, and not in its next state before an hour has passed."""
    person(emulator, "Submit for Approval", "pat@example.com")
    emulator.control("PATCH", "flags", legacy_transition="delayed", transition_delay=3600)
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/perform", activity="Deny", login="rita@example.com")


@pytest.mark.usefixtures("gap")
def test_short_time_without_activities_ends_no_wait(emulator, store):
    wait = sensor(until={"Start"})
    context = {"task_state_store": store}
    assert wait.poke(context) is False
    trigger = deferred(sensor(until={"Start"}), context).trigger
    assert trigger.serialize()[1]["idle"] == store["idle"]
    assert "mark" not in trigger.serialize()[1]  # so that each poll reads it

    emulator.control("POST", "clock", advance=3600)

    assert wait.poke(context).xcom_value["state"] == "Start"


@pytest.mark.usefixtures("gap")
@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_long_time_without_activities_fails_the_wait(store, monkeypatch, mode):
    context = {"task_state_store": store}
    first = sensor(until={"Start"}, mode=mode)
    assert first.poke(context) is False
    other = first if mode == "poke" else sensor(until={"Start"}, mode=mode)

    monkeypatch.setattr("airflow_provider_workflows.triggers.procore_legacy.ENDED_AFTER_SECONDS", 0.0)

    with pytest.raises(AirflowFailException, match="no open activity"):
        other.poke(context)


def test_an_occurrence_without_activities_is_counted_for_itself(emulator, store, monkeypatch, gap):
    context = {"task_state_store": store}
    wait = sensor(until={"PO Approved"})
    assert wait.poke(context) is False
    emulator.control("POST", "clock", advance=3600)
    assert wait.poke(context) is False

    assert store["idle"] == {}
    monkeypatch.setattr("airflow_provider_workflows.triggers.procore_legacy.ENDED_AFTER_SECONDS", 0.0)
    assert wait.poke(context) is False


@pytest.mark.parametrize("ended_as", ["no_activities", "activities_listed", "not_found"])
def test_every_poll_of_an_ended_instance_ends_the_wait(emulator, store, ended_as):
    emulator.control("PATCH", "flags", legacy_ended=ended_as)
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")

    error = NotFound if ended_as == "not_found" else AirflowFailException
    with pytest.raises(error, match="404" if ended_as == "not_found" else "was terminated"):
        sensor(until={"PO Approved"}).execute({"task_state_store": store})


@pytest.mark.parametrize(
    ("side", "error"),
    [("unchanged", None), ("draft", None), ("terminated", AirflowFailException), ("not_found", NotFound)],
)
def test_instance_of_a_company_that_left_legacy_is_not_a_success(emulator, store, side, error):
    person(emulator, "Submit for Approval", "pat@example.com")
    emulator.control("POST", "procore/legacy/upgrade")
    emulator.control("PATCH", "flags", legacy_left_behind=side)

    wait = sensor(until={"PO Approved", "Draft"})
    if error is None:
        assert wait.poke({"task_state_store": store}) is False
    else:
        with pytest.raises(error, match="ProcoreItemSensor"):
            wait.poke({"task_state_store": store})


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_draft_that_the_switch_left_behind_fails_the_wait(emulator, store, monkeypatch, mode):
    context = {"task_state_store": store}
    emulator.control("POST", "procore/legacy/upgrade")
    emulator.control("PATCH", "flags", legacy_left_behind="draft")
    assert sensor(until={"draft"}, mode=mode).poke(context) is False

    monkeypatch.setattr("airflow_provider_workflows.triggers.procore_legacy.ENDED_AFTER_SECONDS", 0.0)

    with pytest.raises(AirflowFailException, match="ProcoreItemSensor"):
        sensor(until={"draft"}, mode=mode).poke(context)


@pytest.mark.parametrize("status", ["state", "object"])
def test_wait_ends_with_any_status(emulator, store, status):
    emulator.control("PATCH", "flags", legacy_status=status)
    deferral = deferred(sensor(until={"PO Approved"}), {"task_state_store": store})
    person(emulator, "Submit for Approval", "pat@example.com")
    person(emulator, "Approve")

    resumed = sensor(until={"PO Approved"}).execute_complete({}, first_event(deferral.trigger))

    assert resumed["status"] == ("Approved" if status == "state" else "Order: Approved")


@pytest.mark.parametrize("state_set_at", ["given", "null"])
def test_a_wait_for_a_state_needs_no_time_of_it(emulator, store, state_set_at):
    emulator.control("PATCH", "flags", legacy_state_set_at=state_set_at)

    assert sensor(until={"Start"}).execute({"task_state_store": store})["state"] == "Start"


def test_an_action_without_a_time_is_an_error_of_the_wait(store, monkeypatch):
    after = perform().execute({"task_state_store": store})["history_id"]
    show = ProcoreLegacyHook.get_activity_history
    monkeypatch.setattr(
        ProcoreLegacyHook, "get_activity_history", lambda *a, **k: {**show(*a, **k), "created_at": None}
    )

    monkeypatch.setenv("AIRFLOW__WORKFLOWS__REJECTION_PATIENCE", "0")
    with pytest.raises(UnexpectedResponse, match="Give after as a time"):
        sensor(after=after).execute({"task_state_store": store})


def test_wait_within_the_second_continues_without_a_history(emulator, store, monkeypatch):
    joint = {"instance_id": "568151", "activity": "Accept"}
    after = perform(**joint, role="Project Manager").execute({"task_state_store": store})["history_id"]
    monkeypatch.setattr(ProcoreLegacyHook, "list_activity_histories", lambda *a: [])

    assert sensor(**joint, until={"Joint Review"}, after=after).poke({}) is False


# --- what ends a wait otherwise ---


@pytest.mark.parametrize(
    ("states", "outcome"),
    [
        ({"fail_on": {"pending approval"}}, AirflowFailException),
        ({"skip_on": {"Under Review"}}, AirflowSkipException),
    ],
)
def test_state_follows_until_fail_on_and_skip_on(emulator, store, states, outcome):
    person(emulator, "Submit for Approval", "pat@example.com")

    with pytest.raises(outcome):
        sensor(until={"PO Approved"}, **states).execute({"task_state_store": store})


def test_a_terminated_instance_fails_a_wait_for_something_else(emulator, store):
    emulator.control("POST", f"procore/legacy/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="was terminated"):
        sensor(until={"PO Approved"}).execute({"task_state_store": store})
    assert sensor(until={"terminated"}).execute({"task_state_store": store})["terminated_at"] is not None


def test_object_instead_of_instance_is_looked_up_once(emulator, store):
    trigger = deferred(
        sensor(object_type="Contract", object_id=1953145, until={"PO Approved"}), {"task_state_store": store}
    ).trigger

    assert trigger.serialize()[1]["instance_id"] == INSTANCE


def test_missing_instance_ends_the_wait(emulator, store):
    with pytest.raises(NotFound):
        sensor(instance_id="4711").execute({"task_state_store": store})


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"project_id": ""}, "project_id is missing"),
        ({"object_type": "None"}, "object_type is missing"),
        ({"instance_id": "1", "object_id": "2"}, "instance_id and object_id"),
        ({"object_id": "2"}, "object_type"),
        ({"until": ()}, "until or activity is missing"),
        ({"until": {""}}, "until must be one or several names or ids, not empty"),
        ({"until": None}, "until or activity is missing"),
        ({"activity": " "}, "activity is missing"),
        ({"activity": "Approve", "role": ""}, "role is missing"),
        ({"role": "Reviewer"}, "activity is missing"),
        ({"fail_on": {""}}, "fail_on must be one or several names or ids, not empty"),
        ({"after": "yesterday"}, "after must be a history id"),
        ({"after": ""}, "after is missing"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        sensor(**parameters).execute({})
    assert emulator.requests() == []
