"""Thousands of waits: the event loop stays free, and waits that end leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.polling import poll
from tests.support.sizes import tenth_and_full
from tests.unit.polling.conftest import LEGACY_WORKFLOW, cancel, end, legacy_wait, start, v2_wait, wait_for

MAX_SECONDS = 0.05  # seconds of processor time of the event loop's thread
REFERENCE = 0.003  # seconds that a machine at rest takes for what slowness() does
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def emulator_apart():
    """An emulator whose work is not counted, for it is in a process of its own."""
    command = [sys.executable, "-m", "tests.support.emulator_process", "default"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        emulator = Emulator.attach(process.stdout.readline().strip())
        yield emulator
        process.stdin.close()


@pytest.fixture
def far(emulator_apart, set_connection):
    emulator_apart.control("POST", "reset", seed="default")
    set_connection("procore_default", emulator_apart.connection("procore"))
    return emulator_apart


# --- nothing is left behind ---


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def others() -> set[threading.Thread]:
    """Return the threads that belong to no pool."""
    pools = ("workflows-poll", "asyncio", "ThreadPoolExecutor")
    return {thread for thread in threading.enumerate() if not thread.name.startswith(pools)}


async def wait_until(reached) -> bool:
    """Wait until something is so, for the other side of a socket closes it a little later."""
    for _ in range(200):
        gc.collect()
        if reached():
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux shows them")
@tenth_and_full("cycles", 100)
def test_waits_that_come_and_go_leave_nothing_behind(far, monkeypatch, cycles):
    far.control("POST", "faults", path="/rest/", delay=0.05, times=10**6)
    monkeypatch.setattr(poll.PollScope, "first_delay", lambda scope, interval: interval)
    at_once, in_flight = 99, 2

    async def come_and_go(number: int) -> None:
        quick = [wait_for(v2_wait(str(number), str(number))) for number in range(at_once // 2)]
        quick += [wait_for(legacy_wait(str(number))) for number in range(at_once - len(quick))]
        await asyncio.sleep(0)
        await cancel(*quick)
        # Their request is on its way when they are cancelled.
        sends = [v2_wait("700001", "5001", poll_interval=0.001), legacy_wait("568150", poll_interval=0.001)]
        tasks = [wait_for(send) for send in sends[: 1 if number % 2 else in_flight]]
        await asyncio.sleep(0.02)
        await cancel(*tasks)

    async def scenario():
        await come_and_go(0)  # what is created once and stays: threads, a token
        await wait_until(lambda: len(asyncio.all_tasks()) == 1)
        await asyncio.sleep(0.3)
        gc.collect()
        files, threads = open_files(), others()
        for number in range(cycles):
            await come_and_go(number)
        await wait_until(lambda: len(asyncio.all_tasks()) == 1 and open_files() <= files)
        added = open_files() - files, others() - threads
        return added, asyncio.all_tasks() - {asyncio.current_task()}

    (files, threads), tasks = asyncio.run(scenario())

    assert tasks == set()
    assert files <= 0
    assert threads == set()
    assert len([thread for thread in threading.enumerate() if thread.name.startswith("workflows-poll")]) <= 4
    assert [state.polls for state in poll._loops.values() if state.polls] == []


def test_request_that_hangs_does_not_delay_a_cancelled_wait(far, monkeypatch):
    sent, may_return = threading.Event(), threading.Event()
    send = RestClient._send

    def hangs(client, request, path, *args):
        if path.startswith("/rest/"):
            sent.set()
            may_return.wait(60)
        return send(client, request, path, *args)

    monkeypatch.setattr(RestClient, "_send", hangs)

    async def scenario():
        task = wait_for(v2_wait("700001", "5001", poll_interval=0.01))
        await asyncio.to_thread(sent.wait, 60)
        await asyncio.wait_for(cancel(task), 30)  # which would wait for the request's end else
        still_hangs = not may_return.is_set()
        may_return.set()
        return still_hangs, task.cancelled()

    assert asyncio.run(scenario()) == (True, True)


# --- the event loop stays free ---


def slowness() -> float:
    """Return how many times slower this machine is at the moment than one at rest, at least 1."""
    started_at = time.thread_time()
    names = {str(number): [number] for number in range(20_000)}
    assert names
    return max(1.0, (time.thread_time() - started_at) / REFERENCE)


class Callbacks:
    """
    Measures each callback of event loops in processor time of its thread, which a busy machine does not stretch.

    Garbage collections come in callbacks of any code; as in the benchmark they do not count.
    """

    def __init__(self) -> None:
        self._collecting = 0.0  # seconds, all together
        self._collection_started = 0.0
        self.longest: list[tuple[float, str]] = []
        self.own_task = asyncio.current_task()  # the test's own, which does not count

    def _measure_collection(self, phase: str, collection: dict[str, int]) -> None:
        if phase == "start":
            self._collection_started = time.thread_time()
        else:
            self._collecting += time.thread_time() - self._collection_started

    @contextlib.contextmanager
    def measured(self):
        run = asyncio.events.Handle._run
        took = self.longest

        def measuring(handle):
            started_at, collected = time.thread_time(), self._collecting
            try:
                return run(handle)
            finally:
                spent = time.thread_time() - started_at - (self._collecting - collected)
                task = getattr(handle._callback, "__self__", None)
                if spent > MAX_SECONDS and task is not self.own_task and spent > MAX_SECONDS * slowness():
                    took.append((spent, f"{task!r} {handle!r}"))

        gc.collect()
        gc.freeze()  # a search of the heap of this test run is no work of the waits'
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.events.Handle, "_run", measuring)
            gc.callbacks.append(self._measure_collection)
            try:
                yield self
            finally:
                gc.callbacks.remove(self._measure_collection)
                gc.unfreeze()


@tenth_and_full("count", 1000)
def test_no_callback_blocks_the_event_loop_for_50_ms(far, monkeypatch, count):
    part = count // 20
    polls = []
    began_cycle = poll.Poll._emit_statistics
    monkeypatch.setattr(
        poll.Poll, "_emit_statistics", lambda polled: (polls.append(polled.scope.key[0]), began_cycle(polled))
    )
    v2 = start(far, count)
    legacy = far.control("POST", "procore/legacy/instances/many", count=count, workflow=LEGACY_WORKFLOW)["ids"]

    def some_end(number: int) -> None:
        end(far, *(instance_id for instance_id, _ in v2[number * part : (number + 1) * part]))
        ids = legacy[number * part : (number + 1) * part]
        for activity, login in (("Submit for Approval", "integration"), ("Approve", "rita")):
            body = {"ids": ids, "activity": activity, "login": f"{login}@example.com"}
            far.control("POST", "procore/legacy/instances/perform-many", **body)

    async def scenario():
        asyncio.get_running_loop().slow_callback_duration = MAX_SECONDS
        more = {"poll_interval": 1.0}
        # What is done once: imports, and masking the token among the thousands that this test run has seen.
        tasks = [wait_for(v2_wait(*v2[-1], **more))]
        while not polls:
            await asyncio.sleep(0.05)
        with Callbacks().measured() as callbacks:
            for first in range(0, count, 50):  # as many as a triggerer takes up at once
                tasks += [wait_for(v2_wait(*ids, **more)) for ids in v2[first : first + 50]]
                tasks += [
                    wait_for(legacy_wait(instance_id, mark="seen", **more))
                    for instance_id in legacy[first : first + 50]
                ]
                await asyncio.sleep(0)
            for number in range(3):
                await asyncio.to_thread(some_end, number)
                done = 2 * part * (number + 1)
                while sum(task.done() for task in tasks) < done:
                    await asyncio.sleep(0.05)
        statuses = [task.result()["status"] for task in tasks if task.done()]
        await cancel(*tasks)
        return callbacks.longest, statuses

    longest, statuses = asyncio.run(asyncio.wait_for(scenario(), 300), debug=True)

    assert longest == []
    assert statuses == ["done"] * (6 * part)
    assert min(polls.count("procore"), polls.count("procore_legacy")) >= 3
