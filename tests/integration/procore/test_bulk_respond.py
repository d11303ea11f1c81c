"""The example that responds to many orders: a person approves the plan, and exactly that is sent."""

from __future__ import annotations

import csv

import pytest

from tests.support.examples import result, run, states
from tests.support.people_in_airflow import person
from tests.support.versions import AIRFLOW
from tests.unit.operators.procore.test_bulk_respond import responses, start

EXAMPLE = "example_procore_bulk_respond"

pytestmark = [
    pytest.mark.usefixtures("airflow_db", "airflow_connections"),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="before Airflow 3.3 dag.test() ends without a response"),
]


def test_approved_plan_is_sent_once(emulator, tmp_path):
    first, second = start(emulator, 2, first_item_id=6001)

    with person("Approve"):
        done = run(EXAMPLE, amounts={"6001": "100.10", "6002": "20.05"}, csv_path=f"file://{tmp_path}")

    assert done.state == "success"
    assert sorted(responses(emulator)) == [(first, "Approve"), (second, "Approve")]
    assert result(done, "report") == {"sent": 2, "already_recorded": 0, "skipped": 0}
    (file,) = tmp_path.iterdir()
    with file.open(newline="") as lines:
        assert sorted(row["amount"] for row in csv.DictReader(lines)) == ["100.10", "20.05"]


@pytest.mark.slow
def test_rejected_plan_is_not_sent(emulator, tmp_path):
    with person("Reject"):
        done = run(EXAMPLE, amounts={"5001": "1.00"}, csv_path=f"file://{tmp_path}")

    assert done.state == "success"
    assert (responses(emulator), states(done)["apply"], result(done, "report")) == ([], ["skipped"], {"sent": 0})
