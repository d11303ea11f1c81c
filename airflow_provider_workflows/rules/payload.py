"""Checks of payloads, and the conversion of Python errors that an undocumented response format causes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_workflows.exceptions import UnexpectedResponse, WorkflowsError


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


def is_same_comment(one: Any, other: Any) -> bool:
    """Return whether two comments have the same lines; a server may change line ends and the blanks around lines."""
    return _lines(one) == _lines(other)


def _lines(comment: Any) -> list[str]:
    return [line.strip() for line in str("" if comment is None else comment).strip().splitlines()]
