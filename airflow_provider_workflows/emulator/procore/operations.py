"""What Procore Workflows v2 does in the background: starting many instances, and replacing an assignee everywhere."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from .. import models
from ..state import INTEGRATION_USER, POSSIBLE_ASSIGNEES, USERS, Refusal, World
from .common import Project, at_levels, check_idempotency, page_of, refusal, user_ref
from .instances import Procore, replaced
from .presets import Preset
from .templates import check_tool

BULK_CREATE = "workflows_instance_bulk_create"
BULK_REPLACE = "workflows_bulk_replace"
STALE_READS = 2  # after the stop of a request
EARLY_READS = 2  # of a list of errors that is not ready
SIGNATURE = "X-Signature"
CHANGEABLE = ("upcoming", "active", "failed")  # requests that can still be changed

Outcome = tuple[str, dict[str, Any] | None, str | None]  # status, result, error


@dataclass
class Operation:
    """``work`` is done when its time has come, and returns the outcome."""

    id: str
    kind: str
    created_at: float
    due_at: float
    work: Callable[[], Outcome]
    outcome: Outcome | None = None


@dataclass
class ReplaceRequest:
    id: str
    wanted: models.BulkReplace
    created_at: float
    updated_at: float
    operation_id: str = ""
    status: str = "processing"
    errors: list[tuple[str | None, str | None, str]] = field(default_factory=list)  # project, preset, message
    shown_before: str | None = None  # the status while reads still show that
    stale_reads: int = 0
    report_reads: int = 0  # of the list of errors


class Operations:
    def __init__(self, world: World, procore: Procore):
        self.world = world
        self.procore = procore
        self.clear()

    def clear(self) -> None:
        self.by_id: dict[str, Operation] = {}
        self.waiting: list[Operation] = []
        self.by_token: dict[str, Operation] = {}  # by the idempotency token of a bulk create
        self.requests: dict[str, ReplaceRequest] = {}

    def catch_up(self) -> None:
        """Do the work whose time has come, and end the replacements whose last day is over."""
        now = self.world.clock.time()
        for operation in [one for one in self.waiting if one.due_at <= now]:
            self.waiting.remove(operation)
            operation.outcome = operation.work()
        today = self.world.clock.iso()[:10]
        for request in self.requests.values():
            if request.status == "upcoming" and str(request.wanted.start_date) <= today:
                self._replace(request)
            if request.status == "active" and str(request.wanted.end_date) < today:
                request.status = "expired"

    def find(self, operation_id: str) -> Operation:
        operation = self.by_id.get(operation_id)
        visible_after = self.world.flags["operation_visible_after"]
        if operation is None or self.world.clock.time() < operation.created_at + visible_after:
            raise refusal(404, "not_found", f"Operation {operation_id} was not found.")
        return operation

    def status(self, operation: Operation) -> str:
        if operation.outcome is not None:
            return operation.outcome[0]
        begins_at = (operation.created_at + operation.due_at) / 2
        return "created" if self.world.clock.time() < begins_at else "in_progress"

    # --- starting many instances ---

    def bulk_create(self, wanted: models.BulkCreate, project_id: str | None, token: str | None) -> Operation:
        check_tool(wanted.tool_type, wanted.tool_subtype, project_id)
        if not wanted.items:
            raise refusal(422, "no_items", "There are no items to start a workflow for.", "items")
        if len(wanted.items) > self.world.flags["bulk_start_limit"]:
            words = f"At most {self.world.flags['bulk_start_limit']:g} items at once."
            raise refusal(int(self.world.flags["bulk_start_too_many"]), "too_many_items", words, "items")
        if token is not None and token in self.by_token and self.world.flags["idempotency"] == "honoured":
            return self.by_token[token]
        operation = self._schedule(BULK_CREATE, lambda: self._create(wanted, project_id))
        if token is not None:
            self.by_token[token] = operation
        return operation

    def _create(self, wanted: models.BulkCreate, project_id: str | None) -> Outcome:
        completed: list[dict[str, str]] = []
        failed: list[dict[str, str]] = []
        for item in wanted.items:
            one = models.StartInstance(
                tool_type=wanted.tool_type,
                tool_subtype=wanted.tool_subtype,
                item_id=item.item_id,
                preset_id=item.preset_id,
            )
            try:
                instance = self.procore.start(one, project_id, INTEGRATION_USER, "api")
            except Refusal as refused:
                message = refused.body["error"]["message"]
                failed.append({"item_id": item.item_id, "step": "create", "message": message})
            else:
                completed.append({"item_id": item.item_id, "instance_id": instance.id})
        status = "done" if not failed else "partial_done" if completed else "failed"
        error = None if completed else "No workflow could be started."
        return status, {"completed_items": completed, "failed_items": failed}, error

    # --- replacing an assignee ---

    def request_replacement(self, wanted: models.BulkReplace) -> ReplaceRequest:
        check_replacement(wanted)
        now = self.world.clock.time()
        request = ReplaceRequest(str(801 + len(self.requests)), wanted, now, now)
        self.requests[request.id] = request
        self._begin(request)
        return request

    def change_replacement(self, request: ReplaceRequest, wanted: models.BulkReplace) -> None:
        self._check_changeable(request)
        check_replacement(wanted)
        request.wanted = wanted
        self._begin(request)

    def stop_replacement(self, request: ReplaceRequest) -> None:
        """End a replacement before its time; who was put into the groups stays there."""
        if request.status == "stopped" and self.world.flags["bulk_replace_stop_again"] == "accepted":
            return
        self._check_changeable(request)
        request.shown_before, request.status = request.status, "stopped"
        request.stale_reads = STALE_READS if self.world.flags["bulk_replace_stop"] == "later" else 0
        request.updated_at = self.world.clock.time()
        target = {"bulk_replace_request_id": request.id}
        self.world.record_effect("procore", "stop_bulk_replace", INTEGRATION_USER, target, {}, "api")

    def find_request(self, request_id: str) -> ReplaceRequest:
        request = self.requests.get(request_id)
        is_gone = self.world.flags["bulk_replace_stop"] == "gone" and request is not None
        if request is None or (is_gone and request.status == "stopped"):
            raise refusal(404, "not_found", f"Bulk replace request {request_id} was not found.")
        return request

    def shown_status(self, request: ReplaceRequest) -> str:
        """Return the status as a read shows it now, in the spelling that the flags say."""
        status = request.status
        if request.stale_reads > 0 and request.shown_before is not None:
            request.stale_reads -= 1
            status = request.shown_before
        spelling = self.world.flags["bulk_replace_status"]
        if spelling == "more_words" and status == "processing":
            return "queued"
        return status.upper() if spelling == "upper_case" else status

    def _begin(self, request: ReplaceRequest) -> None:
        request.status = "processing"
        request.errors = []
        request.updated_at = self.world.clock.time()
        request.operation_id = self._schedule(BULK_REPLACE, lambda: self._run(request)).id

    def _run(self, request: ReplaceRequest) -> Outcome:
        wanted = request.wanted
        if wanted.replacement_type == "temporary" and str(wanted.start_date) > self.world.clock.iso()[:10]:
            request.status = "upcoming"
        else:
            self._replace(request)
        if request.status == "failed":
            return "failed", None, "The assignee could not be replaced."
        return "done", {"bulk_replace_request_id": request.id}, None

    def _replace(self, request: ReplaceRequest) -> None:
        wanted = request.wanted
        old, new = wanted.old_assignee_id, wanted.new_assignee_ids
        presets = [
            preset
            for preset in self.procore.presets.by_id.values()
            if _concerns(wanted, preset.project_id, preset.template.tool_type, preset.template.tool_subtype)
            and any(old in members for members in preset.members.values())
        ]
        request.errors = _errors(new, presets)
        if request.errors:
            request.status = "failed"
            return
        for preset in presets:
            preset.members = {uuid: replaced(members, old, new) for uuid, members in preset.members.items()}
            preset.manager = wanted.new_workflow_manager_id or preset.manager
            preset.updated_at = self.world.clock.time()
        instances = [
            instance.id
            for instance in self.procore.instances.values()
            if _concerns(wanted, instance.project_id, instance.template.tool_type, instance.template.tool_subtype)
            and self.procore.replace_assignee(instance, old, new, INTEGRATION_USER)
        ]
        request.status = "completed" if wanted.replacement_type == "permanent" else "active"
        detail = {"old_assignee_id": old, "new_assignee_ids": new, "presets": [p.id for p in presets]}
        target = {"bulk_replace_request_id": request.id}
        self.world.record_effect(
            "procore", "bulk_replace", INTEGRATION_USER, target, {**detail, "instances": instances}, "api"
        )

    # --- inner ---

    def _schedule(self, kind: str, work: Callable[[], Outcome]) -> Operation:
        now = self.world.clock.time()
        due_at = now + self.world.flags["operation_delay"]
        operation = Operation(str(901001 + len(self.by_id)), kind, now, due_at, work)
        self.by_id[operation.id] = operation
        self.waiting.append(operation)
        return operation

    @staticmethod
    def _check_changeable(request: ReplaceRequest) -> None:
        if request.status not in CHANGEABLE:
            words = f"A request that is {request.status} cannot be changed."
            raise refusal(422, "not_changeable", words, "status")


def check_replacement(wanted: models.BulkReplace) -> None:
    if not wanted.new_assignee_ids:
        raise refusal(422, "missing_parameter", "There is no new assignee.", "new_assignee_ids")
    for user_id in (wanted.old_assignee_id, *wanted.new_assignee_ids, wanted.new_workflow_manager_id):
        if user_id is not None and user_id not in USERS:
            raise refusal(422, "unknown_user", f"User {user_id} was not found.", "new_assignee_ids")
    if wanted.replacement_type == "temporary":
        if wanted.start_date is None or wanted.end_date is None:
            words = "A temporary replacement needs start_date and end_date."
            raise refusal(422, "missing_parameter", words, "start_date")
        if wanted.end_date < wanted.start_date:
            raise refusal(422, "invalid_parameter", "end_date is before start_date.", "end_date")


def _concerns(wanted: models.BulkReplace, project_id: str | None, tool_type: str, tool_subtype: str | None) -> bool:
    if wanted.project_ids and project_id not in wanted.project_ids:
        return False
    tools = wanted.tools
    return not tools or any(tool.type == tool_type and tool.sub_type in (None, tool_subtype) for tool in tools)


def _errors(new: list[str], presets: list[Preset]) -> list[tuple[str | None, str | None, str]]:
    """Return a line for each preset that cannot take the new assignees, or one where no preset is concerned."""
    messages = [f"User {user_id} cannot be assigned." for user_id in new if user_id not in POSSIBLE_ASSIGNEES]
    places: list[tuple[str | None, str | None]] = [(preset.project_id, preset.id) for preset in presets]
    places = places or [(None, None)]
    return [
        (project_id, preset_id, message) for message in messages for project_id, preset_id in places or [(None, None)]
    ]


# --- the API's forms ---


def _operation(operations: Operations, operation: Operation) -> dict[str, Any]:
    iso = operations.world.clock.iso
    status = operations.status(operation)
    _, result, error = operation.outcome or (status, None, None)
    return {
        "id": operation.id,
        "operation_type": operation.kind,
        "status": operations.world.in_background_case(status),
        "started_at": None if status == "created" else iso((operation.created_at + operation.due_at) / 2),
        "completed_at": None if operation.outcome is None else iso(operation.due_at),
        "result": result,
        "error": None if error is None else {"message": error},
        "context": None,
        "created_by_id": INTEGRATION_USER,
        "parent_id": None,
        "sub_operations": [],
    }


def _request_row(operations: Operations, request: ReplaceRequest) -> dict[str, Any]:
    iso = operations.world.clock.iso
    wanted = request.wanted
    manager = wanted.new_workflow_manager_id
    rows = operations.world.flags["bulk_replace_rows"]
    if rows == "bare":
        return {"id": request.id, "status": operations.shown_status(request)}
    people: dict[str, Any] = {
        "old_assignee": user_ref(wanted.old_assignee_id),
        "new_assignees": [user_ref(user_id) for user_id in wanted.new_assignee_ids],
    }
    if rows == "ids":
        people = {"old_assignee_id": wanted.old_assignee_id, "new_assignee_ids": wanted.new_assignee_ids}
    days = {"start_date": wanted.start_date, "end_date": wanted.end_date}
    reason = wanted.reason
    if rows == "cut":
        ends = {"start_date": "T00:00:00-08:00", "end_date": "T23:59:59-08:00"}
        days = {name: None if day is None else day + ends[name] for name, day in days.items()}
        reason = f"{reason[: len(reason) // 2]}..."
    return {
        "id": request.id,
        "status": operations.shown_status(request),
        "replacement_type": wanted.replacement_type,
        **people,
        "new_workflow_manager": None if manager is None else user_ref(manager),
        "modify_project_roles": wanted.modify_project_roles,
        "reason": reason,
        **days,
        "project_ids": wanted.project_ids,
        "tools": wanted.tools,
        "created_at": iso(request.created_at),
        "updated_at": iso(request.updated_at),
        "updated_by": user_ref(INTEGRATION_USER),
    }


def _accepted(request: ReplaceRequest) -> dict[str, Any]:
    return {"data": {"bulk_replace_request_id": request.id, "operation_id": request.operation_id}}


# --- routes ---


CSV: dict[str, Any] = {"content": {"text/csv": {"schema": {"type": "string"}}}}


def routes(world: World, operations: Operations) -> APIRouter:
    company = APIRouter()
    both = APIRouter()
    _operation_routes(operations, company, both)
    _replace_routes(world, operations, company)
    router = APIRouter()
    router.include_router(at_levels(world, company, both))
    router.include_router(_storage(operations))
    return router


def _operation_routes(operations: Operations, company: APIRouter, both: APIRouter) -> None:
    @both.post(
        "/workflows/instances/bulk_create",
        response_model=models.OperationAccepted,
        status_code=202,
        dependencies=[Depends(check_idempotency)],
    )
    async def bulk_create(
        project_id: Project, body: models.BulkCreate, idempotency_token: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        operation = operations.bulk_create(body, project_id, idempotency_token)
        operations.catch_up()
        return {"data": {"operation_id": operation.id, "operation_type": operation.kind}}

    @company.get("/async_operations/{operation_id}", response_model=models.OperationAnswer)
    async def show_operation(operation_id: str) -> dict[str, Any]:
        return {"data": _operation(operations, operations.find(operation_id))}


def _replace_routes(world: World, operations: Operations, company: APIRouter) -> None:
    where = "/workflows/bulk_replace_requests"

    @company.get(where, response_model=models.BulkReplaceList, response_model_exclude_unset=True)
    async def list_requests(
        request: Request,
        response: Response,
        status: Annotated[str | None, Query(alias="filters[status]")] = None,
        kind: Annotated[str | None, Query(alias="filters[type]")] = None,
        updated_by_id: Annotated[str | None, Query(alias="filters[updated_by_id]")] = None,
        start_date: Annotated[str | None, Query(alias="filters[start_date]")] = None,
        end_date: Annotated[str | None, Query(alias="filters[end_date]")] = None,
        sort: str = "-created_at",
        page: int = 1,
        per_page: int = 10,
    ) -> Any:
        if sort.removeprefix("-") not in ("created_at", "updated_at"):
            raise refusal(400, "invalid_parameter", "sort takes created_at or updated_at.", "sort")
        old, new = _ids(request, "old_assignee_ids"), _ids(request, "new_assignee_ids")
        found = [
            one
            for one in operations.requests.values()
            if world.flags["bulk_replace_filters"] == "ignored"
            or (
                status in (None, one.status)
                and kind in (None, one.wanted.replacement_type)
                and updated_by_id in (None, INTEGRATION_USER)
                and (not old or one.wanted.old_assignee_id in old)
                and (not new or new & set(one.wanted.new_assignee_ids))
                and _within(one.wanted.start_date, start_date)
                and _within(one.wanted.end_date, end_date)
            )
        ]
        field_name = sort.removeprefix("-")
        found.sort(key=lambda one: (getattr(one, field_name), int(one.id)), reverse=sort.startswith("-"))
        shown = page_of(request, response, found, page, per_page)
        return {"data": [_request_row(operations, one) for one in shown]}

    @company.post(where, response_model=models.BulkReplaceAccepted, status_code=202)
    async def create_request(body: models.BulkReplace) -> dict[str, Any]:
        created = operations.request_replacement(body)
        operations.catch_up()
        return _accepted(created)

    @company.get(where + "/{id}", response_model=models.BulkReplaceAnswer, response_model_exclude_unset=True)
    async def show_request(id: str) -> dict[str, Any]:
        return {"data": _request_row(operations, operations.find_request(id))}

    @company.put(where + "/{id}", response_model=models.BulkReplaceAccepted, status_code=202)
    async def change_request(id: str, body: models.BulkReplace) -> dict[str, Any]:
        changed = operations.find_request(id)
        operations.change_replacement(changed, body)
        operations.catch_up()
        return _accepted(changed)

    @company.delete(where + "/{id}", response_model=models.BulkReplaceAccepted, status_code=202)
    async def stop_request(id: str) -> dict[str, Any]:
        stopped = operations.find_request(id)
        operations.stop_replacement(stopped)
        return _accepted(stopped)

    @company.get(where + "/{id}/errors", response_model=None, responses={200: CSV, 202: {}, 302: {}})
    async def request_errors(request: Request, id: str) -> Response:
        asked = operations.find_request(id)
        how = world.flags["bulk_replace_report"]
        if how == "forbidden":
            raise refusal(403, "forbidden", "You may not read the errors of this request.")
        if not asked.errors and world.flags["bulk_replace_errors"] == "absent":
            raise refusal(404, "not_found", f"Bulk replace request {id} has no errors.")
        asked.report_reads += 1
        if how == "accepted_first" and asked.report_reads <= EARLY_READS:
            return Response(status_code=202)
        if how == "redirect":
            address = f"{str(request.base_url).rstrip('/')}/_storage/reports/{id}?{SIGNATURE}={_signature(id)}"
            return Response(status_code=302, headers={"Location": address})
        return _report(operations, asked)


def _report(operations: Operations, request: ReplaceRequest) -> Response:
    form = operations.world.flags["bulk_replace_csv"]
    text = io.StringIO()
    lines = csv.writer(text)
    if form != "no_names":
        lines.writerow(("project_id", "preset_id", "message"))
    lines.writerows(request.errors)
    return Response(text.getvalue().encode("utf-16" if form == "utf-16" else "utf-8"), media_type="text/csv")


def _storage(operations: Operations) -> APIRouter:
    """The addresses that lists of errors are redirected to; they trust whoever knows them, and want no token."""
    router = APIRouter(prefix="/_storage", responses={"default": {"model": models.Error}}, tags=["Storage"])

    @router.get("/reports/{id}", response_model=None, responses={200: CSV})
    async def stored_report(request: Request, id: str) -> Response:
        if "Authorization" in request.headers:
            raise refusal(400, "unexpected_authorization", "The address is signed; it takes no Authorization.")
        if request.query_params.get(SIGNATURE) != _signature(id):
            raise refusal(403, "forbidden", "The address is not signed.")
        return _report(operations, operations.find_request(id))

    return router


def _signature(request_id: str) -> str:
    return hashlib.sha256(f"report {request_id}".encode()).hexdigest()


def _ids(request: Request, name: str) -> set[str]:
    """Read a filter of ids, which may be one parameter with commas or several."""
    query = request.query_params
    given = query.getlist(f"filters[{name}][]") + query.getlist(f"filters[{name}]")
    return {one for several in given for one in several.split(",") if one}


def _within(day: str | None, days: str | None) -> bool:
    """Tell whether a day is in ``first...last``, where days are asked for."""
    if days is None:
        return True
    first, _, last = days.partition("...")
    return day is not None and first <= day <= (last or first)
