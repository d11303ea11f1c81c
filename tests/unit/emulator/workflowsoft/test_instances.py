"""Workflowsoft's processes, integration steps, fields and tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.unit.emulator.conftest import BASIC, Client

NEW = "/api/v2/workflows/instances/new-integrations"
VARIABLES = "/api/v2/workflows/instances/variables"
EVENT_NAME = "field_9aae87b4_2b01_43eb_be17_d0080a225f54"
JSON = {"Content-Type": "application/json"}


def start(emulator: Any, diagram: str = "Event planning", **fields: Any) -> str:
    found: str = emulator.control("POST", "workflowsoft/processes", diagram=diagram, fields=fields)[
        "integration_instance_id"
    ]
    return found


def fields_of(workflowsoft: Client, instance_id: str) -> dict[str, dict[str, Any]]:
    fields = workflowsoft.get(f"/api/v2/workflows/instances/tasks/{instance_id}/variables")
    return {field["label"]: field for field in fields}


def write(workflowsoft: Client, instance_id: str, values: dict[str, Any], status: int = 204) -> Any:
    """Write fields by their label."""
    keys = {label: field["key"].replace("-", "_") for label, field in fields_of(workflowsoft, instance_id).items()}
    body = {"TaskId": int(instance_id), "Fields": {f"field_{keys[label]}": value for label, value in values.items()}}
    return workflowsoft.post(VARIABLES, body, status=status)


def complete(
    workflowsoft: Client, instance_id: str, status: int = 204, action: str = "Complete", custom: str = "__AUTO__"
) -> Any:
    body = {"Action": action, "CustomAction": custom}
    response = workflowsoft.send("PATCH", f"/api/v2/tasks/{instance_id}/action", json=body)
    assert response.status_code == status, response.text
    return response.json() if response.content else None


def poll(workflowsoft: Client, step: int = 101) -> Any:
    return workflowsoft.send("GET", NEW, params={"id": str(step)})


def test_every_call_that_takes_a_body_describes_it(openapi):
    calls = [
        ("post", VARIABLES, "WriteFields"),
        ("patch", "/api/v2/tasks/{instance_id}/action", "TaskAction"),
        ("post", "/api/v2/workflows/start", "StartProcess"),
        ("post", "/api/v2/tasks", "CreateTask"),
    ]
    for method, path, model in calls:
        schema = openapi["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith(model)


# --- finding ---


def test_diagrams_and_their_integration_steps_are_listed(workflowsoft):
    diagrams = workflowsoft.get("/api/v2/workflows", mode="view", limit="100")
    assert diagrams == [
        {"Id": 1, "Title": "Event planning"},
        {"Id": 2, "Title": "Vendor onboarding"},
        {"Id": 3, "Title": "Contract review"},
        {"Id": 4, "Title": "Data issue"},
        {"Id": 5, "Title": "Purchase request"},
        {"Id": 6, "Title": "Field types"},
    ]
    assert workflowsoft.get("/api/v2/workflows", searchTerm="VENDOR") == [{"Id": 2, "Title": "Vendor onboarding"}]
    assert len(workflowsoft.get("/api/v2/workflows", limit="1")) == 1
    assert workflowsoft.get("/api/v2/workflows/1/tasks", integration="true") == [
        {"Id": 101, "Title": "Check event"},
        {"Id": 102, "Title": "Publish event"},
    ]
    assert {"Id": 100, "Title": "Plan event"} in workflowsoft.get("/api/v2/workflows/1/tasks")
    workflowsoft.get("/api/v2/workflows/1/tasks", status=400, integration="True")
    workflowsoft.get("/api/v2/workflows/9/tasks", status=404, integration="true")


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("STEW", [12, 13]),
        ("sam@example.com", [12]),
        ("Olga Owner", [11, 14]),
        ("olga", [11, 14]),
        ("shared@example.com", [16, 17]),
        ("steward sam", []),
    ],
)
def test_users_are_found_by_a_part_of_name_or_email(workflowsoft, query, ids):
    found = workflowsoft.get("/api/users/search", Query=query, entityType="users")
    assert [user["Id"] for user in found] == ids


def test_a_user_has_a_name_and_an_email_and_a_search_a_limit(workflowsoft):
    assert workflowsoft.get("/api/users/search", Query="example.com", entityType="users", limit="1") == [
        {"Id": 11, "FullName": "Olga Owner", "Email": "olga@example.com"}
    ]
    workflowsoft.get("/api/users/search", status=400, Query="a", entityType="teams")


# --- new integration instances ---


def test_an_instance_is_returned_until_it_is_completed(emulator, workflowsoft):
    emulator.control("PATCH", "flags", new_integrations="listed_until_completed")
    first, second = start(emulator), start(emulator)

    assert poll(workflowsoft).json()["IntegrationInstanceId"] == int(first)
    assert poll(workflowsoft).json()["IntegrationInstanceId"] == int(first)
    write(workflowsoft, first, {"Venue": "Garden"})
    complete(workflowsoft, first)
    assert poll(workflowsoft).json()["IntegrationInstanceId"] == int(second)
    assert "deliver" not in [effect["action"] for effect in emulator.effects()]


def test_reading_may_consume_and_that_is_an_effect(emulator, workflowsoft):
    emulator.control("PATCH", "flags", new_integrations="consumed_on_read")
    first, second = start(emulator), start(emulator)

    assert [poll(workflowsoft).json()["IntegrationInstanceId"] for _ in range(2)] == [int(first), int(second)]
    assert poll(workflowsoft).status_code == 204
    delivered = [e["target"]["integration_instance_id"] for e in emulator.effects() if e["action"] == "deliver"]
    assert delivered == [first, second]


def test_several_may_come_as_a_list(emulator, workflowsoft):
    emulator.control("PATCH", "flags", new_integration_shape="list")
    started = [start(emulator), start(emulator)]

    assert [str(row["IntegrationInstanceId"]) for row in poll(workflowsoft).json()] == started


@pytest.mark.parametrize(
    ("flag", "status", "body"),
    [
        ("204", 204, b""),
        ("empty", 200, b""),
        ("null", 200, b"null"),
        ("empty_object", 200, b"{}"),
        ("empty_list", 200, b"[]"),
        ("not_found", 404, b'{"Message":"No new integrations."}'),
    ],
)
def test_nothing_new_has_every_format(emulator, workflowsoft, flag, status, body):
    emulator.control("PATCH", "flags", no_new_integration=flag)

    response = poll(workflowsoft)

    assert (response.status_code, response.content) == (status, body)


def test_a_step_that_does_not_exist_is_not_found(workflowsoft):
    assert "999" in poll(workflowsoft, 999).json()["Message"]


def test_steps_of_the_same_title_are_distinguished(emulator, workflowsoft):
    started = start(emulator, "Contract review")

    assert poll(workflowsoft, 101).status_code == 204
    assert str(poll(workflowsoft, 301).json()["IntegrationInstanceId"]) == started


# --- fields ---


def test_the_guides_fields_are_there_and_a_person_fills_some(emulator, workflowsoft):
    fields = fields_of(workflowsoft, start(emulator, Venue="Hall", **{"Event name": "Fair"}))

    assert list(fields) == ["Event name", "Event exists", "Event start", "Event duration", "Requested by", "Venue"]
    assert fields["Event duration"] == {
        "label": "Event duration",
        "type": "Decimal?",
        "key": "4dc8a917-da0c-4cf7-a43e-064785e42785",
        "options": None,
        "valueJson": "1640.0",
        "isReadonly": False,
        "isRequired": False,
    }
    assert (fields["Event name"]["valueJson"], fields["Venue"]["valueJson"]) == ('"Fair"', '"Hall"')
    assert fields["Requested by"]["isReadonly"]
    assert fields["Venue"]["isRequired"]


def test_decimals_keep_their_digits(emulator, workflowsoft):
    started = start(emulator)
    key = "field_4dc8a917_da0c_4cf7_a43e_064785e42785"
    exact = f'{{"TaskId": {started}, "Fields": {{"{key}": 12345678901234.567800}}}}'

    response = workflowsoft.send("POST", VARIABLES, data=exact, headers=JSON)

    assert response.status_code == 204
    assert fields_of(workflowsoft, started)["Event duration"]["valueJson"] == "12345678901234.567800"


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"Requested by": "Somebody"}, "read-only"),
        ({"Event exists": "yes"}, "not a Boolean"),
        ({"Event start": "tomorrow"}, "not a DateTime"),
        ({"Event duration": True}, "not a Decimal"),
        ({"Event duration": "12"}, "not a Decimal"),
    ],
)
def test_a_value_that_does_not_fit_is_rejected_whole(emulator, workflowsoft, status, values, message):
    emulator.control("PATCH", "flags", ws_error_status=str(status))
    started = start(emulator)

    rejected = write(workflowsoft, started, {"Venue": "Garden", **values}, status=status)

    assert message in rejected["ExceptionMessage" if status == 500 else "Message"]
    assert fields_of(workflowsoft, started)["Venue"]["valueJson"] is None
    assert [effect["action"] for effect in emulator.effects()] == ["start_process"]


@pytest.mark.parametrize(
    ("label", "good", "bad"),
    [
        ("Vendor number", 7, 7.5),
        ("Rating", "A", "D"),
        ("External id", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e04", "7"),
        ("Valid until", "2027-01-31", "2027-02-31"),
        ("Score", 0.5, "much"),
    ],
)
def test_every_type_is_checked(emulator, workflowsoft, label, good, bad):
    started = start(emulator, "Vendor onboarding")

    write(workflowsoft, started, {label: bad}, status=400)
    write(workflowsoft, started, {label: good})
    assert json.loads(fields_of(workflowsoft, started)[label]["valueJson"]) == good


def test_there_is_a_field_of_every_type(emulator, workflowsoft):
    started = start(emulator, "Field types")
    rows = workflowsoft.get(f"/api/v2/workflows/instances/tasks/{started}/variables")

    assert [(row["label"], row["type"], row["valueJson"]) for row in rows] == [
        ("Text", "String", '"Plain text"'),
        ("Flag", "Boolean", "false"),
        ("Flag or none", "Boolean?", None),
        ("Moment", "DateTime", '"2026-03-01T08:30:00Z"'),
        ("Amount", "Decimal", "12345678901234.5678"),
        ("Amount or none", "Decimal?", None),
        ("Small number", "Int16", "7"),
        ("Number", "Int32?", None),
        ("Large number", "Int64?", "9007199254740993"),
        ("Single", "Single?", "0.5"),
        ("Double", "Double?", None),
        ("Identifier", "Guid?", None),
        ("Day", "Date?", None),
        ("Choice", "String", '"Low"'),
        ("Place", "GeoPoint", '{"lat": 1.5, "lon": 2}'),
        ("Twin", "String", '"First"'),
        ("Twin", "String", '"Second"'),
    ]
    assert len({row["key"] for row in rows}) == len(rows)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("label", "good", "bad"),
    [
        ("Text", "", 1),
        ("Flag", True, None),
        ("Flag or none", None, 1),
        ("Moment", "2026-03-01T08:30:00+02:00", 20260301),
        ("Moment", "2026-03-01T08:30:00", None),
        ("Amount", 0, None),
        ("Amount or none", None, True),
        ("Small number", -32768, 32768),
        ("Number", 2147483647, 2147483648),
        ("Large number", -9223372036854775808, 9223372036854775808),
        ("Single", 0.25, "0.25"),
        ("Double", 1, False),
        ("Identifier", "9AAE87B4-2b01-43eb-be17-d0080a225f54", 7),
        ("Day", "2026-03-01", 20260301),
        ("Place", [1, 2], None),
    ],
)
def test_a_value_must_fit_its_type_and_null_its_question_mark(emulator, workflowsoft, label, good, bad):
    started = start(emulator, "Field types")

    write(workflowsoft, started, {label: bad}, status=400)
    write(workflowsoft, started, {label: good})
    assert json.loads(fields_of(workflowsoft, started)[label]["valueJson"]) == good


def test_twins_go_by_their_keys(emulator, workflowsoft):
    first, second = "field_6f9c1e85_2ab7_4d30_a4e6_3c80b95d7f16", "field_6f9c1e85_2ab7_4d30_a4e6_3c80b95d7f17"
    started = start(emulator, "Field types", **{second: "Other"})

    with pytest.raises(RuntimeError, match="There are 2 fields 'Twin'"):
        emulator.control("POST", f"workflowsoft/instances/{started}/complete", fields={"Twin": "Third"})
    assert emulator.effects()[0]["detail"]["fields"] == {second: '"Other"'}
    [row] = emulator.control("GET", "state")["workflowsoft"]
    assert (row["fields"][first], row["fields"][second]) == ('"First"', '"Other"')
    assert "Twin" not in row["fields"]


def test_labels_are_for_people_and_the_start_only(emulator, workflowsoft):
    rejected = workflowsoft.post(VARIABLES, {"TaskId": start(emulator), "Fields": {"Venue": "Hall"}}, status=400)
    assert "Venue does not exist" in rejected["Message"]


def test_the_purchase_request_starts_with_an_order_and_an_amount(emulator, workflowsoft):
    fields = fields_of(workflowsoft, start(emulator, "Purchase request"))

    assert {label: field["valueJson"] for label, field in fields.items() if field["valueJson"]} == {
        "Purchase order id": "5002",
        "Amount": "12500.75",
    }
    assert fields["Decision"]["options"] == ["Approved", "Rejected"]
    assert [label for label, field in fields.items() if field["isRequired"]] == ["Decision"]
    assert list(fields)[3:] == ["Decided by", "Decided at", "Remarks"]


def test_a_value_of_an_unknown_type_is_read_unchanged(emulator, workflowsoft):
    started = start(emulator, "Vendor onboarding")
    write(workflowsoft, started, {"Location": {"lat": 1.25}, "External id": None})
    assert json.loads(fields_of(workflowsoft, started)["Location"]["valueJson"]) == {"lat": 1.25}


def test_unknown_fields_tasks_and_bodies_are_rejected(emulator, workflowsoft):
    started = start(emulator)
    workflowsoft.post(VARIABLES, {"TaskId": started, "Fields": {"field_1": 1}}, status=400)
    workflowsoft.post(VARIABLES, {"TaskId": 999, "Fields": {}}, status=404)
    workflowsoft.post(VARIABLES, {"TaskId": "none", "Fields": {}}, status=404)
    workflowsoft.post(VARIABLES, {"TaskId": started}, status=400)
    for broken in ("{", '{"TaskId": 1, "Fields": {"field_1": NaN}}'):
        assert workflowsoft.send("POST", VARIABLES, data=broken, headers=JSON).status_code == 400
    workflowsoft.get("/api/v2/workflows/instances/tasks/999/variables", status=404)


def test_a_write_is_recorded_with_what_was_written_and_for_whom(emulator, workflowsoft):
    started = start(emulator)
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "12"
    workflowsoft.post(VARIABLES, {"TaskId": started, "Fields": {EVENT_NAME: "Fair"}}, status=204)

    effect = emulator.effects()[-1]
    assert (effect["action"], effect["by"]) == ("write_fields", "12")
    assert effect["detail"] == {"fields": {"Event name": '"Fair"'}}
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "99"
    write(workflowsoft, started, {"Venue": "Garden"}, status=400)
    del workflowsoft.session.headers["X-OnBehalfOf-Id"]
    write(workflowsoft, started, {"Venue": "Garden"}, status=400)


# --- completing ---


def test_completion_needs_required_fields_and_opens_the_next_step(emulator, workflowsoft):
    started = start(emulator)
    assert "Venue" in complete(workflowsoft, started, status=400)["Message"]
    write(workflowsoft, started, {"Venue": ""})
    complete(workflowsoft, started, status=400)
    write(workflowsoft, started, {"Venue": "Garden"})
    complete(workflowsoft, started)

    following = poll(workflowsoft, 102).json()
    assert str(following["ProcessInstanceId"]) == emulator.effects()[0]["target"]["process_instance_id"]
    complete(workflowsoft, str(following["IntegrationInstanceId"]))
    assert poll(workflowsoft, 102).status_code == 204
    assert [effect["action"] for effect in emulator.effects()].count("complete") == 2


@pytest.mark.parametrize(("flag", "status", "times"), [("error", 400, 1), ("no_op", 204, 2)])
def test_completing_twice_is_an_error_or_is_let_through_and_counted(emulator, workflowsoft, flag, status, times):
    emulator.control("PATCH", "flags", ws_complete_again=flag)
    started = start(emulator, Venue="Garden")
    complete(workflowsoft, started)

    complete(workflowsoft, started, status=status)

    assert [effect["action"] for effect in emulator.effects()].count("complete") == times
    assert len(emulator.control("GET", "state")["workflowsoft"]) == 2  # the next step opened once
    write(workflowsoft, started, {"Venue": "Hall"}, status=400)


@pytest.mark.parametrize("status", [400, 500])
def test_an_action_that_no_one_knows_is_rejected(emulator, workflowsoft, status):
    emulator.control("PATCH", "flags", ws_error_status=status)
    started = start(emulator, Venue="Garden")

    complete(workflowsoft, started, status=status, action="Reject")
    rejected = complete(workflowsoft, started, status=status, custom="Later")

    assert "'Later' is unknown; expected one of: __AUTO__, Reject." in str(rejected)
    assert "complete" not in [effect["action"] for effect in emulator.effects()]


@pytest.mark.parametrize(
    ("diagram", "fields", "step", "following"),
    [
        ("Event planning", {"Venue": "Garden"}, "Check event", "Publish event"),
        ("Purchase request", {"Decision": "Rejected"}, "Approve in Procore", "Book order"),
    ],
)
@pytest.mark.parametrize("custom", ["__AUTO__", "Reject"])
def test_a_custom_action_leads_to_the_next_step_or_to_the_end(
    emulator, workflowsoft, diagram, fields, step, following, custom
):
    complete(workflowsoft, start(emulator, diagram, **fields), custom=custom)

    state = emulator.control("GET", "state")
    goes_on = custom == "__AUTO__"
    assert [row["step"] for row in state["workflowsoft"]] == ([step, following] if goes_on else [step])
    [process] = state["workflowsoft_processes"]
    assert process["state"] == ("running" if goes_on else "ended")


def test_a_process_ends_with_its_last_step(emulator, workflowsoft):
    started = start(emulator, "Data issue")
    processes = [
        {
            "process_instance_id": emulator.effects()[0]["target"]["process_instance_id"],
            "diagram": "Data issue",
            "started_by": "11",
            "state": "running",
        }
    ]
    assert emulator.control("GET", "state")["workflowsoft_processes"] == processes

    complete(workflowsoft, started)

    processes[0]["state"] = "ended"
    assert emulator.control("GET", "state")["workflowsoft_processes"] == processes


def test_the_state_shows_who_completed_an_instance_and_when(emulator, workflowsoft):
    emulator.control("PATCH", "flags", new_integrations="listed_until_completed")
    emulator.control("PATCH", "flags", ws_complete_again="no_op")
    started = start(emulator, "Data issue")
    poll(workflowsoft, 401)
    poll(workflowsoft, 401)
    emulator.control("POST", "clock", advance=600)
    complete(workflowsoft, started)
    complete(workflowsoft, started)

    [row] = emulator.control("GET", "state")["workflowsoft"]
    assert (row["state"], row["consumed"], row["times_read"]) == ("completed", False, 2)
    assert [(c["by"], c["custom_action"], c["via"]) for c in row["completions"]] == [("system", "__AUTO__", "api")] * 2
    started_at, *completed_at = [effect["at"] for effect in emulator.effects()]
    assert [c["at"] for c in row["completions"]] == completed_at
    assert completed_at[0] > started_at


def test_the_state_shows_that_an_instance_was_consumed(emulator, workflowsoft):
    emulator.control("PATCH", "flags", new_integrations="consumed_on_read")
    start(emulator)
    poll(workflowsoft)
    poll(workflowsoft)

    [row] = emulator.control("GET", "state")["workflowsoft"]
    assert (row["state"], row["consumed"], row["times_read"]) == ("open", True, 1)


def test_a_user_fills_fields_and_completes(emulator, workflowsoft):
    started = start(emulator, "Purchase request")
    by_hand = f"workflowsoft/instances/{started}/complete"

    with pytest.raises(RuntimeError, match="Required fields are empty: Decision"):
        emulator.control("POST", by_hand)
    with pytest.raises(RuntimeError, match="Decided does not exist"):
        emulator.control("POST", by_hand, fields={"Decided": "Approved"})
    emulator.control("POST", by_hand, custom_action="Reject", fields={"Decision": "Rejected", "Amount": 12.5})

    assert [(e["action"], e["by"], e["via"], e["detail"]) for e in emulator.effects()[1:]] == [
        ("write_fields", "11", "user", {"fields": {"Decision": '"Rejected"', "Amount": "12.5"}}),
        ("complete", "11", "user", {"custom_action": "Reject", "times": 1, "step": "Approve in Procore"}),
    ]
    assert "already completed" in complete(workflowsoft, started, status=400)["Message"]
    with pytest.raises(RuntimeError, match="already completed"):
        emulator.control("POST", by_hand, fields={"Remarks": "Late"})
    with pytest.raises(RuntimeError, match="404"):
        emulator.control("POST", "workflowsoft/instances/999/complete")


@pytest.mark.parametrize(
    ("flag", "status", "locked", "message"),
    [
        ("readable", 200, False, ""),
        ("read_only", 200, True, ""),
        ("gone", 404, None, "was not found"),
        ("error", 400, None, "The task is already completed."),
    ],
)
def test_the_fields_of_a_completed_instance(emulator, workflowsoft, flag, status, locked, message):
    emulator.control("PATCH", "flags", ws_fields_after_completion=flag)
    started = start(emulator, "Data issue")
    assert not any(field["isReadonly"] for field in fields_of(workflowsoft, started).values())
    complete(workflowsoft, started)

    response = workflowsoft.get(f"/api/v2/workflows/instances/tasks/{started}/variables", status=status)

    assert message in (response["Message"] if message else "")
    if locked is not None:
        assert {field["isReadonly"] for field in response} == {locked}


# --- starting ---


def test_a_process_is_started_with_exact_fields(emulator, workflowsoft):
    emulator.control("PATCH", "flags", new_integrations="listed_until_completed")
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "11"
    body = f'{{"TemplateId": 1, "Fields": {{"{EVENT_NAME}": "Fair", "Event duration": 12345678901234.5678}}}}'
    process = workflowsoft.send("POST", "/api/v2/workflows/start", data=body, headers=JSON).json()

    assert process["Title"] == "Event planning"
    new = poll(workflowsoft).json()
    assert new["ProcessInstanceId"] == process["Id"]
    fields = fields_of(workflowsoft, str(new["IntegrationInstanceId"]))
    assert fields["Event name"]["valueJson"] == '"Fair"'
    assert fields["Event duration"]["valueJson"] == "12345678901234.5678"
    [effect] = emulator.effects()
    assert (effect["action"], effect["by"], effect["via"]) == ("start_process", "11", "api")
    assert effect["detail"] == {
        "diagram": "Event planning",
        "fields": {"Event name": '"Fair"', "Event duration": "12345678901234.5678"},
    }


def test_a_process_that_cannot_be_started_is_rejected(emulator, workflowsoft):
    workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 9, "Fields": {}}, status=400)
    workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 1, "Fields": {"field_1": 1}}, status=400)
    workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 1, "Fields": {"Event exists": "yes"}}, status=400)
    twins = workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 6, "Fields": {"Twin": "A"}}, status=400)
    assert "There are 2 fields 'Twin': field_" in twins["Message"]
    workflowsoft.post("/api/v2/workflows/start", {}, status=400)
    assert emulator.effects() == []
    with pytest.raises(RuntimeError, match="Vendor onboarding"):
        start(emulator, "No such diagram")


def test_task_goes_to_the_assignee_or_the_user_it_is_created_for(emulator, workflowsoft):
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "11"
    task = workflowsoft.post("/api/v2/tasks", {"Title": "Call back", "Description": "Today"})
    workflowsoft.post("/api/v2/tasks", {"Title": "Call back", "AssignedUserId": 12})

    assert (task["Title"], task["Description"]) == ("Call back", "Today")
    first, second = emulator.effects()
    assert first["detail"] == {"title": "Call back", "description": "Today", "assigned_to": "11"}
    assert second["detail"] == {"title": "Call back", "description": None, "assigned_to": "12"}
    tasks = emulator.control("GET", "state")["workflowsoft_tasks"]
    assert tasks[0] == {
        "task_id": str(task["Id"]),
        **first["detail"],
        "created_by": "11",
        "created_at": first["at"],
    }
    assert len(tasks) == 2


@pytest.mark.parametrize(
    "task",
    [
        {"Description": "No title"},
        {"Title": " "},
        {"Title": "For nobody", "AssignedUserId": 99},
        {"Title": "For no user", "AssignedUserId": "system"},
    ],
)
def test_a_task_that_cannot_be_created_is_rejected(emulator, workflowsoft, task):
    workflowsoft.post("/api/v2/tasks", task, status=400)
    assert emulator.effects() == emulator.control("GET", "state")["workflowsoft_tasks"] == []


# --- readings of what the guide leaves open ---


@pytest.mark.parametrize(
    ("flag", "options"),
    [
        ("texts", ["Low", "Medium", "High"]),
        ("id_value", [{"Id": 1, "Value": "Low"}, {"Id": 2, "Value": "Medium"}, {"Id": 3, "Value": "High"}]),
        ("unknown", {"items": "Low;Medium;High"}),
    ],
)
def test_options_come_in_several_formats(emulator, workflowsoft, flag, options):
    emulator.control("PATCH", "flags", ws_options_shape=flag)
    started = start(emulator, "Field types")

    assert fields_of(workflowsoft, started)["Choice"]["options"] == options
    write(workflowsoft, started, {"Choice": "High"})
    write(workflowsoft, started, {"Choice": "Highest"}, status=400)


@pytest.mark.parametrize("spelling", ["as_documented", "camel", "pascal"])
def test_keys_are_spelt_in_several_ways(emulator, workflowsoft, spelling):
    emulator.control("PATCH", "flags", ws_names=spelling, new_integrations="listed_until_completed")
    started = start(emulator, "Field types")
    responses = [
        workflowsoft.get("/api/v2/workflows")[0],
        workflowsoft.get("/api/v2/workflows/1/tasks")[0],
        workflowsoft.get("/api/users/search", Query="o", entityType="users")[0],
        poll(workflowsoft, 601).json(),
        workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 1}),
        workflowsoft.post("/api/v2/tasks", {"Title": "Call back"}),
        workflowsoft.get("/api/v2/workflows/9/tasks", status=404),
        complete(workflowsoft, started, status=400, action="Reject"),
    ]
    field = workflowsoft.get(f"/api/v2/workflows/instances/tasks/{started}/variables")[0]

    assert {key[0].isupper() for response in responses for key in response} == {spelling != "camel"}
    assert {key[0].isupper() for key in field} == {spelling == "pascal"}
    assert field["ValueJson" if spelling == "pascal" else "valueJson"] == '"Plain text"'
    emulator.control("PATCH", "flags", new_integration_shape="list", ws_error_status="500")
    assert len(poll(workflowsoft, 601).json()) == 1
    complete(workflowsoft, started, status=500, action="Reject")


@pytest.mark.parametrize("spelling", ["camel", "pascal"])
def test_the_spelling_does_not_change_tokens_or_plain_values(emulator, anonymous, workflowsoft, spelling):
    emulator.control("PATCH", "flags", ws_names=spelling, ws_token_shape="object", no_new_integration="null")

    response = anonymous.send("GET", "/api/v2/app/apitoken", headers={"Authorization": f"Basic {BASIC}"})
    assert list(response.json()) == ["access_token", "expires_in"]
    assert poll(workflowsoft).json() is None
    emulator.control("PATCH", "flags", no_new_integration="empty")
    assert poll(workflowsoft).content == b""


@pytest.mark.parametrize(("after", "taken"), [(False, 0), (True, 1)])
def test_a_delay_comes_before_the_effect_or_behind_it(emulator, workflowsoft, after, taken):
    emulator.control("PATCH", "flags", new_integrations="consumed_on_read")
    start(emulator)
    emulator.control("POST", "faults", path="new-integrations", delay=1.0, after=after)

    with pytest.raises(requests.exceptions.ReadTimeout):
        workflowsoft.send("GET", NEW, params={"id": "101"}, timeout=0.3)

    assert sum(effect["action"] == "deliver" for effect in emulator.effects()) == taken
    while not any(request["path"] == NEW for request in emulator.requests()):
        pass  # or its end would fall into the next test
