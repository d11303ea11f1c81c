"""What a report reads: the latest rows of all exports, each malformed row named, and clear errors."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.reports.cycle_times import cycle_time_report
from airflow_provider_workflows.reports.forecast import backtest
from tests.support.histories import write_histories

Row = dict[str, Any]
MONDAY = datetime(2026, 1, 5, 9, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
AS_OF = MONDAY + timedelta(days=4)


def instance(instance_id: str, hours: float | None = None, **more: Any) -> Row:
    """Return an instance that ended after some hours, or is open."""
    ended = {} if hours is None else {"ended_at": MONDAY + hours * HOUR, "status": "complete"}
    return {"instance_id": instance_id, "workflow": "Contract", "started_at": MONDAY, **ended, **more}


def step(instance_id: str, hours: float | None = None, **more: Any) -> Row:
    ended_at = None if hours is None else MONDAY + hours * HOUR
    shown = {"step_key": "a", "event_type": "ResponseStep", "name": "Legal", "event_index": 0, "started_at": MONDAY}
    return {"instance_id": instance_id, "ended_at": ended_at, **shown, **more}


def state(**more: Any) -> Row:
    """Return a legacy instance that waits for a review since five hours after Monday 9:00."""
    return {
        "instance_id": "1",
        "workflow": "Commitments",
        "state_id": "20",
        "state": "Review",
        "state_set_at": MONDAY + 5 * HOUR,
        "open_activities": 1,
        "ball_in_court": '[{"name": "Ann"}, {"name": "Ben"}]',
        **more,
    }


def activity(history_id: str, state_id: str, start: float, end: float, by: str = "Ann", **more: Any) -> Row:
    return {
        "instance_id": "1",
        "history_id": history_id,
        "activity": "Submit",
        "state_id": state_id,
        "state": {"10": "Draft", "20": "Review"}.get(state_id),
        "performed_by": by,
        "performed_by_id": {"Ann": "7", "Ben": "8"}[by],
        "started_at": MONDAY + start * HOUR,
        "ended_at": MONDAY + end * HOUR,
        "created_at": MONDAY + end * HOUR,
        **more,
    }


def report_of(path: str, **more: Any) -> Any:
    return cycle_time_report(path, **{"as_of": AS_OF, **more})


def v2(folder: Path, instances: list[Row], steps: list[Row], responses: list[Row] | None = None, **more: Any) -> str:
    return write_histories(folder, instances=instances, steps=steps, responses=responses or [], **more)


def steps_of(tmp_path: Path, path: str, **more: Any) -> list[Row]:
    """Return the rows of the report's table of steps."""
    report_of(path, tables_path=(tmp_path / "tables").as_uri(), **more)
    return sorted(pq.read_table(tmp_path / "tables" / "steps.parquet").to_pylist(), key=lambda row: row["step_key"])


# --- legacy ---


def test_legacy_states_are_the_steps_and_a_return_is_a_new_one(tmp_path):
    activities = [
        activity("1", "10", 0, 1),
        activity("2", "20", 1, 3),
        activity("3", "10", 3, 5),
    ]
    rows = steps_of(tmp_path, write_histories(tmp_path / "h", instances=[state()], activities=activities))

    assert [(row["step"], row["occurrence"], row["state"]) for row in rows] == [
        ("Draft", 1, "ended"),
        ("Review", 1, "ended"),
        ("Draft", 2, "ended"),
        ("Review", 2, "open"),
    ]
    assert [row["waiting_seconds"] for row in rows] == [3600, 7200, 7200, None]
    assert rows[3]["age_seconds"] == (AS_OF - MONDAY - 5 * HOUR).total_seconds()
    assert rows[3]["pending_with"] == "Ann, Ben"


def test_legacy_parallel_activities_are_one_step_and_two_responses(tmp_path):
    activities = [activity("1", "10", 0, 2, "Ann"), activity("2", "10", 0, 5, "Ben")]
    path = write_histories(tmp_path / "h", instances=[state(open_activities=0)], activities=activities)

    report = report_of(path)

    assert [(row["step"], row["count"], row["total_seconds"]) for row in report.step_summary] == [("Draft", 1, 18000)]
    assert {row["person"]: row["total_seconds"] for row in report.person_summary} == {"Ann": 7200, "Ben": 18000}
    assert report.totals["ended"] == 1


