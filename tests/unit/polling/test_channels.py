"""Channels: no server delays another, and the polls of one server and user share it fairly."""

from __future__ import annotations

import asyncio
import threading

import pytest

from airflow_provider_workflows.client import transport
from airflow_provider_workflows.exceptions import ConnectionFailed
from airflow_provider_workflows.polling import poll
from airflow_provider_workflows.triggers.procore import ProcoreResponseRequestedWaitTrigger
from tests.support.sizes import tenth_and_full
from tests.unit.polling.conftest import (
    DONE,
    INTERVAL,
    MadeUpWait,
    Product,
    cancel,
    request,
    start,
    v2_wait,
    wait_for,
)

LIST, SHOW = "instances", "{id}"


class Gate(threading.Event):
    """What hung calls wait for."""

    def __init__(self):
        super().__init__()
        self._called = threading.Event()

    def wait(self, timeout=None):
        self._called.set()
        return super().wait(timeout)

    async def is_reached(self):
        """Return whether a call waits for it, as soon as one does."""
        return await asyncio.to_thread(self._called.wait, 60)


@pytest.fixture
def open_gate():
    """A gate that opens when the test is over."""
    gate = Gate()
    yield gate
    gate.set()


@pytest.fixture
def tenants(monkeypatch):
    """Return a function that makes products with connections of their own, on the real clock."""
    products: dict[str, Product] = {}

    async def find_connection(conn_id):
        return await products[conn_id].find_connection(conn_id)

    monkeypatch.setattr("airflow_provider_workflows.hooks.base.find_connection", find_connection)

    def make(name):
        products[name] = Product(lambda: 0.0)
        return products[name]

    return make


def hangs(gate):
    async def read(reader, subscribers):
        await reader.call(lambda hook: gate.wait())

    return read


def brings_done():
    async def read(reader, subscribers):
        await reader.call(request)
        reader.deliver_all((subscriber, DONE) for subscriber in subscribers)

    return read


@tenth_and_full("hung", 160)
def test_servers_that_hang_delay_no_other(tenants, open_gate, hung):
    names = [f"hung-{number}" for number in range(hung)]

    async def scenario():
        waiting = []
        for name in names:
            product = tenants(name)
            product.next = [hangs(open_gate)] * 10
            scopes = [product.scope(scope, conn_id=name) for scope in ("a", "b", "c")]
            waiting += [wait_for(MadeUpWait(scope, interval=0.01)) for scope in scopes]
        await asyncio.sleep(0.1)
        healthy = tenants("healthy")
        healthy.next = [brings_done()]
        payload = await asyncio.wait_for(wait_for(MadeUpWait(healthy.scope(conn_id="healthy"), interval=0.01)), 60)
        assert not any(task.done() for task in waiting)
        await cancel(*waiting[:4])  # which delays no other, either
        healthy.next = [brings_done()]
        again = await asyncio.wait_for(wait_for(MadeUpWait(healthy.scope(conn_id="healthy"), interval=0.01)), 60)
        await cancel(*waiting)
        open_gate.set()
        return payload["status"], again["status"]

    assert asyncio.run(scenario()) == ("done", "done")
    poll._loops.clear()


def test_slow_scope_delays_no_other_scope(tenants, open_gate):
    product = tenants("one")

    async def many_calls(reader, subscribers):
        for subscriber in subscribers:
            await reader.call(request)
            reader.deliver(subscriber, DONE)

    async def scenario():
        product.next = [hangs(open_gate)]
        slow = wait_for(MadeUpWait(product.scope("legacy list", conn_id="one"), interval=0.01))
        assert await open_gate.is_reached()
        product.next = [many_calls]
        waits = [MadeUpWait(product.scope("items", conn_id="one"), f"w{n}", interval=0.01) for n in range(10)]
        payloads = await asyncio.wait_for(asyncio.gather(*map(wait_for, waits)), 60)
        assert not slow.done()
        open_gate.set()
        await cancel(slow)
        return {payload["status"] for payload in payloads}

    assert asyncio.run(scenario()) == {"done"}
    poll._loops.clear()


