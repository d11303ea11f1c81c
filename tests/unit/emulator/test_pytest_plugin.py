"""The fixtures for the tests of users, in a project of a user: with the wheel, and without this tree."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from airflow_provider_workflows.emulator import pytest_plugin

ROOT = Path(__file__).parents[3]
PROJECT = {
    "dags/orders.py": """
import pendulum
from airflow.sdk import dag
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor, ProcoreResponseRequestedSensor


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False)
def orders():
    waiting = ProcoreResponseRequestedSensor(task_id="waiting", tool_type="purchase_order_contract")
    respond = ProcoreRespondOperator(
        task_id="respond",
        option="Approve",
        instance_id="{{ ti.xcom_pull('waiting')[0]['instance_id'] }}",
        step_occurrence_id="{{ ti.xcom_pull('waiting')[0]['step_occurrence_id'] }}",
        retries=0,
    )
    instance_id = "{{ ti.xcom_pull('waiting')[0]['instance_id'] }}"
    waiting >> respond >> ProcoreInstanceSensor(task_id="outcome", instance_id=instance_id, deferrable=True)


orders()
""",
    "test_orders.py": """
import threading
import time
from unittest.mock import MagicMock

import airflow_provider_workflows
import pytest
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.operators.procore import ProcoreRefreshInstanceOperator, ProcoreRespondOperator
from orders import orders


def options(emulator):
    return [effect["detail"]["option"] for effect in emulator.effects() if effect["action"] == "respond"]


def dana_approves_after_us(emulator):
    while not options(emulator):
        time.sleep(0.1)
    emulator.control("POST", "procore/instances/700001/respond", login="dana@example.com", option="Approve")


@pytest.mark.usefixtures("procore_connection")
def test_the_order_is_approved(workflows_emulator):
    threading.Thread(target=dana_approves_after_us, args=[workflows_emulator], daemon=True).start()

    run = orders().test()

    assert run.state == "success"
    assert options(workflows_emulator) == ["Approve", "Approve"]


@pytest.mark.parametrize("procore_conn_id", ["site_b"])
def test_an_operator_by_itself_with_another_connection(procore_connection, workflows_emulator):
    assert procore_connection == "site_b"
    respond = ProcoreRespondOperator(
        task_id="respond", procore_conn_id="site_b", instance_id="700001", option="Return", retries=0
    )
    respond.execute({"ti": MagicMock()})  # Airflow 3.0 pushes the values of the result one by one

    assert options(workflows_emulator) == ["Approve"], "it was returned"


def test_each_test_has_the_emulator_for_itself(workflowsoft_connection, workflows_emulator):
    assert workflows_emulator.effects() == []
    assert WorkflowsoftHook(workflowsoft_connection).list_process_diagrams()
    assert ".user-venv" in airflow_provider_workflows.__file__
""",
    "test_extra.py": """
def test_it_takes_the_emulator(workflows_emulator):
    pass
""",
}
# The extra is not installed here: none of the modules that it brings is to be found.
WITHOUT_EXTRA = """
import importlib.util, sys
import pytest
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in {"fastapi", "uvicorn"} else found(name, *more)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_extra.py"]))
"""
LOADED = """
import sys, time
import pytest
before, start = set(sys.modules), time.process_time()
import airflow_provider_workflows.emulator.pytest_plugin
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


# As the plugin's own, which this tree's settings exclude: it would be loaded before coverage is measured.
_running_workflows_emulator = pytest_plugin._running_workflows_emulator
workflows_emulator = pytest_plugin.workflows_emulator
procore_conn_id = pytest_plugin.procore_conn_id
procore_connection = pytest_plugin.procore_connection
workflowsoft_conn_id = pytest_plugin.workflowsoft_conn_id
workflowsoft_connection = pytest_plugin.workflowsoft_connection


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A project of a user, with an environment in which the wheel is installed beside what this one has."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "dags").mkdir()
    for name, text in PROJECT.items():
        (folder / name).write_text(text)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    environment = folder / ".user-venv"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (wheel,) = (folder / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)  # a wheel without compiled code is installed by that
    # Behind it, and so that a .pth file of this environment, which leads to this tree, does not count there.
    (packages / "beside.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder


def run_in(project: Path, *command: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    env = {**inherited, "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags")}
    python = str(project / ".user-venv" / "bin" / "python")
    return subprocess.run([python, *command], cwd=project, env=env, capture_output=True, text=True, timeout=500)


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.slow
def test_the_fixtures_pass_a_right_test_and_fail_a_wrong_one(project):
    done = run_in(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "pythonpath=dags", "test_orders.py")

    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "AssertionError: it was returned" in done.stdout
    assert done.returncode == 1


def test_without_the_extra_the_fixtures_say_what_to_install(project):
    done = run_in(project, "-c", WITHOUT_EXTRA)

    assert "needs fastapi, uvicorn: pip install 'airflow-provider-workflows[emulator]'" in done.stdout, done.stderr
    assert done.returncode == 1


def test_pytest_plugin_loads_little_beyond_the_standard_library(project):
    done = run_in(project, "-c", LOADED)

    assert "airflow_provider_workflows" in done.stdout, done.stderr
    for heavy in ("airflow'", "fastapi", "requests", "uvicorn", "pydantic", "pendulum"):
        assert heavy not in done.stdout


def test_the_connections_lead_to_the_emulator_for_this_test(
    workflows_emulator, procore_connection, workflowsoft_connection
):
    assert (procore_connection, workflowsoft_connection) == ("procore_default", "workflowsoft_default")
    assert workflows_emulator.url in os.environ["AIRFLOW_CONN_PROCORE_DEFAULT"]
    assert workflows_emulator.url in os.environ["AIRFLOW_CONN_WORKFLOWSOFT_DEFAULT"]
    assert workflows_emulator.effects() == []


def test_the_connections_are_gone_afterwards():
    assert "AIRFLOW_CONN_PROCORE_DEFAULT" not in os.environ
