"""Tokens that a server does not accept any more, however it says so, and limits, however it names them."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from airflow_provider_workflows.exceptions import AuthenticationError, OutcomeUnknown, RateLimited
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

WAYS = BEHAVIOUR_FLAGS["rejected_token"].values


@pytest.mark.parametrize("way", WAYS)
def test_an_expired_token_is_renewed_once(airflow_connections, way):
    emulator = airflow_connections
    emulator.control("PATCH", "flags", rejected_token=way)
    procore, workflowsoft = ProcoreHook(project_id="1001"), WorkflowsoftHook()
    procore.me()
    instance = emulator.control("POST", "workflowsoft/processes", diagram="Field types", fields={})
    diagrams = workflowsoft.list_process_diagrams()
    emulator.control("POST", "tokens/revoke")

    assert procore.get_instance("700001")["id"] == "700001"
    emulator.control("POST", "tokens/revoke")
    procore.terminate_instance("700001")
    assert workflowsoft.list_process_diagrams() == diagrams
    emulator.control("POST", "tokens/revoke")
    workflowsoft.complete(str(instance["integration_instance_id"]))

    acted = [effect["action"] for effect in emulator.effects() if effect["via"] == "api"]
    assert acted == ["terminate", "complete"]
    paths = [request["path"] for request in emulator.requests() if "token" in request["path"]]
    assert paths.count("/oauth/token") == 3
    assert paths.count("/api/v2/app/apitoken") == 3


URL = "http://localhost:1"
POLL = f"{URL}/api/v2/workflows/instances/new-integrations"
ELSEWHERE = [
    pytest.param({"status_code": 302, "headers": {"Location": location}}, id=location)
    for location in (
        "https://login.microsoftonline.com/common/oauth2/authorize?client_id=1",
        "/account/sso",
        "/Account/Login?ReturnUrl=x",
    )
] + [
    pytest.param(
        {"text": "<!DOCTYPE html><html><title>Sign in</title><input name='email'>", "headers": {"Content-Type": html}},
        id=html,
    )
    for html in ("text/html", "")
]


@pytest.fixture
def poll(set_connection, requests_mock):
    """Return a function that polls with a token that the server rejects in a way, then with a new one."""

    def poll_it(rejection, again=None, **fields):
        extra = {"allow_consume": True, **fields.pop("extra", {})}
        connection = {"conn_type": "workflowsoft", "host": URL, "login": "admin", "password": "secret"}
        set_connection("workflowsoft_default", {**connection, **fields, "extra": extra})
        requests_mock.get(f"{URL}/api/v2/app/apitoken", [{"json": "first-token"}, {"json": "second-token"}])
        found = {"json": {"IntegrationInstanceId": 2, "ProcessInstanceId": 2}}
        requests_mock.get(POLL, [rejection, again or found])
        return [row["integration_instance_id"] for row in WorkflowsoftHook().poll_new_integrations("101")]

    return poll_it


@pytest.mark.parametrize("reading", ["consumed_on_read", "listed_until_completed"])
@pytest.mark.parametrize("rejection", ELSEWHERE)
def test_a_poll_sent_to_a_sign_in_page_is_sent_again(poll, requests_mock, reading, rejection):
    assert poll(rejection, extra={"new_integrations": reading}) == ["2"]

    tokens = [r.headers["Authorization"] for r in requests_mock.request_history if r.url.startswith(POLL)]
    assert tokens == ["Bearer first-token", "Bearer second-token"]


@pytest.mark.parametrize("rejection", ELSEWHERE)
def test_a_poll_that_no_token_may_send_is_a_rejection(poll, rejection):
    with pytest.raises(AuthenticationError):
        poll(rejection, again=rejection)
    with pytest.raises(AuthenticationError, match="Get a new API token"):
        poll(rejection, login=None)


def test_a_poll_that_is_redirected_elsewhere_may_have_consumed(poll, requests_mock):
    with pytest.raises(OutcomeUnknown):
        poll({"status_code": 302, "headers": {"Location": "/authors/7", "Content-Type": "text/html"}})
    assert sum(r.url.startswith(POLL) for r in requests_mock.request_history) == 1


@pytest.mark.parametrize("way", WAYS)
def test_an_expired_static_token_says_to_get_another(emulator, set_connection, way):
    emulator.control("PATCH", "flags", rejected_token=way)
    good = emulator.connection("workflowsoft")
    set_connection("workflowsoft_default", {**good, "login": None, "password": "an-old-token"})

    with pytest.raises(AuthenticationError, match="Get a new API token"):
        WorkflowsoftHook().list_process_diagrams()


@pytest.mark.parametrize("headers", BEHAVIOUR_FLAGS["rate_429"].values)
@pytest.mark.parametrize("ahead", [0, 7200])
def test_a_limit_is_waited_for_by_the_servers_clock(airflow_connections, headers, ahead):
    """The emulator's clock is ahead of the client's, as a server's can be."""
    emulator = airflow_connections
    emulator.control("POST", "clock", advance=ahead)
    emulator.control("PATCH", "flags", rate_limit="on", spike_limit=1, rate_429=headers)
    hook = ProcoreHook(project_id="1001")
    hook.me()
    hook.client.retry = RetryPolicy.none()

    with pytest.raises(RateLimited) as limited:
        hook.me()

    assert limited.value.wait is not None
    assert 0 < limited.value.wait <= 12


@pytest.mark.parametrize("limited", BEHAVIOUR_FLAGS["ws_rate_limit"].values)
def test_workflowsoft_may_limit_calls_or_not(airflow_connections, limited):
    airflow_connections.control("PATCH", "flags", ws_rate_limit=limited, rate_limit="on", spike_limit=2)
    hook = WorkflowsoftHook()
    hook.list_process_diagrams()  # after a call for the token
    hook.client.retry = RetryPolicy.none()

    if limited == "none":
        hook.list_process_diagrams()
        return
    with pytest.raises(RateLimited) as error:
        hook.list_process_diagrams()
    assert 0 < error.value.wait <= 12
