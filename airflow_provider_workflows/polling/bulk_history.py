"""The histories of many items with few calls: Procore documents neither how many a call takes nor what spoils it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    ApiError,
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ServerError,
    SignInFailed,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.rules.payload import documented_form

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

MAX_ITEMS = 50  # of a call
MISSING_ROUTE = (404, 405)
REJECTED_TTL_SECONDS = 3600.0  # until a call with others names an item again that it was rejected for
MIN_REJECTED_ITEMS = 10  # of which more than half must be rejected, until the route is given up
# A call with fewer items can succeed where these came: one of the items is forbidden, or all of them are too many.
SPOILED = (AuthenticationError, UnexpectedResponse, InvalidRequest, NotFound, PermissionDenied)


class BulkHistoryUnavailable(Exception):
    """Raised when this Procore cannot show the histories of several items in one call."""


class BulkHistoryReader:
    """
    Reads the histories of many items, one call at a time, and remembers from reading to reading what spoils a call.

    :param max_items: Items of a call.
    :param on_failure: For who reads once and reports each item; called with each error that can be about the number of
        items in a call, and that number. With it a fault of the server halves a call at once, instead of leaving its
        items to the next reading, and the route is not given up for items that are rejected.
    """

    def __init__(self, *, max_items: int = MAX_ITEMS, on_failure: Callable[[ApiError, int], object] | None = None):
        self._max_items = max_items
        self._on_failure = on_failure
        self._place = ("", "")
        self._left: deque[list[str]] = deque()
        self._size = max_items
        self._size_before: dict[str, int] = {}  # items of a call that was perhaps too large, before it
        self._rejected: dict[str, WorkflowsError] = {}  # items that no call with others may name
        self._forget_at = time.monotonic() + REJECTED_TTL_SECONDS
        self._together: dict[str, int] = {}  # items of a call that failed: how many of them may go in one call
        self._failed: dict[str, int] = {}  # likewise, of this reading
        self._rejected_alone = 0  # items of this reading
        self._any_read = False  # in this reading
        self._has_worked = False
        self._not_found = 0
        self._was_down = self._is_down = False  # no call of the last, of this reading was answered

    def start(self, tool_type: str, level: str, item_ids: Collection[str]) -> dict[str, WorkflowsError]:
        """
        Start to read some items; what is known of items of another place is forgotten.

        :param tool_type: Tool of the items.
        :param level: Project of the tool, or ``company``.
        :return: The items that are not read, with the error that each of them alone was rejected with.
        :raises BulkHistoryUnavailable: that is most of them.
        """
        if self._place != (tool_type, level):
            self._place = (tool_type, level)
            self._rejected, self._together, self._size_before = {}, {}, {}
        if time.monotonic() > self._forget_at:
            self._rejected.clear()
            self._forget_at = time.monotonic() + REJECTED_TTL_SECONDS
        rejected = {item_id: self._rejected[item_id] for item_id in item_ids if item_id in self._rejected}
        if len(rejected) > max(MIN_REJECTED_ITEMS, len(item_ids) // 2):
            raise BulkHistoryUnavailable(f"A bulk history is rejected for most items. {next(iter(rejected.values()))}")
        self._was_down, self._is_down = self._is_down, True
        self._failed, self._rejected_alone, self._any_read = {}, 0, False
        self._left = deque(self._batches([item_id for item_id in item_ids if item_id not in rejected]))
        return rejected

    @property
    def is_finished(self) -> bool:
        return not self._left

    def read_next(
        self, hook: ProcoreHook, each: Callable[[str, list[Any]], Any] | None = None
    ) -> dict[str, Any | WorkflowsError]:
        """
        Make one call, and return what it brought: nothing where the same items will be read with smaller calls.

        :param each: Makes of an item and its histories what is returned instead of them; so that they need not be
            kept, for thousands of objects make the garbage collector stop a triggerer.
        :return: Of each item the histories of its instances, the newest first; or the error that concerns it.
        :raises RateLimited: the server wants the same call later.
        :raises BulkHistoryUnavailable: there is no such route, or it is rejected for all items.
        """
        batch = self._left[0]
        if len(batch) > self._size:
            self._left.popleft()
            self._left.extendleft(reversed(_split(batch, self._size)))
            batch = self._left[0]
        tool_type, level = self._place
        try:
            with documented_form():
                found = _paired(batch, hook.each_bulk_history(tool_type, batch, project_id=level), each)
        except SignInFailed:
            raise
        except SPOILED as rejection:
            self._left.popleft()
            return self._spoiled(batch, rejection)
        except (ConnectionFailed, ServerError) as fault:
            # It may be one of them that the server fails at. Fewer go together next time, until one is alone.
            self._left.popleft()
            if self._on_failure is not None:
                return self._spoiled(batch, fault)
            self._failed |= dict.fromkeys(batch, max(1, len(batch) // 2))
            self._together |= self._failed
            return dict.fromkeys(batch, fault)
        self._left.popleft()
        self._succeed(batch)
        return found

    def _succeed(self, batch: list[str]) -> None:
        self._has_worked = self._any_read = True
        for item_id in batch:
            self._together.pop(item_id, None)
            self._size_before.pop(item_id, None)
        if self._was_down and self._is_down:  # so it was the server, and none of the items
            self._together = self._failed
            self._left = deque(self._batches([item_id for others in self._left for item_id in others]))
        self._is_down = False

    def _batches(self, item_ids: list[str]) -> list[list[str]]:
        together: dict[int, list[str]] = {}
        for item_id in item_ids:
            together.setdefault(min(self._size, self._together.get(item_id, self._size)), []).append(item_id)
        return [batch for size, ids in sorted(together.items(), reverse=True) for batch in _split(ids, size)]

    def _spoiled(self, batch: list[str], rejection: ApiError) -> dict[str, Any]:
        """Halve a batch that was rejected; an item that is rejected by itself goes with no others for a while."""
        half = len(batch) // 2
        if rejection.status_code in MISSING_ROUTE and not self._has_worked:
            self._not_found += 1
            # A 404 may also be about an item, which the halves would show.
            if rejection.status_code != 404 or not half or self._not_found > 2:
                raise BulkHistoryUnavailable(str(rejection))
            self._left.extend([batch[:half], batch[half:]])
            return {}
        is_about_size = rejection.status_code in (400, 413) or isinstance(rejection, READ_FAULTS)
        if is_about_size:
            for item_id in batch:
                self._size_before.setdefault(item_id, self._size)
            if self._on_failure is not None:
                self._on_failure(rejection, len(batch))
        if not half:
            if self._on_failure is None:
                self._rejected[batch[0]] = rejection
                self._rejected_alone += 1
                if self._rejected_alone > MIN_REJECTED_ITEMS and not self._any_read:
                    raise BulkHistoryUnavailable(f"A bulk history is rejected for all items. {rejection}")
            if is_about_size:
                self._size = self._size_before.pop(batch[0])  # so it was this item and not the number of them
            return {batch[0]: rejection}
        if is_about_size:
            self._size = half
        self._left.extendleft([batch[half:], batch[:half]])
        return {}


def _split(item_ids: list[str], size: int) -> list[list[str]]:
    return [item_ids[start : start + size] for start in range(0, len(item_ids), size)]


def _paired(batch: list[str], rows: Iterable[dict[str, Any]], each: Callable[[str, Any], Any] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in rows:
        item_id, histories = str(row.get("item_id")), row.get("instances")
        if item_id in batch and isinstance(histories, list):
            found[item_id] = histories if each is None else each(item_id, histories)
    missing = UnexpectedResponse("The bulk history has no list of histories for it")
    return {item_id: found.get(item_id, missing) for item_id in batch}
