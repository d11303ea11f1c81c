"""Hook for Procore's Workflows v2 API, and the connection that both Procore hooks share."""

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
from airflow_provider_workflows.rules.parameters import as_text, check_required, str_id
from airflow_provider_workflows.rules.payload import is_id
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL, is_response_requested_from, same_tool
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
V2_PAGE_SIZE = 100  # the largest page the v2 API gives


def company_fix(company_id: object, conn_id: str) -> str:
    """Return what to do where the connection's user is rejected in a company."""
    return (
        f"Correct company_id ({company_id}; of the task, else extra 'company_id' of connection {conn_id!r}), or have "
        "the app installed and its user permitted in that company."
    )


def project_fix(project_id: object, conn_id: str) -> str:
    """Return what to do where a project is not found."""
    return (
        f"Correct project_id ({project_id}; of the task, else extra 'project_id' of connection {conn_id!r}), or add "
        "the user to that project."
    )


class ProcoreConnectionHook(WorkflowsHook):
    """
    Signs in to Procore; the two workflow APIs share the connection, the user and the company.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in; beats the connection's.
    :param project_id: Project to work in; beats the connection's; ``company`` for the company level.
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
        given = self._project_id
        project = self.extras.text("project_id") if given is None else as_text("project_id", given, is_id=True)
        return None if project == COMPANY_LEVEL else project

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
        user = user.strip()
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
        problem = f"{len(found)} users have" if found else "no user that the connection may see has"
        candidates = f": {', '.join(found.values())}" if found else ""
        raise ConfigurationError(
            f"{parameter}: {problem} the login or e-mail address {user!r} in company {self.company_id}{candidates}. "
            "Give the login information id instead, a number."
        )

    def check(self) -> str:
        user = self.me()
        who = f"{user.get('login')} (user {user['id']})"
        return f"Signed in to {self.client.base_url} as {who}, company {self.company_id}."

    def item_url(self, **ids: str | None) -> str:
        """Return the item's address in Procore's UI, or "" where the connection's ``item_url`` does not tell it."""
        given = {name: value for name, value in ids.items() if value is not None}
        own = {"company_id": self.company_id} | ({"project_id": self.project_id} if self.project_id else {})
        known = {**own, **given}
        return super().item_url(**{name: value for name, value in known.items() if value != COMPANY_LEVEL})

    def base_url(self, connection: Connection, extras: Extras) -> str:
        host = host_of(connection) or ENVIRONMENTS[self._environment(extras)][1]
        if host is None:
            raise ConfigurationError(
                f"Connection {self.conn_id!r}: environment 'custom' needs the API base URL in the field host."
            )
        return host

    def token_source(
        self, connection: Connection, extras: Extras, base_url: str, transport: Mapping[str, Any]
    ) -> TokenSource:
        if (ready := extras.text("access_token")) is not None:
            return StaticToken(
                ready,
                "Procore's tokens live for 90 minutes: get a new one for the extra 'access_token', or give client id "
                "and client secret as login and password instead, by which tokens are renewed.",
            )
        if not connection.login or not connection.password:
            raise ConfigurationError(
                f"Connection {self.conn_id!r} needs the client id in login and the client secret in password "
                "(or a ready token in the extra 'access_token')."
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
        """Name the company and the project that a rejected call went to, which may be the wrong ones."""
        company = company_fix(self.company_id, self.conn_id)
        found = re.search(r"/projects/([^/]+)/", path)
        project = f" {project_fix(unquote(found[1]), self.conn_id)}" if found else ""
        if status == 404:
            where = f"project {unquote(found[1])} of company" if found else "company"
            return f"{NotFound.advice} It was looked for in {where} {self.company_id}.{project or ' ' + company}"
        return f"{PermissionDenied.advice} {company}{project}"

    def _company(self, extras: Extras) -> str:
        company_id = extras.text("company_id") if self._company_id is None else str(self._company_id)
        if company_id is None:
            raise ConfigurationError(
                f"No company_id: give it to the operator or hook, or in the extra of connection {self.conn_id!r}."
            )
        if not company_id.isdecimal():
            raise ConfigurationError("company_id must be a number, as in the address of the company in Procore.")
        return company_id

    def _environment(self, extras: Extras) -> str:
        return extras.choice("environment", tuple(ENVIRONMENTS))

    def _login_url(self, extras: Extras) -> str:
        environment = self._environment(extras)
        given = extras.text("login_url")
        if environment != "custom":
            if given is not None:
                raise ConfigurationError(
                    f"Connection {self.conn_id!r}: extra 'login_url' goes only with environment 'custom'."
                )
            return str(ENVIRONMENTS[environment][0])
        if given is None:
            raise ConfigurationError(f"Connection {self.conn_id!r}: environment 'custom' needs the extra 'login_url'.")
        return checked_url(given, f"Connection {self.conn_id!r}: extra 'login_url'", extras.flag("allow_http"))

    @staticmethod
    def _object(body: Any, method: str, where: str) -> dict[str, Any]:
        if not isinstance(body, dict) or not is_id(body.get("id")):
            raise UnexpectedResponse("The answer has no id", method=method, path=where)
        return body


class ProcoreHook(ProcoreConnectionHook):
    """
    Calls Procore's Workflows v2 API ("Self-Serve Workflows"), one method for each of its operations.

    An instance, a preset and the like live in a project or in the company, depending on their tool. A method
    works in the ``project_id`` it is given, ``company`` meaning the company level; else in the hook's. When
    neither says, a method that knows the tool asks Procore once whose tool it is, and the others work in the
    connection's project, or at company level if it has none. Ids are strings; times are the API's own strings;
    lists are read page by page as they are used.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in; beats the connection's.
    :param project_id: Project to work in; beats the connection's; ``company`` for the company level.
    """

    get_connection_form_widgets = classmethod(connection_form_widgets)
    get_ui_field_behaviour = classmethod(ui_field_behaviour)

    # Of each server and company, for the life of the process: whose tool a tool is does not change.
    _tools: ClassVar[dict[tuple[str, str], list[dict[str, Any]]]] = {}
    _tools_hidden: ApiError | None = None
    _filters_ignored = False  # and the log says so

    # --- tools, and whether they work in projects or in the company ---

    def list_tools(self) -> list[dict[str, Any]]:
        """List the tools that can have workflows: ``{name, type, provider, subtype}``."""
        tools: list[dict[str, Any]] = self._read("GET", self._company_path("tools"), list)
        return tools

    def find_tool(self, tool_type: str) -> dict[str, Any]:
        """
        Return a tool by its type, ``purchase_order_contract``, or by its class, ``PurchaseOrderContract``.

        :raises ConfigurationError: there is no such tool; the message lists the tools.
        """
        key = (self.client.base_url, self.company_id)
        if self._tools_hidden is not None:
            raise self._tools_hidden
        for tools in (self._tools.get(key), None):
            if tools is None:
                try:
                    tools = self._tools[key] = self.list_tools()
                except (NotFound, PermissionDenied) as rejected:
                    self._tools_hidden = rejected  # asked for once
                    raise
            for tool in tools:
                if same_tool(tool.get("type"), tool_type):
                    return tool
        known = ", ".join(sorted({str(tool.get("type")) for tool in self._tools[key]})) or "none"
        raise ConfigurationError(f"tool_type: this company has no tool {tool_type!r} with workflows. Tools: {known}.")

    def check_tool(self, tool_type: str) -> None:
        """
        Look for a tool where nothing was found of it: a misspelt one has no instances either.

        :raises ConfigurationError: there is no such tool; the message lists the tools.
        """
        with contextlib.suppress(NotFound, PermissionDenied):  # who may not list the tools cannot be told
            self.find_tool(tool_type)

    def project_for(self, project_id: str | int | None, tool_type: str | None = None) -> str | None:
        """
        Return the project to work in, or None for the company level.

        :param project_id: What the caller says: a project, ``company``, or None for nothing.
        :param tool_type: The tool that is worked with, if known.
        :raises ConfigurationError: nobody says a project, and the tool works in projects; or no such tool.
        """
        said = self._project_id if project_id is None else project_id
        if said is not None:
            check_required(project_id=said)  # rendered empty, it must not become the company level
            return None if said == COMPANY_LEVEL else as_text("project_id", said, is_id=True).strip()
        own = self.extras.text("project_id")
        provider = None if tool_type is None else self._provider(tool_type)
        if provider == "Company":
            return None
        if provider == "Project" and own is None:
            raise ConfigurationError(
                f"Tool {tool_type!r} works in projects: give project_id, or set it in the extra of connection "
                f"{self.conn_id!r}."
            )
        return own

    def level_for(self, project_id: str | int | None, tool_type: str | None = None) -> str:
        """Return the project to work in, or ``company``: what to give to the other methods as ``project_id``."""
        return self.project_for(project_id, tool_type) or COMPANY_LEVEL

    def _provider(self, tool_type: str) -> str | None:
        try:
            return str(self.find_tool(tool_type).get("provider"))
        except (NotFound, PermissionDenied):
            return None  # who may not list the tools works where the connection says

    # --- templates and presets ---

    def list_templates(self) -> Iterator[dict[str, Any]]:
        """List the company's templates: ``{id, name, tool_type, latest_published_version: {id, version}, ...}``."""
        return self._pages(self._company_path("templates"))

    def get_template_version(self, version_id: str) -> dict[str, Any]:
        """Show a version of a template with its steps and responsible groups."""
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

        :param is_default: Only the default preset, or only the others.
        :param is_valid: Only presets that can be used, or only those that cannot.
        """
        filters = {
            "filters[tool_type]": tool_type,
            "filters[tool_subtype]": tool_subtype,
            "filters[is_default]": is_default,
            "filters[is_valid]": is_valid,
        }
        rows = self._pages(self._path("presets", project_id=project_id, tool_type=tool_type), filters)
        asked = {name: value for name, value in (("default", is_default), ("valid", is_valid)) if value is not None}
        return filter(lambda row: all(row.get(name, value) is value for name, value in asked.items()), rows)

    def get_preset(self, preset_id: str, *, project_id: str | None = None) -> dict[str, Any]:
        """Show a preset with the members of its responsible groups."""
        return self._data("GET", self._path("presets/{}", preset_id, project_id=project_id))

    def set_default_preset(
        self, preset_id: str, default: bool = True, *, project_id: str | None = None
    ) -> dict[str, Any]:
        """Make a preset the default one, or no longer; the same again changes nothing."""
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
        Change who is asked by the instances that start from a preset; never sent twice.

        Whether groups that are not named stay or are emptied is not documented: send all of them.

        :param responsible_group_memberships: ``{uuid, login_ids}`` for each group; the ids replace its members.
        :param individual_assignees: ``{step_uuid, logins: [{id, required, role_type}]}`` for each step.
        :raises OutcomeUnknown: the answer was lost.
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
        """List who can be an assignee in a tool's workflows: ``{id, login, name, company}``."""
        return self._people("possible_assignees", tool_type, tool_subtype, project_id)

    def list_workflow_managers(
        self, tool_type: str, *, tool_subtype: str | None = None, project_id: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """List who can manage a tool's workflows: ``{id, login, name, company}``."""
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

        Whether Procore lists all or the active ones when it is not told which is not documented, so it is always
        told: for all of them the active ones are listed first and then the ended ones.

        What a row shows is compared with what was asked for: its tool, its subtype, its item and whether it has ended.
        Its assignees and whether it is overdue a row does not show, so these filters are Procore's alone.

        :param tool_type: Tool the items belong to, such as ``purchase_order_contract``.
        :param tool_subtype: Subtype of the tool; needed for correspondence.
        :param item_id: Only the instances of this item.
        :param assignee_id: Only those whose current step waits on this user (login information id).
        :param active: Only active instances, or only ended ones; None for all.
        :param overdue: Only those whose next step is overdue, or only the others.
        :param include_internal: Procore's own instances, too.
        :param project_id: Project to look in.
        :param keep_malformed_rows: Yield an empty row for each that is no object, instead of an error.
        :return: Rows ``{id, item_id, tool_type, created_at, started_at, ended_at, ...}``; no step, no state.
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
        # The active ones first: one that ends in between is listed twice, and not left out.
        lists = [
            self._pages(where, {**filters, "filters[active]": desired}, keep_malformed_rows=keep_malformed_rows)
            for desired in ((True, False) if active is None else (active,))
        ]
        asked = {"tool_type": tool_type, "tool_subtype": tool_subtype, "item_id": item_id, "active": active}
        # No generators: these would be over after an error, and a caller goes on with the same page.
        seen: set[str | None] = set()
        return filter(
            partial(self._is_response_requested_from, asked), filter(partial(_is_new, seen), chain.from_iterable(lists))
        )

    def _is_response_requested_from(self, asked: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        if is_response_requested_from(row, **asked):
            return True
        if not self._filters_ignored:
            self._filters_ignored = True
            words = ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)
            log.warning("Procore lists instances that were not asked for (%s); they are left out.", words)
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

        :param required: Whether it is an error that there are none.
        :raises ConfigurationError: there is no such tool.
        :raises NotFound: the item has no workflow instance, or none that this user may see.
        """
        rows = list(self.list_instances(tool_type, item_id=item_id, tool_subtype=tool_subtype, project_id=project_id))
        # Of a row that does not name its item the instance tells it.
        rows = [row for row in rows if row.get("item_id") or self._is_of_item(row, item_id, project_id)]
        if not rows and required:
            self.check_tool(tool_type)
            raise NotFound(
                f"Item {item_id} of tool {tool_type} has no workflow instance, or none that is visible to us",
                is_documented=True,
            )
        return rows

    def _is_of_item(self, row: Mapping[str, Any], item_id: str, project_id: str | None) -> bool:
        return is_response_requested_from(
            self.get_instance(str(row.get("id", "")), project_id=project_id), item_id=item_id
        )

    def get_instance(
        self, instance_id: str, *, project_id: str | None = None, tool_type: str | None = None
    ) -> dict[str, Any]:
        """Show one instance with its current step occurrence."""
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
        Show the state and the events of one instance.

        :param activity_types: Only ``comments`` or ``attachments``; linear templates only.
        """
        where = self._path("instances/{}/history", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("GET", where, params={"filters[activity_types][]": activity_types})

    def list_item_histories(
        self, tool_type: str, item_id: str, *, project_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Show the histories of all instances of an item, each with its ``instance_id``."""
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
        Show the histories of all instances of several items in one call.

        How many items a call takes is not documented.

        :param activity_types: Only ``comments`` or ``attachments``.
        :return: ``{item_id, instances}`` for each item, its histories with the newest instance first.
        :raises PermissionDenied: one of the items has an instance that the user may not see.
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
        """Make the call of :meth:`bulk_history`, and yield item by item, for whoever keeps none of them."""
        body: dict[str, Any] = {"tool_type": tool_type, "item_ids": list(item_ids)}
        if activity_types is not None:
            body["filters"] = {"activity_types": list(activity_types)}
        where = self._path("instances/bulk_history", project_id=project_id, tool_type=tool_type)
        # It only reads, so it may go twice.
        return self.client.call("POST", where, idempotency=Idempotency.SAFE, json=body).rows("data")

    # --- instances: acting ---

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

        :param preset_id: Preset to start from; beats ``template_id``; with neither, the default preset.
        :return: The new instance.
        :raises OutcomeUnknown: the answer was lost.
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
        Order Procore to start the workflows of several items; never sent twice.

        :param items: ``{item_id, preset_id}`` for each; without a preset, the default one.
        :param idempotency_token: The same for the same order.
        :return: ``{operation_id, operation_type}``; see :meth:`get_async_operation`.
        :raises OutcomeUnknown: the answer was lost.
        """
        return self._data(
            "POST",
            self._path("instances/bulk_create", project_id=project_id, tool_type=tool_type),
            idempotency=Idempotency.UNSAFE,
            json=_present(tool_type=tool_type, tool_subtype=tool_subtype, items=[dict(item) for item in items]),
            headers=_idempotency(idempotency_token),
        )

    def get_async_operation(self, operation_id: str) -> dict[str, Any]:
        """Show an operation that Procore works on: ``{id, operation_type, status, result, error, ...}``."""
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
        Answer the current step of an instance as the signed-in user.

        Procore takes an identical repetition as already done, and rejects a different one; but only while the
        step is current, so a lost answer is not repeated here: the caller reads first.

        :param step_occurrence_id: The step occurrence that is answered.
        :param option_id: Id of the chosen response option.
        :param comment: A note about the response.
        :param attachments: Ids by kind, such as ``{"upload_ids": ["..."]}``.
        :param idempotency_token: The same for the same action.
        :raises OutcomeUnknown: the answer was lost, or is not the documented one, 204 without a body.
        """
        response: dict[str, Any] = {
            "current_step_occurrence_id": step_occurrence_id,
            "selected_response_option_id": option_id,
            "attachments": dict(attachments or {}),  # Procore requires the object even when it is empty
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
                "The answer is not the documented one (204)",
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
        Ask more people at the current step of an instance; never sent twice.

        :param assignee_ids: Login information ids.
        :param reason: One of Procore's words, such as ``original_assignee_on_vacation``.
        :param required: Whether the step waits for them.
        :param role_type: ``responder`` or ``commenter``.
        :return: The instance.
        :raises OutcomeUnknown: the answer was lost.
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
        Terminate an instance and start a new one; by the documents the same again returns the same new one.

        :param restart_mode: ``defaults`` or ``current_configuration``.
        :return: The new instance.
        :raises OutcomeUnknown: the answer was lost.
        """
        where = self._path("instances/{}/restart", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE, json=_present(restart_mode=restart_mode))

    def terminate_instance(
        self, instance_id: str, *, project_id: str | None = None, tool_type: str | None = None
    ) -> dict[str, Any]:
        """
        End an instance; by the documents one that has ended stays as it is.

        :raises OutcomeUnknown: the answer was lost.
        """
        where = self._path("instances/{}/terminate", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE)

    def refresh_instance(
        self, instance_id: str, *, project_id: str | None = None, tool_type: str | None = None
    ) -> dict[str, Any]:
        """
        Let a blocked instance try its failed step again; never sent twice.

        :raises OutcomeUnknown: the answer was lost.
        """
        where = self._path("instances/{}/refresh", instance_id, project_id=project_id, tool_type=tool_type)
        return self._data("POST", where, idempotency=Idempotency.UNSAFE)

    # --- replacing a person everywhere ---

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
        :param start_date: Days as ``YYYY-MM-DD...YYYY-MM-DD``; likewise ``end_date``.
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
        Ask Procore to replace an assignee in presets and running instances; never sent twice.

        :param request: ``{replacement_type, old_assignee_id, new_assignee_ids, modify_project_roles, reason}`` and,
            as needed, ``new_workflow_manager_id, start_date, end_date, project_ids, tools``.
        :return: ``{bulk_replace_request_id, operation_id}``.
        :raises OutcomeUnknown: the answer was lost.
        """
        where = self._company_path("bulk_replace_requests")
        return self._data("POST", where, idempotency=Idempotency.UNSAFE, json=dict(request))

    def get_bulk_replace_request(self, request_id: str) -> dict[str, Any]:
        """Show a request to replace an assignee."""
        return self._data("GET", self._company_path("bulk_replace_requests/{}", request_id))

    def update_bulk_replace_request(self, request_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Change a request to replace an assignee; never sent twice; see :meth:`create_bulk_replace_request`."""
        where = self._company_path("bulk_replace_requests/{}", request_id)
        return self._data("PUT", where, idempotency=Idempotency.UNSAFE, json=dict(request))

    def stop_bulk_replace_request(self, request_id: str) -> None:
        """Stop a request to replace an assignee."""
        where = self._company_path("bulk_replace_requests/{}", request_id)
        self.client.call("DELETE", where, idempotency=Idempotency.SAFE).reject_page()

    def get_bulk_replace_errors(self, request_id: str) -> bytes | None:
        """
        Return the CSV file of what a request to replace an assignee could not do, as it is: its encoding varies.

        :return: None while Procore has it not ready (202).
        """
        from airflow_provider_workflows.hooks.procore_downloads import download

        where = self._company_path("bulk_replace_requests/{}/errors", request_id)
        api_response = download(self.client, where, headers={"Accept": "text/csv"})
        kind = api_response.headers.get("Content-Type", "").casefold()
        if api_response.status == 202 and ("csv" not in kind or not api_response.body):
            return None
        if "csv" not in kind:
            api_response.reject_page()
        if "json" in kind:
            raise UnexpectedResponse(
                "The answer is no CSV file", method="GET", path=where, status_code=api_response.status
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
        Store a file in Procore, to be attached within 24 hours by the same user.

        The unified uploads (v2.1) are used, and the older ones (v1.1) where those are not there. Which of the
        two a response takes is not documented.

        :param name: Name of the file.
        :param content_type: Its media type.
        :param segments: ``{size, sha256, md5}`` of each part, sizes in bytes; ``md5`` may be left out.
        :param parts: The parts, or a function that returns them. They are read once more where an address of the
            storage has expired, for which an iterator is not enough.
        :param sha256: Of the whole file.
        :param on_stored: Called with the id once Procore has the whole file, which it still must make available; see
            :meth:`await_upload`. Not called for the older uploads.
        :return: The upload's id.
        :raises UploadFailed: Procore could not process the file, or does not show the upload.
        :raises ServerError: the file did not become available in time, or the storage rejects it.
        """
        return self._uploads(project_id).store(name, content_type, segments, parts, sha256, on_stored)

    def await_upload(self, upload_id: str, *, project_id: str | None = None) -> None:
        """
        Wait until a file can be attached that :meth:`upload` has stored with the unified uploads.

        :raises UploadFailed: it will not become available, and has to be uploaded again.
        :raises ServerError: it did not become available in time.
        """
        self._uploads(project_id).await_available(upload_id)

    def _uploads(self, project_id: str | None) -> Uploads:
        from airflow_provider_workflows.hooks.procore_uploads import Uploads

        return Uploads(self.client, self.company_id, self.project_for(project_id))

    # --- inner ---

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
            raise UnexpectedResponse("The answer has no 'data' of the expected form", method=method, path=where)
        if kind is list:
            check_whole(api_response, body, rows)
        return found


def _is_new(seen: set[str | None], row: Mapping[str, Any]) -> bool:
    """Tell whether a row is none of those that were seen, and note it."""
    instance_id = str_id(row.get("id"))
    if instance_id is not None and instance_id in seen:
        return False
    seen.add(instance_id)
    return True


def _present(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _idempotency(token: str | None) -> dict[str, str] | None:
    return {"Idempotency-Token": token} if token else None


def _joined(ids: Sequence[str] | None) -> str | None:
    return None if ids is None else ",".join(ids)
