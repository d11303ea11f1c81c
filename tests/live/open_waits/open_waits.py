"""A DAG whose tasks wait for the people of three products."""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, get_current_context, task

from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

WAIT = {"deferrable": True, "poke_interval": 5, "timeout": 14 * 24 * 3600}


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 2, "retry_delay": 1},  # a worker of a busy machine can fail before its task starts
    params={"procore": Param([], type="array"), "procore_legacy": Param([], type="array")},
)
def open_waits():
    @task
    def instances(product: str) -> list[str]:
        return get_current_context()["params"][product]

    procore = instances.override(task_id="workflows")("procore")
    legacy = instances.override(task_id="legacy_workflows")("procore_legacy")
    ProcoreInstanceSensor.partial(task_id="wait_for_approval", **WAIT).expand(instance_id=procore)
    ProcoreLegacyInstanceSensor.partial(task_id="wait_for_review", until={"Accepted"}, **WAIT).expand(
        instance_id=legacy
    )
    WorkflowsoftIntegrationSensor(task_id="vendors", diagram="Vendor onboarding", step="Register vendor", **WAIT)
    WorkflowsoftIntegrationSensor(task_id="evidence", diagram="Data issue", step="Collect evidence", **WAIT)


open_waits()
