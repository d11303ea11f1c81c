"""Operators for Procore's Workflows v2 API: import them from here."""

from airflow_provider_workflows.operators.procore_base import (
    ON_ACTIVE_INSTANCE,
    ON_STEP_MOVED,
    ProcoreConnectionOperator,
    ProcoreInstanceOperator,
    ProcoreOperator,
    ProcoreWideOperator,
)
from airflow_provider_workflows.operators.procore_instances import (
    RESTART_MODES,
    ProcoreAddAssigneesOperator,
    ProcoreRefreshInstanceOperator,
    ProcoreRestartInstanceOperator,
    ProcoreTerminateInstanceOperator,
)
from airflow_provider_workflows.operators.procore_respond import LARGEST_FILE, UPLOAD_PART, ProcoreRespondOperator
from airflow_provider_workflows.operators.procore_start import ProcoreStartInstanceOperator

__all__ = [
    "LARGEST_FILE",
    "ON_ACTIVE_INSTANCE",
    "ON_STEP_MOVED",
    "RESTART_MODES",
    "UPLOAD_PART",
    "ProcoreAddAssigneesOperator",
    "ProcoreConnectionOperator",
    "ProcoreInstanceOperator",
    "ProcoreOperator",
    "ProcoreRefreshInstanceOperator",
    "ProcoreRespondOperator",
    "ProcoreRestartInstanceOperator",
    "ProcoreStartInstanceOperator",
    "ProcoreTerminateInstanceOperator",
    "ProcoreWideOperator",
]
