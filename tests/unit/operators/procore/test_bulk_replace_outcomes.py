"""The outcome of a replacement: a wait, a stop and a list of errors report only what Procore shows."""

from __future__ import annotations

import asyncio
import logging

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_workflows.exceptions import InvalidRequest, OutcomeUnknown, PermissionDenied, WorkflowsError
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreBulkReplaceAssigneesOperator
from airflow_provider_workflows.triggers.procore import ProcoreBulkReplaceWaitTrigger
from tests.unit.operators.procore.test_bulk_replace import WHO, posts, replace, requests_made

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

COVER = {**WHO, "replacement_type": "temporary", "first_day": "2026-01-01", "last_day": "2999-01-01"}
UNABLE = {**WHO, "new_assignees": "90009", "project_ids": "1001"}
PRESETS = (401, 391, 392)  # of project 1001, with the replaced user
ROWS = b"".join(b"1001,%d,User 90009 cannot be assigned.\r\n" % preset for preset in PRESETS)


@pytest.fixture
def statuses(monkeypatch):
    """Return a function that sets the statuses that reads of a request show, one after the other."""

    def show(*shown: object) -> None:
        left = list(shown)

        def get(self, request_id: str) -> dict:
            return {"id": request_id, "status": left.pop(0) if len(left) > 1 else left[0]}

        monkeypatch.setattr(ProcoreHook, "get_bulk_replace_request", get)

    return show


def event_of(trigger) -> dict:
    async def first_event():
        return await anext(trigger.run())

    return asyncio.run(first_event()).payload


def deletes(emulator) -> int:
    return len([r for r in emulator.requests() if r["method"] == "DELETE" and "bulk_replace" in r["path"]])


# --- the wait ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("before", ["queued", "Pending", "PROCESSING", None, "upcoming", "starting", 7])
@pytest.mark.parametrize("end", ["completed", "Completed", "ACTIVE "])
def test_wait_continues_until_a_documented_status(store, statuses, before, end):
    statuses("processing", before, before, end)

    result = replace(**WHO).execute({"task_state_store": store})

    assert result["status"] == end.strip().casefold()


@pytest.mark.parametrize("spelling", ["documented", "upper_case", "more_words"])
def test_replacement_is_waited_for_in_any_spelling(emulator, store, spelling):
    emulator.control("PATCH", "flags", operation_delay=60, bulk_replace_status=spelling)
    with pytest.raises(AirflowFailException, match="WaitFailed"):
        replace(**WHO, wait_timeout=0.1).execute({"task_state_store": store})
    emulator.control("POST", "clock", advance=61)
    store.pop("deadline")

    assert replace(**WHO).execute({"task_state_store": store})["status"] == "completed"
    assert len(requests_made(emulator)) == len(posts(emulator)) == 1


def test_unknown_status_is_logged_once(store, statuses, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="waited")
    monkeypatch.setattr(ProcoreBulkReplaceWaitTrigger, "log", logging.getLogger("waited"))
    statuses("queued", "queued", "checking", "queued", "checking", "completed")

    replace(**WHO).execute({"task_state_store": store})

    messages = [record.getMessage() for record in caplog.records if record.name == "waited"]
    assert ["queued" in line for line in messages] == [True, False]
    assert "checking" in messages[1]


@pytest.mark.parametrize("status", ["failed", "STOPPED", "Failed"])
@pytest.mark.parametrize("kind", [WHO, COVER])
def test_failed_replacement_fails_the_task(store, statuses, status, kind):
    statuses("processing", status)

    with pytest.raises(AirflowFailException, match=f"WaitFailed: .*{status.casefold()}"):
        replace(**kind).execute({"task_state_store": store})


@pytest.mark.parametrize("status", ["expired", "Expired"])
def test_temporary_replacement_whose_days_are_over_is_a_success(store, statuses, status):
    statuses(status)

    assert replace(**{**COVER, "last_day": "2026-01-02"}).execute({"task_state_store": store})["status"] == "expired"
    with pytest.raises(AirflowFailException, match="WaitFailed: .*expired"):
        replace(**WHO).execute({})


@pytest.mark.parametrize("deferrable", [False, True])
def test_upcoming_is_a_success_while_the_first_day_is_to_come(emulator, store, monkeypatch, deferrable):
    monkeypatch.setattr("airflow_provider_workflows.polling.poll.MIN_FIRST_DELAY_SECONDS", 0.0)
    emulator.control("PATCH", "flags", operation_delay=60 if deferrable else 0)
    operator = replace(**{**COVER, "first_day": "2998-12-31"}, deferrable=deferrable)
    context = {"task_state_store": store}
    if deferrable:
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(context)
        emulator.control("POST", "clock", advance=61)
        result = operator.execute_complete(context, event_of(deferral.value.trigger))
    else:
        result = operator.execute(context)

    assert result["status"] == "upcoming"


def test_upcoming_is_waited_for_once_the_first_day_has_come(store, statuses):
    statuses("upcoming", "upcoming", "active")

    assert replace(**COVER).execute({"task_state_store": store})["status"] == "active"


