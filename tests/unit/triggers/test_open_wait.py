"""The XCom by which people see, while a task is deferred, whom its wait is pending with."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.rules.open_wait import OPEN_WAIT, OpenWait
from tests.unit.polling.conftest import INTERVAL, cancel, end, legacy_wait, start, v2_wait

pytestmark = pytest.mark.usefixtures("airflow_connections")


@pytest.fixture
def stored(monkeypatch) -> list[tuple[str, OpenWait]]:
    """The XComs that were stored, each with the id of its task."""
    found: list[tuple[str, OpenWait]] = []

    async def store(task_instance, key, value):
        assert key == OPEN_WAIT
        found.append((task_instance.task_id, OpenWait.from_dict(value)))

    monkeypatch.setattr(version_compat, "TRIGGERS_STORE_XCOMS", True)
    monkeypatch.setattr(version_compat, "astore_xcom", store)
    return found


def of_task(trigger, task_id="wait", try_number=1):
    trigger.task_instance = SimpleNamespace(
        dag_id="dag", run_id="run", task_id=task_id, map_index=-1, try_number=try_number
    )
    return trigger


def recorded(emulator) -> str:
    """Return the fingerprint of the description that a worker has stored about the wait for instance 700001."""
    from airflow_provider_workflows.hooks.procore import ProcoreHook

    wait = v2_wait("700001", "5001")
    wait.poll_once(ProcoreHook())
    return wait.open_wait(1).fingerprint


def respond(emulator, login="integration@example.com"):
    emulator.control("POST", "procore/instances/700001/respond", login=login, option="Approve")


def test_xcom_follows_the_step_and_only_the_step(emulator, waiting, stored):
    async def scenario(waits):
        waits.start(of_task(v2_wait("700001", "5001", recorded=recorded(emulator))))
        for _ in range(3):
            await waits.poll()
        unchanged = list(stored)
        respond(emulator)
        for _ in range(3):
            await waits.poll()
        return unchanged

    unchanged = waiting(scenario)

    ((task_id, wait),) = stored
    assert unchanged == []
    assert (task_id, wait.step, wait.assignees) == ("wait", "Director Approval", ("dana@example.com",))
    assert (wait.instance_id, wait.item_id, wait.try_number) == ("700001", "5001", 1)


def test_first_poll_corrects_what_the_worker_has_stored(emulator, waiting, stored):
    async def scenario(waits):
        fingerprint = recorded(emulator)
        respond(emulator)
        waits.start(of_task(v2_wait("700001", "5001", recorded=fingerprint)))
        await waits.poll()

    waiting(scenario)

    assert [wait.step for _, wait in stored] == ["Director Approval"]


def test_overdue_step_is_stored_when_the_clock_has_moved(emulator, waiting, stored):
    async def scenario(waits):
        waits.start(of_task(v2_wait("700001", "5001", recorded=recorded(emulator))))
        await waits.poll()
        emulator.control("POST", "clock", advance=10 * 24 * 3600)
        await waits.poll()

    waiting(scenario)

    assert [(wait.step, wait.is_overdue) for _, wait in stored] == [("Budget Check", True)]


def test_outage_is_stored_once_and_its_end(emulator, waiting, stored, monkeypatch):
    monkeypatch.setenv("AIRFLOW__WORKFLOWS__REJECTION_PATIENCE", str(3 * INTERVAL))

    async def scenario(waits):
        waits.start(of_task(v2_wait("700001", "5001", recorded=recorded(emulator))))
        await waits.poll()
        emulator.control("POST", "faults", method="GET", times=10**6, status=503)
        emulator.control("POST", "faults", method="POST", path="history", times=10**6, status=503)
        for _ in range(8):
            await waits.poll()
        emulator.control("DELETE", "faults")
        for _ in range(3):
            await waits.poll()

    waiting(scenario)

    assert [bool(wait.last_error) for _, wait in stored] == [True, False]
    assert {wait.step for _, wait in stored} == {"Budget Check"}


def test_nothing_is_stored_before_the_trigger_has_polled(emulator, waiting, stored):
    """A trigger that starts in an outage knows less than the worker has stored."""

    async def scenario(waits):
        wait = of_task(v2_wait("700001", "5001", recorded=recorded(emulator)))
        wait.report_outage("The server is not available.")
        await asyncio.sleep(1)

    waiting(scenario)

    assert stored == []


def test_xcom_that_cannot_be_stored_does_not_disturb_the_wait(emulator, waiting, monkeypatch, capsys):
    tried = []

    async def fail(task_instance, key, value):
        tried.append(key)
        raise RuntimeError("the metadata database is locked")

    monkeypatch.setattr(version_compat, "TRIGGERS_STORE_XCOMS", True)
    monkeypatch.setattr(version_compat, "astore_xcom", fail)

    async def scenario(waits):
        waits.start(of_task(v2_wait("700001", "5001")))
        for _ in range(6):
            await waits.poll()
        end(emulator, "700001")
        await waits.poll()
        return waits.statuses()

    assert waiting(scenario) == ["done"]
    assert len(tried) == 3
    assert capsys.readouterr().out.count("the metadata database is locked") == 1


def test_xcom_that_takes_long_does_not_delay_the_wait(emulator, waiting, monkeypatch):
    async def hang(task_instance, key, value):
        await asyncio.sleep(10**6)

    monkeypatch.setattr(version_compat, "TRIGGERS_STORE_XCOMS", True)
    monkeypatch.setattr(version_compat, "astore_xcom", hang)

    async def scenario(waits):
        waits.start(of_task(v2_wait("700001", "5001")))
        await waits.poll()
        end(emulator, "700001")
        await waits.poll()
        return waits.statuses()

    assert waiting(scenario) == ["done"]


def test_waits_store_their_xcoms_one_after_another(emulator, waiting, monkeypatch):
    running, most = 0, 0
    stored = []

    async def store(task_instance, key, value):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1
        stored.append(task_instance.task_id)

    monkeypatch.setattr(version_compat, "TRIGGERS_STORE_XCOMS", True)
    monkeypatch.setattr(version_compat, "astore_xcom", store)

    async def scenario(waits):
        started = start(emulator, 20)
        waits.start(*(of_task(v2_wait(*ids), task_id=ids[0]) for ids in started))
        await waits.poll()
        await waits.poll()
        return [instance_id for instance_id, _ in started]

    assert sorted(waiting(scenario)) == sorted(stored)
    assert most == 1


def test_wait_that_has_ended_stores_nothing_more(emulator, waiting, stored, monkeypatch):
    async def slow(task_instance, key, value):
        await asyncio.sleep(3 * INTERVAL)
        stored.append((task_instance.task_id, OpenWait.from_dict(value)))

    monkeypatch.setattr(version_compat, "astore_xcom", slow)

    async def scenario(waits):
        (first, second) = start(emulator, 2)
        waits.start(*(of_task(v2_wait(*ids), task_id=ids[0]) for ids in (first, second)))
        await waits.poll()  # the first one is being stored, the second one waits for it
        end(emulator, first[0], second[0])
        for _ in range(8):
            await waits.poll()
        return waits.statuses()

    assert waiting(scenario) == ["done", "done"]
    assert len(stored) == 1


def test_legacy_wait_that_no_poll_has_read_stores_nothing(emulator, waiting, stored):
    """The list shows that nothing has changed since the worker has stored the description."""
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

    on_worker = legacy_wait("568151", until=["Accepted"])
    on_worker.poll_once(ProcoreLegacyHook())

    async def scenario(waits):
        wait = of_task(legacy_wait("568151", until=["Accepted"], mark=on_worker.mark, recorded="other"))
        waits.start(wait)
        await waits.poll()
        return wait.is_polled

    assert (waiting(scenario), stored) == (False, [])


def test_nothing_is_stored_where_airflow_cannot(emulator, waiting, stored, monkeypatch):
    monkeypatch.setattr(version_compat, "TRIGGERS_STORE_XCOMS", False)

    async def scenario(waits):
        wait = of_task(v2_wait("700001", "5001"))
        waits.start(wait)
        await waits.poll()
        await cancel(*waits.tasks)

    waiting(scenario)

    assert stored == []
