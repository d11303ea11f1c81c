"""Who may see what on the Approvals page, and what its routes return."""

from __future__ import annotations

import asyncio
import csv
from dataclasses import replace

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.utils.session import create_session
from fastapi import HTTPException
from fastapi.testclient import TestClient

from airflow_provider_workflows import plugin
from airflow_provider_workflows.operators.waiting import WaitLifeCycle
from airflow_provider_workflows.plugin import app as pages
from airflow_provider_workflows.plugin.read_now import CurrentStates, ReadReport
from tests.unit.plugin.test_waits import KIM, PAT

READS = "AIRFLOW__WORKFLOWS__APPROVALS_PAGE_READS"
HOST = {"Origin": "http://testserver"}


class Rights:
    """An auth manager with one user who reads everything and one who reads one DAG."""

    def get_authorized_dag_ids(self, *, user):
        return {"orders", "secret"} if user == "admin" else {"orders"}

    def is_authorized_asset(self, *, method, user):
        return user == "admin"


class Reads(CurrentStates):
    """Record what would be read."""

    def read(self, rows):
        self.rows = list(rows)
        return ReadReport(read=len(self.rows))


@pytest.fixture
def reads():
    return Reads()


@pytest.fixture
def client(tables, reads, monkeypatch):
    """A browser; ``client.user`` is who is signed in, or None."""
    return connect(tables, reads, monkeypatch, Rights)


def connect(tables, reads, monkeypatch, auth_manager):
    monkeypatch.setattr(pages, "get_auth_manager", auth_manager)
    app = pages.build_app(reads)
    client = TestClient(app)
    client.user = "admin"

    def user():
        if client.user is None:
            raise HTTPException(401, "Not authenticated")
        return client.user

    app.dependency_overrides[get_user] = user
    app.dependency_overrides[_get_session] = lambda: tables.session
    tables.add_wait(PAT, "pat")
    tables.add_wait(KIM, "kim", dag_id="secret")
    tables.add_watcher("airflow_provider_workflows.triggers.procore_events.ProcoreInstanceEventTrigger")
    tables.write()
    return client


def test_each_user_sees_the_waits_of_readable_dags_only(client):
    everything = client.get("/api/waits").json()
    client.user = "viewer"
    less = client.get("/api/waits").json()

    assert {row["dag_id"] for row in everything["rows"]} == {"orders", "secret", None}
    assert {row["dag_id"] for row in less["rows"]} == {"orders"}
    assert (less["dags"], less["total"], less["tiles"]["open"]) == (["orders"], 1, 1)
    assert [person["name"] for person in less["people"]] == ["pat@example.com"]
    assert "secret" not in client.get("/api/waits.csv").text


@pytest.mark.usefixtures("airflow_db")
def test_airflows_own_auth_manager_decides_who_sees_waits(tables, reads, monkeypatch):
    with create_session() as session:
        session.merge(DagBundleModel(name="of_orders"))
        session.flush()
        session.merge(DagModel(dag_id="orders", bundle_name="of_orders", fileloc="orders.py"))
    client = connect(tables, reads, monkeypatch, SimpleAuthManager)
    seen = {}
    for role in ("VIEWER", None):
        client.user = SimpleAuthManagerUser(username="pat", role=role)
        seen[role] = {row["dag_id"] for row in client.get("/api/waits").json()["rows"]}

    assert seen == {"VIEWER": {"orders", None}, None: set()}


def test_task_of_an_unreadable_dag_is_rejected(client):
    where = {"dag_id": "secret", "run_id": "run", "task_id": "kim", "map_index": "{MAP_INDEX}"}
    assert client.get("/api/task", params=where).json()["row"]["step"] == "Approve"

    client.user = "viewer"

    assert client.get("/api/task", params=where).status_code == 403


def test_foreign_task_has_a_line_instead_of_a_wait(client):
    where = {"dag_id": "orders", "run_id": "run", "task_id": "print", "map_index": "-1"}

    shown = client.get("/api/task", params=where).json()

    assert shown["row"] is None
    assert shown["message"]


@pytest.mark.parametrize("path", ["/api/waits", "/api/waits.csv", "/api/task?dag_id=orders&run_id=run&task_id=pat"])
def test_without_login_no_data_is_sent(client, path):
    client.user = None

    assert client.get(path).status_code == 401


