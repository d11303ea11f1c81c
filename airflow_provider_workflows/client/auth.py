"""Bearer tokens: fetch them from a source, renew them in time, and send them to one server only."""

from __future__ import annotations

import hashlib
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import Protocol
from urllib.parse import urlsplit

import requests.auth

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConnectionFailed,
    ServerError,
    SignInFailed,
    UnexpectedResponse,
)

MAX_RENEWAL_LEAD_SECONDS = 60.0  # before a token expires; at most a tenth of its lifetime
MAX_TOKEN_CHARACTERS = 2**14  # masking a token of a million characters in the logs would take ten seconds


@dataclass(frozen=True)
class Token:
    """
    Hold a bearer token.

    :param value: The token itself.
    :param fetched_at: Unix time at which it was fetched.
    :param expires_at: Unix time at which it expires, or None if unknown.
    """

    value: str = field(repr=False)
    fetched_at: float
    expires_at: float | None

    def is_fresh(self, now: float) -> bool:
        """Return whether the token is far enough from its expiry to be used."""
        if self.expires_at is None:
            return True
        return now < self.expires_at - min(MAX_RENEWAL_LEAD_SECONDS, 0.1 * (self.expires_at - self.fetched_at))


class TokenSource(Protocol):
    """
    Fetch tokens.

    ``identity`` distinguishes two sources without revealing a secret. A source that has only one token can have a
    ``remedy``: what to do when the server rejects that token. A source can have ``secrets``: parts of its
    credentials that a server may repeat by themselves.
    """

    identity: str

    def fetch(self, now: float) -> Token: ...


class TokenAuth(requests.auth.AuthBase):
    """
    Attach the bearer token to calls to one server, and renew it.

    A token is renewed shortly before it expires and after a 401: once, even if several threads need it at the same
    time.

    :param source: Fetches the tokens.
    :param base_url: The only server that receives the token.
    :param on_token: Called with every token before its first use, to mask it.
    :param clock: Returns the unix time in seconds.
    """

    _shared: weakref.WeakValueDictionary[tuple[str, str], TokenAuth] = weakref.WeakValueDictionary()
    _sharing = Lock()

    def __init__(
        self,
        source: TokenSource,
        base_url: str,
        *,
        on_token: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.time,
    ):
        self._source = source
        self._base_url = base_url
        self._on_token = on_token
        self._clock = clock
        # The age of a token is not measured by the wall-clock, which can be set.
        self._steady = time.monotonic if clock is time.time else clock
        self._fetched_at = 0.0  # by the steady clock
        self._lock = Lock()
        self._token: Token | None = None

    @classmethod
    def shared(cls, source: TokenSource, base_url: str, *, on_token: Callable[[str], None] | None = None) -> TokenAuth:
        """Return the process's auth for a source and server; all hooks of a connection share one token."""
        with cls._sharing:
            auth = cls._shared.get((source.identity, base_url))
            if auth is None:
                auth = cls._shared[source.identity, base_url] = cls(source, base_url)
        # Without the lock: a thread may hold it for as long as a fetch takes, and the caller may be an event loop.
        auth._on_token = on_token
        # The transport settings of the source (timeouts, retries) are those of the latest caller.
        auth._source = source
        token = auth._token
        if token is not None and on_token is not None:
            on_token(token.value)
        return auth

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if not same_server(str(request.url), self._base_url):
            raise UnexpectedResponse("A call to another server was not sent because it would reveal the token")
        request.headers["Authorization"] = f"Bearer {self.token()}"
        return request

    def token(self) -> str:
        """Return the token; fetch one if there is none or it expires soon."""
        with self._lock:
            if self._token is None or not self._is_fresh(self._token):
                self._fetch()
            assert self._token is not None
            return self._token.value

    @property
    def current(self) -> str:
        """The token that was fetched last, or "" before the first one; nothing is fetched."""
        token = self._token
        return "" if token is None else token.value

    def renew(self, rejected: str) -> None:
        """
        Replace a token that the server rejected, unless another thread already replaced it.

        :param rejected: The value of the rejected token.
        :raises AuthenticationError: the source has no other token.
        """
        with self._lock:
            if self._token is not None and self._token.value == rejected:
                self._fetch()
                if self._token.value == rejected:
                    raise AuthenticationError(
                        "The server rejected the token, which cannot be renewed",
                        advice=f"{getattr(self._source, 'remedy', '')} {AuthenticationError.advice}".strip(),
                    )

    def _is_fresh(self, token: Token) -> bool:
        return token.is_fresh(token.fetched_at + self._steady() - self._fetched_at)

    def _fetch(self) -> None:
        requested_at = self._steady()
        try:
            token = self._source.fetch(self._clock())
        except (ServerError, UnexpectedResponse) as failure:
            # Callers must not take it for a failure of the call that needs the token: that call was not sent.
            error = ConnectionFailed if isinstance(failure, ServerError) else SignInFailed
            raise error(f"No token could be fetched. {failure}") from failure
        if len(token.value) > MAX_TOKEN_CHARACTERS:
            raise SignInFailed(f"The token is longer than {MAX_TOKEN_CHARACTERS} characters, too long for a header")
        if not (token.value.isascii() and token.value.isprintable()):
            # Checked here because the error of http.client would repeat the token.
            raise SignInFailed("The token contains a line break or another character that is not valid in a token")
        if self._on_token is not None:
            self._on_token(token.value)
        self._token, self._fetched_at = token, requested_at


def same_server(url: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    return _server(url) == _server(other)


def fingerprint(*parts: object) -> str:
    """Return a hash that distinguishes secrets without revealing them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _server(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url, None, None


def parse_http_time(text: str) -> float | None:
    """Return the time in an HTTP header as unix time, or None if it is not a valid time."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
