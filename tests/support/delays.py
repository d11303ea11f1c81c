"""Delays of the emulator's responses that a test ends itself, so that it measures no time."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest

from airflow_provider_workflows.emulator import app

GIVE_UP_SECONDS = 30.0


class HeldDelays:
    """
    Let each delayed response of an emulator in this process wait for the test instead of the clock.

    :ivar started: Set when a response is delayed.
    :ivar end: The test sets it to let all of them go.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started = threading.Event()
        self.end = threading.Event()
        monkeypatch.setattr(app, "asyncio", SimpleNamespace(sleep=self._sleep, Transport=asyncio.Transport))

    async def _sleep(self, seconds: float) -> None:
        if not seconds:
            return
        self.started.set()
        for _ in range(int(GIVE_UP_SECONDS / 0.01)):
            if self.end.is_set():
                return
            await asyncio.sleep(0.01)
