"""Responses to many instances: planned, approved as planned, and each sent once."""

from __future__ import annotations

import csv
import json
from decimal import Decimal
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import ConfigurationError, RateLimited, ResponsesUnfinished
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcoreBulkRespondOperator
from tests.support.killed import Killed

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

TOOL = "purchase_order_contract"


def bulk(responses=None, **parameters) -> ProcoreBulkRespondOperator:
    responses_parameter = {} if responses is None else {"responses": responses}
    return ProcoreBulkRespondOperator(task_id="bulk", **{"confirm_timeout": 0.2, **responses_parameter, **parameters})


def plan_of(responses, **parameters) -> dict:
    return bulk(responses, **parameters).execute({})


def apply(responses=None, store=None, **parameters) -> dict:
    context = {} if store is None else {"task_state_store": store}
    return bulk(responses, mode="apply", **parameters).execute(context)


def start(emulator, count: int, **where) -> list[str]:
    """Let a user start so many instances, each at a step that waits for the connection's user; return their ids."""
    return emulator.control("POST", "procore/instances/many", count=count, **where)["ids"]


def responses(emulator) -> list[tuple[str, str]]:
    effects = (effect for effect in emulator.effects() if (effect["action"], effect["via"]) == ("respond", "api"))
    return [(effect["target"]["instance_id"], effect["detail"]["option"]) for effect in effects]


def writes(emulator) -> list[dict]:
    return [request for request in emulator.requests() if request["path"].endswith("/responses")]


def reasons(result: dict) -> list[str | None]:
    return [row["skipped"] for row in result["rows"]]


# --- the plan ---


def test_plan_says_what_would_be_sent_and_sends_nothing(emulator):
    first, second = start(emulator, 2)

    plan = plan_of(
        [{"instance_id": first, "response": "approve", "comment": "ok"}, {"instance_id": second, "response": "Reject"}]
    )

    assert (plan["mode"], plan["to_send"], plan["skipped"]) == ("plan", 2, {})
    rows = [(row["instance_id"], row["step"], row["option"], row["comment"]) for row in plan["rows"]]
    assert rows == [(first, "Budget Check", "Approve", "ok"), (second, "Budget Check", "Reject", None)]
    assert [row["step_occurrence_id"] for row in plan["rows"]] == [f"{first}01", f"{second}01"]
    assert writes(emulator) == []
    assert json.loads(json.dumps(plan)) == plan


def test_mapping_rows_and_data_frames_are_the_same_plan(emulator):
    ids = start(emulator, 2)
    rows = [{"instance_id": int(each), "response": "Approve"} for each in ids]
    frames = [
        SimpleNamespace(to_dict=lambda how: rows if how == "records" else None),
        SimpleNamespace(to_dicts=lambda: rows, to_dict=lambda: None),
    ]

    hashes = {
        plan_of(responses)["plan_hash"] for responses in (dict.fromkeys(ids, "Approve"), rows, rows[::-1], *frames)
    }

    assert len(hashes) == 1


def test_hash_changes_with_each_thing_that_is_sent(emulator):
    first, second = start(emulator, 2)
    different = [
        {first: "Approve"},
        {second: "Approve"},
        {first: "Reject"},
        {first: {"response": "Approve", "comment": "ok"}},
        {first: "Approve", second: "Approve"},
    ]

    assert len({plan_of(responses)["plan_hash"] for responses in different}) == len(different)


def test_row_of_an_item_is_planned_for_its_active_instance(emulator):
    (first,) = start(emulator, 1)
    item = next(
        instance["item_id"] for instance in emulator.control("GET", "state")["procore"] if instance["id"] == first
    )

    plan = plan_of([{"item_id": item, "response": "Approve"}], tool_type=TOOL)

    assert [row["instance_id"] for row in plan["rows"]] == [first]


