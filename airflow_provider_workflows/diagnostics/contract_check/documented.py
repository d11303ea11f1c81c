"""The names and words that the vendors' documents have: of members, types, statuses and headers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MEMBERS = _words(
    """
    id ids uuid name login company data type provider subtype tool_type tool_subtype item_id item_ids created_at
    updated_at started_at ended_at archived_at created_by template_version_id current_step_occurrence step_uuid
    overdue_at step_histories title subtitle icon details fields label value description available_response_options
    response_type individual_assignees required role_type notification_recipients response_occurrences submitted_at
    selected_response_option comment attachments url assignee workflow_manager responsible_group_memberships
    responsible_group_uuid assignees all_assignees format status blocked_reason blocked_is_retriable
    blocked_learn_more_url current_step_index history terminated_at terminated_by terminate_reason terminate_result
    items text due_date decision_type required_responders_decide responses response_id response responded_at
    original_assignees overall_response overall_response_type overall_response_description events assignee_updates
    override overridden_at overridden_by override_reason overridden_assignees responsible_groups responses_required
    login_ids additional_assignees end_type is_continuable evaluated_at instance_id instances updated_by
    original_assignee new_assignees reason added_at added_by valid default template templates latest_published_version
    last_published_version_id versions version assigned_projects_count steps dynamic_steps configuration
    flow_visualizer_settings nodes edges source target logins distribution_list operation_id operation_type
    completed_at error errors message code reason_code result context created_by_id parent_id sub_operations
    completed_items failed_items step replacement_type old_assignee old_assignee_id new_assignee_ids
    new_workflow_manager new_workflow_manager_id modify_project_roles start_date end_date project_ids tools sub_type
    access_token token_type expires_in refresh_token scope
    becomes_overdue_at current_state_set_at workflowed_object_id workflowed_object_type project
    current_workflow_activities workflow_user_role perform_activity method workflow_activity_history
    workflow_activity_id workflow_instance_id workflow_user_role_id current_workflow_state ball_in_court workflow
    class_name friendly_name domain permissions can_view can_respond can_act_on_behalf_of can_terminate can_restart
    file_attachments filename assigned_to_id assigned_to_name bic_duration bic_start bic_end comments performed_by_id
    performed_by_name workflow_activity_name workflow_user_role_name workflow_state_id workflow_state_name activity
    ball_in_court_duration performed_by user_role is_active login_information_id email_address avatar initials
    Id Title FullName Email key options valueJson isReadonly isRequired Value Name Message ExceptionMessage
    ExceptionType IntegrationInstanceId ProcessInstanceId Success
    meta pagination links next next_cursor cursor cursors after page_info end_cursor has_next_page has_more
    total_pages next_page_token total per_page page
    """
)
# Members that are objects of the customer's own: what is in them is not documented.
OPEN_MEMBERS = frozenset({"configuration", "context", "flow_visualizer_settings"})
EVENT_TYPES = frozenset({"WorkflowStarted", "WorkflowTerminated", "ResponseStep", "EndStep", "Action", "Conditional"})
HISTORY_STATUSES = frozenset({"blocked", "overdue", "warning", "in_progress", "complete", "processing", "terminated"})
REPLACEMENT_STATUSES = frozenset({"active", "completed", "expired", "failed", "processing", "stopped", "upcoming"})
FIELD_TYPES = _words("String Boolean DateTime Decimal Int16 Int32 Int64 Double Single Guid Date")
NUMBER_TYPES = _words("Decimal Double Single Int16 Int32 Int64")
# Words that a report may show: they are of the API, not of the customer.
WORDS = frozenset(word.lower() for word in (*EVENT_TYPES, *HISTORY_STATUSES, *REPLACEMENT_STATUSES)) | _words(
    """
    approve return reject success failure first all one responder commenter project company diagram linear standard
    workflow item_creator responsible_role project_role permanent temporary bearer post get true false null
    invalid_client not_found forbidden invalid_parameter missing_parameter unauthorized purchase_order_contract
    purchase_order correspondence generic_tool_item drawing
    """
)
HEADERS = _words(
    """
    content-type date link total per-page retry-after x-rate-limit-limit x-rate-limit-remaining x-rate-limit-reset
    x-next-page x-next-cursor x-total-pages x-has-more location x-total x-page x-per-page x-complexity-score
    """
)
CONTENT_TYPES = frozenset({"application/json", "text/html", "text/plain", "text/csv"})
VOCABULARY = frozenset(
    word for name in (*MEMBERS, *HEADERS) for word in re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", name).lower())
)


def is_technical(name: str) -> bool:
    """Return whether a member's name consists of the words of documented names, so that it can be no customer's."""
    words = re.findall(r"[a-z]+", re.sub(r"([A-Z])", r"_\1", name).lower())
    return name in MEMBERS or (bool(words) and re.search(r"\d|[^\w-]", name) is None and VOCABULARY.issuperset(words))


def unknown_members(value: Any) -> Iterator[str]:
    """Yield the names of members that the documents lack, of an object and of all objects in it."""
    if isinstance(value, list):
        for item in value:
            yield from unknown_members(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in MEMBERS:
                yield name
            elif name not in OPEN_MEMBERS:
                yield from unknown_members(item)
