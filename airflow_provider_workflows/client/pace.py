"""The pace of one client's requests, within the server's limit of ten seconds; imports nothing that takes time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

SPIKE_SECONDS = 10.0  # Procore's shorter window
# A limit is hundreds of requests per hour or tens per ten seconds. The headers do not say which of them they mean.
MAX_SPIKE_REQUESTS = 150
MIN_SPIKE_REQUESTS = 5  # sent before a 429, to derive the limit of ten seconds from it
MAX_STATED_WAIT_SECONDS = 3660.0  # an hour, and the rounding of the server's clock


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
        if response.status_code == 429:
            if self._limit is None and len(self._responses) >= MIN_SPIKE_REQUESTS:
                self._limit = len(self._responses)
            return
        self._responses.append(self._clock())
        limit = response.headers.get("X-Rate-Limit-Limit", "")
        if limit.isdecimal() and 0 < int(limit) <= MAX_SPIKE_REQUESTS:
            self._limit = int(limit)

    def _forget(self) -> None:
        while self._responses and self._responses[0] <= self._clock() - SPIKE_SECONDS:
            self._responses.popleft()
