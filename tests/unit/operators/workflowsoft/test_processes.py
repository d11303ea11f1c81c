"""Start processes and create tasks once, also after a lost response; list what Workflowsoft has."""

from __future__ import annotations

import socket
from datetime import datetime, timezone
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from airflow_provider_workflows.client.auth import TokenAuth
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCreateTaskOperator,
    WorkflowsoftListOperator,
    WorkflowsoftStartProcessOperator,
)
from tests.support.killed import Killed

pytestmark = pytest.mark.usefixtures("airflow_connections")

TI = SimpleNamespace(dag_id="events", run_id="manual__2026", task_id="start", map_index=3)
ADDRESS = "/workflows/start$|/v2/tasks$"


def start(**parameters) -> WorkflowsoftStartProcessOperator:
    fixed = {"task_id": "start", "diagram": "Event planning", "on_behalf_of": "sam@example.com", "retries": 2}
    return WorkflowsoftStartProcessOperator(**{**fixed, **parameters})


def create(**parameters) -> WorkflowsoftCreateTaskOperator:
    fixed = {"task_id": "create", "title": "Look at it", "on_behalf_of": "sam@example.com", "retries": 2}
    return WorkflowsoftCreateTaskOperator(**{**fixed, **parameters})


def listing(**parameters) -> list[dict[str, str]]:
    return WorkflowsoftListOperator(task_id="list", **parameters).execute({})


BOTH = pytest.mark.parametrize(
    ("build", "action", "method", "named"),
    [
        pytest.param(
            start,
            "start_process",
            "start_process",
            r"Look for a process of diagram 'Event planning' \(id 1\) started by user 12",
            id="process",
        ),
        pytest.param(
            create,
            "create_task",
            "create_task",
            "Look for a task 'Look at it' for user 12, created by user 12",
            id="task",
        ),
    ],
)


def run(operator: Any, store: Any) -> dict[str, Any]:
    return operator.execute({"task_state_store": store, "ti": TI})


def created(emulator, action: str) -> list[dict]:
    return [effect for effect in emulator.effects() if effect["action"] == action]


def writes(emulator) -> list[dict]:
    return [request for request in emulator.requests() if request["method"] != "GET"]


def fault(emulator, **kind) -> None:
    emulator.control("POST", "faults", method="POST", path=ADDRESS, **kind)


# --- processes ---


@pytest.mark.sample(3)
@pytest.mark.parametrize("diagram", ["Event planning", "1", 1, " Event planning "])
@pytest.mark.parametrize("user", ["sam@example.com", "SAM@Example.com", "12", 12, " 12 "])
def test_a_process_is_started_by_title_or_id_for_an_address_or_id(emulator, store, diagram, user):
    result = run(start(diagram=diagram, on_behalf_of=user), store)

    (started,) = created(emulator, "start_process")
    assert result == {
        "process_instance_id": started["target"]["process_instance_id"],
        "title": "Event planning",
        "diagram_id": "1",
        "diagram": "Event planning",
        "on_behalf_of": "12",
    }
    (sent,) = writes(emulator)
    assert (sent["path"], sent["on_behalf_of"]) == ("/api/v2/workflows/start", "12")
    assert sent["body"] == {"TemplateId": 1, "Fields": {}}


def test_a_process_starts_with_exact_values_and_its_field_names(emulator, store):
    key = "field_4dc8a917_da0c_4cf7_a43e_064785e42785"
    moment = "field_cdb815a3_0c60_4cd6_88b2_ef3f9becddc7"
    fields = {key: Decimal("12345678901234.5678"), moment: datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)}

    run(start(fields=fields), store)

    (started,) = created(emulator, "start_process")
    assert started["detail"]["fields"] == {
        "Event duration": "12345678901234.5678",
        "Event start": '"2026-01-02T03:04:05Z"',
    }


def test_correlation_field_marks_the_starting_task(emulator, store):
    venue = "field_b7e6d1c0_1f2a_4c3b_8d4e_5f6a7b8c9d0e"
    operator = start(correlation_field=venue)

    run(operator, store)

    assert writes(emulator)[0]["body"]["Fields"] == {venue: "events/manual__2026/start/3"}


