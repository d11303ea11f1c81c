"""The operator that starts the workflows of many Procore items in bulk (Workflows v2)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    ApiError,
    ConfigurationError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    ServerError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.links.airflow import ApprovalsLink
from airflow_provider_workflows.operators.base import Pin, Progress, WaitingOperator
from airflow_provider_workflows.operators.procore.base import ON_ACTIVE_INSTANCE, ProcoreOperator
from airflow_provider_workflows.operators.unknown_outcome import describe
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.datetimes import parse_time, time_text
from airflow_provider_workflows.rules.parameters import (
    as_text,
    check_choice,
    check_optional,
    check_required,
    str_id,
)
from airflow_provider_workflows.rules.payload import is_id
from airflow_provider_workflows.rules.procore_operations import operation_items
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context


ON_FAILED_ITEMS = ("fail", "return")
FEW = 20  # items that are read or logged one by one
TOO_MANY = (400, 413, 422)  # possible statuses of a start request with too many items
CONFLICTS = (409, 422)  # possible statuses of a start request that repeats an earlier one
DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds between two reads after a start request whose outcome is unknown
CLOCK_TOLERANCE = timedelta(seconds=5)  # the server's times are in whole seconds


class ProcoreBulkStartInstancesOperator(ProcoreOperator, WaitingOperator):
    """
    Start the workflows of many items, each once, and wait until Procore has started them.

    Procore rejects an item that has an active instance; the operator counts such an item as done. A retry or a second
    run therefore starts only items without an active instance. The operator persists each start request in Airflow's
    task state store (3.3+) before it sends it. If the response to a request was lost, it searches for the instances
    that were started since, and starts again only the items that have none.

    Returns ``{completed: [{item_id, instance_id}], already_active: [{item_id, instance_id}],
    failed: [{item_id, message}], operation_ids}``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the items (templated).
    :param items: Item ids, or ``{item_id, preset_id}`` for each (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param preset_id: Preset for the items that name none; default: the tool's default preset (templated).
    :param chunk_size: Items in one start request; default 50. Procore does not document a maximum; when it rejects a
        request for its size, the operator halves the size of the following requests.
    :param on_active_instance: Whether an item that already has an active instance counts as done (``adopt``, default)
        or failed (``fail``).
    :param on_failed_items: ``fail`` (default): the task fails if an item failed, and a retry tries the failed items
        again; ``return``: the task succeeds, and the DAG handles the failed items.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :param wait_timeout: Maximum seconds of the wait; default 7 days.
    :param poll_interval: Seconds between two polls; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: no items, an item twice, or an unknown tool.
    :raises WorkflowsError: some items were not started; a retry tries these again.
    :raises OutcomeUnknown: Procore may have accepted a start request, and no instance shows it; never retried.
    """

    operator_extra_links = (ApprovalsLink(),)  # a link to an item has room for one only
    label_parameters = {"project": "project_id", "tool": "tool_type"}
    template_fields: Sequence[str] = (
        *ProcoreOperator.template_fields,
        "tool_type",
        "items",
        "tool_subtype",
        "preset_id",
        "dry_run",
    )
    template_fields_renderers = {"items": "json"}

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
            self.log.info("An earlier try of this task has started the items; nothing is sent.")
            return self._result(journal)
        self.hook.check_tool(self.tool_type)  # Procore accepts a start request for an unknown tool, and fails each item
        _ = self.hook.user_id  # for the log, and to recognize the instances that this user starts
        self._persist(journal)  # a retry must use the same idempotency tokens
        self._start_all(self._chunks_to_start(items, journal), journal)
        if self.has_unsent_calls:
            return self._result(journal)
        operation_ids = self._running(journal)
        if not operation_ids:
            return self._conclude(journal, [])
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.procore import ProcoreAsyncOperationWaitTrigger

        return self.wait(
            context,
            deadline=f"deadline_{journal['attempt']}",
            build=partial(
                ProcoreAsyncOperationWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=str_id(self.company_id),
                operation_ids=operation_ids,
                resume_kwargs=self._carried(context, journal),
            ),
        )

    def finish(self, context: Context, response: Mapping[str, Any]) -> dict[str, Any]:
        journal = {**self._journal(context), **(response.get("resume_kwargs") or {})}
        return self._conclude(journal, response["result"]["operations"])

    def _conclude(self, journal: dict[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        ids = [operation["operation_id"] for operation in operations]
        logged = {item["item_id"] for item in self._completed(journal["past"])}
        failed = self._evaluate_failed(self._failed(ids, operations, journal), journal)
        self._persist(
            journal,
            attempt=journal["attempt"] + 1,
            requests={},
            rejected=[],
            past=[*journal["past"], *ids],
            failed=failed,
            over=not failed or self.on_failed_items == "return",
        )
        result = self._result(journal)
        self._report(result, logged)
        if not journal["over"]:
            total = sum(len(result[name]) for name in ("completed", "already_active", "failed"))
            messages = "; ".join(f"{item['item_id']}: {item['message'].rstrip('.')}" for item in failed[:FEW])
            raise WorkflowsError(
                f"{len(failed)} of {total} items were not started: {messages}"
                f"{'; ...' if len(failed) > FEW else ''}. A retry tries these again."
            )
        return result

    def _report(self, result: Mapping[str, Any], logged: Collection[Any]) -> None:
        """Log the started instances and the items that already had one, except those that an earlier try has logged."""
        for name, message in (
            ("completed", f"Started as user {self.hook.user_id}: instance"),
            ("already_active", "Not started, because the item already has an active instance:"),
        ):
            rows = [
                f"{row['instance_id']} (item {row['item_id']})" for row in result[name] if row["item_id"] not in logged
            ]
            for start in range(0, len(rows), FEW):
                self.log.info("%s %s.", message, ", ".join(rows[start : start + FEW]))
        counts = [len(result[name]) for name in ("completed", "already_active", "failed")]
        self.log.info("%d items started, %d already active, %d failed.", *counts)

    def _checked_items(self) -> list[dict[str, str]]:
        check_required(tool_type=self.tool_type)
        check_optional(self, "project_id", "tool_subtype", "preset_id")
        check_choice("on_active_instance", self.on_active_instance, ON_ACTIVE_INSTANCE)
        check_choice("on_failed_items", self.on_failed_items, ON_FAILED_ITEMS)
        self.check_wait()
        if type(self.chunk_size) is not int or self.chunk_size < 1:
            raise ConfigurationError(f"chunk_size must be a whole number of items, 1 or more; got {self.chunk_size!r}.")
        if isinstance(self.items, (str, bytes, Mapping)) or not isinstance(self.items, Sequence) or not self.items:
            raise ConfigurationError("items must be a list of item ids or {item_id, preset_id}, at least one.")
        items = [self._item(item) for item in self.items]
        ids = [item["item_id"] for item in items]
        if twice := sorted({item_id for item_id in ids if ids.count(item_id) > 1}) if len(set(ids)) < len(ids) else []:
            raise ConfigurationError(f"items: {', '.join(twice[:FEW])} occur more than once.")
        return items

    def _item(self, item: Any) -> dict[str, str]:
        whole = item if isinstance(item, Mapping) else {"item_id": item}
        if unknown := set(whole) - {"item_id", "preset_id"}:
            raise ConfigurationError(f"items: an item has item_id and preset_id, but got {', '.join(sorted(unknown))}.")
        check_required(items=whole.get("item_id"))
        preset = self.preset_id if whole.get("preset_id") is None else whole["preset_id"]
        if preset is not None:
            check_required(items=preset)
        named = {} if preset is None else {"preset_id": as_text("items", preset, is_id=True).strip()}
        return {"item_id": as_text("items", whole["item_id"], is_id=True).strip(), **named}

    # --- the journal: state of all tries of the task ---

    def _journal(self, context: Context) -> dict[str, Any]:
        """
        Return the journal of start requests.

        ``run`` distinguishes the requests of this task from those of other runs, whose instances may have ended since.
        ``attempt`` counts the attempts; one ends when its operations have ended. ``requests`` are the start requests of
        this attempt by token: ``{items, since, operation_id}``, the last None while the outcome is unknown.
        ``unresolved`` are the items of such requests, each with the time since when it may have been started.
        ``rejected`` are the requests that Procore rejected: ``{item_ids, reason}``. ``past`` are the operations of
        earlier attempts. ``found`` are the instances that a request with a lost response has started. ``active`` and
        ``failed`` are items, as in the result; ``over`` is True when nothing is left to do.
        """
        self._pin = Pin(task_state_store(context), "bulk_start", None)
        started: dict[str, Any] = {"run": uuid4().hex, "attempt": 0, "requests": {}, "unresolved": {}}
        started |= {"rejected": [], "past": [], "found": [], "active": [], "failed": [], "over": False}
        return self._pin.value or started

    def _persist(self, journal: dict[str, Any], **changes: Any) -> None:
        journal.update(changes)
        self._pin.persist(journal)

    @staticmethod
    def _carried(context: Context, journal: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the part of the journal that a resumed task needs if Airflow has no task state store."""
        if task_state_store(context) is not None:
            return None
        return {name: journal[name] for name in ("unresolved", "rejected", "found", "active") if journal[name]} or None

    @staticmethod
    def _running(journal: Mapping[str, Any]) -> list[str]:
        requests = journal["requests"].values()
        return [request["operation_id"] for request in requests if request["operation_id"] is not None]

    def _done(self, journal: Mapping[str, Any]) -> set[Any]:
        rows = [*self._completed(journal["past"]), *journal["found"], *journal["active"]]
        return {row["item_id"] for row in rows}

    # --- start requests ---

    def _chunks_to_start(self, items: list[dict[str, str]], journal: dict[str, Any]) -> list[list[dict[str, str]]]:
        """Return the items to start, in chunks; first the items of requests with an unknown outcome."""
        lost = self._set_aside(journal)
        self._find_unresolved(list(journal["unresolved"]), journal)
        done = self._done(journal)
        again = [[item for item in chunk if item["item_id"] not in done] for chunk in lost]
        requested = [item for request in journal["requests"].values() for item in request["items"]]
        elsewhere = done | {item["item_id"] for chunk in [requested, *lost] for item in chunk}
        left = [item for item in items if item["item_id"] not in elsewhere]
        return [*filter(None, again), *_chunks(left, self.chunk_size)]

    def _set_aside(self, journal: dict[str, Any]) -> list[list[dict[str, str]]]:
        """Mark the items of requests with an unknown outcome as unresolved, and return them, request by request."""
        requests = journal["requests"]
        lost = [request for request in requests.values() if request["operation_id"] is None]
        unresolved = {item["item_id"]: request["since"] for request in lost for item in request["items"]}
        known = {token: request for token, request in requests.items() if request["operation_id"] is not None}
        if lost:
            self._persist(journal, requests=known, unresolved={**unresolved, **journal["unresolved"]})
        return [request["items"] for request in lost]

    def _start_all(self, chunks: Sequence[list[dict[str, str]]], journal: dict[str, Any]) -> None:
        left = deque(chunks)
        progress = Progress("items requested", sum(map(len, chunks)))
        size, accepted, halves = self.chunk_size, 0, True
        while left:
            chunk = left.popleft()
            if len(chunk) > size:
                left.extendleft(reversed(_chunks(chunk, size)))
                continue
            try:
                with self.continuing_dry_run():
                    self._start(chunk, journal)
            except (InvalidRequest, NotFound, PermissionDenied) as rejection:
                may_be_size = rejection.status_code in TOO_MANY
                if may_be_size and halves and len(chunk) > 1:
                    size = len(chunk) // 2
                    self.log.info("%s Starting %d items at a time from now on.", rejection, size)
                    left.appendleft(chunk)
                    continue
                if may_be_size and len(chunk) == 1:  # the size was not the cause
                    size, halves = accepted or self.chunk_size, accepted > 0
                self.log.warning("Procore rejected the start of items %s: %s", _named(chunk), rejection)
                reason = {"item_ids": [item["item_id"] for item in chunk], "reason": str(rejection)}
                self._persist(journal, rejected=[*journal["rejected"], reason])
            else:
                accepted = max(accepted, len(chunk))
            progress.count(len(chunk))

    def _start(self, chunk: list[dict[str, str]], journal: dict[str, Any]) -> None:
        """
        Send a start request for a chunk, once; after a lost response again, only for the items without a new instance.

        :raises ApiError: Procore rejected the request and started nothing.
        :raises OutcomeUnknown: Procore may have accepted the request, and no instance shows it.
        """
        for is_last in (False, True):
            token = self._token(chunk, journal)
            since = time_text(self.hook.client.server_time() - CLOCK_TOLERANCE)
            request = {"items": chunk, "since": since, "operation_id": None}
            self._persist(journal, requests={**journal["requests"], token: request})
            try:
                operation_id = self._send(chunk, token)
            except NOTHING_DONE as rejection:
                self._persist(journal, requests={name: r for name, r in journal["requests"].items() if name != token})
                is_unresolved = any(item["item_id"] in journal["unresolved"] for item in chunk)
                if isinstance(rejection, ApiError) and is_unresolved and rejection.status_code in CONFLICTS:
                    self._resolve(chunk, journal, rejection)  # perhaps this request conflicts with the first one
                    return
                raise
            except UnexpectedResponse as malformed:
                self._set_aside(journal)
                self._resolve(chunk, journal, malformed)
                return
            except (OutcomeUnknown, ServerError) as lost:
                self._set_aside(journal)
                self.log.warning("%s Searching for the instances that the request may have started.", describe(lost))
                chunk = self._missing(chunk, journal)
                if not chunk:
                    return
                if is_last or isinstance(lost, ServerError):
                    raise
                # If Procore has started an item after all, it rejects another start while the instance is active.
                self.log.warning("Items %s show no new instance; starting them once more.", _named(chunk))
            else:
                request = {**request, "operation_id": operation_id}
                self._persist(journal, requests={**journal["requests"], token: request})
                self.log.info(
                    "Requested the start of items %s of tool %s as user %s: operation %s.",
                    *(_named(chunk), self.tool_type, self.hook.user_id, operation_id),
                )
                return

    def _token(self, chunk: list[dict[str, str]], journal: Mapping[str, Any]) -> str:
        where = (self.hook.company_id, self.level, self.tool_type, str_id(self.tool_subtype))
        return rules.idempotency_token(*where, chunk, journal["run"], journal["attempt"])

    def _send(self, chunk: list[dict[str, str]], token: str) -> str:
        operation = self.hook.bulk_start_instances(
            self.tool_type,
            chunk,
            tool_subtype=str_id(self.tool_subtype),
            idempotency_token=token,
            project_id=self.level,
        )
        if not is_id(operation.get("operation_id")):
            raise UnexpectedResponse("Procore accepted the start request without returning the id of an operation")
        return str(str_id(operation["operation_id"]))

    def _resolve(self, chunk: list[dict[str, str]], journal: dict[str, Any], fault: ApiError) -> None:
        """Poll until every item of a start request has an instance, without sending the request again."""
        self.log.warning("%s Searching for the instances that the request may have started.", describe(fault))
        for delay in (0.0, *DELAYS):
            time.sleep(delay)
            chunk = self._missing(chunk, journal)
            if not chunk:
                return
        raise OutcomeUnknown(f"{describe(fault)} And items {_named(chunk)} show no new instance")

    def _missing(self, chunk: list[dict[str, str]], journal: dict[str, Any]) -> list[dict[str, str]]:
        """Search for the instances of a chunk with an unknown outcome, and return the items that have none."""
        self._find_unresolved([item["item_id"] for item in chunk], journal)
        done = self._done(journal)
        return [item for item in chunk if item["item_id"] not in done]

    def _find_unresolved(self, item_ids: Sequence[str], journal: dict[str, Any]) -> None:
        """
        Search for the instances of items with an unknown outcome, and retry the read when it fails.

        :raises OutcomeUnknown: the instances cannot be read, so the outcome stays unknown.
        """
        for delay in (*DELAYS, None):
            try:
                self._find_instances(item_ids, journal)
            except ApiError as fault:
                if delay is None:
                    raise OutcomeUnknown(
                        f"Items {', '.join(item_ids[:FEW])} may have been started. Reading failed: {describe(fault)}"
                    ) from fault
                self.log.warning("%s Reading again.", describe(fault))
                time.sleep(delay)
            else:
                return

    def _find_instances(self, item_ids: Sequence[str], journal: dict[str, Any]) -> None:
        """Record the instances of items that are neither done nor requested: started by this task, or adopted."""
        running = {item["item_id"] for request in journal["requests"].values() for item in request["items"]}
        since = journal["unresolved"]
        done = self._done(journal) | running
        adopts = self.on_active_instance == "adopt"
        left = [item_id for item_id in item_ids if item_id not in done and (adopts or item_id in since)]
        recorded: dict[str, list[dict[str, Any]]] = {"found": list(journal["found"]), "active": list(journal["active"])}
        for active in (True, False):
            rows = list(self._instances(left, active=active)) if left else []
            for item_id in list(left):
                own_rows = [row for row in rows if str_id(row["item_id"]) == item_id]
                kind, row = self._evaluate_instances(own_rows, since.get(item_id))
                if row is not None:
                    recorded[kind].append({"item_id": item_id, "instance_id": str(row["id"])})
                    left.remove(item_id)
            left = [
                item_id for item_id in left if item_id in since
            ]  # ended instances count only if this task may have started them
        if recorded != {"found": journal["found"], "active": journal["active"]}:
            self._persist(journal, **recorded)

    def _evaluate_instances(
        self, rows: Sequence[dict[str, Any]], since: str | None
    ) -> tuple[str, dict[str, Any] | None]:
        """
        Return the instance of an item to record, and its kind: ``found`` if this task started it, else ``active``.

        :param since: When a start request with an unknown outcome was sent, or None if there is none.
        """
        new = [row for row in rows if since is not None and _is_new(row, since)]
        for row in new:
            if rules.created_by(row) == self.hook.user_id:
                return "found", row
        adopts = self.on_active_instance == "adopt"
        for row in new:
            if rules.created_by(row) is None:  # the creator is unknown, only the existence of an instance is certain
                return ("active" if adopts else "found"), row
        return "active", next((row for row in rows if adopts and not row.get("ended_at")), None)

    # --- results ---

    def _operation(self, operation_id: str) -> dict[str, Any]:
        if operation_id not in self._operations:
            self._operations[operation_id] = self.hook.get_async_operation(operation_id)
        return self._operations[operation_id]

    @cached_property
    def _operations(self) -> dict[str, dict[str, Any]]:
        return {}

    def _completed(self, operation_ids: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {"item_id": str_id(item.get("item_id")), "instance_id": str_id(item.get("instance_id"))}
            for operation_id in operation_ids
            for item in operation_items(self._operation(operation_id))[0]
        ]

    def _failed(
        self, ids: Sequence[str], operations: Sequence[Mapping[str, Any]], journal: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Return the items that no operation has completed, each with its own reason or that of its operation."""
        reasons = {
            item_id: rejected["reason"] for rejected in journal["rejected"] for item_id in rejected["item_ids"]
        } | {
            str(item.get("item_id")): item.get("message")
            for operation_id in ids
            for item in operation_items(self._operation(operation_id))[1]
        }
        done = self._done({**journal, "past": [*journal["past"], *ids]})
        why = "; ".join(
            f"operation {o['operation_id']} is {o['status']} {o['error'] or ''}".strip() for o in operations
        )
        return [
            {"item_id": item["item_id"], "message": str(reasons.get(item["item_id"]) or why)}
            for item in self._checked_items()
            if item["item_id"] not in done
        ]

    def _evaluate_failed(self, failed: list[dict[str, Any]], journal: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the failed items that have no instance."""
        journal["requests"] = {}  # their operations have ended
        self._find_instances([item["item_id"] for item in failed], journal)
        done = self._done(journal)
        return [item for item in failed if item["item_id"] not in done]

    def _instances(self, item_ids: Sequence[str], *, active: bool) -> Iterator[dict[str, Any]]:
        """Yield the instances of some items; the server may ignore filters, so each row is compared with the items."""
        list_instances = partial(
            self.hook.list_instances,
            self.tool_type,
            tool_subtype=str_id(self.tool_subtype),
            active=active,
            project_id=self.level,
        )
        # For many items, reading the whole list takes fewer calls.
        rows = (
            list_instances()
            if len(item_ids) > FEW
            else (row for item_id in item_ids for row in list_instances(item_id=item_id))
        )
        for row in rows:
            if is_id(row.get("id")) and str_id(row.get("item_id")) in item_ids:
                yield row

    def _result(self, journal: Mapping[str, Any]) -> dict[str, Any]:
        place = {item["item_id"]: number for number, item in enumerate(self._checked_items())}
        # Two concurrent tries may both have recorded an item; the result must have it once.
        completed = _without_repetitions([*self._completed(journal["past"]), *journal["found"]])
        items = [row["item_id"] for row in completed]
        return {
            "completed": sorted(completed, key=lambda row: place.get(row["item_id"], len(place))),
            "already_active": _without_repetitions(row for row in journal["active"] if row["item_id"] not in items),
            "failed": journal["failed"],
            "operation_ids": journal["past"],
        }


def _chunks(items: list[dict[str, str]], size: int) -> list[list[dict[str, str]]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _without_repetitions(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(row["item_id"], row["instance_id"]): row for row in rows}.values())


def _named(chunk: Sequence[Mapping[str, str]]) -> str:
    return ", ".join(item["item_id"] for item in chunk[:FEW]) + (", ..." if len(chunk) > FEW else "")


def _is_new(row: Mapping[str, Any], since: str) -> bool:
    """Return whether an instance was created since a time."""
    created, started = parse_time(row.get("created_at") or row.get("started_at")), parse_time(since)
    return created is not None and started is not None and created >= started
