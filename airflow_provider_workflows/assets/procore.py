"""The function that builds an asset which watches Procore's Workflows v2 API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.assets.events import (
    asset_options,
    check_can_watch,
    check_constants,
    checked_name,
    named_errors,
    watched_asset,
)
from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import as_list, check_choice

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from airflow.sdk.definitions.asset import AssetAccessControl

EVENTS = ("response_requested", "instance_changed")
NEEDS_SUBTYPE = "correspondence"


def procore_asset(
    name: str,
    *,
    event: str = "response_requested",
    tool_type: str | Collection[str],
    procore_conn_id: str = "procore_default",
    company_id: str | int | None = None,
    project_id: str | int | Collection[str | int] | None = None,
    tool_subtype: str | int | None = None,
    user: str | int | None = None,
    states: str | Collection[str] | None = None,
    changes: str | Collection[str] | None = None,
    poll_interval: timedelta | float | None = None,
    queue: str | None = None,
    group: str | None = None,
    extra: Mapping[str, Any] | None = None,
    access_control: AssetAccessControl | None = None,
) -> Asset:
    """
    Build an asset that Procore events update, to schedule DAGs by these events.

    The events are those of :class:`ProcoreResponseRequestedTrigger` and :class:`ProcoreInstanceChangedTrigger`.
    No parameter is templated.

    :param name: Name of the asset, and part of its URI ``procore://<connection>/<event>/<name>``.
    :param event: ``response_requested`` or ``instance_changed``.
    :param tool_type: Tool or several, such as ``purchase_order_contract``.
    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company; default: the company of the connection.
    :param project_id: Project or several, ``company`` for the company level; default: the level of each tool.
    :param tool_subtype: Subtype of the tools; needed for correspondence.
    :param user: For ``response_requested``: login, e-mail address or id of the user whose response is requested;
        default: the connection's user.
    :param states: For ``instance_changed``: emit only events of instances in these states: ``blocked``,
        ``complete``, ``in_progress``, ``overdue``, ``processing``, ``terminated``, ``warning``.
    :param changes: For ``instance_changed``: emit only these changes: ``started``, ``changed``, ``ended``, ``gone``.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
    :param queue: Queue of the triggerers that may poll (Airflow 3.4+); default: any triggerer.
    :param group: Airflow's ``group`` of the asset.
    :param extra: Airflow's ``extra`` of the asset.
    :param access_control: Teams that may use the asset, an ``AssetAccessControl`` (Airflow 3.3+).
    :raises ConfigurationError: a parameter is wrong or goes with the other event, or this Airflow is 3.0.0, which
        cannot watch assets.
    """
    from airflow_provider_workflows.triggers.procore_events import (
        ProcoreInstanceChangedTrigger,
        ProcoreResponseRequestedTrigger,
    )

    with named_errors("procore_asset", name):
        check_can_watch()
        name = checked_name(name)
        options = asset_options(group=group, extra=extra, access_control=access_control)
        check_choice("event", event, EVENTS)
        place: dict[str, Any] = {
            "procore_conn_id": procore_conn_id,
            "company_id": company_id,
            "project_id": project_id,
            "tool_type": tool_type,
            "tool_subtype": tool_subtype,
        }
        check_constants(**place, user=user, states=states, changes=changes)
        if project_id is not None and not as_list(project_id):
            raise ConfigurationError("project_id is an empty list. Name at least one, or omit it.")
        if tool_subtype is None and NEEDS_SUBTYPE in as_list(tool_type):
            raise ConfigurationError(
                f"tool_subtype is missing: tool_type={NEEDS_SUBTYPE!r} needs it, the id of the correspondence type."
            )
        place |= {"poll_interval": poll_interval, "asset": name, "queue": queue}
        if event == "response_requested":
            _reject(event, states=states, changes=changes)
            trigger: Any = ProcoreResponseRequestedTrigger(user=user, **place)
        else:
            _reject(event, user=user)
            trigger = ProcoreInstanceChangedTrigger(states=states, changes=changes, **place)
        return watched_asset(name, "procore", trigger.procore_conn_id, trigger, event, **options)


def _reject(event: str, **parameters: Any) -> None:
    for name, value in parameters.items():
        if value is not None:
            raise ConfigurationError(f"{name} does not go with event={event!r}; omit it.")
