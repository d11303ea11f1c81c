"""The meaning of the responses of Procore's Legacy Workflows (v1) API: objects, states, and the open activities."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import pendulum

from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules.datetimes import parse_time, seconds_of
from airflow_provider_workflows.rules.overdue import PendingStep
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.wait_result import WaitAction, WaitResult

TERMINATED = "terminated"
DRAFT = "draft"
SWITCH = (
    "Running instances also end like this when Procore moves a tool from Legacy to the new Workflows tool. Then the "
    "item's workflow has to be started again there; ProcoreItemSensor waits for it in both tools."
)

Json = Mapping[str, Any]


def str_ids(response: Any) -> Any:
    """Return a response with all its ids as text; the v1 API returns numbers."""
    if isinstance(response, list):
        return [str_ids(item) for item in response]
    if not isinstance(response, dict):
        return response
    found = {}
    for key, value in response.items():  # quick, because a company's list has thousands of rows
        kind = type(value)
        if kind is int and (key == "id" or key.endswith("_id")):
            value = str(value)
        elif kind is dict or kind is list:
            value = str_ids(value)
        found[key] = value
    return found


@documented_form()
def users_named(users: Iterable[Json], login: str) -> dict[str, str]:
    """
    Return the users that have a login or e-mail address, in any case: a description of each by its id.

    :param users: Rows of a company's users, ids as text. Their ``id`` is the login information id, unless a row has a
        separate one.
    :param login: The login or e-mail address.
    """
    found: dict[str, str] = {}
    for user in users:
        names = [str(user[key]) for key in ("login", "email_address") if user.get(key)]
        if login.casefold() in map(str.casefold, names):
            user_id = str(user.get("login_information_id") or user["id"])
            found.setdefault(user_id, f"{user.get('name') or names[0]} ({names[0]}, id {user_id})")
    return found


@documented_form()
def of_object(rows: Collection[Json], object_type: str) -> list[Json]:
    """
    Return the rows of instances whose object has a type, in any spelling.

    :param rows: Rows of the instances of objects with the same id.
    :param object_type: Tool or class of the object.
    :return: Rows that have it as the type of their object or as the class of their workflow; if there are none, rows
        that have neither, or only a base class: a ``Contract`` can be a ``PurchaseOrderContract``.
    """
    requested = _plain(object_type)
    exact = [row for row in rows if has_type(row, object_type)]
    return exact or [
        row for row in rows if not _classes_of(row) and requested.endswith(_plain(row.get("workflowed_object_type")))
    ]


@documented_form()
def has_type(row: Json, object_type: str) -> bool:
    """Return whether a type, in any spelling, is that of an instance's object or the class of its workflow."""
    requested = _plain(object_type)
    return requested == _plain(row.get("workflowed_object_type")) or requested in _classes_of(row)


def same_type(one: str, other: str) -> bool:
    """Return whether two names of a type differ in their spelling only."""
    return _plain(one) == _plain(other)


def _classes_of(row: Json) -> set[str]:
    workflow = found if isinstance(found := row.get("workflow"), Mapping) else {}
    return {_plain(workflow[name]) for name in ("class_name", "friendly_name") if workflow.get(name)}


def _plain(name: Any) -> str:
    """Return the name of a type in one spelling: ``purchase_order_contracts`` equals ``PurchaseOrderContract``."""
    return re.sub(r"[\W_]+", "", "" if name is None else str(name)).casefold().removesuffix("s")


# --- an instance and its state ------------------------------------------------------------------------------


@documented_form()
def describe_instance(instance: Json) -> dict[str, Any]:
    """
    Return the state of an instance.

    :param instance: An instance of "List" or "Show Workflow Instance", ids as text.
    :return: ``{instance_id, object_id, object_type, project_id, state, state_id, status, state_set_at,
        activities, ball_in_court, terminated_at, workflow}``; ``activities`` is a list of
        ``{id, name, role_id, role}``, ``ball_in_court`` a list of names, ``workflow`` a name, times are the
        API's own strings.
    """
    state = instance.get("current_workflow_state") or {}
    return {
        "instance_id": instance["id"],
        "object_id": instance.get("workflowed_object_id"),
        "object_type": instance.get("workflowed_object_type"),
        "project_id": (instance.get("project") or {}).get("id"),
        "state": state.get("name"),
        "state_id": state.get("id"),
        "status": state.get("status"),
        "state_set_at": instance.get("current_state_set_at"),
        "activities": [_listed_activity(activity) for activity in instance.get("current_workflow_activities") or []],
        "ball_in_court": [assignee.get("name") for assignee in state.get("ball_in_court") or []],
        "terminated_at": instance.get("terminated_at"),
        "workflow": (instance.get("workflow") or {}).get("name"),
    }


