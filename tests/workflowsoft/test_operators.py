"""Fields and completion: what is written is written once, exactly, and is what was meant."""

from __future__ import annotations

from decimal import Decimal

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import ConfigurationError, ContractError, InvalidRequest, NotFound
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCompleteIntegrationOperator,
    WorkflowsoftGetFieldsOperator,
    WorkflowsoftUpdateFieldsOperator,
)

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
        **{"confirm_timeout": 0.2, **parameters},
    )


def complete(instance_id: str, **parameters) -> WorkflowsoftCompleteIntegrationOperator:
    return WorkflowsoftCompleteIntegrationOperator(
        task_id="complete", integration_instance_id=instance_id, **{"confirm_timeout": 0.2, **parameters}
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


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_answer_to_an_update_is_settled_by_reading(emulator, instance_id, moment):
    fault(emulator, "POST", WRITE, reset=moment)

    if moment == "before":
        with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
            update(instance_id, {"Venue": "Main hall"}).execute({})
    else:
        assert update(instance_id, {"Venue": "Main hall"}).execute({})["written"] == ["Venue"]

    assert sent(emulator, "POST") == 1
    assert len(effects(emulator, "write_fields")) == (0 if moment == "before" else 1)


def test_a_value_that_is_shown_otherwise_after_the_write_names_the_field(emulator, instance_id):
    fault(emulator, "POST", WRITE, status=204)

    with pytest.raises(ContractError, match="shows others in: 'Venue'"):
        update(instance_id, {"Venue": "Main hall"}).execute({})


def test_a_value_that_shows_late_is_waited_for(emulator, instance_id, monkeypatch):
    update(instance_id, {"Venue": "Main hall"}).execute({})
    read = WorkflowsoftHook.get_fields
    late = [read(WorkflowsoftHook(), instance_id) for _ in range(2)]
    monkeypatch.setattr(WorkflowsoftHook, "get_fields", lambda *args: late.pop() if late else read(*args))

    update(instance_id, {"Venue": "Garden"}, confirm_timeout=10).execute({})

    assert get(instance_id)["Venue"] == "Garden"


@pytest.mark.parametrize("status", ["400", "500"])
def test_the_servers_own_words_are_shown_when_it_refuses(emulator, ready_id, status):
    emulator.control("PATCH", "switches", ws_error_status=status)
    complete(ready_id).execute({})

    with pytest.raises(Exception, match="already completed"):
        update(ready_id, {"Venue": "Garden"}).execute({})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "not empty"),
        (None, "must be a mapping"),
        ("Venue", "must be a mapping"),
        ({"Venu": "x"}, "no field 'Venu'; there are: 'Event name'"),
        ({"Requested by": "me"}, "read-only in Workflowsoft: 'Requested by'"),
        ({"Event exists": "yes"}, "'Event exists' .* takes True or False; got str"),
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
    with pytest.raises(ConfigurationError, match="takes one of 'A', 'B', 'C'"):
        update(instance_id, {"Rating": "D"}).execute({})


def test_options_of_an_unknown_form_are_said_and_not_checked(emulator, instance_id, monkeypatch, capsys):
    read = WorkflowsoftHook.get_fields

    def with_odd_options(hook, *args):
        return [type(f)(**{**vars(f), "options": [{"Name": "A"}]}) for f in read(hook, *args)]

    monkeypatch.setattr(WorkflowsoftHook, "get_fields", with_odd_options)
    update(instance_id, {"Venue": "Garden"}).execute({})

    assert capsys.readouterr().out.count("options of field 'Venue'") == 1


# --- completing ---


def test_an_instance_is_completed_once_and_its_process_goes_on(emulator, ready_id, store):
    result = complete(ready_id).execute({"task_state_store": store})

    assert result == {
        "integration_instance_id": ready_id,
        "custom_action": "__AUTO__",
        "already_completed": False,
    }
    assert effects(emulator, "complete") == [{"custom_action": "__AUTO__", "times": 1, "step": "Check event"}]
    assert [i["step"] for i in emulator.control("GET", "state")["workflowsoft"]] == ["Check event", "Publish event"]


