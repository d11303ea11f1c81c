"""The tasks of the load run, of all kinds at once; what each writes to is listed in a file that ``LOAD_WORK`` names."""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_workflows.operators.procore import ProcoreRespondOperator, ProcoreStartInstanceOperator
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCompleteIntegrationOperator,
    WorkflowsoftGetFieldsOperator,
    WorkflowsoftUpdateFieldsOperator,
)

work = json.loads(Path(os.environ["LOAD_WORK"]).read_text())

# No retries: nothing but the client's own waiting gets a task through.
with DAG("load", schedule=None, default_args={"retries": 0}):
    in_pool = {"pool": "procore"}
    ProcoreRespondOperator.partial(task_id="respond", option="Approve", **in_pool).expand_kwargs(work["respond"])
    ProcoreLegacyPerformActivityOperator.partial(
        task_id="perform", activity="Submit for Approval", **in_pool
    ).expand_kwargs(work["perform"])
    ProcoreStartInstanceOperator.partial(task_id="start", tool_type="purchase_order_contract", **in_pool).expand_kwargs(
        work["start"]
    )
    (
        WorkflowsoftGetFieldsOperator.partial(task_id="get").expand_kwargs(work["integration"])
        >> WorkflowsoftUpdateFieldsOperator.partial(
            task_id="update", fields={"Venue": "Main hall", "Event duration": "2.5"}
        ).expand_kwargs(work["integration"])
        >> WorkflowsoftCompleteIntegrationOperator.partial(task_id="complete").expand_kwargs(work["integration"])
    )
