"""An overdue step is notified once for each occurrence, and the wait continues."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowSensorTimeout, TaskDeferred
from airflow.sdk import DAG, BaseNotifier

from airflow_provider_workflows.exceptions import ConfigurationError, ConnectionFailed
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.rules import overdue as pending_steps
from airflow_provider_workflows.rules import procore, procore_legacy
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from tests.support.killed import Killed
from tests.unit.sensors.test_procore import INSTANCE, approve, deferred, first_event, first_payload, respond, soon

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

FOUR_DAYS = 4 * 24 * 3600  # the emulator's steps are due after three
LEGACY_INSTANCE = "568150"


@pytest.fixture
def notified() -> list[dict]:
    """The notifications, in order."""
    return []


@pytest.fixture
def build(notified):
    """Return a function that makes a sensor that notifies; each one is a new try, or a new poke of one."""

    def make(cls=ProcoreInstanceSensor, **parameters):
        usual = {"instance_id": INSTANCE, "timeout": 30, "poke_interval": 0.05}
        notifier = {"on_overdue": lambda context: notified.append(context["overdue_step"])}
        return cls(task_id="wait", **{**usual, **notifier, **parameters})

    return make


@pytest.fixture
def build_legacy(build):
    def make(**parameters):
        usual = {"cls": ProcoreLegacyInstanceSensor, "instance_id": LEGACY_INSTANCE, "until": {"PO Approved"}}
        return build(**{**usual, **parameters})

    return make


@pytest.fixture
def logged(monkeypatch, caplog):
    """Return a function that returns what the sensors have logged since the last call."""
    log = logging.getLogger("logged")
    caplog.set_level("INFO", logger="logged")
    for cls in (ProcoreInstanceSensor, ProcoreLegacyInstanceSensor):
        monkeypatch.setattr(cls, "log", log)

    def new() -> list[str]:
        messages = [record.getMessage() for record in caplog.records if record.name == "logged"]
        caplog.clear()
        return messages

    return new


def later(emulator, seconds: float = FOUR_DAYS) -> None:
    emulator.control("POST", "clock", advance=seconds)


@pytest.fixture
def days_pass(emulator, monkeypatch):
    """Return a function that moves everybody's clock on."""
    passed = timedelta()

    def move(days: float) -> None:
        nonlocal passed
        passed += timedelta(days=days)
        later(emulator, timedelta(days=days).total_seconds())
        fake_time = SimpleNamespace(time=lambda: time.time() + passed.total_seconds(), monotonic=time.monotonic)
        monkeypatch.setattr("airflow_provider_workflows.triggers.base.time", fake_time)

    return move


# --- once for each occurrence of a step ---


def test_poking_wait_notifies_once_for_each_overdue_step(emulator, store, build, notified):
    sensor, context = build(), {"task_state_store": store}
    sensor.poke(context)
    assert notified == []

    later(emulator)
    assert [sensor.poke(context) for _ in range(3)] == [False] * 3
    respond(emulator, "Approve")
    sensor.poke(context)
    later(emulator)
    sensor.poke(context)

    assert [overdue_step["step"] for overdue_step in notified] == ["Budget Check", "Director Approval"]
    respond(emulator, "Approve", "dana@example.com")
    assert sensor.poke(context).xcom_value["state"] == "complete"


def test_rescheduled_wait_notifies_once_over_all_pokes_and_tries(emulator, store, build, notified):
    later(emulator)

    ti = SimpleNamespace(get_first_reschedule_date=lambda context: None, max_tries=None, try_number=1)
    for _ in range(3):
        with pytest.raises(AirflowRescheduleException):
            build(mode="reschedule").execute({"task_state_store": store, "ti": ti})

    assert len(notified) == 1


def test_overdue_step_resumes_a_worker_that_defers_again(emulator, store, build, notified):
    context = {"task_state_store": store}
    trigger = deferred(build(), context).trigger
    later(emulator)

    event = first_event(trigger)
    assert notified == []
    again = resumed(build(), context, event)

    assert event["status"] == "overdue"
    assert (event["step"], event["reason"]) == ("Budget Check", "overdue")
    assert "integration@example.com" not in repr(event)
    assert [overdue_step["step_occurrence_id"] for overdue_step in notified] == [event["step_occurrence_id"]]
    assert again.deadline == trigger.deadline
    again.deadline = soon()
    assert first_event(again)["status"] == "timeout"
    approve(emulator)
    again.deadline = trigger.deadline
    assert build().execute_complete(context, first_event(again))["state"] == "complete"
    assert len(notified) == 1


