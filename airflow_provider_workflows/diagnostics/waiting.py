"""
The list of active instances that ``airflow-workflows waiting`` prints: what a connection's workflows are pending with.

It only reads, and never polls for integration instances of Workflowsoft, because reading may remove them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from airflow_provider_workflows.diagnostics.checks import Fault
from airflow_provider_workflows.diagnostics.diagnosis import find_connection
from airflow_provider_workflows.diagnostics.texts import counted, printable, text_of
from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ConfigurationError,
    NotFound,
    PermissionDenied,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.base import type_problem
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.operators.procore.histories import Report, ToolInProject, histories_of
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_legacy as legacy_rules
from airflow_provider_workflows.rules.open_wait import OpenWait
from airflow_provider_workflows.rules.overdue import PendingStep, due_at
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.rules.payload import documented_form, is_id

COLUMNS = (
    *("product", "workflow", "instance_id", "item_id", "tool_type", "project_id", "item_url"),
    *("step", "assignees", "since", "due", "is_overdue", "last_error"),
)
NOT_LISTED = "Workflowsoft's API does not list active instances, and polling for new ones may remove them."


@dataclass(frozen=True)
class NotRead:
    """
    Name something that the list lacks.

    :param what: What was not read.
    :param reason: Why.
    :param is_failure: Whether it should have been readable.
    """

    what: str
    reason: str
    is_failure: bool = True


@dataclass
class Waiting:
    """
    Read the active instances of a connection.

    :param conn_id: Id of an Airflow connection of type ``procore`` or ``workflowsoft``.
    :param user: Only instances that are pending with this user: login, e-mail address or id.
    :param overdue: Only instances whose step is overdue.
    :param tools: Only these tools; default: all.
    :param projects: Projects to search; default: the connection's.
    """

    conn_id: str
    user: str | None = None
    overdue: bool = False
    tools: Sequence[str] = ()
    projects: Sequence[str] = ()
    conn_type: str | None = None
    waits: list[OpenWait] = field(default_factory=list)
    not_read: list[NotRead] = field(default_factory=list)
    _user_id: str | None = None

    @property
    def has_failed(self) -> bool:
        return any(missing.is_failure for missing in self.not_read)

    def read(self) -> Waiting:
        """Read all instances, those pending longest first; record what could not be read."""
        try:
            connection = find_connection(self.conn_id)
            self.conn_type = connection.conn_type
            if (problem := type_problem(self.conn_id, self.conn_type, "procore", "workflowsoft")) is not None:
                raise Fault(*problem)
        except Fault as fault:
            self._miss(f"connection {self.conn_id}", f"{fault} {fault.fix}")
            return self
        parts = self._read_workflowsoft if self.conn_type == "workflowsoft" else self._read_procore
        self._try(f"connection {self.conn_id}", parts)
        self.waits.sort(key=lambda wait: (wait.since or "~", wait.instance_id or ""))
        return self

    def _try(self, what: str, read: Callable[[], object], harmless: tuple[type[WorkflowsError], ...] = ()) -> None:
        try:
            with documented_form():
                read()
        except WorkflowsError as error:
            self._miss(what, str(error), is_failure=not isinstance(error, harmless))

    def _miss(self, what: str, reason: str, *, is_failure: bool = True) -> None:
        self.not_read.append(NotRead(what, reason, is_failure))

    # --- Procore ---

    def _read_procore(self) -> None:
        hook = ProcoreHook(self.conn_id)
        if self.user is not None:
            self._user_id = hook.find_user_id(self.user, parameter="--user")
        self._try("the tools of the company", lambda: self._read_tools(hook))
        # The list may be restricted to company administrators, and many companies have no Legacy workflows.
        legacy = ProcoreLegacyHook(self.conn_id)
        self._try("Legacy Workflows", lambda: self._read_legacy(legacy), harmless=(NotFound, PermissionDenied))

    def _read_tools(self, hook: ProcoreHook) -> None:
        listed = hook.list_tools()
        for name in self.tools:
            hook.find_tool(name)  # an unknown tool is an error that lists the tools
        for tool in listed:
            tool_type, subtype = tool.get("type"), str_id(tool.get("subtype"))
            if not tool_type or (self.tools and not any(rules.same_tool(tool_type, name) for name in self.tools)):
                continue
            for level in self._levels(hook, tool):
                place = ToolInProject(str(tool_type), level)
                self._try(_name(place), partial(self._read_tool, hook, place, subtype))

    def _levels(self, hook: ProcoreHook, tool: dict[str, Any]) -> Sequence[str]:
        if tool.get("provider") == "Company":
            return [rules.COMPANY_LEVEL]
        own = [] if hook.project_id is None else [hook.project_id]
        levels = list(dict.fromkeys(self.projects)) or own
        if not levels:
            reason = "it works in projects, and the connection has no project_id; give --project."
            self._miss(f"tool {tool.get('type')}", reason, is_failure=bool(self.tools))
        return levels

    def _read_tool(self, hook: ProcoreHook, place: ToolInProject, subtype: str | None) -> None:
        listed = hook.list_instances(
            place.tool_type,
            tool_subtype=subtype,
            assignee_id=self._user_id,
            active=True,
            overdue=True if self.overdue else None,
            project_id=place.level,
        )
        rows = [
            {
                "instance_id": str(row["id"]),
                "item_id": str_id(row.get("item_id")),
                **{name: row.get(name) for name in ("started_at", "ended_at", "updated_at")},
            }
            for row in listed
            if is_id(row.get("id"))
        ]
        left = {row["instance_id"]: row for row in rows}
        for instance_id, history in histories_of(hook, place, rows, Report(hook.me), _ignore):
            if (row := left.pop(instance_id, None)) is not None:
                self._add_instance(hook, place, row, history)
        for row in left.values():
            try:
                history = hook.get_instance_history(str(row["instance_id"]), project_id=place.level)
            except (*REJECTIONS, *READ_FAULTS) as error:
                self._add(hook, place.tool_type, place.level, row, None, error=error)
            else:
                self._add_instance(hook, place, row, history)

    def _add_instance(self, hook: ProcoreHook, place: ToolInProject, row: dict[str, Any], history: Any) -> None:
        try:
            with documented_form():
                timeline = rules.timeline_of(history)
                step = rules.pending_step_of(timeline)
        except WorkflowsError as error:  # malformed; the instance is active all the same
            self._add(hook, place.tool_type, place.level, row, None, error=error)
            return
        if not rules.has_ended({"ended_at": timeline.ended_at, "state": timeline.state}):  # since it was listed
            self._add(hook, place.tool_type, place.level, row, step, workflow=timeline.history.get("name"))

    def _read_legacy(self, hook: ProcoreLegacyHook) -> None:
        for row in hook.list_instances():
            instance = legacy_rules.describe_instance(row)
            if instance["terminated_at"]:
                continue
            if self.projects and instance["project_id"] not in (None, *self.projects):
                continue
            if self.tools and not any(legacy_rules.of_object([row], tool) for tool in self.tools):
                continue
            ids = {"instance_id": instance["instance_id"], "item_id": instance["object_id"]}
            step = legacy_rules.pending_step_of(row)
            tool_type, project_id = instance["object_type"], instance["project_id"]
            self._add(hook, tool_type, project_id, ids, step, workflow=instance["workflow"])

    def _add(
        self,
        hook: ProcoreHook | ProcoreLegacyHook,
        tool_type: str | None,
        project_id: str | None,
        row: dict[str, Any],
        step: PendingStep | None,
        *,
        workflow: Any = None,
        error: WorkflowsError | None = None,
    ) -> None:
        """Add an instance, unless it does not match the filters; what is unknown matches if Procore has filtered."""
        late = due_at(step)
        is_overdue = late is not None and late <= hook.client.server_time().timestamp()
        filtered = hook.product == "procore" and (step is None or late is None)
        if self.overdue and not is_overdue and not filtered:
            return
        if self.user is not None and not self._is_pending_with_user(step, hook.product == "procore"):
            return
        ids = {"instance_id": row["instance_id"], "item_id": row["item_id"]}
        ids |= {"tool_type": tool_type, "project_id": project_id}
        wait = OpenWait(
            hook.product,
            **ids,
            workflow=None if workflow is None else str(workflow),
            item_url=hook.item_url(**ids) or None,
            last_error=None if error is None else text_of(error),
        )
        if step is not None:
            texts = {name: getattr(step, name) for name in ("step", "since", "due")}
            known: dict[str, Any] = {name: str(value) for name, value in texts.items() if value is not None}
            wait = replace(wait, **known, assignees=step.assignees, is_overdue=is_overdue)
        self.waits.append(wait)

    def _is_pending_with_user(self, step: PendingStep | None, is_filtered: bool) -> bool:
        if step is None or not (step.assignees or step.assignee_ids):
            return is_filtered
        names = {name.casefold() for name in step.assignees}
        return self._user_id in step.assignee_ids or str(self.user).strip().casefold() in names

    # --- Workflowsoft ---

    def _read_workflowsoft(self) -> None:
        if self.tools or self.projects:
            raise ConfigurationError("--tool and --project are for connections of type procore.")
        hook = WorkflowsoftHook(self.conn_id)
        for diagram in hook.list_process_diagrams():
            for step in hook.list_integration_steps(diagram["id"]):
                what = f"integration step {step['title']!r} ({step['id']}) of process diagram {diagram['title']!r}"
                self._miss(what, NOT_LISTED, is_failure=False)

    # --- the report ---

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON primitives."""
        return {
            "connection": self.conn_id,
            "type": self.conn_type,
            "ok": not self.has_failed,
            "waiting": [{name: asdict(wait)[name] for name in COLUMNS} for wait in self.waits],
            "not_read": [asdict(missing) for missing in self.not_read],
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report as text."""
        for wait in self.waits:
            yield printable(_title(wait))
            yield printable(f"  {_pending(wait)}")
        if self.conn_type == "procore":
            late = sum(wait.is_overdue for wait in self.waits)
            more = " Not everything was read." if self.not_read else ""
            yield f"{counted(len(self.waits), 'active instance')}, {late} overdue.{more}"
        for missing in self.not_read:
            yield printable(f"Not read{' (FAILED)' if missing.is_failure else ''}: {missing.what}: {missing.reason}")


def _title(wait: OpenWait) -> str:
    legacy = "Legacy " if wait.product == "procore_legacy" else ""
    return f"{legacy}{wait.tool_type} {wait.item_id}, instance {wait.instance_id}, project {wait.project_id}"


def _pending(wait: OpenWait) -> str:
    if wait.step is None:
        return f"step unknown{': ' + wait.last_error if wait.last_error else ''}"
    step = PendingStep("", wait.step, wait.since, wait.due, wait.assignees, wait.is_overdue)
    return ", ".join(part for part in (wait.step, step.describe()) if part)


def _name(place: ToolInProject) -> str:
    return f"tool {place.tool_type} of {'the company' if place.project_id is None else f'project {place.project_id}'}"


def _ignore(*message: Any) -> None:
    """Ignore a line about the routes of the API; the report has what could not be read."""
