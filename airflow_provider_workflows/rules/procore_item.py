"""
The approval of an item, whichever tool runs it: Legacy, or the new Workflows tool (v2) after the switch.

Procore does not document how a running Legacy instance looks after the switch, so none of its possible forms counts as
a decision: an instance that is gone, was terminated, or lists no activity has been left behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from airflow_provider_workflows.exceptions import AmbiguousOrder
from airflow_provider_workflows.rules import procore, procore_legacy
from airflow_provider_workflows.rules.datetimes import time_text, unix_time
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.wait_result import WaitResult

PROCORE, LEGACY = "procore", "procore_legacy"
# The stage of a Legacy instance. "between" lists no activity, but not for long; "elsewhere" has certainly ended in a
# state that was not named; "idle" lists no activity for good although its state is not known to be a final one.
Stage = Literal["open", "between", "complete", "elsewhere", "terminated", "idle"]
# How a Legacy instance was left behind; "unchanged" if it still looks as before although v2 runs the item.
HOW_LEFT = {
    "gone": "is gone (404)",
    "terminated": "was terminated",
    "idle": "lists no activity although its state is not known to be a final one",
    "unchanged": "looks as before",
}

Json = Mapping[str, Any]


# --- Legacy -------------------------------------------------------------------------------------------------


def is_named(instance: Json, until: Collection[str]) -> bool:
    """
    Return whether the current state of a Legacy instance is one of some names, statuses or ids, in any case.

    "Draft" names no instance without activities, because the switch may leave such ones behind.
    """
    names = procore_legacy.names_of(instance)
    if procore_legacy.is_draft(instance):
        names.discard(procore_legacy.DRAFT)
    return not names.isdisjoint(state.casefold() for state in until)


@documented_form()
def stage_of(
    instance: Json,
    *,
    until: Collection[str],
    histories: Sequence[Json] | None,
    seen: Json | None,
    is_over: bool,
    is_old: bool = False,
) -> Stage:
    """
    Return the stage of a Legacy instance.

    :param instance: The result of :func:`.procore_legacy.describe_instance`.
    :param until: States that are an outcome: names, statuses or ids; none: each state in which instances end.
    :param histories: Its activity history, the newest row first; None if it could not be read.
    :param seen: The instance as it last listed an activity, if it was seen so, or None.
    :param is_over: Whether it has listed no activity for so long that it is not between two states.
    :param is_old: Whether its state was entered so long ago that its activities would have been listed by now.
    """
    if instance["terminated_at"]:
        return "complete" if procore_legacy.TERMINATED in {state.casefold() for state in until} else "terminated"
    named = is_named(instance, until)
    if not procore_legacy.is_idle(instance):
        return "complete" if named else "open"
    is_final = is_final_state(instance, histories, seen)
    is_draft = procore_legacy.is_draft(instance)
    if named and (is_final or (is_final is None and not is_draft)):
        return "complete"
    if is_final and not is_draft and (is_over or is_old):
        return "elsewhere" if until else "complete"
    return "idle" if is_over else "between"


@documented_form()
def is_final_state(instance: Json, histories: Sequence[Json] | None, seen: Json | None) -> bool | None:
    """
    Return whether the state of an instance without activities is a final one, or None if nothing shows that.

    A final state has no activities, so no user has performed one in it, and an activity has led to it. The switch
    removes the history of a Legacy instance.
    """
    state_id = instance["state_id"]
    if state_id is None:
        return False
    is_same = seen is not None and all(seen[name] == instance[name] for name in ("instance_id", "state_id"))
    if is_same and seen is not None and seen["activities"]:
        return False
    if histories is None:
        return None
    states = {row.get("workflow_state_id") for row in histories}
    if not states or state_id in states:
        return False
    return None if None in states else True


@documented_form()
def legacy_decision(instance: Json, histories: Sequence[Json] | None) -> dict[str, Any] | None:
    """
    Return the activity that led to the state of a Legacy instance as a decision, or None if it was terminated.

    :param histories: Its activity history, the newest row first; None if it could not be read.
    :return: ``{option, type, by, at, source, candidates, problem}`` as for v2; ``option`` is the name of the activity,
        ``source`` is ``activity``. If several roles acted differently in the last state, or the history does not show
        the activity, ``problem`` says so.
    """
    if instance["terminated_at"]:
        return None
    unknown: dict[str, Any] = {**dict.fromkeys(("option", "type", "by", "at", "source")), "candidates": []}
    if not histories:
        problem = "the activity history could not be read" if histories is None else "the activity history is empty"
        return {**unknown, "problem": problem}
    last = histories[0]
    same = [
        row for row in histories if all(row.get(key) == last.get(key) for key in ("workflow_state_id", "bic_start"))
    ]
    names = list(dict.fromkeys(str(row.get("workflow_activity_name") or "") for row in same))
    at = last.get("created_at")
    if "" in names:
        problem = f"the activity history does not name the activity of {at}"
        return {**unknown, "at": at, "candidates": [name for name in names if name], "problem": problem}
    if len(names) > 1:
        problem = f"several activities were performed in the last state: {', '.join(map(repr, names))}"
        return {**unknown, "at": at, "candidates": names, "problem": problem}
    by = (last.get("performed_by_name") or last.get("performed_by_id")) if len(same) == 1 else None
    return {**unknown, "option": names[0], "by": by, "at": at, "source": "activity", "problem": None}


# --- which tool ---------------------------------------------------------------------------------------------


def is_newer_in_v2(instance: Json, legacy: Json | None, stage: Stage | None) -> bool:
    """
    Return whether an ended v2 instance is newer than what is known of the item's Legacy instance.

    :param instance: The v2 instance, with its ``ended_at``.
    :param legacy: The Legacy instance as it was last read, or None if there is none.
    :param stage: Its stage, or None if it can no longer be read.
    :raises AmbiguousOrder: both may be the current one, and a time is missing.
    """
    if legacy is None:
        return True
    ended, moved = unix_time(instance["ended_at"]), unix_time(legacy["state_set_at"])
    if ended is not None and moved is not None:
        return ended >= moved
    if stage in (None, "terminated", "idle"):
        return True
    raise AmbiguousOrder(
        f"Item {instance['item_id']} has the ended instance {instance['instance_id']} (ended_at is "
        f"{instance['ended_at']!r}) and the Legacy instance {legacy['instance_id']} (current_state_set_at is "
        f"{legacy['state_set_at']!r}), and these times do not show which of them is newer"
    )


# --- the result of the wait ---------------------------------------------------------------------------------


def v2_outcome(instance: Json, seen: Json | None, tool_type: str, **states: Collection[str]) -> WaitResult | None:
    """
    Return the result of the wait for a v2 instance, or None to continue waiting.

    :param instance: The result of :func:`.procore.describe_instance`, with its ``project_id``.
    :param seen: What was seen of Legacy before, or None.
    :param states: ``until``, ``fail_on`` and ``skip_on``.
    """
    names = ("instance_id", "item_id", "project_id", "state", "step", "item_status", "decision", "started_at")
    shown = {name: instance[name] for name in (*names, "ended_at", "ambiguous")}
    return _outcome(PROCORE, shown, seen, tool_type, states)


def legacy_outcome(
    instance: Json,
    stage: Stage,
    decision: Json | None,
    seen: Json,
    *,
    item: Json,
    legacy_until: Collection[str],
    **states: Collection[str],
) -> WaitResult | None:
    """
    Return the result of the wait for a Legacy instance that has ended, in the shape of :func:`v2_outcome`.

    :param instance: The result of :func:`.procore_legacy.describe_instance`.
    :param stage: ``complete`` or ``elsewhere``.
    :param item: The item as it was requested: ``{item_id, tool_type, project_id}``.
    """
    shown = {
        "instance_id": instance["instance_id"],
        "item_id": item["item_id"],
        "project_id": instance["project_id"] or item["project_id"],
        "state": "terminated" if instance["terminated_at"] else "complete",
        "step": None,
        "item_status": instance["status"],
        "decision": decision,
        "started_at": None,
        "ended_at": instance["terminated_at"] or instance["state_set_at"],
        "ambiguous": [],
    }
    where = f" in Legacy: state {instance['state']!r} (status {instance['status']!r}) since {instance['state_set_at']}"
    if stage == "elsewhere":
        missed = " or ".join(sorted(legacy_until))
        result = {"engine": LEGACY, "tool_type": item["tool_type"], **shown, "legacy": dict(seen)}
        reason = f"Procore workflow instance {instance['instance_id']} has ended{where}, without reaching {missed}"
        return WaitResult("fail", result, reason)
    return _outcome(LEGACY, shown, seen, item["tool_type"], states, where)


def _outcome(
    engine: str, shown: Json, seen: Json | None, tool_type: str, states: Mapping[str, Collection[str]], where: str = ""
) -> WaitResult | None:
    found = procore.evaluate_instance(
        shown, until=states["until"], fail_on=states["fail_on"], skip_on=states["skip_on"]
    )
    if found is None:
        return None
    result = {"engine": engine, "tool_type": tool_type, **shown, "legacy": None if seen is None else dict(seen)}
    return WaitResult(found.action, result, f"{found.reason}{where}")


# --- an instance that was left behind -----------------------------------------------------------------------


def seen_of_legacy(seen: Json | None, left: Json | None, how: str | None = None) -> dict[str, Any] | None:
    """
    Return what a wait has seen of Legacy, for its result; None if it has seen nothing.

    :param seen: The instance as it last listed an activity, else as it was first seen, with ``seen_at``; or None.
    :param left: ``{how, since}`` if it was left behind, or None.
    :param how: How it was left behind, if ``left`` is None.
    """
    if seen is None:
        return None
    since = None if left is None else left["since"]
    return {**seen, "left": how if left is None else left["how"], "left_at": None if since is None else _text(since)}


def stuck_reason(tool_type: str, item_id: str, legacy_instance_id: str | None, seen: Json | None, left: Json) -> str:
    """
    Return why the item is stuck, with what was last seen of it in Legacy.

    :param left: ``{how, since}`` of the Legacy instance.
    """
    last = "" if seen is None else f" It was last seen in state {seen['state']!r}, status {seen['status']!r}"
    last += f", since {seen['state_set_at']}, pending with {_pending(seen)}." if seen is not None else ""
    return (
        f"Legacy instance {legacy_instance_id} of {tool_type} {item_id} {HOW_LEFT[left['how']]}, seen so since "
        f"{_text(left['since'])}, and no workflow of the item was started in either tool since then.{last} "
        f"{procore_legacy.SWITCH}"
    )


def terminated_at(instance: Json | None) -> float | None:
    """Return the unix time at which a Legacy instance was terminated, or None if it does not show that."""
    return None if instance is None else unix_time(instance["terminated_at"])


def _pending(seen: Json) -> str:
    names = [str(name) for name in seen["ball_in_court"] if name]
    return ", ".join(names) or ", ".join(str(activity["role"]) for activity in seen["activities"]) or "unknown"


def _text(unix: float) -> str:
    return time_text(datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=unix))