def test_requests_of_two_calls_at_once_are_counted_once(tenants, monkeypatch):
    """By the statistics, and for the rate limit."""
    product = tenants("one")
    both = threading.Barrier(2, timeout=30)
    counted = []
    monkeypatch.setattr(
        "airflow_provider_workflows.version_compat.count",
        lambda name, number, **tags: counted.append(number) if name == "workflows.requests" else None,
    )

    def send(hook):
        both.wait()
        request(hook)
        both.wait()  # so that each ends when both were sent

    async def read(reader, subscribers):
        await reader.call(send)
        reader.deliver_all((subscriber, DONE) for subscriber in subscribers)

    async def scenario():
        product.next = [read, read]
        waits = [wait_for(MadeUpWait(product.scope(name, conn_id="one"), interval=0.01)) for name in "ab"]
        # Before the channel is gone.
        limiters = []
        while not limiters:
            await asyncio.sleep(0)
            limiters = [channel.limiter for state in poll._loops.values() for channel in state.channels.values()]
        await asyncio.gather(*waits)
        return len(limiters[0]._sent)

    assert asyncio.run(scenario()) == 2
    assert sum(counted) == 2
    poll._loops.clear()


def test_hook_is_closed_by_a_call_that_outlasts_its_poll(tenants, open_gate):
    product = tenants("one")

    async def scenario():
        product.next = [hangs(open_gate)]
        task = wait_for(MadeUpWait(product.scope(conn_id="one"), interval=0.01))
        assert await open_gate.is_reached()
        await cancel(task)
        assert product.closed == []  # a thread is using it
        open_gate.set()
        for _ in range(1000):
            if product.closed:
                break
            await asyncio.sleep(0.01)

    asyncio.run(scenario())
    poll._loops.clear()

    assert len(product.hooks) == 1
    assert product.closed == product.hooks


@pytest.mark.usefixtures("airflow_connections")
def test_many_scopes_of_one_connection_share_four_sockets(emulator, waiting, monkeypatch):
    connects = []
    connect = transport._PlainConnection.connect

    def counted(self):
        connects.append(self)
        connect(self)

    monkeypatch.setattr(transport._PlainConnection, "connect", counted)
    started = start(emulator, 100)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids, tool_subtype=str(number)) for number, ids in enumerate(started)))
        return [await waits.poll() for _ in range(3)]

    polls = waiting(scenario)

    assert [sum(counts.values()) for counts in polls[1:]] == [100, 100]
    assert len(connects) <= 4 + 1  # one for the token


# --- equal waits ---


def requested(**more):
    usual = {"procore_conn_id": "procore_default", "company_id": None, "tool_subtype": None, "user": None}
    place = {"tool_types": ["purchase_order_contract"], "project_ids": ["1001"]}
    return ProcoreResponseRequestedWaitTrigger(
        **{**usual, **place, "poll_interval": INTERVAL, "deadline": None, **more}
    )


@pytest.mark.usefixtures("airflow_connections")
def test_equal_waits_share_one_list_and_read_what_has_changed(emulator, waiting):
    others = start(emulator, 40)
    emulator.control("POST", "procore/instances/700001/respond", login="integration@example.com", option="Approve")
    for instance_id, _ in others:
        emulator.control(
            "POST", f"procore/instances/{instance_id}/respond", login="integration@example.com", option="Approve"
        )

    async def scenario(waits):
        waits.start(*(requested(user="dana@example.com", tool_types=["generic_tool_item"]) for _ in range(30)))
        return [await waits.poll() for _ in range(3)], waits.statuses()

    polls, statuses = waiting(scenario)

    assert set(statuses) == {None}
    assert [counts.get(LIST) for counts in polls] == [1, 1, 1]


