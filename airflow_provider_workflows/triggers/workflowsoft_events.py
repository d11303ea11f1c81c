"""Events of Workflowsoft's integration steps, for the watcher of an asset."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Hashable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import NOTHING_DONE, ConfigurationError
from airflow_provider_workflows.polling.channel import CONNECTION_TTL_SECONDS, in_new_thread
from airflow_provider_workflows.polling.poll import MAX_REJECTED_DELAY_SECONDS, PollScope
from airflow_provider_workflows.polling.rate_limiter import MAX_BLOCK_SECONDS
from airflow_provider_workflows.rules.parameters import require_exactly_one
from airflow_provider_workflows.rules.poll_journal import PollJournal
from airflow_provider_workflows.rules.workflowsoft import UnreadableInstances
from airflow_provider_workflows.triggers.events import (
    Emitted,
    Reading,
    SnapshotProducer,
    WorkflowsEventTrigger,
    connection_id,
    constant,
)
from airflow_provider_workflows.triggers.workflowsoft import (
    MAX_INSTANCES,
    WorkflowsoftIntegrationWaitTrigger,
    named,
    report_loss,
)

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.polling.poll import Reader
    from airflow_provider_workflows.rules.poll_journal import Instance, Stretch
    from airflow_provider_workflows.version_compat import AssetStore

log = logging.getLogger(__name__)

MAX_EMITTED = 5000  # ids that are remembered where instances are kept until they are completed
LEAVING_LOOK = 0.1  # seconds between two looks at whether a stream that ends has noted all it knows
STORE_TRIES = 7  # the pauses between them double from one second: about a minute in all
CONSUMES = object()  # what a poll yields where it would take instances out


class StepEventsScope(PollScope):
    """
    Reads the open instances of one integration step, where reading leaves them there.

    :param reader: Finds the step and polls it.
    """

    def __init__(self, reader: WorkflowsoftIntegrationWaitTrigger):
        super().__init__(reader.workflowsoft_conn_id)
        self._reader = reader
        self._key = ("workflowsoft", "events", self.conn_id, reader.diagram, reader.step, reader.step_id)
        self._read_at = float("-inf")
        self._is_malformed = False
        self._logged_others: set[str] = set()

    @property
    def key(self) -> tuple[Hashable, ...]:
        return self._key

    def open_hook(self) -> WorkflowsoftHook:
        return self._reader.open_hook()

    @property
    def hook_key(self) -> Hashable:
        return "workflowsoft"

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        if not await reader.call(lambda hook: hook.lists_until_completed):
            reader.deliver_all((subscriber, CONSUMES) for subscriber in subscribers)
            return
        if time.monotonic() - self._read_at < await reader.call(lambda hook: hook.shortest_poll):
            return
        await reader.call(self._make_ready)
        self._read_at = time.monotonic()
        found = await reader.call(lambda hook: self._reader.drain(partial(self._poll, hook)))
        reader.deliver_all((subscriber, (self._reader.place, found)) for subscriber in subscribers)

    def close(self) -> None:
        with _watching:
            for scopes in _watched.values():
                scopes.discard(self)

    def _make_ready(self, hook: WorkflowsoftHook) -> None:
        hook.check_may_consume()
        self._reader.locate(hook)
        self._log_others(hook)

    def _poll(self, hook: WorkflowsoftHook) -> list[dict[str, str | None]]:
        """Poll once; what cannot be read of an answer concerns only itself, for a poll takes nothing out."""
        try:
            instances = self._reader.poll(hook)
        except UnreadableInstances as malformed:
            if not self._is_malformed:
                log.warning("Polling step %s: a part of the response is left out. %s", self._reader.name, malformed)
            self._is_malformed = True
            return malformed.instances
        self._is_malformed = False
        return instances

    def _log_others(self, hook: WorkflowsoftHook) -> None:
        """Log once that the step is watched through another connection of the same account, too."""
        with _watching:
            for key in [key for key, scopes in _watched.items() if not scopes]:
                del _watched[key]
            scopes = _watched.setdefault((hook.account, str(self._reader.step_id)), set())
            scopes.add(self)
            others = {scope.conn_id for scope in scopes} - {self.conn_id} - self._logged_others
        self._logged_others |= others
        for conn_id in sorted(others):
            log.warning(
                "Step %s is watched twice, through the connections %r and %r, which sign in as the same user. Each "
                "watcher emits every instance: use one connection for both.",
                self._reader.name,
                self.conn_id,
                conn_id,
            )


# Where reading leaves instances there: accounts and steps that are polled in this process, and the scopes that do it.
_watched: dict[tuple[tuple[str, str], str], set[StepEventsScope]] = {}
_watching = threading.Lock()


class WorkflowsoftIntegrationTrigger(WorkflowsEventTrigger):
    """
    Tells an asset of every new integration instance of a step.

    Where the connection says that instances are ``listed_until_completed``, a poll leaves them there, and one that
    was told is not told again. Where reading takes them out (``consumed_on_read``, the default), it polls on
    Airflow 3.3.2 and newer only: there it notes in the asset's state store that a poll begins, and what came before
    it tells of it. A poll whose answer never came is a suspected loss; the log says so, the statistic
    ``workflows.suspected_lost_delivery``, and the next event.

    The event's payload is ``{event: "integration", workflowsoft_conn_id, possibly_lost, events}``, each of the
    events ``{event_id, integration_instance_id, process_instance_id, diagram_id, step_id, step}``, which operators
    take whole as ``integration_instance_id``; ``possibly_lost`` are stretches ``{since, until}``, ISO-8601 times
    in UTC.

    Reference: the vendor's help page "For Developers - how to integrate an external system".

    :param step: Title or id of the integration step in its process diagram.
    :param diagram: Title or id of the process diagram; goes with ``step``.
    :param step_id: The step's id instead of both, without looking them up.
    :param max_instances: How many to take in a row before the interval is kept, 1 to 500; of several watchers of
        one step, the first one's counts.
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``; its extra ``allow_consume`` must be true.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
        A server that is not on this machine is polled every 15 seconds at most. Of several watchers of one step,
        the first one's counts.
    :param asset: Name of the asset; needed where several assets have the same watcher.
    :param queue: Queue of the triggerers that may poll (Airflow 3.4+); default: any triggerer.
    :raises ConfigurationError: a parameter is wrong. Nothing is templated in a watcher.
    """

    event = "integration"
    emits_backlog = True
    own = ("workflowsoft_conn_id", "diagram", "step", "step_id", "max_instances")

    def __init__(
        self,
        *,
        step: str | int | None = None,
        diagram: str | int | None = None,
        step_id: str | int | None = None,
        max_instances: int = 100,
        workflowsoft_conn_id: str = "workflowsoft_default",
        poll_interval: timedelta | float | None = None,
        asset: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(poll_interval=poll_interval, asset=asset, **kwargs)
        self.step = constant("step", step)
        self.diagram = constant("diagram", diagram)
        self.step_id = constant("step_id", step_id)
        require_exactly_one(step=self.step, step_id=self.step_id)
        require_exactly_one(diagram=self.diagram, step_id=self.step_id)
        if isinstance(max_instances, bool) or not isinstance(max_instances, int):
            raise ConfigurationError(f"max_instances must be a whole number; got {max_instances!r}.")
        if not 1 <= max_instances <= MAX_INSTANCES:
            raise ConfigurationError(f"max_instances must be from 1 to {MAX_INSTANCES}; got {max_instances}.")
        self.max_instances = max_instances
        self.workflowsoft_conn_id = connection_id("workflowsoft_conn_id", workflowsoft_conn_id)
        self._journal: AssetJournal | None = None
        self._is_rejected = False

    def reader(self) -> WorkflowsoftIntegrationWaitTrigger:
        """Return what finds the step and polls it."""
        return WorkflowsoftIntegrationWaitTrigger(
            workflowsoft_conn_id=self.workflowsoft_conn_id,
            diagram=self.diagram,
            step=self.step,
            step_id=self.step_id,
            max_instances=self.max_instances,
            poll_interval=self.poll_interval,
            deadline=None,
        )

    def watched(self) -> tuple[Any, ...]:
        return (self.workflowsoft_conn_id, self.diagram, self.step, self.step_id)

    def scope(self) -> PollScope:
        return StepEventsScope(self.reader())

    def read_by(self) -> tuple[Hashable, ...]:
        return ()  # two streams of one step would take each other's instances

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Any:
        return IntegrationProducer(cls(**kwargs))

    def news(self, emitted: Emitted, outcome: Any, *, is_first: bool) -> tuple[Emitted, list[dict[str, Any]]]:
        # Without a cursor, too, all that is open is told: a poll may show one instance only, which hides the others.
        if outcome is CONSUMES:
            self._reject()
            return emitted, []
        place, found = outcome
        new = [row for row in found if row["integration_instance_id"] not in emitted]
        # An instance that is shown no longer can be hidden behind another, so it is not forgotten at once.
        emitted = {**emitted, **{str(row["integration_instance_id"]): 1 for row in new}}
        shown = {row["integration_instance_id"] for row in found}
        surplus = [one for one in emitted if one not in shown][: max(0, len(emitted) - MAX_EMITTED)]
        return {one: 1 for one in emitted if one not in surplus}, emitted_instances(new, place)

    def payload(
        self, facts: list[dict[str, Any]], outcome: Any, possibly_lost: Sequence[Stretch] = ()
    ) -> dict[str, Any] | None:
        if not facts:
            return None
        where = {"workflowsoft_conn_id": self.workflowsoft_conn_id, "possibly_lost": list(possibly_lost)}
        return {"event": self.event, **where, "events": facts}

    async def emit(self, reading: Reading) -> dict[str, Any] | None:
        if not isinstance(reading, Turn):
            return await super().emit(reading)
        try:
            if self._journal is None:
                self._journal = await AssetJournal.open(self.store, f"{self.store_key}.journal", reading.stream)
            await reading.record_in(self._journal)
        except Exception:
            # Without a note of it there must be no poll.
            from airflow.triggers.shared_stream import reject_shared_stream_event

            reject_shared_stream_event()
            raise
        instances, lost = self._journal.start_delivery()
        if instances:
            ids = {row["integration_instance_id"] for row in instances}
            reading.followups.append((partial(self._journal.confirm, ids, lost), partial(self._journal.redeliver, ids)))
        return self.payload(emitted_instances(instances, self._journal.known.place), None, lost)

    def _reject(self) -> None:
        if not self._is_rejected:
            self._is_rejected = True
            log.error(
                "Nothing is polled: connection %r says that reading takes new integration instances out "
                "(consumed_on_read), and what was read can be kept on Airflow 3.3.2 or newer only. Use "
                "WorkflowsoftIntegrationSensor, or set the extra new_integrations to listed_until_completed if that is "
                "what this Workflowsoft does.",
                self.workflowsoft_conn_id,
            )


def emitted_instances(instances: Sequence[Instance], place: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return the facts of an event."""
    return [
        {"event_id": f"integration:{place['step_id']}:{row['integration_instance_id']}", **row, **place}
        for row in instances
    ]


