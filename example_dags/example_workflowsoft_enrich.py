"""
Register the vendors that wait in Workflowsoft, with data from the warehouse.

A process diagram "Vendor onboarding" has an integration step "Register vendor". The DAG receives all instances that
wait there, looks each vendor up in a task of its own, writes the typed fields, and completes the step. A vendor on
the block list is rejected. A vendor that the warehouse does not know yet is left open: give its id as the parameter
`integration_instance_id` later. The same parameter handles an instance that a lost poll took out of Workflowsoft.
"""

from __future__ import annotations

import datetime

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.decorators.workflowsoft import LeaveOpen, RejectIntegration
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

WAIT_SECONDS = 50 * 60  # then this run ends and the next one waits
MAX_VENDORS = 20  # in one run; the next one takes the rest

# A real DAG would query the warehouse.
VENDORS = {
    "Example Supplies": {
        "number": 70017,
        "rating": "A",
        "external_id": "3f2b1c9e-7d54-4b0a-9a1e-5c6d7e8f9a0b",
        "valid_until": datetime.date(2027, 12, 31),
        "score": 0.93,
    },
    "North Crane Hire": {
        "number": 70018,
        "rating": "B",
        "external_id": "8c1d2e3f-4a5b-4c6d-8e9f-0a1b2c3d4e5f",
        "valid_until": datetime.date(2026, 9, 30),
        "score": 0.71,
    },
}
BLOCKED = {"Shady Goods"}


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # one consumer for each integration step
    params={
        "integration_instance_id": Param(
            "", type="string", description="An instance to handle by hand; empty: wait for new ones"
        )
    },
    tags=["example", "workflowsoft"],
    doc_md=__doc__,
)
def example_workflowsoft_enrich():
    # Without this setting Airflow would skip all following tasks, and not only the wait.
    @task.short_circuit(ignore_downstream_trigger_rules=False)
    def has_to_wait(params: dict) -> bool:
        return not params["integration_instance_id"]

    # [START howto_sensor_workflowsoft_integration_drain]
    waiting = WorkflowsoftIntegrationSensor(
        task_id="wait_for_vendors",
        diagram="Vendor onboarding",
        step="Register vendor",
        max_instances=MAX_VENDORS,
        timeout=WAIT_SECONDS,
        soft_fail=True,  # a wait without a result is no failure
        retries=2,
    )
    # [END howto_sensor_workflowsoft_integration_drain]

    @task(trigger_rule="none_failed")
    def choose_instances(received: list[dict] | None, params: dict) -> list:
        """Return the given id, or the received rows, if any."""
        instance_id = params["integration_instance_id"]
        return [instance_id] if instance_id else received or []

    # [START howto_decorator_workflowsoft_integration]
    @task.workflowsoft_integration(
        expected_fields={
            "Vendor": "String",
            "Vendor number": "Int32?",
            "Rating": "String",
            "External id": "Guid?",
            "Valid until": "Date?",
            "Score": "Double?",
        },
        retries=2,
        # [START howto_notifier_workflowsoft_task]
        # Each vendor that fails creates a task for Sam.
        on_failure_callback=WorkflowsoftTaskNotifier(
            title="A vendor could not be registered", on_behalf_of="olga@example.com", assigned_to="sam@example.com"
        ),
        # [END howto_notifier_workflowsoft_task]
    )
    def register_vendor(fields: dict) -> dict:
        name = fields["Vendor"]
        if name in BLOCKED:
            # "Reject" is a custom action of this example's diagram; try which ones your step accepts.
            raise RejectIntegration(f"{name} is on the block list.", custom_action="Reject", fields={"Rating": "C"})
        if name not in VENDORS:
            raise LeaveOpen(f"the warehouse does not know {name} yet.")
        vendor = VENDORS[name]
        return {
            "Vendor number": vendor["number"],
            "Rating": vendor["rating"],
            "External id": vendor["external_id"],
            "Valid until": vendor["valid_until"],
            "Score": vendor["score"],
        }

    instances = choose_instances(waiting.output)
    registered = register_vendor.expand(integration_instance_id=instances)
    # [END howto_decorator_workflowsoft_integration]

    @task(trigger_rule="none_failed")
    def report(instances: list, registered: list[dict]) -> dict[str, list[str]]:
        """Report the result of each instance; a task that left its instance open has none."""
        results = {result["integration_instance_id"]: result for result in registered or []}
        ids = [row if isinstance(row, str) else row["integration_instance_id"] for row in instances or []]
        return {
            "registered": [instance_id for instance_id, result in results.items() if result["rejected"] is None],
            "rejected": [instance_id for instance_id, result in results.items() if result["rejected"] is not None],
            "left_open": [instance_id for instance_id in ids if instance_id not in results],
        }

    has_to_wait() >> waiting
    report(instances, registered)


example_workflowsoft_enrich()
