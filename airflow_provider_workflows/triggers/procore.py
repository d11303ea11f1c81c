"""Wait triggers for Procore's Workflows v2 API: instances, requests for a response, operations, bulk replacements."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_workflows.exceptions import NotFound
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_operations as operations
from airflow_provider_workflows.rules import procore_replacements as replacements
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.rules.procore_decisions import AmbiguousHistory
from airflow_provider_workflows.rules.wait_result import WaitAction, WaitResult
from airflow_provider_workflows.triggers.base import WaitTrigger
from airflow_provider_workflows.triggers.cancellation import terminate_if_killed

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.polling.poll import PollScope
    from airflow_provider_workflows.polling.procore import ResponseQuery, ResponseRequests
    from airflow_provider_workflows.rules.overdue import OverdueStep
    from airflow_provider_workflows.rules.procore_decisions import Timeline

MAX_REQUESTS = 200  # in one event, which Airflow logs and stores; the others stay open in Procore
MAX_NAMED = 20  # requests in a log line


class ProcoreConnectionWaitTrigger(WaitTrigger):
    """
    Wait over a Procore connection, for either of Procore's two workflow APIs.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in, or None for the company of the connection.
    :param poll_interval: Seconds between two polls.
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
    """Wait for Procore's Workflows v2 API."""

    def open_hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id)


