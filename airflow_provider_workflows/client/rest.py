"""One HTTP client for both products: sending, size limits, errors, paging."""

from __future__ import annotations

import re
import ssl
import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import parse_qs, quote, quote_plus, urljoin, urlsplit

import requests
import simplejson
import urllib3.exceptions

from airflow_provider_workflows.client.auth import TokenAuth, same_server
from airflow_provider_workflows.client.retry import Again, Replay, RetryPolicy
from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    ContractError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerError,
)

CONNECT_TIMEOUT = 10.0  # seconds
LARGEST_ANSWER = 32 * 2**20  # bytes, decoded
LARGEST_ERROR = 2**20  # bytes of an error's body that are read for its words
DEEPEST_ANSWER = 100  # lists and objects in one another; what is deeper breaks whatever goes through it later
MOST_PAGES = 10_000  # of one list
SHORTEST_SECRET = 5  # characters; what is shorter stands in ordinary words, too, and Airflow masks nothing shorter
LONGEST_CURSOR = 4096  # characters; servers take no longer address
HALF_A_PAIR = re.compile("[\ud800-\udfff]")  # JSON can hold it, and no address can
# A gateway's word that it does not know what became of the call (520 and 524 are Cloudflare's).
LOST_ON_THE_WAY = frozenset({408, 502, 503, 504, 520, 524})
# How a TLS handshake fails, before anything was sent.
NO_HANDSHAKE = frozenset({"WRONG_VERSION_NUMBER", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})


def path(template: str, *ids: object) -> str:
    """
    Fill ids into a path so that each stays one segment, whatever it holds.

    :param template: The path with ``{}`` for each id.
    :param ids: The ids.
    :raises ConfigurationError: an id is empty or would climb the path.
    """
    segments = []
    for value in ids:
        text = "" if value is None else str(value)
        if text.strip(" .") == "" or HALF_A_PAIR.search(text):
            raise ConfigurationError(f"An id of {template} is empty or not an id: {text!r}.")
        segments.append(quote(text, safe=""))
    return template.format(*segments)


@dataclass(frozen=True)
class RateLimit:
    """What the server last said of its rate limit; ``reset_at`` is a unix time in seconds."""

    limit: int | None
    remaining: int | None
    reset_at: int | None


