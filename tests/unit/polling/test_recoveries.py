"""After temporary errors, of all waits or of one, the waits continue and notice the decision."""

from __future__ import annotations

import asyncio
import json
import os

import pendulum
import pytest

from airflow_provider_workflows.exceptions import PermissionDenied, ServerError, UnexpectedResponse
from airflow_provider_workflows.hooks import base as hooks
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.polling import poll
from airflow_provider_workflows.polling.rate_limiter import RateLimiter
from airflow_provider_workflows.rules import procore_legacy as rules
from airflow_provider_workflows.rules.escalation import Escalation, Level
from airflow_provider_workflows.triggers.procore import ProcoreResponseRequestedWaitTrigger
from tests.unit.polling.conftest import (
    HISTORY,
    LEGACY_WORKFLOW,
    SHOW,
    TOOL,
    cancel,
    end,
    legacy_wait,
    start,
    v2_wait,
    wait_for,
)

pytestmark = pytest.mark.usefixtures("airflow_connections")

BULK, LIST = "instances/bulk_history", "workflow_instances"


def legacy(emulator, count):
    return emulator.control("POST", "procore/legacy/instances/many", count=count, workflow=LEGACY_WORKFLOW)["ids"]


def collect(scope, interval):
    found = []

    async def listen():
        async for snapshot in poll.snapshots(scope, interval):
            found.append(snapshot)

    return asyncio.get_running_loop().create_task(listen()), found


async def reject(reader, subscribers):
    raise PermissionDenied("Permission denied")


async def brings_fine(reader, subscribers):
    reader.deliver_all((subscriber, "fine") for subscriber in subscribers)


def test_stream_rejected_for_weeks_resumes_once_permitted(clock, product):
    product.next = [reject] * 1500

    async def scenario():
        task, found = collect(product.scope(), 60.0)
        while product.next:
            await asyncio.sleep(3600)
        product.next = [brings_fine]
        await asyncio.sleep(1200)
        await cancel(task)
        return found

    assert clock.run(scenario()) == ["fine"]


def test_rejected_scope_is_polled_at_most_once_per_interval(clock, product):
    product.next = [reject] * 8

    async def scenario():
        task, _ = collect(product.scope(), 3600.0)
        await asyncio.sleep(6 * 3600)
        await cancel(task)

    clock.run(scenario())

    intervals = [later - earlier for earlier, later in zip(product.times, product.times[1:], strict=False)]
    assert intervals
    assert min(intervals) >= 3600


def test_wait_whose_item_fails_in_bulk_is_not_forgotten(emulator, waiting, monkeypatch):
    first, *others = start(emulator, 4)
    bulk = ProcoreHook.each_bulk_history

    def failing(self, tool_type, item_ids, **more):
        if first[1] in item_ids:
            raise ServerError("The server failed", method="POST", path="bulk", status_code=500)
        return bulk(self, tool_type, item_ids, **more)

    monkeypatch.setattr(ProcoreHook, "each_bulk_history", failing)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in (first, *others)))
        await waits.poll()
        end(emulator, first[0], others[0][0])
        for _ in range(5):
            await waits.poll()
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return statuses

    assert waiting(scenario) == ["done", "done", None, None]


def test_failing_bulk_history_is_not_used_for_an_hour(emulator, waiting):
    started = start(emulator, 60)
    emulator.control("POST", "faults", path="bulk_history$", status=500, times=10**6)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll_until_shared()
        calm = await waits.poll()
        end(emulator, started[0][0])
        await waits.poll()
        decided = waits.statuses()[0]
        emulator.control("DELETE", "faults")
        for _ in range(64):
            await waits.poll()
        later = await waits.poll()
        await cancel(*waits.tasks)
        return calm, decided, later

    calm, decided, later = waiting(scenario)

    assert calm == {"instances": 1, HISTORY: 5}
    assert decided == "done"
    assert later == {BULK: 2}


MALFORMED = [
    {"status": 200, "json": {"data": [None]}},
    {"status": 200, "json": {"data": {}}},
    {"status": 200, "body": "<html>not JSON"},
]