def test_a_retry_of_a_completion_that_succeeded_sends_nothing(emulator, ready_id, store):
    emulator.control("PATCH", "switches", ws_complete_again="no_op")
    complete(ready_id).execute({"task_state_store": store})
    again = complete(ready_id).execute({"task_state_store": store})

    assert again["already_completed"] is True
    assert sent(emulator, "PATCH") == 1


def test_required_fields_that_are_empty_are_named_and_nothing_is_sent(emulator, instance_id, store):
    with pytest.raises(ConfigurationError, match="required fields are empty: Venue"):
        complete(instance_id).execute({"task_state_store": store})

    assert sent(emulator, "PATCH") == 0
    update(instance_id, {"Venue": "Main hall"}).execute({})
    assert complete(instance_id).execute({"task_state_store": store})["already_completed"] is False


@pytest.mark.parametrize("status", ["400", "500"])
def test_an_instance_that_somebody_completed_before_is_success_with_a_warning(
    emulator, ready_id, store, status, capsys
):
    emulator.control("PATCH", "switches", ws_error_status=status)
    complete(ready_id).execute({})

    result = complete(ready_id).execute({"task_state_store": store})

    assert result["already_completed"] is True
    assert "completed before" in capsys.readouterr().out
    assert len(effects(emulator, "complete")) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_answer_to_a_completion_fails_for_good_and_is_not_sent_again(emulator, ready_id, store, moment):
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


def test_policy_retry_gives_up_after_the_second_lost_answer(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, reset="before", times=2)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(ready_id, on_unknown_completion="retry").execute({"task_state_store": store})
    assert sent(emulator, "PATCH") == 2


def test_policy_assume_done_goes_on(emulator, ready_id, store, capsys):
    fault(emulator, "PATCH", COMPLETE, reset="after")

    result = complete(ready_id, on_unknown_completion="assume_done").execute({"task_state_store": store})

    assert result["already_completed"] is True
    assert "assume_done" in capsys.readouterr().out
    assert sent(emulator, "PATCH") == 1


@pytest.mark.parametrize(("policy", "calls"), [("fail", 1), ("retry", 2), ("assume_done", 1)])
def test_a_worker_that_died_while_completing_leaves_the_decision_to_the_policy(
    emulator, ready_id, store, monkeypatch, policy, calls
):
    really = WorkflowsoftHook.complete

    def killed(hook, *args, **kwargs):
        really(hook, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(WorkflowsoftHook, "complete", killed)
        with pytest.raises(KeyboardInterrupt):
            complete(ready_id).execute({"task_state_store": store})

    retry = complete(ready_id, on_unknown_completion=policy)
    if policy == "fail":
        with pytest.raises(AirflowFailException, match="An earlier try began to complete"):
            retry.execute({"task_state_store": store})
    else:
        assert retry.execute({"task_state_store": store})["already_completed"] is True

    assert sent(emulator, "PATCH") == calls
    assert len(effects(emulator, "complete")) == 1


def test_a_refusal_leaves_the_next_try_free_to_complete(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, status=400, json={"Message": "Not now"})

    with pytest.raises(InvalidRequest, match="Not now"):
        complete(ready_id).execute({"task_state_store": store})

    assert complete(ready_id).execute({"task_state_store": store})["already_completed"] is False


def test_a_500_shows_the_servers_words_and_is_never_repeated(emulator, ready_id, store):
    fault(emulator, "PATCH", COMPLETE, status=500, json={"ExceptionMessage": "Out of order"})

    with pytest.raises(AirflowFailException, match="Out of order"):
        complete(ready_id).execute({"task_state_store": store})
    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        complete(ready_id).execute({"task_state_store": store})
    assert sent(emulator, "PATCH") == 1


def test_without_a_store_a_retried_task_must_say_what_to_do(emulator, ready_id):
    before = len(emulator.requests())
    with pytest.raises(ConfigurationError, match="on_unknown_completion must be 'retry'"):
        complete(ready_id, retries=1).execute({})
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


def test_the_custom_action_is_sent_as_given(emulator, ready_id, store):
    complete(ready_id, custom_action="Reject").execute({"task_state_store": store})

    assert effects(emulator, "complete")[0]["custom_action"] == "Reject"
