"""What Procore's list of errors says, in every format."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.rules.procore_replacements import failures_in, is_empty

NAMES = "project_id,preset_id,message"
ROW = ["1001", "401", "User Zoë cannot be assigned."]
TEXT = f"{NAMES}\r\n{','.join(ROW)}\r\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_failures_are_read_in_any_encoding(encoding):
    assert failures_in(TEXT.encode(encoding)) == [ROW]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cell_with_a_line_break_is_one_failure(ends, separator):
    lines = [separator.join(["Project", "Message"]), separator.join(["1", '"No such\nuser, or\r\nnone; sorry"'])]

    assert failures_in(ends.join(lines).encode()) == [["1", "No such\nuser, or\r\nnone; sorry"]]


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ["", "", "User cannot be assigned."],
        ["User cannot be assigned."],
        ["North Tower", "Purchase Orders", "The user has left"],
        ["Project Alpha", "User left"],
        ["Reason: user is not a member"],
        ["401", "error"],
        ["Preset 401", "Error"],
    ],
)
def test_only_failure_counts_without_names_of_columns(row):
    report = ",".join(row).encode()

    assert failures_in(report) == [row]
    assert failures_in(NAMES.encode() + b"\n" + report) == [row]


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        "Project ID,Preset ID,Error Message",
        "projectId,presetId,errorMessage",
        "Message",
        '"Project","Failure Reason"',
        "PROJECT_ID;PRESET_ID;MESSAGE",
        "Project,Workflow Template,Remedy",
    ],
)
def test_names_of_columns_are_not_a_failure(names):
    assert failures_in(names.encode()) == []
    assert len(failures_in(f"{names}\n1,2,3\n\n4,5,6\n".encode())) == 2


@pytest.mark.parametrize("report", [b"", b"\n", b"  \r\n", b"\xef\xbb\xbf", "\ufeff\n".encode("utf-16-le")])
def test_list_with_nothing_in_it_is_empty(report):
    assert is_empty(report)
    assert failures_in(report) == []


@pytest.mark.parametrize("report", [NAMES.encode(), TEXT.encode("utf-16"), b"x"])
def test_list_with_anything_in_it_is_not_empty(report):
    assert not is_empty(report)


@pytest.mark.parametrize(
    "report", [b'1,"' + b"x" * 200_000 + b'"', b'1,"never closed\n2,x', bytes(range(256)), b"\xff\xfe\x00", b"\x00"]
)
def test_malformed_bytes_do_not_raise(report):
    assert isinstance(failures_in(report), list)
    assert failures_in(b"1,2\n" + report)
