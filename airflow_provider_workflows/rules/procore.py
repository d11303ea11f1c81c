"""What the answers of Procore's Workflows v2 API mean."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError, ContractError
from airflow_provider_workflows.rules.forms import documented_form
from airflow_provider_workflows.rules.holdings import Holding
from airflow_provider_workflows.rules.times import parse_time, seconds_of
from airflow_provider_workflows.rules.verdicts import Verdict, judge

ENDED_STATES = frozenset({"complete", "terminated"})
ENDED_OPERATIONS = frozenset({"done", "partial_done", "failed", "cancelled"})
OPERATION_STATES = frozenset({"created", "in_progress"}) | ENDED_OPERATIONS
COMPANY_LEVEL = "company"  # given as project_id, it leaves the connection's project out
STEP_EVENTS = ("ResponseStep", "Action", "Conditional", "EndStep")
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
STATES = frozenset({"blocked", "overdue", "warning", "in_progress", "processing"}) | ENDED_STATES

Json = Mapping[str, Any]


# --- an instance, from its history -----------------------------------------------------------------------


@documented_form()
def describe_instance(history: Json, *, instance_id: str, item_id: str | None) -> dict[str, Any]:
    """
    Say where an instance stands.

    Older versions of the API give the list of events only; what the newer ones say beside it is then derived.

    :param history: ``data`` of "Show Workflow Instance History".
    :param instance_id: The instance's id.
    :param item_id: The id of the item the instance belongs to, if known.
    :return: ``{instance_id, item_id, state, step, item_status, last_response, started_at, ended_at,
        blocked_reason}``; ``last_response`` is ``{option, type, comment, by, at}`` or None, times are the
        API's own strings, ``state`` is one of :data:`STATES` or a word this package does not know yet.
    """
    events = events_of(history)
    details = [_details(event) for event in events]
    steps = [_details(event) for event in events if event.get("type") in ("ResponseStep", "Action", "EndStep")]
    ended_at = history.get("ended_at") or _end_of(events)
    current = None if ended_at else _current_step(steps)
    return {
        "instance_id": instance_id,
        "item_id": item_id,
        "state": history.get("status") or _state_of(events, ended_at),
        "step": current.get("name") if current else None,
        "item_status": _item_status(events),
        "last_response": _last_response(details),
        "started_at": history.get("started_at") or _first(details, "started_at"),
        "ended_at": ended_at,
        "blocked_reason": history.get("blocked_reason"),
    }


@documented_form()
def decide_instance(
    instance: Json,
    *,
    until: Collection[str],
    fail_on: Collection[str],
    skip_on: Collection[str],
    visit: Json | None = None,
    awaited: Collection[str] = (),
) -> Verdict | None:
    """
    Decide whether the wait for an instance is over.

    An instance that ended in a state nobody named would never change again, so that fails the wait.

    :param instance: What :func:`describe_instance` returned.
    :param until: States that end the wait with success.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param visit: The visit of a step that was waited for, as :func:`find_visit` returned it, or None.
    :param awaited: In words, what else than states was waited for.
    :return: The verdict, its result being the instance with ``visit``; or None to go on waiting.
    """
    state = instance["state"]
    where = f"Procore workflow instance {instance['instance_id']} is {state}"
    result = {**instance, "visit": None if visit is None else dict(visit)}
    word = judge(state, until=until, fail_on=fail_on, skip_on=skip_on)
    if word is not None:
        return Verdict(word, result, where)
    if visit is not None:
        return Verdict("succeed", result, f"{where} and {_told_visit(visit)}")
    if state in ENDED_STATES or instance["ended_at"]:
        return Verdict("fail", result, f"{where}: it has ended without reaching {_listed([*until, *awaited])}")
    return None


def _item_status(events: list[Json]) -> str | None:
    """Return what the last step that has begun says of the item; the status of an action is its own."""
    steps = [_details(event) for event in events if event.get("type") in ("ResponseStep", "EndStep")]
    return next((step["status"] for step in reversed(steps) if step.get("status") and step.get("started_at")), None)


def created_by(instance: Json) -> str | None:
    """Return the id of the user who started an instance, or None where it does not say."""
    by = instance.get("created_by")
    return _id(by) if isinstance(by, Mapping) else None


def terminated_by(history: Json) -> str | None:
    """Return the id of the user who terminated an instance, or None."""
    events = [_details(event) for event in events_of(history) if event.get("type") == "WorkflowTerminated"]
    by = events[-1].get("terminated_by") if events else None
    return _id(by) if isinstance(by, Mapping) else None


def is_blocked(history: Json) -> bool:
    """Tell whether an instance is blocked; histories of the older API do not say."""
    return history.get("status") == "blocked" or (bool(history.get("blocked_reason")) and not history.get("ended_at"))


def _told_visit(visit: Json) -> str:
    response = visit.get("response")
    if response is None or not visit.get("ended_at"):
        return f"step {visit['step']!r} was reached at {visit['started_at']}"
    return f"step {visit['step']!r} was answered {response['option']!r} by {response['by']} at {response['at']}"


@documented_form()
def find_visit(history: Json, step: str, *, answered: bool = False, after: str | None = None) -> dict[str, Any] | None:
    """
    Return the first visit of a step, of those that began after an action.

    :param history: ``data`` of "Show Workflow Instance History".
    :param step: Name of the step, in any case, or its uuid.
    :param answered: Only a visit that is over with a response.
    :param after: A step occurrence, or an ISO-8601 time: only visits that began later count; or None.
    :return: ``{step, step_occurrence_id, started_at, ended_at, response: {option, type, comment, by, at}}``, the
        response being the last one that was given at the visit; or None.
    """
    for details in _later_steps(events_of(history), after):
        begun = details.get("started_at") or details.get("evaluated_at")
        names = (str(details.get("name")).casefold(), str(details.get("uuid")).casefold())
        if not begun or step.casefold() not in names:
            continue
        response = _last_response([details])
        if answered and (response is None or not details.get("ended_at")):
            continue
        return {
            "step": details.get("name"),
            "step_occurrence_id": _id(details),
            "started_at": begun,
            "ended_at": details.get("ended_at") or details.get("evaluated_at"),
            "response": response,
        }
    return None


def _later_steps(events: list[Json], after: str | None) -> list[Json]:
    steps = [_details(event) for event in events if event.get("type") in STEP_EVENTS]
    if after is None:
        return steps
    ids = [_id(step) for step in steps]
    if after in ids:
        return steps[ids.index(after) + 1 :]
    moment = None if after.isdecimal() else parse_time(after)  # "2026" is no year, but an id
    # A step occurrence that the history does not show (yet) has no later ones.
    return [] if moment is None else [step for step in steps if _begun(step) >= seconds_of(moment)]


def _begun(step: Json) -> float:
    return _seconds(step.get("started_at") or step.get("evaluated_at"))


def _seconds(time: Any) -> float:
    if time is not None and not isinstance(time, str):
        raise ContractError(f"A time is no text but {type(time).__name__}")
    return seconds_of(parse_time(time))


def events_of(history: Json) -> list[Json]:
    """
    Return the events of a history that have the form of an event.

    :raises ContractError: the events are no list at all; to take that for none would be to wait for ever.
    """
    events = history.get("history")
    if events is not None and not isinstance(events, list):
        raise ContractError(f"The events of a history are no list but {type(events).__name__}")
    return _rows(events)


def same_tool(one: Any, other: Any) -> bool:
    """Tell whether two names are those of one tool: its type and its class differ in signs and case only."""
    return bool(one == other or _letters(one) == _letters(other))


def _letters(tool_type: Any) -> str:
    return "".join(letter for letter in str(tool_type).casefold() if letter.isalnum())


def is_asked_for(
    row: Json,
    *,
    tool_type: str | None = None,
    tool_subtype: str | None = None,
    item_id: str | None = None,
    active: bool | None = None,
) -> bool:
    """
    Tell whether an instance can be one that was asked for; a server may ignore the filters of a list.

    :param row: A row of a list, or an instance; what it does not carry is taken for right.
    :param active: Whether it must run (True) or must have ended (False).
    """
    if tool_type is not None and row.get("tool_type") and not same_tool(row["tool_type"], tool_type):
        return False
    wanted = {"tool_subtype": tool_subtype, "item_id": item_id}
    if any(value is not None and str(row.get(name) or value) != value for name, value in wanted.items()):
        return False
    return active is None or "ended_at" not in row or has_ended(row) is not active


@documented_form()
def active_instance(instances: Iterable[Json]) -> str | None:
    """Return the id of the instance that runs, or None."""
    return next((str(instance["id"]) for instance in instances if not has_ended(instance)), None)


@documented_form()
def newest_instance(instances: Iterable[Json]) -> str:
    """Return the id of the instance that runs, else of the one that was started last."""
    newest = max(instances, key=_age)
    return str(newest["id"])


def _age(instance: Json) -> tuple[bool, float, int, str]:
    started = _seconds(instance.get("started_at") or instance.get("created_at"))
    instance_id = str(instance["id"])
    return not has_ended(instance), started, len(instance_id), instance_id


@documented_form()
def holding_of(history: Json) -> Holding | None:
    """Return the step that an instance stands at and who holds it, or None when it has ended."""
    events = events_of(history)
    if history.get("ended_at") or _end_of(events):
        return None
    step = _current_step(_details(event) for event in events if event.get("type") in ("ResponseStep", "Action"))
    if step is None:
        return None
    return Holding(
        step_occurrence_id=_id(step) or f"{step.get('name')}@{step['started_at']}",
        step=step.get("name"),
        since=step["started_at"],
        due=step.get("due_date"),
        holders=_holders(step),
        is_overdue=history.get("status") == "overdue",
    )


def _holders(step: Json) -> tuple[str, ...]:
    """Return the responders who have not answered, by login or name; where only groups are told, their ids."""
    asked: dict[str, Json] = {}
    for field in ("responses", "additional_assignees", "individual_assignees"):
        for row in _rows(step.get(field)):
            asked.setdefault(str(row.get("id")), row)
    if not asked:
        groups = (group.get("login_ids") for group in _rows(step.get("responsible_groups")))
        return tuple(dict.fromkeys(str(one) for ids in groups if isinstance(ids, list) for one in ids))
    return tuple(
        str(row.get("login") or row.get("name") or user_id)
        for user_id, row in asked.items()
        if not row.get("responded_at") and row.get("role_type") != "commenter"
    )


def _details(event: Json) -> Json:
    details = event.get("details")
    return details if isinstance(details, Mapping) else {}


def _current_step(steps: Iterable[Json]) -> Json | None:
    return next((s for s in steps if s.get("started_at") and not s.get("ended_at")), None)


def _end_of(events: Iterable[Json]) -> str | None:
    for event in events:
        if event.get("type") == "WorkflowTerminated":
            return _details(event).get("terminated_at")
        if event.get("type") == "EndStep" and _details(event).get("ended_at"):
            return str(_details(event)["ended_at"])
    return None


def _state_of(events: Iterable[Json], ended_at: str | None) -> str:
    if any(event.get("type") == "WorkflowTerminated" for event in events):
        return "terminated"
    return "complete" if ended_at else "in_progress"


def _last_response(details: Iterable[Json]) -> dict[str, Any] | None:
    given = [response for step in details for response in _rows(step.get("responses")) if response.get("responded_at")]
    if not given:
        return None
    # Within one second, which is as fine as the API's times are, the order of the events decides.
    last = sorted(given, key=lambda response: _seconds(response["responded_at"]))[-1]
    return {
        "option": last.get("response"),
        "type": last.get("response_type"),
        "comment": last.get("comment"),
        "by": last.get("login") or last.get("name"),
        "at": last["responded_at"],
    }


def _first(details: Iterable[Json], key: str) -> Any:
    return next((step[key] for step in details if step.get(key)), None)


# --- a response: whose turn it is, what may be answered, what was answered ----------------------------------


def response_request(instance: Json, user_id: str) -> dict[str, Any] | None:
    """
    Return what an instance asks of a user now, or None when it does not wait for that user.

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
        "item_id": str(instance.get("item_id")),
        "tool_type": instance.get("tool_type"),
        "step": step.get("name"),
        "step_occurrence_id": _id(step),
        "step_started_at": step.get("started_at"),
        "overdue_at": step.get("overdue_at"),
        "options": response_options(step),
    }


