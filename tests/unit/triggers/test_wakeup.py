"""The trigger of tasks that poll on workers: it sleeps until a time, and yields the event of its arguments."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_workflows.polling import poll as polls
from airflow_provider_workflows.triggers import wakeup
from airflow_provider_workflows.triggers.wakeup import WakeUpTrigger

pytestmark = pytest.mark.compat

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def slept(monkeypatch) -> list[float]:
    """The seconds of each sleep, which the wall-clock makes in no time."""
    seconds: list[float] = []

    async def sleep(requested: float) -> None:
        seconds.append(requested)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOW + timedelta(seconds=sum(seconds))

    monkeypatch.setattr(wakeup, "datetime", Clock)
    monkeypatch.setattr(wakeup, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(polls, "MIN_FIRST_DELAY_SECONDS", 5.0)
    return seconds


def payloads(trigger: WakeUpTrigger) -> list[dict[str, Any]]:
    async def run() -> list[dict[str, Any]]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(run())


def test_event_is_yielded_at_the_time(slept):
    event = {"status": "poke", "deadline": "then"}
    until = NOW + timedelta(seconds=90)

    assert payloads(WakeUpTrigger(until=until.isoformat(), event=event)) == [event]
    assert sum(slept) == 90


def test_a_long_sleep_reads_the_wall_clock_in_between(slept):
    payloads(WakeUpTrigger(until=(NOW + timedelta(days=1)).isoformat(), event={}))

    assert (max(slept), sum(slept)) == (polls.MAX_SLEEP_SECONDS, 86400)


@pytest.mark.parametrize("seconds", [-3600, 0, 1])
def test_event_is_never_yielded_right_after_the_deferral(slept, seconds):
    payloads(WakeUpTrigger(until=(NOW + timedelta(seconds=seconds)).isoformat(), event={}))

    assert sum(slept) == 5
