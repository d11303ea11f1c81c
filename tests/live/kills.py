"""
Kill the triggerer five times, and the scheduler once, while a hundred tasks wait, and check that nothing is lost.

``python -m tests.live.kills`` does it; ``--waits`` and ``--kills`` make it smaller. Exit code 0 if every wait ended
with what was decided, and every event came, each time with the same id; else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.demo import emulator_process, print_line
from tests.support.crowd import EVENTS, SETTINGS, WAITS, Crowd, connections_to, emitted_events
from tests.support.engines import postgresql
from tests.support.live_airflow import MAX_WAIT_SECONDS, LiveAirflow

QUICK = {
    "AIRFLOW__CORE__PARALLELISM": "8",
    # How long a triggerer waits before it takes over from one that is dead.
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "4",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
}
NEARLY_ALL = 0.9  # of the waits are deferred when the first kill comes


@dataclass
class Outcome:
    """
    The outcome of a run with kills.

    :param wrong: What is wrong; nothing, if all is well.
    :param figures: What was measured, by its name.
    """

    wrong: list[str] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)


def run(waits: int, kills: int, seed: int) -> Outcome:
    """Run an Airflow deployment with this number of waits and kills."""
    chance = random.Random(seed)
    start_time = time.monotonic()
    with (
        postgresql() as database,
        emulator_process() as emulator,
        tempfile.TemporaryDirectory(prefix="live-dags-") as folder,
    ):
        crowd = Crowd(emulator, waits, chance)
        crowd.write_dags(Path(folder))
        settings, connections = {**SETTINGS, **QUICK}, connections_to(emulator)
        with LiveAirflow(Path(folder), connections, settings, database=database) as airflow:
            outcome = let_people_work(airflow, crowd, kills, Killer(airflow, chance))
    outcome.figures["seconds in all"] = round(time.monotonic() - start_time)
    return outcome


class Killer:
    """
    Kills Airflow's processes at moments that chance decides, while people go on working.

    :param airflow: Whose processes.
    :param chance: Decides when.
    """

    def __init__(self, airflow: LiveAirflow, chance: random.Random):
        self.airflow = airflow
        self.chance = chance
        self.killed: list[str] = []

    def kill(self, component: str) -> None:
        self.airflow.kill(component)
        self.killed.append(component)

    @property
    def summary(self) -> str:
        """Describe which processes were killed how often."""
        return listed(Counter(self.killed))

    def strike(self, component: str, meanwhile: Callable[[], None]) -> None:
        """Kill a process a little later, do something while it is away, and start it again a little later."""
        time.sleep(self.chance.uniform(0.0, 3.0))
        self.kill(component)
        meanwhile()
        time.sleep(self.chance.uniform(0.0, 1.0))
        self.airflow.start(component)


def let_people_work(airflow: LiveAirflow, crowd: Crowd, kills: int, killer: Killer) -> Outcome:
    """Let people decide before, during and after each kill; return the outcome."""
    waits = len(crowd.undecided)
    airflow.unpause(EVENTS)
    run_id = airflow.trigger(WAITS)
    start_time = time.monotonic()

    def waiting() -> int:
        return airflow.count(WAITS, run_id, "deferred")

    airflow.until("nearly all tasks are deferred", lambda: waiting() >= NEARLY_ALL * waits, interval=1.0)
    deferred_after = time.monotonic() - start_time
    airflow.until("the watcher emits an event", lambda: emitted_events(airflow))
    at_once = waits // (2 * kills + 1)
    for number in range(kills):
        crowd.work(at_once)
        killer.strike("triggerer", meanwhile=lambda: crowd.work(at_once))
        if number == kills // 2:
            killer.strike("scheduler", meanwhile=lambda: crowd.work(0))
        if number % 2:  # the next kill strikes a triggerer that has started to work, else one that starts
            airflow.until("a triggerer takes over", lambda: waiting() <= len(crowd.undecided), interval=1.0)
    crowd.work(len(crowd.undecided))
    outcome = outcome_of_waits(airflow, crowd, run_id)
    outcome.figures |= {"seconds until they were deferred": round(deferred_after), "kills": killer.summary}
    return outcome


def outcome_of_waits(airflow: LiveAirflow, crowd: Crowd, run_id: str, seconds: float = MAX_WAIT_SECONDS) -> Outcome:
    """Wait until all waits have ended and each order is in an event, and compare with what people did."""
    with contextlib.suppress(TimeoutError):  # what is missing is found below
        airflow.wait(WAITS, run_id, seconds)
        airflow.until("each order is in an event", lambda: not crowd.wrong_events(emitted_events(airflow)))
    state = airflow.runs(WAITS)[run_id]
    events = emitted_events(airflow)
    tasks = airflow.task_instances(WAITS, run_id)
    outcomes = airflow.xcom(WAITS, run_id, "outcomes")
    waits, orders = sum(map(len, crowd.waits.values())), crowd.orders
    return Outcome(
        wrong=[
            *([] if state == "success" else [f"the run is {state}"]),
            *(
                f"{task['task_id']} {task['map_index']} is {task['state']}"
                for task in tasks
                if task["state"] != "success"
            ),
            *filter(None, [airflow.failures(WAITS, run_id)]),
            *crowd.wrong_waits(outcomes),
            *crowd.wrong_events(events),
        ],
        figures={
            "waits that ended as decided": f"{waits - len(crowd.wrong_waits(outcomes))} of {waits}",
            "outcomes": listed(Counter(kind_of(outcome) for outcome in crowd.decided.values())),
            "tasks that were tried again": sum(task["try_number"] > 1 for task in tasks),
            "orders that are in events": f"{len(orders & {row['instance_id'] for row in events})} of {len(orders)}",
            "events that were re-delivered": len(events) - len({row["event_id"] for row in events}),
        },
    )


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def kind_of(outcome: str) -> str:
    """Return an outcome, or what it is where each wait has another one."""
    return "an instance of its own" if outcome.isdecimal() else outcome


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.live.kills", description=__doc__)
    parser.add_argument("--waits", type=int, default=100)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1, help="decides who decides what, and when a kill comes")
    options = parser.parse_args(arguments)
    # A job that is cancelled must end like Ctrl-C, or the processes stay.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    return report(run(options.waits, options.kills, options.seed))


def report(outcome: Outcome) -> int:
    """Print the outcome of a run; return its exit code."""
    for name, figure in outcome.figures.items():
        print_line(f"{name:<40} {figure}")
    print_line("\nNothing was lost." if not outcome.wrong else "\nWrong:\n" + "\n".join(outcome.wrong))
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
