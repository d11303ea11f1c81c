"""The ids that users pass to the methods of a hook: text or whole numbers, checked before a call is sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, TypeVar

from airflow_provider_workflows.rules.parameters import as_text, check_required

Hook = TypeVar("Hook", bound=type)
OTHER_IDS = ("performed_by", "tool_subtype")  # ids whose parameter is not named so
IDS_OR_NAMES = ("assigned_to", "diagram", "on_behalf_of", "step", "user")


def checks_ids(hook: Hook) -> Hook:
    """Let the public methods of a hook class take ids as text or whole numbers, and reject all other types by name."""
    for name, method in list(vars(hook).items()):
        if inspect.isfunction(method) and not name.startswith("_") and (names := id_parameters(method)):
            setattr(hook, name, _checking(method, names))
    return hook


def id_parameters(method: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters of a method that are ids, or names instead of ids."""
    named = (*OTHER_IDS, *IDS_OR_NAMES)
    return [name for name in inspect.signature(method).parameters if name.endswith(("_id", "_ids")) or name in named]


def may_be_none(parameter: inspect.Parameter) -> bool:
    return "None" in str(parameter.annotation)


def _checking(method: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    signature = inspect.signature(method)

    @wraps(method)
    def checked(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        arguments = bound.arguments
        for name in names:
            if name not in arguments or (arguments[name] is None and may_be_none(signature.parameters[name])):
                continue
            shown = arguments.get("parameter", name) if name in IDS_OR_NAMES else name  # of an operator
            is_id = name not in IDS_OR_NAMES
            if name.endswith("_ids"):
                arguments[name] = [_checked(name, item, is_id=is_id) for item in _several(arguments[name])]
            else:
                arguments[name] = _checked(shown, arguments[name], is_id=is_id)
        return method(*bound.args, **bound.kwargs)

    return checked


def _checked(name: str, value: Any, *, is_id: bool) -> str:
    check_required(**{name: value})
    return as_text(name, value, is_id=is_id).strip()


def _several(value: Any) -> list[Any]:
    """Return one or several ids as a list; the output of a mapped task is iterable, but no list."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) else [value]
