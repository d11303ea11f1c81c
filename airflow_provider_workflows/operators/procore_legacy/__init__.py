"""Operators for Procore's Legacy Workflows (v1) API: import them from here. Each is loaded when it is first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.operators.lazy import load

if TYPE_CHECKING:
    from airflow_provider_workflows.operators.procore_legacy.history_export import (
        ProcoreLegacyHistoryToObjectStorageOperator,
    )
    from airflow_provider_workflows.operators.procore_legacy.list_histories import (
        ProcoreLegacyListActivityHistoriesOperator,
    )
    from airflow_provider_workflows.operators.procore_legacy.perform_activity import (
        ProcoreLegacyPerformActivityOperator,
    )

__all__ = [
    "ProcoreLegacyHistoryToObjectStorageOperator",
    "ProcoreLegacyListActivityHistoriesOperator",
    "ProcoreLegacyPerformActivityOperator",
]

_FILES = {
    "ProcoreLegacyHistoryToObjectStorageOperator": "history_export",
    "ProcoreLegacyListActivityHistoriesOperator": "list_histories",
    "ProcoreLegacyPerformActivityOperator": "perform_activity",
}


def __getattr__(name: str) -> Any:
    return load(__name__, _FILES, name)
