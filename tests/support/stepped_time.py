"""Time that moves only while a client waits, so that the waits of a task that waits on a worker can be measured."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.emulator import state


class SteppedTime:
    """The time of all clients, and of an emulator in this process, that are made after it."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self._start_time = time.time()
        self.elapsed = 0.0
        patch.setattr(state, "time", SimpleNamespace(time=self.time))
        for cls in (RestClient, TokenAuth):
            patch.setitem(cls.__init__.__kwdefaults__, "clock", self.time)
        patch.setitem(RestClient.__init__.__kwdefaults__, "sleep", self.sleep)

    def time(self) -> float:
        return self._start_time + self.elapsed

    def sleep(self, seconds: float) -> None:
        self.elapsed += max(seconds, 0.0)
