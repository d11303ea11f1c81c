"""The Procore connection: what its fields mean, and what is said when one of them is wrong."""

from __future__ import annotations

import asyncio
import json

import pytest
import requests

from airflow_provider_workflows.exceptions import ConfigurationError, ContractError
from airflow_provider_workflows.hooks.base import checked_url
from airflow_provider_workflows.hooks.procore import ENVIRONMENTS, ProcoreHook

TOKEN = {"access_token": "tok-12345", "token_type": "bearer", "expires_in": 5400, "created_at": 1}
ME = {"id": 90001, "login": "integration@example.com"}


@pytest.fixture
def connect(set_connection):
    """Return a function that sets the connection from a valid one and changes to it."""

    def connect(extra=None, **changes):
        fields = {"conn_type": "procore", "login": "id", "password": "s3cret"}
        whole = extra if isinstance(extra, str) else {"company_id": "7", **(extra or {})}
        set_connection("procore_default", {**fields, "extra": whole, **changes})
        return ProcoreHook()

    return connect


@pytest.mark.parametrize("environment", [name for name in ENVIRONMENTS if name != "custom"])
def test_the_environment_decides_the_servers(connect, requests_mock, environment):
    login, api = ENVIRONMENTS[environment]
    granting = requests_mock.post(f"{login}/oauth/token", json=TOKEN)
    answering = requests_mock.get(f"{api}/rest/v1.0/me", json=ME)

    assert connect({"environment": environment}).user_id == "90001"
    assert granting.called_once
    assert answering.last_request.headers["Authorization"] == "Bearer tok-12345"
    assert answering.last_request.headers["Procore-Company-Id"] == "7"


