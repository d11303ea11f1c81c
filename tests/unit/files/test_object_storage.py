"""Files on a worker or in an object storage, checked before anything is sent."""

from __future__ import annotations

import hashlib

import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.files.object_storage import attached_files, named_write_errors, storage_path


def test_the_error_of_a_storage_names_the_parameter_and_the_path():
    with (
        pytest.raises(WorkflowsError, match="^path: 's3://bucket' could not be written .OSError: disk full"),
        named_write_errors("path", "s3://bucket"),
    ):
        raise OSError("disk full")


@pytest.mark.parametrize("conn_id", ["", "a b", 5, ["aws_default"]])
def test_a_wrong_connection_id_of_a_storage_is_named(tmp_path, conn_id):
    with pytest.raises(ConfigurationError, match="^object_storage_conn_id must be the id of a connection"):
        storage_path("path", f"file://{tmp_path}", conn_id)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "plan.pdf"
    path.write_bytes(b"0123456789")
    return path


def test_no_files_and_an_empty_list_attach_nothing():
    assert attached_files("files", None) == []
    assert attached_files("files", []) == []


@pytest.mark.parametrize("form", ["text", "url", "path", "object storage", "list", "tuple"])
def test_a_file_is_described_from_each_kind_of_source(plan, form):
    files = {
        "text": f" {plan} ",
        "url": f"file://{plan}",
        "path": plan,
        "object storage": ObjectStoragePath(f"file://{plan}"),
        "list": [str(plan)],
        "tuple": (plan,),
    }[form]

    (file,) = attached_files("files", files)

    assert (file.name, file.size, file.content_type) == ("plan.pdf", 10, "application/pdf")
    assert file.sha256 == hashlib.sha256(b"0123456789").hexdigest()


def test_a_file_is_read_in_parts_and_can_be_read_again(plan):
    (file,) = attached_files("files", plan)

    assert list(file.parts(4)) == [b"0123", b"4567", b"89"]
    assert list(file.parts(100)) == [b"0123456789"]


def test_a_file_of_an_unknown_kind_is_bytes(tmp_path):
    (tmp_path / "data.qqq").write_bytes(b"x")

    assert attached_files("files", tmp_path / "data.qqq")[0].content_type == "application/octet-stream"


def test_a_file_in_an_object_storage_is_described():
    attach("memory", fs=MemoryFileSystem())
    path = ObjectStoragePath("memory://bucket/a b.txt")
    path.write_bytes(b"text")

    (file,) = attached_files("files", "memory://bucket/a b.txt")

    assert (file.name, file.size, list(file.parts(3))) == ("a b.txt", 4, [b"tex", b"t"])


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ("", "missing or was rendered empty"),
        ("None", "missing or was rendered empty"),
        ([None], "missing or was rendered empty"),
        ("/does/not/exist", "there is no file '/does/not/exist'"),
        ("foo://bucket/file", "'foo://bucket/file' cannot be read"),
        ("s3://bucket/file", "'s3://bucket/file' cannot be read"),
    ],
)
def test_a_missing_file_is_named_with_its_parameter(files, problem):
    with pytest.raises(ConfigurationError, match=f"^pictures: .*{problem}"):
        attached_files("pictures", files)


def test_a_folder_an_empty_file_and_a_large_one_are_rejected(tmp_path, plan):
    (tmp_path / "empty").touch()

    with pytest.raises(ConfigurationError, match="there is no file"):
        attached_files("files", tmp_path)
    with pytest.raises(ConfigurationError, match="is empty"):
        attached_files("files", tmp_path / "empty")
    with pytest.raises(ConfigurationError, match="has 10 bytes; the maximum is 9"):
        attached_files("files", plan, largest=9)
    assert len(attached_files("files", plan, largest=10)) == 1


def test_two_files_of_one_name_are_rejected(tmp_path, plan):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plan.pdf").write_bytes(b"x")

    with pytest.raises(ConfigurationError, match="several files are named plan.pdf"):
        attached_files("files", [plan, tmp_path / "other" / "plan.pdf"])
