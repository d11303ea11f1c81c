"""When a call may be sent again, and how long to wait before."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.stop import stop_base

from airflow_provider_workflows.exceptions import ApiError

Result = TypeVar("Result")


class Replay(enum.Enum):
    """
    Whether one call may be sent a second time; a property of the call, not of its HTTP verb.

    ``SAFE``: sending it twice changes nothing more than sending it once. ``NEVER``: it may.
    """

    SAFE = "safe"
    NEVER = "never"


class Again(Exception):
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
        """Call ``attempt`` until it returns or raises something else than :class:`Again`."""

        def pause(state: RetryCallState) -> float:
            backoff: float = min(self.first_wait * 2 ** (state.attempt_number - 1), self.longest_wait)
            return max(self._stated(state, clock), backoff) + random.uniform(0, backoff / 4)

        def give_up(state: RetryCallState) -> Result:
            raise _failure(state).error

        retrying = Retrying(
            retry=retry_if_exception_type(Again),
            stop=stop_after_attempt(self.attempts) | _AskedTooMuch(self, clock),
            wait=pause,
            sleep=sleep,
            retry_error_callback=give_up,
        )
        return retrying(attempt)

    def _stated(self, state: RetryCallState, clock: Callable[[], float]) -> float:
        not_before = _failure(state).not_before
        return 0.0 if not_before is None else not_before - clock()


class _AskedTooMuch(stop_base):
    """Stop when the server asks for a longer pause than the policy allows; it is never cut short."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]):
        self.policy = policy
        self.clock = clock

    def __call__(self, retry_state: RetryCallState) -> bool:
        return self.policy._stated(retry_state, self.clock) > self.policy.longest_wait


def _failure(state: RetryCallState) -> Again:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, Again)  # tenacity asks only after a failure of the one kind it retries
    return failure
