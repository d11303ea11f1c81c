from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import (
    as_list,
    check_choice,
    check_required,
    require_exactly_one,
    str_id,
)
from airflow_provider_workflows.rules.procore_decisions import STEP_EVENTS

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
        "decision": {
            "option": "Approve",
            "type": "approve",
            "by": "integration@example.com",
            "at": "2026-01-02T08:00:00Z",
            "source": "responses",
            "candidates": [],
            "problem": None,
        },
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
        "ambiguous": [],
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


def test_planned_step_is_neither_current_nor_the_items_status():
    planned_end = event("EndStep", {**END, "started_at": None, "ended_at": None})

    instance = describe(event("ResponseStep", DIRECTOR), planned_end)

    assert (instance["state"], instance["step"], instance["item_status"]) == (
        "in_progress",
        "Director Approval",
        "Pending Director",
    )


def test_unknown_events_and_missing_details_are_tolerated():
    malformed = [event("HologramStep", {"name": "?"}), {"type": "ResponseStep"}, {"details": None}, "nonsense"]

    assert describe(*malformed, event("ResponseStep", DIRECTOR))["step"] == "Director Approval"
    assert rules.describe_instance({}, instance_id="7", item_id=None)["state"] == "in_progress"


def decide(state: str, ended_at: str | None = None, **states: set[str]):
    states = {"until": {"complete"}, "fail_on": set(), "skip_on": set(), **states}
    return rules.evaluate_instance({"instance_id": "7", "state": state, "ended_at": ended_at}, **states)


def test_a_wait_continues_while_no_named_state_is_reached():
    assert decide("in_progress", fail_on={"terminated"}) is None


def test_a_named_state_ends_the_wait_as_configured():
    assert decide("complete").action == "succeed"
    assert decide("terminated", fail_on={"terminated"}).action == "fail"
    assert decide("terminated", skip_on={"terminated"}).action == "skip"
    assert decide("overdue", until={"overdue"}).action == "succeed"


def test_instance_that_ended_otherwise_fails_the_wait():
    wait_result = decide("terminated", ended_at="2026-01-01T00:00:00Z")

    assert wait_result.action == "fail"
    assert "ended without reaching complete" in wait_result.reason


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


@pytest.mark.parametrize(
    ("named", "row"),
    [
        ([], {"role_type": "commenter"}),
        ([{"id": "90001", "role_type": "Commenter"}], {}),
        ([{"id": 90001, "role_type": "commenter"}, {"id": 90001, "role_type": "responder"}], None),
    ],
)
def test_commenter_has_no_response_request(named, row):
    rows = [{**STEP["response_occurrences"][0], **(row or {})}]
    step = {**STEP, "response_occurrences": rows, "individual_assignees": named}

    assert (rules.response_request(instance_at(step), "90001") is None) == (row is not None)


def test_only_a_pending_assignee_has_a_response_request():
    assert rules.response_request(instance_at(STEP), "90001")["step_occurrence_id"] == "31"
    assert rules.response_request(instance_at(STEP), "90004") is None
    assert rules.response_request({**instance_at(STEP), "item_id": None}, "90001")["item_id"] is None
    assert rules.response_request(instance_at(None), "90001") is None
    assert rules.response_request(instance_at(STEP, ended_at="2026-01-05T00:00:00Z"), "90001") is None


@pytest.mark.parametrize(
    ("history", "otherwise"),
    [
        ({"status": "complete", "history": []}, True),
        ({"status": "terminated", "history": []}, False),
        ({"status": "in_progress", "history": []}, None),
        ({"history": []}, None),
        ({"history": [{"type": "EndStep", "details": {**END, "end_type": None}}]}, False),
        ({"history": [{"type": "WorkflowTerminated", "details": {"terminated_by": {"id": 90001}}}]}, False),
        ({"history": [{"type": "WorkflowTerminated", "details": {"terminated_by": {"id": 90004}}}]}, True),
    ],
)
def test_end_of_an_instance_is_by_a_user_or_otherwise(history, otherwise):
    assert rules.ended_otherwise(history, "90001") is otherwise


