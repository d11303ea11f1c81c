"""The hourly example: runs that overlap write one row for each response, and a Return is followed until it is back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor
from tests.support.examples import result, run, states

DAG = "example_procore_respond_and_follow"

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


@contextmanager
def person(emulator, login: str, option: str) -> Iterator[None]:
    """Let a person choose this option at each step that waits for them."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.2):
            for instance in emulator.control("GET", "state")["procore"]:
                if login in instance["waits_for"]:
                    emulator.control("POST", f"procore/instances/{instance['id']}/respond", login=login, option=option)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def rows(folder) -> list[dict]:
    """Return the rows that were written, in the order of their options."""
    found = [json.loads(file.read_text()) for file in folder.iterdir()]
    return sorted(found, key=lambda row: row["option"])


def responses(emulator) -> list[str]:
    return [e["detail"]["option"] for e in emulator.effects() if e["action"] == "respond" and e["by"] == "90001"]


def test_returned_order_gets_a_row_for_each_response(emulator, tmp_path):
    with person(emulator, "pat@example.com", "Resubmit"):
        first = run(DAG, root=f"file://{tmp_path}", over_budget=["5001"])
    with person(emulator, "dana@example.com", "Approve"):
        second = run(DAG, root=f"file://{tmp_path}")

    assert [str(first.state), str(second.state)] == ["success", "success"]
    approved, returned = rows(tmp_path)
    assert (returned["option"], returned["next_step"], returned["decided"]) == ("Return", "Budget Check", None)
    assert (approved["option"], approved["next_step"], approved["decided"]) == (
        "Approve",
        "Director Approval",
        "Approve",
    )
    assert approved["item_status"] == "Approved"
    assert responses(emulator) == ["Return", "Approve"]


@pytest.mark.slow
def test_runs_that_saw_the_same_request_write_one_row(emulator, tmp_path, monkeypatch):
    with person(emulator, "dana@example.com", "Approve"):
        first = run(DAG, root=f"file://{tmp_path}")
    seen = result(first, "wait_for_requests")
    # A run that overlaps has seen the request before the first one responded to it.
    monkeypatch.setattr(ProcoreResponseRequestedSensor, "execute", lambda self, context: seen)

    second = run(DAG, root=f"file://{tmp_path}")

    assert states(second)["write_row"] == ["success"]
    assert [row["item_id"] for row in rows(tmp_path)] == ["5001"]
    assert responses(emulator) == ["Approve"]
