"""
The errors of this package.

All are plain exceptions. What came back from a server carries the call it answered; no message ever holds a
token or a secret. ``retryable`` is False where doing the same again by itself could act twice or act on
something else; operators then fail the task without Airflow's retries.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

MAX_MESSAGE_CHARACTERS = 10_000  # characters; a server can name as many tools as it likes

__all__ = [
    "NOTHING_DONE",
    "AmbiguousOrder",
    "ApiError",
    "AuthenticationError",
    "ConfigurationError",
    "ConnectionFailed",
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
    "ServerError",
    "SignInFailed",
    "StepMoved",
    "UnexpectedResponse",
    "UploadFailed",
    "WorkflowsError",
]


class WorkflowsError(Exception):
    """The root of all errors of this package; of words that are too many, the first and the last are kept."""

    retryable = True

    def __init__(self, words: str = ""):
        super().__init__(
            words
            if len(words) <= MAX_MESSAGE_CHARACTERS
            else f"{words[: MAX_MESSAGE_CHARACTERS - 500]} ... {words[-500:]}"
        )


class ConfigurationError(WorkflowsError, ValueError):
    """A parameter or a connection is wrong; the message names it, and nothing was sent to act on it."""


class ResponseConflict(WorkflowsError):
    """Another response is already on record."""

    retryable = False


class StepMoved(WorkflowsError):
    """The step or state that an action was meant for is over."""

    retryable = False


class OutcomeUnclear(WorkflowsError):
    """The record of a workflow does not tell what was decided, or contradicts itself."""

    retryable = False


class InstanceActive(WorkflowsError):
    """The item already has an active workflow instance."""

    retryable = False


class InstanceBlocked(WorkflowsError):
    """A workflow instance is blocked and does not come free by trying again."""

    retryable = False


class PresetConflict(WorkflowsError):
    """A preset does not hold what was just written to it."""

    retryable = False


class PresetsUnfinished(WorkflowsError):
    """Raised when some presets failed or have an unknown outcome, and all others were done; a retry does those."""


class ApiError(WorkflowsError):
    """
    A server answered with an error, answered in no known form, or did not answer.

    :param what: What happened, in words.
    :param method: HTTP method of the call.
    :param path: Path of the call.
    :param status_code: HTTP status, or None when there was no answer.
    :param request_id: The server's id of the call, for its support.
    :param server_message: The server's own words.
    :param advice: What to do about it, where more is known than of this kind of error.
    :param is_documented: Whether the API itself said so, in its own format, and not a page of something before it.
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
        answered = f" answered {status_code}" if status_code is not None else ""
        words = f": {server_message}" if server_message else ""
        name = f" (request id {request_id})" if request_id else ""
        text = f"{what}{call}{answered}{words}{name}"
        super().__init__(f"{text.rstrip('.')}. {self.advice}".strip())

    def reworded(self, what: str) -> Self:
        """Return the same error with other words for what happened."""
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
    """The server does not accept who we say we are (401, a refused grant, a login page)."""

    advice = "Check login, password and environment of the connection."


class SignInFailed(AuthenticationError):
    """No token could be obtained, so every call over the connection fails."""


class PermissionDenied(ApiError):
    """The user may not do this (403)."""

    advice = "Give the connection's user the permission, or use another connection."


class NotFound(ApiError):
    """There is no such thing, or this user may not see it (404)."""

    advice = "The servers do not tell whether it does not exist or is not visible to the connection's user."


class InvalidRequest(ApiError):
    """
    The server rejected what was asked (400, 409, 422 and the like).

    :param fields: What is wrong with which field, where the server says so.
    """

    def __init__(self, what: str, *, fields: dict[str, list[str]] | None = None, **call: Any):
        super().__init__(what, **call)
        self.fields = fields or {}


class RateLimited(ApiError):
    """
    The server asks us to wait longer than this call is allowed to (429, or 503 with a stated wait).

    :param retry_at: When it may be asked again, in UTC by our clock.
    :param wait: Seconds until then, where the server stated a time.
    """

    def __init__(self, what: str, *, retry_at: datetime | None = None, wait: float | None = None, **call: Any):
        self.retry_at = retry_at
        self.wait = wait
        super().__init__(what if retry_at is None else f"{what} until {retry_at:%Y-%m-%dT%H:%M:%SZ}", **call)


class ServerError(ApiError):
    """The server failed (5xx)."""

    advice = "Try again later; if it goes on, ask the product's support and name the request."


class IncompleteList(ServerError):
    """Raised when a list has fewer rows than its total, also when it is read again; another time it may be whole."""


class UploadFailed(ServerError):
    """Raised when a file that was uploaded will not become available; it may be uploaded again."""


class ConnectionFailed(ApiError):
    """No answer came, and nothing can have been changed by it: nothing was sent, or the call only reads."""

    advice = "Check the connection's host, its proxies, and the network."


class OutcomeUnknown(ApiError):
    """The answer to a change was lost: it may have been made, or not."""

    retryable = False
    advice = "It is not sent again. Look in the product whether it took effect before you clear the task."


class UnexpectedResponse(ApiError):
    """The answer has a form that the documented API does not have, or points to another server."""


class AmbiguousOrder(UnexpectedResponse):
    """A history does not show in which order things happened, and what was asked depends on it."""


# After one of these a call has changed nothing, for certain; after any other, perhaps.
NOTHING_DONE = (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
)


# What several places tell apart in the same way.

# The server is away for a while; what was asked is not at fault.
TRANSIENT_ERRORS = (ConnectionFailed, RateLimited, ServerError)
# The server rejects what was asked.
REJECTIONS = (InvalidRequest, NotFound, PermissionDenied)
# The server fails at one record, or at so many: a response that is too large for the client is a ContractError, one
# that takes too long or breaks off a ConnectionFailed.
READ_FAULTS = (ConnectionFailed, UnexpectedResponse, ServerError)
# One list or one record can fail with these while others can be read: not the sign-in, the rate limit, or the network.
RESOURCE_ERRORS = (AuthenticationError, UnexpectedResponse, ServerError, *REJECTIONS)