def resumed(sensor, context, event):
    """Return the trigger that a task defers to when it resumes."""
    sensor.deferrable = True
    with pytest.raises(TaskDeferred) as deferral:
        sensor.execute_complete(context, event)
    return deferral.value.trigger


def test_trigger_has_known_steps_and_deadline_without_a_store(emulator, build, notified):
    trigger = deferred(build(), {}).trigger
    later(emulator)

    again = resumed(build(), {}, first_event(trigger))
    later(emulator)
    respond(emulator, "Approve")
    later(emulator)
    once_more = resumed(build(), {}, first_event(again))

    assert [overdue_step["step"] for overdue_step in notified] == ["Budget Check", "Director Approval"]
    assert once_more.deadline == trigger.deadline
    assert list(once_more.escalation.reached) == [overdue_step["step_occurrence_id"] for overdue_step in notified]


def test_retry_does_not_notify_again_but_a_cleared_task_does(emulator, store, build, notified):
    class Try:
        max_tries = 1

    later(emulator)
    context = {"task_state_store": store, "ti": Try()}
    deferred(build(), context)
    deferred(build(), context)
    assert len(notified) == 1

    Try.max_tries = 2
    deferred(build(), context)

    assert len(notified) == 2


def test_a_worker_that_dies_before_it_is_stored_notifies_again(emulator, store, build, notified):
    later(emulator)

    def die(context):
        notified.append(context["overdue_step"])
        raise Killed

    with pytest.raises(Killed):
        build(on_overdue=die).poke({"task_state_store": store})
    build().poke({"task_state_store": store})

    assert len(notified) == 2


# --- what is too long ---


def test_overdue_after_counts_from_the_start_of_the_step(build, build_legacy, notified, days_pass):
    days_pass(10)

    for make in (build, build_legacy):
        make(overdue_after=timedelta(days=11)).poke({})
        make(overdue_after=10 * 24 * 3600 - 60).poke({})

    assert [overdue_step["step"] for overdue_step in notified] == ["Budget Check", "Start"]
    assert notified[0]["reason"] == "pending for more than 9 days, 23:59:00"


def test_legacy_state_is_overdue_by_its_own_date_by_default(build_legacy, notified, days_pass):
    sensor = build_legacy()
    sensor.poke({})
    days_pass(4.9)
    sensor.poke({})
    assert notified == []

    days_pass(0.2)
    sensor.poke({})

    assert [(overdue_step["step"], overdue_step["reason"]) for overdue_step in notified] == [("Start", "overdue")]


@pytest.mark.parametrize(
    ("due", "hour", "is_too_long"),
    [
        ("2026-01-05T08:00:00Z", "2026-01-05T07:59:59Z", False),
        ("2026-01-05T08:00:00Z", "2026-01-05T08:00:00Z", True),
        ("2026-01-05", "2026-01-05T23:59:59Z", False),  # a day lasts until its end
        ("2026-01-05", "2026-01-06T00:00:00Z", True),
        (None, "2036-01-01T00:00:00Z", False),
        ("soon", "2036-01-01T00:00:00Z", False),
    ],
)
def test_a_step_is_overdue_from_its_due_date_on(due, hour, is_too_long):
    at = pending_steps.due_at(pending_steps.PendingStep("1", "Budget Check", "2026-01-02T08:00:00Z", due, ()))

    assert is_too_long is (at is not None and at <= datetime.fromisoformat(hour[:-1] + "+00:00").timestamp())


# --- by whose clock ---

# What makes a step overdue: Procore's status, its due date alone, a limit of the DAG's author; in Legacy likewise.
REASONS = [
    (ProcoreInstanceSensor, {}, "full"),
    (ProcoreInstanceSensor, {}, "events_only"),
    (ProcoreInstanceSensor, {}, "no_status"),
    (ProcoreInstanceSensor, {"overdue_after": timedelta(days=4)}, "full"),
    (ProcoreLegacyInstanceSensor, {}, "full"),
    (ProcoreLegacyInstanceSensor, {"overdue_after": timedelta(days=4)}, "full"),
]


