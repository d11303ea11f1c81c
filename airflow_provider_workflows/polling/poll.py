"""One poll loop for everything in a triggerer that waits on the same part of Procore or Workflowsoft."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import re
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import (
    TRANSIENT_ERRORS,
    AuthenticationError,
    SignInFailed,
    WorkflowsError,
)
from airflow_provider_workflows.polling.channel import LoopState, SharedConnection
from airflow_provider_workflows.rules.datetimes import parse_time
from airflow_provider_workflows.rules.patience import Rejections
from airflow_provider_workflows.settings import rejection_patience_seconds

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import WorkflowsHook

log = logging.getLogger(__name__)
Result = TypeVar("Result")

# Airflow can fail a task whose trigger fires within one to five seconds of its deferral (a stale executor event,
# apache/airflow#66374 and others).
MIN_FIRST_DELAY_SECONDS = 5.0
MIN_INTERVAL_SECONDS = 1.0  # between two polls, whatever is asked for
MAX_REJECTED_DELAY_SECONDS = 600.0  # between two polls that are rejected for longer than a wait's patience
MAX_LAST_POLL_SECONDS = 60.0  # after the deadline; Airflow's own timeout comes two minutes after it
MAX_SLEEP_SECONDS = 3600.0  # by the event loop's clock, until the wall-clock is read again
MAX_CONSECUTIVE_FAULTS = 3  # in a poll cycle, so that a server in trouble is not asked about each wait


class Subscriber(Protocol):
    """What a poll reads for."""

    last_fault: str  # what keeps the polls from succeeding

    def deliver(self, outcome: Any) -> None:
        """
        Take what a poll brought, on the event loop and in the context of the subscription.

        :param outcome: None when there is nothing to act on; a :class:`WorkflowsError` that ends the wait; or what the
            scope makes of what it has read.
        """

    def report_outage(self, fault: str | None) -> None:
        """Take what keeps the polls from succeeding for longer than the patience setting; None when it is over."""


class PollScope(ABC):
    """
    What one poll reads, for any number of subscribers in this process.

    :param conn_id: Id of the Airflow connection.
    """

    max_stretch: ClassVar[float] = 1.0  # by how much the random time between two polls is longer than the interval

    def __init__(self, conn_id: str):
        self.conn_id = conn_id
        self.oldest_step: str | None = None  # start of the step that has been pending for the longest

    def record_step(self, since: Any) -> None:
        """Take the start of a pending step; the API's times are all in UTC, so their texts compare."""
        if isinstance(since, str) and (self.oldest_step is None or since < self.oldest_step):
            self.oldest_step = since

    @property
    @abstractmethod
    def key(self) -> tuple[Hashable, ...]:
        """What tells scopes apart; those with the same key are polled once. It starts with the API's name."""

    @property
    @abstractmethod
    def hook_key(self) -> Hashable:
        """What tells apart the hooks that :meth:`open_hook` returns for one connection."""

    @abstractmethod
    def open_hook(self) -> WorkflowsHook:
        """Return the hook to read through, without looking its connection up."""

    @abstractmethod
    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        """
        Read on behalf of the subscribers, and deliver what came out for each.

        An error that is raised concerns all to whom nothing was delivered yet.

        :param reader: Makes the calls and delivers.
        :param subscribers: Those that were not read for the longest come first.
        """

    def close(self) -> None:  # noqa: B027  few scopes are known to others
        """Take leave of what knows this scope; its poll has ended."""

    def first_delay(self, interval: float) -> float:
        """Return the seconds before the first poll, so that the triggerers of a deployment do not poll in step."""
        return max(MIN_FIRST_DELAY_SECONDS, interval * random.random())


class CycleStopped(Exception):
    """Raised to end a poll cycle in which several consecutive calls failed; those not read for come first next time."""

    def __init__(self, fault: WorkflowsError):
        super().__init__(str(fault))
        self.fault = fault


