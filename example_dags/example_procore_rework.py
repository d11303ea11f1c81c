"""
Resubmit a purchase order in Procore (Workflows v2) until the director does not return it any more (Airflow 3.4+).

Each round of the loop waits until the order is at the step of the connection's user, corrects it, responds, and waits
for the director's decision. A Return starts another round, every other decision ends the loop. All rounds are in one
DAG run, so it says how often the order was returned, and why.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task, task_group

from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor

try:
    from airflow.sdk import LoopDecision
except ImportError:  # before Airflow 3.4, which has no loops of task groups: this file then has no DAG
    LoopDecision = None

OWN_STEP = "Budget Check"  # the step that waits for the connection's user
NEXT_STEP = "Director Approval"  # the step that decides
ORDER = {"tool_type": "purchase_order_contract", "item_id": "{{ params.item_id }}"}


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    params={"item_id": Param("5001", type="string", description="The purchase order")},
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_rework():
    # [START howto_rework_loop]
    @task_group
    def rework():
        """Submit the order once; Airflow repeats this group."""

        @task
        def last_decision(*, loop) -> str | None:
            """Return the occurrence of the director's step that the last round ended with."""
            return None if loop.index == 0 else loop.previous["occurrence"]["step_occurrence_id"]

        after = last_decision()
        turn = ProcoreInstanceSensor(task_id="wait_for_turn", **ORDER, step_reached=OWN_STEP, after=after)

        @task(multiple_outputs=True)
        def correct(occurrence: dict, *, loop) -> dict:
            """Correct the order in the ERP, and say what was corrected."""
            reason = "first submission" if loop.index == 0 else f"corrected, round {loop.index + 1}"
            return {"step_occurrence_id": occurrence["step_occurrence_id"], "comment": reason}

        corrected = correct(turn.output["occurrence"])
        resubmit = ProcoreRespondOperator(
            task_id="resubmit",
            **ORDER,
            step_occurrence_id=corrected["step_occurrence_id"],
            option="Approve",
            comment=corrected["comment"],
            retries=2,
        )
        decided = ProcoreInstanceSensor(
            task_id="wait_for_decision",
            **ORDER,
            step_decided=NEXT_STEP,
            after=corrected["step_occurrence_id"],
            retries=2,
        )
        resubmit >> decided

    def is_decided(*, loop) -> LoopDecision:
        """End the loop unless the director has returned the order."""
        decision = loop.result["decision"]
        return LoopDecision(stop=decision["option"] != "Return", reason=f"{decision['option']} by {decision['by']}")

    rounds = rework.loop(max_iterations=5, until=is_decided)
    # [END howto_rework_loop]

    @task
    def report(ti=None) -> str:
        """Say what the director decided in the end."""
        return ti.xcom_pull(task_ids="rework.wait_for_decision")[-1]["decision"]["option"]

    rounds >> report()


if LoopDecision is not None:
    example_procore_rework()
