"""Integration instances are delivered once each, and possible losses are reported."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import threading
import time
from datetime import datetime, timedelta, timezone
from functools import partial
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)
from airflow.sdk import DAG

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor
from airflow_provider_workflows.triggers.wakeup import WakeUpTrigger
from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger
from tests.support.killed import Killed

pytestmark = pytest.mark.compat

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

POLL = "/new-integrations"
MODES = ("consumed_on_read", "listed_until_completed")
WAYS = {"poke": {}, "reschedule": {"mode": "reschedule"}, "deferrable": {"deferrable": True}}


@pytest.fixture(params=MODES)
def mode(request) -> str:
    return request.param


@pytest.fixture(params=["object", "list"])
def shape(request, emulator) -> str:
    """What a poll returns: the first instance that waits, or all of them."""
    emulator.control("PATCH", "flags", new_integration_shape=request.param)
    return request.param


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def way(request) -> dict:
    """How a sensor waits."""
    return request.param


@pytest.fixture
def counted(monkeypatch) -> list[str | None]:
    """The step of each suspected loss that was counted as a statistic."""
    steps: list[str | None] = []

    def count(name: str, number: int = 1, **tags: str) -> None:
        if name == "workflows.suspected_lost_delivery":
            steps.append(tags["step_id"])

    monkeypatch.setattr(version_compat, "count", count)
    return steps


@pytest.fixture
def connect(emulator, set_connection):
    """Return a function that sets a connection and the emulator to one way of reading."""

    def set_both(mode: str, host: str | None = None, **extra) -> None:
        connection = emulator.connection("workflowsoft")
        connection["host"] = host or connection["host"]
        connection["extra"] |= {"new_integrations": mode, **extra}
        set_connection("workflowsoft_default", connection)
        emulator.control("PATCH", "flags", new_integrations=mode)

    return set_both


@pytest.fixture
def consuming(connect) -> None:
    connect("consumed_on_read")


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs a sensor to its end, as Airflow would; `between` runs during one sleep."""

    def run_it(context: dict, between=lambda: None, *, at: int = 1, **parameters):
        sleeps = 0

        def sleep(*_) -> None:
            nonlocal sleeps
            sleeps += 1
            if sleeps == at:
                between()

        monkeypatch.setattr("airflow.sdk.bases.sensor.time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
        ti = SimpleNamespace(get_first_reschedule_date=lambda context: None)
        build = partial(sensor, **parameters)

        def execute():
            return build().execute({"ti": ti, "task_reschedule_count": sleeps, **context})

        step = execute
        while True:
            try:
                return step()
            except AirflowRescheduleException:
                sleep()
                step = execute
            except TaskDeferred as deferred:
                sleep()
                step = partial(resume, build, deferred, context)

    return run_it


def sensor(**parameters) -> WorkflowsoftIntegrationSensor:
    where = {} if {"step", "step_id"} & set(parameters) else {"step": "Check event", "diagram": "Event planning"}
    return WorkflowsoftIntegrationSensor(
        task_id="wait", **{"poke_interval": 0.01, "timeout": 20, "deferrable": False, **where, **parameters}
    )


def person_starts(emulator, diagram: str = "Event planning") -> dict[str, str]:
    return emulator.control("POST", "workflowsoft/processes", diagram=diagram)


def user_completes(instance_id: str) -> None:
    hook = WorkflowsoftHook()
    venue = next(field for field in hook.get_fields(instance_id) if field.label == "Venue")
    hook.update_fields(instance_id, {venue.key: "Main hall"})
    hook.complete(instance_id)


def served_paths(emulator) -> list[str]:
    """Return the paths of the requests, without those that only showed that a token had expired."""
    return [r["path"] for r in emulator.requests() if r["status"] != 401 and "apitoken" not in r["path"]]


def polls(emulator) -> int:
    return sum(POLL in request["path"] for request in emulator.requests())


def delivered(emulator) -> int:
    """Return how many instances reading has taken out."""
    return sum(effect["action"] == "deliver" for effect in emulator.effects())


def fault(emulator, **kind) -> None:
    emulator.control("POST", "faults", method="GET", path=POLL, **kind)


def resume(build, deferred: TaskDeferred, context: dict):
    """Run the trigger as a triggerer does, from its serialized form, and resume on a fresh operator."""
    _, arguments = deferred.trigger.serialize()
    trigger = type(deferred.trigger)(**arguments)

    async def first_event() -> dict:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    return getattr(build(), deferred.method_name)(context, event=asyncio.run(first_event()))


def kill(monkeypatch, *, after: bool, skip: int = 0):
    """Make a worker die in a poll, before or after the server has responded."""
    poll = WorkflowsoftHook.poll_new_integrations
    seen = 0

    def killed(hook, *args, **kwargs):
        nonlocal seen
        seen += 1
        if seen <= skip:
            return poll(hook, *args, **kwargs)
        if after:
            poll(hook, *args, **kwargs)
        raise Killed

    monkeypatch.setattr(WorkflowsoftHook, "poll_new_integrations", killed)


def rows_of(*started: dict, possibly_lost: list | None = None) -> list[dict]:
    rows = [result_of(row) for row in started]
    rows[0]["possibly_lost"] = possibly_lost or []
    return rows


def result_of(started: dict, **more) -> dict:
    return {
        "integration_instance_id": str(started["integration_instance_id"]),
        "process_instance_id": str(started["process_instance_id"]),
        "diagram_id": "1",
        "step_id": "101",
        "step": "Check event",
        "possibly_lost": [],
        **more,
    }


# --- both ways of reading, every way of waiting ---


@pytest.mark.parametrize("deferrable", [False, True])
def test_open_instance_is_received_without_waiting(connect, emulator, store, mode, deferrable, capsys):
    connect(mode)
    started = person_starts(emulator)

    assert sensor(deferrable=deferrable).execute({"task_state_store": store}) == [result_of(started)]
    ids = (started["integration_instance_id"], started["process_instance_id"])
    assert "integration instance {} (process {})".format(*ids) in capsys.readouterr().out


@pytest.mark.sample(3)
def test_each_instance_reaches_the_dag_once_over_all_tries(connect, emulator, store, run, mode, shape, way):
    connect(mode)
    started: list[dict] = []
    someone_starts = lambda: started.append(person_starts(emulator))  # noqa: E731

    first = run({"task_state_store": store}, someone_starts, **way)
    retry = run({"task_state_store": store}, **way)
    user_completes(first[0]["integration_instance_id"])
    second = run({"task_state_store": type(store)()}, someone_starts, **way)

    assert first == retry == [result_of(started[0])]
    assert second == [result_of(started[1])]
    assert json.loads(json.dumps(first)) == first


@pytest.mark.sample(3)
@pytest.mark.parametrize("nothing", ["204", "null", "empty_object", "empty_list", "not_found"])
def test_every_response_format_is_read(connect, emulator, mode, store, run, nothing, shape):
    connect(mode)
    emulator.control("PATCH", "flags", no_new_integration=nothing)
    started: list[dict] = []

    result = run({"task_state_store": store}, lambda: started.append(person_starts(emulator)), deferrable=True)

    assert result == [result_of(started[0])]


def test_triggerer_polls_if_instances_stay_in_place(connect, emulator):
    connect("listed_until_completed")

    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute({})

    assert isinstance(deferred.value.trigger, WorkflowsoftIntegrationWaitTrigger)
    assert deferred.value.trigger.step_id == "101"


def test_triggerer_only_sleeps_if_polling_removes_instances(consuming, emulator, store):
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute({"task_state_store": store})
    trigger = deferred.value.trigger
    before = len(emulator.requests())

    async def run() -> list[dict]:
        return [event.payload async for event in trigger.run()]

    assert isinstance(trigger, WakeUpTrigger)
    assert [event["status"] for event in asyncio.run(run())] == ["poke"]
    assert len(emulator.requests()) == before


@pytest.mark.parametrize("has_store", [False, True])
@pytest.mark.parametrize("where", [{}, {"step_id": 101}])
def test_trigger_started_after_a_connection_change_polls_nothing(
    connect, emulator, store, monkeypatch, run, has_store, where
):
    connect("listed_until_completed")
    polled_in = []
    poll = WorkflowsoftHook.poll_new_integrations

    def recorded(hook, *args, **kwargs):
        polled_in.append(threading.current_thread() is threading.main_thread())
        return poll(hook, *args, **kwargs)

    monkeypatch.setattr(WorkflowsoftHook, "poll_new_integrations", recorded)
    started: list[dict] = []

    def meanwhile() -> None:
        connect("consumed_on_read")
        started.append(person_starts(emulator))

    context = {"task_state_store": store} if has_store else {}
    result = run(context, meanwhile, deferrable=True, **where)

    names = {"diagram_id": None, "step": None} if where else {}
    assert result == [result_of(started[0], **names)]
    assert polled_in == [True, True]
    if has_store:
        ids = [started[0]["integration_instance_id"], started[0]["process_instance_id"]]
        assert store["new_integrations"]["received"] == [ids]


def test_sensor_sent_back_by_a_connection_change_continues(connect, emulator, run):
    connect("listed_until_completed")
    started: list[dict] = []

    def starts() -> None:
        if not started:
            started.append(person_starts(emulator))

    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute({})
    connect("consumed_on_read")
    with pytest.raises(TaskDeferred) as again:
        resume(lambda: sensor(deferrable=True), deferred.value, {})
    assert isinstance(again.value.trigger, WakeUpTrigger)
    starts()

    assert resume(lambda: sensor(deferrable=True), again.value, {}) == [result_of(started[0])]


def test_step_is_looked_up_again_on_another_server(connect, emulator, mode, store, run, monkeypatch):
    resolve, elsewhere = WorkflowsoftHook.resolve_step, emulator.url.partition("://")[2]

    def resolve_there(hook, *titles):
        return {**resolve(hook, *titles), **({"step_id": "999"} if hook.server == elsewhere else {})}

    monkeypatch.setattr(WorkflowsoftHook, "resolve_step", resolve_there)
    connect(mode)
    started: list[dict] = []

    def move() -> None:
        connect(mode, host=emulator.url.replace("127.0.0.1", "localhost"))
        started.append(person_starts(emulator))

    result = run({"task_state_store": store}, move, deferrable=True)

    assert result == [result_of(started[0])]


@pytest.mark.usefixtures("impatient")
def test_withdrawn_permission_ends_the_trigger(connect, run):
    connect("listed_until_completed")

    with pytest.raises(WorkflowsError, match="ConfigurationError: .*allow_consume"):
        run({}, lambda: connect("listed_until_completed", allow_consume=False), deferrable=True)


def test_resumed_sensor_repeats_no_lookup(consuming, emulator, store, run):
    run({"task_state_store": store}, lambda: person_starts(emulator), deferrable=True)

    looked_up = [path for path in served_paths(emulator) if POLL not in path]
    assert looked_up == ["/api/v2/workflows", "/api/v2/workflows/1/tasks"]


def test_the_deadline_survives_the_sleeps_without_a_store(consuming, run):
    with pytest.raises(AirflowSensorTimeout):
        run({}, timeout=2, poke_interval=0.05, deferrable=True)


def test_a_sleep_never_outlasts_the_deadline(consuming):
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, timeout=30, poke_interval=3600).execute({})

    left = datetime.fromisoformat(deferred.value.trigger.until) - datetime.now(timezone.utc)
    assert left <= timedelta(seconds=30)


