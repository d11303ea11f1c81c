"""The base class of sensors that do something about a step that is pending for too long: they climb a ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, cast

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import TRANSIENT_ERRORS, ConfigurationError, DryRun, OutcomeUnknown
from airflow_provider_workflows.operators.waiting import TTL_AFTER_DEADLINE
from airflow_provider_workflows.rules.overdue import OverdueStep
from airflow_provider_workflows.rules.parameters import as_list
from airflow_provider_workflows.sensors.base import WorkflowsSensor
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.rules.escalation import Escalation, Level, Notifier
    from airflow_provider_workflows.triggers.base import WaitTrigger

ESCALATION = "escalation"  # key in the task state store
PAUSE_SECONDS = 300.0  # before a level is tried again, because a worker is needed for each attempt
MAX_REJECTIONS = 3  # of a level, because a gateway can send one; also how often an unknown outcome is read


class NotifyingSensor(WorkflowsSensor):
    """
    Carry out the levels of a ladder when a step becomes overdue, each once for each step occurrence.

    The wait continues, unless a level ends it. ``overdue_step`` in the context of notifiers and templates is ``{step,
    step_occurrence_id, since, due, reason, level, repeat, added, problem, assignees, instance_id, item_id, tool_type,
    project_id, item_url}``. After a level was carried out the sensor records it in Airflow's task state store (3.3+).
    If the worker dies before that, the notifiers are called again; assignees are never added twice.

    :param on_overdue: A list of levels; or for only one level an Airflow notifier, or a function of the context, or a
        list of them (only what a level names as templated).
    :param overdue_after: For notifiers without levels: seconds, or a timedelta, that a step may be pending, by the
        server's clock; default: until the step's due date, if it has one (not templated).
    """

    poke_again_on = WorkflowsSensor.poke_again_on | {"overdue"}
    can_add_assignees: ClassVar[bool] = False

    def __init__(
        self,
        *,
        on_overdue: Level | Notifier | Sequence[Level] | Sequence[Notifier] | None = None,
        overdue_after: timedelta | float | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.on_overdue = on_overdue
        self.overdue_after = overdue_after
        self._levels = self._ladder()
        self._found_by_trigger: OverdueStep | None = None
        if not self.can_add_assignees and any(level.adds for level in self._levels):
            raise ConfigurationError(
                f"add_assignees: {type(self).__name__} cannot add assignees, only ProcoreInstanceSensor. Use notify."
            )
        for upstream in _results_of(self._levels):
            self.set_upstream(upstream)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Create a mapped task; see Airflow's ``BaseOperator.partial``."""
        partial = super().partial(**kwargs)
        upstream = _results_of(as_list(partial.kwargs.get("on_overdue")))
        return _PartialAfter(partial, upstream) if upstream else partial

    def execute(self, context: Context) -> Any:
        self._restore_escalation(context)
        if self._levels and self.reschedule and not self.deferrable and task_state_store(context) is None:
            raise ConfigurationError(
                "on_overdue with mode='reschedule' needs Airflow 3.3 or newer, where a task can record which steps "
                "it has reported. Set deferrable=True, or mode='poke'."
            )
        return super().execute(context)

    def restore_wait(self, context: Context, event: Mapping[str, Any]) -> None:
        super().restore_wait(context, event)
        self._restore_escalation(context, event)
        names = set(OverdueStep._fields)
        if event.get("status") == "overdue" and names <= event.keys():
            self._found_by_trigger = OverdueStep(**{name: event[name] for name in names})

    def wake_up_event(self) -> dict[str, Any]:
        return {**super().wake_up_event(), "escalation": self._escalation.to_dict()}

    def conclude(self, context: Context, event: Mapping[str, Any]) -> Any:
        self._restore_escalation(context, event)
        return super().conclude(context, event)

    def finish(self, result: Any) -> Any:
        result = super().finish(result)
        if not self._levels:
            return result
        reached = {"escalation_level": self._escalation.level(), "escalation_problem": self._escalation.problem()}
        return {**result, **reached}

    def _ladder(self) -> Sequence[Level]:
        if self.on_overdue is None and self.overdue_after is None:
            return []
        # Imported here, because DAG files are parsed far more often than a ladder is used.
        from airflow_provider_workflows.rules.escalation import ladder_of

        return ladder_of(self.on_overdue, self.overdue_after)

    @cached_property
    def _escalation(self) -> Escalation:
        """What was done about the overdue steps so far."""
        from airflow_provider_workflows.rules.escalation import Escalation  # likewise

        return Escalation()

    def overdue_watch_argument(self) -> dict[str, Any] | None:
        """Return the trigger's ``overdue_watch``."""
        for level in self._levels:
            level.check_calendars()
        if not self._levels:
            return None
        levels = [level.to_dict() for level in self._levels]
        return {"levels": levels, "escalation": self._escalation.to_dict(), "next": None}

    def go_on(self, context: Context, trigger: WaitTrigger | None, how: str) -> None:
        if trigger is not None and trigger.overdue_watch is not None:
            for _ in self._levels:  # one after the other, if several are due
                overdue_step = trigger.overdue() or self._still_pending(trigger)
                if overdue_step is None or overdue_step.level > len(self._levels):
                    break
                self._climb(context, trigger, overdue_step)
        self._found_by_trigger = None
        super().go_on(context, trigger, how)

    def add_assignees(
        self, context: Context, level: Level, overdue_step: OverdueStep, ids: Mapping[str, Any]
    ) -> list[str] | None:
        """
        Add a level's assignees to a step occurrence, once over all tries of the task.

        :param context: The task's context, with ``overdue_step`` for the templates.
        :param ids: The ids ``{instance_id, item_id, tool_type, project_id}`` as of the last poll.
        :return: Ids of the users that this call, or an earlier try of it, has added; None if the step is over.
        """
        raise NotImplementedError

    def _restore_escalation(self, context: Context, event: Mapping[str, Any] | None = None) -> None:
        """Take over what was done in processes before this one."""
        if not self._levels:
            return
        store = task_state_store(context)
        stored = None if store is None else store.get(ESCALATION)
        if stored is None:  # before Airflow 3.3
            stored = (event or {}).get("escalation")
        if stored is not None:
            self._escalation = type(self._escalation).from_dict(stored)

    def _still_pending(self, trigger: WaitTrigger) -> OverdueStep | None:
        """Return the level that the trigger has found due, if this worker could not poll and it only notifies."""
        found, self._found_by_trigger = self._found_by_trigger, None
        if found is None or trigger.item is not None or found.level > len(self._levels):
            return None
        level = self._levels[found.level - 1]
        if level.adds or level.then is not None:  # only a current step gets assignees, or ends the wait
            self._postpone(trigger, found)
            return None
        return found  # a needless notification is better than a missing one

    def _climb(self, context: Context, trigger: WaitTrigger, overdue_step: OverdueStep) -> None:
        """Carry out one level, and record that."""
        level = self._levels[overdue_step.level - 1]
        variable = self._template_variable(trigger, overdue_step)
        of_ladder = f", level {overdue_step.level} of {len(self._levels)}" if len(self._levels) > 1 else ""
        self.log.info("Step %r is %s: calling on_overdue%s.", overdue_step.step, overdue_step.reason, of_ladder)
        if level.adds and overdue_step.repeat == 0 and not self._add(context, trigger, overdue_step, variable):
            self._store_escalation(context, trigger)
            return
        self.call_notifiers(context, "on_overdue", level.notifiers, overdue_step=dict(variable))
        if level.then is not None:
            # Not recorded: a retry after the death of this worker must end the wait, too.
            self._end(level.then, variable)
        self._escalation.record(overdue_step, trigger.server_now(), variable["problem"])
        self._store_escalation(context, trigger)

    def _postpone(self, trigger: WaitTrigger, overdue_step: OverdueStep, *, is_rejected: bool = False) -> int:
        until = trigger.server_now() + PAUSE_SECONDS
        rejections = self._escalation.postpone(overdue_step, until, is_rejected=is_rejected)
        trigger.plan_escalation(self._escalation)
        return rejections

    def _add(self, context: Context, trigger: WaitTrigger, overdue_step: OverdueStep, variable: dict[str, Any]) -> bool:
        """Add assignees; return False if nothing was sent, and the level is postponed."""
        level = self._levels[overdue_step.level - 1]
        # With the step for the templates of the level.
        with_step = cast("Context", {**context, "overdue_step": variable})
        ids = {name: variable[name] for name in ("instance_id", "item_id", "tool_type", "project_id")}
        try:
            added = self.add_assignees(with_step, level, overdue_step, ids)
        except DryRun as not_sent:
            self.log.info("%s", not_sent)
            variable["problem"] = str(not_sent)
            return True
        except Exception as error:  # an error in a level must not end the wait; people see it on the Approvals page
            problem = f"Level {overdue_step.level} at step {overdue_step.step!r}: {type(error).__name__}: {error}"
            if self._is_tried_again(context, trigger, overdue_step, error, problem):
                self.log.warning("Adding assignees failed, will retry: %s", error)
                return False
            self.log.error("Adding assignees failed, the wait continues. %s", problem)
            variable["problem"] = problem
            return True
        if added is None:  # the step is over, which the next poll will show
            self._postpone(trigger, overdue_step)
            return False
        variable["added"] = added
        return True

    def _is_tried_again(
        self, context: Context, trigger: WaitTrigger, overdue_step: OverdueStep, error: Exception, problem: str
    ) -> bool:
        """Return whether a level is tried again after an error, and postpone it."""
        if isinstance(error, OutcomeUnknown):
            if task_state_store(context) is None:
                return False
            # The store says that the request was sent, so the next attempts only read. The step may end before them.
            self._escalation.note_problem(overdue_step, problem)
        elif not getattr(error, "retryable", False) or isinstance(error, ConfigurationError):
            return False
        is_transient = isinstance(error, TRANSIENT_ERRORS)
        rejections = self._postpone(trigger, overdue_step, is_rejected=not is_transient)
        return is_transient or rejections < MAX_REJECTIONS

    def call_notifiers(self, context: Context, parameter: str, notifiers: Sequence[Notifier], **variables: Any) -> None:
        """Call notifiers with further variables in the context; the wait continues if one fails."""
        from airflow.sdk import BaseNotifier

        for notifier in notifiers:
            # A copy, because rendering overwrites the templates, which the next call needs again.
            unrendered = copy(notifier) if isinstance(notifier, BaseNotifier) else notifier
            try:
                unrendered({**context, **variables})
            except Exception as error:  # a failing notifier must not end the wait
                name = getattr(notifier, "__name__", type(notifier).__name__)
                self.log.warning(
                    "Calling %s %s failed, the wait continues. %s: %s", parameter, name, type(error).__name__, error
                )

    def _end(self, then: str, variable: Mapping[str, Any]) -> NoReturn:
        people = ", ".join(variable["assignees"]) or "an unknown assignee"
        reason = (
            f"Level {variable['level']} of on_overdue ended the wait: step {variable['step']!r} of instance "
            f"{variable['instance_id']} (item {variable['item_id']}) is {variable['reason']}, pending with {people}."
        )
        if then == "skip" or self.soft_fail or self.never_fail:
            raise AirflowSkipException(reason)
        raise AirflowFailException(f"WaitFailed: {reason}")

    def _store_escalation(self, context: Context, trigger: WaitTrigger) -> None:
        trigger.plan_escalation(self._escalation)
        if (store := task_state_store(context)) is not None:
            retention = timedelta(seconds=self.timeout) + TTL_AFTER_DEADLINE
            store.set(ESCALATION, self._escalation.to_dict(), retention=retention)
        self.record_open_wait(context, trigger)

    def _template_variable(self, trigger: WaitTrigger, overdue_step: OverdueStep) -> dict[str, Any]:
        ids = trigger.item or {}
        known = {name: value for name, value in overdue_step.to_dict().items() if name != "at"}
        assignees = [] if trigger.pending_step is None else list(trigger.pending_step.assignees)
        return {
            **dict.fromkeys(("instance_id", "item_id", "tool_type", "project_id")),
            **ids,
            **known,
            "added": [],
            "problem": None,
            "assignees": assignees,
            "item_url": self.item_url,
        }


class _PartialAfter:
    """
    Map a sensor, and run it after the tasks whose results its levels use.

    :param partial: What Airflow's ``BaseOperator.partial`` returns.
    :param upstream: The tasks.
    """

    def __init__(self, partial: Any, upstream: Sequence[Any]):
        self._partial = partial
        self._upstream = upstream

    def expand(self, **mapped_kwargs: Any) -> Any:
        return self._after_results(self._partial.expand(**mapped_kwargs))

    def expand_kwargs(self, *args: Any, **kwargs: Any) -> Any:
        return self._after_results(self._partial.expand_kwargs(*args, **kwargs))

    def _after_results(self, mapped: Any) -> Any:
        mapped.set_upstream(self._upstream)
        return mapped


def _results_of(levels: Sequence[Any]) -> list[Any]:
    """Return the tasks whose results a level uses; Airflow finds only those of a templated parameter."""
    from airflow.sdk import XComArg

    values = [getattr(level, name, None) for level in levels for name in ("add_assignees", "reason", "comment")]
    return [upstream for upstream, _ in XComArg.iter_xcom_references(values)]
