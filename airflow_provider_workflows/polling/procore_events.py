"""
The scopes of the asset watchers of Procore's Workflows v2: requests for a response, and changes of instances.

A watcher covers many projects and tools. A project, tool or instance that cannot be read must not stop events of the
others, so these scopes record errors for each of them.
"""

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
    IncompleteList,
    NotFound,
    PermissionDenied,
    SignInFailed,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.polling.bulk_history import BulkHistoryReader, BulkHistoryUnavailable
from airflow_provider_workflows.polling.list_poll import FALLBACK_SECONDS
from airflow_provider_workflows.polling.poll import MAX_CONSECUTIVE_FAULTS, SERVER_FAULTS, PollScope
from airflow_provider_workflows.polling.procore import PAGE_SIZE, REREAD_INSTANCES, find_user_id, open_procore_hook
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

ProjectTool = tuple["str | None", str]  # project, as the watcher names it, and tool
Row = tuple["str | None", "str | None", "str | None"]  # of the list: item_id, updated_at, started_at
T = TypeVar("T")


class WatchScope(PollScope):
    """
    Read the lists and instances of some tools in some projects, for the watchers of assets.

    A list or an instance that cannot be read does not affect the others. Each poll tries it again, after those that
    could be read in the last poll, because after several consecutive server errors the rest is not read.

    :param conn_id: Id of a connection of type ``procore``.
    :param company_id: Company, or None for the company of the connection.
    :param project_ids: Projects or ``company``; empty for the level of each tool.
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
        # Lists and instances that could not be read when last tried, with the error; those tried longest ago first.
        self._closed: dict[ProjectTool, WorkflowsError] = {}
        self._broken: dict[str, WorkflowsError] = {}
        self._number_read = 0  # histories and instances in this poll cycle
        # Lists and instances whose errors were logged.
        self._logged_closed: set[ProjectTool] = set()
        self._logged_broken: set[str] = set()
        self._logged_malformed_rows: set[Place] = set()
        self._outage_is_logged = False

    @property
    def key(self) -> tuple[Hashable, ...]:
        where = (self.company_id, self.project_ids, self.tool_types, self.tool_subtype)
        return ("procore", type(self).__name__, self.conn_id, *where)

    def first_delay(self, interval: float) -> float:
        return interval * random.random()  # no minimum, because no task was deferred that an early event could fail

    @property
    def hook_key(self) -> Hashable:
        return ("procore", self.company_id)

    def open_hook(self) -> ProcoreHook:
        return open_procore_hook(self.conn_id, self.company_id)

    # --- the lists of all projects and tools ---

    async def read_lists(
        self, reader: Reader, convert: Callable[[Mapping[str, Any]], T], assignee_id: str | None = None
    ) -> dict[Place, dict[str, T]]:
        """
        List the active instances of each project and tool.

        :param convert: Converts a row to the value to return.
        :param assignee_id: List only instances with this assignee, or None for all.
        :return: By place, for each list that could be read: the converted rows by instance id.
        :raises WorkflowsError: no list could be read.
        """
        self._number_read = 0
        lists: dict[Place, dict[str, T]] = {}
        faults: dict[ProjectTool, WorkflowsError] = {}
        every: list[ProjectTool] = list(product(self.project_ids or [None], self.tool_types))
        left = [*(project_tool for project_tool in every if project_tool not in self._closed), *self._closed]
        consecutive = 0
        while left and consecutive < MAX_CONSECUTIVE_FAULTS:
            project_tool = left.pop(0)
            try:
                with documented_form():
                    place, rows = await self._read_list(reader, project_tool, convert, assignee_id)
            except SignInFailed:
                raise
            except WorkflowsError as fault:
                faults[project_tool] = fault
                consecutive = consecutive + 1 if isinstance(fault, SERVER_FAULTS) else 0
            else:
                consecutive = 0
                lists.setdefault(place, rows)
        self._closed = {untried: fault for untried, fault in self._closed.items() if untried in left} | faults
        if not lists:
            # Preferably a rejected sign-in: the poll then looks up the connection again.
            raise min(faults.values(), key=lambda fault: not isinstance(fault, AuthenticationError))
        self._log_closed(left)
        return {place: lists[place] for place in sorted(lists)}

    async def _read_list(
        self,
        reader: Reader,
        project_tool: ProjectTool,
        convert: Callable[[Mapping[str, Any]], T],
        assignee_id: str | None,
    ) -> tuple[Place, dict[str, T]]:
        project, tool_type = project_tool
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
        converted: dict[str, T] = {}
        malformed = 0

        def add(row: Mapping[str, Any]) -> None:
            nonlocal malformed
            if not is_id(row.get("id")):
                malformed += 1
            elif not rules.has_ended(row):  # a server can ignore the filter
                converted.setdefault(str(row["id"]), convert(row))

        number, missing = 1, ""
        try:
            number = await reader.collect(rows, add, PAGE_SIZE)
        except IncompleteList as incomplete:  # the total may count hidden rows; missing instances are read individually
            missing = str(incomplete)
        self._log_malformed_rows(
            (tool_type, level), missing or (f"{malformed} of its rows have no id." if malformed else "")
        )
        if not number:
            try:
                await reader.call(lambda hook: hook.check_tool(tool_type))
            except ConfigurationError:
                raise
            except WorkflowsError as fault:  # an empty list is still a valid result
                log.debug("Listing the company's tools failed: %s", fault)
        return (tool_type, level), converted

    def _log_closed(self, untried: Collection[ProjectTool]) -> None:
        """Log once for each project that its lists cannot be read, and once for each list that it works again."""
        new: dict[str | None, list[str]] = {}
        for project, tool_type in self._closed:
            if (project, tool_type) not in self._logged_closed:
                new.setdefault(project, []).append(tool_type)
        for project, tools in new.items():
            log.warning(
                "Polling %s of %s failed, will retry with each poll. Until then it emits no events; the others are "
                "polled as before. %s",
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
                "The list of %s of %s is incomplete; polling uses the rows that can be read. %s",
                place[0],
                _project(place[1]),
                problem,
            )
        (self._logged_malformed_rows.add if problem else self._logged_malformed_rows.discard)(place)

    # --- individual instances ---

    async def read_each(self, instance_ids: Iterable[str], read_one: Callable[[str], Awaitable[None]]) -> set[str]:
        """
        Read instances individually.

        :param read_one: Reads an instance; raises if it cannot be read.
        :return: The instances that could not be read or were not tried.
        """
        desired = set(instance_ids)
        left = [instance_id for instance_id in desired if instance_id not in self._broken]
        random.shuffle(left)
        left += [instance_id for instance_id in self._broken if instance_id in desired]
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
        """Read an instance, and record whether that succeeded; return the error, if any."""
        error: WorkflowsError | None = None
        self._broken.pop(instance_id, None)
        try:
            with documented_form():
                await read_one(instance_id)
        except SignInFailed:
            raise
        except WorkflowsError as fault:
            self._broken[instance_id] = error = fault
        else:
            self._number_read += 1
        return error

    def retain_broken(self, instance_ids: Collection[str]) -> None:
        """Forget the errors of all other instances, which are not listed any more."""
        self._broken = {id_: fault for id_, fault in self._broken.items() if id_ in instance_ids}
        self._logged_broken &= self._broken.keys()

    def _log_broken(self) -> None:
        """Log once for each instance that it cannot be read, and once that it works again; an outage only once."""
        if self._broken and not self._number_read:
            if not self._outage_is_logged:
                fault = next(reversed(self._broken.values()))
                tools = ", ".join(self.tool_types)
                log.warning("Polling the instances of %s failed, will retry with each poll. %s", tools, fault)
            self._outage_is_logged = True
            return
        self._outage_is_logged = self._outage_is_logged and bool(self._broken)
        for instance_id in self._broken.keys() - self._logged_broken:
            log.warning(
                "Polling instance %s failed, will retry with each poll. Until then it emits no events. %s",
                instance_id,
                self._broken[instance_id],
            )
        for instance_id in self._logged_broken - self._broken.keys():
            log.info("Polling instance %s works again.", instance_id)
        self._logged_broken = set(self._broken)


def _project(project: str | None) -> str:
    if project is None:
        return "the connection's project"
    return "the company" if project == rules.COMPANY_LEVEL else f"project {project}"


# --- a response is requested --------------------------------------------------------------------------------


class RequestsScope(WatchScope):
    """
    Read all requests for one user's response.

    :param user: Login, e-mail address or id, or None for the connection's user.
    """

    def __init__(self, *place: Any, user: str | None):
        super().__init__(*place)
        self.user = user
        self._ended: set[str] = set()  # listed by a server that ignores the filter

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
            instance = await reader.call(lambda hook: hook.get_instance(instance_id, project_id=place[1]))
            if rules.has_ended(instance):
                self._ended.add(instance_id)
            request = rules.response_request(instance, user_id)
            if request is None or not rules.matches_filters(
                instance, tool_type=place[0], tool_subtype=self.tool_subtype
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
    Read the active instances, and the end of those that have left the list of active ones.

    The scope stores what it has read between two polls, as long as it has a subscriber.
    """

    def __init__(self, *place: Any):
        super().__init__(*place)
        self._histories: dict[Place, BulkHistoryReader] = {}
        self._no_bulk_until: dict[Place, float] = {}
        self._listed: dict[str, Listed] = {}  # active at the last poll, or not read since they left the list
        self._described: dict[str, Mapping[str, Any]] = {}  # those read longest ago come first
        self._updated: dict[str, Any] = {}  # updated_at at the time of reading
        # Of the items of a place: the hash of what their instances were last described by, and these instances.
        self._versions: dict[Place, dict[str, tuple[int, set[str]]]] = {}
        self._left: dict[str, Mapping[str, Any] | None] = {}  # ended instances; None for one that is gone
        self._desired: dict[str, Listed] = {}  # instances that a watcher has requested to be read
        self._rejections: dict[str, Rejections] = {}  # of instances that may be gone
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
        self._rejections = {id_: rejections for id_, rejections in self._rejections.items() if id_ in self._listed}
        to_read = dict(gone)
        for place, rows in lists.items():
            own = {instance_id: row for instance_id, row in rows.items() if active[instance_id][0] == place}
            missed = await self._read_place(reader, place, own)
            to_read |= {instance_id: active[instance_id] for instance_id in missed}

        async def read_one(instance_id: str) -> None:
            place, item_id = to_read[instance_id]
            await self._read_one(reader, place, instance_id, item_id, instance_id in active)
            if instance_id in active:
                self._updated[instance_id] = lists[place][instance_id][1]

        await self.read_each(to_read, read_one)
        company_id = await reader.call(lambda hook: hook.company_id)
        outcome = self._outcome(company_id, lists.keys(), active)
        reader.deliver_all((subscriber, outcome) for subscriber in subscribers)

    def _outcome(self, company_id: str, places: Collection[Place], active: dict[str, Listed]) -> Instances:
        """End the poll cycle and return what it found; the next one reads what was not read of instances that left."""
        unread = {id_: listed for id_, listed in self._listed.items() if id_ not in active and id_ not in self._left}
        # A list that changes while its pages are read can omit an active instance.
        active = active | {
            id_: listed
            for id_, listed in unread.items()
            if listed[0] in places and self._described.get(id_, {}).get("is_active")
        }
        left, self._left = self._left, {}
        self._listed = {**active, **unread}
        self._described = {id_: shown for id_, shown in self._described.items() if id_ in self._listed}
        self._updated = {id_: at for id_, at in self._updated.items() if id_ in self._listed}
        for place, versions in self._versions.items():
            self._versions[place] = {id_: known for id_, known in versions.items() if not known[1].isdisjoint(active)}
        described = {id_: shown for id_, shown in self._described.items() if id_ in active}
        return Instances(company_id, places, active, described, left, self._desired)

    async def _read_place(self, reader: Reader, place: Place, rows: Mapping[str, Row]) -> Collection[str]:
        """Read the histories of a place's active instances in bulk; return the instances to read individually."""
        missed: Collection[str] = rows
        if rows and monotonic() >= self._no_bulk_until.get(place, 0.0):
            histories = self._histories.setdefault(place, BulkHistoryReader())
            try:
                missed = rows.keys() - (await self._read_in_bulk(reader, histories, place, rows))
            except (AuthenticationError, BulkHistoryUnavailable) as missing:
                # If a single history can be read, the 401 concerns only this route, and not the connection.
                if isinstance(missing, AuthenticationError) and not (
                    await self._can_read_one_of(reader, place, list(rows), rows)
                ):
                    raise
                del self._histories[place]
                self._no_bulk_until[place] = monotonic() + FALLBACK_SECONDS
                log.warning(
                    "Reading the bulk history of %s failed. For an hour each poll reads individually the histories of "
                    "instances that are new, that have left the list, or whose updated_at has changed. Procore does "
                    "not document that every change updates it, so each poll also reads %d unchanged ones. %s",
                    place[0],
                    REREAD_INSTANCES,
                    missing,
                )
        return missed if place in self._histories else self._due(rows)

    async def _read_in_bulk(
        self, reader: Reader, histories: BulkHistoryReader, place: Place, rows: Mapping[str, Row]
    ) -> set[str]:
        """Describe active instances by the histories of their items; return the instances that need no other read."""
        by_item: dict[str, list[str]] = {}
        # Instances that could not be read in the last poll come last, so that they do not delay the others.
        known = dict.fromkeys(instance_id for instance_id in self._broken if instance_id in rows)
        for instance_id in [*(healthy for healthy in rows if healthy not in known), *known]:
            if (item_id := rows[instance_id][0]) is not None:
                by_item.setdefault(item_id, []).append(instance_id)
        done: set[str] = set()
        consecutive = 0
        histories.start(*place, by_item)  # items that were rejected in bulk are read individually
        while not histories.is_finished:
            response = await reader.call(histories.read_next)
            fault = next((found for found in response.values() if isinstance(found, TRANSIENT_ERRORS)), None)
            if fault is None:
                for item_id, found in response.items():
                    if not isinstance(found, WorkflowsError):  # items with an error are read individually
                        self._number_read += 1
                        consecutive = 0
                        own = {instance_id: rows[instance_id] for instance_id in by_item[item_id]}
                        done |= self._describe_item(place, item_id, found, own)
                continue
            batch = [instance_id for item_id in response for instance_id in by_item[item_id]]
            if len(response) > 1:  # the next poll requests them in smaller batches
                done.update(batch)
            is_read = await self._can_read_one_of(reader, place, batch, rows)
            histories.compare_with_single(fault, is_read=is_read)
            consecutive = 0 if is_read else consecutive + 1
            if consecutive == MAX_CONSECUTIVE_FAULTS:
                return {*done, *rows}
        return done

    async def _can_read_one_of(
        self, reader: Reader, place: Place, batch: Sequence[str], rows: Mapping[str, Row]
    ) -> bool:
        """Read one of the instances whose bulk history failed, and return whether that succeeded."""
        healthy = [instance_id for instance_id in batch if instance_id not in self._broken]

        async def read_one(instance_id: str) -> None:
            item_id, updated_at, _ = rows[instance_id]
            await self._read_one(reader, place, instance_id, item_id, True)
            self._updated[instance_id] = updated_at

        return (await self.try_one(random.choice(healthy or batch), read_one)) is None

    def _describe_item(self, place: Place, item_id: str, histories: Any, rows: Mapping[str, Row]) -> set[str]:
        """Describe the instances of an item by its histories; return the ids of the described instances."""
        versions = self._versions.setdefault(place, {})
        version = hash(repr((histories, rows)))  # takes a tenth of the time of a description
        known, done = versions.pop(item_id, (None, set[str]()))
        if known == version and done <= self._described.keys():
            for instance_id in done:
                self._described[instance_id] = self._described.pop(instance_id)
            versions[item_id] = version, done
            return done
        done = set()
        try:
            with documented_form():
                listed = [{"id": instance_id, "started_at": time(row[2])} for instance_id, row in rows.items()]
                for named in name_histories(histories, listed, tool_type=place[0], item_id=item_id):
                    if named.instance_id in rows:
                        self._describe(named.instance_id, item_id, named.history)
                        done.add(named.instance_id)
        except UnexpectedResponse as malformed:  # the remaining instances are read individually
            log.debug("Histories of item %s are malformed: %s", item_id, malformed)
        else:
            versions[item_id] = version, done
        return done

    def _due(self, rows: Mapping[str, Row]) -> Collection[str]:
        """Return the active instances to read individually."""
        moved = {
            id_
            for id_, (_, at, _) in rows.items()
            if id_ not in self._broken and (id_ not in self._updated or at != self._updated[id_])
        }
        oldest = [id_ for id_ in self._described if id_ in rows and id_ not in moved and id_ not in self._broken]
        broken = [id_ for id_ in self._broken if id_ in rows]
        # All instances with server errors, because a poll stops after a few of these if the server is still down.
        down = [id_ for id_ in broken if isinstance(self._broken[id_], SERVER_FAULTS)]
        return moved | set(oldest[:REREAD_INSTANCES]) | set(broken[:REREAD_INSTANCES]) | set(down)

    async def _read_one(
        self, reader: Reader, place: Place, instance_id: str, item_id: str | None, is_active: bool
    ) -> None:
        """Read the history of one instance; if it has left the list, record whether it has ended or is gone."""
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
        self._versions.get(place, {}).pop(str(item_id), None)
        description = self._describe(instance_id, item_id, history)
        if not is_active and not description["is_active"]:
            self._left[instance_id] = description

    def _describe(self, instance_id: str, item_id: str | None, history: Mapping[str, Any]) -> Mapping[str, Any]:
        instance = rules.describe_instance(history, instance_id=instance_id, item_id=item_id)
        # Hashed once per read, so that each watcher only has to compare.
        description = events.described_instance(instance, is_active=not rules.has_ended(instance))
        self._described.pop(instance_id, None)
        self._described[instance_id] = description
        return description


def _row(row: Mapping[str, Any]) -> Row:
    """Return the fields of a list row that the scope stores."""
    return str_id(row.get("item_id")), row.get("updated_at"), row.get("started_at")


def _drained(waiting: dict[str, Listed]) -> dict[str, Listed]:
    """Empty a mapping that another thread may be filling."""
    taken = {}
    while waiting:
        key, listed = waiting.popitem()
        taken[key] = listed
    return taken
