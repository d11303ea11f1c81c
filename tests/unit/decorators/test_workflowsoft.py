"""A function as a whole integration step: called once, its decision written once, the instance completed once."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk import DAG, task

from airflow_provider_workflows.decorators.workflowsoft import (
    LeaveOpen,
    RejectIntegration,
    workflowsoft_integration,
)
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ServerError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.get_provider_info import get_provider_info
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.version_compat import HAS_TASK_STATE_STORE
from tests.support.examples import run_source
from tests.support.killed import Killed

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

WRITE = "/instances/variables$"
COMPLETE = "/action$"
DURATION = "Event duration"


@pytest.fixture
def instance_id(emulator) -> str:
    return emulator.control("POST", "workflowsoft/processes", diagram="Event planning")["integration_instance_id"]


def operator(function: Callable[..., Any], *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """Return the operator that a call of the decorated function makes."""
    with DAG("any", schedule=None):
        fixed = {"task_id": "decide", "confirm_timeout": 0.0, "retries": 2}
        decorated = workflowsoft_integration(function, **{**fixed, **(options or {})})
        return decorated(*args, **kwargs).operator


def run(function: Callable[..., Any], store: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return operator(function, *args, **kwargs).execute({"task_state_store": store, "run_id": "run-7"})


class Longer:
    """A decision that comes out otherwise when it is taken again; counts how often it is."""

    def __init__(self) -> None:
        self.seen: list[Decimal] = []

    def function(self) -> Callable[..., Any]:
        def longer(fields):
            self.seen.append(fields[DURATION])
            return {DURATION: fields[DURATION] + Decimal("30.25"), "Venue": "Main hall"}

        return longer


@pytest.fixture
def longer() -> Longer:
    return Longer()


def effects(emulator, action: str) -> list[dict]:
    return [e["detail"] for e in emulator.effects() if (e["product"], e["action"]) == ("workflowsoft", action)]


def fault(emulator, method: str, path: str, **kind) -> None:
    emulator.control("POST", "faults", method=method, path=path, **kind)


def writes(emulator) -> list[dict]:
    return [request for request in emulator.requests() if request["method"] != "GET"]


def assert_done_once(emulator, times: int = 1) -> None:
    assert effects(emulator, "write_fields") == [{"fields": {DURATION: "1670.25", "Venue": '"Main hall"'}}]
    assert [done["times"] for done in effects(emulator, "complete")] == list(range(1, times + 1))


# --- one try ---


def test_functions_return_is_written_and_the_instance_completed(emulator, instance_id, store, longer):
    result = run(longer.function(), store, instance_id)

    assert result == {
        "integration_instance_id": instance_id,
        "custom_action": "__AUTO__",
        "rejected": None,
        "written": [DURATION, "Venue"],
        "unchanged": [],
        "already_completed": False,
    }
    assert longer.seen == [Decimal("1640.0")]
    assert_done_once(emulator)
    assert json.loads(json.dumps(result)) == result


DEFAULT_ARGS = {
    "workflowsoft_conn_id": "site_b",
    "expected_fields": {"Venue": "Text"},
    "custom_action": "Approved",
    "on_unknown_completion": "assume_done",
    "allow_unknown_types": True,
    "verify": "normalized",
    "confirm_timeout": 5.0,
    "dry_run": True,
}


@pytest.mark.parametrize("is_mapped", [False, True])
def test_options_come_from_the_default_args_of_the_dag(is_mapped):
    with DAG("any", schedule=None, default_args=DEFAULT_ARGS) as dag:
        task_function = workflowsoft_integration(task_id="decide", verify="exact")(lambda fields: None)
        task_function.expand(integration_instance_id=["3"]) if is_mapped else task_function("3")
    built = dag.get_task("decide")
    if is_mapped:
        built = built.unmap({"op_args": [], "op_kwargs": {"integration_instance_id": "3"}})

    assert {name: getattr(built, name) for name in DEFAULT_ARGS} == {**DEFAULT_ARGS, "verify": "exact"}


def test_the_function_gets_typed_values_under_labels_or_keys(emulator, store):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    received = {}

    def read(fields):
        received.update(fields)

    result = run(read, store, started["integration_instance_id"])

    assert (result["written"], result["unchanged"]) == ([], [])
    assert received["Amount"] == Decimal("12345678901234.5678")
    assert isinstance(received["Amount"], Decimal)
    assert received["Moment"] == pendulum.datetime(2026, 3, 1, 8, 30)
    assert isinstance(received["Moment"], pendulum.DateTime)
    assert received["Moment"].utcoffset() is not None
    assert (received["Amount or none"], received["Flag"], received["Large number"]) == (None, False, 9007199254740993)
    assert "Twin" not in received
    assert sorted(value for name, value in received.items() if name.startswith("6f9c1e85")) == ["First", "Second"]


def test_every_type_of_value_may_be_returned(emulator, store):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    values = {
        "Text": "new",
        "Flag": True,
        "Moment": pendulum.datetime(2026, 5, 6, 7, 8, 9, tz="Europe/Vienna"),
        "Amount": Decimal("0.10"),
        "Number": 7,
        "Double": 0.1,
        "Day": date(2026, 5, 6),
        "Place": {"lat": 2},
    }

    result = run(
        lambda fields: values, store, started["integration_instance_id"], options={"allow_unknown_types": True}
    )

    assert result["written"] == list(values)
    (written,) = effects(emulator, "write_fields")
    assert written["fields"]["Amount"] == "0.10"
    assert written["fields"]["Moment"] == '"2026-05-06T05:08:09Z"'


def test_only_what_differs_is_sent(emulator, instance_id, store):
    def same(fields):
        return {**fields, "Venue": "Hall"}

    result = run(same, store, instance_id)

    assert (result["written"], len(result["unchanged"])) == (["Venue"], 5)
    assert effects(emulator, "write_fields") == [{"fields": {"Venue": '"Hall"'}}]


@pytest.mark.parametrize("nothing", [None, {}])
def test_function_without_a_result_completes_without_writing(emulator, store, nothing):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Data issue")

    run(lambda fields: nothing, store, started["integration_instance_id"])

    assert [request["method"] for request in writes(emulator)] == ["PATCH"]


@pytest.mark.parametrize("rubbish", ["text", 7, [("Venue", "x")], {"Venue"}, iter(())])
def test_wrong_return_type_of_a_function_is_reported(emulator, instance_id, store, rubbish):
    def decide(fields):
        return rubbish

    with pytest.raises(ConfigurationError, match="decide must return a mapping .* or None for nothing; got"):
        run(decide, store, instance_id)
    assert writes(emulator) == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"Requested by": "me"}, "read-only in Workflowsoft: 'Requested by'"),
        ({DURATION: 1.5}, "a float is not exact"),
        ({"Venu": "x"}, "no field 'Venu'"),
        ({DURATION: Decimal(1)}, "Required fields of instance .* would stay empty: Venue. Nothing was sent"),
    ],
)
def test_impossible_decision_is_rejected_before_the_completion(emulator, instance_id, store, values, named):
    with pytest.raises(ConfigurationError, match=named):
        run(lambda fields: values, store, instance_id)
    assert writes(emulator) == []

    run(lambda fields: {"Venue": "Main hall"}, store, instance_id)
    assert len(effects(emulator, "write_fields")) == len(effects(emulator, "complete")) == 1


def test_error_of_the_function_fails_the_task_and_is_retried(emulator, instance_id, store, longer):
    def broken(fields):
        longer.seen.append(fields[DURATION])
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(broken, store, instance_id)
    assert writes(emulator) == []

    run(longer.function(), store, instance_id)
    assert len(longer.seen) == 2
    assert_done_once(emulator)


# --- ways out ---


def test_a_rejection_writes_its_fields_and_takes_its_exit(emulator, instance_id, store):
    def reject(fields):
        raise RejectIntegration("too long", custom_action="Reject", fields={"Venue": "none: too long"})

    result = run(reject, store, instance_id)

    assert (result["rejected"], result["custom_action"], result["written"]) == ("too long", "Reject", ["Venue"])
    assert effects(emulator, "write_fields") == [{"fields": {"Venue": '"none: too long"'}}]
    assert effects(emulator, "complete") == [{"custom_action": "Reject", "times": 1, "step": "Check event"}]


def test_a_rejection_without_fields_writes_nothing(emulator, store):
    fields = {"Decision": "Rejected"}
    started = emulator.control("POST", "workflowsoft/processes", diagram="Purchase request", fields=fields)

    def reject(fields):
        raise RejectIntegration("no", custom_action="Reject")

    run(reject, store, started["integration_instance_id"])

    assert [request["body"] for request in writes(emulator)] == [{"Action": "Complete", "CustomAction": "Reject"}]


@pytest.mark.parametrize("custom_action", ["", " ", None])
def test_rejection_without_an_action_is_named_before_writing(emulator, instance_id, store, custom_action):
    def reject(fields):
        raise RejectIntegration("no", custom_action=custom_action, fields={"Venue": "x"})

    with pytest.raises(ConfigurationError, match="custom_action is missing"):
        run(reject, store, instance_id)
    assert writes(emulator) == []


def test_instance_left_open_is_not_touched_and_the_task_skipped(emulator, instance_id, store):
    def leave(fields):
        raise LeaveOpen("not yet known")

    with pytest.raises(AirflowSkipException, match=f"Integration instance {instance_id} is left open: not yet known"):
        run(leave, store, instance_id)
    assert writes(emulator) == []


def test_custom_action_of_the_task_is_used(emulator, instance_id, store, longer):
    run(longer.function(), store, instance_id, options={"custom_action": "Reject"})

    assert [done["custom_action"] for done in effects(emulator, "complete")] == ["Reject"]


# --- how it is called ---


def test_the_instance_is_an_id_or_a_row_by_position_or_name(emulator, store):
    def decide(fields):
        return {"Venue": "Hall"}

    for call_with in (
        lambda instance: ((instance,), {}),
        lambda instance: ((int(instance),), {}),
        lambda instance: ((), {"integration_instance_id": instance}),
        lambda instance: ((), {"integration_instance_id": {"integration_instance_id": instance, "step_id": "101"}}),
    ):
        started = emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        args, kwargs = call_with(started["integration_instance_id"])
        result = run(decide, store, *args, **kwargs)
        assert result["integration_instance_id"] == started["integration_instance_id"]
    assert [done["times"] for done in effects(emulator, "complete")] == [1, 1, 1, 1]


def test_the_function_accepts_id_arguments_and_context(emulator, instance_id, store):
    received = {}

    def all_of_it(fields, rate, integration_instance_id, run_id, *, note="none"):
        received.update(rate=rate, instance=integration_instance_id, run_id=run_id, note=note, names=len(fields))
        return {"Venue": "Hall"}

    run(all_of_it, store, "2.5", {"integration_instance_id": instance_id}, note="mine")

    assert received == {"rate": "2.5", "instance": instance_id, "run_id": "run-7", "note": "mine", "names": 6}


def test_function_may_take_any_parameter_and_no_fields(instance_id, store):
    received = {}

    def compute(**everything):
        received.update(everything)
        return {"Venue": "Hall"}

    run(compute, store, instance_id, rate=1)
    assert set(received) == {"integration_instance_id", "rate", "fields"}

    def nothing():
        return None

    assert run(nothing, store, instance_id)["already_completed"] is True


def test_wrapped_function_is_called_with_its_wrapper(emulator, instance_id, store):
    def decide(fields):
        return {"Venue": "inner"}

    @functools.wraps(decide)
    def outer(**kwargs):
        return {"Venue": decide(**kwargs)["Venue"] + " and outer"}

    run(outer, store, instance_id)

    assert effects(emulator, "write_fields") == [{"fields": {"Venue": '"inner and outer"'}}]


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {"rate": 1}, "missing a required argument: 'integration_instance_id'"),
        (("1",), {}, "missing a required argument: 'rate'"),
        (("1", 2, 3), {}, "too many positional arguments"),
        (("1", 2), {"fields": {}}, "unexpected keyword argument 'fields'"),
    ],
)
def test_a_wrong_call_is_reported_when_the_dag_is_read(args, kwargs, message):
    def decide(fields, rate):
        return None

    with pytest.raises(TypeError, match=message):
        operator(decide, *args, **kwargs)


async def coroutine(fields): ...


def positional_only(fields, /): ...


def starred(*fields): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (coroutine, "must be a plain function, but is a coroutine function"),
        (positional_only, "parameter 'fields' cannot be passed by name"),
        (starred, "parameter 'fields' cannot be passed by name"),
    ],
)
def test_function_without_named_parameters_is_rejected_at_parsing(function, message):
    with pytest.raises(TypeError, match=message):
        workflowsoft_integration(function)


def test_decorator_works_with_and_without_parentheses():
    with DAG("any", schedule=None):

        @task.workflowsoft_integration
        def bare(fields): ...

        @task.workflowsoft_integration(custom_action="Reject", retries=3)
        def configured(fields): ...

        first, second = bare("1").operator, configured.override(task_id="renamed", custom_action="Other")("1").operator

    assert (first.task_id, first.custom_action) == ("bare", "__AUTO__")
    assert (second.task_id, second.custom_action) == ("renamed", "Other")
    assert second.retries == (3 if HAS_TASK_STATE_STORE else 0)
    assert first.custom_operator_name == "@task.workflowsoft_integration"
    named = {found["name"]: found["class-name"] for found in get_provider_info()["task-decorators"]}
    function = f"{workflowsoft_integration.__module__}.{workflowsoft_integration.__name__}"
    assert named["workflowsoft_integration"] == function


def test_the_ui_shows_the_function_and_links_to_the_instance(emulator, instance_id, store, set_connection):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"item_url": "https://app.example/{integration_instance_id}"}
    set_connection("workflowsoft_default", connection)

    def shown(fields):
        return {"Venue": "This is the source"}

    built = operator(shown, instance_id)
    built.execute({"task_state_store": store})

    assert "This is the source" in built.get_python_source()
    assert built.operator_extra_links[0].get_link(built, ti_key=None) == f"https://app.example/{instance_id}"
    assert inspect.signature(built.python_callable).parameters.keys() == {"integration_instance_id"}


@pytest.mark.parametrize("policy", ["fail", "retry", "assume_done"])
def test_retries_without_a_store_are_rejected_before_reading(emulator, instance_id, longer, policy):
    before = len(emulator.requests())
    built = operator(longer.function(), instance_id, options={"on_unknown_completion": policy})
    built.retries = 1  # as of a mapped task, which an Airflow before 3.3 does not make 0

    with pytest.raises(ConfigurationError, match="before Airflow 3.3"):
        built.execute({})
    assert (len(emulator.requests()), longer.seen) == (before, [])

    operator(longer.function(), instance_id, options={"retries": 0}).execute({})
    assert_done_once(emulator)


def test_changed_diagram_is_reported_before_the_function_is_called(emulator, instance_id, store, longer):
    with pytest.raises(ConfigurationError, match=r"'Event duration' is Decimal\?, expected Int32"):
        run(longer.function(), store, instance_id, options={"expected_fields": {DURATION: "Int32"}})
    assert (longer.seen, writes(emulator)) == ([], [])


@pytest.mark.parametrize("empty", [None, "", "None", [], {}])
def test_an_instance_that_is_none_is_named_before_sending(emulator, store, longer, empty):
    with pytest.raises(ConfigurationError, match="integration_instance_id must be the id"):
        run(longer.function(), store, empty)
    assert emulator.requests() == []


def test_an_instance_that_a_mapped_task_did_not_get_is_named(emulator, store):
    with DAG("any", schedule=None):
        built = operator(lambda fields, rate: None, "1", rate=1)
    built.op_args, built.op_kwargs = [], {"rate": 1}  # as of .expand(rate=[1])

    with pytest.raises(ConfigurationError, match="integration_instance_id must be the id"):
        built.execute({"task_state_store": store})


def test_missing_instance_is_reported_without_the_function(store, longer):
    with pytest.raises(NotFound, match="Integration instance 999 does not exist"):
        run(longer.function(), store, "999")
    assert longer.seen == []


# --- several tries ---


@pytest.mark.parametrize(
    ("name", "moment", "about", "calls"),
    [
        ("set", "before", "decision_", 2),
        ("set", "after", "decision_", 1),
        ("update_fields", "before", "", 1),
        ("update_fields", "after", "", 1),
        ("set", "before", "completion_", 1),
        ("set", "after", "completion_", 1),
        ("complete", "before", "", 1),
        ("complete", "after", "", 1),
    ],
)
def test_retry_after_a_kill_does_not_decide_again(
    emulator, instance_id, store, dies, longer, name, moment, about, calls
):
    dies(type(store) if name == "set" else WorkflowsoftHook, name, moment, about)
    retry_may_send = {"options": {"on_unknown_completion": "retry"}}
    with pytest.raises(Killed):
        run(longer.function(), store, instance_id, **retry_may_send)

    result = run(longer.function(), store, instance_id, **retry_may_send)

    assert longer.seen == [Decimal("1640.0")] * calls
    assert result["written"] == [DURATION, "Venue"]
    assert result["already_completed"] is ((name, moment) == ("complete", "after"))
    assert_done_once(emulator)


def test_a_retry_after_success_sends_nothing(emulator, instance_id, store, longer):
    first = run(longer.function(), store, instance_id)
    sent = len(writes(emulator))

    assert run(longer.function(), store, instance_id) == {**first, "already_completed": True}
    assert (len(writes(emulator)), len(longer.seen)) == (sent, 1)


def test_rejection_survives_a_kill_with_reason_and_action(emulator, instance_id, store, dies, longer):
    def reject(fields):
        raise RejectIntegration("too long", custom_action="Reject", fields={"Venue": "none"})

    dies(WorkflowsoftHook, "update_fields", "after")
    with pytest.raises(Killed):
        run(reject, store, instance_id)

    result = run(longer.function(), store, instance_id)

    assert (result["rejected"], result["custom_action"]) == ("too long", "Reject")
    assert longer.seen == []
    assert [done["custom_action"] for done in effects(emulator, "complete")] == ["Reject"]


@pytest.mark.parametrize(("moment", "times"), [("before", 1), ("before", 2), ("after", 1)])
def test_a_lost_response_to_the_write_is_reconciled_by_reading(emulator, instance_id, store, longer, moment, times):
    fault(emulator, "POST", WRITE, reset=moment, times=times)

    if times == 2:
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            run(longer.function(), store, instance_id)
        assert effects(emulator, "complete") == []
    else:
        run(longer.function(), store, instance_id)
        assert_done_once(emulator)


# --- a list of instances ---


@pytest.fixture
def rows(emulator) -> list[dict]:
    """What a sensor returns that has received three instances."""
    started = [emulator.control("POST", "workflowsoft/processes", diagram="Event planning") for _ in range(3)]
    return [{**row, "step_id": "101", "possibly_lost": []} for row in started]


def completed(emulator) -> list[str]:
    return [e["target"]["integration_instance_id"] for e in emulator.effects() if e["action"] == "complete"]


def test_the_function_is_called_for_each_of_a_list(emulator, store, rows, longer):
    ids = [row["integration_instance_id"] for row in rows]

    results = run(longer.function(), store, rows)

    assert [result["integration_instance_id"] for result in results] == ids
    assert (len(longer.seen), completed(emulator)) == (3, ids)
    assert run(longer.function(), store, rows)[0]["already_completed"]
    assert (len(longer.seen), completed(emulator)) == (3, ids)


def test_a_list_of_one_is_a_list(emulator, store, rows, longer):
    (result,) = run(longer.function(), store, rows[:1])

    assert result["integration_instance_id"] == rows[0]["integration_instance_id"]


@pytest.mark.parametrize("error", [ValueError("no such vendor"), ConfigurationError("no such vendor")])
def test_an_instance_that_fails_leaves_the_others_handled(emulator, store, rows, error):
    first, second, third = (row["integration_instance_id"] for row in rows)
    calls = []

    def decide(fields, integration_instance_id):
        calls.append(integration_instance_id)
        if integration_instance_id == second and len(calls) < 4:
            raise error
        return {"Venue": "Main hall"}

    with pytest.raises(WorkflowsError, match=f"1 integration instances were not handled: {second} .*no such vendor"):
        run(decide, store, rows)
    assert completed(emulator) == [first, third]

    assert len(run(decide, store, rows)) == 3
    assert (calls, completed(emulator)) == ([first, second, third, second], [first, third, second])


def test_what_no_retry_can_resolve_fails_with_its_ids(emulator, store, rows, longer):
    fault(emulator, "PATCH", f"/{rows[1]['integration_instance_id']}/action$", reset="after")

    with pytest.raises(AirflowFailException, match=f"not handled: {rows[1]['integration_instance_id']} "):
        run(longer.function(), store, rows)
    assert len(completed(emulator)) == 3


def test_an_instance_of_a_list_may_be_left_open(emulator, store, rows):
    first, second, third = (row["integration_instance_id"] for row in rows)

    def decide(fields, integration_instance_id, all_of_them=False):
        if all_of_them or integration_instance_id == second:
            raise LeaveOpen(f"not {integration_instance_id} today")
        return {"Venue": "Main hall"}

    results = run(decide, store, rows)
    assert [result["integration_instance_id"] for result in results] == [first, third]

    with pytest.raises(AirflowSkipException, match=f"{second} is left open.*{third} is left open"):
        run(decide, type(store)(), rows[1:], all_of_them=True)


def test_duplicate_instance_is_handled_once(emulator, store, rows, longer):
    assert len(run(longer.function(), store, [rows[0], rows[0]["integration_instance_id"]])) == 1
    assert len(longer.seen) == 1


LISTED = """
from airflow.sdk import dag, task
from airflow_provider_workflows.decorators.workflowsoft import workflowsoft_integration
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