@dataclass
class _Subscription:
    interval: float
    context: contextvars.Context
    read: int = 0  # the number of the poll cycle that read for it last, with or without success
    served_at: float = field(default_factory=time.monotonic)
    rejections: Rejections | None = None
    outage_is_reported: bool = False


class Reader:
    """
    Makes the calls of one poll cycle, one after another, and delivers what they bring.

    :param poll: Whose cycle it is.
    """

    def __init__(self, poll: Poll):
        self._poll = poll
        self._consecutive_faults = 0
        self.fault: WorkflowsError | None = None  # the last one that the cycle went on after
        self.left: set[Any] = set()  # subscribers to whom nothing was delivered in this cycle

    async def call(self, function: Callable[[Any], Result]) -> Result:
        """
        Call a function with the hook in a thread; it makes one request as a rule.

        :raises WorkflowsError: what the function raises; never :class:`RateLimited` at first, for then it is called
            again when the server allows it.
        """
        return await self._poll.call(function)

    async def collect(self, rows: Any, each: Callable[[Any], object], page_size: int) -> int:
        """
        Hand each row of a list to a function, a page in each call; return how many there were.

        :param rows: What a hook's list method returns; it goes on where an error has interrupted it.
        """
        count = 0

        def counted(row: Any) -> None:
            nonlocal count
            count += 1
            each(row)

        while await self.call(lambda hook: take(rows, counted, page_size)) == page_size:
            pass
        return count

    def has(self, subscriber: Any) -> bool:
        """Tell whether a subscriber is still there."""
        return self._poll.has(subscriber)

    def deliver(self, subscriber: Any, outcome: Any) -> None:
        """Deliver what came out for a subscriber: nothing to act on (None), its own error, or something else."""
        if isinstance(outcome, TRANSIENT_ERRORS):
            self.fault = outcome
            self._poll.postpone(subscriber, outcome)
            return
        self.left.discard(subscriber)
        if isinstance(outcome, WorkflowsError):
            self._poll.reject(subscriber, outcome)
        else:
            self._poll.serve(subscriber, outcome)

    def deliver_all(self, outcomes: Iterable[tuple[Any, Any]]) -> None:
        for subscriber, outcome in outcomes:
            self.deliver(subscriber, outcome)

    async def poll_single(self, wait: Any) -> Any:
        """
        Poll one wait by itself, deliver and return what came out; its error concerns only itself.

        :raises CycleStopped: it was one of several consecutive calls that the server could not answer.
        """
        try:
            outcome = await wait.poll_singly(self)
        except SignInFailed:
            raise
        except WorkflowsError as fault:
            outcome = fault
        self.deliver(wait, outcome)
        self.count_fault(outcome if isinstance(outcome, WorkflowsError) else None)
        return outcome

    def count_fault(self, fault: WorkflowsError | None) -> None:
        """
        Count a call that the server could not answer, or one that it could (None).

        :raises CycleStopped: it was one of several consecutive faults.
        """
        if not isinstance(fault, (*TRANSIENT_ERRORS, AuthenticationError)):
            self._consecutive_faults = 0
            return
        self._consecutive_faults += 1
        if self._consecutive_faults == MAX_CONSECUTIVE_FAULTS:
            raise CycleStopped(fault)


