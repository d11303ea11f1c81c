"""The event-driven example DAGs, in this process, with events as the watchers emit them."""

from __future__ import annotations

import pytest

from tests.support.examples import once_and_in_full, result, run, states

APPROVAL = "example_procore_event_driven_approval"
OUTCOME = "example_procore_event_driven_outcome"
INTEGRATION = "example_workflowsoft_event_driven_integration"

pytestmark = pytest.mark.usefixtures("airflow_db")


def request(emulator, instance_id="700001"):
    (row,) = [row for row in emulator.control("GET", "state")["procore"] if row["id"] == instance_id]
    return {
        "event_id": f"response_requested:{instance_id}:{row['step_occurrence_id']}:90001",
        "instance_id": instance_id,
        "item_id": row["item_id"],
        "project_id": "1001",
        "step_occurrence_id": row["step_occurrence_id"],
    }


def events(*rows):
    return {"events_of": lambda triggering: list(rows)}


def responses(emulator):
    return [effect["detail"]["option"] for effect in emulator.effects() if effect["action"] == "respond"]


@once_and_in_full()
def test_requested_response_is_sent_once(airflow_connections, again):
    emulator = airflow_connections
    event = request(emulator)

    first = run(APPROVAL, constants=events(event))

    assert result(first, "sum_up") == {"Approve": 1}
    assert first.state == "success"
    if again:
        assert run(APPROVAL, constants=events(event)).state == "success"
    assert responses(emulator) == ["Approve"]


@pytest.mark.slow
def test_order_over_budget_is_returned(airflow_connections):
    emulator = airflow_connections
    event = request(emulator)

    done = run(APPROVAL, constants=events(event), over_budget=[event["item_id"]])

    assert result(done, "notify_the_buyers") == [event["item_id"]]
    assert responses(emulator) == ["Return"]


@pytest.mark.slow
@pytest.mark.parametrize("example", [APPROVAL, OUTCOME, INTEGRATION])
def test_manual_run_has_no_events_and_does_nothing(airflow_connections, example):
    done = run(example)

    assert done.state == "success"
    assert airflow_connections.effects() == []


def test_outcome_decides_which_tasks_run(airflow_connections):
    def ended(item_id, status, change="ended"):
        state = None if change == "gone" else "complete"
        return {
            "event_id": f"instance_{change}:{item_id}:a",
            "item_id": item_id,
            "change": change,
            "state": state,
            "item_status": status,
            "ended_at": "2026-01-01T00:00:00Z",
        }

    rows = [ended("1", "Approved"), ended("2", "Rejected"), ended("3", None, "gone")]
    found = states(run(OUTCOME, constants=events(*rows)))

    assert (found["order_the_goods"], found["notify_the_buyer"]) == (["success"], ["success"] * 2)


@once_and_in_full()
def test_delivered_instance_is_completed_once(airflow_connections, again):
    emulator = airflow_connections
    started = emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
    row = {"event_id": "integration:host:101:3", **started, "diagram_id": "1", "step_id": "101", "step": "Check event"}
    lost = [{"events": [], "possibly_lost": [{"since": "2026-01-01T00:00:00+00:00", "until": "2026-01-02"}]}]
    constants = {**events(row), "payloads_of": lambda triggering: lost}

    first = run(INTEGRATION, constants=constants)
    if again:
        run(INTEGRATION, constants=constants)

    assert result(first, "report") == [row["integration_instance_id"]]
    assert result(first, "report_losses") == 1
    assert [effect["action"] for effect in emulator.effects()].count("complete") == 1
