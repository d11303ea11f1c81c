"""What the answers of Procore's Legacy Workflows (v1) API mean."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pendulum

from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules.datetimes import parse_time, seconds_of
from airflow_provider_workflows.rules.overdue import PendingStep
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.wait_result import WaitAction, WaitResult

TERMINATED = "terminated"

Json = Mapping[str, Any]


def str_ids(response: Any) -> Any:
    """Return an answer with all its ids as text; the v1 API writes them as numbers."""
    if isinstance(response, list):
        return [str_ids(item) for item in response]
    if not isinstance(response, Mapping):
        return response
    return {
        key: str(value) if type(value) is int and (key == "id" or key.endswith("_id")) else str_ids(value)
        for key, value in response.items()
    }


@documented_form()
def users_named(users: Iterable[Json], login: str) -> dict[str, str]:
    """
    Return the users that have a login or e-mail address, in any case: a description of each by its id.

    :param users: Rows of a company's users, ids as text. Their ``id`` is the login information id unless a row
        names one of its own.
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

    :param rows: Rows of the instances of objects with one id.
    :param object_type: Tool or class of the object.
    :return: Those that name it as the type of their object, or as the class of their workflow; where none does, those
        that name neither, or a base class only: a ``Contract`` can be a ``PurchaseOrderContract``.
    """
    asked = _plain(object_type)
    exact, related = [], []
    for row in rows:
        workflow = found if isinstance(found := row.get("workflow"), Mapping) else {}
        classes = {_plain(workflow[name]) for name in ("class_name", "friendly_name") if workflow.get(name)}
        shown = _plain(row.get("workflowed_object_type"))
        if asked == shown or asked in classes:
            exact.append(row)
        elif asked.endswith(shown) and not classes:
            related.append(row)
    return exact or related


def _plain(name: Any) -> str:
    """Return the name of a type without its spelling: ``purchase_order_contracts`` is ``PurchaseOrderContract``."""
    return re.sub(r"[\W_]+", "", "" if name is None else str(name)).casefold().removesuffix("s")


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
        "ball_in_court": [assignee.get("name") for assignee in state.get("ball_in_court") or []],
        "terminated_at": instance.get("terminated_at"),
        "workflow": (instance.get("workflow") or {}).get("name"),
    }


@documented_form()
def pending_step_of(instance: Json) -> PendingStep | None:
    """
    Return the state that an instance is in and who holds it, or None when it has ended or nobody can act in it.

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
    Decide whether the wait for an instance is over: it is in a state, or an activity can be performed.

    A state is named by its name or status, in any case, or by its id; ``terminated`` names a terminated
    instance whatever its state. An instance that ended in a state nobody named would never change again, so
    that fails the wait. One without an activity has ended only if it stays so: it can be between two states.

    :param instance: What :func:`describe_instance` returned.
    :param until: States that end the wait with success.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param after: The action before the wait, as :func:`moment_of` or :func:`action_of` returned it.
    :param activity: Name in any case, or id, of an activity that ends the wait with success once it is open.
    :param role: Name or id of the role it must be open to, or None for any.
    :param is_over: Whether it has listed no activity for so long that it has ended.
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
    desired_groups: tuple[tuple[WaitAction, Collection[str]], ...] = (
        ("fail", fail_on),
        ("skip", skip_on),
        ("succeed", until),
    )
    for action, requested in desired_groups:
        if not named.isdisjoint(state.casefold() for state in requested):
            return WaitResult(action, dict(instance), where)
    if has_ended(instance, is_over):
        missed = " or ".join([*sorted(until), *([] if activity is None else [f"activity {activity!r}"])])
        return WaitResult("fail", dict(instance), f"{where} and {how_it_ended(instance)}, without reaching {missed}")
    if activity is not None and not is_old and is_open_to(instance, activity, role):
        return WaitResult("succeed", dict(instance), f"{where}, and activity {activity!r} can be performed")
    return None