def test_unknown_outcome_of_a_start_names_its_correlation(emulator, store):
    fault(emulator, reset="after")

    with pytest.raises(AirflowFailException, match="started by user 12 with Venue = events/manual__2026/start/3"):
        run(start(correlation_field="Venue"), store)


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"fields": {"a": float("nan")}}, "'a' must be text, a finite number.*got float nan"),
        ({"fields": {"a": Decimal("Infinity")}}, "'a' must be text, a finite number.*got Decimal"),
        ({"fields": {"a": {"b": [datetime(2026, 1, 1)]}}}, "'a' must be .* a datetime with a time zone.*got datetime"),
        ({"fields": {"a": object()}}, "'a' must be .*got object"),
        ({"fields": "text"}, "fields must be a mapping"),
        ({"fields": ["a"]}, "fields must be a mapping"),
        ({"fields": {"": 1}}, "fields must be a mapping"),
        ({"diagram": ""}, "diagram is missing"),
        ({"diagram": "None"}, "diagram is missing"),
        ({"on_behalf_of": ""}, "on_behalf_of is missing"),
        ({"on_behalf_of": None}, "on_behalf_of is missing"),
        ({"correlation_field": ""}, "correlation_field is missing"),
        ({"correlation_field": "a", "fields": {"a": 1}}, "correlation_field 'a' is also in fields"),
    ],
)
def test_start_process_names_a_bad_parameter_before_sending(emulator, store, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        run(start(**parameters), store)
    assert (emulator.requests(), store) == ([], {})


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"title": ""}, "title is missing"),
        ({"title": " "}, "title is missing"),
        ({"title": None}, "title is missing"),
        ({"assigned_to": ""}, "assigned_to is missing"),
        ({"on_behalf_of": "None"}, "on_behalf_of is missing"),
    ],
)
def test_a_bad_parameter_of_a_task_is_named_before_sending(emulator, store, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        run(create(**parameters), store)
    assert (emulator.requests(), store) == ([], {})


@pytest.mark.parametrize(
    ("operator", "named"),
    [
        (start(diagram="Party"), r"diagram: there is no process diagram 'Party'.*'Event planning' \(id 1\)"),
        (start(on_behalf_of="unknown@example.com"), "on_behalf_of: no user has .*found: none"),
        (start(on_behalf_of="shared@example.com"), r"on_behalf_of: 2 users have .*\(id 16\).*\(id 17\). Give the id"),
        (create(assigned_to="shared@example.com"), r"assigned_to: 2 users have .*\(id 16\).*\(id 17\)"),
        (create(assigned_to="stewardson@"), "assigned_to: no user has .*sam.stewardson@example.com"),
    ],
)
def test_missing_or_ambiguous_names_list_candidates_create_nothing(emulator, store, operator, named):
    with pytest.raises(ConfigurationError, match=named):
        run(operator, store)
    assert (writes(emulator), store) == ([], {})


# --- tasks ---


@pytest.mark.parametrize(
    ("assigned_to", "assignee"),
    [(None, "12"), ("olga@example.com", "11"), ("OLGA@example.com", "11"), ("15", "15"), (15, "15")],
)
def test_a_task_is_created_for_a_person_or_for_its_creator(emulator, store, assigned_to, assignee):
    result = run(create(assigned_to=assigned_to, description="Why: …"), store)

    (task,) = created(emulator, "create_task")
    assert result == {
        "task_id": task["target"]["task_id"],
        "title": "Look at it",
        "on_behalf_of": "12",
        "assigned_to": assignee,
    }
    assert (task["by"], task["detail"]) == (
        "12",
        {"title": "Look at it", "description": "Why: …", "assigned_to": assignee},
    )


# --- once over all tries ---


@BOTH
def test_a_retry_after_success_requests_nothing(emulator, store, set_connection, build, action, method, named):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"item_url": "https://app.example/{title}"}
    set_connection("workflowsoft_default", connection)
    first = run(build(), store)
    count = len(emulator.requests())

    again = build()
    assert run(again, store) == first

    assert len(emulator.requests()) == count
    assert again.item_url == f"https://app.example/{first['title'].replace(' ', '%20')}"
    assert len(created(emulator, action)) == 1


@BOTH
@pytest.mark.parametrize(("moment", "made"), [("before", 0), ("after", 1)])
def test_lost_response_fails_without_retry_and_says_what_to_find(
    emulator, store, build, action, method, named, moment, made
):
    fault(emulator, reset=moment)

    for _ in range(3):
        with pytest.raises(AirflowFailException, match=f"OutcomeUnknown: .*{named}"):
            run(build(), store)

    assert (len(writes(emulator)), len(created(emulator, action))) == (1, made)


