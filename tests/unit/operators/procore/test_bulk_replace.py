"""Replacing a person everywhere: requested once, waited for, its errors stored."""

from __future__ import annotations

import asyncio
import datetime
import logging

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_workflows.exceptions import ConfigurationError, OutcomeUnknown
from airflow_provider_workflows.operators.procore import ProcoreBulkReplaceAssigneesOperator

pytestmark = pytest.mark.usefixtures("airflow_connections")

WHO = {"old_assignee": "dana@example.com", "new_assignees": "lee@example.com", "reason": "left"}


def replace(**parameters) -> ProcoreBulkReplaceAssigneesOperator:
    whole = {"confirm_timeout": 0.2, "poll_interval": 0.05, **parameters}
    return ProcoreBulkReplaceAssigneesOperator(task_id="replace", **whole)


def requests_made(emulator) -> list[dict]:
    return [e for e in emulator.effects() if e["action"] == "bulk_replace"]


def posts(emulator) -> list[dict]:
    requests = [r for r in emulator.requests() if r["path"].endswith("/bulk_replace_requests")]
    return [request["body"] for request in requests if request["method"] == "POST"]


def directors(emulator) -> list[str]:
    presets = emulator.control("GET", "state")["procore_presets"]
    return next(preset["groups"]["Directors"] for preset in presets if preset["id"] == "401")


def test_a_person_is_replaced_and_the_outcome_returned(emulator, store):
    result = replace(**WHO).execute({"task_state_store": store})

    assert result == {"request_id": result["request_id"], "status": "completed", "errors": 0, "errors_path": None}
    assert directors(emulator) == ["lee@example.com"]
    assert posts(emulator) == [
        {
            "replacement_type": "permanent",
            "old_assignee_id": "90004",
            "new_assignee_ids": ["90005"],
            "modify_project_roles": False,
            "reason": "left",
        }
    ]


def test_a_request_that_is_shown_only_later_is_waited_for(emulator, store):
    emulator.control(
        "POST", "faults", method="GET", path="/bulk_replace_requests/801$", status=404, json={"error": "no"}
    )

    assert replace(**WHO).execute({"task_state_store": store})["status"] == "completed"
    assert len(posts(emulator)) == 1


def test_a_retry_requests_nothing_again(emulator, store):
    first = replace(**WHO).execute({"task_state_store": store})
    again = replace(**WHO).execute({"task_state_store": store})

    assert again == first
    assert len(requests_made(emulator)) == len(posts(emulator)) == 1


def test_a_temporary_replacement_has_its_days_and_places(emulator):
    result = replace(
        **WHO,
        replacement_type="temporary",
        first_day=datetime.date(2026, 1, 1),
        last_day="2999-01-01",
        project_ids=[1001],
        tools=["purchase_order_contract", {"type": "correspondence", "sub_type": "-1"}],
        new_workflow_manager="90002",
    ).execute({})

    (request,) = posts(emulator)
    assert (request["start_date"], request["end_date"], request["project_ids"]) == (
        "2026-01-01",
        "2999-01-01",
        ["1001"],
    )
    assert request["tools"] == [{"type": "purchase_order_contract"}, {"type": "correspondence", "sub_type": "-1"}]
    assert request["new_workflow_manager_id"] == "90002"
    assert result["status"] == "active"


@pytest.mark.parametrize(("reset", "sent"), [("after", 1), ("before", 0)])
def test_request_with_a_lost_response_is_found_and_not_sent_again(emulator, store, reset, sent):
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", reset=reset)

    for _ in range(2):
        if sent:
            assert replace(**WHO).execute({"task_state_store": store})["status"] == "completed"
        else:
            with pytest.raises(AirflowFailException, match="OutcomeUnknown: .*no new request"):
                replace(**WHO).execute({"task_state_store": store})
    assert len(requests_made(emulator)) == sent


