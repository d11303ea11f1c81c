"""The responses of Procore Workflows v2: instances and their histories as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .common import user_name, user_ref
from .instances import STEP_OVERDUE_AFTER_SECONDS, Assignment, Instance, Occurrence, Procore, StepResponse


def _updated_at(procore: Procore, instance: Instance) -> float:
    if procore.state.flags["updated_at"] == "start_only":
        return instance.started_at if instance.ended_at is None else instance.ended_at
    return instance.updated_at


def row(procore: Procore, instance: Instance) -> dict[str, Any]:
    iso = procore.state.clock.iso
    creator = {"created_by": user_ref(instance.created_by)}
    return {
        "id": instance.id,
        "item_id": instance.item_id,
        "tool_type": instance.template.tool_type,
        "tool_subtype": instance.template.tool_subtype,
        "created_at": iso(instance.started_at),
        "updated_at": iso(_updated_at(procore, instance)),
        "started_at": iso(instance.started_at),
        "ended_at": None if instance.ended_at is None else iso(instance.ended_at),
        **(creator if procore.state.flags["created_by"] == "present" else {}),
    }


def show(procore: Procore, instance: Instance) -> dict[str, Any]:
    everyone = [user_id for members in instance.groups.values() for user_id in members]
    if instance.current is not None:
        everyone += instance.current.assignees
    groups = instance.template.groups
    current = instance.current
    if procore.state.flags["transition"] == "in_between" and instance.id in procore.moving:
        current = None
    return {
        **row(procore, instance),
        "template_version_id": instance.template.version_id,
        "current_step_occurrence": None if current is None else _occurrence(procore, current),
        "workflow_manager": user_ref(instance.manager),
        "responsible_group_memberships": [
            {
                "responsible_group_uuid": uuid,
                "name": groups[uuid].name,
                "assignees": [user_name(user_id) for user_id in members],
            }
            for uuid, members in instance.groups.items()
        ],
        "all_assignees": [user_ref(user_id) for user_id in dict.fromkeys(everyone)],
    }


def _occurrence(procore: Procore, occurrence: Occurrence) -> dict[str, Any]:
    iso = procore.state.clock.iso
    return {
        "id": occurrence.id,
        "step_uuid": occurrence.step.uuid,
        "name": occurrence.step.name,
        "started_at": iso(occurrence.started_at),
        "overdue_at": iso(occurrence.started_at + STEP_OVERDUE_AFTER_SECONDS),
        "step_histories": [],
        "available_response_options": occurrence.step.wire_options,
        "individual_assignees": _individuals(occurrence),
        "notification_recipients": [],
        "response_occurrences": [
            {
                "submitted_at": iso(response.at) if response else None,
                "selected_response_option": response.option if response else None,
                "comment": response.comment if response else None,
                "attachments": [{"name": a["name"], "url": a["url"]} for a in response.attachments] if response else [],
                "assignee": {**user_ref(user_id), "required": assignment.required},
            }
            for user_id, assignment in occurrence.assignees.items()
            for response in [occurrence.responses.get(user_id)]
        ],
    }


def _individuals(occurrence: Occurrence) -> list[dict[str, Any]]:
    return [
        {**user_name(user_id), "required": assignment.required, "role_type": assignment.role_type}
        for user_id, assignment in occurrence.assignees.items()
        if assignment.group is None
    ]


def history(procore: Procore, instance: Instance, *, instance_id: bool = False) -> dict[str, Any]:
    iso = procore.state.clock.iso
    events: list[dict[str, Any]] = [{"type": "WorkflowStarted", "details": {"started_at": iso(instance.started_at)}}]
    flags = procore.state.flags
    events += [_occurrence_event(procore, instance, occurrence) for occurrence in instance.occurrences]
    if flags["hidden_events"] == "response_steps":
        events = [event for event in events if event["type"] != "ResponseStep"]
    index = len(events) - 1 if instance.current is not None else None
    if instance.terminated_by is not None and instance.ended_at is not None:
        ended_at, name = iso(instance.ended_at), instance.template.name
        if flags["termination_event"] != "terminated":
            ids = {"id": f"{instance.id}99", "uuid": f"{instance.id}-end", "name": "Terminated"}
            times = {"started_at": ended_at, "ended_at": ended_at, "due_date": None}
            events.append({"type": "EndStep", "details": {**ids, **times, "end_type": "terminated", "status": None}})
        if flags["termination_event"] != "end_step":
            details: dict[str, Any] = {
                "name": name,
                "terminated_at": ended_at,
                "terminated_by": user_name(instance.terminated_by),
                "terminate_reason": None,
                "terminate_result": {"details": []},
            }
            events.append({"type": "WorkflowTerminated", "details": details})
    if flags["history_order"] == "newest_first":
        events.reverse()
        index = None if index is None else len(events) - 1 - index
    named = {"instance_id": instance.id} if instance_id else {}
    if flags["history"] == "events_only":
        return {"history": events, **named}
    status = procore.status_of(instance)
    return {
        **named,
        "name": instance.template.name,
        "format": "diagram",
        "status": None if flags["history"] == "no_status" else _in_case(status, flags["status_case"]),
        "started_at": iso(instance.started_at),
        "ended_at": None if instance.ended_at is None else iso(instance.ended_at),
        "blocked_reason": instance.blocked_reason,
        "blocked_is_retriable": instance.blocked_is_retriable,
        "blocked_learn_more_url": None,
        "current_step_index": index,
        "history": events,
    }


def _in_case(status: str, case: str) -> str:
    return status.upper() if case == "upper" else status


def _occurrence_event(procore: Procore, instance: Instance, occurrence: Occurrence) -> dict[str, Any]:
    iso = procore.state.clock.iso
    step = occurrence.step
    step_id = occurrence.id if procore.state.flags["history_step_id"] == "occurrence" else step.uuid
    details: dict[str, Any] = {"id": step_id, "uuid": step.uuid, "name": step.name}
    if step.kind == "conditional":
        evaluated = {"evaluated_at": iso(occurrence.started_at), "description": "Evaluated to yes."}
        return {"type": "Conditional", "details": {**details, **evaluated}}
    details |= {
        "started_at": iso(occurrence.started_at),
        "ended_at": None if occurrence.ended_at is None else iso(occurrence.ended_at),
        "due_date": iso(occurrence.started_at + STEP_OVERDUE_AFTER_SECONDS),
        "status": step.status,
    }
    if step.kind == "end":
        return {"type": "EndStep", "details": {**details, "end_type": step.end_type}}
    if step.kind == "action":
        done = {"status": "complete", "icon": "Stamp", "description": "Done.", "is_continuable": False}
        return {"type": "Action", "details": {**details, **done, "events": [], "override": None}}
    return {"type": "ResponseStep", "details": {**details, **_response_step(procore, instance, occurrence)}}


def _response_step(procore: Procore, instance: Instance, occurrence: Occurrence) -> dict[str, Any]:
    step = occurrence.step
    flags = procore.state.flags
    are_shown = flags["hidden_events"] == "none"
    overall = {
        "overall_response": _label(procore, occurrence.outcome),
        "overall_response_type": occurrence.outcome.get("response_type"),
        "overall_response_description": None,
    }
    return {
        "decision_type": step.decision_type,
        "required_responders_decide": False,
        "responses": [_response(procore, occurrence, user_id) for user_id in occurrence.assignees] if are_shown else [],
        **(overall if flags["overall_response"] == "present" else {}),
        "available_response_options": step.wire_options if occurrence.ended_at is None else None,
        "events": [],
        "assignee_updates": [_update(procore, update) for update in occurrence.updates],
        "override": _override(procore, occurrence),
        "responsible_groups": [
            {
                "uuid": group.uuid,
                "name": group.name,
                "type": group.kind,
                "responses_required": required,
                "role_type": "responder",
                "login_ids": instance.groups[group.uuid],
            }
            for group, required in step.groups
        ],
        "additional_assignees": [
            _added(procore, user_id, assignment)
            for user_id, assignment in occurrence.assignees.items()
            if assignment.added_at is not None
        ],
        "individual_assignees": _individuals(occurrence),
        "notification_recipients": [],
    }


def _response(procore: Procore, occurrence: Occurrence, user_id: str) -> dict[str, Any]:
    response: StepResponse | None = occurrence.responses.get(user_id)
    assignment = occurrence.assignees[user_id]
    return {
        **user_name(user_id),
        "response_id": _response_id(procore, response, occurrence, user_id) if response else None,
        "response": _label(procore, response.option) if response else None,
        "response_type": response.option["response_type"] if response else None,
        "role_type": assignment.role_type,
        "required": assignment.required,
        "comment": response.comment if response else None,
        "responded_at": procore.state.clock.iso(response.at) if response else None,
        "attachments": response.attachments if response else [],
        "original_assignees": [user_name(update["old"]) for update in occurrence.updates if user_id in update["new"]],
    }


def _label(procore: Procore, option: Mapping[str, str]) -> str | None:
    label = option.get("name")
    if label is None or procore.state.flags["history_labels"] == "option":
        return label
    return f"{label}d" if label.endswith("e") else f"{label}ed"


def _response_id(procore: Procore, response: StepResponse, occurrence: Occurrence, user_id: str) -> str:
    is_option = procore.state.flags["history_response_id"] == "option"
    return response.option["id"] if is_option else f"{occurrence.id}{user_id}"


def _override(procore: Procore, occurrence: Occurrence) -> dict[str, Any] | None:
    if not occurrence.override:
        return None
    return {
        "overridden_at": procore.state.clock.iso(occurrence.override["at"]),
        "overridden_by": user_name(occurrence.override["by"]),
        "override_reason": occurrence.override["reason"],
        "overridden_assignees": [
            user_name(user_id) for user_id in occurrence.assignees if user_id not in occurrence.responses
        ],
        "attachments": [],
    }


def _update(procore: Procore, update: dict[str, Any]) -> dict[str, Any]:
    return {
        "updated_at": procore.state.clock.iso(update["at"]),
        "updated_by": user_name(update["by"]),
        "original_assignee": user_name(update["old"]),
        "new_assignees": [user_name(user_id) for user_id in update["new"]],
    }


def _added(procore: Procore, user_id: str, assignment: Assignment) -> dict[str, Any]:
    return {
        **user_name(user_id),
        "required": assignment.required,
        "role_type": assignment.role_type,
        "reason": assignment.reason,
        "comment": assignment.comment,
        "added_at": procore.state.clock.iso(assignment.added_at),
        "added_by": user_name(assignment.added_by) if assignment.added_by else None,
    }