# --- whose request it is ---


def test_own_request_is_found_with_times_and_a_cut_reason(emulator, store):
    emulator.control("PATCH", "flags", bulk_replace_rows="cut", bulk_replace_filters="ignored")
    replace(**{**COVER, "old_assignee": "rita@example.com"}).execute({})
    replace(**{**COVER, "first_day": "2026-01-02"}).execute({})
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", reset="after")

    assert replace(**COVER).execute({"task_state_store": store})["request_id"] == "803"


@pytest.mark.parametrize(
    "others", [{"last_day": "2998-01-01"}, {"first_day": "2026-01-03"}, {"new_assignees": "90006"}]
)
def test_other_request_with_times_and_cut_reason_is_not_claimed(emulator, store, monkeypatch, others):
    emulator.control("PATCH", "flags", bulk_replace_rows="cut")
    operator = replace(**COVER)

    def lost(request):
        replace(**{**COVER, **others}, wait_for_completion=False).execute({})
        raise OutcomeUnknown("lost")

    monkeypatch.setattr(operator.hook, "create_bulk_replace_request", lost)

    with pytest.raises(AirflowFailException, match=r"OutcomeUnknown: .*no new request"):
        operator.execute({"task_state_store": store})


def test_row_that_cannot_be_shown_hides_no_other(emulator, store, monkeypatch):
    list_all = ProcoreHook.list_bulk_replace_requests
    listed = []

    def with_a_bare_row(self, **filters):
        rows = list(list_all(self, **filters))
        listed.append(rows)
        return iter([{"id": "999"}, *rows] if len(listed) > 1 else rows)

    monkeypatch.setattr(ProcoreHook, "list_bulk_replace_requests", with_a_bare_row)
    emulator.control("POST", "faults", method="GET", path="/bulk_replace_requests/999$", times=9, status=500, json={})
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", reset="after")

    assert replace(**WHO).execute({"task_state_store": store})["request_id"] == "801"


@pytest.mark.parametrize("named", [{}, {"bulk_replace_request_id": None}, {"bulk_replace_request_id": ""}])
def test_request_that_is_accepted_without_its_id_is_found(emulator, store, named):
    response = {"status": 202, "json": {"data": {"operation_id": "1", **named}}, "after": True}
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", **response)

    assert replace(**WHO).execute({"task_state_store": store})["request_id"] == "801"
    assert len(posts(emulator)) == 1


# --- the stop ---


@pytest.fixture
def cover(emulator) -> str:
    return replace(**COVER).execute({})["request_id"]


def stop(request_id: str, **parameters) -> ProcoreBulkReplaceAssigneesOperator:
    return replace(action="stop", request_id=request_id, **{"confirm_timeout": 5, **parameters})


@pytest.mark.sample(3)
@pytest.mark.parametrize("shows", ["at_once", "later", "gone"])
@pytest.mark.parametrize("spelling", ["documented", "upper_case"])
def test_stop_is_a_success_when_it_shows(emulator, cover, shows, spelling):
    emulator.control("PATCH", "flags", bulk_replace_stop=shows, bulk_replace_status=spelling)

    assert stop(cover).execute({})["status"] == "stopped"
    assert deletes(emulator) == 1


@pytest.mark.sample(3)
@pytest.mark.parametrize("again", ["accepted", "rejected"])
@pytest.mark.parametrize(
    "fault",
    [{"reset": "after"}, {"status": 502, "json": {}, "after": True}, {"status": 500, "json": {}, "after": True}],
)
@pytest.mark.parametrize("shows", ["at_once", "later"])
def test_stop_whose_response_is_lost_is_read(emulator, cover, again, fault, shows):
    emulator.control("PATCH", "flags", bulk_replace_stop_again=again, bulk_replace_stop=shows)
    emulator.control("POST", "faults", method="DELETE", path="/bulk_replace_requests/", **fault)

    assert stop(cover).execute({})["status"] == "stopped"
    assert [e["action"] for e in emulator.effects()].count("stop_bulk_replace") == 1


def test_stop_without_effect_fails_and_a_retry_stops(emulator, cover):
    emulator.control("POST", "faults", method="DELETE", path="/bulk_replace_requests/", status=202, json={"data": {}})

    with pytest.raises(WorkflowsError, match=f"request {cover}.* active") as failure:
        stop(cover, confirm_timeout=0).execute({})
    assert not isinstance(failure.value, AirflowFailException)
    assert stop(cover).execute({})["status"] == "stopped"


@pytest.mark.parametrize(("status", "error"), [(422, InvalidRequest), (403, PermissionDenied)])
def test_rejected_stop_of_an_active_request_is_an_error(emulator, cover, status, error):
    emulator.control("POST", "faults", method="DELETE", path="/bulk_replace_requests/", status=status, json={})

    with pytest.raises(error):
        stop(cover, confirm_timeout=0).execute({})


@pytest.mark.parametrize("status", ["completed", "Expired", "FAILED", "stopped"])
def test_request_that_is_over_is_not_stopped(emulator, statuses, status):
    statuses(status)

    assert stop("801").execute({})["status"] == status.casefold()
    assert deletes(emulator) == 0


