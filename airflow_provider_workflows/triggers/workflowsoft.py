"""Waits for Workflowsoft's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_workflows.rules.verdicts import Verdict
from airflow_provider_workflows.triggers.base import SHORTEST_FIRST_PAUSE, WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook


class WorkflowsoftIntegrationWaitTrigger(WaitTrigger):
    """
    Waits until an integration step has a new instance.

    It runs in a triggerer only where reading leaves the instance there (``kept_until_completed``), for a
    trigger cannot keep what it has read; else a sensor on a worker calls its parts.

    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``.
    :param diagram: Title or id of the process diagram, or None when ``step_id`` is known.
    :param step: Title or id of the integration step, or None.
    :param diagram_id: The diagram's id, once known.
    :param step_id: The step's id, once known.
    :param poll_interval: Seconds between two looks.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    """

    def __init__(
        self,
        *,
        workflowsoft_conn_id: str,
        diagram: str | None,
        step: str | None,
        diagram_id: str | None = None,
        step_id: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.workflowsoft_conn_id = workflowsoft_conn_id
        self.diagram = diagram
        self.step = step
        self.diagram_id = diagram_id
        self.step_id = step_id

    def arguments(self) -> dict[str, Any]:
        own = ("workflowsoft_conn_id", "diagram", "step", "diagram_id", "step_id")
        return {name: getattr(self, name) for name in own}

    @property
    def place(self) -> dict[str, str | None]:
        """Where the wait is: ``{diagram_id, step_id, step}``."""
        return {"diagram_id": self.diagram_id, "step_id": self.step_id, "step": self.step}

    def open_hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)

    def locate(self, hook: WorkflowsoftHook) -> str:
        """Return the step's id, looked up by the titles when it is not known yet."""
        if self.step_id is None:
            found = hook.resolve_step(str(self.diagram), str(self.step))
            self.diagram_id, self.step_id, self.step = found["diagram_id"], found["step_id"], found["step"]
        return self.step_id

    def snapshot(self, hook: WorkflowsoftHook) -> list[dict[str, str | None]]:
        step_id = self.locate(hook)
        return hook.poll_new_integrations(step_id, is_known=self.diagram_id is not None)

    def decide(self, snapshot: list[dict[str, str | None]]) -> Verdict | None:
        if not snapshot:
            return None
        # Where reading leaves them there, the instances after the first are for the next look.
        result: dict[str, Any] = {**snapshot[0], **self.place, "also_delivered": [], "suspected_lost": []}
        return Verdict("succeed", result, f"Step {self.name} has instance {snapshot[0]['integration_instance_id']}")

    def describe(self, snapshot: list[dict[str, str | None]]) -> str:
        return f"Step {self.name}: {len(snapshot) or 'no'} new integration instance(s)."

    @property
    def name(self) -> str:
        return f"{self.step!r} ({self.step_id})" if self.step else str(self.step_id)


class WorkflowsoftPauseTrigger(BaseTrigger):
    """
    Sleeps, then sends a task back to a worker.

    :param until: Wall-clock end of the pause as an ISO-8601 time.
    :param event: What to hand to the resumed task; JSON primitives.
    """

    def __init__(self, *, until: str, event: Mapping[str, Any]):
        super().__init__()
        self.until = until
        self.event = dict(event)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {"until": self.until, "event": self.event}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        left = (datetime.fromisoformat(self.until) - datetime.now(timezone.utc)).total_seconds()
        await asyncio.sleep(max(SHORTEST_FIRST_PAUSE, left))
        yield TriggerEvent(self.event)