def has_ended(record: Json) -> bool:
    """
    Tell whether an instance has ended.

    Only an ``ended_at`` that is not empty says so, or the status of a history: an instance without a current step
    may be between two steps.

    :param record: The instance as shown or listed, its history, or what :func:`describe_instance` returned.
    """
    return _is_given(record.get("ended_at")) or any(
        isinstance(word := record.get(key), str) and word.strip().casefold() in ENDED_STATES
        for key in ("status", "state")
    )


def is_between_steps(instance: Json) -> bool:
    """Tell whether an instance, as shown, has neither ended nor a current step."""
    return not has_ended(instance) and current_step(instance) is None


def current_step(instance: Json) -> Json | None:
    """Return the step occurrence an instance stands at, or None: it has ended, or is between two steps."""
    step = instance.get("current_step_occurrence")
    return step if isinstance(step, Mapping) and step.get("id") is not None and not has_ended(instance) else None


def pending_assignees(step: Json) -> list[Json]:
    """Return the assignees of a step occurrence who have not answered yet."""
    return [
        occurrence["assignee"]
        for occurrence in _rows(step.get("response_occurrences"))
        if not occurrence.get("submitted_at") and isinstance(occurrence.get("assignee"), Mapping)
    ]


def is_pending(step: Json, user_id: str) -> bool:
    """Tell whether a step occurrence waits for the response of a user."""
    return any(_id(assignee) == user_id for assignee in pending_assignees(step))


