"""What the polls of one server and sign-in may send, whichever connection ids and scopes they come from."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_workflows.exceptions import RateLimited

RESERVED_SHARE = 0.2  # of the rate limit: for tasks with side effects, and for people
SPIKE_SECONDS = 10.0  # the shorter of the windows that Procore counts in
HOUR_SECONDS = 3600.0
# A server counts hundreds of requests an hour or tens in ten seconds. Its headers do not say which of both they mean.
MAX_SPIKE_REQUESTS = 150
MIN_SPIKE_REQUESTS = 5  # that were sent before a rejection shows what the limit of ten seconds is
MAX_BLOCK_SECONDS = 3600.0  # however long the server says that it wants to be left alone
FIRST_BLOCK_SECONDS = 5.0  # where the server does not say how long; doubled with each consecutive rejection
MAX_UNSTATED_BLOCK_SECONDS = 600.0
MAX_SLEEP_SECONDS = 60.0


class RateLimiter:
    """
    Spaces the requests of one server and sign-in, on one event loop.

    The limit is what the server's headers say, and what the connection's extra ``requests_per_hour`` does; a part of
    it is reserved for others. Without either only a rejection (429) stops it. Durations are on the monotonic clock.

    :param triggerer_count: How many triggerers share the limit.
    """

    def __init__(self, triggerer_count: int):
        self._share = (1 - RESERVED_SHARE) / triggerer_count
        self._queue = asyncio.Lock()
        self._blocked_until = float("-inf")
        self._limits: dict[float, int] = {}  # requests by the seconds of the window they are counted in
        self._sent: deque[float] = deque()  # when, within the last SPIKE_SECONDS
        self._saved = 0.0  # requests of the hour's limit that may be sent at once
        self._saved_at = time.monotonic()
        self._consecutive_rejections = 0

    async def acquire(self) -> None:
        """Wait until one request may be sent, in the order of asking, and count it."""
        async with self._queue:
            while (delay := self._delay()) > 0:  # noqa: ASYNC110  time alone ends it, no event
                await asyncio.sleep(min(delay, MAX_SLEEP_SECONDS))  # a reset ends it, too
            self._count(1)

    @property
    def blocked_seconds(self) -> float:
        """For how many seconds the server wants to be left alone."""
        return max(0.0, self._blocked_until - time.monotonic())

    def configure(self, requests_per_hour: int | None) -> None:
        """Take the limit that a connection names; a new look-up of it also ends a stated wait."""
        if requests_per_hour is not None:
            self._learn(HOUR_SECONDS, requests_per_hour)

    def reset(self) -> None:
        """Forget that the server wanted to be left alone: the connection was changed."""
        self._blocked_until = float("-inf")
        self._consecutive_rejections = 0

    def record(self, requests: int, rate: Any) -> None:
        """
        Correct the count of a call that :meth:`acquire` let through, and learn from what the server said.

        :param requests: How many requests the call has sent; it was counted as one.
        :param rate: The client's ``rate``, or None.
        """
        self._count(requests - 1)
        # Without a request the rate is that of an earlier one. A limit of 0 could not have answered.
        if not requests or rate is None or not rate.limit:
            return
        # By its size alone: when the server counts anew cannot be told from its clock being wrong.
        window = SPIKE_SECONDS if rate.limit <= MAX_SPIKE_REQUESTS else HOUR_SECONDS
        self._learn(window, rate.limit)
        if rate.remaining is not None and rate.remaining <= rate.limit * RESERVED_SHARE and (rate.reset_in or 0) > 0:
            self._block(min(rate.reset_in, window))

    def record_success(self) -> None:
        self._consecutive_rejections = 0

    def record_rejected(self, fault: RateLimited) -> float:
        """
        Send nothing for as long as the server says, and learn what its limit is; return the seconds.

        :param fault: How it has rejected a request that was one too many.
        """
        self._consecutive_rejections += 1
        stated = fault.wait or 0.0
        unstated = FIRST_BLOCK_SECONDS * 2.0 ** min(self._consecutive_rejections - 1, 10)
        # Some servers do not say what their limit is. A short wait shows how many they take within ten seconds.
        if (
            SPIKE_SECONDS not in self._limits
            and 0 < stated <= 1.5 * SPIKE_SECONDS
            and len(self._sent) >= MIN_SPIKE_REQUESTS
        ):
            self._limits[SPIKE_SECONDS] = len(self._sent)
        return self._block(stated or min(unstated, MAX_UNSTATED_BLOCK_SECONDS))

    def _block(self, seconds: float) -> float:
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
