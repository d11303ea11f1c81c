"""
Stop a triggerer until another one has taken its waits over, and let it come back: no instance may be terminated.

Airflow 3.3.0 to 3.3.2 call ``on_kill()`` of each trigger that was taken over. ``make distributed`` does it with tasks
that terminate their instances when they are killed, and kills one of them at the end.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

from airflow_provider_workflows.emulator import Emulator
from tests.live.kills import Outcome
from tests.support.live_airflow import LiveAirflow

DAG, TASK = "cancelled_on_kill", "start"
FIRST_ITEM = 880_000
# Two loops of a triggerer, and what Airflow gives on_kill(): what comes later, comes from something else.
SECONDS_TO_TERMINATE = 35.0
LEFT_ALONE = "Not terminating instance"  # in the log of a task whose on_kill() ran


def stop_a_triggerer(
    airflow: LiveAirflow, emulator: Emulator, folder: Path, *, waits: int, seconds: float, connection: str
) -> Outcome:
    """
    Let tasks wait, stop the triggerer that has most of them, resume it after a takeover, and kill one task at last.

    :param airflow: With two triggerers or more, each named by ``[core] hostname_callable``.
    :param folder: Its DAGs folder.
    :param waits: How many tasks wait.
    :param seconds: How long each step may take.
    :param connection: Id of the Airflow connection to the emulator.
    """
    content = {"connection": connection, "items": [str(FIRST_ITEM + number) for number in range(waits)]}
    (folder / f"{DAG}.json").write_text(json.dumps(content))
    shutil.copy(Path(__file__).parent / "dags" / f"{DAG}.py", folder)
    run_id = airflow.trigger(DAG)
    airflow.until(
        "all wait", lambda: sum(waits_by_triggerer(airflow, DAG, run_id).values()) == waits, seconds, interval=2.0
    )

    job, taken = waits_by_triggerer(airflow, DAG, run_id).most_common(1)[0]
    victim = triggerers(airflow)[job]
    airflow.suspend(victim)
    stopped = time.monotonic()
    airflow.until(
        f"the other takes over from {victim}", lambda: job not in waits_by_triggerer(airflow, DAG, run_id), seconds, 1.0
    )
    silent = time.monotonic() - stopped
    airflow.resume(victim)
    time.sleep(SECONDS_TO_TERMINATE)  # nothing may happen, so there is nothing to wait for
    airflow.check_processes()

    wrong = [f"instance {instance_id} was terminated by a takeover" for instance_id in terminated(emulator)]
    waiting = airflow.count(DAG, run_id, "deferred")
    if waiting != waits:
        wrong.append(f"{waiting} of {waits} tasks wait after a triggerer came back")
    left_alone = [LEFT_ALONE in airflow.log(DAG, run_id, TASK, map_index=number) for number in range(waits)]
    return Outcome(
        wrong=wrong + kill_triggerer(airflow, emulator, run_id, seconds),
        figures={
            "waits of the triggerer that was stopped": f"{taken} of {waits}",
            "seconds until another had them all": round(silent),
            "waits whose on_kill() ran after a takeover": sum(left_alone),
        },
    )


def kill_triggerer(airflow: LiveAirflow, emulator: Emulator, run_id: str, seconds: float) -> list[str]:
    """Mark one task failed and let people end the other instances; return what is wrong with the outcome."""
    before = set(terminated(emulator))
    airflow.mark_failed(DAG, run_id, TASK, map_index=0)
    airflow.until("the kill terminates an instance", lambda: set(terminated(emulator)) - before, seconds)
    running = [instance["id"] for instance in instances(emulator) if instance["state"] == "in_progress"]
    emulator.control(
        "POST", "procore/instances/respond-many", ids=running, login="integration@example.com", option="Reject"
    )
    airflow.wait(DAG, run_id, seconds)
    states = {
        task_instance["map_index"]: task_instance["state"] for task_instance in airflow.task_instances(DAG, run_id)
    }
    killed = [instance_id for instance_id in terminated(emulator) if instance_id not in before]
    return [
        *([] if len(killed) == 1 else [f"{len(killed)} instances were terminated by one kill"]),
        *(
            f"{TASK} {number} is {state}"
            for number, state in states.items()
            if state != ("success" if number else "failed")
        ),
    ]


def waits_by_triggerer(airflow: LiveAirflow, dag_id: str, run_id: str) -> Counter[int]:
    """Return how many waits run in each triggerer, by the number of its life."""
    triggers = [task["trigger"] for task in airflow.task_instances(dag_id, run_id) if task["state"] == "deferred"]
    # One that has just fired may be gone already, and one that is not assigned yet has no triggerer.
    return Counter(
        trigger["triggerer_id"] for trigger in triggers if trigger is not None and trigger["triggerer_id"] is not None
    )


def triggerers(airflow: LiveAirflow) -> dict[int, str]:
    """Return the name of each triggerer by the numbers that Airflow gave it, one for each time it was started."""
    return {job["id"]: job["hostname"] for job in airflow.all_rows("jobs", "jobs", job_type="TriggererJob")}


def instances(emulator: Emulator) -> list[dict[str, Any]]:
    """Return the instances that the tasks have started."""
    state = emulator.control("GET", "state")["procore"]
    return [
        instance
        for instance in state
        if instance["item_id"].isdecimal() and 0 <= int(instance["item_id"]) - FIRST_ITEM < 10_000
    ]


def terminated(emulator: Emulator) -> list[str]:
    """Return the instance of each termination that came through the API."""
    effects = [effect for effect in emulator.effects() if effect["action"] == "terminate" and effect["via"] == "api"]
    return [effect["target"]["instance_id"] for effect in effects]