@BOTH
@pytest.mark.parametrize(("moment", "made"), [("before", 0), ("after", 1)])
def test_death_around_the_call_is_an_unknown_outcome_not_retried(
    emulator, store, dies, build, action, method, named, moment, made
):
    dies(WorkflowsoftHook, method, moment)
    with pytest.raises(Killed):
        run(build(), store)
    count = len(emulator.requests())

    with pytest.raises(AirflowFailException, match=f"An earlier try started at 20.*{named}"):
        run(build(), store)

    assert len(emulator.requests()) == count
    assert len(created(emulator, action)) == made


@BOTH
def test_death_before_the_journal_leaves_the_next_try_free(emulator, store, dies, build, action, method, named):
    dies(type(store), "set", "before")
    with pytest.raises(Killed):
        run(build(), store)

    run(build(), store)

    assert len(created(emulator, action)) == 1


@BOTH
def test_death_before_storing_the_result_creates_no_second_one(
    emulator, store, monkeypatch, build, action, method, named
):
    store_value = type(store).set

    def die_at_the_result(self, key, value, **more):
        if "result" in value:
            raise Killed
        store_value(self, key, value, **more)

    monkeypatch.setattr(type(store), "set", die_at_the_result)
    with pytest.raises(Killed):
        run(build(), store)

    with pytest.raises(AirflowFailException, match=named):
        run(build(), store)
    assert len(created(emulator, action)) == 1


@pytest.mark.sample(3)
@BOTH
@pytest.mark.parametrize(
    "unclear",
    [
        pytest.param({"status": 503}, id="503"),
        pytest.param({"status": 503, "headers": {"Retry-After": "1"}, "after": True}, id="503-wait"),
        pytest.param({"status": 302, "headers": {"Location": "/processes/7"}, "after": True}, id="redirect"),
        pytest.param({"status": 504, "after": True}, id="504-done"),
        pytest.param({"status": 302, "headers": {"Location": "/elsewhere"}}, id="302"),
        pytest.param({"status": 200, "after": True, "body": "<html></html>"}, id="html"),
        pytest.param({"status": 200, "after": True, "json": {}}, id="no-id"),
        pytest.param({"status": 200, "after": True, "body": ""}, id="empty"),
        pytest.param({"after": True, "truncate": 5}, id="truncated"),
    ],
)
def test_a_response_that_shows_nothing_fails_for_good(emulator, store, build, action, method, named, unclear):
    fault(emulator, **unclear)

    for _ in range(2):
        with pytest.raises(AirflowFailException, match=f"OutcomeUnknown: .*{named}") as doubt:
            run(build(), store)
        assert str(doubt.value).count("It is not sent again") == 1
    assert len(writes(emulator)) == 1


@BOTH
def test_unexpected_response_is_an_unknown_outcome(store, monkeypatch, build, action, method, named):
    def responds_unexpectedly(*args, **kwargs):
        raise UnexpectedResponse("The response is not JSON")

    monkeypatch.setattr(WorkflowsoftHook, method, responds_unexpectedly)

    with pytest.raises(AirflowFailException, match=f"OutcomeUnknown: .*not JSON.*{named}"):
        run(build(), store)


@BOTH
@pytest.mark.parametrize("after", [False, True])
def test_a_500_shows_the_servers_message_and_is_not_retried(emulator, store, build, action, method, named, after):
    fault(emulator, status=500, json={"ExceptionMessage": "Out of order"}, after=after)

    with pytest.raises(AirflowFailException, match=f"ServerError: .*Out of order.*{named[1:]}"):
        run(build(), store)
    with pytest.raises(AirflowFailException, match=named):
        run(build(), store)
    assert len(writes(emulator)) == 1


@pytest.mark.sample(3)
@BOTH
@pytest.mark.parametrize(
    ("rejection", "error"),
    [
        pytest.param({"status": 400, "json": {"Message": "Not now"}}, InvalidRequest, id="400"),
        pytest.param({"status": 401, "times": 2}, AuthenticationError, id="401"),
        pytest.param({"status": 403}, PermissionDenied, id="403"),
        pytest.param({"status": 404}, NotFound, id="404"),
        pytest.param({"status": 429, "headers": {"Retry-After": "9999"}}, RateLimited, id="429"),
    ],
)
def test_a_rejected_creation_is_made_by_the_next_try(emulator, store, build, action, method, named, rejection, error):
    fault(emulator, **rejection)
    with pytest.raises(error):
        run(build(), store)
    assert created(emulator, action) == []

    run(build(), store)
    assert len(created(emulator, action)) == 1


