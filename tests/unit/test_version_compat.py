"""What is done on older Airflows, shown on the one that runs the tests."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from types import ModuleType, SimpleNamespace

import pytest

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.procore import ProcoreApprovalOperator
from tests.support.examples import result, run_source
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat


def test_airflow_3_0_gets_single_values_pushed_if_storable(monkeypatch):
    pushed: dict[str, object] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    monkeypatch.setattr(version_compat, "XCOM_HOLDS_NONE", False)

    version_compat.push_values({"ti": ti}, {"state": "complete", "step": None, "count": 0})
    version_compat.push_values({"ti": ti}, None)

    assert pushed == {"state": "complete", "count": 0}


def test_newer_airflows_push_them_by_themselves():
    version_compat.push_values({}, {"state": "complete"})

    assert version_compat.XCOM_HOLDS_NONE


@pytest.mark.parametrize("is_asynchronous", [True, False])
def test_a_token_is_masked_on_the_loop_or_away_from_it(monkeypatch, is_asynchronous):
    masked: list[str] = []
    log = ModuleType("airflow.sdk.log")
    log.mask_secret = masked.append
    if is_asynchronous:

        async def amask_secret(secret: str) -> None:
            masked.append(secret)

        log.amask_secret = amask_secret
    monkeypatch.setitem(sys.modules, "airflow.sdk.log", log)

    asyncio.run(version_compat.amask_secret("tok-12345"))

    assert masked == ["tok-12345"]


def test_an_extra_is_read_on_the_loop_or_away_from_it():
    class Older:
        extra_dejson = {"company_id": "7"}

    class Newer:
        async def aextra_dejson(self) -> dict[str, str]:
            return {"company_id": "8"}

    assert asyncio.run(version_compat.aread_extra(Older())) == {"company_id": "7"}
    assert asyncio.run(version_compat.aread_extra(Newer())) == {"company_id": "8"}


def test_before_airflow_3_3_a_task_has_no_store():
    assert version_compat.task_state_store({}) is None


def stats_module(name: str, **members) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


@pytest.mark.parametrize(("where", "layout"), [("new", "functions"), ("new", "Stats"), ("old", "Stats")])
def test_a_statistic_is_counted_in_every_airflow_version(monkeypatch, where, layout):
    counted: list[object] = []
    functions = {
        "incr": lambda name, count, *, tags: counted.append((name, count, tags)),
        "gauge": lambda name, value, *, tags: counted.append((name, value, tags)),
    }
    members = functions if layout == "functions" else {"Stats": SimpleNamespace(**functions)}
    new, old = "airflow.sdk.observability.stats", "airflow.stats"
    monkeypatch.setitem(sys.modules, new, stats_module(new, **members) if where == "new" else None)
    monkeypatch.setitem(sys.modules, old, stats_module(old, **members) if where == "old" else None)

    version_compat.count("workflows.suspected_lost_delivery", step_id="101")
    version_compat.count("workflows.requests", 3, connection="c")
    version_compat.gauge("workflows.waits", 2.5, connection="c")

    assert counted == [
        ("workflows.suspected_lost_delivery", 1, {"step_id": "101"}),
        ("workflows.requests", 3, {"connection": "c"}),
        ("workflows.waits", 2.5, {"connection": "c"}),
    ]


def test_this_airflow_counts_a_statistic(monkeypatch):
    counted: list[object] = []
    backend = SimpleNamespace(
        incr=lambda name, *count, **more: counted.append((name, more["tags"])),
        gauge=lambda name, value, *rate, **more: counted.append((name, value, more["tags"])),
    )
    if AIRFLOW >= (3, 3):
        monkeypatch.setattr("airflow.sdk._shared.observability.metrics.stats._backend", backend)
    else:
        stats = importlib.import_module("airflow.stats" if AIRFLOW < (3, 2) else "airflow.sdk.observability.stats")
        monkeypatch.setattr(stats.Stats, "instance", backend)
        monkeypatch.setattr(stats.Stats, "_instance_pid", os.getpid(), raising=False)

    version_compat.count("workflows.suspected_lost_delivery", step_id="101")
    version_compat.gauge("workflows.waits", 2.5, connection="c")

    assert counted == [
        ("workflows.suspected_lost_delivery", {"step_id": "101"}),
        ("workflows.waits", 2.5, {"connection": "c"}),
    ]


def test_a_statistic_never_fails_a_task(monkeypatch):
    def broken(name: str, *, tags: dict[str, str]) -> None:
        raise OSError("no such host")

    name = "airflow.sdk.observability.stats"
    monkeypatch.setitem(sys.modules, name, stats_module(name, incr=broken))
    version_compat.count("workflows.suspected_lost_delivery", step_id="101")

    for gone in (name, "airflow.stats"):
        monkeypatch.setitem(sys.modules, gone, None)
    version_compat.count("workflows.suspected_lost_delivery", step_id="101")


def test_cleared_task_finds_its_store_empty_and_a_retry_does_not(store):
    """The rows remain when a task is cleared; a retry differs in the number of tries in all."""

    def seen(max_tries):
        return version_compat.task_state_store({"task_state_store": store, "ti": SimpleNamespace(max_tries=max_tries)})

    seen(2).set("created", {"id": "7"})

    assert seen(2).get("created") == {"id": "7"}  # a retry
    assert seen(3).get("created") is None  # cleared after the first try
    assert seen(3).get("created", "default") == "default"
    assert version_compat.task_state_store({}) is None


class Try:
    """The store of a task as one of its tries sees it, with the numbers that Airflow gives."""

    def __init__(self, store):
        self._rows = store

    def at(self, number: int, max_tries: int, clears: int | None = 0, retries: int = 3):
        context = {
            "task_state_store": self._rows,
            "ti": SimpleNamespace(try_number=number, max_tries=max_tries),
            "dag_run": SimpleNamespace(clear_number=clears),
            "task": SimpleNamespace(retries=retries),
        }
        return version_compat.task_state_store(context)


def test_clear_forgets_though_the_retries_were_lowered(store):
    task = Try(store)
    task.at(1, max_tries=3).set("created", {"id": "7"})  # and it succeeds

    cleared = task.at(2, max_tries=3, clears=1, retries=2)  # 1 try + 2 retries: the same number as before
    assert cleared.get("created") is None

    retried = task.at(3, max_tries=3, clears=1, retries=2)
    assert retried.get("created") is None
    retried.set("created", {"id": "8"})
    assert task.at(4, max_tries=3, clears=1, retries=2).get("created") == {"id": "8"}


def test_clear_forgets_when_the_number_of_tries_comes_back(store):
    task = Try(store)
    task.at(1, max_tries=3).set("created", {"id": "7"})
    task.at(2, max_tries=1, clears=1, retries=0).set("created", {"id": "8"})

    assert task.at(3, max_tries=3, clears=2, retries=1).get("created") is None


def test_clear_of_another_task_leaves_the_store_of_a_retry(store):
    task = Try(store)
    task.at(1, max_tries=3).set("created", {"id": "7"})

    for number in (2, 3, 4):
        assert task.at(number, max_tries=3, clears=number).get("created") == {"id": "7"}
    assert task.at(1, max_tries=3, clears=9).get("created") == {"id": "7"}  # resumed after a deferral


def test_possible_clear_is_logged_and_the_store_stays(store, caplog):
    task = Try(store)
    task.at(1, max_tries=3).set("created", {"id": "7"})

    assert task.at(2, max_tries=3, retries=2).get("created") == {"id": "7"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


STORES = """
from airflow.sdk import dag, task
from airflow_provider_workflows.version_compat import task_state_store


