"""What a connection's host and port mean, in every spelling of a form, a URI or a file."""

from __future__ import annotations

import asyncio
import sys
import traceback

import pytest

from airflow_provider_workflows.diagnostics.diagnosis import Diagnosis
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    NotFound,
    PermissionDenied,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook


@pytest.fixture(params=["procore", "workflowsoft"])
def hook_at(request, set_connection):
    """Return a function that makes the hook of a connection with this host and port."""

    def at(host: str, port: int | None, **extra: object):
        ready = {"access_token": "ready", "company_id": "7"} if request.param == "procore" else {}
        fields = {"host": host, "port": port, "password": "ready", "extra": {**ready, **extra}}
        set_connection("mine", {"conn_type": request.param, **fields})
        return (ProcoreHook if request.param == "procore" else WorkflowsoftHook)("mine")

    return at


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("wf.example.com", 443, "https://wf.example.com:443"),
        ("wf.example.com/", 443, "https://wf.example.com:443"),
        ("https://wf.example.com", 443, "https://wf.example.com:443"),
        ("https://wf.example.com/", 443, "https://wf.example.com:443"),
        ("https://wf.example.com//", 443, "https://wf.example.com:443"),
        ("https://wf.example.com/base", 443, "https://wf.example.com:443/base"),
        ("https://wf.example.com/base/", 8443, "https://wf.example.com:8443/base"),
        ("wf.example.com/base", 8443, "https://wf.example.com:8443/base"),
        ("https://wf.example.com:8443/base/", 443, "https://wf.example.com:8443/base"),
        ("wf.example.com:8443", 443, "https://wf.example.com:8443"),
        ("wf.example.com:", 443, "https://wf.example.com:443"),
        ("wf.example.com/a:1", 443, "https://wf.example.com:443/a:1"),
        (" wf.example.com\n", 443, "https://wf.example.com:443"),
        ("https://wf.example.com/", 0, "https://wf.example.com"),
        ("https://wf.example.com/base/", None, "https://wf.example.com/base"),
        ("https://[::1]/", 8443, "https://[::1]:8443"),
        ("::1", 8443, "https://[::1]:8443"),
        ("http://127.0.0.1/", 8080, "http://127.0.0.1:8080"),
    ],
)
def test_a_host_and_a_port_are_one_address(hook_at, host, port, url):
    assert hook_at(host, port).get_conn().base_url == url


@pytest.mark.sample(6)
@pytest.mark.parametrize(
    "host",
    [
        "https://ex ample.com",
        "ex ample.com",
        "https://example.com/a b",
        "https://exam\tple.com",
        "https://.example.com",
        "https://exa<mple.com",
        "https://example.com:port",
        "https://example.com:99999",
        "https://",
        "https:///path",
        "ftp://example.com",
        "https://example.com/?q=1",
        "https://[::1",
    ],
)
@pytest.mark.parametrize("port", [None, 443])
def test_a_host_that_is_none_is_named_before_anything_is_sent(hook_at, requests_mock, host, port):
    with pytest.raises(ConfigurationError, match="'mine'.*host"):
        hook_at(host, port).check()
    assert requests_mock.call_count == 0


@pytest.mark.parametrize("conn_type", ["procore", "workflowsoft"])
def test_emulator_connections_have_no_short_secrets(emulator, set_connection, caplog, monkeypatch, conn_type):
    """Airflow looks for secrets in every text of an extra, and warns where one is too short to be masked."""
    for name, module in list(sys.modules.items()):
        if name.endswith(".secrets_masker"):
            monkeypatch.setattr(module.SecretsMasker, "_has_warned_short_secret", False, raising=False)
    set_connection("mine", emulator.connection(conn_type))

    (ProcoreHook if conn_type == "procore" else WorkflowsoftHook)("mine").get_conn()

    assert "too short" not in caplog.text


# --- errors say as much as the doctor ---


def procore_at(emulator, set_connection, **extra):
    good = emulator.connection("procore")
    set_connection("mine", {**good, "extra": {**good["extra"], **extra}})
    return ProcoreHook("mine")