def response_options(step: Json) -> list[dict[str, Any]]:
    """Return the options of a step occurrence as ``{id, name, type}``."""
    return [
        {"id": _id(option), "name": option.get("name"), "type": option.get("response_type")}
        for option in _rows(step.get("available_response_options")) or _rows(step.get("available_responses"))
    ]


def choose_option(
    options: list[dict[str, Any]],
    *,
    name: str | None = None,
    option_id: str | None = None,
    option_type: str | None = None,
) -> dict[str, Any]:
    """
    Return the one response option that is meant.

    :param options: What :func:`response_options` returned.
    :param name: Its label, in any case.
    :param option_id: Its id.
    :param option_type: Its type, such as ``approve``.
    :raises ConfigurationError: none or several fit; the message lists the candidates.
    """
    fitting = [
        option for option in options if option_fits(option, name=name, option_id=option_id, option_type=option_type)
    ]
    if len(fitting) == 1:
        return fitting[0]
    wish = name or option_id or option_type
    problem = "is ambiguous" if fitting else "does not exist"
    candidates = ", ".join(f"{o['name']!r} (id {o['id']}, type {o['type']})" for o in fitting or options) or "none"
    raise ConfigurationError(f"Response option {wish!r} {problem} at this step. Options: {candidates}.")


def option_fits(
    option: Json, *, name: str | None = None, option_id: str | None = None, option_type: str | None = None
) -> bool:
    """Tell whether an option is the one that is meant."""
    if option_id is not None:
        return str(option.get("id")) == option_id
    if name is not None:
        return _word(option.get("name")) == _word(name)
    return option_type is not None and _word(option.get("type")) == _word(option_type)


