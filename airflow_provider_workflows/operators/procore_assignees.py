"""Operators that keep the assignees of Procore's workflows in step with who works where: import them from here."""

from airflow_provider_workflows.operators.procore_bulk_replace import ProcoreBulkReplaceAssigneesOperator
from airflow_provider_workflows.operators.procore_preset_assignees import ProcorePresetAssigneesOperator

__all__ = ["ProcoreBulkReplaceAssigneesOperator", "ProcorePresetAssigneesOperator"]
