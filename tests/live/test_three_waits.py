"""The end-to-end run of ``make test``: one deferred wait for each API on a real scheduler and triggerer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_workflows.emulator import Emulator
from tests.live.demo import EXAMPLES, SETTINGS
from tests.support.live_airflow import LiveAirflow
from tests.support.people import DAGS, act_for, check_effects

pytestmark = pytest.mark.e2e

# A scheduler that rests between its loops leaves the processors to the tests beside it.
CALM = {**SETTINGS, "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5"}
WAITS = {
    "procore": "wait_for_the_outcome",
    "procore_legacy": "wait_for_the_decision",
    "workflowsoft": "wait_for_check_event",
}


class Finished(NamedTuple):
    """What the emulator recorded, and what Airflow reports of each DAG run."""

    emulator: Emulator
    tasks: dict[str, dict[str, dict[str, Any]]]  # by API, then by task id


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The three example DAGs after their runs; the people respond when all three waits are deferred."""
    dags: Path = tmp_path_factory.mktemp("dags")
    for dag_id in DAGS.values():
        shutil.copy(EXAMPLES / f"{dag_id}.py", dags)
    with Emulator() as emulator:
        with LiveAirflow(dags, emulator.control("GET", "connections"), CALM) as airflow:
            runs = {api: airflow.trigger(dag_id) for api, dag_id in DAGS.items()}
            for api, dag_id in DAGS.items():
                airflow.until_deferred(dag_id, runs[api], WAITS[api])
            for api in DAGS:
                act_for(api, emulator)
            for api, dag_id in DAGS.items():
                airflow.wait(dag_id, runs[api])
            tasks = {api: airflow.tasks_with_results(dag_id, runs[api]) for api, dag_id in DAGS.items()}
        yield Finished(emulator, tasks)


@pytest.mark.parametrize("api", DAGS)
def test_every_task_succeeds(finished, api):
    failed = {
        task_id: task["log"][-3000:]
        for task_id, task in finished.tasks[api].items()
        if task["state"] not in ("success", "skipped")
    }
    assert failed == {}
    assert finished.tasks[api][WAITS[api]]["state"] == "success"


@pytest.mark.parametrize("api", DAGS)
def test_the_wait_is_deferred_and_no_other_task(finished, api):
    deferred = {task_id for task_id, task in finished.tasks[api].items() if "Pausing task as DEFERRED" in task["log"]}

    assert deferred == {WAITS[api]}


def test_every_action_happens_exactly_once(finished):
    assert check_effects(finished.emulator) == []


def test_the_waits_return_what_the_people_decided(finished):
    results = {api: finished.tasks[api][task_id]["xcom"] for api, task_id in WAITS.items()}

    assert results["procore"]["item_status"] == "Approved"
    assert results["procore_legacy"]["state"] == "PO Approved"
    completed = [e["target"] for e in finished.emulator.effects() if e["action"] == "complete"]
    received = [row["integration_instance_id"] for row in results["workflowsoft"]]
    assert [target["integration_instance_id"] for target in completed] == received
