"""What the event triggers have in common: they tell an asset of every new fact, at least once."""

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

from airflow.providers.common.compat.sdk import conf
from airflow.triggers.base import TriggerEvent

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.polling.channel import in_new_thread
from airflow_provider_workflows.polling.poll import snapshots
from airflow_provider_workflows.rules.parameters import as_list, check_required, str_id

if TYPE_CHECKING:
    from collections.abc import Hashable

    from airflow_provider_workflows.polling.poll import PollScope
    from airflow_provider_workflows.version_compat import AssetStore

try:
    from airflow.triggers.base import BaseEventTrigger
except ImportError:  # Airflow 3.0.0, where an asset cannot be watched
    from airflow.triggers.base import BaseTrigger as BaseEventTrigger  # type: ignore[assignment]

log = logging.getLogger(__name__)

MAX_FACTS = 500  # in one event, which Airflow logs and stores; the rest comes with the next poll
FULL_SHARD = 48_000  # bytes of JSON; Airflow's store takes 65,536 in one value

Emitted = dict[str, Any]


class Reading:
    """
    What one poll has found, handed to every watcher of the same scope.

    :param outcome: What :meth:`Scope.read` yielded.
    """

    def __init__(self, outcome: Any):
        self.outcome = outcome
        # What the watchers do once Airflow has stored the events that they made of it, and what if it has not.
        self.followups: list[tuple[Callable[[], Awaitable[None]], Callable[[], None]]] = []


