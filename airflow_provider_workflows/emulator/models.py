"""The forms of the answers; `/openapi.json` is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, StringConstraints


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Nothing(Model):
    pass


# --- Procore: signing in, who am I ---


class OAuthToken(Model):
    access_token: str
    token_type: str
    expires_in: int
    created_at: int


class OAuthTokenInfo(Model):
    resource_owner_id: int
    scopes: list[str]
    expires_in_seconds: int
    application: dict[str, str]
    created_at: int


class OAuthError(Model):
    error: str
    error_description: str


class Me(Model):
    """The name is there only when a company or project is asked for."""

    id: int
    login: str
    name: str | None = None


class Company(Model):
    id: int
    name: str
    is_active: bool


# --- Procore v2 ---


class CompanyName(Model):
    name: str


class UserRef(Model):
    id: str
    login: str
    name: str
    company: CompanyName


class Tool(Model):
    name: str
    type: str
    provider: str
    subtype: str | None


class ToolList(Model):
    data: list[Tool]


class VersionRef(Model):
    id: str
    version: str


class Template(Model):
    id: str
    name: str
    created_at: str
    updated_at: str
    archived_at: str | None
    assigned_projects_count: int
    tool_type: str
    tool_subtype: str | None
    format: str
    latest_published_version: VersionRef
    versions: list[VersionRef]


class TemplateList(Model):
    data: list[Template]


class StepGroup(Model):
    uuid: str
    responses_required: str


class TemplateStep(Model):
    uuid: str
    name: str
    type: str
    responsible_groups: list[StepGroup]


class DynamicStep(Model):
    uuid: str
    name: str
    type: str
    configuration: dict[str, Any]


class ResponsibleGroup(Model):
    uuid: str
    name: str
    type: str


class FlowSettings(Model):
    nodes: list[dict[str, Any]]
    edges: list[dict[str, Any]]


class TemplateVersion(VersionRef):
    created_at: str
    updated_at: str
    tool_type: str
    tool_subtype: str | None
    format: str
    steps: list[TemplateStep]
    dynamic_steps: list[DynamicStep]
    responsible_groups: list[ResponsibleGroup]
    flow_visualizer_settings: FlowSettings


class TemplateVersionAnswer(Model):
    data: TemplateVersion


class UserList(Model):
    data: list[UserRef]


class TemplateRef(Model):
    id: str
    last_published_version_id: str
    format: str


class NamedTemplateRef(TemplateRef):
    name: str


class PresetRow(Model):
    id: str
    valid: bool
    default: bool
    template: NamedTemplateRef


class PresetList(Model):
    data: list[PresetRow]


class UserName(Model):
    id: str
    name: str
    login: str


class PresetGroup(Model):
    responsible_group_uuid: str
    assignees: list[UserName]


class IndividualLogin(BaseModel):
    id: str
    required: bool
    role_type: Literal["responder", "commenter"] = "responder"


class IndividualAssignees(BaseModel):
    step_uuid: str
    logins: list[IndividualLogin]


class DistributionList(Model):
    id: str
    name: str


class Preset(Model):
    id: str
    valid: bool
    default: bool
    created_at: str
    updated_at: str
    template: TemplateRef
    workflow_manager: UserRef
    distribution_list: DistributionList | None
    responsible_group_memberships: list[PresetGroup]
    individual_assignees: list[IndividualAssignees]


class PresetAnswer(Model):
    data: Preset


class UpdatePreset(BaseModel):
    default: bool


class PresetMembership(BaseModel):
    uuid: str
    login_ids: list[str]


class PresetAssignees(BaseModel):
    workflow_manager_id: str | None = None
    responsible_group_memberships: list[PresetMembership] | None = None
    individual_assignees: list[IndividualAssignees] | None = None


class PresetAssigneesAnswer(Model):
    data: PresetAssignees


class InstanceRow(Model):
    id: str
    item_id: str
    tool_type: str
    tool_subtype: str | None
    created_at: str
    updated_at: str
    started_at: str
    ended_at: str | None
    created_by: UserRef | None = None


class NextCursor(Model):
    next_cursor: str | None


class NextLink(Model):
    next: str | None


class InstanceList(Model):
    data: list[InstanceRow]
    # One of these, by the flag cursor_place.
    meta: NextCursor | dict[str, Any] | None = None
    pagination: NextCursor | dict[str, Any] | None = None
    links: NextLink | None = None
    page_info: dict[str, Any] | None = None
    next_page_token: str | None = None
    has_more: bool | None = None


class Option(Model):
    id: str
    response_type: str
    name: str


class Assignee(UserRef):
    required: bool


class Attachment(Model):
    name: str
    url: str


class ResponseOccurrence(Model):
    submitted_at: str | None
    selected_response_option: Option | None
    comment: str | None
    attachments: list[Attachment]
    assignee: Assignee


class IndividualAssignee(UserName):
    required: bool
    role_type: str


class StepOccurrence(Model):
    id: str
    step_uuid: str
    name: str
    started_at: str
    overdue_at: str | None
    step_histories: list[dict[str, Any]]
    available_response_options: list[Option]
    individual_assignees: list[IndividualAssignee]
    notification_recipients: list[UserRef]
    response_occurrences: list[ResponseOccurrence]


class GroupMembership(PresetGroup):
    name: str


class Instance(Model):
    id: str
    tool_type: str
    tool_subtype: str | None
    item_id: str
    template_version_id: str
    created_at: str
    updated_at: str
    started_at: str
    ended_at: str | None
    current_step_occurrence: StepOccurrence | None
    workflow_manager: UserRef
    responsible_group_memberships: list[GroupMembership]
    all_assignees: list[UserRef]
    created_by: UserRef | None = None


class InstanceAnswer(Model):
    data: Instance


class StartInstance(BaseModel):
    tool_type: str
    item_id: str
    tool_subtype: str | None = None
    template_id: str | None = None
    preset_id: str | None = None


class Response(BaseModel):
    current_step_occurrence_id: str
    selected_response_option_id: str
    comment: str | None = None
    attachments: dict[str, list[str]]


class Respond(BaseModel):
    response: Response


class RestartInstance(BaseModel):
    restart_mode: Literal["defaults", "current_configuration"] | None = None


class AddAssignees(BaseModel):
    step_occurrence_id: str
    required: bool
    role_type: Literal["responder", "commenter"] = "responder"
    reason: Literal[
        "new_employee",
        "original_assignee_left_company",
        "original_assignee_left_the_project",
        "original_assignee_on_extended_leave",
        "original_assignee_on_vacation",
        "other",
    ]
    comment: str | None = None
    message: str | None = None
    assignee_ids: list[str]


class HistoryEvent(Model):
    type: str
    details: dict[str, Any]


class History(Model):
    """Everything but the events is missing in the older form of the API."""

    history: list[HistoryEvent]
    name: str | None = None
    format: str | None = None
    status: str | None = None
    started_at: str | None = None
    ended_at: str | None = None
    blocked_reason: str | None = None
    blocked_is_retriable: bool | None = None
    blocked_learn_more_url: str | None = None
    current_step_index: int | None = None
    instance_id: str | None = None


class HistoryAnswer(Model):
    data: History


class HistoryList(Model):
    data: list[History]


class BulkHistory(BaseModel):
    tool_type: str
    item_ids: list[str]
    filters: dict[str, list[str]] | None = None


class ItemHistories(Model):
    item_id: str
    instances: list[History]


class BulkHistoryAnswer(Model):
    data: list[ItemHistories]


class ErrorDetail(Model):
    reason_code: str
    message: str
    source: str | None


class ErrorBody(Model):
    code: str
    message: str
    details: list[ErrorDetail]


class Error(Model):
    error: ErrorBody


# --- Procore v2: operations and uploads ---


class BulkCreateItem(BaseModel):
    item_id: str
    preset_id: str | None = None


class BulkCreate(BaseModel):
    tool_type: str
    tool_subtype: str | None = None
    items: list[BulkCreateItem]


class OperationRef(Model):
    operation_id: str
    operation_type: str


class OperationAccepted(Model):
    data: OperationRef


class OperationError(Model):
    message: str


class Operation(Model):
    id: str
    operation_type: str
    status: str
    started_at: str | None
    completed_at: str | None
    result: dict[str, Any] | None
    error: OperationError | None
    context: dict[str, Any] | None
    created_by_id: str
    parent_id: str | None
    sub_operations: list[dict[str, Any]]


class OperationAnswer(Model):
    data: Operation


class ReplaceTool(BaseModel):
    type: str
    sub_type: str | None = None


Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]


class BulkReplace(BaseModel):
    replacement_type: Literal["temporary", "permanent"]
    old_assignee_id: str
    new_assignee_ids: list[str]
    modify_project_roles: bool
    reason: str
    new_workflow_manager_id: str | None = None
    start_date: Day | None = None
    end_date: Day | None = None
    project_ids: list[str] | None = None
    tools: list[ReplaceTool] | None = None


class BulkReplaceRef(Model):
    bulk_replace_request_id: str
    operation_id: str


class BulkReplaceAccepted(Model):
    data: BulkReplaceRef


class BulkReplaceRow(Model):
    """No document shows one; this is what was sent, with the names of the users."""

    id: str
    status: str
    replacement_type: str | None = None
    old_assignee: UserRef | None = None
    new_assignees: list[UserRef] | None = None
    old_assignee_id: str | None = None
    new_assignee_ids: list[str] | None = None
    new_workflow_manager: UserRef | None = None
    modify_project_roles: bool | None = None
    reason: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    project_ids: list[str] | None = None
    tools: list[ReplaceTool] | None = None
    created_at: str | None = None
    updated_at: str | None = None
    updated_by: UserRef | None = None


class BulkReplaceList(Model):
    data: list[BulkReplaceRow]


class BulkReplaceAnswer(Model):
    data: BulkReplaceRow


class Segment(BaseModel):
    size: NonNegativeInt
    sha256: str


class CreateUpload(BaseModel):
    file_name: str
    file_size: NonNegativeInt
    content_type: str | None = None
    segments: list[Segment]


class FinishUpload(BaseModel):
    part_etags: list[str]


class SegmentTarget(Model):
    url: str
    headers: dict[str, str]
    url_expires_at: str | None = None


class Upload(Model):
    """The segments are where its parts go; when it is read, at most those that are not stored."""

    upload_id: str
    file_name: str
    status: str
    segments: list[SegmentTarget] | None = None


class UploadAnswer(Model):
    data: Upload


class LegacySegment(BaseModel):
    size: NonNegativeInt
    sha256: str | None = None


class CreateLegacyUpload(BaseModel):
    response_filename: str
    response_content_type: str | None = None
    segments: list[LegacySegment] | None = None


class SegmentTag(BaseModel):
    etag: str


class FinishLegacyUpload(BaseModel):
    segments: list[SegmentTag]


class LegacyUpload(Model):
    """A file goes to one URL with the fields, or to the URLs of its segments."""

    uuid: str
    url: str | None = None
    fields: dict[str, str] | None = None
    segments: list[SegmentTarget] | None = None


# --- Procore v1 ---


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


class HolderName(Model):
    name: str


class LegacyState(Model):
    id: int
    name: str
    status: str
    ball_in_court: list[HolderName]


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
    """The fields with a default are missing in the guide's samples."""

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
    """What is wrong with which filter."""

    workflowed_object_type: str | None = None
    workflowed_object_id: str | None = None


