"""Functions for assets of Procore and Workflowsoft: checks of parameters, and the events that started a run."""

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
    Return the events that started a run, each once.

    Several polls can start one run, and an event can be re-delivered: then it has the same ``event_id``.

    :param triggering_asset_events: ``triggering_asset_events`` of the task's context.
    :return: The rows of the payloads' ``events``; the trigger's reference describes them.
    """
    rows = [row for payload in payloads_of(triggering_asset_events) for row in payload["events"]]
    return list({row["event_id"]: row for row in rows}.values())


def payloads_of(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[dict[str, Any]]:
    """
    Return the payloads of the watcher events that started a run, one for each poll.

    An update of the asset by a user or a task has no payload.

    :param triggering_asset_events: ``triggering_asset_events`` of the task's context.
    """
    extras = [event.extra for events in triggering_asset_events.values() for event in events]
    payloads = [extra.get("payload") for extra in extras if extra]
    return [payload for payload in payloads if isinstance(payload, dict) and "events" in payload]


def asset_options(*, group: Any, extra: Any, access_control: Any) -> dict[str, Any]:
    """
    Check the optional arguments of an asset, and return those that are given.

    :raises ConfigurationError: an argument is wrong, or this Airflow version does not have it.
    """
    if group is not None and not isinstance(group, str):
        raise ConfigurationError(f"group must be text, the name of a group of assets; got {group!r}.")
    if extra is not None and not isinstance(extra, Mapping):
        raise ConfigurationError(f"extra must be a dict that can be stored as JSON; got {type(extra).__name__}.")
    options = {"group": group, "extra": None if extra is None else dict(extra)}
    return {name: value for name, value in options.items() if value is not None} | asset_access(access_control)


def watched_asset(name: str, scheme: str, conn_id: str, trigger: BaseEventTrigger, event: str, **options: Any) -> Asset:
    """
    Build an asset with a watcher.

    :param options: What :func:`asset_options` returned.
    :raises ConfigurationError: this Airflow version cannot watch assets.
    """
    from airflow.sdk import Asset, AssetWatcher

    uri = f"{scheme}://{quote(conn_id, safe='')}/{event}/{quote(name, safe='')}"
    watcher = AssetWatcher(name=f"{event} for {name}", trigger=trigger)
    return Asset(name=name, uri=uri, watchers=[watcher], **options)


@contextmanager
def named_errors(function: str, name: Any) -> Iterator[None]:
    """
    Prefix errors with the function and the asset, because a DAG file can build many assets.

    :raises ConfigurationError: a parameter is wrong, or Airflow rejects the asset.
    """
    try:
        yield
    except ValueError as fault:  # a ConfigurationError is one, too
        raise ConfigurationError(f"{function}({name!r}): {fault}") from None


def check_can_watch() -> None:
    """Check that this Airflow version can watch assets."""
    if not CAN_WATCH_ASSETS:
        raise ConfigurationError("Watching an asset needs Airflow 3.0.1 or newer; upgrade Airflow.")


def checked_name(name: Any) -> str:
    """Return the name of an asset, or raise if it is missing or not text."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f"name must be text, the name of the asset; got {name!r}.")
    check_constants(name=name)
    return name.strip()  # as the trigger does with its parameter asset


def check_constants(**parameters: Any) -> None:
    """
    Check that Airflow can store the parameters of a watcher as JSON; a parameter may be one value or several.

    :raises ConfigurationError: a value is a template, or neither text nor a number; the message says what to give.
    """
    from airflow_provider_workflows.triggers.events import constant

    for name, value in parameters.items():
        for item in as_list(value):
            if item is None and value is not None:
                raise ConfigurationError(f"{name} has None in its list. Give each value, or omit {name}.")
            try:
                constant(name, item)
            except ConfigurationError as fault:
                raise ConfigurationError(f"{fault}{_advice(item)}") from None


def _advice(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return " Give the value itself: the asset is built when Airflow parses the DAG file, before a run starts."
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return " Give several values as a list, a tuple or a set, if the parameter allows several."
    return ""


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """
    Check the URI of an asset, ``procore://<connection>/<event>/<name>``. Airflow calls this function.

    :raises ValueError: a part is missing.
    """
    if not uri.netloc or len([part for part in uri.path.split("/") if part]) < 2:
        raise ValueError(f"The URI of an asset of {uri.scheme} must be {uri.scheme}://<connection>/<event>/<name>.")
    return uri
