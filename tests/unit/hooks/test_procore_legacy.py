"""What goes over the wire to the legacy API."""

from __future__ import annotations

from email.parser import BytesParser

import pytest
import requests

from airflow_provider_workflows.client.retry import RetryPolicy
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    RateLimited,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

URL = "https://api.procore.com/rest/v1.0"
INSTANCES = f"{URL}/workflow_instances"
HISTORIES = f"{URL}/workflow_activity_histories"
# As in the guide: no project, no ball_in_court, no names.
INSTANCE = {
    "id": 568150,
    "current_state_set_at": "2018-02-13T17:56:49Z",
    "workflowed_object_id": 1953145,
    "workflowed_object_type": "Contract",
    "current_workflow_activities": [
        {
            "id": 29945,
            "name": "Submit for Approval",
            "workflow_user_role": {"id": 14301, "name": "Project Manager"},
            "perform_activity": {"url": "https://elsewhere.example.com/histories", "method": "POST", "data": {}},
        }
    ],
    "current_workflow_state": {"id": 18706, "name": "Start", "status": "Draft"},
}
PERFORMED = {
    "id": 1586809,
    "performed_by_id": 1498096,
    "workflow_activity_id": 29945,
    "created_at": "2018-02-14T21:46:03Z",
}


@pytest.fixture
def hook(set_connection) -> ProcoreLegacyHook:
    set_connection(
        "procore_default", {"conn_type": "procore", "extra": {"access_token": "ready", "company_id": "1234"}}
    )
    return ProcoreLegacyHook()


def test_activity_is_sent_as_documented_with_numeric_ids(hook, requests_mock):
    requests_mock.post(HISTORIES, json=PERFORMED, status_code=201)

    row = hook.perform_activity(
        "568150", activity_id="29945", role_id="14301", performed_by="3893316", comments="Please."
    )

    sent = requests_mock.last_request
    assert sent.qs == {"company_id": ["1234"], "workflow_instance_id": ["568150"]}
    assert sent.headers["Procore-Company-Id"] == "1234"
    assert sent.json() == {
        "workflow_activity_history": {
            "workflow_activity_id": 29945,
            "workflow_instance_id": 568150,
            "workflow_user_role_id": 14301,
            "performed_by_id": 3893316,
            "comments": "Please.",
        }
    }
    assert row["id"] == "1586809"
    assert row["performed_by_id"] == "1498096"


def test_no_comments_are_not_sent(hook, requests_mock):
    requests_mock.post(HISTORIES, json=PERFORMED, status_code=201)

    hook.perform_activity("568150", activity_id="29945", role_id="14301", performed_by="3893316")

    assert "comments" not in requests_mock.last_request.json()["workflow_activity_history"]


@pytest.mark.parametrize("lost", [{"exc": requests.exceptions.ReadTimeout}, {"status_code": 502}])
def test_performing_is_never_sent_twice(hook, requests_mock, lost):
    requests_mock.post(HISTORIES, **lost)

    with pytest.raises(OutcomeUnknown):
        hook.perform_activity("568150", activity_id="29945", role_id="14301", performed_by="3893316")
    assert requests_mock.call_count == 1


def test_a_response_without_an_id_is_not_a_row(hook, requests_mock):
    requests_mock.post(HISTORIES, json=[], status_code=201)

    with pytest.raises(UnexpectedResponse):
        hook.perform_activity("568150", activity_id="29945", role_id="14301", performed_by="3893316")


def test_instances_are_listed_lazily_in_the_largest_pages(hook, requests_mock):
    second = f"{INSTANCES}?company_id=1234&page=2&per_page=2000"
    requests_mock.get(
        INSTANCES,
        [
            {"json": [INSTANCE], "headers": {"Link": f'<{second}>; rel="next"', "Total": "2"}},
            {"json": [{**INSTANCE, "id": 568151}], "headers": {"Total": "2", "Link": ""}},
        ],
    )

    rows = hook.list_instances()

    assert next(rows)["id"] == "568150"
    assert requests_mock.call_count == 1
    assert [row["id"] for row in rows] == ["568151"]
    assert requests_mock.request_history[0].qs == {"company_id": ["1234"], "per_page": ["2000"], "page": ["1"]}
    assert requests_mock.last_request.qs["page"] == ["2"]