def is_recorded_option(recorded: Json, chosen: Json) -> bool | None:
    """
    Tell whether a recorded response is an option that was chosen; None where the record does not tell.

    Of a step that is over Procore shows a label, which need not be the option's own ("Approved" for "Approve"), and
    the option's type.

    :param recorded: What :func:`recorded_response` or :func:`recorded_in_history` returned.
    :param chosen: ``{id, name, type, others}``, the option with the other options of its step.
    """
    if recorded.get("id") is not None and chosen.get("id") is not None:
        return str(recorded["id"]) == str(chosen["id"])
    label, kind = _word(recorded.get("name")), _word(recorded.get("type"))
    if kind and _word(chosen.get("type")) and kind != _word(chosen.get("type")):
        return False
    others = [other for other in _rows(chosen.get("others")) if not kind or _word(other.get("type")) in ("", kind)]
    has_label_of_another = any(_word(other.get("name")) == label for other in others)
    if label == _word(chosen.get("name")):
        return None if has_label_of_another else True
    if has_label_of_another:
        return False
    # A label that no option of the step has: then only the type can tell, where no other option has it.
    is_only_one = "others" in chosen and not others
    return True if kind and _word(chosen.get("type")) and is_only_one else None


def is_recorded_response(
    recorded: Json, *, name: str | None = None, option_id: str | None = None, option_type: str | None = None
) -> bool | None:
    """
    Tell whether a recorded response is the one that is meant, from its record alone; None where that does not tell.

    :param recorded: As for :func:`is_recorded_option`.
    :param name: As for :func:`choose_option`; likewise the others.
    """
    if option_id is not None:
        if recorded.get("id") is not None:
            return str(recorded["id"]) == option_id
        return True if recorded.get("response_id") == option_id else None
    if name is not None:
        # Another label may be another option, or the same one as the history words it.
        return True if _word(recorded.get("name")) == _word(name) else None
    return _word(recorded.get("type")) == _word(option_type) if _word(recorded.get("type")) else None


@documented_form()
def recorded_response(instance: Json, step_occurrence_id: str, user_id: str) -> dict[str, Any] | None:
    """
    Return a user's response at the step occurrence where the instance stands now.

    :return: ``{step, id, name, type, comment, at}``, with the id, name and type of the chosen option; or None.
    """
    step = current_step(instance)
    if step is None or _id(step) != step_occurrence_id:
        return None
    for occurrence in _rows(step.get("response_occurrences")):
        if occurrence.get("submitted_at") and _id(occurrence.get("assignee") or {}) == user_id:
            option = occurrence.get("selected_response_option") or {}
            return {
                "step": step.get("name"),
                "id": _id(option),
                "name": option.get("name"),
                "type": option.get("response_type"),
                "comment": occurrence.get("comment"),
                "at": occurrence["submitted_at"],
            }
    return None


