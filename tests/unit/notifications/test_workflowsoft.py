"""The notifier: one task per run and message, whatever happens, and never an error of the DAG's."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.notifications import claims
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier
from tests.support.delays import HeldDelays
from tests.support.killed import Killed
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

SENTENCE = {"title": "{{ dag.dag_id }} failed", "on_behalf_of": "olga@example.com"}
KEY = "workflowsoft_tasks_orders"


class Variables:
    """Airflow's Variables, as a dict that threads share and that takes its time."""

    def __init__(self):
        self.held: dict[str, str] = {}
        self.broken: Exception | None = None
        self.seconds = {"get": 0.0, "set": 0.0}
        self.sets = 0
        self.threads: set[int] = set()

    def get(self, key, default=None):
        return self._do("get", lambda: self.held.get(key, default))

    def set(self, key, value, description=None):
        self.sets += 1
        self._do("set", lambda: self.held.__setitem__(key, value))

    def _do(self, what, act):
        self.threads.add(threading.get_ident())
        if self.broken:
            raise self.broken
        time.sleep(self.seconds[what])
        return act()


@pytest.fixture
def variables(monkeypatch):
    variables = Variables()
    monkeypatch.setattr(claims, "Variable", variables)
    monkeypatch.setattr(claims, "_pause", lambda: 0.01)
    return variables


@pytest.fixture
def long_enough(monkeypatch):
    """A pause that is long enough for everybody to have written, and shorter than the real one."""
    monkeypatch.setattr(claims, "_pause", lambda: random.uniform(0.5, 0.75))


@pytest.fixture
def secrets(emulator, set_connection):
    """The connection's secrets."""
    connection = emulator.connection("workflowsoft")
    set_connection("workflowsoft_default", connection)
    return [connection["password"]]


@pytest.fixture
def ready(variables, secrets, emulator):
    return emulator


def context(run_id="run 1", task_id="load", dag_id="orders"):
    ti = SimpleNamespace(task_id=task_id, log_url=f"http://airflow/dags/{dag_id}/runs/{run_id}/tasks/{task_id}")
    return {"dag": DAG(dag_id, schedule=None), "run_id": run_id, "ti": ti}


def created(emulator):
    return [effect for effect in emulator.effects() if effect["action"] == "create_task"]


def posted(emulator):
    return [r for r in emulator.requests() if (r["method"], r["path"]) == ("POST", "/api/v2/tasks")]


@pytest.fixture(autouse=AIRFLOW < (3, 1))
def printed_log():
    """Print what is logged in the form of newer Airflows, which Airflow 3.0 leaves to Python's logging."""
    printing = logging.Handler()
    as_text = logging.Formatter().format
    printing.emit = lambda record: print(f"[{record.levelname.lower()}] {as_text(record)}".replace("\n", " "))
    logging.getLogger().addHandler(printing)
    yield
    logging.getLogger().removeHandler(printing)


def logged(capsys, level="(debug|info|warning|error)"):
    """Return the lines of the log since the last look."""
    return [line for line in capsys.readouterr().out.splitlines() if re.search(rf"\[{level}", line)]


def test_a_failure_becomes_a_task_in_workflowsoft(ready, capsys):
    WorkflowsoftTaskNotifier(**SENTENCE, assigned_to="sam@example.com")(context())

    (effect,) = created(ready)
    assert effect["by"] == "11"
    (request,) = posted(ready)
    assert request["body"] == {
        "Title": "orders failed",
        "AssignedUserId": 12,
        "Description": "This is about task load in run run 1 of DAG orders in Airflow: "
        "http://airflow/dags/orders/runs/run 1/tasks/load",
    }
    (line,) = [line for line in logged(capsys, "info") if "Created task" in line]
    assert " in Workflowsoft: orders failed" in line


def test_every_parameter_is_a_template_and_ids_are_taken_as_they_are(ready):
    notifier = WorkflowsoftTaskNotifier(
        title="{{ ti.task_id }}", on_behalf_of="{{ 6 + 5 }}", assigned_to=12, description="In {{ run_id }}"
    )

    notifier(context())
    notifier(context(task_id="store"))  # the templates are still there

    bodies = [request["body"] for request in posted(ready)]
    assert [body["Title"] for body in bodies] == ["load", "store"]
    assert {(body["AssignedUserId"], body["Description"]) for body in bodies} == {(12, "In run 1")}
    assert not [r for r in ready.requests() if "users" in r["path"]]


