"""Plan and verify changes of the assignees in Procore's workflow presets, and match requests to replace an assignee."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError, UnexpectedResponse
from airflow_provider_workflows.rules.datetimes import parse_time
from airflow_provider_workflows.rules.parameters import as_list
from airflow_provider_workflows.rules.payload import is_id
from airflow_provider_workflows.rules.procore import people_ids
from airflow_provider_workflows.rules.procore_decisions import rows_of as _rows
from airflow_provider_workflows.rules.text_table import aligned

Json = Mapping[str, Any]
UNFINISHED = ("failed", "unknown")  # statuses of a preset that a retry continues with
# A day can be shown as midnight in any zone: from 14 hours before it starts in UTC to 12 hours after.
START_WINDOW = (timedelta(hours=-14), timedelta(hours=12))
# A last day can also be shown as its end.
END_WINDOW = (START_WINDOW[0], START_WINDOW[1] + timedelta(days=1))


@dataclass
class DesiredGroup:
    """
    Describe the desired members of one responsible group.

    :param name: Name of the group.
    :param uuid: Uuid of the group.
    :param ids: Login information ids of the desired members that are possible.
    :param rejected: ``{who, reason}`` of the desired members that are not possible.
    :param reason: Why the group as a whole is not changed, or None.
    """

    name: str
    uuid: str | None = None
    ids: list[str] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    reason: str | None = None


def desired_group_for(
    group: str,
    people: Sequence[str],
    *,
    groups: Iterable[Json],
    possible: Collection[Json],
    replace: bool,
    allow_empty: bool,
) -> DesiredGroup:
    """
    Return the desired members of a group as ids, and reject changes that must not be written.

    :param group: Name of the group, in any case, or its uuid.
    :param people: Logins and ids of the desired members.
    :param groups: ``{uuid, name, type}`` of each group of the template's version.
    :param possible: All possible assignees: ``{id, login, ...}``.
    :param replace: Whether to remove all other members.
    :param allow_empty: Whether a group may be left without members.
    """
    name = group.strip().casefold()
    known = [g for g in groups if name in [str(g.get(key)).strip().casefold() for key in ("uuid", "name")]]
    if len(known) != 1:
        names = ", ".join(repr(g.get("name")) for g in (known or groups)) or "none"
        problem = "several groups have this name" if known else "the template has no such group"
        return DesiredGroup(group, reason=f"{problem}; groups: {names}")
    (found,) = known
    desired_group = DesiredGroup(str(found.get("name")), str(found.get("uuid")))
    if not is_role_group(found):
        desired_group.reason = f"its type is {found.get('type')!r}, but only role groups can be changed"
        return desired_group
    ids, rejected = people_ids(possible, people)
    desired_group.ids = list(dict.fromkeys(ids.values()))
    desired_group.rejected = [{"who": who, "reason": reason} for who, reason in rejected.items()]
    if replace and desired_group.rejected:
        desired_group.reason = "not changed, because some desired members are not possible assignees"
    elif replace and not desired_group.ids and not allow_empty:
        desired_group.reason = "it would have no members; set allow_empty=True to allow that"
    return desired_group


def is_role_group(group: Json) -> bool:
    """Return whether a group's members are chosen by name; Procore's types of such groups all contain "role"."""
    return "role" in str(group.get("type")).casefold()


def check_assignees(preset: Json) -> None:
    """
    Require a preset to show all assignees that a change has to send again; only ``[]`` means that there are none.

    :param preset: ``data`` of "Show Preset".
    :raises UnexpectedResponse: a group or a step has no id, or no list of people with ids.
    """
    groups, steps = preset.get("responsible_group_memberships"), preset.get("individual_assignees") or []
    is_shown = (
        isinstance(groups, list)
        and isinstance(steps, list)
        and all(_shows_people(group, "responsible_group_uuid", "assignees") for group in groups)
        and all(_shows_people(step, "step_uuid", "logins", "assignees") for step in steps)
        and len(members_of(preset)) == len(groups)
    )
    if not is_shown:
        raise UnexpectedResponse(
            "The preset does not show all its groups and individual assignees, each with a list of people with ids. A "
            "change has to send all of them, or would remove whom it leaves out"
        )


def _shows_people(row: Any, key: str, *names: str) -> bool:
    if not isinstance(row, Mapping) or not is_id(row.get(key)):
        return False
    lists = [row[name] for name in names if isinstance(row.get(name), list)]
    return bool(lists) and all(is_id(_id_of(person)) for people in lists for person in people)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _id_of(person: Any) -> Any:
    return person.get("id") if isinstance(person, Mapping) else person


def members_of(preset: Json) -> dict[str, list[str]]:
    """Return the ids of the members of each group of a preset, by its uuid."""
    return {
        str(group.get("responsible_group_uuid")): [str(_id_of(person)) for person in _list(group.get("assignees"))]
        for group in _rows(preset.get("responsible_group_memberships"))
    }


def logins_of(people: Iterable[Json]) -> dict[str, str]:
    """Return the names of people in a plan: their logins by their ids."""
    return {str(person.get("id")): str(person.get("login") or person.get("id")) for person in people}


def group_changes(
    preset: Json, desired_groups: Iterable[DesiredGroup], *, replace: bool, logins: Mapping[str, str]
) -> list[dict[str, Any]]:
    """
    Return the changes of a preset's groups.

    :param preset: ``data`` of "Show Preset".
    :param desired_groups: The desired groups.
    :param replace: Whether to remove all other members.
    :param logins: Logins by id, to name people.
    :return: ``{group, uuid, added, removed, unchanged, rejected, reason}`` of each desired group, with logins, and
        ``{who, reason}`` of those who are rejected.
    """
    members = members_of(preset)
    logins = {
        **logins_of(p for g in _rows(preset.get("responsible_group_memberships")) for p in _rows(g.get("assignees"))),
        **logins,
    }
    rows = []
    for desired_group in desired_groups:
        current = members.get(str(desired_group.uuid), [])
        desired = current if desired_group.reason else desired_group.ids
        rows.append(
            {
                "group": desired_group.name,
                "uuid": desired_group.uuid,
                "added": [logins.get(id_, id_) for id_ in desired if id_ not in current],
                "removed": [logins.get(id_, id_) for id_ in current if id_ not in desired] if replace else [],
                "unchanged": [logins.get(id_, id_) for id_ in current if id_ in desired or not replace],
                "rejected": desired_group.rejected,
                "reason": desired_group.reason,
            }
        )
    return rows


def members_after(preset: Json, desired_groups: Iterable[DesiredGroup], *, replace: bool) -> dict[str, list[str]]:
    """Return the members of every group of a preset, by its uuid, after the desired changes."""
    after = members_of(preset)
    for desired_group in desired_groups:
        if desired_group.reason is None:
            remaining = [] if replace else after.get(str(desired_group.uuid), [])
            after[str(desired_group.uuid)] = list(dict.fromkeys([*remaining, *desired_group.ids]))
    return after


def assignees_to_send(preset: Json, after: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """
    Return the body of a call that changes a preset's groups, and nothing else.

    Whether assignees that are not sent stay or are removed is not documented, so the body contains all of them.

    :param preset: The preset as just read.
    :param after: The desired members of each group.
    """
    sent: dict[str, Any] = {
        "responsible_group_memberships": [{"uuid": uuid, "login_ids": list(ids)} for uuid, ids in after.items()]
    }
    if individuals := _individuals(preset):
        sent["individual_assignees"] = individuals
    if (manager := _manager(preset)) is not None:
        sent["workflow_manager_id"] = manager
    return sent


def differences(
    preset: Json, after: Mapping[str, Sequence[str]], *, closed: Collection[str] | None = None
) -> list[str]:
    """
    Describe the differences between a preset's groups and the desired members; the order does not matter.

    :param preset: The preset as just read.
    :param after: The desired members of each group.
    :param closed: Uuids of the groups that must have no other members; another user may have added members to all other
        groups. None for all groups.
    """
    members = members_of(preset)
    messages = []
    for uuid in sorted({*members, *after}):
        current, desired = set(members.get(uuid, [])), set(after.get(uuid, []))
        unexpected = current - desired if closed is None or uuid in closed else set()
        if unexpected or desired - current:
            more = f" unexpected {', '.join(sorted(unexpected))}" if unexpected else ""
            less = f" missing {', '.join(sorted(desired - current))}" if desired - current else ""
            messages.append(f"group {uuid}:{more}{less}")
    return messages


def is_unchanged(preset: Json, before: Json) -> bool:
    """Return whether a preset has the same assignees as before."""
    return not differences(preset, members_of(before)) and not losses(preset, before)


def losses(preset: Json, before: Json) -> list[str]:
    """Describe the unintended changes that a change of the groups has caused."""
    messages = []
    if _individuals(preset) != _individuals(before):
        messages.append("the individual assignees have changed")
    if _manager(preset) != _manager(before):
        messages.append(f"the workflow manager is {_manager(preset)} instead of {_manager(before)}")
    return messages


def beyond(changes: Iterable[Json], approved: Json | None) -> list[str]:
    """
    Describe the changes of a preset that are not in an approved plan.

    :param changes: The result of :func:`group_changes`.
    :param approved: The preset's row of the approved plan, or None if the plan does not contain it.
    """
    groups = {str(group.get("uuid")): group for group in _rows((approved or {}).get("groups"))}
    messages = []
    for change in changes:
        group = groups.get(str(change["uuid"]), {})
        for kind in ("added", "removed"):
            more = [who for who in change[kind] if who not in (group.get(kind) or [])]
            if more:
                messages.append(f"{change['group']}: {', '.join(more)} would be {kind}")
    return messages


def is_rejected(row: Json) -> bool:
    """Return whether a preset or one of its groups is rejected."""
    return row["status"] == "rejected" or any(group["rejected"] or group["reason"] for group in row["groups"])


def table_of(rows: Iterable[Json]) -> str:
    """Return a plan as a table for the log."""
    lines = [("preset", "project", "template", "status", "group", "added", "removed", "rejected")]
    for row in rows:
        head = (str(row["preset_id"]), str(row["project_id"]), str(row["template"]), row["status"])
        if not row["groups"]:
            lines.append((*head, "", "", "", str(row["reason"] or "")))
        for group in row["groups"]:
            rejected = [f"{person['who']} {person['reason']}" for person in group["rejected"]]
            rejected += [str(group["reason"])] if group["reason"] else []
            rejected += [str(row["reason"])] if row["reason"] and (not rejected or row["status"] in UNFINISHED) else []
            lines.append(
                (*head, group["group"], ", ".join(group["added"]), ", ".join(group["removed"]), "; ".join(rejected))
            )
    return aligned(lines)


def is_request(row: Json, request: Json, user_id: str) -> bool | None:
    """
    Return whether a row of the list of bulk replace requests is the request that was sent.

    The format of a row is not documented. The people must be equal, and all other values must not contradict. A reason
    may be truncated, and a day may be shown as a time.

    :param row: The row, or the request as shown.
    :param request: The request that was sent.
    :param user_id: Id of the user who sent it.
    :return: None if the row does not show who is replaced by whom, or if another user has changed it.
    """
    kind = row.get("replacement_type") or row.get("type")
    if kind is not None and str(kind).casefold() != request["replacement_type"]:
        return False
    if not _is_prefix(row.get("reason"), request["reason"]):
        return False
    for name, window in (("start_date", START_WINDOW), ("end_date", END_WINDOW)):
        if not _is_day(row.get(name), request.get(name), window):
            return False
    roles = row.get("modify_project_roles")
    if isinstance(roles, bool) and roles != request["modify_project_roles"]:
        return False
    manager = "new_workflow_manager_id", "new_workflow_manager"
    others = [
        _is_same(row, names, shown, {str(value) for value in as_list(request.get(names[0]) or [])})
        for names in (("project_ids", "projects"), manager)
        for shown in [_ids(row, *names)]
    ]
    others.append(_is_same(row, ("tools",), _tools(row.get("tools")), _tools(request.get("tools"))))
    if False in others:
        return False
    old, new = _ids(row, "old_assignee_id", "old_assignee"), _ids(row, "new_assignee_ids", "new_assignees")
    if (old and old != {request["old_assignee_id"]}) or (new and new != set(request["new_assignee_ids"])):
        return False
    creators, editors = _ids(row, "created_by_id", "created_by"), _ids(row, "updated_by_id", "updated_by")
    if creators and creators != {user_id}:
        return False
    is_shown = old and new and None not in others
    return None if not is_shown or (editors and not creators and editors != {user_id}) else True


def _is_same(row: Json, names: Sequence[str], shown: Set[Any], sent: Set[Any]) -> bool | None:
    """Compare a part of a request; None if one of both has no value, unless the row does not have that part at all."""
    if shown == sent or not any(name in row for name in names):
        return True
    return False if shown and sent else None


def _tools(tools: Any) -> set[tuple[str, str]]:
    """Return the types of tools with their subtypes."""
    rows = [tool if isinstance(tool, Mapping) else {"type": tool} for tool in as_list(tools or [])]
    return {(str(tool.get("type")).casefold(), str(tool.get("sub_type") or "")) for tool in rows}


def _is_prefix(shown: Any, sent: str) -> bool:
    """Return whether a shown text is the sent text or its start; a missing text does not contradict."""
    start = " ".join(str(shown or "").split()).removesuffix("...").removesuffix("…").rstrip()
    return " ".join(sent.split()).startswith(start)


def _is_day(shown: Any, sent: str | None, window: tuple[timedelta, timedelta]) -> bool:
    """Return whether a shown day or time can be the sent day in some zone; a missing one does not contradict."""
    day, moment = parse_time(sent), parse_time(str(shown) if shown else None)
    if day is None or moment is None:
        return True
    return str(shown) == sent if len(str(shown)) <= len("2026-01-31") else window[0] <= moment - day <= window[1]


def _ids(row: Json, *names: str) -> set[str]:
    """Return the ids under the first of some names that has any: one or several, as ids or as objects."""
    for name in names:
        value = row.get(name)
        records = value if isinstance(value, list) else [value]
        ids = [record.get("id") if isinstance(record, Mapping) else record for record in records]
        if found := {str(id_) for id_ in ids if is_id(id_)}:
            return found
    return set()


def checked_assignment(assignment: Any, tool_type: str | None) -> dict[str, Any]:
    """
    Read one element of the parameter ``assignments``.

    :param assignment: ``{preset_id or template, project_id, groups: {group: [people]}, tool_type}``.
    :param tool_type: Default tool.
    :return: The assignment with all keys, ids and people as text.
    :raises ConfigurationError: the assignment is malformed.
    """
    known = {"preset_id", "template", "project_id", "groups", "tool_type", "tool_subtype"}
    if not isinstance(assignment, Mapping) or set(assignment) - known:
        problem = (
            f"unknown key {', '.join(sorted(map(str, set(assignment) - known)))}"
            if isinstance(assignment, Mapping)
            else f"got {type(assignment).__name__}"
        )
        raise ConfigurationError(
            f"assignments: each element must be a dict with keys of {', '.join(sorted(known))}; {problem}."
        )
    if (assignment.get("preset_id") is None) == (assignment.get("template") is None):
        raise ConfigurationError("assignments: give each element either a preset_id or a template.")
    for name in ("preset_id", "template", "tool_type", "tool_subtype", "project_id"):
        if assignment.get(name) is not None and str(assignment[name]).strip() in ("", "None"):
            raise ConfigurationError(f"assignments: {name} is empty or was rendered empty. Give it a value.")
    tool = assignment.get("tool_type") or tool_type
    if not tool:
        raise ConfigurationError("tool_type is missing. Give it to the operator or to each element of assignments.")
    if isinstance(assignment.get("project_id"), (list, tuple, set, frozenset)) and not assignment["project_id"]:
        raise ConfigurationError("assignments: project_id is an empty list. Give at least one project, or omit it.")
    groups = assignment.get("groups")
    if not isinstance(groups, Mapping) or not groups:
        raise ConfigurationError("assignments: groups must be a non-empty dict of group names and their members.")
    return {
        "preset_id": _text(assignment.get("preset_id")),
        "template": _text(assignment.get("template")),
        "project_id": assignment.get("project_id"),
        "tool_type": str(tool),
        "tool_subtype": _text(assignment.get("tool_subtype")),
        "groups": {str(name).strip(): _people(name, people) for name, people in groups.items()},
    }


def _people(group: Any, people: Any) -> list[str]:
    if isinstance(people, (str, Mapping)) or not isinstance(people, (list, tuple, set, frozenset)):
        raise ConfigurationError(f"assignments: the members of {group!r} must be a list of logins or ids.")
    names = [str(person).strip() for person in people]
    if not all(names) or "None" in names:
        raise ConfigurationError(f"assignments: a member of {group!r} is empty or was rendered empty.")
    return list(dict.fromkeys(names))


def _individuals(preset: Json) -> list[dict[str, Any]]:
    return [_individual(step) for step in _rows(preset.get("individual_assignees"))]


def _manager(preset: Json) -> str | None:
    manager = preset.get("workflow_manager")
    return str(manager["id"]) if isinstance(manager, Mapping) and manager.get("id") is not None else None


def _individual(step: Json) -> dict[str, Any]:
    logins = step.get("logins") or step.get("assignees") or []
    keys = ("id", "required", "role_type")
    return {
        "step_uuid": step.get("step_uuid"),
        "logins": [
            {key: login[key] for key in keys if login.get(key) is not None}
            if isinstance(login, Mapping)
            else {"id": str(login)}
            for login in logins
        ],
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(value).strip()
