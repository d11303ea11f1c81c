"""
The scopes of waits on Procore's Workflows v2: for instances of a tool, and for requests of a response.

The sensor for requests calls :class:`ResponseRequests` on a worker as well, so that all modes share one reader.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_provider_workflows.exceptions import (
    RESOURCE_ERRORS,
    TRANSIENT_ERRORS,
    SignInFailed,
    WorkflowsError,
)
from airflow_provider_workflows.polling.bulk_history import BulkHistoryReader, BulkHistoryUnavailable
from airflow_provider_workflows.polling.list_poll import FALLBACK_SECONDS, ListPollScope
from airflow_provider_workflows.polling.poll import MAX_CONSECUTIVE_FAULTS, SERVER_FAULTS, PollScope, take
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.payload import documented_form, is_id
from airflow_provider_workflows.rules.procore_decisions import AmbiguousHistory

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.polling.poll import Reader

log = logging.getLogger(__name__)
Result = TypeVar("Result")

PAGE_SIZE = 100  # rows of a list in one response
REREAD_INSTANCES = 5  # unchanged instances to read in each poll: Procore does not document which changes a row shows
AMBIGUOUS: Any = object()  # outcome of a wait whose history in bulk does not decide


def open_procore_hook(conn_id: str, company_id: str | None) -> ProcoreHook:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

    return ProcoreHook(conn_id, company_id=company_id)


# --- instances ----------------------------------------------------------------------------------------------


class BulkHistoryScope(ListPollScope):
    """
    Poll the instances of one tool in one project or company.

    One request reads the histories of many items. If Procore does not have this route, the scope lists the active
    instances, and polls individually those that left the list, those whose ``updated_at`` changed, and a few that were
    polled longest ago, because Procore does not document when ``updated_at`` changes.

    :param wait: One of the waits, all of which have the same connection, tool and project.
    """

    page_size = PAGE_SIZE
    unchanged_polls = REREAD_INSTANCES

    def __init__(self, wait: Any):
        super().__init__(wait.procore_conn_id)
        self._company_id = wait.company_id
        self._place = (str(wait.tool_type), str(wait.project_id))
        self._tool_subtype = wait.tool_subtype
        self._bulk = BulkHistoryReader()
        self._no_bulk_until = float("-inf")

    @property
    def key(self) -> tuple[Hashable, ...]:
        tool_type, project_id = self._place
        return ("procore", self.conn_id, self._company_id, project_id, tool_type, self._tool_subtype)

    @property
    def hook_key(self) -> Hashable:
        return ("procore", self._company_id)

    def open_hook(self) -> ProcoreHook:
        return open_procore_hook(self.conn_id, self._company_id)

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        if time.monotonic() > self._no_bulk_until:
            try:
                await self._read_in_bulk(reader, subscribers)
                return
            except BulkHistoryUnavailable as missing:
                log.warning(
                    "%s For an hour the poll lists active instances, and reads each one that has changed individually.",
                    missing,
                )
                self._no_bulk_until = time.monotonic() + FALLBACK_SECONDS
                self._bulk = BulkHistoryReader()
        await super().read(reader, [wait for wait in subscribers if wait in reader.left])

    async def _read_in_bulk(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        waits_of: dict[str, list[Any]] = {}
        for wait in subscribers:
            waits_of.setdefault(str(wait.item_id), []).append(wait)

        def outcomes_of(hook: ProcoreHook, item_id: str, histories: list[Any]) -> list[tuple[Any, Any, Any]]:
            return [self._evaluate(hook, wait, histories) for wait in waits_of[item_id]]

        rejected = self._bulk.start(*self._place, waits_of)
        await self._deliver(reader, waits_of, rejected)
        while not self._bulk.is_finished:
            found = await reader.call(lambda hook: self._bulk.read_next(hook, partial(outcomes_of, hook)))
            fault = next((result for result in found.values() if isinstance(result, TRANSIENT_ERRORS)), None)
            if fault is None:
                await self._deliver(reader, waits_of, found)
                continue
            waits = [wait for item_id in found for wait in waits_of[item_id]]
            to_poll = waits if len(found) == 1 else waits[:1]
            reader.deliver_all((wait, fault) for wait in waits[len(to_poll) :])
            outcomes = [await reader.poll_one(wait) for wait in to_poll]
            self._bulk.compare_with_single(fault, is_read=not isinstance(outcomes[-1], TRANSIENT_ERRORS))

    async def _deliver(self, reader: Reader, waits_of: Mapping[str, list[Any]], found: Mapping[str, Any]) -> None:
        """Deliver the outcomes that the histories decide; poll the other waits individually."""
        to_poll: list[tuple[Any, Any]] = []
        for item_id, results in found.items():
            if isinstance(results, WorkflowsError):
                to_poll += [(wait, None) for wait in waits_of[item_id]]
                continue
            for wait, outcome, mark in results:
                if outcome is not AMBIGUOUS:
                    reader.deliver(wait, outcome)
                elif mark is not None and wait.mark == mark and wait.overdue() is None:
                    reader.deliver(wait, None)  # unchanged since it was polled individually
                else:
                    to_poll.append((wait, mark))
        for wait, mark in to_poll:
            outcome = await reader.poll_one(wait)
            if not isinstance(outcome, WorkflowsError):
                wait.mark = mark

    def _evaluate(self, hook: ProcoreHook, wait: Any, histories: list[Any]) -> tuple[Any, Any, Any]:
        """Return the wait, its outcome, and a mark of the histories if they are ambiguous."""
        wait.use_hook(hook)
        try:
            with documented_form():
                outcome = wait.evaluate_histories(histories)
        except AmbiguousHistory as ambiguous:
            return wait, AMBIGUOUS, None if ambiguous.is_missing else hash(repr(histories))
        except WorkflowsError as error:
            return wait, error, None
        if wait.pending_step is not None:
            self.record_step(wait.pending_step.since)
        return wait, outcome, None

    def rows(self, hook: ProcoreHook) -> Iterator[dict[str, Any]]:
        tool_type, project_id = self._place
        return hook.list_instances(tool_type, tool_subtype=self._tool_subtype, active=True, project_id=project_id)

    def keys_of(self, row: dict[str, Any]) -> tuple[Hashable, ...]:
        return ("instance", str(row["id"])), ("item", str(row["item_id"]))

    def mark_of(self, row: dict[str, Any]) -> Any:
        return row["id"], row.get("updated_at")

    def updated_at(self, row: dict[str, Any]) -> str:
        return str(row.get("updated_at") or "")


# --- requests for a response --------------------------------------------------------------------------------


class Caller(Protocol):
    """Call functions with a hook: :class:`Reader` in a triggerer, :class:`DirectCaller` on a worker."""

    def call(self, function: Callable[[Any], Result]) -> Awaitable[Result]: ...


class DirectCaller:
    """Call functions with a hook at once, on a worker that shares code with the polls of a triggerer."""

    def __init__(self, hook: Any):
        self._hook = hook

    async def call(self, function: Callable[[Any], Result]) -> Result:
        return function(self._hook)


def run_directly(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that awaits only calls of a :class:`DirectCaller`, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    raise AssertionError("The coroutine awaited more than a DirectCaller.")


@dataclass(frozen=True)
class ResponseQuery:
    """
    Name the user whose response is requested, and the tools and projects to search.

    :param project_ids: Projects, ``company``, or None for the level of each tool.
    :param user: Login, e-mail address or id of the user, or None for the connection's user.
    """

    tool_types: tuple[str, ...]
    project_ids: tuple[str | None, ...]
    tool_subtype: str | None
    user: str | None


@dataclass
class ResponseRequests:
    """
    Read the requests for a user's response, and store which instances the next poll need not read again.

    :param user_id: Id of the user; "" until it is known.
    :param requests: The requests, each with its ``project_id``.
    :param broken: Instances that could not be read, with the error; those tried last come last.
    :param connection: Server, sign-in and company with which they were read.
    """

    user_id: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    broken: dict[str, str | None] = field(default_factory=dict)
    connection: Hashable = None
    _read: dict[str, tuple[str, dict[str, Any] | None]] = field(default_factory=dict)  # row and request, oldest first

    async def read(self, caller: Caller, query: ResponseQuery, *, again: bool = False) -> ResponseRequests:
        """
        Read the current requests: one list for each tool and project, then the new instances of the lists.

        An instance that cannot be read does not affect the others. Instances that could not be read in the last poll
        come last, because after several consecutive server errors the rest is not read.

        :param again: Read only the instances whose row in the list has changed, and a few unchanged ones.
        :return: The requests that were found.
        """
        connection, user_id = await caller.call(partial(self._find_user, query.user))
        if (connection, user_id) != (self.connection, self.user_id):  # what was read is another user's, or elsewhere
            self.connection, self.user_id, self._read, self.broken = connection, user_id, {}, {}
        listed = await _list_instances(caller, query, user_id)
        known = {id_: self._read[id_] for id_ in self._read if again and id_ in listed}
        same = [id_ for id_, (row, _) in known.items() if listed[id_][1] == row and id_ not in self.broken]
        unread = [id_ for id_ in listed if id_ not in same]
        order = {instance_id: number for number, instance_id in enumerate(self.broken)}
        unread.sort(key=lambda instance_id: order.get(instance_id, -1))
        found = ResponseRequests(user_id, connection=connection)
        found._read = {id_: known[id_] for id_ in same}
        left = deque([*unread, *same[:REREAD_INSTANCES]] if again else unread)
        number_read = consecutive = 0
        fault: WorkflowsError | None = None
        while left and consecutive < MAX_CONSECUTIVE_FAULTS:
            instance_id = left.popleft()
            level, row = listed[instance_id]
            found._read.pop(instance_id, None)
            try:
                with documented_form():
                    request = await caller.call(partial(_request, query, user_id, instance_id, level))
            except SignInFailed:
                raise
            except RESOURCE_ERRORS as only_this:
                fault, found.broken[instance_id] = only_this, str(only_this)
                consecutive = consecutive + 1 if isinstance(fault, SERVER_FAULTS) else 0
            else:
                number_read, consecutive = number_read + 1, 0
                found._read[instance_id] = (row, request)
        if fault is not None and consecutive == MAX_CONSECUTIVE_FAULTS and not number_read:
            self.broken = {**_without(self.broken, found.broken), **found.broken}  # tried last, so they come last
            raise fault  # the server is the cause, and not an instance
        untried = {id_: self.broken[id_] for id_ in left if id_ in self.broken and id_ not in found._read}
        found.broken = {**untried, **found.broken}
        requests = {id_: request for id_, (_, request) in found._read.items() if request is not None}
        found.requests = [requests[id_] for id_ in listed if id_ in requests]
        return found

    def _find_user(self, user: str | None, hook: ProcoreHook) -> tuple[Hashable, str]:
        """Return the connection as it is now, and the user's id; search for a user once for each connection."""
        connection = (hook.account, hook.company_id)
        is_known = user is not None and connection == self.connection
        return connection, self.user_id if is_known else find_user_id(user, hook)


