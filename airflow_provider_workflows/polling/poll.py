"""
The poll loop that all waits and watchers of one scope share.

Thousands of triggers in a triggerer may wait for the same tool, company or step. :func:`subscribe` adds a trigger to
the :class:`Poll` of its :class:`PollScope`, which reads once for all of them and delivers to each its outcome.
"""

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
MIN_INTERVAL_SECONDS = 1.0  # between two polls, even if a subscriber wants a shorter interval
MAX_REJECTED_DELAY_SECONDS = 600.0  # between two polls when rejections last longer than rejection_patience
MAX_LAST_POLL_SECONDS = 60.0  # after the deadline; Airflow's own timeout comes two minutes after it
MAX_SLEEP_SECONDS = 3600.0  # on the event loop's clock, before the wall-clock is read again
MAX_CONSECUTIVE_FAULTS = 3  # in a poll cycle; after them an unavailable server gets no request for each remaining wait
# After consecutive errors of these classes the server is the cause, and not a single record.
SERVER_FAULTS = (AuthenticationError, *TRANSIENT_ERRORS)


class Subscriber(Protocol):
    """Receive the outcomes of a poll: a wait in a triggerer, or the watcher of an asset."""

    last_fault: str  # error of the last failed poll; "" after a successful one

    def deliver(self, outcome: Any) -> None:
        """
        Receive the outcome of a poll, on the event loop and in the context of the subscription.

        :param outcome: None if nothing has to be done; a :class:`WorkflowsError` that ends the wait; or the result of
            the scope.
        """

    def report_outage(self, fault: str | None) -> None:
        """Receive the error because of which polls have failed for longer than the patience; None when it is over."""


class PollScope(ABC):
    """
    Define what one poll reads for all its subscribers in this process.

    :param conn_id: Id of the Airflow connection.
    """

    max_stretch: ClassVar[float] = 1.0  # maximum factor by which the time between two polls exceeds the interval

    def __init__(self, conn_id: str):
        self.conn_id = conn_id
        self.oldest_step: str | None = None  # start of the step that has been pending longest

    def record_step(self, since: Any) -> None:
        """Record the start of a pending step; the API's times are all in UTC, so they are compared as text."""
        if isinstance(since, str) and (self.oldest_step is None or since < self.oldest_step):
            self.oldest_step = since

    @property
    @abstractmethod
    def key(self) -> tuple[Hashable, ...]:
        """Identifies the scope: scopes with equal keys share a poll. The first element is the name of the API."""

    @property
    @abstractmethod
    def hook_key(self) -> Hashable:
        """Identifies the hook that :meth:`open_hook` returns among those of one connection."""

    @abstractmethod
    def open_hook(self) -> WorkflowsHook:
        """Create the hook for reading, without looking up its connection."""

    @abstractmethod
    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        """
        Read for the subscribers, and deliver each its outcome.

        An error that is raised concerns all subscribers to which nothing was delivered yet.

        :param reader: Makes the calls, and delivers the outcomes.
        :param subscribers: The subscribers, those served longest ago first.
        """

    def close(self) -> None:  # noqa: B027  most scopes have nothing to close
        """Release what the scope has registered elsewhere, because its poll has ended."""

    def first_delay(self, interval: float) -> float:
        """Return the seconds before the first poll; they are random, to spread the polls of several triggerers."""
        return max(MIN_FIRST_DELAY_SECONDS, interval * random.random())


class CycleStopped(Exception):
    """Raised to end a poll cycle after consecutive failed calls; subscribers not served come first in the next one."""

    def __init__(self, fault: WorkflowsError):
        super().__init__(str(fault))
        self.fault = fault


@dataclass(slots=True)
class _Subscription:
    interval: float
    context: contextvars.Context
    read: int = 0  # number of the poll cycle that read for it last, successfully or not
    served_at: float = field(default_factory=lambda: time.monotonic())
    rejections: Rejections | None = None
    outage_is_reported: bool = False


class CycleRunner(Protocol):
    """Run a poll cycle: a :class:`Poll` in a triggerer, or one read on request in the API server."""

    async def call(self, function: Callable[[Any], Result]) -> Result: ...

    def has(self, subscriber: Any) -> bool: ...

    def serve(self, subscriber: Any, outcome: Any) -> None: ...

    def reject(self, subscriber: Any, error: WorkflowsError) -> None: ...

    def postpone(self, subscriber: Any, fault: WorkflowsError) -> None: ...


