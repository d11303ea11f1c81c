"""Taking integration instances over: each is handed on once, and what may be lost is said."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from functools import partial

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, AirflowSkipException
from airflow.sdk.exceptions import TaskDeferred

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    ContractError,
    InvalidRequest,
    NotFound,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor
from airflow_provider_workflows.triggers import base as triggers
from airflow_provider_workflows.triggers import workflowsoft as workflowsoft_triggers
from airflow_provider_workflows.triggers.workflowsoft import (
    WorkflowsoftIntegrationWaitTrigger,
    WorkflowsoftPauseTrigger,
)

POLL = "/new-integrations"
MODES = ("consumed_on_read", "kept_until_completed")


@pytest.fixture(params=MODES)
def mode(request) -> str:
    return request.param


@pytest.fixture
def connect(emulator, set_connection):
    """Return a function that sets a connection and the emulator to one way of reading."""

    def set_both(mode: str, **extra) -> None:
        connection = emulator.connection("workflowsoft")
        connection["extra"] |= {"new_integrations": mode, **extra}
        set_connection("workflowsoft_default", connection)
        emulator.control("PATCH", "switches", new_integrations=mode)

    return set_both


@pytest.fixture
def consuming(connect) -> None:
    connect("consumed_on_read")


@pytest.fixture
def no_waiting(monkeypatch) -> list[float]:
    """Make every pause pass at once; return what was slept."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(triggers, "SHORTEST_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(workflowsoft_triggers, "SHORTEST_FIRST_PAUSE", 0.01)
    return slept


def sensor(**parameters) -> WorkflowsoftIntegrationSensor:
    where = {} if {"step", "step_id"} & set(parameters) else {"step": "Check event", "diagram": "Event planning"}
    return WorkflowsoftIntegrationSensor(
        task_id="wait", **{"poke_interval": 0.01, "timeout": 20, "deferrable": False, **where, **parameters}
    )


def person_starts(emulator, diagram: str = "Event planning") -> dict[str, str]:
    return emulator.control("POST", "workflowsoft/processes", diagram=diagram)


def somebody_completes(instance_id: str) -> None:
    hook = WorkflowsoftHook()
    venue = next(field for field in hook.get_fields(instance_id) if field.label == "Venue")
    hook.update_fields(instance_id, {venue.key: "Main hall"})
    hook.complete(instance_id)


def answered(emulator) -> list[str]:
    """Return the paths of what was asked; not what only showed that a token was over."""
    return [r["path"] for r in emulator.requests() if r["status"] != 401 and "apitoken" not in r["path"]]


def polls(emulator) -> int:
    return sum(POLL in request["path"] for request in emulator.requests())


def delivered(emulator) -> int:
    """Return how many instances reading has taken out."""
    return sum(effect["action"] == "deliver" for effect in emulator.effects())


def fault(emulator, **kind) -> None:
    emulator.control("POST", "faults", method="GET", path=POLL, **kind)


def resume(build, deferred: TaskDeferred, context: dict):
    """Run the trigger as a triggerer does, from its serialised form, and resume on a fresh operator."""
    path, arguments = deferred.trigger.serialize()
    trigger = getattr(workflowsoft_triggers, path.rpartition(".")[2])(**arguments)

    async def first_event() -> dict:
        async for event in trigger.run():
            return event.payload
        raise AssertionError("the trigger ended without an event")

    return getattr(build(), deferred.method_name)(context, event=asyncio.run(first_event()))


def run_deferrable(build, context: dict, between=lambda: None):
    """Return the result of a sensor and how often it was deferred; `between` happens after the first deferral."""
    deferrals = 0
    step = lambda: build().execute(context)  # noqa: E731
    while True:
        try:
            return step(), deferrals
        except TaskDeferred as deferred:
            deferrals += 1
            if deferrals == 1:
                between()
            step = lambda deferred=deferred: resume(build, deferred, context)  # noqa: E731


def result_of(started: dict, **more) -> dict:
    return {
        "integration_instance_id": str(started["integration_instance_id"]),
        "process_instance_id": str(started["process_instance_id"]),
        "diagram_id": "1",
        "step_id": "101",
        "step": "Check event",
        "also_delivered": [],
        "suspected_lost": [],
        **more,
    }


# --- both ways of reading, every way of waiting ---


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_instance_that_waits_already_is_taken_over_without_waiting(connect, emulator, store, mode, deferrable):
    connect(mode)
    started = person_starts(emulator)

    assert sensor(deferrable=deferrable).execute({"task_state_store": store}) == result_of(started)


def test_poking_and_deferring_return_the_same(connect, emulator, mode, no_waiting, monkeypatch):
    connect(mode)
    started: list[dict] = []

    def somebody_starts(*args) -> None:
        started.append(person_starts(emulator))

    deferred, deferrals = run_deferrable(lambda: sensor(deferrable=True), {}, somebody_starts)
    assert (deferred, deferrals >= 1) == (result_of(started[0]), True)
    somebody_completes(deferred["integration_instance_id"])

    monkeypatch.setattr(time, "sleep", somebody_starts)
    assert sensor().execute({}) == result_of(started[1])


