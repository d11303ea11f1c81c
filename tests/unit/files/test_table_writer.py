"""The files of an export: all of a run or all of an earlier one, and never an empty one by mistake."""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.files import table_writer as module
from airflow_provider_workflows.files.table_writer import Tables
from airflow_provider_workflows.operators.procore import ProcoreHistoryToObjectStorageOperator
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyHistoryToObjectStorageOperator
from tests.unit.operators.procore.test_history_export import export, export_legacy, ids, lines

COLUMNS = {"instances": {"name": "text"}, "steps": {"name": "text"}}
OLD = {"instances": "old instances", "steps": "old steps"}


def save(folder: object, name: str = "new") -> dict[str, str]:
    with Tables(COLUMNS, "jsonl") as tables:
        tables.add({table: [{"name": name}] for table in COLUMNS})
        return tables.save(ObjectStoragePath(str(folder)))


def contents(folder: object) -> dict[str, str]:
    return {path.name: path.read_text() for path in ObjectStoragePath(str(folder)).iterdir()}


def written_by(name: str) -> dict[str, str]:
    return {f"{table}.jsonl": f'{{"name": "{name}"}}\n' for table in COLUMNS}


@pytest.fixture(params=["here", "storage"])
def folder(request, tmp_path):
    """A folder with the files of an earlier run, on this machine or in an object storage."""
    attach("memory", fs=MemoryFileSystem())
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    folder = f"file://{tmp_path}" if request.param == "here" else "memory://audit"
    save(folder, "old")
    return folder


@pytest.fixture
def here(tmp_path) -> Path:
    save(f"file://{tmp_path}", "old")
    return tmp_path


# --- all or none ---


def test_new_files_take_the_place_of_the_old_ones(folder):
    assert contents(folder) == written_by("old")

    urls = save(folder)

    assert contents(folder) == written_by("new")
    assert {Path(url).name: ObjectStoragePath(url).read_text() for url in urls.values()} == written_by("new")


@pytest.mark.parametrize("table", [1, 2])
def test_failure_at_any_table_leaves_all_files_of_the_earlier_run(folder, monkeypatch, table):
    copy, copied = shutil.copyfileobj, []

    def failing(source, target, *length):
        copied.append(source)
        if len(copied) == table:
            target.write(b"half of")
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target, *length)

    monkeypatch.setattr(module.shutil, "copyfileobj", failing)

    with pytest.raises(OSError, match="No space"):
        save(folder)
    assert contents(folder) == written_by("old")
    monkeypatch.undo()
    save(folder)
    assert contents(folder) == written_by("new")


def test_folder_in_the_place_of_a_file_leaves_all_files(here):
    (here / "steps.jsonl").unlink()
    (here / "steps.jsonl").mkdir()

    with pytest.raises(ConfigurationError, match=r"steps\.jsonl is a folder"):
        save(f"file://{here}")
    assert sorted(path.name for path in here.iterdir()) == ["instances.jsonl", "steps.jsonl"]
    assert (here / "instances.jsonl").read_text() == written_by("old")["instances.jsonl"]


def test_storage_that_cannot_buffer_a_file_is_written_to(monkeypatch):
    class Plain(io.BytesIO):
        def __init__(self, path: str):
            super().__init__()
            self.path = path

        def close(self) -> None:
            MemoryFileSystem().pipe_file(self.path, self.getvalue())
            super().close()

    class Simple(MemoryFileSystem):
        cachable = False

        def _open(self, path, mode="rb", **kwargs):
            return Plain(path) if mode == "wb" else super()._open(path, mode, **kwargs)

    attach("memory", fs=Simple())
    MemoryFileSystem.store.clear()

    save("memory://audit/new/folder")

    assert contents("memory://audit/new/folder") == written_by("new")


# --- what killed processes leave ---

KILLED = """
import os, shutil, signal, sys
from airflow.sdk import ObjectStoragePath
from airflow_provider_workflows.files.table_writer import Tables
shutil.copyfileobj = lambda *files: os.kill(os.getpid(), signal.SIGKILL)
with Tables({"instances": {"name": "text"}, "steps": {"name": "text"}}, "jsonl") as tables:
    tables.save(ObjectStoragePath(sys.argv[1]))
"""


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


def test_part_of_a_killed_process_is_removed_by_the_next_run(here):
    died = subprocess.run([sys.executable, "-c", KILLED, f"file://{here}"], check=False)
    assert died.returncode == -signal.SIGKILL
    assert len(parts(here)) == 1
    assert {name: text for name, text in contents(f"file://{here}").items() if name not in parts(here)} == written_by(
        "old"
    )

    save(f"file://{here}")

    assert contents(f"file://{here}") == written_by("new")


