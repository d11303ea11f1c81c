"""The base of the operators for Workflowsoft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.links.workflowsoft import WorkflowsoftItemLink
from airflow_provider_workflows.operators.base import WorkflowsOperator, unretried
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.operators.workflowsoft.integration_step import IntegrationStep


class WorkflowsoftOperator(WorkflowsOperator):
    """
    Call Workflowsoft.

    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    """

    template_fields: Sequence[str] = ("workflowsoft_conn_id",)

    def __init__(self, *, workflowsoft_conn_id: str = "workflowsoft_default", **kwargs: Any):
        super().__init__(**kwargs)
        self.workflowsoft_conn_id = workflowsoft_conn_id

    @cached_property
    def hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)


class NotRetriedWithoutStore:
    """Set no retries, also for mapped tasks, where Airflow has no task state store (before 3.3)."""

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Create a mapped task; see Airflow's ``BaseOperator.partial``."""
        # Airflow reads the retries of a mapped task here, not in the constructor.
        may_repeat = kwargs.get("on_unknown_completion") == "retry"
        return super().partial(**(kwargs if may_repeat else unretried(kwargs)))  # type: ignore[misc]


class WorkflowsoftIntegrationOperator(WorkflowsoftOperator):
    """
    Work on one integration instance.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor``'s result
        (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have, such as ``{"Amount": "Decimal?"}``;
        otherwise the task fails before it writes anything, such as after a change of the diagram (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftOperator.template_fields,
        "integration_instance_id",
        "expected_fields",
    )
    template_fields_renderers = {"integration_instance_id": "json", "expected_fields": "json"}
    operator_extra_links = (WorkflowsoftItemLink(),)

    def __init__(
        self,
        *,
        integration_instance_id: str | int | Mapping[str, Any],
        expected_fields: Mapping[str, str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.integration_instance_id = integration_instance_id
        self.expected_fields = expected_fields

    def open_step(
        self, context: Context, instance: Any = None, *, confirm_timeout: float = 0.0, **more: str
    ) -> tuple[str, IntegrationStep]:
        """
        Return the rendered instance id and its step, and set the link to it.

        :param instance: The instance; default: ``integration_instance_id``.
        """
        # Imported here, because DAG files are parsed far more often than a task runs.
        from airflow_provider_workflows.operators.workflowsoft.integration_step import IntegrationStep

        instance = self.integration_instance_id if instance is None else instance
        instance_id = rules.instance_id_of(instance)
        row = instance if isinstance(instance, Mapping) else {}
        self.item_url = self.hook.item_url(
            integration_instance_id=instance_id, process_instance_id=str_id(row.get("process_instance_id"))
        )
        step = IntegrationStep(
            self.hook,
            instance_id,
            task_state_store(context),
            confirm_timeout=confirm_timeout,
            step_id=str_id(row.get("step_id")),
            **more,
        )
        return instance_id, step
