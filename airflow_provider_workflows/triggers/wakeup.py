"""The trigger of a task that polls on workers only, and sleeps in between without one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class WakeUpTrigger(BaseTrigger):
    """
    Wake a task at a time; it reads nothing and logs nothing.

    :param until: When, as an ISO-8601 time.
    :param event: What the resumed task gets as its event, for it is all that the task knows then; JSON primitives.
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
        # The wall-clock is read now and then, because the event loop's clock stands still while the machine sleeps.
        while (left := (until - datetime.now(timezone.utc)).total_seconds()) > 0:  # noqa: ASYNC110  time alone ends it
            await asyncio.sleep(min(left, MAX_SLEEP_SECONDS))
        yield TriggerEvent(self.event)
