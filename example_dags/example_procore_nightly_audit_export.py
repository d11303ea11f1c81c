"""
Export every night who decided what, and when, in both Procore workflow APIs.

The DAG writes the histories that changed since its last success as tables, checks that no history is missing, and
reports how long the steps took. Each night has a folder of its own; a new run of the same night overwrites it.
"""

from __future__ import annotations

import json
from statistics import median

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_workflows.operators.procore import ProcoreHistoryToObjectStorageOperator
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyHistoryToObjectStorageOperator

FOLDER = "{{ params.root }}/{{ dag_run.run_after.strftime('%Y-%m-%d') }}"
# The start of the last successful run, so the next run catches up after a failed night; minus an hour, because a change
# can show late, and Airflow's clock can be ahead of Procore's. With Airflow's default timetable the data interval of
# "@daily" is empty and would leave out the day.
SINCE = "{{ prev_start_date_success - macros.timedelta(hours=1) if prev_start_date_success else params.first_since }}"


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "root": Param("file:///tmp/procore-audit", type="string", description="Folder for the files"),
        "first_since": Param(
            "2026-01-01T00:00:00Z", type="string", description="Start of the first run's period, a time with its zone"
        ),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_nightly_audit_export():
    # [START howto_operator_procore_history_to_object_storage]
    histories = ProcoreHistoryToObjectStorageOperator(
        task_id="export_histories",
        tool_type=["purchase_order_contract"],
        changed_since=SINCE,
        path=FOLDER,
        file_format="jsonl",
        retries=2,
    )
    # [END howto_operator_procore_history_to_object_storage]

    # [START howto_operator_procore_legacy_history_to_object_storage]
    legacy = ProcoreLegacyHistoryToObjectStorageOperator(
        task_id="export_legacy_histories",
        changed_since=SINCE,
        path=FOLDER + "/legacy",
        file_format="jsonl",
        retries=2,
    )
    # [END howto_operator_procore_legacy_history_to_object_storage]

    @task
    def check_complete(*exports: dict) -> None:
        """Fail if a history is missing: an audit trail must be complete."""
        missing = [entry for export in exports for entry in export["forbidden"] + export["failed"]]
        if missing:
            raise ValueError(f"{len(missing)} could not be exported, the first of them: {missing[0]}")

    @task
    def measure_steps(export: dict) -> dict[str, float]:
        """Return the median hours of each step that has ended; a real DAG would load the tables and use SQL."""
        hours: dict[str, list[float]] = {}
        with ObjectStoragePath(export["paths"]["steps"]).open() as lines:
            for step in map(json.loads, lines.readlines()):
                if step["event_type"] == "ResponseStep" and step["duration_seconds"] is not None:
                    hours.setdefault(step["name"], []).append(step["duration_seconds"] / 3600)
        return {name: round(median(values), 2) for name, values in hours.items()}

    @task
    def report(histories: dict, legacy: dict, hours: dict[str, float]) -> None:
        print(f"{histories['instances']} instances with {histories['responses']} responses were exported,")
        print(f"and {legacy['instances']} legacy instances with {legacy['activities']} activities.")
        for name, median_hours in sorted(hours.items(), key=lambda step: -step[1]):
            print(f"{name}: {median_hours} h")

    checked = check_complete(histories.output, legacy.output)
    hours = measure_steps(histories.output)
    checked >> hours
    report(histories.output, legacy.output, hours)


example_procore_nightly_audit_export()
