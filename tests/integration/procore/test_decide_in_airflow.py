"""The examples of decisions in Airflow: a person's choice reaches Procore once, and a rejection reaches nobody."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from tests.support.examples import result, run, states
from tests.support.versions import AIRFLOW

hitl = pytest.importorskip("airflow.sdk.execution_time.hitl", reason="before Airflow 3.1 nobody can decide in Airflow")

pytestmark = [
    pytest.mark.usefixtures("airflow_db", "airflow_connections"),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="before Airflow 3.3 dag.test() ends without a response"),
]

OPERATOR, AIRFLOW_FIRST = "example_procore_decide_in_airflow", "example_procore_approve_in_airflow_first"
KIM = {"id": "7", "name": "Kim"}


def record(option: str) -> None:
    """Respond to each open request as Airflow's API does, and resume the tasks that wait for it."""
    from airflow.models.hitl import HITLDetail
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import handle_event_submit
    from airflow.triggers.base import TriggerEvent
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        for detail in session.scalars(select(HITLDetail).where(HITLDetail.responded_at.is_(None))).unique().all():
            detail.responded_at, detail.responded_by = datetime.now(timezone.utc), KIM
            detail.chosen_options, detail.params_input = [option], {}
            waiting = session.get(TaskInstance, detail.ti_id)
            if waiting.state == "awaiting_input":
                handle_event_submit(
                    TriggerEvent(detail.as_resume_event_payload()), task_instance=waiting, session=session
                )


def recorded(ti_id) -> SimpleNamespace:
    """Return what Airflow has recorded; dag.test() runs triggers where Airflow does not say it."""
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session

    with create_session() as session:
        detail = session.get(HITLDetail, ti_id)
        return SimpleNamespace(
            response_received=detail.response_received,
            chosen_options=detail.chosen_options,
            params_input=detail.params_input,
            responded_at=detail.responded_at,
            responded_by_user=SimpleNamespace(**detail.responded_by) if detail.responded_by else None,
        )


@contextmanager
def person(option: str) -> Iterator[None]:
    """Let a person choose this option at each request in Required Actions."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.2):
            record(option)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def responses(emulator) -> list[tuple[str, str]]:
    effects = [e for e in emulator.effects() if e["action"] == "respond" and e["via"] == "api"]
    return [(effect["detail"]["option"], effect["detail"]["comment"]) for effect in effects]


def test_choice_in_required_actions_gives_a_row(emulator, tmp_path, monkeypatch):
    monkeypatch.setattr(hitl, "get_hitl_detail_content_detail", recorded)
    create = hitl.upsert_hitl_detail

    def created_and_decided(**request):
        create(**request)
        record("Reject")

    monkeypatch.setattr(hitl, "upsert_hitl_detail", created_and_decided)

    done = run(OPERATOR, root=f"file://{tmp_path}", amounts={"5001": 12000})

    assert done.state == "success"
    ((option, comment),) = responses(emulator)
    assert option == "Reject"
    assert "Kim" in comment
    (row,) = [json.loads(file.read_text()) for file in tmp_path.iterdir()]
    assert (row["decided"], row["where"], row["by"], row["item_id"]) == ("Reject", "airflow", "Kim", "5001")


@pytest.mark.slow
def test_response_in_procore_gives_a_row(emulator, tmp_path, monkeypatch):
    create = hitl.upsert_hitl_detail

    def created_and_answered(**request):
        create(**request)
        emulator.control("POST", "procore/instances/700001/respond", login="integration@example.com", option="Approve")

    monkeypatch.setattr(hitl, "upsert_hitl_detail", created_and_answered)

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
