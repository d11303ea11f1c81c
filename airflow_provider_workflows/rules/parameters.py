"""Checks of parameters that several operators and sensors make, after templates are rendered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError

NOT_AN_ID = re.compile(r"\d+\.\d*|\d+(\.\d+)?[eE][+-]?\d+")  # as a table with gaps writes ids, for example
LABELS = ("activity", "after", "diagram", "option", "role", "step")  # annotated as ids, but names as well
TEXT, ID, TEXTS, ROW = "text", "id", "several", "row"
# Text that people write; "None" in one of these is an empty template, and not what they meant to say.
PROSE = ("comment", "comments", "message", "description", "reason")


def check_rendered(operator: Any) -> None:
    """
    Make the parameters of an operator or sensor that hold text hold text, whatever their templates were rendered to.

    With ``render_template_as_native_obj`` a template becomes a number, a list or a time. A whole number is taken as
    text, for it is an id or a label; of what else there is nobody knows how it was written, so it is rejected. Which
    parameters hold text is read from the annotations of the constructors.

    :raises ConfigurationError: a value that is no text; the message names the parameter.
    """
    for name, kind in text_parameters(type(operator)).items():  # type: ignore[arg-type]  # a class can be hashed
        value = getattr(operator, name, None)
        if value is None or (kind == ROW and isinstance(value, Mapping)):
            continue
        is_id = kind != TEXT and name not in LABELS
        if kind == TEXTS and isinstance(value, (list, tuple, set, frozenset)):
            # What is empty there is the operator's to reject.
            text: Any = [one if one is None else as_text(name, one, is_id=is_id) for one in value]
        else:
            text = as_text(name, value, is_id=is_id)
        if text != value:
            setattr(operator, name, text)
    if hasattr(operator, "confirm_timeout"):
        check_seconds("confirm_timeout", operator.confirm_timeout)


def as_text(name: str, value: Any, *, is_id: bool = False) -> str:
    """
    Return a parameter's value as text.

    :param is_id: Reject a text with a fraction such as "5001.0", too.
    :raises ConfigurationError: it is neither text nor a whole number, or no id; the message names the parameter.
    """
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        shown = type(value).__name__ if name in PROSE else f"{type(value).__name__} {str(value)[:100]!r}"
        raise ConfigurationError(
            f"{name} must be text or a whole number; got {shown}. Where templates are rendered as native objects, add "
            "a filter that makes it text, such as '| string'."
        )
    if is_id and NOT_AN_ID.fullmatch(value.strip()):
        raise ConfigurationError(f"{name} must be an id, a whole number; got {value!r}.")
    if name in PROSE and value.strip() == "None":
        raise ConfigurationError(f"{name} is the text 'None': its template was rendered empty. Give no {name} instead.")
    return value


def seconds(value: timedelta | float) -> Any:
    """Return a duration in seconds; what is none is returned as it is, for :func:`check_seconds`."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def check_seconds(name: str, value: Any) -> None:
    """Require a parameter to be a number of seconds, at least 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < float("inf"):
        raise ConfigurationError(f"{name} must be seconds or a timedelta, at least 0; got {value!r}.")


@cache
def text_parameters(cls: type) -> Mapping[str, str]:
    """Return the parameters of a class that are annotated as text, and whether they are ids, or may be several."""
    found: dict[str, str | None] = {}
    for base in cls.__mro__:
        if not base.__module__.startswith("airflow_provider_workflows."):
            continue
        for name, annotation in getattr(vars(base).get("__init__"), "__annotations__", {}).items():
            found.setdefault(name, None if name.endswith("conn_id") else _kind(str(annotation)))
    return {name: kind for name, kind in found.items() if kind is not None}


def _kind(annotation: str) -> str | None:
    several = re.sub(r"(Sequence|Collection)\[[\w |]+\]", "SEVERAL", annotation)
    kinds = {kind.strip() for kind in re.sub(r"Mapping\[[\w, ]+\]", "ROW", several).split("|")} - {"None"}
    if "str" not in kinds or not kinds <= {"str", "int", "SEVERAL", "ROW"} or annotation.startswith("int"):
        return None  # the last is a number
    if "SEVERAL" in kinds:
        return TEXTS
    return ROW if "ROW" in kinds else ID if "int" in kinds else TEXT


def require_exactly_one(**given: Any) -> None:
    """Require exactly one of the named parameters; absence is None, and an empty rendering is a mistake."""
    names = ", ".join(given)
    present = [name for name, value in given.items() if value is not None]
    if len(present) != 1:
        problem = "none of them was" if not present else f"{' and '.join(present)} were"
        raise ConfigurationError(f"Give exactly one of {names}; {problem} given.")
    check_required(**{name: given[name] for name in present})


def check_required(**given: Any) -> None:
    """Require every named parameter to have a value."""
    for name, value in given.items():
        if value is None or str(value).strip() in ("", "None"):
            raise ConfigurationError(f"{name} is missing or was rendered empty.")
        if isinstance(value, (bool, float)):
            as_text(name, value)


def check_given(operator: object, *names: str) -> None:
    """Require every named attribute that is not None to have a value: an empty rendering is a mistake."""
    for name in names:
        if getattr(operator, name) is not None:
            check_required(**{name: getattr(operator, name)})


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Require a parameter to be one of the allowed words."""
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def str_id(value: str | int | None) -> str | None:
    """Return an id as text, as ids are everywhere in this package."""
    return None if value is None else str(value).strip()


def as_list(value: Any) -> list[Any]:
    """Return a parameter that may be one value or several as a list."""
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
