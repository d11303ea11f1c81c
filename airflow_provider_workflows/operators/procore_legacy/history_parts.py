"""
An export in parts: folders of complete files, and a manifest with the row count and the hash of each file.

A part is never changed or removed once the manifest names it, because the server may not show its rows again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.files.object_storage import named_write_errors
from airflow_provider_workflows.files.table_writer import Columns, Row, Tables, replace_files

if TYPE_CHECKING:
    from types import TracebackType

    from airflow.sdk import ObjectStoragePath
    from typing_extensions import Self

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
CHUNK_BYTES = 2**20


class HistoryParts:
    """
    Write the histories of instances in parts, and continue an export that ended early.

    Use it in a ``with`` statement; its end stores the rows that were added last, also after an error.

    :param folder: Where the parts and the manifest are.
    :param columns: The columns of the tables ``instances`` and ``activities``.
    :param file_format: ``parquet`` or ``jsonl``.
    :param part_size: Maximum number of instances in one part.
    :param company_id: The company of all instances.
    :raises ConfigurationError: the folder has a manifest of another company, or a file of that name that is none.
    """

    def __init__(
        self,
        folder: ObjectStoragePath,
        columns: Mapping[str, Columns],
        *,
        file_format: str,
        part_size: int,
        company_id: str,
    ):
        self.folder = folder
        self.columns = columns
        self.file_format = file_format
        self.part_size = part_size
        self.company_id = company_id
        self.files: list[dict[str, Any]] = []
        self.stored: dict[str, dict[str, Any]] = {}  # by instance id: part, activities, mark, is_running
        self._load()
        self._pending: dict[str, dict[str, Any]] = {}
        self._tables: Tables | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._open:
            self.flush()

    def add(self, instance_id: str, instance: Row, activities: Sequence[Row], *, mark: str, is_running: bool) -> None:
        """Add an instance with its whole history; a part is stored when it is full."""
        if self._tables is None:
            self._tables = self._open.enter_context(Tables(self.columns, self.file_format))
        self._tables.add({"instances": [instance], "activities": activities})
        self._pending[instance_id] = {"activities": len(activities), "mark": mark, "is_running": is_running}
        if len(self._pending) >= self.part_size:
            self.flush()

    def flush(self) -> None:
        """
        Store the rows that were added last as a part, read its files back, and name them in the manifest.

        :raises WorkflowsError: the files could not be written, or the storage returns other bytes than were written.
        """
        tables, pending = self._tables, self._pending
        self._tables, self._pending = None, {}
        if tables is None:
            return
        with self._open, named_write_errors("path", self.folder):
            part = self._free_part()
            written = tables.save(self.folder / part)
            for table, local in tables.local_files().items():
                path = f"{part}/{table}.{self.file_format}"
                facts = _facts(self.folder / path)
                if facts != _facts(local) or facts["rows"] != tables.counts[table]:
                    raise OSError(f"{written[table]} was read back with other bytes than were written: {facts}")
                self.files.append({"path": path, "table": table, **facts})
            self.stored |= {instance_id: {"part": part, **entry} for instance_id, entry in pending.items()}
            self.write_manifest(complete=False)
        log.info("Stored %s: %s instances, %s in all.", self.folder / part, len(pending), len(self.stored))

    def write_manifest(self, *, complete: bool, **more: Any) -> tuple[str, str]:
        """Replace the manifest; return its URL and its SHA-256."""
        content = {
            "company_id": self.company_id,
            "complete": complete,
            "instances": len(self.stored),
            "activities": self.activities,
            **more,
            "files": self.files,
            "stored": self.stored,
        }
        target = self.folder / MANIFEST
        with tempfile.TemporaryDirectory(prefix="workflows-export-") as folder:
            local = Path(folder, MANIFEST)
            local.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
            with named_write_errors("path", target):
                replace_files([(local, target)])
            return str(target), hashlib.sha256(local.read_bytes()).hexdigest()

    @property
    def activities(self) -> int:
        return sum(entry["activities"] for entry in self.stored.values())

    def _free_part(self) -> str:
        """Return the name of a folder without files; those of a killed try, or without a manifest, stay."""
        number = 1 + max(map(_number, self.files), default=0)
        while any((self.folder / _part(number) / name).exists() for name in self._file_names()):
            number += 1
        return _part(number)

    def _file_names(self) -> Iterable[str]:
        return (f"{table}.{file_format}" for table in self.columns for file_format in ("parquet", "jsonl"))

    def _load(self) -> None:
        """Read the manifest of an earlier try; forget a part whose files are not as the manifest says."""
        target = self.folder / MANIFEST
        if not target.exists():
            return
        try:
            manifest = json.loads(target.read_text(encoding="utf-8"))
            company_id = manifest["company_id"]
            files = [
                {name: file[name] for name in ("path", "table", "rows", "bytes", "sha256")}
                for file in manifest["files"]
            ]
            stored = {
                str(instance_id): {
                    **{name: entry[name] for name in ("part", "mark", "is_running")},
                    "activities": int(entry["activities"]),
                }
                for instance_id, entry in manifest["stored"].items()
            }
            list(map(_number, files))  # raises an error for a path that is not of a part
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"path: {target} is not the manifest of an export ({type(error).__name__}). Give another folder."
            ) from error
        if company_id != self.company_id:
            raise ConfigurationError(
                f"path: {target} belongs to company {company_id}, not to {self.company_id}. Give another folder."
            )
        damaged = set()
        for file in files:
            path = self.folder / file["path"]
            facts = _facts(path) if path.exists() else None
            if facts != {name: file[name] for name in ("rows", "bytes", "sha256")}:
                log.warning("%s is missing or not as the manifest says, so its part is exported again.", path)
                damaged.add(_part_of(file))
        self.files = [file for file in files if _part_of(file) not in damaged]
        self.stored = {each: entry for each, entry in stored.items() if entry["part"] not in damaged}


def _part(number: int) -> str:
    return f"part-{number:05}"


def _number(file: Mapping[str, Any]) -> int:
    return int(_part_of(file).removeprefix("part-"))


def _part_of(file: Mapping[str, Any]) -> str:
    return str(file["path"]).partition("/")[0]


def _facts(path: Path | ObjectStoragePath) -> dict[str, Any]:
    """Return the number of rows and bytes of a file, and its SHA-256."""
    digest, size, lines = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            lines += chunk.count(b"\n")
    return {
        "rows": _parquet_rows(path) if path.suffix == ".parquet" else lines,
        "bytes": size,
        "sha256": digest.hexdigest(),
    }


def _parquet_rows(path: Path | ObjectStoragePath) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        try:
            return int(pq.read_metadata(file).num_rows)
        except (pa.ArrowException, OSError):  # not a Parquet file: damaged, so its hash differs, too
            return -1
