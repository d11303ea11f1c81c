"""What starts, restarts and terminations report where the response is lost, late or about something else."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import InvalidRequest, OutcomeUnknown, ServerError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from tests.unit.operators.procore.test_instances import (
    INSTANCE,
    NEW,
    START,
    TOOL,
    restart,
    set_flags,
    start,
    started,
    terminate,
)

pytestmark = pytest.mark.usefixtures("airflow_connections")


def terminate_as_user(emulator, instance_id: str) -> None:
    emulator.control("POST", f"procore/instances/{instance_id}/terminate", login="pat@example.com")


# --- start ---


def test_failed_start_that_took_effect_late_is_not_repeated(emulator, store):
    emulator.control("POST", "faults", method="POST", path=START, status=500, json={})
    with pytest.raises(ServerError):
        start(confirm_timeout=0).execute({"task_state_store": store})
    late = ProcoreHook().start_instance(TOOL, "5002")["id"]
    terminate_as_user(emulator, late)

    result = start().execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (late, False)
    assert started(emulator) == [late]


def test_start_that_shows_another_item_is_not_believed(emulator, store):
    other = {"data": {"id": INSTANCE, "item_id": "5001", "tool_type": TOOL}}
    emulator.control("POST", "faults", method="POST", path=START, status=201, json=other, after=True)

    assert start().execute({"task_state_store": store})["instance_id"] == NEW


def test_lost_start_by_an_unknown_creator_is_adopted(emulator, store, monkeypatch):
    set_flags(emulator, created_by="absent")
    send = ProcoreHook.start_instance

    def loses_the_response(hook, *args, **kwargs):
        terminate_as_user(emulator, send(hook, *args, **kwargs)["id"])
        raise OutcomeUnknown("The response was lost")

    monkeypatch.setattr(ProcoreHook, "start_instance", loses_the_response)

    result = start(confirm_timeout=0).execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (NEW, True)


def test_start_that_returns_an_older_instance_adopts_it(emulator, store):
    own = ProcoreHook().start_instance(TOOL, "5002")["id"]
    terminate_as_user(emulator, own)
    older = {"data": ProcoreHook().get_instance(own)}
    emulator.control("POST", "faults", method="POST", path=START, status=201, json=older)

    result = start().execute({"task_state_store": store})

    assert (result["instance_id"], result["adopted"]) == (own, True)


# --- restart ---


def test_restart_that_shows_another_item_is_not_believed(emulator, store):
    other = {"data": {"id": "700099", "item_id": "4711", "tool_type": TOOL}}
    emulator.control("POST", "faults", method="POST", path="/restart$", status=200, json=other, after=True)

    assert restart().execute({"task_state_store": store})["instance_id"] != "700099"


@pytest.mark.parametrize("known", ["an older instance", "no list"])
def test_lost_restart_is_not_found_in_another_instance(emulator, store, monkeypatch, known):
    instance_id = INSTANCE
    if known == "an older instance":
        terminate_as_user(emulator, INSTANCE)
        instance_id = ProcoreHook().start_instance(TOOL, "5001")["id"]
    else:
        emulator.control("POST", "faults", method="GET", path="/workflows/instances$", times=1, status=403, json={})

    def lost(*args, **kwargs):
        terminate_as_user(emulator, instance_id)
        raise OutcomeUnknown("The response was lost")

    monkeypatch.setattr(ProcoreHook, "restart_instance", lost)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        restart(instance_id=instance_id, confirm_timeout=0).execute({"task_state_store": store})


# --- terminate ---


@pytest.mark.parametrize("status", [403, 404, 422])
def test_termination_that_came_too_late_is_already_ended(emulator, store, status):
    emulator.control("POST", "faults", method="POST", path="/terminate$", status=status, json={}, after=True)

    assert terminate().execute({"task_state_store": store})["already_ended"] is True


def test_rejected_repetition_of_a_lost_change_stays_unknown(store, monkeypatch):
    faults = iter([OutcomeUnknown("lost"), InvalidRequest("no", status_code=422)])

    def fails(*args, **kwargs):
        raise next(faults)

    monkeypatch.setattr(ProcoreHook, "terminate_instance", fails)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        terminate(confirm_timeout=0).execute({"task_state_store": store})


def test_instance_that_another_try_pinned_meanwhile_is_used(emulator, store, monkeypatch):
    """As after a suspended worker."""
    read = ProcoreHook.list_item_instances

    def is_overtaken(hook, *args, **kwargs):
        if "terminate" not in store:
            store.set("terminate", {"instance_id": INSTANCE})
            ProcoreHook().restart_instance(INSTANCE)
        return read(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreHook, "list_item_instances", is_overtaken)

    result = terminate(instance_id=None, item_id="5001", tool_type=TOOL).execute({"task_state_store": store})

    assert (result["instance_id"], result["already_ended"]) == (INSTANCE, True)
