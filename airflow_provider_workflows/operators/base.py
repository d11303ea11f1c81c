"""The base of all operators: how they perform an action once, and wait for its result."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime, timedelta
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, conf

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    DryRun,
    WorkflowsError,
)
from airflow_provider_workflows.operators.checked_parameters import CheckedParameters
from airflow_provider_workflows.operators.dry_run import DryRunParameter, dry_run_context
from airflow_provider_workflows.operators.tracing import action_span
from airflow_provider_workflows.operators.waiting import DEADLINE, LABEL_TEMPLATE, WaitLifeCycle
from airflow_provider_workflows.rules.decision_summary import summary_of
from airflow_provider_workflows.rules.parameters import check_rendered, check_seconds, seconds
from airflow_provider_workflows.settings import poke_interval_seconds
from airflow_provider_workflows.version_compat import (
    HAS_TASK_STATE_STORE,
    XCOM_HOLDS_NONE,
    push_values,
    task_state_store,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.triggers.base import WaitTrigger

log = logging.getLogger(__name__)
Found = TypeVar("Found")
Thing = TypeVar("Thing")
PROGRESS_LOG_SECONDS = 10.0
PIN_TTL = timedelta(days=365)
TRIGGER = "trigger"  # key in the task state store: the trigger of the deferral


class WorkflowsOperator(CheckedParameters):
    """
    Perform one action in Procore or Workflowsoft; an Airflow retry never performs it a second time.

    An error after which a retry could act twice, or on something else, fails the task for good. After all other
    errors Airflow may retry the task.
    """

    # With a mapping as result, `task.output["key"]` passes one of its values.
    returns_mapping: bool = True
    decided_at: str | None = None  # for the summary, where the result does not have it

    def __init__(self, **kwargs: Any):
        super().__init__(**{"multiple_outputs": self.returns_mapping and XCOM_HOLDS_NONE, **kwargs})
        self.item_url = ""
        # Who decided what when, which OpenLineage adds to the events of a task.
        self.hitl_summary: dict[str, Any] = {}

    @property
    def confirm_timeout(self) -> float:
        """Seconds for which the task reads again after an unknown outcome, in operators with that parameter."""
        return self._confirm_timeout

    @confirm_timeout.setter
    def confirm_timeout(self, value: timedelta | float) -> None:
        self._confirm_timeout: float = seconds(value)

    def may_be_retried(self, context: Context) -> bool:
        """Return whether Airflow may run the task again without knowing what this try did."""
        if task_state_store(context) is not None:
            return False
        # Airflow reads the retries of a mapped operator before this class has lowered them.
        return bool(getattr(context.get("ti"), "max_tries", self.retries))

    @abstractmethod
    def act(self, context: Context) -> Any:
        """Read, decide, write, verify; return the XCom."""

    def execute(self, context: Context) -> Any:
        return self.returned(context, lambda: self.perform(context))

    def perform(self, context: Context) -> Any:
        """Run the action, and return the XCom."""
        return self.act(context)

    def returned(self, context: Context, act: Callable[[], Any]) -> Any:
        """Run the action, fail the task for good where a retry could do harm, and return the XCom."""
        try:
            check_rendered(self)
            with self.traced(context):
                result = act()
        except WorkflowsError as error:
            if error.retryable:
                raise
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        self.hitl_summary = summary_of(result, decided_at=self.decided_at)
        if self.returns_mapping:
            push_values(context, result)
        return result

    def traced(self, context: Context) -> AbstractContextManager[None]:
        """Trace the action, if it is one that changes something."""
        return nullcontext()

    def waited_since(self, context: Context) -> datetime | None:
        """Return the start of the wait of this task, or None if it did not wait or that is unknown."""
        return None

    def pinned(self, context: Context, key: str, requested: dict[str, Any] | None, parameter: str) -> Pin:
        """
        Return the pin that binds the action to one situation over all tries of the task.

        :param key: Name of the pin in the task state store.
        :param requested: The pin as the DAG author gave it, or None.
        :param parameter: Name of the parameter by which it can be given, for the error text.
        :raises ConfigurationError: it is not given, there is no task state store, and the task may be retried.
        """
        store = task_state_store(context)
        if requested is None and store is None and self.retries:
            raise ConfigurationError(
                f"{parameter} must be given when retries > 0 before Airflow 3.3: without it a retry could act "
                "on another occurrence of the step. Take it from the sensor's XCom, or set retries=0."
            )
        return Pin(store if requested is None else None, key, requested)


def unretried(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments without retries where Airflow has no task state store (before 3.3)."""
    return kwargs if HAS_TASK_STATE_STORE else {**kwargs, "retries": 0}


