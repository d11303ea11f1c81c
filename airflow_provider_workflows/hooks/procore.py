"""The hook for Procore's Workflows v2 API, and the base class that it shares with the hook for v1."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from airflow_provider_workflows.client.pagination import check_whole
from airflow_provider_workflows.client.retry import Idempotency
from airflow_provider_workflows.client.token_sources import ClientCredentials, StaticToken
from airflow_provider_workflows.client.urls import build_path
from airflow_provider_workflows.exceptions import (
    ApiError,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.base import (
    Extras,
    WorkflowsHook,
    checked_url,
    connection_form_widgets,
    host_of,
    ui_field_behaviour,
)
from airflow_provider_workflows.hooks.ids import checks_ids
from airflow_provider_workflows.rules.parameters import as_list, as_text, check_required, str_id
from airflow_provider_workflows.rules.payload import is_id
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL, attachment_ids, matches_filters, same_tool
from airflow_provider_workflows.rules.procore_legacy import str_ids, users_named

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_workflows.client.auth import TokenSource
    from airflow_provider_workflows.hooks.procore_uploads import Uploads

log = logging.getLogger(__name__)
# environment -> (login URL, API base URL)
ENVIRONMENTS = {
    "production": ("https://login.procore.com", "https://api.procore.com"),
    "sandbox": ("https://login-sandbox.procore.com", "https://sandbox.procore.com"),
    "monthly_sandbox": ("https://login-sandbox-monthly.procore.com", "https://api-monthly.procore.com"),
    "federal": ("https://login.procoregov.com", "https://api.procoregov.com"),
    "custom": (None, None),
}
USERS = "/rest/v1.3/companies/{}/users"
USERS_PAGE_SIZE = 100
V2_PAGE_SIZE = 100  # the largest page of the v2 API


def company_fix(company_id: object, conn_id: str) -> str:
    """Return how to fix that the connection's user is rejected in a company."""
    return (
        f"Correct company_id ({company_id}; from the task, else from extra 'company_id' of connection {conn_id!r}), or "
        "have the app installed in that company and its user given the permission."
    )


def project_fix(project_id: object, conn_id: str) -> str:
    """Return how to fix that a project is not found."""
    return (
        f"Correct project_id ({project_id}; from the task, else from extra 'project_id' of connection {conn_id!r}), or "
        "add the user to that project."
    )


