"""The operator that exports the histories of Procore workflows as tables, and its base for both workflow APIs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ConfigurationError,
    InvalidRequest,
)
from airflow_provider_workflows.files.object_storage import named_write_errors, storage_path
from airflow_provider_workflows.files.table_writer import Tables
from airflow_provider_workflows.operators.base import Progress
from airflow_provider_workflows.operators.lineage import lineage_of
from airflow_provider_workflows.operators.procore.base import ProcoreConnectionOperator, ProcoreWideOperator
from airflow_provider_workflows.operators.procore.histories import (
    HistoryReader,
    Report,
    ToolInProject,
    tools_in_projects,
)
from airflow_provider_workflows.operators.procore.item import check_tools_and_projects
from airflow_provider_workflows.polling.bulk_history import MAX_ITEMS
from airflow_provider_workflows.rules import procore_history as rules
from airflow_provider_workflows.rules.parameters import as_list, check_required, check_seconds, seconds, str_id

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

Json = Mapping[str, Any]


class ProcoreExportOperator(ProcoreConnectionOperator):
    """
    Write tables to an object storage; the base of the export operators.

    :param path: Folder for the files: a URL such as ``s3://bucket/audit``, or an ``ObjectStoragePath`` (templated).
    :param object_storage_conn_id: Connection to the storage (templated); default: the one in the path, if any.
    :param file_format: ``parquet`` (default; needs the extra ``parquet``) or ``jsonl`` (templated).
    :param changed_since: Export only changes since this time: ISO-8601 with its zone, or a datetime with its zone
        (templated); None for everything.
    :param overlap: How much earlier than the latest change the returned ``watermark`` is, a timedelta or seconds;
        default one hour.
    :param allow_empty: Whether empty tables may replace the files of an earlier run when everything was to be exported.
    """

    operator_extra_links = ()  # a link has room for one item only
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
        overlap: timedelta | float = timedelta(hours=1),
        allow_empty: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.path = path
        self.object_storage_conn_id = object_storage_conn_id
        self.file_format = file_format
        self.changed_since = changed_since
        self.overlap = overlap
        self.allow_empty = allow_empty
        self._started = 0.0
        self._started_at: datetime | None = None
        self._written: list[str] = []

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the written files as datasets; OpenLineage's provider calls this."""
        return lineage_of(outputs=self._written)

    def act(self, context: Context) -> dict[str, Any]:
        since = rules.changed_since(self.changed_since)
        overlap = seconds(self.overlap)
        check_seconds("overlap", overlap)
        self.check_parameters()
        folder = storage_path("path", self.path, self.object_storage_conn_id)
        self._started = started = monotonic()
        self._started_at = None
        report = Report(self.hook.me)
        with Tables(self.tables, self.file_format) as tables:
            latest = self.export(tables, since, report)
            report.end()
            # A list that is suddenly empty may be a mistake of the server, or the user has lost a permission.
            expects_rows = (since is None or self.names_rows()) and not self.allow_empty
            is_suspicious = expects_rows and not any(tables.counts.values())
            with named_write_errors("path", folder):
                paths = tables.save(folder, replace=not is_suspicious)
            size = tables.size()
        result = {
            "paths": paths,
            **tables.counts,
            "unchanged": tables.stored,
            "forbidden": report.forbidden,
            "failed": report.failed,
            "changed_since": rules.iso(since) if since else None,
            "watermark": rules.watermark(since, latest, self.started_at(), timedelta(seconds=overlap)),
        }
        if is_suspicious:
            self._warn_no_rows(paths, tables.stored)
        self._written = [path for table, path in paths.items() if table not in tables.stored]
        written = len(self._written)
        self._report(result, f"{written} files with {size} bytes to {folder} in {monotonic() - started:.1f} s")
        return result

    @abstractmethod
    def check_parameters(self) -> None:
        """Check the parameters before the operator calls Procore."""

    @abstractmethod
    def export(self, tables: Tables, since: datetime | None, report: Report) -> datetime | None:
        """Add all rows to the tables; return the time of the latest change among them."""

    @abstractmethod
    def names_rows(self) -> bool:
        """Return whether a parameter names what to export, independent of ``changed_since``."""

    def started_at(self) -> datetime:
        """Return the start of the export by the server's clock, which its first response shows."""
        if self._started_at is None:
            self._started_at = self.hook.client.server_time() - timedelta(seconds=monotonic() - self._started)
        return self._started_at

    if TYPE_CHECKING:
        hook: Any

    def _warn_no_rows(self, paths: Mapping[str, str], stored: Sequence[str]) -> None:
        files = ", ".join(paths[table] for table in stored)
        unchanged = f"The files of an earlier run stay: {files}." if stored else "There are no files of earlier runs."
        self.log.warning("Exported no rows at all. %s Set allow_empty=True if this is expected.", unchanged)

    def _report(self, result: Json, written: str) -> None:
        rows = ", ".join(f"{result[table]} {table}" for table in self.tables)
        self.log.info("Exported %s, changed since %s: %s.", rows, result["changed_since"] or "ever", written)
        self._log_missing(result["forbidden"], result["failed"])

    def _log_missing(self, forbidden: Sequence[Json], failed: Sequence[Json]) -> None:
        for kind, entries in (("forbidden", forbidden), ("failed", failed)):
            for rejected in entries:
                ids = ", ".join(f"{name} {value}" for name, value in rejected.items() if name != "reason")
                self.log.warning("Not exported (%s): %s: %s", kind, ids, rejected["reason"])


