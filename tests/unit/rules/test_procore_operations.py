from __future__ import annotations

import pytest

from airflow_provider_workflows.rules import procore_operations as rules


@pytest.mark.parametrize(
    ("status", "completed_at", "ended"),
    [
        ("created", None, False),
        ("in_progress", "2026-01-01T00:00:00Z", False),
        ("done", None, True),
        ("partial_done", None, True),
        ("failed", None, True),
        ("cancelled", None, True),
        ("archived", None, False),
        ("archived", "2026-01-01T00:00:00Z", True),
        (None, None, False),
    ],
)
def test_operation_ends_in_a_final_state_or_with_an_end(status, completed_at, ended):
    assert rules.operation_ended({"status": status, "completed_at": completed_at}) is ended


@pytest.mark.parametrize(
    ("error", "message"), [({"message": "Boom"}, "Boom"), ("Boom", "Boom"), (None, None), ({}, None)]
)
def test_an_operation_is_described_with_its_numbers(error, message):
    result = {"completed_items": [{"item_id": 1}, 7], "failed_items": [{"item_id": 2}, {"item_id": 3}]}

    assert rules.describe_operation({"id": 9, "status": "done", "error": error, "result": result}) == {
        "operation_id": "9",
        "operation_type": None,
        "status": "done",
        "started_at": None,
        "completed_at": None,
        "error": message,
        "completed": 1,
        "failed": 2,
    }
