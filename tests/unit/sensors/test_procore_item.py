"""The wait for an item's approval on a worker: in Legacy, in v2, and from one to the other."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException

from airflow_provider_workflows.exceptions import ConfigurationError, NotFound
from airflow_provider_workflows.rules.open_wait import OPEN_WAIT
from airflow_provider_workflows.sensors.procore import ProcoreItemSensor
from airflow_provider_workflows.triggers import procore_item, procore_item_parts, procore_legacy
from tests.unit.sensors.test_patience import WAYS, Task
from tests.unit.sensors.test_patience import clock as worker_clock
from tests.unit.sensors.test_procore import deferred, first_event

__all__ = ["worker_clock"]
pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

TOOL, ITEM, LEGACY_ID = "purchase_order_contract", "1953145", "568150"
LEGACY = f"procore/legacy/instances/{LEGACY_ID}"
# The state of the Legacy instance after the switch, and the sensor's name for it.
SIDES = {"not_found": "gone", "terminated": "terminated", "draft": "idle", "unchanged": "unchanged"}
HOUR = 3600


def sensor(**parameters) -> ProcoreItemSensor:
    defaults = {"tool_type": TOOL, "item_id": ITEM, "timeout": 30, "poke_interval": 0.05}
    return ProcoreItemSensor(task_id="wait", **{**defaults, **parameters})


def perform(emulator, activity: str, login: str, instance_id: str = LEGACY_ID) -> None:
    emulator.control("POST", f"procore/legacy/instances/{instance_id}/perform", activity=activity, login=login)


def submit(emulator) -> None:
    perform(emulator, "Submit for Approval", "pat@example.com")


def upgrade(emulator, side: str, *, has_workflow: bool = True) -> None:
    if not has_workflow:
        emulator.control("POST", "procore/presets/401", default=False)
    emulator.control("POST", "procore/legacy/upgrade")
    emulator.control("PATCH", "flags", legacy_left_behind=side)


def start_in_v2(emulator) -> str:
    instance_id: str = emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=ITEM)["id"]
    return instance_id


def approve_in_v2(emulator, instance_id: str) -> None:
    for login in ("integration@example.com", "dana@example.com"):
        emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option="Approve")


# --- each tool alone ---


def test_every_mode_returns_the_same_from_legacy(emulator, store):
    context = {"task_state_store": store}
    submit(emulator)
    deferral = deferred(sensor(), context)
    perform(emulator, "Approve", "rita@example.com")
    emulator.control("POST", "clock", advance=HOUR)

    at_once = sensor(deferrable=True).execute(context)
    by_poke = sensor().execute(context)
    resumed = sensor().execute_complete(context, first_event(deferral.trigger))

    for result in (at_once, by_poke, resumed):
        assert result["legacy"].pop("seen_at")
    assert at_once == by_poke == resumed
    legacy = resumed.pop("legacy")
    assert resumed == {
        "engine": "procore_legacy",
        "tool_type": TOOL,
        "instance_id": LEGACY_ID,
        "item_id": ITEM,
        "project_id": "1001",
        "state": "complete",
        "step": None,
        "item_status": "Approved",
        "decision": {
            "option": "Approve",
            "type": None,
            "by": resumed["decision"]["by"],
            "at": resumed["ended_at"],
            "source": "activity",
            "candidates": [],
            "problem": None,
        },
        "started_at": None,
        "ended_at": legacy["state_set_at"],
        "ambiguous": [],
    }
    assert (legacy["state"], legacy["left"], legacy["left_at"]) == ("PO Approved", None, None)


def test_every_mode_returns_the_same_from_v2(emulator, store):
    context = {"task_state_store": store}
    in_v2 = {"item_id": "5001"}
    deferral = deferred(sensor(**in_v2), context)
    approve_in_v2(emulator, "700001")

    at_once = sensor(**in_v2, deferrable=True).execute({})
    by_poke = sensor(**in_v2).execute({})
    resumed = sensor(**in_v2).execute_complete(context, first_event(deferral.trigger))

    assert at_once == by_poke == resumed
    assert (resumed["engine"], resumed["instance_id"], resumed["legacy"]) == ("procore", "700001", None)
    assert (resumed["state"], resumed["item_status"], resumed["decision"]["by"]) == (
        "complete",
        "Approved",
        "dana@example.com",
    )


def test_named_legacy_state_ends_the_wait_at_once(emulator):
    submit(emulator)
    assert sensor(legacy_until={"PO Approved"}).poke({}) is False
    perform(emulator, "Approve", "rita@example.com")

    assert sensor(legacy_until={"PO Approved"}).execute({})["engine"] == "procore_legacy"


def test_denial_that_sends_the_item_back_is_not_an_end(emulator):
    submit(emulator)
    perform(emulator, "Deny", "rita@example.com")
    emulator.control("POST", "clock", advance=HOUR)

    assert sensor().poke({}) is False


def test_legacy_history_without_names_decides_nothing(emulator):
    submit(emulator)
    perform(emulator, "Approve", "rita@example.com")
    emulator.control("POST", "clock", advance=HOUR)
    emulator.control("PATCH", "flags", history_names="without")

    assert sensor().poke({}) is False
    found = sensor(legacy_until=["Approved"]).execute({})
    assert (found["item_status"], found["decision"]["option"]) == ("Approved", None)
    assert found["decision"]["problem"]


# --- from Legacy to v2 ---


@pytest.fixture
def clock(worker_clock, monkeypatch):
    """The worker's clock, which the trigger's methods go by, too."""
    times = SimpleNamespace(time=worker_clock.time, monotonic=worker_clock.monotonic)
    for module in (procore_item, procore_item_parts, procore_legacy):
        monkeypatch.setattr(module, "time", times)
    return worker_clock


def run(emulator, clock, store, happens, **parameters):
    """Run the sensor's task while things happen, each at so many seconds."""

    def meanwhile():
        for at in [at for at in happens if at <= clock.elapsed]:
            happens.pop(at)()

    clock.meanwhile = meanwhile
    usual = {"timeout": 6 * HOUR, "poke_interval": 300, "stuck_after": 5 * HOUR}
    return Task(clock, store, build=sensor, **{**usual, **parameters}).run()