class WritingOperator(DryRunParameter, WorkflowsOperator):
    """
    Perform an action that changes something; in a dry run, return what it would send.

    In a dry run the task reads, decides and validates as usual. Instead of sending a call that changes something it
    logs the call, and returns ``{dry_run: True, would_send: [{method, path, body}], ...}``: the calls in their order,
    with ``query`` and ``headers`` where a call has its own, and those members of its usual result that are known and
    do not say that something was done. ``would_send`` is empty if the task would send nothing. The task does not wait
    for a result, and stores nothing that would bind a later run.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self._would_send: list[dict[str, Any]] = []
        # Members of the result that are known before the action is sent.
        self.known: Mapping[str, Any] = {}

    def traced(self, context: Context) -> AbstractContextManager[None]:
        return action_span(self, context)

    def perform(self, context: Context) -> Any:
        self.start_dry_run()
        own_context = dry_run_context(context, lambda: self.hook.dry_run)
        return self.or_would_send(lambda: self.act(own_context))

    def or_would_send(self, act: Callable[[], Any]) -> Any:
        """Run the action, and return its result; in a dry run, what it would send."""
        self._would_send, self.known = [], {}
        result = None
        try:
            result = act()
        except DryRun as not_sent:
            self.record_not_sent(not_sent)
            result = self.known
        if not self.hook.dry_run or isinstance(result, list):  # a list has a result for each of several actions
            return result
        return {"dry_run": True, "would_send": self._would_send, **(result or {})}

    @property
    def has_unsent_calls(self) -> bool:
        """Whether a dry run has come to a call that it did not send."""
        return bool(self._would_send)

    def record_not_sent(self, not_sent: DryRun) -> None:
        """Log a call that a dry run does not send, and add it to the result."""
        self.log.info("Dry run: nothing was sent. The task would send %s", not_sent.description)
        self._would_send.append(not_sent.call)

    @contextmanager
    def continuing_dry_run(self) -> Iterator[None]:
        """Continue after a call that a dry run does not send, because the task would send further ones."""
        try:
            yield
        except DryRun as not_sent:
            self.record_not_sent(not_sent)


class WaitingOperator(WaitLifeCycle, WritingOperator):
    """
    Perform an action, and then wait for its result, on a worker or in the triggerer.

    :param wait_timeout: Seconds, or a timedelta, that the wait may take, wall-clock; default 7 days. From Airflow 3.3
        on the deadline survives retries.
    :param poll_interval: Seconds, or a timedelta, between two polls; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :param map_index_template: Label of a mapped task in Airflow's lists; by default the item or the instance.
    """

    # The action has succeeded, so connection and parameters are right.
    fails_at_first_poke = False

    def __init__(
        self,
        *,
        wait_timeout: timedelta | float = timedelta(days=7),
        poll_interval: timedelta | float | None = None,
        deferrable: bool | None = None,
        map_index_template: str | None = LABEL_TEMPLATE,
        **kwargs: Any,
    ):
        super().__init__(map_index_template=map_index_template or LABEL_TEMPLATE, **kwargs)
        if poll_interval is None:
            poll_interval = poke_interval_seconds()
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.wait_timeout: float = seconds(wait_timeout)
        self.poll_interval: float = seconds(poll_interval)
        self.deferrable = deferrable

    @property
    def wait_seconds(self) -> float:
        return self.wait_timeout

    def waited_since(self, context: Context) -> datetime | None:
        deadline = self._deadline
        if deadline is None and (store := task_state_store(context)) is not None:  # resumed by a trigger
            stored = store.get(DEADLINE)
            deadline = None if stored is None else datetime.fromisoformat(stored)
        return None if deadline is None else deadline - timedelta(seconds=self.wait_seconds)

    @abstractmethod
    def finish(self, context: Context, response: Mapping[str, Any]) -> Any:
        """Return the XCom for the wait result ``{action, result, reason}``."""

    def check_wait(self) -> None:
        """Check the times of the wait; to be called before the action."""
        check_seconds("poll_interval", self.poll_interval, may_be_zero=False)
        check_seconds("wait_timeout", self.wait_timeout)

    def wait(self, context: Context, build: Callable[..., WaitTrigger], *, deadline: str = DEADLINE) -> Any:
        """
        Wait for a result, on this worker or in a triggerer, and finish.

        The trigger's event contains everything that :meth:`finish` needs, because another process may run it.

        :param build: Creates the trigger from ``poll_interval`` and ``deadline``.
        :param deadline: Key of the deadline in the task state store; each wait of a task has its own.
        """
        if self.hook.dry_run:
            self.log.info("Dry run: the task does not wait.")
            return self.known
        self.start_wait(context, deadline)
        trigger = build(poll_interval=self.poll_interval, deadline=self.deadline)
        while (response := self.poll(context, trigger)) is None:
            self.check_deadline()
            how = "the triggerer polls every" if self.deferrable else "the next poll is in"
            self.go_on(context, trigger, f"{how} {self.poll_interval:.0f} s")
            if self.deferrable:
                if (store := task_state_store(context)) is not None:
                    store.set(TRIGGER, list(trigger.serialize()), retention=self._retention)
                self.defer_to(trigger)
            time.sleep(self.seconds_to_next_poll(self.poll_interval))
        return self.finish(context, response)

    def poll_on_worker(self, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        self.hook.current_conn()
        return super().poll_on_worker(trigger)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Resume with the trigger's event."""
        return self.returned(context, lambda: self.conclude(context, self.checked_result(self._last(context, event))))

    def _last(self, context: Context, event: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the event; if Airflow has ended the deferral, poll once and return the event of that poll."""
        if not isinstance(event, Mapping) or event.get("status") != "poke":
            return event
        store = task_state_store(context)
        stored = None if store is None else store.get(TRIGGER)
        if stored is None:
            return {"status": "timeout"}
        path, arguments = stored
        module, _, name = path.rpartition(".")
        trigger: WaitTrigger = getattr(import_module(module), name)(**arguments)
        self._last_poll = trigger.last_poll
        result = self.poll(context, trigger)
        return {"status": "timeout", "last_poll": self.standing} if result is None else {"status": "done", **result}

    def conclude(self, context: Context, event: Mapping[str, Any]) -> Any:
        return self.finish(context, event)

    def give_up(self, message: str, error: WorkflowsError | None = None) -> NoReturn:
        raise WorkflowsError(
            f"{message.rstrip('.')}. The wait failed. What the task started continues remotely, and a retry does not "
            "start it again."
        ) from error

    def time_out(self, last_poll: str) -> NoReturn:
        raise AirflowFailException(
            f"WaitFailed: no result within {timedelta(seconds=self.wait_timeout)}. What the task started continues "
            f"remotely. {last_poll}".rstrip()
        )


class Pin:
    """Bind an action to a situation that was given, was stored by an earlier try, or is not known yet."""

    def __init__(self, store: Any, key: str, requested: dict[str, Any] | None):
        self._store = store
        self._key = key
        self.value: dict[str, Any] | None = requested if store is None else store.get(key)

    @property
    def is_outdated(self) -> bool:
        """
        Whether another try of the task has stored something since this one read it.

        Airflow starts another try when a suspended worker seems dead. Check this after reading the situation and
        before binding the action to it: the other try may have caused that situation.
        """
        return self._store is not None and self._store.get(self._key) != self.value

    def persist(self, value: dict[str, Any]) -> None:
        """Bind the action to what was read first; to be called before anything is sent."""
        self.value = value
        if self._store is not None:
            self._store.set(self._key, value, retention=PIN_TTL)


class Progress:
    """
    Log the progress of long work, at most every ten seconds; shorter work logs nothing.

    :param what: What is counted, for the log, such as ``items requested``.
    :param total: How many there are in all, or None if that is unknown.
    """

    def __init__(self, what: str, total: int | None = None):
        self.what = what
        self.total = total
        self.done = 0
        self._started = self._logged_at = monotonic()

    def of(self, things: Iterable[Thing]) -> Iterator[Thing]:
        """Yield the elements, and count each one when the next is requested."""
        for thing in things:
            yield thing
            self.count()

    def count(self, number: int = 1) -> None:
        """Count what was done, and log it if the last log line is old enough."""
        self.done += number
        now = monotonic()
        if now - self._logged_at < PROGRESS_LOG_SECONDS:
            return
        self._logged_at = now
        of_all = "" if self.total is None else f" of {self.total}"
        left = "" if self.total is None else f", {self.total - self.done} left"
        log.info("%d%s %s%s, after %.0f s.", self.done, of_all, self.what, left, now - self._started)