@pytest.mark.parametrize("count", [1, 8], ids=["alone", "in bulk"])
def test_each_row_that_is_not_sent_says_why(emulator, count):
    others = start(emulator, count)
    own, moved, ended, theirs, same, unreadable = start(emulator, 6)
    emulator.control("POST", f"procore/instances/{moved}/override", option="Return")
    emulator.control("POST", f"procore/instances/{ended}/terminate")
    emulator.control("POST", f"procore/instances/{theirs}/respond", login="90001", option="Approve")
    emulator.control("POST", f"procore/instances/{unreadable}/hide")
    rows = [
        *({"instance_id": each, "response": "Approve"} for each in others),
        {"instance_id": own, "response": "Agree"},
        {"instance_id": moved, "response": "Approve", "step": "budget check"},
        {"instance_id": moved, "response": "Approve", "step_occurrence_id": f"{moved}01"},
        {"instance_id": ended, "response": "Approve"},
        {"instance_id": theirs, "response": "Approve"},
        {"instance_id": same, "response": "Approve"},
        {"instance_id": same, "response": "approve"},
        {"instance_id": unreadable, "response": "Approve"},
        {"instance_id": theirs, "response": "Approve", "step_occurrence_id": f"{theirs}01"},
    ]

    plan = plan_of(rows)

    expected = [
        *("unknown_option", "moved_on", "moved_on", "ended", "not_pending", None, "duplicate", "unreadable"),
        "already_responded",
    ]
    assert reasons(plan)[count:] == expected
    assert plan["to_send"] == count + 1
    assert all(row["reason"] for row in plan["rows"] if row["action"] == "skip")


def test_rows_that_contradict_each_other_are_not_sent(emulator):
    (first,) = start(emulator, 1)

    plan = plan_of([{"instance_id": first, "response": "Approve"}, {"instance_id": first, "response": "Reject"}])

    assert reasons(plan) == ["duplicate", "duplicate"]
    assert plan["to_send"] == 0


def test_instance_between_two_steps_is_skipped(emulator):
    (first,) = start(emulator, 1)
    emulator.control("PATCH", "flags", transition="in_between", transition_delay=3600)
    emulator.control("POST", f"procore/instances/{first}/override", option="Approve")

    assert reasons(plan_of({first: "Approve"})) == ["between_steps"]


def test_rows_of_the_sensor_and_of_two_projects_can_be_planned(emulator):
    (first,), (second,) = start(emulator, 1), start(emulator, 1, project_id="1002")
    sensed = [
        {
            "instance_id": instance_id,
            "item_id": "x",
            "tool_type": TOOL,
            "project_id": project,
            "step": "Budget Check",
            "options": [],
        }
        for instance_id, project in ((first, "1001"), (second, "1002"))
    ]
    items = {instance["id"]: instance["item_id"] for instance in emulator.control("GET", "state")["procore"]}

    plan = plan_of([{**row, "item_id": items[row["instance_id"]], "response": "Approve"} for row in sensed])

    assert [(row["action"], row["project_id"]) for row in plan["rows"]] == [("send", "1001"), ("send", "1002")]
    assert [row["columns"] for row in plan["rows"]] == [{}, {}]  # no lists


def test_row_whose_instance_is_of_another_item_is_not_sent(emulator):
    (first,) = start(emulator, 1)

    assert reasons(plan_of([{"instance_id": first, "item_id": "1", "response": "Approve"}])) == ["unreadable"]


# --- bad input ---


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"responses": []}, "responses"),
        ({"responses": "{{ x }}"}, "responses"),
        ({"responses": [["7", "Approve"]]}, "row 1"),
        ({"responses": [{"instance_id": "7", "response": "a"}, {"instance_id": "8"}]}, "row 2: response"),
        ({"responses": [{"response": "Approve"}]}, "row 1: instance_id"),
        ({"responses": [{"instance_id": 7.0, "response": "Approve"}]}, "row 1: instance_id"),
        ({"responses": [{"instance_id": "7.0", "response": "Approve"}]}, "row 1: instance_id"),
        ({"responses": [{"instance_id": float("nan"), "response": "Approve"}]}, "row 1: instance_id"),
        ({"responses": [{"instance_id": "7", "response": "Approve", "comment": "None"}]}, "row 1: comment"),
        ({"responses": [{"instance_id": "7", "response": "Approve", "step_occurrence_id": ""}]}, "step_occurrence_id"),
        ({"responses": [{"item_id": "7", "response": "Approve"}]}, "row 1.*tool_type"),
        ({"responses": {"7": "Approve"}, "mode": "send"}, "mode"),
        ({"responses": {"7": "Approve"}, "plan_hash": "x"}, "plan_hash"),
        ({"responses": {"7": "Approve"}, "plan": {}, "mode": "apply"}, "both"),
        ({}, "none"),
        ({"plan": {"rows": []}, "mode": "apply"}, "plan"),
        ({"plan": {"rows": [{}], "options": [], "plan_hash": "x"}, "mode": "apply"}, "plan"),
        ({"responses": {"7": "Approve"}, "max_responses": 0}, "max_responses"),
        ({"responses": {"7": "Approve"}, "max_responses": True}, "max_responses"),
        ({"responses": {"7": "Approve"}, "max_total": {"amount": "much"}}, "max_total"),
        ({"responses": {"7": "Approve"}, "max_total": {"amount": -1}}, "max_total"),
        ({"responses": {"7": "Approve"}, "max_total": {}}, "max_total"),
        ({"responses": {"7": "Approve"}, "max_total": {"comment": 1}}, "max_total"),
    ],
)
def test_bad_input_is_named_before_anything_is_read(emulator, parameters, named):
    before = len(emulator.requests())

    with pytest.raises(ConfigurationError, match=named):
        bulk(**parameters).execute({})
    assert [r for r in emulator.requests()[before:] if "/workflows/" in r["path"]] == []


