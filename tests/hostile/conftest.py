"""Connections to a server that answers badly, and the good answers that the bad ones are made of."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from airflow.sdk import Connection

from airflow_provider_workflows.client import uploads
from airflow_provider_workflows.client.rest import RestClient
from airflow_provider_workflows.emulator import Emulator
from tests.hostile.calls import CALLS, TOOL
from tests.hostile.replay import Exchange, recorded


@pytest.fixture(scope="session")
def connections(running_emulator: Emulator) -> dict[str, Connection]:
    """The connections of both products, each signing in for itself."""
    found = {}
    for conn_type in ("procore", "workflowsoft"):
        fields = running_emulator.connection(conn_type)
        if conn_type == "workflowsoft":
            fields["extra"]["new_integrations"] = "consumed_on_read"  # then a poll may not be sent twice
        fields["extra"] = json.dumps(fields["extra"])
        found[f"{conn_type}_default"] = Connection(conn_id=f"{conn_type}_default", **fields)
    return found


@pytest.fixture(autouse=True)
def connected(connections: dict[str, Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BaseHook, "get_connection", lambda self, conn_id: connections[conn_id])


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is tried again is tried at once, by a clock that a pause moves."""
    slept = [0.0]
    waiting = {"sleep": slept.append, "clock": lambda: time.time() + sum(slept)}
    monkeypatch.setattr(RestClient.__init__, "__kwdefaults__", {**RestClient.__init__.__kwdefaults__, **waiting})
    monkeypatch.setattr(uploads, "LONGEST_WAIT", 0.0)


@pytest.fixture(scope="session")
def good(running_emulator: Emulator, connections: dict[str, Connection]) -> dict[str, list[Exchange]]:
    """What the emulator answers to each call."""
    running_emulator.control("POST", "reset", seed="default")
    blocked = running_emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5009")
    running_emulator.control("POST", f"procore/instances/{blocked['id']}/block", reason="x")
    running_emulator.control("POST", "workflowsoft/processes", diagram="Field types", fields={})
    found: dict[str, list[Exchange]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseHook, "get_connection", lambda self, conn_id: connections[conn_id])
        for call in CALLS:
            answers: list[Any] = found.setdefault(str(call), [])
            hook = call.hook()
            with recorded(answers):
                call.made(hook)
            hook.close()
    return found
