"""What goes over the wire to Workflowsoft, and how its connection is read."""

from __future__ import annotations

import socket
from decimal import Decimal

import pytest

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    ContractError,
    NotFound,
    OutcomeUnknown,
    ServerError,
)
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

URL = "https://api.workflowsoft.com"
POLL = f"{URL}/api/v2/workflows/instances/new-integrations"
TOKEN_ONLY = {"conn_type": "workflowsoft", "password": "ready-token", "extra": {"allow_consume": True}}


@pytest.fixture
def hook(set_connection) -> WorkflowsoftHook:
    set_connection("workflowsoft_default", TOKEN_ONLY)
    return WorkflowsoftHook()


@pytest.fixture
def hook_with(set_connection):
    """Return a function that makes a hook on a connection with other fields."""

    def build(**fields) -> WorkflowsoftHook:
        set_connection("workflowsoft_default", {**TOKEN_ONLY, **fields})
        return WorkflowsoftHook()

    return build


def test_a_password_alone_is_the_token_and_the_public_server_the_default(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": 1, "Title": "Plan"}])

    assert hook.list_process_diagrams("Plan") == [{"id": "1", "title": "Plan"}]

    sent = requests_mock.last_request
    assert sent.headers["Authorization"] == "Bearer ready-token"
    assert sent.headers["Accept"] == "application/json"
    assert sent.qs == {"searchterm": ["plan"], "mode": ["view"], "limit": ["100"]}
    assert "X-OnBehalfOf-Id" not in sent.headers


def test_login_and_password_ask_for_a_token_at_the_connections_own_server(hook_with, requests_mock):
    hook = hook_with(host="https://on.premises:8443", login="admin", password="secret", extra={"mint_lifetime": "600"})
    requests_mock.get("https://on.premises:8443/api/v2/app/apitoken?lifeTimeInSec=600", json="minted")
    requests_mock.get("https://on.premises:8443/api/v2/workflows", json=[])

    hook.list_process_diagrams()

    mint, call = requests_mock.request_history
    assert mint.headers["Authorization"].startswith("Basic ")
    assert call.headers["Authorization"] == "Bearer minted"


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"password": ""}, "API token in password"),
        ({"login": "admin", "extra": {"mint_auth": "magic"}}, "mint_auth"),
        ({"login": "admin", "extra": {"mint_lifetime": "soon"}}, "mint_lifetime"),
        ({"host": "http://on.premises"}, "allow_http"),
        ({"extra": {"allow_consume": "perhaps"}}, "allow_consume"),
        ({"extra": {"allow_consume": True, "new_integrations": "sometimes"}}, "new_integrations"),
    ],
)
def test_a_bad_connection_is_named_before_anything_is_sent(hook_with, requests_mock, fields, named):
    with pytest.raises(ConfigurationError, match=named):
        hook_with(**fields).poll_new_integrations("101")
    assert requests_mock.request_history == []


def test_polling_needs_a_connection_that_allows_it_and_says_why(hook_with, requests_mock):
    with pytest.raises(ConfigurationError, match="take each other's work.*'allow_consume'"):
        hook_with(extra={}).poll_new_integrations("101")
    assert requests_mock.request_history == []


def test_a_poll_asks_for_one_step_and_is_not_answered_from_a_cache(hook, requests_mock):
    requests_mock.get(POLL, json={"IntegrationInstanceId": 2, "ProcessInstanceId": 3})

    assert hook.poll_new_integrations("101") == [{"integration_instance_id": "2", "process_instance_id": "3"}]
    assert requests_mock.last_request.qs == {"id": ["101"]}
    assert requests_mock.last_request.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    "nothing",
    [
        {"status_code": 204},
        {"text": ""},
        {"text": "null"},
        {"text": "{}"},
        {"text": "[]"},
    ],
)
def test_every_empty_answer_means_nothing_new(hook, requests_mock, nothing):
    requests_mock.get(POLL, **nothing)

    assert hook.poll_new_integrations("101") == []


