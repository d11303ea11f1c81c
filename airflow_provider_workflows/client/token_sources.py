"""The sources of bearer tokens: OAuth 2 client credentials, Workflowsoft's API tokens, or a token that is given."""

from __future__ import annotations

import base64
import time
from typing import Any

import simplejson

from airflow_provider_workflows import json_text
from airflow_provider_workflows.client.auth import Token, fingerprint, parse_http_time
from airflow_provider_workflows.client.error_mapping import MIN_SECRET_CHARACTERS
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
    Return a token that was given, which cannot be renewed.

    :param token: The token.
    :param remedy: What to do when the server rejects it.
    """

    def __init__(self, token: str, remedy: str = "Get a new token and put it into the connection."):
        self.remedy = remedy
        self._token = token.strip()  # a secret from a file often ends with a line break
        self.identity = fingerprint("static", self._token)

    def fetch(self, now: float) -> Token:
        return Token(self._token, now, _claim(self._token, "exp"))


class ClientCredentials:
    """
    Fetch tokens with OAuth 2 client credentials, as Procore issues them for a data connection app.

    :param login_url: Scheme and host of the login server.
    :param client_id: Client id.
    :param client_secret: Client secret.
    :param transport: ``timeout``, ``verify``, ``proxies``, ``retry`` of the :class:`RestClient` for the token calls.
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
            raise _sign_in_failed(
                f"{self._client.base_url} issued no token for this client id and secret", rejection
            ) from None
        return _read_token(response, now, None)


class ApiTokenSource:
    """
    Fetch API tokens of Workflowsoft as an administrator.

    The vendor documents neither how the administrator signs in for this call nor the format of its response.

    :param base_url: Scheme and host of the API.
    :param login: Administrator's login.
    :param password: Password; with ``bearer`` a token, with ``cookie`` a cookie as ``name=value``.
    :param lifetime: Lifetime to request, in seconds.
    :param scheme: How to sign in: ``basic``, ``bearer`` or ``cookie``.
    :param transport: ``timeout``, ``verify``, ``proxies``, ``retry`` of the :class:`RestClient` for the token calls.
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
        self.identity = fingerprint("api_token", base_url, login, password, lifetime, scheme)
        self._lifetime = lifetime
        self._basic = (login, password) if scheme == "basic" else None
        self._headers = {
            "bearer": {"Authorization": f"Bearer {password}"},
            "cookie": {"Cookie": password},
        }.get(scheme, {})
        # A server may repeat the value of one cookie without its name.
        cookies = password.split(";") if scheme == "cookie" else ()
        values = (cookie.partition("=")[2].strip(' "') for cookie in cookies)
        self.secrets = tuple(value for value in values if len(value) >= MIN_SECRET_CHARACTERS)
        self._client = _client(base_url, (password, *self.secrets), transport)

    def fetch(self, now: float) -> Token:
        try:
            response = self._client.get(
                "/api/v2/app/apitoken",
                params={"lifeTimeInSec": self._lifetime},
                auth=self._basic,
                headers=self._headers,
            )
        except TOKEN_REJECTIONS as rejection:
            raise _sign_in_failed(
                f"{self._client.base_url} issued no API token (the sign-in for it is not documented: try another value "
                "of the extra 'login_auth', or put an API token into the password and leave the login empty)",
                rejection,
            ) from None
        return _read_token(response, now, self._lifetime)


def _client(base_url: str, secrets: tuple[str, ...], transport: dict[str, Any]) -> RestClient:
    return RestClient(base_url, secrets=secrets, **transport)


def _sign_in_failed(what: str, rejection: Any) -> SignInFailed:
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
        body: Any = json_text.parse(text)
    except (ValueError, RecursionError):
        body = text
    named = (
        {str(name).lower().replace("_", ""): value for name, value in body.items()} if isinstance(body, dict) else {}
    )
    names = ("accesstoken", "token", "apitoken", "value")
    value = next((named[name] for name in names if named.get(name)), None) if named else body
    problem = None
    if "<" in text or "html" in response.headers.get("Content-Type", ""):
        problem = "The server returned its login page instead of a token"
    elif not isinstance(value, str) or not value or any(letter.isspace() for letter in value):
        problem = "The server's response contains no token"
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
    Return the remaining lifetime of a JWT that was just issued; not verified, and only used to renew it in time.

    It is measured by the server's clock, because with a wrong local clock a new token would seem to have expired.

    :param served_at: Unix time of the response by the server's clock, if it has a Date.
    """
    end = _claim(token, "exp")
    start = _claim(token, "iat") if served_at is None else served_at
    return None if end is None else _seconds(end - (time.time() if start is None else start))


def _claim(token: str, name: str) -> float | None:
    """Return a numeric claim of a JWT, or None if the token is not a JWT or has no such claim."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        return float(simplejson.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))[name])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
