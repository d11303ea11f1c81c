"""Workflowsoft's processes, integration steps, fields and tasks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.emulator.conftest import Client

NEW = "/api/v2/workflows/instances/new-integrations"
VARIABLES = "/api/v2/workflows/instances/variables"
EVENT_NAME = "field_9aae87b4_2b01_43eb_be17_d0080a225f54"


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


def complete(workflowsoft: Client, instance_id: str, status: int = 204, action: str = "Complete") -> Any:
    body = {"Action": action, "CustomAction": "__AUTO__"}
    answer = workflowsoft.send("PATCH", f"/api/v2/tasks/{instance_id}/action", json=body)
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def poll(workflowsoft: Client, step: int = 101) -> Any:
    return workflowsoft.send("GET", NEW, params={"id": str(step)})


# --- finding ---


def test_diagrams_and_their_integration_steps_are_listed(workflowsoft):
    diagrams = workflowsoft.get("/api/v2/workflows", mode="view", limit="100")
    assert diagrams == [
        {"Id": 1, "Title": "Event planning"},
        {"Id": 2, "Title": "Vendor onboarding"},
        {"Id": 3, "Title": "Contract review"},
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


def test_users_are_found_by_a_part_of_name_or_email(workflowsoft):
    found = workflowsoft.get("/api/users/search", Query="STEW", entityType="users", limit="15")
    assert found == [{"Id": 12, "FullName": "Sam Steward", "Email": "sam@example.com"}]
    assert len(workflowsoft.get("/api/users/search", Query="example.com", entityType="users", limit="1")) == 1
    workflowsoft.get("/api/users/search", status=400, Query="a", entityType="teams")


# --- new integration instances ---


def test_an_instance_is_returned_until_it_is_completed(emulator, workflowsoft):
    first, second = start(emulator), start(emulator)

    assert poll(workflowsoft).json()["IntegrationInstanceId"] == int(first)
    assert poll(workflowsoft).json()["IntegrationInstanceId"] == int(first)
    write(workflowsoft, first, {"Venue": "Garden"})
    complete(workflowsoft, first)
    assert poll(workflowsoft).json()["IntegrationInstanceId"] == int(second)
    assert "deliver" not in [effect["action"] for effect in emulator.effects()]


def test_reading_may_consume_and_that_is_an_effect(emulator, workflowsoft):
    emulator.control("PATCH", "switches", new_integrations="consumed_on_read")
    first, second = start(emulator), start(emulator)

    assert [poll(workflowsoft).json()["IntegrationInstanceId"] for _ in range(2)] == [int(first), int(second)]
    assert poll(workflowsoft).status_code == 204
    delivered = [e["target"]["integration_instance_id"] for e in emulator.effects() if e["action"] == "deliver"]
    assert delivered == [first, second]


def test_several_may_come_as_a_list(emulator, workflowsoft):
    emulator.control("PATCH", "switches", new_integration_shape="list")
    started = [start(emulator), start(emulator)]

    assert [str(row["IntegrationInstanceId"]) for row in poll(workflowsoft).json()] == started


@pytest.mark.parametrize(
    ("switch", "status", "body"),
    [
        ("204", 204, b""),
        ("null", 200, b"null"),
        ("empty_object", 200, b"{}"),
        ("empty_list", 200, b"[]"),
        ("not_found", 404, b'{"Message":"No new integrations."}'),
    ],
)
def test_nothing_new_has_every_form(emulator, workflowsoft, switch, status, body):
    emulator.control("PATCH", "switches", no_new_integration=switch)

    answer = poll(workflowsoft)

    assert (answer.status_code, answer.content) == (status, body)


def test_a_step_that_does_not_exist_is_not_found(workflowsoft):
    assert "999" in poll(workflowsoft, 999).json()["Message"]


def test_steps_of_the_same_title_are_kept_apart(emulator, workflowsoft):
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

    answer = workflowsoft.send("POST", VARIABLES, data=exact)

    assert answer.status_code == 204
    assert fields_of(workflowsoft, started)["Event duration"]["valueJson"] == "12345678901234.567800"


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"Requested by": "Somebody"}, "read-only"),
        ({"Event exists": "yes"}, "not a Boolean"),
        ({"Event start": "tomorrow"}, "not a DateTime"),
        ({"Event duration": True}, "not a Decimal"),
        ({"Event duration": "12"}, "not a Decimal"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_whole(emulator, workflowsoft, status, values, words):
    emulator.control("PATCH", "switches", ws_error_status=str(status))
    started = start(emulator)

    refused = write(workflowsoft, started, {"Venue": "Garden", **values}, status=status)

    assert words in refused["ExceptionMessage" if status == 500 else "Message"]
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


def test_a_value_of_an_unknown_type_is_taken_as_it_is(emulator, workflowsoft):
    started = start(emulator, "Vendor onboarding")
    write(workflowsoft, started, {"Location": {"lat": 1.25}, "External id": None})
    assert json.loads(fields_of(workflowsoft, started)["Location"]["valueJson"]) == {"lat": 1.25}


def test_unknown_fields_tasks_and_bodies_are_refused(emulator, workflowsoft):
    started = start(emulator)
    workflowsoft.post(VARIABLES, {"TaskId": started, "Fields": {"field_1": 1}}, status=400)
    workflowsoft.post(VARIABLES, {"TaskId": 999, "Fields": {}}, status=404)
    workflowsoft.post(VARIABLES, {"TaskId": "none", "Fields": {}}, status=404)
    workflowsoft.post(VARIABLES, {"TaskId": started}, status=400)
    assert workflowsoft.send("POST", VARIABLES, data="{").status_code == 400
    workflowsoft.get("/api/v2/workflows/instances/tasks/999/variables", status=404)


def test_a_write_is_recorded_with_what_was_written_and_for_whom(emulator, workflowsoft):
    started = start(emulator)
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "12"
    workflowsoft.post(VARIABLES, {"TaskId": started, "Fields": {EVENT_NAME: "Fair"}}, status=204)

    effect = emulator.effects()[-1]
    assert (effect["action"], effect["by"]) == ("write_fields", "12")
    assert effect["detail"] == {"fields": {"Event name": '"Fair"'}}
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "13"
    write(workflowsoft, started, {"Venue": "Garden"}, status=400)
    del workflowsoft.session.headers["X-OnBehalfOf-Id"]
    write(workflowsoft, started, {"Venue": "Garden"}, status=400)


# --- completing ---


def test_completing_needs_the_required_fields_and_opens_the_next_step(emulator, workflowsoft):
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


@pytest.mark.parametrize(("switch", "status", "times"), [("error", 400, 1), ("no_op", 204, 2)])
def test_completing_twice_is_an_error_or_is_let_through_and_counted(emulator, workflowsoft, switch, status, times):
    emulator.control("PATCH", "switches", ws_complete_again=switch)
    started = start(emulator, Venue="Garden")
    complete(workflowsoft, started)

    complete(workflowsoft, started, status=status)

    assert [effect["action"] for effect in emulator.effects()].count("complete") == times
    assert len(emulator.control("GET", "state")["workflowsoft"]) == 2  # the next step opened once
    write(workflowsoft, started, {"Venue": "Hall"}, status=400)


def test_an_action_that_nobody_knows_is_refused(emulator, workflowsoft):
    complete(workflowsoft, start(emulator), status=400, action="Reject")


# --- starting ---


def test_a_process_is_started_with_exact_fields(emulator, workflowsoft):
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "11"
    body = f'{{"TemplateId": 1, "Fields": {{"{EVENT_NAME}": "Fair"}}}}'
    process = workflowsoft.send("POST", "/api/v2/workflows/start", data=body).json()

    assert process["Title"] == "Event planning"
    new = poll(workflowsoft).json()
    assert new["ProcessInstanceId"] == process["Id"]
    assert fields_of(workflowsoft, str(new["IntegrationInstanceId"]))["Event name"]["valueJson"] == '"Fair"'
    [effect] = emulator.effects()
    assert (effect["action"], effect["by"], effect["via"]) == ("start_process", "11", "api")


def test_a_process_that_cannot_be_started_is_refused(emulator, workflowsoft):
    workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 9, "Fields": {}}, status=400)
    workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 1, "Fields": {"field_1": 1}}, status=400)
    workflowsoft.post("/api/v2/workflows/start", {}, status=400)
    assert emulator.effects() == []
    with pytest.raises(RuntimeError, match="Vendor onboarding"):
        start(emulator, "No such diagram")


def test_a_task_goes_to_whom_it_is_assigned_or_to_the_user_it_is_created_for(emulator, workflowsoft):
    workflowsoft.session.headers["X-OnBehalfOf-Id"] = "11"
    task = workflowsoft.post("/api/v2/tasks", {"Title": "Call back", "Description": "Today"})
    workflowsoft.post("/api/v2/tasks", {"Title": "Call back", "AssignedUserId": 12})
    workflowsoft.post("/api/v2/tasks", {"Description": "No title"}, status=400)

    assert (task["Title"], task["Description"]) == ("Call back", "Today")
    assert [effect["detail"]["assigned_to"] for effect in emulator.effects()] == ["11", "12"]
