"""Sensors for Procore's Workflows v2 API."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.rules.parameters import check_required, listed, one_of, text_id
from airflow_provider_workflows.rules.procore import ENDED_STATES, STATES
from airflow_provider_workflows.sensors.base import WorkflowsSensor
from airflow_provider_workflows.triggers.procore import (
    ProcoreInstanceWaitTrigger,
    ProcoreResponseRequestedWaitTrigger,
)

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook


class ProcoreSensor(WorkflowsSensor):
    """
    A sensor on one Procore connection.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; beats the connection's (templated).
    """

    operator_extra_links = (ProcoreItemLink(),)

    def __init__(self, *, procore_conn_id: str = "procore_default", company_id: str | int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.procore_conn_id = procore_conn_id
        self.company_id = company_id

    @cached_property
    def hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id)

    def trigger_arguments(self) -> dict[str, Any]:
        return {
            "procore_conn_id": self.procore_conn_id,
            "company_id": text_id(self.company_id),
            "poll_interval": self.poke_interval,
            "deadline": self.deadline,
        }


class ProcoreInstanceSensor(ProcoreSensor):
    """
    Waits until a workflow instance is complete, terminated, or in another state you name.

    A rejection is an answer, not a failure: the sensor succeeds with ``state`` and ``item_status`` and the DAG
    branches on them, unless ``fail_on`` or ``skip_on`` say otherwise. Waiting by item follows restarts to the
    new instance; waiting by ``instance_id`` ends when that instance does.

    Returns ``{instance_id, item_id, state, step, item_status, last_response: {option, type, comment, by, at},
    started_at, ended_at, blocked_reason}``, the same in every mode.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance to wait for (templated); or give the item.
    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param item_id: The item whose newest instance to wait for (templated).
    :param project_id: Project to look in; beats the connection's (templated).
    :param until: States that end the wait with success; default: complete, terminated.
    :param fail_on: States that fail the task, without a retry.
    :param skip_on: States that skip it.
    :raises ConfigurationError: both instance and item given, or neither; an unknown state.
    """

    template_fields: Sequence[str] = (
        "procore_conn_id",
        "company_id",
        "project_id",
        "instance_id",
        "tool_type",
        "item_id",
    )

    def __init__(
        self,
        *,
        instance_id: str | int | None = None,
        tool_type: str | None = None,
        item_id: str | int | None = None,
        project_id: str | int | None = None,
        until: Collection[str] = tuple(sorted(ENDED_STATES)),
        fail_on: Collection[str] = (),
        skip_on: Collection[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.tool_type = tool_type
        self.item_id = item_id
        self.project_id = project_id
        self.until = until
        self.fail_on = fail_on
        self.skip_on = skip_on

    def build_trigger(self) -> ProcoreInstanceWaitTrigger:
        one_of(instance_id=self.instance_id, item_id=self.item_id)
        if self.item_id is not None:
            check_required(tool_type=self.tool_type)
        return ProcoreInstanceWaitTrigger(
            **self.trigger_arguments(),
            project_id=text_id(self.project_id),
            instance_id=text_id(self.instance_id),
            tool_type=self.tool_type,
            item_id=text_id(self.item_id),
            until=self._states("until"),
            fail_on=self._states("fail_on"),
            skip_on=self._states("skip_on"),
        )

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        return {
            "instance_id": result["instance_id"],
            "item_id": result["item_id"],
            "tool_type": self.tool_type,
            "project_id": text_id(self.project_id),
        }

    def _states(self, parameter: str) -> list[str]:
        states = getattr(self, parameter)
        wanted = [states] if isinstance(states, str) else list(states)
        if unknown := [state for state in wanted if state not in STATES]:
            raise ConfigurationError(
                f"{parameter}: unknown state {', '.join(map(repr, unknown))}. States: {', '.join(sorted(STATES))}."
            )
        if parameter == "until" and not wanted:
            raise ConfigurationError(f"until must name at least one state of {', '.join(sorted(STATES))}.")
        return wanted


class ProcoreResponseRequestedSensor(ProcoreSensor):
    """
    Waits until an instance asks for a response of the integration's user, and returns all that do.

    Returns a list of ``{instance_id, item_id, tool_type, project_id, step, step_occurrence_id,
    step_started_at, overdue_at, options: [{id, name, type}]}``. Hand ``step_occurrence_id`` on to
    ``ProcoreRespondOperator``: it ties the answer to this visit of the step.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool to look in, or a list of them (templated).
    :param project_id: Project to look in, or a list of them; default: the connection's (templated).
    :param user_id: Login information id of the user that is waited on; default: the connection's own (templated).
    """

    returns_mapping = False
    template_fields: Sequence[str] = ("procore_conn_id", "company_id", "project_id", "tool_type", "user_id")

    def __init__(
        self,
        *,
        tool_type: str | Sequence[str],
        project_id: str | int | Sequence[str | int] | None = None,
        user_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_type = tool_type
        self.project_id = project_id
        self.user_id = user_id

    def build_trigger(self) -> ProcoreResponseRequestedWaitTrigger:
        tool_types = [str(tool) for tool in listed(self.tool_type)]
        if not tool_types or not all(tool_types):
            raise ConfigurationError("tool_type must name a tool or a list of tools.")
        return ProcoreResponseRequestedWaitTrigger(
            **self.trigger_arguments(),
            tool_types=tool_types,
            project_ids=[text_id(project) for project in listed(self.project_id)],
            user_id=text_id(self.user_id),
        )

    def item_ids(self, result: list[Mapping[str, Any]]) -> dict[str, str | None]:
        first = result[0]  # a link has room for one
        return {name: first[name] for name in ("instance_id", "item_id", "tool_type", "project_id")}
