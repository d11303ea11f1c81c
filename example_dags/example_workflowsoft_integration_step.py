"""
Work on an integration step of a Workflowsoft process.

A process diagram "Event planning" has an integration step "Check event". When a process reaches it, the DAG
takes the new integration instance over, reads its typed fields, decides new values, writes them, and
completes the step, so that the process goes on. Each of these is a task; `example_workflowsoft_enrich` has one
function do them all.
"""

from __future__ import annotations

from decimal import Decimal

import pendulum
from airflow.sdk import dag, task

from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCompleteIntegrationOperator,
    WorkflowsoftGetFieldsOperator,
    WorkflowsoftUpdateFieldsOperator,
)
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # one consumer for each integration step
    tags=["example", "workflowsoft"],
    doc_md=__doc__,
)
def example_workflowsoft_integration_step():
    # [START howto_sensor_workflowsoft_integration]
    instance = WorkflowsoftIntegrationSensor(
        task_id="wait_for_check_event",
        diagram="Event planning",
        step="Check event",
        timeout=7 * 24 * 3600,
        retries=2,
    )
    # [END howto_sensor_workflowsoft_integration]

    # [START howto_operator_workflowsoft_get_fields]
    get_fields = WorkflowsoftGetFieldsOperator(
        task_id="get_fields",
        integration_instance_id=instance.output,
        # What "plan" counts on: fails here, and says so, when somebody has changed the diagram.
        expected_fields={
            "Event name": "String",
            "Event exists": "Boolean?",
            "Event duration": "Decimal?",
            "Venue": "String",
        },
        retries=2,
    )
    # [END howto_operator_workflowsoft_get_fields]

    @task
    def plan(fields: dict) -> dict:
        """Decide about the event; decimals travel as text, so that they stay exact."""
        duration = Decimal(fields["Event duration"] or 0) + Decimal("30.25")
        print(f"{fields['Event name']} takes place in the main hall, {duration} minutes with setting up.")
        return {"Event exists": True, "Event duration": str(duration), "Venue": "Main hall"}

    # [START howto_operator_workflowsoft_update_fields]
    update_fields = WorkflowsoftUpdateFieldsOperator(
        task_id="update_fields",
        integration_instance_id=instance.output,
        fields=plan(get_fields.output),
        retries=2,
    )
    # [END howto_operator_workflowsoft_update_fields]

    # [START howto_operator_workflowsoft_complete_integration]
    complete = WorkflowsoftCompleteIntegrationOperator(
        task_id="complete",
        integration_instance_id=instance.output,
        retries=2,
    )
    # [END howto_operator_workflowsoft_complete_integration]

    update_fields >> complete


example_workflowsoft_integration_step()
