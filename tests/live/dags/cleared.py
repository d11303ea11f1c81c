"""A DAG whose action is retried after it was done, and done again when the task is cleared."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag

from airflow_provider_workflows.operators.workflowsoft import WorkflowsoftStartProcessOperator


class FailsAfterTheAction(WorkflowsoftStartProcessOperator):
    def execute(self, context):
        result = super().execute(context)
        if context["ti"].try_number == 1:
            raise RuntimeError("The worker fails after the process was started.")
        return result


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False)
def cleared():
    FailsAfterTheAction(
        task_id="start",
        workflowsoft_conn_id="workflowsoft_modes",
        diagram="Contract review",
        on_behalf_of="olga@example.com",
        retries=1,
        retry_delay=1,
    )


cleared()
