from __future__ import annotations

import pytest

from tests.support import examples
from tests.support.people import People, describe
from tests.unit.operators.procore.test_respond import responses

pytestmark = pytest.mark.compat


@pytest.mark.usefixtures("airflow_db", "airflow_connections")
@pytest.mark.parametrize(
    ("director", "reached"),
    [("Approve", "order_the_goods"), pytest.param("Reject", "notify_the_buyer", marks=pytest.mark.slow)],
)
@examples.EITHER_MODE
def test_example_responds_once_and_branches_on_the_outcome(emulator, monkeypatch, director, reached, deferrable):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)

    with People(emulator, director=director):
        run = examples.run("example_procore_purchase_order_approval")

    states = {task.task_id: task.state for task in run.get_task_instances()}
    assert states[reached] == "success"
    assert sorted(states.values()).count("skipped") == 1
    assert responses(emulator) == [("90001", "Approve"), ("90004", director)]
    assert "Budget Check: Approve" in [describe(effect) for effect in emulator.effects()]
