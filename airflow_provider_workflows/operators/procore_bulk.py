"""Operators on many of Procore's workflow instances at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow.providers.common.compat.sdk import conf

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    WorkflowsError,
)
from airflow_provider_workflows.operators.base import Pin, Progress, WaitingOperator, told
from airflow_provider_workflows.operators.procore import ON_ACTIVE_INSTANCE, ProcoreOperator, ProcoreWideOperator
from airflow_provider_workflows.operators.procore_audit import Scope, histories_of
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import (
    as_text,
    check_choice,
    check_given,
    check_required,
    listed,
    text_id,
)
from airflow_provider_workflows.triggers.procore import ProcoreAsyncOperationWaitTrigger
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context


ME = "me"
ON_FAILED_ITEMS = ("fail", "return")
FEW = 20  # items that are looked up one by one


class ProcoreListInstancesOperator(ProcoreWideOperator):
    """
    Lists workflow instances over several tools and projects, for mapped tasks to work on.

    Returns a list of ``{instance_id, item_id, tool_type, project_id, state, step, started_at, ended_at,
    updated_at}``; ``state`` and ``step`` are None unless ``states`` is given, for the list does not have them.
    With ``batch_size`` a list of such lists.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool to look in, or a list of them (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param project_id: Project to look in, ``company``, or a list of them; default: where the tool is (templated).
    :param item_id: Only the instances of this item (templated).
    :param assignee_id: Only those whose current step waits on this user: a login, a login information id, or ``me``
        for the connection's own (templated).
    :param active: Only active instances, or with False only ended ones.
    :param overdue: Only those whose next step is overdue, or with False only the others.
    :param include_internal: Procore's own instances, too.
    :param states: Only instances in these states, such as ``blocked``; their histories are read for it, 50 items a
        call. Those that may not be read are left out, and the log says so.
    :param limit: At most so many rows, the oldest instances first; the rest is left to the next run.
    :param batch_size: Return lists of so many rows, larger ones if there were more of them otherwise than
        ``[core] max_map_length`` lets ``.expand`` have.
    :raises ConfigurationError: no tool, an unknown one, or an unknown state.
    """

    returns_mapping = False
    template_fields: Sequence[str] = (
        *ProcoreOperator.template_fields,
        "tool_type",
        "tool_subtype",
        "item_id",
        "assignee_id",
    )

    def __init__(
        self,
        *,
        tool_type: str | Sequence[str],
        tool_subtype: str | int | None = None,
        project_id: str | int | Sequence[str | int] | None = None,
        item_id: str | int | None = None,
        assignee_id: str | int | None = None,
        active: bool | None = None,
        overdue: bool | None = None,
        include_internal: bool | None = None,
        states: str | Sequence[str] | None = None,
        limit: int | None = None,
        batch_size: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_id = item_id
        self.assignee_id = assignee_id
        self.active = active
        self.overdue = overdue
        self.include_internal = include_internal
        self.states = states
        self.limit = limit
        self.batch_size = batch_size

    def act(self, context: Context) -> list[Any]:
        self._check_parameters()
        found = {row["instance_id"]: row for row in self._rows()}  # once, under however many names it was found
        rows = sorted(found.values(), key=lambda row: (row["started_at"] or "", row["instance_id"]))
        shown = rows[: self.limit]
        if len(shown) < len(rows):
            self.log.info("%d instances were found; the oldest %d are returned.", len(rows), len(shown))
        else:
            self.log.info("%d instances were found.", len(rows))
        return shown if self.batch_size is None else self._batches(shown, self.batch_size)

    def _check_parameters(self) -> None:
        tools = listed(self.tool_type)
        if not tools:
            raise ConfigurationError("tool_type must name a tool or a list of tools.")
        for tool in tools:
            check_required(tool_type=tool)
        check_given(self, "tool_subtype", "item_id", "assignee_id")
        projects = listed(self.project_id)
        if not projects:
            raise ConfigurationError("project_id must name a project or a list of projects.")
        for project in projects:
            if project is not None:
                check_required(project_id=project)
        if unknown := [state for state in self._states() if state not in rules.STATES]:
            raise ConfigurationError(
                f"states: unknown state {', '.join(unknown)}. States: {', '.join(sorted(rules.STATES))}."
            )
        if self.states is not None and not self._states():
            raise ConfigurationError("states is an empty list; leave it out to mean all.")
        for name in ("limit", "batch_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"{name} must be a whole number, 1 or more; got {value!r}.")

    def _states(self) -> list[str]:
        return [] if self.states is None else [str(state) for state in listed(self.states)]

    def _rows(self) -> Iterator[dict[str, Any]]:
        assignee = self._assignee()
        scopes = (
            Scope(str(tool_type), self.hook.level_for(text_id(project_id), str(tool_type)))
            for tool_type in listed(self.tool_type)
            for project_id in listed(self.project_id)
        )
        for scope in dict.fromkeys(scopes):
            found = self.hook.list_instances(
                scope.tool_type,
                tool_subtype=text_id(self.tool_subtype),
                item_id=text_id(self.item_id),
                assignee_id=assignee,
                active=self.active,
                overdue=self.overdue,
                include_internal=self.include_internal,
                project_id=scope.level,
            )
            rows = [self._row(instance, scope) for instance in found]
            if not rows:
                self.hook.check_tool(scope.tool_type)
            yield from self._in_states(scope, rows) if self._states() else rows

    def _assignee(self) -> str | None:
        given = text_id(self.assignee_id)
        if given == ME:
            return self.hook.user_id
        return given if given is None or given.isdecimal() else self.hook.find_user_id(given, parameter="assignee_id")

    @staticmethod
    def _row(instance: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
        return {
            "instance_id": str(instance["id"]),
            "item_id": text_id(instance.get("item_id")),
            "tool_type": instance.get("tool_type") or scope.tool_type,
            "project_id": scope.level,
            "state": None,
            "step": None,
            **{name: instance.get(name) for name in ("started_at", "ended_at", "updated_at")},
        }

    def _in_states(self, scope: Scope, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        left = {row["instance_id"]: row for row in rows}
        for instance_id, history in histories_of(self.hook, scope, rows, self.log):
            if instance_id in left:
                yield from self._in_state(left.pop(instance_id), history)
        for row in left.values():  # of which no answer told whose history it is
            try:
                history = self.hook.get_instance_history(row["instance_id"], project_id=scope.level)
            except (NotFound, PermissionDenied) as refused:
                self.log.warning("Left out instance %s of item %s: %s", row["instance_id"], row["item_id"], refused)
            else:
                yield from self._in_state(row, history)

    def _in_state(self, row: dict[str, Any], history: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        now = rules.describe_instance(history, instance_id=row["instance_id"], item_id=row["item_id"])
        if now["state"] in self._states():
            yield {**row, "state": now["state"], "step": now["step"]}

    @staticmethod
    def _batches(rows: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
        most = conf.getint("core", "max_map_length", fallback=1024)
        size = max(size, -(-len(rows) // most))
        return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


class ProcoreBulkStartInstancesOperator(ProcoreOperator, WaitingOperator):
    """
    Starts the workflows of many items, each once, and waits until Procore has done it.

    Procore refuses an item that has an active instance; such an item counts as done. So a retry or a second run
    starts only what is not running yet. What was ordered is kept in Airflow's task state store (3.3+), and an
    order whose answer was lost goes again under the same ``Idempotency-Token``.

    Returns ``{completed: [{item_id, instance_id}], already_active: [{item_id, instance_id}],
    failed: [{item_id, message}], operation_ids}``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the items (templated).
    :param items: Item ids, or ``{item_id, preset_id}`` for each (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param preset_id: Preset for the items that name none; default: the tool's default preset (templated).
    :param chunk_size: Items in one order; how many Procore takes is not documented; default 50.
    :param on_active_instance: What an item is that has an active instance already: done (``adopt``, default) or
        failed (``fail``).
    :param on_failed_items: ``fail`` (default) fails the task if an item failed, and a retry tries those again;
        ``return`` succeeds and leaves it to the DAG.
    :param wait_timeout: Seconds that the wait may take; default 7 days.
    :param poll_interval: Seconds between two looks; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: no items, an item twice, an unknown tool.
    """

    operator_extra_links = ()  # it is about many items
    template_fields: Sequence[str] = (
        *ProcoreOperator.template_fields,
        "tool_type",
        "items",
        "tool_subtype",
        "preset_id",
    )

    def __init__(
        self,
        *,
        tool_type: str,
        items: Sequence[str | int | Mapping[str, Any]],
        tool_subtype: str | int | None = None,
        preset_id: str | int | None = None,
        chunk_size: int = 50,
        on_active_instance: str = "adopt",
        on_failed_items: str = "fail",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_type = tool_type
        self.items = items
        self.tool_subtype = tool_subtype
        self.preset_id = preset_id
        self.chunk_size = chunk_size
        self.on_active_instance = on_active_instance
        self.on_failed_items = on_failed_items

    def act(self, context: Context) -> Any:
        items = self._checked_items()
        journal = self._journal(context)
        if journal["over"]:
            return self._result(journal)
        self.hook.check_tool(self.tool_type)  # an order for none is taken, too, and fails item by item
        done = {item["item_id"] for item in [*self._completed(journal["past"]), *journal["active"]]}
        left = [item for item in items if item["item_id"] not in done]
        self._keep(journal)  # so that a retry orders under the same tokens
        progress = Progress("items ordered", len(left))
        for begin in range(0, len(left), self.chunk_size):
            chunk = left[begin : begin + self.chunk_size]
            self._order(chunk, journal)
            progress.count(len(chunk))
        if not journal["open"]:
            return self._conclude(journal, []) if journal["refused"] else self._result(journal)
        return self.wait(
            context,
            deadline=f"deadline_{journal['round']}",
            build=partial(
                ProcoreAsyncOperationWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=text_id(self.company_id),
                operation_ids=list(journal["open"].values()),
            ),
        )

    def finish(self, context: Context, answer: Mapping[str, Any]) -> dict[str, Any]:
        return self._conclude(self._journal(context), answer["result"]["operations"])

    def _conclude(self, journal: dict[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ids = [operation["operation_id"] for operation in operations]
        active, failed = self._judge_failed(self._failed(ids, operations, journal))
        self._keep(
            journal,
            round=journal["round"] + 1,
            open={},
            refused={},
            past=[*journal["past"], *ids],
            active=[*journal["active"], *active],
            failed=failed,
            over=not failed or self.on_failed_items == "return",
        )
        result = self._result(journal)
        counts = [len(result[name]) for name in ("completed", "already_active", "failed")]
        self.log.info("%d started, %d active already, %d failed.", *counts)
        if not journal["over"]:
            told = "; ".join(f"{item['item_id']}: {item['message'].rstrip('.')}" for item in failed[:FEW])
            raise WorkflowsError(
                f"{len(failed)} of {sum(counts)} items were not started: {told}"
                f"{'; ...' if len(failed) > FEW else ''}. A retry tries these again."
            )
        return result

    def _checked_items(self) -> list[dict[str, str]]:
        check_required(tool_type=self.tool_type)
        check_given(self, "project_id", "tool_subtype", "preset_id")
        check_choice("on_active_instance", self.on_active_instance, ON_ACTIVE_INSTANCE)
        check_choice("on_failed_items", self.on_failed_items, ON_FAILED_ITEMS)
        self.check_wait()
        if not isinstance(self.chunk_size, int) or self.chunk_size < 1:
            raise ConfigurationError(f"chunk_size must be a whole number of items, 1 or more; got {self.chunk_size!r}.")
        if isinstance(self.items, (str, Mapping)) or not isinstance(self.items, Sequence) or not self.items:
            raise ConfigurationError("items must be a list of item ids, or of {item_id, preset_id}, and not empty.")
        items = [self._item(given) for given in self.items]
        ids = [item["item_id"] for item in items]
        if twice := sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []:
            raise ConfigurationError(f"items: {', '.join(twice[:FEW])} came more than once.")
        return items

    def _item(self, given: Any) -> dict[str, str]:
        whole = given if isinstance(given, Mapping) else {"item_id": given}
        if unknown := set(whole) - {"item_id", "preset_id"}:
            raise ConfigurationError(f"items: an item has item_id and preset_id, not {', '.join(sorted(unknown))}.")
        check_required(items=whole.get("item_id"))
        preset = self.preset_id if whole.get("preset_id") is None else whole["preset_id"]
        if preset is not None:
            check_required(items=preset)
        named = {} if preset is None else {"preset_id": as_text("items", preset, is_id=True).strip()}
        return {"item_id": as_text("items", whole["item_id"], is_id=True).strip(), **named}

    # --- what was ordered, over all tries of the task ---

    def _journal(self, context: Context) -> dict[str, Any]:
        """
        Return what was ordered, ``{run, round, open, past, active, failed, over}``.

        ``run`` tells the orders of this task from those of other runs, whose instances may have ended since;
        ``open`` holds the operations that run, by their token, and ``past`` those of earlier rounds; ``refused``
        says why Procore did not take an order, by item; ``active`` and ``failed`` are items, as in the result;
        ``over`` tells that there is nothing left to do.
        """
        self._pin = Pin(task_state_store(context), "bulk_start", None)
        begun = {"run": uuid4().hex, "round": 0, "open": {}, "refused": {}, "past": []}
        begun |= {"active": [], "failed": [], "over": False}
        return self._pin.value or begun

    def _keep(self, journal: dict[str, Any], **changes: Any) -> None:
        journal.update(changes)
        self._pin.keep(journal)

    def _order(self, chunk: list[dict[str, str]], journal: dict[str, Any]) -> None:
        token = rules.idempotency_token(
            self.hook.company_id,
            self.level,
            self.tool_type,
            text_id(self.tool_subtype),
            chunk,
            journal["run"],
            journal["round"],
        )
        if token in journal["open"]:
            return
        order = partial(
            self.hook.bulk_start_instances,
            self.tool_type,
            chunk,
            tool_subtype=text_id(self.tool_subtype),
            idempotency_token=token,
            project_id=self.level,
        )
        try:
            operation = self._ordered(order)
        except (InvalidRequest, NotFound, PermissionDenied) as refused:
            self.log.warning("%s", refused)
            reasons = {item["item_id"]: str(refused) for item in chunk}
            self._keep(journal, refused={**journal["refused"], **reasons})
            return
        self._keep(journal, open={**journal["open"], token: str(operation["operation_id"])})
        self.log.info("Ordered %d items: operation %s.", len(chunk), operation["operation_id"])

    def _ordered(self, order: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            return order()
        except OutcomeUnknown as lost:
            # An item that was started all the same is refused now, for it is active, and that counts as done.
            self.log.warning("%s The order goes again under the same Idempotency-Token.", told(lost))
            return order()

    # --- what came of it ---

    def _operation(self, operation_id: str) -> dict[str, Any]:
        if operation_id not in self._operations:
            self._operations[operation_id] = self.hook.get_async_operation(operation_id)
        return self._operations[operation_id]

    @cached_property
    def _operations(self) -> dict[str, dict[str, Any]]:
        return {}

    def _completed(self, operation_ids: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {"item_id": text_id(item.get("item_id")), "instance_id": text_id(item.get("instance_id"))}
            for operation_id in operation_ids
            for item in rules.operation_items(self._operation(operation_id))[0]
        ]

    def _failed(
        self, ids: Sequence[str], operations: Sequence[Mapping[str, Any]], journal: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the items that no operation has completed; one that gives no reason failed with its operation."""
        reasons = journal["refused"] | {
            str(item.get("item_id")): item.get("message")
            for operation_id in ids
            for item in rules.operation_items(self._operation(operation_id))[1]
        }
        done = {item["item_id"] for item in [*self._completed([*journal["past"], *ids]), *journal["active"]]}
        why = "; ".join(
            f"operation {o['operation_id']} is {o['status']} {o['error'] or ''}".strip() for o in operations
        )
        return [
            {"item_id": item["item_id"], "message": str(reasons.get(item["item_id"]) or why)}
            for item in self._checked_items()
            if item["item_id"] not in done
        ]

    def _judge_failed(self, failed: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        if not failed or self.on_active_instance == "fail":
            return [], failed
        active = self._active_instances([item["item_id"] for item in failed])
        there = [
            {"item_id": item["item_id"], "instance_id": active[item["item_id"]]}
            for item in failed
            if item["item_id"] in active
        ]
        return there, [item for item in failed if item["item_id"] not in active]

    def _active_instances(self, item_ids: list[str]) -> dict[str, str]:
        look = partial(
            self.hook.list_instances,
            self.tool_type,
            tool_subtype=text_id(self.tool_subtype),
            active=True,
            project_id=self.level,
        )
        # Many are found sooner by going through all that are active.
        found = look() if len(item_ids) > FEW else (row for item_id in item_ids for row in look(item_id=item_id))
        return {str(row.get("item_id")): str(row["id"]) for row in found if not row.get("ended_at")}

    def _result(self, journal: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "completed": self._completed(journal["past"]),
            "already_active": journal["active"],
            "failed": journal["failed"],
            "operation_ids": journal["past"],
        }