@pytest.mark.sample(3)
@pytest.mark.parametrize("fault", MALFORMED, ids=["null", "no list", "no JSON"])
@pytest.mark.parametrize("count", [1, 60])
def test_malformed_bulk_history_ends_no_wait(emulator, waiting, fault, count):
    started = start(emulator, count)
    emulator.control("POST", "faults", path="bulk_history$", times=10**6, **fault)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        for _ in range(5):
            await waits.poll()
        end(emulator, started[0][0])
        calm = [await waits.poll() for _ in range(2)]
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return statuses, calm[1]

    statuses, calm = waiting(scenario)

    assert statuses == ["done", *[None] * (count - 1)]
    assert calm.get(BULK, 0) == 0  # so it is not requested again and again


def test_malformed_row_of_a_bulk_history_concerns_its_item_only(emulator, waiting, monkeypatch):
    started = start(emulator, 40)
    bulk = ProcoreHook.each_bulk_history

    def malformed(self, tool_type, item_ids, **more):
        for item_id, row in zip(item_ids, bulk(self, tool_type, item_ids, **more), strict=True):
            if item_id == started[7][1]:
                raise UnexpectedResponse(
                    "The response is not a list of objects", method="POST", path="bulk", status_code=200
                )
            yield row

    monkeypatch.setattr(ProcoreHook, "each_bulk_history", malformed)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        for _ in range(4):
            await waits.poll()
        calm = await waits.poll()
        end(emulator, started[7][0], started[8][0])
        await waits.poll()
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return statuses, calm

    statuses, calm = waiting(scenario)

    assert [number for number, status in enumerate(statuses) if status] == [7, 8]
    assert calm == {BULK: 1, HISTORY: 1}


def test_item_without_bulk_histories_is_polled_individually(emulator, waiting):
    ((instance_id, item_id),) = start(emulator, 1)
    nothing = {"data": [{"item_id": item_id, "instances": []}]}
    emulator.control("POST", "faults", path="bulk_history$", status=200, json=nothing, times=10**6)

    async def scenario(waits):
        waits.start(v2_wait(instance_id, item_id))
        for _ in range(3):
            await waits.poll()
        end(emulator, instance_id)
        await waits.poll()
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return statuses

    assert waiting(scenario) == ["done"]


@pytest.mark.parametrize("place", [0, 7, 60])
def test_404_for_one_item_does_not_mean_that_the_route_is_missing(emulator, waiting, monkeypatch, place):
    started = start(emulator, 100)
    bulk = ProcoreHook.each_bulk_history
    route = {"method": "POST", "path": "bulk", "status_code": 404}

    def failing(self, tool_type, item_ids, **more):
        if started[place][1] in item_ids:
            raise hooks_not_found("No such item", **route)
        return bulk(self, tool_type, item_ids, **more)

    from airflow_provider_workflows.exceptions import NotFound as hooks_not_found

    monkeypatch.setattr(ProcoreHook, "each_bulk_history", failing)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll()
        counts = await waits.poll()
        await cancel(*waits.tasks)
        return counts

    assert waiting(scenario) == {BULK: 2, HISTORY: 1}


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 404}])
def test_failing_bulk_history_adds_no_second_request_to_a_step(emulator, waiting, monkeypatch, fault):
    started = start(emulator, 60)
    emulator.control("POST", "faults", path="bulk_history$", times=10**6, **fault)
    sent = []
    record = RateLimiter.record
    monkeypatch.setattr(
        RateLimiter, "record", lambda limiter, number, rate: (sent.append(number), record(limiter, number, rate))
    )

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll_until_shared()
        await cancel(*waits.tasks)

    waiting(scenario)

    assert max(sent) == 1


@pytest.mark.parametrize("headers", ["never", "when_on"])
def test_poll_of_many_requests_completes_within_the_rate_limit(emulator, clock, headers):
    """If it started again after each 429, it would never end."""
    emulator.control("PATCH", "flags", rate_limit="on", spike_limit=25, rate_headers=headers)
    start(emulator, 60)
    wait = ProcoreResponseRequestedWaitTrigger(
        procore_conn_id="procore_default",
        company_id=None,
        tool_types=[TOOL],
        project_ids=["1001"],
        user=None,
        poll_interval=60.0,
        deadline=clock.deadline(3600),
    )

    async def scenario():
        return await wait_for(wait)

    payload = clock.run(scenario())

    assert payload["status"] == "done"
    assert len(payload["result"]) == 61
    assert len(emulator.requests()) <= 61 + 12
    assert [request for request in emulator.requests() if request["status"] == 429][3:] == []


