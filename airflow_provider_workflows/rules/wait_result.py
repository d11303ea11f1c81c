"""The result of a wait, in the format that a sensor, a trigger and a resumed task share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, NamedTuple

WaitAction = Literal["succeed", "fail", "skip"]


class WaitResult(NamedTuple):
    """
    Describe how a wait ended.

    :param action: What the task does: ``succeed``, ``fail`` or ``skip``.
    :param result: The sensor's return value; JSON primitives only, because a trigger's event contains it.
    :param reason: The reason, for the log and for the error of a failed or skipped task.
    """

    action: WaitAction
    result: Any
    reason: str

    def to_event(self) -> dict[str, Any]:
        return self._asdict()


def evaluate(
    state: str,
    *,
    until: Collection[str],
    fail_on: Collection[str],
    skip_on: Collection[str],
) -> WaitAction | None:
    """Return the action for a state, or None to continue waiting; fail overrides skip, and skip overrides succeed."""
    if state in fail_on:
        return "fail"
    if state in skip_on:
        return "skip"
    if state in until:
        return "succeed"
    return None
