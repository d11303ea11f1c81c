"""Read histories of Procore workflows for the operators: many items in one call, each failure recorded separately."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ApiError,
    ConnectionFailed,
    PermissionDenied,
    WorkflowsError,
)
from airflow_provider_workflows.polling.bulk_history import (
    MAX_ITEMS,
    BulkHistoryReader,
    BulkHistoryUnavailable,
)
from airflow_provider_workflows.rules import procore_history as rules
from airflow_provider_workflows.rules.parameters import as_list, str_id
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

Json = Mapping[str, Any]

# Rejections without a single success, or consecutive server errors: then the cause is not a single item.
MAX_REJECTIONS = 20
MAX_BULK_FAILURES = 3  # items that fail in bulk and succeed separately, before the operator stops reading in bulk


class Report:
    """
    Collect what could not be read, for the result and the log.

    :param poll_server: Makes one small call, to distinguish an unavailable server from one that fails at a record.
    """

    def __init__(self, poll_server: Callable[[], object]):
        self.poll_server = poll_server
        self.forbidden: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []
        self.any_success = False  # in any tool or project
        self._instances: set[str] = set()
        self._rejected = 0
        self._succeeded = False
        self._faults = 0  # consecutive errors of the server
        self._first: ApiError | None = None  # the first rejection, raised if nothing succeeds at all

    def start(self) -> None:
        """Start another tool or list, of which it is not known yet whether it can be read."""
        self._rejected, self._succeeded = 0, False

    def succeed(self) -> None:
        self._succeeded = self.any_success = True
        self._faults = 0

    def record_rejected(self, rejection: ApiError, **ids: str) -> None:
        """
        Record a rejection.

        :raises ApiError: everything is rejected, or the server keeps failing: the cause is not a single item.
        """
        self._record(self.forbidden if isinstance(rejection, PermissionDenied) else self.failed, str(rejection), ids)
        self.check_server(rejection)
        self._rejected += 1
        self._first = self._first or rejection
        self._faults = self._faults + 1 if isinstance(rejection, READ_FAULTS) else 0
        if (not self._succeeded and self._rejected >= MAX_REJECTIONS) or self._faults >= MAX_REJECTIONS:
            raise rejection

    def check_server(self, fault: ApiError) -> None:
        """
        Make a small call after one that got no response, to find out whether the server is available.

        :raises ConnectionFailed: the server does not respond to the small call either.
        """
        if not isinstance(fault, ConnectionFailed):
            return
        try:
            self.poll_server()
        except ConnectionFailed:
            raise fault from None
        except ApiError:
            pass  # an error response shows that the server is available

    def end(self) -> None:
        """
        Finish the report.

        :raises ApiError: nothing at all could be read; an empty result would look like a company without workflows.
        """
        if self._first is not None and not self.any_success:
            raise self._first

    def miss(self, reason: str, **ids: str) -> None:
        """Record an item or instance that no response contained, unless a reason is recorded already."""
        if ids.get("instance_id") not in self._instances:
            self._record(self.failed, reason, ids)

    def _record(self, records: list[dict[str, str]], reason: str, ids: dict[str, str]) -> None:
        records.append({**ids, "reason": reason})
        if "instance_id" in ids:
            self._instances.add(ids["instance_id"])


class ToolInProject(NamedTuple):
    """One tool in one project, or at the level ``company``."""

    tool_type: str
    level: str

    @property
    def project_id(self) -> str | None:
        return None if self.level == COMPANY_LEVEL else self.level


def tools_in_projects(hook: ProcoreHook, tool_type: Any, project_id: Any) -> list[ToolInProject]:
    """Return each tool in each project, once; either may be one value or a list, and a project may be None."""
    pairs = ((str(tool), str_id(project)) for tool in as_list(tool_type) for project in as_list(project_id))
    return list(dict.fromkeys(ToolInProject(tool, hook.level_for(project, tool)) for tool, project in pairs))


class HistoryReader:
    """
    Read the histories of many items in as few calls as the API allows.

    Three routes return histories: of many items, of one item, of one instance. Each is documented in an older version
    of the API than the one before. The reader uses the first route that exists; the number of items that a bulk call
    accepts is not documented.
    """

    def __init__(self, hook: ProcoreHook, report: Report, batch_size: int, emit: Callable[..., None]):
        self.hook = hook
        self.report = report
        self._report = emit
        self._bulk = BulkHistoryReader(max_items=batch_size, on_failure=self._check_failure)
        self._only_in_bulk = 0  # items that failed in bulk and succeeded separately
        self._available: set[str] = set()  # routes that exist
        self._absent: set[str] = set()

    def of_items(
        self, place: ToolInProject, instances: Mapping[str, Sequence[Json]]
    ) -> Iterator[tuple[str, list[Any]]]:
        """
        Read the histories of items, and record rejections in the report.

        :param place: Tool and project of the items.
        :param instances: The item's instances as listed, by item id.
        :return: Pairs of item id and histories, the newest history first.
        """
        left = dict.fromkeys(instances)
        self._bulk.start(place.tool_type, place.level, left)
        while not ("bulk" in self._absent or self._bulk.is_finished):
            try:
                found = self._bulk.read_next(self.hook)
            except BulkHistoryUnavailable as missing:
                self._miss_bulk(missing)
                break
            for item_id, histories in found.items():
                del left[item_id]
                if isinstance(histories, REJECTIONS):
                    self.report.record_rejected(histories, tool_type=place.tool_type, item_id=item_id)
                elif isinstance(histories, READ_FAULTS):
                    yield item_id, self._alone(place, item_id, instances[item_id], histories)
                elif isinstance(histories, WorkflowsError):  # such as a rejected sign-in, which concerns all items
                    raise histories
                else:
                    self._accept("bulk")
                    yield item_id, histories
        yield from self._one_by_one(place, left, instances)

    def _check_failure(self, failure: ApiError, items: int) -> None:
        self.report.check_server(failure)
        if items > 1:
            self._report("%s A call with %s items failed; continuing with %s.", failure, items, items // 2)

    def _alone(self, place: ToolInProject, item_id: str, instances: Iterable[Json], fault: ApiError) -> list[Any]:
        """Read each history of an item that failed in bulk separately: perhaps only one of them cannot be read."""
        histories = self._of_instances(place, item_id, instances)
        if histories and "bulk" not in self._available:
            self._only_in_bulk += 1
            if self._only_in_bulk == MAX_BULK_FAILURES:
                self._miss_bulk(fault)
        return histories

    def _one_by_one(
        self, place: ToolInProject, item_ids: Iterable[str], instances: Mapping[str, Sequence[Json]]
    ) -> Iterator[tuple[str, list[Any]]]:
        for item_id in item_ids:
            histories = None if "item" in self._absent else self._of_item(place, item_id, instances[item_id])
            if histories is None and "item" in self._absent:
                histories = self._of_instances(place, item_id, instances[item_id])
            if histories is not None:
                yield item_id, histories

    def _of_item(self, place: ToolInProject, item_id: str, instances: Iterable[Json]) -> list[Any] | None:
        try:
            histories = self.hook.list_item_histories(place.tool_type, item_id, project_id=place.level)
        except REJECTIONS as rejection:
            # If the route does not exist, the server may take "history" for the id of an instance.
            if not isinstance(rejection, PermissionDenied) and "item" not in self._available:
                self._miss("item", rejection, "reading the history of each instance")
            else:
                self.report.record_rejected(rejection, tool_type=place.tool_type, item_id=item_id)
            return None
        except READ_FAULTS as fault:
            self.report.check_server(fault)
            self._report("%s Reading each instance of item %s separately.", fault, item_id)
            return self._of_instances(place, item_id, instances)
        self._accept("item")
        return histories

    def _of_instances(self, place: ToolInProject, item_id: str, instances: Iterable[Json]) -> list[Any]:
        histories = []
        for instance in instances:
            if not instance["changed"]:
                continue
            instance_id = instance["id"]
            try:
                history = self.hook.get_instance_history(instance_id, project_id=place.level, tool_type=place.tool_type)
            except (*REJECTIONS, *READ_FAULTS) as rejection:
                self.report.record_rejected(
                    rejection, tool_type=place.tool_type, item_id=item_id, instance_id=instance_id
                )
                continue
            self._accept("instance")
            histories.append({**history, "instance_id": instance_id})
        return histories

    def _accept(self, route: str) -> None:
        self._available.add(route)
        self.report.succeed()

    def _miss_bulk(self, reason: Exception) -> None:
        self._miss("bulk", reason, "reading the histories of each item")

    def _miss(self, route: str, reason: Exception, instead: str) -> None:
        self._absent.add(route)
        self._report("%s The %s history does not exist; %s.", reason, route, instead)


def histories_of(
    hook: ProcoreHook, place: ToolInProject, instances: Iterable[Json], report: Report, emit: Callable[..., None]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """
    Read the histories of some instances, and record in the report which could not be read.

    :param instances: ``{instance_id, item_id, started_at, ...}`` of each.
    :return: Pairs of instance id and history, also of other instances of the same items.
    """
    by_item: dict[str, list[Json]] = {}
    for instance in instances:
        if instance["item_id"] is not None:
            listed_row = rules.listed_instance({**instance, "id": instance["instance_id"]}, None)
            by_item.setdefault(instance["item_id"], []).append(listed_row)
    reader = HistoryReader(hook, report, MAX_ITEMS, emit)
    for item_id, histories in reader.of_items(place, by_item):
        named = rules.name_histories(histories, by_item[item_id], tool_type=place.tool_type, item_id=item_id)
        yield from ((history.instance_id, history.history) for history in named)
