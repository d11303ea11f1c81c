"""The response to a step: sent once, to the step occurrence that it is pinned to."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from tests.support.killed import Killed

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

INSTANCE = "700001"
TOOL = "purchase_order_contract"


def respond(**parameters) -> ProcoreRespondOperator:
    requested = {} if {"option", "option_type"} & set(parameters) else {"option": "approve"}
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    return ProcoreRespondOperator(task_id="respond", **{"confirm_timeout": 0.2, **where, **requested, **parameters})


def responses(emulator) -> list[tuple[str, str]]:
    """Return who responded with which option, as the emulator recorded it."""
    effects = [e for e in emulator.effects() if e["product"] == "procore" and e["action"] == "respond"]
    return [(effect["by"], effect["detail"]["option"]) for effect in effects]


def step_of(emulator, instance_id: str = INSTANCE) -> dict:
    instances = emulator.control("GET", "state")["procore"]
    return next(instance for instance in instances if instance["id"] == instance_id)


def task_instance(try_number: int = 1) -> SimpleNamespace:
    names = {"dag_id": "orders", "run_id": "run", "task_id": "respond", "map_index": -1}
    return SimpleNamespace(**names, try_number=try_number, max_tries=2)


@pytest.fixture
def sent_comments(monkeypatch) -> list[str]:
    """The comments of all responses that were sent, in order."""
    really, sent = ProcoreHook.respond, []

    def respond(self, *args, **kwargs):
        sent.append(kwargs["comment"])
        return really(self, *args, **kwargs)

    monkeypatch.setattr(ProcoreHook, "respond", respond)
    return sent


def respond_as_user(emulator, login: str, option: str) -> None:
    emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login=login, option=option)


def return_to_step(emulator) -> None:
    respond_as_user(emulator, "dana@example.com", "Return")


def test_a_response_is_sent_and_described(emulator, store):
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
        "matched_by": "label",
        "comment": "fine",
        "user_id": "90001",
        "already_recorded": False,
        "confirmed": True,
    }
    assert step_of(emulator)["step"] == "Director Approval"


def test_pin_is_stored_before_anything_is_sent(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/responses$", status=400, json={"error": "no"})

    with pytest.raises(Exception, match="400"):
        respond().execute({"task_state_store": store})

    assert store["respond"]["instance_id"] == INSTANCE
    assert responses(emulator) == []


def test_a_retry_of_a_done_response_writes_nothing(emulator, store):
    first = respond(comment="fine").execute({"task_state_store": store})
    again = respond(comment="fine").execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]
    assert {**again, "option_id": None} == {**first, "option_id": None, "already_recorded": True}


def test_step_reached_again_between_tries_gets_no_second_response(emulator, store):
    respond().execute({"task_state_store": store})
    return_to_step(emulator)
    assert step_of(emulator)["step"] == "Budget Check"

    respond().execute({"task_state_store": store})

    assert [who for who, _ in responses(emulator)] == ["90001", "90004"]
    assert step_of(emulator)["step"] == "Budget Check"


def test_step_reached_again_before_the_write_gets_no_response(emulator, store):
    store.set("respond", {"instance_id": INSTANCE, "step_occurrence_id": "an earlier occurrence"})

    with pytest.raises(AirflowFailException, match=r"StepMoved.*is now at 'Budget Check'"):
        respond().execute({"task_state_store": store})
    assert responses(emulator) == []


@pytest.mark.parametrize("policy", ["skip", "succeed"])
def test_moved_step_ends_the_task_as_on_step_moved_says(emulator, store, policy):
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
def test_a_lost_response_is_reconciled_by_reading_only_once(emulator, store, moment):
    emulator.control("POST", "faults", method="POST", path="/responses$", reset=moment)

    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


def test_response_lost_twice_is_an_unknown_outcome(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="before", times=2)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        respond().execute({"task_state_store": store})
    assert responses(emulator) == []


def test_resubmission_that_finds_the_step_moved_is_reconciled(emulator, store):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=0.05)
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")
    emulator.control(
        "POST", "faults", method="GET", path=f"/instances/{INSTANCE}$", skip=1, times=1, status=404, json={}
    )

    respond().execute({"task_state_store": store})
    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500])
def test_rejection_is_believed_only_if_no_response_is_recorded(emulator, store, status):
    emulator.control(
        "POST", "faults", method="POST", path="/responses$", status=status, json={"error": "late"}, after=True
    )

    result = respond().execute({"task_state_store": store})

    assert result["option"] == "Approve"
    assert responses(emulator) == [("90001", "Approve")]


def test_a_transition_later_than_the_response_is_waited_for(emulator, store):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=3600)

    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]
    assert step_of(emulator)["step"] == "Budget Check"


def test_comment_has_no_footer_by_default(store, sent_comments):
    respond(comment="fine").execute({"task_state_store": store, "ti": task_instance()})

    assert sent_comments == ["fine"]


def test_retry_sends_the_footer_of_the_first_try(emulator, store, monkeypatch, sent_comments):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://air.example")
    emulator.control("POST", "faults", method="POST", path="/responses$", status=500, json={"error": "no"}, times=1)
    with pytest.raises(ServerError):
        respond(comment="fine", comment_footer=True).execute({"task_state_store": store, "ti": task_instance(1)})

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://moved.example")
    result = respond(comment="fine", comment_footer=True).execute({"task_state_store": store, "ti": task_instance(2)})

    first, second = sent_comments
    assert first == second == result["comment"]
    assert first.startswith("fine\n\nAirflow: DAG orders, run run, task respond\nhttps://air.example/dags/")


def test_retry_recognizes_a_comment_with_a_footer(store, monkeypatch, capsys, sent_comments):
    respond(comment_footer=True).execute({"task_state_store": store, "ti": task_instance(1)})
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://moved.example")

    respond(comment_footer=True).execute({"task_state_store": store, "ti": task_instance(2)})

    assert len(sent_comments) == 1
    assert "has another comment" not in capsys.readouterr().out


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


def test_step_of_others_is_an_error_that_names_the_assignees(emulator, store):
    emulator.control("POST", f"procore/instances/{INSTANCE}/respond", login="integration@example.com", option="Approve")

    with pytest.raises(ConfigurationError, match="Director Approval.*Dana Director.*dana@example.com"):
        respond().execute({"task_state_store": store})


def test_without_a_store_a_retried_task_needs_its_pin(emulator):
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
        ({"option": None}, "option, option_type"),
        ({"option": "Approve", "option_type": "approve"}, "option and option_type"),
        ({"option": ""}, "option is missing"),
        ({"step_occurrence_id": ""}, "step_occurrence_id"),
        ({"on_step_moved": "retry"}, "on_step_moved"),
    ],
)
def test_a_bad_parameter_is_named_before_anything_is_sent(emulator, parameters, named):
    where = {} if {"instance_id", "item_id"} & set(parameters) else {"instance_id": INSTANCE}
    requested = {} if "option" in parameters else {"option": "Approve"}
    operator = ProcoreRespondOperator(task_id="respond", **{**where, **requested, **parameters})

    with pytest.raises(ConfigurationError, match=named):
        operator.execute({})
    assert emulator.requests() == []


def test_an_unknown_option_is_rejected_with_the_candidates(emulator, store):
    with pytest.raises(ConfigurationError, match="option 'Aprove' matches no option.*'Approve'"):
        respond(option="Aprove").execute({"task_state_store": store})
    assert responses(emulator) == []


@pytest.mark.parametrize(
    "flags",
    [{"stale_step": "404"}, {"non_assignee": "422"}, {"ended_instance": "403"}, {"history": "events_only"}],
)
def test_a_retry_is_safe_in_every_position_of_the_contracts_gaps(emulator, store, flags):
    emulator.control("PATCH", "flags", **flags)

    respond().execute({"task_state_store": store})
    respond().execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize(
    ("requested", "found", "matched_by"),
    [
        ({"option": "reject"}, 2, "label"),
        ({"option": 0}, 0, "id"),
        ({"option_type": "approve"}, 0, "type"),
    ],
)
def test_result_and_log_say_what_matched_the_option(emulator, store, capsys, requested, found, matched_by):
    if requested.get("option") == 0:
        requested = {"option": int(option_id(0))}

    result = respond(**requested).execute({"task_state_store": store})
    again = respond(**requested).execute({"task_state_store": store})

    assert (result["option"], result["matched_by"], again["matched_by"]) == (
        ["Approve", None, "Reject"][found],
        *[matched_by] * 2,
    )
    assert f"found by its {matched_by}" in capsys.readouterr().out


@pytest.fixture
def a_label_is_an_id(monkeypatch):
    """Name the third option by the id of the first one."""
    shown = ProcoreHook.get_instance

    def get_instance(*args, **kwargs):
        instance = shown(*args, **kwargs)
        options = (instance.get("current_step_occurrence") or {}).get("available_response_options") or []
        if options:
            options[2]["name"] = options[0]["id"]
        return instance

    monkeypatch.setattr(ProcoreHook, "get_instance", get_instance)


@pytest.mark.usefixtures("a_label_is_an_id")
def test_label_wins_over_the_id_of_another_option(emulator, store):
    approve, reject = option_id(0), option_id(2)

    result = respond(option=approve).execute({"task_state_store": store})

    assert (result["option_id"], result["matched_by"]) == (reject, "label")
    assert responses(emulator) == [("90001", "Reject")]


def test_retry_compares_a_label_with_all_options_of_the_step(emulator, store):
    where = {"step_occurrence_id": step_of(emulator)["step_occurrence_id"]}
    approve = option_id(0)
    respond(**where, option=approve).execute({"task_state_store": store})
    stored = store["chosen_option"]
    store.set("chosen_option", {**stored, "others": [{"id": "9", "name": approve, "type": "reject"}]})

    with pytest.raises(AirflowFailException, match="ResponseConflict"):
        respond(**where, option=approve).execute({"task_state_store": store})
    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize("with_store", [True, False])
def test_option_chosen_by_id_is_recognized_after_the_step(emulator, store, with_store):
    options = ProcoreHook().get_instance(INSTANCE)["current_step_occurrence"]["available_response_options"]
    requested = {"option": options[0]["id"], "step_occurrence_id": step_of(emulator)["step_occurrence_id"]}
    context = {"task_state_store": store} if with_store else {}
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")

    first = respond(**requested).execute(context)
    again = respond(**requested).execute(context)

    assert (first["option"], again["already_recorded"]) == ("Approve", True)
    assert responses(emulator) == [("90001", "Approve")]


def test_another_option_by_its_id_is_a_conflict_after_the_step(emulator, store):
    options = ProcoreHook().get_instance(INSTANCE)["current_step_occurrence"]["available_response_options"]
    where = {"step_occurrence_id": step_of(emulator)["step_occurrence_id"]}
    store.set("chosen_option", {"id": options[2]["id"], "name": "Reject", "type": "reject"})
    respond(**where).execute({})

    with pytest.raises(AirflowFailException, match="ResponseConflict"):
        respond(**where, option=options[2]["id"]).execute({"task_state_store": store})


def test_response_by_item_is_found_after_a_restart(emulator, store):
    requested = {"tool_type": TOOL, "item_id": "5001", "step_occurrence_id": step_of(emulator)["step_occurrence_id"]}
    first = respond(**requested).execute({"task_state_store": store})
    ProcoreHook().restart_instance(INSTANCE)

    again = respond(**requested).execute({"task_state_store": store})

    assert (again["instance_id"], again["already_recorded"]) == (first["instance_id"], True)
    assert responses(emulator) == [("90001", "Approve")]


def test_forbidden_history_does_not_fail_an_accepted_response(emulator, store):
    emulator.control("POST", "faults", method="GET", path="/history$", times=99, status=403, json={})

    assert respond().execute({"task_state_store": store})["option"] == "Approve"


# --- malformed responses of Procore ---

STEP = f"{INSTANCE}01"
READS = rf"/instances/{INSTANCE}(/history)?$"


def set_flags(emulator, **values) -> None:
    emulator.control("PATCH", "flags", **values)


def sent(emulator) -> int:
    return len([r for r in emulator.requests() if r["method"] == "POST" and r["path"].endswith("/responses")])


def option_id(number: int) -> str:
    options = ProcoreHook().get_instance(INSTANCE)["current_step_occurrence"]["available_response_options"]
    return options[number]["id"]


def by_id(store, option: str, **parameters):
    requested = {"option": option, "step_occurrence_id": STEP, "confirm_timeout": 0, **parameters}
    return respond(**requested).execute({"task_state_store": store})


@pytest.mark.parametrize("cleared", [True, False])
@pytest.mark.parametrize("response_id", ["option", "response"])
def test_id_of_another_option_than_recorded_is_a_conflict(emulator, store, response_id, cleared):
    set_flags(emulator, history_response_id=response_id)
    approve, reject = option_id(0), option_id(2)
    by_id(store, reject)
    if cleared:
        store.clear()

    with pytest.raises(AirflowFailException, match="ResponseConflict.*'Reject'"):
        by_id(store, approve)
    assert responses(emulator) == [("90001", "Reject")]


@pytest.mark.parametrize(("response_id", "known"), [("option", True), ("response", False)])
def test_recorded_option_matches_an_id_only_if_it_shows_one(emulator, store, response_id, known):
    set_flags(emulator, history_response_id=response_id)
    approve = option_id(0)
    by_id(store, approve)
    store.clear()

    if known:
        assert by_id(store, approve)["already_recorded"] is True
    else:
        with pytest.raises(AirflowFailException, match="ResponseConflict"):
            by_id(store, approve)
    assert sent(emulator) == 1


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize("events", ["none", "response_steps"])
def test_lost_response_that_cannot_be_read_is_an_unknown_outcome(emulator, store, status, events):
    set_flags(emulator, hidden_events=events)
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")
    emulator.control("POST", "faults", method="GET", path=READS, skip=1, times=99, status=status, json={})

    with pytest.raises(AirflowFailException, match=f"OutcomeUnknown.*{STEP}"):
        respond(confirm_timeout=0, on_step_moved="succeed").execute({"task_state_store": store})
    assert responses(emulator) == [("90001", "Approve")]
    assert sent(emulator) <= 2


@pytest.mark.parametrize("policy", ["fail", "skip", "succeed"])
@pytest.mark.parametrize("hiding", [{"hidden_events": "response_steps"}, {"history_step_id": "step"}])
def test_lost_response_to_a_moved_step_is_unknown(emulator, store, hiding, policy):
    set_flags(emulator, **hiding)
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        respond(confirm_timeout=0, on_step_moved=policy).execute({"task_state_store": store})
    assert sent(emulator) == 1


def test_204_of_the_resubmission_counts_as_the_response_own(emulator, store):
    set_flags(emulator, transition="delayed", transition_delay=3600)
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")
    emulator.control("POST", "faults", method="GET", path=READS, skip=1, times=99, status=404, json={})

    result = respond(confirm_timeout=0).execute({"task_state_store": store})

    assert (result["option"], result["confirmed"], result["already_recorded"]) == ("Approve", False, False)
    assert (responses(emulator), sent(emulator)) == ([("90001", "Approve")], 2)


@pytest.mark.parametrize("events", ["none", "response_steps"])
def test_retry_of_a_killed_response_finds_it_or_says_unknown(emulator, store, dies, events):
    set_flags(emulator, hidden_events=events)
    dies(ProcoreHook, "respond", "after")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})

    again = respond(confirm_timeout=0, on_step_moved="succeed")
    if events == "none":
        assert again.execute({"task_state_store": store})["already_recorded"] is True
    else:
        with pytest.raises(AirflowFailException, match="OutcomeUnknown.*'Approve'"):
            again.execute({"task_state_store": store})
    assert sent(emulator) == 1


@pytest.mark.parametrize("status", [403, 404, 500])
def test_retry_of_a_killed_response_without_reads_is_unknown(emulator, store, dies, status):
    dies(ProcoreHook, "respond", "after")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    emulator.control("POST", "faults", method="GET", path=READS, times=99, status=status, json={})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    assert sent(emulator) == 1


def test_retry_sends_a_response_killed_before_it_was_sent(emulator, store, dies):
    dies(ProcoreHook, "respond", "before")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})

    respond(confirm_timeout=0).execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


@pytest.mark.parametrize("policy", ["fail", "succeed"])
def test_retry_never_says_moved_of_a_response_that_was_sent(emulator, store, dies, policy):
    dies(ProcoreHook, "respond", "before")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        respond(confirm_timeout=0, on_step_moved=policy).execute({"task_state_store": store})


def test_rejected_second_try_of_a_killed_response_stays_unknown(emulator, store, dies):
    dies(ProcoreHook, "respond", "before")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    emulator.control("POST", "faults", method="POST", path="/responses$", times=9, status=422, json={"error": "no"})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*422"):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    assert sent(emulator) == 1


@pytest.mark.parametrize("change", [{"files": "/nowhere/quote.pdf"}, {"option": "Aprove"}])
def test_retry_that_cannot_send_again_says_that_it_may_be_sent(emulator, store, dies, change):
    dies(ProcoreHook, "respond", "before")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})

    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        respond(confirm_timeout=0, **change).execute({"task_state_store": store})


@pytest.mark.parametrize("lost", [0, 1])
def test_retry_after_a_kill_behind_the_204_needs_no_record(emulator, store, dies, lost):
    set_flags(emulator, hidden_events="response_steps")
    if lost:
        emulator.control("POST", "faults", method="POST", path="/responses$", reset="before", times=lost)
    dies(ProcoreRespondOperator, "_confirmed", "before")
    with pytest.raises(Killed):
        respond(confirm_timeout=0).execute({"task_state_store": store})

    again = respond(confirm_timeout=0).execute({"task_state_store": store})

    assert (again["option"], again["step"], again["item_id"]) == ("Approve", "Budget Check", "5001")
    assert (again["already_recorded"], again["confirmed"], sent(emulator)) == (True, False, 1 + lost)


def test_another_option_after_a_taken_one_is_a_conflict(emulator, store):
    set_flags(emulator, hidden_events="response_steps")
    respond(confirm_timeout=0).execute({"task_state_store": store})

    with pytest.raises(AirflowFailException, match="ResponseConflict.*'Approve'.*'Reject'"):
        respond(option="Reject", confirm_timeout=0).execute({"task_state_store": store})


@pytest.mark.parametrize("labels", ["option", "status"])
@pytest.mark.parametrize("requested", [{"option": " approve "}, {"option_type": "approve"}])
def test_response_is_recognized_by_its_type_under_any_label(emulator, store, labels, requested):
    set_flags(emulator, history_labels=labels)
    emulator.control("POST", "faults", method="POST", path="/responses$", reset="after")

    first = respond(confirm_timeout=0, **requested).execute({"task_state_store": store})
    again = respond(confirm_timeout=0, **requested).execute({"task_state_store": store})

    assert (first["option"], first["confirmed"]) == ("Approve", True)
    assert again == {**first, "already_recorded": True}
    assert sent(emulator) == 1


@pytest.mark.parametrize(("status", "posts"), [("200", 1), ("200_error", 2)])
def test_undocumented_status_is_believed_with_a_record_only(emulator, store, status, posts):
    set_flags(emulator, respond_status=status)
    if status == "200":
        assert respond(confirm_timeout=0).execute({"task_state_store": store})["confirmed"] is True
    else:
        with pytest.raises(AirflowFailException, match="OutcomeUnknown.*200"):
            respond(confirm_timeout=0).execute({"task_state_store": store})
    assert sent(emulator) == posts


def test_undocumented_status_without_a_record_is_unknown(emulator, store):
    set_flags(emulator, respond_status="200", hidden_events="response_steps")

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*200"):
        respond(confirm_timeout=0).execute({"task_state_store": store})


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "hiding", [{"hidden_events": "response_steps"}, {"history_step_id": "step"}, {"history": "absent"}]
)
@pytest.mark.parametrize("transition", ["at_once", "in_between"])
def test_hidden_history_does_not_fail_a_documented_204(emulator, store, hiding, transition):
    set_flags(emulator, transition=transition, transition_delay=3600, **hiding)

    result = respond(confirm_timeout=0).execute({"task_state_store": store})

    assert (result["confirmed"], result["already_recorded"]) == (False, False)
    assert responses(emulator) == [("90001", "Approve")]


def test_204_of_a_step_that_still_waits_is_an_unknown_outcome(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/responses$", status=204)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*still waits for user 90001"):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    assert (responses(emulator), sent(emulator)) == ([], 1)


def test_failing_server_is_believed_where_the_step_still_waits(emulator, store):
    emulator.control("POST", "faults", method="POST", path="/responses$", status=500, json={}, times=2)
    for _ in range(2):
        with pytest.raises(ServerError):
            respond(confirm_timeout=0).execute({"task_state_store": store})

    respond(confirm_timeout=0).execute({"task_state_store": store})

    assert responses(emulator) == [("90001", "Approve")]


def test_server_error_after_a_hidden_effect_is_unknown(emulator, store):
    set_flags(emulator, hidden_events="response_steps")
    emulator.control("POST", "faults", method="POST", path="/responses$", status=500, json={}, after=True)

    with pytest.raises(AirflowFailException, match="OutcomeUnknown.*500"):
        respond(confirm_timeout=0).execute({"task_state_store": store})


# --- what it is bound to ---


@pytest.mark.parametrize("where", [{}, {"item_id": "5001", "tool_type": TOOL}])
def test_step_of_another_user_binds_nothing(emulator, store, where):
    respond_as_user(emulator, "integration@example.com", "Approve")
    with pytest.raises(ConfigurationError, match="90001.*Director Approval.*dana@example.com.*RequestedSensor"):
        respond(**where).execute({"task_state_store": store})
    assert store == {}
    return_to_step(emulator)
    waiting = step_of(emulator)["step_occurrence_id"]

    result = respond(**where).execute({"task_state_store": store})

    assert (result["step_occurrence_id"], result["option"]) == (waiting, "Approve")


def test_option_that_does_not_exist_binds_nothing(emulator, store):
    with pytest.raises(ConfigurationError):
        respond(option="Aprove").execute({"task_state_store": store})

    assert store == {}


def test_instance_of_another_item_is_not_responded_to(emulator, store):
    set_flags(emulator, filters="ignored")
    emulator.control("POST", "procore/instances", tool_type=TOOL, item_id="5002")

    result = respond(item_id="5001", tool_type=TOOL).execute({"task_state_store": store})

    assert (result["instance_id"], result["item_id"]) == (INSTANCE, "5001")
    assert step_of(emulator, "700002")["step"] == "Budget Check"


def test_instance_that_shows_another_item_is_not_responded_to(emulator, store):
    other = {"data": [{"id": INSTANCE, "tool_type": TOOL, "ended_at": None}]}
    emulator.control("POST", "faults", method="GET", path="/workflows/instances$", status=200, json=other)

    with pytest.raises(NotFound, match="Item 4711"):
        respond(item_id="4711", tool_type=TOOL).execute({"task_state_store": store})
    assert sent(emulator) == 0


@pytest.mark.parametrize("policy", ["fail", "skip", "succeed"])
def test_between_two_steps_is_not_an_end(emulator, store, policy):
    respond_as_user(emulator, "integration@example.com", "Approve")
    set_flags(emulator, transition="in_between", transition_delay=3600)
    return_to_step(emulator)
    with pytest.raises(WorkflowsError, match="between two steps") as raised:
        respond(on_step_moved=policy, confirm_timeout=0).execute({"task_state_store": store})
    assert raised.value.retryable
    assert store == {}
    emulator.control("POST", "clock", advance=3601)

    assert respond(confirm_timeout=0).execute({"task_state_store": store})["option"] == "Approve"


def test_empty_end_is_not_an_end(emulator, store, monkeypatch):
    shown = ProcoreHook.get_instance

    def with_empty_end(*args, **kwargs):
        instance = shown(*args, **kwargs)
        return {**instance, "ended_at": instance["ended_at"] or " "}

    monkeypatch.setattr(ProcoreHook, "get_instance", with_empty_end)

    assert respond().execute({"task_state_store": store})["confirmed"] is True


@pytest.mark.sample(3)
@pytest.mark.parametrize("policy", ["fail", "skip", "succeed"])
@pytest.mark.parametrize(
    ("how", "flags"),
    [
        *[("ended", {"ended_instance": status}) for status in ("422", "404", "403")],
        *[("moved", {"stale_step": status}) for status in ("422", "404")],
    ],
)
def test_step_that_moves_before_the_write_ends_as_configured(emulator, store, monkeypatch, policy, how, flags):
    set_flags(emulator, **flags)
    really = ProcoreHook.respond

    def too_late(hook, *args, **kwargs):
        if how == "ended":
            emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")
        else:  # the connection's user, by another way: the step is over without a response that the record shows
            respond_as_user(emulator, "integration@example.com", "Reject")
        return really(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreHook, "respond", too_late)
    set_flags(emulator, hidden_events="response_steps")
    operator = respond(on_step_moved=policy, confirm_timeout=0)

    if policy == "succeed":
        assert operator.execute({"task_state_store": store}) is None
    else:
        error = {"fail": AirflowFailException, "skip": AirflowSkipException}[policy]
        with pytest.raises(error, match="is over"):
            operator.execute({"task_state_store": store})


# --- what the log says ---


def test_response_leaves_one_line_with_all_its_ids_and_no_comment(emulator, store, capsys):
    respond(comment="a secret deal").execute({"task_state_store": store})

    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if "Responded" in line]
    assert all(text in line for text in ("'Approve'", "'Budget Check'", INSTANCE, "5001", "90001", STEP))
    assert "a secret deal" not in output


@pytest.mark.parametrize("policy", ["skip", "succeed"])
def test_success_without_a_write_says_why(emulator, store, capsys, policy):
    with contextlib.suppress(AirflowSkipException):
        respond(step_occurrence_id="gone", on_step_moved=policy).execute({"task_state_store": store})

    assert f"on_step_moved is '{policy}'" in capsys.readouterr().out


@pytest.mark.parametrize(("status", "error"), [("403", PermissionDenied), ("422", InvalidRequest)])
def test_user_who_is_replaced_between_read_and_write_is_rejected(emulator, store, monkeypatch, status, error):
    set_flags(emulator, non_assignee=status)
    really = ProcoreHook.respond

    def too_late(hook, *args, **kwargs):
        request = {"replacement_type": "permanent", "old_assignee_id": "90001", "new_assignee_ids": ["90005"]}
        hook.create_bulk_replace_request({**request, "modify_project_roles": True, "reason": "other"})
        return really(hook, *args, **kwargs)

    monkeypatch.setattr(ProcoreHook, "respond", too_late)
    with pytest.raises(error):
        respond(confirm_timeout=0).execute({"task_state_store": store})

    with pytest.raises(ConfigurationError, match="lee@example.com"):
        respond(confirm_timeout=0).execute({"task_state_store": store})
    assert responses(emulator) == []
