"""What the answers of Procore's Legacy Workflows (v1) API mean."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pendulum

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.forms import documented_form
from airflow_provider_workflows.rules.holdings import Holding
from airflow_provider_workflows.rules.times import parse_time, seconds_of
from airflow_provider_workflows.rules.verdicts import Verdict, Word

TERMINATED = "terminated"

Json = Mapping[str, Any]


def text_ids(answer: Any) -> Any:
    """Return an answer with all its ids as text; the v1 API writes them as numbers."""
    if isinstance(answer, list):
        return [text_ids(item) for item in answer]
    if not isinstance(answer, Mapping):
        return answer
    return {
        key: str(value) if type(value) is int and (key == "id" or key.endswith("_id")) else text_ids(value)
        for key, value in answer.items()
    }


@documented_form()
def users_named(users: Iterable[Json], login: str) -> list[str]:
    """
    Return the login information ids of the users that have a login or e-mail address, in any case.

    :param users: Rows of a company's users, ids as text. Their ``id`` is the login information id unless a row
        names one of its own.
    :param login: The login or e-mail address.
    """
    wanted = login.casefold()
    named = (user for user in users if wanted in (str(user.get(key)).casefold() for key in ("login", "email_address")))
    return list(dict.fromkeys(str(user.get("login_information_id") or user["id"]) for user in named))


# --- an instance and its state ------------------------------------------------------------------------------


@documented_form()
def describe_instance(instance: Json) -> dict[str, Any]:
    """
    Say where an instance stands.

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
        "ball_in_court": [holder.get("name") for holder in state.get("ball_in_court") or []],
        "terminated_at": instance.get("terminated_at"),
        "workflow": (instance.get("workflow") or {}).get("name"),
    }


@documented_form()
def holding_of(instance: Json) -> Holding | None:
    """
    Return the state that an instance is in and who holds it, or None when it has ended.

    :param instance: An instance of "Show Workflow Instance", ids as text.
    """
    described = describe_instance(instance)
    if has_ended(described):
        return None
    return Holding(
        step_occurrence_id=f"{described['state_id']}@{described['state_set_at']}",
        step=described["state"],
        since=described["state_set_at"],
        due=instance.get("becomes_overdue_at"),
        holders=tuple(dict.fromkeys(str(name) for name in described["ball_in_court"] if name))
        or _roles_asked(instance),
    )


def _roles_asked(instance: Json) -> tuple[str, ...]:
    """Return who can perform an activity: by name, or the role where that is all that is told."""
    roles = [activity.get("workflow_user_role") or {} for activity in instance["current_workflow_activities"]]
    people = [role.get("assignee") for role in roles]
    names = [one.get("name") if isinstance(one, Mapping) else None for one in people]
    return tuple(dict.fromkeys(str(name or role.get("name")) for name, role in zip(names, roles, strict=True)))


def mark_of(instance: Json) -> str:
    """
    Return a short text that changes with all that moves an instance on, and is the same in a list and shown.

    Except where the object has a status of its own, which only "show" tells: there it never is the same.
    """
    activities = sorted((str(a["id"]), str(a["role_id"])) for a in instance["activities"])
    parts = [instance[key] for key in ("state_id", "state", "status", "state_set_at", "terminated_at")]
    return hashlib.sha256(repr((parts, activities)).encode()).hexdigest()[:16]


def decide_instance(
    instance: Json,
    *,
    until: Collection[str],
    fail_on: Collection[str],
    skip_on: Collection[str],
    after: Json | None = None,
    activity: str | None = None,
    role: str | None = None,
) -> Verdict | None:
    """
    Decide whether the wait for an instance is over: it is in a state, or an activity can be performed.

    A state is named by its name or status, in any case, or by its id; ``terminated`` names a terminated
    instance whatever its state. An instance that ended in a state nobody named would never change again, so
    that fails the wait.

    :param instance: What :func:`describe_instance` returned.
    :param until: States that end the wait with success.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param after: The action before the wait, as :func:`moment_of` or :func:`action_of` returned it.
    :param activity: Name in any case, or id, of an activity that ends the wait with success once it is open.
    :param role: Name or id of the role it must be open to, or None for any.
    :return: The verdict, or None to go on waiting.
    """
    is_old = after is not None and is_before(instance, after)
    named = set() if is_old else _names(instance)
    if instance["terminated_at"]:
        named.add(TERMINATED)
    where = (
        f"Procore workflow instance {instance['instance_id']} is in state {instance['state']!r} "
        f"(status {instance['status']!r}, id {instance['state_id']}) since {instance['state_set_at']}"
    )
    wishes: tuple[tuple[Word, Collection[str]], ...] = (("fail", fail_on), ("skip", skip_on), ("succeed", until))
    for word, wish in wishes:
        if not named.isdisjoint(state.casefold() for state in wish):
            return Verdict(word, dict(instance), where)
    if has_ended(instance):
        missed = " or ".join([*sorted(until), *([] if activity is None else [f"activity {activity!r}"])])
        return Verdict("fail", dict(instance), f"{where} and {_how_it_ended(instance)}, without reaching {missed}")
    if activity is not None and not is_old and is_open_to(instance, activity, role):
        return Verdict("succeed", dict(instance), f"{where}, and activity {activity!r} can be performed")
    return None


