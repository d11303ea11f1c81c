"""
The base class of the event triggers, which watch Procore or Workflowsoft for an asset.

They emit each new event at least once. On Airflow 3.3.2 and newer they store what was emitted in the asset's state
store, so that nothing is lost when a triggerer dies, and a re-delivered event has the same id.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from zlib import crc32

from airflow.triggers.base import TriggerEvent

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.polling.channel import in_new_thread
from airflow_provider_workflows.polling.poll import snapshots
from airflow_provider_workflows.rules.parameters import as_list, check_required, check_seconds, seconds, str_id
from airflow_provider_workflows.settings import poke_interval_seconds

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_provider_workflows.polling.poll import PollScope
    from airflow_provider_workflows.version_compat import AssetStore

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 3.0.0, where an asset cannot be watched
    from airflow.triggers.base import BaseTrigger as BaseEventTrigger  # type: ignore[assignment]

log = logging.getLogger(__name__)

MAX_FACTS = 500  # in one event, which Airflow logs and stores; the next poll emits the rest
MAX_SHARD_BYTES = 48_000  # of JSON; Airflow's store accepts 65,536 in one value

Emitted = dict[str, Any]


class Reading:
    """
    Pass the outcome of one poll to every watcher of the same scope.

    :param outcome: What :meth:`WorkflowsEventTrigger.snapshots` yielded.
    """

    def __init__(self, outcome: Any):
        self.outcome = outcome
        # Of each watcher: what to do when Airflow has stored its event, and what to do when Airflow failed to store it.
        self.followups: list[tuple[Callable[[], Awaitable[None]], Callable[[], None]]] = []


class SnapshotProducer:
    """
    Poll for all watchers of a scope, and let them store what they have emitted when Airflow has stored their events.

    The class has the methods of Airflow's ``SharedStreamProducer`` (3.3+). None of them may raise, because that would
    end every watcher, and Airflow would start them again every two seconds.

    :param trigger: One of the watchers.
    """

    def __init__(self, trigger: WorkflowsEventTrigger):
        self.trigger = trigger

    async def open_stream(self) -> AsyncIterator[tuple[Reading, Reading]]:
        async with aclosing(self.trigger.snapshots()) as outcomes:
            async for outcome in outcomes:
                reading = Reading(outcome)
                yield reading, reading

    async def advance(self, batch: Sequence[Any]) -> None:
        for item in batch:
            for commit, roll_back in item.broker_payload.followups:
                if item.outcome.failed:
                    roll_back()  # of all watchers, because Airflow does not say whose event failed
                    continue
                try:
                    await commit()
                except Exception as fault:  # of Airflow's API server
                    log.warning(
                        "Storing emitted events in the asset's state store failed, will retry after the next poll. A "
                        "restart of the triggerer before that re-delivers them. %s: %s",
                        type(fault).__name__,
                        fault,
                    )

    def get_advance_lane(self, reading: Reading) -> Hashable:
        return None

    async def aclose(self) -> None:
        """Do nothing: the poll ends with its last subscriber."""


class SeenEventStore:
    """
    Store what was emitted in an asset's state store, in as many values as its size needs.

    A checksum of the key assigns each entry to a shard; the number of shards is a power of two. Only shards that have
    changed are written. After a kill between two writes some shards are older, and their events are re-delivered.

    :param store: The asset's store.
    :param name: Prefix of all keys.
    """

    def __init__(self, store: AssetStore, name: str):
        self._store = store
        self._name = name
        self._size = 0  # number of shards that the store's head names
        self._shards: list[str | None] = []  # their JSON as last read or written; None if unknown
        self.stored: Emitted | None = None

    async def load(self) -> Emitted | None:
        """Return what was emitted, or None if nothing was ever stored."""
        head = await self._store.aget(self._name)
        if head is None:
            return None
        self._size = head["shards"]
        shards = [await self._store.aget(self._key(self._size, i), {}) for i in range(self._size)]
        self._shards = [json.dumps(shard) for shard in shards]
        self.stored = {key: value for shard in shards for key, value in shard.items()}
        return self.stored

    async def save(self, emitted: Emitted) -> None:
        """Store what was emitted; write only the shards that have changed."""
        # In a thread, because encoding must not block the event loop of a triggerer.
        shards, texts = await in_new_thread(_fitting_shards, emitted, max(1, len(self._shards)))
        size = len(shards)
        if size != len(self._shards):
            self._shards = [None] * size
        for i, text in enumerate(texts):
            if text != self._shards[i]:
                await self._store.aset(self._key(size, i), shards[i])
                self._shards[i] = text
        if size != self._size:  # written last, so that until then the old shards are valid
            await self._store.aset(self._name, {"shards": size})
            self._size = size
        self.stored = emitted

    def _key(self, size: int, i: int) -> str:
        return f"{self._name}.{size}.{i}"


def _fitting_shards(emitted: Emitted, size: int) -> tuple[list[Emitted], list[str]]:
    """Split what was emitted into ``size`` shards, or more if the store needs that; return them and their JSON."""
    while True:
        shards: list[Emitted] = [{} for _ in range(size)]
        for key, value in emitted.items():
            shards[crc32(key.encode()) % size][key] = value
        texts = [json.dumps(shard) for shard in shards]
        if max(map(len, texts)) <= MAX_SHARD_BYTES:
            return shards, texts
        size *= 2


class WorkflowsEventTrigger(BaseEventTrigger):
    """
    Watch a part of Procore or Workflowsoft for an asset, and emit every new event at least once.

    On Airflow 3.3.2 and newer the trigger stores what it has emitted in the asset's state store, after Airflow has
    stored the event: nothing is lost when a triggerer dies, and a re-delivered event has the same id. Before 3.3.2
    nothing is stored, and what happens while no triggerer runs is not emitted.

    :param poll_interval: Seconds between two polls; None for ``[workflows] poke_interval``, else 60.
    :param asset: Name of the watched asset; None if no other asset has the same watcher.
    :param queue: Queue of the triggerers that may run the watcher (Airflow 3.4+); None for any.
    """

    event: ClassVar[str]
    own: ClassVar[tuple[str, ...]]  # the arguments of the subclass
    # The first poll on Airflow 3.3.2+: True emits everything that is open, False only stores it.
    emits_backlog: ClassVar[bool]

    def __init__(
        self,
        *,
        poll_interval: timedelta | float | None = None,
        asset: str | None = None,
        **kwargs: Any,
    ):
        queue = constant("queue", kwargs.pop("queue", None))
        if kwargs:  # Airflow's base class would ignore them
            raise TypeError(f"{type(self).__name__} takes no argument {', '.join(sorted(kwargs))}.")
        super().__init__(**version_compat.watcher_queue(queue))
        interval = seconds(poke_interval_seconds() if poll_interval is None else poll_interval)
        check_seconds("poll_interval", interval, may_be_zero=False)
        self.poll_interval = float(interval)  # one form, because it identifies the watcher
        self.asset = constant("asset", asset)
        self._cursor: SeenEventStore | None = None
        self._emitted: Emitted | None = None
        self._generation = 0  # number of rollbacks

    @abstractmethod
    def scope(self) -> PollScope:
        """Return the scope to poll; its key has all parameters that affect reading, and none that only filter."""

    @abstractmethod
    def news(self, emitted: Emitted, outcome: Any, *, is_first: bool) -> tuple[Emitted, list[dict[str, Any]]]:
        """
        Compare the outcome of a poll with what was emitted before.

        :param emitted: What was emitted before.
        :param outcome: The outcome.
        :param is_first: There is nothing to compare with; everything found counts as emitted.
        :return: What counts as emitted from now on, and the new facts.
        """

    def where(self, outcome: Any) -> dict[str, Any]:
        """Return the fields of an event's payload that say where its facts are from."""
        return {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        arguments = {name: getattr(self, name) for name in (*self.own, "poll_interval", "asset")}
        # Airflow stores the queue separately, but compares only the arguments to find changed watchers.
        if (queue := getattr(self, "queue", None)) is not None:
            arguments["queue"] = queue
        return f"{cls.__module__}.{cls.__qualname__}", arguments

    def snapshots(self) -> AsyncGenerator[Any, None]:
        """Yield the outcome of each poll of the scope."""
        return snapshots(self.scope(), self.poll_interval)

    # --- Airflow 3.3.2 and newer: one stream for all watchers of a scope ---

    def shared_stream_key(self) -> Hashable | None:
        try:
            if version_compat.asset_store(self.asset_state_store, self.asset) is None:
                return None
        except (AttributeError, LookupError):  # Airflow then calls run(), which logs the reason
            return None
        return (type(self).__qualname__, *self.scope().key, *self.read_by())

    def read_by(self) -> tuple[Hashable, ...]:
        """Return what distinguishes streams, in addition to the scope."""
        return (self.poll_interval,)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Any:
        return SnapshotProducer(cls(**kwargs))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        async for reading in shared_stream:
            try:
                payload = await self.emit(reading)
            except Exception:  # of Airflow's API server, or of an unexpected response
                log.warning("Emitting the events of a poll failed, will retry after the next poll.", exc_info=True)
                continue
            if payload is not None:
                yield TriggerEvent(payload)

    async def emit(self, reading: Reading) -> dict[str, Any] | None:
        """Return the payload of the event that a reading makes for this asset, if any."""
        await self.load_cursor()
        assert self._cursor is not None
        before, generation = self._emitted, self._generation
        is_first = before is None and not self.emits_backlog
        self._emitted, facts = self.news(before or {}, reading.outcome, is_first=is_first)
        if self._emitted != self._cursor.stored:
            roll_back = partial(self._roll_back, generation, before) if facts else _do_nothing
            reading.followups.append((partial(self._commit, generation, self._emitted), roll_back))
        return self.payload(facts, reading.outcome)

    async def load_cursor(self) -> None:
        """Read what was emitted, once."""
        if self._cursor is None:
            cursor = SeenEventStore(self.store, self.store_key)
            self._emitted = await cursor.load()
            self._cursor = cursor

    def is_stored(self, key: str, value: Any) -> bool:
        """Return whether the asset's state store has this value of what was emitted under a key."""
        return self._cursor is None or (self._cursor.stored or {}).get(key) == value

    async def _commit(self, generation: int, emitted: Emitted) -> None:
        assert self._cursor is not None
        if generation == self._generation:
            await self._cursor.save(emitted)

    def _roll_back(self, generation: int, before: Emitted | None) -> None:
        if generation == self._generation:  # later readings were compared with events that never reached Airflow
            self._generation += 1
            self._emitted = before

    @property
    def store(self) -> AssetStore:
        store = version_compat.asset_store(self.asset_state_store, self.asset)
        assert store is not None  # shared_stream_key() has checked that
        return store

    @property
    def store_key(self) -> str:
        digest = hashlib.sha256(json.dumps([self.event, *self.watched()]).encode()).hexdigest()
        return f"workflows.{digest[:12]}"

    @abstractmethod
    def watched(self) -> tuple[Any, ...]:
        """Return the parameters that the cursor belongs to: all that affect reading, as JSON primitives."""

    def payload(self, facts: list[dict[str, Any]], outcome: Any) -> dict[str, Any] | None:
        if not facts:
            return None
        return {"event": self.event, **self.where(outcome), "events": facts}

    # --- older Airflow: each watcher by itself, without a cursor ---

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            version_compat.asset_store(getattr(self, "asset_state_store", None), self.asset)
        except LookupError:
            log.error(
                "%s is not polling: it watches several assets, or not the one named in 'asset' (%s), so it cannot "
                "choose the state store for what it emits. Give each watcher the name of its asset.",
                type(self).__name__,
                self.asset,
            )
            await asyncio.Event().wait()
        log.warning(
            "%s stores no cursor, which needs Airflow 3.3.2 or newer: it emits what happens from now on, and after a "
            "restart of the triggerer what happens from then on.",
            type(self).__name__,
        )
        emitted: Emitted | None = None
        async with aclosing(self.snapshots()) as outcomes:
            async for outcome in outcomes:
                try:
                    emitted, facts = self.news(emitted or {}, outcome, is_first=emitted is None)
                except Exception:  # a bug in one poll must not end the watcher
                    log.exception("Emitting the events of a poll failed, will retry after the next poll.")
                    continue
                if (payload := self.payload(facts, outcome)) is not None:
                    yield TriggerEvent(payload)


def _do_nothing() -> None:
    """Roll nothing back, because no event was emitted."""


# --- parameters, which Airflow stores as JSON ---------------------------------------------------------------


def constant(name: str, value: Any) -> str | None:
    """
    Return a parameter of a watcher as text.

    :raises ConfigurationError: it is a template, which Airflow does not render there, or neither text nor a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigurationError(
            f"{name} must be text or a number, because Airflow stores a watcher's parameters as JSON; got "
            f"{type(value).__name__}."
        )
    if "{{" in str(value) or "{%" in str(value):
        raise ConfigurationError(f"{name} is a template, which Airflow does not render in an asset's watcher.")
    check_required(**{name: value})
    return str_id(value)


def connection_id(name: str, value: Any) -> str:
    """Return the id of a connection."""
    check_required(**{name: value})
    return str(constant(name, value))


def constants(name: str, value: Any) -> list[str]:
    """
    Return a parameter that may be one value or several as a sorted list of texts without duplicates.

    Sorted, because the order in which the values are given must not make another watcher with another cursor.
    """
    return sorted({text for item in as_list(value) if (text := constant(name, item)) is not None})