@pytest.mark.parametrize("status", [400, 403, 404])
def test_one_rejected_legacy_list_costs_one_poll(emulator, waiting, status):
    ids = legacy(emulator, 30)
    emulator.control("POST", "faults", path="workflow_instances$", status=status)

    async def scenario(waits):
        waits.start(*(legacy_wait(instance_id) for instance_id in ids))
        rejected, _, calm = await waits.poll(), await waits.poll(), await waits.poll()
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return rejected, calm, statuses

    rejected, calm, statuses = waiting(scenario)

    assert statuses == [None] * 30
    # After a 400 a smaller page is tried, which succeeds here.
    assert rejected == {LIST: 2 if status == 400 else 1, SHOW: 30}
    assert calm == {LIST: 1}


def test_a_maintenance_page_of_the_login_server_ends_no_wait(emulator, waiting):
    started = start(emulator, 3)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll()
        page = {"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>Back in a minute</html>"}
        emulator.control("POST", "faults", path="oauth/token", times=2, **page)
        emulator.control("POST", "tokens/revoke")
        await waits.poll()
        await waits.poll()
        end(emulator, *(instance_id for instance_id, _ in started))
        await waits.poll()
        return waits.statuses()

    assert waiting(scenario) == ["done"] * 3


def test_secrets_backend_outage_ends_no_wait(emulator, waiting, monkeypatch):
    """Airflow says of it that the connection is not defined."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    started = start(emulator, 3)
    look_up = hooks.get_async_connection
    away = False

    async def looked_up(conn_id):
        if away:
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
        return await look_up(conn_id)

    monkeypatch.setattr(hooks, "get_async_connection", looked_up)

    async def scenario(waits):
        nonlocal away
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll()
        away = True
        for _ in range(40):
            await waits.poll()
        end(emulator, *(instance_id for instance_id, _ in started[:2]))
        await waits.poll()
        served = waits.statuses()
        for _ in range(60):  # but not for ever: a user may have deleted it
            await waits.poll()
        return served, waits.tasks[2].result()

    served, last = waiting(scenario)

    assert served == ["done", "done", None]
    assert last["error"] == "ConfigurationError"
    assert "PROCORE_DEFAULT" in last["message"]


def test_gateway_page_instead_of_an_instance_ends_only_its_wait(emulator, waiting):
    broken, *others = legacy(emulator, 3)
    page = {"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>Busy</html>"}
    emulator.control("POST", "faults", path=f"workflow_instances/{broken}$", times=50, **page)

    async def scenario(waits):
        waits.start(*(legacy_wait(instance_id) for instance_id in (broken, *others)))
        for _ in range(10):
            await waits.poll()
        before = waits.statuses()
        await waits.poll()
        statuses = waits.statuses()
        error = waits.tasks[0].result()["error"]
        await cancel(*waits.tasks)
        return before, statuses, error

    assert waiting(scenario) == ([None] * 3, ["error", None, None], "UnexpectedResponse")


def test_legacy_instance_with_an_object_status_is_shown(emulator, waiting, monkeypatch):
    """`show` returns the object's status, if it has one; the list returns the state's."""
    ids = legacy(emulator, 5)
    own = {"status": "Sent Out"}
    show = ProcoreLegacyHook.get_instance

    def shown(self, instance_id):
        instance = show(self, instance_id)
        state = {**instance["current_workflow_state"], **(own if instance_id == ids[0] else {})}
        return {**instance, "current_workflow_state": state}

    monkeypatch.setattr(ProcoreLegacyHook, "get_instance", shown)

    async def scenario(waits):
        waits.start(*(legacy_wait(instance_id, until=["Signed"]) for instance_id in ids))
        await waits.poll()
        calm = await waits.poll()
        own["status"] = "Signed"
        await waits.poll()
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return calm, statuses

    calm, statuses = waiting(scenario)

    assert calm == {LIST: 1, SHOW: 1}
    assert statuses == ["done", None, None, None, None]


def test_poll_that_failed_at_the_histories_is_repeated(emulator, waiting):
    first, *others = legacy(emulator, 3)
    activity = {"activity": "Submit for Approval", "login": "integration@example.com"}
    emulator.control("POST", "procore/legacy/instances/perform-many", ids=[first], **activity)
    hook = ProcoreLegacyHook()
    now = rules.describe_instance(hook.get_instance(first))
    # The action was in the same occurrence as far as the times show; only a later row of the histories shows another.
    acted = pendulum.parse(now["state_set_at"]).subtract(seconds=1).to_iso8601_string()
    times = {"at": acted, "state_set_at": now["state_set_at"]}
    wait = legacy_wait(first, until=[now["state"]], after={"history_id": "0", "state_id": now["state_id"], **times})

    async def scenario(waits):
        emulator.control("POST", "faults", path="workflow_activity_histories$", status=503)
        waits.start(wait, *(legacy_wait(other) for other in others))
        for _ in range(3):
            await waits.poll()
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return statuses

    assert waiting(scenario) == ["done", None, None]


def test_decision_is_noticed_before_all_new_waits_were_polled(emulator, clock):
    emulator.control("PATCH", "flags", bulk_history="absent")
    connection = json.loads(os.environ["AIRFLOW_CONN_PROCORE_DEFAULT"])
    connection["extra"] |= {"requests_per_hour": 600}
    started = start(emulator, 600)

    async def scenario():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_PROCORE_DEFAULT", json.dumps(connection))
            tasks = [wait_for(v2_wait(*ids)) for ids in started]
            await asyncio.sleep(1000)
            end(emulator, started[0][0])
            started_at = clock.elapsed
            await tasks[0]
            took = clock.elapsed - started_at
            await cancel(*tasks)
            return took

    assert clock.run(scenario()) < 1800  # all 600 polls take more than an hour


# --- what a task's log shows ---


def test_change_of_step_or_assignees_is_logged_once(emulator, waiting, capsys):
    def lines():
        return [line for line in capsys.readouterr().out.splitlines() if "Waiting for" in line]

    async def scenario(waits):
        wait = v2_wait("700001", "5001", last_step=["70000101", "integration@example.com"])
        waits.start(wait)
        await waits.poll()
        first, known = lines(), wait.last_step
        await waits.poll()
        same = lines()
        emulator.control("POST", "procore/instances/700001/respond", login="integration@example.com", option="Approve")
        await waits.poll()
        await waits.poll()
        changed = lines()
        await cancel(*waits.tasks)
        return first, known, same, changed

    first, known, same, changed = waiting(scenario)

    assert len(first) == (known != ["70000101", "integration@example.com"])
    assert same == []
    assert len(changed) == 1
    assert changed[0].index("dana@example.com") < changed[0].index("Director Approval")


def with_due_date(value, due):
    """Replace every due date in a response."""
    if isinstance(value, dict):
        return {name: due if name == "due_date" and item else with_due_date(item, due) for name, item in value.items()}
    return [with_due_date(item, due) for item in value] if isinstance(value, list) else value


def due_dates() -> dict:
    """Watch for steps whose due date has passed."""
    return {"levels": [Level(notify=print).to_dict()], "escalation": Escalation().to_dict(), "next": None}


def test_a_due_date_that_has_moved_makes_no_step_overdue(emulator, waiting, monkeypatch):
    """Without a bulk history an unchanged row in the list decides, and it does not show the due date."""
    emulator.control("PATCH", "flags", bulk_history="absent")
    started = start(emulator, 3)
    due = [pendulum.now("UTC").add(minutes=4).to_iso8601_string()] * 3
    show = ProcoreHook.get_instance_history

    def shown(self, instance_id, **more):
        number = [started_id for started_id, _ in started].index(instance_id)
        return with_due_date(show(self, instance_id, **more), due[number])

    monkeypatch.setattr(ProcoreHook, "get_instance_history", shown)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids, overdue_watch=due_dates()) for ids in started))
        for _ in range(2):
            await waits.poll()
        due[1:] = [pendulum.now("UTC").add(days=30).to_iso8601_string()] * 2
        for _ in range(5):
            await waits.poll()
        statuses = waits.statuses()
        await cancel(*waits.tasks)
        return statuses

    assert waiting(scenario) == ["overdue", None, None]
