"""The poll that the watchers of Procore's instances share."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.polling.poll import snapshots
from airflow_provider_workflows.polling.procore_events import InstancesScope
from airflow_provider_workflows.rules import procore_events as events
from tests.unit.polling.conftest import INTERVAL, PROJECT, TOOL, start

pytestmark = pytest.mark.usefixtures("airflow_connections")


@pytest.fixture
def described(monkeypatch):
    """Return the ids of the instances that were described, in the order of time."""
    ids = []
    describe = events.described_instance
    monkeypatch.setattr(
        events,
        "described_instance",
        lambda instance, **more: ids.append(instance["instance_id"]) or describe(instance, **more),
    )
    return ids


def watch() -> InstancesScope:
    return InstancesScope("procore_default", None, (PROJECT,), (TOOL,), None)


def approve(emulator, instance_id):
    emulator.control(
        "POST", f"procore/instances/{instance_id}/respond", login="integration@example.com", option="Approve"
    )


async def described_by(polls):
    """Return the descriptions that the next poll delivers."""
    return (await asyncio.wait_for(anext(polls), 2 * INTERVAL)).described


def test_only_instances_whose_history_changed_are_described_again(emulator, waiting, described):
    async def scenario(waits):
        moved, *others = [instance_id for instance_id, _ in start(emulator, 20)]
        async with aclosing(snapshots(watch(), INTERVAL)) as polls:
            first = await described_by(polls)
            assert set(described) == set(first) >= {moved, *others}
            described.clear()
            approve(emulator, moved)
            return moved, first, await described_by(polls)

    moved, first, second = waiting(scenario)

    assert described == [moved]
    assert first[moved]["parts"] != second[moved]["parts"]
    assert {**first, moved: second[moved]} == second


def test_outdated_single_read_is_corrected_by_the_next_bulk_read(emulator, waiting, described, monkeypatch):
    hook = ProcoreHook()

    async def scenario(waits):
        ((instance_id, _),) = start(emulator, 1)
        outdated = hook.get_instance_history(instance_id, project_id=PROJECT)
        approve(emulator, instance_id)
        async with aclosing(snapshots(watch(), INTERVAL)) as polls:
            right = (await described_by(polls))[instance_id]
            with monkeypatch.context() as stale:
                stale.setattr("airflow_provider_workflows.polling.procore_events.random.choice", lambda _: instance_id)
                stale.setattr(ProcoreHook, "get_instance_history", lambda *_, **__: outdated)
                emulator.control("POST", "faults", path="/bulk_history$", status=500, times=1)
                wrong = (await described_by(polls))[instance_id]
            return right, wrong, (await described_by(polls))[instance_id]

    right, wrong, corrected = waiting(scenario)

    assert wrong != right
    assert corrected == right
