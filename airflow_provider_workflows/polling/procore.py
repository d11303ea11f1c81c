"""What polls read of Procore's Workflows v2: the instances that are waited for, and the requests for a response."""

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
    AuthenticationError,
    ServerError,
    SignInFailed,
    WorkflowsError,
)
from airflow_provider_workflows.polling.bulk_history import BulkHistoryReader, BulkHistoryUnavailable
from airflow_provider_workflows.polling.list_poll import FALLBACK_SECONDS, ListPollScope
from airflow_provider_workflows.polling.poll import MAX_CONSECUTIVE_FAULTS, PollScope, take
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.payload import documented_form, is_id
from airflow_provider_workflows.rules.procore_timeline import AmbiguousHistory

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.polling.poll import Reader

log = logging.getLogger(__name__)
Result = TypeVar("Result")

PAGE_SIZE = 100  # rows of a list that come with one request
REREAD_INSTANCES = 5  # in each poll, unchanged ones: it is not documented what changes their row
UNCLEAR: Any = object()


def open_procore_hook(conn_id: str, company_id: str | None) -> ProcoreHook:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

    return ProcoreHook(conn_id, company_id=company_id)


# --- instances ----------------------------------------------------------------------------------------------


class BulkHistoryScope(ListPollScope):
    """
    Polls the instances of one tool in one project or company.

    One call reads the histories of many items. Where there is no such call, a list of the active instances shows
    which of them to poll by themselves: those that left the list, those whose ``updated_at`` moved, and a few that were
    not polled for the longest time, for it is not documented when ``updated_at`` moves.

    :param wait: One of the waits: its connection and place are those of all.
    """

    page_size = PAGE_SIZE
    polls_anyway = REREAD_INSTANCES

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
                log.warning("%s So for an hour active ones are listed, and those that changed read singly.", missing)
                self._no_bulk_until = time.monotonic() + FALLBACK_SECONDS
                self._bulk = BulkHistoryReader()
        await super().read(reader, [wait for wait in subscribers if wait in reader.left])

    async def _read_in_bulk(self, reader: Reader, subscribers: Sequence[Any]) -> None:
        of_item: dict[str, list[Any]] = {}
        for wait in subscribers:
            of_item.setdefault(str(wait.item_id), []).append(wait)

        def outcome_of(hook: ProcoreHook, item_id: str, histories: list[Any]) -> list[tuple[Any, Any, Any]]:
            return [self._evaluate(hook, wait, histories) for wait in of_item[item_id]]

        rejected = self._bulk.start(*self._place, of_item)
        await self._deliver(reader, of_item, rejected)
        only_in_bulk = 0  # consecutive calls that failed although the server could answer a single one
        while not self._bulk.is_finished:
            found = await reader.call(lambda hook: self._bulk.read_next(hook, partial(outcome_of, hook)))
            fault = next((shown for shown in found.values() if isinstance(shown, TRANSIENT_ERRORS)), None)
            if fault is None:
                only_in_bulk = 0
                await self._deliver(reader, of_item, found)
                continue
            waits = [wait for item_id in found for wait in of_item[item_id]]
            singly = waits if len(found) == 1 else waits[:1]
            reader.deliver_all((wait, fault) for wait in waits[len(singly) :])
            outcomes = [await reader.poll_single(wait) for wait in singly]
            only_in_bulk = 0 if isinstance(outcomes[-1], TRANSIENT_ERRORS) else only_in_bulk + 1
            if only_in_bulk == MAX_CONSECUTIVE_FAULTS - 1:
                raise BulkHistoryUnavailable(f"A bulk history fails where single ones do not. {fault}")

    async def _deliver(self, reader: Reader, of_item: Mapping[str, list[Any]], found: Mapping[str, Any]) -> None:
        """Deliver what the histories show; poll those waits by themselves of which they do not show enough."""
        unclear: list[tuple[Any, Any]] = []
        for item_id, shown in found.items():
            if isinstance(shown, WorkflowsError):
                unclear += [(wait, None) for wait in of_item[item_id]]
                continue
            for wait, outcome, mark in shown:
                if outcome is not UNCLEAR:
                    reader.deliver(wait, outcome)
                elif mark is not None and wait.mark == mark and wait.overdue() is None:
                    reader.deliver(wait, None)  # nothing has changed since it was polled by itself
                else:
                    unclear.append((wait, mark))
        for wait, mark in unclear:
            outcome = await reader.poll_single(wait)
            if not isinstance(outcome, WorkflowsError):
                wait.mark = mark

    def _evaluate(self, hook: ProcoreHook, wait: Any, histories: list[Any]) -> tuple[Any, Any, Any]:
        """Return the wait, what comes out for it, and a mark of the histories where that is not clear."""
        wait.use_clock_of(hook)
        try:
            with documented_form():
                outcome = wait.evaluate_histories(histories)
        except AmbiguousHistory as unclear:
            return wait, UNCLEAR, None if unclear.is_missing else hash(repr(histories))
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
    """Calls functions with a hook: :class:`Reader` in a triggerer, :class:`DirectCaller` on a worker."""

    def call(self, function: Callable[[Any], Result]) -> Awaitable[Result]: ...


