"""A ladder of levels: each is carried out once for a step occurrence, in every mode and over deaths of workers."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG, task

from airflow_provider_workflows.exceptions import ConfigurationError, ServerError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreAddAssigneesOperator
from airflow_provider_workflows.rules.open_wait import OpenWait
from airflow_provider_workflows.sensors.overdue import PAUSE_SECONDS
from airflow_provider_workflows.sensors.procore import Level, ProcoreInstanceSensor, business_days
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from tests.conftest import Store
from tests.support.examples import run_source
from tests.support.killed import Killed
from tests.unit.sensors.test_overdue import resumed
from tests.unit.sensors.test_procore import INSTANCE, approve, deferred, first_event, respond, soon

try:
    from airflow.sdk.exceptions import AirflowRescheduleException
except ImportError:  # before Airflow 3.1
    from airflow.exceptions import AirflowRescheduleException

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

HOUR = 3600.0
RITA, LEE = "90003", "90005"
ADDS = "/additional_assignees$"


@pytest.fixture
def notified() -> list[dict]:
    """The notifications, in order."""
    return []


@pytest.fixture
def ladder(notified):
    """Notify after a day, add Rita and notify after three, fail after ten."""

    def notify(context):
        notified.append(context["overdue_step"])

    return [
        Level(after=24, notify=notify),
        Level(after=72, notify=notify, add_assignees="rita@example.com"),
        Level(after=240, then="fail"),
    ]


@pytest.fixture
def build(ladder):
    """Return a function that makes the sensor; each one is a new try, or a new process of one."""

    def make(**parameters):
        usual = {"instance_id": INSTANCE, "timeout": 30, "poke_interval": 0.05, "on_overdue": ladder}
        return ProcoreInstanceSensor(task_id="wait", **{**usual, **parameters})

    return make


@pytest.fixture
def one_read(monkeypatch) -> None:
    """Let a single read decide whether a lost request was carried out."""
    monkeypatch.setattr(
        ProcoreAddAssigneesOperator, "confirm_timeout", property(lambda self: 0.0, lambda self, _: None)
    )


def hours_pass(emulator, hours: float) -> None:
    emulator.control("POST", "clock", advance=hours * HOUR)


def added(emulator) -> list[list[str]]:
    return [row["detail"]["assignee_ids"] for row in emulator.effects() if row["action"] == "add_assignees"]


def sent(emulator) -> list[dict]:
    return [row["body"] for row in emulator.requests() if row["path"].endswith("/additional_assignees")]


def levels_of(notified: list[dict]) -> list[tuple[str, int]]:
    return [(step["step"], step["level"]) for step in notified]


# --- in each mode ---


class Poking:
    """A task in poke mode: one process."""

    def __init__(self, build, context):
        self.sensor, self.context = build(), context

    def poll(self):
        found = self.sensor.poke(self.context)
        return found and found.xcom_value


class Rescheduling:
    """A task in reschedule mode: a new process for each poke."""

    def __init__(self, build, context):
        ti = SimpleNamespace(get_first_reschedule_date=lambda context: None, max_tries=None, try_number=1)
        self.build, self.context = build, {**context, "ti": ti}

    def poll(self):
        try:
            return self.build(mode="reschedule").execute(self.context)
        except AirflowRescheduleException:
            return False


class Deferring:
    """A deferred task: the trigger's event resumes it in a new process."""

    def __init__(self, build, context):
        self.build, self.context = build, context
        self.trigger = deferred(build(), context).trigger

    def poll(self):
        event = first_event(self.trigger)
        if event["status"] == "done":
            return self.build().execute_complete(self.context, event)
        self.trigger = resumed(self.build(), self.context, event)
        return False


@pytest.fixture(params=[Poking, Rescheduling, Deferring])
def mode(request):
    return request.param


