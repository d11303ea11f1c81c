"""No single poll ends a wait: rejected polls, the patience with them, and the last poll at the deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    NotFound,
    PermissionDenied,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators import waiting
from airflow_provider_workflows.rules.patience import DEFAULT_PATIENCE_SECONDS
from airflow_provider_workflows.sensors.procore import ProcoreAsyncOperationSensor, ProcoreInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from airflow_provider_workflows.triggers.wakeup import WakeUpTrigger

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

INSTANCE = "700001"
PAGE = {"body": "<html>Forbidden</html>", "headers": {"Content-Type": "text/html"}}
# How a server rejects a poll, and the error it is.
REJECTIONS = {
    "403": ({"status": 403, "json": {"error": {"message": "No access"}}}, PermissionDenied),
    "403 page": ({"status": 403, **PAGE}, PermissionDenied),
    "404 page": ({"status": 404, **PAGE}, NotFound),
    "401": ({"status": 401, "json": {}}, AuthenticationError),
    "malformed": ({"status": 200, "json": {"data": {"history": 7}}}, UnexpectedResponse),
    "page": ({"status": 200, **PAGE}, WorkflowsError),
}
WAYS = {"poke": {}, "reschedule": {"mode": "reschedule"}}


@pytest.fixture(params=REJECTIONS.values(), ids=list(REJECTIONS))
def rejection(request):
    return request.param


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def way(request):
    return request.param


class Clock:
    """The time that a wait on a worker goes by."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.started = datetime.now(timezone.utc)
        self.meanwhile: Callable[[], object] = lambda: None  # happens in each sleep

    def time(self) -> float:
        return self.started.timestamp() + self.elapsed

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed

    def now(self, tz: Any = None) -> datetime:
        return self.started + timedelta(seconds=self.elapsed)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.elapsed += seconds
        self.meanwhile()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()

    class Now(datetime):
        now = clock.now

    times = SimpleNamespace(time=clock.time, monotonic=clock.monotonic, sleep=clock.sleep)
    monkeypatch.setattr(waiting, "time", times)
    monkeypatch.setattr(waiting, "datetime", Now)
    monkeypatch.setattr("airflow_provider_workflows.sensors.base.datetime", Now)
    monkeypatch.setattr("airflow.sdk.bases.sensor.time", times)
    monkeypatch.setattr("airflow.sdk.bases.sensor.timezone", SimpleNamespace(utcnow=clock.now))
    return clock


def sensor(**parameters) -> ProcoreInstanceSensor:
    defaults = {"instance_id": INSTANCE, "timeout": 7200, "poke_interval": 60, "deferrable": False}
    return ProcoreInstanceSensor(task_id="wait", **{**defaults, **parameters})


class Task:
    """A sensor's task as Airflow runs it; pokes, reschedules and sleeps in no time."""

    def __init__(self, clock: Clock, store: Any = None, *, try_number: int = 1, build=sensor, **parameters: Any):
        self.clock = clock
        self.store = store
        self.try_number = try_number
        self.build = lambda: build(**parameters)
        self.reschedules = 0
        self.first_reschedule: datetime | None = None

    @property
    def context(self) -> dict[str, Any]:
        ti = SimpleNamespace(
            try_number=self.try_number,
            max_tries=3,
            get_first_reschedule_date=lambda context: self.first_reschedule,
        )
        stored = {} if self.store is None else {"task_state_store": self.store}
        return {"ti": ti, "task_reschedule_count": self.reschedules, **stored}

    def run(self) -> Any:
        while True:
            try:
                return self.build().execute(self.context)
            except AirflowRescheduleException as rescheduled:
                self.first_reschedule = self.first_reschedule or self.clock.now()
                self.reschedules += 1
                self.clock.sleep((rescheduled.reschedule_date - self.clock.now()).total_seconds())


