"""The description of an open wait for people: what a task waits for, with whom it is pending, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

OPEN_WAIT = "open_wait"  # key in the task state store, and of the XCom that a trigger stores


@dataclass(frozen=True)
class OpenWait:
    """
    Describe an open wait; what is unknown is None.

    :param product: ``procore``, ``procore_legacy`` or ``workflowsoft``.
    :param subject: What the task waits for, in a few words, such as ``response of the connection's user``.
    :param workflow: Name of the workflow or process.
    :param instance_id: The instance.
    :param item_id: The item that the workflow approves.
    :param tool_type: Tool of the item.
    :param project_id: Project of the item.
    :param item_url: Link to the item in the product.
    :param step: Name of the pending step.
    :param assignees: Logins, names or ids of the pending assignees.
    :param since: Start of the step occurrence, as ISO-8601 time.
    :param due: Due date of the step, as ISO-8601 time or day.
    :param is_overdue: Whether the product reports the step as overdue.
    :param last_error: Error of the last failed poll since the last successful one.
    :param polled_at: Time of the last successful poll that changed this description, as ISO-8601 time.
    :param poll_interval: Seconds between two polls.
    :param deadline: End of the wait, as ISO-8601 time.
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
    last_error: str | None = None
    polled_at: str | None = None
    poll_interval: float | None = None
    deadline: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the description as JSON primitives, without what is unknown."""
        known = {name: value for name, value in asdict(self).items() if value not in (None, (), False)}
        return {**known, "assignees": list(self.assignees)}

    @classmethod
    def from_dict(cls, stored: Any) -> OpenWait | None:
        """Return the description that ``to_dict`` made, also by another version; None if it is not readable."""
        if not isinstance(stored, Mapping) or not isinstance(stored.get("product"), str):
            return None
        names = {field.name for field in fields(cls)}
        known = {name: value for name, value in stored.items() if name in names}
        assignees = known.get("assignees")
        known["assignees"] = tuple(str(name) for name in assignees) if isinstance(assignees, list) else ()
        return cls(**known)
