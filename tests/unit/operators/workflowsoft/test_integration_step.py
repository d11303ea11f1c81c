"""Fields and completion: what is written is written once, exactly, and as requested."""

from __future__ import annotations

import importlib
import random
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG

from airflow_provider_workflows.decorators.workflowsoft import workflowsoft_integration
from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
    UnexpectedResponse,
)
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCompleteIntegrationOperator,
    WorkflowsoftGetFieldsOperator,
    WorkflowsoftUpdateFieldsOperator,
)
from tests.support.killed import Killed
from tests.unit.rules.test_workflowsoft_fields import any_decimal, any_moment

pytestmark = pytest.mark.usefixtures("airflow_connections")

EXACT = "12345678901234.5678"
WRITE = "/instances/variables$"
COMPLETE = "/action$"


@pytest.fixture
def instance_id(emulator) -> str:
    return str(emulator.control("POST", "workflowsoft/processes", diagram="Event planning")["integration_instance_id"])


@pytest.fixture
def ready_id(emulator, instance_id) -> str:
    """An instance whose required field is filled."""
    update(instance_id, {"Venue": "Main hall"}).execute({})
    return instance_id


def get(instance_id: str) -> dict:
    return WorkflowsoftGetFieldsOperator(task_id="get", integration_instance_id=instance_id).execute({})


def update(instance_id: str, fields: dict, **parameters) -> WorkflowsoftUpdateFieldsOperator:
    return WorkflowsoftUpdateFieldsOperator(
        task_id="update",
        integration_instance_id=instance_id,
        fields=fields,
        **{"confirm_timeout": 0.0, **parameters},
    )


def complete(instance_id: str, **parameters) -> WorkflowsoftCompleteIntegrationOperator:
    return WorkflowsoftCompleteIntegrationOperator(
        task_id="complete", integration_instance_id=instance_id, **{"confirm_timeout": 0.0, **parameters}
    )


def effects(emulator, action: str) -> list[dict]:
    return [e["detail"] for e in emulator.effects() if (e["product"], e["action"]) == ("workflowsoft", action)]


def sent(emulator, method: str) -> int:
    return sum(request["method"] == method for request in emulator.requests())


def fault(emulator, method: str, path: str, **kind) -> None:
    emulator.control("POST", "faults", method=method, path=path, **kind)


# --- reading ---


def test_fields_come_by_label_in_json_primitives(instance_id):
    assert get(instance_id) == {
        "Event name": "Event Test",
        "Event exists": True,
        "Event start": "2021-08-24T21:00:00Z",
        "Event duration": "1640.0",
        "Requested by": "Olga Owner",
        "Venue": None,
    }


def test_every_type_of_field_is_read(emulator):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Vendor onboarding")

    fields = get(started["integration_instance_id"])

    assert fields["Location"] == {"lat": 1.5, "lon": 2}
    assert fields["Vendor number"] is None


def test_an_instance_that_is_not_there_is_not_found(emulator):
    with pytest.raises(NotFound):
        get("999")


@pytest.mark.parametrize("empty", ["", "None", None])
def test_an_empty_instance_id_is_named_before_anything_is_sent(emulator, empty):
    for operator in (update(empty, {"Venue": "x"}), complete(empty)):
        with pytest.raises(ConfigurationError, match="integration_instance_id"):
            operator.execute({})
    assert emulator.requests() == []


def test_the_link_is_made_of_the_instance(emulator, instance_id, set_connection):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"item_url": "https://app.example/task/{integration_instance_id}"}
    set_connection("workflowsoft_default", connection)
    operator = WorkflowsoftGetFieldsOperator(task_id="get", integration_instance_id=instance_id)

    operator.execute({})

    assert operator.operator_extra_links[0].get_link(operator, ti_key=None).endswith(f"/task/{instance_id}")


# --- writing ---


def test_only_changed_fields_are_written_and_exactly(emulator, instance_id):
    everything = get(instance_id)

    result = update(instance_id, {**everything, "Event duration": EXACT, "Venue": "Main hall"}).execute({})

    assert effects(emulator, "write_fields") == [
        {"fields": {"Event duration": EXACT, "Venue": '"Main hall"'}},
    ]
    assert result["integration_instance_id"] == instance_id
    assert result["written"] == ["Event duration", "Venue"]
    assert "Requested by" in result["unchanged"]
    assert get(instance_id)["Event duration"] == EXACT
    (duration,) = [f.value for f in WorkflowsoftHook().get_fields(instance_id) if f.label == "Event duration"]
    assert duration == Decimal(EXACT)


def test_a_retried_update_sends_nothing(emulator, instance_id):
    update(instance_id, {"Venue": "Main hall"}).execute({})
    again = update(instance_id, {"Venue": "Main hall"}).execute({})

    assert again["unchanged"] == ["Venue"]
    assert sent(emulator, "POST") == 1


@pytest.mark.parametrize(("moment", "times"), [("before", 2), ("after", 1)])
def test_a_lost_response_to_an_update_is_reconciled_by_reading(emulator, instance_id, moment, times):
    fault(emulator, "POST", WRITE, reset=moment)

    assert update(instance_id, {"Venue": "Main hall"}).execute({})["written"] == ["Venue"]

    assert sent(emulator, "POST") == times
    assert len(effects(emulator, "write_fields")) == 1


def test_values_that_were_lost_twice_are_an_unknown_outcome(emulator, instance_id, store):
    fault(emulator, "POST", WRITE, reset="before", times=2)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})
    assert (sent(emulator, "POST"), effects(emulator, "write_fields")) == (2, [])


def test_values_of_another_writer_are_not_overwritten(emulator, instance_id, monkeypatch):
    fault(emulator, "POST", WRITE, reset="before")
    read, seen = WorkflowsoftHook.get_fields, []

    def meanwhile(hook, *args):
        fields = read(hook, *args)
        seen.append(fields)
        return (
            fields
            if len(seen) == 1
            else [type(f)(**{**vars(f), **({"value": "Garden"} if f.label == "Venue" else {})}) for f in fields]
        )

    monkeypatch.setattr(WorkflowsoftHook, "get_fields", meanwhile)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        update(instance_id, {"Venue": "Main hall"}).execute({})
    assert sent(emulator, "POST") == 1


# --- servers that write otherwise ---


@pytest.fixture(params=["update", "decorator"])
def writes(request):
    """Return a function that writes fields, and what it does it with."""

    def by_operator(instance_id: str, values: dict, store=None, **options):
        return update(instance_id, values, **options).execute({"task_state_store": store} if store is not None else {})

    def by_decorator(instance_id: str, values: dict, store=None, **options):
        with DAG("any", schedule=None):
            fixed = {"task_id": "decide", "confirm_timeout": 0.0, **options}
            built = workflowsoft_integration(lambda fields: values, **fixed)(instance_id).operator
        return built.execute({"task_state_store": store} if store is not None else {})

    return by_operator if request.param == "update" else by_decorator


