"""The Legacy example DAG, run with people who decide."""

from __future__ import annotations

import pytest

from tests.support import examples
from tests.support.people import People
from tests.unit.operators.procore_legacy.test_perform_activity import performed

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_db", "airflow_connections")]


@pytest.mark.parametrize(
    ("reviewer", "reached"),
    [("Approve", "order_the_goods"), pytest.param("Deny", "rework", marks=pytest.mark.slow)],
)
@examples.EITHER_MODE
def test_example_submits_once_and_branches_on_the_decision(emulator, monkeypatch, reviewer, reached, deferrable):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)

    with People(emulator, reviewer=reviewer, thinking=1.0):
        run = examples.run("example_procore_legacy_purchase_order_approval")

    states = {task.task_id: task.state for task in run.get_task_instances()}
    assert states[reached] == "success"
    assert performed(emulator) == [("90001", "Submit for Approval"), ("90003", reviewer)]
