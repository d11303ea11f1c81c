"""One Airflow on PostgreSQL for several files of tests, each with DAGs, connections and an emulator of its own."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_workflows.emulator import Emulator
from tests.live.kills import QUICK
from tests.support.crowd import SETTINGS
from tests.support.engines import postgresql
from tests.support.live_airflow import LiveAirflow


@dataclass
class SharedAirflow:
    """
    An Airflow that each file of tests leaves as it found it, with all processes running.

    :param airflow: The Airflow.
    :param dags: Its DAGs folder.
    :param emulators: One for each file of tests, by the suffix of the connections to it.
    """

    airflow: LiveAirflow
    dags: Path
    emulators: dict[str, Emulator]

    def add(self, *files: Path) -> None:
        """Put files into the DAGs folder."""
        for file in files:
            shutil.copy(file, self.dags)


@pytest.fixture(scope="package")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedAirflow]:
    """A running Airflow without DAGs; the example DAGs would find the emulator ``default``."""
    dags: Path = tmp_path_factory.mktemp("dags")
    with contextlib.ExitStack() as stack:
        emulators = {suffix: stack.enter_context(Emulator()) for suffix in ("default", "crowd", "modes")}
        connections = {
            f"{kind}_{suffix}": emulator.connection(kind)
            for suffix, emulator in emulators.items()
            for kind in ("procore", "workflowsoft")
        }
        emulators["default"].control("PATCH", "flags", new_integrations="consumed_on_read")
        connections["workflowsoft_default"]["extra"]["new_integrations"] = "consumed_on_read"
        database = stack.enter_context(postgresql())
        settings = {**SETTINGS, **QUICK}
        airflow = stack.enter_context(LiveAirflow(dags, connections, settings, database=database))
        yield SharedAirflow(airflow, dags, emulators)
