"""An item's approval in Legacy or v2: what is an outcome, what was left behind, and which tool decides."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import AmbiguousOrder
from airflow_provider_workflows.rules import procore_item as rules
from tests.unit.rules.test_procore_legacy import described

SUBMITTED = {
    "workflow_state_id": "18706",
    "workflow_activity_name": "Submit for Approval",
    "bic_start": "2018-02-13T17:56:49Z",
    "created_at": "2018-02-14T21:46:03Z",
    "performed_by_name": "Pat",
}
APPROVED = {
    "workflow_state_id": "18707",
    "workflow_activity_name": "Approve",
    "bic_start": "2018-02-14T21:46:03Z",
    "created_at": "2018-02-15T08:00:00Z",
    "performed_by_name": "Rita",
}
HISTORY = [APPROVED, SUBMITTED]  # the newest first
NO_NAMES = [{key: row[key] for key in ("bic_start", "created_at")} for row in HISTORY]
RUNNING = described()
FINAL = described(state="PO Approved", state_id="18708", status="Approved", activities=[])
DRAFT = described(state="Draft", state_id="18700", status="Draft", activities=[])
STALLED = described(activities=[])  # in a state in which people respond
TERMINATED = described(terminated_at="2018-03-01T00:00:00Z")


def stage(instance, histories=HISTORY, until=(), seen=None, is_over=True, is_old=False):
    return rules.stage_of(instance, until=until, histories=histories, seen=seen, is_over=is_over, is_old=is_old)


# --- Legacy: an outcome, or left behind ---


@pytest.mark.parametrize(
    ("instance", "histories", "until", "expected"),
    [
        (RUNNING, HISTORY, (), "open"),
        (RUNNING, HISTORY, ["pending approval"], "complete"),
        (FINAL, HISTORY, (), "complete"),
        (FINAL, HISTORY, ["po approved"], "complete"),
        (FINAL, HISTORY, ["Rejected"], "elsewhere"),
        (FINAL, NO_NAMES, (), "idle"),
        (FINAL, NO_NAMES, ["18708"], "complete"),
        (FINAL, None, (), "idle"),
        (FINAL, None, ["Approved"], "complete"),
        (FINAL, [], (), "idle"),
        (FINAL, [], ["Approved"], "idle"),
        (STALLED, HISTORY, (), "idle"),
        (STALLED, HISTORY, ["Pending Approval"], "idle"),
        (DRAFT, [], (), "idle"),
        (DRAFT, HISTORY, (), "idle"),
        (DRAFT, HISTORY, ["draft"], "idle"),
        (DRAFT, HISTORY, ["18700"], "complete"),
        (DRAFT, NO_NAMES, ["18700"], "idle"),
        ({**FINAL, "state_id": None}, HISTORY, (), "idle"),
        (TERMINATED, HISTORY, (), "terminated"),
        (TERMINATED, HISTORY, ["Pending Approval"], "terminated"),
        (TERMINATED, HISTORY, ["Terminated"], "complete"),
    ],
)
def test_only_a_named_or_proven_final_state_is_an_outcome(instance, histories, until, expected):
    assert stage(instance, histories, until) == expected


@pytest.mark.parametrize("instance", [FINAL, DRAFT, STALLED])
def test_short_time_without_activities_shows_nothing(instance):
    assert stage(instance, is_over=False) == "between"


def test_proven_final_state_of_long_ago_needs_no_wait():
    assert stage(FINAL, is_over=False, is_old=True) == "complete"
    assert stage(STALLED, is_over=False, is_old=True) == "between"
    assert stage(FINAL, NO_NAMES, is_over=False, is_old=True) == "between"


@pytest.mark.parametrize("histories", [HISTORY, NO_NAMES, None, []])
def test_state_that_was_seen_with_an_activity_is_not_final(histories):
    seen = {**FINAL, "activities": RUNNING["activities"]}

    assert stage(FINAL, histories, ["PO Approved"], seen=seen) == "idle"


# --- the decision in Legacy ---


def test_activity_that_led_to_the_state_is_the_decision():
    assert rules.legacy_decision(FINAL, HISTORY) == {
        "option": "Approve",
        "type": None,
        "by": "Rita",
        "at": "2018-02-15T08:00:00Z",
        "source": "activity",
        "candidates": [],
        "problem": None,
    }


def test_roles_with_the_same_activity_have_decided_together():
    both = [{**APPROVED, "performed_by_name": "Dana"}, *HISTORY]

    decision = rules.legacy_decision(FINAL, both)

    assert (decision["option"], decision["by"], decision["problem"]) == ("Approve", None, None)


@pytest.mark.parametrize(
    ("histories", "candidates"),
    [
        (None, []),
        ([], []),
        (NO_NAMES, []),
        ([{**APPROVED, "workflow_activity_name": "Deny"}, *HISTORY], ["Deny", "Approve"]),
    ],
)
def test_unknown_decision_of_legacy_is_a_problem_not_a_guess(histories, candidates):
    decision = rules.legacy_decision(FINAL, histories)

    assert (decision["option"], decision["source"], decision["candidates"]) == (None, None, candidates)
    assert decision["problem"]


def test_terminated_legacy_instance_has_no_decision():
    assert rules.legacy_decision(TERMINATED, HISTORY) is None


# --- which tool decides ---

V2 = {"instance_id": "700001", "item_id": "1953145", "ended_at": "2018-02-20T00:00:00Z"}


@pytest.mark.parametrize(
    ("moved", "is_newer"),
    [("2018-02-19T00:00:00Z", True), ("2018-02-20T00:00:00Z", True), ("2018-02-21T00:00:00Z", False)],
)
@pytest.mark.parametrize("stage", ["open", "complete", "idle", None])
def test_ended_v2_instance_decides_unless_legacy_moved_later(moved, is_newer, stage):
    assert rules.is_newer_in_v2(V2, described(state_set_at=moved), stage) is is_newer
    assert rules.is_newer_in_v2(V2, None, None)


@pytest.mark.parametrize("stage", ["open", "between", "complete", "elsewhere"])
def test_two_instances_without_times_are_ambiguous(stage):
    with pytest.raises(AmbiguousOrder):
        rules.is_newer_in_v2(V2, described(state_set_at=None), stage)
    assert rules.is_newer_in_v2(V2, described(state_set_at=None), "terminated")


# --- one shape ---

STATES = {"until": ["complete", "terminated"], "fail_on": [], "skip_on": []}
ITEM = {"item_id": "1953145", "tool_type": "purchase_order_contract", "project_id": "1001"}


def legacy_outcome(instance=FINAL, stage="complete", **states):
    decision = rules.legacy_decision(instance, HISTORY)
    seen = rules.seen_of_legacy({**instance, "seen_at": "2018-03-01T00:00:00Z"}, None)
    return rules.legacy_outcome(
        instance, stage, decision, seen, item=ITEM, legacy_until=["Rejected"], **{**STATES, **states}
    )


def v2_outcome(state="complete", **states):
    names = ("step", "item_status", "decision", "last_response", "started_at", "blocked_reason")
    instance = {**dict.fromkeys(names), **V2, "state": state, "ambiguous": [], "project_id": "1001"}
    return rules.v2_outcome(instance, None, ITEM["tool_type"], **{**STATES, **states})


def test_both_tools_have_one_shape_that_names_the_tool():
    legacy, v2 = legacy_outcome().result, v2_outcome().result

    assert legacy.keys() == v2.keys()
    assert (legacy["engine"], v2["engine"]) == ("procore_legacy", "procore")
    assert {key: legacy[key] for key in ("instance_id", "item_id", "state", "item_status", "ended_at")} == {
        "instance_id": "568150",
        "item_id": "1953145",
        "state": "complete",
        "item_status": "Approved",
        "ended_at": FINAL["state_set_at"],
    }


@pytest.mark.parametrize("outcome", [legacy_outcome, v2_outcome])
@pytest.mark.parametrize(
    ("states", "action"),
    [
        ({}, "succeed"),
        ({"fail_on": ["complete"]}, "fail"),
        ({"skip_on": ["complete"]}, "skip"),
        ({"until": ["terminated"]}, "fail"),
    ],
)
def test_target_states_apply_to_both_tools(outcome, states, action):
    assert outcome(**states).action == action


def test_running_v2_instance_has_no_outcome():
    names = {"ended_at": None}
    instance = {**dict.fromkeys(("step", "item_status", "decision", "started_at")), **V2, **names}

    assert (
        rules.v2_outcome(
            {**instance, "state": "in_progress", "ambiguous": [], "project_id": "1001"}, None, "any", **STATES
        )
        is None
    )


def test_legacy_end_in_a_state_that_was_not_named_fails():
    found = legacy_outcome(stage="elsewhere")

    assert (found.action, found.result["engine"]) == ("fail", "procore_legacy")
    assert "Rejected" in found.reason


# --- left behind ---


def test_reason_of_a_stuck_item_names_what_was_seen_and_the_switch():
    seen = {**RUNNING, "ball_in_court": ["Rita"], "seen_at": "2018-02-20T00:00:00Z"}

    reason = rules.stuck_reason("purchase_order_contract", "1953145", "568150", seen, {"how": "gone", "since": 0.0})

    for part in ("568150", "1953145", "Pending Approval", "Rita", "1970-01-01T00:00:00Z", "ProcoreItemSensor"):
        assert part in reason


@pytest.mark.parametrize(
    ("left", "how", "expected"),
    [
        (None, None, (None, None)),
        (None, "unchanged", ("unchanged", None)),
        ({"how": "gone", "since": 60.0}, "unchanged", ("gone", "1970-01-01T00:01:00Z")),
    ],
)
def test_what_was_seen_says_how_it_was_left_behind(left, how, expected):
    seen = rules.seen_of_legacy({**RUNNING, "seen_at": "x"}, left, how)

    assert (seen["left"], seen["left_at"]) == expected
    assert seen["state"] == "Pending Approval"
    assert rules.seen_of_legacy(None, left, how) is None
