"""Labels of mapped waits in Airflow's lists: the item's id, unless the author gave a template."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from airflow_provider_workflows.operators.procore import (
    ProcoreBulkReplaceAssigneesOperator,
    ProcoreBulkStartInstancesOperator,
    ProcoreStartInstanceOperator,
)
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator
from airflow_provider_workflows.operators.waiting import LABEL_TEMPLATE
from airflow_provider_workflows.sensors.procore import (
    ProcoreAsyncOperationSensor,
    ProcoreInstanceSensor,
    ProcoreItemSensor,
    ProcoreResponseRequestedSensor,
)
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

TOOL = "purchase_order_contract"


def label(task, map_index=0, **dag) -> str:
    """Render a task's label as Airflow does."""
    environment = DAG("dag", schedule=None, **dag).get_template_env()
    context = {"task": task, "ti": SimpleNamespace(map_index=map_index)}
    return environment.from_string(task.map_index_template).render(context)


def unmapped(cls, partial, mapped):
    """Return the first task of a mapped one."""
    with DAG("dag", schedule=None):
        operator = cls.partial(task_id="wait", **partial).expand(**{name: [value] for name, value in mapped.items()})
        return operator.unmap(mapped)


@pytest.mark.parametrize(
    ("cls", "partial", "mapped", "expected"),
    [
        (ProcoreInstanceSensor, {"tool_type": TOOL}, {"item_id": "5001"}, "item 5001"),
        (ProcoreInstanceSensor, {}, {"instance_id": 700001}, "instance 700001"),
        (ProcoreItemSensor, {"tool_type": TOOL}, {"item_id": "5001"}, "item 5001"),
        (ProcoreResponseRequestedSensor, {"tool_type": TOOL}, {"project_id": "1001"}, "project 1001"),
        (ProcoreResponseRequestedSensor, {}, {"tool_type": TOOL}, f"tool {TOOL}"),
        (ProcoreAsyncOperationSensor, {}, {"operation_id": "901001"}, "operation 901001"),
        (ProcoreLegacyInstanceSensor, {"object_type": "Contract"}, {"object_id": "7"}, "object 7"),
        (ProcoreLegacyInstanceSensor, {}, {"instance_id": "25"}, "instance 25"),
        (WorkflowsoftIntegrationSensor, {"diagram": "Events"}, {"step": "Check event"}, "step Check event"),
        (WorkflowsoftIntegrationSensor, {}, {"step_id": "101"}, "step id 101"),
        (ProcoreStartInstanceOperator, {"tool_type": TOOL}, {"item_id": "5001"}, "item 5001"),
        (ProcoreBulkStartInstancesOperator, {"items": ["1"]}, {"tool_type": TOOL}, f"tool {TOOL}"),
        (ProcoreBulkReplaceAssigneesOperator, {}, {"old_assignee": "pat@example.com"}, "assignee pat@example.com"),
        (ProcoreLegacyPerformActivityOperator, {"activity": "Accept"}, {"instance_id": "25"}, "instance 25"),
    ],
)
def test_mapped_task_is_labelled_with_its_id(cls, partial, mapped, expected):
    task = unmapped(cls, partial, mapped)

    assert label(task) == expected


@pytest.mark.parametrize("cls", [ProcoreInstanceSensor, ProcoreLegacyInstanceSensor])
def test_label_without_any_id_is_empty(cls):
    assert label(cls(task_id="wait")) == ""


def test_label_of_a_task_that_is_not_mapped_is_empty():
    task = ProcoreInstanceSensor(task_id="wait", instance_id="700001")

    assert [label(task, map_index) for map_index in (-1, None)] == ["", ""]


def test_label_is_text_where_the_dag_renders_native_types():
    """Airflow fails a task whose label is not text."""
    task = ProcoreInstanceSensor(task_id="wait", instance_id="700001")

    assert label(task, render_template_as_native_obj=True) == "instance 700001"


def test_label_fits_into_airflows_column():
    task = ProcoreInstanceSensor(task_id="wait", instance_id="7" * 1000)

    assert len(label(task)) == 100


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="partial() of an older Airflow does not read the default")
@pytest.mark.parametrize("cls", [ProcoreInstanceSensor, ProcoreStartInstanceOperator])
def test_airflow_knows_the_template_before_it_unmaps_the_task(cls):
    """Airflow renders the label of a task that is going to be deferred with the template of the mapped operator."""
    with DAG("dag", schedule=None):
        mapped = cls.partial(task_id="wait", tool_type=TOOL).expand(item_id=["5001"])

    assert mapped.map_index_template == LABEL_TEMPLATE


OWN = "{{ task.tool_type }}"


def test_label_of_the_author_wins():
    mapped = unmapped(ProcoreInstanceSensor, {"map_index_template": OWN}, {"item_id": "5001"})
    with DAG("dag", schedule=None, default_args={"map_index_template": OWN}):
        by_default_args = ProcoreInstanceSensor(task_id="wait", instance_id="1")
        operator = ProcoreStartInstanceOperator(task_id="start", tool_type=TOOL, item_id="1")

    assert [task.map_index_template for task in (mapped, by_default_args, operator)] == [OWN] * 3
