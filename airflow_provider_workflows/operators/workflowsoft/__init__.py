"""Operators for Workflowsoft: import them from here. Each is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.operators.lazy import load

if TYPE_CHECKING:
    from airflow_provider_workflows.operators.workflowsoft.complete import WorkflowsoftCompleteIntegrationOperator
    from airflow_provider_workflows.operators.workflowsoft.fields import (
        WorkflowsoftGetFieldsOperator,
        WorkflowsoftUpdateFieldsOperator,
    )
    from airflow_provider_workflows.operators.workflowsoft.processes import (
        WorkflowsoftCreateTaskOperator,
        WorkflowsoftListOperator,
        WorkflowsoftStartProcessOperator,
    )

__all__ = [
    "WorkflowsoftCompleteIntegrationOperator",
    "WorkflowsoftCreateTaskOperator",
    "WorkflowsoftGetFieldsOperator",
    "WorkflowsoftListOperator",
    "WorkflowsoftStartProcessOperator",
    "WorkflowsoftUpdateFieldsOperator",
]

_FILES = {
    "WorkflowsoftCompleteIntegrationOperator": "complete",
    "WorkflowsoftCreateTaskOperator": "processes",
    "WorkflowsoftGetFieldsOperator": "fields",
    "WorkflowsoftListOperator": "processes",
    "WorkflowsoftStartProcessOperator": "processes",
    "WorkflowsoftUpdateFieldsOperator": "fields",
}


def __getattr__(name: str) -> Any:
    return load(__name__, _FILES, name)
