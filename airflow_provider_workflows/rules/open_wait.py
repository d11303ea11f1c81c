"""The description of an open wait for people: what a task waits for, with whom it is pending, and since when."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from types import NoneType
from typing import Any

OPEN_WAIT = "open_wait"  # key in the task state store, and of the XCom that a trigger stores
# Names come from Procore and Workflowsoft, so they are bounded where they are stored.
MAX_TEXT_LENGTH = 200
MAX_ERROR_LENGTH = 500
MAX_URL_LENGTH = 1000
MAX_ASSIGNEES = 20


@dataclass(slots=True)  # frozen, it would take eight times as long to create, and the page creates thousands
class OpenWait:
    """
    Describe an open wait; what is unknown is None. A description is replaced, never changed.

    :param product: ``procore``, ``procore_legacy`` or ``workflowsoft``.
    :param subject: What the task waits for, in a few words, such as ``response of the connection's user``.
    :param workflow: Name of the workflow or process.
    :param instance_id: The instance.
    :param item_id: The item that the workflow approves.
    :param tool_type: Tool of the item.
    :param project_id: Project of the item.
    :param item_url: Link to the item in Procore or Workflowsoft.
    :param step: Name of the pending step.
    :param assignees: Logins, names or ids of the pending assignees.
    :param since: Start of the step occurrence, as ISO-8601 time.
    :param due: Due date of the step, as ISO-8601 time or day.
    :param is_overdue: Whether the API reports the step as overdue.
    :param escalation_level: Highest level of ``on_overdue`` that was reached at this step occurrence.
    :param last_error: Error of a poll, if none has succeeded since, or of a level of ``on_overdue`` at this step.
    :param polled_at: Time of the poll after which the description was stored, as ISO-8601 time in UTC.
    :param poll_interval: Seconds between two polls.
    :param deadline: End of the wait, as ISO-8601 time.
    :param more_assignees: Number of pending assignees that are not in ``assignees``.
    :param try_number: Number of the task's try that waits. A retry, or a run after a clear, has another number.
    """

    product: str
    subject: str | None = None
    workflow: str | None = None
    instance_id: str | None = None
    item_id: str | None = None
    tool_type: str | None = None
    project_id: str | None = None
    item_url: str | None = None
    step: str | None = None
    assignees: tuple[str, ...] = ()
    since: str | None = None
    due: str | None = None
    is_overdue: bool = False
    escalation_level: int = 0
    last_error: str | None = None
    polled_at: str | None = None
    poll_interval: float | None = None
    deadline: str | None = None
    more_assignees: int = 0
    try_number: int | None = None

    @property
    def fingerprint(self) -> str:
        """
        A short text that differs when the description must be stored again.

        That is when the step, its assignees, its due date or its level of escalation have changed, when polls start or
        stop to fail, and in another try; not when only the text of the error is another.
        """
        step = (self.step, self.since, self.due, self.assignees, self.more_assignees, self.is_overdue)
        parts = (self.subject, self.instance_id, self.item_id, step, bool(self.last_error), self.try_number)
        return hashlib.sha256(repr((parts, self.escalation_level)).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON primitives, without what is unknown, and bounded in size."""
        known = {name: value for name, value in asdict(self).items() if value not in (None, (), False, 0)}
        bounded = {name: _cut(value) if isinstance(value, str) else value for name, value in known.items()}
        if self.last_error:
            bounded["last_error"] = _cut(self.last_error, MAX_ERROR_LENGTH)
        if self.item_url:
            bounded["item_url"] = self.item_url
            if len(self.item_url) > MAX_URL_LENGTH:
                del bounded["item_url"]  # a part of it would lead elsewhere
        if more := self.more_assignees + max(0, len(self.assignees) - MAX_ASSIGNEES):
            bounded["more_assignees"] = more
        return {**bounded, "assignees": [_cut(name) for name in self.assignees[:MAX_ASSIGNEES]]}

    @classmethod
    def from_dict(cls, stored: Any) -> OpenWait | None:
        """Return the description that ``to_dict`` made, also by another version; None if it is not readable."""
        if not isinstance(stored, Mapping) or not isinstance(stored.get("product"), str):
            return None
        known: dict[str, Any] = {
            name: value for name, value in stored.items() if isinstance(value, _TYPES.get(name, NoneType))
        }
        known["assignees"] = tuple(str(name) for name in known.get("assignees", ()))
        return cls(**known)


# As stored: a value of another type is unknown.
_TYPES: dict[str, Any] = {
    **{field.name: str for field in fields(OpenWait)},
    "assignees": list,
    "more_assignees": int,
    "is_overdue": bool,
    "escalation_level": int,
    "try_number": int,
    "poll_interval": (int, float),
}


def current_open_wait(stored: Iterable[OpenWait | None], try_number: int) -> OpenWait | None:
    """
    Return the latest description that the current try of a task instance has stored, or None.

    A task instance can have two: the row :data:`OPEN_WAIT` of the task state store, which the worker writes, and the
    XCom :data:`OPEN_WAIT`, which the trigger writes while the task is deferred. Neither is deleted when the wait ends
    or the task is cleared, so read them only for a task instance that waits.

    :param stored: The stored descriptions, as :meth:`OpenWait.from_dict` returns them.
    :param try_number: ``try_number`` of the task instance now.
    """
    of_this_try = [wait for wait in stored if wait is not None and wait.try_number in (None, try_number)]
    return max(of_this_try, key=lambda wait: str(wait.polled_at or ""), default=None)


def _cut(text: str, length: int = MAX_TEXT_LENGTH) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
