"""
Wait for the approval of a purchase order, whichever of Procore's tools runs it.

Procore moves companies from the Legacy tool to the new Workflows tool. The sensor waits in Legacy now, and in the new
tool after the switch. If the workflow is not started again there within a week, the buyer is notified.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreBranchOnOutcomeOperator
from airflow_provider_workflows.sensors.procore import ProcoreItemSensor

TOOL = "purchase_order_contract"
STUCK_AFTER = timedelta(days=7)


def report_stuck_item(context):
    print(f"To the buyer: {context['stuck_item']['reason']}")


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"item_id": Param("1953145", type="string", description="The purchase order")},
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_item_approval():
    # [START howto_sensor_procore_item]
    approval = ProcoreItemSensor(
        task_id="wait_for_the_approval",
        tool_type=TOOL,
        item_id="{{ params.item_id }}",
        legacy_until={"PO Approved"},  # after a denial the order is in "Start" again, so the wait continues
        on_stuck=report_stuck_item,  # or "fail", the default, or "skip"
        stuck_after=STUCK_AFTER,
        timeout=90 * 24 * 3600,
    )
    # [END howto_sensor_procore_item]

    branch = ProcoreBranchOnOutcomeOperator(
        task_id="branch",
        outcome=approval.output,
        branches={"Approve": "order_the_goods", "Reject": "notify_the_buyer", "terminated": "notify_the_buyer"},
    )

    @task
    def record(approval: dict) -> str:
        legacy = approval["legacy"]
        seen = "" if legacy is None else f" Last seen in Legacy in state {legacy['state']}, left: {legacy['left']}."
        return f"{approval['engine']} decided: {approval['item_status']}.{seen}"

    @task
    def order_the_goods(approval: dict) -> str:
        return f"Purchase order {approval['item_id']} was approved at {approval['ended_at']}."

    @task
    def notify_the_buyer(approval: dict) -> str:
        return f"Purchase order {approval['item_id']} is {approval['state']}: {approval['item_status']}."

    record(approval.output)
    branch >> [order_the_goods(approval.output), notify_the_buyer(approval.output)]


example_procore_item_approval()
