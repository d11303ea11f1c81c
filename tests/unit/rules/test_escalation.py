"""Which level of a ladder is due when: each once for a step occurrence, in hours or in business time."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.business_hours import BusinessHours
from airflow_provider_workflows.rules.escalation import (
    Escalation,
    Level,
    business_days,
    business_hours,
    ladder_of,
    next_level,
)
from airflow_provider_workflows.rules.overdue import PendingStep

START = "2026-01-05T08:00:00Z"  # a Monday
STEP = PendingStep("1", "Budget Check", START, None, ("dana@example.com",))


def notify(context): ...


def hours_since(start: str, moment: float) -> float:
    return (moment - datetime.fromisoformat(start.replace("Z", "+00:00")).timestamp()) / 3600


def climb(levels, hours, *, step=STEP, escalation=None, every=1.0):
    """Poll at intervals of virtual time, carry out what is due, and return ``(hour, level)`` of each."""
    escalation = Escalation() if escalation is None else escalation
    done = []
    start = datetime.fromisoformat(START.replace("Z", "+00:00")).timestamp()
    for poll in range(int(hours / every) + 1):
        now = start + poll * every * 3600
        for _ in levels:
            due = next_level(step, [level.to_dict() for level in levels], escalation)
            if due is None or due.at > now:
                break
            escalation.record(due, now)
            done.append((poll * every, due.level))
    return done


# --- hours ---


def test_each_level_is_due_once_in_its_time():
    ladder = [
        Level(after=24, notify=notify),
        Level(after=timedelta(days=3), notify=notify),
        Level(after=1, then="fail"),
    ]

    assert climb(ladder, 500) == [(1, 3), (24, 1), (72, 2)]


@pytest.mark.parametrize(
    ("level", "hours"),
    [
        (Level(after=24, notify=notify, repeat_every=12, max_repeats=2), [24, 36, 48]),
        (Level(after=24, notify=notify, repeat_every=timedelta(hours=24)), [24, 48, 72, 96]),
        (Level(after=0, notify=notify, repeat_every=50, max_repeats=1), [0, 50]),
    ],
)
def test_level_repeats_until_its_maximum(level, hours):
    assert [hour for hour, _ in climb([level], 100)] == hours


def test_repeats_continue_beside_higher_levels():
    ladder = [Level(after=1, notify=notify, repeat_every=2, max_repeats=2), Level(after=2, add_assignees="pat")]

    assert climb(ladder, 10) == [(1, 1), (2, 2), (3, 1), (5, 1)]


def test_repetitions_that_no_poll_saw_are_due_once():
    ladder = [Level(after=1, notify=notify, repeat_every=1), Level(after=5, notify=notify)]

    assert climb(ladder, 40, every=20) == [(20, 1), (20, 2), (40, 1)]


def test_another_occurrence_of_the_step_starts_again():
    escalation, ladder = Escalation(), [Level(after=24, notify=notify)]

    assert climb(ladder, 30, escalation=escalation) == [(24, 1)]
    again = PendingStep("2", "Budget Check", START, None, ())
    assert climb(ladder, 30, step=again, escalation=escalation) == [(24, 1)]
    assert (escalation.level(), escalation.level("2"), escalation.level("3")) == (1, 1, 0)


def test_postponed_level_is_due_later_and_delays_no_other():
    escalation, levels = Escalation(), [Level(after=1, notify=notify).to_dict(), Level(after=2, then="fail").to_dict()]
    first = next_level(STEP, levels, escalation)

    assert escalation.postpone(first, first.at + 7200) == 0
    assert (next_level(STEP, levels, escalation).level, escalation.level()) == (2, 0)
    assert [escalation.postpone(first, first.at + 7200, is_rejected=True) for _ in range(2)] == [1, 2]
    assert Escalation.from_dict(json.loads(json.dumps(escalation.to_dict()))) == escalation
    escalation.record(next_level(STEP, levels, escalation), first.at)
    later = next_level(STEP, levels, escalation)
    assert (later.level, hours_since(START, later.at)) == (1, 3)


def test_stored_levels_are_not_due_again():
    escalation = Escalation()
    ladder = [Level(after=1, notify=notify), Level(after=2, notify=notify, repeat_every=10, max_repeats=1)]
    climb(ladder, 5, escalation=escalation)

    stored = Escalation.from_dict(json.loads(json.dumps(escalation.to_dict())))

    assert stored == escalation
    assert climb(ladder, 100, escalation=stored) == [(12, 2)]


@pytest.mark.parametrize(
    ("step", "hours"),
    [
        (PendingStep("1", "Check", START, "2026-01-06T08:00:00Z", ()), [24]),
        (PendingStep("1", "Check", START, "2026-01-05", ()), [16]),  # a day has passed at its end
        (PendingStep("1", "Check", START, None, (), is_overdue=True), [0]),
        (PendingStep("1", "Check", START, None, ()), []),
    ],
)
def test_level_without_a_time_is_due_at_the_due_date(step, hours):
    assert [hour for hour, _ in climb([Level(notify=notify)], 100, step=step)] == hours


@pytest.mark.parametrize("since", [None, "soon"])
def test_step_of_unknown_start_reaches_no_level(since):
    assert climb([Level(after=1, notify=notify)], 100, step=PendingStep("1", "Check", since, None, ())) == []


# --- business time ---

BERLIN = {"time_zone": "Europe/Berlin", "country": "DE-BY"}


def due(after, since: str) -> str:
    """Return when a level is due, in Berlin's time."""
    step = PendingStep("1", "Check", since, None, ())
    at = next_level(step, [Level(after=after, notify=notify).to_dict()], Escalation()).at
    return datetime.fromtimestamp(at, ZoneInfo("Europe/Berlin")).strftime("%a %Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("days", "since", "at"),
    [
        (1, "2026-01-08T14:00:00Z", "Fri 2026-01-09 15:00"),
        (1, "2026-01-09T14:00:00Z", "Mon 2026-01-12 15:00"),
        (1, "2026-01-10T09:00:00Z", "Tue 2026-01-13 00:00"),  # Saturday counts as the start of Monday
        (5, "2026-01-09T14:00:00Z", "Fri 2026-01-16 15:00"),
        (1, "2026-12-24T09:00:00Z", "Mon 2026-12-28 10:00"),  # Christmas, a weekend
        (2, "2026-01-05T09:00:00Z", "Thu 2026-01-08 10:00"),  # Epiphany is a holiday in Bavaria
        (1, "2026-03-27T14:00:00Z", "Mon 2026-03-30 15:00"),  # the clocks change in between
        (1, "2026-10-23T13:00:00Z", "Mon 2026-10-26 15:00"),
    ],
)
def test_business_days_end_at_the_same_time_of_day(days, since, at):
    assert due(business_days(days, **BERLIN), since) == at


