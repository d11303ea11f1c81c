"""The bulk start: many items, each started once."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreBulkStartInstancesOperator
from tests.support.killed import Killed
from tests.unit.sensors.test_procore import deferred, first_event

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

TOOL = "purchase_order_contract"
ORDER = "/bulk_create$"


def start(*items, **parameters) -> ProcoreBulkStartInstancesOperator:
    fixed = {"task_id": "start", "poll_interval": 0.01, "tool_type": TOOL, "chunk_size": 2}
    return ProcoreBulkStartInstancesOperator(**{**fixed, "items": list(items), **parameters})


def started(emulator) -> list[str]:
    """Return the items that were started through the API."""
    return [e["target"]["item_id"] for e in emulator.effects() if (e["action"], e["via"]) == ("start", "api")]


def start_requests(emulator) -> list[tuple[str, list[str]]]:
    """Return the token and the items of each start request."""
    sent = [r for r in emulator.requests() if r["path"].endswith("/bulk_create")]
    return [(r["idempotency_token"], [item["item_id"] for item in r["body"]["items"]]) for r in sent]


def items_of(emulator, since: int = 0) -> list[list[str]]:
    return [items for _, items in start_requests(emulator)[since:]]


def test_many_workflows_are_started_in_several_requests(emulator, store):
    result = start(11, "12", {"item_id": 13, "preset_id": 401}).execute({"task_state_store": store})

    assert result == {
        "completed": [
            {"item_id": "11", "instance_id": "700002"},
            {"item_id": "12", "instance_id": "700003"},
            {"item_id": "13", "instance_id": "700004"},
        ],
        "already_active": [],
        "failed": [],
        "operation_ids": ["901001", "901002"],
    }
    assert items_of(emulator) == [["11", "12"], ["13"]]
    tokens = [token for token, _ in start_requests(emulator)]
    assert len(set(tokens)) == 2
    assert all(len(token) == 64 for token in tokens)
    bodies = [r["body"] for r in emulator.requests() if r["path"].endswith("/bulk_create")]
    assert bodies[1] == {"tool_type": TOOL, "items": [{"item_id": "13", "preset_id": "401"}]}


def test_an_items_preset_beats_the_one_for_all(emulator, store):
    operator = start({"item_id": "11"}, {"item_id": "12", "preset_id": "409"}, preset_id=401, on_failed_items="return")

    result = operator.execute({"task_state_store": store})

    (sent,) = [r["body"]["items"] for r in emulator.requests() if r["path"].endswith("/bulk_create")]
    assert sent == [{"item_id": "11", "preset_id": "401"}, {"item_id": "12", "preset_id": "409"}]
    assert [item["item_id"] for item in result["failed"]] == ["12"]


def test_a_tool_of_the_company_is_started_at_its_level(emulator, store):
    start("81", tool_type="prequalification").execute({"task_state_store": store})

    (path,) = [r["path"] for r in emulator.requests() if r["path"].endswith("/bulk_create")]
    assert path == "/rest/v2.0/companies/4264807/workflows/instances/bulk_create"
    assert started(emulator) == ["81"]


def test_a_tool_with_a_subtype_is_started_with_it(emulator, store):
    result = start("9", tool_type="correspondence", tool_subtype=-123456789).execute({"task_state_store": store})

    assert len(result["completed"]) == 1


def test_a_retry_after_success_requests_nothing(emulator, store):
    first = start("11", "12", "13").execute({"task_state_store": store})

    assert start("11", "12", "13").execute({"task_state_store": store}) == first
    assert len(start_requests(emulator)) == 2
    assert started(emulator) == ["11", "12", "13"]


def test_an_item_that_is_active_already_counts_as_done(emulator, store):
    result = start("5001", "11").execute({"task_state_store": store})

    assert result["already_active"] == [{"item_id": "5001", "instance_id": "700001"}]
    assert [item["item_id"] for item in result["completed"]] == ["11"]
    assert result["failed"] == []


def test_retry_after_success_does_not_start_an_ended_item_again(emulator, store):
    first = start("5001", "11").execute({"task_state_store": store})
    emulator.control("POST", "procore/instances/700001/terminate")
    emulator.control("POST", "procore/instances/700002/terminate")

    assert start("5001", "11").execute({"task_state_store": store}) == first
    assert started(emulator) == ["11"]


def test_many_items_that_are_active_are_found_in_one_list(emulator, store):
    items = [str(number) for number in range(100, 125)]
    for item in items:
        emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item)

    result = start(*items, chunk_size=50).execute({"task_state_store": store})

    assert len(result["already_active"]) == 25
    lists = [r for r in emulator.requests() if r["path"].endswith("/workflows/instances")]
    assert [r["query"]["filters[active]"] for r in lists] == ["true"]


def test_active_item_fails_with_on_active_instance_fail(emulator, store):
    with pytest.raises(WorkflowsError, match=r"1 of 2 items were not started: 5001: .*already has an active"):
        start("5001", "11", on_active_instance="fail").execute({"task_state_store": store})


def test_failed_item_fails_the_task_and_a_retry_tries_only_it(emulator, store):
    bad = {"item_id": "12", "preset_id": "401"}
    emulator.control("POST", "procore/presets/401", valid=False)
    emulator.control("POST", "procore/presets", template_id="301", count=1, default=True)
    with pytest.raises(WorkflowsError, match=r"1 of 4 items were not started: 12: Preset 401 .* A retry tries these"):
        start("11", bad, "13", "5001").execute({"task_state_store": store})
    before = len(start_requests(emulator))
    emulator.control("POST", "procore/presets/401", valid=True)

    result = start("11", bad, "13", "5001").execute({"task_state_store": store})

    assert items_of(emulator, before) == [["12"]]
    assert started(emulator) == ["11", "13", "12"]
    assert [item["item_id"] for item in result["completed"]] == ["11", "12", "13"]
    assert (result["already_active"], result["failed"]) == ([{"item_id": "5001", "instance_id": "700001"}], [])
    assert len(result["operation_ids"]) == 3


def test_a_retry_of_a_failed_item_is_another_request(emulator, store):
    bad = {"item_id": "12", "preset_id": "499"}
    for _ in range(2):
        with pytest.raises(WorkflowsError, match="12: Preset 499 was not found"):
            start(bad).execute({"task_state_store": store})

    tokens = [token for token, _ in start_requests(emulator)]
    assert len(set(tokens)) == len(tokens) == 2


def test_failed_items_are_returned_on_request_and_by_a_retry(emulator, store):
    def operator():
        return start("11", {"item_id": "12", "preset_id": "499"}, on_failed_items="return")

    first = operator().execute({"task_state_store": store})
    assert first["failed"] == [{"item_id": "12", "message": "Preset 499 was not found."}]

    assert operator().execute({"task_state_store": store}) == first
    assert len(start_requests(emulator)) == 1


def test_an_operation_that_failed_as_a_whole_names_every_item(emulator, store):
    failed = {
        "id": "901001",
        "operation_type": "x",
        "status": "failed",
        "error": {"message": "Boom"},
        "completed_at": "x",
    }
    emulator.control("PATCH", "flags", operation_delay=3600)
    emulator.control(
        "POST", "faults", method="GET", path="/async_operations/", times=9, status=200, json={"data": failed}
    )

    with pytest.raises(WorkflowsError, match=r"2 of 2 .* 11: operation 901001 is failed Boom; 12: "):
        start("11", "12").execute({"task_state_store": store})


# --- lost responses, rejections, kills ---


def test_a_request_that_never_arrived_is_resent_with_its_token(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="before")

    result = start("11", "12", "13").execute({"task_state_store": store})

    tokens = [token for token, _ in start_requests(emulator)]
    assert tokens[0] == tokens[1] != tokens[2]
    assert started(emulator) == ["11", "12", "13"]
    assert len(result["completed"]) == 3


def test_request_lost_twice_fails_and_a_retry_starts_each_item_once(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, reset="before", times=2, skip=1)
    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        start("11", "12", "13").execute({"task_state_store": store})

    result = start("11", "12", "13").execute({"task_state_store": store})

    assert items_of(emulator) == [["11", "12"], ["13"], ["13"], ["13"]]
    assert started(emulator) == ["11", "12", "13"]
    assert (len(result["completed"]), result["failed"]) == (3, [])


@pytest.mark.parametrize(
    ("status", "error"),
    [(403, WorkflowsError), (404, WorkflowsError), (422, WorkflowsError), (500, ServerError)],
)
def test_a_rejected_request_leaves_nothing_half_done(emulator, store, status, error):
    emulator.control("POST", "faults", method="POST", path=ORDER, skip=1, status=status, json={"error": "no"})
    with pytest.raises(error):
        start("11", "12", "13").execute({"task_state_store": store})
    assert started(emulator) == ["11", "12"]

    result = start("11", "12", "13").execute({"task_state_store": store})

    assert items_of(emulator) == [["11", "12"], ["13"], ["13"]]
    assert len(result["completed"]) == 3


def test_death_between_two_requests_lets_a_retry_start_the_rest(emulator, store):
    operator = start("11", "12", "13")
    send, sent = operator.hook.bulk_start_instances, []

    def send_once(*args, **kwargs):
        if sent:
            raise Killed
        sent.append(send(*args, **kwargs))
        return sent[0]

    operator.hook.bulk_start_instances = send_once
    with pytest.raises(Killed):
        operator.execute({"task_state_store": store})

    result = start("11", "12", "13").execute({"task_state_store": store})

    assert items_of(emulator) == [["11", "12"], ["13"]]
    assert len(result["completed"]) == 3


def test_death_before_storing_the_request_leaves_one_effect_per_item(emulator, store, dies):
    dies(ProcoreHook, "bulk_start_instances", "after")
    with pytest.raises(Killed):
        start("11", "12").execute({"task_state_store": store})

    result = start("11", "12").execute({"task_state_store": store})

    assert started(emulator) == ["11", "12"]
    assert len(result["completed"]) == 2


# --- the wait ---


def test_the_operations_are_waited_for(emulator, store, monkeypatch):
    emulator.control("PATCH", "flags", operation_delay=600)
    sleeps = []

    def sleep(seconds):
        sleeps.append(seconds)
        emulator.control("POST", "clock", advance=300)

    monkeypatch.setattr("airflow_provider_workflows.operators.base.time.sleep", sleep)
    result = start("11", "12", "13").execute({"task_state_store": store})

    assert sleeps == [0.01, 0.01]
    assert len(result["completed"]) == 3


@pytest.mark.parametrize("deferrable", [False, True])
def test_bulk_start_waits_for_an_operation_that_is_shown_only_later(emulator, store, monkeypatch, deferrable):
    emulator.control("PATCH", "flags", operation_visible_after=300)

    def pass_five_minutes(seconds=0.0):
        emulator.control("POST", "clock", advance=300)

    if deferrable:
        deferral = deferred(start("11", "12", "13"), {"task_state_store": store})
        pass_five_minutes()
        event = first_event(deferral.trigger)
        result = start("11", "12", "13").execute_complete({"task_state_store": store}, event)
    else:
        monkeypatch.setattr("airflow_provider_workflows.operators.base.time.sleep", pass_five_minutes)
        result = start("11", "12", "13").execute({"task_state_store": store})

    assert len(result["completed"]) == 3
    assert len(start_requests(emulator)) == 2


def test_deferred_and_blocking_return_the_same(emulator, store):
    emulator.control("PATCH", "flags", operation_delay=600)
    items = ("11", "12", "13", "5001")
    deferral = deferred(start(*items), {"task_state_store": store})
    emulator.control("POST", "clock", advance=600)

    event = first_event(deferral.trigger)
    assert [sorted(o) for o in event["result"]["operations"]] == [sorted(event["result"]["operations"][0])] * 2
    assert "completed_items" not in repr(event)
    resumed = start(*items).execute_complete({"task_state_store": store}, event)
    emulator.control("PATCH", "flags", operation_delay=0)
    for number in (2, 3, 4):
        emulator.control("POST", f"procore/instances/70000{number}/terminate")
    blocking = start(*items).execute({})

    assert [i["item_id"] for i in resumed["completed"]] == [i["item_id"] for i in blocking["completed"]]
    assert resumed["already_active"] == blocking["already_active"]
    assert resumed.keys() == blocking.keys()
    assert start(*items).execute({"task_state_store": store}) == resumed
    assert len(start_requests(emulator)) == 4


def test_a_resumed_task_fails_on_failed_items_as_a_blocking_one(emulator, store):
    emulator.control("PATCH", "flags", operation_delay=600)
    bad = {"item_id": "12", "preset_id": "499"}
    deferral = deferred(start("11", bad), {"task_state_store": store})
    emulator.control("POST", "clock", advance=600)

    with pytest.raises(WorkflowsError, match="1 of 2 items were not started: 12"):
        start("11", bad).execute_complete({"task_state_store": store}, first_event(deferral.trigger))


def test_a_retry_during_the_wait_requests_nothing_and_waits(emulator, store):
    emulator.control("PATCH", "flags", operation_delay=600)
    first = deferred(start("11", "12", "13"), {"task_state_store": store})
    again = deferred(start("11", "12", "13"), {"task_state_store": store})

    assert again.trigger.operation_ids == first.trigger.operation_ids == ["901001", "901002"]
    assert again.trigger.deadline == first.trigger.deadline
    assert len(start_requests(emulator)) == 2


def test_wait_beyond_its_timeout_is_not_retried(emulator, store):
    emulator.control("PATCH", "flags", operation_delay=600)

    for _ in range(2):
        with pytest.raises(AirflowFailException, match="no result within .*Operation 901001 is created"):
            start("11", wait_timeout=0.05).execute({"task_state_store": store})
    assert len(start_requests(emulator)) == 1


def test_without_a_store_a_second_run_starts_what_is_missing(emulator):
    start("11", "12").execute({})
    result = start("11", "12", "13").execute({})

    assert [item["item_id"] for item in result["already_active"]] == ["11", "12"]
    assert started(emulator) == ["11", "12", "13"]


def test_another_run_restarts_items_with_ended_instances(emulator, store):
    start("11", "12").execute({"task_state_store": store})
    store.clear()
    emulator.control("POST", "procore/instances/700002/terminate")

    result = start("11", "12").execute({"task_state_store": store})

    assert started(emulator) == ["11", "12", "11"]
    assert [item["item_id"] for item in result["completed"]] == ["11"]
    assert result["already_active"] == [{"item_id": "12", "instance_id": "700003"}]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"items": []}, "items must be a list"),
        ({"items": None}, "items must be a list"),
        ({"items": "11"}, "items must be a list"),
        ({"items": b"x"}, "items must be a list"),
        ({"items": {"item_id": "11"}}, "items must be a list"),
        ({"items": [""]}, "items"),
        ({"items": [None]}, "items"),
        ({"items": [{"preset_id": "401"}]}, "items"),
        ({"items": [{"item_id": "11", "preset": "401"}]}, "items: .*got preset"),
        ({"items": [{"item_id": "11", "preset_id": ""}]}, "items"),
        ({"items": ["11", 11]}, "items: 11 occur more than once"),
        ({"tool_type": ""}, "tool_type"),
        ({"tool_subtype": "None"}, "tool_subtype"),
        ({"preset_id": ""}, "preset_id"),
        ({"project_id": ""}, "project_id"),
        ({"company_id": ""}, "company_id"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"chunk_size": "2"}, "chunk_size"),
        ({"chunk_size": True}, "chunk_size"),
        ({"on_active_instance": "x"}, "on_active_instance must be one of adopt, fail"),
        ({"on_failed_items": "x"}, "on_failed_items must be one of fail, return"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, store, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        start(**{"items": ["11"], **parameters}).execute({"task_state_store": store})
    assert emulator.requests() == []


def test_an_unknown_tool_is_rejected_with_the_tools_there_are(emulator, store):
    with pytest.raises(ConfigurationError, match="Unknown tool_type 'po'"):
        start("11", tool_type="po").execute({"task_state_store": store})
    assert start_requests(emulator) == []


def test_items_can_come_from_a_template(emulator, store):
    operator = start(items="{{ items }}", preset_id="{{ preset }}")
    operator.items = ["{{ item }}", {"item_id": "{{ item }}2"}]
    operator.render_template_fields({"item": "1", "preset": "401"})

    result = operator.execute({"task_state_store": store})

    assert [item["item_id"] for item in result["completed"]] == ["1", "12"]


def test_a_deferred_start_serializes_no_items(emulator, store):
    emulator.control("PATCH", "flags", operation_delay=600)
    operator = start("11", deferrable=True)

    with pytest.raises(TaskDeferred) as deferral:
        operator.execute({"task_state_store": store})

    assert "'11'" not in repr(deferral.value.trigger.serialize())


def test_a_request_that_is_rejected_does_not_strand_the_others(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, skip=1, times=3, status=422, json={"error": "no"})

    result = start("11", "12", "13", "14", "15", on_failed_items="return").execute({"task_state_store": store})

    assert [item["item_id"] for item in result["completed"]] == ["11", "12", "15"]
    assert [item["item_id"] for item in result["failed"]] == ["13", "14"]
    assert "422: no" in result["failed"][0]["message"]


def test_every_request_rejected_is_reported_item_by_item(emulator, store):
    emulator.control("POST", "faults", method="POST", path=ORDER, times=9, status=403, json={"error": "no"})

    with pytest.raises(WorkflowsError, match=r"3 of 3 items were not started: 11: Permission denied.*403"):
        start("11", "12", "13").execute({"task_state_store": store})