def test_a_write_that_empties_other_fields_fails_for_good(emulator, instance_id, writes, store):
    emulator.control("PATCH", "flags", ws_write="replace")

    for _ in range(2):  # a retry does not take it for done
        with pytest.raises(AirflowFailException, match="'Event name'"):
            writes(instance_id, {"Venue": "Main hall"}, store)
    assert (sent(emulator, "POST"), effects(emulator, "complete")) == (1, [])


def test_a_write_that_empties_others_is_found_by_the_retry(emulator, instance_id, writes, store, dies):
    emulator.control("PATCH", "flags", ws_write="replace")
    dies(WorkflowsoftHook, "update_fields", "after")
    with pytest.raises(Killed):
        writes(instance_id, {"Venue": "Main hall"}, store)

    with pytest.raises(AirflowFailException, match="'Event name'"):
        writes(instance_id, {"Venue": "Main hall"}, store)
    assert effects(emulator, "complete") == []


def test_a_field_that_a_person_edits_meanwhile_is_logged(emulator, instance_id, writes, store, monkeypatch, caplog):
    send = WorkflowsoftHook.update_fields

    def send_beside_a_person(hook, *args, **kwargs) -> None:
        send(hook, *args, **kwargs)
        name = next(field for field in hook.get_fields(instance_id) if field.label == "Event name")
        send(hook, instance_id, {name.key: "By a person"})

    monkeypatch.setattr(WorkflowsoftHook, "update_fields", send_beside_a_person)

    assert writes(instance_id, {"Venue": "Main hall"}, store)["written"] == ["Venue"]
    assert "before 'Event Test', now 'By a person'" in caplog.text


TIDIED = {
    "trim": ("Event name", " two words ", '"two words"'),
    "crlf": ("Event name", "two\nlines", '"two\\r\\nlines"'),
    "round": ("Event duration", "12.345", "12.35"),
    "minutes": ("Event start", "2026-03-01T08:30:45Z", '"2026-03-01T08:30:00Z"'),
}


@pytest.mark.sample(3)
@pytest.mark.parametrize("way", TIDIED)
def test_normalized_value_is_reported_or_accepted(emulator, ready_id, writes, way, caplog):
    label, value, shown = TIDIED[way]
    emulator.control("PATCH", "flags", ws_normalise=way)

    with pytest.raises(UnexpectedResponse, match=f"'{label}'.*normalized") as error:
        writes(ready_id, {label: value})
    assert value[:3].strip() in str(error.value)
    assert effects(emulator, "complete") == []

    writes(ready_id, {label: value}, verify="normalized")

    assert effects(emulator, "write_fields")[-1] == {"fields": {label: shown}}
    assert f"field '{label}'" in caplog.text


def test_normalized_does_not_mean_that_other_fields_may_change(emulator, instance_id, writes):
    emulator.control("PATCH", "flags", ws_write="replace")

    with pytest.raises(AirflowFailException, match="'Event name'"):
        writes(instance_id, {"Venue": "Main hall"}, verify="normalized")


def test_there_are_two_ways_to_verify(emulator, writes):
    with pytest.raises(ConfigurationError, match="verify must be one of exact, normalized; got 'off'"):
        writes("1", {"Venue": "x"}, verify="off")
    assert emulator.requests() == []


@pytest.mark.parametrize("response", ["204", "200_text", "200_object"])
def test_change_is_done_once_with_each_response_format(emulator, instance_id, response):
    emulator.control("PATCH", "flags", ws_write_response=response)

    update(instance_id, {"Venue": "Main hall"}).execute({})
    assert not complete(instance_id).execute({})["already_completed"]
    assert (len(effects(emulator, "write_fields")), len(effects(emulator, "complete"))) == (1, 1)


@pytest.mark.parametrize("status", ["400", "500", "200"])
def test_rejection_with_any_status_is_not_a_completion(emulator, ready_id, store, status):
    emulator.control("PATCH", "flags", ws_error_status=status)
    expected = AirflowFailException if status == "500" else InvalidRequest

    with pytest.raises(expected, match="'Nonsense' is unknown"):
        complete(ready_id, custom_action="Nonsense").execute({"task_state_store": store})
    assert effects(emulator, "complete") == []


@pytest.mark.parametrize("status", ["400", "500", "200"])
def test_rejected_write_with_any_status_is_an_error(emulator, ready_id, store, status, monkeypatch):
    emulator.control("PATCH", "flags", ws_error_status=status)
    read = WorkflowsoftHook.get_fields
    monkeypatch.setattr(
        WorkflowsoftHook,
        "get_fields",
        lambda *args: [type(f)(**{**vars(f), "is_readonly": False}) for f in read(*args)],
    )

    with pytest.raises(ServerError if status == "500" else InvalidRequest, match="'Requested by' is read-only"):
        update(ready_id, {"Requested by": "x"}).execute({"task_state_store": store})


@pytest.mark.parametrize("needed", ["not_needed", "needed"])
def test_fields_are_read_whether_or_not_that_needs_a_user(emulator, instance_id, needed):
    emulator.control("PATCH", "flags", ws_read_on_behalf=needed)

    assert get(instance_id)["Event name"] == "Event Test"


# --- fields that cannot be read ---


def test_one_malformed_field_leaves_the_others_to_be_handled(emulator, instance_id, capsys):
    emulator.control("PATCH", "flags", ws_value_format="object")

    fields = get(instance_id)
    assert ("Event name" not in fields, fields["Event exists"]) == (True, True)
    assert "'Event name'" in capsys.readouterr().out
    assert update(instance_id, {"Venue": "Main hall"}).execute({})["written"] == ["Venue"]
    complete(instance_id, expected_fields={"Venue": "String"}).execute({})
    assert len(effects(emulator, "complete")) == 1


def test_a_malformed_field_fails_where_it_is_used(emulator, instance_id, store):
    emulator.control("PATCH", "flags", ws_value_format="object")

    with pytest.raises(ConfigurationError, match="'Event name'"):
        WorkflowsoftGetFieldsOperator(
            task_id="get", integration_instance_id=instance_id, expected_fields={"Event name": "String"}
        ).execute({})


@pytest.mark.parametrize("form", ["documented", "texts", "comma", "parsed"])
def test_values_are_read_in_every_format_with_one_reading(emulator, form):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    emulator.control("PATCH", "flags", ws_value_format=form)

    fields = get(started["integration_instance_id"])

    amount = "12345678901234.568" if form == "parsed" else EXACT  # the emulator's own JSON has no more digits
    assert (fields["Text"], fields["Flag"], fields["Amount"]) == ("Plain text", False, amount)
    assert (fields["Small number"], fields["Single"]) == (7, 0.5)
    assert (fields["Large number"], fields["Moment"]) == (9007199254740993, "2026-03-01T08:30:00Z")


@pytest.mark.parametrize("form", ["utc", "offset", "no_zone", "slash_date", "epoch"])
def test_times_are_read_in_every_format_and_written_in_one(emulator, form):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    instance_id = started["integration_instance_id"]
    emulator.control("PATCH", "flags", ws_times=form)
    assert get(instance_id)["Moment"] == "2026-03-01T08:30:00Z"

    update(instance_id, {"Moment": "2026-03-02T10:30:00+02:00"}).execute({})

    assert effects(emulator, "write_fields") == [{"fields": {"Moment": '"2026-03-02T08:30:00Z"'}}]
    assert get(instance_id)["Moment"] == "2026-03-02T08:30:00Z"