@pytest.mark.parametrize("nothing", ["204", "null", "empty_object", "empty_list", "not_found"])
@pytest.mark.parametrize("shape", ["object", "list"])
def test_every_form_of_nothing_is_waited_through_and_both_forms_of_something_are_read(
    connect, emulator, mode, store, no_waiting, nothing, shape
):
    connect(mode)
    emulator.control("PATCH", "switches", no_new_integration=nothing, new_integration_shape=shape)
    started: list[dict] = []

    result, _ = run_deferrable(
        lambda: sensor(deferrable=True),
        {"task_state_store": store},
        lambda: started.append(person_starts(emulator)),
    )

    assert result == result_of(started[0])


def test_where_reading_leaves_it_there_the_triggerer_polls(connect, emulator):
    connect("kept_until_completed")

    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute({})

    assert isinstance(deferred.value.trigger, WorkflowsoftIntegrationWaitTrigger)
    assert deferred.value.trigger.step_id == "101"


def test_where_reading_consumes_the_triggerer_only_sleeps(consuming, emulator, store, no_waiting):
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True).execute({"task_state_store": store})
    trigger = deferred.value.trigger
    before = len(emulator.requests())

    async def run() -> list[dict]:
        return [event.payload async for event in trigger.run()]

    assert isinstance(trigger, WorkflowsoftPauseTrigger)
    assert [event["status"] for event in asyncio.run(run())] == ["look"]
    assert len(emulator.requests()) == before


def test_a_resumed_sensor_looks_nothing_up_again(consuming, emulator, store, no_waiting):
    build = lambda: sensor(deferrable=True)  # noqa: E731

    run_deferrable(build, {"task_state_store": store}, lambda: person_starts(emulator))

    looked_up = [path for path in answered(emulator) if POLL not in path]
    assert looked_up == ["/api/v2/workflows", "/api/v2/workflows/1/tasks"]


def test_the_deadline_survives_the_pauses_without_a_store(consuming, no_waiting):
    build = lambda: sensor(deferrable=True, timeout=0.3, poke_interval=0.05)  # noqa: E731

    with pytest.raises(AirflowSensorTimeout):
        run_deferrable(build, {})


def test_a_pause_never_outlasts_the_deadline(consuming):
    with pytest.raises(TaskDeferred) as deferred:
        sensor(deferrable=True, timeout=30, poke_interval=3600).execute({})

    left = datetime.fromisoformat(deferred.value.trigger.until) - datetime.now(timezone.utc)
    assert left <= timedelta(seconds=30)


def test_a_timeout_skips_with_soft_fail(connect, mode):
    connect(mode)
    with pytest.raises(AirflowSkipException):
        sensor(timeout=0.0, soft_fail=True).execute({})


def test_another_event_than_ours_is_refused(consuming):
    with pytest.raises(WorkflowsError, match="does not know"):
        sensor().execute_complete({}, event=None)


def test_a_step_named_by_its_id_is_not_looked_up(connect, emulator, mode):
    connect(mode)
    started = person_starts(emulator)

    result = sensor(step_id=101).execute({})

    assert result == result_of(started, diagram_id=None, step=None)
    assert answered(emulator) == ["/api/v2/workflows/instances/new-integrations"]


def test_a_step_id_that_nobody_saw_and_the_server_does_not_know_is_an_error(consuming, emulator, store):
    with pytest.raises(NotFound):
        sensor(step_id="999").execute({"task_state_store": store})


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


def test_two_tasks_never_get_the_same_consumed_instance(consuming, emulator, store):
    first, second = person_starts(emulator), person_starts(emulator)

    got = [sensor().execute({"task_state_store": type(store)()}) for _ in range(2)]

    assert got == [result_of(first), result_of(second)]


def test_instances_that_came_with_the_first_are_handed_on_and_not_dropped(consuming, emulator, store):
    emulator.control("PATCH", "switches", new_integration_shape="list")
    first, second = person_starts(emulator), person_starts(emulator)

    result = sensor().execute({"task_state_store": store})

    further = {name: str(second[name]) for name in ("integration_instance_id", "process_instance_id")}
    assert result == result_of(first, also_delivered=[further])


def test_where_reading_leaves_them_there_the_others_are_left_to_the_next_sensor(connect, emulator):
    connect("kept_until_completed")
    emulator.control("PATCH", "switches", new_integration_shape="list")
    first, _ = person_starts(emulator), person_starts(emulator)

    assert sensor().execute({}) == result_of(first)


# --- the journal ---


