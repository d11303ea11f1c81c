"""History tables with rows of few chosen values, as the exports write them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from airflow.sdk import ObjectStoragePath

from airflow_provider_workflows.files.table_writer import Tables
from airflow_provider_workflows.rules.procore_history import LEGACY_TABLES, TABLES

Row = dict[str, Any]


def write_histories(folder: Path, *, file_format: str = "jsonl", **rows: Iterable[Row]) -> str:
    """
    Write the tables of one export.

    :param rows: Rows by table; missing columns are null. With ``activities`` the tables are those of Legacy Workflows.
    :return: URL of the folder.
    """
    columns = LEGACY_TABLES if "activities" in rows else TABLES
    with Tables(columns, file_format) as tables:
        tables.add({table: [{**dict.fromkeys(columns[table]), **row} for row in of] for table, of in rows.items()})
        tables.save(ObjectStoragePath(folder.as_uri()))
    return folder.as_uri()
