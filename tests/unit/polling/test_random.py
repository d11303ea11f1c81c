"""Random joins, ends and errors: each result is delivered exactly once, and no wait hangs."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConnectionFailed,
    NotFound,
    RateLimited,
    ServerError,
    UnexpectedResponse,
)
from airflow_provider_workflows.polling import poll
from tests.support.virtual_time import VirtualTime
from tests.unit.polling.conftest import DONE, MadeUpWait, Product, cancel, wait_for

NAMES = st.integers(0, 11).map("w{}".format)
TRANSIENT = st.sampled_from([ServerError, ConnectionFailed, RateLimited])
ACTIONS = st.one_of(
    st.tuples(st.just("join"), NAMES, st.sampled_from([1.0, 7.0, 60.0])),
    st.tuples(st.just("leave"), NAMES),
    st.tuples(st.just("decide"), NAMES),
    st.tuples(st.just("reject"), NAMES),
    st.tuples(st.just("fails"), NAMES, TRANSIENT),
    st.tuples(st.just("recovers"), NAMES),
    st.tuples(st.just("outage"), TRANSIENT),
    st.tuples(st.just("malformed"), st.integers(0, 2)),
    st.tuples(st.just("signs in again"), st.integers(0, 5)),
    st.tuples(st.just("rest"), st.sampled_from([0.5, 1.0, 20.0, 61.0])),
)


class World:
    """What is so in the product, and what the poll that reads it must make of that."""

    def __init__(self, clock, step):
        self.product = Product(lambda: clock.elapsed)
        self.step = step  # subscribers a request
        self.wait_results = {}
        self.failing = {}
        self.outage = None
        self.malformed = 0
        self.rejected_at = -1
        self.requests = 0
        self.product.next = _Endless(self.poll)

    async def poll(self, reader, subscribers):
        for first in range(0, len(subscribers), self.step):
            await reader.call(self.request)
            reader.deliver_all(
                (subscriber, self.outcome(subscriber.name)) for subscriber in subscribers[first : first + self.step]
            )

    def request(self, hook):
        hook.client.sent += 1
        self.requests += 1
        if self.outage is not None:
            raise self.outage("outage")
        if self.malformed:
            self.malformed -= 1
            raise UnexpectedResponse("malformed")
        if self.requests == self.rejected_at:
            raise AuthenticationError("401")

    def outcome(self, name):
        return self.failing[name]("It fails") if name in self.failing else self.wait_results.get(name)


class _Endless(list):
    def __init__(self, item):
        super().__init__([item])

    def pop(self, _=0):
        return self[0]


@given(st.lists(ACTIONS, max_size=40), st.integers(1, 4))
def test_every_result_is_delivered_exactly_once_and_nothing_hangs(actions, step):
    with VirtualTime() as clock, pytest.MonkeyPatch.context() as patch:
        world = World(clock, step)
        patch.setattr("airflow_provider_workflows.hooks.base.find_connection", world.product.find_connection)
        clock.run(play(world, actions))
        left = [polled for state in poll._loops.values() for polled in state.polls.values()]
    poll._loops.clear()

    assert left == []
    assert world.product.closed == world.product.hooks


async def play(world, actions):
    waits, ended = {}, []

    def joined(name, interval):
        if name not in waits:
            waits[name] = wait_for(MadeUpWait(world.product.scope(), name, interval))
            waits[name].add_done_callback(lambda task: None if task.cancelled() else ended.append((name, task)))

    for what, *about in actions:
        match what, about:
            case "join", [name, interval]:
                joined(name, interval)
            case "leave", [name] if name in waits:
                await cancel(waits.pop(name))
            case "decide", [name]:
                world.wait_results.setdefault(name, DONE)
            case "reject", [name]:
                world.wait_results.setdefault(name, NotFound("gone"))
            case "fails", [name, error]:
                world.failing[name] = error
            case "recovers", [name]:
                world.failing.pop(name, None)
            case "outage", [error]:
                world.outage = None if world.outage else error
            case "malformed", [times]:
                world.malformed = min(times, 2)
            case "signs in again", [after]:
                world.rejected_at = world.requests + after
            case "rest", [seconds]:
                await asyncio.sleep(seconds)
                check(world, waits, ended)
    world.outage, world.malformed, world.rejected_at = None, 0, -1
    world.failing.clear()
    for name in waits:
        world.wait_results.setdefault(name, DONE)
    await asyncio.sleep(40 * 60)  # what a rate limit delays, and ten minutes until a rejection is believed
    check(world, waits, ended)
    assert all(task.done() for task in waits.values()), [name for name, task in waits.items() if not task.done()]
    assert asyncio.all_tasks() == {asyncio.current_task()}


def check(world, waits, ended):
    """Compare what has ended so far with the state in the product."""
    for name, task in ended:
        payload = task.result()
        expected = {"done": DONE}.get(payload["status"])
        assert world.wait_results[name] is expected or (payload["error"] == "NotFound" and expected is None)
    names = [id(task) for _, task in ended]
    assert len(names) == len(set(names))
