"""A contract check reads only, and stays within its requests and the server's rate limit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import requests

from airflow_provider_workflows.diagnostics.contract_check import recording
from airflow_provider_workflows.diagnostics.contract_check.recording import NotSent, Recorder

URL = "https://api.example.com"
COMPANY = f"{URL}/rest/v2.0/companies/1/workflows"


class Clock:
    """A monotonic clock that moves when the code sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(clock) -> Recorder:
    return Recorder(clock.sleep, lambda: clock.now)


def request(method: str = "GET", url: str = f"{COMPANY}/tools") -> requests.PreparedRequest:
    return requests.Request(method, url).prepare()


def response(**headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = 200
    made.headers.update(headers)
    return made


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v2/workflows/instances/new-integrations?id=1"),
        ("POST", "/api/v2/workflows/start"),
        ("PATCH", "/api/v2/tasks/1/action"),
        ("POST", "/rest/v2.0/companies/1/workflows/instances"),
        ("POST", "/rest/v2.0/companies/1/workflows/instances/1/responses"),
        ("DELETE", "/rest/v2.0/companies/1/workflows/bulk_replace_requests/1"),
    ],
)
def test_no_write_and_no_consuming_poll_is_sent(recorder, method, path):
    with pytest.raises(NotSent):
        recorder.before(request(method, URL + path))

    assert recorder.sent == 0


def test_reading_with_a_post_and_signing_in_are_sent(recorder):
    recorder.before(request("POST", f"{COMPANY}/instances/bulk_history"))
    recorder.before(request("POST", f"{URL}/oauth/token"))

    assert recorder.sent == 2


def test_number_of_requests_is_limited(recorder):
    for _ in range(recording.MAX_REQUESTS):
        recorder.before(request())

    with pytest.raises(NotSent):
        recorder.before(request())


def test_any_ten_seconds_have_fewer_requests_than_documented(recorder, clock):
    times = []
    for _ in range(recording.MAX_REQUESTS):
        recorder.before(request())
        times.append(clock.now)
        clock.now += 0.05

    assert all(later - sooner >= 10 for sooner, later in zip(times, times[24:], strict=False))
    assert all(sooner <= later for sooner, later in pairwise(times))


def test_stated_limit_that_is_nearly_used_up_is_waited_for(recorder, clock):
    stated = {"X-Rate-Limit-Limit": "25", "X-Rate-Limit-Remaining": "4", "X-Rate-Limit-Reset": "1000000008"}
    recorder.before(request())
    recorder.after(request(), response(Date="Sun, 09 Sep 2001 01:46:40 GMT", **stated), b"{}")

    recorder.before(request())

    assert clock.now == 8


def test_limit_that_needs_a_long_wait_ends_the_check(recorder, clock):
    stated = {"X-Rate-Limit-Limit": "600", "X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "1000003000"}
    recorder.before(request())
    recorder.after(request(), response(Date="Sun, 09 Sep 2001 01:46:40 GMT", **stated), b"{}")

    with pytest.raises(NotSent):
        recorder.before(request())
    assert clock.now == 0
