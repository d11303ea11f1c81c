"""Rate limits, outages and rejections: no request is sent too early or too often, and no wait ends because of them."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from datetime import datetime, timezone
from email.utils import format_datetime

import pytest

from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.exceptions import RateLimited
from airflow_provider_workflows.hooks import base as hooks
from airflow_provider_workflows.polling.rate_limiter import RateLimiter
from tests.support.sizes import tenth_and_full
from tests.unit.polling.conftest import (
    DONE,
    INTERVAL,
    LEGACY_WORKFLOW,
    MadeUpWait,
    cancel,
    end,
    legacy_wait,
    request,
    start,
    v2_wait,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("airflow_connections")


@pytest.fixture
def sent(clock, monkeypatch):
    """When which request was sent."""
    requests = []
    send = RestClient._send

    def recorded(client, request, path, *args):
        requests.append((clock.elapsed, path))
        return send(client, request, path, *args)

    monkeypatch.setattr(RestClient, "_send", recorded)
    return requests


def of_kinds(emulator, count):
    """Return waits of two scopes on one connection, and a function that lets people end what they wait for."""
    v2 = start(emulator, count)
    legacy = emulator.control("POST", "procore/legacy/instances/many", count=count, workflow=LEGACY_WORKFLOW)["ids"]

    def ends():
        end(emulator, *(instance_id for instance_id, _ in v2))
        for activity, login in (("Submit for Approval", "integration"), ("Approve", "rita")):
            body = {"activity": activity, "login": f"{login}@example.com"}
            emulator.control("POST", "procore/legacy/instances/perform-many", ids=legacy, **body)

    return [*(v2_wait(*ids) for ids in v2), *(legacy_wait(instance_id) for instance_id in legacy)], ends


# --- the server says when ---


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "0"}, {"X-Rate-Limit-Reset": "30"}], ids=str)
def test_rejections_without_a_time_to_come_are_ever_rarer(emulator, clock, sent, headers):
    async def scenario():
        waits, ends = of_kinds(emulator, 1)
        tasks = [wait_for(wait) for wait in waits]
        await asyncio.sleep(2 * INTERVAL)
        emulator.control("POST", "faults", path="/rest/", status=429, headers=headers, times=1000)
        start = clock.time()
        await asyncio.sleep(3600)
        emulator.control("DELETE", "faults")
        requests = sum(at > start for at, _ in sent)
        ends()
        return requests, [await task for task in tasks]

    requests, payloads = clock.run(scenario())

    assert {payload["status"] for payload in payloads} == {"done"}
    assert requests <= 20


@pytest.mark.sample(3)
@pytest.mark.parametrize("path", ["bulk_history$", "workflow_instances"])
@pytest.mark.parametrize(
    ("status", "header_for"),
    [
        (429, lambda at: {"Retry-After": "1800"}),
        (503, lambda at: {"Retry-After": "1800"}),
        (429, lambda at: {"X-Rate-Limit-Reset": str(int(at + 1800) + 1)}),
        (503, lambda at: {"Retry-After": format_datetime(datetime.fromtimestamp(at + 1801, timezone.utc))}),
    ],
)
def test_no_poll_is_sent_before_the_stated_time(emulator, clock, sent, path, status, header_for):
    async def scenario():
        waits, ends = of_kinds(emulator, 5)
        tasks = [wait_for(wait) for wait in waits]
        await asyncio.sleep(2 * INTERVAL)
        headers = header_for(clock.time() + INTERVAL)
        emulator.control("POST", "faults", path=path, status=status, headers=headers)
        await asyncio.sleep(2 * INTERVAL)
        last = sent[-1][0]
        ends()
        payloads = [await task for task in tasks]
        return last, payloads

    last, payloads = clock.run(scenario())

    assert {payload["status"] for payload in payloads} == {"done"}
    after = [at for at, _ in sent if at > last]
    assert after[0] >= last + 1700  # the poll that was rejected came up to an interval after the fault was made
    assert clock.elapsed <= last + 1900 + INTERVAL


def test_only_the_rate_limited_call_is_repeated(clock, product):
    calls = []

    def limited_once(hook):
        request(hook)
        calls.append(clock.elapsed)
        if len(calls) == 1:
            raise RateLimited("429", wait=7.0)
        return DONE

    async def read(reader, subscribers):
        reader.deliver(subscribers[0], DONE)
        outcome = await reader.call(limited_once)
        reader.deliver_all((subscriber, outcome) for subscriber in subscribers[1:])

    async def scenario():
        product.next = [read]
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(3)]
        return [await task for task in tasks]

    assert {payload["status"] for payload in clock.run(scenario())} == {"done"}
    assert calls == [60.0, pytest.approx(67.0)]
    assert len(product.polls) == 1


@pytest.mark.parametrize("wait", [365 * 24 * 3600.0, 6 * 3600.0])
def test_a_stated_wait_is_at_most_an_hour_and_logged_once(clock, product, caplog, wait):
    def limited(hook):
        request(hook)
        raise RateLimited("429", wait=wait)

    async def read(reader, subscribers):
        await reader.call(limited)

    async def scenario():
        product.next = [read]
        task = wait_for(MadeUpWait(product.scope()))
        await asyncio.sleep(2 * 3600 + 2 * INTERVAL)
        postponed = product.hooks[0].client.sent
        await cancel(task)
        return postponed

    assert clock.run(scenario()) == 3
    assert len([record for record in caplog.records if "is rate-limited" in record.message]) == 1


def test_new_lookup_of_the_connection_ends_a_stated_wait(clock, product):
    async def read(reader, subscribers):
        await reader.call(limited)

    def limited(hook):
        request(hook)
        raise RateLimited("429", wait=3600.0)

    async def scenario():
        product.next = [read]
        task = wait_for(MadeUpWait(product.scope()))
        await asyncio.sleep(16 * INTERVAL)
        other = wait_for(MadeUpWait(product.scope("other")))
        await asyncio.sleep(3 * INTERVAL)
        await cancel(task, other)

    clock.run(scenario())

    assert len(product.polls) >= 2
    assert product.hooks[0].client.sent >= 2


def test_connection_ids_of_one_sign_in_share_the_rate_limit(clock, product):
    product.requests_per_hour = 600

    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(conn_id=f"id{n}"), interval=1.0)) for n in range(3)]
        await asyncio.sleep(600)
        await cancel(*tasks)

    clock.run(scenario())

    # Ten minutes' part, and what may be sent at once of five minutes.
    assert sum(hook.client.sent for hook in product.hooks) <= 600 * 0.8 / 6 + 600 * 0.8 / 12 + 3


# --- outages ---


@pytest.mark.parametrize(
    "fault", [{"reset": "before"}, *(pytest.param({"status": status}, marks=pytest.mark.slow) for status in (503, 500))]
)
def test_waits_survive_60_failed_polls_at_no_extra_cost(emulator, clock, sent, fault):
    async def scenario():
        waits, ends = of_kinds(emulator, 150)
        tasks = [wait_for(wait) for wait in waits]
        await asyncio.sleep(5.5 * INTERVAL)  # until each was polled
        emulator.control("POST", "faults", path="/rest/", times=10**6, **fault)
        await asyncio.sleep(60 * INTERVAL)
        ends()
        ended = [task for task in tasks if task.done()]
        emulator.control("DELETE", "faults")
        started_at, before = clock.elapsed, len(sent)
        payloads = [await task for task in tasks]
        routes = Counter(path.rpartition("/")[2] for _, path in sent[before:])
        return ended, payloads, clock.elapsed - started_at, routes

    ended, payloads, took, counts = clock.run(scenario())

    assert ended == []
    assert {payload["status"] for payload in payloads} == {"done"}
    assert took <= INTERVAL + 1, took
    assert counts["bulk_history"] <= 3 + 3 + 3


@tenth_and_full("days", 30)
def test_token_that_expires_during_a_long_wait_is_renewed(emulator, clock, sent, days):
    emulator.control("PATCH", "flags", token_lifetime=5400)

    async def scenario():
        waits, ends = of_kinds(emulator, 2)
        for wait in waits:
            wait.poll_interval = 6 * 3600.0
        tasks = [wait_for(wait) for wait in waits]
        await asyncio.sleep(days * 24 * 3600)
        assert not any(task.done() for task in tasks)
        ends()
        return [await task for task in tasks]

    payloads = clock.run(scenario())

    assert {payload["status"] for payload in payloads} == {"done"}
    assert {request["status"] for request in emulator.requests()} <= {200, 401}
    assert sum("bulk_history" in path for _, path in sent) >= 4 * days


# --- the connection is looked up rarely, and again where that may help ---


@pytest.fixture
def lookups(monkeypatch, clock):
    times = []
    look_up = hooks.get_async_connection

    async def counted(conn_id):
        times.append(clock.elapsed)
        return await look_up(conn_id)

    monkeypatch.setattr(hooks, "get_async_connection", counted)
    return times


@tenth_and_full("waits", 500)
def test_waits_look_up_their_connection_every_15_minutes(emulator, clock, lookups, waits):
    async def scenario():
        tasks = [wait_for(v2_wait(*ids)) for ids in start(emulator, waits)]
        await asyncio.sleep(14 * INTERVAL)
        first = len(lookups)
        await asyncio.sleep(16 * INTERVAL)
        await cancel(*tasks)
        return first

    assert clock.run(scenario()) == 1
    assert len(lookups) == 2
    assert lookups[1] - lookups[0] >= 900


@pytest.mark.parametrize("kind", ["polled together", "polled singly"])
def test_changed_secret_is_used_after_a_rejection(emulator, clock, lookups, set_connection, kind):
    good = emulator.connection("procore")

    async def scenario():
        started = start(emulator, 3)
        tasks = [wait_for(v2_wait(*ids) if kind == "polled together" else single_wait(*ids)) for ids in started]
        await asyncio.sleep(2.5 * INTERVAL)
        emulator.control("POST", "tokens/revoke")
        set_connection("procore_default", {**good, "extra": {**good["extra"], "timeout": 50}})
        end(emulator, *(instance_id for instance_id, _ in started))
        return [await task for task in tasks]

    assert {payload["status"] for payload in clock.run(scenario())} == {"done"}
    assert clock.elapsed <= 4 * INTERVAL


def single_wait(*ids):
    """A wait that is not polled together with others."""
    trigger = v2_wait(*ids)
    trigger.scope = lambda: super(type(trigger), trigger).scope()
    return trigger


def test_a_secret_that_stays_rejected_ends_the_waits(emulator, clock, set_connection):
    good = emulator.connection("procore")
    over = {"conn_type": "procore", "host": good["host"], "extra": {**good["extra"], "access_token": "over"}}
    set_connection("procore_default", over)

    async def scenario():
        return [await task for task in [wait_for(v2_wait("700001", "5001")) for _ in range(3)]]

    assert [payload["error"] for payload in clock.run(scenario())] == ["AuthenticationError"] * 3
    assert 600 <= clock.elapsed <= 900


@pytest.mark.parametrize("kind", [v2_wait, legacy_wait])
def test_missing_connection_ends_the_wait_and_is_named(clock, kind):
    async def scenario():
        ids = ("700001", "5001") if kind is v2_wait else ("568150",)
        return await wait_for(kind(*ids, procore_conn_id="nowhere"))

    payload = clock.run(scenario())

    assert payload["error"] == "ConfigurationError"
    assert "nowhere" in payload["message"]
    assert clock.elapsed >= 600


# --- the rate limiter ---


def sends(clock, limiter, seconds, rate=None, every=0.05):
    """Return when requests go out if something sends them as fast as it may."""
    times = []

    async def scenario():
        ends = clock.elapsed + seconds
        while clock.elapsed < ends:
            await limiter.acquire()
            times.append(clock.elapsed)
            limiter.record(1, rate)
            await asyncio.sleep(every)

    clock.run(scenario())
    return times


def most_within(times, seconds):
    return max(bisect_left(times, at + seconds) - number for number, at in enumerate(times))


def test_requests_are_not_delayed_without_a_limit(clock):
    limiter = RateLimiter(1)

    assert len(sends(clock, limiter, 10)) == pytest.approx(200, abs=2)


@pytest.mark.parametrize("triggerers", [1, 2, 4])
def test_requests_per_hour_are_shared_by_the_triggerers(clock, triggerers):
    limiter = RateLimiter(triggerers)
    limiter.configure(360)

    times = sends(clock, limiter, 3 * 3600, every=2.0)

    share = 360 * 0.8 / triggerers
    assert 3 * share - 1 <= len(times) <= 3 * share + share / 12 + 2
    # What was saved may be sent at once, but it is not more than five minutes' worth.
    assert most_within(times, 3600) <= share * 13 / 12 + 2


@pytest.mark.parametrize("triggerers", [1, 2])
def test_the_short_window_is_learned_from_the_headers(clock, triggerers):
    limiter = RateLimiter(triggerers)
    limiter.record(1, RateLimit(25, 24, int(clock.time()) + 5, 5.0))

    assert most_within(sends(clock, limiter, 120), 10) <= 25 * 0.8 / triggerers + 1


def test_nothing_is_sent_while_only_a_fifth_of_the_limit_is_left(clock):
    limiter = RateLimiter(1)
    reset_at = int(clock.time()) + 500
    limiter.record(1, RateLimit(3600, 720, reset_at, 500.0))

    assert sends(clock, limiter, 600)[0] >= reset_at - clock._start


@pytest.mark.parametrize(
    "rate",
    [
        RateLimit(0, 0, 2_000_000_000),
        RateLimit(None, 0, 2_000_000_000),
        RateLimit(3600, 3599, None),
        RateLimit(3600, 0, 1),
        RateLimit(3600, None, 2_000_000_000_000),
        RateLimit(1, 1, 2_000_000_000_000),
    ],
)
def test_malformed_headers_stop_nothing_for_good(clock, rate):
    limiter = RateLimiter(1)
    limiter.record(1, rate)

    assert sends(clock, limiter, 2 * 3600, every=10.0)[0] <= 3600 * 1.3


@pytest.mark.sample(3)
@pytest.mark.parametrize("skew", [-20.0, 0.0, 20.0, 6 * 3600.0])
def test_windows_are_distinguished_by_size_with_any_clock(clock, skew):
    limiter = RateLimiter(1)
    limiter.record(1, RateLimit(25, 24, 0, 8.0 + skew))
    rate = RateLimit(7200, 7000, 0, 15.0 + skew)

    times = sends(clock, limiter, 1800, rate)

    assert most_within(times, 10) <= 25 * 0.8 + 1
    assert len(times) >= 0.9 * 1800 / 10 * 25 * 0.8


@pytest.mark.parametrize(
    "stated", ["reset_header", *(pytest.param(way, marks=pytest.mark.slow) for way in ("retry_after", "both"))]
)
def test_polls_leave_a_fifth_of_the_rate_limit_to_others(emulator, clock, sent, stated):
    limits = {"spike_limit": 10, "hourly_limit": 200}
    emulator.control("PATCH", "flags", rate_limit="on", rate_headers="always", rate_429=stated, **limits)

    async def scenario():
        waits, ends = of_kinds(emulator, 5)
        for wait in waits:
            wait.poll_interval = 10.0
        tasks = [wait_for(wait) for wait in waits]
        await asyncio.sleep(3600)
        steady_since = clock.elapsed
        await asyncio.sleep(3600)
        ends()
        payloads = [await task for task in tasks]
        return steady_since, payloads

    steady_since, payloads = clock.run(scenario())

    assert {payload["status"] for payload in payloads} == {"done"}
    steady = [at for at, path in sent if at > steady_since and "/oauth/" not in path and at < steady_since + 3600]
    rejected = [request for request in emulator.requests() if request["status"] == 429]
    assert rejected == []
    assert 100 <= len(steady) <= 200 * 0.8 * 1.1
    assert most_within(steady, 10) <= 8 + 1


@pytest.mark.parametrize("triggerers", [pytest.param("1", marks=pytest.mark.slow), "4"])
def test_requests_per_hour_of_the_connection_stretch_the_interval(
    emulator, clock, sent, set_connection, monkeypatch, triggerers
):
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__TRIGGERER_COUNT", triggerers)
    connection = emulator.connection("procore")
    connection["extra"]["requests_per_hour"] = 60
    hours = 2
    set_connection("procore_default", connection)

    async def scenario():
        tasks = [wait_for(v2_wait(*ids, poll_interval=10.0)) for ids in start(emulator, 30)]
        await asyncio.sleep(hours * 3600)
        await cancel(*tasks)

    clock.run(scenario())

    polls = [at for at, path in sent if path.endswith("bulk_history")]
    assert len(polls) == pytest.approx(hours * 60 * 0.8 / int(triggerers), rel=0.1)
