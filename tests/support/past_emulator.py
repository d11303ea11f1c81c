"""An emulator with a clock that is days behind, so that workflows can start in the past; clocks only go forward."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest.mock import patch

from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.emulator.__main__ import main
from airflow_provider_workflows.emulator.state import Clock

DAYS_BEHIND = 6


@contextlib.contextmanager
def clock_behind() -> Iterator[None]:
    """Let the clock of each emulator that starts in the block be behind."""

    def start(clock: Clock) -> None:
        clock.offset = -DAYS_BEHIND * 86400.0

    with patch.object(Clock, "__init__", start):
        yield


@contextlib.contextmanager
def past_emulator() -> Iterator[Emulator]:
    """Run an emulator whose clock is behind until it is reset; the clocks of others are right."""
    with contextlib.ExitStack() as stack:
        with clock_behind():
            emulator = stack.enter_context(Emulator())
        yield emulator


if __name__ == "__main__":
    with clock_behind():
        main([])
