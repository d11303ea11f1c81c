"""The meaning of the responses of Procore's Workflows v2 API: states, steps and assignees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from airflow_provider_workflows.exceptions import AmbiguousOrder, ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules import procore_decisions as timeline
from airflow_provider_workflows.rules.datetimes import parse_time, seconds_of
from airflow_provider_workflows.rules.overdue import PendingStep
from airflow_provider_workflows.rules.parameters import as_list, as_text, check_choice, check_required, str_id
from airflow_provider_workflows.rules.payload import documented_form, is_id
from airflow_provider_workflows.rules.procore_decisions import Event, Timeline, is_given
from airflow_provider_workflows.rules.procore_decisions import rows_of as _rows
from airflow_provider_workflows.rules.procore_decisions import str_id as _id
from airflow_provider_workflows.rules.wait_result import WaitResult, evaluate

ENDED_STATES = timeline.ENDED_STATES
STATES = timeline.STATES
COMPANY_LEVEL = "company"  # as project_id, it overrides the connection's project
ATTACHMENT_KINDS = (
    "prostore_file_ids",
    "drawing_revision_ids",
    "file_version_ids",
    "form_ids",
    "image_ids",
    "upload_ids",
)
ROLE_TYPES = ("responder", "commenter")
ADDED_ASSIGNEE_REASONS = (
    "new_employee",
    "original_assignee_left_company",
    "original_assignee_left_the_project",
    "original_assignee_on_extended_leave",
    "original_assignee_on_vacation",
    "other",
)

Json = Mapping[str, Any]


# --- an instance, from its history -----------------------------------------------------------------------


@documented_form()
def describe_instance(history: Json | Timeline, *, instance_id: str, item_id: str | None) -> dict[str, Any]:
    """
    Return the state of an instance.

    Older versions of the API return the list of events only; the other values are then derived from the events.

    :param history: ``data`` of "Show Workflow Instance History", or its timeline from :func:`timeline_of`.
    :param instance_id: Id of the instance.
    :param item_id: Id of the item that the instance belongs to, if known.
    :return: ``{instance_id, item_id, state, step, item_status, decision, last_response, started_at, ended_at,
        blocked_reason, ambiguous}``. ``state`` is one of :data:`STATES`, ``ended`` if the history does not show how the
        instance ended, or a state that this package does not know. ``decision`` is that of the response step that ended
        last, as :meth:`Timeline.decision_at` returns it, or None; ``last_response`` is ``{option, type, comment, by,
        at}`` or None. ``ambiguous`` names those of ``step``, ``item_status`` and ``last_response`` that are None
        because the history does not show the order of events. Times are the API's own strings.
    """
    history_timeline = timeline_of(history)
    steps = {str(step.details.get("name")): step.details.get("name") for step in _current(history_timeline)}
    found = {"step": list(steps.values()), "item_status": history_timeline.item_statuses()}
    return {
        "instance_id": instance_id,
        "item_id": item_id,
        "state": history_timeline.state,
        **{name: values[0] if len(values) == 1 else None for name, values in found.items()},
        "decision": history_timeline.last_decision(),
        "last_response": history_timeline.last_response(),
        "started_at": history_timeline.started_at,
        "ended_at": history_timeline.ended_at,
        "blocked_reason": history_timeline.history.get("blocked_reason"),
        "ambiguous": [
            *(name for name, values in found.items() if len(values) > 1),
            *(["last_response"] if history_timeline.has_unclear_last_response() else []),
        ],
    }


def _current(history: Timeline) -> list[Event]:
    is_over = has_ended({"ended_at": history.ended_at, "state": history.state})
    return [] if is_over else history.current_steps("ResponseStep", "Action", "EndStep")


@documented_form()
def evaluate_instance(
    instance: Json,
    *,
    until: Collection[str],
    fail_on: Collection[str],
    skip_on: Collection[str],
    occurrence: Json | None = None,
    awaited: Collection[str] = (),
) -> WaitResult | None:
    """
    Return the result of the wait for an instance, or None to continue waiting.

    An instance that ended in any other state never changes again, so it fails the wait.

    :param instance: The result of :func:`describe_instance`.
    :param until: States that end the wait with success.
    :param fail_on: States that fail the wait.
    :param skip_on: States that skip the task.
    :param occurrence: The awaited step occurrence, as :func:`find_occurrence` returned it, or None.
    :param awaited: Descriptions of other awaited events, for the reason.
    :return: The wait result with the instance and ``occurrence``; or None.
    """
    state = instance["state"]
    where = f"Procore workflow instance {instance['instance_id']} is {state}"
    result = {**instance, "occurrence": None if occurrence is None else dict(occurrence)}
    action = evaluate(state, until=until, fail_on=fail_on, skip_on=skip_on)
    if action is not None:
        return WaitResult(action, result, where)
    if occurrence is not None:
        return WaitResult("succeed", result, f"{where} and {_describe_occurrence(occurrence)}")
    if has_ended(instance):
        if set(until) >= ENDED_STATES:  # any end is a success
            return WaitResult("succeed", result, f"{where}; its history does not show how it ended")
        return WaitResult("fail", result, f"{where}: it ended without reaching {_listed([*until, *awaited])}")
    return None


def created_by(instance: Json) -> str | None:
    """Return the id of the user who started an instance, or None if the instance does not show it."""
    by = instance.get("created_by")
    return _id(by) if isinstance(by, Mapping) else None


def terminated_by(history: Json) -> str | None:
    """Return the id of the user who terminated an instance, or None."""
    by = timeline_of(history).terminated_by()
    return _id(by) if isinstance(by, Mapping) else None


@documented_form()
def ended_otherwise(history: Json, user_id: str) -> bool | None:
    """Return whether an instance ended by something else than a user's termination; None if it shows no end (yet)."""
    by = terminated_by(history)
    if by is not None:
        return by != user_id
    history_timeline = timeline_of(history)
    if not has_ended({"ended_at": history_timeline.ended_at, "state": history_timeline.state}):
        return None
    return history_timeline.state == "complete" and is_given(history.get("status"))


