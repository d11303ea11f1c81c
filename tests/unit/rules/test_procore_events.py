"""Which facts of a poll are new for a watcher of Procore."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.rules import procore_events
from airflow_provider_workflows.rules.procore_events import (
    PARTS,
    Instances,
    Requested,
    changed_instances,
    described_instance,
    new_requests,
)

TOOL = "purchase_order_contract"
HERE, THERE = (TOOL, "1001"), (TOOL, "1002")


def shown(step="Budget Check", state="in_progress"):
    parts = dict.fromkeys(PARTS) | {"state": state, "step": step}
    return described_instance(
        {**parts, "started_at": None, "ambiguous": []}, is_active=state not in ("complete", "terminated")
    )


class Watcher:
    """What a watcher has emitted, poll by poll; each event reaches Airflow."""

    def __init__(self):
        self.reported: dict = {}
        self.stored: dict = {}
        self.facts: list = []
        self.is_new = True

    def sees(self, active=(), left=None, places=(HERE, THERE), *, at=HERE, is_stored=True, limit=500):
        """Compare one poll; return the changes and event ids of what it emits."""
        found = Instances(
            "1",
            places,
            dict.fromkeys(active, (at, "5001")),
            dict(active) if isinstance(active, dict) else {instance_id: shown() for instance_id in active},
            left or {},
            {},
        )
        self.reported, facts = changed_instances(
            self.reported,
            found,
            is_first=self.is_new,
            limit=limit,
            is_stored=lambda key, entry: self.stored.get(key) == entry,
            is_desired=lambda fact: True,
        )
        self.is_new = False
        self.desired = found.desired
        self.facts += facts
        if is_stored:
            self.stored = dict(self.reported)
        return [fact["change"] for fact in facts]

    @property
    def event_ids(self):
        return [fact["event_id"] for fact in self.facts]


@pytest.fixture
def watcher():
    return Watcher()


def test_instance_that_vanishes_twice_has_two_event_ids(watcher):
    watcher.sees(["1"])
    changes = [
        watcher.sees(*poll) for poll in [((), {"1": None}), (["1"],), ((), {"1": None}), (["1"],), ((), {"1": None})]
    ]

    assert changes == [["gone"], ["started"], ["gone"], ["started"], ["gone"]]
    assert len(set(watcher.event_ids)) == 5


def test_instance_that_started_and_vanishes_twice_has_own_ids(watcher):
    watcher.sees()
    for poll in [(["1"],), ((), {"1": None}), (["1"],), ({"1": shown("Director Approval")},), ((), {"1": None})]:
        watcher.sees(*poll)

    assert [fact["change"] for fact in watcher.facts] == ["started", "gone", "started", "changed", "gone"]
    assert len(set(watcher.event_ids)) == 5
    assert watcher.event_ids[0] == "instance_started:1"


def test_redelivered_return_has_the_same_event_id(watcher):
    watcher.sees(["1"])
    watcher.sees((), {"1": None})
    before = watcher.reported
    watcher.sees(["1"])
    watcher.reported = watcher.stored = before
    watcher.sees(["1"])

    assert watcher.event_ids[1] == watcher.event_ids[2]


def test_return_waits_until_the_disappearance_is_stored(watcher):
    watcher.sees(["1"])
    watcher.sees((), {"1": None}, is_stored=False)

    assert watcher.sees(["1"]) == []
    assert watcher.sees(["1"]) == ["started"]


def test_gone_instances_are_stored_up_to_a_limit(watcher, monkeypatch):
    monkeypatch.setattr(procore_events, "MAX_GONE", 2)
    ids = ["8", "9", "10", "11"]
    watcher.sees(ids)
    watcher.sees((), dict.fromkeys(ids))

    assert [key for key in watcher.reported if key.isdecimal()] == ["10", "11"]  # the newest


def test_state_of_instances_in_an_unread_place_does_not_change(watcher):
    watcher.sees(["1"])
    stored = watcher.reported

    assert watcher.sees(places=[THERE]) == []
    assert (watcher.reported, watcher.desired) == (stored, {})
    assert watcher.sees(["1"]) == []
    assert watcher.sees({"1": shown("Director Approval")}) == ["changed"]


def test_place_that_is_read_later_starts_with_what_is_there(watcher):
    watcher.sees(["1"], places=[HERE])

    assert watcher.sees(["7"], at=THERE, places=[THERE]) == []
    assert watcher.sees(["7", "8"], at=THERE, places=[THERE]) == ["started"]
    assert watcher.facts[0]["instance_id"] == "8"


def test_end_in_a_place_that_was_closed_for_a_while_is_emitted(watcher):
    watcher.sees(["1"])
    watcher.sees(places=[THERE])
    watcher.sees()
    assert watcher.desired == {"1": (HERE, "5001")}

    assert watcher.sees((), {"1": shown(state="complete")}) == ["ended"]
    assert watcher.facts[0]["project_id"] == "1001"


def test_stored_entry_names_its_place_in_any_order_of_places(watcher):
    watcher.sees(["1"], at=THERE, places=[THERE, HERE])
    watcher.sees((), {"1": shown(state="complete")}, places=[HERE, THERE])

    assert [fact["project_id"] for fact in watcher.facts] == ["1002"]


@pytest.mark.parametrize("item_id", [None, "5001", "a|b"])
def test_item_is_stored_unchanged(item_id):
    found = Instances("1", [HERE], {"1": (HERE, item_id)}, {"1": shown()}, {}, {})
    calls = {"limit": 9, "is_stored": lambda *_: True, "is_desired": lambda _: True}
    reported, _ = changed_instances({}, found, is_first=True, **calls)
    _, facts = changed_instances(reported, Instances("1", [HERE], {}, {}, {"1": None}, {}), is_first=False, **calls)

    assert [fact["item_id"] for fact in facts] == [item_id]


# --- requests -----------------------------------------------------------------------------------------------


def poll_with(*ids, places=(HERE, THERE), unread=()):
    return Requested(
        "1", "9", places, {f"response_requested:{instance_id}:1:9": (HERE, {}) for instance_id in ids}, unread
    )


def requests(*polls):
    reported, counts = {}, []
    for poll in polls:
        reported, facts = new_requests(reported, poll, is_first=False, limit=9)
        counts.append(len(facts))
    return reported, counts


def test_request_in_an_unread_place_is_not_redelivered():
    closed = poll_with(places=[THERE])

    _, counts = requests(poll_with("7"), closed, closed, closed, poll_with("7"))

    assert counts == [1, 0, 0, 0, 0]


def test_request_that_cannot_be_read_is_not_redelivered():
    broken = poll_with(unread={"7"})

    _, counts = requests(poll_with("7"), broken, broken, broken, poll_with("7"))

    assert counts == [1, 0, 0, 0, 0]


def test_request_is_forgotten_at_the_second_poll_without_it():
    assert requests(poll_with("7"), poll_with(), poll_with("7"))[1] == [1, 0, 0]
    assert requests(poll_with("7"), poll_with(), poll_with()) == ({}, [1, 0, 0])
