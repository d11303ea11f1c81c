"""The trigger of a deferred task that polls on workers only: it sends the task back to a worker at a given time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class WakeUpTrigger(BaseTrigger):
    """
    Resume a task at a given time; read nothing and log nothing.

    :param until: The time, as an ISO-8601 time.
    :param event: The event of the resumed task, with all state that the task needs then; JSON primitives.
    """

    def __init__(self, *, until: str, event: Mapping[str, Any]):
        super().__init__()
        self.until = until
        self.event = dict(event)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        cls = type(self)
        return f"{cls.__module__}.{cls.__qualname__}", {"until": self.until, "event": self.event}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        from airflow_provider_workflows.polling.poll import MAX_SLEEP_SECONDS, MIN_FIRST_DELAY_SECONDS

        # Airflow can fail a task whose trigger fires right after the deferral.
        soonest = datetime.now(timezone.utc) + timedelta(seconds=MIN_FIRST_DELAY_SECONDS)
        until = max(datetime.fromisoformat(self.until), soonest)
        # Read the wall-clock regularly, because the event loop's clock stands still while the machine sleeps.
        while (left := (until - datetime.now(timezone.utc)).total_seconds()) > 0:  # noqa: ASYNC110  time ends it
            await asyncio.sleep(min(left, MAX_SLEEP_SECONDS))
        yield TriggerEvent(self.event)
