"""
Run Airflow as a platform team would, with Celery, PostgreSQL, two workers and two triggerers, and kill its processes.

``python -m tests.live.distributed`` runs the three example DAGs, stops a triggerer and lets it come back, then runs 500
waits, while workers, triggerers and the scheduler are killed. Exit code 0 if every action happened once, the triggerer
that came back terminated nothing, every wait ended with what was decided, and every event came, each time with the same
id; else 1.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from airflow_provider_workflows.emulator import Emulator
from tests.live.demo import EXAMPLES, THINKING, emulator_process, print_line
from tests.live.kills import Killer, Outcome, outcome_of_waits, report
from tests.live.takeover import stop_a_triggerer, waits_by_triggerer
from tests.support import crowd as crowds
from tests.support.crowd import EVENTS, WAITS, Crowd, connections_to, emitted_events
from tests.support.engines import postgresql, redis
from tests.support.live_airflow import COMPONENTS, LiveAirflow
from tests.support.people import DAGS, People, check_effects

TRIGGERERS = ("triggerer", "triggerer-2")
WORKERS = ("worker", "worker-2")
PROCESSES = {
    **{name: arguments for name, arguments in COMPONENTS.items() if name != "triggerer"},
    # Their logs are in one folder here, so no log server is needed.
    **{name: ["triggerer", "--skip-serve-logs"] for name in TRIGGERERS},
    **{name: ["celery", "worker", "--skip-serve-logs", "--celery-hostname", f"{name}@%h"] for name in WORKERS},
}
SETTINGS = {
    **crowds.SETTINGS,
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tests.support.live_airflow.name_of_this_process",
    "AIRFLOW__CORE__PARALLELISM": "32",
    # A task whose worker is killed fails, unless it may be tried again.
    "AIRFLOW__CORE__DEFAULT_TASK_RETRIES": "3",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "6",
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
    "AIRFLOW__WORKFLOWS__POKE_INTERVAL": "5",
    "AIRFLOW__WORKFLOWS__TRIGGERER_COUNT": "2",
    # What a worker had taken off the queue when it was killed is queued again.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
}
MAX_SECONDS = 1200.0  # seconds that one step may take
STOPPED_WAITS = 8  # tasks with cancel_on_kill that wait while a triggerer is stopped
QUIET = 30.0  # seconds in which it is measured what waiting costs


def run(waits: int, kills: int, seed: int) -> Outcome:
    """Run the flows, then the waits."""
    chance = random.Random(seed)
    start_time = time.monotonic()
    with (
        postgresql() as database,
        redis() as broker,
        emulator_process() as emulator,
        tempfile.TemporaryDirectory(prefix="live-dags-") as folder,
    ):
        for dag_id in DAGS.values():
            shutil.copy(EXAMPLES / f"{dag_id}.py", folder)
        engines = {
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{database}",
            "AIRFLOW__CELERY__BROKER_URL": broker,
        }
        connections = connections_to(emulator)
        with LiveAirflow(Path(folder), connections, {**SETTINGS, **engines}, PROCESSES, database) as airflow:
            airflow.until("both triggerers run", lambda: all(lives(airflow, name) for name in TRIGGERERS), MAX_SECONDS)
            print_line(f"Ready after {time.monotonic() - start_time:.0f} s: {', '.join(PROCESSES)}")
            killer = Killer(airflow, chance)
            wrong = run_flows(airflow, emulator, killer)
            print_line(f"The three flows: {'; '.join(wrong) or 'each action happened once'}")
            stopped = stop_a_triggerer(
                airflow,
                emulator,
                Path(folder),
                waits=STOPPED_WAITS,
                seconds=MAX_SECONDS,
                connection="procore_default",
            )
            print_line(f"A triggerer was stopped: {'; '.join(stopped.wrong) or 'nothing was terminated but by a kill'}")
            outcome = run_waits(airflow, Crowd(emulator, waits, chance), Path(folder), kills, killer)
            outcome.wrong += wrong + stopped.wrong
            outcome.figures |= stopped.figures
            outcome.figures["kills"] = killer.summary
    outcome.figures["seconds in all"] = round(time.monotonic() - start_time)
    return outcome


def run_flows(airflow: LiveAirflow, emulator: Emulator, killer: Killer) -> list[str]:
    """Run the examples while a worker and a triggerer are killed; return what is wrong with what they did."""
    with People(emulator, thinking=THINKING):
        runs = {dag_id: airflow.trigger(dag_id) for dag_id in DAGS.values()}
        for victim in (WORKERS[0], TRIGGERERS[0]):
            killer.strike(victim, meanwhile=lambda: None)
        states = {dag_id: airflow.wait(dag_id, run_id, MAX_SECONDS) for dag_id, run_id in runs.items()}
    failed = [f"{dag_id} is {state}" for dag_id, state in states.items() if state != "success"]
    return failed + check_effects(emulator)


def run_waits(airflow: LiveAirflow, crowd: Crowd, folder: Path, kills: int, killer: Killer) -> Outcome:
    """Let everybody of a crowd wait while processes are killed and people decide; return the outcome."""
    waits = len(crowd.undecided)
    acted = count_actions(crowd.emulator)
    crowd.write_dags(folder)
    airflow.unpause(EVENTS)
    run_id = airflow.trigger(WAITS)
    start_time = time.monotonic()

    def waiting() -> int:
        return airflow.count(WAITS, run_id, "deferred")

    airflow.until("a quarter is deferred", lambda: waiting() >= waits // 4, MAX_SECONDS, interval=2.0)
    killer.strike(WORKERS[1], meanwhile=lambda: None)
    airflow.until("all are deferred", lambda: waiting() == waits, MAX_SECONDS, interval=2.0)
    figures: dict[str, object] = {"seconds until all were deferred": round(time.monotonic() - start_time)}
    airflow.until("the watcher emits an event", lambda: emitted_events(airflow), MAX_SECONDS)
    taken_by = waits_by_triggerer(airflow, WAITS, run_id)
    figures |= {name: f"{sum(taken_by[life] for life in lives(airflow, name))} waits" for name in TRIGGERERS}
    figures |= cost_of_waiting(airflow, crowd.emulator)
    print_line("\n".join(f"{name}: {figure}" for name, figure in figures.items()))
    taken_over: list[float] = []
    at_once = waits // (2 * kills + 1)
    for number in range(kills):
        crowd.work(at_once)
        victim = TRIGGERERS[number % len(TRIGGERERS)]
        taken_over.append(kill_and_see(airflow, crowd, at_once, run_id, killer, victim))
        if number == kills // 2:
            killer.strike("scheduler", meanwhile=lambda: crowd.work(0))
    crowd.work(len(crowd.undecided))
    outcome = outcome_of_waits(airflow, crowd, run_id, MAX_SECONDS)
    outcome.figures |= figures
    outcome.figures["seconds until another triggerer had all"] = ", ".join(f"{seconds:.0f}" for seconds in taken_over)
    if count_actions(crowd.emulator) != acted:
        outcome.wrong.append("something acted while all were waiting")
    return outcome


def kill_and_see(airflow: LiveAirflow, crowd: Crowd, decisions: int, run_id: str, killer: Killer, victim: str) -> float:
    """Kill a triggerer, let people go on, start it again when the other has its waits; return after how long."""
    time.sleep(killer.chance.uniform(0.0, 6.0))
    dead = lives(airflow, victim)
    killer.kill(victim)
    start_time = time.monotonic()
    crowd.work(decisions)
    airflow.until(
        f"the other takes over from {victim}",
        lambda: not dead & set(waits_by_triggerer(airflow, WAITS, run_id)),
        MAX_SECONDS,
        1.0,
    )
    seconds = time.monotonic() - start_time
    print_line(f"{victim} was killed; the other had all after {seconds:.0f} s.")
    airflow.start(victim)
    airflow.until(f"{victim} is back", lambda: lives(airflow, victim) > dead, MAX_SECONDS, 1.0)
    return seconds


def lives(airflow: LiveAirflow, triggerer: str) -> set[int]:
    """Return the numbers that Airflow gave a triggerer, one for each time that it was started."""
    jobs = airflow.all_rows("jobs", "jobs", job_type="TriggererJob", hostname=triggerer)
    return {job["id"] for job in jobs}


def count_actions(emulator: Emulator) -> int:
    """Return how often a DAG has changed something."""
    return sum(effect["via"] == "api" for effect in emulator.effects())


def cost_of_waiting(airflow: LiveAirflow, emulator: Emulator) -> dict[str, object]:
    """Measure for a while what waiting costs while no one decides."""
    served = emulator.control("GET", "counts")["served"]
    spent = {name: airflow.usage(name)[0] for name in TRIGGERERS}
    time.sleep(QUIET)
    found: dict[str, object] = {
        "requests a minute": round((emulator.control("GET", "counts")["served"] - served) * 60 / QUIET)
    }
    for name in TRIGGERERS:
        seconds, megabytes = airflow.usage(name)
        found[f"{name}, while all wait"] = f"{(seconds - spent[name]) / QUIET:.2f} of a core, {megabytes:.0f} MB"
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.live.distributed", description=__doc__)
    parser.add_argument("--waits", type=int, default=500)
    parser.add_argument(
        "--kills", type=int, default=4, help="of triggerers; a worker is killed twice, the scheduler once"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides who decides what, and when a kill comes")
    options = parser.parse_args(arguments)
    # A job that is cancelled must end like Ctrl-C, or the processes stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return report(run(options.waits, options.kills, options.seed))


if __name__ == "__main__":
    sys.exit(main())
