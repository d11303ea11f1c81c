"""Variations of all responses of Procore: times, error bodies, and members and words beyond or below the documents'."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

FLAGS = ("time_format", "error_body", "more_members", "more_words", "optional_members")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
OPTIONAL = ("name", "step_histories", "notification_recipients")  # of a current step, absent in older texts
ERROR_PAGE = "<!DOCTYPE html><html><head><title>Error</title></head><body><h1>Error</h1></body></html>"


def varied(flags: Mapping[str, Any], path: str, status: int, body: bytes) -> tuple[Any, str | None] | None:
    """
    Return a response in the format of the flags, as JSON or as text; None if it stays as it is.

    :param body: The response in the documented format.
    """
    is_v2 = path.startswith("/rest/v2.")
    if not any(flags[name] not in ("documented", "utc", "present") for name in FLAGS) or not body:
        return None
    try:
        content = json.loads(body)
    except ValueError:
        return None
    if status >= 400:
        return _error(flags["error_body"], status, content) if is_v2 else None
    return _walk(content, _changes(flags, is_v2)), None


def _error(style: str, status: int, content: Any) -> tuple[Any, str | None] | None:
    error = content.get("error") if isinstance(content, dict) else None
    if style == "documented" or not isinstance(error, dict):
        return None
    if style == "page":
        return None, ERROR_PAGE
    return {"message": error["message"], "code": status, "errors": error["message"]}, None


def _changes(flags: Mapping[str, Any], is_v2: bool) -> list[Callable[[dict[str, Any]], None]]:
    changes: list[Callable[[dict[str, Any]], None]] = []
    time_format = flags["time_format"]
    if time_format != "utc":
        end = ".000Z" if time_format == "milliseconds" else "+00:00"
        changes.append(lambda item: item.update({k: v[:-1] + end for k, v in item.items() if _is_time(v)}))
    if not is_v2:
        return changes
    if flags["optional_members"] == "absent":
        changes.append(_drop_optional)
    if flags["more_words"] == "more":
        changes.append(_add_event)
    if flags["more_members"] == "more":
        changes.append(lambda item: item.update({"undocumented": {"value": 1}} if "id" in item else {}))
    return changes


def _is_time(value: Any) -> bool:
    return isinstance(value, str) and TIME.fullmatch(value) is not None


def _drop_optional(item: dict[str, Any]) -> None:
    if isinstance(step := item.get("current_step_occurrence"), dict):
        for name in OPTIONAL:
            step.pop(name, None)
        for response in step["response_occurrences"]:
            response.pop("comment", None)


def _add_event(item: dict[str, Any]) -> None:
    if isinstance(events := item.get("history"), list) and len(events) > 1:
        events.append({"type": "ReminderSent", "details": {"description": "A reminder was sent."}})


def _walk(value: Any, changes: list[Callable[[dict[str, Any]], None]]) -> Any:
    if isinstance(value, list):
        return [_walk(item, changes) for item in value]
    if isinstance(value, dict):
        for change in changes:
            change(value)
        return {name: item if name == "undocumented" else _walk(item, changes) for name, item in value.items()}
    return value