def test_a_timeout_skips_with_soft_fail(connect, mode):
    connect(mode)
    with pytest.raises(AirflowSkipException):
        sensor(timeout=0.0, soft_fail=True).execute({})


@pytest.mark.sample(3)
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("times", [0, 1])
def test_an_error_skips_with_never_fail_and_not_with_soft_fail(connect, emulator, store, run, mode, way, times):
    connect(mode)
    for how, error in (("never_fail", AirflowSkipException), ("soft_fail", WorkflowsError)):
        fault(emulator, status=200, body="[7]", skip=times, times=99)
        with pytest.raises(error):
            run({"task_state_store": type(store)()}, **{how: True}, **way)
        emulator.control("DELETE", "faults")


def test_unknown_event_of_a_trigger_is_rejected(consuming):
    with pytest.raises(WorkflowsError, match="does not know"):
        sensor().execute_complete({}, event=None)


def test_step_named_by_id_is_not_looked_up(connect, emulator, mode):
    connect(mode)
    started = person_starts(emulator)

    result = sensor(step_id=101).execute({})

    assert result == [result_of(started, diagram_id=None, step=None)]
    assert served_paths(emulator) == ["/api/v2/workflows/instances/new-integrations"]


def test_unknown_step_id_is_an_error(consuming, emulator, store):
    with pytest.raises(NotFound, match="give diagram and step instead"):
        sensor(step_id="999").execute({"task_state_store": store})
    assert store["new_integrations"]["possibly_lost"] == []


