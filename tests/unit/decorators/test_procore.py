"""A function that responds to a step: called with the current step; its response is sent once, to that occurrence."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSensorTimeout, AirflowSkipException
from airflow.sdk import DAG, task

from airflow_provider_workflows.decorators.procore import (
    Respond,
    Skip,
    Wait,
    _ResponseDecoratedOperator,
    procore_response,
)
from airflow_provider_workflows.exceptions import ConfigurationError, InvalidRequest, WorkflowsError
from airflow_provider_workflows.get_provider_info import get_provider_info
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor
from tests.support import examples
from tests.support.examples import run_source
from tests.support.killed import Killed
from tests.unit.operators.procore.test_respond import (
    INSTANCE,
    TOOL,
    respond_as_user,
    responses,
    return_to_step,
    step_of,
)

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

APPROVED = [("90001", "Approve")]


@pytest.fixture
def row(emulator) -> dict[str, Any]:
    """What the sensor returns for the instance that waits for the connection's user."""
    (found,) = ProcoreResponseRequestedSensor(task_id="waiting", tool_type=TOOL).execute({})
    return found


def operator(function: Callable[..., Any], *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """Return the operator that a call of the decorated function makes."""
    with DAG("any", schedule=None):
        fixed = {"task_id": "respond", "confirm_timeout": 0.2, "retries": 2}
        return procore_response(**{**fixed, **(options or {})})(function)(*args, **kwargs).operator


def run(function: Callable[..., Any], store: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return operator(function, *args, **kwargs).execute(in_task(store))


def in_task(store: Any) -> dict[str, Any]:
    ti = SimpleNamespace(get_first_reschedule_date=lambda context: None, max_tries=None)
    return {"ti": ti, "run_id": "run-7"} | ({} if store is None else {"task_state_store": store})


class Function:
    """A function to decorate that decides otherwise each time; its arguments are in ``seen``."""

    def __init__(self, *decisions: Any):
        self.decisions = list(decisions)
        self.seen: list[dict[str, Any]] = []

    def __call__(self) -> Callable[..., Any]:
        def decide(instance):
            self.seen.append(instance)
            return self.decisions.pop(0) if len(self.decisions) > 1 else self.decisions[0]

        return decide


@pytest.fixture
def approves() -> Function:
    return Function(Respond("approve", comment="fine"), Respond("Reject"))


def dies(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, moment: str) -> None:
    """Let the worker die in the next call of a method, before or after its effect."""
    really, died = getattr(owner, name), []

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if died or (name == "set" and "decision" not in args[0]):
            return really(self, *args, **kwargs)
        died.append(True)
        if moment == "after":
            really(self, *args, **kwargs)
        raise Killed

    monkeypatch.setattr(owner, name, call)


# --- one try ---


def test_the_response_of_the_function_is_sent_and_described(emulator, row, store, approves):
    result = run(approves(), store, row)

    assert responses(emulator) == APPROVED
    assert result == {
        "project_id": "1001",
        "instance_id": INSTANCE,
        "item_id": "5001",
        "step": "Budget Check",
        "step_occurrence_id": row["step_occurrence_id"],
        "option": "Approve",
        "option_id": result["option_id"],
        "type": "approve",
        "matched_by": "label",
        "comment": "fine",
        "user_id": "90001",
        "already_recorded": False,
        "confirmed": True,
    }


def test_the_function_gets_the_row_and_the_current_state(emulator, row, store, approves):
    run(approves(), store, {**row, "amount": "12.50", "options": "stale"})

    (instance,) = approves.seen
    assert instance == {
        **row,
        "amount": "12.50",
        "assignees": [{"id": "90001", "name": "Airflow Integration", "login": "integration@example.com"}],
        "state": "in_progress",
        "item_status": instance["item_status"],
        "decision": None,
        "last_response": None,
        "ambiguous": [],
        "started_at": instance["started_at"],
        "ended_at": None,
        "blocked_reason": None,
    }
    assert [option["name"] for option in instance["options"]] == ["Approve", "Return", "Reject"]
    assert json.loads(json.dumps(instance)) == instance


@pytest.mark.parametrize("name", ["step_occurrence_id", "project_id"])
@pytest.mark.parametrize("is_named", [True, False])
def test_an_element_of_the_row_rendered_to_none_is_named(emulator, row, store, approves, name, is_named):
    given = {**row, name: "{{ none }}"}
    rendered = {**row, name: None}
    if is_named:
        built = operator(approves, instance=given)
        built.op_kwargs = {"instance": rendered}
    else:
        built = operator(approves, given)
        built.op_args = [rendered]
    sent = len(emulator.requests())

    with pytest.raises(ConfigurationError, match=f"^instance: {name} was rendered to None"):
        built.execute(in_task(store))
    assert len(emulator.requests()) == sent


def test_the_documented_keys_are_those_of_the_arguments(row, store, approves):
    run(approves(), store, row)

    documented = procore_response.__doc__.partition("what was just read: ``{")[2].partition("}``.")[0]
    for inner in ("{id, name, type}", "{id, name, login}", "{option, type, comment, by, at}"):
        documented = documented.replace(inner, "")
    assert {name.strip(" :[]\n") for name in documented.split(",")} == set(approves.seen[0])


def test_response_takes_files_attachments_and_option_type_or_id(emulator, row, store, tmp_path):
    (tmp_path / "quote.txt").write_text("12.50")
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")
    _, second = ProcoreResponseRequestedSensor(task_id="waiting", tool_type=TOOL).execute({})

    attached = Respond(option_type="approve", files=tmp_path / "quote.txt", attachments={"file_version_ids": (7,)})
    first = run(Function(attached)(), store, row)
    by_id = run(Function(Respond(option=second["options"][2]["id"]))(), store, second)

    assert (first["option"], by_id["option"]) == ("Approve", "Reject")
    sent = [request["body"]["response"] for request in emulator.requests() if request["path"].endswith("/responses")]
    assert sent[0]["attachments"]["file_version_ids"] == ["7"]
    assert [len(response.get("attachments") or {}) for response in sent] == [2, 0]


def test_a_skipped_step_is_not_changed(emulator, row, store):
    with pytest.raises(AirflowSkipException, match=f"Skipped instance {INSTANCE}. not in scope"):
        run(Function(Skip("not in scope"))(), store, row)
    assert responses(emulator) == []


@pytest.mark.parametrize("returned", [None, "Approve", {"option": "Approve"}, Respond, True])
def test_anything_else_is_rejected_with_what_to_return(emulator, row, store, returned):
    with pytest.raises(ConfigurationError, match=r"decide must return Respond\(option\), Wait\(\) or Skip\(\)"):
        run(Function(returned)(), store, row)
    assert responses(emulator) == []


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Respond("Aprove"), "'Aprove' matches no option"),
        (Respond(), "exactly one of option, option_type"),
        (Respond("Approve", option_type="approve"), "option and option_type"),
        (Respond("Approve", files="/nowhere/quote.pdf"), "files"),
        (Respond("Approve", attachments={"files": ["1"]}), "attachments"),
        (Respond("Approve", attachments={"form_ids": [5001.0]}), "attachments: form_ids"),
        (Respond("Approve", attachments=["1"]), "attachments must be a mapping of kinds to ids"),
    ],
)
def test_unsendable_response_is_not_stored(emulator, row, store, wrong, message):
    function = Function(wrong, Respond("Approve"))
    with pytest.raises(ConfigurationError, match=message):
        run(function(), store, row)

    run(function(), store, row)

    assert (len(function.seen), responses(emulator)) == (2, APPROVED)


