"""How the page of a cycle-time report writes durations, times, numbers and names."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from zoneinfo import ZoneInfo

NO_VALUE = "–"  # noqa: RUF001  an en dash, as typography has it for a missing value
MAX_NAME_CHARACTERS = 120
DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def calendar(seconds: float | None) -> str:
    """Return a duration of calendar time, such as "34 min", "12.5 h" or "9.1 d"."""
    if seconds is not None and seconds >= 2 * DAY:
        return _number(seconds / DAY, "d")
    return business(seconds)


def business(seconds: float | None) -> str:
    """Return a duration of business time, such as "34 min" or "1,234 h"; a business day has no fixed length."""
    if seconds is None:
        return NO_VALUE
    return _number(seconds / HOUR, "h") if seconds >= HOUR or not seconds else _number(seconds / MINUTE, "min")


def both(seconds: float | None, business_seconds: float | None) -> str:
    """Return a duration of calendar time beside the same of business time."""
    return NO_VALUE if seconds is None else f"{calendar(seconds)} / {business(business_seconds)}"


def _number(value: float, unit: str) -> str:
    digits = 0 if value >= 100 or round(value, 1) == round(value) or unit == "min" else 1
    return f"{value:,.{digits}f} {unit}"


def count(value: float | None) -> str:
    """Return a count with separated thousands."""
    return NO_VALUE if value is None else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Return a share as a percentage; a small one keeps its first digit."""
    if share is None:
        return NO_VALUE
    return f"{share:.0%}".replace("%", " %") if share >= 0.01 or not share else "< 1 %"


def local_time(text: str | None, time_zone: str) -> str:
    """Return an ISO-8601 time in the report's time zone, to the minute."""
    if text is None:
        return NO_VALUE
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m-%d %H:%M")


def local_day(text: str | None, time_zone: str) -> str:
    """Return the day of an ISO-8601 time in the report's time zone."""
    return local_time(text, time_zone).partition(" ")[0]


def printable(name: object) -> str:
    """Return a name from Procore as one line of limited length, without control characters."""
    if name is None or not str(name).strip():
        return NO_VALUE
    text = "".join(" " if _is_unprintable(letter) else letter for letter in str(name))
    line = " ".join(text.split())
    return line if len(line) <= MAX_NAME_CHARACTERS else f"{line[: MAX_NAME_CHARACTERS - 1]}…"


def _is_unprintable(letter: str) -> bool:
    # Half a surrogate pair cannot be written as UTF-8, and a mark of direction could reverse the text around it.
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in DIRECTIONS