@pytest.mark.parametrize("amount", [None, float("nan"), Decimal("nan"), "a lot", "1,5", True, float("inf"), ...])
def test_amount_that_is_not_a_number_is_named(amount):
    row = {"instance_id": "7", "response": "Approve"} | ({} if amount is ... else {"amount": amount})

    with pytest.raises(ConfigurationError, match="row 1: amount"):
        apply([row], max_total={"amount": 10})


@pytest.mark.parametrize(
    ("amounts", "cap", "fits"),
    [
        ([0.1, 0.2], "0.3", True),
        ([Decimal("0.1"), "0.2000000000000000000000000000000000000001"], "0.3", False),
        (["99999999999999999999999999999999.01", "0.01"], "99999999999999999999999999999999.02", True),
        (["99999999999999999999999999999999.01", "0.02"], "99999999999999999999999999999999.02", False),
        ([200, -150], 100, False),
        ([100, 0], 100, True),
    ],
)
def test_total_of_a_column_is_exact_and_capped(emulator, amounts, cap, fits):
    ids = start(emulator, 2)
    rows = [{"instance_id": i, "response": "Approve", "amount": a} for i, a in zip(ids, amounts, strict=True)]

    if fits:
        assert apply(rows, max_total={"amount": cap})["sent"] == 2
    else:
        with pytest.raises(ConfigurationError, match="total of amount"):
            apply(rows, max_total={"amount": cap})
    assert len(writes(emulator)) == (2 if fits else 0)


def test_skipped_rows_do_not_count_for_the_caps(emulator):
    first, second = start(emulator, 2)
    emulator.control("POST", f"procore/instances/{second}/terminate")
    rows = [
        {"instance_id": first, "response": "Approve", "amount": 5},
        {"instance_id": second, "response": "Approve", "amount": 9},
    ]

    result = apply(rows, max_total={"amount": 5}, max_responses=1)

    assert (result["sent"], result["totals"]) == (1, {"amount": "5"})


def test_more_responses_than_the_cap_are_not_sent(emulator):
    ids = start(emulator, 3)

    with pytest.raises(ConfigurationError, match="max_responses"):
        apply(dict.fromkeys(ids, "Approve"), max_responses=2)
    assert writes(emulator) == []


# --- approval ---


def test_the_approved_plan_is_applied(emulator, store):
    ids = start(emulator, 2)
    plan = plan_of(dict.fromkeys(ids, "Approve"))

    result = apply(plan=plan, plan_hash=plan["plan_hash"], store=store)

    assert responses(emulator) == [(ids[0], "Approve"), (ids[1], "Approve")]
    assert (result["sent"], result["plan_hash"], result["unconfirmed"]) == (2, plan["plan_hash"], 0)
    assert [(row["status"], row["confirmed"]) for row in result["rows"]] == [("sent", True)] * 2


def test_rows_are_applied_only_if_their_plan_has_the_approved_hash(emulator):
    ids = start(emulator, 2)
    approved = plan_of(dict.fromkeys(ids, "Approve"))["plan_hash"]

    with pytest.raises(ConfigurationError, match="plan_hash"):
        apply({ids[0]: "Approve", ids[1]: "Reject"}, plan_hash=approved)
    assert writes(emulator) == []
    assert apply(dict.fromkeys(ids, "Approve"), plan_hash=approved)["sent"] == 2


