"""Working time: the working hours of a country's working days as intervals in UTC, daylight saving included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import as_text, check_required

DAY_NAMES = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
DAY_SECONDS = 86_400
WINDOW_SECONDS = 14 * DAY_SECONDS
HOURS = re.compile(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Interval = tuple[int, int]


@dataclass(frozen=True)
class BusinessHours:
    """
    Hold the working hours of one place.

    :param zone: Time zone of the hours.
    :param country: Country of the holidays, such as ``DE`` or ``DE-BY``, or None without holidays.
    :param days: Working days, 0 for Monday.
    :param hours: Working hours of each working day as seconds after midnight.
    :param label: Days and hours as text.
    """

    zone: ZoneInfo
    country: str | None
    days: frozenset[int]
    hours: tuple[Interval, ...]
    label: str
    _holidays: Any = field(repr=False, compare=False)

    @classmethod
    def from_parameters(
        cls, *, time_zone: str, country: str | None, working_days: str, working_hours: str
    ) -> BusinessHours:
        """
        Read the parameters of a report.

        :param time_zone: IANA name, such as ``Europe/Berlin``.
        :param country: ISO code of the country, if needed with its subdivision, such as ``DE-BY``; None for no
            holidays.
        :param working_days: Days and ranges of days, such as ``Mon-Fri`` or ``Sun,Mon-Wed``.
        :param working_hours: Hours of a working day, such as ``09:00-17:00`` or ``08:00-12:00,13:00-17:00``.
        :raises ConfigurationError: a value is unknown or cannot be read; the message names the parameter.
        """
        check_required(time_zone=time_zone, working_days=working_days, working_hours=working_hours)
        time_zone, working_days = as_text("time_zone", time_zone), as_text("working_days", working_days)
        working_hours = as_text("working_hours", working_hours)
        hours = _hours(working_hours)
        label = f"{working_days.strip()} {', '.join(f'{_clock(start)}-{_clock(end)}' for start, end in hours)}"
        return cls(_zone(time_zone), country, _days(working_days), hours, label, _holidays(country))

    def holidays(self, first: int, last: int) -> list[dict[str, str]]:
        """Return the holidays on working days of a period, given in seconds since 1970: ``{day, name}``."""
        days = _days_between(self._local(first).date(), self._local(last).date())
        return [
            {"day": day.isoformat(), "name": str(self._holidays.get(day))}
            for day in days
            if day.weekday() in self.days and day in self._holidays
        ]

    def intervals(self, first: int, last: int) -> Iterator[Interval]:
        """
        Yield the working intervals of all days that a period touches, in order.

        The clock is the local one: in the night in which daylight saving ends, an hour that the clock shows twice
        counts twice, and an hour that it skips does not count.

        :param first: Start of the period in seconds since 1970.
        :param last: End of the period in seconds since 1970.
        """
        for start, end, offset in self._offsets(first - 2 * DAY_SECONDS, last + 2 * DAY_SECONDS):
            local_days = (
                (EPOCH + timedelta(seconds=start + offset)).date(),
                (EPOCH + timedelta(seconds=end + offset)).date(),
            )
            for day in _days_between(*local_days):
                if not self._is_working(day):
                    continue
                midnight = (day - EPOCH.date()).days * DAY_SECONDS - offset
                for opens, closes in self.hours:
                    working = max(start, midnight + opens), min(end, midnight + closes)
                    if working[0] < working[1]:
                        yield working

    def after_days(self, start: float, days: int) -> float:
        """
        Return the same time of day some working days later, in seconds since 1970.

        A start on any other day counts as the start of the next working day.
        """
        local = datetime.fromtimestamp(start, self.zone)
        day, clock = local.date(), local.time()
        if not self._is_working(day):
            day, clock = self._next_working(day), time.min
        for _ in range(days):
            day = self._next_working(day)
        return datetime.combine(day, clock, self.zone).timestamp()

    def after_seconds(self, start: float, seconds: float) -> float:
        """Return when the working time after a start adds up to some seconds, in seconds since 1970."""
        first = int(start)
        while True:
            last = first + WINDOW_SECONDS
            for opens, closes in self.intervals(first, last):
                opened = max(opens, first, start)
                worked = min(closes, last) - opened
                if worked >= seconds:
                    return opened + seconds
                seconds -= max(0.0, worked)
            first = last

    def _is_working(self, day: date) -> bool:
        return day.weekday() in self.days and day not in self._holidays

    def _next_working(self, day: date) -> date:
        day += timedelta(days=1)
        while not self._is_working(day):
            day += timedelta(days=1)
        return day

    def _offsets(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Yield the parts of a period with one offset from UTC: ``(start, end, offset)`` in seconds."""
        start, offset = first, self._offset(first)
        for day in range(first, last, DAY_SECONDS):
            next_day = min(day + DAY_SECONDS, last)
            if (next_offset := self._offset(next_day)) == offset:
                continue
            before, after = day, next_day  # the offset changes between these
            while after - before > 1:
                middle = (before + after) // 2
                before, after = (middle, after) if self._offset(middle) == offset else (before, middle)
            yield start, after, offset
            start, offset = after, next_offset
        yield start, last, offset

    def _offset(self, moment: int) -> int:
        offset = self._local(moment).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())

    def _local(self, moment: int) -> datetime:
        return (EPOCH + timedelta(seconds=moment)).astimezone(self.zone)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name.strip())
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones, such as "Europe"
        raise ConfigurationError(
            f"time_zone: unknown time zone {name!r}. Expected an IANA name, such as Europe/Berlin or UTC."
        ) from None


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        ends = [_day(name, text) for name in part.split("-")]
        if len(ends) > 2:
            raise ConfigurationError(f"working_days: {part.strip()!r} is no range of days; write it like Mon-Fri.")
        length = (ends[-1] - ends[0]) % 7
        days.update((ends[0] + step) % 7 for step in range(length + 1))
    return frozenset(days)


