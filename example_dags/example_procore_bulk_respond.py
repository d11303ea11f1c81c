"""
Respond to hundreds of Procore purchase orders at once (Workflows v2), after a person has approved exactly that plan.

The DAG waits until orders need the response of the connection's user, and compares them with the ERP. It plans all
responses without sending any, shows the plan in Airflow's Required Actions, and after an approval sends what the plan
says: each response once, within caps on their number and on the total amount. Needs Airflow 3.1 for the approval.
"""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreBulkRespondOperator
from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor

# Nothing is sent if the plan exceeds one of them.
CAPS = {"max_responses": 1000, "max_total": {"amount": 250_000}}


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # so that no other run plans the same orders meanwhile
    params={
        "amounts": Param(
            {"5001": "9800.50"},
            type="object",
            description="Amount of each order that matches the ERP, by item; a real DAG would query the ERP",
        ),
        "csv_path": Param("file:///tmp/procore-plans", type="string", description="Folder for the plans"),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_bulk_respond():
    waiting = ProcoreResponseRequestedSensor(
        task_id="wait_for_requests",
        tool_type="purchase_order_contract",
        timeout=12 * 3600,  # then this run ends and the next one waits
        soft_fail=True,
        retries=2,
    )

    @task
    def compare_with_erp(requests: list[dict], params: dict) -> list[dict]:
        """Return a row for each order that matches the ERP; the others wait for a person."""
        amounts = params["amounts"]
        return [
            {**request, "response": "Approve", "comment": "Matches the ERP.", "amount": amounts[request["item_id"]]}
            for request in requests
            if request["item_id"] in amounts
        ]

    @task.short_circuit
    def anything_to_send(rows: list[dict]) -> bool:
        return bool(rows)

    # [START howto_operator_procore_bulk_respond]
    rows = compare_with_erp(waiting.output)

    plan = ProcoreBulkRespondOperator(
        task_id="plan",
        responses=rows,
        csv_path="{{ params.csv_path }}/{{ ds }}.csv",
        retries=2,
        **CAPS,
    )

    @task
    def describe(plan: dict) -> str:
        """Return the text that people read in Airflow, as Markdown."""
        lines = [
            f"| {row['item_id']} | {row['step']} | {row['option']} | {row['columns']['amount']} |"
            for row in plan["rows"]
            if row["action"] == "send"
        ]
        head = f"{plan['to_send']} responses, {plan['totals']['amount']} in total. All rows: `{plan['csv_path']}`"
        return "\n".join([head, "", "| order | step | response | amount |", "|---|---|---|---|", *lines[:50]])

    approve = ApprovalOperator(
        task_id="approve",
        subject="Send the plan {{ ti.xcom_pull(task_ids='plan')['plan_hash'][:12] }} to Procore?",
        body=describe(plan.output),
    )

    apply = ProcoreBulkRespondOperator(task_id="apply", mode="apply", plan=plan.output, retries=2, **CAPS)
    # [END howto_operator_procore_bulk_respond]

    @task(trigger_rule="none_failed")
    def report(applied: dict | None) -> dict[str, int]:
        """Count what was sent and what moved on meanwhile; nothing after a rejection."""
        return {name: applied[name] for name in ("sent", "already_recorded", "skipped")} if applied else {"sent": 0}

    anything_to_send(rows) >> plan
    approve >> apply
    report(apply.output)


example_procore_bulk_respond()
