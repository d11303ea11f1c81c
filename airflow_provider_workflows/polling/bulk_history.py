"""
The reader of Procore's bulk history, which returns the histories of many items with one request.

Procore documents neither how many items a request may name nor what happens if one of them cannot be read. The reader
finds both out: it halves a request that was rejected, and remembers which items to request separately.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ApiError,
    AuthenticationError,
    ConnectionFailed,
    ServerError,
    SignInFailed,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.rules.payload import documented_form

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

MAX_ITEMS = 50  # in one request
MISSING_ROUTE = (404, 405)
REJECTED_TTL_SECONDS = 3600.0  # after which a rejected item is requested together with others again
MIN_REJECTED_ITEMS = 10  # if more items and more than half of all are rejected, the route is given up
MAX_BULK_ONLY_FAULTS = 2  # consecutive ones after which the route is given up
# After these errors a request with fewer items can succeed: one item may be forbidden, or there were too many.
SPLITTABLE_ERRORS = (AuthenticationError, UnexpectedResponse, *REJECTIONS)


class BulkHistoryUnavailable(Exception):
    """Raised when Procore does not return the histories of several items in one request."""


class BulkHistoryReader:
    """
    Read the histories of many items, one request at a time, and remember which items make a request fail.

    :param max_items: Maximum number of items in a request.
    :param on_failure: For callers that read once and report each item. Called with each error that the number of items
        may have caused, and with that number. With this parameter a server error halves the request at once instead of
        leaving its items to the next pass, and rejected items do not disable the route.
    """

    def __init__(self, *, max_items: int = MAX_ITEMS, on_failure: Callable[[ApiError, int], object] | None = None):
        self._max_items = max_items
        self._on_failure = on_failure
        self._place = ("", "")
        self._left: deque[list[str]] = deque()
        self._size = max_items
        self._size_before: dict[str, int] = {}  # by item: the size before a request that may have been too large
        self._rejected: dict[str, WorkflowsError] = {}  # items that must not be requested together with others
        self._forget_at = time.monotonic() + REJECTED_TTL_SECONDS
        self._max_batch: dict[str, int] = {}  # by item of a failed request: how many items to request with it
        self._failed: dict[str, int] = {}  # the same, of this pass only
        self._rejected_alone = 0  # items of this pass
        self._any_read = False  # in this pass
        self._has_worked = False
        self._not_found = 0
        self._bulk_only_faults = 0  # consecutive ones
        self._was_down = self._is_down = False  # whether every request of the last pass, of this pass failed

    def start(self, tool_type: str, level: str, item_ids: Collection[str]) -> dict[str, WorkflowsError]:
        """
        Start a pass over some items; forget what is known about items of another tool or project.

        :param tool_type: Tool of the items.
        :param level: Project of the tool, or ``company``.
        :return: The items that this pass does not request, because Procore rejected them alone, with that error.
        :raises BulkHistoryUnavailable: Procore rejected most of the items.
        """
        if self._place != (tool_type, level):
            self._place = (tool_type, level)
            self._rejected, self._max_batch, self._size_before = {}, {}, {}
        if time.monotonic() > self._forget_at:
            self._rejected.clear()
            self._forget_at = time.monotonic() + REJECTED_TTL_SECONDS
        rejected = {item_id: self._rejected[item_id] for item_id in item_ids if item_id in self._rejected}
        if len(rejected) > max(MIN_REJECTED_ITEMS, len(item_ids) // 2):
            raise BulkHistoryUnavailable(
                f"Procore rejects the bulk history of most items. {next(iter(rejected.values()))}"
            )
        self._was_down, self._is_down = self._is_down, True
        self._failed, self._rejected_alone, self._any_read, self._bulk_only_faults = {}, 0, False, 0
        self._left = deque(self._batches([item_id for item_id in item_ids if item_id not in rejected]))
        return rejected

    @property
    def is_finished(self) -> bool:
        return not self._left

    def read_next(
        self, hook: ProcoreHook, each: Callable[[str, list[Any]], Any] | None = None
    ) -> dict[str, Any | WorkflowsError]:
        """
        Send one request and return its result; return nothing if smaller requests for the same items follow.

        :param each: Converts an item and its histories to the value to return in their place. The histories are then
            not kept in memory: thousands of objects make the garbage collector stop a triggerer.
        :return: By item id: the histories of its instances, the newest first, or the error of this item.
        :raises RateLimited: the same request must be sent later.
        :raises BulkHistoryUnavailable: Procore does not have this route, or rejects it for all items.
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
        except SPLITTABLE_ERRORS as rejection:
            self._left.popleft()
            return self._halve(batch, rejection)
        except (ConnectionFailed, ServerError) as fault:
            # A single item may make the server fail. The next passes request fewer together, down to one.
            self._left.popleft()
            if self._on_failure is not None:
                return self._halve(batch, fault)
            self._failed |= dict.fromkeys(batch, max(1, len(batch) // 2))
            self._max_batch |= self._failed
            return dict.fromkeys(batch, fault)
        self._left.popleft()
        self._succeed(batch)
        return found

    def compare_with_single(self, fault: WorkflowsError, *, is_read: bool) -> None:
        """
        Record whether one item of a failed request could be read by itself.

        :param fault: The error of the request.
        :param is_read: Whether the single read succeeded.
        :raises BulkHistoryUnavailable: consecutive bulk requests failed although single reads succeed.
        """
        self._bulk_only_faults = self._bulk_only_faults + 1 if is_read else 0
        if self._bulk_only_faults == MAX_BULK_ONLY_FAULTS:
            raise BulkHistoryUnavailable(f"The bulk history fails although single histories can be read. {fault}")

    def _succeed(self, batch: list[str]) -> None:
        self._has_worked = self._any_read = True
        self._bulk_only_faults = 0
        for item_id in batch:
            self._max_batch.pop(item_id, None)
            self._size_before.pop(item_id, None)
        if self._was_down and self._is_down:  # the server was down, so no item was the cause
            self._max_batch = self._failed
            self._left = deque(self._batches([item_id for others in self._left for item_id in others]))
        self._is_down = False

    def _batches(self, item_ids: list[str]) -> list[list[str]]:
        by_size: dict[int, list[str]] = {}
        for item_id in item_ids:
            by_size.setdefault(min(self._size, self._max_batch.get(item_id, self._size)), []).append(item_id)
        return [batch for size, ids in sorted(by_size.items(), reverse=True) for batch in _split(ids, size)]

    def _halve(self, batch: list[str], rejection: ApiError) -> dict[str, Any]:
        """Halve a rejected batch; exclude an item that is rejected alone from requests with others for an hour."""
        half = len(batch) // 2
        if rejection.status_code in MISSING_ROUTE and not self._has_worked:
            self._not_found += 1
            # A 404 can also mean that one item is missing; then one of the halves succeeds.
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
                    raise BulkHistoryUnavailable(f"Procore rejects the bulk history of all items. {rejection}")
            if is_about_size:
                self._size = self._size_before.pop(batch[0])  # this item was the cause, not the number of items
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
    missing = UnexpectedResponse("The bulk history has no list of histories for this item")
    return {item_id: found.get(item_id, missing) for item_id in batch}