def test_production_is_the_default_and_the_host_beats_it(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.get("https://proxy.example.com:8443/rest/v1.0/me", json=ME)

    connect(host="proxy.example.com", port=8443).me()

    assert there.called_once


def test_a_custom_environment_has_its_own_servers(connect, requests_mock):
    requests_mock.post("https://login.example.com/oauth/token", json=TOKEN)
    there = requests_mock.get("https://api.example.com/rest/v1.0/me", json=ME)

    connect({"environment": "custom", "login_url": "https://login.example.com/"}, host="https://api.example.com/").me()

    assert there.called_once


def test_a_ready_token_needs_no_grant(connect, requests_mock):
    there = requests_mock.get("https://api.procore.com/rest/v1.0/me", json=ME)

    connect({"access_token": "ready"}, login=None, password=None).me()

    assert there.last_request.headers["Authorization"] == "Bearer ready"


def test_a_uri_says_the_same_as_json(monkeypatch, requests_mock):
    uri = "procore://id:s3cret@/?environment=sandbox&company_id=7&project_id=8&timeout=5&verify=false&allow_http=true"
    monkeypatch.setenv("AIRFLOW_CONN_PROCORE_DEFAULT", uri)
    requests_mock.post("https://login-sandbox.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.get("https://sandbox.procore.com/rest/v1.0/me", json=ME)
    hook = ProcoreHook()

    hook.me()

    assert (hook.company_id, hook.project_id, hook.extras.flag("allow_http")) == ("7", "8", True)
    assert (there.last_request.timeout, there.last_request.verify) == ((5.0, 5.0), False)


def test_the_hooks_own_company_and_project_beat_the_connections(connect, requests_mock):
    connect({"project_id": "8"})
    hook = ProcoreHook(company_id=70, project_id=80)
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.get(requests_mock_any(), json={"data": {"id": "1"}})

    hook.get_instance("1")

    assert there.last_request.path == "/rest/v2.0/companies/70/projects/80/workflows/instances/1"
    assert there.last_request.headers["Procore-Company-Id"] == "70"


def requests_mock_any():
    import requests_mock

    return requests_mock.ANY


TOOLS = [
    {"name": "Purchase Order", "type": "purchase_order_contract", "provider": "Project", "subtype": None},
    {"name": "Prequalification", "type": "prequalification", "provider": "Company", "subtype": None},
]
COMPANY_PATH = "/rest/v2.0/companies/7/workflows"
PROJECT_PATH = "/rest/v2.0/companies/7/projects/3/workflows"


@pytest.fixture
def tools(requests_mock):
    """A company with tools of both levels; returns the calls that listed them."""
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    requests_mock.get(requests_mock_any(), json={"data": []})
    return requests_mock.get(f"https://api.procore.com{COMPANY_PATH}/tools", json={"data": TOOLS})


@pytest.mark.parametrize(
    ("given", "in_connection", "tool", "where", "asked"),
    [
        (None, "3", "prequalification", COMPANY_PATH, 1),
        (None, "3", "purchase_order_contract", PROJECT_PATH, 1),
        (None, "3", "PurchaseOrderContract", PROJECT_PATH, 1),
        ("3", None, "purchase_order_contract", PROJECT_PATH, 0),
        ("3", None, "prequalification", PROJECT_PATH, 0),
        ("company", "3", "purchase_order_contract", COMPANY_PATH, 0),
        (None, None, "prequalification", COMPANY_PATH, 1),
    ],
)
def test_the_tool_decides_the_level_where_nobody_says_it(
    connect, tools, requests_mock, given, in_connection, tool, where, asked
):
    hook = connect({"project_id": in_connection} if in_connection else {})

    list(hook.list_instances(tool, project_id=given))
    list(hook.list_instances(tool, project_id=given))

    assert requests_mock.last_request.path == f"{where}/instances"
    assert tools.call_count == asked


def test_tools_are_asked_for_once_in_a_process(connect, tools):
    for _ in range(3):
        connect().project_for(None, "prequalification")

    assert tools.call_count == 1


def test_a_tool_that_is_new_since_then_is_found(connect, tools, requests_mock):
    hook = connect()
    hook.project_for(None, "prequalification")
    new = {"name": "New", "type": "new", "provider": "Company", "subtype": None}
    requests_mock.get(f"https://api.procore.com{COMPANY_PATH}/tools", json={"data": [*TOOLS, new]})

    assert hook.project_for(None, "new") is None


def test_an_unknown_tool_is_refused_with_the_tools_there_are(connect, tools):
    with pytest.raises(ConfigurationError, match=r"no tool 'po'.*prequalification, purchase_order_contract"):
        connect().list_instances("po")


def test_a_tool_of_projects_needs_a_project(connect, tools):
    with pytest.raises(ConfigurationError, match="works in projects: give project_id"):
        connect().list_instances("purchase_order_contract")


def test_who_may_not_list_the_tools_works_where_the_connection_says(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    requests_mock.get(f"https://api.procore.com{COMPANY_PATH}/tools", status_code=403)

    assert connect({"project_id": "3"}).project_for(None, "purchase_order_contract") == "3"


def test_a_hook_of_the_company_level_leaves_the_connections_project_out(connect, tools):
    connect({"project_id": "3"})
    hook = ProcoreHook(project_id="company")

    assert hook.project_for(None, "purchase_order_contract") is None
    assert hook.project_id is None


def test_tls_and_proxies_go_for_the_token_too(connect, requests_mock):
    granting = requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.get("https://api.procore.com/rest/v1.0/me", json=ME)

    connect({"verify": "/etc/ca.pem", "proxies": '{"https": "http://proxy:3128"}', "timeout": 7}).me()

    for request in (granting.last_request, there.last_request):
        assert (request.verify, request.timeout) == ("/etc/ca.pem", (7.0, 7.0))
        assert request.proxies["https"] == "http://proxy:3128"


@pytest.mark.parametrize(
    ("extra", "changes", "named"),
    [
        ({"company_id": None}, {}, "No company_id"),
        ({"company_id": "seven"}, {}, "company_id must be a number"),
        ({"company_id": True}, {}, "'company_id' must be text"),
        ({"environment": "moon"}, {}, "'environment' must be one of production"),
        ({"environment": "custom"}, {}, "needs the API base URL in the field host"),
        ({"environment": "custom"}, {"host": "api.example.com"}, "needs the extra 'login_url'"),
        ({"environment": "custom", "login_url": "ftp://x"}, {"host": "a.example.com"}, "extra 'login_url' must be"),
        ({"login_url": "https://l.example.com"}, {}, "'login_url' goes only with environment 'custom'"),
        ({"timeout": "soon"}, {}, "'timeout' must be a positive number"),
        ({"timeout": 0}, {}, "'timeout' must be a positive number"),
        ({"timeout": True}, {}, "'timeout' must be a positive number"),
        ({"verify": 7}, {}, "'verify' must be false or the path"),
        ({"proxies": "http://proxy"}, {}, "'proxies' must be a JSON object"),
        ({"proxies": ["http://proxy"]}, {}, "'proxies' must be a JSON object"),
        ({"allow_http": "perhaps"}, {}, "'allow_http' must be true or false"),
        ({}, {"login": None}, "needs the client id in login"),
        ({}, {"password": None}, "needs the client id in login"),
        ({}, {"host": "http://api.example.com"}, "host is http.*'allow_http'"),
        ({}, {"host": "https://user:pw@api.example.com"}, "must not carry credentials"),
        ({}, {"host": "https://api.example.com:port"}, "host must be a host name or an https URL"),
        ("not json", {}, "extra is not a JSON object"),
        ("[1]", {}, "extra is not a JSON object"),
    ],
)
def test_a_mistake_in_the_connection_is_named_before_anything_is_sent(connect, requests_mock, extra, changes, named):
    with pytest.raises(ConfigurationError, match=named) as mistake:
        connect(extra, **changes).me()

    assert requests_mock.call_count == 0
    assert "s3cret" not in str(mistake.value)


def test_http_is_for_this_machine_or_by_permission():
    assert checked_url("http://127.0.0.1:80", "host", False) == "http://127.0.0.1:80"
    assert checked_url("http://localhost", "host", False) == "http://localhost"
    assert checked_url("http://api.example.com", "host", True) == "http://api.example.com"
    assert checked_url("api.example.com/", "host", False) == "https://api.example.com"


# --- Airflow's "Test" button ---


def test_the_test_button_names_the_user_and_the_company(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.get("https://api.procore.com/rest/v1.0/me", json=ME)

    works, message = connect().test_connection()

    assert works
    assert "integration@example.com (user 90001), company 7" in message
    assert there.called_once
    assert there.last_request.timeout == (5.0, 5.0)  # and as much for the token: ten seconds in all


@pytest.mark.parametrize(
    ("grant", "answer", "advice"),
    [
        ({"status_code": 401, "json": {"error": "invalid_client"}}, {}, "Check login, password and environment"),
        ({"json": TOKEN}, {"status_code": 403, "json": {"message": "App is not connected"}}, "App is not connected"),
        ({"json": TOKEN}, {"text": "<html><title>Proxy</title></html>"}, "an HTML page titled 'Proxy'"),
        ({"json": TOKEN}, {"json": {}}, "no id"),
    ],
)
def test_the_test_button_says_what_to_fix(connect, requests_mock, grant, answer, advice):
    requests_mock.post("https://login.procore.com/oauth/token", **grant)
    requests_mock.get("https://api.procore.com/rest/v1.0/me", **answer)

    works, message = connect().test_connection()

    assert not works
    assert advice in message
    assert "s3cret" not in message
    assert "tok-12345" not in message


def test_the_test_button_answers_soon_when_the_server_is_away(connect, requests_mock, monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    requests_mock.post("https://login.procore.com/oauth/token", exc=requests.exceptions.ConnectTimeout)

    works, message = connect().test_connection()

    assert not works
    assert "No connection to https://login.procore.com" in message
    assert slept == []


def test_the_emulator_passes_the_test(airflow_connections):
    assert ProcoreHook().test_connection()[0]


# --- answers ---


@pytest.mark.parametrize("body", [{}, {"data": []}, {"data": None}, [], None])
def test_an_answer_of_another_form_is_a_contract_error(connect, requests_mock, body):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    requests_mock.get(requests_mock_any(), json=body)

    with pytest.raises(ContractError, match="'data'"):
        connect().get_instance("1")


def test_a_response_has_the_form_that_procore_requires(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.post(requests_mock_any(), status_code=204)
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)

    connect().respond("1", step_occurrence_id="2", option_id="3", idempotency_token="t")

    assert json.loads(there.last_request.text) == {
        "response": {"current_step_occurrence_id": "2", "selected_response_option_id": "3", "attachments": {}}
    }
    assert there.last_request.headers["Idempotency-Token"] == "t"


def test_an_instance_is_started_with_what_was_given_only(connect, requests_mock):
    requests_mock.post(requests_mock_any(), status_code=201, json={"data": {"id": "9"}})
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)

    assert connect().start_instance("po", "1", preset_id="5", project_id="3") == {"id": "9"}
    assert requests_mock.last_request.json() == {"tool_type": "po", "item_id": "1", "preset_id": "5"}


# --- in a trigger ---


def test_a_trigger_looks_the_connection_up_on_its_loop_and_masks_tokens_there(airflow_connections, monkeypatch):
    masked = []

    async def mask(token: str) -> None:
        masked.append(token)

    monkeypatch.setattr("airflow_provider_workflows.hooks.base.amask_secret", mask)

    async def run() -> str:
        hook = ProcoreHook()
        await hook.prepare()
        assert hook.client.retry.attempts == 1
        user = await asyncio.to_thread(lambda: hook.user_id)
        await asyncio.sleep(0)
        hook.close()
        return user

    assert asyncio.run(run()) == "90001"
    assert len(masked) == 1


@pytest.mark.parametrize(
    ("template", "url"),
    [
        ("https://app.example.com/{company_id}/{item_id}", "https://app.example.com/7/5%2F6"),
        ("https://app.example.com/{project_id}/{item_id}", ""),
        ("https://app.example.com/{unknown}", ""),
        ("https://app.example.com/{", ""),
        ("https://app.example.com/{item_id.x}", ""),
        (None, ""),
    ],
)
def test_the_address_of_an_item_is_filled_in_or_empty(connect, template, url):
    assert connect({"item_url": template}).item_url(item_id="5/6", tool_type=None) == url
