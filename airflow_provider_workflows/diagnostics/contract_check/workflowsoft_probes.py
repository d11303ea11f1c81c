"""The probes of Workflowsoft."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import simplejson

from airflow_provider_workflows.client.rate_limit_headers import RateLimit
from airflow_provider_workflows.diagnostics.contract_check import documented
from airflow_provider_workflows.diagnostics.contract_check.outcomes import (
    Outcome,
    Probe,
    not_seen,
    only_side,
    seen,
    unexpected,
)
from airflow_provider_workflows.diagnostics.contract_check.recording import Records

NO_FIELDS = "no fields were read: name an open integration instance with --instance-id"
NO_TITLES = "no process diagram could be read"
OFFSET = re.compile(r"T.*[+-]\d\d:?\d\d$")
INVALID = object()  # in place of a value that is not JSON
WAYS = {"basic": "basic", "bearer": "bearer", "cookie": "cookie"}

Field = dict[str, Any]


# --- sign-in ---


def ws_token_shape(records: Records) -> Outcome:
    token = records.last("token")
    if token is None:
        return not_seen("the connection has a token of its own")
    if 300 <= token.status < 400:
        return seen("redirect", f"status {token.status}")
    text = token.body.lstrip()
    if text[:1] == b"<" or "html" in token.headers.get("Content-Type", ""):
        return seen("login_page", "an HTML page")
    if isinstance(token.json, dict):
        return seen("object", "a JSON object")
    if isinstance(token.json, str):
        return seen("json_string", "a JSON string")
    return seen("text", "a text") if text and token.json is None else unexpected("the response has no token")


def ws_token_lifetime(records: Records) -> Outcome:
    token = records.last("token")
    if token is None or not token.is_ok:
        return not_seen("the connection has a token of its own" if token is None else "no token was issued")
    stated = (
        {str(name).lower().replace("_", ""): value for name, value in (token.json or {}).items()}
        if (isinstance(token.json, dict))
        else {}
    )
    seconds, requested = stated.get("expiresin"), int(token.query.get("lifeTimeInSec", 0))
    if not isinstance(seconds, int):
        return seen("not_stated", "the response names no lifetime")
    if seconds > requested:
        return unexpected("the token lives longer than requested")
    return seen("as_requested" if seconds == requested else "shorter", "the lifetime in the response")


def ws_api_token_auth(records: Records) -> Outcome:
    token = records.last("token")
    if token is None or not token.is_ok or token.sign_in not in WAYS:
        return not_seen("no token was issued for a login")
    return seen(WAYS[token.sign_in], "the way of the connection; others were not tried")


def ws_rate_limit(records: Records) -> Outcome:
    if any(RateLimit.from_headers(reading.headers, 0.0) is not None for reading in records.readings):
        return seen("as_procore", "responses state a rate limit")
    return not_seen("no response states a limit; only going over one would show it")


# --- lists ---


def ws_names(records: Records) -> Outcome:
    keys = {key for row in records.rows("diagrams", "steps", "users") for key in row}
    if not keys:
        return not_seen(NO_TITLES)
    if all(key[:1].islower() for key in keys):
        return seen("camel", "names in lists")
    if not all(key[:1].isupper() for key in keys):
        return unexpected("the names in one list are in different cases")
    fields = {key for field in _fields(records) for key in field}
    if not fields:
        return not_seen(NO_FIELDS)
    is_camel = all(key[:1].islower() for key in fields)
    return seen("as_documented" if is_camel else "pascal", "names in lists and fields")


def ws_ids(records: Records) -> Outcome:
    ids = [row[key] for row in records.rows("diagrams", "steps", "users") for key in row if key.lower() == "id"]
    return only_side(("texts" if isinstance(value, str) else "numbers" for value in ids), NO_TITLES, "ids")


def ws_labels(records: Records) -> Outcome:
    titles = [_text(row, "title") for row in records.rows("diagrams", "steps")]
    labels = [[_text(field, "label") for field in fields] for fields in _by_instance(records)]
    if any(text != text.rstrip() for text in (*titles, *(label for some in labels for label in some))):
        return seen("trailing_blank", "a title or label ends with a blank")
    if any(len(set(some)) < len(some) for some in labels):
        return seen("repeated", "two fields of an instance have one label")
    return seen("as_drawn", f"labels: {sum(map(len, labels))}") if any(labels) else not_seen(NO_FIELDS)


def ws_list_limit(records: Records) -> Outcome:
    listed = records.last("diagrams")
    searches = records.all("diagrams_found")
    if listed is None or not listed.rows or not searches:
        return not_seen("too few or too many process diagrams to compare")
    known = {_id(row) for row in listed.rows}
    more = {_id(row) for reading in searches for row in reading.rows} - known
    if more:
        return seen("at_most_3", f"{len(known)} of 100 requested rows, and a search finds others")
    return seen("as_requested", f"{len(known)} of 100 requested rows, and {len(searches)} searches find no others")


def ws_user_search(records: Records) -> Outcome:
    users = records.last("users")
    if users is None or not users.is_ok:
        return not_seen("users may not be searched")
    if users.rows:
        return seen("part", "a part of an address finds users")
    return not_seen("a part of an address finds no user, who may also be hidden")


def ws_true(records: Records) -> Outcome:
    capital = records.last("steps_capital")
    if capital is None:
        return not_seen("no process diagram has other tasks beside its integration steps")
    if not capital.is_ok:
        return seen("lower_case", f"status {capital.status} for True")
    lower, whole = (
        next(len(r.rows) for r in records.all(name) if r.subject == capital.subject) for name in ("steps", "steps_all")
    )
    if len(capital.rows) == lower:
        return seen("any_case", "True selects the integration steps as well")
    is_all = len(capital.rows) == whole
    return seen("lower_case", "True selects all tasks") if is_all else unexpected("True selects other tasks")


# --- fields ---


def ws_read_on_behalf(records: Records) -> Outcome:
    readings = records.all("fields")
    if any(reading.is_ok for reading in readings):
        return seen("not_needed", "fields were read without the header")
    if any(reading.is_ok for reading in records.all("fields_on_behalf")):
        return seen("needed", "status 403 without the header")
    return not_seen(NO_FIELDS if not readings else f"status {readings[0].status}")


def ws_type_names(records: Records) -> Outcome:
    sides = []
    for name in (_text(field, "type").rstrip("?") for field in _fields(records)):
        if name in documented.FIELD_TYPES:
            sides.append("as_documented")
        elif name.removeprefix("System.") in documented.FIELD_TYPES:
            sides.append("system")
        elif name in {known.lower() for known in documented.FIELD_TYPES}:
            sides.append("lower_case")
    return only_side(sides, NO_FIELDS, "fields of known types")


def ws_empty_value(records: Records) -> Outcome:
    kinds = set()
    for field in _fields(records):
        value = _member(field, "valueJson", "absent")
        if value in (None, "", "null", "absent"):
            kinds.add({None: "json_null", "": "empty_text", "null": "null_text"}.get(value, "absent"))
    if not kinds:
        return not_seen("no field is empty" if any(_fields(records)) else NO_FIELDS)
    if kinds == {"json_null", "null_text"}:
        return seen("as_written", "null, and the text null")
    return seen(kinds.pop(), "empty fields") if len(kinds) == 1 else unexpected("empty fields differ")


def ws_value_format(records: Records) -> Outcome:
    sides = [side for field in _fields(records) if (side := _format(field)) is not None]
    others = sorted(set(sides) - {"documented"})
    if len(others) > 1:
        return unexpected(f"values have several formats: {', '.join(others)}")
    if others:
        return seen(others[0], f"{sides.count(others[0])} of {len(sides)} values")
    return seen("documented", f"values: {len(sides)}") if sides else not_seen(NO_FIELDS)


def ws_times(records: Records) -> Outcome:
    values = [_value(field) for field in _fields(records) if _type(field) == "datetime" and not _is_empty(field)]
    return only_side(map(_time_format, values), f"no field has a time, or {NO_FIELDS}", "times")


def ws_options_shape(records: Records) -> Outcome:
    shapes = [_options_shape(options) for field in _fields(records) if (options := _member(field, "options", None))]
    return only_side(shapes, f"no field has options, or {NO_FIELDS}", "fields with options")


def ws_option_value(records: Records) -> Outcome:
    sides = []
    for field in _fields(records):
        options = _member(field, "options", None)
        if not isinstance(options, list) or _is_empty(field):
            continue
        value = str(_value(field))
        rows = [option if isinstance(option, dict) else {"text": option} for option in options]
        ids = {str(_member(row, "id", None)) for row in rows if _member(row, "id", None) is not None}
        texts = {str(item) for row in rows for key, item in row.items() if key.lower() != "id"}
        if (value in ids) != (value in texts):
            sides.append("id" if value in ids else "text")
    return only_side(sides, f"no field with options has a value, or {NO_FIELDS}", "fields with options")


def _by_instance(records: Records) -> Iterator[list[Field]]:
    for reading in records.all("fields", "fields_on_behalf"):
        if reading.rows:
            yield reading.rows


def _fields(records: Records) -> Iterator[Field]:
    for fields in _by_instance(records):
        yield from fields


def _member(row: Field, name: str, default: Any) -> Any:
    """Return a member by its name in any case."""
    return next((value for key, value in row.items() if key.lower() == name.lower()), default)


def _text(row: Field, name: str) -> str:
    return str(_member(row, name, "") or "")


def _id(row: Field) -> str:
    return _text(row, "id")


def _type(field: Field) -> str:
    return _text(field, "type").rstrip("?").removeprefix("System.").lower()


def _is_empty(field: Field) -> bool:
    return _member(field, "valueJson", None) in (None, "", "null")


def _value(field: Field) -> Any:
    raw = _member(field, "valueJson", None)
    if not isinstance(raw, str):
        return raw
    try:
        return simplejson.loads(raw, use_decimal=True)
    except (ValueError, RecursionError):
        return raw


def _format(field: Field) -> str | None:
    """Return the side that the value of one field shows, or None if it shows none."""
    if _is_empty(field):
        return None
    raw, value, kind = _member(field, "valueJson", None), _value(field), _type(field)
    if not isinstance(raw, str) or value is raw:
        return "parsed"
    if kind == "string":
        return "object" if isinstance(value, dict) else "documented"
    if kind in {name.lower() for name in documented.NUMBER_TYPES} and isinstance(value, str):
        return "comma" if "," in value else "texts"
    if kind == "boolean" and isinstance(value, str):
        return "texts"
    return "documented"


def _time_format(value: Any) -> str:
    if not isinstance(value, str):
        return "epoch"
    if value.startswith("/Date("):
        return "slash_date"
    if OFFSET.search(value):
        return "offset"
    return "utc" if value.endswith("Z") else "no_zone"


def _options_shape(options: Any) -> str:
    if not isinstance(options, list):
        return "unknown"
    if all(isinstance(option, str) for option in options):
        return "texts"
    names = [{str(key).lower() for key in option} if isinstance(option, dict) else set() for option in options]
    for name in ("value", "title", "name"):
        if all({"id", name} <= keys for keys in names):
            return f"id_{name}"
    return "unknown"


PROBES: dict[str, Probe] = {
    probe.__name__: probe
    for probe in (
        ws_token_shape,
        ws_token_lifetime,
        ws_api_token_auth,
        ws_rate_limit,
        ws_names,
        ws_ids,
        ws_labels,
        ws_list_limit,
        ws_user_search,
        ws_true,
        ws_read_on_behalf,
        ws_type_names,
        ws_empty_value,
        ws_value_format,
        ws_times,
        ws_options_shape,
        ws_option_value,
    )
}