@pytest.mark.parametrize("changed", ["option_id", "instance_id", "comment", "step_occurrence_id", "action"])
def test_plan_that_was_changed_is_not_applied(emulator, changed):
    ids = start(emulator, 2)
    plan = plan_of(dict.fromkeys(ids, "Approve"))
    plan["rows"][0][changed] = "1"

    with pytest.raises(ConfigurationError, match="plan"):
        apply(plan=plan)
    assert writes(emulator) == []


def test_other_plan_than_the_approved_one_is_not_applied(emulator):
    first, second = start(emulator, 2)
    approved = plan_of({first: "Approve"})["plan_hash"]

    with pytest.raises(ConfigurationError, match="plan_hash"):
        apply(plan=plan_of({second: "Approve"}), plan_hash=approved)
    assert writes(emulator) == []


@pytest.mark.parametrize("count", [2, 9], ids=["alone", "in bulk"])
def test_instance_that_moved_after_the_approval_gets_no_response(emulator, count):
    ids = start(emulator, count)
    plan = plan_of(dict.fromkeys(ids, "Approve"))
    emulator.control("POST", f"procore/instances/{ids[0]}/override", option="Approve")
    emulator.control("POST", f"procore/instances/{ids[0]}/respond", login="dana@example.com", option="Return")
    emulator.control("POST", f"procore/instances/{ids[1]}/respond", login="90001", option="Approve")

    result = apply(plan=plan)

    assert reasons(result) == ["moved_on", *[None] * (count - 1)]
    assert [row["status"] for row in result["rows"]] == ["skipped", "already_recorded", *["sent"] * (count - 2)]
    assert responses(emulator) == [(each, "Approve") for each in ids[2:]]


# --- once ---


def test_a_retry_sends_nothing_twice(emulator, store):
    ids = start(emulator, 3)

    first = apply(dict.fromkeys(ids, "Approve"), store=store)
    again = apply(dict.fromkeys(ids, "Approve"), store=store)

    assert responses(emulator) == [(each, "Approve") for each in ids]
    assert again == first


@pytest.mark.parametrize("dead", [False, True])
def test_row_that_could_not_be_read_is_decided_by_a_retry(emulator, store, dies, dead):
    first, hidden, last = start(emulator, 3)
    rows = [(hidden, "Approve"), (first, "Approve"), (hidden, "Approve"), (last, "Reject")]
    rows = [{"instance_id": each, "response": option} for each, option in rows]
    fault = {"method": "GET", "path": f"/instances/{hidden}$", "status": 500, "json": {}}
    emulator.control("POST", "faults", **fault, times=99)
    with pytest.raises(ResponsesUnfinished):
        apply(rows, store=store)
    emulator.control("DELETE", "faults")
    if dead:
        dies(type(store), "set", "before", about="bulk_responses_0")
        with pytest.raises(Killed):
            apply(rows, store=store)

    result = apply(rows, store=store)

    assert reasons(result) == [None, None, "duplicate", None]
    assert responses(emulator) == [(first, "Approve"), (last, "Reject"), (hidden, "Approve")]


def test_unread_row_of_an_approved_plan_is_not_retried(emulator, store):
    (hidden,) = start(emulator, 1)
    emulator.control("POST", f"procore/instances/{hidden}/hide")
    plan = plan_of({hidden: "Approve"})

    with pytest.raises(AirflowFailException, match="could not be read"):
        bulk(None, mode="apply", plan=plan).execute({"task_state_store": store})
    assert writes(emulator) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_response_whose_try_was_killed_is_not_sent_twice(emulator, store, dies, moment):
    ids = start(emulator, 3)
    dies(ProcoreHook, "respond", moment, about=ids[1])

    with pytest.raises(Killed):
        apply(dict.fromkeys(ids, "Approve"), store=store)
    result = apply(dict.fromkeys(ids, "Approve"), store=store)

    assert responses(emulator) == [(each, "Approve") for each in ids]
    assert (result["sent"] + result["already_recorded"], result["failed"]) == (3, 0)


