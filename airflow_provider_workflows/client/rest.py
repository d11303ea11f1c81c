"""One HTTP client for both products: sending, size limits, errors."""

from __future__ import annotations

import re
import ssl
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import quote, quote_plus

import requests
import simplejson

from airflow_provider_workflows.client.auth import TokenAuth, parse_http_time
from airflow_provider_workflows.client.pagination import HALF_A_PAIR, Paginator
from airflow_provider_workflows.client.retry import Idempotency, RetryableFailure, RetryPolicy
from airflow_provider_workflows.client.transport import Adapter, Session, causes_of, nothing_was_sent
from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerError,
    UnexpectedResponse,
)

CONNECT_TIMEOUT = 10.0  # seconds
MAX_RESPONSE_BYTES = 32 * 2**20  # bytes, decoded
MAX_ERROR_BYTES = 2**20  # bytes of an error's body that are read for its words
MAX_RESPONSE_DEPTH = 100  # lists and objects in one another; what is deeper breaks whatever goes through it later
MAX_PAGES = 10_000  # of one list
MAX_IDLE_SECONDS = 2.0  # of a connection that an unsafe call may go out on; some servers close theirs after that
MAX_CLOCK_SKEW_SECONDS = 60.0  # between our clock and a server's that does not tell its time
MAX_PAGE_BYTES = 2**16  # of a page for people that are searched for a sign-in form
MIN_SECRET_CHARACTERS = (
    5  # characters; what is shorter stands in ordinary words, too, and Airflow masks nothing shorter
)
# A gateway's word that it does not know what became of the call (520 and 524 are Cloudflare's).
LOST_ON_THE_WAY = frozenset({408, 502, 503, 504, 520, 524})
SIGN_IN = re.compile(r"(?i)\b(log|sign)[\s-]?(in|on)\b")
# The address of a page to sign in, by its host or its path.
SIGN_IN_ADDRESS = re.compile(r"(?i)(?:^|[/.])(?:(?:log[_-]?(?:in|on)|sign[_-]?in)[\w-]*|sso|o?auth2?)(?:[/.]|$)")
# How a TLS handshake fails with a server that speaks none, or none that we do.
NO_HANDSHAKE = frozenset({"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})


def build_path(template: str, *ids: object) -> str:
    """
    Fill ids into a path so that each stays one segment, whatever it holds.

    :param template: The path with ``{}`` for each id.
    :param ids: The ids.
    :raises ConfigurationError: an id is empty, neither text nor a whole number, or would climb the path.
    """
    segments = []
    for value in ids:
        if value is not None and type(value) is not int and not isinstance(value, str):
            raise ConfigurationError(f"An id of {template} is neither text nor a whole number: {value!r}.")
        text = "" if value is None else str(value)
        if text.strip(" .") == "" or HALF_A_PAIR.search(text):
            raise ConfigurationError(f"An id of {template} is empty or not an id: {text!r}.")
        segments.append(quote(text, safe=""))
    return template.format(*segments)


@dataclass(frozen=True)
class RateLimit:
    """
    What the server last said of its rate limit.

    :param reset_at: Unix time by the server's clock at which its count starts again.
    :param reset_in: Seconds from the response to then, or None where that is not known.
    """

    limit: int | None
    remaining: int | None
    reset_at: int | None
    reset_in: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ApiResponse:
    """A successful answer; ``body`` is decoded and within the size limit, ``scrub`` takes secrets out of words."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    method: str
    path: str
    scrub: Callable[[str], str] = field(default=str, repr=False, compare=False)

    def json(self, *, exact: bool = False) -> Any:
        """
        Return the parsed body, None when it is empty.

        :param exact: Read numbers with a fraction as ``Decimal`` instead of ``float``.
        :raises ContractError: it is not JSON, or too deep.
        """
        if not self.body.strip():
            return None
        try:
            parsed = simplejson.loads(self.body.decode("utf-8-sig"), use_decimal=exact)
        except (ValueError, RecursionError):
            raise self._malformed("The answer is not JSON") from None
        if _is_too_deep(parsed):
            raise self._malformed("The answer is too deep")
        return parsed

    def rows(self, key: str | None = None) -> Iterator[dict[str, Any]]:
        """
        Yield the objects of a list one by one, each decoded when it is asked for.

        Decoding thousands at once would stop all other threads, and leave the garbage collector a heap to search.

        :param key: Under which the body, an object, holds the list; None where the body is the list.
        :raises ContractError: it is not a list of objects.
        """
        try:
            for row in _elements(self.body.decode("utf-8-sig"), key):
                if not isinstance(row, dict) or _is_too_deep(row):
                    raise ValueError
                yield row
        except (ValueError, IndexError, RecursionError):
            raise self._malformed("The answer is not a list of objects") from None

    def reject_page(self, error: type[ApiError] = UnexpectedResponse) -> None:
        """
        Require an answer of the API where its form is not documented: a page for people is none.

        :param error: What to raise.
        """
        if self.body.removeprefix(BOM_UTF8).lstrip()[:1] == b"<":
            raise self._malformed("The answer is a page, perhaps to sign in", error)

    def _malformed(self, words: str, error: type[ApiError] = UnexpectedResponse) -> ApiError:
        kind = self.headers.get("Content-Type", "no content type")
        return error(
            f"{words} ({self.scrub(kind)})",
            method=self.method,
            path=self.path,
            status_code=self.status,
            request_id=_request_id(self.headers, self.scrub),
            server_message=self.scrub(_html_words(_beginning(self.body)) or ""),
        )


class RestClient:
    """
    Sends calls to one server and turns its answers into values or errors of this package.

    Redirects are never followed. A 401 renews the token once.

    :param base_url: Scheme and host, perhaps with a path in front of the API's own; no trailing slash.
    :param auth: Where the bearer token comes from; None for none.
    :param headers: Headers that go with every call.
    :param timeout: Seconds to wait for an answer.
    :param verify: Whether to check the certificate, or the path of a CA bundle.
    :param proxies: Proxies by scheme.
    :param retry: How often a call is tried.
    :param secrets: Texts that never appear in an error, whatever the server echoes.
    :param advise: Returns what to do about a status (403 or 404) of a path, or None where it knows nothing better.
    :param sleep: Waits a number of seconds.
    :param clock: Returns the unix time in seconds.
    """

    def __init__(
        self,
        base_url: str,
        *,
        auth: TokenAuth | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        verify: bool | str = True,
        proxies: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        secrets: tuple[str, ...] = (),
        advise: Callable[[int, str], str | None] | None = None,
        max_bytes: int = MAX_RESPONSE_BYTES,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ):
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.retry = retry or RetryPolicy()
        self.rate: RateLimit | None = None
        self.sent = 0  # requests
        self._page_limits: dict[str, int] = {}  # rows of the largest page that the server gives, by address
        self._ahead = 0.0  # seconds by which the server's clock is ahead of ours
        self._auth = auth
        self._secrets = secrets
        self._advise = advise or (lambda status, path: None)
        self._max_bytes = max_bytes
        self._sleep = sleep
        self._clock = clock
        # Times that are only compared with one another are not by the clock on the wall, which can be set.
        self._steady = time.monotonic if clock is time.time else clock
        self._last_used = float("-inf")
        self._session = Session()
        self._session.headers.update({"Accept": "application/json", "User-Agent": "airflow-provider-workflows"})
        self._session.headers.update(_sendable(headers or {}))
        self._session.verify = verify
        self._session.proxies.update(proxies or {})
        # Without an auth of ours requests would look for one in ~/.netrc.
        self._session.auth = auth or _no_auth

    def token(self) -> str:
        """Return the token that calls are made with, fetched where none is held or it ends soon."""
        return "" if self._auth is None else self._auth.token()

    def server_time(self) -> datetime:
        """Return the time by the server's clock, as its last response stated it; until then by this machine's."""
        return datetime.fromtimestamp(self._clock() + self._ahead, timezone.utc)

    def get(self, path: str, **kwargs: Any) -> ApiResponse:
        """Send a GET that may be repeated; see :meth:`call`."""
        return self.call("GET", path, replay=Idempotency.SAFE, **kwargs)

    def call(
        self,
        method: str,
        path: str,
        *,
        replay: Idempotency,
        params: Mapping[str, Any] | None = None,
        query: str = "",
        json: Any = None,
        form: Mapping[str, str] | None = None,
        files: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        may_redirect: bool = False,
    ) -> ApiResponse:
        """
        Send one call, again where that is allowed, and return the successful answer.

        :param method: HTTP method.
        :param path: Path below the base URL; ids in it filled in by :func:`path`.
        :param replay: Whether this call may be sent twice.
        :param params: Query; None is left out, booleans are lower case, lists repeat their key.
        :param query: Query that is sent as it is; no error shows it.
        :param json: Body; decimals are written exactly.
        :param form: Body as form fields instead.
        :param files: Files of a multipart body.
        :param data: Body as it is, instead.
        :param headers: Headers of this call.
        :param auth: HTTP Basic login and password instead of the client's own auth.
        :param timeout: Seconds to wait for an answer, instead of the client's.
        :param may_redirect: Whether a redirect that leads to no sign-in page is an answer, too; it is not followed.
        :raises ApiError: one of its subclasses, see :mod:`airflow_provider_workflows.exceptions`.
        """
        body: Any = dict(form) if form is not None else data if json is None else _dump(json)
        own_headers = {} if json is None else {"Content-Type": "application/json"}
        if files is not None:
            # Encoded once: a file that is read for the first attempt is empty for the second.
            multipart = requests.Request(method, self.base_url, data=body, files=files).prepare()
            body, own_headers = multipart.body, {"Content-Type": multipart.headers["Content-Type"]}
        request = requests.Request(
            method,
            self.base_url + path + (f"?{query}" if query else ""),
            params=_query(params or {}),
            data=body,
            headers={**own_headers, **_sendable(headers or {})},
            # As bytes: requests would write text as Latin-1, which not every password is.
            auth=None if auth is None else (auth[0].encode(), auth[1].encode()),
        )
        attempt = partial(self._attempt, request, path, replay, timeout or self.timeout, may_redirect)
        return self.retry.run(attempt, sleep=self._sleep, clock=self._steady)

    def pages(
        self,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        per_page: int,
        style: str,
        keep_malformed_rows: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the rows of a list, asking for the next page when it is needed; see :class:`Paginator`.

        :param path: Path of the list.
        :param params: Query parameters of every page.
        :param per_page: Rows of a page to ask for.
        :param style: ``v1`` for bare arrays, ``v2`` for ``{"data": [...]}``.
        :param keep_odd_rows: Yield an empty object for a row of ``v2`` that is none, instead of an error.
        """

        def fetch(query: dict[str, Any]) -> ApiResponse:
            return self.get(path, params=query)

        url = self.base_url + path
        return Paginator(fetch, url, params or {}, per_page, style, self._page_limits, MAX_PAGES, keep_malformed_rows)

    def without_sign_in(self, base_url: str) -> RestClient:
        """Return a client of another server, over the same proxies and timeouts, that shows it no token or header."""
        return RestClient(
            base_url,
            timeout=self.timeout,
            verify=self._session.verify if self._session.verify is not None else True,
            proxies={str(scheme): str(proxy) for scheme, proxy in self._session.proxies.items()},
            retry=self.retry,
            max_bytes=self._max_bytes,
            sleep=self._sleep,
            clock=self._clock,
        )

    def share_sockets(self, adapter: Adapter) -> None:
        """Send calls over the sockets of an adapter that several clients of one server use."""
        self._session.share(adapter)

    def close(self) -> None:
        """Close the sockets."""
        self._session.close()

    # --- one attempt ---

    def _attempt(
        self, request: requests.Request, path: str, replay: Idempotency, timeout: float, may_redirect: bool
    ) -> ApiResponse:
        def is_redirect() -> bool:
            return may_redirect and _leads_on(response)

        response, body = self._send(request, path, replay, timeout)
        if (
            self._auth is not None
            and request.auth is None
            and not is_redirect()
            and _is_sign_in(response, body, replay)
        ):
            # Rejected before anything was done, so any call may go again with a new token.
            self._auth.renew(_bearer(response.request))
            response, body = self._send(request, path, replay, timeout)
            if 200 <= response.status_code < 300 and _is_sign_in(response, body, replay):
                raise AuthenticationError(
                    "The server answered with its sign-in page, also with a new token",
                    method=str(request.method),
                    path=path,
                    status_code=response.status_code,
                    request_id=_request_id(response.headers, partial(self._scrub, response.request)),
                )
        if 200 <= response.status_code < 300 or is_redirect():
            scrub = partial(self._scrub, response.request)
            return ApiResponse(response.status_code, response.headers, body, str(request.method), path, scrub)
        self._fail(response, body, path, replay)
        raise AssertionError("unreachable")  # pragma: no cover

    def _send(
        self, request: requests.Request, path: str, replay: Idempotency, timeout: float
    ) -> tuple[requests.Response, bytes]:
        try:
            prepared = self._session.prepare_request(request)
        except (requests.exceptions.RequestException, UnicodeError) as error:
            # Without its words, which repeat what cannot be sent.
            raise ConfigurationError(f"The call cannot be sent ({type(error).__name__}).") from None
        # Handed in, the connection's proxies beat those of the environment; the session's own would not.
        proxies = dict(self._session.proxies)
        settings = self._session.merge_environment_settings(prepared.url, proxies, True, None, None)
        if self._session.verify is not True:
            settings["verify"] = self._session.verify  # requests lets REQUESTS_CA_BUNDLE beat it
        self.sent += 1
        if replay is Idempotency.NEVER and time.monotonic() - self._last_used > MAX_IDLE_SECONDS:
            # A connection that was idle may be dead, and what is sent on it lost.
            self._session.close()
        try:
            response = self._session.send(
                prepared, timeout=(min(CONNECT_TIMEOUT, timeout), timeout), allow_redirects=False, **settings
            )
            with response:
                body = self._read(response, path, time.monotonic() + 2 * timeout)
        except requests.exceptions.RequestException as error:
            self._lost(error, str(request.method), path, replay)
        except OSError as error:  # requests reports a missing CA bundle with nothing more
            raise ConfigurationError(f"{error}. Correct 'verify', or REQUESTS_CA_BUNDLE.") from error
        self._last_used = time.monotonic()
        if response.status_code < 200:
            # The answer proper may follow, and would be taken for that of the next call on this socket.
            self._session.close()
        self.rate = _rate(response.headers, self._clock()) or self.rate
        if (server_time := parse_http_time(response.headers.get("Date", ""))) is not None:
            self._ahead = server_time - self._clock()
        return response, body

    def _read(self, response: requests.Response, path: str, until: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(2**16):
            body += chunk
            if len(body) > self._max_bytes:
                raise UnexpectedResponse(
                    f"The answer is larger than {self._max_bytes} bytes",
                    method=str(response.request.method),
                    path=path,
                    status_code=response.status_code,
                )
            if time.monotonic() > until:
                raise requests.exceptions.ReadTimeout("the answer trickles")
        return bytes(body)

    def _lost(self, error: requests.exceptions.RequestException, method: str, path: str, replay: Idempotency) -> None:
        why = type(error).__name__
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes_of(error)):
            raise ConnectionFailed(
                "No trusted TLS connection (extra 'verify' takes the path of a CA bundle)",
                method=method,
                path=path,
            ) from error
        if any(
            isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) in NO_HANDSHAKE
            for cause in causes_of(error)
        ):
            raise ConnectionFailed(
                f"{self.base_url} does not speak TLS as we do; is it plain http? ({why})", method=method, path=path
            ) from error
        if nothing_was_sent(error):
            raise RetryableFailure(
                ConnectionFailed(f"No connection to {self.base_url} ({why})", method=method, path=path)
            ) from error
        if replay is Idempotency.NEVER:
            raise OutcomeUnknown(f"The answer was lost ({why})", method=method, path=path) from error
        raise RetryableFailure(ConnectionFailed(f"The answer was lost ({why})", method=method, path=path)) from error

    def _fail(self, response: requests.Response, body: bytes, path: str, replay: Idempotency) -> None:
        status = response.status_code
        words, fields = _error_words(body)
        scrub = self._scrubber(response.request)
        call: dict[str, Any] = {
            "method": str(response.request.method),
            "path": path,
            "status_code": status,
            "request_id": _request_id(response.headers, scrub),
            "server_message": scrub(words),
            "is_documented": _is_json_object(body),
        }
        if 300 <= status < 400:
            raise _redirected(response, replay, call)
        wait = _stated_wait(response.headers, self._clock(), status)
        not_before = None if wait is None else self._steady() + wait
        # A 503 may come from a gateway whose server has acted, so it refuses only what may be sent twice.
        if status == 429 or (status == 503 and "Retry-After" in response.headers and replay is Idempotency.SAFE):
            retry_at = None if wait is None else _moment(self._clock() + wait)
            raise RetryableFailure(
                RateLimited("The server asks to wait", retry_at=retry_at, wait=wait, **call), not_before
            )
        if status in LOST_ON_THE_WAY:
            if replay is Idempotency.NEVER:
                raise OutcomeUnknown("The call was lost on the way", **call)
            raise RetryableFailure(ServerError("The server is not available", **call), not_before)
        if status == 401:
            raise AuthenticationError("Not signed in", **call)
        if status == 403:
            raise PermissionDenied("Not permitted", advice=self._advise(status, path), **call)
        if status == 404:
            raise NotFound("Not found", advice=self._advise(status, path), **call)
        if 400 <= status < 500:
            clean = {scrub(name): [scrub(action) for action in wrong] for name, wrong in fields.items()}
            raise InvalidRequest("The server refused the request", fields=clean, **call)
        if status >= 500:
            raise ServerError("The server failed", **call)
        raise UnexpectedResponse("The status is not one of an answer", **call)

    def _scrub(self, request: requests.PreparedRequest, words: str) -> str:
        return self._scrubber(request)(words)

    def _scrubber(self, request: requests.PreparedRequest) -> Callable[[str], str]:
        """Return a function that takes the secrets out of a server's words, however it spells them, and cuts them."""
        secrets = [one for one in (*self._secrets, _credentials(request)) if len(one) >= MIN_SECRET_CHARACTERS]
        forms = sorted({form for one in secrets for form in _spelled(one)}, key=len, reverse=True)

        def scrub(words: str) -> str:
            for form in forms:
                words = words.replace(form, "***")
            return re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+", r"\1 ***", words)[:500]

        return scrub


def _elements(text: str, key: str | None) -> Iterator[Any]:
    """Yield the elements of a list in a JSON text, one by one; ValueError or IndexError where there is none."""
    decode = simplejson.JSONDecoder().raw_decode
    at = _next_sign(text, 0, "[" if key is None else "{")
    if key is not None:
        while True:
            name, at = decode(text, at)
            at = _next_sign(text, at, ":")
            if name == key:
                at = _next_sign(text, at, "[")
                break
            _, at = decode(text, at)
            at = _next_sign(text, at, ",")
    while text[at] != "]":
        element, at = decode(text, at)
        yield element
        at = _skip_spaces(text, at)
        if text[at] != "]":
            at = _next_sign(text, at, ",")
            if text[at] == "]":
                raise ValueError
    if key is None and text[at + 1 :].strip():
        raise ValueError


def _next_sign(text: str, at: int, sign: str) -> int:
    at = _skip_spaces(text, at)
    if text[at] != sign:
        raise ValueError
    return _skip_spaces(text, at + 1)


def _skip_spaces(text: str, at: int) -> int:
    while text[at] in " \t\n\r":
        at += 1
    return at


def _is_too_deep(value: Any) -> bool:
    """Tell whether parsed JSON lies deeper than any documented answer; level by level, for this must not recurse."""
    containers = {dict, list}
    level = [value] if type(value) in containers else []
    for _ in range(MAX_RESPONSE_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in containers
        ]
        if not level:
            return False
    return True


def _spelled(text: str) -> tuple[str, ...]:
    """Return a text as it is, as it came in a form, in JSON that cannot be read, and as Python repeats it."""
    in_json = (simplejson.dumps(text), simplejson.dumps(text, ensure_ascii=False), repr(text))
    return text, quote(text, safe=""), quote_plus(text), *(form[1:-1] for form in in_json)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _sendable(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse what no header can hold, without repeating the value as requests would: it may be a secret."""
    for name, value in headers.items():
        if not re.fullmatch(r"([!-~][ -~]*)?", value):
            raise ConfigurationError(f"Header {name} cannot be sent: it holds a line break or is not ASCII.")
    return headers


def _bearer(request: requests.PreparedRequest) -> str:
    scheme = str(request.headers.get("Authorization", "")).partition(" ")[0]
    return _credentials(request) if scheme == "Bearer" else ""


def _credentials(request: requests.PreparedRequest) -> str:
    return str(request.headers.get("Authorization", "")).partition(" ")[2]


def _query(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for name, value in params.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, float):  # an id that came out of a table; no parameter of either API has a fraction
                raise ConfigurationError(f"{name} must be text or a whole number; got {item!r}.")
            if item is not None:
                pairs.append((name, str(item).lower() if isinstance(item, bool) else str(item)))
    return pairs


def _dump(body: Any) -> bytes:
    try:
        return simplejson.dumps(body, use_decimal=True, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"The values cannot be written as JSON: {error}") from None


def _is_sign_in(response: requests.Response, body: bytes, replay: Idempotency) -> bool:
    """Tell whether a server did not accept the token: by a 401, its sign-in page, or a redirect to that."""
    status = response.status_code
    if 300 <= status < 400:
        return isinstance(_redirected(response, replay, {}), AuthenticationError)
    if not 200 <= status < 300:
        return status == 401
    page = body[:MAX_PAGE_BYTES].decode("utf-8-sig", "replace")
    if _html_words(page) is None:
        return False
    # After a change the page could be about what was made, so there only one that asks for a password counts.
    asks_for_password = re.search(r"(?i)type\s*=\s*[\"']?password", page) is not None
    return asks_for_password or (replay is Idempotency.SAFE and SIGN_IN.search(page) is not None)


def _leads_on(response: requests.Response) -> bool:
    """Tell whether a server sends us on to where a thing is, and not to sign in."""
    target = response.headers.get("Location", "")
    is_redirect = response.status_code in (301, 302, 303, 307, 308) and bool(target)
    return is_redirect and SIGN_IN_ADDRESS.search(re.split(r"[?#]", target)[0]) is None


def _redirected(response: requests.Response, replay: Idempotency, call: dict[str, Any]) -> ApiError:
    target = response.headers.get("Location", "")
    if replay is Idempotency.NEVER:
        # After a change a server may send a browser on to what it has made.
        if re.search(r"/(log[_-]?(in|on)|sign[_-]?in)(\.\w+)?/?$", re.split(r"[?#]", target)[0], re.IGNORECASE):
            return AuthenticationError("The server sent us to its login page", **call)
        return OutcomeUnknown("The server answered with a redirect, which is not followed", **call)
    if re.search(r"log[_-]?in|sign[_-]?in|account|auth|sso", target, re.IGNORECASE) or "html" in response.headers.get(
        "Content-Type", ""
    ):
        return AuthenticationError("The server sent us to its login page", **call)
    return UnexpectedResponse("The server answered with a redirect, which is not followed", **call)


# --- what headers and error bodies say ---


def _rate(headers: Mapping[str, str], now: float) -> RateLimit | None:
    values = [headers.get(f"X-Rate-Limit-{name}", "") for name in ("Limit", "Remaining", "Reset")]
    limit, remaining, reset_at = (_whole(value) for value in values)
    if limit is remaining is reset_at is None:
        return None
    served_at = parse_http_time(headers.get("Date", ""))
    reset_in = None if reset_at is None else reset_at - (now if served_at is None else served_at)
    return RateLimit(limit, remaining, reset_at, reset_in)


def _whole(text: str) -> int | None:
    """Return a whole number, None for any other text, and for digits that no counter and no clock has."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _request_id(headers: Mapping[str, str], scrub: Callable[[str], str]) -> str | None:
    given = headers.get("X-Request-Id")
    return None if given is None else scrub(given)[:100]


def _stated_wait(headers: Mapping[str, str], now: float, status: int) -> float | None:
    """
    Return the seconds that a server asks to wait, the longer of the two ways to say so; None where it says nothing.

    Procore sends X-Rate-Limit-Reset with every answer; it says when to come back only if no call is left. It is a time
    by the server's clock, so it is compared with the Date of the answer.

    :param now: Unix time by our clock.
    """
    served_at = parse_http_time(headers.get("Date", ""))
    at = now if served_at is None else served_at
    waits = []
    retry_after = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        waits.append(float(retry_after))
    elif (until := parse_http_time(retry_after)) is not None:
        waits.append(until - at)
    reset = headers.get("X-Rate-Limit-Reset", "")
    if reset.isdecimal() and (status == 429 or headers.get("X-Rate-Limit-Remaining") == "0"):
        until_reset = float(reset) - at
        # Without a Date, a reset that is far from the Retry-After shows that two clocks differ.
        if served_at is not None or not waits or until_reset <= waits[0] + MAX_CLOCK_SKEW_SECONDS:
            waits.append(until_reset)
    return max(waits, default=None)


def _moment(unix_time: float | None) -> datetime | None:
    try:
        return None if unix_time is None else datetime.fromtimestamp(unix_time, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None  # such as milliseconds: beyond the calendar


def _error_words(body: bytes) -> tuple[str, dict[str, list[str]]]:
    """Return the server's own words, and which field they are about, from every known form of an error."""
    text = _beginning(body).strip()
    html = _html_words(text)
    if html is not None:
        return html, {}
    try:
        error = simplejson.loads(text)
        return "; ".join(dict.fromkeys(_words(error))), _fields(error)
    except (ValueError, RecursionError):
        return " ".join(text.split()), {}


def _is_json_object(body: bytes) -> bool:
    try:
        return isinstance(simplejson.loads(_beginning(body)), dict)
    except (ValueError, RecursionError):
        return False


def _beginning(body: bytes) -> str:
    return body[:MAX_ERROR_BYTES].decode("utf-8-sig", "replace")


def _words(error: Any) -> list[str]:
    if isinstance(error, (str, int, float)) and not isinstance(error, bool):
        return [str(error)] if str(error) else []
    if isinstance(error, list):
        return [action for item in error for action in _words(item)]
    if not isinstance(error, dict):
        return []
    named = {str(name).lower(): value for name, value in error.items()}
    known = (
        "message",
        "exceptionmessage",
        "error_description",
        "error",
        "errors",
        "reason",
        "details",
        "fields",
    )
    stated = [name for name in known if named.get(name)]
    if stated:
        return [action for name in stated for action in _words(named[name])]
    return [f"{name}: {', '.join(words)}" for name, value in error.items() if (words := _words(value))]


def _fields(error: Any) -> dict[str, list[str]]:
    if not isinstance(error, dict):
        return {}
    for assignee in (error.get("fields"), error.get("errors"), error):
        if (
            isinstance(assignee, dict)
            and assignee
            and all(
                isinstance(v, str) or (isinstance(v, list) and all(isinstance(w, str) for w in v))
                for v in assignee.values()
            )
        ):
            if assignee is error and {"message", "error", "errors", "Message"} & set(error):
                continue
            return {str(name): [value] if isinstance(value, str) else value for name, value in assignee.items()}
    return {}


def _html_words(text: str) -> str | None:
    if not re.match(r"(?is)\s*(<!doctype html|<html|<head|<body)", text):
        return None
    # Only its beginning: a page of nothing but <title> takes this pattern minutes.
    title = re.search(r"(?is)<title[^>]*>(.*?)</title>", text[:4096])
    return "an HTML page" + (f" titled {' '.join(unescape(title[1]).split())!r}" if title else "")