@pytest.mark.usefixtures("impatient")
def test_triggerer_explains_a_wrong_step_id_too(connect, emulator, run):
    connect("listed_until_completed")

    def no_such_step() -> None:
        fault(emulator, status=404, times=99)

    with pytest.raises(WorkflowsError, match="NotFound: step_id: .*give diagram and step instead"):
        run({}, no_such_step, step_id=101, deferrable=True)


def test_the_link_is_made_of_the_instance(connect, emulator):
    connect("consumed_on_read", item_url="https://app.example/{process_instance_id}/{integration_instance_id}")
    started = person_starts(emulator)
    waiting = sensor()

    waiting.execute({})

    ids = (started["process_instance_id"], started["integration_instance_id"])
    assert waiting.item_url == "https://app.example/{}/{}".format(*ids)


# --- one consumer, and each instance once ---


def test_without_permission_nothing_is_sent_and_the_error_says_why(connect, emulator, mode):
    connect(mode, allow_consume=False)
    before = len(emulator.requests())

    with pytest.raises(ConfigurationError, match="take each other's work"):
        sensor().execute({})
    assert len(emulator.requests()) == before


@pytest.mark.parametrize("way", [WAYS["poke"], WAYS["deferrable"]])
@pytest.mark.parametrize("of_connection", [True, False])
def test_dry_run_rejects_a_poll_that_consumes(connect, emulator, store, way, of_connection):
    person_starts(emulator)
    connect("consumed_on_read", dry_run=of_connection)
    before = len(emulator.requests())
    whose = "Connection 'workflowsoft_default' is a dry run" if of_connection else "The task is a dry run"

    with (
        DAG("any", schedule=None, default_args={} if of_connection else {"dry_run": True}),
        pytest.raises(ConfigurationError, match=f"{whose}.*dry_run"),
    ):
        sensor(**way).execute({"task_state_store": store})
    assert len(emulator.requests()) == before

    connect("consumed_on_read")
    assert len(sensor().execute({"task_state_store": store})) == 1


@pytest.mark.parametrize("of_connection", [True, False])
def test_dry_run_polls_where_a_poll_consumes_nothing(connect, emulator, of_connection):
    started = person_starts(emulator)
    connect("listed_until_completed", dry_run=of_connection)

    assert sensor(dry_run=not of_connection).execute({}) == rows_of(started)


def test_connection_that_becomes_a_dry_run_is_not_polled_again(connect, emulator, run):
    connect("consumed_on_read")

    def becomes_dry() -> None:
        connect("consumed_on_read", dry_run=True)
        person_starts(emulator)

    with pytest.raises(ConfigurationError, match="dry_run"):
        run({}, becomes_dry, deferrable=True)


def test_two_tasks_never_get_the_same_consumed_instance(consuming, emulator, store):
    first, second = person_starts(emulator), person_starts(emulator)

    got = [sensor().execute({"task_state_store": type(store)()}) for _ in range(2)]

    assert got == [rows_of(first), rows_of(second)]


def test_every_instance_of_a_list_response_is_delivered(consuming, emulator, store):
    emulator.control("PATCH", "flags", new_integration_shape="list")
    first, second = person_starts(emulator), person_starts(emulator)

    result = sensor().execute({"task_state_store": store})

    assert result == rows_of(first, second)


def test_remaining_instances_are_left_to_the_next_sensor(connect, emulator):
    connect("listed_until_completed")
    emulator.control("PATCH", "flags", new_integration_shape="list")
    first, _ = person_starts(emulator), person_starts(emulator)

    assert sensor().execute({}) == [result_of(first)]


# --- several instances ---


@pytest.mark.sample(3)
def test_drain_receives_open_instances_in_every_mode(connect, emulator, store, run, mode, shape, way):
    connect(mode)
    started: list[dict] = []
    context = {"task_state_store": store}

    rows = run(context, lambda: started.extend(person_starts(emulator) for _ in range(4)), max_instances=3, **way)

    expected = {
        ("consumed_on_read", "object"): 3,
        ("consumed_on_read", "list"): 4,  # cut, the fourth would be lost
        ("listed_until_completed", "object"): 1,  # the same comes again
        ("listed_until_completed", "list"): 3,
    }[mode, shape]
    assert rows == rows_of(*started[:expected])
    assert json.loads(json.dumps(rows)) == rows
    assert delivered(emulator) == (expected if mode == "consumed_on_read" else 0)
    assert run(context, max_instances=3, **way) == rows


def test_drain_continues_until_empty_and_spares_other_steps(consuming, emulator, store):
    emulator.control("PATCH", "flags", no_new_integration="not_found")
    started = [person_starts(emulator) for _ in range(2)]

    rows = sensor(step_id=101, max_instances="10").execute({"task_state_store": store})

    assert [row["integration_instance_id"] for row in rows] == [row["integration_instance_id"] for row in started]
    assert sum(POLL in path for path in served_paths(emulator)) == 3


def test_next_task_receives_what_a_drain_leaves(consuming, emulator, store):
    started = [person_starts(emulator) for _ in range(3)]

    got = [sensor(max_instances=2).execute({"task_state_store": type(store)()}) for _ in range(2)]

    assert got == [rows_of(*started[:2]), rows_of(started[2])]


def test_each_receipt_of_a_drain_is_stored_before_the_next_poll(consuming, emulator, store, monkeypatch):
    started = [person_starts(emulator) for _ in range(2)]
    stored: list[list] = []
    poll = WorkflowsoftHook.poll_new_integrations

    def recorded(hook, *args, **kwargs):
        stored.append(store["new_integrations"]["received"])
        return poll(hook, *args, **kwargs)

    monkeypatch.setattr(WorkflowsoftHook, "poll_new_integrations", recorded)
    sensor(max_instances=5).execute({"task_state_store": store})

    ids = [[row["integration_instance_id"], row["process_instance_id"]] for row in started]
    assert stored == [[], ids[:1], ids]


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("kind", "is_suspect"),
    [
        ({"status": 500}, True),
        ({"status": 200, "body": "<html>", "after": True}, True),
        ({"reset": "after"}, True),
        ({"status": 403}, False),
    ],
)
def test_error_ends_a_drain_and_received_instances_are_delivered(
    consuming, emulator, store, run, way, kind, is_suspect
):
    started = [person_starts(emulator) for _ in range(3)][:2]
    fault(emulator, skip=2, **kind)

    rows = run({"task_state_store": store}, max_instances=5, **way)

    lost = rows[0]["possibly_lost"]
    assert rows == rows_of(*started, possibly_lost=lost)
    assert len(lost) == is_suspect


