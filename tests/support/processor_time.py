"""A pytest plugin that counts the processor time of each test, and fails the run for a slow test without its marker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

# Of one test without a marker, and without the fixtures that it shares, on a machine as quick as REFERENCE; `make test`
# sets it.
MAX_SECONDS = float(os.environ.get("MAX_PROCESSOR_SECONDS", "inf"))
REFERENCE = 0.08  # seconds that such a machine takes to compute what slowness computes
SHOWN = 15
UNBOUNDED = ("slow", "live", "browser", "e2e")
KEY = "processor_time"

_spent: dict[str, float] = {}
_too_slow: dict[str, float] = {}


def _processor_time() -> float:
    """Return the seconds that this process and the children that it waited for have used."""
    return sum(os.times()[:4])


def slowness() -> float:
    """Return how many times slower than the reference this machine is now; other work makes processors slower, too."""
    start = time.process_time()
    sum(number * number for number in range(1_000_000))
    return max(1.0, (time.process_time() - start) / REFERENCE)


_started = pytest.StashKey[float]()
_called = pytest.StashKey[float]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    item.stash[_started] = _processor_time()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    start = _processor_time()
    try:
        return (yield)
    finally:
        item.stash[_called] = _processor_time() - start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Iterator[Any]:
    report = yield
    if call.when == "teardown":
        # The time that a whole DAG takes in Airflow's database is not counted.
        runs_dags = "airflow_db" in getattr(item, "fixturenames", ())
        is_bounded = not runs_dags and not any(map(item.get_closest_marker, UNBOUNDED))
        bounded = item.stash.get(_called, 0.0) if is_bounded else 0.0
        if bounded > MAX_SECONDS:
            bounded /= slowness()
        report.user_properties.append((KEY, json.dumps([_processor_time() - item.stash[_started], bounded])))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect what the workers send; in the process that the user started."""
    found = dict(report.user_properties).get(KEY)
    if found is not None and report.when == "teardown":
        seconds, bounded = json.loads(str(found))
        _spent[report.nodeid] = seconds
        if bounded > MAX_SECONDS:
            _too_slow[report.nodeid] = bounded


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    is_worker = hasattr(session.config, "workerinput")
    if _too_slow and exitstatus == pytest.ExitCode.OK and not is_worker and "PYTEST_CURRENT_TEST" not in os.environ:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if len(_spent) > SHOWN:
        slowest = sorted(_spent.items(), key=lambda item: -item[1])[:SHOWN]
        total = sum(_spent.values())
        terminalreporter.section(f"processor time: {total:.0f} s; the {SHOWN} slowest tests")
        for name, seconds in slowest:
            terminalreporter.write_line(f"{seconds:6.2f} s  {name}")
    for name, seconds in _too_slow.items():
        terminalreporter.write_line(
            f"FAILED {name}: {seconds:.1f} s of processor time; make it cheaper, or mark it slow", red=True
        )
