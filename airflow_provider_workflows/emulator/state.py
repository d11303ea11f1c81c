"""What the emulated products share: the clock, the users, the tokens, the switches, and the record of what happened."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections import Counter, deque
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

LATEST = datetime(3000, 1, 1, tzinfo=timezone.utc).timestamp()
REQUESTS_KEPT = 10_000
SEEDS = ("default", "large", "huge")

COMPANY = {"id": "4264807", "name": "Example Builders"}
PROJECT = {"id": "1001", "name": "Riverside Tower"}
SECOND_PROJECT = "1002"
PROJECTS = {project["id"]: project for project in (PROJECT, {"id": SECOND_PROJECT, "name": "Harbour Bridge"})}
CLIENT_ID = "emulator-client"
CLIENT_SECRET = "emulator-secret"
ADMIN_LOGIN = "admin@example.com"
ADMIN_PASSWORD = "emulator-password"


@dataclass(frozen=True)
class Switch:
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


SWITCHES: dict[str, Switch] = {
    "cursor_place": Switch(
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
    "page_headers": Switch(
        ("documented", "next_page", "total_pages", "has_more", "none"),
        "What a page of a list by page numbers says of the others.",
    ),
    "list_total": Switch(
        ("shown_rows", "hidden_rows_too"), "Whether the Total of a list counts a row that the user is not shown."
    ),
    "second_project": Switch(
        ("visible", "403", "404"), "Response to any call in project 1002: the user may see it, or may not (any more)."
    ),
    "page_limit": Switch(
        ("documented", "50"), "The largest page, 100 rows in v2 and 2000 in v1, is 'mostly' as documented."
    ),
    "instances_paging": Switch(
        ("cursor_and_page", "page_only"), "Older texts know only cursors, newer ones also page numbers."
    ),
    "stale_step": Switch(("422", "404"), "Answer to a response for a step that is over."),
    "non_assignee": Switch(("403", "422"), "Answer to a response of somebody who is not asked."),
    "ended_instance": Switch(("422", "404", "403"), "Answer to a response for an instance that has ended."),
    "respond_status": Switch(
        ("204", "200", "200_error"),
        "Another answer than the documented 204: 200 with the instance, or 200 with an error and nothing recorded.",
    ),
    "active_instance": Switch(
        ("400", "409", "422", "existing"),
        "Answer to a start while the item has an active instance; it may be that instance.",
    ),
    "transition": Switch(
        ("at_once", "delayed", "in_between"),
        "Whether a step moves before or after the 204 of a response, and whether there is a current step in between.",
    ),
    "transition_delay": Switch((2.0,), "Seconds that a delayed transition takes."),
    "transition_time": Switch(
        ("when_it_moves", "when_decided"),
        "Which time the record of a delayed transition names: an end can show late, with an earlier time.",
    ),
    "step_gap": Switch(
        (0.0,),
        "Seconds that an instance stands at no step after one is over; whether it ever does is not documented.",
    ),
    "active_default": Switch(
        ("all", "active_only"), "What the list of instances holds when `filters[active]` is not given."
    ),
    "assignee_filter": Switch(
        ("all_assignees", "pending_only"),
        "Whether `filters[assignee_id]` finds those who have responded to a step that waits for others.",
    ),
    "tools_list": Switch(("allowed", "forbidden"), "Whether every user may list the tools."),
    "history": Switch(
        ("full", "events_only", "no_status", "absent"),
        "The v2 history of April 2026 had the events only; in newer texts its status may be null.",
    ),
    "history_order": Switch(
        ("oldest_first", "newest_first"), "In which order a v2 history lists its events is not documented."
    ),
    "overall_response": Switch(
        ("present", "absent"), "Whether a step in the history says what was decided beside the single responses."
    ),
    "hidden_events": Switch(
        ("none", "responses", "response_steps"),
        "What of a history the user's granular permissions hide: nothing, the single responses, or the steps.",
    ),
    "status_case": Switch(("lower", "upper"), "No text says in which case the status of a history comes."),
    "history_labels": Switch(
        ("option", "status"), "A sample shows the response Approved; whether that is the option's label is open."
    ),
    "history_step_id": Switch(("occurrence", "step"), "Whether a step's id in the history is its occurrence's."),
    "history_response_id": Switch(("option", "response"), "What the response_id in a history is the id of."),
    "created_by": Switch(("present", "absent"), "Older texts of the API do not have an instance's creator."),
    "filters": Switch(("honoured", "ignored"), "A server that does not know a filter of a list may ignore it."),
    "item_history": Switch(("present", "absent"), "The history of an item is in the newest text only."),
    "bulk_history": Switch(
        ("present", "absent", "not_allowed", "no_instance_ids"),
        "In the newest text only (404 or 405 without it); whether it names the instances is open.",
    ),
    "bulk_history_limit": Switch((100,), "Items that one bulk history takes; the most is not documented."),
    "bulk_history_too_many": Switch(
        ("400", "413", "504"), "Answer to a bulk history of more items than that; a gateway may lose patience."
    ),
    "updated_at": Switch(
        ("moves", "start_only"),
        "Whether it moves with every step, or with the start and the end only, is not documented.",
    ),
    "preset_groups": Switch(
        ("replace", "merge"), "Whether groups that an update of a preset leaves out become empty or stay."
    ),
    "preset_rest": Switch(
        ("kept", "emptied"),
        "Whether individual assignees that an update of a preset leaves out stay or are emptied.",
    ),
    "preset_stale_reads": Switch((0.0,), "Reads of a preset that still show it as it was before its last change."),
    "role_group_type": Switch(
        ("responsible_role", "project_role", "RESPONSIBLE_ROLE"), "The type of a group of people has several spellings."
    ),
    "idempotency": Switch(
        ("ignored", "honoured"), "Whether the same Idempotency-Token again returns what came of it before."
    ),
    "idempotency_other_body": Switch(
        ("422", "ignored"),
        "Answer to an Idempotency-Token that an earlier request has sent with another body.",
    ),
    "bulk_start_limit": Switch((1000.0,), "Items that one bulk start takes; the most is not documented."),
    "bulk_start_too_many": Switch(("422", "400", "413"), "Answer to a bulk start of more items than that."),
    "bulk_replace_rows": Switch(
        ("people", "ids", "bare", "cut"),
        "How the list of replacements shows who is replaced by whom, if it does; cut: days as times, reasons cut off.",
    ),
    "bulk_replace_status": Switch(
        ("documented", "upper_case", "more_words"),
        "How the status of a replacement is spelled; more_words: also `queued`.",
    ),
    "bulk_replace_stop": Switch(
        ("at_once", "later", "gone"), "When a stopped replacement shows as `stopped`, or whether it is gone then (404)."
    ),
    "bulk_replace_stop_again": Switch(
        ("accepted", "rejected"), "Answer to the stop of a replacement that is stopped already."
    ),
    "bulk_replace_filters": Switch(
        ("honoured", "ignored"), "Whether the filters of the list of replacements are heeded."
    ),
    "bulk_replace_errors": Switch(
        ("empty", "absent"), "Whether a replacement without errors has an empty list of them or none (404)."
    ),
    "bulk_replace_csv": Switch(
        ("named_columns", "no_names", "utf-16"), "Whether the list of errors names its columns, and its encoding."
    ),
    "bulk_replace_report": Switch(
        ("at_once", "accepted_first", "redirect", "forbidden"),
        "How the list of errors is returned: with the first read, after some with 202, from another address, or never.",
    ),
    "terminate_enabled": Switch(("on", "off"), "A company can disable terminating for a tool."),
    "operation_delay": Switch((0.0,), "Seconds until an asynchronous operation or an upload is finished."),
    "operation_visible_after": Switch(
        (0.0,), "Seconds for which reading an asynchronous operation that was just created answers 404."
    ),
    "background_status_case": Switch(
        ("lower", "upper"), "No text says in which case the status of an operation or of an upload comes."
    ),
    "uploads": Switch(("v2.1", "v1.1"), "Which uploads a response's attachments come from is not stated."),
    "upload_new_address": Switch(
        ("shown", "new_upload"),
        "Two texts on an expired address: the upload shows new ones when it is read, or a new upload is needed.",
    ),
    "upload_etags": Switch(
        ("either", "as_they_came", "without_quotes"),
        "The storage's ETags come in quotes, and the sample that completes an upload has none.",
    ),
    "upload_completion": Switch(("200", "204"), "Whether the answer that completes an upload has a body."),
    "upload_completed_again": Switch(("409", "200"), "Answer to completing an upload a second time."),
    "upload_visible_after": Switch((0.0,), "Seconds for which an upload that was just created answers 404."),
    "legacy_list": Switch(
        ("allowed", "forbidden"), "Listing a company's legacy instances may need an administrator of its directory."
    ),
    "legacy_history_order": Switch(("ascending", "newest_first"), "Two texts, two orders."),
    "performed_by": Switch(("kept", "overridden"), "The guide's sample stores another user than was sent."),
    "history_names": Switch(("with", "without"), "The guide's legacy histories have no names and no state."),
    "legacy_transition": Switch(
        ("at_once", "delayed"), "Whether a legacy instance lists no activity for a moment between two states."
    ),
    "legacy_ended": Switch(
        ("no_activities", "activities_listed", "not_found"),
        "How a legacy instance looks that was terminated or is in its final state.",
    ),
    "legacy_left_behind": Switch(
        ("unchanged", "not_found", "terminated", "draft"),
        "How a running legacy instance looks once its company works with the new Workflows tool.",
    ),
    "legacy_open_activities": Switch(
        ("until_performed", "until_state_moves"),
        "How long an activity is listed, and can be performed, while others must act, too.",
    ),
    "legacy_state_set_at": Switch(("given", "null"), "Whether a legacy instance can be without this time."),
    "legacy_filters": Switch(("honoured", "ignored"), "An older server may not know the filters of legacy lists."),
    "legacy_object_type": Switch(
        ("base_class", "class"), "The guide's instance has the type Contract and the class PurchaseOrderContract."
    ),
    "legacy_status": Switch(
        ("state", "object"), "Show has the object's own status text, if there is one, and the list has the state's."
    ),
    "legacy_rejection": Switch(("400", "422"), "The status of a rejected legacy activity is not documented."),
    "legacy_attachments": Switch(
        ("nested", "plain"), "The name of the form's field for files is only documented as attachments[]."
    ),
    "permanent_logs": Switch(("activities", "all_events", "none"), "What the permanent logs hold is not documented."),
    "directory_ids": Switch(
        ("login_information", "own_beside", "own"),
        "Whether the id of a user in the directory is the login information id.",
    ),
    "missing_company_header": Switch(("400", "403"), "The status of this error is not documented."),
    "new_integrations": Switch(
        ("consumed_on_read", "kept_until_completed"),
        "Whether reading a new integration instance consumes it.",
    ),
    "no_new_integration": Switch(
        ("204", "empty", "null", "empty_object", "empty_list", "not_found"), "What 'nothing new' looks like."
    ),
    "new_integration_shape": Switch(("object", "list"), "One instance or a list of them."),
    "ws_unknown_step": Switch(("404", "500", "nothing"), "What a poll of a step answers that does not exist."),
    "ws_error_status": Switch(
        ("400", "500", "200"),
        "'An exception will be thrown' may come as either, or as a 200 that says `Success: false`.",
    ),
    "ws_token_shape": Switch(
        ("json_string", "text", "object", "login_page", "redirect"),
        "The answer that holds the token is not described.",
    ),
    "ws_mint_auth": Switch(("basic", "bearer", "cookie", "any"), "How an administrator signs in is not described."),
    "ws_read_on_behalf": Switch(
        ("not_needed", "needed"), "Whether reading fields needs `X-OnBehalfOf-Id`: the guide sends it to write only."
    ),
    "ws_write": Switch(("partial", "replace"), "Whether writing fields empties the fields that it does not name."),
    "ws_write_answer": Switch(("204", "200_text", "200_object"), "What writing and completing answer."),
    "ws_normalise": Switch(
        ("none", "trim", "crlf", "round", "minutes"),
        "Whether the server changes what is written: texts trimmed, line ends, two digits, whole minutes.",
    ),
    "ws_complete_again": Switch(("error", "no_op"), "What completing an instance twice does."),
    "ws_fields_after_completion": Switch(
        ("readable", "read_only", "gone", "error"), "What reading the fields of a completed instance answers."
    ),
    "ws_custom_actions": Switch(("named", "auto_only"), "Whether there are custom actions beside `__AUTO__`."),
    "ws_empty_required": Switch(
        ("null_or_text", "also_zero_and_false"), "What counts as empty when a required field is checked."
    ),
    "ws_options_shape": Switch(
        ("texts", "id_value", "id_title", "id_name", "unknown"), "The form of a field's options is not described."
    ),
    "ws_option_value": Switch(("text", "id"), "Whether a field holds the text of its option or the option's id."),
    "ws_names": Switch(
        ("as_documented", "camel", "pascal"), "The guide spells the keys of the fields in another case than all others."
    ),
    "ws_ids": Switch(("numbers", "texts"), "The samples show numbers; nothing says that they stay."),
    "ws_labels": Switch(
        ("as_drawn", "trailing_blank", "repeated"),
        "Whether titles and labels are free of blanks at their ends, and labels unique.",
    ),
    "ws_type_names": Switch(
        ("as_documented", "lower_case", "system"), "Four types are shown; how others are named is open."
    ),
    "ws_empty_value": Switch(
        ("as_written", "json_null", "null_text", "empty_text", "absent"), "How an empty value looks."
    ),
    "ws_value_form": Switch(
        ("documented", "texts", "comma", "parsed", "object"),
        "Values may not fit their type: all texts, a decimal comma, no JSON text, an object in the first text field.",
    ),
    "ws_times": Switch(
        ("utc", "offset", "no_zone", "slash_date", "epoch"), "The one sample of a time is in UTC with a `Z`."
    ),
    "ws_start_fields": Switch(
        ("label_or_key", "label", "key"), "What the fields of a new process are named by is not documented."
    ),
    "ws_user_search": Switch(("part", "exact"), "How the search for users matches is not documented."),
    "ws_list_limit": Switch(("as_asked", "at_most_3"), "The most rows that a list returns are not documented."),
    "ws_true": Switch(("lower_case", "any_case"), "How `integration: true` goes into the query is not shown."),
    "ws_files": Switch(("taken", "refused"), "What a task takes as `Files` is not described."),
    "rate_limit": Switch(("off", "on"), "Procore's two windows: an hour, and 10 seconds."),
    "ws_rate_limit": Switch(("none", "as_procore"), "Whether Workflowsoft limits the rate of calls is not stated."),
    "hourly_limit": Switch((3600,), "Requests an hour."),
    "spike_limit": Switch((25,), "Requests in 10 seconds."),
    "rate_headers": Switch(("when_on", "always", "never"), "Live answers were seen without these headers."),
    "rate_429": Switch(("reset_header", "retry_after", "both"), "Two texts name two headers."),
    "token_lifetime": Switch((5400,), "Seconds that an OAuth token lives."),
    "refused_token": Switch(
        ("401", "redirect", "sign_in_page"), "How a server answers a call whose token has ended is described by none."
    ),
}


class Refusal(Exception):
    """An answer that is not a success, in the product's own form."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None):
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers or {}


