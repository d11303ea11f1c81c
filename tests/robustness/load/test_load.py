"""Two hundred tasks under Procore's rate limit: all succeed, each writes once, none retries too early."""

from __future__ import annotations

import contextlib
import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.emulator import state
from airflow_provider_workflows.hooks.procore import ProcoreConnectionHook
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator, ProcoreStartInstanceOperator
from airflow_provider_workflows.operators.procore.base import ProcoreOperator
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCompleteIntegrationOperator,
    WorkflowsoftGetFieldsOperator,
    WorkflowsoftUpdateFieldsOperator,
)
from tests.robustness.load import work


class SharedTime:
    """The time of many threads; it jumps to the first wake-up time as soon as all of them sleep."""

    def __init__(self, threads: int):
        self.now = time.time()
        self._running = threads
        self._wake_ups: list[float] = []
        self._changed = threading.Condition()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._changed:
            end = self.now + seconds
            heapq.heappush(self._wake_ups, end)
            self._rest()
            self._changed.wait_for(lambda: self.now >= end)

    def leave(self) -> None:
        with self._changed:
            self._rest()

    def _rest(self) -> None:
        self._running -= 1
        if self._running == 0 and self._wake_ups:
            self.now = self._wake_ups[0]
            while self._wake_ups and self._wake_ups[0] <= self.now:
                heapq.heappop(self._wake_ups)
                self._running += 1
            self._changed.notify_all()


class Run:
    """The tasks in the slots of a pool, as threads."""

    def __init__(self, slots: int, monkeypatch: pytest.MonkeyPatch):
        self.time = SharedTime(slots)
        self.slots = slots
        self.failures: list[str] = []
        virtual = SimpleNamespace(time=self.time.time, sleep=self.time.sleep)
        monkeypatch.setattr(state, "time", virtual)
        monkeypatch.setitem(RestClient.__init__.__kwdefaults__, "clock", self.time.time)
        monkeypatch.setitem(RestClient.__init__.__kwdefaults__, "sleep", self.time.sleep)
        monkeypatch.setitem(TokenAuth.__init__.__kwdefaults__, "clock", self.time.time)
        # Airflow compiles all its masks again for each token, which would take longer than all else.
        monkeypatch.setattr("airflow.sdk.log.mask_secret", lambda *secret: None)
        # Up to Python 3.11 these let one thread at a time in, for all hooks together; tasks are processes of their own.
        for cls in (ProcoreConnectionHook, ProcoreOperator, ProcoreLegacyPerformActivityOperator):
            for member in vars(cls).values():
                if isinstance(member, cached_property):
                    monkeypatch.setattr(member, "lock", contextlib.nullcontext(), raising=False)

    def all(self, tasks: list[Callable[[], None]]) -> None:
        """Run them, and return when all have ended."""
        waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        for task in tasks:
            waiting.put(task)
        slots = [threading.Thread(target=self._slot, args=[waiting], daemon=True) for _ in range(self.slots)]
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join(300)
            assert not slot.is_alive(), f"a task does not end: {self.failures}"

    def _slot(self, waiting: queue.SimpleQueue[Callable[[], None]]) -> None:
        while True:
            try:
                task = waiting.get_nowait()
            except queue.Empty:
                self.time.leave()
                return
            try:
                task()
            except BaseException as error:  # one that ended its thread would leave the others asleep
                self.failures.append(repr(error))


def tasks(arguments: dict[str, list[dict[str, Any]]]) -> list[Callable[[], None]]:
    """Return the tasks in the order of a dealt deck: every kind from the start to the end."""
    kinds = {"respond": respond, "perform": perform, "start": start, "integration": integrate}
    dealt = [
        (number / len(many), partial(kinds[kind], **keywords))
        for kind, many in arguments.items()
        for number, keywords in enumerate(many)
    ]
    return [task for _, task in sorted(dealt, key=lambda pair: pair[0])]


def respond(**arguments: Any) -> None:
    do(ProcoreRespondOperator(task_id="respond", option="Approve", **arguments))


def perform(**arguments: Any) -> None:
    do(ProcoreLegacyPerformActivityOperator(task_id="perform", activity="Submit for Approval", **arguments))


def start(**arguments: Any) -> None:
    do(ProcoreStartInstanceOperator(task_id="start", tool_type=work.TOOL, **arguments))


def integrate(**arguments: Any) -> None:
    do(WorkflowsoftGetFieldsOperator(task_id="get", **arguments))
    do(WorkflowsoftUpdateFieldsOperator(task_id="update", fields=work.FIELDS, **arguments))
    do(WorkflowsoftCompleteIntegrationOperator(task_id="complete", **arguments))


def do(operator: Any) -> None:
    operator.execute({})


@pytest.fixture
def emulator() -> Iterator[work.RecordedEmulator]:
    with work.RecordedEmulator() as emulator:
        yield emulator


@pytest.mark.parametrize("part", [10, pytest.param(1, id="full", marks=pytest.mark.slow)])
def test_tasks_at_the_rate_limit_all_write_once_in_time(emulator, set_connection, monkeypatch, part):
    arguments = work.prepare(emulator, part)
    for conn_id, connection in work.connections(emulator, arguments).items():
        set_connection(conn_id, connection)
    run = Run(work.POOL_SIZE, monkeypatch)

    run.all(tasks(arguments))

    assert run.failures == []
    assert work.problems(emulator, part) == []