@documented_form()
def pending_step_of(instance: Json) -> PendingStep | None:
    """
    Return the current state of an instance with its pending assignees, or None if it has ended or has no activity.

    :param instance: An instance of "Show Workflow Instance", ids as text.
    """
    described = describe_instance(instance)
    if described["terminated_at"] or is_idle(described):
        return None
    return PendingStep(
        step_occurrence_id=f"{described['state_id']}@{described['state_set_at']}",
        step=described["state"],
        since=described["state_set_at"],
        due=instance.get("becomes_overdue_at"),
        assignees=tuple(dict.fromkeys(str(name) for name in described["ball_in_court"] if name))
        or _assignees_of_roles(instance),
        assignee_ids=_assignee_ids(instance),
    )


def _assignee_ids(instance: Json) -> tuple[str, ...]:
    roles = [activity.get("workflow_user_role") or {} for activity in instance["current_workflow_activities"]]
    assignees = [role.get("assignee") for role in roles]
    ids = (assignee.get("id") for assignee in assignees if isinstance(assignee, Mapping))
    return tuple(dict.fromkeys(str(user_id) for user_id in ids if user_id is not None))


def _assignees_of_roles(instance: Json) -> tuple[str, ...]:
    """Return the names of the users who can perform an activity, or the role if it shows no user."""
    roles = [activity.get("workflow_user_role") or {} for activity in instance["current_workflow_activities"]]
    assignees = [role.get("assignee") for role in roles]
    names = [assignee.get("name") if isinstance(assignee, Mapping) else None for assignee in assignees]
    return tuple(dict.fromkeys(str(name or role.get("name")) for name, role in zip(names, roles, strict=True)))


def mark_of(instance: Json) -> str:
    """
    Return a short text that changes whenever an instance moves, and is equal for its listed row and its shown record.

    Exception: if the object has its own status, only "show" returns it, and the two texts always differ.
    """
    activities = sorted((str(a["id"]), str(a["role_id"])) for a in instance["activities"])
    parts = [instance[key] for key in ("state_id", "state", "status", "state_set_at", "terminated_at")]
    return hashlib.sha256(repr((parts, activities)).encode()).hexdigest()[:16]


def may_hide_activities(instance: Json) -> bool:
    """
    Return whether an activity may have been performed in an instance without a change of its mark.

    So it is while several roles must perform the same activity, or if the instance does not show when it moved.
    """
    activities = [activity["id"] for activity in instance["activities"]]
    return parse_time(instance["state_set_at"]) is None or len(set(map(str, activities))) < len(activities)


