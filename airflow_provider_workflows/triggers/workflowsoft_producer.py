"""
The producer that polls a Workflowsoft integration step for the watchers of assets.

Where polling removes instances (``consumed_on_read``), each poll takes two entries in the journal of every watcher: a
:class:`PollIntent` before the poll, without which there is no poll, and a :class:`PollReceipt` after it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import NOTHING_DONE, ConfigurationError
from airflow_provider_workflows.polling.channel import in_new_thread
from airflow_provider_workflows.polling.poll import MAX_REJECTED_DELAY_SECONDS
from airflow_provider_workflows.polling.rate_limiter import MAX_BLOCK_SECONDS
from airflow_provider_workflows.polling.workflowsoft_events import CONSUMED_ON_READ
from airflow_provider_workflows.rules.look_ups import CONNECTION_TTL_SECONDS
from airflow_provider_workflows.rules.poll_journal import name_instances
from airflow_provider_workflows.rules.workflowsoft import UnreadableInstances
from airflow_provider_workflows.triggers.events import Reading, SnapshotProducer
from airflow_provider_workflows.triggers.workflowsoft import report_loss

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.rules.poll_journal import Instance
    from airflow_provider_workflows.triggers.asset_journal import AssetJournal
    from airflow_provider_workflows.triggers.workflowsoft_events import WorkflowsoftIntegrationTrigger

log = logging.getLogger(__name__)

MAX_RETURNED = 5000  # ids in memory, as many as a cursor stores
CLOSING_CHECK_SECONDS = 0.1  # between two checks whether a stream that ends has stored its last poll


class JournalEntry(Reading):
    """
    Ask every watcher to record a poll in its journal.

    :param place: The step and its server: ``{diagram_id, step_id, step, server}``.
    :param stream: Identifies the stream that polls.
    """

    def __init__(self, place: Mapping[str, str | None], stream: str):
        super().__init__(None)
        self.place = place
        self.stream = stream
        self.instances: Sequence[Instance] = ()  # that the poll has returned
        self.journals: list[AssetJournal] = []

    async def record_in(self, journal: AssetJournal) -> None:
        """Record this entry."""
        raise NotImplementedError


class PollIntent(JournalEntry):
    """Record that a poll is about to start; the producer polls when all watchers have recorded it."""

    is_cut_off = False  # a watcher was cancelled while it recorded the intent, which Airflow counts as success

    async def record_in(self, journal: AssetJournal) -> None:
        self.journals.append(journal)  # first, because a write that is cancelled may have succeeded
        try:
            await journal.poll_starts(self.place, self.stream)
        except asyncio.CancelledError:
            self.is_cut_off = True
            raise
        except Exception:  # raised again
            self.journals.remove(journal)
            raise


class PollReceipt(JournalEntry):
    """
    Record that a poll has received instances.

    :param intent: The entry before the poll; the journals of its watchers have the instances already.
    :param instances: The instances.
    """

    def __init__(self, intent: PollIntent, instances: Sequence[Instance]):
        super().__init__(intent.place, intent.stream)
        self.journals = intent.journals
        self.instances = instances

    async def record_in(self, journal: AssetJournal) -> None:
        if journal not in self.journals:  # of a watcher that started during the poll
            new = journal.new(self.instances)
            await journal.persist(journal.known._replace(place=self.place).poll_ended(new))


class IntegrationProducer(SnapshotProducer):
    """Poll one step: through a shared poll if polling leaves instances in place, otherwise with journal entries."""

    trigger: WorkflowsoftIntegrationTrigger

    def __init__(self, trigger: WorkflowsoftIntegrationTrigger):
        super().__init__(trigger)
        self._poller = trigger.build_poller()
        self._entry: JournalEntry | None = None
        self._recorded: asyncio.Future[bool] | None = None  # whether all watchers have recorded the entry
        self._stream = uuid4().hex
        self._returned: dict[str | None, None] = {}  # ids in the responses of this stream, the oldest first
        self._is_listing_logged = False
        self._stated_wait = 0.0  # seconds until the next poll that the server stated with the last one
        self._server: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closing = False
        self._last_record: asyncio.Future[Any] | None = None  # still running when the stream has ended

    async def aclose(self) -> None:
        """Let the next stream poll the step when the journals have everything that this stream has received."""
        self._is_closing = True
        if self._last_record is None or self._last_record.done():
            self._release()
        else:
            self._last_record.add_done_callback(self._release)

    async def open_stream(self) -> AsyncIterator[tuple[Reading, Reading]]:
        while True:
            async with aclosing(self.trigger.snapshots()) as outcomes:
                async for outcome in outcomes:
                    if outcome is CONSUMED_ON_READ:
                        break
                    reading = Reading(outcome)
                    yield reading, reading
            async with aclosing(self._journaled_polls()) as entries:
                async for entry in entries:
                    yield entry, entry

    async def advance(self, batch: Sequence[Any]) -> None:
        await super().advance(batch)
        for item in batch:
            if item.broker_payload is self._entry and self._recorded is not None and not self._recorded.done():
                self._recorded.set_result(item.outcome.is_clean)

    async def _journaled_polls(self) -> AsyncGenerator[JournalEntry, None]:
        """Poll as long as the connection says ``consumed_on_read``; yield an entry before and after each poll."""
        hook: WorkflowsoftHook | None = None
        opened_at, delay, consecutive_instances = 0.0, 0.0, 0
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
                    await in_new_thread(self._prepare, hook)
                    await self._claim(hook.account)
                    intent = PollIntent({**self._poller.place, "server": hook.server}, self._stream)
                    self._start(intent)
                    yield intent
                    is_recorded = await self._is_recorded()
                    if not is_recorded or intent.is_cut_off:
                        if not is_recorded:
                            log.warning(
                                "Polling step %s is postponed, because recording the start of the poll in the asset's "
                                "state store failed.",
                                self._poller.name,
                            )
                        await self._withdraw(intent)
                        delay = max(self.trigger.poll_interval, hook.shortest_poll)
                        continue
                    poll = asyncio.ensure_future(self._poll(hook, intent))
                    instances = await asyncio.shield(poll)
                except (asyncio.CancelledError, GeneratorExit):
                    if poll is not None and hook is not None and not poll.done():
                        # The running poll is completed and recorded; the next start of a watcher emits its instances.
                        self._last_record = poll
                        poll.add_done_callback(partial(_close, hook))
                        hook = None
                    elif poll is None and intent is not None:  # not polled, so the next start must not suspect a loss
                        self._last_record = asyncio.ensure_future(self._withdraw(intent))
                    raise
                except Exception as fault:  # any error: the producer polls for all watchers, so it continues
                    delay = self._delay_after(fault, delay)
                    log.warning("Polling step %s failed, will retry in %.0f s: %s", self._poller.name, delay, fault)
                    opened_at = float("-inf")
                    continue
                new = self._not_returned_before(instances)
                consecutive_instances += len(new)
                if not new or consecutive_instances >= self.trigger.max_instances:
                    consecutive_instances = 0
                    delay = max(self.trigger.poll_interval, hook.shortest_poll, self._stated_wait)
                else:
                    delay = 0.0
                if instances:
                    receipt = PollReceipt(intent, instances)
                    self._start(receipt)
                    yield receipt
                    await self._is_recorded()  # otherwise a kill now would look like a kill during the next poll
        except BaseException:
            self._is_closing = True  # keep the claim on the step until aclose()
            raise
        finally:
            if not self._is_closing:
                self._release()
            if hook is not None:
                hook.close()

    def _not_returned_before(self, instances: Sequence[Instance]) -> list[Instance]:
        """Return the instances that no earlier poll of this stream has returned; log once if there are others."""
        new = [row for row in instances if row["integration_instance_id"] not in self._returned]
        if len(new) < len(instances) and not self._is_listing_logged:
            self._is_listing_logged = True
            log.warning(
                "Polling step %s returned %s again, and each instance is emitted once. Connection %r says that polling "
                "removes instances (consumed_on_read). If this Workflowsoft lists an instance until it is completed, "
                "set the connection's extra new_integrations to listed_until_completed.",
                *(self._poller.name, name_instances(row for row in instances if row not in new)),
                self.trigger.workflowsoft_conn_id,
            )
        self._returned |= {row["integration_instance_id"]: None for row in new}
        for id_ in list(self._returned)[: max(0, len(self._returned) - MAX_RETURNED)]:
            del self._returned[id_]
        return new

    def _start(self, entry: JournalEntry) -> None:
        self._entry, self._recorded = entry, asyncio.get_running_loop().create_future()

    async def _is_recorded(self) -> bool:
        assert self._recorded is not None
        return await self._recorded

    async def _open(self, former: WorkflowsoftHook | None) -> WorkflowsoftHook:
        # In a thread, because the first hook imports the HTTP client.
        hook: WorkflowsoftHook = await in_new_thread(self._poller.open_hook)
        await hook.prepare()
        if former is not None:
            former.close()
        if hook.server != self._server:  # which has other steps and instances, with the same ids
            self._server = hook.server
            self._poller = self.trigger.build_poller()
            self._returned = {}
        return hook

    def _prepare(self, hook: WorkflowsoftHook) -> None:
        hook.check_may_consume()
        hook.get_api_token()  # before the poll, because a sign-in that fails is not a lost response
        self._poller.locate(hook)

    async def _withdraw(self, intent: PollIntent) -> None:
        """Record that the step was not polled."""
        for journal in intent.journals:
            await journal.persist(journal.known.poll_ended())

    async def _claim(self, account: tuple[str, str]) -> None:
        """Claim the step for this stream; wait for a stream that is closing, until it has stored its last poll."""
        self._loop = asyncio.get_running_loop()
        claim = (account, str(self._poller.step_id))
        while (owner := _claimed.get(claim, self)) is not self and not owner.is_dead:
            if not owner._is_closing:
                other = owner._poller.workflowsoft_conn_id
                if other == self._poller.workflowsoft_conn_id:
                    how, advice = "identifies it in another way", "the same diagram and step, or step_id"
                else:
                    how, advice = f"signs in as the same user through connection {other!r}", "the same connection"
                raise ConfigurationError(
                    f"Step {self._poller.name} is polled by another watcher in this triggerer, which {how}. They "
                    f"would take each other's instances: give both {advice}."
                )
            await asyncio.sleep(CLOSING_CHECK_SECONDS)
        _claimed[claim] = self

    def _release(self, record: asyncio.Future[Any] | None = None) -> None:
        for claim in [claim for claim, owner in _claimed.items() if owner is self]:
            del _claimed[claim]
        if record is not None and not record.cancelled():
            record.exception()  # retrieved, so that asyncio does not log it as never retrieved

    @property
    def is_dead(self) -> bool:
        """Whether its event loop has ended, and the stream with it."""
        return self._loop is None or self._loop.is_closed()

    async def _poll(self, hook: WorkflowsoftHook, intent: PollIntent) -> Sequence[Instance]:
        """Poll once, and record the result in the journals of all watchers that have recorded the intent."""
        instances: Sequence[Instance] = ()
        lost: Exception | None = None
        rejected: Exception | None = None
        tags = {"connection": self.trigger.workflowsoft_conn_id, "product": "workflowsoft"}
        version_compat.count("workflows.polls", 1, **tags, scope=str(self._poller.step_id))
        started_at = datetime.now(timezone.utc)
        try:
            instances = await in_new_thread(self._poller.poll, hook)
        except NOTHING_DONE as error:
            rejected = error
        except UnreadableInstances as malformed:
            instances, lost = malformed.instances, malformed
        except Exception as unknown:  # after any error the response may be lost
            lost = unknown
        # Before the journal is written: if that fails, the log has the ids.
        if new := [row for row in instances if row["integration_instance_id"] not in self._returned]:
            log.info("Received at step %s: %s.", self._poller.name, name_instances(new))
        now = datetime.now(timezone.utc)
        for journal in intent.journals:
            known, new = journal.known, journal.new(instances)
            ended = known.poll_lost(now, new) if lost else known.poll_ended(None if rejected else new)
            await journal.persist(ended)
        self._stated_wait = _stated_wait(lost)
        if lost is not None:
            report_loss(log, self._poller.step_id, lost, started_at.isoformat(timespec="milliseconds"), now)
        if rejected is not None:
            raise rejected
        return instances

    def _delay_after(self, fault: Exception, delay: float) -> float:
        backoff = max(self.trigger.poll_interval, min(MAX_REJECTED_DELAY_SECONDS, 2 * delay))
        return max(backoff, _stated_wait(fault))


# Accounts and steps that streams in this process have claimed for destructive polls.
_claimed: dict[tuple[tuple[str, str], str], IntegrationProducer] = {}


def _stated_wait(fault: Exception | None) -> float:
    """Return the seconds until the next poll that the server stated with an error, or 0."""
    return min(getattr(fault, "wait", None) or 0.0, MAX_BLOCK_SECONDS)


def _close(hook: WorkflowsoftHook, _: Any) -> None:
    hook.close()
