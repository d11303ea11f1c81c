"""A wait on a worker follows a change of its connection by the rule of the shared polls, and looks it up rarely."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.hooks import base
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.rules.look_ups import CONNECTION_TTL_SECONDS, MAX_STALE_SECONDS, MIN_LOOK_UP_SECONDS
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor

pytestmark = pytest.mark.compat

EXPIRED = CONNECTION_TTL_SECONDS + MAX_STALE_SECONDS


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(base, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def connect(emulator, set_connection):
    """Return a function that connects to the emulator by one of its two names, which stand for two servers."""

    def to(name: str, product: str = "procore") -> None:
        host = emulator.url.replace("127.0.0.1", name)
        set_connection(f"{product}_default", {**emulator.connection(product), "host": host})

    to("127.0.0.1")
    to("127.0.0.1", "workflowsoft")
    return to


def server(hook) -> str:
    return hook.current_conn().base_url.split("/")[2].split(":")[0]


@pytest.mark.parametrize(
    ("seconds", "has_failed", "found"),
    [
        (CONNECTION_TTL_SECONDS - 1, False, "127.0.0.1"),
        (CONNECTION_TTL_SECONDS, False, "localhost"),
        (MIN_LOOK_UP_SECONDS - 1, True, "127.0.0.1"),
        (MIN_LOOK_UP_SECONDS, True, "localhost"),
    ],
)
def test_changed_connection_is_used_from_the_next_lookup_on(clock, connect, seconds, has_failed, found):
    hook = ProcoreHook()
    first = hook.current_conn()
    connect("localhost")
    clock.now = seconds
    if has_failed:
        hook.request_look_up()

    assert server(hook) == found
    assert (hook.client is first) == (found == "127.0.0.1")


def test_unchanged_connection_keeps_its_client(clock, connect):
    hook = ProcoreHook()
    first = hook.current_conn()
    clock.now = CONNECTION_TTL_SECONDS

    assert hook.current_conn() is first


def test_wait_uses_the_known_connection_while_lookups_fail(clock, connect, monkeypatch):
    hook = ProcoreHook()
    first = hook.current_conn()
    monkeypatch.setenv("AIRFLOW_CONN_PROCORE_DEFAULT", "{")

    for clock.now in (CONNECTION_TTL_SECONDS, EXPIRED):
        assert hook.current_conn() is first
    clock.now = EXPIRED + 1
    with pytest.raises(ConfigurationError, match="PROCORE_DEFAULT"):
        hook.current_conn()


def test_changed_connection_forgets_the_user_and_the_steps(clock, connect, monkeypatch):
    procore, workflowsoft = ProcoreHook(), WorkflowsoftHook()
    monkeypatch.setattr(ProcoreHook, "me", lambda hook: {"id": server(hook)})
    before = procore.user_id
    workflowsoft.resolve_step("Event planning", "Check event")
    for product in ("procore", "workflowsoft"):
        connect("localhost", product)
    clock.now = CONNECTION_TTL_SECONDS
    for hook in (procore, workflowsoft):
        hook.current_conn()

    assert (before, procore.user_id) == ("127.0.0.1", "localhost")
    assert workflowsoft._resolved == {}


@pytest.mark.parametrize("fault", [{"status": 401, "json": {}}, {"reset": "before"}])
def test_poke_mode_continues_with_a_changed_connection(clock, connect, emulator, store, fault):
    sensor = ProcoreInstanceSensor(task_id="wait", instance_id="700001", deferrable=False, timeout=600)
    assert not sensor.poke({"task_state_store": store})
    connect("localhost")
    clock.now = MIN_LOOK_UP_SECONDS
    emulator.control("POST", "faults", method="GET", path="/history$", times=2, **fault)

    assert not sensor.poke({"task_state_store": store})
    assert server(sensor.hook) == "localhost"
