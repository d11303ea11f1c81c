"""
The scope of waits for a Workflowsoft integration step, where polling leaves instances in place.

All waits for a step share one poll; leases assign each new instance to one of them.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConnectionFailed, WorkflowsError
from airflow_provider_workflows.polling import poll as polls
from airflow_provider_workflows.polling.list_poll import MOVED
from airflow_provider_workflows.polling.poll import PollScope
from airflow_provider_workflows.rules.leases import Leases, StepWait
from airflow_provider_workflows.rules.payload import documented_form

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.polling.poll import Reader
    from airflow_provider_workflows.rules.poll_journal import Instance

# By server. The leases outlive the polls, because an instance stays open after the task that waited for it.
_leases: dict[str, Leases] = {}


class DestructivePoll(Exception):
    """Raised in a triggerer when polling would remove instances (``consumed_on_read``); only a worker may do that."""


class IntegrationStepScope(PollScope):
    """
    Poll one integration step, and deliver each new instance to one wait.

    :param wait: One of the waits, with which the hook is opened.
    """

    max_stretch = 1.2

    def __init__(self, wait: Any):
        super().__init__(wait.workflowsoft_conn_id)
        self._wait = wait
        self._is_by_id = wait.step_id is not None
        self._key = (*wait.connection, wait.step_id or (wait.diagram, wait.step))

    @property
    def key(self) -> tuple[Hashable, ...]:
        return self._key

    @property
    def hook_key(self) -> Hashable:
        return "workflowsoft"

    def open_hook(self) -> WorkflowsoftHook:
        hook: WorkflowsoftHook = self._wait.open_hook()
        return hook

    def first_delay(self, interval: float) -> float:
        # The worker has poked just before.
        return max(polls.MIN_FIRST_DELAY_SECONDS, interval * random.uniform(1.0, self.max_stretch))

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        if not await reader.call(lambda hook: hook.lists_until_completed):
            reader.deliver_all((wait, DestructivePoll()) for wait in subscribers)
            return
        server = await reader.call(lambda hook: hook.server)
        if self._is_by_id:
            moved = [wait for wait in subscribers if not wait.is_located_on(server)]
            for wait in moved:  # the connection has another server, so it looks its step up by the titles again
                wait.forget_step()
                reader.deliver(wait, MOVED)
            subscribers = [wait for wait in subscribers if wait not in moved]
            if not subscribers:
                return
        # Preferably one whose step was looked up: it reads a 404 as "nothing new".
        leader = next((wait for wait in subscribers if wait.diagram_id is not None), subscribers[0])
        await reader.call(leader.locate)
        if not self._is_by_id:  # now that the id is known, all join the scope of that id
            for wait in subscribers:
                vars(wait).update(leader.found)
            reader.deliver_all((wait, MOVED) for wait in subscribers)
            return
        leases = _leases.setdefault(await reader.call(lambda hook: hook.client.base_url), Leases())
        needed = leases.rows_needed(leader.step_id, [_step_wait(wait) for wait in subscribers]) or 1
        responses = await reader.call(partial(_drain, leader, needed, server))
        waits = [wait for wait in subscribers if reader.has(wait)]
        owners = leases.owners(leader.step_id)
        assigned = leases.assign(leader.step_id, responses, [_step_wait(wait) for wait in waits])
        for wait, rows in zip(waits, assigned, strict=True):
            try:
                with documented_form():
                    outcome = wait.outcome_of(rows)
            except WorkflowsError as error:
                outcome = error
            # What an earlier wait of the task has received stays leased to it.
            new = [row for row in rows if owners.get(row["integration_instance_id"]) != _task_of(wait)]
            wait.release = partial(leases.release, leader.step_id, _task_of(wait), new)
            reader.deliver(wait, outcome)


def _drain(wait: Any, needed: int, server: str, hook: WorkflowsoftHook) -> list[list[Instance]]:
    """Poll until enough instances were received, and return the rows of each response."""
    if hook.server != server or not hook.lists_until_completed:
        raise ConnectionFailed("The Airflow connection was changed before the request was sent")
    responses: list[list[Instance]] = []

    def poll() -> list[Instance]:
        rows: list[Instance] = wait.poll(hook)
        responses.append(rows)
        return rows

    wait.drain(poll, needed)
    return responses


def _step_wait(wait: Any) -> StepWait:
    return StepWait(_task_of(wait), wait.desired)


def _task_of(wait: Any) -> Hashable:
    """Return an identifier of the task, which is the same in all its retries."""
    task = wait.task_instance
    if task is None:
        return id(wait)
    return tuple(getattr(task, name, None) for name in ("dag_id", "run_id", "task_id", "map_index"))
