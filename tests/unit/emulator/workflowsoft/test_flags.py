"""The behaviour flags of the emulated Workflowsoft, each value as it is over the wire."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emulator.workflowsoft.test_instances import complete, fields_of, poll, start, write


def set_flags(emulator: Any, **flags: str) -> None:
    emulator.control("PATCH", "flags", **flags)


@pytest.mark.parametrize(("flag", "emptied"), [("partial", False), ("replace", True)])
def test_a_write_may_empty_the_fields_it_does_not_name(emulator, workflowsoft, flag, emptied):
    set_flags(emulator, ws_write=flag)
    started = start(emulator)

    write(workflowsoft, started, {"Venue": "Garden"})

    fields = fields_of(workflowsoft, started)
    assert (fields["Event name"]["valueJson"] is None) is emptied
    assert (fields["Venue"]["valueJson"], fields["Requested by"]["valueJson"]) == ('"Garden"', '"Olga Owner"')


@pytest.mark.parametrize(
    ("flag", "label", "value", "shown"),
    [
        ("none", "Event name", " a ", '" a "'),
        ("trim", "Event name", " a ", '"a"'),
        ("crlf", "Event name", "a\nb", '"a\\r\\nb"'),
        ("round", "Event duration", 1.239, "1.24"),
        ("minutes", "Event start", "2026-03-01T08:30:45Z", '"2026-03-01T08:30:00Z"'),
    ],
)
def test_a_written_value_may_be_changed(emulator, workflowsoft, flag, label, value, shown):
    set_flags(emulator, ws_normalise=flag)
    started = start(emulator)

    write(workflowsoft, started, {label: value})

    assert fields_of(workflowsoft, started)[label]["valueJson"] == shown


@pytest.mark.parametrize(("flag", "status", "body"), [("204", 204, None), ("200_object", 200, {"Success": True})])
def test_response_to_a_change_may_have_a_body(emulator, workflowsoft, flag, status, body):
    set_flags(emulator, ws_write_response=flag)
    started = start(emulator)

    assert (body or {}).items() <= (write(workflowsoft, started, {"Venue": "Garden"}, status=status) or {}).items()
    assert (body or {}).items() <= (complete(workflowsoft, started, status=status) or {}).items()


@pytest.mark.parametrize(("flag", "status"), [("400", 400), ("500", 500), ("200", 200)])
def test_a_business_error_may_have_any_status(emulator, workflowsoft, flag, status):
    set_flags(emulator, ws_error_status=flag)
    started = start(emulator)

    rejected = complete(workflowsoft, started, status=status)

    assert rejected.get("Success", True) is (flag != "200")
    assert emulator.control("GET", "state")["workflowsoft"][0]["completions"] == []


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        ("documented", {"Flag": "false", "Single": "0.5", "Text": '"Plain text"'}),
        ("texts", {"Flag": '"false"', "Single": '"0.5"', "Text": '"Plain text"'}),
        ("comma", {"Flag": "false", "Single": '"0,5"', "Text": '"Plain text"'}),
        ("parsed", {"Flag": False, "Single": 0.5, "Text": "Plain text"}),
        ("object", {"Flag": "false", "Single": "0.5", "Text": '{"text": "Plain text"}'}),
    ],
)
def test_values_come_in_several_formats(emulator, workflowsoft, flag, shown):
    set_flags(emulator, ws_value_format=flag)
    fields = fields_of(workflowsoft, start(emulator, "Field types"))

    assert {label: fields[label]["valueJson"] for label in shown} == shown


@pytest.mark.parametrize(
    ("flag", "shown"),
    [
        ("utc", '"2026-03-01T08:30:00Z"'),
        ("offset", '"2026-03-01T10:30:00+02:00"'),
        ("no_zone", '"2026-03-01T08:30:00"'),
        ("slash_date", '"/Date(1772353800000)/"'),
        ("epoch", "1772353800000"),
    ],
)
def test_times_come_in_several_formats(emulator, workflowsoft, flag, shown):
    set_flags(emulator, ws_times=flag)

    assert fields_of(workflowsoft, start(emulator, "Field types"))["Moment"]["valueJson"] == shown


@pytest.mark.parametrize(
    ("flag", "shown"),
    [("as_written", None), ("json_null", None), ("null_text", "null"), ("empty_text", ""), ("absent", "absent")],
)
def test_an_empty_value_comes_in_several_formats(emulator, workflowsoft, flag, shown):
    set_flags(emulator, ws_empty_value=flag)
    field = fields_of(workflowsoft, start(emulator, "Field types"))["Flag or none"]

    assert field.get("valueJson", "absent") == shown


@pytest.mark.parametrize(
    ("flag", "name"), [("as_documented", "Decimal?"), ("lower_case", "decimal?"), ("system", "System.Decimal?")]
)
def test_types_have_several_names(emulator, workflowsoft, flag, name):
    set_flags(emulator, ws_type_names=flag)

    assert fields_of(workflowsoft, start(emulator))["Event duration"]["type"] == name


def test_labels_and_titles_may_end_in_a_blank(emulator, workflowsoft):
    set_flags(emulator, ws_labels="trailing_blank")

    assert workflowsoft.get("/api/v2/workflows")[0]["Title"] == "Event planning "
    assert workflowsoft.get("/api/v2/workflows/1/tasks", integration="true")[0]["Title"] == "Check event "
    assert "Venue " in fields_of(workflowsoft, start(emulator))


def test_a_label_may_be_repeated(emulator, workflowsoft):
    set_flags(emulator, ws_labels="repeated")
    where = f"/api/v2/workflows/instances/tasks/{start(emulator)}/variables"

    assert [field["label"] for field in workflowsoft.get(where)][:2] == ["Event name", "Event name"]


@pytest.mark.parametrize(("flag", "kind"), [("numbers", int), ("texts", str)])
def test_ids_are_numbers_or_texts(emulator, workflowsoft, flag, kind):
    set_flags(emulator, ws_ids=flag)
    start(emulator)

    found = [
        workflowsoft.get("/api/v2/workflows")[0]["Id"],
        poll(workflowsoft).json()["IntegrationInstanceId"],
        workflowsoft.post("/api/v2/workflows/start", {"TemplateId": 1})["Id"],
    ]
    assert {type(value) for value in found} == {kind}


@pytest.mark.parametrize(("flag", "status"), [("404", 404), ("500", 500), ("nothing", 204)])
def test_an_unknown_step_is_responded_to_in_several_ways(emulator, workflowsoft, flag, status):
    set_flags(emulator, ws_unknown_step=flag)

    assert poll(workflowsoft, 999).status_code == status


@pytest.mark.parametrize(("flag", "status"), [("lower_case", 400), ("any_case", 200)])
def test_true_may_have_to_be_in_lower_case(emulator, workflowsoft, flag, status):
    set_flags(emulator, ws_true=flag)

    workflowsoft.get("/api/v2/workflows/1/tasks", status=status, integration="True")


@pytest.mark.parametrize(("flag", "value", "status"), [("text", "Low", 204), ("id", "1", 204), ("id", "Low", 400)])
def test_an_option_is_written_as_its_text_or_its_id(emulator, workflowsoft, flag, value, status):
    set_flags(emulator, ws_option_value=flag, ws_options_shape="id_title")
    started = start(emulator, "Field types")

    assert fields_of(workflowsoft, started)["Choice"]["options"][0] == {"Id": 1, "Title": "Low"}
    write(workflowsoft, started, {"Choice": value}, status=status)


@pytest.mark.parametrize(("flag", "status"), [("named", 204), ("auto_only", 400)])
def test_there_may_be_one_custom_action_only(emulator, workflowsoft, flag, status):
    set_flags(emulator, ws_custom_actions=flag)
    started = start(emulator, Venue="Hall")

    complete(workflowsoft, started, status=status, custom="Reject")


@pytest.mark.parametrize(("flag", "rows"), [("as_requested", 7), ("at_most_3", 3)])
def test_a_list_may_have_a_limit_of_its_own(emulator, workflowsoft, flag, rows):
    set_flags(emulator, ws_list_limit=flag)

    assert len(workflowsoft.get("/api/users/search", Query="e", entityType="users", limit="100")) == rows


@pytest.mark.parametrize(("flag", "found"), [("part", [12, 13]), ("exact", [])])
def test_a_search_may_want_the_whole(emulator, workflowsoft, flag, found):
    set_flags(emulator, ws_user_search=flag)

    users = workflowsoft.get("/api/users/search", Query="sam", entityType="users")
    assert [user["Id"] for user in users] == found


@pytest.mark.parametrize(("flag", "status"), [("accepted", 200), ("rejected", 400)])
def test_files_may_be_rejected(emulator, workflowsoft, flag, status):
    set_flags(emulator, ws_files=flag)

    workflowsoft.post("/api/v2/tasks", {"Title": "x", "Files": [{"Name": "a"}]}, status=status)
    files = [task["files"] for task in emulator.control("GET", "state")["workflowsoft_tasks"]]
    assert files == ([[{"Name": "a"}]] if flag == "accepted" else [])


@pytest.mark.parametrize(("flag", "status"), [("not_needed", 200), ("needed", 403)])
def test_reading_may_need_a_user(emulator, workflowsoft, flag, status):
    set_flags(emulator, ws_read_on_behalf=flag)
    where = f"/api/v2/workflows/instances/tasks/{start(emulator)}/variables"
    del workflowsoft.session.headers["X-OnBehalfOf-Id"]

    assert workflowsoft.send("GET", where).status_code == status
    assert workflowsoft.send("GET", where, headers={"X-OnBehalfOf-Id": "system"}).status_code == 200
