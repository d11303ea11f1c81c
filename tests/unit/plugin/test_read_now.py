"""Reading the current state because a viewer requested it: few requests, rarely, and never what reading consumes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.plugin.read_now import CurrentStates
from airflow_provider_workflows.plugin.waits import WaitRow
from airflow_provider_workflows.rules.open_wait import OpenWait

TOOL = "purchase_order_contract"
INSTANCE = "airflow_provider_workflows.triggers.procore.ProcoreInstanceWaitTrigger"
STEP = "airflow_provider_workflows.triggers.workflowsoft.WorkflowsoftIntegrationWaitTrigger"


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def states(clock):
    return CurrentStates(clock)


@pytest.fixture
def started(airflow_connections):
    """Return a function that starts instances, and returns the arguments that name them."""

    def start(count):
        ids = airflow_connections.control("POST", "procore/instances/many", count=count)["ids"]
        hook = ProcoreHook()
        level = hook.level_for(None, TOOL)
        found = hook.list_instances(TOOL, active=True, project_id=level)
        items = {str(row["id"]): str(row["item_id"]) for row in found}
        return [
            {"instance_id": id_, "item_id": items[id_], "tool_type": TOOL, "project_id": level} for id_ in map(str, ids)
        ]

    return start


def row_of(instance, number=0, **arguments):
    return WaitRow(
        ("orders", "run", "wait", number),
        OpenWait(product="procore", deadline="2027-01-01T00:00:00+00:00"),
        "deferred",
        1,
        trigger_id=number + 1,
        classpath=INSTANCE,
        arguments={
            "procore_conn_id": "procore_default",
            "company_id": None,
            **instance,
            "poll_interval": 60.0,
            "deadline": "2027-01-01T00:00:00+00:00",
            **arguments,
        },
    )


def requests(emulator):
    return [request for request in emulator.requests() if "/token" not in request["path"]]


def test_current_step_and_assignees_replace_what_was_stored(started, states):
    row = row_of(started(1)[0])

    assert states.read([row]).read == 1
    states.apply([row])

    assert row.wait.step
    assert row.wait.assignees
    assert row.wait.deadline == "2027-01-01T00:00:00+00:00"


def test_item_is_read_in_the_tool_that_runs_it(airflow_connections, states):
    item = {"item_id": "1953145", "tool_type": TOOL, "project_id": "1001", "on_stuck": "fail", "stuck_after": 60.0}
    row = replace(row_of(item), classpath="airflow_provider_workflows.triggers.procore_item.ProcoreItemWaitTrigger")

    assert states.read([row]).read == 1
    states.apply([row])

    assert (row.wait.product, row.wait.instance_id, row.wait.step) == ("procore_legacy", "568150", "Start")


def test_many_waits_cost_one_request_for_fifty(emulator, started, states):
    rows = [row_of(instance, number) for number, instance in enumerate(started(60))]
    before = Counter(request["path"] for request in requests(emulator))

    assert states.read(rows).read == 60

    sent = Counter(request["path"] for request in requests(emulator)) - before
    assert sum(sent.values()) <= 3


def test_connection_is_read_at_most_once_a_minute(emulator, started, states, clock):
    row = row_of(started(1)[0])
    states.read([row])
    before = len(requests(emulator))

    again = states.read([row])
    clock.now += 61
    later = states.read([row])

    assert (again.read, [row["conn_id"] for row in again.skipped], later.read) == (0, ["procore_default"], 1)
    assert len(requests(emulator)) == before + 1


def test_companies_of_a_connection_share_its_minute(emulator, started, states):
    (instance,) = started(1)
    states.read([row_of(instance)])
    before = len(requests(emulator))

    assert states.read([row_of(instance, company_id="4264807")]).read == 0
    assert len(requests(emulator)) == before


def test_integration_step_is_never_read(emulator, states):
    row = replace(row_of({}), classpath=STEP)
    row.wait = OpenWait(product="workflowsoft")

    assert (states.read([row]).read, states.read([row]).unreadable) == (0, 1)
    assert requests(emulator) == []


def test_missing_connection_is_reported_without_its_secrets(states, started):
    row = row_of(started(1)[0], procore_conn_id="absent")

    report = states.read([row])

    assert (report.read, report.errors[0]["conn_id"]) == (0, "absent")


def test_trigger_of_another_version_is_left_out(states, started):
    assert states.read([row_of(started(1)[0], new_argument=1)]).read == 0


def test_a_fifth_of_the_rate_limit_stays_for_the_waits(emulator, started, states, clock):
    rows = [row_of(started(1)[0])]
    states.read(rows)
    (hook,) = states._hooks.values()
    hook.client.rate = RateLimit(limit=100, remaining=19, reset_at=2**33)
    clock.now += 61
    before = len(requests(emulator))

    report = states.read(rows)

    assert (report.read, len(report.skipped)) == (0, 1)
    assert len(requests(emulator)) == before


@pytest.mark.parametrize("status", [403, 500])
def test_failed_read_is_reported_and_the_row_stays(emulator, started, states, status):
    row = row_of(started(1)[0])
    row.wait = replace(row.wait, step="Review", assignees=("pat@example.com",))
    emulator.control("POST", "faults", path="/workflows/", status=status, times=50)

    report = states.read([row])
    states.apply([row])

    assert (report.read, row.wait.step, row.wait.assignees) == (0, "Review", ("pat@example.com",))
    assert report.errors[0]["conn_id"] == "procore_default"


def test_server_that_is_down_gets_no_request_for_every_wait(emulator, started, states):
    rows = [row_of(instance, number) for number, instance in enumerate(started(60))]
    emulator.control("POST", "faults", path="/workflows/", status=500, times=500)
    before = len(requests(emulator))

    report = states.read(rows)

    assert (report.read, len(report.errors)) == (0, 1)
    assert len(requests(emulator)) - before <= 10


def test_second_read_does_not_wait_for_the_first(emulator, started, states):
    row = row_of(started(1)[0])

    with states._lock:
        report = states.read([row])

    assert (report.read, len(report.skipped)) == (0, 1)
