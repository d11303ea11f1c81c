"""The base of all hooks: builds a REST client from an Airflow connection and reads the connection's extras."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import Observer, RestClient
from airflow_provider_workflows.client.retry import RetryPolicy, one_attempt
from airflow_provider_workflows.exceptions import (
    MAX_MESSAGE_CHARACTERS,
    ConfigurationError,
    ConnectionFailed,
    WorkflowsError,
)
from airflow_provider_workflows.get_provider_info import get_provider_info
from airflow_provider_workflows.rules.look_ups import LookUps
from airflow_provider_workflows.rules.parameters import check_conn_id
from airflow_provider_workflows.version_compat import amask_secret, aread_extra, mask_secret

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from airflow.sdk import Connection

    from airflow_provider_workflows.client.auth import TokenSource

# Airflow's UI waits 10 seconds for the test of a connection, which makes two calls: for the token and for the user.
TEST_TIMEOUT_SECONDS = 5.0
DRY_RUN_NOTE = "Extra 'dry_run' is true: tasks only read, and send nothing that changes something."
LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}


# A problem with a connection and its fix; used by the error texts and by the doctor.
Problem = tuple[str, str]


def lookup_problem(conn_id: str, error: Exception) -> Problem | None:
    """
    Return the problem with a connection that explains why Airflow could not find it; None for any other error.

    It does not repeat the error's message: each secrets backend has its own errors, which may contain a secret.
    """
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    kind = type(error).__name__
    if variable in os.environ:
        return (
            f"Airflow cannot read connection {conn_id!r} from the environment variable {variable} ({kind}).",
            "Set the variable to a connection in JSON or URI format.",
        )
    if not isinstance(error, AirflowNotFoundException):
        return None
    set_variable = f"set {variable}, " if conn_id.isidentifier() else ""
    return (
        f"Airflow has no connection {conn_id!r} ({kind}).",
        f"Add the connection in Airflow, {set_variable}or correct the connection id.",
    )


def lookup_error(conn_id: str, error: Exception) -> WorkflowsError:
    """Return the error of this package for an error that Airflow raised when the connection was looked up."""
    if (problem := lookup_problem(conn_id, error)) is not None:
        return ConfigurationError(" ".join(problem))
    return ConnectionFailed(f"Connection {conn_id!r} could not be looked up ({type(error).__name__})", advice="")


def type_problem(conn_id: str, conn_type: str | None, *expected: str) -> Problem | None:
    """Return the problem with a connection that has none of the expected types; None if it has one of them."""
    if conn_type in expected:
        return None
    return (
        f"Connection {conn_id!r} has type {conn_type!r}. Expected: {' or '.join(expected)}.",
        "Give the id of another connection, or correct the type of this one.",
    )


@dataclass(frozen=True)
class FoundConnection:
    """
    Hold an Airflow connection as it was looked up.

    :param connection: The connection.
    :param fields: Its extra fields, with their secrets masked.
    """

    connection: Connection = field(repr=False)
    fields: dict[str, Any] = field(repr=False)

    def is_same_as(self, other: FoundConnection | None) -> bool:
        """Return whether another lookup found the same settings."""
        return other is not None and self._settings == other._settings

    @property
    def _settings(self) -> tuple[Any, ...]:
        names = ("conn_type", "host", "login", "password", "schema", "port", "extra")
        return tuple(getattr(self.connection, name, None) for name in names)


async def find_connection(conn_id: str) -> FoundConnection:
    """
    Look a connection up without blocking the event loop.

    :raises ConfigurationError: Airflow has no connection with this id, or cannot read it.
    :raises ConnectionFailed: Airflow or its secrets backend failed.
    """
    try:
        connection = await get_async_connection(conn_id)
        return FoundConnection(connection, await aread_extra(connection))
    except Exception as error:  # a secrets backend may raise anything
        raise lookup_error(conn_id, error) from None


class Extras:
    """
    Read the extra fields of one connection, and name the field if its value is invalid.

    Values from a URI are always strings, so ``"30"`` is accepted as a number and ``"true"`` as a boolean.

    :param conn_id: Id of the connection, for the error texts.
    :param fields: The extra as a dict.
    """

    def __init__(self, conn_id: str, fields: Mapping[str, Any]):
        self.conn_id = conn_id
        self.fields = fields

    def error(self, name: str, expected: str) -> ConfigurationError:
        """Return the error for a field, without its value: that may be a secret in the wrong field."""
        return ConfigurationError(f"Connection {self.conn_id!r}: extra {name!r} must be {expected}.")

    def text(self, name: str) -> str | None:
        value = self.fields.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise self.error(name, "text")
        return str(value)

    def id(self, name: str, *, or_name: str) -> str | None:
        """Return an id, or the name that is allowed instead of one."""
        value = self.fields.get(name)
        if value is None or value == "":
            return None
        text = str(value).strip()
        if isinstance(value, bool) or not (text.isdecimal() or text == or_name):
            raise self.error(name, f"an id, a whole number, or {or_name!r}")
        return text

    def choice(self, name: str, allowed: tuple[str, ...]) -> str:
        """Return one of the allowed values; the first one is the default."""
        value = self.fields.get(name) or allowed[0]
        if value not in allowed:
            raise self.error(name, f"one of {', '.join(allowed)}")
        return str(value)

    def seconds(self, name: str, default: float) -> float:
        value = self.fields.get(name)
        if value is None or value == "":
            return default
        try:
            seconds = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            seconds = float("nan")
        if not 0 < seconds < float("inf"):
            raise self.error(name, "a positive number of seconds")
        return seconds

    def number(self, name: str) -> int | None:
        value = self.fields.get(name)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not str(value).isdecimal() or int(value) < 1:
            raise self.error(name, "a whole number, at least 1")
        return int(value)

    def flag(self, name: str) -> bool:
        value = self.fields.get(name)
        if value is None or value == "":
            return False
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def verify(self) -> bool | str:
        """Return how TLS certificates are checked: True, False, or the path of a CA bundle."""
        value = self.fields.get("verify")
        if value is None or value == "":
            return True
        if isinstance(value, str):
            return {"true": True, "false": False}.get(value.lower(), value)
        if not isinstance(value, bool):
            raise self.error("verify", "false or the path of a CA bundle")
        return value

    def proxies(self) -> dict[str, str] | None:
        value = self.fields.get("proxies")
        if isinstance(value, str) and value:
            try:
                value = json.loads(value)
            except ValueError:
                value = None
                raise self.error("proxies", 'a JSON object such as {"https": "http://proxy:3128"}') from None
        if not value:
            return None
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self.error("proxies", 'a JSON object such as {"https": "http://proxy:3128"}')
        return value


class WorkflowsHook(BaseHook):
    """
    Build an authenticated REST client from an Airflow connection.

    In a task the hook looks the connection up when the client is first needed. In a trigger, ``await prepare()``
    first: it looks the connection up without blocking the event loop. After that the hook's methods may run in a
    thread, and each makes one attempt only, because the poll loop does the waiting.

    :param conn_id: Id of the Airflow connection.
    """

    conn_name_attr: ClassVar[str]
    hook_name: ClassVar[str]
    conn_type: ClassVar[str]
    product: ClassVar[str]  # ``procore``, ``procore_legacy`` or ``workflowsoft``

    def __init__(self, conn_id: str):
        super().__init__()
        check_conn_id(self.conn_name_attr, conn_id)
        self.conn_id = conn_id
        self._client: RestClient | None = None
        self._extras: Extras | None = None
        self._found: FoundConnection | None = None  # by a task
        self._look_ups = LookUps()
        self._account = ("", "")
        self._is_dry_run = False  # because the task is, even if the connection is not

    @abstractmethod
    def base_url(self, connection: Connection, extras: Extras) -> str:
        """Return the API's base URL for the connection."""

    @abstractmethod
    def token_source(
        self, connection: Connection, extras: Extras, base_url: str, transport: Mapping[str, Any]
    ) -> TokenSource:
        """Return the source of the connection's bearer tokens, which uses the same transport settings."""

    def default_headers(self, extras: Extras) -> dict[str, str]:
        """Return the headers of every call."""
        return {}

    @property
    def client(self) -> RestClient:
        if self._client is None:
            self._look_ups.start(time.monotonic())
            connection = self._find_connection()
            self._look_ups.succeed(time.monotonic())
            self._found = FoundConnection(connection, connection.extra_dejson)
            self._client = self._build(connection, self._found.fields, RetryPolicy(), mask_secret)
        return self._client

    def current_conn(self) -> RestClient:
        """
        Return the client for the next poll of a task, after looking the connection up again if that is due.

        :raises ConfigurationError: the lookup has failed for long, or the connection was changed to a wrong one.
        """
        if self._client is None or not self._look_ups.is_due(time.monotonic()):
            return self.client
        self._look_ups.start(time.monotonic())
        try:
            connection = self._find_connection()
        except WorkflowsError as fault:
            if not self._look_ups.may_fail(time.monotonic()):
                raise
            self.log.warning(
                "Looking up connection %r failed, polling continues with the one known before: %s", self.conn_id, fault
            )
            return self._client
        self._look_ups.succeed(time.monotonic())
        found = FoundConnection(connection, connection.extra_dejson)
        if not found.is_same_as(self._found):
            self.close()
            self._forget_responses()
            self._found = found
            self._client = self._build(connection, found.fields, RetryPolicy(), mask_secret)
        return self._client

    def request_look_up(self) -> None:
        """Let the next poll look the connection up again, because a call failed as it does after a change."""
        self._look_ups.request(time.monotonic())

    def _forget_responses(self) -> None:
        """Forget the server's responses that are cached, because the connection was changed."""

    def _find_connection(self) -> Connection:
        """
        Look the connection up.

        :raises ConfigurationError: Airflow has no connection with this id, or cannot read it.
        :raises ConnectionFailed: Airflow or its secrets backend failed.
        """
        try:
            return self.get_connection(self.conn_id)
        except Exception as error:  # a secrets backend may raise anything
            raise lookup_error(self.conn_id, error) from None

    def _advice(self, status: int, path: str) -> str | None:
        """Return the advice for a status (403 or 404) of a call, or None for the default advice."""
        return None

    @property
    def extras(self) -> Extras:
        """The extra fields of the connection."""
        if self._extras is None:
            self.get_conn()  # which reads the extras
        assert self._extras is not None
        return self._extras

    @property
    def account(self) -> tuple[str, str]:
        """Server and user of the connection; equal for two connections that sign in as the same user."""
        self.get_conn()  # which reads them
        return self._account

    @property
    def requests_per_hour(self) -> int | None:
        """The server's rate limit in requests per hour, as set in the connection, or None."""
        return self.extras.number("requests_per_hour")

    @property
    def dry_run(self) -> bool:
        """Whether the client rejects all calls that change something, because of the connection or the task."""
        return self.client.dry_run

    def start_dry_run(self) -> None:
        """Reject all calls that change something from now on, even if the connection allows them."""
        self._is_dry_run = True
        if self._client is not None:
            self._client.dry_run = True

    def get_conn(self) -> RestClient:
        """Return the authenticated REST client."""
        return self.client

    def item_url(self, **ids: str | None) -> str:
        """Fill ids into the connection's ``item_url``; return "" if it is not set or needs an id that is unknown."""
        try:
            template = self.extras.text("item_url") or ""
            return template.format_map(
                {name: quote(value, safe="") for name, value in ids.items() if value is not None}
            )
        except KeyError:
            return ""
        except Exception as error:  # a broken link must not fail the task
            problem = error if isinstance(error, ConfigurationError) else f"Extra 'item_url': {type(error).__name__}."
            self.log.warning("The link to the item could not be built. %s", problem)
            return ""

    async def prepare(self, found: FoundConnection | None = None) -> None:
        """
        Build the client on the running event loop, for use in a trigger.

        :param found: The connection, if it was looked up before; several hooks can share it.
        """
        if found is None:
            found = await find_connection(self.conn_id)
        loop = asyncio.get_running_loop()

        def mask_on_loop(token: str) -> None:
            asyncio.run_coroutine_threadsafe(amask_secret(token), loop)

        self.close()
        self._client = self._build(found.connection, found.fields, RetryPolicy.none(), mask_on_loop)

    def without_retries(self) -> AbstractContextManager[None]:
        """Make only one attempt of each call within the block: for polls, which are repeated anyway."""
        return one_attempt()

    def close(self) -> None:
        """Close the client's sockets; the next use opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def test_connection(self) -> tuple[bool, str]:
        """Make one cheap authenticated call; return whether it succeeded, and the result or what to fix."""
        try:
            connection = self._find_connection()
            self.close()
            self._client = self._build(
                connection, connection.extra_dejson, RetryPolicy.none(), mask_secret, max_timeout=TEST_TIMEOUT_SECONDS
            )
            result = self.check() + (f" {DRY_RUN_NOTE}" if self.dry_run else "")
            return True, result[:MAX_MESSAGE_CHARACTERS]
        except WorkflowsError as error:
            return False, str(error)
        finally:
            self.close()

    @abstractmethod
    def check(self) -> str:
        """Make one cheap authenticated call and describe its result."""

    def _build(
        self,
        connection: Connection,
        fields: Mapping[str, Any],
        retry: RetryPolicy,
        on_token: Callable[[str], None],
        max_timeout: float = float("inf"),
        observer: Observer | None = None,
    ) -> RestClient:
        if (problem := type_problem(self.conn_id, connection.conn_type, self.conn_type)) is not None:
            raise ConfigurationError(" ".join(problem))
        extras = self._extras = Extras(self.conn_id, self._checked_extra(connection, fields))
        extras.number("requests_per_hour")  # a wrong one must not be noticed only after the task has acted
        base_url = checked_url(
            self.base_url(connection, extras), f"Connection {self.conn_id!r}: host", extras.flag("allow_http")
        )
        transport: dict[str, Any] = {
            "timeout": min(extras.seconds("timeout", 60.0), max_timeout),
            "verify": extras.verify(),
            "proxies": extras.proxies(),
            "retry": retry,
            "observer": observer,
        }
        source = self.token_source(connection, extras, base_url, transport)
        self._account = base_url, connection.login or source.identity
        auth = TokenAuth.shared(source, base_url, on_token=on_token)
        parts = getattr(source, "secrets", ())
        for secret in parts:
            on_token(secret)
        candidates = (connection.password, extras.fields.get("access_token"), *parts)
        secrets = tuple(secret for secret in candidates if secret and isinstance(secret, str))
        return RestClient(
            base_url,
            auth=auth,
            headers=self.default_headers(extras),
            secrets=secrets,
            dry_run=extras.flag("dry_run") or self._is_dry_run,
            advise=self._advice,
            **transport,
        )

    def _checked_extra(self, connection: Connection, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        # Airflow reads an extra that is not JSON as empty and only logs an error.
        if not isinstance(fields, dict) or (not fields and (connection.extra or "").strip() not in ("", "{}", "null")):
            raise ConfigurationError(f"Connection {self.conn_id!r}: extra must be a JSON object.")
        return fields


# The connection form of Airflow 3.0 and 3.1; from 3.2 on Airflow reads get_provider_info() itself. Those two versions
# look for these methods in the registered hook class and not in its bases, so each such class has them as attributes.


def connection_form_widgets(cls: type[WorkflowsHook]) -> dict[str, Any]:
    """Return the connection's extra fields as wtforms fields."""
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    kinds = {"boolean": BooleanField, "integer": IntegerField}
    widgets = {}
    for name, form_field in _connection_form(cls)["conn-fields"].items():
        schema = form_field["schema"]
        kind, _ = schema["type"]  # the second type is null
        build = PasswordField if schema.get("format") == "password" else kinds.get(kind, StringField)
        widgets[name] = build(
            form_field["label"],
            validators=[any_of(schema["enum"])] if "enum" in schema else [Optional()],
            description=form_field.get("description", ""),
            default=schema.get("default"),
        )
    return widgets


