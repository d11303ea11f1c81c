"""What goes over the wire to Workflowsoft, and how its connection is read."""

from __future__ import annotations

import re
import socket
from decimal import Decimal

import pytest
import requests
from requests_mock import ANY as ANY_METHOD

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    ServerError,
    UnexpectedResponse,
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


def test_password_alone_is_the_token_for_the_public_server(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": 1, "Title": "Plan"}])

    assert hook.list_process_diagrams("Plan") == [{"id": "1", "title": "Plan"}]

    sent = requests_mock.last_request
    assert sent.headers["Authorization"] == "Bearer ready-token"
    assert sent.headers["Accept"] == "application/json"
    assert sent.qs == {"searchterm": ["plan"], "mode": ["view"], "limit": ["100"]}
    assert "X-OnBehalfOf-Id" not in sent.headers


def test_login_and_password_get_a_token_from_the_host(hook_with, requests_mock):
    hook = hook_with(host="https://on.premises:8443", login="admin", password="secret", extra={"login_lifetime": "600"})
    requests_mock.get("https://on.premises:8443/api/v2/app/apitoken?lifeTimeInSec=600", json="minted")
    requests_mock.get("https://on.premises:8443/api/v2/workflows", json=[])

    hook.list_process_diagrams()

    mint, call = requests_mock.request_history
    assert mint.headers["Authorization"].startswith("Basic ")
    assert call.headers["Authorization"] == "Bearer minted"


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"password": ""}, "API token in password"),
        ({"login": "admin", "extra": {"login_auth": "magic"}}, "login_auth"),
        ({"login": "admin", "extra": {"login_lifetime": "soon"}}, "login_lifetime"),
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


def test_a_poll_requests_one_step_and_bypasses_caches(hook, requests_mock):
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
def test_every_empty_response_means_nothing_new(hook, requests_mock, nothing):
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
    hook = hook_with(extra={"allow_consume": True, "new_integrations": "listed_until_completed"})
    hook.client._sleep = lambda seconds: None
    requests_mock.get(POLL, [{"status_code": 503}, {"json": {"IntegrationInstanceId": 2}}])

    assert [i["integration_instance_id"] for i in hook.poll_new_integrations("101")] == ["2"]


