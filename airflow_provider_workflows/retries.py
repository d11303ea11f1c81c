"""Which errors of this package a task is retried after, and when."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

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
from airflow_provider_workflows.version_compat import airflow_version

try:
    from airflow.sdk import RetryDecision, RetryPolicy
except ImportError:  # before Airflow 3.3
    RetryPolicy = object  # type: ignore[assignment, misc]

if TYPE_CHECKING:
    from airflow.sdk import Context

PERMANENT = (AuthenticationError, ConfigurationError, UnexpectedResponse, InvalidRequest, NotFound, PermissionDenied)


class WorkflowsRetryPolicy(RetryPolicy):
    """
    Spares a task the retries that cannot help, and lets it come back when the product will answer again.

    For ``retry_policy=`` of any task, of this package or your own, on Airflow 3.3 and newer. It knows the errors of
    :mod:`airflow_provider_workflows.exceptions`, also as the end of a wait in a triggerer:

    - What a person has to fix fails at once: :class:`AuthenticationError`, :class:`PermissionDenied`,
      :class:`NotFound`, :class:`InvalidRequest`, :class:`UnexpectedResponse`, :class:`ConfigurationError`, and
      everything that is never retried.
    - :class:`RateLimited`, which a 429 or 503 with a stated time becomes, is retried at that time, while the task has
      retries left.
    - Every other error is left to the task's own ``retries`` and ``retry_delay``.

    Do not give it to a task whose parameters come true by waiting, such as an assignee who is added meanwhile: there
    :class:`ConfigurationError` is worth a retry.

    :raises RuntimeError: on an Airflow before 3.3.
    """

    def __init__(self) -> None:
        if RetryPolicy is object:
            raise RuntimeError(
                f"WorkflowsRetryPolicy needs Airflow 3.3 or newer; this is {airflow_version}. Leave retry_policy out: "
                "the task's own retries then hold for every error that may be retried."
            )

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        kind = kind_of(exception)
        if isinstance(exception, RateLimited) and exception.retry_at is not None:
            left = exception.retry_at - datetime.now(timezone.utc)
            wait = max(left if exception.wait is None else timedelta(seconds=exception.wait), timedelta(0))
            return RetryDecision.retry(wait, f"{kind.__name__}: asked to come back at {exception.retry_at:%H:%M:%SZ}")
        if issubclass(kind, PERMANENT) or not getattr(kind, "retryable", True):
            return RetryDecision.fail(f"{kind.__name__}: a retry without a change would fail again")
        return RetryDecision.default()


def kind_of(exception: BaseException) -> type[BaseException]:
    """Return the class of an error; of one that ended a wait in a triggerer, the class that its words begin with."""
    if type(exception) is not WorkflowsError:
        return type(exception)
    named: Any = getattr(exceptions, str(exception).partition(":")[0], None)
    return named if isinstance(named, type) and issubclass(named, WorkflowsError) else WorkflowsError