@dataclass(frozen=True)
class Answer:
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
            raise self._odd("The answer is not JSON") from None
        if _is_too_deep(parsed):
            raise self._odd("The answer is too deep")
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
            raise self._odd("The answer is not a list of objects") from None

    def refuse_page(self, error: type[ApiError] = ContractError) -> None:
        """
        Require an answer of the API where its form is not documented: a page for people is none.

        :param error: What to raise.
        """
        if self.body.removeprefix(BOM_UTF8).lstrip()[:1] == b"<":
            raise self._odd("The answer is a page, perhaps to sign in", error)

    def _odd(self, words: str, error: type[ApiError] = ContractError) -> ApiError:
        kind = self.headers.get("Content-Type", "no content type")
        return error(
            f"{words} ({self.scrub(kind)})",
            method=self.method,
            path=self.path,
            status_code=self.status,
            request_id=_request_id(self.headers, self.scrub),
            server_message=self.scrub(_html_words(_beginning(self.body)) or ""),
        )


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Name none: to look at a redirect, requests would read its whole body, however large."""
        return None


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
        max_bytes: int = LARGEST_ANSWER,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ):
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.retry = retry or RetryPolicy()
        self.rate: RateLimit | None = None
        self.sent = 0  # requests
        self._ahead = 0.0  # seconds by which the server's clock is ahead of ours
        self._auth = auth
        self._secrets = secrets
        self._max_bytes = max_bytes
        self._sleep = sleep
        self._clock = clock
        self._session = _Session()
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
        """Return the time by the server's clock, as its last response told it; until then by this machine's."""
        return datetime.fromtimestamp(self._clock() + self._ahead, timezone.utc)

    def get(self, path: str, **kwargs: Any) -> Answer:
        """Send a GET that may be repeated; see :meth:`call`."""
        return self.call("GET", path, replay=Replay.SAFE, **kwargs)

    def call(
        self,
        method: str,
        path: str,
        *,
        replay: Replay,
        params: Mapping[str, Any] | None = None,
        query: str = "",
        json: Any = None,
        form: Mapping[str, str] | None = None,
        files: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
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
        attempt = partial(self._attempt, request, path, replay, timeout or self.timeout)
        return self.retry.run(attempt, sleep=self._sleep, clock=self._clock)

    def pages(
        self, path: str, *, params: Mapping[str, Any] | None = None, per_page: int, style: str
    ) -> Iterator[dict[str, Any]]:
        """
        Yield the rows of a list, asking for the next page when it is needed.

        Where a page could not be had, ``next()`` asks for that page again.

        :param style: ``v1``: bare arrays and page numbers. ``v2``: ``{"data": [...]}`` and cursors, whose way
            back is undocumented and looked for in the Link header and the body; else page numbers.
        :raises ContractError: not a list, a page that repeats the one before, or a cursor that comes again.
        """
        return _Pages(self, path, params or {}, per_page, style)

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

    def close(self) -> None:
        """Close the sockets."""
        self._session.close()

    # --- one attempt ---

    def _attempt(self, request: requests.Request, path: str, replay: Replay, timeout: float) -> Answer:
        response, body = self._send(request, path, replay, timeout)
        if response.status_code == 401 and self._auth is not None and request.auth is None:
            # Refused before anything was done, so any call may go again with a new token.
            self._auth.renew(_bearer(response.request))
            response, body = self._send(request, path, replay, timeout)
        if 200 <= response.status_code < 300:
            scrub = partial(self._scrub, response.request)
            return Answer(response.status_code, response.headers, body, str(request.method), path, scrub)
        self._fail(response, body, path, replay)
        raise AssertionError("unreachable")  # pragma: no cover

    def _send(
        self, request: requests.Request, path: str, replay: Replay, timeout: float
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
        if response.status_code < 200:
            # The answer proper may follow, and would be taken for that of the next call on this socket.
            self._session.close()
        self.rate = _rate(response.headers) or self.rate
        if (server_time := _date(response.headers)) is not None:
            self._ahead = server_time - self._clock()
        return response, body

    def _read(self, response: requests.Response, path: str, until: float) -> bytes:
        body = bytearray()
        for chunk in response.iter_content(2**16):
            body += chunk
            if len(body) > self._max_bytes:
                raise ContractError(
                    f"The answer is larger than {self._max_bytes} bytes",
                    method=str(response.request.method),
                    path=path,
                    status_code=response.status_code,
                )
            if time.monotonic() > until:
                raise requests.exceptions.ReadTimeout("the answer trickles")
        return bytes(body)

    def _lost(self, error: requests.exceptions.RequestException, method: str, path: str, replay: Replay) -> None:
        why = type(error).__name__
        # Any other TLS error can come after the call was sent.
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
            raise ConnectionFailed(
                "No trusted TLS connection (extra 'verify' takes the path of a CA bundle)",
                method=method,
                path=path,
            ) from error
        if any(
            isinstance(cause, ssl.SSLError) and getattr(cause, "reason", None) in NO_HANDSHAKE
            for cause in _causes(error)
        ):
            raise ConnectionFailed(
                f"{self.base_url} does not speak TLS as we do; is it plain http? ({why})", method=method, path=path
            ) from error
        if _nothing_was_sent(error):
            raise Again(
                ConnectionFailed(f"No connection to {self.base_url} ({why})", method=method, path=path)
            ) from error
        if replay is Replay.NEVER:
            raise OutcomeUnknown(f"The answer was lost ({why})", method=method, path=path) from error
        raise Again(ConnectionFailed(f"The answer was lost ({why})", method=method, path=path)) from error

    def _fail(self, response: requests.Response, body: bytes, path: str, replay: Replay) -> None:
        status = response.status_code
        words, fields = _error_words(body)
        scrub = self._scrubber(response.request)
        call: dict[str, Any] = {
            "method": str(response.request.method),
            "path": path,
            "status_code": status,
            "request_id": _request_id(response.headers, scrub),
            "server_message": scrub(words),
        }
        if 300 <= status < 400:
            raise _redirected(response, replay, call)
        not_before = _not_before(response.headers, self._clock(), status)
        # A 503 may come from a gateway whose server has acted, so it refuses only what may be sent twice.
        if status == 429 or (status == 503 and "Retry-After" in response.headers and replay is Replay.SAFE):
            raise Again(RateLimited("The server asks to wait", retry_at=_moment(not_before), **call), not_before)
        if status in LOST_ON_THE_WAY:
            if replay is Replay.NEVER:
                raise OutcomeUnknown("The call was lost on the way", **call)
            raise Again(ServerError("The server is not available", **call), not_before)
        if status == 401:
            raise AuthenticationError("Not signed in", **call)
        if status == 403:
            raise PermissionDenied("Not permitted", **call)
        if status == 404:
            raise NotFound("Not found", **call)
        if 400 <= status < 500:
            clean = {scrub(name): [scrub(word) for word in wrong] for name, wrong in fields.items()}
            raise InvalidRequest("The server refused the request", fields=clean, **call)
        if status >= 500:
            raise ServerError("The server failed", **call)
        raise ContractError("The status is not one of an answer", **call)

    def _scrub(self, request: requests.PreparedRequest, words: str) -> str:
        return self._scrubber(request)(words)

    def _scrubber(self, request: requests.PreparedRequest) -> Callable[[str], str]:
        """Return a function that takes the secrets out of a server's words, however it spells them, and cuts them."""
        secrets = [one for one in (*self._secrets, _credentials(request)) if len(one) >= SHORTEST_SECRET]
        forms = sorted({form for one in secrets for form in _spelled(one)}, key=len, reverse=True)

        def scrub(words: str) -> str:
            for form in forms:
                words = words.replace(form, "***")
            return re.sub(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]+", r"\1 ***", words)[:500]

        return scrub

    # --- paging ---

    def _next_page(
        self, answer: Answer, body: Any, number: int, place: dict[str, Any], per_page: int, received: int
    ) -> dict[str, Any] | None:
        linked = self._linked(answer)
        if linked is not None:
            return linked
        if not number:
            return None
        known, cursor = _body_cursor(body, answer.path)
        if known:
            if not cursor:
                return None
            # A slash alone does not make a URL: it is a letter of base64.
            is_url = "://" in cursor or re.search(r"[?&](cursor|page)=", cursor)
            return self._from_url(cursor, answer.path) if is_url else _cursor(cursor, answer.path)
        page = _whole(str(place.get("page", 1)))
        if "Link" in answer.headers or page is None:
            return None
        total = _whole(answer.headers.get("Total", ""))
        if total is not None:
            return {"page": page + 1} if received < total else None
        # Nothing says whether there is more. A full page may be cut off, so ask; an unknown cursor may not be
        # combined with a page number, which is why it is dropped. Pages may be smaller than we asked for.
        size = _whole(answer.headers.get("Per-Page", ""))
        return {"page": page + 1} if number >= (per_page if size is None else size) else None

    def _linked(self, answer: Answer) -> dict[str, Any] | None:
        for link in requests.utils.parse_header_links(answer.headers.get("Link", "")):
            if link.get("rel") == "next":
                return self._from_url(link["url"], answer.path)
        return None

    def _from_url(self, url: str, path: str) -> dict[str, Any]:
        """Take the place in the list from a URL, and never the URL itself: the token goes to our server only."""
        try:
            full = urljoin(self.base_url + path, url)
            query = parse_qs(urlsplit(full).query)
        except ValueError:
            raise ContractError("The link to the next page is not a URL", method="GET", path=path) from None
        if not same_server(full, self.base_url):
            raise ContractError("The next page is said to be on another server", method="GET", path=path)
        if query.get("cursor"):
            return _cursor(query["cursor"][0], path)
        if query.get("page"):
            text = query["page"][0]
            page = _whole(text)
            return {"page": _cursor(text, path)["cursor"] if page is None else page}
        raise ContractError("The link to the next page has neither cursor nor page", method="GET", path=path)


