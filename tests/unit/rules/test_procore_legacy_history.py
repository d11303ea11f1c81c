from __future__ import annotations

from datetime import datetime, timezone

import pytest

from airflow_provider_workflows.rules import procore_legacy as legacy
from airflow_provider_workflows.rules import procore_legacy_history as rules
from tests.unit.rules.test_procore_legacy import (
    DENIED,
    ENTERED,
    PENDING,
    ROUND,
    START,
    SUBMITTED,
    described,
    timeless,
)


def test_histories_are_sorted_newest_first_from_any_order():
    rows = [{"id": "9", "created_at": "2018-02-14T00:00:00Z"}, {"id": "10", "created_at": "2018-02-14T00:00:00Z"}]
    later = {"id": "1", "created_at": "2018-02-15T00:00:00Z"}

    for order in ([*rows, later], [later, *reversed(rows)]):
        assert [row["id"] for row in rules.newest_first(order)] == ["1", "10", "9"]


def find(
    *rows: dict,
    occurrence: dict = START,
    user: str = "1498096",
    instance: dict | None = None,
    listed=None,
    **desired: str,
):
    """Find an activity in rows that are ordered newest first."""
    return rules.find_performed(
        rows,
        occurrence=occurrence,
        instance=instance or described(),
        requested=desired or {"activity_id": "29945"},
        user_id=user,
        listed=listed,
    )


def test_an_activity_is_found_after_the_state_has_moved():
    assert find(SUBMITTED).row == SUBMITTED


def test_an_activity_stored_under_another_user_counts_as_done():
    assert find(SUBMITTED, user="90001").row == SUBMITTED


@pytest.mark.parametrize("created_at", ["2018-02-13T17:56:48Z", "2018-02-14T21:46:04Z"])
def test_an_activity_of_another_occurrence_does_not_count(created_at):
    assert find({**SUBMITTED, "created_at": created_at}) == rules.Found(None)


def test_a_later_occurrence_of_the_same_second_does_not_count():
    assert find({**SUBMITTED, "bic_start": ENTERED}) == rules.Found(None)


def test_the_row_that_led_into_an_occurrence_does_not_count():
    assert find(SUBMITTED, occurrence=PENDING) == rules.Found(None)


def test_without_names_the_listed_activity_lends_its_id():
    approved = {**DENIED, "workflow_activity_id": "29947"}

    assert find(approved, occurrence=PENDING, name="approve").row == approved


def test_an_activity_listed_when_the_task_was_bound_lends_its_id():
    submit = {"id": "29945", "name": "Submit for Approval", "role_id": "14301", "role": "Project Manager"}

    assert find(SUBMITTED, listed=[submit], name="submit for approval").row == SUBMITTED
    assert find(SUBMITTED, listed=[submit], name="withdraw") == rules.Found(None)


def test_same_name_in_two_states_is_resolved_in_the_bound_state():
    """Both states have an activity "Approve": what was performed in the first one is found from the second."""
    approved = {**SUBMITTED, "workflow_activity_name": "Approve", "workflow_state_id": "18706"}

    assert find(approved, name="approve").row == approved
    # And it is not an approval of the second state.
    assert find(approved, occurrence=PENDING, name="approve") == rules.Found(None)
    timeless = {**approved, "bic_start": None}
    assert find(timeless, occurrence=PENDING, name="approve") == rules.Found(None)


def test_rows_without_names_of_a_left_state_are_unclear():
    found = find(SUBMITTED, name="submit for approval")

    assert found == rules.Found(None, ("1586809",))
    named = {**SUBMITTED, "workflow_activity_name": "Submit for Approval"}
    assert find(named, name="submit for approval").row == named


def test_role_name_is_matched_where_the_history_has_ids_only():
    denied = {**DENIED, "performed_by_id": "90003"}
    listed = [a for a in described()["activities"] if a["role"] == "Director"]
    instance = described(activities=listed)

    def as_role(role: str):
        return find(denied, occurrence=PENDING, user="90001", instance=instance, name="Deny", role=role)

    assert as_role("14304").row == denied
    assert as_role("Reviewer") == rules.Found(None, ("1586810",))
    assert as_role("Director") == rules.Found(None)


def test_activity_of_another_role_does_not_count_while_open():
    denied = {**DENIED, "workflow_user_role_id": "14306"}

    assert find(denied, occurrence=PENDING, user="90001", activity_id="29948") == rules.Found(None)


def test_colleagues_row_does_not_count_while_open_to_that_role():
    assert find(DENIED, occurrence=PENDING, user="90001", activity_id="29948") == rules.Found(None)

    closed = described(activities=[a for a in described()["activities"] if a["id"] != "29948"])
    assert find(DENIED, occurrence=PENDING, user="90001", instance=closed, activity_id="29948").row == DENIED


def test_the_users_activity_counts_in_any_role_first():
    in_review = {**SUBMITTED, "workflow_activity_id": "29948", "bic_start": ENTERED}
    own = {**in_review, "id": "2", "created_at": "2018-02-14T22:00:00Z", "performed_by_id": "90001"}
    theirs = {**in_review, "id": "1", "created_at": "2018-02-14T21:50:00Z", "workflow_user_role_id": "14304"}

    assert find(own, theirs, occurrence=PENDING, user="90001", activity_id="29948").row == own


