"""
Send a purchase order through a legacy (v1) workflow in Procore.

The DAG submits the purchase order for approval, waits for the decision, and branches on it: "PO Approved", or "Start"
again, which is how this workflow denies.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore_legacy import (
    ProcoreLegacyListActivityHistoriesOperator,
    ProcoreLegacyPerformActivityOperator,
)
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor

INSTANCE = "{{ params.instance_id }}"


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"instance_id": Param("568150", type="string", description="Workflow instance of the purchase order")},
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_legacy_purchase_order_approval():
    # [START howto_operator_procore_legacy_perform_activity]
    submit = ProcoreLegacyPerformActivityOperator(
        task_id="submit_for_approval",
        instance_id=INSTANCE,
        activity="Submit for Approval",
        comments="Submitted by Airflow.",
        retries=2,
    )
    # [END howto_operator_procore_legacy_perform_activity]

    # [START howto_sensor_procore_legacy_instance]
    decision = ProcoreLegacyInstanceSensor(
        task_id="wait_for_the_decision",
        instance_id=INSTANCE,
        until={"PO Approved", "Start"},
        after=submit.output["history_id"],  # the state "Start" before this activity does not count
        timeout=30 * 24 * 3600,
    )
    # [END howto_sensor_procore_legacy_instance]

    # [START howto_operator_procore_legacy_list_activity_histories]
    histories = ProcoreLegacyListActivityHistoriesOperator(task_id="list_histories", instance_id=INSTANCE)
    # [END howto_operator_procore_legacy_list_activity_histories]

    @task.branch
    def branch_on_decision(instance: dict) -> str:
        return "order_the_goods" if instance["state"] == "PO Approved" else "rework"

    @task
    def order_the_goods(instance: dict, histories: list[dict]) -> None:
        print(f"Purchase order {instance['object_id']} was approved: {histories[0]['comments']}")

    @task
    def rework(instance: dict, histories: list[dict]) -> None:
        print(f"Purchase order {instance['object_id']} goes back to its author: {histories[0]['comments']}")

    decision >> histories
    branch_on_decision(decision.output) >> [
        order_the_goods(decision.output, histories.output),
        rework(decision.output, histories.output),
    ]


example_procore_legacy_purchase_order_approval()
