"""The example that waits for an item's approval: in Legacy, and in v2 after the switch."""

from __future__ import annotations

import threading

import pytest

from tests.support.examples import EITHER_MODE, result, run, states
from tests.support.people import People
from tests.unit.sensors.test_procore_item import approve_in_v2, start_in_v2, submit, upgrade

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_db", "airflow_connections")]

DAG = "example_procore_item_approval"


@EITHER_MODE
def test_example_waits_in_legacy(emulator, monkeypatch, deferrable):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)
    submit(emulator)

    with People(emulator, thinking=1.0):
        found = run(DAG)

    assert result(found, "record").startswith("procore_legacy decided: Approved")
    assert states(found)["order_the_goods"] == ["success"]


@EITHER_MODE
def test_example_continues_in_v2_after_the_switch(emulator, monkeypatch, deferrable):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)
    submit(emulator)
    is_notified = threading.Event()
    polled = "GET", "/rest/v1.0/workflow_instances/568150"

    def people():
        while not any((request["method"], request["path"]) == polled for request in emulator.requests()):
            assert not is_notified.wait(0.1)
        upgrade(emulator, "terminated")
        assert is_notified.wait(60)
        approve_in_v2(emulator, start_in_v2(emulator))

    thread = threading.Thread(target=people, daemon=True)
    thread.start()
    notifiers = {"report_stuck_item": lambda context: is_notified.set(), "STUCK_AFTER": 1.0}
    found = run(DAG, constants=notifiers)
    thread.join(60)

    assert result(found, "record") == (
        "procore decided: Approved. Last seen in Legacy in state Pending Approval, left: terminated."
    )
    assert states(found)["order_the_goods"] == ["success"]
