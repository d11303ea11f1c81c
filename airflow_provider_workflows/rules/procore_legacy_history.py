"""The activity history of Procore's Legacy Workflows: find the row that shows an activity as performed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from airflow_provider_workflows.rules.datetimes import parse_time, seconds_of
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.procore_legacy import Json, activity_fits, has_left, same_name, time_of


def newest_first(histories: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of the activity history, the newest first; Procore's documents disagree about the API's own order."""
    return sorted(histories, key=_age, reverse=True)


def _age(history: Json) -> tuple[float, int, str]:
    history_id = str(history.get("id"))
    return seconds_of(parse_time(history.get("created_at"))), len(history_id), history_id


def performed_activity(history: Json) -> dict[str, Any]:
    """Return the activity of a row of the activity history: ``{id, name, role_id, role}``."""
    return {
        "id": history.get("workflow_activity_id"),
        "name": history.get("workflow_activity_name"),
        "role_id": history.get("workflow_user_role_id"),
        "role": history.get("workflow_user_role_name"),
    }


class Found(NamedTuple):
    """
    Hold the result of a search for an activity in one occurrence of a state.

    :param row: The row of the activity history that shows the activity, or None.
    :param unclear: Ids of rows that may show it but lack the necessary values.
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
    Find the row of the activity history that shows an activity as performed in one occurrence of a state.

    A row in another role than the requested one does not count. A row of another user, or one that is stored under
    another user's id than was sent, counts unless the activity is still open to the role: then it still has to be
    performed.

    The activity's name belongs to the state of the occurrence; another state can have an activity of the same name.

    :param histories: All rows of the instance, the newest first.
    :param occurrence: The occurrence of the state.
    :param instance: The current state of the instance, from :func:`describe_instance`.
    :param requested: The activity: keywords of :func:`activity_fits`.
    :param user_id: Login information id of the user.
    :param listed: Activities that were open earlier in this occurrence, if known.
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
        in_role = _is_role(row, requested.get("role"), of_state)
        if fits is not False and (in_role is False or (in_role is None and not is_own)):
            fits = in_role
        if fits is None or (fits and not is_certain):
            unclear.append(str(row.get("id")))
        elif fits:
            (own if is_own else others).append(row)
    found = own or others
    return Found(found[0]) if found else Found(None, tuple(unclear))


@documented_form()
def find_sent(histories: Iterable[Json], sent: Json, instance: Json | None) -> Json | None:
    """
    Return the row of the activity history that shows an activity whose HTTP response was lost, or None.

    :param histories: All rows of the instance, the newest first.
    :param sent: The call: ``{state, activity, user_id, before}``, with the occurrence of the state, the activity, its
        user, and the ids of the rows that showed that activity before.
    :param instance: The current state of the instance, or None if it could not be read.
    """
    activity = sent["activity"]
    for row, is_certain in _rows_of_occurrence(list(histories), sent["state"], instance):
        is_activity = row.get("workflow_activity_id") == activity["id"]
        if not (is_certain and is_activity and row.get("workflow_user_role_id") in (None, activity["role_id"])):
            continue
        # The server may store another user than was sent, but only in a new row.
        if row.get("performed_by_id") == sent["user_id"] or row.get("id") not in sent["before"]:
            return row
    return None


@documented_form()
def find_own(
    histories: Iterable[Json], *, requested: Mapping[str, str | None], user_id: str, since: datetime | None
) -> Json | None:
    """
    Return the latest row of an activity, in the role if given, if a user performed it in any occurrence, or None.

    :param histories: All rows of the instance, the newest first.
    :param requested: The activity: keywords of :func:`activity_fits`.
    :param user_id: Login information id of the user.
    :param since: Minimum time of the row, to the second.
    """
    for row in histories:
        fits = activity_fits(performed_activity(row), **{**requested, "role": None})
        if not fits or _is_role(row, requested.get("role"), ()) is False:
            continue
        made = time_of(row)
        is_new = since is None or (made is not None and made >= since.replace(microsecond=0))
        return row if row.get("performed_by_id") == user_id and is_new else None
    return None


def occurrence_of_row(row: Json) -> dict[str, Any]:
    """Return the occurrence of the state in which a row of the activity history was performed, as far as shown."""
    return {
        "id": row.get("workflow_state_id"),
        "name": row.get("workflow_state_name"),
        "status": None,
        "set_at": row.get("bic_start"),
    }


def is_row_of(row: Json, sent: Json) -> bool:
    """
    Return whether a row of the activity history may be the one of a sent activity.

    :param sent: ``{instance: {instance_id}, activity: {id, role_id}, before: [ids of the rows before it was sent]}``.
    """
    activity = sent["activity"]
    return (
        row.get("workflow_activity_id") == activity["id"]
        and row.get("workflow_user_role_id") in (None, activity["role_id"])
        and row.get("workflow_instance_id") in (None, sent["instance"]["instance_id"])
        and (row.get("id") is None or row["id"] not in sent["before"])
    )


def _rows_of_occurrence(rows: Collection[Json], occurrence: Json, instance: Json | None) -> list[tuple[Json, bool]]:
    """
    Return the rows that were or may have been performed in an occurrence, the oldest first, each with its certainty.

    Newer rows name the state in which they were performed. Older rows have only their times and ``bic_start``, which is
    taken as the time at which the state was entered.
    """
    entered = parse_time(occurrence["set_at"])
    has_gone = None if instance is None else has_left(occurrence, instance, rows)
    left = parse_time(instance["state_set_at"]) if instance is not None and has_gone else None
    found: list[tuple[Json, bool]] = []
    for row in newest_first(dict(row) for row in rows)[::-1]:
        made, started, state = time_of(row), parse_time(row.get("bic_start")), row.get("workflow_state_id")
        of_state = occurrence["id"] is not None and state == occurrence["id"]
        if made is None:
            if state is None or of_state:
                found.append((row, False))
            continue
        if entered is not None and made < entered:
            continue
        if state is not None and not of_state:
            if entered is None or made > entered:
                break  # the occurrence is over, and all later rows belong to later occurrences
            # In the second of the entry, the rows before can belong to this occurrence or to the one before it.
            found = [(earlier, False) for earlier, _ in found]
            continue
        if entered is not None and made == entered and started is not None and started < entered:
            continue  # the row of the transition into this occurrence has the time of the occurrence
        started_here = started is not None and entered is not None and started <= entered
        if left is not None and (made > left or (started is not None and started >= left and not started_here)):
            continue  # a row of a later occurrence
        if made == entered and started is None and state is None:
            found.append((row, False))
            continue
        is_first = not found  # only an activity ends an occurrence
        found.append((row, of_state or has_gone is False or is_first or started_here))
    return found


def _is_activity(
    row: Json, requested: Mapping[str, str | None], of_state: Iterable[Json], *, is_open: bool
) -> bool | None:
    """Return whether a row shows the requested activity, or None if the row does not show which it is."""
    shown = performed_activity(row)
    activity_id, name = requested.get("activity_id"), requested.get("name")
    if activity_id is not None:
        return None if shown["id"] is None else bool(shown["id"] == activity_id)
    if name is None:
        return False
    if shown["name"] is not None:
        return same_name(shown["name"], name)
    known = [activity for activity in of_state if activity["name"] is not None and activity["id"] is not None]
    fitting = {activity["id"] for activity in known if same_name(activity["name"], name)}
    if shown["id"] in fitting:
        return True
    if shown["id"] is not None and (is_open or shown["id"] in {activity["id"] for activity in known}):
        return False
    return None


def _is_role(row: Json, role: str | None, of_state: Iterable[Json]) -> bool | None:
    """Return whether a row was performed in a role, given by name or id, or None if the row does not show it."""
    shown = performed_activity(row)
    if role is None or role == shown["role_id"] or same_name(shown["role"], role):
        return True
    named = {activity["role_id"] for activity in of_state if same_name(activity["role"], role)}
    if shown["role_id"] in named:
        return True
    return False if shown["role"] is not None or named or role.isdecimal() else None
