"""The bearer token: where it comes from, when it is renewed, and where it is sent."""

from __future__ import annotations

import base64
import hashlib
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import requests.auth
import simplejson

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConnectionFailed,
    ContractError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ServerError,
    SignInFailed,
)

if TYPE_CHECKING:
    from airflow_provider_workflows.client.rest import Answer, RestClient

LONGEST_LEAD = 60.0  # seconds before its end that a token is renewed; at most a tenth of its life
LONGEST_TOKEN = 2**14  # characters; hiding one of a million in the logs would take ten seconds
REFUSALS = (AuthenticationError, InvalidRequest, NotFound, PermissionDenied)


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
        return now < self.expires_at - min(LONGEST_LEAD, 0.1 * (self.expires_at - self.fetched_at))


class TokenSource(Protocol):
    """
    Where tokens come from.

    ``identity`` tells two sources apart without giving a secret away. A source that has only one token can have a
    ``remedy``, which says what to do when the server does not accept that.
    """

    identity: str

    def fetch(self, now: float) -> Token: ...


class ReadyToken:
    """
    A token that was given as it is; it cannot be renewed.

    :param token: The token.
    :param remedy: What to do when the server does not accept it any more.
    """

    def __init__(self, token: str, remedy: str = "Get a new token, and put it into the connection."):
        self.remedy = remedy
        self._token = token.strip()  # a secret from a file often ends with a line break
        self.identity = fingerprint("ready", self._token)

    def fetch(self, now: float) -> Token:
        return Token(self._token, now, _claim(self._token, "exp"))


class ClientCredentials:
    """
    OAuth 2 client credentials, as Procore gives them to a data connection app.

    :param login_url: Scheme and host of the login server.
    :param client_id: Client id.
    :param client_secret: Client secret.
    :param transport: ``timeout``, ``verify``, ``proxies``, ``retry`` of the :class:`RestClient` it uses.
    """

    def __init__(self, login_url: str, client_id: str, client_secret: str, **transport: Any):
        self.identity = fingerprint("client_credentials", login_url, client_id, client_secret)
        self._grant = {
            "grant_type": "client_credentials",
            "client_id": client_id,
            "client_secret": client_secret,
        }
        self._client = _client(login_url, (client_secret,), transport)

    def fetch(self, now: float) -> Token:
        from airflow_provider_workflows.client.retry import Replay

        try:
            answer = self._client.call("POST", "/oauth/token", replay=Replay.SAFE, form=self._grant)
        except REFUSALS as refusal:
            raise _refused(f"{self._client.base_url} gave no token for this client id and secret", refusal) from None
        return _read_token(answer, now, None)