@pytest.mark.parametrize(
    ("change", "description"),
    [
        ({"reason": "task_failure"}, "This is about run run 1 of DAG orders in Airflow: http://airflow/dags/orders/"),
        ({"reason": "task_failure", "ti": None}, "This is about run run 1 of DAG orders in Airflow."),
    ],
)
def test_a_dags_callback_speaks_of_the_run(ready, change, description):
    WorkflowsoftTaskNotifier(**SENTENCE)({**context(), **change})

    (request,) = posted(ready)
    assert request["body"]["Description"].startswith(description)
    assert "/tasks/" not in request["body"]["Description"]


def test_the_same_message_about_the_same_run_is_sent_once(ready, variables, capsys):
    for task_id in ("load", "load", "store"):
        WorkflowsoftTaskNotifier(**SENTENCE)(context(task_id=task_id))

    assert len(created(ready)) == 1
    assert len([line for line in logged(capsys) if "has had its task" in line]) == 2
    (entry,) = json.loads(variables.held[KEY]).values()
    assert datetime.fromisoformat(entry["at"]) <= datetime.now(timezone.utc)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({}, {"run_id": "run 2"}),
        ({}, {"dag_id": "bills"}),
        ({"title": "Look at {{ dag.dag_id }}"}, {}),
        ({"assigned_to": "sam@example.com"}, {}),
        ({"description": "Look at it."}, {}),
    ],
)
def test_another_run_or_message_makes_another_task(ready, change, where):
    WorkflowsoftTaskNotifier(**SENTENCE)(context())
    WorkflowsoftTaskNotifier(**{**SENTENCE, **change})(context(**where))

    assert len(created(ready)) == 2


def fail_together(variables, name: str) -> None:
    """Let five callbacks run at the same moment that differ in one part of their context."""
    variables.seconds = {"get": 0.01, "set": 0.01}
    together = threading.Barrier(5)

    def fail(number):
        together.wait()
        WorkflowsoftTaskNotifier(**SENTENCE)(context(**{name: f"{name} {number}"}))

    with ThreadPoolExecutor(5) as workers:
        list(workers.map(fail, range(5)))


@pytest.mark.usefixtures("long_enough")
def test_of_tasks_that_fail_at_the_same_moment_one_sends(ready, variables):
    fail_together(variables, "task_id")

    assert len(created(ready)) == 1


@pytest.mark.usefixtures("long_enough")
def test_runs_failing_at_once_create_and_remember_a_task_each(ready, variables):
    fail_together(variables, "run_id")

    assert len(created(ready)) == 5
    assert len(json.loads(variables.held[KEY])) == 5


def test_the_memory_of_a_dag_is_bounded(ready, variables, monkeypatch):
    monkeypatch.setattr(claims, "MOST_KEPT", 3)
    for number in range(5):
        assert claims.Claim("orders", f"run {number}", []).take()

    assert len(json.loads(variables.held[KEY])) == 3
    assert not claims.Claim("orders", "run 4", []).take()


def test_state_of_a_dag_with_a_long_name_fits_the_database():
    assert len(claims.Claim("x" * 250, "run", []).key) == 250
    assert claims.Claim("x" * 249, "run", []).mark != claims.Claim("x" * 250, "run", []).mark


@pytest.mark.parametrize(("reset", "tasks"), [("before", 0), ("after", 1)])
def test_a_lost_response_is_never_followed_by_a_second_call(ready, capsys, reset, tasks):
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", reset=reset)

    WorkflowsoftTaskNotifier(**SENTENCE)(context())
    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert len(posted(ready)) == 1
    assert len(created(ready)) == tasks
    assert len([line for line in logged(capsys, "error") if "No task is known" in line]) == 1


def test_a_server_that_fails_is_not_asked_again(ready):
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", status=500)

    WorkflowsoftTaskNotifier(**SENTENCE)(context())
    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert created(ready) == []
    assert len(posted(ready)) == 1


@pytest.mark.parametrize("status", [400, 403, 404])
def test_after_a_rejection_the_next_callback_tries_again(ready, capsys, status):
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", status=status)

    WorkflowsoftTaskNotifier(**SENTENCE)(context())
    assert created(ready) == []
    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert len(created(ready)) == 1
    assert len([line for line in logged(capsys, "error") if f"returned {status}" in line]) == 1


def test_a_sign_in_that_fails_claims_nothing(ready, variables, capsys):
    ready.control("POST", "faults", path="apitoken", status=401)
    ids = {**SENTENCE, "on_behalf_of": 11}

    WorkflowsoftTaskNotifier(**ids)(context())
    assert (posted(ready), variables.held) == ([], {})
    WorkflowsoftTaskNotifier(**ids)(context())

    assert len(created(ready)) == 1
    assert len(logged(capsys, "error")) == 1


