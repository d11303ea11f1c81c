"""
Checks a connection step by step and says how to mend what is wrong.

It only reads, sends some twenty requests at most, and never asks for new integration instances of Workflowsoft.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import requests.exceptions
import urllib3.exceptions
from airflow.providers.common.compat.sdk import BaseHook, Connection

from airflow_provider_workflows.client.retry import RetryableFailure, RetryPolicy
from airflow_provider_workflows.client.transport import causes_of
from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    NotFound,
    PermissionDenied,
    RateLimited,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.get_provider_info import get_provider_info
from airflow_provider_workflows.hooks.base import WorkflowsHook, lookup_problem, type_problem
from airflow_provider_workflows.hooks.procore import ProcoreHook, company_fix, project_fix
from airflow_provider_workflows.hooks.procore_legacy import INSTANCES as LEGACY_INSTANCES
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL
from airflow_provider_workflows.rules.procore_presets import members_of
from airflow_provider_workflows.version_compat import mask_secret

if TYPE_CHECKING:
    from airflow_provider_workflows.client.response import ApiResponse

OK, FAILED, WARNING, SKIPPED = "ok", "failed", "warning", "skipped"
MAX_CALL_SECONDS = 10.0  # seconds
MAX_CHECKED = 4  # tools, presets, diagrams: each costs a request
MAX_NAMED = 6  # of a list, in a sentence
MAX_SKEW_SECONDS = 30.0  # seconds
MAX_MESSAGE_CHARACTERS = 500  # characters; a server can name as many things as it likes
FIRST = ("connection", "fields", "reachable", "token")  # of each product
NO_FIX = "Ask the product's support, and name what is said above."

Result = TypeVar("Result")


@dataclass(frozen=True)
class Check:
    """
    What one step found.

    :param name: The step.
    :param status: ``ok``, ``failed``, ``warning``, or ``skipped`` where a step before it failed.
    :param detail: What was found.
    :param fix: What to do about it; "" where it is ok.
    """

    name: str
    status: str
    detail: str
    fix: str = ""


class Fault(Exception):
    """What keeps the connection from working, and its fix."""

    status = FAILED

    def __init__(self, detail: str, fix: str):
        super().__init__(detail)
        self.fix = fix


class Unclear(Fault):
    """What works but for a part, or may be meant so."""

    status = WARNING


@dataclass(frozen=True)
class Step:
    """
    One thing to look at.

    :param name: What it is called.
    :param after: The step without which it says nothing.
    :param look: Returns what is well, raises what is not.
    :param fix: What to do where the server refuses it.
    """

    name: str
    after: str
    look: Callable[[], str]
    fix: str = ""


class Diagnosis:
    """
    Looks at one connection.

    :param conn_id: Id of an Airflow connection of type ``procore`` or ``workflowsoft``.
    """

    def __init__(self, conn_id: str):
        self.conn_id = conn_id
        self.conn_type: str | None = None
        self._steps: tuple[Step, ...] = tuple(Step(name, "connection", str) for name in FIRST[1:])
        self._halted = False

    def checks(self) -> Iterator[Check]:
        """Yield the checks one by one, as they are done; in an undisturbed connection they are all ``ok``."""
        done = {"connection": self._check(Step("connection", "", self._connection))}
        yield done["connection"]
        for step in self._steps:
            if self._halted:
                check = Check(step.name, SKIPPED, "not checked: the server asks to wait")
            elif done[step.after].status in (FAILED, SKIPPED):
                check = Check(step.name, SKIPPED, f"not checked: {_cause(step.after, done, self._steps)} failed")
            else:
                check = self._check(step)
            done[step.name] = check
            yield check

    def _check(self, step: Step) -> Check:
        try:
            return Check(step.name, OK, _clean(step.look()))
        except Fault as fault:
            return Check(step.name, fault.status, _clean(str(fault)), _clean(fault.fix))
        except WorkflowsError as error:
            self._halted = isinstance(error, RateLimited)
            return Check(step.name, FAILED, _clean(_words(error)), _clean(_fix(error, step.fix)))

    def _connection(self) -> str:
        connection = find_connection(self.conn_id)
        self.conn_type = connection.conn_type
        if (problem := type_problem(self.conn_id, connection.conn_type, *CHECKS)) is not None:
            raise Fault(*problem)
        checks = CHECKS[str(connection.conn_type)]
        if not isinstance(connection.extra_dejson, dict):
            raise Fault("Its extra is JSON, but no object.", 'Make it an object, such as {"company_id": "1"}.')
        self._steps = checks(self.conn_id, connection).steps()
        variable = _variable(self.conn_id)
        where = f"the variable {variable}" if variable in os.environ else "a secrets backend or the metadata database"
        return f"of type {connection.conn_type}, from {where}"


class OneAttempt(RetryPolicy):
    """A single attempt, whose error tells what it came from: a name that is not known, a proxy, a certificate."""

    def run(
        self, attempt: Callable[[], Result], *, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> Result:
        try:
            return attempt()
        except RetryableFailure as failed:
            raise failed.error from failed.__cause__


class ConnectionChecks(ABC):
    """
    What the connections of both products have in common.

    :param connection: The connection.
    :param hook: Its hook, not yet connected.
    """

    cheapest_call: ClassVar[tuple[str, dict[str, Any]]]  # path and query

    def __init__(self, connection: Connection, hook: WorkflowsHook):
        self.connection = connection
        self.hook = hook

    def first_steps(self) -> tuple[Step, ...]:
        return (
            Step("fields", "connection", self.fields),
            Step("reachable", "fields", self.reachable),
            Step("token", "reachable", self.token),
        )

    @abstractmethod
    def described(self) -> str:
        """Return what the fields say, having read each of them."""

    def fields(self) -> str:
        # An answer may trickle for twice the time that it may take to begin.
        self.hook._client = self.hook._build(
            self.connection, self.connection.extra_dejson, OneAttempt(), mask_secret, longest=MAX_CALL_SECONDS / 2
        )
        described = self.described()
        known = next(f for f in get_provider_info()["connection-types"] if f["connection-type"] == self.hook.conn_type)
        unknown = sorted(set(self.hook.extras.fields) - set(known["conn-fields"]))
        if unknown:
            raise Unclear(
                f"{described}; not known: extra {_named(unknown)}",
                f"Correct the name, or remove it. Known are {', '.join(known['conn-fields'])}.",
            )
        return described

    def reachable(self) -> str:
        client = self.hook.client
        nobody = client.without_sign_in(client.base_url)
        try:
            within(MAX_CALL_SECONDS, lambda: nobody.get("/"))
        except RateLimited:
            raise
        except ApiError as error:
            if error.status_code is None:
                raise
            if error.status_code == 407:
                raise Fault(f"{client.base_url}: the proxy wants a login.", PROXY_FIX) from None
            if error.status_code >= 500:
                raise Unclear(f"{client.base_url} answers {error.status_code}.", "Try again later.") from None
        finally:
            nobody.close()
        return f"{client.base_url} answers"

    def token(self) -> str:
        client = self.hook.client
        within(MAX_CALL_SECONDS, client.token)
        assert client._auth is not None
        token = client._auth._token
        if token is None or token.expires_at is None:
            return "there is one; its end is not stated"
        minutes = (token.expires_at - time.time()) / 60
        if minutes <= 0:
            raise Fault("The token has ended.", "Get a new token, or give login and password to fetch tokens with.")
        return f"there is one, for {_number(round(minutes), 'minute')}"

    def ask(self) -> ApiResponse:
        """Make the cheapest call that needs the token."""
        path, params = self.cheapest_call
        return self.hook.client.get(path, params=params)

    def clock(self) -> str:
        date = self.ask().headers.get("Date", "")
        now = time.time()
        try:
            skew = now - parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError):
            return "the server does not state its time"
        if abs(skew) > MAX_SKEW_SECONDS:
            way = "ahead of" if skew > 0 else "behind"
            raise Unclear(
                f"This machine's clock is {abs(skew):.0f} seconds {way} the server's.",
                "Set this machine's clock (NTP): waiting for a rate limit to end is reckoned by it.",
            )
        return f"within {MAX_SKEW_SECONDS:.0f} seconds of the server's"

    def limit(self) -> str | None:
        """Return what the server says of its rate limit, None where it says nothing."""
        rate = self.hook.client.rate
        if rate is None or rate.remaining is None:
            return None
        end = ""
        if rate.reset_at is not None:
            end = f" until {datetime.fromtimestamp(rate.reset_at, timezone.utc):%H:%M:%SZ}"
        left = f"{rate.remaining} of {rate.limit or 'an unknown number of'} requests left{end}"
        if rate.limit and rate.remaining < rate.limit / 10:
            raise Unclear(f"{left}.", "See who else uses this account; look less often (poke_interval).")
        return left


class ProcoreChecks(ConnectionChecks):
    """A connection to Procore."""

    cheapest_call = ("/rest/v1.0/me", {})

    hook: ProcoreHook

    def __init__(self, conn_id: str, connection: Connection):
        super().__init__(connection, ProcoreHook(conn_id))
        self._tools: list[dict[str, Any]] = []
        self._waiting = 0
        self._presets: list[tuple[str, str]] = []  # id, project

    def steps(self) -> tuple[Step, ...]:
        extra = self.connection.extra_dejson
        company = company_fix(extra.get("company_id", "none"), self.hook.conn_id)
        project = project_fix(extra.get("project_id", "none"), self.hook.conn_id)
        return (
            *self.first_steps(),
            Step("company", "token", self.company, company),
            Step("tools", "company", self.tools, "Let a company administrator permit the user to see the workflows."),
            Step("project", "tools", self.project, project),
            Step("instances", "project", self.instances),
            Step("presets", "project", self.presets),
            Step("assignee", "instances", self.assignee),
            Step("legacy", "company", self.legacy),
            Step("rate limit", "company", self.rate_limit),
            Step("clock", "company", self.clock),
        )

    def described(self) -> str:
        hook = self.hook
        hook.requests_per_hour  # noqa: B018  it is read to be checked
        kind = "a ready token" if hook.extras.text("access_token") else "client id and secret"
        environment = hook.extras.fields.get("environment") or "production"
        project = f"project {hook.project_id}" if hook.project_id else "no project"
        return f"{kind}, environment {environment}, company {hook.company_id}, {project}"

    def token(self) -> str:
        found = super().token()
        if self.hook.extras.text("access_token"):
            raise Unclear(
                f"{found}; it is a ready token, which cannot be renewed.",
                "Give client id and secret instead of the extra 'access_token': Procore's tokens live for 90 minutes.",
            )
        return found

    def company(self) -> str:
        return self.hook.check()

    def tools(self) -> str:
        self._tools = [tool for tool in self.hook.list_tools() if tool.get("type")]
        if not self._tools:
            raise Fault(
                "No tool of this company has workflows.",
                "Let a company administrator turn Workflows on for a tool; Legacy Workflows does not need it.",
            )
        return f"{len(self._tools)} with workflows: {_named(tool['type'] for tool in self._tools)}"

    def project(self) -> str:
        tool = next((tool for tool in self._tools if tool.get("provider") != "Company"), None)
        if tool is None:
            return "not needed: all tools belong to the company"
        if self.hook.project_id is None:
            raise Unclear(
                f"The connection names none, and {tool['type']} works in projects.",
                "Set extra 'project_id', or give project_id to operators and sensors. Only company tools are checked.",
            )
        next(self._presets_of(tool), None)
        return f"{self.hook.project_id} is there"

    def instances(self) -> str:
        me = self.hook.user_id

        def count(tool: dict[str, Any]) -> None:
            found = self.hook.list_instances(
                tool["type"],
                tool_subtype=_subtype(tool),
                assignee_id=me,
                active=True,
                project_id=self._level(tool),
            )
            self._waiting += len(list(islice(found, 100)))  # one page

        readable = self._each_tool(count, "instances")
        return f"may be read in {readable}"

    def presets(self) -> str:
        def record(tool: dict[str, Any]) -> None:
            level = self._level(tool)
            self._presets += [(str(preset["id"]), level) for preset in islice(self._presets_of(tool), 100)]

        with documented_form():
            readable = self._each_tool(record, "presets")
        return f"may be read in {readable}; there are {len(self._presets)}"

    def assignee(self) -> str:
        if self._waiting:
            return f"active instances that wait for this user: {self._waiting}"
        looked_at = self._presets[:MAX_CHECKED]
        for preset_id, level in looked_at:
            with documented_form():
                if self.hook.user_id in _people(self.hook.get_preset(preset_id, project_id=level)):
                    return f"nothing waits for this user now; preset {preset_id} names it"
        number = _number(len(looked_at), "preset")
        raise Unclear(
            f"No active instance waits for this user, and none of {number} looked at names it.",
            "Make it an assignee of the steps that Airflow is to answer, in their template or preset. Who only waits "
            "for others, or starts workflows, needs not be one.",
        )

    def legacy(self) -> str:
        query = {"company_id": self.hook.company_id}
        try:
            next(self.hook.client.pages(LEGACY_INSTANCES, params=query, per_page=1, style="v1"), None)
        except (NotFound, PermissionDenied) as rejected:
            raise Unclear(
                f"Legacy Workflows (v1) may not be listed: {rejected.status_code}.",
                "Only who uses the Legacy operators needs it: it may take an administrator of the company directory. "
                "Without it they show each instance by itself.",
            ) from None
        return "Legacy Workflows (v1) answers, too"

    def rate_limit(self) -> str:
        left = self.limit()
        if left is not None:
            return left
        own = self.hook.requests_per_hour
        if own is None:
            raise Unclear(
                "The server does not state its limit.",
                "Set extra 'requests_per_hour' to what your contract with Procore allows, and polls keep within it.",
            )
        return f"not stated by the server; polls keep within {own} an hour (requests_per_hour)"

    def _level(self, tool: dict[str, Any]) -> str:
        return COMPANY_LEVEL if tool.get("provider") == "Company" else self.hook.project_id or COMPANY_LEVEL

    def _presets_of(self, tool: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return self.hook.list_presets(tool["type"], tool_subtype=_subtype(tool), project_id=self._level(tool))

    def _each_tool(self, read: Callable[[dict[str, Any]], None], what: str) -> str:
        """Read something of the first tools; raise where the user may not read it of all of them."""
        here = [t for t in self._tools if self.hook.project_id is not None or t.get("provider") == "Company"]
        looked_at = here[:MAX_CHECKED]
        rejected: dict[str, PermissionDenied | NotFound] = {}
        for tool in looked_at:
            try:
                read(tool)
            except (NotFound, PermissionDenied) as error:
                rejected[str(tool["type"])] = error
        if rejected:
            kind = Unclear if len(rejected) < len(looked_at) else Fault
            words = "; ".join(f"{tool}: {_words(error)}" for tool, error in rejected.items())
            raise kind(
                f"The {what} may not be read of {_named(rejected)}. {words}",
                "Turn Workflows on for the tool, and give the user at least read access to it in this project.",
            )
        return _of(looked_at, here, "tool")


class WorkflowsoftChecks(ConnectionChecks):
    """A connection to Workflowsoft."""

    cheapest_call = ("/api/v2/workflows", {"mode": "view", "limit": 1})

    hook: WorkflowsoftHook

    def __init__(self, conn_id: str, connection: Connection):
        super().__init__(connection, WorkflowsoftHook(conn_id))

    def steps(self) -> tuple[Step, ...]:
        return (
            *self.first_steps(),
            Step("api", "token", self.api, "Let an administrator of Workflowsoft permit the user to use the API."),
            Step("steps", "api", self.integration_steps, "Permit the user to view the process diagrams."),
            Step("users", "api", self.users, "Give operators ids instead of e-mail addresses, or permit the search."),
            Step("consume", "fields", self.consume),
            Step("rate limit", "api", self.rate_limit),
            Step("clock", "api", self.clock),
        )

    def described(self) -> str:
        hook = self.hook
        kind = "an administrator's login" if self.connection.login else "a ready API token"
        behalf = hook.extras.text("on_behalf_of") or "system"
        for read in (lambda: hook.requests_per_hour, lambda: hook.lists_until_completed, lambda: hook.may_consume):
            read()
        return f"{kind}, on behalf of {behalf}"

    def token(self) -> str:
        found = super().token()
        try:
            # A token of which nothing says when it ends may have ended long ago.
            within(MAX_CALL_SECONDS, self.ask)
        except (AuthenticationError, RateLimited):
            raise
        except WorkflowsError:
            pass  # is not about the token, and the steps that come after find it
        return found

    def api(self) -> str:
        return f"API v2. {self.hook.check().partition(' It ')[0]}"

    def integration_steps(self) -> str:
        diagrams = self.hook.list_process_diagrams()
        looked_at = diagrams[:MAX_CHECKED]
        steps = [
            f"{step['title']!r} in {diagram['title']!r}"
            for diagram in looked_at
            for step in self.hook.list_integration_steps(diagram["id"])
        ]
        if not steps:
            raise Unclear(
                f"None of {_number(len(looked_at), 'process diagram')} looked at has an integration step.",
                "Put an integration step into the diagram that Airflow is to take part in, and publish it.",
            )
        return f"{len(steps)} in {_of(looked_at, diagrams, 'process diagram')}: {_named(steps)}"

    def users(self) -> str:
        self.hook.search_users("@")
        return "may be searched"

    def consume(self) -> str:
        reading = "kept until completed" if self.hook.lists_until_completed else "consumed by reading"
        never = f"new integration instances count as {reading}; none was read here"
        if not self.hook.may_consume:
            raise Unclear(
                f"Sensors may not poll; {never}",
                "To wait for integration steps set extra 'allow_consume' to true, in one Airflow only.",
            )
        return f"sensors may poll; {never}"

    def rate_limit(self) -> str:
        own = self.hook.requests_per_hour
        return self.limit() or "not stated by the server" + (f"; polls keep within {own} an hour" if own else "")


CHECKS: dict[str, Callable[[str, Connection], ProcoreChecks | WorkflowsoftChecks]] = {
    "procore": ProcoreChecks,
    "workflowsoft": WorkflowsoftChecks,
}


def find_connection(conn_id: str) -> Connection:
    """
    Look a connection up as the hooks do.

    :raises Fault: there is none, or Airflow cannot read it.
    """
    try:
        return BaseHook.get_connection(conn_id)
    except Exception as error:
        problem = lookup_problem(conn_id, error)
        kind = type(error).__name__
    if problem is None:  # whatever a secrets backend says
        raise Fault(f"Airflow cannot look up connection {conn_id!r} ({kind}).", SETTINGS_FIX)
    detail, fix = problem
    raise Fault(detail, fix if _variable(conn_id) in os.environ else f"{fix} {SETTINGS_FIX}")


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what a call returns; looking a host name up knows no time limit, so the call is left to itself then."""
    response: Future[Result] = Future()

    def run() -> None:
        try:
            response.set_result(call())
        except Exception as error:  # raised where the answer is taken
            response.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if not wait([response], timeout=seconds).done:
        raise ConnectionFailed(f"There was no answer within {seconds:.0f} seconds")
    return response.result()