@pytest.mark.sample(3)
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("side", SIDES)
def test_wait_continues_in_v2_and_remembers_what_it_saw(emulator, clock, store, way, side):
    submit(emulator)
    started = []

    found = run(
        emulator,
        clock,
        store,
        {
            300: lambda: upgrade(emulator, side),
            1800: lambda: started.append(start_in_v2(emulator)),
            2400: lambda: approve_in_v2(emulator, started[0]),
        },
        **way,
    )

    assert (found["engine"], found["instance_id"], found["state"]) == ("procore", started[0], "complete")
    assert (found["item_status"], found["decision"]["option"]) == ("Approved", "Approve")
    assert (found["legacy"]["instance_id"], found["legacy"]["state"]) == (LEGACY_ID, "Pending Approval")
    assert found["legacy"]["left"] == SIDES[side]
    assert clock.elapsed == 2400


@pytest.mark.sample(3)
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("side", ["not_found", "terminated", "draft"])
@pytest.mark.parametrize("has_workflow", [True, False])
def test_stuck_item_fails_the_wait_long_before_its_deadline(emulator, clock, store, way, side, has_workflow):
    submit(emulator)

    with pytest.raises(AirflowFailException, match="Pending Approval"):
        run(
            emulator,
            clock,
            store,
            {300: lambda: upgrade(emulator, side, has_workflow=has_workflow)},
            stuck_after=HOUR,
            **way,
        )

    assert HOUR <= clock.elapsed <= HOUR + 900


def test_stuck_item_skips_the_task_if_configured(emulator, clock, store):
    with pytest.raises(AirflowSkipException):
        run(emulator, clock, store, {300: lambda: upgrade(emulator, "draft")}, stuck_after=HOUR, on_stuck="skip")


