"""The examples that work on many instances: each writes once to each, and a second run writes nothing."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.examples import EITHER_MODE, once_and_in_full, result, run, states

TOOL = "purchase_order_contract"
DAY = 24 * 3600.0

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


@pytest.fixture
def _mode(deferrable, monkeypatch):
    """Both settings must give the same."""
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", deferrable)


def effects(emulator, action: str) -> list[tuple[str, object]]:
    """Return what the integration did: items and what was done to them, in a fixed order."""
    did = {"respond": "option", "add_assignees": "assignee_ids", "refresh": "lifted"}[action]
    own = [e for e in emulator.effects() if e["action"] == action and e["by"] == "90001" and e["via"] == "api"]
    return sorted((effect["target"]["item_id"], effect["detail"][did]) for effect in own)


def start(emulator, item_id: str, tool_type: str = TOOL) -> str:
    return emulator.control("POST", "procore/instances", tool_type=tool_type, item_id=item_id)["id"]


def respond(emulator, instance_id: str, login: str, option: str) -> None:
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option=option)


# --- fan-out ---


@pytest.mark.usefixtures("_mode")
@once_and_in_full(deferrable=("True", "False"))
def test_fan_out_responds_to_each_order_once(emulator, again):
    for number in range(5002, 5007):
        start(emulator, str(number))
    dana = start(emulator, "5007")
    respond(emulator, dana, "integration@example.com", "Approve")  # as the user, so it waits for Dana now

    first = run("example_procore_fan_out", over_budget=["5003"])

    expected = [(str(n), "Return" if n == 5003 else "Approve") for n in range(5001, 5007)]
    assert effects(emulator, "respond") == expected
    assert states(first)["respond"] == ["success"] * 6
    assert result(first, "sum_up") == {"Approve": 5, "Return": 1}

    if not again:
        return
    second = run("example_procore_fan_out", over_budget=["5003"])

    assert second.state == "success"
    assert effects(emulator, "respond") == expected


@pytest.mark.slow
def test_fan_out_succeeds_when_nothing_waits(emulator):
    respond(emulator, "700001", "integration@example.com", "Approve")

    done = run("example_procore_fan_out")

    assert done.state == "success"
    assert states(done) == {
        "list_requests": ["success"],
        "check_budgets": ["skipped"],
        "collect": ["skipped"],
        "respond": ["skipped"],
        "sum_up": ["success"],
    }
    assert result(done, "sum_up") == {}
    assert effects(emulator, "respond") == []


@pytest.mark.slow
def test_fan_out_works_in_batches_and_leaves_the_rest(emulator):
    for number in range(5002, 5006):
        start(emulator, str(number))

    first = run("example_procore_fan_out", constants={"BATCH_SIZE": 2, "MAX_RESPONSES": 3})

    assert states(first)["check_budgets"] == ["success", "success"]
    assert effects(emulator, "respond") == [(item_id, "Approve") for item_id in ("5001", "5002", "5003")]

    run("example_procore_fan_out", constants={"BATCH_SIZE": 2, "MAX_RESPONSES": 3})

    assert effects(emulator, "respond") == [(str(number), "Approve") for number in range(5001, 5006)]


@pytest.mark.slow
def test_fan_out_responds_to_the_others_when_one_fails(emulator):
    start(emulator, "5002")
    emulator.control("POST", "faults", method="POST", path="700001/responses$", status=403, json={"error": "no"})

    done = run("example_procore_fan_out")

    assert done.state == "failed"
    assert effects(emulator, "respond") == [("5002", "Approve")]


# --- overdue escalation ---


@pytest.mark.usefixtures("_mode")
@once_and_in_full(deferrable=("True", "False"))
def test_escalation_adds_each_deputy_once(emulator, again):
    with_dana = start(emulator, "5002")
    respond(emulator, with_dana, "integration@example.com", "Approve")
    emulator.control("POST", "clock", advance=4 * DAY)
    fresh = start(emulator, "5003")
    respond(emulator, fresh, "integration@example.com", "Approve")

    first = run("example_procore_overdue_deputies")

    assert effects(emulator, "add_assignees") == [("5002", ["90002"])]
    assert result(first, "report") == {"escalated": ["5002"], "escalated_before": [], "without_deputy": ["5001"]}

    if not again:
        return
    emulator.control("POST", "clock", advance=DAY)  # tokens live for 90 minutes, so this run signs in again
    second = run("example_procore_overdue_deputies")

    assert effects(emulator, "add_assignees") == [("5002", ["90002"])]
    assert result(second, "report") == {"escalated": [], "escalated_before": ["5002"], "without_deputy": ["5001"]}
    assert second.state == "success"


@pytest.mark.slow
def test_escalation_adds_no_one_after_a_deputy_responded(emulator):
    with_dana = start(emulator, "5002")
    respond(emulator, with_dana, "integration@example.com", "Approve")
    emulator.control("POST", "clock", advance=4 * DAY)
    run("example_procore_overdue_deputies")

    respond(emulator, with_dana, "pat@example.com", "Approve")
    again = run("example_procore_overdue_deputies")

    (ended,) = [instance for instance in emulator.control("GET", "state")["procore"] if instance["item_id"] == "5002"]
    assert ended["state"] == "complete"
    assert effects(emulator, "add_assignees") == [("5002", ["90002"])]
    assert result(again, "report")["escalated"] == []


@pytest.mark.slow
def test_escalation_succeeds_when_nothing_is_overdue(emulator):
    done = run("example_procore_overdue_deputies")

    assert done.state == "success"
    assert states(done)["add_deputies"] == ["skipped"]
    assert result(done, "report") == {"escalated": [], "escalated_before": [], "without_deputy": []}


# --- the ladder ---


@pytest.mark.usefixtures("_mode")
@EITHER_MODE
def test_ladder_adds_a_deputy_who_decides(emulator, capfd):
    instance_id = start(emulator, "5002")
    respond(emulator, instance_id, "integration@example.com", "Approve")
    emulator.control("POST", "clock", advance=3.5 * DAY)

    with deputy_of_dana(emulator, instance_id):
        done = run("example_procore_overdue_escalation", item_id="5002")

    assert result(done, "report") == {"item_status": "Approved", "escalation_level": 2, "escalation_problem": None}
    assert effects(emulator, "add_assignees") == [("5002", ["90002"])]
    assert re.findall(r"Level \d: Director Approval of 5002", capfd.readouterr().out) == [
        "Level 1: Director Approval of 5002",
        "Level 2: Director Approval of 5002",
    ]


@pytest.mark.slow
def test_ladder_fails_the_wait_at_its_last_level(emulator):
    instance_id = start(emulator, "5002")
    respond(emulator, instance_id, "integration@example.com", "Approve")
    emulator.control("POST", "clock", advance=11 * DAY)

    done = run("example_procore_overdue_escalation", item_id="5002")

    assert states(done)["wait_for_the_outcome"] == ["failed"]
    assert effects(emulator, "add_assignees") == [("5002", ["90002"])]


@contextmanager
def deputy_of_dana(emulator, instance_id: str) -> Iterator[None]:
    """Let Pat approve as soon as Pat is an assignee of the step."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.2):
            (row,) = [row for row in emulator.control("GET", "state")["procore"] if row["id"] == instance_id]
            if "pat@example.com" in row["waits_for"]:
                respond(emulator, instance_id, "pat@example.com", "Approve")

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