def test_a_claim_is_not_withdrawn_when_others_may_have_written_since(ready, variables, capsys, monkeypatch):
    monkeypatch.setattr(claims, "PAUSE", 0.4)
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", status=403)
    withdraw = claims.Claim.withdraw
    others = {"other": {"by": "somebody", "at": "now"}}

    def withdraw_slowly(claim):
        get = variables.get

        def get_slowly(*args, **kwargs):
            found = get(*args, **kwargs)
            time.sleep(0.2)
            variables.held[KEY] = json.dumps({**json.loads(found), **others})
            return found

        with monkeypatch.context() as during:
            during.setattr(variables, "get", get_slowly)
            withdraw(claim)

    monkeypatch.setattr(claims.Claim, "withdraw", withdraw_slowly)
    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert len(json.loads(variables.held[KEY])) == 2
    told = logged(capsys, "error")
    assert "returned 403" in told[0]
    assert "the claim stays" in told[1]


def test_a_worker_that_dies_while_it_sends_leaves_its_claim(ready, monkeypatch):
    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as during:
        during.setattr("airflow_provider_workflows.hooks.workflowsoft.WorkflowsoftHook.create_task", die)
        with pytest.raises(Killed):
            WorkflowsoftTaskNotifier(**SENTENCE)(context())

    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert posted(ready) == []


def test_a_rejection_is_reported_even_if_the_claim_cannot_be_withdrawn(ready, variables, capsys, monkeypatch):
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", status=403)
    monkeypatch.setattr(claims.Claim, "withdraw", lambda claim: claim._write(1 / 0))

    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    told = logged(capsys, "error")
    assert "returned 403" in told[0]
    assert "division by zero" in told[1]


@pytest.mark.parametrize("held", [None, "no JSON", "[]", '{"a": 1}'])
def test_without_a_readable_memory_nothing_is_sent(ready, variables, capsys, held):
    if held is None:
        variables.broken = RuntimeError("away")
    else:
        variables.held[KEY] = held

    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert posted(ready) == []
    assert any(f"Variable {KEY} cannot be read" in line for line in logged(capsys, "error"))


def test_a_memory_that_does_not_keep_what_is_written_is_not_relied_on(ready, variables, monkeypatch, capsys):
    monkeypatch.setattr(variables, "set", lambda *_, **__: None)

    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert posted(ready) == []
    assert any("10 times" in line for line in logged(capsys, "error"))


def test_nothing_is_sent_if_writing_took_too_long(ready, variables, capsys, monkeypatch):
    monkeypatch.setattr(claims, "PAUSE", 0.4)
    variables.seconds["set"] = 0.25

    WorkflowsoftTaskNotifier(**SENTENCE)(context())
    variables.seconds["set"] = 0.0
    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert posted(ready) == []
    assert any("too long to be sure" in line for line in logged(capsys, "error"))


def test_slow_read_is_repeated_before_anything_is_written(ready, variables, monkeypatch):
    monkeypatch.setattr(claims, "PAUSE", 1.0)
    variables.seconds["get"] = 0.3
    quick = threading.Timer(0.5, variables.seconds.__setitem__, ("get", 0.0))
    quick.start()

    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    assert len(created(ready)) == 1
    assert variables.sets == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"on_behalf_of": "nobody@example.com"}, "on_behalf_of"),
        ({"assigned_to": "nobody@example.com"}, "assigned_to"),
        ({"assigned_to": "{{ '' }}"}, "assigned_to is missing or was rendered empty"),
        ({"title": "{{ '' }}"}, "title is missing or was rendered empty"),
        ({"title": "{{ nothing.at_all }}"}, "No task was created"),
        ({"title": "{{ broken"}, "No task was created"),
        ({"workflowsoft_conn_id": "not_there"}, "not_there"),
    ],
)
def test_a_mistake_is_logged_and_neither_raised_nor_remembered(ready, variables, capsys, change, told):
    if AIRFLOW < (3, 3) and "rendered empty" in told:
        pytest.skip("before Airflow 3.3 a notifier keeps a template that renders empty")
    WorkflowsoftTaskNotifier(**{**SENTENCE, **change})(context())

    assert any(told in line for line in logged(capsys, "error"))
    assert posted(ready) == []
    assert variables.held == {}