def fault(emulator, times: int = 99, path: str = "/history$", **kind) -> None:
    emulator.control("POST", "faults", path=path, times=times, **kind)


def approve(emulator) -> None:
    for login in ("integration@example.com", "dana@example.com"):
        emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login=login, option="Approve")


def polls(emulator) -> int:
    return sum(request["path"].endswith("/history") for request in emulator.requests())


# --- rejections ---


@pytest.mark.sample(3)
def test_a_rejected_poke_does_not_end_the_wait(emulator, clock, store, way, rejection):
    kind, _ = rejection
    fault(emulator, times=4, **kind)
    approve(emulator)

    assert Task(clock, store, **way).run()["state"] == "complete"


@pytest.mark.sample(3)
def test_rejections_fail_the_wait_after_the_patience(emulator, clock, store, way, rejection):
    kind, error = rejection
    fault(emulator, **kind)

    with pytest.raises(error):
        Task(clock, store, **way).run()
    assert DEFAULT_PATIENCE_SECONDS <= clock.elapsed <= DEFAULT_PATIENCE_SECONDS + 60


def test_patience_is_a_setting_and_needs_three_polls(emulator, clock, store, way, monkeypatch):
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__REJECTION_PATIENCE", "100")
    fault(emulator, status=403, json={})

    with pytest.raises(PermissionDenied):
        Task(clock, store, poke_interval=90, **way).run()
    assert clock.elapsed == pytest.approx(180, abs=5)


def test_a_poll_that_succeeds_starts_the_patience_again(emulator, clock, store, way):
    fault(emulator, times=9, status=403, json={})
    fault(emulator, times=99, skip=1, status=403, json={})

    with pytest.raises(PermissionDenied):
        Task(clock, store, **way).run()
    assert clock.elapsed >= 600 + DEFAULT_PATIENCE_SECONDS


def test_transient_error_does_not_restart_the_patience(emulator, clock, store, way):
    fault(emulator, times=5, status=403, json={})
    fault(emulator, times=1, status=503)
    fault(emulator, status=403, json={})

    with pytest.raises(PermissionDenied):
        Task(clock, store, **way).run()
    assert clock.elapsed <= DEFAULT_PATIENCE_SECONDS + 60


def test_reschedule_without_a_store_decides_at_the_deadline(emulator, clock):
    fault(emulator, status=403, json={"error": {"message": "No access"}})

    with pytest.raises(AirflowSensorTimeout, match="No access"):
        Task(clock, mode="reschedule", timeout=3600, poke_interval=300).run()
    assert clock.elapsed == pytest.approx(3600, abs=5)


@pytest.mark.parametrize("wrong", [{"instance_id": "999"}, {"procore_conn_id": "nowhere"}])
def test_a_wrong_parameter_fails_the_first_poke_of_the_first_try(emulator, clock, store, way, wrong):
    with pytest.raises((NotFound, ConfigurationError)):
        Task(clock, store, **wrong, **way).run()
    assert clock.elapsed == 0


@pytest.mark.parametrize("wrong", [{"instance_id": "999"}, {"procore_conn_id": "nowhere"}])
def test_later_try_tolerates_a_rejected_first_poke(emulator, clock, store, way, wrong):
    with pytest.raises((NotFound, ConfigurationError)):
        Task(clock, store, try_number=2, **wrong, **way).run()
    assert clock.elapsed >= DEFAULT_PATIENCE_SECONDS


def test_404_after_the_first_poke_does_not_end_the_wait(emulator, clock, store, way):
    fault(emulator, skip=1, times=5, status=404, json={"errors": "Not found"})
    clock.meanwhile = lambda: approve(emulator) if polls(emulator) == 6 else None

    assert Task(clock, store, **way).run()["state"] == "complete"
    assert polls(emulator) == 7


