"""Operators for Workflowsoft's API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    ContractError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
    ServerError,
)
from airflow_provider_workflows.links.workflowsoft import WorkflowsoftItemLink
from airflow_provider_workflows.operators.base import Pin, WorkflowsOperator, read_until_found
from airflow_provider_workflows.rules import workflowsoft as rules
from airflow_provider_workflows.rules.parameters import check_choice, check_required
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

COMPLETION = "completion"  # key in the task state store
ON_UNKNOWN_COMPLETION = ("fail", "retry", "assume_done")
# The server did not do it, for certain.
REFUSALS = (AuthenticationError, ConnectionFailed, InvalidRequest, NotFound, PermissionDenied, RateLimited)


class WorkflowsoftOperator(WorkflowsOperator):
    """
    An operator on one integration instance.

    :param integration_instance_id: The instance, from ``WorkflowsoftIntegrationSensor`` (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    """

    template_fields: Sequence[str] = ("workflowsoft_conn_id", "integration_instance_id")
    operator_extra_links = (WorkflowsoftItemLink(),)

    def __init__(
        self,
        *,
        integration_instance_id: str | int,
        workflowsoft_conn_id: str = "workflowsoft_default",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.integration_instance_id = integration_instance_id
        self.workflowsoft_conn_id = workflowsoft_conn_id

    @cached_property
    def hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)

    def checked_instance_id(self) -> str:
        """Return the rendered instance id, and set the link to it."""
        check_required(integration_instance_id=self.integration_instance_id)
        instance_id = str(self.integration_instance_id).strip()
        self.item_url = self.hook.item_url(integration_instance_id=instance_id)
        return instance_id


class WorkflowsoftGetFieldsOperator(WorkflowsoftOperator):
    """
    Reads the fields of an integration instance.

    Returns ``{label: value}`` in JSON's own types: a Decimal as text such as ``"1640.0"`` (Airflow's XCom
    would round it), a time as ISO-8601 text in UTC, an empty field as None. A label that several fields share
    is replaced by the key of each. The same forms are taken back by ``WorkflowsoftUpdateFieldsOperator``.

    :param integration_instance_id: The instance (templated).
    """

    returns_mapping = False  # its keys are the labels of fields; it is handed on whole

    def act(self, context: Context) -> dict[str, Any]:
        return rules.by_label(self.hook.get_fields(self.checked_instance_id()))


class WorkflowsoftUpdateFieldsOperator(WorkflowsoftOperator):
    """
    Writes fields of an integration instance, once, and reads them back.

    Only fields that hold something else are sent, all in one call; a retry that finds them written sends
    nothing. So the whole of what ``WorkflowsoftGetFieldsOperator`` returned may be given with a few values
    changed. Values: text, True or False, a Decimal or int or number as text for decimals (a float is refused,
    for it is not exact), a datetime with a time zone or its ISO-8601 text (whole seconds are sent), a date,
    None to empty a field.

    Returns ``{integration_instance_id, written: [label], unchanged: [label]}``.

    :param integration_instance_id: The instance (templated).
    :param fields: ``{label or key: value}``; a label must be unique (templated).
    :param allow_unknown_types: Send values of field types that this package does not know as they are.
    :param confirm_timeout: Seconds to read on for the values after they were sent; default 60.
    :raises ConfigurationError: no such field, a wrong value, a read-only field, a value that is no option.
    :raises OutcomeUnknown: the answer was lost and reading does not show the values; never retried.
    :raises ContractError: the server accepted the values but shows others; the fields are named.
    """

    template_fields: Sequence[str] = (*WorkflowsoftOperator.template_fields, "fields")

    def __init__(
        self,
        *,
        fields: Mapping[str, Any],
        allow_unknown_types: bool = False,
        confirm_timeout: float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.fields = fields
        self.allow_unknown_types = allow_unknown_types
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        if not isinstance(self.fields, Mapping) or not self.fields:
            raise ConfigurationError("fields must be a mapping of labels or keys to values, and not empty.")
        instance_id = self.checked_instance_id()
        held = self.hook.get_fields(instance_id)
        update = rules.plan_update(held, self.fields, allow_unknown_types=self.allow_unknown_types)
        for field in held:
            if field.key in update.values and field.options and rules.option_values(field) is None:
                self.log.warning("The options of field %s have an unknown form; its value is not checked.", field)
        if update.values:
            self._send(instance_id, update.values)
        self.log.info("Written: %s. Unchanged: %s.", update.written or "none", update.unchanged or "none")
        return {
            "integration_instance_id": instance_id,
            "written": update.written,
            "unchanged": update.unchanged,
        }

    def _send(self, instance_id: str, values: Mapping[str, Any]) -> None:
        lost: OutcomeUnknown | None = None
        try:
            self.hook.update_fields(instance_id, values)
        except OutcomeUnknown as error:
            self.log.warning("%s Reading whether the values arrived.", error)
            lost = error
        others: list[str] = []

        def shown() -> bool | None:
            others[:] = rules.differing(self.hook.get_fields(instance_id), values)
            return None if others else True

        if read_until_found(shown, self.confirm_timeout):
            return
        if lost is not None:
            raise lost
        raise ContractError(f"Workflowsoft accepted the values but shows others in: {', '.join(others)}")


class WorkflowsoftCompleteIntegrationOperator(WorkflowsoftOperator):
    """
    Completes an integration instance, so that its process goes on; once.

    The API does not show whether an instance is completed, so the operator writes down in Airflow's task
    state store (3.3+) that it is about to complete it, and that it has. A retry that finds it done sends
    nothing; one that finds it begun follows ``on_unknown_completion``. A server that says the instance was
    completed before is believed. Clearing the task means "do it again".

    Returns ``{integration_instance_id, custom_action, already_completed}``.

    :param integration_instance_id: The instance (templated).
    :param custom_action: Presumably the way out of the step; ``__AUTO__`` (default) is the only value that
        the vendor shows (templated).
    :param on_unknown_completion: What to do when nobody can tell whether it was completed: ``fail``
        (default), ``retry`` (send it again, which may complete it twice), ``assume_done`` (templated).
    :raises ConfigurationError: a required field is empty (it is named); no journal for retries.
    :raises OutcomeUnknown: the answer was lost, with ``on_unknown_completion="fail"``; never retried.
    """

    template_fields: Sequence[str] = (
        *WorkflowsoftOperator.template_fields,
        "custom_action",
        "on_unknown_completion",
    )

    def __init__(self, *, custom_action: str = "__AUTO__", on_unknown_completion: str = "fail", **kwargs: Any):
        super().__init__(**kwargs)
        self.custom_action = custom_action
        self.on_unknown_completion = on_unknown_completion

    def act(self, context: Context) -> dict[str, Any]:
        store = task_state_store(context)
        self._check_parameters(can_remember=store is not None)
        instance_id = self.checked_instance_id()
        journal = Pin(store, COMPLETION, None)
        earlier = journal.value or {}
        if "completed" in earlier:
            self.log.info("An earlier try completed instance %s at %s.", instance_id, earlier["completed"])
            return self._result(instance_id, already_completed=True)
        if "completing" in earlier:
            begun = f"An earlier try began to complete instance {instance_id} at {earlier['completing']}"
            if not self._may_send_again(OutcomeUnknown(f"{begun} and did not get to its end")):
                return self._result(instance_id, already_completed=True)
        if missing := rules.missing_required(self.hook.get_fields(instance_id)):
            raise ConfigurationError(
                f"Instance {instance_id} cannot be completed, for required fields are empty: "
                f"{', '.join(missing)}. Nothing was sent."
            )
        return self._result(instance_id, already_completed=not self._complete(instance_id, journal))

    def _check_parameters(self, *, can_remember: bool) -> None:
        check_required(custom_action=self.custom_action)
        check_choice("on_unknown_completion", self.on_unknown_completion, ON_UNKNOWN_COMPLETION)
        if not can_remember and self.retries and self.on_unknown_completion != "retry":
            raise ConfigurationError(
                "on_unknown_completion must be 'retry' when retries > 0 on an Airflow before 3.3, for it "
                "cannot remember what an earlier try did. Or set retries=0."
            )

    def _complete(self, instance_id: str, journal: Pin) -> bool:
        """Complete the instance and note it; return whether it was this call that did."""
        journal.keep({"completing": _now()})
        try:
            done = self._send(instance_id)
        except REFUSALS as refused:
            if not rules.says_already_completed(refused.server_message):
                journal.keep({})
                raise
            done = self._believe(refused)
        except ServerError as failed:
            if not rules.says_already_completed(failed.server_message):
                # A business error may come as a 500, and so may a crash after the deed: not to be repeated.
                raise AirflowFailException(f"ServerError: {failed}") from failed
            done = self._believe(failed)
        journal.keep({"completed": _now()})
        return done

    def _send(self, instance_id: str) -> bool:
        try:
            self.hook.complete(instance_id, custom_action=self.custom_action)
        except OutcomeUnknown as lost:
            if not self._may_send_again(lost):
                return False
            self.hook.complete(instance_id, custom_action=self.custom_action)
        return True

    def _may_send_again(self, lost: OutcomeUnknown) -> bool:
        if self.on_unknown_completion == "fail":
            raise lost
        again = self.on_unknown_completion == "retry"
        self.log.warning("%s on_unknown_completion: %s.", lost, self.on_unknown_completion)
        return again

    def _believe(self, answer: ApiError) -> bool:
        self.log.warning("The server says that the instance was completed before: %s", answer)
        return False

    def _result(self, instance_id: str, *, already_completed: bool) -> dict[str, Any]:
        return {
            "integration_instance_id": instance_id,
            "custom_action": self.custom_action,
            "already_completed": already_completed,
        }


def _now() -> str:
    return datetime.now(timezone.utc).isoformat()
