"""What differs between the Airflow versions this package runs on, asked for in one place."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from airflow import __version__ as airflow_version
from packaging import version

from airflow_provider_workflows.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Connection, Context

__all__ = [
    "ASSETS_HAVE_ACCESS_CONTROL",
    "CAN_WATCH_ASSETS",
    "HAS_TASK_STATE_STORE",
    "SKIPS_IN_MAPPED_GROUPS",
    "WATCHERS_HAVE_QUEUES",
    "XCOM_HOLDS_NONE",
    "AssetStore",
    "StateStore",
    "airflow_version",
    "amask_secret",
    "aread_extra",
    "asset_access",
    "asset_store",
    "count",
    "gauge",
    "lasting_state_store",
    "mask_secret",
    "push_values",
    "task_state_store",
    "watcher_queue",
]

log = logging.getLogger(__name__)
ROUND = "round"  # key of what tells a task that was cleared from a retry
ROUND_TTL = timedelta(days=730)  # longer than what it tells about
# Airflow 3.0 rejects to store None under a key of its own.
XCOM_HOLDS_NONE = version.parse(airflow_version).release >= (3, 1)
# Where a task can tell its retries what it has done.
HAS_TASK_STATE_STORE = version.parse(airflow_version).release >= (3, 3)
# Since the branch operators are the SDK's, all that a branch in a mapped task group did not choose runs
# (apache/airflow#67265).
SKIPS_IN_MAPPED_GROUPS = version.parse(airflow_version).release < (3, 2)

# Whether something outside can update an asset.
CAN_WATCH_ASSETS = version.parse(airflow_version).release >= (3, 0, 1)
# Whether an asset says which teams may use it, and its watcher in which queue of triggerers it runs.
ASSETS_HAVE_ACCESS_CONTROL = version.parse(airflow_version).release >= (3, 3)
WATCHERS_HAVE_QUEUES = version.parse(airflow_version).release >= (3, 4)


class StateStore(Protocol):
    """The part of Airflow's task state store (Airflow 3.3+) that this package uses."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None: ...


def task_state_store(context: Context) -> StateStore | None:
    """
    Return the task's own store, which survives retries and restarts, or None before Airflow 3.3.

    It is empty for a task that was cleared: that means "do it again".
    """
    store = cast("StateStore | None", context.get("task_state_store"))
    ti = context.get("ti")
    max_tries = getattr(ti, "max_tries", None)
    if store is None or max_tries is None:
        return store
    return StoreSinceClear(
        store,
        max_tries,
        try_number=getattr(ti, "try_number", None),
        clear_number=getattr(context.get("dag_run"), "clear_number", None),
        retries=getattr(context.get("task"), "retries", None),
    )


def lasting_state_store(context: Context) -> StateStore | None:
    """
    Return the task's own store with what it held before the task was cleared, or None before Airflow 3.3.

    Clearing a task leaves its rows alone (``clear_task_instances`` in Airflow 3.3); they go with the DAG run, with
    their retention, or on success where ``[state_store] clear_on_success`` says so.
    """
    return cast("StateStore | None", context.get("task_state_store"))


class StoreSinceClear:
    """
    A task's store without what was stored before the task was last cleared, which Airflow leaves in it.

    No number of Airflow's changes with each clear of a task and with nothing else, so the store holds what the numbers
    were when something was stored last, and in which round between two clears that was. A clear sets the task's number
    of tries to those it has had and its retries, which is another number as a rule. Where somebody has lowered the
    retries it can be the same one; then a clear shows in the DAG run, which counts how often any of its tasks were
    cleared.

    :param max_tries: How many tries the task has in all.
    :param try_number: Which of them this is.
    :param clear_number: How often tasks of the DAG run were cleared.
    :param retries: How many retries the DAG gives the task now.
    """

    def __init__(
        self,
        store: StateStore,
        max_tries: int,
        *,
        try_number: int | None = None,
        clear_number: int | None = None,
        retries: int | None = None,
    ):
        self._store = store
        self._now = {"max_tries": max_tries, "try_number": try_number, "clear_number": clear_number}
        self._retries = retries

    def get(self, key: str, default: Any = None) -> Any:
        return self._store.get(self._name(key), default)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        name = self._name(key)
        self._store_round()
        self._store.set(name, value, retention=retention)

    def _name(self, key: str) -> str:
        return f"{key}.{self._round}"

    @cached_property
    def _stored(self) -> dict[str, Any] | None:
        return cast("dict[str, Any] | None", self._store.get(ROUND))

    @cached_property
    def _round(self) -> int:
        if self._stored is None:
            return 0
        number: int = self._stored["round"]
        if self._was_cleared(self._stored):
            log.info("This task was cleared: it begins again, without what its earlier tries have stored.")
            self._store_round(number + 1)
            return number + 1
        return number

    def _was_cleared(self, stored: Mapping[str, Any]) -> bool:
        try_number = self._now["try_number"]
        if self._now["max_tries"] != stored["max_tries"]:
            return True
        if try_number is None or self._retries is None or try_number == stored["try_number"]:
            return False
        # A retry has had some of its tries, so this holds for it only where the retries were lowered by as many.
        if self._now["max_tries"] != try_number - 1 + self._retries:
            return False
        if self._now["clear_number"] != stored["clear_number"]:
            return True
        log.warning(
            "The retries of this task were lowered since its last try. If it was cleared without its DAG run, Airflow "
            "does not show that, and the task goes on with what its earlier tries have stored."
        )
        return False

    def _store_round(self, number: int | None = None) -> None:
        desired = {"round": self._round if number is None else number, **self._now}
        if desired != self._stored:
            self._store.set(ROUND, desired, retention=ROUND_TTL)
            self._stored = desired