@pytest.mark.parametrize(
    ("after", "since", "at"),
    [
        (business_hours(2, **BERLIN), "2026-01-09T15:00:00Z", "Mon 2026-01-12 10:00"),
        (business_hours(8, **BERLIN), "2026-01-08T08:00:00Z", "Thu 2026-01-08 17:00"),
        (business_hours(20, **BERLIN), "2026-01-07T03:00:00Z", "Fri 2026-01-09 13:00"),
        (business_hours(400, **BERLIN), "2026-01-07T03:00:00Z", "Tue 2026-03-17 17:00"),
        (
            business_hours(4, working_hours="08:00-12:00,13:00-17:00", **BERLIN),
            "2026-01-08T10:00:00Z",
            "Thu 2026-01-08 16:00",
        ),
        (
            business_hours(1.5, working_days="Sun-Thu", time_zone="Europe/Berlin"),
            "2026-01-09T10:00:00Z",
            "Sun 2026-01-11 10:30",
        ),
        (business_hours(30, working_hours="00:00-24:00", **BERLIN), "2026-03-27T14:00:00Z", "Mon 2026-03-30 21:00"),
    ],
)
def test_business_hours_count_working_time_only(after, since, at):
    assert due(after, since) == at


@given(
    start=st.integers(1_760_000_000, 1_800_000_000),
    minutes=st.integers(1, 60_000),
    working_days=st.sampled_from(["Mon-Fri", "Sun-Thu", "Wed", "Mon-Sun"]),
    working_hours=st.sampled_from(["09:00-17:00", "00:00-24:00", "01:30-03:30,22:00-23:15"]),
)
def test_business_hours_agree_with_the_reports_intervals(start, minutes, working_days, working_hours):
    calendar = BusinessHours.from_parameters(
        time_zone="America/New_York", country=None, working_days=working_days, working_hours=working_hours
    )

    end = calendar.after_seconds(start, minutes * 60)

    worked = sum(max(0, min(closes, end) - max(opens, start)) for opens, closes in calendar.intervals(start, int(end)))
    assert worked == minutes * 60


def test_business_time_repeats_in_business_time():
    days = business_days(1, **BERLIN)
    ladder = [Level(after=days, notify=notify, repeat_every=days, max_repeats=3)]

    friday = PendingStep("1", "Check", "2026-01-08T08:00:00Z", None, ())
    escalation, found = Escalation(), []
    while (level := next_level(friday, [entry.to_dict() for entry in ladder], escalation)) is not None:
        escalation.record(level, level.at)
        found.append(datetime.fromtimestamp(level.at, ZoneInfo("Europe/Berlin")).strftime("%a"))

    assert found == ["Fri", "Mon", "Tue", "Wed"]


def test_reason_names_the_time_in_its_own_unit():
    step = PendingStep("1", "Check", START, None, ())
    durations = (24, business_days(2), business_hours(1))
    reasons = [
        next_level(step, [Level(after=duration, notify=notify).to_dict()], Escalation()).reason
        for duration in durations
    ]

    assert reasons == [
        f"pending for more than {text}" for text in ("1 day, 0:00:00", "2 business days", "1 business hour")
    ]