def test_step_that_is_reached_again_after_a_kill_gets_no_response(emulator, store, dies):
    ids = start(emulator, 2)
    dies(ProcoreHook, "respond", "after", about=ids[0])
    with pytest.raises(Killed):
        apply(dict.fromkeys(ids, "Approve"), store=store)
    emulator.control("POST", f"procore/instances/{ids[0]}/respond", login="dana@example.com", option="Return")

    result = apply(dict.fromkeys(ids, "Approve"), store=store)

    assert responses(emulator) == [(each, "Approve") for each in ids]
    assert [row["status"] for row in result["rows"]] == ["already_recorded", "sent"]


def test_lost_response_is_found_on_the_record(emulator, store):
    ids = start(emulator, 2)
    emulator.control("POST", "faults", method="POST", path=f"{ids[0]}/responses$", reset="after")

    result = apply(dict.fromkeys(ids, "Approve"), store=store)

    assert responses(emulator) == [(each, "Approve") for each in ids]
    assert result["sent"] == 2


def test_failed_row_concerns_only_itself_and_is_retried_alone(emulator, store):
    ids = start(emulator, 3)
    emulator.control("POST", "faults", method="POST", path=f"{ids[1]}/responses$", status=400, json={"error": "no"})

    with pytest.raises(ResponsesUnfinished, match=ids[1]):
        apply(dict.fromkeys(ids, "Approve"), store=store)
    assert responses(emulator) == [(ids[0], "Approve"), (ids[2], "Approve")]
    sent_before = len(writes(emulator))
    result = apply(dict.fromkeys(ids, "Approve"), store=store)

    assert len(writes(emulator)) == sent_before + 1
    assert (result["sent"], result["failed"]) == (3, 0)


def test_row_with_unknown_outcome_is_reported_and_not_sent_again(emulator, store):
    ids = start(emulator, 2)
    lost = {"method": "POST", "path": f"{ids[0]}/responses$", "reset": "before", "times": 2}
    emulator.control("POST", "faults", **lost)
    emulator.control(
        "POST", "faults", method="GET", path=f"instances/{ids[0]}", status=404, json={}, times=1000, skip=1
    )

    with pytest.raises(AirflowFailException, match=f"OutcomeUnknown(.|\n)*{ids[0]}"):
        apply(dict.fromkeys(ids, "Approve"), store=store)
    assert responses(emulator) == [(ids[1], "Approve")]
    emulator.control("DELETE", "faults")
    with pytest.raises(AirflowFailException, match="OutcomeUnknown"):
        apply(dict.fromkeys(ids, "Approve"), store=store)

    assert responses(emulator) == [(ids[1], "Approve")]


def test_response_that_shows_late_after_a_500_is_not_sent_again(emulator, store):
    (first,) = start(emulator, 1)
    emulator.control("POST", "faults", method="POST", path="/responses$", status=500, json={})
    with pytest.raises(ResponsesUnfinished, match=first):
        apply({first: "Approve"}, store=store, confirm_timeout=0)
    emulator.control("POST", f"procore/instances/{first}/respond", login="90001", option="Approve")

    result = apply({first: "Approve"}, store=store)

    assert (result["already_recorded"], len(writes(emulator))) == (1, 1)


def test_204_of_a_step_that_still_waits_is_unknown(emulator, store):
    ids = start(emulator, 2)
    emulator.control("POST", "faults", method="POST", path=f"{ids[0]}/responses$", status=204)

    with pytest.raises(AirflowFailException, match=f"OutcomeUnknown(.|\\n)*{ids[0]}.*still waits"):
        apply(dict.fromkeys(ids, "Approve"), store=store)
    assert responses(emulator) == [(ids[1], "Approve")]


def test_rate_limit_ends_the_try_and_a_retry_continues(emulator, store):
    ids = start(emulator, 3)
    limited = {"status": 429, "headers": {"Retry-After": "7200"}, "json": {}}
    emulator.control("POST", "faults", method="POST", path=f"{ids[1]}/responses$", **limited)

    with pytest.raises(RateLimited):
        apply(dict.fromkeys(ids, "Approve"), store=store)
    assert responses(emulator) == [(ids[0], "Approve")]
    result = apply(dict.fromkeys(ids, "Approve"), store=store)

    assert responses(emulator) == [(each, "Approve") for each in ids]
    assert result["sent"] == 3


