"""
Act on the outcome of workflows in Procore (Workflows v2) when they end, without a task that waits for each.

An asset watches the purchase orders and is updated when a workflow ends, is terminated, or is gone. The run orders the
goods of the approved orders and notifies the buyers of the others. An event that is delivered twice has the same id, so
the warehouse can reject an order that it already has.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task

from airflow_provider_workflows.assets.events import events_of
from airflow_provider_workflows.assets.procore import procore_asset
from airflow_provider_workflows.exceptions import OutcomeUnclear
from airflow_provider_workflows.operators.procore import outcome_names

# [START howto_asset_procore_instance_changed]
orders_that_ended = procore_asset(
    "procore_orders_that_ended",
    event="instance_changed",
    tool_type="purchase_order_contract",
    changes=["ended", "gone"],
)
# [END howto_asset_procore_instance_changed]


def is_approved(event: dict) -> bool:
    """Return whether an order was approved; a person looks at one whose record contradicts itself."""
    try:
        return event["change"] == "ended" and "Approved" in outcome_names(event)
    except OutcomeUnclear:
        return False


@dag(
    schedule=[orders_that_ended],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_event_driven_outcome():
    @task
    def read_events(triggering_asset_events=None) -> list[dict]:
        return events_of(triggering_asset_events)

    @task
    def choose_approved(events: list[dict]) -> list[dict]:
        return [event for event in events if is_approved(event)]

    @task
    def choose_others(events: list[dict]) -> list[dict]:
        return [event for event in events if not is_approved(event)]

    @task(retries=2)
    def order_the_goods(event: dict) -> str:
        """Order with the event's id as the key; a real DAG would call the warehouse."""
        print(f"Order {event['event_id']}: purchase order {event['item_id']}, approved at {event['ended_at']}.")
        return event["item_id"]

    @task(retries=2)
    def notify_the_buyer(event: dict) -> str:
        how = "is gone" if event["change"] == "gone" else f"is {event['state']}: {event['item_status']}"
        print(f"Purchase order {event['item_id']} {how}.")
        return event["item_id"]

    events = read_events()
    order_the_goods.expand(event=choose_approved(events))
    notify_the_buyer.expand(event=choose_others(events))


example_procore_event_driven_outcome()
