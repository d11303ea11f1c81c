"""A killed task terminates the instance that it started; a wait that moved to another triggerer terminates nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetTaskStates, TaskStatesResult

from airflow_provider_workflows.triggers import cancellation
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from tests.support.versions import AIRFLOW
from tests.unit.polling.conftest import cancel, start, v2_wait, wait_for

pytestmark = [
    pytest.mark.usefixtures("airflow_connections"),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="before Airflow 3.3 no kill reaches a trigger"),
]

INSTANCE, ITEM = "700001", "5001"
TERMINATE = rf"/instances/{INSTANCE}/terminate$"
SHOW = rf"/instances/{INSTANCE}$"
ALWAYS = 10**6
# Of a task: deferred still, or to be tried again, which goes on with the same instance.
WAITS_ON = ["deferred", "up_for_retry"]
# What a task is after a user marked it failed, successful or skipped; None and what follows it after a clear.
KILLED = ["failed", "success", "skipped", None, "scheduled", "queued", "running", "removed"]


class Supervisor:
    """The triggerer's main process, which reads the states of tasks from Airflow for a trigger."""

    def __init__(self, state: str | None, map_index: int = -1):
        self.state = state
        self.map_index = map_index
        self.error: Exception | None = None
        self.states: dict[str, Any] | None = None  # instead of what Airflow would say
        self.received: list[GetTaskStates] = []

    def send(self, message: GetTaskStates) -> TaskStatesResult:
        with pytest.raises(RuntimeError):  # it would block all triggers
            asyncio.get_running_loop()
        self.received.append(message)
        if self.error is not None:
            raise self.error
        # As Airflow's API server names them.
        name = "start" if self.map_index < 0 else f"start_{self.map_index}"
        return TaskStatesResult(task_states={"run": {name: self.state}} if self.states is None else self.states)


@pytest.fixture
def airflow_state(monkeypatch):
    """Return a function that sets the state of the task, as Airflow returns it."""

    def set_state(state: str | None, map_index: int = -1) -> Supervisor:
        supervisor = Supervisor(state, map_index)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
        return supervisor

    return set_state


def trigger_of(map_index: int = -1, **more: Any) -> ProcoreInstanceWaitTrigger:
    trigger = v2_wait(INSTANCE, ITEM, terminate_on_kill=True, **more)
    trigger.task_instance = SimpleNamespace(dag_id="dag", task_id="start", run_id="run", map_index=map_index)
    return trigger


def terminations(emulator) -> int:
    return sum(effect["action"] == "terminate" for effect in emulator.effects())


def sent(emulator) -> int:
    """Return how often a termination was sent."""
    return sum(request["path"].endswith("/terminate") for request in emulator.requests())


