"""The files of exported histories: finds them in a folder, checks them, and gives their rows to DuckDB."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.procore_history import LEGACY_TABLES, TABLES

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

LOCAL = ("", "file", "local")
FORMATS = ("parquet", "jsonl")
COPY_CHUNK_BYTES = 2**20
TABLES_OF_API = {"v2": TABLES, "legacy": LEGACY_TABLES}
# The columns that a report reads, by table of the API.
USED = {
    "v2": {
        "instances": [
            "instance_id",
            "company_id",
            "project_id",
            "tool_type",
            "item_id",
            "workflow",
            "status",
            "updated_at",
            "started_at",
            "ended_at",
        ],
        "steps": [
            "instance_id",
            "step_key",
            "event_index",
            "event_type",
            "step_uuid",
            "name",
            "started_at",
            "ended_at",
            "due_at",
            "overall_response",
            "overall_response_type",
            "overridden_at",
            "overridden_by_id",
            "overridden_by_login",
            "overridden_by_name",
            "decided_option",
            "decided_type",
            "decided_by",
            "decided_at",
            "decided_problem",
            "raw",
        ],
        "responses": [
            "instance_id",
            "step_key",
            "response_key",
            "user_id",
            "login",
            "name",
            "role_type",
            "response",
            "response_type",
            "responded_at",
        ],
    },
    "legacy": {
        "instances": [
            "instance_id",
            "company_id",
            "project_id",
            "object_id",
            "object_type",
            "workflow_id",
            "workflow",
            "state_id",
            "state",
            "status",
            "state_set_at",
            "becomes_overdue_at",
            "terminated_at",
            "terminated_by_id",
            "ball_in_court",
            "open_activities",
        ],
        "activities": [
            "instance_id",
            "history_id",
            "activity_id",
            "activity",
            "state_id",
            "state",
            "performed_by_id",
            "performed_by",
            "started_at",
            "ended_at",
            "created_at",
        ],
    },
}
TYPES = {"text": "VARCHAR", "time": "BIGINT", "count": "BIGINT"}
READ = {"text": "CAST({} AS VARCHAR)", "time": "microseconds({})", "count": "TRY_CAST({} AS BIGINT)"}
# Times of other centuries are errors, such as the year 0001 for "unknown"; they would also make long calendars.
MACROS = """
CREATE MACRO microseconds(t) AS CASE
    WHEN epoch_us(TRY_CAST(t AS TIMESTAMPTZ)) BETWEEN 0 AND 4102444800000000 THEN epoch_us(TRY_CAST(t AS TIMESTAMPTZ))
END;
CREATE MACRO unreadable_time(name, t) AS CASE
    WHEN t IS NOT NULL AND microseconds(t) IS NULL
    THEN name || ' ' || left(CAST(t AS VARCHAR), 60) || ' is not a time between 1970 and 2100'