def test_a_context_without_a_run_is_logged_and_not_raised(ready, capsys):
    WorkflowsoftTaskNotifier(**SENTENCE)({"dag": context()["dag"]})

    assert posted(ready) == []
    assert logged(capsys, "error")


@pytest.mark.parametrize("status", [None, 401, 403, 500])
def test_nothing_secret_is_logged(ready, secrets, capsys, status):
    token = WorkflowsoftHook().get_api_token()
    if status:
        ready.control("POST", "faults", path="/api", status=status, times=9)

    WorkflowsoftTaskNotifier(**SENTENCE)(context())

    lines = "".join(logged(capsys))
    assert "Workflowsoft" in lines
    assert [word for word in (*secrets, token) if word in lines] == []


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow 3.0 has no deadline alerts")
class TestDeadlineAlert:
    """In the triggerer: awaited, with a small context of plain values."""

    CONTEXT = {"dag_run": {"dag_id": "orders", "dag_run_id": "run 1"}, "deadline": {"id": "1"}}
    LATE = {"title": "{{ dag_run.dag_id }} is late", "on_behalf_of": "olga@example.com"}

    def tell(self, times=1):
        async def many():
            await asyncio.gather(*(notify() for _ in range(times)))

        async def notify():
            await WorkflowsoftTaskNotifier(**self.LATE, context=json.loads(json.dumps(self.CONTEXT)))

        asyncio.run(many())

    @pytest.mark.usefixtures("long_enough")
    @pytest.mark.parametrize("times", [1, 5])
    def test_one_task_is_created(self, ready, times):
        self.emit(times)
        self.emit()

        assert len(created(ready)) == 1
        body = posted(ready)[0]["body"]
        assert body == {
            "Title": "orders is late",
            "Description": "This is about run run 1 of DAG orders in Airflow.",
        }

    def test_event_loop_is_not_blocked_by_the_request(self, ready, variables, monkeypatch):
        delays = HeldDelays(monkeypatch)
        ready.control("POST", "faults", method="POST", path="/api/v2/tasks", delay=4.0)

        async def let_it_go():
            while not delays.begun.is_set():
                await asyncio.sleep(0.005)
            delays.end.set()

        async def both():
            letting = asyncio.create_task(let_it_go())
            await WorkflowsoftTaskNotifier(**self.LATE, context=dict(self.CONTEXT))
            return letting.done()

        assert asyncio.run(both())  # a blocked loop could not have let the response go
        assert len(created(ready)) == 1
        assert threading.get_ident() not in variables.threads

    def test_a_rejection_is_forgotten_and_a_lost_response_is_not(self, ready, capsys):
        ready.control("POST", "faults", method="POST", path="/api/v2/tasks", status=403)
        ready.control("POST", "faults", method="POST", path="/api/v2/tasks", reset="after")

        for _ in range(3):
            self.emit()

        assert len(posted(ready)) == 2
        assert len(logged(capsys, "error")) == 2

    def test_without_memory_nothing_is_sent(self, ready, variables, capsys):
        variables.broken = RuntimeError("away")

        self.emit()

        assert posted(ready) == []
        assert any("cannot be read" in line for line in logged(capsys, "error"))


FAILS = """
from airflow.sdk import dag, task
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier

notifier = WorkflowsoftTaskNotifier(title="{{ dag.dag_id }} failed", on_behalf_of="olga@example.com")

@dag(schedule=None, on_failure_callback=notifier)
def notified():
    @task(on_failure_callback=notifier)
    def fail(number):
        raise RuntimeError(number)

    fail.expand(number=[1, 2])

run = notified()
"""
SUCCEEDS = """
from airflow.sdk import dag, task
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier

broken = WorkflowsoftTaskNotifier(title="{{ nothing.at_all }}", on_behalf_of="nobody@example.com")

@dag(schedule=None, on_success_callback=broken)
def not_notified():
    @task(on_success_callback=broken)
    def work():
        return None

    work()

run = not_notified()
"""


@pytest.mark.usefixtures("airflow_db", "secrets")
@pytest.mark.parametrize(("source", "state", "tasks"), [(FAILS, "failed", 1), (SUCCEEDS, "success", 0)])
def test_a_real_run_ends_as_it_should_and_leaves_one_task(emulator, monkeypatch, tmp_path, source, state, tasks):
    (tmp_path / "dags.py").write_text(source)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    monkeypatch.setattr(claims, "PAUSE", 1.0)
    spec = importlib.util.spec_from_file_location("notified", tmp_path / "dags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    run = module.run.test()

    assert str(run.state) == state
    assert len(created(emulator)) == tasks
