"""Base classes of the Procore operators: the connection, the Workflows v2 hook, and one workflow instance."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    ServerError,
    StepMoved,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.operators.base import WorkflowsOperator, WritingOperator
from airflow_provider_workflows.operators.procore.item import ItemParameters
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until, resolve_unknown_outcome
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import str_id

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context

    from airflow_provider_workflows.hooks.procore import ProcoreHook

Changed = TypeVar("Changed")
Read = TypeVar("Read")
ON_STEP_MOVED = ("fail", "skip", "succeed")
ON_ACTIVE_INSTANCE = ("adopt", "fail")
# The outcome of a change that was sent, as the task state store holds it for later tries of the task.
UNKNOWN, ACCEPTED, SERVER_FAILED, NOT_ACCEPTED, DONE = "unknown", "accepted", "server failed", "not accepted", "done"
# Statuses of a response to a step that has moved on; Procore does not document which of them it sends.
PERHAPS_MOVED = (404, 409, 410, 422)
# Rejections: the change was not made, unless another user or task made it first.
REJECTED = (InvalidRequest, NotFound, PermissionDenied)


class ProcoreConnectionOperator(WorkflowsOperator):
    """
    Hold the parameters of a Procore connection; the base of the operators for both workflow APIs.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; overrides the connection's (templated).
    :param project_id: Project to work in; overrides the connection's (templated).
    """

    operator_extra_links: Collection[BaseOperatorLink] = (ProcoreItemLink(),)
    template_fields: Sequence[str] = ("procore_conn_id", "company_id", "project_id")

    def __init__(
        self,
        *,
        procore_conn_id: str = "procore_default",
        company_id: str | int | None = None,
        project_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.procore_conn_id = procore_conn_id
        self.company_id = company_id
        self.project_id: Any = project_id  # a list in operators that work in several projects


class ProcoreOperator(ProcoreConnectionOperator):
    """Provide the hook of Procore's Workflows v2 API; the base of its operators."""

    @cached_property
    def hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)

    @cached_property
    def level(self) -> str:
        """The project to work in, or ``company``."""
        return self.hook.level_for(None, getattr(self, "tool_type", None))

    def link_to(self, instance: Mapping[str, Any]) -> None:
        """Make the task link to the item of an instance in Procore."""
        self.item_url = self.hook.item_url(
            instance_id=str_id(instance.get("id")),
            item_id=str_id(instance.get("item_id")),
            tool_type=instance.get("tool_type"),
            project_id=self.level,
        )


class ProcoreWideOperator(ProcoreOperator):
    """Work in several tools and projects; the task links to no single item."""

    operator_extra_links = ()

    @cached_property
    def hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id)  # the project goes with each call


class ProcoreInstanceOperator(ItemParameters, ProcoreOperator, WritingOperator):
    """
    Work on one workflow instance; the base of the operators that change an instance.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; overrides the connection's (templated).
    :param project_id: Project to work in, or ``company``; default: where the tool is, if ``tool_type`` is given,
        else the connection's (templated).
    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance, else newest one, to use (templated).
    :param dry_run: Only read, and return what would be sent (templated).
    """

    template_fields: Sequence[str] = (*ProcoreOperator.template_fields, *ItemParameters.ITEM_FIELDS, "dry_run")

    def find_instance_id(self) -> str:
        """Return the id of the requested instance, or of the item's active instance, else of its newest one."""
        if self.instance_id is not None:
            return str(str_id(self.instance_id))
        instances = self.hook.list_item_instances(
            str(self.tool_type), str(str_id(self.item_id)), self.level, tool_subtype=str_id(self.tool_subtype)
        )
        return rules.newest_instance(instances)

    def pinned_instance_id(self, context: Context, key: str) -> str:
        """Return the id of the requested instance: the same one in all tries of the task."""
        requested = None if self.instance_id is None else {"instance_id": str_id(self.instance_id)}
        pin = self.pinned(context, key, requested, "instance_id")
        if pin.value is None:
            found = self.find_instance_id()
            if pin.is_outdated:
                return self.pinned_instance_id(context, key)
            pin.persist({"instance_id": found})
        return str((pin.value or {})["instance_id"])

    def show(self, instance_id: str) -> dict[str, Any]:
        """
        Read an instance, and make the task link to its item.

        :raises UnexpectedResponse: the instance belongs to another item than the requested one.
        """
        instance = self.hook.get_instance(instance_id, project_id=self.level)
        item_id = str_id(self.item_id)
        if item_id is not None and not rules.matches_filters(instance, tool_type=self.tool_type, item_id=item_id):
            raise UnexpectedResponse(
                f"Instance {instance_id} belongs to item {instance.get('item_id')} of tool "
                f"{instance.get('tool_type')}, not to item {item_id} of tool {self.tool_type}; nothing was sent"
            )
        self.link_to(instance)
        return instance

    def at_a_step(self, instance_id: str, read: Callable[[], Read], is_between: Callable[[Read], bool]) -> Read:
        """
        Read an instance, and poll it while it is between two steps.

        :param read: Reads the instance.
        :param is_between: Decides whether the instance, as read, shows neither a current step nor an end.
        :raises WorkflowsError: the instance is between two steps for longer than ``confirm_timeout``.
        """
        found = read()
        if not is_between(found):
            return found
        self.log.info("Instance %s is between two steps. Polling it until it is at a step.", instance_id)
        later = poll_until(read, lambda now: not is_between(now), self.confirm_timeout)
        if later is None or is_between(later):
            raise WorkflowsError(
                f"Instance {instance_id} is between two steps: for {self.confirm_timeout:g} s it has shown neither a "
                "current step nor an end. Nothing was sent; a retry reads the instance again."
            )
        return later

    def change(self, send: Callable[[], Changed], read: Callable[[], Changed | None], *, missing: str) -> Changed:
        """
        Send a change that Procore documents as repeatable, and send it once more if the response is lost.

        :param send: Sends the change and returns its result.
        :param read: Returns the result as the record shows it, or None if the record does not show it.
        :param missing: What the record does not show, as the end of an error message.
        :raises OutcomeUnknown: neither a response nor the record shows the result; never retried.
        """
        unclear: WorkflowsError | None = None
        for _ in range(2):
            try:
                return send()
            except NOTHING_DONE:
                if unclear is None:
                    raise
            except OutcomeUnknown as lost:
                unclear = unclear or lost
                self.log.warning(
                    "%s Sending the same request again; it changes nothing if the first one arrived.", describe(lost)
                )
            except WorkflowsError as malformed:
                unclear = unclear or malformed
                break
        assert unclear is not None
        seconds = 0.0 if isinstance(unclear, ServerError) else self.confirm_timeout
        return resolve_unknown_outcome(unclear, read, seconds, missing=missing)

    def moved(self, message: str, on_step_moved: str) -> None:
        """End the task as ``on_step_moved`` says, because the step that it was to act on is over."""
        if on_step_moved == "fail":
            raise StepMoved(f"{message} Set on_step_moved to 'skip' or 'succeed' if this is not a failure.")
        self.log.info("%s Nothing was sent; on_step_moved is %r.", message, on_step_moved)
        if on_step_moved == "skip":
            raise AirflowSkipException(message)


def current_position(instance: Mapping[str, Any]) -> str:
    """Return the current step of an instance, with its occurrence, as part of a log line."""
    step = rules.current_step(instance)
    return "" if step is None else f" at step {step.get('name')!r} (occurrence {step['id']})"
