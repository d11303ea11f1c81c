"""Convert the histories of Procore's workflows to rows of tables with fixed columns, for the audit exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Literal, NamedTuple

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.datetimes import has_zone, parse_time
from airflow_provider_workflows.rules.overdue import is_day
from airflow_provider_workflows.rules.parameters import check_required
from airflow_provider_workflows.rules.procore_decisions import ENDED, ENDED_STATES, Event, Timeline, is_given

Json = Mapping[str, Any]
Row = dict[str, Any]
Kind = Literal["text", "time", "seconds", "count", "flag"]
Columns = Mapping[str, Kind]


INSTANCES: Columns = {
    "instance_id": "text",
    "id_from": "text",
    "company_id": "text",
    "project_id": "text",
    "tool_type": "text",
    "tool_subtype": "text",
    "item_id": "text",
    "workflow": "text",
    "format": "text",
    "status": "text",
    "item_status": "text",
    "created_at": "time",
    "updated_at": "time",
    "started_at": "time",
    "ended_at": "time",
    "duration_seconds": "seconds",
    "created_by_id": "text",
    "created_by_login": "text",
    "created_by_name": "text",
    "current_step": "text",
    "current_step_index": "count",
    "blocked_reason": "text",
    "blocked_is_retriable": "flag",
    "decided_option": "text",
    "decided_type": "text",
    "decided_by": "text",
    "decided_at": "time",
    "decided_from": "text",
    "decided_problem": "text",
    "ambiguous": "text",
}
STEPS: Columns = {
    "instance_id": "text",
    "step_key": "text",
    "event_index": "count",
    "event_type": "text",
    "step_occurrence_id": "text",
    "step_uuid": "text",
    "name": "text",
    "started_at": "time",
    "ended_at": "time",
    "duration_seconds": "seconds",
    "due_at": "time",
    "item_status": "text",
    "decision_type": "text",
    "overall_response": "text",
    "overall_response_type": "text",
    "overall_response_description": "text",
    "end_type": "text",
    "description": "text",
    "terminated_by_id": "text",
    "terminated_by_login": "text",
    "terminated_by_name": "text",
    "terminate_reason": "text",
    "terminate_result": "text",
    "overridden_at": "time",
    "overridden_by_id": "text",
    "overridden_by_login": "text",
    "overridden_by_name": "text",
    "override_reason": "text",
    "assignee_updates": "text",
    "decided_option": "text",
    "decided_type": "text",
    "decided_by": "text",
    "decided_at": "time",
    "decided_from": "text",
    "decided_problem": "text",
    "raw": "text",
}
RESPONSES: Columns = {
    "instance_id": "text",
    "step_key": "text",
    "response_key": "text",
    "step_occurrence_id": "text",
    "step": "text",
    "user_id": "text",
    "login": "text",
    "name": "text",
    "role_type": "text",
    "required": "flag",
    "response_id": "text",
    "response": "text",
    "response_type": "text",
    "comment": "text",
    "responded_at": "time",
    "seconds_to_respond": "seconds",
    "attachments": "text",
    "original_assignees": "text",
}
TABLES: Mapping[str, Columns] = {"instances": INSTANCES, "steps": STEPS, "responses": RESPONSES}

LEGACY_INSTANCES: Columns = {
    "instance_id": "text",
    "company_id": "text",
    "project_id": "text",
    "project": "text",
    "object_id": "text",
    "object_type": "text",
    "workflow_id": "text",
    "workflow": "text",
    "state_id": "text",
    "state": "text",
    "status": "text",
    "state_set_at": "time",
    "becomes_overdue_at": "time",
    "terminated_at": "time",
    "terminated_by_id": "text",
    "terminated_by_login": "text",
    "terminated_by_name": "text",
    "ball_in_court": "text",
    "open_activities": "count",
}
LEGACY_ACTIVITIES: Columns = {
    "instance_id": "text",
    "history_id": "text",
    "activity_id": "text",
    "activity": "text",
    "role_id": "text",
    "role": "text",
    "state_id": "text",
    "state": "text",
    "performed_by_id": "text",
    "performed_by": "text",
    "assigned_to_id": "text",
    "assigned_to": "text",
    "comments": "text",
    "started_at": "time",
    "ended_at": "time",
    "duration_seconds": "seconds",
    "created_at": "time",
    "updated_at": "time",
    "attachments": "text",
}
LEGACY_TABLES: Mapping[str, Columns] = {"instances": LEGACY_INSTANCES, "activities": LEGACY_ACTIVITIES}

# Times and dates, but not "now" and not the intervals of ISO 8601, which pendulum also accepts.
# `re` compiles it once when it is first used.
TIME = r"\d{4}-\d\d-\d\d([T ][\d:.]+ ?(Z|[+-]\d\d(:?\d\d)?)?)?"

# Columns of a step by the field of the event's details.
STEP_TEXTS = {
    "step_occurrence_id": "id",
    "step_uuid": "uuid",
    "name": "name",
    "item_status": "status",
    "decision_type": "decision_type",
    "overall_response": "overall_response",
    "overall_response_type": "overall_response_type",
    "overall_response_description": "overall_response_description",
    "end_type": "end_type",
    "description": "description",
    "terminate_reason": "terminate_reason",
    "terminate_result": "terminate_result",
    "assignee_updates": "assignee_updates",
}
# Fields of the start and the end of each kind of event.
EVENT_TIMES = {
    "WorkflowStarted": ("started_at", None),
    "WorkflowTerminated": (None, "terminated_at"),
    "Conditional": ("evaluated_at", "evaluated_at"),
    "ResponseStep": ("started_at", "ended_at"),
    "Action": ("started_at", "ended_at"),
    "EndStep": ("started_at", "ended_at"),
}


# --- changed instances ------------------------------------------------------------------------------------


def changed_since(value: Any) -> datetime | None:
    """
    Read the parameter ``changed_since``.

    :param value: An ISO-8601 text or a datetime, both with their zone; None for all instances.
    :raises ConfigurationError: the value is not a time, or has no zone.
    """
    if value is None:
        return None
    check_required(changed_since=value)
    moment = value if isinstance(value, datetime) else _zoned_time(str(value).strip())
    if moment is None or moment.tzinfo is None:
        raise ConfigurationError(
            f"changed_since must be a time with its zone, such as 2026-01-31T00:00:00Z; got {str(value)!r}."
        )
    return moment.astimezone(timezone.utc)


def _zoned_time(text: str) -> datetime | None:
    return time(text) if has_zone(text) else None


def listed_instance(row: Json, since: datetime | None) -> Row:
    """
    Return the values that an export needs of a row of the list of instances.

    An instance counts as changed if it is active, if one of its times is not before ``since``, or if none of its times
    can be read. Active instances always count, because it is not documented that every event changes ``updated_at``.

    :return: ``{id, started_at, changed}``, and for a changed instance the columns that only the list has.
    """
    times = [moment for key in ("updated_at", "ended_at", "started_at", "created_at") if (moment := time(row.get(key)))]
    active = not is_given(row.get("ended_at"))
    changed = since is None or active or not times or max(times) >= since
    stored: Row = {"id": text(row.get("id")), "started_at": time(row.get("started_at")), "changed": changed}
    if changed:
        stored |= {
            "tool_subtype": text(row.get("tool_subtype")),
            "created_at": time(row.get("created_at")),
            "updated_at": time(row.get("updated_at")),
            "ended_at": time(row.get("ended_at")),
            **_person("created_by", row.get("created_by")),
        }
    return stored


def latest_of(*moments: datetime | None) -> datetime | None:
    """Return the latest of the times that are not None."""
    return max((moment for moment in moments if moment is not None), default=None)


def watermark(since: datetime | None, latest: datetime | None, started: datetime, overlap: timedelta) -> str | None:
    """
    Return the time to pass to the next export as ``changed_since``.

    :param since: This export's ``changed_since``, or None.
    :param latest: The latest time of a change in this export, or None.
    :param started: Start of this export by the server's clock; it may have missed later changes.
    :param overlap: How much earlier the next export starts, to include changes that the API shows late.
    """
    started = started.replace(microsecond=0)
    seen = None if latest is None else min(latest, started) - overlap
    if since is not None and since > started:  # it comes from a clock that is ahead of the server's
        since = started - overlap
    highest = latest_of(since, seen)
    return None if highest is None else iso(highest)


# --- the instance of a history ----------------------------------------------------------------------------


class NamedHistory(NamedTuple):
    """
    Hold a history and the instance that it belongs to.

    :param instance_id: Id of the instance, or a derived key.
    :param id_from: Source of the id: the ``api``, the list of instances by ``started_at`` or by its ``order``, or
        ``derived`` from item and time if the id is unknown.
    :param history: The history.
    :param listed: The listed instance, as :func:`listed_instance` returned it, or None.
    """

    instance_id: str
    id_from: str
    history: Json
    listed: Json | None


def name_histories(histories: Any, listed: Iterable[Json], *, tool_type: str, item_id: str) -> list[NamedHistory]:
    """
    Match each history of an item with its instance.

    :param histories: The item's histories, the newest first; malformed ones are left out.
    :param listed: The item's instances, as :func:`listed_instance` returned them.
    :param tool_type: Tool of the item.
    :param item_id: Id of the item.
    """
    by_id = {row["id"]: row for row in sorted(listed, key=_list_age, reverse=True)}
    well_formed = [h for h in histories if isinstance(h, Mapping)] if isinstance(histories, list) else []
    named: dict[str, NamedHistory] = {}
    for history in well_formed:
        own_id = text(history.get("instance_id"))
        if own_id is not None:
            named.setdefault(own_id, NamedHistory(own_id, "api", history, by_id.pop(own_id, None)))
    nameless = [history for history in well_formed if text(history.get("instance_id")) is None]
    left: list[tuple[int, Json]] = []
    for place, history in enumerate(nameless):
        started = _started(history)
        same = next((i for i, row in by_id.items() if started is not None and row["started_at"] == started), None)
        if same is None:
            left.append((len(nameless) - place, history))
        else:
            named[same] = NamedHistory(same, "started_at", history, by_id.pop(same))
    # Match by order only if the times do not contradict it.
    in_order = len(left) == len(by_id) and not any(
        _started(history) and row["started_at"] for (_, history), row in zip(left, by_id.values(), strict=True)
    )
    for place, history in left:
        if in_order:
            instance_id = next(iter(by_id))
            named[instance_id] = NamedHistory(instance_id, "order", history, by_id.pop(instance_id))
        else:
            key = _derived_key(history, place, f"{tool_type}:{item_id}", named)
            named[key] = NamedHistory(key, "derived", history, None)
    return list(named.values())


def _list_age(row: Json) -> tuple[float, int, str]:
    instance_id = str(row["id"])
    return (row["started_at"].timestamp() if row["started_at"] else float("-inf")), len(instance_id), instance_id


def _derived_key(history: Json, place: int, item: str, taken: Mapping[str, Any]) -> str:
    started = _started(history)
    key = (
        f"{item}@{iso(started)}" if started else f"{item}#{place}"
    )  # places are counted from the oldest, so they do not change
    return key if key not in taken else f"{key}#{place}"


def _started(history: Json) -> datetime | None:
    return time(Timeline(history).started_at)


# --- rows of the v2 tables --------------------------------------------------------------------------------


def rows_of(named: NamedHistory, where: Json) -> dict[str, list[Row]]:
    """
    Return the rows of one instance, by table; never fails on a malformed history.

    :param where: The columns of the instance's company, project, tool and item.
    :return: ``{"instances": [...], "steps": [...], "responses": [...]}`` with the columns of :data:`TABLES`.
    """
    timeline = Timeline(named.history)
    steps, responses = [], []
    keys: set[str] = set()
    for index, event in enumerate(timeline.events):
        step = step_row(named.instance_id, index, event, keys)
        steps.append(step | _decided(timeline.decision_at(event)))
        responses += response_rows(step, event.details)
    return {"instances": [instance_row(named, timeline, where)], "steps": steps, "responses": responses}


def instance_row(named: NamedHistory, timeline: Timeline, where: Json) -> Row:
    """
    Return the row of an instance.

    Older versions of the API return the events only; the other values are then derived from the events.

    :param timeline: The timeline of its history.
    :param where: The columns of its company, project, tool and item.
    """
    history, listed = named.history, named.listed or {}
    ended_at = time(timeline.ended_at) or listed.get("ended_at")
    started_at = time(timeline.started_at) or listed.get("started_at")
    state = timeline.state
    is_over = ended_at is not None or state in ENDED_STATES
    current = [] if is_over else timeline.current_steps("ResponseStep", "Action", "EndStep")
    found = {
        "current_step": list(dict.fromkeys(text(step.details.get("name")) for step in current)),
        "item_status": [text(status) for status in timeline.item_statuses()],
    }
    ambiguous = [column for column, values in found.items() if len(values) > 1]
    return {
        **dict.fromkeys(INSTANCES),
        **{column: value for column, value in listed.items() if column in INSTANCES},
        **where,
        "instance_id": named.instance_id,
        "id_from": named.id_from,
        "workflow": text(history.get("name")),
        "format": text(history.get("format")),
        "status": ENDED if is_over and state == "in_progress" else state,
        **{column: values[0] if len(values) == 1 else None for column, values in found.items()},
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_seconds": seconds_between(started_at, ended_at),
        "current_step_index": count(history.get("current_step_index")),
        "blocked_reason": text(history.get("blocked_reason")),
        "blocked_is_retriable": flag(history.get("blocked_is_retriable")),
        **_decided(timeline.last_decision()),
        "ambiguous": as_json(ambiguous),
    }


def _decided(decision: Json | None) -> Row:
    decided: Json = {} if decision is None else decision
    return {
        "decided_option": text(decided.get("option")),
        "decided_type": text(decided.get("type")),
        "decided_by": text(decided.get("by")),
        "decided_at": time(decided.get("at")),
        "decided_from": text(decided.get("source")),
        "decided_problem": text(decided.get("problem")),
    }


def step_row(instance_id: str, index: int, event: Event, taken: set[str]) -> Row:
    """
    Return the row of one event of a history.

    :param index: Chronological place of the event, from 0.
    :param event: The event; stored completely in ``raw`` if its type or format is unknown.
    :param taken: Step keys of the events before it; the key of this event is added.
    """
    details = event.details
    kind = text(event.raw.get("type")) if isinstance(event.raw, Mapping) else None
    start, end = EVENT_TIMES.get(kind or "", ("started_at", "ended_at"))
    started_at, ended_at = (time(details.get(key)) if key else None for key in (start, end))
    override = details.get("override")
    override = override if isinstance(override, Mapping) else {}
    occurrence_id = text(details.get("id"))
    key = occurrence_id if occurrence_id is not None and occurrence_id not in taken else f"#{index}"
    taken.add(key)
    return {
        **dict.fromkeys(STEPS),
        **{column: text(details.get(field)) for column, field in STEP_TEXTS.items()},
        "instance_id": instance_id,
        "step_key": key,
        "event_index": index,
        "event_type": kind,
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_seconds": seconds_between(started_at, ended_at),
        "due_at": due_time(details.get("due_date")),
        **_person("terminated_by", details.get("terminated_by")),
        "overridden_at": time(override.get("overridden_at")),
        **_person("overridden_by", override.get("overridden_by")),
        "override_reason": text(override.get("override_reason")),
        "raw": None if _is_known(kind, event.raw, details) else as_json(event.raw),
    }


def response_rows(step: Row, details: Json) -> list[Row]:
    """
    Return a row for each assignee of a step, with or without a response.

    :param step: Row of the step.
    :param details: Details of the step's event.
    """
    responses = details.get("responses")
    rows = []
    keys: set[str] = set()
    for index, response in enumerate(responses if isinstance(responses, list) else []):
        if not isinstance(response, Mapping):
            continue  # the step's row contains the whole event
        user_id, responded_at = text(response.get("id")), time(response.get("responded_at"))
        key = user_id if user_id is not None and user_id not in keys else f"#{index}"
        keys.add(key)
        rows.append(
            {
                **{column: text(response.get(column)) for column in RESPONSES},
                "instance_id": step["instance_id"],
                "step_key": step["step_key"],
                "response_key": key,
                "step_occurrence_id": step["step_occurrence_id"],
                "step": step["name"],
                "user_id": user_id,
                "required": flag(response.get("required")),
                "responded_at": responded_at,
                "seconds_to_respond": seconds_between(step["started_at"], responded_at),
                "attachments": as_json(response.get("attachments") or []),
                "original_assignees": as_json(response.get("original_assignees") or []),
            }
        )
    return rows


def _is_known(kind: str | None, event: Any, details: Json) -> bool:
    if kind not in EVENT_TIMES or not isinstance(event.get("details"), Mapping):
        return False
    responses = details.get("responses")
    if responses is not None and not (isinstance(responses, list) and all(isinstance(r, Mapping) for r in responses)):
        return False
    times = (details.get(key) for key in (*EVENT_TIMES[kind], "due_date") if key)
    return all(value is None or time(value) is not None for value in times)


# --- rows of the legacy tables ----------------------------------------------------------------------------


def legacy_instance_row(instance: Json, *, company_id: str) -> Row:
    """Return the row of a legacy instance; never fails on a malformed instance."""
    state, workflow, project = (
        found if isinstance(found := instance.get(key), Mapping) else {}
        for key in ("current_workflow_state", "workflow", "project")
    )
    activities = instance.get("current_workflow_activities")
    return {
        **dict.fromkeys(LEGACY_INSTANCES),
        "instance_id": text(instance.get("id")),
        "company_id": company_id,
        "project_id": text(project.get("id")),
        "project": text(project.get("name")),
        "object_id": text(instance.get("workflowed_object_id")),
        "object_type": text(instance.get("workflowed_object_type")),
        "workflow_id": text(workflow.get("id")),
        "workflow": text(workflow.get("name")),
        "state_id": text(state.get("id")),
        "state": text(state.get("name")),
        "status": text(state.get("status")),
        "state_set_at": time(instance.get("current_state_set_at")),
        "becomes_overdue_at": due_time(instance.get("becomes_overdue_at")),
        "terminated_at": time(instance.get("terminated_at")),
        **_person("terminated_by", instance.get("terminated_by")),
        "ball_in_court": as_json(state.get("ball_in_court") or []),
        "open_activities": len(activities) if isinstance(activities, list) else None,
    }


def legacy_activity_row(history: Json, *, instance_id: str) -> Row:
    """Return the row of one performed activity of a legacy instance; never fails on a malformed history."""
    started_at, ended_at = time(history.get("bic_start")), time(history.get("bic_end"))
    return {
        "instance_id": instance_id,
        "history_id": text(history.get("id")),
        "activity_id": text(history.get("workflow_activity_id")),
        "activity": text(history.get("workflow_activity_name")),
        "role_id": text(history.get("workflow_user_role_id")),
        "role": text(history.get("workflow_user_role_name")),
        "state_id": text(history.get("workflow_state_id")),
        "state": text(history.get("workflow_state_name")),
        "performed_by_id": text(history.get("performed_by_id")),
        "performed_by": text(history.get("performed_by_name")),
        "assigned_to_id": text(history.get("assigned_to_id")),
        "assigned_to": text(history.get("assigned_to_name")),
        "comments": text(history.get("comments")),
        "started_at": started_at,
        "ended_at": ended_at,
        "duration_seconds": seconds_between(started_at, ended_at),
        "created_at": time(history.get("created_at")),
        "updated_at": time(history.get("updated_at")),
        "attachments": as_json(history.get("file_attachments") or history.get("attachments") or []),
    }


def legacy_has_changed(instance: Json, since: datetime | None) -> bool:
    """Return whether a listed legacy instance has entered its state since a time, or does not show the time."""
    entered = time(instance.get("current_state_set_at"))
    return since is None or entered is None or entered >= since


# --- values -----------------------------------------------------------------------------------------------


def text(value: Any) -> str | None:
    """Return a value as text: strings unchanged, any other value as JSON."""
    if value is None:
        return None
    if not isinstance(value, str):
        return as_json(value)
    return value.encode("utf-8", "replace").decode()  # a file cannot store a lone surrogate


def as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def due_time(value: Any) -> datetime | None:
    """Return the time after which a due date has passed: a day ends with its last moment."""
    moment = time(value)
    return moment + timedelta(days=1) if moment is not None and is_day(value) else moment


def time(value: Any) -> datetime | None:
    """Return a time of the API in UTC, to the millisecond, or None if it cannot be read."""
    if not isinstance(value, str) or not re.fullmatch(TIME, value, re.IGNORECASE | re.ASCII):
        return None
    moment = parse_time(value)
    if moment is None:
        return None
    return datetime(*moment.timetuple()[:6], moment.microsecond // 1000 * 1000, timezone.utc)


def iso(moment: datetime) -> str:
    """Return a time in the format of exported files and XComs: ``2026-01-31T08:00:00.000Z``."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return value if whole else None


def flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def seconds_between(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def _person(prefix: str, person: Any) -> Row:
    person = person if isinstance(person, Mapping) else {}
    return {f"{prefix}_{key}": text(person.get(key)) for key in ("id", "login", "name")}
