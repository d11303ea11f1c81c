"""The harness, and its table at the end of the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.robustness.faults.harness import Harness
from tests.robustness.faults.reports import Row, table

ROWS = pytest.StashKey[list[Row]]()


@pytest.fixture(scope="session")
def harness() -> Iterator[Harness]:
    with Harness() as harness:
        yield harness


@pytest.fixture
def rows(request: pytest.FixtureRequest) -> list[Row]:
    """The outcomes at the points of each flow so far."""
    return request.config.stash.setdefault(ROWS, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if rows := config.stash.get(ROWS, []):
        terminalreporter.section("kills")
        terminalreporter.write_line(table(rows))
