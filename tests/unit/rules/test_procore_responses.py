from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_responses as response_rules
from tests.unit.rules.test_procore import BUDGET_CHECK, STEP, instance_at

INSTANCE = instance_at(STEP)
APPROVE = {"id": "1", "name": "Approve", "type": "approve"}
AS_NOTED = {"id": "2", "name": "Approve as noted", "type": "approve"}
REJECT = {"id": "3", "name": "Reject", "type": "reject"}


def history_of(step: dict) -> dict:
    return {"history": [{"type": "ResponseStep", "details": step}]}


def test_an_option_is_chosen_by_label_in_any_case_by_id_or_by_type():
    options = rules.response_options(STEP)

    assert response_rules.choose_option(options, option="REJECT")["id"] == "3"
    assert response_rules.choose_option(options, option="2")["name"] == "Approve as noted"
    assert response_rules.choose_option(options, option_type="reject")["id"] == "3"


def test_label_wins_over_an_id_and_says_so():
    options = [*rules.response_options(STEP), {"id": "4", "name": "1", "type": "custom"}]

    assert [response_rules.choose_option(options, option=option)["id"] for option in ("1", " 2 ")] == ["4", "2"]
    assert [response_rules.choose_option(options, option=option)["matched_by"] for option in ("1", "2")] == [
        "label",
        "id",
    ]
    assert [other["id"] for other in response_rules.choose_option(options, option="2")["others"]] == ["1", "3", "4"]


def test_label_of_several_options_is_an_error_with_their_ids():
    options = [{"id": "1", "name": "Approve", "type": "approve"}, {"id": "9", "name": "APPROVE ", "type": "custom"}]

    with pytest.raises(ConfigurationError, match=r"id 1, type approve.*id 9, type custom"):
        response_rules.choose_option([*options, REJECT], option="approve")
    assert response_rules.choose_option(options, option="9")["type"] == "custom"


@pytest.mark.parametrize(
    ("desired", "problem"),
    [({"option": "Aprove"}, "matches no option"), ({"option_type": "approve"}, "is the type of several options")],
)
def test_unknown_or_ambiguous_option_is_rejected_with_candidates(desired, problem):
    with pytest.raises(ConfigurationError, match=problem) as error:
        response_rules.choose_option(rules.response_options(STEP), **desired)
    assert "'Approve' (id 1, type approve)" in str(error.value)


def test_recorded_response_is_found_at_the_step_and_in_the_history():
    at_step = response_rules.recorded_response(INSTANCE, "31", "90004")
    in_history = response_rules.recorded_in_history(history_of(BUDGET_CHECK), "11", "90001")

    assert (at_step["id"], at_step["name"], at_step["comment"]) == ("3", "Reject", "no")
    assert (in_history["id"], in_history["name"], in_history["comment"]) == ("1", "Approve", "ok")


REMARK = {"assignee": {"id": 90001}, "submitted_at": "2026-01-01T08:30:00Z", "selected_response_option": None}
PENDING = {"assignee": {"id": 90001}, "submitted_at": None}
CHOSEN = {**REMARK, "selected_response_option": {"id": 1, "name": "Approve"}}


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([REMARK, PENDING], "none"),
        ([REMARK, CHOSEN], "Approve"),
        ([CHOSEN], "Approve"),
        ([{**CHOSEN, "role_type": "commenter"}, PENDING], "none"),
        ([REMARK], None),  # a response whose option is hidden
    ],
)
def test_remark_is_not_a_recorded_response(rows, name):
    recorded = response_rules.recorded_response(instance_at({**STEP, "response_occurrences": rows}), "31", "90001")
    responses = [
        {
            "id": row["assignee"]["id"],
            "responded_at": row["submitted_at"],
            "response": (row.get("selected_response_option") or {}).get("name"),
            "role_type": row.get("role_type"),
        }
        for row in rows
    ]
    in_history = response_rules.recorded_in_history(history_of({**BUDGET_CHECK, "responses": responses}), "11", "90001")

    for found in (recorded, in_history):
        assert ("none" if found is None else found["name"]) == name


def test_response_of_another_occurrence_or_user_is_not_counted():
    history = history_of(BUDGET_CHECK)

    assert response_rules.recorded_response(INSTANCE, "30", "90004") is None
    assert response_rules.recorded_response(INSTANCE, "31", "90001") is None
    assert response_rules.recorded_in_history(history, "12", "90001") is None
    assert response_rules.recorded_in_history(history, "11", "90002") is None


@pytest.mark.parametrize(
    ("recorded", "others", "same"),
    [
        ({"id": "1", "name": "Renamed"}, [AS_NOTED], True),
        ({"id": "2", "name": "Approve"}, [AS_NOTED], False),
        ({"name": " approve ", "type": "Approve"}, [AS_NOTED, REJECT], True),
        ({"name": "Approved", "type": "approve"}, [REJECT], True),
        ({"name": "Approved", "type": "approve"}, [AS_NOTED], None),  # either of two
        ({"name": "Approve as noted", "type": "approve"}, [AS_NOTED], False),
        ({"name": "Approve", "type": "reject"}, [REJECT], False),
        ({"name": "Rejected", "type": "reject"}, [REJECT], False),
        ({"name": "Approve", "type": None}, [REJECT], True),
        ({"name": "Reject", "type": None}, [REJECT], False),
        ({"name": "Approved", "type": None}, [], None),
        ({"name": None, "type": None}, [], None),
        ({"name": "Approve", "type": "approve"}, [{**AS_NOTED, "name": "Approve "}], None),  # two of one label
    ],
)
def test_recorded_option_is_reported_by_id_label_and_type(recorded, others, same):
    assert response_rules.is_recorded_option(recorded, {**APPROVE, "others": others}) is same


@pytest.mark.parametrize(
    ("recorded", "desired", "same"),
    [
        ({"name": "Approve "}, {"option": "approve"}, True),
        ({"name": "Approved", "type": "approve"}, {"option": "Approve"}, None),
        ({"id": "1"}, {"option": "1"}, True),
        ({"id": "1", "options": [APPROVE, AS_NOTED]}, {"option": "2"}, False),
        ({"id": "1"}, {"option": "2"}, None),  # which may be another label of the same option
        ({"id": "1", "name": "Approve", "options": [APPROVE, {**AS_NOTED, "name": "1"}]}, {"option": "1"}, None),
        ({"name": "Reject", "type": "reject"}, {"option": "1"}, None),
        ({"name": "Reject", "response_id": "1"}, {"option": "1"}, True),
        ({"name": "Reject", "response_id": "9"}, {"option": "1"}, None),
        ({"type": "Approve"}, {"option_type": "approve"}, True),
        ({"type": "reject"}, {"option_type": "approve"}, False),
        ({"name": "Approve", "type": None}, {"option_type": "approve"}, None),
    ],
)
def test_record_alone_shows_of_a_response_only_what_it_shows(recorded, desired, same):
    assert response_rules.is_recorded_response(recorded, **desired) is same


def test_label_of_two_options_has_no_id():
    options = [{"id": n, "name": "Approve", "response_type": kind} for n, kind in ((1, "approve"), (2, "approve"))]
    step = {**BUDGET_CHECK, "available_response_options": options}
    one_type = {**step, "available_response_options": [options[0], {**options[1], "response_type": "return"}]}

    found = [response_rules.recorded_in_history(history_of(entry), "11", "90001")["id"] for entry in (step, one_type)]

    assert found == [None, "1"]
