"""One try of a task, or a trigger that it waits for, in a process that may die at any moment."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, TaskDeferred

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.operators import base
from airflow_provider_workflows.operators.procore import bulk_start
from airflow_provider_workflows.polling import poll as polls

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

REQUEST = "airflow's request"  # where the store has it

# Loaded when they are first needed; here already, so that a try starts at once.
importlib.import_module("airflow.sdk.execution_time.supervisor")
for product in ("procore", "procore_legacy", "workflowsoft"):
    importlib.import_module(f"airflow_provider_workflows.hooks.{product}")


@dataclass(frozen=True)
class Order:
    """
    What a try gets: its operator, where the products are, where to log, and Airflow's count of its tries.

    :param resume: Name of the method to resume with and the trigger's event, if the task was deferred.
    :param trigger: Class and arguments of the trigger to run instead of the task.
    """

    build: Callable[[Mapping[str, Any]], Any]
    inputs: Mapping[str, Any]
    connections: Mapping[str, Mapping[str, Any]]
    log: str
    try_number: int
    max_tries: int
    reschedules: int
    resume: tuple[str, Any] | None = None
    trigger: tuple[str, Mapping[str, Any]] | None = None


def run(line: Connection, order: Order) -> None:
    """
    Run one try; what it does to the store and returns goes over the line.

    Sent are ``("get", key)``, ``("set", key, json)`` and ``("end", how, what)``; each gets a response.
    """
    line.recv()  # the harness, which counts the requests, is ready now
    os.dup2(os.open(order.log, os.O_WRONLY | os.O_APPEND), 1)
    os.environ |= {f"AIRFLOW_CONN_{name.upper()}": json.dumps(value) for name, value in order.connections.items()}
    # Calls are repeated at once, and a poll that shows nothing is the last one: nothing here takes time.
    RetryPolicy.__init__.__defaults__ = (5, 0.0, 120.0)
    base.time = SimpleNamespace(sleep=lambda seconds: None)
    bulk_start.time = base.time
    polls.MIN_FIRST_DELAY_SECONDS = 0.0
    ti = SimpleNamespace(
        id=uuid4(),
        dag_id="faults",
        run_id="run-1",
        task_id="act",
        map_index=-1,
        try_number=order.try_number,
        max_tries=order.max_tries,
        xcom_push=lambda **value: None,
        get_first_reschedule_date=lambda context: None,
    )
    store = Store(line)
    RequiredActions(store).install()
    context = {"ti": ti, "task_state_store": store, "task_reschedule_count": order.reschedules}
    line.send(("end", *_ended(order, context)))
    line.recv()
    os._exit(0)


def _ended(order: Order, context: dict[str, Any]) -> tuple[str, Any]:
    try:
        if order.trigger is not None:
            return "event", _as_json(asyncio.run(_first_event(*order.trigger)))
        operator = order.build(order.inputs)
        if order.resume is None:
            return "success", _as_json(operator.execute(context))
        method, event = order.resume
        return "success", _as_json(getattr(operator, method)(context, event))
    except TaskDeferred as deferral:
        path, arguments = deferral.trigger.serialize()
        return "deferred", (deferral.method_name, path, _as_json(arguments))
    except AirflowRescheduleException:
        return "reschedule", None
    except (AirflowFailException, AirflowSensorTimeout) as error:
        return "failed", f"{error}"
    except Exception as error:
        return "retry", f"{type(error).__name__}: {error}"


async def _first_event(path: str, arguments: Mapping[str, Any]) -> Any:
    module, _, name = path.rpartition(".")
    trigger = getattr(importlib.import_module(module), name)(**arguments)
    async for event in trigger.run():
        return event.payload
    raise AssertionError("The trigger ended without an event.")


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


class Store:
    """Airflow's task state store, which survives the worker's death."""

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


class RequiredActions:
    """Airflow's request for a person and its response, which follow the task from try to try."""

    def __init__(self, store: Store):
        self._store = store

    def install(self) -> None:
        try:
            hitl = importlib.import_module("airflow.sdk.execution_time.hitl")
        except ImportError:  # before Airflow 3.1
            return
        vars(hitl).update(upsert_hitl_detail=self.create, get_hitl_detail_content_detail=self.read)

    def create(self, ti_id: Any, options: Any, **more: Any) -> None:
        request = self._store.get(REQUEST) or {"options": options}
        self._store.set(REQUEST, {**request, "response": None})  # the response is gone

    def read(self, ti_id: Any) -> Any:
        response = self._store.get(REQUEST)["response"]
        if response is None:
            return SimpleNamespace(response_received=False)
        return SimpleNamespace(
            response_received=True,
            chosen_options=response["chosen_options"],
            params_input=response["params_input"],
            responded_at=datetime.fromisoformat(response["responded_at"]),
            responded_by_user=SimpleNamespace(**response["responded_by_user"]),
        )
