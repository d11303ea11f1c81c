"""Who decided what when, as far as the result of a task says it: for lineage and other listeners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Members of results that identify what was decided about. Comments and other texts of people are left out.
IDS = (
    *("instance_id", "item_id", "object_id", "object_type", "tool_type", "project_id", "step", "step_occurrence_id"),
    *("process_instance_id", "integration_instance_id", "task_id", "request_id", "operation_id"),
)
# The member of a summary, and the members of results that hold it, the first that is given.
DECISIONS = {
    "decision": ("option", "activity", "custom_action"),
    "decision_type": ("type",),
    "decided_by": ("by", "performed_by", "user_id", "on_behalf_of"),
    "decided_at": ("at", "performed_at"),
    "state": ("state", "status"),
    "ended_at": ("ended_at", "terminated_at"),
}


def summary_of(result: Any, **more: Any) -> dict[str, Any]:
    """
    Return who decided what when, with the ids of what was decided about; members that are unknown are missing.

    The decision is that of the step occurrence that ended a wait, else the instance's last one, else the task's own.

    :param result: Result of a task: a mapping, or a list of them, of which only the number is summarized.
    :param more: Members that the result does not have.
    """
    if not isinstance(result, Mapping):
        return {"results": len(result)} if isinstance(result, (list, tuple)) else {}
    if result.get("dry_run"):  # nothing was decided
        return {}
    outcome = result.get("outcome")
    if isinstance(outcome, Mapping):  # of a start that waited for the end
        result = {**result, **outcome}
    occurrence = _mapping(result.get("occurrence"))
    decision = _mapping(occurrence.get("decision")) or _mapping(result.get("decision"))
    state = result.get("state_after") or result.get("state")
    summary = {name: value for name in IDS if _is_known(value := occurrence.get(name, result.get(name)))}
    for name, members in DECISIONS.items():
        values = (source.get(member) for source in (decision, result) for member in members)
        found = next((value for value in values if _is_known(value)), None)
        if found is not None:
            summary[name] = found
    if isinstance(state, Mapping) and _is_known(state.get("name")):
        summary["state"] = state["name"]
    return {**summary, **{name: value for name, value in more.items() if _is_known(value)}}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_known(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and value != ""