class ProcoreInstanceWaitTrigger(ProcoreWaitTrigger):
    """
    Wait until an instance is in one of the given states, or has reached or completed one of the given steps.

    :param project_id: Project to search, ``company``, or None for the level of the tool.
    :param instance_id: The instance; or None to follow the item's newest instance, through restarts.
    :param tool_type: Tool of the item, if the wait is by item.
    :param tool_subtype: Subtype of the tool, or None.
    :param item_id: The item, if the wait is by item; otherwise set when it is known.
    :param until: States that end the wait with success.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param step_reached: Steps whose start ends the wait with success: names or uuids.
    :param step_decided: Steps whose response or override ends the wait with success: names or uuids.
    :param after: A step occurrence or an ISO-8601 time: earlier occurrences of the steps do not count; or None.
    :param terminate_on_kill: Terminate the instance when a user kills the task (Airflow 3.3+).
    """

    own: ClassVar[tuple[str, ...]] = (
        "project_id",
        "instance_id",
        "tool_type",
        "tool_subtype",
        "item_id",
        "until",
        "fail_on",
        "skip_on",
        "step_reached",
        "step_decided",
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
        step_decided: Collection[str] = (),
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
        self.step_decided = list(step_decided)
        self.after = after
        self.terminate_on_kill = terminate_on_kill
        self.mark: Any = None  # version of the instance as of the last poll
        self.polled_at = 0.0
        self._evaluated: int | None = None  # hash of the histories that ended nothing at the last poll

    def scope(self) -> PollScope:
        if self.tool_type is None or self.item_id is None or self.project_id is None:
            return super().scope()
        from airflow_provider_workflows.polling.procore import BulkHistoryScope

        return BulkHistoryScope(self)

    @property
    def list_key(self) -> tuple[str, str | None]:
        return ("item", self.item_id) if self.instance_id is None else ("instance", self.instance_id)

    def snapshot(self, hook: ProcoreHook) -> tuple[dict[str, Any], dict[str, Any] | None]:
        self._evaluated = None
        # Looked up once: these are arguments of the trigger, so the triggerer gets them, too.
        self.project_id = hook.level_for(self.project_id, self.tool_type)
        instance_id = self.instance_id or self._newest_of_item(hook)
        if self.item_id is None:  # the history does not name the item
            instance = hook.get_instance(instance_id, project_id=self.project_id)
            self.item_id, self.tool_type = str_id(instance.get("item_id")), str_id(instance.get("tool_type"))
            self.tool_subtype = str_id(instance.get("tool_subtype"))
        return self._snapshot(hook.get_instance_history(instance_id, project_id=self.project_id), instance_id)

    def evaluate_histories(self, histories: list[Any]) -> WaitResult | OverdueStep | None:
        """
        Derive the outcome from the histories of all instances of the item.

        :param histories: The histories, the newest first.
        :raises AmbiguousHistory: the histories do not show which of them is the instance's.
        """
        version = hash(repr(histories))  # takes a tenth of the time of an evaluation
        if version == self._evaluated:
            self.last_fault = ""
            return self.overdue()
        self._evaluated = None
        instance_id, history = self._own_history(histories)
        outcome = self.outcome_of(self._snapshot(history, instance_id))
        self._evaluated = version if outcome is None else None
        return outcome

    def _snapshot(self, history: dict[str, Any], instance_id: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        timeline = rules.timeline_of(history)
        instance = rules.describe_instance(timeline, instance_id=instance_id, item_id=self.item_id)
        self.pending_step = rules.pending_step_of(timeline)
        self.workflow = name_of(timeline.history.get("name"))
        return {**instance, "project_id": self.project_id}, self._occurrence(timeline)

    def _own_history(self, histories: list[Any]) -> tuple[str, dict[str, Any]]:
        named = {str(history["instance_id"]): history for history in histories if history.get("instance_id")}
        desired = self.instance_id
        if desired is not None and len(histories) == 1 and not named:
            return desired, histories[0]
        if len(named) < len(histories):
            raise AmbiguousHistory(False)
        if desired is None and named:
            desired = rules.newest_instance(
                {**rules.describe_instance(history, instance_id=instance_id, item_id=None), "id": instance_id}
                for instance_id, history in named.items()
            )
        if desired is None or desired not in named:  # an individual poll shows whether it is gone
            raise AmbiguousHistory(True)
        return desired, named[desired]

    def evaluate(self, snapshot: tuple[dict[str, Any], dict[str, Any] | None]) -> WaitResult | None:
        instance, occurrence = snapshot
        return rules.evaluate_instance(
            instance,
            until=self.until,
            fail_on=self.fail_on,
            skip_on=self.skip_on,
            occurrence=occurrence,
            awaited=self._awaited_steps(),
        )

    def describe(self, snapshot: tuple[dict[str, Any], dict[str, Any] | None]) -> str:
        instance, _ = snapshot
        tool = "" if self.tool_type is None else f" ({self.tool_type})"
        step = (
            "" if self.pending_step is None else f" at step {self.pending_step.step!r} {self.pending_step.describe()}"
        )
        return (
            f"Instance {instance['instance_id']} of item {instance['item_id']}{tool} is {instance['state']}"
            f"{step}; waiting for: {self.subject}."
        )

    @property
    def subject(self) -> str:
        return ", ".join([*self.until, *self._awaited_steps()])

    @property
    def requested_item(self) -> dict[str, str | None]:
        return {name: getattr(self, name) for name in ("instance_id", "item_id", "tool_type", "project_id")}

    def item_of(self, snapshot: tuple[dict[str, Any], dict[str, Any] | None]) -> dict[str, str | None]:
        return {**self.requested_item, "instance_id": snapshot[0]["instance_id"]}

    async def on_kill(self) -> None:
        if self.terminate_on_kill and self.instance_id is not None:
            await terminate_if_killed(
                self.open_hook(),
                self.instance_id,
                project_id=self.project_id,
                deadline=self.deadline,
                task_instance=self.task_instance,
            )

    def _occurrence(self, history: Timeline) -> dict[str, Any] | None:
        awaited = [(step, False) for step in self.step_reached] + [(step, True) for step in self.step_decided]
        occurrences = (
            rules.find_occurrence(history, step, decided=decided, after=self.after) for step, decided in awaited
        )
        return next((occurrence for occurrence in occurrences if occurrence is not None), None)

    def _awaited_steps(self) -> list[str]:
        reached = [f"step {step!r} reached" for step in self.step_reached]
        return reached + [f"step {step!r} decided" for step in self.step_decided]

    def _newest_of_item(self, hook: ProcoreHook) -> str:
        tool_type, item_id = str(self.tool_type), str(self.item_id)
        running = hook.list_instances(
            tool_type, item_id=item_id, tool_subtype=self.tool_subtype, active=True, project_id=self.project_id
        )
        # The running one is the newest. If none is running, it may have just ended, so all instances are listed.
        return rules.active_instance(running) or rules.newest_instance(
            hook.list_item_instances(tool_type, item_id, self.project_id, tool_subtype=self.tool_subtype)
        )


class ProcoreResponseRequestedWaitTrigger(ProcoreWaitTrigger):
    """
    Wait until an instance requests the response of a user.

    :param tool_types: Tools to search.
    :param project_ids: Projects to search; ``[None]`` for the level of each tool.
    :param user: Login, e-mail address or id of the user, or None for the connection's user.
    :param tool_subtype: Subtype of the tools, or None.
    """

    own = ("tool_types", "project_ids", "user", "tool_subtype")

    def __init__(
        self,
        *,
        tool_types: list[str],
        project_ids: list[str | None],
        user: str | None,
        tool_subtype: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_types = tool_types
        self.project_ids = project_ids
        self.user = user
        self.tool_subtype = tool_subtype
        self.found: ResponseRequests | None = None
        self._logged_broken: set[str] = set()

    def continue_from(self, other: ProcoreResponseRequestedWaitTrigger) -> None:
        """Continue with what an earlier poke of the same sensor has found and logged."""
        self.found, self._logged_broken = other.found, other._logged_broken

    def scope(self) -> PollScope:
        from airflow_provider_workflows.polling.procore import ResponseRequestsScope

        return ResponseRequestsScope(self.procore_conn_id, self.company_id, self._query)

    @property
    def _query(self) -> ResponseQuery:
        from airflow_provider_workflows.polling.procore import ResponseQuery

        return ResponseQuery(tuple(self.tool_types), tuple(self.project_ids), self.tool_subtype, self.user)

    def snapshot(self, hook: ProcoreHook) -> ResponseRequests:
        from airflow_provider_workflows.polling.procore import DirectCaller, ResponseRequests, run_directly

        self.found = self.found or ResponseRequests()
        return run_directly(self.found.read(DirectCaller(hook), self._query))

    def outcome_of(self, snapshot: ResponseRequests) -> WaitResult | OverdueStep | None:
        self.found = snapshot
        return super().outcome_of(snapshot)

    def poll_once(self, hook: ProcoreHook) -> tuple[Any, WaitResult | OverdueStep | None]:
        polled = super().poll_once(hook)
        self._log_broken()
        return polled

    def deliver(self, outcome: Any) -> None:
        self._log_broken()
        super().deliver(outcome)

    def _log_broken(self) -> None:
        """Log once for each instance that it cannot be read, and once that it works again."""
        broken = {} if self.found is None else self.found.broken
        for instance_id in broken.keys() - self._logged_broken:
            self.log.warning(
                "Polling instance %s failed, will retry; the wait continues without it: %s",
                instance_id,
                broken[instance_id],
            )
        for instance_id in self._logged_broken - broken.keys():
            self.log.info("Polling instance %s works again.", instance_id)
        self._logged_broken = set(broken)

    def evaluate(self, snapshot: ResponseRequests) -> WaitResult | None:
        found = snapshot.requests[:MAX_REQUESTS]
        if not found:
            return None
        more = f" and {len(snapshot.requests) - len(found)} more" if len(snapshot.requests) > len(found) else ""
        reason = f"{len(found)} instance(s){more} wait for a response of user {snapshot.user_id}."
        return WaitResult("succeed", found, reason)

    def describe(self, snapshot: ResponseRequests) -> str:
        names = [f"{request['instance_id']} at {request['step']!r}" for request in snapshot.requests[:MAX_NAMED]]
        more = len(snapshot.requests) - len(names)
        waiting = ", ".join([*names, *([f"{more} more"] if more else [])]) or "none"
        line = f"Instances of {', '.join(self.tool_types)} that wait for user {snapshot.user_id}: {waiting}."
        return f"{line} Could not be read: {', '.join(snapshot.broken)}." if snapshot.broken else line

    @property
    def subject(self) -> str:
        return "response of " + ("the connection's user" if self.user is None else self.user)

    @property
    def current_error(self) -> str:
        broken = {} if self.found is None else self.found.broken
        return super().current_error or "; ".join(f"Instance {name}: {fault}" for name, fault in broken.items())


class ProcoreBackgroundWaitTrigger(ProcoreWaitTrigger):
    """
    Wait for a background job of Procore, which Procore may show only some time after it has accepted the request.

    Therefore a 404 fails the wait no earlier than any other rejection, not even at the first poke.
    """

    def poll_once(self, hook: ProcoreHook) -> tuple[Any, WaitResult | OverdueStep | None]:
        try:
            return super().poll_once(hook)
        except NotFound as not_shown_yet:
            not_shown_yet.is_documented = False
            raise


class ProcoreAsyncOperationWaitTrigger(ProcoreBackgroundWaitTrigger):
    """
    Wait until all given asynchronous operations have ended.

    The event has the operations and their final states, but not their items, of which there may be thousands.

    :param operation_ids: The operations.
    :param until: Final states of an operation that are a success.
    :param skip_on: Final states that skip the task.
    """

    own = ("operation_ids", "until", "skip_on")

    def __init__(
        self,
        *,
        operation_ids: list[str],
        until: Collection[str] = tuple(sorted(operations.ENDED_OPERATIONS)),
        skip_on: Collection[str] = (),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.operation_ids = operation_ids
        self.until = list(until)
        self.skip_on = list(skip_on)
        self._ended: dict[str, dict[str, Any]] = {}

    def snapshot(self, hook: ProcoreHook) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []
        for operation_id in self.operation_ids:
            operation = self._ended.get(operation_id)
            if operation is None:
                response = hook.get_async_operation(operation_id)
                operation = {**operations.describe_operation(response), "operation_id": operation_id}
                if operations.operation_ended(response):
                    self._ended[operation_id] = operation  # it is not read again
            shown.append(operation)
        return shown

    def evaluate(self, snapshot: list[dict[str, Any]]) -> WaitResult | None:
        if not all(operation_id in self._ended for operation_id in self.operation_ids):
            return None
        states = {str(operation["status"]) for operation in snapshot}
        action: WaitAction = (
            "skip" if states & set(self.skip_on) else "succeed" if states <= set(self.until) else "fail"
        )
        return WaitResult(action, {"operations": snapshot}, self.describe(snapshot))

    def describe(self, snapshot: list[dict[str, Any]]) -> str:
        return "; ".join(_describe_operation(operation) for operation in snapshot)

    @property
    def subject(self) -> str:
        return f"end of operation {', '.join(self.operation_ids[:MAX_NAMED])}"


class ProcoreBulkReplaceWaitTrigger(ProcoreBackgroundWaitTrigger):
    """
    Wait until Procore has processed a request to replace an assignee.

    :param request_id: The request.
    :param first_day: First day of a temporary replacement, ``YYYY-MM-DD``; None for a permanent one.
    """

    own = ("request_id", "first_day")

    def __init__(self, *, request_id: str, first_day: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.request_id = request_id
        self.first_day = first_day
        self._is_upcoming = False  # the first day is in the future
        self._logged_statuses: set[str] = set()  # undocumented ones

    def snapshot(self, hook: ProcoreHook) -> dict[str, Any]:
        status = replacements.status_of(hook.get_bulk_replace_request(self.request_id))
        today = hook.client.server_time().date().isoformat()
        self._is_upcoming = self.first_day is not None and today < self.first_day
        return {"request_id": self.request_id, "status": status}

    def evaluate(self, snapshot: dict[str, Any]) -> WaitResult | None:
        status = snapshot["status"]
        if status not in replacements.DOCUMENTED and str(status) not in self._logged_statuses:
            self._logged_statuses.add(str(status))
            self.log.warning("%s, which Procore does not document. The wait continues.", self.describe(snapshot))
        action: WaitAction | None = None
        if status in replacements.FAILED or (status == replacements.EXPIRED and self.first_day is None):
            action = "fail"
        elif status in replacements.OVER or status == replacements.ACTIVE:
            action = "succeed"
        elif status == replacements.UPCOMING and self._is_upcoming:
            action = "succeed"  # Procore replaces the assignee on the first day, which may be months ahead
        return None if action is None else WaitResult(action, snapshot, self.describe(snapshot))

    def describe(self, snapshot: dict[str, Any]) -> str:
        return f"The status of request {snapshot['request_id']} to replace an assignee: {snapshot['status']}"

    @property
    def subject(self) -> str:
        return f"end of request {self.request_id} to replace an assignee"


def _describe_operation(operation: dict[str, Any]) -> str:
    error = f" ({operation['error']})" if operation["error"] else ""
    counts = f", {operation['completed']} done, {operation['failed']} failed" if operation["completed_at"] else ""
    return f"Operation {operation['operation_id']} is {operation['status']}{error}{counts}"


def name_of(value: Any) -> str | None:
    """Return the name of a workflow, or None if the response has none."""
    return value if isinstance(value, str) and value else None
