"""Which row of the list of replacements is the request that was sent."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.rules.procore_presets import is_request

SENT = {
    "replacement_type": "temporary",
    "old_assignee_id": "1",
    "new_assignee_ids": ["2", "3"],
    "modify_project_roles": False,
    "reason": "On leave  until autumn",
    "start_date": "2026-07-01",
    "end_date": "2026-09-30",
    "project_ids": ["7"],
}
ROW = {"old_assignee_id": 1, "new_assignee_ids": ["3", 2]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"old_assignee_id": None, "old_assignee": {"id": "1", "login": "x"}},
        {"new_assignee_ids": None, "new_assignees": [{"id": 2}, {"id": "3"}]},
        {"reason": "On leave until autumn"},
        {"reason": "On leave ..."},
        {"reason": "On lea…"},
        {"reason": None},
        {"start_date": "2026-07-01T00:00:00Z", "end_date": "2026-09-30T23:59:59Z"},
        {"start_date": "2026-06-30T22:00:00Z"},
        {"start_date": "2026-07-01T00:00:00-08:00", "end_date": "2026-09-30T23:59:59-10:00"},
        {"end_date": "2026-10-01T00:00:00Z"},
        {"start_date": None},
        {"type": "Temporary"},
        {"modify_project_roles": False, "project_ids": [7]},
        {"projects": [{"id": "7"}]},
        {"created_by": {"id": "9"}, "updated_by": {"id": "8"}},
        {"updated_by": {"id": 9}},
    ],
)
def test_row_with_the_same_people_is_the_request_in_any_format(more):
    assert is_request({**ROW, **more}, SENT, "9") is True


@pytest.mark.parametrize(
    "more",
    [
        {"old_assignee_id": "4"},
        {"new_assignee_ids": ["2"]},
        {"new_assignee_ids": ["2", "3", "4"]},
        {"reason": "On leave until autumn, or winter"},
        {"reason": "Ill"},
        {"start_date": "2026-07-02"},
        {"end_date": "2026-10-02T00:00:00Z"},
        {"start_date": "2026-07-02T00:00:00Z"},
        {"start_date": "2026-06-30T00:00:00Z"},
        {"end_date": "2026-09-29T00:00:00Z"},
        {"replacement_type": "permanent"},
        {"modify_project_roles": True},
        {"project_ids": ["8"]},
        {"created_by": {"id": "8"}},
    ],
)
def test_row_that_contradicts_is_not_the_sent_request(more):
    assert is_request({**ROW, **more}, SENT, "9") is False


@pytest.mark.parametrize(
    "row", [{}, {"old_assignee_id": "1"}, {"new_assignee_ids": ["2", "3"]}, {**ROW, "updated_by": {"id": "8"}}]
)
def test_row_that_does_not_show_the_people_is_unclear(row):
    assert is_request(row, SENT, "9") is None
