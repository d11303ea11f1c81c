"""A DAG whose tasks each start a workflow, wait for its end in the triggerer, and terminate it when they are killed."""

from __future__ import annotations

import json
from pathlib import Path

import pendulum
from airflow.sdk import dag

from airflow_provider_workflows.operators.procore import ProcoreStartInstanceOperator

CONTENT = json.loads(Path(__file__).with_suffix(".json").read_text())


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False)
def cancelled_on_kill():
    ProcoreStartInstanceOperator.partial(
        task_id="start",
        procore_conn_id=CONTENT["connection"],
        tool_type="purchase_order_contract",
        wait_for_completion=True,
        cancel_on_kill=True,
        deferrable=True,
        retries=0,
    ).expand(item_id=CONTENT["items"])


cancelled_on_kill()
