from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_workflows.emulator import Emulator
from tests.live.demo import EXAMPLES, SETTINGS, THINKING, emulator_process, run_examples
from tests.support.live_airflow import LiveAirflow
from tests.support.people import DAGS, People, check_effects

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "dags"
    shutil.copytree(EXAMPLES, folder)
    for name in ("every_mode.py", "cleared.py"):
        shutil.copy(Path(__file__).parent / "dags" / name, folder)
    return folder


@pytest.fixture(scope="module")
def finished(
    dags: Path,
) -> Iterator[tuple[Emulator, dict[str, dict[str, dict]], list[str], tuple[list[str], list[int]]]]:
    """All DAGs, run once on a real scheduler and triggerer: what became of their tasks."""
    with emulator_process() as emulator:
        with LiveAirflow(dags, emulator.control("GET", "connections"), SETTINGS) as airflow:
            waiting = airflow.trigger("every_mode")
            with People(emulator, thinking=THINKING):
                runs = {**run_examples(airflow), "every_mode": waiting}
                airflow.wait("every_mode", waiting)
            tasks = {
                dag_id: {
                    task["task_id"]: {
                        **task,
                        "xcom": airflow.xcom(dag_id, run_id, task["task_id"], map_index=task["map_index"]),
                        "log": airflow.log(dag_id, run_id, task["task_id"], map_index=task["map_index"]),
                    }
                    for task in airflow.task_instances(dag_id, run_id)
                }
                for dag_id, run_id in runs.items()
            }
            wrong = check_effects(emulator)
            again = airflow.trigger("cleared")
            states = [airflow.wait("cleared", again)]
            started = [processes_by_the_api(emulator)]
            airflow.clear("cleared", again)
            states.append(airflow.wait("cleared", again))
            started.append(processes_by_the_api(emulator))
        yield emulator, tasks, wrong, (states, started)


def processes_by_the_api(emulator: Emulator) -> int:
    return sum((e["action"], e["via"]) == ("start_process", "api") for e in emulator.effects())


def test_every_example_succeeds_on_a_real_airflow(finished):
    _, tasks, *_ = finished

    failed = [task for dag in tasks.values() for task in dag.values() if task["state"] not in ("success", "skipped")]
    assert {task["task_id"]: task["log"][-3000:] for task in failed} == {}


def test_every_action_happened_exactly_once(finished):
    _, _, wrong, _ = finished

    assert wrong == []


def test_a_wait_returns_the_same_in_every_mode(finished):
    _, tasks, *_ = finished
    results = {task_id: task["xcom"] for task_id, task in tasks["every_mode"].items()}

    assert results["poke"]["state"] == "complete"
    assert results["poke"] == results["reschedule"] == results["deferrable"]


def test_the_waits_ended_with_what_the_people_decided(finished):
    _, tasks, *_ = finished

    assert tasks[DAGS["procore"]]["wait_for_the_outcome"]["xcom"]["item_status"] == "Approved"
    assert tasks[DAGS["procore_legacy"]]["wait_for_the_decision"]["xcom"]["state"] == "PO Approved"


def test_the_waits_were_handed_to_the_triggerer(finished):
    _, tasks, *_ = finished
    deferred = {
        (dag_id, task_id)
        for dag_id, dag in tasks.items()
        for task_id, task in dag.items()
        if "Pausing task as DEFERRED" in task["log"]
    }

    assert deferred == {
        ("every_mode", "deferrable"),
        (DAGS["workflowsoft"], "wait_for_check_event"),
        (DAGS["procore"], "wait_for_the_outcome"),
        (DAGS["procore_legacy"], "wait_for_the_decision"),
    }


def test_a_retry_does_it_once_and_a_cleared_task_does_it_again(finished):
    *_, (states, started) = finished

    assert states == ["success", "success"]
    assert started == [1, 2]
