"""The trigger of a decision: it reads Airflow's record once, shares the polls of Procore, and a kill does nothing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from uuid import UUID

import pytest

from airflow_provider_workflows.triggers.procore_approval import ProcoreApprovalWaitTrigger
from tests.support.versions import AIRFLOW
from tests.unit.polling.conftest import INTERVAL, PROJECT, TOOL, cancel, v2_wait, wait_for

hitl = pytest.importorskip("airflow.sdk.execution_time.hitl", reason="before Airflow 3.1 nobody can decide in Airflow")

pytestmark = [
    pytest.mark.usefixtures("airflow_connections"),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="the operator needs Airflow 3.3"),
]

INSTANCE, ITEM = "700001", "5001"
TI = "0197a1b2-0000-7000-8000-000000000001"
BULK = "instances/bulk_history"


def approval(**more) -> ProcoreApprovalWaitTrigger:
    usual = {"procore_conn_id": "procore_default", "company_id": None, "project_id": PROJECT, "tool_type": TOOL}
    step = {"step_occurrence_id": f"{INSTANCE}01", "user_id": "90001", "ti_id": TI}
    wait = {"instance_id": INSTANCE, "item_id": ITEM, "poll_interval": INTERVAL, "deadline": None}
    return ProcoreApprovalWaitTrigger(**{**usual, **step, **wait, **more})


class Airflow:
    """What Airflow has recorded, and the requests for it."""

    def __init__(self):
        self.requested = []
        self.failures = 0
        self.chosen: list[str] = []

    def read(self, ti_id):
        self.requested.append(ti_id)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("API_SERVER_ERROR")
        return SimpleNamespace(
            response_received=bool(self.chosen),
            chosen_options=iter(self.chosen),
            params_input={"note": "Fine."},
            responded_at=None,
            responded_by_user=SimpleNamespace(id="7", name="Kim") if self.chosen else None,
        )


@pytest.fixture
def airflow(monkeypatch) -> Airflow:
    airflow = Airflow()
    monkeypatch.setattr(hitl, "get_hitl_detail_content_detail", airflow.read)
    return airflow


def respond(emulator, option: str = "Approve") -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login="integration@example.com", option=option)


def test_recorded_response_fires_without_a_poll(emulator, waiting, airflow, clock):
    airflow.chosen = ["Approve"]

    async def scenario(waits):
        waits.start(approval())
        await asyncio.sleep(INTERVAL / 2)
        return waits.tasks[0].result(), waits.counts()

    event, requests = waiting(scenario)
    assert (event["status"], event["chosen_options"]) == ("decided_in_airflow", ["Approve"])
    assert event["responded_by_user"] == {"id": "7", "name": "Kim"}
    assert requests == {}


def test_airflow_is_read_once_in_a_wait_of_days(emulator, waiting, airflow):
    async def scenario(waits):
        waits.start(approval())
        for _ in range(5):
            await waits.poll()
        assert waits.statuses() == [None]

    waiting(scenario)
    assert airflow.requested == [UUID(TI)]


def test_failing_airflow_is_read_again_and_polls_continue(emulator, waiting, airflow):
    airflow.failures, airflow.chosen = 2, ["Reject"]

    async def scenario(waits):
        waits.start(approval())
        polls = [await waits.poll()]
        assert waits.statuses() == [None]
        await waits.poll()
        await waits.poll()
        return polls, waits.statuses()

    polls, statuses = waiting(scenario)
    assert (polls, statuses) == ([{BULK: 1}], ["decided_in_airflow"])
    assert len(airflow.requested) == 3


def test_it_shares_the_poll_of_all_waits_for_the_tool(emulator, waiting, airflow):
    async def scenario(waits):
        waits.start(v2_wait(INSTANCE, ITEM), approval(), *(approval() for _ in range(20)))
        return await waits.poll()

    assert waiting(scenario) == {BULK: 1}


def terminate(emulator) -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")


def restart(emulator) -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/override", option="Approve")


@pytest.mark.sample(3)
@pytest.mark.parametrize("end", [respond, terminate, restart])
@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"history_step_id": "step"},
        {"hidden_events": "response_steps"},
        {"hidden_events": "responses"},
        {"history": "events_only"},
    ],
)
def test_end_in_procore_is_noticed_and_no_sooner(emulator, waiting, airflow, end, flags):
    emulator.control("PATCH", "flags", **flags)

    async def scenario(waits):
        waits.start(approval())
        await waits.poll()
        before = waits.statuses()
        end(emulator)
        await waits.poll()
        return before, waits.statuses()

    assert waiting(scenario) == ([None], ["done"])


def test_deadline_ends_the_wait_while_airflow_fails(emulator, waiting, airflow, clock):
    airflow.failures = 99

    async def scenario(waits):
        waits.start(approval(deadline=clock.deadline(INTERVAL)))
        await waits.poll()
        await waits.poll()
        return waits.statuses()

    assert waiting(scenario) == ["timeout"]


def test_kill_and_restart_change_nothing_in_procore(emulator, clock, airflow):
    async def scenario():
        trigger = approval(terminate_on_kill=True)
        task = wait_for(trigger)
        await asyncio.sleep(1)
        await cancel(task)
        await trigger.on_kill()
        again = wait_for(approval())
        await asyncio.sleep(1)
        await cancel(again)

    clock.run(scenario())

    assert emulator.effects() == []
    assert len(airflow.requested) == 2