def test_unchanged_legacy_instance_is_waited_for(emulator, clock, store):
    submit(emulator)

    with pytest.raises(AirflowSensorTimeout, match="Pending Approval"):
        run(emulator, clock, store, {300: lambda: upgrade(emulator, "unchanged", has_workflow=False)}, stuck_after=HOUR)
    assert clock.elapsed == 6 * HOUR


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_notifier_is_called_once_for_a_stuck_item(emulator, clock, store, way):
    submit(emulator)
    started, calls = [], []

    found = run(
        emulator,
        clock,
        store,
        {
            300: lambda: upgrade(emulator, "not_found"),
            2 * HOUR: lambda: started.append(start_in_v2(emulator)),
            2.5 * HOUR: lambda: approve_in_v2(emulator, started[0]),
        },
        stuck_after=HOUR,
        on_stuck=calls.append,
        **way,
    )

    assert found["engine"] == "procore"
    (stuck_item,) = [context["stuck_item"] for context in calls]
    assert (stuck_item["legacy"]["state"], stuck_item["item_id"]) == ("Pending Approval", ITEM)


def test_retry_knows_what_the_first_try_saw(emulator, clock, store):
    submit(emulator)
    assert sensor().poke(Task(clock, store).context) is False
    upgrade(emulator, "not_found")
    started = start_in_v2(emulator)
    approve_in_v2(emulator, started)

    found = Task(clock, store, try_number=2, build=sensor).run()

    assert (found["engine"], found["instance_id"]) == ("procore", started)
    assert found["legacy"]["state"] == "Pending Approval"


def test_failed_trigger_passes_what_it_saw_to_the_retry(emulator, store):
    submit(emulator)
    trigger = deferred(sensor(), {"task_state_store": store}).trigger
    event = {"status": "error", "error": "ServerError", "message": "any", "seen": {**trigger.seen, "notified": 7.0}}

    with pytest.raises(Exception, match="ServerError"):
        sensor().execute_complete({"task_state_store": store}, event)

    assert store["seen_item"]["notified"] == 7.0


def test_short_404_is_not_believed(emulator, clock, store):
    submit(emulator)

    def fails():
        emulator.control("POST", "faults", path=f"workflow_instances/{LEGACY_ID}$", times=2, status=404, json={})

    def approves():
        perform(emulator, "Approve", "rita@example.com")

    found = run(emulator, clock, store, {300: fails, 1200: approves}, legacy_until=["Approved"], stuck_after=0)

    assert found["engine"] == "procore_legacy"


# --- two instances in Legacy ---


def test_restart_in_legacy_is_followed(emulator, store):
    context = {"task_state_store": store}
    submit(emulator)
    wait = sensor()
    assert wait.poke(context) is False
    emulator.control("POST", f"{LEGACY}/terminate", login="pat@example.com")
    assert wait.poke(context) is False
    new = emulator.control("POST", "procore/legacy/instances", object_id=int(ITEM))["id"]
    assert wait.poke(context) is False
    perform(emulator, "Submit for Approval", "pat@example.com", new)
    perform(emulator, "Approve", "rita@example.com", new)
    emulator.control("POST", "clock", advance=HOUR)

    found = wait.execute(context)

    assert (found["engine"], found["instance_id"], found["item_status"]) == ("procore_legacy", new, "Approved")


def test_older_ended_instance_does_not_replace_a_terminated_one(emulator, store):
    context = {"task_state_store": store}
    submit(emulator)
    perform(emulator, "Approve", "rita@example.com")
    new = emulator.control("POST", "procore/legacy/instances", object_id=int(ITEM))["id"]
    wait = sensor(legacy_instance_id=new)
    assert wait.poke(context) is False
    emulator.control("POST", f"procore/legacy/instances/{new}/terminate", login="pat@example.com")
    emulator.control("POST", "clock", advance=HOUR)

    assert wait.poke(context) is False
    assert store["seen_item"]["instance_id"] == new


