"""A project, instance or row that cannot be read concerns only itself, and works again by itself."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

from airflow_provider_workflows.polling import procore_events as polls
from airflow_provider_workflows.triggers.procore_events import (
    ProcoreInstanceChangedTrigger,
    ProcoreResponseRequestedTrigger,
)
from tests.support.sizes import some_and_all

TOOL = "purchase_order_contract"
SEEDED = "700001"
OWN_LOGIN = "integration@example.com"
PROJECTS = ["1001", "1002"]
ALWAYS = 10**6


@pytest.fixture
def emulator(airflow_connections):
    return airflow_connections


def requested(**kwargs):
    fixed = {"tool_type": TOOL, "project_id": PROJECTS, "poll_interval": 0.02, "asset": "requests"}
    return ProcoreResponseRequestedTrigger(**{**fixed, **kwargs})


def changed(**kwargs):
    fixed = {"tool_type": TOOL, "project_id": PROJECTS, "poll_interval": 0.02, "asset": "changes"}
    return ProcoreInstanceChangedTrigger(**{**fixed, **kwargs})


def start(emulator, project="1001", item_id=None):
    start.number = getattr(start, "number", 990000) + 1
    order = {"tool_type": TOOL, "item_id": item_id or str(start.number), "project_id": project}
    return emulator.control("POST", "procore/instances", **order)["id"]


def respond(emulator, instance_id, option="Approve", login=OWN_LOGIN):
    emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option=option)


def break_it(emulator, path, times=ALWAYS, **fault):
    emulator.control("POST", "faults", path=path, times=times, **fault)


def close(emulator, project, **fault):
    break_it(emulator, f"/projects/{project}/workflows/instances$", **fault)


def warnings(caplog, text):
    return [record for record in caplog.records if record.levelno >= logging.WARNING and text in record.getMessage()]


def rows(triggerer, asset=None):
    return [(row["instance_id"], row.get("change")) for row in triggerer.events(asset)]


# --- places -------------------------------------------------------------------------------------------------


def named(fault):
    return json.dumps(fault)[:35]


CLOSED = [
    {"status": 403, "json": {}},
    {"status": 404, "json": {}},
    {"status": 403, "body": "<html>Forbidden</html>"},
    {"status": 401, "json": {}},
    {"status": 422, "json": {}},
    {"status": 500, "json": {}},
    {"status": 200, "json": {"data": {}}},
    {"status": 200, "body": "not JSON"},
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("closed", some_and_all(PROJECTS, 1))
@pytest.mark.parametrize("fault", some_and_all(CLOSED, 4, named))
def test_forbidden_project_stops_events_of_no_other(run, emulator, caplog, fault, closed):
    (other,) = set(PROJECTS) - {closed}
    started = {project: start(emulator, project) for project in PROJECTS}

    async def scenario(triggerer):
        triggerer.watch(changed())
        triggerer.watch(requested())
        await triggerer.until(lambda: len(triggerer.events("requests")) == 3)
        await triggerer.polls(4)
        close(emulator, closed, **fault)
        await triggerer.polls(4)
        triggerer.new = start(emulator, other)
        respond(emulator, started[closed])
        await triggerer.until(lambda: len(triggerer.events("changes")) == 1)
        await triggerer.until(lambda: len(triggerer.events("requests")) == 4)
        await triggerer.polls(8)
        triggerer.meanwhile = rows(triggerer, "changes")
        emulator.control("DELETE", "faults")
        await triggerer.until(lambda: len(triggerer.events("changes")) == 2)
        await triggerer.polls(8)

    triggerer = run(scenario)

    assert triggerer.meanwhile == [(triggerer.new, "started")]
    assert rows(triggerer, "changes")[1:] == [(started[closed], "changed")]
    assert {row["project_id"] for row in triggerer.events("changes")[1:]} == {closed}
    assert len(triggerer.event_ids("requests")) == len(set(triggerer.event_ids("requests"))) == 4
    assert len(warnings(caplog, f"project {closed} failed, will retry")) == 2  # each scope names it once


@pytest.mark.parametrize("side", ["visible", "403", "404"])
def test_hidden_project_stops_events_of_no_other(run, emulator, caplog, side):
    hidden = start(emulator, "1002")

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(3)
        emulator.control("PATCH", "flags", second_project=side)
        await triggerer.polls(3)
        respond(emulator, hidden)
        respond(emulator, SEEDED)
        await triggerer.until(lambda: len(triggerer.events()) >= 1)
        await triggerer.polls(4)
        triggerer.meanwhile = {row["instance_id"] for row in triggerer.events()}
        emulator.control("PATCH", "flags", second_project="visible")
        await triggerer.until(lambda: len(triggerer.events()) == 2)

    triggerer = run(scenario)

    assert triggerer.meanwhile == ({SEEDED, hidden} if side == "visible" else {SEEDED})
    assert sorted(rows(triggerer)) == sorted([(SEEDED, "changed"), (hidden, "changed")])
    assert len(warnings(caplog, "project 1002 failed")) == (side != "visible")


def test_project_forbidden_at_the_first_start_starts_later(run, emulator):
    start(emulator, "1002")
    close(emulator, "1002", status=403, json={})

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(3)
        emulator.control("DELETE", "faults")
        await triggerer.polls(3)
        triggerer.new = start(emulator, "1002")
        await triggerer.until(lambda: triggerer.payloads)

    triggerer = run(scenario)

    assert rows(triggerer) == [(triggerer.new, "started")]


def test_restart_while_a_project_is_forbidden_loses_no_event(run, emulator):
    ending = start(emulator, "1002")

    async def polled(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(3)

    async def opened(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        emulator.control("DELETE", "faults")
        await triggerer.until(lambda: triggerer.payloads)
        await triggerer.polls(3)

    run(polled)
    close(emulator, "1002", status=403, json={})
    emulator.control("POST", f"procore/instances/{ending}/terminate")
    assert run(polled).payloads == []

    assert rows(run(opened)) == [(ending, "ended")]


def test_misspelled_tool_stops_events_of_no_other(run, emulator, caplog):
    async def scenario(triggerer):
        triggerer.watch(changed(tool_type=["misspelt", TOOL]))
        await triggerer.polls(3)
        triggerer.new = start(emulator)
        await triggerer.until(lambda: triggerer.payloads)

    triggerer = run(scenario)

    assert rows(triggerer) == [(triggerer.new, "started")]
    assert len(warnings(caplog, "Unknown tool_type 'misspelt'")) == 2  # in two projects


@pytest.mark.parametrize("trigger", [changed, requested])
def test_failed_list_of_tools_fails_no_empty_project(run, emulator, trigger):
    break_it(emulator, "/workflows/tools$", status=500, json={})

    async def scenario(triggerer):
        triggerer.watch(trigger())
        await triggerer.polls(2)
        triggerer.new = start(emulator, "1002")
        await triggerer.until(lambda: triggerer.new in [row["instance_id"] for row in triggerer.events()])

    run(scenario)


def test_total_that_counts_hidden_rows_stops_no_event(run, emulator):
    emulator.control("PATCH", "flags", list_total="hidden_rows_too", instances_paging="page_only")
    hidden = start(emulator)
    emulator.control("POST", f"procore/instances/{hidden}/hide")

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        triggerer.new = start(emulator)
        await triggerer.until(lambda: triggerer.payloads)
        emulator.control("POST", f"procore/instances/{triggerer.new}/terminate")
        await triggerer.until(lambda: len(triggerer.payloads) == 2)

    triggerer = run(scenario)

    assert rows(triggerer) == [(triggerer.new, "started"), (triggerer.new, "ended")]


# --- rows ---------------------------------------------------------------------------------------------------

MALFORMED_ROWS = [None, 7, [], {}, {"id": None}, {"id": {}}, {"id": "", "item_id": "5"}]


def listed(emulator, *instance_ids, malformed=()):
    rows = [
        {"id": instance_id, "item_id": "5001" if instance_id == SEEDED else "990001", "ended_at": None}
        for instance_id in instance_ids
    ]
    path = "/projects/1001/workflows/instances$"
    emulator.control(
        "POST", "faults?replace=true", path=path, times=ALWAYS, status=200, json={"data": [*malformed, *rows]}
    )


@pytest.mark.sample(3)
@pytest.mark.parametrize("malformed", some_and_all(MALFORMED_ROWS, 4, json.dumps))
def test_malformed_list_row_concerns_only_itself(run, emulator, caplog, malformed):
    listed(emulator, SEEDED, malformed=[malformed])

    async def scenario(triggerer):
        triggerer.watch(changed(project_id="1001"))
        triggerer.watch(requested(project_id="1001"))
        await triggerer.polls(4)
        triggerer.new = start(emulator, item_id="990001")
        listed(emulator, SEEDED, triggerer.new, malformed=[malformed])
        await triggerer.until(lambda: triggerer.events("changes"))
        await triggerer.until(lambda: len(triggerer.events("requests")) == 2)

    triggerer = run(scenario)

    assert rows(triggerer, "changes") == [(triggerer.new, "started")]
    assert rows(triggerer, "requests") == [(SEEDED, None), (triggerer.new, None)]
    assert len(warnings(caplog, "is incomplete")) == 2  # once for each scope


def test_ended_rows_are_not_read_individually(run, emulator):
    emulator.control("PATCH", "flags", filters="ignored")
    ids = emulator.control("POST", "procore/instances/many", count=60)["ids"]
    for instance_id in ids:
        emulator.control("POST", f"procore/instances/{instance_id}/terminate")

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: triggerer.payloads)
        await triggerer.polls(3)

    run(scenario)

    read = [request["path"].rpartition("/")[2] for request in emulator.requests() if "/instances/" in request["path"]]
    assert set(read) == {SEEDED}


def test_ended_row_without_an_end_is_read_once(run, emulator):
    (ended,) = emulator.control("POST", "procore/instances/many", count=1)["ids"]
    emulator.control("POST", f"procore/instances/{ended}/terminate")
    rows = [{"id": SEEDED, "item_id": "5001"}, {"id": ended, "item_id": "1"}]
    break_it(emulator, "/projects/1001/workflows/instances$", status=200, json={"data": rows})

    async def scenario(triggerer):
        triggerer.watch(requested(project_id="1001"))
        await triggerer.polls(6)

    run(scenario)

    assert len([request for request in emulator.requests() if request["path"].endswith(f"/instances/{ended}")]) == 1


@pytest.mark.parametrize("bulk", ["present", "absent"])
def test_instance_without_an_item_has_none(run, emulator, bulk):
    emulator.control("PATCH", "flags", bulk_history=bulk)
    rows = [{"id": SEEDED, "item_id": None}]
    break_it(emulator, "/projects/1001/workflows/instances$", status=200, json={"data": rows})

    async def scenario(triggerer):
        triggerer.watch(changed(project_id="1001"))
        await triggerer.polls(2)
        respond(emulator, SEEDED)
        await triggerer.until(lambda: triggerer.events())

    assert [row["item_id"] for row in run(scenario).events()] == [None]


# --- instances ----------------------------------------------------------------------------------------------

BROKEN = [
    {"status": 500, "json": {}},
    {"status": 403, "json": {}},
    {"status": 404, "json": {}},
    {"status": 401, "json": {}},
    {"status": 422, "json": {}},
    {"status": 200, "json": {"data": {"history": 7}}},
    {"status": 200, "body": "not JSON"},
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("bulk", ["present", "absent"])
@pytest.mark.parametrize("fault", some_and_all(BROKEN, 3, named))
def test_broken_histories_stop_events_of_no_other_instance(run, emulator, fault, bulk):
    emulator.control("PATCH", "flags", bulk_history=bulk)
    broken = [start(emulator, item_id="990001") for _ in range(1)] + [start(emulator) for _ in range(5)]
    good, ending = start(emulator), start(emulator, "1002")

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        break_it(emulator, "/bulk_history$", **fault)
        for instance_id in broken:
            break_it(emulator, f"/instances/{instance_id}/history$", **fault)
        await triggerer.polls(8)
        respond(emulator, good)
        emulator.control("POST", f"procore/instances/{ending}/terminate")
        await triggerer.until(lambda: len(triggerer.events()) == 2)

    assert sorted(rows(run(scenario))) == sorted([(good, "changed"), (ending, "ended")])


@pytest.mark.parametrize("fault", some_and_all(BROKEN, 3, named))
def test_broken_instances_stop_events_of_no_other_request(run, emulator, caplog, fault):
    broken = [start(emulator) for _ in range(5)]
    for instance_id in broken:
        break_it(emulator, f"/instances/{instance_id}$", method="GET", **fault)

    async def scenario(triggerer):
        triggerer.watch(requested())
        await triggerer.until(lambda: triggerer.payloads)
        for _ in range(3):
            new = start(emulator)
            await triggerer.until(lambda new=new: new in [row["instance_id"] for row in triggerer.events()])
        await triggerer.polls(5)

    run(scenario)

    for instance_id in broken:
        assert len(warnings(caplog, f"Polling instance {instance_id} failed")) <= 1


BULK = [
    {"status": 200, "json": {"data": [None]}},
    {"status": 200, "json": {"data": {}}},
    {"status": 200, "body": "not JSON"},
    {"status": 500, "json": {}},
    {"status": 504, "body": "<html>Gateway timeout</html>"},
    {"status": 401, "json": {}},
    {"status": 403, "json": {}},
    {"status": 413, "json": {}},
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("fault", some_and_all(BULK, 4, named))
def test_failing_bulk_history_stops_no_event(run, emulator, fault):
    for _ in range(12):
        start(emulator)
    break_it(emulator, "/bulk_history$", **fault)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(3)
        respond(emulator, SEEDED)
        await triggerer.until(lambda: triggerer.events())
        triggerer.new = start(emulator)
        await triggerer.until(lambda: len(triggerer.events()) == 2)

    triggerer = run(scenario)

    assert rows(triggerer) == [(SEEDED, "changed"), (triggerer.new, "started")]


@pytest.mark.parametrize("status", [403, 404])
def test_one_rejected_history_does_not_turn_an_end_into_gone(run, emulator, status):
    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        break_it(emulator, f"/instances/{SEEDED}/history$", times=5, status=status, json={})
        emulator.control("POST", f"procore/instances/{SEEDED}/terminate")
        await triggerer.until(lambda: triggerer.payloads)

    assert rows(run(scenario)) == [(SEEDED, "ended")]


def test_instance_that_disappears_and_returns_is_emitted_each_time(run, emulator, monkeypatch):
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__REJECTION_PATIENCE", "0")

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        for number in range(1, 5):
            emulator.control("POST", f"procore/instances/{SEEDED}/hide", hidden=bool(number % 2))
            await triggerer.until(lambda number=number: len(triggerer.payloads) == number)

    triggerer = run(scenario)

    assert [change for _, change in rows(triggerer)] == ["gone", "started"] * 2
    assert len(set(triggerer.event_ids())) == 4


def test_failing_server_gets_requests_for_a_few_instances_only(monkeypatch, run, emulator):
    monkeypatch.setattr(polls, "MAX_CONSECUTIVE_FAULTS", 2)
    emulator.control("POST", "procore/instances/many", count=30)

    async def scenario(triggerer):
        triggerer.watch(changed())
        await triggerer.polls(2)
        since = len(emulator.requests())
        break_it(emulator, "history$", status=500, json={})
        readings = triggerer.readings
        await triggerer.polls(4)
        triggerer.history_reads = len(
            [request for request in emulator.requests(since) if request["path"].endswith("history")]
        )
        triggerer.passed = triggerer.readings - readings

    triggerer = run(scenario)

    assert triggerer.history_reads <= 6 * (triggerer.passed + 2)


# --- whose cursor it is -------------------------------------------------------------------------------------

IDENTITY = """
import json
from airflow_provider_workflows.triggers.procore_events import ProcoreInstanceChangedTrigger
trigger = ProcoreInstanceChangedTrigger(
    tool_type={"a", "b", "c", "d"}, project_id={1001, "1002", 1003, "1004"},
    states={"complete", "terminated", "blocked"}, changes={"started", "ended", "gone"}, poll_interval=60,
)
identity = json.dumps([trigger.serialize(), trigger.store_key, repr(trigger.scope().key)])
"""


@pytest.mark.parametrize("seed", some_and_all(["0", "1", "2"], 1))
def test_set_is_the_same_watcher_with_any_hash_seed(seed):
    here: dict = {}
    exec(IDENTITY, here)

    done = subprocess.run(
        [sys.executable, "-c", f"{IDENTITY}print('is', identity)"],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.rpartition("is ")[2].strip() == here["identity"]


@pytest.mark.parametrize("trigger", [changed, requested])
def test_parameters_in_another_order_are_the_same_watcher(trigger):
    first = trigger(project_id=["1002", 1001], tool_type=["b", "a", "b"])
    same = trigger(project_id=("1001", "1002"), tool_type={"a", "b"})

    assert first.serialize() == same.serialize()
    assert first.store_key == same.store_key
    assert first.store_key != trigger(project_id=["1001"], tool_type=["a", "b"]).store_key
    assert changed().store_key != requested().store_key


def test_order_of_projects_does_not_affect_a_restart(run, emulator):
    ending = start(emulator, "1002")

    async def polled(triggerer):
        triggerer.watch(changed(project_id=["1001", "1002"]))
        triggerer.watch(requested(project_id=["1001", "1002"]))
        await triggerer.polls(6)

    async def other_order(triggerer):
        triggerer.watch(changed(project_id=["1002", "1001"]))
        triggerer.watch(requested(project_id=["1002", "1001"]))
        await triggerer.until(lambda: triggerer.events("changes"))
        await triggerer.polls(4)

    assert len(run(polled).events("requests")) == 2
    emulator.control("POST", f"procore/instances/{ending}/terminate")
    triggerer = run(other_order)

    assert rows(triggerer, "changes") == [(ending, "ended")]
    assert triggerer.events("changes")[0]["project_id"] == "1002"
    assert triggerer.events("requests") == []
