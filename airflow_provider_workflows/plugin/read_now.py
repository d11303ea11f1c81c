"""
Read the current state of waits from Procore, because a viewer of the Approvals page requested it.

The triggers of the waits are built from their rows, and read through the scopes that their polls in the triggerer use,
so that a bulk history serves fifty waits. Workflowsoft is never read, because reading an integration step consumes its
instances.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, TypeVar

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.plugin.waits import OUR_TRIGGERS, Key, WaitRow
from airflow_provider_workflows.polling.poll import CycleStopped, Reader
from airflow_provider_workflows.polling.procore import run_directly
from airflow_provider_workflows.rules.open_wait import OpenWait

Result = TypeVar("Result")
SECONDS_BETWEEN_READS = 60.0  # of one connection
MIN_REMAINING_SHARE = 0.2  # of the rate limit, which is left to the waits themselves
MAX_STORED = 20_000  # descriptions


class RateLimitReserved(Exception):
    """Raised when less than a fifth of the connection's rate limit is left; no scope handles it as its own error."""


@dataclass
class ReadReport:
    """
    Count what was read, and name the connections that were not.

    :param read: Waits whose state was read.
    :param unreadable: Waits that are never read: of Workflowsoft, and those on a worker.
    """

    read: int = 0
    unreadable: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"read": self.read, "unreadable": self.unreadable, "skipped": self.skipped, "errors": self.errors}


class CurrentStates:
    """
    Read waits on request, at most every minute per connection, and store their descriptions in this process.

    :param monotonic: Clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic):
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._read_at: dict[str, float] = {}  # by the connection's id, for all its companies and APIs
        self._hooks: dict[tuple[str | None, ...], Any] = {}
        self._found: dict[tuple[Key, int | None], OpenWait] = {}

    def apply(self, rows: Iterable[WaitRow]) -> list[WaitRow]:
        """Replace each description by the one that was read for the same trigger, if that is newer; return the rows."""
        replaced = []
        for row in rows if self._found else ():
            found = self._found.get((row.key, row.trigger_id))
            if found is not None and (found.polled_at or "") > (row.wait.polled_at or ""):
                row.wait, row.note = found, None
                replaced.append(row)
        return replaced

    def read(self, rows: Sequence[WaitRow]) -> ReadReport:
        """Read the current state of waits whose arguments are known, unless another viewer's read is running."""
        report = ReadReport()
        connections: dict[str, dict[tuple[str | None, ...], list[tuple[WaitRow, Any]]]] = {}
        if not self._lock.acquire(blocking=False):
            report.skipped.append({"conn_id": "", "reason": "Another read is running. Try again in a minute."})
            return report
        try:
            for row in rows:
                trigger = _trigger_of(row)
                if trigger is not None:
                    hooks = connections.setdefault(str(trigger.connection[1]), {})
                    hooks.setdefault(trigger.connection, []).append((row, trigger))
                else:
                    report.unreadable += 1
            for conn_id, hooks in connections.items():
                self._read_connection(conn_id, hooks, report)
            while len(self._found) > MAX_STORED:
                del self._found[next(iter(self._found))]
        finally:
            self._lock.release()
        return report

    def _read_connection(
        self, conn_id: str, hooks: dict[tuple[str | None, ...], list[tuple[WaitRow, Any]]], report: ReadReport
    ) -> None:
        left = self._read_at.get(conn_id, float("-inf")) + SECONDS_BETWEEN_READS - self._monotonic()
        if left > 0:
            report.skipped.append({"conn_id": conn_id, "reason": f"Read less than a minute ago; wait {left:.0f} s."})
            return
        self._read_at[conn_id] = self._monotonic()
        for connection, waits in hooks.items():
            self._read_hook(connection, waits, report)

    def _read_hook(
        self, connection: tuple[str | None, ...], waits: list[tuple[WaitRow, Any]], report: ReadReport
    ) -> None:
        conn_id = str(connection[1])
        try:
            hook = self._hooks.get(connection) or waits[0][1].open_hook()
            self._hooks[connection] = hook
            with hook.without_retries():
                self._read_scopes(hook, waits, report)
        except RateLimitReserved:
            reason = "Less than a fifth of the rate limit is left, which the waits need."
            report.skipped.append({"conn_id": conn_id, "reason": reason})
        except WorkflowsError as error:
            report.errors.append({"conn_id": conn_id, "reason": str(error)})
            self._hooks.pop(connection, None)
        except Exception as error:  # such as a connection that this server does not have; its text may name secrets
            report.errors.append({"conn_id": conn_id, "reason": f"{type(error).__name__} while reading."})
            self._hooks.pop(connection, None)

    def _read_scopes(self, hook: Any, waits: list[tuple[WaitRow, Any]], report: ReadReport) -> None:
        scopes: dict[Any, tuple[Any, list[tuple[WaitRow, Any]]]] = {}
        for row, trigger in waits:
            scope = trigger.scope()
            scopes.setdefault(scope.key, (scope, []))[1].append((row, trigger))
        for scope, members in scopes.values():
            read = OneRead(hook)
            reader = Reader(read)
            triggers = [trigger for _, trigger in members]
            reader.left = set(triggers)
            try:
                run_directly(scope.read(reader, triggers))
            except CycleStopped as stopped:
                raise stopped.fault from None
            finally:
                for row, trigger in members:
                    if trigger in read.served:
                        report.read += 1
                        wait = trigger.open_wait(row.try_number)
                        self._found.pop((row.key, row.trigger_id), None)
                        self._found[row.key, row.trigger_id] = replace(wait, deadline=row.wait.deadline)
            # What a failed read knows is less than what is stored, so the rows of these waits stay as they are.
            if read.failed:
                reason = f"{len(read.failed)} waits could not be read: {next(iter(read.failed.values()))}"
                report.errors.append({"conn_id": str(waits[0][1].connection[1]), "reason": reason})


class OneRead:
    """
    Make the calls of a :class:`.Reader` at once, and collect what it delivers, in place of a poll in a triggerer.

    :param hook: The hook to read with.
    """

    def __init__(self, hook: Any):
        self._hook = hook
        self.served: set[Any] = set()
        self.failed: dict[Any, WorkflowsError] = {}

    async def call(self, function: Callable[[Any], Result]) -> Result:
        rate = self._hook.client.rate
        if rate is not None and rate.limit and rate.remaining is not None:
            is_current = rate.reset_at is None or rate.reset_at > self._hook.client.server_time().timestamp()
            if is_current and rate.remaining < rate.limit * MIN_REMAINING_SHARE:
                raise RateLimitReserved
        return function(self._hook)

    def has(self, subscriber: Any) -> bool:
        return True

    def serve(self, subscriber: Any, outcome: Any) -> None:
        self.served.add(subscriber)

    def reject(self, subscriber: Any, error: WorkflowsError) -> None:
        self.failed[subscriber] = error

    postpone = reject


def _trigger_of(row: WaitRow) -> Any:
    """Build the trigger of a deferred wait for Procore, or return None if it must not or cannot be read."""
    if row.watcher is not None or not row.arguments or row.wait.product == "workflowsoft":
        return None
    module, _, name = row.classpath.rpartition(".")
    if not module.startswith((f"{OUR_TRIGGERS}procore", f"{OUR_TRIGGERS}procore_legacy")):
        return None
    try:
        return getattr(import_module(module), name)(**row.arguments)
    except Exception:  # arguments of another version of this package, which may be wrong in any way
        return None
