"""Operators that read and write the fields of an integration instance of Workflowsoft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.operators.base import WritingOperator
from airflow_provider_workflows.operators.workflowsoft.base import WorkflowsoftIntegrationOperator
from airflow_provider_workflows.rules.parameters import check_choice, templated_names

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context


class WorkflowsoftGetFieldsOperator(WorkflowsoftIntegrationOperator):
    """
    Read the fields of an integration instance.

    Returns ``{label: value}`` in JSON types: a Decimal as text such as ``"1640.0"`` (Airflow's XCom would round it), a
    time as ISO-8601 text in UTC, an empty field as None. Fields that share a label are listed by their keys. A field
    whose value does not fit its type is missing, and the log says why. ``WorkflowsoftUpdateFieldsOperator`` accepts
    the same formats.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor`` (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have (templated).
    :raises ConfigurationError: a field of ``expected_fields`` is missing, unreadable or of another type.
    :raises NotFound: the instance does not exist, or no longer.
    """

    returns_mapping = False  # its keys are labels of fields, so it is passed as one value

    def act(self, context: Context) -> dict[str, Any]:
        # Imported here, because DAG files are parsed far more often than a task runs.
        from airflow_provider_workflows.rules import workflowsoft_fields as field_rules

        _, step = self.open_step(context)
        fields = field_rules.by_label(step.read(self.expected_fields))
        for why in fields.unreadable.values():
            self.log.warning("%s. It is left out.", why)
        return {label: field_rules.xcom_value(value) for label, value in fields.items()}


class WorkflowsoftUpdateFieldsOperator(WorkflowsoftIntegrationOperator, WritingOperator):
    """
    Write fields of an integration instance once, and read all fields back.

    The operator sends only fields with another value, all in one request. You may therefore pass the whole result of
    ``WorkflowsoftGetFieldsOperator`` with a few values changed. A retry that finds the values written sends nothing.
    From Airflow 3.3 on a retry writes what the first try decided, even if a template renders other values then.
    Values: text, True or False, a Decimal, an int, or a number as text for decimals (a float is rejected because it is
    not exact), a datetime with a time zone or its ISO-8601 text (whole seconds are sent), a date, None to empty a
    field.

    The operator compares all fields: written fields with what was sent, the others with their values before, because
    it is not documented that a write leaves them unchanged. Another field may show another value, which a server may
    have computed or another user written; the log says so. If the response to the write is lost and the fields show
    their old values, the operator writes them once more.

    Returns ``{integration_instance_id, written: [label], unchanged: [label]}``.

    :param integration_instance_id: Id of the instance, or a row of ``WorkflowsoftIntegrationSensor`` (templated).
    :param fields: ``{label or key: value}``; labels must be unique (templated).
    :param expected_fields: ``{label or key: type}`` that the instance must have (templated).
    :param allow_unknown_types: Send values of field types that this package does not know as they are.
    :param verify: ``exact`` (default): the fields must show what was sent. ``normalized``: they may also show a text
        without blanks at its ends or with other line ends, a time to the minute, and a number rounded to the digits
        that are shown; the log names each difference.
    :param confirm_timeout: Seconds, or a timedelta, for which the operator reads the values back; default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :raises ConfigurationError: a field does not exist or is read-only; a value does not fit or is not an option.
    :raises StepMoved: the instance is already completed; never retried.
    :raises OutcomeUnknown: the response was lost and the fields do not show the values; never retried.
    :raises UnexpectedResponse: the server accepted the values but shows others, or emptied fields that were not
        written (never retried). The error names each field with both values.
    """

    template_fields: Sequence[str] = (*WorkflowsoftIntegrationOperator.template_fields, "fields", "dry_run")
    template_fields_renderers = {**WorkflowsoftIntegrationOperator.template_fields_renderers, "fields": "json"}

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
        self._templated_fields = templated_names(fields)

    def act(self, context: Context) -> dict[str, Any]:
        from airflow_provider_workflows.operators.workflowsoft.integration_step import VERIFY  # likewise
        from airflow_provider_workflows.rules import workflowsoft_fields as field_rules  # likewise

        if not isinstance(self.fields, Mapping) or not self.fields:
            raise ConfigurationError("fields must be a mapping of labels or keys to values, and must not be empty.")
        field_rules.check_rendered(self.fields, self._templated_fields)
        check_choice("verify", self.verify, VERIFY)
        instance_id, step = self.open_step(context, confirm_timeout=self.confirm_timeout, verify=self.verify)
        fields = step.read(self.expected_fields)
        decision = step.decision or step.plan(fields, self.fields, allow_unknown_types=self.allow_unknown_types)
        self.known = {"integration_instance_id": instance_id, "unchanged": decision["unchanged"]}
        step.write(fields, decision)
        return {**self.known, "written": decision["written"]}
