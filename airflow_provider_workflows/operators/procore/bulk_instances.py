"""
Read where many instances stand, and what they have recorded, with as few requests as Procore allows.

An instance is read alone with one request, so a thousand of them would take as many requests as the responses do. The
list of instances has 100 in a page, and the bulk history 50 in a request. Not everything about the history is
documented, so of each tool one instance is read in both ways, and the history is used only if they agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    TRANSIENT_ERRORS,
    AuthenticationError,
    RateLimited,
    WorkflowsError,
)
from airflow_provider_workflows.operators.unknown_outcome import describe
from airflow_provider_workflows.polling.bulk_history import BulkHistoryReader, BulkHistoryUnavailable
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_bulk_responses as bulk_rules
from airflow_provider_workflows.rules import procore_responses as response_rules
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.rules.payload import is_id

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

FEW = 5  # instances of one project that are read alone
LISTED_PER_INSTANCE = 5  # rows of the list that are read for each instance that is searched; a page has 100
LISTED_AT_LEAST = 500
MAX_CONSECUTIVE_FAILURES = 10  # of a server that is down; the client has repeated each of these calls
MAX_SAMPLES = 2  # instances of a tool that are read in both ways
# Errors that concern every call, not one instance.
CONCERNS_ALL = (AuthenticationError, RateLimited)


@dataclass
class Place:
    """
    Name the place of an instance, as far as it is known; the list and the instance itself add to it.

    :param level: Project of the instance, or ``company``.
    :param occurrence_id: The step occurrence that the response belongs to, or None for the current one.
    """

    row: int
    level: str
    instance_id: str | None
    item_id: str | None
    tool_type: str | None
    tool_subtype: str | None = None
    occurrence_id: str | None = None
    is_listed: bool = False  # as active

    @property
    def is_complete(self) -> bool:
        return None not in (self.instance_id, self.item_id, self.tool_type)

    def learn(self, row: Any) -> None:
        """Take over the ids that an instance, as shown or listed, has."""
        for name in ("item_id", "tool_type", "tool_subtype"):
            if getattr(self, name) is None:
                setattr(self, name, str_id(row.get(name)))
        self.instance_id = self.instance_id or str_id(row.get("id"))


class BulkInstanceReader:
    """
    Read where many instances stand for the connection's user.

    :param hook: The hook of the company.
    :param log: The task's log.
    """

    def __init__(self, hook: ProcoreHook, log: Any):
        self.hook = hook
        self.log = log
        self._shown: dict[str, dict[str, Any]] = {}  # instances that were read alone, by id
        self._consecutive_failures = 0
        self.is_bulk_missing = False  # whether Procore has no bulk history

    def waiting(self, places: Sequence[Place]) -> dict[int, dict[str, Any]]:
        """
        Return the instances that certainly wait for the user, by row, in the form of "Show Workflow Instance".

        All others have to be read alone: they have moved, or the history does not show where they stand.

        :raises WorkflowsError: the sign-in or the rate limit concerns all reads.
        """
        found: dict[int, dict[str, Any]] = {}
        for level in dict.fromkeys(place.level for place in places):
            here = [place for place in places if place.level == level]
            if len(here) > FEW:
                self._locate(level, here)
                for tool_type in dict.fromkeys(place.tool_type for place in here if place.is_complete):
                    of_tool = [place for place in here if place.tool_type == tool_type and place.is_complete]
                    found |= self._of_tool(level, str(tool_type), of_tool)
        return found

    def recorded(self, places: Sequence[Place], occurrences: dict[int, str]) -> dict[int, dict[str, Any]]:
        """
        Return the user's recorded responses that the bulk history shows, by row.

        :param occurrences: The step occurrence of each row.
        """
        found = {}
        for level, tool_type in dict.fromkeys((place.level, place.tool_type) for place in places if place.is_complete):
            here = [place for place in places if (place.level, place.tool_type) == (level, tool_type)]
            for place, histories in self._histories(level, str(tool_type), here):
                occurrence = occurrences[place.row]
                for history in histories:
                    read = partial(response_rules.recorded_in_history, history, occurrence, self.hook.user_id)
                    if (response := self.read(read)) is not None:
                        found[place.row] = response
        return found

    def show(self, instance_id: str, level: str) -> dict[str, Any]:
        """Return an instance that is read alone, once."""
        if instance_id not in self._shown:
            self._shown[instance_id] = self.hook.get_instance(instance_id, project_id=level)
        return self._shown[instance_id]

    def check_server(self, error: WorkflowsError | None) -> None:
        """
        Count consecutive failures of the server.

        :param error: The error of a read, or None if it succeeded.
        :raises WorkflowsError: the error concerns all reads, or the server seems to be down.
        """
        self._consecutive_failures = self._consecutive_failures + 1 if isinstance(error, TRANSIENT_ERRORS) else 0
        if error is not None and (
            isinstance(error, CONCERNS_ALL) or self._consecutive_failures >= MAX_CONSECUTIVE_FAILURES
        ):
            raise error

    def _locate(self, level: str, places: Sequence[Place]) -> None:
        """Find out the item and the tool of each instance, and the active instance of each item."""
        listed: set[tuple[str, str | None]] = set()
        for place in places:
            if place.is_complete:
                continue
            if place.tool_type is None or (place.instance_id is not None and (place.tool_type, None) in listed):
                # Of another tool, or not in the list of its tool: then it is to be read alone anyway.
                shown = self.read(partial(self.show, str(place.instance_id), level))
                if shown is None:
                    continue
                place.learn(shown)
            tool = (str(place.tool_type), place.tool_subtype)
            if tool in listed or place.tool_type is None:
                continue
            listed |= {tool, (tool[0], None)}
            self._take_from_list(
                level, *tool, [p for p in places if not p.is_complete and p.tool_type in (None, tool[0])]
            )

    def _take_from_list(self, level: str, tool_type: str, tool_subtype: str | None, places: Sequence[Place]) -> None:
        by_instance = {place.instance_id: place for place in places if place.instance_id is not None}
        by_item: dict[str | None, list[Place]] = {}
        for place in places:
            if place.instance_id is None:
                by_item.setdefault(place.item_id, []).append(place)
        left = len(by_instance) + len(by_item)
        if not left:
            return
        rows = self.hook.list_instances(
            tool_type, tool_subtype=tool_subtype, assignee_id=self.hook.user_id, active=True, project_id=level
        )

        def take() -> None:
            nonlocal left
            for row in islice(rows, max(LISTED_AT_LEAST, LISTED_PER_INSTANCE * len(places))):
                if not is_id(row.get("id")) or not is_id(row.get("item_id")):
                    continue
                place = by_instance.pop(str(row["id"]), None)
                same_item = by_item.pop(str(row["item_id"]), [])
                left -= (place is not None) + bool(same_item)
                for each in [*([place] if place else []), *same_item]:
                    each.learn({"tool_type": tool_type, "tool_subtype": tool_subtype, **row})
                    each.is_listed = True
                if not left:
                    return

        self.read(take)

    def _of_tool(self, level: str, tool_type: str, places: Sequence[Place]) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        for place, histories in self._histories(level, tool_type, places):
            ids = {"instance_id": str(place.instance_id), "item_id": str(place.item_id)}
            for history in _own(place, histories):
                instance = self.read(partial(bulk_rules.waiting_instance, history, self.hook.user_id, **ids))
                if instance is not None and _is_certain(place, history, instance):
                    found[place.row] = {**instance, "tool_type": tool_type, "tool_subtype": place.tool_subtype}
        return found if self._agree(level, found) else {}

    def _agree(self, level: str, found: dict[int, dict[str, Any]]) -> bool:
        """Return whether an instance that is read alone shows the same as its history."""
        samples = sorted(found.values(), key=lambda instance: instance["id"] not in self._shown)
        for sample in samples[:MAX_SAMPLES]:  # one can move between the two reads
            shown = self.read(partial(self.show, sample["id"], level))
            if shown is not None and bulk_rules.is_same_position(shown, sample, self.hook.user_id):
                return True
        if not samples:
            return True
        self.log.info(
            "The history of instance %s shows other ids than the instance. Reading each instance.", sample["id"]
        )
        return False

    def _histories(self, level: str, tool_type: str, places: Iterable[Place]) -> Iterator[tuple[Place, list[Any]]]:
        """Yield each place with the histories of its item, if the bulk history has them."""
        by_item: dict[str, list[Place]] = {}
        for place in places:
            by_item.setdefault(str(place.item_id), []).append(place)
        reader = BulkHistoryReader()
        reader.start(tool_type, level, by_item)
        while not reader.is_finished:
            try:
                found = reader.read_next(self.hook)
            except BulkHistoryUnavailable as missing:
                self.is_bulk_missing = True
                self.log.info("%s Reading each instance instead of the bulk history.", missing)
                return
            for item_id, histories in found.items():
                if isinstance(histories, CONCERNS_ALL):
                    raise histories
                if not isinstance(histories, WorkflowsError):
                    yield from ((place, histories) for place in by_item[item_id])

    def read(self, read: Callable[[], Any]) -> Any:
        """Read; return None if that fails for a reason that need not concern the instances themselves."""
        try:
            found = read()
        except WorkflowsError as error:
            self.check_server(error)
            self.log.info("%s Reading instances alone.", describe(error))
            return None
        self.check_server(None)
        return found


def _own(place: Place, histories: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the history of an instance among those of its item; none if that is not certain."""
    found = [history for history in histories if isinstance(history, dict)]
    named = [history for history in found if str_id(history.get("instance_id")) == place.instance_id]
    # An item has at most one active instance.
    active = [h for h in found if h.get("instance_id") is None and not rules.has_ended(h)]
    return [] if len(named or active) != 1 else named or active


def _is_certain(place: Place, history: dict[str, Any], instance: dict[str, Any]) -> bool:
    """Return whether a history, which need not name its instance, is that of the searched one."""
    is_named = history.get("instance_id") is not None
    return is_named or place.is_listed or instance["current_step_occurrence"]["id"] == place.occurrence_id
