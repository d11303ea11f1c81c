"""Legacy waits: each poll reads an instance that lists no activity, until its state is clear."""

from __future__ import annotations

import pytest

from tests.unit.polling.conftest import LEGACY_WORKFLOW, legacy_wait

pytestmark = pytest.mark.usefixtures("airflow_connections")


def perform(emulator, activity, login, *ids):
    emulator.control("POST", "procore/legacy/instances/perform-many", ids=list(ids), activity=activity, login=login)


@pytest.mark.parametrize("moves_on", [True, False])
def test_a_gap_between_states_ends_no_wait_before_ten_minutes(emulator, waiting, moves_on):
    many = emulator.control("POST", "procore/legacy/instances/many", count=30, workflow=LEGACY_WORKFLOW)["ids"]
    perform(emulator, "Submit for Approval", "pat@example.com", *many)
    delay = 300 if moves_on else 86400
    emulator.control("PATCH", "flags", legacy_transition="delayed", transition_delay=delay)

    async def scenario(waits):
        waits.start(*(legacy_wait(instance_id, until=["Start"]) for instance_id in many))
        await waits.poll_until_shared()
        perform(emulator, "Deny", "rita@example.com", many[0])
        statuses = []
        for _ in range(13):
            await waits.poll()
            statuses.append(waits.statuses()[0])
        return statuses, waits.statuses()[1:], waits.results()

    statuses, others, results = waiting(scenario)

    assert set(others) == {None}
    assert statuses[-1] == "done"
    assert results[0]["state"] == ("Start" if moves_on else "Pending Approval")
    assert statuses.index("done") == (5 if moves_on else 10)


@pytest.mark.parametrize(("side", "status"), [("not_found", "error"), ("terminated", "done"), ("draft", "done")])
def test_wait_for_an_instance_that_left_legacy_names_the_switch(emulator, waiting, side, status):
    perform(emulator, "Submit for Approval", "pat@example.com", "568150")

    async def scenario(waits):
        waits.start(legacy_wait("568150", until=["PO Approved", "Draft"]))
        await waits.poll()
        emulator.control("POST", "procore/legacy/upgrade")
        emulator.control("PATCH", "flags", legacy_left_behind=side)
        for _ in range(13):
            await waits.poll()
        return waits.tasks[0].result()

    event = waiting(scenario)

    assert (event["status"], event.get("action")) == (status, "fail" if status == "done" else None)
    assert "ProcoreItemSensor" in event["reason" if status == "done" else "message"]