def test_a_connection_of_another_type_is_reported(set_connection, requests_mock):
    set_connection("mine", {"conn_type": "http", "host": "api.example.com", "password": "secret"})

    for hook in (ProcoreHook("mine"), WorkflowsoftHook("mine")):
        with pytest.raises(ConfigurationError, match=f"'mine' has type 'http'. Expected: {hook.conn_type}"):
            hook.check()
    assert requests_mock.call_count == 0


@pytest.mark.parametrize("hook", [ProcoreHook("nowhere"), WorkflowsoftHook("nowhere")])
@pytest.mark.parametrize("way", ["task", "triggerer", "test"])
def test_a_connection_that_does_not_exist_is_named_with_its_fix(hook, way):
    if way == "test":
        fine, message = hook.test_connection()
        assert not fine
    else:
        with pytest.raises(ConfigurationError) as missing:
            hook.check() if way == "task" else asyncio.run(hook.prepare())
        message = str(missing.value)

    assert "'nowhere'" in message
    assert "AIRFLOW_CONN_NOWHERE" in message


def test_no_variable_is_named_whose_name_is_impossible():
    with pytest.raises(ConfigurationError) as missing:
        ProcoreHook("no-where").check()

    assert "'no-where'" in str(missing.value)
    assert "AIRFLOW_CONN" not in str(missing.value)


@pytest.mark.parametrize("conn_id", [None, ["mine"], 5, "", "a b"])
@pytest.mark.parametrize("hook", [ProcoreHook, ProcoreLegacyHook, WorkflowsoftHook])
def test_an_id_that_no_connection_has_is_named(hook, conn_id):
    with pytest.raises(ConfigurationError, match=f"^{hook.conn_name_attr} must be the id of a connection"):
        hook(conn_id)


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        *(({"project_id": value}, "'project_id' must be an id, a whole number") for value in (True, 1.5, ["1"], "a,b")),
        *(({"requests_per_hour": value}, "'requests_per_hour' must be a whole number") for value in ("abc", -1, 0)),
    ],
)
def test_a_wrong_extra_fails_before_a_call_and_fails_the_test(emulator, set_connection, extra, problem):
    hook = procore_at(emulator, set_connection, **extra)

    with pytest.raises(ConfigurationError, match=problem):
        hook.get_instance("700001")
    assert emulator.requests() == []
    fine, message = hook.test_connection()
    assert (fine, problem in message) == (False, True)


