"""A DAG with three decisions, each about an instance that the run's configuration names."""

from __future__ import annotations

import time
from typing import Any

import pendulum
from airflow.sdk import dag

from airflow_provider_workflows.operators.procore import ProcoreApprovalOperator

SECONDS = 8  # long enough for a click


class SlowToDefer(ProcoreApprovalOperator):
    """Has its request in Airflow for a while before it is deferred."""

    def defer_to(self, trigger: Any) -> Any:
        time.sleep(SECONDS)
        return super().defer_to(trigger)


@dag(
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"airflow": "", "procore": "", "early": ""},
)
def decided_in_airflow():
    for name in ("airflow", "procore", "early"):
        operator = SlowToDefer if name == "early" else ProcoreApprovalOperator
        operator(
            task_id=name,
            instance_id=f"{{{{ params.{name} }}}}",
            fields={"Amount": "1,200 EUR"},
            poll_interval=2,
            retries=0,
        )


decided_in_airflow()
