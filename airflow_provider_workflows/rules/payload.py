"""Answers that have not the form that is documented."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow_provider_workflows.exceptions import UnexpectedResponse, WorkflowsError


@contextmanager
def documented_form() -> Iterator[None]:
    """Make a :class:`UnexpectedResponse` of what Python raises where an answer has a form that nobody documents."""
    try:
        yield
    except WorkflowsError:  # a ConfigurationError is a ValueError, too
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as malformed:
        raise UnexpectedResponse(
            f"An answer has an undocumented form ({type(malformed).__name__}: {malformed})"
        ) from malformed


def is_id(value: Any) -> bool:
    """Tell whether a value is an id, a number or a text; a bool is an int in Python, and 2.0 is nobody's id."""
    return type(value) is int or (isinstance(value, str) and value.strip() != "")