def sensor_of(build, cls, parameters, **more):
    legacy = {"instance_id": LEGACY_INSTANCE, "until": {"PO Approved"}}
    return build(cls=cls, **(legacy if cls is ProcoreLegacyInstanceSensor else {}), **parameters, **more)


@pytest.mark.parametrize(("cls", "parameters", "history"), REASONS)
def test_moving_the_emulators_clock_makes_any_step_overdue(emulator, build, notified, cls, parameters, history):
    emulator.control("PATCH", "flags", history=history)
    sensor = sensor_of(build, cls, parameters)
    sensor.poke({})
    assert notified == []

    later(emulator, 6 * 24 * 3600)
    sensor.poke({})
    sensor.poke({})

    assert len(notified) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("bulk_history", ["present", "absent"])
@pytest.mark.parametrize(("cls", "parameters", "history"), REASONS)
def test_moving_the_emulators_clock_resumes_a_deferred_wait(emulator, build, cls, parameters, history, bulk_history):
    emulator.control("PATCH", "flags", history=history, bulk_history=bulk_history)
    trigger = deferred(sensor_of(build, cls, parameters), {}).trigger
    before = len(emulator.requests())

    async def scenario():
        task = asyncio.create_task(first_payload(trigger))
        while len(emulator.requests()) < before + 6:  # so that polls find nothing that has changed
            await asyncio.sleep(0.02)
        later(emulator, 6 * 24 * 3600)
        return await task

    assert asyncio.run(scenario())["status"] == "overdue"


# --- what is notified ---


def test_notifier_gets_the_step_its_assignees_and_a_link(
    emulator, set_connection, build, build_legacy, notified, days_pass
):
    connection = emulator.connection("procore")
    connection["extra"]["item_url"] = "https://app.example.com/{project_id}/{tool_type}/{item_id}"
    set_connection("procore_default", connection)
    days_pass(10)

    build().poke({})
    build_legacy().poke({})

    assert [sorted(overdue_step) for overdue_step in notified] == [sorted(notified[0])] * 2
    v2, legacy = notified
    assert (v2["instance_id"], v2["item_id"], v2["assignees"]) == (INSTANCE, "5001", ["integration@example.com"])
    assert v2["item_url"] == "https://app.example.com/1001/purchase_order_contract/5001"
    assert parsed(v2["due"]) - parsed(v2["since"]) == timedelta(days=3)
    assert (legacy["item_id"], legacy["assignees"]) == ("1953145", ["Airflow Integration"])
    assert legacy["item_url"] == "https://app.example.com/1001/Contract/1953145"


def parsed(time: str) -> datetime:
    return datetime.fromisoformat(time.replace("Z", "+00:00"))


class Titled(BaseNotifier):
    """A notifier with a template."""

    template_fields = ("title",)
    titles: list[str] = []

    def __init__(self, title: str):
        super().__init__()
        self.title = title

    def notify(self, context):
        self.titles.append(self.title)


def test_a_notifiers_templates_are_rendered_again_for_each_step(emulator, store, build):
    Titled.titles.clear()
    with DAG("orders", schedule=None):
        sensor = build(on_overdue=[Titled("{{ overdue_step.step }}: {{ overdue_step.assignees | join(', ') }}")])
    context = {"task_state_store": store, "dag": sensor.dag}

    later(emulator)
    sensor.poke(context)
    respond(emulator, "Approve")
    later(emulator)
    sensor.poke(context)

    assert Titled.titles == ["Budget Check: integration@example.com", "Director Approval: dana@example.com"]
    assert set(context) == {"task_state_store", "dag"}


def test_failing_notifier_stops_no_other_and_not_the_wait(emulator, store, build, notified, logged):
    def no_mail(context):
        raise OSError("no mail today")

    later(emulator)
    sensor = build(on_overdue=[no_mail, lambda context: notified.append(context["overdue_step"])])

    assert [sensor.poke({"task_state_store": store}) for _ in range(2)] == [False] * 2

    assert len(notified) == 1
    assert logged().count("Calling on_overdue no_mail failed, the wait continues. OSError: no mail today") == 1


