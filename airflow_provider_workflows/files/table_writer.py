"""Writers of tables: rows become local files, and the files become objects of a storage when all are complete."""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import check_choice
from airflow_provider_workflows.rules.procore_history import iso

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)
MAX_ROWS_IN_MEMORY = 2000  # of one table; also the size of a Parquet row group
COPY_CHUNK_BYTES = 2**20
LOCAL = ("", "file", "local")

Row = dict[str, Any]
Columns = Mapping[str, str]


class RowWriter(Protocol):
    """Write the rows of one table to a file."""

    def write(self, rows: list[Row]) -> None: ...

    def close(self) -> None: ...


class Tables:
    """
    Write several tables to local files, and copy the files to their folder when all of them are complete.

    A run that fails midway leaves the files of earlier runs unchanged. No more than a few thousand rows are in memory.
    Use it in a ``with`` statement.

    :param columns: The columns of each table and their kinds: text, time, seconds, count, flag.
    :param file_format: ``parquet`` or ``jsonl``.
    :raises ConfigurationError: the format is unknown, or pyarrow is not installed.
    """

    def __init__(self, columns: Mapping[str, Columns], file_format: str):
        check_choice("file_format", file_format, tuple(WRITERS))
        self._columns = columns
        self._format = file_format
        self._waiting: dict[str, list[Row]] = {table: [] for table in columns}
        self.counts = dict.fromkeys(columns, 0)
        self.stored: list[str] = []

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
        """Add rows to the tables, by name of the table."""
        for table, more in rows.items():
            waiting = self._waiting[table]
            before = len(waiting)
            waiting.extend(more)
            self.counts[table] += len(waiting) - before
            if len(waiting) >= MAX_ROWS_IN_MEMORY:
                self._flush(table)

    def save(self, root: ObjectStoragePath, *, replace: bool = True) -> dict[str, str]:
        """
        Finish the files and copy them to a folder.

        :param replace: Replace the files of an earlier run; otherwise they stay, and ``stored`` names their tables.
        :return: The URL of each table's file.
        """
        for table, writer in self._writers.items():
            self._flush(table)
            writer.close()
        targets = {table: root / f"{table}.{self._format}" for table in self._columns}
        self.stored = [] if replace else [table for table, target in targets.items() if target.exists()]
        replace_files([(self._local(table), target) for table, target in targets.items() if table not in self.stored])
        return {table: str(target) for table, target in targets.items()}

    def local_files(self) -> dict[str, Path]:
        """Return the local file of each table; it is complete after saving, and exists until the ``with`` ends."""
        return {table: self._local(table) for table in self._columns}

    def size(self) -> int:
        """Return the size in bytes of the files that were written; to be called after saving."""
        return sum(self._local(table).stat().st_size for table in self._columns if table not in self.stored)

    def _local(self, table: str) -> Path:
        return Path(self._folder.name, f"{table}.{self._format}")

    def _flush(self, table: str) -> None:
        if self._waiting[table]:
            self._writers[table].write(self._waiting[table])
            self._waiting[table] = []


class JsonLinesWriter:
    """Write one JSON object per line, with all columns in each line."""

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
    """Write a row group for each list of rows; a file without rows has the columns, too."""

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


def replace_files(files: Sequence[tuple[Path, ObjectStoragePath]]) -> None:
    """
    Replace files: first write all of them, then make all of them visible.

    A failure while writing leaves the earlier files unchanged.

    :param files: Pairs of a local file and its target; all targets are in one storage.
    """
    if not files:
        return
    if files[0][1].protocol in LOCAL:
        _replace_here([(local, Path(target.path)) for local, target in files])
        return
    fs = files[0][1].fs
    with fs.transaction as transaction:
        for local, target in files:
            if not getattr(fs, "async_impl", False):  # object stores have no folders
                fs.makedirs(fs._parent(target.path), exist_ok=True)
            with local.open("rb") as source, fs.open(target.path, "wb") as copy:
                shutil.copyfileobj(source, copy, COPY_CHUNK_BYTES)
            if not hasattr(copy, "commit"):  # a storage without transactions
                transaction.files.remove(copy)


def _replace_here(files: Sequence[tuple[Path, Path]]) -> None:
    with ExitStack() as stack:
        parts = []
        for local, final in files:
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.is_dir() and not final.is_symlink():
                raise ConfigurationError(f"path: {final} is a folder, but the export writes a file of that name.")
            _remove_left_parts(final.parent, final.stem)
            part = final.with_name(f".{final.name}.{uuid4().hex}.part")
            stack.callback(part.unlink, missing_ok=True)
            copy = stack.enter_context(part.open("xb"))  # never through an existing link
            with suppress(OSError):  # a file system without locks
                fcntl.flock(copy, fcntl.LOCK_EX)
            with local.open("rb") as source:
                shutil.copyfileobj(source, copy, COPY_CHUNK_BYTES)
            copy.flush()
            parts.append((part, final))
        for part, final in parts:
            part.replace(final)


def _remove_left_parts(folder: Path, table: str) -> None:
    """
    Remove the parts of a table that killed processes left in a folder.

    A process locks each part that it writes, and the system releases the lock when the process ends. A part that is
    locked may belong to a running export, so it stays.
    """
    for left in folder.glob(f".{table}.*.part"):
        if left.is_symlink():
            left.unlink(missing_ok=True)
        if not left.is_file():
            continue
        try:
            with left.open("rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink(missing_ok=True)
        except OSError as error:
            log.info("%s was not removed, because another run may be writing it (%s).", left, type(error).__name__)
        else:
            log.info("Removed %s, which a killed run left.", left)
