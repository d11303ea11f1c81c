"""How every wait of this package runs in a triggerer."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_workflows import exceptions
from airflow_provider_workflows.exceptions import (
    ConnectionFailed,
    RateLimited,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.rules.forms import documented_form
from airflow_provider_workflows.rules.holdings import Attention, attention_to

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import WorkflowsHook
    from airflow_provider_workflows.rules.holdings import Holding
    from airflow_provider_workflows.rules.verdicts import Verdict
    from airflow_provider_workflows.triggers.shared_poll import Scope

# A wait goes on through these: the product is away for a while, the wait itself is not at fault.
PASSING_FAULTS = (ConnectionFailed, RateLimited, ServerError)
# Airflow can fail a task whose trigger fires within one to five seconds of its deferral (a stale executor event,
# apache/airflow#66374 and others).
SHORTEST_FIRST_PAUSE = 5.0
SHORTEST_INTERVAL = 1.0  # seconds between two polls, whatever is asked for
LONGEST_SLEEP = 3600.0
MOVED = object()  # the wait has learned what it can be polled by, together with others


class WaitTrigger(BaseTrigger):
    """
    Waits for one thing until a verdict falls or the deadline passes.

    ``snapshot`` reads and ``decide`` says what was read means; a sensor in poke or reschedule mode calls the
    same two, so that every mode gives the same result. In a triggerer the poll of the wait's :meth:`scope` reads for
    all waits there. The trigger only reads, for Airflow may run it twice.

    :param poll_interval: Seconds between two looks; a poll takes the fewest that one of its waits asks for.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    :param carry: What the resumed task needs to know again, handed on in the event; JSON primitives.
    :param watch: Set when somebody wants to hear of a step that is held for too long: ``{after, known, next}``, the
        seconds that is or None for the product's due date, the step occurrences that were told of, and the
        :class:`Attention` that comes next, as a dict, or None.
    """

    def __init__(
        self, *, poll_interval: float, deadline: str | None, carry: Any = None, watch: dict[str, Any] | None = None
    ):
        super().__init__()
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.carry = carry
        self.watch = watch
        self.holding: Holding | None = None  # as the last look found it, where the product has steps
        self.item: Mapping[str, Any] | None = None  # likewise, on a worker; what the link to it is made of
        self.last_look = "It was not looked at."  # where the last look found it, in words
        self.last_fault = ""  # what has kept us from looking since
        self.odd_looks = 0  # in a row, with an answer in a form nobody knows

    @property
    @abstractmethod
    def connection(self) -> tuple[str | None, ...]:
        """The product, the connection's id, and whatever else :meth:`open_hook` depends on."""

    def scope(self) -> Scope:
        """Return what is polled for this wait and others; by default each wait looks for itself."""
        from airflow_provider_workflows.triggers.shared_poll import LookScope

        return LookScope(self)

    @abstractmethod
    def open_hook(self) -> WorkflowsHook:
        """Return the hook that :meth:`snapshot` reads through."""

    @abstractmethod
    def snapshot(self, hook: Any) -> Any:
        """Read what the wait is about; runs in a thread, makes no more than a few requests."""

    @abstractmethod
    def decide(self, snapshot: Any) -> Verdict | None:
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
        if self.carry is not None:
            common["carry"] = self.carry
        if self.watch is not None:
            common["watch"] = self.watch
        return f"{cls.__module__}.{cls.__qualname__}", {**self.arguments(), **common}

    def look(self, hook: Any) -> tuple[Any, Verdict | Attention | None]:
        """
        Read, and decide what was read; for a thread.

        :raises ContractError: an answer has a form that nobody documents. A trigger that crashes on one would
            look like a failure of Airflow's.
        """
        try:
            with documented_form():
                snapshot = self.snapshot(hook)
                return snapshot, self.judge(snapshot)
        except WorkflowsError as fault:
            self.last_fault = str(fault)
            raise

    def look_in_steps(self, hook: Any) -> Generator[Any, None, Verdict | Attention | None]:
        """Look in a poll; a wait that needs many requests yields ``[]`` after each, so that others come in between."""
        from airflow_provider_workflows.triggers.shared_poll import patiently

        looked: tuple[Any, Verdict | Attention | None] = yield from patiently(self.look, hook)
        return looked[1]

    def judge(self, snapshot: Any) -> Verdict | Attention | None:
        """Decide, and keep in words where it stands; what is held for too long is told when nothing is decided."""
        verdict = self.decide(snapshot)
        self.last_look, self.last_fault = self.describe(snapshot), ""
        if self.watch is None or verdict is not None:
            return verdict
        attention = attention_to(self.holding, self.watch["after"])
        self.watch["next"] = None if attention is None else attention.to_dict()
        return self.overdue()

    def overdue(self) -> Attention | None:
        """Say what is held for too long by now if nothing has changed since the last look, unless it was told."""
        if self.watch is None or self.watch["next"] is None:
            return None
        attention = Attention(**self.watch["next"])
        is_told = attention.step_occurrence_id in self.watch["known"]
        return None if is_told or attention.at > time.time() else attention

    def item_of(self, snapshot: Any) -> Mapping[str, Any] | None:
        """Return the ids of the item that was looked at, where the wait is about one."""
        return None

    @property
    def standing(self) -> str:
        """Where the last look found it, and what has kept us from looking since."""
        return f"{self.last_look} The last look failed: {self.last_fault}" if self.last_fault else self.last_look

    def look_on_worker(self, hook: Any, log: Any) -> dict[str, Any] | None:
        """Look once in a task and return the event of the verdict, or None to go on; the task handles the errors."""
        snapshot, outcome = self.look(hook)
        self.item = self.item_of(snapshot)
        log.info("%s", self.last_look)
        return None if outcome is None or isinstance(outcome, Attention) else self._event(outcome)

    def _event(self, verdict: Verdict) -> dict[str, Any]:
        carried = {} if self.carry is None else {"carry": self.carry}
        return {**verdict.to_event(), **carried}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        # Airflow cancels a trigger that goes on after its event, so nothing follows the yield.
        yield TriggerEvent(await self._wait())

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_workflows.triggers.shared_poll import subscribe

        begun = time.monotonic()
        outcome: Any = MOVED
        while outcome is MOVED:
            outcome = None
            handed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            poll = subscribe(self.scope(), self, self.poll_interval, partial(_hand, handed))
            try:
                while not handed.done() and (left := self._seconds_left()) > 0:
                    # Now and then by the clock on the wall, for the loop's own stands still while the machine sleeps.
                    await asyncio.wait([handed], timeout=min(left, LONGEST_SLEEP))
                outcome = handed.result() if handed.done() else None
            finally:
                poll.remove(self)
                self.last_fault = self.last_fault or poll.fault
        # A wait that joins a poll which runs already can be over at once.
        await asyncio.sleep(begun + SHORTEST_FIRST_PAUSE - time.monotonic())
        if outcome is None:
            return {"status": "timeout", "last_look": self.standing}
        if isinstance(outcome, WorkflowsError):
            return {"status": "error", "error": _public_name(outcome), "message": str(outcome)}
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Attention):
            return self._attention_event(outcome)
        return {"status": "done", **self._event(outcome)}

    def _attention_event(self, attention: Attention) -> dict[str, Any]:
        # With all that the resumed task needs: dag.test() drops the keyword arguments of a deferral. Without the
        # holders, whom the task reads anew; only the event of a timeout names them, as the task's own log does.
        known = [] if self.watch is None else self.watch["known"]
        return {"status": "attention", **attention.to_dict(), "known": known, "deadline": self.deadline}

    def _seconds_left(self) -> float:
        if self.deadline is None:
            return float("inf")
        return (datetime.fromisoformat(self.deadline) - datetime.now(timezone.utc)).total_seconds()


async def in_thread(call: Any, *args: Any) -> Any:
    """Run a blocking call on this package's own few threads, away from the event loop and from its default pool."""
    return await asyncio.get_running_loop().run_in_executor(threads(), call, *args)


@cache
def threads() -> ThreadPoolExecutor:
    """Return this package's own few threads."""
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="workflows-poll")


def _hand(handed: asyncio.Future[Any], outcome: Any) -> None:
    if not handed.done():
        handed.set_result(outcome)


def _public_name(error: WorkflowsError) -> str:
    """Return the name of an error's class, or of the base class that users can import from ``exceptions``."""
    return next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in exceptions.__all__)