# --- several tries ---


@pytest.mark.parametrize(
    ("owner", "name", "moment", "calls"),
    [
        ("store", "set", "before", 2),
        ("store", "set", "after", 1),
        ("hook", "respond", "before", 1),
        ("hook", "respond", "after", 1),
    ],
)
def test_retry_after_a_kill_sends_the_stored_response(emulator, row, store, monkeypatch, owner, name, moment, calls):
    function = Function(*[Respond("Approve", comment=str(number)) for number in (1, 2)])
    dies(monkeypatch, type(store) if owner == "store" else ProcoreHook, name, moment)
    with pytest.raises(Killed):
        run(function(), store, row)

    result = run(function(), store, row)

    assert len(function.seen) == calls
    assert (result["comment"], result["already_recorded"]) == (str(calls), (name, moment) == ("respond", "after"))
    assert responses(emulator) == APPROVED


def test_retry_sends_the_same_response_for_any_decision(emulator, row, store, approves):
    emulator.control("POST", "faults", method="POST", path="/responses$", status=400, json={"error": "no"})
    with pytest.raises(InvalidRequest):
        run(approves(), store, row)

    run(approves(), store, row)

    assert len(approves.seen) == 1
    assert responses(emulator) == APPROVED


def test_a_retry_after_success_sends_nothing(emulator, row, store, approves):
    first = run(approves(), store, row)
    again = run(approves(), store, row)

    assert {**again, "option_id": None} == {**first, "option_id": None, "already_recorded": True}
    assert (len(approves.seen), responses(emulator)) == (1, APPROVED)


