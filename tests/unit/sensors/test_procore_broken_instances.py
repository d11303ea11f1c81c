"""An instance that cannot be read concerns only itself: the sensor finds the others, and logs which one failed."""

from __future__ import annotations

import asyncio

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor
from airflow_provider_workflows.triggers.procore import ProcoreResponseRequestedWaitTrigger

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

TOOL = "purchase_order_contract"
BROKEN = [
    {"status": 500, "json": {"error": "boom"}},
    {"status": 502, "body": "<html>Bad gateway</html>"},
    {"status": 403, "json": {}},
    {"status": 404, "json": {}},
    {"status": 422, "json": {}},
    {"status": 200, "json": {}},
    {"status": 200, "json": {"data": []}},
    {"status": 200, "body": "not JSON"},
    {"status": 200, "json": {"data": {"id": "700001", "current_step_occurrence": "?"}}},
]


def sensor(**parameters) -> ProcoreResponseRequestedSensor:
    fixed = {"task_id": "wait", "poke_interval": 0.05, "tool_type": TOOL}
    return ProcoreResponseRequestedSensor(**{**fixed, **parameters})


def start(emulator, count: int) -> list[str]:
    return emulator.control("POST", "procore/instances/many", count=count)["ids"]


def break_it(emulator, *instance_ids: str, times: int = 10**6, **fault) -> None:
    for instance_id in instance_ids:
        emulator.control("POST", "faults", method="GET", path=f"/instances/{instance_id}$", times=times, **fault)


def respond(emulator, *instance_ids: str) -> None:
    emulator.control(
        "POST",
        "procore/instances/respond-many",
        ids=list(instance_ids),
        login="integration@example.com",
        option="Approve",
    )


@pytest.mark.parametrize("fault", BROKEN, ids=[str(fault)[:40] for fault in BROKEN])
def test_broken_instance_delays_no_other(emulator, store, fault):
    others = start(emulator, 2)
    break_it(emulator, "700001", **fault)

    found = sensor().poke({"task_state_store": store})

    assert [request["instance_id"] for request in found.xcom_value] == others


def test_consecutive_broken_instances_delay_no_other(emulator, store):
    started = start(emulator, 8)
    break_it(emulator, "700001", *started[:5], status=500, json={})
    pokes = sensor()

    found = [pokes.poke({"task_state_store": store}) for _ in range(3)]

    assert found[0] is False
    assert {request["instance_id"] for request in found[-1].xcom_value} == set(started[5:])


def test_broken_instance_is_found_again_when_it_can_be_read(emulator, store):
    started = start(emulator, 4)
    respond(emulator, "700001")
    broken = started
    break_it(emulator, *broken, status=500, json={})
    pokes = sensor()
    for _ in range(2):
        assert pokes.poke({"task_state_store": store}) is False
    emulator.control("DELETE", "faults")
    break_it(emulator, *broken[:3], status=500, json={})

    found = [pokes.poke({"task_state_store": store}) for _ in range(2)]

    (waiting,) = [value.xcom_value for value in found if value is not False][-1]
    assert waiting["instance_id"] == broken[3]


def test_broken_instance_is_logged_once_for_all_pokes(emulator, store, capsys):
    respond(emulator, "700001")
    (started,) = start(emulator, 1)
    break_it(emulator, started, status=500, json={"error": "boom"}, times=4)
    pokes = sensor()

    for _ in range(4):
        assert pokes.poke({"task_state_store": store}) is False
    assert pokes.poke({"task_state_store": store}).is_done

    lines = [line for line in capsys.readouterr().out.splitlines() if f"Polling instance {started} " in line]
    assert len(lines) == 2
    assert ["boom" in line for line in lines] == [True, False]


def test_wait_names_the_instances_that_could_not_be_read(emulator, store):
    respond(emulator, "700001")
    (started,) = start(emulator, 1)
    break_it(emulator, started, status=500, json={})
    pokes = sensor()

    pokes.poke({"task_state_store": store})

    assert f"Could not be read: {started}" in pokes.standing


@pytest.mark.parametrize(
    "fault", [{"status": 500, "json": {}}, {"status": 403, "json": {}}, {"status": 200, "json": {}}]
)
def test_wait_continues_while_no_instance_can_be_read(emulator, store, fault):
    start(emulator, 4)
    emulator.control("POST", "faults", method="GET", path=r"/instances/\d+$", times=10**6, **fault)
    pokes = sensor()

    for _ in range(3):
        assert pokes.poke({"task_state_store": store}) is False
    emulator.control("DELETE", "faults")
    assert len(pokes.poke({"task_state_store": store}).xcom_value) == 5


def test_unavailable_server_gets_few_requests_for_instances(emulator, store):
    start(emulator, 30)
    emulator.control("POST", "faults", method="GET", path=r"/instances/\d+$", times=10**6, status=500, json={})
    before = len(emulator.requests())

    assert sensor().poke({"task_state_store": store}) is False
    assert len(emulator.requests()) - before < 10


def test_rejected_sign_in_concerns_all_instances(emulator, store):
    start(emulator, 2)
    emulator.control("POST", "faults", method="GET", path=r"/instances/\d+$", times=10**6, status=401, json={})

    pokes = sensor()

    assert pokes.poke({"task_state_store": store}) is False
    assert pokes.standing.startswith("No poll has succeeded.")


def test_trigger_finds_the_others_too(emulator, store):
    respond(emulator, "700001")
    with pytest.raises(TaskDeferred) as deferral:
        sensor(deferrable=True).execute({"task_state_store": store})
    broken, other = start(emulator, 2)
    break_it(emulator, broken, status=500, json={})
    trigger = deferral.value.trigger
    assert isinstance(trigger, ProcoreResponseRequestedWaitTrigger)

    async def first_event():
        return await anext(trigger.run())

    event = asyncio.run(asyncio.wait_for(first_event(), 20)).payload

    assert [request["instance_id"] for request in event["result"]] == [other]