def test_every_mode_climbs_the_ladder_once(emulator, store, build, notified, mode):
    wait = mode(build, {"task_state_store": store})

    hours_pass(emulator, 25)
    wait.poll()
    assert (levels_of(notified), added(emulator)) == ([("Budget Check", 1)], [])
    hours_pass(emulator, 50)
    wait.poll()
    assert (levels_of(notified)[1:], added(emulator)) == ([("Budget Check", 2)], [[RITA]])
    assert (notified[1]["added"], notified[1]["problem"]) == ([RITA], None)
    assert store["open_wait"]["escalation_level"] == 2
    approve(emulator)

    result = wait.poll()

    assert (result["state"], result["escalation_level"], result["escalation_problem"]) == ("complete", 2, None)
    assert (len(notified), len(sent(emulator))) == (2, 1)


def test_every_mode_starts_again_at_the_next_step(emulator, store, build, notified, mode):
    wait = mode(build, {"task_state_store": store})

    hours_pass(emulator, 25)
    wait.poll()
    respond(emulator, "Approve")
    hours_pass(emulator, 25)
    wait.poll()

    assert levels_of(notified) == [("Budget Check", 1), ("Director Approval", 1)]


def test_every_mode_ends_the_wait_at_the_last_level(emulator, store, build, notified, mode):
    wait = mode(build, {"task_state_store": store})

    hours_pass(emulator, 250)
    with pytest.raises(AirflowFailException) as failure:
        wait.poll()

    # What was due before it is done before it.
    assert (levels_of(notified), added(emulator)) == ([("Budget Check", 1), ("Budget Check", 2)], [[RITA]])
    for text in ("Level 3", "Budget Check", INSTANCE, "5001", "integration@example.com"):
        assert text in str(failure.value)


def test_nothing_happens_before_its_time_in_any_mode(emulator, store, build, notified, mode):
    if mode is Deferring:
        trigger = deferred(build(), {"task_state_store": store}).trigger
        hours_pass(emulator, 23)
        trigger.deadline = soon()
        assert first_event(trigger)["status"] == "timeout"
    else:
        wait = mode(build, {"task_state_store": store})
        hours_pass(emulator, 23)
        wait.poll()

    assert (notified, sent(emulator)) == ([], [])


# --- tries, restarts and deaths ---


def test_retry_repeats_no_level(emulator, store, build, notified):
    context = {"task_state_store": store}
    hours_pass(emulator, 75)
    deferred(build(), context)
    assert levels_of(notified) == [("Budget Check", 1), ("Budget Check", 2)]

    again = deferred(build(), context).trigger

    assert (len(notified), len(sent(emulator))) == (2, 1)
    assert again.overdue_watch["next"]["level"] == 3
    hours_pass(emulator, 170)
    event = first_event(again)
    with pytest.raises(AirflowFailException):
        resumed(build(), context, event)


def test_triggerer_restarted_before_the_event_sends_nothing_twice(emulator, store, build, notified):
    context = {"task_state_store": store}
    trigger = deferred(build(), context).trigger
    hours_pass(emulator, 75)
    event, again = first_event(trigger), first_event(trigger)
    assert (event, sent(emulator), notified) == (again, [], [])

    resumed(build(), context, event)
    resumed(build(), context, again)

    assert (levels_of(notified), len(sent(emulator))) == ([("Budget Check", 1), ("Budget Check", 2)], 1)


def test_trigger_carries_the_levels_without_a_store(emulator, build, notified):
    """Before Airflow 3.3: over deferrals, but not over tries."""
    trigger = deferred(build(), {}).trigger
    hours_pass(emulator, 75)
    trigger = resumed(build(), {}, first_event(trigger))
    approve(emulator)

    result = build().execute_complete({}, first_event(trigger))

    assert (result["escalation_level"], len(notified), len(sent(emulator))) == (2, 2, 1)


def test_retry_without_a_store_adds_no_one_again(emulator, build, notified):
    hours_pass(emulator, 75)
    deferred(build(), {})
    deferred(build(), {})

    assert (len(notified), len(sent(emulator))) == (4, 1)  # people are notified again