@BOTH
def test_what_was_never_sent_is_created_by_the_next_try(emulator, store, monkeypatch, build, action, method, named):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = f"http://127.0.0.1:{listener.getsockname()[1]}"
    operator = build()
    really = getattr(WorkflowsoftHook, method)

    def to_nowhere(hook: WorkflowsoftHook, *args: Any, **kwargs: Any) -> Any:
        hook.client.base_url, hook.client._auth, hook.client._session.auth = nowhere, None, lambda request: request
        hook.client._sleep = lambda seconds: None
        return really(hook, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(WorkflowsoftHook, method, to_nowhere)
        with pytest.raises(ConnectionFailed):
            run(operator, store)

    run(build(), store)
    assert len(created(emulator, action)) == 1


@BOTH
def test_a_user_unfit_for_a_header_is_not_an_unknown_outcome(emulator, store, build, action, method, named):
    with pytest.raises(ConfigurationError, match="X-OnBehalfOf-Id cannot be sent"):
        run(build(on_behalf_of="Stéward"), store)

    run(build(), store)
    assert len(created(emulator, action)) == 1


@BOTH
def test_a_failed_sign_in_is_not_an_unknown_outcome(emulator, store, build, action, method, named):
    TokenAuth._shared.clear()
    emulator.control("PATCH", "flags", ws_token_shape="login_page")
    with pytest.raises(AuthenticationError):
        run(build(on_behalf_of="12"), store)
    emulator.control("PATCH", "flags", ws_token_shape="json_string")

    run(build(on_behalf_of="12"), store)
    assert len(created(emulator, action)) == 1


@BOTH
def test_without_a_store_retries_are_rejected_and_none_is_fine(emulator, build, action, method, named):
    retried = build()
    retried.retries = 1  # as of a mapped task, which an Airflow before 3.3 does not make 0
    with pytest.raises(ConfigurationError, match="retries must be 0 before Airflow 3.3"):
        retried.execute({"ti": TI})
    assert emulator.requests() == []

    build(retries=0).execute({"ti": TI})
    assert len(created(emulator, action)) == 1


# --- lists ---


def test_diagrams_are_listed_all_or_those_that_the_search_finds():
    assert {"id": "1", "title": "Event planning"} in listing(kind="diagrams")
    assert listing(kind="diagrams", search="vendor") == [{"id": "2", "title": "Vendor onboarding"}]
    assert listing(kind="diagrams", search="nothing like it") == []


@pytest.mark.parametrize("diagram", ["Event planning", "1", 1])
def test_the_integration_steps_of_a_diagram_are_listed_with_it(diagram):
    place = {"diagram_id": "1", "diagram": "Event planning"}

    assert listing(kind="steps", diagram=diagram) == [
        {"id": "101", "title": "Check event", **place},
        {"id": "102", "title": "Publish event", **place},
    ]


def test_users_are_listed_by_a_search():
    assert listing(kind="users", search="Olga") == [
        {"id": "11", "full_name": "Olga Owner", "email": "olga@example.com"},
        {"id": "14", "full_name": "Olga Owner", "email": "olga.owner@example.com"},
    ]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"kind": "processes"}, "kind must be one of diagrams, steps, users; got 'processes'"),
        ({"kind": ""}, "kind must be one of"),
        ({"kind": "diagrams", "diagram": "1"}, "diagram cannot be used with kind='diagrams'"),
        ({"kind": "users", "diagram": "1", "search": "x"}, "diagram cannot be used with kind='users'"),
        ({"kind": "steps", "diagram": "1", "search": "x"}, "search cannot be used with kind='steps'"),
        ({"kind": "steps"}, "diagram is missing"),
        ({"kind": "users"}, "search is missing"),
        ({"kind": "users", "search": " "}, "search is missing"),
        ({"kind": "diagrams", "search": "None"}, "search is missing"),
    ],
)
def test_a_bad_combination_is_named_before_anything_is_sent(emulator, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        listing(**parameters)
    assert emulator.requests() == []


def test_steps_of_a_diagram_that_is_not_there_list_the_diagrams():
    with pytest.raises(ConfigurationError, match="no process diagram 'Party'. Candidates: 'Event planning'"):
        listing(kind="steps", diagram="Party")


def test_a_listed_row_is_what_a_mapped_task_takes(emulator, store):
    for row in listing(kind="diagrams", search="e")[:2]:
        WorkflowsoftStartProcessOperator.partial(task_id="start", on_behalf_of="12").expand(diagram=[row["id"]])
        assert set(map(type, row.values())) == {str}


@pytest.mark.parametrize("fields", ["", [], "None"])
def test_fields_that_are_not_a_mapping_are_named_before_sending(emulator, store, fields):
    with pytest.raises(ConfigurationError, match="fields must be a mapping"):
        run(start(fields=fields), store)
    assert emulator.requests() == []


# --- before Airflow 3.3 ---


@pytest.mark.parametrize("build", [start, create])
def test_without_a_store_in_this_airflow_the_task_is_not_retried(emulator, monkeypatch, build):
    monkeypatch.setattr("airflow_provider_workflows.operators.base.HAS_TASK_STATE_STORE", False)

    operator = build(retries=2)

    assert operator.retries == 0
    operator.execute({"ti": SimpleNamespace(**vars(TI), max_tries=0)})
    assert len(writes(emulator)) == 1


@pytest.mark.parametrize("build", [start, create])
def test_mapped_task_with_retries_is_rejected(emulator, monkeypatch, build):
    monkeypatch.setattr("airflow_provider_workflows.operators.base.HAS_TASK_STATE_STORE", False)

    with pytest.raises(ConfigurationError, match="retries must be 0"):
        build(retries=2).execute({"ti": SimpleNamespace(**vars(TI), max_tries=2)})
    assert emulator.requests() == []


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"on_behalf_of": "Olga Owner"}, "on_behalf_of must be an e-mail address or an id, not a name"),
    ],
)
def test_certain_mistakes_are_named_before_sending(emulator, store, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        run(start(**parameters), store)
    assert writes(emulator) == []


def test_only_a_template_that_rendered_to_nothing_is_a_mistake(emulator, store):
    templated = start(fields={"Event name": "{{ params.name }}"})
    templated.fields = {"Event name": "None"}  # as Airflow renders it
    with pytest.raises(ConfigurationError, match="'Event name' was rendered as the text 'None'"):
        run(templated, store)
    assert writes(emulator) == []

    run(start(fields={"Event name": "None"}), store)
    assert created(emulator, "start_process")[0]["detail"]["fields"] == {"Event name": '"None"'}


# --- after a clear, and in the log ---


def warnings(capsys) -> list[str]:
    """Return the warnings of the operators since the last call; Airflow warns of each direct execution."""
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if "[warning" in line and "outside of the Task Runner" not in line]


