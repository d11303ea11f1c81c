"""What response headers say about the rate limit, and when to come back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from airflow_provider_workflows.client.auth import parse_http_time

MAX_CLOCK_SKEW_SECONDS = 60.0  # between our clock and a server's that does not tell its time


@dataclass(frozen=True)
class RateLimit:
    """
    What the server last said of its rate limit.

    :param reset_at: Unix time by the server's clock at which its count starts again.
    :param reset_in: Seconds from the response to then, or None where that is not known.
    """

    limit: int | None
    remaining: int | None
    reset_at: int | None
    reset_in: float | None = field(default=None, compare=False)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], now: float) -> RateLimit | None:
        """
        Read the rate limit that a response states, or None.

        :param now: Unix time by our clock.
        """
        values = [headers.get(f"X-Rate-Limit-{name}", "") for name in ("Limit", "Remaining", "Reset")]
        limit, remaining, reset_at = (_whole(value) for value in values)
        if limit is remaining is reset_at is None:
            return None
        served_at = parse_http_time(headers.get("Date", ""))
        reset_in = None if reset_at is None else reset_at - (now if served_at is None else served_at)
        return cls(limit, remaining, reset_at, reset_in)


def _whole(text: str) -> int | None:
    """Return a whole number, None for any other text, and for digits that no counter and no clock has."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def stated_wait(headers: Mapping[str, str], now: float, status: int) -> float | None:
    """
    Return the seconds that a server asks to wait, the longer of the two ways to say so; None where it says nothing.

    Procore sends X-Rate-Limit-Reset with every answer; it says when to come back only if no call is left. It is a time
    by the server's clock, so it is compared with the Date of the answer.

    :param now: Unix time by our clock.
    """
    served_at = parse_http_time(headers.get("Date", ""))
    at = now if served_at is None else served_at
    waits = []
    retry_after = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d+(\.\d+)?", retry_after):
        waits.append(float(retry_after))
    elif (until := parse_http_time(retry_after)) is not None:
        waits.append(until - at)
    reset = headers.get("X-Rate-Limit-Reset", "")
    if reset.isdecimal() and (status == 429 or headers.get("X-Rate-Limit-Remaining") == "0"):
        until_reset = float(reset) - at
        # Without a Date, a reset that is far from the Retry-After shows that two clocks differ.
        if served_at is not None or not waits or until_reset <= waits[0] + MAX_CLOCK_SKEW_SECONDS:
            waits.append(until_reset)
    return max(waits, default=None)


def moment(unix_time: float | None) -> datetime | None:
    try:
        return None if unix_time is None else datetime.fromtimestamp(unix_time, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None  # such as milliseconds: beyond the calendar
