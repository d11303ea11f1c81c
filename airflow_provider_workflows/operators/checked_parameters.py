"""The parameters of all operators and sensors: booleans are checked at parsing, renderings to None are remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator, XComArg

from airflow_provider_workflows.rules.parameters import FREE_TEXT, boolean_parameters, check_boolean, is_template


class CheckedParameters(BaseOperator):
    """
    Require a boolean in every parameter that is annotated as one, in the line of the DAG file that gives it.

    Parameters of a mapped task that ``default_args`` or ``expand`` give are checked when the task starts. The names of
    parameters whose template, or output of another task, was rendered to None are in ``rendered_to_none``, because None
    would mean that the parameter is omitted; likewise the names of elements, such as ``items: preset_id``.
    """

    rendered_to_none: frozenset[str] = frozenset()

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Create a mapped task; see Airflow's ``BaseOperator.partial``."""
        for name, may_be_none in boolean_parameters(cls).items():
            if name in kwargs:
                check_boolean(name, kwargs[name], may_be_none=may_be_none)
        return super().partial(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        may_be_none = boolean_parameters(type(self)).get(name)
        if may_be_none is not None:
            check_boolean(name, value, may_be_none=may_be_none)
        if name in self.template_fields:
            found = frozenset(_rendered_to_none(name, vars(self).get(name), value))
            super().__setattr__("rendered_to_none", self.rendered_to_none | found)
        super().__setattr__(name, value)


def _rendered_to_none(name: str, before: Any, after: Any) -> Iterator[str]:
    """Yield the name of a parameter that was rendered to None, or of the elements of it that were."""
    if after is None:
        if _is_to_be_rendered(before):
            yield name
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in before.keys() & after.keys() - set(FREE_TEXT):
            yield from _rendered_to_none(f"{name}: {key}", before[key], after[key])
    elif isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        for element in zip(before, after, strict=False):
            yield from _rendered_to_none(name, *element)


def _is_to_be_rendered(value: Any) -> bool:
    # An argument of a mapped task group is no XComArg: there None is one of the values that the author listed.
    return is_template(value) if isinstance(value, str) else callable(value) or isinstance(value, XComArg)
