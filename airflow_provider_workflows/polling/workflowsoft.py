"""What polls read of Workflowsoft: the open instances of an integration step, where reading leaves them there."""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.polling import poll as polls
from airflow_provider_workflows.polling.list_poll import MOVED
from airflow_provider_workflows.polling.poll import PollScope
from airflow_provider_workflows.rules.leases import Leases, StepWait
from airflow_provider_workflows.rules.payload import documented_form

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.polling.poll import Reader
    from airflow_provider_workflows.rules.poll_journal import Instance

# Of each server in this process: the leases outlive the polls, for an instance is open for longer than a task waits.
_leases: dict[str, Leases] = {}


class DestructivePoll(Exception):
    """Raised where the connection says by now that reading takes instances out, which a trigger must not do."""


class IntegrationStepScope(PollScope):
    """
    Polls one integration step, and delivers each new instance to one wait.

    :param wait: One of the waits: it finds and polls the step for all.
    """

    max_stretch = 1.2

    def __init__(self, wait: Any):
        super().__init__(wait.workflowsoft_conn_id)
        self._wait = wait
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
        # A poke on the worker came just before.
        return max(polls.MIN_FIRST_DELAY_SECONDS, interval * random.uniform(1.0, self.max_stretch))

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        if not await reader.call(lambda hook: hook.lists_until_completed):
            reader.deliver_all((wait, DestructivePoll()) for wait in subscribers)
            return
        # One whose step was looked up knows that a 404 means that nothing is new.
        step = next((wait for wait in subscribers if wait.diagram_id is not None), subscribers[0])
        await reader.call(step.locate)
        for wait in subscribers:
            wait.diagram_id, wait.step_id, wait.step = step.diagram_id, step.step_id, step.step
        if step.scope().key != self.key:  # it was polled by titles; there may be waits that know the id
            reader.deliver_all((wait, MOVED) for wait in subscribers)
            return
        leases = _leases.setdefault(await reader.call(lambda hook: hook.client.base_url), Leases())
        needed = leases.rows_needed(step.step_id, [_step_wait(wait) for wait in subscribers]) or 1
        responses = await reader.call(partial(_drain, step, needed))
        waits = [wait for wait in subscribers if reader.has(wait)]
        assigned = leases.assign(step.step_id, responses, [_step_wait(wait) for wait in waits])
        for wait, rows in zip(waits, assigned, strict=True):
            try:
                with documented_form():
                    outcome = wait.outcome_of(rows)
            except WorkflowsError as error:
                outcome = error
            reader.deliver(wait, outcome)


def _drain(step: Any, needed: int, hook: WorkflowsoftHook) -> list[list[Instance]]:
    """Read until enough instances are there, and return the rows of each response."""
    responses: list[list[Instance]] = []

    def poll() -> list[Instance]:
        rows: list[Instance] = step.poll(hook)
        responses.append(rows)
        return rows

    step.drain(poll, needed)
    return responses


def _step_wait(wait: Any) -> StepWait:
    return StepWait(_task_of(wait), wait.desired)


def _task_of(wait: Any) -> Hashable:
    """Return what a task and its retries have in common."""
    task = wait.task_instance
    if task is None:
        return id(wait)
    return tuple(getattr(task, name, None) for name in ("dag_id", "run_id", "task_id", "map_index"))
