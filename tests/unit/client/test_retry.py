"""A rate-limited call among many: it gets its turn, not too early, and ends at its deadline."""

from __future__ import annotations

from itertools import chain, repeat

import pytest

from airflow_provider_workflows.client.retry import RetryableFailure, RetryPolicy, one_attempt
from airflow_provider_workflows.exceptions import ConnectionFailed, RateLimited

POLICY = RetryPolicy()


class Call:
    """A call whose attempts end as listed: rate-limited for so many seconds, a failure, or None for a response."""

    def __init__(self, *ends: float | str | None, policy: RetryPolicy = POLICY):
        self.now = 1_700_000_000.0
        self.sleeps: list[float] = []
        self.policy = policy
        self.status = 429
        self.drift = 0.0  # seconds that the clock moves at each read
        self._ends = chain(ends, repeat(ends[-1]))

    def run(self) -> None:
        self.policy.run(self._attempt, sleep=self._sleep, clock=self._clock)

    def _clock(self) -> float:
        self.now += self.drift
        return self.now

    def _attempt(self) -> None:
        end = next(self._ends)
        if isinstance(end, str):
            raise RetryableFailure(ConnectionFailed(end))
        if end is not None:
            raise RetryableFailure(RateLimited("Rate-limited by the server", status_code=self.status), self.now + end)

    def _sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


def test_rate_limited_call_gets_through_after_many_429():
    call = Call(*[10.0] * 20, None)

    call.run()

    assert len(call.sleeps) == 20 > POLICY.attempts


def test_nothing_is_sent_before_the_stated_time_and_soon_after():
    call = Call(*[10.0] * 20, None)

    call.run()

    assert all(10 <= sleep <= 11 for sleep in call.sleeps)


def test_call_that_was_rate_limited_more_often_retries_sooner():
    call = Call(*[10.0] * 20, None)

    call.run()

    assert all(sleep - 10 <= 1 / times + 1e-6 for times, sleep in enumerate(call.sleeps, 1))


def test_it_does_not_wait_for_its_turn_for_ever():
    call = Call(10.0)

    with pytest.raises(RateLimited):
        call.run()

    longest = (POLICY.attempts - 1) * POLICY.longest_wait
    assert longest - 11 <= sum(call.sleeps) <= longest


def test_failures_count_in_addition_to_rate_limits():
    no_response = "no connection"

    Call(10.0, no_response, 10.0, no_response, 10.0, no_response, 10.0, no_response, None).run()
    with pytest.raises(ConnectionFailed):
        Call(10.0, no_response, 10.0, no_response, no_response, 10.0, no_response, no_response, None).run()


@pytest.mark.parametrize("stated", [0.0, -30.0])
def test_a_time_that_is_past_names_none_and_so_the_attempts_end(stated: float):
    call = Call(stated)

    with pytest.raises(RateLimited):
        call.run()

    assert len(call.sleeps) == POLICY.attempts - 1
    assert call.sleeps == sorted(call.sleeps)


@pytest.mark.parametrize("end", [10.0, 0.0, "no connection"])
def test_in_a_trigger_nothing_waits(end: float | str):
    call = Call(end, policy=RetryPolicy.none())

    with pytest.raises((RateLimited, ConnectionFailed)):
        call.run()

    assert call.sleeps == []


def test_one_attempt_ends_with_its_block():
    with pytest.raises(ConnectionFailed), one_attempt():
        Call("no connection", None).run()

    call = Call("no connection", None)
    call.run()

    assert len(call.sleeps) == 1


@pytest.mark.parametrize("drift", [1.0, -20.0])
@pytest.mark.parametrize("policy", [POLICY, RetryPolicy.none()], ids=["task", "trigger"])
def test_a_clock_that_moves_between_two_polls_changes_nothing(drift: float, policy: RetryPolicy):
    call = Call(0.5, 0.5, None, policy=policy)
    call.drift = drift

    if policy.attempts == 1:
        with pytest.raises(RateLimited):
            call.run()
    else:
        call.run()
    assert len(call.sleeps) == (0 if policy.attempts == 1 else 2)


def test_server_down_with_a_stated_time_is_not_polled_more_often():
    call = Call(1.0)
    call.status = 503

    with pytest.raises(RateLimited):
        call.run()

    assert len(call.sleeps) == POLICY.attempts - 1
