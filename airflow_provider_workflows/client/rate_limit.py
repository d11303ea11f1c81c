"""Read the rate limit from response headers: how many calls are left, and when to send the next one."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from airflow_provider_workflows.client.auth import parse_http_time

MAX_CLOCK_SKEW_SECONDS = 60.0  # between this machine's clock and that of a server that sends no Date
SPIKE_SECONDS = 10.0  # Procore's shorter window
# A limit is hundreds of requests per hour or tens per ten seconds. The headers do not say which of them they mean.
MAX_SPIKE_REQUESTS = 150
MIN_SPIKE_REQUESTS = 5  # sent before a 429, to derive the limit of ten seconds from it
MAX_STATED_WAIT_SECONDS = 3660.0  # an hour, and the rounding of the server's clock


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
        limit, remaining, reset_at = (_whole(value) for value in values)
        if limit is remaining is reset_at is None:
            return None
        served_at = parse_http_time(headers.get("Date", ""))
        reset_in = None if reset_at is None else reset_at - (now if served_at is None else served_at)
        return cls(limit, remaining, reset_at, reset_in)


class Pace:
    """
    Delay the requests of one client, as its observer, so that they use each window of ten seconds to the full.

    The limit is that of the server's headers. Without headers, the requests before the first 429 show it.

    :param clock: Returns seconds.
    :param sleep: Waits a number of seconds.
    """

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]):
        self._clock = clock
        self._sleep = sleep
        self._limit: int | None = None
        # The server has counted a request before its response arrives, so this time is never too early.
        self._responses: deque[float] = deque()  # times of those within the last window

    def before(self, request: Any) -> None:
        """Wait until one more request is within the limit."""
        self._forget()
        if self._limit is not None and len(self._responses) >= self._limit:
            self._sleep(self._responses[-self._limit] + SPIKE_SECONDS - self._clock())

    def after(self, request: Any, response: Any, body: bytes) -> None:
        """Record a response, and the limit that it shows."""
        self._forget()
        rate = RateLimit.from_headers(response.headers, 0.0)
        if response.status_code == 429:
            if self._limit is None and len(self._responses) >= MIN_SPIKE_REQUESTS:
                self._limit = len(self._responses)
            return
        self._responses.append(self._clock())
        if rate is not None and rate.limit and rate.limit <= MAX_SPIKE_REQUESTS:
            self._limit = rate.limit

    def _forget(self) -> None:
        while self._responses and self._responses[0] <= self._clock() - SPIKE_SECONDS:
            self._responses.popleft()


def _whole(text: str) -> int | None:
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
