"""The Procore connection: what its fields mean, and the errors when one of them is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import uuid
from collections.abc import Iterator

import pytest
import requests

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.base import checked_url
from airflow_provider_workflows.hooks.procore import ENVIRONMENTS, ProcoreHook
from tests.support.versions import AIRFLOW

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
    mocked = requests_mock.get(f"{api}/rest/v1.0/me", json=ME)

    assert connect({"environment": environment}).user_id == "90001"
    assert granting.called_once
    assert mocked.last_request.headers["Authorization"] == "Bearer tok-12345"
    assert mocked.last_request.headers["Procore-Company-Id"] == "7"


def test_production_is_the_default_and_the_host_beats_it(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.get("https://proxy.example.com:8443/rest/v1.0/me", json=ME)

    connect(host="proxy.example.com", port=8443).me()

    assert there.called_once


@pytest.mark.parametrize(
    ("host", "port"),
    [("proxy.example.com", 0), ("proxy.example.com:8443", 443), ("https://proxy.example.com:8443/", 443)],
)
def test_port_stored_by_a_form_for_none_changes_nothing(connect, requests_mock, host, port):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.get(f"https://{host.removeprefix('https://').rstrip('/')}/rest/v1.0/me", json=ME)

    connect(host=host, port=port).me()

    assert there.called_once


def test_a_custom_environment_has_its_own_servers(connect, requests_mock):
    requests_mock.post("https://login.example.com/oauth/token", json=TOKEN)
    there = requests_mock.get("https://api.example.com/rest/v1.0/me", json=ME)

    connect({"environment": "custom", "login_url": "https://login.example.com/"}, host="https://api.example.com/").me()

    assert there.called_once


def test_a_static_token_needs_no_grant(connect, requests_mock):
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
    ("project_id", "in_connection", "tool", "where", "listings"),
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
def test_the_tool_decides_the_level_by_default(
    connect, tools, requests_mock, project_id, in_connection, tool, where, listings
):
    hook = connect({"project_id": in_connection} if in_connection else {})

    list(hook.list_instances(tool, project_id=project_id))
    list(hook.list_instances(tool, project_id=project_id))

    assert requests_mock.last_request.path == f"{where}/instances"
    assert tools.call_count == listings


def test_tools_are_requested_once_in_a_process(connect, tools):
    for _ in range(3):
        connect().project_for(None, "prequalification")

    assert tools.call_count == 1


def test_a_tool_that_is_new_since_then_is_found(connect, tools, requests_mock):
    hook = connect()
    hook.project_for(None, "prequalification")
    new = {"name": "New", "type": "new", "provider": "Company", "subtype": None}
    requests_mock.get(f"https://api.procore.com{COMPANY_PATH}/tools", json={"data": [*TOOLS, new]})

    assert hook.project_for(None, "new") is None


def test_an_unknown_tool_is_rejected_with_the_tools_there_are(connect, tools):
    with pytest.raises(ConfigurationError, match=r"Unknown tool_type 'po'.*prequalification, purchase_order_contract"):
        connect().list_instances("po")


def test_a_tool_of_projects_needs_a_project(connect, tools):
    with pytest.raises(ConfigurationError, match="works in projects. Give project_id"):
        connect().list_instances("purchase_order_contract")


def test_user_without_tools_works_at_the_connections_level(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    requests_mock.get(f"https://api.procore.com{COMPANY_PATH}/tools", status_code=403)

    assert connect({"project_id": "3"}).project_for(None, "purchase_order_contract") == "3"


def test_company_level_hook_leaves_out_the_connections_project(connect, tools):
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


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("extra", "changes", "named"),
    [
        ({"company_id": None}, {}, "company_id is missing"),
        ({"company_id": "seven"}, {}, "company_id must be a number"),
        ({"company_id": True}, {}, "'company_id' must be text"),
        ({"environment": "moon"}, {}, "'environment' must be one of production"),
        ({"environment": "custom"}, {}, "needs the API base URL in host"),
        ({"environment": "custom"}, {"host": "api.example.com"}, "needs the extra 'login_url'"),
        ({"environment": "custom", "login_url": "ftp://x"}, {"host": "a.example.com"}, "extra 'login_url' must be"),
        ({"login_url": "https://l.example.com"}, {}, "'login_url' needs environment 'custom'"),
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
        ({}, {"host": "https://user:pw@api.example.com"}, "must not contain credentials"),
        ({}, {"host": "https://api.example.com:port"}, "host must be a host name or an https URL"),
        ("not json", {}, "extra must be a JSON object"),
        ("[1]", {}, "extra must be a JSON object"),
    ],
)
def test_a_connection_mistake_is_named_before_sending(connect, requests_mock, extra, changes, named):
    if AIRFLOW < (3, 2) and isinstance(extra, str):
        pytest.skip("before Airflow 3.2 it says that there is no such connection, if its extra is no object")
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
    ("grant", "response", "advice"),
    [
        ({"status_code": 401, "json": {"error": "invalid_client"}}, {}, "Check login, password and environment"),
        ({"json": TOKEN}, {"status_code": 403, "json": {"message": "App is not connected"}}, "App is not connected"),
        ({"json": TOKEN}, {"text": "<html><title>Proxy</title></html>"}, "an HTML page titled 'Proxy'"),
        ({"json": TOKEN}, {"json": {}}, "no id"),
    ],
)
def test_the_test_button_says_what_to_fix(connect, requests_mock, grant, response, advice):
    requests_mock.post("https://login.procore.com/oauth/token", **grant)
    requests_mock.get("https://api.procore.com/rest/v1.0/me", **response)

    works, message = connect().test_connection()

    assert not works
    assert advice in message
    assert "s3cret" not in message
    assert "tok-12345" not in message


def test_the_test_button_ends_soon_when_the_server_is_down(connect, requests_mock, monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    requests_mock.post("https://login.procore.com/oauth/token", exc=requests.exceptions.ConnectTimeout)

    works, message = connect().test_connection()

    assert not works
    assert "No connection to https://login.procore.com" in message
    assert slept == []


def test_the_emulator_passes_the_test(airflow_connections):
    assert ProcoreHook().test_connection()[0]


# --- responses ---


@pytest.mark.parametrize("body", [{}, {"data": []}, {"data": None}, [], None])
def test_a_response_of_another_format_is_a_contract_error(connect, requests_mock, body):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    requests_mock.get(requests_mock_any(), json=body)

    with pytest.raises(UnexpectedResponse, match="'data'"):
        connect().get_instance("1")


def test_a_response_has_the_format_that_procore_requires(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    there = requests_mock.post(requests_mock_any(), status_code=204)
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)

    connect().respond("1", step_occurrence_id="2", option_id="3", idempotency_token="t")

    assert json.loads(there.last_request.text) == {
        "response": {"current_step_occurrence_id": "2", "selected_response_option_id": "3", "attachments": {}}
    }
    assert there.last_request.headers["Idempotency-Token"] == "t"


def test_an_instance_is_started_with_only_the_parameters_set(connect, requests_mock):
    requests_mock.post(requests_mock_any(), status_code=201, json={"data": {"id": "9"}})
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)

    assert connect().start_instance("po", "1", preset_id="5", project_id="3") == {"id": "9"}
    assert requests_mock.last_request.json() == {"tool_type": "po", "item_id": "1", "preset_id": "5"}


# --- in a trigger ---


def test_trigger_looks_up_the_connection_and_masks_on_its_loop(airflow_connections, monkeypatch):
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
        ("https://app.example.com/{item_id[a]}", ""),
        ("https://app.example.com/{item_id:d}", ""),
        (["https://app.example.com"], ""),
        (None, ""),
    ],
)
def test_the_address_of_an_item_is_filled_in_or_empty(connect, template, url):
    assert connect({"item_url": template}).item_url(item_id="5/6", tool_type=None) == url


# --- one method for each operation: what it sends, and what the emulator says to it ---

TOOL = "purchase_order_contract"
LOGIN_GROUP = str(uuid.uuid5(uuid.NAMESPACE_URL, "group:301:Integration"))
BUDGET_CHECK = str(uuid.uuid5(uuid.NAMESPACE_URL, "step:Budget Check"))
REPLACE = {
    "replacement_type": "permanent",
    "old_assignee_id": "90004",
    "new_assignee_ids": ["90006"],
    "modify_project_roles": False,
    "reason": "left",
}
MEMBERS = [{"uuid": LOGIN_GROUP, "login_ids": ["90001", "90003"]}]
INDIVIDUALS = [{"step_uuid": BUDGET_CHECK, "logins": [{"id": "90005", "required": False, "role_type": "commenter"}]}]
PAGE = {"per_page": "100"}

# name, positional arguments, named arguments, HTTP method, path below /workflows/, query, body
BOTH_LEVELS = [
    (
        "list_presets",
        (TOOL,),
        {"tool_subtype": "-1", "is_default": True, "is_valid": False},
        "GET",
        "presets",
        {
            "filters[tool_type]": TOOL,
            "filters[tool_subtype]": "-1",
            "filters[is_default]": "true",
            "filters[is_valid]": "false",
            **PAGE,
        },
        None,
    ),
    ("get_preset", ("401",), {}, "GET", "presets/401", {}, None),
    ("set_default_preset", ("401", False), {}, "PATCH", "presets/401", {}, {"default": False}),
    (
        "update_preset_assignees",
        ("401",),
        {
            "responsible_group_memberships": MEMBERS,
            "individual_assignees": INDIVIDUALS,
            "workflow_manager_id": "90002",
        },
        "PATCH",
        "presets/401/assignees",
        {},
        {"responsible_group_memberships": MEMBERS, "individual_assignees": INDIVIDUALS, "workflow_manager_id": "90002"},
    ),
    (
        "list_possible_assignees",
        (TOOL,),
        {"tool_subtype": "-1"},
        "GET",
        "possible_assignees",
        {"tool_type": TOOL, "tool_subtype": "-1", **PAGE},
        None,
    ),
    ("list_workflow_managers", (TOOL,), {}, "GET", "workflow_managers", {"tool_type": TOOL, **PAGE}, None),
    (
        "list_instances",
        (TOOL,),
        {"item_id": "5001", "assignee_id": "90001", "active": True, "overdue": False, "include_internal": True},
        "GET",
        "instances",
        {
            "filters[tool_type]": TOOL,
            "filters[item_id]": "5001",
            "filters[assignee_id]": "90001",
            "filters[active]": "true",
            "filters[overdue]": "false",
            "include_internal": "true",
            **PAGE,
        },
        None,
    ),
    (
        "start_instance",
        (TOOL, "5002"),
        {"tool_subtype": None, "template_id": "301", "preset_id": "401"},
        "POST",
        "instances",
        {},
        {"tool_type": TOOL, "item_id": "5002", "template_id": "301", "preset_id": "401"},
    ),
    ("get_instance", ("700001",), {}, "GET", "instances/700001", {}, None),
    ("get_instance_history", ("700001",), {}, "GET", "instances/700001/history", {}, None),
    (
        "list_item_histories",
        (TOOL, "5001"),
        {},
        "GET",
        "instances/history",
        {"tool_type": TOOL, "item_id": "5001"},
        None,
    ),
    (
        "bulk_history",
        (TOOL, ["5001"]),
        {"activity_types": ["comments"]},
        "POST",
        "instances/bulk_history",
        {},
        {"tool_type": TOOL, "item_ids": ["5001"], "filters": {"activity_types": ["comments"]}},
    ),
    (
        "each_bulk_history",
        (TOOL, ["5001"]),
        {"activity_types": ["comments"]},
        "POST",
        "instances/bulk_history",
        {},
        {"tool_type": TOOL, "item_ids": ["5001"], "filters": {"activity_types": ["comments"]}},
    ),
    (
        "add_assignees",
        ("700001",),
        {
            "step_occurrence_id": "70000101",
            "assignee_ids": ("90006",),
            "reason": "other",
            "required": False,
            "role_type": "commenter",
            "comment": "c",
            "message": "m",
        },
        "POST",
        "instances/700001/additional_assignees",
        {},
        {
            "step_occurrence_id": "70000101",
            "assignee_ids": ["90006"],
            "reason": "other",
            "required": False,
            "role_type": "commenter",
            "comment": "c",
            "message": "m",
        },
    ),
    (
        "restart_instance",
        ("700001",),
        {"restart_mode": "defaults"},
        "POST",
        "instances/700001/restart",
        {},
        {"restart_mode": "defaults"},
    ),
    ("terminate_instance", ("700001",), {}, "POST", "instances/700001/terminate", {}, None),
    ("refresh_instance", ("700001",), {}, "POST", "instances/700001/refresh", {}, None),
    (
        "bulk_start_instances",
        (TOOL, [{"item_id": "5003"}]),
        {"idempotency_token": "t"},
        "POST",
        "instances/bulk_create",
        {},
        {"tool_type": TOOL, "items": [{"item_id": "5003"}]},
    ),
]
COMPANY_ONLY = [
    ("list_tools", (), {}, "GET", "tools", {}, None),
    ("list_templates", (), {}, "GET", "templates", PAGE, None),
    ("get_template_version", ("3011",), {}, "GET", "templates/versions/3011", {}, None),
    (
        "list_bulk_replace_requests",
        (),
        {
            "status": "active",
            "old_assignee_ids": ["90004", "90005"],
            "new_assignee_ids": ["90006"],
            "updated_by_id": "90001",
            "replacement_type": "temporary",
            "start_date": "2026-01-01...2026-02-01",
            "end_date": "2026-03-01...2026-04-01",
            "sort": "-created_at",
        },
        "GET",
        "bulk_replace_requests",
        {
            "filters[status]": "active",
            "filters[old_assignee_ids]": "90004,90005",
            "filters[new_assignee_ids]": "90006",
            "filters[updated_by_id]": "90001",
            "filters[type]": "temporary",
            "filters[start_date]": "2026-01-01...2026-02-01",
            "filters[end_date]": "2026-03-01...2026-04-01",
            "sort": "-created_at",
            **PAGE,
        },
        None,
    ),
    ("create_bulk_replace_request", (REPLACE,), {}, "POST", "bulk_replace_requests", {}, REPLACE),
    ("get_bulk_replace_request", ("801",), {}, "GET", "bulk_replace_requests/801", {}, None),
    ("update_bulk_replace_request", ("801", REPLACE), {}, "PUT", "bulk_replace_requests/801", {}, REPLACE),
    ("stop_bulk_replace_request", ("801",), {}, "DELETE", "bulk_replace_requests/801", {}, None),
    ("get_bulk_replace_errors", ("801",), {}, "GET", "bulk_replace_requests/801/errors", {}, None),
]
C = "/rest/v2.0/companies/4264807/workflows"
P = "/rest/v2.0/companies/4264807/projects/1001/workflows"


def calls(rows: list) -> list:
    return [pytest.param(*row, id=row[0]) for row in rows]


def call(name: str, positional: tuple, named: dict):
    """Call a method of the hook; a list is read to its end."""
    result = getattr(ProcoreHook(), name)(*positional, **named)
    return list(result) if isinstance(result, Iterator) else result


def last_request(emulator) -> tuple:
    sent = emulator.requests()[-1]
    assert sent["company_header"] == "4264807"
    return sent["method"], sent["path"], sent["query"], sent["body"]


@pytest.mark.sample(6)
@pytest.mark.parametrize(("name", "positional", "named", "method", "below", "query", "body"), calls(BOTH_LEVELS))
@pytest.mark.parametrize(("level", "prefix"), [(None, P), ("1001", P), ("company", C)])
def test_a_method_sends_what_the_contract_says_at_either_level(
    airflow_connections, name, positional, named, method, below, query, body, level, prefix
):
    with contextlib.suppress(InvalidRequest, NotFound):  # not all of it exists at the company level
        call(name, positional, {**named, "project_id": level})

    assert last_request(airflow_connections) == (method, f"{prefix}/{below}", query, body)


@pytest.mark.parametrize(("name", "positional", "named", "method", "below", "query", "body"), calls(COMPANY_ONLY))
def test_a_method_of_the_company_sends_what_the_contract_says(
    airflow_connections, name, positional, named, method, below, query, body
):
    with contextlib.suppress(InvalidRequest, NotFound):
        call(name, positional, named)

    assert last_request(airflow_connections) == (method, f"{C}/{below}", query, body)


def test_every_procore_method_is_compared_with_the_contract():
    public = {name for name, value in vars(ProcoreHook).items() if callable(value) and not name.startswith("_")}
    here = {row[0] for row in [*BOTH_LEVELS, *COMPANY_ONLY]}

    # These are tested below, or with the uploads and the levels.
    elsewhere = {"respond", "get_async_operation", "upload", "await_upload", "find_tool", "list_item_instances"}
    elsewhere |= {"project_for", "level_for", "check_tool"}
    assert public - here - elsewhere == set()


def test_a_preset_is_read_made_the_default_and_assigned(airflow_connections):
    airflow_connections.control("POST", "procore/presets", template_id="301", count=1)
    hook = ProcoreHook()

    shown = hook.get_preset("406")
    assert (shown["default"], shown["valid"], shown["template"]["id"]) == (False, True, "301")
    assert hook.set_default_preset("406")["default"] is True
    assert [preset["id"] for preset in hook.list_presets(TOOL, is_default=True)] == ["406"]
    echoed = hook.update_preset_assignees("406", responsible_group_memberships=MEMBERS)
    assert echoed["responsible_group_memberships"] == MEMBERS
    assert airflow_connections.requests()[-1]["body"] == {"responsible_group_memberships": MEMBERS}


def test_people_templates_and_tools_are_listed(airflow_connections):
    hook = ProcoreHook()

    assert [tool["type"] for tool in hook.list_tools()][:2] == [TOOL, "generic_tool_item"]
    templates = list(hook.list_templates())
    assert [template["id"] for template in templates] == ["301", "302", "303", "304", "305", "306", "307"]
    version = hook.get_template_version(templates[0]["latest_published_version"]["id"])
    assert [step["name"] for step in version["steps"]] == ["Budget Check", "Director Approval", "Correct Order"]
    assert "90009" not in [person["id"] for person in hook.list_possible_assignees(TOOL)]
    assert [person["login"] for person in hook.list_workflow_managers(TOOL)] == ["pat@example.com"]


def test_an_instance_is_started_shown_refreshed_restarted_and_ended(airflow_connections):
    hook = ProcoreHook()

    started = hook.start_instance(TOOL, "5002")
    assert hook.get_instance(started["id"])["current_step_occurrence"]["name"] == "Budget Check"
    airflow_connections.control("POST", f"procore/instances/{started['id']}/block", reason="x")
    assert hook.get_instance_history(started["id"])["status"] == "blocked"
    assert hook.refresh_instance(started["id"])["id"] == started["id"]
    new = hook.restart_instance(started["id"])
    assert hook.restart_instance(started["id"])["id"] == new["id"] != started["id"]
    assert hook.terminate_instance(new["id"]) == hook.terminate_instance(new["id"])
    ended = [history["status"] for history in hook.list_item_histories(TOOL, "5002")]
    (of_item,) = hook.bulk_history(TOOL, ["5002"])
    assert ended == ["terminated", "terminated"] == [history["status"] for history in of_item["instances"]]


def test_a_response_and_more_assignees_are_recorded(airflow_connections):
    hook = ProcoreHook()
    step = hook.get_instance("700001")["current_step_occurrence"]

    shown = hook.add_assignees("700001", step_occurrence_id=step["id"], assignee_ids=["90006"], reason="other")
    assert len(shown["current_step_occurrence"]["response_occurrences"]) == 2
    option = step["available_response_options"][0]["id"]
    hook.respond("700001", step_occurrence_id=step["id"], option_id=option, comment="ok", tool_type=TOOL)

    assert last_request(airflow_connections)[1:] == (
        f"{P}/instances/700001/responses",
        {},
        {
            "response": {
                "current_step_occurrence_id": step["id"],
                "selected_response_option_id": option,
                "attachments": {},
                "comment": "ok",
            }
        },
    )
    assert hook.get_instance("700001")["current_step_occurrence"]["name"] == "Director Approval"


def test_many_are_started_by_an_operation_that_is_shown(airflow_connections):
    airflow_connections.control("PATCH", "flags", idempotency="honoured")
    hook = ProcoreHook()

    ordered = hook.bulk_start_instances(TOOL, [{"item_id": "11", "preset_id": "401"}], idempotency_token="t")
    assert airflow_connections.requests()[-1]["idempotency_token"] == "t"
    again = hook.bulk_start_instances(TOOL, [{"item_id": "11", "preset_id": "401"}], idempotency_token="t")
    operation = hook.get_async_operation(ordered["operation_id"])

    assert last_request(airflow_connections)[:2] == ("GET", f"{C[: -len('/workflows')]}/async_operations/901001")
    assert again == ordered
    assert (operation["status"], operation["result"]["completed_items"][0]["item_id"]) == ("done", "11")


def test_a_replacement_reports_what_could_not_be_done(airflow_connections):
    hook = ProcoreHook()

    created = hook.create_bulk_replace_request({**REPLACE, "new_assignee_ids": ["90009"]})
    request_id = created["bulk_replace_request_id"]
    assert hook.get_async_operation(created["operation_id"])["status"] == "failed"
    assert b"User 90009 cannot be assigned." in hook.get_bulk_replace_errors(request_id)
    hook.update_bulk_replace_request(request_id, REPLACE)
    assert hook.get_bulk_replace_request(request_id)["status"] == "completed"
    temporary = {**REPLACE, "replacement_type": "temporary", "start_date": "2999-01-01", "end_date": "2999-02-01"}
    upcoming = hook.create_bulk_replace_request(temporary)["bulk_replace_request_id"]
    assert hook.stop_bulk_replace_request(upcoming) is None
    found = list(hook.list_bulk_replace_requests(status="stopped", old_assignee_ids=["90004"]))
    assert [request["id"] for request in found] == [upcoming]


NEVER_TWICE = {
    "update_preset_assignees",
    "start_instance",
    "bulk_start_instances",
    "add_assignees",
    "refresh_instance",
    "restart_instance",
    "terminate_instance",
    "create_bulk_replace_request",
    "update_bulk_replace_request",
}


@pytest.mark.parametrize(
    ("name", "positional", "named"), [pytest.param(*row[:3], id=row[0]) for row in [*BOTH_LEVELS, *COMPANY_ONLY]]
)
def test_lost_response_is_requested_again_only_if_that_is_safe(
    connect, requests_mock, monkeypatch, name, positional, named
):
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (2, 0.0, 120.0))
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    lost = requests_mock.register_uri(
        requests_mock_any(), re.compile("https://api.procore.com/"), exc=requests.exceptions.ReadTimeout
    )
    connect({"project_id": "3"})
    place = {"project_id": "3"} if (name, positional, named) in [row[:3] for row in BOTH_LEVELS] else {}

    with pytest.raises(OutcomeUnknown if name in NEVER_TWICE else ConnectionFailed):
        call(name, positional, {**named, **place})
    assert lost.call_count == (1 if name in NEVER_TWICE else 2)


@pytest.mark.parametrize("place", ["body_meta_next_cursor", "link_header", "body_pagination_next_cursor"])
def test_a_long_list_is_read_page_by_page_as_it_is_used(airflow_connections, place):
    airflow_connections.control("PATCH", "flags", cursor_place=place)
    for number in range(249):
        airflow_connections.control("POST", "procore/instances", tool_type=TOOL, item_id=f"9{number}")
    hook = ProcoreHook(project_id="1001")

    rows = hook.list_instances(TOOL, active=True)
    before = len(airflow_connections.requests())
    first = next(rows)
    assert first["id"] == "700001"
    pages = [r for r in airflow_connections.requests()[before:] if r["path"].endswith("/instances")]
    assert len(pages) == 1

    assert len(list(rows)) == 249
    pages = [r for r in airflow_connections.requests()[before:] if r["path"].endswith("/instances")]
    assert len(pages) == 3


@pytest.mark.parametrize("active", [None, True])
def test_list_is_read_on_after_a_page_that_was_rate_limited(airflow_connections, active):
    airflow_connections.control("POST", "procore/instances/many", count=149)
    later = {"status": 429, "headers": {"Retry-After": "7200"}}
    airflow_connections.control("POST", "faults", path="/instances$", skip=1, **later)
    rows = ProcoreHook(project_id="1001").list_instances(TOOL, active=active)
    found = [next(rows) for _ in range(100)]

    with pytest.raises(RateLimited):
        next(rows)

    assert len({row["id"] for row in [*found, *rows]}) == 150


def test_nothing_is_requested_before_a_list_is_used(airflow_connections):
    hook = ProcoreHook(project_id="1001")

    hook.list_instances(TOOL)
    hook.list_presets(TOOL)
    hook.list_templates()

    assert airflow_connections.requests() == []


@pytest.mark.parametrize("project_id", ["", " ", "None"])
def test_a_project_that_was_rendered_empty_is_not_the_company(connect, requests_mock, project_id):
    connect({"project_id": "3"})

    with pytest.raises(ConfigurationError, match="project_id is missing or was rendered empty"):
        ProcoreHook(project_id=project_id).get_instance("1")
    with pytest.raises(ConfigurationError, match="project_id is missing or was rendered empty"):
        ProcoreHook().get_instance("1", project_id=project_id)
    assert requests_mock.call_count == 0


def test_the_instances_of_an_item_are_one_at_least(airflow_connections):
    assert [row["id"] for row in ProcoreHook().list_item_instances(TOOL, "5001")] == ["700001"]
    with pytest.raises(NotFound, match="Item 4711 of tool purchase_order_contract has no workflow instance"):
        ProcoreHook().list_item_instances(TOOL, "4711")
    with pytest.raises(ConfigurationError, match="Unknown tool_type 'po'"):
        ProcoreHook().list_item_instances("po", "4711", "1001")


def test_a_rejection_to_list_the_tools_is_requested_once(connect, requests_mock):
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)
    requests_mock.get(requests_mock_any(), json={"data": []})
    listing = requests_mock.get(f"https://api.procore.com{COMPANY_PATH}/tools", status_code=403)
    hook = connect({"project_id": "3"})

    for _ in range(3):
        list(hook.list_instances("purchase_order_contract"))

    assert listing.call_count == 1


@pytest.mark.parametrize("filters", ["honoured", "ignored"])
def test_list_contains_only_what_was_requested(airflow_connections, filters):
    airflow_connections.control("PATCH", "flags", filters=filters)
    for tool, item in ((TOOL, "5002"), (TOOL, "5003"), ("generic_tool_item", "5002")):
        airflow_connections.control("POST", "procore/instances", tool_type=tool, item_id=item)
    airflow_connections.control("POST", "procore/instances/700002/terminate")
    hook = ProcoreHook()

    found = [
        [row["id"] for row in hook.list_instances(TOOL, **filters)]
        for filters in ({}, {"item_id": "5002"}, {"active": True}, {"active": False})
    ]

    assert [sorted(found[0]), *found[1:]] == [
        ["700001", "700002", "700003"],
        ["700002"],
        ["700001", "700003"],
        ["700002"],
    ]
    assert [row["id"] for row in hook.list_item_instances("generic_tool_item", "5002")] == ["700004"]
    assert hook.list_item_instances(TOOL, "4711", required=False) == []


def test_rows_without_an_item_are_shown_to_learn_it(airflow_connections):
    airflow_connections.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")
    rows = {"data": [{"id": "700001"}, {"id": "700002"}]}
    path = "/workflows/instances$"
    airflow_connections.control("POST", "faults", method="GET", path=path, times=1, status=200, json=rows)

    assert [row["id"] for row in ProcoreHook().list_item_instances(TOOL, "5002")] == ["700002"]


@pytest.mark.parametrize("ignored", [True, False])
def test_presets_are_compared_with_what_was_requested(airflow_connections, ignored):
    airflow_connections.control("POST", "procore/presets", template_id="301", count=1)
    if ignored:
        rows = {"data": list(ProcoreHook().list_presets(TOOL))}
        airflow_connections.control("POST", "faults", method="GET", path="/presets$", times=1, status=200, json=rows)

    assert [row["id"] for row in ProcoreHook().list_presets(TOOL, is_default=False)] == ["406"]


@pytest.mark.parametrize("status", [200, 201, 202])
def test_only_the_documented_204_confirms_a_response(connect, requests_mock, status):
    requests_mock.post(requests_mock_any(), status_code=status)
    requests_mock.post("https://login.procore.com/oauth/token", json=TOKEN)

    with pytest.raises(OutcomeUnknown, match=str(status)):
        connect().respond("1", step_occurrence_id="2", option_id="3")
