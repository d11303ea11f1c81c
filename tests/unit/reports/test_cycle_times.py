"""The numbers of a cycle-time report, compared with a second calculation on random histories."""

from __future__ import annotations

import tempfile
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from airflow_provider_workflows.reports.cycle_times import cycle_time_report
from tests.support.histories import write_histories
from tests.support.report_oracle import GRID, Office, Oracle

Row = dict[str, Any]
# A report takes a third of a second, so few examples have many instances each, and a failing one is not made smaller.
EXAMPLES = settings(max_examples=max(3, settings().max_examples // 8), phases=[Phase.generate])

# The clock of Europe goes forward on 29 March 2026 and back on 25 October, that of America on other days. Easter Monday
# is a holiday of Germany.
OFFICES = {
    "UTC": ({}, Office("UTC", range(5), time(9), time(17))),
    "Berlin": (
        {"time_zone": "Europe/Berlin", "country": "DE", "working_hours": "00:30-06:15", "working_days": "Sun-Thu"},
        Office("Europe/Berlin", {6, 0, 1, 2, 3}, time(0, 30), time(6, 15), {date(2026, 4, 6)}),
    ),
    "Chicago": (
        {"time_zone": "America/Chicago", "working_hours": "01:15-02:45", "working_days": "Mon-Sun"},
        Office("America/Chicago", range(7), time(1, 15), time(2, 45)),
    ),
}
# The histories start a few days before the clock changes.
CASES = [
    ("UTC", datetime(2026, 1, 1, 20, tzinfo=timezone.utc)),
    ("Berlin", datetime(2026, 3, 26, 20, tzinfo=timezone.utc)),
    ("Berlin", datetime(2026, 10, 22, 20, tzinfo=timezone.utc)),
    ("Chicago", datetime(2026, 3, 5, 20, tzinfo=timezone.utc)),
    ("Chicago", datetime(2026, 10, 29, 20, tzinfo=timezone.utc)),
]
QUARTERS = st.integers(0, 4 * 24 * 4).map(lambda number: number * GRID)
AS_OF = timedelta(days=20)
HOW = ["decided", "decided", "overridden", "not_started", "clock_set_back", "action", "open"]


@st.composite
def instance_rows(draw: st.DrawFn, instance_id: str, base: datetime) -> tuple[Row, list[Row], list[Row]]:
    """Return the rows of an instance whose steps follow each other, come back, and end in every way."""
    now = start = base + draw(QUARTERS)
    steps: list[Row] = [event(instance_id, 0, "WorkflowStarted", None, started_at=start)]
    responses: list[Row] = []
    is_open = False
    for index, name in enumerate(draw(st.lists(st.sampled_from("AAABC"), max_size=5)), start=1):
        spent = draw(QUARTERS)
        how = draw(
            st.sampled_from(["decided", "decided", "overridden", "not_started", "clock_set_back", "action", "open"])
        )
        step = event(instance_id, index, "Action" if how == "action" else "ResponseStep", name, started_at=now)
        step["due_at"] = draw(st.sampled_from([None, now + 8 * GRID]))
        steps.append(step)
        if how == "not_started":
            step["started_at"] = None
        elif how == "clock_set_back":
            step["ended_at"] = now - GRID
        elif how == "open":
            is_open = True
        elif how == "overridden":
            step |= {"overridden_at": now + spent, "overridden_by_id": "9", "ended_at": now + spent}
        else:
            step |= {"ended_at": now + spent, "decided_option": "Approve" if how == "decided" else None}
        for person in draw(st.sets(st.sampled_from("123"), max_size=3)):
            offset = draw(st.sampled_from([None, spent, spent / 2 // GRID * GRID, -GRID]))
            at = None if offset is None or how == "not_started" else now + offset
            role = draw(st.sampled_from(["responder", "responder", "commenter"]))
            responses.append(response(step, person, at, role))
        now += spent
        if is_open:
            break
    end = draw(st.sampled_from(["complete", "terminated", "clock_set_back"]))
    instance = {
        "instance_id": instance_id,
        "workflow": draw(st.sampled_from(["Contract", "Invoice"])),
        "started_at": start,
        "ended_at": None,
        "status": "in_progress",
    }
    if end == "terminated" or not is_open:
        ended_at = start - GRID if end == "clock_set_back" and len(steps) == 1 else now + GRID
        instance |= {"status": "terminated" if end == "terminated" else "complete", "ended_at": ended_at}
    return instance, steps, responses


def event(instance_id: str, index: int, event_type: str, name: str | None, **more: Any) -> Row:
    return {
        "instance_id": instance_id,
        "step_key": f"s{index}",
        "event_index": index,
        "event_type": event_type,
        "name": name,
        "ended_at": None,
        **more,
    }


def response(step: Row, person: str, at: datetime | None, role: str = "responder") -> Row:
    return {
        "instance_id": step["instance_id"],
        "step_key": step["step_key"],
        "response_key": person,
        "user_id": person,
        "name": f"Person {person}",
        "role_type": role,
        "response": None if at is None else "Approve",
        "responded_at": at,
    }


@st.composite
def histories(draw: st.DrawFn, base: datetime) -> dict[str, list[Row]]:
    drawn = [draw(instance_rows(str(number), base)) for number in range(draw(st.integers(1, 20)))]
    return {
        "instances": [instance for instance, _, _ in drawn],
        "steps": [step for _, steps, _ in drawn for step in steps],
        "responses": [row for _, _, responses in drawn for row in responses],
    }


def known_before(rows: dict[str, list[Row]], moment: datetime) -> dict[str, list[Row]]:
    """Return the rows as an earlier export has seen them."""

    def cut(row: Row) -> Row:
        late = {name for name, value in row.items() if name.endswith(("ended_at", "_at")) and value and value > moment}
        hidden = {"response"} if "responded_at" in late else {"decided_option"} if "ended_at" in late else set()
        unknown = {**row, **dict.fromkeys((late - {"due_at"}) | (hidden & set(row)))}
        return unknown | ({"status": "in_progress"} if "status" in row and unknown["ended_at"] is None else {})

    started = {row["instance_id"] for row in rows["instances"] if row["started_at"] <= moment}
    planned = [row for row in rows["steps"] if row["started_at"] is None or row["started_at"] <= moment]
    keys = {(row["instance_id"], row["step_key"]) for row in planned if row["instance_id"] in started}
    return {
        "instances": [cut(row) for row in rows["instances"] if row["instance_id"] in started],
        "steps": [cut(row) for row in planned if row["instance_id"] in started],
        "responses": [cut(row) for row in rows["responses"] if (row["instance_id"], row["step_key"]) in keys],
    }


def differences(found: list[Row], expected: dict[Any, Row], *keys: str) -> list[tuple[Any, ...]]:
    """Return each value that is not the expected one: ``(key, column, found, expected)``."""
    rows = {tuple(row[key] for key in keys): row for row in found}
    assert rows.keys() == expected.keys()
    return [
        (key, column, rows[key][column], value)
        for key, row in expected.items()
        for column, value in row.items()
        if rows[key][column] != (pytest.approx(value) if isinstance(value, float) else value)
    ]


@pytest.mark.sample(3)
@pytest.mark.parametrize(("place", "base"), CASES)
@given(data=st.data())
@EXAMPLES
def test_report_equals_a_second_calculation(data: st.DataObject, place: str, base: datetime) -> None:
    parameters, office = OFFICES[place]
    file_format = data.draw(st.sampled_from(["jsonl", "parquet"]))
    rows = data.draw(histories(base))
    as_of = base + AS_OF

    with tempfile.TemporaryDirectory() as folder:
        earlier = known_before(rows, base + data.draw(QUARTERS))
        write_histories(Path(folder, "2026-01-01"), file_format=file_format, **earlier)
        path = write_histories(Path(folder, "2026-01-02"), file_format=file_format, **rows)
        tables = Path(folder, "report")
        report = cycle_time_report(path.rpartition("/")[0], as_of=as_of, tables_path=tables.as_uri(), **parameters)
        steps = pq.read_table(tables / "steps.parquet").to_pylist()
        instances = pq.read_table(tables / "instances.parquet").to_pylist()

    expected = Oracle(**rows, office=office, as_of=as_of)
    assert report.totals == pytest.approx(expected.totals())
    assert differences(report.step_summary, expected.step_summary(), "template", "step") == []
    assert differences(report.template_summary, expected.template_summary(), "template") == []
    assert differences(report.person_summary, expected.person_summary(), "person") == []
    assert differences(steps, expected.step_rows(), "instance_id", "step_key") == []
    assert differences(instances, expected.instance_rows(), "instance_id") == []
    weeks = {row["week"]: (row["started"], row["ended"]) for row in report.throughput}
    assert {week: counts for week, counts in weeks.items() if any(counts)} == expected.throughput()
