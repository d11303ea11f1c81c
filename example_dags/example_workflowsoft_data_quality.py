"""
Open a data issue in Workflowsoft when a quality check fails.

The DAG checks the orders that were not reported before. If rows are bad, it starts a process "Data issue" on behalf of
the data's owner, and creates a task for the steward that names the rows. If all rows are good, it does neither.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Variable, dag, task

from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCreateTaskOperator,
    WorkflowsoftStartProcessOperator,
)

OWNER = "olga@example.com"
STEWARD = "sam@example.com"
CHECK = "Orders have an amount"
# The Airflow variable with the load time of the newest reported row. `prev_start_date_success` would not do: a run that
# is triggered without a logical date does not have it.
REPORTED = "example_data_quality_reported_until"

# A real DAG would query the warehouse.
ORDERS = [
    {"order": "A-1001", "amount": 120.5, "loaded_at": "2026-01-02T03:00:00Z"},
    {"order": "A-1002", "amount": None, "loaded_at": "2026-01-02T03:00:00Z"},
    {"order": "A-1003", "amount": -4.0, "loaded_at": "2026-01-02T03:00:00Z"},
    {"order": "A-1004", "amount": 80.0, "loaded_at": "2026-01-02T03:00:00Z"},
]


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["example", "workflowsoft"],
    doc_md=__doc__,
)
def example_workflowsoft_data_quality():
    @task(retries=2)
    def find_bad_rows() -> list[dict]:
        reported = Variable.get(REPORTED, default="")  # such texts sort by time
        new = [row for row in ORDERS if row["loaded_at"] > reported]
        return [row for row in new if row["amount"] is None or row["amount"] < 0]

    @task.short_circuit
    def is_anything_bad(bad: list[dict]) -> bool:
        return bool(bad)

    @task(retries=2)
    def mark_as_reported(bad: list[dict]) -> None:
        """Run first, so that no other run reports the same rows; if a later task fails, clear it in this run."""
        Variable.set(REPORTED, max(row["loaded_at"] for row in bad))

    @task(multiple_outputs=True)
    def describe(bad: list[dict]) -> dict:
        orders = ", ".join(row["order"] for row in bad)
        return {
            # Use the names that your Workflowsoft accepts; the vendor documents none for a new process.
            "fields": {"Check": CHECK, "Failed rows": len(bad)},
            "title": f"{CHECK}: {len(bad)} do not",
            "description": f"Please correct the orders {orders}.",
        }

    bad = find_bad_rows()
    issue = describe(bad)

    # [START howto_operator_workflowsoft_start_process]
    start = WorkflowsoftStartProcessOperator(
        task_id="open_a_data_issue",
        diagram="Data issue",
        on_behalf_of=OWNER,
        fields=issue["fields"],
        # Gets the task and run that started the process: if a response is lost, look for this value in Workflowsoft.
        correlation_field="Details",
        retries=2,  # a try that may have started the process is never repeated
    )
    # [END howto_operator_workflowsoft_start_process]

    # [START howto_operator_workflowsoft_create_task]
    create = WorkflowsoftCreateTaskOperator(
        task_id="ask_the_steward",
        title=issue["title"],
        description=issue["description"],
        on_behalf_of=OWNER,
        assigned_to=STEWARD,
        retries=2,
    )
    # [END howto_operator_workflowsoft_create_task]

    is_anything_bad(bad) >> issue >> mark_as_reported(bad) >> [start, create]


example_workflowsoft_data_quality()
