"""
Keep the assignees of workflow presets in Procore (Workflows v2) in step with HR, when a person agrees.

The DAG reads who should be in which role group, plans what has to change, and hands the plan in at a workflow of
its own: an item of a generic tool whose reviewers approve or reject it in Procore. Only what was approved is
applied; who edited a preset in the meantime is not overwritten. Nothing to change: nobody is bothered.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import (
    ProcorePresetAssigneesOperator,
    ProcoreRespondOperator,
    ProcoreStartInstanceOperator,
)
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor

TOOL = "purchase_order_contract"


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "directors": Param(["dana@example.com", "lee@example.com"], type="array", description="Logins, as HR has them"),
        "review_item": Param(
            "7001", type="string", description="Item of the generic tool that the plan is handed in at"
        ),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_hr_sync():
    @task
    def read_hr(params: dict) -> list[dict]:
        """Say who should be in which group; a real DAG would ask the HR system or the warehouse here."""
        return [
            {
                "template": "Purchase Order Approval",
                "project_id": ["1001", "1002"],
                "groups": {"Directors": params["directors"]},
            }
        ]

    assignments = read_hr()

    # [START howto_operator_procore_preset_assignees_plan]
    plan = ProcorePresetAssigneesOperator(
        task_id="plan", tool_type=TOOL, assignments=assignments, members="replace", retries=2
    )
    # [END howto_operator_procore_preset_assignees_plan]

    @task.short_circuit
    def anything_to_change(plan: dict) -> bool:
        if plan["rejected"]:
            raise ValueError("Something of the plan is refused; the log of the task plan says what and why.")
        return plan["changed"] > 0

    @task
    def describe(plan: dict) -> str:
        changes = [
            f"preset {preset['preset_id']}, {group['group']}: "
            f"add {', '.join(group['added']) or 'nobody'}, remove {', '.join(group['removed']) or 'nobody'}"
            for preset in plan["presets"]
            for group in preset["groups"]
            if group["added"] or group["removed"]
        ]
        return "; ".join(changes)

    # [START howto_operator_procore_start_instance]
    review = ProcoreStartInstanceOperator(
        task_id="ask_the_reviewers",
        tool_type="generic_tool_item",
        item_id="{{ params.review_item }}",
        on_active_instance="fail",  # what its reviewers approve or reject is an earlier plan
        retries=2,
    )
    # [END howto_operator_procore_start_instance]

    description = describe(plan.output)
    hand_in = ProcoreRespondOperator(
        task_id="hand_in_the_plan",
        instance_id=review.output["instance_id"],
        step_occurrence_id=review.output["step_occurrence_id"],
        option="Approve",
        comment=description,
        retries=2,
    )

    outcome = ProcoreInstanceSensor(
        task_id="wait_for_the_reviewers",
        instance_id=review.output["instance_id"],
        timeout=14 * 24 * 3600,
    )

    @task.short_circuit
    def is_approved(outcome: dict) -> bool:
        return outcome["item_status"] == "Approved"

    # [START howto_operator_procore_preset_assignees_apply]
    apply = ProcorePresetAssigneesOperator(
        task_id="apply",
        tool_type=TOOL,
        assignments=assignments,
        members="replace",
        mode="apply",
        approved_plan=plan.output,
        retries=2,
    )
    # [END howto_operator_procore_preset_assignees_apply]

    @task
    def report(applied: dict) -> None:
        print(f"{applied['changed']} presets were changed, {applied['unchanged']} were right already.")

    worth_asking = anything_to_change(plan.output)
    worth_asking >> [description, review]
    hand_in >> outcome
    is_approved(outcome.output) >> apply
    report(apply.output)


example_procore_hr_sync()