def errors(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def fail(emulator, method: str, path: str, **how: Any) -> None:
    emulator.control("POST", "faults", method=method, path=path, **how)


# --- what Airflow's own triggerer makes of it ---


def cancel_as_airflow_does(
    clock, trigger: ProcoreInstanceWaitTrigger, map_index: int = -1, *, new_owner: int | None = None
) -> None:
    """
    Run a trigger in Airflow's triggerer until the database does not list it for this triggerer any more.

    From then on Airflow cancels it at each sync with the triggerer's main process, about once a second, until it ends.

    :param new_owner: The triggerer that has taken the trigger over, which Airflow looks up from 3.4 on.
    """
    from airflow.executors.workloads import RunTrigger
    from airflow.executors.workloads.task import TaskInstanceDTO
    from airflow.jobs.triggerer_job_runner import TriggerRunner, TriggerRunnerSupervisor
    from airflow.models.trigger import Trigger

    path, arguments = trigger.serialize()
    of_task = {"dag_id": "dag", "task_id": "start", "run_id": "run", "try_number": 1, "map_index": map_index}
    task_instance = TaskInstanceDTO(
        id=uuid.uuid4(), dag_version_id=uuid.uuid4(), pool_slots=1, priority_weight=1, queue="default", **of_task
    )
    workload = RunTrigger(
        id=1, ti=task_instance, classpath=path, encrypted_kwargs=Trigger.encrypt_kwargs(arguments), timeout_after=None
    )
    supervisor: Any = SimpleNamespace(
        running_triggers={1},
        events=deque(),
        cancelling_triggers=set(),
        failed_triggers=deque(),
        creating_triggers=deque(),
        releasing_triggers=set(),
        fetch_trigger_assignments=lambda ids: {} if new_owner is None else dict.fromkeys(ids, new_owner),
    )

    async def scenario() -> None:
        runner = TriggerRunner()
        runner.to_create.append(workload)
        await runner.create_triggers()
        running = runner.triggers[1]["task"]
        await asyncio.sleep(0.5)
        assert not running.done()
        while not running.done():
            TriggerRunnerSupervisor.update_triggers(supervisor, requested_trigger_ids=set())
            runner.to_cancel.extend(supervisor.cancelling_triggers)
            if supervisor.releasing_triggers:
                runner.to_release.extend(supervisor.releasing_triggers)
            await runner.cancel_triggers()
            await asyncio.sleep(1.0)
        assert running.cancelled()
        await asyncio.gather(*cancellation._running)

    clock.run(scenario())


@pytest.mark.parametrize("map_index", [-1, 0, 12])
def test_triggerer_takeover_terminates_nothing(emulator, clock, airflow_state, map_index):
    supervisor = airflow_state("deferred", map_index)

    cancel_as_airflow_does(clock, trigger_of(map_index), map_index, new_owner=2)

    # From Airflow 3.4 on a takeover does not reach the trigger.
    assert (terminations(emulator), sent(emulator), len(supervisor.received)) == (0, 0, int(AIRFLOW < (3, 4)))


@pytest.mark.parametrize("state", ["failed", "success", None])
@pytest.mark.parametrize("map_index", [-1, 12])
def test_kill_by_a_user_terminates_once(emulator, clock, airflow_state, state, map_index):
    supervisor = airflow_state(state, map_index)

    cancel_as_airflow_does(clock, trigger_of(map_index), map_index)

    assert (terminations(emulator), sent(emulator)) == (1, 1)
    (request,) = supervisor.received
    assert (request.dag_id, request.task_ids, request.run_ids) == ("dag", ["start"], ["run"])
    assert request.map_index == (None if map_index < 0 else map_index)


def test_kill_outlives_the_cancellations_that_follow(emulator, clock, airflow_state, caplog):
    airflow_state("failed")
    fail(emulator, "POST", TERMINATE, status=503, times=3)

    cancel_as_airflow_does(clock, trigger_of())

    assert (terminations(emulator), sent(emulator)) == (1, 4)
    assert errors(caplog) == []
    assert clock.elapsed > 5.0


# --- which state is a kill ---


def kill(clock, **more: Any) -> None:
    clock.run(trigger_of(**more).on_kill())


@pytest.mark.parametrize("state", WAITS_ON)
def test_nothing_is_sent_while_the_task_continues(emulator, clock, airflow_state, state):
    airflow_state(state)

    kill(clock)

    assert emulator.requests() == []


@pytest.mark.parametrize("state", KILLED)
def test_task_that_does_not_wait_any_more_was_killed(emulator, clock, airflow_state, state):
    airflow_state(state)

    kill(clock)

    assert (terminations(emulator), sent(emulator)) == (1, 1)


@pytest.mark.parametrize(
    "states",
    [
        {},
        {"run": {}},
        {"run": {"another": "failed"}},
        {"another": {"start": "failed"}},
        {"run": {"start_1": "failed"}},
        {"run": None},
    ],
)
def test_nothing_is_sent_if_airflow_returns_no_state(emulator, clock, airflow_state, caplog, states):
    airflow_state(None).states = states

    kill(clock)

    assert emulator.requests() == []
    assert [INSTANCE in message for message in warnings(caplog)] == [True]


def test_nothing_is_sent_if_the_state_cannot_be_read(emulator, clock, airflow_state, caplog):
    airflow_state("failed").error = RuntimeError("the API server is away")

    kill(clock)

    assert emulator.requests() == []
    assert [INSTANCE in message and "the API server is away" in message for message in warnings(caplog)] == [True]


def test_nothing_is_sent_without_a_task_instance(emulator, clock, airflow_state):
    airflow_state("failed")

    clock.run(v2_wait(INSTANCE, ITEM, terminate_on_kill=True).on_kill())

    assert emulator.requests() == []


def test_task_whose_wait_timed_out_elsewhere_was_not_killed(emulator, clock, airflow_state):
    airflow_state("failed")

    kill(clock, deadline=clock.deadline(-1.0))
    assert emulator.requests() == []

    kill(clock, deadline=clock.deadline(60.0))
    assert terminations(emulator) == 1


def test_kill_without_terminate_on_kill_reads_nothing(emulator, clock, airflow_state):
    supervisor = airflow_state("failed")

    clock.run(v2_wait(INSTANCE, ITEM).on_kill())

    assert (supervisor.received, emulator.requests()) == ([], [])


# --- an instance that has ended ---


@pytest.mark.parametrize("option", ["Reject", None])
def test_ended_instance_is_sent_nothing(emulator, clock, airflow_state, caplog, option):
    airflow_state("success")
    if option is None:
        emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")
    else:
        emulator.control(
            "POST", f"procore/instances/{INSTANCE}/respond", login="integration@example.com", option=option
        )

    kill(clock)

    assert sent(emulator) == 0
    assert errors(caplog) == []


def test_second_kill_does_no_harm(emulator, clock, airflow_state, caplog):
    airflow_state("failed")

    kill(clock)
    kill(clock)

    assert (terminations(emulator), sent(emulator)) == (1, 1)
    assert errors(caplog) == []


@pytest.mark.parametrize("status", [404, 409, 422])
def test_instance_that_a_user_ends_during_the_kill_counts_as_ended(emulator, clock, airflow_state, caplog, status):
    airflow_state("failed")
    fail(emulator, "POST", TERMINATE, status=status, json={"error": "It has ended."}, after=True, times=ALWAYS)

    kill(clock)

    assert (terminations(emulator), sent(emulator)) == (1, 1)
    assert errors(caplog) == []


# --- attempts ---

PASSES = {
    "429": {"status": 429, "headers": {"Retry-After": "7"}},
    "429 without a time": {"status": 429},
    "503": {"status": 503},
    "502 after the effect": {"status": 502, "after": True},
    "lost before": {"reset": "before"},
    "lost after": {"reset": "after"},
    "401": {"status": 401},
    "gateway": {"status": 403, "body": "<html>blocked</html>"},
    "500": {"status": 500},
    "malformed": {"status": 200, "json": {}},
    "page after the effect": {"status": 200, "body": "<html></html>", "after": True},
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("how", list(PASSES))
@pytest.mark.parametrize("path", [TERMINATE, SHOW])
def test_one_error_does_not_end_a_kill(emulator, clock, airflow_state, caplog, how, path):
    airflow_state("failed")
    fail(emulator, "POST" if path == TERMINATE else "GET", path, **PASSES[how])

    kill(clock)

    assert terminations(emulator) == 1
    assert errors(caplog) == []
    assert clock.elapsed <= cancellation.MAX_KILL_SECONDS


def test_stated_wait_is_honoured(emulator, clock, airflow_state):
    airflow_state("failed")
    fail(emulator, "POST", TERMINATE, status=429, headers={"Retry-After": "9"})

    kill(clock)

    assert 9.0 <= clock.elapsed < 12.0
    assert (terminations(emulator), sent(emulator)) == (1, 2)


def test_instance_that_cannot_be_read_is_terminated(emulator, clock, airflow_state):
    airflow_state("failed")
    fail(emulator, "GET", SHOW, status=500, times=ALWAYS)

    kill(clock)

    assert terminations(emulator) == 1


def test_failed_connection_lookup_is_retried_during_a_kill(emulator, clock, airflow_state, monkeypatch):
    airflow_state("failed")
    trigger = trigger_of()
    lookups = []
    hook = trigger.open_hook()
    prepare = hook.prepare

    async def fails_once():
        lookups.append(True)
        if len(lookups) == 1:
            raise RuntimeError("secrets: hunter2")
        await prepare()

    monkeypatch.setattr(hook, "prepare", fails_once)
    monkeypatch.setattr(trigger, "open_hook", lambda: hook)

    clock.run(trigger.on_kill())

    assert (terminations(emulator), len(lookups)) == (1, 2)


# --- and where none succeeds ---

LASTS = {
    "503": {"status": 503},
    "429": {"status": 429, "headers": {"Retry-After": "120"}},
    "not permitted": {"status": 403, "json": {"error": "Not permitted."}},
    "unchanged": {"status": 200, "json": {"data": {"id": int(INSTANCE), "ended_at": None}}},
}


@pytest.mark.parametrize("how", list(LASTS))
def test_kill_without_success_names_the_instance(emulator, clock, airflow_state, caplog, how):
    airflow_state("failed")
    fail(emulator, "POST", TERMINATE, times=ALWAYS, **LASTS[how])

    kill(clock)

    assert terminations(emulator) == 0
    assert [INSTANCE in message for message in errors(caplog)] == [True]
    assert clock.elapsed <= cancellation.MAX_KILL_SECONDS
    tries = {"429": range(1, 2), "not permitted": range(2, 3)}.get(how, range(4, 12))
    assert sent(emulator) in tries


def test_error_of_a_secrets_backend_is_not_repeated(emulator, clock, airflow_state, caplog, monkeypatch):
    airflow_state("failed")

    async def fails(conn_id):
        raise RuntimeError("hunter2")

    monkeypatch.setattr("airflow_provider_workflows.hooks.base.get_async_connection", fails)

    kill(clock)

    assert [INSTANCE in message for message in errors(caplog)] == [True]
    assert "hunter2" not in caplog.text


def test_hanging_connection_lookup_ends_at_the_time_limit(emulator, clock, airflow_state, caplog, monkeypatch):
    airflow_state("failed")

    async def hang(conn_id):
        await asyncio.sleep(3600)

    monkeypatch.setattr("airflow_provider_workflows.hooks.base.get_async_connection", hang)

    kill(clock)

    assert clock.elapsed == pytest.approx(cancellation.MAX_KILL_SECONDS)
    assert [INSTANCE in message for message in errors(caplog)] == [True]


def test_airflow_that_does_not_respond_terminates_nothing(emulator, airflow_state, caplog, monkeypatch):
    supervisor = airflow_state("failed")
    free = threading.Event()
    monkeypatch.setattr(cancellation, "MAX_KILL_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "send", lambda message: free.wait())

    try:
        asyncio.run(trigger_of().on_kill())
    finally:
        free.set()

    assert emulator.requests() == []
    assert [INSTANCE in message for message in errors(caplog)] == [True]


def test_triggerer_that_stops_during_a_kill_names_the_instance(emulator, clock, airflow_state, caplog):
    airflow_state("failed")
    fail(emulator, "POST", TERMINATE, status=503, times=ALWAYS)

    async def scenario() -> None:
        asyncio.get_running_loop().create_task(trigger_of().on_kill())
        await asyncio.sleep(5.0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await cancel(*others)

    clock.run(scenario())

    assert [INSTANCE in message for message in errors(caplog)] == [True]
    assert clock.elapsed < 6.0


# --- threads ---


class SilentServer:
    """Accepts connections and never responds."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.called = threading.Event()
        self.calls: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                call, _ = self._server.accept()
                self.calls.append(call)
                self.called.set()

    def close(self) -> None:
        if self._server.fileno() < 0:
            return
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for call in self.calls:
            call.close()


@pytest.fixture
def silent_connections(emulator, set_connection):
    """Connections to servers that accept and never respond, by id; the waits on them sign in on the emulator."""
    servers = {f"procore_silent_{number}": SilentServer() for number in range(4)}
    for conn_id, server in servers.items():
        set_connection(conn_id, {**emulator.connection("procore"), "host": server.url})
    yield servers
    for server in servers.values():
        server.close()


def test_kill_does_not_wait_for_threads_of_polls(emulator, airflow_state, silent_connections):
    """Neither polls of connections that hang delay it, nor what other triggers run on Airflow's threads."""
    airflow_state("failed")
    (instance_id, item_id), *_ = start(emulator, 1)
    free = threading.Event()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        waits = [v2_wait(instance_id, item_id, procore_conn_id=name, poll_interval=0.1) for name in silent_connections]
        tasks = [wait_for(wait) for wait in waits]
        with ThreadPoolExecutor(1) as own:
            for server in silent_connections.values():
                assert await loop.run_in_executor(own, server.called.wait, 10)
        loop.run_in_executor(None, free.wait)
        try:
            await asyncio.wait_for(trigger_of().on_kill(), 10)
        finally:
            free.set()
            for server in silent_connections.values():
                server.close()
            await cancel(*tasks)

    asyncio.run(scenario())

    assert terminations(emulator) == 1


def test_server_that_hangs_gets_more_than_one_attempt(airflow_state, silent_connections, monkeypatch, caplog):
    airflow_state("failed")
    monkeypatch.setattr(cancellation, "MAX_KILL_SECONDS", 2.0)
    monkeypatch.setattr(cancellation, "MAX_REQUEST_SECONDS", 0.05)
    monkeypatch.setattr(cancellation, "FIRST_DELAY_SECONDS", 0.01)
    conn_id, server = next(iter(silent_connections.items()))

    asyncio.run(trigger_of(procore_conn_id=conn_id).on_kill())

    a_read_and_a_termination = 2
    assert len(server.calls) > a_read_and_a_termination
    assert [INSTANCE in message for message in errors(caplog)] == [True]
