"""Files that an operator attaches, and paths that it writes to: local, or in any object storage that Airflow knows."""

from __future__ import annotations

import hashlib
import mimetypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.rules.parameters import as_list, check_conn_id, check_required

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath


class AttachedFile(NamedTuple):
    """Describe a file that exists and is not empty; ``size`` is in bytes."""

    path: ObjectStoragePath
    name: str
    size: int
    content_type: str

    def parts(self, size: int) -> Iterator[bytes]:
        """Yield the file in parts of this many bytes; the last one may be smaller."""
        with self.path.open("rb") as file:
            while part := file.read(size):
                yield part

    @property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        for part in self.parts(2**20):
            digest.update(part)
        return digest.hexdigest()


def attached_files(parameter: str, paths: Any, *, largest: int | None = None) -> list[AttachedFile]:
    """
    Check the files to attach, before anything is sent.

    :param parameter: Name of the parameter, for the error text.
    :param paths: One path, URL or ``ObjectStoragePath``, or several, or None.
    :param largest: Maximum size of one file in bytes, or None for any size.
    :raises ConfigurationError: a path contains ``..``; a file does not exist, is a folder, is empty or is too
        large; several files have the same name.
    """
    files = [_attached(parameter, path, largest) for path in ([] if paths is None else as_list(paths))]
    names: Sequence[str] = [file.name for file in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigurationError(f"{parameter}: several files are named {', '.join(sorted(twice))}.")
    return files


def storage_path(parameter: str, value: Any, conn_id: str | None = None) -> ObjectStoragePath:
    """
    Return a path in an object storage, after checking it.

    :param parameter: Name of the parameter, for the error text.
    :param value: A URL or an ``ObjectStoragePath``.
    :param conn_id: Id of a connection to the storage, or None for the one in the path.
    :raises ConfigurationError: it is not a path, contains ``..``, or the library of its storage is not installed.
    """
    from airflow.sdk import ObjectStoragePath

    check_required(**{parameter: value})
    if not isinstance(value, (str, os.PathLike, ObjectStoragePath)) or "\0" in str(value):
        raise ConfigurationError(f"{parameter} must be a path or a URL as text, or a path object; got {value!r}.")
    _check_stays(parameter, value)
    if conn_id is not None:
        check_conn_id("object_storage_conn_id", conn_id)
    try:
        path = ObjectStoragePath(value, conn_id=conn_id) if conn_id is not None else ObjectStoragePath(value)
        _ = path.fs  # raises an error if the storage is not available
    except (ValueError, ImportError) as error:
        raise ConfigurationError(
            f"{parameter}: {str(value)!r} cannot be written to: {error}. Install the Airflow provider of that storage, "
            "such as apache-airflow-providers-amazon for s3 or apache-airflow-providers-google for gs."
        ) from error
    return path


def check_writable(parameter: str, path: ObjectStoragePath) -> None:
    """
    Check that a file on this worker can be written; for any other storage only writing shows it.

    :raises ConfigurationError: the path is a folder, or lies in one that cannot be written to.
    """
    if path.protocol not in ("", "file", "local"):
        return
    target = Path(path.path)
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if target.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"{parameter}: {str(path)!r} cannot be written on this worker. Give another path.")


@contextmanager
def named_write_errors(parameter: str, path: Any) -> Iterator[None]:
    """
    Name the parameter and the path in the error of a storage.

    :raises WorkflowsError: the file could not be written.
    """
    try:
        yield
    except OSError as error:
        raise WorkflowsError(
            f"{parameter}: {str(path)!r} could not be written ({type(error).__name__}: {error}). Correct the "
            "path or the storage; a retry writes the file again."
        ) from error


def _attached(parameter: str, value: Any, largest: int | None) -> AttachedFile:
    from airflow.sdk import ObjectStoragePath

    text = str(value).strip()
    if text in ("", "None"):
        raise ConfigurationError(f"{parameter}: a path is missing or was rendered empty.")
    _check_stays(parameter, value)
    try:
        path = value if isinstance(value, ObjectStoragePath) else ObjectStoragePath(text)
        size = int(path.stat().st_size) if path.is_file() else None
    except (OSError, ValueError, ImportError) as error:
        raise ConfigurationError(f"{parameter}: {text!r} cannot be read: {error}") from error
    if size is None:
        raise ConfigurationError(f"{parameter}: there is no file {text!r} on this worker or in its storage.")
    if size == 0:
        raise ConfigurationError(f"{parameter}: {text!r} is empty.")
    if largest is not None and size > largest:
        raise ConfigurationError(f"{parameter}: {text!r} has {size} bytes; the maximum is {largest}.")
    return AttachedFile(path, path.name, size, mimetypes.guess_type(path.name)[0] or "application/octet-stream")


def _check_stays(parameter: str, value: Any) -> None:
    # A rendered template must not lead out of the folder that precedes it in the path.
    if ".." in str(value).split("/"):
        raise ConfigurationError(f"{parameter}: {str(value)!r} must not contain '..'. Give the folder itself.")
