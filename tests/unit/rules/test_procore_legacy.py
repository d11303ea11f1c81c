from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules import procore_legacy as rules

# The samples of the vendor's guide, with more than one activity.
INSTANCE = rules.str_ids(
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

SUBMITTED = rules.str_ids(
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
ENTERED = "2018-02-14T21:46:03Z"  # the state of INSTANCE
PENDING = {"id": "18707", "name": "Pending Approval", "status": "Under Review", "set_at": ENTERED}
DENIED = {
    "id": "1586810",
    "bic_start": ENTERED,
    "created_at": "2018-02-14T22:00:00Z",
    "performed_by_id": "1498096",
    "workflow_activity_id": "29948",
    "workflow_user_role_id": "14304",
}


def described(**changes: object) -> dict:
    return {**rules.describe_instance(INSTANCE), **changes}


def decide(instance: dict, **states: object):
    return rules.evaluate_instance(instance, **{"until": {"PO Approved"}, "fail_on": (), "skip_on": (), **states})


def test_instance_is_described_even_without_the_newer_fields():
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
    assert decide(described(), until={name}).action == "succeed"
    assert decide(described(), fail_on={name}).action == "fail"
    assert decide(described(), skip_on={name}).action == "skip"


def test_state_with_blanks_around_its_name_is_found():
    blank = described(state="Approved ", status=" Done")

    for name in ("Approved", "done"):
        assert rules.evaluate_instance(blank, until=[name], fail_on=[], skip_on=[]).action == "succeed"


def test_a_wait_continues_in_a_state_that_is_not_named():
    assert decide(described()) is None


def test_a_terminated_instance_fails_an_endless_wait():
    wait_result = decide(described(terminated_at="2018-03-01T00:00:00Z"))

    assert wait_result.action == "fail"
    assert "was terminated at 2018" in wait_result.reason


@pytest.mark.parametrize("changes", [{"activities": []}, {"state_id": None, "state": None, "status": None}])
def test_a_lasting_lack_of_activities_ends_the_wait(changes):
    assert decide(described(**changes)) is None

    assert decide(described(**changes), is_over=True).action == "fail"
    assert decide(described(), is_over=True) is None


def test_a_termination_can_be_waited_for():
    assert decide(described(terminated_at="2018-03-01T00:00:00Z"), until={"terminated"}).action == "succeed"


@pytest.mark.parametrize(
    ("set_at", "ends_the_wait"),
    [("2018-02-13T17:56:49Z", False), ("2018-02-14T21:46:03Z", True), ("2018-02-20T00:00:00Z", True)],
)
def test_yesterdays_start_is_not_todays_denial(set_at, ends_the_wait):
    start = described(state="Start", state_id="18706", state_set_at=set_at)
    action = rules.action_of({**SUBMITTED, "workflow_state_id": "18706"})

    assert (decide(start, until={"Start"}, after=action) is not None) is ends_the_wait


def test_a_finer_clock_does_not_make_the_new_state_old():
    pending = described(state_set_at="2018-02-14T21:46:03Z")

    assert decide(pending, until={"Pending Approval"}, after=rules.moment_of("2018-02-14T21:46:03.900Z")) is not None


def test_state_entered_and_left_within_a_second_is_undecided():
    same_second = {**SUBMITTED, "bic_start": "2018-02-14T21:46:03Z", "workflow_state_id": "18707"}

    assert rules.is_undecided(described(), rules.action_of(same_second))
    assert not rules.is_undecided(described(), rules.action_of(SUBMITTED))
    assert not rules.is_undecided(described(), rules.moment_of("2018-02-14T21:46:03Z"))


# --- until an activity is open ---


@pytest.mark.parametrize(
    ("activity", "role", "matched_by"),
    [
        ("approve", None, "name"),
        ("29947", None, "id"),
        ("Deny", "director", "name"),
        ("29948", "14305", "id"),
    ],
)
def test_an_open_activity_ends_the_wait_by_its_name_or_id(activity, role, matched_by):
    wait_result = decide(described(), activity=activity, role=role)

    assert (wait_result.action, wait_result.result["matched_by"]) == ("succeed", matched_by)


@pytest.mark.parametrize(("activity", "role"), [("Approve", "Director"), ("Submit for Approval", None)])
def test_an_activity_that_is_not_open_ends_no_wait(activity, role):
    assert decide(described(), activity=activity, role=role) is None


def test_failing_state_beats_an_open_activity():
    wait_result = decide(described(), activity="Approve", fail_on={"Under Review"})

    assert (wait_result.action, wait_result.result["matched_by"]) == ("fail", None)


def test_activity_listed_by_a_terminated_instance_is_not_open():
    wait_result = decide(described(terminated_at="2018-03-01T00:00:00Z"), until=(), activity="Approve")

    assert wait_result.action == "fail"
    assert "without reaching activity 'Approve'" in wait_result.reason


def test_an_activity_before_the_action_does_not_count():
    before = rules.moment_of("2018-02-15T00:00:00Z")

    assert decide(described(), activity="Approve", after=before) is None


# --- until the state has moved on ---


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({}, False),
        ({"state_set_at": "2018-02-14T21:46:03.000Z"}, False),
        ({"state_set_at": None}, False),
        ({"state_set_at": "soon"}, False),
        ({"activities": []}, False),
        ({"state_id": None, "state": None}, False),
        ({"state_set_at": "2018-02-20T00:00:00Z"}, True),
        ({"state_id": "18708"}, True),
        ({"state_id": "18708", "activities": []}, True),
    ],
)
def test_a_state_has_moved_on_when_its_occurrence_is_over(changes, moved):
    instance = described(**changes)
    occurrence = rules.occurrence_of(described())

    wait_result = rules.evaluate_state_change(instance, occurrence, {"history_id": "1"})

    assert (wait_result is not None) is moved
    if moved:
        after = {"state_after": rules.occurrence_of(instance), "terminated_at": None}
        assert wait_result.result == {"history_id": "1", **after}


