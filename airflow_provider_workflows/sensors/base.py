"""The base class of all sensors, which wait in poke, reschedule or deferrable mode with the same result."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.operators.checked_parameters import CheckedParameters
from airflow_provider_workflows.operators.waiting import LABEL_TEMPLATE, WaitLifeCycle
from airflow_provider_workflows.rules.decision_summary import summary_of
from airflow_provider_workflows.rules.parameters import check_rendered, check_seconds, seconds
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.settings import poke_interval_seconds
from airflow_provider_workflows.version_compat import XCOM_HOLDS_NONE, push_values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from functools import cached_property

    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_workflows.hooks.base import WorkflowsHook
    from airflow_provider_workflows.triggers.base import WaitTrigger
    from airflow_provider_workflows.triggers.wakeup import WakeUpTrigger

# Exceptions that end an Airflow sensor in spite of silent_fail.
ENDS_THE_TASK = (AirflowFailException, AirflowSensorTimeout, AirflowSkipException)


class WorkflowsSensor(WaitLifeCycle, CheckedParameters, BaseSensorOperator):
    """
    Wait for the result of a trigger, on a worker or in the triggerer.

    The deadline is wall-clock, ``timeout`` seconds after the start of the first try; from Airflow 3.3 on it survives
    retries.

    :param poke_interval: Seconds between two polls; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :param map_index_template: Label of a mapped task in Airflow's lists; by default the item or the instance.
    """

    poke_again_on: ClassVar[frozenset[str]] = frozenset({"poke"})  # statuses of events
    # If the result is a mapping, `task.output["key"]` passes one of its values.
    returns_mapping = True

    def __init__(
        self,
        *,
        poke_interval: timedelta | float | None = None,
        deferrable: bool | None = None,
        map_index_template: str | None = LABEL_TEMPLATE,
        **kwargs: Any,
    ):
        if poke_interval is None:
            poke_interval = poke_interval_seconds()
        # Before Airflow's own conversion, whose error names no parameter.
        check_seconds("poke_interval", seconds(poke_interval), may_be_zero=False)
        check_seconds("timeout", seconds(kwargs.get("timeout", 0)))
        super().__init__(
            poke_interval=poke_interval,
            map_index_template=map_index_template or LABEL_TEMPLATE,
            **{"multiple_outputs": self.returns_mapping and XCOM_HOLDS_NONE, **kwargs},
        )
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.item_url = ""
        # Who decided what when, which OpenLineage adds to the events of a task.
        self.hitl_summary: dict[str, Any] = {}

    if TYPE_CHECKING:

        @cached_property
        def hook(self) -> WorkflowsHook: ...

    @property
    def wait_seconds(self) -> float:
        return self.timeout

    @property
    def pokes_in_new_processes(self) -> bool:  # type: ignore[override]  # depends on the mode here
        return self.reschedule and not self.deferrable

    @abstractmethod
    def build_trigger(self) -> WaitTrigger:
        """Check the rendered parameters, and build the trigger that waits."""

    def prepare_poke(self, context: Context) -> None:
        """Load the state that a poke needs; called after the connection was looked up."""

    def deferred_trigger(self, trigger: WaitTrigger) -> BaseTrigger:
        """Return the trigger to defer to: the one that polls, unless polling must stay on a worker."""
        return trigger

    def item_ids(self, result: Any) -> Mapping[str, str | None]:
        """Return the ids for the item's link."""
        return {}

    def finish(self, result: Any) -> Any:
        """Return the task's result, derived from the trigger's, which must be small enough for an event."""
        return result

    def execute(self, context: Context) -> Any:
        self.start_wait(context)
        return self.poke_or_defer(context) if self.deferrable else super().execute(context)

    def poke_or_defer(self, context: Context) -> Any:
        """Poll once on the worker, and defer if there is no result yet."""
        with self._skipping_as_poke_mode():
            outcome = self._poke(context)
        if isinstance(outcome, PokeReturnValue):
            return outcome.xcom_value
        assert outcome is not None
        return self.defer_to(outcome)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        if self._deadline is None:
            self.start_wait(context)
        outcome = self._poke(context)
        return outcome if isinstance(outcome, PokeReturnValue) else False

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Resume with the trigger's event."""
        known = event if isinstance(event, Mapping) else {}
        with self._skipping_as_poke_mode():
            try:
                check_rendered(self)
                if known.get("status") not in self.poke_again_on:
                    done = self._result_of(context, self.checked_result(event))
                    if done is not None:
                        return done.xcom_value
            except Exception as error:  # silent_fail applies to any error
                self._silence(error)
        self.restore_wait(context, known)
        return self.poke_or_defer(context)

    def restore_wait(self, context: Context, event: Mapping[str, Any]) -> None:
        """Restore the state that the wait had before the deferral from an event."""
        deadline = event.get("deadline")
        self._deadline = self.read_deadline(context) if deadline is None else datetime.fromisoformat(deadline)
        self._take_polls(event.get("polls"))
        self._last_poll = str(event.get("last_poll") or self._last_poll)

    def wake_up(self) -> WakeUpTrigger:
        """Build the trigger that sends the task back to a worker for the next poll."""
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.wakeup import WakeUpTrigger

        until = datetime.now(timezone.utc) + timedelta(seconds=self.seconds_to_next_poll(self.poke_interval))
        return WakeUpTrigger(until=until.isoformat(), event=self.wake_up_event())

    def wake_up_event(self) -> dict[str, Any]:
        """Return the event with all state of the wait, because dag.test() drops the keyword arguments of a deferral."""
        return {"status": "poke", "deadline": self.deadline, "polls": self.polls_so_far()}

    def _poke(self, context: Context) -> PokeReturnValue | BaseTrigger | None:
        """Poll once; return the result, or the trigger to defer to until the next poll."""
        trigger = None
        try:
            check_rendered(self)
            if self.attempt(self.hook.current_conn) is not None:  # which looks up the connection
                self.prepare_poke(context)
                trigger = self.build_trigger()
                done = self._result_of(context, self.poll(context, trigger))
                if done is not None:
                    return done
            else:
                self.record_open_wait(context, None)
                self._store_polls(context)
        except Exception as error:  # likewise
            self._silence(error)
        self.check_deadline()
        deferred: BaseTrigger | None = None
        if self.deferrable:
            deferred = self.wake_up() if trigger is None else self.deferred_trigger(trigger)
        is_polled_in_triggerer = deferred is not None and deferred is trigger
        how = "the triggerer polls every" if is_polled_in_triggerer else "will poll again in about"
        self.go_on(context, trigger, f"{how} {self.poke_interval:.0f} s")
        return deferred

    def _result_of(self, context: Context, event: Mapping[str, Any] | None) -> PokeReturnValue | None:
        """Return the XCom of a result; reads like a poll, so that an error does not end the wait."""
        if event is None:
            return None

        def read() -> PokeReturnValue:
            with documented_form():
                return PokeReturnValue(is_done=True, xcom_value=self.conclude(context, event))

        return self.attempt(read)

    def poll_on_worker(self, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        event = super().poll_on_worker(trigger)
        if trigger.item is not None and event is None:  # a task that still waits needs its link, too
            self.item_url = self.hook.item_url(**trigger.item)
        return event

    def _silence(self, error: Exception) -> None:
        """Raise an error unless ``silent_fail`` is set, as Airflow's sensors do in poke mode."""
        if not self.silent_fail or isinstance(error, ENDS_THE_TASK):
            raise error
        self.log.exception("The sensor failed, the wait continues because of silent_fail.", exc_info=error)
        self.record_error(error)

    @contextmanager
    def _skipping_as_poke_mode(self) -> Iterator[None]:
        """Turn an error into a skip as Airflow's ``execute`` does, which a deferrable sensor does not call."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowTaskTimeout, Exception) as error:
            if self.never_fail or (self.soft_fail and isinstance(error, AirflowTaskTimeout)):
                raise AirflowSkipException(f"{type(error).__name__}: {error}") from error
            raise

    def conclude(self, context: Context, event: Mapping[str, Any]) -> Any:
        self.item_url = self.hook.item_url(**self.item_ids(event["result"]))
        self.log.info("%s", event["reason"])
        self.hitl_summary = summary_of(event["result"])
        if event["action"] == "succeed":
            result = self.finish(event["result"])
            if self.returns_mapping:
                push_values(context, result)
            return result
        if event["action"] == "skip" or self.soft_fail or self.never_fail:
            raise AirflowSkipException(event["reason"])
        raise AirflowFailException(f"WaitFailed: {event['reason']}")

    def give_up(self, message: str, error: WorkflowsError | None = None) -> NoReturn:
        raise error or WorkflowsError(message)

    def time_out(self, last_poll: str) -> NoReturn:
        message = f"No result within {timedelta(seconds=self.timeout)}. {last_poll}".rstrip()
        if self.soft_fail or self.never_fail:
            raise AirflowSkipException(message)
        raise AirflowSensorTimeout(message)

    def _get_next_poke_interval(self, *args: Any, **kwargs: Any) -> float:
        # A sleep ends at the deadline at the latest, for the last poll.
        return self.seconds_to_next_poll(super()._get_next_poke_interval(*args, **kwargs))
