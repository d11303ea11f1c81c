"""The operator that exports the histories of Procore Legacy workflows as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from airflow_provider_workflows.exceptions import (
    READ_FAULTS,
    REJECTIONS,
)
from airflow_provider_workflows.operators.base import Progress
from airflow_provider_workflows.operators.procore.histories import Report
from airflow_provider_workflows.operators.procore.history_export import ProcoreExportOperator
from airflow_provider_workflows.operators.procore_legacy.base import ProcoreLegacyConnectionOperator
from airflow_provider_workflows.operators.table_writer import Tables
from airflow_provider_workflows.rules import procore_history as rules
from airflow_provider_workflows.rules.parameters import as_list, check_required, str_id

Json = Mapping[str, Any]


class ProcoreLegacyHistoryToObjectStorageOperator(ProcoreExportOperator, ProcoreLegacyConnectionOperator):
    """
    Exports the activity histories of legacy workflow instances as the tables instances and activities.

    The API lists active instances only: what has ended since the last export must be named in ``instance_ids``.
    One call for each instance.

    Returns ``{paths: {instances, activities}, instances, activities, kept, forbidden, failed, changed_since,
    watermark}`` as ``ProcoreHistoryToObjectStorageOperator`` does.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_ids: Exactly these instances (templated). Default: the active ones.
    :param include_active: Export the active instances beside ``instance_ids``, too.
    :param changed_since: Leave out listed instances that entered their state before then: an ISO-8601 time with
        its zone, or such a datetime (templated). An activity that did not move the state does not count.
    :param path: Folder for the files: a URL such as ``s3://bucket/audit``, or an ``ObjectStoragePath`` (templated).
    :param object_storage_conn_id: Connection to the storage (templated); default: the one in the path, if any.
    :param file_format: ``parquet`` (default; needs the extra ``parquet``) or ``jsonl`` (templated).
    :param overlap: How much earlier than the latest change that was seen the returned ``watermark`` is, a timedelta or
        seconds; default one hour. What shows late is then exported by the next run, with the same keys as any row.
    :param allow_empty: Write empty tables over the files of an earlier run, too, where there are no rows at all and no
        ``changed_since``; by default these files stay, and the log warns.
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
            given = instance_id in self._given_ids
            if not given:  # of those that are not named only the list tells that it holds all
                latest = rules.latest_of(latest, rules.time(instance.get("current_state_set_at")))
            if instance_id in exported or not (given or rules.legacy_has_changed(instance, since)):
                continue
            exported.add(instance_id)
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

    def _given(self) -> list[Any]:
        return [] if self.instance_ids is None else as_list(self.instance_ids)

    @cached_property
    def _given_ids(self) -> dict[str, None]:
        return dict.fromkeys(str(str_id(given)) for given in self._given())

    def _instances(self, report: Report) -> Iterator[dict[str, Any]]:
        """Return the instances to look at: those that are named, then the active ones."""
        for instance_id in self._given_ids:
            try:
                yield self.hook.get_instance(instance_id)
            except (*REJECTIONS, *READ_FAULTS) as rejection:
                report.record_rejected(rejection, instance_id=instance_id)
        if self.instance_ids is None or self.include_active:
            yield from self.hook.list_instances()