@documented_form()
def recorded_in_history(history: Json, step_occurrence_id: str, user_id: str) -> dict[str, Any] | None:
    """
    Return a user's response at a step occurrence that may be over, from the instance's history.

    :return: As :func:`recorded_response`, and ``response_id``; the option's id is known only where the event lists the
        options, and only one of them has the label.
    """
    for event in events_of(history):
        step = _details(event)
        if event.get("type") != "ResponseStep" or _id(step) != step_occurrence_id:
            continue
        for response in _rows(step.get("responses")):
            if response.get("responded_at") and _id(response) == user_id:
                label, kind = response.get("response"), response.get("response_type")
                ids = [
                    option["id"]
                    for option in response_options(step)
                    if _word(option["name"]) == _word(label) and _word(kind) in ("", _word(option["type"]))
                ]
                return {
                    "step": step.get("name"),
                    "id": ids[0] if len(ids) == 1 else None,
                    "response_id": None if response.get("response_id") is None else str(response["response_id"]),
                    "name": label,
                    "type": kind,
                    "comment": response.get("comment"),
                    "at": response["responded_at"],
                }
    return None


def assignee_ids(step: Json) -> set[str | None]:
    """Return the ids of all assignees of a step occurrence, of its response step in the history, too."""
    assignees = [occurrence.get("assignee") for occurrence in _rows(step.get("response_occurrences"))]
    named = ("individual_assignees", "additional_assignees", "responses")
    assignees += [row for name in named for row in _rows(step.get(name))]
    return {_id(assignee) for assignee in assignees if isinstance(assignee, Mapping)}


@documented_form()
def step_in_history(history: Json, step_occurrence_id: str) -> Json | None:
    """Return the details of a response step in an instance's history, or None."""
    steps = (_details(event) for event in events_of(history) if event.get("type") == "ResponseStep")
    return next((step for step in steps if _id(step) == step_occurrence_id), None)


def people_ids(people: Iterable[Json], wanted: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """
    Find people by their login, in any case, or by their id.

    :param people: ``{id, login, ...}`` of each.
    :param wanted: Logins and ids.
    :return: The id of each that was found, and those that were not.
    """
    ids: dict[str, str] = {}
    for person in people:
        ids[str(person.get("id"))] = str(person.get("id"))
        if person.get("login"):
            ids[str(person["login"]).casefold()] = str(person.get("id"))
    wanted = list(dict.fromkeys(wanted))
    found = {one: ids[one.casefold()] for one in wanted if one.casefold() in ids}
    return found, [one for one in wanted if one not in found]


# --- an operation that Procore works on ---------------------------------------------------------------------


def describe_operation(operation: Json) -> dict[str, Any]:
    """
    Say where an asynchronous operation stands.

    :return: ``{operation_id, operation_type, status, started_at, completed_at, error, completed, failed}``, the
        last two being numbers of items.
    """
    completed, failed = operation_items(operation)
    error = operation.get("error")
    return {
        "operation_id": _id(operation),
        "operation_type": operation.get("operation_type"),
        "status": operation.get("status"),
        "started_at": operation.get("started_at"),
        "completed_at": operation.get("completed_at"),
        "error": error.get("message") if isinstance(error, Mapping) else error,
        "completed": len(completed),
        "failed": len(failed),
    }


def operation_items(operation: Json) -> tuple[list[Json], list[Json]]:
    """Return the items that an operation has completed, and those that failed."""
    result = operation.get("result")
    lists = [result.get(name) for name in ("completed_items", "failed_items")] if isinstance(result, Mapping) else []
    completed, failed = (_rows(one) for one in lists or (None, None))
    return completed, failed


@documented_form()
def operation_ended(operation: Json) -> bool:
    """Tell whether an operation is over; a word nobody knows counts as over when it has an end."""
    status = operation.get("status")
    return status in ENDED_OPERATIONS or (status not in OPERATION_STATES and bool(operation.get("completed_at")))


def idempotency_token(*parts: Any) -> str:
    """Return a SHA-256 that is the same for the same action and for no other."""
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()


def _is_given(value: Any) -> bool:
    """Tell whether a field holds something; an empty text is nothing."""
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def _id(record: Json) -> str | None:
    return None if record.get("id") is None else str(record["id"])


def _word(value: Any) -> str:
    """Return a word as it is compared: without the blanks around it, in any case."""
    return "" if value is None else str(value).strip().casefold()


def _rows(value: Any) -> list[Json]:
    """Return the objects of a list; nothing of whatever else came."""
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _listed(words: Collection[str]) -> str:
    return " or ".join(sorted(words))