@pytest.mark.sample(3)
@pytest.mark.usefixtures("one_read")
@pytest.mark.parametrize(
    ("owner", "name", "moment", "about"),
    [
        (ProcoreHook, "add_assignees", "after", ""),
        (Store, "set", "before", "escalation"),
        (Store, "set", "after", "escalation"),
        (Store, "set", "before", "added"),
        (Store, "set", "after", "open_wait"),
    ],
)
def test_worker_that_dies_adds_assignees_once(emulator, store, build, notified, dies, owner, name, moment, about):
    context = {"task_state_store": store}
    trigger = deferred(build(), context).trigger
    hours_pass(emulator, 75)
    event = first_event(trigger)
    dies(owner, name, moment, about)

    with pytest.raises(Killed):
        resumed(build(), context, event)
    again = resumed(build(), context, event)

    assert added(emulator) == [[RITA]]
    assert len(sent(emulator)) == 1
    assert {level for _, level in levels_of(notified)} == {1, 2}
    assert again.escalation.level() == 2
    assert again.escalation.problem() is None


@pytest.mark.usefixtures("one_read")
def test_worker_that_dies_while_it_sends_sends_nothing_again(emulator, store, build, notified, dies):
    context = {"task_state_store": store}
    hours_pass(emulator, 75)
    dies(ProcoreHook, "add_assignees", "before")

    with pytest.raises(Killed):
        deferred(build(), context)
    again = deferred(build(), context).trigger

    assert sent(emulator) == []
    assert "OutcomeUnknown" in store["open_wait"]["last_error"]
    for _ in range(2):
        assert again.escalation.level() == 1
        hours_pass(emulator, 0.1)
        again = resumed(build(), context, first_event(again))
    assert again.escalation.level() == 2
    approve(emulator)
    result = build().execute_complete(context, first_event(again))
    assert "OutcomeUnknown" in result["escalation_problem"]
    assert ("OutcomeUnknown" in notified[-1]["problem"], sent(emulator)) == (True, [])


@pytest.mark.usefixtures("one_read")
def test_step_that_ended_before_the_read_is_an_unknown_outcome(emulator, store, build, dies):
    context = {"task_state_store": store}
    hours_pass(emulator, 75)
    dies(ProcoreHook, "add_assignees", "before")
    with pytest.raises(Killed):
        deferred(build(), context)
    again = deferred(build(), context).trigger
    approve(emulator)

    result = build().execute_complete(context, first_event(again))

    assert result["escalation_level"] == 1
    assert "OutcomeUnknown" in result["escalation_problem"]


@pytest.mark.usefixtures("one_read")
def test_request_that_arrives_late_is_found_later(emulator, store, build, notified, dies):
    context = {"task_state_store": store}
    hours_pass(emulator, 75)
    dies(ProcoreHook, "add_assignees", "before")
    with pytest.raises(Killed):
        deferred(build(), context)
    again = deferred(build(), context).trigger
    assert again.escalation.problem() is not None

    ProcoreHook().add_assignees(INSTANCE, step_occurrence_id=f"{INSTANCE}01", assignee_ids=[RITA], reason="other")
    hours_pass(emulator, 0.1)
    again = resumed(build(), context, first_event(again))

    assert (again.escalation.level(), again.escalation.problem(), len(sent(emulator))) == (2, None, 1)
    assert (notified[-1]["added"], notified[-1]["problem"]) == ([RITA], None)


@pytest.mark.usefixtures("no_delays", "one_read")
def test_unknown_outcome_without_a_store_sends_nothing_again(emulator, build, notified):
    """Before Airflow 3.3."""
    emulator.control("POST", "faults", method="POST", path=ADDS, reset="before")
    hours_pass(emulator, 75)
    sensor = build()
    for _ in range(3):
        sensor.poke({})
        hours_pass(emulator, 0.1)

    assert added(emulator) == []
    assert len(sent(emulator)) <= 1
    assert [step["level"] for step in notified] == [1, 2]
    assert "OutcomeUnknown" in notified[1]["problem"]