@pytest.mark.parametrize("empty", ["as_written", "json_null", "null_text", "empty_text", "absent"])
def test_an_empty_value_is_none_however_it_is_shown(emulator, empty):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    emulator.control("PATCH", "flags", ws_empty_value=empty)

    assert get(started["integration_instance_id"])["Flag or none"] is None
    emptied = update(started["integration_instance_id"], {"Number": 5, "Flag or none": None}).execute({})
    assert (emptied["written"], emptied["unchanged"]) == (["Number"], ["Flag or none"])
    assert update(started["integration_instance_id"], {"Number": None}).execute({})["written"] == ["Number"]


@pytest.mark.parametrize("names", ["as_documented", "lower_case", "system"])
def test_types_are_known_by_all_their_names(emulator, instance_id, names):
    emulator.control("PATCH", "flags", ws_type_names=names)

    WorkflowsoftGetFieldsOperator(
        task_id="get", integration_instance_id=instance_id, expected_fields={"Event duration": "Decimal?"}
    ).execute({})
    assert update(instance_id, {"Event duration": "12.50"}).execute({})["written"] == ["Event duration"]


@pytest.mark.parametrize("labels", ["as_drawn", "trailing_blank", "repeated"])
def test_a_label_need_not_be_unique_or_without_blanks(emulator, instance_id, labels):
    emulator.control("PATCH", "flags", ws_labels=labels)

    assert update(instance_id, {"Venue": "Main hall"}).execute({})["written"] == ["Venue"]
    if labels == "repeated":
        with pytest.raises(ConfigurationError, match="2 fields have the label 'Event name'"):
            update(instance_id, {"Event name": "x"}).execute({})
    else:
        update(instance_id, {"Event name": "x"}).execute({})


def test_fields_are_returned_without_blanks_around_labels(emulator, instance_id):
    emulator.control("PATCH", "flags", ws_labels="trailing_blank")

    assert get(instance_id)["Event name"] == "Event Test"


@pytest.mark.parametrize("shape", ["texts", "id_value", "id_title", "id_name", "unknown"])
def test_option_is_written_by_its_label(emulator, shape):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    emulator.control("PATCH", "flags", ws_options_shape=shape)

    assert update(started["integration_instance_id"], {"Choice": "High"}).execute({})["written"] == ["Choice"]
    if shape != "unknown":
        with pytest.raises(ConfigurationError, match="must be one of"):
            update(started["integration_instance_id"], {"Choice": "Highest"}).execute({})


@pytest.mark.parametrize(("takes", "value"), [("text", "High"), ("id", "3")])
def test_an_option_is_written_by_what_the_api_calls_it(emulator, takes, value):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    emulator.control("PATCH", "flags", ws_options_shape="id_title", ws_option_value=takes)

    assert update(started["integration_instance_id"], {"Choice": value}).execute({})["written"] == ["Choice"]


@pytest.mark.parametrize(("counts", "completed"), [("null_or_text", 1), ("also_zero_and_false", 0)])
def test_a_required_zero_is_left_to_the_server(emulator, counts, completed, monkeypatch):
    definition = "airflow_provider_workflows.emulator.workflowsoft.diagrams"
    steps = importlib.import_module(definition).DIAGRAMS[5].steps[0]
    number = next(field for field in steps.fields if field.label == "Number")
    monkeypatch.setitem(vars(number), "required", True)
    emulator.control("PATCH", "flags", ws_empty_required=counts)
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    update(started["integration_instance_id"], {"Number": 0}).execute({})

    if completed:
        complete(started["integration_instance_id"]).execute({})
    else:
        with pytest.raises(InvalidRequest, match="Required fields are empty: Number"):
            complete(started["integration_instance_id"]).execute({})
    assert len(effects(emulator, "complete")) == completed


@pytest.mark.parametrize("known", ["named", "auto_only"])
def test_a_custom_action_is_sent_as_it_is(emulator, ready_id, known, store):
    emulator.control("PATCH", "flags", ws_custom_actions=known)
    operator = complete(ready_id, custom_action="Reject")

    if known == "named":
        assert operator.execute({"task_state_store": store})["custom_action"] == "Reject"
    else:
        with pytest.raises(InvalidRequest, match="'Reject' is unknown"):
            operator.execute({"task_state_store": store})
        complete(ready_id).execute({"task_state_store": store})
    assert len(effects(emulator, "complete")) == 1


# --- what the log says ---


def test_each_effect_has_one_line(emulator, instance_id, store, caplog):
    caplog.set_level("INFO")
    update(instance_id, {"Venue": "Whispering"}).execute({"task_state_store": store})
    complete(instance_id).execute({"task_state_store": store})

    messages = [
        r.getMessage() for r in caplog.records if r.levelname == "INFO" and f"instance {instance_id} " in r.message
    ]
    assert [line.split()[0] for line in messages] == ["Wrote", "Completed"]
    assert all("as user system" in line for line in messages)
    assert "Whispering" not in caplog.text


def test_a_success_without_a_write_says_why(emulator, ready_id, store, caplog):
    caplog.set_level("INFO")
    update(ready_id, {"Venue": "Main hall"}).execute({"task_state_store": store})
    complete(ready_id).execute({"task_state_store": store})
    caplog.clear()

    update(ready_id, {"Venue": "Main hall"}).execute({})
    complete(ready_id).execute({"task_state_store": store})
    assert caplog.text.count("Nothing is sent") == 2


# --- values that resemble a template's ---


def test_the_text_none_is_a_text_like_any_other(emulator, instance_id):
    assert update(instance_id, {"Venue": "None"}).execute({})["written"] == ["Venue"]
    assert get(instance_id)["Venue"] == "None"


def test_value_shown_differently_after_the_write_names_the_field(emulator, instance_id):
    fault(emulator, "POST", WRITE, status=204)

    with pytest.raises(UnexpectedResponse, match="shows others in: 'Venue'"):
        update(instance_id, {"Venue": "Main hall"}).execute({})


def test_a_value_that_shows_late_is_waited_for(emulator, instance_id, monkeypatch):
    update(instance_id, {"Venue": "Main hall"}).execute({})
    read = WorkflowsoftHook.get_fields
    late = [read(WorkflowsoftHook(), instance_id) for _ in range(2)]
    monkeypatch.setattr(WorkflowsoftHook, "get_fields", lambda *args: late.pop() if late else read(*args))

    update(instance_id, {"Venue": "Garden"}, confirm_timeout=10).execute({})

    assert get(instance_id)["Venue"] == "Garden"