def test_recorded_response_is_returned_without_the_function(emulator, row, store, approves):
    respond_as_user(emulator, "integration@example.com", "Reject")

    result = run(approves(), store, row)

    assert (result["option"], result["already_recorded"], approves.seen) == ("Reject", True, [])
    assert responses(emulator) == [("90001", "Reject")]


def test_stored_response_does_not_hide_another_one_on_record(emulator, row, store, monkeypatch, approves):
    dies(monkeypatch, ProcoreHook, "respond", "before")
    with pytest.raises(Killed):
        run(approves(), store, row)
    respond_as_user(emulator, "integration@example.com", "Reject")

    with pytest.raises(AirflowFailException, match="ResponseConflict"):
        run(approves(), store, row)


def test_later_step_occurrence_gets_no_second_response(emulator, row, store, approves):
    run(approves(), store, row)
    return_to_step(emulator)

    run(approves(), store, row)

    assert [who for who, _ in responses(emulator)] == ["90001", "90004"]
    assert len(approves.seen) == 1


@pytest.mark.parametrize("policy", ["fail", "skip", "succeed"])
@pytest.mark.parametrize("ended", [True, False])
def test_moved_step_ends_the_task_without_calling_the_function(emulator, row, store, approves, policy, ended):
    if ended:
        emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")
    built = operator(approves(), {**row, "step_occurrence_id": "1"}, options={"on_step_moved": policy})

    if policy == "succeed":
        assert built.execute(in_task(store)) is None
    else:
        error = {"fail": AirflowFailException, "skip": AirflowSkipException}[policy]
        with pytest.raises(error, match="has ended" if ended else "is now at 'Budget Check'"):
            built.execute(in_task(store))
    assert (approves.seen, responses(emulator)) == ([], [])


def test_a_step_that_moves_during_the_function_gets_no_response(emulator, row, store):
    def slow(instance):
        emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")
        return Respond("Approve")

    with pytest.raises(AirflowFailException, match="StepMoved"):
        run(slow, store, row)
    assert responses(emulator) == []


def test_other_assignees_are_named_before_the_call(emulator, row, store, approves):
    respond_as_user(emulator, "integration@example.com", "Approve")

    with pytest.raises(ConfigurationError, match="Director Approval.*Dana Director"):
        run(approves(), store, INSTANCE)
    assert approves.seen == []


def test_step_of_another_user_binds_nothing(emulator, row, store, approves):
    respond_as_user(emulator, "integration@example.com", "Approve")
    with pytest.raises(ConfigurationError, match="Director Approval"):
        run(approves(), store, INSTANCE)
    assert set(store) == {"deadline"}
    return_to_step(emulator)

    result = run(approves(), store, INSTANCE)

    assert result["step_occurrence_id"] == f"{INSTANCE}04"


@pytest.mark.parametrize("policy", ["fail", "skip", "succeed"])
def test_between_two_steps_the_function_is_not_called(emulator, store, approves, policy):
    emulator.control("PATCH", "flags", transition="in_between", transition_delay=3600)
    respond_as_user(emulator, "integration@example.com", "Approve")
    options = {"on_step_moved": policy, "confirm_timeout": 0}

    with pytest.raises(WorkflowsError, match="between two steps") as raised:
        operator(approves(), INSTANCE, options=options).execute(in_task(store))
    assert raised.value.retryable
    assert (approves.seen, set(store)) == ([], {"deadline"})


