"""One poll loop in a triggerer for everything there that waits on the same part of a product."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
import re
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import conf

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConnectionFailed,
    ContractError,
    IncompleteList,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    WorkflowsError,
)
from airflow_provider_workflows.rules.forms import documented_form
from airflow_provider_workflows.rules.times import parse_time
from airflow_provider_workflows.triggers import base

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import WorkflowsHook

log = logging.getLogger(__name__)

CONNECTION_KEPT = 900.0  # seconds until a poll looks its connection up again
LONGEST_PAUSE = 600.0  # seconds between two polls that are refused for good
FAULTS_IN_A_ROUND = 3  # so that a server in trouble is not asked about each wait
ROUNDS_REFUSED = 3  # in a row, until it is believed where it has worked before: a gateway's page may be gone by then
SECOND_BEST = 3600.0  # seconds until the quick way is tried again that was refused
ROWS_AT_A_TIME = 10
MOST_NEW_LOOKS = 100  # in one poll, at waits of which nothing is known yet
KEPT_FOR_OTHERS = 0.2  # of the rate limit: for tasks, which act, and for people
FEWEST_OF_A_SPIKE = 5  # requests that were taken before a refusal tells of a limit
SPIKE = 10.0  # seconds; the shorter of the windows that Procore counts in
HOUR = 3600.0
SHORTEST_RESUME = 1.0  # seconds before a round goes on that the server cut short, whatever it says

Outcomes = Iterable[tuple[Any, Any]] | RateLimited


class Scope(ABC):
    """
    What one poll reads, for any number of subscribers in this process.

    :param conn_id: Id of the Airflow connection.
    """

    longest_stretch: ClassVar[float] = 1.0  # by how much chance makes the time between two polls longer

    def __init__(self, conn_id: str):
        self.conn_id = conn_id
        self.oldest_step: str | None = None  # since when the step is held that is held for the longest

    def note_step(self, since: Any) -> None:
        """Hear since when a step is held; the API's times are all in UTC, so their texts compare."""
        if isinstance(since, str) and (self.oldest_step is None or since < self.oldest_step):
            self.oldest_step = since

    @property
    @abstractmethod
    def key(self) -> tuple[Hashable, ...]:
        """What tells scopes apart; those with the same key are polled once. It begins with the product."""

    @abstractmethod
    def open_hook(self) -> WorkflowsHook:
        """Return the hook that :meth:`read` reads through."""

    @abstractmethod
    def read(self, hook: Any, subscribers: Sequence[Any]) -> Iterator[Outcomes]:
        """
        Read on behalf of the subscribers, step by step, each step in a thread and with one request as a rule.

        Each step yields pairs of a subscriber and what came out for it: None when there is nothing to tell, a
        :class:`WorkflowsError` when it concerns this one only, else what it is to be handed. A
        :class:`RateLimited` may be yielded instead: then the next step comes when the server allows it; see
        :func:`patiently`. An error that is raised concerns all that were not mentioned yet.
        """

    def first_pause(self, interval: float) -> float:
        """Return the seconds before the first poll, so that the triggerers of an Airflow do not poll in step."""
        return max(base.SHORTEST_FIRST_PAUSE, interval * random.random())


class LookScope(Scope):
    """Waits that each look for themselves, over one connection."""

    def __init__(self, trigger: base.WaitTrigger):
        super().__init__(str(trigger.connection[1]))
        self._trigger = trigger

    @property
    def key(self) -> tuple[Hashable, ...]:
        return (*self._trigger.connection, "looks")

    def open_hook(self) -> WorkflowsHook:
        return self._trigger.open_hook()

    def read(self, hook: Any, subscribers: Sequence[base.WaitTrigger]) -> Iterator[Outcomes]:
        for wait in subscribers:
            outcome = yield from own_look(wait, hook)
            if outcome is None and wait.scope().key != self.key:
                outcome = base.MOVED
            yield [(wait, outcome)]


