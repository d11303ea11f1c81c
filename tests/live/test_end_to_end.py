from __future__ import annotations

import pytest

from airflow_provider_workflows.emulator import Emulator
from tests.live.airflow import LiveAirflow
from tests.live.demo import EXAMPLES, SETTINGS, emulator_process, run_examples
from tests.live.people import DAGS, People, check_effects


@pytest.fixture(scope="module")
def finished() -> tuple[Emulator, dict[str, dict[str, dict]], list[str]]:
    """All three examples, run once on a real scheduler and triggerer: what became of their tasks."""
    with emulator_process() as emulator:
        with LiveAirflow(EXAMPLES, emulator.control("GET", "connections"), SETTINGS) as airflow:
            with People(emulator):
                runs = run_examples(airflow)
            tasks = {
                dag_id: {
                    task["task_id"]: {**task, "xcom": airflow.xcom(dag_id, run_id, task["task_id"])}
                    for task in airflow.task_instances(dag_id, run_id)
                }
                for dag_id, run_id in runs.items()
            }
        yield emulator, tasks, check_effects(emulator)


def test_every_example_succeeds_on_a_real_airflow(finished):
    _, tasks, _ = finished

    states = {task["task_id"]: task["state"] for dag in tasks.values() for task in dag.values()}
    assert {name for name, state in states.items() if state not in ("success", "skipped")} == set()


def test_every_action_happened_exactly_once(finished):
    *_, wrong = finished

    assert wrong == []


def test_the_waits_were_deferred_to_the_triggerer(finished):
    _, tasks, _ = finished

    waits = [
        tasks[DAGS["procore"]]["wait_for_the_outcome"],
        tasks[DAGS["procore_legacy"]]["wait_for_the_decision"],
    ]
    assert all(task["trigger"] is None and task["triggerer_job"] is None for task in waits)
    assert [task["xcom"]["state"] for task in waits] == ["complete", "PO Approved"]