class Poll:
    """
    The poll loop of one scope; it starts with its first subscriber and ends with its last.

    :param scope: What is read.
    :param connection: Through which it is read.
    :param ended: Called when the last subscriber has left.
    """

    def __init__(self, scope: PollScope, connection: SharedConnection, ended: Callable[[], object]):
        self.scope = scope
        self._connection = connection
        self._ended = ended
        self._subscriptions: dict[Any, _Subscription] = {}
        self._intervals: Counter[float] = Counter()
        self._patience = rejection_patience_seconds()
        self._hurry = asyncio.Event()
        self._reading = asyncio.Lock()  # a scope remembers what it has read, so it reads one thing at a time
        self._cycle = 0
        self._fault = ""  # what keeps it from reading
        self._rejected_cycles = 0  # consecutive ones, for longer than the patience
        self._rejections: Rejections | None = None
        self._last_polls: dict[Any, asyncio.Future[None]] = {}
        self._last_polling: asyncio.Task[None] | None = None
        # In an empty context, or it would log as its first subscriber for ever.
        start = asyncio.get_running_loop().create_task
        self._task: asyncio.Task[None] = contextvars.Context().run(start, self._run())

    @property
    def is_alive(self) -> bool:
        return not self._task.done()

    @property
    def fault(self) -> str:
        """What keeps it from reading, or ""."""
        channel = self._connection.channel
        return self._fault or ("" if channel is None else channel.blocked)

    @property
    def interval(self) -> float:
        """Seconds between two polls: the fewest that a subscriber asks for."""
        return min(self._intervals, default=MAX_REJECTED_DELAY_SECONDS)

    def has(self, subscriber: Any) -> bool:
        return subscriber in self._subscriptions

    def add(self, subscriber: Any, interval: float) -> None:
        interval = max(interval, MIN_INTERVAL_SECONDS)
        if interval < self.interval:
            self._hurry.set()
        self._subscriptions[subscriber] = _Subscription(interval, contextvars.copy_context())
        self._intervals[interval] += 1

    def remove(self, subscriber: Any) -> None:
        subscription = self._subscriptions.pop(subscriber, None)
        if subscription is None:
            return
        self._intervals[subscription.interval] -= 1
        if not self._intervals[subscription.interval]:
            del self._intervals[subscription.interval]
        if not self._subscriptions:
            version_compat.gauge("workflows.waits", 0, **self._tags)
            self._ended()
            self.scope.close()
            self._task.cancel()
            if self._last_polling is not None:
                self._last_polling.cancel()

    async def call(self, function: Callable[[Any], Result]) -> Result:
        """Call a function with the hook of the scope; see :meth:`Reader.call`."""
        return await self._connection.call(self.scope.hook_key, self.scope.open_hook, function, self._tags)

    # --- the loop ---

    async def _run(self) -> None:
        due = time.monotonic() + self.scope.first_delay(self.interval)
        # Not for ever: before Python 3.12 wait_for can swallow what cancels it.
        while self._subscriptions:
            await self._until(due)
            started = time.monotonic()
            try:
                async with self._reading:
                    await self._read_for(list(self._subscriptions))
                self._emit_statistics()
            except Exception:  # or every wait would hang until its deadline
                log.exception("Polling %s failed, will start again.", self.name)
            due = max(started + self._delay(), time.monotonic() + MIN_INTERVAL_SECONDS)

    def _delay(self) -> float:
        delay = self.interval * random.uniform(1.0, self.scope.max_stretch)
        return max(delay, min(MAX_REJECTED_DELAY_SECONDS, delay * 2.0 ** min(self._rejected_cycles, 10)))

    async def _until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            self._hurry.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left)
                due = min(due, time.monotonic() + self.interval)

    async def _read_for(self, subscribers: list[Any]) -> None:
        """Read for subscribers, those first that were not read for the longest, and take in what went wrong."""
        if not subscribers:
            return
        self._cycle += 1
        subscribers.sort(key=lambda one: self._subscriptions[one].read)
        reader = Reader(self)
        reader.left.update(subscribers)
        self.scope.oldest_step = None
        rejection: WorkflowsError | None = None
        try:
            await self.scope.read(reader, subscribers)
        except CycleStopped as stopped:
            reader.fault = stopped.fault
        except TRANSIENT_ERRORS as fault:
            reader.fault = fault
        except WorkflowsError as fault:
            reader.fault = rejection = fault
        except Exception as bug:  # or every wait would hang until its deadline
            log.exception("Polling %s failed.", self.name)
            reader.fault = rejection = WorkflowsError(f"Polling failed ({type(bug).__name__}: {bug})")
        if rejection is not None:
            for subscriber in list(reader.left):
                self.reject(subscriber, rejection)
        elif reader.fault is not None:
            for subscriber in list(reader.left):
                self._check_outage(subscriber, str(reader.fault))
        self._record_cycle(reader.fault, rejection)

    def _record_cycle(self, fault: WorkflowsError | None, rejection: WorkflowsError | None) -> None:
        if fault is not None and not self._fault:  # once, and not at every poll of an outage
            log.warning("Polling %s failed, will retry: %s", self.name, fault)
        if fault is None and self._fault:
            log.info("Polling %s works again.", self.name)
        self._fault = "" if fault is None else str(fault)
        if rejection is None:
            self._rejections, self._rejected_cycles = None, 0
            return
        self._rejections = Rejections.following(self._rejections, time.time())
        self._rejected_cycles += self._rejections.are_final(time.time(), self._patience)

    def serve(self, subscriber: Any, outcome: Any) -> None:
        """Deliver what a poll has brought for a subscriber, unless it has left meanwhile."""
        subscription = self._subscriptions.get(subscriber)
        if subscription is None:
            return
        subscription.read, subscription.served_at = self._cycle, time.monotonic()
        subscription.rejections = None
        if subscription.outage_is_reported:
            subscription.outage_is_reported = False
            self._notify(subscription, subscriber.report_outage, None)
        self._notify(subscription, subscriber.deliver, outcome)

    def _notify(self, subscription: _Subscription, take: Callable[[Any], None], what: Any) -> None:
        """Call a subscriber in its own context; what it fails at concerns no other."""
        try:
            subscription.context.run(take, what)
        except Exception:  # a bug in one subscriber is no reason to stop reading for the others
            log.exception("A subscriber of %s failed.", self.name)

    def postpone(self, subscriber: Any, fault: WorkflowsError) -> None:
        """Leave a subscriber to the next poll cycle, after those to which this one did not come."""
        subscriber.last_fault = str(fault)
        if (subscription := self._subscriptions.get(subscriber)) is not None:
            subscription.read = self._cycle

    def reject(self, subscriber: Any, rejection: WorkflowsError) -> None:
        """Count a rejected poll of a subscriber, and deliver the error once that is to be believed."""
        subscription = self._subscriptions.get(subscriber)
        if subscription is None:
            return
        subscription.read = self._cycle
        now = time.time()
        subscription.rejections = Rejections.following(subscription.rejections, now)
        if subscription.rejections.are_final(now, self._patience):
            self._notify(subscription, subscriber.deliver, rejection)
        else:
            subscriber.last_fault = str(rejection)

    def _check_outage(self, subscriber: Any, fault: str) -> None:
        """Report to a subscriber, once, that nothing could be read for it for longer than the patience."""
        subscription = self._subscriptions.get(subscriber)
        if subscription is None or subscription.outage_is_reported:
            return
        if time.monotonic() - subscription.served_at >= self._patience:
            subscription.outage_is_reported = True
            self._notify(subscription, subscriber.report_outage, fault)

    # --- the last poll at a deadline ---

    @property
    def may_send_soon(self) -> bool:
        """Whether the server allows a poll soon; else a last one would only keep the task."""
        channel = self._connection.channel
        return channel is None or channel.limiter.blocked_seconds < MAX_LAST_POLL_SECONDS

    def poll_now(self, subscriber: Any) -> asyncio.Future[None]:
        """Read once for this subscriber as soon as possible; the future is done afterwards, whatever came of it."""
        done = self._last_polls.get(subscriber)
        if done is None:
            done = self._last_polls[subscriber] = asyncio.get_running_loop().create_future()
            if self._last_polling is None or self._last_polling.done():
                start = asyncio.get_running_loop().create_task
                self._last_polling = contextvars.Context().run(start, self._poll_last())
        return done

    async def _poll_last(self) -> None:
        """Read for all whose deadline has come meanwhile, together."""
        while self._last_polls:
            async with self._reading:
                asked, self._last_polls = self._last_polls, {}
                try:
                    await self._read_for([one for one in asked if one in self._subscriptions])
                finally:
                    for done in asked.values():
                        if not done.done():
                            done.set_result(None)

    # --- what is shown of it ---

    def _emit_statistics(self) -> None:
        if not self._subscriptions:
            return
        version_compat.count("workflows.polls", 1, **self._tags)
        version_compat.gauge("workflows.waits", len(self._subscriptions), **self._tags)
        oldest = parse_time(self.scope.oldest_step)
        if oldest is not None:
            version_compat.gauge("workflows.oldest_step_age", time.time() - oldest.timestamp(), **self._tags)
        remaining = self._connection.requests_remaining(self.scope.hook_key)
        if remaining is not None:
            version_compat.gauge("workflows.rate_limit_remaining", remaining, **self._tags)

    @property
    def name(self) -> str:
        """What is polled, for the log."""
        return " ".join(str(part) for part in self.scope.key if part is not None)

    @property
    def _tags(self) -> dict[str, str]:
        api, *place = self.scope.key
        where = ":".join(str(part) for part in place if part not in (None, self.scope.conn_id))
        # As every collector of statistics takes it.
        return {
            "connection": self.scope.conn_id,
            "product": str(api),
            "scope": re.sub(r"[^\w.:-]+", "-", where).strip("-") or "all",
        }


