"""A DAG for the test of modes: the same wait in each of them."""

from __future__ import annotations

import pendulum
from airflow.sdk import dag

from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False)
def every_mode():
    for task_id, how in {
        "poke": {"deferrable": False},
        # Airflow can fail a task that is rescheduled within seconds, for the same reason as one that is deferred.
        "reschedule": {"deferrable": False, "mode": "reschedule", "poke_interval": 10},
        "deferrable": {"deferrable": True},
    }.items():
        ProcoreInstanceSensor(
            task_id=task_id, procore_conn_id="procore_modes", instance_id="700001", timeout=3600, **how
        )


every_mode()