def evaluate_instance(
    instance: Json,
    *,
    until: Collection[str],
    fail_on: Collection[str],
    skip_on: Collection[str],
    after: Json | None = None,
    activity: str | None = None,
    role: str | None = None,
    is_over: bool = False,
) -> WaitResult | None:
    """
    Return the result of the wait for an instance to reach a state or to open an activity, or None to continue waiting.

    A state is given by its name or status, in any case, or by its id; ``terminated`` matches a terminated instance in
    any state. An instance that ended in any other state never changes again, so it fails the wait. An instance without
    activities counts as ended only after a while, because it can be between two states. The name "Draft" does not match
    an instance without activities, which the move to the new Workflows tool may leave behind.

    :param instance: The result of :func:`describe_instance`.
    :param until: States that end the wait with success.
    :param fail_on: States that fail the wait.
    :param skip_on: States that skip the task.
    :param after: The action before the wait, as :func:`moment_of` or :func:`action_of` returned it.
    :param activity: Name, in any case, or id of an activity that ends the wait with success once it is open.
    :param role: Name or id of the role to which it must be open, or None for any.
    :param is_over: Whether the instance has had no activity for so long that it counts as ended.
    :return: The wait result with the instance and ``matched_by``, by what ``activity`` matched, ``name`` or ``id``, or
        None if a state has ended the wait; or None.
    """
    is_old = after is not None and is_before(instance, after)
    named = set() if is_old else names_of(instance)
    if is_draft(instance):
        named.discard(DRAFT)
    if instance["terminated_at"]:
        named.add(TERMINATED)
    where = (
        f"Procore workflow instance {instance['instance_id']} is in state {instance['state']!r} "
        f"(status {instance['status']!r}, id {instance['state_id']}) since {instance['state_set_at']}"
    )
    actions: tuple[tuple[WaitAction, Collection[str]], ...] = (
        ("fail", fail_on),
        ("skip", skip_on),
        ("succeed", until),
    )
    result = {**instance, "matched_by": None}
    for action, states in actions:
        if not named.isdisjoint(state.casefold() for state in states):
            return WaitResult(action, result, where)
    if has_ended(instance, is_over):
        missed = " or ".join([*sorted(until), *([] if activity is None else [f"activity {activity!r}"])])
        switch = f". {SWITCH}" if instance["terminated_at"] or is_draft(instance) else ""
        ended = f"{where} and {how_it_ended(instance)}, without reaching {missed}{switch}"
        return WaitResult("fail", result, ended)
    if activity is not None and not is_old and (matched_by := open_activity(instance, activity, role)) is not None:
        reason = f"{where}, and activity {activity!r} (matched by {matched_by}) can be performed"
        return WaitResult("succeed", {**result, "matched_by": matched_by}, reason)
    return None


def evaluate_state_change(
    instance: Json, occurrence: Json, performed: Json, *, is_over: bool = False
) -> WaitResult | None:
    """
    Return the result of the wait for a state change after an activity, or None to continue waiting.

    :param instance: The result of :func:`describe_instance`.
    :param occurrence: The occurrence of the state in which the activity was performed, from :func:`occurrence_of`.
    :param performed: The operator's result for the activity.
    :param is_over: Whether the instance has had no activity for so long that it counts as ended.
    :return: The wait result, or None. Its result has ``state_after``, None if the instance ended in the same state, and
        ``terminated_at``.
    """
    moved = has_left(occurrence, instance)
    if not moved and not has_ended(instance, is_over):
        return None
    how = f" and {how_it_ended(instance)}" if has_ended(instance, is_over) else ""
    reason = (
        f"Procore workflow instance {instance['instance_id']} is in state {instance['state']!r} "
        f"since {instance['state_set_at']}{how}"
    )
    after = {
        "state_after": occurrence_of(instance) if moved else None,
        "terminated_at": instance["terminated_at"] or None,
    }
    return WaitResult("succeed", {**performed, **after}, reason)


def is_idle(instance: Json) -> bool:
    """
    Return whether an instance has no open activity although it was not terminated.

    A final state has no activities; an instance between two states may briefly have no activity or no state.
    """
    return not instance["terminated_at"] and (not instance["activities"] or instance["state_id"] is None)


def is_draft(instance: Json) -> bool:
    """Return whether an instance is a draft without activities: what Procore makes of a running one at the switch."""
    return is_idle(instance) and DRAFT in names_of(instance)


def has_ended(instance: Json, is_over: bool) -> bool:
    """
    Return whether an instance has ended.

    :param instance: The result of :func:`describe_instance`.
    :param is_over: Whether an idle instance has been idle for so long that it counts as ended.
    """
    return bool(instance["terminated_at"]) or (is_over and is_idle(instance))


def how_it_ended(instance: Json) -> str:
    """Return a description of the end of an instance that follows its name in a sentence."""
    if instance["terminated_at"]:
        return f"was terminated at {instance['terminated_at']}"
    return "has had no open activity for a while"


@documented_form()
def is_quiet(instance: Json, histories: Iterable[Json], since: datetime) -> bool:
    """Return whether, since a time, an instance has not entered a state and no activity was performed in it."""
    times = [instance["state_set_at"], *(row.get("created_at") for row in histories)]
    return all((moment := parse_time(time)) is not None and moment <= since for time in times)


