"""The probes of Procore Legacy Workflows (v1), and of the directory that it shares with v2."""

from __future__ import annotations

from typing import Any

from airflow_provider_workflows.diagnostics.contract_check.outcomes import (
    Outcome,
    Probe,
    not_seen,
    only_side,
    seen,
    unexpected,
)
from airflow_provider_workflows.diagnostics.contract_check.recording import Records
from airflow_provider_workflows.rules.datetimes import unix_time

NO_INSTANCE = "no Legacy instance could be read"
NO_HISTORY = "no Legacy history has rows"
NAMES = ("workflow_activity_name", "workflow_user_role_name", "workflow_state_name")

Row = dict[str, Any]


def legacy_list(records: Records) -> Outcome:
    listed = records.last("legacy_instances")
    if listed is None:
        return not_seen("nothing could be read")
    sides = {200: "allowed", 403: "forbidden"}
    if listed.status in sides:
        return seen(sides[listed.status], f"status {listed.status}")
    # A company that never had Legacy Workflows may not have the route.
    return not_seen("status 404") if listed.status == 404 else unexpected(f"status {listed.status}")


def legacy_history_order(records: Records) -> Outcome:
    sides = []
    for reading in records.all("legacy_histories"):
        keys = [(unix_time(row.get("created_at")) or 0.0, int(row.get("id") or 0)) for row in reading.rows]
        if len(set(keys)) > 1:
            if keys not in (sorted(keys), sorted(keys, reverse=True)):
                return unexpected("the rows of a history are neither in ascending nor in descending order")
            sides.append("ascending" if keys == sorted(keys) else "newest_first")
    return only_side(sides, "no Legacy history has two rows", "histories with two rows or more")


def history_names(records: Records) -> Outcome:
    rows = list(records.rows("legacy_histories"))
    return only_side(
        ("with" if any(row.get(name) for name in NAMES) else "without" for row in rows), NO_HISTORY, "rows"
    )


def legacy_open_activities(records: Records) -> Outcome:
    sides = []
    for reading in records.all("legacy_histories"):
        instance = _listed(records, reading.subject)
        listed = {_pair(activity) for activity in _activities(instance)}
        entered = unix_time(instance.get("current_state_set_at"))
        if entered is None:
            continue
        for row in reading.rows:
            done_at = unix_time(row.get("created_at"))
            # An activity that only one role performs moves the state.
            pair = (str(row.get("workflow_activity_id")), str(row.get("workflow_user_role_id")))
            if done_at is not None and done_at >= entered and pair[0] in {activity for activity, _ in listed}:
                sides.append("until_state_moves" if pair in listed else "until_performed")
    return only_side(sides, "no activity is performed that waits for other roles", "activities")


def legacy_state_set_at(records: Records) -> Outcome:
    rows = [row for row in records.rows("legacy_instances") if "current_state_set_at" in row]
    if any(row["current_state_set_at"] is None for row in rows):
        return seen("null", "an instance has null")
    return seen("given", f"all of {len(rows)} instances have a time") if rows else not_seen(NO_INSTANCE)


def legacy_filters(records: Records) -> Outcome:
    filtered = records.last("legacy_object")
    if filtered is None or not filtered.is_ok:
        return not_seen(NO_INSTANCE)
    requested = str(filtered.query["filters[workflowed_object_id]"])
    if any(str(row.get("workflowed_object_id")) != requested for row in filtered.rows):
        return seen("ignored", "a list of one object has rows of others")
    others = any(str(row.get("workflowed_object_id")) != requested for row in records.rows("legacy_instances"))
    if filtered.rows and others:
        return seen("honoured", "a list of one object has its rows only")
    return not_seen("fewer than two objects have Legacy instances")


def legacy_object_type(records: Records) -> Outcome:
    sides = []
    for row in records.rows("legacy_instances"):
        workflow = row.get("workflow")
        name = workflow.get("class_name") if isinstance(workflow, dict) else None
        if name and row.get("workflowed_object_type"):
            sides.append("class" if row["workflowed_object_type"] == name else "base_class")
    if len(set(sides)) > 1:  # of some tools the class is its own base
        return seen("base_class", "some instances have another type than their workflow's class")
    return only_side(sides, NO_INSTANCE, "instances")


def legacy_status(records: Records) -> Outcome:
    shown = records.last("legacy_instance")
    if shown is None or not shown.item:
        return not_seen(NO_INSTANCE)
    texts = [_status(shown.item), _status(_listed(records, str(shown.item.get("id"))))]
    if None in texts:
        return not_seen("the instance has no status")
    is_same = texts[0] == texts[1]
    return seen("state" if is_same else "object", f"list and instance have {'the same' if is_same else 'two'} texts")


def permanent_logs(records: Records) -> Outcome:
    logs = records.last("legacy_logs")
    if logs is None or not logs.is_ok:
        return not_seen(NO_HISTORY if logs is None else f"status {logs.status}")
    if not logs.rows:
        return seen("none", "an object whose instance has a history has no log")
    if any(not row.get("user_role") for row in logs.rows):
        return seen("all_events", "the log of an object has rows that no role performed")
    return seen("activities", f"all of {len(logs.rows)} rows have a role")


def directory_ids(records: Records) -> Outcome:
    users, me = records.last("users"), records.last("me")
    if users is None or me is None:
        return not_seen("the directory could not be read")
    login, own_id = str(me.item.get("login")).casefold(), str(me.item.get("id"))
    rows = [row for row in users.rows if login in (str(row.get(n)).casefold() for n in ("login", "email_address"))]
    if len(rows) != 1:
        return not_seen("the directory does not show the connection's user")
    row = rows[0]
    if str(row.get("id")) == own_id:
        return seen("login_information", "the connection's own row")
    is_beside = str(row.get("login_information_id")) == own_id
    return seen("own_beside" if is_beside else "own", "the connection's own row")


def _listed(records: Records, instance_id: str) -> Row:
    return next((row for row in records.rows("legacy_instances") if str(row.get("id")) == instance_id), {})


def _activities(instance: Row) -> list[Row]:
    rows = instance.get("current_workflow_activities")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _pair(activity: Row) -> tuple[str, str]:
    role = activity.get("workflow_user_role")
    return str(activity.get("id")), str(role.get("id") if isinstance(role, dict) else None)


def _status(instance: Row) -> str | None:
    state = instance.get("current_workflow_state")
    return None if not isinstance(state, dict) or state.get("status") is None else str(state["status"])


PROBES: dict[str, Probe] = {
    probe.__name__: probe
    for probe in (
        legacy_list,
        legacy_history_order,
        history_names,
        legacy_open_activities,
        legacy_state_set_at,
        legacy_filters,
        legacy_object_type,
        legacy_status,
        permanent_logs,
        directory_ids,
    )
}