def _without(broken: Mapping[str, str | None], others: Mapping[str, str | None]) -> dict[str, str | None]:
    return {instance_id: fault for instance_id, fault in broken.items() if instance_id not in others}


def find_user_id(user: str | None, hook: ProcoreHook) -> str:
    """Return the id of a user given by login, e-mail address or id; if none is given, that of the connection's user."""
    return hook.user_id if user is None else hook.find_user_id(user)


def _request(
    query: ResponseQuery, user_id: str, instance_id: str, level: str, hook: ProcoreHook
) -> dict[str, Any] | None:
    """Return an instance's request to the user, or None; checks the tool, too, which a row of the list may omit."""
    instance = hook.get_instance(instance_id, project_id=level)
    request = rules.response_request(instance, user_id)
    is_match = any(
        rules.matches_filters(instance, tool_type=tool_type, tool_subtype=query.tool_subtype)
        for tool_type in query.tool_types
    )
    return {**request, "project_id": level} if request is not None and is_match else None


async def _list_instances(caller: Caller, query: ResponseQuery, user_id: str) -> dict[str, tuple[str, str]]:
    """List the instances that may request the user's response, each once, with its level and its row as text."""
    found: dict[str, tuple[str, str]] = {}
    places: set[tuple[str, str]] = set()
    for project_id, tool_type in product(query.project_ids, query.tool_types):
        level = await caller.call(partial(_level, project_id, tool_type))
        if (tool_type, level) not in places:
            places.add((tool_type, level))
            await _list_place(caller, query, user_id, tool_type, level, found)
    return found