@pytest.mark.parametrize(
    ("changes", "is_over"), [({"terminated_at": "2018-03-01T00:00:00Z"}, False), ({"activities": []}, True)]
)
def test_an_instance_that_ended_in_a_state_has_no_next_state(changes, is_over):
    instance = described(**changes)

    wait_result = rules.evaluate_state_change(instance, rules.occurrence_of(described()), {}, is_over=is_over)

    assert wait_result.result == {"state_after": None, "terminated_at": changes.get("terminated_at")}


DRAFT = {"state": "Draft", "state_id": "18700", "status": "Draft", "activities": []}


@pytest.mark.parametrize("role", ["until", "fail_on", "skip_on"])
def test_draft_without_activities_is_not_a_named_state(role):
    named = {"until": {"PO Approved"}, role: {"draft"}}

    assert decide(described(**DRAFT), **named) is None
    assert decide(described(**DRAFT), **named, is_over=True).action == "fail"
    expected = {"until": "succeed", "fail_on": "fail", "skip_on": "skip"}[role]
    assert decide(described(status="Draft"), **named).action == expected  # it lists activities
    assert decide(described(**DRAFT), **{**named, role: {"18700"}}).action == expected


@pytest.mark.parametrize("changes", [DRAFT, {"terminated_at": "2018-03-01T00:00:00Z"}])
def test_end_that_the_switch_may_have_caused_names_it(changes):
    assert rules.SWITCH in decide(described(**changes), is_over=True).reason


# --- which activity ---


def test_an_activity_is_chosen_by_name_in_any_case_id_and_role():
    activities = rules.describe_instance(INSTANCE)["activities"]

    assert rules.choose_activity(activities, name="approve")["id"] == "29947"
    assert rules.choose_activity(activities, activity_id="29947")["role_id"] == "14304"
    assert rules.choose_activity(activities, name="Deny", role="director")["role_id"] == "14305"
    assert rules.choose_activity(activities, activity_id="29948", role="14304")["role"] == "Reviewer"


@pytest.mark.parametrize(
    ("activity", "known", "matched"),
    [
        ("Approve", [], {"name": "Approve", "activity_id": None}),
        ("7", [], {"name": None, "activity_id": "7"}),
        ("7", [{"id": "7", "name": "Approve"}], {"name": None, "activity_id": "7"}),
        ("a7", [{"id": "a7", "name": None}], {"name": None, "activity_id": "a7"}),
        ("7", [{"id": "7", "name": "Approve"}, {"id": "8", "name": "7"}], {"name": "7", "activity_id": None}),
    ],
)
def test_a_name_of_an_activity_wins_over_an_id(activity, known, matched):
    assert rules.requested_activity(activity, known) == matched


