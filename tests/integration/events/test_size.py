"""The size of what a watcher stores, and a kill between two writes."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_provider_workflows.rules.procore_events import PARTS, Instances, Requested, short_hash
from airflow_provider_workflows.triggers.events import MAX_SHARD_BYTES, SeenEventStore
from airflow_provider_workflows.triggers.procore_events import ProcoreInstanceChangedTrigger
from tests.integration.events.conftest import MAX_BYTES
from tests.support.sizes import tenth_and_full

MANY = 20_000
PLACE = ("purchase_order_contract", "562949953421312")  # as long as Procore's ids are
MAX_BLOCK_SECONDS = 0.2  # seconds of processor time of the event loop, after which Airflow's triggerer complains


@pytest.fixture
def store(stores):
    return stores.of("asset")._single_accessor()


def parts(step):
    return "".join(short_hash(f"{name} {step}", 6) for name in PARTS)


def snapshot(number, moved=()):
    """Return what a poll would find of so many active instances."""
    ids = [str(562_949_953_000_000 + i) for i in range(number)]  # as long as Procore's ids are
    nothing = dict.fromkeys(PARTS) | {"started_at": None, "is_active": True}
    shown = {instance_id: {**nothing, "state": "in_progress", "parts": parts("here")} for instance_id in ids}
    shown |= {ids[i]: {**nothing, "state": "in_progress", "parts": parts("there")} for i in moved}
    active = {instance_id: (PLACE, instance_id) for instance_id in ids}
    return Instances("1", [PLACE], active, shown, {}, {})


@pytest.mark.parametrize("number", [300, MANY // 10, pytest.param(MANY, marks=pytest.mark.slow)])
def test_active_instances_fit_into_the_store(stores, store, number):
    trigger = ProcoreInstanceChangedTrigger(tool_type="purchase_order_contract")
    cursor = SeenEventStore(store, "workflows.1")

    seen, facts = trigger.news({}, snapshot(number), is_first=True)
    asyncio.run(cursor.save(seen))

    values = stores.values["asset"]
    sizes = [len(value) for value in values.values()]
    print(f"{number} instances: {len(sizes)} values, {sum(sizes)} bytes in all, {max(sizes)} in the largest")
    assert facts == []
    assert max(sizes) <= MAX_SHARD_BYTES < MAX_BYTES
    assert asyncio.run(SeenEventStore(store, "workflows.1").load()) == seen


@tenth_and_full("number", MANY)
def test_change_of_one_of_many_instances_writes_one_value(stores, store, number):
    trigger = ProcoreInstanceChangedTrigger(tool_type="purchase_order_contract")
    cursor = SeenEventStore(store, "workflows.1")
    seen, _ = trigger.news({}, snapshot(number), is_first=True)
    asyncio.run(cursor.save(seen))
    stores.writes.clear()
    found = snapshot(number, moved=[7])

    start_time = time.thread_time()
    seen, facts = trigger.news(seen, found, is_first=False)
    comparing = time.thread_time() - start_time
    start_time = time.thread_time()
    asyncio.run(cursor.save(seen))
    saving = time.thread_time() - start_time

    assert len(facts) == 1
    assert len(stores.writes) == 1
    print(f"{number} instances: compared in {comparing:.3f} s, saved in {saving:.3f} s")
    assert comparing < MAX_BLOCK_SECONDS


@tenth_and_full("number", MANY)
def test_saving_many_instances_does_not_block_the_event_loop(stores, store, number):
    trigger = ProcoreInstanceChangedTrigger(tool_type="purchase_order_contract")
    seen, _ = trigger.news({}, snapshot(number), is_first=True)
    gaps = []

    async def beat():
        last = time.thread_time()
        while True:
            await asyncio.sleep(0.005)
            gaps.append(time.thread_time() - last)
            last = time.thread_time()

    async def save():
        beating = asyncio.create_task(beat())
        await asyncio.sleep(0.02)
        await SeenEventStore(store, "workflows.1").save(seen)
        beating.cancel()

    asyncio.run(save())
    print(f"longest block {max(gaps):.3f} s")
    assert max(gaps) < MAX_BLOCK_SECONDS


@pytest.mark.sample(3)
@pytest.mark.parametrize("killed_after", [0, 1, 2, 3, 5, 100])
def test_kill_between_two_values_repeats_and_never_loses(stores, store, killed_after):
    """What is read back has the old or the new value of each key; with the old one the event is re-delivered."""
    before = {f"key {i}": "x" * 40 for i in range(3000)}  # in four values
    after = {key: ("y" if i % 3 else "x") * 40 for i, key in enumerate(before)} | {
        f"new {i}": "y" * 40 for i in range(2500)
    }
    cursor = SeenEventStore(store, "workflows.1")
    asyncio.run(cursor.save(before))
    stores.writes.clear()
    stores.fails = lambda what, asset, key: len(stores.writes) >= killed_after

    try:
        asyncio.run(cursor.save(after))
    except Exception:
        assert killed_after < 100
    stores.fails = lambda *_: False
    found = asyncio.run(SeenEventStore(store, "workflows.1").load())

    assert all(found.get(key) in (before.get(key), value) for key, value in after.items())
    assert set(before) <= set(found)
    asyncio.run(cursor.save(after))  # the same triggerer lives on
    assert asyncio.run(SeenEventStore(store, "workflows.1").load()) == after


def test_empty_store_differs_from_nothing_emitted(store):
    assert asyncio.run(SeenEventStore(store, "workflows.1").load()) is None
    asyncio.run(SeenEventStore(store, "workflows.1").save({}))
    assert asyncio.run(SeenEventStore(store, "workflows.1").load()) == {}


@tenth_and_full("number", MANY)
def test_many_requests_are_emitted_in_events_of_500(number):
    from airflow_provider_workflows.triggers.procore_events import ProcoreResponseRequestedTrigger

    trigger = ProcoreResponseRequestedTrigger(tool_type="purchase_order_contract")
    requests = {f"response_requested:{i}:{i}:1": (PLACE, {"instance_id": str(i)}) for i in range(number)}
    seen: dict = {}
    sizes = []
    while len(seen) < number:
        seen, facts = trigger.news(seen, Requested("1", "1", [PLACE], requests), is_first=False)
        sizes.append(len(facts))

    assert sizes == [500] * (number // 500)
