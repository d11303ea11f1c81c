"""The Airflow deployment that the browser opens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_workflows.emulator import Emulator
from tests.support.engines import postgresql
from tests.support.live_airflow import LiveAirflow
from tests.support.open_waits import BUNDLES, start_workflows
from tests.support.past_emulator import past_emulator


@dataclass
class Running:
    """An Airflow, the emulator it talks to, and the run of its DAG, whose last task waits."""

    airflow: LiveAirflow
    emulator: Emulator
    connections: dict[str, Any]
    run_id: str
    workflows: dict[str, Any]  # that were started for the DAG ``open_waits``

    def task(self, task_id: str, tab: str = "") -> str:
        return f"{self.airflow.url}/dags/approval/runs/{self.run_id}/tasks/{task_id}/{tab}"


@contextlib.contextmanager
def running_airflow() -> Iterator[Running]:
    """Start Airflow, and wait until the last task of the DAG ``approval`` is deferred."""
    with postgresql() as database, past_emulator() as emulator:
        workflows = start_workflows(emulator)
        connections = emulator.control("GET", "connections")
        procore, workflowsoft = (connections[name]["extra"] for name in ("procore_default", "workflowsoft_default"))
        procore["item_url"] = f"{emulator.url}/?company={{company_id}}&project={{project_id}}&item={{item_id}}"
        workflowsoft["item_url"] = f"{emulator.url}/?process={{process_instance_id}}"
        procore["project_id"] = int(procore["project_id"])  # Airflow's log has a warning for each text this short
        settings = {
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": BUNDLES,
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__WORKFLOWS__APPROVALS_PAGE_READS": "True",
        }
        dags = Path(__file__).with_name("dags")
        with LiveAirflow(dags, connections, settings, database=database) as airflow:
            airflow.unpause("approval")
            airflow.until("the DAG runs", lambda: airflow.runs("approval"))
            (run_id,) = airflow.runs("approval")

            def waits_for_the_director() -> bool:
                return [airflow.count("approval", run_id, state) for state in ("success", "deferred")] == [2, 1]

            airflow.until("the DAG waits for the director", waits_for_the_director)
            yield Running(airflow, emulator, connections, run_id, workflows)