@pytest.mark.parametrize("filters", [{}, {"object_type": "Contract", "object_id": "1953145"}])
def test_list_continues_after_a_page_that_could_not_be_read(hook, requests_mock, monkeypatch, filters):
    monkeypatch.setattr(RetryPolicy.__init__, "__defaults__", (1, 0.0, 0.0))
    second = {"json": [{**INSTANCE, "id": 568151}], "headers": {"Link": ""}}
    link = {"Link": f'<{INSTANCES}?page=2>; rel="next"'}
    requests_mock.get(INSTANCES, [{"json": [INSTANCE], "headers": link}, {"status_code": 429}, second])
    rows = hook.list_instances(**filters)

    assert next(rows)["id"] == "568150"
    with pytest.raises(RateLimited):
        next(rows)
    assert [row["id"] for row in rows] == ["568151"]


def test_every_read_names_the_company(hook, requests_mock):
    requests_mock.get(f"{INSTANCES}/568150", json=INSTANCE)
    requests_mock.get(HISTORIES, json=[])
    requests_mock.get(f"{HISTORIES}/1586809", json=PERFORMED)

    assert hook.get_instance("568150")["current_workflow_state"]["id"] == "18706"
    assert hook.list_activity_histories("568150") == []
    assert hook.get_activity_history("1586809", instance_id="568150")["id"] == "1586809"

    assert [request.qs["company_id"] for request in requests_mock.request_history] == [["1234"]] * 3
    assert requests_mock.last_request.qs["workflow_instance_id"] == ["568150"]


def test_object_is_found_even_where_the_filter_is_ignored(hook, requests_mock):
    requests_mock.get(
        INSTANCES, json=[{**INSTANCE, "id": 1, "workflowed_object_id": 2}, INSTANCE], headers={"Link": ""}
    )

    assert hook.find_instance_id("PurchaseOrderContract", "1953145") == "568150"

    assert requests_mock.last_request.qs["filters[workflowed_object_type]"] == ["purchaseordercontract"]
    assert requests_mock.last_request.qs["filters[workflowed_object_id]"] == ["1953145"]


def of_type(name: str, instance_id: int, **workflow: str) -> dict:
    return {**INSTANCE, "id": instance_id, "workflowed_object_type": name, "workflow": workflow}


@pytest.mark.parametrize(
    ("requested", "rows"),
    [
        ("Contract", [of_type("PrimeContract", 1), of_type("Contract", 2)]),
        ("purchase_order_contracts", [of_type("Invoice", 1), of_type("PurchaseOrderContract", 2)]),
        ("PurchaseOrderContract", [of_type("Contract", 1), of_type("Contract", 2, class_name="PurchaseOrderContract")]),
        ("purchase_order", [of_type("Contract", 2, class_name="X", friendly_name="Purchase Order")]),
        ("PurchaseOrderContract", [of_type("Invoice", 1), of_type("Contract", 2)]),
        ("Contract", [of_type("Contract", 2), of_type("Contract", 2)]),
    ],
)
def test_find_instance_compares_the_type_of_every_row(hook, requests_mock, requested, rows):
    requests_mock.get(INSTANCES, json=rows, headers={"Link": ""})

    assert hook.find_instance_id(requested, "1953145") == "2"


@pytest.mark.parametrize(
    ("requested", "shown"),
    [
        ("Contract", of_type("PrimeContract", 1)),
        ("PrimeContract", of_type("Contract", 1, class_name="PurchaseOrderContract")),
        ("Invoice", of_type("Contract", 1)),
    ],
)
def test_find_instance_rejects_an_object_of_another_type(hook, requests_mock, requested, shown):
    requests_mock.get(INSTANCES, json=[shown], headers={"Link": ""})
    requests_mock.get(f"{INSTANCES}/0", json=shown)

    with pytest.raises(NotFound, match=f"object_type '{shown['workflowed_object_type']}' has that id"):
        hook.find_instance_id(requested, "1953145")