def test_killed_response_without_a_record_is_an_unknown_outcome(emulator, row, store, monkeypatch, approves):
    emulator.control("PATCH", "flags", hidden_events="response_steps")
    dies(monkeypatch, ProcoreHook, "respond", "after")
    with pytest.raises(Killed):
        run(approves(), store, row)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        run(approves(), store, row)
    assert responses(emulator) == APPROVED


def test_response_and_skip_leave_a_line_in_the_log(emulator, row, store, approves, capsys):
    with pytest.raises(AirflowSkipException):
        run(Function(Skip("not mine"))(), store, row)
    run(approves(), store, row)

    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if "Responded" in line]
    assert all(text in line for text in ("'Approve'", "'Budget Check'", INSTANCE, "5001", "90001"))
    assert "not mine" in output
    assert "fine" not in output.replace(line, "")


# --- waiting ---


def deferred_run(built: Any, store: Any, event: Any = None) -> Any:
    """Run a task that is to be deferred; return what it defers to."""
    deferred = pytest.importorskip("airflow.exceptions").TaskDeferred
    with pytest.raises(deferred) as raised:
        built.execute(in_task(store)) if event is None else built.execute_complete(in_task(store), event=event)
    return raised.value


def test_waiting_function_is_called_again_without_a_worker(emulator, row, store):
    function = Function(Wait("no quote yet"), Respond("Approve"))
    options = {"deferrable": True, "poke_interval": 120, "timeout": 3600}

    before = datetime.now(timezone.utc)
    deferred = deferred_run(operator(function(), row, options=options), store)

    path, arguments = deferred.trigger.serialize()
    assert path == "airflow_provider_workflows.triggers.wakeup.WakeUpTrigger"
    until, after = datetime.fromisoformat(arguments["until"]), datetime.now(timezone.utc)
    assert until - before > timedelta(seconds=119)
    assert until - after < timedelta(seconds=150)
    assert timedelta(seconds=3600) < deferred.timeout < timedelta(seconds=3600 + 121)
    assert (responses(emulator), [key for key in store if "decision" in key]) == ([], [])

    resumed = operator(function(), row, options=options)
    resumed.execute_complete(in_task(store), event=arguments["event"])

    assert (len(function.seen), responses(emulator)) == (2, APPROVED)


@pytest.mark.sample(3)
@pytest.mark.parametrize("body", ["<html>Forbidden</html>", '{"message": "Forbidden"}'])
@pytest.mark.parametrize("has_store", [True, False])
def test_rejected_read_after_a_wait_does_not_end_the_task(emulator, row, store, body, has_store):
    store = store if has_store else None
    options = {"deferrable": True, "poke_interval": 120, "timeout": 3600}
    function = Function(Wait(), Respond("Approve"))
    event = deferred_run(operator(function(), row, options=options), store).trigger.event
    emulator.control("POST", "faults", path=f"/instances/{INSTANCE}", status=403, body=body, times=1)

    again = deferred_run(operator(function(), row, options=options), store, event).trigger.event

    assert (len(function.seen), responses(emulator)) == (1, [])
    assert again["step_occurrence_id"] == event["step_occurrence_id"]
    assert again["polls"]["rejections"] is not None

    operator(function(), row, options=options).execute_complete(in_task(store), event=again)

    assert (len(function.seen), responses(emulator)) == (2, APPROVED)


@pytest.mark.usefixtures("impatient")
def test_reads_rejected_for_too_long_end_the_waiting_task(emulator, row, store):
    options = {"deferrable": True, "poke_interval": 120, "timeout": 3600}
    function = Function(Wait(), Respond("Approve"))
    event = deferred_run(operator(function(), row, options=options), store).trigger.event
    emulator.control("POST", "faults", path=f"/instances/{INSTANCE}", status=403, times=3)

    for _ in range(2):
        event = deferred_run(operator(function(), row, options=options), store, event).trigger.event
    with pytest.raises(Exception, match="Permission denied"):
        operator(function(), row, options=options).execute_complete(in_task(store), event=event)

    assert len(function.seen) == 1


