"""What a history's events say together: their order in a list of any order, and what was decided, never guessed."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.exceptions import AmbiguousOrder
from airflow_provider_workflows.rules import procore as rules

A, B = "a@example.com", "b@example.com"
OPTIONS = [
    {"id": "1", "name": "Approve", "response_type": "approve"},
    {"id": "2", "name": "Reject", "response_type": "reject"},
]


def at(clock: str) -> str:
    return f"2026-01-01T{clock}:00Z"


def event(kind: str, **details: Any) -> dict[str, Any]:
    return {"type": kind, "details": details}


def response(login: str, label: str | None, clock: str | None = "10:00", **more: Any) -> dict[str, Any]:
    kind = label and {"A": "approve", "R": "reject", "N": "approve"}[label[0].upper()]
    when = None if label is None or clock is None else at(clock)
    return {"id": login, "login": login, "response": label, "response_type": kind, "responded_at": when, **more}


def review(*responses: dict[str, Any], **more: Any) -> dict[str, Any]:
    details = {"id": "11", "uuid": "u", "name": "Review", "started_at": at("09:00"), "ended_at": at("11:00")}
    return event("ResponseStep", **{**details, "status": "In Review", "responses": list(responses), **more})


STARTED = event("WorkflowStarted", started_at=at("08:00"))


def end(status: str, started: str = "11:00") -> dict[str, Any]:
    return event("EndStep", id="99", name="End", started_at=at(started), ended_at=at(started), status=status)


def describe(*events: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return rules.describe_instance({**beside, "history": list(events)}, instance_id="7", item_id="5")


def decision(*events: dict[str, Any], **beside: Any) -> dict[str, Any]:
    return describe(STARTED, *events, **beside)["decision"]


# --- the decision of a step ---


@pytest.mark.parametrize("order", [0, 1])
def test_decision_is_the_overall_response_not_the_latest_one(order):
    recorded_responses = [response(A, "Reject", "10:00"), response(B, "Approve", "10:05")]
    step = review(*(recorded_responses[::-1] if order else recorded_responses), overall_response="Reject")

    found = describe(STARTED, step, end("Rejected"))

    assert found["last_response"]["option"] == "Approve"
    assert found["decision"] == {
        "option": "Reject",
        "type": "reject",
        "by": A,
        "at": at("10:00"),
        "source": "overall_response",
        "candidates": [],
        "problem": None,
    }


def test_decision_of_an_overridden_step_is_by_who_overrode_it():
    override = {"overridden_at": at("10:30"), "overridden_by": {"id": 3, "login": "pat@example.com"}}
    step = review(response(A, "Reject"), overall_response="Approve", overall_response_type="approve", override=override)

    found = decision(step, end("Approved"))

    assert (found["option"], found["by"], found["at"]) == ("Approve", "pat@example.com", at("10:30"))
    assert (found["source"], found["problem"]) == ("override", None)


def test_override_without_its_option_is_a_problem_not_a_response():
    step = review(response(A, "Reject"), override={"overridden_at": at("10:30")}, ended_at=None)

    found = decision(step, end("Approved"))

    assert (found["option"], found["source"], found["candidates"]) == (None, "override", ["Reject"])
    assert "overridden" in found["problem"]


@pytest.mark.parametrize(
    ("row", "beside"),
    [
        ({"role_type": "commenter"}, {}),
        ({"role_type": "Commenter"}, {}),
        ({}, {"individual_assignees": [{"id": B, "role_type": "commenter"}]}),
        ({}, {"additional_assignees": [{"id": B, "role_type": "commenter"}]}),
    ],
)
def test_commenter_never_decides(row, beside):
    step = review(response(A, "Reject", "10:00"), response(B, "Approve", "10:05", **row), **beside)

    found = describe(STARTED, step, end("Closed"))

    assert (found["decision"]["option"], found["decision"]["problem"]) == ("Reject", None)
    assert found["last_response"]["by"] == A


def test_equal_responses_decide_without_an_overall_response():
    found = decision(review(response(A, "Approve"), response(B, "approve ", "10:05")), end("Closed"))

    assert (found["option"], found["type"], found["source"]) == ("approve", "approve", "responses")


def test_different_responses_without_an_overall_one_decide_nothing():
    found = decision(review(response(A, "Reject"), response(B, "Approve", "10:05")), end("Closed"))

    assert (found["option"], found["type"], found["source"]) == (None, None, None)
    assert sorted(found["candidates"]) == ["Approve", "Reject"]
    assert "'Reject'" in found["problem"]


def test_overall_type_alone_decides_the_option_of_that_type():
    of_row = decision(review(response(A, "Approve"), response(B, "Reject"), overall_response_type="reject"))
    of_option = decision(review(overall_response_type="reject", available_response_options=OPTIONS))
    unknown = decision(review(overall_response_type="reject"))

    assert [(decision["option"], decision["type"]) for decision in (of_row, of_option, unknown)] == [
        ("Reject", "reject"),
        ("Reject", "reject"),
        (None, "reject"),
    ]


def test_hidden_responses_leave_the_decision_known():
    found = decision(review(overall_response="Reject", overall_response_type="reject"), end("Rejected"))

    assert (found["option"], found["by"], found["at"]) == ("Reject", None, at("11:00"))


def test_step_without_a_decision_hides_an_earlier_decision():
    later = event("ResponseStep", id="12", name="Director", started_at=at("11:00"), ended_at=at("12:00"))

    assert decision(review(response(A, "Approve")), later, end("Rejected", "12:00")) is None


def test_step_with_blanks_around_its_name_is_found():
    blank = review(response(A, "Approve"), name=" Review ")

    for name in ("review", " Review "):
        assert rules.find_occurrence({"history": [blank, end("Approved")]}, name, decided=True) is not None


def test_step_that_still_waits_has_no_decision_yet():
    going_on = review(response(A, "Approve"), ended_at=None)

    assert decision(going_on) is None
    assert decision(going_on, end("Closed"), status="complete")["option"] == "Approve"


def test_step_that_was_cut_off_by_a_termination_is_not_decided():
    terminated = event("WorkflowTerminated", terminated_at=at("11:00"))
    half = review(response(A, "Approve"))

    assert decision(half, terminated) is None
    assert decision(half, status="terminated", ended_at=at("11:00")) is None
    assert rules.find_occurrence({"history": [half, terminated]}, "Review", decided=True) is None
    assert decision(half, end("Void"), terminated) is None
    just_before = review(response(A, "Approve"), ended_at="2026-01-01T10:59:59Z")
    assert decision(just_before, terminated) is None
    decided = review(response(A, "Approve"), ended_at=at("10:00"))
    assert decision(decided, terminated)["option"] == "Approve"
    by_the_first = review(response(A, "Reject"), decision_type="first")
    assert decision(by_the_first, end("Void"), terminated)["option"] == "Reject"
    not_required = review(response(A, "Reject", required=False), decision_type="first")
    assert decision(not_required, terminated) is None


ALL_OF_TWO = review(response(A, "Approve"), response(B, None), decision_type="all")


@pytest.mark.parametrize(
    ("end_type", "step", "state", "option"),
    [
        ("success", ALL_OF_TWO, "complete", "Approve"),
        ("terminated", ALL_OF_TWO, "terminated", None),
        ("Termination", review(response(A, "Approve")), "terminated", None),
        ("failure", ALL_OF_TWO, "ended", None),
        (None, ALL_OF_TWO, "ended", None),
        ("failure", review(response(A, "Reject"), response(B, None), decision_type="first"), "complete", "Reject"),
        ("failure", review(response(A, "Reject"), response(B, None, required=False)), "complete", "Reject"),
        (None, review(response(A, "Approve"), response(B, None), overall_response="Approve"), "complete", "Approve"),
        (None, review(response(A, "Approve")), "complete", "Approve"),
    ],
)
def test_end_without_a_status_is_complete_only_if_nothing_is_missing(end_type, step, state, option):
    ended = end("Void")
    ended["details"]["end_type"] = end_type

    found = describe(STARTED, step, ended, status=None, ended_at=at("11:00"))

    assert found["state"] == state
    assert (found["decision"] or {}).get("option") == option


def test_last_of_two_responses_in_one_second_is_ambiguous():
    both = [response(A, "Approve"), response(B, "Reject")]

    for order in (both, both[::-1]):
        found = describe(STARTED, review(*order))
        assert (found["last_response"], found["ambiguous"]) == (None, ["last_response"])
    later = describe(STARTED, review(both[0], response(B, "Reject", "10:01")))
    assert (later["last_response"]["by"], later["ambiguous"]) == (B, [])


# --- a decision that contradicts the item's status ---


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (review(response(A, "Approved"), response(B, "Rejected"), overall_response="Approved"), "rejected"),
        (review(overall_response="Approve", available_response_options=OPTIONS), "REJECT"),
        (review(overall_response="Reject", available_response_options=OPTIONS), "Approve"),
        (review(overall_response="Approve"), "Rejected"),
        (review(overall_response="Endorse", overall_response_type="approve"), "Returned"),
        (review(overall_response="Reject", available_response_options=[]), "Approved"),
        (
            review(
                overall_response="Approve",
                available_response_options=[OPTIONS[0], {**OPTIONS[1], "status": "Sent Back"}],
            ),
            "sent back",
        ),
    ],
)
def test_decision_contradicts_the_status_of_another_option(step, status):
    found = decision(step, end(status))

    assert found["candidates"] == [found["option"]]
    assert repr(found["option"]) in found["problem"]
    assert repr(status) in found["problem"]


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (review(response(A, "Approve"), response(B, "Reject"), overall_response="Reject"), "Rejected"),
        (review(response(A, "Approve"), response(B, "Reject"), overall_response="Reject"), "Zurück an Einkauf"),
        (review(response(A, "Approve"), response(B, "Reject"), overall_response="Reject"), "reject"),
        (review(response(A, "Approve"), response(B, "Reject"), overall_response="Reject"), None),
        (
            review(response(A, "Approve"), response(B, "Noted"), overall_response="Approve"),
            "approve",  # the type of both
        ),
    ],
)
def test_status_in_the_customers_terms_is_not_a_contradiction(step, status):
    assert decision(step, end(status))["problem"] is None


@pytest.mark.parametrize(
    "step",
    [
        review(response(B, "Reject"), overall_response="Approve", decision_type="first"),
        review(
            response(A, "Returned"),
            {"id": B, "response_type": "reject", "responded_at": at("10:00")},
            overall_response="Approved",
        ),
        review(overall_response="Approve", overall_response_type="reject", available_response_options=OPTIONS),
    ],
)
def test_step_that_contradicts_itself_is_not_decided(step):
    found = decision(step)

    assert found["candidates"][0] == found["option"]
    assert "contradicts" in found["problem"]


def test_overridden_responses_contradict_no_decision():
    override = {"overridden_at": at("10:30"), "overridden_by": {"login": A}}

    assert decision(review(response(B, "Reject"), overall_response="Approve", override=override))["problem"] is None


@pytest.mark.parametrize("last", [[], [end("")]])
def test_status_from_before_the_last_decision_is_not_reported(last):
    first = review(response(A, "Approve"), overall_response="Approve", status="Approved")
    second = review(response(B, "Reject"), overall_response="Reject", name="2", started_at=at("10:30"), status=None)

    found = describe(STARTED, first, second, *last, status="complete")

    assert (found["item_status"], found["ambiguous"], found["decision"]["option"]) == (None, [], "Reject")


def test_status_stays_while_the_next_step_is_not_decided():
    first = review(response(A, "Approve"), overall_response="Approve", status="In Review")
    second = review(name="2", started_at=at("10:30"), ended_at=None, status=None)

    assert describe(STARTED, first, second, status="in_progress", ended_at=None)["item_status"] == "In Review"


def test_completed_instance_that_somebody_terminated_is_terminated():
    terminated = event("WorkflowTerminated", terminated_at=at("11:00"), terminated_by={"login": A})

    assert describe(STARTED, review(response(B, "Approve")), terminated, status="complete")["state"] == "terminated"


# --- steps that are in the history twice ---


def test_copy_of_a_step_occurrence_changes_nothing():
    step = review(response(A, "Approve"), overall_response="Approve", id="12")
    pending = review(id="12", ended_at=None)

    for events in ([step, step], [step, pending], [pending, step]):
        assert decision(*events)["problem"] is None
        assert (
            rules.find_occurrence({"history": [STARTED, *events]}, "Review", decided=True)["step_occurrence_id"] == "12"
        )


def test_copies_of_a_step_occurrence_that_differ_decide_nothing():
    copies = [review(overall_response=option, id="12") for option in ("Approve", "Reject")]

    for events in (copies, copies[::-1]):
        assert decision(*events)["problem"] is not None


def test_option_with_an_earlier_label_is_recognised():
    first = review(
        {"id": A, "response": "Sent Back", "response_id": "2", "response_type": "reject", "responded_at": at("09:30")},
        overall_response="Sent Back",
        ended_at=at("09:30"),
        id="10",
    )
    second = review(overall_response="Approve", available_response_options=OPTIONS, started_at=at("10:00"))

    assert decision(first, second, end("Sent Back"))["problem"] is not None


def test_status_of_a_later_step_does_not_affect_a_decision():
    director = event("ResponseStep", id="12", name="Director", started_at=at("11:00"), status="Reject")
    first = review(overall_response="Approve", available_response_options=OPTIONS)

    occurrence = rules.find_occurrence({"history": [STARTED, first, director]}, "Review", decided=True)

    assert occurrence["decision"]["problem"] is None


# --- the order of events ---


ROUND = [
    STARTED,
    event("ResponseStep", id="1", name="Check", started_at=at("08:00"), ended_at=at("09:00"), status="In Review"),
    event("Conditional", id="2", name="Large?", evaluated_at=at("09:00")),
    event("ResponseStep", id="3", name="Correct", started_at=at("09:00"), ended_at=at("10:00"), status="Returned"),
    event("ResponseStep", id="4", name="Check", started_at=at("10:00"), ended_at=None, status="In Review Again"),
    event("EndStep", id="5", name="End", started_at=None, ended_at=None, status="Planned"),
]


@pytest.mark.parametrize("events", [ROUND, ROUND[::-1], [ROUND[5], *ROUND[:5]]])
def test_history_reads_the_same_in_both_orders(events):
    found = describe(*events)

    assert (found["step"], found["item_status"], found["started_at"]) == ("Check", "In Review Again", at("08:00"))
    assert found["ambiguous"] == []
    history = {"history": events}
    occurrences = [
        rules.find_occurrence(history, "Check"),
        rules.find_occurrence(history, "Check", after="1"),
        rules.find_occurrence(history, "Correct", after="2"),  # of one second: the place in the list decides
        rules.find_occurrence(history, "Large?", after="3"),
        rules.find_occurrence(history, "Check", after=at("09:30")),
    ]
    assert [occurrence and occurrence["step_occurrence_id"] for occurrence in occurrences] == ["1", "4", "3", None, "4"]
    assert rules.pending_step_of(history).step_occurrence_id == "4"


def test_events_in_no_order_at_all_are_sorted_by_their_times():
    events = [ROUND[4], ROUND[0], ROUND[3]]

    for shuffled in permutations(events):
        assert describe(*shuffled)["item_status"] == "In Review Again"


SECOND = {"started_at": at("08:00"), "ended_at": at("08:00")}
ONE = event("ResponseStep", id="1", name="Check", status="In Review", **SECOND)
TWO = event("ResponseStep", id="2", name="Correct", status="Returned", **SECOND)


def test_order_that_nothing_shows_is_named_not_guessed():
    found = describe(ONE, TWO)

    assert (found["item_status"], found["ambiguous"]) == (None, ["item_status"])
    with pytest.raises(AmbiguousOrder):
        rules.find_occurrence({"history": [ONE, TWO]}, "Correct", after="1")
    assert rules.find_occurrence({"history": [ONE, TWO]}, "Correct")["step_occurrence_id"] == "2"
    open_steps = [
        {"type": event_row["type"], "details": {**event_row["details"], "ended_at": None}} for event_row in (ONE, TWO)
    ]
    assert describe(*open_steps)["ambiguous"] == ["step", "item_status"]
    assert rules.pending_step_of({"history": open_steps}) is None


def test_steps_without_an_order_must_agree_on_the_decision():
    first = event("ResponseStep", id="1", name="Check", overall_response="Approve", **SECOND)
    two = event("ResponseStep", id="2", name="Sign", overall_response="Reject", **SECOND)

    found = describe(first, two)["decision"]

    assert (found["option"], sorted(found["candidates"])) == (None, ["Approve", "Reject"])
    assert "'Check'" in found["problem"]
    same = event("ResponseStep", id="2", name="Sign", overall_response="Approve", **SECOND)
    assert describe(first, same)["decision"]["option"] == "Approve"


def test_occurrences_of_one_second_without_order_are_an_error():
    again = event("ResponseStep", id="3", name="Check", **SECOND)

    with pytest.raises(AmbiguousOrder):
        rules.find_occurrence({"history": [ONE, again]}, "Check")


@pytest.mark.parametrize("newest_first", [False, True])
def test_start_and_end_of_a_workflow_show_the_order_of_one_second(newest_first):
    events = [
        event("WorkflowStarted", started_at=at("08:00")),
        ONE,
        TWO,
        event("EndStep", id="9", name="End", status="Approved", **SECOND),
    ]

    found = describe(*(events[::-1] if newest_first else events))

    assert (found["item_status"], found["state"]) == ("Approved", "complete")
    history = {"history": events[::-1] if newest_first else events}
    assert rules.find_occurrence(history, "Correct", after="1")["step_occurrence_id"] == "2"
    assert rules.find_occurrence(history, "Check", after="2") is None


@given(order=st.permutations(range(5)))
def test_order_of_the_list_changes_nothing_where_all_times_differ(order):
    events = [
        event("ResponseStep", id=str(n), name="Check", started_at=at(f"{n + 10}:00"), status=f"S{n}") for n in range(5)
    ]

    assert describe(*(events[n] for n in order)) == describe(*events)


def test_event_without_a_readable_time_keeps_its_place_in_the_list():
    malformed = event("ResponseStep", id="1", name="Check", started_at="yesterday", status="Unreadable Time")
    sure = event("ResponseStep", id="2", name="Sign", started_at=at("09:00"), ended_at=at("10:00"), status="Signed")

    assert describe(STARTED, sure, malformed)["item_status"] == "Unreadable Time"
    assert describe(STARTED, malformed, sure)["item_status"] == "Signed"


# --- whether an instance has ended ---


@pytest.mark.parametrize(
    ("beside", "state", "ended"),
    [
        ({}, "complete", True),  # an older history has nothing but its events
        ({"status": "in_progress", "ended_at": None}, "in_progress", False),
        ({"status": "processing"}, "processing", False),
        ({"status": None, "ended_at": ""}, "in_progress", False),
        ({"status": "complete", "ended_at": None}, "complete", True),
        ({"status": "Complete", "ended_at": None}, "complete", True),
        ({"status": None, "ended_at": at("11:00")}, "complete", True),
        ({"status": "overdue", "ended_at": at("11:00")}, "complete", True),
        ({"status": "archived", "ended_at": at("11:00")}, "archived", True),
    ],
)
def test_only_ended_at_or_the_status_ends_an_instance(beside, state, ended):
    found = describe(STARTED, end("Approved"), **beside)

    assert (found["state"], bool(found["ended_at"])) == (state, ended)
    assert rules.has_ended(found) is ended


def test_instance_with_an_unknown_end_ends_a_wait_for_both():
    found = describe(STARTED, status=None, ended_at=at("11:00"))
    states: dict[str, Any] = {"fail_on": (), "skip_on": ()}

    assert found["state"] == "ended"
    assert rules.evaluate_instance(found, until={"complete", "terminated"}, **states).action == "succeed"
    assert rules.evaluate_instance(found, until={"complete"}, **states).action == "fail"


def test_blocked_instance_without_a_status_is_blocked():
    assert describe(STARTED, status=None, ended_at=None, blocked_reason="ERP")["state"] == "blocked"
    assert describe(STARTED, blocked_reason="ERP")["state"] == "blocked"
    assert describe(STARTED, blocked_reason="")["state"] == "in_progress"


# --- occurrences ---


def test_overridden_or_hidden_step_counts_as_decided():
    override = {"overridden_at": at("10:30"), "overridden_by": {"login": "pat@example.com"}}
    for step in (
        review(response(A, None), overall_response="Approve", override=override),
        review(response(A, None), override=override),
        review(response(A, None), overall_response="Approve"),
        review(overall_response="Approve"),
        review(overall_response_type="approve"),
    ):
        occurrence = rules.find_occurrence({"history": [STARTED, step]}, "Review", decided=True)

        assert occurrence is not None
        assert occurrence["response"] is None
        assert occurrence["decision"]["at"] is not None
        assert rules.evaluate_instance(
            describe(STARTED, step), until=(), fail_on=(), skip_on=(), occurrence=occurrence
        ).reason.startswith("Procore workflow instance 7 is in_progress and step 'Review' was ")


def test_a_step_does_not_wait_for_commenters():
    step = review(
        response(A, None),
        response(B, None, role_type="commenter"),
        ended_at=None,
        individual_assignees=[{"id": "c", "login": "c@example.com", "role_type": "commenter"}],
    )

    assert rules.pending_step_of({"history": [STARTED, step]}).assignees == (A,)