def moment_of(time: str) -> dict[str, Any]:
    """Return the action before a wait for a time."""
    return {"history_id": None, "at": time, "state_id": None, "state_set_at": None}


def action_of(history: Json) -> dict[str, Any]:
    """Return the action before a wait for a row of the activity history; only newer rows name the state."""
    return {
        "history_id": history.get("id"),
        "at": history.get("created_at"),
        "state_id": history.get("workflow_state_id"),
        "state_set_at": history.get("bic_start"),
    }


def is_before(instance: Json, action: Json) -> bool:
    """
    Return whether the current state of an instance was entered before an action.

    A state that was entered in the second of the action is new, because an activity's own transition has the same time;
    unless it can be the occurrence in which the action was performed, see :func:`is_undecided`.
    """
    entered, acted = _whole_seconds(instance["state_set_at"], action["at"])
    return entered < acted or is_undecided(instance, action)


def is_undecided(instance: Json, action: Json) -> bool:
    """
    Return whether a state was entered, acted in, and possibly entered again within one second.

    The times cannot distinguish the two occurrences then; only a later row of the activity history can.
    """
    entered, acted = _whole_seconds(instance["state_set_at"], action["at"])
    if entered < acted or action["state_id"] is None or action["state_id"] != instance["state_id"]:
        return False
    return parse_time(instance["state_set_at"]) == parse_time(action["state_set_at"])


@documented_form()
def is_followed(histories: Collection[Json], action: Json) -> bool:
    """
    Return whether an activity was performed after an action.

    :param histories: All rows of the activity history, newest first.
    :param action: The action, as :func:`action_of` returned it.
    """
    ids = [row.get("id") for row in histories]
    if action["history_id"] in ids:
        return ids.index(action["history_id"]) > 0
    acted = parse_time(action["at"])
    return any(acted is not None and (made := time_of(row)) is not None and made > acted for row in histories)


def _whole_seconds(entered: str | None, acted: str | None) -> tuple[float, float]:
    first, second = parse_time(entered), parse_time(acted)
    if first is not None and second is not None and first.microsecond == 0:
        second = second.start_of("second")  # compare both times in whole seconds, as the API truncates one of them
    return seconds_of(first), seconds_of(second)


def names_of(instance: Json) -> set[str]:
    """Return the names by which the current state of an instance can be given: its name, status and id, folded."""
    names = [instance[key] for key in ("state", "state_id", "status")]
    return {str(name).strip().casefold() for name in names if name is not None}


def _listed_activity(activity: Json) -> dict[str, Any]:
    role = activity.get("workflow_user_role") or {}
    return {"id": activity.get("id"), "name": activity.get("name"), "role_id": role.get("id"), "role": role.get("name")}


# --- an occurrence of a state, and its activities ------------------------------------------------------------


def occurrence_of(instance: Json) -> dict[str, Any]:
    """Return the current occurrence of an instance's state: ``{id, name, status, set_at}``."""
    return {
        "id": instance["state_id"],
        "name": instance["state"],
        "status": instance["status"],
        "set_at": instance["state_set_at"],
    }


@documented_form()
def has_left(occurrence: Json, instance: Json, histories: Iterable[Json] | None = None) -> bool | None:
    """
    Return whether an instance has left an occurrence of a state, or None if that is unknown.

    :param occurrence: The occurrence, from :func:`occurrence_of` or :func:`entered_occurrence`.
    :param instance: The current state of the instance, from :func:`describe_instance`.
    :param histories: Its activity history; decides if one of the two times cannot be read.
    """
    if instance["state_id"] is None:
        return None
    if instance["state_id"] != occurrence["id"]:
        return True
    entered, now = parse_time(occurrence["set_at"]), parse_time(instance["state_set_at"])
    if entered is not None and now is not None:
        return entered != now
    if histories is None:
        return None
    times = ((time_of(row), row.get("workflow_state_id")) for row in histories)
    states = {state for made, state in times if made is None or entered is None or made > entered}
    if states - {None, occurrence["id"]}:
        return True
    return None if None in states else False