def is_blocked(history: Json) -> bool:
    """Return whether an instance is blocked; histories of older API versions do not show it."""
    status = history.get("status")
    has_status = isinstance(status, str) and status.strip().casefold() == "blocked"
    return has_status or (is_given(history.get("blocked_reason")) and not has_ended(history))


def _describe_occurrence(occurrence: Json) -> str:
    decision = occurrence.get("decision")
    if decision is None:
        return f"step {occurrence['step']!r} was reached at {occurrence['started_at']}"
    return f"step {occurrence['step']!r} was {describe_decision(decision)}"


def describe_decision(decision: Json) -> str:
    """Return a description of a decision that follows the name of its step and "was"."""
    if decision["option"] is None and decision["type"] is None:
        return f"decided, but the decision is unknown: {decision['problem']}"
    how = "overridden to" if decision["source"] == "override" else "decided"
    by = "" if decision["by"] is None else f" by {decision['by']}"
    return f"{how} {decision['option'] or decision['type']!r}{by} at {decision['at']}"


@documented_form()
def find_occurrence(
    history: Json | Timeline, step: str, *, decided: bool = False, after: str | None = None
) -> dict[str, Any] | None:
    """
    Return the first occurrence of a step, optionally the first one that started after an action.

    :param history: ``data`` of "Show Workflow Instance History", or its timeline from :func:`timeline_of`.
    :param step: Name of the step, in any case, or its uuid.
    :param decided: Only an occurrence that ended with a decision, by a response or an override.
    :param after: A step occurrence id or an ISO-8601 time: only later occurrences count; or None.
    :return: ``{step, step_occurrence_id, started_at, ended_at, decision, response: {option, type, comment, by,
        at}}`` or None. ``decision`` is as :meth:`Timeline.decision_at` returns it; ``response`` is the last one of the
        occurrence, and may be hidden from the connection's user.
    :raises AmbiguousOrder: the history does not show which of several occurrences was the first.
    """
    history_timeline = timeline_of(history)
    matching = []
    for event in history_timeline.steps():
        names = [str(event.details.get(key)).strip().casefold() for key in ("name", "uuid")]
        if step.strip().casefold() not in names or (decided and history_timeline.decision_at(event) is None):
            continue
        matching.append(event)
    occurrences = _later(history_timeline, matching, after)
    if not occurrences:
        return None
    first = occurrences[0]
    if any(other.rank == first.rank for other in occurrences[1:]):
        raise AmbiguousOrder(f"The history does not show which occurrence of step {step!r} was the first")
    return {
        "step": first.details.get("name"),
        "step_occurrence_id": _id(first.details),
        "started_at": first.started,
        "ended_at": first.ended,
        "decision": history_timeline.decision_at(first),
        "response": history_timeline.last_response([first]),
    }


