"""
Measure whether waits disturb each other: hung servers, equal waits, a slow list, many scopes.

``benchmarks.waits`` starts it in a process of its own. It gets its order as the file ``sys.argv[1]``, the
:class:`Sizes` and the emulator's URL, and prints what it has measured as a line of JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_workflows.client import transport
from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.hooks import base as hooks
from airflow_provider_workflows.polling import poll as polls
from airflow_provider_workflows.polling.procore import REREAD_INSTANCES
from airflow_provider_workflows.triggers.base import WaitTrigger
from airflow_provider_workflows.triggers.procore import (
    ProcoreInstanceWaitTrigger,
    ProcoreResponseRequestedWaitTrigger,
)
from airflow_provider_workflows.triggers.procore_legacy import ProcoreLegacyInstanceWaitTrigger
from benchmarks.triggerer import Polls, own_output

TOOL, PROJECT = "purchase_order_contract", "1001"
REACHED = "Director Approval"
SHORT_INTERVAL = 1.0  # seconds; the first poll comes after exactly that, so results can be compared
SCOPES_OF_A_TENANT = 3  # more than a channel has threads
V2_LIST = "/workflows/instances"
LEGACY_LIST = "/rest/v1.0/workflow_instances"
LEGACY_PAGE = 2000
MAX_WAIT_SECONDS = 120.0


@dataclass(frozen=True)
class Sizes:
    """How much of everything there is; times in seconds."""

    tenants: int = 16
    timeout: float = 8.0  # of the hung connections
    results: int = 10  # that the healthy connection brings, so that timeouts pass meanwhile
    equal_waits: int = 30
    listed_instances: int = 40
    items: int = 500
    decisions: int = 40
    interval: float = 5.0
    legacy_instances: int = 4_001
    page_seconds: float = 3.0
    scopes: int = 100


class HungServer:
    """Accepts connections and never responds."""

    def __init__(self) -> None:
        self.url = ""
        self.hanging = 0

    async def __aenter__(self) -> HungServer:
        self._server = await asyncio.start_server(self._hang, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _hang(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hanging += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                while await reader.read(4096):
                    pass
        finally:
            self.hanging -= 1
            writer.close()


class Neighbours:
    """
    Measures in one event loop, as a triggerer has one.

    :param emulator: What the healthy connection leads to.
    """

    def __init__(self, emulator: Emulator, sizes: Sizes):
        self.emulator = emulator
        self.sizes = sizes
        self.polls = Polls()
        self.figures: list[tuple[str, float, float]] = []  # with their limits

    async def run(self) -> None:
        self.polls.install()
        polls.MIN_FIRST_DELAY_SECONDS = SHORT_INTERVAL
        for measure in (self.hung_tenants, self.equal_waits, self.many_scopes, self.slow_neighbour):
            start_time = time.monotonic()
            await measure()
            print(f"{measure.__name__} took {time.monotonic() - start_time:.1f} s", file=sys.stderr, flush=True)

    # --- what is measured ---

    async def hung_tenants(self) -> None:
        instance_id, item_id = (await self._start(1))[0]
        await self._approve(instance_id)
        ready = _v2_wait(instance_id, item_id, SHORT_INTERVAL)

        async def seconds_to_result() -> float:
            start_time = time.time()
            return await _first_event(ready()) - start_time

        await seconds_to_result()  # which also imports what is needed
        alone = [await seconds_to_result() for _ in range(3)]
        async with HungServer() as server:
            waits = []
            for number in range(self.sizes.tenants):
                conn_id = f"hung_{number}"
                os.environ[f"AIRFLOW_CONN_{conn_id.upper()}"] = json.dumps(self._hung_connection(server.url, conn_id))
                waits += [
                    _v2_wait("1", "1", SHORT_INTERVAL, procore_conn_id=conn_id, tool_subtype=str(scope))
                    for scope in range(SCOPES_OF_A_TENANT)
                ]
            async with _running(*(wait() for wait in waits)) as tasks:
                await _until(lambda: server.hanging >= self.sizes.tenants, tasks)
                beside = [await seconds_to_result() for _ in range(self.sizes.results)]
        later = max(beside) - statistics.median(alone)
        name = f"{self.sizes.tenants} hung tenants: seconds that a healthy connection's result comes later than alone"
        self.figures.append((name, later, 0.5))

    async def equal_waits(self) -> None:
        count = self.sizes.equal_waits
        await self._start(self.sizes.listed_instances)
        # So the list has instances that wait for someone else, each of which is read before that is known.
        await self._set_flags(filters="ignored")
        common: dict[str, Any] = {"procore_conn_id": "procore_default", "company_id": None, "deadline": None}
        query: dict[str, Any] = {"tool_types": [TOOL], "project_ids": [PROJECT], "user": "nora@example.com"}
        waits = [
            ProcoreResponseRequestedWaitTrigger(**common, **query, poll_interval=SHORT_INTERVAL) for _ in range(count)
        ]
        cycles = 3
        async with _running(*waits) as tasks:
            await self._polls("procore", 1, tasks)  # which reads them all
            before = await self._served()
            await self._polls("procore", cycles, tasks)
            served = await self._served() - before
        await self._set_flags(filters="honoured")
        lists = sum(number for path, number in served.items() if path.endswith(V2_LIST))
        name = f"{count} equal ProcoreResponseRequestedSensors"
        self.figures.append((f"{name}: lists in each poll", lists / cycles, 1))
        limit = 1 + REREAD_INSTANCES
        self.figures.append((f"{name}: requests in each poll", served.total() / cycles, limit))

    async def many_scopes(self) -> None:
        count, interval = self.sizes.scopes, self.sizes.interval
        started = await self._start(count)
        look_ups: list[str] = []
        sockets: list[object] = []
        port = urlsplit(self.emulator.url).port
        look_up, connect = hooks.find_connection, transport._PlainConnection.connect

        async def counted_look_up(conn_id: str) -> Any:
            look_ups.append(conn_id)
            return await look_up(conn_id)

        def counted_connect(self: transport._PlainConnection) -> None:
            if self.port == port:  # and no retry of a hung tenant
                sockets.append(self)
            connect(self)

        hooks.find_connection = counted_look_up
        transport._PlainConnection.connect = counted_connect  # type: ignore[method-assign]
        try:
            before, sent = await self._served(), self.polls.requests
            scopes = (_v2_wait(*ids, interval, tool_subtype=str(number)) for number, ids in enumerate(started))
            async with _running(*(wait() for wait in scopes)) as tasks:
                await self._polls("procore", 2 * count, tasks)
                counted, served = self.polls.requests - sent, (await self._served() - before).total()
        finally:
            hooks.find_connection = look_up
            transport._PlainConnection.connect = connect  # type: ignore[method-assign]
        if abs(counted - served) > 2:  # requests that were under way
            raise SystemExit(f"{count} scopes: {counted} requests were counted here, {served} by the emulator")
        self.figures.append((f"{count} scopes on one connection: look-ups of the connection", len(look_ups), 1))
        self.figures.append((f"{count} scopes on one connection: sockets opened", len(sockets), 4))

    async def slow_neighbour(self) -> None:
        sizes = self.sizes
        legacy = (await self._control("procore/legacy/instances/many", count=sizes.legacy_instances))["ids"]
        pages = -(-sizes.legacy_instances // LEGACY_PAGE)
        started = await self._start(sizes.items)
        await self._control("faults", path=f"{LEGACY_LIST}$", delay=sizes.page_seconds, times=1_000_000)
        waits: list[WaitTrigger] = [_legacy_wait(legacy[number], sizes.interval) for number in range(pages + 1)]
        waits += [_v2_wait(*ids, sizes.interval)() for ids in started]
        delays: list[float] = []
        async with _running(*waits) as tasks:
            await self._polls("procore", 2, tasks)
            before = await self._served()
            start_time = time.monotonic()
            decided: dict[int, float] = {}
            for turn in range(sizes.decisions):  # over two intervals, so that each part of one has some
                await asyncio.sleep(start_time + turn * 2 * sizes.interval / sizes.decisions - time.monotonic())
                number = turn * sizes.items // sizes.decisions
                decided[number] = time.time()
                await self._approve(started[number][0])
            for number, at in decided.items():
                delays.append(await asyncio.wait_for(tasks[pages + 1 + number], MAX_WAIT_SECONDS) - at)
            lists = sum(n for path, n in (await self._served() - before).items() if path.endswith(LEGACY_LIST))
        if not lists:
            raise SystemExit("The slow neighbour has listed nothing meanwhile.")
        name = (
            f"{sizes.items} v2 items beside a Legacy list of {sizes.page_seconds:g} s a page: seconds beyond the "
            "interval until the last decision was noticed"
        )
        self.figures.append((name, max(delays) - sizes.interval, 1.0))

    async def _polls(self, product: str, count: int, tasks: list[asyncio.Task[float]]) -> None:
        """Wait for the end of so many polls."""
        enough = self.polls.ended_of[product] + count
        await _until(lambda: self.polls.ended_of[product] >= enough, tasks)

    # --- the emulator ---

    async def _control(self, path: str, /, **body: Any) -> Any:
        return await asyncio.to_thread(self.emulator.control, "POST", path, **body)

    async def _set_flags(self, **flags: str) -> None:
        await asyncio.to_thread(self.emulator.control, "PATCH", "flags", **flags)

    async def _start(self, count: int) -> list[tuple[str, str]]:
        """Start instances; return their ids and those of their items."""
        started = await self._control("procore/instances/many", count=count, tool_type=TOOL, project_id=PROJECT)
        return list(zip(started["ids"], started["item_ids"], strict=True))

    async def _approve(self, instance_id: str) -> None:
        who = {"login": "integration@example.com", "option": "Approve"}
        await self._control("procore/instances/respond-many", ids=[instance_id], **who)

    async def _served(self) -> Counter[str]:
        """Return how many requests the emulator has served, by path, without sign-ins."""
        counts = await asyncio.to_thread(self.emulator.control, "GET", "counts")
        return Counter({path: number for path, number in counts["by_path"].items() if not path.endswith("/token")})

    def _hung_connection(self, url: str, login: str) -> dict[str, Any]:
        """Return a connection with a server and a sign-in of its own."""
        healthy = self.emulator.connection("procore")
        extra = {**healthy["extra"], "login_url": url, "timeout": self.sizes.timeout}
        return {**healthy, "host": url, "login": login, "extra": extra}


def _v2_wait(instance_id: str, item_id: str, interval: float, **other: Any) -> Callable[[], WaitTrigger]:
    """Return what makes the trigger; a trigger waits only once."""
    place = {"procore_conn_id": "procore_default", "company_id": None, "project_id": PROJECT, "tool_type": TOOL}
    named = {"instance_id": instance_id, "item_id": item_id, "step_reached": [REACHED]}
    arguments: dict[str, Any] = {**place, **named, "poll_interval": interval, "deadline": None, **other}
    return lambda: ProcoreInstanceWaitTrigger(**arguments)


def _legacy_wait(instance_id: str, interval: float) -> WaitTrigger:
    place = {"procore_conn_id": "procore_default", "company_id": None, "project_id": PROJECT}
    states = {"until": ["PO Approved"], "fail_on": [], "skip_on": []}
    other = dict.fromkeys(("object_type", "object_id", "after", "activity", "role", "deadline"))
    arguments: dict[str, Any] = {**place, **states, **other, "instance_id": instance_id, "poll_interval": interval}
    return ProcoreLegacyInstanceWaitTrigger(**arguments)


async def _first_event(trigger: WaitTrigger) -> float:
    """Run a trigger as a triggerer does; return when its event came, as unix time."""
    async with contextlib.aclosing(trigger.run()) as events:  # type: ignore[type-var]
        async for event in events:
            if event.payload["status"] != "done":
                raise RuntimeError(f"A wait has ended with {event.payload}")
            return time.time()
    raise RuntimeError("A trigger has ended without an event.")


@contextlib.asynccontextmanager
async def _running(*triggers: WaitTrigger) -> AsyncIterator[list[asyncio.Task[float]]]:
    """Run triggers meanwhile."""
    tasks = [asyncio.create_task(_first_event(trigger)) for trigger in triggers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until(condition: Callable[[], Any], tasks: list[asyncio.Task[float]]) -> None:
    """Wait for something while none of the tasks ends."""
    due = time.monotonic() + MAX_WAIT_SECONDS
    while not condition():
        if time.monotonic() > due:
            raise RuntimeError("What was to be measured did not come.")
        for task in tasks:
            if task.done():
                raise RuntimeError("A wait has ended although nothing had changed.") from task.exception()
        await asyncio.sleep(0.02)


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text())
    output = own_output()
    neighbours = Neighbours(Emulator.attach(order["url"]), Sizes(**order["sizes"]))
    asyncio.run(neighbours.run())
    print(json.dumps({"figures": neighbours.figures}), file=output, flush=True)
    sys.stdin.readline()  # for who started it still reads how busy it was


if __name__ == "__main__":
    main()
    os._exit(0)  # calls to the hung server need not time out first