def test_error_of_a_listing_drain_delivers_received_instances(connect, emulator, run, way):
    connect("listed_until_completed")
    emulator.control("PATCH", "flags", new_integration_shape="list")
    started: list[dict] = []

    def meanwhile() -> None:
        started.append(person_starts(emulator))
        fault(emulator, skip=1, status=403)

    assert run({}, meanwhile, max_instances=5, **way) == rows_of(started[0])


def test_the_result_is_a_list_that_is_delivered_whole(consuming, emulator, store, monkeypatch):
    assert not sensor().multiple_outputs

    monkeypatch.setattr(version_compat, "XCOM_HOLDS_NONE", False)  # Airflow 3.0
    started = person_starts(emulator)
    pushed: dict[str, object] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    assert sensor().execute({"task_state_store": store, "ti": ti}) == rows_of(started)
    assert pushed == {}


MAPPED = """
from airflow.sdk import dag, task
from airflow_provider_workflows.operators.workflowsoft import WorkflowsoftGetFieldsOperator
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

@dag(schedule=None)
def drained():
    new = WorkflowsoftIntegrationSensor(
        task_id="new", diagram="Event planning", step="Check event", max_instances="{{ 2 + 3 }}", timeout=20
    ).output

    @task
    def process(row):
        return "process " + row["process_instance_id"]

    process.expand(row=new)
    instance_ids = new.map(lambda row: row["integration_instance_id"])
    WorkflowsoftGetFieldsOperator.partial(task_id="fields").expand(integration_instance_id=instance_ids)

run = drained()
"""


