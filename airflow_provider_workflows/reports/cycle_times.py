"""The cycle-time report: where approvals lose their time, calculated from exported history tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.files.object_storage import storage_path
from airflow_provider_workflows.reports import measures_sql
from airflow_provider_workflows.reports.database import COPY_OPTIONS, HistoryDatabase, open_histories
from airflow_provider_workflows.rules.business_hours import EPOCH, BusinessHours
from airflow_provider_workflows.rules.datetimes import zoned_time
from airflow_provider_workflows.rules.parameters import check_choice, check_required
from airflow_provider_workflows.rules.procore_history import iso

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

Row = dict[str, Any]
MAX_OPEN_STEPS = 1000


@dataclass(frozen=True)
class CycleTimeReport:
    """
    Hold the numbers of a cycle-time report.

    All times are ISO-8601 texts in UTC, such as ``2026-01-31T08:00:00.000Z``; all durations are seconds; all shares
    and rates are between 0 and 1. A value that cannot be calculated is None, such as the median of no rows. ``api`` is
    ``v2`` or ``legacy``. Rows of ``seconds`` are calendar time, rows of ``business_seconds`` working time only.

    A step of Workflows v2 is a response step or an action, a step of Legacy Workflows a state.

    :param as_of: Time up to which open steps are measured.
    :param time_zone: Time zone of the working hours and of the weeks, such as ``Europe/Berlin``.
    :param country: Country of the holidays, such as ``DE`` or ``DE-BY``, or None without holidays.
    :param working_hours: Working days and hours as text, such as ``Mon-Fri 09:00-17:00``.
    :param holidays_used: The holidays on working days of the period: ``{day, name}``.
    :param totals: ``{instances, ended, open, terminated, step_rows, open_steps, overridden, malformed, total_seconds,
        total_business_seconds}``: counts of instances; of step occurrences that started, that are open and that were
        overridden; of malformed rows; and the waiting time of all step occurrences.
    :param step_summary: The most time-consuming step first: ``{api, template, step, count, open, median_seconds,
        p90_seconds, median_business_seconds, p90_business_seconds, total_seconds, total_business_seconds,
        share_of_total, share_overdue, rework_rate, cut_off}``. ``count`` are the ended occurrences, of which median
        and p90 are; ``cut_off`` those that a termination ended without a decision. ``total_seconds`` contains
        both of them, and the age of the open. ``share_overdue`` is a share of the occurrences with a due date;
        ``rework_rate`` the share of occurrences that are returns.
    :param template_summary: The same of whole instances, without ``step``: ``count`` are the instances that ended
        other than by termination, ``cut_off`` the terminated ones, ``share_overdue`` the share of instances with an
        overdue step, ``rework_rate`` the share of instances with a return.
    :param person_summary: The same of responses, with ``person`` instead of ``template`` and ``step``: the person's
        time is from the start of the step to the own response; ``open`` are the pending steps; ``cut_off`` is missing.
    :param step_distribution: In the order of ``step_summary``: ``{api, template, step, count, seconds,
        business_seconds, bins, business_bins}``: ``seconds`` and ``business_seconds`` are ``{min, p10, p25, p50, p75,
        p90, max}``; each bin is ``{from_seconds, to_seconds, count}``, without ``to_seconds`` (None) in the last one.
    :param throughput: Every ISO week from the first to the last: ``{week, started, ended}``; ``week`` is like
        ``2026-W05``, the counts are instances.
    :param open_steps: At most 1,000, the oldest first: ``{api, template, step, instance_id, item_id, tool_type,
        company_id, project_id, since, age_seconds, age_business_seconds, due, is_overdue, assignees, occurrence,
        decided_by_50, decided_by_80, observations}``: ``assignees`` are the names of those who have not responded;
        ``occurrence`` is 2 or more for a return. ``observations`` counts the observed durations of the step that were
        longer than its age; below 20 there is no forecast.
    :param open_ages: All open steps by age: ``{from_seconds, to_seconds, count, overdue}``.
    :param malformed: At most 100 of the malformed rows, which are left out: ``{file, row, reason}``; ``row`` is the
        key of the row, or its line.
    """

    as_of: str
    time_zone: str
    country: str | None
    working_hours: str
    holidays_used: list[Row]
    totals: Row
    step_summary: list[Row]
    template_summary: list[Row]
    person_summary: list[Row]
    step_distribution: list[Row]
    throughput: list[Row]
    open_steps: list[Row]
    open_ages: list[Row]
    malformed: list[Row]


def cycle_time_report(
    history_path: str | ObjectStoragePath,
    *,
    object_storage_conn_id: str | None = None,
    tables_path: str | ObjectStoragePath | None = None,
    tables_format: str = "parquet",
    time_zone: str = "UTC",
    country: str | None = None,
    working_days: str = "Mon-Fri",
    working_hours: str = "09:00-17:00",
    as_of: str | datetime | None = None,
) -> CycleTimeReport:
    """
    Calculate a cycle-time report from exported histories.

    :param history_path: Folder of the exports, with their sub-folders. Rows that several exports contain count once.
    :param object_storage_conn_id: Connection to the storage of both paths; default: the one in the path, if any.
    :param tables_path: Folder for the tables steps, instances, step_summary, template_summary and person_summary; None
        for no tables.
    :param tables_format: ``parquet`` or ``csv``.
    :param time_zone: Time zone of the working hours and of the weeks, such as ``Europe/Berlin``.
    :param country: Country of the holidays, such as ``DE``, or with its subdivision ``DE-BY``; None for no holidays.
    :param working_days: Working days, such as ``Mon-Fri`` or ``Sun-Thu``.
    :param working_hours: Hours of a working day, such as ``09:00-17:00`` or ``08:00-12:00,13:00-17:00``.
    :param as_of: Time up to which open steps are measured: ISO-8601 with its zone, or a datetime with its zone.
        Default: now, or the latest time in the histories if that is later.
    :raises ConfigurationError: a parameter is wrong, a path cannot be read or written, the histories have no rows or
        lack a column, or the extra ``report`` is not installed.
    """
    hours = BusinessHours.from_parameters(
        time_zone=time_zone, country=country, working_days=working_days, working_hours=working_hours
    )
    check_choice("tables_format", tables_format, tuple(COPY_OPTIONS))
    measured_at = _as_of(as_of)
    root = storage_path("history_path", history_path, object_storage_conn_id)
    target = None if tables_path is None else storage_path("tables_path", tables_path, object_storage_conn_id)
    with open_histories(root) as database:
        period = database.measure(hours, measured_at)
        report = _report(database, hours, period)
        if target is not None:
            database.write_tables(target, tables_format)
    return report


def _as_of(value: str | datetime | None) -> datetime | None:
    if value is None:
        return None
    check_required(as_of=value)
    text = str(value).strip()
    moment = value if isinstance(value, datetime) else zoned_time(text)
    if moment is None or moment.tzinfo is None or not 1970 < moment.year < 2100:
        raise ConfigurationError(
            f"as_of must be a time with its zone, such as 2026-01-31T00:00:00Z; got {str(value)!r}. Omit it for now."
        )
    return moment


def _report(database: HistoryDatabase, hours: BusinessHours, period: tuple[int, int]) -> CycleTimeReport:
    malformed, sample = database.malformed()
    step_summary = database.rows(measures_sql.IN_ORDER["step_summary"])
    return CycleTimeReport(
        as_of=iso(EPOCH + timedelta(microseconds=database.as_of)),
        time_zone=str(hours.zone),
        country=hours.country,
        working_hours=hours.label,
        holidays_used=hours.holidays(*period),
        totals={**database.rows(measures_sql.TOTALS)[0], "malformed": malformed},
        step_summary=step_summary,
        template_summary=database.rows(measures_sql.IN_ORDER["template_summary"]),
        person_summary=database.rows(measures_sql.IN_ORDER["person_summary"]),
        step_distribution=_distributions(database, step_summary),
        throughput=database.rows(measures_sql.THROUGHPUT),
        open_steps=database.rows(f"{measures_sql.OPEN_STEPS} LIMIT {MAX_OPEN_STEPS}"),
        open_ages=_open_ages(database),
        malformed=sample,
    )


def _distributions(database: HistoryDatabase, step_summary: Sequence[Row]) -> list[Row]:
    """Return the distributions in the order of the summary."""
    found = {(row["api"], row["template"], row["step"]): row for row in database.rows(measures_sql.DISTRIBUTIONS)}
    in_order = [found.get((row["api"], row["template"], row["step"])) for row in step_summary]
    return [_distribution(row) for row in in_order if row is not None]


def _distribution(row: Row) -> Row:
    times = {
        kind: {name: value / 1e6 for name, value in zip(measures_sql.QUANTILES, row[kind], strict=True)}
        for kind in ("seconds", "business_seconds")
    }
    bins = {
        kind: [
            edges | {"count": count} for edges, count in zip(_bins(measures_sql.BIN_SECONDS), row[kind], strict=True)
        ]
        for kind in ("bins", "business_bins")
    }
    return {**row, **times, **bins}


def _open_ages(database: HistoryDatabase) -> list[Row]:
    counts, overdue = database.row(measures_sql.OPEN_AGES)
    return [
        edges | {"count": count, "overdue": late}
        for edges, count, late in zip(_bins(measures_sql.AGE_SECONDS), counts, overdue, strict=True)
    ]


def _bins(edges: Sequence[int]) -> list[Row]:
    highs: list[float | None] = [*map(float, edges[1:]), None]
    return [{"from_seconds": float(low), "to_seconds": high} for low, high in zip(edges, highs, strict=True)]
