"""What the rules read from a response: a malformed one leads to a typed error or a result."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given

from airflow_provider_workflows.exceptions import WorkflowsError
from airflow_provider_workflows.rules import procore as v2
from airflow_provider_workflows.rules import procore_decisions as timeline
from airflow_provider_workflows.rules import procore_history as audit
from airflow_provider_workflows.rules import procore_item as item
from airflow_provider_workflows.rules import procore_legacy as v1
from airflow_provider_workflows.rules import procore_legacy_history as v1_history
from airflow_provider_workflows.rules import procore_operations as v2_operations
from airflow_provider_workflows.rules import procore_presets as people
from airflow_provider_workflows.rules import procore_responses as options
from airflow_provider_workflows.rules import workflowsoft as ws
from airflow_provider_workflows.rules import workflowsoft_fields as ws_fields
from tests.robustness.hostile.mutations import mutated
from tests.robustness.hostile.responses import parsed

STEP = "70000101"
USER = "90001"
SINCE = datetime(2026, 1, 1, tzinfo=timezone.utc)
STATES = {"until": {"complete"}, "fail_on": {"terminated"}, "skip_on": set()}
WHERE = {"company_id": "7", "project_id": "8", "tool_type": "po", "item_id": "5001"}
GROUPS = [{"uuid": "g", "name": "Directors", "type": "role"}]


@dataclass(frozen=True)
class Reading:
    """
    A function that reads a response.

    :param of: The call whose good response it reads; a key under which the response lies may follow after a slash.
    """

    of: str
    function: Callable[..., Any]
    read: Callable[[Any], Any]

    def __str__(self) -> str:
        return f"{self.function.__module__.rpartition('.')[2]}.{self.function.__name__}"


def described(history: Any) -> Any:
    return v2.describe_instance(history, instance_id="700001", item_id="5001")


def legacy(shown: Any) -> Any:
    return v1.describe_instance(v1.str_ids(shown))


def rows(shown: Any) -> Any:
    """Return rows as a hook passes them: each is an object."""
    return [v1.str_ids(row) for row in shown if isinstance(row, dict)] if isinstance(shown, list) else []


def row(shown: Any) -> Any:
    """Return a response as a hook passes it: an object."""
    return v1.str_ids(shown) if isinstance(shown, dict) else {}


def mine(preset: Any) -> Any:
    return people.DesiredGroup("Directors", "g", ["90004"])


def known_rows(histories: Any) -> Any:
    """Return the rows of the tables that an export makes of an item's histories."""
    listed = [audit.listed_instance(row, SINCE) for row in rows(histories)]
    named = audit.name_histories(histories, listed, tool_type="po", item_id="5001")
    return [audit.rows_of(history, WHERE) for history in named]


def decisions(history: Any) -> Any:
    happened = v2.timeline_of(history)
    found = [happened.last_decision(), *map(happened.decision_at, happened.events)]
    return [decision for decision in found if decision is not None]


HISTORY, INSTANCE, LIST, ITEM = (
    f"ProcoreHook.{name}/data"
    for name in ("get_instance_history", "get_instance", "list_instances", "list_item_histories")
)
PRESET, OPERATION = "ProcoreHook.get_preset/data", "ProcoreHook.get_async_operation/data"
PEOPLE, REPLACEMENTS = "ProcoreHook.list_possible_assignees/data", "ProcoreHook.list_bulk_replace_requests/data"
LEGACY, HISTORIES = "ProcoreLegacyHook.get_instance", "ProcoreLegacyHook.list_activity_histories"
USERS = "ProcoreLegacyHook.find_user_id"
FIELDS, POLL = "WorkflowsoftHook.get_fields", "WorkflowsoftHook.poll_new_integrations"
ROWS = "WorkflowsoftHook.list_process_diagrams"

WELL_READ = ws_fields.read_fields([{"label": "Other", "type": "String", "key": "other", "valueJson": '"x"'}])

