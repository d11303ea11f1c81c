"""
Pytest fixtures for tests of your own DAGs, available wherever this package is installed.

Every pytest run loads this module, so it imports the emulator's dependencies only when a test requests a fixture.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from . import Emulator

REQUIRED_MODULES = ("fastapi", "python_multipart", "uvicorn")  # installed by the extra


@pytest.fixture(scope="session")
def _running_workflows_emulator() -> Iterator[Emulator]:
    missing = [module for module in REQUIRED_MODULES if find_spec(module) is None]
    if missing:
        pytest.fail(
            f"The emulator needs {', '.join(missing)}: pip install 'airflow-provider-workflows[emulator]'",
            pytrace=False,
        )
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def workflows_emulator(_running_workflows_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Return a freshly reset emulator. Sensors that the test creates poke every second."""
    _running_workflows_emulator.control("POST", "reset", seed="default")
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__POKE_INTERVAL", "1")
    return _running_workflows_emulator


@pytest.fixture
def procore_conn_id() -> str:
    """Return the id for the connection of ``procore_connection``. Override or parametrize it to change the id."""
    return "procore_default"


@pytest.fixture
def workflowsoft_conn_id() -> str:
    """Return the id for the connection of ``workflowsoft_connection``. Override or parametrize it to change the id."""
    return "workflowsoft_default"


@pytest.fixture
def procore_connection(workflows_emulator: Emulator, procore_conn_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create an Airflow connection to the emulated Procore for this test, and return its id."""
    return _connect(workflows_emulator, "procore", procore_conn_id, monkeypatch)


@pytest.fixture
def workflowsoft_connection(
    workflows_emulator: Emulator, workflowsoft_conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Create an Airflow connection to the emulated Workflowsoft for this test, and return its id."""
    return _connect(workflows_emulator, "workflowsoft", workflowsoft_conn_id, monkeypatch)


def _connect(emulator: Emulator, conn_type: str, conn_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(emulator.connection(conn_type)))
    return conn_id
