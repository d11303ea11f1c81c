"""A watcher of many instances whose requests are rate-limited in every poll."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import aclosing

import pytest

from airflow_provider_workflows.polling import rate_limiter
from airflow_provider_workflows.triggers.procore_events import (
    ProcoreInstanceChangedTrigger,
    ProcoreResponseRequestedTrigger,
)
from tests.support.virtual_time import VirtualTime

TOOL = "purchase_order_contract"


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("kind", "bulk", "many"),
    [
        (ProcoreResponseRequestedTrigger, "present", 40),
        (ProcoreInstanceChangedTrigger, "present", 200),
        (ProcoreInstanceChangedTrigger, "absent", 40),
    ],
)
@pytest.mark.parametrize(
    ("headers", "rate_limit_response"),
    [("never", "retry_after"), pytest.param("when_on", "both", marks=pytest.mark.slow)],
)
def test_poll_survives_a_rate_limit_in_the_middle(
    airflow_connections, monkeypatch, kind, bulk, many, headers, rate_limit_response
):
    emulator = airflow_connections
    emulator.control("POST", "procore/instances/many", count=many, tool_type=TOOL)
    limits = {"rate_limit": "on", "spike_limit": 7, "rate_headers": headers, "rate_429": rate_limit_response}
    emulator.control("PATCH", "flags", bulk_history=bulk, **limits)
    # As where a server's limit cannot be guessed, so that every poll is rate-limited several times.
    monkeypatch.setattr(rate_limiter, "MIN_SPIKE_REQUESTS", 10_000)
    sent = []
    record = rate_limiter.RateLimiter.record
    monkeypatch.setattr(
        rate_limiter.RateLimiter, "record", lambda self, number, rate: sent.append(number) or record(self, number, None)
    )
    found = []

    async def collect():
        async with aclosing(kind(tool_type=TOOL, poll_interval=60.0).snapshots()) as snapshots:
            async for snapshot in snapshots:
                found.append(snapshot)

    async def for_a_while():
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(collect(), 900)

    with VirtualTime() as clock:
        clock.run(for_a_while())

    assert len(found) >= 3
    known = found[0].requests if kind is ProcoreResponseRequestedTrigger else found[0].described
    assert len(known) == many + 1
    rejected = [request for request in emulator.requests() if request["status"] == 429]
    assert len(rejected) >= 5
    assert max(sent) == 1