END;
CREATE MACRO moment(us) AS make_timestamp(us) AT TIME ZONE 'UTC';
CREATE MACRO iso(us) AS strftime(make_timestamp(us), '%Y-%m-%dT%H:%M:%S.%gZ');
"""


@dataclass(frozen=True)
class HistoryFile:
    """
    Describe one file of a history.

    :param url: Where the file is.
    :param api: ``v2`` or ``legacy``.
    :param table: Name of the table.
    :param file_format: ``parquet`` or ``jsonl``.
    :param part: Number of the export that wrote it, in the order of the folders' names.
    :param local: The file on this machine, or a link to it; its stem is its number.
    """

    url: str
    api: str
    table: str
    file_format: str
    part: int
    local: Path


def find_files(root: ObjectStoragePath, folder: Path) -> list[HistoryFile]:
    """
    Find the tables of all exports in a folder and its sub-folders, and copy remote files.

    :param root: The folder of the histories.
    :param folder: An empty local folder for copies of remote files, and for links to local ones.
    :raises ConfigurationError: there is no history, or the files of an export are incomplete.
    """
    exports: dict[tuple[str, str], dict[str, str]] = {}  # by folder and format: keys by table
    tables = {table for api in TABLES_OF_API.values() for table in api}
    try:
        keys = sorted(root.fs.find(root.path))
    except OSError as error:
        raise ConfigurationError(f"history_path: {str(root)!r} cannot be read: {error}") from error
    for key in keys:
        parent, _, name = key.rpartition("/")
        table, _, file_format = name.rpartition(".")
        if table in tables and file_format in FORMATS:
            exports.setdefault((parent, file_format), {})[table] = key
    if not exports:
        raise ConfigurationError(
            f"history_path: {str(root)!r} contains no exported history. Give the folder to which "
            "ProcoreHistoryToObjectStorageOperator or ProcoreLegacyHistoryToObjectStorageOperator wrote, or a folder "
            f"above it: with files such as {'instances.parquet'} and {'steps.jsonl'}."
        )
    found: list[HistoryFile] = []
    for part, ((parent, file_format), files) in enumerate(sorted(exports.items())):
        api = _api_of(parent, file_format, files)
        for table in TABLES_OF_API[api]:
            local = folder / f"{len(found)}.{file_format}"
            _fetch(root, files[table], local)
            found.append(HistoryFile(_url(root, files[table]), api, table, file_format, part, local))
    return found


def _api_of(parent: str, file_format: str, files: Mapping[str, str]) -> str:
    is_v2, is_legacy = "steps" in files or "responses" in files, "activities" in files
    if is_v2 and is_legacy:
        raise ConfigurationError(
            f"history_path: both exports, of Workflows v2 and of Legacy Workflows, wrote to {parent}, so the instances "
            "of one have replaced those of the other. Export each to a folder of its own."
        )
    api = "legacy" if is_legacy else "v2"
    if missing := [f"{table}.{file_format}" for table in TABLES_OF_API[api] if table not in files]:
        raise ConfigurationError(
            f"history_path: {parent} has {', '.join(f'{table}.{file_format}' for table in sorted(files))}, but not "
            f"{', '.join(missing)}. Export this period again."
        )
    return api


def _fetch(root: ObjectStoragePath, key: str, local: Path) -> None:
    if root.protocol in LOCAL:
        local.symlink_to(Path(key).absolute())
        return
    try:
        with root.fs.open(key, "rb") as source, local.open("wb") as copy:
            shutil.copyfileobj(source, copy, COPY_CHUNK_BYTES)
    except OSError as error:
        raise ConfigurationError(f"history_path: {_url(root, key)} cannot be read: {error}") from error


def _url(root: ObjectStoragePath, key: str) -> str:
    return key if root.protocol in LOCAL else f"{root.protocol}://{key.lstrip('/')}"


def check_columns(connection: Any, files: Iterable[HistoryFile]) -> None:
    """
    Check that each file can be read and has the columns that a report needs.

    :param connection: Connection to DuckDB.
    :raises ConfigurationError: a file is damaged, or lacks a column; the message names both.
    """
    import duckdb

    for file in files:
        try:
            if file.file_format == "parquet":
                query = "SELECT * FROM read_parquet(?, hive_partitioning = false) LIMIT 0"
                columns = [column[0] for column in connection.execute(query, [str(file.local)]).description]
            else:
                columns = _columns_of_lines(file)
        except (duckdb.Error, OSError, UnicodeDecodeError) as error:
            reason = str(error).replace(str(file.local), file.url).splitlines()[0]
            raise ConfigurationError(
                f"history_path: {file.url} is not a readable {file.file_format} file: {reason}. Export this period "
                "again, or remove the file."
            ) from error
        missing = [column for column in USED[file.api][file.table] if columns and column not in columns]
        if missing:
            raise ConfigurationError(
                f"history_path: {file.url} lacks the columns {', '.join(missing)} of the table {file.table}. Another "
                "version of this package or another program wrote it; export this period again with this version."
            )


def _columns_of_lines(file: HistoryFile) -> list[str]:
    """Return the columns of the first row that can be read; an empty list if there is none."""
    with file.local.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            row = _row_of(line)
            if row is not None:
                return list(row)
    return []


def _row_of(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def source(files: Iterable[HistoryFile], api: str, table: str) -> str:
    """
    Return the SQL of a query for all rows of a table.

    Times are microseconds since 1970. ``file`` is the number of the file, ``part`` that of its export; ``unreadable``
    says which times cannot be read, or is empty. A line that is not a JSON object is a row of nulls.
    """
    kinds = TABLES_OF_API[api][table]
    columns = USED[api][table]
    times = [column for column in columns if kinds[column] == "time"]
    values = [f"{READ[kinds[column]].format(column)} AS {column}" for column in columns]
    unreadable = ", ".join(f"unreadable_time('{column}', {column})" for column in times) or "NULL"
    chosen = [file for file in files if file.api == api and file.table == table]
    queries = []
    for file_format in FORMATS:
        names = [str(file.local) for file in chosen if file.file_format == file_format]
        if not names:
            continue
        paths = f"[{', '.join(map(literal, names))}]"
        if file_format == "parquet":
            reader = f"read_parquet({paths}, hive_partitioning = false, union_by_name = true, filename = true)"
        else:
            shape = ", ".join(f"{column}: 'VARCHAR'" for column in columns)
            reader = (
                f"read_json({paths}, format = 'newline_delimited', columns = {{{shape}}}, ignore_errors = true, "
                "hive_partitioning = false, filename = true)"
            )
        queries.append(
            f"SELECT {', '.join(values)}, concat_ws('; ', {unreadable}) AS unreadable, "
            f"CAST(parse_filename(filename, true) AS INTEGER) AS file FROM {reader}"
        )
    if not queries:
        empty = ", ".join(f"CAST(NULL AS {TYPES[kinds[column]]}) AS {column}" for column in columns)
        queries.append(f"SELECT {empty}, '' AS unreadable, CAST(NULL AS INTEGER) AS file WHERE false")
    return f"SELECT rows.*, part FROM ({' UNION ALL '.join(queries)}) rows JOIN files ON file = number"


def literal(text: str) -> str:
    """Return a text as SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def nameless_lines(file: HistoryFile, keys: Iterable[str], limit: int) -> Iterator[dict[str, Any]]:
    """Yield the first lines of a file that are not JSON objects or lack a key: ``{file, row, reason}``."""
    with file.local.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if limit <= 0:
                return
            row = _row_of(line) if line.strip() else {}
            absent = [] if not row else [key for key in keys if row.get(key) is None]
            if row is None or absent:
                reason = f"the row has no {absent[0]}" if absent else "the line is not a JSON object"
                limit -= 1
                yield {"file": file.url, "row": f"line {number}", "reason": reason}
