"""The hook for Workflowsoft's API."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow_provider_workflows.client.error_mapping import HTML_PAGE
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.client.token_sources import ApiTokenSource, StaticToken
from airflow_provider_workflows.client.urls import build_path
from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    SignInFailed,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.base import (
    LOOPBACK_HOSTS,
    Extras,
    WorkflowsHook,
    connection_form_widgets,
    host_of,
    ui_field_behaviour,
)
from airflow_provider_workflows.hooks.ids import checks_ids
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules import workflowsoft_fields as field_rules
from airflow_provider_workflows.rules.parameters import whole_number

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_workflows.client.auth import TokenSource
    from airflow_provider_workflows.client.response import ApiResponse

Row = TypeVar("Row")
PUBLIC_URL = "https://api.workflowsoft.com"
LOGIN_AUTH = ("basic", "bearer", "cookie")
CONSUMED_ON_READ = "consumed_on_read"
LISTED_UNTIL_COMPLETED = "listed_until_completed"
MAX_USERS = 10_000  # requested if an exact address is not among fewer
MIN_POLL_SECONDS = 15.0  # the vendor recommends minutes and states no rate limit


@checks_ids
class WorkflowsoftHook(WorkflowsHook):
    """
    Call Workflowsoft's API: process diagrams, integration steps, and the fields of integration instances.

    Ids are strings, as parameters also whole numbers. Rows are returned as ``{id, title}``, independent of the case of
    the server's names.

    Reference: the vendor's help page "For Developers - how to integrate an external system".

    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``.
    """

    conn_name_attr = "workflowsoft_conn_id"
    default_conn_name = "workflowsoft_default"
    conn_type = "workflowsoft"
    product = "workflowsoft"
    hook_name = "Workflowsoft"
    get_connection_form_widgets = classmethod(connection_form_widgets)
    get_ui_field_behaviour = classmethod(ui_field_behaviour)

    def __init__(self, workflowsoft_conn_id: str = default_conn_name):
        super().__init__(workflowsoft_conn_id)
        self._resolved: dict[tuple[str, str], dict[str, str]] = {}
        self._known_steps: set[str] = set()  # ids of steps that a poll has found
        self._reads_on_behalf = False  # whether reading fields was seen to need a user

    def _forget_responses(self) -> None:
        self._resolved.clear()
        self._known_steps.clear()

    @property
    def lists_until_completed(self) -> bool:
        """Whether a poll keeps listing an integration instance until it is completed, as set in the connection."""
        return (
            self.extras.choice("new_integrations", (CONSUMED_ON_READ, LISTED_UNTIL_COMPLETED)) == LISTED_UNTIL_COMPLETED
        )

    @property
    def server(self) -> str:
        """The server of the connection: its host, with a port and a path if it has them."""
        parts = urlsplit(self.client.base_url)
        host = str(parts.hostname).rstrip(".")
        is_default = parts.port in (None, {"https": 443, "http": 80}.get(parts.scheme))
        return f"{host if is_default else f'{host}:{parts.port}'}{parts.path.rstrip('/')}"

    @property
    def may_consume(self) -> bool:
        """Whether the connection allows polling for new integration instances."""
        return self.extras.flag("allow_consume")

    @property
    def on_behalf_of(self) -> str:
        """The user on whose behalf the provider writes fields and completes instances, as set in the connection."""
        return self._on_behalf_of(None)["X-OnBehalfOf-Id"]

    def check_may_consume(self) -> None:
        """
        Require that the connection allows polling for integration instances.

        :raises ConfigurationError: extra ``allow_consume`` is not true, or the connection or the task is a dry run and
            a poll may consume an instance.
        """
        if not self.may_consume:
            raise ConfigurationError(
                f"Connection {self.conn_id!r} does not allow polling for new integration instances. A poll may consume "
                "an instance, so two Airflow deployments (for example production and development) would take each "
                "other's work. Set the extra 'allow_consume' to true in one deployment only."
            )
        if self.dry_run and not self.lists_until_completed:
            task = "The task is a dry run (parameter 'dry_run')"
            connection = f"Connection {self.conn_id!r} is a dry run (extra 'dry_run')"
            raise ConfigurationError(
                f"{task if self._is_dry_run else connection}, and a poll for new integration instances "
                "would remove them from Workflowsoft (extra 'new_integrations'). Set 'dry_run' to false, pass the id "
                "of an instance to the tasks by hand, or set 'new_integrations' to 'listed_until_completed' if this "
                "Workflowsoft works that way."
            )

    @property
    def shortest_poll(self) -> float:
        """Minimum seconds between two polls of a step; 0 on this machine, where only the emulator runs."""
        return 0.0 if urlsplit(self.client.base_url).hostname in LOOPBACK_HOSTS else MIN_POLL_SECONDS

    def check(self) -> str:
        rows = self._diagrams({"limit": 1})
        first = f"the first process diagram is {rows[0]['title']!r}" if rows else "it shows no process diagram"
        self._on_behalf_of(None)
        reading = LISTED_UNTIL_COMPLETED if self.lists_until_completed else CONSUMED_ON_READ
        may = "may" if self.may_consume else "may not (extra 'allow_consume')"
        if self.may_consume and self.dry_run and not self.lists_until_completed:
            may = "may not (extra 'dry_run')"
        return f"Signed in to {self.client.base_url}; {first}. It {may} poll for new integrations ({reading})."

    def get_api_token(self) -> str:
        """
        Return the API token of the calls; if the connection has a login, the hook fetches a token with it.

        The token is a secret, masked in Airflow's logs.

        :raises AuthenticationError: the server issues no token.
        """
        return self.client.token()

    # --- diagrams, steps and users ---

    def list_process_diagrams(self, search_term: str | None = None) -> list[dict[str, str]]:
        """
        List process diagrams: ``[{id, title}]``, at most 100; logs a warning if there may be more.

        :param search_term: Only diagrams whose name matches, by the server's rules.
        """
        return self._warned(self._diagrams({"searchTerm": search_term, "limit": rules.ROW_LIMIT}), "process diagrams")

    def find_process_diagram(self, diagram: str, *, parameter: str = "diagram") -> dict[str, str]:
        """
        Find a process diagram by its exact title or its id: ``{id, title}``.

        A server may list fewer diagrams than exist, so digits that match none are taken as an id; the title is "" then.

        :param parameter: Name of the parameter with the diagram, for the error text.
        :raises ConfigurationError: no diagram or several diagrams match; the message lists the candidates.
        """
        try:
            rows = self.list_process_diagrams(diagram)
        except NotFound:  # a search that finds nothing; the whole list shows whether there is more to it
            rows = []
        if not any(diagram.strip() in (row["title"].strip(), row["id"]) for row in rows):
            rows = self.list_process_diagrams()
        return dict(rules.choose(parameter, "process diagram", diagram, rows, may_lack=True))

    def list_integration_steps(self, diagram_id: str) -> list[dict[str, str]]:
        """List the integration steps of a process diagram: ``[{id, title}]``."""
        where = build_path("/api/v2/workflows/{}/tasks", diagram_id)
        return self._titled_rows(self.client.get(where, params={"integration": True}), "integration step")

    def resolve_step(self, diagram: str, step: str) -> dict[str, str]:
        """
        Find an integration step by its own title or id and that of its process diagram; the result is cached.

        :return: ``{diagram_id, step_id, step}``; ``step`` is the title.
        :raises ConfigurationError: no diagram or step matches, or several do; the message lists the candidates.
        """
        if (diagram, step) not in self._resolved:
            diagram_id = self.find_process_diagram(diagram)["id"]
            found = rules.choose("step", "integration step", step, self.list_integration_steps(diagram_id))
            self._resolved[diagram, step] = {
                "diagram_id": diagram_id,
                "step_id": found["id"],
                "step": found["title"],
            }
        return self._resolved[diagram, step]

    def search_users(self, query: str, *, limit: int = rules.ROW_LIMIT) -> list[dict[str, str]]:
        """
        Search users: ``[{id, full_name, email}]``; logs a warning if there may be more.

        :param query: Name or e-mail address, or a part of it; matched by the server's rules.
        :param limit: Maximum number of users; the vendor's default is 15.
        """
        limit = whole_number("limit", limit)
        return self._warned(self._users(query, limit), "users", limit)

    def find_user_id(self, user: str, *, parameter: str = "user") -> str:
        """
        Return the id of the user with an e-mail address, in any case; an id is returned unchanged.

        If the search returns as many users as requested, it is repeated with a higher limit.

        :param user: E-mail address or id.
        :param parameter: Name of the parameter with the user, for the error text.
        :raises ConfigurationError: no user or several users have the address; the message lists the search result.
        """
        if "@" not in user:
            if " " in user:
                raise ConfigurationError(f"{parameter} must be an e-mail address or an id, not a name; got {user!r}.")
            return user
        limit, rows = rules.ROW_LIMIT, self._users(user, rules.ROW_LIMIT)
        while len(rows) >= limit and limit < MAX_USERS:
            limit *= 10
            rows = self._users(user, limit)
        return rules.choose_user(parameter, user, rows)

    # --- integration instances ---

    def poll_new_integrations(
        self, step_id: str, *, is_known: bool = False, strict: bool = False
    ) -> list[dict[str, str | None]]:
        """
        Poll once for new integration instances of a step. **This may consume them**: store the result.

        :param step_id: The integration step's id in its diagram.
        :param is_known: The step exists in its diagram, so a 404 means "no new instance"; it also means that for a
            step that an earlier poll of this hook has found. A 404 with a page of a gateway never means that.
        :param strict: Only a 404 with a JSON object means it, not one without a body.
        :return: ``[{integration_instance_id, process_instance_id}]``
        :raises ConfigurationError: the connection does not allow polling.
        :raises NotFound: the step is not known, or a gateway returned the 404.
        :raises OutcomeUnknown: the response was lost, possibly with an instance.
        """
        self.check_may_consume()
        try:
            response = self.client.call(
                "GET",
                "/api/v2/workflows/instances/new-integrations",
                idempotency=Idempotency.SAFE if self.lists_until_completed else Idempotency.UNSAFE,
                params={"id": step_id},
                headers={"Cache-Control": "no-cache"},
            )
        except NotFound as missing:
            is_page = missing.server_message.startswith(HTML_PAGE)
            is_of_api = missing.is_documented or not (strict or is_page)
            if is_of_api and (is_known or step_id in self._known_steps):
                return []
            raise
        self._known_steps.add(step_id)
        return self._read(response, rules.integration_instances, response.json())

    def get_fields(self, integration_instance_id: str) -> list[field_rules.Field]:
        """
        Read the fields of an integration instance with their typed values.

        If the token's user may not see them (403), the hook repeats the call on behalf of the connection's
        ``on_behalf_of``, else ``system``; if ``on_behalf_of`` is set, also after a 400, 401 or 404. When that works, it
        reads all fields so.
        """
        where = build_path("/api/v2/workflows/instances/tasks/{}/variables", integration_instance_id)
        response = self._read_on_behalf(where) if self._reads_on_behalf else self._read_fields(where)
        body = response.json(exact=True)
        _reject_failure(response, body, UnexpectedResponse)
        return self._read(response, field_rules.read_fields, body)

    def update_fields(
        self, integration_instance_id: str, values: Mapping[str, Any], *, on_behalf_of: str | None = None
    ) -> None:
        """
        Write fields of an integration instance; never sent twice.

        :param values: JSON values by field key, as ``encode`` in the rules returns them; decimals are exact.
        :param on_behalf_of: User on whose behalf to write; default: the connection's ``on_behalf_of``, else ``system``.
        :raises InvalidRequest: the server rejected the call, by the status or in the body of its response.
        :raises OutcomeUnknown: the response was lost, or reports a success and a failure.
        """
        values = field_rules.raw_fields(values, "values")
        fields = {field_rules.wire_name(key): value for key, value in values.items()}
        response = self.client.call(
            "POST",
            "/api/v2/workflows/instances/variables",
            idempotency=Idempotency.UNSAFE,
            json={"TaskId": _wire_id(integration_instance_id), "Fields": fields},
            headers=self._on_behalf_of(on_behalf_of),
        )
        response.reject_page(OutcomeUnknown)
        _reject_failure(response, _body_of(response))

    def complete(
        self,
        integration_instance_id: str,
        *,
        custom_action: str = "__AUTO__",
        on_behalf_of: str | None = None,
    ) -> None:
        """
        Complete an integration instance; never sent twice.

        :param custom_action: Presumably the action by which the process leaves the step; the vendor documents
            ``__AUTO__`` only.
        :param on_behalf_of: User on whose behalf to complete; default: the connection's ``on_behalf_of``, else
            ``system``.
        :raises InvalidRequest: the server rejected the call, by the status or in the body of its response.
        :raises OutcomeUnknown: the response was lost, or reports a success and a failure.
        """
        response = self.client.call(
            "PATCH",
            build_path("/api/v2/tasks/{}/action", integration_instance_id),
            idempotency=Idempotency.UNSAFE,
            json={"Action": "Complete", "CustomAction": custom_action},
            headers=self._on_behalf_of(on_behalf_of),
        )
        response.reject_page(OutcomeUnknown)
        _reject_failure(response, _body_of(response))

    # --- processes and tasks ---

    def start_process(
        self, diagram_id: str, *, on_behalf_of: str, fields: Mapping[str, Any] | None = None
    ) -> dict[str, str]:
        """
        Start a process; never sent twice.

        :param diagram_id: The process diagram.
        :param on_behalf_of: Id of the user who starts it.
        :param fields: JSON values by Workflowsoft's field names, which are not documented for a process that does not
            exist yet.
        :return: ``{id, title}`` of the process.
        :raises OutcomeUnknown: the response was lost, or does not say which process was started.
        """
        body = {"TemplateId": _wire_id(diagram_id), "Fields": field_rules.raw_fields({} if fields is None else fields)}
        return self._create("/api/v2/workflows/start", body, on_behalf_of, "process")

    def create_task(
        self,
        title: str,
        *,
        on_behalf_of: str,
        assigned_to: str | None = None,
        description: str | None = None,
        files: Any = None,
    ) -> dict[str, str]:
        """
        Create a task; never sent twice.

        :param on_behalf_of: Id of the user who creates it.
        :param assigned_to: Id of the assignee; default: ``on_behalf_of``.
        :param files: Experimental: JSON that is sent unchanged as ``Files``; the vendor does not document its format.
        :return: ``{id, title}``
        :raises OutcomeUnknown: the response was lost, or does not say which task was created.
        """
        body: dict[str, Any] = {"Title": title}
        if assigned_to is not None:
            body["AssignedUserId"] = _wire_id(assigned_to)
        if description is not None:
            body["Description"] = description
        if files is not None:
            body["Files"] = files
        created = self._create("/api/v2/tasks", body, on_behalf_of, "task")
        return {**created, "title": created["title"] or title}

    # --- reading the connection ---

    def base_url(self, connection: Connection, extras: Extras) -> str:
        return host_of(connection) or PUBLIC_URL

    def token_source(
        self, connection: Connection, extras: Extras, base_url: str, transport: Mapping[str, Any]
    ) -> TokenSource:
        if not connection.password:
            raise ConfigurationError(
                f"Connection {self.conn_id!r} needs an API token in password, or an administrator's login and password."
            )
        if not connection.login:
            return StaticToken(
                connection.password,
                "Get a new API token and put it into the connection's password, or set an administrator's login and "
                "password, with which the provider renews tokens itself.",
            )
        return ApiTokenSource(
            base_url,
            connection.login,
            connection.password,
            lifetime=max(1, int(extras.seconds("login_lifetime", 3600))),
            scheme=extras.choice("login_auth", LOGIN_AUTH),
            **transport,
        )

    def _on_behalf_of(self, user: str | None) -> dict[str, str]:
        own = self.extras.text("on_behalf_of") or "system"
        if "@" in own:
            raise ConfigurationError(
                f"Connection {self.conn_id!r}: extra 'on_behalf_of' must be 'system' or a user's id; got {own!r}."
            )
        return {"X-OnBehalfOf-Id": user or own}

    def _read_fields(self, where: str) -> ApiResponse:
        try:
            return self.client.get(where)
        except PermissionDenied:
            return self._read_on_behalf(where)
        except (AuthenticationError, InvalidRequest, NotFound) as rejected:
            if isinstance(rejected, SignInFailed) or not self.extras.text("on_behalf_of"):
                raise
            try:
                return self._read_on_behalf(where)
            except ApiError:
                raise rejected from None

    def _read_on_behalf(self, where: str) -> ApiResponse:
        response = self.client.get(where, headers=self._on_behalf_of(None))
        self._reads_on_behalf = True
        return response

    def _create(self, where: str, body: Mapping[str, Any], on_behalf_of: str, kind: str) -> dict[str, str]:
        headers = {"X-OnBehalfOf-Id": on_behalf_of}
        response = self.client.call("POST", where, idempotency=Idempotency.UNSAFE, json=body, headers=headers)
        created = _body_of(response)
        created_id = rules.id_in(created, "Id")
        failure = rules.failure_in(created)
        # A bare false does not say what failed.
        if failure is not None and not failure.names_id and created is not False:
            _reject_failure(response, created)
        problem = None
        if created_id is None:
            problem = f"The response does not say which {kind} was created, because it has no Id"
        elif failure is not None:
            problem = f"The response reports a failure, but also that {kind} {created_id} was created"
        if problem is not None:
            message = "" if failure is None else response.scrub(failure.message)
            raise OutcomeUnknown(problem, server_message=message, **response.call)
        return rules.titled_rows([created], kind)[0]

    def _warned(self, rows: list[dict[str, str]], kind: str, limit: int = rules.ROW_LIMIT) -> list[dict[str, str]]:
        if len(rows) >= limit:
            self.log.warning("Workflowsoft returned %d %s, the maximum requested: there may be more.", len(rows), kind)
        return rows

    def _users(self, query: str, limit: int) -> list[dict[str, str]]:
        params = {"Query": query, "entityType": "users", "limit": limit}
        response = self.client.get("/api/users/search", params=params)
        return self._read(response, rules.user_rows, response.json())

    def _diagrams(self, params: Mapping[str, Any]) -> list[dict[str, str]]:
        response = self.client.get("/api/v2/workflows", params={"mode": "view", **params})
        return self._titled_rows(response, "process diagram")

    def _titled_rows(self, response: ApiResponse, kind: str) -> list[dict[str, str]]:
        return self._read(response, partial(rules.titled_rows, kind=kind), response.json())

    def _read(self, response: ApiResponse, rule: Callable[[Any], list[Row]], body: Any) -> list[Row]:
        """Read the rows of a response with a rule; add the call to its error, and log if it leaves out some rows."""
        try:
            rows = rule(body)
        except UnexpectedResponse as malformed:
            what = response.scrub(str(malformed).rstrip("."))  # it may name members of the response
            if isinstance(malformed, rules.UnreadableInstances):
                raise rules.UnreadableInstances(what, malformed.instances, **response.call) from None
            raise UnexpectedResponse(what, **response.call) from None
        if isinstance(body, list) and len(rows) < len(body):
            self.log.warning(
                "%d of %d rows of the response to %s %s have no id and are left out.",
                *(len(body) - len(rows), len(body), response.method, response.path),
            )
        return rows


def _body_of(response: ApiResponse) -> Any:
    """Return the parsed body of a response whose format is not documented; None if it is not JSON."""
    try:
        return response.json()
    except UnexpectedResponse:
        return None


def _reject_failure(response: ApiResponse, body: Any, unclear: type[ApiError] = OutcomeUnknown) -> None:
    """
    Raise an error if the body of a response reports a failure, even with a successful status.

    :param unclear: Class of the error if the body also says that the call has succeeded.
    """
    failure = rules.failure_in(body)
    if failure is None:
        return
    kind, also = (InvalidRequest, "") if failure.is_certain else (unclear, ", but also a success")
    raise kind(f"The response reports a failure{also}", server_message=response.scrub(failure.message), **response.call)


def _wire_id(text: str) -> int | str:
    """Return an id as a number, as in the vendor's samples, or unchanged if it is not a number of .NET."""
    return int(text) if re.fullmatch("0|[1-9][0-9]{0,18}", text) else text