def test_worker_that_dies_before_it_ends_the_wait_ends_it_later(emulator, store, build, notified):
    def die(context):
        notified.append(context["overdue_step"])
        raise Killed

    ladder = [Level(after=24, notify=die, then="fail")]
    hours_pass(emulator, 25)
    with pytest.raises(Killed):
        deferred(build(on_overdue=ladder), {"task_state_store": store})

    ladder = [Level(after=24, notify=print, then="fail")]
    with pytest.raises(AirflowFailException):
        deferred(build(on_overdue=ladder), {"task_state_store": store})


def test_retry_after_the_end_of_the_wait_ends_it_again(emulator, store, build):
    """As with a task that is retried without being cleared."""
    hours_pass(emulator, 25)

    for _ in range(2):
        with pytest.raises(AirflowFailException, match="WaitFailed"):
            deferred(build(on_overdue=Level(after=0, then="fail")), {"task_state_store": store})


# --- adding assignees ---


@pytest.mark.usefixtures("no_delays", "one_read")
def test_lost_response_is_resolved_by_reading(emulator, store, build):
    emulator.control("POST", "faults", method="POST", path=ADDS, reset="after")
    hours_pass(emulator, 75)

    trigger = deferred(build(), {"task_state_store": store}).trigger

    assert (added(emulator), len(sent(emulator))) == ([[RITA]], 1)
    assert (trigger.escalation.level(), trigger.escalation.problem()) == (2, None)


def test_step_that_moved_before_the_poll_gets_no_assignee(emulator, store, build, notified):
    context = {"task_state_store": store}
    trigger = deferred(build(), context).trigger
    hours_pass(emulator, 75)
    event = first_event(trigger)
    respond(emulator, "Approve")

    again = resumed(build(), context, event)

    assert (sent(emulator), notified) == ([], [])
    assert again.overdue_watch["next"]["step"] == "Director Approval"


