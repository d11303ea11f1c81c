"""A list that stays shorter than its total ends no wait, and the waits are still evaluated."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor
from tests.unit.polling.conftest import LEGACY_WORKFLOW, legacy_wait

pytestmark = pytest.mark.usefixtures("airflow_connections")


@pytest.fixture(autouse=True)
def hidden_rows(emulator):
    emulator.control("PATCH", "flags", list_total="hidden_rows_too", instances_paging="page_only")


def test_each_wait_missing_in_the_list_is_polled_individually(emulator, waiting):
    many = emulator.control("POST", "procore/legacy/instances/many", count=3, workflow=LEGACY_WORKFLOW)["ids"]

    async def scenario(waits):
        waits.start(*(legacy_wait(instance_id) for instance_id in many))
        await waits.poll()
        before = waits.statuses()
        emulator.control("POST", f"procore/legacy/instances/{many[1]}/terminate", login="pat@example.com")
        await waits.poll()
        return before, waits.statuses()

    assert waiting(scenario) == ([None] * 3, [None, "done", None])


def test_poke_continues_after_an_incomplete_list(store):
    sensor = ProcoreResponseRequestedSensor(
        task_id="wait", tool_type="purchase_order_contract", project_id="1002", timeout=60
    )

    assert sensor.poke({"task_state_store": store}) is False
