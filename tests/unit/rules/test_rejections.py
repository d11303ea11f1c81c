"""A rejection is believed after several polls that lasted for a while, and never before."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.rules.rejections import MIN_REJECTED_POLLS, Rejections


@pytest.mark.parametrize(
    ("times", "believed"),
    [
        ([0], [False]),
        ([0, 600], [False, False]),
        ([0, 300, 600], [False, False, True]),
        ([0, 1, 2, 599, 600], [False, False, False, False, True]),
        ([5, 5, 5], [False, False, False]),
    ],
)
def test_rejection_is_believed_after_three_polls_and_ten_minutes(times, believed):
    rejections = Rejections(600)

    assert [rejections.record("one", time) for time in times] == believed


def test_response_in_between_starts_the_count_again():
    rejections = Rejections(10)
    for time in (0, 5):
        rejections.record("one", time)
    rejections.forget("one")

    assert [rejections.record("one", time) for time in (10, 15, 19)] == [False] * 3
    assert rejections.record("one", 20)


def test_rejections_of_one_do_not_count_for_another():
    rejections = Rejections(0)
    for _ in range(MIN_REJECTED_POLLS):
        rejections.record("one", 0)

    assert not rejections.record("other", 100)


def test_only_what_is_retained_is_remembered():
    rejections = Rejections(0)
    for key in ("one", "other"):
        for _ in range(2):
            rejections.record(key, 0)
    rejections.retain({"one"})

    assert (rejections.record("one", 0), rejections.record("other", 0)) == (True, False)