@pytest.mark.parametrize("status", ["400", "500"])
def test_the_servers_message_is_shown_when_it_rejects(emulator, ready_id, status):
    emulator.control("PATCH", "flags", ws_error_status=status)
    complete(ready_id).execute({})

    with pytest.raises(Exception, match="already completed"):
        update(ready_id, {"Venue": "Garden"}).execute({})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "must not be empty"),
        (None, "must be a mapping"),
        ("Venue", "must be a mapping"),
        ({"Venu": "x"}, "no field 'Venu'. Candidates: 'Event name'"),
        ({"Requested by": "me"}, "read-only in Workflowsoft: 'Requested by'"),
        ({"Event exists": "yes"}, "'Event exists' .* must be True or False; got str"),
        ({"Event start": "2021-08-24T21:00:00"}, "'Event start' .* with a time zone"),
        ({"Event duration": 0.5}, "'Event duration' .*a float is not exact"),
    ],
)
def test_a_bad_value_is_named_before_anything_is_written(emulator, instance_id, fields, named):
    with pytest.raises(ConfigurationError, match=named):
        update(instance_id, fields).execute({})
    assert sent(emulator, "POST") == 0


def test_every_type_of_field_is_written_as_the_server_takes_it(emulator):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Vendor onboarding")
    instance_id = str(started["integration_instance_id"])
    values = {
        "Vendor": "Other Supplies",
        "Vendor number": 7,
        "Rating": "B",
        "External id": "9aae87b4-2b01-43eb-be17-d0080a225f54",
        "Valid until": "2027-01-31",
        "Score": 0.5,
        "Location": {"lat": 2},
    }

    update(instance_id, values, allow_unknown_types=True).execute({})

    assert get(instance_id) == values
    with pytest.raises(ConfigurationError, match="must be one of 'A', 'B', 'C'"):
        update(instance_id, {"Rating": "D"}).execute({})


def test_options_of_an_unexpected_format_are_logged_unchecked(instance_id, monkeypatch, caplog):
    read = WorkflowsoftHook.get_fields

    def with_malformed_options(hook, *args):
        return [type(f)(**{**vars(f), "options": [{"Colour": "A"}]}) for f in read(hook, *args)]

    monkeypatch.setattr(WorkflowsoftHook, "get_fields", with_malformed_options)
    update(instance_id, {"Venue": "Garden"}).execute({})

    assert caplog.text.count("options of field 'Venue'") == 1


# --- writing over kills and lost responses ---


@pytest.mark.parametrize("name", ["set", "update_fields"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_retry_after_a_kill_writes_the_stored_values(emulator, instance_id, store, dies, name, moment):
    dies(type(store) if name == "set" else WorkflowsoftHook, name, moment)
    first, other = {"Venue": "Main hall", "Event duration": EXACT}, {"Venue": "Garden", "Event duration": "1"}
    with pytest.raises(Killed):
        update(instance_id, first).execute({"task_state_store": store})

    result = update(instance_id, other).execute({"task_state_store": store})

    undecided = (name, moment) == ("set", "before")
    venue, duration = other.values() if undecided else first.values()
    assert effects(emulator, "write_fields") == [{"fields": {"Venue": f'"{venue}"', "Event duration": duration}}]
    assert result == {"integration_instance_id": instance_id, "written": ["Venue", "Event duration"], "unchanged": []}
    assert (get(instance_id)["Venue"], get(instance_id)["Event duration"]) == (venue, duration)


def test_worker_death_after_the_check_leaves_nothing_to_send(emulator, instance_id, store):
    first = update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})

    again = update(instance_id, {"Venue": "Garden"}).execute({"task_state_store": store})

    assert again == first
    assert [e["fields"] for e in effects(emulator, "write_fields")] == [{"Venue": '"Main hall"'}]


def test_a_retry_sends_only_what_did_not_arrive(emulator, instance_id, store, dies):
    dies(WorkflowsoftHook, "update_fields", "before")
    with pytest.raises(Killed):
        update(instance_id, {"Venue": "Main hall", "Event exists": False}).execute({"task_state_store": store})
    update(instance_id, {"Event exists": False}).execute({})

    result = update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})

    assert [list(e["fields"]) for e in effects(emulator, "write_fields")] == [["Event exists"], ["Venue"]]
    assert result["written"] == ["Venue", "Event exists"]


def test_without_a_store_a_retry_writes_its_own_values_only(emulator, instance_id):
    update(instance_id, {"Venue": "Main hall"}, retries=1).execute({})
    update(instance_id, {"Venue": "Garden"}, retries=1).execute({})

    assert [e["fields"]["Venue"] for e in effects(emulator, "write_fields")] == ['"Main hall"', '"Garden"']


def test_a_500_after_the_values_arrived_is_reconciled_by_reading(emulator, instance_id, store):
    fault(emulator, "POST", WRITE, status=500, json={"Message": "crashed"}, after=True)

    assert update(instance_id, {"Venue": "Hall"}).execute({"task_state_store": store})["written"] == ["Venue"]
    assert len(effects(emulator, "write_fields")) == 1


def test_500_without_effect_is_left_to_airflows_retry(emulator, instance_id, store):
    fault(emulator, "POST", WRITE, status=500, json={"ExceptionMessage": "Out of order"})
    with pytest.raises(ServerError, match="Out of order"):
        update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})

    update(instance_id, {"Venue": "Garden"}).execute({"task_state_store": store})

    assert [e["fields"] for e in effects(emulator, "write_fields")] == [{"Venue": '"Main hall"'}]


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
def test_certainly_rejected_write_lets_a_retry_decide_again(emulator, instance_id, store, rejection, error):
    fault(emulator, "POST", WRITE, **rejection)
    with pytest.raises(error):
        update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})

    update(instance_id, {"Venue": "Garden"}).execute({"task_state_store": store})

    assert [e["fields"] for e in effects(emulator, "write_fields")] == [{"Venue": '"Garden"'}]


def test_rejection_leaves_a_sent_decision_of_an_earlier_try(emulator, instance_id, store, dies):
    dies(WorkflowsoftHook, "update_fields", "before")
    with pytest.raises(Killed):
        update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})
    fault(emulator, "POST", WRITE, status=403)
    with pytest.raises(PermissionDenied):
        update(instance_id, {"Venue": "Garden"}).execute({"task_state_store": store})

    update(instance_id, {"Venue": "Terrace"}).execute({"task_state_store": store})

    assert [e["fields"] for e in effects(emulator, "write_fields")] == [{"Venue": '"Main hall"'}]


@pytest.mark.parametrize("status", ["400", "500"])
def test_completed_instance_is_a_moved_step_and_not_retried(emulator, ready_id, store, status):
    emulator.control("PATCH", "flags", ws_error_status=status)
    complete(ready_id).execute({})

    with pytest.raises(AirflowFailException, match=f"StepMoved: Instance {ready_id} is already completed"):
        update(ready_id, {"Venue": "Garden"}).execute({"task_state_store": store})
    assert get(ready_id)["Venue"] == "Main hall"


def test_an_unknown_id_says_what_to_check(emulator):
    for operator in (update("999", {"Venue": "x"}), complete("999")):
        with pytest.raises(
            NotFound, match="Integration instance 999 does not exist: it was completed and removed, or this is the id"
        ):
            operator.execute({})
    assert sent(emulator, "POST") == sent(emulator, "PATCH") == 0