def watcher_queue(queue: str | None) -> dict[str, str]:
    """
    Return the argument of ``BaseEventTrigger`` that puts a watcher into a queue of triggerers, if any.

    :raises ConfigurationError: a queue is given, and this Airflow has none for watchers.
    """
    if queue is None:
        return {}
    if not WATCHERS_HAVE_QUEUES:
        raise ConfigurationError("queue needs Airflow 3.4 or newer: before, a watcher runs in any triggerer.")
    return {"queue": queue}


def asset_access(access_control: Any) -> dict[str, Any]:
    """
    Return the argument of ``Asset`` that says which teams may use it, if any.

    :raises ConfigurationError: it is given, and the assets of this Airflow have none.
    """
    if access_control is None:
        return {}
    if not ASSETS_HAVE_ACCESS_CONTROL:
        raise ConfigurationError("access_control needs Airflow 3.3 or newer: before, an asset belongs to every team.")
    return {"access_control": access_control}


class AssetStore(Protocol):
    """The part of an asset's state store (Airflow 3.3.2+) that this package uses, from an event loop."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


def asset_store(stores: Any, asset: str | None) -> AssetStore | None:
    """
    Return the store of the asset that a trigger watches, or None before Airflow 3.3.2.

    The stores of 3.3.0 and 3.3.1 block, which a triggerer's event loop must not do, so they count as none.

    :param stores: ``asset_state_store`` of a trigger.
    :param asset: Name of the asset, or None for the only one.
    :raises LookupError: the trigger does not watch it, or watches several and none is named.
    """
    if stores is None or not hasattr(stores, "aget"):
        return None
    if asset is not None:
        from airflow.sdk import Asset

        return cast("AssetStore", stores[Asset.ref(name=asset)])
    try:
        return cast("AssetStore", stores._single_accessor())
    except ValueError as several:
        raise LookupError(str(several)) from several


def count(name: str, /, number: int = 1, **tags: str) -> None:
    """Add to a statistic of Airflow's."""
    _report("incr", name, number, tags)


def gauge(name: str, value: float, **tags: str) -> None:
    """Set a statistic of Airflow's."""
    _report("gauge", name, value, tags)


def _report(kind: str, name: str, value: float, tags: Mapping[str, str]) -> None:
    # A statistic that cannot be told is no reason to fail anything.
    try:
        try:
            stats = import_module("airflow.sdk.observability.stats")
        except ImportError:  # before Airflow 3.2
            stats = import_module("airflow.stats")
        getattr(getattr(stats, "Stats", stats), kind)(name, value, tags=dict(tags))
    except Exception:
        log.debug("Statistic %s was not told.", name, exc_info=True)


def mask_secret(secret: str) -> None:
    """Hide a secret from the logs of this task; to be called from the task's own thread."""
    from airflow.sdk.log import mask_secret as airflow_mask_secret

    airflow_mask_secret(secret)


async def amask_secret(secret: str) -> None:
    """Hide a secret from the logs of a triggerer; to be awaited on its event loop."""
    try:
        from airflow.sdk.log import amask_secret as airflow_amask_secret
    except ImportError:  # before Airflow 3.3: only the blocking one, which must not run on the loop
        await asyncio.to_thread(mask_secret, secret)
    else:
        await airflow_amask_secret(secret)


async def aread_extra(connection: Connection) -> dict[str, Any]:
    """Return a connection's extra fields, their secrets masked; to be awaited on an event loop."""
    if hasattr(connection, "aextra_dejson"):
        found: dict[str, Any] = await connection.aextra_dejson()
        return found
    # before Airflow 3.3.2: masking blocks, and deadlocks on the loop
    return await asyncio.to_thread(lambda: connection.extra_dejson)


def push_values(context: Context, result: Mapping[str, Any] | None) -> None:
    """Push the values of a result that are not None one by one on Airflow 3.0, for `task.output["key"]`."""
    if XCOM_HOLDS_NONE or result is None:
        return
    for key, value in result.items():
        if value is not None:
            context["ti"].xcom_push(key=key, value=value)
