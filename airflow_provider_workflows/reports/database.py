"""The database of a report: DuckDB reads the histories in bounded memory, and stores the rest in a temporary file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.files.table_writer import replace_files
from airflow_provider_workflows.reports import measures_sql, occurrences_sql
from airflow_provider_workflows.reports.history_files import (
    MACROS,
    TABLES_OF_API,
    HistoryFile,
    check_columns,
    find_files,
    literal,
    nameless_lines,
    source,
)
from airflow_provider_workflows.rules.business_hours import EPOCH, BusinessHours, missing_extra

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

Row = dict[str, Any]
MEMORY_LIMIT = "512MB"  # of DuckDB; what does not fit goes to the temporary folder
MAX_THREADS = 4  # each needs memory of its own
MAX_MALFORMED = 100
FETCHED_ROWS = 10_000
# By format of the tables: the options of COPY, and how a time is written.
COPY_OPTIONS = {"parquet": "FORMAT parquet, COMPRESSION zstd", "csv": "FORMAT csv, HEADER"}
TIME_OF = {"parquet": "moment", "csv": "iso"}


@contextmanager
def open_histories(root: ObjectStoragePath) -> Iterator[HistoryDatabase]:
    """
    Read the histories in a folder.

    :raises ConfigurationError: there are none, a file lacks a column or is damaged, or DuckDB is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise missing_extra("duckdb") from None
    with tempfile.TemporaryDirectory(prefix="workflows-report-") as name:
        folder = Path(name)
        files_folder = folder / "files"
        files_folder.mkdir()
        files = find_files(root, files_folder)
        settings: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "threads": min(MAX_THREADS, os.cpu_count() or 1),
            "temp_directory": str(folder / "spilled"),
            "preserve_insertion_order": False,
            # A worker may be offline; all that is needed is built in.
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        connection = duckdb.connect(str(folder / "report.duckdb"), config=settings)
        try:
            database = HistoryDatabase(connection, files, folder)
            check_columns(connection, files)
            database.load(root)
            yield database
        finally:
            connection.close()


