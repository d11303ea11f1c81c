"""The event trigger for Workflowsoft's integration steps: the watcher of an asset that emits new instances."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Hashable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.polling.workflowsoft_events import CONSUMED_ON_READ, StepEventsScope
from airflow_provider_workflows.rules.parameters import require_exactly_one
from airflow_provider_workflows.rules.poll_journal import MAX_INSTANCES, NO_PLACE
from airflow_provider_workflows.triggers.asset_journal import AssetJournal
from airflow_provider_workflows.triggers.events import (
    Emitted,
    Reading,
    WorkflowsEventTrigger,
    connection_id,
    constant,
)
from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger
from airflow_provider_workflows.triggers.workflowsoft_producer import IntegrationProducer, JournalEntry

if TYPE_CHECKING:
    from airflow_provider_workflows.polling.poll import PollScope
    from airflow_provider_workflows.rules.poll_journal import Instance, Stretch

log = logging.getLogger(__name__)

MAX_EMITTED = 5000  # stored ids of emitted instances


class WorkflowsoftIntegrationTrigger(WorkflowsEventTrigger):
    """
    Emit an event to an asset for every new integration instance of a step.

    If the connection says that instances are ``listed_until_completed``, a poll leaves them in place, and each is
    emitted once. If polling removes them (``consumed_on_read``, the default), the trigger polls only on Airflow 3.3.2
    and newer: there it records the start of each poll in the asset's state store, and stores what it has received
    before it emits it. A poll whose response was lost is a suspected loss, which the log, the statistic
    ``workflows.suspected_lost_delivery`` and the next event report.

    The event's payload is ``{event: "integration", workflowsoft_conn_id, possibly_lost, events}``, each of the
    events ``{event_id, integration_instance_id, process_instance_id, diagram_id, step_id, step}``, which operators
    accept as ``integration_instance_id``; ``possibly_lost`` are periods ``{since, until}``, ISO-8601 times in UTC.

    Reference: the vendor's help page "For Developers - how to integrate an external system".

    :param step: Title or id of the integration step in its process diagram.
    :param diagram: Title or id of the process diagram; goes with ``step``.
    :param step_id: The step's id instead of both, without a lookup.
    :param max_instances: Number of instances, 1 to 500, after which consecutive polls wait for the interval; if a step
        has several watchers, the value of the first one applies.
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``; its extra ``allow_consume`` must be true.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
        A server that is not on this machine is polled every 15 seconds at most. If a step has several watchers, the
        value of the first one applies.
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
        self._is_logged = False

    def build_poller(self) -> WorkflowsoftIntegrationWaitTrigger:
        """Build the wait trigger that looks up the step and polls it."""
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
        return StepEventsScope(self.build_poller())

    def read_by(self) -> tuple[Hashable, ...]:
        return ()  # one stream for all intervals, because two streams would take each other's instances

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> Any:
        return IntegrationProducer(cls(**kwargs))

    def news(self, emitted: Emitted, outcome: Any, *, is_first: bool) -> tuple[Emitted, list[dict[str, Any]]]:
        # All open instances are emitted, even without a cursor: a response may have one instance that hides the others.
        if outcome is CONSUMED_ON_READ:
            self._log_not_polled()
            return emitted, []
        place, found = outcome
        new = [row for row in found if emitted.get(str(row["integration_instance_id"])) != place["server"]]
        return _with_emitted(emitted, new, found, place["server"]), emitted_instances(new, place)

    def payload(
        self, facts: list[dict[str, Any]], outcome: Any, possibly_lost: Sequence[Stretch] = ()
    ) -> dict[str, Any] | None:
        if not facts:
            return None
        where = {"workflowsoft_conn_id": self.workflowsoft_conn_id, "possibly_lost": list(possibly_lost)}
        return {"event": self.event, **where, "events": facts}

    async def emit(self, reading: Reading) -> dict[str, Any] | None:
        if not isinstance(reading, JournalEntry):
            return await super().emit(reading)
        try:
            await self.load_cursor()
            server = str(reading.place["server"])
            if self._journal is None or self._journal.server != server:
                key = f"{self.store_key}.{hashlib.sha256(server.encode()).hexdigest()[:8]}.journal"
                self._journal = await AssetJournal.open(self.store, key, server, reading.stream)
            self._journal.emitted = self._emitted or {}
            await reading.record_in(self._journal)
        except Exception:  # of the state store, too: the watcher is rejected
            # A poll that is not recorded in every journal must not start.
            from airflow.triggers.shared_stream import reject_shared_stream_event

            reject_shared_stream_event()
            raise
        instances, lost = self._journal.start_delivery()
        if instances:
            ids = {row["integration_instance_id"] for row in instances}
            commit = partial(self._confirm, self._journal, instances, lost, reading.instances)
            reading.followups.append((commit, partial(self._journal.redeliver, ids)))
        return self.payload(emitted_instances(instances, self._journal.known.place), None, lost)

    async def _confirm(
        self,
        journal: AssetJournal,
        instances: Sequence[Instance],
        lost: Sequence[Stretch],
        listed: Sequence[Instance],
    ) -> None:
        """Move the instances of an event that Airflow has stored from the journal to the cursor."""
        assert self._cursor is not None
        # First in memory, because the next poll must not record them again even if a store fails.
        self._emitted = journal.emitted = _with_emitted(self._emitted or {}, instances, listed, journal.server)
        await journal.confirm({row["integration_instance_id"] for row in instances}, lost)
        await self._cursor.save(self._emitted)

    def _log_not_polled(self) -> None:
        if not self._is_logged:
            self._is_logged = True
            log.error(
                "Not polling: connection %r says that polling removes new integration instances (consumed_on_read), "
                "and only Airflow 3.3.2 or newer can store what was received. Use WorkflowsoftIntegrationSensor, or "
                "set the extra new_integrations to listed_until_completed if this Workflowsoft works that way.",
                self.workflowsoft_conn_id,
            )


def _with_emitted(emitted: Emitted, new: Sequence[Instance], listed: Sequence[Instance], server: str) -> Emitted:
    """
    Add instances to those that count as emitted, and forget surplus ones that the last poll does not list.

    :return: The server of each instance by id: another server has other instances with the same ids.
    """
    # An instance that is not listed any more may be hidden behind another, so it is not forgotten at once.
    emitted = {**emitted, **{str(row["integration_instance_id"]): server for row in new}}
    remaining = {row["integration_instance_id"] for row in (*new, *listed)}
    surplus = set([id_ for id_ in emitted if id_ not in remaining][: max(0, len(emitted) - MAX_EMITTED)])
    return {id_: value for id_, value in emitted.items() if id_ not in surplus}


def emitted_instances(instances: Sequence[Instance], place: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """
    Return the rows of an event's ``events``.

    :param place: The step: ``{diagram_id, step_id, step, server}``.
    """
    step = {name: place[name] for name in NO_PLACE}
    prefix = f"integration:{place['server']}:{place['step_id']}"
    return [{"event_id": f"{prefix}:{row['integration_instance_id']}", **row, **step} for row in instances]
