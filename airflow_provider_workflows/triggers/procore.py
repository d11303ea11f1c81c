"""Waits for Procore's Workflows v2 API."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_workflows.exceptions import (
    ApiError,
    ContractError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.forms import documented_form, is_id
from airflow_provider_workflows.rules.parameters import text_id
from airflow_provider_workflows.rules.verdicts import Verdict, Word
from airflow_provider_workflows.triggers.base import PASSING_FAULTS, WaitTrigger
from airflow_provider_workflows.triggers.cancellation import terminate_if_killed

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.rules.holdings import Attention
    from airflow_provider_workflows.triggers.shared_poll import Scope

ITEMS_A_CALL = 50  # of a bulk history; how many it takes is not documented
NO_SUCH_ROUTE = (404, 405)
REFUSALS_KEPT = 3600.0  # seconds until a call with others names an item again that it was refused for
SOME_REFUSED = 10  # items
# What concerns one record only, if others can be read: not the sign-in, the rate limit, or the network.
ONE_RECORD = (ContractError, InvalidRequest, NotFound, PermissionDenied, ServerError)
FAULTS_IN_A_ROW = 3  # of a server: then it may be no matter of single records
ROWS_A_PAGE = 100


class ProcoreConnectionWaitTrigger(WaitTrigger):
    """
    A wait on one Procore connection, to whichever of its two workflow APIs.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in, or None for the connection's.
    :param poll_interval: Seconds between two looks.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    """

    def __init__(self, *, procore_conn_id: str, company_id: str | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.procore_conn_id = procore_conn_id
        self.company_id = company_id

    own: ClassVar[tuple[str, ...]] = ()  # the arguments of the subclass

    def arguments(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("procore_conn_id", "company_id", *self.own)}

    @property
    def connection(self) -> tuple[str | None, ...]:
        return ("procore", self.procore_conn_id, self.company_id)


class ProcoreWaitTrigger(ProcoreConnectionWaitTrigger):
    """A wait on Procore's Workflows v2 API."""

    def open_hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id)