def _day(name: str, text: str) -> int:
    short = name.strip().title()
    if short not in DAY_NAMES:
        raise ConfigurationError(
            f"working_days: unknown day {name.strip()!r} in {text!r}. Expected {', '.join(DAY_NAMES)} and ranges of "
            "them, such as Mon-Fri."
        )
    return DAY_NAMES.index(short)


def _hours(text: str) -> tuple[Interval, ...]:
    found: list[Interval] = []
    for part in text.split(","):
        match = HOURS.fullmatch(part.strip())
        if match is None:
            raise ConfigurationError(
                f"working_hours: {part.strip()!r} is no period of a day. Write it like 09:00-17:00, and separate "
                "several by commas."
            )
        hour, minute, end_hour, end_minute = map(int, match.groups())
        start, end = hour * 3600 + minute * 60, end_hour * 3600 + end_minute * 60
        if max(minute, end_minute) > 59 or end > DAY_SECONDS or start >= end:
            raise ConfigurationError(
                f"working_hours: {part.strip()!r} must start before it ends, between 00:00 and 24:00. Write a night "
                "shift as two periods, such as 00:00-06:00,22:00-24:00."
            )
        found.append((start, end))
    found.sort()
    if any(end > start for (_, end), (start, _) in pairwise(found)):
        raise ConfigurationError(f"working_hours: the periods of {text!r} overlap. Write one after the other.")
    return tuple(found)


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds % 3600 // 60:02}"


def _holidays(country: str | None) -> Any:
    if country is None:
        return {}
    check_required(country=country)
    country = as_text("country", country)
    try:
        import holidays
    except ImportError:
        raise missing_extra("holidays", "A calendar with holidays") from None
    code, _, subdivision = country.strip().partition("-")
    code = code.upper()
    known = holidays.list_supported_countries(include_aliases=True)
    if code not in known:
        raise ConfigurationError(
            f"country: unknown country {country!r}. Expected an ISO 3166 code, such as DE, GB or US, or with its "
            f"subdivision DE-BY. Known countries: {', '.join(sorted(known))}."
        )
    try:
        return holidays.country_holidays(code, subdiv=subdivision or None, language="en_US")
    except NotImplementedError:  # how holidays rejects a subdivision
        raise ConfigurationError(
            f"country: unknown subdivision {subdivision!r} of {code}. Expected one of: {', '.join(known[code])}."
            if known[code]
            else f"country: {code} has no subdivisions; got {country!r}. Write {code}."
        ) from None


def missing_extra(library: str, user: str = "The report") -> ConfigurationError:
    """Return the error for a library of the extra ``report`` that is not installed."""
    return ConfigurationError(
        f"{user} needs {library}, which is not installed: pip install 'airflow-provider-workflows[report]'."
    )


def _days_between(first: date, last: date) -> Iterator[date]:
    for number in range((last - first).days + 1):
        yield first + timedelta(days=number)
