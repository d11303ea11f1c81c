"""One span for each write action: opt-in, with the wait's length, without any text of an item."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.operators.procore import (
    ProcoreListInstancesOperator,
    ProcoreRespondOperator,
    ProcoreStartInstanceOperator,
)
from tests.support.versions import AIRFLOW

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

try:
    from airflow.sdk.exceptions import TaskDeferred
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import TaskDeferred

TI = SimpleNamespace(dag_id="orders", run_id="run", task_id="respond", map_index=-1, try_number=1, max_tries=1)
NAMES = {"dag_id": "orders", "run_id": "run", "task_id": "respond", "map_index": -1, "try_number": 1}


@pytest.fixture
def spans(monkeypatch) -> InMemorySpanExporter:
    """The spans that were exported; tracing is on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__TRACE_ACTIONS", "True")
    return exporter


def respond(**parameters) -> ProcoreRespondOperator:
    parameters = {"option": "approve", "instance_id": "700001", "confirm_timeout": 0.2, **parameters}
    return ProcoreRespondOperator(task_id="respond", **parameters)


def start(**parameters) -> ProcoreStartInstanceOperator:
    return ProcoreStartInstanceOperator(
        task_id="start",
        **{"tool_type": "purchase_order_contract", "item_id": "5002", "wait_for_completion": True, **parameters},
    )


def test_write_action_emits_one_span_without_texts_of_the_item(store, spans):
    respond(comment="a secret").execute({"task_state_store": store, "ti": TI})

    (span,) = spans.get_finished_spans()
    assert span.name == "workflows.ProcoreRespondOperator"
    assert dict(span.attributes) == {
        **{f"airflow.{name}": value for name, value in NAMES.items()},
        "airflow.operator": "ProcoreRespondOperator",
    }
    assert span.status.status_code is not StatusCode.ERROR
    assert span.events == ()


def test_failed_action_names_only_the_class_of_its_error(store, spans):
    with pytest.raises(WorkflowsError):
        respond(option="Aprove").execute({"task_state_store": store, "ti": TI})

    (span,) = spans.get_finished_spans()
    assert span.attributes["error.type"] == "ConfigurationError"
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="before Airflow 3.3 a resumed task does not know when its wait started")
def test_span_comes_at_the_end_of_a_deferred_wait_with_its_length(emulator, store, spans):
    with pytest.raises(TaskDeferred):
        start(deferrable=True, wait_timeout=1000).execute({"task_state_store": store, "ti": TI})
    assert spans.get_finished_spans() == ()

    result = {"instance_id": "700001", "item_id": "5001", "state": "complete", "started_at": None, "ended_at": None}
    event = {"status": "done", "action": "succeed", "result": result, "reason": "It has ended."}
    event["resume_kwargs"] = {"adopted": False}
    start(deferrable=True, wait_timeout=1000).execute_complete({"task_state_store": store, "ti": TI}, event)

    (span,) = spans.get_finished_spans()
    assert 0 <= span.attributes["workflows.wait_seconds"] < 1000


def test_reading_emits_no_span(spans):
    ProcoreListInstancesOperator(task_id="list", tool_type="purchase_order_contract").execute({"ti": TI})

    assert spans.get_finished_spans() == ()


def test_no_span_unless_it_is_switched_on(store, spans, monkeypatch):
    monkeypatch.delenv("AIRFLOW__WORKFLOWS__TRACE_ACTIONS")

    respond().execute({"task_state_store": store, "ti": TI})

    assert spans.get_finished_spans() == ()
