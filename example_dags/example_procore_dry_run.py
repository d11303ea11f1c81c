"""
Try a DAG on a production account of Procore (Workflows v2) without a single write.

The DAG decides about the purchase orders that wait for the connection's user, as the real one would. As long as its
parameter `dry_run` is true, the responses are not sent: the tasks read, decide and validate, and a report lists what
they would have sent. When you have compared enough reports with what people decided, set the parameter to false.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreListInstancesOperator, ProcoreRespondOperator
from airflow_provider_workflows.rules.procore import response_request

TOOL = "purchase_order_contract"


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "dry_run": Param(True, type="boolean", description="Whether to send nothing, and only report"),
        "over_budget": Param([], type="array", description="Orders to return; query a warehouse instead"),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_dry_run():
    waiting = ProcoreListInstancesOperator(
        task_id="list_requests", tool_type=TOOL, assignee="me", active=True, limit=100, retries=2
    )

    @task(retries=2)
    def check_budgets(rows: list[dict], params: dict) -> list[dict]:
        """Decide about each order that waits for the connection's user."""
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        hook = ProcoreHook()
        decisions = []
        for row in rows:
            instance = hook.get_instance(row["instance_id"], project_id=row["project_id"])
            request = response_request(instance, hook.user_id)
            if request is None:  # responded to, or moved on, since the list was read
                continue
            within = row["item_id"] not in params["over_budget"]
            decisions.append(
                {
                    "instance_id": row["instance_id"],
                    "project_id": row["project_id"],
                    "step_occurrence_id": request["step_occurrence_id"],
                    "option": "Approve" if within else "Return",
                    "comment": f"{'Within' if within else 'Over'} budget, checked by Airflow.",
                }
            )
        return decisions

    # [START howto_dry_run]
    responses = ProcoreRespondOperator.partial(
        task_id="respond",
        dry_run="{{ params.dry_run }}",
        on_step_moved="skip",
        retries=2,
    ).expand_kwargs(check_budgets(waiting.output))
    # [END howto_dry_run]

    # [START howto_branch_on_dry_run]
    @task.branch
    def branch_on_dry_run(responses: list[dict]) -> str:
        return "report_what_would_be_sent" if any(row.get("dry_run") for row in responses) else "report_what_was_sent"

    # [END howto_branch_on_dry_run]

    @task
    def report_what_would_be_sent(responses: list[dict]) -> list[dict]:
        """List each call that was not sent, for the comparison with what people decide."""
        for row in responses:
            for call in row["would_send"]:
                print(f"Order {row['item_id']}, step {row['step']}: would send {row['option']!r} to {call['path']}.")
        return [{"item_id": row["item_id"], "option": row["option"], "calls": row["would_send"]} for row in responses]

    @task
    def report_what_was_sent(responses: list[dict]) -> list[dict]:
        return [{name: row[name] for name in ("item_id", "option", "confirmed")} for row in responses]

    reports = [report_what_would_be_sent(responses.output), report_what_was_sent(responses.output)]
    branch_on_dry_run(responses.output) >> reports


example_procore_dry_run()
