"""The wait for an item's approval in a triggerer: it shares the polls of both tools, from Legacy to v2."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_workflows.polling.list_poll import ABSENT_POLLS
from airflow_provider_workflows.sensors.procore import ProcoreItemSensor
from airflow_provider_workflows.triggers.procore_item import ProcoreItemWaitTrigger
from tests.unit.polling.conftest import INTERVAL, LEGACY_WORKFLOW, PROJECT, TOOL, legacy_wait, v2_wait
from tests.unit.sensors.test_procore import deferred
from tests.unit.sensors.test_procore_item import HOUR, SIDES, approve_in_v2, start_in_v2, submit, upgrade

# The quick tests take two of them where each takes long.
FEW_SIDES = [pytest.param(side, marks=[] if side in ("not_found", "unchanged") else pytest.mark.slow) for side in SIDES]
pytestmark = pytest.mark.usefixtures("airflow_connections")

ITEM, LEGACY_ID = "1953145", "568150"
BULK, LIST = "instances/bulk_history", "workflow_instances"


def item_wait(item_id: str = ITEM, **more) -> ProcoreItemWaitTrigger:
    """A wait as a poke on a worker leaves it."""
    usual = {"procore_conn_id": "procore_default", "company_id": None, "project_id": PROJECT, "tool_type": TOOL}
    trigger = {"poll_interval": INTERVAL, "deadline": None, "on_stuck": "fail", "stuck_after": 5 * HOUR}
    return ProcoreItemWaitTrigger(item_id=item_id, **{**usual, **trigger, **more})


def many(emulator, count: int) -> tuple[list[str], list[str]]:
    """Start Legacy instances, and submit them; return their ids and those of their items."""
    found = emulator.control("POST", "procore/legacy/instances/many", count=count, workflow=LEGACY_WORKFLOW)
    perform(emulator, "Submit for Approval", "pat@example.com", found["ids"])
    return found["ids"], found["object_ids"]


def perform(emulator, activity: str, login: str, ids: list[str]) -> None:
    emulator.control("POST", "procore/legacy/instances/perform-many", ids=ids, activity=activity, login=login)


def waits_for(items) -> list[ProcoreItemWaitTrigger]:
    return [item_wait(item_id, legacy_instance_id=instance_id) for instance_id, item_id in zip(*items, strict=True)]


async def polls(waits, count: int) -> list[dict[str, int]]:
    return [await waits.poll() for _ in range(count)]


class Deferred:
    """A task that is deferred again whenever its trigger passes its poll to a worker."""

    def __init__(self, waits, **parameters):
        self.waits, self.parameters = waits, parameters
        self.resumed = 0
        self.defer()

    def defer(self) -> None:
        self.waits.start(item_wait(**self.parameters))

    def restart_triggerer(self) -> None:
        self.waits.tasks.pop().cancel()
        self.defer()

    async def polls(self, count: int) -> dict | None:
        """Return the event that a worker would not go on after."""
        for _ in range(count):
            await self.waits.poll()
            event = self.waits.tasks[-1].result() if self.waits.tasks[-1].done() else None
            if event is not None and event["status"] != "poke":
                return event
            if event is not None:
                self.resumed += 1
                self.parameters["seen"] = event["seen"]
                self.defer()
        return None


# --- cost ---


def test_120_items_in_legacy_take_four_calls_a_poll(emulator, waiting):
    items = many(emulator, 120)

    async def scenario(waits):
        waits.start(*waits_for(items))
        await waits.poll_until_shared()
        return await polls(waits, 3)

    assert waiting(scenario) == [{BULK: 3, LIST: 1}] * 3


def test_items_share_the_polls_of_other_waits(emulator, waiting):
    items = many(emulator, 20)

    async def scenario(waits):
        in_legacy = [legacy_wait(instance_id) for instance_id in items[0]]
        waits.start(*waits_for(items), *in_legacy, v2_wait("700001", "5001"))
        await waits.poll_until_shared()
        return await waits.poll()

    assert waiting(scenario) == {BULK: 1, LIST: 1}


@pytest.mark.sample(1)
@pytest.mark.parametrize("side", FEW_SIDES)
def test_items_that_left_legacy_are_not_polled_individually(emulator, waiting, side):
    items = many(emulator, 20)

    async def scenario(waits):
        waits.start(*waits_for(items))
        await waits.poll_until_shared()
        upgrade(emulator, side)
        await polls(waits, 15)
        for task in [task for task in waits.tasks if task.done()]:
            seen = task.result()["seen"]
            waits.tasks.remove(task)
            waits.start(item_wait(seen["legacy"]["object_id"], seen=seen))
        await polls(waits, 2)
        left = await polls(waits, 3)
        for item_id in items[1]:
            emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item_id)
        await polls(waits, 2)
        return left, await polls(waits, 2)

    left, in_v2 = waiting(scenario)

    for poll in left:
        assert (poll.pop(BULK), sum(poll.values()) <= 1 + 3 * ABSENT_POLLS) == (1, True)
    assert in_v2 == [{BULK: 1}] * 2


def test_v2_without_bulk_history_is_not_polled_for_each_item(emulator, waiting):
    items = many(emulator, 40)
    emulator.control("PATCH", "flags", bulk_history="absent")

    async def scenario(waits):
        waits.start(*waits_for(items))
        await waits.poll_until_shared()
        return await polls(waits, 3)

    for poll in waiting(scenario):
        assert sum(poll.values()) <= 2 + 2 * ABSENT_POLLS  # the active and the ended instances of each


# --- from Legacy to v2 ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("restarts", [False, True])
def test_wait_continues_in_v2_and_remembers_what_it_saw(emulator, waiting, side, restarts):
    submit(emulator)

    async def scenario(waits):
        task = Deferred(waits)
        await task.polls(3)
        upgrade(emulator, side)
        await task.polls(15)
        if restarts and side != "unchanged":  # what only a triggerer saw is lost
            task.restart_triggerer()
            await task.polls(15)
        started = start_in_v2(emulator)
        await task.polls(3)
        approve_in_v2(emulator, started)
        return started, await task.polls(2), task.resumed

    started, event, resumed = waiting(scenario)

    found = event["result"]
    assert (found["engine"], found["instance_id"], found["item_status"]) == ("procore", started, "Approved")
    assert (found["legacy"]["state"], found["legacy"]["left"]) == ("Pending Approval", SIDES[side])
    assert resumed == (0 if side == "unchanged" else 1)


@pytest.mark.sample(3)
@pytest.mark.parametrize("has_workflow", [True, False])
@pytest.mark.parametrize("side", FEW_SIDES)
def test_only_a_stuck_item_ends_the_wait(emulator, waiting, side, has_workflow):
    submit(emulator)

    async def scenario(waits):
        task = Deferred(waits, stuck_after=HOUR)
        await task.polls(3)
        upgrade(emulator, side, has_workflow=has_workflow)
        for _ in range(3):
            assert await task.polls(19) is None
            if side != "unchanged":
                task.restart_triggerer()
        return await task.polls(15)

    event = waiting(scenario)

    if side == "unchanged":
        assert event is None
    else:
        assert (event["status"], event["action"]) == ("done", "fail")
        assert event["result"]["legacy"]["left"] == SIDES[side]


def test_stuck_item_resumes_the_task_once_for_its_notifier(emulator, waiting):
    submit(emulator)

    async def scenario(waits):
        task = Deferred(waits, stuck_after=HOUR, on_stuck="notify")
        await task.polls(3)
        upgrade(emulator, "draft")
        while task.resumed < 2:
            await task.polls(1)
        at = waits.clock.elapsed
        task.parameters["seen"]["notified"] = task.parameters["seen"]["left"]["since"]  # as a worker does
        waits.tasks.pop().cancel()
        task.defer()
        await task.polls(75)
        approve_in_v2(emulator, start_in_v2(emulator))
        return at, await task.polls(2), task.resumed

    at, event, resumed = waiting(scenario)

    assert HOUR <= at <= HOUR + 15 * INTERVAL
    assert (event["status"], event["result"]["engine"], resumed) == ("done", "procore", 2)


def test_overdue_legacy_state_is_noticed_without_another_read(emulator, waiting):
    submit(emulator)
    wait = ProcoreItemSensor(
        task_id="wait", tool_type=TOOL, item_id=ITEM, on_overdue=print, overdue_after=HOUR, poke_interval=INTERVAL
    )
    _, arguments = deferred(wait, {}).trigger.serialize()

    async def scenario(waits):
        waits.start(ProcoreItemWaitTrigger(**{**arguments, "deadline": None}))
        seen = await polls(waits, 57)
        before = waits.statuses()
        await polls(waits, 5)
        return seen, before, waits.tasks[0].result()

    seen, before, event = waiting(scenario)

    assert seen[-1] == {BULK: 1, LIST: 1}
    assert before == [None]
    assert (event["status"], event["step"]) == ("overdue", "Pending Approval")
    assert event["seen"]["legacy"]["state"] == "Pending Approval"


# --- outcomes and errors ---


def test_legacy_decision_ends_the_wait(emulator, waiting):
    items = many(emulator, 30)

    async def scenario(waits):
        waits.start(*waits_for(items))
        await waits.poll_until_shared()
        perform(emulator, "Approve", "rita@example.com", items[0][:10])
        await polls(waits, 12)
        return waits.statuses(), waits.results()

    statuses, results = waiting(scenario)

    assert statuses == ["done"] * 10 + [None] * 20
    assert {(found["engine"], found["decision"]["option"]) for found in results} == {("procore_legacy", "Approve")}


def test_item_that_no_tool_knows_is_an_error_after_the_patience(emulator, waiting):
    async def scenario(waits):
        waits.start(item_wait("4711"))
        await polls(waits, 9)
        before = waits.statuses()
        await polls(waits, 4)
        return before, waits.tasks[0].result()

    before, event = waiting(scenario)

    assert before == [None]
    assert (event["status"], event["error"]) == ("error", "NotFound")


def test_v2_instance_that_disappears_is_an_error_after_the_patience(emulator, waiting):
    submit(emulator)

    async def scenario(waits):
        waits.start(item_wait())
        await polls(waits, 2)
        upgrade(emulator, "draft")
        started = start_in_v2(emulator)
        await polls(waits, 2)
        emulator.control("POST", f"procore/instances/{started}/hide", hidden=True)
        await polls(waits, 14)
        return waits.statuses()

    assert waiting(scenario) == ["error"]


def test_last_poll_at_the_deadline_reads_both_tools(emulator, waiting, clock):
    submit(emulator)

    async def scenario(waits):
        waits.start(item_wait(deadline=clock.deadline(2.5 * INTERVAL), legacy_until=["Approved"]))
        await polls(waits, 1)
        await asyncio.sleep(0.6 * INTERVAL)
        perform(emulator, "Approve", "rita@example.com", [LEGACY_ID])
        await asyncio.sleep(INTERVAL)
        return waits.tasks[0].result()

    assert waiting(scenario)["result"]["engine"] == "procore_legacy"


def test_outage_of_both_tools_is_reported_once(emulator, waiting, monkeypatch):
    submit(emulator)
    reported = []
    monkeypatch.setattr(ProcoreItemWaitTrigger, "report_outage", lambda self, fault: reported.append(bool(fault)))

    async def scenario(waits):
        waits.start(item_wait())
        await polls(waits, 2)
        emulator.control("POST", "faults", path="/rest/", times=9999, status=503)
        await polls(waits, 20)
        emulator.control("DELETE", "faults")
        await polls(waits, 5)

    waiting(scenario)

    assert reported == [True, False]
