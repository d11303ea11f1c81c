"""Operators on integration instances of Workflowsoft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.workflowsoft.base import WorkflowsoftIntegrationOperator
from airflow_provider_workflows.operators.workflowsoft.integration_step import (
    VERIFY,
)
from airflow_provider_workflows.rules import workflowsoft_fields as field_rules
from airflow_provider_workflows.rules.parameters import check_choice

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


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
        fields = field_rules.by_label(step.read(self.expected_fields))
        for why in fields.unreadable.values():
            self.log.warning("%s; it is left out.", why)
        return {label: field_rules.xcom_value(value) for label, value in fields.items()}


class WorkflowsoftUpdateFieldsOperator(WorkflowsoftIntegrationOperator):
    """
    Writes fields of an integration instance, once, and reads all fields back.

    Only fields that hold something else are sent, all in one call; a retry that finds them written sends
    nothing, and from Airflow 3.3 on it writes what the first try decided, whatever a template gives by then. So
    the whole of what ``WorkflowsoftGetFieldsOperator`` returned may be given with a few values changed. Values:
    text, True or False, a Decimal or int or number as text for decimals (a float is rejected, for it is not
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
    :raises UnexpectedResponse: the server accepted the values but shows others, or changed fields that were not
        written (never retried); the error names each field with both values.
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
        self._templated_fields = field_rules.templated_names(fields)

    def act(self, context: Context) -> dict[str, Any]:
        if not isinstance(self.fields, Mapping) or not self.fields:
            raise ConfigurationError("fields must be a mapping of labels or keys to values, and not empty.")
        field_rules.check_rendered(self.fields, self._templated_fields)
        check_choice("verify", self.verify, VERIFY)
        instance_id, step = self.open_step(context, confirm_timeout=self.confirm_timeout, verify=self.verify)
        held = step.read(self.expected_fields)
        decision = step.decision or step.plan(held, self.fields, allow_unknown_types=self.allow_unknown_types)
        step.write(held, decision)
        return {
            "integration_instance_id": instance_id,
            "written": decision["written"],
            "unchanged": decision["unchanged"],
        }
