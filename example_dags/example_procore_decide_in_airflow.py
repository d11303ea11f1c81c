"""
Decide in Airflow or in Procore about the purchase orders that wait for the connection's user (Workflows v2).

The DAG waits for such orders, looks up what people need to decide, and shows each order in Airflow's Required Actions
with the options of its step. Whoever responds first decides: a person in Airflow, whose choice is sent to Procore, or
an assignee in Procore. Each order gives a row that says what was decided, by whom and where. Needs Airflow 3.3.
"""

from __future__ import annotations

import json

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreApprovalOperator
from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # so that no other run shows the same orders meanwhile
    params={
        "amounts": Param({}, type="object", description="Amount of each order; query a warehouse instead"),
        "root": Param("file:///tmp/procore-decisions", type="string", description="Folder for the rows"),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_decide_in_airflow():
    waiting = ProcoreResponseRequestedSensor(
        task_id="wait_for_requests",
        tool_type="purchase_order_contract",
        timeout=50 * 60,  # then this run ends and the next one waits
        soft_fail=True,
        retries=2,
    )

    @task
    def look_up(requests: list[dict], params: dict) -> list[dict]:
        """Return the parameters of a task for each order, with what people need to decide."""
        return [
            {
                "instance_id": request["instance_id"],
                "project_id": request["project_id"],
                "step_occurrence_id": request["step_occurrence_id"],
                "fields": {"Amount": params["amounts"].get(request["item_id"], "unknown")},
            }
            for request in requests
        ]

    # [START howto_operator_procore_approval]
    decided = ProcoreApprovalOperator.partial(
        task_id="decide",
        wait_timeout=14 * 24 * 3600,
        retries=2,
    ).expand_kwargs(look_up(waiting.output))
    # [END howto_operator_procore_approval]

    @task
    def row_of(decision: dict) -> dict:
        """Say what was decided; a step that was terminated or overridden may have no decision."""
        return {
            "step_occurrence_id": decision["step_occurrence_id"],  # the key
            "item_id": decision["item_id"],
            "decided": decision["option"],
            "where": decision["responded_in"],
            "by": decision["responded_by"],
            "note": decision["note"],
        }

    @task(retries=2)
    def write_row(row: dict, params: dict) -> str:
        """Write a row, over the one of the same decision if there is one; a real DAG would MERGE into a table."""
        path = ObjectStoragePath(params["root"]) / f"{row['step_occurrence_id']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(row))
        return str(path)

    write_row.expand(row=row_of.expand(decision=decided.output))


example_procore_decide_in_airflow()
