"""The requests and responses of Procore Legacy Workflows v1."""

from __future__ import annotations

from ..schemas import Model


class NamedId(Model):
    id: int
    name: str


class UserRole(Model):
    id: int
    name: str
    assignee: NamedId | None


class PerformActivity(Model):
    url: str
    method: str
    data: dict[str, dict[str, int]]


class LegacyActivity(Model):
    id: int
    name: str
    workflow_user_role: UserRole
    perform_activity: PerformActivity


class BallInCourtName(Model):
    name: str


class LegacyState(Model):
    id: int
    name: str
    status: str
    ball_in_court: list[BallInCourtName]


class LegacyWorkflow(Model):
    id: int
    name: str
    description: str
    class_name: str
    friendly_name: str
    created_at: str
    updated_at: str
    domain: str


class LegacyUser(Model):
    id: int
    login: str
    name: str


class LegacyInstance(Model):
    id: int
    becomes_overdue_at: str | None
    current_state_set_at: str | None
    workflowed_object_id: int
    workflowed_object_type: str
    project: NamedId
    current_workflow_activities: list[LegacyActivity]
    current_workflow_state: LegacyState
    workflow: LegacyWorkflow
    terminated_at: str | None
    terminated_by: LegacyUser | None
    permissions: dict[str, bool]


class FileAttachment(Model):
    id: int
    name: str
    url: str


class LegacyHistory(Model):
    """Fields with a default are missing in the samples of the guide."""

    id: int
    attachments: list[str]
    bic_start: str
    bic_end: str
    comments: str | None
    created_at: str
    updated_at: str
    performed_by_id: int
    workflow_activity_id: int
    workflow_instance_id: int
    workflow_user_role_id: int
    file_attachments: list[FileAttachment] | None = None
    assigned_to_id: int | None = None
    assigned_to_name: str | None = None
    bic_duration: str | None = None
    performed_by_name: str | None = None
    workflow_activity_name: str | None = None
    workflow_user_role_name: str | None = None
    workflow_state_id: int | None = None
    workflow_state_name: str | None = None


class LogAttachment(FileAttachment):
    filename: str


class PermanentLog(Model):
    id: int
    activity: str
    attachments: list[LogAttachment]
    ball_in_court_duration: str
    comments: str | None
    created_at: str
    performed_by: str
    user_role: str


class PermanentLogError(Model):
    """Describe what is wrong with each filter."""

    workflowed_object_type: str | None = None
    workflowed_object_id: str | None = None
