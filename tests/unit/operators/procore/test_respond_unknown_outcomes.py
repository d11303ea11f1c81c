"""What a response reports where the request, its record or the record's meaning is not known."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import AuthenticationError, PermissionDenied, ServerError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import step_response
from tests.support.killed import Killed
from tests.unit.operators.procore.test_respond import INSTANCE, STEP, option_id, respond, respond_as_user, responses

pytestmark = pytest.mark.usefixtures("airflow_connections")

POST = {"method": "POST", "path": "/responses$"}


@pytest.fixture
def incomparable(monkeypatch):
    """Let no record show whether its option is the chosen one."""
    monkeypatch.setattr(step_response.response_rules, "is_recorded_option", lambda recorded, chosen: None)


def test_other_response_found_after_sending_is_a_conflict(emulator, store, monkeypatch):
    def responds_otherwise(*args, **kwargs) -> None:
        respond_as_user(emulator, "integration@example.com", "Reject")

    monkeypatch.setattr(ProcoreHook, "respond", responds_otherwise)

    with pytest.raises(AirflowFailException, match="ResponseConflict.*'Reject'"):
        respond(confirm_timeout=0).execute({"task_state_store": store})


@pytest.mark.usefixtures("incomparable")
def test_lost_response_with_an_incomparable_record_is_unknown(emulator, store):
    emulator.control("POST", "faults", **POST, reset="after")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*but not whether that is 'approve'"):
        respond(confirm_timeout=0).execute({"task_state_store": store})


@pytest.mark.usefixtures("incomparable")
def test_killed_response_with_an_incomparable_record_is_unknown(store, dies):
    dies(ProcoreHook, "respond", "after")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*but not whether"):
        respond(confirm_timeout=0).execute({"task_state_store": store})


def test_response_that_was_not_processed_is_never_unknown(emulator, store):
    emulator.control("POST", "faults", **POST, times=9, status=401, json={})

    for _ in range(2):
        with pytest.raises(AuthenticationError):
            respond(confirm_timeout=0).execute({"task_state_store": store})


@pytest.mark.parametrize("changed", ["comment", "user"])
def test_another_request_has_another_idempotency_token(emulator, store, monkeypatch, changed):
    tokens = []
    monkeypatch.setattr(step_response.rules, "is_pending", lambda step, user_id: True)
    monkeypatch.setattr(ProcoreHook, "respond", lambda self, *a, **request: tokens.append(request["idempotency_token"]))

    for number in (1, 2):
        if changed == "user":
            monkeypatch.setattr(ProcoreHook, "user_id", ("90001", "90004")[number - 1])
        comment = f"Comment {number}" if changed == "comment" else None
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            respond(confirm_timeout=0, comment=comment).execute({"task_state_store": type(store)()})

    assert len(set(tokens)) == 2


def test_choice_at_another_occurrence_counts_for_nothing(emulator, store):
    earlier = {"id": option_id(0), "name": "Approve", "type": "approve", "step_occurrence_id": "70000199"}
    store.set("chosen_option", {**earlier, "outcome": "accepted"})

    respond(step_occurrence_id=STEP).execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize("on_step_moved", ["fail", "succeed"])
def test_retry_never_says_moved_after_a_server_error(emulator, store, on_step_moved):
    emulator.control("POST", "faults", **POST, status=500, json={})
    with pytest.raises(ServerError):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        respond(confirm_timeout=0, on_step_moved=on_step_moved).execute({"task_state_store": store})


@pytest.mark.parametrize("on_step_moved", ["fail", "skip", "succeed"])
def test_step_whose_record_cannot_be_read_is_not_called_moved(emulator, store, on_step_moved):
    respond_as_user(emulator, "integration@example.com", "Approve")
    emulator.control("POST", "faults", method="GET", path="/history$", times=9, status=403, json={})

    with pytest.raises(PermissionDenied):
        respond(step_occurrence_id=STEP, on_step_moved=on_step_moved).execute({"task_state_store": store})
