"""The operator that lists the workflow instances of a tool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ApiError,
    ConfigurationError,
    UnexpectedResponse,
)
from airflow_provider_workflows.operators.procore.base import ProcoreOperator, ProcoreWideOperator
from airflow_provider_workflows.operators.procore.histories import (
    Report,
    ToolInProject,
    histories_of,
    tools_in_projects,
)
from airflow_provider_workflows.operators.procore.item import check_tools_and_projects
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import (
    as_list,
    check_optional,
    str_id,
)
from airflow_provider_workflows.rules.payload import is_id

if TYPE_CHECKING:
    from airflow.sdk import Context


ME = "me"


class ProcoreListInstancesOperator(ProcoreWideOperator):
    """
    List workflow instances of several tools and projects, as input of mapped tasks.

    Returns a list of ``{instance_id, item_id, tool_type, project_id, state, step, started_at, ended_at, updated_at}``;
    ``state`` and ``step`` are None unless ``states`` is given, because Procore's list does not have them. With
    ``batch_size`` it returns a list of such lists.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the instances, or a list of tools (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param project_id: Project of the instances, ``company``, or a list; default: where the tool is (templated).
    :param item_id: Only the instances of this item (templated).
    :param assignee: Only instances whose current step waits for this user: login, e-mail address or id, or ``me`` for
        the connection's user (templated).
    :param active: Only active instances, or with False only ended ones.
    :param overdue: Only instances whose next step is overdue, or with False only the others.
    :param include_internal: Whether to include Procore's own instances.
    :param states: Only instances in these states, such as ``blocked``. To find the states, the operator reads the
        histories, 50 items in one call; it logs and leaves out instances whose history cannot be read.
    :param limit: Maximum number of rows; the oldest instances come first, and a later run can return the others.
    :param batch_size: Number of rows in each list. The lists are larger if there would otherwise be more lists than
        ``[core] max_map_length`` allows ``.expand``.
    :raises ConfigurationError: no tool, or an unknown tool or state.
    :raises ApiError: with ``states``, no history could be read.
    """

    returns_mapping = False
    template_fields: Sequence[str] = (
        *ProcoreOperator.template_fields,
        "tool_type",
        "tool_subtype",
        "item_id",
        "assignee",
    )

    def __init__(
        self,
        *,
        tool_type: str | Sequence[str],
        tool_subtype: str | int | None = None,
        project_id: str | int | Sequence[str | int] | None = None,
        item_id: str | int | None = None,
        assignee: str | int | None = None,
        active: bool | None = None,
        overdue: bool | None = None,
        include_internal: bool | None = None,
        states: str | Sequence[str] | None = None,
        limit: int | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_id = item_id
        self.assignee = assignee
        self.active = active
        self.overdue = overdue
        self.include_internal = include_internal
        self.states = states
        self.limit = limit
        self.batch_size = batch_size

    def act(self, context: Context) -> list[Any]:
        self._check_parameters()
        found = {row["instance_id"]: row for row in self._rows()}  # two tools may list the same instance
        rows = sorted(found.values(), key=lambda row: (row["started_at"] or "", row["instance_id"]))
        shown = rows[: self.limit]
        if len(shown) < len(rows):
            self.log.info("Found %d instances; returning the oldest %d.", len(rows), len(shown))
        else:
            self.log.info("Found %d instances.", len(rows))
        return shown if self.batch_size is None else self._batches(shown, self.batch_size)

    def _check_parameters(self) -> None:
        check_tools_and_projects(self.tool_type, self.project_id)
        check_optional(self, "tool_subtype", "item_id", "assignee")
        if unknown := [state for state in self._states() if state not in rules.STATES]:
            raise ConfigurationError(
                f"states: unknown state {', '.join(unknown)}. States: {', '.join(sorted(rules.STATES))}."
            )
        if self.states is not None and not self._states():
            raise ConfigurationError("states is an empty list; leave it out to mean all.")
        for name in ("limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigurationError(f"{name} must be a whole number, 1 or more; got {value!r}.")

    def _states(self) -> list[str]:
        return [] if self.states is None else [str(state) for state in as_list(self.states)]

    def _rows(self) -> Iterator[dict[str, Any]]:
        assignee = self._assignee()
        report = Report(self.hook.me)
        for place in tools_in_projects(self.hook, self.tool_type, self.project_id):
            found = self.hook.list_instances(
                place.tool_type,
                tool_subtype=str_id(self.tool_subtype),
                item_id=str_id(self.item_id),
                assignee_id=assignee,
                active=self.active,
                overdue=self.overdue,
                include_internal=self.include_internal,
                project_id=place.level,
            )
            rows = [self._row(instance, place) for instance in found if self._is_named(instance, place)]
            if not rows:
                self.hook.check_tool(place.tool_type)
            yield from self._in_states(place, rows, report) if self._states() else rows
        report.end()

    def _assignee(self) -> str | None:
        user = str_id(self.assignee)
        if user is None:
            return None
        return self.hook.user_id if user == ME else self.hook.find_user_id(user, parameter="assignee")

    def _is_named(self, instance: Mapping[str, Any], place: ToolInProject) -> bool:
        if is_id(instance.get("id")):
            return True
        item = f"item {instance.get('item_id')} of tool {place.tool_type}"
        self.log.warning("Left out an instance of %s: Procore's list has no id for it.", item)
        return False

    @staticmethod
    def _row(instance: Mapping[str, Any], place: ToolInProject) -> dict[str, Any]:
        return {
            "instance_id": str(instance["id"]),
            "item_id": str_id(instance.get("item_id")),
            "tool_type": instance.get("tool_type") or place.tool_type,
            "project_id": place.level,
            "state": None,
            "step": None,
            **{name: instance.get(name) for name in ("started_at", "ended_at", "updated_at")},
        }

    def _in_states(self, place: ToolInProject, rows: list[dict[str, Any]], report: Report) -> Iterator[dict[str, Any]]:
        report.start()
        left = {row["instance_id"]: row for row in rows}
        bulk_report = Report(self.hook.me)  # if an item cannot be read in bulk, its instances may be readable
        for instance_id, history in histories_of(self.hook, place, rows, bulk_report, self.log.info):
            if instance_id in left:
                yield from self._in_state(left.pop(instance_id), history, report)
        for row in left.values():  # no bulk history could be assigned to these
            try:
                history = self.hook.get_instance_history(row["instance_id"], project_id=place.level)
            except (*REJECTIONS, *READ_FAULTS) as fault:
                self._leave_out(row, fault, report)
            else:
                yield from self._in_state(row, history, report)

    def _in_state(self, row: dict[str, Any], history: Mapping[str, Any], report: Report) -> Iterator[dict[str, Any]]:
        try:
            now = rules.describe_instance(history, instance_id=row["instance_id"], item_id=row["item_id"])
        except UnexpectedResponse as malformed:
            self._leave_out(row, malformed, report)
            return
        report.succeed()
        if now["state"] in self._states():
            yield {**row, "state": now["state"], "step": now["step"]}

    def _leave_out(self, row: Mapping[str, Any], fault: ApiError, report: Report) -> None:
        self.log.warning("Left out instance %s of item %s: %s", row["instance_id"], row["item_id"], fault)
        report.record_rejected(fault, instance_id=row["instance_id"])

    @staticmethod
    def _batches(rows: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
        max_batches = conf.getint("core", "max_map_length", fallback=1024)
        size = max(size, -(-len(rows) // max_batches))
        return [rows[start : start + size] for start in range(0, len(rows), size)]
