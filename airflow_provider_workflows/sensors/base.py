"""How every sensor of this package waits, in whatever mode."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.rules.parameters import check_rendered
from airflow_provider_workflows.rules.times import time_text
from airflow_provider_workflows.version_compat import XCOM_HOLDS_NONE, push_values, task_state_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from functools import cached_property

    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_workflows.hooks.base import WorkflowsHook
    from airflow_provider_workflows.triggers.base import WaitTrigger

DEADLINE = "deadline"  # key in the task state store
# The deadline is the trigger's to keep; Airflow's own timeout only catches a triggerer that is gone.
BACKSTOP = timedelta(minutes=2)
KEPT_AFTER_DEADLINE = timedelta(days=30)


class WorkflowsSensor(BaseSensorOperator):
    """
    Waits for a verdict of its trigger, in a worker or without one, with the same result.

    The deadline is ``timeout`` seconds after the first try began, by the clock on the wall; from Airflow 3.3
    on it survives retries.

    :param poke_interval: Seconds between two looks; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    """

    # With a mapping as result, `task.output["key"]` hands on one value of it.
    returns_mapping = True

    def __init__(
        self, *, poke_interval: timedelta | float | None = None, deferrable: bool | None = None, **kwargs: Any
    ):
        if poke_interval is None:
            poke_interval = conf.getfloat("workflows", "poke_interval", fallback=60.0)
        super().__init__(
            poke_interval=poke_interval, **{"multiple_outputs": self.returns_mapping and XCOM_HOLDS_NONE, **kwargs}
        )
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.deferrable = deferrable
        self.item_url = ""
        self._deadline: datetime | None = None
        self._last_look = ""

    if TYPE_CHECKING:

        @cached_property
        def hook(self) -> WorkflowsHook: ...

    @abstractmethod
    def build_trigger(self) -> WaitTrigger:
        """Check the rendered parameters and return the trigger that waits for them."""

    def deferred_trigger(self, trigger: WaitTrigger) -> BaseTrigger:
        """Return what to defer to: the trigger that looks, unless looking must stay on a worker."""
        return trigger

    @property
    def deadline(self) -> str | None:
        """The wall-clock end of the wait as an ISO-8601 time."""
        return None if self._deadline is None else self._deadline.isoformat()

    def item_ids(self, result: Any) -> Mapping[str, str | None]:
        """Return the ids that the link to the product's UI is made of."""
        return {}

    def execute(self, context: Context) -> Any:
        if self.poke_interval <= 0:
            raise ConfigurationError(f"poke_interval must be more than 0 seconds; got {self.poke_interval:g}.")
        self._deadline = self._read_deadline(context)
        return self.look_or_defer(context) if self.deferrable else super().execute(context)

    def look_or_defer(self, context: Context) -> Any:
        """Look once on the worker, and wait without one if it is not over yet."""
        with self._skipping_as_poke_mode():
            check_rendered(self)
            trigger = self.build_trigger()
            answer = self._look(trigger)
            if answer is not None:
                return self._conclude(context, answer)
            self._check_deadline()
            deferred = self.deferred_trigger(trigger)
            how = "the triggerer looks every" if deferred is trigger else "the next look is in about"
            self.go_on(context, trigger, f"{how} {self.poke_interval:.0f} s")
        assert self._deadline is not None
        timeout = self._deadline - datetime.now(timezone.utc) + BACKSTOP
        return self.defer(trigger=deferred, method_name="execute_complete", timeout=timeout)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        if self._deadline is None:
            self._deadline = self._read_deadline(context)
        check_rendered(self)
        trigger = self.build_trigger()
        answer = self._look(trigger)
        if answer is None:
            self._check_deadline()
            self.go_on(context, trigger, f"the next look is in about {self.poke_interval:.0f} s")
            return False
        return PokeReturnValue(is_done=True, xcom_value=self._conclude(context, answer))

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Resume with the trigger's event."""
        with self._skipping_as_poke_mode():
            check_rendered(self)
            status = event.get("status") if event else None
            if event is not None and status == "done":
                return self._conclude(context, event)
            if status == "timeout":
                self._time_out(str((event or {}).get("last_look", "")))
            if event is not None and status == "error":
                raise WorkflowsError(f"{event['error']}: {event['message']}")
            raise WorkflowsError(f"The trigger ended with an event this version does not know: {event!r}")

    @contextmanager
    def _skipping_as_poke_mode(self) -> Iterator[None]:
        """Skip for an error where Airflow's own ``execute`` would, which a deferrable sensor goes past."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowTaskTimeout, Exception) as error:
            if self.never_fail or (self.soft_fail and isinstance(error, AirflowTaskTimeout)):
                raise AirflowSkipException(f"{type(error).__name__}: {error}") from error
            raise

    def _look(self, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        answer = trigger.look_on_worker(self.hook, self.log)
        self._last_look = trigger.standing
        if trigger.item is not None and answer is None:  # so that a task that waits has its link, too
            self.item_url = self.hook.item_url(**self.item_ids(trigger.item))
        return answer

    def go_on(self, context: Context, trigger: WaitTrigger, how: str) -> None:
        """
        Go on waiting after a look on a worker that decided nothing.

        :param trigger: What has looked.
        :param how: Who looks next, and when, for the log.
        """
        assert self._deadline is not None
        begun = self._deadline - timedelta(seconds=self.timeout)
        self.log.info("Waiting since %s, until %s at most; %s.", time_text(begun), time_text(self._deadline), how)

    def finish(self, result: Any) -> Any:
        """Return what the task returns, of a result small enough for a trigger's event."""
        return result

    def _conclude(self, context: Context, answer: Mapping[str, Any]) -> Any:
        self.item_url = self.hook.item_url(**self.item_ids(answer["result"]))
        self.log.info("%s", answer["reason"])
        if answer["word"] == "succeed":
            result = self.finish(answer["result"])
            if self.returns_mapping:
                push_values(context, result)
            return result
        if answer["word"] == "skip" or self.soft_fail or self.never_fail:
            raise AirflowSkipException(answer["reason"])
        raise AirflowFailException(f"WaitFailed: {answer['reason']}")

    def _read_deadline(self, context: Context) -> datetime:
        fresh = datetime.now(timezone.utc) + timedelta(seconds=self.timeout)
        store = task_state_store(context)
        if store is None:
            return fresh
        if (kept := store.get(DEADLINE)) is not None:
            return datetime.fromisoformat(kept)
        store.set(DEADLINE, fresh.isoformat(), retention=timedelta(seconds=self.timeout) + KEPT_AFTER_DEADLINE)
        return fresh

    def _check_deadline(self) -> None:
        if self._deadline is not None and datetime.now(timezone.utc) >= self._deadline:
            self._time_out()

    def _time_out(self, last_look: str = "") -> None:
        message = f"Nothing decided within {timedelta(seconds=self.timeout)}. {last_look or self._last_look}".rstrip()
        if self.soft_fail or self.never_fail:
            raise AirflowSkipException(message)
        raise AirflowSensorTimeout(message)
