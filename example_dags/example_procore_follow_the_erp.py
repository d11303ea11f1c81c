"""
Keep the workflows of purchase orders in Procore (Workflows v2) in step with the orders of an ERP.

Each night the DAG starts the workflows of orders that have none, terminates those of cancelled orders, and restarts
those of changed orders, so that people decide about current data. A script of the ERP has started the workflows of
letters in bulk; the DAG waits for that operation, too. A second run finds what is done.
"""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.operators.procore import (
    ProcoreBulkStartInstancesOperator,
    ProcoreRestartInstanceOperator,
    ProcoreTerminateInstanceOperator,
)
from airflow_provider_workflows.sensors.procore import ProcoreAsyncOperationSensor

TOOL = "purchase_order_contract"


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "open": Param(["5001", "5002", "5003"], type="array", description="Orders; a real DAG would query the ERP"),
        "cancelled": Param([], type="array", description="Orders that need no decision any more"),
        "changed": Param([], type="array", description="Orders that need a new decision"),
        "bonds": Param(["5201"], type="array", description="Orders whose workflows another script has started"),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_follow_the_erp():
    @task
    def ask_the_erp(what: str, params: dict) -> list[str]:
        return params[what]

    # [START howto_operator_procore_bulk_start_instances]
    started = ProcoreBulkStartInstancesOperator(
        task_id="start_what_has_none",
        tool_type=TOOL,
        items=ask_the_erp.override(task_id="ask_for_open_orders")(what="open"),
        on_failed_items="return",  # one order that cannot be started does not fail the task
        retries=2,
    )
    # [END howto_operator_procore_bulk_start_instances]

    # [START howto_operator_procore_terminate_instance]
    ended = ProcoreTerminateInstanceOperator.partial(task_id="end_cancelled", tool_type=TOOL, retries=2).expand(
        item_id=ask_the_erp.override(task_id="ask_for_cancelled_orders")(what="cancelled")
    )
    # [END howto_operator_procore_terminate_instance]

    # [START howto_operator_procore_restart_instance]
    renewed = ProcoreRestartInstanceOperator.partial(
        task_id="renew_changed", tool_type=TOOL, restart_mode="defaults", retries=2
    ).expand(item_id=ask_the_erp.override(task_id="ask_for_changed_orders")(what="changed"))
    # [END howto_operator_procore_restart_instance]

    @task(retries=0)
    def order_elsewhere(params: dict) -> str:
        """Send a bulk start without waiting for it, as a script outside Airflow would; return its id."""
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        items = [{"item_id": item_id} for item_id in params["bonds"]]
        return ProcoreHook().bulk_start_instances(TOOL, items)["operation_id"]

    # [START howto_sensor_procore_async_operation]
    imported = ProcoreAsyncOperationSensor(
        task_id="wait_for_the_script", operation_id=order_elsewhere(), timeout=3600, retries=2
    )
    # [END howto_sensor_procore_async_operation]

    @task(trigger_rule="none_failed")
    def report(started: dict, imported: dict, ended: list[dict], renewed: list[dict]) -> dict[str, int]:
        return {
            "started": len(started["completed"]),
            "running already": len(started["already_active"]),
            "not started": len(started["failed"]),
            "by the script": imported["completed"],
            "ended": len(ended or []),
            "renewed": len(renewed or []),
        }

    started >> [ended, renewed]
    report(started.output, imported.output, ended.output, renewed.output)


example_procore_follow_the_erp()