def evaluate_state_change(
    instance: Json, occurrence: Json, performed: Json, *, is_over: bool = False
) -> WaitResult | None:
    """
    Decide whether a state has moved on since an activity was performed in it, or the instance has ended there.

    :param instance: What :func:`describe_instance` returned.
    :param occurrence: The visit of the state that the activity was performed in, as :func:`occurrence_of` returned it.
    :param performed: What the operator returns of the activity.
    :param is_over: Whether the instance has listed no activity for so long that it has ended.
    :return: The verdict, or None to go on waiting. Its result has ``state_after``, None where no other state
        followed, and ``terminated_at``.
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
    Tell whether nothing can be done in an instance although nothing says that it was terminated.

    A final state has no activities, and an instance between two states may list none, or no state, for a moment.
    """
    return not instance["terminated_at"] and (not instance["activities"] or instance["state_id"] is None)


def has_ended(instance: Json, is_over: bool) -> bool:
    """
    Tell whether an instance cannot change any more.

    :param instance: What :func:`describe_instance` returned.
    :param is_over: Whether it has been idle for so long that it has ended, where it is.
    """
    return bool(instance["terminated_at"]) or (is_over and is_idle(instance))


def how_it_ended(instance: Json) -> str:
    """Say how an instance has ended, in words that follow its name."""
    if instance["terminated_at"]:
        return f"was terminated at {instance['terminated_at']}"
    return "has listed no activity left for a while"


@documented_form()
def is_quiet(instance: Json, histories: Iterable[Json], since: datetime) -> bool:
    """Tell whether an instance has not entered a state, and nobody has acted in it, since a time."""
    times = [instance["state_set_at"], *(row.get("created_at") for row in histories)]
    return all((moment := parse_time(time)) is not None and moment <= since for time in times)


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


@documented_form()
def is_followed(histories: Collection[Json], action: Json) -> bool:
    """
    Tell whether an activity was performed after an action.

    :param histories: All rows of the activity history, newest first.
    :param action: The action, as :func:`action_of` returned it.
    """
    ids = [row.get("id") for row in histories]
    if action["history_id"] in ids:
        return ids.index(action["history_id"]) > 0
    acted = parse_time(action["at"])
    return any(acted is not None and (made := _time_of(row)) is not None and made > acted for row in histories)


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


def occurrence_of(instance: Json) -> dict[str, Any]:
    """Return the visit of the state that an instance is in: ``{id, name, status, set_at}``."""
    return {
        "id": instance["state_id"],
        "name": instance["state"],
        "status": instance["status"],
        "set_at": instance["state_set_at"],
    }