# --- where reading takes an instance out --------------------------------------------------------------------


class Turn(Reading):
    """
    A poll that is about to be made, or that was made.

    :param place: The step: ``{diagram_id, step_id, step}``.
    :param stream: What tells the stream that polls from those before it.
    """

    def __init__(self, place: Mapping[str, str | None], stream: str):
        super().__init__(None)
        self.place = place
        self.stream = stream
        self.journals: list[AssetJournal] = []

    async def record_in(self, journal: AssetJournal) -> None:
        """Write down what this turn is about."""
        raise NotImplementedError


class Intent(Turn):
    """A poll is about to be made; each watcher notes it, and it is made when all have."""

    is_cut_off = False  # a watcher was taken away while it noted it, which Airflow counts as done

    async def record_in(self, journal: AssetJournal) -> None:
        self.journals.append(journal)  # first, for a note that is cut off may have been written all the same
        try:
            await journal.poll_starts(self.place, self.stream)
        except asyncio.CancelledError:
            self.is_cut_off = True
            raise
        except Exception:
            self.journals.remove(journal)
            raise


class Receipt(Turn):
    """
    A poll was made, and has brought something.

    :param intent: The turn before it, whose watchers have it in their journals already.
    :param instances: What came.
    """

    def __init__(self, intent: Intent, instances: Sequence[Instance]):
        super().__init__(intent.place, intent.stream)
        self.journals = intent.journals
        self.instances = instances

    async def record_in(self, journal: AssetJournal) -> None:
        if journal not in self.journals:  # it came in between
            await journal.persist(replace(journal.known, place=self.place).poll_ended(self.instances))


