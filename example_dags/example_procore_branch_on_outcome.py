"""
Wait for what people decide about a purchase order in Procore (Workflows v2), and branch on it.

The DAG waits for the end of the order's newest workflow. Then it runs the tasks that belong to the outcome: the
decision of the last step, the status of the item, or the termination of the workflow. On Airflow 3.3 and newer,
errors that a retry cannot fix are not retried.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag, task, task_group

from airflow_provider_workflows.operators.procore import ProcoreBranchOnOutcomeOperator
from airflow_provider_workflows.retries import WorkflowsRetryPolicy
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor

TOOL = "purchase_order_contract"

# [START howto_retry_policy]
RETRIES = {"retries": 3, "retry_delay": timedelta(minutes=5)}
try:
    RETRIES["retry_policy"] = WorkflowsRetryPolicy()
except RuntimeError:  # before Airflow 3.3
    pass
# [END howto_retry_policy]


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    default_args=RETRIES,
    params={"item_id": Param("5001", type="string", description="The purchase order")},
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_branch_on_outcome():
    outcome = ProcoreInstanceSensor(
        task_id="wait_for_the_outcome", tool_type=TOOL, item_id="{{ params.item_id }}", timeout=30 * 24 * 3600
    )

    # [START howto_operator_procore_branch_on_outcome]
    branch = ProcoreBranchOnOutcomeOperator(
        task_id="branch",
        outcome=outcome.output,
        branches={
            "Approve": "buy",  # a task group
            "Reject": "notify_the_buyer",
            "terminated": ["notify_the_buyer", "notify_the_director"],
        },
    )
    # [END howto_operator_procore_branch_on_outcome]

    @task_group
    def buy(instance):
        @task
        def order_the_goods(instance: dict) -> str:
            return f"Purchase order {instance['item_id']} was approved at {instance['ended_at']}."

        @task
        def book_the_cost(order: str) -> None:
            print(order)

        book_the_cost(order_the_goods(instance))

    @task
    def notify_the_buyer(instance: dict) -> None:
        print(f"Purchase order {instance['item_id']} is {instance['state']}: {instance['item_status']}.")

    @task
    def notify_the_director(instance: dict) -> None:
        print(f"The workflow of purchase order {instance['item_id']} was terminated.")

    branch >> [buy(outcome.output), notify_the_buyer(outcome.output), notify_the_director(outcome.output)]


example_procore_branch_on_outcome()
