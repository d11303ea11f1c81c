"""
A process that runs triggers as a triggerer does, and says what that costs; started by ``benchmarks.waits``.

It reads an order from the file ``sys.argv[1]``, reports its progress in lines of JSON, and continues at a line of its
standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import math
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import IO, Any

TICK = 0.01  # seconds
BATCH = 50  # triggers that a triggerer takes up at once
BATCH_SECONDS = 0.8  # seconds between two batches, as seen on a triggerer of Airflow 3.3
MAX_WAIT_SECONDS = 180.0  # seconds, for a poll
MAX_LOADING_SECONDS = 10.0  # seconds, of triggers whose polls are shared


class Ticker:
    """
    Sleep, and measure by how much the sleep ends late: for so long the event loop was blocked.

    Full garbage collections are measured separately. They take about a tenth of a second in any triggerer, and it is
    random in which measurement one of them comes.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.longest_collection = 0.0
        self._collecting = 0.0  # seconds, all together
        self._collection_started = 0.0
        self._task: asyncio.Task[None] | None = None
        gc.callbacks.append(self._measure_collection)

    def start(self) -> None:
        self._task = asyncio.create_task(self._tick())

    def stop(self) -> float:
        """Return the longest delay since the start, in seconds."""
        assert self._task is not None
        self._task.cancel()
        longest, self.longest = self.longest, 0.0
        return longest

    def _measure_collection(self, phase: str, collection: dict[str, int]) -> None:
        if phase == "start":
            self._collection_started = time.perf_counter()
        elif collection["generation"] == 2:
            seconds = time.perf_counter() - self._collection_started
            self._collecting += seconds
            self.longest_collection = max(self.longest_collection, seconds)

    async def _tick(self) -> None:
        while True:
            start_time, collecting = time.perf_counter(), self._collecting
            await asyncio.sleep(TICK)
            late = time.perf_counter() - start_time - TICK - (self._collecting - collecting)
            self.longest = max(self.longest, late)


class Polls:
    """Hears the statistics of this package: how many requests were sent, and when a poll has ended."""

    def __init__(self) -> None:
        self.requests = 0
        self.ended = 0
        self.ended_of: Counter[str] = Counter()  # by product
        self._next = asyncio.Event()

    def install(self) -> None:
        from airflow_provider_workflows import version_compat

        version_compat.count = self.count

    def count(self, name: str, /, number: int = 1, **tags: str) -> None:
        if name == "workflows.requests":
            self.requests += number
        elif name == "workflows.polls":
            self.ended += 1
            self.ended_of[tags["product"]] += 1
            self._next.set()

    async def next(self) -> None:
        """Wait for the end of the next poll, but not for ever."""
        self._next.clear()
        await asyncio.wait_for(self._next.wait(), MAX_WAIT_SECONDS)