def test_step_responded_to_before_the_first_poll_is_not_overdue(emulator, store, build, notified):
    context = {"task_state_store": store}
    trigger = deferred(build(), context).trigger
    later(emulator)
    event = first_event(trigger)

    respond(emulator, "Approve")
    again = resumed(build(), context, event)

    assert notified == []
    assert again.overdue_watch["next"]["step"] == "Director Approval"


def test_overdue_step_is_notified_even_if_the_worker_cannot_poll(emulator, store, build, notified, monkeypatch):
    context = {"task_state_store": store}
    trigger = deferred(build(), context).trigger
    later(emulator)
    event = first_event(trigger)

    def away(*args, **kwargs):
        raise ConnectionFailed("No response.")

    monkeypatch.setattr(ProcoreHook, "get_instance_history", away)
    resumed(build(), context, event)

    assert [(overdue_step["step"], overdue_step["assignees"]) for overdue_step in notified] == [("Budget Check", [])]


def test_deadline_ends_a_wait_after_a_notification(emulator, store, build, notified):
    context = {"task_state_store": store}
    event = {**first_event_of_overdue(emulator, build, context), "deadline": "2026-01-01T00:00:00+00:00"}

    with pytest.raises(AirflowSensorTimeout, match="Budget Check"):
        build().execute_complete(context, event)

    assert notified == []


def first_event_of_overdue(emulator, build, context) -> dict:
    trigger = deferred(build(), context).trigger
    later(emulator)
    return first_event(trigger)


# --- what the log says ---


def test_wait_log_shows_position_assignees_and_next_poll(emulator, store, logged):
    context = {"task_state_store": store}
    usual = {"task_id": "wait", "poke_interval": 60, "timeout": 3600}
    poking = ProcoreInstanceSensor(instance_id=INSTANCE, **usual)
    deferring = ProcoreLegacyInstanceSensor(instance_id=LEGACY_INSTANCE, until={"PO Approved"}, **usual)

    poking.poke(context)
    by_poke = timeless(logged())
    deferred(deferring, context)
    by_deferral = timeless(logged())[-2:]  # after a warning of Airflow's

    assert by_poke == [
        "Instance 700001 of item 5001 (purchase_order_contract) is in_progress at step 'Budget Check' since TIME, "
        "pending with integration@example.com, due TIME; waiting for: complete, terminated.",
        "Waiting since TIME, until TIME at most; will poll again in about 60 s.",
    ]
    assert by_deferral == [
        "Instance 568150 of Contract 1953145 is in state 'Start' since TIME, pending with Airflow Integration, due "
        "TIME; waiting for: PO Approved.",
        "Waiting since TIME, until TIME at most; the triggerer polls every 60 s.",
    ]


def timeless(lines: list[str]) -> list[str]:
    return [re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", line) for line in lines]


def test_wait_log_shows_since_when_a_step_is_overdue(emulator, store, build, logged):
    later(emulator)

    build().poke({"task_state_store": store})

    poke, call, _ = timeless(logged())
    assert "pending with integration@example.com, overdue since TIME; waiting for" in poke
    assert call == "Step 'Budget Check' is overdue: calling on_overdue."


def test_waiting_task_has_its_link(emulator, store, set_connection):
    connection = emulator.connection("procore")
    connection["extra"]["item_url"] = "https://app.example.com/{tool_type}/{item_id}"
    set_connection("procore_default", connection)
    sensor = ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE)

    deferred(sensor, {"task_state_store": store})

    assert sensor.item_url == "https://app.example.com/purchase_order_contract/5001"


# --- mistakes ---


async def a_coroutine_function(context): ...


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"on_overdue": None, "overdue_after": 5}, "overdue_after needs on_overdue"),
        ({"on_overdue": "mail"}, "on_overdue must be a notifier"),
        (
            {"overdue_after": -1},
            "a timedelta, or seconds, of at least 0 and at most 100 years; got -1",
        ),
        ({"overdue_after": float("nan")}, "got nan"),
        ({"overdue_after": float("inf")}, "got inf"),
        ({"on_overdue": a_coroutine_function}, "is a coroutine function"),
        ({"overdue_after": "3 days"}, "got '3 days'"),
    ],
)
def test_a_wrong_parameter_is_named(store, build, parameters, message):
    with pytest.raises(ConfigurationError, match=message):
        build(**parameters).execute({"task_state_store": store})


