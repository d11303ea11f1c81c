"""The answer of a wait, in the form that a sensor, a trigger and a resumed task share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal

WaitAction = Literal["succeed", "fail", "skip"]


@dataclass(frozen=True)
class WaitResult:
    """
    How a wait ended.

    :param word: What the task does: ``succeed``, ``fail`` or ``skip``.
    :param result: What the sensor returns; JSON primitives only, for it travels in a trigger's event.
    :param reason: Why, for the log and for the error of a failed or skipped task.
    """

    action: WaitAction
    result: Any
    reason: str

    def to_event(self) -> dict[str, Any]:
        return asdict(self)


def evaluate(
    state: str,
    *,
    until: Collection[str],
    fail_on: Collection[str],
    skip_on: Collection[str],
) -> WaitAction | None:
    """Return what a state means to a wait, or None to go on waiting; failing beats skipping beats success."""
    if state in fail_on:
        return "fail"
    if state in skip_on:
        return "skip"
    if state in until:
        return "succeed"
    return None