@dag(schedule=None)
def stores():
    @task(retries={retries})
    def store_once(**context):
        store = task_state_store(context)
        found = store.get("created", "nothing")
        store.set("created", "something")
        return found

    store_once()


stores()
"""


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.skipif(not version_compat.HAS_TASK_STATE_STORE, reason="There is no store before Airflow 3.3.")
def test_airflow_shows_a_clear_though_the_retries_were_lowered(monkeypatch, tmp_path):
    from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
    from airflow.models.taskinstance import clear_task_instances
    from airflow.sdk.definitions.dag import _run_task
    from airflow.utils.session import create_session

    # Else Airflow uses the stored version of a DAG for half a minute.
    monkeypatch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
    run = run_source("stores", STORES.format(retries=1), monkeypatch, tmp_path)
    assert result(run, "store_once") == "nothing"

    # Of another length, or the bytecode of the first form would be taken where both are of one second.
    (tmp_path / "stores.py").write_text(f"{STORES.format(retries=0)}\n# changed\n")
    bag = BundleDagBag(dag_folder=tmp_path, bundle_path=tmp_path, bundle_name="flow")
    sync_bag_to_db(bag, "flow", None)
    with create_session() as session:
        (ti,) = run.get_task_instances(session=session)
        clear_task_instances([ti], session, run_on_latest_version=True)
        session.flush()
        (ti,) = run.get_task_instances(session=session)  # Airflow 3.4 archives the row, and adds one for the next try
        ti.try_number = 2
        session.commit()
        assert ti.max_tries == 1  # as before
        _run_task(ti=ti, task=bag.dags["stores"].get_task("store_once"))

    assert result(run, "store_once") == "nothing"


@pytest.mark.skipif(AIRFLOW < (3, 3), reason="a trigger of an older Airflow stores no XCom")
def test_xcom_of_a_trigger_is_sent_without_blocking_the_loop(monkeypatch):
    sent = []

    async def asend(message):
        sent.append(message)

    supervisor = SimpleNamespace(asend=asend)
    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.SUPERVISOR_COMMS", supervisor, raising=False)
    ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="wait", map_index=3)

    asyncio.run(version_compat.astore_xcom(ti, "open_wait", {"product": "procore"}))

    (message,) = sent
    assert (message.dag_id, message.run_id, message.task_id, message.map_index) == ("dag", "run", "wait", 3)
    assert (message.key, message.value) == ("open_wait", {"product": "procore"})


# --- decisions in Airflow ---


@pytest.mark.usefixtures("airflow_connections")
def test_approval_needs_an_airflow_that_resumes_on_a_click(emulator, store, monkeypatch):
    monkeypatch.setattr(version_compat, "RESPONSES_RESUME_DEFERRED", False)
    operator = ProcoreApprovalOperator(task_id="decide", instance_id="700001")

    with pytest.raises(ConfigurationError, match=r"Airflow 3\.3.*ApprovalOperator"):
        operator.execute({"task_state_store": store})
    assert (emulator.requests(), store) == ([], {})
