"""The meaning of Workflowsoft's responses: lists, polls, and reported failures."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules import workflowsoft as rules

INSTANCE = {"IntegrationInstanceId": 2, "ProcessInstanceId": 3}

EMPTY_GUID = "00000000-0000-0000-0000-000000000000"

READ = {"integration_instance_id": "2", "process_instance_id": "3"}

# --- polls ---


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [],
        {"IntegrationInstanceId": None},
        {"integrationInstanceId": 0, "ProcessInstanceId": 0},
        {"IntegrationInstanceId": "", "ProcessInstanceId": None},
        {"IntegrationInstanceId": "0", "ProcessInstanceId": "0"},
        {"IntegrationInstanceId": EMPTY_GUID, "ProcessInstanceId": EMPTY_GUID},
    ],
)
def test_every_empty_response_of_a_poll_is_none(body):
    assert rules.integration_instances(body) == []


@pytest.mark.parametrize(
    "body",
    [
        INSTANCE,
        [INSTANCE],
        {"integrationInstanceID": 2, "processinstanceid": 3},
        {"INTEGRATIONINSTANCEID": "2", "ProcessInstanceId": "3"},
    ],
)
def test_an_object_or_a_list_in_any_case_is_read(body):
    assert rules.integration_instances(body) == [READ]


def test_several_instances_in_one_response_are_all_read():
    several = rules.integration_instances([INSTANCE, {"IntegrationInstanceId": 4}])

    assert several == [READ, {"integration_instance_id": "4", "process_instance_id": None}]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"Message": "top secret"}, "an object with Message"),
        ("text", "a str"),
        (0, "a int"),
        ([INSTANCE, None], "a NoneType"),
        ([{"ProcessInstanceId": 1}], "an object with ProcessInstanceId"),
        ([{"IntegrationInstanceId": None}], "an object with IntegrationInstanceId"),
        ([{"IntegrationInstanceId": 0, "ProcessInstanceId": 0}], "IntegrationInstanceId (int)"),
        ({"IntegrationInstanceId": 0, "ProcessInstanceId": 7}, "IntegrationInstanceId (int)"),
        ({"IntegrationInstanceId": None, "Message": "top secret"}, "Message (str)"),
        ({"Message": None}, "an object with Message"),
        ({"IntegrationInstanceId": True}, "IntegrationInstanceId (bool)"),
        ({"IntegrationInstanceId": False}, "IntegrationInstanceId (bool)"),
        ({"IntegrationInstanceId": 2.0}, "IntegrationInstanceId (float)"),
        ({"IntegrationInstanceId": 0.0}, "IntegrationInstanceId (float)"),
        ({"IntegrationInstanceId": {"secret": 1}}, "IntegrationInstanceId (dict)"),
        ({"IntegrationInstanceId": [2]}, "IntegrationInstanceId (list)"),
        ({"IntegrationInstanceId": " "}, "IntegrationInstanceId (str)"),
        ({"IntegrationInstanceId": "0", "ProcessInstanceId": 7}, "IntegrationInstanceId (str)"),
        ([INSTANCE, {"IntegrationInstanceId": EMPTY_GUID}], "1 of 2 rows"),
    ],
)
def test_a_response_of_another_format_is_an_error_and_never_none(body, shown):
    with pytest.raises(UnexpectedResponse) as error:
        rules.integration_instances(body)
    assert shown in str(error.value)
    assert "secret" not in str(error.value)


def test_error_of_a_malformed_response_has_its_readable_part():
    # In Python 1 equals True, so these two must not be reported apart by comparing them.
    malformed = [{"IntegrationInstanceId": 1}, {"IntegrationInstanceId": True}, INSTANCE, {"Foo": "secret"}]

    with pytest.raises(rules.UnreadableInstances, match="2 of 4 rows") as error:
        rules.integration_instances(malformed)
    assert error.value.instances == [{"integration_instance_id": "1", "process_instance_id": None}, READ]
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("process", [True, 2.0, {"Id": 3}, [3], "", 0, "0", EMPTY_GUID])
def test_an_instance_whose_process_has_no_id_is_an_instance(process):
    read = rules.integration_instances({"IntegrationInstanceId": 2, "ProcessInstanceId": process})

    assert read == [READ | {"process_instance_id": None}]


# --- diagrams and steps ---

ROWS = [{"id": "1", "title": "Plan"}, {"id": "2", "title": "Check"}, {"id": "3", "title": "Check"}]


@pytest.mark.parametrize(("requested", "found"), [("Plan", "1"), ("1", "1"), ("3", "3")])
def test_a_row_is_chosen_by_its_exact_title_or_id(requested, found):
    assert rules.choose("step", "integration step", requested, ROWS)["id"] == found


def test_a_name_that_fits_nothing_lists_the_candidates():
    with pytest.raises(ConfigurationError, match=r"step: there is no integration step 'plan'.*'Plan' \(id 1\)"):
        rules.choose("step", "integration step", "plan", ROWS)
    with pytest.raises(ConfigurationError, match="Candidates: none"):
        rules.choose("step", "integration step", "Plan", [])


def test_an_ambiguous_name_lists_only_those_it_fits():
    with pytest.raises(
        ConfigurationError, match=r"2 integration steps are named 'Check': 'Check' \(id 2\), 'Check' \(id 3\)\. Give"
    ):
        rules.choose("step", "integration step", "Check", ROWS)


@pytest.mark.parametrize(
    "body", [{}, {"data": []}, ["x"], [{"Title": "no id"}], *([{"Id": id_}] for id_ in (True, 2.0, "", {}, [1]))]
)
def test_a_list_of_another_format_is_an_error(body):
    with pytest.raises(UnexpectedResponse, match="for each process diagram"):
        rules.titled_rows(body, "process diagram")


@pytest.mark.parametrize("bad", [None, "x", {"Title": "draft"}, {"Id": None, "Title": "draft"}])
def test_a_row_without_an_id_leaves_the_others(bad):
    assert rules.titled_rows([bad, {"Id": 1, "Title": "Plan"}], "process diagram") == [{"id": "1", "title": "Plan"}]
    user = {"id": "1", "full_name": "", "email": "olga@x"}
    assert rules.user_rows([{"Id": 1, "Email": "olga@x"}, bad]) == [user]


def test_an_empty_response_is_an_empty_list():
    assert (rules.titled_rows(None, "process diagram"), rules.user_rows(None)) == ([], [])


# --- reported failures and titles ---


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, None),
        ({}, None),
        ("OK", None),
        (True, None),
        ({"Success": True, "Message": "done"}, None),
        ({"Id": 2, "Errors": []}, None),
        ({"Success": False, "Message": "Required"}, "Required"),
        ({"isSuccess": "false"}, "without a reason"),
        ({"is_success": False, "Errors": ["A", "B"]}, "A"),
        ({"ErrorMessage": "Required"}, "Required"),
        (False, "false"),
        ({"Success": 0, "Message": "Required"}, "Required"),
        ({"success": "0"}, "without a reason"),
        ({"success": "no"}, "without a reason"),
        ({"Success": None}, None),
        ({"isFailure": True, "reason": "Required"}, "Required"),
        ({"isFailure": False, "HasErrors": "false"}, None),
        ({"HasErrors": True}, "without a reason"),
        ({"Failed": True}, "without a reason"),
        ({"result": False}, "without a reason"),
        ({"data": {"success": False}}, "without a reason"),
        ({"Result": {"Success": False, "Message": "Required"}}, "Required"),
        ({"type": "about:blank", "status": 400, "detail": "Required"}, "Required"),
        ({"statusCode": 404}, "404"),
        ({"Status": 200, "Message": "done"}, None),
        ({"Id": 7, "Status": 404}, None),
        ({"Error": {"Code": "E1", "Description": "Required"}}, "Code: E1; Description: Required"),
        ({"Success": False, "Errors": [{"Message": "Required"}]}, "Required"),
        ({"Success": False, "ModelState": {"Venue": ["Required"]}}, "Venue: Required"),
        ({"Success": True, "Error": {"Code": 0, "Message": None, "Details": []}}, None),
        ({"isSuccess": True, "isFailure": False, "error": {"code": "", "message": ""}}, None),
        ({"error": False, "errors": 0}, None),
        ({"error": True, "reason": "Required"}, "Required"),
    ],
)
def test_a_response_may_say_that_it_failed(body, message):
    found = rules.failure_in(body)

    assert (found is None) == (message is None)
    assert found is None or (message in found.message and found.is_certain)


@pytest.mark.parametrize(
    "body",
    [
        {"Success": True, "Errors": ["mail not sent"]},
        {"isFailure": False, "error": {"message": "mail not sent"}},
        {"Success": True, "data": {"success": False, "message": "mail not sent"}},
        {"Id": 0, "ProcessInstanceId": 77, "Error": "mail not sent"},
        {"Error": "mail not sent", "value": {"Id": 77}},
    ],
)
def test_errors_beside_a_success_or_an_id_are_not_certain(body):
    found = rules.failure_in(body)

    assert "mail not sent" in found.message
    assert not found.is_certain


@pytest.mark.parametrize("requested", ["Plan", "Plan "])
def test_a_title_with_a_trailing_blank_is_found(requested):
    rows = [{"id": "1", "title": "Plan "}, {"id": "2", "title": "Check"}]

    assert rules.choose("step", "integration step", requested, rows)["id"] == "1"


def test_a_title_to_the_letter_comes_before_one_with_blanks():
    rows = [{"id": "1", "title": "Plan "}, {"id": "2", "title": "Plan"}]

    assert rules.choose("step", "integration step", "Plan", rows)["id"] == "2"
    assert rules.choose("step", "integration step", "Plan ", rows)["id"] == "1"


# --- the id of an instance ---


@pytest.mark.parametrize("given_id", [2, "2", " 2 ", {"integration_instance_id": "2", "step_id": "101"}])
def test_an_instance_is_named_by_its_id_or_by_the_sensors_row(given_id):
    assert rules.instance_id_of(given_id) == "2"


@pytest.mark.parametrize(
    "given_id", [None, "", " ", "None", True, [], ["2"], ("2",), {}, {"id": "2"}, "{'a': 1}", "[1]", {"x"}]
)
def test_a_value_that_is_not_an_instance_id_is_rejected_by_name(given_id):
    with pytest.raises(ConfigurationError, match="integration_instance_id must be the id of one integration instance"):
        rules.instance_id_of(given_id)


# --- people ---

PEOPLE = [
    {"id": "11", "full_name": "Olga Owner", "email": "olga@example.com"},
    {"id": "16", "full_name": "Shared One", "email": "shared@example.com"},
    {"id": "17", "full_name": "Shared Two", "email": "Shared@example.com"},
]


def test_a_person_is_found_by_the_exact_address_in_any_case():
    assert rules.choose_user("assigned_to", "OLGA@Example.com", PEOPLE) == "11"


@pytest.mark.parametrize(
    ("email", "people", "message"),
    [
        ("olga@example.co", PEOPLE, r"no user has.*found: Olga Owner <olga@example.com> \(id 11\), Shared One"),
        ("olga@example.com", [], "no user has.*found: none"),
        (
            "shared@example.com",
            PEOPLE,
            r"2 users have.*Shared One <shared@example.com> \(id 16\), Shared Two.*Give the id",
        ),
    ],
)
def test_no_one_and_several_are_reported_with_the_candidates(email, people, message):
    with pytest.raises(ConfigurationError, match=f"assigned_to: {message}"):
        rules.choose_user("assigned_to", email, people)


def test_users_are_read_in_any_case_and_without_names():
    assert rules.user_rows([{"ID": 1, "fullName": "A", "EMAIL": "a@x"}, {"Id": "2", "Email": None}]) == [
        {"id": "1", "full_name": "A", "email": "a@x"},
        {"id": "2", "full_name": "", "email": ""},
    ]
    with pytest.raises(UnexpectedResponse, match="for each user"):
        rules.user_rows([{"FullName": "A"}])


def test_unlisted_digits_are_an_id_only_if_there_may_be_more():
    assert rules.choose("diagram", "process diagram", "4711", ROWS, may_lack=True)["id"] == "4711"
    with pytest.raises(ConfigurationError, match="there is no process diagram '4711'"):
        rules.choose("diagram", "process diagram", "4711", ROWS)
    with pytest.raises(ConfigurationError, match="possibly more that were not listed; give the id"):
        rules.choose("diagram", "process diagram", "Party", ROWS, may_lack=True)


@pytest.mark.parametrize(
    ("message", "is_completed"),
    [
        ("The task is already completed.", True),
        ("Task already closed", True),
        ("Already been finished", True),
        ("title: The task is already completed; status: 409", True),
        ("Code: Task.Done; Description: Task is already completed.", True),
        ("task: is already completed", True),
        ("previous task: is already completed", False),
        ("PreviousTask: is already completed", False),
        ("This integration instance has been completed", True),
        ("The step is closed", True),
        ("Required fields are empty: Venue.", False),
        ("The task is not completed because Venue is empty", False),
        ("Completed date is invalid", False),
        ("", False),
    ],
)
def test_only_unambiguous_messages_mean_already_completed(message, is_completed):
    assert rules.says_already_completed(message) is is_completed


@pytest.mark.parametrize(
    "message",
    [
        "Cannot complete the task until the previous task is completed.",
        "All required fields must be filled before the task is completed.",
        "The dependent task is not already completed.",
        "Only the owner may do this once the task is closed.",
        "Completed",
    ],
)
def test_a_sentence_about_another_completion_does_not_count(message):
    assert not rules.says_already_completed(message)


@pytest.mark.parametrize("message", ["An error has occurred.; The task is already completed.", "Task 5 is closed"])
def test_one_whole_sentence_of_several_is_enough(message):
    assert rules.says_already_completed(message)