class IntegrationProducer(SnapshotProducer):
    """Polls one step, together with others where reading leaves instances there, else by turns."""

    trigger: WorkflowsoftIntegrationTrigger

    def __init__(self, trigger: WorkflowsoftIntegrationTrigger):
        super().__init__(trigger)
        self._reader = trigger.reader()
        self._turn: Turn | None = None
        self._resolved: asyncio.Future[bool] | None = None  # whether all watchers have done what the turn asks
        self._name = uuid4().hex
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_leaving = False
        self._last_record: asyncio.Future[Any] | None = None  # which is on its way when the stream has ended

    async def aclose(self) -> None:
        """Let the next stream have the step once all is in the journals that this one knows."""
        self._is_leaving = True
        if self._last_record is None or self._last_record.done():
            self._release()
        else:
            self._last_record.add_done_callback(self._release)

    async def open_stream(self) -> AsyncIterator[tuple[Reading, Reading]]:
        while True:
            async with aclosing(self.trigger.snapshots()) as outcomes:
                async for outcome in outcomes:
                    if outcome is CONSUMES:
                        break
                    reading = Reading(outcome)
                    yield reading, reading
            async with aclosing(self._turns()) as turns:
                async for turn in turns:
                    yield turn, turn

    async def advance(self, batch: Sequence[Any]) -> None:
        await super().advance(batch)
        for item in batch:
            if item.broker_payload is self._turn and self._resolved is not None and not self._resolved.done():
                self._resolved.set_result(item.outcome.is_clean)

    async def _turns(self) -> AsyncGenerator[Turn, None]:
        """Poll by turns for as long as the connection says that reading takes instances out."""
        hook: WorkflowsoftHook | None = None
        opened_at, delay, in_a_row = 0.0, 0.0, 0
        try:
            while True:
                await asyncio.sleep(delay)
                intent, poll = None, None
                try:
                    if hook is None or time.monotonic() - opened_at > CONNECTION_TTL_SECONDS:
                        hook = await self._open(hook)
                        opened_at = time.monotonic()
                    if hook.lists_until_completed:
                        return
                    await in_new_thread(self._make_ready, hook)
                    await self._claim(hook.account)
                    intent = Intent(self._reader.place, self._name)
                    self._start(intent)
                    yield intent
                    is_resolved = await self._is_resolved()
                    if not is_resolved or intent.is_cut_off:
                        if not is_resolved:
                            log.warning("A poll was put off, for the asset's state store could not note it.")
                        await self._take_back(intent)
                        delay = max(self.trigger.poll_interval, hook.shortest_poll)
                        continue
                    poll = asyncio.ensure_future(self._poll(hook, intent))
                    instances = await asyncio.shield(poll)
                except (asyncio.CancelledError, GeneratorExit):
                    if poll is not None and hook is not None and not poll.done():
                        # The answer on its way is awaited and noted, with nobody to tell until the next start.
                        self._last_record = poll
                        poll.add_done_callback(partial(_close, hook))
                        hook = None
                    elif poll is None and intent is not None:  # there was no poll, so the next start suspects no loss
                        self._last_record = asyncio.ensure_future(self._take_back(intent))
                    raise
                except Exception as fault:
                    delay = self._delay_after(fault, delay)
                    log.warning("%s Polling goes on in %.0f s.", fault, delay)
                    opened_at = float("-inf")
                    continue
                in_a_row += len(instances)
                if not instances or in_a_row >= self.trigger.max_instances:
                    in_a_row, delay = 0, max(self.trigger.poll_interval, hook.shortest_poll)
                else:
                    delay = 0.0
                if instances:
                    receipt = Receipt(intent, instances)
                    self._start(receipt)
                    yield receipt
                    await self._is_resolved()  # or a kill meanwhile would look like one in the next poll
        except BaseException:
            self._is_leaving = True  # the step is held until aclose()
            raise
        finally:
            if not self._is_leaving:
                self._release()
            if hook is not None:
                hook.close()

    def _start(self, turn: Turn) -> None:
        self._turn, self._resolved = turn, asyncio.get_running_loop().create_future()

    async def _is_resolved(self) -> bool:
        assert self._resolved is not None
        return await self._resolved

    async def _open(self, former: WorkflowsoftHook | None) -> WorkflowsoftHook:
        hook: WorkflowsoftHook = await in_new_thread(self._reader.open_hook)  # the first one imports the HTTP client
        await hook.prepare()
        if former is not None:
            former.close()
        return hook

    def _make_ready(self, hook: WorkflowsoftHook) -> None:
        hook.check_may_consume()
        hook.get_api_token()  # a sign-in that fails is no lost answer
        self._reader.locate(hook)

    async def _take_back(self, intent: Intent) -> None:
        """Note that a poll was not made."""
        for journal in intent.journals:
            await journal.persist(journal.known.poll_ended())

    async def _claim(self, account: tuple[str, str]) -> None:
        """Take the step for this stream; one that is ending is waited for, so that its notes are in the stores."""
        self._loop = asyncio.get_running_loop()
        claim = (account, str(self._reader.step_id))
        while (owner := _claimed.get(claim, self)) is not self and not owner.is_dead:
            if not owner._is_leaving:
                other = owner._reader.workflowsoft_conn_id
                if other == self._reader.workflowsoft_conn_id:
                    how, advice = "names it in another way", "the same diagram and step, or step_id"
                else:
                    how, advice = f"signs in as the same user through connection {other!r}", "the same connection"
                raise ConfigurationError(
                    f"Step {self._reader.name} is polled by another watcher in this triggerer, which {how}. They "
                    f"would take each other's instances: give both {advice}."
                )
            await asyncio.sleep(LEAVING_LOOK)
        _claimed[claim] = self

    def _release(self, record: asyncio.Future[Any] | None = None) -> None:
        for claim in [claim for claim, owner in _claimed.items() if owner is self]:
            del _claimed[claim]
        if record is not None and not record.cancelled():
            record.exception()  # of a poll that nobody asks for any more

    @property
    def is_dead(self) -> bool:
        """Whether its event loop has ended, and it with that."""
        return self._loop is None or self._loop.is_closed()

    async def _poll(self, hook: WorkflowsoftHook, intent: Intent) -> Sequence[Instance]:
        """Poll once, and write down what came in the journals of all who have noted the intent."""
        instances: Sequence[Instance] = ()
        lost: Exception | None = None
        rejected: Exception | None = None
        tags = {"connection": self.trigger.workflowsoft_conn_id, "product": "workflowsoft"}
        version_compat.count("workflows.polls", 1, **tags, scope=str(self._reader.step_id))
        started_at = _now()
        try:
            instances = await in_new_thread(self._reader.poll, hook)
        except NOTHING_DONE as error:
            rejected = error
        except UnreadableInstances as malformed:
            instances, lost = malformed.instances, malformed
        except Exception as unknown:
            lost = unknown
        if instances:  # before it is noted: should that fail, the ids are found in the log
            log.info("Received at step %s: %s.", self._reader.name, named(instances))
        now = _now()
        for journal in intent.journals:
            known = journal.known
            ended = known.poll_lost(now, instances) if lost else known.poll_ended(None if rejected else instances)
            await journal.persist(ended)
        if lost is not None:
            report_loss(log, self._reader.step_id, lost, started_at.isoformat(timespec="milliseconds"), now)
        if rejected is not None:
            raise rejected
        return instances

    def _delay_after(self, fault: Exception, delay: float) -> float:
        backoff = max(self.trigger.poll_interval, min(MAX_REJECTED_DELAY_SECONDS, 2 * delay))
        stated = min(getattr(fault, "wait", None) or 0.0, MAX_BLOCK_SECONDS)
        return max(backoff, stated)


