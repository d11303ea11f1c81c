"""Polls of an invented API, waits on the emulator, and virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.hooks.base import FoundConnection
from airflow_provider_workflows.polling import poll
from airflow_provider_workflows.polling.poll import PollScope, Reader
from airflow_provider_workflows.rules.wait_result import WaitResult
from airflow_provider_workflows.triggers import base
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyInstanceWaitTrigger
from tests.support.virtual_time import VirtualTime

TOOL, PROJECT = "purchase_order_contract", "1001"
LEGACY_WORKFLOW = "Purchase Order Approval Workflow"
INTERVAL = 60.0
HISTORY, SHOW = "{id}/history", "{id}"
DONE = WaitResult("succeed", {"is": "over"}, "It is over.")


class Hook:
    """A hook of a made-up product."""

    def __init__(self, product: Product):
        self.product = product
        self.client = SimpleNamespace(sent=0, rate=None, base_url="made-up", share_sockets=lambda adapter: None)
        self.account = product.account
        self.requests_per_hour = product.requests_per_hour
        product.hooks.append(self)

    async def prepare(self, found: FoundConnection) -> None:
        self.found = found

    def close(self) -> None:
        self.product.closed.append(self)


class Product:
    """What the polls of connections to a made-up product see and do."""

    def __init__(self, time: Callable[[], float]):
        self.time = time
        self.account = object()
        self.polls: list[tuple[float, list[Any]]] = []  # when, for whom
        self.hooks: list[Hook] = []
        self.closed: list[Hook] = []
        self.requests_per_hour: int | None = None
        self.look_ups: list[float] = []  # of connections
        self.settings: Any = 0  # another value is a connection that was changed
        self.look_up_fault: Exception | None = None
        # What the next polls do, one after another; afterwards nothing comes out.
        self.next: list[Callable[[Reader, Sequence[Any]], Any]] = []

    def scope(self, name: str = "scope", conn_id: str = "made_up") -> PollScope:
        return MadeUpScope(self, name, conn_id)

    async def find_connection(self, conn_id: str) -> FoundConnection:
        self.look_ups.append(self.time())
        if self.look_up_fault is not None:
            raise self.look_up_fault
        return FoundConnection(SimpleNamespace(extra=self.settings), {})

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.polls]


def request(hook: Hook) -> None:
    """Send a request that gets a response."""
    hook.client.sent += 1


class MadeUpScope(PollScope):
    def __init__(self, product: Product, name: str, conn_id: str):
        super().__init__(conn_id)
        self.product = product
        self.name = name

    @property
    def key(self) -> tuple[str, ...]:
        return ("made_up", self.conn_id, self.name)

    hook_key = "made_up"

    def open_hook(self) -> Any:
        return Hook(self.product)

    def first_delay(self, interval: float) -> float:
        return interval

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        self.product.polls.append((self.product.time(), list(subscribers)))
        if self.product.next:
            await self.product.next.pop(0)(reader, subscribers)
            return
        await reader.call(request)
        reader.deliver_all((subscriber, None) for subscriber in subscribers)


class MadeUpWait(base.WaitTrigger):
    """A wait whose result the test decides."""

    def __init__(self, scope: PollScope, name: str = "wait", interval: float = INTERVAL, deadline: str | None = None):
        super().__init__(poll_interval=interval, deadline=deadline)
        self.name = name
        self._scope = scope
        self.single: Any = None  # what a poll of it alone brings

    def __repr__(self) -> str:
        return self.name

    connection = ("made_up", "made_up")

    async def poll_one(self, reader: Reader) -> Any:
        def read(hook: Hook) -> Any:
            request(hook)
            if isinstance(self.single, Exception):
                raise self.single
            return self.single

        return await reader.call(read)

    def scope(self) -> PollScope:
        return self._scope

    def open_hook(self) -> Any: ...

    def snapshot(self, hook: Any) -> Any: ...

    def evaluate(self, snapshot: Any) -> Any: ...

    def describe(self, snapshot: Any) -> str: ...

    def arguments(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def clock() -> Iterator[VirtualTime]:
    with VirtualTime() as clock:
        yield clock


@pytest.fixture
def product(clock: VirtualTime, monkeypatch: pytest.MonkeyPatch) -> Product:
    product = Product(lambda: clock.elapsed)
    monkeypatch.setattr("airflow_provider_workflows.hooks.base.find_connection", product.find_connection)
    return product


@pytest.fixture(autouse=True)
def nothing_polls_on() -> Iterator[None]:
    """Each subscriber is served or gone when a test is over, and so is the poll."""
    yield
    left = [
        entry for state in poll._loops.values() for entry in (state.polls, state.connections, state.channels) if entry
    ]
    poll._loops.clear()
    assert left == []


def wait_for(trigger: base.WaitTrigger) -> asyncio.Task[dict[str, Any]]:
    """Run a trigger as a triggerer does; the result is the event's payload."""

    async def first() -> dict[str, Any]:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    return asyncio.get_running_loop().create_task(first())


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(3):  # for the poll, which is cancelled by the last one
        await asyncio.sleep(0)


