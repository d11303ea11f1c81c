"""What the histories of Procore's workflows say, as rows of tables that keep their columns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.datetimes import has_zone, parse_time
from airflow_provider_workflows.rules.parameters import check_required
from airflow_provider_workflows.rules.procore_timeline import ENDED, ENDED_STATES, Event, Timeline, is_given

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

# Dates, too; but not "now", and not the intervals that ISO 8601 also has.
TIME = re.compile(r"\d{4}-\d\d-\d\d([T ][\d:.]+ ?(Z|[+-]\d\d:?\d\d)?)?", re.IGNORECASE | re.ASCII)

# Which of a step's columns come from which field of the event's details.
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
# Where each kind of event keeps its begin and its end.
EVENT_TIMES = {
    "WorkflowStarted": ("started_at", None),
    "WorkflowTerminated": (None, "terminated_at"),
    "Conditional": ("evaluated_at", "evaluated_at"),
    "ResponseStep": ("started_at", "ended_at"),
    "Action": ("started_at", "ended_at"),
    "EndStep": ("started_at", "ended_at"),
}


# --- what has changed -------------------------------------------------------------------------------------


def changed_since(value: Any) -> datetime | None:
    """
    Read the parameter ``changed_since``.

    :param value: An ISO-8601 text or a datetime, both with their zone; None for everything.
    :raises ConfigurationError: not a time, or one without a zone.
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
    Return what an export keeps of a row of the list of instances.

    An instance counts as changed when it is active, when one of its times is not before ``since``, or when none
    can be read. Whether ``updated_at`` moves with every event is not documented, hence the active ones.

    :return: ``{id, started_at, changed}``, and of a changed one the columns that only the list knows.
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
    """Return the latest of the times that there are."""
    return max((moment for moment in moments if moment is not None), default=None)


def watermark(since: datetime | None, latest: datetime | None, started: datetime, overlap: timedelta) -> str | None:
    """
    Return the time to pass to the next export as ``changed_since``.

    :param since: This export's own, or None.
    :param latest: The largest time of a change that was seen, or None.
    :param started: When this export began, by the server's clock; what changed later may have been missed.
    :param overlap: How much earlier the next export starts, for changes that show late.
    """
    started = started.replace(microsecond=0)
    seen = None if latest is None else min(latest, started) - overlap
    if since is not None and since > started:  # the clock it came from is ahead of the server's
        since = started - overlap
    highest = latest_of(since, seen)
    return None if highest is None else iso(highest)


# --- which instance a history is of -----------------------------------------------------------------------


@dataclass(frozen=True)
class NamedHistory:
    """
    A history, and the instance it is of.

    ``id_from`` says how the id is known: ``api`` names it, or it was found in the list by ``started_at`` or by
    its place (``order``), or there is none and a key was ``derived`` from item and time.
    """

    instance_id: str
    id_from: str
    history: Json
    listed: Json | None


def name_histories(histories: Any, listed: Iterable[Json], *, tool_type: str, item_id: str) -> list[NamedHistory]:
    """
    Say of which instance each history of an item is.

    :param histories: The item's histories, the newest first; what is not a history is left out.
    :param listed: What :func:`listed_instance` kept of the item's instances.
    :param tool_type: Tool of the item.
    :param item_id: The item.
    """
    by_id = {row["id"]: row for row in sorted(listed, key=_list_age, reverse=True)}
    given = [h for h in histories if isinstance(h, Mapping)] if isinstance(histories, list) else []
    named: dict[str, NamedHistory] = {}
    for history in given:
        own_id = text(history.get("instance_id"))
        if own_id is not None:
            named.setdefault(own_id, NamedHistory(own_id, "api", history, by_id.pop(own_id, None)))
    nameless = [history for history in given if text(history.get("instance_id")) is None]
    left: list[tuple[int, Json]] = []
    for place, history in enumerate(nameless):
        started = _started(history)
        same = next((i for i, row in by_id.items() if started is not None and row["started_at"] == started), None)
        if same is None:
            left.append((len(nameless) - place, history))
        else:
            named[same] = NamedHistory(same, "started_at", history, by_id.pop(same))
    # By order only where the times do not speak against it.
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
    key = f"{item}@{iso(started)}" if started else f"{item}#{place}"  # places count from the oldest, so they stay
    return key if key not in taken else f"{key}#{place}"


def _started(history: Json) -> datetime | None:
    return time(Timeline(history).started_at)


# --- rows of the v2 tables --------------------------------------------------------------------------------


