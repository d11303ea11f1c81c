"""Two DAGs for the runs with kills: many tasks that wait at the same time, and one that is scheduled by events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pendulum
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import dag, task

from airflow_provider_workflows.assets.procore import procore_asset
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

CONTENT = json.loads(Path(__file__).with_suffix(".json").read_text())
WAITS = CONTENT["waits"]
PROCORE = {"procore_conn_id": CONTENT["connections"]["procore"]}
WORKFLOWSOFT = {"workflowsoft_conn_id": CONTENT["connections"]["workflowsoft"]}
HOW: dict[str, Any] = {"deferrable": True, "timeout": 3600, "retries": 5, "retry_delay": 1}
START = pendulum.datetime(2026, 1, 1, tz="UTC")


@dag(schedule=None, start_date=START, catchup=False)
def many_waits():
    v2 = ProcoreInstanceSensor.partial(task_id="procore", **PROCORE, **HOW).expand(instance_id=WAITS["procore"])
    legacy = ProcoreLegacyInstanceSensor.partial(
        task_id="procore_legacy", until=["PO Approved", "Start"], **PROCORE, **HOW
    ).expand(instance_id=WAITS["procore_legacy"])
    steps = WorkflowsoftIntegrationSensor.partial(task_id="workflowsoft", **WORKFLOWSOFT, **HOW).expand(
        step_id=WAITS["workflowsoft"]
    )

    @task(trigger_rule="all_done", retries=5, retry_delay=1)
    def outcomes(v2, legacy, steps) -> dict[str, str]:
        """Return how each wait has ended."""
        return {
            **{f"procore {row['instance_id']}": row["item_status"] for row in v2[:]},
            **{f"procore_legacy {row['instance_id']}": row["state"] for row in legacy[:]},
            **{f"workflowsoft {row['step_id']}": row["integration_instance_id"] for rows in steps[:] for row in rows},
        }

    outcomes(v2.output, legacy.output, steps.output)


@dag(
    schedule=[
        procore_asset(
            "orders to respond to", event="response_requested", tool_type="purchase_order_contract", **PROCORE
        )
    ],
    start_date=START,
    catchup=False,
)
def requests_as_events():
    EmptyOperator(task_id="received")


many_waits()
requests_as_events()