class SnapshotProducer:
    """
    Polls for all watchers of a scope, and lets them keep what they have told once Airflow has it.

    It has the methods of Airflow's ``SharedStreamProducer`` (3.3+). None of them may raise: that would end every
    watcher, and Airflow would start them again every two seconds.

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
                    roll_back()  # Airflow does not say whose event it was that did not get there
                    continue
                try:
                    await commit()
                except Exception as fault:  # of Airflow's API server
                    log.warning(
                        "What was told could not be noted in the asset's state store; it is tried again after the "
                        "next poll, and would be told again after a restart. %s: %s",
                        type(fault).__name__,
                        fault,
                    )

    def get_advance_lane(self, reading: Reading) -> Hashable:
        return None

    async def aclose(self) -> None:
        """Nothing is left open: the poll ends with its last subscriber."""


class SeenEventStore:
    """
    What was told, kept in an asset's state store in as many values as its size needs.

    Values are split by a checksum of the key, into a power of two; only those that have changed are written. After
    a kill between two of them a part is older, and what is in it is told again.

    :param store: The asset's store.
    :param name: What all its keys begin with.
    """

    def __init__(self, store: AssetStore, name: str):
        self._store = store
        self._name = name
        self._size = 0  # how many shards the store's head names
        self._shards: list[str | None] = []  # what is known to be in them
        self.stored: Emitted | None = None

    async def load(self) -> Emitted | None:
        """Return what was told, or None if nothing was ever kept."""
        head = await self._store.aget(self._name)
        if head is None:
            return None
        self._size = head["shards"]
        shards = [await self._store.aget(self._key(self._size, i), {}) for i in range(self._size)]
        self._shards = [json.dumps(shard) for shard in shards]
        self.stored = {key: value for shard in shards for key, value in shard.items()}
        return self.stored

    async def save(self, emitted: Emitted) -> None:
        """Keep what was told; what is in the store already is not written again."""
        # In a thread, for the event loop of a triggerer must not be kept.
        shards, texts = await in_new_thread(_fitting_shards, emitted, max(1, len(self._shards)))
        size = len(shards)
        if size != len(self._shards):
            self._shards = [None] * size
        for i, text in enumerate(texts):
            if text != self._shards[i]:
                await self._store.aset(self._key(size, i), shards[i])
                self._shards[i] = text
        if size != self._size:  # last, so that until then the old ones count
            await self._store.aset(self._name, {"shards": size})
            self._size = size
        self.stored = emitted

    def _key(self, size: int, i: int) -> str:
        return f"{self._name}.{size}.{i}"


def _fitting_shards(emitted: Emitted, size: int) -> tuple[list[Emitted], list[str]]:
    """Split what was told into so many parts, or as many more as the store needs; return them as JSON, too."""
    while True:
        shards: list[Emitted] = [{} for _ in range(size)]
        for key, value in emitted.items():
            shards[crc32(key.encode()) % size][key] = value
        texts = [json.dumps(shard) for shard in shards]
        if max(map(len, texts)) <= FULL_SHARD:
            return shards, texts
        size *= 2


class WorkflowsEventTrigger(BaseEventTrigger):
    """
    Watches a part of a product for an asset, and tells every new fact at least once.

    On Airflow 3.3.2 and newer what was told is kept in the asset's own state store, after Airflow has stored the
    event: so nothing is lost when a triggerer dies, and a repeat has the same event ids. Before that nothing is
    kept, and what happens while no triggerer runs is not told.

    :param poll_interval: Seconds between two polls; None for ``[workflows] poke_interval``, else 60.
    :param asset: Name of the asset that it watches for; None if no other asset has the same watcher.
    :param queue: The queue of the triggerers that may run it (Airflow 3.4+); None for any.
    """

    event: ClassVar[str]
    own: ClassVar[tuple[str, ...]]  # the arguments of the subclass
    # Without a cursor, on Airflow 3.3.2+: tell what is there already, for it is open work, or only what follows.
    emits_backlog: ClassVar[bool]

    def __init__(
        self,
        *,
        poll_interval: timedelta | float | None = None,
        asset: str | None = None,
        **kwargs: Any,
    ):
        queue = constant("queue", kwargs.pop("queue", None))
        if kwargs:  # Airflow would take them without a word
            raise TypeError(f"{type(self).__name__} takes no argument {', '.join(sorted(kwargs))}.")
        super().__init__(**version_compat.watcher_queue(queue))
        self.poll_interval = seconds("poll_interval", poll_interval)
        self.asset = constant("asset", asset)
        self._cursor: SeenEventStore | None = None
        self._emitted: Emitted | None = None
        self._line = 0  # counts how often something that was told did not get there

    @abstractmethod
    def scope(self) -> PollScope:
        """Return what is polled; all that decides what is read is in its key, and nothing that only filters."""

    @abstractmethod
    def news(self, emitted: Emitted, outcome: Any, *, is_first: bool) -> tuple[Emitted, list[dict[str, Any]]]:
        """
        Compare what a poll has found with what was told before.

        :param is_first: There is nothing to compare with; all that is there counts as told.
        :return: What is told from now on, and the new facts.
        """

    def where(self, outcome: Any) -> dict[str, Any]:
        """Say in the event where its facts are from."""
        return {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        arguments = {name: getattr(self, name) for name in (*self.own, "poll_interval", "asset")}
        # Airflow stores the queue beside the arguments, and tells by these alone whether a watcher has changed.
        if (queue := getattr(self, "queue", None)) is not None:
            arguments["queue"] = queue
        return f"{cls.__module__}.{cls.__qualname__}", arguments

    def snapshots(self) -> AsyncGenerator[Any, None]:
        """Yield what each poll of the scope brings."""
        return snapshots(self.scope(), self.poll_interval)

    # --- Airflow 3.3.2 and newer: one stream for all watchers of a scope ---

    def shared_stream_key(self) -> Hashable | None:
        try:
            if version_compat.asset_store(self.asset_state_store, self.asset) is None:
                return None
        except (AttributeError, LookupError):  # run() says so
            return None
        return (type(self).__qualname__, *self.scope().key, *self.read_by())

    def read_by(self) -> tuple[Hashable, ...]:
        """Return what beside the scope tells streams apart."""
        return (self.poll_interval,)

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Any:
        return SnapshotProducer(cls(**kwargs))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        async for reading in shared_stream:
            try:
                payload = await self.emit(reading)
            except Exception:  # of Airflow's API server, or a form of answer that nobody knows
                log.warning("A poll could not be told of; the next one is.", exc_info=True)
                continue
            if payload is not None:
                yield TriggerEvent(payload)

    async def emit(self, reading: Reading) -> dict[str, Any] | None:
        """Return the payload of the event that a reading makes for this asset, if any."""
        if self._cursor is None:
            cursor = SeenEventStore(self.store, self.store_key)
            self._emitted = await cursor.load()
            self._cursor = cursor
        before, line = self._emitted, self._line
        is_first = before is None and not self.emits_backlog
        self._emitted, facts = self.news(before or {}, reading.outcome, is_first=is_first)
        if self._emitted != self._cursor.stored:
            roll_back = partial(self._roll_back, line, before) if facts else _nothing
            reading.followups.append((partial(self._commit, line, self._emitted), roll_back))
        return self.payload(facts, reading.outcome)

    def is_recorded(self, key: str, value: Any) -> bool:
        """Say whether what was told under a key is in the asset's state store by now."""
        return self._cursor is None or (self._cursor.stored or {}).get(key) == value

    async def _commit(self, line: int, emitted: Emitted) -> None:
        assert self._cursor is not None
        if line == self._line:
            await self._cursor.save(emitted)

    def _roll_back(self, line: int, before: Emitted | None) -> None:
        if line == self._line:  # what was read since was compared with something that nobody was told of
            self._line += 1
            self._emitted = before

    @property
    def store(self) -> AssetStore:
        store = version_compat.asset_store(self.asset_state_store, self.asset)
        assert store is not None  # shared_stream_key() has looked
        return store

    @property
    def store_key(self) -> str:
        digest = hashlib.sha256(json.dumps([self.event, *self.watched()]).encode()).hexdigest()
        return f"workflows.{digest[:12]}"

    @abstractmethod
    def watched(self) -> tuple[Any, ...]:
        """Return what the cursor belongs to: all parameters that decide what is read, as JSON primitives."""

    def payload(self, facts: list[dict[str, Any]], outcome: Any) -> dict[str, Any] | None:
        if not facts:
            return None
        return {"event": self.event, **self.where(outcome), "events": facts}

    # --- any Airflow: by itself, without a cursor ---

    async def run(self) -> AsyncIterator[TriggerEvent]:
        try:
            version_compat.asset_store(getattr(self, "asset_state_store", None), self.asset)
        except LookupError:
            log.error(
                "%s polls nothing: it watches for several assets, or not for the one named in 'asset' (%s), so it does "
                "not know in which one's state store to keep what was told. Give each watcher the name of its asset.",
                type(self).__name__,
                self.asset,
            )
            await asyncio.Event().wait()
        log.warning(
            "%s keeps no cursor here, for that needs Airflow 3.3.2 or newer: it tells what happens from now on, and "
            "after a restart of the triggerer what happens from then on.",
            type(self).__name__,
        )
        emitted: Emitted | None = None
        async with aclosing(self.snapshots()) as outcomes:
            async for outcome in outcomes:
                try:
                    emitted, facts = self.news(emitted or {}, outcome, is_first=emitted is None)
                except Exception:
                    log.exception("A poll could not be told of; the next one is.")
                    continue
                if (payload := self.payload(facts, outcome)) is not None:
                    yield TriggerEvent(payload)