def test_without_login_nothing_is_read(client, reads, monkeypatch):
    monkeypatch.setenv(READS, "True")
    client.user = None

    assert client.post("/api/read", json={}, headers=HOST).status_code == 401
    assert not hasattr(reads, "rows")


@pytest.mark.sample(3)
@pytest.mark.parametrize("index", ["--1", "9" * 30, "x", "²"])
def test_malformed_map_index_is_rejected(client, index):
    where = {"dag_id": "orders", "run_id": "run", "task_id": "pat", "map_index": index}

    assert client.get("/api/task", params=where).status_code == 422


def test_filters_of_the_url_select_and_pages_are_bounded(client):
    found = client.get("/api/waits", params={"person": "kim@example.com", "page": 99}).json()

    assert [row["task_id"] for row in found["rows"]] == ["kim"]
    assert (found["page"], found["pages"]) == (1, 1)


@pytest.mark.parametrize("parameters", [{"page": 0}, {"sort": "password"}, {"overdue": "perhaps"}])
def test_wrong_parameters_are_rejected(client, parameters):
    assert client.get("/api/waits", params=parameters).status_code == 422


def test_download_contains_no_formula(client, tables):
    tables.add_wait(replace(PAT, step="=HYPERLINK(1)", assignees=("@cmd",)), "formula")
    tables.write()

    rows = list(csv.DictReader(client.get("/api/waits.csv").text.splitlines()))

    (row,) = (row for row in rows if row["task_id"] == "formula")
    assert (row["step"], row["assignees"]) == ("'=HYPERLINK(1)", "'@cmd")


def test_only_known_files_are_served(client):
    assert client.get("/waits.py").status_code == 404
    assert client.get("/..%2Fapp.py").status_code == 404


def test_responses_forbid_scripts_of_other_sites(client):
    for path in ("/", "/task", "/api/waits"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_reading_is_off_by_default(client, reads):
    assert client.get("/api/waits").json()["reads_allowed"] is False
    assert client.post("/api/read", json={}, headers=HOST).status_code == 403


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://attacker.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({**HOST, "Content-Type": "text/plain"}, 415),
    ],
)
def test_other_sites_cannot_make_the_server_read(client, reads, monkeypatch, headers, status):
    monkeypatch.setenv(READS, "True")

    response = client.post("/api/read", content="{}", headers={"Content-Type": "application/json", **headers})

    assert response.status_code == status
    assert not hasattr(reads, "rows")


def test_viewer_reads_only_what_the_viewer_sees(client, reads, monkeypatch):
    monkeypatch.setenv(READS, "True")
    client.user = "viewer"

    assert client.post("/api/read", json={}, headers=HOST).json()["read"] == 1
    assert [row.key[0] for row in reads.rows] == ["orders"]


def test_tab_of_newer_airflow_names_every_waiting_task():
    def classes(base):
        for cls in base.__subclasses__():
            yield cls
            yield from classes(cls)

    import airflow_provider_workflows.decorators.procore
    import airflow_provider_workflows.decorators.workflowsoft
    import airflow_provider_workflows.operators.procore
    import airflow_provider_workflows.operators.procore_legacy
    import airflow_provider_workflows.operators.workflowsoft
    import airflow_provider_workflows.sensors.procore
    import airflow_provider_workflows.sensors.procore_legacy
    import airflow_provider_workflows.sensors.workflowsoft

    for product in ("procore", "procore_legacy", "workflowsoft"):
        for folder in (airflow_provider_workflows.operators, airflow_provider_workflows.sensors):
            module = vars(folder)[product]
            for name in getattr(module, "__all__", ()):
                getattr(module, name)
    own_classes = {cls for cls in classes(WaitLifeCycle) if cls.__module__.startswith("airflow_provider_workflows.")}
    last = {
        cls.__name__
        for cls in own_classes
        if not any(other is not cls and issubclass(other, cls) for other in own_classes)
    }

    assert set(plugin.WAITING_TASKS) == last


def test_app_is_built_once_by_the_first_request(monkeypatch):
    built, served = [], []

    async def app(scope, receive, send):
        served.append(scope)

    monkeypatch.setattr(pages, "build_app", lambda: built.append(app) or app)
    lazy = plugin.LazyApp()
    assert built == []

    asyncio.run(lazy({"type": "http"}, None, None))
    asyncio.run(lazy({"type": "http"}, None, None))

    assert (len(built), len(served)) == (1, 2)
