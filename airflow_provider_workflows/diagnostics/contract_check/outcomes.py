"""What a probe concludes from the recorded responses: a side that was seen, no evidence, or the unexpected."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from airflow_provider_workflows.diagnostics.contract_check.recording import Records

SEEN, NOT_SEEN, UNEXPECTED, CANNOT_BE_READ = "seen", "not_seen", "unexpected", "cannot_be_read"


@dataclass(frozen=True)
class Outcome:
    """
    Hold the conclusion of one probe.

    :param result: ``seen``, ``not_seen`` or ``unexpected``.
    :param side: Value of the emulator's flag that behaves like this; None if no side was seen.
    :param detail: By what the side shows, or why none does; without any text of the tenant.
    :param values: Texts of the tenant that belong to the detail; a report replaces them.
    """

    result: str
    side: str | None = None
    detail: str = ""
    values: tuple[str, ...] = ()


Probe = Callable[[Records], Outcome]


def seen(side: str, detail: str = "", *values: str) -> Outcome:
    return Outcome(SEEN, side, detail, values)


def not_seen(reason: str) -> Outcome:
    return Outcome(NOT_SEEN, None, reason)


def unexpected(detail: str, *values: str) -> Outcome:
    return Outcome(UNEXPECTED, None, detail, values)


def only_side(sides: Iterable[str], nothing: str, what: str) -> Outcome:
    """
    Conclude from the sides that several places show, which must agree.

    :param nothing: Why none is seen, if there are no places.
    :param what: The places, for the detail.
    """
    found = list(sides)
    if not found:
        return not_seen(nothing)
    distinct = sorted(set(found))
    if len(distinct) > 1:
        return unexpected(f"{what} differ: {', '.join(distinct)}")
    return seen(distinct[0], f"{what}: {len(found)}")