@documented_form()
def has_left(occurrence: Json, instance: Json, histories: Iterable[Json] | None = None) -> bool | None:
    """
    Tell whether an instance has left a visit of a state; None where nothing tells.

    :param occurrence: The visit, as :func:`occurrence_of` or :func:`entered_occurrence` returned it.
    :param instance: Where the instance stands now.
    :param histories: Its activity history; tells where one of the two times cannot be read.
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
    times = ((_time_of(row), row.get("workflow_state_id")) for row in histories)
    states = {state for made, state in times if made is None or entered is None or made > entered}
    if states - {None, occurrence["id"]}:
        return True
    return None if None in states else False


@documented_form()
def entered_occurrence(instance: Json, histories: Iterable[Json]) -> dict[str, Any]:
    """
    Return the visit of the state that an instance is in, and since when.

    Where the instance does not tell the time, it is that of the newest activity in another state; None means
    that there was no other state before.

    :param histories: All rows of the activity history, newest first.
    :raises UnexpectedResponse: neither the instance nor its history tells the time, so two visits look the same.
    """
    occurrence = occurrence_of(instance)
    if parse_time(occurrence["set_at"]) is not None:
        return occurrence
    for row in histories:
        state = row.get("workflow_state_id")
        if state is None or (state != occurrence["id"] and _time_of(row) is None):
            raise UnexpectedResponse(
                f"Instance {instance['instance_id']} does not show since when it is in state {occurrence['name']!r} "
                f"(current_state_set_at is {occurrence['set_at']!r}), and neither does its history: two occurrences "
                "of the state cannot be distinguished"
            )
        if state != occurrence["id"]:
            return {**occurrence, "set_at": row["created_at"]}
    return {**occurrence, "set_at": None}


def _time_of(row: Json) -> pendulum.DateTime | None:
    return parse_time(row.get("created_at"))


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
    if role is not None and role != activity["role_id"] and not _same_name(activity["role"], role):
        return False
    if activity_id is not None:
        return bool(activity["id"] == activity_id)
    return name is not None and _same_name(activity["name"], name)


def _same_name(one: Any, other: str) -> bool:
    return one is not None and str(one).strip().casefold() == other.strip().casefold()


def is_open_to(instance: Json, activity: str, role: str | None) -> bool:
    """Tell whether an activity, given by name or id, can be performed now in a role, or in any."""
    return not instance["terminated_at"] and any(
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
    requested = repr(name) if activity_id is None else activity_id
    problem = "is ambiguous: give activity_id or role" if fitting else "cannot be performed in the current state"
    for_role = "" if role is None else f" for role {role!r}"
    candidates = (
        ", ".join(f"{a['name']!r} (id {a['id']}, role {a['role']!r} {a['role_id']})" for a in fitting or activities)
        or "none"
    )
    raise ConfigurationError(f"Activity {requested}{for_role} {problem}. Activities: {candidates}.")


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


@dataclass(frozen=True)
class Found:
    """
    What the activity history says of an activity in one visit of a state.

    :param row: The row that shows it, or None.
    :param unclear: Ids of the rows that may show it: they lack what tells.
    """

    row: Json | None
    unclear: tuple[str, ...] = ()


@documented_form()
def find_performed(
    histories: Iterable[Json],
    *,
    occurrence: Json,
    instance: Json,
    requested: Mapping[str, str | None],
    user_id: str,
    listed: Collection[Json] | None = None,
) -> Found:
    """
    Find the row of the activity history that shows an activity as performed in one visit of a state.

    What the user did counts in whatever role. What somebody else did, or what is stored under another id than
    was sent, counts unless the activity is still open to the role: then it is still to be done.

    The activity's name belongs to the state of the visit; another state can have one of the same name.

    :param histories: All rows of the instance, newest first.
    :param occurrence: The visit.
    :param instance: Where the instance stands now, as :func:`describe_instance` returned it.
    :param wish: The activity: keywords of :func:`activity_fits`.
    :param user_id: Login information id of the user.
    :param listed: Activities that were open earlier in this visit, where they are known.
    """
    rows = list(histories)
    here = has_left(occurrence, instance, rows) is False
    of_state = [*(listed or ()), *(instance["activities"] if instance["state_id"] == occurrence["id"] else ())]
    of_state += [performed_activity(row) for row in rows if row.get("workflow_state_id") == occurrence["id"]]
    open_here = [a for a in instance["activities"] if activity_fits(a, **requested)] if here else []
    own: list[Json] = []
    others: list[Json] = []
    unclear: list[str] = []
    for row, is_certain in _rows_of_occurrence(rows, occurrence, instance):
        is_own = row.get("performed_by_id") == user_id
        if not is_own and open_here:
            continue
        fits = _is_activity(row, requested, of_state, is_open=bool(open_here))
        if not is_own and fits is not False:
            in_role = _is_role(row, requested.get("role"), of_state)
            fits = in_role if in_role is not True else fits
        if fits is None or (fits and not is_certain):
            unclear.append(str(row.get("id")))
        elif fits:
            (own if is_own else others).append(row)
    found = own or others
    return Found(found[0]) if found else Found(None, tuple(unclear))


@documented_form()
def find_sent(histories: Iterable[Json], sent: Json, instance: Json | None) -> Json | None:
    """
    Return the row of the activity history that shows an activity whose answer was lost, or None.

    :param histories: All rows of the instance, newest first.
    :param sent: What was sent: ``{state, activity, user_id, before}``, the visit, the activity, its user, and the
        ids of the rows that showed that activity before.
    :param instance: Where the instance stands now, or None where that could not be read.
    """
    activity = sent["activity"]
    for row, is_certain in _rows_of_occurrence(list(histories), sent["state"], instance):
        if not is_certain or row.get("workflow_activity_id") != activity["id"]:
            continue
        # The server may store another user than was sent, but not in an older row.
        is_new = row.get("id") not in sent["before"] and row.get("workflow_user_role_id") in (None, activity["role_id"])
        if row.get("performed_by_id") == sent["user_id"] or is_new:
            return row
    return None


@documented_form()
def find_own(
    histories: Iterable[Json], *, requested: Mapping[str, str | None], user_id: str, since: datetime | None
) -> Json | None:
    """
    Return the row that shows that a user was the last to perform an activity, in whatever visit, or None.

    :param histories: All rows of the instance, newest first.
    :param wish: The activity: keywords of :func:`activity_fits`.
    :param user_id: Login information id of the user.
    :param since: The row must not be older than that, to the second.
    """
    for row in histories:
        if not activity_fits(performed_activity(row), **{**requested, "role": None}):
            continue
        made = _time_of(row)
        is_new = since is None or (made is not None and made >= since.replace(microsecond=0))
        return row if row.get("performed_by_id") == user_id and is_new else None
    return None


def occurrence_of_row(row: Json) -> dict[str, Any]:
    """Return the visit of the state that a row of the activity history was performed in, as far as it tells."""
    return {
        "id": row.get("workflow_state_id"),
        "name": row.get("workflow_state_name"),
        "status": None,
        "set_at": row.get("bic_start"),
    }


def is_row_of(row: Json, *, instance_id: str, activity_id: str) -> bool:
    """Tell whether a row of the activity history is one of an instance and an activity."""
    return row.get("workflow_activity_id") == activity_id and row.get("workflow_instance_id") in (None, instance_id)


def _rows_of_occurrence(rows: Collection[Json], occurrence: Json, instance: Json | None) -> list[tuple[Json, bool]]:
    """
    Return the rows that were performed in a visit, or may have been, the oldest first, each with whether it was.

    Newer rows say in which state they were performed. The others have their times only, and ``bic_start``, which
    is taken for the time at which the state was entered.
    """
    entered = parse_time(occurrence["set_at"])
    has_gone = None if instance is None else has_left(occurrence, instance, rows)
    left = parse_time(instance["state_set_at"]) if instance is not None and has_gone else None
    found: list[tuple[Json, bool]] = []
    for row in newest_first(dict(row) for row in rows)[::-1]:
        made, started, state = _time_of(row), parse_time(row.get("bic_start")), row.get("workflow_state_id")
        of_state = occurrence["id"] is not None and state == occurrence["id"]
        if made is None:
            if state is None or of_state:
                found.append((row, False))
            continue
        if entered is not None and made < entered:
            continue
        if state is not None and not of_state:
            if entered is None or made > entered:
                break  # the visit is over, and what follows is of later ones
            # Within the second of the entry: what came before it can be of this visit or of the one before.
            found = [(earlier, False) for earlier, _ in found]
            continue
        if entered is not None and made == entered and started is not None and started < entered:
            continue  # the row that led into this visit bears the visit's own time
        started_here = started is not None and entered is not None and started <= entered
        if left is not None and (made > left or (started is not None and started >= left and not started_here)):
            # Whoever counts a row of a later visit here would take somebody else's action for this one.
            continue
        if made == entered and started is None and state is None:
            found.append((row, False))
            continue
        is_first = not found  # nothing but an activity leads out of a visit
        found.append((row, of_state or has_gone is False or is_first or started_here))
    return found


def _is_activity(
    row: Json, requested: Mapping[str, str | None], of_state: Iterable[Json], *, is_open: bool
) -> bool | None:
    """Tell whether a row shows the activity that is meant; None where the row does not tell."""
    shown = performed_activity(row)
    activity_id, name = requested.get("activity_id"), requested.get("name")
    if activity_id is not None:
        return None if shown["id"] is None else bool(shown["id"] == activity_id)
    if name is None:
        return False
    if shown["name"] is not None:
        return _same_name(shown["name"], name)
    known = [activity for activity in of_state if activity["name"] is not None and activity["id"] is not None]
    fitting = {activity["id"] for activity in known if _same_name(activity["name"], name)}
    if shown["id"] in fitting:
        return True
    if shown["id"] is not None and (is_open or shown["id"] in {activity["id"] for activity in known}):
        return False
    return None


def _is_role(row: Json, role: str | None, of_state: Iterable[Json]) -> bool | None:
    """Tell whether a row was performed in a role, given by name or id; None where the row does not tell."""
    shown = performed_activity(row)
    if role is None or role == shown["role_id"] or _same_name(shown["role"], role):
        return True
    named = {activity["role_id"] for activity in of_state if _same_name(activity["role"], role)}
    if shown["role_id"] in named:
        return True
    return False if shown["role"] is not None or named or role.isdecimal() else None
