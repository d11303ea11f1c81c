"""
Have a purchase request of Workflowsoft approved in Procore, and write the decision back.

A process diagram "Purchase request" has an integration step "Approve in Procore". The DAG receives the instances that
wait there, usually one. For each it starts the workflow of the purchase order that the fields name, responds at the
step that waits for the integration, and waits until the people in Procore have decided. Then it writes the decision
into the fields and completes the step. Workflowsoft books the order, or ends the process.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import dag, task, task_group

from airflow_provider_workflows.decorators.workflowsoft import RejectIntegration
from airflow_provider_workflows.operators.procore import (
    ProcoreRespondOperator,
    ProcoreStartInstanceOperator,
    outcome_names,
)
from airflow_provider_workflows.operators.workflowsoft import WorkflowsoftGetFieldsOperator
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

TOOL = "purchase_order_contract"
# Checked when the fields are read and again when they are written: the approval may take weeks.
FIELDS = {
    "Purchase order id": "Int32?",
    "Amount": "Decimal?",
    "Decision": "String",
    "Decided by": "String",
    "Decided at": "DateTime?",
    "Remarks": "String",
}


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,  # one consumer for each integration step; the next request waits in Workflowsoft
    tags=["example", "procore", "workflowsoft"],
    doc_md=__doc__,
)
def example_both_products():
    waiting = WorkflowsoftIntegrationSensor(
        task_id="wait_for_a_request",
        diagram="Purchase request",
        step="Approve in Procore",
        timeout=7 * 24 * 3600,
        retries=2,
    )

    @task_group(prefix_group_id=False)
    def have_it_decided(instance: dict):
        """Handle one request; Airflow creates such a group for each."""
        request = WorkflowsoftGetFieldsOperator(
            task_id="read_the_request", integration_instance_id=instance, expected_fields=FIELDS, retries=2
        )

        @task(multiple_outputs=True)
        def plan(request: dict) -> dict[str, str]:
            """Return what people should approve; a decimal is text here, so that it stays exact."""
            if request["Purchase order id"] is None:
                raise ValueError("The request names no purchase order.")
            return {
                "item_id": str(request["Purchase order id"]),
                "comment": f"Requested in Workflowsoft, amount {request['Amount'] or 'not given'}.",
            }

        order = plan(request.output)

        start = ProcoreStartInstanceOperator(
            task_id="start_the_approval",
            tool_type=TOOL,
            item_id=order["item_id"],
            on_active_instance="fail",  # people are deciding about an earlier request
            retries=2,
        )
        # The first step of the template waits for the integration. Its response says where the order comes from.
        hand_in = ProcoreRespondOperator(
            task_id="hand_in",
            instance_id=start.output["instance_id"],
            step_occurrence_id=start.output["step_occurrence_id"],
            option="Approve",
            comment=order["comment"],
            retries=2,
        )
        decided = ProcoreInstanceSensor(
            task_id="wait_for_the_decision",
            instance_id=start.output["instance_id"],
            until={"complete", "terminated"},
            timeout=30 * 24 * 3600,
            retries=2,
        )

        # [START howto_decorator_workflowsoft_integration_write_back]
        @task.workflowsoft_integration(expected_fields=FIELDS, retries=2)
        def write_the_decision(outcome: dict) -> dict:
            values = {"Decided at": outcome["ended_at"]}
            if outcome["state"] == "terminated":  # not by an assignee, so nothing was decided
                values |= {"Remarks": "The workflow was ended in Procore without a decision."}
            else:
                decision, response = outcome["decision"] or {}, outcome["last_response"] or {}
                values |= {"Decided by": decision.get("by"), "Remarks": response.get("comment")}
            if "Approved" in outcome_names(outcome):
                return {**values, "Decision": "Approved"}
            # "Reject" is a custom action of this example's diagram; try which ones your step accepts.
            raise RejectIntegration(
                f"Procore says {outcome['item_status']}.",
                custom_action="Reject",
                fields={**values, "Decision": "Rejected"},
            )

        # [END howto_decorator_workflowsoft_integration_write_back]

        hand_in >> decided
        write_the_decision(integration_instance_id=instance, outcome=decided.output)

    have_it_decided.expand(instance=waiting.output)


example_both_products()
