"""The operator that exports the histories of Procore Legacy workflows as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
    ConfigurationError,
    UnexpectedResponse,
)
from airflow_provider_workflows.files.object_storage import storage_path
from airflow_provider_workflows.files.table_writer import Tables
from airflow_provider_workflows.operators.base import Progress
from airflow_provider_workflows.operators.procore.histories import Report
from airflow_provider_workflows.operators.procore.history_export import ProcoreExportOperator
from airflow_provider_workflows.operators.procore_legacy.base import ProcoreLegacyConnectionOperator
from airflow_provider_workflows.operators.procore_legacy.history_parts import HistoryParts
from airflow_provider_workflows.rules import procore_history as rules
from airflow_provider_workflows.rules.parameters import as_list, check_optional, check_required, str_id
from airflow_provider_workflows.rules.procore_legacy import (
    describe_instance,
    has_ended,
    is_quiet,
    mark_of,
    may_hide_activities,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

Json = Mapping[str, Any]
ENDED_AFTER = timedelta(minutes=10)  # without an activity or a change
MAX_ROUNDS = 5  # of reading instances that moved during the round before


class ProcoreLegacyHistoryToObjectStorageOperator(ProcoreExportOperator, ProcoreLegacyConnectionOperator):
    """
    Export the activity histories of legacy workflow instances as the tables instances and activities.

    The API lists active instances only. Name instances that have ended since the last export in ``instance_ids``.
    The operator makes one request for each instance. With a project, from the task or the connection, it exports that
    project's instances only; instances without a project, or named ones of another project, are in ``failed``.

    Returns ``{paths: {instances, activities}, instances, activities, unchanged, forbidden, failed, changed_since,
    watermark}`` as ``ProcoreHistoryToObjectStorageOperator`` does. With ``part_size`` it returns ``{manifest,
    manifest_sha256, complete, expected, instances, activities, files, resumed, forbidden, failed}``: the URL and hash
    of the manifest; whether all expected instances are stored as Procore shows them now, and their number; how many
    instances, activities and files are stored, and how many instances were stored before; and the failed reads.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param project_id: Project whose instances to export, or ``company`` for all; default: the project of the
        connection, else all (templated).
    :param instance_ids: Ids of the instances to export; default: the active ones (templated).
    :param include_active: Export the active instances in addition to ``instance_ids``.
    :param changed_since: Leave out listed instances that entered their state before this time: ISO-8601 text with a
        time zone, or such a datetime. An activity that did not change the state does not count (templated).
    :param path: Folder for the files: a URL such as ``s3://bucket/audit``, or an ``ObjectStoragePath`` (templated).
    :param object_storage_conn_id: Id of a connection to the storage; default: the one in the path, if any (templated).
    :param file_format: ``parquet`` (default; needs the extra ``parquet``) or ``jsonl`` (templated).
    :param overlap: How much earlier the returned ``watermark`` is than the latest change that was seen, a timedelta or
        seconds; default one hour. The next run then also exports changes that the API shows late, with the same keys.
    :param allow_empty: Replace the files of an earlier run by empty tables, too, if there are no rows and no
        ``changed_since``; by default these files stay, and the log warns. With ``part_size``: an export without any
        instance is complete.
    :param part_size: Store the export in parts of so many instances, each in a folder of its own, and a manifest with
        the row count and SHA-256 of each file. Another try or run with the same ``path`` continues: it reads what is
        not stored, or has moved since. Nothing that was stored is replaced. Default: one file for each table.
    :raises ConfigurationError: a parameter is missing, a time has no time zone, pyarrow is not installed, or ``path``
        has the manifest of another company.
    :raises OSError: the storage returns other bytes than were written.
    :raises ApiError: nothing could be read; errors of single instances are in the result instead.
    """

    tables = rules.LEGACY_TABLES
    template_fields: Sequence[str] = (*ProcoreExportOperator.template_fields, "instance_ids")

    def __init__(
        self,
        *,
        instance_ids: str | int | Sequence[str | int] | None = None,
        include_active: bool = False,
        part_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_ids = instance_ids
        self.include_active = include_active
        self.part_size = part_size

    def act(self, context: Context) -> dict[str, Any]:
        if self.part_size is None:
            return super().act(context)
        self.check_parameters()
        return self._export_in_parts(self.part_size)

    def check_parameters(self) -> None:
        check_optional(self, "project_id")
        for instance_id in self._requested_ids():
            check_required(instance_ids=instance_id)
        if self.part_size is None:
            return
        if type(self.part_size) is not int or self.part_size < 1:
            raise ConfigurationError(
                f"part_size must be a whole number of instances, at least 1; got {self.part_size!r}."
            )
        if self.changed_since is not None:
            raise ConfigurationError("changed_since cannot be combined with part_size, which exports everything.")

    def names_rows(self) -> bool:
        return self.instance_ids is not None

    def export(self, tables: Tables, since: datetime | None, report: Report) -> datetime | None:
        latest: datetime | None = None
        exported: set[str] = set()
        report.start()
        for instance in Progress("instances exported or left out").of(self._instances(report)):
            self.started_at()
            instance_id = rules.text(instance.get("id"))
            if instance_id is None:
                report.miss("The list shows an instance without its id")
                continue
            is_requested = instance_id in self._unique_ids
            if not is_requested:  # only the list says that it contains all instances up to a time
                latest = rules.latest_of(latest, rules.time(instance.get("current_state_set_at")))
            if instance_id in exported or not (is_requested or rules.legacy_has_changed(instance, since)):
                continue
            exported.add(instance_id)
            if not self._is_of_project(instance, report):
                continue
            try:
                histories = self.hook.list_activity_histories(instance_id)
            except (*REJECTIONS, *READ_FAULTS) as rejection:
                report.record_rejected(rejection, instance_id=instance_id)
                continue
            report.succeed()
            tables.add(
                {
                    "instances": [rules.legacy_instance_row(instance, company_id=self.hook.company_id)],
                    "activities": [rules.legacy_activity_row(row, instance_id=instance_id) for row in histories],
                }
            )
        return latest

    def _requested_ids(self) -> list[Any]:
        return [] if self.instance_ids is None else as_list(self.instance_ids)

    @cached_property
    def _unique_ids(self) -> dict[str, None]:
        return dict.fromkeys(str(str_id(instance_id)) for instance_id in self._requested_ids())

    def _instances(self, report: Report) -> Iterator[dict[str, Any]]:
        """Yield the given instances, then the active ones."""
        for instance_id in self._unique_ids:
            try:
                yield self.hook.get_instance(instance_id)
            except (*REJECTIONS, *READ_FAULTS) as rejection:
                report.record_rejected(rejection, instance_id=instance_id)
        if self.lists_active:
            yield from self.hook.list_instances()

    def _is_of_project(self, instance: Json, report: Report) -> bool:
        """Return whether an instance belongs to the project to export; report it if that is unknown or unexpected."""
        row = rules.legacy_instance_row(instance, company_id=self.hook.company_id)
        instance_id, project_id = str(row["instance_id"]), row["project_id"]
        if self.hook.project_id in (None, project_id):
            return True
        if project_id is None:
            report.miss("The instance shows no project", instance_id=instance_id)
        elif instance_id in self._unique_ids:
            report.miss(f"The instance belongs to project {project_id}", instance_id=instance_id)
        return False

    @property
    def lists_active(self) -> bool:
        return self.instance_ids is None or self.include_active

    # --- in parts ---

    def _export_in_parts(self, part_size: int) -> dict[str, Any]:
        folder = storage_path("path", self.path, self.object_storage_conn_id)
        with Tables(self.tables, self.file_format):
            pass  # fails before a call if the format is unknown or its library is missing
        parts = HistoryParts(
            folder, self.tables, file_format=self.file_format, part_size=part_size, company_id=self.hook.company_id
        )
        report = Report(self.hook.me)
        resumed = len(parts.stored)
        if resumed:
            self.log.info("%s instances are stored already; the export continues.", resumed)
            report.succeed()
        with parts:
            expected = self._read_until_nothing_moves(parts, report)
        report.end()
        missing = report.forbidden + report.failed
        if not expected and not self.allow_empty:
            self.log.warning("There is no instance to export. Set allow_empty=True if this is expected.")
        complete = not missing and (bool(expected) or self.allow_empty)
        read_at = rules.iso(self.hook.client.server_time())
        url, digest = parts.write_manifest(complete=complete, expected=len(expected), read_at=read_at, missing=missing)
        self.log.info(
            "Stored %s of %s instances with %s activities in %s files.",
            *(len(parts.stored), len(expected), parts.activities, len(parts.files)),
        )
        self._log_missing(report.forbidden, report.failed)
        return {
            "manifest": url,
            "manifest_sha256": digest,
            "complete": complete,
            "expected": len(expected),
            "instances": len(parts.stored),
            "activities": parts.activities,
            "files": len(parts.files),
            "resumed": resumed,
            "forbidden": report.forbidden,
            "failed": report.failed,
        }

    def _read_until_nothing_moves(self, parts: HistoryParts, report: Report) -> set[str]:
        """Store what is not stored or has moved since, until a new list shows nothing of that kind; return all ids."""
        done: set[tuple[str, bool]] = set()  # read in this try, and whether it was listed then
        failed: set[str] = set()
        todo: list[str] = []
        for _ in range(MAX_ROUNDS):
            listed = self._listed(report)
            # The listed ones first: an upgrade to Workflows v2 removes the histories of running instances.
            known = dict.fromkeys([*listed, *self._unique_ids, *parts.stored])
            todo = [
                instance_id
                for instance_id in known
                if instance_id not in failed
                and _is_needed(
                    parts.stored.get(instance_id),
                    listed.get(instance_id),
                    is_done=(instance_id, instance_id in listed) in done,
                )
            ]
            if not todo:
                break
            for instance_id in Progress("instances read", len(todo)).of(todo):
                done.add((instance_id, instance_id in listed))
                if not self._read_one(parts, instance_id, listed.get(instance_id), report):
                    failed.add(instance_id)
            parts.flush()
        for instance_id in todo:
            report.miss(
                "The instance moved each time while it was read. Run the export again.", instance_id=instance_id
            )
        return set(known)

    def _listed(self, report: Report) -> dict[str, Json]:
        listed: dict[str, Json] = {}
        nameless = 0
        for instance in Progress("instances listed").of(self.hook.list_instances() if self.lists_active else ()):
            instance_id = rules.text(instance.get("id"))
            if instance_id is None:
                nameless += 1
            elif self._is_of_project(instance, report):
                listed[instance_id] = instance
        if nameless and not any("instance_id" not in missed for missed in report.failed):  # once in all rounds
            report.miss(f"The list shows {nameless} instances without their id")
        return listed

    def _read_one(self, parts: HistoryParts, instance_id: str, listed: Json | None, report: Report) -> bool:
        """Store an instance if it is not stored as it is now; return whether it is stored as it is now."""
        try:
            instance = self.hook.get_instance(instance_id) if listed is None else listed
            if not self._is_of_project(instance, report):
                return False
            histories = self.hook.list_activity_histories(instance_id)
        except (*REJECTIONS, *READ_FAULTS) as rejection:
            report.record_rejected(rejection, instance_id=instance_id)
            return False
        report.succeed()
        described, stored = _described(instance), parts.stored.get(instance_id)
        mark = _mark(described)
        if stored is not None and stored["activities"] > len(histories):
            # Such as after an upgrade of the tool: what was stored cannot be read again.
            report.miss(
                f"Procore shows {len(histories)} activities now, but {stored['activities']} are stored, which stay",
                instance_id=instance_id,
            )
            return False
        is_running = not _has_ended(described, histories, self.hook.client.server_time())
        if stored is not None and (stored["mark"], stored["activities"]) == (mark, len(histories)):
            parts.stored[instance_id] = {**stored, "is_running": is_running}
            return True
        parts.add(
            instance_id,
            rules.legacy_instance_row(instance, company_id=self.hook.company_id),
            [rules.legacy_activity_row(row, instance_id=instance_id) for row in histories],
            mark=mark,
            is_running=is_running,
        )
        return True


def _is_needed(stored: Json | None, listed: Json | None, *, is_done: bool) -> bool:
    """
    Return whether an instance must be read, again or for the first time.

    :param stored: What is known of the instance if it is stored.
    :param listed: Its row of the list of active instances.
    :param is_done: Whether it was read in this try, while it was listed or not as it is now.
    """
    if stored is None:
        return True
    if listed is None:  # it may have ended since it was stored
        return bool(stored["is_running"]) and not is_done
    described = _described(listed)
    if stored["mark"] != _mark(described):
        return True
    return not is_done and (described is None or may_hide_activities(described))


def _described(instance: Json) -> Json | None:
    """Return the state of an instance as its row of the list shows it, too, or None if it is malformed."""
    try:
        return {**describe_instance(instance), "status": None}  # the list may have another status than the instance
    except UnexpectedResponse:
        return None


def _mark(described: Json | None) -> str:
    return "malformed" if described is None else mark_of(described)


def _has_ended(described: Json | None, histories: list[dict[str, Any]], now: datetime) -> bool:
    """Return whether an instance was terminated, or has had neither an activity nor a change for a while."""
    if described is None:
        return False
    try:
        return has_ended(described, is_quiet(described, histories, now - ENDED_AFTER))
    except UnexpectedResponse:  # a malformed row of the history
        return False
