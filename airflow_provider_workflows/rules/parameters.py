"""Checks of parameters that several operators and sensors make, after templates are rendered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_workflows.exceptions import ConfigurationError


def one_of(**given: Any) -> None:
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


def check_given(holder: object, *names: str) -> None:
    """Require every named attribute that is not None to have a value: an empty rendering is a mistake."""
    for name in names:
        if getattr(holder, name) is not None:
            check_required(**{name: getattr(holder, name)})


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Require a parameter to be one of the allowed words."""
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}; got {value!r}.")


def text_id(value: str | int | None) -> str | None:
    """Return an id as text, as ids are everywhere in this package."""
    return None if value is None else str(value).strip()


def listed(value: Any) -> list[Any]:
    """Return a parameter that may be one value or several as a list."""
    return list(value) if isinstance(value, (list, tuple, set, frozenset)) else [value]