class SweepScope(Scope):
    """
    Waits that a list tells of: one sweep shows whose row has changed, and only these look for themselves.

    A wait names its row by ``sweep_key`` and remembers it by ``mark``.
    """

    page_size: ClassVar[int]
    looks_anyway: ClassVar[int] = 0  # at how many unchanged ones to look in each sweep, the longest unseen first
    keeps_rows_mark: ClassVar[bool] = True  # or the one that the wait's own look has made

    def __init__(self, conn_id: str):
        super().__init__(conn_id)
        self._pages = 1  # that the last sweep took
        self._lists_refused = 0  # in a row
        self._no_list_until = float("-inf")

    @abstractmethod
    def rows(self, hook: Any) -> Iterator[dict[str, Any]]:
        """List everything that is active, page by page."""

    @abstractmethod
    def keys_of(self, row: dict[str, Any]) -> tuple[Hashable, ...]:
        """Return what waits may name this row by."""

    @abstractmethod
    def mark_of(self, row: dict[str, Any]) -> Any:
        """Return what changes when a wait must look again."""

    def read(self, hook: Any, subscribers: Sequence[Any]) -> Iterator[Outcomes]:
        missing: dict[Hashable, list[Any]] = {}
        for wait in subscribers:
            wait.use_clock_of(hook)
            missing.setdefault(wait.sweep_key, []).append(wait)
        if time.monotonic() < self._no_list_until or len(missing) < self._pages:  # fewer requests than a sweep
            yield from self._look(hook, [(wait, None) for wait in subscribers])
            return
        calm: list[Any] = []
        changed: list[tuple[Any, Any]] = []
        try:
            yield from self._sweep(hook, missing, calm, changed)
            self._lists_refused = 0
        except (IncompleteList, InvalidRequest, NotFound, PermissionDenied) as refused:
            self._lists_refused += 1
            if self._lists_refused == 1:
                log.warning("%s So each wait is looked at by itself.", refused)
            if self._lists_refused >= ROUNDS_REFUSED:
                self._no_list_until = time.monotonic() + SECOND_BEST
        gone = [(wait, None) for waits in missing.values() for wait in waits]  # not active any more, or hidden
        longest_unseen = heapq.nsmallest(self.looks_anyway, calm, key=lambda wait: wait.looked_at)
        new = [(wait, mark) for wait, mark in changed if wait.mark is None]
        moved = [(wait, mark) for wait, mark in changed if wait.mark is not None]
        # Of the new ones only so many: the others must not wait until all of them were looked at.
        unseen = [*new[:MOST_NEW_LOOKS], *((wait, wait.mark) for wait in longest_unseen)]
        yield from self._look(hook, [*moved, *gone, *unseen])

    def _sweep(
        self, hook: Any, missing: dict[Hashable, list[Any]], calm: list[Any], changed: list[tuple[Any, Any]]
    ) -> Iterator[Outcomes]:
        number = told = 0
        rows = self.rows(hook)
        # Row by row and none of them kept: the rows of a page are many, and garbage is dear in a triggerer.
        while missing and (row := (yield from patiently(next, rows, None))) is not None:
            number += 1
            self._compare(row, missing, calm, changed)
            if number % ROWS_AT_A_TIME == 0:
                time.sleep(0)  # or this thread keeps the interpreter from the event loop for up to 5 ms
            if number % self.page_size == 0:
                yield [(wait, wait.overdue()) for wait in calm[told:]]
                told = len(calm)
        self._pages = max(1, -(-number // self.page_size))
        yield [(wait, wait.overdue()) for wait in calm[told:]]

    def _look(self, hook: Any, waits: Iterable[tuple[Any, Any]]) -> Iterator[Outcomes]:
        for wait, mark in waits:
            outcome = yield from own_look(wait, hook)
            if not isinstance(outcome, WorkflowsError):
                wait.looked_at = time.monotonic()
                if self.keeps_rows_mark and mark is not None:
                    wait.mark = mark
            yield [(wait, outcome)]

    def _compare(
        self,
        row: dict[str, Any],
        missing: dict[Hashable, list[Any]],
        calm: list[Any],
        changed: list[tuple[Any, Any]],
    ) -> None:
        """Take those out of ``missing`` whose row it is, to ``calm`` if it is as it was."""
        try:
            keys, mark = self.keys_of(row), self.mark_of(row)
        except (AttributeError, LookupError, TypeError, ValueError):
            return  # an odd row concerns the waits of that row, which are looked at like those that are missing
        for key in keys:
            for wait in missing.pop(key, ()):
                if wait.mark == mark:
                    wait.last_fault = ""
                    calm.append(wait)
                else:
                    changed.append((wait, mark))


def own_look(wait: base.WaitTrigger, hook: Any) -> Generator[Any, None, Any]:
    """Let a wait look for itself, step by step; return its verdict, None, or what went wrong."""
    try:
        verdict = yield from wait.look_in_steps(hook)
        wait.odd_looks = 0
        return verdict
    except AuthenticationError:  # which concerns every wait on the connection
        raise
    except ContractError as odd:
        wait.odd_looks += 1
        return odd if wait.odd_looks >= ROUNDS_REFUSED else None
    except WorkflowsError as error:
        return error


class Budget:
    """
    What the polls of one connection may send from this process: one request at a time, within the rate limit.

    The limit is what the server's headers say, and what the connection's extra ``requests_per_hour`` does; a part
    of it is left to others. Without either only a refusal stops it.
    """

    def __init__(self, triggerers: int):
        self._share = (1 - KEPT_FOR_OTHERS) / triggerers
        self._turn = asyncio.Lock()
        self._not_before = float("-inf")  # by the monotonic clock
        self._limits: dict[float, int] = {}  # requests by the seconds of the window they are counted in
        self._sent: deque[float] = deque()  # when, within the last SPIKE seconds
        self._saved = 0.0  # requests of the hour's limit that may be sent at once
        self._saved_at = time.monotonic()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until a request may be sent, and let nobody else send one meanwhile."""
        async with self._turn:
            while (pause := self._pause()) > 0:  # noqa: ASYNC110  time alone ends it, no event
                await asyncio.sleep(pause)
            yield

    def configure(self, hook: WorkflowsHook) -> None:
        """Take the limit from the connection, where it names one."""
        if (limit := hook.requests_per_hour) is not None:
            self._learn(HOUR, limit)

    def refrain(self, until: float) -> None:
        """Send nothing before a time by the monotonic clock."""
        self._not_before = max(self._not_before, until)

    def refuse(self, fault: RateLimited, pause: float) -> None:
        """
        Hear that a request was one too many.

        :param pause: Seconds to wait where the server states no time.
        """
        stated = stated_wait(fault)
        self.refrain(time.monotonic() + (stated or pause))
        # Some servers do not say what their limit is. A short pause tells how many they take within ten seconds.
        if SPIKE not in self._limits and 0 < stated <= 1.5 * SPIKE and len(self._sent) >= FEWEST_OF_A_SPIKE:
            self._limits[SPIKE] = len(self._sent)

    def note(self, requests: int, rate: Any) -> None:
        """
        Count what was sent, and hear what the server said of its limit.

        :param rate: The client's ``rate``, or None.
        """
        now = time.monotonic()
        self._sent.extend([now] * requests)
        self._saved = self._saved_now() - requests
        self._saved_at = now
        # Without a request the rate is that of an earlier one. A limit of 0 could not have answered.
        if not requests or rate is None or not rate.limit or rate.reset_at is None:
            return
        seconds = rate.reset_at - time.time() if rate.reset_in is None else rate.reset_in
        if seconds <= 0:
            return
        self._learn(SPIKE if seconds <= 1.5 * SPIKE else HOUR, rate.limit)
        if rate.remaining is not None and rate.remaining <= rate.limit * KEPT_FOR_OTHERS:
            self.refrain(time.monotonic() + min(seconds, HOUR))

    def _learn(self, window: float, limit: int) -> None:
        if window == HOUR and HOUR not in self._limits:
            self._saved, self._saved_at = self._most_saved(limit), time.monotonic()
        self._limits[window] = limit

    def _most_saved(self, limit: int) -> float:
        return max(1.0, limit * self._share / 12)  # five minutes' worth

    def _saved_now(self) -> float:
        if HOUR not in self._limits:
            return 0.0
        limit = self._limits[HOUR]
        earned = (time.monotonic() - self._saved_at) * limit * self._share / HOUR
        return min(self._most_saved(limit), self._saved + earned)

    def _pause(self) -> float:
        now = time.monotonic()
        while self._sent and self._sent[0] <= now - SPIKE:
            self._sent.popleft()
        pause = self._not_before - now
        spike = self._limits.get(SPIKE)
        if spike is not None and len(self._sent) >= max(1.0, spike * self._share):
            pause = max(pause, self._sent[0] + SPIKE - now)
        if HOUR in self._limits and (saved := self._saved_now()) < 1:
            pause = max(pause, (1 - saved) * HOUR / (self._limits[HOUR] * self._share))
        return pause


@dataclass(frozen=True)
class _Subscription:
    interval: float
    deliver: Callable[[Any], None]


class SharedPoll:
    """
    The poll loop of one scope; it begins with its first subscriber and ends with its last.

    :param scope: What is read.
    :param budget: What may be sent.
    :param ended: Called when the last subscriber has left.
    """

    def __init__(self, scope: Scope, budget: Budget, ended: Callable[[], object]):
        self.scope = scope
        self.fault = ""  # what keeps it from reading
        self._budget = budget
        self._ended = ended
        self._subscriptions: dict[Any, _Subscription] = {}
        self._intervals: Counter[float] = Counter()
        self._hurry = asyncio.Event()
        self._hook: WorkflowsHook | None = None
        self._opened_at = 0.0
        self._had_a_turn: set[Any] = set()  # whom it came to in rounds that broke off
        self._doubtful: set[Any] = set()  # about whom the server could not answer
        self._has_worked = False
        self._refused_rounds = 0  # in a row
        self._refusals = 0
        self._resume_at: float | None = None  # by the monotonic clock
        # In an empty context, or it would log as its first subscriber for ever.
        self._task: asyncio.Task[None] = Context().run(asyncio.get_running_loop().create_task, self._run())

    @property
    def interval(self) -> float:
        """Seconds between two polls: the fewest that a subscriber asks for."""
        return min(self._intervals, default=LONGEST_PAUSE)

    def add(self, subscriber: Any, interval: float, deliver: Callable[[Any], None]) -> None:
        interval = max(interval, base.SHORTEST_INTERVAL)
        if interval < self.interval:
            self._hurry.set()
        self._subscriptions[subscriber] = _Subscription(interval, deliver)
        self._intervals[interval] += 1

    def remove(self, subscriber: Any) -> None:
        subscription = self._subscriptions.pop(subscriber, None)
        if subscription is None:
            return
        self._intervals[subscription.interval] -= 1
        if not self._intervals[subscription.interval]:
            del self._intervals[subscription.interval]
        if not self._subscriptions:
            self._ended()
            self._task.cancel()

    async def _run(self) -> None:
        due = time.monotonic() + self.scope.first_pause(self.interval)
        try:
            # Not for ever: before Python 3.12 wait_for can swallow what cancels it.
            while self._subscriptions:
                await self._until(due)
                began = time.monotonic()
                await self._round()
                due = began + self._pause()
                if self._resume_at is not None:
                    due = time.monotonic() + max(SHORTEST_RESUME, self._resume_at - time.monotonic())
        finally:
            self._close()

    def _pause(self) -> float:
        pause = self.interval * random.uniform(1.0, self.scope.longest_stretch)
        return max(pause, min(LONGEST_PAUSE, pause * 2.0 ** min(self._refusals, 10)))

    async def _until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            self._hurry.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), left)
                due = min(due, time.monotonic() + self.interval)

    async def _round(self) -> None:
        """Read for every subscriber; after a round that broke off, for those first whom it did not come to."""
        pending = self._next_in_line()
        asked = tuple(pending)
        is_resumed, self._resume_at = self._resume_at is not None, None
        try:
            try:
                await self._read(pending)
            except AuthenticationError:  # the connection's secret may have been changed
                self._opened_at = float("-inf")
                await self._read(pending)
        except base.PASSING_FAULTS as fault:
            self._put_off(fault, pending)
        except WorkflowsError as refusal:
            self._refused_rounds += 1
            never_worked = not self._has_worked and not isinstance(refusal, ContractError)
            if never_worked or self._refused_rounds >= ROUNDS_REFUSED:
                self._refuse(refusal, pending)
            else:
                self._put_off(refusal, pending)
        except Exception as bug:  # or every wait would hang until its deadline
            log.exception("Polling %s failed.", self.name)
            self._refuse(WorkflowsError(f"Polling failed ({type(bug).__name__}: {bug})"), pending)
        else:
            if self._had_a_turn and not is_resumed and not self._subscriptions.keys() <= set(asked):
                self._resume_at = 0.0  # the server is back, so the others need not wait for the next poll
            else:
                asked = ()
            self._had_a_turn.clear()
            self._refused_rounds = self._refusals = 0
            self._has_worked = True
        self._had_a_turn.update(one for one in asked if one not in pending or one in self._doubtful)
        self._tell()

    def _next_in_line(self) -> dict[Any, None]:
        unread = [one for one in self._subscriptions if one not in self._had_a_turn]
        if not unread:
            self._had_a_turn.clear()
            unread = list(self._subscriptions)
        return dict.fromkeys(unread)

    async def _read(self, pending: dict[Any, None]) -> None:
        """Read step by step, and take those out of ``pending`` that were read for."""
        hook = await self._ready_hook()
        self.scope.oldest_step = None
        self._doubtful = set()
        reading = self.scope.read(hook, tuple(pending))
        fault: WorkflowsError | None = None
        faults = 0
        while True:
            async with self._budget.turn():
                outcomes = await self._step(hook, reading)
                if outcomes is None:
                    break
                if isinstance(outcomes, RateLimited):
                    self.fault = str(outcomes)
                    self._budget.refuse(outcomes, self.interval)
                    continue
                passing = self._hand_out(outcomes, pending)
                if isinstance(passing, RateLimited):
                    self._budget.refuse(passing, 0.0)
            if passing is not None:
                fault, faults = passing, faults + 1
                if isinstance(fault, RateLimited) or faults == FAULTS_IN_A_ROUND:
                    raise fault
        if self.fault and fault is None:
            log.info("Polling %s works again.", self.name)
        self.fault = "" if fault is None else str(fault)

    def _hand_out(self, outcomes: list[tuple[Any, Any]], pending: dict[Any, None]) -> WorkflowsError | None:
        passing = None
        for subscriber, outcome in outcomes:
            if isinstance(outcome, base.PASSING_FAULTS):
                passing = outcome
                self._doubtful.add(subscriber)
                continue
            pending.pop(subscriber, None)
            if outcome is not None:
                self._deliver(subscriber, outcome)
        return passing

    def _deliver(self, subscriber: Any, outcome: Any) -> None:
        if (subscription := self._subscriptions.get(subscriber)) is not None:  # else it has left meanwhile
            subscription.deliver(outcome)

    async def _step(
        self, hook: WorkflowsHook, reading: Iterator[Outcomes]
    ) -> list[tuple[Any, Any]] | RateLimited | None:
        """Make one step in a thread; None after the last one."""
        client = hook.client  # which a hook that was closed meanwhile would look up anew
        before = client.sent
        future = base.threads().submit(_next, reading)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._hook = None
            future.add_done_callback(lambda _: hook.close())  # not while the thread is using it
            raise
        except RateLimited as fault:
            self._budget.refuse(fault, 0.0)
            raise
        finally:
            sent = client.sent - before
            self._budget.note(sent, client.rate)
            version_compat.count("workflows.requests", sent, **self._tags)

    async def _ready_hook(self) -> WorkflowsHook:
        """Return the hook, its connection looked up at most every quarter of an hour: that is dear in a triggerer."""
        age = time.monotonic() - self._opened_at
        if self._hook is not None and age < CONNECTION_KEPT:
            return self._hook
        try:
            hook = await self._open_hook()
        except WorkflowsError as fault:
            # What works still is good enough while a secrets backend is away, which looks like no connection.
            if self._hook is None or age > CONNECTION_KEPT + SECOND_BEST:
                raise
            log.warning("Polling %s goes on with the connection as it was. %s", self.name, fault)
            return self._hook
        self._close()
        self._hook, self._opened_at = hook, time.monotonic()
        self._budget.configure(hook)
        return hook

    async def _open_hook(self) -> WorkflowsHook:
        hook: WorkflowsHook = await base.in_thread(self.scope.open_hook)  # the first one imports the HTTP client
        try:
            await hook.prepare()
        except WorkflowsError:
            raise
        except Exception as error:  # of Airflow's API server, say
            raise ConnectionFailed(
                f"Connection {self.scope.conn_id!r} could not be looked up ({type(error).__name__}: {error})"
            ) from error
        return hook

    def _close(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.close()

    def _put_off(self, fault: WorkflowsError, pending: dict[Any, None]) -> None:
        if not self.fault:  # once, and not at every poll of an outage
            log.warning("Polling %s goes on. %s", self.name, fault)
        self.fault = str(fault)
        if isinstance(fault, RateLimited) and not self._doubtful.issuperset(pending):
            stated = stated_wait(fault)
            self._resume_at = time.monotonic() + stated if stated else None

    def _refuse(self, refusal: WorkflowsError, pending: dict[Any, None]) -> None:
        self._refusals += 1
        self.fault = str(refusal)
        for subscriber in pending:
            self._deliver(subscriber, refusal)

    def _tell(self) -> None:
        version_compat.count("workflows.polls", 1, **self._tags)
        version_compat.gauge("workflows.waits", len(self._subscriptions), **self._tags)
        oldest = parse_time(self.scope.oldest_step)
        if oldest is not None:
            version_compat.gauge("workflows.oldest_step_age", time.time() - oldest.timestamp(), **self._tags)
        rate = None if self._hook is None else self._hook.client.rate
        if rate is not None and rate.remaining is not None:
            version_compat.gauge("workflows.rate_limit_remaining", rate.remaining, **self._tags)

    @property
    def name(self) -> str:
        """What is polled, for the log."""
        return " ".join(str(part) for part in self.scope.key if part is not None)

    @property
    def _tags(self) -> dict[str, str]:
        product, *place = self.scope.key
        where = ":".join(str(part) for part in place if part not in (None, self.scope.conn_id))
        # As every collector of statistics takes it.
        return {
            "connection": self.scope.conn_id,
            "product": str(product),
            "scope": re.sub(r"[^\w.:-]+", "-", where).strip("-") or "all",
        }


@dataclass
class _Home:
    """What belongs to one event loop: a triggerer has one for life, ``dag.test()`` makes one for each trigger."""

    polls: dict[tuple[Hashable, ...], SharedPoll] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)


_homes: dict[asyncio.AbstractEventLoop, _Home] = {}


def subscribe(scope: Scope, subscriber: Any, interval: float, deliver: Callable[[Any], None]) -> SharedPoll:
    """
    Join the poll of a scope, or begin it; the next poll reads for the new subscriber, too.

    :param scope: What is to be read.
    :param subscriber: Who reads; ``poll.remove(subscriber)`` leaves.
    :param interval: Seconds between two polls.
    :param deliver: Takes what comes out, on the event loop.
    """
    loop = asyncio.get_running_loop()
    for closed in [known for known in _homes if known.is_closed()]:
        del _homes[closed]
    home = _homes.setdefault(loop, _Home())
    poll = home.polls.get(scope.key)
    if poll is None:
        budget = home.budgets.get(scope.conn_id)
        if budget is None:
            triggerers = conf.getint("workflows", "triggerers", fallback=1)
            budget = home.budgets[scope.conn_id] = Budget(max(1, triggerers))
        key = scope.key
        poll = home.polls[key] = SharedPoll(scope, budget, ended=partial(home.polls.pop, key))
    poll.add(subscriber, interval, deliver)
    return poll


async def snapshots(scope: Scope, interval: float) -> AsyncGenerator[Any, None]:
    """
    Yield what each poll of a scope brings, for ever; whoever is slow gets the newest.

    Errors are logged, and the polls go on, ever more rarely while they are refused.
    """
    newest: list[Any] = []
    arrived = asyncio.Event()

    def deliver(outcome: Any) -> None:
        if isinstance(outcome, WorkflowsError):
            log.error("Polling %s goes on, more rarely. %s", poll.name, outcome)
            return
        newest[:] = [outcome]
        arrived.set()

    subscriber = object()
    poll = subscribe(scope, subscriber, interval, deliver)
    try:
        while True:
            await arrived.wait()
            arrived.clear()
            yield newest.pop()
    finally:
        poll.remove(subscriber)


def patiently(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
    """
    Make a call in a step of :meth:`Scope.read`, as often as the server refuses it for its rate limit.

    ``value = yield from patiently(call, ...)``: so a round keeps what it has read so far.
    """
    while True:
        try:
            return call(*args, **kwargs)
        except RateLimited as fault:
            yield fault


def stated_wait(fault: WorkflowsError | None) -> float:
    """Return the seconds that the server wants to be left alone for; 0 where it says none, or they are over."""
    wait, retry_at = getattr(fault, "wait", None), getattr(fault, "retry_at", None)
    if wait is None and retry_at is not None:
        wait = retry_at.timestamp() - time.time()
    return max(0.0, wait or 0.0)


def _next(reading: Iterator[Outcomes]) -> list[tuple[Any, Any]] | RateLimited | None:
    with documented_form():
        outcomes = next(reading, None)  # for no future can hold a StopIteration
        return outcomes if outcomes is None or isinstance(outcomes, RateLimited) else list(outcomes)