class DirectCaller:
    """Calls functions with a hook at once, for code that is shared with the polls of a triggerer."""

    def __init__(self, hook: Any):
        self._hook = hook

    async def call(self, function: Callable[[Any], Result]) -> Result:
        return function(self._hook)


def run_directly(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that awaits nothing but a :class:`DirectCaller`, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    raise AssertionError("The coroutine waits for something.")


@dataclass(frozen=True)
class ResponseQuery:
    """
    Whose responses are requested where.

    :param project_ids: Projects, ``company``, or None for where each tool is.
    :param user: Login, e-mail address or id of the user, or None for the connection's user.
    """

    tool_types: tuple[str, ...]
    project_ids: tuple[str | None, ...]
    tool_subtype: str | None
    user: str | None


@dataclass
class ResponseRequests:
    """
    Requests for a response as one poll found them, and what the next poll needs not read again.

    :param user_id: Id of the user; "" until it is known.
    :param requests: The requests, each with its ``project_id``.
    :param broken: Instances that could not be read, and why; those that were tried last come last.
    """

    user_id: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    broken: dict[str, str | None] = field(default_factory=dict)
    _read: dict[str, tuple[str, dict[str, Any] | None]] = field(default_factory=dict)  # row and request, oldest first

    async def read(self, caller: Caller, query: ResponseQuery, *, again: bool = False) -> ResponseRequests:
        """
        Read the requests that there are now: one list for each tool and place, and the instances that are new there.

        An instance that cannot be read concerns only itself. Those that could not be read the last time come last, for
        several consecutive ones look like a server in trouble, which is not asked about the rest.

        :param again: Read only those instances again whose row in the list has changed, and a few others.
        """
        user_id = self.user_id
        if not user_id:
            user_id = await caller.call(partial(find_user_id, query.user))
        listed = await _list_instances(caller, query, user_id)
        known = {one: self._read[one] for one in self._read if again and one in listed}
        same = [one for one, (row, _) in known.items() if listed[one][1] == row and one not in self.broken]
        unread = [one for one in listed if one not in same]
        order = {instance_id: number for number, instance_id in enumerate(self.broken)}
        unread.sort(key=lambda one: order.get(one, -1))
        found = ResponseRequests(user_id)
        found._read = {one: known[one] for one in same}
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
                is_server = isinstance(fault, (AuthenticationError, ServerError))
                consecutive = consecutive + 1 if is_server else 0
            else:
                number_read, consecutive = number_read + 1, 0
                found._read[instance_id] = (row, request)
        if fault is not None and consecutive == MAX_CONSECUTIVE_FAULTS and not number_read:
            self.broken = {**_without(self.broken, found.broken), **found.broken}  # which come last the next time
            raise fault  # so it is the server, and none of them
        untried = {one: self.broken[one] for one in left if one in self.broken and one not in found._read}
        found.broken = {**untried, **found.broken}
        requests = {one: request for one, (_, request) in found._read.items() if request is not None}
        found.requests = [requests[one] for one in listed if one in requests]
        return found


def _without(broken: Mapping[str, str | None], others: Mapping[str, str | None]) -> dict[str, str | None]:
    return {instance_id: fault for instance_id, fault in broken.items() if instance_id not in others}


def find_user_id(user: str | None, hook: ProcoreHook) -> str:
    """Return the id of a user who is given by login, e-mail address or id; of the connection's user by default."""
    return hook.user_id if user is None else hook.find_user_id(user)


def _request(
    query: ResponseQuery, user_id: str, instance_id: str, level: str, hook: ProcoreHook
) -> dict[str, Any] | None:
    """Return what an instance asks of the user, if it is of one of the tools: a row need not name its own."""
    instance = hook.get_instance(instance_id, project_id=level)
    request = rules.response_request(instance, user_id)
    is_response_requested_from = any(
        rules.is_response_requested_from(instance, tool_type=tool_type, tool_subtype=query.tool_subtype)
        for tool_type in query.tool_types
    )
    return {**request, "project_id": level} if request is not None and is_response_requested_from else None


async def _list_instances(caller: Caller, query: ResponseQuery, user_id: str) -> dict[str, tuple[str, str]]:
    """List the instances that may wait for the user, each once, with its level and its row as text."""
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
            keep_malformed_rows=True,  # which concern only themselves
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
    Polls the requests for a response of one user, for all that wait for the same ones.

    :param conn_id: Id of the Airflow connection.
    :param company_id: Company, or None for the connection's.
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
                with documented_form():  # what one wait fails at concerns only itself
                    outcome = subscriber.outcome_of(self._found)
            except WorkflowsError as error:
                outcome = error
            reader.deliver(subscriber, outcome)