async def _list_place(
    caller: Caller, query: ResponseQuery, user_id: str, tool_type: str, level: str, found: dict[str, tuple[str, str]]
) -> None:
    rows = await caller.call(
        lambda hook: hook.list_instances(
            tool_type,
            tool_subtype=query.tool_subtype,
            assignee_id=user_id,
            active=True,
            project_id=level,
            keep_malformed_rows=True,  # so that they do not hide the others
        )
    )
    is_empty = True

    def add(row: dict[str, Any]) -> None:
        nonlocal is_empty
        is_empty = False
        if is_id(row.get("id")):
            found.setdefault(str(row["id"]), (level, json.dumps(row, sort_keys=True, default=str)))

    while await caller.call(lambda hook: take(rows, add, PAGE_SIZE)) == PAGE_SIZE:
        pass
    if is_empty:
        await caller.call(lambda hook: hook.check_tool(tool_type))


def _level(project_id: str | None, tool_type: str, hook: ProcoreHook) -> str:
    return hook.level_for(project_id, tool_type)


class ResponseRequestsScope(PollScope):
    """
    Poll the requests for one user's response, for all sensors with the same query.

    :param conn_id: Id of the Airflow connection.
    :param company_id: Company, or None for the company of the connection.
    :param query: The user, tools and projects.
    """

    def __init__(self, conn_id: str, company_id: str | None, query: ResponseQuery):
        super().__init__(conn_id)
        self._company_id = company_id
        self._query = query
        self._found = ResponseRequests()

    @property
    def key(self) -> tuple[Hashable, ...]:
        query = self._query
        where = (query.project_ids, query.tool_types, query.tool_subtype, query.user)
        return ("procore", self.conn_id, self._company_id, "response_requests", *where)

    @property
    def hook_key(self) -> Hashable:
        return ("procore", self._company_id)

    def open_hook(self) -> ProcoreHook:
        return open_procore_hook(self.conn_id, self._company_id)

    async def read(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        self._found = await self._found.read(reader, self._query, again=True)
        for subscriber in subscribers:
            try:
                with documented_form():  # an error of one wait must not affect the others
                    outcome = subscriber.outcome_of(self._found)
            except WorkflowsError as error:
                outcome = error
            reader.deliver(subscriber, outcome)
