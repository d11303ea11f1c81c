"""The notifier: one request per call, one task per message where a task state store exists, no error for the DAG."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import re
from types import SimpleNamespace

import pytest
from airflow.sdk import DAG

from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier
from tests.support.delays import HeldDelays
from tests.support.killed import Killed
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.compat

SENTENCE = {"title": "{{ dag.dag_id }} failed", "on_behalf_of": "olga@example.com"}


@pytest.fixture
def secrets(emulator, set_connection):
    """The connection's secrets."""
    connection = emulator.connection("workflowsoft")
    set_connection("workflowsoft_default", connection)
    return [connection["password"]]


@pytest.fixture
def ready(secrets, emulator):
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
    """Return the lines of the log since the last call."""
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


def test_every_parameter_is_a_template_and_ids_stay_unchanged(ready):
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
def test_a_dags_callback_names_the_run(ready, change, description):
    WorkflowsoftTaskNotifier(**SENTENCE)({**context(), **change})

    (request,) = posted(ready)
    assert request["body"]["Description"].startswith(description)
    assert "/tasks/" not in request["body"]["Description"]


def failed_task(store, **where):
    """Return the context of a callback on a worker of Airflow 3.3 or newer."""
    return {**context(**where), "task_state_store": store}


class NoStore:
    """The task state store in the DAG processor, which does not serve it."""

    def get(self, key, default=None):
        raise RuntimeError("Unhandled request")

    set = get


def test_a_task_instance_sends_the_same_message_once(ready, store, capsys):
    for _ in range(3):
        WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))

    assert len(created(ready)) == 1
    assert len([line for line in logged(capsys, "info") if "has sent the same message before" in line]) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"title": "See {{ dag.dag_id }}"},
        {"assigned_to": "sam@example.com"},
        {"description": "See the log."},
    ],
)
def test_another_message_creates_another_task(ready, store, change):
    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))
    WorkflowsoftTaskNotifier(**{**SENTENCE, **change})(failed_task(store))

    assert len(created(ready)) == 2


@pytest.mark.parametrize("store", [None, NoStore()])
def test_without_a_store_each_call_creates_a_task(ready, store):
    for _ in range(2):
        WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))

    assert len(created(ready)) == 2


@pytest.mark.parametrize(("reset", "tasks"), [("before", 0), ("after", 1)])
def test_a_lost_response_is_never_followed_by_a_second_request(ready, store, capsys, reset, tasks):
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", reset=reset)

    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))
    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))

    assert len(posted(ready)) == 1
    assert len(created(ready)) == tasks
    assert len([line for line in logged(capsys, "error") if "Creating a task in Workflowsoft failed" in line]) == 1


def test_a_server_that_fails_gets_no_second_request(ready, store):
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", status=500)

    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))
    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))

    assert created(ready) == []
    assert len(posted(ready)) == 1


@pytest.mark.parametrize("status", [400, 403, 404])
def test_after_a_rejection_the_next_callback_tries_again(ready, store, capsys, status):
    ready.control("POST", "faults", method="POST", path="/api/v2/tasks", status=status)

    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))
    assert created(ready) == []
    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))

    assert len(created(ready)) == 1
    assert len([line for line in logged(capsys, "error") if f"returned {status}" in line]) == 1


def test_a_sign_in_that_fails_persists_nothing(ready, store, capsys):
    ready.control("POST", "faults", path="apitoken", status=401)
    ids = {**SENTENCE, "on_behalf_of": 11}

    WorkflowsoftTaskNotifier(**ids)(failed_task(store))
    assert (posted(ready), store) == ([], {})
    WorkflowsoftTaskNotifier(**ids)(failed_task(store))

    assert len(created(ready)) == 1
    assert len(logged(capsys, "error")) == 1


def test_a_worker_killed_while_sending_sends_no_second_request(ready, store, monkeypatch):
    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as during:
        during.setattr("airflow_provider_workflows.hooks.workflowsoft.WorkflowsoftHook.create_task", die)
        with pytest.raises(Killed):
            WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))

    WorkflowsoftTaskNotifier(**SENTENCE)(failed_task(store))

    assert posted(ready) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on_behalf_of": "unknown@example.com"}, "on_behalf_of"),
        ({"assigned_to": "unknown@example.com"}, "assigned_to"),
        ({"assigned_to": "{{ '' }}"}, "assigned_to is missing or was rendered empty"),
        ({"title": "{{ '' }}"}, "title is missing or was rendered empty"),
        ({"title": "{{ nothing.at_all }}"}, "No task was created"),
        ({"title": "{{ broken"}, "No task was created"),
        ({"workflowsoft_conn_id": "not_there"}, "not_there"),
    ],
)
def test_a_mistake_is_logged_and_neither_raised_nor_persisted(ready, store, capsys, change, message):
    if AIRFLOW < (3, 3) and "rendered empty" in message:
        pytest.skip("before Airflow 3.3 a notifier leaves a template that renders empty")
    WorkflowsoftTaskNotifier(**{**SENTENCE, **change})(failed_task(store))

    assert any(message in line for line in logged(capsys, "error"))
    assert posted(ready) == []
    assert store == {}


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
    assert [secret for secret in (*secrets, token) if secret in lines] == []


