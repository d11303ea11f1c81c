"""
Let blocked workflow instances in Procore (Workflows v2) try their failed step again.

The DAG lists the blocked instances and refreshes each in a task of its own. An instance that Procore does not let try
again fails its task and does not stop the others. A report names those that are still blocked, and the run fails if
there are any: they need a person.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_workflows.operators.procore import ProcoreListInstancesOperator, ProcoreRefreshInstanceOperator


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_heal_blocked():
    # [START howto_operator_procore_list_blocked_instances]
    blocked = ProcoreListInstancesOperator(
        task_id="list_blocked",
        tool_type=["purchase_order_contract", "generic_tool_item"],
        active=True,
        states=["blocked"],
        limit=200,  # below [core] max_map_length
        retries=2,
    )
    # [END howto_operator_procore_list_blocked_instances]

    @task
    def name_instances(blocked: list[dict]) -> list[dict]:
        """Return the parameters of one task for each instance."""
        return [{name: row[name] for name in ("instance_id", "project_id", "tool_type")} for row in blocked]

    # [START howto_operator_procore_refresh_instance]
    refreshed = ProcoreRefreshInstanceOperator.partial(
        task_id="refresh", max_refreshes=2, confirm_timeout=30, retries=2
    ).expand_kwargs(name_instances(blocked.output))
    # [END howto_operator_procore_refresh_instance]

    # [START howto_report_after_failures]
    @task(trigger_rule="all_done")
    def report(blocked: list[dict], refreshed: list[dict]) -> list[dict]:
        """Name the instances that are still blocked; a failed task has no result."""
        healed = {result["instance_id"] for result in refreshed or []}
        left = [row for row in blocked or [] if row["instance_id"] not in healed]
        for row in left:
            print(f"Item {row['item_id']} of {row['tool_type']} is blocked at {row['step']}.")
        print(f"{len(healed)} of {len(healed) + len(left)} instances are no longer blocked.")
        return left

    # [END howto_report_after_failures]

    @task
    def call_for_help(left: list[dict]) -> None:
        """Fail the run; without this task it would succeed once the report is done."""
        if left:
            raise ValueError(f"Still blocked: item {', item '.join(row['item_id'] for row in left)}.")

    call_for_help(report(blocked.output, refreshed.output))


example_procore_heal_blocked()
