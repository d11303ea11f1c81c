"""A home for Airflow that belongs to the test run, an emulator, and connections to it."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

gc.disable()  # until the tests run: importing and collecting the tests frees almost no objects

pytest_plugins = ["tests.support.processor_time", "tests.support.short_run"]

SHORTEST_RETENTION = timedelta(days=30)  # of what a retry or a cleared task must still find

# A job that is cancelled must end like Ctrl-C, or the processes that tests started stay.
signal.signal(signal.SIGTERM, signal.default_int_handler)

# Airflow reads its settings when it is first imported, which the test modules do.
_home = tempfile.TemporaryDirectory(prefix="airflow-home-")
os.environ["AIRFLOW_HOME"] = _home.name
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = f"{_home.name}/dags"
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_home.name}/airflow.db"
os.environ["AIRFLOW__WORKFLOWS__POKE_INTERVAL"] = "1"

# How many examples each property test tries. They are the same in every run, so a failure can be repeated. No deadline:
# a busy machine must not fail a test.
for _profile, _examples in (("quick", 25), ("thorough", 75)):
    settings.register_profile(
        _profile,
        max_examples=_examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

from airflow_provider_workflows import version_compat  # noqa: E402  after the environment is set
from airflow_provider_workflows.client.auth import TokenAuth  # noqa: E402  after the environment is set
from airflow_provider_workflows.client.retry import RetryPolicy  # noqa: E402  after the environment is set
from airflow_provider_workflows.emulator import Emulator  # noqa: E402  after the environment is set
from airflow_provider_workflows.hooks.procore import ProcoreHook  # noqa: E402  after the environment is set
from airflow_provider_workflows.polling import workflowsoft as workflowsoft_polls  # noqa: E402  likewise
from tests.support.killed import Killed  # noqa: E402  after the environment is set


@pytest.fixture(autouse=True)
def every_test_signs_in_itself() -> None:
    """Forget the tokens, tools and leases that a process shares."""
    TokenAuth._shared.clear()
    ProcoreHook._tools.clear()
    workflowsoft_polls._leases.clear()


@pytest.fixture(autouse=True)
def quick_first_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let triggers poll soon: what they wait for is a race in Airflow's scheduler, which does not run here."""
    monkeypatch.setattr("airflow_provider_workflows.polling.poll.MIN_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr("airflow_provider_workflows.polling.poll.MIN_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr("airflow_provider_workflows.polling.rate_limiter.FIRST_BLOCK_SECONDS", 0.01)


@pytest.fixture(autouse=True)
def nowhere_to_push_to(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task that a test executes itself push no values one by one, as it does on Airflow 3.0."""
    if "airflow_db" not in request.fixturenames:
        monkeypatch.setattr(version_compat, "XCOM_HOLDS_NONE", True)


@pytest.fixture(autouse=True)
def secrets_of_one_test() -> Iterator[None]:
    """
    Clear the secrets of Airflow's log masker when a test is over.

    It compiles one pattern of all secrets for each new one, so that after thousands of tokens every sign-in is slow.
    """
    yield
    for name, module in list(sys.modules.items()):
        if name.endswith(".secrets_masker") and hasattr(module, "_secrets_masker"):
            masker = module._secrets_masker()
            masker.patterns, masker.replacer = set(), None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wait believe the third consecutive rejection."""
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__REJECTION_PATIENCE", "0")


class Store(dict[str, Any]):
    """Airflow's task state store, as a dict; rejects what the real one would reject."""

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        assert value is not None
        assert retention is None or retention >= SHORTEST_RETENTION
        self[key] = json.loads(json.dumps(value))


@pytest.fixture
def store() -> Store:
    """A task state store; pass the same one to two executions to make the second a retry."""
    return Store()


@pytest.fixture(scope="session")
def running_emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(running_emulator: Emulator) -> Emulator:
    """An emulator as it is at the start."""
    running_emulator.control("POST", "reset", seed="default")
    return running_emulator


@pytest.fixture(scope="session")
def connections(running_emulator: Emulator) -> dict[str, str]:
    """Both default connections to the emulator, as JSON; they stay the same."""
    return {product: json.dumps(running_emulator.connection(product)) for product in ("procore", "workflowsoft")}


@pytest.fixture
def set_connection(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets an Airflow connection from a dict."""

    def set_it(conn_id: str, connection: dict[str, Any]) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(connection))

    return set_it


@pytest.fixture
def airflow_connections(emulator: Emulator, connections: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """Both default connections, to the emulator."""
    for product, connection in connections.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{product.upper()}_DEFAULT", connection)
    return emulator


@pytest.fixture
def reading_leaves_instances(airflow_connections: Emulator, set_connection: Any) -> None:
    """A Workflowsoft that returns an instance until it is completed, and a connection that says so."""
    airflow_connections.control("PATCH", "flags", new_integrations="listed_until_completed")
    connection = airflow_connections.connection("workflowsoft")
    connection["extra"]["new_integrations"] = "listed_until_completed"
    set_connection("workflowsoft_default", connection)


FIRST_RUN = """
from airflow.sdk import dag, task


@dag(schedule=None)
def first():
    task(lambda: None, task_id="only")()


first()
"""


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Airflow's database, after a first run, which imports what every run needs."""
    from airflow.utils.db import initdb

    from tests.support.examples import run_source

    initdb()
    with pytest.MonkeyPatch.context() as patch:
        run_source("first", FIRST_RUN, patch, tmp_path_factory.mktemp("first"))


@pytest.fixture
def airflow_db(database: None) -> None:
    """An empty Airflow database, which `dag.test()` needs; most of what is run then is Airflow."""


@pytest.fixture
def no_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry a call at once, and read again at once while an operator waits for an effect."""
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (5, 0.0, 120.0))
    monkeypatch.setattr("airflow_provider_workflows.operators.base.time.sleep", lambda seconds: None)


@pytest.fixture
def dies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that kills the worker in the next call of a method, before or after its effect."""

    def at(owner: type, name: str, moment: str, about: str = "") -> None:
        """:param about: What the first argument of the call contains, such as the key in a store."""
        really, died = getattr(owner, name), []

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            if died or about not in str(args[:1]):
                return really(self, *args, **kwargs)
            died.append(True)
            if moment == "after":
                really(self, *args, **kwargs)
            raise Killed

        monkeypatch.setattr(owner, name, call)

    return at
