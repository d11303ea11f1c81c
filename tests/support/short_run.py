"""
A pytest plugin that keeps runs short.

Costly tests run some of their cases, long ones start first, and those that share a real Airflow share a process.
"""

from __future__ import annotations

import gc
import random

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _sample(items)
    items.sort(key=_turn)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Let the garbage collector pass over what was imported and collected, which `conftest.py` did without it."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 20)


def _sample(items: list[pytest.Item]) -> None:
    """Mark all but n cases of each test with the marker ``sample(n)`` slow."""
    cases: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        sample = item.get_closest_marker("sample")
        if sample is not None and not item.get_closest_marker("slow"):
            cases.setdefault((item.nodeid.partition("[")[0], *sample.args), []).append(item)
    for (test, number), of_test in cases.items():
        # The same in every run and process; drawn, because every third case can have the same first parameter.
        drawn = random.Random(test).sample(of_test, min(number, len(of_test)))
        for item in of_test:
            if item not in drawn:
                item.add_marker("slow")


class _ByFolder(LoadScopeScheduling):
    """Runs the tests of a folder in one process, because they share a real Airflow."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0].rpartition("/")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """Return the schedule for ``--dist=loadscope``; else xdist takes its own."""
    return _ByFolder(config, log) if config.getvalue("dist") == "loadscope" else None


def _turn(item: pytest.Item) -> int:
    """
    Return 0 for a real Airflow, 1 for DAGs in this process, 2 for the rest.

    The first waits most of its time, while others work. What runs a DAG prepares Airflow's API once in each process, so
    that few processes should do it.
    """
    if item.get_closest_marker("e2e"):
        return 0
    return 1 if "airflow_db" in getattr(item, "fixturenames", ()) else 2