@dag(schedule=None)
def listed():
    waiting = WorkflowsoftIntegrationSensor(
        task_id="waiting", diagram="Event planning", step="Check event", max_instances=5, timeout=20
    )

    @workflowsoft_integration
    def plan(fields):
        return {"Venue": "Main hall"}

    plan(waiting.output)

listed()
"""


@pytest.mark.usefixtures("airflow_db")
def test_airflow_passes_the_whole_result_of_a_sensor(emulator, rows, monkeypatch, tmp_path):
    flow = run_source("listed", LISTED, monkeypatch, tmp_path)

    assert str(flow.state) == "success"
    ids = [row["integration_instance_id"] for row in rows]
    assert completed(emulator) == ids
    (plan,) = [task_instance for task_instance in flow.get_task_instances() if task_instance.task_id == "plan"]
    assert [result["integration_instance_id"] for result in plan.xcom_pull(task_ids="plan")] == ids


def test_a_field_that_cannot_be_read_fails_only_where_it_is_used(emulator, instance_id, store):
    emulator.control("PATCH", "flags", ws_value_format="object")

    with pytest.raises(UnexpectedResponse, match="'Event name'"):
        run(lambda fields: {"Venue": fields["Event name"]}, store, instance_id)
    assert writes(emulator) == []
    run(lambda fields: {"Venue": fields["Requested by"]}, store, instance_id)
    assert completed(emulator) == [instance_id]


def test_500_to_a_write_is_retried_with_the_stored_decision(emulator, instance_id, store, longer):
    fault(emulator, "POST", WRITE, status=500, json={"Message": "crashed"})
    with pytest.raises(ServerError, match="crashed"):
        run(longer.function(), store, instance_id)

    run(longer.function(), store, instance_id)

    assert len(longer.seen) == 1
    assert_done_once(emulator)


def test_certainly_rejected_write_lets_the_function_decide_again(emulator, instance_id, store, longer):
    fault(emulator, "POST", WRITE, status=400, json={"Message": "Not now"})
    with pytest.raises(InvalidRequest, match="Not now"):
        run(longer.function(), store, instance_id)

    run(longer.function(), store, instance_id)

    assert longer.seen == [Decimal("1640.0")] * 2
    assert_done_once(emulator)


def test_rejected_retry_does_not_call_the_function_on_new_values(emulator, instance_id, store, dies, longer):
    dies(WorkflowsoftHook, "update_fields", "before")
    with pytest.raises(Killed):
        run(longer.function(), store, instance_id)
    fault(emulator, "POST", WRITE, status=403)
    with pytest.raises(PermissionDenied):
        run(longer.function(), store, instance_id)
    # What the first try sent arrives only now.
    hook = WorkflowsoftHook()
    keys = {field.label: field.key for field in hook.get_fields(instance_id)}
    hook.update_fields(instance_id, {keys[DURATION]: Decimal("1670.25"), keys["Venue"]: "Main hall"})

    run(longer.function(), store, instance_id)

    assert longer.seen == [Decimal("1640.0")]
    assert_done_once(emulator)


def test_rejected_completion_is_sent_by_a_retry_without_writing(emulator, instance_id, store, longer):
    fault(emulator, "PATCH", COMPLETE, status=403)
    with pytest.raises(PermissionDenied):
        run(longer.function(), store, instance_id)

    run(longer.function(), store, instance_id)

    assert len(longer.seen) == 1
    assert_done_once(emulator)


@pytest.mark.parametrize("evidence", ["read_only", "gone", "error"])
def test_a_lost_completion_is_reconciled_by_what_can_be_read(emulator, instance_id, store, dies, longer, evidence):
    emulator.control("PATCH", "flags", ws_fields_after_completion=evidence, ws_complete_again="no_op")
    dies(WorkflowsoftHook, "complete", "after")
    with pytest.raises(Killed):
        run(longer.function(), store, instance_id)

    assert run(longer.function(), store, instance_id)["already_completed"] is True
    assert_done_once(emulator)


@pytest.mark.parametrize(("policy", "times"), [("fail", 1), ("assume_done", 1), ("retry", 2)])
def test_completion_with_an_unknown_outcome_follows_the_policy(
    emulator, instance_id, store, dies, longer, policy, times
):
    emulator.control("PATCH", "flags", ws_complete_again="no_op")
    options = {"on_unknown_completion": policy}
    dies(WorkflowsoftHook, "complete", "after")
    with pytest.raises(Killed):
        run(longer.function(), store, instance_id, options=options)

    if policy == "fail":
        with pytest.raises(AirflowFailException, match="An earlier try started to complete"):
            run(longer.function(), store, instance_id, options=options)
    else:
        run(longer.function(), store, instance_id, options=options)
    assert len(longer.seen) == 1
    assert_done_once(emulator, times)


# --- in a DAG ---

FLOW = """
import json
import os
from decimal import Decimal