def test_a_whole_row_of_the_sensor_names_the_instance(emulator, instance_id, set_connection):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"item_url": "https://app.example/{process_instance_id}/{integration_instance_id}"}
    set_connection("workflowsoft_default", connection)
    whole = {"integration_instance_id": instance_id, "process_instance_id": 7, "step_id": 101, "also_delivered": []}

    for operator in (update(whole, {"Venue": "Hall"}), complete(whole)):
        assert operator.execute({})["integration_instance_id"] == instance_id
        assert operator.item_url == f"https://app.example/7/{instance_id}"


def test_instance_of_another_step_is_reported_by_expected_fields(emulator):
    other = emulator.control("POST", "workflowsoft/processes", diagram="Contract review")["integration_instance_id"]
    expected = {"Event name": "String", "Venue": "String"}

    with pytest.raises(ConfigurationError, match=f"of instance {other} differ: 'Venue' is missing"):
        update(other, {"Event name": "x"}, expected_fields=expected).execute({})
    with pytest.raises(ConfigurationError, match="'Venue' is missing"):
        WorkflowsoftGetFieldsOperator(task_id="get", integration_instance_id=other, expected_fields=expected).execute(
            {}
        )
    assert sent(emulator, "POST") == 0


def test_unknown_type_is_not_sent_unless_allowed(emulator):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    place = {"Place": {"lat": Decimal("12345678901234.5678")}}

    with pytest.raises(
        ConfigurationError, match="'Place' .GeoPoint. has an unknown type. Set allow_unknown_types=True"
    ):
        update(started["integration_instance_id"], place).execute({})
    assert sent(emulator, "POST") == 0
    update(started["integration_instance_id"], place, allow_unknown_types=True).execute({})
    assert get(started["integration_instance_id"])["Place"] == {"lat": EXACT}


def test_no_value_of_a_field_is_in_the_log(emulator, instance_id, store, caplog):
    caplog.set_level("DEBUG")
    fault(emulator, "POST", WRITE, reset="after")

    update(instance_id, {"Venue": "Whispering"}).execute({"task_state_store": store})

    assert "Wrote 'Venue'" in caplog.text
    assert "Whispering" not in caplog.text


@pytest.mark.slow
def test_hundreds_of_values_round_trip_exactly_over_http(emulator):
    chance = random.Random(7)
    instance_id = emulator.control("POST", "workflowsoft/processes", diagram="Field types")["integration_instance_id"]
    hook = WorkflowsoftHook()

    for _ in range(150):
        amount, moment = Decimal(any_decimal(chance)), any_moment(chance)
        day = date.fromordinal(chance.randint(1, date.max.toordinal()))
        update(instance_id, {"Amount": amount, "Moment": moment, "Day": day}).execute({})
        read = {field.label: field.value for field in hook.get_fields(instance_id)}
        assert (read["Amount"].as_tuple(), read["Moment"], read["Day"]) == (amount.as_tuple(), moment, day)
        shown = get(instance_id)
        assert Decimal(shown["Amount"]).as_tuple() == amount.as_tuple()
        assert shown["Day"] == day.isoformat()


# --- completing ---


def test_instance_is_completed_once_and_its_process_continues(emulator, ready_id, store):
    result = complete(ready_id).execute({"task_state_store": store})

    assert result == {
        "integration_instance_id": ready_id,
        "custom_action": "__AUTO__",
        "already_completed": False,
    }
    assert effects(emulator, "complete") == [{"custom_action": "__AUTO__", "times": 1, "step": "Check event"}]
    assert [i["step"] for i in emulator.control("GET", "state")["workflowsoft"]] == ["Check event", "Publish event"]


def test_a_retry_of_a_completion_that_succeeded_sends_nothing(emulator, ready_id, store):
    emulator.control("PATCH", "flags", ws_complete_again="no_op")
    complete(ready_id).execute({"task_state_store": store})
    again = complete(ready_id).execute({"task_state_store": store})

    assert again["already_completed"] is True
    assert sent(emulator, "PATCH") == 1


def test_a_required_value_that_shows_late_stops_no_completion(emulator, instance_id, store, monkeypatch):
    late = WorkflowsoftHook().get_fields(instance_id)
    update(instance_id, {"Venue": "Main hall"}).execute({})
    read, shown = WorkflowsoftHook.get_fields, [late, late]
    monkeypatch.setattr(WorkflowsoftHook, "get_fields", lambda *args: shown.pop() if shown else read(*args))

    complete(instance_id, confirm_timeout=10.0).execute({"task_state_store": store})
    assert len(effects(emulator, "complete")) == 1


def test_empty_required_fields_are_named_before_sending(emulator, instance_id, store):
    with pytest.raises(ConfigurationError, match="required fields are empty: Venue"):
        complete(instance_id).execute({"task_state_store": store})

    assert sent(emulator, "PATCH") == 0
    update(instance_id, {"Venue": "Main hall"}).execute({})
    assert complete(instance_id).execute({"task_state_store": store})["already_completed"] is False


@pytest.mark.parametrize("status", ["400", "500"])
def test_instance_completed_by_others_is_success_with_a_warning(emulator, ready_id, store, status, caplog):
    emulator.control("PATCH", "flags", ws_error_status=status)
    complete(ready_id).execute({})

    result = complete(ready_id).execute({"task_state_store": store})

    assert result["already_completed"] is True
    assert "already completed" in caplog.text
    assert len(effects(emulator, "complete")) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_lost_response_to_a_completion_fails_and_is_not_resent(emulator, ready_id, store, moment):
    fault(emulator, "PATCH", COMPLETE, reset=moment)

    for _ in range(2):
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            complete(ready_id).execute({"task_state_store": store})

    assert sent(emulator, "PATCH") == 1
    assert len(effects(emulator, "complete")) == (0 if moment == "before" else 1)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_policy_retry_sends_it_once_more(emulator, ready_id, store, moment):
    fault(emulator, "PATCH", COMPLETE, reset=moment)

    result = complete(ready_id, on_unknown_completion="retry").execute({"task_state_store": store})

    assert result["already_completed"] is (moment == "after")
    assert len(effects(emulator, "complete")) == 1


def test_policy_retry_gives_up_after_the_second_lost_response(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, reset="before", times=2)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(ready_id, on_unknown_completion="retry").execute({"task_state_store": store})
    assert sent(emulator, "PATCH") == 2


def test_policy_assume_done_continues(emulator, ready_id, store, caplog):
    fault(emulator, "PATCH", COMPLETE, reset="after")

    result = complete(ready_id, on_unknown_completion="assume_done").execute({"task_state_store": store})

    assert result["already_completed"] is True
    assert "on_unknown_completion: assume_done" in caplog.text
    assert sent(emulator, "PATCH") == 1


EVIDENCE = {
    "read_only": {"ws_fields_after_completion": "read_only"},
    "gone": {"ws_fields_after_completion": "gone"},
    "error": {"ws_fields_after_completion": "error"},
    "error_500": {"ws_fields_after_completion": "error", "ws_error_status": "500"},
    "nothing_open": {},
}


