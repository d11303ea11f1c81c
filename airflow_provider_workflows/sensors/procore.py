"""
Sensors for Procore's Workflows v2 API: instances, requests for a response, and asynchronous operations.

:class:`.ProcoreItemSensor`, which also waits in Legacy, is imported from here, too. It is loaded when it is first used,
so that the other DAG files do not load the code for Legacy.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.dry_run import DryRunParameter
from airflow_provider_workflows.operators.procore.item import ItemParameters, check_tools_and_projects
from airflow_provider_workflows.rules.datetimes import parse_time, zoned_time
from airflow_provider_workflows.rules.parameters import (
    as_list,
    check_optional,
    check_rendered,
    check_required,
    literals,
    str_id,
)
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.procore import ENDED_STATES, STATES, current_step
from airflow_provider_workflows.rules.procore_operations import ENDED_OPERATIONS, operation_items
from airflow_provider_workflows.sensors.overdue import NotifyingSensor
from airflow_provider_workflows.sensors.procore_base import ProcoreSensor, known_states
from airflow_provider_workflows.version_compat import with_own_keys

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.rules.escalation import Level, business_days, business_hours
    from airflow_provider_workflows.rules.overdue import OverdueStep
    from airflow_provider_workflows.sensors.procore_item import ProcoreItemSensor
    from airflow_provider_workflows.triggers.procore import (
        ProcoreAsyncOperationWaitTrigger,
        ProcoreInstanceWaitTrigger,
        ProcoreResponseRequestedWaitTrigger,
    )

__all__ = [
    "Level",
    "ProcoreAsyncOperationSensor",
    "ProcoreInstanceSensor",
    "ProcoreItemSensor",
    "ProcoreResponseRequestedSensor",
    "business_days",
    "business_hours",
]


# What only some DAGs use is loaded when it is first used.
_ELSEWHERE = {
    "ProcoreItemSensor": "sensors.procore_item",
    **dict.fromkeys(("Level", "business_days", "business_hours"), "rules.escalation"),
}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"airflow_provider_workflows.{_ELSEWHERE[name]}"), name)
    return found


class ProcoreInstanceSensor(ItemParameters, DryRunParameter, NotifyingSensor, ProcoreSensor):
    """
    Wait until a workflow instance is in a given state, or has reached or completed a given step.

    A rejection is a result, not a failure: the sensor succeeds with ``decision`` and ``item_status``, and the DAG
    branches on them. ``fail_on`` and ``skip_on`` name states, which are the same for an approval and a rejection. A
    wait by item follows restarts to the new instance; a wait by ``instance_id`` ends with that instance. A workflow can
    reach a step several times: without ``after`` its first occurrence counts, even if it is long ago.

    Returns ``{instance_id, item_id, state, step, item_status, decision, last_response: {option, type, comment, by, at},
    started_at, ended_at, blocked_reason, ambiguous, project_id, occurrence}``, the same in every mode.
    ``project_id`` may be ``company``. ``occurrence`` is the step occurrence that ended the wait, ``{step,
    step_occurrence_id, started_at, ended_at, decision, response}``, or None. With ``on_overdue`` also
    ``escalation_level``, the highest level that was reached at any step, or 0; and ``escalation_problem``, why
    assignees could not be added, or None.

    ``decision`` is the decision at the step that ended last, ``{option, type, by, at, source, candidates, problem}``,
    or None; ``source`` is ``overall_response``, ``override`` or ``responses``. If the history does not show the
    decision, or it contradicts the item's status, ``problem`` says so, and ``candidates`` are the possible options.
    ``last_response`` is the latest response, which may not be the decisive one. ``ambiguous`` names the keys that are
    None because the history does not show the order of its events: ``step``, ``item_status``, ``last_response``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance to wait for (templated); or give the item.
    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose newest instance to wait for (templated).
    :param project_id: Project to search, or ``company``; default: the level of the tool (templated).
    :param until: States that end the wait with success; default: complete, terminated, unless a step is given.
    :param fail_on: States that fail the task, without a retry.
    :param skip_on: States that skip the task.
    :param step_reached: Name or uuid of a step, or several: the wait ends when one of them has started (templated).
    :param step_decided: Name or uuid of a step, or several: the wait ends when one of them has ended with a decision,
        by a response or an override (templated).
    :param after: ISO-8601 time with its zone: only step occurrences that started at that second or later count; or a
        step occurrence: only later ones of the same instance count (templated).
    :param on_overdue: What to do about a step that is pending for too long: a list of ``Level``, each carried out once
        for each step occurrence. Or for one level an Airflow notifier, or a function of the context, or a list of them.
        Notifiers and templates of a level have ``overdue_step`` in the context: ``{step, step_occurrence_id, since,
        due, reason, level, repeat, added, problem, assignees, instance_id, item_id, tool_type, project_id, item_url}``.
        The wait continues, even if a level fails, unless it has ``then``.
    :param overdue_after: For notifiers without levels: seconds, or a timedelta, that a step may be pending; default:
        until Procore's due date of the step. Without a due date in the history, no step is overdue.
    :param dry_run: Whether a level adds no assignees, and reports what it would send; also if the connection's extra
        ``dry_run`` is true (templated).
    :raises ConfigurationError: both instance and item given, or neither; an unknown state or tool.
    """

    can_add_assignees = True
    template_fields: Sequence[str] = (
        "procore_conn_id",
        "company_id",
        "project_id",
        *ItemParameters.ITEM_FIELDS,
        "step_reached",
        "step_decided",
        "after",
        "dry_run",
    )

    def __init__(
        self,
        *,
        project_id: str | int | None = None,
        until: Collection[str] | None = None,
        fail_on: Collection[str] | None = (),
        skip_on: Collection[str] | None = (),
        step_reached: str | Collection[str] | None = (),
        step_decided: str | Collection[str] | None = (),
        after: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.until = None if until is None else literals("until", until)
        self.fail_on = literals("fail_on", fail_on)
        self.skip_on = literals("skip_on", skip_on)
        self.step_reached = step_reached
        self.step_decided = step_decided
        self.after = after

    def build_trigger(self) -> ProcoreInstanceWaitTrigger:
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger

        self.check_instance()
        self.start_dry_run()
        return ProcoreInstanceWaitTrigger(
            **self.trigger_arguments(),
            overdue_watch=self.overdue_watch_argument(),
            project_id=str_id(self.project_id),
            instance_id=str_id(self.instance_id),
            tool_type=self.tool_type,
            tool_subtype=str_id(self.tool_subtype),
            item_id=str_id(self.item_id),
            until=self._until(),
            fail_on=known_states("fail_on", self.fail_on, STATES),
            skip_on=known_states("skip_on", self.skip_on, STATES),
            step_reached=self._steps("step_reached"),
            step_decided=self._steps("step_decided"),
            after=self._checked_after(),
        )

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        return {
            "instance_id": result["instance_id"],
            "item_id": result["item_id"],
            "tool_type": self.tool_type or result.get("tool_type"),
            "project_id": result["project_id"],
        }

    def add_assignees(
        self, context: Context, level: Level, overdue_step: OverdueStep, ids: Mapping[str, Any]
    ) -> list[str] | None:
        from airflow_provider_workflows.operators.procore.instances import ProcoreAddAssigneesOperator

        step_occurrence_id = self._shown_occurrence_id(overdue_step, ids)
        if step_occurrence_id is None:
            return None
        templates = {"assignees": level.add_assignees, "reason": level.reason, "comment": level.comment}
        adding = ProcoreAddAssigneesOperator(
            task_id="add_assignees",
            procore_conn_id=self.procore_conn_id,
            company_id=self.company_id,
            project_id=ids["project_id"],
            instance_id=ids["instance_id"],
            step_occurrence_id=step_occurrence_id,
            required=level.required,
            on_step_moved="succeed",
            dry_run=self.dry_run,
            **{name: self.render_template(template, context) for name, template in templates.items()},
        )
        check_rendered(adding)
        adding.start_dry_run()
        with documented_form():
            result = adding.act(self._context_of_level(context, f"level_{overdue_step.level}_{step_occurrence_id}_"))
        return None if result is None else list(result["added"])

    def _context_of_level(self, context: Context, prefix: str) -> Context:
        if self.hook.dry_run:  # it stores nothing that would bind a later run
            return cast("Context", {**context, "task_state_store": None})
        return with_own_keys(context, prefix)

    def _shown_occurrence_id(self, overdue_step: OverdueStep, ids: Mapping[str, Any]) -> str | None:
        """Return the id of the step occurrence, which a history may lack; None if the instance has moved on."""
        if overdue_step.step_occurrence_id != f"{overdue_step.step}@{overdue_step.since}":
            return overdue_step.step_occurrence_id
        step = current_step(self.hook.get_instance(ids["instance_id"], project_id=ids["project_id"]))
        is_same = step is not None and (step.get("name"), step.get("started_at")) == (
            overdue_step.step,
            overdue_step.since,
        )
        return str(step["id"]) if step is not None and is_same else None

    def _until(self) -> list[str]:
        steps = self._steps("step_reached") + self._steps("step_decided")
        if self.until is None:
            return [] if steps else sorted(ENDED_STATES)
        states = known_states("until", self.until, STATES)
        if not states and not steps:
            raise ConfigurationError(f"until must name at least one state of {', '.join(sorted(STATES))}.")
        return states

    def _steps(self, parameter: str) -> list[str]:
        value = getattr(self, parameter)
        steps = [] if value is None else as_list(value)
        for step in steps:
            check_required(**{parameter: step})
        return [str(step).strip() for step in steps]

    def _checked_after(self) -> str | None:
        if self.after is None:
            return None
        check_required(after=self.after)
        after = str(str_id(self.after))
        is_like_a_time = re.match(r"\d{4}-W?\d\d|P[\dYMWDTHS]+$", after) or parse_time(after) is not None
        is_id = after.isdecimal() or (re.fullmatch(r"[\w-]+", after) and not is_like_a_time)
        if not is_id and zoned_time(after) is None:
            raise ConfigurationError(
                f"after must be a step occurrence, or an ISO-8601 time with its zone; got {after!r}."
            )
        return after


class ProcoreResponseRequestedSensor(ProcoreSensor):
    """
    Wait until at least one instance requests a response of the connection's user, and return all such requests.

    Returns a list of ``{instance_id, item_id, tool_type, project_id, step, step_occurrence_id,
    step_started_at, overdue_at, options: [{id, name, type}]}``. Pass ``step_occurrence_id`` to
    ``ProcoreRespondOperator``, which binds the response to this step occurrence.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool to search, or a list of them (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param project_id: Project to search, ``company``, or a list of them; default: the level of the tool (templated).
    :param user: Login, e-mail address or id of the user whose response is requested; default: the connection's user
        (templated).
    """

    returns_mapping = False
    label_parameters = {"project": "project_id", "tool": "tool_type"}
    template_fields: Sequence[str] = (
        "procore_conn_id",
        "company_id",
        "project_id",
        "tool_type",
        "tool_subtype",
        "user",
    )

    def __init__(
        self,
        *,
        tool_type: str | Sequence[str],
        tool_subtype: str | int | None = None,
        project_id: str | int | Sequence[str | int] | None = None,
        user: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.project_id = project_id
        self.user = user
        self._last_trigger: ProcoreResponseRequestedWaitTrigger | None = None  # in poke mode

    def build_trigger(self) -> ProcoreResponseRequestedWaitTrigger:
        from airflow_provider_workflows.triggers.procore import ProcoreResponseRequestedWaitTrigger  # likewise

        check_tools_and_projects(self.tool_type, self.project_id)
        check_optional(self, "tool_subtype", "user")
        trigger = ProcoreResponseRequestedWaitTrigger(
            **self.trigger_arguments(),
            tool_types=[str(tool) for tool in as_list(self.tool_type)],
            tool_subtype=str_id(self.tool_subtype),
            project_ids=[str_id(project) for project in as_list(self.project_id)],
            user=str_id(self.user),
        )
        if self._last_trigger is not None:
            trigger.continue_from(self._last_trigger)
        self._last_trigger = trigger
        return trigger

    def item_ids(self, result: list[Mapping[str, Any]]) -> dict[str, str | None]:
        first = result[0]  # the link can show only one
        return {name: first[name] for name in ("instance_id", "item_id", "tool_type", "project_id")}


class ProcoreAsyncOperationSensor(ProcoreSensor):
    """
    Wait until an asynchronous operation of Procore has ended, such as a bulk start.

    Procore may show an operation only some time after it was created. Therefore a 404 fails the sensor only after three
    or more consecutive polls over ten minutes, ``[workflows] rejection_patience``; in reschedule mode at the deadline.

    Returns ``{operation_id, operation_type, status, started_at, completed_at, error, completed, failed,
    completed_items: [{item_id, instance_id}], failed_items: [{item_id, step, message}]}``, the same in every mode;
    ``completed`` and ``failed`` are numbers of items.

    Reference: https://developers.procore.com/reference/rest/async-operations

    :param operation_id: The operation (templated).
    :param until: Final states that are a success; default: done, partial_done. Any other final state fails the task,
        without a retry.
    :param skip_on: Final states that skip the task.
    :raises ConfigurationError: no operation given; an unknown state.
    """

    label_parameters = {"operation": "operation_id"}
    template_fields: Sequence[str] = ("procore_conn_id", "company_id", "operation_id")

    def __init__(
        self,
        *,
        operation_id: str | int,
        until: Collection[str] | None = None,
        skip_on: Collection[str] | None = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.operation_id = operation_id
        self.until = literals("until", ("done", "partial_done") if until is None else until)
        self.skip_on = literals("skip_on", skip_on)

    def build_trigger(self) -> ProcoreAsyncOperationWaitTrigger:
        from airflow_provider_workflows.triggers.procore import ProcoreAsyncOperationWaitTrigger  # likewise

        check_required(operation_id=self.operation_id)
        until = known_states("until", self.until, ENDED_OPERATIONS)
        if not until:
            raise ConfigurationError(f"until must name at least one state of {', '.join(sorted(ENDED_OPERATIONS))}.")
        return ProcoreAsyncOperationWaitTrigger(
            **self.trigger_arguments(),
            operation_ids=[str(str_id(self.operation_id))],
            until=until,
            skip_on=known_states("skip_on", self.skip_on, ENDED_OPERATIONS),
        )

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        (operation,) = result["operations"]
        completed, failed = operation_items(self.hook.get_async_operation(operation["operation_id"]))
        return {**operation, "completed_items": completed, "failed_items": failed}
