"""The REST client of all APIs: sends calls, limits the size of responses, and raises the errors of this package."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
import simplejson

from airflow_provider_workflows import __version__
from airflow_provider_workflows.client.auth import TokenAuth, parse_http_time
from airflow_provider_workflows.client.dry_run import changes_something, not_sent
from airflow_provider_workflows.client.error_mapping import (
    bearer_of,
    failure,
    is_sign_in,
    leads_on,
    lost,
    redactor,
    request_id,
    scrubber,
)
from airflow_provider_workflows.client.pace import MAX_STATED_WAIT_SECONDS, Pace
from airflow_provider_workflows.client.pagination import Paginator
from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.client.response import ApiResponse
from airflow_provider_workflows.client.retry import Idempotency, RetryPolicy
from airflow_provider_workflows.client.transport import Adapter, Session
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    UnexpectedResponse,
)

log = logging.getLogger(__name__)
CONNECT_TIMEOUT = 10.0  # seconds
MIN_LOGGED_WAIT_SECONDS = 60.0
MAX_RESPONSE_BYTES = 32 * 2**20  # bytes, decoded
MAX_PAGES = 10_000  # of one list
MAX_IDLE_SECONDS = 2.0  # of a socket before an unsafe call; some servers close an idle socket after that


class Observer(Protocol):
    """Watch every request of a client, including repeated ones and those for tokens."""

    def before(self, request: requests.PreparedRequest) -> None:
        """Raise an error to keep a request from being sent."""

    def after(self, request: requests.PreparedRequest, response: requests.Response, body: bytes) -> None:
        """Record a response of any status."""


class RestClient:
    """
    Send calls to one server; return its successful responses and raise this package's errors for all others.

    The client never follows redirects. After a 401 it renews the token once.

    :param base_url: Scheme and host, optionally with a path in front of the API's own; no trailing slash.
    :param auth: Attaches the bearer token; None for no token.
    :param headers: Headers of every call.
    :param timeout: Seconds to wait for a response.
    :param verify: Whether to verify the certificate, or the path of a CA bundle.
    :param proxies: Proxies by scheme.
    :param retry: How often and how long a call is attempted.
    :param secrets: Texts that never appear in an error, even if the server echoes them.
    :param dry_run: Raise :class:`DryRun` instead of sending a call that changes something.
    :param advise: Returns the advice for a status (403 or 404) of a path, or None for the default advice.
    :param observer: Watches the requests.
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
        dry_run: bool = False,
        advise: Callable[[int, str], str | None] | None = None,
        max_bytes: int = MAX_RESPONSE_BYTES,
        observer: Observer | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ):
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.dry_run = dry_run
        self.retry = retry or RetryPolicy()
        self.rate: RateLimit | None = None
        self.sent = 0  # requests
        self._page_limits: dict[str, int] = {}  # rows of the largest page that the server returns, by path
        self._ahead = 0.0  # seconds by which the server's clock is ahead of this machine's
        self._auth = auth
        self._secrets = secrets
        self._advise = advise or (lambda status, path: None)
        self._max_bytes = max_bytes
        self._observer = observer
        self._sleep = sleep
        self._clock = clock
        # Times that are only compared with each other do not use the wall-clock, which can be set.
        self._steady = time.monotonic if clock is time.time else clock
        self._last_used = float("-inf")
        self._settings: dict[tuple[str, str], Mapping[str, Any]] = {}  # of requests, by scheme and host
        self._session = Session()
        self._session.headers.update(
            {"Accept": "application/json", "User-Agent": f"airflow-provider-workflows/{__version__}"}
        )
        self._session.headers.update(_sendable(headers or {}))
        self._session.verify = verify
        self._session.proxies.update(proxies or {})
        # Without an explicit auth, requests would use a login from ~/.netrc.
        self._session.auth = auth or _no_auth

    def token(self) -> str:
        """Return the token of the calls; fetch one if there is none or it expires soon."""
        return "" if self._auth is None else self._auth.token()

    def server_time(self) -> datetime:
        """Return the time by the server's clock, from its latest response; before that, this machine's time."""
        return datetime.fromtimestamp(self._clock() + self._ahead, timezone.utc)

    def use_whole_rate_limit(self) -> None:
        """Stay within the server's rate limit, and wait for it up to an hour: for a task with hundreds of calls."""
        if isinstance(self._observer, Pace):
            return
        self._observer = Pace(self._steady, self._sleep)
        self._sleep = partial(_log_and_sleep, self._sleep)
        self.retry = replace(self.retry, longest_wait=MAX_STATED_WAIT_SECONDS)

    def get(self, path: str, **kwargs: Any) -> ApiResponse:
        """Send a GET that may be repeated; see :meth:`call`."""
        return self.call("GET", path, idempotency=Idempotency.SAFE, **kwargs)

    def call(
        self,
        method: str,
        path: str,
        *,
        idempotency: Idempotency,
        params: Mapping[str, Any] | None = None,
        query: str = "",
        json: Any = None,
        form: Mapping[str, str] | None = None,
        files: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
        may_redirect: bool = False,
        only_reads: bool = False,
    ) -> ApiResponse:
        """
        Send one call, retry it where that is allowed, and return the successful response.

        :param method: HTTP method.
        :param path: Path below the base URL, built with :func:`build_path` if it contains ids.
        :param idempotency: Whether this call may be sent twice.
        :param params: Query parameters; None is left out, booleans become lower case, lists repeat their key.
        :param query: Query string that is sent unchanged; errors do not show it.
        :param json: JSON body; decimals are written exactly.
        :param form: Form fields, as the body or as part of a multipart body.
        :param files: Files of a multipart body.
        :param data: Body that is sent unchanged.
        :param headers: Headers of this call; None leaves out a header that the client sends with every call.
        :param auth: HTTP Basic login and password, instead of the client's auth.
        :param timeout: Seconds to wait for a response, instead of the client's timeout.
        :param may_redirect: Return a redirect as a successful response unless it leads to a sign-in page.
        :param only_reads: The call changes nothing, although it is neither a GET nor a HEAD.
        :raises ApiError: one of its subclasses; see :mod:`airflow_provider_workflows.exceptions`.
        :raises DryRun: the client is a dry run, and the call changes something; nothing was sent.
        """
        body: Any = dict(form) if form is not None else data if json is None else _dump(json)
        own_headers = {} if json is None else {"Content-Type": "application/json"}
        if files is not None:
            # Encoded once, because a file that was read for the first attempt would be empty for the second.
            multipart = requests.Request(method, self.base_url, data=body, files=files).prepare()
            body, own_headers = multipart.body, {"Content-Type": multipart.headers["Content-Type"]}
        request = requests.Request(
            method,
            self.base_url + path + (f"?{query}" if query else ""),
            params=_query(params or {}),
            data=body,
            headers={**own_headers, **_sendable(headers or {})},
            # As bytes, because requests would encode text as Latin-1, which cannot encode every password.
            auth=None if auth is None else (auth[0].encode(), auth[1].encode()),
        )
        if self.dry_run and changes_something(method, idempotency, only_reads=only_reads):
            raise not_sent(
                method,
                path,
                redact=redactor([*self._secrets, "" if self._auth is None else self._auth.current]),
                params=params,
                json=json,
                form=form,
                files=files,
                data=data,
                headers=headers,
            )
        attempt = partial(self._attempt, request, path, idempotency, timeout or self.timeout, may_redirect)
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
        Yield the rows of a list and request each page when it is needed; see :class:`Paginator`.

        :param path: Path of the list.
        :param params: Query parameters of every page.
        :param per_page: Rows per page to request.
        :param style: ``v1`` for bare arrays, ``v2`` for ``{"data": [...]}``.
        :param keep_malformed_rows: Yield an empty object for a row of ``v2`` that is not an object, instead of raising.
        """

        def fetch(query: dict[str, Any]) -> ApiResponse:
            return self.get(path, params=query)

        url = self.base_url + path
        return Paginator(fetch, url, params or {}, per_page, style, self._page_limits, MAX_PAGES, keep_malformed_rows)

    def without_sign_in(self, base_url: str) -> RestClient:
        """Return a client of another server with the same proxies and timeouts, but without token and headers."""
        return RestClient(
            base_url,
            timeout=self.timeout,
            verify=self._session.verify if self._session.verify is not None else True,
            proxies={str(scheme): str(proxy) for scheme, proxy in self._session.proxies.items()},
            retry=self.retry,
            dry_run=self.dry_run,
            max_bytes=self._max_bytes,
            observer=self._observer,
            sleep=self._sleep,
            clock=self._clock,
        )

    def share_sockets(self, adapter: Adapter) -> None:
        """Send calls over the sockets of an adapter that several clients of one server share."""
        self._session.share(adapter)

    def close(self) -> None:
        """Close the sockets."""
        self._session.close()

    # --- one attempt ---

    def _attempt(
        self, request: requests.Request, path: str, idempotency: Idempotency, timeout: float, may_redirect: bool
    ) -> ApiResponse:
        def is_redirect() -> bool:
            return may_redirect and leads_on(response)

        response, body = self._send(request, path, idempotency, timeout)
        if (
            self._auth is not None
            and request.auth is None
            and not is_redirect()
            and is_sign_in(response, body, idempotency)
        ):
            # Rejected before any action, so every call may be sent again with a new token.
            self._auth.renew(bearer_of(response.request))
            response, body = self._send(request, path, idempotency, timeout)
            if 200 <= response.status_code < 300 and is_sign_in(response, body, idempotency):
                raise AuthenticationError(
                    "The server returned its sign-in page, even with a new token",
                    method=str(request.method),
                    path=path,
                    status_code=response.status_code,
                    request_id=request_id(response.headers, self._scrubber(response.request)),
                )
        if 200 <= response.status_code < 300 or is_redirect():
            scrub = self._scrubber(response.request)
            return ApiResponse(response.status_code, response.headers, body, str(request.method), path, scrub)
        raise failure(
            response,
            body,
            path,
            idempotency,
            scrub=self._scrubber(response.request),
            advise=self._advise,
            now=self._clock(),
            steady_now=self._steady(),
        )

    def _send(
        self, request: requests.Request, path: str, idempotency: Idempotency, timeout: float
    ) -> tuple[requests.Response, bytes]:
        try:
            prepared = self._session.prepare_request(request)
        except (requests.exceptions.RequestException, UnicodeError) as error:
            # Without the error's message, which repeats the value that cannot be sent.
            raise ConfigurationError(
                f"The call cannot be sent ({type(error).__name__}). Check host, login, password and parameters for "
                "invalid characters."
            ) from None
        settings = self._settings_for(str(prepared.url))
        if self._observer is not None:
            self._observer.before(prepared)
        self.sent += 1
        if idempotency is Idempotency.UNSAFE and time.monotonic() - self._last_used > MAX_IDLE_SECONDS:
            # The server may have closed an idle socket, and a call sent over it would be lost.
            self._session.close()
        try:
            response = self._session.send(
                prepared, timeout=(min(CONNECT_TIMEOUT, timeout), timeout), allow_redirects=False, **settings
            )
            with response:
                body = self._read(response, path, time.monotonic() + 2 * timeout)
        except requests.exceptions.RequestException as error:
            raise lost(error, self.base_url, str(request.method), path, idempotency) from error
        except OSError as error:  # requests raises a bare OSError for a missing CA bundle
            raise ConfigurationError(f"{error}. Correct the extra 'verify' or REQUESTS_CA_BUNDLE.") from error
        self._last_used = time.monotonic()
        if self._observer is not None:
            self._observer.after(prepared, response, body)
        if response.status_code < 200:
            # The final response may follow, and would be taken for the response to the next call on this socket.
            self._session.close()
        self.rate = RateLimit.from_headers(response.headers, self._clock()) or self.rate
        if (server_time := parse_http_time(response.headers.get("Date", ""))) is not None:
            self._ahead = server_time - self._clock()
        return response, body

    def _settings_for(self, url: str) -> Mapping[str, Any]:
        """Return proxies and CA bundle for a server: requests reads the whole environment for them at each call."""
        server = urlsplit(url)[:2]
        if server not in self._settings:
            # As an argument, the connection's proxies override those of the environment; the session's would not.
            proxies = dict(self._session.proxies)
            settings = self._session.merge_environment_settings(url, proxies, True, None, None)
            if self._session.verify is not True:
                settings["verify"] = self._session.verify  # otherwise REQUESTS_CA_BUNDLE overrides it in requests
            self._settings[server] = settings
        return self._settings[server]

    def _read(self, response: requests.Response, path: str, until: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(2**16):
            body += chunk
            if len(body) > self._max_bytes:
                raise UnexpectedResponse(
                    f"The response is larger than {self._max_bytes} bytes",
                    method=str(response.request.method),
                    path=path,
                    status_code=response.status_code,
                )
            if time.monotonic() > until:
                raise requests.exceptions.ReadTimeout("the response arrives too slowly")
        return bytes(body)

    def _scrubber(self, request: requests.PreparedRequest) -> Callable[[str], str]:
        return scrubber(self._secrets, request)


def _log_and_sleep(sleep: Callable[[float], None], seconds: float) -> None:
    if seconds > MIN_LOGGED_WAIT_SECONDS:
        log.info("The server allows no call now. The next call is sent in %.0f s.", seconds)
    sleep(seconds)


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _sendable(headers: Mapping[str, str | None]) -> Mapping[str, Any]:
    """Reject a value that is invalid in a header, without repeating it as requests would: it may be a secret."""
    for name, value in headers.items():
        if value is not None and not re.fullmatch(r"([!-~][ -~]*)?", value):
            raise ConfigurationError(
                f"Header {name} cannot be sent: it contains a line break or is not ASCII. Correct its value."
            )
    return headers


def _query(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = []
    for name, value in params.items():
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(item, float):  # an id from a table; no query parameter of the APIs has a fraction
                raise ConfigurationError(f"{name} must be text or a whole number; got {item!r}.")
            if item is not None:
                pairs.append((name, str(item).lower() if isinstance(item, bool) else str(item)))
    return pairs


def _dump(body: Any) -> bytes:
    try:
        return simplejson.dumps(body, use_decimal=True, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"The values cannot be written as JSON: {error}") from None
