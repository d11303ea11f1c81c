"""A pause of a task that looks again afterwards by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_workflows.triggers.base import MAX_SLEEP_SECONDS


class PauseTrigger(BaseTrigger):
    """
    Wakes a task at a time; it reads nothing, and says nothing while it sleeps.

    :param until: When, as an ISO-8601 time.
    :param deadline: End of the task's wait, handed back in the event: whatever else the task knew is gone by then.
    :param step_occurrence_id: The visit of the step that the task is about, likewise.
    """

    def __init__(self, *, until: str, deadline: str, step_occurrence_id: str | None = None):
        super().__init__()
        self.until = until
        self.deadline = deadline
        self.step_occurrence_id = step_occurrence_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {"until": self.until, **self._handed_back()}

    def _handed_back(self) -> dict[str, Any]:
        return {"deadline": self.deadline, "step_occurrence_id": self.step_occurrence_id}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        until = datetime.fromisoformat(self.until)
        # Now and then by the clock on the wall, for the loop's own stands still while the machine sleeps.
        while (left := (until - datetime.now(timezone.utc)).total_seconds()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(left, MAX_SLEEP_SECONDS))
        yield TriggerEvent(self._handed_back())
