"""The request in Required Actions: its text shows what Procore says literally, and a choice names one option."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.procore_approval import Choice, body_of, choices_of, escaped, subject_of
from airflow_provider_workflows.rules.procore_responses import choose_option

INSTANCE = {"id": "1", "tool_type": "purchase_order_contract", "item_id": "5001"}
STEP = {"id": "11", "name": "Budget Check", "started_at": "2026-11-30T08:00:00Z", "overdue_at": None}
CLICK = {
    "chosen_options": ["Approve"],
    "params_input": {"note": " Fine. "},
    "responded_at": datetime(2026, 11, 30, tzinfo=timezone.utc),
    "responded_by_user": {"id": "7", "name": "Kim"},
    "timedout": False,
}


@pytest.mark.parametrize(
    "text",
    ["# Title", "[pay](http://evil)", "**bold**", "<script>", "1. first", "a\n\n- b", "`code`", "| a | b |", "&amp;"],
)
def test_text_of_procore_is_shown_literally(text):
    shown = escaped(text)

    assert "\n" not in shown
    # A backslash before each punctuation mark, and no other one, so nothing is left that Markdown would interpret.
    unescaped = "".join(shown.split("\\")) if "\\" not in text else shown
    assert unescaped == " ".join(text.split())
    assert all(shown[at - 1] == "\\" for at, mark in enumerate(shown) if mark in "#[]()*<>.-`|&;:/_!" and at)


@given(st.text())
def test_any_text_becomes_one_line(text):
    shown = escaped(text)

    assert shown
    assert shown == " ".join(shown.split())
    assert not set(shown) & set("\u202e\u2066\u200f")


def test_body_escapes_labels_values_and_the_link():
    step = {**STEP, "name": "*Check*"}

    body = body_of(INSTANCE, step, {"[Amount]": 10, "None": None}, "https://procore.test/a b>(1)")

    assert r"\*Check\*" in body
    assert r"\[Amount\]" in body
    assert "<https://procore.test/a%20b%3E(1)>" in body
    assert subject_of(INSTANCE, step) == "*Check*: purchase order contract 5001"


@pytest.mark.parametrize("name", [None, "", 7])
def test_missing_names_do_not_end_in_an_error(name):
    assert subject_of({"id": "1"}, {"id": "11", "name": name})
    assert body_of({"id": "1"}, {"id": "11", "name": name}, {}, None)


# --- choices ---


def option(option_id, name, kind="approve"):
    return {"id": option_id, "name": name, "type": kind}


@pytest.mark.parametrize(
    "options",
    [
        [option("1", "Approve"), option("2", "Reject")],
        [option("1", "OK"), option("2", "ok "), option("3", "No")],
        [option("1", None), option("2", None)],
        [option("1", "2"), option("2", "Two")],
        [option("1", "A  B"), option("2", "A B")],
    ],
)
def test_each_choice_names_one_option(options):
    choices = choices_of(options)

    assert len(choices) == len(options)
    for requested, expected in zip(choices.values(), options, strict=True):
        assert choose_option(options, option=requested)["id"] == expected["id"]


@pytest.mark.parametrize(
    "options",
    [[], [option("1", "OK"), option("2", "OK"), option("3", "1")], [option("1", "OK"), option("1", "OK")]],
)
def test_options_that_cannot_be_named_are_an_error(options):
    with pytest.raises(ConfigurationError):
        choices_of(options)


# --- what a person chose ---


def test_both_formats_of_an_event_are_read():
    choice = Choice.of(CLICK)

    assert choice == Choice("Approve", "Fine.", "Kim", "7", "2026-11-30T00:00:00+00:00")
    assert Choice.of({**CLICK, "status": "decided_in_airflow", "responded_at": choice.at}) == choice
    assert Choice.from_dict(choice.to_dict()) == choice


@pytest.mark.parametrize(
    "event",
    [None, {}, [], "text", {"status": "timeout"}, {"chosen_options": []}, {"chosen_options": "Approve"}],
)
def test_other_events_have_no_choice(event):
    assert Choice.of(event) is None


@pytest.mark.parametrize("params", [None, {}, {"note": None}, {"note": " "}, {"other": 1}, []])
@pytest.mark.parametrize("user", [None, {}, {"id": None, "name": None}])
def test_missing_note_and_user_are_not_an_error(params, user):
    choice = Choice.of({**CLICK, "params_input": params, "responded_by_user": user, "responded_at": None})

    assert (choice.note, choice.by, choice.by_id, choice.at) == (None, None, None, None)
    assert choice.comment


def test_comment_names_the_user_and_the_note():
    assert all(text in Choice.of(CLICK).comment for text in ("Kim", "7", "Fine."))
    assert Choice("Approve", by="kim", by_id="kim").comment.count("kim") == 1
