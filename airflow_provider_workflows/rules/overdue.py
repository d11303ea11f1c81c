"""Pending steps of a workflow: their assignees, and the due date from which a step is overdue."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from airflow_provider_workflows.rules.datetimes import parse_time

DAY_SECONDS = 24 * 3600.0


class PendingStep(NamedTuple):
    """
    Describe the current step of a workflow and its pending assignees.

    :param step_occurrence_id: Identity of this occurrence of the step.
    :param step: Name of the step.
    :param since: Start of the occurrence, as the API's own text.
    :param due: Due date, as the API's own text, or None.
    :param assignees: Logins, names or ids of the pending assignees.
    :param is_overdue: Whether the API reports the step as overdue.
    :param assignee_ids: Ids of the pending assignees, as far as the API shows them.
    """

    step_occurrence_id: str
    step: Any
    since: Any
    due: Any
    assignees: tuple[str, ...]
    is_overdue: bool = False
    assignee_ids: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return a description that follows the name of the step in a sentence."""
        parts = [] if self.since is None else [f"since {self.since}"]
        parts += [f"pending with {', '.join(self.assignees)}"] if self.assignees else []
        parts += [] if self.due is None else [f"{'overdue since' if self.is_overdue else 'due'} {self.due}"]
        return ", ".join(parts)

    def waiting_for(self) -> str:
        """Return a log line that names the pending assignees and the step."""
        assignees = ", ".join(self.assignees) or "an unknown assignee"
        since = "" if self.since is None else f" since {self.since}"
        due = "" if self.due is None else f", {'overdue since' if self.is_overdue else 'due'} {self.due}"
        return f"Waiting for {assignees} at step {self.step!r}{since}{due}."


class OverdueStep(NamedTuple):
    """
    Describe a step that is overdue from a point in time on, for a trigger's arguments and its event.

    :param step_occurrence_id: Identity of the step occurrence.
    :param step: Name of the step.
    :param since: Start of the occurrence, as the API's own text.
    :param due: Due date, as the API's own text, or None.
    :param reason: Why the step counts as overdue.
    :param at: Unix time from which it is overdue.
    :param level: Number of the level of ``on_overdue`` that is due then.
    :param repeat: How often that level was carried out before for this step occurrence.
    """

    step_occurrence_id: str
    step: Any
    since: Any
    due: Any
    reason: str
    at: float
    level: int = 1
    repeat: int = 0

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()


def due_at(pending_step: PendingStep | None) -> float | None:
    """Return the Unix time from which a step is past its due date, or None if that is unknown."""
    if pending_step is None:
        return None
    return 0.0 if pending_step.is_overdue else end_of_due(pending_step.due)


def end_of_due(due: Any) -> float | None:
    """Return the Unix time after which a due date has passed, or None if it is unknown."""
    moment = parse_time(due)
    if moment is None:
        return None
    return moment.timestamp() + (DAY_SECONDS if is_day(due) else 0.0)


def is_day(due: str) -> bool:
    """Return whether a due date is a day, which has passed at its end."""
    return re.fullmatch(r"\d{4}-\d\d-\d\d", due.strip(), re.ASCII) is not None