def cleared(operator: Any, store: Any, number: int) -> dict[str, Any]:
    """Execute as the task that was cleared so many times, which raises its tries."""
    ti = SimpleNamespace(**vars(TI), max_tries=number)
    return operator.execute({"task_state_store": store, "ti": ti})


@BOTH
def test_a_cleared_task_names_what_it_created_before(emulator, store, build, action, method, named, capsys):
    first = cleared(build(), store, 0)
    cleared(build(), store, 0)  # a retry
    assert warnings(capsys) == []

    second = cleared(build(), store, 1)

    ids = [next(iter(result.values())) for result in (first, second)]
    assert ids[0] != ids[1]
    assert len(created(emulator, action)) == 2
    (line,) = warnings(capsys)
    assert f" {ids[0]} " in line


@BOTH
def test_a_cleared_task_says_that_it_may_have_created_one(emulator, store, build, action, method, named, capsys, dies):
    dies(WorkflowsoftHook, method, "after")
    with pytest.raises(Killed):
        cleared(build(), store, 0)

    cleared(build(), store, 1)

    (line,) = warnings(capsys)
    assert named.removeprefix("Look for ").replace("\\", "") in line
    assert len(created(emulator, action)) == 2


@BOTH
def test_a_rejected_creation_is_nothing_to_warn_of(emulator, store, build, action, method, named, capsys):
    fault(emulator, status=403)
    with pytest.raises(PermissionDenied):
        cleared(build(), store, 0)

    cleared(build(), store, 1)
    assert warnings(capsys) == []


