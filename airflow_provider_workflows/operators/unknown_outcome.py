"""What a task does after a call of unknown outcome: it reads until the record shows whether the change was made."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_result, stop_after_delay, wait_exponential

from airflow_provider_workflows.exceptions import OutcomeUnknown, ServerError, WorkflowsError

log = logging.getLogger(__name__)
Found = TypeVar("Found")


def describe(error: Exception) -> str:
    """Return an error's message without its advice, for use within a longer message."""
    return str(error).removesuffix(getattr(error, "advice", "")).rstrip()


def poll_until(read: Callable[[], Found], is_enough: Callable[[Found], bool], seconds: float) -> Found | None:
    """
    Read repeatedly until the predicate accepts what was read, or the time is over.

    Errors of the reads are only logged, because they do not show whether the change happened.

    :return: What was read last, accepted or not; or None if all reads failed.
    """
    last: list[Found] = []

    def poll_once() -> bool:
        try:
            last[:] = [read()]
        except WorkflowsError as error:
            log.warning("%s", error)
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
    """Read repeatedly until something is found or the time is over; return it, or None."""
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
    Read until the record shows whether a change whose outcome is unknown was made.

    Return what was found, or raise :class:`OutcomeUnknown`. After a server error raise that error instead, if the
    record can be read and does not show the change.

    :param lost: Why the outcome is unknown.
    :param read: Returns the recorded change, or None if the record shows that it was not made (yet); raises if the
        record is inconclusive.
    :param seconds: How long to read.
    :param missing: What was not found, as the end of the error's sentence.
    :param again: Sends the same change once more, where this is documented to have no further effect; returns what its
        response shows of the change, or None.
    """
    fault: WorkflowsError | None = None  # of the last read

    def poll_once() -> Found | None:
        nonlocal fault
        try:
            found = read()
        except WorkflowsError as error:
            fault = error
            raise
        fault = None
        return found

    log.warning("%s Reading whether it took effect.", describe(lost))
    found = poll_until_found(poll_once, seconds)
    if found is None and isinstance(lost, ServerError) and fault is None:
        raise lost
    if found is None and again is not None and not isinstance(lost, ServerError):
        try:
            found = again()
        except WorkflowsError as error:
            log.warning("%s Reading whether it took effect.", describe(error))
            found = poll_until_found(poll_once, seconds)
    if found is None:
        reading = "" if fault is None else f". The last read failed: {describe(fault).rstrip('.')}"
        raise OutcomeUnknown(f"{describe(lost).rstrip('.')}; and {missing}{reading}") from lost
    return found