def ui_field_behaviour(cls: type[WorkflowsHook]) -> dict[str, Any]:
    """Return how the form changes the standard fields."""
    return {name.replace("-", "_"): change for name, change in _connection_form(cls)["ui-field-behaviour"].items()}


def _connection_form(cls: type[WorkflowsHook]) -> dict[str, Any]:
    forms: list[dict[str, Any]] = get_provider_info()["connection-types"]
    return next(form for form in forms if form["connection-type"] == cls.conn_type)


def checked_url(url: str, name: str, allow_http: bool) -> str:
    """
    Return a base URL with its scheme and without a trailing slash.

    :param url: Host name or URL; https if it has no scheme.
    :param name: Name of the value, for the error text.
    :param allow_http: Accept unencrypted http to a host other than this machine.
    :raises ConfigurationError: it is not a URL, contains credentials, or is http without ``allow_http``.
    """
    url = url.strip()  # a value from a file often ends with a line break
    full = (url if "://" in url else f"https://{url}").rstrip("/")
    try:
        parts = urlsplit(full)
        hostname, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(f"{name} must be a host name or an https URL, with a port from 1 to 65535.") from None
    if parts.username or parts.password:
        raise ConfigurationError(f"{name} must not contain credentials. Put them into login and password.")
    if (
        parts.scheme not in ("http", "https")
        or not hostname
        or port == 0
        or parts.query
        or parts.fragment
        or re.search(r"[\s\\<>\"{}|^`]", full)
        or not (":" in hostname or re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", hostname))
    ):
        raise ConfigurationError(f"{name} must be a host name or an https URL.")
    if parts.scheme == "http" and hostname not in LOOPBACK_HOSTS and not allow_http:
        raise ConfigurationError(
            f"{name} is http, which would send the token unencrypted to {hostname}. Use https, or set the extra "
            "'allow_http' to true to accept this."
        )
    return full


def host_of(connection: Connection) -> str | None:
    """
    Return the connection's host with its port, or None if the connection has no host.

    A port in the host overrides the connection's port. Airflow stores 0 for no port, and its form may require a port to
    test a connection.
    """
    host = (connection.host or "").strip()
    if not host or not connection.port:
        return host or None
    scheme, found, rest = host.rpartition("://")
    server, slash, path = rest.partition("/")
    if server.count(":") > 1 and not server.startswith("["):  # an IPv6 address
        server = f"[{server}]"
    if not re.search(r":\d+$", server.rpartition("]")[2]):
        server = f"{server.removesuffix(':')}:{connection.port}"
    return f"{scheme}{found}{server}{slash}{path}"
