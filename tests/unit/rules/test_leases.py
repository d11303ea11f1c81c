"""Which wait gets which instance, where polling leaves them there."""

from __future__ import annotations

import random

import pytest

from airflow_provider_workflows.rules.leases import MAX_ABSENT_POLLS, Leases, StepWait

STEP = "101"


def rows(*ids: int | str) -> list[dict[str, str]]:
    return [{"integration_instance_id": str(name), "process_instance_id": f"p{name}"} for name in ids]


def whole(*ids: int | str) -> list[list[dict[str, str]]]:
    """Return the responses of a poll that reads a list to its end: the second one brings nothing new."""
    return [rows(*ids), rows(*ids)] if ids else [[]]


@pytest.fixture
def leases() -> Leases:
    return Leases()


@pytest.fixture
def poll(leases):
    """Return a function that polls for some tasks, and returns the ids that each of them gets."""

    def poll_it(responses, *tasks, step_id=STEP, max_instances=1):
        assigned = leases.assign(step_id, responses, [StepWait(task, max_instances) for task in tasks])
        return ["".join(str(row["integration_instance_id"]) for row in got) for got in assigned]

    return poll_it


def test_each_instance_goes_to_one_wait_the_longest_waiting_first(poll):
    assert poll(whole(1, 2), "a", "b", "c") == ["1", "2", ""]


def test_the_rows_are_assigned_unchanged(leases):
    assert leases.assign(STEP, [rows(7)], [StepWait("a", 1)]) == [rows(7)]


def test_a_wait_gets_at_most_max_instances(poll):
    assert poll(whole(1, 2, 3, 4, 5), "a", "b", max_instances=3) == ["123", "45"]


@pytest.mark.parametrize("responses", [whole(1, 2), [rows(1), rows(1)], [rows(1)]], ids=["list", "object", "partial"])
def test_a_lease_lasts_while_its_row_is_listed(poll, responses):
    assert poll(responses, "a")[0] == "1"
    for _ in range(1000):
        assert "1" not in poll(responses, "b", "c")
    assert poll(responses, "a") == ["1"]


def test_waits_by_id_and_by_titles_share_the_leases_of_a_step(leases):
    """The scopes find the id before they poll, so both have the same one."""
    by_id = leases.assign("101", whole(1), [StepWait("a", 1)])
    by_titles = leases.assign("101", whole(1), [StepWait("b", 1)])

    assert (by_id, by_titles) == ([rows(1)], [[]])


def test_steps_do_not_share_leases(poll):
    assert poll(whole(1), "a", step_id="101") == ["1"]
    assert poll(whole(1), "b", step_id="102") == ["1"]


def test_a_retry_gets_its_own_rows_before_free_ones(poll):
    assert poll(whole(1, 2, 3), "a", max_instances=2) == ["12"]
    assert poll(whole(4, 1, 2, 3), "b", "a", max_instances=2) == ["43", "12"]


def test_two_triggers_of_one_task_get_the_same_rows(poll):
    """As when Airflow runs a trigger in two triggerers for a moment, then in one."""
    assert poll(whole(1, 2), "a", "a", "b") == ["1", "1", "2"]


def test_a_retry_with_a_lower_maximum_leaves_other_rows_leased(poll):
    assert poll(whole(1, 2), "a", max_instances=2) == ["12"]
    assert poll(whole(1, 2), "a") == ["1"]
    assert poll(whole(1, 2), "b") == [""]


@pytest.mark.parametrize("others", [(), (2, 3)], ids=["empty", "list"])
def test_a_lease_ends_after_consecutive_absences_only(poll, others):
    assert poll(whole(1, *others), "a") == ["1"]

    for _ in range(MAX_ABSENT_POLLS - 1):
        poll(whole(*others))
    assert poll(whole(1, *others), "a") == ["1"]  # which starts the count again
    for _ in range(MAX_ABSENT_POLLS - 1):
        poll(whole(*others))
    assert "1" not in poll(whole(1, *others), "b")

    for _ in range(MAX_ABSENT_POLLS):
        poll(whole(*others))
    assert poll(whole(1), "c") == ["1"]


def test_a_poll_that_read_only_a_part_is_no_absence(poll):
    assert poll(whole(1), "a") == ["1"]

    for _ in range(MAX_ABSENT_POLLS - 1):
        poll(whole())
    for _ in range(5):
        poll([rows(2)])
    assert "1" not in poll(whole(1), "b")


@pytest.mark.parametrize(
    "partial",
    [
        [],
        [rows(2, 3)],
        [rows(2, 3), rows(3, 4)],
        [rows(2), rows(2)],
        [rows(2), rows(3), []],
        [rows(2, 3), []],
    ],
    ids=["nothing read", "one response", "new in the last", "hidden behind one", "drained", "drained lists"],
)
def test_a_poll_that_may_not_have_read_all_ends_no_lease(poll, partial):
    assert poll(whole(1), "a") == ["1"]
    poll(partial)

    assert "1" not in poll([rows(1)], "b")


def test_rows_of_a_wait_that_left_without_them_are_free(leases, poll):
    assert poll(whole(1, 2), "a", "b") == ["1", "2"]

    leases.release(STEP, "a", rows(1, 2))
    leases.release("999", "a", rows(1))

    assert poll(whole(1, 2), "c", "d") == ["1", ""]


def test_a_poll_needs_no_more_rows_than_can_serve_a_wait(leases, poll):
    def needed(*tasks, max_instances=1):
        return leases.rows_needed(STEP, [StepWait(task, max_instances) for task in tasks])

    assert needed("a", "b", "c") == 3
    poll(whole(1, 2), "a", "b")
    assert needed("c") == 2 + 1
    assert needed("a") == 2  # its own can come after the other one
    assert needed("a", "a", "c", max_instances=3) == 2 + 2 + 3
    assert needed() == 2


def test_leases_of_hidden_rows_do_not_grow_for_ever(leases, poll, monkeypatch):
    """A server that shows one instance at a time never says that an earlier one was completed."""
    monkeypatch.setattr("airflow_provider_workflows.rules.leases.MAX_LEASES_PER_STEP", 20)
    for number in range(50):
        poll([rows(number), rows(number)], f"task {number}")

    assert leases.rows_needed(STEP, []) == 20 + 1
    assert poll([rows(48)], "other") == [""]


@pytest.mark.parametrize("is_list", [True, False], ids=["list", "object"])
def test_no_order_of_events_gives_an_open_instance_to_two_tasks(leases, is_list):
    chance = random.Random(1)
    open_ids: list[int] = []
    owners: dict[str, str] = {}
    for number in range(2000):
        if chance.random() < 0.3:
            open_ids.append(number)
        if open_ids and chance.random() < 0.28:
            open_ids.remove(chance.choice(open_ids))
        waits = [StepWait(f"task {chance.randrange(40)}", chance.randint(1, 3)) for _ in range(chance.randint(0, 4))]
        shown = rows(*open_ids) if is_list else rows(*open_ids[:1])
        responses = [shown] * chance.randint(1, 2)

        for wait, got in zip(waits, leases.assign(STEP, responses, waits), strict=True):
            assert len(got) <= wait.max_instances
            for row in got:
                assert owners.setdefault(row["integration_instance_id"], wait.task) == wait.task

    assert len(owners) > 30
