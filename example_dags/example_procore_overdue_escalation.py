"""
Wait for a purchase order in Procore (Workflows v2), and escalate each step that is pending for too long.

A reminder is sent after a day, and three more times, once a day. After three days the deputy of the pending assignee
is added to the step. After ten days the wait fails.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.sensors.procore import Level, ProcoreInstanceSensor


def remind(context: dict) -> None:
    """Remind the pending assignees; put your own notifier in its place."""
    step = context["overdue_step"]
    people = ", ".join(step["assignees"])
    print(f"Level {step['level']}: {step['step']} of {step['item_id']} is {step['reason']}. Pending with {people}.")


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "item_id": Param("5001", type="string", description="The purchase order"),
        "deputies": Param(
            {"dana@example.com": "pat@example.com"}, type="object", description="The deputy of each person, by login"
        ),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_overdue_escalation():
    # [START howto_sensor_procore_instance_ladder]
    outcome = ProcoreInstanceSensor(
        task_id="wait_for_the_outcome",
        tool_type="purchase_order_contract",
        item_id="{{ params.item_id }}",
        timeout=30 * 24 * 3600,
        retries=2,
        on_overdue=[
            Level(after=24, notify=remind, repeat_every=24, max_repeats=3),
            Level(
                after=72,
                add_assignees="{{ params.deputies[overdue_step.assignees[0]] }}",
                comment="{{ overdue_step.step }} is {{ overdue_step.reason }}.",
                notify=remind,
            ),
            Level(after=240, then="fail"),
        ],
    )
    # [END howto_sensor_procore_instance_ladder]

    @task
    def report(outcome: dict) -> dict:
        """Report the decision, and how far it had to be escalated."""
        return {
            "item_status": outcome["item_status"],
            "escalation_level": outcome["escalation_level"],
            "escalation_problem": outcome["escalation_problem"],
        }

    report(outcome.output)


example_procore_overdue_escalation()