@pytest.mark.usefixtures("airflow_db")
def test_tasks_are_mapped_over_the_instances(consuming, emulator, monkeypatch, tmp_path):
    started = [person_starts(emulator) for _ in range(2)]
    (tmp_path / "dags.py").write_text(MAPPED)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    spec = importlib.util.spec_from_file_location("drained", tmp_path / "dags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    run = module.run.test()

    assert str(run.state) == "success"
    mapped = run.get_task_instance("process", map_index=1)
    processes = [mapped.xcom_pull("process", map_indexes=index) for index in (0, 1)]
    assert list(processes) == ["process " + row["process_instance_id"] for row in started]
    read = [path.split("/")[-2] for path in served_paths(emulator) if path.endswith("/variables")]
    assert sorted(read) == sorted(row["integration_instance_id"] for row in started)


# --- the journal ---


def test_intent_precedes_each_poll_and_a_receipt_follows(consuming, emulator, store, monkeypatch):
    started = person_starts(emulator)
    seen = {}
    poll = WorkflowsoftHook.poll_new_integrations

    def recorded(hook, *args, **kwargs):
        seen.update(store["new_integrations"])
        return poll(hook, *args, **kwargs)

    monkeypatch.setattr(WorkflowsoftHook, "poll_new_integrations", recorded)
    sensor().execute({"task_state_store": store})

    assert datetime.fromisoformat(seen["polling_since"]).utcoffset() == timedelta(0)
    assert seen["received"] == []
    assert store["new_integrations"]["polling_since"] is None
    assert store["new_integrations"]["received"] == [
        [started["integration_instance_id"], started["process_instance_id"]]
    ]


def test_death_after_the_receipt_delivers_it_to_the_retry(
    consuming, emulator, store, run, way, monkeypatch, counted, capsys
):
    started = person_starts(emulator)
    with monkeypatch.context() as patch:
        patch.setattr(WorkflowsoftIntegrationSensor, "conclude", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run({"task_state_store": store}, **way)
    received = f"{started['integration_instance_id']} (process {started['process_instance_id']})"
    assert received in capsys.readouterr().out  # found again there, even if the task is cleared
    polled = polls(emulator)
    another = person_starts(emulator)

    retry = run({"task_state_store": store}, **way)

    assert retry == [result_of(started)]
    assert (polls(emulator), counted) == (polled, [])
    assert f"without a poll: integration instance {received}" in capsys.readouterr().out
    assert sensor().execute({"task_state_store": type(store)()}) == [result_of(another)]


def cleared(context: dict, number: int) -> dict:
    """Return the context of the same task after it was cleared so many times, which raises its tries."""
    ti = SimpleNamespace(max_tries=number, get_first_reschedule_date=lambda context: None)
    return {**context, "ti": ti}


def dies_in_the_end(monkeypatch) -> None:
    monkeypatch.setattr(WorkflowsoftIntegrationSensor, "conclude", lambda *_: (_ for _ in ()).throw(Killed))


def test_cleared_task_delivers_received_instances(consuming, emulator, store, run, way, monkeypatch, counted):
    first, second = person_starts(emulator), person_starts(emulator)
    context = {"task_state_store": store}
    with monkeypatch.context() as patch:
        dies_in_the_end(patch)
        for number in (0, 1):  # it dies once more after it was cleared
            with pytest.raises(Killed):
                run(cleared(context, number), **way)

    polled = polls(emulator)
    after = run(cleared(context, 2), **way)
    assert (after, polls(emulator), counted) == (rows_of(first), polled, [])
    assert run(cleared(context, 2), **way) == rows_of(first)  # a retry

    assert run(cleared(context, 3), **way) == rows_of(second)
    assert delivered(emulator) == 2


@pytest.mark.parametrize("moment", ["before", "after"])
def test_no_death_between_two_stores_loses_a_received_instance(consuming, emulator, store, dies, moment, monkeypatch):
    started = person_starts(emulator)
    context = {"task_state_store": store}
    with monkeypatch.context() as patch:
        dies_in_the_end(patch)
        with pytest.raises(Killed):
            sensor().execute(cleared(context, 0))
    dies(type(store), "set", moment, about="new_integrations_started")
    with pytest.raises(Killed):
        sensor().execute(cleared(context, 1))

    assert sensor().execute(cleared(context, 1)) == rows_of(started)


@pytest.fixture
def failing_store(store, monkeypatch):
    """Return a function that makes the store fail so many times once it is to store received instances."""
    monkeypatch.setattr("airflow_provider_workflows.sensors.workflowsoft.time", SimpleNamespace(sleep=lambda _: None))

    def fail(times: int) -> None:
        put, failures = type(store).set, 0

        def set_or_fail(self, key, value, **kwargs):
            nonlocal failures
            if failures < times and (failures or (isinstance(value, dict) and value.get("received"))):
                failures += 1
                raise RuntimeError("503 of Airflow's API server")
            put(self, key, value, **kwargs)

        monkeypatch.setattr(type(store), "set", set_or_fail)

    return fail


@pytest.mark.parametrize("failures", [1, 6])
def test_receipt_is_stored_once_the_store_works_again(consuming, emulator, store, failing_store, run, way, failures):
    started = person_starts(emulator)
    failing_store(failures)

    assert run({"task_state_store": store}, **way) == rows_of(started)
    assert [ids[0] for ids in store["new_integrations"]["received"]] == [started["integration_instance_id"]]


def test_instance_is_delivered_if_it_cannot_be_stored(consuming, emulator, store, failing_store, run, way, capsys):
    started, _ = (person_starts(emulator) for _ in range(2))
    failing_store(1000)

    assert run({"task_state_store": store}, max_instances=2, **way) == rows_of(started)
    assert delivered(emulator) == 1  # no poll without a record of its start
    assert "Storing the result of a poll in the task state store failed" in capsys.readouterr().out


def test_more_instances_than_the_store_takes_are_delivered(consuming, emulator, store, run, way, capsys):
    many = [{"IntegrationInstanceId": 1000 + n, "ProcessInstanceId": n + 1} for n in range(3000)]
    fault(emulator, status=200, json=many)

    rows = run({"task_state_store": store}, **way)

    assert [row["integration_instance_id"] for row in rows] == [str(row["IntegrationInstanceId"]) for row in many]
    assert len(json.dumps(store["new_integrations"])) < 2**16
    assert "would not deliver these: integration instance 1500 (process 501), 1501" in capsys.readouterr().out


def test_cleared_task_logs_instances_delivered_before(consuming, emulator, store, capsys):
    first = person_starts(emulator)
    context = {"task_state_store": store}
    sensor().execute(cleared(context, 0))
    capsys.readouterr()
    person_starts(emulator)

    sensor().execute(cleared(context, 1))

    named = f"{first['integration_instance_id']} (process {first['process_instance_id']})"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if named in line]
    assert "warning" in line.lower()


def test_a_cleared_task_reports_the_poll_that_its_worker_died_in(
    consuming, emulator, store, run, way, monkeypatch, counted
):
    _, started = person_starts(emulator), person_starts(emulator)
    context = {"task_state_store": store}
    with monkeypatch.context() as patch:
        kill(patch, after=True)
        with pytest.raises(Killed):
            run(cleared(context, 0), **way)

    result = run(cleared(context, 1), **way)

    assert (len(result[0]["possibly_lost"]), counted) == (1, ["101"])
    assert result == rows_of(started, possibly_lost=result[0]["possibly_lost"])
    assert delivered(emulator) == 2  # the other is the one that was lost


def test_possible_loss_is_not_reported_again_after_a_clear(consuming, emulator, store, run):
    fault(emulator, reset="after")
    context = {"task_state_store": store}
    person_starts(emulator)
    first = run(cleared(context, 0), lambda: person_starts(emulator))
    assert first[0]["possibly_lost"]
    person_starts(emulator)

    assert sensor().execute(cleared(context, 1))[0]["possibly_lost"] == []


@pytest.mark.sample(3)
@pytest.mark.parametrize(("reading", "retries", "warned"), [(0, 0, 1), (0, 2, 0), (1, 0, 0)])
def test_a_consuming_sensor_without_retries_warns_once(
    connect, emulator, store, run, way, reading, retries, warned, capsys
):
    connect(MODES[reading])

    run({"task_state_store": store}, lambda: person_starts(emulator), retries=retries, **way)

    assert capsys.readouterr().out.count("retries=0") == warned


@pytest.mark.sample(3)
def test_three_consecutive_server_errors_name_a_wrong_step(connect, emulator, store, run, mode, way, capsys):
    connect(mode)
    emulator.control("PATCH", "flags", ws_unknown_step="500")

    with pytest.raises(AirflowSensorTimeout) as timeout:
        run({"task_state_store": store}, step_id=999, timeout=1.5, **way)

    if way:  # a sensor that pokes without sleeping may be ended by Airflow's own check a moment sooner
        assert re.search("consecutive polls.*999", str(timeout.value))
    consecutive = [
        "consecutive polls" in line for line in capsys.readouterr().out.splitlines() if "Polling failed" in line
    ]
    if way.get("deferrable") and mode == "listed_until_completed":
        assert consecutive == [False]  # the others are the triggerer's
    else:
        assert consecutive[:3] == [False, False, True]


@pytest.mark.parametrize("response", ["404", "nothing"])
def test_other_responses_to_a_wrong_step_are_an_error_or_none(consuming, emulator, store, response):
    emulator.control("PATCH", "flags", ws_unknown_step=response)

    with pytest.raises(NotFound if response == "404" else AirflowSensorTimeout):
        sensor(step_id=999, timeout=0).execute({"task_state_store": store})


def test_response_resets_the_count_of_server_errors(consuming, emulator, store, run, way):
    for skip in (0, 1):
        fault(emulator, status=500, times=2, skip=2 * skip + skip)

    with pytest.raises(AirflowSensorTimeout) as timeout:
        run({"task_state_store": store}, timeout=1.0, **way)
    assert "consecutive" not in str(timeout.value)


def test_received_instance_is_delivered_after_a_connection_change(connect, emulator, store, monkeypatch):
    connect("consumed_on_read")
    started = person_starts(emulator)
    sensor().execute({"task_state_store": store})
    connect("listed_until_completed")

    assert sensor().execute({"task_state_store": store}) == [result_of(started)]


def test_death_before_the_intent_leaves_nothing_to_report(consuming, emulator, store, monkeypatch, counted):
    started = person_starts(emulator)
    with monkeypatch.context() as patch:
        patch.setattr(WorkflowsoftHook, "get_api_token", lambda hook: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            sensor().execute({"task_state_store": store})

    assert sensor().execute({"task_state_store": store}) == [result_of(started)]
    assert counted == []


@pytest.mark.parametrize("after", [False, True])
def test_retry_reports_a_poll_in_which_the_worker_died(
    consuming, emulator, store, run, way, monkeypatch, counted, capsys, after
):
    started = [person_starts(emulator), person_starts(emulator)]
    with monkeypatch.context() as patch:
        kill(patch, after=after)
        with pytest.raises(Killed):
            run({"task_state_store": store}, **way)
    since = store["new_integrations"]["polling_since"]

    result = run({"task_state_store": store}, **way)

    (lost,) = result[0]["possibly_lost"]
    assert result == [result_of(started[after], possibly_lost=[lost])]
    assert lost["since"] == since <= lost["until"]
    assert counted == ["101"]
    output = capsys.readouterr().out
    assert output.count("Suspected loss") == 1
    assert "Compare with the processes" in output
    # A further try says no more about it.
    assert run({"task_state_store": store}, **way) == result
    assert counted == ["101"]


@pytest.mark.sample(3)
@pytest.mark.parametrize("after", [False, True])
def test_death_in_a_drain_delivers_received_and_reports_the_rest(
    consuming, emulator, store, run, way, monkeypatch, counted, after
):
    started = [person_starts(emulator) for _ in range(3)]
    with monkeypatch.context() as patch:
        kill(patch, after=after, skip=1)
        with pytest.raises(Killed):
            run({"task_state_store": store}, max_instances=5, **way)

    rows = run({"task_state_store": store}, max_instances=5, **way)

    (lost,) = rows[0]["possibly_lost"]
    assert rows == rows_of(started[0], possibly_lost=[lost])
    assert counted == ["101"]
    rest = sensor(max_instances=5).execute({"task_state_store": type(store)()})
    assert rest == rows_of(*started[1 + after :])


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("kind", "kills_after"),
    [
        ({"reset": "after"}, True),
        ({"reset": "before"}, False),
        ({"status": 500, "after": True}, True),
        ({"status": 503}, False),
        ({"truncate": 5}, True),
    ],
)
def test_lost_response_is_reported_and_the_wait_continues(
    consuming, emulator, store, run, way, counted, capsys, kind, kills_after
):
    fault(emulator, **kind)
    started = [person_starts(emulator), person_starts(emulator)]

    result = run({"task_state_store": store}, **way)

    lost_instance = delivered(emulator) == 2
    assert lost_instance is kills_after
    (lost,) = result[0]["possibly_lost"]
    assert result == [result_of(started[lost_instance], possibly_lost=[lost])]
    assert lost["since"] <= lost["until"]
    assert counted == ["101"]
    assert "Compare with the processes" in capsys.readouterr().out


@pytest.mark.parametrize("has_store", [False, True])
def test_outage_is_one_period_and_each_of_its_polls_is_counted(consuming, emulator, store, run, counted, has_store):
    fault(emulator, status=503, times=5)
    context = {"task_state_store": store} if has_store else {}

    result = run(context, lambda: person_starts(emulator), deferrable=True)

    (lost,) = result[0]["possibly_lost"]
    assert datetime.fromisoformat(lost["since"]) < datetime.fromisoformat(lost["until"])
    assert counted == ["101"] * 5


def test_outages_with_a_response_in_between_are_two_periods(consuming, emulator, store, run, counted):
    fault(emulator, status=503, times=2)
    fault(emulator, status=503, skip=1)

    result = run({"task_state_store": store}, lambda: person_starts(emulator), at=4, deferrable=True)

    first, second = result[0]["possibly_lost"]
    assert first["until"] <= second["since"]
    assert counted == ["101"] * 3


@pytest.mark.sample(3)
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("body", ["<html>", '{"IntegrationInsta', '{"Id": 2}', "[7]"])
def test_unreadable_responses_fail_and_are_a_possible_loss(consuming, emulator, store, run, way, counted, body):
    fault(emulator, status=200, body=body, after=True, times=3)
    person_starts(emulator)

    with pytest.raises(UnexpectedResponse):
        run({"task_state_store": store}, **way)
    assert len(store["new_integrations"]["possibly_lost"]) == 1
    started = person_starts(emulator)
    result = run({"task_state_store": store}, **way)

    assert result == [result_of(started, possibly_lost=result[0]["possibly_lost"])]
    assert (len(result[0]["possibly_lost"]), counted) == (1, ["101"] * 3)


MALFORMED = [{"IntegrationInstanceId": 5, "ProcessInstanceId": 2}, {"Foo": 1}, {"IntegrationInstanceId": 6}]


def test_readable_part_of_a_malformed_response_is_delivered(consuming, emulator, store, run, way, counted, capsys):
    fault(emulator, status=200, json=MALFORMED, after=True)

    result = run({"task_state_store": store}, **way)

    (lost,) = store["new_integrations"]["possibly_lost"]
    further = {"integration_instance_id": "6", "process_instance_id": None}
    ids = {"integration_instance_id": 5, "process_instance_id": 2}
    assert result == [result_of(ids, possibly_lost=[lost]), result_of(ids) | further]
    assert store["new_integrations"]["received"] == [["5", "2"], ["6", None]]
    assert counted == ["101"]
    output = capsys.readouterr().out
    assert "integration instance 5 (process 2), 6 (process None)" in output
    assert "is an object with Foo (int)" in output
    assert run({"task_state_store": store}, **way) == result


def test_malformed_response_ends_a_drain_and_delivers_the_readable(consuming, emulator, store, run, way, counted):
    started = [person_starts(emulator), person_starts(emulator)][:1]
    fault(emulator, status=200, json=MALFORMED, skip=1)

    rows = run({"task_state_store": store}, max_instances=5, **way)

    ids = [started[0]["integration_instance_id"], "5", "6"]
    assert [row["integration_instance_id"] for row in rows] == ids
    assert (len(rows[0]["possibly_lost"]), counted, polls(emulator)) == (1, ["101"], 2)


def test_readable_row_beside_a_malformed_one_is_delivered(connect, emulator, run, way, capsys):
    connect("listed_until_completed")
    fault(emulator, status=200, json=MALFORMED, times=9)

    (row,) = run({}, **way)
    assert row["integration_instance_id"] == str(MALFORMED[0]["IntegrationInstanceId"])
    assert "malformed in part" in capsys.readouterr().out


@pytest.mark.usefixtures("impatient")
def test_a_malformed_response_is_an_error_where_reading_is_safe(connect, emulator, store, run, way):
    connect("listed_until_completed")
    fault(emulator, status=200, json=[{"Foo": 1}], times=9)

    with pytest.raises(WorkflowsError, match="an object with Foo"):
        run({"task_state_store": store}, **way)


@pytest.mark.parametrize("nothing", [{"IntegrationInstanceId": 0, "ProcessInstanceId": 0}])
def test_object_without_an_id_means_nothing_new(connect, emulator, store, run, mode, way, nothing, counted):
    connect(mode)
    fault(emulator, status=200, json=nothing, times=2)
    started = person_starts(emulator)

    assert run({"task_state_store": store}, **way) == [result_of(started)]
    assert counted == []


def test_a_poll_that_execution_timeout_ends_is_a_possible_loss(
    consuming, emulator, store, run, way, counted, monkeypatch, capsys
):
    def takes_too_long(*_, **__):
        raise AirflowTaskTimeout("Timeout")

    with monkeypatch.context() as patch:
        patch.setattr(WorkflowsoftHook, "poll_new_integrations", takes_too_long)
        with pytest.raises(AirflowTaskTimeout):
            run({"task_state_store": store}, **way)
    assert counted == ["101"]
    assert "execution_timeout" in capsys.readouterr().out
    started = person_starts(emulator)

    result = run({"task_state_store": store}, **way)

    assert result == [result_of(started, possibly_lost=store["new_integrations"]["possibly_lost"])]
    assert (len(result[0]["possibly_lost"]), counted) == (1, ["101"])


def test_poll_ended_by_execution_timeout_skips_with_soft_fail(consuming, store, run, way, monkeypatch):
    def takes_too_long(*_, **__):
        raise AirflowTaskTimeout("Timeout")

    monkeypatch.setattr(WorkflowsoftHook, "poll_new_integrations", takes_too_long)
    with pytest.raises(AirflowSkipException):
        run({"task_state_store": store}, soft_fail=True, **way)


def test_timeout_reports_possible_losses(consuming, emulator, store, run, way):
    fault(emulator, status=503, times=100)
    with pytest.raises(AirflowSensorTimeout, match="Compare with the processes"):
        run({"task_state_store": store}, timeout=0.0, **way)


def test_skip_at_the_deadline_reports_possible_losses(consuming, emulator, store, run, way):
    fault(emulator, status=503, times=100)
    with pytest.raises(AirflowSkipException, match="Compare with the processes"):
        run({"task_state_store": store}, timeout=0.0, soft_fail=True, **way)


def test_timeout_after_responses_reports_no_loss(consuming, store, run, way):
    with pytest.raises(AirflowSensorTimeout, match=r"\(101\): no new integration instance\(s\)\.$"):
        run({"task_state_store": store}, timeout=0.0, **way)


def test_timeout_reports_a_loss_found_by_its_own_try(consuming, emulator, store, run, monkeypatch, way):
    with monkeypatch.context() as patch:
        kill(patch, after=True)
        with pytest.raises(Killed):
            run({"task_state_store": store}, **way)

    since = store["new_integrations"]["polling_since"]
    store.set("deadline", "2026-01-01T00:00:00+00:00")

    with pytest.raises(AirflowSensorTimeout, match=re.escape(since)):
        run({"task_state_store": store}, **way)


@pytest.mark.parametrize("status", [429, 503])
def test_stated_wait_is_honoured_where_reading_consumes(consuming, emulator, store, status):
    fault(emulator, status=status, headers={"Retry-After": "3000"})

    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, timeout=7200).execute({"task_state_store": store})
    until = datetime.fromisoformat(deferred.value.trigger.serialize()[1]["until"])
    assert until > datetime.now(timezone.utc) + timedelta(seconds=2900)


