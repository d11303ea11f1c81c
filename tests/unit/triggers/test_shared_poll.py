"""One poll loop for all waits of a scope: who is read for, when, and what a fault of one means to the others."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import time

import pytest

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    ContractError,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
)
from airflow_provider_workflows.triggers import base, shared_poll
from airflow_provider_workflows.triggers.shared_poll import snapshots
from tests.unit.triggers.conftest import DONE, INTERVAL, MadeUpWait, Product, cancel, wait_for


def answers(outcomes):
    """One step that tells some subscribers something, by their names, and the others nothing."""

    def poll(hook, subscribers):
        hook.client.sent += 1
        yield [(one, outcomes.get(one.name)) for one in subscribers]

    return poll


def raises(error):
    def poll(hook, subscribers):
        hook.client.sent += 1
        raise error
        yield

    return poll


def one_by_one(outcomes):
    """A step for each subscriber."""

    def poll(hook, subscribers):
        for one in subscribers:
            hook.client.sent += 1
            outcome = outcomes.get(one.name)
            if isinstance(outcome, type):
                raise outcome("It failed")
            yield [(one, outcome)]

    return poll


def over(*names):
    return answers(dict.fromkeys(names, DONE))


# --- one loop ---


def test_all_waits_of_a_scope_are_read_for_by_one_poll(clock, product):
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


def test_scopes_are_polled_apart_and_one_request_at_a_time(clock, product):
    at_work = []

    def slow(hook, subscribers):
        at_work.append("begins")
        time.sleep(0.05)
        at_work.append("ends")
        yield [(one, None) for one in subscribers]

    async def scenario():
        product.next = [slow, slow, slow]
        tasks = [wait_for(MadeUpWait(product.scope(name))) for name in ("a", "b", "c")]
        await asyncio.sleep(1.5 * INTERVAL)
        await cancel(*tasks)

    clock.run(scenario())

    assert len(product.polls) == 3
    assert at_work == ["begins", "ends"] * 3


def test_the_last_one_out_stops_the_poll(clock, product):
    async def scenario():
        first, last = (wait_for(MadeUpWait(product.scope(), name)) for name in ("first", "last"))
        await asyncio.sleep(1.5 * INTERVAL)
        await cancel(first)
        await asyncio.sleep(INTERVAL)
        await cancel(last)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(10 * INTERVAL)

    clock.run(scenario())

    assert [[one.name for one in subscribers] for _, subscribers in product.polls] == [["first", "last"], ["last"]]
    assert product.closed == product.hooks


def test_a_poll_starts_again_for_a_wait_after_the_last_one(clock, product):
    async def scenario():
        product.next = [over("one"), over("two")]
        await wait_for(MadeUpWait(product.scope(), "one"))
        return await wait_for(MadeUpWait(product.scope(), "two"))

    assert clock.run(scenario())["status"] == "done"
    assert len(product.hooks) == 2


def test_who_joins_between_two_polls_is_served_by_the_next_one(clock, product):
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


def test_the_poll_goes_on_when_a_wait_leaves_while_it_is_read_for(clock, product):
    async def scenario():
        leaver, stayer = (wait_for(MadeUpWait(product.scope(), name)) for name in ("leaver", "stayer"))

        def poll(hook, subscribers):
            clock.loop.call_soon_threadsafe(leaver.cancel)
            yield []
            yield [(one, DONE) for one in subscribers]

        product.next = [poll]
        return await stayer, leaver

    payload, leaver = clock.run(scenario())

    assert payload["status"] == "done"
    assert leaver.cancelled()


def test_a_poll_knows_nothing_of_whom_it_started_for(clock, product):
    """Airflow logs by a context variable: whatever the poll logged would be the first wait's for ever."""
    whose = contextvars.ContextVar("whose", default="nobody's")
    found = []

    async def prepares(hook):
        found.append(whose.get())

    async def scenario():
        product.prepares = prepares
        product.next = [over("wait")]
        whose.set("the first one's")
        return await wait_for(MadeUpWait(product.scope()))

    clock.run(scenario())

    assert found == ["nobody's"]


def test_polls_of_an_event_loop_that_is_closed_are_forgotten():
    """`dag.test()` has an event loop for each trigger."""
    product = Product(lambda: 0.0)

    async def scenario():
        product.next = [over("wait")]
        return (await wait_for(MadeUpWait(product.scope(), interval=0.01)))["status"]

    assert {asyncio.run(scenario()) for _ in range(5)} == {"done"}
    assert len(shared_poll._homes) == 1


# --- when ---


