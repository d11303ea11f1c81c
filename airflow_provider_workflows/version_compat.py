"""The differences between the supported Airflow versions, so that no other module checks a version."""

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
    "CAN_RESCHEDULE_ERRORS",
    "CAN_WATCH_ASSETS",
    "HAS_TASK_STATE_STORE",
    "RESPONSES_RESUME_DEFERRED",
    "SKIPS_IN_MAPPED_GROUPS",
    "TASKS_HAVE_REGIONS",
    "TRIGGERS_STORE_XCOMS",
    "WATCHERS_HAVE_NAMES",
    "WATCHERS_HAVE_QUEUES",
    "XCOM_HOLDS_NONE",
    "AssetStore",
    "StateStore",
    "airflow_version",
    "amask_secret",
    "aread_extra",
    "asset_access",
    "asset_store",
    "astore_xcom",
    "count",
    "gauge",
    "lasting_state_store",
    "mask_secret",
    "push_values",
    "require_responses_in_airflow",
    "task_state_store",
    "watcher_queue",
    "with_own_keys",
]

log = logging.getLogger(__name__)
CLEARS_KEY = "clears"  # of the numbers that distinguish a cleared task from a retry
CLEARS_TTL = timedelta(days=730)  # longer than the retention of the values that belong to them
# Airflow 3.0 does not accept None as the value of a separate XCom key.
XCOM_HOLDS_NONE = version.parse(airflow_version).release >= (3, 1)
# Where a task can pass state to its retries.
HAS_TASK_STATE_STORE = version.parse(airflow_version).release >= (3, 3)
# Since the branch operators moved to the SDK, tasks that a branch in a mapped task group did not choose run anyway
# (apache/airflow#67265).
SKIPS_IN_MAPPED_GROUPS = version.parse(airflow_version).release < (3, 2)

# Whether a trigger can store an XCom. In older versions the responses that a triggerer receives get out of order when a
# trigger is cancelled during the call.
TRIGGERS_STORE_XCOMS = version.parse(airflow_version).release >= (3, 3)

# Whether a response in Airflow's Required Actions resumes a deferred task; older versions only record it.
RESPONSES_RESUME_DEFERRED = version.parse(airflow_version).release >= (3, 3)

# Whether an external event can update an asset.
CAN_WATCH_ASSETS = version.parse(airflow_version).release >= (3, 0, 1)
# Whether an asset can be restricted to teams, and its watcher assigned to a queue of triggerers.
ASSETS_HAVE_ACCESS_CONTROL = version.parse(airflow_version).release >= (3, 3)
WATCHERS_HAVE_QUEUES = version.parse(airflow_version).release >= (3, 4)
# Whether Airflow stores the name of an asset's watcher.
WATCHERS_HAVE_NAMES = version.parse(airflow_version).release >= (3, 2)
# Whether a retry policy can run a task again without using up a retry.
CAN_RESCHEDULE_ERRORS = version.parse(airflow_version).release >= (3, 4)
# Whether a row of a task instance belongs to a region of its DAG run, such as one iteration of a loop of tasks.
TASKS_HAVE_REGIONS = version.parse(airflow_version).release >= (3, 4)


