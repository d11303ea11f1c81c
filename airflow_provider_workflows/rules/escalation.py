"""
The ladder of ``on_overdue``: what is done about a step that is pending for too long, and when.

A level is due some time after the start of a step occurrence, or at the step's due date. The ladder has two sides: the
DAG's author writes :class:`Level` objects, and a trigger gets their times as JSON, to find out which of them is due.
What was carried out is stored as :class:`Escalation`.
"""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.datetimes import unix_time
from airflow_provider_workflows.rules.overdue import OverdueStep, PendingStep, due_at
from airflow_provider_workflows.rules.parameters import (
    MAX_SECONDS,
    as_list,
    as_text,
    check_boolean,
    check_choice,
    check_required,
)
from airflow_provider_workflows.rules.procore import ADDED_ASSIGNEE_REASONS

if TYPE_CHECKING:
    from airflow_provider_workflows.rules.business_hours import BusinessHours

Notifier = Callable[[Any], Any]
MAX_BUSINESS_DAYS = 2500  # ten years
MAX_TIMES = 50_000  # results that a process stores
MAX_PROBLEM_LENGTH = 500
ENDS = ("fail", "skip")


@dataclass(frozen=True)
class BusinessTime:
    """
    Hold a duration in working time; made by :func:`business_days` and :func:`business_hours`.

    :param amount: How many.
    :param unit: ``days`` or ``hours``.
    """

    amount: float
    unit: str
    country: str | None
    time_zone: str
    working_days: str
    working_hours: str

    def describe(self) -> str:
        """Return the duration in words, such as ``2 business days``."""
        return f"{self.amount:g} business {self.unit if self.amount != 1 else self.unit.removesuffix('s')}"

    def calendar(self) -> BusinessHours:
        """
        Return the calendar, which loads the holidays of the country.

        :raises ConfigurationError: the country is unknown, or the extra ``report`` is not installed.
        """
        return _calendar(self.time_zone, self.country, self.working_days, self.working_hours)

    def after(self, start: float) -> float:
        """Return the Unix time at which this duration has passed since a start."""
        calendar = self.calendar()
        if self.unit == "days":
            return calendar.after_days(start, int(self.amount))
        return calendar.after_seconds(start, self.amount * 3600)


def business_days(
    days: int, *, country: str | None = None, time_zone: str = "UTC", working_days: str = "Mon-Fri"
) -> BusinessTime:
    """
    Return a duration in working days: until the same time of day, so many working days later.

    A start at another time counts as the start of the next working day. Needs the extra ``report``.

    :param days: Number of working days, at least 1.
    :param country: Country of the public holidays, such as ``DE``, or with its subdivision ``DE-BY``; default: no
        holidays.
    :param time_zone: Time zone of the days, such as ``Europe/Berlin``.
    :param working_days: Days and ranges of days, such as ``Mon-Fri``.
    :raises ConfigurationError: a value is wrong, or the extra is not installed.
    """
    if type(days) is not int or not 1 <= days <= MAX_BUSINESS_DAYS:
        raise ConfigurationError(
            f"business_days: days must be a whole number from 1 to {MAX_BUSINESS_DAYS}; got {days!r}."
        )
    return _checked(BusinessTime(days, "days", country, time_zone, working_days, "00:00-24:00"))


def business_hours(
    hours: float,
    *,
    country: str | None = None,
    time_zone: str = "UTC",
    working_days: str = "Mon-Fri",
    working_hours: str = "09:00-17:00",
) -> BusinessTime:
    """
    Return a duration in working hours, of which a working day with the default has eight. Needs the extra ``report``.

    :param hours: Number of working hours, more than 0.
    :param country: Country of the public holidays, such as ``DE``, or with its subdivision ``DE-BY``; default: no
        holidays.
    :param time_zone: Time zone of the hours, such as ``Europe/Berlin``.
    :param working_days: Days and ranges of days, such as ``Mon-Fri``.
    :param working_hours: Hours of a working day, such as ``08:00-12:00,13:00-17:00``.
    :raises ConfigurationError: a value is wrong, or the extra is not installed.
    """
    if not _is_number(hours) or not 0 < hours <= MAX_BUSINESS_DAYS * 24:
        raise ConfigurationError(
            f"business_hours: hours must be a number of more than 0 and at most {MAX_BUSINESS_DAYS * 24}; "
            f"got {hours!r}."
        )
    return _checked(BusinessTime(hours, "hours", country, time_zone, working_days, working_hours))