@pytest.mark.parametrize("status", [400, 403, 429])
def test_a_rejection_is_not_a_possible_loss(consuming, emulator, store, counted, status):
    fault(emulator, status=status, json={"Message": "no"}, headers={"Retry-After": "3600"})
    started = person_starts(emulator)

    with pytest.raises((InvalidRequest, PermissionDenied, TaskDeferred)):
        sensor(deferrable=True).execute({"task_state_store": store})

    assert sensor().execute({"task_state_store": store}) == [result_of(started)]
    assert counted == []


def test_unsent_call_is_not_a_possible_loss(store, set_connection, counted):
    extra = {"allow_consume": True, "verify": "/no/such/bundle.pem"}
    connection = {"conn_type": "workflowsoft", "host": "https://127.0.0.1:9", "password": "ready", "extra": extra}
    set_connection("workflowsoft_default", connection)

    with pytest.raises(ConfigurationError, match="verify"):
        sensor(step_id=101).execute({"task_state_store": store})
    assert (store["new_integrations"]["polling_since"], counted) == (None, [])


@pytest.mark.parametrize("where", [{}, {"step_id": 101}])
def test_a_failed_sign_in_is_retried_and_not_a_possible_loss(consuming, emulator, store, run, way, counted, where):
    emulator.control("POST", "faults", path="apitoken", status=500, times=2)
    started = person_starts(emulator)

    result = run({"task_state_store": store}, **where, **way)

    assert result[0]["integration_instance_id"] == started["integration_instance_id"]
    assert (result[0]["possibly_lost"], counted) == ([], [])


