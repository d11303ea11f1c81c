"""The requests and responses of Procore Workflows v2, of its uploads, and of Procore's sign-in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, NonNegativeInt, StringConstraints

from ..schemas import Model

# --- sign-in, current user, directory, errors of the gateway ---


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
    """Describe the current user. The name is present only if the request names a company or project."""

    id: int
    login: str
    name: str | None = None


class Company(Model):
    id: int
    name: str
    is_active: bool


class CompanyUser(Model):
    """Describe a user in the directory of a company. Real servers return some forty more fields."""

    id: int
    login: str
    email_address: str
    name: str
    is_active: bool
    login_information_id: int | None = None


class GatewayError(Model):
    """Describe errors of v1 and of the gateway: `errors`, `error`, or `message` with a `code`."""

    errors: Any = None
    error: Any = None
    message: str | None = None
    code: int | None = None


# --- Workflows v2 ---


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


class TemplateVersionResponse(Model):
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


class PresetResponse(Model):
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


class PresetAssigneesResponse(Model):
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
    # The flag cursor_place chooses one of these.
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


class InstanceResponse(Model):
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
    """Describe a history. Older versions of the API return only the events."""

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


class HistoryResponse(Model):
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


class BulkHistoryResponse(Model):
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


# --- asynchronous operations and uploads ---


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


class OperationResponse(Model):
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
    """Describe a bulk replacement. No document shows a row, so it repeats the request with the names of the users."""

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


class BulkReplaceResponse(Model):
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
    """Describe an upload and the address of each part. A read lists only the parts that are missing, if any."""

    upload_id: str
    file_name: str
    status: str
    segments: list[SegmentTarget] | None = None


class UploadResponse(Model):
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
    """Describe an upload: one URL with form fields for the whole file, or a URL for each segment."""

    uuid: str
    url: str | None = None
    fields: dict[str, str] | None = None
    segments: list[SegmentTarget] | None = None
