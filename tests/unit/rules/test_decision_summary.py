"""Who decided what when: the same members for the results of all products, and no text of a person."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.rules.decision_summary import summary_of

RESPONSE = {
    "instance_id": "700001",
    "item_id": "5001",
    "step": "Budget Check",
    "step_occurrence_id": "1",
    "option": "Approve",
    "type": "approve",
    "comment": "secret words",
    "user_id": "90001",
}
DECISION = {"option": "Reject", "type": "reject", "by": "dana@example.com", "at": "2026-05-04T10:00:00Z"}


def test_response_says_who_decided_what_when():
    assert summary_of(RESPONSE, decided_at="2026-05-04T10:00:00Z") == {
        "instance_id": "700001",
        "item_id": "5001",
        "step": "Budget Check",
        "step_occurrence_id": "1",
        "decision": "Approve",
        "decision_type": "approve",
        "decided_by": "90001",
        "decided_at": "2026-05-04T10:00:00Z",
    }


@pytest.mark.parametrize("key", ["decision", "occurrence", "outcome"])
def test_decision_of_a_wait_is_found_where_the_result_has_it(key):
    comments = {
        "decision": {"decision": DECISION, "last_response": {"option": "Approve", "by": "kim@example.com"}},
        "occurrence": {"decision": {**DECISION, "option": "x"}, "occurrence": {"decision": DECISION}},
        "outcome": {"outcome": {"state": "complete", "decision": DECISION}},
    }[key]

    summary = summary_of({"instance_id": "1", "state": "complete", **comments})

    assert {name: summary[name] for name in ("decision", "decided_by", "decided_at", "state")} == {
        "decision": "Reject",
        "decided_by": "dana@example.com",
        "decided_at": "2026-05-04T10:00:00Z",
        "state": "complete",
    }


def test_legacy_activity_names_its_performer_and_the_next_state():
    summary = summary_of(
        {
            "instance_id": "568150",
            "activity": "Approve",
            "performed_by": "Kim Lee",
            "performed_at": "2026-05-04T10:00:00Z",
            "state_after": {"id": "2", "name": "Approved"},
            "comments": "secret words",
        }
    )

    assert summary == {
        "instance_id": "568150",
        "decision": "Approve",
        "decided_by": "Kim Lee",
        "decided_at": "2026-05-04T10:00:00Z",
        "state": "Approved",
    }


@pytest.mark.parametrize(
    ("result", "summary"),
    [
        (None, {}),
        ([{}, {}], {"results": 2}),
        ("x", {}),
        ({"option": None, "type": ""}, {}),
        ({**RESPONSE, "dry_run": True}, {}),
    ],
)
def test_what_is_unknown_is_missing(result, summary):
    assert summary_of(result, decided_at=None) == summary
