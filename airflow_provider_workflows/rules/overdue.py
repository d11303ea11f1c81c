"""Who holds a workflow, since when, and when that has been too long."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from airflow_provider_workflows.rules.datetimes import parse_time

DAY = 24 * 3600.0


@dataclass(frozen=True)
class PendingStep:
    """
    The step that a workflow stands at, and who has to act there.

    :param step_occurrence_id: What tells this visit of the step from all others.
    :param step: Its name.
    :param since: When it began, as the API wrote it.
    :param due: When it is due, as the API wrote it, or None.
    :param assignees: Logins, names or ids.
    :param is_overdue: The product itself says that it is overdue.
    """

    step_occurrence_id: str
    step: Any
    since: Any
    due: Any
    assignees: tuple[str, ...]
    is_overdue: bool = False

    def describe(self) -> str:
        """Say it in words that follow the name of the step."""
        words = [] if self.since is None else [f"since {self.since}"]
        words += [f"held by {', '.join(self.assignees)}"] if self.assignees else []
        words += [] if self.due is None else [f"{'overdue since' if self.is_overdue else 'due'} {self.due}"]
        return ", ".join(words)

    def waiting_for(self) -> str:
        """Say in a line for the log who has to act at which step, the assignees first."""
        assignees = ", ".join(self.assignees) or "an unknown assignee"
        since = "" if self.since is None else f" since {self.since}"
        due = "" if self.due is None else f", {'overdue since' if self.is_overdue else 'due'} {self.due}"
        return f"Waiting for {assignees} at step {self.step!r}{since}{due}."


@dataclass(frozen=True)
class OverdueStep:
    """
    A step that is held for too long from some moment on, for a trigger's arguments and its event.

    :param at: That moment, in unix time.
    """

    step_occurrence_id: str
    step: Any
    since: Any
    due: Any
    reason: str
    at: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def overdue_step_of(pending_step: PendingStep | None, after: float | None) -> OverdueStep | None:
    """
    Return from when on a step is held for too long, or None where nothing tells that.

    :param pending_step: The step, and who holds it.
    :param after: Seconds that it may be held; None: until the product's own due date.
    """
    if pending_step is None:
        return None
    if after is not None:
        started = parse_time(pending_step.since)
        at = None if started is None else started.timestamp() + after
        reason = f"held for more than {timedelta(seconds=after)}"
    else:
        at = 0.0 if pending_step.is_overdue else _end_of(pending_step.due)
        reason = "overdue"
    if at is None:
        return None
    return OverdueStep(
        pending_step.step_occurrence_id, pending_step.step, pending_step.since, pending_step.due, reason, at
    )


def _end_of(due: Any) -> float | None:
    moment = parse_time(due)
    if moment is None:
        return None
    is_day = re.fullmatch(r"\d{4}-\d\d-\d\d", due.strip())  # which lasts until its end
    return moment.timestamp() + (DAY if is_day else 0.0)