@pytest.fixture
def row(emulator, reading_leaves_instances) -> dict:
    """A sensor's row of an instance whose required field is filled."""
    started = emulator.control("POST", "workflowsoft/processes", diagram="Event planning", fields={"Venue": "Hall"})
    return {**started, "diagram_id": "1", "step_id": "101", "step": "Check event"}


def named_by(row: dict, evidence: str) -> Any:
    """Return the instance without its step, unless it is the step that gives the evidence."""
    return row if evidence == "nothing_open" else row["integration_instance_id"]


def lose(emulator, dies, operator, store, lost: str, moment: str) -> None:
    """Lose the response to the next completion, or kill the worker of a first try around it."""
    if lost == "response":
        fault(emulator, "PATCH", COMPLETE, reset=moment)
        return
    dies(WorkflowsoftHook, "complete", moment)
    with pytest.raises(Killed):
        operator.execute({"task_state_store": store})


@pytest.mark.sample(3)
@pytest.mark.parametrize("evidence", EVIDENCE)
@pytest.mark.parametrize("policy", ["fail", "retry", "assume_done"])
@pytest.mark.parametrize("lost", ["response", "worker"])
def test_completion_with_evidence_is_reconciled_by_it(emulator, row, store, dies, caplog, evidence, policy, lost):
    emulator.control("PATCH", "flags", **EVIDENCE[evidence], ws_complete_again="no_op")
    operator = complete(named_by(row, evidence), on_unknown_completion=policy)
    lose(emulator, dies, operator, store, lost, "after")

    result = operator.execute({"task_state_store": store})

    assert result["already_completed"] is (lost == "worker")
    assert "Reading whether the instance is completed" in caplog.text
    assert sent(emulator, "PATCH") == 1
    assert [done["times"] for done in effects(emulator, "complete")] == [1]


@pytest.mark.sample(4)
@pytest.mark.parametrize("evidence", [*EVIDENCE, "readable"])
@pytest.mark.parametrize("policy", ["fail", "retry", "assume_done"])
@pytest.mark.parametrize("lost", ["response", "worker"])
def test_completion_without_evidence_is_decided_by_the_policy(emulator, row, store, dies, evidence, policy, lost):
    emulator.control("PATCH", "flags", **EVIDENCE.get(evidence, {}))
    operator = complete(named_by(row, evidence), on_unknown_completion=policy)
    lose(emulator, dies, operator, store, lost, "before")

    if policy == "fail":
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            operator.execute({"task_state_store": store})
    else:
        assert operator.execute({"task_state_store": store})["already_completed"] is (policy == "assume_done")
    assert [done["times"] for done in effects(emulator, "complete")] == ([1] if policy == "retry" else [])


@pytest.mark.parametrize(
    ("policy", "again", "times"),
    [("fail", "no_op", [1]), ("assume_done", "no_op", [1]), ("retry", "error", [1]), ("retry", "no_op", [1, 2])],
)
@pytest.mark.parametrize("lost", ["response", "worker"])
def test_only_policy_retry_may_complete_an_unknown_outcome_twice(
    emulator, row, store, dies, policy, again, times, lost
):
    emulator.control("PATCH", "flags", ws_complete_again=again)
    operator = complete(row["integration_instance_id"], on_unknown_completion=policy)
    lose(emulator, dies, operator, store, lost, "after")

    if policy == "fail":
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            operator.execute({"task_state_store": store})
    else:
        assert operator.execute({"task_state_store": store})["already_completed"] is (
            again == "error" or policy != "retry"
        )
    assert [done["times"] for done in effects(emulator, "complete")] == times


@pytest.mark.parametrize("body", ["<html><title>404 Not Found</title></html>", ""], ids=["page", "bare"])
@pytest.mark.parametrize("path", ["/variables$", "/new-integrations$"], ids=["instance", "step"])
def test_404_of_a_gateway_is_not_evidence(emulator, row, store, monkeypatch, body, path):
    send = WorkflowsoftHook.complete

    def complete_behind_a_gateway(*args, **kwargs) -> None:
        fault(emulator, "GET", path, status=404, body=body)
        send(*args, **kwargs)

    monkeypatch.setattr(WorkflowsoftHook, "complete", complete_behind_a_gateway)
    fault(emulator, "PATCH", COMPLETE, reset="before")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(row).execute({"task_state_store": store})
    assert effects(emulator, "complete") == []


def test_fields_of_which_some_cannot_be_read_are_not_evidence(emulator, ready_id, store, monkeypatch):
    read = WorkflowsoftHook.get_fields

    def one_of_them(hook, *args):
        fields = read(hook, *args)
        return [replace(fields[0], is_readonly=True)] if sent(emulator, "PATCH") else fields

    monkeypatch.setattr(WorkflowsoftHook, "get_fields", one_of_them)
    fault(emulator, "PATCH", COMPLETE, reset="before")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(ready_id).execute({"task_state_store": store})


def test_a_step_with_another_open_instance_is_not_evidence(emulator, row, store):
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
    fault(emulator, "PATCH", COMPLETE, reset="after")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(row).execute({"task_state_store": store})


@pytest.mark.parametrize(
    "extra", [{}, {"allow_consume": False, "new_integrations": "listed_until_completed"}], ids=["consumes", "forbidden"]
)
def test_step_is_not_polled_for_evidence_where_polling_consumes(emulator, row, store, set_connection, extra):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= extra
    set_connection("workflowsoft_default", connection)
    fault(emulator, "PATCH", COMPLETE, reset="after")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(row).execute({"task_state_store": store})
    assert not [r for r in emulator.requests() if r["path"].endswith("new-integrations")]


def test_fields_that_were_not_writable_before_are_not_evidence(emulator, store, monkeypatch):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Data issue")
    read = WorkflowsoftHook.get_fields
    monkeypatch.setattr(
        WorkflowsoftHook,
        "get_fields",
        lambda *args: [type(f)(**{**vars(f), "is_readonly": True}) for f in read(*args)],
    )
    fault(emulator, "PATCH", COMPLETE, reset="before")

    for _ in range(2):
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            complete(started["integration_instance_id"]).execute({"task_state_store": store})


def test_a_completion_that_shows_late_is_waited_for(emulator, row, store, monkeypatch):
    emulator.control("PATCH", "flags", ws_fields_after_completion="gone")
    fault(emulator, "PATCH", COMPLETE, reset="after")
    read = WorkflowsoftHook.get_fields
    late = [read(WorkflowsoftHook(), row["integration_instance_id"])] * 2
    monkeypatch.setattr(WorkflowsoftHook, "get_fields", lambda *args: late.pop() if late else read(*args))

    result = complete(row["integration_instance_id"], confirm_timeout=10).execute({"task_state_store": store})

    assert result["already_completed"] is False


@pytest.mark.parametrize("moment", ["before", "after"])
def test_worker_that_dies_around_the_state_store_completes_once(emulator, row, store, dies, moment):
    dies(type(store), "set", moment, about="completion_")
    operator = complete(row["integration_instance_id"], on_unknown_completion="retry")
    with pytest.raises(Killed):
        operator.execute({"task_state_store": store})
    assert sent(emulator, "PATCH") == 0

    assert operator.execute({"task_state_store": store})["already_completed"] is False
    assert [done["times"] for done in effects(emulator, "complete")] == [1]


