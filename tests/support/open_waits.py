"""Waits of all three products that stay open, for the Approvals page: the DAG and the emulator's workflows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from airflow_provider_workflows.emulator import Emulator
from tests.support.live_airflow import LiveAirflow
from tests.support.past_emulator import DAYS_BEHIND

DAG_ID = "open_waits"
WAITS = 8

_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
# Airflow's setting for the DAGs folder and the folder of this DAG.
BUNDLES = json.dumps(
    [
        {"name": "dags-folder", "classpath": _LOCAL, "kwargs": {}},
        {
            "name": "open-waits",
            "classpath": _LOCAL,
            "kwargs": {"path": str(Path(__file__).parents[1] / "live" / "open_waits")},
        },
    ]
)


def start_workflows(emulator: Emulator) -> dict[str, Any]:
    """
    Start workflows that wait for different people, some of them days ago; return the ``conf`` of the DAG's run.

    :param emulator: An emulator whose clock is behind; it is right afterwards.
    """

    def start(tool_type: str, item_id: str, *responses: tuple[str, str]) -> str:
        instance = emulator.control("POST", "procore/instances", tool_type=tool_type, item_id=item_id)["id"]
        for login, option in responses:
            emulator.control("POST", f"procore/instances/{instance}/respond", login=login, option=option)
        return str(instance)

    integration = "integration@example.com"
    procore = [
        start("purchase_order_contract", "5101", (integration, "Approve")),
        start("requisition", "7301", (integration, "Match")),
    ]
    legacy = [emulator.control("POST", "procore/legacy/instances", workflow="Joint Review Workflow")["id"]]
    emulator.control("POST", "clock", advance=(DAYS_BEHIND - 1) * 86400)
    procore += [
        start("purchase_order_contract", "5102", (integration, "Return")),
        start("submittal", "8401"),
    ]
    legacy.append(emulator.control("POST", "procore/legacy/instances", workflow="Joint Review Workflow")["id"])
    emulator.control("POST", "clock", advance=86400)
    return {"procore": procore, "procore_legacy": [str(instance) for instance in legacy]}


def open_waits(airflow: LiveAirflow, workflows: dict[str, Any]) -> str:
    """Start the DAG's run for started workflows; return its id as soon as all of its waits are deferred."""
    run_id = airflow.trigger(DAG_ID, workflows)
    airflow.until("all waits are open", lambda: airflow.count(DAG_ID, run_id, "deferred") == WAITS)
    return run_id
