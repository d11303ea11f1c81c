"""The probes of Procore v2 that need lists and single responses only: paging, limits, filters, errors, formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.diagnostics.contract_check import documented, paging
from airflow_provider_workflows.diagnostics.contract_check.outcomes import (
    Outcome,
    Probe,
    not_seen,
    only_side,
    seen,
    unexpected,
)
from airflow_provider_workflows.diagnostics.contract_check.procore_reader import responded_while_open
from airflow_provider_workflows.diagnostics.contract_check.recording import Reading, Records

MAX_SPIKE_SECONDS = 11.0  # the documented window of 10 seconds, rounded up
FIRST_PAGE = "the list of instances has no second page"
OFFSET = re.compile(r"[+-]\d\d:?\d\d$")
ISO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")
OPTIONAL_MEMBERS = ("name", "step_histories", "notification_recipients")


# --- paging and limits ---


def cursor_place(records: Records) -> Outcome:
    first = records.last("instances_first")
    if first is None or not first.rows or not _has_more_than_one(records, first):
        return not_seen(FIRST_PAGE)
    sides = list(paging.cursor_sides(first))
    if sides:
        return seen(sides[0], "a page of one row")
    signs = paging.signs_of(first)
    if signs is None or signs.unknown:
        return unexpected("a next page is named in a way that this package rejects", *(signs.unknown if signs else ()))
    if paging.names_page(first) or _has_second_page(records):
        return not_seen("the list has page numbers and no cursors")
    if signs.places or signs.cursors:
        return unexpected("a next page is named in another way, which this package follows")
    return unexpected("nothing says that there is a next page")


def instances_paging(records: Records) -> Outcome:
    first, second = records.last("instances_first"), records.last("instances_second")
    if first is None or second is None or not first.rows or not _has_more_than_one(records, first):
        return not_seen(FIRST_PAGE)
    sides = set(paging.cursor_sides(first))
    if sides & {"body_has_more", "body_total_pages"}:
        return not_seen("the list returns no cursor, and only says that there is more")
    if not sides:
        is_numbered = paging.names_page(first) or _has_second_page(records)
        return seen("page_only", "a page by its number") if is_numbered else not_seen("the list returns no cursor")
    if not second.is_ok:
        return seen("cursor_only", f"a page number is rejected with {second.status}")
    if _has_second_page(records):
        return seen("cursor_and_page", "the second page by its number")
    return seen("cursor_only", "a page number is ignored")


def _has_second_page(records: Records) -> bool:
    """Return whether the second page, by its number, is another one than the first."""
    first, second = records.last("instances_first"), records.last("instances_second")
    rows = [reading.rows[0].get("id") for reading in (first, second) if reading is not None and reading.rows]
    return len(rows) == 2 and rows[0] != rows[1]


def page_headers(records: Records) -> Outcome:
    first = records.last("templates_first")
    if first is None or not first.is_ok or not first.rows:
        return not_seen("no list by page numbers could be read")
    headers = first.headers
    for side, names in {
        "documented": ("Link", "Total"),
        "next_page": ("X-Next-Page",),
        "total_pages": ("X-Total-Pages",),
        "has_more": ("X-Has-More",),
    }.items():
        if any(name in headers for name in names):
            return seen(side, "a page of one row")
    return unexpected("a page names others in another way") if paging.has_next(first) else seen("none", "a full page")


def list_total(records: Records) -> Outcome:
    lists = [r for r in records.all("templates", "users", "legacy_instances", "legacy_histories") if r.is_ok]
    whole = [r for r in lists if len(r.rows) < int(r.query["per_page"]) and r.headers.get("Total", "").isdecimal()]
    if any(int(r.headers["Total"]) > len(r.rows) for r in whole):
        return seen("hidden_rows_too", "a list on one page has fewer rows than its total")
    return not_seen("no total is larger than its list, which proves nothing unless rows are hidden")


def page_limit(records: Records) -> Outcome:
    sizes: dict[int, int] = {}
    for reading in records.all("instances"):
        sizes.setdefault(int(reading.query["per_page"]), reading.status)
    if sizes.get(100) == 200:
        pages = [reading for reading in records.all("instances") if int(reading.query["per_page"]) == 100]
        if any(0 < len(page.rows) < 100 and paging.has_next(page) for page in pages):
            return seen("lowered", "a page of 100 rows has fewer rows, and a next page")
        longest = max(len(page.rows) for page in pages)
        if longest > 50:
            return seen("documented", f"100 rows were accepted, and {longest} returned")
        return not_seen(f"100 rows were accepted, but no tool that was read has more than {longest} instances")
    smaller = [size for size, status in sizes.items() if status == 200]
    if smaller and sizes.get(100) in (400, 422):
        return seen("50", f"100 rows were rejected with {sizes[100]}, {max(smaller)} accepted")
    return not_seen("no list of instances could be read")


def rate_headers(records: Records) -> Outcome:
    states = [_rate(reading) is not None for reading in _of_api(records)]
    if not states:
        return not_seen("nothing could be read")
    return seen("always" if any(states) else "never", f"{sum(states)} of {len(states)} responses state it")


def spike_limit(records: Records) -> Outcome:
    return _limit(records, is_spike=True)


def hourly_limit(records: Records) -> Outcome:
    return _limit(records, is_spike=False)


def _limit(records: Records, *, is_spike: bool) -> Outcome:
    windows: dict[int, float] = {}
    for rate in filter(None, map(_rate, _of_api(records))):
        if rate.limit is not None and rate.reset_in is not None:
            windows[rate.limit] = max(windows.get(rate.limit, 0.0), rate.reset_in)
    limits = [limit for limit, seconds in windows.items() if (seconds <= MAX_SPIKE_SECONDS) == is_spike]
    if not limits:
        return not_seen("no response states it; only the nearer limit is stated")
    return seen(str(limits[-1]), "as responses state")


def token_lifetime(records: Records) -> Outcome:
    token = records.last("token")
    seconds = token.json.get("expires_in") if token is not None and isinstance(token.json, dict) else None
    if token is None or not isinstance(seconds, int):
        return not_seen("no token was fetched" if token is None else "the token's response does not say")
    return seen(str(seconds), "expires_in of the token")


def _rate(reading: Reading) -> RateLimit | None:
    return RateLimit.from_headers(reading.headers, 0.0)


def _of_api(records: Records) -> list[Reading]:
    return [reading for reading in records.readings if reading.name != "token" and reading.path.startswith("/rest/")]


def _has_more_than_one(records: Records, first: Reading) -> bool:
    return any(len(r.rows) > 1 for r in records.all("instances") if r.subject == first.subject)


# --- filters ---


def filters(records: Records) -> Outcome:
    by_item, ended = records.last("instances_item"), records.last("instances_ended")
    requested = str(by_item.query.get("filters[item_id]")) if by_item is not None else ""
    if by_item is not None and any(str(row.get("item_id")) != requested for row in by_item.rows):
        return seen("ignored", "a list of one item has rows of others")
    if ended is not None and any(not row.get("ended_at") for row in ended.rows):
        return seen("ignored", "a list of ended instances has active ones")
    others = any(str(row.get("item_id")) != requested for row in records.rows("instances"))
    if by_item is not None and by_item.rows and others:
        return seen("honoured", "a list of one item has its rows only")
    return not_seen("fewer than two items have instances")


def active_default(records: Records) -> Outcome:
    lists = records.all("instances")
    if any(row.get("ended_at") for reading in lists for row in reading.rows):
        return seen("all", "a list without the filter has ended instances")
    ended = records.last("instances_ended")
    if ended is None or not any(row.get("ended_at") for row in ended.rows):
        return not_seen("no instance has ended")
    unfiltered = next(r for r in lists if r.subject == ended.subject)
    if paging.has_next(unfiltered):
        return not_seen("the list without the filter has further pages")
    return seen("active_only", "a list without the filter lacks the ended instances")


def assignee_filter(records: Records) -> Outcome:
    listed = records.last("instances_assignee")
    if listed is None or not listed.is_ok:
        return not_seen("no step has a response and waits for others")
    user_id = str(listed.query.get("filters[assignee_id]"))
    open_ids = {r.subject for r in records.all("instance") if user_id in responded_while_open(r.item)}
    found = {str(row.get("id")) for row in listed.rows}
    if open_ids & found:
        return seen("all_assignees", "a user who has responded is still found")
    if paging.has_next(listed):
        return not_seen("the list of the user's instances has further pages")
    return seen("pending_only", "a user who has responded is not found any more")


def tools_list(records: Records) -> Outcome:
    tools = records.last("tools")
    if tools is None:
        return not_seen("nothing could be read")
    sides = {200: "allowed", 403: "forbidden"}
    return seen(sides[tools.status], f"status {tools.status}") if tools.status in sides else _status(tools)


def _status(reading: Reading) -> Outcome:
    return unexpected(f"status {reading.status}")


# --- errors and formats ---


def missing_company_header(records: Records) -> Outcome:
    reading = records.last("no_company_header")
    if reading is None:
        return not_seen("nothing could be read")
    is_known = reading.status in (400, 403)
    return seen(str(reading.status), f"status {reading.status}") if is_known else _status(reading)


def error_body(records: Records) -> Outcome:
    reading = records.last("unknown_instance")
    if reading is None or reading.is_ok:
        return not_seen("no call was rejected")
    if reading.body.lstrip()[:1] == b"<":
        return seen("page", f"status {reading.status} for an unknown instance")
    body = reading.json if isinstance(reading.json, dict) else {}
    if isinstance(body.get("error"), dict):
        return seen("documented", f"status {reading.status} for an unknown instance")
    if any(name in body for name in ("message", "errors", "error")):
        return seen("v1", f"status {reading.status} for an unknown instance")
    return unexpected("an unknown instance is rejected in another format")


def time_format(records: Records) -> Outcome:
    texts = [text for reading in _of_api(records) for text in _times(reading.json)]
    return only_side(map(_format_of, texts), "no response has a time", "times")


def _times(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _times(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if isinstance(item, str) and str(name).endswith("_at"):
                yield item
            else:
                yield from _times(item)


def _format_of(text: str) -> str:
    if ISO_TIME.match(text) is None:
        return "another format"
    if OFFSET.search(text):
        return "offset"
    if not text.endswith("Z"):
        return "no zone"
    return "milliseconds" if "." in text else "utc"


def created_by(records: Records) -> Outcome:
    rows = [reading.item for reading in records.all("instance") if reading.item] or list(records.rows("instances"))
    named = [row for row in rows if isinstance(row.get("created_by"), dict)]
    if not rows:
        return not_seen("no instance could be read")
    return seen("present" if named else "absent", f"{len(named)} of {len(rows)} instances name their creator")


def optional_members(records: Records) -> Outcome:
    steps = [reading.item.get("current_step_occurrence") for reading in records.all("instance")]
    found = [sum(name in step for name in OPTIONAL_MEMBERS) for step in steps if isinstance(step, dict)]
    if any(0 < number < len(OPTIONAL_MEMBERS) for number in found):
        return unexpected("a step has some of the members that only newer texts have")
    return only_side(("present" if number else "absent" for number in found), "no instance has a step", "steps")


def more_members(records: Records) -> Outcome:
    readings = [r for r in _of_api(records) if r.path.startswith("/rest/v2.0") and r.is_ok]
    if not readings:
        return not_seen("nothing could be read")
    names = dict.fromkeys(name for reading in readings for name in documented.unknown_members(reading.json))
    if names:
        return seen("more", f"members that the documents lack: {len(names)}", *names)
    return seen("documented", f"none in {len(readings)} responses")


def role_group_type(records: Records) -> Outcome:
    groups = [g for r in records.all("version") for g in r.item.get("responsible_groups") or [] if isinstance(g, dict)]
    types = [str(group.get("type")) for group in groups]
    known = ("responsible_role", "project_role")
    sides = [t if t in known else "RESPONSIBLE_ROLE" for t in types if "role" in t.lower()]
    return only_side(sides, "no template has a group of a role", "groups of roles")


# --- bulk replacements ---


def bulk_replace_rows(records: Records) -> Outcome:
    rows = list(records.rows("replacements"))
    if not rows:
        return not_seen("there is no bulk replacement")
    row = rows[0]
    if isinstance(row.get("old_assignee"), dict):
        is_cut = any("T" in str(r.get("start_date") or r.get("end_date") or "") for r in rows)
        return seen("cut" if is_cut else "people", f"rows: {len(rows)}")
    if "old_assignee_id" in row:
        return seen("ids", f"rows: {len(rows)}")
    if set(row) <= {"id", "status"}:
        return seen("bare", f"rows: {len(rows)}")
    return unexpected("a bulk replacement names its people in another way")


def bulk_replace_status(records: Records) -> Outcome:
    statuses = [str(row.get("status")) for row in records.rows("replacements")]
    if not statuses:
        return not_seen("there is no bulk replacement")
    if any(status.lower() not in documented.REPLACEMENT_STATUSES for status in statuses):
        return seen("more_words", f"rows: {len(statuses)}", *dict.fromkeys(statuses))
    if any(status != status.lower() for status in statuses):
        return seen("upper_case", f"rows: {len(statuses)}")
    return seen("documented", f"rows: {len(statuses)}")


def bulk_replace_filters(records: Records) -> Outcome:
    listed, filtered = records.last("replacements"), records.last("replacements_filtered")
    if listed is None or filtered is None or not filtered.is_ok:
        return not_seen("there is no bulk replacement")
    desired = str(filtered.query["filters[status]"])
    if any(str(row.get("status")).lower() != desired for row in filtered.rows):
        return seen("ignored", "a list of one status has rows of others")
    return seen("honoured", "a list of one status has no rows of others")


def bulk_replace_errors(records: Records) -> Outcome:
    for reading in _reports(records, "completed"):
        if reading.status == 404:
            return seen("absent", "status 404")
        if reading.status == 200:
            return seen("empty", "status 200")
    return not_seen("no completed bulk replacement has an errors file that could be read")


def bulk_replace_csv(records: Records) -> Outcome:
    for reading in (r for r in records.all("replacement_errors") if r.status == 200 and r.body.strip()):
        if reading.body[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return seen("utf-16", "the file starts with a byte order mark")
        try:
            first = reading.body.decode("utf-8-sig").splitlines()[0].lower()
        except UnicodeDecodeError:
            return unexpected("the errors file has another encoding")
        is_named = re.search(r"(project|\bid|error|message)", first) is not None and not re.search(r"\d", first)
        return seen("named_columns" if is_named else "no_names", "the first row")
    return not_seen("no bulk replacement has an errors file with rows")


def bulk_replace_report(records: Records) -> Outcome:
    sides = {200: "at_once", 202: "accepted_first", 302: "redirect", 303: "redirect", 307: "redirect", 403: "forbidden"}
    readings = [reading for reading in records.all("replacement_errors") if reading.status != 404]
    if not readings:
        return not_seen("no bulk replacement has an errors file")
    status = readings[0].status
    return seen(sides[status], f"status {status}") if status in sides else _status(readings[0])


def _reports(records: Records, status: str) -> list[Reading]:
    ids = {str(row.get("id")) for row in records.rows("replacements") if str(row.get("status")).lower() == status}
    return [reading for reading in records.all("replacement_errors") if reading.subject in ids]


PROBES: dict[str, Probe] = {
    probe.__name__: probe
    for probe in (
        cursor_place,
        instances_paging,
        page_headers,
        list_total,
        page_limit,
        rate_headers,
        spike_limit,
        hourly_limit,
        token_lifetime,
        filters,
        active_default,
        assignee_filter,
        tools_list,
        missing_company_header,
        error_body,
        time_format,
        created_by,
        optional_members,
        more_members,
        role_group_type,
        bulk_replace_rows,
        bulk_replace_status,
        bulk_replace_filters,
        bulk_replace_errors,
        bulk_replace_csv,
        bulk_replace_report,
    )
}
