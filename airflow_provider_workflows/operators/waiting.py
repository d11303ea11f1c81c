"""The wait that sensors and waiting operators share: on a worker or in a triggerer, up to a wall-clock deadline."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

from airflow_provider_workflows.exceptions import (
    TRANSIENT_ERRORS,
    AuthenticationError,
    ConnectionFailed,
    WorkflowsError,
)
from airflow_provider_workflows.rules.datetimes import parse_time, time_text
from airflow_provider_workflows.rules.patience import Rejections, fails_first_poke
from airflow_provider_workflows.settings import rejection_patience_seconds
from airflow_provider_workflows.version_compat import lasting_state_store, task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_workflows.rules.open_wait import OpenWait
    from airflow_provider_workflows.triggers.base import WaitTrigger
    from airflow_provider_workflows.version_compat import StateStore

Read = TypeVar("Read")
DEADLINE = "deadline"  # key in the task state store
POLLS = "polls"  # likewise: what the polls of a wait in reschedule mode saw
# The trigger ends the wait at the deadline. Airflow's timeout is later, and only ends a wait whose triggerer is gone.
TIMEOUT_AFTER_DEADLINE = timedelta(minutes=2)
TTL_AFTER_DEADLINE = timedelta(days=30)
MAX_STATED_WAIT_SECONDS = 3600.0
RESULT_KEYS = {"action", "result", "reason"}
MAX_LABEL_LENGTH = 100  # of a mapped task; Airflow stores 250 characters
DEFERRAL_FAILED, TRIGGER_TIMEOUT = "__fail__", "Trigger timeout"  # Airflow's method and error after a deferral timeout
# Airflow reads a default of ``partial`` from the signature, so it is the same for all classes.
LABEL_TEMPLATE = "{{ task.mapped_label(ti.map_index) }}"


class WaitLifeCycle:
    """
    Poll until there is a result or the deadline has passed.

    The worker pokes first, then it pokes at intervals or defers, and polls a last time at the deadline. The deadline is
    wall-clock; from Airflow 3.3 on it survives retries. A single failed poll does not end the wait:
    :mod:`.rules.patience` says after which rejections it ends, and transient errors never end it. A poll makes one
    attempt of each request, because the next poll repeats it.
    """

    # What the label of a mapped task names, the first that is given: a kind, and the parameter with its id.
    label_parameters: ClassVar[Mapping[str, str]] = {"item": "item_id", "instance": "instance_id"}
    fails_at_first_poke = True  # because of a wrong parameter or a missing connection
    pokes_in_new_processes = False

    _deadline: datetime | None = None
    _last_poll = ""  # what the last successful poll saw
    _last_error = ""  # why no poll has succeeded since
    _rejections: Rejections | None = None
    _stored_polls: dict[str, Any] | None = None
    _is_first_poke = False
    _not_before = float("-inf")  # on the monotonic clock
    _open_wait: OpenWait | None = None  # as it was stored last
    _recorded_wait: str | None = None  # its fingerprint
    _cannot_record = False  # once logged

    if TYPE_CHECKING:
        hook: Any
        log: Any
        defer: Callable[..., NoReturn]

    @property
    @abstractmethod
    def wait_seconds(self) -> float:
        """How long the wait may take."""

    @abstractmethod
    def conclude(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Return the XCom for the result ``{action, result, reason}``, or end the task as its action says."""

    @abstractmethod
    def time_out(self, last_poll: str) -> NoReturn:
        """End the task at the deadline; ``last_poll`` describes what the last poll saw."""

    @abstractmethod
    def give_up(self, message: str, error: WorkflowsError | None = None) -> NoReturn:
        """
        End the task because of an error that ends the wait.

        :param message: The error's class, a colon and its text; first in the message of the error that is raised, where
            ``WorkflowsRetryPolicy`` reads the class.
        :param error: The error; None if it occurred in the trigger.
        """

    @property
    def deadline(self) -> str | None:
        """The wall-clock end of the wait as an ISO-8601 time."""
        return None if self._deadline is None else self._deadline.isoformat()

    def mapped_label(self, map_index: int | None) -> str:
        """
        Return the label of a mapped task in Airflow's lists, which :data:`LABEL_TEMPLATE` renders.

        It is a kind and an id, because a DAG with native rendering would make a number of the id alone, with which
        Airflow fails the task.

        :param map_index: Index of the task; None or -1 if it is not mapped, then the label is empty.
        """
        if map_index is None or map_index < 0:
            return ""
        labels = ((kind, getattr(self, name, None)) for kind, name in self.label_parameters.items())
        label = next((f"{kind} {value}" for kind, value in labels if value), "")
        return label if len(label) <= MAX_LABEL_LENGTH else f"{label[: MAX_LABEL_LENGTH - 1]}…"

    # --- the deadline ---

    def start_wait(self, context: Context, key: str = DEADLINE) -> None:
        """
        Read what earlier pokes and tries of the wait have stored.

        :param key: Name of the deadline in the task state store; each wait of a task has its own.
        """
        is_rescheduled = bool(context.get("task_reschedule_count"))
        self._is_first_poke = getattr(context.get("ti"), "try_number", 1) in (None, 0, 1) and not is_rescheduled
        self._deadline = self.read_deadline(context, key)
        store = task_state_store(context)
        if self.pokes_in_new_processes and store is not None:
            self._take_polls(store.get(POLLS))

    def read_deadline(self, context: Context, key: str = DEADLINE) -> datetime:
        """Return the deadline that an earlier try stored, or the deadline of a wait that starts now."""
        end = datetime.now(timezone.utc) + timedelta(seconds=self.wait_seconds)
        store = task_state_store(context)
        if store is not None:
            if (stored := store.get(key)) is not None:
                return datetime.fromisoformat(stored)
            store.set(key, end.isoformat(), retention=self._retention)
        elif context.get("task_reschedule_count"):
            # Without a store Airflow knows when a task was first rescheduled; 3.0 may return it as text.
            first = parse_time(str(context["ti"].get_first_reschedule_date(context)))
            if first is not None:
                return first + timedelta(seconds=self.wait_seconds)
        return end

    def check_deadline(self) -> None:
        """End the task if the deadline has passed; to be called after a poll."""
        if self._deadline is not None and datetime.now(timezone.utc) >= self._deadline:
            self.time_out(self.standing)

    @property
    def _retention(self) -> timedelta:
        return timedelta(seconds=self.wait_seconds) + TTL_AFTER_DEADLINE

    # --- polls on a worker ---

    def poll(self, context: Context, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        """Poll once, unless the server asked to wait; return the result ``{action, result, reason}`` or None."""
        trigger.recorded = self._recorded_wait
        if time.monotonic() < self._not_before:
            return None
        if self._last_poll:
            trigger.last_poll = self._last_poll
        self._last_error = ""
        event = self.attempt(lambda: self.poll_on_worker(trigger))
        if not self._last_error:
            self._last_poll, self._rejections = trigger.last_poll, None
        trigger.last_fault = self._last_error
        self._is_first_poke = False
        if event is None:
            self.record_open_wait(context, trigger)
            self._store_polls(context)
        return event

    def poll_on_worker(self, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        """Read once, and return the result or None; the caller handles errors."""
        return trigger.poke_on_worker(self.hook, self.log)

    def attempt(self, read: Callable[[], Read]) -> Read | None:
        """Read without retries; return None after an error that does not end the wait."""
        try:
            with self.hook.without_retries():
                return read()
        except WorkflowsError as error:
            if isinstance(error, (AuthenticationError, ConnectionFailed)):
                self.hook.request_look_up()
            if self._ends_the_wait(error):
                self.give_up(f"{type(error).__name__}: {error}", error)
            self.record_error(error)
            return None

    def record_error(self, error: Exception) -> None:
        """Log an error that does not end the wait, and store it for the message of a timeout."""
        self._last_error = str(error) or type(error).__name__
        self.honour_wait(error)
        self.log.warning("Polling failed, will retry: %s", self._last_error)

    def honour_wait(self, error: Exception) -> None:
        """Do not poll before the time that the server stated with an error, if it did."""
        stated_wait = getattr(error, "wait", None) or 0.0
        self._not_before = time.monotonic() + min(stated_wait, MAX_STATED_WAIT_SECONDS)

    def _ends_the_wait(self, error: WorkflowsError) -> bool:
        is_first_poke, self._is_first_poke = self._is_first_poke, False
        if isinstance(error, TRANSIENT_ERRORS):
            return False
        if is_first_poke and self.fails_at_first_poke and fails_first_poke(error):
            return True
        now = time.time()
        self._rejections = Rejections.following(self._rejections, now)
        return self._rejections.are_final(now, rejection_patience_seconds())

    @property
    def standing(self) -> str:
        """What the last successful poll saw, and the error of a later one."""
        seen = self._last_poll or "No poll has succeeded."
        return f"{seen} The last poll failed: {self._last_error}" if self._last_error else seen

    # --- the description for people ---

    def record_open_wait(self, context: Context, trigger: WaitTrigger | None) -> None:
        """
        Store the description of the wait in the task state store (Airflow 3.3+) if it has changed.

        It is stored under a plain key, because people read it in Airflow's UI. Its ``try_number`` shows whether it
        belongs to an earlier try.

        :param trigger: The trigger that polled; None if the connection could not be read.
        """
        store = lasting_state_store(context)
        if store is None:
            return
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.rules.open_wait import OPEN_WAIT

        try:
            wait = self._describe_wait(store, trigger, getattr(context.get("ti"), "try_number", None))
            if wait.fingerprint != self._recorded_wait:
                store.set(OPEN_WAIT, wait.to_dict(), retention=self._retention)
                self._open_wait, self._recorded_wait = wait, wait.fingerprint
        except Exception as error:  # the description is for people only, so it must not end the wait
            if not self._cannot_record:
                self._cannot_record = True
                self.log.warning("The description of the wait could not be stored. %s: %s", type(error).__name__, error)
        if trigger is not None:
            trigger.recorded = self._recorded_wait

    def _describe_wait(self, store: StateStore, trigger: WaitTrigger | None, try_number: int | None) -> OpenWait:
        """Describe the wait as of the last successful poll of this try, and with the error of a later poll."""
        from airflow_provider_workflows.rules.open_wait import OPEN_WAIT, OpenWait  # likewise

        if not self._last_error and trigger is not None:
            return trigger.open_wait(try_number)
        described = self._open_wait or OpenWait.from_dict(store.get(OPEN_WAIT))
        if described is None or described.try_number != try_number:
            described = OpenWait(self.hook.product) if trigger is None else trigger.open_wait(try_number)
        return replace(
            described,
            last_error=self._last_error or None,
            polled_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            deadline=self.deadline,
            try_number=try_number,
        )

    # --- between two polls ---

    def go_on(self, context: Context, trigger: WaitTrigger | None, how: str) -> None:
        """
        Continue to wait after a poll on a worker without a result.

        :param trigger: The trigger that polled; None if the connection could not be read.
        :param how: Who polls next, and when, for the log.
        """
        assert self._deadline is not None
        started = self._deadline - timedelta(seconds=self.wait_seconds)
        self.log.info("Waiting since %s, until %s at most; %s.", time_text(started), time_text(self._deadline), how)

    def seconds_to_next_poll(self, interval: float) -> float:
        """Return the seconds to sleep: the interval, or more if the server asked for it, but not past the deadline."""
        pause = max(interval, self._not_before - time.monotonic())
        if self._deadline is None:
            return pause
        return max(0.0, min(pause, (self._deadline - datetime.now(timezone.utc)).total_seconds()))

    def defer_to(self, trigger: BaseTrigger) -> NoReturn:
        """Give the worker back until the trigger has an event."""
        assert self._deadline is not None
        timeout = self._deadline - datetime.now(timezone.utc) + TIMEOUT_AFTER_DEADLINE
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)

    def checked_result(self, event: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Return a trigger's event if it is a result ``{action, result, reason}``; otherwise end the task."""
        known = event if isinstance(event, Mapping) else {}
        status = known.get("status")
        if status == "done" and known.keys() >= RESULT_KEYS:
            return known
        if status == "timeout":
            self.time_out(str(known.get("last_poll") or ""))
        if status == "error":
            self.give_up(f"{known.get('error')}: {known.get('message')}")
        raise WorkflowsError(f"The trigger ended with an event that this version does not know: {event!r}")

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Poll once more if Airflow has ended the deferral, because then no triggerer has polled at the deadline."""
        if next_method == DEFERRAL_FAILED and (next_kwargs or {}).get("error") == TRIGGER_TIMEOUT:
            now = datetime.now(timezone.utc).isoformat()
            next_method, next_kwargs = "execute_complete", {"event": {"status": "poke", "deadline": now}}
        return super().resume_execution(next_method, next_kwargs, context)  # type: ignore[misc]  # of Airflow's operator

    # --- what the polls of earlier processes saw ---

    def polls_so_far(self) -> dict[str, Any]:
        """Return what the next process needs to know about the polls, as JSON primitives."""
        rejections = None if self._rejections is None else self._rejections.to_dict()
        return {
            "last_poll": self._last_poll,
            "last_error": self._last_error,
            "rejections": rejections,
            "recorded": self._recorded_wait,
        }

    def _take_polls(self, stored: Mapping[str, Any] | None) -> None:
        if stored is None:
            return
        self._stored_polls = dict(stored)
        self._last_poll, self._last_error = stored["last_poll"], stored["last_error"]
        self._rejections = Rejections.from_dict(stored["rejections"])
        self._recorded_wait = stored.get("recorded")

    def _store_polls(self, context: Context) -> None:
        store = task_state_store(context) if self.pokes_in_new_processes else None
        if store is not None and (polls := self.polls_so_far()) != self._stored_polls:
            store.set(POLLS, polls, retention=self._retention)
            self._stored_polls = polls
