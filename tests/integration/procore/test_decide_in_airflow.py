"""The examples of decisions in Airflow: a person's choice reaches Procore once, and a rejection never does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_workflows.triggers import procore_approval, required_actions
from tests.support.examples import result, run, states
from tests.support.people_in_airflow import choose, person
from tests.support.versions import AIRFLOW

pytestmark = [
    pytest.mark.usefixtures("airflow_db", "airflow_connections"),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="before Airflow 3.3 dag.test() ends without a response"),
]

OPERATOR, AIRFLOW_FIRST = "example_procore_decide_in_airflow", "example_procore_approve_in_airflow_first"


async def recorded(ti_id: str) -> dict[str, Any] | None:
    """Return what Airflow has recorded; dag.test() runs triggers where Airflow does not say it."""
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session

    with create_session() as session:
        event = session.get(HITLDetail, UUID(ti_id)).as_resume_event_payload()
    return {**event, "responded_at": event["responded_at"].isoformat()}


@pytest.fixture
def as_soon_as_it_is_requested(monkeypatch) -> Callable[[Callable[[], Any]], None]:
    """Return a function that lets something happen as soon as a task has its request in Required Actions."""

    create_request = required_actions.create_request

    def then(happens: Callable[[], Any]) -> None:
        def created(*args: Any, **request: Any) -> None:
            create_request(*args, **request)
            happens()

        monkeypatch.setattr(required_actions, "create_request", created)

    return then


def responses(emulator) -> list[tuple[str, str]]:
    effects = [e for e in emulator.effects() if e["action"] == "respond" and e["via"] == "api"]
    return [(effect["detail"]["option"], effect["detail"]["comment"]) for effect in effects]


def test_choice_in_required_actions_gives_a_row(emulator, tmp_path, monkeypatch, as_soon_as_it_is_requested):
    monkeypatch.setattr(procore_approval, "read_response", recorded)
    as_soon_as_it_is_requested(lambda: choose("Reject", in_state="running"))

    done = run(OPERATOR, root=f"file://{tmp_path}", amounts={"5001": 12000})

    assert done.state == "success"
    ((option, comment),) = responses(emulator)
    assert option == "Reject"
    assert "Kim" in comment
    (row,) = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    assert (row["decided"], row["where"], row["by"], row["item_id"]) == ("Reject", "airflow", "Kim", "5001")


@pytest.mark.slow
def test_response_in_procore_gives_a_row(emulator, tmp_path, as_soon_as_it_is_requested):
    path = "procore/instances/700001/respond"
    as_soon_as_it_is_requested(
        lambda: emulator.control("POST", path, login="integration@example.com", option="Approve")
    )

    done = run(OPERATOR, root=f"file://{tmp_path}")

    assert (done.state, responses(emulator)) == ("success", [])
    (row,) = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    assert (row["decided"], row["where"], row["by"]) == ("Approve", "procore", "integration@example.com")


def test_approval_in_airflow_first_responds_to_each_order(emulator):
    emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="5002")

    with person("Approve"):
        done = run(AIRFLOW_FIRST)

    assert done.state == "success"
    assert responses(emulator) == [("Approve", "Approved in Airflow by Kim.")] * 2
    assert result(done, "sum_up") == 2


@pytest.mark.slow
def test_rejection_in_airflow_sends_nothing(emulator):
    with person("Reject"):
        done = run(AIRFLOW_FIRST)

    assert done.state == "success"
    assert (responses(emulator), states(done)["respond"], result(done, "sum_up")) == ([], ["skipped"], 0)
