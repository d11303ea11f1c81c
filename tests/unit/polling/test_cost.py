"""The cost of a poll: requests grow with pages and batches, not with waits."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from types import SimpleNamespace

import pytest

from airflow_provider_workflows.polling.workflowsoft import IntegrationStepScope
from airflow_provider_workflows.rules.escalation import Escalation, Level
from airflow_provider_workflows.rules.patience import DEFAULT_PATIENCE_SECONDS
from airflow_provider_workflows.triggers.procore import ProcoreAsyncOperationWaitTrigger, ProcoreInstanceWaitTrigger
from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger
from tests.support.sizes import tenth_and_full
from tests.unit.polling.conftest import (
    HISTORY,
    INTERVAL,
    LEGACY_WORKFLOW,
    SHOW,
    RequestCounts,
    cancel,
    emulator_with,
    end,
    legacy_wait,
    start,
    v2_wait,
)

pytestmark = pytest.mark.usefixtures("airflow_connections")

BULK, LIST = "instances/bulk_history", "workflow_instances"


# --- Workflows v2 ---


def test_120_waits_of_a_tool_take_three_calls_a_poll_while_some_end(emulator, waiting):
    started = start(emulator, 120)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        polls = [await waits.poll()]
        end(emulator, *(instance_id for instance_id, _ in started[:30]))
        polls += [await waits.poll(), await waits.poll()]
        assert waits.statuses() == ["done"] * 30 + [None] * 90
        return polls

    assert waiting(scenario) == [{BULK: 3}, {BULK: 3}, {BULK: 2}]


def test_many_waits_for_one_item_request_it_once(emulator, waiting):
    async def scenario(waits):
        waits.start(*(v2_wait("700001", "5001") for _ in range(300)))
        return await waits.poll()

    assert waiting(scenario) == {BULK: 1}


def test_hidden_items_split_their_batch_once_not_at_each_poll(emulator, waiting):
    started = start(emulator, 60)
    hidden = [started[7][0], started[33][0]]
    for instance_id in hidden:
        emulator.control("POST", f"procore/instances/{instance_id}/hide", hidden=True)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        first, second = await waits.poll(), await waits.poll()
        for _ in range(9):
            await waits.poll()
        statuses = waits.statuses()
        return first, second, statuses, [await waits.poll() for _ in range(3)]

    first, second, statuses, later = waiting(scenario)

    assert first[BULK] <= 2 + 4 * 6  # each of the two is found by halving
    rejected = [ids[0] for ids, status in zip(started, statuses, strict=True) if status is not None]
    assert rejected == hidden
    assert second == {BULK: 2, HISTORY: 2}
    assert later == [{BULK: 2}] * 3


def test_hidden_item_ends_its_wait_and_no_other(emulator, waiting):
    started = start(emulator, 20)
    emulator.control("POST", f"procore/instances/{started[0][0]}/hide", hidden=True)

    async def scenario(waits):
        end(emulator, *(instance_id for instance_id, _ in started[1:]))
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll()
        first = waits.statuses()
        for _ in range(10):
            await waits.poll()
        return first, waits.statuses()

    assert waiting(scenario) == ([None] + ["done"] * 19, ["error"] + ["done"] * 19)


def test_item_with_a_hidden_instance_is_polled_without_splitting(emulator, waiting):
    started = start(emulator, 20)
    emulator.control("POST", "procore/instances/700001/terminate")
    new = emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="5001")["id"]
    emulator.control("POST", "procore/instances/700001/hide", hidden=True)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in [*started, (new, "5001")]))
        polls = [await waits.poll() for _ in range(3)]
        assert set(waits.statuses()) == {None}
        end(emulator, new)
        await waits.poll()
        return polls, waits.results()

    (first, *later), (result,) = waiting(scenario)

    assert first[BULK] > 2
    assert later == [{BULK: 1, HISTORY: 1}] * 2
    assert (result["instance_id"], result["state"]) == (new, "complete")


def test_how_many_items_a_call_takes_is_learned_once(emulator, waiting):
    emulator.control("PATCH", "flags", bulk_history_limit=10)
    started = start(emulator, 100)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        return [await waits.poll() for _ in range(3)], waits.statuses()

    (first, *later), statuses = waiting(scenario)

    assert set(statuses) == {None}
    assert set(first) == {BULK}
    assert later == [later[0]] * 2
    assert later[0][BULK] <= 17  # batches of 50, halved until there are few enough: of 6


@pytest.mark.parametrize("too_many", [400, 413])
def test_both_responses_to_too_many_items_are_understood(emulator, waiting, too_many):
    emulator.control("PATCH", "flags", bulk_history_limit=30, bulk_history_too_many=too_many)
    started = start(emulator, 50)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        return [await waits.poll() for _ in range(2)]

    assert waiting(scenario) == [{BULK: 3}, {BULK: 2}]


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_item_that_fails_bulk_requests_delays_no_other(emulator, waiting, status):
    started = start(emulator, 20)
    bad = started[13][1]

    async def scenario(waits):
        # The emulator's faults do not read bodies, so the hook does it.
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll()
        end(emulator, *(instance_id for instance_id, item_id in started if item_id != bad))
        polls = 0
        while waits.statuses().count("done") < 19:
            polls += 1
            await waits.poll()
            assert polls < 8
        return polls

    with spoiled(bad, status):
        polls = waiting(scenario)

    assert polls <= (6 if status == 500 else 1)  # a 500 is halved from poll to poll


def spoiled(item_id, status):
    """Respond to every call that names an item with a status."""
    from airflow_provider_workflows.client.http import RestClient
    from airflow_provider_workflows.exceptions import InvalidRequest, NotFound, PermissionDenied, ServerError

    errors = {400: InvalidRequest, 403: PermissionDenied, 404: NotFound, 500: ServerError}
    call = RestClient.call

    def spoil(client, method, path, **kwargs):
        if item_id in ((kwargs.get("json") or {}).get("item_ids") or ()):
            raise errors[status]("Spoiled", method=method, path=path, status_code=status)
        return call(client, method, path, **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(RestClient, "call", spoil)
    return _Undone(patch)


class _Undone:
    def __init__(self, patch):
        self.patch = patch

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.patch.undo()


@pytest.mark.sample(1)
@pytest.mark.parametrize("there", ["absent", "not_allowed"])
def test_active_instances_are_listed_without_a_bulk_history(emulator, waiting, there, caplog):
    emulator.control("PATCH", "flags", bulk_history=there)
    started = start(emulator, 130)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll_until_shared()
        calm = [await waits.poll(), await waits.poll()]
        emulator.control("POST", "clock", advance=60)
        end(emulator, *(instance_id for instance_id, _ in started[:7]))
        changed = await waits.poll()
        return calm, changed, waits.statuses()

    calm, changed, statuses = waiting(scenario)

    assert calm == [{"instances": 2, HISTORY: 5}] * 2  # two pages, and the polls of a few unchanged ones
    assert statuses == ["done"] * 7 + [None] * 123
    assert changed["instances"] == 2
    assert 7 <= changed[HISTORY] <= 12
    assert len([record for record in caplog.records if "lists active instances" in record.message]) == 1


def test_change_without_updated_at_is_noticed_by_the_extra_polls(emulator, waiting):
    emulator.control("PATCH", "flags", bulk_history="absent", updated_at="start_only")
    started = start(emulator, 10)

    async def scenario(waits):
        reached = {"step_reached": ["Director Approval"], "until": []}
        waits.start(*(v2_wait(*ids, **reached) for ids in started))
        await waits.poll()
        response = {"login": "integration@example.com", "option": "Approve"}
        emulator.control("POST", "procore/instances/respond-many", ids=[started[3][0], started[9][0]], **response)
        await waits.poll()
        await waits.poll()
        return waits.statuses()

    statuses = waiting(scenario)

    assert [number for number, status in enumerate(statuses) if status == "done"] == [3, 9]


@pytest.mark.parametrize("by_item", [False, True])
def test_bulk_history_without_instance_ids_serves_each_wait(emulator, waiting, by_item):
    emulator.control("PATCH", "flags", bulk_history="no_instance_ids")
    restarted = "5001"
    emulator.control("POST", "procore/instances/700001/terminate")
    new = emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id=restarted)["id"]

    async def scenario(waits):
        waits.start(v2_wait(None if by_item else new, restarted, until=["complete"]))
        before = [await waits.poll() for _ in range(3)]
        assert waits.statuses() == [None]
        end(emulator, new)
        await waits.poll()
        return before, waits.results()

    before, (result,) = waiting(scenario)

    assert (result["instance_id"], result["item_status"]) == (new, "Rejected")
    assert before[1:] == [{BULK: 1}] * 2  # nothing changed, so there was nothing to poll


def test_items_with_one_instance_each_need_no_instance_ids(emulator, waiting):
    emulator.control("PATCH", "flags", bulk_history="no_instance_ids")
    started = start(emulator, 20)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        return [await waits.poll() for _ in range(2)]

    assert waiting(scenario) == [{BULK: 1}] * 2


def test_429_on_a_later_page_makes_no_wait_poll_individually(emulator, waiting):
    emulator.control("PATCH", "flags", bulk_history="absent")
    started = start(emulator, 130)

    async def scenario(waits):
        waits.start(*(v2_wait(*ids) for ids in started))
        await waits.poll_until_shared()
        rejection = {"status": 429, "headers": {"Retry-After": "20"}}
        emulator.control("POST", "faults", method="GET", path="/workflows/instances$", skip=1, **rejection)
        rejected = await waits.poll()
        calm = await waits.poll()
        return rejected, calm, set(waits.statuses())

    rejected, calm, statuses = waiting(scenario)

    assert statuses == {None}
    assert rejected["instances"] + calm["instances"] >= 5  # with the one that was rejected
    assert rejected[HISTORY] + calm[HISTORY] <= 15


def test_waits_for_both_instances_of_an_item_end_each_with_its_own(emulator, waiting):
    emulator.control("POST", "procore/instances/700001/terminate")
    new = emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="5001")["id"]

    async def scenario(waits):
        waits.start(v2_wait("700001", "5001"), v2_wait(new, "5001"), v2_wait(None, "5001"))
        await waits.poll()
        first = waits.statuses()
        end(emulator, new)
        await waits.poll()
        return first, waits.results()

    first, results = waiting(scenario)

    assert first == ["done", None, None]
    assert [(instance["instance_id"], instance["state"]) for instance in results] == [
        ("700001", "terminated"),
        (new, "complete"),
        (new, "complete"),
    ]


def test_wait_without_an_item_joins_the_shared_poll_later(emulator, waiting):
    async def scenario(waits):
        waits.start(v2_wait("700001", None, tool_type=None), *(v2_wait(*ids) for ids in start(emulator, 10)))
        polls = [await waits.poll() for _ in range(4)]
        end(emulator, "700001")
        await waits.poll()
        return polls, waits.results()

    polls, (result,) = waiting(scenario)

    assert polls[0] == {BULK: 1, SHOW: 1, HISTORY: 1}
    assert polls[2:] == [{BULK: 1}] * 2
    assert (result["instance_id"], result["item_id"]) == ("700001", "5001")


# --- an overdue step ---


def watch(escalation: dict | None = None) -> dict:
    """Watch for steps that are pending for more than two and a half intervals."""
    level = Level(after=timedelta(seconds=2.5 * INTERVAL), notify=print)
    return {"levels": [level.to_dict()], "escalation": escalation or Escalation().to_dict(), "next": None}


def test_only_changed_histories_are_evaluated_again(emulator, waiting, monkeypatch):
    evaluated = []
    snapshot = ProcoreInstanceWaitTrigger._snapshot
    monkeypatch.setattr(
        ProcoreInstanceWaitTrigger,
        "_snapshot",
        lambda wait, history, instance_id: evaluated.append(instance_id) or snapshot(wait, history, instance_id),
    )

    async def scenario(waits):
        started = start(emulator, 20)
        waits.start(*(v2_wait(*ids) for ids in started))
        for _ in range(3):
            await waits.poll()
        first = sorted(evaluated)
        end(emulator, started[7][0])
        await waits.poll()
        return [instance_id for instance_id, _ in started], first, evaluated[20:], waits.statuses()

    started, first, later, statuses = waiting(scenario)

    assert first == sorted(started)
    assert later == [started[7]]
    assert statuses == [None] * 7 + ["done"] + [None] * 12


@pytest.mark.parametrize("there", ["present", "absent"])
def test_overdue_watch_takes_no_request(emulator, waiting, there):
    if there == "absent":
        emulator.control("PATCH", "flags", bulk_history="absent")

    async def scenario(waits):
        started = start(emulator, 40)
        waits.start(
            *(v2_wait(*ids, overdue_watch=watch()) for ids in started[:30]), *(v2_wait(*ids) for ids in started[30:])
        )
        polls = [await waits.poll() for _ in range(2)]
        assert set(waits.statuses()) == {None}
        polls += [await waits.poll() for _ in range(2)]
        return polls, waits.statuses()

    polls, statuses = waiting(scenario)

    assert statuses == ["overdue"] * 30 + [None] * 10
    if there == "present":
        assert polls == [{BULK: 1}] * 4
    else:
        assert polls[-1] == {"instances": 1, HISTORY: 5}


def test_overdue_step_resumes_a_task_only_once(emulator, waiting):
    async def scenario(waits):
        waits.start(v2_wait("700001", "5001", overdue_watch=watch()))
        for _ in range(4):
            await waits.poll()
        (event,) = [task.result() for task in waits.tasks]
        done = {event["step_occurrence_id"]: {"1": [1, 0.0]}}
        waits.start(v2_wait("700001", "5001", overdue_watch=watch({**event["escalation"], "reached": done})))
        for _ in range(3):
            await waits.poll()
        return waits.statuses()

    assert waiting(scenario) == ["overdue", None]


def test_levels_of_a_ladder_resume_a_task_one_after_the_other(emulator, waiting):
    levels = [Level(after=timedelta(seconds=number * INTERVAL), notify=print).to_dict() for number in (1.5, 5.5)]

    async def scenario(waits):
        escalation, reached = Escalation().to_dict(), []
        for number in (1, 2):
            overdue_watch = {"levels": levels, "escalation": escalation, "next": None}
            waits.start(v2_wait("700001", "5001", overdue_watch=overdue_watch))
            for polls in range(1, 10):
                assert await waits.poll() == {BULK: 1} or polls == 1
                if waits.tasks[-1].done():
                    break
            event = waits.tasks[-1].result()
            reached.append((event["level"], polls))
            done = {event["step_occurrence_id"]: {str(level): [1, 0.0] for level in range(1, number + 1)}}
            escalation = {**escalation, "reached": done}
        return reached

    (first, polls), (second, more_polls) = waiting(scenario)

    assert (first, second) == (1, 2)
    assert polls < more_polls


def test_an_overdue_legacy_state_costs_each_wait_one_poll(emulator, waiting, store):
    from tests.unit.sensors.test_procore import deferred
    from tests.unit.sensors.test_procore_legacy import sensor

    sensors = [sensor(until={"PO Approved"}, on_overdue=print, overdue_after=2.5 * INTERVAL) for _ in range(3)]
    triggers = [deferred(sensor, {"task_state_store": store}).trigger for sensor in sensors]

    async def scenario(waits):
        for trigger in triggers:
            waits.start(type(trigger)(**{**trigger.serialize()[1], "poll_interval": INTERVAL, "deadline": None}))
        polls = [await waits.poll() for _ in range(2)]
        assert set(waits.statuses()) == {None}
        polls.append(await waits.poll())
        return polls, waits.statuses()

    assert waiting(scenario) == ([{LIST: 1}, {LIST: 1}, {LIST: 1, SHOW: 3}], ["overdue"] * 3)


# --- Legacy ---


@pytest.mark.sample(1)
@tenth_and_full("instances", 10_000)
@pytest.mark.parametrize("spread", [False, True])
def test_legacy_waits_cost_a_request_per_page_and_per_change(clock, waiting, emulator, instances, spread):
    many, at_once = instances // 20, 2000  # rows of a page
    with emulator_with("large") if instances == 10_000 else contextlib.nullcontext(emulator) as emulator:
        if instances != 10_000:
            emulator.control("POST", "procore/legacy/instances/many", count=instances, workflow=LEGACY_WORKFLOW)
        rows = [row for row in emulator.control("GET", "state")["procore_legacy"] if row["state"] == "Start"]
        every = len(rows) // many if spread else 1
        chosen = [row["id"] for row in rows[: many * every : every]]
        pages = math.ceil(instances / at_once) + 1 if spread else 1

        async def scenario(waits):
            waits.emulator, waits.counts = emulator, RequestCounts(emulator)
            waits.start(*(legacy_wait(instance_id) for instance_id in chosen))
            await waits.poll_until_shared()
            calm = [await waits.poll(), await waits.poll()]
            activity = {"login": "integration@example.com", "activity": "Submit for Approval"}
            emulator.control("POST", "procore/legacy/instances/perform-many", ids=chosen[:8], **activity)
            changed = await waits.poll()
            activity = {"login": "rita@example.com", "activity": "Approve"}
            emulator.control("POST", "procore/legacy/instances/perform-many", ids=chosen[:8], **activity)
            ended = await waits.poll()
            return calm, changed, ended, waits.statuses()

        calm, changed, ended, statuses = waiting(scenario)

    assert [set(poll) for poll in calm] == [{LIST}] * 2
    assert all(poll[LIST] <= pages for poll in calm)
    assert (changed[SHOW], ended[SHOW]) == (8, 8)
    assert changed[LIST] <= pages
    assert statuses == ["done"] * 8 + [None] * (many - 8)


def test_legacy_wait_polled_by_a_worker_costs_no_further_request(emulator, waiting, store):
    from tests.unit.sensors.test_procore import deferred
    from tests.unit.sensors.test_procore_legacy import sensor

    trigger = deferred(sensor(until={"PO Approved"}), {"task_state_store": store}).trigger

    async def scenario(waits):
        waits.start(type(trigger)(**{**trigger.serialize()[1], "poll_interval": INTERVAL, "deadline": None}))
        return [await waits.poll() for _ in range(2)]

    assert waiting(scenario) == [{LIST: 1}] * 2


def test_legacy_waits_of_a_company_share_one_list(emulator, waiting):
    async def scenario(waits):
        waits.start(*(legacy_wait("568150", project_id=project, mark="seen") for project in ("1001", "1002", None)))
        await waits.poll()
        return await waits.poll()

    assert waiting(scenario) == {LIST: 1}


def test_forbidden_legacy_list_is_logged_once_polls_continue(emulator, waiting, caplog):
    emulator.control("PATCH", "flags", legacy_list="forbidden")
    many = emulator.control("POST", "procore/legacy/instances/many", count=9, workflow=LEGACY_WORKFLOW)["ids"]

    async def scenario(waits):
        waits.start(*(legacy_wait(instance_id) for instance_id in many))
        polls = [await waits.poll() for _ in range(4)]
        emulator.control("POST", f"procore/legacy/instances/{many[4]}/terminate", login="pat@example.com")
        polls.append(await waits.poll())
        return polls, waits.statuses()

    polls, statuses = waiting(scenario)

    # It is believed at the third time, and tried again after an hour.
    assert polls == [{LIST: 1, SHOW: 9}] * 3 + [{SHOW: 9}] * 2
    assert statuses == [None] * 4 + ["done"] + [None] * 4
    assert len([record for record in caplog.records if "polling each instance individually" in record.message]) == 1


def test_missing_legacy_instance_ends_only_its_own_wait(emulator, waiting):
    async def scenario(waits):
        waits.start(legacy_wait("4711"), legacy_wait("568150"), legacy_wait("568151"))
        for _ in range(11):
            await waits.poll()
        return waits.statuses(), waits.tasks[0].result()["error"]

    assert waiting(scenario) == (["error", None, None], "NotFound")


# --- Workflowsoft ---


def step_wait(emulator, **more):
    usual = {"workflowsoft_conn_id": "workflowsoft_default", "diagram": "Event planning", "step": "Check event"}
    found = {"diagram_id": "1", "step_id": "101", "title": "Check event", "server": emulator.url.partition("://")[2]}
    timing = {"poll_interval": INTERVAL, "deadline": None}
    return WorkflowsoftIntegrationWaitTrigger(**{**usual, **found, **timing, **more})


def wait_by_titles(emulator):
    return step_wait(emulator, diagram_id=None, step_id=None, title=None, server=None)


def wait_by_id(emulator, step_id="101"):
    return step_wait(emulator, diagram=None, step=None, diagram_id=None, step_id=step_id, title=None, server=None)


@pytest.fixture
def listed_until_completed(emulator, reading_leaves_instances):
    emulator.control("PATCH", "flags", new_integration_shape="list")


@pytest.mark.usefixtures("listed_until_completed")
def test_waits_on_one_step_share_polls_and_get_one_instance_each(emulator, waiting):
    async def scenario(waits):
        waits.start(*(step_wait(emulator) for _ in range(40)))
        calm = [await waits.poll() for _ in range(2)]
        for _ in range(3):
            emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        polls = [await waits.poll() for _ in range(3)]
        return calm, polls, waits.statuses(), waits.results()

    calm, polls, statuses, results = waiting(scenario)

    assert calm == [{"new-integrations": 1}] * 2
    assert all(poll["new-integrations"] <= 2 for poll in polls)
    assert statuses.count("done") == 3
    handed = [row["integration_instance_id"] for result in results for row in result["instances"]]
    assert len(set(handed)) == len(handed) == 3


@pytest.mark.usefixtures("listed_until_completed")
def test_only_a_retry_of_the_task_gets_its_instance(emulator, waiting):
    def of_task(task_id, try_number=1):
        trigger = step_wait(emulator)
        ids = {"dag_id": "d", "run_id": "r", "task_id": task_id, "map_index": -1, "try_number": try_number}
        trigger.task_instance = SimpleNamespace(**ids)
        return trigger

    async def scenario(waits):
        emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        waits.start(of_task("a"), of_task("b"))
        await waits.poll()
        assert waits.statuses() == ["done", None]
        waits.start(of_task("c"), of_task("a", try_number=2))
        await waits.poll()
        return waits.statuses(), waits.results()

    statuses, results = waiting(scenario)

    assert statuses == ["done", None, None, "done"]
    assert results[0]["instances"] == results[1]["instances"]


@pytest.mark.usefixtures("listed_until_completed")
@pytest.mark.parametrize("had_received", [False, True])
def test_killed_wait_leaves_its_new_instance_to_others(emulator, waiting, monkeypatch, had_received):
    def of_task(task_id):
        trigger = step_wait(emulator)
        trigger.task_instance = SimpleNamespace(dag_id="d", run_id="r", task_id=task_id, map_index=-1, try_number=1)
        return trigger

    async def scenario(waits):
        emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        if had_received:
            waits.start(of_task("a"))
            await waits.poll()
            assert waits.statuses() == ["done"]
        with monkeypatch.context() as patch:
            patch.setattr("airflow_provider_workflows.polling.poll.MIN_FIRST_DELAY_SECONDS", 10 * INTERVAL)
            patch.setattr(IntegrationStepScope, "first_delay", lambda scope, interval: interval)
            waits.start(of_task("a"))
            await waits.poll()
            await waits.poll()
        await cancel(waits.tasks[-1])
        waits.tasks.clear()
        waits.start(of_task("b"))
        await waits.poll()
        await waits.poll()
        return waits.statuses()

    assert waiting(scenario) == [None if had_received else "done"]


@pytest.mark.usefixtures("listed_until_completed")
@pytest.mark.parametrize("titles_first", [True, False])
def test_an_instance_goes_to_one_wait_by_id_or_by_titles(emulator, waiting, titles_first):
    async def scenario(waits):
        by_titles, by_id = wait_by_titles(emulator), wait_by_id(emulator)
        waits.start(*((by_titles, by_id) if titles_first else (by_id, by_titles)))
        await waits.poll()
        await waits.poll()
        emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        for _ in range(70):  # longer than an hour: the row stays open
            await waits.poll()
        return waits.statuses()

    assert sorted(waiting(scenario), key=str) == [None, "done"]


@pytest.mark.usefixtures("listed_until_completed")
def test_wait_looks_its_step_up_again_on_another_server(emulator, waiting):
    async def scenario(waits):
        moved = step_wait(emulator, step_id="102", title="Check budget", server="elsewhere.example")
        waits.start(moved, wait_by_id(emulator, "102"))
        await waits.poll()
        emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
        for _ in range(3):
            await waits.poll()
        return waits.statuses(), waits.results()

    statuses, results = waiting(scenario)

    assert statuses == ["done", None]
    assert results[0]["place"] == {"diagram_id": "1", "step_id": "101", "step": "Check event"}


# --- waits that are polled singly ---


def test_unknown_operation_ends_only_its_own_wait(emulator, waiting):
    emulator.control("PATCH", "flags", operation_delay=10**6)

    def operation(operation_id):
        usual = {"procore_conn_id": "procore_default", "company_id": None, "poll_interval": INTERVAL, "deadline": None}
        return ProcoreAsyncOperationWaitTrigger(operation_ids=[operation_id], **usual)

    async def scenario(waits):
        waits.start(operation("4711"), v2_wait("700001", "5001"))
        await waits.poll()
        early = waits.statuses()
        for _ in range(int(DEFAULT_PATIENCE_SECONDS / INTERVAL) + 1):
            await waits.poll()
        return early, waits.statuses(), waits.tasks[0].result()["error"]

    assert waiting(scenario) == ([None, None], ["error", None], "NotFound")


@pytest.mark.sample(3)
@pytest.mark.parametrize("there", ["present", "absent"])
@pytest.mark.parametrize("unknown", [{"tool_type": "no_such_tool"}, {"project_id": "4711"}])
def test_unknown_tool_or_project_ends_the_waits_with_a_clear_error(emulator, waiting, there, unknown):
    emulator.control("PATCH", "flags", bulk_history=there)

    async def scenario(waits):
        waits.start(*(v2_wait(None, str(5001 + number), **unknown) for number in range(5)))
        for _ in range(15):
            await waits.poll()
        return [task.result() for task in waits.tasks if task.done()]

    ended = waiting(scenario)

    assert [event["status"] for event in ended] == ["error"] * 5
    assert {event["error"] for event in ended} <= {
        "NotFound",
        "InvalidRequest",
        "ConfigurationError",
        "PermissionDenied",
    }