@documented_form()
def entered_occurrence(instance: Json, histories: Iterable[Json]) -> dict[str, Any]:
    """
    Return the current occurrence of an instance's state with the time at which it was entered.

    If the instance does not show the time, it is that of the newest activity in another state; None means that there
    was no other state before.

    :param histories: All rows of the activity history, the newest first.
    :raises UnexpectedResponse: neither the instance nor its history shows the time, so two occurrences cannot be
        distinguished.
    """
    occurrence = occurrence_of(instance)
    if parse_time(occurrence["set_at"]) is not None:
        return occurrence
    for row in histories:
        state = row.get("workflow_state_id")
        if state is None or (state != occurrence["id"] and time_of(row) is None):
            raise UnexpectedResponse(
                f"Neither instance {instance['instance_id']} nor its history shows when it entered state "
                f"{occurrence['name']!r} (current_state_set_at is {occurrence['set_at']!r}), so two occurrences of the "
                "state cannot be distinguished"
            )
        if state != occurrence["id"]:
            return {**occurrence, "set_at": row["created_at"]}
    return {**occurrence, "set_at": None}


def time_of(row: Json) -> pendulum.DateTime | None:
    return parse_time(row.get("created_at"))


def activity_fits(
    activity: Json, *, name: str | None = None, activity_id: str | None = None, role: str | None = None
) -> bool:
    """
    Return whether an activity has an id or name, and a role.

    :param activity: ``{id, name, role_id, role}``.
    :param name: Name of the activity, in any case.
    :param activity_id: Id of the activity; overrides the name.
    :param role: Id or name of the role, or None for any.
    """
    if role is not None and role != activity["role_id"] and not same_name(activity["role"], role):
        return False
    if activity_id is not None:
        return bool(activity["id"] == activity_id)
    return name is not None and same_name(activity["name"], name)


def same_name(one: Any, other: str) -> bool:
    return one is not None and str(one).strip().casefold() == other.strip().casefold()


def requested_activity(activity: str, known: Iterable[Json]) -> dict[str, str | None]:
    """
    Return the keywords ``name`` and ``activity_id`` of :func:`activity_fits` for a name or an id; a name wins.

    :param activity: Name of an activity, in any case, or an id.
    :param known: Activities ``{id, name, ...}`` of the instance, as far as they are known.
    """
    known = list(known)
    is_name = any(same_name(each["name"], activity) for each in known)
    is_id = not is_name and (activity.isdecimal() or any(each["id"] == activity for each in known))
    return {"name": None if is_id else activity, "activity_id": activity if is_id else None}


def open_activity(instance: Json, activity: str, role: str | None) -> str | None:
    """
    Return by what an activity is one that can be performed now: ``name`` or ``id``; None if it cannot be performed.

    :param activity: Name of the activity, in any case, or its id; a name wins.
    :param role: Name or id of the role to which it must be open, or None for any.
    """
    requested = requested_activity(activity, instance["activities"])
    if instance["terminated_at"] or not any(
        activity_fits(listed, role=role, **requested) for listed in instance["activities"]
    ):
        return None
    return "id" if requested["name"] is None else "name"


def choose_activity(
    activities: Collection[Json], *, name: str | None = None, activity_id: str | None = None, role: str | None = None
) -> dict[str, Any]:
    """
    Return the one open activity with an id or name, and a role.

    :param activities: ``activities`` of :func:`describe_instance`.
    :raises ConfigurationError: no activity or several activities match; the message lists the candidates.
    :raises UnexpectedResponse: the activity has no role.
    """
    matching = [a for a in activities if activity_fits(a, name=name, activity_id=activity_id, role=role)]
    if len(matching) == 1:
        if matching[0]["role_id"] is None:
            raise UnexpectedResponse(f"There is no role in which activity {matching[0]['name']!r} can be performed")
        return dict(matching[0])
    requested = repr(name) if activity_id is None else activity_id
    problem = (
        "is ambiguous: give its id as activity, or a role" if matching else "cannot be performed in the current state"
    )
    for_role = "" if role is None else f" for role {role!r}"
    candidates = (
        ", ".join(f"{a['name']!r} (id {a['id']}, role {a['role']!r} {a['role_id']})" for a in matching or activities)
        or "none"
    )
    raise ConfigurationError(f"Activity {requested}{for_role} {problem}. Activities: {candidates}.")