_loops: dict[asyncio.AbstractEventLoop, LoopState] = {}


def subscribe(scope: PollScope, subscriber: Any, interval: float) -> Poll:
    """
    Join the poll of a scope, or start it; the next poll reads for the new subscriber, too.

    :param scope: What is to be read.
    :param subscriber: Who reads; ``poll.remove(subscriber)`` leaves.
    :param interval: Seconds between two polls.
    """
    loop = asyncio.get_running_loop()
    for closed in [known for known in _loops if known.is_closed()]:
        del _loops[closed]
    state = _loops.setdefault(loop, LoopState())
    poll = state.polls.get(scope.key)
    if poll is None or not poll.is_alive:
        poll = _start(state, scope)
    poll.add(subscriber, interval)
    return poll


def _start(state: LoopState, scope: PollScope) -> Poll:
    connection = state.connections.setdefault(scope.conn_id, SharedConnection(scope.conn_id, state.channels))
    connection.users += 1
    key = scope.key

    def ended() -> None:
        if state.polls.get(key) is poll:
            del state.polls[key]
        connection.users -= 1
        if not connection.users:
            connection.close()
            if state.connections.get(scope.conn_id) is connection:
                del state.connections[scope.conn_id]

    poll = state.polls[key] = Poll(scope, connection, ended)
    return poll


