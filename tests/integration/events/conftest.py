"""Airflow's part of an event trigger: its shared streams, an asset's state store, and kills."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

MAX_BYTES = 65_536
PATIENCE = 10.0  # seconds

if importlib.util.find_spec("airflow.triggers.shared_stream") is None:
    collect_ignore = [
        "test_streams.py",
        "test_procore_events.py",
        "test_workflowsoft_events.py",
        "test_size.py",
        "test_isolation.py",
    ]


class StoreFailed(Exception):
    """Airflow's API server did not take it."""


class Stores:
    """The state stores of all assets, which outlive every triggerer; reject what Airflow's would cut or reject."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, str]] = {}
        self.writes: list[tuple[str, str]] = []
        self.fails: Callable[[str, str, str], bool] = lambda what, asset, key: False

    def of(self, *assets: str) -> TriggerStores:
        """Return what Airflow gives to a trigger that watches for these assets."""
        return TriggerStores(self, assets)

    def value(self, asset: str, key: str) -> Any:
        return json.loads(self.values[asset][key])

    def keys(self, asset: str) -> list[str]:
        return sorted(self.values.get(asset, {}))


class TriggerStores:
    def __init__(self, stores: Stores, assets: tuple[str, ...]):
        self.stores = stores
        self.assets = assets
        self.is_dead = False

    def __getitem__(self, ref: Any) -> OneStore:
        if ref.name not in self.assets:
            raise KeyError(ref.name)
        return OneStore(self, ref.name)

    def _single_accessor(self) -> OneStore:
        if len(self.assets) != 1:
            raise ValueError(f"{len(self.assets)} assets")
        return OneStore(self, self.assets[0])

    async def aget(self, key: str, default: Any = None) -> Any:
        return await self._single_accessor().aget(key, default)


class OneStore:
    def __init__(self, of: TriggerStores, asset: str):
        self.of = of
        self.asset = asset

    async def aget(self, key: str, default: Any = None) -> Any:
        await asyncio.sleep(0)
        stores = self.of.stores
        if self.of.is_dead or stores.fails("get", self.asset, key):
            raise StoreFailed
        found = stores.values.get(self.asset, {}).get(key)
        return default if found is None else json.loads(found)

    async def aset(self, key: str, value: Any) -> None:
        assert value is not None
        text = json.dumps(value)
        assert len(text) <= MAX_BYTES, f"{key} has {len(text)} bytes"
        await asyncio.sleep(0)
        stores = self.of.stores
        if self.of.is_dead or stores.fails("set", self.asset, key):
            raise StoreFailed
        stores.values.setdefault(self.asset, {})[key] = text
        stores.writes.append((self.asset, key))


class Triggerer:
    """
    Runs watchers in this event loop as Airflow's triggerer does.

    :param stores: What outlives it.
    :param persists: Whether events reach the database at once; else when :meth:`persist` is called.
    """

    def __init__(self, stores: Stores, *, persists: bool = True, ack_timeout: float = 300.0):
        from airflow.triggers.shared_stream import SharedStreamManager

        self.manager = SharedStreamManager(ack_timeout=ack_timeout)
        self.stores = stores
        self.persists = persists
        self.payloads: list[tuple[str, dict[str, Any]]] = []  # what was yielded, for which assets
        self.ended: list[BaseException | None] = []
        self.readings = 0
        self.stored: list[dict[str, Any]] = []  # rows of the events that have reached the database
        self.unsent: list[int] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._stores: list[TriggerStores] = []

    def watch(self, trigger: Any, *assets: str) -> int:
        """Start a watcher for assets, by default for the one it names."""
        path, kwargs = trigger.serialize()
        assert path.endswith(type(trigger).__name__)
        copy = type(trigger)(**json.loads(json.dumps(kwargs)))
        copy.asset_state_store = self.stores.of(*(assets or (trigger.asset or "asset",)))
        self._stores.append(copy.asset_state_store)
        number = len(self._tasks)
        name = " ".join(copy.asset_state_store.assets)
        self._tasks[number] = asyncio.create_task(self._run(number, copy, name))
        return number

    async def _run(self, number: int, trigger: Any, name: str) -> None:
        key = trigger.shared_stream_key()
        assert key is not None
        stream = self.manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(self._counted(stream)):
                json.dumps(event.payload)
                self.payloads.append((name, event.payload))
                seq = self.manager.bind_pending_event(trigger_id=number, key=key)
                if seq is not None:
                    self.unsent.append(seq)
                if self.persists:
                    asyncio.get_running_loop().call_soon(self.persist)
        except Exception as error:
            self.ended.append(error)
        else:
            self.ended.append(None)
        finally:
            await self.manager.unsubscribe(number, key)

    async def _counted(self, stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for reading in stream:
            yield reading
            self.readings += 1

    def persist(self) -> None:
        """Let the events that were yielded reach the database."""
        sent, self.unsent = self.unsent, []
        self.stored = self.events()
        self.manager.confirm_persisted(sent)

    async def stop(self, number: int) -> None:
        """Take one watcher away."""
        self._tasks[number].cancel()
        await asyncio.gather(self._tasks[number], return_exceptions=True)

    async def kill(self) -> None:
        """End it at once: nothing more reaches a store."""
        for stores in self._stores:
            stores.is_dead = True
        for number in self._tasks:
            await self.stop(number)
        await self.manager.stop_all()

    async def until(self, true: Callable[[], Any]) -> None:
        """Wait until something is so."""
        end = asyncio.get_running_loop().time() + PATIENCE
        while not true():
            assert self.ended == [], self.ended
            assert asyncio.get_running_loop().time() < end, "it did not happen"
            await asyncio.sleep(0.005)

    async def polls(self, number: int = 2) -> None:
        """Wait until the watchers have gone through some more polls, successful or not."""
        before = self.readings
        await self.until(lambda: self.readings >= before + number)
        await asyncio.sleep(0.02)

    def events(self, asset: str | None = None) -> list[dict[str, Any]]:
        return [row for name, payload in self.payloads if asset in (None, name) for row in payload["events"]]

    def event_ids(self, asset: str | None = None) -> list[str]:
        return [row["event_id"] for row in self.events(asset)]


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
def run(stores: Stores) -> Callable[..., Any]:
    """Return a function that runs a scenario with a triggerer in an event loop of its own."""

    def run_it(scenario: Callable[[Triggerer], Any], **settings: Any) -> Triggerer:
        async def whole() -> Triggerer:
            triggerer = Triggerer(stores, **settings)
            try:
                await asyncio.wait_for(scenario(triggerer), 60)
            finally:
                await triggerer.kill()
            assert triggerer.ended == []
            return triggerer

        triggerer = asyncio.run(whole())
        # A request that was being sent when the triggerer ended would count as one of the next test.
        for thread in threading.enumerate():
            if thread.name.startswith("workflows"):
                thread.join(60)
        return triggerer

    return run_it


def by_id(rows: list[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {row["event_id"]: row for row in rows}
