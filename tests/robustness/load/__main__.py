"""
Run two hundred tasks on a real Airflow, in a pool of the size that the documents say, under Procore's rate limit.

``make load`` runs it. It prints a table; exit code 0 if every task did its one action, none came back before the time
that the server had named to it, and from the first request to the last it took at most 1.3 times as long as the limit
makes it take, else 1. The whole run takes longer, by what Airflow needs to start the first tasks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.robustness.load import work
from tests.support.engines import postgresql
from tests.support.live_airflow import LiveAirflow

DAGS = Path(__file__).parent / "dags"
OTHERS = 2  # tasks at once beside those of the pool


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--pool", type=int, default=work.POOL_SIZE, help="slots of the pool; default %(default)s")
    slots = parser.parse_args(arguments).pool
    # A job that is cancelled must end like Ctrl-C, or the processes stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder, work.RecordedEmulator() as emulator, postgresql() as database:
        todo = work.prepare(emulator)
        file = Path(folder) / "work.json"
        file.write_text(json.dumps(todo))
        settings = {
            "LOAD_WORK": str(file),
            "AIRFLOW__CORE__PARALLELISM": str(slots + OTHERS),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(slots + OTHERS),
        }
        with LiveAirflow(DAGS, work.connections(emulator, todo), settings, database=database) as airflow:
            set_pool(airflow, slots)
            airflow.unpause("load")
            start_time = time.monotonic()
            run_id = airflow.trigger("load")
            with contextlib.suppress(TimeoutError):  # the report below says what is missing
                airflow.wait("load", run_id)
            state = airflow.runs("load")[run_id]
            seconds = time.monotonic() - start_time
            if state != "success":
                print(airflow.tail("scheduler"))
        rows = {"slots": slots, **work.report(todo, emulator.record), "the whole run": f"{seconds:.0f} s"}
        print("\n".join(f"{name:<28} {value:>8}" for name, value in rows.items()), flush=True)
        broken = ([] if state == "success" else [f"the run is {state}"]) + work.problems(emulator)
    print("\nEvery action happened once, within the limit." if not broken else "\nWrong: " + "; ".join(broken))
    return 1 if broken else 0


def set_pool(airflow: LiveAirflow, slots: int) -> None:
    command = [sys.executable, "-m", "airflow", "pools", "set", "procore", str(slots), "What Procore's limit allows"]
    subprocess.run(command, env=airflow.environment, check=True, capture_output=True)


if __name__ == "__main__":
    sys.exit(main())