class _Pages:
    """The rows of a list that comes page by page; see :meth:`RestClient.pages`."""

    def __init__(self, client: RestClient, path: str, params: Mapping[str, Any], per_page: int, style: str):
        self._client = client
        self._path = path
        self._params = params
        self._per_page = per_page
        self._style = style
        self._place: dict[str, Any] | None = {"page": 1} if style == "v1" else {}
        self._seen: set[tuple[str, Any]] = set()
        self._received = 0
        self._turned = 0  # pages
        # Of the page that is being read:
        self._rows: Iterator[dict[str, Any]] | None = None
        self._number = 0
        self._answer: Answer | None = None
        self._body: Any = None
        self._content: Any = None  # what a page that comes twice is known by

    def __iter__(self) -> _Pages:
        return self

    def __next__(self) -> dict[str, Any]:
        while self._place is not None:
            if self._rows is None:
                self._open()
            assert self._rows is not None
            row = next(self._rows, None)
            if row is not None:
                self._number += 1
                return row
            self._turn_over()
        raise StopIteration

    def _open(self) -> None:
        params = {**self._params, "per_page": self._per_page, **(self._place or {})}
        answer = self._client.get(self._path, params=params)
        fault = self._fault(answer)
        body: Any = None
        content: Any = answer.body
        if self._style == "v1":
            rows = answer.rows()
        else:
            body = answer.json()
            content = _data_of(body, fault)
            rows = iter(content)
        if content == self._content and next(rows, None) is not None:
            raise fault("A page repeats the one before: this list has no paging, or none that is known")
        self._answer, self._body, self._content, self._rows, self._number = answer, body, content, rows, 0

    def _turn_over(self) -> None:
        assert self._answer is not None
        assert self._place is not None
        self._received += self._number
        following = self._client._next_page(
            self._answer, self._body, self._number, self._place, self._per_page, self._received
        )
        self._seen.update(self._place.items())
        if following is not None and not self._seen.isdisjoint(following.items()):
            raise self._fault(self._answer)("The paging goes round in a circle")
        self._turned += 1
        if following is not None and self._turned >= MOST_PAGES:
            raise self._fault(self._answer)(f"The list does not end after {MOST_PAGES} pages")
        self._place, self._rows = following, None

    def _fault(self, answer: Answer) -> Callable[[str], ContractError]:
        return partial(ContractError, method="GET", path=self._path, status_code=answer.status)


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
    for _ in range(DEEPEST_ANSWER):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in containers
        ]
        if not level:
            return False
    return True


