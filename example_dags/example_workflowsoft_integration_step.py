"""
Handle an integration step of a Workflowsoft process.

A process diagram "Event planning" has an integration step "Check event". When processes reach it, the DAG receives
their new integration instances. For each of them it reads the typed fields, decides new values, writes them, and
completes the step, so that the process continues. Each of these is a mapped task; `example_workflowsoft_enrich` does
them in one function.
"""

from __future__ import annotations

from decimal import Decimal

import pendulum
from airflow.sdk import dag, task, task_group

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
    new = WorkflowsoftIntegrationSensor(  # its result is a list, usually of one
        task_id="wait_for_check_event",
        diagram="Event planning",
        step="Check event",
        timeout=7 * 24 * 3600,
        retries=2,
    )
    # [END howto_sensor_workflowsoft_integration]

    @task_group
    def handle(instance: dict):
        """Handle one instance; Airflow creates such a group for each."""
        # [START howto_operator_workflowsoft_get_fields]
        get_fields = WorkflowsoftGetFieldsOperator(
            task_id="get_fields",
            integration_instance_id=instance,
            # What "plan" needs: the task fails here with a clear error if the diagram was changed.
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
            """Decide about the event; decimals are text in XCom, so that they stay exact."""
            duration = Decimal(fields["Event duration"] or 0) + Decimal("30.25")
            print(f"{fields['Event name']} takes place in the main hall, {duration} minutes with setting up.")
            return {"Event exists": True, "Event duration": str(duration), "Venue": "Main hall"}

        # [START howto_operator_workflowsoft_update_fields]
        update_fields = WorkflowsoftUpdateFieldsOperator(
            task_id="update_fields",
            integration_instance_id=instance,
            fields=plan(get_fields.output),
            retries=2,
        )
        # [END howto_operator_workflowsoft_update_fields]

        # [START howto_operator_workflowsoft_complete_integration]
        complete = WorkflowsoftCompleteIntegrationOperator(
            task_id="complete",
            integration_instance_id=instance,
            # Ignored before Airflow 3.3, where a retry cannot know what the first try has done.
            retries=2,
        )
        # [END howto_operator_workflowsoft_complete_integration]

        update_fields >> complete

    handle.expand(instance=new.output)


example_workflowsoft_integration_step()
