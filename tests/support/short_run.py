"""
A pytest plugin that keeps runs short.

Costly tests run some of their cases, long ones start first, and those that share a real Airflow share a process.
"""

from __future__ import annotations

import gc
import random

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    _sample(items)
    items.sort(key=_turn)
    for item in items:
        if any(map(item.get_closest_marker, ("e2e", "live", "browser"))):
            item.add_marker(pytest.mark.xdist_group(_deployment(item)))


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


def _deployment(item: pytest.Item) -> str:
    """Return the name of the Airflow that a test shares with others, for ``--dist=loadgroup``."""
    shared = {"running", "shared"} & set(getattr(item, "fixturenames", ()))
    return shared.pop() if shared else item.path.stem


def _turn(item: pytest.Item) -> int:
    """
    Return 0 for a real Airflow, 1 for DAGs in this process, 2 for the rest.

    The first waits most of its time, while others work. What runs a DAG prepares Airflow's API once in each process, so
    that few processes should do it.
    """
    if item.get_closest_marker("e2e"):
        return 0
    return 1 if "airflow_db" in getattr(item, "fixturenames", ()) else 2
