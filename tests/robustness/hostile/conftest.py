"""Connections to a server with bad responses, and the good responses that the bad ones are made of."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook
from airflow.sdk import Connection

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.hooks import procore_uploads as uploads
from airflow_provider_workflows.hooks.procore import ProcoreHook
from tests.robustness.hostile.calls import CALLS, TOOL
from tests.robustness.hostile.replay import Exchange, recorded

READY = "ready-token-4711"
EXTRA: dict[str, dict[str, Any]] = {
    "procore": {"environment": "custom", "company_id": "4264807", "project_id": "1001"},
    "workflowsoft": {"allow_consume": True, "new_integrations": "consumed_on_read"},  # so a poll may not go twice
}
Connections = dict[str, Connection]


def connections_to(url: str, *, signing_in: bool) -> Connections:
    """Return connections of both products, with the emulator's logins or with ready tokens."""
    found = {}
    for conn_type, extra in EXTRA.items():
        fields: dict[str, Any] = {"extra": extra}
        if conn_type == "procore":
            login = {"login": "emulator-client", "password": "emulator-secret"}
            credentials = {"login_url": url} if signing_in else {"access_token": READY}
            fields = {"extra": {**extra, **credentials}, **(login if signing_in else {})}
        else:
            fields["password"] = "emulator-password" if signing_in else READY
            fields |= {"login": "admin@example.com"} if signing_in else {}
        name = f"{conn_type}_default"
        fields["extra"] = json.dumps(fields["extra"])
        found[name] = Connection(conn_id=name, conn_type=conn_type, host=url, **fields)
    return found


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[Connections], None]:
    """Return a function that lets the hooks find these connections."""

    def connect(connections: Connections) -> None:
        monkeypatch.setattr(BaseHook, "get_connection", lambda self, conn_id: connections[conn_id])

    return connect


@pytest.fixture(autouse=True)
def connected(running_emulator: Emulator, connect: Callable[[Connections], None]) -> None:
    connect(connections_to(running_emulator.url, signing_in=False))


@pytest.fixture(autouse=True)
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every retry is made at once, on a clock that a sleep moves."""
    slept = [0.0]
    waiting = {"sleep": slept.append, "clock": lambda: time.time() + sum(slept)}
    monkeypatch.setattr(RestClient.__init__, "__kwdefaults__", {**RestClient.__init__.__kwdefaults__, **waiting})
    monkeypatch.setattr(uploads, "MAX_WAIT_SECONDS", 0.0)


@pytest.fixture(scope="session")
def good(running_emulator: Emulator) -> dict[str, list[Exchange]]:
    """The emulator's responses to each call, the sign-in first."""
    running_emulator.control("POST", "reset", seed="default")
    blocked = running_emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5009")
    running_emulator.control("POST", f"procore/instances/{blocked['id']}/block", reason="x")
    running_emulator.control("POST", "workflowsoft/processes", diagram="Field types", fields={})
    connections = connections_to(running_emulator.url, signing_in=True)
    # This fixture runs before the one that clears these for each test.
    TokenAuth._shared.clear()
    ProcoreHook._tools.clear()
    found: dict[str, list[Exchange]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseHook, "get_connection", lambda self, conn_id: connections[conn_id])
        for call in CALLS:
            responses = found.setdefault(str(call), [])
            hook = call.hook()
            with recorded(responses):
                call.made(hook)
            hook.close()
    return found
