"""Loops of task groups (Airflow 3.4+): each iteration responds to its own step occurrence, once."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support import examples
from tests.support.people import People, describe
from tests.support.versions import AIRFLOW

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(AIRFLOW < (3, 4), reason="before Airflow 3.4 there are no loops of task groups"),
    pytest.mark.usefixtures("airflow_db", "airflow_connections"),
]


class Director(People):
    """Returns the order once, and approves it then."""

    responses = ("Return", "Approve")

    @property
    def director(self) -> str:
        first, *rest = self.responses
        self.responses = tuple(rest) or (first,)
        return first

    @director.setter
    def director(self, response: str) -> None:
        """Ignore it: the responses are fixed."""


def responses(emulator) -> list[str]:
    return [describe(effect) for effect in emulator.effects() if effect["action"] == "respond"]


ROUNDS = [
    "Budget Check: Approve",
    "Director Approval: Return",
    "Budget Check: Approve",
    "Director Approval: Approve",
]


def test_example_resubmits_until_the_order_is_not_returned(emulator):
    with Director(emulator):
        run = examples.run("example_procore_rework")

    assert run.state == "success"
    assert responses(emulator) == ROUNDS
    assert examples.result(run, "report") == "Approve"


LOOP = """
from airflow.sdk import dag, task_group
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor


@dag(schedule=None)
def pins():
    @task_group
    def submit():
        respond = ProcoreRespondOperator(task_id="respond", instance_id="700001", option="Approve", confirm_timeout=5)
        decided = ProcoreInstanceSensor(
            task_id="decided", instance_id="700001", step_decided="Director Approval",
            after=respond.output["step_occurrence_id"], poke_interval=1, timeout=60)
        respond >> decided

    def is_decided(*, loop):
        return loop.result["decision"]["option"] != "Return"

    submit.loop(max_iterations=3, until=is_decided)


pins()
"""


def test_pins_of_two_iterations_do_not_collide(emulator, monkeypatch, tmp_path):
    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    with Director(emulator):
        run = examples.run_source("pins", LOOP, monkeypatch, tmp_path)

    assert run.state == "success"
    assert responses(emulator) == ROUNDS
    with create_session() as session:
        rows = session.query(TaskStateStoreModel).filter_by(dag_id="pins", run_id=run.run_id).all()
    pins = {row.value for row in rows if row.key.startswith("respond")}
    assert len(pins) == 2
    # Each iteration has a deadline of its own, too.
    assert Counter(row.key.partition(".")[0] for row in rows if row.task_id == "submit.decided")["deadline"] == 2
