"""
Have purchase orders approved in Airflow first, and then respond to them in Procore (Workflows v2).

The DAG waits for the orders that wait for the connection's user, and asks in Airflow about all of them at once, with
Airflow's own ApprovalOperator. After an approval it responds to each order that still waits. After a rejection it sends
nothing, and the orders wait on in Procore. Needs Airflow 3.1; from 3.3 on, ProcoreApprovalOperator does more.
"""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import dag, task

from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # so that no other run asks about the same orders meanwhile
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_approve_in_airflow_first():
    waiting = ProcoreResponseRequestedSensor(
        task_id="wait_for_requests",
        tool_type="purchase_order_contract",
        timeout=12 * 3600,  # then this run ends and the next one waits
        soft_fail=True,
        retries=2,
    )

    @task
    def describe(requests: list[dict]) -> str:
        """Return the text that people read in Airflow, as Markdown."""
        return "\n".join(f"- order `{request['item_id']}`, since {request['step_started_at']}" for request in requests)

    # [START howto_approve_in_airflow_first]
    approve = ApprovalOperator(
        task_id="approve",
        subject="Approve the purchase orders of {{ ds }}?",
        body=describe(waiting.output),
    )

    @task
    def respond_to(requests: list[dict], approval: dict) -> list[dict]:
        """Return a response for each order; its comment says who approved."""
        user = approval["responded_by_user"] or {"name": "an unknown user"}
        return [
            {
                "instance_id": request["instance_id"],
                "project_id": request["project_id"],
                "step_occurrence_id": request["step_occurrence_id"],
                "comment": f"Approved in Airflow by {user['name']}.",
            }
            for request in requests
        ]

    responses = ProcoreRespondOperator.partial(
        task_id="respond",
        option="Approve",
        on_step_moved="skip",  # an assignee responded in Procore meanwhile
        retries=2,
        max_active_tis_per_dag=4,  # Procore limits the calls in 10 seconds
    ).expand_kwargs(respond_to(waiting.output, approve.output))
    # [END howto_approve_in_airflow_first]

    @task(trigger_rule="none_failed")
    def sum_up(responses: list[dict]) -> int:
        """Count the orders that were approved; none after a rejection."""
        return len(responses or [])

    sum_up(responses.output)


example_procore_approve_in_airflow_first()
