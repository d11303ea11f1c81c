"""
Respond to all requests for the connection's user in Procore (Workflows v2), many at a time.

The DAG lists the purchase orders that wait for the user, checks their budgets in batches, responds to each in a task of
its own, and sums up. A response that fails does not stop the others. When nothing waits, the responses are skipped and
the run succeeds.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreListInstancesOperator, ProcoreRespondOperator
from airflow_provider_workflows.rules.procore import response_request

TOOL = "purchase_order_contract"
BATCH_SIZE = 50  # orders that one task checks
MAX_RESPONSES = 500  # in one run, below [core] max_map_length (1024); the next run takes the rest


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # two runs at once would decide twice about the same orders
    params={"over_budget": Param([], type="array", description="Orders to return; query a warehouse instead")},
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_fan_out():
    # [START howto_operator_procore_list_instances]
    waiting = ProcoreListInstancesOperator(
        task_id="list_requests",
        tool_type=TOOL,
        assignee="me",
        active=True,
        limit=MAX_RESPONSES,
        batch_size=BATCH_SIZE,
        retries=2,
    )
    # [END howto_operator_procore_list_instances]

    # [START howto_check_budgets_in_batches]
    @task(retries=2)
    def check_budgets(batch: list[dict], params: dict) -> list[dict]:
        """Decide about a batch of orders; the list does not contain their steps, so each is read."""
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        hook = ProcoreHook()
        decisions = []
        for row in batch:
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

    # [END howto_check_budgets_in_batches]

    @task
    def collect(batches: list[list[dict]]) -> list[dict]:
        return [decision for batch in batches for decision in batch]

    # [START howto_operator_procore_respond_mapped]
    responses = ProcoreRespondOperator.partial(
        task_id="respond",
        on_step_moved="skip",  # a person responded first: no failure here
        retries=2,
        max_active_tis_per_dag=4,  # Procore limits the calls in 10 seconds
    ).expand_kwargs(collect(check_budgets.expand(batch=waiting.output)))
    # [END howto_operator_procore_respond_mapped]

    @task(trigger_rule="none_failed")
    def sum_up(responses: list[dict]) -> dict[str, int]:
        """Count the responses by option; none if nothing waited."""
        options = [response["option"] for response in responses or []]
        return {option: options.count(option) for option in sorted(set(options))}

    sum_up(responses.output)


example_procore_fan_out()
