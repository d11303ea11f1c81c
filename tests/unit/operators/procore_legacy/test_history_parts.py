"""The export in parts: nothing stored is lost or read twice, and the manifest says exactly what is stored."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_workflows.exceptions import ConfigurationError, NotFound, RateLimited, WorkflowsError
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyHistoryToObjectStorageOperator

pytestmark = pytest.mark.usefixtures("airflow_connections")
HISTORIES = "/workflow_activity_histories$"
SUBMIT = {"activity": "Submit for Approval", "login": "pat@example.com"}


@pytest.fixture
def archive(tmp_path):
    """Return a function that exports into a folder in parts of two instances."""

    def export(**parameters: Any) -> dict[str, Any]:
        requested = {"part_size": 2, "file_format": "jsonl", "path": f"file://{tmp_path}/archive", **parameters}
        return ProcoreLegacyHistoryToObjectStorageOperator(task_id="export", **requested).execute({})

    return export


def start(emulator, count: int = 1, **body: Any) -> list[str]:
    return emulator.control("POST", "procore/legacy/instances/many", count=count, **body)["ids"]


def perform(emulator, instance_id: str, **body: Any) -> None:
    emulator.control("POST", f"procore/legacy/instances/{instance_id}/perform", **{**SUBMIT, **body})


def fault(emulator, path: str = HISTORIES, **response: Any) -> None:
    emulator.control(
        "POST", "faults", path=path, method="GET", **{"times": 1000, "status": 403, "json": {}, **response}
    )


def manifest_of(result: dict[str, Any]) -> dict[str, Any]:
    content = Path(result["manifest"].removeprefix("file://")).read_bytes()
    assert hashlib.sha256(content).hexdigest() == result["manifest_sha256"]
    found: dict[str, Any] = json.loads(content)
    return found


def check_files(result: dict[str, Any]) -> dict[str, int]:
    """Compare each file with the manifest; return the number of activities by instance, of the parts that count."""
    folder, manifest = Path(result["manifest"].removeprefix("file://")).parent, manifest_of(result)
    rows: dict[str, list[dict[str, Any]]] = {}
    for file in manifest["files"]:
        path = folder / file["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file["sha256"]
        assert path.stat().st_size == file["bytes"]
        is_parquet = path.suffix == ".parquet"
        rows[file["path"].removesuffix(path.suffix)] = found = (
            pq.read_table(path).to_pylist() if is_parquet else [json.loads(line) for line in path.open()]
        )
        assert len(found) == file["rows"]
    counts = {}
    for instance_id, entry in manifest["stored"].items():
        [_] = [row for row in rows[f"{entry['part']}/instances"] if row["instance_id"] == instance_id]
        own = [row for row in rows[f"{entry['part']}/activities"] if row["instance_id"] == instance_id]
        assert len(own) == entry["activities"]
        counts[instance_id] = len(own)
    assert (len(counts), sum(counts.values())) == (manifest["instances"], manifest["activities"])
    return counts


def reads(emulator) -> Counter[str]:
    """Count the histories that were read, by instance."""
    return Counter(
        request["query"]["workflow_instance_id"]
        for request in emulator.requests()
        if request["path"].endswith("/workflow_activity_histories") and request["status"] == 200
    )


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_manifest_has_the_rows_and_hash_of_each_file(emulator, archive, file_format):
    ids = start(emulator, 3)
    perform(emulator, ids[1])
    perform(emulator, "568150")

    result = archive(file_format=file_format)

    assert check_files(result) == {**dict.fromkeys(["568150", "568151", *ids], 0), "568150": 1, ids[1]: 1}
    numbers = {name: result[name] for name in ("complete", "expected", "instances", "activities", "files", "resumed")}
    assert numbers == {
        "complete": True,
        "expected": 5,
        "instances": 5,
        "activities": 2,
        "files": 6,
        "resumed": 0,
    }
    manifest = manifest_of(result)
    assert (manifest["complete"], manifest["company_id"], manifest["missing"]) == (True, "4264807", [])
    assert (result["failed"], result["forbidden"]) == ([], [])


def test_try_that_breaks_off_is_continued_where_it_ended(emulator, archive):
    ids = ["568150", "568151", *start(emulator, 3)]
    perform(emulator, ids[2])
    fault(emulator, skip=3, status=429, headers={"Retry-After": "86400"})

    with pytest.raises(RateLimited):
        archive()
    emulator.control("DELETE", "faults")
    result = archive()

    joint = {"568151"}  # its roles perform one by one, which only its history shows, so it is read again
    assert {each: count for each, count in reads(emulator).items() if each not in joint} == dict.fromkeys(
        sorted({*ids} - joint), 1
    )
    assert (result["resumed"], result["instances"], result["complete"]) == (3, 5, True)
    assert check_files(result)[ids[2]] == 1
    assert sum(file["table"] == "instances" and file["rows"] for file in manifest_of(result)["files"]) == 5


def test_error_on_the_worker_does_not_lose_the_rows_read_so_far(emulator, archive, monkeypatch, tmp_path):
    start(emulator, 2)
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

    read, seen = ProcoreLegacyHook.list_activity_histories, []

    def killed(self, instance_id):
        seen.append(instance_id)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return read(self, instance_id)

    monkeypatch.setattr(ProcoreLegacyHook, "list_activity_histories", killed)

    with pytest.raises(KeyboardInterrupt):
        archive()

    manifest = json.loads((tmp_path / "archive" / "manifest.json").read_text())
    assert (list(manifest["stored"]), manifest["complete"]) == (seen[:3], False)


def test_later_run_reads_only_what_is_new_or_has_moved(emulator, archive):
    ids = start(emulator, 2)
    archive()
    perform(emulator, ids[0])
    [new] = start(emulator)
    before = reads(emulator)

    result = archive()

    assert set(reads(emulator) - before) == {ids[0], new, "568151"}
    assert (result["resumed"], result["instances"], result["complete"]) == (4, 5, True)
    assert check_files(result)[ids[0]] == 1


@pytest.mark.parametrize("listed", ["until_performed", "until_state_moves"])
def test_activity_that_does_not_move_the_state_is_stored(emulator, archive, listed):
    emulator.control("PATCH", "flags", legacy_open_activities=listed)
    archive()
    perform(emulator, "568151", activity="Accept")

    assert check_files(archive())["568151"] == 1


def test_what_moves_while_it_is_read_is_read_again(emulator, archive, monkeypatch):
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

    read = ProcoreLegacyHook.list_activity_histories

    def moved(self, instance_id):
        found = read(self, instance_id)
        if instance_id == "568150" and not found:
            perform(emulator, "568150")
            perform(emulator, "568150", activity="Approve", login="rita@example.com")
            perform(emulator, "568151", activity="Accept")
        return found

    monkeypatch.setattr(ProcoreLegacyHook, "list_activity_histories", moved)

    result = archive()

    assert result["complete"] is True
    assert check_files(result) == {"568150": 2, "568151": 1}


def test_named_instance_is_read_until_it_has_ended(emulator, archive):
    perform(emulator, "568150")
    named = {"instance_ids": ["568150"]}
    assert check_files(archive(**named)) == {"568150": 1}
    perform(emulator, "568150", activity="Approve", login="rita@example.com")
    assert check_files(archive(**named)) == {"568150": 2}
    emulator.control("POST", "clock", advance=3600)
    archive(**named)
    before = sum(reads(emulator).values())

    result = archive(**named)

    assert sum(reads(emulator).values()) == before
    assert (result["complete"], result["resumed"], result["expected"]) == (True, 1, 1)


@pytest.mark.sample(3)
@pytest.mark.parametrize("side", ["unchanged", "draft", "terminated", "not_found"])
@pytest.mark.parametrize("has_workflow", [True, False])
def test_upgrade_takes_nothing_away_from_what_is_stored(emulator, archive, side, has_workflow):
    perform(emulator, "568150")
    archive()
    emulator.control("POST", "procore/presets/401", default=has_workflow)
    emulator.control("PATCH", "flags", legacy_left_behind=side)
    emulator.control("POST", "procore/legacy/upgrade")

    result = archive(instance_ids=["568150", "568151"], include_active=True)

    assert check_files(result) == {"568150": 1, "568151": 0}
    if has_workflow and side != "unchanged":
        assert (result["complete"], [e["instance_id"] for e in result["failed"]][:1]) == (False, ["568150"])


@pytest.mark.parametrize("status", [403, 404, 500])
def test_history_that_cannot_be_read_makes_it_incomplete(emulator, archive, status):
    start(emulator, 2)
    fault(emulator, skip=1, times=1 if status < 500 else 6, status=status)

    result = archive()

    missing = result["forbidden"] + result["failed"]
    assert (result["complete"], result["expected"], result["instances"] + len(missing)) == (False, 4, 4)
    assert manifest_of(result)["missing"] == missing
    emulator.control("DELETE", "faults")
    assert archive()["complete"] is True


def test_named_instance_that_is_gone_is_missing_each_time(emulator, archive):
    named = {"instance_ids": [4711, "568150"], "include_active": True}
    for _ in range(2):
        result = archive(**named)
        assert (result["complete"], result["expected"]) == (False, 3)
        assert [entry["instance_id"] for entry in result["failed"]] == ["4711"]


def test_export_that_reads_nothing_at_all_fails(emulator, archive, tmp_path):
    fault(emulator, status=404)

    with pytest.raises(NotFound):
        archive()
    assert not list(tmp_path.rglob("part-*"))


@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_damaged_part_is_exported_again_and_logged(emulator, archive, tmp_path, caplog, damage):
    start(emulator, 2)
    archive()
    broken = tmp_path / "archive" / "part-00001" / "instances.jsonl"
    content = broken.read_bytes()
    broken.unlink()
    if damage == "changed":
        broken.write_bytes(content.replace(b"Start", b"Stort", 1))

    with caplog.at_level(logging.WARNING):
        result = archive()

    assert (result["complete"], result["resumed"], len(check_files(result))) == (True, 2, 4)
    assert "part-00001/instances.jsonl" in caplog.text


def test_files_that_the_manifest_does_not_name_are_left(emulator, archive, tmp_path):
    archive()
    (tmp_path / "archive" / "manifest.json").unlink()
    files = {path: path.read_bytes() for path in tmp_path.rglob("*.jsonl")}

    result = archive()

    assert {path: path.read_bytes() for path in files} == files
    named = {str(tmp_path / "archive" / file["path"]) for file in manifest_of(result)["files"]}
    assert (len(named), named & set(map(str, files))) == (2, set())


def test_storage_that_returns_other_bytes_fails_the_export(emulator, archive, monkeypatch, tmp_path):
    from airflow_provider_workflows.files import table_writer

    replace = table_writer.replace_files

    def cut(files):
        replace(files)
        target = Path(files[0][1].path)
        target.write_bytes(target.read_bytes()[:-5])

    monkeypatch.setattr(table_writer, "replace_files", cut)

    with pytest.raises(WorkflowsError, match="^path: .* could not be written .*read back"):
        archive()
    assert not (tmp_path / "archive" / "manifest.json").exists()


def test_parts_go_to_any_object_storage(emulator, archive):
    attach(protocol="memory", fs=MemoryFileSystem())

    first, second = archive(path="memory://archive"), archive(path="memory://archive")

    assert (first["complete"], second["resumed"], second["files"]) == (True, 2, first["files"])


@pytest.mark.parametrize("allow_empty", [True, False])
def test_company_without_instances_is_complete_only_if_allowed(emulator, archive, allow_empty):
    for instance_id in ("568150", "568151"):
        emulator.control("POST", f"procore/legacy/instances/{instance_id}/terminate")

    result = archive(allow_empty=allow_empty)

    assert (result["complete"], result["expected"], result["files"]) == (allow_empty, 0, 0)
    assert manifest_of(result)["complete"] is allow_empty


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"part_size": 0}, "part_size"),
        ({"part_size": True}, "part_size"),
        ({"part_size": "2"}, "part_size"),
        ({"changed_since": "2026-01-01T00:00:00Z"}, "changed_since"),
        ({"instance_ids": [""]}, "instance_ids"),
        ({"file_format": "csv"}, "file_format"),
        ({"path": ""}, "path"),
    ],
)
def test_bad_parameter_of_parts_is_named_before_anything_is_sent(emulator, archive, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        archive(**parameters)
    assert emulator.requests() == []


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"company_id": "99", "files": [], "stored": {}}',
        '{"company_id": "4264807", "files": [1], "stored": {}}',
        '{"company_id": "4264807", "files": [], "stored": {"1": {"part": "part-00001"}}}',
        '{"company_id": "4264807", "files": [{"path": "../a", "table": "a", "rows": 0, "bytes": 0, "sha256": ""}]'
        ', "stored": {}}',
    ],
)
def test_manifest_of_something_else_is_an_error_of_the_path(emulator, archive, tmp_path, content):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "manifest.json").write_text(content)

    with pytest.raises(ConfigurationError, match="path"):
        archive()
    assert emulator.requests() == []
    assert (tmp_path / "archive" / "manifest.json").read_text() == content