def test_step_that_moves_before_the_write_gets_no_assignee(emulator, store, build, notified, monkeypatch):
    original = ProcoreHook.get_instance_history

    def history(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        monkeypatch.setattr(ProcoreHook, "get_instance_history", original)
        respond(emulator, "Approve")
        return found

    monkeypatch.setattr(ProcoreHook, "get_instance_history", history)
    hours_pass(emulator, 75)
    sensor = build()
    sensor.poke({"task_state_store": store})
    sensor.poke({"task_state_store": store})

    assert sent(emulator) == []
    assert levels_of(notified) == [("Budget Check", 1)]
    respond(emulator, "Approve", "dana@example.com")
    assert sensor.poke({"task_state_store": store}).xcom_value["escalation_level"] == 1


def test_assignee_of_the_step_is_not_added_again(emulator, store, build, notified):
    ladder = [
        Level(after=24, add_assignees="integration@example.com", notify=lambda c: notified.append(c["overdue_step"]))
    ]
    hours_pass(emulator, 25)

    build(on_overdue=ladder).poke({"task_state_store": store})

    assert (sent(emulator), [step["added"] for step in notified]) == ([], [[]])


@pytest.mark.usefixtures("no_delays")
def test_transient_error_is_tried_again_after_a_sleep(emulator, store, build, notified, monkeypatch):
    def away(*args, **kwargs):
        raise ServerError("No response.")

    context, sensor = {"task_state_store": store}, build()
    hours_pass(emulator, 75)
    with monkeypatch.context() as outage:
        outage.setattr(ProcoreHook, "list_possible_assignees", away)
        for _ in range(5):
            sensor.poke(context)
        assert levels_of(notified) == [("Budget Check", 1)]

    sensor.poke(context)
    assert sent(emulator) == []
    hours_pass(emulator, PAUSE_SECONDS / HOUR + 0.01)
    sensor.poke(context)

    assert (added(emulator), levels_of(notified)[1:]) == ([[RITA]], [("Budget Check", 2)])


def test_level_that_cannot_add_yet_delays_no_other_level(emulator, store, build, monkeypatch):
    def away(*args, **kwargs):
        raise ServerError("No response.")

    monkeypatch.setattr(ProcoreHook, "list_possible_assignees", away)
    hours_pass(emulator, 250)

    with pytest.raises(AirflowFailException, match="Level 3"):
        build().poke({"task_state_store": store})


@pytest.mark.usefixtures("no_delays", "one_read")
def test_rejection_is_a_problem_after_three_attempts(emulator, store, build, notified):
    emulator.control(
        "POST", "faults", method="POST", path=ADDS, times=99, status=403, json={"error": {"message": "No."}}
    )
    context, sensor = {"task_state_store": store}, build()
    hours_pass(emulator, 75)
    for _ in range(5):
        sensor.poke(context)
        hours_pass(emulator, 0.1)

    assert len(sent(emulator)) == 3
    assert levels_of(notified) == [("Budget Check", 1), ("Budget Check", 2)]
    assert "PermissionDenied" in notified[1]["problem"]
    wait = OpenWait.from_dict(store["open_wait"])
    assert "PermissionDenied" in wait.last_error
    approve(emulator)
    result = sensor.poke(context).xcom_value
    assert (result["state"], result["escalation_level"]) == ("complete", 2)
    assert "PermissionDenied" in result["escalation_problem"]


@pytest.mark.parametrize(
    ("level", "message"),
    [
        ({"add_assignees": "nobody@example.com"}, "nobody@example.com is not a possible assignee"),
        ({"add_assignees": "{{ params.deputy }}"}, "assignees is missing or was rendered empty"),
        ({"add_assignees": "{{ 1 / 0 }}"}, "ZeroDivisionError"),
        ({"add_assignees": "rita@example.com", "reason": "{{ 'late' }}"}, "reason must be one of"),
    ],
)
def test_wrong_assignee_is_a_problem_and_the_wait_continues(emulator, store, build, level, message):
    hours_pass(emulator, 25)
    sensor = build(on_overdue=Level(after=24, **level), params={"deputy": ""})
    context = {"task_state_store": store, "params": {"deputy": ""}}

    assert [sensor.poke(context) for _ in range(2)] == [False, False]

    assert sent(emulator) == []
    assert message in store["open_wait"]["last_error"]


def test_templates_know_the_overdue_step(emulator, store, build):
    level = Level(
        after=24,
        add_assignees=["{{ params.deputies[overdue_step.assignees[0]] }}", LEE],
        reason="{{ 'new_employee' }}",
        comment="{{ overdue_step.step }} is {{ overdue_step.reason }}.",
        required=True,
    )
    params = {"deputies": {"integration@example.com": "rita@example.com"}}
    hours_pass(emulator, 25)

    build(on_overdue=level).poke({"task_state_store": store, "params": params})

    (body,) = sent(emulator)
    assert (body["assignee_ids"], body["reason"], body["required"]) == ([RITA, LEE], "new_employee", True)
    assert body["comment"] == "Budget Check is pending for more than 1 day, 0:00:00."


def test_each_step_occurrence_renders_the_templates_again(emulator, store, build):
    level = Level(after=24, add_assignees=RITA, comment="{{ overdue_step.step }}")
    sensor = build(on_overdue=level)
    for login in ("integration@example.com", "dana@example.com"):
        hours_pass(emulator, 25)
        sensor.poke({"task_state_store": store})
        respond(emulator, "Approve", login)

    assert [body["comment"] for body in sent(emulator)] == ["Budget Check", "Director Approval"]


def test_wait_by_item_adds_to_its_running_instance(emulator, store, build):
    hours_pass(emulator, 75)

    build(instance_id=None, tool_type="purchase_order_contract", item_id="5001").poke({"task_state_store": store})

    assert added(emulator) == [[RITA]]


def test_history_without_ids_of_steps_still_adds_assignees(emulator, store, build, monkeypatch):
    original = ProcoreHook.get_instance_history

    def without_ids(self, *args, **kwargs):
        history = original(self, *args, **kwargs)
        for event in history["history"]:
            event["details"].pop("id", None)
        return history

    monkeypatch.setattr(ProcoreHook, "get_instance_history", without_ids)
    sensor = build()
    hours_pass(emulator, 75)
    sensor.poke({"task_state_store": store})
    sensor.poke({"task_state_store": store})

    assert (added(emulator), len(sent(emulator))) == ([[RITA]], 1)


DAGS = """
from airflow.sdk import dag, task
from airflow_provider_workflows.sensors.procore import Level, ProcoreInstanceSensor

@dag(schedule=None)
def requests_hr_review():
    @task
    def deputies() -> list[str]:
        return ["rita@example.com", "90005"]

    ProcoreInstanceSensor(
        task_id="wait",
        instance_id="700001",
        timeout=1,
        soft_fail=True,
        on_overdue=Level(after=24, add_assignees=deputies(), comment="{{ overdue_step.step }} of {{ dag.dag_id }}"),
    )

requests_hr_review()
"""


@pytest.mark.usefixtures("airflow_db")
def test_level_waits_for_the_task_whose_result_it_uses(emulator, monkeypatch, tmp_path):
    hours_pass(emulator, 25)

    run_source("requests_hr_review", DAGS, monkeypatch, tmp_path)

    (body,) = sent(emulator)
    assert (body["assignee_ids"], body["comment"]) == ([RITA, LEE], "Budget Check of requests_hr_review")


@pytest.mark.parametrize("how", ["plain", "expand", "expand_kwargs"])
def test_sensor_runs_after_the_tasks_whose_results_a_level_uses(how):
    @task
    def deputies() -> list[str]:
        return [RITA]

    @task
    def comment() -> str:
        return "On leave"

    with DAG("any", schedule=None) as dag:
        on_overdue = [Level(after=1, then="fail"), Level(after=2, add_assignees=[LEE, deputies()], comment=comment())]
        if how == "plain":
            ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE, on_overdue=on_overdue)
        else:
            partial = ProcoreInstanceSensor.partial(task_id="wait", on_overdue=on_overdue)
            if how == "expand":
                partial.expand(instance_id=[INSTANCE])
            else:
                partial.expand_kwargs([{"instance_id": INSTANCE}])

    assert dag.get_task("wait").upstream_task_ids == {"deputies", "comment"}


