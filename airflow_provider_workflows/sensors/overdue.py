"""The base class of sensors that notify people when a step becomes overdue."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.waiting import TTL_AFTER_DEADLINE
from airflow_provider_workflows.rules.overdue import OverdueStep
from airflow_provider_workflows.rules.parameters import as_list
from airflow_provider_workflows.sensors.base import WorkflowsSensor
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.triggers.base import WaitTrigger

    Notifier = Callable[[Context], Any]

KNOWN = "known_overdue"  # key in the task state store
MAX_OVERDUE_SECONDS = timedelta(days=36_525).total_seconds()


class NotifyingSensor(WorkflowsSensor):
    """
    Call notifiers when a step becomes overdue, once for each step occurrence.

    The wait continues even if a notifier fails. Each notifier is called with the task's context and ``overdue_step``:
    ``{step, step_occurrence_id, since, due, reason, assignees, instance_id, item_id, tool_type, project_id,
    item_url}``. After the calls the sensor records the step occurrence in Airflow's task state store (3.3+); if the
    worker dies before that, the notifiers are called again.

    :param on_overdue: An Airflow notifier, or a function of the context, or a list of them (not templated).
    :param overdue_after: Seconds, or a timedelta, that a step may be pending, by the server's clock; default: until the
        step's due date, if it has one (not templated).
    """

    poke_again_on = WorkflowsSensor.poke_again_on | {"overdue"}

    def __init__(
        self,
        *,
        on_overdue: Notifier | Sequence[Notifier] | None = None,
        overdue_after: timedelta | float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.on_overdue = on_overdue
        self.overdue_after = overdue_after
        self._known: list[str] = []
        self._found_by_trigger: OverdueStep | None = None

    def execute(self, context: Context) -> Any:
        self._known = self._seen_before(context)
        if (
            self.on_overdue is not None
            and self.reschedule
            and not self.deferrable
            and task_state_store(context) is None
        ):
            raise ConfigurationError(
                "on_overdue with mode='reschedule' needs Airflow 3.3 or newer, where a task can record which steps "
                "it has reported. Set deferrable=True, or mode='poke'."
            )
        return super().execute(context)

    def restore_wait(self, context: Context, event: Mapping[str, Any]) -> None:
        super().restore_wait(context, event)
        self._known = list(dict.fromkeys([*event.get("known", ()), *self._seen_before(context)]))
        names = OverdueStep.__dataclass_fields__.keys()
        if event.get("status") == "overdue" and names <= event.keys():
            self._found_by_trigger = OverdueStep(**{name: event[name] for name in names})

    def wake_up_event(self) -> dict[str, Any]:
        return {**super().wake_up_event(), "known": list(self._known)}

    def overdue_watch_argument(self) -> dict[str, Any] | None:
        """Check the parameters, and return the trigger's ``overdue_watch``."""
        if self.on_overdue is None:
            if self.overdue_after is not None:
                raise ConfigurationError("overdue_after needs on_overdue: give the notifier to call.")
            return None
        if not all(callable(notifier) for notifier in as_list(self.on_overdue)):
            raise ConfigurationError("on_overdue must be a notifier, a function of the context, or a list of them.")
        if any(inspect.iscoroutinefunction(notifier) for notifier in as_list(self.on_overdue)):
            raise ConfigurationError(
                "on_overdue is a coroutine function, which Airflow would not run. Give a plain function."
            )
        after = self.overdue_after
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (is_number and 0 <= seconds <= MAX_OVERDUE_SECONDS):
            raise ConfigurationError(
                f"overdue_after must be a timedelta, or seconds, of at least 0 and at most 100 years; got {after!r}."
            )
        return {"after": seconds, "known": list(self._known), "next": None}

    def go_on(self, context: Context, trigger: WaitTrigger | None, how: str) -> None:
        overdue_step = None if trigger is None else trigger.overdue() or self._still_pending(trigger)
        if overdue_step is not None and trigger is not None and trigger.overdue_watch is not None:
            self._notify(context, trigger, overdue_step)
            self._known.append(overdue_step.step_occurrence_id)
            trigger.overdue_watch["known"] = list(self._known)
            if (store := task_state_store(context)) is not None:
                store.set(KNOWN, self._known, retention=timedelta(seconds=self.timeout) + TTL_AFTER_DEADLINE)
        self._found_by_trigger = None
        super().go_on(context, trigger, how)

    def _still_pending(self, trigger: WaitTrigger) -> OverdueStep | None:
        """Return the overdue step that the trigger has found, unless the worker's poke shows a later step."""
        found, pending_step = self._found_by_trigger, trigger.pending_step
        if found is None or found.step_occurrence_id in self._known:
            return None
        if trigger.item is None:  # the poke has failed; a needless notification is better than a missing one
            return found
        is_same = pending_step is not None and pending_step.step_occurrence_id == found.step_occurrence_id
        return found if is_same else None

    def _notify(self, context: Context, trigger: WaitTrigger, overdue_step: OverdueStep) -> None:
        from airflow.sdk import BaseNotifier

        variable = self._template_variable(trigger, overdue_step)
        self.log.info("Step %r is %s: calling on_overdue.", overdue_step.step, overdue_step.reason)
        for notifier in as_list(self.on_overdue):
            # A copy, because rendering overwrites the templates, which the next overdue step needs again.
            unrendered = copy(notifier) if isinstance(notifier, BaseNotifier) else notifier
            try:
                unrendered({**context, "overdue_step": variable})
            except Exception as error:  # a failing notifier must not end the wait
                name = getattr(notifier, "__name__", type(notifier).__name__)
                self.log.warning(
                    "Calling on_overdue %s failed, the wait continues. %s: %s", name, type(error).__name__, error
                )

    def _template_variable(self, trigger: WaitTrigger, overdue_step: OverdueStep) -> dict[str, Any]:
        ids = trigger.item or {}
        known = {name: value for name, value in overdue_step.to_dict().items() if name != "at"}
        assignees = [] if trigger.pending_step is None else list(trigger.pending_step.assignees)
        return {
            **dict.fromkeys(("instance_id", "item_id", "tool_type", "project_id")),
            **ids,
            **known,
            "assignees": assignees,
            "item_url": self.item_url,
        }

    def _seen_before(self, context: Context) -> list[str]:
        store = task_state_store(context)
        return self._known if self.on_overdue is None or store is None else list(store.get(KNOWN, []))
