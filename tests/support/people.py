"""Everybody but the integration: plays the people of the three example workflows on the emulator."""

from __future__ import annotations

import threading
import time

from airflow_provider_workflows.emulator import Emulator

DAGS = {
    "procore": "example_procore_purchase_order_approval",
    "procore_legacy": "example_procore_legacy_purchase_order_approval",
    "workflowsoft": "example_workflowsoft_integration_step",
}
POLL_SECONDS = 0.2  # seconds between two polls of the emulator


class People:
    """
    Responds to the steps that wait for a person, while the ``with`` block lasts.

    :param emulator: Where the workflows are.
    :param director: The response of the director in Procore: ``Approve``, ``Return`` or ``Reject``.
    :param reviewer: What the reviewer does in Procore Legacy: ``Approve`` or ``Deny``.
    :param thinking: Seconds that they take, so that the DAGs have something to wait for.
    """

    def __init__(
        self, emulator: Emulator, *, director: str = "Approve", reviewer: str = "Approve", thinking: float = 0.0
    ):
        self.emulator = emulator
        self.director = director
        self.reviewer = reviewer
        self.thinking = thinking
        self._first_seen: dict[str, float] = {}
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> People:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._leave.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._leave.wait(POLL_SECONDS):
            state = self.emulator.control("GET", "state")
            if self._has_poller() and self._has_thought("an event") and not state["workflowsoft"]:
                act_for("workflowsoft", self.emulator)
            for instance in state["procore"]:
                if "dana@example.com" in instance["waits_for"] and self._has_thought(instance["step_occurrence_id"]):
                    act_for("procore", self.emulator, instance["id"], self.director)
            for instance in state["procore_legacy"]:
                if instance["state"] == "Pending Approval" and self._has_thought(instance["id"]):
                    act_for("procore_legacy", self.emulator, instance["id"], self.reviewer)

    def _has_poller(self) -> bool:
        return any(request["path"].endswith("/new-integrations") for request in self.emulator.requests())

    def _has_thought(self, about: str) -> bool:
        return time.monotonic() - self._first_seen.setdefault(about, time.monotonic()) >= self.thinking


def act_for(api: str, emulator: Emulator, instance_id: str = "", decision: str = "Approve") -> None:
    """
    Do what the DAG of an API waits for: decide its instance, or start a process.

    :param instance_id: Default: the instance that the example waits for.
    """
    if api == "procore":
        where = f"procore/instances/{instance_id or '700001'}/respond"
        emulator.control("POST", where, login="dana@example.com", option=decision)
    elif api == "procore_legacy":
        where = f"procore/legacy/instances/{instance_id or '568150'}/perform"
        emulator.control("POST", where, login="rita@example.com", activity=decision)
    else:
        emulator.control("POST", "workflowsoft/processes", diagram="Event planning")


def check_effects(emulator: Emulator) -> list[str]:
    """
    Return what is wrong with the record of effects after the three examples ran once; nothing, if all is well.

    Each action of the DAGs, and each of the people, must be there exactly once.
    """
    expected = {
        ("procore", "respond", "api", "Budget Check: Approve"): 1,
        ("procore", "respond", "user", "Director Approval: Approve"): 1,
        ("procore_legacy", "perform_activity", "api", "Submit for Approval"): 1,
        ("procore_legacy", "perform_activity", "user", "Approve"): 1,
        ("workflowsoft", "start_process", "user", "Event planning"): 1,
        ("workflowsoft", "write_fields", "api", "Event duration, Venue"): 1,
        ("workflowsoft", "complete", "api", "Check event"): 1,
    }
    if emulator.control("GET", "flags")["new_integrations"] == "consumed_on_read":
        expected["workflowsoft", "deliver", "api", "Check event"] = 1
    found: dict[tuple[str, str, str, str], int] = {}
    for effect in emulator.effects():
        key = (effect["product"], effect["action"], effect["via"], describe(effect))
        found[key] = found.get(key, 0) + 1
    return [
        f"{' '.join(key)}: {found.get(key, 0)} times instead of {expected.get(key, 0)}"
        for key in sorted({*expected, *found})
        if found.get(key, 0) != expected.get(key, 0)
    ]


def describe(effect: dict) -> str:
    """Describe in short what an effect did."""
    detail = effect["detail"]
    if effect["action"] == "respond":
        return f"{detail['step']}: {detail['option']}"
    if effect["action"] == "write_fields":
        return ", ".join(sorted(detail["fields"]))
    return str(detail.get("activity") or detail.get("step") or detail.get("diagram") or "")
