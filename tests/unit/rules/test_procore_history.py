"""What a history says, as rows: every event in, nothing lost, nothing raised."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules import procore_history as rules

DOCS = Path(__file__).parents[3] / "docs"
WHERE = {"company_id": "1", "project_id": "2", "tool_type": "purchase_order", "item_id": "5001"}
RESPONSE = {
    "id": "90001",
    "response_id": "3",
    "login": "dana@example.com",
    "name": "Dana Director",
    "response": "Approve",
    "response_type": "approve",
    "role_type": "responder",
    "required": True,
    "comment": "fine",
    "responded_at": "2026-01-02T09:00:00Z",
    "attachments": [{"id": "7", "name": "quote.pdf", "url": "https://example.com/7"}],
    "original_assignees": [],
}
RESPONSE_STEP = {
    "type": "ResponseStep",
    "details": {
        "id": "11",
        "uuid": "u-11",
        "name": "Budget Check",
        "started_at": "2026-01-01T08:00:00Z",
        "ended_at": "2026-01-02T09:00:00Z",
        "due_date": "2026-01-04T08:00:00Z",
        "decision_type": "first",
        "overall_response": "Approve",
        "overall_response_type": "approve",
        "status": "Under Review",
        "responses": [RESPONSE],
        "override": {
            "overridden_at": "2026-01-02T09:00:00Z",
            "overridden_by": {"id": "90002", "login": "pat@example.com", "name": "Pat Manager"},
            "override_reason": "on holiday",
        },
    },
}
HISTORY = {
    "instance_id": "700001",
    "name": "Purchase Order Approval",
    "format": "diagram",
    "status": "terminated",
    "started_at": "2026-01-01T08:00:00Z",
    "ended_at": "2026-01-03T08:00:00Z",
    "history": [
        {"type": "WorkflowStarted", "details": {"started_at": "2026-01-01T08:00:00Z"}},
        RESPONSE_STEP,
        {
            "type": "Conditional",
            "details": {"id": "12", "name": "Over 10,000?", "evaluated_at": "2026-01-02T09:00:00Z"},
        },
        {
            "type": "Action",
            "details": {
                "id": "13",
                "name": "Create PDF",
                "started_at": "2026-01-02T09:00:00Z",
                "ended_at": "2026-01-02T09:00:30Z",
                "description": "Makes a PDF.",
            },
        },
        {"type": "EndStep", "details": {"id": "14", "name": "Approved", "end_type": "success", "status": "Approved"}},
        {
            "type": "WorkflowTerminated",
            "details": {
                "name": "Purchase Order Approval",
                "terminated_at": "2026-01-03T08:00:00Z",
                "terminated_by": {"id": "90002", "login": "pat@example.com", "name": "Pat Manager"},
                "terminate_reason": "a duplicate",
            },
        },
    ],
}


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=timezone.utc)


def rows(history: dict, listed: dict | None = None) -> dict[str, list[dict]]:
    return rules.rows_of(rules.NamedHistory("700001", "api", history, listed), WHERE)


def names(histories, listed) -> list[tuple[str, str]]:
    found = rules.name_histories(histories, listed, tool_type="purchase_order", item_id="5001")
    return [(named.instance_id, named.id_from) for named in found]


def listed(instance_id: str, started_at: str | None) -> dict:
    return rules.listed_instance({"id": instance_id, "started_at": started_at}, None)


def test_every_kind_of_event_becomes_a_step_with_times():
    steps = rows(HISTORY)["steps"]

    assert [(s["event_index"], s["event_type"], s["step_key"], s["duration_seconds"], s["raw"]) for s in steps] == [
        (0, "WorkflowStarted", "#0", None, None),
        (1, "ResponseStep", "11", 25 * 3600.0, None),
        (2, "Conditional", "12", 0.0, None),
        (3, "Action", "13", 30.0, None),
        (4, "EndStep", "14", None, None),
        (5, "WorkflowTerminated", "#5", None, None),
    ]
    assert steps[0]["started_at"] == utc(2026, 1, 1, 8)
    assert (steps[1]["overridden_by_login"], steps[1]["override_reason"]) == ("pat@example.com", "on holiday")
    assert steps[1]["due_at"] == utc(2026, 1, 4, 8)
    assert steps[2]["started_at"] == steps[2]["ended_at"] == utc(2026, 1, 2, 9)
    assert steps[4]["end_type"] == "success"
    assert (steps[5]["terminated_by_name"], steps[5]["terminate_reason"]) == ("Pat Manager", "a duplicate")


def test_a_response_says_who_responded_to_what_after_how_long():
    (response,) = rows(HISTORY)["responses"]

    assert response == {
        "instance_id": "700001",
        "step_key": "11",
        "response_key": "90001",
        "step_occurrence_id": "11",
        "step": "Budget Check",
        "user_id": "90001",
        "login": "dana@example.com",
        "name": "Dana Director",
        "role_type": "responder",
        "required": True,
        "response_id": "3",
        "response": "Approve",
        "response_type": "approve",
        "comment": "fine",
        "responded_at": utc(2026, 1, 2, 9),
        "seconds_to_respond": 25 * 3600.0,
        "attachments": '[{"id": "7", "name": "quote.pdf", "url": "https://example.com/7"}]',
        "original_assignees": "[]",
    }


def test_an_instance_joins_what_its_history_and_the_list_know():
    row = {
        "id": "700001",
        "tool_subtype": "-9",
        "created_at": "2026-01-01T07:59:59Z",
        "updated_at": "2026-01-03T08:00:00Z",
        "created_by": {"id": "90002", "login": "pat@example.com", "name": "Pat Manager"},
    }

    (instance,) = rows(HISTORY, rules.listed_instance(row, None))["instances"]

    assert {**WHERE, "instance_id": "700001", "tool_subtype": "-9"}.items() <= instance.items()
    assert instance["created_by_login"] == "pat@example.com"
    assert (instance["status"], instance["duration_seconds"]) == ("terminated", 48 * 3600.0)
    assert instance["updated_at"] == utc(2026, 1, 3, 8)


@pytest.mark.parametrize(
    ("events", "status", "ended_at"),
    [
        (HISTORY["history"], "terminated", utc(2026, 1, 3, 8)),
        (HISTORY["history"][:2], "in_progress", None),
        ([{"type": "EndStep", "details": {"ended_at": "2026-01-03T08:00:00Z"}}], "complete", utc(2026, 1, 3, 8)),
    ],
)
def test_an_older_history_of_events_only_shows_the_state_too(events, status, ended_at):
    (instance,) = rows({"history": events})["instances"]

    assert (instance["status"], instance["ended_at"]) == (status, ended_at)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "Sublimated", "details": {"id": "9", "name": "Cloud"}},
        {"type": "ResponseStep", "details": {"responses": ["Dana"]}},
        {"type": "ResponseStep", "details": {"responses": {"0": "Dana"}}},
        {"type": "Action", "details": {"started_at": "yesterday"}},
        {"type": "Action", "details": None},
        {"type": None, "details": {}},
        {"kind": "Action"},
        "Action",
        None,
        7,
    ],
)
def test_an_event_of_unknown_type_or_format_is_stored_whole(event):
    (step,) = rows({"history": [event]})["steps"]

    assert rules.json.loads(step["raw"]) == event


def test_new_fields_of_a_known_event_change_nothing():
    wider = {"type": "ResponseStep", "details": {**RESPONSE_STEP["details"], "mood": {"of": "the day"}}, "more": 1}

    assert rows({"history": [wider]}) == rows({"history": [RESPONSE_STEP]})


def test_keys_stay_unique_when_ids_repeat_or_lack():
    step = {"type": "ResponseStep", "details": {"id": "11", "responses": [RESPONSE, RESPONSE, {}]}}

    found = rows({"history": [step, step]})

    assert [s["step_key"] for s in found["steps"]] == ["11", "#1"]
    assert [r["response_key"] for r in found["responses"]] == ["90001", "#1", "#2"] * 2


@pytest.mark.parametrize(
    "text", ["", "now", "2026-13-40", "0001-01-01T00:00:00+14:00", "2026-01-01/P1Y", 7, None, True]
)
def test_a_time_that_cannot_be_read_is_null(text):
    assert rules.time(text) is None


def test_times_are_utc_to_the_millisecond():
    assert rules.iso(rules.time("2026-01-01T09:00:00.123456+01:00")) == "2026-01-01T08:00:00.123Z"


# --- which instance a history is of ---


def test_histories_that_name_their_instance_are_believed():
    assert names([{"instance_id": 7}, {"instance_id": "8"}], [listed("7", None)]) == [("7", "api"), ("8", "api")]


def test_nameless_histories_are_found_by_the_time_they_started():
    history = [{"started_at": "2026-01-02T00:00:00Z"}, {"started_at": "2026-01-01T00:00:00.000Z"}]

    found = names(history, [listed("1", "2026-01-01T00:00:00Z"), listed("2", "2026-01-02T00:00:00Z")])

    assert found == [("2", "started_at"), ("1", "started_at")]


def test_steps_of_the_same_second_are_distinguished_by_order():
    second = "2026-01-01T00:00:00Z"

    found = rules.name_histories(
        [{"started_at": second, "name": "new"}, {"started_at": second, "name": "old"}],
        [listed("9", second), listed("10", second)],
        tool_type="t",
        item_id="i",
    )

    assert [(named.instance_id, named.history["name"]) for named in found] == [("10", "new"), ("9", "old")]


def test_histories_without_times_match_by_order_if_counts_fit():
    two = [listed("1", "2026-01-01T00:00:00Z"), listed("2", "2026-01-02T00:00:00Z")]

    assert names([{}, {}], two) == [("2", "order"), ("1", "order")]
    assert names([{}], two) == [("purchase_order:5001#1", "derived")]


def test_a_history_that_fits_nothing_gets_a_key_that_stays():
    at = {"started_at": "2026-03-01T00:00:00Z"}
    rows = [listed("1", "2026-01-01T00:00:00Z")]

    assert names([at], rows) == [("purchase_order:5001@2026-03-01T00:00:00.000Z", "derived")]
    assert len(set(names([at, at], rows))) == 2


# --- what has changed ---


SINCE = utc(2026, 1, 10)


@pytest.mark.parametrize(
    ("row", "changed"),
    [
        ({"ended_at": "2026-01-09T00:00:00Z", "updated_at": "2026-01-09T00:00:00Z"}, False),
        ({"ended_at": "2026-01-09T00:00:00Z", "updated_at": "2026-01-10T00:00:00Z"}, True),
        ({"ended_at": "2026-01-11T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z"}, True),
        ({"ended_at": None, "updated_at": "2026-01-01T00:00:00Z"}, True),
        ({"ended_at": "long ago"}, True),
    ],
)
def test_an_instance_counts_as_changed_when_it_may_have(row, changed):
    assert rules.listed_instance({"id": "1", **row}, SINCE)["changed"] is changed


@pytest.mark.parametrize("value", ["2026-01-01", "2026-01-01T00:00:00", "", "None", "yesterday", datetime(2026, 1, 1)])
def test_changed_since_needs_a_time_with_its_zone(value):
    with pytest.raises(ConfigurationError, match="changed_since"):
        rules.changed_since(value)


@pytest.mark.parametrize(
    "value",
    ["2026-01-10T00:00:00Z", "2026-01-10 01:00:00+01:00", "2026-01-10T00:00:00.000+0000", "2026-01-10T01:00+01", SINCE],
)
def test_changed_since_takes_text_and_datetimes(value):
    assert rules.changed_since(value) == SINCE


def test_watermark_neither_passes_the_export_start_nor_goes_back():
    hour = timedelta(hours=1)

    none = timedelta()

    assert rules.watermark(None, None, SINCE, hour) is None
    assert rules.watermark(None, SINCE - hour, SINCE, none) == "2026-01-09T23:00:00.000Z"
    assert rules.watermark(None, SINCE + hour, SINCE, none) == "2026-01-10T00:00:00.000Z"
    assert rules.watermark(SINCE, SINCE - hour, SINCE + hour, none) == "2026-01-10T00:00:00.000Z"


def test_watermark_is_earlier_by_the_overlap_and_does_not_drift():
    hour = timedelta(hours=1)

    first = rules.watermark(None, SINCE, SINCE + hour, hour)

    assert first == "2026-01-09T23:00:00.000Z"
    assert rules.watermark(rules.time(first), SINCE, SINCE + 24 * hour, hour) == first
    assert rules.watermark(rules.time(first), None, SINCE + 24 * hour, hour) == first


def test_watermark_leaves_a_time_that_the_server_has_not_reached():
    hour = timedelta(hours=1)

    assert rules.watermark(SINCE + 2 * hour, SINCE, SINCE, hour) == "2026-01-09T23:00:00.000Z"


# --- malformed histories ---

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.just("2026-01-01T00:00:00Z"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def objects(*keys: str):
    return st.dictionaries(st.sampled_from(keys), json_values)


events = json_values | st.fixed_dictionaries(
    {
        "type": json_values | st.sampled_from(sorted(rules.EVENT_TIMES)),
        "details": json_values
        | objects("id", "name", "started_at", "ended_at", "terminated_at", "responses", "override", "terminated_by")
        | st.fixed_dictionaries({"responses": st.lists(json_values | objects("id", "responded_at", "required"))}),
    }
)
histories = st.fixed_dictionaries(
    {"history": json_values | st.lists(events, max_size=4)},
    optional=dict.fromkeys(
        ("instance_id", "name", "status", "started_at", "ended_at", "current_step_index"), json_values
    ),
)
KINDS = {"text": str, "time": datetime, "seconds": float, "count": int, "flag": bool}


def check(tables: dict[str, list[dict]], columns: dict[str, dict[str, str]]) -> None:
    for table, found in tables.items():
        for row in found:
            assert set(row) == set(columns[table])
            for column, kind in columns[table].items():
                assert row[column] is None or type(row[column]) is KINDS[kind]
                if kind == "text" and row[column] is not None:
                    row[column].encode()


@given(st.lists(histories | json_values, max_size=3), st.lists(objects("id", "started_at", "updated_at", "created_by")))
def test_flattening_takes_any_json(read_histories, list_rows):
    instances = [rules.listed_instance(row, SINCE) for row in list_rows]
    for named in rules.name_histories(read_histories, instances, tool_type="t", item_id="i"):
        check(rules.rows_of(named, WHERE), rules.TABLES)


@given(
    objects("id", "current_workflow_state", "workflow", "project", "terminated_by", "current_workflow_activities"),
    objects("id", "bic_start", "bic_end", "comments", "attachments", "file_attachments", "performed_by_id"),
)
def test_flattening_legacy_takes_any_json(instance, history):
    check(
        {
            "instances": [rules.legacy_instance_row(instance, company_id="1")],
            "activities": [rules.legacy_activity_row(history, instance_id="7")],
        },
        rules.LEGACY_TABLES,
    )


def test_every_column_is_documented_and_no_other():
    exports, _, _ = (DOCS / "procore-audit.md").read_text().partition("## Tables of the cycle-time report")
    parts = re.split(r"^`(\w+)`,.*key", exports, flags=re.MULTILINE)
    documented = [
        (
            table,
            [name for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"\w+", cell)],
        )
        for table, text in zip(parts[1::2], parts[2::2], strict=True)
    ]

    tables = [*rules.TABLES.items(), *rules.LEGACY_TABLES.items()]
    assert [(table, sorted(names)) for table, names in documented] == [(t, sorted(c)) for t, c in tables]


# --- what was decided, in which order ---


def test_rows_of_a_history_are_the_same_in_both_orders():
    newest_first = {**HISTORY, "history": HISTORY["history"][::-1]}

    assert rows(newest_first) == rows(HISTORY)


def test_status_of_the_item_is_that_of_the_last_step_in_time():
    end = {"id": "14", "started_at": "2026-01-02T10:00:00Z", "ended_at": "2026-01-02T10:00:00Z", "status": "Rejected"}
    events = [{"type": "EndStep", "details": end}, RESPONSE_STEP]

    (instance,) = rows({"history": events})["instances"]

    assert (instance["item_status"], instance["status"]) == ("Rejected", "complete")


def test_rows_carry_the_decision_beside_the_responses():
    later = {**RESPONSE, "id": "90003", "login": "rita@example.com", "response": "Reject", "response_type": "reject"}
    details = {**RESPONSE_STEP["details"], "responses": [RESPONSE, later]}

    found = rows({"history": [{"type": "ResponseStep", "details": details}]})

    for row in (*found["instances"], *found["steps"]):
        assert (row["decided_option"], row["decided_type"], row["decided_from"]) == ("Approve", "approve", "override")
        assert (row["decided_by"], row["decided_at"]) == ("pat@example.com", utc(2026, 1, 2, 9))
        assert row["decided_problem"] is None
    assert [row["response"] for row in found["responses"]] == ["Approve", "Reject"]


def test_rows_say_what_the_history_does_not_show():
    def step(number: int, status: str) -> dict:
        moment = "2026-01-01T08:00:00Z"
        return {
            "type": "ResponseStep",
            "details": {"id": number, "name": f"S{number}", "started_at": moment, "ended_at": moment, "status": status},
        }

    (instance,) = rows({"history": [step(1, "Open"), step(2, "Closed")]})["instances"]

    assert (instance["item_status"], instance["ambiguous"]) == (None, '["item_status"]')


def test_listed_instance_with_an_empty_end_is_active():
    row = {"id": "7", "ended_at": "", "updated_at": "2026-01-01T00:00:00Z"}

    assert rules.listed_instance(row, utc(2026, 2, 1))["changed"] is True


@pytest.mark.parametrize(
    ("due", "ends"),
    [
        ("2026-01-04", datetime(2026, 1, 5, tzinfo=timezone.utc)),
        ("2026-01-04T08:00:00Z", datetime(2026, 1, 4, 8, tzinfo=timezone.utc)),
        ("soon", None),
        (None, None),
    ],
)
def test_a_step_due_on_a_day_is_due_at_its_end(due, ends):
    assert rules.due_time(due) == ends
