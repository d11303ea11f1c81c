"""
Answer everything that waits for the integration's user in Procore (Workflows v2), many at a time.

The DAG lists the purchase orders that stand at a step of ours, checks their budgets in batches, answers each in a
task of its own, and sums up. An answer that fails stops none of the others. When nothing waits, the answers are
skipped and the run succeeds.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreListInstancesOperator, ProcoreRespondOperator
from airflow_provider_workflows.rules.procore import response_request

TOOL = "purchase_order_contract"
BATCH = 50  # orders that one task checks
MOST = 500  # answers in one run, below [core] max_map_length (1024); the next run takes the rest


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # two runs at once would decide twice about the same orders
    params={"over_budget": Param([], type="array", description="Orders to return; a real DAG would ask the warehouse")},
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_fan_out():
    # [START howto_operator_procore_list_instances]
    waiting = ProcoreListInstancesOperator(
        task_id="list_what_waits_for_us",
        tool_type=TOOL,
        assignee_id="me",
        active=True,
        limit=MOST,
        batch_size=BATCH,
        retries=2,
    )
    # [END howto_operator_procore_list_instances]

    # [START howto_check_budgets_in_batches]
    @task(retries=2)
    def check_budgets(batch: list[dict], params: dict) -> list[dict]:
        """Decide about a batch of orders; the list does not say at which step they stand, so each is read."""
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        hook = ProcoreHook()
        decisions = []
        for row in batch:
            instance = hook.get_instance(row["instance_id"], project_id=row["project_id"])
            request = response_request(instance, hook.user_id)
            if request is None:  # answered, or moved on, since the list was made
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
    answers = ProcoreRespondOperator.partial(
        task_id="answer",
        on_step_moved="skip",  # somebody was faster: no failure here
        retries=2,
        max_active_tis_per_dag=4,  # Procore limits the calls in 10 seconds
    ).expand_kwargs(collect(check_budgets.expand(batch=waiting.output)))
    # [END howto_operator_procore_respond_mapped]

    @task(trigger_rule="none_failed")
    def sum_up(answers: list[dict]) -> dict[str, int]:
        """Count the answers by option; none, if nothing waited."""
        options = [answer["option"] for answer in answers or []]
        return {option: options.count(option) for option in sorted(set(options))}

    sum_up(answers.output)


example_procore_fan_out()