def decide_state_change(instance: Json, visit: Json, performed: Json) -> Verdict | None:
    """
    Decide whether a state has moved on since an activity was performed in it.

    :param instance: What :func:`describe_instance` returned.
    :param visit: The visit of the state that the activity was performed in, as :func:`visit_of` returned it.
    :param performed: What the operator returns of the activity.
    :return: The verdict with ``state_after`` in its result, or None to go on waiting.
    """
    if same_visit(visit, visit_of(instance)) and not has_ended(instance):
        return None
    how = f" and {_how_it_ended(instance)}" if has_ended(instance) else ""
    reason = (
        f"Procore workflow instance {instance['instance_id']} is in state {instance['state']!r} "
        f"since {instance['state_set_at']}{how}"
    )
    return Verdict("succeed", {**performed, "state_after": visit_of(instance)}, reason)


def has_ended(instance: Json) -> bool:
    """Tell whether an instance cannot change any more: it was terminated, or nothing can be done in its state."""
    return bool(instance["terminated_at"]) or not instance["activities"]


def _how_it_ended(instance: Json) -> str:
    return f"was terminated at {instance['terminated_at']}" if instance["terminated_at"] else "has no activity left"


def moment_of(time: str) -> dict[str, Any]:
    """Return a time as the action before a wait."""
    return {"history_id": None, "at": time, "state_id": None, "state_set_at": None}


def action_of(history: Json) -> dict[str, Any]:
    """Return a row of the activity history as the action before a wait; newer rows know the state it was done in."""
    return {
        "history_id": history.get("id"),
        "at": history.get("created_at"),
        "state_id": history.get("workflow_state_id"),
        "state_set_at": history.get("bic_start"),
    }


def is_before(instance: Json, action: Json) -> bool:
    """
    Tell whether the state an instance is in is still the one from before an action.

    A state that was entered in the very second of the action is new, for an activity's own transition bears its
    time; unless it looks like the very visit that the action was done in, see :func:`is_undecided`.
    """
    entered, acted = _whole_seconds(instance["state_set_at"], action["at"])
    return entered < acted or is_undecided(instance, action)


def is_undecided(instance: Json, action: Json) -> bool:
    """
    Tell whether a state was entered, acted in, and perhaps entered again within one second.

    The times cannot tell the two visits apart then; only a later row of the activity history can.
    """
    entered, acted = _whole_seconds(instance["state_set_at"], action["at"])
    if entered < acted or action["state_id"] is None or action["state_id"] != instance["state_id"]:
        return False
    return parse_time(instance["state_set_at"]) == parse_time(action["state_set_at"])


def _whole_seconds(entered: str | None, acted: str | None) -> tuple[float, float]:
    first, second = parse_time(entered), parse_time(acted)
    if first is not None and second is not None and first.microsecond == 0:
        second = second.start_of("second")  # the API's clock of whole seconds has cut the other one off, too
    return seconds_of(first), seconds_of(second)


def _names(instance: Json) -> set[str]:
    return {str(instance[key]).casefold() for key in ("state", "state_id", "status") if instance[key] is not None}


def _listed_activity(activity: Json) -> dict[str, Any]:
    role = activity.get("workflow_user_role") or {}
    return {"id": activity.get("id"), "name": activity.get("name"), "role_id": role.get("id"), "role": role.get("name")}


# --- an activity: which one, and whether it was performed ---------------------------------------------------


def visit_of(instance: Json) -> dict[str, Any]:
    """Return the visit of the state that an instance is in: ``{id, name, status, set_at}``."""
    return {
        "id": instance["state_id"],
        "name": instance["state"],
        "status": instance["status"],
        "set_at": instance["state_set_at"],
    }


def same_visit(one: Json, other: Json) -> bool:
    """Tell whether two visits are the same one: the same state, entered at the same time."""
    return one["id"] == other["id"] and parse_time(one["set_at"]) == parse_time(other["set_at"])