# --- heal blocked ---


def block(emulator, instance_id: str, *, retriable: bool = True) -> None:
    reason = "The role has no members."
    emulator.control("POST", f"procore/instances/{instance_id}/block", reason=reason, retriable=retriable)


@pytest.mark.usefixtures("_mode")
@once_and_in_full(deferrable=("True", "False"))
def test_healing_refreshes_what_it_can_and_names_the_rest(emulator, again):
    stuck = start(emulator, "5002")
    review = start(emulator, "8001", "generic_tool_item")
    start(emulator, "5003")
    for instance_id, retriable in (("700001", True), (stuck, False), (review, True)):
        block(emulator, instance_id, retriable=retriable)

    first = run("example_procore_heal_blocked")

    assert effects(emulator, "refresh") == [("5001", True), ("8001", True)]
    assert sorted(states(first)["refresh"]) == ["failed", "success", "success"]
    assert states(first)["report"] == ["success"]
    assert [row["item_id"] for row in result(first, "report")] == ["5002"]
    assert first.state == "failed"

    if not again:
        return
    second = run("example_procore_heal_blocked")

    assert effects(emulator, "refresh") == [("5001", True), ("8001", True)]
    assert [row["item_id"] for row in result(second, "report")] == ["5002"]


@pytest.mark.slow
def test_healing_succeeds_when_nothing_is_blocked(emulator):
    done = run("example_procore_heal_blocked")

    assert done.state == "success"
    assert states(done)["refresh"] == ["skipped"]
    assert result(done, "report") == []