@pytest.mark.usefixtures("real_first_pause")
def test_first_poll_is_delayed_and_spread_over_the_interval(clock, product):
    scope = product.scope()
    pauses = [shared_poll.Scope.first_pause(scope, 60.0) for _ in range(200)]

    assert min(pauses) == 5.0
    assert max(pauses) > 40.0
    assert [shared_poll.Scope.first_pause(scope, 0.1) for _ in range(3)] == [5.0, 5.0, 5.0]


@pytest.fixture
def real_first_pause(monkeypatch):
    monkeypatch.setattr(base, "SHORTEST_FIRST_PAUSE", 5.0)


@pytest.mark.usefixtures("real_first_pause")
@pytest.mark.parametrize(
    ("outcome", "status"), [(DONE, "done"), (NotFound("It is gone"), "error"), (None, "timeout")], ids=str
)
def test_event_is_never_yielded_in_the_first_seconds(clock, product, outcome, status):
    async def scenario():
        there = wait_for(MadeUpWait(product.scope(), "there"))
        await asyncio.sleep(1.99 * INTERVAL)
        product.next = [answers({"new": outcome})]
        begun = clock.elapsed
        deadline = None if outcome else clock.deadline(1.0)
        payload = await wait_for(MadeUpWait(product.scope(), "new", deadline=deadline))
        await cancel(there)
        return clock.elapsed - begun, payload["status"]

    took, how = clock.run(scenario())

    assert 5.0 <= took < 6.0
    assert how == status


def test_a_deadline_passes_without_a_last_poll(clock, product):
    async def scenario():
        return await wait_for(MadeUpWait(product.scope(), deadline=clock.deadline(0.9 * INTERVAL)))

    assert clock.run(scenario()) == {"status": "timeout", "last_look": "It was not looked at."}
    assert product.polls == []
    assert clock.elapsed == pytest.approx(0.9 * INTERVAL)


# --- faults of one ---


@pytest.mark.parametrize("refusal", [NotFound("gone"), PermissionDenied("hidden"), ContractError("odd")])
def test_rejection_of_one_wait_ends_it_and_serves_the_others(clock, product, refusal):
    async def scenario():
        a, bad, c, d = (wait_for(MadeUpWait(product.scope(), name)) for name in ("a", "bad", "c", "d"))
        product.next = [one_by_one({"a": DONE, "bad": refusal, "c": DONE}), over("d")]
        return [await task for task in (a, bad, c)], await d

    (a, bad, c), d = clock.run(scenario())

    assert [a["status"], c["status"], d["status"]] == ["done"] * 3
    assert (bad["status"], bad["error"], bad["message"]) == ("error", type(refusal).__name__, str(refusal))
    assert product.times == [60.0, 120.0]


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


def test_three_faults_end_a_poll_cycle_and_the_next_serves_the_rest(clock, product):
    outage = {f"w{number}": ServerError("It failed") for number in range(10)}

    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(10)]
        product.next = [one_by_one(outage)] * 2
        await asyncio.sleep(3.9 * INTERVAL)
        await cancel(*tasks)
        return product.hooks[0].client.sent

    sent = clock.run(scenario())

    first, second, third, fourth = ([one.name for one in subscribers] for _, subscribers in product.polls)
    assert first == [f"w{number}" for number in range(10)]
    assert second == [f"w{number}" for number in range(3, 10)]
    assert third == [f"w{number}" for number in range(6, 10)]
    assert fourth == [f"w{number}" for number in range(6)]
    assert product.times == [60.0, 120.0, 180.0, 181.0]  # once the server is back, nobody waits for the next poll
    assert sent == 3 + 3 + 1 + 1


def test_wait_that_joins_after_a_broken_cycle_is_served_next(clock, product):
    outage = {f"w{number}": ServerError("It failed") for number in range(10)}

    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(10)]
        product.next = [one_by_one(outage), over("late")]
        await asyncio.sleep(1.5 * INTERVAL)
        late = await wait_for(MadeUpWait(product.scope(), "late"))
        await cancel(*tasks)
        return late

    assert clock.run(scenario())["status"] == "done"
    assert len(product.polls) == 2


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


# --- faults of all ---


@pytest.mark.parametrize(
    "fault", [ConnectionFailed("reset"), ServerError("503"), RateLimited("429"), ContractError("maintenance page")]
)
def test_a_passing_fault_of_a_poll_ends_no_wait(clock, product, fault):
    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(3)]
        product.next = [raises(fault), raises(fault), over("w0", "w1", "w2")]
        return [(await task)["status"] for task in tasks]

    assert clock.run(scenario()) == ["done"] * 3
    assert clock.elapsed < 3.1 * INTERVAL


def test_unexpected_response_ends_waits_at_the_third_poll_not_before(clock, product):
    odd = raises(ContractError("The answer is not JSON"))

    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        product.next = [odd, odd, answers({}), odd, odd, odd]
        return await task

    payload = clock.run(scenario())

    assert (payload["status"], payload["error"]) == ("error", "ContractError")
    assert len(product.polls) == 6