def rows_of(named: NamedHistory, where: Json) -> dict[str, list[Row]]:
    """
    Return the rows of one instance, by table; it never fails, whatever the history holds.

    :param where: The columns that say where the instance lives: company, project, tool, item.
    :return: ``{"instances": [...], "steps": [...], "responses": [...]}`` with the columns of :data:`TABLES`.
    """
    happened = Timeline(named.history)
    steps, responses = [], []
    keys: set[str] = set()
    for index, event in enumerate(happened.events):
        step = step_row(named.instance_id, index, event, keys)
        steps.append(step | _decided(happened.decision_at(event)))
        responses += response_rows(step, event.details)
    return {"instances": [instance_row(named, happened, where)], "steps": steps, "responses": responses}


def instance_row(named: NamedHistory, happened: Timeline, where: Json) -> Row:
    """
    Return the row of an instance.

    Older versions of the API give the events only; what the newer ones say beside them is then derived.

    :param happened: The events of its history.
    :param where: The columns that say where it lives.
    """
    history, listed = named.history, named.listed or {}
    ended_at = time(happened.ended_at) or listed.get("ended_at")
    started_at = time(happened.started_at) or listed.get("started_at")
    state = happened.state
    is_over = ended_at is not None or state in ENDED_STATES
    current = [] if is_over else happened.current_steps("ResponseStep", "Action", "EndStep")
    found = {
        "current_step": list(dict.fromkeys(text(step.details.get("name")) for step in current)),
        "item_status": [text(status) for status in happened.item_statuses()],
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
        **_decided(happened.last_decision()),
        "ambiguous": as_json(ambiguous),
    }


def _decided(decision: Json | None) -> Row:
    found: Json = {} if decision is None else decision
    return {
        "decided_option": text(found.get("option")),
        "decided_type": text(found.get("type")),
        "decided_by": text(found.get("by")),
        "decided_at": time(found.get("at")),
        "decided_from": text(found.get("source")),
        "decided_problem": text(found.get("problem")),
    }


def step_row(instance_id: str, index: int, event: Event, taken: set[str]) -> Row:
    """
    Return the row of one event of a history.

    :param index: Place of the event in the order of time, from 0.
    :param event: The event; kept whole in ``raw`` when it is of no known kind or form.
    :param taken: Step keys of the events before it; this one's is added.
    """
    details = event.details
    kind = text(event.given.get("type")) if isinstance(event.given, Mapping) else None
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
        "due_at": time(details.get("due_date")),
        **_person("terminated_by", details.get("terminated_by")),
        "overridden_at": time(override.get("overridden_at")),
        **_person("overridden_by", override.get("overridden_by")),
        "override_reason": text(override.get("override_reason")),
        "raw": None if _is_known(kind, event.given, details) else as_json(event.given),
    }


def response_rows(step: Row, details: Json) -> list[Row]:
    """
    Return a row for everybody who was asked at a step, whether they answered or not.

    :param step: The step's row.
    :param details: Details of the step's event.
    """
    responses = details.get("responses")
    rows = []
    keys: set[str] = set()
    for index, response in enumerate(responses if isinstance(responses, list) else []):
        if not isinstance(response, Mapping):
            continue  # the step's row holds the whole event
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
    """Return the row of a legacy instance; it never fails, whatever the instance holds."""
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
        "becomes_overdue_at": time(instance.get("becomes_overdue_at")),
        "terminated_at": time(instance.get("terminated_at")),
        **_person("terminated_by", instance.get("terminated_by")),
        "ball_in_court": as_json(state.get("ball_in_court") or []),
        "open_activities": len(activities) if isinstance(activities, list) else None,
    }


def legacy_activity_row(history: Json, *, instance_id: str) -> Row:
    """Return the row of one performed activity of a legacy instance; it never fails, whatever the history holds."""
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
    """Tell whether a listed legacy instance has entered its state since a time, or does not say when."""
    entered = time(instance.get("current_state_set_at"))
    return since is None or entered is None or entered >= since


# --- values -----------------------------------------------------------------------------------------------


def text(value: Any) -> str | None:
    """Return a value as text: ids and words as they are, lists and objects as JSON."""
    if value is None:
        return None
    if not isinstance(value, str):
        return as_json(value)
    return value.encode("utf-8", "replace").decode()  # half a surrogate pair fits in no file


def as_json(value: Any) -> str:
    return json.dumps(value, default=str)


def time(value: Any) -> datetime | None:
    """Return a time of the API in UTC, to the millisecond, or None when it cannot be read."""
    if not isinstance(value, str) or not TIME.fullmatch(value):
        return None
    moment = parse_time(value)
    if moment is None:
        return None
    return datetime(*moment.timetuple()[:6], moment.microsecond // 1000 * 1000, timezone.utc)


def iso(moment: datetime) -> str:
    """Return a time as the exported files and XComs have it: ``2026-01-31T08:00:00.000Z``."""
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