class MintedToken:
    """
    An API token that Workflowsoft gives to an administrator.

    The vendor documents neither how the administrator signs in for this call nor the form of its answer.

    :param base_url: Scheme and host of the API.
    :param login: Administrator's login.
    :param password: Password; with ``bearer`` a token, with ``cookie`` a cookie as ``name=value``.
    :param lifetime: Lifetime to ask for, in seconds.
    :param mint_auth: How to sign in: ``basic``, ``bearer`` or ``cookie``.
    :param transport: ``timeout``, ``verify``, ``proxies``, ``retry`` of the :class:`RestClient` it uses.
    """

    def __init__(
        self,
        base_url: str,
        login: str,
        password: str,
        *,
        lifetime: int = 3600,
        mint_auth: str = "basic",
        **transport: Any,
    ):
        self.identity = fingerprint("minted", base_url, login, password, lifetime, mint_auth)
        self._lifetime = lifetime
        self._basic = (login, password) if mint_auth == "basic" else None
        self._headers = {
            "bearer": {"Authorization": f"Bearer {password}"},
            "cookie": {"Cookie": password},
        }.get(mint_auth, {})
        self._client = _client(base_url, (password,), transport)

    def fetch(self, now: float) -> Token:
        try:
            answer = self._client.get(
                "/api/v2/app/apitoken",
                params={"lifeTimeInSec": self._lifetime},
                auth=self._basic,
                headers=self._headers,
            )
        except REFUSALS as refusal:
            raise _refused(
                f"{self._client.base_url} gave no API token (how to ask for one is undocumented: try the extra "
                "'mint_auth', or put a ready token into the password and leave the login empty)",
                refusal,
            ) from None
        return _read_token(answer, now, self._lifetime)


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
            raise ContractError("A call to another server was not sent: it would carry the token there")
        request.headers["Authorization"] = f"Bearer {self.token()}"
        return request

    def token(self) -> str:
        """Return the token, fetched where none is held or it ends soon."""
        with self._lock:
            if self._token is None or not self._is_fresh(self._token):
                self._fetch()
            assert self._token is not None
            return self._token.value

    def renew(self, refused: str) -> None:
        """
        Replace a token that the server refused, unless another thread already has.

        :param refused: The value of the refused token.
        :raises AuthenticationError: the source has no other one.
        """
        with self._lock:
            if self._token is not None and self._token.value == refused:
                self._fetch()
                if self._token.value == refused:
                    raise AuthenticationError(
                        "The server refused the token and there is no way to renew it",
                        advice=f"{getattr(self._source, 'remedy', '')} {AuthenticationError.advice}".strip(),
                    )

    def _is_fresh(self, token: Token) -> bool:
        return token.is_fresh(token.fetched_at + self._steady() - self._fetched_at)

    def _fetch(self) -> None:
        asked_at = self._steady()
        try:
            token = self._source.fetch(self._clock())
        except (ServerError, ContractError) as failed:
            # So that it is not taken for a failure of the call that needs the token, which was not sent.
            error = ConnectionFailed if isinstance(failed, ServerError) else SignInFailed
            raise error(f"There is no token. {failed}") from failed
        if len(token.value) > LONGEST_TOKEN:
            raise SignInFailed(f"The token is longer than {LONGEST_TOKEN} characters, which no header holds")
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


def _client(base_url: str, secrets: tuple[str, ...], transport: dict[str, Any]) -> RestClient:
    from airflow_provider_workflows.client.rest import RestClient  # which imports this module

    return RestClient(base_url, secrets=secrets, **transport)


def _refused(what: str, refusal: Any) -> SignInFailed:
    return SignInFailed(
        what,
        method=refusal.method,
        path=refusal.path,
        status_code=refusal.status_code,
        request_id=refusal.request_id,
        server_message="; ".join(filter(None, [str(refusal).split(":")[0], refusal.server_message])),
    )


def _read_token(answer: Answer, now: float, lifetime: float | None) -> Token:
    """Read a token from an object, a JSON string, or plain text."""
    text = answer.body.decode("utf-8", "replace").strip()
    try:
        body: Any = simplejson.loads(text)
    except (ValueError, RecursionError):
        body = text
    named = (
        {str(name).lower().replace("_", ""): value for name, value in body.items()} if isinstance(body, dict) else {}
    )
    names = ("accesstoken", "token", "apitoken", "value")
    value = next((named[name] for name in names if named.get(name)), None) if named else body
    problem = None
    if "<" in text or "html" in answer.headers.get("Content-Type", ""):
        problem = "The server answered with its login page instead of a token"
    elif not isinstance(value, str) or not value or any(letter.isspace() for letter in value):
        problem = "The server's answer holds no token"
    if problem is not None:
        raise SignInFailed(problem, method=answer.method, path=answer.path, status_code=answer.status)
    seconds = (
        _seconds(named.get("expiresin"))
        or _seconds_of_jwt(str(value), parse_http_time(answer.headers.get("Date", "")))
        or _seconds(lifetime)
    )
    return Token(str(value), now, None if seconds is None else now + seconds)


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 < seconds < float("inf") else None


def _seconds_of_jwt(token: str, served_at: float | None) -> float | None:
    """
    Return how long a JWT that was given out now will live; unverified, used for nothing but to renew in time.

    It is reckoned by the clock of the server, for ours can be wrong, and a new token would seem to have ended.

    :param served_at: Unix time of the response by the server's clock, where it has a Date.
    """
    end = _claim(token, "exp")
    begin = _claim(token, "iat") if served_at is None else served_at
    return None if end is None else _seconds(end - (time.time() if begin is None else begin))


def _claim(token: str, name: str) -> float | None:
    """Return a number that a JWT holds, None where it is no JWT or holds none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return float(simplejson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))[name])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def parse_http_time(text: str) -> float | None:
    """Return a time of an HTTP header as unix time, None where it is none."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
