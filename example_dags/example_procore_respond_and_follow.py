"""
Respond every hour to the purchase orders that wait in Procore (Workflows v2), and follow each until it moves on.

A run takes the orders that wait for the connection's user, checks their budgets, responds to each, and waits for what
the people do next. That may take weeks, so the runs overlap. Each response gives one row, named by its step occurrence:
a run that handles the same order again writes the same row, and an order that comes back after a Return gets a row of
its own.
"""

from __future__ import annotations

import json

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task, task_group

from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor

OWN_STEP = "Budget Check"  # the step that waits for the connection's user
NEXT_STEP = "Director Approval"  # the step that an approval leads to
DAYS = 14  # for which an order is followed


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=24 * DAYS,  # Airflow's default of 16 would stop new runs while 16 of them follow an order
    params={
        "over_budget": Param([], type="array", description="Orders to return; query a warehouse instead"),
        "root": Param("file:///tmp/procore-responses", type="string", description="Folder for the rows"),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_respond_and_follow():
    waiting = ProcoreResponseRequestedSensor(
        task_id="wait_for_requests",
        tool_type="purchase_order_contract",
        timeout=50 * 60,  # then this run ends and the next one waits
        soft_fail=True,
        retries=2,
    )

    @task
    def check_budgets(requests: list[dict], params: dict) -> list[dict]:
        """Return a response for each order, and what to wait for after it."""
        decisions = []
        for request in requests:
            within = request["item_id"] not in params["over_budget"]
            decisions.append(
                {
                    "instance_id": request["instance_id"],
                    "project_id": request["project_id"],
                    "step_occurrence_id": request["step_occurrence_id"],
                    "option": "Approve" if within else "Return",
                    # After an approval the director decides. After a Return the author corrects the order, and it
                    # comes back to this step: the end of the instance would be the end of another run's response.
                    "step_decided": NEXT_STEP if within else None,
                    "step_reached": None if within else OWN_STEP,
                }
            )
        return decisions

    # [START howto_respond_and_follow]
    @task_group(prefix_group_id=False)
    def respond_and_follow(instance_id, project_id, step_occurrence_id, option, step_decided, step_reached):
        """Handle one order; Airflow creates such a group for each."""
        response = ProcoreRespondOperator(
            task_id="respond",
            instance_id=instance_id,
            project_id=project_id,
            step_occurrence_id=step_occurrence_id,
            option=option,
            on_step_moved="skip",  # a person responded first
            retries=2,
            max_active_tis_per_dag=4,  # of all runs: Procore limits the calls in 10 seconds
        )
        followed = ProcoreInstanceSensor(
            task_id="follow",
            instance_id=instance_id,
            project_id=project_id,
            step_decided=step_decided,
            step_reached=step_reached,
            after=step_occurrence_id,  # what happened at these steps before the response does not count
            until={"complete", "terminated"},  # and the end, should the order never come to that step
            timeout=DAYS * 24 * 3600,
            retries=2,
        )
        response >> followed
        write_row(response.output, followed.output)

    # [END howto_respond_and_follow]

    @task(retries=2)
    def write_row(response: dict, followed: dict, params: dict) -> str:
        """Write a row, over the one of the same response if there is one; a real DAG would MERGE into a table."""
        occurrence = followed["occurrence"] or {}
        decision = occurrence.get("decision") or {}
        row = {
            "step_occurrence_id": response["step_occurrence_id"],  # the key
            "item_id": response["item_id"],
            "option": response["option"],
            "next_step": occurrence.get("step"),
            "decided": decision.get("option"),
            "item_status": followed["item_status"],
        }
        path = ObjectStoragePath(params["root"]) / f"{row['step_occurrence_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))
        return str(path)

    respond_and_follow.expand_kwargs(check_budgets(waiting.output))


example_procore_respond_and_follow()