def test_temporarily_missing_connection_ends_no_wait(emulator, clock, store, way, monkeypatch, set_connection):
    sleeps = [
        lambda: monkeypatch.delenv("AIRFLOW_CONN_PROCORE_DEFAULT"),
        lambda: approve(emulator),
        lambda: set_connection("procore_default", emulator.connection("procore")),
    ]
    clock.meanwhile = lambda: sleeps.pop(0)()
    # A task that only sleeps reuses its connection, and one that starts again looks it up again.
    pokes = 4 if way else 3

    assert Task(clock, store, **way).run()["state"] == "complete"
    assert len(sleeps) == 4 - pokes


def test_a_broken_secrets_backend_ends_no_wait(emulator, clock, store, way, monkeypatch, capsys):
    approve(emulator)
    calls: list[str] = []
    get_connection = ProcoreHook.get_connection

    def fails_twice(hook: ProcoreHook, conn_id: str) -> Any:
        calls.append(conn_id)
        if len(calls) < 3:
            raise RuntimeError("the vault is sealed: s3cret-word")
        return get_connection("procore_default")

    monkeypatch.setattr(ProcoreHook, "get_connection", fails_twice)

    assert Task(clock, store, procore_conn_id="in_the_vault", **way).run()["state"] == "complete"
    assert len(calls) == 3
    assert "s3cret-word" not in capsys.readouterr().out


# --- deferrable ---


def deferral(task: Task) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as deferred:
        task.run()
    return deferred.value


def test_a_rejected_first_poke_defers(emulator, clock, store, rejection):
    kind, _ = rejection
    fault(emulator, **kind)

    trigger = deferral(Task(clock, store, deferrable=True)).trigger

    assert isinstance(trigger, ProcoreInstanceWaitTrigger)
    assert trigger.last_fault != ""


@pytest.mark.parametrize("wrong", [{"instance_id": "999"}, {"procore_conn_id": "nowhere"}])
def test_wrong_parameter_fails_a_deferrable_wait_at_first_try(emulator, clock, store, wrong):
    with pytest.raises((NotFound, ConfigurationError)):
        Task(clock, store, deferrable=True, **wrong).run()

    deferral(Task(clock, store, try_number=2, deferrable=True, **wrong))


def test_trigger_gets_the_state_of_the_workers_poll(emulator, clock, store):
    trigger = deferral(Task(clock, store, deferrable=True)).trigger

    assert "at step 'Budget Check'" in trigger.last_poll


TAKES = {"task_id": "take", "step_id": 101, "deferrable": True, "poke_interval": 60, "timeout": 7200}


@pytest.mark.parametrize("has_store", [False, True])
def test_rejections_of_a_wait_on_workers_survive_the_sleeps(emulator, clock, store, has_store):
    fault(emulator, path="/new-integrations", status=403, json={"Message": "No access"})
    task = Task(clock, store if has_store else None, build=WorkflowsoftIntegrationSensor, **TAKES)

    def wake_up(trigger: WakeUpTrigger) -> Any:
        clock.sleep((datetime.fromisoformat(trigger.until) - clock.now()).total_seconds())
        try:
            return task.build().execute_complete(task.context, trigger.event)
        except TaskDeferred as again:
            return wake_up(again.trigger)

    trigger = deferral(task).trigger
    with pytest.raises(PermissionDenied):
        wake_up(trigger)
    assert DEFAULT_PATIENCE_SECONDS <= clock.elapsed <= DEFAULT_PATIENCE_SECONDS + 120


def test_temporarily_missing_connection_ends_no_wait_on_workers(emulator, clock, store, set_connection, monkeypatch):
    task = Task(clock, store, build=WorkflowsoftIntegrationSensor, **TAKES)
    event = deferral(task).trigger.event
    monkeypatch.delenv("AIRFLOW_CONN_WORKFLOWSOFT_DEFAULT")
    with pytest.raises(TaskDeferred) as again:
        task.build().execute_complete(task.context, event)
    set_connection("workflowsoft_default", emulator.connection("workflowsoft"))
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning")

    (row,) = task.build().execute_complete(task.context, again.value.trigger.event)

    assert row["step_id"] == "101"


