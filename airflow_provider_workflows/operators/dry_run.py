"""A dry run of a task: its parameter, and its task state store, which forgets what the task stores about its action."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_workflows.operators.waiting import DEADLINE, POLLS
from airflow_provider_workflows.rules.parameters import as_flag
from airflow_provider_workflows.version_compat import CLEARS_KEY, CLEARS_TTL, lasting_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_workflows.version_compat import StateStore


class DryRunParameter(BaseOperator):
    """
    Hold the parameter of an operator or sensor that may change something.

    A base class of Airflow's own kind, so that a DAG's ``default_args`` reach the parameter.

    :param dry_run: Whether to send nothing that changes something; also if the connection's extra ``dry_run`` is true
        (templated).
    """

    if TYPE_CHECKING:
        hook: Any

    def __init__(self, *, dry_run: bool | str = False, **kwargs: Any):
        super().__init__(**kwargs)
        # Airflow's method of this name, which logs the template fields, has no caller any more.
        self.dry_run = dry_run  # type: ignore[assignment, method-assign]

    def start_dry_run(self) -> None:
        """Let the hook send nothing that changes something, if the task is a dry run."""
        if as_flag("dry_run", self.dry_run):
            self.hook.start_dry_run()


class DryRunStore:
    """
    Store nothing that would bind a later run: no step occurrence, no choice, no outcome.

    :param store: Airflow's task state store.
    :param is_dry_run: Returns whether the task is a dry run; called before something is stored, because the connection
        says so and is not looked up earlier.
    """

    def __init__(self, store: StateStore, is_dry_run: Callable[[], bool]):
        self._store = store
        self._is_dry_run = is_dry_run
        self._forgotten: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self._forgotten[key] if key in self._forgotten else self._store.get(key, default)

    def set(self, key: str, value: Any, *, retention: timedelta | None = None) -> None:
        # Imported here, because DAG files are parsed far more often than a task stores something.
        from airflow_provider_workflows.rules.open_wait import OPEN_WAIT

        # A task that waits before it acts must find these at its next poke.
        of_a_wait = key.partition(".")[0] in (DEADLINE, POLLS, OPEN_WAIT)
        if self._is_dry_run() and not of_a_wait:
            self._forgotten[key] = value
            return
        if CLEARS_KEY in self._forgotten:  # the name of a value that is stored says how often the task was cleared
            self._store.set(CLEARS_KEY, self._forgotten.pop(CLEARS_KEY), retention=CLEARS_TTL)
        self._store.set(key, value, retention=retention)


def dry_run_context(context: Context, is_dry_run: Callable[[], bool]) -> Context:
    """Return the context of a task with a :class:`DryRunStore`, or the same one before Airflow 3.3."""
    store = lasting_state_store(context)
    if store is None:
        return context
    return cast("Context", {**context, "task_state_store": DryRunStore(store, is_dry_run)})
