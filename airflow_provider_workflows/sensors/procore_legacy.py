"""The sensor for Procore's Legacy Workflows (v1) API, which waits for a state or for an activity."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.waiting import TTL_AFTER_DEADLINE
from airflow_provider_workflows.rules.datetimes import zoned_time
from airflow_provider_workflows.rules.parameters import (
    check_optional,
    check_required,
    literals,
    require_exactly_one,
    str_id,
)
from airflow_provider_workflows.sensors.overdue import NotifyingSensor
from airflow_provider_workflows.sensors.procore_base import ProcoreConnectionSensor
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
    from airflow_provider_workflows.rules.escalation import Level, business_days, business_hours
    from airflow_provider_workflows.triggers.base import WaitTrigger
    from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyInstanceWaitTrigger

__all__ = ["Level", "ProcoreLegacyInstanceSensor", "business_days", "business_hours"]
IDLE = "idle"  # key in the task state store


def __getattr__(name: str) -> Any:
    # Loaded by the DAGs that use them only.
    if name in ("Level", "business_days", "business_hours"):
        return getattr(import_module("airflow_provider_workflows.rules.escalation"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ProcoreLegacyInstanceSensor(NotifyingSensor, ProcoreConnectionSensor):
    """
    Wait until a Legacy workflow instance is in a given state, or until an activity can be performed.

    A denial is a result, not a failure: name the state it leads to in ``until``, and branch on ``state``. If that is
    the state in which your own activity was performed, give ``after``: the same state from before the activity then
    does not end the wait. The API's times are whole seconds; a state that was set in the second of the activity is new.

    With ``activity`` the wait also ends when a user can perform that activity. Pass ``state_id`` and ``state_set_at``
    of the result to ``ProcoreLegacyPerformActivityOperator``.

    Your company defines the names of states and activities, and the API does not list them: a misspelled name is not
    detected, and the sensor waits until the deadline. In a state that you have not named, the wait fails if the
    instance was terminated, or has listed no activity for ten minutes; for a shorter time it may be between two states.
    Running instances can look like this, or be gone (404), once Procore has moved the tool to Workflows v2; the error
    names that. The state "Draft" without activities is not taken for one that you named, except by its id.
    ``ProcoreItemSensor`` continues in v2.

    In ``mode="reschedule"`` before Airflow 3.3, where a task cannot store state, only a termination fails the wait.

    Returns ``{instance_id, object_id, object_type, project_id, state, state_id, status, state_set_at,
    activities: [{id, name, role_id, role}], ball_in_court: [names], terminated_at, workflow, matched_by}``, the same
    in every mode. ``matched_by`` is ``name`` or ``id`` if the activity has ended the wait, else None. With
    ``on_overdue`` also ``escalation_level``, the highest level that was reached in any state, or 0; and
    ``escalation_problem``, which is None.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_id: The instance to wait for (templated); or give the object.
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: The object whose instance to wait for (templated).
    :param project_id: Project of the object; overrides the project of the connection (templated).
    :param until: States that end the wait with success: names or statuses in any case, or ids; ``terminated``
        means a terminated instance. Required unless ``activity`` is given.
    :param fail_on: States that fail the task, without a retry.
    :param skip_on: States that skip the task.
    :param after: ``history_id`` or ``performed_at`` of the activity before the wait, or another ISO-8601 time
        with its zone (templated).
    :param activity: Name in any case, or id, of an activity that ends the wait with success when it can be
        performed (templated).
    :param role: Name or id of the role that must be able to perform it; default: any (templated).
    :param on_overdue: What to do about a state that is pending for too long: a list of ``Level``, each carried out once
        for each occurrence of a state. Or for one level an Airflow notifier, or a function of the context, or a list of
        them. Notifiers have ``overdue_step`` in the context: ``{step, step_occurrence_id, since, due, reason, level,
        repeat, added, problem, assignees, instance_id, item_id, tool_type, project_id, item_url}``; ``step`` is the
        state. The wait continues, even if a notifier fails, unless a level has ``then``. Legacy cannot add assignees.
    :param overdue_after: For notifiers without levels: seconds, or a timedelta, that a state may be pending; default:
        until the API's ``becomes_overdue_at``. Without that time, no state is overdue.
    :raises ConfigurationError: both instance and object given, or neither; neither state nor activity given; ``after``
        is neither an id nor a time; a level adds assignees.
    """

    label_parameters = {"object": "object_id", "instance": "instance_id"}
    template_fields: Sequence[str] = (
        "procore_conn_id",
        "company_id",
        "project_id",
        "instance_id",
        "object_type",
        "object_id",
        "after",
        "activity",
        "role",
    )

    def __init__(
        self,
        *,
        until: Collection[str | int] | None = (),
        fail_on: Collection[str | int] | None = (),
        skip_on: Collection[str | int] | None = (),
        instance_id: str | int | None = None,
        object_type: str | None = None,
        object_id: str | int | None = None,
        project_id: str | int | None = None,
        after: str | int | None = None,
        activity: str | int | None = None,
        role: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.until = literals("until", until)
        self.fail_on = literals("fail_on", fail_on)
        self.skip_on = literals("skip_on", skip_on)
        self.instance_id = instance_id
        self.object_type = object_type
        self.object_id = object_id
        self.project_id = project_id
        self.after = after
        self.activity = activity
        self.role = role
        self._idle: dict[str, Any] | None = None

    @cached_property
    def hook(self) -> ProcoreLegacyHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)

    def build_trigger(self) -> ProcoreLegacyInstanceWaitTrigger:
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyInstanceWaitTrigger

        require_exactly_one(instance_id=self.instance_id, object_id=self.object_id)
        if self.object_id is not None:
            check_required(object_type=self.object_type)
        check_optional(self, "project_id", "object_type")
        self._check_activity()
        return ProcoreLegacyInstanceWaitTrigger(
            **self.trigger_arguments(),
            overdue_watch=self.overdue_watch_argument(),
            project_id=str_id(self.project_id),
            instance_id=str_id(self.instance_id),
            object_type=self.object_type,
            object_id=str_id(self.object_id),
            until=self.until,
            fail_on=self.fail_on,
            skip_on=self.skip_on,
            after=self._checked_after(),
            activity=str_id(self.activity),
            role=str_id(self.role),
            idle=self._idle,
        )

    def prepare_poke(self, context: Context) -> None:
        self._idle = self._idle_before(context)

    def go_on(self, context: Context, trigger: WaitTrigger | None, how: str) -> None:
        from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyInstanceWaitTrigger  # likewise

        store = task_state_store(context)
        if isinstance(trigger, ProcoreLegacyInstanceWaitTrigger) and trigger.idle != self._idle:
            self._idle = trigger.idle
            if store is not None:
                store.set(IDLE, self._idle or {}, retention=timedelta(seconds=self.timeout) + TTL_AFTER_DEADLINE)
        super().go_on(context, trigger, how)

    def _idle_before(self, context: Context) -> dict[str, Any] | None:
        """Return since when all pokes have found no activity, including pokes of earlier processes (Airflow 3.3+)."""
        store = task_state_store(context)
        return self._idle if store is None else store.get(IDLE) or None

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        return {
            "instance_id": result["instance_id"],
            "item_id": result["object_id"],
            "tool_type": result["object_type"],
            "project_id": result["project_id"] or str_id(self.project_id),
        }

    def _check_activity(self) -> None:
        if self.activity is None and not self.until:
            raise ConfigurationError("until or activity is missing: give at least one state, or an activity.")
        for name in ("activity", "role"):
            if getattr(self, name) is not None:
                check_required(**{name: getattr(self, name)})
        if self.role is not None:
            check_required(activity=self.activity)

    def _checked_after(self) -> str | None:
        after = str_id(self.after)
        if after is None:
            return None
        check_required(after=after)
        if not after.isdecimal() and zoned_time(after) is None:
            raise ConfigurationError(f"after must be a history id, or an ISO-8601 time with its zone; got {after!r}.")
        return after
