"""The behaviour flags: one for each question that the vendors' documentation leaves open, with the plausible sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BehaviourFlag:
    """
    Offer the plausible sides of a question that the vendors' documentation leaves open.

    :param values: The allowed values, the default first. A single number allows any number from 0 on.
    :param why: What is not documented.
    """

    values: tuple[Any, ...]
    why: str

    @property
    def takes_number(self) -> bool:
        return len(self.values) == 1

    @property
    def allowed(self) -> str:
        return f"a number (default {self.values[0]:g})" if self.takes_number else ", ".join(self.values)

    def allows(self, value: Any) -> bool:
        if self.takes_number:
            return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0
        return str(value) in self.values  # JSON may name a status as a number


BEHAVIOUR_FLAGS: dict[str, BehaviourFlag] = {
    "cursor_place": BehaviourFlag(
        (
            "body_meta_next_cursor",
            "link_header",
            "link_other_host",
            "body_pagination_next_cursor",
            "body_links_next",
            "body_next_page_token",
            "body_pagination_cursor",
            "body_page_info_end_cursor",
            "body_meta_cursors_after",
            "header_next_cursor",
            "body_has_more",
            "body_total_pages",
        ),
        "Where the list of v2 instances returns the next cursor is not documented. The last two return no cursor.",
    ),
    "page_headers": BehaviourFlag(
        ("documented", "next_page", "total_pages", "has_more", "none"),
        "Which headers of a numbered page lead to the other pages.",
    ),
    "list_total": BehaviourFlag(
        ("shown_rows", "hidden_rows_too"),
        "Whether the header `Total` of a list counts a row that is hidden from the user.",
    ),
    "second_project": BehaviourFlag(
        ("visible", "403", "404"),
        "Response to any call in project 1002: the user may see the project, or may not (or no longer).",
    ),
    "page_limit": BehaviourFlag(
        ("documented", "50", "lowered"),
        "The maximum page size, 100 rows in v2 and 2000 in v1, is documented for most lists only. Where it is 50, a "
        "larger one is rejected, or lowered to 50.",
    ),
    "instances_paging": BehaviourFlag(
        ("cursor_and_page", "page_only", "cursor_only"),
        "Older versions of the documentation describe only cursors, newer ones also page numbers.",
    ),
    "stale_step": BehaviourFlag(("422", "404"), "Status that rejects a response to a step that is over."),
    "non_assignee": BehaviourFlag(
        ("403", "422"), "Status that rejects a response of a user who is not an assignee of the step."
    ),
    "ended_instance": BehaviourFlag(
        ("422", "404", "403"), "Status that rejects a response to an instance that has ended."
    ),
    "respond_status": BehaviourFlag(
        ("204", "200", "200_error"),
        "What responding returns, documented as 204: 200 with the instance, or 200 with an error and nothing recorded.",
    ),
    "active_instance": BehaviourFlag(
        ("400", "409", "422", "existing"),
        "Response to starting an instance for an item with an active one; `existing` returns the active instance.",
    ),
    "transition": BehaviourFlag(
        ("at_once", "delayed", "in_between"),
        "Whether a step moves before or after the 204 of a response. `in_between` shows no current step meanwhile.",
    ),
    "transition_delay": BehaviourFlag((2.0,), "Duration of a delayed transition in seconds."),
    "transition_time": BehaviourFlag(
        ("when_it_moves", "when_decided"),
        "Which time is recorded for a delayed transition; with `when_decided` an end shows late.",
    ),
    "step_gap": BehaviourFlag(
        (0.0,), "Seconds without a current step between two steps. Whether that happens is not documented."
    ),
    "active_default": BehaviourFlag(
        ("all", "active_only"), "Which instances the list returns without `filters[active]`."
    ),
    "assignee_filter": BehaviourFlag(
        ("all_assignees", "pending_only"),
        "Whether `filters[assignee_id]` finds assignees who have responded to a step that waits for others.",
    ),
    "tools_list": BehaviourFlag(("allowed", "forbidden"), "Whether every user may list the tools."),
    "history": BehaviourFlag(
        ("full", "events_only", "no_status", "absent"),
        "The v2 history of April 2026 contains events only. In newer versions its status may be null.",
    ),
    "history_order": BehaviourFlag(
        ("oldest_first", "newest_first"), "In which order a v2 history lists its events is not documented."
    ),
    "overall_response": BehaviourFlag(
        ("present", "absent"),
        "Whether a step in the history has an overall response in addition to the single responses.",
    ),
    "hidden_events": BehaviourFlag(
        ("none", "responses", "response_steps"),
        "What the user's granular permissions hide from a history: nothing, the single responses, or the steps.",
    ),
    "added_commenter": BehaviourFlag(
        ("stays_commenter", "becomes_responder"),
        "What a commenter of a step is after an addition as a responder is not documented.",
    ),
    "termination_event": BehaviourFlag(
        ("terminated", "end_step", "both"),
        "What a history shows of a termination: a WorkflowTerminated, an EndStep, or both. The values of an EndStep's "
        "`end_type` other than `success` are not documented.",
    ),
    "status_case": BehaviourFlag(
        ("lower", "upper"), "Whether the status of a history is in lower or upper case is not documented."
    ),
    "history_labels": BehaviourFlag(
        ("option", "status"),
        "A sample shows the response `Approved`. Whether that is the label of the option is not documented.",
    ),
    "history_step_id": BehaviourFlag(
        ("occurrence", "step"), "Whether the id of a step in the history is the id of the step occurrence."
    ),
    "history_response_id": BehaviourFlag(
        ("option", "response"), "What `response_id` in a history identifies is not documented."
    ),
    "created_by": BehaviourFlag(
        ("present", "absent"), "Older versions of the API do not return the creator of an instance."
    ),
    "filters": BehaviourFlag(("honoured", "ignored"), "A server that does not know a filter of a list may ignore it."),
    "item_history": BehaviourFlag(
        ("present", "absent"), "Only the newest version of the documentation has the history of an item."
    ),
    "bulk_history": BehaviourFlag(
        ("present", "absent", "not_allowed", "no_instance_ids"),
        "Older servers have no bulk history (404 or 405). Whether it names the instances is not documented.",
    ),
    "bulk_history_limit": BehaviourFlag(
        (100,), "Maximum number of items in one bulk history request. The real limit is not documented."
    ),
    "bulk_history_too_many": BehaviourFlag(
        ("400", "413", "504"), "Status for a bulk history of more items than the limit. A gateway may time out."
    ),
    "time_format": BehaviourFlag(
        ("utc", "milliseconds", "offset"), "Procore's times are documented in UTC, to the second, with `Z`."
    ),
    "error_body": BehaviourFlag(
        ("documented", "v1", "page"), "A gateway may reject a call of v2 in the format of v1, or with a page."
    ),
    "optional_members": BehaviourFlag(
        ("present", "absent"), "Older texts lack members of a step: its name, its histories, comments of responses."
    ),
    "more_members": BehaviourFlag(
        ("documented", "more"), "Whether responses of v2 have members that the documentation lacks."
    ),
    "more_words": BehaviourFlag(
        ("documented", "more"), "Whether there are more types of events than the documented ones."
    ),
    "updated_at": BehaviourFlag(
        ("moves", "start_only"),
        "Whether `updated_at` changes with every step, or only at the start and the end, is not documented.",
    ),
    "preset_groups": BehaviourFlag(
        ("replace", "merge"), "Whether an update of a preset empties or preserves the groups that it omits."
    ),
    "preset_rest": BehaviourFlag(
        ("preserved", "emptied"),
        "Whether an update of a preset preserves or empties individual assignees that it omits.",
    ),
    "preset_stale_reads": BehaviourFlag(
        (0.0,), "Number of reads of a preset that return the state before its last change."
    ),
    "role_group_type": BehaviourFlag(
        ("responsible_role", "project_role", "RESPONSIBLE_ROLE"),
        "The documentation spells the type of a role group in several ways.",
    ),
    "idempotency": BehaviourFlag(
        ("ignored", "honoured"), "Whether a repeated `Idempotency-Token` returns the result of the first request."
    ),
    "idempotency_other_body": BehaviourFlag(
        ("422", "ignored"), "Response to an `Idempotency-Token` that an earlier request sent with another body."
    ),
    "bulk_start_limit": BehaviourFlag(
        (1000.0,), "Maximum number of items in one bulk start. The real limit is not documented."
    ),
    "bulk_start_too_many": BehaviourFlag(
        ("422", "400", "413"), "Status for a bulk start of more items than the limit."
    ),
    "bulk_replace_rows": BehaviourFlag(
        ("people", "ids", "bare", "cut"),
        "How the list of bulk replacements names users, if at all; `cut` changes days to times and truncates reasons.",
    ),
    "bulk_replace_status": BehaviourFlag(
        ("documented", "upper_case", "more_words"),
        "How the status of a bulk replacement is spelled. `more_words` also uses `queued`.",
    ),
    "bulk_replace_stop": BehaviourFlag(
        ("at_once", "later", "gone"), "When a stopped bulk replacement shows as `stopped`, or whether it is gone (404)."
    ),
    "bulk_replace_stop_again": BehaviourFlag(
        ("accepted", "rejected"), "Response to stopping a bulk replacement that is already stopped."
    ),
    "bulk_replace_filters": BehaviourFlag(
        ("honoured", "ignored"), "Whether the filters of the list of bulk replacements have an effect."
    ),
    "bulk_replace_errors": BehaviourFlag(
        ("empty", "absent"), "Whether a bulk replacement without errors has an empty error report or none (404)."
    ),
    "bulk_replace_csv": BehaviourFlag(
        ("named_columns", "no_names", "utf-16"),
        "Whether the error report names its columns, and which encoding it has.",
    ),
    "bulk_replace_report": BehaviourFlag(
        ("at_once", "accepted_first", "redirect", "forbidden"),
        "How the error report is returned: at once, after several 202, by a redirect to another address, or never.",
    ),
    "terminate_enabled": BehaviourFlag(("on", "off"), "A company can disable terminating for a tool."),
    "operation_delay": BehaviourFlag((0.0,), "Seconds until an asynchronous operation or an upload is finished."),
    "operation_visible_after": BehaviourFlag(
        (0.0,), "Seconds during which a new asynchronous operation responds with 404."
    ),
    "background_status_case": BehaviourFlag(
        ("lower", "upper"),
        "Whether the status of an operation or an upload is in lower or upper case is not documented.",
    ),
    "uploads": BehaviourFlag(
        ("v2.1", "v1.1"), "Which upload API the attachments of a response come from is not documented."
    ),
    "upload_new_address": BehaviourFlag(
        ("shown", "new_upload"),
        "Whether reading an upload shows new addresses after its addresses expired, or a new upload is needed.",
    ),
    "upload_etags": BehaviourFlag(
        ("either", "as_they_came", "without_quotes"),
        "The storage returns ETags in quotes, but the sample that completes an upload has none.",
    ),
    "upload_completion": BehaviourFlag(("200", "204"), "Whether the response that completes an upload has a body."),
    "upload_completed_again": BehaviourFlag(("409", "200"), "Response to completing an upload a second time."),
    "upload_visible_after": BehaviourFlag((0.0,), "Seconds during which a new upload responds with 404."),
    "legacy_list": BehaviourFlag(
        ("allowed", "forbidden"), "Listing the legacy instances of a company may require a directory administrator."
    ),
    "legacy_history_order": BehaviourFlag(
        ("ascending", "newest_first"), "The documentation names two different orders."
    ),
    "performed_by": BehaviourFlag(
        ("stored", "overridden"), "A sample in the guide stores another user than the request named."
    ),
    "history_names": BehaviourFlag(
        ("with", "without"), "The legacy histories in the guide have neither names nor a state."
    ),
    "legacy_transition": BehaviourFlag(
        ("at_once", "delayed"), "Whether a legacy instance lists no activity for a moment between two states."
    ),
    "legacy_ended": BehaviourFlag(
        ("no_activities", "activities_listed", "not_found"),
        "How a legacy instance is shown that was terminated or is in its final state.",
    ),
    "legacy_left_behind": BehaviourFlag(
        ("unchanged", "not_found", "terminated", "draft"),
        "How an instance is shown that was running when its tool was upgraded from Legacy to Workflows v2.",
    ),
    "legacy_open_activities": BehaviourFlag(
        ("until_performed", "until_state_moves"),
        "Until when an activity is listed and can be performed while other roles still have to act.",
    ),
    "legacy_state_set_at": BehaviourFlag(
        ("given", "null"), "Whether `current_state_set_at` of a legacy instance can be null."
    ),
    "legacy_filters": BehaviourFlag(
        ("honoured", "ignored"), "An older server may not know the filters of legacy lists."
    ),
    "legacy_object_type": BehaviourFlag(
        ("base_class", "class"),
        "An instance in the guide has the type `Contract` and the class `PurchaseOrderContract`.",
    ),
    "legacy_status": BehaviourFlag(
        ("state", "object"),
        "`object` returns the status text of the object when an instance is read; the list returns that of the state.",
    ),
    "legacy_rejection": BehaviourFlag(("400", "422"), "The status of a rejected legacy activity is not documented."),
    "legacy_attachments": BehaviourFlag(
        ("nested", "plain"), "The form field for files is only documented as `attachments[]`."
    ),
    "permanent_logs": BehaviourFlag(
        ("activities", "all_events", "none"), "Which events the permanent logs contain is not documented."
    ),
    "directory_ids": BehaviourFlag(
        ("login_information", "own_beside", "own"),
        "Whether the id of a user in the directory is the login information id.",
    ),
    "missing_company_header": BehaviourFlag(
        ("400", "403"), "The status of a request without `Procore-Company-Id` is not documented."
    ),
    "new_integrations": BehaviourFlag(
        ("consumed_on_read", "listed_until_completed"), "Whether reading a new integration instance consumes it."
    ),
    "no_new_integration": BehaviourFlag(
        ("204", "empty", "null", "empty_object", "empty_list", "not_found"),
        "What a poll without a new integration instance returns is not documented.",
    ),
    "new_integration_shape": BehaviourFlag(
        ("object", "list"), "Whether a poll returns one new integration instance or a list."
    ),
    "ws_unknown_step": BehaviourFlag(
        ("404", "500", "nothing"), "What a poll of a step that does not exist returns is not documented."
    ),
    "ws_error_status": BehaviourFlag(
        ("400", "500", "200"), "The documented 'exception' may be a 400, a 500, or a 200 with `Success: false`."
    ),
    "ws_token_shape": BehaviourFlag(
        ("json_string", "text", "object", "login_page", "redirect"),
        "The response that contains the API token is not documented.",
    ),
    "ws_token_lifetime": BehaviourFlag(
        ("as_requested", "shorter", "not_stated"),
        "Whether an API token lives as long as requested, and whether its response says so: `shorter` gives half.",
    ),
    "ws_api_token_auth": BehaviourFlag(
        ("basic", "bearer", "cookie", "any"), "How an administrator signs in to request an API token is not documented."
    ),
    "ws_read_on_behalf": BehaviourFlag(
        ("not_needed", "needed"),
        "Whether reading fields requires `X-OnBehalfOf-Id`. The guide sends it only with writes.",
    ),
    "ws_write": BehaviourFlag(
        ("partial", "replace"), "Whether writing fields empties the fields that the request omits."
    ),
    "ws_write_response": BehaviourFlag(
        ("204", "200_text", "200_object"), "What writing and completing return is not documented."
    ),
    "ws_normalise": BehaviourFlag(
        ("none", "trim", "crlf", "round", "minutes"),
        "Whether the server normalizes values: trimmed texts, CRLF line ends, two decimal places, whole minutes.",
    ),
    "ws_complete_again": BehaviourFlag(("error", "no_op"), "Response to completing an instance a second time."),
    "ws_fields_after_completion": BehaviourFlag(
        ("readable", "read_only", "gone", "error"),
        "What reading the fields of a completed instance returns is not documented.",
    ),
    "ws_custom_actions": BehaviourFlag(
        ("named", "auto_only"), "Whether there are custom actions in addition to `__AUTO__`."
    ),
    "ws_empty_required": BehaviourFlag(
        ("null_or_text", "also_zero_and_false"), "Which values of a required field count as empty."
    ),
    "ws_options_shape": BehaviourFlag(
        ("texts", "id_value", "id_title", "id_name", "unknown"),
        "The format of the options of a field is not documented.",
    ),
    "ws_option_value": BehaviourFlag(("text", "id"), "Whether a field contains the text or the id of its option."),
    "ws_names": BehaviourFlag(
        ("as_documented", "camel", "pascal"),
        "The guide spells the keys of fields in a different case from all other keys.",
    ),
    "ws_ids": BehaviourFlag(("numbers", "texts"), "The samples show numeric ids, but no text guarantees them."),
    "ws_labels": BehaviourFlag(
        ("as_drawn", "trailing_blank", "repeated"),
        "Whether titles and labels can end with a space, and labels can repeat.",
    ),
    "ws_type_names": BehaviourFlag(
        ("as_documented", "lower_case", "system"), "Four field types are documented. The names of the others are not."
    ),
    "ws_empty_value": BehaviourFlag(
        ("as_written", "json_null", "null_text", "empty_text", "absent"),
        "How an empty value is represented is not documented.",
    ),
    "ws_value_format": BehaviourFlag(
        ("documented", "texts", "comma", "parsed", "object"),
        "Whether values fit their type: texts, decimal commas, values instead of JSON text, an object as first text.",
    ),
    "ws_times": BehaviourFlag(
        ("utc", "offset", "no_zone", "slash_date", "epoch"), "The only sample of a time is in UTC with `Z`."
    ),
    "ws_start_fields": BehaviourFlag(
        ("label_or_key", "label", "key"),
        "Whether the fields of a new process are named by label or key is not documented.",
    ),
    "ws_user_search": BehaviourFlag(
        ("part", "exact"), "Whether the user search matches parts or whole values is not documented."
    ),
    "ws_list_limit": BehaviourFlag(
        ("as_requested", "at_most_3"), "Whether a list returns fewer rows than requested is not documented."
    ),
    "ws_true": BehaviourFlag(("lower_case", "any_case"), "How the query spells `integration: true` is not documented."),
    "ws_files": BehaviourFlag(("accepted", "rejected"), "Which format of `Files` a task accepts is not documented."),
    "rate_limit": BehaviourFlag(("off", "on"), "Whether Procore's two rate limits apply: per hour and per 10 seconds."),
    "ws_rate_limit": BehaviourFlag(
        ("none", "as_procore"), "Whether Workflowsoft limits the request rate is not documented."
    ),
    "hourly_limit": BehaviourFlag((3600,), "Requests per hour."),
    "spike_limit": BehaviourFlag((25,), "Requests per 10 seconds."),
    "rate_headers": BehaviourFlag(
        ("when_on", "always", "never"), "Live servers were observed without the rate limit headers."
    ),
    "rate_429": BehaviourFlag(
        ("reset_header", "retry_after", "both"), "The documentation names two different headers of a 429."
    ),
    "token_lifetime": BehaviourFlag((5400,), "Lifetime of an OAuth token in seconds."),
    "rejected_token": BehaviourFlag(
        ("401", "redirect", "sign_in_page"), "How a server rejects a call whose token has expired is not documented."
    ),
}
