"""A tenant that is filled once: a contract check only reads, so each test changes its behaviour flags only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_workflows.diagnostics.contract_check.check import CheckedContract, check_contract
from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from tests.support.contract_tenant import ContractTenant


@pytest.fixture(scope="module")
def filled() -> Iterator[ContractTenant]:
    with Emulator() as emulator:
        yield ContractTenant(emulator)


@pytest.fixture
def tenant(filled: ContractTenant) -> Iterator[ContractTenant]:
    yield filled
    filled.control("flags", "PATCH", **{name: flag.values[0] for name, flag in BEHAVIOUR_FLAGS.items()})
    filled.control("faults", "DELETE")


@pytest.fixture
def check(tenant: ContractTenant, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CheckedContract]:
    """Return a function that checks the tenant, without waiting for its rate limit."""

    def check_it(conn_type: str = "procore", of: ContractTenant = tenant, **extra: Any) -> CheckedContract:
        monkeypatch.setenv("AIRFLOW_CONN_TENANT", of.connection(conn_type, **extra))
        instances = of.ws_instances if conn_type == "workflowsoft" else []
        return check_contract("tenant", instances, sleep=lambda seconds: None)

    return check_it
