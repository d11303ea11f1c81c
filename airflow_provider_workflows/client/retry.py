"""When a call may be sent again, and how long to wait before."""

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
    """Make one attempt of each call within the block, token requests included, under any retry policy."""
    before = _is_one_attempt.set(True)
    try:
        yield
    finally:
        _is_one_attempt.reset(before)


class Idempotency(enum.Enum):
    """
    Whether one call may be sent a second time; a property of the call, not of its HTTP verb.

    ``SAFE``: sending it twice changes nothing more than sending it once. ``UNSAFE``: it may.
    """

    SAFE = "safe"
    UNSAFE = "unsafe"


class RetryableFailure(Exception):
    """
    One attempt failed in a way that allows another.

    :param error: What to raise when there is no other attempt.
    :param not_before: Unix time before which the server does not want to be asked, or None.
    """

    def __init__(self, error: ApiError, not_before: float | None = None):
        super().__init__(str(error))
        self.error = error
        self.not_before = not_before


@dataclass(frozen=True)
class RetryPolicy:
    """
    How often and how long a call is tried.

    :param attempts: Attempts in all.
    :param first_wait: Seconds before the second attempt; doubled before each further one.
    :param longest_wait: Longest pause in seconds; a server that asks for a longer one ends the call.
    """

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 120.0

    @classmethod
    def none(cls) -> RetryPolicy:
        """One attempt: for triggers, where the poll loop does the waiting and no thread sleeps."""
        return cls(attempts=1)

    def run(
        self, attempt: Callable[[], Result], *, sleep: Callable[[float], None], clock: Callable[[], float]
    ) -> Result:
        """Call ``attempt`` until it returns or raises something else than :class:`RetryableFailure`."""
        tries = _Tries(RetryPolicy.none() if _is_one_attempt.get() else self, clock)

        def recorded() -> Result:
            try:
                return attempt()
            except RetryableFailure as failed:
                tries.record(failed)
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
    The attempts of one call so far.

    A call that is turned away until a time that the server names has not failed: while many ask, most are rejected
    each time, and one of them may be a few times in a row. So that does not count as an attempt. In all it takes no
    longer than the longest pauses between the attempts would.
    """

    last: RetryableFailure
    _is_rate_limited = False
    _stated = 0.0  # seconds from the last attempt to the time that the server has named

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]):
        self._policy = policy
        self._clock = clock
        self._started = clock()
        self._failed = 0
        self._rate_limited = 0

    def record(self, failed: RetryableFailure) -> None:
        self.last = failed
        # Once for each attempt: the clock goes on, or back, between two looks.
        self._stated = 0.0 if failed.not_before is None else max(failed.not_before - self._clock(), 0.0)
        self._is_rate_limited = failed.error.status_code == 429 and self._stated > 0
        if self._is_rate_limited:
            self._rate_limited += 1
        else:
            self._failed += 1

    def are_enough(self) -> bool:
        policy = self._policy
        if policy.attempts == 1 or self._stated > policy.longest_wait:  # it is never cut short
            return True
        if self._is_rate_limited:
            longest = (policy.attempts - 1) * policy.longest_wait
            return self._clock() + self._stated - self._started > longest
        return self._failed >= policy.attempts

    def delay(self) -> float:
        policy = self._policy
        if self._is_rate_limited:
            # Who was turned away more often comes back sooner after that time: else chance lets some wait for ever.
            return max(self._stated, policy.first_wait) + random.uniform(0, policy.first_wait / self._rate_limited)
        backoff: float = min(policy.first_wait * 2 ** (self._failed - 1), policy.longest_wait)
        return max(self._stated, backoff) + random.uniform(0, backoff / 4)
