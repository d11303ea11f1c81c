"""The poll loop: whom it serves, when, and how an error of one wait affects the others."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import sys
import time

import pytest

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
    SignInFailed,
    UnexpectedResponse,
)
from airflow_provider_workflows.polling import poll
from airflow_provider_workflows.polling.poll import PollScope, snapshots
from tests.unit.polling.conftest import DONE, INTERVAL, MadeUpWait, Product, cancel, request, wait_for


def responds(outcomes):
    """One call that brings some subscribers something, by their names, and the others nothing."""

    async def read(reader, subscribers):
        await reader.call(request)
        reader.deliver_all((subscriber, outcomes.get(subscriber.name)) for subscriber in subscribers)

    return read


def raises(error):
    def fail(hook):
        request(hook)
        raise error

    async def read(reader, subscribers):
        await reader.call(fail)

    return read


def one_by_one(outcomes):
    """A call for each subscriber."""

    async def read(reader, subscribers):
        for subscriber in subscribers:
            subscriber.single = outcomes.get(subscriber.name)
            await reader.poll_one(subscriber)

    return read


def over(*names):
    return responds(dict.fromkeys(names, DONE))


# --- one loop ---


def test_all_waits_of_a_scope_share_one_poll(clock, product):
    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(500)]
        await asyncio.sleep(3.5 * INTERVAL)
        running = len(asyncio.all_tasks()) - 1
        await cancel(*tasks)
        return running

    running = clock.run(scenario())

    assert [len(subscribers) for _, subscribers in product.polls] == [500, 500, 500]
    assert product.times == [60.0, 120.0, 180.0]
    sleeps_in_a_task_of_its_own = sys.version_info < (3, 12)  # asyncio.wait_for
    assert running == 500 + 1 + sleeps_in_a_task_of_its_own  # the waits and the poll
    assert len(product.hooks) == 1


def test_scopes_of_one_user_send_at_most_two_requests_at_once(clock, product):
    at_work = []

    def slow(hook):
        at_work.append(1)
        time.sleep(0.05)
        at_work.append(-1)

    async def read(reader, subscribers):
        await reader.call(slow)
        reader.deliver_all((subscriber, None) for subscriber in subscribers)

    async def scenario():
        product.next = [read] * 5
        tasks = [wait_for(MadeUpWait(product.scope(name, conn_id=name))) for name in "abcde"]
        await asyncio.sleep(1.5 * INTERVAL)
        await cancel(*tasks)

    clock.run(scenario())

    assert len(product.polls) == 5
    assert max(itertools.accumulate(at_work)) == 2


def test_poll_stops_when_its_last_subscriber_leaves(clock, product):
    async def scenario():
        first, last = (wait_for(MadeUpWait(product.scope(), name)) for name in ("first", "last"))
        await asyncio.sleep(1.5 * INTERVAL)
        await cancel(first)
        await asyncio.sleep(INTERVAL)
        await cancel(last)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(10 * INTERVAL)

    clock.run(scenario())

    assert [[subscriber.name for subscriber in subscribers] for _, subscribers in product.polls] == [
        ["first", "last"],
        ["last"],
    ]
    assert product.closed == product.hooks


def test_a_poll_starts_again_for_a_wait_after_the_last_one(clock, product):
    async def scenario():
        product.next = [over("one"), over("two")]
        await wait_for(MadeUpWait(product.scope(), "one"))
        return await wait_for(MadeUpWait(product.scope(), "two"))

    assert clock.run(scenario())["status"] == "done"
    assert len(product.hooks) == 2


def test_new_subscriber_is_served_by_the_next_poll(clock, product):
    async def scenario():
        early = wait_for(MadeUpWait(product.scope(), "early"))
        await asyncio.sleep(1.9 * INTERVAL)
        product.next = [over("late")]
        assert (await wait_for(MadeUpWait(product.scope(), "late")))["status"] == "done"
        await cancel(early)

    clock.run(scenario())

    assert product.times == [60.0, 120.0]


def test_poll_interval_is_the_shortest_requested(clock, product):
    async def scenario():
        slow = wait_for(MadeUpWait(product.scope(), "slow", interval=600.0))
        await asyncio.sleep(30)
        quick = wait_for(MadeUpWait(product.scope(), "quick", interval=10.0))
        await asyncio.sleep(35)
        await cancel(quick)
        await asyncio.sleep(1300)
        await cancel(slow)

    clock.run(scenario())

    assert product.times == [40.0, 50.0, 60.0, 70.0, 670.0, 1270.0]


def test_poll_continues_when_a_wait_leaves_during_it(clock, product):
    async def scenario():
        leaver, stayer = (wait_for(MadeUpWait(product.scope(), name)) for name in ("leaver", "stayer"))

        async def read(reader, subscribers):
            await reader.call(lambda hook: clock.loop.call_soon_threadsafe(leaver.cancel))
            reader.deliver_all((subscriber, DONE) for subscriber in subscribers)

        product.next = [read]
        return await stayer, leaver

    payload, leaver = clock.run(scenario())

    assert payload["status"] == "done"
    assert leaver.cancelled()


def test_each_line_goes_to_the_log_of_its_own_wait(clock, product):
    """Airflow logs by a context variable: what a poll logs in the context of a wait goes to the log of its task."""
    whose = contextvars.ContextVar("whose", default="the triggerer's")
    found = {}

    async def read(reader, subscribers):
        found["poll"] = whose.get()
        reader.deliver_all((subscriber, None) for subscriber in subscribers)

    class Wait(MadeUpWait):
        def deliver(self, outcome):
            found[self.name] = whose.get()
            super().deliver(outcome)

    async def waiting(name):
        whose.set(name)
        return await wait_for(Wait(product.scope(), name, deadline=clock.deadline(1.5 * INTERVAL)))

    async def scenario():
        product.next = [read]
        await asyncio.gather(*(asyncio.create_task(waiting(name)) for name in ("first", "second")))

    clock.run(scenario())

    assert found == {"poll": "the triggerer's", "first": "first", "second": "second"}


def test_polls_of_an_event_loop_that_is_closed_are_forgotten(monkeypatch):
    """`dag.test()` has an event loop for each trigger."""
    product = Product(lambda: 0.0)
    monkeypatch.setattr("airflow_provider_workflows.hooks.base.find_connection", product.find_connection)

    async def scenario():
        product.next = [over("wait")]
        return (await wait_for(MadeUpWait(product.scope(), interval=0.01)))["status"]

    assert {asyncio.run(scenario()) for _ in range(5)} == {"done"}
    assert len(poll._loops) == 1


# --- when ---


@pytest.mark.usefixtures("real_first_delay")
def test_first_poll_is_delayed_and_spread_over_the_interval(clock, product):
    scope = product.scope()
    intervals = [PollScope.first_delay(scope, 60.0) for _ in range(200)]

    assert min(intervals) == 5.0
    assert max(intervals) > 40.0
    assert [PollScope.first_delay(scope, 0.1) for _ in range(3)] == [5.0, 5.0, 5.0]


@pytest.fixture
def real_first_delay(monkeypatch):
    monkeypatch.setattr(poll, "MIN_FIRST_DELAY_SECONDS", 5.0)


@pytest.mark.usefixtures("real_first_delay")
@pytest.mark.parametrize(("outcome", "status"), [(DONE, "done"), (None, "timeout")], ids=str)
def test_event_is_never_yielded_in_the_first_seconds(clock, product, outcome, status):
    async def scenario():
        there = wait_for(MadeUpWait(product.scope(), "there"))
        await asyncio.sleep(1.99 * INTERVAL)
        product.next = [responds({"new": outcome})]
        started_at = clock.elapsed
        deadline = None if outcome else clock.deadline(1.0)
        payload = await wait_for(MadeUpWait(product.scope(), "new", deadline=deadline))
        await cancel(there)
        return clock.elapsed - started_at, payload["status"]

    took, how = clock.run(scenario())

    assert 5.0 <= took < 6.0
    assert how == status


# --- the deadline ---


@pytest.mark.parametrize("seconds", [-5.0, 0.9 * INTERVAL], ids=["passed before the start", "before the first poll"])
def test_wait_polls_once_more_at_the_deadline(clock, product, seconds):
    async def scenario():
        return await wait_for(MadeUpWait(product.scope(), deadline=clock.deadline(seconds)))

    assert clock.run(scenario()) == {"status": "timeout", "last_poll": "It was not polled."}
    assert product.times == [pytest.approx(max(0.0, seconds))]


def test_last_poll_finds_a_decision_before_the_deadline(clock, product):
    async def scenario():
        product.next = [over("wait")]
        return await wait_for(MadeUpWait(product.scope(), deadline=clock.deadline(3.0)))

    assert clock.run(scenario())["status"] == "done"
    assert clock.elapsed < 4.0


def test_waits_with_one_deadline_share_the_last_poll(clock, product):
    async def scenario():
        deadline = clock.deadline(0.5 * INTERVAL)
        there = wait_for(MadeUpWait(product.scope(), "there"))
        waits = [MadeUpWait(product.scope(), f"w{number}", deadline=deadline) for number in range(50)]
        payloads = await asyncio.gather(*map(wait_for, waits))
        await cancel(there)
        return {payload["status"] for payload in payloads}

    assert clock.run(scenario()) == {"timeout"}
    assert sum(len(subscribers) for _, subscribers in product.polls) == 50
    assert len(product.polls) <= 2


def test_hanging_last_poll_does_not_delay_the_timeout(clock, product):
    async def hangs(reader, subscribers):
        await asyncio.sleep(3600)

    async def scenario():
        product.next = [hangs]
        return await wait_for(MadeUpWait(product.scope(), deadline=clock.deadline(3.0)))

    assert clock.run(scenario())["status"] == "timeout"
    assert clock.elapsed < 120


def test_timeout_names_the_last_poll_before_the_deferral(clock, product):
    async def scenario():
        product.next = [raises(ServerError("The server is not available"))] * 3
        wait = MadeUpWait(product.scope(), deadline=clock.deadline(2.5 * INTERVAL))
        wait.last_poll = "Instance 7 is at step 'Budget Check'."
        wait.last_poll = wait.serialize()[1]["last_poll"]
        return await wait_for(wait)

    payload = clock.run(scenario())

    assert payload["status"] == "timeout"
    assert payload["last_poll"].startswith("Instance 7 is at step 'Budget Check'. The last poll failed: The server is")


# --- errors of one ---

REJECTIONS = [
    NotFound("gone"),
    PermissionDenied("hidden"),
    UnexpectedResponse("malformed"),
    InvalidRequest("not like this"),
    AuthenticationError("this path alone"),
]


@pytest.mark.parametrize("rejection", REJECTIONS, ids=lambda rejection: type(rejection).__name__)
def test_a_rejected_wait_fails_alone_after_ten_minutes(clock, product, rejection):
    async def scenario():
        a, bad, c, d = (wait_for(MadeUpWait(product.scope(), name)) for name in ("a", "bad", "c", "d"))
        product.next = [one_by_one({"bad": rejection})] * 9 + [one_by_one({"a": DONE, "bad": rejection, "c": DONE})]
        a, c = await a, await c
        assert not bad.done()
        assert clock.elapsed == pytest.approx(10 * INTERVAL, abs=1)
        product.next = [one_by_one({"bad": rejection})]
        payload = await bad
        await cancel(d)
        return a, c, payload

    a, c, bad = clock.run(scenario())

    assert [a["status"], c["status"]] == ["done"] * 2
    assert (bad["status"], bad["error"], bad["message"]) == ("error", type(rejection).__name__, str(rejection))


@pytest.mark.parametrize("rejection", REJECTIONS, ids=lambda rejection: type(rejection).__name__)
@pytest.mark.parametrize("spoil", [raises, lambda error: one_by_one({"wait": error})], ids=["all", "one"])
def test_no_single_rejected_poll_ends_a_wait(clock, product, rejection, spoil):
    async def scenario():
        product.next = [spoil(rejection)] * 9 + [responds({})] + [spoil(rejection)] * 9 + [over("wait")]
        return await wait_for(MadeUpWait(product.scope()))

    assert clock.run(scenario())["status"] == "done"


def test_a_short_interval_makes_no_wait_less_patient(clock, product):
    async def scenario():
        waits = [MadeUpWait(product.scope(), f"w{n}", interval=1.0 if n == 0 else INTERVAL) for n in range(20)]
        product.next = [raises(PermissionDenied("403"))] * 590
        tasks = [wait_for(wait) for wait in waits]
        await asyncio.sleep(595)
        assert not any(task.done() for task in tasks)
        product.next = [over(*(wait.name for wait in waits))]
        return [(await task)["status"] for task in tasks]

    assert clock.run(scenario()) == ["done"] * 20


def test_a_long_interval_needs_three_rejected_polls(clock, product):
    async def scenario():
        product.next = [raises(NotFound("404"))] * 3
        return await wait_for(MadeUpWait(product.scope(), interval=3600.0))

    assert clock.run(scenario())["error"] == "NotFound"
    assert len(product.polls) == 3


def test_transient_error_of_one_wait_does_not_delay_the_others(clock, product):
    async def scenario():
        names = ("a", "bad", "c")
        a, bad, c = (wait_for(MadeUpWait(product.scope(), name)) for name in names)
        product.next = [one_by_one({"a": DONE, "bad": ServerError("It failed"), "c": DONE})] + [
            one_by_one({"bad": ServerError("It failed")})
        ] * 50
        statuses = [(await task)["status"] for task in (a, c)]
        at = clock.elapsed
        assert not bad.done()
        await asyncio.sleep(49.5 * INTERVAL)
        product.next = [over("bad")]
        return statuses, at, (await bad)["status"]

    statuses, at, bad = clock.run(scenario())

    assert (statuses, bad) == (["done", "done"], "done")
    assert at < INTERVAL + 1


def test_three_consecutive_faults_end_a_poll_cycle(clock, product):
    outage = {f"w{number}": ServerError("It failed") for number in range(7)}
    read = []

    def noting(outcomes):
        async def cycle(reader, subscribers):
            for subscriber in subscribers:
                read.append(subscriber.name)
                subscriber.single = outcomes.get(subscriber.name)
                await reader.poll_one(subscriber)

        return cycle

    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(7)]
        product.next = [noting(outage), noting(outage), noting({})]
        await asyncio.sleep(3.5 * INTERVAL)
        await cancel(*tasks)

    clock.run(scenario())

    assert read == [f"w{number}" for number in (0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5)]


def test_failing_item_is_never_read_before_the_others(clock, product):
    bad = {name: ServerError("It failed") for name in ("x", "y", "z")}

    async def scenario():
        tasks = {name: wait_for(MadeUpWait(product.scope(), name)) for name in (*bad, "a", "b")}
        product.next = [one_by_one({**bad, "a": DONE, "b": DONE})] * 3
        payloads = [await tasks[name] for name in ("a", "b")]
        await cancel(*tasks.values())
        return payloads

    assert [payload["status"] for payload in clock.run(scenario())] == ["done", "done"]
    assert clock.elapsed < 3 * INTERVAL


# --- errors of all ---


@pytest.mark.parametrize("fault", [ConnectionFailed("reset"), ServerError("503"), RateLimited("429", wait=1.0)])
def test_lasting_transient_error_ends_no_wait(clock, product, fault):
    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(3)]
        product.next = [raises(fault)] * 50 + [over("w0", "w1", "w2")]
        return [(await task)["status"] for task in tasks]

    assert clock.run(scenario()) == ["done"] * 3


@pytest.mark.parametrize("crash", [KeyError("data"), TypeError("NoneType"), RuntimeError("a bug"), ValueError("no")])
def test_a_crash_of_a_poll_ends_no_wait_at_once(clock, product, crash):
    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        product.next = [raises(crash)] * 5 + [over("wait")]
        return await task

    assert clock.run(scenario())["status"] == "done"


@pytest.mark.parametrize(
    ("rejection", "error"),
    [
        (NotFound("no such project"), "NotFound"),
        (ConfigurationError("tool_type: unknown"), "ConfigurationError"),
        (SignInFailed("no token"), "SignInFailed"),
        (RuntimeError("a bug"), "WorkflowsError"),
    ],
)
def test_a_lasting_rejection_of_the_poll_ends_all_its_waits(clock, product, rejection, error):
    async def scenario():
        product.next = [raises(rejection)] * 11
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(3)]
        await asyncio.sleep(5.5 * INTERVAL)
        late = wait_for(MadeUpWait(product.scope(), "late"))
        payloads = [await task for task in tasks]
        assert not late.done()  # it has seen fewer rejections
        product.next = [over("late")]
        assert (await late)["status"] == "done"
        return payloads

    for payload in clock.run(scenario()):
        assert (payload["status"], payload["error"]) == ("error", error)
        assert str(rejection) in payload["message"]


def test_crashed_poll_loop_starts_again_and_logs_it(clock, product, caplog, monkeypatch):
    crashes = iter([True])

    def emit(self):
        if next(crashes, False):
            raise RuntimeError("a bug in the loop")

    monkeypatch.setattr(poll.Poll, "_record_cycle", lambda self, *arguments: emit(self))

    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        await asyncio.sleep(1.5 * INTERVAL)
        product.next = [over("wait")]
        return await task

    assert clock.run(scenario())["status"] == "done"
    assert any("failed unexpectedly" in record.message for record in caplog.records)


def test_an_outage_is_logged_when_it_starts_and_when_it_ends(clock, product, caplog):
    caplog.set_level("INFO")

    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        failing = [raises(ServerError("It failed")), one_by_one({"wait": ServerError("It failed")})]
        product.next = [responds({}), *failing, responds({}), responds({}), *reversed(failing), over("wait")]
        return await task

    clock.run(scenario())

    messages = [record.message.split(":")[0] for record in caplog.records if record.name.endswith("polling.poll")]
    failed, works = "Polling made_up made_up scope failed, will retry", "Polling made_up made_up scope works again."
    assert messages == [failed, works] * 2


def test_only_an_outage_of_ten_minutes_is_reported_to_a_task(clock, product):
    reports = []

    class Wait(MadeUpWait):
        def report_outage(self, fault):
            super().report_outage(fault)
            reports.append((clock.elapsed // INTERVAL, fault and str(fault)))

    async def scenario():
        task = wait_for(Wait(product.scope()))
        outage = raises(ServerError("It failed", advice=""))
        product.next = [outage] * 8 + [responds({})] + [outage] * 30 + [over("wait")]
        return await task

    clock.run(scenario())

    assert reports == [(19, "It failed."), (40, None)]


# --- the connection ---


def test_connection_lookup_serves_all_scopes_for_15_minutes(clock, product):
    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(f"s{number}"))) for number in range(100)]
        await asyncio.sleep(40 * 60 + 30)
        await cancel(*tasks)

    clock.run(scenario())

    assert product.look_ups == [60.0, 960.0, 1860.0]
    assert len(product.polls) == 40 * 100
    assert len(product.hooks) == 1 + 99  # of which all but one are dropped unused
    assert product.closed == product.hooks[:1]


def test_rejected_sign_in_is_retried_with_the_current_connection(clock, product):
    def read_with_the_new_one(hook):
        request(hook)
        if hook.found.connection.extra == 0:
            raise AuthenticationError("401")

    async def read(reader, subscribers):
        await reader.call(read_with_the_new_one)
        reader.deliver_all((subscriber, DONE) for subscriber in subscribers)

    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        await asyncio.sleep(2.5 * INTERVAL)
        product.settings = 1
        product.next = [read]
        return await task

    assert clock.run(scenario())["status"] == "done"
    assert clock.elapsed < 3.1 * INTERVAL
    assert len(product.look_ups) == 2


def test_rejected_sign_ins_of_one_minute_cause_one_lookup(clock, product):
    async def scenario():
        product.next = [raises(AuthenticationError("401"))] * 3
        task = wait_for(MadeUpWait(product.scope(), interval=20.0))
        await asyncio.sleep(75)
        await cancel(task)

    clock.run(scenario())

    assert len(product.times) == 3
    assert product.look_ups == [20.0]


@pytest.mark.parametrize(
    "fault", [ConnectionFailed("secrets backend"), ConfigurationError("no such connection")], ids=["fails", "missing"]
)
def test_failing_connection_lookup_ends_no_wait(clock, product, fault):
    async def scenario():
        product.look_up_fault = fault
        task = wait_for(MadeUpWait(product.scope()))
        await asyncio.sleep(5.5 * INTERVAL)
        product.look_up_fault = None
        product.next = [over("wait")]
        return await task

    assert clock.run(scenario())["status"] == "done"
    assert len(product.look_ups) == 6


# --- snapshots, for event triggers ---


def test_snapshots_slow_down_after_rejections_and_stay_fresh(clock, product):
    def brings(number):
        async def read(reader, subscribers):
            reader.deliver_all((subscriber, number) for subscriber in subscribers)

        return read

    async def scenario():
        rejections = [raises(PermissionDenied("no access"))] * 18
        product.next = [brings(1), brings(2), brings(3), *rejections, brings(4)]
        feed = snapshots(product.scope(), INTERVAL)
        seen = [await anext(feed)]
        await asyncio.sleep(2.5 * INTERVAL)
        seen += [await anext(feed), await anext(feed)]
        await feed.aclose()
        return seen

    assert clock.run(scenario()) == [1, 3, 4]
    intervals = [after - before for before, after in zip(product.times, product.times[1:], strict=False)]
    assert intervals == sorted(intervals)
    assert intervals[:10] == [60.0] * 10
    assert intervals[-2:] == [600.0] * 2