def test_a_task_that_is_not_deferrable_is_rescheduled(emulator, row, store):
    built = operator(Function(Wait())(), row, options={"deferrable": False, "poke_interval": 120})

    before = datetime.now(timezone.utc)
    with pytest.raises(Exception) as raised:  # noqa: PT011  Airflow has it in another place in each version
        built.execute(in_task(store))

    assert type(raised.value).__name__ == "AirflowRescheduleException"
    assert raised.value.reschedule_date - before > timedelta(seconds=100)
    assert raised.value.reschedule_date - datetime.now(timezone.utc) <= timedelta(seconds=120)
    assert (built.reschedule, responses(emulator)) == (True, [])


def test_wait_log_shows_the_state_assignees_and_next_poll(row, store, capsys):
    options = {"deferrable": True, "poke_interval": 120}
    deferred_run(operator(Function(Wait("no quote yet"))(), row, options=options), store)

    logged = capsys.readouterr().out
    assert f"Instance {INSTANCE} has been at step 'Budget Check' since {row['step_started_at']}" in logged
    assert "pending with Airflow Integration; the function waits: no quote yet. The next call is in 120 s" in logged


@pytest.mark.parametrize("deferrable", [True, False])
def test_function_that_still_waits_at_the_deadline_fails_the_task(emulator, row, store, deferrable):
    store.set("deadline", (datetime.now(timezone.utc) - timedelta(seconds=1)).isoformat())
    built = operator(Function(Wait())(), row, options={"deferrable": deferrable})

    with pytest.raises(AirflowSensorTimeout, match="has been at step 'Budget Check'.*pending with Airflow Integration"):
        built.execute(in_task(store))


def test_deadline_is_that_of_the_first_try_after_retries(row, store):
    options = {"deferrable": True, "timeout": 3600}
    first = deferred_run(operator(Function(Wait())(), row, options=options), store).trigger.event["deadline"]

    assert deferred_run(operator(Function(Wait())(), row, options=options), store).trigger.event["deadline"] == first