def test_find_instance_with_two_hits_names_both(hook, requests_mock):
    requests_mock.get(INSTANCES, json=[INSTANCE, {**INSTANCE, "id": 7}], headers={"Link": ""})

    with pytest.raises(ConfigurationError, match=r"several workflow instances: 568150, 7.*instance_id"):
        hook.find_instance_id("Contract", "1953145")


def test_list_instances_leaves_out_rows_of_other_objects(hook, requests_mock):
    rows = [{**INSTANCE, "id": 1, "workflowed_object_id": 2}, of_type("Invoice", 3), INSTANCE]
    requests_mock.get(INSTANCES, json=rows, headers={"Link": ""})

    assert [row["id"] for row in hook.list_instances(object_type="Contract", object_id="1953145")] == ["568150"]
    assert len(list(hook.list_instances())) == 3


def test_rows_of_another_instance_are_not_its_history(hook, requests_mock):
    rows = [{**PERFORMED, "id": 1, "workflow_instance_id": 7}, {**PERFORMED, "workflow_instance_id": 568150}]
    requests_mock.get(HISTORIES, json=rows, headers={"Link": ""})

    assert [row["id"] for row in hook.list_activity_histories("568150")] == ["1586809"]


def test_another_row_than_the_requested_one_is_an_error(hook, requests_mock):
    requests_mock.get(f"{INSTANCES}/7", json=INSTANCE)
    requests_mock.get(f"{HISTORIES}/1586809", json={**PERFORMED, "workflow_instance_id": 7})

    with pytest.raises(UnexpectedResponse, match="id 7"):
        hook.get_instance("7")
    with pytest.raises(UnexpectedResponse, match="belongs to instance 7, not to 568150"):
        hook.get_activity_history("1586809", instance_id="568150")


@pytest.mark.parametrize("listed", [{"json": []}, {"status_code": 403}])
def test_object_is_shown_where_the_list_lacks_it_or_is_forbidden(hook, requests_mock, listed):
    requests_mock.get(INSTANCES, **listed)
    requests_mock.get(f"{INSTANCES}/0", json=INSTANCE)

    assert hook.find_instance_id("PurchaseOrderContract", "1953145") == "568150"
    assert requests_mock.last_request.qs["filters[workflowed_object_id]"] == ["1953145"]


@pytest.mark.parametrize(
    "shown", [{"status_code": 404}, {"status_code": 400}, {"json": {**INSTANCE, "workflowed_object_id": 2}}]
)
def test_an_object_without_a_workflow_is_named(hook, requests_mock, shown):
    requests_mock.get(INSTANCES, json=[])
    requests_mock.get(f"{INSTANCES}/0", **shown)

    with pytest.raises(NotFound, match="PurchaseOrderContract 1953145 has no workflow instance"):
        hook.find_instance_id("PurchaseOrderContract", "1953145")


def test_change_orders_are_read_with_their_project(set_connection, requests_mock):
    set_connection(
        "procore_default",
        {"conn_type": "procore", "extra": {"access_token": "ready", "company_id": "1234", "project_id": "7"}},
    )
    package = {**INSTANCE, "workflowed_object_type": "ChangeOrderPackage"}
    requests_mock.get(INSTANCES, json=[package], headers={"Link": ""})

    hook = ProcoreLegacyHook()
    hook.find_instance_id("ChangeOrderPackage", "1953145")
    assert requests_mock.last_request.qs["project_id"] == ["7"]
    list(hook.list_instances())
    assert "project_id" not in requests_mock.last_request.qs


def test_without_a_company_nothing_is_sent(set_connection, requests_mock):
    set_connection("procore_default", {"conn_type": "procore", "extra": {"access_token": "ready"}})

    with pytest.raises(ConfigurationError, match="company_id is missing"):
        ProcoreLegacyHook().get_instance("568150")
    assert requests_mock.call_count == 0


# --- files ---


def parts_of(request) -> list[tuple[str, str | None, bytes]]:
    """Return name, file name and content of each part of a form."""
    message = BytesParser().parsebytes(
        b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n" + request.body
    )
    return [
        (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload(decode=True))
        for part in message.get_payload()
    ]


