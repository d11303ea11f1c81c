"""
The base class of all wait triggers.

It joins a shared poll, ends the wait at its deadline, and turns the outcome of a poll
into the event that resumes the task.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_workflows import exceptions
from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.rules.escalation import Escalation, next_level
from airflow_provider_workflows.rules.open_wait import OpenWait
from airflow_provider_workflows.rules.overdue import OverdueStep
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.settings import rejection_patience_seconds
from airflow_provider_workflows.triggers.open_wait import OpenWaitXCom

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import WorkflowsHook
    from airflow_provider_workflows.polling.poll import Poll, PollScope, Reader
    from airflow_provider_workflows.rules.overdue import PendingStep
    from airflow_provider_workflows.rules.wait_result import WaitResult

NOT_POLLED = "It was not polled."


class WaitTrigger(BaseTrigger):
    """
    Wait for one result until the deadline.

    :meth:`snapshot` reads, and :meth:`evaluate` derives the result. A sensor in poke or reschedule mode calls the same
    methods, so that every mode gives the same result. In a triggerer the poll of the wait's :meth:`scope` reads for all
    waits that share it. The trigger only reads, because Airflow may run it twice.

    :param poll_interval: Seconds between two polls; a shared poll uses the shortest interval of its waits.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    :param resume_kwargs: State that the resumed task needs, passed on in the event; JSON primitives.
    :param overdue_watch: Set if the task is to be resumed for an overdue step: ``{levels, escalation, next}``.
        ``levels`` are the times of each level of the ladder; ``escalation`` is what was done so far; ``next`` is the
        next :class:`OverdueStep`, as a dict, or None.
    :param last_poll: Description of what the last poll before the deferral found.
    :param last_step: The step and its assignees that were logged last in the task's log, or None.
    :param recorded: Fingerprint of the description of the wait that a worker stored before the deferral, or None.
    """

    # Python stores up to 30 attributes of an instance compactly, and Airflow and the subclasses have that many.
    __slots__ = (
        "_item_url",
        "_outcome",
        "_server_time",
        "_xcom",
        "deadline",
        "is_polled",
        "item",
        "last_fault",
        "last_poll",
        "last_step",
        "overdue_watch",
        "pending_step",
        "poll_interval",
        "recorded",
        "resume_kwargs",
        "workflow",
    )

    def __init__(
        self,
        *,
        poll_interval: float,
        deadline: str | None,
        resume_kwargs: Any = None,
        overdue_watch: dict[str, Any] | None = None,
        last_poll: str | None = None,
        last_step: list[str] | None = None,
        recorded: str | None = None,
    ):
        super().__init__()
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.resume_kwargs = resume_kwargs
        self.overdue_watch = overdue_watch
        self.pending_step: PendingStep | None = None  # as of the last poll, if the wait is about steps
        self.item: Mapping[str, str | None] | None = None  # as of the last poll; ids for the item's link
        self.workflow: str | None = None  # name of the workflow, as of the last poll
        self.is_polled = False  # successfully, by this trigger
        self.last_poll = last_poll or NOT_POLLED
        self.last_step = last_step
        self.recorded = recorded
        self.last_fault = ""  # error of the last failed poll; "" after a successful one
        self._outcome: asyncio.Future[Any] | None = None
        self._xcom = OpenWaitXCom(self)
        self._server_time: Callable[[], datetime] | None = None
        self._item_url: Callable[..., str] | None = None

    @property
    @abstractmethod
    def connection(self) -> tuple[str | None, ...]:
        """The API, the connection's id, and all else that :meth:`open_hook` depends on."""

    def scope(self) -> PollScope:
        """Return the scope that is polled for this wait and others; by default each wait is polled individually."""
        from airflow_provider_workflows.polling.list_poll import SinglePollScope

        return SinglePollScope(self)

    @abstractmethod
    def open_hook(self) -> WorkflowsHook:
        """Create the hook for :meth:`snapshot`."""

    @abstractmethod
    def snapshot(self, hook: Any) -> Any:
        """Read the state that the wait depends on; runs in a thread, and sends only a few requests."""

    @abstractmethod
    def evaluate(self, snapshot: Any) -> WaitResult | None:
        """Return the result of the wait, or None while it continues; no I/O."""

    @abstractmethod
    def describe(self, snapshot: Any) -> str:
        """Return a log line with the current state and the states or steps that end the wait."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Return the subclass's own constructor arguments; Airflow stores them in its database in clear text."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        common: dict[str, Any] = {"poll_interval": self.poll_interval, "deadline": self.deadline}
        optional = {
            "resume_kwargs": self.resume_kwargs,
            "overdue_watch": self.overdue_watch,
            "last_poll": None if self.last_poll == NOT_POLLED else self.last_poll,
            "last_step": self._step(),
            "recorded": self.recorded,
        }
        common |= {name: value for name, value in optional.items() if value is not None}
        return f"{cls.__module__}.{cls.__qualname__}", {**self.arguments(), **common}

    def poll_once(self, hook: Any) -> tuple[Any, WaitResult | OverdueStep | None]:
        """
        Read and evaluate, in a thread.

        :return: The snapshot and its outcome.
        :raises UnexpectedResponse: a response is malformed. Without this error the trigger would crash, which looks
            like a failure of Airflow.
        """
        try:
            with documented_form():
                snapshot = self.snapshot(hook)
                self.use_hook(hook)
                return snapshot, self.outcome_of(snapshot)
        except WorkflowsError as fault:
            self.last_fault = str(fault)
            raise

    async def poll_one(self, reader: Reader) -> WaitResult | OverdueStep | None:
        """Poll this wait individually in a triggerer; a wait that needs many requests makes a call for each."""
        _, outcome = await reader.call(self.poll_once)
        return outcome

    def outcome_of(self, snapshot: Any) -> WaitResult | OverdueStep | None:
        """Return the result of the wait; without a result return the overdue step, if any. Update :attr:`last_poll`."""
        wait_result = self.evaluate(snapshot)
        self.last_poll, self.last_fault = self.describe(snapshot), ""
        self.item, self.is_polled = self.item_of(snapshot), True
        if self.overdue_watch is None or wait_result is not None:
            return wait_result
        self.plan_escalation(self.escalation)
        return self.overdue()

    @property
    def escalation(self) -> Escalation:
        """What was done about the overdue steps of this wait."""
        return Escalation.from_dict(None if self.overdue_watch is None else self.overdue_watch["escalation"])

    def plan_escalation(self, escalation: Escalation) -> None:
        """Store what was done about overdue steps, and which level is due next at the step of the last poll."""
        if self.overdue_watch is None:
            return
        overdue_step = next_level(self.pending_step, self.overdue_watch["levels"], escalation)
        self.overdue_watch["escalation"] = escalation.to_dict()
        self.overdue_watch["next"] = None if overdue_step is None else overdue_step.to_dict()

    def overdue(self) -> OverdueStep | None:
        """Return the step of the last poll if a level of the ladder is due for it now."""
        if self.overdue_watch is None or self.overdue_watch["next"] is None:
            return None
        try:
            overdue_step = OverdueStep(**self.overdue_watch["next"])
        except TypeError:  # stored by another version of this package; the next poll replaces it
            return None
        return None if overdue_step.at > self.server_now() else overdue_step

    def server_now(self) -> float:
        """Return the Unix time, by the server's clock once a response has stated it."""
        return time.time() if self._server_time is None else self._server_time().timestamp()

    def use_hook(self, hook: WorkflowsHook) -> None:
        """
        Take over the server's clock and the form of its links.

        Due dates are compared with the server's clock, as stated in its responses, because the server has set them.
        """
        self._server_time, self._item_url = hook.client.server_time, hook.item_url

    # --- the description for people ---

    @property
    def product(self) -> str:
        """The API that the wait polls: ``procore``, ``procore_legacy`` or ``workflowsoft``."""
        return str(self.connection[0])

    @property
    def subject(self) -> str | None:
        """What the task waits for, in a few words."""
        return None

    @property
    def current_error(self) -> str:
        """Error of a poll, if none has succeeded since, or ""."""
        return self.last_fault

    @property
    def requested_item(self) -> Mapping[str, str | None]:
        """The ids ``{instance_id, item_id, tool_type, project_id}``, as far as the arguments name them."""
        return {}

    def item_of(self, snapshot: Any) -> Mapping[str, str | None] | None:
        """Return all ids of :attr:`requested_item` for the polled item; None if the wait is not about one item."""
        return None

    def open_wait(self, try_number: int | None = None) -> OpenWait:
        """
        Describe the wait for people, as of the last poll.

        :param try_number: Number of the task's try; by default that of the trigger's task instance.
        """
        step = self.pending_step
        error = self.current_error
        details: dict[str, Any] = {**self.requested_item, **(self.item or {})}
        if step is not None:
            escalation = self.escalation
            details["escalation_level"] = escalation.level(step.step_occurrence_id)
            error = error or escalation.problem(step.step_occurrence_id) or ""
            known = {"step": step.step, "since": step.since, "due": step.due}
            details |= {name: str(value) for name, value in known.items() if value is not None}
            details |= {"assignees": step.assignees, "is_overdue": step.is_overdue}
        url = "" if self.item is None or self._item_url is None else self._item_url(**self.item)
        return OpenWait(
            product=self.product,
            subject=self.subject,
            workflow=self.workflow,
            **details,
            item_url=url or None,
            last_error=error or None,
            polled_at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            try_number=getattr(self.task_instance, "try_number", None) if try_number is None else try_number,
        )

    @property
    def standing(self) -> str:
        """Description of what the last successful poll found, and the error of a later poll."""
        return f"{self.last_poll} The last poll failed: {self.last_fault}" if self.last_fault else self.last_poll

    def poke_on_worker(self, hook: Any, log: Any) -> dict[str, Any] | None:
        """Poll once in a task; return the event of the result, or None while the wait continues. Errors are raised."""
        _, outcome = self.poll_once(hook)
        log.info("%s", self.last_poll)
        return None if outcome is None or isinstance(outcome, OverdueStep) else self._event(outcome)

    def _event(self, wait_result: WaitResult) -> dict[str, Any]:
        resume = {} if self.resume_kwargs is None else {"resume_kwargs": self.resume_kwargs}
        return {**wait_result.to_event(), **resume, **self._escalation_so_far()}

    def _escalation_so_far(self) -> dict[str, Any]:
        return {} if self.overdue_watch is None else {"escalation": self.overdue_watch["escalation"]}

    # --- in a triggerer ---

    async def run(self) -> AsyncIterator[TriggerEvent]:
        # Airflow cancels a trigger that continues after its event, so nothing follows the yield.
        try:
            event = await self._wait()
        finally:
            self._xcom.close()
        yield TriggerEvent(event)

    @property
    def is_absent(self) -> bool:
        """Whether the record is known to be missing, so that a list without its row is no reason to poll it."""
        return False

    @property
    def parts(self) -> Sequence[WaitTrigger]:
        """The subscribers of polls on behalf of this wait: itself, unless it depends on several scopes."""
        return (self,)

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_workflows.polling.list_poll import MOVED
        from airflow_provider_workflows.polling.poll import MIN_FIRST_DELAY_SECONDS, subscribe

        started = time.monotonic()
        outcome: Any = MOVED
        while outcome is MOVED:
            self._outcome = asyncio.get_running_loop().create_future()
            polls = [(part, subscribe(part.scope(), part, self.poll_interval)) for part in self.parts]
            try:
                outcome = await self._next_outcome(polls, self._outcome)
            finally:
                for part, poll in polls:
                    self.last_fault = self.last_fault or poll.fault
                    poll.remove(part)
        # A wait that joins a running poll can have its result at once.
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

    async def _next_outcome(self, polls: Sequence[tuple[WaitTrigger, Poll]], outcome: asyncio.Future[Any]) -> Any:
        """Return the outcome, or None if the deadline and one last poll bring none."""
        from airflow_provider_workflows.polling.poll import MAX_LAST_POLL_SECONDS, MAX_SLEEP_SECONDS

        while not outcome.done() and (left := self._seconds_left()) > 0:
            # Read the wall-clock regularly, because the event loop's clock stands still while the machine sleeps.
            await asyncio.wait([outcome], timeout=min(left, MAX_SLEEP_SECONDS))
        last_polls = [] if outcome.done() else [poll.poll_now(part) for part, poll in polls if poll.may_send_soon]
        if last_polls:
            done = [outcome, asyncio.gather(*last_polls)]
            await asyncio.wait(done, timeout=MAX_LAST_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return outcome.result() if outcome.done() else None

    def deliver(self, outcome: Any) -> None:
        """Receive the outcome of a poll; while the wait continues, log each new step with its assignees."""
        if outcome is not None:
            if self._outcome is not None and not self._outcome.done():
                self._outcome.set_result(outcome)
            return
        step = self._step()
        if self.pending_step is not None and step is not None and step != self.last_step:
            self.log.info("%s", self.pending_step.waiting_for())
        self.last_step = step
        self._xcom.update()

    def report_outage(self, fault: str | None) -> None:
        """Log in the task's log that polling has failed for longer than the patience, or that it works again."""
        self.last_fault = fault or ""
        self._xcom.update()
        if fault is None:
            self.log.info("Polling works again, the wait continues.")
        else:
            minutes = rejection_patience_seconds() / 60
            self.log.warning("Polling has failed for more than %.0f minutes, will retry: %s", minutes, fault)

    def _step(self) -> list[str] | None:
        """Return the step occurrence and its assignees as of the last poll, to notice when they change."""
        if self.pending_step is None:
            return self.last_step
        return [str(self.pending_step.step_occurrence_id), *self.pending_step.assignees]

    def _overdue_event(self, overdue_step: OverdueStep) -> dict[str, Any]:
        # All state that the resumed task needs, because dag.test() drops the keyword arguments of a deferral. Without
        # the assignees, which the task reads again.
        return {
            "status": "overdue",
            **overdue_step.to_dict(),
            **self._escalation_so_far(),
            "deadline": self.deadline,
        }

    def _seconds_left(self) -> float:
        if self.deadline is None:
            return float("inf")
        return (datetime.fromisoformat(self.deadline) - datetime.now(timezone.utc)).total_seconds()


def _public_name(error: WorkflowsError) -> str:
    """Return the name of an error's class; for an internal class, that of its public base class."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in exceptions.__all__)
