"""Retries of one call: whether it may be sent again, how often, and how long to wait before."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from airflow_provider_workflows.exceptions import ApiError

Result = TypeVar("Result")
_is_one_attempt = ContextVar("_is_one_attempt", default=False)


@contextmanager
def one_attempt() -> Iterator[None]:
    """Make only one attempt of each call within the block, including token requests, under any retry policy."""
    before = _is_one_attempt.set(True)
    try:
        yield
    finally:
        _is_one_attempt.reset(before)


class Idempotency(enum.Enum):
    """
    State whether a call may be sent a second time; a property of the call, not of its HTTP method.

    ``SAFE``: sending it twice has the same effect as sending it once. ``UNSAFE``: it may have another effect.
    """

    SAFE = "safe"
    UNSAFE = "unsafe"


class RetryableFailure(Exception):
    """
    Raised when one attempt failed in a way that allows another.

    :param error: The error to raise if there is no other attempt.
    :param not_before: Time of the retry clock before which the server accepts no call, or None.
    """

    def __init__(self, error: ApiError, not_before: float | None = None):
        super().__init__(str(error))
        self.error = error
        self.not_before = not_before


@dataclass(frozen=True)
class RetryPolicy:
    """
    Repeat a call with exponential backoff.

    :param attempts: Maximum number of attempts.
    :param first_wait: Seconds before the second attempt; doubled before each further attempt.
    :param longest_wait: Longest wait in seconds; if the server states a longer one, the call fails.
    """

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 120.0

    @classmethod
    def none(cls) -> RetryPolicy:
        """Return a policy of one attempt: for triggers, where the poll loop waits and no thread sleeps."""
        return cls(attempts=1)

    def run(
        self, attempt: Callable[[], Result], *, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> Result:
        """Call ``attempt`` until it succeeds, raises anything but :class:`RetryableFailure`, or no attempt is left."""
        tries = _Tries(RetryPolicy.none() if _is_one_attempt.get() else self, clock)

        def recorded() -> Result:
            try:
                return attempt()
            except RetryableFailure as failure:
                tries.record(failure)
                raise

        def give_up(state: RetryCallState) -> Result:
            raise tries.last.error

        retrying = Retrying(
            retry=retry_if_exception_type(RetryableFailure),
            stop=lambda state: tries.are_enough(),
            wait=lambda state: tries.delay(),
            sleep=sleep,
            retry_error_callback=give_up,
        )
        return retrying(recorded)


class _Tries:
    """
    Count the attempts of one call.

    An attempt that is rate-limited until a stated time does not count as failed: while many clients call, most are
    rate-limited each time, and one of them may be several consecutive times. The total wait is limited to the longest
    possible waits between the attempts.
    """

    last: RetryableFailure
    _is_rate_limited = False
    _stated = 0.0  # seconds from the last attempt until the time that the server stated

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]):
        self._policy = policy
        self._clock = clock
        self._started = clock()
        self._failed = 0
        self._rate_limited = 0

    def record(self, failure: RetryableFailure) -> None:
        self.last = failure
        # Read the clock once per attempt, because it moves between two readings.
        self._stated = 0.0 if failure.not_before is None else max(failure.not_before - self._clock(), 0.0)
        self._is_rate_limited = failure.error.status_code == 429 and self._stated > 0
        if self._is_rate_limited:
            self._rate_limited += 1
        else:
            self._failed += 1

    def are_enough(self) -> bool:
        policy = self._policy
        if policy.attempts == 1 or self._stated > policy.longest_wait:  # a stated wait is never shortened
            return True
        if self._is_rate_limited:
            longest = (policy.attempts - 1) * policy.longest_wait
            return self._clock() + self._stated - self._started > longest
        return self._failed >= policy.attempts

    def delay(self) -> float:
        policy = self._policy
        if self._is_rate_limited:
            # A call that was rate-limited more often retries sooner after that time, or jitter could delay it forever.
            return max(self._stated, policy.first_wait) + random.uniform(0, policy.first_wait / self._rate_limited)
        backoff: float = min(policy.first_wait * 2 ** (self._failed - 1), policy.longest_wait)
        return max(self._stated, backoff) + random.uniform(0, backoff / 4)