# --- what is checked when a DAG is parsed ---


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "Give notify, add_assignees or then"),
        ({"after": 24}, "Give notify, add_assignees or then"),
        ({"after": 24, "add_assignees": []}, "Give notify, add_assignees or then"),
        ({"after": -1, "notify": notify}, "after must be hours"),
        ({"after": timedelta(-1), "notify": notify}, "after must be hours"),
        ({"after": float("nan"), "notify": notify}, "after must be hours"),
        ({"after": float("inf"), "notify": notify}, "after must be hours"),
        ({"after": "24", "notify": notify}, "after must be hours"),
        ({"after": True, "notify": notify}, "after must be hours"),
        ({"notify": "mail"}, "notify must be a notifier"),
        ({"notify": [notify, None]}, "notify must be a notifier"),
        ({"then": "stop"}, "then must be one of fail, skip"),
        ({"add_assignees": ""}, "add_assignees is missing"),
        ({"add_assignees": ["pat", None]}, "add_assignees is missing"),
        ({"add_assignees": 90003.0}, "add_assignees must be text or a whole number"),
        ({"add_assignees": {"login": "pat"}}, "add_assignees must be logins or ids"),
        ({"add_assignees": "pat", "reason": "late"}, "reason must be one of"),
        ({"add_assignees": "pat", "comment": 7.5}, "comment must be text"),
        ({"add_assignees": "pat", "repeat_every": 24}, "repeat_every repeats notify"),
        ({"notify": notify, "then": "fail", "repeat_every": 24}, "repeat_every repeats notify"),
        ({"notify": notify, "repeat_every": 0}, "repeat_every must be hours"),
        ({"notify": notify, "max_repeats": 2}, "max_repeats needs repeat_every"),
        ({"notify": notify, "repeat_every": 24, "max_repeats": 0}, "max_repeats must be a whole number"),
        ({"notify": notify, "repeat_every": 24, "max_repeats": 1.5}, "max_repeats must be a whole number"),
    ],
)
def test_wrong_level_is_named_when_it_is_made(parameters, message):
    with pytest.raises(ConfigurationError, match=message):
        Level(**parameters)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: business_days(0), "days must be a whole number"),
        (lambda: business_days(1.5), "days must be a whole number"),
        (lambda: business_days(True), "days must be a whole number"),
        (lambda: business_days(10**9), "days must be a whole number"),
        (lambda: business_hours(0), "hours must be a number"),
        (lambda: business_hours(float("nan")), "hours must be a number"),
        (lambda: business_hours("8"), "hours must be a number"),
        (lambda: business_days(1, time_zone="Berlin"), "unknown time zone 'Berlin'"),
        (lambda: business_days(1, working_days="Mo-Fr"), "unknown day 'Mo'"),
        (lambda: business_hours(1, working_hours="9-17"), "no period of a day"),
        (lambda: business_days(1, country=""), "country is missing"),
    ],
)
def test_wrong_business_time_is_named_when_it_is_made(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("make", [lambda: business_days(2), lambda: business_hours(2)])
def test_business_time_needs_the_extra(monkeypatch, make):
    monkeypatch.setitem(sys.modules, "holidays", None)

    Level(after=48, notify=notify)
    with pytest.raises(ConfigurationError, match=r"pip install 'airflow-provider-workflows\[report\]'"):
        make()


def test_parsing_business_time_loads_no_holidays(monkeypatch):
    monkeypatch.delitem(sys.modules, "holidays", raising=False)

    Level(after=business_days(2, country="DE"), notify=notify)

    assert "holidays" not in sys.modules


def test_unknown_country_is_found_before_the_wait():
    with pytest.raises(ConfigurationError, match="unknown country 'Narnia'"):
        Level(after=business_days(2, country="Narnia"), notify=notify).check_calendars()


def test_levels_are_the_same_at_each_parse():
    """Airflow stores the text of a mapped task's parameters, and a new version of the DAG when it differs."""
    first, other = (repr(Level(after=1, notify=lambda context: None, add_assignees=["pat"])) for _ in range(2))

    assert first == other
    assert "0x" not in first


@pytest.mark.parametrize(
    ("on_overdue", "after", "message"),
    [
        (None, 5, "overdue_after needs on_overdue"),
        ([], None, "not empty"),
        ([notify, Level(notify=notify)], None, "not both"),
        (Level(notify=notify), 5, "overdue_after belongs to notifiers"),
        (["mail"], None, "on_overdue must be a notifier"),
        (notify, "3 days", "overdue_after must be a timedelta"),
    ],
)
def test_wrong_ladder_is_named(on_overdue, after, message):
    with pytest.raises(ConfigurationError, match=message):
        ladder_of(on_overdue, after)


def test_bare_notifiers_are_one_level():
    assert ladder_of([notify, print], 60) == (Level(after=timedelta(minutes=1), notify=[notify, print]),)
