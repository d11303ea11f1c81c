"""Long work logs its progress, at most every ten seconds; short work logs nothing."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from airflow_provider_workflows.operators import base
from airflow_provider_workflows.operators.procore import (
    ProcoreBulkStartInstancesOperator,
    ProcoreHistoryToObjectStorageOperator,
)
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyHistoryToObjectStorageOperator
from tests.unit.operators.procore.test_preset_assignees import assign, directors
from tests.unit.sensors.test_procore import TOOL

pytestmark = pytest.mark.usefixtures("airflow_connections")


class Ticking:
    """A clock that moves on by so many seconds whenever it is read."""

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


@pytest.fixture
def every_step_takes(monkeypatch, caplog):
    """Return a function that says how long a step takes, and the function that returns what is logged then."""
    caplog.set_level(logging.INFO)

    def take(seconds: float):
        monkeypatch.setattr(base, "monotonic", Ticking(seconds))
        return lambda: [record.getMessage() for record in caplog.records if record.name == base.__name__]

    return take


def test_progress_is_logged_every_ten_seconds(every_step_takes):
    reported = every_step_takes(3)

    assert list(base.Progress("items requested", 10).of(range(10))) == list(range(10))

    assert reported() == [
        "4 of 10 items requested, 6 left, after 12 s.",
        "8 of 10 items requested, 2 left, after 24 s.",
    ]


def test_progress_without_a_total_shows_what_is_done(every_step_takes):
    reported = every_step_takes(11)

    base.Progress("instances listed").count(100)

    assert reported() == ["100 instances listed, after 11 s."]


def start_many(folder):
    items = ["5101", "5102", "5103"]
    start = ProcoreBulkStartInstancesOperator(
        task_id="start", tool_type=TOOL, items=items, chunk_size=2, poll_interval=0.01, wait_timeout=30
    )
    start.execute({})


def plan_presets(folder):
    assign(directors("hana@example.com"), mode="plan").execute({})


def export(folder):
    ProcoreHistoryToObjectStorageOperator(task_id="export", tool_type=TOOL, path=folder, file_format="jsonl").execute(
        {}
    )


def export_one(folder):
    where = {"tool_type": TOOL, "item_ids": ["5001"], "path": folder, "file_format": "jsonl"}
    ProcoreHistoryToObjectStorageOperator(task_id="export", **where).execute({})


def export_legacy(folder):
    ProcoreLegacyHistoryToObjectStorageOperator(task_id="export", path=folder, file_format="jsonl").execute({})


WORK = [
    (start_many, ["2 of 3 items requested, 1 left", "3 of 3 items requested, 0 left"]),
    (plan_presets, ["1 of 1 presets planned, 0 left"]),
    (export, ["1 instances listed", "1 of 1 items exported, 0 left"]),
    (export_one, ["1 of 1 items listed, 0 left", "1 of 1 items exported, 0 left"]),
    (export_legacy, ["1 instances exported or left out", "2 instances exported or left out"]),
]


@pytest.mark.parametrize(("work", "lines"), WORK, ids=[work.__name__ for work, _ in WORK])
def test_long_work_shows_its_progress_and_short_work_does_not(emulator, tmp_path, every_step_takes, work, lines):
    reported = every_step_takes(0.01)
    work(f"file://{tmp_path}/short")
    assert reported() == []

    emulator.control("POST", "reset", seed="default")
    reported = every_step_takes(11)
    work(f"file://{tmp_path}/long")

    assert [line.partition(", after ")[0] for line in reported()] == lines


@pytest.mark.parametrize(
    ("cls", "where", "rows"),
    [
        (ProcoreHistoryToObjectStorageOperator, {"tool_type": TOOL}, "1 instances, 2 steps, 1 responses"),
        (ProcoreLegacyHistoryToObjectStorageOperator, {}, "2 instances, 0 activities"),
    ],
)
def test_an_export_ends_with_a_summary(emulator, tmp_path, monkeypatch, caplog, cls, where, rows):
    caplog.set_level(logging.INFO, logger="logged")
    monkeypatch.setattr(cls, "log", logging.getLogger("logged"))
    operator = cls(task_id="export", path=f"file://{tmp_path}", file_format="jsonl", **where)

    result = operator.execute({})

    files = [Path(path.removeprefix("file://")) for path in result["paths"].values()]
    size = sum(file.stat().st_size for file in files)
    summary = [record.getMessage() for record in caplog.records if record.name == "logged"][-1]
    seconds = re.sub(r"\d+\.\d s", "N s", summary)
    assert (
        seconds
        == f"Exported {rows}, changed since ever: {len(files)} files with {size} bytes to file://{tmp_path} in N s."
    )


def test_operation_wait_logs_the_next_poll_and_the_deadline(emulator, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="logged")
    monkeypatch.setattr(ProcoreBulkStartInstancesOperator, "log", logging.getLogger("logged"))
    emulator.control("PATCH", "flags", operation_delay=0.2)

    start_many("")

    messages = [record.getMessage() for record in caplog.records if record.name == "logged"]
    waiting = [line for line in messages if line.startswith("Waiting since")]
    assert "the next poll is in 0 s." in waiting[0]
    assert messages[-1] == "3 items started, 0 already active, 0 failed."
