"""What the assets of both products have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import as_list
from airflow_provider_workflows.version_compat import CAN_WATCH_ASSETS, asset_access

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.sdk import Asset
    from airflow.triggers.base import BaseEventTrigger


def events_of(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[dict[str, Any]]:
    """
    Return the events that a run was started for, each once.

    One run can be started for several polls, and an event can come again: then it has the same ``event_id``.

    :param triggering_asset_events: ``triggering_asset_events`` of the task's context.
    :return: The rows of the payloads' ``events``; see the trigger for what is in them.
    """
    rows = [row for payload in payloads_of(triggering_asset_events) for row in payload["events"]]
    return list({row["event_id"]: row for row in rows}.values())


def payloads_of(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[dict[str, Any]]:
    """
    Return what the watchers told that a run was started for, one payload for each poll.

    An asset can be updated by hand, too; such an update has no payload.

    :param triggering_asset_events: ``triggering_asset_events`` of the task's context.
    """
    extras = [event.extra for events in triggering_asset_events.values() for event in events]
    payloads = [extra.get("payload") for extra in extras if extra]
    return [payload for payload in payloads if isinstance(payload, dict) and "events" in payload]


def asset_options(*, group: Any, extra: Any, access_control: Any) -> dict[str, Any]:
    """
    Return the further arguments of an asset that are given.

    :raises ConfigurationError: one of them is wrong, or this Airflow does not have it.
    """
    if group is not None and not isinstance(group, str):
        raise ConfigurationError(f"group must be the name of a group of assets, a text; got {group!r}.")
    if extra is not None and not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra must be a dict that can be stored as JSON; got {type(extra).__name__}.")
    given = {"group": group, "extra": None if extra is None else dict(extra)}
    return {name: value for name, value in given.items() if value is not None} | asset_access(access_control)


def watched_asset(name: str, scheme: str, conn_id: str, trigger: BaseEventTrigger, event: str, **options: Any) -> Asset:
    """
    Build an asset with a watcher.

    :param options: What :func:`asset_options` returned.
    :raises ConfigurationError: this Airflow cannot watch assets.
    """
    from airflow.sdk import Asset, AssetWatcher

    uri = f"{scheme}://{quote(conn_id, safe='')}/{event}/{quote(name, safe='')}"
    watcher = AssetWatcher(name=f"{event} for {name}", trigger=trigger)
    return Asset(name=name, uri=uri, watchers=[watcher], **options)


@contextmanager
def named_errors(function: str, name: Any) -> Iterator[None]:
    """
    Say in what is raised which function rejects which asset: a DAG file can build many.

    :raises ConfigurationError: a parameter is wrong, or Airflow takes no such asset.
    """
    try:
        yield
    except ValueError as fault:  # ours are among them
        raise ConfigurationError(f"{function}({name!r}): {fault}") from None


def check_can_watch() -> None:
    """Require an Airflow that can watch assets."""
    if not CAN_WATCH_ASSETS:
        raise ConfigurationError("Watching an asset needs Airflow 3.0.1 or newer.")


def checked_name(name: Any) -> str:
    """Require a name for an asset."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"name must be the asset's name, a text; got {name!r}.")
    check_constants(name=name)
    return name.strip()  # as its trigger keeps it


def check_constants(**given: Any) -> None:
    """Require what a watcher can keep, and say what to give instead; a parameter may be one value or several."""
    from airflow_provider_workflows.triggers.events import constant

    for name, value in given.items():
        for one in as_list(value):
            try:
                constant(name, one)
            except ConfigurationError as fault:
                raise ConfigurationError(f"{fault}{_advice(one)}") from None


def _advice(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return " Write the value itself: the asset is built where the DAG file is read, before there is a run."
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return " Several values can be given as a list, a tuple or a set where several are allowed."
    return ""


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check the URI of an asset, ``procore://<connection>/<event>/<name>``; Airflow calls it.

    :raises ValueError: a part is missing.
    """
    if not uri.netloc or len([part for part in uri.path.split("/") if part]) < 2:
        raise ValueError(f"The URI of an asset of {uri.scheme} must be {uri.scheme}://<connection>/<event>/<name>.")
    return uri
