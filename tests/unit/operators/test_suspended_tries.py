"""A worker that resumes after Airflow has started the next try does not change what that try has done."""

from __future__ import annotations

import pytest
from airflow.sdk import DAG

from airflow_provider_workflows.decorators.procore import Respond, procore_response
from airflow_provider_workflows.operators.procore import (
    ProcoreAddAssigneesOperator,
    ProcoreBulkRespondOperator,
    ProcoreBulkStartInstancesOperator,
    ProcoreRespondOperator,
    ProcoreRestartInstanceOperator,
)
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator

pytestmark = pytest.mark.usefixtures("airflow_connections")

ITEM = {"item_id": "5001", "tool_type": "purchase_order_contract"}


def done(emulator, action: str) -> list[dict]:
    effects = (effect for effect in emulator.effects() if effect["via"] == "api" and effect["action"] == action)
    return [effect["target"] | effect["detail"] for effect in effects]


def suspend(monkeypatch, operator, method: str, meanwhile) -> None:
    """Let something happen before a method of an operator is called for the first time."""
    go_on = getattr(operator, method)

    def after_a_while(*args):
        monkeypatch.setattr(operator, method, go_on)
        meanwhile()
        return go_on(*args)

    monkeypatch.setattr(operator, method, after_a_while)


def director_returns_it(emulator) -> None:
    emulator.control("POST", "procore/instances/700001/respond", login="dana@example.com", option="Return")


def test_suspended_restart_leaves_the_new_instance_alone(emulator, store, monkeypatch):
    first, second = (ProcoreRestartInstanceOperator(task_id="again", confirm_timeout=0.2, **ITEM) for _ in range(2))
    context = {"task_state_store": store}
    suspend(monkeypatch, first, "find_instance_id", lambda: second.execute(context))

    assert first.execute(context)["restarted_instance_id"] == "700001"
    assert [restart["instance_id"] for restart in done(emulator, "restart")] == ["700001"]


def test_suspended_respond_leaves_later_occurrence_alone(emulator, store, monkeypatch):
    first, second = (
        ProcoreRespondOperator(task_id="respond", option="Approve", confirm_timeout=0.2, **ITEM) for _ in range(2)
    )
    context = {"task_state_store": store}

    def meanwhile() -> None:
        second.execute(context)
        director_returns_it(emulator)

    suspend(monkeypatch, first, "find_instance_id", meanwhile)
    result = first.execute(context)

    assert (result["step_occurrence_id"], result["already_recorded"]) == ("70000101", True)
    assert [response["step_occurrence_id"] for response in done(emulator, "respond")] == ["70000101"]


def test_suspended_bulk_response_leaves_later_occurrence_alone(emulator, store, monkeypatch):
    first, second = (
        ProcoreBulkRespondOperator(task_id="bulk", responses={"700001": "Approve"}, mode="apply", confirm_timeout=0.2)
        for _ in range(2)
    )
    context = {"task_state_store": store}

    def meanwhile() -> None:
        second.execute(context)
        director_returns_it(emulator)

    suspend(monkeypatch, first, "_planned", meanwhile)

    assert first.execute(context)["rows"][0]["step_occurrence_id"] == "70000101"
    assert [response["step_occurrence_id"] for response in done(emulator, "respond")] == ["70000101"]


def test_suspended_decision_leaves_later_occurrence_alone(emulator, store, monkeypatch):
    @procore_response(confirm_timeout=0.2)
    def decide(instance):
        return Respond("Approve")

    with DAG("suspended", schedule=None):
        first, second = (decide(instance="700001").operator for _ in range(2))
    context = {"task_state_store": store}

    def meanwhile() -> None:
        second.execute(context)
        director_returns_it(emulator)

    suspend(monkeypatch, first, "first_view", meanwhile)

    assert first.execute(context)["step_occurrence_id"] == "70000101"
    assert [response["step_occurrence_id"] for response in done(emulator, "respond")] == ["70000101"]


def test_suspended_addition_leaves_later_occurrence_alone(emulator, store, monkeypatch):
    first, second = (
        ProcoreAddAssigneesOperator(
            task_id="add", assignees="lee@example.com", reason="other", confirm_timeout=0.2, **ITEM
        )
        for _ in range(2)
    )
    context = {"task_state_store": store}

    def meanwhile() -> None:
        second.execute(context)
        emulator.control("POST", "procore/instances/700001/override", login="pat@example.com", option="Approve")

    suspend(monkeypatch, first, "find_instance_id", meanwhile)

    assert first.execute(context)["step_occurrence_id"] == "70000101"
    assert [addition["step_occurrence_id"] for addition in done(emulator, "add_assignees")] == ["70000101"]


def test_suspended_activity_is_not_performed_in_later_occurrence(emulator, store, monkeypatch):
    first, second = (
        ProcoreLegacyPerformActivityOperator(
            task_id="act", instance_id="568150", activity="Submit for Approval", confirm_timeout=0.2
        )
        for _ in range(2)
    )
    context = {"task_state_store": store}

    def meanwhile() -> None:
        second.execute(context)
        emulator.control("POST", "clock", advance=60)
        deny = {"activity": "Deny", "login": "rita@example.com"}
        emulator.control("POST", "procore/legacy/instances/568150/perform", **deny)
        emulator.control("POST", "clock", advance=60)

    suspend(monkeypatch, first, "_read", meanwhile)

    assert first.execute(context)["already_performed"]
    assert [performed["activity"] for performed in done(emulator, "perform_activity")] == ["Submit for Approval"]


def test_two_tries_of_a_bulk_start_name_each_item_once(emulator, store, monkeypatch):
    first, second = (
        ProcoreBulkStartInstancesOperator(
            task_id="start", tool_type="purchase_order_contract", items=["6001", "6002"], poll_interval=0.01
        )
        for _ in range(2)
    )
    context = {"task_state_store": store}
    suspend(monkeypatch, first, "finish", lambda: second.execute(context))

    result = first.execute(context)

    assert [row["item_id"] for row in result["completed"]] == ["6001", "6002"]
    assert (result["already_active"], result["failed"]) == ([], [])
    assert [start["item_id"] for start in done(emulator, "start")] == ["6001", "6002"]