def test_legacy_state_with_one_of_two_activities_is_still_open(tmp_path):
    activities = [activity("1", "10", 0, 5), activity("2", "20", 5, 6, "Ann")]
    path = write_histories(tmp_path / "h", instances=[state(ball_in_court='[{"name": "Ben"}]')], activities=activities)

    report = report_of(path)

    assert [(row["step"], row["since"], row["assignees"]) for row in report.open_steps] == [
        ("Review", "2026-01-05T14:00:00.000Z", ["Ben"])
    ]
    assert report.totals["step_rows"] == 2


def test_legacy_termination_cuts_off_the_state(tmp_path):
    terminated = state(open_activities=1, terminated_at=MONDAY + 8 * HOUR)
    path = write_histories(tmp_path / "h", instances=[terminated], activities=[activity("1", "10", 0, 5)])

    report = report_of(path)

    review = next(row for row in report.step_summary if row["step"] == "Review")
    assert (review["count"], review["cut_off"], review["total_seconds"]) == (0, 1, 3 * 3600)
    assert report.totals["terminated"] == 1


# --- several exports ---


def test_later_state_of_an_instance_counts_in_any_folder(tmp_path):
    v2(tmp_path / "h" / "b", [instance("1")], [step("1")])
    v2(tmp_path / "h" / "a", [instance("1", 3)], [step("1", 3)], file_format="parquet")
    write_histories(tmp_path / "h" / "a" / "legacy", instances=[state()], activities=[])

    totals = report_of((tmp_path / "h").as_uri()).totals

    assert (totals["instances"], totals["open"], totals["step_rows"], totals["malformed"]) == (2, 1, 2, 0)


def test_row_that_one_export_has_twice_counts_once(tmp_path):
    path = v2(tmp_path / "h", [instance("1", 3)] * 2, [step("1"), step("1", 3)])

    totals = report_of(path).totals

    assert (totals["instances"], totals["step_rows"], totals["total_seconds"]) == (1, 1, 3 * 3600)


def test_remote_histories_are_read_and_tables_written(tmp_path):
    attach("memory", fs=MemoryFileSystem())
    local = v2(tmp_path / "h", [instance("1", 3)], [step("1", 3)])
    for file in Path(local.removeprefix("file://")).iterdir():
        (ObjectStoragePath("memory://cycle-times/night") / file.name).write_bytes(file.read_bytes())

    report = report_of("memory://cycle-times", tables_path="memory://cycle-times-report", tables_format="csv")

    assert report.totals["step_rows"] == 1
    assert "2026-01-05T12:00:00.000Z" in ObjectStoragePath("memory://cycle-times-report/steps.csv").read_text()


# --- malformed rows ---


def test_malformed_rows_are_counted_named_and_left_out(tmp_path):
    steps = [
        step("1", 3),
        step("1", -1, step_key="backwards"),
        step("1", None, step_key="raw", raw="{}"),
        step("1", 1, step_key="new", event_type="Vote"),
        step("9", 1, step_key="orphan"),
    ]
    path = v2(tmp_path / "h", [instance("1", 4)], steps)
    lines = (tmp_path / "h" / "steps.jsonl").read_text()
    unreadable = lines.splitlines()[0].replace("2026-01-05T09:00:00.000Z", "yesterday").replace('"a"', '"time"')
    ancient = lines.splitlines()[0].replace("2026-01-05T09", "0001-01-01T09").replace('"a"', '"year"')
    keyless = '{"instance_id": "1", "step_key": null}'
    (tmp_path / "h" / "steps.jsonl").write_text(f"{lines}{unreadable}\n{ancient}\n\n{keyless}\n[1]\n{{broken\n")

    report = report_of(path)

    assert report.totals["step_rows"] == 1
    assert report.totals["malformed"] == len(report.malformed) == 9
    assert {row["file"] for row in report.malformed} == {str(tmp_path / "h" / "steps.jsonl")}
    named = "\n".join(f"{row['row']}: {row['reason']}" for row in report.malformed)
    for key in ("backwards", "raw", "Vote", "orphan", "yesterday", "0001-01-01", "line 9", "line 10", "line 11"):
        assert key in named


