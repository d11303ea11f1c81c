"""What polls read of Workflowsoft: the open instances of an integration step, where reading leaves them there."""

from __future__ import annotations

import random
import time
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.polling import poll as polls
from airflow_provider_workflows.polling.poll import PollScope

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.polling.poll import Reader

LEASE = 3600.0  # seconds for which an instance is kept from others than the task it was handed to


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
        self._handed: dict[str | None, tuple[Hashable, float]] = {}  # instance: to which task, and when

    @property
    def key(self) -> tuple[Hashable, ...]:
        return self._key

    @property
    def hook_key(self) -> Hashable:
        return "workflowsoft"

    def open_hook(self) -> WorkflowsoftHook:
        hook: WorkflowsoftHook = self._wait.open_hook()
        return hook

    def first_pause(self, interval: float) -> float:
        # A poke on the worker came just before.
        return max(polls.MIN_FIRST_PAUSE_SECONDS, interval * random.uniform(1.0, self.max_stretch))

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        if not await reader.call(lambda hook: hook.keeps_until_completed):
            reader.deliver_all((wait, DestructivePoll()) for wait in subscribers)
            return
        step = self._wait
        await reader.call(step.locate)
        self._handed = {one: at for one, at in self._handed.items() if at[1] > time.monotonic() - LEASE}
        wanted = sum(wait.wanted for wait in subscribers) + len(self._handed)
        found = await reader.call(lambda hook: step.drain(lambda: step.poll(hook), wanted))
        for wait in subscribers:
            wait.diagram_id, wait.step_id, wait.step = step.diagram_id, step.step_id, step.step
            free = [row for row in found if self._may_have(wait, row["integration_instance_id"])][: wait.wanted]
            self._handed |= {row["integration_instance_id"]: (_task_of(wait), time.monotonic()) for row in free}
            found = [row for row in found if row not in free]
            try:
                reader.deliver(wait, wait.evaluate(free))
            except WorkflowsError as error:
                reader.deliver(wait, error)

    def _may_have(self, wait: Any, instance_id: str | None) -> bool:
        return instance_id not in self._handed or self._handed[instance_id][0] == _task_of(wait)


def _task_of(wait: Any) -> Hashable:
    """Return what a task and its retries have in common."""
    task = wait.task_instance
    if task is None:
        return id(wait)
    return tuple(getattr(task, name, None) for name in ("dag_id", "run_id", "task_id", "map_index"))
