"""How every action of this package is done once."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, conf
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from airflow_provider_workflows.exceptions import ConfigurationError, OutcomeUnknown, ServerError, WorkflowsError
from airflow_provider_workflows.operators.waiting import DEADLINE, WaitLifeCycle
from airflow_provider_workflows.rules.parameters import check_rendered, seconds
from airflow_provider_workflows.settings import poke_interval_seconds
from airflow_provider_workflows.version_compat import (
    HAS_TASK_STATE_STORE,
    XCOM_HOLDS_NONE,
    push_values,
    task_state_store,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.triggers.base import WaitTrigger

log = logging.getLogger(__name__)
Found = TypeVar("Found")
Thing = TypeVar("Thing")
PROGRESS_EVERY = 10.0  # seconds, at least
PIN_TTL = timedelta(days=365)


class WorkflowsOperator(BaseOperator):
    """
    Does one thing in a product; an Airflow retry never does it a second time.

    An error after which a repetition could act twice or on something else fails the task for good; all other
    errors leave the retry to Airflow.
    """

    # With a mapping as result, `task.output["key"]` hands on one value of it.
    returns_mapping: bool = True

    def __init__(self, **kwargs: Any):
        super().__init__(**{"multiple_outputs": self.returns_mapping and XCOM_HOLDS_NONE, **kwargs})
        self.item_url = ""

    @property
    def confirm_timeout(self) -> float:
        """Seconds to read on for what became of a change, in the operators that take them as a parameter."""
        return self._confirm_timeout

    @confirm_timeout.setter
    def confirm_timeout(self, value: timedelta | float) -> None:
        self._confirm_timeout: float = seconds(value)

    def may_be_retried(self, context: Context) -> bool:
        """Tell whether Airflow may run the task again without a memory of what this try does."""
        if task_state_store(context) is not None:
            return False
        # Of a mapped operator Airflow takes the retries before this class has lowered them.
        return bool(getattr(context.get("ti"), "max_tries", self.retries))

    @abstractmethod
    def act(self, context: Context) -> Any:
        """Read, decide, write, verify; return the XCom."""

    def execute(self, context: Context) -> Any:
        return self.returned(context, lambda: self.act(context))

    def returned(self, context: Context, act: Callable[[], Any]) -> Any:
        """Do what the task does, fail it for good where a retry could do harm, and return the XCom."""
        try:
            check_rendered(self)
            result = act()
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


def unretried(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return an operator's arguments without retries where Airflow has no task state store (before 3.3)."""
    return kwargs if HAS_TASK_STATE_STORE else {**kwargs, "retries": 0}


class WaitingOperator(WaitLifeCycle, WorkflowsOperator):
    """
    Acts, and then waits for what comes of it, with a worker or without one.

    :param wait_timeout: Seconds, or a timedelta, that the wait may take by the clock on the wall; default 7 days. From
        Airflow 3.3 on the end of the wait survives retries.
    :param poll_interval: Seconds, or a timedelta, between two looks; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    """

    # The action has shown that connection and parameters are right.
    fails_at_first_poke = False

    def __init__(
        self,
        *,
        wait_timeout: timedelta | float = timedelta(days=7),
        poll_interval: timedelta | float | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if poll_interval is None:
            poll_interval = poke_interval_seconds()
        if deferrable is None:
            deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
        self.wait_timeout = float(seconds(wait_timeout))
        self.poll_interval = float(seconds(poll_interval))
        self.deferrable = deferrable

    @property
    def wait_seconds(self) -> float:
        return self.wait_timeout

    @abstractmethod
    def finish(self, context: Context, response: Mapping[str, Any]) -> Any:
        """Return the XCom of what the wait ended with, ``{word, result, reason}``."""

    def check_wait(self) -> None:
        """Require times that can be waited for; to be called before anything is done that would be waited for."""
        if self.poll_interval <= 0:
            raise ConfigurationError(f"poll_interval must be more than 0 seconds; got {self.poll_interval}.")
        if self.wait_timeout < 0:
            raise ConfigurationError(f"wait_timeout must not be less than 0 seconds; got {self.wait_timeout}.")

    def wait(self, context: Context, build: Callable[..., WaitTrigger], *, deadline: str = DEADLINE) -> Any:
        """
        Wait for a verdict, here or in a triggerer, and finish.

        All that :meth:`finish` needs is in the trigger's event: whatever else was known is gone by then.

        :param build: Makes the trigger, of ``poll_interval`` and ``deadline``.
        :param deadline: Name of the wait's end in the task state store; each wait of a task has its own.
        """
        self.start_wait(context, deadline)
        trigger = build(poll_interval=self.poll_interval, deadline=self.deadline)
        while (response := self.poll(context, trigger)) is None:
            self.check_deadline()
            how = "the triggerer looks every" if self.deferrable else "the next look is in"
            self.go_on(context, trigger, f"{how} {self.poll_interval:.0f} s")
            if self.deferrable:
                self.defer_to(trigger)
            time.sleep(self.seconds_to_next_poll(self.poll_interval))
        return self.finish(context, response)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Resume with the trigger's event."""
        return self.returned(context, lambda: self.conclude(context, self.checked_result(event)))

    def conclude(self, context: Context, event: Mapping[str, Any]) -> Any:
        return self.finish(context, event)

    def give_up(self, words: str, error: WorkflowsError | None = None) -> NoReturn:
        raise WorkflowsError(
            "The wait failed. What the task started goes on in the product, and a retry does not start it again. "
            f"{words}"
        ) from error

    def time_out(self, last_poll: str) -> NoReturn:
        raise AirflowFailException(
            f"WaitFailed: nothing decided within {timedelta(seconds=self.wait_timeout)}; what was begun goes on in the "
            f"product. {last_poll}".rstrip()
        )


class Pin:
    """What an action is tied to: given, kept from an earlier try, or not known yet."""

    def __init__(self, store: Any, key: str, given: dict[str, Any] | None):
        self._store = store
        self._key = key
        self.value: dict[str, Any] | None = given if store is None else store.get(key)

    @property
    def is_outdated(self) -> bool:
        """
        Whether another try of the task has stored something since this one read it.

        Airflow starts one where the worker was suspended for so long that it took it for dead. To be asked after
        reading the situation, and before the action is tied to that: it may be what the other try has made of it.
        """
        return self._store is not None and self._store.get(self._key) != self.value

    def persist(self, value: dict[str, Any]) -> None:
        """Tie the action to what was read first; to be called before anything is written."""
        self.value = value
        if self._store is not None:
            self._store.set(self._key, value, retention=PIN_TTL)


def describe(error: Exception) -> str:
    """Return an error's words without its advice, for a message that goes on."""
    return str(error).removesuffix(getattr(error, "advice", "")).rstrip()


def poll_until(read: Callable[[], Found], is_enough: Callable[[Found], bool], seconds: float) -> Found | None:
    """
    Read again and again until what was read is enough or the time is up.

    Whatever keeps us from reading is only logged: it does not tell what became of the change we look for.

    :return: What was read last, enough or not; or None if nothing could be read.
    """
    last: list[Found] = []

    def poll_once() -> bool:
        try:
            last[:] = [read()]
        except WorkflowsError as fault:
            log.warning("%s", fault)
            return False
        return is_enough(last[0])

    reading = Retrying(
        retry=retry_if_result(lambda enough: not enough),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.5, max=10),
        retry_error_callback=lambda state: False,
    )
    reading(poll_once)
    return last[0] if last else None


