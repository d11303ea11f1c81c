"""Read the rate limit from response headers: how many calls are left, and when to send the next one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone

from airflow_provider_workflows.client.auth import parse_http_time

MAX_CLOCK_SKEW_SECONDS = 60.0  # between this machine's clock and that of a server that sends no Date


@dataclass(frozen=True)
class RateLimit:
    """
    Describe the server's rate limit as of one response.

    :param limit: Calls per period.
    :param remaining: Calls left in the current period.
    :param reset_at: Unix time by the server's clock at which the next period starts.
    :param reset_in: Seconds from the response until then, or None if unknown.
    """

    limit: int | None
    remaining: int | None
    reset_at: int | None
    reset_in: float | None = field(default=None, compare=False)

    @classmethod
    def from_headers(cls, headers: Mapping[str, str], now: float) -> RateLimit | None:
        """
        Return the rate limit that a response states, or None.

        :param now: Unix time by this machine's clock.
        """
        values = [headers.get(f"X-Rate-Limit-{name}", "") for name in ("Limit", "Remaining", "Reset")]
        limit, remaining, reset_at = (whole_number(value) for value in values)
        if limit is remaining is reset_at is None:
            return None
        served_at = parse_http_time(headers.get("Date", ""))
        reset_in = None if reset_at is None else reset_at - (now if served_at is None else served_at)
        return cls(limit, remaining, reset_at, reset_in)


def whole_number(text: str) -> int | None:
    """Return a whole number, or None for any other text and for more digits than a counter or a clock has."""
    return int(text) if text.isdecimal() and len(text) < 20 else None


def stated_wait(headers: Mapping[str, str], now: float, status: int) -> float | None:
    """
    Return the seconds to wait that a server states, the longer of Retry-After and X-Rate-Limit-Reset, or None.

    Procore sends X-Rate-Limit-Reset with every response; it matters only if no call is left. It is a time by the
    server's clock, so it is compared with the Date of the response.

    :param now: Unix time by this machine's clock.
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
        # Without a Date, a reset that is far from the Retry-After shows that the two clocks differ.
        if served_at is not None or not waits or until_reset <= waits[0] + MAX_CLOCK_SKEW_SECONDS:
            waits.append(until_reset)
    return max(waits, default=None)


def moment(unix_time: float | None) -> datetime | None:
    try:
        return None if unix_time is None else datetime.fromtimestamp(unix_time, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return None  # beyond the calendar, for example milliseconds
