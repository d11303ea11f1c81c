"""The report of cycle times: from what the exports wrote, whole or not at all, and the same in every storage."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.procore import ProcoreCycleTimeReportOperator
from tests.support.busy_history import AS_OF as BUSY_AS_OF
from tests.support.busy_history import busy_history
from tests.support.histories import write_histories
from tests.support.html_page import read_page, table
from tests.unit.operators.procore.test_history_export import export, export_legacy, finish

TABLES = {"steps", "instances", "step_summary", "template_summary", "person_summary"}
AS_OF = "2026-01-21T00:00:00Z"


@pytest.fixture
def history(tmp_path) -> str:
    """A history of one instance that waits for the director, and has waited four days for the budget."""
    instance = {
        "instance_id": "9001",
        "company_id": "42",
        "project_id": "55",
        "tool_type": "purchase_order_contract",
        "item_id": "7001",
        "workflow": "Order approval",
        "status": "in_progress",
        "started_at": "2026-01-05T00:00:00.000Z",
    }
    budget = {
        "instance_id": "9001",
        "step_key": "1",
        "event_index": 0,
        "event_type": "ResponseStep",
        "name": "Budget",
        "started_at": "2026-01-05T00:00:00.000Z",
        "ended_at": "2026-01-09T00:00:00.000Z",
        "decided_option": "Approve",
    }
    director = {
        **budget,
        "step_key": "2",
        "event_index": 1,
        "name": "Director",
        "started_at": budget["ended_at"],
        "ended_at": None,
        "decided_option": None,
    }
    return write_histories(tmp_path / "history", instances=[instance], steps=[budget, director], responses=[])


def report(history: str, root: str, **parameters) -> dict:
    """Run the operator, with a page and tables in a folder."""
    usual = {"output_path": f"{root}/out/report.html", "tables_path": f"{root}/tables", "as_of": AS_OF, **parameters}
    return ProcoreCycleTimeReportOperator(task_id="report", history_path=history, **usual).execute({})


def written(root: str) -> list[str]:
    """Return the files in a folder, without those of the history."""
    folder = ObjectStoragePath(root)
    names = (str(name).removeprefix(folder.path) for name in folder.fs.find(folder.path))
    return sorted(name for name in names if "history" not in name)


def rows(result: dict, name: str) -> list[dict]:
    path = ObjectStoragePath(result["tables"][name])
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(path.read_text())))
    return pq.read_table(io.BytesIO(path.read_bytes())).to_pylist()


def contents(folder: Path) -> dict[str, list[str]]:
    return {name: (folder / name.lstrip("/")).read_text().splitlines() for name in written(folder.as_uri())}


# --- what it makes of an export ---


@pytest.mark.sample(1)
@pytest.mark.usefixtures("airflow_connections")
@pytest.mark.parametrize(("file_format", "tables_format"), [("parquet", "csv"), ("jsonl", "parquet")])
def test_exports_of_both_apis_become_one_report(emulator, tmp_path, file_format, tables_format):
    emulator.control("POST", "clock", advance=3 * 3600)
    finish(emulator)
    emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="5002")
    emulator.control("POST", "clock", advance=86_400)
    root = tmp_path.as_uri()
    exported = export(f"{root}/history", file_format=file_format)
    legacy = export_legacy(f"{root}/history/legacy", file_format=file_format)

    result = report(f"{root}/history", root, tables_format=tables_format, as_of=None, time_zone="Europe/Berlin")

    assert result["instances"] == exported["instances"] + legacy["instances"]
    assert (result["malformed"], result["ended"]) == (0, 1)
    steps = {(row["api"], row["step"]): row for row in rows(result, "steps") if row["item_id"] == "5001"}
    assert float(steps["v2", "Budget Check"]["waiting_seconds"]) == pytest.approx(3 * 3600, abs=120)
    assert {row["api"] for row in rows(result, "instances")} == {"v2", "legacy"}
    page = read_page(ObjectStoragePath(result["page"]).read_text())
    assert {row["Item"] for row in table(page, "The ten oldest")} >= {"purchase_order_contract 5002"}
    assert {row["API"] for row in table(page, "Templates")} == {"Workflows", "Legacy"}


def test_columns_of_the_tables_are_documented(history, tmp_path):
    page = (Path(__file__).parents[4] / "docs" / "procore-audit.md").read_text()
    documented = set(re.findall(r"`(\w+)`", page[page.index("## Tables of the cycle-time report") :]))

    result = report(history, tmp_path.as_uri())

    columns = {(name, column) for name in TABLES for column in (rows(result, name) or [{}])[0]}
    assert columns
    assert sorted(column for column in columns if column[1] not in documented) == []


def test_names_from_procore_are_not_formulas_in_csv(tmp_path):
    instance = {"instance_id": "1", "workflow": "=HYPERLINK(1)", "started_at": "2026-01-05T00:00:00Z"}
    step = {
        "instance_id": "1",
        "step_key": "1",
        "event_type": "ResponseStep",
        "name": "@Budget",
        "decided_option": "-1",
        "started_at": "2026-01-05T00:00:00Z",
        "ended_at": "2026-01-06T00:00:00Z",
    }
    history = write_histories(tmp_path / "history", instances=[instance], steps=[step], responses=[])

    result = report(history, tmp_path.as_uri(), tables_format="csv")

    (row,) = rows(result, "steps")
    assert (row["template"], row["step"], row["decided_option"]) == ("'=HYPERLINK(1)", "'@Budget", "'-1")
    assert rows(result, "step_summary")[0]["step"] == "'@Budget"
    assert float(row["waiting_seconds"]) == 86_400


def test_result_names_files_and_totals_and_is_small(history, tmp_path):
    root = tmp_path.as_uri()

    result = report(history, root, tables_format="csv")

    assert result["page"] == f"{root}/out/report.html"
    assert result["tables"] == {name: f"{root}/tables/{name}.csv" for name in TABLES}
    assert written(root) == sorted(["/out/report.html", *(f"/tables/{name}.csv" for name in TABLES)])
    assert {name: result[name] for name in ("instances", "open", "step_rows", "open_steps", "malformed")} == {
        "instances": 1,
        "open": 1,
        "step_rows": 2,
        "open_steps": 1,
        "malformed": 0,
    }
    assert result["total_seconds"] == 16 * 86_400
    assert len(json.dumps(result)) < 2000


def test_parameters_reach_page_and_tables(history, tmp_path):
    result = report(
        history,
        tmp_path.as_uri(),
        time_zone="Asia/Dubai",
        country="AE",
        working_days="Mon-Thu",
        working_hours="07:00-12:00",
        item_url="https://app.example.com/{project_id}/{item_id}",
    )

    text = ObjectStoragePath(result["page"]).read_text()
    page = read_page(text)
    assert "2026-01-21 04:00 (Asia/Dubai)" in page.text
    assert "Mon-Thu 07:00-12:00" in page.text
    assert "holidays of AE" in page.text
    assert [link.attributes["href"] for link in page.all("a")] == ["https://app.example.com/55/7001"]
    waited = {row["step"]: row["waiting_business_seconds"] for row in rows(result, "steps")}
    assert waited["Budget"] == 4 * 5 * 3600  # Monday to Thursday


def test_summaries_start_with_what_takes_most_time(tmp_path):
    result = report(busy_history(tmp_path / "history"), tmp_path.as_uri(), as_of=BUSY_AS_OF)

    totals = {name: [row["total_seconds"] for row in rows(result, name)] for name in TABLES if "summary" in name}
    assert {name: len(values) for name, values in totals.items()} == {
        "step_summary": 9,
        "template_summary": 3,
        "person_summary": 7,
    }
    assert {name: sorted(values, reverse=True) for name, values in totals.items()} == totals


def test_without_tables_path_only_the_page_is_written(history, tmp_path):
    result = report(history, tmp_path.as_uri(), tables_path=None)

    assert (result["tables"], written(tmp_path.as_uri())) == ({}, ["/out/report.html"])


def test_second_run_replaces_all_files_by_equal_ones(history, tmp_path):
    root = tmp_path.as_uri()
    first = report(history, root, tables_format="csv")
    before = contents(tmp_path)
    (tmp_path / "out" / "report.html").write_text("of an earlier run")

    second = report(history, root, tables_format="csv")

    assert second == first
    assert contents(tmp_path) == before


def test_any_storage_serves_for_all_paths(history):
    attach("memory", fs=MemoryFileSystem())
    MemoryFileSystem.store.clear()
    for file in ObjectStoragePath(history).iterdir():
        (ObjectStoragePath("memory://audit/history") / file.name).write_bytes(file.read_bytes())

    result = report("memory://audit/history", "memory://audit")

    assert len(rows(result, "steps")) == 2
    assert ObjectStoragePath(result["page"]).read_text().startswith("<!DOCTYPE html>")


# --- bad input ---


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("time_zone", "Mars/Olympus"),
        ("time_zone", ""),
        ("country", "Atlantis"),
        ("country", "DE-XX"),
        ("working_days", "Mon-Blursday"),
        ("working_hours", "17:00-09:00"),
        ("as_of", "yesterday"),
        ("tables_format", "xlsx"),
        ("item_url", "javascript:alert(1)"),
        ("item_url", "https://app.example.com/{password}"),
        ("history_path", "{root}/nothing"),
        ("history_path", "unknown://bucket/history"),
        ("history_path", ""),
        ("output_path", "{root}"),
        ("output_path", "{root}/history/steps.jsonl/report.html"),
        ("output_path", "{root}/../report.html"),
        ("output_path", "{root}/history/steps.jsonl"),
        ("output_path", "{root}/steps.parquet"),
        ("output_path", None),
        ("tables_path", "{root}/history"),
        ("tables_path", "{root}/history/tables"),
        ("tables_path", "{root}/history/steps.jsonl"),
        ("tables_path", ""),
    ],
)
def test_bad_parameter_is_named_before_anything_is_written(history, tmp_path, parameter, value):
    root = tmp_path.as_uri()
    path = value.replace("{root}", root) if value else value

    with pytest.raises(ConfigurationError, match=parameter):
        report(**{"history": history, "root": root, parameter.replace("history_path", "history"): path})

    assert written(root) == []


@pytest.mark.parametrize("library", ["duckdb", "holidays", "matplotlib"])
def test_missing_library_is_named_with_its_extra(history, tmp_path, monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(ConfigurationError, match=rf"{library}.*airflow-provider-workflows\[report\]"):
        report(history, tmp_path.as_uri(), country="DE")

    assert written(tmp_path.as_uri()) == []


def test_storage_that_rejects_the_page_is_named(history, tmp_path, monkeypatch):
    def reject(*_, **__):
        raise PermissionError("access denied")

    attach("memory", fs=MemoryFileSystem())
    monkeypatch.setattr(MemoryFileSystem, "_open", reject)

    with pytest.raises(ConfigurationError, match=r"output_path.*memory://.*access denied"):
        report(history, tmp_path.as_uri(), output_path="memory://bucket/report.html")


def test_empty_rendering_of_a_template_is_an_error(history, tmp_path):
    with pytest.raises(ConfigurationError, match="country"):
        report(history, tmp_path.as_uri(), country="")


def test_malformed_rows_are_left_out_and_logged(history, tmp_path, capsys):
    with (tmp_path / "history" / "steps.jsonl").open("a") as file:
        file.write("not a row\n")

    result = report(history, tmp_path.as_uri())

    assert (result["malformed"], result["step_rows"]) == (1, 2)
    assert "Malformed rows, left out: 1" in capsys.readouterr().out