# Accounts and steps that are polled by turns in this process, and by whom.
_claimed: dict[tuple[tuple[str, str], str], IntegrationProducer] = {}


def _close(hook: WorkflowsoftHook, _: Any) -> None:
    hook.close()


def _now() -> datetime:
    return datetime.now(timezone.utc)


class AssetJournal:
    """
    Keep the poll journal of one asset in its state store.

    :param store: The asset's store.
    :param key: Where in the store.
    :param known: What the asset knows of the polls of its step.
    """

    def __init__(self, store: AssetStore, key: str, known: PollJournal):
        self._store = store
        self._key = key
        self.known = known
        self._delivering: set[str | None] = set()  # instances in an event that Airflow has not confirmed yet

    @classmethod
    async def open(cls, store: AssetStore, key: str, stream: str) -> AssetJournal:
        """
        Read it; a poll that has started and of which nothing more is written is a possible loss.

        :param stream: The one that polls now: a poll of its own is not over, and another watcher of the asset, which
            Airflow is about to take away, has noted it.
        """
        journal = cls(store, key, PollJournal.from_dict(await store.aget(key)))
        since = journal.known.polling_since
        if since is not None and journal.known.poller != stream:
            now = _now()
            await journal.persist(journal.known.poll_lost(now))
            report_loss(log, journal.known.place["step_id"], "The triggerer died in it.", since, now)
        return journal

    async def poll_starts(self, place: Mapping[str, str | None], stream: str) -> None:
        """Note that a poll starts; raises where that cannot be noted."""
        self.known = self.known.poll_started(place, _now(), stream)
        await self._store.aset(self._key, self.known.to_dict())

    async def persist(self, known: PollJournal) -> None:
        """Write it down, trying again for a while; it is in memory in any case, and the next note has it, too."""
        self.known = known
        for attempt in range(STORE_TRIES):
            try:
                await self._store.aset(self._key, self.known.to_dict())
                return
            except Exception as fault:
                if attempt == STORE_TRIES - 1:
                    log.error("The asset's state store could not note what a poll brought: %s. %s", self.known, fault)
                    return
                await asyncio.sleep(2.0**attempt)

    def start_delivery(self) -> tuple[list[dict[str, str | None]], list[Stretch]]:
        """Return what no event delivers yet: instances, and where there are any, the possible losses."""
        new = [row for row in self.known.instances if row["integration_instance_id"] not in self._delivering]
        self._delivering |= {row["integration_instance_id"] for row in new}
        return new, list(self.known.possibly_lost if new else ())

    def redeliver(self, instance_ids: Collection[str | None]) -> None:
        """Let a later event deliver these instances: this one has not reached Airflow."""
        self._delivering.difference_update(instance_ids)

    async def confirm(self, instance_ids: Collection[str | None], lost: Sequence[Stretch]) -> None:
        """Forget what Airflow has an event of by now."""
        self.known = self.known.forget(instance_ids, lost)
        self._delivering.difference_update(instance_ids)
        await self._store.aset(self._key, self.known.to_dict())  # if this fails, the next note has it, too
