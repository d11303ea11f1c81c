"""
Respond to requests for the connection's user in Procore (Workflows v2) as soon as they appear, without a schedule.

An asset watches the purchase orders. When some of them start to wait for a response, Airflow starts a run with these
orders: it checks their budgets and responds to each in a task of its own, at the step occurrence of the request. An
event that is delivered twice finds the response on record, and nothing is sent twice.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.assets.events import events_of
from airflow_provider_workflows.assets.procore import procore_asset
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator

# [START howto_asset_procore_response_requested]
orders_that_wait = procore_asset(
    "procore_orders_that_wait", event="response_requested", tool_type="purchase_order_contract"
)
# [END howto_asset_procore_response_requested]


@dag(
    schedule=[orders_that_wait],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"over_budget": Param([], type="array", description="Orders to return; query a warehouse instead")},
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_event_driven_approval():
    # [START howto_triggering_asset_events]
    @task
    def read_events(triggering_asset_events=None) -> list[dict]:
        """Return the events that started this run: all since the last run, each once."""
        return events_of(triggering_asset_events)

    # [END howto_triggering_asset_events]

    @task
    def check_budgets(requests: list[dict], params: dict) -> list[dict]:
        decisions = []
        for request in requests:
            within = request["item_id"] not in params["over_budget"]
            decisions.append(
                {
                    "instance_id": request["instance_id"],
                    "project_id": request["project_id"],
                    "step_occurrence_id": request["step_occurrence_id"],
                    "option": "Approve" if within else "Return",
                    "comment": f"{'Within' if within else 'Over'} budget, checked by Airflow.",
                }
            )
        return decisions

    requests = read_events()
    decisions = check_budgets(requests)

    responses = ProcoreRespondOperator.partial(
        task_id="respond",
        on_step_moved="skip",  # a person responded first: no failure here
        retries=2,
        max_active_tis_per_dag=4,  # Procore limits the calls in 10 seconds
    ).expand_kwargs(decisions)

    @task(trigger_rule="none_failed")
    def notify_the_buyers(requests: list[dict], decisions: list[dict]) -> list[str]:
        """Return the returned orders; a real DAG would write to their buyers."""
        returned = {decision["instance_id"] for decision in decisions if decision["option"] == "Return"}
        return [request["item_id"] for request in requests if request["instance_id"] in returned]

    @task(trigger_rule="none_failed")
    def sum_up(responses: list[dict]) -> dict[str, int]:
        """Count the responses by option."""
        options = [response["option"] for response in responses or []]
        return {option: options.count(option) for option in sorted(set(options))}

    sum_up(responses.output)
    responses >> notify_the_buyers(requests, decisions)


example_procore_event_driven_approval()