@checks_ids
class ProcoreConnectionHook(WorkflowsHook):
    """
    Sign in to Procore; the hooks for both workflow APIs share the connection, the user and the company.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in; default: the connection's.
    :param project_id: Project to work in, or ``company`` for the company level; default: the connection's.
    """

    conn_name_attr = "procore_conn_id"
    default_conn_name = "procore_default"
    conn_type = "procore"
    hook_name = "Procore"

    def __init__(
        self,
        procore_conn_id: str = default_conn_name,
        *,
        company_id: str | int | None = None,
        project_id: str | int | None = None,
    ):
        super().__init__(procore_conn_id)
        self._company_id = company_id
        self._project_id = project_id

    @property
    def company_id(self) -> str:
        return self._company(self.extras)

    @property
    def project_id(self) -> str | None:
        """The hook's or the connection's project, or None to work at company level."""
        own = self._project_id
        project = self._own_project if own is None else as_text("project_id", own, is_id=True)
        return None if project == COMPANY_LEVEL else project

    @property
    def _own_project(self) -> str | None:
        """The connection's project."""
        return self.extras.id("project_id", or_name=COMPANY_LEVEL)

    def me(self) -> dict[str, Any]:
        """Return the signed-in user: ``{id, login, ...}``."""
        return self._object(self.client.get("/rest/v1.0/me").json(), "GET", "/rest/v1.0/me")

    @cached_property
    def _user(self) -> dict[str, Any]:
        return self.me()

    @cached_property
    def user_id(self) -> str:
        """Login information id of the signed-in user."""
        return str(self._user["id"])

    def _forget_responses(self) -> None:
        for name in ("_user", "user_id", "_tools_hidden"):
            vars(self).pop(name, None)

    @property
    def user_login(self) -> str | None:
        """Login of the signed-in user."""
        return str_id(self._user.get("login"))

    def find_user_id(self, user: str, *, parameter: str = "user") -> str:
        """
        Return the login information id of a user of the company.

        :param user: Login or e-mail address, in any case, or the id, which is returned as it is.
        :param parameter: Name of the parameter that gave it, for the error text.
        :raises ConfigurationError: none has it, or several have it; the message lists the candidates.
        """
        if user.isdecimal():
            return user
        me = self.me()
        if str(me.get("login")).casefold() == user.casefold():
            return str(me["id"])
        query = {"filters[search]": user}
        users = self.client.pages(
            build_path(USERS, self.company_id), params=query, per_page=USERS_PAGE_SIZE, style="v1"
        )
        found = users_named(map(str_ids, users), user)
        if len(found) == 1:
            return next(iter(found))
        problem = f"{len(found)} users have" if found else "no user visible to the connection's user has"
        candidates = f": {', '.join(found.values())}" if found else ""
        raise ConfigurationError(
            f"{parameter}: {problem} the login or e-mail address {user!r} in company {self.company_id}{candidates}. "
            "Give the login information id instead, a number."
        )

    def check(self) -> str:
        _ = self._own_project  # raises an error if it is wrong
        user = self.me()
        name = f"{user.get('login')} (user {user['id']})"
        return f"Signed in to {self.client.base_url} as {name}, company {self.company_id}."

    def item_url(self, **ids: str | None) -> str:
        """Return the item's URL in Procore's UI, or "" if ``item_url`` is not set or needs other ids."""
        present = {name: value for name, value in ids.items() if value is not None}
        own = {"company_id": self.company_id} | ({"project_id": self.project_id} if self.project_id else {})
        known = {**own, **present}
        return super().item_url(**{name: value for name, value in known.items() if value != COMPANY_LEVEL})

    def base_url(self, connection: Connection, extras: Extras) -> str:
        host = host_of(connection) or ENVIRONMENTS[self._environment(extras)][1]
        if host is None:
            raise ConfigurationError(
                f"Connection {self.conn_id!r}: environment 'custom' needs the API base URL in host."
            )
        return host

    def token_source(
        self, connection: Connection, extras: Extras, base_url: str, transport: Mapping[str, Any]
    ) -> TokenSource:
        if (token := extras.text("access_token")) is not None:
            return StaticToken(
                token,
                "Procore's tokens expire after 90 minutes. Put a new token into the extra 'access_token', or the "
                "client id and client secret into login and password, with which the provider renews tokens itself.",
            )
        if not connection.login or not connection.password:
            raise ConfigurationError(
                f"Connection {self.conn_id!r} needs the client id in login and the client secret in password "
                "(or an access token in the extra 'access_token')."
            )
        return ClientCredentials(
            self._login_url(extras),
            connection.login,
            connection.password,
            **transport,
        )

    def default_headers(self, extras: Extras) -> dict[str, str]:
        return {"Procore-Company-Id": self._company(extras)}

    def _advice(self, status: int, path: str) -> str | None:
        """Name the company and the project of a rejected call, because they may be wrong."""
        company = company_fix(self.company_id, self.conn_id)
        found = re.search(r"/projects/([^/]+)/", path)
        project = f" {project_fix(unquote(found[1]), self.conn_id)}" if found else ""
        if status == 404:
            where = f"project {unquote(found[1])} of company" if found else "company"
            return f"{NotFound.advice} The call searched {where} {self.company_id}.{project or ' ' + company}"
        return f"{PermissionDenied.advice} {company}{project}"

    def _company(self, extras: Extras) -> str:
        company_id = extras.text("company_id") if self._company_id is None else str(self._company_id)
        if company_id is None:
            raise ConfigurationError(
                f"company_id is missing. Give it to the operator or hook, or set it in the extra of connection "
                f"{self.conn_id!r}."
            )
        if not company_id.isdecimal():
            raise ConfigurationError("company_id must be a number, as in the URL of the company in Procore.")
        return company_id

    def _environment(self, extras: Extras) -> str:
        return extras.choice("environment", tuple(ENVIRONMENTS))

    def _login_url(self, extras: Extras) -> str:
        environment = self._environment(extras)
        login_url = extras.text("login_url")
        if environment != "custom":
            if login_url is not None:
                raise ConfigurationError(f"Connection {self.conn_id!r}: extra 'login_url' needs environment 'custom'.")
            return str(ENVIRONMENTS[environment][0])
        if login_url is None:
            raise ConfigurationError(f"Connection {self.conn_id!r}: environment 'custom' needs the extra 'login_url'.")
        return checked_url(login_url, f"Connection {self.conn_id!r}: extra 'login_url'", extras.flag("allow_http"))

    @staticmethod
    def _object(body: Any, method: str, where: str) -> dict[str, Any]:
        if not isinstance(body, dict) or not is_id(body.get("id")):
            raise UnexpectedResponse("The response has no id", method=method, path=where)
        return body