def test_failed_sign_in_after_a_revoked_token_loses_nothing(consuming, emulator, store, run, counted):
    def revoke() -> None:
        emulator.control("POST", "tokens/revoke")
        emulator.control("POST", "faults", path="apitoken", status=500)
        person_starts(emulator)

    result = run({"task_state_store": store}, revoke)

    assert (result[0]["possibly_lost"], counted) == ([], [])
    assert [r["status"] for r in emulator.requests() if "apitoken" in r["path"]] == [200, 500, 200]


def test_an_unreachable_server_is_not_a_possible_loss(
    consuming, emulator, store, run, way, counted, set_connection, monkeypatch
):
    monkeypatch.setattr("airflow_provider_workflows.hooks.base.RetryPolicy", partial(RetryPolicy, attempts=1))
    started = person_starts(emulator)
    good = WorkflowsoftHook.poll_new_integrations
    down = emulator.connection("workflowsoft") | {"host": "http://127.0.0.1:9", "login": "", "password": "ready"}
    set_connection("down", down)
    tried = []

    def unreachable(hook, *args, **kwargs):
        tried.append(hook)
        return good(WorkflowsoftHook("down") if len(tried) == 1 else hook, *args, **kwargs)

    monkeypatch.setattr(WorkflowsoftHook, "poll_new_integrations", unreachable)

    assert run({"task_state_store": store}, **way) == [result_of(started)]
    assert (len(tried), counted) == (2, [])


