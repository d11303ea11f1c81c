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
    Export the activity histories of legacy workflow instances as the tables instances and activities.

    The API lists active instances only. Name instances that have ended since the last export in ``instance_ids``.
    The operator makes one request for each instance.

    Returns ``{paths: {instances, activities}, instances, activities, kept, forbidden, failed, changed_since,
    watermark}`` as ``ProcoreHistoryToObjectStorageOperator`` does.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

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
        ``changed_since``; by default these files stay, and the log warns.
    :raises ConfigurationError: a parameter is missing, a time has no time zone, or pyarrow is not installed.
    :raises ApiError: nothing could be read; errors of single instances are in the result instead.
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
            if not given:  # only the list says that it contains all instances up to a time
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
        """Yield the given instances, then the active ones."""
        for instance_id in self._given_ids:
            try:
                yield self.hook.get_instance(instance_id)
            except (*REJECTIONS, *READ_FAULTS) as rejection:
                report.record_rejected(rejection, instance_id=instance_id)
        if self.instance_ids is None or self.include_active:
            yield from self.hook.list_instances()
