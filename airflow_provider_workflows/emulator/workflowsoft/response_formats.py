"""The responses of Workflowsoft: titles, fields and values as JSON, in the response formats of the flags."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import simplejson

from .schemas import camel, pascal

TOKEN_PATH = "/api/v2/app/apitoken"
NUMBERS = ("Decimal", "Double", "Single", "Int16", "Int32", "Int64")
NUMBERS_WITH_FRACTIONS = NUMBERS[:3]


def shown_title(flags: Mapping[str, Any], title: str) -> str:
    return f"{title} " if flags["ws_labels"] == "trailing_blank" else title


def shown_options(shape: str, options: Sequence[str] | None) -> Any:
    """Return the options of a field in the response format of ``ws_options_shape``."""
    if options is None:
        return None
    if shape.startswith("id_"):
        name = shape.removeprefix("id_").capitalize()
        return [{"Id": number, name: option} for number, option in enumerate(options, 1)]
    return list(options) if shape == "texts" else {"items": ";".join(options)}


def shown_fields(flags: Mapping[str, Any], fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Return fields in the response format of the flags.

    :param fields: The fields in the documented response format.
    """
    shown = []
    for number, field in enumerate(fields):
        label = field["label"]
        if flags["ws_labels"] == "repeated" and number == 1:
            label = fields[0]["label"]
        row = {**field, "label": shown_title(flags, label), "type": _type(flags["ws_type_names"], field["type"])}
        text = field["valueJson"]
        if text in (None, "null"):
            empty = flags["ws_empty_value"]
            row["valueJson"] = {"as_written": text, "null_text": "null", "empty_text": ""}.get(empty)
            if empty == "absent":
                del row["valueJson"]
        else:
            row["valueJson"] = _value(flags, field, text, is_first=number == 0)
        shown.append(row)
    return shown


def _type(naming: str, name: str) -> str:
    if naming == "system":
        return f"System.{name}"
    return name.lower() if naming == "lower_case" else name


def _value(flags: Mapping[str, Any], field: Mapping[str, Any], text: str, *, is_first: bool) -> Any:
    kind = field["type"].rstrip("?")
    value_format = flags["ws_value_format"]
    if kind == "DateTime":
        value = _time(flags["ws_times"], json.loads(text))
        return value if value_format == "parsed" else json.dumps(value)
    if value_format == "parsed":
        return json.loads(text)
    if value_format == "object" and is_first and kind == "String":
        return json.dumps({"text": json.loads(text)})
    if value_format == "texts" and kind in (*NUMBERS, "Boolean"):
        return json.dumps(text)
    if value_format == "comma" and kind in NUMBERS_WITH_FRACTIONS:
        number: Decimal = simplejson.loads(text, use_decimal=True)
        return json.dumps(f"{number:f}".replace(".", ","))
    return text


def _time(time_format: str, text: str) -> Any:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if time_format == "offset":
        return moment.astimezone(timezone(timedelta(hours=2))).isoformat()
    if time_format == "no_zone":
        return moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat()
    milliseconds = int(moment.timestamp() * 1000)
    return {"slash_date": f"/Date({milliseconds})/", "epoch": milliseconds}.get(time_format, text)


def rewrite_response(flags: Mapping[str, Any], path: str, body: bytes) -> bytes:
    """Return a response body with keys and ids in the format of ``ws_names`` and ``ws_ids``, except for the token."""
    rename = {"camel": camel, "pascal": pascal}.get(flags["ws_names"])
    has_text_ids = flags["ws_ids"] == "texts"
    if (rename is None and not has_text_ids) or not body or path == TOKEN_PATH:
        return body
    value = json.loads(body)
    if has_text_ids:
        value = _with_text_ids(value)
    return json.dumps(value if rename is None else _with_keys(value, rename)).encode()


def _with_text_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_text_ids(item) for item in value]
    if isinstance(value, dict):
        return {key: str(item) if key.lower().endswith("id") else item for key, item in value.items()}
    return value


def _with_keys(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_with_keys(item, rename) for item in value]
    if isinstance(value, dict):
        return {rename(key): _with_keys(item, rename) for key, item in value.items()}
    return value
