"""No error, no traceback and no line of a log repeats a secret, for any text of the server and the connection."""

from __future__ import annotations

import hashlib
import logging
import secrets
import traceback

import pytest
import requests

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.hooks import procore_uploads as uploads
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from tests.robustness.secrets.connections import failing_connections
from tests.robustness.secrets.failures import PROCORE, WORKFLOWSOFT
from tests.robustness.secrets.scanner import Scanner
from tests.robustness.secrets.servers import Hostile, OtherHost
from tests.support.versions import AIRFLOW

CALLS = {
    **{name: lambda name: ProcoreHook(name).list_tools() for name in PROCORE},
    **{name: lambda name: WorkflowsoftHook(name).list_process_diagrams() for name in WORKFLOWSOFT},
    "linking": lambda name: list(ProcoreLegacyHook(name).list_instances()),
    "lost": lambda name: ProcoreHook(name).respond("1", step_occurrence_id="2", option_id="3"),
}


@pytest.fixture
def other():
    with OtherHost() as server:
        yield server


@pytest.fixture
def hostile(other):
    with Hostile(other) as server:
        yield server


@pytest.fixture
def everything_is_logged(caplog):
    """All that is logged, also by the libraries."""
    caplog.set_level(logging.DEBUG)
    for name in ("urllib3", "requests", "http"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "name",
    # Before Airflow 3.2 it says that there is no such connection, if its extra is no object.
    [name for name in CALLS if AIRFLOW >= (3, 2) or name != "extra_is_not_json"],
)
def test_no_error_traceback_or_log_repeats_a_secret(
    emulator, other, hostile, set_connection, monkeypatch, everything_is_logged, name
):
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (1, 0.0, 120.0))
    secret: dict[str, str] = {}
    set_connection(name, failing_connections(emulator, hostile, secret)[name])

    with pytest.raises(WorkflowsError) as failure:
        CALLS[name](name)

    everything = (
        "".join(traceback.format_exception(failure.value)) + repr(vars(failure.value)) + everything_is_logged.text
    )
    scanner = Scanner({**secret, **{f"token {number}": token for number, token in enumerate(hostile.tokens)}})
    assert scanner.find(everything.encode()) == set(), everything
    assert other.received == []


def test_log_of_an_upload_shows_no_signature(emulator, other, airflow_connections, everything_is_logged, monkeypatch):
    monkeypatch.setattr(uploads, "MAX_WAIT_SECONDS", 0.0)
    signature = secrets.token_hex(20)
    target = {"url": f"{other.url}/bucket/plan?X-Amz-Signature={signature}", "headers": {}}
    upload = {"data": {"upload_id": "u1", "segments": [target]}}
    emulator.control("POST", "faults", method="POST", path="/uploads$", status=201, json=upload)
    segment = {"size": 4, "sha256": hashlib.sha256(b"plan").hexdigest()}

    with pytest.raises(WorkflowsError):  # the emulator does not know this upload
        ProcoreHook().upload("plan.txt", "text/plain", [segment], [b"plan"])

    (stored,) = other.received
    assert signature in stored["path"]
    assert "Authorization" not in stored["headers"]
    assert Scanner({"signature": signature}).find(everything_is_logged.text.encode()) == set()


def test_log_lines_of_libraries_are_searched_too(everything_is_logged, other):
    requests.get(f"{other.url}/given-away", timeout=5)

    assert "given-away" in everything_is_logged.text