def _later(history: Timeline, occurrences: list[Event], after: str | None) -> list[Event]:
    """Return those of some occurrences that started after an action."""
    if after is None:
        return occurrences
    marks = [step for step in history.steps() if _id(step.details) == after]
    if marks:
        if any(occurrence.rank == marks[0].rank and occurrence is not marks[0] for occurrence in occurrences):
            raise AmbiguousOrder(f"The history does not show which steps started after step occurrence {after}")
        return [occurrence for occurrence in occurrences if occurrence.rank > marks[0].rank]
    moment = None if after.isdecimal() else parse_time(after)  # "2026" is an id, not a year
    # A step occurrence that the history does not show (yet) is not followed by others.
    return (
        []
        if moment is None
        else [occurrence for occurrence in occurrences if timeline.seconds(occurrence.started) >= seconds_of(moment)]
    )


def timeline_of(history: Json | Timeline) -> Timeline:
    """
    Return the timeline of a history, its events in chronological order.

    Sorting the events takes most of the time of a poll, so callers with several questions build it once.

    :raises UnexpectedResponse: the events are not a list or the status is not text; a wait that ignored them would
        never end.
    """
    if isinstance(history, Timeline):
        return history
    events_of(history)
    if not isinstance(status := history.get("status"), (str, type(None))):
        raise UnexpectedResponse(f"The status of a history must be text; got {type(status).__name__}")
    return Timeline(history)


def events_of(history: Json) -> list[Json]:
    """
    Return the well-formed events of a history, in the order of the API.

    :raises UnexpectedResponse: the events are not a list; a wait that ignored them would never end.
    """
    events = history.get("history")
    if events is not None and not isinstance(events, list):
        raise UnexpectedResponse(f"The events of a history must be a list; got {type(events).__name__}")
    return _rows(events)


def same_tool(one: Any, other: Any) -> bool:
    """Return whether two names mean the same tool: its type and its class differ in punctuation and case only."""
    return bool(one == other or _letters(one) == _letters(other))


def _letters(tool_type: Any) -> str:
    return "".join(letter for letter in str(tool_type).casefold() if letter.isalnum())


def matches_filters(
    row: Json,
    *,
    tool_type: str | None = None,
    tool_subtype: str | None = None,
    item_id: str | None = None,
    active: bool | None = None,
) -> bool:
    """
    Return whether an instance matches the filters of a list, because a server can ignore them.

    :param row: A row of a list, or an instance; a value that it does not have counts as matching.
    :param active: True if it must be active, False if it must have ended.
    """
    if tool_type is not None and row.get("tool_type") and not same_tool(row["tool_type"], tool_type):
        return False
    filters = {"tool_subtype": tool_subtype, "item_id": item_id}
    if any(value is not None and str(row.get(name) or value) != value for name, value in filters.items()):
        return False
    return active is None or "ended_at" not in row or has_ended(row) is not active


def details_of(event: Json) -> Json:
    """Return the details of an event, or an empty mapping."""
    details = event.get("details")
    return details if isinstance(details, Mapping) else {}


def _seconds(time: Any) -> float:
    if time is not None and not isinstance(time, str):
        raise UnexpectedResponse(f"A time must be text; got {type(time).__name__}")
    return timeline.seconds(time)


@documented_form()
def active_instance(instances: Iterable[Json]) -> str | None:
    """Return the id of the active instance, or None."""
    return next((str(instance["id"]) for instance in instances if not has_ended(instance)), None)


@documented_form()
def newest_instance(instances: Iterable[Json]) -> str:
    """Return the id of the active instance, else of the one that was started last."""
    newest = max(instances, key=_age)
    return str(newest["id"])


