"""
Fixtures for the tests of your own DAGs, which pytest finds wherever this package is installed.

This module is loaded in every run of pytest, so it imports nothing that a test did not ask for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from . import Emulator

NEEDED = ("fastapi", "python_multipart", "uvicorn")  # what the extra installs


@pytest.fixture(scope="session")
def _running_workflows_emulator() -> Iterator[Emulator]:
    missing = [module for module in NEEDED if find_spec(module) is None]
    if missing:
        pytest.fail(
            f"The emulator needs {', '.join(missing)}: pip install 'airflow-provider-workflows[emulator]'",
            pytrace=False,
        )
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def workflows_emulator(_running_workflows_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """An emulator of both products as it is at the start; sensors made in this test look every second."""
    _running_workflows_emulator.control("POST", "reset", seed="default")
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__POKE_INTERVAL", "1")
    return _running_workflows_emulator


@pytest.fixture
def procore_conn_id() -> str:
    """The id that ``procore_connection`` gives its connection; override or parametrize it for another one."""
    return "procore_default"


@pytest.fixture
def workflowsoft_conn_id() -> str:
    """The id that ``workflowsoft_connection`` gives its connection; override or parametrize it for another one."""
    return "workflowsoft_default"


@pytest.fixture
def procore_connection(workflows_emulator: Emulator, procore_conn_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an Airflow connection to the emulator's Procore, which is there for this test."""
    return _connect(workflows_emulator, "procore", procore_conn_id, monkeypatch)


@pytest.fixture
def workflowsoft_connection(
    workflows_emulator: Emulator, workflowsoft_conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The id of an Airflow connection to the emulator's Workflowsoft, which is there for this test."""
    return _connect(workflows_emulator, "workflowsoft", workflowsoft_conn_id, monkeypatch)


def _connect(emulator: Emulator, conn_type: str, conn_id: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(emulator.connection(conn_type)))
    return conn_id
