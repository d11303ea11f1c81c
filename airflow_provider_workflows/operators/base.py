"""How every action of this package is done once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from airflow_provider_workflows.exceptions import ConfigurationError, WorkflowsError
from airflow_provider_workflows.version_compat import XCOM_HOLDS_NONE, push_values, task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

Found = TypeVar("Found")
PIN_KEPT = timedelta(days=365)


class WorkflowsOperator(BaseOperator):
    """
    Does one thing in a product; an Airflow retry never does it a second time.

    An error after which a repetition could act twice or on something else fails the task for good; all other
    errors leave the retry to Airflow.
    """

    # With a mapping as result, `task.output["key"]` hands on one value of it.
    returns_mapping: ClassVar[bool] = True

    def __init__(self, **kwargs: Any):
        super().__init__(**{"multiple_outputs": self.returns_mapping and XCOM_HOLDS_NONE, **kwargs})
        self.item_url = ""

    @abstractmethod
    def act(self, context: Context) -> Any:
        """Read, decide, write, verify; return the XCom."""

    def execute(self, context: Context) -> Any:
        try:
            result = self.act(context)
        except WorkflowsError as error:
            if error.retryable:
                raise
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        if self.returns_mapping:
            push_values(context, result)
        return result

    def pinned(self, context: Context, key: str, given: dict[str, Any] | None, parameter: str) -> Pin:
        """
        Return what ties the action to the situation it was meant for, over all tries of the task.

        :param key: Name of the pin in the task state store.
        :param given: The pin as the DAG author gave it, or None.
        :param parameter: Name of the parameter to give it by, for the error text.
        :raises ConfigurationError: not given, and neither a store to keep it in nor a promise not to retry.
        """
        store = task_state_store(context)
        if given is None and store is None and self.retries:
            raise ConfigurationError(
                f"{parameter} must be given when retries > 0 on an Airflow before 3.3: without it a retry could "
                "act on another visit of the step. Take it from the sensor's XCom, or set retries=0."
            )
        return Pin(store if given is None else None, key, given)


class Pin:
    """What an action is tied to: given, kept from an earlier try, or not known yet."""

    def __init__(self, store: Any, key: str, given: dict[str, Any] | None):
        self._store = store
        self._key = key
        self.value: dict[str, Any] | None = given if store is None else store.get(key)

    def keep(self, value: dict[str, Any]) -> None:
        """Tie the action to what was read first; to be called before anything is written."""
        self.value = value
        if self._store is not None:
            self._store.set(self._key, value, retention=PIN_KEPT)


def read_until_found(read: Callable[[], Found | None], seconds: float) -> Found | None:
    """Read again and again until there is something or the time is up; the last thing read is returned."""
    reading = Retrying(
        retry=retry_if_result(lambda found: found is None),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.5, max=10),
        retry_error_callback=lambda state: None,
    )
    return reading(read)
