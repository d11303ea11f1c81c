"""
Run an example DAG of each API on a real Airflow while the emulator plays the people, and check what was done.

``make demo`` runs it; ``make demo-ui`` then opens waits for the Approvals page and leaves both running. Exit code 0
if every action happened exactly once, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_provider_workflows.emulator import Emulator
from tests.support.live_airflow import LiveAirflow
from tests.support.open_waits import BUNDLES, open_waits, start_workflows
from tests.support.people import DAGS, People, check_effects, describe

EXAMPLES = Path(__file__).parents[2] / "example_dags"
SETTINGS = {
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
    "AIRFLOW__WORKFLOWS__POKE_INTERVAL": "2",
}
UI_SETTINGS = {
    "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": BUNDLES,
    "AIRFLOW__WORKFLOWS__APPROVALS_PAGE_READS": "True",
}
THINKING = 8.0  # seconds that the people take: longer than a DAG needs until it waits


@contextlib.contextmanager
def emulator_process(module: str = "airflow_provider_workflows.emulator") -> Iterator[Emulator]:
    """Run the emulator as a user would, in a process of its own."""
    command = [sys.executable, "-m", module]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "ready: " not in line:
            raise RuntimeError(f"the emulator did not start: {line!r}")
        yield Emulator.attach(line.rpartition(" ")[2].strip())
    finally:
        process.terminate()
        process.wait(10)


def run_examples(airflow: LiveAirflow) -> dict[str, str]:
    """Run the three DAGs at the same time; return the run id of each."""
    runs = {dag_id: airflow.trigger(dag_id) for dag_id in DAGS.values()}
    for dag_id, run_id in runs.items():
        airflow.wait(dag_id, run_id)
    return runs


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--ui", action="store_true", help="leave Airflow and the emulator running until Ctrl-C")
    stay = parser.parse_args(arguments).ui
    # A job that is cancelled must end like Ctrl-C, or the processes stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    start_time = time.monotonic()
    module = "tests.support.past_emulator" if stay else "airflow_provider_workflows.emulator"
    with emulator_process(module) as emulator:
        print_line(f"Emulator of Procore and Workflowsoft: {emulator.url}")
        connections = emulator.control("GET", "connections")
        if stay:  # the page links to items
            connections["procore_default"]["extra"]["item_url"] = f"{emulator.url}/?item={{item_id}}"
        settings = {**SETTINGS, **UI_SETTINGS} if stay else SETTINGS
        with LiveAirflow(EXAMPLES, connections, settings) as airflow:
            print_line(f"Airflow: {airflow.url} (ready after {time.monotonic() - start_time:.0f} s)")
            with People(emulator, thinking=THINKING):
                runs = run_examples(airflow)
            failed = [dag_id for dag_id, run_id in runs.items() if not report(airflow, dag_id, run_id)]
            problems = [f"{dag_id} did not succeed" for dag_id in failed] + check_effects(emulator)
            report_effects(emulator)
            print_line("\nEvery action happened exactly once." if not problems else "\nWrong: " + "; ".join(problems))
            print_line(f"{time.monotonic() - start_time:.0f} s in all.")
            if stay:
                open_waits(airflow, start_workflows(emulator))
                print_line(f"\nOpen approvals: {airflow.url}/plugin/workflows-approvals")
                print_line(f"\nAirflow: {airflow.url}\nEmulator: {emulator.url}\nCtrl-C ends both.")
                with contextlib.suppress(KeyboardInterrupt):
                    while True:
                        time.sleep(3600)
    return 1 if problems else 0


def report(airflow: LiveAirflow, dag_id: str, run_id: str) -> bool:
    """Print one line for each task; return whether all went well."""
    print_line(f"\n{dag_id}")
    tasks = airflow.task_instances(dag_id, run_id)
    for task in tasks:
        seconds = "" if task["duration"] is None else f"{task['duration']:5.1f} s"
        xcom = airflow.xcom(dag_id, run_id, task["task_id"], map_index=task["map_index"])
        what = happened(xcom) if task["state"] == "success" else ""
        print_line(f"  {task['task_id']:<24} {task['state']!s:<8} {seconds:>8}  {what}")
        if task["state"] == "failed":
            print_line(airflow.log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])[-3000:])
    return all(task["state"] in ("success", "skipped") for task in tasks)


def happened(xcom: Any) -> str:
    """Describe in a line what a task returned."""
    if isinstance(xcom, list):
        return f"{len(xcom)} found"
    if not isinstance(xcom, dict):
        return "" if xcom is None else str(xcom)
    names = (
        "step",
        "option",
        "activity",
        "state",
        "item_status",
        "status",
        "integration_instance_id",
        "written",
    )
    named = [f"{name}={xcom[name]}" for name in names if xcom.get(name)]
    return ", ".join(named or [f"{name}={value}" for name, value in xcom.items()])[:100]


def report_effects(emulator: Emulator) -> None:
    """Print the emulator's own record of what was changed."""
    print_line("\nThe emulator's record of effects")
    for effect in emulator.effects():
        who = f"{effect['by']} ({effect['via']})"
        print_line(f"  {effect['n']:>2} {effect['product']:<15} {effect['action']:<17} {who:<16} {describe(effect)}")


def print_line(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