def _checked(time: BusinessTime) -> BusinessTime:
    """Check what can be checked without a list of holidays, which takes too long to load when a DAG is parsed."""
    if importlib.util.find_spec("holidays") is None:
        from airflow_provider_workflows.rules.business_hours import missing_extra  # as below

        raise missing_extra("holidays", f"business_{time.unit} in on_overdue")
    _calendar(time.time_zone, None, time.working_days, time.working_hours)
    if time.country is not None:
        check_required(country=time.country)
    return time


@lru_cache(100)
def _calendar(time_zone: str, country: str | None, working_days: str, working_hours: str) -> BusinessHours:
    # Imported here, because DAG files are parsed far more often than a level in working time is due.
    from airflow_provider_workflows.rules.business_hours import BusinessHours

    return BusinessHours.from_parameters(
        time_zone=time_zone, country=country, working_days=working_days, working_hours=working_hours
    )


@dataclass(frozen=True, kw_only=True)
class Level:
    """
    Describe one level of the ladder ``on_overdue`` of a sensor: what to do about a step that is overdue, and when.

    A level is carried out once for each step occurrence: it adds assignees first, then it notifies, then it ends the
    wait. The templates of ``add_assignees``, ``reason`` and ``comment`` are rendered at that time, with
    ``overdue_step`` in the context.

    :param after: How long the step is pending: hours, a timedelta, :func:`business_days` or :func:`business_hours`;
        default: until the step's due date.
    :param notify: An Airflow notifier, or a function of the context, or a list of them.
    :param add_assignees: Logins, e-mail addresses or ids of users to add to the step, one or several; Workflows v2
        only (templated).
    :param then: ``fail`` or ``skip``: ends the wait, and the task with it, without a retry.
    :param repeat_every: Hours, a timedelta or business time after which ``notify`` is called again, while the step is
        pending; default: never.
    :param max_repeats: How often it is called again at most; default: until the step is over.
    :param reason: Procore's reason for adding assignees, as of ``ProcoreAddAssigneesOperator`` (templated).
    :param comment: Comment for Procore's history (templated).
    :param required: Whether the step waits for the responses of the added assignees, too.
    :raises ConfigurationError: a value is wrong, or the level does nothing.
    """

    after: float | timedelta | BusinessTime | None = None
    # Not in repr(), which becomes part of a mapped task's serialized DAG: addresses in memory would change it.
    notify: Notifier | Sequence[Notifier] | None = field(default=None, repr=False)
    add_assignees: str | int | Sequence[str | int] | None = None
    then: Literal["fail", "skip"] | None = None
    repeat_every: float | timedelta | BusinessTime | None = None
    max_repeats: int | None = None
    reason: str = "other"
    comment: str | None = None
    required: bool = False

    def __post_init__(self) -> None:
        _check_duration("after", self.after, 0.0)
        check_notifiers("notify", self.notifiers)
        self._check_assignees()
        check_boolean("required", self.required)
        if self.then is not None:
            check_choice("then", self.then, ENDS)
        if not self.notifiers and not self.adds and self.then is None:
            raise ConfigurationError("This Level does nothing. Give notify, add_assignees or then.")
        if self.repeat_every is not None:
            if not self.notifiers or self.then is not None:
                raise ConfigurationError("repeat_every repeats notify: give notify, and no then.")
            _check_duration("repeat_every", self.repeat_every, 60.0)
        if self.max_repeats is not None:
            if self.repeat_every is None:
                raise ConfigurationError("max_repeats needs repeat_every.")
            if type(self.max_repeats) is not int or self.max_repeats < 1:
                raise ConfigurationError(f"max_repeats must be a whole number, at least 1; got {self.max_repeats!r}.")

    @property
    def notifiers(self) -> list[Notifier]:
        return [] if self.notify is None else as_list(self.notify)

    @property
    def adds(self) -> bool:
        """Whether the level adds assignees."""
        return self.add_assignees is not None and as_list(self.add_assignees) != []

    def to_dict(self) -> dict[str, Any]:
        """Return when the level is due, as JSON primitives."""
        return {
            "after": _as_json(self.after),
            "repeat_every": _as_json(self.repeat_every),
            "max_repeats": self.max_repeats,
        }

    def check_calendars(self) -> None:
        """Load the calendars of this level, to find an unknown country before the wait starts."""
        for duration in (self.after, self.repeat_every):
            if isinstance(duration, BusinessTime):
                duration.calendar()

    def _check_assignees(self) -> None:
        if not self.adds:
            return
        for user in as_list(self.add_assignees):
            check_required(add_assignees=user)
            if not isinstance(user, (str, int)) and not _is_result(user):
                raise ConfigurationError(f"add_assignees must be logins or ids; got {type(user).__name__} {user!r}.")
        if self.comment is not None and not _is_result(self.comment):
            as_text("comment", self.comment)
        if "{" not in str(self.reason):  # else it is a template
            check_choice("reason", self.reason, ADDED_ASSIGNEE_REASONS)


