"""Which row of the list of replacements is the request that was sent."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import UnexpectedResponse
from airflow_provider_workflows.rules.procore_presets import check_assignees, is_request

SENT = {
    "replacement_type": "temporary",
    "old_assignee_id": "1",
    "new_assignee_ids": ["2", "3"],
    "modify_project_roles": False,
    "reason": "On leave  until autumn",
    "start_date": "2026-07-01",
    "end_date": "2026-09-30",
    "project_ids": ["7"],
    "tools": [{"type": "correspondence", "sub_type": "-1"}],
    "new_workflow_manager_id": "4",
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
        {"tools": [{"type": "drawing"}]},
        {"tools": [{"type": "correspondence", "sub_type": "-2"}]},
        {"new_workflow_manager": {"id": "5"}},
        {"created_by": {"id": "8"}},
    ],
)
def test_row_that_contradicts_is_not_the_sent_request(more):
    assert is_request({**ROW, **more}, SENT, "9") is False


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"old_assignee_id": "1"},
        {"new_assignee_ids": ["2", "3"]},
        {**ROW, "updated_by": {"id": "8"}},
        {**ROW, "project_ids": []},
        {**ROW, "tools": None},
        {**ROW, "new_workflow_manager": None},
    ],
)
def test_row_that_does_not_show_the_people_is_unclear(row):
    assert is_request(row, SENT, "9") is None


@pytest.mark.parametrize("more", [{"project_ids": ["7"]}, {"tools": ["drawing"]}, {"new_workflow_manager": {"id": 4}}])
def test_row_with_a_limit_that_was_not_requested_is_unclear(more):
    sent = {
        name: value for name, value in SENT.items() if name not in ("project_ids", "tools", "new_workflow_manager_id")
    }

    assert is_request({**ROW, **more}, sent, "9") is None
    assert is_request({**ROW, **dict.fromkeys(more)}, sent, "9") is True


# --- what a change has to send again ---

GROUP = {"responsible_group_uuid": "g1", "assignees": [{"id": "1"}]}
STEP = {"step_uuid": "s1", "logins": [{"id": "2"}]}


@pytest.mark.parametrize(
    "preset",
    [
        {"responsible_group_memberships": []},
        {"responsible_group_memberships": [GROUP, {"responsible_group_uuid": "g2", "assignees": []}]},
        {"responsible_group_memberships": [GROUP], "individual_assignees": [STEP, {"step_uuid": "s2", "logins": []}]},
        {"responsible_group_memberships": [GROUP], "individual_assignees": None},
        {"responsible_group_memberships": [GROUP], "individual_assignees": [{"step_uuid": "s1", "assignees": ["2"]}]},
    ],
)
def test_preset_that_shows_all_its_people_can_be_changed(preset):
    check_assignees(preset)


@pytest.mark.parametrize(
    "preset",
    [
        {},
        {"responsible_group_memberships": None},
        {"responsible_group_memberships": [GROUP, None]},
        {"responsible_group_memberships": [GROUP, GROUP]},
        {"responsible_group_memberships": [{**GROUP, "assignees": None}]},
        {"responsible_group_memberships": [{"responsible_group_uuid": "g1", "login_ids": ["1"]}]},
        {"responsible_group_memberships": [{"assignees": []}]},
        {"responsible_group_memberships": [{**GROUP, "assignees": [{"login": "a"}]}]},
        {"responsible_group_memberships": [GROUP], "individual_assignees": [{"step_uuid": "s1", "people": []}]},
        {"responsible_group_memberships": [GROUP], "individual_assignees": {"data": []}},
    ],
)
def test_preset_that_hides_people_is_not_changed(preset):
    with pytest.raises(UnexpectedResponse, match="groups and individual assignees"):
        check_assignees(preset)
