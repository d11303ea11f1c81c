"""
Respond to requests for the connection's user in Procore (Workflows v2) with a function of your own.

The DAG waits until purchase orders wait for the user, and calls the function for each of them in a task of its own.
The function approves or returns; it waits, without a worker, while the warehouse has no price; it skips what a person
must decide. The task stores the decision before it sends anything, so that a retry sends the same response. If
nothing waits, the run ends and the next one polls again.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.decorators.procore import Respond, Skip, Wait, procore_response
from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor

TOOL = "purchase_order_contract"
HOUR = 3600


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # two runs at once would decide twice about the same orders
    params={
        "prices": Param(
            {"5001": 12_500, "5002": 99_000, "5003": 2_000_000},
            type="object",
            description="Prices by order; a real DAG would query the warehouse",
        )
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_taskflow_approval():
    waiting = ProcoreResponseRequestedSensor(
        task_id="wait_for_requests",
        tool_type=TOOL,
        timeout=50 * 60,  # then this run ends and the next one waits
        soft_fail=True,
    )

    # [START howto_decorator_procore_response]
    @procore_response(
        on_step_moved="skip",  # a person responded first: no failure here
        poke_interval=10 * 60,
        timeout=48 * HOUR,
        retries=2,
        max_active_tis_per_dag=4,  # Procore limits the calls in 10 seconds
    )
    def check_budget(instance: dict, limit: int, params: dict | None = None) -> Respond | Wait | Skip:
        price = (params or {})["prices"].get(instance["item_id"])
        if price is None:
            return Wait("the warehouse has no price yet")
        if price > 1_000_000:
            return Skip("the board decides about this amount")
        option = "Approve" if price <= limit else "Return"
        return Respond(option, comment=f"{price:,} of {limit:,}, checked by Airflow.")

    responses = check_budget.partial(limit=50_000).expand(instance=waiting.output)
    # [END howto_decorator_procore_response]

    @task(trigger_rule="none_failed")
    def sum_up(responses: list[dict]) -> dict[str, int]:
        """Count the responses by option; an order that was left to a person has none."""
        options = [response["option"] for response in responses or []]
        return {option: options.count(option) for option in sorted(set(options))}

    @task
    def list_orders(requests: list[dict]) -> list[str]:
        return sorted(request["item_id"] for request in requests)

    @task(trigger_rule="none_failed")
    def left_to_people(orders: list[str], responses: list[dict]) -> list[str]:
        """Return the orders that the function did not respond to."""
        done = {response["item_id"] for response in responses or []}
        return [order for order in orders or [] if order not in done]

    sum_up(responses)
    left_to_people(list_orders(waiting.output), responses)


example_procore_taskflow_approval()
