"""Tables on their way to an object storage."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import check_choice
from airflow_provider_workflows.rules.procore_audit import iso

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

ROWS_IN_MEMORY = 2000  # of one table; also the rows of one Parquet row group
LOCAL = ("", "file", "local")

Row = dict[str, Any]
Columns = Mapping[str, str]


class RowWriter(Protocol):
    """Writes the rows of one table to a file."""

    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


class Tables:
    """
    Writes several tables, first to files of this machine, and copies them when all of them are whole.

    So a run that fails midway leaves what was there before, and no more than a few thousand rows are in memory.
    To be used in a ``with`` statement.

    :param columns: The columns of each table and their kinds: text, time, seconds, count, flag.
    :param file_format: ``parquet`` or ``jsonl``.
    :raises ConfigurationError: no such format, or pyarrow is not installed.
    """

    def __init__(self, columns: Mapping[str, Columns], file_format: str):
        check_choice("file_format", file_format, tuple(WRITERS))
        self._columns = columns
        self._format = file_format
        self._waiting: dict[str, list[Row]] = {table: [] for table in columns}
        self.counts = dict.fromkeys(columns, 0)

    def __enter__(self) -> Tables:
        self._folder = tempfile.TemporaryDirectory(prefix="workflows-export-")
        write_to = WRITERS[self._format]
        self._writers = {table: write_to(self._local(table), columns) for table, columns in self._columns.items()}
        return self

    def __exit__(self, *error: object) -> None:
        try:
            for writer in self._writers.values():
                writer.close()
        finally:
            self._folder.cleanup()

    def add(self, rows: Mapping[str, Iterable[Row]]) -> None:
        """Add rows to the tables, by the table's name."""
        for table, more in rows.items():
            waiting = self._waiting[table]
            before = len(waiting)
            waiting.extend(more)
            self.counts[table] += len(waiting) - before
            if len(waiting) >= ROWS_IN_MEMORY:
                self._flush(table)

    def save(self, root: ObjectStoragePath) -> dict[str, str]:
        """
        Finish the files and copy them to a folder, over those of an earlier run.

        :return: The URL of each table's file.
        """
        for table, writer in self._writers.items():
            self._flush(table)
            writer.close()
        urls = {}
        for table in self._columns:
            target = root / f"{table}.{self._format}"
            _copy(self._local(table), target)
            urls[table] = str(target)
        return urls

    def size(self) -> int:
        """Return the bytes of the files, once they are saved."""
        return sum(self._local(table).stat().st_size for table in self._columns)

    def _local(self, table: str) -> Path:
        return Path(self._folder.name, f"{table}.{self._format}")

    def _flush(self, table: str) -> None:
        if self._waiting[table]:
            self._writers[table].write(self._waiting[table])
            self._waiting[table] = []


class JsonLinesWriter:
    """Writes one JSON object a line, with every column in every line."""

    def __init__(self, path: Path, columns: Columns):
        self._columns = columns
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="\n")

    def write(self, rows: list[Row]) -> None:
        for row in rows:
            line = {column: _plain(row[column]) for column in self._columns}
            self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        self._file.close()


def _plain(value: Any) -> Any:
    return iso(value) if isinstance(value, datetime) else value


class ParquetWriter:
    """Writes one row group for each list of rows; a file without rows still has the columns."""

    def __init__(self, path: Path, columns: Columns):
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError:
            raise ConfigurationError(
                "file_format 'parquet' needs pyarrow: pip install 'airflow-provider-workflows[parquet]', or set "
                "file_format='jsonl'."
            ) from None
        types = {
            "text": pa.string(),
            "time": pa.timestamp("ms", tz="UTC"),
            "seconds": pa.float64(),
            "count": pa.int64(),
            "flag": pa.bool_(),
        }
        self._schema = pa.schema([(column, types[kind]) for column, kind in columns.items()])
        self._file = pq.ParquetWriter(path, self._schema)
        self._table_of = pa.Table.from_pylist

    def write(self, rows: list[Row]) -> None:
        self._file.write_table(self._table_of(rows, schema=self._schema))

    def close(self) -> None:
        self._file.close()


WRITERS: Mapping[str, Callable[[Path, Columns], RowWriter]] = {"parquet": ParquetWriter, "jsonl": JsonLinesWriter}


def _copy(local: Path, target: ObjectStoragePath) -> None:
    """Copy a file so that a reader sees the old one or the new one, and never a part of it."""
    if target.protocol not in LOCAL:
        target.fs.put_file(str(local), target.path)  # an object appears when it is whole
        return
    final = Path(target.path)
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)  # of a process that was killed
        with local.open("rb") as source, part.open("xb") as copy:  # never through a link that somebody put there
            shutil.copyfileobj(source, copy)
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)
