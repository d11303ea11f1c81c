"""The boolean parameters of all operators and sensors, which are checked when a DAG file is parsed."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_workflows.rules.parameters import boolean_parameters, check_boolean


class BooleanParameters(BaseOperator):
    """
    Require a boolean in every parameter that is annotated as one, in the line of the DAG file that gives it.

    Parameters of a mapped task that ``default_args`` or ``expand`` give are checked when the task starts.
    """

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
        super().__setattr__(name, value)