@pytest.mark.parametrize(
    ("record", "position"),
    [
        (instance_at(STEP, ended_at=None), "at_step"),
        (instance_at(STEP, ended_at=""), "at_step"),
        (instance_at(None, ended_at=None), "between_steps"),
        (instance_at(None, ended_at=" "), "between_steps"),
        (instance_at({"id": None}), "between_steps"),
        (instance_at(None, ended_at="2026-01-05T00:00:00Z"), "ended"),
        (instance_at(STEP, ended_at="2026-01-05T00:00:00Z"), "ended"),
        ({"status": "Complete", "ended_at": None}, "ended"),
        ({"state": "terminated", "ended_at": None}, "ended"),
        ({"status": "in_progress", "ended_at": None}, "between_steps"),
    ],
)
def test_no_current_step_is_between_two_steps_not_the_end(record, position):
    assert rules.is_between_steps(record) is (position == "between_steps")
    assert rules.has_ended(record) is (position == "ended")


def test_the_guides_older_name_of_the_options_is_read_too():
    older = {"available_responses": [{"id": "1", "name": "Approve", "response_type": "approve"}]}

    assert rules.response_options(older) == [{"id": "1", "name": "Approve", "type": "approve"}]


def test_idempotency_token_changes_with_every_part_of_the_action():
    parts = ("c", "i", "s", "u", "o", "comment", {})
    tokens = {rules.idempotency_token(*parts[:n], "other", *parts[n + 1 :]) for n in range(len(parts))}

    assert len(tokens | {rules.idempotency_token(*parts)}) == len(parts) + 1
    assert rules.idempotency_token(*parts) == rules.idempotency_token(*parts)


def test_newest_instance_of_an_item_is_active_else_the_latest():
    ended = [
        {"id": 1, "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-02T00:00:00Z"},
        {"id": 2, "started_at": "2026-01-03T00:00:00Z", "ended_at": "2026-01-04T00:00:00Z"},
    ]

    assert rules.newest_instance(ended) == "2"
    assert rules.newest_instance([*ended, {"id": 3, "started_at": "2025-01-01T00:00:00Z", "ended_at": None}]) == "3"


def test_parameters_are_rejected_by_name():
    with pytest.raises(ConfigurationError, match="exactly one of instance_id, item_id; got none"):
        require_exactly_one(instance_id=None, item_id=None)
    with pytest.raises(ConfigurationError, match="got instance_id and item_id"):
        require_exactly_one(instance_id="1", item_id="2")
    with pytest.raises(ConfigurationError, match="instance_id is missing or was rendered empty"):
        require_exactly_one(instance_id="None", item_id=None)
    with pytest.raises(ConfigurationError, match="tool_type"):
        check_required(tool_type=" ")
    with pytest.raises(ConfigurationError, match="on_step_moved must be one of fail, skip; got 'retry'"):
        check_choice("on_step_moved", "retry", ("fail", "skip"))
    assert (str_id(7), str_id(None), as_list("a"), as_list(("a", "b"))) == ("7", None, ["a"], ["a", "b"])


@pytest.mark.parametrize("ended_at", [None, "", "  ", False])
def test_only_an_end_that_is_not_empty_is_an_end(ended_at):
    running = instance_at(STEP, ended_at=ended_at)

    assert not rules.has_ended(running)
    assert rules.current_step(running) == STEP
    assert rules.is_between_steps(instance_at(None, ended_at=ended_at))
    assert rules.has_ended(instance_at(STEP, ended_at="2026-01-05T00:00:00Z"))


@pytest.mark.parametrize(
    ("row", "requested", "fits"),
    [
        ({"tool_type": "purchase_order_contract"}, {"tool_type": "PurchaseOrderContract"}, True),
        ({"tool_type": "correspondence"}, {"tool_type": "purchase_order_contract"}, False),
        ({"item_id": 7}, {"item_id": "7"}, True),
        ({"item_id": "8"}, {"item_id": "7"}, False),
        ({}, {"item_id": "7", "tool_type": "po", "active": False}, True),
        ({"tool_subtype": "-1"}, {"tool_subtype": "-2"}, False),
        ({"ended_at": None}, {"active": False}, False),
        ({"ended_at": "2026-01-05T00:00:00Z"}, {"active": True}, False),
        ({"ended_at": ""}, {"active": True}, True),
    ],
)
def test_row_is_compared_with_what_was_requested(row, requested, fits):
    assert rules.matches_filters(row, **requested) is fits


# --- occurrences of a step ---


def occurrence(
    number: int, name: str, started: str | None, ended: str | None = None, option: str | None = None
) -> dict:
    responses = [{"id": 1, "login": "a@example.com", "response": option, "responded_at": ended}] if option else []
    details = {"id": number, "uuid": f"U-{name}", "name": name, "started_at": started, "ended_at": ended}
    return event("ResponseStep", {**details, "responses": responses})


