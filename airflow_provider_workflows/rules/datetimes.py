"""Times as the two products write them."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import pendulum


def parse_time(text: str | None) -> pendulum.DateTime | None:
    """
    Read an ISO-8601 time; one without a zone is UTC, as the products document theirs.

    :param text: The time as the API wrote it, or None.
    :return: The time in UTC, or None for None and for text that is not a time.
    """
    if not text or not isinstance(text, str):
        return None
    try:
        moment = pendulum.parse(text, tz="UTC")
        return moment.in_timezone("UTC") if isinstance(moment, pendulum.DateTime) else None
    except (ValueError, TypeError, AttributeError, OverflowError):  # all are pendulum's words for no time
        return None


def unix_time(text: Any) -> float | None:
    """Return a time that the API wrote in seconds of unix time, or None for what is not a time."""
    if isinstance(text, str) and len(text) == 20 and text[-1] == "Z":  # as it is documented: a hundred times as fast
        try:
            return datetime.fromisoformat(f"{text[:-1]}+00:00").timestamp()
        except ValueError:
            pass
    moment = parse_time(text)
    return None if moment is None else moment.timestamp()


def has_zone(text: str) -> bool:
    """Tell whether an ISO-8601 time says its zone."""
    return re.search(r"\d[T ].*(Z|[+-]\d\d:?\d\d)$", text.strip(), re.IGNORECASE) is not None


def seconds_of(moment: pendulum.DateTime | None) -> float:
    """Return a sort key, oldest first; what has no time comes before everything."""
    return moment.timestamp() if moment else float("-inf")


def time_text(moment: datetime) -> str:
    """Write a time for the log, in UTC and to the second, as the products write theirs."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
