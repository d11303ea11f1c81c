"""The behaviour flags: for each question that the vendors' documentation leaves open, the answers to choose from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BehaviourFlag:
    """A choice between readings of what the vendors' documents leave open; the first value is the default."""

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
        return str(value) in self.values  # a status may come as a number


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
        "Where the v2 list returns the next cursor is not documented; the last two return none.",
    ),
    "page_headers": BehaviourFlag(
        ("documented", "next_page", "total_pages", "has_more", "none"),
        "What a page of a list by page numbers says of the others.",
    ),
    "list_total": BehaviourFlag(
        ("shown_rows", "hidden_rows_too"), "Whether the Total of a list counts a row that the user is not shown."
    ),
    "second_project": BehaviourFlag(
        ("visible", "403", "404"), "Response to any call in project 1002: the user may see it, or may not (any more)."
    ),
    "page_limit": BehaviourFlag(
        ("documented", "50"), "The largest page, 100 rows in v2 and 2000 in v1, is 'mostly' as documented."
    ),
    "instances_paging": BehaviourFlag(
        ("cursor_and_page", "page_only"), "Older texts know only cursors, newer ones also page numbers."
    ),
    "stale_step": BehaviourFlag(("422", "404"), "Answer to a response for a step that is over."),
    "non_assignee": BehaviourFlag(("403", "422"), "Answer to a response of somebody who is not asked."),
    "ended_instance": BehaviourFlag(("422", "404", "403"), "Answer to a response for an instance that has ended."),
    "respond_status": BehaviourFlag(
        ("204", "200", "200_error"),
        "Another answer than the documented 204: 200 with the instance, or 200 with an error and nothing recorded.",
    ),
    "active_instance": BehaviourFlag(
        ("400", "409", "422", "existing"),
        "Answer to a start while the item has an active instance; it may be that instance.",
    ),
    "transition": BehaviourFlag(
        ("at_once", "delayed", "in_between"),
        "Whether a step moves before or after the 204 of a response, and whether there is a current step in between.",
    ),
    "transition_delay": BehaviourFlag((2.0,), "Seconds that a delayed transition takes."),
    "transition_time": BehaviourFlag(
        ("when_it_moves", "when_decided"),
        "Which time the record of a delayed transition names: an end can show late, with an earlier time.",
    ),
    "step_gap": BehaviourFlag(
        (0.0,),
        "Seconds that an instance stands at no step after one is over; whether it ever does is not documented.",
    ),
    "active_default": BehaviourFlag(
        ("all", "active_only"), "What the list of instances holds when `filters[active]` is not given."
    ),
    "assignee_filter": BehaviourFlag(
        ("all_assignees", "pending_only"),
        "Whether `filters[assignee_id]` finds those who have responded to a step that waits for others.",
    ),
    "tools_list": BehaviourFlag(("allowed", "forbidden"), "Whether every user may list the tools."),
    "history": BehaviourFlag(
        ("full", "events_only", "no_status", "absent"),
        "The v2 history of April 2026 had the events only; in newer texts its status may be null.",
    ),
    "history_order": BehaviourFlag(
        ("oldest_first", "newest_first"), "In which order a v2 history lists its events is not documented."
    ),
    "overall_response": BehaviourFlag(
        ("present", "absent"), "Whether a step in the history says what was decided beside the single responses."
    ),
    "hidden_events": BehaviourFlag(
        ("none", "responses", "response_steps"),
        "What of a history the user's granular permissions hide: nothing, the single responses, or the steps.",
    ),
    "status_case": BehaviourFlag(("lower", "upper"), "No text says in which case the status of a history comes."),
    "history_labels": BehaviourFlag(
        ("option", "status"), "A sample shows the response Approved; whether that is the option's label is open."
    ),
    "history_step_id": BehaviourFlag(("occurrence", "step"), "Whether a step's id in the history is its occurrence's."),
    "history_response_id": BehaviourFlag(("option", "response"), "What the response_id in a history is the id of."),
    "created_by": BehaviourFlag(("present", "absent"), "Older texts of the API do not have an instance's creator."),
    "filters": BehaviourFlag(("honoured", "ignored"), "A server that does not know a filter of a list may ignore it."),
    "item_history": BehaviourFlag(("present", "absent"), "The history of an item is in the newest text only."),
    "bulk_history": BehaviourFlag(
        ("present", "absent", "not_allowed", "no_instance_ids"),
        "In the newest text only (404 or 405 without it); whether it names the instances is open.",
    ),
    "bulk_history_limit": BehaviourFlag((100,), "Items that one bulk history takes; the most is not documented."),
    "bulk_history_too_many": BehaviourFlag(
        ("400", "413", "504"), "Answer to a bulk history of more items than that; a gateway may lose patience."
    ),
    "updated_at": BehaviourFlag(
        ("moves", "start_only"),
        "Whether it moves with every step, or with the start and the end only, is not documented.",
    ),
    "preset_groups": BehaviourFlag(
        ("replace", "merge"), "Whether groups that an update of a preset leaves out become empty or stay."
    ),
    "preset_rest": BehaviourFlag(
        ("kept", "emptied"),
        "Whether individual assignees that an update of a preset leaves out stay or are emptied.",
    ),
    "preset_stale_reads": BehaviourFlag(
        (0.0,), "Reads of a preset that still show it as it was before its last change."
    ),
    "role_group_type": BehaviourFlag(
        ("responsible_role", "project_role", "RESPONSIBLE_ROLE"), "The type of a group of people has several spellings."
    ),
    "idempotency": BehaviourFlag(
        ("ignored", "honoured"), "Whether the same Idempotency-Token again returns what came of it before."
    ),
    "idempotency_other_body": BehaviourFlag(
        ("422", "ignored"),
        "Answer to an Idempotency-Token that an earlier request has sent with another body.",
    ),
    "bulk_start_limit": BehaviourFlag((1000.0,), "Items that one bulk start takes; the most is not documented."),
    "bulk_start_too_many": BehaviourFlag(("422", "400", "413"), "Answer to a bulk start of more items than that."),
    "bulk_replace_rows": BehaviourFlag(
        ("people", "ids", "bare", "cut"),
        "How the list of replacements shows who is replaced by whom, if it does; cut: days as times, reasons cut off.",
    ),
    "bulk_replace_status": BehaviourFlag(
        ("documented", "upper_case", "more_words"),
        "How the status of a replacement is spelled; more_words: also `queued`.",
    ),
    "bulk_replace_stop": BehaviourFlag(
        ("at_once", "later", "gone"), "When a stopped replacement shows as `stopped`, or whether it is gone then (404)."
    ),
    "bulk_replace_stop_again": BehaviourFlag(
        ("accepted", "rejected"), "Answer to the stop of a replacement that is stopped already."
    ),
    "bulk_replace_filters": BehaviourFlag(
        ("honoured", "ignored"), "Whether the filters of the list of replacements are heeded."
    ),
    "bulk_replace_errors": BehaviourFlag(
        ("empty", "absent"), "Whether a replacement without errors has an empty list of them or none (404)."
    ),
    "bulk_replace_csv": BehaviourFlag(
        ("named_columns", "no_names", "utf-16"), "Whether the list of errors names its columns, and its encoding."
    ),
    "bulk_replace_report": BehaviourFlag(
        ("at_once", "accepted_first", "redirect", "forbidden"),
        "How the list of errors is returned: with the first read, after some with 202, from another address, or never.",
    ),
    "terminate_enabled": BehaviourFlag(("on", "off"), "A company can disable terminating for a tool."),
    "operation_delay": BehaviourFlag((0.0,), "Seconds until an asynchronous operation or an upload is finished."),
    "operation_visible_after": BehaviourFlag(
        (0.0,), "Seconds for which reading an asynchronous operation that was just created answers 404."
    ),
    "background_status_case": BehaviourFlag(
        ("lower", "upper"), "No text says in which case the status of an operation or of an upload comes."
    ),
    "uploads": BehaviourFlag(("v2.1", "v1.1"), "Which uploads a response's attachments come from is not stated."),
    "upload_new_address": BehaviourFlag(
        ("shown", "new_upload"),
        "Two texts on an expired address: the upload shows new ones when it is read, or a new upload is needed.",
    ),
    "upload_etags": BehaviourFlag(
        ("either", "as_they_came", "without_quotes"),
        "The storage's ETags come in quotes, and the sample that completes an upload has none.",
    ),
    "upload_completion": BehaviourFlag(("200", "204"), "Whether the answer that completes an upload has a body."),
    "upload_completed_again": BehaviourFlag(("409", "200"), "Answer to completing an upload a second time."),
    "upload_visible_after": BehaviourFlag((0.0,), "Seconds for which an upload that was just created answers 404."),
    "legacy_list": BehaviourFlag(
        ("allowed", "forbidden"), "Listing a company's legacy instances may need an administrator of its directory."
    ),
    "legacy_history_order": BehaviourFlag(("ascending", "newest_first"), "Two texts, two orders."),
    "performed_by": BehaviourFlag(("kept", "overridden"), "The guide's sample stores another user than was sent."),
    "history_names": BehaviourFlag(("with", "without"), "The guide's legacy histories have no names and no state."),
    "legacy_transition": BehaviourFlag(
        ("at_once", "delayed"), "Whether a legacy instance lists no activity for a moment between two states."
    ),
    "legacy_ended": BehaviourFlag(
        ("no_activities", "activities_listed", "not_found"),
        "How a legacy instance looks that was terminated or is in its final state.",
    ),
    "legacy_left_behind": BehaviourFlag(
        ("unchanged", "not_found", "terminated", "draft"),
        "How a running legacy instance looks once its company works with the new Workflows tool.",
    ),
    "legacy_open_activities": BehaviourFlag(
        ("until_performed", "until_state_moves"),
        "How long an activity is listed, and can be performed, while others must act, too.",
    ),
    "legacy_state_set_at": BehaviourFlag(("given", "null"), "Whether a legacy instance can be without this time."),
    "legacy_filters": BehaviourFlag(
        ("honoured", "ignored"), "An older server may not know the filters of legacy lists."
    ),
    "legacy_object_type": BehaviourFlag(
        ("base_class", "class"), "The guide's instance has the type Contract and the class PurchaseOrderContract."
    ),
    "legacy_status": BehaviourFlag(
        ("state", "object"), "Show has the object's own status text, if there is one, and the list has the state's."
    ),
    "legacy_rejection": BehaviourFlag(("400", "422"), "The status of a rejected legacy activity is not documented."),
    "legacy_attachments": BehaviourFlag(
        ("nested", "plain"), "The name of the form's field for files is only documented as attachments[]."
    ),
    "permanent_logs": BehaviourFlag(
        ("activities", "all_events", "none"), "What the permanent logs hold is not documented."
    ),
    "directory_ids": BehaviourFlag(
        ("login_information", "own_beside", "own"),
        "Whether the id of a user in the directory is the login information id.",
    ),
    "missing_company_header": BehaviourFlag(("400", "403"), "The status of this error is not documented."),
    "new_integrations": BehaviourFlag(
        ("consumed_on_read", "kept_until_completed"),
        "Whether reading a new integration instance consumes it.",
    ),
    "no_new_integration": BehaviourFlag(
        ("204", "empty", "null", "empty_object", "empty_list", "not_found"), "What 'nothing new' looks like."
    ),
    "new_integration_shape": BehaviourFlag(("object", "list"), "One instance or a list of them."),
    "ws_unknown_step": BehaviourFlag(("404", "500", "nothing"), "What a poll of a step answers that does not exist."),
    "ws_error_status": BehaviourFlag(
        ("400", "500", "200"),
        "'An exception will be thrown' may come as either, or as a 200 that says `Success: false`.",
    ),
    "ws_token_shape": BehaviourFlag(
        ("json_string", "text", "object", "login_page", "redirect"),
        "The answer that holds the token is not described.",
    ),
    "ws_mint_auth": BehaviourFlag(
        ("basic", "bearer", "cookie", "any"), "How an administrator signs in is not described."
    ),
    "ws_read_on_behalf": BehaviourFlag(
        ("not_needed", "needed"), "Whether reading fields needs `X-OnBehalfOf-Id`: the guide sends it to write only."
    ),
    "ws_write": BehaviourFlag(
        ("partial", "replace"), "Whether writing fields empties the fields that it does not name."
    ),
    "ws_write_answer": BehaviourFlag(("204", "200_text", "200_object"), "What writing and completing answer."),
    "ws_normalise": BehaviourFlag(
        ("none", "trim", "crlf", "round", "minutes"),
        "Whether the server changes what is written: texts trimmed, line ends, two digits, whole minutes.",
    ),
    "ws_complete_again": BehaviourFlag(("error", "no_op"), "What completing an instance twice does."),
    "ws_fields_after_completion": BehaviourFlag(
        ("readable", "read_only", "gone", "error"), "What reading the fields of a completed instance answers."
    ),
    "ws_custom_actions": BehaviourFlag(("named", "auto_only"), "Whether there are custom actions beside `__AUTO__`."),
    "ws_empty_required": BehaviourFlag(
        ("null_or_text", "also_zero_and_false"), "What counts as empty when a required field is checked."
    ),
    "ws_options_shape": BehaviourFlag(
        ("texts", "id_value", "id_title", "id_name", "unknown"), "The form of a field's options is not described."
    ),
    "ws_option_value": BehaviourFlag(
        ("text", "id"), "Whether a field holds the text of its option or the option's id."
    ),
    "ws_names": BehaviourFlag(
        ("as_documented", "camel", "pascal"), "The guide spells the keys of the fields in another case than all others."
    ),
    "ws_ids": BehaviourFlag(("numbers", "texts"), "The samples show numbers; nothing says that they stay."),
    "ws_labels": BehaviourFlag(
        ("as_drawn", "trailing_blank", "repeated"),
        "Whether titles and labels are free of blanks at their ends, and labels unique.",
    ),
    "ws_type_names": BehaviourFlag(
        ("as_documented", "lower_case", "system"), "Four types are shown; how others are named is open."
    ),
    "ws_empty_value": BehaviourFlag(
        ("as_written", "json_null", "null_text", "empty_text", "absent"), "How an empty value looks."
    ),
    "ws_value_form": BehaviourFlag(
        ("documented", "texts", "comma", "parsed", "object"),
        "Values may not fit their type: all texts, a decimal comma, no JSON text, an object in the first text field.",
    ),
    "ws_times": BehaviourFlag(
        ("utc", "offset", "no_zone", "slash_date", "epoch"), "The one sample of a time is in UTC with a `Z`."
    ),
    "ws_start_fields": BehaviourFlag(
        ("label_or_key", "label", "key"), "What the fields of a new process are named by is not documented."
    ),
    "ws_user_search": BehaviourFlag(("part", "exact"), "How the search for users matches is not documented."),
    "ws_list_limit": BehaviourFlag(("as_asked", "at_most_3"), "The most rows that a list returns are not documented."),
    "ws_true": BehaviourFlag(("lower_case", "any_case"), "How `integration: true` goes into the query is not shown."),
    "ws_files": BehaviourFlag(("taken", "refused"), "What a task takes as `Files` is not described."),
    "rate_limit": BehaviourFlag(("off", "on"), "Procore's two windows: an hour, and 10 seconds."),
    "ws_rate_limit": BehaviourFlag(
        ("none", "as_procore"), "Whether Workflowsoft limits the rate of calls is not stated."
    ),
    "hourly_limit": BehaviourFlag((3600,), "Requests an hour."),
    "spike_limit": BehaviourFlag((25,), "Requests in 10 seconds."),
    "rate_headers": BehaviourFlag(("when_on", "always", "never"), "Live answers were seen without these headers."),
    "rate_429": BehaviourFlag(("reset_header", "retry_after", "both"), "Two texts name two headers."),
    "token_lifetime": BehaviourFlag((5400,), "Seconds that an OAuth token lives."),
    "refused_token": BehaviourFlag(
        ("401", "redirect", "sign_in_page"), "How a server answers a call whose token has ended is described by none."
    ),
}
