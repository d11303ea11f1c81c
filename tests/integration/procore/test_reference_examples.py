"""The examples that only the reference shows: what each of them does."""

from __future__ import annotations

import pytest

from tests.support.examples import result, run, states

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


def test_workflows_follow_the_erp(emulator):
    for item_id in ("5002", "5004"):
        emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id=item_id)

    done = run(
        "example_procore_follow_the_erp", open=["5001", "5003"], cancelled=["5002"], changed=["5004"], bonds=["5006"]
    )

    assert result(done, "report") == {
        "started": 1,
        "running already": 1,
        "not started": 0,
        "by the script": 1,
        "ended": 1,
        "renewed": 1,
    }
    did = {(e["action"], e["target"]["item_id"]) for e in emulator.effects() if e["via"] == "api"}
    assert {item for action, item in did if action == "terminate"} == {"5002", "5004"}  # a restart ends the old one
    assert {item for action, item in did if action == "start"} == {"5003", "5006"}


def test_name_that_workflowsoft_lacks_fails_the_run():
    done = run("example_workflowsoft_check_names", step="Check events")

    assert result(done, "find_missing") == ["Check events"]
    assert states(done)["report"] == ["failed"]