def test_a_rejected_request_may_be_tried_again(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", status=422, json={"error": "no"})
    with pytest.raises(Exception, match="422"):
        replace(**WHO).execute({"task_state_store": store})

    assert replace(**WHO).execute({"task_state_store": store})["status"] == "completed"


def test_error_list_is_stored_as_csv_and_fails_the_task(emulator, store, tmp_path):
    path = tmp_path / "errors" / "replace.csv"
    operator = replace(**{**WHO, "new_assignees": "90009"}, errors_path=f"file://{path}")

    with pytest.raises(AirflowFailException, match=r"WaitFailed: .*failed.*replace\.csv"):
        operator.execute({"task_state_store": store})
    assert path.read_text().splitlines()[0] == "project_id,preset_id,message"
    assert "1001,401,User 90009 cannot be assigned." in path.read_text()


def test_the_wait_needs_no_worker(emulator, store, monkeypatch):
    emulator.control("PATCH", "flags", operation_delay=60)
    with pytest.raises(TaskDeferred) as deferral:
        replace(**WHO, deferrable=True).execute({"task_state_store": store})
    emulator.control("POST", "clock", advance=61)

    async def first_event():
        return await anext(deferral.value.trigger.run())

    result = replace(**WHO).execute_complete({"task_state_store": store}, asyncio.run(first_event()).payload)

    assert result["status"] == "completed"
    assert len(requests_made(emulator)) == 1


def test_without_waiting_the_request_is_returned_at_once(emulator):
    emulator.control("PATCH", "flags", operation_delay=60)

    result = replace(**WHO, wait_for_completion=False).execute({})

    assert (result["status"], result["errors"]) == (None, None)


def test_a_request_is_stopped_once(emulator):
    made = replace(**WHO, replacement_type="temporary", first_day="2026-01-01", last_day="2999-01-01").execute({})

    first = replace(action="stop", request_id=made["request_id"]).execute({})
    again = replace(action="stop", request_id=made["request_id"]).execute({})

    assert first["status"] == again["status"] == "stopped"
    assert [e["action"] for e in emulator.effects()].count("stop_bulk_replace") == 1


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"action": "x"}, "action must be one of create, stop"),
        ({"action": "stop"}, "request_id is missing"),
        ({**WHO, "request_id": "1"}, "request_id goes with"),
        ({**WHO, "old_assignee": None}, "old_assignee is missing"),
        ({**WHO, "new_assignees": None}, "new_assignees is missing"),
        ({**WHO, "new_assignees": ["1", ""]}, "new_assignees is missing"),
        ({**WHO, "reason": ""}, "reason is missing"),
        ({**WHO, "replacement_type": "x"}, "replacement_type must be one of"),
        ({**WHO, "replacement_type": "temporary"}, "first_day is missing"),
        (
            {**WHO, "replacement_type": "temporary", "first_day": "2026-02-01", "last_day": "2026-01-01"},
            "last_day is before first_day",
        ),
        ({**WHO, "replacement_type": "temporary", "first_day": "soon", "last_day": "later"}, "last_day must be a date"),
        ({**WHO, "first_day": "2026-01-01"}, "go with replacement_type='temporary'"),
        ({**WHO, "tools": [7]}, "tools must be types"),
        ({**WHO, "tools": [{"type": "correspondence", "subtype": "-12"}]}, "tools: unknown key subtype"),
        ({**WHO, "tools": {"type": "correspondence", "sub_type": -12.0}}, "the sub_type of tools must be"),
        ({**WHO, "tools": {"type": "correspondence", "sub_type": ""}}, "the sub_type of tools is missing"),
        ({**WHO, "errors_path": ""}, "errors_path is missing"),
    ],
)
def test_bad_input_is_rejected_before_anything_is_sent(emulator, parameters, problem):
    before = len(emulator.requests())

    with pytest.raises(ConfigurationError, match=problem):
        replace(**parameters).execute({})
    assert len(emulator.requests()) == before


def test_an_unknown_person_is_rejected_before_anything_is_written(emulator):
    with pytest.raises(ConfigurationError, match="old_assignee: no user"):
        replace(**{**WHO, "old_assignee": "nobody@example.com"}).execute({})
    assert posts(emulator) == []


def test_the_tasks_project_is_where_the_person_is_replaced(emulator):
    replace(**WHO, project_id="1002").execute({})

    presets = {p["id"]: p["groups"] for p in emulator.control("GET", "state")["procore_presets"]}
    assert posts(emulator)[0]["project_ids"] == ["1002"]
    assert (presets["401"]["Directors"], presets["402"]["Directors"]) == (["dana@example.com"], ["lee@example.com"])