# --- waits on the emulator ---


def v2_wait(instance_id: str | None, item_id: str, **more: Any) -> ProcoreInstanceWaitTrigger:
    """A wait as a poke on a worker leaves it."""
    usual = {"procore_conn_id": "procore_default", "company_id": None, "project_id": PROJECT, "tool_type": TOOL}
    trigger = {"poll_interval": INTERVAL, "deadline": None}
    return ProcoreInstanceWaitTrigger(instance_id=instance_id, item_id=item_id, **{**usual, **trigger, **more})


def legacy_wait(instance_id: str, **more: Any) -> ProcoreLegacyInstanceWaitTrigger:
    usual = {"procore_conn_id": "procore_default", "company_id": None, "project_id": PROJECT}
    targets = {"until": ["PO Approved"], "fail_on": [], "skip_on": [], "after": None, "activity": None, "role": None}
    trigger = {"object_type": None, "object_id": None, "poll_interval": INTERVAL, "deadline": None}
    return ProcoreLegacyInstanceWaitTrigger(instance_id=instance_id, **{**usual, **targets, **trigger, **more})


def start(emulator: Emulator, count: int, **where: Any) -> list[tuple[str, str]]:
    """Start instances of Workflows v2; return their ids and those of their items."""
    started = emulator.control("POST", "procore/instances/many", **{"tool_type": TOOL, "count": count, **where})
    return list(zip(started["ids"], started["item_ids"], strict=True))


def end(emulator: Emulator, *instance_ids: str) -> None:
    """Let people reject instances, which ends them."""
    ids = list(instance_ids)
    emulator.control(
        "POST", "procore/instances/respond-many", ids=ids, login="integration@example.com", option="Reject"
    )


class RequestCounts:
    """The requests since the last call, by the last parts of the paths."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self.seen: Counter[str] = Counter()
        self()

    def __call__(self) -> dict[str, int]:
        by_path = Counter(self.emulator.control("GET", "counts")["by_path"])
        new = by_path - self.seen
        self.seen = by_path
        short: Counter[str] = Counter()
        for path, count in new.items():
            if not path.endswith(("/oauth/token", "/apitoken")):
                short["/".join(path.split("/")[-2:]) if path.endswith("history") else path.split("/")[-1]] += count
        return dict(short)


class Waiting:
    """Run waits through polls, and record the requests of each poll."""

    def __init__(self, emulator, clock):
        self.emulator = emulator
        self.clock = clock
        self.counts = RequestCounts(emulator)
        self.tasks = []
        self.polled_until = 0.0

    def start(self, *triggers):
        self.tasks += [wait_for(trigger) for trigger in triggers]

    async def poll(self) -> dict[str, int]:
        """Let one interval pass, in which everything is polled once."""
        self.polled_until += INTERVAL
        await asyncio.sleep(self.polled_until + INTERVAL / 2 - self.clock.elapsed)
        return self.counts()

    async def poll_until_shared(self) -> None:
        """Poll until no wait needs a poll of its own, as in Legacy and in a list without a mark the first polls do."""
        for _ in range(15):
            if sum(count for path, count in (await self.poll()).items() if path in (SHOW, HISTORY)) <= 5:
                return
        raise AssertionError("waits still poll individually")

    def statuses(self) -> list[str | None]:
        return [task.result()["status"] if task.done() else None for task in self.tasks]

    def results(self):
        return [task.result()["result"] for task in self.tasks if task.done()]


@pytest.fixture
def waiting(emulator, clock, monkeypatch):
    """Return a function that runs a scenario, each interval of which has one poll."""
    monkeypatch.setattr("airflow_provider_workflows.polling.poll.random.random", lambda: 1.0)
    monkeypatch.setattr("airflow_provider_workflows.polling.poll.random.uniform", lambda least, most: least)
    monkeypatch.setattr("airflow_provider_workflows.polling.workflowsoft.random.uniform", lambda least, _: least)

    def run(scenario):
        waits = Waiting(emulator, clock)

        async def whole():
            try:
                return await scenario(waits)
            finally:
                await cancel(*waits.tasks)

        return clock.run(whole())

    return run


@contextlib.contextmanager
def emulator_with(seed: str) -> Iterator[Emulator]:
    """Run an emulator with a seed of its own, which the connection then leads to."""
    with Emulator(seed) as emulator, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_PROCORE_DEFAULT", json.dumps(emulator.connection("procore")))
        yield emulator
