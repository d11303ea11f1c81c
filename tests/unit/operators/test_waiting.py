"""Operators that wait for what they started: a rejected poll is no failure of the action that was done."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.operators import base, waiting
from airflow_provider_workflows.rules.patience import DEFAULT_PATIENCE_SECONDS
from tests.unit.operators.procore.test_instances import NEW, record_response, start, started
from tests.unit.sensors.test_patience import REJECTIONS, Clock

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()

    class Now(datetime):
        now = clock.now

    monkeypatch.setattr(waiting, "time", SimpleNamespace(time=clock.time, monotonic=clock.monotonic))
    monkeypatch.setattr(waiting, "datetime", Now)
    monkeypatch.setattr(base, "time", SimpleNamespace(sleep=clock.sleep))
    return clock


@pytest.fixture(params=REJECTIONS.values(), ids=list(REJECTIONS))
def rejection(request):
    return request.param[0]


def wait(**parameters):
    return start(wait_for_completion=True, **{"poll_interval": 60, "wait_timeout": 7200, **parameters})


def reject(emulator, kind, path: str = "/history$", **more) -> None:
    emulator.control("POST", "faults", method="GET", path=path, **{"times": 99, **more}, **kind)


@pytest.mark.sample(3)
def test_rejected_polls_after_the_start_do_not_end_the_wait(emulator, clock, store, rejection):
    reject(emulator, rejection, times=4)
    clock.meanwhile = lambda: record_response(emulator, "Reject", instance_id=NEW) if clock.elapsed == 180 else None

    result = wait().execute({"task_state_store": store})

    assert (result["outcome"]["state"], started(emulator)) == ("complete", [NEW])


TIMEOUT_OF_AIRFLOW = ("__fail__", {"error": "Trigger timeout"})


@pytest.mark.parametrize("has_store", [True, False])
def test_deferral_that_no_triggerer_ended_gets_a_last_poll(emulator, clock, store, has_store):
    context = {"task_state_store": store} if has_store else {}
    with pytest.raises(TaskDeferred):
        wait(deferrable=True, retries=0).execute(context)
    with pytest.raises(AirflowFailException, match="no result within .* continues remotely") as timeout:
        wait(deferrable=True).resume_execution(*TIMEOUT_OF_AIRFLOW, context)
    assert ("at step 'Budget Check'" in str(timeout.value)) is has_store
    record_response(emulator, "Reject", instance_id=NEW)

    if has_store:
        result = wait(deferrable=True).resume_execution(*TIMEOUT_OF_AIRFLOW, context)
        assert (result["outcome"]["state"], result["adopted"], started(emulator)) == ("complete", False, [NEW])


def test_documented_404_after_the_start_does_not_end_the_wait(emulator, clock, store):
    reject(emulator, {"status": 404, "json": {"errors": "Not found"}}, times=2)
    clock.meanwhile = lambda: record_response(emulator, "Reject", instance_id=NEW) if clock.elapsed == 60 else None

    assert wait().execute({"task_state_store": store})["outcome"]["state"] == "complete"


def test_final_rejections_say_that_the_start_was_done(emulator, clock, store):
    reject(emulator, {"status": 403, "json": {"error": {"message": "No access"}}})

    with pytest.raises(WorkflowsError, match="^PermissionDenied: .*No access.*continues remotely"):
        wait().execute({"task_state_store": store})
    assert DEFAULT_PATIENCE_SECONDS <= clock.elapsed <= DEFAULT_PATIENCE_SECONDS + 60
    assert started(emulator) == [NEW]


def test_a_rejected_first_poll_of_a_deferrable_wait_defers(emulator, clock, store, rejection):
    reject(emulator, rejection)

    with pytest.raises(TaskDeferred):
        wait(deferrable=True).execute({"task_state_store": store})
    assert started(emulator) == [NEW]


def test_a_retry_waits_although_the_instance_cannot_be_read(emulator, clock, store):
    with pytest.raises(TaskDeferred):
        wait(deferrable=True).execute({"task_state_store": store})
    reject(emulator, {"status": 403, "json": {}}, path=f"/instances/{NEW}$")

    with pytest.raises(TaskDeferred):
        wait(deferrable=True).execute({"task_state_store": store})


def test_a_finished_wait_returns_its_result_without_reading(emulator, clock, store):
    with pytest.raises(TaskDeferred):
        wait(deferrable=True).execute({"task_state_store": store})
    record_response(emulator, "Reject", instance_id=NEW)
    reject(emulator, {"status": 403, "json": {}}, path=f"/instances/{NEW}$")

    result = wait().execute({"task_state_store": store})

    assert (result["instance_id"], result["item_id"], result["tool_type"]) == (NEW, "5002", "purchase_order_contract")
    assert (result["step"], result["ended_at"]) == (None, result["outcome"]["ended_at"])


def test_the_last_poll_of_a_waiting_operator_is_at_the_deadline(emulator, clock, store):
    clock.meanwhile = lambda: record_response(emulator, "Reject", instance_id=NEW)

    result = wait(wait_timeout=3, poll_interval=4).execute({"task_state_store": store})

    assert result["outcome"]["state"] == "complete"
    assert clock.elapsed == pytest.approx(3, abs=1)


def test_the_timeout_of_a_waiting_operator_names_state_and_error(emulator, clock, store):
    reject(emulator, {"status": 503}, skip=1)

    with pytest.raises(AirflowFailException, match="at step 'Budget Check'.*not available"):
        wait(wait_timeout=100).execute({"task_state_store": store})


@pytest.mark.parametrize("event", ["done", {"status": "done"}, {"status": "error"}])
def test_a_malformed_event_is_an_error_of_its_own(store, event):
    with pytest.raises(WorkflowsError):
        wait().execute_complete({"task_state_store": store}, event)


def test_a_poll_of_a_waiting_operator_makes_one_attempt(emulator, clock, store):
    emulator.control("POST", "faults", path="/history$", times=99, status=503)

    with pytest.raises(TaskDeferred):
        wait(deferrable=True).execute({"task_state_store": store})

    assert sum(request["path"].endswith("/history") for request in emulator.requests()) == 1