@pytest.mark.parametrize("user", [None, "dana@example.com"])
def test_user_is_looked_up_again_when_the_connection_changes(emulator, waiting, set_connection, monkeypatch, user):
    connection = emulator.connection("procore")
    set_connection("procore_default", connection)
    ids = {emulator.url: "90001"}  # by server
    looked_up = []

    def find_user_id(name, hook):
        looked_up.append(name)
        return ids.get(hook.client.base_url, "90004")

    monkeypatch.setattr("airflow_provider_workflows.polling.procore.find_user_id", find_user_id)
    emulator.control("POST", "procore/instances/700001/respond", login="integration@example.com", option="Approve")

    async def scenario(waits):
        waits.start(requested(user=user))
        for _ in range(2):
            await waits.poll()
        early = waits.statuses()
        set_connection("procore_default", {**connection, "host": emulator.url.replace("127.0.0.1", "localhost")})
        for _ in range(17):
            await waits.poll()
        return early, waits.statuses(), waits.results()

    early, statuses, results = waiting(scenario)

    assert (early, statuses) == ([None], ["done"])
    assert [request["instance_id"] for request in results[0]] == ["700001"]
    assert user is None or looked_up == [user, user]


@pytest.mark.usefixtures("airflow_connections")
@tenth_and_full("instances", 1000)
def test_event_of_many_requests_is_bounded(emulator, waiting, monkeypatch, instances):
    monkeypatch.setattr("airflow_provider_workflows.triggers.procore.MAX_REQUESTS", instances // 5)
    start(emulator, instances)

    async def scenario(waits):
        waits.start(requested(), requested())
        counts = await waits.poll()
        return counts, waits.results()

    counts, results = waiting(scenario)

    assert [len(result) for result in results] == [instances // 5] * 2
    assert counts[SHOW] == instances + 1


# --- what is left when waits leave ---


def test_statistics_count_no_wait_after_the_last_one_has_left(clock, product, monkeypatch):
    gauges = {}
    monkeypatch.setattr(
        "airflow_provider_workflows.version_compat.gauge", lambda name, value, **tags: gauges.update({name: value})
    )

    async def scenario():
        task = wait_for(MadeUpWait(product.scope()))
        await asyncio.sleep(1.5 * INTERVAL)
        assert gauges["workflows.waits"] == 1
        await cancel(task)

    clock.run(scenario())

    assert gauges["workflows.waits"] == 0


def test_outages_leave_nothing_behind_of_waits_that_left(clock, product):
    def outage(hook):
        raise ConnectionFailed("reset")

    async def read(reader, subscribers):
        await reader.call(outage)

    async def scenario():
        stayer = wait_for(MadeUpWait(product.scope(), "stayer"))
        for round_ in range(20):
            product.next = [read]
            leavers = [wait_for(MadeUpWait(product.scope(), f"w{round_}-{n}")) for n in range(50)]
            await asyncio.sleep(INTERVAL)
            await cancel(*leavers)
        (state,) = poll._loops.values()
        (polled,) = state.polls.values()
        sizes = [
            len(value) for value in vars(polled).values() if hasattr(value, "__len__") and not isinstance(value, str)
        ]
        await cancel(stayer)
        return sizes

    assert max(clock.run(scenario())) == 1


@pytest.mark.usefixtures("airflow_connections")
@tenth_and_full("waits", 1500)
def test_a_reached_step_is_noticed_in_two_polls_after_a_restart(emulator, waiting, waits):
    """Without a bulk history, when nothing is known of any wait."""
    emulator.control("PATCH", "flags", bulk_history="absent")
    started = start(emulator, waits)
    reached = started[waits // 2][0]
    emulator.control("POST", f"procore/instances/{reached}/respond", login="integration@example.com", option="Approve")

    async def scenario(running):
        running.start(*(v2_wait(*ids, until=["complete"], step_reached=["Director Approval"]) for ids in started))
        for _ in range(2):
            await running.poll()
        return running.statuses()

    assert [number for number, status in enumerate(waiting(scenario)) if status == "done"] == [waits // 2]