def _data_of(body: Any, fault: Callable[..., ContractError]) -> list[Any]:
    rows = body.get("data") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise fault("The answer is not a list of objects")
    return rows


def _cursor(text: str, path: str) -> dict[str, Any]:
    if len(text) > LONGEST_CURSOR or HALF_A_PAIR.search(text):
        raise ContractError("The cursor to the next page cannot be sent back", method="GET", path=path)
    return {"cursor": text}


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
            if item is not None:
                pairs.append((name, str(item).lower() if isinstance(item, bool) else str(item)))
    return pairs


def _dump(body: Any) -> bytes:
    try:
        return simplejson.dumps(body, use_decimal=True, allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"The values cannot be written as JSON: {error}") from None


def _nothing_was_sent(error: requests.exceptions.RequestException) -> bool:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return True
    before_sending = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return any(isinstance(cause, before_sending) for cause in _causes(error))


def _causes(error: requests.exceptions.RequestException) -> Iterator[BaseException]:
    cause: object = error
    while isinstance(cause, BaseException):
        yield cause
        inner = getattr(cause, "reason", None) or next((a for a in cause.args if isinstance(a, BaseException)), None)
        cause = inner if inner is not cause else None


def _redirected(response: requests.Response, replay: Replay, call: dict[str, Any]) -> ApiError:
    target = response.headers.get("Location", "")
    if replay is Replay.NEVER:
        # After a change a server may send a browser on to what it has made.
        if re.search(r"/(log-?(in|on)|sign-?in)(\.\w+)?/?$", re.split(r"[?#]", target)[0], re.IGNORECASE):
            return AuthenticationError("The server sent us to its login page", **call)
        return OutcomeUnknown("The server answered with a redirect, which is not followed", **call)
    if re.search(r"log-?in|sign-?in|account|auth|sso", target, re.IGNORECASE) or "html" in response.headers.get(
        "Content-Type", ""
    ):
        return AuthenticationError("The server sent us to its login page", **call)
    return ContractError("The server answered with a redirect, which is not followed", **call)