ROUND = {
    "history": [
        STARTED,
        occurrence(1, "Check", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "Return"),
        occurrence(2, "Correct", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"),
        occurrence(3, "Check", "2026-01-03T00:00:00Z", "2026-01-04T00:00:00Z", "Approve"),
        occurrence(4, "Sign", "2026-01-04T00:00:00Z"),
        occurrence(5, "File", None),
    ]
}


def found(step: str, **desired) -> str | None:
    occurrence = rules.find_occurrence(ROUND, step, **desired)
    return None if occurrence is None else occurrence["step_occurrence_id"]


def test_first_occurrence_of_a_step_is_found_by_name_or_uuid():
    assert found("check") == found("u-CHECK") == "1"
    assert rules.find_occurrence(ROUND, "Check") == {
        "step": "Check",
        "step_occurrence_id": "1",
        "started_at": "2026-01-01T00:00:00Z",
        "ended_at": "2026-01-02T00:00:00Z",
        "decision": {
            "option": "Return",
            "type": None,
            "by": "a@example.com",
            "at": "2026-01-02T00:00:00Z",
            "source": "responses",
            "candidates": [],
            "problem": None,
        },
        "response": {
            "option": "Return",
            "type": None,
            "comment": None,
            "by": "a@example.com",
            "at": "2026-01-02T00:00:00Z",
        },
    }


def test_only_occurrences_after_an_occurrence_count():
    assert found("Check", after="1") == "3"
    assert found("Check", after="3") is None
    assert found("Sign", after="3") == "4"
    assert found("Check", after="not shown yet") is None


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2026-01-01T00:00:00Z", "1"),  # that very second counts
        ("2026-01-01T00:00:01Z", "3"),
        ("2026-01-03T01:00:00+01:00", "3"),
        ("2026-01-03T00:00:01Z", None),
    ],
)
def test_only_occurrences_that_started_at_a_time_or_later_count(after, expected):
    assert found("Check", after=after) == expected


@pytest.mark.parametrize("after", ["1999", "10000101", "20260101", "now"])
def test_an_occurrence_that_reads_as_a_date_is_still_an_occurrence(after):
    assert found("Check", after=after) is None


def test_a_step_that_is_only_planned_has_not_been_reached():
    assert found("File") is None
    assert found("Unknown") is None


def test_a_step_is_responded_to_when_it_is_over_with_a_response():
    assert found("Check", decided=True) == "1"
    assert found("Correct", decided=True) is None
    assert found("Sign", decided=True) is None
    half = {"history": [occurrence(1, "Joint", "2026-01-01T00:00:00Z", None)]}
    half["history"][0]["details"]["responses"] = [
        {"id": 1, "response": "Approve", "responded_at": "2026-01-01T01:00:00Z"}
    ]
    assert rules.find_occurrence(half, "Joint", decided=True) is None


def test_conditions_actions_and_ends_are_steps_too():
    history = {
        "history": [
            event("Conditional", {"id": 1, "name": "Over 10,000?", "evaluated_at": "2026-01-01T00:00:00Z"}),
            event("Action", {"id": 2, "name": "Stamp", "started_at": "2026-01-02T00:00:00Z"}),
            event("EndStep", END),
        ]
    }

    assert rules.find_occurrence(history, "over 10,000?")["ended_at"] == "2026-01-01T00:00:00Z"
    assert rules.find_occurrence(history, "Stamp", after="2026-01-01T12:00:00Z")["step_occurrence_id"] == "2"
    assert rules.find_occurrence(history, "Approved")["step_occurrence_id"] == "13"


def test_an_occurrence_ends_the_wait_and_a_named_failure_beats_it():
    seen = {"step": "Sign", "started_at": "x"}

    assert decide("in_progress", until=set(), occurrence=seen).action == "succeed"
    assert decide("in_progress", until=set(), occurrence=seen).result["occurrence"] == seen
    assert decide("blocked", until=set(), fail_on={"blocked"}, occurrence=seen).action == "fail"
    assert decide("complete", "2026-01-01T00:00:00Z", until=set(), occurrence=seen).action == "succeed"
    ended = decide("complete", "2026-01-01T00:00:00Z", until=set(), awaited=["step 'Sign' reached"])
    assert (ended.action, "without reaching step 'Sign' reached" in ended.reason) == ("fail", True)


# --- blocked instances, people ---


@pytest.mark.parametrize(
    ("history", "blocked"),
    [
        ({"status": "blocked"}, True),
        ({"status": None, "blocked_reason": "ERP"}, True),
        ({"status": "terminated", "blocked_reason": "ERP", "ended_at": "2026-01-01T00:00:00Z"}, False),
        ({"status": "in_progress", "blocked_reason": None}, False),
        ({}, False),
    ],
)
def test_an_instance_is_blocked_when_the_history_says_so(history, blocked):
    assert rules.is_blocked(history) is blocked