SIGN_IN_PAGE = (
    "<!DOCTYPE html><html><head><title>Sign in</title></head>"
    '<body><form method="post"><input name="user"><input name="password" type="password"></form></body></html>'
)


class Clock:
    """Real time plus an offset that only grows."""

    def __init__(self) -> None:
        self.offset = 0.0

    def time(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        if seconds < 0 or self.time() + seconds > LATEST:
            raise Refusal(422, {"error": "the clock moves forward only, and not beyond the year 2999"})
        self.offset += seconds

    def iso(self, moment: float | None = None) -> str:
        return _iso(self.time()) if moment is None else _known_iso(moment)


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


_known_iso = lru_cache(maxsize=10_000)(_iso)  # the moments that are shown again and again


@dataclass(frozen=True)
class User:
    id: str
    login: str
    name: str


USERS = {
    user.id: user
    for user in (
        User("90001", "integration@example.com", "Airflow Integration"),
        User("90002", "pat@example.com", "Pat Manager"),
        User("90003", "rita@example.com", "Rita Reviewer"),
        User("90004", "dana@example.com", "Dana Director"),
        User("90005", "lee@example.com", "Lee Engineer"),
        User("90006", "nora@example.com", "Nora Newhire"),
        User("90009", "guest@example.com", "Gus Guest"),
    )
}
INTEGRATION_USER = "90001"
MANAGER = "90002"
POSSIBLE_ASSIGNEES = tuple(user_id for user_id in USERS if user_id != "90009")


def user_by_login(login: str) -> User:
    for user in USERS.values():
        if login in (user.login, user.id):
            return user
    raise Refusal(422, {"error": f"no user {login}; there are {', '.join(u.login for u in USERS.values())}"})


@dataclass
class Fault:
    """What goes wrong with the next requests that match."""

    id: int
    method: str | None
    path: str  # a regular expression, searched for
    times: int
    skip: int
    status: int | None
    headers: dict[str, str]
    body: str | None
    json: Any
    delay: float  # seconds
    reset: str | None  # before or after
    truncate: int | None  # bytes that arrive
    after: bool
    seen: int = 0
    fired: int = 0

    def strikes(self, method: str, path: str) -> bool:
        """Tell whether this request is the fault's, and count it."""
        if self.fired >= self.times or self.method not in (None, method) or not re.search(self.path, path):
            return False
        self.seen += 1
        if self.seen <= self.skip:
            return False
        self.fired += 1
        return True


class World:
    """All that the emulator knows; one asyncio loop changes it, and never in the middle of an await."""

    def __init__(self, seed: str):
        self.tokens: dict[str, float] = {}  # Procore's; value: unix time of the end
        self.ws_tokens: dict[str, float] = {}
        self.clear(seed)

    def clear(self, seed: str) -> None:
        """Forget all but the tokens: whoever is signed in stays so."""
        if seed not in SEEDS:
            raise Refusal(422, {"error": f"no seed {seed!r}; there are {', '.join(SEEDS)}"})
        self.seed = seed
        self.clock = Clock()
        self.switches: dict[str, Any] = {name: switch.values[0] for name, switch in SWITCHES.items()}
        self.effects: list[dict[str, Any]] = []
        self.requests: deque[dict[str, Any]] = deque(maxlen=REQUESTS_KEPT)
        self.requests_served = 0
        self.requests_by_route: Counter[str] = Counter()  # of all, while ``requests`` keeps the last ones only
        self.faults: list[Fault] = []
        self.fault_ids = itertools.count(1)
        self.bodies_by_token: dict[str, bytes] = {}  # by idempotency token, the body that it came with first
        self.spike: deque[float] = deque()
        self.hour: deque[float] = deque()

    def issue(self, store: dict[str, float], lifetime: float) -> str:
        token = secrets.token_urlsafe(32)
        store[token] = self.clock.time() + lifetime
        return token

    def revoke_all(self) -> None:
        self.tokens.clear()
        self.ws_tokens.clear()

    def is_valid(self, store: dict[str, float], token: str) -> bool:
        return store.get(token, 0.0) > self.clock.time()

    def token_refusal(self, body: Any) -> Refusal:
        """Return the answer to a call whose token is not valid (any more)."""
        kind = self.switches["refused_token"]
        if kind == "redirect":
            return Refusal(302, "", {"Location": "/account/login?ReturnUrl=%2F"})
        return Refusal(401, body) if kind == "401" else Refusal(200, SIGN_IN_PAGE)

    def record_effect(
        self, product: str, action: str, by: str, target: dict[str, Any], detail: dict[str, Any], via: str
    ) -> None:
        self.effects.append(
            {
                "n": len(self.effects) + 1,
                "at": self.clock.iso(),
                "product": product,
                "action": action,
                "by": by,
                "target": target,
                "detail": detail,
                "via": via,
            }
        )

    def set_switches(self, wanted: dict[str, Any]) -> None:
        """Turn all of them, or none if one of them cannot be."""
        for name, value in wanted.items():
            if name not in SWITCHES:
                raise Refusal(422, {"error": f"no switch {name!r}; there are {', '.join(SWITCHES)}"})
            if not SWITCHES[name].allows(value):
                raise Refusal(422, {"error": f"switch {name!r} takes {SWITCHES[name].allowed}"})
        for name, value in wanted.items():
            self.switches[name] = value if SWITCHES[name].takes_number else str(value)

    def in_background_case(self, status: str) -> str:
        return status.upper() if self.switches["background_status_case"] == "upper" else status

    def is_reused(self, token: str | None, body: bytes) -> bool:
        """Tell whether an idempotency token came with another body before, where the server compares."""
        if token is None or self.switches["idempotency_other_body"] == "ignored":
            return False
        return self.bodies_by_token.setdefault(token, body) != body

    # --- Procore's rate limits ---

    def take_from_budget(self) -> tuple[bool, dict[str, str]]:
        """Count one request; return whether it is within the limits, and the headers that tell of them."""
        on = self.switches["rate_limit"] == "on"
        now = self.clock.time()
        windows = (
            (self.spike, 10.0, int(self.switches["spike_limit"])),
            (self.hour, 3600.0, int(self.switches["hourly_limit"])),
        )
        for times, length, _ in windows:
            while times and times[0] <= now - length:
                times.popleft()
        allowed = not on or all(len(times) < limit for times, _, limit in windows)
        if allowed:
            for times, _, _ in windows:
                times.append(now)
        times, length, limit = min(windows, key=lambda window: window[2] - len(window[0]))
        reset_at = int((times[0] if times else now) + length) + 1
        headers = {
            "X-Rate-Limit-Limit": str(limit),
            "X-Rate-Limit-Remaining": str(max(limit - len(times), 0)),
            "X-Rate-Limit-Reset": str(reset_at),
        }
        shown = {"always": True, "never": False, "when_on": on}[self.switches["rate_headers"]]
        if allowed:
            return True, headers if shown else {}
        told = self.switches["rate_429"]
        if told == "retry_after" or not shown:
            headers = {}
        if told != "reset_header" or not shown:
            headers["Retry-After"] = str(max(int(reset_at - now + 0.999), 1))
        return False, headers