def test_request_that_ends_before_its_stop_is_reported(emulator, cover, statuses):
    statuses("active", "active", "expired")

    assert stop(cover).execute({})["status"] == "expired"


# --- the list of errors ---


def failed(store, **parameters) -> str:
    """Let a replacement fail that has no possible assignee, and return the error's message."""
    with pytest.raises(AirflowFailException) as failure:
        replace(**{**UNABLE, "confirm_timeout": 5, **parameters}).execute({"task_state_store": store})
    return str(failure.value)


def respond_with_errors(emulator, **fault) -> None:
    emulator.control("POST", "faults", method="GET", path="/errors$", times=99, **fault)


@pytest.mark.sample(3)
@pytest.mark.parametrize("report", ["at_once", "accepted_first", "redirect"])
@pytest.mark.parametrize("form", ["named_columns", "no_names", "utf-16"])
def test_list_of_errors_is_counted_and_written_unchanged(emulator, store, tmp_path, monkeypatch, report, form):
    emulator.control("PATCH", "flags", bulk_replace_report=report, bulk_replace_csv=form)
    results = []
    count = ProcoreBulkReplaceAssigneesOperator._result
    monkeypatch.setattr(
        ProcoreBulkReplaceAssigneesOperator,
        "_result",
        lambda *arguments: results.append(count(*arguments)) or results[-1],
    )

    failed(store, errors_path=f"file://{tmp_path}/errors.csv")

    names = b"" if form == "no_names" else b"project_id,preset_id,message\r\n"
    text = (tmp_path / "errors.csv").read_bytes()
    assert text == ((names + ROWS).decode().encode("utf-16") if form == "utf-16" else names + ROWS)
    assert [result["errors"] for result in results] == [len(PRESETS)]


def test_signed_address_gets_no_token_and_is_not_logged(emulator, store, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    emulator.control("PATCH", "flags", bulk_replace_report="redirect")

    assert "errors.csv" in failed(store, errors_path=f"file://{tmp_path}/errors.csv")
    tokens = [r for r in emulator.requests() if r["path"].endswith("/oauth/token")]
    assert len(tokens) <= 1
    assert "X-Signature" not in caplog.text


def test_redirect_to_a_sign_in_page_is_not_a_list_of_errors(emulator, store):
    respond_with_errors(
        emulator, status=302, headers={"Location": "https://login.procore.com/?return_to=%2Ferrors.csv"}
    )

    result = replace(**WHO).execute({"task_state_store": store})

    assert (result["status"], result["errors"]) == ("completed", None)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 403, "json": {}},
        {"status": 500, "json": {}},
        {"status": 422, "json": {}},
        {"status": 200, "body": "<!doctype html><title>Sorry</title>", "headers": {"Content-Type": "text/html"}},
        {"status": 200, "json": {"data": []}},
        {"status": 302, "headers": {"Location": "https://"}},
        {"status": 302, "headers": {"Location": "http://127.0.0.1:1/errors.csv?X-Amz-Signature=x"}},
        {"status": 202, "json": {"status": "processing"}},
        {"status": 202, "body": ""},
    ],
    ids=["403", "500", "422", "page", "json", "nowhere", "unreachable", "202_json", "202"],
)
def test_list_that_cannot_be_read_is_a_warning(emulator, store, fault, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="logged")
    monkeypatch.setattr(ProcoreBulkReplaceAssigneesOperator, "log", logging.getLogger("logged"))
    respond_with_errors(emulator, **fault)

    result = replace(**WHO, confirm_timeout=0).execute({"task_state_store": store})

    assert (result["status"], result["errors"], result["errors_path"]) == ("completed", None, None)
    assert len([r for r in caplog.records if r.name == "logged" and "error list" in r.getMessage()]) == 1
    assert len(requests_made(emulator)) == 1


def test_failed_replacement_without_a_list_states_its_reason(emulator, store):
    emulator.control("PATCH", "flags", bulk_replace_report="forbidden")

    assert "WaitFailed: " in failed(store)


@pytest.mark.parametrize(
    ("body", "errors", "is_written"),
    [
        ("project_id,preset_id,message\n", 0, True),
        ("", 0, False),
        ("\n", 0, False),
        ("1001,401,Gone\n", 1, True),
        ('id,message\n1,"two\nlines"\n', 1, True),
    ],
)
def test_list_is_written_unless_it_is_empty(emulator, store, tmp_path, body, errors, is_written):
    respond_with_errors(emulator, status=200, body=body, headers={"Content-Type": "text/csv"})
    path = tmp_path / "errors.csv"

    result = replace(**WHO, errors_path=f"file://{path}").execute({"task_state_store": store})

    assert (result["errors"], path.exists()) == (errors, is_written)
    assert not is_written or path.read_text() == body


def test_error_list_that_comes_with_202_counts(emulator, store):
    respond_with_errors(emulator, status=202, body="1001,401,Gone\n", headers={"Content-Type": "text/csv"})

    assert replace(**WHO).execute({"task_state_store": store})["errors"] == 1