class Triggerer:
    """
    Runs triggers side by side in one event loop.

    :param order: ``{classpath, kwargs, common, interval, polls, shared, watches, first_delay}``: ``kwargs`` are the
        arguments of each trigger by its name, ``common`` those of all; ``shared`` says whether their polls are,
        ``watches`` whether each waits for one event or watches for many.
    """

    def __init__(self, order: dict[str, Any]):
        self.order = order
        self.events: dict[str, float] = {}  # unix time by trigger
        self.failures: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.polls = Polls()
        self._awaited: set[str] | None = None  # the triggers whose events are to come
        self._all_emitted = asyncio.Event()
        self._channel = own_output()

    async def run(self) -> None:
        order, loop, ticker = self.order, asyncio.get_running_loop(), Ticker()
        module, _, name = order["classpath"].rpartition(".")
        trigger = getattr(importlib.import_module(module), name)
        if order["shared"]:
            self._import_what_polls_need()
            self.polls.install()
        _forget_peak()
        at_rest = _status("VmRSS")

        ticker.start()
        start_time = time.perf_counter()
        await self._load(trigger)
        loading, loading_stall = time.perf_counter() - start_time, ticker.stop()
        await (self._first_polls() if order["shared"] else asyncio.sleep(0))
        await self._send(loop, loaded=loading)

        start_time, cpu, sent = time.perf_counter(), time.process_time(), self.polls.requests
        if order["shared"]:
            for _ in range(order["polls"]):
                await self.polls.next()
        else:
            await asyncio.sleep(order["interval"] * order["polls"])
        elapsed, cpu, sent = time.perf_counter() - start_time, time.process_time() - cpu, self.polls.requests - sent
        quiet_memory = _status("VmRSS")
        await self._send(loop, seconds=elapsed, cpu=cpu, sent=sent)

        ticker.start()
        self._awaited = set(await self._send(loop, changing=True))
        self._count_event()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._all_emitted.wait(), order["interval"] * 3 + 15)
        await self._send(
            loop,
            stall=ticker.stop(),
            loading_stall=loading_stall,
            collection=ticker.longest_collection,
            memory_at_rest=at_rest,
            memory=quiet_memory,
            memory_peak=_status("VmHWM"),
            events=self.events,
            failures=self.failures[:3],
            failed=len(self.failures),
        )

    async def _load(self, trigger: Any) -> None:
        """
        Take the triggers up as a triggerer does, but sooner than that, all within an interval.

        Those that poll by themselves are spread over all of it, as they would be in the long run.
        """
        order = self.order
        names = list(order["kwargs"])
        batches = math.ceil(len(names) / BATCH)
        longest = min(order["interval"], MAX_LOADING_SECONDS) if order["shared"] else order["interval"]
        gap = min(BATCH_SECONDS, longest / batches)
        for number in range(batches):
            due = time.monotonic() + gap
            for name in names[number * BATCH : (number + 1) * BATCH]:
                built = trigger(**order["common"], **order["kwargs"][name])
                self._tasks.append(asyncio.create_task(self._wait(name, built)))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if not order["shared"]:  # until the first of them poll again
            await asyncio.sleep(max(0.0, order["interval"] - gap * batches))

    async def _wait(self, name: str, trigger: Any) -> None:
        try:
            async for event in trigger.run():
                now = time.time()
                if not self.order["watches"]:
                    self.events[name] = now
                    self._count_event()
                    break
                for fact in event.payload["events"]:
                    self.events.setdefault(fact["instance_id"], now)
                self._count_event()
            else:
                self.failures.append(f"{name} ended without an event")
        except Exception as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(Exception):
                await trigger.cleanup()

    def _count_event(self) -> None:
        if self._awaited is not None and self._awaited <= self.events.keys():
            self._all_emitted.set()

    async def _first_polls(self) -> None:
        """Wait for a poll that reads for all; the one that runs while they are loaded may not."""
        for _ in range(2 if self.polls.ended else 1):
            await self.polls.next()

    def _import_what_polls_need(self) -> None:
        for package in ("polling", "triggers"):
            for name in ("procore", "procore_legacy", "procore_events"):
                importlib.import_module(f"airflow_provider_workflows.{package}.{name}")
        for name in ("procore", "procore_legacy"):
            importlib.import_module(f"airflow_provider_workflows.hooks.{name}")
        from airflow_provider_workflows.polling import poll

        poll.MIN_FIRST_DELAY_SECONDS = self.order.get("first_delay", poll.MIN_FIRST_DELAY_SECONDS)

    async def _send(self, loop: asyncio.AbstractEventLoop, **what: Any) -> Any:
        print(json.dumps(what), file=self._channel, flush=True)
        return json.loads(await loop.run_in_executor(None, sys.stdin.readline) or "null")


def own_output() -> IO[str]:
    """Return this process's standard output, and let the log go elsewhere: no reader would empty the pipe."""
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return channel


def _status(name: str) -> int:
    """Return a line of this process's status, in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise LookupError(name)


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    asyncio.run(Triggerer(json.loads(Path(sys.argv[1]).read_text())).run())


if __name__ == "__main__":
    main()
    os._exit(0)  # thousands of waits need not be cancelled one by one