# --- what headers and error bodies say ---


def _rate(headers: Mapping[str, str]) -> RateLimit | None:
    values = [headers.get(f"X-Rate-Limit-{name}", "") for name in ("Limit", "Remaining", "Reset")]
    numbers = [_whole(value) for value in values]
    return RateLimit(*numbers) if any(number is not None for number in numbers) else None


def _date(headers: Mapping[str, str]) -> float | None:
    """Return when a response was made, by the server's clock, as a unix time."""
    try:
        return parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def _whole(text: str) -> int | None:
    """Return a whole number, None for any other text, and for digits that no counter and no clock has."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def _request_id(headers: Mapping[str, str], scrub: Callable[[str], str]) -> str | None:
    given = headers.get("X-Request-Id")
    return None if given is None else scrub(given)[:100]


def _not_before(headers: Mapping[str, str], now: float, status: int) -> float | None:
    """
    Return the later of the two times that a server can ask us to wait for.

    Procore sends X-Rate-Limit-Reset with every answer; it says when to come back only if no call is left.
    """
    times = []
    retry_after = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        times.append(now + float(retry_after))
    elif retry_after:
        try:
            times.append(parsedate_to_datetime(retry_after).timestamp())
        except (TypeError, ValueError):
            pass
    reset = headers.get("X-Rate-Limit-Reset", "")
    if reset.isdecimal() and (status == 429 or headers.get("X-Rate-Limit-Remaining") == "0"):
        times.append(float(reset))
    return max(times, default=None)


def _moment(unix_time: float | None) -> datetime | None:
    try:
        return None if unix_time is None else datetime.fromtimestamp(unix_time, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None  # such as milliseconds: beyond the calendar


def _body_cursor(body: Any, path: str) -> tuple[bool, str | None]:
    """
    Return whether the body names a next cursor or URL, and which; None is the end of the list.

    One place may be null while another names it, so null is believed only when it is all there is.
    """
    if not isinstance(body, dict):
        return False, None
    places = [body]
    for name in ("meta", "pagination", "paging", "links", "cursor", "page_info"):
        for holder in list(places):
            if isinstance(holder.get(name), dict):
                places.append(holder[name])
    named = [holder[name] for holder in places for name in ("next_cursor", "nextCursor", "next") if name in holder]
    said = [cursor for cursor in named if cursor]
    usable = next((cursor for cursor in said if type(cursor) in (str, int)), None)
    if said and usable is None:
        # To take it for the end would be to leave out what follows.
        kind = type(said[0]).__name__
        raise ContractError(
            f"The place of the next page is neither a text nor a number but {kind}", method="GET", path=path
        )
    return bool(named), None if usable is None else str(usable)


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


def _beginning(body: bytes) -> str:
    return body[:LARGEST_ERROR].decode("utf-8-sig", "replace")


def _words(error: Any) -> list[str]:
    if isinstance(error, (str, int, float)) and not isinstance(error, bool):
        return [str(error)] if str(error) else []
    if isinstance(error, list):
        return [word for item in error for word in _words(item)]
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
    told = [name for name in known if named.get(name)]
    if told:
        return [word for name in told for word in _words(named[name])]
    return [f"{name}: {', '.join(words)}" for name, value in error.items() if (words := _words(value))]


def _fields(error: Any) -> dict[str, list[str]]:
    if not isinstance(error, dict):
        return {}
    for holder in (error.get("fields"), error.get("errors"), error):
        if (
            isinstance(holder, dict)
            and holder
            and all(
                isinstance(v, str) or (isinstance(v, list) and all(isinstance(w, str) for w in v))
                for v in holder.values()
            )
        ):
            if holder is error and {"message", "error", "errors", "Message"} & set(error):
                continue
            return {str(name): [value] if isinstance(value, str) else value for name, value in holder.items()}
    return {}


def _html_words(text: str) -> str | None:
    if not re.match(r"(?is)\s*(<!doctype html|<html|<head|<body)", text):
        return None
    # Only its beginning: a page of nothing but <title> takes this pattern minutes.
    title = re.search(r"(?is)<title[^>]*>(.*?)</title>", text[:4096])
    return "an HTML page" + (f" titled {' '.join(unescape(title[1]).split())!r}" if title else "")
