"""What a cycle-time report of a million step rows costs: ``python -m benchmarks.cycle_times [--steps N] [--jsonl]``."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from airflow_provider_workflows.rules.procore_history import TABLES

MAX_SECONDS, MAX_MEGABYTES = 60, 1000
STEPS_PER_INSTANCE = 5  # one of four comes back
TYPES = {"text": "VARCHAR", "time": "TIMESTAMPTZ", "seconds": "DOUBLE", "count": "BIGINT", "flag": "BOOLEAN"}
# Values of the columns that are not null; i is the instance, s the place of the step, r that of the assignee. The last
# of 200 instances is open, in its last step.
STARTED = "TIMESTAMPTZ '2024-01-01 08:00:00+00' + to_seconds(i * 60)"
STEP_STARTED = f"{STARTED} + to_hours(s * 40)"
SPENT = "to_seconds(1 + CAST(pow(hash(i, s) % 1000 / 1000.0, 3) * 140000 AS BIGINT))"
IS_OPEN = f"i % 200 = 199 AND s = {STEPS_PER_INSTANCE - 1}"
VALUES = {
    "instances": {
        "instance_id": "CAST(i AS VARCHAR)",
        "id_from": "'api'",
        "tool_type": "'purchase_order_contract'",
        "project_id": "CAST(i % 50 AS VARCHAR)",
        "item_id": "CAST(100000 + i AS VARCHAR)",
        "workflow": "'Template ' || i % 20",
        "status": "CASE WHEN i % 200 = 199 THEN 'in_progress' ELSE 'complete' END",
        "started_at": STARTED,
        "ended_at": f"CASE WHEN i % 200 != 199 THEN {STARTED} + to_hours({STEPS_PER_INSTANCE} * 40) END",
    },
    "steps": {
        "instance_id": "CAST(i AS VARCHAR)",
        "step_key": "i || '-' || s",
        "event_index": "s",
        "event_type": "'ResponseStep'",
        "step_uuid": f"'uuid-' || s % {STEPS_PER_INSTANCE - 1}",
        "name": f"'Step ' || s % {STEPS_PER_INSTANCE - 1}",
        "started_at": STEP_STARTED,
        "ended_at": f"CASE WHEN NOT ({IS_OPEN}) THEN {STEP_STARTED} + {SPENT} END",
        "due_at": f"{STEP_STARTED} + to_hours(24)",
        "overall_response": f"CASE WHEN NOT ({IS_OPEN}) THEN 'Approve' END",
        "decided_option": f"CASE WHEN NOT ({IS_OPEN}) THEN 'Approve' END",
    },
    "responses": {
        "instance_id": "CAST(i AS VARCHAR)",
        "step_key": "i || '-' || s",
        "response_key": "CAST((i + s + r) % 500 AS VARCHAR)",
        "user_id": "CAST((i + s + r) % 500 AS VARCHAR)",
        "name": "'Person ' || (i + s + r) % 500",
        "role_type": "'responder'",
        "response": f"CASE WHEN r = 0 AND NOT ({IS_OPEN}) THEN 'Approve' END",
        "responded_at": f"CASE WHEN r = 0 AND NOT ({IS_OPEN}) THEN {STEP_STARTED} + {SPENT} END",
    },
}
ROWS = {
    "instances": "range({instances}) t(i)",
    "steps": "range({instances}) t(i), range({steps}) u(s)",
    "responses": "range({instances}) t(i), range({steps}) u(s), range(2) v(r)",
}


def generate(folder: Path, steps: int, file_format: str) -> None:
    """Write the histories of as many steps as an export does, with two assignees each."""
    import duckdb

    options = "FORMAT parquet" if file_format == "parquet" else "FORMAT json"
    with duckdb.connect() as connection:
        connection.execute("SET preserve_insertion_order = false; SET memory_limit = '1GB'; SET TimeZone = 'UTC'")
        for table, columns in TABLES.items():
            rows = ROWS[table].format(instances=steps // STEPS_PER_INSTANCE, steps=STEPS_PER_INSTANCE)
            values = ", ".join(
                f"CAST({VALUES[table].get(name, 'NULL')} AS {TYPES[kind]}) AS {name}" for name, kind in columns.items()
            )
            file = folder / f"{table}.{file_format}"
            connection.execute(f"COPY (SELECT {values} FROM {rows}) TO '{file}' ({options})")  # noqa: S608  constants


def measure(folder: Path) -> None:
    """Make the report in this process, and print what it cost."""
    from airflow_provider_workflows.reports.cycle_times import cycle_time_report

    start, processor = time.monotonic(), time.process_time()
    report = cycle_time_report(
        folder.as_uri(),
        tables_path=(folder / "tables").as_uri(),
        time_zone="Europe/Berlin",
        country="DE",
        as_of="2026-01-01T00:00:00Z",
    )
    measured = {
        "steps": report.totals["step_rows"],
        "open": report.totals["open_steps"],
        "forecasts": sum(row["decided_by_80"] is not None for row in report.open_steps),
        "seconds": round(time.monotonic() - start, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6),
    }
    print(json.dumps(measured))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="step rows to generate (default 1,000,000)")
    parser.add_argument("--jsonl", action="store_true", help="as JSON Lines instead of Parquet")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-report-") as name:
        generate(Path(name), arguments.steps, "jsonl" if arguments.jsonl else "parquet")
        # A process of its own, so that generating does not count.
        command = [sys.executable, "-m", "benchmarks.cycle_times", "--measure", name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
    measured = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{measured['steps']:,} step rows, {measured['open']:,} open: {measured['seconds']} s, "
        f"{measured['processor_seconds']} s of processor time, {measured['megabytes']} MB at most "
        f"(limits: {MAX_SECONDS} s, {MAX_MEGABYTES} MB)"
    )
    return int(measured["seconds"] > MAX_SECONDS or measured["megabytes"] > MAX_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())