def test_files_go_with_the_activity_as_one_form(hook, requests_mock):
    requests_mock.post(HISTORIES, json=PERFORMED, status_code=201)

    hook.perform_activity(
        "568150",
        activity_id="29945",
        role_id="14301",
        performed_by="3893316",
        comments="Please.",
        attachments=[("quote.pdf", b"%PDF", "application/pdf"), ("plan.png", b"PNG", "image/png")],
        prostore_file_ids=["77", "78"],
    )

    assert requests_mock.last_request.qs == {"company_id": ["1234"], "workflow_instance_id": ["568150"]}
    assert parts_of(requests_mock.last_request) == [
        ("workflow_activity_history[workflow_activity_id]", None, b"29945"),
        ("workflow_activity_history[workflow_instance_id]", None, b"568150"),
        ("workflow_activity_history[workflow_user_role_id]", None, b"14301"),
        ("workflow_activity_history[performed_by_id]", None, b"3893316"),
        ("workflow_activity_history[comments]", None, b"Please."),
        ("workflow_activity_history[prostore_file_ids][]", None, b"77"),
        ("workflow_activity_history[prostore_file_ids][]", None, b"78"),
        ("workflow_activity_history[attachments][]", "quote.pdf", b"%PDF"),
        ("workflow_activity_history[attachments][]", "plan.png", b"PNG"),
    ]


def test_stored_files_alone_go_as_numbers_in_json(hook, requests_mock):
    requests_mock.post(HISTORIES, json=PERFORMED, status_code=201)

    hook.perform_activity(
        "568150", activity_id="29945", role_id="14301", performed_by="3893316", prostore_file_ids=["77"]
    )

    assert requests_mock.last_request.json()["workflow_activity_history"]["prostore_file_ids"] == [77]


@pytest.mark.parametrize("lost", [{"exc": requests.exceptions.ReadTimeout}, {"status_code": 504}])
def test_an_activity_with_files_is_never_sent_twice_either(hook, requests_mock, lost):
    requests_mock.post(HISTORIES, **lost)

    with pytest.raises(OutcomeUnknown):
        hook.perform_activity(
            "568150",
            activity_id="29945",
            role_id="14301",
            performed_by="3893316",
            attachments=[("quote.pdf", b"%PDF", "application/pdf")],
        )
    assert requests_mock.call_count == 1


# --- histories over several pages ---


def test_histories_of_all_pages_come_newest_first(hook, requests_mock):
    second = f"{HISTORIES}?page=2"
    newer = {**PERFORMED, "id": 1586810, "created_at": "2018-02-15T21:46:03Z"}
    requests_mock.get(
        HISTORIES,
        [{"json": [PERFORMED], "headers": {"Link": f'<{second}>; rel="next"'}}, {"json": [newer]}],
    )

    assert [row["id"] for row in hook.list_activity_histories("568150")] == ["1586810", "1586809"]
    assert requests_mock.request_history[0].qs["per_page"] == ["2000"]


def test_full_list_without_paging_is_an_error_not_a_truncation(hook, requests_mock):
    full = [{**PERFORMED, "id": number} for number in range(2000)]
    requests_mock.get(HISTORIES, json=full)

    with pytest.raises(UnexpectedResponse, match="repeats the one before"):
        hook.list_activity_histories("568150")


# --- permanent logs ---

LOG = {"id": 5, "activity": "Approve", "attachments": [{"id": 6, "name": "a", "url": "u", "filename": "a"}]}


@pytest.mark.parametrize(
    ("project", "level"),
    [({}, "companies/1234"), ({"project_id": "company"}, "companies/1234"), ({"project_id": "7"}, "projects/7")],
    ids=["neither", "company", "project"],
)
def test_permanent_logs_are_listed_lazily_at_either_level(hook, requests_mock, project, level):
    logs = f"{URL}/{level}/workflow_permanent_logs"
    requests_mock.get(
        logs,
        [
            {"json": [LOG], "headers": {"Link": f'<{logs}?page=2>; rel="next"'}},
            {"json": [{**LOG, "id": 7}], "headers": {"Link": ""}},
        ],
    )

    rows = hook.list_permanent_logs("PurchaseOrderContract", "1953145", **project)

    assert requests_mock.call_count == 0
    assert next(rows) == {**LOG, "id": "5", "attachments": [{**LOG["attachments"][0], "id": "6"}]}
    assert requests_mock.call_count == 1
    assert [row["id"] for row in rows] == ["7"]
    assert requests_mock.request_history[0].qs == {
        "filters[workflowed_object_type]": ["purchaseordercontract"],
        "filters[workflowed_object_id]": ["1953145"],
        "per_page": ["2000"],
        "page": ["1"],
    }