def test_a_404_means_nothing_new_only_for_a_step_that_was_seen(hook, requests_mock):
    requests_mock.get(POLL, status_code=404, json={"Message": "No"})

    assert hook.poll_new_integrations("101", is_known=True) == []
    with pytest.raises(NotFound):
        hook.poll_new_integrations("101")


def test_a_poll_that_may_consume_is_never_repeated_by_itself(hook, requests_mock):
    requests_mock.get(POLL, status_code=503)

    with pytest.raises(OutcomeUnknown):
        hook.poll_new_integrations("101")
    assert requests_mock.call_count == 1


def test_a_poll_that_leaves_the_instance_there_may_be_repeated(hook_with, requests_mock):
    hook = hook_with(extra={"allow_consume": True, "new_integrations": "kept_until_completed"})
    hook.client._sleep = lambda seconds: None
    requests_mock.get(POLL, [{"status_code": 503}, {"json": {"IntegrationInstanceId": 2}}])

    assert [i["integration_instance_id"] for i in hook.poll_new_integrations("101")] == ["2"]


def test_the_steps_of_a_diagram_are_asked_for_with_a_lower_case_true(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows/1/tasks", json=[{"ID": 101, "title": "Check"}])

    assert hook.list_integration_steps("1") == [{"id": "101", "title": "Check"}]
    assert requests_mock.last_request.query == "integration=true"


def test_a_list_as_long_as_its_limit_may_be_cut_off_and_says_so(hook, requests_mock, capsys):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": n, "Title": "Plan"} for n in range(100)])

    assert len(hook.list_process_diagrams()) == 100
    assert "there may be more" in capsys.readouterr().out


def test_a_diagram_that_the_search_does_not_find_is_looked_for_in_the_whole_list(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": 7, "Title": "Plan"}])
    requests_mock.get(f"{URL}/api/v2/workflows?searchTerm=7", json=[{"Id": 1, "Title": "Plan 7"}])
    requests_mock.get(f"{URL}/api/v2/workflows/7/tasks", json=[{"Id": 701, "Title": "Check"}])

    assert hook.resolve_step("7", "Check") == {"diagram_id": "7", "step_id": "701", "step": "Check"}
    calls = requests_mock.call_count
    assert hook.resolve_step("7", "Check")["step_id"] == "701"
    assert requests_mock.call_count == calls


def test_fields_are_written_in_the_vendors_spelling_with_exact_numbers(hook, requests_mock):
    requests_mock.post(f"{URL}/api/v2/workflows/instances/variables", status_code=204)

    hook.update_fields("2", {"9aae-87b4": Decimal("12345678901234.5678"), "b": None, "c": True})

    sent = requests_mock.last_request
    assert sent.text == (
        '{"TaskId": 2, "Fields": {"field_9aae_87b4": 12345678901234.5678, "field_b": null, "field_c": true}}'
    )
    assert sent.headers["X-OnBehalfOf-Id"] == "system"
    assert sent.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("instance_id", ["A-1", "007"])
def test_an_id_that_is_no_plain_number_goes_out_as_it_is(hook, requests_mock, instance_id):
    requests_mock.post(f"{URL}/api/v2/workflows/instances/variables", status_code=204)

    hook.update_fields(instance_id, {"a": 1})

    assert requests_mock.last_request.json()["TaskId"] == instance_id


def test_completing_sends_the_vendors_action_for_the_user_named(hook_with, requests_mock):
    hook = hook_with(extra={"on_behalf_of": 11})
    requests_mock.patch(f"{URL}/api/v2/tasks/2/action", status_code=204)

    hook.complete("2")
    assert requests_mock.last_request.json() == {"Action": "Complete", "CustomAction": "__AUTO__"}
    assert requests_mock.last_request.headers["X-OnBehalfOf-Id"] == "11"

    hook.complete("2", custom_action="Reject", on_behalf_of="12")
    assert requests_mock.last_request.json()["CustomAction"] == "Reject"
    assert requests_mock.last_request.headers["X-OnBehalfOf-Id"] == "12"


@pytest.mark.parametrize("status", [500, 503])
def test_a_write_is_never_sent_twice(hook, requests_mock, status):
    requests_mock.patch(f"{URL}/api/v2/tasks/2/action", status_code=status, json={"ExceptionMessage": "Venue is empty"})

    with pytest.raises(ServerError if status == 500 else OutcomeUnknown, match="Venue is empty"):
        hook.complete("2")
    assert requests_mock.call_count == 1


def test_the_connection_test_is_one_call_for_one_row(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": 1, "Title": "Plan"}])

    assert hook.test_connection() == (True, f"Signed in to {URL}; the first process diagram is 'Plan'.")
    assert requests_mock.call_count == 1
    assert requests_mock.last_request.qs["limit"] == ["1"]
    assert requests_mock.last_request.timeout[1] <= 10


def test_the_connection_test_says_what_to_fix(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", [{"json": []}, {"status_code": 401}])

    assert hook.test_connection()[1].endswith("it shows no process diagram.")
    worked, message = hook.test_connection()
    assert not worked
    assert "Check login, password" in message
    assert "ready-token" not in message


def test_an_unreadable_poll_is_an_error(hook, requests_mock):
    requests_mock.get(POLL, json={"Message": "?"})

    with pytest.raises(ContractError):
        hook.poll_new_integrations("101")


def test_the_address_of_an_item_is_made_only_as_the_connection_says(hook, hook_with):
    assert hook.item_url(integration_instance_id="2") == ""

    told = hook_with(extra={"item_url": "https://app.example/p/{process_instance_id}"})
    assert told.item_url(integration_instance_id="2", process_instance_id="3") == "https://app.example/p/3"
    assert told.item_url(integration_instance_id="2", process_instance_id=None) == ""


# --- against the emulator, over a real socket ---


@pytest.mark.parametrize("shape", ["json_string", "text", "object"])
@pytest.mark.parametrize("way", ["basic", "bearer", "cookie"])
def test_a_token_is_asked_for_in_every_way_and_read_in_every_form(emulator, set_connection, shape, way):
    emulator.control("PATCH", "switches", ws_token_shape=shape, ws_mint_auth=way)
    connection = emulator.connection("workflowsoft")
    if way == "cookie":
        connection["password"] = f"session={connection['password']}"
    # A lifetime of its own, for a token is shared by all hooks of a process.
    connection["extra"] |= {"mint_auth": way, "mint_lifetime": 3000 + len(shape)}
    set_connection("workflowsoft_default", connection)

    assert WorkflowsoftHook().test_connection()[0]


@pytest.mark.parametrize("shape", ["login_page", "redirect"])
def test_a_login_page_is_called_one(emulator, set_connection, shape):
    emulator.control("PATCH", "switches", ws_token_shape=shape)
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"mint_lifetime": 2000 + len(shape)}
    set_connection("workflowsoft_default", connection)

    with pytest.raises(AuthenticationError, match="login page"):
        WorkflowsoftHook().list_process_diagrams()


def test_a_revoked_token_is_renewed_once(airflow_connections):
    hook = WorkflowsoftHook()
    hook.list_process_diagrams()
    airflow_connections.control("POST", "tokens/revoke")

    assert [row["title"] for row in hook.list_process_diagrams()][:1] == ["Event planning"]


def test_an_unknown_or_ambiguous_place_lists_the_candidates(airflow_connections):
    hook = WorkflowsoftHook()

    with pytest.raises(ConfigurationError, match="diagram: there is no process diagram 'Party'.*'Event planning'"):
        hook.resolve_step("Party", "Check event")
    with pytest.raises(
        ConfigurationError, match=r"step: there is no integration step 'Party'.*'Check event' \(id 101\)"
    ):
        hook.resolve_step("Event planning", "Party")


def test_the_same_step_title_in_two_diagrams_is_told_apart_by_the_diagram(airflow_connections):
    hook = WorkflowsoftHook()

    assert hook.resolve_step("Event planning", "Check event")["step_id"] == "101"
    assert hook.resolve_step("Contract review", "Check event")["step_id"] == "301"


def test_no_server_is_a_failed_connection(hook_with, unused_port):
    hook = hook_with(host=f"http://127.0.0.1:{unused_port}")
    hook.client._sleep = lambda seconds: None

    with pytest.raises(ConnectionFailed):
        hook.poll_new_integrations("101")


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