def _nothing() -> None:
    """Nothing is rolled back."""


# --- parameters, which a watcher keeps in the database as JSON ----------------------------------------------


def constant(name: str, value: Any) -> str | None:
    """
    Return a parameter of a watcher as text.

    :raises ConfigurationError: it is a template, which nobody renders there, or neither text nor a number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigurationError(
            f"{name} must be text or a number, for a watcher's parameters are kept as JSON; got {type(value).__name__}."
        )
    if "{{" in str(value) or "{%" in str(value):
        raise ConfigurationError(f"{name} is a template, and Airflow renders none in an asset's watcher.")
    check_required(**{name: value})
    return str_id(value)


def connection_id(name: str, value: Any) -> str:
    """Return the id of a connection."""
    check_required(**{name: value})
    return str(constant(name, value))


def constants(name: str, value: Any) -> list[str]:
    """
    Return a parameter that may be one value or several as a list of texts, without repetitions.

    The list is sorted: in whatever order the values are given, and whatever order a set has in this process, it is the
    same watcher with the same cursor.
    """
    return sorted({text for one in as_list(value) if (text := constant(name, one)) is not None})


def seconds(name: str, value: timedelta | float | None) -> float:
    """
    Return an interval in seconds.

    :raises ConfigurationError: not a number above 0.
    """
    if value is None:
        return float(conf.getfloat("workflows", "poke_interval", fallback=60.0))
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{name} must be a number of seconds above 0, or a timedelta; got {value!r}.")
    return float(value)
