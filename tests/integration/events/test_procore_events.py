"""The events that the watchers of Procore emit, and how often."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_workflows.polling import procore_events as polls
from airflow_provider_workflows.rules.procore_events import PARTS, Instances, Requested
from airflow_provider_workflows.triggers import procore_events
from airflow_provider_workflows.triggers.procore_events import (
    ProcoreInstanceChangedTrigger,
    ProcoreResponseRequestedTrigger,
)

TOOL = "purchase_order_contract"
INSTANCE = "700001"  # of the seed; it waits for the integration's user
OWN_LOGIN, DIRECTOR = "integration@example.com", "dana@example.com"


def requested(**kwargs):
    return ProcoreResponseRequestedTrigger(**{"tool_type": TOOL, "poll_interval": 0.02, "asset": "requests", **kwargs})


def changed(**kwargs):
    return ProcoreInstanceChangedTrigger(**{"tool_type": TOOL, "poll_interval": 0.02, "asset": "changes", **kwargs})


@pytest.fixture
def emulator(airflow_connections):
    return airflow_connections


def respond(emulator, login, option, instance_id=INSTANCE):
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option=option)


def start(emulator, item_id="990001"):
    return emulator.control("POST", "procore/instances", tool_type=TOOL, item_id=item_id)["id"]


def paths(emulator, ending, since=0):
    return [request for request in emulator.requests(since) if request["path"].endswith(ending)]


def changes(triggerer, asset="changes"):
    return [(row["instance_id"], row["change"], row["changed"]) for row in triggerer.events(asset)]


# --- a response is requested -------------------------------------------------------------------------------


def test_open_requests_are_emitted_at_the_first_start(run, emulator):
    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.polls(3)

    (payload,) = [payload for _, payload in run(scenario).payloads]

    (request,) = payload.pop("events")
    assert payload == {
        "event": "response_requested",
        "procore_conn_id": "procore_default",
        "company_id": "4264807",
        "user_id": "90001",
    }
    occurrence = request["step_occurrence_id"]
    assert request["event_id"] == f"response_requested:{INSTANCE}:{occurrence}:90001"
    assert (request["instance_id"], request["item_id"], request["project_id"]) == (INSTANCE, "5001", "1001")
    assert request["step"] == "Budget Check"
    assert set(request) == {
        *("event_id", "instance_id", "item_id", "project_id", "tool_type"),
        *("step", "step_occurrence_id", "step_started_at", "overdue_at"),
    }


def test_new_request_is_emitted_once(run, emulator):
    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: triggerer.payloads)
        triggerer.new = start(emulator)
        await triggerer.until(lambda: len(triggerer.payloads) == 2)
        await triggerer.polls(4)

    triggerer = run(scenario)

    assert [row["instance_id"] for row in triggerer.events()] == [INSTANCE, triggerer.new]


def test_one_event_has_all_requests_of_a_poll(run, emulator):
    for number in range(3):
        start(emulator, str(990001 + number))

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.polls(3)

    triggerer = run(scenario)

    assert [len(payload["events"]) for _, payload in triggerer.payloads] == [4]


def test_surplus_of_an_event_is_emitted_after_the_next_poll(run, emulator, monkeypatch):
    monkeypatch.setattr(procore_events, "MAX_FACTS", 2)
    for number in range(4):
        start(emulator, str(990001 + number))

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.polls(5)

    triggerer = run(scenario)

    assert [len(payload["events"]) for _, payload in triggerer.payloads] == [2, 2, 1]
    assert len(set(triggerer.event_ids())) == 5


def test_only_new_requests_are_emitted_after_a_restart(run, emulator):
    async def first(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: triggerer.payloads)
        await triggerer.polls(2)

    async def second(triggerer):
        triggerer.watch(requested())
        await triggerer.polls(3)

    run(first)
    new = start(emulator)

    assert [row["instance_id"] for row in run(second).events()] == [new]
    assert run(second).events() == []


def test_request_event_that_airflow_lost_is_redelivered_with_its_id(run, emulator, stores):
    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: triggerer.payloads)
        await triggerer.polls(2)

    killed = run(scenario, persists=False)
    assert stores.values == {}  # nothing counts as emitted
    again = run(scenario)

    assert killed.event_ids() == again.event_ids() != []
    assert stores.keys("requests") != []


def test_repeated_request_has_another_id(run, emulator, stores):
    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: len(triggerer.payloads) == 1)
        respond(emulator, OWN_LOGIN, "Approve")
        await triggerer.until(lambda: "{}" in stores.values.get("requests", {}).values())
        respond(emulator, DIRECTOR, "Return")
        await triggerer.until(lambda: len(triggerer.payloads) == 2)

    first, second = run(scenario).events()

    assert first["step"] == second["step"] == "Budget Check"
    assert first["event_id"] != second["event_id"]


def test_a_user_can_be_named_by_login(run, emulator):
    respond(emulator, OWN_LOGIN, "Approve")

    async def scenario(triggerer):
        triggerer.watch(requested(user=DIRECTOR))
        await triggerer.until(lambda: triggerer.payloads)

    (_, payload), *_ = run(scenario).payloads

    assert payload["user_id"] == "90004"
    assert [row["step"] for row in payload["events"]] == ["Director Approval"]


# --- an instance has changed --------------------------------------------------------------------------------


def test_instances_at_the_first_start_are_not_emitted(run, emulator, stores):
    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(3)

    assert run(scenario).payloads == []
    assert stores.keys("changes") != []


def test_instance_is_emitted_from_its_start_to_its_end(run, emulator):
    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        triggerer.new = new = start(emulator)
        await triggerer.until(lambda: len(triggerer.payloads) == 1)
        respond(emulator, OWN_LOGIN, "Approve", new)
        await triggerer.until(lambda: len(triggerer.payloads) == 2)
        respond(emulator, DIRECTOR, "Approve", new)
        await triggerer.until(lambda: len(triggerer.payloads) == 3)
        await triggerer.polls(3)

    triggerer = run(scenario)

    new = triggerer.new
    started, moved, ended = triggerer.events()
    assert (started["change"], started["changed"], started["state"]) == ("started", [], "in_progress")
    assert (moved["change"], moved["step"]) == ("changed", "Director Approval")
    assert {"step", "last_response"} <= set(moved["changed"])
    assert set(moved["last_response"]) == {"option", "type", "by", "at"}
    assert moved["last_response"]["option"] == "Approve"
    assert (ended["change"], ended["state"], ended["item_status"]) == ("ended", "complete", "Approved")
    assert {"state", "ended_at", "item_status"} <= set(ended["changed"])
    assert {row["item_id"] for row in triggerer.events()} == {"990001"}
    assert [row["event_id"].split(":")[:2] for row in triggerer.events()] == [
        ["instance_started", new],
        ["instance_changed", new],
        ["instance_ended", new],
    ]


@pytest.mark.parametrize("order", ["oldest_first", "newest_first"])
def test_changes_are_the_same_in_either_order_of_events(run, emulator, order):
    emulator.control("PATCH", "flags", history_order=order)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        respond(emulator, OWN_LOGIN, "Approve")
        await triggerer.until(lambda: len(triggerer.payloads) == 1)
        respond(emulator, DIRECTOR, "Reject")
        await triggerer.until(lambda: len(triggerer.payloads) == 2)

    moved, ended = run(scenario).events()

    assert (moved["step"], moved["item_status"], moved["ambiguous"]) == ("Director Approval", "Pending Director", [])
    assert (ended["item_status"], ended["decision"]["option"]) == ("Rejected", "Reject")
    assert {"decision", "item_status"} <= set(ended["changed"])


def test_repeated_state_is_another_event(run, emulator):
    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        for number, (login, option) in enumerate([(OWN_LOGIN, "Approve"), (DIRECTOR, "Return")] * 2):
            respond(emulator, login, option)
            await triggerer.until(lambda number=number: len(triggerer.payloads) == number + 1)

    triggerer = run(scenario)

    assert [row["step"] for row in triggerer.events()] == ["Director Approval", "Budget Check"] * 2
    assert len(set(triggerer.event_ids())) == 4


def test_change_event_that_airflow_lost_is_redelivered_with_its_id(run, emulator):
    async def baseline(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.until(lambda: len(triggerer.payloads) == 1)
        await triggerer.polls(2)

    run(baseline)
    respond(emulator, OWN_LOGIN, "Approve")
    killed = run(scenario, persists=False)
    again = run(scenario)

    assert killed.events() == again.events() != []
    assert run(baseline).events() == []


def test_end_while_no_triggerer_runs_is_emitted(run, emulator):
    async def baseline(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.until(lambda: len(triggerer.events()) == 2)
        await triggerer.polls(3)

    second = start(emulator)
    run(baseline)
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")
    respond(emulator, OWN_LOGIN, "Approve", second)
    triggerer = run(scenario)

    rows = {row["instance_id"]: row for row in triggerer.events()}
    assert (rows[INSTANCE]["change"], rows[INSTANCE]["state"]) == ("ended", "terminated")
    assert (rows[INSTANCE]["item_id"], rows[INSTANCE]["tool_type"]) == ("5001", TOOL)
    assert rows[second]["change"] == "changed"


def test_redelivered_start_event_has_the_same_id(run, emulator):
    async def baseline(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)

    async def killed(triggerer):
        triggerer.watch(changed())
        await triggerer.until(lambda: triggerer.payloads)

    async def moves_on(triggerer):
        triggerer.watch(changed())
        await triggerer.until(lambda: triggerer.payloads)
        respond(emulator, DIRECTOR, "Return", new)
        await triggerer.until(lambda: len(triggerer.payloads) == 2)
        await triggerer.polls(3)

    run(baseline)
    new = start(emulator)
    (first,) = run(killed, persists=False).events()
    respond(emulator, OWN_LOGIN, "Approve", new)
    again, moved = run(moves_on).events()

    assert first["event_id"] == again["event_id"] == f"instance_started:{new}"
    assert (first["step"], again["step"], moved["step"]) == ("Budget Check", "Director Approval", "Budget Check")
    assert (again["change"], moved["change"]) == ("started", "changed")


def test_change_is_emitted_when_the_previous_one_is_stored(run, emulator):
    """Or it had another id when it is re-delivered, because after a kill there is no change before it."""

    async def baseline(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)

    async def killed(triggerer):
        triggerer.watch(changed())
        await triggerer.until(lambda: triggerer.payloads)
        respond(emulator, DIRECTOR, "Return")
        await triggerer.polls(3)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.until(lambda: triggerer.payloads)
        triggerer.persist()
        emulator.control("POST", f"procore/instances/{INSTANCE}/terminate")
        await triggerer.until(lambda: len(triggerer.payloads) == 2)

    run(baseline)
    respond(emulator, OWN_LOGIN, "Approve")
    (first,) = run(killed, persists=False).events()
    second, ended = run(scenario, persists=False).events()
    assert (first["step"], second["step"], ended["change"]) == ("Director Approval", "Budget Check", "ended")


NOTHING = dict.fromkeys(PARTS) | {"started_at": None}
HERE = {**NOTHING, "state": "in_progress", "parts": "a" * 30, "is_active": True}
OVER = {**NOTHING, "state": "complete", "parts": "b" * 30, "is_active": False}
HERE_IS = (TOOL, "1001")
LISTED = {INSTANCE: (HERE_IS, "5001")}


def found(active, described, left):
    return Instances("1", [HERE_IS], active, described, left, {})


def stored_instances(seen):
    """Return the instances whose end is awaited: no places, and none that are gone."""
    return {key: entry for key, entry in seen.items() if key.isdecimal() and not entry.startswith("~")}


def seen_events(rows):
    return [(row["change"], row["state"]) for row in rows]


def test_instance_that_ends_during_a_poll_is_emitted_as_ended_once():
    """The list still has it, its history says that it is over."""
    watcher = changed()
    seen, _ = watcher.news({}, found(LISTED, {INSTANCE: HERE}, {}), is_first=True)
    seen, between = watcher.news(seen, found(LISTED, {INSTANCE: OVER}, {}), is_first=False)
    seen, after = watcher.news(seen, found({}, {}, {INSTANCE: OVER}), is_first=False)

    assert between == []
    assert seen_events(after) == [("ended", "complete")]
    assert stored_instances(seen) == {}


def test_redelivered_end_event_has_the_same_id():
    watcher = changed()
    seen, _ = watcher.news({}, found(LISTED, {INSTANCE: HERE}, {}), is_first=True)
    _, first = watcher.news(seen, found({}, {}, {INSTANCE: OVER}), is_first=False)
    later = {**OVER, "item_status": "Approved", "parts": "c" * 30}
    _, again = watcher.news(seen, found({}, {}, {INSTANCE: later}), is_first=False)

    assert [row["event_id"] for row in first] == [row["event_id"] for row in again]


@pytest.mark.parametrize("shown", [{}, {INSTANCE: OVER}], ids=["not readable", "over already"])
@pytest.mark.parametrize(
    ("end", "emitted_last"),
    [(OVER, [("started", "complete"), ("ended", "complete")]), (None, [("started", None), ("gone", None)])],
    ids=["ended", "gone"],
)
def test_listed_instance_never_read_as_active_is_emitted_at_its_end(shown, end, emitted_last):
    watcher = changed()
    seen, _ = watcher.news({}, found({}, {}, {}), is_first=True)
    for _ in range(2):
        seen, between = watcher.news(seen, found(LISTED, shown, {}), is_first=False)
        assert between == []
    seen, waiting = watcher.news(seen, outcome := found({}, {}, {}), is_first=False)
    assert (waiting, outcome.desired) == ([], LISTED)
    seen, facts = watcher.news(seen, found({}, {}, {INSTANCE: end}), is_first=False)

    assert seen_events(facts) == emitted_last
    assert stored_instances(seen) == {}


def test_instance_read_later_than_listed_has_started():
    watcher = changed()
    seen, _ = watcher.news({}, found({}, {}, {}), is_first=True)
    seen, _ = watcher.news(seen, found(LISTED, {}, {}), is_first=False)
    seen, facts = watcher.news(seen, found(LISTED, {INSTANCE: HERE}, {}), is_first=False)

    assert seen_events(facts) == [("started", "in_progress")]
    assert watcher.news(seen, found(LISTED, {INSTANCE: HERE}, {}), is_first=False) == (seen, [])


def test_surplus_of_an_event_is_not_lost_when_it_ends(monkeypatch):
    monkeypatch.setattr(procore_events, "MAX_FACTS", 2)
    ids = ["1", "2", "3", "4"]
    listed = {instance_id: (HERE_IS, instance_id) for instance_id in ids}
    watcher = changed()
    seen, _ = watcher.news({}, found({}, {}, {}), is_first=True)
    seen, facts = watcher.news(seen, found(listed, dict.fromkeys(ids, HERE), {}), is_first=False)
    for _ in range(6):
        seen, more = watcher.news(seen, found({}, {}, dict.fromkeys(seen, OVER)), is_first=False)
        facts += more

    rows = [(row["change"], row["instance_id"]) for row in facts]
    assert sorted(rows) == sorted((change, instance_id) for instance_id in ids for change in ("started", "ended"))


def test_hidden_instance_is_gone(run, emulator, monkeypatch):
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__REJECTION_PATIENCE", "0")

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        emulator.control("POST", f"procore/instances/{INSTANCE}/hide")
        await triggerer.until(lambda: triggerer.payloads)
        await triggerer.polls(3)

    (row,) = run(scenario).events()

    assert (row["change"], row["instance_id"], row["item_id"], row["state"]) == ("gone", INSTANCE, "5001", None)


def test_filters_affect_emitted_events_and_not_reading(run, emulator):
    watchers = {
        "all": {},
        "ends": {"changes": "ended"},
        "completed": {"states": ["complete"]},
        "terminated": {"states": "terminated", "changes": ["ended", "gone"]},
    }

    async def scenario(triggerer):
        for asset, filters in watchers.items():
            triggerer.watch(changed(asset=asset, **filters))
        await triggerer.polls(8)
        since = len(emulator.requests())
        readings = triggerer.readings
        respond(emulator, OWN_LOGIN, "Approve")
        await triggerer.until(lambda: len(triggerer.events("all")) == 1)
        respond(emulator, DIRECTOR, "Approve")
        await triggerer.until(lambda: len(triggerer.events("all")) == 2)
        await triggerer.polls(8)
        triggerer.lists = len(paths(emulator, "/instances", since))
        triggerer.passed = triggerer.readings - readings

    triggerer = run(scenario)

    assert [row["change"] for row in triggerer.events("all")] == ["changed", "ended"]
    assert triggerer.event_ids("ends") == triggerer.event_ids("completed") == triggerer.event_ids("all")[1:]
    assert triggerer.event_ids("terminated") == []
    # Each of the four goes through every reading, and each reading is one list.
    assert triggerer.lists <= triggerer.passed / 4 + 2


def test_watchers_of_one_scope_are_polled_once(run, emulator):
    async def scenario(triggerer):
        for number in range(5):
            triggerer.watch(changed(asset=f"asset {number}", poll_interval=0.05 + number / 1000))
        await triggerer.polls(25)
        triggerer.lists = len(paths(emulator, "/instances"))

    triggerer = run(scenario)

    assert triggerer.lists <= triggerer.readings / 5 + 2


def test_each_asset_has_its_own_cursor(run, emulator, stores):
    async def scenario(triggerer):
        triggerer.watch(changed(asset="early"))
        await triggerer.polls(2)

    async def both(triggerer):
        triggerer.watch(changed(asset="early"))
        triggerer.watch(changed(asset="late"))
        await triggerer.until(lambda: triggerer.events("early"))
        await triggerer.polls(4)

    run(scenario)
    respond(emulator, OWN_LOGIN, "Approve")
    triggerer = run(both)

    assert [row["change"] for row in triggerer.events("early")] == ["changed"]
    assert triggerer.events("late") == []  # for which this is the first start
    assert [stores.keys(asset) != [] for asset in ("early", "late")] == [True, True]


# --- what the server leaves out -----------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["absent", "no_instance_ids"])
def test_changes_are_emitted_with_any_bulk_history(run, emulator, caplog, flag):
    emulator.control("PATCH", "flags", bulk_history=flag)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        triggerer.new = start(emulator)
        await triggerer.until(lambda: len(triggerer.payloads) == 1)
        respond(emulator, OWN_LOGIN, "Approve")
        await triggerer.until(lambda: len(triggerer.payloads) == 2)
        emulator.control("POST", f"procore/instances/{triggerer.new}/terminate")
        await triggerer.until(lambda: len(triggerer.payloads) == 3)

    triggerer = run(scenario)

    assert [(row[0], row[1]) for row in changes(triggerer)] == [
        (triggerer.new, "started"),
        (INSTANCE, "changed"),
        (triggerer.new, "ended"),
    ]
    records = [record for record in caplog.records if "Reading the bulk history" in record.message]
    assert len(records) == (flag == "absent")


def test_poll_reads_a_few_individually_without_a_bulk_history(run, emulator, monkeypatch):
    monkeypatch.setattr(polls, "REREAD_INSTANCES", 2)
    emulator.control("PATCH", "flags", bulk_history="absent")
    for number in range(6):
        start(emulator, str(990001 + number))

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(1)
        triggerer.first = len(paths(emulator, "/history"))
        await triggerer.polls(4)

    triggerer = run(scenario)

    lists = len(paths(emulator, "/instances"))
    assert triggerer.first >= 7
    assert len(paths(emulator, "/history")) <= 7 + 2 * lists
    read = [request["path"].split("/")[-2] for request in paths(emulator, "/history")]
    assert len(set(read[:7])) == 7  # all at first
    assert len(set(read[7:15])) >= 7  # then in turn


def test_a_bulk_history_that_is_there_later_is_used_then(run, emulator, monkeypatch):
    monkeypatch.setattr(polls, "FALLBACK_SECONDS", 0.3)
    emulator.control("PATCH", "flags", bulk_history="absent")

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        emulator.control("PATCH", "flags", bulk_history="present")
        since = len(emulator.requests())
        await triggerer.until(lambda: paths(emulator, "/bulk_history", since))
        await triggerer.polls(2)
        since = len(emulator.requests())
        respond(emulator, OWN_LOGIN, "Approve")
        await triggerer.until(lambda: triggerer.payloads)
        assert paths(emulator, "/history", since) == []

    assert [row[:2] for row in changes(run(scenario))] == [(INSTANCE, "changed")]


def test_instance_with_a_server_error_delays_no_other(run, emulator):
    emulator.control("PATCH", "flags", bulk_history="absent")
    new = start(emulator)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        emulator.control("POST", "faults", path=f"/instances/{INSTANCE}/history", status=500, times=10_000)
        respond(emulator, OWN_LOGIN, "Approve", new)
        await triggerer.until(lambda: triggerer.payloads)
        respond(emulator, OWN_LOGIN, "Approve")
        await triggerer.polls(3)
        assert len(triggerer.payloads) == 1
        emulator.control("DELETE", "faults")
        await triggerer.until(lambda: len(triggerer.payloads) == 2)

    triggerer = run(scenario)

    assert [(row[0], row[1]) for row in changes(triggerer)] == [(new, "changed"), (INSTANCE, "changed")]


def test_unreadable_request_delays_no_other_and_is_not_forgotten(run, emulator):
    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: len(triggerer.payloads) == 1)
        emulator.control("POST", "faults", path=f"/instances/{INSTANCE}$", status=500, times=10_000)
        triggerer.new = start(emulator)
        await triggerer.until(lambda: len(triggerer.payloads) == 2)
        emulator.control("DELETE", "faults")
        await triggerer.polls(3)

    triggerer = run(scenario)

    assert [row["instance_id"] for row in triggerer.events()] == [INSTANCE, triggerer.new]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_instance_unread_in_one_poll_is_not_redelivered(run, emulator, status):
    emulator.control("POST", "procore/instances/many", count=20, tool_type=TOOL)

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: triggerer.payloads)
        await triggerer.polls(2)
        emulator.control("POST", "faults", path=r"instances/\d+$", status=status, times=30)
        await triggerer.polls(12)

    triggerer = run(scenario)

    assert len(triggerer.event_ids()) == len(set(triggerer.event_ids())) == 21


def test_restart_during_an_outage_redelivers_nothing(run, emulator):
    emulator.control("POST", "procore/instances/many", count=20, tool_type=TOOL)

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.polls(4)

    assert len(run(scenario).events()) == 21
    emulator.control("POST", "faults", path=r"instances/\d+$", status=500, times=3)
    assert run(scenario).events() == []


def test_request_missing_once_in_a_list_is_not_redelivered():
    def found(*ids):
        return Requested(
            "1", "9", [HERE_IS], {f"response_requested:{instance_id}:1:9": (HERE_IS, {}) for instance_id in ids}
        )

    watcher = requested()
    seen, first = watcher.news({}, found("7", "8"), is_first=False)
    seen, without = watcher.news(seen, found("7"), is_first=False)
    seen, again = watcher.news(seen, found("7", "8"), is_first=False)
    assert (len(first), without, again) == (2, [], [])
    for _ in range(2):
        seen, _ = watcher.news(seen, found("7"), is_first=False)
    assert list(seen) == ["response_requested:7:1:9"]


def test_instance_unread_at_the_first_start_is_not_started_later(run, emulator):
    emulator.control("PATCH", "flags", bulk_history="absent")
    emulator.control("POST", "faults", path=f"/instances/{INSTANCE}/history", status=500, times=10_000)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        emulator.control("DELETE", "faults")
        await triggerer.polls(3)
        respond(emulator, OWN_LOGIN, "Approve")
        await triggerer.until(lambda: triggerer.payloads)

    assert [row[:2] for row in changes(run(scenario))] == [(INSTANCE, "changed")]


# --- outages ------------------------------------------------------------------------------------------------


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "fault",
    [{"status": 500}, {"status": 429, "headers": {"Retry-After": "1"}}, {"reset": "before"}, {"status": 403}],
    ids=str,
)
def test_an_outage_ends_nothing_and_loses_nothing(run, emulator, monkeypatch, fault):
    # A 429 would be taken for a limit on what ten seconds may see, and these polls come fast.
    monkeypatch.setattr("airflow_provider_workflows.polling.rate_limiter.MIN_SPIKE_REQUESTS", 10_000)

    async def scenario(triggerer):
        triggerer.watch(changed())
        triggerer.watch(requested())
        await triggerer.polls(6)
        emulator.control("POST", "faults", path="/workflows/", times=3, **fault)
        triggerer.new = start(emulator)
        await triggerer.until(lambda: triggerer.events("changes") and len(set(triggerer.event_ids("requests"))) == 2)

    triggerer = run(scenario)

    assert changes(triggerer) == [(triggerer.new, "started", [])]
    assert [row["instance_id"] for row in triggerer.events("requests")] == [INSTANCE, triggerer.new]


def test_a_store_that_cannot_be_read_only_delays(run, emulator, stores):
    failures = iter([True] * 3)
    stores.fails = lambda what, asset, key: what == "get" and next(failures, False)

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: triggerer.payloads)
        await triggerer.polls(3)

    assert len(run(scenario).payloads) == 1


def test_a_store_that_cannot_be_written_is_written_later(run, emulator, stores):
    failures = iter([True] * 3)
    stores.fails = lambda what, asset, key: what == "set" and next(failures, False)

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: len(stores.keys("requests")) == 2)

    assert len(run(scenario).payloads) == 1


def test_watcher_without_a_store_delays_no_other(run, emulator, stores):
    async def scenario(triggerer):
        triggerer.watch(requested(asset="stored"))
        triggerer.watch(requested(asset="lost"))
        await triggerer.until(lambda: len(triggerer.payloads) == 2)
        first, second = triggerer.unsent
        triggerer.manager.confirm_persisted([first if triggerer.payloads[0][0] == "stored" else second])
        triggerer.unsent.clear()
        triggerer.persists = True
        await asyncio.sleep(0.5)  # until Airflow gives the other one up
        assert [type(error).__name__ for error in triggerer.ended] == ["AckTimeout"]
        triggerer.ended.clear()
        await triggerer.until(lambda: stores.keys("stored"))

    triggerer = run(scenario, persists=False, ack_timeout=0.3)

    assert stores.keys("lost") == []
    # Airflow does not say which of the two was not stored, so the other one is re-delivered.
    assert len(triggerer.event_ids("stored")) == 2
    assert len(set(triggerer.event_ids())) == 1