READINGS = [
    Reading(HISTORY, v2.describe_instance, lambda h: described(row(h))),
    Reading(HISTORY, v2.evaluate_instance, lambda h: v2.evaluate_instance(described(row(h)), **STATES)),
    Reading(HISTORY, v2.evaluate_instance, lambda h: v2.evaluate_instance(
        described(row(h)), occurrence=v2.find_occurrence(row(h), "Budget Check"), awaited=["x"], **STATES)),
    Reading(HISTORY, v2.terminated_by, lambda h: v2.terminated_by(row(h))),
    Reading(HISTORY, v2.ended_otherwise, lambda h: v2.ended_otherwise(row(h), USER)),
    Reading(HISTORY, v2.is_blocked, lambda h: v2.is_blocked(row(h))),
    Reading(HISTORY, v2.find_occurrence, lambda h: v2.find_occurrence(row(h), "Budget Check", decided=True)),
    Reading(HISTORY, v2.find_occurrence, lambda h: v2.find_occurrence(row(h), "Director Approval", after=STEP)),
    Reading(HISTORY, v2.find_occurrence, lambda h: v2.find_occurrence(row(h), "Approved", after="2026-01-01T00:00Z")),
    Reading(HISTORY, v2.events_of, lambda h: v2.events_of(row(h))),
    Reading(HISTORY, v2.details_of, lambda h: [v2.details_of(event) for event in v2.events_of(row(h))]),
    Reading(HISTORY, v2.timeline_of, lambda h: v2.timeline_of(row(h)).last_decision()),
    Reading(HISTORY, v2.describe_decision, lambda h: [
        v2.describe_decision(decision) for decision in decisions(row(h))]),
    Reading(HISTORY, v2.has_ended, lambda h: v2.has_ended(row(h))),
    Reading(HISTORY, timeline.responses_of, lambda h: [
        timeline.responses_of(event.details) for event in timeline.Timeline(row(h)).events]),
    Reading(HISTORY, timeline.commenters_of, lambda h: [
        timeline.commenters_of(event.details) for event in timeline.Timeline(row(h)).events]),
    Reading(HISTORY, timeline.is_commenter, lambda h: [
        timeline.is_commenter(event.details) for event in timeline.Timeline(row(h)).events]),
    Reading(HISTORY, timeline.options_of, lambda h: [
        timeline.options_of(event.details) for event in timeline.Timeline(row(h)).events]),
    Reading(HISTORY, v2.pending_step_of, lambda h: v2.pending_step_of(row(h))),
    Reading(HISTORY, v2.step_in_history, lambda h: v2.step_in_history(row(h), STEP)),
    Reading(HISTORY, options.recorded_in_history, lambda h: options.recorded_in_history(row(h), STEP, USER)),
    Reading(HISTORY, v2.step_in_history, lambda h: v2.step_in_history(row(h), STEP)),
    Reading(HISTORY, options.is_recorded_option, lambda h: options.is_recorded_option(
        options.recorded_in_history(row(h), STEP, USER) or {},
        {"id": "1", "name": "Approve", "type": "x", "others": []})),
    Reading(HISTORY, options.is_recorded_response, lambda h: options.is_recorded_response(
        options.recorded_in_history(row(h), STEP, USER) or {}, option="Approve")),
    Reading(LIST, v2.matches_filters, lambda i: [
        v2.matches_filters(row, tool_type="po", tool_subtype="1", item_id="5001", active=True)
        for row in rows(i)]),
    Reading(LIST, v2.same_tool, lambda i: [v2.same_tool(row.get("tool_type"), "po") for row in rows(i)]),
    Reading(LIST, v2.created_by, lambda i: [v2.created_by(row) for row in rows(i)]),
    Reading(INSTANCE, v2.has_ended, lambda i: v2.has_ended(row(i))),
    Reading(INSTANCE, v2.is_between_steps, lambda i: v2.is_between_steps(row(i))),
    Reading(INSTANCE, v2.is_pending, lambda i: v2.is_pending(v2.current_step(row(i)) or {}, USER)),
    Reading(LIST, v2.active_instance, lambda i: v2.active_instance(rows(i))),
    Reading(LIST, v2.newest_instance, lambda i: v2.newest_instance(rows(i) or [{"id": "1"}])),
    Reading(INSTANCE, v2.response_request, lambda i: v2.response_request(row(i), USER)),
    Reading(INSTANCE, v2.is_between_steps, lambda i: v2.is_between_steps(row(i))),
    Reading(INSTANCE, v2.current_step, lambda i: v2.current_step(row(i))),
    Reading(INSTANCE, v2.pending_assignees, lambda i: v2.pending_assignees(v2.current_step(row(i)) or {})),
    Reading(INSTANCE, v2.responses_of_assignees, lambda i: v2.responses_of_assignees(v2.current_step(row(i)) or {})),
    Reading(INSTANCE, v2.response_options, lambda i: v2.response_options(v2.current_step(row(i)) or {})),
    Reading(INSTANCE, v2.assignee_ids, lambda i: v2.assignee_ids(v2.current_step(row(i)) or {})),
    Reading(INSTANCE, options.recorded_response, lambda i: options.recorded_response(row(i), STEP, USER)),
    Reading(INSTANCE, options.choose_option, lambda i: options.choose_option(
        v2.response_options(v2.current_step(row(i)) or {}), option="Approve")),
    Reading(INSTANCE, options.matched_by, lambda i: [
        options.matched_by(option, option_type="approve")
        for option in v2.response_options(v2.current_step(row(i)) or {})]),
    Reading(INSTANCE, options.matching_options, lambda i: options.matching_options(
        v2.response_options(v2.current_step(row(i)) or {}), option="1")),
    Reading(INSTANCE, v2.matches_filters, lambda i: v2.matches_filters(
        row(i), tool_type="purchase_order_contract", tool_subtype="1", item_id="5001", active=True)),
    Reading(INSTANCE, v2.same_tool, lambda i: v2.same_tool(row(i).get("tool_type"), "purchase_order_contract")),
    Reading(INSTANCE, v2.created_by, lambda i: v2.created_by(row(i))),
    Reading(INSTANCE, v2.is_pending, lambda i: v2.is_pending(v2.current_step(row(i)) or {}, USER)),
    Reading(HISTORY, options.is_recorded_option, lambda h: [
        options.is_recorded_option(recorded, {"id": "1", "name": "Approve", "type": "approve"})
        for recorded in [options.recorded_in_history(row(h), STEP, USER)] if recorded]),
    Reading(HISTORY, options.is_recorded_response, lambda h: [
        options.is_recorded_response(recorded, option="Approve")
        for recorded in [options.recorded_in_history(row(h), STEP, USER)] if recorded]),
    Reading(PEOPLE, v2.people_ids, lambda p: v2.people_ids(rows(p), ["dana@example.com", USER])),
    Reading(OPERATION, v2_operations.describe_operation, lambda o: v2_operations.describe_operation(row(o))),
    Reading(OPERATION, v2_operations.operation_items, lambda o: v2_operations.operation_items(row(o))),
    Reading(OPERATION, v2_operations.operation_ended, lambda o: v2_operations.operation_ended(row(o))),
    Reading(PEOPLE, people.desired_group_for, lambda p: people.desired_group_for(
        "Directors", ["dana@example.com"], groups=GROUPS, possible=rows(p), replace=True, allow_empty=False)),
    Reading("ProcoreHook.get_template_version/data/responsible_groups", people.desired_group_for,
        lambda g: people.desired_group_for(
            "Directors", ["x"], groups=rows(g), possible=[], replace=False, allow_empty=True)),
    Reading("ProcoreHook.get_template_version/data/responsible_groups", people.is_role_group,
        lambda g: [people.is_role_group(group) for group in rows(g)]),
    Reading(PRESET, people.check_assignees, lambda p: people.check_assignees(row(p))),
    Reading(PRESET, people.members_of, lambda p: people.members_of(row(p))),
    Reading(PEOPLE, people.logins_of, lambda p: people.logins_of(rows(p))),
    Reading(PRESET, people.group_changes, lambda p: people.group_changes(
        row(p), [mine(p)], replace=True, logins={})),
    Reading(PRESET, people.beyond, lambda p: people.beyond(
        people.group_changes(row(p), [mine(p)], replace=True, logins={}), None)),
    Reading(PRESET, people.members_after, lambda p: people.members_after(
        row(p), [mine(p)], replace=False)),
    Reading(PRESET, people.assignees_to_send, lambda p: people.assignees_to_send(
        row(p), people.members_of(row(p)))),
    Reading(PRESET, people.differences, lambda p: people.differences(row(p), {"g": ["1"]})),
    Reading(PRESET, people.losses, lambda p: people.losses(row(p), {})),
    Reading(PRESET, people.is_unchanged, lambda p: people.is_unchanged(row(p), {})),
    Reading(REPLACEMENTS, people.is_request, lambda r: [
        people.is_request(row, {"reason": "left", "project_ids": ["1"], "replacement_type": "permanent",
                                "modify_project_roles": False, "old_assignee_id": "1", "new_assignee_ids": ["2"]}, "3")
        for row in rows(r)]),
    Reading(LIST, audit.listed_instance, lambda i: [audit.listed_instance(row, SINCE) for row in rows(i)]),
    Reading(ITEM, audit.name_histories, known_rows),
    Reading(ITEM, audit.rows_of, known_rows),
    Reading(LEGACY, audit.legacy_instance_row, lambda i: audit.legacy_instance_row(
        row(i), company_id="7")),
    Reading(HISTORIES, audit.legacy_activity_row, lambda h: [
        audit.legacy_activity_row(row, instance_id="1") for row in rows(h)]),
    Reading(LEGACY, audit.legacy_has_changed, lambda i: audit.legacy_has_changed(row(i), SINCE)),
    Reading(LEGACY, v1.str_ids, v1.str_ids),
    Reading(USERS, v1.users_named, lambda u: v1.users_named(rows(u), "dana@example.com")),
    Reading(LEGACY, v1.describe_instance, lambda i: legacy(row(i))),
    Reading(LEGACY, v1.mark_of, lambda i: v1.mark_of(legacy(row(i)))),
    Reading(LEGACY, v1.pending_step_of, lambda i: v1.pending_step_of(row(i))),
    Reading(LEGACY, v1.evaluate_instance, lambda i: v1.evaluate_instance(
        legacy(row(i)), after=v1.moment_of("2026-01-01T00:00:00Z"), activity="Approve", role="x", **STATES)),
    Reading(HISTORIES, v1.evaluate_instance, lambda h: [
        v1.evaluate_instance(SHOWN, after=v1.action_of(row), **STATES) for row in rows(h)]),
    Reading(LEGACY, v1.evaluate_state_change, lambda i: v1.evaluate_state_change(
        legacy(row(i)), v1.occurrence_of(SHOWN), {})),
    Reading(LEGACY, v1.of_object, lambda i: v1.of_object([row(i)], "Contract")),
    Reading(LEGACY, v1.has_type, lambda i: v1.has_type(row(i), "Contract")),
    Reading(LEGACY, v1.may_hide_activities, lambda i: v1.may_hide_activities(legacy(row(i)))),
    Reading(LEGACY, v1.is_idle, lambda i: v1.is_idle(legacy(row(i)))),
    Reading(LEGACY, v1.is_draft, lambda i: v1.is_draft(legacy(row(i)))),
    Reading(LEGACY, v1.names_of, lambda i: v1.names_of(legacy(row(i)))),
    Reading(LEGACY, v1.has_ended, lambda i: v1.has_ended(legacy(row(i)), is_over=True)),
    Reading(LEGACY, v1.how_it_ended, lambda i: v1.how_it_ended(legacy(row(i)))),
    Reading(LEGACY, v1.is_quiet, lambda i: v1.is_quiet(legacy(row(i)), [], SINCE)),
    Reading(HISTORIES, v1.is_quiet, lambda h: v1.is_quiet(SHOWN, rows(h), SINCE)),
    Reading(HISTORIES, v1.action_of, lambda h: [v1.action_of(row) for row in rows(h)]),
    Reading(LEGACY, v1.is_before, lambda i: v1.is_before(legacy(row(i)), ACTION)),
    Reading(LEGACY, v1.is_undecided, lambda i: v1.is_undecided(legacy(row(i)), ACTION)),
    Reading(LEGACY, v1.occurrence_of, lambda i: v1.occurrence_of(legacy(row(i)))),
    Reading(LEGACY, v1.has_left, lambda i: v1.has_left(v1.occurrence_of(SHOWN), legacy(row(i)), [])),
    Reading(HISTORIES, v1.has_left, lambda h: v1.has_left({**v1.occurrence_of(SHOWN), "set_at": None}, SHOWN, rows(h))),
    Reading(LEGACY, v1.entered_occurrence, lambda i: v1.entered_occurrence(legacy(row(i)), [])),
    Reading(HISTORIES, v1.entered_occurrence,
            lambda h: v1.entered_occurrence({**SHOWN, "state_set_at": None}, rows(h))),
    Reading(HISTORIES, v1.is_followed, lambda h: v1.is_followed(rows(h), {**ACTION, "history_id": "1"})),
    Reading(LEGACY, v1.activity_fits, lambda i: [
        v1.activity_fits(activity, name="x", role="y") for activity in legacy(row(i))["activities"]]),
    Reading(LEGACY, v1.requested_activity, lambda i: v1.requested_activity("x", legacy(row(i))["activities"])),
    Reading(LEGACY, v1.open_activity, lambda i: v1.open_activity(legacy(row(i)), "x", "y")),
    Reading(LEGACY, v1.choose_activity, lambda i: v1.choose_activity(
        legacy(row(i))["activities"], name="Submit for Approval")),
    Reading(HISTORIES, v1_history.newest_first, lambda h: v1_history.newest_first(rows(h))),
    Reading(HISTORIES, v1_history.performed_activity, lambda h: [
        v1_history.performed_activity(row) for row in rows(h)]),
    Reading(HISTORIES, v1_history.find_performed, lambda h: v1_history.find_performed(
        rows(h), occurrence=v1.occurrence_of(SHOWN), instance=SHOWN, requested={"name": "Approve"}, user_id=USER)),
    Reading(LEGACY, v1_history.find_performed, lambda i: v1_history.find_performed(
        [], occurrence=v1.occurrence_of(SHOWN), instance=legacy(row(i)), requested={"name": "x"}, user_id=USER)),
    Reading(HISTORIES, v1_history.find_sent, lambda h: v1_history.find_sent(rows(h), SENT, SHOWN)),
    Reading(HISTORIES, v1_history.find_own, lambda h: v1_history.find_own(
        rows(h), requested={"name": "Approve"}, user_id=USER, since=SINCE)),
    Reading(HISTORIES, v1_history.occurrence_of_row, lambda h: [v1_history.occurrence_of_row(row) for row in rows(h)]),
    Reading(HISTORIES, v1_history.is_row_of, lambda h: [
        v1_history.is_row_of(row, SENT) for row in rows(h)]),
    Reading(LEGACY, item.is_named, lambda i: item.is_named(legacy(row(i)), ["Draft"])),
    Reading(LEGACY, item.stage_of, lambda i: item.stage_of(
        legacy(row(i)), until=["Draft"], histories=[], seen=SHOWN, is_over=True)),
    Reading(HISTORIES, item.stage_of, lambda h: item.stage_of(
        SHOWN, until=[], histories=rows(h), seen=None, is_over=True)),
    Reading(LEGACY, item.is_final_state, lambda i: item.is_final_state(legacy(row(i)), [], SHOWN)),
    Reading(HISTORIES, item.is_final_state, lambda h: item.is_final_state(SHOWN, rows(h), None)),
    Reading(HISTORIES, item.legacy_decision, lambda h: item.legacy_decision(SHOWN, rows(h))),
    Reading(LEGACY, item.is_newer_in_v2, lambda i: item.is_newer_in_v2(
        {"item_id": "1", "instance_id": "2", "ended_at": "2026-01-01T00:00:00Z"}, legacy(row(i)), "open")),
    Reading(HISTORY, item.is_newer_in_v2, lambda h: item.is_newer_in_v2(described(row(h)), SHOWN, None)),
    Reading(HISTORY, item.v2_outcome, lambda h: item.v2_outcome(
        {**described(row(h)), "project_id": "1"}, None, "po", **STATES)),
    Reading(LEGACY, item.legacy_outcome, lambda i: item.legacy_outcome(
        legacy(row(i)), "complete", None, {}, item=WHERE, legacy_until=[], **STATES)),
    Reading(LEGACY, item.seen_of_legacy, lambda i: item.seen_of_legacy(legacy(row(i)), None)),
    Reading(LEGACY, item.stuck_reason, lambda i: item.stuck_reason(
        "po", "1", "2", legacy(row(i)), {"how": "gone", "since": 0.0})),
    Reading(LEGACY, item.terminated_at, lambda i: item.terminated_at(legacy(row(i)))),
    Reading(ROWS, ws.titled_rows, lambda r: ws.titled_rows(r, "row")),
    Reading(ROWS, ws.rows_with_id, lambda r: ws.rows_with_id(r, "Id", "a list of rows")),
    Reading(ROWS, ws.choose, lambda r: ws.choose(
        "diagram", "process diagram", "Event planning", ws.titled_rows(r, "row"))),
    Reading("WorkflowsoftHook.search_users", ws.user_rows, ws.user_rows),
    Reading("WorkflowsoftHook.search_users", ws.choose_user, lambda r: ws.choose_user(
        "user", "olga@example.com", ws.user_rows(r))),
    Reading(POLL, ws.integration_instances, ws.integration_instances),
    Reading(FIELDS, ws_fields.read_fields, ws_fields.read_fields),
    Reading(FIELDS, ws_fields.by_label, lambda f: ws_fields.by_label(ws_fields.read_fields(f))),
    Reading(FIELDS, ws_fields.xcom_value, lambda f: ws_fields.xcom_value(
        ws_fields.by_label(ws_fields.read_fields(f)))),
    Reading(FIELDS, ws_fields.check_expected, lambda f: ws_fields.check_expected(
        ws_fields.read_fields(f), {"Amount": "Decimal"}, "3")),
    Reading(FIELDS, ws_fields.find_field, lambda f: ws_fields.find_field(ws_fields.read_fields(f), "Amount")),
    Reading(FIELDS, ws_fields.plan_update, lambda f: ws_fields.plan_update(
        ws_fields.read_fields(f), ws_fields.by_label(ws_fields.read_fields(f)), allow_unknown_types=True)),
    Reading(FIELDS, ws_fields.plan_update, lambda f: ws_fields.plan_update(
        ws_fields.read_fields(f), {"Choice": "High"}, allow_unknown_types=True)),
    Reading(FIELDS, ws_fields.plan_update, lambda f: ws_fields.plan_update(
        ws_fields.read_fields(f), {"Amount": "1.5", "Place": {"lat": [1]}}, allow_unknown_types=True)),
    Reading(FIELDS, ws_fields.compare_write, lambda f: ws_fields.compare_write(
        ws_fields.read_fields(f), ws_fields.read_fields(f), ws_fields.plan_update(
            ws_fields.read_fields(f), {"Amount": "1.5", "Text": "other"}, allow_unknown_types=True).values,
        normalized=True)),
    Reading(FIELDS, ws_fields.filled, lambda f: ws_fields.filled(ws_fields.read_fields(f), {})),
    Reading(FIELDS, ws.failure_in, ws.failure_in),
    Reading(FIELDS, ws_fields.compare_write, lambda f: ws_fields.compare_write(
        WELL_READ, ws_fields.read_fields(f), {"other": "x"})),
    Reading(ROWS, ws.failure_in, ws.failure_in),
    Reading(FIELDS, ws_fields.missing_required, lambda f: ws_fields.missing_required(ws_fields.read_fields(f))),
    Reading(FIELDS, ws_fields.left_empty, lambda f: ws_fields.left_empty(ws_fields.read_fields(f), {})),
    Reading(FIELDS, ws_fields.has_closed, lambda f: ws_fields.has_closed(ws_fields.read_fields(f))),
    Reading(FIELDS, ws_fields.option_values, lambda f: [
        ws_fields.option_values(field) for field in ws_fields.read_fields(f)]),
    Reading(FIELDS, ws_fields.encode, lambda f: [
        ws_fields.encode(field, field.value) for field in ws_fields.read_fields(f)]),
    Reading(FIELDS, ws_fields.stored_values, lambda f: ws_fields.stored_values(
        ws_fields.plan_update(ws_fields.read_fields(f), {"Text": "other"}).values)),
    Reading(FIELDS, ws_fields.wire_name, lambda f: [
        ws_fields.wire_name(field.key) for field in ws_fields.read_fields(f)]),
]  # fmt: skip
# A well-formed instance, and an action, to compare malformed ones with.
SHOWN = legacy({"id": 1, "current_workflow_state": {"id": 2, "name": "Start"}, "current_state_set_at": "2026-01-01"})
ACTION = {"at": "2026-01-01T00:00:00Z", "state_id": "18706", "state_set_at": "2026-01-01T00:00:00Z"}
SENT = {
    "instance": {"instance_id": "1"},
    "state": v1.occurrence_of(SHOWN),
    "activity": {"id": "29945", "role_id": "1"},
    "user_id": USER,
    "before": [],
}

