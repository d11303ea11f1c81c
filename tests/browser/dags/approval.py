"""A DAG for the browser: two tasks have done their part, the third one waits for a person."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag

from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.operators.workflowsoft import WorkflowsoftStartProcessOperator
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor


# Its one run has the same id each time, which a screenshot of the log shows.
@dag(
    schedule="@once",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args={"retries": 3, "retry_delay": 1},  # a worker of a busy machine can fail before its task starts
)
def approval():
    WorkflowsoftStartProcessOperator(
        task_id="plan_an_event", diagram="Event planning", on_behalf_of="olga@example.com", fields={}
    )
    respond = ProcoreRespondOperator(task_id="respond", instance_id="700001", option="Approve", comment="In budget.")
    wait = ProcoreInstanceSensor(
        task_id="wait_for_the_director", instance_id="700001", deferrable=True, poke_interval=60, timeout=7 * 24 * 3600
    )
    respond >> wait


approval()