def _is_result(value: Any) -> bool:
    """Return whether a value is the result of a task, which is resolved later."""
    return hasattr(value, "resolve")


def ladder_of(on_overdue: Any, overdue_after: Any) -> tuple[Level, ...]:
    """
    Return the levels of ``on_overdue``, which is a ladder, or the notifiers of its only level.

    :param overdue_after: Seconds, or a timedelta, until that only level is due; None: until the step's due date.
    :raises ConfigurationError: neither, both mixed, or an empty list.
    """
    if on_overdue is None:
        if overdue_after is not None:
            raise ConfigurationError("overdue_after needs on_overdue: give the notifier to call.")
        return ()
    entries = as_list(on_overdue)
    levels = [level for level in entries if isinstance(level, Level)]
    if not entries or 0 < len(levels) < len(entries):
        raise ConfigurationError(
            "on_overdue must be a list of levels, or of notifiers: not both, and not empty. Put a notifier into a "
            "level: Level(notify=...)."
        )
    if levels:
        if overdue_after is not None:
            raise ConfigurationError(
                "overdue_after belongs to notifiers. Give each level its own time: Level(after=...)."
            )
        return tuple(levels)
    check_notifiers("on_overdue", entries)
    if overdue_after is not None and not isinstance(overdue_after, timedelta):
        if not _is_number(overdue_after) or not 0 <= overdue_after <= MAX_SECONDS:
            raise _wrong_duration("overdue_after", "a timedelta, or seconds,", overdue_after)
        overdue_after = timedelta(seconds=overdue_after)
    _check_duration("overdue_after", overdue_after, 0.0)
    return (Level(after=overdue_after, notify=entries),)


