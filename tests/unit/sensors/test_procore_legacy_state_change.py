"""An activity that waits for its state to change is performed once, with any outcome of the wait."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.operators import base as operators
from tests.unit.operators.procore_legacy.test_perform_activity import JOINT, perform, performed, person, state_of
from tests.unit.sensors.test_procore import first_event

pytestmark = pytest.mark.usefixtures("airflow_connections")


def accept(**parameters):
    defaults = {"instance_id": JOINT, "activity": "Accept", "role": "Project Manager", "poll_interval": 0.05}
    return perform(wait_for_state_change=True, **{"deferrable": False, **defaults, **parameters})


def deferred(operator, context) -> TaskDeferred:
    operator.deferrable = True
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context)
    return deferral.value


@pytest.fixture
def between_pokes(monkeypatch):
    """Return a function that sets what happens instead of the sleep between two polls."""

    def happens(*what) -> list[float]:
        todo, slept = list(what), []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            todo.pop(0)()

        monkeypatch.setattr(operators.time, "sleep", sleep)
        return slept

    return happens


def rita_accepts(emulator) -> None:
    person(emulator, "Accept", "rita@example.com", JOINT)


def test_both_modes_return_the_same_once_every_role_performed(emulator, between_pokes):
    slept = between_pokes(lambda: None, lambda: rita_accepts(emulator))
    blocking = accept().execute({})
    assert slept == [0.05, 0.05]

    emulator.control("POST", "reset", seed="default")
    deferral = deferred(accept(), {})
    rita_accepts(emulator)
    resumed = accept().execute_complete({}, first_event(deferral.trigger))

    assert deferral.method_name == "execute_complete"
    assert performed(emulator) == [("90001", "Accept"), ("90003", "Accept")]
    assert [blocking[key]["name"] for key in ("state_before", "state_after")] == ["Joint Review", "Accepted"]
    assert resumed["state_after"] == {
        "id": "18711",
        "name": "Accepted",
        "status": "Accepted",
        "set_at": resumed["state_after"]["set_at"],
    }
    times = {"performed_at", "state_before", "state_after"}
    assert {key: blocking[key] for key in blocking if key not in times} == {
        key: resumed[key] for key in resumed if key not in times
    }


@pytest.mark.parametrize("deferrable", [True, False])
def test_state_that_changes_at_once_needs_no_wait(emulator, store, between_pokes, deferrable):
    between_pokes()

    result = perform(wait_for_state_change=True, deferrable=deferrable).execute({"task_state_store": store})

    assert result["state_after"]["name"] == "Pending Approval"
    assert result["already_performed"] is False


def test_wait_for_state_change_is_optional(emulator, store):
    result = perform(instance_id=JOINT, activity="Accept", role="Project Manager")

    assert "state_after" not in result.execute({"task_state_store": store})


def test_deferrable_follows_the_setting_of_airflow(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    assert perform().deferrable
    assert perform().poll_interval == 1.0  # [workflows] poke_interval of the tests
    assert not perform(deferrable=False).deferrable


def test_retry_during_the_wait_continues_and_performs_nothing(emulator, store):
    context = {"task_state_store": store}
    first = deferred(accept(), context)

    again = deferred(accept(), context)

    assert performed(emulator) == [("90001", "Accept")]
    assert again.trigger.deadline == first.trigger.deadline
    rita_accepts(emulator)
    result = accept().execute(context)  # and a third try finds it over
    assert (result["already_performed"], result["state_after"]["name"]) == (True, "Accepted")
    assert len(performed(emulator)) == 2


def test_retry_after_the_state_has_returned_performs_nothing(emulator, store):
    context = {"task_state_store": store}
    perform(wait_for_state_change=True).execute(context)
    person(emulator, "Deny")
    assert state_of(emulator) == "Start"

    result = perform(wait_for_state_change=True).execute(context)

    assert result["state_after"]["name"] == "Start"
    assert result["state_after"]["set_at"] != result["state_before"]["set_at"]
    assert [what for _, what in performed(emulator)] == ["Submit for Approval", "Deny"]


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_wait_that_takes_too_long_fails_clearly_and_for_good(emulator, store, deferrable):
    context = {"task_state_store": store}
    late = {"wait_timeout": 0, "deferrable": deferrable}

    for _ in range(2):  # the try itself, and a manual retry
        with pytest.raises(
            AirflowFailException, match=r"'Accept' of instance 568151 was performed, but .* within 0:00"
        ):
            accept(**late).execute(context)
    assert performed(emulator) == [("90001", "Accept")]


def test_the_deadline_counts_from_the_first_try_that_waited(emulator, store):
    context = {"task_state_store": store}
    with pytest.raises(AirflowFailException, match="WaitFailed"):
        accept(wait_timeout=0).execute(context)

    with pytest.raises(AirflowFailException, match="WaitFailed"):
        accept(wait_timeout=3600, deferrable=True).execute(context)


def test_a_timeout_in_the_triggerer_fails_the_task(emulator, store):
    trigger = deferred(accept(), {"task_state_store": store}).trigger
    trigger.deadline = "2020-01-01T00:00:00+00:00"

    with pytest.raises(AirflowFailException, match="perhaps other roles still have to act"):
        accept().execute_complete({}, first_event(trigger))
    assert len(performed(emulator)) == 1


@pytest.mark.usefixtures("impatient")
def test_error_in_the_triggerer_is_retried_without_a_new_activity(emulator, store):
    context = {"task_state_store": store}
    trigger = deferred(accept(), context).trigger
    for path in ("workflow_instances$", "workflow_instances/"):  # the list, without which each is shown, and that
        emulator.control("POST", "faults", method="GET", path=path, times=99, status=403, json={"message": "no"})
    event = first_event(trigger)
    emulator.control("DELETE", "faults")

    with pytest.raises(WorkflowsError, match="PermissionDenied"):
        accept().execute_complete(context, event)
    with pytest.raises(WorkflowsError, match="does not know"):
        accept().execute_complete(context, None)
    deferred(accept(), context)

    assert performed(emulator) == [("90001", "Accept")]


def test_transient_error_does_not_end_the_wait_for_a_change(emulator, store, between_pokes):
    def comes_back() -> None:
        emulator.control("DELETE", "faults")
        rita_accepts(emulator)

    between_pokes(comes_back)
    emulator.control("POST", "faults", method="GET", path="workflow_instances/", skip=1, times=99, status=500, json={})

    assert accept().execute({"task_state_store": store})["state_after"]["name"] == "Accepted"


@pytest.mark.parametrize("deferrable", [True, False])
def test_an_instance_that_ends_ends_the_wait(emulator, store, between_pokes, deferrable):
    def ends() -> None:
        emulator.control("POST", f"procore/legacy/instances/{JOINT}/terminate", login="pat@example.com")

    between_pokes(ends)
    if deferrable:
        deferral = deferred(accept(), {"task_state_store": store})
        ends()
        result = accept().execute_complete({}, first_event(deferral.trigger))
    else:
        result = accept().execute({"task_state_store": store})

    assert result["state_after"] is None
    assert result["terminated_at"] is not None


def test_the_old_state_is_not_returned_as_the_new_one(emulator, store, between_pokes):
    emulator.control("PATCH", "flags", legacy_transition="delayed", transition_delay=3600)
    slept = between_pokes(lambda: None, lambda: emulator.control("POST", "clock", advance=3600))

    result = perform(wait_for_state_change=True, deferrable=False).execute({"task_state_store": store})

    assert result["state_after"]["name"] == "Pending Approval"
    assert len(slept) == 2


def test_a_state_that_stays_without_activities_has_no_next_state(emulator, store, between_pokes, monkeypatch):
    emulator.control("PATCH", "flags", legacy_transition="delayed", transition_delay=3600)
    ended_after = "airflow_provider_workflows.triggers.procore_legacy.ENDED_AFTER_SECONDS"
    between_pokes(lambda: monkeypatch.setattr(ended_after, 0.0))

    result = perform(wait_for_state_change=True, deferrable=False).execute({"task_state_store": store})

    assert (result["state_after"], result["terminated_at"]) == (None, None)


def test_no_wait_without_a_performed_activity(emulator, store):
    emulator.control("POST", f"procore/legacy/instances/{JOINT}/terminate", login="pat@example.com")

    with pytest.raises(AirflowSkipException):
        accept(on_state_moved="skip").execute({"task_state_store": store})
    assert accept(on_state_moved="succeed").execute({"task_state_store": store}) is None


def test_deferral_stores_no_secret(emulator, store):
    trigger = deferred(accept(attachments=None), {"task_state_store": store}).trigger

    _, arguments = trigger.serialize()
    assert set(arguments) == {
        "procore_conn_id",
        "company_id",
        "project_id",
        "instance_id",
        "occurrence",
        "performed",
        "last_poll",
        "last_step",
        "recorded",
        "mark",
        "poll_interval",
        "deadline",
    }