class StateStore(Protocol):
    """The part of Airflow's task state store (Airflow 3.3+) that this package uses."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None: ...


def task_state_store(context: Context) -> StateStore | None:
    """
    Return the task's state store, which survives retries and restarts, or None before Airflow 3.3.

    It is empty after the task was cleared, because clearing a task means "do it again".
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
    Return the task's state store including the values stored before the task was cleared, or None before Airflow 3.3.

    Airflow does not delete a task's rows when the task is cleared (``clear_task_instances`` in Airflow 3.3). It deletes
    them with the DAG run, after their retention, or on success if ``[state_store] clear_on_success`` is set.
    """
    return cast("StateStore | None", context.get("task_state_store"))


def with_own_keys(context: Context, prefix: str) -> Context:
    """Return a context whose task state store, if there is one, has keys of its own; for an action within a task."""
    store = lasting_state_store(context)
    own = {**context, "task_state_store": None if store is None else _PrefixedStore(store, prefix)}
    return cast("Context", own)


class _PrefixedStore:
    def __init__(self, store: StateStore, prefix: str):
        self._store = store
        self._prefix = prefix

    def get(self, key: str, default: Any = None) -> Any:
        return self._store.get(f"{self._prefix}{key}", default)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        self._store.set(f"{self._prefix}{key}", value, retention=retention)


class StoreSinceClear:
    """
    Hide the values that a task stored before it was last cleared, which Airflow does not delete.

    Airflow has no number that changes with each clear of a task and with nothing else. So the store holds Airflow's
    numbers as of the last write, and the number of clears detected so far, which is part of every key. A clear sets
    ``max_tries`` to the tries that the task has had plus its retries, which is normally a different number. If the
    retries were lowered, it can be the same number; then the clear shows in ``clear_number`` of the DAG run, which
    counts the clears of all its tasks.

    :param max_tries: Maximum number of tries of the task.
    :param try_number: Number of the current try.
    :param clear_number: Number of clears of the DAG run's tasks.
    :param retries: Number of retries that the DAG sets now.
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
        self._store_clears()
        self._store.set(name, value, retention=retention)

    def _name(self, key: str) -> str:
        return f"{key}.{self._clears}"

    @cached_property
    def _stored(self) -> dict[str, Any] | None:
        return cast("dict[str, Any] | None", self._store.get(CLEARS_KEY))

    @cached_property
    def _clears(self) -> int:
        if self._stored is None:
            return 0
        clears: int = self._stored["clears"]
        if self._was_cleared(self._stored):
            log.info("This task was cleared. It starts again without the state of its earlier tries.")
            self._store_clears(clears + 1)
            return clears + 1
        return clears

    def _was_cleared(self, stored: Mapping[str, Any]) -> bool:
        try_number = self._now["try_number"]
        if self._now["max_tries"] != stored["max_tries"]:
            return True
        if try_number is None or self._retries is None or try_number == stored["try_number"]:
            return False
        # For a retry this is true only if the retries were lowered by the number of tries that it has had.
        if self._now["max_tries"] != try_number - 1 + self._retries:
            return False
        if self._now["clear_number"] != stored["clear_number"]:
            return True
        log.warning(
            "The retries of this task were lowered since its last try. If the task was cleared without its DAG run, "
            "Airflow does not show it, and the task continues with the state of its earlier tries."
        )
        return False

    def _store_clears(self, clears: int | None = None) -> None:
        current = {"clears": self._clears if clears is None else clears, **self._now}
        if current != self._stored:
            self._store.set(CLEARS_KEY, current, retention=CLEARS_TTL)
            self._stored = current


def require_responses_in_airflow(operator: str) -> None:
    """
    Require an Airflow version in which a response in Required Actions resumes a deferred task.

    :param operator: Name of the operator, for the message.
    :raises ConfigurationError: the version is older.
    """
    if not RESPONSES_RESUME_DEFERRED:
        raise ConfigurationError(
            f"{operator} needs Airflow 3.3 or newer; this is {airflow_version}, in which a response in Required "
            "Actions does not resume a deferred task. Use Airflow's ApprovalOperator (3.1 or newer) followed by "
            "ProcoreRespondOperator."
        )


def watcher_queue(queue: str | None) -> dict[str, str]:
    """
    Return the argument of ``BaseEventTrigger`` that assigns a watcher to a queue of triggerers; empty without a queue.

    :raises ConfigurationError: a queue is given, and this Airflow version has no queues for watchers.
    """
    if queue is None:
        return {}
    if not WATCHERS_HAVE_QUEUES:
        raise ConfigurationError("queue needs Airflow 3.4 or newer. In older versions a watcher runs in any triggerer.")
    return {"queue": queue}