class HistoryDatabase:
    """
    Hold the histories as tables, and measure them.

    :param connection: Connection to DuckDB.
    :param files: The files of the histories.
    :param folder: Temporary folder.
    """

    def __init__(self, connection: Any, files: list[HistoryFile], folder: Path):
        self.connection = connection
        self.files = files
        self._folder = folder
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(MACROS + occurrences_sql.COMMON_TABLES)

    def load(self, root: ObjectStoragePath) -> None:
        """
        Read all rows, and reduce them to the latest state of each instance.

        :raises ConfigurationError: a file cannot be read, or there are no rows at all.
        """
        self.connection.execute(
            "CREATE TABLE files (number INTEGER, part INTEGER, url VARCHAR);"
            "CREATE TABLE row_counts (file INTEGER, number BIGINT, nameless BIGINT);"
        )
        for number, file in enumerate(self.files):
            self.connection.execute("INSERT INTO files VALUES (?, ?, ?)", [number, file.part, file.url])
        for api, tables in TABLES_OF_API.items():
            for table in tables:
                self._read(api, table)
        rows = self.value("SELECT sum(number) FROM row_counts")
        if not rows:
            raise ConfigurationError(
                f"history_path: the {len(self.files)} files in {str(root)!r} contain no rows. Check the export that "
                "wrote them, such as its tool_type and changed_since."
            )
        for api, sql in (("v2", occurrences_sql.V2), ("legacy", occurrences_sql.LEGACY)):
            self._select_latest(api)
            self.connection.execute(sql)

    def _select_latest(self, api: str) -> None:
        """Reduce the rows of an API to the latest ones."""
        of_several_exports = len({file.part for file in self.files if file.api == api}) > 1
        if of_several_exports:
            self.connection.execute(occurrences_sql.latest_instances(api))
        for table in TABLES_OF_API[api]:
            twice = self.value(occurrences_sql.has_row_twice(api, table))
            self.connection.execute(
                occurrences_sql.latest_rows(api, table, of_several_exports=of_several_exports, has_row_twice=twice)
            )

    def measure(self, hours: BusinessHours, as_of: datetime | None) -> tuple[int, int]:
        """
        Measure all times.

        :param as_of: Time up to which open steps are measured; None for now.
        :return: First and last time of the period, in seconds since 1970.
        """
        first, latest = self.row(
            "SELECT coalesce(least(min(started_at), (SELECT min(started_at) FROM steps)), 0), "
            "greatest(max(started_at), max(ended_at), (SELECT max(greatest(started_at, ended_at)) FROM steps), "
            "(SELECT max(responded_at) FROM responses)) FROM instances"
        )
        now = microseconds(datetime.now(tz=EPOCH.tzinfo))
        self.as_of = max(now, latest or 0) if as_of is None else microseconds(as_of)
        period = first // 10**6, max(self.as_of, latest or 0) // 10**6
        self.connection.execute(f"CREATE MACRO as_of() AS {self.as_of}")
        self._insert_working(hours, period)
        self._insert_weeks(hours, period)
        self.connection.execute(measures_sql.TIMED)
        self.connection.execute(measures_sql.FORECASTS)
        self.connection.execute(measures_sql.PENDING)
        for name, sql in measures_sql.SUMMARIES.items():
            self.connection.execute(f"CREATE TABLE {name} AS {sql}")
        return period

    def write_tables(self, target: ObjectStoragePath, tables_format: str) -> dict[str, str]:
        """
        Write the tables of the report to a folder, and replace those of an earlier run.

        :return: The URL of each table's file.
        :raises ConfigurationError: the folder cannot be written.
        """
        written = []
        for table, sql in measures_sql.TABLES.items():
            local = self._folder / f"{table}.{tables_format}"
            query = sql.replace("{time}", TIME_OF[tables_format])
            if tables_format == "csv":
                query = self._without_formulas(query)
            self.connection.execute(f"COPY ({query}) TO {literal(str(local))} ({COPY_OPTIONS[tables_format]})")
            written.append((local, target / local.name))
        try:
            replace_files(written)
        except OSError as error:
            raise ConfigurationError(
                f"tables_path: {str(target)!r} cannot be written: {error}. Give a folder that this worker may write to."
            ) from error
        return {final.stem: str(final) for _, final in written}

    def _without_formulas(self, query: str) -> str:
        """Return a query whose texts a spreadsheet does not run as formulas."""
        columns = self.connection.execute(f"DESCRIBE {query}").fetchall()
        texts = [
            f"if(left({name}, 1) IN ('=', '+', '-', '@', chr(9), chr(13)), chr(39) || {name}, {name}) AS {name}"
            for name, kind, *_ in columns
            if kind == "VARCHAR"
        ]
        return f"SELECT * REPLACE ({', '.join(texts)}) FROM ({query})"

    def malformed(self) -> tuple[int, list[Row]]:
        """Return how many rows are malformed, and some of them: ``{file, row, reason}``."""
        nameless = self.rows("SELECT file, nameless FROM row_counts WHERE nameless > 0 ORDER BY file")
        count = self.value("SELECT count(*) FROM malformed") + sum(row["nameless"] for row in nameless)
        sample = self.rows(
            "SELECT url AS file, row, reason FROM malformed JOIN files ON file = number "
            f"ORDER BY url, row LIMIT {MAX_MALFORMED}"
        )
        for row in nameless:
            file, left = self.files[row["file"]], MAX_MALFORMED - len(sample)
            keys = occurrences_sql.KEYS[file.api][file.table]
            if file.file_format == "jsonl":
                sample += nameless_lines(file, keys, left)
            elif left > 0:
                reason = f"{row['nameless']} rows have no {' or no '.join(keys)}"
                sample.append({"file": file.url, "row": "rows without key", "reason": reason})
        return count, sample

    def rows(self, sql: str, parameters: list[Any] | None = None) -> list[Row]:
        """Return the rows of a query as dictionaries."""
        result = self.connection.execute(sql, parameters or [])
        columns = [column[0] for column in result.description]
        return [dict(zip(columns, row, strict=True)) for row in result.fetchall()]

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, without having all of them in memory."""
        result = self.connection.execute(sql)
        while rows := result.fetchmany(FETCHED_ROWS):
            yield from rows

    def row(self, sql: str) -> tuple[Any, ...]:
        """Return the only row of a query."""
        found: tuple[Any, ...] = self.connection.execute(sql).fetchone()
        return found

    def value(self, sql: str) -> Any:
        """Return the only value of a query."""
        return self.row(sql)[0]

    def _read(self, api: str, table: str) -> None:
        import duckdb

        name = f"{api}_{table}_read"
        try:
            self.connection.execute(f"CREATE TABLE {name} AS {source(self.files, api, table)}")
        except duckdb.Error as error:
            reason = str(error)
            for file in self.files:
                reason = reason.replace(str(file.local), file.url)
            raise ConfigurationError(
                f"history_path: the files of the table {table} cannot be read: {reason}. Export the period again, or "
                "remove the damaged file."
            ) from error
        nameless = " OR ".join(f"{key} IS NULL" for key in occurrences_sql.KEYS[api][table])
        self.connection.execute(
            f"INSERT INTO row_counts SELECT file, count(*), count(*) FILTER (WHERE {nameless}) FROM {name} GROUP BY 1"
        )

    def _insert_working(self, hours: BusinessHours, period: tuple[int, int]) -> None:
        starts, ends, before = [-1], [-1], [0]  # no time is earlier than this interval
        worked = 0
        for start, end in hours.intervals(*period):
            starts.append(start * 10**6)
            ends.append(end * 10**6)
            before.append(worked)
            worked += (end - start) * 10**6
        self.connection.execute(
            "CREATE TABLE working AS SELECT unnest(CAST(? AS BIGINT[])) AS starts, "
            "unnest(CAST(? AS BIGINT[])) AS ends, unnest(CAST(? AS BIGINT[])) AS before",
            [starts, ends, before],
        )

    def _insert_weeks(self, hours: BusinessHours, period: tuple[int, int]) -> None:
        local = [(EPOCH + timedelta(seconds=second)).astimezone(hours.zone) for second in period]
        monday = local[0].replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=local[0].weekday())
        starts, weeks = [], []
        while monday <= local[1]:
            starts.append(microseconds(monday))
            weeks.append("{}-W{:02}".format(*monday.isocalendar()[:2]))
            monday += timedelta(days=7)
        self.connection.execute(
            "CREATE TABLE weeks AS SELECT unnest(CAST(? AS BIGINT[])) AS starts, unnest(CAST(? AS VARCHAR[])) AS week",
            [starts, weeks],
        )


def microseconds(moment: datetime) -> int:
    """Return a time in microseconds since 1970."""
    return round(moment.timestamp() * 10**6)
