"""Time that jumps to the next timer while nothing is at work, so that a wait of days takes no time."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import time
from collections.abc import Coroutine
from datetime import datetime, timezone, tzinfo
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.client.http import RestClient
from airflow_provider_workflows.emulator import state
from airflow_provider_workflows.polling import bulk_history, channel, list_poll, poll, rate_limiter
from airflow_provider_workflows.polling import procore as procore_polls
from airflow_provider_workflows.triggers import base, procore_item, procore_item_parts, procore_legacy

MAX_JUMPS = 100_000
MAX_SPINS = 500
STUCK = 20.0  # real seconds without a timer, a thread or a socket that is waited for


class VirtualTime:
    """
    Runs coroutines on an event loop whose time is its own.

    What the polls, the waits' triggers, the HTTP client and an emulator in this process take for the time is this
    one's. It does not advance while a thread is at work for the loop, and jumps to the next timer else.
    """

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._start = time.time()
        self.elapsed = 0.0
        self.busy = 0
        self.jumps = 0
        self.loop = _Loop(self)

    def time(self) -> float:
        return self._start + self.elapsed

    def monotonic(self) -> float:
        return 1000.0 + self.elapsed

    def __enter__(self) -> VirtualTime:
        patch = self._patch
        virtual = SimpleNamespace(time=self.time, monotonic=self.monotonic, sleep=time.sleep)
        polls = (bulk_history, channel, list_poll, poll, procore_polls, rate_limiter)
        for module in (base, procore_item, procore_item_parts, procore_legacy, state, *polls):
            patch.setattr(module, "time", virtual)
        patch.setattr(base, "datetime", self._datetime())
        for cls in (RestClient, TokenAuth):
            patch.setitem(cls.__init__.__kwdefaults__, "clock", self.time)
        wrap_future = asyncio.wrap_future
        patch.setattr(asyncio, "wrap_future", lambda future, **more: self.counted(wrap_future(future, **more)))
        return self

    def __exit__(self, *error: object) -> None:
        self.loop.run_until_complete(_end_all())
        self.loop.close()
        self._patch.undo()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def deadline(self, seconds: float) -> str:
        """Return the time so many seconds from now, as a trigger's deadline."""
        return datetime.fromtimestamp(self.time() + seconds, timezone.utc).isoformat()

    def _datetime(self) -> type[datetime]:
        clock = self

        class VirtualDatetime(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> VirtualDatetime:
                return cls.fromtimestamp(clock.time(), tz)

        return VirtualDatetime

    def counted(self, future: Any) -> Any:
        """Stop the time until a thread's future is done."""
        self.busy += 1
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object) -> None:
        self.busy -= 1


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualTime):
        super().__init__(_Selector(clock))
        self.clock = clock

    def time(self) -> float:
        return self.clock.monotonic()

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        return self.clock.counted(super().run_in_executor(executor, func, *args))


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: VirtualTime):
        super().__init__()
        self.clock = clock
        self.spins = 0

    def select(self, timeout: float | None = None) -> Any:
        self.spins += 1
        if timeout is not None and timeout <= 0:
            if self.spins > MAX_SPINS:  # a sleep that is too short to be distinguished from none
                self.clock.elapsed += 0.001
            return super().select(0)
        self.spins = 0
        if self.clock.busy or timeout is None:
            found = super().select(STUCK)
            assert found, "nothing is left that could wake this loop"
            return found
        if found := super().select(0):
            return found
        self.clock.jumps += 1
        assert self.clock.jumps < MAX_JUMPS, "this loop waits for something that never comes"
        self.clock.elapsed += timeout
        return []


async def _end_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*others, return_exceptions=True)
