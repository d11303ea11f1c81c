"""What OpenLineage's provider emits of a real run: who decided what when, and the datasets of exports and reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_workflows.emulator import Emulator
from tests.support.versions import AIRFLOW

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="the OpenLineage provider of older Airflows emits no hitl_summary"),
]

COMMENT = "words of a person"
# In a process of its own, because Airflow decides at its start whether OpenLineage listens.
RUN = f"""
import sys
from pathlib import Path
from airflow.utils.db import initdb
import pytest
from tests.support.examples import run_source

SOURCE = '''
import os
from airflow.sdk import dag
from airflow_provider_workflows.operators.procore import (
    ProcoreCycleTimeReportOperator, ProcoreHistoryToObjectStorageOperator, ProcoreRespondOperator)
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor

ROOT = os.environ["ROOT"]


@dag(schedule=None, dag_id="lineage")
def lineage():
    respond = ProcoreRespondOperator(
        task_id="respond", instance_id="700001", option="Approve", comment="{COMMENT}")
    wait = ProcoreInstanceSensor(
        task_id="wait", instance_id="700001", step_decided="Budget Check", poke_interval=1, timeout=30)
    export = ProcoreHistoryToObjectStorageOperator(
        task_id="export", tool_type="purchase_order_contract", path=ROOT + "/audit", file_format="jsonl")
    report = ProcoreCycleTimeReportOperator(
        task_id="report", history_path=ROOT + "/audit", output_path=ROOT + "/report.html")
    respond >> wait >> export >> report


lineage()
'''
initdb()
with pytest.MonkeyPatch.context() as patch:
    run = run_source("lineage", SOURCE, patch, Path(sys.argv[1]))
assert run.state == "success", run.state
"""


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The event at the end of each task, as the file transport wrote it, by the task's id; ``root`` is the folder."""
    root = tmp_path_factory.mktemp("lineage")
    file = root / "events.jsonl"
    (root / "dags").mkdir()
    with Emulator() as emulator:
        environment = {
            **os.environ,
            "AIRFLOW_HOME": str(root / "home"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/airflow.db",
            "AIRFLOW_CONN_PROCORE_DEFAULT": json.dumps(emulator.connection("procore")),
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "file", "log_file_path": str(file), "append": True}),
            "AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD": "True",
            "ROOT": f"file://{root}",
        }
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(root / "dags")],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    ended = [event for event in map(json.loads, file.read_text().splitlines()) if event["eventType"] == "COMPLETE"]
    return {event["job"]["name"].rpartition(".")[2]: {**event, "root": str(root)} for event in ended}


def summary(event: dict[str, Any]) -> dict[str, Any]:
    return event["run"]["facets"]["airflow"]["task"]["hitl_summary"]


def datasets(event: dict[str, Any], kind: str) -> set[tuple[str, str]]:
    return {(dataset["namespace"], dataset["name"].removeprefix(event["root"])) for dataset in event[kind]}


@pytest.mark.parametrize("task_id", ["respond", "wait"])
def test_events_say_who_decided_what_when(events, task_id):
    found = summary(events[task_id])

    assert (found["instance_id"], found["item_id"], found["step"]) == ("700001", "5001", "Budget Check")
    assert (found["decision"], found["decision_type"]) == ("Approve", "approve")
    assert found["decided_by"]
    assert found["decided_at"].startswith("20")
    assert COMMENT not in json.dumps(found)


def test_exports_and_reports_declare_their_datasets(events):
    audit = {("file", f"/audit/{table}.jsonl") for table in ("instances", "steps", "responses")}

    assert datasets(events["export"], "outputs") == audit
    assert datasets(events["report"], "inputs") == {("file", "/audit")}
    assert datasets(events["report"], "outputs") == {("file", "/report.html")}
