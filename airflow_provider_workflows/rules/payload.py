"""Checks of payloads, and the conversion of Python errors that an undocumented response format causes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_workflows.exceptions import UnexpectedResponse, WorkflowsError

# Members of an error that have its texts, in the order in which a message names them.
ERROR_TEXTS = (
    "message",
    "detail",  # of a ProblemDetails object (RFC 9457)
    "exceptionmessage",
    "error_description",
    "error",
    "errors",
    "errormessage",
    "exception",
    "reason",
    "details",
    "fields",
    "modelstate",
    "innerexception",
)


@contextmanager
def documented_form() -> Iterator[None]:
    """Raise :class:`UnexpectedResponse` for the errors that Python raises if a response has an undocumented format."""
    try:
        yield
    except WorkflowsError:  # a ConfigurationError is a ValueError, too
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as malformed:
        raise UnexpectedResponse(
            f"A response has an undocumented format ({type(malformed).__name__}: {malformed})"
        ) from malformed


def is_id(value: Any) -> bool:
    """Return whether a value is an id: an int (a bool is an int in Python, but not an id) or non-empty text."""
    return type(value) is int or (isinstance(value, str) and value.strip() != "")


def error_texts(error: Any) -> list[str]:
    """Return the texts of an error of any known format; those of unknown members have the member's name before them."""
    if isinstance(error, (str, int, float)) and not isinstance(error, bool):
        return [str(error)] if str(error) else []
    if isinstance(error, list):
        return [text for item in error for text in error_texts(item)]
    if not isinstance(error, dict):
        return []
    named = {str(name).lower(): value for name, value in error.items()}
    stated = [texts for name in ERROR_TEXTS if (texts := error_texts(named.get(name)))]
    if stated:
        return [text for texts in stated for text in texts]
    return [f"{name}: {', '.join(texts)}" for name, value in error.items() if (texts := error_texts(value))]