# --- a first poke is cheap ---


@pytest.fixture
def silent_server():
    """A server that accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []
        closing = threading.Event()

        def accept() -> None:
            while not closing.is_set():
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], accepted
        closing.set()
        server.shutdown(socket.SHUT_RDWR)
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("options", [{"deferrable": True}, {"mode": "reschedule"}], ids=["deferrable", "reschedule"])
def test_a_hung_server_gets_one_attempt_of_a_first_poke(emulator, store, set_connection, silent_server, options):
    port, accepted = silent_server
    connection = emulator.connection("procore")
    connection["extra"] |= {"login_url": f"http://127.0.0.1:{port}", "timeout": 0.1}
    set_connection("procore_default", {**connection, "host": f"http://127.0.0.1:{port}"})

    with pytest.raises((TaskDeferred, AirflowRescheduleException)):
        sensor(**options).execute({"task_state_store": store, "ti": Task(Clock()).context["ti"]})
    assert len(accepted) == 1


@pytest.mark.parametrize("options", [{"deferrable": True}, {"mode": "reschedule"}], ids=["deferrable", "reschedule"])
@pytest.mark.parametrize("status", [429, 503])
def test_stated_wait_occupies_no_worker(emulator, clock, store, options, status):
    fault(emulator, status=status, headers={"Retry-After": "20"})

    with pytest.raises((TaskDeferred, AirflowRescheduleException)):
        sensor(**options).execute(Task(clock, store).context)
    assert (polls(emulator), clock.elapsed) == (1, 0)


def test_a_stated_wait_is_honoured_between_pokes(emulator, clock, store, way):
    fault(emulator, times=1, status=429, headers={"Retry-After": "50"})
    approve(emulator)

    Task(clock, store, poke_interval=1, **way).run()

    assert (polls(emulator), clock.elapsed >= 49) == (2, True)


def test_last_poke_honours_a_stated_wait_past_the_deadline(emulator, clock, store):
    fault(emulator, times=1, status=429, headers={"Retry-After": "3000"})

    with pytest.raises(AirflowSensorTimeout, match="Rate-limited"):
        Task(clock, store, timeout=100).run()
    assert (polls(emulator), clock.elapsed) == (1, pytest.approx(100, abs=5))


# --- the last poll at the deadline ---


def test_the_last_poll_is_at_the_deadline(emulator, clock, store, way):
    clock.meanwhile = lambda: approve(emulator)

    assert Task(clock, store, timeout=3, poke_interval=4, **way).run()["state"] == "complete"
    assert clock.elapsed == pytest.approx(3, abs=1)


def test_a_wait_without_a_store_ends_with_the_last_state(emulator, clock, way):
    with pytest.raises(AirflowSensorTimeout, match="at step 'Budget Check'"):
        Task(clock, timeout=300, poke_interval=60, **way).run()
    assert clock.elapsed == pytest.approx(300, abs=5)


def test_the_timeout_names_the_last_state_and_the_last_error(emulator, clock, store, way):
    fault(emulator, skip=1, status=503)

    with pytest.raises(AirflowSensorTimeout, match="at step 'Budget Check'.*not available") as timeout:
        Task(clock, store, timeout=300, poke_interval=60, **way).run()
    assert "integration@example.com" in str(timeout.value)


def test_a_deferral_that_no_triggerer_ended_gets_a_last_poll(emulator, clock, store):
    resume = ("__fail__", {"error": "Trigger timeout"})
    task = Task(clock, store, deferrable=True)
    with pytest.raises(AirflowSensorTimeout, match="at step 'Budget Check'"):
        task.build().resume_execution(*resume, task.context)
    approve(emulator)

    assert task.build().resume_execution(*resume, task.context)["state"] == "complete"


# --- what Airflow's options for errors do, in every mode ---


def test_silent_fail_continues_in_deferrable_mode_as_in_poke_mode(emulator, clock, store, way):
    fault(emulator, times=1, status=404, json={"errors": "No such instance"})
    approve(emulator)
    assert Task(clock, store, silent_fail=True, **way).run()["state"] == "complete"

    fault(emulator, times=1, status=404, json={"errors": "No such instance"})
    deferral(Task(clock, type(store)(), silent_fail=True, deferrable=True))


@pytest.mark.parametrize("event", [None, {}, {"status": "done"}, {"status": "error", "error": "X", "message": "y"}])
def test_silent_fail_continues_after_an_event_without_a_result(emulator, clock, store, event):
    task = Task(clock, store, silent_fail=True, deferrable=True)
    deadline = deferral(task).trigger.deadline

    with pytest.raises(TaskDeferred) as again:
        task.build().execute_complete(task.context, event)
    assert again.value.trigger.deadline == deadline


def test_silent_fail_continues_with_wrong_parameters(emulator, clock, store):
    with pytest.raises(AirflowSensorTimeout, match="until"):
        Task(clock, store, silent_fail=True, until="approved", timeout=100).run()

    trigger = deferral(Task(clock, type(store)(), silent_fail=True, until="approved", deferrable=True)).trigger
    assert isinstance(trigger, WakeUpTrigger)


@pytest.mark.parametrize("event", [None, "done", {"status": "done"}, {"status": "done", "action": "succeed"}, {"a": 1}])
def test_malformed_event_is_an_error(event):
    for options, error in (({}, WorkflowsError), ({"soft_fail": True}, WorkflowsError)):
        with pytest.raises(error, match="does not know"):
            sensor(**options).execute_complete({}, event)
    with pytest.raises(AirflowSkipException):
        sensor(never_fail=True).execute_complete({}, event)


def test_a_failed_instance_fails_in_spite_of_silent_fail(emulator, clock, store):
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")

    for options in ({}, {"deferrable": True}):
        with pytest.raises(AirflowFailException):
            Task(clock, store, silent_fail=True, fail_on="terminated", **options).run()


@pytest.fixture
def operation(emulator) -> str:
    """An operation that is over."""
    operation_id = ProcoreHook().bulk_start_instances("purchase_order_contract", [{"item_id": "5002"}])["operation_id"]
    emulator.control("POST", "clock", advance=3600)
    return operation_id


def operation_sensor(operation_id: str, **parameters) -> ProcoreAsyncOperationSensor:
    options = {"task_id": "wait", "poke_interval": 60, "timeout": 7200, "deferrable": False}
    return ProcoreAsyncOperationSensor(operation_id=operation_id, **{**options, **parameters})


def test_a_result_that_is_read_in_part_is_polled_again(emulator, clock, store, way, operation):
    fault(emulator, path="/async_operations/", skip=1, times=1, status=403, json={})

    assert Task(clock, store, build=operation_sensor, operation_id=operation, **way).run()["status"] == "done"


def test_a_resumed_task_reads_the_rest_of_its_result_later(emulator, clock, store, operation):
    task = Task(clock, store, build=operation_sensor, operation_id=operation, deferrable=True)
    fault(emulator, path="/async_operations/", times=2, status=403, json={})
    ended = {
        "status": "done",
        "action": "succeed",
        "reason": "",
        "result": {"operations": [{"operation_id": operation}]},
    }

    with pytest.raises(TaskDeferred):
        task.build().execute_complete(task.context, ended)
    assert task.build().execute_complete(task.context, ended)["completed_items"] != []


def test_an_event_with_a_malformed_result_is_polled_for_again(emulator, clock, store):
    malformed = {"status": "done", "action": "succeed", "result": None, "reason": ""}
    approve(emulator)

    task = Task(clock, store, deferrable=True)
    assert task.build().execute_complete(task.context, malformed)["state"] == "complete"
