"""
Add a deputy where a step in Procore (Workflows v2) is overdue.

The DAG lists the purchase orders whose step is overdue, finds the pending assignees, adds the deputy of each to the
step, and reports what was done and which steps have no deputy. A deputy who is an assignee already is not added
again, so the DAG can run as often as you like.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreAddAssigneesOperator, ProcoreListInstancesOperator
from airflow_provider_workflows.rules.procore import current_step, pending_assignees


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "deputies": Param(
            {"dana@example.com": "pat@example.com"}, type="object", description="The deputy of each person, by login"
        )
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_overdue_deputies():
    # [START howto_operator_procore_list_overdue_instances]
    overdue = ProcoreListInstancesOperator(
        task_id="list_overdue",
        tool_type="purchase_order_contract",
        active=True,
        overdue=True,
        limit=200,  # below [core] max_map_length; the oldest come first
        retries=2,
    )
    # [END howto_operator_procore_list_overdue_instances]

    @task(retries=2)
    def find_pending_assignees(instances: list[dict]) -> list[dict]:
        """Find the pending assignees of each overdue step; the list does not contain them."""
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        hook = ProcoreHook()
        overdue_steps = []
        for row in instances:
            step = current_step(hook.get_instance(row["instance_id"], project_id=row["project_id"]))
            if step is not None:  # it has not ended since the list was read
                logins = [assignee["login"] for assignee in pending_assignees(step)]
                overdue_steps.append({**row, "step": step["name"], "step_occurrence_id": step["id"], "pending": logins})
        return overdue_steps

    @task
    def choose_deputies(steps: list[dict], params: dict) -> list[dict]:
        """Return the parameters of one task for each step that has a deputy."""
        deputies = params["deputies"]
        return [
            {
                "instance_id": row["instance_id"],
                "project_id": row["project_id"],
                "step_occurrence_id": row["step_occurrence_id"],
                "assignees": [deputies[login] for login in row["pending"] if login in deputies],
                "comment": f"{row['step']} is overdue with {', '.join(row['pending'])}.",
            }
            for row in steps
            if any(login in deputies for login in row["pending"])
        ]

    steps = find_pending_assignees(overdue.output)

    # [START howto_operator_procore_add_assignees]
    added = ProcoreAddAssigneesOperator.partial(
        task_id="add_deputies",
        tool_type="purchase_order_contract",
        reason="original_assignee_on_extended_leave",
        required=False,  # either of the two may respond
        on_step_moved="skip",  # a response came in the meantime
        retries=2,
    ).expand_kwargs(choose_deputies(steps))
    # [END howto_operator_procore_add_assignees]

    @task(trigger_rule="none_failed")
    def report(steps: list[dict], added: list[dict]) -> dict[str, list[str]]:
        """Report which orders have a deputy now, which had one before, and which have none."""
        with_deputy = {result["instance_id"]: result for result in added or [] if result}
        return {
            "escalated": [row["item_id"] for row in steps if with_deputy.get(row["instance_id"], {}).get("added")],
            "escalated_before": [
                row["item_id"] for row in steps if with_deputy.get(row["instance_id"], {}).get("already_assigned")
            ],
            "without_deputy": [row["item_id"] for row in steps if row["instance_id"] not in with_deputy],
        }

    report(steps, added.output)


example_procore_overdue_deputies()
