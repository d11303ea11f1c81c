"""The function that builds an asset which watches an integration step of Workflowsoft."""

from __future__ import annotations

from collections.abc import Mapping
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

if TYPE_CHECKING:
    from airflow.sdk import Asset
    from airflow.sdk.definitions.asset import AssetAccessControl


def workflowsoft_asset(
    name: str,
    *,
    step: str | int | None = None,
    diagram: str | int | None = None,
    step_id: str | int | None = None,
    max_instances: int = 100,
    workflowsoft_conn_id: str = "workflowsoft_default",
    poll_interval: timedelta | float | None = None,
    queue: str | None = None,
    group: str | None = None,
    extra: Mapping[str, Any] | None = None,
    access_control: AssetAccessControl | None = None,
) -> Asset:
    """
    Build an asset that new instances of an integration step update, to schedule DAGs by these events.

    The events are those of :class:`WorkflowsoftIntegrationTrigger`. No parameter is templated.

    :param name: Name of the asset, and part of its URI ``workflowsoft://<connection>/integration/<name>``.
    :param step: Title or id of the integration step in its process diagram.
    :param diagram: Title or id of the process diagram; goes with ``step``.
    :param step_id: The step's id instead of both.
    :param max_instances: Number of instances, 1 to 500, after which consecutive polls wait for the interval.
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``.
    :param poll_interval: Seconds, or a timedelta, between two polls; default: ``[workflows] poke_interval``, else 60.
        A server that is not on this machine is polled every 15 seconds at most.
    :param queue: Queue of the triggerers that may poll (Airflow 3.4+); default: any triggerer.
    :param group: Airflow's ``group`` of the asset.
    :param extra: Airflow's ``extra`` of the asset.
    :param access_control: Teams that may use the asset, an ``AssetAccessControl`` (Airflow 3.3+).
    :raises ConfigurationError: a parameter is wrong, or this Airflow is 3.0.0, which cannot watch assets.
    """
    from airflow_provider_workflows.triggers.workflowsoft_events import WorkflowsoftIntegrationTrigger

    with named_errors("workflowsoft_asset", name):
        check_can_watch()
        name = checked_name(name)
        options = asset_options(group=group, extra=extra, access_control=access_control)
        check_constants(step=step, diagram=diagram, step_id=step_id, workflowsoft_conn_id=workflowsoft_conn_id)
        _check_step(diagram=diagram, step=step, step_id=step_id)
        trigger = WorkflowsoftIntegrationTrigger(
            step=step,
            diagram=diagram,
            step_id=step_id,
            max_instances=max_instances,
            workflowsoft_conn_id=workflowsoft_conn_id,
            poll_interval=poll_interval,
            asset=name,
            queue=queue,
        )
        return watched_asset(name, "workflowsoft", trigger.workflowsoft_conn_id, trigger, "integration", **options)


def _check_step(**names: str | int | None) -> None:
    present = [name for name, value in names.items() if value is not None]
    if present not in (["diagram", "step"], ["step_id"]):
        what = " and ".join(present) or "nothing"
        raise ConfigurationError(f"Give both diagram and step, or step_id alone; got {what}.")
