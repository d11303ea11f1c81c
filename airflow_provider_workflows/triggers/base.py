"""How every wait of this package runs in a triggerer."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_workflows import exceptions
from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.rules.overdue import OverdueStep, overdue_step_of
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.settings import rejection_patience_seconds

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import WorkflowsHook
    from airflow_provider_workflows.polling.poll import Poll, PollScope, Reader
    from airflow_provider_workflows.rules.overdue import PendingStep
    from airflow_provider_workflows.rules.wait_result import WaitResult

NOT_POLLED = "It was not polled."


class WaitTrigger(BaseTrigger):
    """
    Waits for one thing until a verdict falls or the deadline passes.

    ``snapshot`` reads and ``decide`` says what was read means; a sensor in poke or reschedule mode calls the
    same two, so that every mode gives the same result. In a triggerer the poll of the wait's :meth:`scope` reads for
    all waits there. The trigger only reads, for Airflow may run it twice.

    :param poll_interval: Seconds between two polls; a shared poll takes the fewest that one of its waits asks for.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    :param resume_kwargs: What the resumed task needs to know again, passed on in the event; JSON primitives.
    :param watch: Set when the task wants to be resumed for an overdue step: ``{after, known, next}``, the seconds that
        a step may be pending or None for the product's due date, the step occurrences that the task was resumed for,
        and the :class:`OverdueStep` that comes next, as a dict, or None.
    :param last_poll: Where the last poll before the deferral has found it, in words.
    :param last_step: The step and its assignees that the task's log has named last, or None.
    """

    def __init__(
        self,
        *,
        poll_interval: float,
        deadline: str | None,
        resume_kwargs: Any = None,
        overdue_watch: dict[str, Any] | None = None,
        last_poll: str | None = None,
        last_step: list[str] | None = None,
    ):
        super().__init__()
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.resume_kwargs = resume_kwargs
        self.overdue_watch = overdue_watch
        self.pending_step: PendingStep | None = None  # as the last poll found it, where the product has steps
        self.item: Mapping[str, Any] | None = None  # likewise, on a worker; what the link to it is made of
        self.last_poll = last_poll or NOT_POLLED
        self.last_step = last_step
        self.last_fault = ""  # what keeps the polls from succeeding
        self._outcome: asyncio.Future[Any] | None = None
        self._server_time: Callable[[], datetime] | None = None

    @property
    @abstractmethod
    def connection(self) -> tuple[str | None, ...]:
        """The API, the connection's id, and whatever else :meth:`open_hook` depends on."""

    def scope(self) -> PollScope:
        """Return what is polled for this wait and others; by default each wait is polled by itself."""
        from airflow_provider_workflows.polling.list_poll import SinglePollScope

        return SinglePollScope(self)

    @abstractmethod
    def open_hook(self) -> WorkflowsHook:
        """Return the hook that :meth:`snapshot` reads through."""

    @abstractmethod
    def snapshot(self, hook: Any) -> Any:
        """Read what the wait is about; runs in a thread, makes no more than a few requests."""

    @abstractmethod
    def evaluate(self, snapshot: Any) -> WaitResult | None:
        """Say whether the wait is over; no I/O."""

    @abstractmethod
    def describe(self, snapshot: Any) -> str:
        """Say in a line for the log what is waited for and where it stands."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the subclass's own constructor arguments; they lie in the database in clear text."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        common: dict[str, Any] = {"poll_interval": self.poll_interval, "deadline": self.deadline}
        optional = {
            "resume_kwargs": self.resume_kwargs,
            "overdue_watch": self.overdue_watch,
            "last_poll": None if self.last_poll == NOT_POLLED else self.last_poll,
            "last_step": self._step(),
        }
        common |= {name: value for name, value in optional.items() if value is not None}
        return f"{cls.__module__}.{cls.__qualname__}", {**self.arguments(), **common}

    def poll_once(self, hook: Any) -> tuple[Any, WaitResult | OverdueStep | None]:
        """
        Read, and evaluate what was read; for a thread.

        :raises UnexpectedResponse: a response is malformed. A trigger that crashes on one would look like a failure of
            Airflow's.
        """
        try:
            with documented_form():
                snapshot = self.snapshot(hook)
                self.use_clock_of(hook)
                return snapshot, self.outcome_of(snapshot)
        except WorkflowsError as fault:
            self.last_fault = str(fault)
            raise

    async def poll_singly(self, reader: Reader) -> WaitResult | OverdueStep | None:
        """Poll by itself in a triggerer; a wait that needs many requests makes a call for each."""
        _, outcome = await reader.call(self.poll_once)
        return outcome

    def outcome_of(self, snapshot: Any) -> WaitResult | OverdueStep | None:
        """Decide, and describe where it stands; an overdue step comes out when nothing is decided."""
        wait_result = self.evaluate(snapshot)
        self.last_poll, self.last_fault = self.describe(snapshot), ""
        if self.overdue_watch is None or wait_result is not None:
            return wait_result
        overdue_step = overdue_step_of(self.pending_step, self.overdue_watch["after"])
        self.overdue_watch["next"] = None if overdue_step is None else overdue_step.to_dict()
        return self.overdue()

    def overdue(self) -> OverdueStep | None:
        """Return the step that is overdue by now if nothing has changed since the last poll, unless it is known."""
        if self.overdue_watch is None or self.overdue_watch["next"] is None:
            return None
        try:
            overdue_step = OverdueStep(**self.overdue_watch["next"])
        except TypeError:  # of another version of this package; the next poll finds it again
            return None
        is_known = overdue_step.step_occurrence_id in self.overdue_watch["known"]
        now = time.time() if self._server_time is None else self._server_time().timestamp()
        return None if is_known or overdue_step.at > now else overdue_step

    def use_clock_of(self, hook: WorkflowsHook) -> None:
        """Compare when a step is due with the time of the server, which has set it; its responses state that time."""
        self._server_time = hook.client.server_time

    def item_of(self, snapshot: Any) -> Mapping[str, Any] | None:
        """Return the ids of the item that was polled, where the wait is about one."""
        return None

    @property
    def standing(self) -> str:
        """Where the last poll found it, and what has kept the polls from succeeding since."""
        return f"{self.last_poll} The last poll failed: {self.last_fault}" if self.last_fault else self.last_poll

    def poke_on_worker(self, hook: Any, log: Any) -> dict[str, Any] | None:
        """Poll once in a task and return the event of the verdict, or None to go on; the task handles the errors."""
        snapshot, outcome = self.poll_once(hook)
        self.item = self.item_of(snapshot)
        log.info("%s", self.last_poll)
        return None if outcome is None or isinstance(outcome, OverdueStep) else self._event(outcome)

    def _event(self, wait_result: WaitResult) -> dict[str, Any]:
        carried = {} if self.resume_kwargs is None else {"resume_kwargs": self.resume_kwargs}
        return {**wait_result.to_event(), **carried}

    # --- in a triggerer ---

    async def run(self) -> AsyncIterator[TriggerEvent]:
        # Airflow cancels a trigger that goes on after its event, so nothing follows the yield.
        yield TriggerEvent(await self._wait())

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_workflows.polling.list_poll import MOVED
        from airflow_provider_workflows.polling.poll import MIN_FIRST_DELAY_SECONDS, subscribe

        started = time.monotonic()
        outcome: Any = MOVED
        while outcome is MOVED:
            self._outcome = asyncio.get_running_loop().create_future()
            poll = subscribe(self.scope(), self, self.poll_interval)
            try:
                outcome = await self._next_outcome(poll, self._outcome)
            finally:
                self.last_fault = self.last_fault or poll.fault
                poll.remove(self)
        # A wait that joins a poll which runs already can be over at once.
        await asyncio.sleep(started + MIN_FIRST_DELAY_SECONDS - time.monotonic())
        if outcome is None:
            return {"status": "timeout", "last_poll": self.standing}
        if isinstance(outcome, WorkflowsError):
            error = {"error": _public_name(outcome), "message": str(outcome)}
            return {"status": "error", **error, "deadline": self.deadline}
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, OverdueStep):
            return self._overdue_event(outcome)
        return {"status": "done", **self._event(outcome), "deadline": self.deadline}

    async def _next_outcome(self, poll: Poll, outcome: asyncio.Future[Any]) -> Any:
        """Return what comes out, or None at the deadline, after one last poll."""
        from airflow_provider_workflows.polling.poll import MAX_LAST_POLL_SECONDS, MAX_SLEEP_SECONDS

        while not outcome.done() and (left := self._seconds_left()) > 0:
            # Now and then by the wall-clock, for the loop's own clock stands still while the machine sleeps.
            await asyncio.wait([outcome], timeout=min(left, MAX_SLEEP_SECONDS))
        if not outcome.done() and poll.may_send_soon:
            done = [outcome, poll.poll_now(self)]
            await asyncio.wait(done, timeout=MAX_LAST_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return outcome.result() if outcome.done() else None

    def deliver(self, outcome: Any) -> None:
        """Take what a poll brought; where the wait goes on, say in the task's log whom it waits for by now."""
        if outcome is not None:
            if self._outcome is not None and not self._outcome.done():
                self._outcome.set_result(outcome)
            return
        step = self._step()
        if self.pending_step is not None and step is not None and step != self.last_step:
            self.log.info("%s", self.pending_step.waiting_for())
        self.last_step = step

    def report_outage(self, fault: str | None) -> None:
        """Say in the task's log that nothing could be polled for it for long, or that it can be again."""
        if fault is None:
            self.log.info("Polling works again, the wait goes on.")
        else:
            minutes = rejection_patience_seconds() / 60
            self.log.warning("Polling has failed for more than %.0f minutes, will retry: %s", minutes, fault)

    def _step(self) -> list[str] | None:
        """Return what tells a change of the step or of its assignees, as the last poll found them."""
        if self.pending_step is None:
            return self.last_step
        return [str(self.pending_step.step_occurrence_id), *self.pending_step.assignees]

    def _overdue_event(self, overdue_step: OverdueStep) -> dict[str, Any]:
        # With all that the resumed task needs: dag.test() drops the keyword arguments of a deferral. Without the
        # assignees, which the task reads again; only the event of a timeout names them, as the task's own log does.
        known = [] if self.overdue_watch is None else self.overdue_watch["known"]
        return {"status": "overdue", **overdue_step.to_dict(), "known": known, "deadline": self.deadline}

    def _seconds_left(self) -> float:
        if self.deadline is None:
            return float("inf")
        return (datetime.fromisoformat(self.deadline) - datetime.now(timezone.utc)).total_seconds()


def _public_name(error: WorkflowsError) -> str:
    """Return the name of an error's class, or of the base class that users can import from ``exceptions``."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in exceptions.__all__)