@pytest.mark.skipif(AIRFLOW < (3, 1), reason="Airflow 3.0 has no deadline alerts")
class TestDeadlineAlert:
    """In the triggerer: awaited, with a small context of plain values."""

    CONTEXT = {"dag_run": {"dag_id": "orders", "dag_run_id": "run 1"}, "deadline": {"id": "1"}}
    LATE = {"title": "{{ dag_run.dag_id }} is late", "on_behalf_of": "olga@example.com"}

    def notify(self):
        async def notify():
            await WorkflowsoftTaskNotifier(**self.LATE, context=json.loads(json.dumps(self.CONTEXT)))

        asyncio.run(notify())

    def test_one_task_is_created(self, ready):
        self.notify()

        (request,) = posted(ready)
        assert len(created(ready)) == 1
        assert request["body"] == {
            "Title": "orders is late",
            "Description": "This is about run run 1 of DAG orders in Airflow.",
        }

    def test_event_loop_is_not_blocked_by_the_request(self, ready, monkeypatch):
        delays = HeldDelays(monkeypatch)
        ready.control("POST", "faults", method="POST", path="/api/v2/tasks", delay=4.0)

        async def let_it_go():
            while not delays.started.is_set():
                await asyncio.sleep(0.005)
            delays.end.set()

        async def both():
            letting = asyncio.create_task(let_it_go())
            await WorkflowsoftTaskNotifier(**self.LATE, context=dict(self.CONTEXT))
            return letting.done()

        assert asyncio.run(both())  # a blocked loop could not have let the response go
        assert len(created(ready)) == 1

    @pytest.mark.parametrize("fault", [{"status": 403}, {"reset": "after"}])
    def test_an_error_is_logged_after_one_request(self, ready, capsys, fault):
        ready.control("POST", "faults", method="POST", path="/api/v2/tasks", **fault)

        self.notify()

        assert len(posted(ready)) == 1
        assert len(logged(capsys, "error")) == 1


FAILS = """
from airflow.sdk import dag, task
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier

notifier = WorkflowsoftTaskNotifier(title="{{ dag.dag_id }} failed", on_behalf_of="olga@example.com")

@dag(schedule=None)
def notified():
    @task(on_failure_callback=[notifier, notifier])
    def fail(number):
        raise RuntimeError(number)

    fail.expand(number=[1, 2])

run = notified()
"""
SUCCEEDS = """
from airflow.sdk import dag, task
from airflow_provider_workflows.notifications.workflowsoft import WorkflowsoftTaskNotifier

broken = WorkflowsoftTaskNotifier(title="{{ nothing.at_all }}", on_behalf_of="unknown@example.com")

@dag(schedule=None, on_success_callback=broken)
def not_notified():
    @task(on_success_callback=broken)
    def work():
        return None

    work()

run = not_notified()
"""


@pytest.mark.usefixtures("airflow_db", "secrets")
@pytest.mark.parametrize(
    ("source", "state", "tasks"),
    [(FAILS, "failed", 2 if AIRFLOW >= (3, 3) else 4), (SUCCEEDS, "success", 0)],
    ids=["fails", "succeeds"],
)
def test_a_real_run_creates_a_task_for_each_task_instance(emulator, monkeypatch, tmp_path, source, state, tasks):
    (tmp_path / "dags.py").write_text(source)
    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(tmp_path))
    spec = importlib.util.spec_from_file_location("notified", tmp_path / "dags.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    run = module.run.test()

    assert str(run.state) == state
    assert len(created(emulator)) == tasks


@pytest.mark.parametrize("how", ["parameter", "template", "connection"])
@pytest.mark.parametrize("is_async", [True, False])
def test_dry_run_logs_the_request_and_creates_nothing(ready, set_connection, store, capsys, how, is_async):
    if how == "connection":
        connection = ready.connection("workflowsoft")
        connection["extra"] |= {"dry_run": True}
        set_connection("workflowsoft_default", connection)
    requests_dry_run = {"parameter": True, "template": "{{ run_id == 'run 1' }}", "connection": False}
    notifier = WorkflowsoftTaskNotifier(**SENTENCE, dry_run=requests_dry_run[how])
    where = {**context(), "task_state_store": store}

    if is_async:
        notifier.render_template_fields(where)
        asyncio.run(notifier.async_notify(where))
    else:
        notifier(where)

    (line,) = [line for line in logged(capsys, "info") if "Dry run" in line]
    assert "POST /api/v2/tasks" in line
    assert "orders failed" in line
    assert posted(ready) == []
    assert store == {}


def test_dry_run_does_not_suppress_the_later_message(ready, store):
    where = {**context(), "task_state_store": store}
    WorkflowsoftTaskNotifier(**SENTENCE, dry_run=True)(where)

    WorkflowsoftTaskNotifier(**SENTENCE)(where)
    WorkflowsoftTaskNotifier(**SENTENCE)(where)

    assert len(created(ready)) == 1


def test_a_dry_run_that_is_not_a_boolean_sends_nothing(ready, capsys):
    WorkflowsoftTaskNotifier(**SENTENCE, dry_run="maybe")(context())

    assert [line for line in logged(capsys, "error") if "dry_run" in line]
    assert ready.requests() == []
