"""DAGs that are scheduled by events, on a real Airflow whose triggerer is killed in between."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.support.examples import EXAMPLES
from tests.support.live_airflow import ENDED

pytest.importorskip("airflow.triggers.shared_stream", reason="before Airflow 3.3 there is no cursor")

APPROVAL = "example_procore_event_driven_approval"
OUTCOME = "example_procore_event_driven_outcome"
INTEGRATION = "example_workflowsoft_event_driven_integration"
DAGS = (APPROVAL, OUTCOME, INTEGRATION)
ASSETS = ("procore_orders_that_wait", "procore_orders_that_ended", "workflowsoft_events_to_check")
TOOL = "purchase_order_contract"
pytestmark = pytest.mark.live


class Story:
    """What people do in Procore and Workflowsoft, and what Airflow makes of it."""

    def __init__(self, emulator, airflow):
        self.emulator = emulator
        self.airflow = airflow

    def start_order(self, item_id):
        return self.emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item_id)["id"]

    def start_event(self):
        started = self.emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        return started["integration_instance_id"]

    def effects(self, action, via="api"):
        """Return how many write actions each instance had."""
        found = [effect for effect in self.emulator.effects() if (effect["action"], effect["via"]) == (action, via)]
        return Counter(
            effect["target"].get("integration_instance_id") or effect["target"]["instance_id"] for effect in found
        )

    def events(self, event):
        payloads = [payload for payload in self.airflow.asset_payloads(ASSETS) if payload["event"] == event]
        return [row for payload in payloads for row in payload["events"]]

    def lost(self):
        return [lost for payload in self.airflow.asset_payloads(ASSETS) for lost in payload.get("possibly_lost", ())]

    def is_resolved(self, integrations):
        arrived = {row["integration_instance_id"] for row in self.events("integration")}
        return set(self.effects("complete")) == arrived and len(arrived) + len(self.lost()) >= len(integrations)

    def all_runs_have_ended(self):
        return all(set(self.airflow.runs(dag).values()) <= ENDED for dag in DAGS)


@pytest.fixture(scope="module")
def result(shared):
    """The emitted events, the effects, and how the runs ended, after a kill of the triggerer."""
    airflow, emulator = shared.airflow, shared.emulators["default"]
    shared.add(*(EXAMPLES / f"{dag}.py" for dag in DAGS))
    story = Story(emulator, airflow)
    for dag in DAGS:
        airflow.unpause(dag)
    integrations = [story.start_event()]
    airflow.until("the first order has a response", lambda: story.effects("respond"))
    airflow.until("the first event is planned", lambda: story.effects("complete"))
    orders = [story.start_order(str(990001 + number)) for number in range(3)]
    airflow.until("an order is in an event", lambda: len(story.events("response_requested")) >= 2)
    integrations.append(story.start_event())
    airflow.kill("triggerer")
    orders += [story.start_order(str(990011 + number)) for number in range(2)]
    integrations.append(story.start_event())
    emulator.control("POST", "procore/instances/700001/respond", login="dana@example.com", option="Approve")
    airflow.start("triggerer")
    airflow.until("every order has a response", lambda: len(story.effects("respond")) == 6)
    airflow.until("every event is planned, or reported", lambda: story.is_resolved(integrations))
    airflow.until("the outcome is an event", lambda: story.events("instance_changed"))
    airflow.until_scheduled()
    airflow.until("the runs end", story.all_runs_have_ended)
    return {
        "orders": orders,
        "integrations": integrations,
        "requests": story.events("response_requested"),
        "arrived": story.events("integration"),
        "changes": story.events("instance_changed"),
        "lost": story.lost(),
        "responses": story.effects("respond"),
        "completed": story.effects("complete"),
        "runs": {dag: set(airflow.runs(dag).values()) for dag in DAGS},
    }


def test_every_run_succeeds(result):
    assert result["runs"] == {dag: {"success"} for dag in DAGS}


def test_no_request_is_lost_and_none_gets_two_responses(result):
    expected = {"700001", *result["orders"]}

    assert {row["instance_id"] for row in result["requests"]} == expected
    assert result["responses"] == dict.fromkeys(expected, 1)


def test_a_redelivered_event_has_the_same_id(result):
    rows = {row["event_id"]: row for row in result["requests"]}

    assert len(rows) == len({row["instance_id"] for row in result["requests"]})
    assert all(rows[row["event_id"]] == row for row in result["requests"])


def test_an_instance_that_ended_without_triggerer_is_an_event(result):
    (ended,) = {row["event_id"]: row for row in result["changes"]}.values()

    assert (ended["instance_id"], ended["change"], ended["item_status"]) == ("700001", "ended", "Approved")


def test_a_consumed_integration_is_delivered_or_reported(result):
    arrived = {row["integration_instance_id"] for row in result["arrived"]}

    missing = set(result["integrations"]) - arrived
    assert len(missing) <= len(result["lost"])
    assert result["completed"] == dict.fromkeys(arrived, 1)