@pytest.mark.parametrize("crash", [KeyError("data"), TypeError("NoneType"), AttributeError("get"), ValueError("no")])
def test_a_crash_on_a_response_is_an_unexpected_response(clock, product, crash):
    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        product.next = [raises(crash)] * 2 + [over("wait")]
        return await task

    assert clock.run(scenario())["status"] == "done"


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (NotFound("no such project"), "NotFound"),
        (PermissionDenied("no access"), "PermissionDenied"),
        (ConfigurationError("tool_type: unknown"), "ConfigurationError"),
        (RuntimeError("a bug"), "WorkflowsError"),
    ],
)
def test_a_rejection_of_the_poll_ends_all_its_waits_with_its_words(clock, product, refusal, error):
    async def scenario():
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(3)]
        product.next = [raises(refusal)]
        return [await task for task in tasks]

    for payload in clock.run(scenario()):
        assert (payload["status"], payload["error"]) == ("error", error)
        assert str(refusal) in payload["message"]


def test_a_timeout_names_the_last_error_of_the_poll(clock, product):
    async def scenario():
        product.next = [raises(ServerError("The server is not available"))] * 2
        return await wait_for(MadeUpWait(product.scope(), deadline=clock.deadline(2.5 * INTERVAL)))

    payload = clock.run(scenario())

    assert payload["status"] == "timeout"
    assert payload["last_look"].startswith("It was not looked at. The last look failed: The server is not available")


def test_an_outage_is_logged_once_and_not_at_every_poll(clock, product, caplog):
    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        product.next = [raises(ServerError("The server is not available"))] * 50 + [over("wait")]
        return await task

    clock.run(scenario())

    assert len([record for record in caplog.records if "The server is not available" in record.message]) == 1


# --- the connection ---


def test_connection_is_looked_up_once_in_15_minutes(clock, product):
    lookups = []

    async def prepares(hook):
        lookups.append(clock.elapsed)

    async def scenario():
        product.prepares = prepares
        tasks = [wait_for(MadeUpWait(product.scope(), f"w{number}")) for number in range(500)]
        await asyncio.sleep(40 * 60 + 30)
        await cancel(*tasks)

    clock.run(scenario())

    assert lookups == [60.0, 960.0, 1860.0]
    assert len(product.polls) == 40
    assert product.closed == product.hooks


def test_rejected_sign_in_is_retried_with_the_current_connection(clock, product):
    def poll(hook, subscribers):
        if hook is product.hooks[0]:
            raise AuthenticationError("401")
        yield [(one, DONE) for one in subscribers]

    async def scenario():
        product.next = [poll, poll]
        return await wait_for(MadeUpWait(product.scope()))

    assert clock.run(scenario())["status"] == "done"
    assert len(product.hooks) == 2
    assert clock.elapsed < INTERVAL + 1


def test_a_sign_in_that_stays_rejected_ends_the_waits(clock, product):
    async def scenario():
        product.next = [raises(AuthenticationError("Not signed in"))] * 2
        return await wait_for(MadeUpWait(product.scope()))

    assert clock.run(scenario())["error"] == "AuthenticationError"
    assert len(product.hooks) == 2


@pytest.mark.parametrize("fault", [OSError("secrets backend"), RuntimeError("API server")])
def test_failing_connection_lookup_ends_no_wait(clock, product, fault):
    async def prepares(hook):
        if len(product.hooks) < 4:
            raise fault

    async def scenario():
        product.prepares = prepares
        product.next = [over("wait")]
        return await wait_for(MadeUpWait(product.scope()))

    assert clock.run(scenario())["status"] == "done"
    assert len(product.hooks) == 4


# --- snapshots, for event triggers ---


def test_snapshots_slow_down_after_rejections_and_stay_fresh(clock, product):
    def brings(number):
        def poll(hook, subscribers):
            yield [(one, number) for one in subscribers]

        return poll

    async def scenario():
        refused = [raises(PermissionDenied("no access"))] * 8
        product.next = [brings(1), brings(2), brings(3), *refused, brings(4)]
        feed = snapshots(product.scope(), INTERVAL)
        seen = [await anext(feed)]
        await asyncio.sleep(2.5 * INTERVAL)
        seen += [await anext(feed), await anext(feed)]
        await feed.aclose()
        return seen

    assert clock.run(scenario()) == [1, 3, 4]
    pauses = [after - before for before, after in zip(product.times, product.times[1:], strict=False)]
    assert pauses == sorted(pauses)
    assert pauses[:3] == [60.0] * 3
    assert pauses[-2:] == [600.0] * 2
