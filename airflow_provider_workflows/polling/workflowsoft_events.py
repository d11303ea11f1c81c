"""
The scope of the asset watchers of Workflowsoft's integration steps, where polling leaves instances in place.

Where polling removes instances (``consumed_on_read``), ``triggers.workflowsoft_producer`` polls instead.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.polling.poll import PollScope
from airflow_provider_workflows.rules.workflowsoft import UnreadableInstances

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.polling.poll import Reader
    from airflow_provider_workflows.rules.poll_journal import Instance

log = logging.getLogger(__name__)

CONSUMED_ON_READ: Any = object()  # outcome where a poll would remove instances


class StepEventsScope(PollScope):
    """
    Read the open instances of one integration step, if polling leaves them in place.

    :param poller: The wait trigger that looks up the step and polls it.
    """

    def __init__(self, poller: Any):
        super().__init__(poller.workflowsoft_conn_id)
        self._poller = poller
        self._key = ("workflowsoft", "events", self.conn_id, poller.diagram, poller.step, poller.step_id)
        self._read_at = float("-inf")
        self._is_malformed = False
        self._logged_others: set[str] = set()

    @property
    def key(self) -> tuple[Hashable, ...]:
        return self._key

    def open_hook(self) -> WorkflowsoftHook:
        hook: WorkflowsoftHook = self._poller.open_hook()
        return hook

    @property
    def hook_key(self) -> Hashable:
        return "workflowsoft"

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        outcome = await reader.call(self._read)
        if outcome is not None:
            reader.deliver_all((subscriber, outcome) for subscriber in subscribers)

    def close(self) -> None:
        with _watching:
            for scopes in _watched.values():
                scopes.discard(self)

    def _read(self, hook: WorkflowsoftHook) -> Any:
        """Poll in one call, because between two calls the connection can be changed; return None if it is too soon."""
        if not hook.lists_until_completed:
            return CONSUMED_ON_READ
        if time.monotonic() - self._read_at < hook.shortest_poll:
            return None
        hook.check_may_consume()
        self._poller.locate(hook)
        self._log_others(hook)
        self._read_at = time.monotonic()
        found = self._poller.drain(partial(self._poll, hook))
        return {**self._poller.place, "server": hook.server}, found

    def _poll(self, hook: WorkflowsoftHook) -> Sequence[Instance]:
        """Poll once; ignore a malformed response, because its instances stay in place."""
        try:
            instances: Sequence[Instance] = self._poller.poll(hook)
        except UnreadableInstances as malformed:
            if not self._is_malformed:
                log.warning(
                    "Polling step %s: the response is malformed, polling continues. %s", self._poller.name, malformed
                )
            self._is_malformed = True
            return []
        self._is_malformed = False
        return instances

    def _log_others(self, hook: WorkflowsoftHook) -> None:
        """Log once that the step is also watched through another connection that signs in as the same user."""
        with _watching:
            for key in [key for key, scopes in _watched.items() if not scopes]:
                del _watched[key]
            scopes = _watched.setdefault((hook.account, str(self._poller.step_id)), set())
            scopes.add(self)
            others = {scope.conn_id for scope in scopes} - {self.conn_id} - self._logged_others
        self._logged_others |= others
        for conn_id in sorted(others):
            log.warning(
                "Step %s is watched twice, through the connections %r and %r, which sign in as the same user. Each "
                "watcher emits every instance: use one connection for both.",
                self._poller.name,
                self.conn_id,
                conn_id,
            )


# Accounts and steps that this process polls, with the scopes that poll them.
_watched: dict[tuple[tuple[str, str], str], set[StepEventsScope]] = {}
_watching = threading.Lock()
