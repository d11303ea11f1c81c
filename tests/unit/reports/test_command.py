"""The command ``airflow-workflows report``: a page without an Airflow database, and an exit code for scripts."""

from __future__ import annotations

import pytest

from airflow_provider_workflows import cli
from tests.support.histories import write_histories
from tests.support.html_page import read_page

STEP = {
    "instance_id": "9001",
    "step_key": "1",
    "event_index": 0,
    "event_type": "ResponseStep",
    "name": "Budget",
    "started_at": "2026-01-05T00:00:00.000Z",
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with the folder ``history`` in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    instance = {"instance_id": "9001", "workflow": "Orders", "status": "in_progress", "started_at": STEP["started_at"]}
    write_histories(tmp_path / "history", instances=[instance], steps=[STEP], responses=[])
    return tmp_path


def test_command_writes_page_and_tables_to_relative_paths(here, capsys):
    code = cli.main(
        ["report", "history", "--output", "out/report.html", "--tables", "tables", "--tables-format", "csv"]
    )

    assert code == 0
    assert "Where approvals wait" in read_page((here / "out" / "report.html").read_text()).text
    assert (here / "tables" / "steps.csv").read_text().count("\n") == 2
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("out/report.html", "tables/steps.csv", "Malformed rows, left out: 0"))


def test_options_reach_the_report(here):
    options = [
        "--time-zone",
        "Asia/Dubai",
        "--country",
        "AE",
        "--working-days",
        "Sun-Thu",
        "--working-hours",
        "07:00-15:00",
    ]

    assert cli.main(["report", "history", "--output", "r.html", "--as-of", "2026-02-01T00:00:00Z", *options]) == 0

    text = read_page((here / "r.html").read_text()).text
    assert all(stated in text for stated in ("2026-02-01 04:00", "Asia/Dubai", "07:00-15:00", "holidays of AE"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nothing", "--output", "r.html"], "history_path"),
        (["history", "--output", "history"], "output_path"),
        (["history", "--output", "r.html", "--time-zone", "Mars/Olympus"], "time_zone"),
        (["history", "--output", "r.html", "--country", "\x1b[31mXX"], "country"),
        (["history", "--output", "r.html", "--tables", "t", "--tables-format", "xlsx"], "tables_format"),
    ],
)
def test_report_that_cannot_be_written_exits_with_one(here, capsys, arguments, named):
    assert cli.main(["report", *arguments]) == 1

    shown = capsys.readouterr()
    assert (shown.out, named in shown.err, "\x1b" in shown.err) == ("", True, False)
    assert not (here / "r.html").exists()


@pytest.mark.parametrize("arguments", [[], ["history"], ["history", "--output", "r.html", "--colour", "red"]])
def test_wrong_use_exits_with_two(here, capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["report", *arguments])

    assert exit_.value.code == 2
    assert "usage: airflow-workflows" in capsys.readouterr().err
