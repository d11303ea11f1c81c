"""The retry policy: no retry that cannot help, and the next one when the server will respond again."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from airflow_provider_workflows import exceptions, retries
from airflow_provider_workflows.exceptions import RateLimited, ServerError, WorkflowsError
from airflow_provider_workflows.operators.procore import ProcoreApprovalOperator, ProcoreStartInstanceOperator
from airflow_provider_workflows.operators.waiting import WaitLifeCycle
from airflow_provider_workflows.retries import WorkflowsRetryPolicy
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor
from airflow_provider_workflows.version_compat import CAN_RESCHEDULE_ERRORS
from tests.support.examples import run_source
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

HAS_POLICIES = pytest.mark.skipif(AIRFLOW < (3, 3), reason="before Airflow 3.3 there are no retry policies")

FAIL_AT_ONCE = {
    "AuthenticationError",
    "ConfigurationError",
    "UnexpectedResponse",
    "InvalidRequest",
    "NotFound",
    "PermissionDenied",
    "SignInFailed",
    # never retried, under any policy
    "DryRun",
    "InstanceActive",
    "AmbiguousOrder",
    "OutcomeUnclear",
    "InstanceBlocked",
    "OutcomeUnknown",
    "PresetConflict",
    "ResponseConflict",
    "StepMoved",
}
LEFT_TO_THE_TASK = {
    "ApiError",
    "ConnectionFailed",
    "IncompleteList",
    "PresetsUnfinished",
    "RateLimited",
    "ResponsesUnfinished",
    "ServerError",
    "UploadFailed",
    "WorkflowsError",
}


def evaluate(error: BaseException):
    return WorkflowsRetryPolicy().evaluate(error, try_number=1, max_tries=3)


@HAS_POLICIES
def test_every_error_of_this_package_is_decided_about():
    decided = {
        name: evaluate(getattr(exceptions, name)("what")).action.value
        for name in exceptions.__all__
        if isinstance(getattr(exceptions, name), type)
    }

    assert decided == dict.fromkeys(FAIL_AT_ONCE, "fail") | dict.fromkeys(LEFT_TO_THE_TASK, "default")


@HAS_POLICIES
@pytest.mark.parametrize("error", [ValueError("x"), ServerError("down", status_code=503), KeyboardInterrupt()])
def test_other_errors_are_left_to_the_task(error):
    assert evaluate(error).action.value == "default"


@HAS_POLICIES
def test_rejection_in_a_triggerer_is_reported_by_its_error_class():
    assert evaluate(WorkflowsError("PermissionDenied: GET /x returned 403")).action.value == "fail"
    assert evaluate(WorkflowsError("ServerError: GET /x returned 500")).action.value == "default"
    for message in ("", "The trigger ended", "annotations: x", "NOTHING_DONE: x", "Any: x"):
        assert evaluate(WorkflowsError(message)).action.value == "default"


def waiting_classes():
    """Return all operators and sensors that wait."""
    found = [WaitLifeCycle]
    for cls in found:  # grows
        found += [sub for sub in cls.__subclasses__() if sub not in found]
    return [cls for cls in found if not getattr(cls.give_up, "__isabstractmethod__", False)]


@HAS_POLICIES
def test_rejection_that_ends_any_wait_fails_the_task_at_once():
    classes = waiting_classes()
    assert {ProcoreApprovalOperator, ProcoreStartInstanceOperator, ProcoreInstanceSensor} <= set(classes)
    for cls in classes:
        with pytest.raises(WorkflowsError) as error:
            cls.give_up(None, "PermissionDenied: GET /x returned 403")
        assert evaluate(error.value).action.value == "fail", cls


@HAS_POLICIES
@pytest.mark.parametrize(("seconds", "expected"), [(3600, 3600), (-5, 0)])
def test_a_rate_limit_is_waited_for_until_the_stated_time(seconds, expected):
    retry_at = datetime.now(timezone.utc) + timedelta(seconds=seconds)

    decision = evaluate(RateLimited("Asked to wait", retry_at=retry_at, status_code=429))
    left = max(0.0, (retry_at - datetime.now(timezone.utc)).total_seconds())

    assert decision.action.value == ("reschedule" if CAN_RESCHEDULE_ERRORS else "retry")
    assert left - 1 <= decision.retry_delay.total_seconds() <= expected
    assert f"rate-limited until {retry_at:%H:%M}" in decision.reason


def test_an_older_airflow_is_rejected_with_the_version(monkeypatch):
    monkeypatch.setattr(retries, "RetryPolicy", object)
    monkeypatch.setattr(retries, "airflow_version", "3.2.2")

    with pytest.raises(RuntimeError, match=r"WorkflowsRetryPolicy needs Airflow 3\.3 or newer; this is 3\.2\.2"):
        WorkflowsRetryPolicy()


FLOW = """
from datetime import datetime, timedelta, timezone
from airflow.sdk import dag, task
from airflow_provider_workflows.exceptions import PermissionDenied, RateLimited, ServerError
from airflow_provider_workflows.operators.procore import ProcoreApprovalOperator, ProcoreStartInstanceOperator
from airflow_provider_workflows.operators.waiting import WaitLifeCycle
from airflow_provider_workflows.retries import WorkflowsRetryPolicy
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator


@dag(schedule=None, default_args={
    "retries": 3, "retry_delay": timedelta(minutes=5), "retry_policy": WorkflowsRetryPolicy()
})
def policies():
    @task
    def rejected():
        raise PermissionDenied("no", status_code=403)

    @task
    def limited(number):
        raise RateLimited("later", retry_at=datetime.now(timezone.utc) + timedelta(hours=1), status_code=429)

    @task
    def broken():
        raise ServerError("down", status_code=500)

    rejected()
    limited.expand(number=[1])
    broken()
    ProcoreRespondOperator(task_id="misspelt", instance_id="700001", option="Aprove")


policies()
"""


class AllTasksRan(BaseException):
    """Ends a run whose tasks would be tried again, which no state that a test sets can prevent from Airflow 3.4 on."""


@HAS_POLICIES
@pytest.mark.usefixtures("airflow_db", "airflow_connections")
def test_airflow_does_what_the_policy_says(monkeypatch, tmp_path):
    """Each task runs once, as a worker runs it; the test reads what the worker then requests of Airflow."""
    from airflow.sdk.execution_time import supervisor

    really, found = supervisor.run_task_in_process, {}
    expected = {
        "rejected": ("failed", None),
        "limited": ("up_for_reschedule" if CAN_RESCHEDULE_ERRORS else "up_for_retry", 3600.0),
        "broken": ("up_for_retry", None),
        "misspelt": ("failed", None),
    }

    def run_once(ti, task):
        ran = really(ti=ti, task=task)
        again_at = getattr(ran.msg, "reschedule_date", None)
        delay = getattr(ran.msg, "retry_delay_seconds", None)
        if again_at is not None:
            delay = (again_at - datetime.now(timezone.utc)).total_seconds()
        found[ti.task_id] = (ran.ti.state.value, delay and round(delay, -2))
        if found.keys() == expected.keys():
            raise AllTasksRan
        return ran

    monkeypatch.setattr(supervisor, "run_task_in_process", run_once)

    with pytest.raises(AllTasksRan):
        run_source("policies", FLOW, monkeypatch, tmp_path)

    assert found == expected
