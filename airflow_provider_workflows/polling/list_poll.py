"""
Scopes of waits for single records.

:class:`SinglePollScope` polls each wait individually. :class:`ListPollScope` reads a list and polls only the waits
whose row has changed.
"""

from __future__ import annotations

import heapq
import logging
import time
from abc import abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_workflows.exceptions import (
    RESOURCE_ERRORS,
    SignInFailed,
    WorkflowsError,
)
from airflow_provider_workflows.polling.poll import PollScope, Reader, take

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.base import WorkflowsHook

log = logging.getLogger(__name__)

MAX_NEW_POLLS = 100  # of new waits in one poll cycle, or half of them if that is more
ABSENT_POLLS = 5  # of waits whose record is known to be missing, in each poll cycle
MAX_LISTS_REJECTED = 3  # consecutive ones, after which the list is not requested for FALLBACK_SECONDS
FALLBACK_SECONDS = 3600.0  # after which a route that was rejected is tried again
MOVED: Any = object()  # outcome of a wait that now belongs to another scope, where it shares a poll


class SinglePollScope(PollScope):
    """
    Poll each wait individually, over one connection.

    :param wait: One of the waits.
    """

    def __init__(self, wait: Any):
        super().__init__(str(wait.connection[1]))
        self._wait = wait

    @property
    def key(self) -> tuple[Hashable, ...]:
        return (*self._wait.connection, "individually")

    @property
    def hook_key(self) -> Hashable:
        connection: tuple[str | None, ...] = self._wait.connection
        return connection

    def open_hook(self) -> WorkflowsHook:
        hook: WorkflowsHook = self._wait.open_hook()
        return hook

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        for wait in subscribers:
            if await reader.poll_one(wait) is None and wait.scope().key != self.key:
                reader.deliver(wait, MOVED)


class ListPollScope(PollScope):
    """
    Read a list, and poll individually only the waits whose row has changed or is missing.

    A wait identifies its row by ``list_key`` and remembers the row's version in ``mark``. A wait whose record is known
    to be missing says so by ``is_absent``; a few of these are polled in each cycle, those polled longest ago first.
    """

    page_size: ClassVar[int]
    unchanged_polls: ClassVar[int] = 0  # how many unchanged waits to poll in each cycle, those polled longest ago first
    stores_row_mark: ClassVar[bool] = True  # False: the wait's individual poll sets the mark

    def __init__(self, conn_id: str):
        super().__init__(conn_id)
        self._pages = 1  # of the last list
        self._lists_rejected = 0  # consecutive ones
        self._no_list_until = float("-inf")

    @abstractmethod
    def rows(self, hook: Any) -> Iterator[dict[str, Any]]:
        """List all active records, page by page."""

    @abstractmethod
    def keys_of(self, row: dict[str, Any]) -> tuple[Hashable, ...]:
        """Return each ``list_key`` by which a wait can identify this row."""

    @abstractmethod
    def mark_of(self, row: dict[str, Any]) -> Any:
        """Return a value that differs when the waits of this row must be polled individually."""

    def updated_at(self, row: dict[str, Any]) -> str:
        """Return when the record changed, or "" if the API does not say so; the latest ones are polled first."""
        return ""

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        comparison = _Comparison(self, subscribers)
        if time.monotonic() < self._no_list_until or len(comparison.missing) < self._pages:  # needs fewer requests
            await self._poll_each(reader, [(wait, None) for wait in subscribers])
            return
        is_listed = False
        try:
            await self._compare(reader, comparison)
            self._lists_rejected, is_listed = 0, True
        except SignInFailed:
            raise
        except RESOURCE_ERRORS as fault:
            self._record_list_fault(fault)
        missing = [wait for waits in comparison.missing.values() for wait in waits]
        gone = [(wait, None) for wait in missing if not wait.is_absent]  # ended, or hidden
        absent = _polled_longest_ago([wait for wait in missing if wait.is_absent], ABSENT_POLLS)
        if is_listed:
            reader.deliver_all((wait, None) for wait in missing if wait.is_absent and wait not in absent)
        oldest = _polled_longest_ago(comparison.unchanged, self.unchanged_polls)
        await self._poll_each(
            reader,
            [
                *comparison.moved,
                *gone,
                *comparison.first_new(),
                *((wait, wait.mark) for wait in oldest),
                *((wait, None) for wait in absent),
            ],
        )

    async def _compare(self, reader: Reader, comparison: _Comparison) -> None:
        rows = await reader.call(self.rows)
        delivered = 0
        while comparison.missing:
            # Row by row, without storing the rows, because garbage collection is expensive in a triggerer.
            taken = await reader.call(lambda hook: take(rows, partial(comparison.add, hook), self.page_size))
            reader.deliver_all((wait, None) for wait in comparison.unchanged[delivered:])
            delivered = len(comparison.unchanged)
            if taken < self.page_size:
                break
        self._pages = max(1, -(-comparison.rows // self.page_size))

    def _record_list_fault(self, fault: WorkflowsError) -> None:
        self._lists_rejected += 1
        if self._lists_rejected == 1:
            log.warning("Reading the list failed, polling each instance individually: %s", fault)
        if self._lists_rejected >= MAX_LISTS_REJECTED:
            self._no_list_until = time.monotonic() + FALLBACK_SECONDS

    async def _poll_each(self, reader: Reader, waits: Sequence[tuple[Any, Any]]) -> None:
        for wait, mark in waits:
            outcome = await reader.poll_one(wait)
            if not isinstance(outcome, WorkflowsError):
                wait.polled_at = time.monotonic()
                if self.stores_row_mark and mark is not None:
                    wait.mark = mark


def _polled_longest_ago(waits: Sequence[Any], count: int) -> list[Any]:
    return heapq.nsmallest(count, waits, key=lambda wait: wait.polled_at)


class _Comparison:
    """Sort waits by whether their row in a list is new, changed, unchanged or missing."""

    def __init__(self, scope: ListPollScope, waits: Sequence[Any]):
        self._scope = scope
        self.rows = 0
        self.missing: dict[Hashable, list[Any]] = {}
        for wait in waits:
            self.missing.setdefault(wait.list_key, []).append(wait)
        self.unchanged: list[Any] = []
        self.moved: list[tuple[Any, Any]] = []  # with the mark of the row
        self.new: list[tuple[str, Any, Any]] = []

    def add(self, hook: Any, row: dict[str, Any]) -> None:
        """Compare a row with the mark of each wait that it belongs to."""
        self.rows += 1
        try:
            keys, mark, updated_at = self._scope.keys_of(row), self._scope.mark_of(row), self._scope.updated_at(row)
        except (AttributeError, LookupError, TypeError, ValueError):
            return  # the waits of a malformed row are polled like those whose row is missing
        for key in keys:
            for wait in self.missing.pop(key, ()):
                wait.use_hook(hook)
                if wait.mark is None:
                    self.new.append((updated_at, wait, mark))
                elif wait.mark != mark or wait.overdue() is not None:  # the due date may have moved
                    self.moved.append((wait, mark))
                else:
                    wait.last_fault = ""
                    self.unchanged.append(wait)

    def first_new(self) -> list[tuple[Any, Any]]:
        """Return the new waits to poll in this cycle; not all of them, because the other waits would have to wait."""
        latest = sorted(self.new, key=lambda new: new[0], reverse=True)
        return [(wait, mark) for _, wait, mark in latest[: max(MAX_NEW_POLLS, -(-len(latest) // 2))]]
