"""The forms in which Workflowsoft may show its titles, fields and values, as the flags say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import simplejson

from .diagrams import FieldDefinition

NUMBERS = ("Decimal", "Double", "Single", "Int16", "Int32", "Int64")
FRACTIONS = NUMBERS[:3]


def shown_title(flags: Mapping[str, Any], title: str) -> str:
    return f"{title} " if flags["ws_labels"] == "trailing_blank" else title


def shown_options(shape: str, options: Sequence[str] | None) -> Any:
    """Return a field's options in one of the forms that they may have."""
    if options is None:
        return None
    if shape.startswith("id_"):
        name = shape.removeprefix("id_").capitalize()
        return [{"Id": number, name: option} for number, option in enumerate(options, 1)]
    return list(options) if shape == "texts" else {"items": ";".join(options)}


def shown_fields(flags: Mapping[str, Any], fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """
    Return fields in the form that the flags say.

    :param fields: They in the form of the vendor's sample.
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


def normalised(way: str, definition: FieldDefinition, value: Any) -> Any:
    """Return what the server makes of a value that is written."""
    kind = definition.type.rstrip("?")
    if isinstance(value, str) and kind == "String":
        if way == "trim":
            return value.strip()
        if way == "crlf":
            return "\r\n".join(value.splitlines())
    if way == "round" and kind in FRACTIONS and isinstance(value, Decimal):
        return value.quantize(Decimal("0.01"), ROUND_HALF_UP)
    if way == "minutes" and kind == "DateTime" and isinstance(value, str):
        return value[:16] + ":00Z"
    return value


def _type(way: str, name: str) -> str:
    if way == "system":
        return f"System.{name}"
    return name.lower() if way == "lower_case" else name


def _value(flags: Mapping[str, Any], field: Mapping[str, Any], text: str, *, is_first: bool) -> Any:
    kind = field["type"].rstrip("?")
    form = flags["ws_value_form"]
    if kind == "DateTime":
        value = _time(flags["ws_times"], json.loads(text))
        return value if form == "parsed" else json.dumps(value)
    if form == "parsed":
        return json.loads(text)
    if form == "object" and is_first and kind == "String":
        return json.dumps({"text": json.loads(text)})
    if form == "texts" and kind in (*NUMBERS, "Boolean"):
        return json.dumps(text)
    if form == "comma" and kind in FRACTIONS:
        number: Decimal = simplejson.loads(text, use_decimal=True)
        return json.dumps(f"{number:f}".replace(".", ","))
    return text


def _time(way: str, text: str) -> Any:
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if way == "offset":
        return moment.astimezone(timezone(timedelta(hours=2))).isoformat()
    if way == "no_zone":
        return moment.astimezone(timezone.utc).replace(tzinfo=None).isoformat()
    milliseconds = int(moment.timestamp() * 1000)
    return {"slash_date": f"/Date({milliseconds})/", "epoch": milliseconds}.get(way, text)
