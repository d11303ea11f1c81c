"""What a poll reads for the waits on one integration step of Workflowsoft."""

from __future__ import annotations

import random
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.triggers import base
from airflow_provider_workflows.triggers.shared_poll import Scope
from airflow_provider_workflows.triggers.workflowsoft import ReadingConsumes

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.triggers.shared_poll import Outcomes
    from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger

LEASE = 3600.0  # seconds for which an instance is kept from others than the task it was handed to


class StepScope(Scope):
    """Waits for new instances of one integration step, where reading leaves them there: each goes to one wait."""

    longest_stretch = 1.2

    def __init__(self, trigger: WorkflowsoftIntegrationWaitTrigger):
        super().__init__(trigger.workflowsoft_conn_id)
        self._trigger = trigger
        self._key = (*trigger.connection, trigger.step_id or (trigger.diagram, trigger.step))
        self._handed: dict[str | None, tuple[Hashable, float]] = {}  # instance: to which task, and when

    @property
    def key(self) -> tuple[Hashable, ...]:
        return self._key

    def open_hook(self) -> WorkflowsoftHook:
        return self._trigger.open_hook()

    def first_pause(self, interval: float) -> float:
        # A look on the worker came just before.
        return max(base.SHORTEST_FIRST_PAUSE, interval * random.uniform(1.0, self.longest_stretch))

    def read(
        self, hook: WorkflowsoftHook, subscribers: Sequence[WorkflowsoftIntegrationWaitTrigger]
    ) -> Iterator[Outcomes]:
        if not hook.keeps_until_completed:
            yield [(wait, ReadingConsumes()) for wait in subscribers]
            return
        reader = self._trigger
        reader.locate(hook)
        self._handed = {one: at for one, at in self._handed.items() if at[1] > time.monotonic() - LEASE}
        wanted = sum(wait.wanted for wait in subscribers) + len(self._handed)
        found = reader.drain(lambda: reader.poll(hook), wanted)
        outcomes: list[tuple[Any, Any]] = []
        for wait in subscribers:
            wait.diagram_id, wait.step_id, wait.step = reader.diagram_id, reader.step_id, reader.step
            free = [row for row in found if self._may_have(wait, row["integration_instance_id"])][: wait.wanted]
            self._handed |= {row["integration_instance_id"]: (_task_of(wait), time.monotonic()) for row in free}
            found = [row for row in found if row not in free]
            try:
                outcomes.append((wait, wait.judge(free)))
            except WorkflowsError as error:
                outcomes.append((wait, error))
        yield outcomes

    def _may_have(self, wait: WorkflowsoftIntegrationWaitTrigger, instance_id: str | None) -> bool:
        return instance_id not in self._handed or self._handed[instance_id][0] == _task_of(wait)


def _task_of(wait: WorkflowsoftIntegrationWaitTrigger) -> Hashable:
    """Return what a task and its retries have in common."""
    task = wait.task_instance
    if task is None:
        return id(wait)
    return tuple(getattr(task, name, None) for name in ("dag_id", "run_id", "task_id", "map_index"))