@pytest.mark.parametrize("form", [datetime.isoformat, lambda time: time], ids=["text", "time"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_without_a_store_the_deadline_survives_a_sleep(row, deferrable, form):
    built = operator(Function(Wait())(), row, options={"deferrable": deferrable, "timeout": 60})
    past = datetime.now(timezone.utc) - timedelta(seconds=61)

    ti = SimpleNamespace(get_first_reschedule_date=lambda context: form(past), max_tries=None)
    resume = partial(built.execute_complete, event={"deadline": past.isoformat()}) if deferrable else built.execute

    with pytest.raises(AirflowSensorTimeout):
        resume({"ti": ti, "task_reschedule_count": 1})


def test_id_without_a_store_stays_with_its_occurrence(emulator, row):
    function = Function(Wait(), Respond("Reject"))
    options = {"deferrable": True, "retries": 0}
    event = deferred_run(operator(function(), INSTANCE, options=options), None).trigger.event
    assert event["step_occurrence_id"] == row["step_occurrence_id"]
    respond_as_user(emulator, "integration@example.com", "Approve")
    respond_as_user(emulator, "dana@example.com", "Return")

    result = operator(function(), INSTANCE, options=options).execute_complete(in_task(None), event=event)

    assert (result["step_occurrence_id"], result["option"]) == (row["step_occurrence_id"], "Approve")
    assert (len(function.seen), len(responses(emulator))) == (1, 2)


def test_without_a_store_a_rescheduled_task_needs_the_occurrence(emulator, row):
    built = operator(Function(Wait())(), INSTANCE, options={"deferrable": False, "retries": 0})

    with pytest.raises(ConfigurationError, match="Wait.. needs the step occurrence before Airflow 3.3"):
        built.execute(in_task(None))


def test_only_the_function_decides_the_response(emulator, row, store):
    with pytest.raises(TypeError, match="takes no option comment, option"), DAG("any", schedule=None):
        procore_response(Function(Respond("Approve"))()).override(option="Reject", comment="no")(row)
    with DAG("any", schedule=None, default_args={"comment": "by default", "option": "Reject", "item_id": "7"}):
        decorator = procore_response(task_id="respond", confirm_timeout=0.2)
        built = decorator(Function(Respond(option_type="approve"))())(row)

    result = built.operator.execute(in_task(store))

    assert (result["option"], result["comment"], result["item_id"]) == ("Approve", None, "5001")


def test_a_function_may_change_its_instance(emulator, row, store):
    def decide(instance):
        instance.clear()
        return Respond("Approve")

    assert run(decide, store, row)["option"] == "Approve"


# --- how it is called ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("by_name", [True, False])
@pytest.mark.parametrize("kind", ["row", "id", "number"])
def test_the_instance_is_an_id_or_a_row_by_position_or_name(emulator, row, store, approves, kind, by_name):
    instance = {"row": row, "id": INSTANCE, "number": int(INSTANCE)}[kind]
    args, kwargs = ((), {"instance": instance}) if by_name else ((instance,), {})

    first = run(approves(), store, *args, **kwargs)
    again = run(approves(), store, *args, **kwargs)

    assert first["step_occurrence_id"] == again["step_occurrence_id"] == row["step_occurrence_id"]
    assert (len(approves.seen), responses(emulator)) == (1, APPROVED)


def test_function_may_take_arguments_context_and_any_parameter(row, store):
    received: dict[str, Any] = {}

    def decide(instance, rate, run_id, *, note="none", **more):
        received.update(id=instance["instance_id"], rate=rate, run_id=run_id, note=note)
        return Respond("Approve")

    run(decide, store, row, "2.5", note="mine")

    assert received == {"id": INSTANCE, "rate": "2.5", "run_id": "run-7", "note": "mine"}


@pytest.mark.parametrize("empty", [None, "", " ", "None", [], {}, {"instance_id": None}])
def test_an_instance_that_is_none_is_named_before_sending(emulator, store, approves, empty):
    with pytest.raises(ConfigurationError, match="instance must be a row of ProcoreResponseRequestedSensor"):
        run(approves(), store, empty)
    assert emulator.requests() == []


@pytest.mark.parametrize(
    "option", ["option", "comment", "instance_id", "step_occurrence_id", "mode", "soft_fail", "files", "max_wait"]
)
def test_option_set_by_function_or_row_is_rejected_at_parsing(option):
    with pytest.raises(TypeError, match=f"takes no option {option}"):
        procore_response(**{option: "x"})


def test_without_a_store_an_id_alone_needs_retries_0(emulator, approves):
    with pytest.raises(ConfigurationError, match="step_occurrence_id must be given when retries > 0"):
        run(approves(), None, INSTANCE)

    run(approves(), None, INSTANCE, options={"retries": 0})

    assert responses(emulator) == APPROVED


def test_without_a_store_a_recorded_response_is_not_decided_again(emulator, row, approves):
    run(approves(), None, row)

    assert run(approves(), None, row)["already_recorded"] is True
    assert (len(approves.seen), responses(emulator)) == (1, APPROVED)


def test_decorator_works_with_and_without_parentheses():
    with DAG("any", schedule=None):

        @task.procore_response
        def bare(instance): ...

        @task.procore_response(on_step_moved="skip", retries=3)
        def configured(instance): ...

        first, second = bare("1").operator, configured.override(task_id="renamed", timeout=60)("1").operator

    assert (first.task_id, first.on_step_moved, first.procore_conn_id) == ("bare", "fail", "procore_default")
    assert (second.task_id, second.on_step_moved, second.timeout, second.retries) == ("renamed", "skip", 60, 3)
    assert first.custom_operator_name == "@task.procore_response"
    named = {found["name"]: found["class-name"] for found in get_provider_info()["task-decorators"]}
    assert named["procore_response"] == f"{procore_response.__module__}.{procore_response.__name__}"


def test_the_options_may_be_templates_and_the_row_is_one():
    assert _ResponseDecoratedOperator.template_fields == (
        "op_args",
        "op_kwargs",
        "procore_conn_id",
        "company_id",
        "project_id",
        "on_step_moved",
        "dry_run",
    )


def test_the_link_leads_to_the_item(emulator, row, store, set_connection, approves):
    connection = emulator.connection("procore")
    connection["extra"] |= {"item_url": "https://app.example/{item_id}"}
    set_connection("procore_default", connection)
    built = operator(approves(), row)

    built.execute(in_task(store))

    assert built.operator_extra_links[0].get_link(built, ti_key=None) == "https://app.example/5001"


# --- in a DAG ---

FLOW = """
import os
from airflow.sdk import dag, task
from airflow_provider_workflows.decorators.procore import Respond, Skip, Wait, procore_response
from airflow_provider_workflows.sensors.procore import ProcoreResponseRequestedSensor


@dag(schedule=None)
def decorated_responses():
    waiting = ProcoreResponseRequestedSensor(task_id="waiting", tool_type="purchase_order_contract")

    @procore_response(deferrable=os.environ["FLOW_DEFERRABLE"] == "yes", poke_interval=0.5, retries=0)
    def respond(instance, limit, ti):
        seen = os.path.join(os.environ["FLOW_FOLDER"], instance["item_id"])
        if instance["item_id"] == "5003":
            return Skip("not in scope")
        if instance["item_id"] == "5002" and not os.path.exists(seen):
            open(seen, "w").close()
            return Wait("the first time")
        return Respond("Reject" if instance["item_id"] in limit else "Approve", comment=f"task {ti.map_index}")

    @task(trigger_rule="all_done")
    def describe(results):
        assert sorted(row["option"] for row in results) == ["Approve", "Reject"], results

    describe(respond.partial(limit=["5001"]).expand(instance=waiting.output))


decorated_responses()
"""


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize("deferrable", ["yes", "no"])
def test_a_dag_maps_the_function_over_the_sensors_rows(emulator, monkeypatch, tmp_path: Path, deferrable):
    for number in (5002, 5003):
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=str(number))
    monkeypatch.setenv("FLOW_DEFERRABLE", deferrable)
    monkeypatch.setenv("FLOW_FOLDER", str(tmp_path))
    flow = run_source("decorated_responses", FLOW, monkeypatch, tmp_path)

    found = sorted((task_instance.task_id, str(task_instance.state)) for task_instance in flow.get_task_instances())
    assert found == [
        ("describe", "success"),
        ("respond", "skipped"),
        ("respond", "success"),
        ("respond", "success"),
        ("waiting", "success"),
    ]
    assert sorted(responses(emulator)) == [("90001", "Approve"), ("90001", "Reject")]
    assert step_of(emulator)["step"] != "Budget Check"


@pytest.mark.usefixtures("airflow_db")
@examples.once_and_in_full()
def test_example_responds_to_each_order_once(emulator, again):
    for number in (5002, 5003):
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=str(number))

    first = examples.run("example_procore_taskflow_approval")

    assert sorted(responses(emulator)) == [("90001", "Approve"), ("90001", "Return")]
    assert examples.result(first, "sum_up") == {"Approve": 1, "Return": 1}
    assert examples.result(first, "left_to_people") == ["5003"]

    if not again:
        return
    second = examples.run("example_procore_taskflow_approval")

    assert (second.state, examples.states(second)["check_budget"]) == ("success", ["skipped"])
    assert len(responses(emulator)) == 2


