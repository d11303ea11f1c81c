"""
The errors of this package, so that callers can handle each kind of failure by its class.

All are plain exceptions, and all but :class:`DryRun` are a :class:`WorkflowsError`. An error of a server's response
names its call, and no message contains a token or another secret. ``retryable`` is False if an automatic retry could
act twice or act on something else; operators then fail the task without Airflow's retries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_MESSAGE_CHARACTERS = 10_000  # a message may list, for example, all tools of a company

__all__ = [
    "NOTHING_DONE",
    "AmbiguousOrder",
    "ApiError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionFailed",
    "DryRun",
    "IncompleteList",
    "InstanceActive",
    "InstanceBlocked",
    "InvalidRequest",
    "NotFound",
    "OutcomeUnclear",
    "OutcomeUnknown",
    "PermissionDenied",
    "PresetConflict",
    "PresetsUnfinished",
    "RateLimited",
    "ResponseConflict",
    "ResponsesUnfinished",
    "ServerError",
    "SignInFailed",
    "StepMoved",
    "UnexpectedResponse",
    "UploadFailed",
    "WorkflowsError",
]


class WorkflowsError(Exception):
    """Base class of all errors of this package; a message that is too long is shortened in the middle."""

    retryable = True

    def __init__(self, message: str = ""):
        super().__init__(_shortened(message))


class DryRun(Exception):
    """
    Raised instead of sending a call that changes something, in a task or over a connection that is a dry run.

    It is not a :class:`WorkflowsError`, because a handler that resolves a lost response must not take it for one.

    :param method: HTTP method of the call.
    :param path: Path of the call.
    :param body: JSON body that would have been sent, without secrets; files only by name and size.
    :param query: Query parameters of the call.
    :param headers: Headers of this call only, such as the user on whose behalf it is made.
    """

    retryable = False

    def __init__(
        self,
        method: str,
        path: str = "",
        body: Any = None,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        more = {name: dict(values) for name, values in (("query", query), ("headers", headers)) if values}
        # What would have been sent, as a task's result and its log show it.
        self.call: dict[str, Any] = {"method": method, "path": path, "body": body, **more}
        super().__init__(
            _shortened(
                "Nothing was sent, because the connection (extra 'dry_run') or the task is a dry run. It would have "
                f"been: {self.description}"
            )
        )

    @property
    def description(self) -> str:
        """The call as one line."""
        more = [f"{name} {_json(self.call[name])}" for name in ("query", "headers") if name in self.call]
        body = [] if self.call["body"] is None else [_json(self.call["body"])]
        return " ".join([self.call["method"], self.call["path"], *more, *body]).strip()


class ConfigurationError(WorkflowsError, ValueError):
    """Raised when a parameter or a connection is wrong; the message names it, and no write action was sent."""


class ResponseConflict(WorkflowsError):
    """Raised when a different response to the step is already recorded."""

    retryable = False


class StepMoved(WorkflowsError):
    """Raised when the step or state that an action was intended for is over."""

    retryable = False


class OutcomeUnclear(WorkflowsError):
    """Raised when the history of a workflow does not show the decision, or contradicts itself."""

    retryable = False


class InstanceActive(WorkflowsError):
    """Raised when the item already has an active workflow instance."""

    retryable = False


class InstanceBlocked(WorkflowsError):
    """Raised when a workflow instance is blocked and a retry does not unblock it."""

    retryable = False


class PresetConflict(WorkflowsError):
    """Raised when a preset does not contain the assignees that were just written to it."""

    retryable = False


class PresetsUnfinished(WorkflowsError):
    """Raised when some presets failed or have an unknown outcome; all others are done, and a retry does the rest."""


class ResponsesUnfinished(WorkflowsError):
    """Raised when some of many responses failed or have an unknown outcome; a retry sends only the failed ones."""


class ApiError(WorkflowsError):
    """
    Raised when a server returns an error or an unknown response format, or does not respond; base of the errors below.

    :param what: What happened.
    :param method: HTTP method of the call.
    :param path: Path of the call.
    :param status_code: HTTP status, or None without a response.
    :param request_id: The server's id of the call, for the vendor's support.
    :param server_message: The message of the server's response.
    :param advice: What to do about this error; default: the advice of its class.
    :param is_documented: Whether the response has the API's own error format, unlike a page of a proxy or gateway.
    """

    advice = ""

    def __init__(
        self,
        what: str,
        *,
        method: str = "",
        path: str = "",
        status_code: int | None = None,
        request_id: str | None = None,
        server_message: str = "",
        advice: str | None = None,
        is_documented: bool = False,
    ):
        self.is_documented = is_documented
        if advice is not None:
            self.advice = advice
        self.method = method
        self.path = path
        self.status_code = status_code
        self.request_id = request_id
        self.server_message = server_message
        call = f": {method} {path}" if method else ""
        status = f" returned {status_code}" if status_code is not None else ""
        message = f": {server_message}" if server_message else ""
        request = f" (request id {request_id})" if request_id else ""
        text = f"{what}{call}{status}{message}{request}"
        super().__init__(f"{text.rstrip('.')}. {self.advice}".strip())

    def reworded(self, what: str) -> Self:
        """Return the same error with another description of what happened."""
        return type(self)(
            what,
            method=self.method,
            path=self.path,
            status_code=self.status_code,
            request_id=self.request_id,
            server_message=self.server_message,
            advice=self.advice,
            is_documented=self.is_documented,
        )


class AuthenticationError(ApiError):
    """Raised when the server does not accept the sign-in (401, a rejected grant, a login page)."""

    advice = "Check login, password and environment of the connection."


class SignInFailed(AuthenticationError):
    """Raised when no token could be obtained; every call over the connection fails."""


class PermissionDenied(ApiError):
    """Raised when the connection's user lacks a permission (403)."""

    advice = "Give the connection's user the permission, or use another connection."


