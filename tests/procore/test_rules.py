from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import check_choice, check_required, listed, one_of, text_id
from airflow_provider_workflows.rules.times import parse_time

BUDGET_CHECK = {
    "id": 11,
    "name": "Budget Check",
    "started_at": "2026-01-01T08:00:00Z",
    "ended_at": "2026-01-02T08:00:00Z",
    "status": "Under Review",
    "available_response_options": [{"id": 1, "name": "Approve", "response_type": "approve"}],
    "responses": [
        {
            "id": 90001,
            "login": "integration@example.com",
            "response": "Approve",
            "response_type": "approve",
            "comment": "ok",
            "responded_at": "2026-01-02T08:00:00Z",
        }
    ],
}
DIRECTOR = {
    "id": 12,
    "name": "Director Approval",
    "started_at": "2026-01-02T08:00:00Z",
    "ended_at": None,
    "status": "Pending Director",
    "responses": [{"id": 90004, "response": None, "responded_at": None}],
}
END = {
    "id": 13,
    "name": "Approved",
    "started_at": "2026-01-03T00:00:00Z",
    "ended_at": "2026-01-03T00:00:00Z",
    "end_type": "success",
    "status": "Approved",
}
STARTED = {"type": "WorkflowStarted", "details": {"started_at": "2026-01-01T08:00:00Z"}}


def event(kind: str, details: dict) -> dict:
    return {"type": kind, "details": details}


def describe(*events: dict, **beside: object) -> dict:
    history = {**beside, "history": [STARTED, *events]}
    return rules.describe_instance(history, instance_id="7", item_id="5001")


def test_a_running_instance_is_described_from_its_events_alone():
    instance = describe(event("ResponseStep", BUDGET_CHECK), event("ResponseStep", DIRECTOR))

    assert instance == {
        "instance_id": "7",
        "item_id": "5001",
        "state": "in_progress",
        "step": "Director Approval",
        "item_status": "Pending Director",
        "last_response": {
            "option": "Approve",
            "type": "approve",
            "comment": "ok",
            "by": "integration@example.com",
            "at": "2026-01-02T08:00:00Z",
        },
        "started_at": "2026-01-01T08:00:00Z",
        "ended_at": None,
        "blocked_reason": None,
    }


def test_the_status_that_the_server_gives_beats_the_derived_one():
    instance = describe(event("ResponseStep", DIRECTOR), status="overdue", blocked_reason=None)

    assert instance["state"] == "overdue"


@pytest.mark.parametrize(
    ("last", "state", "ended_at"),
    [
        (event("EndStep", END), "complete", "2026-01-03T00:00:00Z"),
        (
            event("WorkflowTerminated", {"terminated_at": "2026-01-04T00:00:00Z"}),
            "terminated",
            "2026-01-04T00:00:00Z",
        ),
    ],
)
def test_an_ended_instance_is_recognised_from_its_last_event(last, state, ended_at):
    instance = describe(event("ResponseStep", BUDGET_CHECK), last)

    assert (instance["state"], instance["ended_at"], instance["step"]) == (state, ended_at, None)


def test_a_step_that_is_only_planned_is_neither_current_nor_the_items_status():
    planned_end = event("EndStep", {**END, "started_at": None, "ended_at": None})

    instance = describe(event("ResponseStep", DIRECTOR), planned_end)

    assert (instance["state"], instance["step"], instance["item_status"]) == (
        "in_progress",
        "Director Approval",
        "Pending Director",
    )


def test_unknown_events_and_missing_details_do_not_break_the_description():
    odd = [event("HologramStep", {"name": "?"}), {"type": "ResponseStep"}, {"details": None}, "nonsense"]

    assert describe(*odd, event("ResponseStep", DIRECTOR))["step"] == "Director Approval"
    assert rules.describe_instance({}, instance_id="7", item_id=None)["state"] == "in_progress"


def decide(state: str, ended_at: str | None = None, **words: set[str]):
    words = {"until": {"complete"}, "fail_on": set(), "skip_on": set(), **words}
    return rules.decide_instance({"instance_id": "7", "state": state, "ended_at": ended_at}, **words)


def test_a_wait_goes_on_while_no_named_state_is_reached():
    assert decide("in_progress", fail_on={"terminated"}) is None


def test_a_named_state_ends_the_wait_as_the_author_said():
    assert decide("complete").word == "succeed"
    assert decide("terminated", fail_on={"terminated"}).word == "fail"
    assert decide("terminated", skip_on={"terminated"}).word == "skip"
    assert decide("overdue", until={"overdue"}).word == "succeed"


def test_an_instance_that_ended_otherwise_fails_the_wait_instead_of_lasting_for_ever():
    verdict = decide("terminated", ended_at="2026-01-01T00:00:00Z")

    assert verdict.word == "fail"
    assert "ended without reaching complete" in verdict.reason


def instance_at(step: dict | None, **beside: object) -> dict:
    return {"id": 7, "item_id": 5001, "tool_type": "po", "current_step_occurrence": step, **beside}