@pytest.mark.parametrize("by", ["connection", "default_args", "template"])
def test_dry_run_adds_no_one_and_says_what_it_would_send(emulator, store, set_connection, build, by):
    connection = emulator.connection("procore")
    connection["extra"]["dry_run"] = by == "connection"
    set_connection("procore_default", connection)
    with DAG("any", schedule=None, default_args={"dry_run": True} if by == "default_args" else {}):
        parameters = {"dry_run": "{{ params.dry_run }}"} if by == "template" else {}
        sensor = build(on_overdue=Level(after=24, add_assignees=RITA), **parameters)
    sensor.render_template_fields({"params": {"dry_run": True}})
    hours_pass(emulator, 25)
    sensor.poke({"task_state_store": store})
    approve(emulator)

    result = sensor.poke({"task_state_store": store}).xcom_value

    assert sent(emulator) == []
    for text in ("additional_assignees", RITA):
        assert text in result["escalation_problem"]
    assert not [key for key in store if key.startswith("level_")]


def test_dry_run_that_is_no_boolean_fails_before_a_poll(emulator, build):
    with pytest.raises(ConfigurationError, match="dry_run must be True or False"):
        build(dry_run="perhaps").poke({})
    assert not [row for row in emulator.requests() if "/workflows/" in row["path"]]