def test_rescheduled_wait_that_cannot_persist_does_not_start(build):
    with pytest.raises(ConfigurationError, match=r"needs Airflow 3\.3 or newer"):
        build(mode="reschedule").execute({})


def test_a_wait_without_a_notifier_stores_nothing_about_it(store):
    sensor = ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE)

    _, arguments = deferred(sensor, {"task_state_store": store}).trigger.serialize()

    assert "overdue_watch" not in arguments
    assert set(store) == {"deadline", "open_wait"}


# --- in a DAG ---

DAGS = """
from airflow.sdk import dag
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor

@dag(schedule=None)
def tells_of_overdue_steps():
    ProcoreInstanceSensor.partial(
        task_id="outcome",
        deferrable=True,
        timeout=2,
        soft_fail=True,
        on_overdue=WorkflowsoftTaskNotifier(
            title="{{ overdue_step.step }} of order {{ overdue_step.item_id }}: {{ overdue_step.assignees[0] }}",
            on_behalf_of="olga@example.com",
        ),
    ).expand(instance_id=["700001"])

run = tells_of_overdue_steps()
"""


@pytest.mark.usefixtures("airflow_db")
def test_mapped_wait_creates_a_workflowsoft_task_and_continues(emulator, monkeypatch, tmp_path):
    (tmp_path / "dags.py").write_text(DAGS)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    spec = importlib.util.spec_from_file_location("notifies", tmp_path / "dags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    later(emulator)

    run = module.run.test()

    assert [str(task_instance.state) for task_instance in run.get_task_instances()] == ["skipped"]
    titles = [task["title"] for task in emulator.control("GET", "state")["workflowsoft_tasks"]]
    assert titles == ["Budget Check of order 5001: integration@example.com"]


# --- pending assignees ---


def step(**details) -> dict:
    whole = {"id": 11, "name": "Check", "started_at": "2026-01-01T08:00:00Z", "ended_at": None, **details}
    return {"history": [{"type": "ResponseStep", "details": whole}]}


PENDING_RESPONSES = [
    {"id": 1, "login": "a@example.com", "responded_at": "2026-01-01T09:00:00Z"},
    {"id": 2, "name": "Bea", "responded_at": None},
    {"id": 3, "login": "c@example.com", "role_type": "commenter", "responded_at": None},
    {"id": 4},
]


@pytest.mark.parametrize(
    ("details", "assignees"),
    [
        ({"responses": PENDING_RESPONSES}, ("Bea", "4")),
        (
            {
                "responses": PENDING_RESPONSES[:1],
                "additional_assignees": [{"id": 1}, {"id": 5, "login": "e@example.com"}],
            },
            ("e@example.com",),
        ),
        ({"responsible_groups": [{"login_ids": [7, 8]}, {"login_ids": [8]}, {"login_ids": None}]}, ("7", "8")),
        ({}, ()),
    ],
)
def test_step_is_pending_with_responders_without_a_response(details, assignees):
    assert procore.pending_step_of(step(**details)).assignees == assignees


def test_ended_instance_is_pending_with_no_assignee():
    assert procore.pending_step_of({**step(), "ended_at": "2026-01-01T09:00:00Z"}) is None
    terminated = {"type": "WorkflowTerminated", "details": {"terminated_at": "2026-01-01T09:00:00Z"}}
    assert procore.pending_step_of({"history": [*step()["history"], terminated]}) is None
    assert procore_legacy.pending_step_of({"id": "1", "current_workflow_activities": []}) is None


@pytest.mark.parametrize(
    ("role", "assignee"),
    [({"name": "Reviewer", "assignee": {"name": "Rita"}}, "Rita"), ({"name": "Reviewer", "assignee": "?"}, "Reviewer")],
)
def test_legacy_state_without_ball_in_court_is_pending_with_actors(role, assignee):
    activity = {"id": "1", "name": "Approve", "workflow_user_role": role}
    shown = {
        "id": "7",
        "current_workflow_state": {"id": "2", "name": "Review"},
        "current_workflow_activities": [activity],
    }

    assert procore_legacy.pending_step_of(shown).assignees == (assignee,)