from airflow.sdk import dag, task

from airflow_provider_workflows.decorators.workflowsoft import LeaveOpen, RejectIntegration


@dag(schedule=None)
def decorated_flow():
    @task
    def instances():
        return json.loads(os.environ["FLOW_INSTANCES"])

    @task.workflowsoft_integration(expected_fields={"Event duration": "Decimal?"}, retries=2)
    def enrich(fields, rate, ti):
        if ti.map_index == 1:
            raise RejectIntegration("too long", custom_action="Reject", fields={"Venue": "none"})
        if ti.map_index == 2:
            raise LeaveOpen("later")
        return {"Event duration": fields["Event duration"] + Decimal(rate), "Venue": "Main hall"}

    @task(trigger_rule="all_done")
    def describe(results):
        assert [row["rejected"] for row in results] == [None, "too long"], results

    describe(enrich.partial(rate="30.25").expand(integration_instance_id=instances()))
"""


@pytest.mark.usefixtures("airflow_db")
def test_a_dag_maps_the_function_over_the_sensors_rows(emulator, monkeypatch, tmp_path):
    rows = [emulator.control("POST", "workflowsoft/processes", diagram="Event planning") for _ in range(3)]
    monkeypatch.setenv("FLOW_INSTANCES", json.dumps(rows))
    flow = run_source("decorated_flow", FLOW + "\n\ndecorated_flow()\n", monkeypatch, tmp_path)

    found = sorted(
        (task_instance.task_id, task_instance.map_index, str(task_instance.state))
        for task_instance in flow.get_task_instances()
    )
    assert found == [
        ("describe", -1, "success"),
        ("enrich", 0, "success"),
        ("enrich", 1, "success"),
        ("enrich", 2, "skipped"),
        ("instances", -1, "success"),
    ]
    # Which of them runs first is Airflow's choice.
    by_the_api = [effect for effect in emulator.effects() if effect["via"] == "api"]
    writes = {
        (effect["action"], effect["target"]["integration_instance_id"]): effect["detail"] for effect in by_the_api
    }
    first, second, _ = (row["integration_instance_id"] for row in rows)
    assert len(by_the_api) == 4
    assert writes["write_fields", first]["fields"] == {DURATION: "1670.25", "Venue": '"Main hall"'}
    assert writes["write_fields", second]["fields"] == {"Venue": '"none"'}
    assert [writes["complete", instance]["custom_action"] for instance in (first, second)] == ["__AUTO__", "Reject"]


def test_the_reason_of_a_rejection_may_be_an_error(emulator, instance_id, store):
    def reject(fields):
        raise RejectIntegration(ValueError("no such vendor"), custom_action="Reject", fields={"Venue": "none"})

    assert run(reject, store, instance_id)["rejected"] == "no such vendor"


def test_without_a_store_in_this_airflow_the_task_is_not_retried(emulator, instance_id, monkeypatch):
    monkeypatch.setattr("airflow_provider_workflows.operators.base.HAS_TASK_STATE_STORE", False)

    built = operator(lambda fields: {"Venue": "Main hall"}, instance_id, options={"retries": 2})

    assert built.retries == 0
    built.execute({})
    assert len(effects(emulator, "complete")) == 1


@pytest.mark.parametrize("multiple_outputs", [True, False])
def test_explicit_multiple_outputs_is_used(multiple_outputs):
    assert (
        operator(lambda fields: None, "5", options={"multiple_outputs": multiple_outputs}).multiple_outputs
        is multiple_outputs
    )


# --- dry runs ---


def sent_changes(emulator) -> list[tuple[str, str, Any]]:
    return [(r["method"], r["path"], r["body"]) for r in emulator.requests() if r["method"] != "GET"]


def test_dry_run_returns_the_fields_and_the_completion(emulator, instance_id, store, longer):
    dry = operator(longer.function(), instance_id, options={"dry_run": True})
    result = dry.execute({"task_state_store": store, "run_id": "run-7"})

    assert sent_changes(emulator) == []
    assert store == {}
    assert {
        **result,
        "dry_run": True,
        "integration_instance_id": str(instance_id),
        "custom_action": "__AUTO__",
    } == result

    run(longer.function(), store, instance_id)

    write, completion = sent_changes(emulator)
    assert [(call["method"], call["path"], call["body"]) for call in result["would_send"]][1] == completion
    fields, as_sent = result["would_send"][0]["body"]["Fields"], write[2]["Fields"]
    assert {name: str(value) for name, value in fields.items()} == {name: str(value) for name, value in as_sent.items()}
    assert len(longer.seen) == 2


def test_dry_run_of_a_list_has_a_result_for_each_instance(emulator, store, instance_id, longer):
    second = emulator.control("POST", "workflowsoft/processes", diagram="Event planning")["integration_instance_id"]
    instances = [{"integration_instance_id": str(instance)} for instance in (instance_id, second)]

    results = operator(longer.function(), instances, options={"dry_run": True}).execute({"task_state_store": store})

    assert [(result["dry_run"], len(result["would_send"])) for result in results] == [(True, 2), (True, 2)]
    assert [result["integration_instance_id"] for result in results] == [str(instance_id), str(second)]
    assert sent_changes(emulator) == []
    assert store == {}


def test_dry_run_finds_a_required_field_that_would_stay_empty(store, instance_id):
    with pytest.raises(ConfigurationError, match="Venue"):
        operator(lambda fields: {DURATION: Decimal(1)}, instance_id, options={"dry_run": True}).execute(
            {"task_state_store": store}
        )
