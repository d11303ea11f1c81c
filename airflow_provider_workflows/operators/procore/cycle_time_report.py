"""The operator that reports where Procore approvals wait, from exported histories."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.links.airflow import ReportLink
from airflow_provider_workflows.operators.base import WorkflowsOperator
from airflow_provider_workflows.operators.lineage import lineage_of

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath


class ProcoreCycleTimeReportOperator(WorkflowsOperator):
    """
    Write a page and tables about the waiting times in exported histories of Workflows v2 and Legacy Workflows.

    The operator reads what ``ProcoreHistoryToObjectStorageOperator`` and
    ``ProcoreLegacyHistoryToObjectStorageOperator`` wrote, and calls no API. It needs the extra ``report``. A new
    run replaces the files of an earlier one.

    Returns ``{page, tables, as_of, instances, ended, open, terminated, step_rows, open_steps, overridden, malformed,
    total_seconds, total_business_seconds}``: the URL of the page, the URLs of the tables by name, the time up to which
    open steps are measured, counts of instances, of step occurrences and of malformed rows, which are left out, and the
    waiting time of all step occurrences.

    :param history_path: Folder of the exports, with its sub-folders: a URL such as ``s3://bucket/audit``, or an
        ``ObjectStoragePath`` (templated). Rows that several exports contain count once.
    :param output_path: The HTML file to write, such as ``s3://bucket/report.html`` (templated).
    :param tables_path: Folder for the tables steps, instances, step_summary, template_summary and person_summary
        (templated); default: no tables.
    :param tables_format: ``parquet`` (default) or ``csv`` (templated).
    :param object_storage_conn_id: Connection to the storage of all paths (templated); default: the one in each path,
        if any.
    :param item_url: Pattern of the links to items, with ``{company_id}``, ``{project_id}``, ``{tool_type}``,
        ``{item_id}`` and ``{instance_id}`` (templated); default: no links, because Procore does not document the URLs.
    :param time_zone: Time zone of the page, of its weeks and of the working hours, such as ``Europe/Berlin``
        (templated).
    :param country: Country of the public holidays, such as ``DE``, or with its subdivision ``DE-BY`` (templated);
        default: no holidays.
    :param working_days: Working days, such as ``Mon-Fri`` or ``Sun-Thu`` (templated).
    :param working_hours: Hours of a working day, such as ``09:00-17:00`` or ``08:00-12:00,13:00-17:00`` (templated).
    :param page_url: Address at which browsers find the page, for the task's link ``Report`` (templated); default:
        ``output_path`` if it is an http address, else no link.
    :param as_of: Time up to which open steps are measured: ISO-8601 with its zone, or a datetime with its zone
        (templated); default: now.
    :raises ConfigurationError: a parameter is wrong, a path cannot be read or written, the histories have no rows or
        lack a column, or the extra ``report`` is not installed.
    """

    template_fields: Sequence[str] = (
        "history_path",
        "output_path",
        "tables_path",
        "tables_format",
        "object_storage_conn_id",
        "item_url",
        "time_zone",
        "country",
        "working_days",
        "working_hours",
        "as_of",
        "page_url",
    )
    operator_extra_links = (ReportLink(),)

    def __init__(
        self,
        *,
        history_path: str | ObjectStoragePath,
        output_path: str | ObjectStoragePath,
        tables_path: str | ObjectStoragePath | None = None,
        tables_format: str = "parquet",
        object_storage_conn_id: str | None = None,
        item_url: str | None = None,
        time_zone: str = "UTC",
        country: str | None = None,
        working_days: str = "Mon-Fri",
        working_hours: str = "09:00-17:00",
        as_of: str | datetime | None = None,
        page_url: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.history_path = history_path
        self.output_path = output_path
        self.tables_path = tables_path
        self.tables_format = tables_format
        self.object_storage_conn_id = object_storage_conn_id
        self.item_url: Any = item_url  # a pattern here, not the link of a task
        self.time_zone = time_zone
        self.country = country
        self.working_days = working_days
        self.working_hours = working_hours
        self.as_of = as_of
        self.page_url = page_url
        self.report_link = ""
        self._written: list[str] = []

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the exports and the written files as datasets; OpenLineage's provider calls this."""
        return lineage_of(inputs=[str(self.history_path)] if self._written else [], outputs=self._written)

    def act(self, context: Context) -> dict[str, Any]:
        from airflow_provider_workflows.reports.report_files import write_report

        result = write_report(
            self.history_path,
            self.output_path,
            tables_path=self.tables_path,
            tables_format=self.tables_format,
            object_storage_conn_id=self.object_storage_conn_id,
            item_url=self.item_url,
            time_zone=self.time_zone,
            country=self.country,
            working_days=self.working_days,
            working_hours=self.working_hours,
            as_of=self.as_of,
        )
        self._written = [result["page"], *(result["tables"] or {}).values()]
        address = self.page_url or result["page"]
        self.report_link = address if address.startswith(("https://", "http://")) else ""
        self.log.info(
            "Reported %s instances with %s step occurrences, %s of them open, to %s.",
            result["instances"],
            result["step_rows"],
            result["open_steps"],
            result["page"],
        )
        if result["malformed"]:
            self.log.warning("Malformed rows, left out: %s. The page names them.", result["malformed"])
        return result
