"""The responses of Procore Legacy Workflows v1: instances, activity histories and permanent logs as JSON."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from ..state import COMPANY, INTEGRATION_USER, PROJECTS, USERS, User
from .instances import Instance, Performed, ProcoreLegacy, pending_activities, pending_assignees
from .workflows import DRAFT, ROLES

OVERDUE_AFTER_SECONDS = 5 * 24 * 3600  # in one state


def show(legacy: ProcoreLegacy, instance: Instance, base_url: str, *, is_listed: bool = False) -> dict[str, Any]:
    iso, flags = legacy.state.clock.iso, legacy.state.flags
    tool, project = instance.workflow.tool, PROJECTS[instance.project_id]
    left_behind = "unchanged" if instance.upgraded_at is None else flags["legacy_left_behind"]
    is_draft = instance.upgraded_at is not None and left_behind == "draft"
    state, state_set_at = (DRAFT, instance.upgraded_at) if is_draft else (instance.state, instance.state_set_at)
    activities = legacy.listed_activities(instance) if left_behind == "unchanged" else []
    pending = pending_assignees(pending_activities(instance)) if left_behind == "unchanged" else []
    own_status = f"Order: {state.status}" if flags["legacy_status"] == "object" else None
    terminated_at = instance.upgraded_at if left_behind == "terminated" else instance.terminated_at
    by = USERS.get(instance.terminated_by or "")
    return {
        "id": instance.id,
        "becomes_overdue_at": iso(instance.state_set_at + OVERDUE_AFTER_SECONDS) if activities else None,
        "current_state_set_at": None if flags["legacy_state_set_at"] == "null" else iso(state_set_at),
        "workflowed_object_id": instance.object_id,
        "workflowed_object_type": tool.class_name if flags["legacy_object_type"] == "class" else tool.base_class,
        "project": {"id": int(project["id"]), "name": project["name"]},
        "current_workflow_activities": [
            {
                "id": activity.id,
                "name": activity.name,
                "workflow_user_role": _role(role),
                "perform_activity": {
                    "url": f"{base_url}/rest/v1.0/workflow_activity_histories",
                    "method": "POST",
                    "data": {
                        "workflow_activity_history": {
                            "workflow_activity_id": activity.id,
                            "workflow_instance_id": instance.id,
                            "workflow_user_role_id": role,
                        }
                    },
                },
            }
            for activity, role in activities
        ],
        "current_workflow_state": {
            "id": state.id,
            "name": state.name,
            "status": state.status if is_listed else own_status or state.status,
            "ball_in_court": [{"name": USERS[user_id].name} for user_id in pending],
        },
        "workflow": {
            "id": instance.workflow.id,
            "name": instance.workflow.name,
            "description": instance.workflow.description,
            "class_name": tool.class_name,
            "friendly_name": tool.friendly_name,
            "created_at": "2018-02-08T23:16:18Z",
            "updated_at": "2018-02-08T23:59:20Z",
            "domain": tool.domain,
        },
        "terminated_at": None if terminated_at is None else iso(terminated_at),
        "terminated_by": None if by is None else {"id": int(by.id), "login": by.login, "name": by.name},
        "permissions": {
            "can_view": True,
            "can_respond": any(INTEGRATION_USER in ROLES[role][1] for _, role in activities),
            "can_act_on_behalf_of": False,
            "can_terminate": False,
            "can_restart": False,
        },
    }


def _role(role: int) -> dict[str, Any]:
    name, members = ROLES[role]
    user = USERS[members[0]]
    return {
        "id": role,
        "name": name,
        "assignee": {"id": int(user.id), "name": f"{user.name} ({COMPANY['name']})"},
    }


def history(legacy: ProcoreLegacy, row: Performed) -> dict[str, Any]:
    iso = legacy.state.clock.iso
    bare = {
        "id": row.id,
        "attachments": [_stored_at(name) for name in row.attachments.shown],
        "bic_start": iso(row.state_set_at),
        "bic_end": iso(row.at),
        "comments": row.comments,
        "created_at": iso(row.at),
        "updated_at": iso(row.at),
        "performed_by_id": int(row.performed_by),
        "workflow_activity_id": row.activity.id,
        "workflow_instance_id": row.instance_id,
        "workflow_user_role_id": row.role,
    }
    if legacy.state.flags["history_names"] == "without":
        return bare
    user = USERS.get(row.performed_by)
    role_name, members = ROLES[row.role]
    return {
        **bare,
        "file_attachments": [
            {"id": n, "name": name, "url": _stored_at(name)} for n, name in enumerate(row.attachments.shown, start=1)
        ],
        "assigned_to_id": int(members[0]),
        "assigned_to_name": USERS[members[0]].name,
        "bic_duration": _duration(row),
        "performed_by_name": _name_of(user),
        "workflow_activity_name": row.activity.name,
        "workflow_user_role_name": role_name,
        "workflow_state_id": row.state.id,
        "workflow_state_name": row.state.name,
    }


def _name_of(user: User | None) -> str:
    return user.name if user else "Another User"


def permanent_log(legacy: ProcoreLegacy, row: Performed) -> dict[str, Any]:
    user = USERS.get(row.performed_by)
    return {
        "id": row.id,
        "activity": row.activity.name,
        "attachments": [
            {"id": n, "name": name, "url": _stored_at(name), "filename": name}
            for n, name in enumerate(row.attachments.shown, start=1)
        ],
        "ball_in_court_duration": _duration(row),
        "comments": row.comments,
        "created_at": legacy.state.clock.iso(row.at),
        "performed_by": _name_of(user),
        "user_role": ROLES[row.role][0],
    }


def termination_log(legacy: ProcoreLegacy, instance: Instance) -> dict[str, Any]:
    user = USERS.get(instance.terminated_by or "")
    return {
        "id": instance.id,
        "activity": "Terminated",
        "attachments": [],
        "ball_in_court_duration": "0 days",
        "comments": None,
        "created_at": legacy.state.clock.iso(instance.terminated_at),
        "performed_by": _name_of(user),
        "user_role": "",
    }


def _duration(row: Performed) -> str:
    return f"{int((row.at - row.state_set_at) // 86400)} days"


def _stored_at(name: str) -> str:
    return f"https://storage.example.com/{quote(name)}"