def test_terminated_instance_of_long_ago_is_stuck_at_once(emulator, clock, store):
    emulator.control("POST", f"{LEGACY}/terminate", login="pat@example.com")
    clock.elapsed = 30.0 * 24 * HOUR

    with pytest.raises(AirflowFailException, match="terminated"):
        Task(clock, store, build=sensor).run()
    assert clock.elapsed == 30.0 * 24 * HOUR


# --- both tools ---


def test_v2_instance_older_than_the_legacy_move_decides_nothing(emulator):
    pilot = start_in_v2(emulator)
    emulator.control("POST", f"procore/instances/{pilot}/terminate")
    emulator.control("POST", "clock", advance=HOUR)
    submit(emulator)

    assert sensor().poke({}) is False
    perform(emulator, "Approve", "rita@example.com")
    assert sensor(legacy_until=["Approved"]).execute({})["engine"] == "procore_legacy"


def test_wait_in_legacy_continues_while_v2_rejects_its_polls(emulator, clock, store):
    submit(emulator)
    emulator.control("POST", "faults", path="/rest/v2.0/", times=9999, status=403, json={"error": {"message": "No"}})

    found = run(
        emulator,
        clock,
        store,
        {3000: lambda: perform(emulator, "Approve", "rita@example.com")},
        legacy_until=["Approved"],
        project_id="1001",
    )

    assert (found["engine"], found["decision"]["option"]) == ("procore_legacy", "Approve")


def test_item_that_left_legacy_fails_if_v2_cannot_be_read(emulator, clock, store):
    submit(emulator)

    def leaves():
        upgrade(emulator, "terminated")
        emulator.control(
            "POST", "faults", path="/rest/v2.0/", times=9999, status=403, json={"error": {"message": "No"}}
        )

    with pytest.raises(Exception, match="403"):
        run(emulator, clock, store, {300: leaves}, project_id="1001")
    assert clock.elapsed < HOUR


# --- the first poke ---


def test_item_in_neither_tool_fails_the_first_poke(emulator):
    with pytest.raises(NotFound, match="neither"):
        sensor(item_id="4711").execute({})
    with pytest.raises(ConfigurationError, match="Unknown tool_type"):
        sensor(tool_type="purchase_odrer", project_id="1001").execute({})


def test_legacy_instance_of_another_item_is_rejected(emulator):
    with pytest.raises(ConfigurationError, match="legacy_instance_id"):
        sensor(item_id="4711", legacy_instance_id=LEGACY_ID).execute({})


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"item_id": ""}, "item_id"),
        ({"tool_type": ""}, "tool_type"),
        ({"project_id": ""}, "project_id"),
        ({"legacy_instance_id": ""}, "legacy_instance_id"),
        ({"legacy_until": [""]}, "legacy_until"),
        ({"until": []}, "until"),
        ({"until": ["Approved"]}, "until"),
        ({"on_stuck": "notify"}, "on_stuck"),
        ({"on_stuck": []}, "on_stuck"),
        ({"on_stuck": 7}, "on_stuck"),
        ({"stuck_after": -1}, "stuck_after"),
        ({"stuck_after": "3 days"}, "stuck_after"),
    ],
)
def test_wrong_parameter_is_named_before_anything_is_sent(emulator, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        sensor(**parameters).execute({})

    assert emulator.requests() == []


# --- the description for people ---


def test_open_wait_names_the_tool_that_runs_the_item(emulator, store):
    context = {"task_state_store": store}
    submit(emulator)
    deferred(sensor(), context)
    in_legacy = store[OPEN_WAIT]
    upgrade(emulator, "unchanged")
    started = start_in_v2(emulator)
    deferred(sensor(), context)
    in_v2 = store[OPEN_WAIT]

    assert [(wait["product"], wait["instance_id"]) for wait in (in_legacy, in_v2)] == [
        ("procore_legacy", LEGACY_ID),
        ("procore", started),
    ]
    assert in_legacy["step"] == "Pending Approval"
    assert in_v2["step"] == "Budget Check"
    assert {(wait["item_id"], wait["tool_type"], wait["project_id"]) for wait in (in_legacy, in_v2)} == {
        (ITEM, TOOL, "1001")
    }
