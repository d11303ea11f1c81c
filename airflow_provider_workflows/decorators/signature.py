"""Call a decorated function by parameter names, although its task has another signature."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from airflow.sdk import Context


def called_with(function: Callable[..., Any], name: str, *, instead_of: str = "") -> Callable[..., Any]:
    """
    Return the function with the signature of its task.

    :param name: The first parameter of the task, even if the function does not have it.
    :param instead_of: A parameter of the function that the task provides itself.
    :raises TypeError: the function has parameters that cannot be passed by name, or is a coroutine function.
    """
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{function.__name__} must be a plain function, but is a coroutine function.")
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        if parameter.kind in (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL):
            raise TypeError(f"{function.__name__}: parameter {parameter.name!r} cannot be passed by name.")
    parameters = [parameter for found, parameter in signature.parameters.items() if found != instead_of]
    if name not in signature.parameters:
        parameters.insert(0, Parameter(name, Parameter.POSITIONAL_OR_KEYWORD))

    @functools.wraps(function)
    def task_function(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    task_function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return task_function


def arguments_of(task_function: Callable[..., Any], args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call by parameter name."""
    signature = inspect.signature(task_function)
    arguments = dict(signature.bind_partial(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name, {})
    return arguments


def call(task_function: Callable[..., Any], context: Context, arguments: Mapping[str, Any]) -> Any:
    """Call the function with the arguments, and the values of Airflow's context, that it has parameters for."""
    function = cast("Any", task_function).__wrapped__
    parameters = inspect.signature(function).parameters
    passed = {name: arguments[name] for name in parameters if name in arguments}
    values = cast("Mapping[str, Any]", context)
    passed |= {name: values[name] for name in parameters if name in values and name not in passed}
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()):
        passed |= arguments
    return function(**passed)