# --- no journal ---


def test_missing_journal_is_logged_once_per_try(connect, emulator, run, way, capsys):
    connect("consumed_on_read")
    assert run({}, lambda: person_starts(emulator), at=3, **way)
    assert capsys.readouterr().out.count("no task state store") == 1


def test_missing_journal_is_not_logged_if_none_is_needed(connect, emulator, store, run, way, capsys):
    connect("listed_until_completed")
    person_starts(emulator)
    run({}, **way)
    connect("consumed_on_read")
    person_starts(emulator)
    run({"task_state_store": store}, **way)

    assert "no task state store" not in capsys.readouterr().out


def test_only_a_task_without_a_store_carries_its_journal(consuming, store):
    carried = []
    for context in ({}, {"task_state_store": store}):
        with pytest.raises(TaskDeferred) as deferred:
            sensor(deferrable=True).execute(context)
        carried.append(deferred.value.trigger.event["journal"])

    assert carried[0]["polling_since"] is None
    assert carried[1] is None


# --- bad input ---


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"step": None, "diagram": "Event planning"}, "step, step_id"),
        ({"step": "Check event"}, "diagram, step_id"),
        ({"step": "Check event", "diagram": "Event planning", "step_id": "101"}, "step and step_id"),
        ({"step_id": "101", "diagram": "Event planning"}, "diagram and step_id"),
        ({"step_id": ""}, "step_id is missing"),
        ({"step": "Check event", "diagram": ""}, "diagram is missing"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(consuming, emulator, parameters, named):
    before = len(emulator.requests())

    with pytest.raises(ConfigurationError, match=named):
        sensor(**parameters).execute({})
    assert len(emulator.requests()) == before


def test_an_unknown_step_fails_at_once_in_every_mode(connect, emulator, mode):
    connect(mode)
    with pytest.raises(ConfigurationError, match="'Check event'"):
        sensor(step="Check", diagram="Event planning", deferrable=True).execute({})


@pytest.mark.sample(6)
@pytest.mark.parametrize("wrong", [0, -1, 501, "", "None", "x", 2.5, True])
def test_impossible_number_of_instances_is_named_before_sending(connect, emulator, run, mode, way, wrong):
    connect(mode)
    before = len(emulator.requests())

    with pytest.raises(ConfigurationError, match="max_instances"):
        run({}, max_instances=wrong, **way)
    assert len(emulator.requests()) == before


# --- how often it polls ---


@pytest.fixture
def far_away(set_connection, requests_mock, mode):
    """A server on another machine, with nothing new."""
    extra = {"allow_consume": True, "new_integrations": mode}
    connection = {"conn_type": "workflowsoft", "host": "ws.example", "password": "ready", "extra": extra}
    set_connection("workflowsoft_default", connection)
    requests_mock.get("https://ws.example/api/v2/workflows/instances/new-integrations", status_code=204)
    return requests_mock


def delay_of(waiting, store, monkeypatch) -> tuple[float, float]:
    """Return the seconds until a sensor polls again: at least (from after the call) and at most (from before it)."""

    def from_now(at: datetime) -> tuple[float, float]:
        return (at - datetime.now(timezone.utc)).total_seconds(), (at - before).total_seconds()

    class Slept(BaseException):
        pass

    def sleep(seconds: float) -> None:
        raise Slept(seconds)

    monkeypatch.setattr("airflow.sdk.bases.sensor.time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    ti = SimpleNamespace(get_first_reschedule_date=lambda context: None)
    before = datetime.now(timezone.utc)
    try:
        waiting.execute({"task_state_store": store, "ti": ti})
    except Slept as slept:
        return slept.args[0], slept.args[0]
    except AirflowRescheduleException as rescheduled:
        return from_now(rescheduled.reschedule_date)
    except TaskDeferred as deferred:
        if isinstance(deferred.trigger, WorkflowsoftIntegrationWaitTrigger):
            delay = deferred.trigger.scope().first_delay(deferred.trigger.poll_interval)
            return delay, delay
        return from_now(datetime.fromisoformat(deferred.trigger.until))
    raise AssertionError("it does not wait")


@pytest.mark.parametrize(
    ("requested", "least", "most"),
    [
        ({"poke_interval": None}, 15, 18),  # the tests' configuration says 1
        ({"poke_interval": timedelta(seconds=15)}, 15, 18),
        ({"poke_interval": 60}, 60, 72),
        ({"poke_interval": 15, "exponential_backoff": True, "max_wait": 1}, 15, 18),
    ],
)
def test_poll_is_never_sooner_than_the_interval_or_the_minimum(
    far_away, store, monkeypatch, way, requested, least, most
):
    waiting = sensor(step_id=101, timeout=3600, **requested, **way)

    at_least, at_most = delay_of(waiting, store, monkeypatch)

    assert least - 0.5 < at_most
    assert at_least <= most
    assert far_away.call_count == 1


def test_interval_below_the_minimum_is_rejected_before_sending(far_away, store, run, way):
    with pytest.raises(ConfigurationError, match="poke_interval must be at least 15 seconds.* got 14.9"):
        run({"task_state_store": store}, step_id=101, poke_interval=14.9, **way)
    assert (far_away.call_count, set(store) - {"deadline", "round"}) == (0, set())


def test_the_emulator_may_be_polled_at_any_interval(consuming, store, monkeypatch, way):
    assert delay_of(sensor(poke_interval=0.5, **way), store, monkeypatch)[0] <= 0.6


def test_reused_sensor_does_not_increase_its_interval(consuming, store, monkeypatch):
    waiting = sensor(deferrable=True, poke_interval=60, timeout=3600)
    assert max(delay_of(waiting, type(store)(), monkeypatch)[0] for _ in range(10)) <= 72
