"""One try of a task, in a process that may die at any moment."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.operators import base

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

# Loaded when they are first needed; here already, so that a try begins at once.
importlib.import_module("airflow.sdk.execution_time.supervisor")
for product in ("procore", "procore_legacy", "workflowsoft"):
    importlib.import_module(f"airflow_provider_workflows.hooks.{product}")


@dataclass(frozen=True)
class Order:
    """What a try is given: its operator, where the products are, where to log, and Airflow's count of its tries."""

    build: Callable[[Mapping[str, Any]], Any]
    given: Mapping[str, Any]
    connections: Mapping[str, Mapping[str, Any]]
    log: str
    try_number: int
    max_tries: int
    reschedules: int


def run(line: Connection, order: Order) -> None:
    """
    Run one try; what it does to the store and returns goes over the line.

    Sent are ``("get", key)``, ``("set", key, json)`` and ``("end", how, what)``; each is answered.
    """
    line.recv()  # whoever counts what we do is ready now
    os.dup2(os.open(order.log, os.O_WRONLY | os.O_APPEND), 1)
    os.environ |= {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in order.connections.items()}
    # Calls are repeated at once, and a look that shows nothing is the last one: nothing here takes time.
    RetryPolicy.__init__.__defaults__ = (5, 0.0, 120.0)
    base.time = SimpleNamespace(sleep=lambda seconds: None)
    ti = SimpleNamespace(
        dag_id="faults",
        run_id="run-1",
        task_id="act",
        map_index=-1,
        try_number=order.try_number,
        max_tries=order.max_tries,
        xcom_push=lambda **value: None,
        get_first_reschedule_date=lambda context: None,
    )
    context = {"ti": ti, "task_state_store": Store(line), "task_reschedule_count": order.reschedules}
    line.send(("end", *_ended(order, context)))
    line.recv()
    os._exit(0)


def _ended(order: Order, context: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "success", json.loads(json.dumps(order.build(order.given).execute(context)))
    except AirflowRescheduleException:
        return "reschedule", None
    except (AirflowFailException, AirflowSensorTimeout) as error:
        return "failed", f"{error}"
    except Exception as error:
        return "retry", f"{type(error).__name__}: {error}"


class Store:
    """Airflow's task state store, which is kept where the worker's death does not reach it."""

    def __init__(self, line: Connection):
        self._line = line

    def get(self, key: str, default: Any = None) -> Any:
        self._line.send(("get", key))
        text = self._line.recv()
        return default if text is None else json.loads(text)

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:
        if value is None:
            raise ValueError("Cannot set value as None")
        self._line.send(("set", key, json.dumps(value, allow_nan=False)))
        self._line.recv()
