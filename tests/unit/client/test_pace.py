"""A client that keeps within the server's limit of ten seconds and uses all of it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_workflows.client.pace import Pace


class Server:
    """Counts the requests of a paced client in the last ten seconds, as a server does that rejects too many."""

    def __init__(self, limit: int, *, headers: bool, latency: float = 0.0):
        self.limit, self.headers, self.latency = limit, headers, latency
        self.now = 0.0
        self.times: list[float] = []
        self.rejected = 0
        self.pace = Pace(lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def request(self) -> None:
        self.pace.before(None)
        recent = [moment for moment in self.times if moment > self.now - 10]
        is_rejected = len(recent) >= self.limit
        self.rejected += is_rejected
        if not is_rejected:
            self.times.append(self.now)
        self.now += self.latency
        headers = {"X-Rate-Limit-Limit": str(self.limit)} if self.headers else {}
        self.pace.after(None, SimpleNamespace(status_code=429 if is_rejected else 204, headers=headers), b"")
        if is_rejected:  # what the client's retry policy does
            self.sleep(recent[0] + 10 - self.now)
            self.request()


@pytest.mark.parametrize("latency", [0.0, 0.05, 0.39])
def test_paced_client_uses_each_window_and_is_not_rejected(latency):
    server = Server(25, headers=True, latency=latency)

    for _ in range(250):
        server.request()

    assert server.rejected == 0
    assert server.now <= 90 + 25 * latency * 10


def test_limit_without_headers_is_learned_from_one_rejection():
    server = Server(25, headers=False)

    for _ in range(250):
        server.request()

    assert server.rejected == 1
    assert server.now == 90


def test_hourly_limit_in_a_header_delays_nothing():
    server = Server(600, headers=True)

    for _ in range(500):
        server.request()

    assert server.now == 0
