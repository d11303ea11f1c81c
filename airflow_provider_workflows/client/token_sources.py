"""Where bearer tokens come from: OAuth 2 client credentials, Workflowsoft's API tokens, or one that was given."""

from __future__ import annotations

import base64
import time
from typing import Any

import simplejson

from airflow_provider_workflows.client.auth import Token, fingerprint, parse_http_time
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.response import ApiResponse
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    SignInFailed,
)

TOKEN_REJECTIONS = (AuthenticationError, InvalidRequest, NotFound, PermissionDenied)


class StaticToken:
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
        try:
            response = self._client.call("POST", "/oauth/token", idempotency=Idempotency.SAFE, form=self._grant)
        except TOKEN_REJECTIONS as rejection:
            raise _rejected(f"{self._client.base_url} gave no token for this client id and secret", rejection) from None
        return _read_token(response, now, None)


class ApiTokenSource:
    """
    An API token that Workflowsoft gives to an administrator.

    The vendor documents neither how the administrator signs in for this call nor the form of its answer.

    :param base_url: Scheme and host of the API.
    :param login: Administrator's login.
    :param password: Password; with ``bearer`` a token, with ``cookie`` a cookie as ``name=value``.
    :param lifetime: Lifetime to ask for, in seconds.
    :param scheme: How to sign in: ``basic``, ``bearer`` or ``cookie``.
    :param transport: ``timeout``, ``verify``, ``proxies``, ``retry`` of the :class:`RestClient` it uses.
    """

    def __init__(
        self,
        base_url: str,
        login: str,
        password: str,
        *,
        lifetime: int = 3600,
        scheme: str = "basic",
        **transport: Any,
    ):
        self.identity = fingerprint("minted", base_url, login, password, lifetime, scheme)
        self._lifetime = lifetime
        self._basic = (login, password) if scheme == "basic" else None
        self._headers = {
            "bearer": {"Authorization": f"Bearer {password}"},
            "cookie": {"Cookie": password},
        }.get(scheme, {})
        self._client = _client(base_url, (password,), transport)

    def fetch(self, now: float) -> Token:
        try:
            response = self._client.get(
                "/api/v2/app/apitoken",
                params={"lifeTimeInSec": self._lifetime},
                auth=self._basic,
                headers=self._headers,
            )
        except TOKEN_REJECTIONS as rejection:
            raise _rejected(
                f"{self._client.base_url} gave no API token (how to ask for one is undocumented: try the extra "
                "'login_auth', or put a ready token into the password and leave the login empty)",
                rejection,
            ) from None
        return _read_token(response, now, self._lifetime)


def _client(base_url: str, secrets: tuple[str, ...], transport: dict[str, Any]) -> RestClient:
    return RestClient(base_url, secrets=secrets, **transport)


def _rejected(what: str, rejection: Any) -> SignInFailed:
    return SignInFailed(
        what,
        method=rejection.method,
        path=rejection.path,
        status_code=rejection.status_code,
        request_id=rejection.request_id,
        server_message="; ".join(filter(None, [str(rejection).split(":")[0], rejection.server_message])),
    )


def _read_token(response: ApiResponse, now: float, lifetime: float | None) -> Token:
    """Read a token from an object, a JSON string, or plain text."""
    text = response.body.decode("utf-8", "replace").strip()
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
    if "<" in text or "html" in response.headers.get("Content-Type", ""):
        problem = "The server answered with its login page instead of a token"
    elif not isinstance(value, str) or not value or any(letter.isspace() for letter in value):
        problem = "The server's answer holds no token"
    if problem is not None:
        raise SignInFailed(problem, method=response.method, path=response.path, status_code=response.status)
    seconds = (
        _seconds(named.get("expiresin"))
        or _seconds_of_jwt(str(value), parse_http_time(response.headers.get("Date", "")))
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
    start = _claim(token, "iat") if served_at is None else served_at
    return None if end is None else _seconds(end - (time.time() if start is None else start))


def _claim(token: str, name: str) -> float | None:
    """Return a number that a JWT holds, None where it is no JWT or holds none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return float(simplejson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))[name])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
