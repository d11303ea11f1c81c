"""A watcher without a state store: before Airflow 3.3.2, or without a known asset."""

from __future__ import annotations

import asyncio
import logging

import pytest

from airflow_provider_workflows.triggers.procore_events import (
    ProcoreInstanceChangedTrigger,
    ProcoreResponseRequestedTrigger,
)
from airflow_provider_workflows.triggers.workflowsoft_events import WorkflowsoftIntegrationTrigger

pytestmark = pytest.mark.compat

TOOL = "purchase_order_contract"


@pytest.fixture
def emulator(airflow_connections):
    return airflow_connections


def run_alone(trigger, change, expected=1, ready=lambda: True):
    """Run a watcher by itself until it has emitted so many events; ``change`` runs when it is ready."""
    payloads = []

    async def whole():
        async def consume():
            async for event in trigger.run():
                payloads.append(event.payload)

        task = asyncio.create_task(consume())
        await asyncio.sleep(0.5)
        while not ready():
            await asyncio.sleep(0.01)
        await change()
        for _ in range(1000):
            if len(payloads) >= expected or task.done():
                break
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(whole())
    return payloads


def polled(emulator):
    """Return a function that says whether a watcher of Procore has completed a poll."""
    return lambda: sum(request["path"].endswith("/instances") for request in emulator.requests()) >= 3


async def nothing():
    pass


@pytest.mark.parametrize("kind", [ProcoreResponseRequestedTrigger, ProcoreInstanceChangedTrigger])
def test_procore_watchers_emit_from_now_on_and_log_it(emulator, caplog, kind):
    async def change():
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="990001")

    with caplog.at_level(logging.WARNING):
        (payload,) = run_alone(kind(tool_type=TOOL, poll_interval=0.02), change, ready=polled(emulator))

    assert [row["item_id"] for row in payload["events"]] == ["990001"]
    assert len([record for record in caplog.records if "stores no cursor" in record.message]) == 1


def test_outage_does_not_end_a_watcher_without_a_store(emulator):
    async def change():
        emulator.control("POST", "faults", path="/workflows/", status=500, times=4)
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="990001")

    trigger = ProcoreResponseRequestedTrigger(tool_type=TOOL, poll_interval=0.02)

    assert len(run_alone(trigger, change, ready=polled(emulator))) == 1


def test_listed_instances_are_emitted_from_the_first_poll_on(emulator, set_connection):
    """One that is open may hide the others, so it must be emitted, even if again after each restart."""
    emulator.control("PATCH", "flags", new_integrations="listed_until_completed")
    connection = emulator.connection("workflowsoft")
    connection["extra"]["new_integrations"] = "listed_until_completed"
    set_connection("workflowsoft_default", connection)
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
    trigger = WorkflowsoftIntegrationTrigger(diagram="Event planning", step="Check event", poll_interval=0.02)

    (payload,) = run_alone(trigger, nothing)

    assert [row["integration_instance_id"] for row in payload["events"]] == ["3"]


def test_consuming_reads_are_not_polled_on_this_version(emulator, set_connection, caplog):
    connection = emulator.connection("workflowsoft")
    connection["extra"]["new_integrations"] = "consumed_on_read"
    set_connection("workflowsoft_default", connection)
    trigger = WorkflowsoftIntegrationTrigger(diagram="Event planning", step="Check event", poll_interval=0.02)

    assert run_alone(trigger, nothing, expected=0) == []

    assert len([record for record in caplog.records if "only Airflow 3.3.2 or newer" in record.message]) == 1
    assert not [request for request in emulator.requests() if request["path"].endswith("/new-integrations")]


@pytest.mark.parametrize(
    ("assets", "named"),
    [(("one", "two"), None), (("one",), "another")],
    ids=["several assets and none named", "another asset named"],
)
def test_watcher_of_several_assets_without_a_name_does_not_poll(emulator, stores, caplog, assets, named):
    trigger = ProcoreResponseRequestedTrigger(tool_type=TOOL, poll_interval=0.02, asset=named)
    trigger.asset_state_store = stores.of(*assets)

    assert trigger.shared_stream_key() is None  # so that Airflow calls run()
    assert run_alone(trigger, nothing, expected=0) == []

    assert "Give each watcher the name of its asset" in caplog.text
    assert emulator.requests() == []


def test_a_store_without_async_methods_counts_as_none():
    """Airflow 3.3.0 and 3.3.1 have such a store; it would block the triggerer's event loop."""

    class OldStores:
        def get(self, key, default=None):
            raise AssertionError("it blocks")

    trigger = ProcoreResponseRequestedTrigger(tool_type=TOOL, asset="asset")
    trigger.asset_state_store = OldStores()

    assert trigger.shared_stream_key() is None
