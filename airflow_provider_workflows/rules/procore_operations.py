"""The meaning of Procore's asynchronous operations: their status, and the items that were completed or failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.procore_decisions import rows_of, str_id

Json = Mapping[str, Any]

ENDED_OPERATIONS = frozenset({"done", "partial_done", "failed", "cancelled"})
OPERATION_STATES = frozenset({"created", "in_progress"}) | ENDED_OPERATIONS


def describe_operation(operation: Json) -> dict[str, Any]:
    """
    Return the state of an asynchronous operation.

    :return: ``{operation_id, operation_type, status, started_at, completed_at, error, completed, failed}``;
        ``completed`` and ``failed`` are numbers of items.
    """
    completed, failed = operation_items(operation)
    error = operation.get("error")
    return {
        "operation_id": str_id(operation),
        "operation_type": operation.get("operation_type"),
        "status": _operation_status(operation),
        "started_at": operation.get("started_at"),
        "completed_at": operation.get("completed_at"),
        "error": error.get("message") if isinstance(error, Mapping) else error,
        "completed": len(completed),
        "failed": len(failed),
    }


def operation_items(operation: Json) -> tuple[list[Json], list[Json]]:
    """Return the completed items and the failed items of an operation."""
    result = operation.get("result")
    lists = [result.get(name) for name in ("completed_items", "failed_items")] if isinstance(result, Mapping) else []
    completed, failed = (rows_of(items) for items in lists or (None, None))
    return completed, failed


@documented_form()
def operation_ended(operation: Json) -> bool:
    """Return whether an operation has ended; with an unknown status, whether it has a time of completion."""
    status = _operation_status(operation)
    return status in ENDED_OPERATIONS or (status not in OPERATION_STATES and bool(operation.get("completed_at")))


@documented_form()
def _operation_status(operation: Json) -> str | None:
    """Return the status of an operation in lower case."""
    status: str | None = operation.get("status")
    return None if status is None else status.strip().lower()