def test_people_are_found_once_by_login_or_id():
    people = [{"id": 1, "login": "A@example.com"}, {"id": "2", "login": None}, {"id": 3}]

    assert rules.people_ids(people, ["a@EXAMPLE.com", "2", "2", "x", "1"]) == (
        {"a@EXAMPLE.com": "1", "2": "2", "1": "1"},
        {"x": "is not a possible assignee of the tool"},
    )
    assert rules.people_ids([], ["None"])[0] == {}


def test_login_of_several_people_is_ambiguous_and_lists_them():
    people = [{"id": 1, "login": "a@example.com", "name": "Ann"}, {"id": 2, "email_address": "A@example.com"}]

    found, rejected = rules.people_ids(people, ["a@example.com", "2"])

    assert found == {"2": "2"}
    assert "Ann (id 1)" in rejected["a@example.com"]
    assert "(id 2)" in rejected["a@example.com"]


def test_assignees_of_a_step_are_read_from_what_is_there():
    malformed = {
        "response_occurrences": [{"assignee": None}, {}, 7, {"assignee": {"id": 1}}, {"assignee": {"id": "2"}}]
    }

    assert rules.assignee_ids(malformed) == {"1", "2"}
    assert rules.assignee_ids({}) == set()


COMMENTER = {"id": "55", "role_type": "Commenter"}


@pytest.mark.parametrize(
    ("step", "responders"),
    [
        ({"individual_assignees": [COMMENTER]}, set()),
        ({"responses": [COMMENTER]}, set()),
        ({"individual_assignees": [COMMENTER], "response_occurrences": [{"assignee": {"id": "55"}}]}, set()),
        ({"individual_assignees": [COMMENTER], "additional_assignees": [{"id": 55, "role_type": "responder"}]}, {"55"}),
        ({"response_occurrences": [{"assignee": {"id": "55"}}]}, {"55"}),
        ({"individual_assignees": [{"id": "55"}]}, {"55"}),
    ],
)
def test_commenter_is_an_assignee_only_as_a_commenter(step, responders):
    assert rules.assignee_ids(step, "commenter") == {"55"}
    assert rules.assignee_ids(step, "responder") == rules.assignee_ids(step) == responders


# --- malformed responses ---

TEXTS = st.sampled_from(["Check", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-23:00", "2026", "now", "", "PT1H/PT2H"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
MOMENTS = TEXTS | VALUES
RESPONSE = st.dictionaries(st.sampled_from(["id", "responded_at", "response", "login", "comment"]), MOMENTS, max_size=5)
DETAILS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["id", "uuid", "name"], MOMENTS),
        **dict.fromkeys(["started_at", "ended_at", "evaluated_at", "terminated_at", "status"], MOMENTS),
        "responses": st.lists(RESPONSE | VALUES, max_size=3) | VALUES,
        "available_response_options": st.lists(RESPONSE, max_size=2) | VALUES,
    },
)
KINDS = st.sampled_from(["WorkflowStarted", "WorkflowTerminated", *STEP_EVENTS, "HologramStep"])
EVENTS = st.fixed_dictionaries({}, optional={"type": KINDS | VALUES, "details": DETAILS | VALUES})
HISTORIES = st.fixed_dictionaries(
    {},
    optional={
        "history": st.lists(EVENTS | VALUES, max_size=4) | VALUES,
        **dict.fromkeys(["status", "started_at", "ended_at", "blocked_reason"], MOMENTS),
    },
)


@given(history=HISTORIES, after=st.none() | TEXTS | st.text(), decided=st.booleans())
def test_no_history_raises_anything_but_a_contract_error(history, after, decided):
    with contextlib.suppress(UnexpectedResponse):
        rules.describe_instance(history, instance_id="7", item_id=None)
    with contextlib.suppress(UnexpectedResponse):
        rules.find_occurrence(history, "Check", decided=decided, after=after)
    rules.is_blocked(history)


def test_the_status_of_an_action_is_not_that_of_the_item():
    history = {
        "history": [
            {"type": "ResponseStep", "details": {"name": "Review", "status": "Under Review", "started_at": "x"}},
            {"type": "Action", "details": {"name": "Stamp", "status": "in_progress", "started_at": "y"}},
        ]
    }

    instance = rules.describe_instance(history, instance_id="1", item_id="2")

    assert instance["item_status"] == "Under Review"