def _variable(conn_id: str) -> str:
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def _cause(name: str, done: Mapping[str, Check], steps: tuple[Step, ...]) -> str:
    """Return the step that failed, of those that a step comes after."""
    while done[name].status == SKIPPED:
        name = next(step.after for step in steps if step.name == name)
    return name


def _subtype(tool: Mapping[str, Any]) -> str | None:
    return None if tool.get("subtype") is None else str(tool["subtype"])


def _people(preset: dict[str, Any]) -> set[str]:
    """Return the ids of all whom a preset names as assignees."""
    individuals = [login for step in preset.get("individual_assignees") or [] for login in step.get("logins") or []]
    return {str(one["id"]) for one in individuals} | {one for ids in members_of(preset).values() for one in ids}


def _number(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _of(looked_at: Sequence[Any], every: Sequence[Any], thing: str) -> str:
    all_of_them = _number(len(every), thing)
    return all_of_them if len(looked_at) == len(every) else f"the first {len(looked_at)} of {all_of_them}"


def _named(names: Iterable[Any]) -> str:
    every = [str(name) for name in names]
    more = f" and {len(every) - MAX_NAMED} more" if len(every) > MAX_NAMED else ""
    return ", ".join(every[:MAX_NAMED]) + more


def _clean(words: str) -> str:
    """Return words that a terminal can be shown, whatever a server has put into them."""
    text = "".join(sign if sign.isprintable() else " " for sign in words)
    return text if len(text) <= MAX_MESSAGE_CHARACTERS else f"{text[:MAX_MESSAGE_CHARACTERS]} ..."


def _words(error: WorkflowsError) -> str:
    """Return what an error says, without its advice."""
    return str(error).removesuffix(getattr(error, "advice", "")).strip()


# --- what to do about an error ---


SETTINGS_FIX = (
    "If it is there, run this with the settings of that Airflow: AIRFLOW_HOME, the database, the secrets backend."
)
PROXY_FIX = "Correct the extra 'proxies', or the variables HTTPS_PROXY, HTTP_PROXY and NO_PROXY where there is none."
NETWORK_FIXES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((requests.exceptions.ProxyError, urllib3.exceptions.ProxyError), PROXY_FIX),
    (ssl.SSLCertVerificationError, "Set extra 'verify' to the path of the CA bundle that signed the certificate."),
    (ssl.SSLError, "Check that host and port are those of an https server."),
    (socket.gaierror, "Correct the host: its name is not known to this machine's DNS."),
    (ConnectionRefusedError, "Correct the host and its port: nothing listens there."),
    (OSError, "Let this machine through the firewall to that host, or set the extra 'proxies'."),
)


def _fix(error: WorkflowsError, of_step: str) -> str:
    if isinstance(error, RateLimited):
        return "Wait until then; see who else uses this account."
    if isinstance(error, ConfigurationError):
        return "Correct that field of the connection."
    if isinstance(error, ConnectionFailed):
        causes = list(causes_of(error))
        return next((fix for kind, fix in NETWORK_FIXES if any(isinstance(c, kind) for c in causes)), error.advice)
    if isinstance(error, UnexpectedResponse):
        return "Correct the host: it must be the address of the API, not that of the web application."
    if isinstance(error, (NotFound, PermissionDenied)) and of_step:
        return of_step
    return getattr(error, "advice", "") or NO_FIX
