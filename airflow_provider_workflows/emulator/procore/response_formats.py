"""The forms in which Procore Workflows v2 shows an instance and its history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .common import user_name, user_ref
from .instances import STEP_TIME, Answer, Asked, Instance, Occurrence, Procore


def _updated_at(procore: Procore, instance: Instance) -> float:
    if procore.world.flags["updated_at"] == "start_only":
        return instance.started_at if instance.ended_at is None else instance.ended_at
    return instance.updated_at


def row(procore: Procore, instance: Instance) -> dict[str, Any]:
    iso = procore.world.clock.iso
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
        **(creator if procore.world.flags["created_by"] == "present" else {}),
    }


def show(procore: Procore, instance: Instance) -> dict[str, Any]:
    everyone = [user_id for members in instance.groups.values() for user_id in members]
    if instance.current is not None:
        everyone += instance.current.assignees
    groups = instance.template.groups
    current = instance.current
    if procore.world.flags["transition"] == "in_between" and instance.id in procore.moving:
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
    iso = procore.world.clock.iso
    return {
        "id": occurrence.id,
        "step_uuid": occurrence.step.uuid,
        "name": occurrence.step.name,
        "started_at": iso(occurrence.started_at),
        "overdue_at": iso(occurrence.started_at + STEP_TIME),
        "step_histories": [],
        "available_response_options": occurrence.step.wire_options,
        "individual_assignees": _individuals(occurrence),
        "notification_recipients": [],
        "response_occurrences": [
            {
                "submitted_at": iso(answer.at) if answer else None,
                "selected_response_option": answer.option if answer else None,
                "comment": answer.comment if answer else None,
                "attachments": [{"name": a["name"], "url": a["url"]} for a in answer.attachments] if answer else [],
                "assignee": {**user_ref(user_id), "required": asked.required},
            }
            for user_id, asked in occurrence.assignees.items()
            for answer in [occurrence.answers.get(user_id)]
        ],
    }


def _individuals(occurrence: Occurrence) -> list[dict[str, Any]]:
    return [
        {**user_name(user_id), "required": asked.required, "role_type": asked.role_type}
        for user_id, asked in occurrence.assignees.items()
        if asked.group is None
    ]


def history(procore: Procore, instance: Instance, *, instance_id: bool = False) -> dict[str, Any]:
    iso = procore.world.clock.iso
    events: list[dict[str, Any]] = [{"type": "WorkflowStarted", "details": {"started_at": iso(instance.started_at)}}]
    flags = procore.world.flags
    events += [_visit_event(procore, instance, visit) for visit in instance.visits]
    if flags["hidden_events"] == "response_steps":
        events = [event for event in events if event["type"] != "ResponseStep"]
    index = len(events) - 1 if instance.current is not None else None
    if instance.terminated_by is not None and instance.ended_at is not None:
        events.append(
            {
                "type": "WorkflowTerminated",
                "details": {
                    "name": instance.template.name,
                    "terminated_at": iso(instance.ended_at),
                    "terminated_by": user_name(instance.terminated_by),
                    "terminate_reason": None,
                    "terminate_result": {"details": []},
                },
            }
        )
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


def _visit_event(procore: Procore, instance: Instance, visit: Occurrence) -> dict[str, Any]:
    iso = procore.world.clock.iso
    step = visit.step
    step_id = visit.id if procore.world.flags["history_step_id"] == "occurrence" else step.uuid
    details: dict[str, Any] = {"id": step_id, "uuid": step.uuid, "name": step.name}
    if step.kind == "conditional":
        evaluated = {"evaluated_at": iso(visit.started_at), "description": "Evaluated to yes."}
        return {"type": "Conditional", "details": {**details, **evaluated}}
    details |= {
        "started_at": iso(visit.started_at),
        "ended_at": None if visit.ended_at is None else iso(visit.ended_at),
        "due_date": iso(visit.started_at + STEP_TIME),
        "status": step.status,
    }
    if step.kind == "end":
        return {"type": "EndStep", "details": {**details, "end_type": step.end_type}}
    if step.kind == "action":
        done = {"status": "complete", "icon": "Stamp", "description": "Done.", "is_continuable": False}
        return {"type": "Action", "details": {**details, **done, "events": [], "override": None}}
    return {"type": "ResponseStep", "details": {**details, **_response_step(procore, instance, visit)}}


def _response_step(procore: Procore, instance: Instance, visit: Occurrence) -> dict[str, Any]:
    step = visit.step
    flags = procore.world.flags
    are_shown = flags["hidden_events"] == "none"
    overall = {
        "overall_response": _label(procore, visit.outcome),
        "overall_response_type": visit.outcome.get("response_type"),
        "overall_response_description": None,
    }
    return {
        "decision_type": step.decision_type,
        "required_responders_decide": False,
        "responses": [_response(procore, visit, user_id) for user_id in visit.assignees] if are_shown else [],
        **(overall if flags["overall_response"] == "present" else {}),
        "available_response_options": step.wire_options if visit.ended_at is None else None,
        "events": [],
        "assignee_updates": [_update(procore, update) for update in visit.updates],
        "override": _override(procore, visit),
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
            _added(procore, user_id, asked) for user_id, asked in visit.assignees.items() if asked.added_at is not None
        ],
        "individual_assignees": _individuals(visit),
        "notification_recipients": [],
    }


def _response(procore: Procore, visit: Occurrence, user_id: str) -> dict[str, Any]:
    answer: Answer | None = visit.answers.get(user_id)
    asked = visit.assignees[user_id]
    return {
        **user_name(user_id),
        "response_id": _response_id(procore, answer, visit, user_id) if answer else None,
        "response": _label(procore, answer.option) if answer else None,
        "response_type": answer.option["response_type"] if answer else None,
        "role_type": asked.role_type,
        "required": asked.required,
        "comment": answer.comment if answer else None,
        "responded_at": procore.world.clock.iso(answer.at) if answer else None,
        "attachments": answer.attachments if answer else [],
        "original_assignees": [user_name(update["old"]) for update in visit.updates if user_id in update["new"]],
    }


def _label(procore: Procore, option: Mapping[str, str]) -> str | None:
    label = option.get("name")
    if label is None or procore.world.flags["history_labels"] == "option":
        return label
    return f"{label}d" if label.endswith("e") else f"{label}ed"


def _response_id(procore: Procore, answer: Answer, visit: Occurrence, user_id: str) -> str:
    is_option = procore.world.flags["history_response_id"] == "option"
    return answer.option["id"] if is_option else f"{visit.id}{user_id}"


def _override(procore: Procore, visit: Occurrence) -> dict[str, Any] | None:
    if not visit.override:
        return None
    return {
        "overridden_at": procore.world.clock.iso(visit.override["at"]),
        "overridden_by": user_name(visit.override["by"]),
        "override_reason": visit.override["reason"],
        "overridden_assignees": [user_name(user_id) for user_id in visit.assignees if user_id not in visit.answers],
        "attachments": [],
    }


def _update(procore: Procore, update: dict[str, Any]) -> dict[str, Any]:
    return {
        "updated_at": procore.world.clock.iso(update["at"]),
        "updated_by": user_name(update["by"]),
        "original_assignee": user_name(update["old"]),
        "new_assignees": [user_name(user_id) for user_id in update["new"]],
    }


def _added(procore: Procore, user_id: str, asked: Asked) -> dict[str, Any]:
    return {
        **user_name(user_id),
        "required": asked.required,
        "role_type": asked.role_type,
        "reason": asked.reason,
        "comment": asked.comment,
        "added_at": procore.world.clock.iso(asked.added_at),
        "added_by": user_name(asked.added_by) if asked.added_by else None,
    }