# --- errors ---


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("time_zone", "Europe/Atlantis"),
        ("time_zone", "Europe"),
        ("country", "XX"),
        ("country", "DE-XX"),
        ("working_days", "Mon-Someday"),
        ("working_hours", "9 to 5"),
        ("working_hours", "17:00-09:00"),
        ("working_hours", "09:00-12:00,11:00-13:00"),
        ("working_hours", ""),
        ("tables_format", "xlsx"),
        ("as_of", "2026-01-01"),
        ("as_of", datetime(2026, 1, 1)),
    ],
)
def test_wrong_parameter_is_named(tmp_path, parameter, value):
    path = v2(tmp_path / "h", [instance("1", 3)], [step("1", 3)])

    with pytest.raises(ConfigurationError, match=parameter):
        report_of(path, **{parameter: value})


def test_tables_path_that_cannot_be_written_is_named(tmp_path):
    path = v2(tmp_path / "h", [instance("1", 3)], [step("1", 3)])
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="tables_path"):
        report_of(path, tables_path=(tmp_path / "file" / "folder").as_uri())


def remove_column(folder: Path) -> str:
    file = folder / "steps.jsonl"
    file.write_text(file.read_text().replace("step_key", "key"))
    return "step_key"


def remove_table(folder: Path) -> str:
    (folder / "responses.jsonl").unlink()
    return "responses.jsonl"


def damage_parquet(folder: Path) -> str:
    for table in ("instances", "steps", "responses"):
        (folder / f"{table}.parquet").write_bytes(b"PAR1 no table PAR1")
    return "instances.parquet"


def empty_tables(folder: Path) -> str:
    for file in folder.iterdir():
        file.write_text("")
    return "no rows"


def mix_exports(folder: Path) -> str:
    write_histories(folder, instances=[state()], activities=[])
    return "folder of its own"


def remove_all(folder: Path) -> str:
    for file in folder.iterdir():
        file.unlink()
    return "no exported history"


@pytest.mark.parametrize("damage", [remove_column, remove_table, damage_parquet, empty_tables, mix_exports, remove_all])
def test_unusable_histories_are_an_error_that_says_why(tmp_path, damage):
    path = v2(tmp_path / "h", [instance("1", 3)], [step("1", 3)])
    reason = damage(tmp_path / "h")

    with pytest.raises(ConfigurationError, match=f"(?s)history_path.*{reason}"):
        report_of(path)


# --- forecasts ---


def test_forecast_comes_from_longer_durations_only(tmp_path):
    # The open step is four days, 96 hours, old; 21 ended steps took longer: 97 to 117 hours.
    hours = range(90, 118)
    instances = [instance("open"), *(instance(str(hour), hour) for hour in hours)]
    steps = [step("open"), *(step(str(hour), hour) for hour in hours)]
    path = v2(tmp_path / "h", instances, steps)

    (row,) = report_of(path).open_steps
    (older,) = report_of(path, as_of=AS_OF + 2 * HOUR).open_steps

    assert row["observations"] == 21
    assert row["decided_by_50"] == "2026-01-09T20:00:00.000Z"  # 107 hours after the start
    assert row["decided_by_80"] == "2026-01-10T02:00:00.000Z"  # 113 hours
    assert (older["observations"], older["decided_by_50"], older["decided_by_80"]) == (19, None, None)


def test_backtest_uses_only_what_had_ended(tmp_path):
    # One step after the other takes an hour, until the last ten take two.
    spans = [(number * 3, 1 if number < 40 else 2) for number in range(50)]
    steps = [
        step(str(start), start + hours, started_at=MONDAY + start * HOUR, step_key=str(start)) for start, hours in spans
    ]
    path = v2(tmp_path / "h", [instance(str(start), start + 3) for start, _ in spans], steps)

    result = backtest(path)

    # From the 21st step on a forecast at the start says one hour, which is right for 20 of 30. An hour later, none is
    # longer.
    assert (result.steps, result.forecasts) == (50, 30)
    assert result.held_80 == result.held_50 == 20 / 30
