"""Many waits at once on a real Airflow, the people who end them, and the expected outcome."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_provider_workflows.emulator import Emulator
from tests.support.live_airflow import LiveAirflow

WAITS = "many_waits"
EVENTS = "requests_as_events"
ASSET = "orders to respond to"  # of the DAG EVENTS
CONNECTIONS = {"procore": "procore_default", "workflowsoft": "workflowsoft_default"}
# What a wait on an integration step waits for, and the diagram that starts with that step.
DIAGRAMS = {
    "101": "Event planning",
    "201": "Vendor onboarding",
    "301": "Contract review",
    "401": "Data issue",
    "501": "Purchase request",
    "601": "Field types",
}
SETTINGS = {
    "AIRFLOW__WORKFLOWS__POKE_INTERVAL": "1",
    "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "1000",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
    # A scheduler that sleeps less takes a large part of a core from the others.
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    # How long a scheduler waits before it takes over from one that is dead, or from a task.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
}


def connections_to(emulator: Emulator) -> dict[str, dict[str, Any]]:
    """Return the emulator's connections; the waits on steps are the triggerer's, so reading must not consume."""
    emulator.control("PATCH", "flags", new_integrations="listed_until_completed")
    found: dict[str, dict[str, Any]] = emulator.control("GET", "connections")
    found["workflowsoft_default"]["extra"]["new_integrations"] = "listed_until_completed"
    return found


class Crowd:
    """
    The workflows that a DAG waits for, and the people who decide them in an order that chance makes.

    Three in five are Procore's v2, the others Legacy, but for one wait on each of Workflowsoft's first steps.

    :param emulator: Where the workflows are.
    :param count: How many waits.
    :param chance: Decides who decides what, and when.
    :param connections: Ids of the Airflow connections to the emulator, by product.
    """

    def __init__(
        self, emulator: Emulator, count: int, chance: random.Random, connections: Mapping[str, str] = CONNECTIONS
    ):
        self.emulator = emulator
        self.connections = connections
        self.chance = chance
        v2_count = (count - len(DIAGRAMS)) * 3 // 5
        v2 = emulator.control("POST", "procore/instances/many", count=v2_count)["ids"]
        # From here on they wait for the director, and emit no event.
        emulator.control(
            "POST", "procore/instances/respond-many", ids=v2, login="integration@example.com", option="Approve"
        )
        legacy_count = count - len(DIAGRAMS) - v2_count
        legacy = emulator.control("POST", "procore/legacy/instances/many", count=legacy_count)["ids"]
        emulator.control(
            "POST",
            "procore/legacy/instances/perform-many",
            ids=legacy,
            login="integration@example.com",
            activity="Submit for Approval",
        )
        self.waits = {"procore": v2, "procore_legacy": legacy, "workflowsoft": list(DIAGRAMS)}
        self.undecided = [(product, instance_id) for product, ids in self.waits.items() for instance_id in ids]
        self.decided: dict[str, str] = {}  # how the wait must end, by what it waits for
        state = emulator.control("GET", "state")["procore"]
        # They request the response of the connection's user, so each must be in an event.
        self.orders = {instance["id"] for instance in state if "integration@example.com" in instance["waits_for"]}
        chance.shuffle(self.undecided)
        self._order()

    def write_dags(self, folder: Path) -> None:
        """Put the DAGs into a folder, with what they wait for beside them."""
        source = Path(__file__).parents[1] / "live" / "dags" / f"{WAITS}.py"
        content = {"waits": self.waits, "connections": dict(self.connections)}
        (folder / f"{WAITS}.json").write_text(json.dumps(content))
        shutil.copy(source, folder)

    def work(self, decisions: int) -> None:
        """Decide so many, and start an order that waits for the connection's user."""
        for product, instance_id in [self.undecided.pop() for _ in range(min(decisions, len(self.undecided)))]:
            self.decided[f"{product} {instance_id}"] = self._decide(product, instance_id)
        self._order()

    def _order(self) -> None:
        item_id = str(990000 + len(self.orders))
        started = self.emulator.control(
            "POST", "procore/instances", tool_type="purchase_order_contract", item_id=item_id
        )
        self.orders.add(started["id"])

    def _decide(self, product: str, instance_id: str) -> str:
        yes = self.chance.random() < 0.5
        if product == "workflowsoft":
            started = self.emulator.control("POST", "workflowsoft/processes", diagram=DIAGRAMS[instance_id])
            return str(started["integration_instance_id"])
        if product == "procore":
            where, option = f"procore/instances/{instance_id}/respond", "Approve" if yes else "Reject"
            self.emulator.control("POST", where, login="dana@example.com", option=option)
            return "Approved" if yes else "Rejected"
        where, activity = f"procore/legacy/instances/{instance_id}/perform", "Approve" if yes else "Deny"
        self.emulator.control("POST", where, login="rita@example.com", activity=activity)
        return "PO Approved" if yes else "Start"

    def wrong_waits(self, outcomes: dict[str, str] | None) -> list[str]:
        """Return what is wrong with how the waits have ended; nothing, if all is well."""
        found = outcomes or {}
        return [
            f"{wait}: {found.get(wait)} instead of {self.decided.get(wait)}"
            for wait in sorted({*found, *self.decided})
            if found.get(wait) != self.decided.get(wait)
        ]

    def wrong_events(self, events: list[dict[str, Any]]) -> list[str]:
        """Return what is wrong with the emitted events; nothing, if all is well."""
        by_id = {row["event_id"]: row for row in events}
        lost = sorted(self.orders - {row["instance_id"] for row in events})
        return [
            *(f"order {instance_id} is in no event" for instance_id in lost),
            *(f"{row['event_id']} was emitted with two contents" for row in events if by_id[row["event_id"]] != row),
            *([f"{len(by_id)} event ids for {len(self.orders)} orders"] if len(by_id) != len(self.orders) else []),
        ]


def emitted_events(airflow: LiveAirflow) -> list[dict[str, Any]]:
    """Return every event that the asset's watcher emitted, as often as it emitted it."""
    return [row for payload in airflow.asset_payloads([ASSET]) for row in payload["events"]]