def test_an_intent_is_written_before_each_poll_and_a_receipt_right_after(consuming, emulator, store, monkeypatch):
    started = person_starts(emulator)
    seen = {}
    poll = WorkflowsoftHook.poll_new_integrations

    def watched(hook, *args, **kwargs):
        seen.update(store["new_integrations"])
        return poll(hook, *args, **kwargs)

    monkeypatch.setattr(WorkflowsoftHook, "poll_new_integrations", watched)
    sensor().execute({"task_state_store": store})

    assert datetime.fromisoformat(seen["polling_since"]).utcoffset() == timedelta(0)
    assert "received" not in seen
    assert store["new_integrations"]["polling_since"] is None
    assert store["new_integrations"]["received"] == result_of(started)


def test_a_worker_that_died_after_the_receipt_hands_the_same_instance_to_the_retry(consuming, emulator, store):
    started = person_starts(emulator)
    first = sensor().execute({"task_state_store": store})
    polled = polls(emulator)
    another = person_starts(emulator)

    retry = sensor(deferrable=True).execute({"task_state_store": store})

    assert retry == first == result_of(started)
    assert polls(emulator) == polled
    assert sensor().execute({}) == result_of(another)


def test_a_worker_that_died_inside_the_poll_makes_the_retry_report_it(consuming, emulator, store, monkeypatch, capsys):
    person_starts(emulator)
    poll = WorkflowsoftHook.poll_new_integrations

    def killed(hook, *args, **kwargs):
        poll(hook, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkflowsoftHook, "poll_new_integrations", killed)
        with pytest.raises(KeyboardInterrupt):
            sensor().execute({"task_state_store": store})
    since = store["new_integrations"]["polling_since"]
    second = person_starts(emulator)

    result = sensor().execute({"task_state_store": store})

    assert [entry["since"] for entry in result["suspected_lost"]] == [since]
    assert result == result_of(second, suspected_lost=result["suspected_lost"])
    assert "never got its answer" in capsys.readouterr().out


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
def test_a_lost_answer_is_reported_and_the_wait_goes_on(consuming, emulator, store, no_waiting, kind, kills_after):
    fault(emulator, **kind)
    started = [person_starts(emulator), person_starts(emulator)]

    result = sensor().execute({"task_state_store": store})

    lost_one = delivered(emulator) == 2
    assert result == result_of(started[lost_one], suspected_lost=result["suspected_lost"])
    assert len(result["suspected_lost"]) == 1
    assert lost_one is kills_after


def test_a_row_of_lost_answers_is_one_stretch_and_reported_even_without_a_store(consuming, emulator, no_waiting):
    fault(emulator, status=503, times=3)
    person_starts(emulator)

    result, _ = run_deferrable(lambda: sensor(deferrable=True), {})

    (lost,) = result["suspected_lost"]
    assert datetime.fromisoformat(lost["since"]) < datetime.fromisoformat(lost["until"])


def test_an_answer_that_cannot_be_read_fails_and_counts_as_a_suspected_loss(consuming, emulator, store):
    fault(emulator, status=200, body="<html>", after=True)
    person_starts(emulator)

    with pytest.raises(ContractError):
        sensor().execute({"task_state_store": store})
    started = person_starts(emulator)
    result = sensor().execute({"task_state_store": store})

    assert result["integration_instance_id"] == str(started["integration_instance_id"])
    assert len(result["suspected_lost"]) == 1


def test_a_refusal_is_no_suspected_loss(consuming, emulator, store):
    fault(emulator, status=400, json={"Message": "no"})
    started = person_starts(emulator)

    with pytest.raises(InvalidRequest):
        sensor().execute({"task_state_store": store})

    assert sensor().execute({"task_state_store": store}) == result_of(started)


def test_an_unreachable_server_is_waited_for_and_no_suspected_loss(
    consuming, emulator, store, no_waiting, set_connection, monkeypatch
):
    monkeypatch.setattr("airflow_provider_workflows.hooks.base.RetryPolicy", partial(RetryPolicy, attempts=1))
    started = person_starts(emulator)
    down = emulator.connection("workflowsoft") | {"host": "http://127.0.0.1:9", "login": "", "password": "ready"}
    down["extra"] |= {"new_integrations": "consumed_on_read"}
    set_connection("workflowsoft_default", down)
    build = lambda: sensor(deferrable=True)  # noqa: E731

    def back_again() -> None:
        back = emulator.connection("workflowsoft")
        back["extra"] |= {"new_integrations": "consumed_on_read"}
        set_connection("workflowsoft_default", back)

    result, deferrals = run_deferrable(build, {"task_state_store": store}, back_again)

    assert (result, deferrals) == (result_of(started), 1)


def test_the_missing_journal_is_said_once_and_only_where_it_matters(connect, emulator, no_waiting, capsys):
    connect("consumed_on_read")
    run_deferrable(lambda: sensor(deferrable=True), {}, lambda: person_starts(emulator))
    assert capsys.readouterr().out.count("no task state store") == 1

    connect("kept_until_completed")
    person_starts(emulator)
    sensor().execute({})
    assert "no task state store" not in capsys.readouterr().out


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
