"""The log of a request whose response was lost: it does not say that a repeated request is not sent again."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import OutcomeUnknown
from airflow_provider_workflows.operators.procore import ProcoreBulkStartInstancesOperator, ProcoreRespondOperator

TOOL = "purchase_order_contract"
ACTIONS = {
    "/bulk_create$": lambda: ProcoreBulkStartInstancesOperator(
        task_id="act", tool_type=TOOL, items=["11", "12"], poll_interval=0.01
    ),
    "/responses$": lambda: ProcoreRespondOperator(
        task_id="act", instance_id="700001", option="Approve", confirm_timeout=0.2
    ),
}


@pytest.mark.usefixtures("airflow_connections", "no_delays")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("path", ACTIONS)
def test_repeated_request_is_not_logged_as_final(emulator, store, capsys, caplog, path, moment):
    emulator.control("POST", "faults", method="POST", path=path, reset=moment)

    ACTIONS[path]().execute({"task_state_store": store})

    logged = [*capsys.readouterr().out.splitlines(), *caplog.messages]
    lost = [line for line in logged if "The response was lost" in line]
    assert lost
    assert not [line for line in lost if OutcomeUnknown.advice in line]