def test_steps_of_a_diagram_are_requested_with_lower_case_true(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows/1/tasks", json=[{"ID": 101, "title": "Check"}])

    assert hook.list_integration_steps("1") == [{"id": "101", "title": "Check"}]
    assert requests_mock.last_request.query == "integration=true"


def test_a_list_as_long_as_its_limit_may_be_cut_off_and_says_so(hook, requests_mock, capsys):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": n, "Title": "Plan"} for n in range(100)])

    assert len(hook.list_process_diagrams()) == 100
    assert "there may be more" in capsys.readouterr().out


@pytest.mark.parametrize(("rows", "limit", "warned"), [(3, 3, True), (2, 3, False)])
def test_a_list_of_users_as_long_as_its_limit_says_so(hook, requests_mock, capsys, rows, limit, warned):
    requests_mock.get(f"{URL}/api/users/search", json=[{"Id": n, "Email": f"{n}@x"} for n in range(rows)])

    assert len(hook.search_users("x", limit=limit)) == rows
    assert (f"returned {rows} users, the maximum requested" in capsys.readouterr().out) is warned


def test_diagram_beyond_the_listed_ones_is_taken_by_id_only(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": n, "Title": f"Plan {n}"} for n in range(100)])

    assert hook.find_process_diagram("4711") == {"id": "4711", "title": ""}
    with pytest.raises(ConfigurationError, match="process diagram 'Party'.*possibly more that were not listed"):
        hook.find_process_diagram("Party")


def test_a_diagram_whose_title_several_have_lists_them(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": 1, "Title": "Plan"}, {"Id": 2, "Title": "Plan"}])

    with pytest.raises(
        ConfigurationError, match=r"template: 2 process diagrams are named 'Plan'.*\(id 1\), 'Plan' \(id 2\). Give"
    ):
        hook.find_process_diagram("Plan", parameter="template")
    assert hook.find_process_diagram("2") == {"id": "2", "title": "Plan"}


def test_only_the_exact_title_of_a_search_counts(airflow_connections):
    hook = WorkflowsoftHook()

    assert hook.find_process_diagram("Event planning") == {"id": "1", "title": "Event planning"}
    assert hook.find_process_diagram("1") == {"id": "1", "title": "Event planning"}
    with pytest.raises(ConfigurationError, match=r"process diagram 'Event'. Candidates: 'Event planning' \(id 1\)"):
        hook.find_process_diagram("Event")


def test_user_is_found_by_exact_address_and_an_id_is_taken_as_is(airflow_connections):
    hook = WorkflowsoftHook()

    assert hook.find_user_id("OLGA@example.COM") == "11"
    assert hook.find_user_id("4711") == "4711"
    with pytest.raises(ConfigurationError, match=r"on_behalf_of: no user has .*'example.com@'.*found: none"):
        hook.find_user_id("example.com@", parameter="on_behalf_of")
    with pytest.raises(ConfigurationError, match=r"no user has .*found: Olga Owner <olga@example.com> \(id 11\)"):
        hook.find_user_id("olga@")
    with pytest.raises(
        ConfigurationError, match=r"2 users .*Shared One .*\(id 16\), Shared Two .*\(id 17\). Give the id"
    ):
        hook.find_user_id("shared@example.com")


def test_no_limit_hides_the_user_with_the_exact_address(hook, requests_mock):
    users = [{"Id": n, "Email": f"olga{n}@x"} for n in range(150)] + [{"Id": 999, "Email": "olga@x"}]
    requests_mock.get(f"{URL}/api/users/search", json=lambda request, context: users[: int(request.qs["limit"][0])])

    assert hook.find_user_id("olga@x") == "999"
    assert [r.qs["limit"] for r in requests_mock.request_history] == [["100"], ["1000"]]


@pytest.mark.parametrize("most", [0, 3, 15, 100])
def test_a_servers_own_limit_may_hide_the_user(hook, requests_mock, most):
    requests_mock.get(f"{URL}/api/users/search", json=[{"Id": n, "Email": f"olga{n}@x"} for n in range(most)])

    with pytest.raises(ConfigurationError, match="possibly more that were not listed"):
        hook.find_user_id("olga@x")


def test_a_servers_own_limit_may_hide_the_diagram(airflow_connections):
    airflow_connections.control("PATCH", "flags", ws_list_limit="at_most_3")
    hook = WorkflowsoftHook()

    with pytest.raises(ConfigurationError, match="'Nope'.*possibly more that were not listed; give the id"):
        hook.find_process_diagram("Nope")
    assert hook.find_process_diagram("6") == {"id": "6", "title": ""}
    assert hook.list_integration_steps("6")


@pytest.mark.parametrize("most", ["as_requested", "at_most_3"])
@pytest.mark.parametrize("matches", ["part", "exact"])
def test_a_user_is_found_however_the_search_matches(airflow_connections, most, matches):
    airflow_connections.control("PATCH", "flags", ws_user_search=matches, ws_list_limit=most)

    assert WorkflowsoftHook().find_user_id("Sam@example.com") == "12"
    assert WorkflowsoftHook().find_process_diagram("Field types")["id"] == "6"


@pytest.mark.parametrize("spelling", ["lower_case", "any_case"])
def test_steps_are_listed_however_the_server_reads_true(airflow_connections, spelling):
    airflow_connections.control("PATCH", "flags", ws_true=spelling)

    assert [row["id"] for row in WorkflowsoftHook().list_integration_steps("1")] == ["101", "102"]


@pytest.mark.parametrize("labels", ["as_drawn", "trailing_blank"])
@pytest.mark.parametrize("blank", ["", " "])
def test_a_title_with_a_trailing_blank_is_reachable(airflow_connections, labels, blank):
    airflow_connections.control("PATCH", "flags", ws_labels=labels)

    found = WorkflowsoftHook().resolve_step(f"Event planning{blank}", f"Check event{blank}")
    assert found["step_id"] == "101"


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("GET", lambda hook: hook.get_fields("2")),
        ("POST", lambda hook: hook.update_fields("2", {"a": 1})),
        ("PATCH", lambda hook: hook.complete("2")),
        ("POST", lambda hook: hook.start_process("1", on_behalf_of="11")),
        ("POST", lambda hook: hook.create_task("x", on_behalf_of="11")),
    ],
)
@pytest.mark.parametrize("body", [{"Success": False, "Message": "top"}, {"isSuccess": "False", "Errors": ["top"]}])
def test_a_200_with_a_reported_failure_is_not_a_success(hook, requests_mock, method, call, body):
    requests_mock.register_uri(method, ANY_METHOD, json=body)

    with pytest.raises(InvalidRequest, match="returned 200: top"):
        call(hook)
    assert requests_mock.call_count == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda hook: hook.update_fields("2", {"a": 1}),
        lambda hook: hook.complete("2"),
        lambda hook: hook.start_process("1", on_behalf_of="11"),
        lambda hook: hook.create_task("x", on_behalf_of="11"),
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        {"Success": True, "Errors": ["mail not sent"]},
        {"Id": 0, "ProcessInstanceId": 77, "Error": "mail not sent"},
        {"isSuccess": True, "data": {"success": False, "message": "mail not sent"}},
    ],
)
def test_a_success_beside_a_failure_is_an_unknown_outcome(hook, requests_mock, act, body):
    requests_mock.register_uri(ANY_METHOD, ANY_METHOD, json=body, headers={"X-Request-Id": "r-1"})

    with pytest.raises(OutcomeUnknown, match=r"mail not sent \(request id r-1\)"):
        act(hook)
    assert requests_mock.call_count == 1


