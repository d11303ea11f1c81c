"""Waits on Procore read its records correctly, with either side of each open question."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from airflow_provider_workflows.exceptions import OutcomeUnclear
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import (
    ProcoreHistoryToObjectStorageOperator,
    ProcoreListInstancesOperator,
    ProcoreRefreshInstanceOperator,
    ProcoreStartInstanceOperator,
    outcome_names,
)
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor

pytestmark = pytest.mark.usefixtures("airflow_connections")

TOOL, JOINT_TOOL = "purchase_order_contract", "generic_tool_item"  # of the second, all reviewers must respond
INSTANCE = "700001"
OWN_LOGIN, REVIEWER, DIRECTOR = "integration@example.com", "rita@example.com", "dana@example.com"


def flags(emulator, **values: Any) -> None:
    emulator.control("PATCH", "flags", **values)


def start_instance(emulator, tool_type: str = JOINT_TOOL, item_id: str = "77") -> str:
    return emulator.control("POST", "procore/instances", tool_type=tool_type, item_id=item_id)["id"]


def respond(emulator, login: str, option: str, instance_id: str = INSTANCE) -> None:
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option=option)


def poke(**parameters: Any) -> Any:
    """Return what the sensor returns, or None while it waits."""
    where = {} if "item_id" in parameters else {"instance_id": INSTANCE}
    sensor = ProcoreInstanceSensor(task_id="wait", timeout=30, **{**where, **parameters})
    poked = sensor.poke({})
    return None if poked is False else poked.xcom_value


def reviewed_jointly(emulator) -> str:
    """Let one of two reviewers approve and the other, whose row is listed first, reject; return the instance."""
    instance_id = start_instance(emulator)
    respond(emulator, REVIEWER, "Approve", instance_id)
    emulator.control("POST", "clock", advance=60)
    respond(emulator, OWN_LOGIN, "Reject", instance_id)
    return instance_id


# --- what was decided ---


@pytest.mark.parametrize("overall", ["present", "absent"])
@pytest.mark.parametrize("hidden", ["none", "responses", "response_steps"])
def test_outcome_is_the_decision_or_unclear(emulator, overall, hidden):
    flags(emulator, overall_response=overall, hidden_events=hidden)
    instance_id = reviewed_jointly(emulator)

    outcome = poke(instance_id=instance_id)

    assert outcome["item_status"] == "Rejected"
    if hidden == "response_steps" or (hidden == "responses" and overall == "absent"):
        assert outcome["decision"] is None
        assert outcome_names(outcome) == ["Rejected", "complete"]
    elif overall == "present":
        assert (outcome["decision"]["option"], outcome["decision"]["problem"]) == ("Reject", None)
        assert outcome["decision"]["by"] == (OWN_LOGIN if hidden == "none" else None)
        assert outcome_names(outcome)[0] == "Reject"
    else:
        assert outcome["decision"]["option"] is None
        with pytest.raises(OutcomeUnclear, match=r"'Approve'.*'Rejected'"):
            outcome_names(outcome)


@pytest.mark.parametrize("hidden", ["none", "responses"])
def test_step_responded_to_ends_when_a_manager_has_overridden_it(emulator, hidden):
    flags(emulator, hidden_events=hidden)
    assert poke(step_decided="Budget Check") is None

    emulator.control("POST", f"procore/instances/{INSTANCE}/override", option="Approve", reason="On leave")
    occurrence = poke(step_decided="Budget Check")["occurrence"]

    assert (occurrence["decision"]["option"], occurrence["decision"]["source"]) == ("Approve", "override")
    assert (occurrence["decision"]["by"], occurrence["response"]) == ("pat@example.com", None)


@pytest.mark.parametrize("hidden", ["none", "responses"])
def test_step_responded_to_ends_though_its_responses_are_hidden(emulator, hidden):
    flags(emulator, hidden_events=hidden)
    respond(emulator, OWN_LOGIN, "Approve")

    occurrence = poke(step_decided="Budget Check")["occurrence"]

    assert occurrence["decision"]["option"] == "Approve"
    assert (occurrence["response"] is None) is (hidden == "responses")


def test_override_decides_against_what_was_responded(emulator):
    instance_id = start_instance(emulator)
    respond(emulator, REVIEWER, "Approve", instance_id)

    emulator.control("POST", f"procore/instances/{instance_id}/override", option="Reject")

    assert outcome_names(poke(instance_id=instance_id))[0] == "Reject"


@pytest.mark.parametrize("shown", BEHAVIOUR_FLAGS["termination_event"].values)
@pytest.mark.parametrize("history", ["full", "no_status"])
def test_step_cut_off_by_a_termination_was_not_responded_to(emulator, shown, history):
    flags(emulator, termination_event=shown, history=history)
    instance_id = start_instance(emulator)
    respond(emulator, REVIEWER, "Approve", instance_id)
    emulator.control("POST", f"procore/instances/{instance_id}/terminate")

    with pytest.raises(AirflowFailException, match="ended without reaching"):
        poke(instance_id=instance_id, step_decided="Joint Review")
    ended = poke(instance_id=instance_id)
    assert (ended["decision"], ended["state"]) == (None, "terminated")


# --- the order of events ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
@pytest.mark.parametrize("seconds", [0, 60])
def test_wait_reads_a_history_in_either_order(emulator, order, seconds):
    flags(emulator, history_order=order)

    def then(login: str, option: str) -> None:
        emulator.control("POST", "clock", advance=seconds)
        respond(emulator, login, option)

    then(OWN_LOGIN, "Approve")
    then(DIRECTOR, "Return")
    found = poke(until=["in_progress"])
    assert (found["step"], found["item_status"], found["ambiguous"]) == ("Budget Check", "Under Review", [])
    assert found["decision"]["option"] == "Return"
    again = poke(step_reached="Budget Check", after=f"{INSTANCE}01")
    assert again["occurrence"]["step_occurrence_id"] == f"{INSTANCE}04"
    assert poke(step_decided="Budget Check", after=f"{INSTANCE}01") is None
    then(OWN_LOGIN, "Approve")
    then(DIRECTOR, "Approve")
    ended = poke()
    assert (ended["item_status"], ended["decision"]["by"]) == ("Approved", DIRECTOR)
    assert (
        poke(step_decided="Budget Check", after=f"{INSTANCE}01")["occurrence"]["step_occurrence_id"] == f"{INSTANCE}04"
    )


# --- between two steps, and the end ---


@pytest.mark.parametrize("gap", [0, 600])
def test_gap_between_two_steps_ends_no_wait(emulator, gap):
    flags(emulator, step_gap=gap)
    respond(emulator, OWN_LOGIN, "Approve")

    now = poke(until=["in_progress", "processing"])
    assert now["step"] == (None if gap else "Director Approval")
    assert now["ended_at"] is None
    assert poke() is None
    assert (poke(step_reached="Director Approval") is None) is bool(gap)
    assert ProcoreHook().get_instance(INSTANCE)["ended_at"] is None

    emulator.control("POST", "clock", advance=gap)
    assert poke(step_reached="Director Approval")["step"] == "Director Approval"
    respond(emulator, DIRECTOR, "Approve")
    emulator.control("POST", "clock", advance=gap)
    assert poke()["state"] == "complete"


def test_gap_before_the_users_step_is_not_a_request(emulator):
    flags(emulator, step_gap=600)
    respond(emulator, OWN_LOGIN, "Approve")
    emulator.control("POST", "clock", advance=600)
    respond(emulator, DIRECTOR, "Return")
    sensor = ProcoreResponseRequestedSensor(task_id="wait", tool_type=TOOL)

    assert sensor.poke({}) is False
    emulator.control("POST", "clock", advance=600)
    assert [row["step_occurrence_id"] for row in sensor.poke({}).xcom_value] == [f"{INSTANCE}04"]


@pytest.mark.parametrize("history", ["full", "events_only", "no_status"])
@pytest.mark.parametrize("case", ["lower", "upper"])
def test_state_is_the_same_however_the_history_says_it(emulator, history, case):
    flags(emulator, history=history, status_case=case)

    assert poke(until=["in_progress"])["state"] == "in_progress"
    respond(emulator, OWN_LOGIN, "Approve")
    respond(emulator, DIRECTOR, "Reject")
    assert poke()["state"] == "complete"
    other = start_instance(emulator)
    emulator.control("POST", f"procore/instances/{other}/terminate")
    assert poke(instance_id=other)["state"] == "terminated"


@pytest.mark.parametrize(("history", "is_known"), [("full", True), ("no_status", True), ("events_only", False)])
def test_blocked_instance_is_known_where_anything_says_so(emulator, history, is_known):
    flags(emulator, history=history)
    emulator.control("POST", f"procore/instances/{INSTANCE}/block", reason="ERP is down")

    assert (poke(until=["blocked"]) is not None) is is_known
    refreshed = ProcoreRefreshInstanceOperator(task_id="heal", instance_id=INSTANCE).execute({})

    assert refreshed["refreshes"] == (1 if is_known else 0)  # an unclear instance is not refreshed


# --- which instances are listed ---


@pytest.mark.parametrize("default", ["all", "active_only"])
def test_wait_by_item_continues_to_the_end_of_its_instance(emulator, default):
    flags(emulator, active_default=default)
    assert poke(tool_type=TOOL, item_id="5001") is None
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")

    assert poke(tool_type=TOOL, item_id="5001")["state"] == "terminated"


@pytest.mark.parametrize("default", ["all", "active_only"])
def test_lists_and_exports_of_all_include_ended_instances(emulator, default, tmp_path):
    flags(emulator, active_default=default)
    other = start_instance(emulator, TOOL)
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")

    def listed(active: bool | None) -> list[str]:
        rows = ProcoreListInstancesOperator(task_id="list", tool_type=TOOL, active=active).execute({})
        return [row["instance_id"] for row in rows]

    assert [listed(active) for active in (None, True, False)] == [[INSTANCE, other], [other], [INSTANCE]]
    assert [row["id"] for row in ProcoreHook().list_item_instances(TOOL, "5001")] == [INSTANCE]
    exported = ProcoreHistoryToObjectStorageOperator(
        task_id="export", tool_type=TOOL, path=str(tmp_path), file_format="jsonl"
    ).execute({})
    assert (exported["instances"], exported["failed"]) == (2, [])


def test_instance_that_ends_between_two_lists_is_listed_once(emulator):
    start_instance(emulator, TOOL)
    rows = ProcoreHook().list_instances(TOOL)
    first = next(rows)
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")

    assert [row["id"] for row in (first, *rows)] == [INSTANCE, "700002"]


@pytest.mark.parametrize("active", [True, False])
def test_rows_that_do_not_match_the_active_filter_are_ignored(emulator, active):
    ended, running = {"id": "1", "ended_at": "2026-01-01T00:00:00Z"}, {"id": "2", "ended_at": None}
    emulator.control("POST", "faults", path="/instances$", status=200, json={"data": [ended, running]})

    rows = list(ProcoreHook().list_instances(TOOL, active=active))

    assert [row["id"] for row in rows] == ["2" if active else "1"]


@pytest.mark.parametrize("finds", ["all_assignees", "pending_only"])
def test_recorded_response_is_not_requested_while_others_are(emulator, finds):
    flags(emulator, assignee_filter=finds)
    respond(emulator, OWN_LOGIN, "Reject")
    instance_id = start_instance(emulator)
    sensor = ProcoreResponseRequestedSensor(task_id="wait", tool_type=JOINT_TOOL)
    assert len(sensor.poke({}).xcom_value) == 1
    respond(emulator, OWN_LOGIN, "Approve", instance_id)

    assert sensor.poke({}) is False


@pytest.mark.parametrize("tools", ["allowed", "forbidden"])
def test_user_who_may_not_list_tools_works_in_the_project(emulator, tools):
    flags(emulator, tools_list=tools)

    rows = ProcoreListInstancesOperator(task_id="list", tool_type=TOOL).execute({})

    assert [(row["instance_id"], row["project_id"]) for row in rows] == [(INSTANCE, "1001")]


# --- ids, and a start after another one ---


@pytest.mark.parametrize("ids", ["occurrence", "step"])
def test_after_a_step_occurrence_never_takes_an_earlier_occurrence(emulator, ids):
    flags(emulator, history_step_id=ids)
    moment = emulator.control("GET", "clock")["now"]
    emulator.control("POST", "clock", advance=60)
    respond(emulator, OWN_LOGIN, "Approve")
    wait = {"step_decided": "Director Approval"}
    assert poke(**wait, after=f"{INSTANCE}01") is None
    respond(emulator, DIRECTOR, "Approve")

    if ids == "occurrence":
        assert poke(**wait, after=f"{INSTANCE}01")["occurrence"]["decision"]["option"] == "Approve"
    else:
        with pytest.raises(AirflowFailException, match="ended without reaching"):
            poke(**wait, after=f"{INSTANCE}01")
    assert poke(**wait, after=moment)["occurrence"]["decision"]["option"] == "Approve"


@pytest.mark.parametrize("status", ["400", "409", "422"])
def test_start_that_finds_an_active_instance_adopts_it(emulator, store, status, monkeypatch):
    flags(emulator, active_instance=status)
    started: list[str] = []
    original = ProcoreHook.start_instance

    def outrun(hook: ProcoreHook, *args: Any, **kwargs: Any) -> Any:
        started.append(start_instance(emulator, TOOL, "5002"))
        return original(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreHook, "start_instance", outrun)
    operator = ProcoreStartInstanceOperator(task_id="start", tool_type=TOOL, item_id="5002")

    result = operator.execute({"task_state_store": store})

    assert ([result["instance_id"]], result["adopted"]) == (started, True)
