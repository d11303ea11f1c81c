"""Sensor for Procore's Legacy Workflows (v1) API."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.waiting import TTL_AFTER_DEADLINE
from airflow_provider_workflows.rules.datetimes import has_zone, parse_time
from airflow_provider_workflows.rules.parameters import as_list, check_required, require_exactly_one, str_id
from airflow_provider_workflows.sensors.overdue import NotifyingSensor
from airflow_provider_workflows.sensors.procore import ProcoreConnectionSensor
from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyInstanceWaitTrigger
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
    from airflow_provider_workflows.triggers.base import WaitTrigger

IDLE = "idle"  # key in the task state store


class ProcoreLegacyInstanceSensor(NotifyingSensor, ProcoreConnectionSensor):
    """
    Waits until a legacy workflow instance is in a state you name, or until an activity can be performed.

    A denial is an answer, not a failure: name the state it leads to in ``until`` and branch on ``state``. Where
    that is the state your own activity started from, give ``after``: a state from before that activity is
    then no answer. The API's times are whole seconds; a state entered in the second of the activity is new.

    With ``activity`` the wait ends, too, when that activity is open to somebody; whichever comes first. Hand
    ``state_id`` and ``state_set_at`` of the result to ``ProcoreLegacyPerformActivityOperator``.

    States and activities are your company's own words, and the API has no list of them: a misspelt name is not
    noticed, and waits until the deadline. The wait fails by itself when the instance was terminated, or has listed no
    activity for ten minutes, in a state that you named nowhere: without an activity it can also be between two states.
    In ``mode="reschedule"`` before Airflow 3.3, where a task remembers nothing, only the termination fails it.

    Returns ``{instance_id, object_id, object_type, project_id, state, state_id, status, state_set_at,
    activities: [{id, name, role_id, role}], ball_in_court: [names], terminated_at, workflow}``, the same in
    every mode.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_id: The instance to wait for (templated); or give the object.
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: The object whose instance to wait for (templated).
    :param project_id: Project of the object; beats the connection's (templated).
    :param until: States that end the wait with success: names or statuses in any case, or ids; ``terminated``
        stands for a terminated instance. Needed unless ``activity`` is given.
    :param fail_on: States that fail the task, without a retry.
    :param skip_on: States that skip it.
    :param after: ``history_id`` or ``performed_at`` of the activity before the wait, or another ISO-8601 time
        with its zone (templated).
    :param activity: Name in any case, or id, of an activity that ends the wait with success once it can be
        performed (templated).
    :param role: Name or id of the role that it must be open to; default: any (templated).
    :param on_overdue: An Airflow notifier, or a function of the context, or a list of them: called once for each visit
        of a state that becomes overdue, or is pending for longer than ``overdue_after``, with ``overdue_step`` in the
        context: ``{step, step_occurrence_id, since, due, reason, assignees, instance_id, item_id, tool_type,
        project_id, item_url}``; ``step`` is the state. The wait goes on, also when a notifier fails.
    :param overdue_after: Seconds, or a timedelta, that a state may be held; default: until the API's
        ``becomes_overdue_at``. Where there is none, nothing is overdue.
    :raises ConfigurationError: both instance and object given, or neither; neither state nor activity; not an
        id nor a time.
    """

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
        until: Collection[str] = (),
        fail_on: Collection[str] = (),
        skip_on: Collection[str] = (),
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
        self.until = until
        self.fail_on = fail_on
        self.skip_on = skip_on
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
        require_exactly_one(instance_id=self.instance_id, object_id=self.object_id)
        if self.object_id is not None:
            check_required(object_type=self.object_type)
        self._check_activity()
        return ProcoreLegacyInstanceWaitTrigger(
            **self.trigger_arguments(),
            overdue_watch=self.overdue_watch_argument(),
            project_id=str_id(self.project_id),
            instance_id=str_id(self.instance_id),
            object_type=self.object_type,
            object_id=str_id(self.object_id),
            until=self._states("until"),
            fail_on=self._states("fail_on"),
            skip_on=self._states("skip_on"),
            after=self._checked_after(),
            activity=str_id(self.activity),
            role=str_id(self.role),
            idle=self._idle,
        )

    def prepare_poke(self, context: Context) -> None:
        self._idle = self._idle_before(context)

    def go_on(self, context: Context, trigger: WaitTrigger | None, how: str) -> None:
        store = task_state_store(context)
        if isinstance(trigger, ProcoreLegacyInstanceWaitTrigger) and trigger.idle != self._idle:
            self._idle = trigger.idle
            if store is not None:
                store.set(IDLE, self._idle or {}, retention=timedelta(seconds=self.timeout) + TTL_AFTER_DEADLINE)
        super().go_on(context, trigger, how)

    def _idle_before(self, context: Context) -> dict[str, Any] | None:
        """Return since when all pokes have found no activity, also those of an earlier process (Airflow 3.3+)."""
        store = task_state_store(context)
        return self._idle if store is None else store.get(IDLE) or None

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        return {
            "instance_id": result["instance_id"],
            "item_id": result["object_id"],
            "tool_type": result["object_type"],
            "project_id": result["project_id"] or str_id(self.project_id),
        }

    def _states(self, parameter: str) -> list[str]:
        states = [str(state).strip() for state in as_list(getattr(self, parameter))]
        if not all(states):
            raise ConfigurationError(f"{parameter} must hold names, statuses or ids of states, none of them empty.")
        return states

    def _check_activity(self) -> None:
        if self.activity is None and not as_list(self.until):
            raise ConfigurationError("until must hold a state, or activity must be given.")
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
        if not after.isdecimal() and (parse_time(after) is None or not has_zone(after)):
            raise ConfigurationError(f"after must be a history id, or a time with its zone; got {after!r}.")
        return after