@BOTH
def test_what_was_created_is_one_line_in_the_log(emulator, store, build, action, method, named, capsys):
    made = next(iter(run(build(), store).values()))

    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if "[info" in line and ("Started" in line or "Created" in line)]
    assert (f" {made} " in line, "user 12" in line) == (True, True)


@BOTH
def test_a_response_that_says_it_failed_created_nothing(emulator, store, build, action, method, named):
    fault(emulator, status=200, json={"Success": False, "Message": "Not today"})

    with pytest.raises(InvalidRequest, match="Not today"):
        run(build(), store)
    run(build(), store)
    assert len(created(emulator, action)) == 1


@BOTH
def test_a_mapped_task_is_not_retried_without_a_store(monkeypatch, build, action, method, named):
    monkeypatch.setattr("airflow_provider_workflows.operators.base.HAS_TASK_STATE_STORE", False)
    cls, varied = {
        "start_process": (WorkflowsoftStartProcessOperator, {"diagram": ["1", "2"]}),
        "create_task": (WorkflowsoftCreateTaskOperator, {"title": ["A", "B"]}),
    }[action]

    with DAG("any", schedule=None, default_args={"retries": 2}):
        assert cls.partial(task_id="one", on_behalf_of="12").expand(**varied).retries == 0
        assert cls.partial(task_id="two", on_behalf_of="12", retries=3).expand(**varied).retries == 0


# --- files, and what else a server may do otherwise ---


def test_files_are_sent_as_they_are(emulator, store):
    files = [{"Name": "a.txt", "Content": "aGVsbG8="}]

    run(create(files=files), store)
    run(create(task_id="other"), type(store)())

    first, second = (write["body"] for write in writes(emulator))
    assert (first["Files"], "Files" in second) == (files, False)
    with pytest.raises(ConfigurationError, match="'files' must be"):
        run(create(files={1, 2}), type(store)())


@pytest.mark.parametrize("files", ["accepted", "rejected"])
def test_files_that_the_server_rejects_are_an_error(emulator, store, files):
    emulator.control("PATCH", "flags", ws_files=files)

    if files == "accepted":
        run(create(files=[7]), store)
    else:
        with pytest.raises(InvalidRequest, match="Files are not"):
            run(create(files=[7]), store)
    assert len(created(emulator, "create_task")) == (files == "accepted")


@pytest.mark.parametrize(
    ("named_by", "works"),
    [("label_or_key", "label key"), ("label", "label"), ("key", "key")],
)
def test_the_fields_of_a_new_process_are_named_as_given(emulator, store, named_by, works):
    emulator.control("PATCH", "flags", ws_start_fields=named_by)
    names = {"label": "Event name", "key": "field_9aae87b4_2b01_43eb_be17_d0080a225f54"}

    for kind, name in names.items():
        operator = start(fields={name: "x"})
        if kind in works.split():
            run(operator, type(store)())
        else:
            with pytest.raises(InvalidRequest, match="does not exist"):
                run(operator, type(store)())
    assert len(created(emulator, "start_process")) == len(works.split())


@pytest.mark.parametrize("ids", ["numbers", "texts"])
def test_ids_may_be_texts(emulator, store, ids):
    emulator.control("PATCH", "flags", ws_ids=ids)

    started = run(start(), store)
    task = run(create(assigned_to="olga@example.com"), type(store)())
    assert (started["diagram_id"], task["assigned_to"]) == ("1", "11")
    assert {type(value) for value in (started["process_instance_id"], task["task_id"])} == {str}


def test_a_search_for_users_takes_a_limit():
    assert len(listing(kind="users", search="example.com", limit=2)) == 2
    assert len(listing(kind="users", search="example.com", limit=" 3 ")) == 3
    assert len(listing(kind="users", search="example.com")) == 7


@pytest.mark.parametrize("limit", ["", "None", 0, -1, "many", 2.5])
def test_a_limit_that_cannot_be_is_named(emulator, limit):
    with pytest.raises(ConfigurationError, match="limit"):
        listing(kind="users", search="example.com", limit=limit)
    with pytest.raises(ConfigurationError, match="limit cannot be used with kind='diagrams'"):
        listing(kind="diagrams", limit=5)
    assert emulator.requests() == []