# --- the end of a wait ---


@pytest.mark.parametrize(
    "parameters", [{"on_overdue": Level(after=24, then="skip")}, {"soft_fail": True}, {"never_fail": True}], ids=str
)
def test_then_can_skip_the_task(emulator, store, build, parameters):
    hours_pass(emulator, 250)

    with pytest.raises(AirflowSkipException, match="Budget Check"):
        build(**parameters).execute({"task_state_store": store})


def test_wait_is_not_ended_by_a_worker_that_cannot_poll(emulator, store, build, monkeypatch):
    context = {"task_state_store": store}
    trigger = deferred(build(on_overdue=Level(after=24, then="fail")), context).trigger
    hours_pass(emulator, 25)
    event = first_event(trigger)

    def away(*args, **kwargs):
        raise ServerError("No response.")

    with monkeypatch.context() as outage:
        outage.setattr(ProcoreHook, "get_instance_history", away)
        again = resumed(build(on_overdue=Level(after=24, then="fail")), context, event)

    ((_, until),) = again.escalation.postponed[event["step_occurrence_id"]].values()
    assert until > time.time()  # until then no worker is started for nothing
    hours_pass(emulator, 1)
    assert first_event(again)["status"] == "overdue"


# --- Legacy ---


def build_legacy(**parameters) -> ProcoreLegacyInstanceSensor:
    return ProcoreLegacyInstanceSensor(
        task_id="wait", instance_id="568150", until={"PO Approved"}, timeout=30, **parameters
    )


def test_legacy_notifies_and_ends_the_wait(emulator, store, notified, monkeypatch):
    passed = time.time() + 50 * HOUR
    times = SimpleNamespace(time=lambda: passed, monotonic=time.monotonic)
    monkeypatch.setattr("airflow_provider_workflows.triggers.base.time", times)
    ladder = [
        Level(after=24, notify=lambda context: notified.append(context["overdue_step"])),
        Level(after=48, then="fail"),
    ]
    hours_pass(emulator, 25)
    sensor = build_legacy(on_overdue=ladder)
    sensor.poke({"task_state_store": store})
    sensor.poke({"task_state_store": store})
    assert levels_of(notified) == [("Start", 1)]
    hours_pass(emulator, 25)

    with pytest.raises(AirflowFailException, match="Airflow Integration"):
        sensor.poke({"task_state_store": store})


def test_legacy_that_cannot_add_assignees_says_so_at_parse():
    with pytest.raises(ConfigurationError, match="add_assignees"):
        build_legacy(on_overdue=[Level(after=24, add_assignees="rita@example.com")])


# --- in a DAG file ---


def test_result_has_no_level_without_a_ladder(emulator):
    approve(emulator)

    result = ProcoreInstanceSensor(task_id="wait", instance_id=INSTANCE).poke({}).xcom_value

    assert not {"escalation_level", "escalation_problem"} & result.keys()


def test_unknown_country_ends_the_wait_before_it_sends_anything(emulator, build):
    level = Level(after=business_days(1, country="Narnia"), notify=print)

    with pytest.raises(ConfigurationError, match="unknown country"):
        build(on_overdue=level).poke({})

    assert sent(emulator) == []


def test_mapped_ladder_is_serialized_the_same_at_each_parse():
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialized
    except ImportError:  # before Airflow 3.1
        from airflow.serialization.serialized_objects import SerializedDAG as Serialized

    def parse() -> dict:
        with DAG("orders", schedule=None) as dag:
            ladder = [Level(after=business_days(2), notify=[lambda context: None], repeat_every=24), Level(then="fail")]
            ProcoreInstanceSensor.partial(task_id="wait", on_overdue=ladder).expand(instance_id=["1", "2"])
        return Serialized.to_dict(dag)

    assert parse() == parse()