@pytest.mark.parametrize("is_open", [True, False])
def test_own_row_in_another_role_than_requested_does_not_count(is_open):
    own = {**DENIED, "performed_by_id": "90001", "workflow_user_role_id": "14305"}
    listed = [a for a in described()["activities"] if is_open or a["id"] != "29948"]
    instance = described(activities=listed)

    def as_role(role: str):
        return find(own, occurrence=PENDING, user="90001", instance=instance, activity_id="29948", role=role)

    assert as_role("14304") == rules.Found(None)
    assert as_role("14305").row == own


def test_row_without_a_time_is_unclear():
    timeless = {**DENIED, "created_at": None}

    assert find(timeless, occurrence=PENDING, activity_id="29948") == rules.Found(None, ("1586810",))
    assert find({**timeless, "workflow_state_id": "1"}, occurrence=PENDING, activity_id="29948") == rules.Found(None)


def test_equal_times_are_ordered_by_id_to_show_two_occurrences():
    """Submitted, denied and submitted again within a second: only the last one is surely of the present occurrence."""
    start = described(state="Start", state_id="18706", state_set_at=ENTERED, activities=[])
    occurrence = legacy.occurrence_of(start)
    rows = [
        {**SUBMITTED, "id": "3", "created_at": ENTERED, "bic_start": ENTERED, "workflow_state_id": "18706"},
        {**DENIED, "id": "2", "created_at": ENTERED, "workflow_state_id": "18707"},
        {**SUBMITTED, "id": "1", "created_at": ENTERED, "bic_start": ENTERED, "workflow_state_id": "18706"},
    ]

    assert find(*rows, occurrence=occurrence, instance=start).row["id"] == "3"
    assert find(*rows[1:], occurrence=occurrence, instance=start) == rules.Found(None, ("1",))


def test_two_occurrences_without_a_time_are_not_one():
    second = legacy.entered_occurrence(timeless(), ROUND)

    assert find(*ROUND, occurrence=second, instance=timeless()) == rules.Found(None)
    assert (
        find(*ROUND[1:], occurrence=legacy.entered_occurrence(timeless(), ROUND[1:]), instance=timeless()).row
        == ROUND[1]
    )


SENT = {
    "state": PENDING,
    "activity": {"id": "29948", "name": "Deny", "role_id": "14304", "role": "Reviewer"},
    "user_id": "90001",
    "before": ["1"],
}


@pytest.mark.parametrize(
    ("row", "is_found"),
    [
        (DENIED, True),
        ({**DENIED, "id": "1"}, False),
        ({**DENIED, "id": "1", "performed_by_id": "90001"}, True),
        ({**DENIED, "workflow_activity_id": "29947"}, False),
        ({**DENIED, "workflow_user_role_id": "14305"}, False),
        ({**DENIED, "workflow_user_role_id": "14305", "performed_by_id": "90001"}, False),
        ({**DENIED, "workflow_user_role_id": None}, True),
        ({**DENIED, "created_at": "2018-02-14T21:46:02Z"}, False),
        ({**DENIED, "created_at": None}, False),
    ],
)
def test_what_was_sent_is_found_among_new_rows_of_the_occurrence(row, is_found):
    assert (rules.find_sent([row], SENT, described()) == row) is is_found
    assert (rules.find_sent([row], SENT, None) == row) is is_found


def test_what_was_sent_is_not_a_row_of_a_later_occurrence():
    later = {**DENIED, "created_at": "2018-02-20T01:00:00Z", "bic_start": "2018-02-20T00:00:00Z"}
    in_between = {**DENIED, "workflow_activity_id": "29947", "id": "5", "workflow_state_id": "18707"}

    assert rules.find_sent([later, in_between], SENT, described(state_id="18708")) is None
    again = [
        {**later, "workflow_state_id": "18707"},
        {**SUBMITTED, "created_at": "2018-02-20T00:00:00Z", "workflow_state_id": "18706"},
    ]
    assert rules.find_sent(again, SENT, None) is None


def test_own_row_is_the_newest_of_its_activity_and_not_too_old():
    theirs = {**SUBMITTED, "id": "2", "created_at": "2018-02-15T00:00:00Z", "performed_by_id": "7"}

    def own(*rows: dict, since: datetime | None = None, role: str | None = None):
        requested = {"activity_id": "29945", "role": role}
        return rules.find_own(rows, requested=requested, user_id="1498096", since=since)

    assert own(SUBMITTED) == own(SUBMITTED, role=SUBMITTED["workflow_user_role_id"]) == SUBMITTED
    assert own(SUBMITTED, role="14304") is None
    assert own(theirs, SUBMITTED) is None
    assert own(SUBMITTED, since=datetime(2018, 2, 14, 21, 46, 3, 900, tzinfo=timezone.utc)) == SUBMITTED
    assert own(SUBMITTED, since=datetime(2018, 2, 14, 21, 46, 4, tzinfo=timezone.utc)) is None
    assert own({**SUBMITTED, "created_at": None}, since=datetime(2018, 2, 14, tzinfo=timezone.utc)) is None