def test_an_unreadable_connection_is_named_without_its_content(monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_MINE", '{"conn_type": "procore", "password": "s3cret-word"')

    with pytest.raises(ConfigurationError, match="AIRFLOW_CONN_MINE") as unreadable:
        ProcoreHook("mine").check()

    assert "s3cret-word" not in "".join(traceback.format_exception(unreadable.value))


def test_a_wrong_company_is_named(emulator, set_connection):
    hook = procore_at(emulator, set_connection, company_id=42)

    with pytest.raises(PermissionDenied, match=r"company_id \(42.*'company_id' of connection 'mine'"):
        hook.get_instance("700001")


def test_a_wrong_project_is_named(emulator, set_connection):
    hook = procore_at(emulator, set_connection, project_id=43)

    with pytest.raises(NotFound, match=r"project 43 of company 4264807.*'project_id' of connection 'mine'"):
        hook.get_instance("700001")


@pytest.mark.parametrize("wrong", ["company_id", "project_id"])
def test_the_doctor_says_the_same(emulator, set_connection, wrong):
    hook = procore_at(emulator, set_connection, **{wrong: 42})
    with pytest.raises((NotFound, PermissionDenied)) as error:
        next(hook.list_presets("purchase_order_contract", project_id=hook.project_id))

    fixes = [check.fix for check in Diagnosis("mine").checks() if check.status == "failed"]

    assert len(fixes) == 1
    assert fixes[0] in str(error.value)


def test_the_doctor_finds_an_expired_static_token(emulator, set_connection):
    good = emulator.connection("workflowsoft")
    set_connection("mine", {**good, "login": None, "password": "stale-token"})

    with pytest.raises(AuthenticationError, match="Get a new API token"):
        WorkflowsoftHook("mine").check()

    found = {check.name: check for check in Diagnosis("mine").checks()}
    assert found["token"].status == "failed"
    assert "Get a new API token" in found["token"].fix


# --- ids that are none ---


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: ProcoreHook(project_id=1001.0).get_instance("1"), "project_id"),
        (lambda: ProcoreHook(project_id="1001.0").list_presets("x"), "project_id"),
        (lambda: ProcoreHook(company_id=7.0).me(), "company_id"),
        (lambda: ProcoreHook().get_instance("1", project_id=["1001"]), "project_id"),
        (lambda: ProcoreHook(project_id="1001").get_instance(5001.0), "instance_id"),
        (lambda: list(ProcoreHook(project_id="1001").list_instances("x", item_id=5001.0)), "item_id"),
        (lambda: ProcoreLegacyHook().get_instance(5001.0), "instance_id"),
        (lambda: WorkflowsoftHook().list_integration_steps(1.0), "diagram_id"),
    ],
)
def test_a_hook_rejects_an_id_with_a_fraction(airflow_connections, call, name):
    with pytest.raises(ConfigurationError, match=name):
        call()
    assert airflow_connections.requests() == []


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (
            lambda hook: hook.respond("1", step_occurrence_id="2", option_id="3", idempotency_token=1.5),
            "idempotency_token",
        ),
        (lambda hook: hook.bulk_start_instances("x", ["5002"], idempotency_token=[1]), "items"),
        (lambda hook: hook.bulk_start_instances("x", [{"item_id": "1"}], idempotency_token=[1]), "idempotency_token"),
        *(
            (
                lambda hook, token=token: hook.respond(
                    "1", step_occurrence_id="2", option_id="3", idempotency_token=token
                ),
                "idempotency_token",
            )
            for token in (False, [], {})
        ),
        (lambda hook: hook.bulk_start_instances("x", None), "items"),
        (lambda hook: hook.bulk_history("x", ["1"], activity_types=0), "activity_types"),
        (lambda hook: hook.bulk_history("x", ["1"], activity_types={"comments": True}), "activity_types"),
        (lambda hook: hook.each_bulk_history("x", ["1"], activity_types="comments"), "activity_types"),
        (lambda hook: hook.get_instance_history("1", activity_types=[None]), "activity_types"),
        (lambda hook: hook.create_bulk_replace_request(None), "request"),
        (lambda hook: hook.update_bulk_replace_request("1", ["a"]), "request"),
        (
            lambda hook: ProcoreLegacyHook().perform_activity(
                "1", activity_id="2", role_id="3", performed_by="4", attachments=-1
            ),
            "attachments",
        ),
    ],
)
def test_a_hook_names_a_parameter_of_a_wrong_type(airflow_connections, call, name):
    with pytest.raises(ConfigurationError, match=f"^{name} must be"):
        call(ProcoreHook(project_id="1001"))
    assert airflow_connections.requests() == []


def test_account_is_the_server_and_the_user_who_signs_in(emulator, set_connection):
    first = emulator.connection("workflowsoft")
    for conn_id, changed in {
        "same": {"extra": {"login_lifetime": 60}},
        "other": {"login": "other@example.com"},
    }.items():
        set_connection(conn_id, {**first, **changed})
    set_connection("first", first)

    account = {conn_id: WorkflowsoftHook(conn_id).account for conn_id in ("first", "same", "other")}

    assert account["first"] == account["same"] != account["other"]
    assert first["password"] not in str(account)


def test_account_of_a_static_token_does_not_contain_it(emulator, set_connection):
    first = {**emulator.connection("workflowsoft"), "login": None, "password": "a-ready-token"}
    set_connection("first", first)
    set_connection("same", first)
    set_connection("other", {**first, "password": "another-token"})

    account = {conn_id: WorkflowsoftHook(conn_id).account for conn_id in ("first", "same", "other")}

    assert account["first"] == account["same"] != account["other"]
    assert "a-ready-token" not in str(account)
