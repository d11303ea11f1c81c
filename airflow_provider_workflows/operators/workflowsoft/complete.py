"""The operator that completes an integration instance of Workflowsoft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.base import WritingOperator, unretried
from airflow_provider_workflows.operators.workflowsoft.base import (
    NotRetriedWithoutStore,
    WorkflowsoftIntegrationOperator,
)
from airflow_provider_workflows.rules.parameters import check_choice, check_required

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


class WorkflowsoftCompleteIntegrationOperator(NotRetriedWithoutStore, WorkflowsoftIntegrationOperator, WritingOperator):
    """
    Complete an integration instance once, so that its process continues.

    The API does not show whether an instance is completed. The operator therefore persists in Airflow's task state
    store (3.3+) that it is about to complete it, and that it did. A retry that finds it completed sends nothing. After
    an unknown outcome the operator reads: an instance counts as completed if it no longer exists, if its fields can no
    longer be written, if its step has no open instance, or if the server says so. Otherwise the operator follows
    ``on_unknown_completion``. A retry uses the ``custom_action`` of the first try. A cleared task completes the
    instance again. Before Airflow 3.3 the task is not retried, except with ``on_unknown_completion="retry"``.

    Returns ``{integration_instance_id, custom_action, already_completed}``; ``already_completed`` is False if this
    try completed it.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor`` (templated).
    :param custom_action: Presumably the action by which the process leaves the step; ``__AUTO__`` (default) is the
        only value that the vendor documents (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have (templated).
    :param on_unknown_completion: What to do if it remains unknown whether it was completed: ``fail`` (default),
        ``retry`` (send it again, which may complete it twice), ``assume_done`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, for which the operator reads after a lost response, and while a
        required field is empty, because a value that was just written may show late; default 30.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :raises ConfigurationError: a required field is empty (the error names it); retries before Airflow 3.3.
    :raises OutcomeUnknown: it remains unknown whether it was completed, with ``on_unknown_completion="fail"``; never
        retried.
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftIntegrationOperator.template_fields,
        "custom_action",
        "on_unknown_completion",
        "dry_run",
    )

    def __init__(
        self,
        *,
        custom_action: str = "__AUTO__",
        on_unknown_completion: str = "fail",
        confirm_timeout: timedelta | float = 30.0,
        **kwargs: Any,
    ):
        super().__init__(**(kwargs if on_unknown_completion == "retry" else unretried(kwargs)))
        self.custom_action = custom_action
        self.on_unknown_completion = on_unknown_completion
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        self.check_completion(context)
        instance_id, step = self.open_step(context, confirm_timeout=self.confirm_timeout)
        custom_action = step.started_action or str(self.custom_action)
        if self.expected_fields is not None and step.started_action is None:
            step.read(self.expected_fields)
        self.known = {"integration_instance_id": instance_id, "custom_action": custom_action}
        done = step.complete(custom_action, on_unknown=self.on_unknown_completion)
        return {**self.known, "already_completed": not done}

    def check_completion(self, context: Context) -> None:
        """Check the parameters of the completion; a retry must know what an earlier try did."""
        # Imported here, because DAG files are parsed far more often than a task runs.
        from airflow_provider_workflows.operators.workflowsoft.integration_step import ON_UNKNOWN_COMPLETION

        check_required(custom_action=self.custom_action)
        check_choice("on_unknown_completion", self.on_unknown_completion, ON_UNKNOWN_COMPLETION)
        if self.may_be_retried(context) and self.on_unknown_completion != "retry":
            raise ConfigurationError(
                "on_unknown_completion must be 'retry' when retries > 0 before Airflow 3.3, which does not store what "
                "an earlier try did. Or set retries=0."
            )