class CompanyUser(Model):
    """Somebody in the directory of a company; the real ones have some forty fields more."""

    id: int
    login: str
    email_address: str
    name: str
    is_active: bool
    login_information_id: int | None = None


class LegacyError(Model):
    """v1 errors come as `errors`, as `error`, or as `message` with a `code`."""

    errors: Any = None
    error: Any = None
    message: str | None = None
    code: int | None = None


# --- Workflowsoft ---


def camel(name: str) -> str:
    return name[:1].lower() + name[1:]


def pascal(name: str) -> str:
    return name[:1].upper() + name[1:]


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=camel)


class Pascal(BaseModel):
    model_config = ConfigDict(alias_generator=pascal)


class IdTitle(Model):
    Id: int | str
    Title: str


class CamelIdTitle(IdTitle, Camel):
    pass


class IntegrationInstance(Model):
    IntegrationInstanceId: int | str
    ProcessInstanceId: int | str


class CamelIntegrationInstance(IntegrationInstance, Camel):
    pass


NewIntegrations = (
    IntegrationInstance
    | CamelIntegrationInstance
    | list[IntegrationInstance]
    | list[CamelIntegrationInstance]
    | Nothing
    | None
)


class ApiToken(Model):
    access_token: str
    expires_in: int


class WsField(Model):
    label: str
    type: str
    key: str
    options: list[str] | list[dict[str, int | str]] | dict[str, str] | None
    valueJson: Any = None  # not always a text
    isReadonly: bool
    isRequired: bool


class PascalWsField(WsField, Pascal):
    pass


class WriteFields(BaseModel):
    TaskId: int | str
    Fields: dict[str, Any]


class TaskAction(BaseModel):
    Action: str
    CustomAction: str


class WsUser(Model):
    Id: int | str
    FullName: str
    Email: str


class CamelWsUser(WsUser, Camel):
    pass


class StartProcess(BaseModel):
    TemplateId: int | str
    Fields: dict[str, Any] = {}


class CreateTask(BaseModel):
    Title: str
    AssignedUserId: int | str | None = None
    Description: str | None = None
    Files: Any = None


class WsTask(Model):
    Id: int | str
    Title: str
    Description: str | None


class CamelWsTask(WsTask, Camel):
    pass


class WsDone(Model):
    """What a change may be answered with, done or not."""

    Success: bool
    Message: str | None = None
    TaskId: int | str | None = None
    Id: int | str | None = None


class CamelWsDone(WsDone, Camel):
    pass


class WsError(Model):
    Message: str
    ExceptionMessage: str | None = None
    ExceptionType: str | None = None


class CamelWsError(WsError, Camel):
    pass
