"""The example DAG, from a process that a person starts to the step that is completed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.examples import EITHER_MODE, load

pytestmark = pytest.mark.compat

EXAMPLE = "example_workflowsoft_integration_step"


@pytest.mark.usefixtures("airflow_db")
@EITHER_MODE
@pytest.mark.parametrize("mode", ["consumed_on_read", pytest.param("listed_until_completed", marks=pytest.mark.slow)])
def test_step_is_received_filled_and_completed_once(emulator, set_connection, monkeypatch, mode, deferrable):
    emulator.control("PATCH", "flags", new_integrations=mode)
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"new_integrations": mode}
    set_connection("workflowsoft_default", connection)
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)
    started = emulator.control("POST", "workflowsoft/processes", diagram="Event planning")

    run = load(EXAMPLE).test()

    assert str(run.state) == "success"
    own = [e for e in emulator.effects() if e["target"].get("integration_instance_id") and e["via"] == "api"]
    done = [(e["action"], e["target"]["integration_instance_id"]) for e in own if e["action"] != "deliver"]
    instance_id = str(started["integration_instance_id"])
    assert done == [("write_fields", instance_id), ("complete", instance_id)]
    written = next(e["detail"]["fields"] for e in own if e["action"] == "write_fields")
    # "Event exists" is true already, so it is not sent.
    assert written == {"Event duration": "1670.25", "Venue": '"Main hall"'}


@pytest.mark.slow
@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize("mode", ["consumed_on_read", "listed_until_completed"])
def test_process_started_while_the_dag_waits_is_completed(emulator, set_connection, monkeypatch, mode):
    emulator.control("PATCH", "flags", new_integrations=mode)
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"new_integrations": mode}
    set_connection("workflowsoft_default", connection)
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", "True")
    starting = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from airflow_provider_workflows.emulator import Emulator; "
            "emulator = Emulator.attach(sys.argv[1])\n"
            "while not any('new-integrations' in r['path'] for r in emulator.requests()): time.sleep(0.05)\n"
            "emulator.control('POST', 'workflowsoft/processes', diagram='Event planning')",
            emulator.url,
        ]
    )

    run = load(EXAMPLE).test()

    assert starting.wait(30) == 0
    assert str(run.state) == "success"
    assert [e["detail"]["times"] for e in emulator.effects() if e["action"] == "complete"] == [1]
