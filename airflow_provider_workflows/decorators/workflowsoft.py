"""The decorator that turns a function of an integration instance's fields into a task for the whole step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_provider_workflows.decorators.signature import arguments_of, call, called_with
from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.operators.base import unretried
from airflow_provider_workflows.operators.workflowsoft.complete import WorkflowsoftCompleteIntegrationOperator
from airflow_provider_workflows.operators.workflowsoft.integration_step import VERIFY
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules import workflowsoft_fields as field_rules
from airflow_provider_workflows.rules.parameters import check_choice, check_required
from airflow_provider_workflows.version_compat import XCOM_HOLDS_NONE

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_workflows.operators.workflowsoft.integration_step import IntegrationStep

FIELDS = "fields"
INSTANCE = "integration_instance_id"
IF_OPEN = (
    "complete it with WorkflowsoftCompleteIntegrationOperator or by hand, because a cleared task calls its function "
    "again, with the fields that it has written"
)


class RejectIntegration(Exception):
    """
    Raised in a decorated function to complete the integration step with another custom action.

    :param reason: Reason, for the log and the task's result.
    :param custom_action: The custom action; the vendor documents only ``__AUTO__``.
    :param fields: ``{label or key: value}`` to write first, such as a field for the reason.
    """

    def __init__(self, reason: object, *, custom_action: str, fields: Mapping[str, Any] | None = None):
        super().__init__(reason)
        self.reason = str(reason)
        self.custom_action = custom_action
        self.fields = fields


class LeaveOpen(Exception):
    """
    Raised in a decorated function to leave the integration instance open; the task is skipped.

    If polls consume instances, Workflowsoft does not return it again, so store its id.
    """


class _IntegrationDecoratedOperator(DecoratedOperator, WorkflowsoftCompleteIntegrationOperator):
    custom_operator_name = "@task.workflowsoft_integration"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        # The instance comes with the arguments of the function.
        *(name for name in WorkflowsoftCompleteIntegrationOperator.template_fields if name != INSTANCE),
    )

    def __init__(self, *, allow_unknown_types: bool = False, verify: str = "exact", **kwargs: Any):
        super().__init__(integration_instance_id="", **kwargs)
        self.allow_unknown_types = allow_unknown_types
        self.verify = verify

    def execute(self, context: Context) -> Any:
        # Airflow 3.0's DecoratedOperator calls a method here that its operators do not have.
        return WorkflowsoftCompleteIntegrationOperator.execute(self, context)

    def act(self, context: Context) -> Any:
        self.check_completion(context)
        check_choice("verify", self.verify, VERIFY)
        if self.may_be_retried(context):
            raise ConfigurationError(
                "retries must be 0 before Airflow 3.3, because a retry would call the function again, with the fields "
                "that it has written."
            )
        arguments = arguments_of(self.python_callable, self.op_args, self.op_kwargs)
        instances = arguments.get(INSTANCE, "")  # expand() allows leaving it out
        if not isinstance(instances, (list, tuple)) or not instances:
            return self._handle(context, instances, arguments)
        # Airflow pushes the values of a mapping one by one, and raises an error for a list.
        self.multiple_outputs = self.returns_mapping = False
        return self._handle_all(context, {rules.instance_id_of(row): row for row in instances}, arguments)

    def _handle_all(
        self, context: Context, rows: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Handle each instance, also if another one fails."""
        results, left, failed = [], {}, {}
        for instance_id, row in rows.items():
            try:
                results.append(self.or_would_send(partial(self._handle, context, row, arguments)))
            except AirflowSkipException as skipped:
                self.log.info("%s", skipped)
                left[instance_id] = skipped
            except Exception as error:  # of the author's function: the other instances are handled first
                if len(rows) == 1:
                    raise
                self.log.exception("Handling integration instance %s failed.", instance_id)
                failed[instance_id] = error
        if failed:
            raise _not_handled(failed)
        if left and not results:
            raise AirflowSkipException(" ".join(map(str, left.values())))
        return results

    def _handle(self, context: Context, instance: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        instance_id, step = self.open_step(
            context, instance, confirm_timeout=self.confirm_timeout, verify=self.verify, if_open=IF_OPEN
        )
        decision = step.decision
        if decision is None or step.started_action is None:
            fields = step.read(self.expected_fields)
            decision = decision or self._decide(context, step, fields, {**arguments, INSTANCE: instance_id})
            with self.continuing_dry_run():
                step.write(fields, decision)
        self.known = {
            INSTANCE: instance_id,
            "custom_action": decision["custom_action"],
            "rejected": decision["rejected"],
            "unchanged": decision["unchanged"],
        }
        done = step.complete(decision["custom_action"], on_unknown=self.on_unknown_completion)
        return {**self.known, "written": decision["written"], "already_completed": not done}

    def _decide(
        self, context: Context, step: IntegrationStep, fields: list[field_rules.Field], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        custom_action, rejected = str(self.custom_action), None
        try:
            values = call(self.python_callable, context, {**arguments, FIELDS: field_rules.by_label(fields)})
        except RejectIntegration as rejection:
            values, custom_action, rejected = rejection.fields, rejection.custom_action, rejection.reason
            check_required(custom_action=custom_action)
            self.log.info("Instance %s is rejected (%s): %s", arguments[INSTANCE], custom_action, rejected)
        except LeaveOpen as left:
            raise AirflowSkipException(f"Integration instance {arguments[INSTANCE]} is left open: {left}") from left
        if values is not None and not isinstance(values, Mapping):
            raise ConfigurationError(
                f"{self.python_callable.__name__} must return a mapping of labels or keys to the values to write, or "
                f"None for nothing; got {type(values).__name__}."
            )
        return step.plan(
            fields,
            values or {},
            allow_unknown_types=self.allow_unknown_types,
            fill_required=True,
            custom_action=custom_action,
            rejected=rejected,
        )


def _not_handled(failed: Mapping[str, Exception]) -> Exception:
    """Return the error of a task that failed for these of several instances."""
    reasons = "; ".join(f"{instance_id} ({type(error).__name__}: {error})" for instance_id, error in failed.items())
    message = f"{len(failed)} integration instances were not handled: {reasons}"
    is_final = all(
        isinstance(error, AirflowFailException) or (isinstance(error, WorkflowsError) and not error.retryable)
        for error in failed.values()
    )
    # The task state store shows a retry which instances are done.
    return AirflowFailException(message) if is_final else WorkflowsError(message)


def workflowsoft_integration(
    python_callable: Callable[..., Any] | None = None,
    *,
    workflowsoft_conn_id: str | None = None,
    expected_fields: Mapping[str, str] | None = None,
    custom_action: str | None = None,
    on_unknown_completion: str | None = None,
    allow_unknown_types: bool | None = None,
    verify: str | None = None,
    confirm_timeout: timedelta | float | None = None,
    dry_run: bool | str | None = None,
    **kwargs: Any,
) -> Any:
    """
    Turn a function that decides what to write into an integration instance into a task.

    Also available as ``@task.workflowsoft_integration``. The task reads the fields, calls the function, writes what it
    returned, reads it back and completes the instance. The function's parameter ``fields`` is ``{label: value}`` with
    typed values (``Decimal``, aware ``pendulum.DateTime``, ``date``; None for an empty field; fields that share a label
    are under their keys). The function returns ``{label or key: value}`` to write, or None, or raises
    :class:`RejectIntegration` or :class:`LeaveOpen`. The task sends only values that differ. It persists the decision
    before it sends anything, so a retry does not call the function again with the fields that it has written. Before
    Airflow 3.3 the task is not retried.

    Call the task with ``integration_instance_id`` (an id, or a row of ``WorkflowsoftIntegrationSensor``) and the
    function's other arguments, or map it over them with ``expand``, which creates a task with its own log for each
    instance. Called with a list, such as the sensor's whole result, the task calls the function for each instance. If
    one fails, the task still handles the others, and then fails with the ids of the failed ones. A parameter
    ``integration_instance_id`` of the function receives the id. Parameters that are named as in Airflow's context
    receive those values.

    A field whose value does not fit its type is missing in ``fields``; using it raises ``UnexpectedResponse``.

    Returns ``{integration_instance_id, custom_action, rejected, written: [label], unchanged: [label],
    already_completed}``; ``rejected`` is the reason, or None. For a list it returns a list of these, without the
    instances that were left open.

    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``; default ``workflowsoft_default``
        (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have (templated).
    :param custom_action: Presumably the action by which the process leaves the step; default ``__AUTO__`` (templated).
    :param on_unknown_completion: What to do if it remains unknown whether it was completed: ``fail`` (default),
        ``retry``, ``assume_done`` (templated).
    :param allow_unknown_types: Send values of field types that this package does not know as they are.
    :param verify: ``exact`` (default) or ``normalized``; see ``WorkflowsoftUpdateFieldsOperator``.
    :param confirm_timeout: Seconds, or a timedelta, for which the task reads a change back; default 30.
    :param dry_run: Only read and call the function, and return what would be sent: ``{dry_run: True, would_send:
        [{method, path, body}], ...}``, for a list of instances one of these for each (templated).
    :raises ConfigurationError: Workflowsoft would reject a value; a required field is empty; a field of
        ``expected_fields`` is missing or of another type.
    :raises StepMoved: the instance is already completed; never retried.
    :raises OutcomeUnknown: it remains unknown whether it was written, or completed; never retried.
    """
    own = {
        "workflowsoft_conn_id": workflowsoft_conn_id,
        "expected_fields": expected_fields,
        "custom_action": custom_action,
        "on_unknown_completion": on_unknown_completion,
        "allow_unknown_types": allow_unknown_types,
        "verify": verify,
        "confirm_timeout": confirm_timeout,
        "dry_run": dry_run,
    }
    # An option that is not given is left to a DAG's default_args.
    present = {name: value for name, value in own.items() if value is not None}
    options = {"multiple_outputs": XCOM_HOLDS_NONE, **present, **kwargs}

    def decorate(function: Callable[..., Any]) -> Any:
        return task_decorator_factory(
            called_with(function, INSTANCE, instead_of=FIELDS),
            decorated_operator_class=_IntegrationDecoratedOperator,
            **unretried(options),
        )

    return decorate if python_callable is None else decorate(python_callable)
