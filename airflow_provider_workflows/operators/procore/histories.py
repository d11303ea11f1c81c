"""What the operators read histories of Procore's workflows with: many items a call, each fault noted by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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

# Refusals without a single success, or faults of the server one after the other: then it is not about single items.
HOPELESS = 20
ONLY_IN_BULK = 3  # items that fail in bulk and not by themselves, until the bulk is given up


@dataclass
class Report:
    """
    What could not be exported, for the result and the log.

    :param poll_server: Makes one small call, to tell a server that is away from one that fails at a record.
    """

    poll_server: Callable[[], object]
    forbidden: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    any_success: bool = False  # anywhere
    _instances: set[str] = field(default_factory=set)
    _rejected: int = 0
    _succeeded: bool = False
    _faults: int = 0  # of the server, in a row
    _first: ApiError | None = None  # rejection of all, while nothing has succeeded anywhere

    def start(self) -> None:
        """Begin a tool or a list of its own: whether anything can be read there is not known yet."""
        self._rejected, self._succeeded = 0, False

    def succeed(self) -> None:
        self._succeeded = self.any_success = True
        self._faults = 0

    def record_rejected(self, rejection: ApiError, **ids: str) -> None:
        """
        Note what was rejected.

        :raises ApiError: everything is rejected, or fails from now on, so something more than single items is wrong.
        """
        self._record(self.forbidden if isinstance(rejection, PermissionDenied) else self.failed, str(rejection), ids)
        self.check_server(rejection)
        self._rejected += 1
        self._first = self._first or rejection
        self._faults = self._faults + 1 if isinstance(rejection, READ_FAULTS) else 0
        if (not self._succeeded and self._rejected >= HOPELESS) or self._faults >= HOPELESS:
            raise rejection

    def check_server(self, fault: ApiError) -> None:
        """
        Require a server that did not respond to a call to respond to a small one; then it was about that call.

        :raises ConnectionFailed: it does not respond to that one either.
        """
        if not isinstance(fault, ConnectionFailed):
            return
        try:
            self.poll_server()
        except ConnectionFailed:
            raise fault from None
        except ApiError:
            pass  # a response, too

    def end(self) -> None:
        """
        End the reading.

        :raises ApiError: nothing at all could be read, which must not look like a company without workflows.
        """
        if self._first is not None and not self.any_success:
            raise self._first

    def miss(self, reason: str, **ids: str) -> None:
        """Note what no answer held, unless it is known why."""
        if ids.get("instance_id") not in self._instances:
            self._record(self.failed, reason, ids)

    def _record(self, records: list[dict[str, str]], reason: str, ids: dict[str, str]) -> None:
        records.append({**ids, "reason": reason})
        if "instance_id" in ids:
            self._instances.add(ids["instance_id"])


@dataclass(frozen=True)
class ToolInProject:
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
    Reads the histories of many items in as few calls as the API allows.

    Three routes give histories, each in an older text of the API than the one before: of many items, of one
    item, of one instance. The first that answers is used; how many items a call takes is not documented.
    """

    def __init__(self, hook: ProcoreHook, report: Report, batch_size: int, emit: Callable[..., None]):
        self.hook = hook
        self.report = report
        self._report = emit
        self._bulk = BulkHistoryReader(max_items=batch_size, on_failure=self._check_failure)
        self._only_in_bulk = 0  # items that failed in bulk and not by themselves
        self._answered: set[str] = set()  # routes that are there
        self._absent: set[str] = set()

    def of_items(
        self, place: ToolInProject, instances: Mapping[str, Sequence[Json]]
    ) -> Iterator[tuple[str, list[Any]]]:
        """
        Read the histories of items; what is rejected goes into the report.

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
                elif isinstance(histories, WorkflowsError):  # a sign-in is rejected, which is not about items
                    raise histories
                else:
                    self._accept("bulk")
                    yield item_id, histories
        yield from self._one_by_one(place, left, instances)

    def _check_failure(self, failure: ApiError, items: int) -> None:
        self.report.check_server(failure)
        if items > 1:
            self._report("%s So many items (%s) fail in one call; going on with %s.", failure, items, items // 2)

    def _alone(self, place: ToolInProject, item_id: str, instances: Iterable[Json], fault: ApiError) -> list[Any]:
        """Read the histories of an item that fails in bulk, each by itself: only one of them may be broken."""
        histories = self._of_instances(place, item_id, instances)
        if histories and "bulk" not in self._answered:
            self._only_in_bulk += 1
            if self._only_in_bulk == ONLY_IN_BULK:
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
            # Where the route is not there, "history" may be taken for the id of an instance.
            if not isinstance(rejection, PermissionDenied) and "item" not in self._answered:
                self._miss("item", rejection, "each instance's history is read by itself")
            else:
                self.report.record_rejected(rejection, tool_type=place.tool_type, item_id=item_id)
            return None
        except READ_FAULTS as fault:
            self.report.check_server(fault)
            self._report("%s Each instance of item %s is read by itself.", fault, item_id)
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
        self._answered.add(route)
        self.report.succeed()

    def _miss_bulk(self, reason: Exception) -> None:
        self._miss("bulk", reason, "each item's histories are read by themselves")

    def _miss(self, route: str, reason: Exception, instead: str) -> None:
        self._absent.add(route)
        self._report("%s The %s history is not there; %s.", reason, route, instead)


def histories_of(
    hook: ProcoreHook, place: ToolInProject, instances: Iterable[Json], report: Report, emit: Callable[..., None]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """
    Read the histories of some instances; what cannot be read goes into the report.

    :param instances: ``{instance_id, item_id, started_at, ...}`` of each.
    :return: Pairs of instance id and history, those of other instances of the same items among them.
    """
    by_item: dict[str, list[Json]] = {}
    for instance in instances:
        if instance["item_id"] is not None:
            listed_row = rules.listed_instance({**instance, "id": instance["instance_id"]}, None)
            by_item.setdefault(instance["item_id"], []).append(listed_row)
    reader = HistoryReader(hook, report, MAX_ITEMS, emit)
    for item_id, histories in reader.of_items(place, by_item):
        named = rules.name_histories(histories, by_item[item_id], tool_type=place.tool_type, item_id=item_id)
        yield from ((one.instance_id, one.history) for one in named)
