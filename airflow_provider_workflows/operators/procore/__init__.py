"""Operators for Procore's Workflows v2 API. Import them from here; each is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.operators.lazy import load

if TYPE_CHECKING:
    from airflow_provider_workflows.operators.procore.approval import ProcoreApprovalOperator
    from airflow_provider_workflows.operators.procore.branch import ProcoreBranchOnOutcomeOperator, outcome_names
    from airflow_provider_workflows.operators.procore.bulk_replace import ProcoreBulkReplaceAssigneesOperator
    from airflow_provider_workflows.operators.procore.bulk_respond import ProcoreBulkRespondOperator
    from airflow_provider_workflows.operators.procore.bulk_start import ProcoreBulkStartInstancesOperator
    from airflow_provider_workflows.operators.procore.cycle_time_report import ProcoreCycleTimeReportOperator
    from airflow_provider_workflows.operators.procore.history_export import ProcoreHistoryToObjectStorageOperator
    from airflow_provider_workflows.operators.procore.instances import (
        ProcoreAddAssigneesOperator,
        ProcoreRefreshInstanceOperator,
        ProcoreRestartInstanceOperator,
        ProcoreTerminateInstanceOperator,
    )
    from airflow_provider_workflows.operators.procore.list_instances import ProcoreListInstancesOperator
    from airflow_provider_workflows.operators.procore.preset_assignees import ProcorePresetAssigneesOperator
    from airflow_provider_workflows.operators.procore.respond import ProcoreRespondOperator
    from airflow_provider_workflows.operators.procore.start import ProcoreStartInstanceOperator

__all__ = [
    "ProcoreAddAssigneesOperator",
    "ProcoreApprovalOperator",
    "ProcoreBranchOnOutcomeOperator",
    "ProcoreBulkReplaceAssigneesOperator",
    "ProcoreBulkRespondOperator",
    "ProcoreBulkStartInstancesOperator",
    "ProcoreCycleTimeReportOperator",
    "ProcoreHistoryToObjectStorageOperator",
    "ProcoreListInstancesOperator",
    "ProcorePresetAssigneesOperator",
    "ProcoreRefreshInstanceOperator",
    "ProcoreRespondOperator",
    "ProcoreRestartInstanceOperator",
    "ProcoreStartInstanceOperator",
    "ProcoreTerminateInstanceOperator",
    "outcome_names",
]

_FILES = {
    "ProcoreAddAssigneesOperator": "instances",
    "ProcoreApprovalOperator": "approval",
    "ProcoreBranchOnOutcomeOperator": "branch",
    "ProcoreBulkReplaceAssigneesOperator": "bulk_replace",
    "ProcoreBulkRespondOperator": "bulk_respond",
    "ProcoreBulkStartInstancesOperator": "bulk_start",
    "ProcoreCycleTimeReportOperator": "cycle_time_report",
    "ProcoreHistoryToObjectStorageOperator": "history_export",
    "ProcoreListInstancesOperator": "list_instances",
    "ProcorePresetAssigneesOperator": "preset_assignees",
    "ProcoreRefreshInstanceOperator": "instances",
    "ProcoreRespondOperator": "respond",
    "ProcoreRestartInstanceOperator": "instances",
    "ProcoreStartInstanceOperator": "start",
    "ProcoreTerminateInstanceOperator": "instances",
    "outcome_names": "branch",
}


def __getattr__(name: str) -> Any:
    return load(__name__, _FILES, name)