def test_the_filters_that_a_permanent_log_lacks_are_named(hook, requests_mock):
    missing = {"workflowed_object_type": "is missing", "workflowed_object_id": "is missing"}
    requests_mock.get(f"{URL}/companies/1234/workflow_permanent_logs", json=missing, status_code=400)

    with pytest.raises(InvalidRequest, match="workflowed_object_type: is missing") as error:
        list(hook.list_permanent_logs("", "7"))
    assert error.value.fields["workflowed_object_id"] == ["is missing"]


@pytest.mark.parametrize(("kind", "rows"), [("activities", 1), ("all_events", 2), ("none", 0)])
def test_permanent_logs_are_read_as_they_are(emulator, airflow_connections, kind, rows):
    emulator.control("PATCH", "flags", permanent_logs=kind)
    where = "procore/legacy/instances/568150"
    emulator.control("POST", f"{where}/perform", login="pat@example.com", activity="Submit for Approval")
    emulator.control("POST", f"{where}/terminate")

    logs = list(ProcoreLegacyHook().list_permanent_logs("PurchaseOrderContract", "1953145"))

    assert [log["activity"] for log in logs] == ["Submit for Approval", "Terminated"][:rows]


# --- a user by login ---

ME = {"id": 90001, "login": "integration@example.com"}
USERS = "https://api.procore.com/rest/v1.3/companies/1234/users"
RITA = {"id": 90003, "login": "rita@example.com", "email_address": "r.reviewer@example.com"}


def test_the_users_own_login_needs_no_search(hook, requests_mock):
    requests_mock.get(f"{URL}/me", json=ME)

    assert hook.find_user_id("Integration@Example.com", parameter="performed_by") == "90001"
    assert requests_mock.call_count == 1


@pytest.mark.parametrize("login", ["RITA@example.com", "r.reviewer@example.com"])
def test_a_user_is_found_by_exactly_this_login_or_address(hook, requests_mock, login):
    similar = {"id": 90009, "login": "x" + login, "email_address": "y" + login}
    requests_mock.get(f"{URL}/me", json=ME)
    requests_mock.get(USERS, json=[similar, RITA])

    assert hook.find_user_id(login, parameter="performed_by") == "90003"
    assert requests_mock.last_request.qs == {
        "filters[search]": [login.lower()],
        "per_page": ["100"],
        "page": ["1"],
    }


def test_a_login_information_id_of_its_own_beats_the_id(hook, requests_mock):
    requests_mock.get(f"{URL}/me", json=ME)
    requests_mock.get(USERS, json=[{**RITA, "login_information_id": 4711}])

    assert hook.find_user_id("rita@example.com", parameter="performed_by") == "4711"


@pytest.mark.parametrize(
    ("users", "problem"),
    [
        ([], "no user visible to the connection's user has"),
        ([RITA, {**RITA, "id": 5}], r"2 users have .*\(rita@example.com, id 90003\), .*id 5\)"),
    ],
)
def test_login_that_fits_none_or_several_is_an_error_with_advice(hook, requests_mock, users, problem):
    requests_mock.get(f"{URL}/me", json=ME)
    requests_mock.get(USERS, json=users)

    with pytest.raises(ConfigurationError, match=f"performed_by: {problem}.*Give the login information id"):
        hook.find_user_id("rita@example.com", parameter="performed_by")


def test_id_of_a_user_is_returned_without_a_search(hook, requests_mock):
    assert hook.find_user_id(" 90003 ") == "90003"
    assert requests_mock.call_count == 0