class _Newest:
    """Subscribes to all that a scope brings, and holds the newest of it."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.arrived = asyncio.Event()
        self.last_fault = ""

    def deliver(self, outcome: Any) -> None:
        if outcome is None or isinstance(outcome, WorkflowsError):  # the poll goes on, and has logged it
            return
        self.outcomes[:] = [outcome]
        self.arrived.set()

    def report_outage(self, fault: str | None) -> None:
        """Leave that to the poll's own log."""

    def outcome_of(self, snapshot: Any) -> Any:
        return snapshot


async def snapshots(scope: PollScope, interval: float) -> AsyncGenerator[Any, None]:
    """
    Yield what each poll of a scope brings, for ever; a slow reader gets the newest.

    Errors are logged, and the polls go on, ever more rarely while they are rejected.
    """
    subscriber = _Newest()
    poll = subscribe(scope, subscriber, interval)
    try:
        while True:
            await subscriber.arrived.wait()
            subscriber.arrived.clear()
            yield subscriber.outcomes.pop()
    finally:
        poll.remove(subscriber)


def take(rows: Any, each: Callable[[Any], object], count: int) -> int:
    """Hand so many rows of a list to a function, as a rule those of one page; return how many there were."""
    taken = 0
    while taken < count and (row := next(rows, None)) is not None:
        each(row)
        taken += 1
        if taken % 10 == 0:
            time.sleep(0)  # or this thread keeps the interpreter from the event loop for up to 5 ms
    return taken