class Reader:
    """
    Make the calls of one poll cycle, one after another, and deliver their outcomes.

    :param poll: The poll that runs the cycle.
    """

    def __init__(self, poll: CycleRunner):
        self._poll = poll
        self._consecutive_faults = 0
        self.fault: WorkflowsError | None = None  # the last transient error that did not end the cycle
        self.left: set[Any] = set()  # subscribers to which nothing was delivered in this cycle

    async def call(self, function: Callable[[Any], Result]) -> Result:
        """
        Call a function with the hook, in a thread; the function usually sends one request.

        :raises WorkflowsError: the error of the function; :class:`RateLimited` only after several consecutive 429s,
            because until then the call is repeated when the server allows it.
        """
        return await self._poll.call(function)

    async def collect(self, rows: Any, each: Callable[[Any], object], page_size: int) -> int:
        """
        Pass each row of a list to a function, one page in each call; return the number of rows.

        :param rows: Iterator of a hook's list method; it continues where an error has interrupted it.
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
        """Return whether a subscriber is still subscribed."""
        return self._poll.has(subscriber)

    def deliver(self, subscriber: Any, outcome: Any) -> None:
        """Deliver the outcome of a poll to a subscriber: None if nothing has to be done, an error, or a result."""
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

    async def poll_one(self, wait: Any) -> Any:
        """
        Poll one wait individually; deliver and return the outcome. An error concerns only this wait.

        :raises CycleStopped: several consecutive calls have failed because of the server.
        """
        try:
            outcome = await wait.poll_one(self)
        except SignInFailed:
            raise
        except WorkflowsError as fault:
            outcome = fault
        self.deliver(wait, outcome)
        self.count_fault(outcome if isinstance(outcome, WorkflowsError) else None)
        return outcome

    def count_fault(self, fault: WorkflowsError | None) -> None:
        """
        Count a call that failed because of the server; None and other errors reset the count.

        :raises CycleStopped: several consecutive calls have failed because of the server.
        """
        if not isinstance(fault, SERVER_FAULTS):
            self._consecutive_faults = 0
            return
        self._consecutive_faults += 1
        if self._consecutive_faults == MAX_CONSECUTIVE_FAULTS:
            raise CycleStopped(fault)


class Poll:
    """
    Run the poll loop of one scope, from its first subscriber until its last one has left.

    :param scope: The scope to read.
    :param connection: The connection to read through.
    :param ended: Called when the last subscriber has left.
    """

    def __init__(self, scope: PollScope, connection: SharedConnection, ended: Callable[[], object]):
        self.scope = scope
        self._connection = connection
        self._ended = ended
        self._subscriptions: dict[Any, _Subscription] = {}
        self._intervals: Counter[float] = Counter()
        self._patience = rejection_patience_seconds()
        self._interval_shortened = asyncio.Event()
        self._reading = asyncio.Lock()  # a scope has state, so only one cycle may read at a time
        self._cycle = 0
        self._fault = ""  # error of the last cycle
        self._rejected_cycles = 0  # consecutive ones after the patience has ended
        self._rejections: Rejections | None = None
        self._last_polls: dict[Any, asyncio.Future[None]] = {}
        self._last_polling: asyncio.Task[None] | None = None
        # In an empty context; otherwise all its log lines would go to the log of the first subscriber's task.
        start = asyncio.get_running_loop().create_task
        self._task: asyncio.Task[None] = contextvars.Context().run(start, self._run())

    @property
    def is_alive(self) -> bool:
        return not self._task.done()

    @property
    def fault(self) -> str:
        """Error because of which the poll cannot read now, or ""."""
        channel = self._connection.channel
        return self._fault or ("" if channel is None else channel.blocked)

    @property
    def interval(self) -> float:
        """Seconds between two polls: the shortest interval of all subscribers."""
        return min(self._intervals, default=MAX_REJECTED_DELAY_SECONDS)

    def has(self, subscriber: Any) -> bool:
        return subscriber in self._subscriptions

    def add(self, subscriber: Any, interval: float) -> None:
        interval = max(interval, MIN_INTERVAL_SECONDS)
        if interval < self.interval:
            self._interval_shortened.set()
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
        # Not `while True`: before Python 3.12 wait_for can swallow a cancellation.
        while self._subscriptions:
            await self._sleep_until(due)
            started = time.monotonic()
            try:
                async with self._reading:
                    await self._read_for(list(self._subscriptions))
                self._emit_statistics()
            except Exception:  # otherwise the loop would end, and all waits would hang until their deadlines
                log.exception("Polling %s failed unexpectedly, will retry.", self.name)
            due = max(started + self._delay(), time.monotonic() + MIN_INTERVAL_SECONDS)

    def _delay(self) -> float:
        delay = self.interval * random.uniform(1.0, self.scope.max_stretch)
        return max(delay, min(MAX_REJECTED_DELAY_SECONDS, delay * 2.0 ** min(self._rejected_cycles, 10)))

    async def _sleep_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            self._interval_shortened.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._interval_shortened.wait(), left)
                due = min(due, time.monotonic() + self.interval)

    async def _read_for(self, subscribers: list[Any]) -> None:
        """Run one poll cycle for subscribers, those read longest ago first, and record its errors."""
        if not subscribers:
            return
        self._cycle += 1
        subscribers.sort(key=lambda subscriber: self._subscriptions[subscriber].read)
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
        except Exception as bug:  # a bug must fail the waits instead of letting them hang until their deadlines
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
        if fault is not None and not self._fault:  # once per outage
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
        """Deliver the outcome of a poll to a subscriber, unless it has left in the meantime."""
        subscription = self._subscriptions.get(subscriber)
        if subscription is None:
            return
        subscription.read, subscription.served_at = self._cycle, time.monotonic()
        subscription.rejections = None
        if subscription.outage_is_reported:
            subscription.outage_is_reported = False
            self._notify(subscription, subscriber.report_outage, None)
        self._notify(subscription, subscriber.deliver, outcome)

    def _notify(self, subscription: _Subscription, receive: Callable[[Any], None], value: Any) -> None:
        """Call a method of a subscriber in its own context; its errors must not affect other subscribers."""
        try:
            subscription.context.run(receive, value)
        except Exception:  # one subscriber's bug must not end the poll of the others
            log.exception("A subscriber of %s failed, polling continues for the others.", self.name)

    def postpone(self, subscriber: Any, fault: WorkflowsError) -> None:
        """Leave a subscriber to the next poll cycle, after those that this cycle has not reached."""
        subscriber.last_fault = str(fault)
        if (subscription := self._subscriptions.get(subscriber)) is not None:
            subscription.read = self._cycle

    def reject(self, subscriber: Any, rejection: WorkflowsError) -> None:
        """Record a rejected poll of a subscriber, and deliver the error when rejections have outlasted the patience."""
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
        """Report to a subscriber, once, that polling for it has failed for longer than the patience."""
        subscription = self._subscriptions.get(subscriber)
        if subscription is None or subscription.outage_is_reported:
            return
        if time.monotonic() - subscription.served_at >= self._patience:
            subscription.outage_is_reported = True
            self._notify(subscription, subscriber.report_outage, fault)

    # --- the last poll at a deadline ---

    @property
    def may_send_soon(self) -> bool:
        """Whether the rate limit allows a poll soon; otherwise a last poll would only delay the end of the task."""
        channel = self._connection.channel
        return channel is None or channel.limiter.blocked_seconds < MAX_LAST_POLL_SECONDS

    def poll_now(self, subscriber: Any) -> asyncio.Future[None]:
        """Poll once for this subscriber as soon as possible; the future is done afterwards, even if the poll failed."""
        done = self._last_polls.get(subscriber)
        if done is None:
            done = self._last_polls[subscriber] = asyncio.get_running_loop().create_future()
            if self._last_polling is None or self._last_polling.done():
                start = asyncio.get_running_loop().create_task
                self._last_polling = contextvars.Context().run(start, self._poll_last())
        return done

    async def _poll_last(self) -> None:
        """Poll once for all subscribers whose deadline has come in the meantime."""
        while self._last_polls:
            async with self._reading:
                requested, self._last_polls = self._last_polls, {}
                try:
                    await self._read_for([subscriber for subscriber in requested if self.has(subscriber)])
                finally:
                    for done in requested.values():
                        if not done.done():
                            done.set_result(None)

    # --- statistics and log ---

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
        """Name of the scope, for the log."""
        return " ".join(str(part) for part in self.scope.key if part is not None)

    @property
    def _tags(self) -> dict[str, str]:
        api, *place = self.scope.key
        where = ":".join(str(part) for part in place if part not in (None, self.scope.conn_id))
        # Only characters that all statistics collectors accept.
        return {
            "connection": self.scope.conn_id,
            "product": str(api),
            "scope": re.sub(r"[^\w.:-]+", "-", where).strip("-") or "all",
        }


_loops: dict[asyncio.AbstractEventLoop, LoopState] = {}


def subscribe(scope: PollScope, subscriber: Any, interval: float) -> Poll:
    """
    Join the poll of a scope, or start it; from its next cycle on the poll reads for the new subscriber, too.

    :param scope: The scope to read.
    :param subscriber: The new :class:`Subscriber`; ``poll.remove(subscriber)`` ends the subscription.
    :param interval: Maximum seconds between two polls.
    :return: The poll.
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


