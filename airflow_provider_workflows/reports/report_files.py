"""Write a cycle-time report to an object storage: its page and its tables."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.files.object_storage import storage_path
from airflow_provider_workflows.files.table_writer import LOCAL, replace_files
from airflow_provider_workflows.reports.cycle_times import cycle_time_report
from airflow_provider_workflows.reports.measures_sql import TABLES
from airflow_provider_workflows.rules.business_hours import missing_extra

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

TABLE_SUFFIXES = (".parquet", ".jsonl", ".csv")


def write_report(
    history_path: str | ObjectStoragePath,
    output_path: str | ObjectStoragePath,
    *,
    tables_path: str | ObjectStoragePath | None = None,
    tables_format: str = "parquet",
    object_storage_conn_id: str | None = None,
    item_url: str | None = None,
    time_zone: str = "UTC",
    country: str | None = None,
    working_days: str = "Mon-Fri",
    working_hours: str = "09:00-17:00",
    as_of: str | datetime | None = None,
) -> dict[str, Any]:
    """
    Write the page and the tables of a cycle-time report; files of an earlier report are replaced.

    :param history_path: Folder of the exports, with their sub-folders.
    :param output_path: The HTML file to write.
    :param tables_path: Folder for the tables; None for no tables.
    :param tables_format: ``parquet`` or ``csv``.
    :param object_storage_conn_id: Connection to the storage of all paths; default: the one in each path, if any.
    :param item_url: Pattern of the links to items, with ids in braces; None for no links.
    :param time_zone: Time zone of the page and of the working hours.
    :param country: Country of the public holidays, with or without a subdivision; None for no holidays.
    :param working_days: Working days, such as ``Mon-Fri``.
    :param working_hours: Hours of a working day, such as ``09:00-17:00``.
    :param as_of: Time up to which open steps are measured; default: now.
    :return: ``{page, tables, as_of}`` and the totals of the report; ``tables`` are URLs by name.
    :raises ConfigurationError: a parameter is wrong, a path cannot be read or written, or a library is missing.
    """
    if find_spec("matplotlib") is None:
        raise missing_extra("matplotlib")
    from airflow_provider_workflows.reports.page import check_item_url, render_page

    check_item_url(item_url)
    page = storage_path("output_path", output_path, object_storage_conn_id)
    _check_can_be_written("output_path", page, page.parent)
    if page.is_dir():
        raise ConfigurationError(f"output_path: {str(page)!r} is a folder. Give the file, such as report.html in it.")
    if page.suffix in TABLE_SUFFIXES:
        raise ConfigurationError(f"output_path: {str(page)!r} is the name of a table. Give an HTML file.")
    tables = None if tables_path is None else storage_path("tables_path", tables_path, object_storage_conn_id)
    if tables is not None:
        _check_can_be_written("tables_path", tables, tables)
        _check_outside(tables, storage_path("history_path", history_path, object_storage_conn_id))
    report = cycle_time_report(
        history_path,
        object_storage_conn_id=object_storage_conn_id,
        tables_path=tables_path,
        tables_format=tables_format,
        time_zone=time_zone,
        country=country,
        working_days=working_days,
        working_hours=working_hours,
        as_of=as_of,
    )
    _write(page, render_page(report, item_url))
    return {
        "page": str(page),
        "tables": {} if tables is None else {name: str(tables / f"{name}.{tables_format}") for name in TABLES},
        "as_of": report.as_of,
        **report.totals,
    }


def _check_can_be_written(parameter: str, target: ObjectStoragePath, folder: ObjectStoragePath) -> None:
    """Check a local folder before the work starts; whether a storage accepts a file shows only when it is written."""
    if folder.protocol not in LOCAL:
        return
    path = Path(folder.path).absolute()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = "not writable" if existing.is_dir() else "not a folder"
        raise ConfigurationError(f"{parameter}: {str(target)!r} cannot be written, because {existing} is {problem}.")


def _check_outside(tables: ObjectStoragePath, history: ObjectStoragePath) -> None:
    """Check that the next report would not read these tables as a history, or that they replace one."""
    if (tables.protocol in LOCAL) != (history.protocol in LOCAL) or tables.fs != history.fs:
        return
    own, read = (Path(path.path).resolve() if path.protocol in LOCAL else Path(path.path) for path in (tables, history))
    if own.is_relative_to(read):
        raise ConfigurationError(
            f"tables_path: {str(tables)!r} is in history_path, where the next report would read the tables as a "
            "history. Give a folder beside it."
        )


def _write(target: ObjectStoragePath, page: str) -> None:
    with tempfile.TemporaryDirectory(prefix="workflows-report-") as folder:
        local = Path(folder, "page.html")
        local.write_text(page, encoding="utf-8")
        try:
            replace_files([(local, target)])
        except OSError as error:
            raise ConfigurationError(f"output_path: {str(target)!r} cannot be written: {error}") from error
