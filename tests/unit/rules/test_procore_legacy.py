from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules import procore_legacy as rules

# The samples of the vendor's guide, with more than one activity.
INSTANCE = rules.text_ids(
    {
        "id": 568150,
        "current_state_set_at": "2018-02-14T21:46:03Z",
        "workflowed_object_id": 1953145,
        "workflowed_object_type": "Contract",
        "current_workflow_activities": [
            {"id": 29947, "name": "Approve", "workflow_user_role": {"id": 14304, "name": "Reviewer"}},
            {"id": 29948, "name": "Deny", "workflow_user_role": {"id": 14304, "name": "Reviewer"}},
            {"id": 29948, "name": "Deny", "workflow_user_role": {"id": 14305, "name": "Director"}},
        ],
        "current_workflow_state": {"id": 18707, "name": "Pending Approval", "status": "Under Review"},
        "workflow": {"id": 3293, "name": "Purchase Order Approval Workflow"},
    }
)
SUBMITTED = rules.text_ids(
    {
        "id": 1586809,
        "bic_start": "2018-02-13T17:56:49Z",
        "bic_end": "2018-02-14T21:46:03Z",
        "created_at": "2018-02-14T21:46:03Z",
        "performed_by_id": 1498096,
        "workflow_activity_id": 29945,
        "workflow_instance_id": 568150,
        "workflow_user_role_id": 14301,
    }
)
START = {"id": "18706", "name": "Start", "status": "Draft", "set_at": "2018-02-13T17:56:49Z"}


def described(**changes: object) -> dict:
    return {**rules.describe_instance(INSTANCE), **changes}


def decide(instance: dict, **words: object):
    return rules.decide_instance(instance, **{"until": {"PO Approved"}, "fail_on": (), "skip_on": (), **words})


def test_an_instance_is_described_in_our_words_even_without_the_newer_fields():
    assert rules.describe_instance(INSTANCE) == {
        "instance_id": "568150",
        "object_id": "1953145",
        "object_type": "Contract",
        "project_id": None,
        "state": "Pending Approval",
        "state_id": "18707",
        "status": "Under Review",
        "state_set_at": "2018-02-14T21:46:03Z",
        "activities": [
            {"id": "29947", "name": "Approve", "role_id": "14304", "role": "Reviewer"},
            {"id": "29948", "name": "Deny", "role_id": "14304", "role": "Reviewer"},
            {"id": "29948", "name": "Deny", "role_id": "14305", "role": "Director"},
        ],
        "ball_in_court": [],
        "terminated_at": None,
        "workflow": "Purchase Order Approval Workflow",
    }


@pytest.mark.parametrize("name", ["pending approval", "UNDER REVIEW", "18707"])
def test_a_state_is_named_by_name_status_or_id(name):
    assert decide(described(), until={name}).word == "succeed"
    assert decide(described(), fail_on={name}).word == "fail"
    assert decide(described(), skip_on={name}).word == "skip"


def test_a_wait_goes_on_in_a_state_nobody_named():
    assert decide(described()) is None


@pytest.mark.parametrize(
    ("changes", "how"),
    [({"activities": []}, "no activity left"), ({"terminated_at": "2018-03-01T00:00:00Z"}, "was terminated at 2018")],
)
def test_an_ended_instance_fails_a_wait_that_would_last_for_ever(changes, how):
    verdict = decide(described(**changes))

    assert verdict.word == "fail"
    assert how in verdict.reason


def test_a_termination_can_be_waited_for():
    assert decide(described(terminated_at="2018-03-01T00:00:00Z"), until={"terminated"}).word == "succeed"


@pytest.mark.parametrize(
    ("set_at", "is_an_answer"),
    [("2018-02-13T17:56:49Z", False), ("2018-02-14T21:46:03Z", True), ("2018-02-20T00:00:00Z", True)],
)
def test_yesterdays_start_is_not_todays_denial(set_at, is_an_answer):
    start = described(state="Start", state_id="18706", state_set_at=set_at)
    action = rules.action_of({**SUBMITTED, "workflow_state_id": "18706"})

    assert (decide(start, until={"Start"}, after=action) is not None) is is_an_answer