class _LatestOutcome:
    """Subscribe to all outcomes of a scope, and store the latest one."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.arrived = asyncio.Event()
        self.last_fault = ""

    def deliver(self, outcome: Any) -> None:
        if outcome is None or isinstance(outcome, WorkflowsError):  # polling continues, and the poll logs errors
            return
        self.outcomes[:] = [outcome]
        self.arrived.set()

    def report_outage(self, fault: str | None) -> None:
        """Do nothing: the poll logs outages."""

    def outcome_of(self, snapshot: Any) -> Any:
        return snapshot


async def snapshots(scope: PollScope, interval: float) -> AsyncGenerator[Any, None]:
    """
    Yield the outcome of each poll of a scope, without end; a slow consumer gets only the latest one.

    The poll logs errors and continues; while it is rejected, the time between polls increases.
    """
    subscriber = _LatestOutcome()
    poll = subscribe(scope, subscriber, interval)
    try:
        while True:
            await subscriber.arrived.wait()
            subscriber.arrived.clear()
            yield subscriber.outcomes.pop()
    finally:
        poll.remove(subscriber)


def take(rows: Any, each: Callable[[Any], object], count: int) -> int:
    """Pass up to ``count`` rows of a list to a function, usually those of one page; return the number of rows."""
    taken = 0
    while taken < count and (row := next(rows, None)) is not None:
        each(row)
        taken += 1
        if taken % 10 == 0:
            time.sleep(0)  # otherwise this thread can keep the GIL from the event loop for up to 5 ms
    return taken
