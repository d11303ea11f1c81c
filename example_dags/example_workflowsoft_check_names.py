"""
Check every morning that Workflowsoft still has what other DAGs name: a diagram, its integration step, a user.

Diagrams and steps are named by their titles, which people may change. This DAG lists what is there and fails with the
missing names, before a DAG that needs them does.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.workflowsoft import WorkflowsoftListOperator


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "diagram": Param("Event planning", type="string", description="Title of a process diagram"),
        "step": Param("Check event", type="string", description="Title of an integration step in it"),
        "user": Param("olga@example.com", type="string", description="E-mail address of the user who starts processes"),
    },
    tags=["example", "workflowsoft"],
    doc_md=__doc__,
)
def example_workflowsoft_check_names():
    # [START howto_operator_workflowsoft_list]
    diagrams = WorkflowsoftListOperator(task_id="list_diagrams", kind="diagrams", retries=2)
    steps = WorkflowsoftListOperator(task_id="list_steps", kind="steps", diagram="{{ params.diagram }}", retries=2)
    users = WorkflowsoftListOperator(task_id="list_users", kind="users", search="{{ params.user }}", retries=2)
    # [END howto_operator_workflowsoft_list]

    @task
    def find_missing(diagrams: list[dict], steps: list[dict], users: list[dict], params: dict) -> list[str]:
        there = {row["title"] for row in diagrams + steps} | {row["email"] for row in users}
        return [params[name] for name in ("diagram", "step", "user") if params[name] not in there]

    @task
    def report(missing: list[str]) -> None:
        if missing:
            raise ValueError(f"Workflowsoft has no {', '.join(missing)} any more.")

    diagrams >> steps  # a missing diagram has no steps to list
    report(find_missing(diagrams.output, steps.output, users.output))


example_workflowsoft_check_names()