def test_fields_that_only_a_participant_sees_are_read_on_behalf(hook, requests_mock):
    requests_mock.get(ANY_METHOD, [{"status_code": 403}, {"json": []}])

    assert hook.get_fields("2") == []
    assert [r.headers.get("X-OnBehalfOf-Id") for r in requests_mock.request_history] == [None, "system"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_reading_that_needs_the_connections_user_is_remembered(hook_with, requests_mock, status):
    hook = hook_with(extra={"on_behalf_of": "12"})
    requests_mock.get(ANY_METHOD, [{"status_code": status}, {"json": []}])

    assert (hook.get_fields("2"), hook.get_fields("3")) == ([], [])
    assert [r.headers.get("X-OnBehalfOf-Id") for r in requests_mock.request_history] == [None, "12", "12"]


@pytest.mark.parametrize("extra", [{}, {"on_behalf_of": "12"}])
def test_rejection_that_is_not_about_the_user_stays_the_error(hook_with, requests_mock, extra):
    requests_mock.get(ANY_METHOD, [{"status_code": 404}, {"status_code": 403}])

    with pytest.raises(NotFound):
        hook_with(extra=extra).get_fields("2")
    assert requests_mock.call_count == 1 + len(extra)


def test_404_for_a_known_step_means_nothing_new(hook, requests_mock):
    found = {"json": {"IntegrationInstanceId": 2}}
    requests_mock.get(POLL, [found, {"status_code": 404}, {"status_code": 404}])

    assert len(hook.poll_new_integrations("101")) == 1
    assert hook.poll_new_integrations("101") == []
    with pytest.raises(NotFound):
        hook.poll_new_integrations("102")


GATEWAY_404 = {"status_code": 404, "text": "<html><head><title>404 Not Found</title></head></html>"}


def test_404_page_of_a_gateway_never_means_nothing_new(hook, requests_mock):
    requests_mock.get(POLL, [{"json": {"IntegrationInstanceId": 2}}, GATEWAY_404, GATEWAY_404])
    hook.poll_new_integrations("101")

    for is_known in (False, True):
        with pytest.raises(NotFound):
            hook.poll_new_integrations("101", is_known=is_known)


@pytest.mark.parametrize("body", [{}, {"json": "No new integrations"}, {"text": "nothing new"}, {"json": {"a": 1}}])
def test_404_of_the_api_in_any_words_means_nothing_new(hook, requests_mock, body):
    requests_mock.get(POLL, status_code=404, **body)

    assert hook.poll_new_integrations("101", is_known=True) == []


@pytest.mark.parametrize(
    "host", ["https://a.example", "https://A.example", "https://a.example:443", "https://a.example.", "a.example/"]
)
def test_a_server_is_the_same_in_any_spelling(set_connection, host):
    connection = {"conn_type": "workflowsoft", "host": host, "password": "token"}
    set_connection("workflowsoft_default", connection)

    assert WorkflowsoftHook().server == "a.example"


def test_strict_poll_takes_no_404_without_a_body(hook, requests_mock):
    requests_mock.get(POLL, [{"status_code": 404}, {"status_code": 404, "json": {"Message": "No"}}])

    with pytest.raises(NotFound):
        hook.poll_new_integrations("101", is_known=True, strict=True)
    assert hook.poll_new_integrations("101", is_known=True, strict=True) == []


@pytest.mark.parametrize("nothing", [{"status_code": 204}, {"text": "null"}, {"status_code": 404}])
def test_search_that_finds_nothing_leads_to_the_whole_list(hook, requests_mock, nothing):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": 7, "Title": "Plan"}])
    requests_mock.get(f"{URL}/api/v2/workflows?searchTerm=7", **nothing)

    assert hook.find_process_diagram("7") == {"id": "7", "title": "Plan"}


@pytest.mark.parametrize("nothing", [{"status_code": 204}, {"text": "null"}])
def test_an_empty_response_to_a_list_is_an_empty_list(hook, requests_mock, nothing):
    requests_mock.get(ANY_METHOD, **nothing)

    assert (hook.list_integration_steps("1"), hook.search_users("x"), hook.get_fields("2")) == ([], [], [])
    assert hook.test_connection()[0]


@pytest.mark.parametrize(
    "read",
    [
        lambda hook: hook.list_process_diagrams(),
        lambda hook: hook.list_integration_steps("1"),
        lambda hook: hook.search_users("x"),
        lambda hook: hook.get_fields("2"),
        lambda hook: hook.poll_new_integrations("101"),
    ],
)
def test_malformed_response_is_reported_with_its_call(hook, requests_mock, read):
    requests_mock.get(ANY_METHOD, json={"ready-token": "?"}, headers={"X-Request-Id": "r-1"})

    with pytest.raises(UnexpectedResponse, match=r": GET /api/.* returned 200 \(request id r-1\)") as error:
        read(hook)
    assert "ready-token" not in str(error.value)


def test_a_row_without_an_id_is_left_out_with_a_warning(hook, requests_mock, capsys):
    fields = [{"key": None, "label": "Heading"}, {"key": "k", "label": "Venue", "type": "String", "valueJson": '"x"'}]
    requests_mock.get(ANY_METHOD, json=fields)

    assert [field.label for field in hook.get_fields("2")] == ["Venue"]
    assert "1 of 2 rows of the response" in capsys.readouterr().out


START = f"{URL}/api/v2/workflows/start"
TASKS = f"{URL}/api/v2/tasks"
CREATIONS = [
    pytest.param(START, lambda hook: hook.start_process("1", on_behalf_of="11"), "process", id="start_process"),
    pytest.param(TASKS, lambda hook: hook.create_task("Title", on_behalf_of="11"), "task", id="create_task"),
]


@pytest.mark.parametrize(("url", "create", "kind"), CREATIONS)
@pytest.mark.parametrize(
    "unreadable",
    [{"text": ""}, {"text": "<html>"}, {"json": []}, {"json": {"Title": "x"}}, {"json": 7}, {"text": "null"}],
)
def test_a_created_thing_whose_response_is_unreadable_may_exist(hook, requests_mock, url, create, kind, unreadable):
    requests_mock.post(url, **unreadable)

    with pytest.raises(OutcomeUnknown, match=f"The response does not say which {kind} was created"):
        create(hook)
    assert requests_mock.call_count == 1


@pytest.mark.parametrize(("url", "create", "kind"), CREATIONS)
@pytest.mark.parametrize("empty", [0, "0", "", "00000000-0000-0000-0000-000000000000", None])
def test_an_empty_id_does_not_say_what_was_created(hook, requests_mock, url, create, kind, empty):
    requests_mock.post(url, json={"Id": empty, "Title": None})

    with pytest.raises(OutcomeUnknown, match=f"does not say which {kind} was created"):
        create(hook)


@pytest.mark.parametrize(("url", "create", "kind"), CREATIONS)
@pytest.mark.parametrize("failed", [{"Error": "Mail not sent"}, {"Success": False, "Message": "Mail not sent"}])
def test_a_failure_beside_an_id_is_an_unknown_outcome(hook, requests_mock, url, create, kind, failed):
    requests_mock.post(url, json={"Id": 77, "Title": "T", **failed})

    with pytest.raises(OutcomeUnknown, match=f"{kind} 77 was created.*Mail not sent"):
        create(hook)


@pytest.mark.parametrize(("url", "create", "kind"), CREATIONS)
def test_a_failure_beside_an_empty_id_is_a_rejection(hook, requests_mock, url, create, kind):
    requests_mock.post(url, json={"Id": 0, "Title": None, "Errors": ["Not today"]})

    with pytest.raises(InvalidRequest, match="Not today"):
        create(hook)


@pytest.mark.parametrize(("url", "create", "kind"), CREATIONS)
@pytest.mark.parametrize(
    "row",
    [{"Id": 7, "Title": "T"}, {"id": 7, "title": "T"}, {"ID": "7", "TITLE": "T"}, {"Id": 7, "Title": "T", "X": 1}],
)
def test_a_created_thing_is_read_in_any_case_of_its_names(hook, requests_mock, url, create, kind, row):
    requests_mock.post(url, json=row)

    assert create(hook) == {"id": "7", "title": "T"}


def test_diagram_missed_by_the_search_is_found_in_the_whole_list(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", json=[{"Id": 7, "Title": "Plan"}])
    requests_mock.get(f"{URL}/api/v2/workflows?searchTerm=7", json=[{"Id": 1, "Title": "Plan 7"}])
    requests_mock.get(f"{URL}/api/v2/workflows/7/tasks", json=[{"Id": 701, "Title": "Check"}])

    assert hook.resolve_step("7", "Check") == {"diagram_id": "7", "step_id": "701", "step": "Check"}
    calls = requests_mock.call_count
    assert hook.resolve_step("7", "Check")["step_id"] == "701"
    assert requests_mock.call_count == calls


def test_fields_are_written_in_the_vendors_spelling_exactly(hook, requests_mock):
    requests_mock.post(f"{URL}/api/v2/workflows/instances/variables", status_code=204)

    hook.update_fields("2", {"9aae-87b4": Decimal("12345678901234.5678"), "b": None, "c": True})

    sent = requests_mock.last_request
    assert sent.text == (
        '{"TaskId": 2, "Fields": {"field_9aae_87b4": 12345678901234.5678, "field_b": null, "field_c": true}}'
    )
    assert sent.headers["X-OnBehalfOf-Id"] == "system"
    assert sent.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("instance_id", ["A-1", "007"])
def test_an_id_that_is_not_a_plain_number_is_sent_unchanged(hook, requests_mock, instance_id):
    requests_mock.post(f"{URL}/api/v2/workflows/instances/variables", status_code=204)

    hook.update_fields(instance_id, {"a": 1})

    assert requests_mock.last_request.json()["TaskId"] == instance_id


@pytest.mark.parametrize(
    ("call", "named"),
    [
        *((lambda hook, values=v: hook.update_fields("5", values), "values") for v in (None, ["k"], {1: "x"})),
        *((lambda hook, f=v: hook.start_process("1", on_behalf_of="11", fields=f), "fields") for v in (["a"], {1: 2})),
        *((lambda hook, limit=v: hook.search_users("x", limit=limit), "limit") for v in (None, True, 0, "many")),
    ],
)
def test_a_parameter_of_another_type_is_named_before_a_call(hook, requests_mock, call, named):
    with pytest.raises(ConfigurationError, match=f"^{named} must be"):
        call(hook)
    assert requests_mock.call_count == 0


def test_an_id_with_too_many_digits_for_a_number_is_sent_as_text(hook, requests_mock):
    requests_mock.post(ANY_METHOD, status_code=204)

    hook.update_fields("9" * 5000, {"a": 1})
    assert requests_mock.last_request.json()["TaskId"] == "9" * 5000


def test_a_created_task_has_the_requested_title_if_none_returns(hook, requests_mock):
    requests_mock.post(f"{URL}/api/v2/tasks", json={"Id": 66})

    assert hook.create_task("Look", on_behalf_of="11") == {"id": "66", "title": "Look"}


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

    assert hook.test_connection() == (
        True,
        f"Signed in to {URL}; the first process diagram is 'Plan'. It may poll for new integrations "
        "(consumed_on_read).",
    )
    assert requests_mock.call_count == 1
    assert requests_mock.last_request.qs["limit"] == ["1"]
    assert requests_mock.last_request.timeout[1] <= 10


def test_the_connection_test_says_what_to_fix(hook, requests_mock):
    requests_mock.get(f"{URL}/api/v2/workflows", [{"json": []}, {"status_code": 401}])

    assert "it shows no process diagram." in hook.test_connection()[1]
    worked, message = hook.test_connection()
    assert not worked
    assert "Check login, password" in message
    assert "ready-token" not in message


def test_an_unreadable_poll_is_an_error(hook, requests_mock):
    requests_mock.get(POLL, json={"Message": "?"})

    with pytest.raises(UnexpectedResponse):
        hook.poll_new_integrations("101")


def test_item_url_follows_the_connection_only(hook, hook_with):
    assert hook.item_url(integration_instance_id="2") == ""

    reported = hook_with(extra={"item_url": "https://app.example/p/{process_instance_id}"})
    assert reported.item_url(integration_instance_id="2", process_instance_id="3") == "https://app.example/p/3"
    assert reported.item_url(integration_instance_id="2", process_instance_id=None) == ""


@pytest.mark.parametrize("wrong", [["https://app.example"], "https://app.example/{process_instance_id[a]}"])
def test_a_wrong_item_url_is_reported_and_fails_nothing(hook_with, wrong, capsys):
    assert hook_with(extra={"item_url": wrong}).item_url(process_instance_id="3") == ""
    assert "item_url" in capsys.readouterr().out


# --- one method for each documented call ---

INSTANCES = "/api/v2/workflows/instances"
JSON = "application/json"
# method, arguments, HTTP method, path, query, headers of its own, body as it is sent, response
CONTRACT = [
    (
        "list_process_diagrams", ("Plan",), {},
        "GET", "/api/v2/workflows", "mode=view&searchTerm=Plan&limit=100", {}, None, [],
    ),
    ("list_process_diagrams", (), {}, "GET", "/api/v2/workflows", "mode=view&limit=100", {}, None, []),
    ("list_integration_steps", ("7",), {}, "GET", "/api/v2/workflows/7/tasks", "integration=true", {}, None, []),
    (
        "poll_new_integrations", ("101",), {},
        "GET", f"{INSTANCES}/new-integrations", "id=101", {"Cache-Control": "no-cache"}, None, None,
    ),
    ("get_fields", ("2",), {}, "GET", f"{INSTANCES}/tasks/2/variables", "", {}, None, []),
    ("get_fields", ("a/b",), {}, "GET", f"{INSTANCES}/tasks/a%2Fb/variables", "", {}, None, []),
    (
        "update_fields", ("2", {"a-b": Decimal("1.10"), "c": None}), {},
        "POST", f"{INSTANCES}/variables", "", {"X-OnBehalfOf-Id": "system", "Content-Type": JSON},
        '{"TaskId": 2, "Fields": {"field_a_b": 1.10, "field_c": null}}', None,
    ),
    (
        "update_fields", ("x2", {"a": "ü"}), {"on_behalf_of": "12"},
        "POST", f"{INSTANCES}/variables", "", {"X-OnBehalfOf-Id": "12", "Content-Type": JSON},
        '{"TaskId": "x2", "Fields": {"field_a": "\\u00fc"}}', None,
    ),
    (
        "complete", ("2",), {},
        "PATCH", "/api/v2/tasks/2/action", "", {"X-OnBehalfOf-Id": "system", "Content-Type": JSON},
        '{"Action": "Complete", "CustomAction": "__AUTO__"}', None,
    ),
    (
        "complete", ("2",), {"custom_action": "Reject", "on_behalf_of": "12"},
        "PATCH", "/api/v2/tasks/2/action", "", {"X-OnBehalfOf-Id": "12", "Content-Type": JSON},
        '{"Action": "Complete", "CustomAction": "Reject"}', None,
    ),
    (
        "search_users", ("olga@example.com",), {},
        "GET", "/api/users/search", "Query=olga%40example.com&entityType=users&limit=100", {}, None, [],
    ),
    (
        "search_users", ("O",), {"limit": 15},
        "GET", "/api/users/search", "Query=O&entityType=users&limit=15", {}, None, [],
    ),
    (
        "start_process", ("1",), {"on_behalf_of": "11", "fields": {"field_a": Decimal("1.10")}},
        "POST", "/api/v2/workflows/start", "", {"X-OnBehalfOf-Id": "11", "Content-Type": JSON},
        '{"TemplateId": 1, "Fields": {"field_a": 1.10}}', {"Id": 9, "Title": "Plan"},
    ),
    (
        "start_process", ("one",), {"on_behalf_of": "11"},
        "POST", "/api/v2/workflows/start", "", {"X-OnBehalfOf-Id": "11", "Content-Type": JSON},
        '{"TemplateId": "one", "Fields": {}}', {"Id": 9, "Title": "Plan"},
    ),
    (
        "create_task", ("Look",), {"on_behalf_of": "11", "assigned_to": "12", "description": "At it."},
        "POST", "/api/v2/tasks", "", {"X-OnBehalfOf-Id": "11", "Content-Type": JSON},
        '{"Title": "Look", "AssignedUserId": 12, "Description": "At it."}', {"Id": 9, "Title": "Look"},
    ),
    (
        "create_task", ("Look",), {"on_behalf_of": "11"},
        "POST", "/api/v2/tasks", "", {"X-OnBehalfOf-Id": "11", "Content-Type": JSON},
        '{"Title": "Look"}', {"Id": 9, "Title": "Look"},
    ),
]  # fmt: skip
NEVER_TWICE = {"poll_new_integrations", "update_fields", "complete", "start_process", "create_task"}


@pytest.mark.parametrize(
    ("name", "positional", "named", "method", "path", "query", "headers", "body", "response"),
    [pytest.param(*row, id=row[0]) for row in CONTRACT],
)
def test_a_method_sends_what_the_contract_says(
    hook, requests_mock, name, positional, named, method, path, query, headers, body, response
):
    requests_mock.request(method, f"{URL}{path}", json=response)

    getattr(hook, name)(*positional, **named)

    (sent,) = requests_mock.request_history
    address, _, sent_query = sent.url.partition("?")
    assert (sent.method, address, sorted(sent_query.split("&"))) == (method, f"{URL}{path}", sorted(query.split("&")))
    assert sent.text == body
    own = {name: sent.headers.get(name) for name in ("X-OnBehalfOf-Id", "Cache-Control", "Content-Type")}
    assert {name: value for name, value in own.items() if value is not None} == headers
    assert (sent.headers["Accept"], sent.headers["Authorization"]) == (JSON, "Bearer ready-token")


@pytest.mark.parametrize(("name", "positional", "named"), [pytest.param(*row[:3], id=row[0]) for row in CONTRACT])
def test_lost_response_is_requested_again_only_if_that_is_safe(
    hook, requests_mock, monkeypatch, name, positional, named
):
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (2, 0.0, 120.0))
    lost = requests_mock.register_uri(ANY_METHOD, re.compile(URL), exc=requests.exceptions.ReadTimeout)

    with pytest.raises(OutcomeUnknown if name in NEVER_TWICE else ConnectionFailed):
        getattr(hook, name)(*positional, **named)
    assert lost.call_count == (1 if name in NEVER_TWICE else 2)


def test_api_token_is_configured_or_fetched_and_masked_in_logs(hook, hook_with, requests_mock, monkeypatch):
    masked = []
    monkeypatch.setattr("airflow_provider_workflows.hooks.base.mask_secret", masked.append)
    requests_mock.get(f"{URL}/api/v2/app/apitoken", json={"access_token": "minted"})

    assert hook.get_api_token() == "ready-token"
    assert requests_mock.call_count == 0
    minting = hook_with(login="admin", password="secret", extra={"login_lifetime": 777})
    assert (minting.get_api_token(), minting.get_api_token()) == ("minted", "minted")
    assert [sent.url for sent in requests_mock.request_history] == [f"{URL}/api/v2/app/apitoken?lifeTimeInSec=777"]
    assert masked == ["ready-token", "minted"]


def test_every_workflowsoft_method_is_compared_with_the_contract():
    public = {name for name, value in vars(WorkflowsoftHook).items() if callable(value) and not name.startswith("_")}

    # These make no call of their own, or are tested above.
    elsewhere = {"get_api_token", "check", "check_may_consume", "find_process_diagram", "resolve_step", "find_user_id"}
    elsewhere |= {"base_url", "token_source"}
    assert public - {row[0] for row in CONTRACT} == elsewhere


# --- against the emulator, over a real socket ---


def test_each_cookies_value_is_masked_in_logs_and_errors(hook_with, requests_mock, monkeypatch):
    masked = []
    monkeypatch.setattr("airflow_provider_workflows.hooks.base.mask_secret", masked.append)
    hook = hook_with(login="admin", password=".AUTH=S3cr3tValue; lb=node7", extra={"login_auth": "cookie"})
    requests_mock.get(f"{URL}/api/v2/app/apitoken", json="minted")
    requests_mock.get(f"{URL}/api/v2/workflows", status_code=400, json={"Message": "S3cr3tValue on node7"})

    with pytest.raises(InvalidRequest, match=r"\*\*\* on \*\*\*"):
        hook.list_process_diagrams()
    assert {"S3cr3tValue", "node7"} <= set(masked)


@pytest.mark.parametrize("shape", ["json_string", "text", "object"])
@pytest.mark.parametrize("way", ["basic", "bearer", "cookie"])
def test_a_token_is_requested_and_read_in_every_format(emulator, set_connection, shape, way):
    emulator.control("PATCH", "flags", ws_token_shape=shape, ws_api_token_auth=way)
    connection = emulator.connection("workflowsoft")
    if way == "cookie":
        connection["password"] = f"session={connection['password']}"
    # A lifetime of its own, for a token is shared by all hooks of a process.
    connection["extra"] |= {"login_auth": way, "login_lifetime": 3000 + len(shape)}
    set_connection("workflowsoft_default", connection)

    assert WorkflowsoftHook().test_connection()[0]


@pytest.mark.parametrize("shape", ["login_page", "redirect"])
def test_a_login_page_is_reported_as_one(emulator, set_connection, shape):
    emulator.control("PATCH", "flags", ws_token_shape=shape)
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"login_lifetime": 2000 + len(shape)}
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


def test_equal_step_titles_are_distinguished_by_the_diagram(airflow_connections):
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