def test_a_request_with_a_server_error_is_not_sent_again(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", status=500, json={}, after=True)

    for _ in range(2):
        assert replace(**WHO).execute({"task_state_store": store})["status"] == "completed"
    assert len(requests_made(emulator)) == len(posts(emulator)) == 1


def test_another_users_request_is_not_the_lost_one(emulator, store, monkeypatch):
    operator = replace(**WHO)

    def lost(request):
        operator_of_others.hook.create_bulk_replace_request({**request, "reason": "other", "project_ids": ["1002"]})
        raise OutcomeUnknown("lost")

    operator_of_others = replace(**WHO)
    monkeypatch.setattr(operator.hook, "create_bulk_replace_request", lost)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown: .*no new request"):
        operator.execute({"task_state_store": store})


def test_without_a_store_a_retry_could_not_know_and_is_rejected(emulator):
    with pytest.raises(ConfigurationError, match="retries must be 0"):
        replace(**WHO, retries=1).execute({})
    assert posts(emulator) == []


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({**WHO, "new_assignees": []}, "new_assignees is an empty list"),
        ({**WHO, "project_ids": []}, "project_ids is an empty list"),
        ({**WHO, "project_ids": [""]}, "project_ids is missing"),
        ({**WHO, "tools": []}, "tools is an empty list"),
        ({**WHO, "tools": [""]}, "tools is missing"),
        *(
            ({**WHO, "errors_path": path}, "errors_path must be a path or a URL")
            for path in ("a\0b", ["a"], 5, b"a", datetime.datetime(2026, 1, 1))
        ),
        ({**WHO, "errors_path": "file:///dev/null/errors.csv"}, "errors_path: .* cannot be written"),
        ({**WHO, "errors_path": "file:///dev"}, "errors_path: .* cannot be written"),
        ({**WHO, "errors_path": "nosuch://x"}, "errors_path: 'nosuch://x' cannot be written to"),
        ({**WHO, "new_assignees": ["Dana@example.com"]}, "old_assignee and new_assignees name the same"),
        ({**WHO, "action": "stop", "request_id": "1"}, "go with action='create'"),
        ({**WHO, "poll_interval": 0}, "poll_interval must be seconds"),
    ],
)
def test_more_bad_input_is_rejected_before_anything_is_sent(emulator, parameters, problem):
    before = len(emulator.requests())

    with pytest.raises(ConfigurationError, match=problem):
        replace(**parameters).execute({})
    assert len(emulator.requests()) == before


def test_one_tool_and_project_need_no_list(emulator):
    replace(**WHO, project_ids=1002, tools="purchase_order_contract").execute({})
    replace(**WHO, project_id="company").execute({})

    first, second = posts(emulator)
    assert (first["project_ids"], first["tools"]) == (["1002"], [{"type": "purchase_order_contract"}])
    assert "project_ids" not in second


# --- whose request a row is ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("rows", ["people", "ids"])
@pytest.mark.parametrize("filters", ["honoured", "ignored"])
@pytest.mark.parametrize(
    "others", [{"old_assignee": "rita@example.com"}, {"new_assignees": "nora@example.com"}, {"reason": "ill"}]
)
def test_request_of_another_user_is_not_claimed(emulator, store, monkeypatch, rows, filters, others):
    emulator.control("PATCH", "flags", bulk_replace_rows=rows, bulk_replace_filters=filters)
    operator = replace(**WHO)

    def lost(request):
        replace(**{**WHO, **others}, wait_for_completion=False).execute({})
        raise OutcomeUnknown("lost")

    monkeypatch.setattr(operator.hook, "create_bulk_replace_request", lost)

    with pytest.raises(AirflowFailException, match=r"OutcomeUnknown: .*no new request"):
        operator.execute({"task_state_store": store})


@pytest.mark.parametrize("rows", ["people", "ids"])
@pytest.mark.parametrize("filters", ["honoured", "ignored"])
def test_own_request_is_found_among_others(emulator, store, rows, filters):
    emulator.control("PATCH", "flags", bulk_replace_rows=rows, bulk_replace_filters=filters)
    replace(**{**WHO, "old_assignee": "rita@example.com"}).execute({})
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", reset="after")

    result = replace(**WHO).execute({"task_state_store": store})

    assert (result["request_id"], result["status"]) == ("802", "completed")
    assert len(posts(emulator)) == 2


def test_request_whose_people_are_not_shown_is_an_unknown_outcome(emulator, store):
    emulator.control("PATCH", "flags", bulk_replace_rows="bare")
    emulator.control("POST", "faults", method="POST", path="/bulk_replace_requests$", reset="after")

    with pytest.raises(AirflowFailException, match=r"OutcomeUnknown: .*801"):
        replace(**WHO).execute({"task_state_store": store})
    assert len(posts(emulator)) == 1


@pytest.mark.parametrize("errors", ["empty", "absent"])
def test_request_without_errors_is_a_success(emulator, store, errors):
    emulator.control("PATCH", "flags", bulk_replace_errors=errors)

    assert replace(**WHO).execute({"task_state_store": store})["errors"] == 0


def test_log_names_the_replacement_and_as_whom(emulator, store, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="logged")
    monkeypatch.setattr(ProcoreBulkReplaceAssigneesOperator, "log", logging.getLogger("logged"))

    for _ in range(2):
        replace(**WHO).execute({"task_state_store": store})

    messages = [r.getMessage() for r in caplog.records if r.name == "logged"]
    (made,) = [line for line in messages if "user 90001" in line]
    assert all(text in made for text in ("90004", "90005", "801"))
    assert [line for line in messages if "nothing is sent" in line and "801" in line]
