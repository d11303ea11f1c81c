"""A wait in each mode, and an action that is retried and cleared, on a real Airflow."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = pytest.mark.live

DAGS = Path(__file__).parents[1] / "dags"


def test_a_wait_returns_the_same_in_every_mode(shared):
    airflow, emulator = shared.airflow, shared.emulators["modes"]
    shared.add(DAGS / "every_mode.py")
    respond(emulator, "integration@example.com")
    run_id = airflow.trigger("every_mode")
    waiting = {"poke": "running", "reschedule": "up_for_reschedule", "deferrable": "deferred"}

    def each_waits() -> bool:
        return {task["task_id"]: task["state"] for task in airflow.task_instances("every_mode", run_id)} == waiting

    airflow.until("every mode waits", each_waits)
    respond(emulator, "dana@example.com")
    state = airflow.wait("every_mode", run_id)

    results = {task_id: airflow.xcom("every_mode", run_id, task_id) for task_id in waiting}
    assert state == "success"
    assert results["poke"]["state"] == "complete"
    assert results["poke"] == results["reschedule"] == results["deferrable"]


def respond(emulator, login):
    emulator.control("POST", "procore/instances/700001/respond", login=login, option="Approve")


def test_a_retry_writes_once_and_a_cleared_task_writes_again(shared):
    airflow, emulator = shared.airflow, shared.emulators["modes"]
    shared.add(DAGS / "cleared.py")
    run_id = airflow.trigger("cleared")
    states, started = [airflow.wait("cleared", run_id)], [processes_by_the_api(emulator)]
    airflow.clear("cleared", run_id)
    states.append(airflow.wait("cleared", run_id))
    started.append(processes_by_the_api(emulator))

    assert states == ["success", "success"]
    assert started == [1, 2]


def processes_by_the_api(emulator) -> int:
    return sum((e["action"], e["via"]) == ("start_process", "api") for e in emulator.effects())
