"""Templates that are rendered as native objects: a result, or an error that names the parameter, before any call."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from airflow.sdk import DAG, task

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.procore import (
    ProcoreAddAssigneesOperator,
    ProcoreBulkReplaceAssigneesOperator,
    ProcoreBulkStartInstancesOperator,
    ProcoreListInstancesOperator,
    ProcorePresetAssigneesOperator,
    ProcoreRespondOperator,
    ProcoreStartInstanceOperator,
    ProcoreTerminateInstanceOperator,
)
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCreateTaskOperator,
    WorkflowsoftGetFieldsOperator,
)
from airflow_provider_workflows.sensors.procore import Level, ProcoreInstanceSensor, ProcoreItemSensor
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

pytestmark = pytest.mark.usefixtures("airflow_connections")

TOOL = "purchase_order_contract"
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
GOOD = {
    ProcoreRespondOperator: {"instance_id": "700001", "option": "Approve", "confirm_timeout": timedelta(seconds=1)},
    ProcoreStartInstanceOperator: {"tool_type": TOOL, "item_id": "5009", "confirm_timeout": timedelta(seconds=1)},
    ProcoreTerminateInstanceOperator: {"instance_id": "700001"},
    ProcoreAddAssigneesOperator: {"instance_id": "700001", "assignees": "90003", "reason": "Leave"},
    ProcoreBulkReplaceAssigneesOperator: {"old_assignee": "90001", "new_assignees": ["90003"], "reason": "other"},
    ProcoreBulkStartInstancesOperator: {"tool_type": TOOL, "items": ["5009"]},
    ProcoreLegacyPerformActivityOperator: {
        "instance_id": "568150",
        "activity": "Submit for Approval",
        "performed_by": "90001",
    },
    WorkflowsoftGetFieldsOperator: {"integration_instance_id": "1"},
    WorkflowsoftCreateTaskOperator: {"title": "Call", "on_behalf_of": "1", "retries": 0},
    ProcoreInstanceSensor: {"instance_id": "700001", "timeout": 10},
    ProcoreItemSensor: {"tool_type": TOOL, "item_id": "5001", "timeout": 10},
    ProcoreLegacyInstanceSensor: {"instance_id": "568150", "until": ["Approved"], "timeout": 10},
    WorkflowsoftIntegrationSensor: {"diagram": "Event planning", "step": "Book venue", "timeout": 10},
}


@task
def task_result() -> bool:
    return False


def native(cls: type, store, **values):
    """Execute an operator whose templates were rendered to these values."""
    operator = cls(task_id="act", **GOOD[cls])
    for name, value in values.items():
        setattr(operator, name, value)
    return operator.execute({"task_state_store": store})


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (ProcoreRespondOperator, "comment", NOW),
        (ProcoreRespondOperator, "comment", ["a", "b"]),
        (ProcoreRespondOperator, "comment", 1.5),
        (ProcoreRespondOperator, "comment", "None"),
        (ProcoreRespondOperator, "option", ["Approve"]),
        (ProcoreRespondOperator, "option", 1.0),
        (ProcoreRespondOperator, "instance_id", 700001.0),
        (ProcoreRespondOperator, "instance_id", "700001.0"),
        (ProcoreRespondOperator, "step_occurrence_id", 70000101.0),
        (ProcoreRespondOperator, "project_id", ["1001"]),
        (ProcoreRespondOperator, "company_id", 4264807.0),
        (ProcoreRespondOperator, "on_step_moved", ["fail"]),
        (ProcoreRespondOperator, "confirm_timeout", "soon"),
        (ProcoreStartInstanceOperator, "item_id", 5009.0),
        (ProcoreStartInstanceOperator, "item_id", [5009]),
        (ProcoreStartInstanceOperator, "preset_id", 401.0),
        (ProcoreStartInstanceOperator, "tool_type", {"a": 1}),
        (ProcoreTerminateInstanceOperator, "instance_id", ["700001"]),
        (ProcoreAddAssigneesOperator, "assignees", [90003.0]),
        (ProcoreAddAssigneesOperator, "assignees", "90003.0"),
        (ProcoreAddAssigneesOperator, "reason", NOW),
        (ProcoreAddAssigneesOperator, "message", "None"),
        (ProcoreBulkStartInstancesOperator, "items", ["5009.0"]),
        (ProcoreBulkStartInstancesOperator, "items", [5009.0]),
        (ProcoreLegacyPerformActivityOperator, "comments", NOW),
        (ProcoreLegacyPerformActivityOperator, "comments", "None"),
        (ProcoreLegacyPerformActivityOperator, "activity", ["x"]),
        (ProcoreLegacyPerformActivityOperator, "performed_by", 90001.0),
        (ProcoreLegacyPerformActivityOperator, "instance_id", "568150.0"),
        (WorkflowsoftGetFieldsOperator, "integration_instance_id", 1.0),
        (WorkflowsoftGetFieldsOperator, "integration_instance_id", "1.0"),
        (WorkflowsoftCreateTaskOperator, "title", ["Call"]),
        (WorkflowsoftCreateTaskOperator, "description", NOW),
        (WorkflowsoftCreateTaskOperator, "assigned_to", 1.0),
        (ProcoreInstanceSensor, "instance_id", 700001.0),
        (ProcoreInstanceSensor, "step_decided", [1.5]),
        (ProcoreInstanceSensor, "project_id", ["1001"]),
        (ProcoreItemSensor, "item_id", "5001.0"),
        (ProcoreItemSensor, "legacy_instance_id", "568150.0"),
        (ProcoreLegacyInstanceSensor, "instance_id", "568150.0"),
        (ProcoreLegacyInstanceSensor, "activity", ["x"]),
        (WorkflowsoftIntegrationSensor, "step", ["x"]),
    ],
)
def test_a_value_that_is_not_text_is_named_before_sending(emulator, store, cls, name, value):
    with pytest.raises(ConfigurationError, match=rf"^{name}\b"):
        native(cls, store, **{name: value})

    assert emulator.requests() == []


def test_whole_numbers_are_ids_and_labels(emulator, store):
    result = native(
        ProcoreRespondOperator, store, instance_id=700001, project_id=1001, company_id=4264807, comment=2026
    )

    assert (result["option"], result["comment"]) == ("Approve", "2026")
    assert native(ProcoreStartInstanceOperator, store, item_id=5009)["item_id"] == "5009"


def rendered_to_none(cls: type, name: str, value, *, is_template: bool, is_mapped: bool):
    """Return an operator with a parameter in which a template, or the output of a task, was rendered to None."""
    with DAG("any", schedule=None, params={"n": None}, render_template_as_native_obj=True):
        parameters = {**GOOD[cls], name: value("{{ params.n }}" if is_template else task_result())}
        if is_mapped:
            operator = cls.partial(task_id="act", **parameters).expand(doc=["a"]).unmap({"doc": "a"})
        else:
            operator = cls(task_id="act", **parameters)
    if is_template:
        operator.render_template_fields({"params": {"n": None}})
    else:
        setattr(operator, name, value(None))  # as Airflow does with the output of a task
    return operator


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize("is_template", [True, False])
@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (ProcoreRespondOperator, "step_occurrence_id"),
        (ProcoreRespondOperator, "attachments"),
        (ProcoreRespondOperator, "project_id"),
        (ProcoreStartInstanceOperator, "preset_id"),
        (ProcoreBulkReplaceAssigneesOperator, "project_ids"),
        (ProcoreBulkReplaceAssigneesOperator, "tools"),
        (WorkflowsoftCreateTaskOperator, "assigned_to"),
        (ProcoreInstanceSensor, "project_id"),
    ],
)
def test_a_parameter_rendered_to_none_is_not_omitted(emulator, store, cls, name, is_template, is_mapped):
    operator = rendered_to_none(cls, name, lambda none: none, is_template=is_template, is_mapped=is_mapped)

    with pytest.raises(ConfigurationError, match=f"^{name} was rendered to None"):
        operator.execute({"task_state_store": store})
    assert emulator.requests() == []


@pytest.mark.parametrize("is_mapped", [False, True])
@pytest.mark.parametrize(
    ("cls", "named", "value"),
    [
        (
            ProcoreBulkReplaceAssigneesOperator,
            "tools: sub_type",
            lambda none: [{"type": "correspondence", "sub_type": none}],
        ),
        (ProcoreBulkReplaceAssigneesOperator, "project_ids", lambda none: ["1001", none]),
        (ProcoreBulkStartInstancesOperator, "items: preset_id", lambda none: ({"item_id": "5009", "preset_id": none},)),
    ],
)
@pytest.mark.parametrize("is_template", [True, False])
def test_an_element_rendered_to_none_is_not_omitted(emulator, store, cls, named, value, is_template, is_mapped):
    name = named.partition(":")[0]
    operator = rendered_to_none(cls, name, value, is_template=is_template, is_mapped=is_mapped)

    with pytest.raises(ConfigurationError, match=f"^{named} was rendered to None"):
        operator.execute({"task_state_store": store})
    assert emulator.requests() == []


def test_a_preset_that_an_item_lists_as_none_is_omitted():
    items = [{"item_id": 5009, "preset_id": None}, {"item_id": 5003, "preset_id": "{{ params.n }}"}]
    with DAG("any", schedule=None, params={"n": 401}, render_template_as_native_obj=True):
        operator = ProcoreBulkStartInstancesOperator(task_id="act", tool_type=TOOL, items=items)
    operator.render_template_fields({"params": {"n": 401}})

    assert operator.rendered_to_none == frozenset()
    assert operator.items == [items[0], {"item_id": 5003, "preset_id": 401}]


def test_a_comment_may_be_rendered_to_none(store):
    operator = ProcoreRespondOperator(task_id="act", **GOOD[ProcoreRespondOperator], comment="{{ params.n }}")
    operator.comment = None

    assert operator.execute({"task_state_store": store})["option"] == "Approve"


# --- booleans, which are not templated ---


@pytest.mark.parametrize("value", ["false", "{{ params.allow }}", 0, None, "result of a task"])
@pytest.mark.parametrize(
    ("cls", "parameters", "name"),
    [
        (ProcoreAddAssigneesOperator, GOOD[ProcoreAddAssigneesOperator], "required"),
        (ProcoreStartInstanceOperator, GOOD[ProcoreStartInstanceOperator], "wait_for_completion"),
        (ProcorePresetAssigneesOperator, {"assignments": [], "tool_type": TOOL}, "allow_empty"),
        (Level, {"add_assignees": "90003"}, "required"),
    ],
)
def test_a_boolean_that_is_none_is_rejected_in_the_dag_file(cls, parameters, name, value):
    with DAG("any", schedule=None):
        value = task_result() if value == "result of a task" else value
        task_id = {} if cls is Level else {"task_id": "act"}
        with pytest.raises(ConfigurationError, match=f"^{name} must be True or False; got"):
            cls(**task_id, **parameters, **{name: value})


def test_a_boolean_of_a_mapped_task_is_checked_where_it_is_known():
    with DAG("any", schedule=None, default_args={"required": "false"}):
        given = dict(GOOD[ProcoreAddAssigneesOperator])
        instance_id = given.pop("instance_id")
        mapped = ProcoreAddAssigneesOperator.partial(task_id="act", **given).expand(instance_id=[instance_id])
        with pytest.raises(ConfigurationError, match="^required must be"):
            ProcoreAddAssigneesOperator.partial(task_id="other", **given, required="false")

    with pytest.raises(ConfigurationError, match="^required must be"):
        mapped.unmap({"instance_id": instance_id})


def test_a_boolean_may_be_left_out_where_none_is_the_default():
    sensor = ProcoreInstanceSensor(task_id="wait", instance_id="700001", deferrable=None)
    rows = ProcoreListInstancesOperator(task_id="list", tool_type=TOOL, active=None, overdue=False)

    assert (sensor.deferrable, rows.active, rows.overdue) == (False, None, False)