def test_left_part_of_any_process_and_format_is_removed(here):
    for name in (".instances.jsonl.1.part", ".steps.parquet.77.part", f".steps.jsonl.{os.getpid()}.part"):
        (here / name).write_text("half of")
    (here / ".other.jsonl.1.part").write_text("not of this export")

    save(f"file://{here}")

    assert parts(here) == [".other.jsonl.1.part"]


def test_part_of_a_running_export_stays(here, monkeypatch):
    copy, others = shutil.copyfileobj, []

    def interrupted(source, target, *length):
        if not others:
            others.append(True)
            save(f"file://{here}", "other")
            assert len(parts(here)) == 1
        copy(source, target, *length)

    monkeypatch.setattr(module.shutil, "copyfileobj", interrupted)

    save(f"file://{here}", "first")

    assert contents(f"file://{here}") == written_by("first")


def test_part_stays_where_the_file_system_has_no_locks(here, monkeypatch):
    (here / ".steps.jsonl.1.part").write_text("half of")

    def no_locks(file, operation):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)

    save(f"file://{here}")

    assert parts(here) == [".steps.jsonl.1.part"]


# --- no rows at all ---


@pytest.fixture
def warnings(monkeypatch, caplog):
    """Return a function that counts the warnings about ``allow_empty`` since it was called last."""
    caplog.set_level(logging.WARNING, logger="logged")
    for cls in (ProcoreHistoryToObjectStorageOperator, ProcoreLegacyHistoryToObjectStorageOperator):
        monkeypatch.setattr(cls, "log", logging.getLogger("logged"))

    def count() -> int:
        found = len([record for record in caplog.records if "allow_empty" in record.getMessage()])
        caplog.clear()
        return found

    return count


EXPORTS = pytest.mark.parametrize(
    ("exported", "instances"),
    [(export, "/workflows/instances$"), (export_legacy, "/workflow_instances$")],
    ids=["v2", "legacy"],
)


def nothing_is_listed(emulator, instances: str) -> None:
    empty = [] if "workflow_instances" in instances else {"data": []}
    emulator.control("POST", "faults", method="GET", path=instances, times=100, status=200, json=empty)


@pytest.mark.usefixtures("airflow_connections")
@EXPORTS
def test_list_that_is_suddenly_empty_leaves_the_files_and_warns(emulator, tmp_path, warnings, exported, instances):
    first = exported(f"file://{tmp_path}")
    before = contents(f"file://{tmp_path}")
    assert (warnings(), first["unchanged"]) == (0, [])
    nothing_is_listed(emulator, instances)

    result = exported(f"file://{tmp_path}")

    assert contents(f"file://{tmp_path}") == before
    assert (result["instances"], sorted(result["unchanged"])) == (0, sorted(result["paths"]))
    assert warnings() > 0


@pytest.mark.usefixtures("airflow_connections")
def test_named_items_missing_in_the_list_leave_the_files(emulator, tmp_path):
    named = {"item_ids": "5001", "changed_since": "2026-01-01T00:00:00Z"}
    export(f"file://{tmp_path}", **named)
    before = contents(f"file://{tmp_path}")
    nothing_is_listed(emulator, "/workflows/instances$")

    result = export(f"file://{tmp_path}", **named)

    assert contents(f"file://{tmp_path}") == before
    assert [entry["item_id"] for entry in result["failed"]] == ["5001"]


@pytest.mark.usefixtures("airflow_connections")
@EXPORTS
@pytest.mark.parametrize("more", [{"allow_empty": True}, {"changed_since": "2026-01-01T00:00:00Z"}])
def test_empty_tables_are_written_where_they_may_be(emulator, tmp_path, exported, instances, more):
    exported(f"file://{tmp_path}")
    nothing_is_listed(emulator, instances)

    result = exported(f"file://{tmp_path}", **more)

    assert set(contents(f"file://{tmp_path}").values()) == {""}
    assert result["unchanged"] == []


@pytest.mark.usefixtures("airflow_connections")
@EXPORTS
def test_empty_tables_are_written_where_there_is_no_file_yet(emulator, tmp_path, warnings, exported, instances):
    result = exported(f"file://{tmp_path}")
    Path(result["paths"]["instances"].removeprefix("file://")).unlink()
    nothing_is_listed(emulator, instances)

    again = exported(f"file://{tmp_path}")

    assert ids(again) == []
    assert again["unchanged"] == [table for table in again["paths"] if table != "instances"]
    assert warnings() > 0


@pytest.mark.usefixtures("airflow_connections")
def test_one_table_without_rows_is_written_with_the_others(emulator, tmp_path):
    login = "integration@example.com"
    emulator.control("POST", "procore/instances/700001/respond", login=login, option="Approve")
    assert lines(export(f"file://{tmp_path}"), "responses") != []
    emulator.control("PATCH", "flags", hidden_events="response_steps")

    result = export(f"file://{tmp_path}")

    assert lines(result, "responses") == []
    assert (ids(result), result["unchanged"]) == (["700001"], [])