class ProcoreHistoryToObjectStorageOperator(ProcoreExportOperator, ProcoreWideOperator):
    """
    Export the histories of Workflows v2 instances as the tables instances, steps and responses.

    Use it for regular exports of changes, not to copy all data of a company: Procore's API terms do not allow that. A
    new run replaces the files of an earlier one; a failed run leaves them. The documentation of this package lists the
    columns, which do not change when the API adds fields.

    Returns ``{paths: {instances, steps, responses}, instances, steps, responses, unchanged, forbidden, failed,
    changed_since, watermark}``: URLs, counts of rows, the tables whose file is still that of an earlier run, the
    failed reads as ``{tool_type, project_id or item_id and instance_id, reason}``, and the time to pass to the next
    export as ``changed_since``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the items, or several, such as ``purchase_order_contract`` (templated).
    :param tool_subtype: Its subtype; needed for correspondence (templated).
    :param project_id: Project to export, or several; ``company`` for the company level (templated); default: where the
        tool is.
    :param item_ids: Exactly these items of one tool, with all their instances, regardless of ``changed_since``
        (templated); needs two more calls for each item. Default: all items with a changed instance.
    :param changed_since: Export the instances that changed since this time, and all active ones, because Procore does
        not document whether ``updated_at`` changes with every event: ISO-8601 with its zone, or a datetime with its
        zone (templated). None for everything.
    :param path: Folder for the files: a URL such as ``s3://bucket/audit``, or an ``ObjectStoragePath`` (templated).
    :param object_storage_conn_id: Connection to the storage (templated); default: the one in the path, if any.
    :param file_format: ``parquet`` (default; needs the extra ``parquet``) or ``jsonl`` (templated).
    :param overlap: How much earlier than the latest exported change the returned ``watermark`` is, a timedelta or
        seconds; default one hour. The next run then exports changes that Procore shows late, with the same keys.
    :param allow_empty: Whether empty tables may replace the files of an earlier run if there are no rows at all and no
        ``changed_since``; by default these files stay, and the log warns.
    :param batch_size: Items in one call, default 50; halved when Procore rejects so many.
    :raises ConfigurationError: a parameter is missing or is not a time with a zone, the tool is unknown, or pyarrow is
        not installed.
    :raises ApiError: nothing at all could be read, or nothing of a tool after 20 tries. Failures of single items and
        instances, and of projects that the user may not see, are in the result instead.
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
        batch_size: int = MAX_ITEMS,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_ids = item_ids
        self.batch_size = batch_size

    def check_parameters(self) -> None:
        check_tools_and_projects(self.tool_type, self.project_id)
        if self.item_ids is not None:
            for item_id in as_list(self.item_ids):
                check_required(item_ids=item_id)
            if len(as_list(self.tool_type)) > 1 or len(as_list(self.project_id)) > 1:
                raise ConfigurationError("item_ids belong to one tool_type and one project_id; several were given.")
        if type(self.batch_size) is not int or self.batch_size < 1:
            raise ConfigurationError(
                f"batch_size must be a whole number of items, at least 1; got {self.batch_size!r}."
            )

    def names_rows(self) -> bool:
        return self.item_ids is not None

    def export(self, tables: Tables, since: datetime | None, report: Report) -> datetime | None:
        if self.item_ids is not None and since is not None:
            self.log.info("changed_since is ignored: item_ids names the items to export.")
        reader = HistoryReader(self.hook, report, self.batch_size, self.log.info)
        latest: datetime | None = None
        all_listed = True
        places = tools_in_projects(self.hook, self.tool_type, self.project_id)
        for place in places:
            report.start()
            if self.item_ids is not None:
                instances = self._requested_items(place, report)
            else:
                try:
                    instances, updated = self._sweep(place, since, report)
                except REJECTIONS as rejection:
                    self.hook.check_tool(place.tool_type)
                    if isinstance(rejection, InvalidRequest):  # such as a tool that needs its subtype
                        raise
                    report.record_rejected(rejection, tool_type=place.tool_type, project_id=place.level)
                    all_listed = False
                    continue
                latest = rules.latest_of(latest, updated)
            progress = Progress("items exported", len(instances))
            for item_id, histories in progress.of(reader.of_items(place, instances)):
                named = rules.name_histories(histories, instances[item_id], tool_type=place.tool_type, item_id=item_id)
                self._write(tables, place, item_id, named)
                self._check_complete(report, place, item_id, instances[item_id], named)
        # The next export must include the items of lists that could not be read.
        return latest if all_listed else None

    def _sweep(
        self, place: ToolInProject, since: datetime | None, report: Report
    ) -> tuple[dict[str, list[Json]], datetime | None]:
        """Return the instances of each item with a changed one, and the largest ``updated_at`` of all."""
        found: dict[str, list[Json]] = {}
        latest: datetime | None = None
        for row in Progress("instances listed").of(self._list(place)):
            self.started_at()
            instance = rules.listed_instance(row, since)
            item_id = rules.text(row.get("item_id"))
            latest = rules.latest_of(latest, rules.time(row.get("updated_at")))
            if item_id is not None and instance["id"] is not None:
                found.setdefault(item_id, []).append(instance)
            elif instance["changed"]:
                self._miss_nameless(report, place, item_id, instance["id"])
        changed = {item: rows for item, rows in found.items() if any(row["changed"] for row in rows)}
        self.log.info("Tool %s, %s: %s of %s items changed.", place.tool_type, place.level, len(changed), len(found))
        if not found:
            self.hook.check_tool(place.tool_type)
            self.log.warning("Tool %s, %s: the list has no workflow instances at all.", place.tool_type, place.level)
        if not changed:
            report.succeed()
        return changed, latest

    def _requested_items(self, place: ToolInProject, report: Report) -> dict[str, list[Json]]:
        found: dict[str, list[Json]] = {}
        item_ids = dict.fromkeys(str(str_id(item_id)) for item_id in as_list(self.item_ids))
        for item_id in Progress("items listed", len(item_ids)).of(item_ids):
            try:
                # A server may ignore the filter.
                rows = [row for row in self._list(place, item_id) if rules.text(row.get("item_id")) == item_id]
            except (*REJECTIONS, *READ_FAULTS) as rejection:
                report.record_rejected(rejection, tool_type=place.tool_type, item_id=item_id)
                continue
            if not rows:
                report.miss(
                    "The item has no workflow instance, or none that this user may see",
                    tool_type=place.tool_type,
                    item_id=item_id,
                )
                continue
            found[item_id] = []
            for instance in (rules.listed_instance(row, None) for row in rows):
                if instance["id"] is None:
                    self._miss_nameless(report, place, item_id, None)
                else:
                    found[item_id].append(instance)
        if not found:
            self.hook.check_tool(place.tool_type)
        return found

    @staticmethod
    def _miss_nameless(report: Report, place: ToolInProject, item_id: str | None, instance_id: str | None) -> None:
        ids = {"item_id": item_id, "instance_id": instance_id}
        named = {name: value for name, value in ids.items() if value is not None}
        report.miss("The list has no id of the item or the instance", tool_type=place.tool_type, **named)

    def _list(self, place: ToolInProject, item_id: str | None = None) -> Iterator[dict[str, Any]]:
        found: Iterator[dict[str, Any]] = self.hook.list_instances(
            place.tool_type, tool_subtype=str_id(self.tool_subtype), item_id=item_id, project_id=place.level
        )
        return found

    def _write(self, tables: Tables, place: ToolInProject, item_id: str, named: Iterable[rules.NamedHistory]) -> None:
        for history in named:
            if history.listed is not None and not history.listed["changed"]:
                continue
            if history.id_from == "derived":
                self.log.warning(
                    "An instance of item %s matches none of the list; its key is %s.", item_id, history.instance_id
                )
            where = {
                "company_id": self.hook.company_id,
                "project_id": place.project_id,
                "tool_type": place.tool_type,
                "item_id": item_id,
            }
            tables.add(rules.rows_of(history, where))

    def _check_complete(
        self,
        report: Report,
        place: ToolInProject,
        item_id: str,
        instances: Iterable[Json],
        named: Iterable[rules.NamedHistory],
    ) -> None:
        with_history = {history.instance_id for history in named}
        for instance in instances:
            if instance["changed"] and instance["id"] not in with_history:
                report.miss(
                    "Procore returned no history of it",
                    tool_type=place.tool_type,
                    item_id=item_id,
                    instance_id=str(instance["id"]),
                )
