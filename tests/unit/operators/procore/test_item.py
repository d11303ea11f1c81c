"""The parameters that name an instance or item: the same ones, with the same checks, in operators and sensors."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.procore import (
    ProcoreAddAssigneesOperator,
    ProcoreHistoryToObjectStorageOperator,
    ProcoreListInstancesOperator,
    ProcoreRefreshInstanceOperator,
    ProcoreRespondOperator,
    ProcoreRestartInstanceOperator,
    ProcoreTerminateInstanceOperator,
)
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor

pytestmark = pytest.mark.usefixtures("airflow_connections")

ITEM = {"tool_type": "purchase_order_contract", "tool_subtype": "7", "item_id": "5001", "project_id": "1001"}
ON_ONE_INSTANCE = {
    ProcoreAddAssigneesOperator: {"assignees": "90003", "reason": "other"},
    ProcoreInstanceSensor: {"timeout": 1},
    ProcoreRefreshInstanceOperator: {},
    ProcoreRespondOperator: {"option": "Approve"},
    ProcoreRestartInstanceOperator: {},
    ProcoreTerminateInstanceOperator: {},
}
IN_SEVERAL_PLACES = {
    ProcoreHistoryToObjectStorageOperator: {"path": "/nowhere"},
    ProcoreListInstancesOperator: {},
    ProcoreResponseRequestedSensor: {"timeout": 1},
}


@pytest.mark.parametrize("cls", ON_ONE_INSTANCE)
def test_item_parameters_come_from_default_args_and_are_templated(cls):
    with DAG("any", schedule=None, default_args=ITEM):
        task = cls(task_id="act", **ON_ONE_INSTANCE[cls])

    assert {name: getattr(task, name) for name in ITEM} == ITEM
    assert {"instance_id", *ITEM} <= {*cls.template_fields}


@pytest.mark.sample(3)
@pytest.mark.parametrize("cls", ON_ONE_INSTANCE)
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({}, "instance_id, item_id"),
        ({"instance_id": "1", "item_id": "2"}, "instance_id and item_id"),
        ({"item_id": "5001"}, "tool_type is missing"),
        ({"instance_id": "1", "project_id": ""}, "project_id is missing"),
    ],
)
def test_wrong_item_parameter_is_named_before_anything_is_sent(emulator, store, cls, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        cls(task_id="act", **ON_ONE_INSTANCE[cls], **parameters).execute({"task_state_store": store})

    assert emulator.requests() == []


@pytest.mark.parametrize("cls", IN_SEVERAL_PLACES)
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"tool_type": []}, "tool_type is an empty list"),
        ({"tool_type": ["po", ""]}, "tool_type is missing"),
        ({"tool_type": "po", "project_id": []}, "project_id is an empty list"),
        ({"tool_type": "po", "project_id": ["1001", None]}, "project_id is missing"),
    ],
)
def test_wrong_tool_or_project_is_named_before_anything_is_sent(emulator, store, cls, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        cls(task_id="act", **IN_SEVERAL_PLACES[cls], **parameters).execute({"task_state_store": store})

    assert emulator.requests() == []
