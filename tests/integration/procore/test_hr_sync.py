"""The example that keeps presets in step with HR: what the reviewers approve is applied, and nothing else."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from tests.support import examples
from tests.unit.operators.procore.test_preset_assignees import groups_of, writes

EXAMPLE = "example_procore_hr_sync"

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


@contextlib.contextmanager
def reviewer(emulator, option: str) -> Iterator[None]:
    """Let Rita respond to the review that waits for her alone."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.1):
            for instance in emulator.control("GET", "state")["procore"]:
                if instance["waits_for"] == ["rita@example.com"]:
                    where = f"procore/instances/{instance['id']}/respond"
                    emulator.control("POST", where, login="rita@example.com", option=option)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    leave.set()
    thread.join()


def states(run) -> dict[str, str]:
    return {task.task_id: str(task.state) for task in run.get_task_instances()}


@examples.once_and_in_full(deferrable=("True", "False"))
def test_approved_plan_is_applied_once(emulator, monkeypatch, deferrable, again):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)

    with reviewer(emulator, "Approve"):
        first = examples.run(EXAMPLE)
        second = examples.run(EXAMPLE) if again else None

    assert set(states(first).values()) == {"success"}
    assert writes(emulator) == ["401", "402"]
    assert groups_of(emulator, "401")["Directors"] == ["dana@example.com", "lee@example.com"]
    comments = [e["detail"]["comment"] for e in emulator.effects() if e["action"] == "respond" and e["via"] == "api"]
    assert comments == [
        "preset 401, Directors: add lee@example.com, remove no one; "
        "preset 402, Directors: add lee@example.com, remove no one"
    ]
    assert [e["action"] for e in emulator.effects()].count("start") == 1
    if again:
        assert states(second)["ask_the_reviewers"] == states(second)["apply"] == "skipped"


@pytest.mark.slow
def test_rejected_plan_changes_nothing(emulator):
    with reviewer(emulator, "Reject"):
        run = examples.run(EXAMPLE)

    assert states(run)["wait_for_the_reviewers"] == "success"
    assert states(run)["apply"] == states(run)["report"] == "skipped"
    assert writes(emulator) == []
