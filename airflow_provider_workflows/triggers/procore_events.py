"""Event triggers for Procore's Workflows v2 API: watchers of assets that emit requests and changes of instances."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.polling.procore_events import InstancesScope, RequestsScope
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_events as events
from airflow_provider_workflows.rules.parameters import check_choice
from airflow_provider_workflows.rules.procore_events import CHANGES, Emitted, Instances, Requested
from airflow_provider_workflows.triggers.events import (
    MAX_FACTS,
    WorkflowsEventTrigger,
    connection_id,
    constant,
    constants,
)

if TYPE_CHECKING:
    from airflow_provider_workflows.polling.poll import PollScope


class ProcoreEventTrigger(WorkflowsEventTrigger):
    """
    Watch tools of Procore for an asset.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company; default: the company of the connection.
    :param project_id: Project or several, ``company`` for the company level; default: the level of each tool.
    :param tool_type: Tool or several.
    :param tool_subtype: Subtype of the tools; needed for correspondence.
    """

    def __init__(
        self,
        *,
        tool_type: str | Collection[str],
        procore_conn_id: str = "procore_default",
        company_id: str | int | None = None,
        project_id: str | int | Collection[str | int] | None = None,
        tool_subtype: str | int | None = None,
        poll_interval: timedelta | float | None = None,
        asset: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(poll_interval=poll_interval, asset=asset, **kwargs)
        self.procore_conn_id = connection_id("procore_conn_id", procore_conn_id)
        self.company_id = constant("company_id", company_id)
        self.project_id = constants("project_id", project_id)
        self.tool_type = constants("tool_type", tool_type)
        self.tool_subtype = constant("tool_subtype", tool_subtype)
        if not self.tool_type:
            raise ConfigurationError("tool_type must name at least one tool; got none.")

    own: ClassVar[tuple[str, ...]] = ("procore_conn_id", "company_id", "project_id", "tool_type", "tool_subtype")

    @property
    def place(self) -> tuple[Any, ...]:
        return (self.procore_conn_id, self.company_id, self.project_id, self.tool_type, self.tool_subtype)

    def watched(self) -> tuple[Any, ...]:
        return self.place

    def where(self, outcome: Any) -> dict[str, Any]:
        return {"procore_conn_id": self.procore_conn_id, "company_id": outcome.company_id}


class ProcoreResponseRequestedTrigger(ProcoreEventTrigger):
    """
    Emit an event to an asset for every instance that starts to request the response of a user.

    There is one event for each instance and step occurrence that requests the user's response. On Airflow 3.3.2 and
    newer, which can store the cursor, the first start emits all open requests, too.

    The event's payload is ``{event: "response_requested", procore_conn_id, company_id, user_id, events}``, each of
    the events ``{event_id, instance_id, item_id, project_id, tool_type, step, step_occurrence_id,
    step_started_at, overdue_at}``; ``project_id`` is ``company`` at the company level.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool or several, such as ``purchase_order_contract``.
    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company; default: the company of the connection.
    :param project_id: Project or several, ``company`` for the company level; default: the level of each tool.
    :param tool_subtype: Subtype of the tools; needed for correspondence.
    :param user: Login, e-mail address or id of the user; default: the connection's user.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
    :param asset: Name of the asset; needed where several assets have the same watcher.
    :param queue: Queue of the triggerers that may poll (Airflow 3.4+); default: any triggerer.
    :raises ConfigurationError: a parameter is wrong. Nothing is templated in a watcher.
    """

    event = "response_requested"
    emits_backlog = True
    own = (*ProcoreEventTrigger.own, "user")

    def __init__(self, *, user: str | int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.user = constant("user", user)

    def scope(self) -> PollScope:
        return RequestsScope(*self.place, user=self.user)

    def where(self, outcome: Requested) -> dict[str, Any]:
        return {**super().where(outcome), "user_id": outcome.user_id}

    def watched(self) -> tuple[Any, ...]:
        return (*super().watched(), self.user)

    def news(self, emitted: Emitted, outcome: Requested, *, is_first: bool) -> tuple[Emitted, list[dict[str, Any]]]:
        return events.new_requests(emitted, outcome, is_first=is_first, limit=MAX_FACTS)


class ProcoreInstanceChangedTrigger(ProcoreEventTrigger):
    """
    Emit an event to an asset for every workflow instance that starts, changes, ends, or is gone.

    A change is a new state, step, item status, decision or response. Instances that are active at the first start count
    as emitted. A change that is undone between two polls is not noticed.

    The event's payload is ``{event: "instance_changed", procore_conn_id, company_id, events}``, each of the events
    ``{event_id, change, changed, instance_id, item_id, project_id, tool_type, state, step, item_status, decision,
    last_response, started_at, ended_at, ambiguous}``: ``change`` is ``started``, ``changed``, ``ended`` or ``gone``;
    ``changed`` names the fields that differ from the last emitted event; ``last_response`` is
    ``{option, type, by, at}`` or None; ``decision`` and ``ambiguous`` are as ``ProcoreInstanceSensor`` returns them.
    For an instance that is gone (deleted, or hidden from the connection's user) only the ids are known.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool or several, such as ``purchase_order_contract``.
    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company; default: the company of the connection.
    :param project_id: Project or several, ``company`` for the company level; default: the level of each tool.
    :param tool_subtype: Subtype of the tools; needed for correspondence.
    :param states: Emit only events of instances in one of these states; an instance that is gone has none. Default:
        all.
    :param changes: Emit only these changes. Default: all.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
    :param asset: Name of the asset; needed where several assets have the same watcher.
    :param queue: Queue of the triggerers that may poll (Airflow 3.4+); default: any triggerer.
    :raises ConfigurationError: a parameter is wrong. Nothing is templated in a watcher.
    """

    event = "instance_changed"
    emits_backlog = False
    own = (*ProcoreEventTrigger.own, "states", "changes")

    def __init__(
        self,
        *,
        states: str | Collection[str] | None = None,
        changes: str | Collection[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.states = _chosen("states", states, sorted(rules.STATES))
        self.changes = _chosen("changes", changes, CHANGES)

    def scope(self) -> PollScope:
        return InstancesScope(*self.place)

    def news(self, emitted: Emitted, outcome: Instances, *, is_first: bool) -> tuple[Emitted, list[dict[str, Any]]]:
        return events.changed_instances(
            emitted,
            outcome,
            is_first=is_first,
            limit=MAX_FACTS,
            is_stored=self.is_stored,
            is_desired=self._is_desired,
        )

    def _is_desired(self, fact: Mapping[str, Any]) -> bool:
        return (not self.states or fact["state"] in self.states) and (
            not self.changes or fact["change"] in self.changes
        )


def _chosen(name: str, value: Any, allowed: Sequence[str]) -> list[str]:
    choices = [] if value is None else constants(name, value)
    for choice in choices:
        check_choice(name, choice, allowed)
    return choices