def _age(instance: Json) -> tuple[bool, float, int, str]:
    started = _seconds(instance.get("started_at") or instance.get("created_at"))
    instance_id = str(instance["id"])
    return not has_ended(instance), started, len(instance_id), instance_id


@documented_form()
def pending_step_of(history: Json | Timeline) -> PendingStep | None:
    """Return the current step of an instance with its pending assignees, or None if the history does not show one."""
    history_timeline = timeline_of(history)
    steps = [step for step in _current(history_timeline) if step.kind != "EndStep"]
    if len(steps) != 1:
        return None
    step, since = steps[0].details, steps[0].started
    assignees = _assignees(step)
    return PendingStep(
        step_occurrence_id=_id(step) or f"{step.get('name')}@{since}",
        step=step.get("name"),
        since=since,
        due=step.get("due_date"),
        assignees=tuple(assignees.values()),
        is_overdue=history_timeline.state == "overdue",
        assignee_ids=tuple(assignees),
    )


def _assignees(step: Json) -> dict[str, str]:
    """Return the logins or names of the responders without a response by id; if it shows only groups, the ids."""
    assignees: dict[str, Json] = {}
    for field in ("responses", "additional_assignees", "individual_assignees"):
        for row in _rows(step.get(field)):
            assignees.setdefault(str(row.get("id")), row)
    if not assignees:
        groups = (group.get("login_ids") for group in _rows(step.get("responsible_groups")))
        return {str(user_id): str(user_id) for ids in groups if isinstance(ids, list) for user_id in ids}
    commenters = timeline.commenters_of(step)
    return {
        user_id: str(row.get("login") or row.get("name") or user_id)
        for user_id, row in assignees.items()
        if not row.get("responded_at") and not timeline.is_commenter(row) and user_id not in commenters
    }


# --- the current step: its assignees -------------------------------------------------------------------


def has_ended(record: Json) -> bool:
    """
    Return whether an instance has ended, by a non-empty ``ended_at`` or the status of its history.

    An instance without a current step may be between two steps, so that does not count as ended.

    :param record: The instance as shown or listed, its history, or the result of :func:`describe_instance`.
    """
    return is_given(record.get("ended_at")) or any(
        isinstance(text := record.get(key), str) and text.strip().casefold() in ENDED_STATES
        for key in ("status", "state")
    )


def is_between_steps(instance: Json) -> bool:
    """Return whether an instance, as shown, has no current step although it has not ended."""
    return not has_ended(instance) and current_step(instance) is None


def current_step(instance: Json) -> Json | None:
    """Return the current step occurrence of an instance, or None if it has ended or is between two steps."""
    step = instance.get("current_step_occurrence")
    return step if isinstance(step, Mapping) and step.get("id") is not None and not has_ended(instance) else None


def pending_assignees(step: Json) -> list[Json]:
    """Return the assignees of a step occurrence who have not responded yet, without commenters."""
    return [row["assignee"] for row in responses_of_assignees(step) if not row.get("submitted_at")]


def responses_of_assignees(step: Json) -> list[Json]:
    """Return the requested and submitted responses of a step occurrence that have an assignee who may decide."""
    commenters = timeline.commenters_of(step)
    return [
        row
        for row in _rows(step.get("response_occurrences"))
        if isinstance(assignee := row.get("assignee"), Mapping)
        and not (timeline.is_commenter(row) or timeline.is_commenter(assignee) or _id(assignee) in commenters)
    ]


def is_pending(step: Json, user_id: str) -> bool:
    """Return whether a step occurrence waits for the response of a user."""
    return any(_id(assignee) == user_id for assignee in pending_assignees(step))


