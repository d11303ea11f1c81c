"""The routes of Procore v2's asynchronous operations: bulk start, and bulk replacement of an assignee."""

from __future__ import annotations

import csv
import hashlib
import io
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from ..state import INTEGRATION_USER, EmulatorState
from . import schemas
from .common import Project, at_levels, check_idempotency, page_of, rejection, user_ref
from .operations import Operation, Operations, ReplaceRequest

EARLY_READS = 2  # reads of the list of errors that respond with 202
SIGNATURE = "X-Signature"

# --- response formats ---


def _operation(operations: Operations, operation: Operation) -> dict[str, Any]:
    iso = operations.state.clock.iso
    status = operations.status(operation)
    _, result, error = operation.outcome or (status, None, None)
    return {
        "id": operation.id,
        "operation_type": operation.kind,
        "status": operations.state.in_background_case(status),
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
    iso = operations.state.clock.iso
    requested = request.requested
    manager = requested.new_workflow_manager_id
    rows = operations.state.flags["bulk_replace_rows"]
    if rows == "bare":
        return {"id": request.id, "status": operations.shown_status(request)}
    people: dict[str, Any] = {
        "old_assignee": user_ref(requested.old_assignee_id),
        "new_assignees": [user_ref(user_id) for user_id in requested.new_assignee_ids],
    }
    if rows == "ids":
        people = {"old_assignee_id": requested.old_assignee_id, "new_assignee_ids": requested.new_assignee_ids}
    days = {"start_date": requested.start_date, "end_date": requested.end_date}
    reason = requested.reason
    if rows == "cut":
        ends = {"start_date": "T00:00:00-08:00", "end_date": "T23:59:59-08:00"}
        days = {name: None if day is None else day + ends[name] for name, day in days.items()}
        reason = f"{reason[: len(reason) // 2]}..."
    return {
        "id": request.id,
        "status": operations.shown_status(request),
        "replacement_type": requested.replacement_type,
        **people,
        "new_workflow_manager": None if manager is None else user_ref(manager),
        "modify_project_roles": requested.modify_project_roles,
        "reason": reason,
        **days,
        "project_ids": requested.project_ids,
        "tools": requested.tools,
        "created_at": iso(request.created_at),
        "updated_at": iso(request.updated_at),
        "updated_by": user_ref(INTEGRATION_USER),
    }


def _accepted(request: ReplaceRequest) -> dict[str, Any]:
    return {"data": {"bulk_replace_request_id": request.id, "operation_id": request.operation_id}}


# --- routes ---


CSV: dict[str, Any] = {"content": {"text/csv": {"schema": {"type": "string"}}}}


def routes(state: EmulatorState, operations: Operations) -> APIRouter:
    company = APIRouter()
    both = APIRouter()
    _operation_routes(operations, company, both)
    _replace_routes(state, operations, company)
    router = APIRouter()
    router.include_router(at_levels(state, company, both))
    router.include_router(_storage(operations))
    return router


def _operation_routes(operations: Operations, company: APIRouter, both: APIRouter) -> None:
    @both.post(
        "/workflows/instances/bulk_create",
        response_model=schemas.OperationAccepted,
        status_code=202,
        dependencies=[Depends(check_idempotency)],
    )
    async def bulk_create(
        project_id: Project, body: schemas.BulkCreate, idempotency_token: Annotated[str | None, Header()] = None
    ) -> dict[str, Any]:
        operation = operations.bulk_create(body, project_id, idempotency_token)
        operations.catch_up()
        return {"data": {"operation_id": operation.id, "operation_type": operation.kind}}

    @company.get("/async_operations/{operation_id}", response_model=schemas.OperationResponse)
    async def show_operation(operation_id: str) -> dict[str, Any]:
        return {"data": _operation(operations, operations.find(operation_id))}


def _replace_routes(state: EmulatorState, operations: Operations, company: APIRouter) -> None:
    where = "/workflows/bulk_replace_requests"

    @company.get(where, response_model=schemas.BulkReplaceList, response_model_exclude_unset=True)
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
            raise rejection(400, "invalid_parameter", "sort must be created_at or updated_at.", "sort")
        old, new = _ids(request, "old_assignee_ids"), _ids(request, "new_assignee_ids")
        found = [
            replacement
            for replacement in operations.requests.values()
            if state.flags["bulk_replace_filters"] == "ignored"
            or (
                status in (None, replacement.status)
                and kind in (None, replacement.requested.replacement_type)
                and updated_by_id in (None, INTEGRATION_USER)
                and (not old or replacement.requested.old_assignee_id in old)
                and (not new or new & set(replacement.requested.new_assignee_ids))
                and _within(replacement.requested.start_date, start_date)
                and _within(replacement.requested.end_date, end_date)
            )
        ]
        field_name = sort.removeprefix("-")
        found.sort(
            key=lambda replacement: (getattr(replacement, field_name), int(replacement.id)),
            reverse=sort.startswith("-"),
        )
        shown = page_of(request, response, found, page, per_page)
        return {"data": [_request_row(operations, replacement) for replacement in shown]}

    @company.post(where, response_model=schemas.BulkReplaceAccepted, status_code=202)
    async def create_request(body: schemas.BulkReplace) -> dict[str, Any]:
        created = operations.request_replacement(body)
        operations.catch_up()
        return _accepted(created)

    @company.get(where + "/{id}", response_model=schemas.BulkReplaceResponse, response_model_exclude_unset=True)
    async def show_request(id: str) -> dict[str, Any]:
        return {"data": _request_row(operations, operations.find_request(id))}

    @company.put(where + "/{id}", response_model=schemas.BulkReplaceAccepted, status_code=202)
    async def change_request(id: str, body: schemas.BulkReplace) -> dict[str, Any]:
        changed = operations.find_request(id)
        operations.change_replacement(changed, body)
        operations.catch_up()
        return _accepted(changed)

    @company.delete(where + "/{id}", response_model=schemas.BulkReplaceAccepted, status_code=202)
    async def stop_request(id: str) -> dict[str, Any]:
        stopped = operations.find_request(id)
        operations.stop_replacement(stopped)
        return _accepted(stopped)

    @company.get(where + "/{id}/errors", response_model=None, responses={200: CSV, 202: {}, 302: {}})
    async def request_errors(request: Request, id: str) -> Response:
        found = operations.find_request(id)
        how = state.flags["bulk_replace_report"]
        if how == "forbidden":
            raise rejection(403, "forbidden", "You may not read the errors of this request.")
        if not found.errors and state.flags["bulk_replace_errors"] == "absent":
            raise rejection(404, "not_found", f"Bulk replace request {id} has no errors.")
        found.report_reads += 1
        if how == "accepted_first" and found.report_reads <= EARLY_READS:
            return Response(status_code=202)
        if how == "redirect":
            address = f"{str(request.base_url).rstrip('/')}/_storage/reports/{id}?{SIGNATURE}={_signature(id)}"
            return Response(status_code=302, headers={"Location": address})
        return _report(operations, found)


def _report(operations: Operations, request: ReplaceRequest) -> Response:
    report_format = operations.state.flags["bulk_replace_csv"]
    text = io.StringIO()
    lines = csv.writer(text)
    if report_format != "no_names":
        lines.writerow(("project_id", "preset_id", "message"))
    lines.writerows(request.errors)
    return Response(text.getvalue().encode("utf-16" if report_format == "utf-16" else "utf-8"), media_type="text/csv")


def _storage(operations: Operations) -> APIRouter:
    """Return the routes that error reports are redirected to. Their signed address is enough, so they take no token."""
    router = APIRouter(prefix="/_storage", responses={"default": {"model": schemas.Error}}, tags=["Storage"])

    @router.get("/reports/{id}", response_model=None, responses={200: CSV})
    async def stored_report(request: Request, id: str) -> Response:
        if "Authorization" in request.headers:
            raise rejection(400, "unexpected_authorization", "The address is signed and takes no Authorization header.")
        if request.query_params.get(SIGNATURE) != _signature(id):
            raise rejection(403, "forbidden", "The address is not signed.")
        return _report(operations, operations.find_request(id))

    return router


def _signature(request_id: str) -> str:
    return hashlib.sha256(f"report {request_id}".encode()).hexdigest()


def _ids(request: Request, name: str) -> set[str]:
    """Read a filter of ids: one parameter with commas, or several parameters."""
    query = request.query_params
    values = query.getlist(f"filters[{name}][]") + query.getlist(f"filters[{name}]")
    return {single for value in values for single in value.split(",") if single}


def _within(day: str | None, days: str | None) -> bool:
    """Return whether a day is in the range ``first...last``, or no range was requested."""
    if days is None:
        return True
    first, _, last = days.partition("...")
    return day is not None and first <= day <= (last or first)