class NotFound(ApiError):
    """Raised when a resource does not exist or the connection's user may not see it (404)."""

    advice = "It does not exist, or it is not visible to the connection's user; the response does not say which."


class InvalidRequest(ApiError):
    """
    Raised when the server rejects a request as invalid (400, 409, 422 and other 4xx).

    :param fields: Error messages by field, if the server names fields.
    """

    def __init__(self, what: str, *, fields: dict[str, list[str]] | None = None, **call: Any):
        super().__init__(what, **call)
        self.fields = fields or {}


class RateLimited(ApiError):
    """
    Raised when the server rate-limits a call for longer than the call may wait (429, or 503 with ``Retry-After``).

    :param retry_at: Earliest time of the next call, in UTC by this machine's clock.
    :param wait: Seconds until then, if the server stated a time.
    """

    def __init__(self, what: str, *, retry_at: datetime | None = None, wait: float | None = None, **call: Any):
        self.retry_at = retry_at
        self.wait = wait
        super().__init__(what if retry_at is None else f"{what} until {retry_at:%Y-%m-%dT%H:%M:%SZ}", **call)


class ServerError(ApiError):
    """Raised when the server failed (5xx)."""

    advice = "Try again later. If the error persists, contact the vendor's support and give them the request id."


class IncompleteList(ServerError):
    """Raised when a list has fewer rows than its stated total, twice; it may be complete at a later time."""


class UploadFailed(ServerError):
    """Raised when an uploaded file will not become available; it may be uploaded again."""


class ConnectionFailed(ApiError):
    """Raised when a call got no response and cannot have changed anything: it was not sent, or it only reads."""

    advice = "Check the connection's host, its proxies, and the network."


class OutcomeUnknown(ApiError):
    """
    Raised when the response to a write action was lost: the action may have taken effect or not.

    :param wait: Seconds until the server accepts another call, if it stated a time.
    """

    retryable = False
    advice = "It is not sent again. Check in Procore or Workflowsoft whether it took effect before you clear the task."

    def __init__(self, what: str, *, wait: float | None = None, **call: Any):
        self.wait = wait
        super().__init__(what, **call)


class UnexpectedResponse(ApiError):
    """Raised when a response does not have the documented format, or points to another server."""


class AmbiguousOrder(UnexpectedResponse):
    """Raised when a result depends on the order of events and the history does not show that order."""


def _shortened(message: str) -> str:
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    return f"{message[: MAX_MESSAGE_CHARACTERS - 500]} ... {message[-500:]}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


# After one of these a call has certainly changed nothing; after any other error it may have.
NOTHING_DONE = (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
)

# Groups of errors that several modules handle in the same way.

# The server is temporarily unavailable; the request itself is valid.
TRANSIENT_ERRORS = (ConnectionFailed, RateLimited, ServerError)
# The server rejects the request.
REJECTIONS = (InvalidRequest, NotFound, PermissionDenied)
# The server cannot return one record, or so many at once: a response that is too large for the client is an
# UnexpectedResponse, one that takes too long or breaks off a ConnectionFailed.
READ_FAULTS = (ConnectionFailed, UnexpectedResponse, ServerError)
# One list or one record can fail with these while others can be read: not the sign-in, the rate limit, or the network.
RESOURCE_ERRORS = (AuthenticationError, UnexpectedResponse, ServerError, *REJECTIONS)
