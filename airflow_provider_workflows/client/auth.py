"""The bearer token: where it comes from, when it is renewed, and where it is sent."""

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

MAX_RENEWAL_LEAD_SECONDS = 60.0  # seconds before its end that a token is renewed; at most a tenth of its life
MAX_TOKEN_CHARACTERS = 2**14  # characters; hiding one of a million in the logs would take ten seconds


@dataclass(frozen=True)
class Token:
    """
    A bearer token.

    :param value: The token itself.
    :param fetched_at: Unix time when it was fetched.
    :param expires_at: Unix time when it ends, or None when that is not known.
    """

    value: str = field(repr=False)
    fetched_at: float
    expires_at: float | None

    def is_fresh(self, now: float) -> bool:
        """Tell whether it is still far enough from its end to be used."""
        if self.expires_at is None:
            return True
        return now < self.expires_at - min(MAX_RENEWAL_LEAD_SECONDS, 0.1 * (self.expires_at - self.fetched_at))


class TokenSource(Protocol):
    """
    Where tokens come from.

    ``identity`` tells two sources apart without giving a secret away. A source that has only one token can have a
    ``remedy``, which says what to do when the server does not accept that.
    """

    identity: str

    def fetch(self, now: float) -> Token: ...


class TokenAuth(requests.auth.AuthBase):
    """
    Attaches the bearer token to calls to one server, and renews it.

    Renewing happens ahead of expiry and after a 401, once however many threads notice at the same time.

    :param source: Where tokens come from.
    :param base_url: The only server that is sent the token.
    :param on_token: Called with every token before it is used, so that it can be masked.
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
        # How old a token is is not reckoned by the clock on the wall, which can be set.
        self._steady = time.monotonic if clock is time.time else clock
        self._fetched_at = 0.0  # by that
        self._lock = Lock()
        self._token: Token | None = None

    @classmethod
    def shared(cls, source: TokenSource, base_url: str, *, on_token: Callable[[str], None] | None = None) -> TokenAuth:
        """Return this process's one auth for a source and server, so that a thousand hooks share one token."""
        with cls._sharing:
            auth = cls._shared.get((source.identity, base_url))
            if auth is None:
                auth = cls._shared[source.identity, base_url] = cls(source, base_url)
        # Without the lock: a thread may hold it for as long as a fetch takes, and this may be an event loop.
        auth._on_token = on_token
        # The source's own settings (timeouts, retries) are those of whoever asked last.
        auth._source = source
        token = auth._token
        if token is not None and on_token is not None:
            on_token(token.value)
        return auth

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if not same_server(str(request.url), self._base_url):
            raise UnexpectedResponse("A call to another server was not sent: it would carry the token there")
        request.headers["Authorization"] = f"Bearer {self.token()}"
        return request

    def token(self) -> str:
        """Return the token, fetched where none is held or it ends soon."""
        with self._lock:
            if self._token is None or not self._is_fresh(self._token):
                self._fetch()
            assert self._token is not None
            return self._token.value

    def renew(self, rejected: str) -> None:
        """
        Replace a token that the server rejected, unless another thread already has.

        :param rejected: The value of the rejected token.
        :raises AuthenticationError: the source has no other one.
        """
        with self._lock:
            if self._token is not None and self._token.value == rejected:
                self._fetch()
                if self._token.value == rejected:
                    raise AuthenticationError(
                        "The server rejected the token and there is no way to renew it",
                        advice=f"{getattr(self._source, 'remedy', '')} {AuthenticationError.advice}".strip(),
                    )

    def _is_fresh(self, token: Token) -> bool:
        return token.is_fresh(token.fetched_at + self._steady() - self._fetched_at)

    def _fetch(self) -> None:
        asked_at = self._steady()
        try:
            token = self._source.fetch(self._clock())
        except (ServerError, UnexpectedResponse) as failed:
            # So that it is not taken for a failure of the call that needs the token, which was not sent.
            error = ConnectionFailed if isinstance(failed, ServerError) else SignInFailed
            raise error(f"There is no token. {failed}") from failed
        if len(token.value) > MAX_TOKEN_CHARACTERS:
            raise SignInFailed(f"The token is longer than {MAX_TOKEN_CHARACTERS} characters, which no header holds")
        if not (token.value.isascii() and token.value.isprintable()):
            # Said here, because the error of http.client would repeat the token.
            raise SignInFailed("The token holds a line break or a character that no token has")
        if self._on_token is not None:
            self._on_token(token.value)
        self._token, self._fetched_at = token, asked_at


def same_server(url: str, other: str) -> bool:
    """Tell whether two URLs have the same scheme, host and port."""
    return _server(url) == _server(other)


def fingerprint(*parts: object) -> str:
    """Return a hash that tells secrets apart without holding them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _server(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return url, None, None


def parse_http_time(text: str) -> float | None:
    """Return a time of an HTTP header as unix time, None where it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