STEP = {
    "id": 31,
    "name": "Budget Check",
    "started_at": "2026-01-01T08:00:00Z",
    "available_response_options": [
        {"id": 1, "name": "Approve", "response_type": "approve"},
        {"id": 2, "name": "Approve as noted", "response_type": "approve"},
        {"id": 3, "name": "Reject", "response_type": "reject"},
    ],
    "response_occurrences": [
        {"assignee": {"id": 90001, "login": "integration@example.com"}, "submitted_at": None},
        {
            "assignee": {"id": 90004},
            "submitted_at": "2026-01-01T09:00:00Z",
            "selected_response_option": {"id": 3, "name": "Reject", "response_type": "reject"},
            "comment": "no",
        },
    ],
}


def test_an_instance_asks_only_those_who_have_not_answered_yet():
    assert rules.response_request(instance_at(STEP), "90001")["step_occurrence_id"] == "31"
    assert rules.response_request(instance_at(STEP), "90004") is None
    assert rules.response_request(instance_at(None), "90001") is None
    assert rules.response_request(instance_at(STEP, ended_at="2026-01-05T00:00:00Z"), "90001") is None


def test_the_guides_older_name_of_the_options_is_read_too():
    older = {"available_responses": [{"id": "1", "name": "Approve", "response_type": "approve"}]}

    assert rules.response_options(older) == [{"id": "1", "name": "Approve", "type": "approve"}]


def test_an_option_is_chosen_by_label_in_any_case_by_id_or_by_type():
    options = rules.response_options(STEP)

    assert rules.choose_option(options, name="REJECT")["id"] == "3"
    assert rules.choose_option(options, option_id="2")["name"] == "Approve as noted"
    assert rules.choose_option(options, option_type="reject")["id"] == "3"


@pytest.mark.parametrize(
    ("wish", "problem"),
    [({"name": "Aprove"}, "does not exist"), ({"option_type": "approve"}, "is ambiguous")],
)
def test_an_option_that_is_unknown_or_ambiguous_is_refused_with_the_candidates(wish, problem):
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        rules.choose_option(rules.response_options(STEP), **wish)
    assert "'Approve' (id 1, type approve)" in str(refusal.value)


def test_a_recorded_response_is_found_at_the_current_step_and_in_the_history():
    at_step = rules.recorded_response(instance_at(STEP), "31", "90004")
    in_history = rules.recorded_in_history({"history": [event("ResponseStep", BUDGET_CHECK)]}, "11", "90001")

    assert (at_step["id"], at_step["name"], at_step["comment"]) == ("3", "Reject", "no")
    assert (in_history["id"], in_history["name"], in_history["comment"]) == ("1", "Approve", "ok")


def test_a_response_of_another_visit_or_of_another_user_is_not_ours():
    history = {"history": [event("ResponseStep", BUDGET_CHECK), event("EndStep", END)]}

    assert rules.recorded_response(instance_at(STEP), "30", "90004") is None
    assert rules.recorded_response(instance_at(STEP), "31", "90001") is None
    assert rules.recorded_in_history(history, "12", "90001") is None
    assert rules.recorded_in_history(history, "11", "90002") is None


def test_the_idempotency_token_changes_with_every_part_of_the_action():
    parts = ("c", "i", "s", "u", "o", "comment", {})
    tokens = {rules.idempotency_token(*parts[:n], "other", *parts[n + 1 :]) for n in range(len(parts))}

    assert len(tokens | {rules.idempotency_token(*parts)}) == len(parts) + 1
    assert rules.idempotency_token(*parts) == rules.idempotency_token(*parts)


def test_the_newest_instance_of_an_item_is_the_running_one_else_the_latest():
    ended = [
        {"id": 1, "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-02T00:00:00Z"},
        {"id": 2, "started_at": "2026-01-03T00:00:00Z", "ended_at": "2026-01-04T00:00:00Z"},
    ]

    assert rules.newest_instance(ended) == "2"
    assert rules.newest_instance([*ended, {"id": 3, "started_at": "2025-01-01T00:00:00Z", "ended_at": None}]) == "3"


def test_times_are_read_as_utc_and_nonsense_as_no_time():
    assert parse_time("2026-01-01T02:00:00+02:00").isoformat() == "2026-01-01T00:00:00+00:00"
    assert parse_time("2026-01-01T00:00:00").timezone_name == "UTC"
    assert [parse_time(text) for text in (None, "", "soon", "P1D")] == [None] * 4


def test_parameters_are_refused_by_name():
    with pytest.raises(ConfigurationError, match="exactly one of instance_id, item_id; none of them was"):
        one_of(instance_id=None, item_id=None)
    with pytest.raises(ConfigurationError, match="instance_id and item_id were"):
        one_of(instance_id="1", item_id="2")
    with pytest.raises(ConfigurationError, match="instance_id is missing or was rendered empty"):
        one_of(instance_id="None", item_id=None)
    with pytest.raises(ConfigurationError, match="tool_type"):
        check_required(tool_type=" ")
    with pytest.raises(ConfigurationError, match="on_step_moved must be one of fail, skip; got 'retry'"):
        check_choice("on_step_moved", "retry", ("fail", "skip"))
    assert (text_id(7), text_id(None), listed("a"), listed(("a", "b"))) == ("7", None, ["a"], ["a", "b"])
