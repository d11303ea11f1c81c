"""Triggerers that are killed at random moments, one after another, while people continue to work."""

from __future__ import annotations

import asyncio
import random

import pytest

from airflow_provider_workflows.triggers.procore_events import (
    ProcoreInstanceChangedTrigger,
    ProcoreResponseRequestedTrigger,
)
from airflow_provider_workflows.triggers.workflowsoft_events import WorkflowsoftIntegrationTrigger

pytest.importorskip("airflow.triggers.shared_stream", reason="before Airflow 3.3 there is no cursor")
TOOL = "purchase_order_contract"


@pytest.fixture
def emulator(airflow_connections, set_connection):
    airflow_connections.control("PATCH", "flags", new_integrations="consumed_on_read")
    connection = airflow_connections.connection("workflowsoft")
    connection["extra"]["new_integrations"] = "consumed_on_read"
    set_connection("workflowsoft_default", connection)
    return airflow_connections


def delivered(rows) -> tuple[set[str], set[str]]:
    """Return the instances whose request was delivered, and those whose start was."""
    requested = {row["instance_id"] for row in rows if row["event_id"].startswith("response_requested:")}
    return requested, {row["instance_id"] for row in rows if row.get("change") == "started"}


@pytest.mark.parametrize(
    ("lives", "seed"),
    [(3, 1), pytest.param(12, 1, marks=pytest.mark.slow), pytest.param(12, 2, marks=pytest.mark.slow)],
)
def test_killed_triggerers_lose_no_event_and_no_event_id(run, emulator, stores, lives, seed):
    chance = random.Random(seed)
    orders, integrations, stored, lost = {"700001"}, set(), [], []

    def live(scenario, **settings):
        triggerer = run(scenario, **settings)
        stored.extend(triggerer.stored)
        lost.extend(stretch for _, payload in triggerer.payloads for stretch in payload.get("possibly_lost", ()))
        return triggerer

    def work():
        item = str(990000 + len(orders))
        orders.add(emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item)["id"])
        started = emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        integrations.add(started["integration_instance_id"])

    def watch(triggerer):
        triggerer.watch(ProcoreResponseRequestedTrigger(tool_type=TOOL, poll_interval=0.02, asset="asks"))
        triggerer.watch(ProcoreInstanceChangedTrigger(tool_type=TOOL, poll_interval=0.02, asset="changes"))
        step = {"diagram": "Event planning", "step": "Check event"}
        triggerer.watch(WorkflowsoftIntegrationTrigger(**step, poll_interval=0.02, asset="step"))

    async def life(triggerer):
        watch(triggerer)
        for _ in range(chance.randrange(1, 15)):
            await asyncio.sleep(chance.random() * 0.04)
            if chance.random() < 0.3:
                work()
            if chance.random() < 0.5:
                triggerer.persist()

    async def first(triggerer):
        watch(triggerer)
        await triggerer.until(lambda: len(stores.keys("changes")) == 2)

    async def last(triggerer):
        watch(triggerer)
        # On a busy machine one watcher can poll many times before another's first poll.
        await triggerer.until(lambda: delivered([*stored, *triggerer.events()]) == (orders, orders - {"700001"}))
        await triggerer.polls(40)

    live(first)
    for _ in range(lives):
        live(life, persists=False)
    live(last)

    assert delivered(stored) == (orders, orders - {"700001"})
    by_id = {row["event_id"]: row for row in stored}
    requests = [row for row in by_id.values() if row["event_id"].startswith("response_requested:")]
    assert len(requests) == len(orders)  # a repeat has no other id
    started = [row for row in by_id.values() if row.get("change") == "started"]
    assert sorted(row["instance_id"] for row in started) == sorted(orders - {"700001"})
    arrived = {row["integration_instance_id"] for row in by_id.values() if "integration_instance_id" in row}
    (journal,) = [stores.value("step", key) for key in stores.keys("step") if key.endswith(".journal")]
    assert arrived <= integrations
    # A response that was on its way when the triggerer died is lost, and reported.
    assert arrived == integrations or lost or journal["possibly_lost"]
