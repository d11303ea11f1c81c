"""The asynchronous operations of Procore v2: bulk start of instances, and bulk replacement of an assignee."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..state import INTEGRATION_USER, POSSIBLE_ASSIGNEES, USERS, EmulatorState, Rejection
from . import schemas
from .common import rejection
from .instances import Procore, replaced
from .presets import Preset
from .templates import check_tool

BULK_CREATE = "workflows_instance_bulk_create"
BULK_REPLACE = "workflows_bulk_replace"
STALE_READS = 2  # reads that show the old status after a replacement was stopped
CHANGEABLE = ("upcoming", "active", "failed")  # in these states a replacement can be changed

Outcome = tuple[str, dict[str, Any] | None, str | None]  # status, result, error


@dataclass
class Operation:
    """Store an operation. ``work`` runs once ``due_at`` is reached, and returns the outcome."""

    id: str
    kind: str
    created_at: float
    due_at: float
    work: Callable[[], Outcome]
    outcome: Outcome | None = None


@dataclass
class ReplaceRequest:
    id: str
    requested: schemas.BulkReplace
    created_at: float
    updated_at: float
    operation_id: str = ""
    status: str = "processing"
    errors: list[tuple[str | None, str | None, str]] = field(default_factory=list)  # project, preset, message
    shown_before: str | None = None  # the previous status, while stale reads return it
    stale_reads: int = 0
    report_reads: int = 0  # of the list of errors


class Operations:
    def __init__(self, state: EmulatorState, procore: Procore):
        self.state = state
        self.procore = procore
        self.clear()

    def clear(self) -> None:
        self.by_id: dict[str, Operation] = {}
        self.waiting: list[Operation] = []
        self.by_token: dict[str, Operation] = {}  # by the idempotency token of a bulk create
        self.requests: dict[str, ReplaceRequest] = {}

    def catch_up(self) -> None:
        """Run the work that is due, and end temporary replacements whose last day is over."""
        now = self.state.clock.time()
        for operation in [waiting for waiting in self.waiting if waiting.due_at <= now]:
            self.waiting.remove(operation)
            operation.outcome = operation.work()
        today = self.state.clock.iso()[:10]
        for request in self.requests.values():
            if request.status == "upcoming" and str(request.requested.start_date) <= today:
                self._replace(request)
            if request.status == "active" and str(request.requested.end_date) < today:
                request.status = "expired"

    def find(self, operation_id: str) -> Operation:
        operation = self.by_id.get(operation_id)
        visible_after = self.state.flags["operation_visible_after"]
        if operation is None or self.state.clock.time() < operation.created_at + visible_after:
            raise rejection(404, "not_found", f"Operation {operation_id} was not found.")
        return operation

    def status(self, operation: Operation) -> str:
        if operation.outcome is not None:
            return operation.outcome[0]
        starts_at = (operation.created_at + operation.due_at) / 2
        return "created" if self.state.clock.time() < starts_at else "in_progress"

    # --- starting many instances ---

    def bulk_create(self, requested: schemas.BulkCreate, project_id: str | None, token: str | None) -> Operation:
        check_tool(requested.tool_type, requested.tool_subtype, project_id)
        if not requested.items:
            raise rejection(422, "no_items", "'items' is empty.", "items")
        if len(requested.items) > self.state.flags["bulk_start_limit"]:
            message = f"A request takes at most {self.state.flags['bulk_start_limit']:g} items."
            raise rejection(int(self.state.flags["bulk_start_too_many"]), "too_many_items", message, "items")
        if token is not None and token in self.by_token and self.state.flags["idempotency"] == "honoured":
            return self.by_token[token]
        operation = self._schedule(BULK_CREATE, lambda: self._create(requested, project_id))
        if token is not None:
            self.by_token[token] = operation
        return operation

    def _create(self, requested: schemas.BulkCreate, project_id: str | None) -> Outcome:
        completed: list[dict[str, str]] = []
        failed: list[dict[str, str]] = []
        for item in requested.items:
            start = schemas.StartInstance(
                tool_type=requested.tool_type,
                tool_subtype=requested.tool_subtype,
                item_id=item.item_id,
                preset_id=item.preset_id,
            )
            try:
                instance = self.procore.start(start, project_id, INTEGRATION_USER, "api")
            except Rejection as error:
                message = error.body["error"]["message"]
                failed.append({"item_id": item.item_id, "step": "create", "message": message})
            else:
                completed.append({"item_id": item.item_id, "instance_id": instance.id})
        status = "done" if not failed else "partial_done" if completed else "failed"
        problem = None if completed else "No workflow could be started."
        return status, {"completed_items": completed, "failed_items": failed}, problem

    # --- replacing an assignee ---

    def request_replacement(self, requested: schemas.BulkReplace) -> ReplaceRequest:
        check_replacement(requested)
        now = self.state.clock.time()
        request = ReplaceRequest(str(801 + len(self.requests)), requested, now, now)
        self.requests[request.id] = request
        self._start(request)
        return request

    def change_replacement(self, request: ReplaceRequest, requested: schemas.BulkReplace) -> None:
        self._check_changeable(request)
        check_replacement(requested)
        request.requested = requested
        self._start(request)

    def stop_replacement(self, request: ReplaceRequest) -> None:
        """Stop a replacement early. The new assignees stay in the groups."""
        if request.status == "stopped" and self.state.flags["bulk_replace_stop_again"] == "accepted":
            return
        self._check_changeable(request)
        request.shown_before, request.status = request.status, "stopped"
        request.stale_reads = STALE_READS if self.state.flags["bulk_replace_stop"] == "later" else 0
        request.updated_at = self.state.clock.time()
        target = {"bulk_replace_request_id": request.id}
        self.state.record_effect("procore", "stop_bulk_replace", INTEGRATION_USER, target, {}, "api")

    def find_request(self, request_id: str) -> ReplaceRequest:
        request = self.requests.get(request_id)
        is_gone = self.state.flags["bulk_replace_stop"] == "gone" and request is not None
        if request is None or (is_gone and request.status == "stopped"):
            raise rejection(404, "not_found", f"Bulk replace request {request_id} was not found.")
        return request

    def shown_status(self, request: ReplaceRequest) -> str:
        """Return the status as a read shows it now, in the spelling of the flags."""
        status = request.status
        if request.stale_reads > 0 and request.shown_before is not None:
            request.stale_reads -= 1
            status = request.shown_before
        spelling = self.state.flags["bulk_replace_status"]
        if spelling == "more_words" and status == "processing":
            return "queued"
        return status.upper() if spelling == "upper_case" else status

    def _start(self, request: ReplaceRequest) -> None:
        request.status = "processing"
        request.errors = []
        request.updated_at = self.state.clock.time()
        request.operation_id = self._schedule(BULK_REPLACE, lambda: self._run(request)).id

    def _run(self, request: ReplaceRequest) -> Outcome:
        requested = request.requested
        if requested.replacement_type == "temporary" and str(requested.start_date) > self.state.clock.iso()[:10]:
            request.status = "upcoming"
        else:
            self._replace(request)
        if request.status == "failed":
            return "failed", None, "The assignee could not be replaced."
        return "done", {"bulk_replace_request_id": request.id}, None

    def _replace(self, request: ReplaceRequest) -> None:
        requested = request.requested
        old, new = requested.old_assignee_id, requested.new_assignee_ids
        presets = [
            preset
            for preset in self.procore.presets.by_id.values()
            if _concerns(requested, preset.project_id, preset.template.tool_type, preset.template.tool_subtype)
            and any(old in members for members in preset.members.values())
        ]
        request.errors = _errors(new, presets)
        if request.errors:
            request.status = "failed"
            return
        for preset in presets:
            preset.members = {uuid: replaced(members, old, new) for uuid, members in preset.members.items()}
            preset.manager = requested.new_workflow_manager_id or preset.manager
            preset.updated_at = self.state.clock.time()
        instances = [
            instance.id
            for instance in self.procore.instances.values()
            if _concerns(requested, instance.project_id, instance.template.tool_type, instance.template.tool_subtype)
            and self.procore.replace_assignee(instance, old, new, INTEGRATION_USER)
        ]
        request.status = "completed" if requested.replacement_type == "permanent" else "active"
        detail = {"old_assignee_id": old, "new_assignee_ids": new, "presets": [p.id for p in presets]}
        target = {"bulk_replace_request_id": request.id}
        self.state.record_effect(
            "procore", "bulk_replace", INTEGRATION_USER, target, {**detail, "instances": instances}, "api"
        )

    # --- internals ---

    def _schedule(self, kind: str, work: Callable[[], Outcome]) -> Operation:
        now = self.state.clock.time()
        due_at = now + self.state.flags["operation_delay"]
        operation = Operation(str(901001 + len(self.by_id)), kind, now, due_at, work)
        self.by_id[operation.id] = operation
        self.waiting.append(operation)
        return operation

    @staticmethod
    def _check_changeable(request: ReplaceRequest) -> None:
        if request.status not in CHANGEABLE:
            message = f"A bulk replacement that is {request.status} cannot be changed."
            raise rejection(422, "not_changeable", message, "status")


def check_replacement(requested: schemas.BulkReplace) -> None:
    if not requested.new_assignee_ids:
        raise rejection(422, "missing_parameter", "'new_assignee_ids' is empty.", "new_assignee_ids")
    for user_id in (requested.old_assignee_id, *requested.new_assignee_ids, requested.new_workflow_manager_id):
        if user_id is not None and user_id not in USERS:
            raise rejection(422, "unknown_user", f"User {user_id} was not found.", "new_assignee_ids")
    if requested.replacement_type == "temporary":
        if requested.start_date is None or requested.end_date is None:
            message = "A temporary replacement needs start_date and end_date."
            raise rejection(422, "missing_parameter", message, "start_date")
        if requested.end_date < requested.start_date:
            raise rejection(422, "invalid_parameter", "end_date is before start_date.", "end_date")


def _concerns(requested: schemas.BulkReplace, project_id: str | None, tool_type: str, tool_subtype: str | None) -> bool:
    if requested.project_ids and project_id not in requested.project_ids:
        return False
    tools = requested.tools
    return not tools or any(tool.type == tool_type and tool.sub_type in (None, tool_subtype) for tool in tools)


def _errors(new: list[str], presets: list[Preset]) -> list[tuple[str | None, str | None, str]]:
    """Return one row for each preset and assignee that cannot be assigned, or one row if no preset is affected."""
    messages = [f"User {user_id} cannot be assigned." for user_id in new if user_id not in POSSIBLE_ASSIGNEES]
    places: list[tuple[str | None, str | None]] = [(preset.project_id, preset.id) for preset in presets]
    places = places or [(None, None)]
    return [
        (project_id, preset_id, message) for message in messages for project_id, preset_id in places or [(None, None)]
    ]
