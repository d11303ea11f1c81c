"""The operator that completes an integration instance of Workflowsoft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.base import unretried
from airflow_provider_workflows.operators.workflowsoft.base import ActsOnce, WorkflowsoftIntegrationOperator
from airflow_provider_workflows.operators.workflowsoft.integration_step import (
    ON_UNKNOWN_COMPLETION,
)
from airflow_provider_workflows.rules.parameters import check_choice, check_required

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


class WorkflowsoftCompleteIntegrationOperator(ActsOnce, WorkflowsoftIntegrationOperator):
    """
    Completes an integration instance, so that its process goes on; once.

    The API does not show whether an instance is completed, so the operator writes down in Airflow's task
    state store (3.3+) that it is about to complete it, and that it has. A retry that finds it done sends
    nothing. Where nobody knows whether it was done, the operator reads: an instance that is gone, whose fields can
    no longer be written, or whose step has nothing open any more counts as completed. Only then it follows
    ``on_unknown_completion``. A server that says the instance was completed before is believed. A retry keeps to the
    ``custom_action`` of the try that began. Clearing the task means "do it again".
    Before Airflow 3.3 the task is not retried, unless with ``on_unknown_completion="retry"``.

    Returns ``{integration_instance_id, custom_action, already_completed}``; ``already_completed`` is False where this
    try has completed it.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor`` (templated).
    :param custom_action: Presumably the way out of the step; ``__AUTO__`` (default) is the only value that
        the vendor shows (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have (templated).
    :param on_unknown_completion: What to do when nobody can tell whether it was completed: ``fail``
        (default), ``retry`` (send it again, which may complete it twice), ``assume_done`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, to read on for what became of a completion whose answer was
        lost; default 30.
    :raises ConfigurationError: a required field is empty (it is named); no journal for retries.
    :raises OutcomeUnknown: nobody can tell, with ``on_unknown_completion="fail"``; never retried.
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftIntegrationOperator.template_fields,
        "custom_action",
        "on_unknown_completion",
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
        done = step.complete(custom_action, on_unknown=self.on_unknown_completion)
        return {
            "integration_instance_id": instance_id,
            "custom_action": custom_action,
            "already_completed": not done,
        }

    def check_completion(self, context: Context) -> None:
        """Require parameters with which a retry can tell what to do."""
        check_required(custom_action=self.custom_action)
        check_choice("on_unknown_completion", self.on_unknown_completion, ON_UNKNOWN_COMPLETION)
        if self.may_be_retried(context) and self.on_unknown_completion != "retry":
            raise ConfigurationError(
                "on_unknown_completion must be 'retry' when retries > 0 on an Airflow before 3.3, for it "
                "cannot remember what an earlier try did. Or set retries=0."
            )
