"""What polls read of Procore's Workflows v2 for the watchers of assets."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from time import monotonic
from time import time as wall_clock
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_workflows.exceptions import (
    TRANSIENT_ERRORS,
    AuthenticationError,
    ConfigurationError,
    ConnectionFailed,
    IncompleteList,
    NotFound,
    PermissionDenied,
    ServerError,
    SignInFailed,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.polling.bulk_history import BulkHistoryReader, BulkHistoryUnavailable
from airflow_provider_workflows.polling.list_poll import FALLBACK_SECONDS
from airflow_provider_workflows.polling.poll import PollScope
from airflow_provider_workflows.polling.procore import REREAD_INSTANCES, find_user_id, open_procore_hook
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_events as events
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.rules.patience import Rejections
from airflow_provider_workflows.rules.payload import documented_form, is_id
from airflow_provider_workflows.rules.procore_events import Instances, Listed, Place, Requested
from airflow_provider_workflows.rules.procore_history import name_histories, time
from airflow_provider_workflows.settings import rejection_patience_seconds

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.polling.poll import Reader

log = logging.getLogger(__name__)

PAGE_SIZE = 100  # rows of a list that come with one request
# Consecutive faults of a server after which a poll asks it nothing more of a kind: then it may be no matter of single
# places or instances.
MAX_CONSECUTIVE_FAULTS = 3
SERVER_FAULTS = (AuthenticationError, ConnectionFailed, ServerError)
MAX_BULK_ONLY_FAULTS = 2  # in a row, where single histories can be read: then the bulk history itself is at fault

Spot = tuple["str | None", str]  # project, as the watcher names it, and tool
Row = tuple["str | None", "str | None", "str | None"]  # of the list: item_id, updated_at, started_at
T = TypeVar("T")


class WatchScope(PollScope):
    """
    What watchers of some tools in some projects read.

    A place or an instance that cannot be read concerns only itself. It is read again with every poll, after those that
    could be read the last time, for several in a row look like a server in trouble, which is not asked about the rest.

    :param conn_id: Id of a connection of type ``procore``.
    :param company_id: Company, or None for the connection's.
    :param project_ids: Projects or ``company``; none for where each tool is.
    :param tool_types: The tools.
    :param tool_subtype: Their subtype, or None.
    """

    def __init__(
        self,
        conn_id: str,
        company_id: str | None,
        project_ids: Sequence[str],
        tool_types: Sequence[str],
        tool_subtype: str | None,
    ):
        super().__init__(conn_id)
        self.company_id = company_id
        self.project_ids = tuple(project_ids)
        self.tool_types = tuple(tool_types)
        self.tool_subtype = tool_subtype
        # What could not be read the last time it was tried, and why; what was tried longest ago is first.
        self._closed: dict[Spot, WorkflowsError] = {}
        self._broken: dict[str, WorkflowsError] = {}
        self._number_read = 0  # histories and instances in this round
        # What the log has named.
        self._logged_closed: set[Spot] = set()
        self._logged_broken: set[str] = set()
        self._logged_malformed_rows: set[Place] = set()
        self._logged_trouble = False

    @property
    def key(self) -> tuple[Hashable, ...]:
        where = (self.company_id, self.project_ids, self.tool_types, self.tool_subtype)
        return ("procore", type(self).__name__, self.conn_id, *where)

    def first_delay(self, interval: float) -> float:
        return interval * random.random()  # no task was deferred that could be failed by an event too soon

    @property
    def hook_key(self) -> Hashable:
        return ("procore", self.company_id)

    def open_hook(self) -> ProcoreHook:
        return open_procore_hook(self.conn_id, self.company_id)

    # --- the lists of all places ---

    async def read_lists(
        self, reader: Reader, persist: Callable[[Mapping[str, Any]], T], assignee_id: str | None = None
    ) -> dict[Place, dict[str, T]]:
        """
        List the active instances of each place, with a request in each step.

        :param keep: Makes of a row what is returned of it.
        :return: Of each place whose list could be read, what is kept of its rows by their ids.
        :raises WorkflowsError: not one list could be read.
        """
        self._number_read = 0
        lists: dict[Place, dict[str, T]] = {}
        faults: dict[Spot, WorkflowsError] = {}
        spots: list[Spot] = list(product(self.project_ids or [None], self.tool_types))
        left = [*(spot for spot in spots if spot not in self._closed), *self._closed]
        consecutive = 0
        while left and consecutive < MAX_CONSECUTIVE_FAULTS:
            spot = left.pop(0)
            try:
                with documented_form():
                    place, rows = await self._read_list(reader, spot, persist, assignee_id)
            except SignInFailed:
                raise
            except WorkflowsError as fault:
                faults[spot] = fault
                consecutive = consecutive + 1 if isinstance(fault, SERVER_FAULTS) else 0
            else:
                consecutive = 0
                lists.setdefault(place, rows)
        self._closed = {spot: fault for spot, fault in self._closed.items() if spot in left} | faults
        if not lists:
            # A sign-in that is rejected is told first: the poll looks the connection up again.
            raise min(faults.values(), key=lambda fault: not isinstance(fault, AuthenticationError))
        self._log_closed(left)
        return {place: lists[place] for place in sorted(lists)}

    async def _read_list(
        self, reader: Reader, spot: Spot, persist: Callable[[Mapping[str, Any]], T], assignee_id: str | None
    ) -> tuple[Place, dict[str, T]]:
        project, tool_type = spot
        level = await reader.call(lambda hook: hook.level_for(project, tool_type))
        rows = await reader.call(
            lambda hook: hook.list_instances(
                tool_type,
                tool_subtype=self.tool_subtype,
                assignee_id=assignee_id,
                active=True,
                project_id=level,
                keep_malformed_rows=True,
            )
        )
        stored: dict[str, T] = {}
        malformed = 0

        def add(row: Mapping[str, Any]) -> None:
            nonlocal malformed
            if not is_id(row.get("id")):
                malformed += 1
            elif not rules.has_ended(row):  # a server can ignore the filter
                stored.setdefault(str(row["id"]), persist(row))

        number, missing = 1, ""
        try:
            number = await reader.collect(rows, add, PAGE_SIZE)
        except IncompleteList as incomplete:  # perhaps it counts what is hidden; what is missing is read by itself
            missing = str(incomplete)
        self._log_malformed_rows(
            (tool_type, level), missing or (f"{malformed} of its rows have no id." if malformed else "")
        )
        if not number:
            try:
                await reader.call(lambda hook: hook.check_tool(tool_type))
            except ConfigurationError:
                raise
            except WorkflowsError as fault:  # it cannot be checked whether there is such a tool
                log.debug("The tools could not be listed: %s", fault)
        return (tool_type, level), stored

    def _log_closed(self, untried: Collection[Spot]) -> None:
        """Log each project once when a list of it cannot be read, and once when it can be read again."""
        new: dict[str | None, list[str]] = {}
        for project, tool_type in self._closed:
            if (project, tool_type) not in self._logged_closed:
                new.setdefault(project, []).append(tool_type)
        for project, tools in new.items():
            log.warning(
                "Polling %s of %s failed, will retry with each poll. Until then nothing is emitted of it; the others "
                "are polled as before. %s",
                ", ".join(tools),
                _project(project),
                self._closed[project, tools[0]],
            )
        for project, tool_type in self._logged_closed - self._closed.keys() - set(untried):
            log.info("Polling %s of %s works again.", tool_type, _project(project))
        self._logged_closed = set(self._closed)

    def _log_malformed_rows(self, place: Place, problem: str) -> None:
        if problem and place not in self._logged_malformed_rows:
            log.warning(
                "The list of %s of %s is not whole; what can be read of it is used. %s",
                place[0],
                _project(place[1]),
                problem,
            )
        (self._logged_malformed_rows.add if problem else self._logged_malformed_rows.discard)(place)

    # --- instances one by one ---

    async def read_each(self, instance_ids: Iterable[str], read_one: Callable[[str], Awaitable[None]]) -> set[str]:
        """
        Read instance by instance.

        :param read_one: Reads one; raises where it cannot be read.
        :return: Those that could not be read, or were not tried.
        """
        desired = set(instance_ids)
        left = [one for one in desired if one not in self._broken]
        random.shuffle(left)
        left += [one for one in self._broken if one in desired]
        unread: set[str] = set()
        consecutive = 0
        for instance_id in left:
            if consecutive == MAX_CONSECUTIVE_FAULTS:
                unread.add(instance_id)
            elif (fault := (await self.try_one(instance_id, read_one))) is None:
                consecutive = 0
            else:
                unread.add(instance_id)
                consecutive = consecutive + 1 if isinstance(fault, SERVER_FAULTS) else 0
        self._log_broken()
        return unread

    async def try_one(self, instance_id: str, read_one: Callable[[str], Awaitable[None]]) -> WorkflowsError | None:
        """Read one instance, and note whether it could be read; return what kept it from that."""
        found: WorkflowsError | None = None
        self._broken.pop(instance_id, None)
        try:
            with documented_form():
                await read_one(instance_id)
        except SignInFailed:
            raise
        except WorkflowsError as fault:
            self._broken[instance_id] = found = fault
        else:
            self._number_read += 1
        return found

    def retain_broken(self, instance_ids: Collection[str]) -> None:
        """Forget what could not be read and is not listed any more."""
        self._broken = {one: fault for one, fault in self._broken.items() if one in instance_ids}
        self._logged_broken &= self._broken.keys()

    def _log_broken(self) -> None:
        """Log each instance that cannot be read once, and once that it can be; a server in trouble once for all."""
        if self._broken and not self._number_read:
            if not self._logged_trouble:
                fault = next(reversed(self._broken.values()))
                tools = ", ".join(self.tool_types)
                log.warning("Polling the instances of %s failed, will retry with each poll. %s", tools, fault)
            self._logged_trouble = True
            return
        self._logged_trouble = self._logged_trouble and bool(self._broken)
        for instance_id in self._broken.keys() - self._logged_broken:
            log.warning(
                "Instance %s cannot be read. It is left out, and read again with each poll. %s",
                instance_id,
                self._broken[instance_id],
            )
        for instance_id in self._logged_broken - self._broken.keys():
            log.info("Instance %s can be read again.", instance_id)
        self._logged_broken = set(self._broken)


def _project(project: str | None) -> str:
    if project is None:
        return "the connection's project"
    return "the company" if project == rules.COMPANY_LEVEL else f"project {project}"


# --- somebody's response is requested -----------------------------------------------------------------------


class RequestsScope(WatchScope):
    """
    Reads what is asked of one user.

    :param user: Login, e-mail address or id, or None for the connection's user.
    """

    def __init__(self, *place: Any, user: str | None):
        super().__init__(*place)
        self.user = user
        self._ended: set[str] = set()  # which a server lists all the same that ignores filters

    @property
    def key(self) -> tuple[Hashable, ...]:
        return (*super().key, self.user)

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        user_id = await reader.call(partial(find_user_id, self.user))
        company_id = await reader.call(lambda hook: hook.company_id)
        lists = await self.read_lists(reader, lambda row: None, assignee_id=user_id)
        places = {instance_id: place for place, rows in reversed(lists.items()) for instance_id in rows}
        requests: dict[str, tuple[Place, dict[str, Any]]] = {}

        async def read_one(instance_id: str) -> None:
            place = places[instance_id]
            shown = await reader.call(lambda hook: hook.get_instance(instance_id, project_id=place[1]))
            if rules.has_ended(shown):
                self._ended.add(instance_id)
            request = rules.response_request(shown, user_id)
            if request is None or not rules.is_response_requested_from(
                shown, tool_type=place[0], tool_subtype=self.tool_subtype
            ):
                return
            del request["options"]
            request |= {"instance_id": instance_id, "project_id": place[1]}
            requests[events.request_event_id(instance_id, request["step_occurrence_id"], user_id)] = place, request

        self._ended.intersection_update(places)
        self.retain_broken(places)
        unread = await self.read_each(places.keys() - self._ended, read_one)
        found = Requested(company_id, user_id, lists.keys(), requests, unread)
        reader.deliver_all((subscriber, found) for subscriber in subscribers)


# --- an instance has changed --------------------------------------------------------------------------------


class InstancesScope(WatchScope):
    """
    Reads the active instances, and how those ended that are active no longer.

    It remembers between two polls what it has read, for as long as it is polled.
    """

    def __init__(self, *place: Any):
        super().__init__(*place)
        self._histories: dict[Place, BulkHistoryReader] = {}
        self._no_bulk_until: dict[Place, float] = {}
        self._listed: dict[str, Listed] = {}  # what was active at the last poll, and has not been read since it left
        self._described: dict[str, Mapping[str, Any]] = {}  # what was read longest ago is first
        self._updated: dict[str, Any] = {}  # updated_at, when it was read
        self._left: dict[str, Mapping[str, Any] | None] = {}
        self._desired: dict[str, Listed] = {}
        self._rejections: dict[str, Rejections] = {}  # of what is not listed, whether it is gone
        self._patience = rejection_patience_seconds()

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        lists = await self.read_lists(reader, _row)
        active: dict[str, Listed] = {}
        for place, rows in lists.items():
            for instance_id, (item_id, _, _) in rows.items():
                active.setdefault(instance_id, (place, item_id))
        self._listed |= _drained(self._desired)
        gone = {
            instance_id: listed
            for instance_id, listed in self._listed.items()
            if instance_id not in active and instance_id not in self._left and listed[0] in lists
        }
        self.retain_broken({*active, *self._listed})
        self._rejections = {one: seen for one, seen in self._rejections.items() if one in self._listed}
        singly = dict(gone)
        for place, rows in lists.items():
            own = {instance_id: row for instance_id, row in rows.items() if active[instance_id][0] == place}
            missed = await self._read_place(reader, place, own)
            singly |= {instance_id: active[instance_id] for instance_id in missed}

        async def read_one(instance_id: str) -> None:
            place, item_id = singly[instance_id]
            await self._read_one(reader, place, instance_id, item_id, instance_id in active)
            if instance_id in active:
                self._updated[instance_id] = lists[place][instance_id][1]

        await self.read_each(singly, read_one)
        company_id = await reader.call(lambda hook: hook.company_id)
        outcome = self._outcome(company_id, lists.keys(), active)
        reader.deliver_all((subscriber, outcome) for subscriber in subscribers)

    def _outcome(self, company_id: str, places: Collection[Place], active: dict[str, Listed]) -> Instances:
        """Close the round: what was not read of those that left is read by the next one."""
        unread = {one: listed for one, listed in self._listed.items() if one not in active and one not in self._left}
        # A list that is paged while it changes can leave one out.
        active = active | {
            one: listed
            for one, listed in unread.items()
            if listed[0] in places and self._described.get(one, {}).get("is_active")
        }
        left, self._left = self._left, {}
        self._listed = {**active, **unread}
        self._described = {one: shown for one, shown in self._described.items() if one in self._listed}
        self._updated = {one: at for one, at in self._updated.items() if one in self._listed}
        described = {one: shown for one, shown in self._described.items() if one in active}
        return Instances(company_id, places, active, described, left, self._desired)

    async def _read_place(self, reader: Reader, place: Place, rows: Mapping[str, Row]) -> Collection[str]:
        """Read the histories of the active instances of a place in bulk; return those that are to be read singly."""
        missed: Collection[str] = rows
        if rows and monotonic() >= self._no_bulk_until.get(place, 0.0):
            histories = self._histories.setdefault(place, BulkHistoryReader())
            try:
                missed = rows.keys() - (await self._read_in_bulk(reader, histories, place, rows))
            except (AuthenticationError, BulkHistoryUnavailable) as missing:
                # A sign-in that is rejected for this call alone is no matter of the connection.
                if isinstance(missing, AuthenticationError) and not (
                    await self._can_read_one_of(reader, place, list(rows), rows)
                ):
                    raise
                del self._histories[place]
                self._no_bulk_until[place] = monotonic() + FALLBACK_SECONDS
                log.warning(
                    "Procore has no bulk history for %s. So for an hour a poll reads the histories of instances that "
                    "are new, that have left the list, and whose updated_at has moved. Nobody documents that it moves "
                    "with every change, so each poll reads %d more, in turn. %s",
                    place[0],
                    REREAD_INSTANCES,
                    missing,
                )
        return missed if place in self._histories else self._due(rows)

    async def _read_in_bulk(
        self, reader: Reader, histories: BulkHistoryReader, place: Place, rows: Mapping[str, Row]
    ) -> set[str]:
        """Describe active instances by the histories of their items; return those that need no other read."""
        by_item: dict[str, list[str]] = {}
        # What could not be read the last time comes last, so that it keeps nobody else waiting.
        known = dict.fromkeys(one for one in self._broken if one in rows)
        for instance_id in [*(one for one in rows if one not in known), *known]:
            if (item_id := rows[instance_id][0]) is not None:
                by_item.setdefault(item_id, []).append(instance_id)
        done: set[str] = set()
        consecutive = only_in_bulk = 0
        histories.start(*place, by_item)  # those that are rejected in bulk are read singly
        while not histories.is_finished:
            response = await reader.call(histories.read_next)
            fault = next((found for found in response.values() if isinstance(found, TRANSIENT_ERRORS)), None)
            if fault is None:
                for item_id, found in response.items():
                    if not isinstance(found, WorkflowsError):  # which are read singly
                        self._number_read += 1
                        consecutive = only_in_bulk = 0
                        done |= self._describe_item(place, item_id, found, {one: rows[one] for one in by_item[item_id]})
                continue
            batch = [instance_id for item_id in response for instance_id in by_item[item_id]]
            if len(response) > 1:  # fewer go together next time
                done.update(batch)
            is_read = await self._can_read_one_of(reader, place, batch, rows)
            consecutive, only_in_bulk = (0, only_in_bulk + 1) if is_read else (consecutive + 1, 0)
            if only_in_bulk == MAX_BULK_ONLY_FAULTS:
                raise BulkHistoryUnavailable(f"A bulk history fails where single ones do not. {fault}")
            if consecutive == MAX_CONSECUTIVE_FAULTS:
                return {*done, *rows}
        return done

    async def _can_read_one_of(
        self, reader: Reader, place: Place, batch: Sequence[str], rows: Mapping[str, Row]
    ) -> bool:
        """Read one of the instances whose bulk history failed, and tell whether that worked."""
        healthy = [one for one in batch if one not in self._broken]

        async def read_one(instance_id: str) -> None:
            item_id, updated_at, _ = rows[instance_id]
            await self._read_one(reader, place, instance_id, item_id, True)
            self._updated[instance_id] = updated_at

        return (await self.try_one(random.choice(healthy or batch), read_one)) is None

    def _describe_item(self, place: Place, item_id: str, histories: Any, rows: Mapping[str, Row]) -> set[str]:
        """Describe the instances of an item by its histories; return the ids of those it could."""
        done = set()
        try:
            with documented_form():
                shown = [{"id": instance_id, "started_at": time(row[2])} for instance_id, row in rows.items()]
                for named in name_histories(histories, shown, tool_type=place[0], item_id=item_id):
                    if named.instance_id in rows:
                        self._describe(named.instance_id, item_id, named.history)
                        done.add(named.instance_id)
        except UnexpectedResponse as malformed:  # the others are read singly
            log.debug("Item %s: %s", item_id, malformed)
        return done

    def _due(self, rows: Mapping[str, Row]) -> Collection[str]:
        """Return which of the active instances to read singly."""
        moved = {
            one
            for one, (_, at, _) in rows.items()
            if one not in self._broken and (one not in self._updated or at != self._updated[one])
        }
        oldest = [one for one in self._described if one in rows and one not in moved and one not in self._broken]
        broken = [one for one in self._broken if one in rows]
        # What a server in trouble could not answer for is all read again: a poll ends with a few of these.
        down = [one for one in broken if isinstance(self._broken[one], SERVER_FAULTS)]
        return moved | set(oldest[:REREAD_INSTANCES]) | set(broken[:REREAD_INSTANCES]) | set(down)

    async def _read_one(
        self, reader: Reader, place: Place, instance_id: str, item_id: str | None, is_active: bool
    ) -> None:
        """Read the history of one instance; of one that is not listed any more, whether it has ended or is gone."""
        tool_type, level = place
        try:
            history = await reader.call(
                lambda hook: hook.get_instance_history(instance_id, project_id=level, tool_type=tool_type)
            )
        except (NotFound, PermissionDenied):
            if is_active:
                raise
            rejections = Rejections.following(self._rejections.get(instance_id), wall_clock())
            self._rejections[instance_id] = rejections
            if rejections.are_final(wall_clock(), self._patience):
                self._left[instance_id] = None
            return
        self._rejections.pop(instance_id, None)
        shown = self._describe(instance_id, item_id, history)
        if not is_active and not shown["is_active"]:
            self._left[instance_id] = shown

    def _describe(self, instance_id: str, item_id: str | None, history: Mapping[str, Any]) -> Mapping[str, Any]:
        instance = rules.describe_instance(history, instance_id=instance_id, item_id=item_id)
        # Here, for this runs in a thread: the event loop only compares.
        shown = events.described_instance(instance, is_active=not rules.has_ended(instance))
        self._described.pop(instance_id, None)
        self._described[instance_id] = shown
        return shown


def _row(row: Mapping[str, Any]) -> Row:
    """Return what is kept of a row of the list."""
    return str_id(row.get("item_id")), row.get("updated_at"), row.get("started_at")


def _drained(waiting: dict[str, Listed]) -> dict[str, Listed]:
    """Empty a mapping that another thread may fill meanwhile."""
    taken = {}
    while waiting:
        key, listed = waiting.popitem()
        taken[key] = listed
    return taken
