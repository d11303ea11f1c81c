"""A DAG for the browser: it waits for a click on the emulator's page."""

from __future__ import annotations

import pendulum
from airflow.sdk import Param, dag, task

from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"instance_id": Param("", type="string")},
)
def waits_for_a_click():
    decided = ProcoreInstanceSensor(
        task_id="decided", instance_id="{{ params.instance_id }}", deferrable=True, poke_interval=1
    )
    task(lambda outcome: outcome["item_status"], task_id="goes_on")(decided.output)


waits_for_a_click()
