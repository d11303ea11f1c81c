"""Checks of rendered parameters that operators and sensors share, so that bad input fails before a call is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from reprlib import repr as short
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError

NOT_AN_ID = r"\d+\.\d*|\d+(\.\d+)?[eE][+-]?\d+"  # as a table with gaps writes ids, for example
MAX_SECONDS = timedelta(days=36_525).total_seconds()
MAX_NUMBER = 10**18  # Python cannot show a number of thousands of digits
LABELS = ("activity", "after", "diagram", "option", "role", "step")  # annotated as ids, but names are allowed
TEXT, ID, TEXTS, IDS, ROW = "text", "id", "texts", "ids", "row"
# Free text; "None" in one of these is an empty rendering of a template, not an intended text.
FREE_TEXT = ("comment", "comments", "message", "description", "reason")
MAY_CONTAIN_NONE = ("fields: ", "op_args", "op_kwargs")  # None empties a field, and is an argument of a function


def check_rendered(operator: Any) -> None:
    """
    Convert the rendered text parameters of an operator or sensor to text.

    With ``render_template_as_native_obj``, Airflow renders a template to a number, a list or a time. A whole number is
    converted to text, because it is an id or a label. Any other value is rejected, because its original text is
    unknown. The annotations of the constructors define which parameters are text.

    :raises ConfigurationError: a value cannot be converted, or was rendered to None although it is not free text; the
        message names the parameter.
    """
    for name in sorted(getattr(operator, "rendered_to_none", frozenset()) - set(FREE_TEXT)):
        if not name.startswith(MAY_CONTAIN_NONE):
            raise rendered_to_none(name)
    for name, kind in text_parameters(type(operator)).items():  # type: ignore[arg-type]  # a class can be hashed
        value = getattr(operator, name, None)
        if value is None or (kind == ROW and isinstance(value, Mapping)):
            continue
        is_id = kind not in (TEXT, TEXTS) and name not in LABELS
        if kind in (TEXTS, IDS) and isinstance(value, (list, tuple, set, frozenset)):
            # The operator rejects empty elements.
            text: Any = [item if item is None else as_text(name, item, is_id=is_id) for item in value]
        else:
            text = as_text(name, value, is_id=is_id)
        if text != value:
            setattr(operator, name, text)
    if hasattr(operator, "confirm_timeout"):
        check_seconds("confirm_timeout", operator.confirm_timeout)


def rendered_to_none(name: str) -> ConfigurationError:
    """Return the error for a parameter, or an element of one, that was rendered to None."""
    return ConfigurationError(
        f"{name} was rendered to None: its template, or the task whose output it is, returned no value. Omit it if it "
        "is not needed."
    )


def as_text(name: str, value: Any, *, is_id: bool = False) -> str:
    """
    Return a parameter's value as text.

    :param is_id: Also reject text that is a number with a fraction, such as "5001.0".
    :raises ConfigurationError: the value is neither text nor a whole number, or not an id; the message names the
        parameter.
    """
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        shown = type(value).__name__ if name in FREE_TEXT else f"{type(value).__name__} {str(value)[:100]!r}"
        raise ConfigurationError(
            f"{name} must be text or a whole number; got {shown}. If templates are rendered as native objects, end "
            "the template with the filters string and tojson."
        )
    if is_id and re.fullmatch(NOT_AN_ID, value.strip()):
        raise ConfigurationError(f"{name} must be an id, a whole number; got {value!r}.")
    if name in FREE_TEXT and value.strip() == "None":
        raise ConfigurationError(f"{name} is the text 'None': its template was rendered empty. Omit {name} instead.")
    return value


def seconds(value: timedelta | float) -> Any:
    """Return a duration in seconds; any other value is returned unchanged, for :func:`check_seconds`."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def check_seconds(name: str, value: Any, *, may_be_zero: bool = True) -> None:
    """Require a parameter to be a number of seconds from 0 to 100 years, which can be added to any time."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= MAX_SECONDS or not (value or may_be_zero):
        least = "at least 0" if may_be_zero else "more than 0"
        raise ConfigurationError(
            f"{name} must be seconds or a timedelta, {least} and at most 100 years; got {value!r}."
        )


def whole_number(name: str, value: Any) -> int:
    """Return a parameter that is a whole number of at least 1, or its text."""
    text = value.strip() if isinstance(value, str) else ""
    number = value if type(value) is int else int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
    if not 1 <= number < MAX_NUMBER:
        shown = "one with too many digits" if abs(number) >= MAX_NUMBER else short(value)
        raise ConfigurationError(f"{name} must be a whole number of at least 1; got {shown}.")
    return number


@cache
def text_parameters(cls: type) -> Mapping[str, str]:
    """Return the parameters of a class that are annotated as text, with their kind: text, id, texts, ids, or row."""
    kinds = {name: None if name.endswith("conn_id") else _kind(text) for name, text in _annotations(cls).items()}
    return {name: kind for name, kind in kinds.items() if kind is not None}


@cache
def boolean_parameters(cls: type) -> Mapping[str, bool]:
    """Return the parameters of a class that are annotated as booleans, with whether they may be None."""
    return {name: text != "bool" for name, text in _annotations(cls).items() if text in ("bool", "bool | None")}


def _annotations(cls: type) -> dict[str, str]:
    """Return the annotations of all parameters of a class of this package, and of its base classes."""
    found: dict[str, str] = {}
    for base in cls.__mro__:
        if base.__module__.startswith("airflow_provider_workflows."):
            for name, annotation in getattr(vars(base).get("__init__"), "__annotations__", {}).items():
                found.setdefault(name, str(annotation))
    return found


def _kind(annotation: str) -> str | None:
    several = re.sub(r"(Sequence|Collection)\[[\w |]+\]", "SEVERAL", annotation)
    kinds = {kind.strip() for kind in re.sub(r"Mapping\[[\w, ]+\]", "ROW", several).split("|")} - {"None"}
    if "str" not in kinds or not kinds <= {"str", "int", "SEVERAL", "ROW"} or annotation.startswith("int"):
        return None  # an annotation that starts with int is a number
    if "SEVERAL" in kinds:
        return IDS if re.search(r"\bint\b", annotation) else TEXTS  # names, such as those of steps
    return ROW if "ROW" in kinds else ID if "int" in kinds else TEXT


def require_exactly_one(**parameters: Any) -> None:
    """Require exactly one of the named parameters; None means absent, and an empty rendering is an error."""
    names = ", ".join(parameters)
    present = [name for name, value in parameters.items() if value is not None]
    if len(present) != 1:
        problem = "none" if not present else " and ".join(present)
        raise ConfigurationError(f"Give exactly one of {names}; got {problem}.")
    check_required(**{name: parameters[name] for name in present})


def check_required(**parameters: Any) -> None:
    """Require every named parameter to have a value."""
    for name, value in parameters.items():
        if value is None or str(value).strip() in ("", "None"):
            raise ConfigurationError(f"{name} is missing or was rendered empty. Give it a value.")
        if isinstance(value, (bool, float)):
            as_text(name, value)


def check_optional(operator: object, *names: str) -> None:
    """Require every named attribute that is not None to have a value: an empty rendering is an error."""
    for name in names:
        if getattr(operator, name) is not None:
            check_required(**{name: getattr(operator, name)})


def as_flag(name: str, value: Any) -> bool:
    """Return a parameter that is a boolean, or the text to which a template renders one."""
    text = value.strip().lower() if isinstance(value, str) else value
    if text not in (True, False, "true", "false") or not isinstance(text, (bool, str)):
        raise ConfigurationError(f"{name} must be True or False, or a template that renders to one; got {value!r}.")
    return text in (True, "true")


def check_boolean(name: str, value: Any, *, may_be_none: bool = False) -> None:
    """Require a parameter that is not templated to be a boolean: any text, and any result of a task, would be true."""
    if not isinstance(value, bool) and not (may_be_none and value is None):
        raise ConfigurationError(
            f"{name} must be True or False; got {str(value)[:100]!r}. It takes no template and no result of a task."
        )


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Require a parameter to be one of the allowed values."""
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def check_conn_id(name: str, value: Any) -> None:
    """Require a parameter to be the id of a connection."""
    if not isinstance(value, str) or not re.fullmatch(r"\S+", value):
        raise ConfigurationError(
            f"{name} must be the id of a connection, text without blanks; got {str(value)[:100]!r}."
        )


