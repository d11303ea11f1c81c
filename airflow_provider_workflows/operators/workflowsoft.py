"""Operators on integration instances of Workflowsoft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.links.workflowsoft import WorkflowsoftItemLink
from airflow_provider_workflows.operators.base import WorkflowsOperator, unretried
from airflow_provider_workflows.operators.workflowsoft_step import ON_UNKNOWN_COMPLETION, VERIFY, IntegrationStep
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules.parameters import check_choice, check_required, text_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook


class WorkflowsoftOperator(WorkflowsOperator):
    """
    An operator that calls Workflowsoft.

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


class ActsOnce:
    """An operator that a mapped task, too, does not retry where Airflow has no task state store (before 3.3)."""

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Begin a mapped task; see Airflow's ``BaseOperator.partial``."""
        # Airflow takes a mapped task's retries from here, and not from the constructor.
        may_repeat = kwargs.get("on_unknown_completion") == "retry"
        return super().partial(**(kwargs if may_repeat else unretried(kwargs)))  # type: ignore[misc]


class WorkflowsoftIntegrationOperator(WorkflowsoftOperator):
    """
    An operator on one integration instance.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor``'s result
        (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have, such as ``{"Amount": "Decimal?"}``;
        fails before anything is written where a diagram was changed or the instance is of another step (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftOperator.template_fields,
        "integration_instance_id",
        "expected_fields",
    )
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
        self, context: Context, given: Any = None, *, confirm_timeout: float = 0.0, **more: str
    ) -> tuple[str, IntegrationStep]:
        """
        Return the rendered instance id and what handles the instance, and set the link to it.

        :param given: The instance; default: ``integration_instance_id``.
        """
        given = self.integration_instance_id if given is None else given
        instance_id = rules.instance_id_of(given)
        row = given if isinstance(given, Mapping) else {}
        self.item_url = self.hook.item_url(
            integration_instance_id=instance_id, process_instance_id=text_id(row.get("process_instance_id"))
        )
        step = IntegrationStep(
            self.hook,
            instance_id,
            task_state_store(context),
            confirm_timeout=confirm_timeout,
            step_id=text_id(row.get("step_id")),
            **more,
        )
        return instance_id, step


class WorkflowsoftGetFieldsOperator(WorkflowsoftIntegrationOperator):
    """
    Reads the fields of an integration instance.

    Returns ``{label: value}`` in JSON's own types: a Decimal as text such as ``"1640.0"`` (Airflow's XCom
    would round it), a time as ISO-8601 text in UTC, an empty field as None. A label that several fields share
    is replaced by the key of each. A field whose value does not fit its type is missing, and the log says why. The
    same forms are taken back by ``WorkflowsoftUpdateFieldsOperator``.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor`` (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have (templated).
    :raises ConfigurationError: a field of ``expected_fields`` is missing, unreadable or of another type.
    :raises NotFound: there is no such instance, or no longer.
    """

    returns_mapping = False  # its keys are the labels of fields; it is handed on whole

    def act(self, context: Context) -> dict[str, Any]:
        _, step = self.open_step(context)
        fields = rules.by_label(step.read(self.expected_fields))
        for why in fields.unreadable.values():
            self.log.warning("%s; it is left out.", why)
        return {label: rules.xcom_value(value) for label, value in fields.items()}


class WorkflowsoftUpdateFieldsOperator(WorkflowsoftIntegrationOperator):
    """
    Writes fields of an integration instance, once, and reads all fields back.

    Only fields that hold something else are sent, all in one call; a retry that finds them written sends
    nothing, and from Airflow 3.3 on it writes what the first try decided, whatever a template gives by then. So
    the whole of what ``WorkflowsoftGetFieldsOperator`` returned may be given with a few values changed. Values:
    text, True or False, a Decimal or int or number as text for decimals (a float is refused, for it is not
    exact), a datetime with a time zone or its ISO-8601 text (whole seconds are sent), a date, None to empty a
    field.

    All fields are compared: those that were written with what was sent, the others with what they held before, for
    nobody documents that a write leaves them alone. A read-only field may change to another value, which the log
    says, for a server may compute it. Where the answer of the write is lost and the fields show their old values,
    they are written once more.

    Returns ``{integration_instance_id, written: [label], unchanged: [label]}``.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor`` (templated).
    :param fields: ``{label or key: value}``; a label must be unique (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have (templated).
    :param allow_unknown_types: Send values of field types that this package does not know as they are.
    :param verify: ``exact`` (default): the fields must show what was sent. ``normalized``: also what a server makes of
        it: a text without blanks at its ends and with other line ends, a time to the minute, a number to the digits
        that are shown; the log names each difference.
    :param confirm_timeout: Seconds, or a timedelta, to read on for the values after they were sent; default 60.
    :raises ConfigurationError: no such field, a wrong value, a read-only field, a value that is no option.
    :raises StepMoved: the instance is completed already; never retried.
    :raises OutcomeUnknown: the answer was lost and reading does not show the values; never retried.
    :raises ContractError: the server accepted the values but shows others, or others in fields that were not written
        (never retried); the fields are named with both values.
    """

    template_fields: Sequence[str] = (*WorkflowsoftIntegrationOperator.template_fields, "fields")

    def __init__(
        self,
        *,
        fields: Mapping[str, Any],
        allow_unknown_types: bool = False,
        verify: str = "exact",
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.fields = fields
        self.allow_unknown_types = allow_unknown_types
        self.verify = verify
        self.confirm_timeout = confirm_timeout
        self._templated_fields = rules.templated_names(fields)

    def act(self, context: Context) -> dict[str, Any]:
        if not isinstance(self.fields, Mapping) or not self.fields:
            raise ConfigurationError("fields must be a mapping of labels or keys to values, and not empty.")
        rules.check_rendered(self.fields, self._templated_fields)
        check_choice("verify", self.verify, VERIFY)
        instance_id, step = self.open_step(context, confirm_timeout=self.confirm_timeout, verify=self.verify)
        held = step.read(self.expected_fields)
        decision = step.decision or step.decide(held, self.fields, allow_unknown_types=self.allow_unknown_types)
        step.write(held, decision)
        return {
            "integration_instance_id": instance_id,
            "written": decision["written"],
            "unchanged": decision["unchanged"],
        }


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
        custom_action = step.begun_action or str(self.custom_action)
        if self.expected_fields is not None and step.begun_action is None:
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
