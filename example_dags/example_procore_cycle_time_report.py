"""
Report every night where approvals get stuck: which step takes the time, with whom, and what is open since when.

The DAG exports the histories that changed since its last success, and makes one page and tables of all nights together.
Open the page in a browser, or load the tables.
"""

from __future__ import annotations

import csv

import pendulum
from airflow.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_workflows.operators.procore import (
    ProcoreCycleTimeReportOperator,
    ProcoreHistoryToObjectStorageOperator,
)
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyHistoryToObjectStorageOperator

ROOT = "{{ params.root }}"
# A folder for each run, in the order of time: a run exports changes only, so it must not replace those of another run.
NIGHT = ROOT + "/history/{{ dag_run.run_after.strftime('%Y-%m-%dT%H%M%S') }}"
# The start of the last successful run minus an hour, as in the nightly audit export.
SINCE = "{{ prev_start_date_success - macros.timedelta(hours=1) if prev_start_date_success else params.first_since }}"


@dag(
    schedule="@daily",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    params={
        "root": Param("file:///tmp/procore-cycle-times", type="string", description="Folder for all files"),
        "first_since": Param(
            "2026-01-01T00:00:00Z", type="string", description="Start of the first run's period, a time with its zone"
        ),
    },
    tags=["example", "procore"],
    doc_md=__doc__,
)
def example_procore_cycle_time_report():
    histories = ProcoreHistoryToObjectStorageOperator(
        task_id="export_histories",
        tool_type=["purchase_order_contract"],
        changed_since=SINCE,
        path=NIGHT,
        file_format="jsonl",
        retries=2,
    )

    legacy = ProcoreLegacyHistoryToObjectStorageOperator(
        task_id="export_legacy_histories",
        changed_since=SINCE,
        path=NIGHT + "/legacy",
        file_format="jsonl",
        retries=2,
    )

    # [START howto_operator_procore_cycle_time_report]
    report = ProcoreCycleTimeReportOperator(
        task_id="report_cycle_times",
        history_path=ROOT + "/history",
        output_path=ROOT + "/report.html",
        tables_path=ROOT + "/tables",
        tables_format="csv",
        time_zone="Europe/Berlin",
        country="DE-BY",
        working_days="Mon-Fri",
        working_hours="08:00-12:00,13:00-17:00",
    )
    # [END howto_operator_procore_cycle_time_report]

    @task
    def find_slowest_steps(tables: dict[str, str]) -> list[str]:
        """Return the three steps that take the largest share of the waiting time."""
        with ObjectStoragePath(tables["step_summary"]).open(newline="") as lines:
            steps = list(csv.DictReader(lines.readlines()))[:3]  # the table is in that order
        return [f"{step['template']}: {step['step']}, {float(step['share_of_total'] or 0):.0%}" for step in steps]

    @task
    def announce(report: dict, slowest: list[str]) -> None:
        """Print the news; a real DAG would send them to the people who can help."""
        print(f"{report['open_steps']} steps are open. The page: {report['page']}")
        print("Most of the waiting time is here:", *slowest, sep="\n- ")

    [histories, legacy] >> report
    announce(report.output, find_slowest_steps(report.output["tables"]))


example_procore_cycle_time_report()