@checks_ids
class ProcoreHook(ProcoreConnectionHook):
    """
    Call Procore's Workflows v2 API ("Self-Serve Workflows"), with one method for each of its operations.

    Instances and presets belong to a project or to the company, depending on their tool. A method works in its
    ``project_id`` (``company`` means the company level), else in the hook's. Without both, a method with a tool asks
    Procore once whether the tool works in projects or in the company; all other methods work in the connection's
    project, or at company level if it has none. Ids are strings, as parameters also whole numbers; times are the API's
    own strings, and lists are read page by page as they are used.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in; default: the connection's.
    :param project_id: Project to work in, or ``company`` for the company level; default: the connection's.
    """

    product = "procore"

    get_connection_form_widgets = classmethod(connection_form_widgets)
    get_ui_field_behaviour = classmethod(ui_field_behaviour)

    # By server and company, for the lifetime of the process: the level of a tool does not change.
    _tools: ClassVar[dict[tuple[str, str], list[dict[str, Any]]]] = {}
    _tools_hidden: ApiError | None = None
    _filters_ignored = False  # once logged

    # --- tools, and whether they work in projects or in the company ---

    def list_tools(self) -> list[dict[str, Any]]:
        """List the tools that can have workflows: ``{name, type, provider, subtype}``."""
        tools: list[dict[str, Any]] = self._read("GET", self._company_path("tools"), list)
        return tools

    def find_tool(self, tool_type: str) -> dict[str, Any]:
        """
        Return a tool by its type, ``purchase_order_contract``, or by its class, ``PurchaseOrderContract``.

        :raises ConfigurationError: the company has no such tool; the message lists its tools.
        """
        key = (self.client.base_url, self.company_id)
        if self._tools_hidden is not None:
            raise self._tools_hidden
        for tools in (self._tools.get(key), None):
            if tools is None:
                try:
                    tools = self._tools[key] = self.list_tools()
                except (NotFound, PermissionDenied) as rejection:
                    self._tools_hidden = rejection  # requested only once
                    raise
            for tool in tools:
                if same_tool(tool.get("type"), tool_type):
                    return tool
        known = ", ".join(sorted({str(tool.get("type")) for tool in self._tools[key]})) or "none"
        raise ConfigurationError(f"Unknown tool_type {tool_type!r}. The company's tools with workflows: {known}.")

    def check_tool(self, tool_type: str) -> None:
        """
        Check a tool type after a search without results, because a misspelt tool has no instances either.

        :raises ConfigurationError: the company has no such tool; the message lists its tools.
        """
        with contextlib.suppress(NotFound, PermissionDenied):  # without the permission to list tools it is unknown
            self.find_tool(tool_type)

    def project_for(self, project_id: str | int | None, tool_type: str | None = None) -> str | None:
        """
        Return the project to work in, or None for the company level.

        :param project_id: The caller's project, ``company``, or None.
        :param tool_type: The tool, if known.
        :raises ConfigurationError: no project is set and the tool works in projects; or the tool does not exist.
        """
        requested_id = self._project_id if project_id is None else project_id
        if requested_id is not None:
            check_required(project_id=requested_id)  # an empty rendering must not mean the company level
            return None if requested_id == COMPANY_LEVEL else as_text("project_id", requested_id, is_id=True).strip()
        own = self._own_project
        provider = None if tool_type is None else self._provider(tool_type)
        if provider == "Company":
            return None
        if provider == "Project" and own is None:
            raise ConfigurationError(
                f"project_id is missing, and tool {tool_type!r} works in projects. Give project_id, or set it in the "
                f"extra of connection {self.conn_id!r}."
            )
        return own

    def level_for(self, project_id: str | int | None, tool_type: str | None = None) -> str:
        """Return the project to work in, or ``company``, to pass to the other methods as ``project_id``."""
        return self.project_for(project_id, tool_type) or COMPANY_LEVEL

    def _provider(self, tool_type: str) -> str | None:
        try:
            return str(self.find_tool(tool_type).get("provider"))
        except (NotFound, PermissionDenied):
            return None  # without the permission to list tools, the connection decides

    # --- templates and presets ---

    def list_templates(self) -> Iterator[dict[str, Any]]:
        """List the company's templates: ``{id, name, tool_type, latest_published_version: {id, version}, ...}``."""
        return self._pages(self._company_path("templates"))

    def get_template_version(self, version_id: str) -> dict[str, Any]:
        """Return a version of a template with its steps and responsible groups."""
        return self._data("GET", self._company_path("templates/versions/{}", version_id))

    def list_presets(
        self,
        tool_type: str,
        *,
        tool_subtype: str | None = None,
        is_default: bool | None = None,
        is_valid: bool | None = None,
        project_id: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """
        List the presets of a tool: ``{id, valid, default, template: {id, name, last_published_version_id}}``.

        :param is_default: True for the default preset only, False for all others.
        :param is_valid: True for presets that can be used, False for those that cannot.
        """
        filters = {
            "filters[tool_type]": tool_type,
            "filters[tool_subtype]": tool_subtype,
            "filters[is_default]": is_default,
            "filters[is_valid]": is_valid,
        }
        rows = self._pages(self._path("presets", project_id=project_id, tool_type=tool_type), filters)
        requested = {name: value for name, value in (("default", is_default), ("valid", is_valid)) if value is not None}
        return filter(lambda row: all(row.get(name, value) is value for name, value in requested.items()), rows)

    def get_preset(self, preset_id: str, *, project_id: str | None = None) -> dict[str, Any]:
        """Return a preset with the members of its responsible groups."""
        return self._data("GET", self._path("presets/{}", preset_id, project_id=project_id))

    def set_default_preset(
        self, preset_id: str, default: bool = True, *, project_id: str | None = None
    ) -> dict[str, Any]:
        """Make a preset the default, or no longer the default; idempotent."""
        where = self._path("presets/{}", preset_id, project_id=project_id)
        return self._data("PATCH", where, json={"default": default})

    def update_preset_assignees(
        self,
        preset_id: str,
        *,
        responsible_group_memberships: Sequence[Mapping[str, Any]] | None = None,
        individual_assignees: Sequence[Mapping[str, Any]] | None = None,
        workflow_manager_id: str | None = None,
        project_id: str | None = None,
    ) -> dict[str, Any]:
        """
        Change the assignees of instances that start from a preset; never sent twice.

        Whether groups that are left out stay or are emptied is not documented: send all of them.

        :param responsible_group_memberships: ``{uuid, login_ids}`` for each group; the ids replace its members.
        :param individual_assignees: ``{step_uuid, logins: [{id, required, role_type}]}`` for each step.
        :raises OutcomeUnknown: the response was lost.
        """
        where = self._path("presets/{}/assignees", preset_id, project_id=project_id)
        body = _present(
            responsible_group_memberships=responsible_group_memberships,
            individual_assignees=individual_assignees,
            workflow_manager_id=workflow_manager_id,
        )
        return self._data("PATCH", where, idempotency=Idempotency.UNSAFE, json=body)

    def list_possible_assignees(
        self, tool_type: str, *, tool_subtype: str | None = None, project_id: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """List the users who can be assignees in a tool's workflows: ``{id, login, name, company}``."""
        return self._people("possible_assignees", tool_type, tool_subtype, project_id)

    def list_workflow_managers(
        self, tool_type: str, *, tool_subtype: str | None = None, project_id: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """List the users who can manage a tool's workflows: ``{id, login, name, company}``."""
        return self._people("workflow_managers", tool_type, tool_subtype, project_id)

    # --- instances: reading ---

    def list_instances(
        self,
        tool_type: str,
        *,
        tool_subtype: str | None = None,
        item_id: str | None = None,
        assignee_id: str | None = None,
        active: bool | None = None,
        overdue: bool | None = None,
        include_internal: bool | None = None,
        project_id: str | None = None,
        keep_malformed_rows: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """
        List instances.

        Whether Procore lists all instances or the active ones without the filter is not documented, so the filter is
        always sent: for all instances, this lists the active ones first and then the ended ones.

        Rows that do not match ``tool_type``, ``tool_subtype``, ``item_id`` or ``active`` are left out, because a server
        can ignore the filters. Rows do not show their assignees and whether they are overdue, so only Procore applies
        those filters.

        :param tool_type: Tool that the items belong to, such as ``purchase_order_contract``.
        :param tool_subtype: Subtype of the tool; required for correspondence.
        :param item_id: Only instances of this item.
        :param assignee_id: Only instances whose current step waits for this user (login information id).
        :param active: True for active instances, False for ended ones, None for all.
        :param overdue: True for instances whose next step is overdue, False for all others.
        :param include_internal: Also list Procore's internal instances.
        :param project_id: Project of the instances.
        :param keep_malformed_rows: Yield an empty row for each row that is not an object, instead of raising.
        :return: Rows ``{id, item_id, tool_type, created_at, started_at, ended_at, ...}``, without step and state.
        """
        filters = {
            "filters[tool_type]": tool_type,
            "filters[tool_subtype]": tool_subtype,
            "filters[item_id]": item_id,
            "filters[assignee_id]": assignee_id,
            "filters[overdue]": overdue,
            "include_internal": include_internal,
        }
        where = self._path("instances", project_id=project_id, tool_type=tool_type)
        # Active instances first: one that ends in between is listed twice (and deduplicated), never left out.
        lists = [
            self._pages(where, {**filters, "filters[active]": is_active}, keep_malformed_rows=keep_malformed_rows)
            for is_active in ((True, False) if active is None else (active,))
        ]
        requested = {"tool_type": tool_type, "tool_subtype": tool_subtype, "item_id": item_id, "active": active}
        # No generators: an error would end them, and callers continue with the same page after an error.
        seen: set[str | None] = set()
        return filter(partial(self._matches, requested), filter(partial(_is_new, seen), chain.from_iterable(lists)))

    def _matches(self, requested: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        if matches_filters(row, **requested):
            return True
        if not self._filters_ignored:
            self._filters_ignored = True
            filters = ", ".join(f"{name}={value}" for name, value in requested.items() if value is not None)
            log.warning("Procore listed instances that do not match the filters (%s). They are left out.", filters)
        return False

    def list_item_instances(
        self,
        tool_type: str,
        item_id: str,
        project_id: str | None = None,
        *,
        tool_subtype: str | None = None,
        required: bool = True,
    ) -> list[dict[str, Any]]:
        """
        List all instances of an item.

        :param required: Raise an error if there are none.
        :raises ConfigurationError: the company has no such tool.
        :raises NotFound: the item has no workflow instance that is visible to the connection's user.
        """
        rows = list(self.list_instances(tool_type, item_id=item_id, tool_subtype=tool_subtype, project_id=project_id))
        # If a row does not name its item, the instance itself does.
        rows = [row for row in rows if row.get("item_id") or self._is_of_item(row, item_id, project_id)]
        if not rows and required:
            self.check_tool(tool_type)
            raise NotFound(
                f"Item {item_id} of tool {tool_type} has no workflow instance that is visible to the connection's user",
                is_documented=True,
            )
        return rows

    def _is_of_item(self, row: Mapping[str, Any], item_id: str, project_id: str | None) -> bool:
        instance = self.get_instance(str(row.get("id", "")), project_id=project_id)
        return matches_filters(instance, item_id=item_id)

    def get_instance(
        self, instance_id: str, *, project_id: str | None = None, tool_type: str | None = None
    ) -> dict[str, Any]:
        """Return one instance with its current step occurrence."""
        return self._data("GET", self._path("instances/{}", instance_id, project_id=project_id, tool_type=tool_type))

    def get_instance_history(
        self,
        instance_id: str,
        *,
        activity_types: Sequence[str] | None = None,
        project_id: str | None = None,
        tool_type: str | None = None,
    ) -> dict[str, Any]:
        """
        Return the state and the events of one instance.

        :param activity_types: Only ``comments`` or ``attachments``; linear templates only.
        """
        where = self._path("instances/{}/history", instance_id, project_id=project_id, tool_type=tool_type)
        kinds = None if activity_types is None else _texts("activity_types", activity_types)
        return self._data("GET", where, params={"filters[activity_types][]": kinds})

    def list_item_histories(
        self, tool_type: str, item_id: str, *, project_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Return the histories of all instances of an item, each with its ``instance_id``."""
        where = self._path("instances/history", project_id=project_id, tool_type=tool_type)
        found: list[dict[str, Any]] = self._read(
            "GET", where, list, params={"tool_type": tool_type, "item_id": item_id}
        )
        return found

    def bulk_history(
        self,
        tool_type: str,
        item_ids: Sequence[str],
        *,
        activity_types: Sequence[str] | None = None,
        project_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """
        Return the histories of all instances of several items in one call.

        The maximum number of items per call is not documented.

        :param activity_types: Only ``comments`` or ``attachments``.
        :return: ``{item_id, instances}`` for each item, with the history of its newest instance first.
        :raises PermissionDenied: one of the items has an instance that is not visible to the user.
        """
        return list(self.each_bulk_history(tool_type, item_ids, activity_types=activity_types, project_id=project_id))

    def each_bulk_history(
        self,
        tool_type: str,
        item_ids: Sequence[str],
        *,
        activity_types: Sequence[str] | None = None,
        project_id: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Make the call of :meth:`bulk_history` and yield item by item, which needs less memory."""
        body: dict[str, Any] = {"tool_type": tool_type, "item_ids": list(item_ids)}
        if activity_types is not None:
            body["filters"] = {"activity_types": _texts("activity_types", activity_types)}
        where = self._path("instances/bulk_history", project_id=project_id, tool_type=tool_type)
        # The call only reads, so it may be sent twice, and in a dry run.
        call = self.client.call("POST", where, idempotency=Idempotency.SAFE, json=body, only_reads=True)
        return call.rows("data")

    # --- instances: write actions ---

    def start_instance(
        self,
        tool_type: str,
        item_id: str,
        *,
        tool_subtype: str | None = None,
        template_id: str | None = None,
        preset_id: str | None = None,
        project_id: str | None = None,
    ) -> dict[str, Any]:
        """
        Start the workflow of an item; never sent twice.

        :param preset_id: Preset to start from; overrides ``template_id``; without both, the default preset.
        :return: The new instance.
        :raises OutcomeUnknown: the response was lost.
        """
        body = _present(
            tool_type=tool_type,
            item_id=item_id,
            tool_subtype=tool_subtype,
            template_id=template_id,
            preset_id=preset_id,
        )
        where = self._path("instances", project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE, json=body)

    def bulk_start_instances(
        self,
        tool_type: str,
        items: Sequence[Mapping[str, Any]],
        *,
        tool_subtype: str | None = None,
        idempotency_token: str | None = None,
        project_id: str | None = None,
    ) -> dict[str, Any]:
        """
        Start the workflows of several items in an asynchronous operation; never sent twice.

        :param items: ``{item_id, preset_id}`` for each item; without ``preset_id``, the default preset.
        :param idempotency_token: Token that is equal for the same request.
        :return: ``{operation_id, operation_type}``; see :meth:`get_async_operation`.
        :raises OutcomeUnknown: the response was lost.
        """
        texts = [_with_text_ids(item) for item in as_list(items)]
        return self._data(
            "POST",
            self._path("instances/bulk_create", project_id=project_id, tool_type=tool_type),
            idempotency=Idempotency.UNSAFE,
            json=_present(tool_type=tool_type, tool_subtype=tool_subtype, items=texts),
            headers=_idempotency(idempotency_token),
        )

    def get_async_operation(self, operation_id: str) -> dict[str, Any]:
        """Return an asynchronous operation: ``{id, operation_type, status, result, error, ...}``."""
        return self._data(
            "GET", build_path("/rest/v2.0/companies/{}/async_operations/{}", self.company_id, operation_id)
        )

    def respond(
        self,
        instance_id: str,
        *,
        step_occurrence_id: str,
        option_id: str,
        comment: str | None = None,
        attachments: Mapping[str, Sequence[str]] | None = None,
        idempotency_token: str | None = None,
        project_id: str | None = None,
        tool_type: str | None = None,
    ) -> None:
        """
        Respond to the current step of an instance as the signed-in user; never sent twice.

        Procore accepts an identical repetition and rejects a different response, but only while the step is current.
        So after a lost HTTP response the call is not repeated: read the instance first.

        :param step_occurrence_id: The step occurrence to respond to.
        :param option_id: Id of the chosen response option.
        :param comment: Comment on the response.
        :param attachments: Ids by kind, such as ``{"upload_ids": ["..."]}``.
        :param idempotency_token: Token that is equal for the same response.
        :raises OutcomeUnknown: the HTTP response was lost, or is not the documented 204 without a body.
        """
        response: dict[str, Any] = {
            "current_step_occurrence_id": step_occurrence_id,
            "selected_response_option_id": option_id,
            "attachments": attachment_ids(attachments),  # Procore requires the object even when it is empty
        }
        if comment is not None:
            response["comment"] = comment
        api_response = self.client.call(
            "POST",
            self._path("instances/{}/responses", instance_id, project_id=project_id, tool_type=tool_type),
            idempotency=Idempotency.UNSAFE,
            json={"response": response},
            headers=_idempotency(idempotency_token),
        )
        if api_response.status != 204:
            raise OutcomeUnknown(
                "The response does not have the documented status 204",
                method="POST",
                path=api_response.path,
                status_code=api_response.status,
            )

    def add_assignees(
        self,
        instance_id: str,
        *,
        step_occurrence_id: str,
        assignee_ids: Sequence[str],
        reason: str,
        required: bool = True,
        role_type: str | None = None,
        comment: str | None = None,
        message: str | None = None,
        project_id: str | None = None,
        tool_type: str | None = None,
    ) -> dict[str, Any]:
        """
        Add assignees to the current step of an instance; never sent twice.

        :param assignee_ids: Login information ids.
        :param reason: One of Procore's reasons, such as ``original_assignee_on_vacation``.
        :param required: Whether the step waits for their responses.
        :param role_type: ``responder`` or ``commenter``.
        :return: The instance.
        :raises OutcomeUnknown: the response was lost.
        """
        body = _present(
            step_occurrence_id=step_occurrence_id,
            required=required,
            role_type=role_type,
            reason=reason,
            comment=comment,
            message=message,
            assignee_ids=list(assignee_ids),
        )
        where = self._path("instances/{}/additional_assignees", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE, json=body)

    def restart_instance(
        self,
        instance_id: str,
        *,
        restart_mode: str | None = None,
        project_id: str | None = None,
        tool_type: str | None = None,
    ) -> dict[str, Any]:
        """
        Terminate an instance and start a new one; Procore documents that a repeated call returns the same new instance.

        :param restart_mode: ``defaults`` or ``current_configuration``.
        :return: The new instance.
        :raises OutcomeUnknown: the response was lost.
        """
        where = self._path("instances/{}/restart", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE, json=_present(restart_mode=restart_mode))

    def terminate_instance(
        self, instance_id: str, *, project_id: str | None = None, tool_type: str | None = None
    ) -> dict[str, Any]:
        """
        Terminate an instance; Procore documents that the call does not change an instance that has ended.

        :raises OutcomeUnknown: the response was lost.
        """
        where = self._path("instances/{}/terminate", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE)

    def refresh_instance(
        self, instance_id: str, *, project_id: str | None = None, tool_type: str | None = None
    ) -> dict[str, Any]:
        """
        Make a blocked instance retry its failed step; never sent twice.

        :raises OutcomeUnknown: the response was lost.
        """
        where = self._path("instances/{}/refresh", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE)

    # --- replacing an assignee everywhere ---

    def list_bulk_replace_requests(
        self,
        *,
        status: str | None = None,
        old_assignee_ids: Sequence[str] | None = None,
        new_assignee_ids: Sequence[str] | None = None,
        updated_by_id: str | None = None,
        replacement_type: str | None = None,
        start_date: str | None = None,
        end_date: str | None = None,
        sort: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """
        List the company's requests to replace an assignee.

        :param status: active, completed, expired, failed, processing, stopped or upcoming.
        :param replacement_type: temporary or permanent.
        :param start_date: Range of days as ``YYYY-MM-DD...YYYY-MM-DD``.
        :param end_date: Range of days, likewise.
        """
        filters = {
            "filters[status]": status,
            "filters[old_assignee_ids]": _joined(old_assignee_ids),
            "filters[new_assignee_ids]": _joined(new_assignee_ids),
            "filters[updated_by_id]": updated_by_id,
            "filters[type]": replacement_type,
            "filters[start_date]": start_date,
            "filters[end_date]": end_date,
            "sort": sort,
        }
        return self._pages(self._company_path("bulk_replace_requests"), filters)

    def create_bulk_replace_request(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """
        Request that Procore replaces an assignee in presets and running instances; never sent twice.

        :param request: ``{replacement_type, old_assignee_id, new_assignee_ids, modify_project_roles, reason}`` and,
            optionally, ``new_workflow_manager_id, start_date, end_date, project_ids, tools``.
        :return: ``{bulk_replace_request_id, operation_id}``.
        :raises OutcomeUnknown: the response was lost.
        """
        where = self._company_path("bulk_replace_requests")
        return self._data("POST", where, idempotency=Idempotency.UNSAFE, json=_checked_request(request))

    def get_bulk_replace_request(self, request_id: str) -> dict[str, Any]:
        """Return a request to replace an assignee."""
        return self._data("GET", self._company_path("bulk_replace_requests/{}", request_id))

    def update_bulk_replace_request(self, request_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change a request to replace an assignee; never sent twice; see :meth:`create_bulk_replace_request`."""
        where = self._company_path("bulk_replace_requests/{}", request_id)
        return self._data("PUT", where, idempotency=Idempotency.UNSAFE, json=_checked_request(request))

    def stop_bulk_replace_request(self, request_id: str) -> None:
        """Stop a request to replace an assignee."""
        where = self._company_path("bulk_replace_requests/{}", request_id)
        self.client.call("DELETE", where, idempotency=Idempotency.SAFE).reject_page()

    def get_bulk_replace_errors(self, request_id: str) -> bytes | None:
        """
        Return the CSV file with the failures of a request to replace an assignee, undecoded: its encoding varies.

        :return: The file, or None while Procore is preparing it (202).
        """
        from airflow_provider_workflows.hooks.procore_downloads import download

        where = self._company_path("bulk_replace_requests/{}/errors", request_id)
        api_response = download(self.client, where, headers={"Accept": "text/csv"})
        content_type = api_response.headers.get("Content-Type", "").casefold()
        if api_response.status == 202 and ("csv" not in content_type or not api_response.body):
            return None
        if "csv" not in content_type:
            api_response.reject_page()
        if "json" in content_type:
            raise UnexpectedResponse(
                "The response is not a CSV file", method="GET", path=where, status_code=api_response.status
            )
        return api_response.body

    # --- files ---

    def upload(
        self,
        name: str,
        content_type: str,
        segments: Sequence[Mapping[str, Any]],
        parts: Iterable[bytes] | Callable[[], Iterable[bytes]],
        *,
        sha256: str | None = None,
        project_id: str | None = None,
        on_stored: Callable[[str], object] | None = None,
    ) -> str:
        """
        Store a file in Procore; the same user must attach it within 24 hours.

        The hook uses the unified uploads (v2.1), or the older uploads (v1.1) if the server does not have the unified
        ones. Which of the two a workflow response accepts is not documented.

        :param name: Name of the file.
        :param content_type: Media type of the file.
        :param segments: ``{size, sha256, md5}`` of each part, sizes in bytes; ``md5`` is optional.
        :param parts: The parts, or a function that returns them. They are read again if a signed URL of the storage
            has expired, which an iterator does not allow.
        :param sha256: Hash of the whole file.
        :param on_stored: Called with the id when Procore has received the whole file but not yet made it available; see
            :meth:`await_upload`. Not called for the older uploads.
        :return: Id of the upload.
        :raises UploadFailed: Procore could not process the file, or does not show the upload.
        :raises ServerError: the file did not become available in time, or the storage rejects it.
        """
        return self._uploads(project_id).store(name, content_type, segments, parts, sha256, on_stored)

    def await_upload(self, upload_id: str, *, project_id: str | None = None) -> None:
        """
        Wait until a file that :meth:`upload` has stored with the unified uploads can be attached.

        :raises UploadFailed: the file will not become available and must be uploaded again.
        :raises ServerError: the file did not become available in time.
        """
        self._uploads(project_id).await_available(upload_id)

    def _uploads(self, project_id: str | None) -> Uploads:
        from airflow_provider_workflows.hooks.procore_uploads import Uploads

        return Uploads(self.client, self.company_id, self.project_for(project_id))

    # --- internals ---

    def _company_path(self, template: str, *ids: str) -> str:
        return build_path("/rest/v2.0/companies/{}/workflows/" + template, self.company_id, *ids)

    def _path(self, template: str, *ids: str, project_id: str | None, tool_type: str | None = None) -> str:
        project = self.project_for(project_id, tool_type)
        if project is None:
            return self._company_path(template, *ids)
        return build_path("/rest/v2.0/companies/{}/projects/{}/workflows/" + template, self.company_id, project, *ids)

    def _people(
        self, what: str, tool_type: str, tool_subtype: str | None, project_id: str | None
    ) -> Iterator[dict[str, Any]]:
        query = {"tool_type": tool_type, "tool_subtype": tool_subtype}  # plain names here, not filters
        return self._pages(self._path(what, project_id=project_id, tool_type=tool_type), query)

    def _pages(
        self, where: str, params: Mapping[str, Any] | None = None, *, keep_malformed_rows: bool = False
    ) -> Iterator[dict[str, Any]]:
        return self.client.pages(
            where, params=params, per_page=V2_PAGE_SIZE, style="v2", keep_malformed_rows=keep_malformed_rows
        )

    def _data(self, method: str, where: str, **call: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._read(method, where, dict, **call)
        return found

    def _read(
        self, method: str, where: str, kind: type, *, idempotency: Idempotency = Idempotency.SAFE, **call: Any
    ) -> Any:
        api_response = self.client.call(method, where, idempotency=idempotency, **call)
        body = api_response.json()
        found = body.get("data") if isinstance(body, dict) else None
        rows = found if isinstance(found, list) else []
        if not isinstance(found, kind) or not all(isinstance(row, dict) for row in rows):
            raise UnexpectedResponse("The response has no 'data' in the documented format", method=method, path=where)
        if kind is list:
            check_whole(api_response, body, rows)
        return found


def _is_new(seen: set[str | None], row: Mapping[str, Any]) -> bool:
    """Return whether a row was not seen before, and record it as seen."""
    instance_id = str_id(row.get("id"))
    if instance_id is not None and instance_id in seen:
        return False
    seen.add(instance_id)
    return True


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ConfigurationError(f"{name} must be a list of texts; got {value!r}.")
    return [as_text(name, item) for item in value]


def _with_text_ids(item: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise ConfigurationError(f"items must be a list of {{item_id, preset_id}}; got {item!r} in it.")
    ids = {name: value for name, value in item.items() if value is not None}
    check_required(item_id=ids.get("item_id"))
    return {name: as_text(name, value, is_id=True).strip() for name, value in ids.items()}


def _checked_request(request: Any) -> dict[str, Any]:
    if not isinstance(request, Mapping):
        raise ConfigurationError(f"request must be a mapping; got {request!r}.")
    return dict(request)


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _idempotency(token: str | None) -> dict[str, str] | None:
    if token is None:
        return None
    check_required(idempotency_token=token)
    return {"Idempotency-Token": as_text("idempotency_token", token)}


def _joined(ids: Sequence[str] | None) -> str | None:
    return None if ids is None else ",".join(ids)