def poll_until_found(read: Callable[[], Found | None], seconds: float) -> Found | None:
    """Read again and again until there is something or the time is up; None if there was nothing."""
    return poll_until(read, lambda found: found is not None, seconds)


def resolve_unknown_outcome(
    lost: WorkflowsError,
    read: Callable[[], Found | None],
    seconds: float,
    *,
    missing: str,
    again: Callable[[], Found | None] | None = None,
) -> Found:
    """
    Read until the record shows what became of a change whose outcome is unknown.

    Only what was found comes out, or :class:`OutcomeUnknown`, whatever the reads answer. A server that says that it has
    failed is believed, with its own error, where the record can be read and does not show the change.

    :param lost: Why the outcome is unknown.
    :param read: Returns what became of the change, or None where the record shows that it was not made (yet); raises
        where the record cannot tell.
    :param seconds: How long to read.
    :param missing: What was not found, as the end of the error's sentence.
    :param again: Sends the same change once more, where the documents say that this changes nothing; returns what its
        answer tells of the change, or None for nothing.
    """
    is_known = False

    def poll_once() -> Found | None:
        nonlocal is_known
        is_known = False
        found = read()
        is_known = True
        return found

    log.warning("%s Reading what became of it.", describe(lost))
    found = poll_until_found(poll_once, seconds)
    if found is None and isinstance(lost, ServerError) and is_known:
        raise lost
    if found is None and again is not None and not isinstance(lost, ServerError):
        try:
            found = again()
        except WorkflowsError as fault:
            log.warning("%s Reading what became of it.", describe(fault))
            found = poll_until_found(poll_once, seconds)
    if found is None:
        raise OutcomeUnknown(f"{describe(lost).rstrip('.')}; and {missing}") from lost
    return found


class Progress:
    """
    Says in the log how far a long work is, at most every ten seconds; shorter work says nothing.

    :param what: What is done, for the log: ``items ordered``, say.
    :param total: How many there are in all, or None where nobody knows.
    """

    def __init__(self, what: str, total: int | None = None):
        self.what = what
        self.total = total
        self.done = 0
        self._started = self._logged_at = monotonic()

    def of(self, things: Iterable[Thing]) -> Iterator[Thing]:
        """Hand on one thing after another, and count each when the next one is asked for."""
        for thing in things:
            yield thing
            self.count()

    def count(self, number: int = 1) -> None:
        """Count what was done, and say so if the last word was long ago."""
        self.done += number
        now = monotonic()
        if now - self._logged_at < PROGRESS_EVERY:
            return
        self._logged_at = now
        of_all = "" if self.total is None else f" of {self.total}"
        left = "" if self.total is None else f", {self.total - self.done} left"
        log.info("%d%s %s%s, after %.0f s.", self.done, of_all, self.what, left, now - self._started)
