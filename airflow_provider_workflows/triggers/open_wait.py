"""The XCom with the description of an open wait, which a trigger stores while its task is deferred."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.rules.open_wait import OPEN_WAIT

if TYPE_CHECKING:
    from airflow_provider_workflows.triggers.base import WaitTrigger

MAX_CONSECUTIVE_FAILURES = 3  # after which only a change of the description is tried again
_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def supervisor_lock() -> asyncio.Lock:
    """Return the lock for calls to the triggerer's supervisor: all waits share one connection, so they take turns."""
    return _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


class OpenWaitXCom:
    """
    Store the description of a wait as an XCom whenever it has changed (Airflow 3.3+).

    The wait continues meanwhile, and after an error.

    :param trigger: The trigger that waits.
    """

    def __init__(self, trigger: WaitTrigger):
        self._trigger = trigger
        self._seen: Any = None  # what the last poll saw
        self._failures = 0  # consecutive ones
        self._is_closed = False
        self._storing: asyncio.Task[None] | None = None

    def update(self) -> None:
        """Start to store the description if it has changed since the last call; to be called after each poll."""
        trigger = self._trigger
        if not version_compat.TRIGGERS_STORE_XCOMS or trigger.task_instance is None or not trigger.is_polled:
            return  # before its first successful poll a trigger knows less than the worker has stored
        seen = (trigger.pending_step, trigger.item, bool(trigger.current_error))
        if seen == self._seen:
            return
        self._seen = seen
        if self._storing is None or self._storing.done():
            self._storing = asyncio.get_running_loop().create_task(self._store())

    def close(self) -> None:
        """Store nothing more, because the wait has ended; a call that was sent is not cancelled."""
        self._is_closed = True

    async def _store(self) -> None:
        trigger = self._trigger
        async with supervisor_lock():
            while not self._is_closed and (wait := trigger.open_wait()).fingerprint != trigger.recorded:
                try:
                    await version_compat.astore_xcom(trigger.task_instance, OPEN_WAIT, wait.to_dict())
                except Exception as error:  # the description is for people only, so it must not end the wait
                    self._record_failure(error)
                    return
                self._failures, trigger.recorded = 0, wait.fingerprint

    def _record_failure(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1:
            self._trigger.log.warning(
                "The description of the wait could not be stored as an XCom, the wait continues. %s: %s",
                *(type(error).__name__, error),
            )
        if self._failures < MAX_CONSECUTIVE_FAILURES:
            self._seen = None  # so that the next poll tries again