def test_a_finer_clock_on_one_side_does_not_make_the_new_state_old():
    pending = described(state_set_at="2018-02-14T21:46:03Z")

    assert decide(pending, until={"Pending Approval"}, after=rules.moment_of("2018-02-14T21:46:03.900Z")) is not None


def test_a_state_entered_and_acted_in_within_one_second_is_undecided_by_its_time():
    same_second = {**SUBMITTED, "bic_start": "2018-02-14T21:46:03Z", "workflow_state_id": "18707"}

    assert rules.is_undecided(described(), rules.action_of(same_second))
    assert not rules.is_undecided(described(), rules.action_of(SUBMITTED))
    assert not rules.is_undecided(described(), rules.moment_of("2018-02-14T21:46:03Z"))


# --- until an activity is open ---


@pytest.mark.parametrize(
    ("activity", "role", "opens"),
    [
        ("approve", None, True),
        ("29947", None, True),
        ("Deny", "director", True),
        ("29948", "14305", True),
        ("Approve", "Director", False),
        ("Submit for Approval", None, False),
    ],
)
def test_an_activity_ends_the_wait_only_where_it_is_open(activity, role, opens):
    verdict = decide(described(), activity=activity, role=role)

    assert (verdict is not None and verdict.word == "succeed") is opens


def test_a_state_that_fails_the_wait_beats_an_activity_that_is_open_in_it():
    assert decide(described(), activity="Approve", fail_on={"Under Review"}).word == "fail"


def test_an_activity_that_a_terminated_instance_still_lists_is_not_open():
    verdict = decide(described(terminated_at="2018-03-01T00:00:00Z"), until=(), activity="Approve")

    assert verdict.word == "fail"
    assert verdict.reason.endswith("without reaching activity 'Approve'")


def test_an_activity_of_the_visit_before_the_action_is_not_meant():
    before = rules.moment_of("2018-02-15T00:00:00Z")

    assert decide(described(), activity="Approve", after=before) is None


# --- until the state has moved on ---


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({}, False),
        ({"state_set_at": "2018-02-14T21:46:03.000Z"}, False),
        ({"state_set_at": "2018-02-20T00:00:00Z"}, True),
        ({"state_id": "18708"}, True),
        ({"terminated_at": "2018-03-01T00:00:00Z"}, True),
        ({"activities": []}, True),
    ],
    ids=["nothing", "another clock", "came round again", "another state", "terminated", "no activity left"],
)
def test_a_state_has_moved_on_when_its_visit_is_over(changes, moved):
    instance = described(**changes)
    visit = rules.visit_of(described())

    verdict = rules.decide_state_change(instance, visit, {"history_id": "1"})

    assert (verdict is not None) is moved
    if moved:
        assert verdict.result == {"history_id": "1", "state_after": rules.visit_of(instance)}


def test_histories_are_sorted_newest_first_whatever_order_they_came_in():
    rows = [{"id": "9", "created_at": "2018-02-14T00:00:00Z"}, {"id": "10", "created_at": "2018-02-14T00:00:00Z"}]
    later = {"id": "1", "created_at": "2018-02-15T00:00:00Z"}

    for order in ([*rows, later], [later, *reversed(rows)]):
        assert [row["id"] for row in rules.newest_first(order)] == ["1", "10", "9"]


# --- which activity ---


def test_an_activity_is_chosen_by_name_in_any_case_id_and_role():
    activities = rules.describe_instance(INSTANCE)["activities"]

    assert rules.choose_activity(activities, name="approve")["id"] == "29947"
    assert rules.choose_activity(activities, activity_id="29947")["role_id"] == "14304"
    assert rules.choose_activity(activities, name="Deny", role="director")["role_id"] == "14305"
    assert rules.choose_activity(activities, activity_id="29948", role="14304")["role"] == "Reviewer"


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        ({"name": "Aprove"}, "'Aprove' cannot be performed in the current state"),
        ({"activity_id": "1"}, "Activity 1 cannot"),
        ({"name": "Deny"}, "is ambiguous: give activity_id or role"),
        ({"name": "Approve", "role": "Director"}, "for role 'Director' cannot"),
    ],
)
def test_an_unknown_or_ambiguous_activity_is_refused_with_the_candidates(wish, problem):
    with pytest.raises(ConfigurationError, match=problem) as refusal:
        rules.choose_activity(rules.describe_instance(INSTANCE)["activities"], **wish)
    assert "'Deny' (id 29948, role 'Reviewer' 14304)" in str(refusal.value)


