"""
The poll journal of an asset's Workflowsoft watcher, stored in the asset's state store.

Where polling removes instances (``consumed_on_read``), the watcher writes to the journal before and after each poll: a
triggerer that dies loses no instance that was received, and the next one reports a poll whose response was lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.rules.poll_journal import MAX_STORE_ATTEMPTS, PollJournal
from airflow_provider_workflows.triggers.workflowsoft import report_loss

if TYPE_CHECKING:
    from airflow_provider_workflows.rules.poll_journal import Instance, Stretch
    from airflow_provider_workflows.version_compat import AssetStore

log = logging.getLogger(__name__)


class AssetJournal:
    """
    Store the poll journal of one asset and server in the asset's state store.

    :param store: The asset's store.
    :param key: Key of the journal in the store.
    :param server: The server, as :attr:`WorkflowsoftHook.server`.
    :param known: The journal as last read or written.

    ``emitted`` has the servers, by id, of instances in events that Airflow has stored. They are not recorded again: a
    server that lists an instance until it is completed returns it with each poll.
    """

    def __init__(self, store: AssetStore, key: str, server: str, known: PollJournal):
        self._store = store
        self._key = key
        self.server = server
        self.known = known
        self.emitted: Mapping[str, Any] = {}
        self._delivering: set[str | None] = set()  # instances in an event that Airflow has not confirmed yet

    @classmethod
    async def open(cls, store: AssetStore, key: str, server: str, stream: str) -> AssetJournal:
        """
        Read the journal; report a poll that was started and not ended as a possible loss.

        :param stream: The stream that polls now. A poll of this stream may still be running: another watcher of the
            asset, which Airflow is about to stop, has recorded it.
        """
        journal = cls(store, key, server, PollJournal.from_dict(await store.aget(key)))
        since = journal.known.polling_since
        if since is not None and journal.known.poller != stream:
            now = datetime.now(timezone.utc)
            await journal.persist(journal.known.poll_lost(now))
            report_loss(log, journal.known.place["step_id"], "The triggerer died during the poll.", since, now)
        return journal

    async def poll_starts(self, place: Mapping[str, str | None], stream: str) -> None:
        """Record that a poll starts; raise if that cannot be stored."""
        self.known = self.known.poll_started(place, datetime.now(timezone.utc), stream)
        await self._store.aset(self._key, self.known.to_dict())

    def new(self, instances: Sequence[Instance]) -> list[Instance]:
        """Return the instances of a poll that Airflow does not have yet."""
        return [row for row in instances if self.emitted.get(str(row["integration_instance_id"])) != self.server]

    async def persist(self, known: PollJournal) -> None:
        """Store the journal, with retries for about a minute; if they fail, the next write includes this one."""
        self.known = known
        for attempt in range(MAX_STORE_ATTEMPTS):
            try:
                await self._store.aset(self._key, self.known.to_dict())
                return
            except Exception as fault:  # of Airflow's API server
                if attempt == MAX_STORE_ATTEMPTS - 1:
                    log.error(
                        "Storing the result of a poll in the asset's state store failed: %s. %s", self.known, fault
                    )
                    return
                await asyncio.sleep(2.0**attempt)

    def start_delivery(self) -> tuple[list[dict[str, str | None]], list[Stretch]]:
        """Return the instances that no event delivers yet, and with them the possible losses."""
        new = [row for row in self.known.instances if row["integration_instance_id"] not in self._delivering]
        self._delivering |= {row["integration_instance_id"] for row in new}
        return new, list(self.known.possibly_lost if new else ())

    def redeliver(self, instance_ids: Collection[str | None]) -> None:
        """Let a later event deliver these instances, because this one has not reached Airflow."""
        self._delivering.difference_update(instance_ids)

    async def confirm(self, instance_ids: Collection[str | None], lost: Sequence[Stretch]) -> None:
        """Forget instances and losses of an event that Airflow has stored."""
        self.known = self.known.forget(instance_ids, lost)
        self._delivering.difference_update(instance_ids)
        await self._store.aset(self._key, self.known.to_dict())  # if this fails, the next write includes it
