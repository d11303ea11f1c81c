"""
Keep the assignees of workflow presets in Procore (Workflows v2) in step with HR, after people have approved the change.

The DAG reads who should be in which role group, plans the changes, and submits the plan to a workflow of its own: an
item of a generic tool whose reviewers approve or reject it in Procore. Only the approved plan is applied, and a
preset that was edited in the meantime is not overwritten. If nothing has to change, no review starts.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import (
    ProcorePresetAssigneesOperator,
    ProcoreRespondOperator,
    ProcoreStartInstanceOperator,
    outcome_names,
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
            "7001", type="string", description="Item of the generic tool whose workflow reviews the plan"
        ),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_hr_sync():
    @task
    def read_hr(params: dict) -> list[dict]:
        """Return who should be in which group; a real DAG would query the HR system here."""
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
            raise ValueError("A part of the plan is rejected; the log of the task plan says which one and why.")
        return plan["changed"] > 0

    @task
    def describe(plan: dict) -> str:
        changes = [
            f"preset {preset['preset_id']}, {group['group']}: "
            f"add {', '.join(group['added']) or 'no one'}, remove {', '.join(group['removed']) or 'no one'}"
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
        on_active_instance="fail",  # its reviewers would approve or reject an earlier plan
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
        return "Approved" in outcome_names(outcome)

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
        print(f"{applied['changed']} presets were changed, {applied['unchanged']} were already correct.")

    worth_asking = anything_to_change(plan.output)
    worth_asking >> [description, review]
    hand_in >> outcome
    is_approved(outcome.output) >> apply
    report(apply.output)


example_procore_hr_sync()