def str_id(value: str | int | None) -> str | None:
    """Return an id as text, the type of ids everywhere in this package."""
    return None if value is None else str(value).strip()


def as_list(value: Any) -> list[Any]:
    """Return a parameter that is one value or several values as a list."""
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]


def literals(name: str, value: Any) -> list[str]:
    """
    Return a parameter that is not templated, one or several names or ids, as a list; None means that it is not given.

    :raises ConfigurationError: an element is a template, the output of a task, empty, or neither text nor a whole
        number.
    """
    items = [] if value is None else as_list(value)
    for item in items:
        if type(item) is not int and not (isinstance(item, str) and item.strip()):
            shown = repr(item) if isinstance(item, str) or item is None else type(item).__name__
            raise ConfigurationError(
                f"{name} must be one or several names or ids, not empty and not the output of a task; got {shown}."
            )
        if isinstance(item, str) and is_template(item):
            raise ConfigurationError(f"{name} is not templated; write the names or ids themselves instead of {item!r}.")
    return [str(item).strip() for item in items]


def templated_names(fields: Any) -> frozenset[str]:
    """Return the names of the fields whose value in the DAG file is a template."""
    if not isinstance(fields, Mapping):
        return frozenset()
    return frozenset(name for name, value in fields.items() if isinstance(value, str) and is_template(value))


def is_template(text: str) -> bool:
    """Return whether a text of the DAG file is a template."""
    return any(mark in text for mark in ("{{", "{%"))