def activity_fits(
    activity: Json, *, name: str | None = None, activity_id: str | None = None, role: str | None = None
) -> bool:
    """
    Tell whether an activity is the one that is meant.

    :param activity: ``{id, name, role_id, role}``.
    :param name: Its name, in any case.
    :param activity_id: Its id; beats the name.
    :param role: Id or name of its role, or None for any.
    """
    if role is not None and role != activity["role_id"] and role.casefold() != str(activity["role"]).casefold():
        return False
    if activity_id is not None:
        return bool(activity["id"] == activity_id)
    return name is not None and str(activity["name"]).casefold() == name.casefold()


def is_open_to(instance: Json, activity: str, role: str | None) -> bool:
    """Tell whether an activity, given by name or id, can be performed now in a role, or in any."""
    return not has_ended(instance) and any(
        activity_fits(listed, name=activity, role=role) or activity_fits(listed, activity_id=activity, role=role)
        for listed in instance["activities"]
    )


def choose_activity(
    activities: Collection[Json], *, name: str | None = None, activity_id: str | None = None, role: str | None = None
) -> dict[str, Any]:
    """
    Return the one activity that is meant, among those that can be performed now.

    :param activities: ``activities`` of :func:`describe_instance`.
    :raises ConfigurationError: none or several fit; the message lists the candidates.
    """
    fitting = [a for a in activities if activity_fits(a, name=name, activity_id=activity_id, role=role)]
    if len(fitting) == 1:
        return dict(fitting[0])
    wish = repr(name) if activity_id is None else activity_id
    problem = "is ambiguous: give activity_id or role" if fitting else "cannot be performed in the current state"
    for_role = "" if role is None else f" for role {role!r}"
    candidates = (
        ", ".join(f"{a['name']!r} (id {a['id']}, role {a['role']!r} {a['role_id']})" for a in fitting or activities)
        or "none"
    )
    raise ConfigurationError(f"Activity {wish}{for_role} {problem}. Activities: {candidates}.")


def newest_first(histories: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of the activity history; the documents contradict each other about the API's own order."""
    return sorted(histories, key=_age, reverse=True)


def _age(history: Json) -> tuple[float, int, str]:
    history_id = str(history.get("id"))
    return seconds_of(parse_time(history.get("created_at"))), len(history_id), history_id


def performed_activity(history: Json) -> dict[str, Any]:
    """Return what a row of the activity history says was performed: ``{id, name, role_id, role}``."""
    return {
        "id": history.get("workflow_activity_id"),
        "name": history.get("workflow_activity_name"),
        "role_id": history.get("workflow_user_role_id"),
        "role": history.get("workflow_user_role_name"),
    }


def find_performed(
    histories: Iterable[Json], *, visit: Json, instance: Json, wish: Mapping[str, str | None], user_id: str
) -> Json | None:
    """
    Return the row of the activity history that shows an activity as performed in one visit of a state.

    What the user did counts in whatever role. What somebody else did, or what is stored under another id than
    was sent, counts unless the activity is still open, but to other roles only.

    :param histories: All rows of the instance, newest first.
    :param visit: The visit.
    :param instance: Where the instance stands now, as :func:`describe_instance` returned it.
    :param wish: The activity: keywords of :func:`activity_fits`.
    :param user_id: Login information id of the user.
    """
    listed = [a for a in instance["activities"] if activity_fits(a, **wish)]
    if wish.get("activity_id") is None and len({a["id"] for a in listed}) == 1:
        wish = {**wish, "activity_id": listed[0]["id"]}  # older rows have no names to find it by
    open_roles = {a["role_id"] for a in listed}
    left_at = None if same_visit(visit, visit_of(instance)) else parse_time(instance["state_set_at"])
    rows = [
        row
        for row in histories
        if activity_fits(performed_activity(row), **wish) and _is_within(row, parse_time(visit["set_at"]), left_at)
    ]
    ours = [row for row in rows if row.get("performed_by_id") == user_id]
    others = [row for row in rows if not open_roles or row.get("workflow_user_role_id") in open_roles]
    found = ours or others
    return found[-1] if found else None


def _is_within(row: Json, entered: pendulum.DateTime | None, left: pendulum.DateTime | None) -> bool:
    created = seconds_of(parse_time(row.get("created_at")))
    begun = parse_time(row.get("bic_start"))  # when the state was entered in which this was performed
    began_before = begun is not None and seconds_of(begun) < seconds_of(entered)
    if created < seconds_of(entered) or (created == seconds_of(entered) and began_before):
        return False  # the row that led into this visit bears the visit's own time
    if left is None:
        return True
    # Whoever counts a row of a later visit here would take somebody else's action for this one.
    return created <= seconds_of(left) and (begun is None or seconds_of(begun) <= seconds_of(entered))