def response_request(instance: Json, user_id: str) -> dict[str, Any] | None:
    """
    Return the request for a user's response, or None if the instance does not wait for that user.

    :param instance: ``data`` of "Show Workflow Instance".
    :param user_id: Login information id of the user.
    :return: ``{instance_id, item_id, tool_type, step, step_occurrence_id, step_started_at, overdue_at,
        options}`` with ``options`` a list of ``{id, name, type}``.
    """
    step = current_step(instance)
    if step is None or not is_pending(step, user_id):
        return None
    return {
        "instance_id": _id(instance),
        "item_id": str_id(instance.get("item_id")),
        "tool_type": instance.get("tool_type"),
        "step": step.get("name"),
        "step_occurrence_id": _id(step),
        "step_started_at": step.get("started_at"),
        "overdue_at": step.get("overdue_at"),
        "options": response_options(step),
    }


def attachment_ids(attachments: Any) -> dict[str, list[str]]:
    """
    Return the ids of attachments by kind, as text.

    :raises ConfigurationError: they are no mapping of kinds to ids, or one of the ids is none.
    """
    if attachments is not None and not isinstance(attachments, Mapping):
        raise ConfigurationError(f"attachments must be a mapping of kinds to ids; got {attachments!r}.")
    found: dict[str, list[str]] = {}
    for kind, ids in (attachments or {}).items():
        check_choice("the keys of attachments (give paths as files)", kind, ATTACHMENT_KINDS)
        name = f"attachments: {kind}"
        if not as_list(ids):
            raise ConfigurationError(f"{name} must have ids, at least one.")
        for file_id in as_list(ids):
            check_required(**{name: file_id})
        found[kind] = [as_text(name, file_id, is_id=True).strip() for file_id in as_list(ids)]
    return found


def response_options(step: Json) -> list[dict[str, Any]]:
    """Return the options of a step occurrence as ``{id, name, type}``."""
    return [
        {"id": _id(option), "name": option.get("name"), "type": option.get("response_type")}
        for option in timeline.options_of(step)
    ]


def assignee_ids(step: Json, role_type: str | None = None) -> set[str | None]:
    """
    Return the ids of the assignees of a step occurrence, as shown or in the history.

    :param role_type: ``commenter`` for all; otherwise without those who may only comment.
    """
    assignees = [occurrence.get("assignee") for occurrence in _rows(step.get("response_occurrences"))]
    named = ("individual_assignees", "additional_assignees", "responses")
    rows = [row for name in named for row in _rows(step.get(name))]
    everyone = {_id(assignee) for assignee in [*assignees, *rows] if isinstance(assignee, Mapping)}
    if role_type == "commenter":
        return everyone
    commenters = {_id(row) for row in rows if timeline.is_commenter(row)}
    responders = {_id(row) for row in rows if row.get("role_type") and not timeline.is_commenter(row)}
    return (everyone - commenters) | responders


@documented_form()
def step_in_history(history: Json, step_occurrence_id: str) -> Json | None:
    """Return the details of a response step in an instance's history, or None."""
    steps = (details_of(event) for event in events_of(history) if event.get("type") == "ResponseStep")
    return next((step for step in steps if _id(step) == step_occurrence_id), None)


def people_ids(people: Iterable[Json], desired: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """
    Find possible assignees by their login or e-mail address, in any case, or by their id.

    :param people: ``{id, login, ...}`` of each.
    :param desired: Logins, e-mail addresses and ids.
    :return: The id of each that was found, and why each of the others was not; where several people have a login, with
        the candidates.
    """
    ids: dict[str, dict[str, str]] = {}
    for person in people:
        if not is_id(person.get("id")):
            continue
        person_id = str(person["id"])
        for key in ("id", "login", "email_address", "email"):
            if person.get(key):
                described = f"{person.get('name') or person.get('login')} (id {person_id})"
                ids.setdefault(str(person[key]).casefold(), {})[person_id] = described
    found: dict[str, str] = {}
    rejected: dict[str, str] = {}
    for user in dict.fromkeys(desired):
        candidates = ids.get(user.casefold(), {})
        if len(candidates) == 1:
            found[user] = next(iter(candidates))
        elif candidates:
            rejected[user] = f"is ambiguous: give the id of one of {', '.join(candidates.values())}"
        else:
            rejected[user] = "is not a possible assignee of the tool"
    return found, rejected


def idempotency_token(*parts: Any) -> str:
    """Return a SHA-256 hash that is equal for the same action and different for any other."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _listed(names: Collection[str]) -> str:
    return " or ".join(sorted(names))
