"""A retry policy for tasks: which errors of this package are worth a retry, and when."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_workflows import exceptions
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.version_compat import CAN_RESCHEDULE_ERRORS, airflow_version

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # before Airflow 3.3
    RetryPolicy = object  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from airflow.sdk import Context

PERMANENT = (AuthenticationError, ConfigurationError, UnexpectedResponse, InvalidRequest, NotFound, PermissionDenied)
# How long a rate-limited task is rescheduled before its own retries apply; Airflow demands a bound.
MAX_RESCHEDULING = timedelta(days=1)


class WorkflowsRetryPolicy(RetryPolicy):
    """
    Fail at once after errors that a retry cannot fix, and run again after a rate limit when the server allows it.

    Pass it as ``retry_policy=`` to any task, of this package or your own, on Airflow 3.3 and newer. It handles the
    errors of :mod:`airflow_provider_workflows.exceptions`, also if they ended a wait in a triggerer:

    - Errors that a person has to fix fail the task at once: :class:`AuthenticationError`, :class:`PermissionDenied`,
      :class:`NotFound`, :class:`InvalidRequest`, :class:`UnexpectedResponse`, :class:`ConfigurationError`, and
      every error that is not retryable.
    - After :class:`RateLimited` (a 429 or 503 with a stated time) the task runs again at that time. From Airflow 3.4
      on that uses up none of its retries, for at most a day after the first such error of a try; then, and in Airflow
      3.3, it is a retry.
    - For every other error the task's own ``retries`` and ``retry_delay`` apply.

    Do not use it for a task whose parameters can become valid later, such as an assignee who is yet to be added: there
    :class:`ConfigurationError` is worth a retry.

    :raises RuntimeError: Airflow is older than 3.3.
    """

    def __init__(self) -> None:
        if RetryPolicy is object:
            raise RuntimeError(
                f"WorkflowsRetryPolicy needs Airflow 3.3 or newer; this is {airflow_version}. Remove retry_policy: "
                "the task's own retries then apply to every retryable error."
            )

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        kind = kind_of(exception)
        if isinstance(exception, RateLimited) and exception.retry_at is not None:
            left = exception.retry_at - datetime.now(timezone.utc)
            wait = max(left if exception.wait is None else timedelta(seconds=exception.wait), timedelta(0))
            reason = f"{kind.__name__}: rate-limited until {exception.retry_at:%H:%M:%SZ}"
            if CAN_RESCHEDULE_ERRORS:
                later: RetryDecision = cast("Any", RetryDecision).reschedule(
                    wait, reschedule_timeout=MAX_RESCHEDULING, reason=reason
                )
                return later
            return RetryDecision.retry(wait, reason)
        if issubclass(kind, PERMANENT) or not getattr(kind, "retryable", True):
            return RetryDecision.fail(f"{kind.__name__}: a retry would fail again")
        return RetryDecision.default()


def kind_of(exception: BaseException) -> type[BaseException]:
    """Return the class of an error; if it ended a wait in a triggerer, the class that its message starts with."""
    if type(exception) is not WorkflowsError:
        return type(exception)
    named: Any = getattr(exceptions, str(exception).partition(":")[0], None)
    return named if isinstance(named, type) and issubclass(named, WorkflowsError) else WorkflowsError