def test_retry_uses_the_custom_action_of_the_first_try(emulator, row, store, dies):
    dies(WorkflowsoftHook, "complete", "after")
    instance_id = row["integration_instance_id"]
    with pytest.raises(Killed):
        complete(instance_id, custom_action="Reject").execute({"task_state_store": store})

    retry = complete(instance_id, custom_action="__AUTO__", on_unknown_completion="retry")
    for _ in range(2):
        assert retry.execute({"task_state_store": store})["custom_action"] == "Reject"

    assert [request["body"]["CustomAction"] for request in emulator.requests() if request["method"] == "PATCH"] == [
        "Reject",
        "Reject",
    ]


def test_rejected_second_request_leaves_the_first_unknown(emulator, row, store, dies):
    emulator.control("PATCH", "flags", ws_complete_again="no_op")
    instance_id = row["integration_instance_id"]
    dies(WorkflowsoftHook, "complete", "after")
    with pytest.raises(Killed):
        complete(instance_id).execute({"task_state_store": store})
    fault(emulator, "PATCH", COMPLETE, status=403, json={"Message": "no"})
    with pytest.raises(PermissionDenied):
        complete(instance_id, on_unknown_completion="retry").execute({"task_state_store": store})
    emulator.control("PATCH", "flags", ws_fields_after_completion="gone")

    assert complete(instance_id).execute({"task_state_store": store})["already_completed"] is True
    assert [done["times"] for done in effects(emulator, "complete")] == [1]


@pytest.mark.parametrize("evidence", EVIDENCE)
def test_a_500_that_evidence_speaks_against_is_a_success(emulator, row, store, evidence):
    emulator.control("PATCH", "flags", **EVIDENCE[evidence])
    fault(emulator, "PATCH", COMPLETE, status=500, json={"Message": "crashed"}, after=True)

    result = complete(named_by(row, evidence)).execute({"task_state_store": store})

    assert result["already_completed"] is False
    assert [done["times"] for done in effects(emulator, "complete")] == [1]


@pytest.mark.parametrize("again", ["error", "no_op"])
def test_500_after_the_effect_is_reconciled_or_fails_for_good(emulator, row, store, again):
    emulator.control("PATCH", "flags", ws_complete_again=again)
    fault(emulator, "PATCH", COMPLETE, status=500, json={"Message": "crashed"}, after=True)
    operator = complete(row["integration_instance_id"], on_unknown_completion="fail")
    with pytest.raises(AirflowFailException, match="crashed"):
        operator.execute({"task_state_store": store})
    emulator.control("PATCH", "flags", ws_fields_after_completion="read_only")

    assert operator.execute({"task_state_store": store})["already_completed"] is True
    assert [done["times"] for done in effects(emulator, "complete")] == [1]


NOT_DONE = [
    pytest.param({"status": 400, "json": {"Message": "Not now"}}, InvalidRequest, id="400"),
    pytest.param({"status": 401, "times": 2}, AuthenticationError, id="401"),
    pytest.param({"status": 403}, PermissionDenied, id="403"),
    pytest.param({"status": 404}, NotFound, id="404"),
    pytest.param({"status": 429, "headers": {"Retry-After": "9999"}}, RateLimited, id="429"),
]


@pytest.mark.parametrize(("rejection", "error"), NOT_DONE)
def test_certainly_rejected_completion_is_sent_by_the_next_try(emulator, row, store, rejection, error):
    fault(emulator, "PATCH", COMPLETE, **rejection)
    operator = complete(row["integration_instance_id"])
    with pytest.raises(error):
        operator.execute({"task_state_store": store})
    assert effects(emulator, "complete") == []

    assert operator.execute({"task_state_store": store})["already_completed"] is False
    assert [done["times"] for done in effects(emulator, "complete")] == [1]


def test_an_unsent_completion_is_sent_by_the_next_try(emulator, row, store, set_connection):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"on_behalf_of": "Olga Öwner"}  # no header can contain it
    set_connection("workflowsoft_default", connection)
    with pytest.raises(ConfigurationError, match="X-OnBehalfOf-Id cannot be sent"):
        complete(row["integration_instance_id"]).execute({"task_state_store": store})
    assert sent(emulator, "PATCH") == 0
    set_connection("workflowsoft_default", emulator.connection("workflowsoft"))

    assert complete(row["integration_instance_id"]).execute({"task_state_store": store})["already_completed"] is False


def test_an_instance_of_another_step_is_not_completed(emulator, store):
    other = emulator.control("POST", "workflowsoft/processes", diagram="Contract review")

    with pytest.raises(ConfigurationError, match="'Venue' is missing.*instance of another step"):
        complete(other["integration_instance_id"], expected_fields={"Venue": "String"}).execute(
            {"task_state_store": store}
        )
    assert sent(emulator, "PATCH") == 0


def test_a_rejection_leaves_the_next_try_free_to_complete(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, status=400, json={"Message": "Not now"})

    with pytest.raises(InvalidRequest, match="Not now"):
        complete(ready_id).execute({"task_state_store": store})

    assert complete(ready_id).execute({"task_state_store": store})["already_completed"] is False


def test_a_500_shows_the_servers_message_and_is_never_repeated(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, status=500, json={"ExceptionMessage": "Out of order"})

    with pytest.raises(AirflowFailException, match="Out of order"):
        complete(ready_id).execute({"task_state_store": store})
    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(ready_id).execute({"task_state_store": store})
    assert sent(emulator, "PATCH") == 1


def test_without_a_store_a_retried_task_must_say_what_to_do(emulator, ready_id):
    before = len(emulator.requests())
    retried = complete(ready_id)
    retried.retries = 1  # as of a mapped task, which an Airflow before 3.3 does not make 0
    with pytest.raises(ConfigurationError, match="on_unknown_completion must be 'retry'"):
        retried.execute({})
    assert len(emulator.requests()) == before

    assert complete(ready_id, retries=1, on_unknown_completion="retry").execute({})["already_completed"] is False


@pytest.mark.parametrize(
    ("parameters", "named"),
    [({"custom_action": ""}, "custom_action"), ({"on_unknown_completion": "hope"}, "on_unknown_completion")],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named):
    with pytest.raises(ConfigurationError, match=named):
        complete("2", **parameters).execute({})
    assert emulator.requests() == []


def test_the_custom_action_is_sent_unchanged(emulator, ready_id, store):
    complete(ready_id, custom_action="Reject").execute({"task_state_store": store})

    assert effects(emulator, "complete")[0]["custom_action"] == "Reject"


# --- what servers may say ---


@pytest.mark.parametrize("message", ["Cannot complete the task until the previous task is completed.", "Completed"])
def test_a_rejection_that_mentions_completion_is_a_rejection(emulator, ready_id, store, message):
    fault(emulator, "PATCH", COMPLETE, status=400, json={"Message": message})

    with pytest.raises(InvalidRequest):
        complete(ready_id).execute({"task_state_store": store})

    complete(ready_id).execute({"task_state_store": store})
    assert len(effects(emulator, "complete")) == 1


