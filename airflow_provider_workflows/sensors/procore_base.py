"""The base classes of the sensors for Procore's two workflow APIs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.links.airflow import ApprovalsLink
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.sensors.base import WorkflowsSensor

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook


class ProcoreConnectionSensor(WorkflowsSensor):
    """
    Wait over a Procore connection, for either of Procore's two workflow APIs.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; overrides the company of the connection (templated).
    """

    operator_extra_links = (ProcoreItemLink(), ApprovalsLink())
    template_fields: Sequence[str] = ("procore_conn_id", "company_id")

    def __init__(self, *, procore_conn_id: str = "procore_default", company_id: str | int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.procore_conn_id = procore_conn_id
        self.company_id = company_id

    def trigger_arguments(self) -> dict[str, Any]:
        return {
            "procore_conn_id": self.procore_conn_id,
            "company_id": str_id(self.company_id),
            "poll_interval": self.poke_interval,
            "deadline": self.deadline,
        }


class ProcoreSensor(ProcoreConnectionSensor):
    """Wait for Procore's Workflows v2 API."""

    @cached_property
    def hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id)


def known_states(parameter: str, states: list[str], known: Collection[str]) -> list[str]:
    """
    Return states, all of them known.

    :raises ConfigurationError: a state is unknown.
    """
    if unknown := [state for state in states if state not in known]:
        raise ConfigurationError(
            f"{parameter}: unknown state {', '.join(map(repr, unknown))}. Expected one of: {', '.join(sorted(known))}."
        )
    return states