def asset_access(access_control: Any) -> dict[str, Any]:
    """
    Return the argument of ``Asset`` that restricts it to teams; empty without access control.

    :raises ConfigurationError: access control is given, and this Airflow version does not support it for assets.
    """
    if access_control is None:
        return {}
    if not ASSETS_HAVE_ACCESS_CONTROL:
        raise ConfigurationError(
            "access_control needs Airflow 3.3 or newer. In older versions every team may use an asset."
        )
    return {"access_control": access_control}


class AssetStore(Protocol):
    """The part of an asset's state store (Airflow 3.3.2+) that this package uses, from an event loop."""

    async def aget(self, key: str, default: Any = None) -> Any: ...

    async def aset(self, key: str, value: Any) -> None: ...


def asset_store(stores: Any, asset: str | None) -> AssetStore | None:
    """
    Return the state store of the asset that a trigger watches, or None before Airflow 3.3.2.

    The stores of 3.3.0 and 3.3.1 would block the triggerer's event loop, so they are not used.

    :param stores: ``asset_state_store`` of a trigger.
    :param asset: Name of the asset, or None for the only one.
    :raises LookupError: the trigger does not watch the asset, or watches several and no name is given.
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
    """Add a number to an Airflow metric."""
    _report("incr", name, number, tags)


def gauge(name: str, value: float, **tags: str) -> None:
    """Set an Airflow metric."""
    _report("gauge", name, value, tags)


def _report(kind: str, name: str, value: float, tags: Mapping[str, str]) -> None:
    # A metric that cannot be emitted must not fail anything.
    try:
        try:
            stats = import_module("airflow.sdk.observability.stats")
        except ImportError:  # before Airflow 3.2
            stats = import_module("airflow.stats")
        getattr(getattr(stats, "Stats", stats), kind)(name, value, tags=dict(tags))
    except Exception:  # a metric must not fail a task
        log.debug("Metric %s could not be emitted.", name, exc_info=True)


def mask_secret(secret: str) -> None:
    """Mask a secret in the logs of this task; call it from the task's own thread."""
    from airflow.sdk.log import mask_secret as airflow_mask_secret

    airflow_mask_secret(secret)


async def amask_secret(secret: str) -> None:
    """Mask a secret in the logs of a triggerer; await it on the triggerer's event loop."""
    try:
        from airflow.sdk.log import amask_secret as airflow_amask_secret
    except ImportError:  # before Airflow 3.3: only the blocking function, which must not run on the event loop
        await asyncio.to_thread(mask_secret, secret)
    else:
        await airflow_amask_secret(secret)


async def aread_extra(connection: Connection) -> dict[str, Any]:
    """Return a connection's extra fields with their secrets masked; await it on an event loop."""
    if hasattr(connection, "aextra_dejson"):
        extra: dict[str, Any] = await connection.aextra_dejson()
        return extra
    # before Airflow 3.3.2: masking blocks and deadlocks on the event loop
    return await asyncio.to_thread(lambda: connection.extra_dejson)


async def astore_xcom(task_instance: Any, key: str, value: Any) -> None:
    """
    Store an XCom of a deferred task; await it on a triggerer's event loop, where :data:`TRIGGERS_STORE_XCOMS`.

    It does not go through a custom XCom backend, which could block the event loop.

    :param task_instance: The task instance of a trigger.
    :param value: JSON primitives.
    """
    from airflow.sdk.bases.xcom import BaseXCom

    names = ("dag_id", "run_id", "task_id", "map_index")
    await BaseXCom.aset(key, value, **{name: getattr(task_instance, name) for name in names})


def push_values(context: Context, result: Mapping[str, Any] | None) -> None:
    """Push each value of a result that is not None under its own key on Airflow 3.0, for `task.output["key"]`."""
    if XCOM_HOLDS_NONE or result is None:
        return
    for key, value in result.items():
        if value is not None:
            context["ti"].xcom_push(key=key, value=value)
