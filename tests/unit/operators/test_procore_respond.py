"""The answer to a step: given once, to the visit of the step that it was meant for."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import ConfigurationError, NotFound
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator

pytestmark = pytest.mark.usefixtures("airflow_connections")

INSTANCE = "700001"
TOOL = "purchase_order_contract"


def respond(**parameters) -> ProcoreRespondOperator:
    wish = {} if {"option", "option_id", "option_type"} & set(parameters) else {"option": "approve"}
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    return ProcoreRespondOperator(task_id="answer", confirm_timeout=0.2, **{**where, **wish, **parameters})


def responses(emulator) -> list[tuple[str, str]]:
    """Return who answered what, as the emulator recorded it."""
    effects = [e for e in emulator.effects() if e["product"] == "procore" and e["action"] == "respond"]
    return [(effect["by"], effect["detail"]["option"]) for effect in effects]


def step_of(emulator, instance_id: str = INSTANCE) -> dict:
    instances = emulator.control("GET", "state")["procore"]
    return next(instance for instance in instances if instance["id"] == instance_id)


def person_answers(emulator, login: str, option: str) -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login=login, option=option)


def bring_the_step_round_again(emulator) -> None:
    person_answers(emulator, "dana@example.com", "Return")


def test_a_response_is_given_and_described(emulator, store):
    result = respond(comment="fine").execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]
    assert result == {
        "project_id": "1001",
        "instance_id": INSTANCE,
        "item_id": "5001",
        "step": "Budget Check",
        "step_occurrence_id": result["step_occurrence_id"],
        "option": "Approve",
        "option_id": result["option_id"],
        "type": "approve",
        "comment": "fine",
        "user_id": "90001",
        "already_recorded": False,
        "confirmed": True,
    }
    assert step_of(emulator)["step"] == "Director Approval"


def test_the_pin_is_kept_before_anything_is_written(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/responses$", status=400, json={"error": "no"})

    with pytest.raises(Exception, match="400"):
        respond().execute({"task_state_store": store})

    assert store["respond"]["instance_id"] == INSTANCE
    assert responses(emulator) == []


def test_a_retry_of_a_done_answer_writes_nothing_and_returns_the_same(emulator, store):
    first = respond(comment="fine").execute({"task_state_store": store})
    again = respond(comment="fine").execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]
    assert {**again, "option_id": None} == {**first, "option_id": None, "already_recorded": True}


def test_a_step_that_came_round_again_between_two_tries_gets_no_second_answer(emulator, store):
    respond().execute({"task_state_store": store})
    bring_the_step_round_again(emulator)
    assert step_of(emulator)["step"] == "Budget Check"

    respond().execute({"task_state_store": store})

    assert [who for who, _ in responses(emulator)] == ["90001", "90004"]
    assert step_of(emulator)["step"] == "Budget Check"


def test_a_step_that_came_round_before_our_first_answer_was_written_is_not_answered(emulator, store):
    store.set("respond", {"instance_id": INSTANCE, "step_occurrence_id": "an earlier visit"})

    with pytest.raises(AirflowFailException, match=r"StepMoved.*now stands at 'Budget Check'"):
        respond().execute({"task_state_store": store})
    assert responses(emulator) == []


@pytest.mark.parametrize("policy", ["skip", "succeed"])
def test_a_moved_step_is_no_failure_when_the_author_says_so(emulator, store, policy):
    operator = respond(step_occurrence_id="gone", on_step_moved=policy)

    if policy == "skip":
        with pytest.raises(AirflowSkipException):
            operator.execute({"task_state_store": store})
    else:
        assert operator.execute({"task_state_store": store}) is None
    assert responses(emulator) == []


def test_an_ended_instance_counts_as_a_moved_step(emulator, store):
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="StepMoved.*has ended"):
        respond().execute({"task_state_store": store})


def test_another_recorded_option_is_a_conflict_and_is_not_retried(emulator, store):
    respond(option="Approve").execute({"task_state_store": store})

    with pytest.raises(AirflowFailException, match="ResponseConflict.*'Approve'"):
        respond(option="Reject").execute({"task_state_store": store})
    assert responses(emulator) == [("90001", "Approve")]


def test_another_comment_is_only_a_warning(emulator, store, capsys):
    respond(comment="one").execute({"task_state_store": store})
    respond(comment="two").execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]
    assert "another comment" in capsys.readouterr().out


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_lost_answer_is_settled_by_reading_and_never_doubles(emulator, store, moment):
    emulator.control("POST", "faults", method="POST", path="/responses$", reset=moment)

    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


def test_an_answer_lost_twice_fails_for_good_and_says_what_happened(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="before", times=2)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        respond().execute({"task_state_store": store})
    assert responses(emulator) == []


def test_a_second_sending_that_finds_the_step_moved_is_settled_by_the_record(emulator, store):
    emulator.control("PATCH", "switches", transition="delayed", transition_delay=0.05)
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")
    emulator.control(
        "POST", "faults", method="GET", path=f"/instances/{INSTANCE}$", skip=1, times=1, status=404, json={}
    )

    respond().execute({"task_state_store": store})
    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500])
def test_a_refusal_is_believed_only_when_the_record_does_not_show_our_answer(emulator, store, status):
    emulator.control(
        "POST", "faults", method="POST", path="/responses$", status=status, json={"error": "late"}, after=True
    )

    result = respond().execute({"task_state_store": store})

    assert result["option"] == "Approve"
    assert responses(emulator) == [("90001", "Approve")]


def test_a_transition_that_lags_behind_the_answer_is_waited_for(emulator, store):
    emulator.control("PATCH", "switches", transition="delayed", transition_delay=3600)

    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]
    assert step_of(emulator)["step"] == "Budget Check"


def test_the_same_action_carries_the_same_idempotency_token(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="before")

    respond().execute({"task_state_store": store})

    tokens = [r["idempotency_token"] for r in emulator.requests() if r["path"].endswith("/responses")]
    assert len(tokens) == 2
    assert len(set(tokens)) == 1
    assert len(tokens[0]) == 64


def test_the_instance_is_found_by_its_item(emulator, store):
    result = respond(item_id=5001, tool_type=TOOL).execute({"task_state_store": store})

    assert result["instance_id"] == INSTANCE


def test_an_item_without_a_workflow_is_named(emulator, store):
    with pytest.raises(NotFound, match="Item 4711 of tool purchase_order_contract has no workflow"):
        respond(item_id="4711", tool_type=TOOL).execute({"task_state_store": store})


def test_who_is_asked_instead_is_said_when_it_is_not_us(emulator, store):
    emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login="integration@example.com", option="Approve")

    with pytest.raises(ConfigurationError, match="Director Approval.*Dana Director.*dana@example.com"):
        respond().execute({"task_state_store": store})


def test_without_a_store_a_retried_task_must_be_given_its_pin(emulator):
    with pytest.raises(ConfigurationError, match="step_occurrence_id must be given when retries > 0"):
        respond(retries=2).execute({})
    assert emulator.requests() == []

    respond(retries=0).execute({})
    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"instance_id": "1", "item_id": "2"}, "instance_id and item_id"),
        ({"instance_id": None, "item_id": None}, "instance_id, item_id"),
        ({"item_id": "5001"}, "tool_type"),
        ({"option": None}, "option, option_id, option_type"),
        ({"option": "Approve", "option_id": "1"}, "option and option_id"),
        ({"option": ""}, "option is missing"),
        ({"step_occurrence_id": ""}, "step_occurrence_id"),
        ({"on_step_moved": "retry"}, "on_step_moved"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named):
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    wish = {} if "option" in parameters else {"option": "Approve"}
    operator = ProcoreRespondOperator(task_id="answer", **{**where, **wish, **parameters})

    with pytest.raises(ConfigurationError, match=named):
        operator.execute({})
    assert emulator.requests() == []


def test_an_option_that_does_not_exist_is_refused_with_the_candidates(emulator, store):
    with pytest.raises(ConfigurationError, match="'Aprove' does not exist.*'Approve'"):
        respond(option="Aprove").execute({"task_state_store": store})
    assert responses(emulator) == []


@pytest.mark.parametrize(
    "switches",
    [{"stale_step": "404"}, {"non_assignee": "422"}, {"ended_instance": "403"}, {"history": "events_only"}],
)
def test_a_retry_is_safe_in_every_position_of_the_contracts_gaps(emulator, store, switches):
    emulator.control("PATCH", "switches", **switches)

    respond().execute({"task_state_store": store})
    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize("with_store", [True, False])
def test_an_option_that_was_chosen_by_its_id_is_known_again_when_the_step_is_over(emulator, store, with_store):
    options = ProcoreHook().get_instance(INSTANCE)["current_step_occurrence"]["available_response_options"]
    wish = {"option_id": options[0]["id"], "step_occurrence_id": step_of(emulator)["step_occurrence_id"]}
    context = {"task_state_store": store} if with_store else {}
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")

    first = respond(**wish).execute(context)
    again = respond(**wish).execute(context)

    assert (first["option"], again["already_recorded"]) == ("Approve", True)
    assert responses(emulator) == [("90001", "Approve")]


def test_another_option_by_its_id_is_a_conflict_when_the_step_is_over(emulator, store):
    options = ProcoreHook().get_instance(INSTANCE)["current_step_occurrence"]["available_response_options"]
    where = {"step_occurrence_id": step_of(emulator)["step_occurrence_id"]}
    store.set("chosen_option", {"id": options[2]["id"], "name": "Reject", "type": "reject"})
    respond(**where).execute({})

    with pytest.raises(AirflowFailException, match="ResponseConflict"):
        respond(**where, option_id=options[2]["id"]).execute({"task_state_store": store})


def test_an_answer_by_item_is_found_again_after_somebody_restarted_the_workflow(emulator, store):
    wish = {"tool_type": TOOL, "item_id": "5001", "step_occurrence_id": step_of(emulator)["step_occurrence_id"]}
    first = respond(**wish).execute({"task_state_store": store})
    ProcoreHook().restart_instance(INSTANCE)

    again = respond(**wish).execute({"task_state_store": store})

    assert (again["instance_id"], again["already_recorded"]) == (first["instance_id"], True)
    assert responses(emulator) == [("90001", "Approve")]


def test_a_history_that_may_not_be_read_does_not_fail_an_answer_that_was_taken(emulator, store):
    emulator.control("POST", "faults", method="GET", path="/history$", times=99, status=403, json={})

    assert respond().execute({"task_state_store": store})["option"] == "Approve"