# --- dry runs ---


def test_dry_run_calls_the_function_and_binds_no_later_run(emulator, row, store, approves):
    result = operator(approves(), row, options={"dry_run": True}).execute(in_task(store))

    (call,) = result["would_send"]
    assert call["path"].endswith("/responses")
    assert call["body"]["response"]["comment"] == "fine"
    assert {**result, "dry_run": True, "option": "Approve", "confirmed": False} == result
    assert responses(emulator) == []

    later = run(approves(), store, row)

    assert len(approves.seen) == 2
    assert later["option"] == "Reject"
    assert responses(emulator) == [("90001", "Reject")]


@pytest.mark.parametrize("decision", [Skip("no"), Wait("not yet")])
def test_dry_run_skips_and_waits_as_the_function_says(emulator, row, store, decision):
    function = Function(decision)
    task = operator(function(), row, options={"dry_run": True, "deferrable": True, "timeout": 60})

    with pytest.raises((AirflowSkipException, pytest.importorskip("airflow.exceptions").TaskDeferred)):
        task.execute(in_task(store))

    assert responses(emulator) == []
    assert set(store) <= {"deadline"}


def test_dry_run_checks_the_response_of_the_function(row, store):
    with pytest.raises(ConfigurationError, match="no such option"):
        operator(Function(Respond("no such option"))(), row, options={"dry_run": "true"}).execute(in_task(store))
