"""The rate limiter of one server and user, which the polls of all their connections and scopes share."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.client.pace import MAX_SPIKE_REQUESTS, MIN_SPIKE_REQUESTS, SPIKE_SECONDS

if TYPE_CHECKING:
    from airflow_provider_workflows.exceptions import RateLimited

RESERVED_SHARE = 0.2  # of the rate limit, for tasks with side effects and for people
HOUR_SECONDS = 3600.0
MAX_BLOCK_SECONDS = 3600.0  # even if the server states a longer wait
FIRST_BLOCK_SECONDS = 5.0  # if the server states no wait; doubled with each consecutive 429
MAX_UNSTATED_BLOCK_SECONDS = 600.0
MAX_SLEEP_SECONDS = 60.0


class RateLimiter:
    """
    Delay the requests to one server by one user so that they stay within its rate limit, on one event loop.

    The limit comes from the server's headers and from the connection's extra ``requests_per_hour``; a part of it is
    reserved for tasks and people. Without either, only a 429 delays requests. Durations use the monotonic clock.

    :param triggerer_count: Number of triggerers that share the limit.
    """

    def __init__(self, triggerer_count: int):
        self._share = (1 - RESERVED_SHARE) / triggerer_count
        self._queue = asyncio.Lock()
        self._blocked_until = float("-inf")
        self._limits: dict[float, int] = {}  # number of requests by the seconds of their window
        self._sent: deque[float] = deque()  # times of the requests within the last SPIKE_SECONDS
        self._saved = 0.0  # requests of the hourly limit that may be sent at once
        self._saved_at = time.monotonic()
        self._consecutive_rejections = 0

    async def acquire(self) -> None:
        """Wait until one request may be sent, first come, first served, and count it."""
        async with self._queue:
            while (delay := self._delay()) > 0:  # noqa: ASYNC110  time ends it, not an event
                await asyncio.sleep(min(delay, MAX_SLEEP_SECONDS))  # short enough to notice a reset
            self._count(1)

    @property
    def blocked_seconds(self) -> float:
        """Seconds during which the server accepts no requests."""
        return max(0.0, self._blocked_until - time.monotonic())

    def configure(self, requests_per_hour: int | None) -> None:
        """Set the hourly limit from a connection's extra, if it has one."""
        if requests_per_hour is not None:
            self._learn(HOUR_SECONDS, requests_per_hour)

    def reset(self) -> None:
        """Forget the wait that the server stated, because the connection was looked up again."""
        self._blocked_until = float("-inf")
        self._consecutive_rejections = 0

    def record(self, requests: int, rate: Any) -> None:
        """
        Record how many requests a call has sent after :meth:`acquire`, and the limit in the server's headers.

        :param requests: Number of requests that the call sent; :meth:`acquire` counted one.
        :param rate: The client's ``rate``, or None.
        """
        self._count(requests - 1)
        # Without a request the rate is that of an earlier one. A limit of 0 cannot be true after a response.
        if not requests or rate is None or not rate.limit:
            return
        # By its size alone, because the time of the reset depends on a server clock that may be wrong.
        window = SPIKE_SECONDS if rate.limit <= MAX_SPIKE_REQUESTS else HOUR_SECONDS
        self._learn(window, rate.limit)
        if rate.remaining is not None and rate.remaining <= rate.limit * RESERVED_SHARE and (rate.reset_in or 0) > 0:
            self._block_for(min(rate.reset_in, window))

    def record_success(self) -> None:
        self._consecutive_rejections = 0

    def record_rejected(self, fault: RateLimited) -> float:
        """
        Block all requests for as long as the server states, and return the seconds.

        :param fault: The error of the rate-limited request.
        """
        self._consecutive_rejections += 1
        stated = max(0.0, fault.wait or 0.0)  # a time that the server states may be over
        unstated = FIRST_BLOCK_SECONDS * 2.0 ** min(self._consecutive_rejections - 1, 10)
        # Some servers send no limit. After a short stated wait, the requests sent so far are the limit of ten seconds.
        if (
            SPIKE_SECONDS not in self._limits
            and 0 < stated <= 1.5 * SPIKE_SECONDS
            and len(self._sent) >= MIN_SPIKE_REQUESTS
        ):
            self._limits[SPIKE_SECONDS] = len(self._sent)
        return self._block_for(stated or min(unstated, MAX_UNSTATED_BLOCK_SECONDS))

    def _block_for(self, seconds: float) -> float:
        seconds = min(seconds, MAX_BLOCK_SECONDS)
        self._blocked_until = max(self._blocked_until, time.monotonic() + seconds)
        return seconds

    def _count(self, requests: int) -> None:
        now = time.monotonic()
        if requests < 0:
            for _ in range(min(-requests, len(self._sent))):
                self._sent.pop()
        else:
            self._sent.extend([now] * requests)
        self._saved = self._saved_now() - requests
        self._saved_at = now

    def _learn(self, window: float, limit: int) -> None:
        if window == HOUR_SECONDS and HOUR_SECONDS not in self._limits:
            self._saved, self._saved_at = self._max_saved(limit), time.monotonic()
        self._limits[window] = limit

    def _max_saved(self, limit: int) -> float:
        return max(1.0, limit * self._share / 12)  # five minutes' worth

    def _saved_now(self) -> float:
        if HOUR_SECONDS not in self._limits:
            return 0.0
        limit = self._limits[HOUR_SECONDS]
        earned = (time.monotonic() - self._saved_at) * limit * self._share / HOUR_SECONDS
        return min(self._max_saved(limit), self._saved + earned)

    def _delay(self) -> float:
        now = time.monotonic()
        while self._sent and self._sent[0] <= now - SPIKE_SECONDS:
            self._sent.popleft()
        delay = self._blocked_until - now
        spike = self._limits.get(SPIKE_SECONDS)
        if spike is not None and len(self._sent) >= max(1.0, spike * self._share):
            delay = max(delay, self._sent[0] + SPIKE_SECONDS - now)
        if HOUR_SECONDS in self._limits and (saved := self._saved_now()) < 1:
            delay = max(delay, (1 - saved) * HOUR_SECONDS / (self._limits[HOUR_SECONDS] * self._share))
        return delay
