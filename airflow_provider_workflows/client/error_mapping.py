"""Map failed calls to the errors of this package, and remove secrets that a server repeats from their messages."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Collection, Mapping
from html import unescape
from typing import Any
from urllib.parse import quote, quote_plus

import requests
import simplejson

from airflow_provider_workflows import json_text
from airflow_provider_workflows.client.rate_limit_headers import moment, stated_wait
from airflow_provider_workflows.client.retry import Idempotency, RetryableFailure
from airflow_provider_workflows.client.transport import causes_of, nothing_was_sent
from airflow_provider_workflows.error_texts import error_texts
from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerError,
    UnexpectedResponse,
)

MAX_ERROR_BYTES = 2**20  # of a body that are searched for an error message
MAX_PAGE_BYTES = 2**16  # of an HTML page that are searched for a sign-in form
MIN_SECRET_CHARACTERS = 5  # a shorter text also occurs in ordinary words, and Airflow masks nothing shorter
# Statuses of a gateway that does not know the outcome of the call (520 and 524 are Cloudflare's).
LOST_ON_THE_WAY = frozenset({408, 502, 503, 504, 520, 524})
# Reasons of a failed TLS handshake with a server that does not speak TLS, or no common version of it.
NO_HANDSHAKE = frozenset({"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})
HTML_PAGE = "an HTML page"  # what stands for a page in an error; its title may follow
SIGN_IN = re.compile(r"(?i)\b(log|sign)[\s-]?(in|on)\b")
# The URL of a sign-in page, by its host or its path.
SIGN_IN_ADDRESS = re.compile(r"(?i)(?:^|[/.])(?:(?:log[_-]?(?:in|on)|sign[_-]?in)[\w-]*|sso|o?auth2?)(?:[/.]|$)")


def lost(
    error: requests.exceptions.RequestException, base_url: str, method: str, path: str, idempotency: Idempotency
) -> Exception:
    """Return the exception for a call that got no response."""
    why = type(error).__name__
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes_of(error)):
        return ConnectionFailed(
            "The server's TLS certificate is not trusted (set the extra 'verify' to the path of a CA bundle)",
            method=method,
            path=path,
        )
    if any(
        isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) in NO_HANDSHAKE for cause in causes_of(error)
    ):
        return ConnectionFailed(
            f"The TLS handshake with {base_url} failed; is it plain http? ({why})", method=method, path=path
        )
    if nothing_was_sent(error):
        return RetryableFailure(ConnectionFailed(f"No connection to {base_url} ({why})", method=method, path=path))
    if idempotency is Idempotency.UNSAFE:
        return OutcomeUnknown(f"The response was lost ({why})", method=method, path=path)
    return RetryableFailure(ConnectionFailed(f"The response was lost ({why})", method=method, path=path))


def failure(
    response: requests.Response,
    body: bytes,
    path: str,
    idempotency: Idempotency,
    *,
    scrub: Callable[[str], str],
    advise: Callable[[int, str], str | None],
    now: float,
    steady_now: float,
) -> Exception:
    """
    Return the exception for a response that is not successful.

    :param path: Path of the call, below the base URL.
    :param scrub: Removes the secrets from a text.
    :param advise: Returns the advice for a status of a path, or None.
    :param now: Unix time by this machine's clock.
    :param steady_now: The time by the clock that schedules the retries.
    """
    status = response.status_code
    message, fields = _error_text(body)
    call: dict[str, Any] = {
        "method": str(response.request.method),
        "path": path,
        "status_code": status,
        "request_id": request_id(response.headers, scrub),
        "server_message": scrub(message),
        "is_documented": _is_json_object(body),
    }
    if 300 <= status < 400:
        return _redirected(response, idempotency, call)
    wait = stated_wait(response.headers, now, status)
    not_before = None if wait is None else steady_now + wait
    # A 503 may come from a gateway in front of a server that has acted, so it counts as rate-limited only if the call
    # may be sent twice.
    if status == 429 or (status == 503 and "Retry-After" in response.headers and idempotency is Idempotency.SAFE):
        retry_at = None if wait is None else moment(now + wait)
        return RetryableFailure(
            RateLimited("Rate-limited by the server", retry_at=retry_at, wait=wait, **call), not_before
        )
    if status in LOST_ON_THE_WAY:
        if idempotency is Idempotency.UNSAFE:
            return OutcomeUnknown("A gateway lost the call or its response", wait=wait, **call)
        return RetryableFailure(ServerError("The server is not available", **call), not_before)
    if status == 401:
        return AuthenticationError("The sign-in was rejected", **call)
    if status == 403:
        return PermissionDenied("Permission denied", advice=advise(status, path), **call)
    if status == 404:
        return NotFound("Not found", advice=advise(status, path), **call)
    if 400 <= status < 500:
        clean = {scrub(name): [scrub(text) for text in messages] for name, messages in fields.items()}
        return InvalidRequest("The server rejected the request", fields=clean, **call)
    if status >= 500:
        return ServerError("The server failed", **call)
    return UnexpectedResponse("The status is not a final HTTP status", **call)


def redactor(known: Collection[str]) -> Callable[[str], str]:
    """Return a function that replaces the known secrets in a text, in each spelling that may occur there."""
    secrets = [secret for secret in known if len(secret) >= MIN_SECRET_CHARACTERS]
    spellings = sorted({spelling for secret in secrets for spelling in _spellings(secret)}, key=len, reverse=True)

    def redact(text: str) -> str:
        for spelling in spellings:
            text = text.replace(spelling, "***")
        return text

    return redact


def scrubber(known: Collection[str], request: requests.PreparedRequest) -> Callable[[str], str]:
    """Return a function that removes the known secrets and those of a request from a text, and shortens it."""
    redact = redactor([*known, _credentials(request)])

    def scrub(text: str) -> str:
        return re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+", r"\1 ***", redact(text))[:500]

    return scrub


def _spellings(text: str) -> tuple[str, ...]:
    """Return a text unchanged, URL-encoded, as in JSON (which may be malformed), and as in a Python repr."""
    in_json = (simplejson.dumps(text), simplejson.dumps(text, ensure_ascii=False), repr(text))
    return text, quote(text, safe=""), quote_plus(text), *(quoted[1:-1] for quoted in in_json)


def bearer_of(request: requests.PreparedRequest) -> str:
    scheme = str(request.headers.get("Authorization", "")).partition(" ")[0]
    return _credentials(request) if scheme == "Bearer" else ""


def _credentials(request: requests.PreparedRequest) -> str:
    return str(request.headers.get("Authorization", "")).partition(" ")[2]


def is_sign_in(response: requests.Response, body: bytes, idempotency: Idempotency) -> bool:
    """Return whether a server rejects the token: with a 401, its sign-in page, or a redirect to that page."""
    status = response.status_code
    if 300 <= status < 400:
        return isinstance(_redirected(response, idempotency, {}), AuthenticationError)
    if not 200 <= status < 300:
        return status == 401
    page = body[:MAX_PAGE_BYTES].decode("utf-8-sig", "replace").replace("\0", json_text.REPLACEMENT)
    title = html_text(page)
    if title is None:
        return False
    if re.search(r"(?i)type\s*=\s*[\"']?password", page) is not None:
        return True
    shown = page if idempotency is Idempotency.SAFE else title
    return not _may_show_result(response, idempotency) and SIGN_IN.search(shown) is not None


def _may_show_result(response: requests.Response, idempotency: Idempotency) -> bool:
    """
    Return whether a page, or a redirect to one, may show the result of an action.

    It may after a write action. A GET with an effect returns what it has taken as JSON, so a page has taken nothing.
    """
    return idempotency is Idempotency.UNSAFE and response.request.method != "GET"


def leads_on(response: requests.Response) -> bool:
    """Return whether a response redirects to a resource, not to a sign-in page."""
    target = response.headers.get("Location", "")
    is_redirect = response.status_code in (301, 302, 303, 307, 308) and bool(target)
    return is_redirect and SIGN_IN_ADDRESS.search(re.split(r"[?#]", target)[0]) is None


def _redirected(response: requests.Response, idempotency: Idempotency, call: dict[str, Any]) -> ApiError:
    target = response.headers.get("Location", "")
    address = re.split(r"[?#]", target)[0]
    if _may_show_result(response, idempotency):
        is_sign_in_page = re.search(r"(?i)/(log[_-]?(in|on)|sign[_-]?in)(\.\w+)?/?$", address) is not None
    elif idempotency is Idempotency.UNSAFE:
        is_sign_in_page = SIGN_IN_ADDRESS.search(address) is not None
    else:
        is_html = "html" in response.headers.get("Content-Type", "")
        is_sign_in_page = is_html or re.search(r"(?i)log[_-]?in|sign[_-]?in|account|auth|sso", target) is not None
    if is_sign_in_page:
        return AuthenticationError("The server redirected the call to its login page", **call)
    error = UnexpectedResponse if idempotency is Idempotency.SAFE else OutcomeUnknown
    return error("The server returned a redirect, which is not followed", **call)


def request_id(headers: Mapping[str, str], scrub: Callable[[str], str]) -> str | None:
    value = headers.get("X-Request-Id")
    return None if value is None else scrub(value)[:100]


def _error_text(body: bytes) -> tuple[str, dict[str, list[str]]]:
    """Return the server's message, and its messages by field, from every known error format."""
    text = truncated(body).strip()
    html = html_text(text)
    if html is not None:
        return html, {}
    try:
        error = json_text.parse(text)
        return "; ".join(dict.fromkeys(error_texts(error))), _fields(error)
    except (ValueError, RecursionError):
        return " ".join(text.split()), {}


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(json_text.parse(truncated(body)), dict)
    except (ValueError, RecursionError):
        return False


def truncated(body: bytes) -> str:
    """Return the part of a body that is searched for an error message, as text."""
    return body[:MAX_ERROR_BYTES].decode("utf-8-sig", "replace").replace("\0", json_text.REPLACEMENT)


def _fields(error: Any) -> dict[str, list[str]]:
    if not isinstance(error, dict):
        return {}
    for part in (error.get("fields"), error.get("errors"), error.get("ModelState"), error):
        if (
            isinstance(part, dict)
            and part
            and all(
                isinstance(v, str) or (isinstance(v, list) and all(isinstance(w, str) for w in v))
                for v in part.values()
            )
        ):
            if part is error and {"message", "error", "errors", "Message"} & set(error):
                continue
            return {str(name): [value] if isinstance(value, str) else value for name, value in part.items()}
    return {}


def html_text(text: str) -> str | None:
    if not re.match(r"(?is)\s*(<!doctype html|<html|<head|<body)", text):
        return None
    # Only the start of the page: on a page of nothing but <title> tags this pattern would take minutes.
    title = re.search(r"(?is)<title[^>]*>(.*?)</title>", text[:4096])
    return HTML_PAGE + (f" titled {' '.join(unescape(title[1]).split())!r}" if title else "")