# They take parameters of a DAG author, or what other rules have made, and no response.
READ_NO_RESPONSE = {
    "procore": {"attachment_ids", "idempotency_token"},
    "procore_presets": {"is_rejected", "table_of", "checked_assignment"},
    "procore_history": {
        "as_json",
        "changed_since",
        "count",
        "flag",
        "instance_row",
        "due_time",
        "iso",
        "latest_of",
        "response_rows",
        "seconds_between",
        "step_row",
        "text",
        "time",
        "watermark",
    },
    "procore_item": set(),
    "procore_legacy": {"moment_of", "same_name", "same_type", "time_of"},
    "procore_legacy_history": set(),
    "procore_operations": set(),
    "procore_responses": set(),
    "procore_decisions": {"has_end_time", "is_given", "person", "rows_of", "seconds", "str_id"},
    "workflowsoft": {"has_id", "id_in", "instance_id_of", "member", "says_already_completed"},
    "workflowsoft_fields": {"check_rendered", "raw_fields", "raw_value", "read_stored_values"},
}


@pytest.mark.parametrize(
    "module", [v2, options, v2_operations, timeline, people, audit, item, v1, v1_history, ws, ws_fields]
)
def test_every_rule_is_known_to_read_a_response_or_none(module):
    name = module.__name__.rpartition(".")[2]
    functions = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not isinstance(value, type)
        and getattr(value, "__module__", "") == module.__name__
    }

    assert (
        functions
        == {r.function.__name__ for r in READINGS if r.function.__module__ == module.__name__} | READ_NO_RESPONSE[name]
    )


@pytest.mark.sample(18)
@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_response_wrong_anywhere_is_a_typed_error_or_result(reading, good):
    call, *keys = reading.of.split("/")
    response = parsed([exchange for exchange in good[call] if exchange.body][-1])
    for key in keys:
        response = response[key]
    reading.read(response)

    @given(mutated(response))
    def check(bad: Any) -> None:
        with contextlib.suppress(WorkflowsError):
            reading.read(bad)

    check()
