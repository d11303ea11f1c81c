"""Scopes of waits on single records: each polled by itself, or only those whose row in a list has changed."""

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

MAX_NEW_POLLS = 100  # in one poll cycle, or half of those of which nothing is known yet
MAX_LISTS_REJECTED = 3  # consecutive ones, until the list is not asked for during a while
FALLBACK_SECONDS = 3600.0  # until the better way is tried again that was rejected
MOVED: Any = object()  # the wait has learned what it can be polled by, together with others


class SinglePollScope(PollScope):
    """
    Polls waits each by itself, over one connection.

    :param wait: One of them.
    """

    def __init__(self, wait: Any):
        super().__init__(str(wait.connection[1]))
        self._wait = wait

    @property
    def key(self) -> tuple[Hashable, ...]:
        return (*self._wait.connection, "singly")

    @property
    def hook_key(self) -> Hashable:
        connection: tuple[str | None, ...] = self._wait.connection
        return connection

    def open_hook(self) -> WorkflowsHook:
        hook: WorkflowsHook = self._wait.open_hook()
        return hook

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        for wait in subscribers:
            if await reader.poll_single(wait) is None and wait.scope().key != self.key:
                reader.deliver(wait, MOVED)


class ListPollScope(PollScope):
    """
    Polls a list, and only those waits by themselves whose row has changed or is missing.

    A wait names its row by ``list_key`` and remembers it by ``mark``.
    """

    page_size: ClassVar[int]
    polls_anyway: ClassVar[int] = 0  # how many unchanged ones to poll in each cycle, the longest unpolled first
    stores_row_mark: ClassVar[bool] = True  # or the one that the wait's own poll has made

    def __init__(self, conn_id: str):
        super().__init__(conn_id)
        self._pages = 1  # that the last list took
        self._lists_rejected = 0  # consecutive ones
        self._no_list_until = float("-inf")

    @abstractmethod
    def rows(self, hook: Any) -> Iterator[dict[str, Any]]:
        """List everything that is active, page by page."""

    @abstractmethod
    def keys_of(self, row: dict[str, Any]) -> tuple[Hashable, ...]:
        """Return what waits may name this row by."""

    @abstractmethod
    def mark_of(self, row: dict[str, Any]) -> Any:
        """Return what changes when a wait must be polled by itself."""

    def updated_at(self, row: dict[str, Any]) -> str:
        """Return when the row's record has changed, where the API says so: the latest ones are polled first."""
        return ""

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        comparison = _Comparison(self, subscribers)
        if time.monotonic() < self._no_list_until or len(comparison.missing) < self._pages:  # fewer requests so
            await self._poll_singly(reader, [(wait, None) for wait in subscribers])
            return
        try:
            await self._compare(reader, comparison)
            self._lists_rejected = 0
        except SignInFailed:
            raise
        except RESOURCE_ERRORS as fault:
            self._reject_list(fault)
        gone = [(wait, None) for waits in comparison.missing.values() for wait in waits]  # ended, or hidden
        longest = heapq.nsmallest(self.polls_anyway, comparison.unchanged, key=lambda wait: wait.polled_at)
        await self._poll_singly(
            reader, [*comparison.moved, *gone, *comparison.first_new(), *((wait, wait.mark) for wait in longest)]
        )

    async def _compare(self, reader: Reader, comparison: _Comparison) -> None:
        rows = await reader.call(self.rows)
        delivered = 0
        while comparison.missing:
            # Row by row and none of them kept: the rows of a page are many, and garbage is dear in a triggerer.
            taken = await reader.call(lambda hook: take(rows, partial(comparison.add, hook), self.page_size))
            reader.deliver_all((wait, None) for wait in comparison.unchanged[delivered:])
            delivered = len(comparison.unchanged)
            if taken < self.page_size:
                break
        self._pages = max(1, -(-comparison.rows // self.page_size))

    def _reject_list(self, fault: WorkflowsError) -> None:
        self._lists_rejected += 1
        if self._lists_rejected == 1:
            log.warning("The list failed, so each wait is polled by itself: %s", fault)
        if self._lists_rejected >= MAX_LISTS_REJECTED:
            self._no_list_until = time.monotonic() + FALLBACK_SECONDS

    async def _poll_singly(self, reader: Reader, waits: Sequence[tuple[Any, Any]]) -> None:
        for wait, mark in waits:
            outcome = await reader.poll_single(wait)
            if not isinstance(outcome, WorkflowsError):
                wait.polled_at = time.monotonic()
                if self.stores_row_mark and mark is not None:
                    wait.mark = mark


class _Comparison:
    """Sorts waits by what a list shows of their rows."""

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
        """Compare a row with what the waits that it belongs to remember of it."""
        self.rows += 1
        try:
            keys, mark, updated_at = self._scope.keys_of(row), self._scope.mark_of(row), self._scope.updated_at(row)
        except (AttributeError, LookupError, TypeError, ValueError):
            return  # a malformed row concerns the waits of that row, which are polled like those that are missing
        for key in keys:
            for wait in self.missing.pop(key, ()):
                wait.use_clock_of(hook)
                if wait.mark is None:
                    self.new.append((updated_at, wait, mark))
                elif wait.mark != mark or wait.overdue() is not None:  # whose due date may have moved
                    self.moved.append((wait, mark))
                else:
                    wait.last_fault = ""
                    self.unchanged.append(wait)

    def first_new(self) -> list[tuple[Any, Any]]:
        """Return those of which nothing is known and that are polled first: the others must not wait for all."""
        latest = sorted(self.new, key=lambda new: new[0], reverse=True)
        return [(wait, mark) for _, wait, mark in latest[: max(MAX_NEW_POLLS, -(-len(latest) // 2))]]