def test_an_html_page_does_not_count_as_completed(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, status=200, headers={"Content-Type": "text/html"}, body="<html>Sign in</html>")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown: The response is an HTML page"):
        complete(ready_id).execute({"task_state_store": store})


def test_an_old_read_of_a_retry_blames_no_write(emulator, instance_id, store, dies, monkeypatch):
    old = WorkflowsoftHook().get_fields(instance_id)
    update(instance_id, {"Venue": "Main hall"}).execute({})
    dies(WorkflowsoftHook, "update_fields", "after")
    with pytest.raises(Killed):
        update(instance_id, {"Event name": "Party"}).execute({"task_state_store": store})
    read, shown = WorkflowsoftHook.get_fields, [old]
    monkeypatch.setattr(WorkflowsoftHook, "get_fields", lambda *args: shown.pop() if shown else read(*args))

    update(instance_id, {"Event name": "Party"}, confirm_timeout=10.0).execute({"task_state_store": store})
    assert len(effects(emulator, "write_fields")) == 2


CONTRADICTION = {"status": 200, "json": {"Success": True, "Errors": ["mail not sent"]}, "after": True}


def test_a_completion_with_errors_is_not_sent_again(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, **CONTRADICTION)

    for _ in range(2):
        with pytest.raises(AirflowFailException, match="OutcomeUnknown.*mail not sent|OutcomeUnknown.*did not finish"):
            complete(ready_id).execute({"task_state_store": store})
    assert len(effects(emulator, "complete")) == 1


def test_an_update_with_errors_is_reconciled_by_reading(emulator, instance_id, store):
    fault(emulator, "POST", WRITE, **CONTRADICTION)

    update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})
    assert len(effects(emulator, "write_fields")) == 1


@pytest.mark.parametrize("failed", [{"Success": 0}, {"HasErrors": True}, {"Result": {"Success": "no"}}])
def test_a_completion_that_failed_in_any_words_is_not_done(emulator, ready_id, store, failed):
    fault(emulator, "PATCH", COMPLETE, status=200, json=failed)

    with pytest.raises(InvalidRequest):
        complete(ready_id).execute({"task_state_store": store})
    assert complete(ready_id).execute({"task_state_store": store})["already_completed"] is False


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, {"type": "about:blank", "title": "Conflict", "detail": "The task is already completed."}),
        (409, {"title": "The task is already completed", "status": 409}),
        (200, {"Success": False, "Error": {"Message": "Task is already completed."}}),
        (200, {"success": False, "errors": {"task": ["Task is already completed."]}}),
    ],
)
def test_already_completed_is_understood_in_every_format(emulator, ready_id, store, status, body):
    fault(emulator, "PATCH", COMPLETE, status=status, json=body)

    assert complete(ready_id).execute({"task_state_store": store})["already_completed"] is True


def test_html_response_to_an_update_is_reconciled_by_reading(emulator, instance_id, store):
    page = {"status": 200, "headers": {"Content-Type": "text/html"}, "body": "<html>Sign in</html>"}
    fault(emulator, "POST", WRITE, **page, times=2)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown: The response is an HTML page"):
        update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})


def test_server_that_stores_nothing_proves_nothing(emulator, set_connection, store, monkeypatch):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"new_integrations": "listed_until_completed"}
    set_connection("workflowsoft_default", connection)
    emulator.control("PATCH", "flags", new_integrations="consumed_on_read")
    started = emulator.control("POST", "workflowsoft/processes", diagram="Vendor onboarding")
    row = {"integration_instance_id": started["integration_instance_id"], "step_id": "201"}
    WorkflowsoftHook().poll_new_integrations("201")  # by which the instance was received
    fault(emulator, "PATCH", COMPLETE, reset="before")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(row).execute({"task_state_store": store})
    assert effects(emulator, "complete") == []


def test_failed_read_after_a_write_raises_the_error_of_the_read(emulator, instance_id, store):
    fault(emulator, "GET", "/variables$", skip=1, times=99, status=403)

    with pytest.raises(PermissionDenied):
        update(instance_id, {"Venue": "Main hall"}).execute({"task_state_store": store})

    emulator.control("DELETE", "faults")
    assert update(instance_id, {"Venue": "Another"}).execute({"task_state_store": store})["written"] == ["Venue"]
    assert [e["fields"]["Venue"] for e in effects(emulator, "write_fields")] == ['"Main hall"']


@pytest.mark.parametrize("timeout", [None, -1, "30"])
def test_bad_confirm_timeout_is_named_before_sending(emulator, instance_id, store, timeout):
    for operator in (
        update(instance_id, {"Venue": "x"}, confirm_timeout=timeout),
        complete(instance_id, confirm_timeout=timeout),
    ):
        with pytest.raises(ConfigurationError, match="confirm_timeout"):
            operator.execute({"task_state_store": store})
    assert emulator.requests() == []


@pytest.mark.parametrize(("policy", "retries"), [("fail", 0), ("assume_done", 0), ("retry", 2)])
def test_without_a_store_only_policy_retry_is_retried(monkeypatch, policy, retries):
    monkeypatch.setattr("airflow_provider_workflows.operators.base.HAS_TASK_STATE_STORE", False)

    assert complete("1", retries=2, on_unknown_completion=policy).retries == retries
    with DAG("any", schedule=None, default_args={"retries": 2}):
        mapped = WorkflowsoftCompleteIntegrationOperator.partial(task_id="many", on_unknown_completion=policy)
        task = mapped.expand(integration_instance_id=["1", "2"])
    assert (task.retries, task.unmap({"integration_instance_id": "1"}).retries) == (retries, retries)


def test_empty_template_is_named_before_sending(emulator, instance_id):
    before = len(emulator.requests())
    operator = update(instance_id, {"Venue": "{{ params.venue }}"})
    operator.fields = {"Venue": "None"}  # as Airflow renders it

    with pytest.raises(
        ConfigurationError, match="'Venue' was rendered as the text 'None'.*render_template_as_native_obj"
    ):
        operator.execute({})
    assert len(emulator.requests()) == before


def test_completion_by_another_action_is_not_a_success(emulator, ready_id, store):
    emulator.control("POST", f"workflowsoft/instances/{ready_id}/complete")

    with pytest.raises(AirflowFailException, match="StepMoved: .*completed by another user, perhaps not with 'Reject'"):
        complete(ready_id, custom_action="Reject").execute({"task_state_store": store})


def test_own_address_of_the_connections_user_is_rejected_first(emulator, ready_id, store, set_connection):
    connection = emulator.connection("workflowsoft")
    connection["extra"] |= {"on_behalf_of": "olga@example.com"}
    set_connection("workflowsoft_default", connection)

    with pytest.raises(ConfigurationError, match="'on_behalf_of' must be 'system' or a user's id"):
        complete(ready_id).execute({"task_state_store": store})
    worked, message = WorkflowsoftHook().test_connection()
    assert (worked, "'on_behalf_of'" in message) == (False, True)