@pytest.mark.parametrize(
    ("desired", "problem"),
    [
        ({"name": "Aprove"}, "'Aprove' cannot be performed in the current state"),
        ({"activity_id": "1"}, "Activity 1 cannot"),
        ({"name": "Deny"}, "is ambiguous: give its id as activity, or a role"),
        ({"name": "Approve", "role": "Director"}, "for role 'Director' cannot"),
    ],
)
def test_unknown_or_ambiguous_activity_is_rejected_with_candidates(desired, problem):
    with pytest.raises(ConfigurationError, match=problem) as error:
        rules.choose_activity(rules.describe_instance(INSTANCE)["activities"], **desired)
    assert "'Deny' (id 29948, role 'Reviewer' 14304)" in str(error.value)


# --- occurrences whose time is unknown ---


def timeless(**changes: object) -> dict:
    return described(state="Start", state_id="18706", state_set_at=None, **changes)


ROUND = [  # submitted, and denied again
    {**DENIED, "workflow_state_id": "18707"},
    {**SUBMITTED, "workflow_state_id": "18706"},
]


def test_missing_time_of_an_occurrence_comes_from_the_history():
    assert rules.entered_occurrence(timeless(), ROUND)["set_at"] == DENIED["created_at"]
    assert rules.entered_occurrence(timeless(), ROUND[1:])["set_at"] is None
    assert rules.entered_occurrence(timeless(), [])["set_at"] is None
    assert rules.entered_occurrence(described(), [DENIED])["set_at"] == ENTERED
    with pytest.raises(UnexpectedResponse, match="two occurrences"):
        rules.entered_occurrence(timeless(), [SUBMITTED])


@pytest.mark.parametrize(
    ("occurrence", "histories", "left"),
    [
        (START, [], False),
        (START, ROUND[1:], False),
        (START, ROUND, True),
        (START, [SUBMITTED], None),
        ({**START, "set_at": DENIED["created_at"]}, ROUND, False),
        ({**START, "set_at": None}, ROUND, True),
        (START, None, None),
        (PENDING, [], True),
    ],
)
def test_history_shows_whether_a_timeless_occurrence_is_over(occurrence, histories, left):
    assert rules.has_left(occurrence, timeless(), histories) is left


def test_an_instance_without_a_state_is_neither_here_nor_gone():
    assert rules.has_left(START, described(state_id=None), []) is None
    assert rules.is_idle(described(state_id=None))


# --- what happened after an action ---


@pytest.mark.parametrize(
    ("changes", "rows", "quiet"),
    [
        ({}, [DENIED], True),
        ({"state_set_at": "2018-02-14T22:10:00Z"}, [], False),
        ({"state_set_at": None}, [], False),
        ({}, [{**DENIED, "created_at": "2018-02-14T22:10:00Z"}], False),
        ({}, [{**DENIED, "created_at": None}], False),
    ],
)
def test_an_instance_is_quiet_when_nothing_in_it_is_recent(changes, rows, quiet):
    since = datetime(2018, 2, 14, 22, 5, tzinfo=timezone.utc)

    assert rules.is_quiet(described(**changes), rows, since) is quiet


def test_only_a_newer_row_follows_an_action():
    action = rules.action_of(SUBMITTED)

    assert not rules.is_followed([], action)
    assert not rules.is_followed([SUBMITTED], action)
    assert not rules.is_followed([SUBMITTED, {**SUBMITTED, "id": "1"}], action)
    assert rules.is_followed([{**SUBMITTED, "id": "2000000"}, SUBMITTED], action)
    assert rules.is_followed([DENIED], action)
    assert not rules.is_followed([{**DENIED, "created_at": ENTERED}], action)


@pytest.mark.parametrize(
    ("set_at", "acted_at", "is_before"),
    [
        ("2018-02-14T21:46:02Z", "2018-02-14T21:46:03.100Z", True),
        ("2018-02-14T21:46:03.600Z", "2018-02-14T21:46:03.700Z", True),
        ("2018-02-14T21:46:03.700Z", "2018-02-14T21:46:03.600Z", False),
        ("2018-02-14T22:46:02+01:00", "2018-02-14T21:46:03", True),
    ],
)
def test_a_finer_clock_of_the_server_is_believed(set_at, acted_at, is_before):
    assert rules.is_before(described(state_set_at=set_at), rules.moment_of(acted_at)) is is_before


def test_failing_beats_skipping_beats_success():
    assert decide(described(), until={"18707"}, skip_on={"Under Review"}).action == "skip"
    assert decide(described(), until={"18707"}, skip_on={"18707"}, fail_on={"Pending Approval"}).action == "fail"
