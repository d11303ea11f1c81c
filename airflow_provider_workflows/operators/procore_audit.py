"""Operators that export the histories of Procore's workflows as tables."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    ApiError,
    ConfigurationError,
    ContractError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ServerError,
)
from airflow_provider_workflows.operators.attachments import storage_path
from airflow_provider_workflows.operators.base import Progress
from airflow_provider_workflows.operators.procore_base import ProcoreConnectionOperator, ProcoreWideOperator
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyConnectionOperator
from airflow_provider_workflows.operators.tables import Tables
from airflow_provider_workflows.rules import procore_audit as rules
from airflow_provider_workflows.rules.parameters import check_required, listed, text_id
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_workflows.hooks.procore import ProcoreHook

Json = Mapping[str, Any]

NO_SUCH_ROUTE = (404, 405)
TOO_MUCH = (400, 413)
ITEMS_A_CALL = 50
# Refusals without a single success, or faults of the server one after the other: then it is not about single items.
HOPELESS = 20
REFUSED = (InvalidRequest, NotFound, PermissionDenied)
BROKEN = (ContractError, ServerError)  # what a server answers that fails at one of the records, or at so many
ONLY_IN_BULK = 3  # items that fail in bulk and not by themselves, until the bulk is given up


@dataclass
class Report:
    """What could not be exported, for the result and the log."""

    forbidden: list[dict[str, str]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    any_success: bool = False  # anywhere
    _instances: set[str] = field(default_factory=set)
    _refused: int = 0
    _succeeded: bool = False
    _faults: int = 0  # of the server, in a row
    _first: ApiError | None = None  # refusal of all, while nothing has succeeded anywhere

    def begin(self) -> None:
        """Begin a tool or a list of its own: whether anything can be read there is not known yet."""
        self._refused, self._succeeded = 0, False

    def succeed(self) -> None:
        self._succeeded = self.any_success = True
        self._faults = 0

    def refuse(self, refusal: ApiError, **ids: str) -> None:
        """
        Note what was refused.

        :raises ApiError: everything is refused, or fails from now on, so something more than single items is wrong.
        """
        self._note(self.forbidden if isinstance(refusal, PermissionDenied) else self.failed, str(refusal), ids)
        self._refused += 1
        self._first = self._first or refusal
        self._faults = self._faults + 1 if isinstance(refusal, BROKEN) else 0
        if (not self._succeeded and self._refused >= HOPELESS) or self._faults >= HOPELESS:
            raise refusal

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
            self._note(self.failed, reason, ids)

    def _note(self, notes: list[dict[str, str]], reason: str, ids: dict[str, str]) -> None:
        notes.append({**ids, "reason": reason})
        if "instance_id" in ids:
            self._instances.add(ids["instance_id"])


@dataclass(frozen=True)
class Scope:
    """One tool in one project, or at the level ``company``."""

    tool_type: str
    level: str

    @property
    def project_id(self) -> str | None:
        return None if self.level == COMPANY_LEVEL else self.level


class HistoryReader:
    """
    Reads the histories of many items in as few calls as the API allows.

    Three routes give histories, each in an older text of the API than the one before: of many items, of one
    item, of one instance. The first that answers is used; how many items a call takes is not documented.
    """

    def __init__(self, hook: ProcoreHook, report: Report, batch_size: int, tell: Callable[..., None]):
        self.hook = hook
        self.report = report
        self.batch_size = batch_size
        self._tell = tell
        self._given_size = batch_size
        self._accepted_size = 0
        self._not_found = 0
        self._only_in_bulk = 0  # items in a row that failed in bulk and not by themselves
        self._answered: set[str] = set()  # routes that are there
        self._absent: set[str] = set()

    def of_items(self, scope: Scope, instances: Mapping[str, Sequence[Json]]) -> Iterator[tuple[str, list[Any]]]:
        """
        Read the histories of items; what is refused goes into the report.

        :param scope: Where the items are.
        :param instances: The item's instances as listed, by item id.
        :return: Pairs of item id and histories, the newest history first.
        """
        left = deque(instances)
        pieces: list[list[str]] = []  # of a batch with something forbidden in it
        while left or pieces:
            if "bulk" in self._absent:
                remaining = [*(item_id for piece in reversed(pieces) for item_id in piece), *left]
                yield from self._one_by_one(scope, remaining, instances)
                return
            batch = pieces.pop() if pieces else [left.popleft() for _ in range(min(self.batch_size, len(left)))]
            try:
                answer = self.hook.bulk_history(scope.tool_type, batch, project_id=scope.level)
            except REFUSED as refusal:
                self._refused(refusal, scope, batch, left, pieces)
                continue
            except BROKEN as fault:
                if len(batch) > 1:
                    self._shrink(batch, left, fault)
                else:
                    yield from self._alone(scope, batch[0], instances, fault)
                continue
            self._accept("bulk")
            self._only_in_bulk = 0
            self._accepted_size = max(self._accepted_size, len(batch))
            yield from self._paired(batch, answer)

    def _refused(
        self, refusal: ApiError, scope: Scope, batch: list[str], left: deque[str], pieces: list[list[str]]
    ) -> None:
        half = len(batch) // 2
        if refusal.status_code in NO_SUCH_ROUTE and "bulk" not in self._answered and self._is_missing(refusal, half):
            self._miss("bulk", refusal, "each item's histories are read by themselves")
            left.extendleft(reversed(batch))
        elif not half:
            self.report.refuse(refusal, tool_type=scope.tool_type, item_id=batch[0])
            if refusal.status_code in TOO_MUCH:  # so it was this item and not the size
                self.batch_size = self._accepted_size or self._given_size
        elif refusal.status_code in TOO_MUCH:
            self._shrink(batch, left, refusal)
        else:
            pieces += [batch[half:], batch[:half]]

    def _shrink(self, batch: list[str], left: deque[str], fault: ApiError) -> None:
        """Go on with half as many items in a call, beginning with those of a batch that failed."""
        self.batch_size = min(self.batch_size, len(batch) // 2)
        self._tell("%s So many items (%s) fail in one call; going on with %s.", fault, len(batch), self.batch_size)
        left.extendleft(reversed(batch))

    def _alone(
        self, scope: Scope, item_id: str, instances: Mapping[str, Sequence[Json]], fault: ApiError
    ) -> Iterator[tuple[str, list[Any]]]:
        """Read the histories of an item that fails in bulk, each by itself: only one of them may be broken."""
        self.batch_size = self._accepted_size or self._given_size  # so it was this item and not the size
        histories = self._of_instances(scope, instances[item_id])
        if histories and "bulk" not in self._answered:
            self._only_in_bulk += 1
            if self._only_in_bulk == ONLY_IN_BULK:
                self._miss("bulk", fault, "each item's histories are read by themselves")
        yield item_id, histories

    def _is_missing(self, refusal: ApiError, half: int) -> bool:
        """Tell whether the whole route is missing; if only something of the batch may be, its halves are asked."""
        self._not_found += 1
        return refusal.status_code != 404 or not half or self._not_found > 2

    def _paired(self, batch: list[str], answer: list[Any]) -> Iterator[tuple[str, list[Any]]]:
        found = {
            rules.text(entry.get("item_id")): entry.get("instances") for entry in answer if isinstance(entry, Mapping)
        }
        for item_id in batch:
            histories = found.get(item_id)
            yield item_id, histories if isinstance(histories, list) else []

    def _one_by_one(
        self, scope: Scope, item_ids: Iterable[str], instances: Mapping[str, Sequence[Json]]
    ) -> Iterator[tuple[str, list[Any]]]:
        for item_id in item_ids:
            histories = None if "item" in self._absent else self._of_item(scope, item_id, instances[item_id])
            if histories is None and "item" in self._absent:
                histories = self._of_instances(scope, instances[item_id])
            if histories is not None:
                yield item_id, histories

    def _of_item(self, scope: Scope, item_id: str, instances: Iterable[Json]) -> list[Any] | None:
        try:
            histories = self.hook.list_item_histories(scope.tool_type, item_id, project_id=scope.level)
        except REFUSED as refusal:
            # Where the route is not there, "history" may be taken for the id of an instance.
            if not isinstance(refusal, PermissionDenied) and "item" not in self._answered:
                self._miss("item", refusal, "each instance's history is read by itself")
            else:
                self.report.refuse(refusal, tool_type=scope.tool_type, item_id=item_id)
            return None
        except BROKEN as fault:
            self._tell("%s Each instance of item %s is read by itself.", fault, item_id)
            return self._of_instances(scope, instances)
        self._accept("item")
        return histories

    def _of_instances(self, scope: Scope, instances: Iterable[Json]) -> list[Any]:
        histories = []
        for instance in instances:
            if not instance["changed"]:
                continue
            instance_id = instance["id"]
            try:
                history = self.hook.get_instance_history(instance_id, project_id=scope.level, tool_type=scope.tool_type)
            except (*REFUSED, *BROKEN) as refusal:
                self.report.refuse(refusal, tool_type=scope.tool_type, instance_id=instance_id)
                continue
            self._accept("instance")
            histories.append({**history, "instance_id": instance_id})
        return histories

    def _accept(self, route: str) -> None:
        self._answered.add(route)
        self.report.succeed()

    def _miss(self, route: str, refusal: ApiError, instead: str) -> None:
        self._absent.add(route)
        self._tell("%s The %s history is not there; %s.", refusal, route, instead)


def histories_of(
    hook: ProcoreHook, scope: Scope, instances: Iterable[Json], report: Report, tell: Callable[..., None]
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
    reader = HistoryReader(hook, report, ITEMS_A_CALL, tell)
    for item_id, histories in reader.of_items(scope, by_item):
        named = rules.name_histories(histories, by_item[item_id], tool_type=scope.tool_type, item_id=item_id)
        yield from ((one.instance_id, one.history) for one in named)


class ProcoreExportOperator(ProcoreConnectionOperator):
    """
    An operator that writes tables to an object storage.

    :param path: Folder for the files: a URL such as ``s3://bucket/audit``, or an ``ObjectStoragePath`` (templated).
    :param object_storage_conn_id: Connection to the storage (templated); default: the one in the path, if any.
    :param file_format: ``parquet`` (default; needs the extra ``parquet``) or ``jsonl`` (templated).
    :param changed_since: Export what changed since then: an ISO-8601 time with its zone, or such a datetime
        (templated); None for everything.
    """

    operator_extra_links = ()  # it is about many items
    tables: Mapping[str, rules.Columns]

    template_fields: Sequence[str] = (
        *ProcoreConnectionOperator.template_fields,
        "path",
        "object_storage_conn_id",
        "file_format",
        "changed_since",
    )

    def __init__(
        self,
        *,
        path: str | ObjectStoragePath,
        object_storage_conn_id: str | None = None,
        file_format: str = "parquet",
        changed_since: str | datetime | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.path = path
        self.object_storage_conn_id = object_storage_conn_id
        self.file_format = file_format
        self.changed_since = changed_since

    def act(self, context: Context) -> dict[str, Any]:
        since = rules.changed_since(self.changed_since)
        self.check_parameters()
        folder = storage_path("path", self.path, self.object_storage_conn_id)
        began = datetime.now(timezone.utc)
        report = Report()
        with Tables(self.tables, self.file_format) as tables:
            latest = self.export(tables, since, report)
            report.end()
            paths = tables.save(folder)
            size = tables.size()
        result = {
            "paths": paths,
            **tables.counts,
            "forbidden": report.forbidden,
            "failed": report.failed,
            "changed_since": rules.iso(since) if since else None,
            "watermark": rules.watermark(since, latest, began),
        }
        seconds = (datetime.now(timezone.utc) - began).total_seconds()
        self._tell(result, f"{len(paths)} files with {size} bytes to {folder} in {seconds:.1f} s")
        return result

    @abstractmethod
    def check_parameters(self) -> None:
        """Check the parameters before anything is asked of Procore."""

    @abstractmethod
    def export(self, tables: Tables, since: datetime | None, report: Report) -> datetime | None:
        """Add all rows to the tables; return the largest time of a change that was seen."""

    def _tell(self, result: Json, written: str) -> None:
        rows = ", ".join(f"{result[table]} {table}" for table in self.tables)
        self.log.info("Exported %s, changed since %s: %s.", rows, result["changed_since"] or "ever", written)
        for kind in ("forbidden", "failed"):
            for refused in result[kind]:
                ids = ", ".join(f"{name} {value}" for name, value in refused.items() if name != "reason")
                self.log.warning("Not exported (%s): %s: %s", kind, ids, refused["reason"])


class ProcoreHistoryToObjectStorageOperator(ProcoreExportOperator, ProcoreWideOperator):
    """
    Exports the histories of Workflows v2 instances as the tables instances, steps and responses.

    For a regular export of what has changed, not for a copy of a company's whole data: Procore's API terms do
    not allow that. A new run writes over the files of an earlier one; a run that fails leaves them. The columns
    are in the documentation of this package and do not change with what the API adds.

    Returns ``{paths: {instances, steps, responses}, instances, steps, responses, forbidden, failed,
    changed_since, watermark}``: URLs, counts of rows, what could not be read as ``{tool_type, item_id or
    instance_id, reason}``, and the time to hand to the next export as ``changed_since``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the items, or several, such as ``purchase_order_contract`` (templated).
    :param tool_subtype: Its subtype; needed for correspondence (templated).
    :param project_id: Project to export, or several, ``company`` meaning the company level (templated); default:
        where the tool is.
    :param item_ids: Exactly these items of one tool, with all their instances, whatever ``changed_since``
        says (templated); takes two more calls for each item. Default: all items with a changed instance.
    :param changed_since: Export the instances that changed since then, and the active ones, for whether
        ``updated_at`` moves with every event is not documented: an ISO-8601 time with its zone, or such a
        datetime (templated). None for everything.
    :param path: Folder for the files: a URL such as ``s3://bucket/audit``, or an ``ObjectStoragePath`` (templated).
    :param object_storage_conn_id: Connection to the storage (templated); default: the one in the path, if any.
    :param file_format: ``parquet`` (default; needs the extra ``parquet``) or ``jsonl`` (templated).
    :param batch_size: Items in one call, default 50; halved when Procore does not take so many.
    :raises ConfigurationError: a parameter is missing or no time with a zone, or pyarrow is not installed.
    :raises ApiError: nothing at all could be read, or nothing of a tool after 20 tries; single items and instances are
        reported instead.
    """

    tables = rules.TABLES
    template_fields: Sequence[str] = (
        *ProcoreExportOperator.template_fields,
        "tool_type",
        "tool_subtype",
        "item_ids",
    )

    def __init__(
        self,
        *,
        tool_type: str | Sequence[str],
        tool_subtype: str | int | None = None,
        project_id: str | int | Sequence[str | int] | None = None,
        item_ids: str | int | Sequence[str | int] | None = None,
        batch_size: int = ITEMS_A_CALL,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_ids = item_ids
        self.batch_size = batch_size

    def check_parameters(self) -> None:
        tools, projects = listed(self.tool_type), listed(self.project_id)
        if not tools or not projects:
            raise ConfigurationError(f"{'project_id' if tools else 'tool_type'} is an empty list.")
        for tool_type in tools:
            check_required(tool_type=tool_type)
        for project_id in projects:
            if self.project_id is not None:
                check_required(project_id=project_id)
        if self.item_ids is not None:
            for item_id in listed(self.item_ids):
                check_required(item_ids=item_id)
            if len(tools) > 1 or len(projects) > 1:
                raise ConfigurationError("item_ids belong to one tool_type and one project_id; several were given.")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise ConfigurationError(
                f"batch_size must be a whole number of items, at least 1; got {self.batch_size!r}."
            )

    def export(self, tables: Tables, since: datetime | None, report: Report) -> datetime | None:
        if self.item_ids is not None and since is not None:
            self.log.info("changed_since leaves out nothing here: item_ids says what to export.")
        reader = HistoryReader(self.hook, report, self.batch_size, self.log.info)
        latest: datetime | None = None
        for scope in self._scopes():
            report.begin()
            if self.item_ids is None:
                instances, updated = self._sweep(scope, since, report)
            else:
                instances, updated = self._given_items(scope, report)
            latest = rules.latest_of(latest, updated)
            progress = Progress("items exported", len(instances))
            for item_id, histories in progress.of(reader.of_items(scope, instances)):
                named = rules.name_histories(histories, instances[item_id], tool_type=scope.tool_type, item_id=item_id)
                self._write(tables, scope, item_id, named)
                self._check_complete(report, scope, item_id, instances[item_id], named)
        return latest

    def _scopes(self) -> list[Scope]:
        return list(
            dict.fromkeys(
                Scope(str(tool_type), self.hook.level_for(project_id, str(tool_type)))
                for tool_type in listed(self.tool_type)
                for project_id in listed(self.project_id)
            )
        )

    def _sweep(
        self, scope: Scope, since: datetime | None, report: Report
    ) -> tuple[dict[str, list[Json]], datetime | None]:
        """Return the instances of each item with a changed one, and the largest ``updated_at`` of all."""
        found: dict[str, list[Json]] = {}
        latest: datetime | None = None
        for row in Progress("instances listed").of(self._list(scope)):
            instance = rules.listed_instance(row, since)
            item_id = rules.text(row.get("item_id"))
            latest = rules.latest_of(latest, rules.time(row.get("updated_at")))
            if item_id is not None:
                found.setdefault(item_id, []).append(instance)
            elif instance["changed"]:
                report.miss("The list names no item", tool_type=scope.tool_type, instance_id=str(instance["id"]))
        changed = {item: rows for item, rows in found.items() if any(row["changed"] for row in rows)}
        self.log.info("Tool %s, %s: %s of %s items changed.", scope.tool_type, scope.level, len(changed), len(found))
        return changed, latest

    def _given_items(self, scope: Scope, report: Report) -> tuple[dict[str, list[Json]], datetime | None]:
        found: dict[str, list[Json]] = {}
        latest: datetime | None = None
        item_ids = dict.fromkeys(str(text_id(given)) for given in listed(self.item_ids))
        for item_id in Progress("items listed", len(item_ids)).of(item_ids):
            try:
                # A server may ignore the filter.
                rows = [row for row in self._list(scope, item_id) if rules.text(row.get("item_id")) == item_id]
            except (*REFUSED, *BROKEN) as refusal:
                report.refuse(refusal, tool_type=scope.tool_type, item_id=item_id)
                continue
            if not rows:
                report.miss(
                    "It has no workflow instance, or none that this user may see",
                    tool_type=scope.tool_type,
                    item_id=item_id,
                )
                continue
            found[item_id] = [rules.listed_instance(row, None) for row in rows]
            latest = rules.latest_of(latest, *(rules.time(row.get("updated_at")) for row in rows))
        return found, latest

    def _list(self, scope: Scope, item_id: str | None = None) -> Iterator[dict[str, Any]]:
        return self.hook.list_instances(
            scope.tool_type, tool_subtype=text_id(self.tool_subtype), item_id=item_id, project_id=scope.level
        )

    def _write(self, tables: Tables, scope: Scope, item_id: str, named: Iterable[rules.NamedHistory]) -> None:
        for history in named:
            if history.listed is not None and not history.listed["changed"]:
                continue
            if history.id_from == "derived":
                self.log.warning(
                    "An instance of item %s fits none of the list; its key is %s.", item_id, history.instance_id
                )
            where = {
                "company_id": self.hook.company_id,
                "project_id": scope.project_id,
                "tool_type": scope.tool_type,
                "item_id": item_id,
            }
            tables.add(rules.rows_of(history, where))

    def _check_complete(
        self, report: Report, scope: Scope, item_id: str, instances: Iterable[Json], named: Iterable[rules.NamedHistory]
    ) -> None:
        given = {history.instance_id for history in named}
        for instance in instances:
            if instance["changed"] and instance["id"] not in given:
                report.miss(
                    "No history was given of it",
                    tool_type=scope.tool_type,
                    item_id=item_id,
                    instance_id=str(instance["id"]),
                )


class ProcoreLegacyHistoryToObjectStorageOperator(ProcoreExportOperator, ProcoreLegacyConnectionOperator):
    """
    Exports the activity histories of legacy workflow instances as the tables instances and activities.

    The API lists active instances only: what has ended since the last export must be named in ``instance_ids``.
    One call for each instance.

    Returns ``{paths: {instances, activities}, instances, activities, forbidden, failed, changed_since,
    watermark}`` as ``ProcoreHistoryToObjectStorageOperator`` does.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_ids: Exactly these instances (templated). Default: the active ones.
    :param include_active: Export the active instances beside ``instance_ids``, too.
    :param changed_since: Leave out listed instances that entered their state before then: an ISO-8601 time with
        its zone, or such a datetime (templated). An activity that did not move the state does not count.
    :param path: Folder for the files: a URL such as ``s3://bucket/audit``, or an ``ObjectStoragePath`` (templated).
    :param object_storage_conn_id: Connection to the storage (templated); default: the one in the path, if any.
    :param file_format: ``parquet`` (default; needs the extra ``parquet``) or ``jsonl`` (templated).
    :raises ConfigurationError: a parameter is missing or no time with a zone, or pyarrow is not installed.
    :raises ApiError: nothing at all could be read; single instances are reported instead.
    """

    tables = rules.LEGACY_TABLES
    template_fields: Sequence[str] = (*ProcoreExportOperator.template_fields, "instance_ids")

    def __init__(
        self,
        *,
        instance_ids: str | int | Sequence[str | int] | None = None,
        include_active: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_ids = instance_ids
        self.include_active = include_active

    def check_parameters(self) -> None:
        for instance_id in self._given():
            check_required(instance_ids=instance_id)

    def export(self, tables: Tables, since: datetime | None, report: Report) -> datetime | None:
        latest: datetime | None = None
        exported: set[str] = set()
        report.begin()
        for instance in Progress("instances exported or left out").of(self._instances(report)):
            latest = rules.latest_of(latest, rules.time(instance.get("current_state_set_at")))
            instance_id = str(instance["id"])
            given = instance_id in self._given_ids
            if instance_id in exported or not (given or rules.legacy_has_changed(instance, since)):
                continue
            exported.add(instance_id)
            try:
                histories = self.hook.list_activity_histories(instance_id)
            except (*REFUSED, *BROKEN) as refusal:
                report.refuse(refusal, instance_id=instance_id)
                continue
            report.succeed()
            tables.add(
                {
                    "instances": [rules.legacy_instance_row(instance, company_id=self.hook.company_id)],
                    "activities": [rules.legacy_activity_row(row, instance_id=instance_id) for row in histories],
                }
            )
        return latest

    def _given(self) -> list[Any]:
        return [] if self.instance_ids is None else listed(self.instance_ids)

    @cached_property
    def _given_ids(self) -> dict[str, None]:
        return dict.fromkeys(str(text_id(given)) for given in self._given())

    def _instances(self, report: Report) -> Iterator[dict[str, Any]]:
        """Return the instances to look at: those that are named, then the active ones."""
        for instance_id in self._given_ids:
            try:
                yield self.hook.get_instance(instance_id)
            except (*REFUSED, *BROKEN) as refusal:
                report.refuse(refusal, instance_id=instance_id)
        if self.instance_ids is None or self.include_active:
            yield from self.hook.list_instances()