class ProcoreInstanceWaitTrigger(ProcoreWaitTrigger):
    """
    Waits until an instance is in one of the given states, or has come to one of the given steps.

    :param project_id: Project to look in, ``company``, or None for where the tool is.
    :param instance_id: The instance; or None to follow the item's newest one, through restarts.
    :param tool_type: Tool of the item, when waiting by item.
    :param tool_subtype: Subtype of the tool, or None.
    :param item_id: The item, when waiting by item; else what is known of it.
    :param until: States that end the wait with success.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param step_reached: Steps whose beginning ends the wait with success: names or uuids.
    :param step_answered: Steps whose response does.
    :param after: A step occurrence or an ISO-8601 time: earlier visits of the steps do not count; or None.
    :param terminate_on_kill: Terminate the instance when a user kills the task (Airflow 3.3+).
    """

    own = (
        "project_id",
        "instance_id",
        "tool_type",
        "tool_subtype",
        "item_id",
        "until",
        "fail_on",
        "skip_on",
        "step_reached",
        "step_answered",
        "after",
        "terminate_on_kill",
    )

    def __init__(
        self,
        *,
        project_id: str | None,
        instance_id: str | None,
        tool_type: str | None = None,
        tool_subtype: str | None = None,
        item_id: str | None = None,
        until: Collection[str] = tuple(sorted(rules.ENDED_STATES)),
        fail_on: Collection[str] = (),
        skip_on: Collection[str] = (),
        step_reached: Collection[str] = (),
        step_answered: Collection[str] = (),
        after: str | None = None,
        terminate_on_kill: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.instance_id = instance_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_id = item_id
        self.until = list(until)
        self.fail_on = list(fail_on)
        self.skip_on = list(skip_on)
        self.step_reached = list(step_reached)
        self.step_answered = list(step_answered)
        self.after = after
        self.terminate_on_kill = terminate_on_kill
        self.mark: Any = None  # of what a poll has seen of it
        self.looked_at = 0.0

    def scope(self) -> Scope:
        from airflow_provider_workflows.triggers.procore_scopes import ItemsScope

        if self.tool_type is None or self.item_id is None or self.project_id is None:
            return super().scope()
        return ItemsScope(self)

    @property
    def sweep_key(self) -> tuple[str, str | None]:
        return ("item", self.item_id) if self.instance_id is None else ("instance", self.instance_id)

    def snapshot(self, hook: ProcoreHook) -> tuple[dict[str, Any], dict[str, Any] | None]:
        # These are asked for once: what is found here travels to the triggerer.
        self.project_id = hook.level_for(self.project_id, self.tool_type)
        instance_id = self.instance_id or self._newest_of_item(hook)
        if self.item_id is None:  # the history does not name the item
            shown = hook.get_instance(instance_id, project_id=self.project_id)
            self.item_id, self.tool_type = str(shown.get("item_id")), text_id(shown.get("tool_type"))
            self.tool_subtype = text_id(shown.get("tool_subtype"))
        return self._snapshot(hook.get_instance_history(instance_id, project_id=self.project_id), instance_id)

    def judge_histories(self, histories: list[Any]) -> Verdict | Attention | None:
        """
        Decide by the histories of all instances of the item, the newest first.

        :raises Unclear: they do not say which of them is whose.
        """
        instance_id, history = self._own_history(histories)
        return self.judge(self._snapshot(history, instance_id))

    def _snapshot(self, history: dict[str, Any], instance_id: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        instance = rules.describe_instance(history, instance_id=instance_id, item_id=self.item_id)
        self.holding = rules.holding_of(history)
        return {**instance, "project_id": self.project_id}, self._visit(history)

    def _own_history(self, histories: list[Any]) -> tuple[str, dict[str, Any]]:
        named = {str(history["instance_id"]): history for history in histories if history.get("instance_id")}
        wanted = self.instance_id
        if wanted is not None and len(histories) == 1 and not named:
            return wanted, histories[0]
        if len(named) < len(histories):
            raise Unclear(False)
        if wanted is None and named:
            wanted = rules.newest_instance(
                {**rules.describe_instance(history, instance_id=one, item_id=None), "id": one}
                for one, history in named.items()
            )
        if wanted is None or wanted not in named:  # its own look says whether it is gone
            raise Unclear(True)
        return wanted, named[wanted]

    def decide(self, snapshot: tuple[dict[str, Any], dict[str, Any] | None]) -> Verdict | None:
        instance, visit = snapshot
        return rules.decide_instance(
            instance,
            until=self.until,
            fail_on=self.fail_on,
            skip_on=self.skip_on,
            visit=visit,
            awaited=self._awaited_steps(),
        )

    def describe(self, snapshot: tuple[dict[str, Any], dict[str, Any] | None]) -> str:
        instance, _ = snapshot
        tool = "" if self.tool_type is None else f" ({self.tool_type})"
        step = "" if self.holding is None else f" at step {self.holding.step!r} {self.holding.told()}"
        return (
            f"Instance {instance['instance_id']} of item {instance['item_id']}{tool} is {instance['state']}"
            f"{step}; waited for: {', '.join([*self.until, *self._awaited_steps()])}."
        )

    def item_of(self, snapshot: tuple[dict[str, Any], dict[str, Any] | None]) -> dict[str, Any]:
        return {**snapshot[0], "tool_type": self.tool_type}

    async def on_kill(self) -> None:
        if self.terminate_on_kill and self.instance_id is not None:
            await terminate_if_killed(
                self.open_hook(),
                self.instance_id,
                project_id=self.project_id,
                deadline=self.deadline,
                task_instance=self.task_instance,
            )

    def _visit(self, history: dict[str, Any]) -> dict[str, Any] | None:
        wishes = [(step, False) for step in self.step_reached] + [(step, True) for step in self.step_answered]
        visits = (rules.find_visit(history, step, answered=answered, after=self.after) for step, answered in wishes)
        return next((visit for visit in visits if visit is not None), None)

    def _awaited_steps(self) -> list[str]:
        reached = [f"step {step!r} reached" for step in self.step_reached]
        return reached + [f"step {step!r} answered" for step in self.step_answered]

    def _newest_of_item(self, hook: ProcoreHook) -> str:
        tool_type, item_id = str(self.tool_type), str(self.item_id)
        running = hook.list_instances(
            tool_type, item_id=item_id, tool_subtype=self.tool_subtype, active=True, project_id=self.project_id
        )
        # The one that runs is the newest. Where none does, it has just ended perhaps, so all of them are asked for.
        return rules.active_instance(running) or rules.newest_instance(
            hook.list_item_instances(tool_type, item_id, self.project_id, tool_subtype=self.tool_subtype)
        )


class ProcoreResponseRequestedWaitTrigger(ProcoreWaitTrigger):
    """
    Waits until some instance asks for the response of a user.

    :param tool_types: Tools to look in.
    :param project_ids: Projects to look in; ``[None]`` for where the tool is.
    :param user_id: Login or login information id of the user, or None for the connection's own.
    :param tool_subtype: Subtype of the tools, or None.
    """

    own = ("tool_types", "project_ids", "user_id", "tool_subtype")

    def __init__(
        self,
        *,
        tool_types: list[str],
        project_ids: list[str | None],
        user_id: str | None,
        tool_subtype: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_types = tool_types
        self.project_ids = project_ids
        self.user_id = user_id
        self.tool_subtype = tool_subtype
        self.broken: dict[str, str] = {}  # instances that could not be read the last time, and why

    def snapshot(self, hook: ProcoreHook) -> list[dict[str, Any]]:
        reading = self._read(hook, _at_once)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                found: list[dict[str, Any]] = end.value
                return found

    def look_in_steps(self, hook: ProcoreHook) -> Generator[Any, None, Verdict | Attention | None]:
        from airflow_provider_workflows.triggers.shared_poll import patiently

        try:
            return self.judge((yield from self._read(hook, patiently)))
        except WorkflowsError as fault:
            self.last_fault = str(fault)
            raise

    def _read(self, hook: ProcoreHook, call: Callable[..., Any]) -> Generator[Any, None, list[dict[str, Any]]]:
        """
        Read step by step, each with one request as a rule; ``call`` makes a request as a generator.

        An instance that cannot be read concerns only itself. Those that could not be read the last time come last, for
        several in a row look like a server in trouble, which is not asked about the rest.
        """
        if self.user_id is None:
            self.user_id = yield from call(lambda: hook.user_id)
        elif not self.user_id.isdecimal():
            self.user_id = yield from call(hook.find_user_id, self.user_id, parameter="user_id")
        instances = yield from self._listed(hook, call)
        requests: list[dict[str, Any]] = []
        broken: dict[str, str] = {}
        known = [instance_id for instance_id in self.broken if instance_id in instances]
        left = deque([*(instance_id for instance_id in instances if instance_id not in self.broken), *known])
        number_read = consecutive = 0
        fault: WorkflowsError | None = None
        while left and consecutive < FAULTS_IN_A_ROW:
            instance_id = left.popleft()
            try:
                with documented_form():
                    instance = yield from call(hook.get_instance, instance_id, project_id=instances[instance_id])
                    request = rules.response_request(instance, str(self.user_id))
            except ONE_RECORD as only_this:
                fault, broken[instance_id] = only_this, str(only_this)
                consecutive = consecutive + 1 if isinstance(fault, ServerError) else 0
            else:
                number_read, consecutive = number_read + 1, 0
                if request is not None and self._is_asked_for(instance):
                    requests.append({**request, "project_id": instances[instance_id]})
            yield []
        # Those that no call came to go before the others the next time.
        self._note_broken({**{one: self.broken[one] for one in left if one in self.broken}, **broken})
        if fault is not None and consecutive == FAULTS_IN_A_ROW and not number_read:
            raise fault  # so it is the server, and none of them
        return requests

    def _is_asked_for(self, instance: dict[str, Any]) -> bool:
        """Tell whether an instance is of one of the tools: a row of a list need not name its own."""
        return any(
            rules.is_asked_for(instance, tool_type=tool_type, tool_subtype=self.tool_subtype)
            for tool_type in self.tool_types
        )

    def _listed(self, hook: ProcoreHook, call: Callable[..., Any]) -> Generator[Any, None, dict[str, str]]:
        """List the instances that may wait for the user, each once, under however many names of its tool."""
        found: dict[str, str] = {}
        places: set[tuple[str, str]] = set()
        for project_id, tool_type in product(self.project_ids, self.tool_types):
            level = yield from call(hook.level_for, project_id, tool_type)
            if (tool_type, level) in places:
                continue
            places.add((tool_type, level))
            rows = hook.list_instances(
                tool_type, tool_subtype=self.tool_subtype, assignee_id=self.user_id, active=True, project_id=level
            )
            number = 0
            while (row := (yield from call(next, rows, None))) is not None:
                number += 1
                if is_id(row.get("id")):
                    found.setdefault(str(row["id"]), level)
                if number % ROWS_A_PAGE == 0:
                    yield []
            if not number:
                yield from call(hook.check_tool, tool_type)
            yield []
        return found

    def _note_broken(self, broken: dict[str, str]) -> None:
        """Log each instance that cannot be read once, and once that it can be read again."""
        for instance_id in broken.keys() - self.broken.keys():
            self.log.warning("Instance %s is left out, and the wait goes on: %s", instance_id, broken[instance_id])
        for instance_id in self.broken.keys() - broken.keys():
            self.log.info("Instance %s is not left out any more.", instance_id)
        self.broken.clear()
        self.broken.update(broken)

    def decide(self, snapshot: list[dict[str, Any]]) -> Verdict | None:
        if not snapshot:
            return None
        return Verdict("succeed", snapshot, f"{len(snapshot)} instance(s) wait for a response of user {self.user_id}")

    def describe(self, snapshot: list[dict[str, Any]]) -> str:
        waiting = ", ".join(f"{r['instance_id']} at {r['step']!r}" for r in snapshot) or "none"
        told = f"Instances of {', '.join(self.tool_types)} that wait for user {self.user_id}: {waiting}."
        return f"{told} Could not be read: {', '.join(self.broken)}." if self.broken else told


class ProcoreAsyncOperationWaitTrigger(ProcoreWaitTrigger):
    """
    Waits until all of some asynchronous operations are over.

    The event names the operations and how they ended, not the items: there may be thousands.

    :param operation_ids: The operations.
    :param until: States of an operation that are a success.
    :param skip_on: States that skip the task.
    """

    own = ("operation_ids", "until", "skip_on")

    def __init__(
        self,
        *,
        operation_ids: list[str],
        until: Collection[str] = tuple(sorted(rules.ENDED_OPERATIONS)),
        skip_on: Collection[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.operation_ids = operation_ids
        self.until = list(until)
        self.skip_on = list(skip_on)
        self._ended: dict[str, dict[str, Any]] = {}

    def snapshot(self, hook: ProcoreHook) -> list[dict[str, Any]]:
        shown = []
        for operation_id in self.operation_ids:
            operation = self._ended.get(operation_id)
            if operation is None:
                answer = hook.get_async_operation(operation_id)
                operation = {**rules.describe_operation(answer), "operation_id": operation_id}
                if rules.operation_ended(answer):
                    self._ended[operation_id] = operation  # it is not asked for again
            shown.append(operation)
        return shown

    def decide(self, snapshot: list[dict[str, Any]]) -> Verdict | None:
        if not all(operation_id in self._ended for operation_id in self.operation_ids):
            return None
        states = {str(operation["status"]) for operation in snapshot}
        word: Word = "skip" if states & set(self.skip_on) else "succeed" if states <= set(self.until) else "fail"
        told = "; ".join(_told(operation) for operation in snapshot)
        return Verdict(word, {"operations": snapshot}, told)

    def describe(self, snapshot: list[dict[str, Any]]) -> str:
        return "; ".join(_told(operation) for operation in snapshot)


class ProcoreBulkReplaceWaitTrigger(ProcoreWaitTrigger):
    """
    Waits until Procore has worked on a request to replace an assignee.

    :param request_id: The request.
    """

    own = ("request_id",)

    def __init__(self, *, request_id: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.request_id = request_id

    def snapshot(self, hook: ProcoreHook) -> dict[str, Any]:
        return {"request_id": self.request_id, "status": hook.get_bulk_replace_request(self.request_id).get("status")}

    def decide(self, snapshot: dict[str, Any]) -> Verdict | None:
        if snapshot["status"] in (None, "processing"):
            return None
        word: Word = "fail" if snapshot["status"] in ("failed", "stopped", "expired") else "succeed"
        return Verdict(word, snapshot, self.describe(snapshot))

    def describe(self, snapshot: dict[str, Any]) -> str:
        return f"The status of request {snapshot['request_id']} to replace an assignee: {snapshot['status']}"


def _told(operation: dict[str, Any]) -> str:
    error = f" ({operation['error']})" if operation["error"] else ""
    counts = f", {operation['completed']} done, {operation['failed']} failed" if operation["completed_at"] else ""
    return f"Operation {operation['operation_id']} is {operation['status']}{error}{counts}"


def _at_once(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Generator[Any, None, Any]:
    """Make a call on a worker, where the client does the waiting."""
    return call(*args, **kwargs)
    yield


# --- the histories of many items ----------------------------------------------------------------------------


class Unclear(Exception):
    """
    The histories of an item do not say which of them is the one that is waited for.

    :param is_missing: It is none of them, as far as they say.
    """

    def __init__(self, is_missing: bool):
        super().__init__(is_missing)
        self.is_missing = is_missing


class NoBulkHistory(Exception):
    """This Procore cannot show the histories of several items in one call."""


class ItemHistories:
    """
    Reads the histories of many items with few calls, and remembers from poll to poll what spoils a call.

    :param tool_type: Tool of the items.
    :param level: Project of the tool, or ``company``.
    """

    def __init__(self, tool_type: str, level: str):
        self.tool_type = tool_type
        self.level = level
        self._size = ITEMS_A_CALL
        self._refused: dict[str, WorkflowsError] = {}  # items that no call with others may name
        self._forget_at = time.monotonic() + REFUSALS_KEPT
        self._wary: dict[str, int] = {}  # items of a call that failed: how many of them may go together
        self._answered = False
        self._not_found = 0
        self._is_down = False  # the last time no call was answered

    def read(
        self, hook: ProcoreHook, item_ids: Collection[str], *, each: Callable[[str, Any], Any] | None = None
    ) -> Iterator[dict[str, Any] | RateLimited]:
        """
        Read item by item, with one call in each step.

        :param each: Makes of an item and its histories what is returned instead of them; so that they need not be
            kept, for thousands of objects make the garbage collector stop a triggerer.
        :return: Of each item the histories of its instances, the newest first; or the error that concerns it. A step
            may be a :class:`RateLimited` instead: then the next one makes the same call again.
        :raises NoBulkHistory: there is no such route, or it refuses most items.
        """
        if time.monotonic() > self._forget_at:
            self._refused.clear()
            self._forget_at = time.monotonic() + REFUSALS_KEPT
        refused = {item_id: self._refused[item_id] for item_id in item_ids if item_id in self._refused}
        if len(refused) > max(SOME_REFUSED, len(item_ids) // 2):
            raise NoBulkHistory(f"A bulk history is refused for most items. {next(iter(refused.values()))}")
        if refused:
            yield refused
        was_down, self._is_down = self._is_down, True
        failed: dict[str, int] = {}
        left = deque(self._batches([item_id for item_id in item_ids if item_id not in refused]))
        while left:
            batch = left.popleft()
            if len(batch) > self._size:
                left.extendleft(reversed(_split(batch, self._size)))
                continue
            try:
                answer = hook.each_bulk_history(self.tool_type, batch, project_id=self.level)
            except RateLimited as fault:
                left.appendleft(batch)
                yield fault
            except (InvalidRequest, NotFound, PermissionDenied) as refusal:
                yield self._spoiled(batch, refusal, left)
            except PASSING_FAULTS as fault:
                # It may be one of them that the server fails at. Fewer go together next time, until one is alone.
                failed |= dict.fromkeys(batch, max(1, len(batch) // 2))
                self._wary |= failed
                yield dict.fromkeys(batch, fault)
            else:
                self._answered = True
                for item_id in batch:
                    self._wary.pop(item_id, None)
                if was_down and self._is_down:  # so it was the server, and none of the items
                    self._wary = failed
                    left = deque(self._batches([item_id for others in left for item_id in others]))
                self._is_down = False
                yield _paired(batch, answer, each)

    def _batches(self, item_ids: list[str]) -> list[list[str]]:
        together: dict[int, list[str]] = {}
        for item_id in item_ids:
            together.setdefault(min(self._size, self._wary.get(item_id, self._size)), []).append(item_id)
        return [batch for size, ids in sorted(together.items(), reverse=True) for batch in _split(ids, size)]

    def _spoiled(self, batch: list[str], refusal: ApiError, left: deque[list[str]]) -> dict[str, Any]:
        half = len(batch) // 2
        if refusal.status_code in NO_SUCH_ROUTE and not self._answered:
            self._not_found += 1
            # A 404 may also be about an item, which the halves would show.
            if refusal.status_code != 404 or not half or self._not_found > 2:
                raise NoBulkHistory(str(refusal))
            left.extend([batch[:half], batch[half:]])
            return {}
        if not half:
            self._refused[batch[0]] = refusal
            if refusal.status_code in (400, 413):
                self._size = ITEMS_A_CALL  # so it was this item and not the number of them
            return {batch[0]: refusal}
        if refusal.status_code in (400, 413):
            self._size = half
        left.extendleft([batch[half:], batch[:half]])
        return {}


def _split(item_ids: list[str], size: int) -> list[list[str]]:
    return [item_ids[start : start + size] for start in range(0, len(item_ids), size)]


def _paired(
    batch: list[str], answer: Iterable[dict[str, Any]], each: Callable[[str, Any], Any] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in answer:
        item_id, histories = str(entry.get("item_id")), entry.get("instances")
        if item_id in batch and isinstance(histories, list):
            found[item_id] = histories if each is None else each(item_id, histories)
    odd = ContractError("The bulk history has no list of histories for it")
    return {item_id: found.get(item_id, odd) for item_id in batch}