def check_notifiers(parameter: str, notifiers: Sequence[Any]) -> None:
    """Require notifiers that Airflow can call."""
    if not all(callable(notifier) for notifier in notifiers):
        raise ConfigurationError(f"{parameter} must be a notifier, a function of the context, or a list of them.")
    if any(inspect.iscoroutinefunction(notifier) for notifier in notifiers):
        raise ConfigurationError(
            f"{parameter} is a coroutine function, which Airflow would not run. Give a plain function."
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_duration(parameter: str, value: Any, at_least: float) -> None:
    if value is None or isinstance(value, BusinessTime):
        return
    if isinstance(value, timedelta) or _is_number(value):
        seconds = value.total_seconds() if isinstance(value, timedelta) else value * 3600
        if at_least <= seconds <= MAX_SECONDS:
            return
    raise _wrong_duration(parameter, "hours, a timedelta or business time,", value, at_least)


def _wrong_duration(parameter: str, units: str, value: Any, at_least: float = 0.0) -> ConfigurationError:
    lowest = "0" if at_least == 0 else f"{at_least:g} seconds"
    return ConfigurationError(f"{parameter} must be {units} of at least {lowest} and at most 100 years; got {value!r}.")


def _as_json(duration: float | timedelta | BusinessTime | None) -> Any:
    if isinstance(duration, BusinessTime):
        return asdict(duration)
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    return None if duration is None else duration * 3600


# --- which level is due ---


@dataclass
class Escalation:
    """
    Hold what was done about the overdue steps of one wait.

    :param reached: By step occurrence and number of the level, how often the level was carried out, and the Unix time
        of the last time.
    :param problems: By step occurrence and number of the level, why assignees could not be added.
    :param postponed: By step occurrence and number of the level, how often Procore rejected the level, and the Unix
        time before which it is not tried again.
    """

    reached: dict[str, dict[str, tuple[int, float]]] = field(default_factory=dict)
    problems: dict[str, dict[str, str]] = field(default_factory=dict)
    postponed: dict[str, dict[str, tuple[int, float]]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Escalation:
        """Return what :meth:`to_dict` made."""
        stored = stored or {}
        reached, postponed = (
            {
                occurrence: {level: (int(number), float(at)) for level, (number, at) in levels.items()}
                for occurrence, levels in stored.get(name, {}).items()
            }
            for name in ("reached", "postponed")
        )
        problems = {occurrence: dict(levels) for occurrence, levels in stored.get("problems", {}).items()}
        return cls(reached, problems, postponed)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON primitives."""
        reached, postponed = (
            {occurrence: {level: list(pair) for level, pair in levels.items()} for occurrence, levels in steps.items()}
            for steps in (self.reached, self.postponed)
        )
        problems = {occurrence: dict(levels) for occurrence, levels in self.problems.items()}
        return {"reached": reached, "problems": problems, "postponed": postponed}

    def record(self, overdue_step: OverdueStep, now: float, problem: str | None = None) -> None:
        """Record that a level was carried out."""
        occurrence, level = overdue_step.step_occurrence_id, str(overdue_step.level)
        self.reached.setdefault(occurrence, {})[level] = (overdue_step.repeat + 1, now)
        self.postponed.get(occurrence, {}).pop(level, None)
        self.note_problem(overdue_step, problem)

    def note_problem(self, overdue_step: OverdueStep, problem: str | None) -> None:
        """Record why a level could not add assignees; None if it could after all."""
        occurrence, level = overdue_step.step_occurrence_id, str(overdue_step.level)
        if problem is None:
            self.problems.get(occurrence, {}).pop(level, None)
        else:
            self.problems.setdefault(occurrence, {})[level] = problem[:MAX_PROBLEM_LENGTH]

    def postpone(self, overdue_step: OverdueStep, until: float, *, is_rejected: bool = False) -> int:
        """Let a level be due later, while other levels are due in their own time; return how often it was rejected."""
        levels = self.postponed.setdefault(overdue_step.step_occurrence_id, {})
        rejections = levels.get(str(overdue_step.level), (0, 0.0))[0] + is_rejected
        levels[str(overdue_step.level)] = (rejections, until)
        return rejections

    def level(self, step_occurrence_id: str | None = None) -> int:
        """Return the highest level that was reached, at one step occurrence or at any; 0 for none."""
        steps = self.reached.values() if step_occurrence_id is None else [self.reached.get(step_occurrence_id, {})]
        return max((int(level) for levels in steps for level in levels), default=0)

    def problem(self, step_occurrence_id: str | None = None) -> str | None:
        """Return the problems at one step occurrence, or at all, as one text, or None."""
        steps = self.problems.values() if step_occurrence_id is None else [self.problems.get(step_occurrence_id, {})]
        return "; ".join(text for levels in steps for text in levels.values()) or None


def next_level(
    pending_step: PendingStep | None, levels: Sequence[Mapping[str, Any]], escalation: Escalation
) -> OverdueStep | None:
    """
    Return the level that is due next for a pending step, and when; None if no level is left, or its time is unknown.

    A level that no poll saw when it was due is due once, however many repetitions were missed.

    :param levels: What :meth:`Level.to_dict` returned for each level.
    """
    if pending_step is None:
        return None
    done = escalation.reached.get(pending_step.step_occurrence_id, {})
    postponed = escalation.postponed.get(pending_step.step_occurrence_id, {})
    candidates: list[tuple[float, int, int]] = []
    for number, level in enumerate(levels, 1):
        times, last = done.get(str(number), (0, 0.0))
        if times == 0:
            at = _first_time(pending_step, level["after"])
        elif level["repeat_every"] is None or times > (level["max_repeats"] or times):
            at = None
        else:
            at = _time_after(last, level["repeat_every"])
        if at is not None:
            candidates.append((max(at, postponed.get(str(number), (0, 0.0))[1]), number, times))
    if not candidates:
        return None
    at, number, times = min(candidates)
    return OverdueStep(
        pending_step.step_occurrence_id,
        pending_step.step,
        pending_step.since,
        pending_step.due,
        _reason(levels[number - 1]["after"]),
        at,
        number,
        times,
    )


def _first_time(pending_step: PendingStep, after: Any) -> float | None:
    if after is None:
        return due_at(pending_step)
    started = unix_time(pending_step.since)
    return None if started is None else _time_after(started, after)


def _time_after(start: float, duration: Any) -> float:
    if isinstance(duration, Mapping):
        return _business_time_after(start, BusinessTime(**duration))
    return start + float(duration)


@lru_cache(MAX_TIMES)  # called for thousands of waits at every poll
def _business_time_after(start: float, duration: BusinessTime) -> float:
    return duration.after(start)


def _reason(after: Any) -> str:
    if after is None:
        return "overdue"
    if isinstance(after, Mapping):
        return f"pending for more than {BusinessTime(**after).describe()}"
    return f"pending for more than {timedelta(seconds=after)}"