# --- whether it was performed ---


def performed(row: dict, *, visit: dict = START, user: str = "1498096", instance: dict | None = None, **wish: str):
    instance = instance or described()
    wish = wish or {"activity_id": "29945"}
    return rules.find_performed([row], visit=visit, instance=instance, wish=wish, user_id=user)


def test_an_activity_of_the_visit_is_found_after_the_state_has_moved():
    assert performed(SUBMITTED) is SUBMITTED


def test_an_activity_stored_under_another_user_counts_as_done():
    assert performed(SUBMITTED, user="90001") is SUBMITTED


@pytest.mark.parametrize("created_at", ["2018-02-13T17:56:48Z", "2018-02-14T21:46:04Z"])
def test_an_activity_of_another_visit_does_not_count(created_at):
    assert performed({**SUBMITTED, "created_at": created_at}) is None


def test_a_later_visit_that_began_in_the_same_second_does_not_count():
    later = {**SUBMITTED, "bic_start": "2018-02-14T21:46:03Z"}

    assert performed(later) is None


def test_the_row_that_led_into_a_visit_is_not_of_that_visit():
    pending = rules.visit_of(described())

    assert performed(SUBMITTED, visit=pending) is None


def test_without_names_in_the_history_the_listed_activity_lends_its_id():
    approved = {
        **SUBMITTED,
        "workflow_activity_id": "29947",
        "workflow_user_role_id": "14304",
        "bic_start": "2018-02-14T21:46:03Z",
        "created_at": "2018-02-14T22:00:00Z",
    }

    assert performed(approved, visit=rules.visit_of(described()), name="approve") is approved


def test_what_another_role_did_does_not_count_while_ours_is_open():
    denied = {
        **SUBMITTED,
        "workflow_activity_id": "29948",
        "workflow_user_role_id": "14306",
        "bic_start": "2018-02-14T21:46:03Z",
        "created_at": "2018-02-14T22:00:00Z",
    }

    assert performed(denied, visit=rules.visit_of(described()), user="90001", activity_id="29948") is None


def test_with_names_in_the_history_an_activity_that_is_not_listed_any_more_is_found_by_name():
    assert performed({**SUBMITTED, "workflow_activity_name": "Submit for Approval"}, name="submit for approval")
    assert performed(SUBMITTED, name="submit for approval") is None


def test_what_we_did_counts_in_whatever_role_and_before_what_others_did():
    in_review = {**SUBMITTED, "workflow_activity_id": "29948", "bic_start": "2018-02-14T21:46:03Z"}
    ours = {**in_review, "id": "2", "created_at": "2018-02-14T22:00:00Z", "performed_by_id": "90001"}
    theirs = {**in_review, "id": "1", "created_at": "2018-02-14T21:50:00Z", "workflow_user_role_id": "14304"}

    found = rules.find_performed(
        [ours, theirs],
        visit=rules.visit_of(described()),
        instance=described(),
        wish={"activity_id": "29948"},
        user_id="90001",
    )

    assert found is ours


@pytest.mark.parametrize(
    ("set_at", "acted_at", "is_before"),
    [
        ("2018-02-14T21:46:02Z", "2018-02-14T21:46:03.100Z", True),
        ("2018-02-14T21:46:03.600Z", "2018-02-14T21:46:03.700Z", True),
        ("2018-02-14T21:46:03.700Z", "2018-02-14T21:46:03.600Z", False),
        ("2018-02-14T22:46:02+01:00", "2018-02-14T21:46:03", True),
    ],
)
def test_a_finer_clock_of_the_server_is_taken_at_its_word(set_at, acted_at, is_before):
    assert rules.is_before(described(state_set_at=set_at), rules.moment_of(acted_at)) is is_before


def test_failing_beats_skipping_beats_success():
    assert decide(described(), until={"18707"}, skip_on={"Under Review"}).word == "skip"
    assert decide(described(), until={"18707"}, skip_on={"18707"}, fail_on={"Pending Approval"}).word == "fail"
