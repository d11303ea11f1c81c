"""The sensor for the approval of an item in either of Procore's tools: Legacy, or Workflows v2 after the switch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.waiting import TTL_AFTER_DEADLINE
from airflow_provider_workflows.rules.parameters import (
    as_list,
    check_optional,
    check_required,
    check_seconds,
    literals,
    seconds,
    str_id,
)
from airflow_provider_workflows.rules.procore import ENDED_STATES, STATES
from airflow_provider_workflows.sensors.overdue import NotifyingSensor
from airflow_provider_workflows.sensors.procore_base import ProcoreSensor, known_states
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
    from airflow_provider_workflows.rules.escalation import Notifier
    from airflow_provider_workflows.triggers.base import WaitTrigger
    from airflow_provider_workflows.triggers.procore_item import ProcoreItemWaitTrigger

SEEN = "seen_item"  # key in the task state store
DEFAULT_STUCK_AFTER = timedelta(days=3)


class ProcoreItemSensor(NotifyingSensor, ProcoreSensor):
    """
    Wait for the approval of an item, whichever of Procore's tools runs it: Legacy, or Workflows v2 after the switch.

    Procore moves companies from Legacy to v2, tool by tool. Running Legacy instances do not move: the item is a draft
    again, and its workflow has to be started again in v2. The sensor polls both tools until v2 has an instance of the
    item that is active, or that ended later than the Legacy instance moved last; from then on that instance decides.

    In Legacy the wait ends in a state of ``legacy_until``; without it, in any final state: one that lists no activity,
    in which the history shows no activity, and to which one has led. How a running instance looks after the switch is
    not documented. So an instance that is gone (404), was terminated, or lists no activity in any other state, is no
    decision, but left behind. If no v2 instance follows, and no other Legacy instance, for ``stuck_after``, the item is
    stuck, and ``on_stuck`` says what the task does. A Legacy instance that looks as before is a wait like any other:
    ``on_overdue`` notifies people.

    A 404 counts after three or more consecutive polls over ten minutes, ``[workflows] rejection_patience``. In
    ``mode="reschedule"`` before Airflow 3.3, where a task cannot store state, only a terminated instance is noticed.

    Returns ``{engine, tool_type, instance_id, item_id, project_id, state, step, item_status, decision: {option, type,
    by, at, source, candidates, problem}, started_at, ended_at, ambiguous, legacy}``, the same in every mode and for
    both tools; with ``on_overdue`` also ``escalation_level`` and ``escalation_problem``. ``engine`` is the tool that
    decided: ``procore`` or ``procore_legacy``. What its record does not show is None, and ``decision["problem"]`` says
    why.

    - In v2 the values are those of ``ProcoreInstanceSensor``.
    - In Legacy, ``state`` is ``complete``, or ``terminated`` if you named that; ``item_status`` is the status of the
      item; ``decision`` is the activity that led to the state: its name as ``option``, ``source`` is ``activity``,
      and ``type`` is None; ``ended_at`` is when the state was entered, ``started_at`` is None.
    - ``legacy`` is the Legacy instance as the sensor saw it last with an activity, also if v2 decided: the keys of
      ``ProcoreLegacyInstanceSensor``, and ``{seen_at, left, left_at}``. ``left`` is how it was left behind: ``gone``,
      ``terminated``, ``idle`` or ``unchanged``. None if it saw none.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param item_id: The item; its id is the same in both tools (templated).
    :param project_id: Project of the item, or ``company``; default: the level of the tool in v2, or the connection's
        project if v2 does not list the tool yet (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param legacy_instance_id: The Legacy instance of the item; default: the one that Legacy finds (templated).
    :param legacy_object_type: Tool or class of the item in Legacy; default: ``tool_type`` (templated).
    :param legacy_until: Legacy states that are an outcome: names or statuses in any case, or ids; default: each final
        state. ``terminated`` means a terminated instance.
    :param until: States that end the wait with success; default: complete, terminated.
    :param fail_on: States that fail the task, without a retry.
    :param skip_on: States that skip the task.
    :param on_stuck: What the task does when the item is stuck: ``fail``, ``skip``, or an Airflow notifier, a function
        of the context, or a list of them. These are called once, with ``stuck_item`` in the context: ``{reason, legacy,
        instance_id, item_id, tool_type, project_id, item_url}``; then the wait continues.
    :param stuck_after: Seconds, or a timedelta, after which an item that was left behind is stuck; default: three days.
    :param on_overdue: As for ``ProcoreLegacyInstanceSensor``, for steps of v2 and states of Legacy; it cannot add
        assignees.
    :param overdue_after: As for ``ProcoreLegacyInstanceSensor``.
    :raises ConfigurationError: tool or item missing; an unknown state or tool; the Legacy instance is of another item;
        a level adds assignees.
    """

    template_fields: Sequence[str] = (
        "procore_conn_id",
        "company_id",
        "project_id",
        "tool_type",
        "tool_subtype",
        "item_id",
        "legacy_instance_id",
        "legacy_object_type",
    )

    def __init__(
        self,
        *,
        tool_type: str,
        item_id: str | int,
        project_id: str | int | None = None,
        tool_subtype: str | int | None = None,
        legacy_instance_id: str | int | None = None,
        legacy_object_type: str | None = None,
        legacy_until: Collection[str | int] | None = (),
        until: Collection[str] | None = None,
        fail_on: Collection[str] | None = (),
        skip_on: Collection[str] | None = (),
        on_stuck: str | Notifier | Sequence[Notifier] = "fail",
        stuck_after: timedelta | float = DEFAULT_STUCK_AFTER,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_type = tool_type
        self.item_id = item_id
        self.project_id = project_id
        self.tool_subtype = tool_subtype
        self.legacy_instance_id = legacy_instance_id
        self.legacy_object_type = legacy_object_type
        self.legacy_until = literals("legacy_until", legacy_until)
        self.until = None if until is None else literals("until", until)
        self.fail_on = literals("fail_on", fail_on)
        self.skip_on = literals("skip_on", skip_on)
        self.on_stuck = on_stuck
        self.stuck_after = stuck_after
        self._seen: dict[str, Any] | None = None

    @cached_property
    def legacy_hook(self) -> ProcoreLegacyHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)

    def execute(self, context: Context) -> Any:
        if self._on_stuck() == "notify" and self.pokes_in_new_processes and task_state_store(context) is None:
            raise ConfigurationError(
                "on_stuck with a notifier and mode='reschedule' needs Airflow 3.3 or newer, where a task can record "
                "what it has reported. Set deferrable=True, or mode='poke'."
            )
        return super().execute(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        if isinstance(event, Mapping) and isinstance(event.get("seen"), dict):
            self._store_seen(context, event["seen"])  # first, because a retry needs it, too
        return super().execute_complete(context, event)

    def build_trigger(self) -> ProcoreItemWaitTrigger:
        # Here, because the code for both tools would cost each parsing of a DAG file some milliseconds.
        from airflow_provider_workflows.triggers.procore_item import ProcoreItemWaitTrigger

        check_required(tool_type=self.tool_type, item_id=self.item_id)
        check_optional(self, "project_id", "tool_subtype", "legacy_instance_id", "legacy_object_type")
        stuck_after = seconds(self.stuck_after)
        check_seconds("stuck_after", stuck_after)
        trigger = ProcoreItemWaitTrigger(
            **self.trigger_arguments(),
            overdue_watch=self.overdue_watch_argument(),
            project_id=str_id(self.project_id),
            tool_type=self.tool_type,
            tool_subtype=str_id(self.tool_subtype),
            item_id=str(str_id(self.item_id)),
            legacy_instance_id=str_id(self.legacy_instance_id),
            legacy_object_type=self.legacy_object_type,
            legacy_until=self.legacy_until,
            until=self._until(),
            fail_on=known_states("fail_on", self.fail_on, STATES),
            skip_on=known_states("skip_on", self.skip_on, STATES),
            on_stuck=self._on_stuck(),
            stuck_after=stuck_after,
            seen=self._seen,
        )
        trigger.legacy_hook = self.legacy_hook
        return trigger

    def prepare_poke(self, context: Context) -> None:
        store = task_state_store(context)
        if store is not None:
            self._seen = store.get(SEEN) or self._seen

    def go_on(self, context: Context, trigger: WaitTrigger | None, how: str) -> None:
        from airflow_provider_workflows.triggers.procore_item import ProcoreItemWaitTrigger

        if isinstance(trigger, ProcoreItemWaitTrigger):
            if trigger.stuck is not None and trigger.left is not None:
                stuck_item = {
                    "reason": trigger.stuck_reason,
                    "legacy": trigger.legacy.seen,
                    **trigger.item_of(None),
                    "item_url": self.item_url,
                }
                self.log.warning("%s", trigger.stuck_reason)
                self.call_notifiers(context, "on_stuck", as_list(self.on_stuck), stuck_item=stuck_item)
                trigger.notified = trigger.left["since"]
            self._store_seen(context, trigger.seen)
        super().go_on(context, trigger, how)

    def restore_wait(self, context: Context, event: Mapping[str, Any]) -> None:
        super().restore_wait(context, event)
        self._seen = event.get("seen") or self._seen

    def wake_up_event(self) -> dict[str, Any]:
        return {**super().wake_up_event(), "seen": self._seen}

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        project_id = result.get("project_id") or str_id(self.project_id)
        ids = {"instance_id": result.get("instance_id"), "item_id": str_id(self.item_id), "tool_type": self.tool_type}
        return {**ids, "project_id": project_id}

    def _store_seen(self, context: Context, seen: dict[str, Any]) -> None:
        if seen == self._seen:
            return
        self._seen = seen
        if (store := task_state_store(context)) is not None:
            store.set(SEEN, seen, retention=timedelta(seconds=self.timeout) + TTL_AFTER_DEADLINE)

    def _until(self) -> list[str]:
        if self.until is None:
            return sorted(ENDED_STATES)
        states = known_states("until", self.until, STATES)
        if not states:
            raise ConfigurationError(f"until must name at least one state of {', '.join(sorted(STATES))}.")
        return states

    def _on_stuck(self) -> str:
        """Return ``fail``, ``skip`` or ``notify``."""
        if isinstance(self.on_stuck, str) and self.on_stuck in ("fail", "skip"):
            return self.on_stuck
        if isinstance(self.on_stuck, str) or not as_list(self.on_stuck):
            raise ConfigurationError(f"on_stuck must be 'fail', 'skip', or notifiers; got {self.on_stuck!r}.")
        from airflow_provider_workflows.rules.escalation import check_notifiers  # likewise

        check_notifiers("on_stuck", as_list(self.on_stuck))
        return "notify"