def test_server_that_is_down_ends_the_try_early(emulator, store, no_delays):
    ids = start(emulator, 20)
    emulator.control("POST", "faults", method="POST", path="/responses$", status=503, json={}, times=1000)

    with pytest.raises(ResponsesUnfinished, match="20 of 20"):
        apply(dict.fromkeys(ids, "Approve"), store=store, confirm_timeout=0)
    assert len(writes(emulator)) < 20


def test_rejection_of_all_rows_ends_the_try(emulator, store):
    ids = start(emulator, 25)
    emulator.control("POST", "faults", method="POST", path="/responses$", status=400, json={}, times=1000)

    with pytest.raises(ResponsesUnfinished, match="25 of 25"):
        apply(dict.fromkeys(ids, "Approve"), store=store)
    assert len(writes(emulator)) == 20
    emulator.control("DELETE", "faults")
    assert apply(dict.fromkeys(ids, "Approve"), store=store)["sent"] == 25


def test_path_that_cannot_be_written_to_is_found_before_sending(emulator, tmp_path):
    (first,) = start(emulator, 1)
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="csv_path: .* cannot be written"):
        apply({first: "Approve"}, csv_path=f"file://{tmp_path}/file/plan.csv")
    assert writes(emulator) == []


def test_values_in_the_store_stay_small(emulator, store):
    ids = start(emulator, 60)
    rows = [{"instance_id": each, "response": "Approve", "comment": "x" * 1000} for each in ids]

    apply(rows, store=store)

    assert max(len(json.dumps(value)) for value in store.values()) < 40_000
    assert len(store) > 2


def test_without_a_store_a_retry_needs_the_step_occurrences(emulator):
    (first,) = start(emulator, 1)

    with pytest.raises(ConfigurationError, match="step_occurrence_id"):
        apply({first: "Approve"}, retries=1)
    plan = plan_of({first: "Approve"})
    assert apply(plan=plan, retries=1)["sent"] == 1
    assert apply(plan=plan, retries=1)["already_recorded"] == 1
    assert responses(emulator) == [(first, "Approve")]


def test_clearing_a_plan_that_is_done_sends_nothing(emulator, store):
    ids = start(emulator, 2)
    plan = plan_of(dict.fromkeys(ids, "Approve"))
    apply(plan=plan, store=store)
    store.clear()

    assert apply(plan=plan, store=store)["already_recorded"] == 2
    assert responses(emulator) == [(each, "Approve") for each in ids]


def test_plan_of_an_earlier_try_is_not_exchanged(emulator, store):
    first, second = start(emulator, 2)
    apply({first: "Approve"}, store=store)

    with pytest.raises(ConfigurationError, match="earlier try"):
        apply({second: "Approve"}, store=store, plan_hash="another")
    assert responses(emulator) == [(first, "Approve")]


# --- what people read ---


def test_csv_file_has_all_rows_and_no_formulas(emulator, tmp_path):
    (first,) = start(emulator, 1)
    row = {"instance_id": first, "response": "Approve", "comment": "=1+1", "vendor": "@SUM(A1)", "note": '-x, "y"\nz'}

    plan = plan_of([row, {**row, "response": "+nope"}], csv_path=f"file://{tmp_path}/plans/plan.csv")

    with (tmp_path / "plans" / "plan.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert plan["csv_path"].endswith("/plans/plan.csv")
    assert [(r["row"], r["action"], r["skipped"]) for r in rows] == [
        ("1", "skip", "duplicate"),
        ("2", "skip", "duplicate"),
    ]
    assert (rows[0]["comment"], rows[0]["vendor"], rows[0]["note"]) == ("'=1+1", "'@SUM(A1)", '\'-x, "y"\nz')
    assert rows[1]["response"] == "'+nope"


def test_dry_run_shows_what_would_be_sent_and_sends_nothing(emulator, store):
    first, second = start(emulator, 2)
    emulator.control("POST", f"procore/instances/{second}/terminate")

    result = apply({first: "Approve", second: "Approve"}, store=store, dry_run=True)

    assert [
        (call["method"], call["body"]["response"]["current_step_occurrence_id"]) for call in result["would_send"]
    ] == [("POST", f"{first}01")]
    assert [(row["action"], row["status"]) for row in result["rows"]] == [("send", None), ("skip", "skipped")]
    assert (result["dry_run"], result["sent"], writes(emulator), store) == (True, 0, [], {})
