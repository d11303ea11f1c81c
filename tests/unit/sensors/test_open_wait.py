"""What a task on a worker stores about its wait, for the people who read it in Airflow."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_workflows.exceptions import ServerError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.rules.open_wait import OPEN_WAIT, OpenWait
from airflow_provider_workflows.sensors.procore import (
    ProcoreAsyncOperationSensor,
    ProcoreInstanceSensor,
    ProcoreResponseRequestedSensor,
)
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor
from tests.unit.operators.procore.test_instances import start
from tests.unit.sensors.test_patience import WAYS, Task, clock
from tests.unit.sensors.test_procore import deferred

__all__ = ["clock"]
pytestmark = pytest.mark.usefixtures("airflow_connections")

INSTANCE = "700001"
LINK = "https://app.example.com/{project_id}/{tool_type}/{item_id}"


class CountingStore(dict):
    """A task state store that counts how often the description of the wait was written."""

    def __init__(self):
        self.writes = []

    def set(self, key, value, *, retention=None):
        self[key] = value
        if key == OPEN_WAIT:
            self.writes.append(OpenWait.from_dict(value))


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def respond(emulator, login: str = "integration@example.com", option: str = "Approve") -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login=login, option=option)


def wait_on(sensor, store) -> OpenWait:
    """Let a deferrable sensor or operator poll once, and return what it has stored about its wait."""
    with pytest.raises(TaskDeferred):
        sensor.execute({"task_state_store": store})
    found = OpenWait.from_dict(store[OPEN_WAIT])
    assert found is not None
    return found


def test_deferred_wait_says_what_it_waits_for_and_for_whom(emulator, store, set_connection):
    connection = emulator.connection("procore")
    connection["extra"]["item_url"] = LINK
    set_connection("procore_default", connection)

    found = wait_on(ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, deferrable=True), store)

    assert (found.product, found.workflow, found.subject) == (
        "procore",
        "Purchase Order Approval",
        "complete, terminated",
    )
    assert (found.instance_id, found.item_id, found.tool_type, found.project_id) == (
        INSTANCE,
        "5001",
        "purchase_order_contract",
        "1001",
    )
    assert (found.step, found.assignees) == ("Budget Check", ("integration@example.com",))
    assert None not in (found.since, found.due, found.polled_at, found.deadline, found.poll_interval)
    assert (found.item_url, found.last_error) == ("https://app.example.com/1001/purchase_order_contract/5001", None)


def test_wait_by_item_names_its_running_instance(emulator, store):
    by_item = ProcoreInstanceSensor(
        task_id="wait", tool_type="purchase_order_contract", item_id="5001", deferrable=True
    )

    assert wait_on(by_item, store).instance_id == INSTANCE


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_poking_wait_writes_only_what_has_changed(emulator, clock, store, way):
    happens = {300: lambda: respond(emulator), 600: lambda: respond(emulator, "dana@example.com")}
    clock.meanwhile = lambda: happens.pop(clock.elapsed, lambda: None)()

    Task(clock, store, **way).run()

    assert [(wait.step, wait.assignees) for wait in store.writes] == [
        ("Budget Check", ("integration@example.com",)),
        ("Director Approval", ("dana@example.com",)),
    ]


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_failing_polls_are_stored_once_with_the_step(emulator, clock, store, way):
    def happen():
        if clock.elapsed == 300:
            emulator.control("POST", "faults", path="/history$", times=5, status=503)
        if clock.elapsed == 900:
            respond(emulator, option="Reject")

    clock.meanwhile = happen

    Task(clock, store, **way).run()

    assert [wait.step for wait in store.writes] == ["Budget Check"] * 3
    assert [bool(wait.last_error) for wait in store.writes] == [False, True, False]
    assert "503" in store.writes[1].last_error


def test_first_poll_of_a_retry_replaces_the_description(emulator, store):
    context = {"task_state_store": store}
    for try_number in (1, 2):
        task = ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, deferrable=True)
        with pytest.raises(TaskDeferred):
            task.execute({**context, "ti": Instance(try_number)})

    assert [wait.try_number for wait in store.writes] == [1, 2]


def test_failing_first_poll_of_a_retry_shows_no_earlier_step(emulator, store):
    def run(try_number):
        with pytest.raises(TaskDeferred):
            ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, deferrable=True).execute(
                {"task_state_store": store, "ti": Instance(try_number)}
            )

    run(1)
    emulator.control("POST", "faults", path="/history$", times=5, status=503)
    run(2)

    assert (store.writes[-1].try_number, store.writes[-1].step, store.writes[-1].instance_id) == (2, None, INSTANCE)
    assert store.writes[-1].last_error is not None


class Instance:
    """What a sensor reads of its task instance."""

    max_tries = 3
    map_index = -1

    def __init__(self, try_number):
        self.try_number = try_number


@pytest.mark.parametrize("was_polled", [True, False])
def test_wait_whose_connection_cannot_be_read_is_shown(emulator, store, monkeypatch, was_polled):
    def unavailable(self):
        raise ServerError("The secrets backend does not respond.")

    if was_polled:
        wait_on(ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, deferrable=True), store)
    monkeypatch.setattr(ProcoreHook, "current_conn", unavailable)

    found = wait_on(ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, deferrable=True), store)

    assert (found.product, found.step) == ("procore", "Budget Check" if was_polled else None)
    assert "secrets backend" in found.last_error


def test_store_that_fails_does_not_end_the_wait(emulator, store):
    def fail(key, value, *, retention=None):
        if key == OPEN_WAIT:
            raise RuntimeError("the API server is gone")

    store.set = fail
    sensor = ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, deferrable=True)
    context = {"task_state_store": store}

    trigger = deferred(sensor, context).trigger

    assert "recorded" not in trigger.serialize()[1]


def test_nothing_is_stored_where_airflow_has_no_store(emulator):
    trigger = deferred(ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE), {}).trigger

    assert "recorded" not in trigger.serialize()[1]


# --- the other waits ---


def test_legacy_wait_says_what_it_waits_for_and_for_whom(emulator, store):
    found = wait_on(
        ProcoreLegacyInstanceSensor(task_id="wait", instance_id="568151", until=["Accepted"], deferrable=True), store
    )

    assert (found.product, found.subject, found.instance_id) == ("procore_legacy", "Accepted", "568151")
    assert None not in (found.workflow, found.item_id, found.tool_type, found.step, found.since)
    assert found.assignees != ()


def test_wait_for_requests_names_the_user_and_no_step(emulator, store):
    respond(emulator)
    sensor = ProcoreResponseRequestedSensor(task_id="wait", tool_type="purchase_order_contract", deferrable=True)

    found = wait_on(sensor, store)

    assert (found.product, found.subject, found.step) == ("procore", "response of the connection's user", None)


def test_wait_for_an_operation_names_it(emulator, store):
    emulator.control("PATCH", "flags", operation_delay=600)
    operation_id = ProcoreHook().bulk_start_instances("purchase_order_contract", [{"item_id": "11"}])["operation_id"]

    found = wait_on(ProcoreAsyncOperationSensor(task_id="wait", operation_id=operation_id, deferrable=True), store)

    assert (found.product, found.subject) == ("procore", f"end of operation {operation_id}")


@pytest.mark.parametrize("reading", ["consumed_on_read", "listed_until_completed"])
def test_wait_for_an_integration_step_names_it(emulator, store, set_connection, reading):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"new_integrations": reading}
    set_connection("workflowsoft_default", connection)
    emulator.control("PATCH", "flags", new_integrations=reading)
    sensor = WorkflowsoftIntegrationSensor(
        task_id="wait", diagram="Event planning", step="Check event", deferrable=True
    )

    found = wait_on(sensor, store)

    assert (found.product, found.step) == ("workflowsoft", None)
    assert "Check event" in found.subject


def test_polls_of_a_resumed_sensor_write_only_changes(emulator, store):
    """A sensor of consumed instances polls on a worker each time, in a new process."""
    sensor = {"task_id": "wait", "diagram": "Event planning", "step": "Check event", "deferrable": True}
    context = {"task_state_store": store}
    with pytest.raises(TaskDeferred) as deferral:
        WorkflowsoftIntegrationSensor(**sensor).execute(context)

    for _ in range(3):
        event = deferral.value.trigger.event
        with pytest.raises(TaskDeferred) as deferral:
            WorkflowsoftIntegrationSensor(**sensor).execute_complete(context, event)

    assert len(store.writes) == 1


def test_operator_that_waits_says_for_whom(emulator, store):
    found = wait_on(start(wait_for_completion=True, deferrable=True), store)

    assert (found.instance_id, found.item_id, found.step) == ("700002", "5002", "Budget Check")


def test_trigger_knows_what_the_worker_has_stored(emulator, store):
    sensor = ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, deferrable=True)

    trigger = deferred(sensor, {"task_state_store": store}).trigger

    assert trigger.serialize()[1]["recorded"] == store.writes[-1].fingerprint
