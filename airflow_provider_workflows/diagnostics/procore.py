"""The checks of a connection to Procore: company, tools, project, permissions, presets, rate limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from airflow.providers.common.compat.sdk import Connection

from airflow_provider_workflows.diagnostics.checks import MAX_CHECKED, Caution, ConnectionChecks, Fault, Step
from airflow_provider_workflows.diagnostics.texts import counted, first_of, named, text_of
from airflow_provider_workflows.exceptions import (
    NotFound,
    PermissionDenied,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook, company_fix, project_fix
from airflow_provider_workflows.hooks.procore_legacy import INSTANCES as LEGACY_INSTANCES
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL
from airflow_provider_workflows.rules.procore_presets import members_of


class ProcoreChecks(ConnectionChecks):
    """Check a connection to Procore."""

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
            Step("tools", "company", self.tools, "Have a company administrator give the user access to workflows."),
            Step("project", "tools", self.project, project),
            Step("instances", "project", self.instances),
            Step("presets", "project", self.presets),
            Step("assignee", "instances", self.assignee),
            Step("legacy", "company", self.legacy),
            Step("rate limit", "company", self.rate_limit),
            Step("clock", "company", self.clock),
        )

    def describe_fields(self) -> str:
        hook = self.hook
        hook.requests_per_hour  # noqa: B018  reading it checks it
        kind = "access token" if hook.extras.text("access_token") else "client id and secret"
        environment = hook.extras.fields.get("environment") or "production"
        project = f"project {hook.project_id}" if hook.project_id else "no project"
        return f"{kind}, environment {environment}, company {hook.company_id}, {project}"

    def token(self) -> str:
        token = super().token()
        if self.hook.extras.text("access_token"):
            raise Caution(
                f"{token}; it comes from the extra 'access_token' and cannot be renewed.",
                "Set client id and secret instead of 'access_token': Procore's tokens expire after 90 minutes.",
            )
        return token

    def company(self) -> str:
        return self.hook.check()

    def tools(self) -> str:
        self._tools = [tool for tool in self.hook.list_tools() if tool.get("type")]
        if not self._tools:
            raise Fault(
                "No tool of this company has workflows.",
                "Have a company administrator enable Workflows for a tool; Legacy Workflows does not need it.",
            )
        return f"{len(self._tools)} with workflows: {named(tool['type'] for tool in self._tools)}"

    def project(self) -> str:
        tool = next((tool for tool in self._tools if tool.get("provider") != "Company"), None)
        if tool is None:
            return "not needed: all tools belong to the company"
        if self.hook.project_id is None:
            raise Caution(
                f"The connection has no project_id, and {tool['type']} works in projects.",
                "Set extra 'project_id', or give project_id to operators and sensors. Only company tools are checked.",
            )
        next(self._presets_of(tool), None)
        return f"{self.hook.project_id} exists"

    def instances(self) -> str:
        user_id = self.hook.user_id

        def count(tool: dict[str, Any]) -> None:
            instances = self.hook.list_instances(
                tool["type"],
                tool_subtype=_subtype(tool),
                assignee_id=user_id,
                active=True,
                project_id=self._level(tool),
            )
            self._waiting += len(list(islice(instances, 100)))  # one page

        readable = self._each_tool(count, "instances")
        return f"readable in {readable}"

    def presets(self) -> str:
        def record(tool: dict[str, Any]) -> None:
            level = self._level(tool)
            self._presets += [(str(preset["id"]), level) for preset in islice(self._presets_of(tool), 100)]

        with documented_form():
            readable = self._each_tool(record, "presets")
        return f"readable in {readable}; {len(self._presets)} found"

    def assignee(self) -> str:
        if self._waiting:
            return f"active instances that wait for this user: {self._waiting}"
        checked = self._presets[:MAX_CHECKED]
        for preset_id, level in checked:
            with documented_form():
                if self.hook.user_id in _assignee_ids(self.hook.get_preset(preset_id, project_id=level)):
                    return f"no instance waits for this user now; preset {preset_id} has it as an assignee"
        number = counted(len(checked), "checked preset")
        raise Caution(
            f"No active instance waits for this user, and none of {number} has it as an assignee.",
            "If Airflow is to respond to steps, make the user an assignee of these steps in their template or preset. "
            "To start workflows or to wait for them it does not need to be an assignee.",
        )

    def legacy(self) -> str:
        query = {"company_id": self.hook.company_id}
        try:
            first = next(self.hook.client.pages(LEGACY_INSTANCES, params=query, per_page=1, style="v1"), None)
        except (NotFound, PermissionDenied) as rejection:
            raise Caution(
                f"The instances of Legacy Workflows (v1) may not be listed: {rejection.status_code}.",
                "Ignore this unless you use the Legacy operators. The list may need the permission of a company "
                "administrator; without it the operators read each instance separately.",
            ) from None
        readable = "the instances of Legacy Workflows (v1) may be listed"
        if first is None:
            return f"{readable}; none is running"
        return f"{readable}; before you switch to v2, run airflow-workflows legacy-readiness {self.hook.conn_id}"

    def rate_limit(self) -> str:
        left = self.limit()
        if left is not None:
            return left
        own = self.hook.requests_per_hour
        if own is None:
            raise Caution(
                "The server does not state its rate limit.",
                "Set extra 'requests_per_hour' to the limit in your contract with Procore, and polls stay below it.",
            )
        return f"not stated by the server; polls stay below {own} per hour (requests_per_hour)"

    def _level(self, tool: dict[str, Any]) -> str:
        return COMPANY_LEVEL if tool.get("provider") == "Company" else self.hook.project_id or COMPANY_LEVEL

    def _presets_of(self, tool: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return self.hook.list_presets(tool["type"], tool_subtype=_subtype(tool), project_id=self._level(tool))

    def _each_tool(self, read: Callable[[dict[str, Any]], None], what: str) -> str:
        """Read something of the first tools; raise an error if the user may not read it for all of them."""
        here = [t for t in self._tools if self.hook.project_id is not None or t.get("provider") == "Company"]
        checked = here[:MAX_CHECKED]
        rejected: dict[str, PermissionDenied | NotFound] = {}
        for tool in checked:
            try:
                read(tool)
            except (NotFound, PermissionDenied) as error:
                rejected[str(tool["type"])] = error
        if rejected:
            kind = Caution if len(rejected) < len(checked) else Fault
            messages = "; ".join(f"{tool}: {text_of(error)}" for tool, error in rejected.items())
            raise kind(
                f"The user may not read the {what} of {named(rejected)}. {messages}",
                "Enable Workflows for the tool, and give the user at least read access to it in this project.",
            )
        return first_of(checked, here, "tool")


def _subtype(tool: Mapping[str, Any]) -> str | None:
    return None if tool.get("subtype") is None else str(tool["subtype"])


def _assignee_ids(preset: dict[str, Any]) -> set[str]:
    """Return the ids of all assignees of a preset."""
    individuals = [login for step in preset.get("individual_assignees") or [] for login in step.get("logins") or []]
    members = {user_id for ids in members_of(preset).values() for user_id in ids}
    return {str(login["id"]) for login in individuals} | members
