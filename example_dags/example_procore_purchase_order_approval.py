"""
Approve purchase orders that wait for the connection's user in Procore (Workflows v2).

A step of the workflow has the connection's user as its assignee. When a purchase order reaches it, the DAG checks the
budget, responds, waits for the people who decide after it, and branches on the outcome.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_workflows.operators.procore import ProcoreRespondOperator, outcome_names
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor

TOOL = "purchase_order_contract"


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_purchase_order_approval():
    # [START howto_sensor_procore_response_requested]
    waiting = ProcoreResponseRequestedSensor(task_id="wait_for_requests", tool_type=TOOL, timeout=7 * 24 * 3600)
    # [END howto_sensor_procore_response_requested]

    @task
    def check_budget(requests: list[dict]) -> dict:
        """Decide about the order that has waited longest; a real DAG would query the warehouse here."""
        oldest = min(requests, key=lambda request: request["step_started_at"])
        print(f"Purchase order {oldest['item_id']} is within its budget.")
        return {
            "instance_id": oldest["instance_id"],
            "step_occurrence_id": oldest["step_occurrence_id"],
            "option": "Approve",
            "comment": "Within budget, checked by Airflow.",
        }

    decision = check_budget(waiting.output)

    # [START howto_operator_procore_respond]
    response = ProcoreRespondOperator(
        task_id="respond",
        instance_id=decision["instance_id"],
        step_occurrence_id=decision["step_occurrence_id"],
        option=decision["option"],
        comment=decision["comment"],
        retries=2,
    )
    # [END howto_operator_procore_respond]

    # [START howto_sensor_procore_instance]
    outcome = ProcoreInstanceSensor(
        task_id="wait_for_the_outcome",
        instance_id=decision["instance_id"],
        until={"complete", "terminated"},
        timeout=30 * 24 * 3600,
    )
    # [END howto_sensor_procore_instance]

    @task.branch
    def branch_on_outcome(instance: dict) -> str:
        return "order_the_goods" if "Approved" in outcome_names(instance) else "notify_the_buyer"

    @task
    def order_the_goods(instance: dict) -> None:
        print(f"Purchase order {instance['item_id']} was approved at {instance['ended_at']}.")

    @task
    def notify_the_buyer(instance: dict) -> None:
        print(f"Purchase order {instance['item_id']} is {instance['state']}: {instance['item_status']}.")

    response >> outcome
    branch_on_outcome(outcome.output) >> [order_the_goods(outcome.output), notify_the_buyer(outcome.output)]


example_procore_purchase_order_approval()
