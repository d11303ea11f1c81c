"""The routes of Procore v2 for instances, responses and histories."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from ..state import INTEGRATION_USER, EmulatorState
from . import schemas
from .common import Project, at_levels, check_idempotency, check_page, page_of, rejection
from .gateway import as_json
from .instances import Instance, Procore
from .response_formats import history, row, show
from .uploads import Uploads

INSTANCE: dict[str, Any] = {"response_model": schemas.InstanceResponse, "response_model_exclude_unset": True}


def routes(state: EmulatorState, procore: Procore, uploads: Uploads) -> APIRouter:
    both = APIRouter()
    _list_and_start(state, procore, both)
    _item_histories(state, procore, both)
    _one_instance(state, procore, uploads, both)
    return at_levels(state, both=both)


def _list_and_start(state: EmulatorState, procore: Procore, both: APIRouter) -> None:
    @both.get("/workflows/instances", response_model=schemas.InstanceList, response_model_exclude_unset=True)
    async def list_instances(
        request: Request,
        response: Response,
        project_id: Project,
        tool_type: Annotated[str | None, Query(alias="filters[tool_type]")] = None,
        tool_subtype: Annotated[int | None, Query(alias="filters[tool_subtype]")] = None,
        item_id: Annotated[str | None, Query(alias="filters[item_id]")] = None,
        assignee_id: Annotated[str | None, Query(alias="filters[assignee_id]")] = None,
        active: Annotated[bool | None, Query(alias="filters[active]")] = None,
        overdue: Annotated[bool | None, Query(alias="filters[overdue]")] = None,
        include_internal: bool = False,
        per_page: int = 10,
        cursor: str | None = None,
        page: int | None = None,
    ) -> Any:
        if tool_type is None:
            raise rejection(400, "missing_parameter", "filters[tool_type] is required.", "filters[tool_type]")
        if tool_type == "correspondence" and tool_subtype is None:
            raise rejection(400, "missing_parameter", "filters[tool_subtype] is required.", "filters[tool_subtype]")
        if cursor is not None and page is not None:
            raise rejection(400, "invalid_parameter", "cursor and page cannot be combined.", "cursor")
        per_page = check_page(request, 1 if page is None else page, per_page)
        style = state.flags["cursor_place"]
        is_numbered = style in ("body_has_more", "body_total_pages")
        paging = state.flags["instances_paging"]
        by_cursor = not is_numbered and (paging == "cursor_only" or (page is None and paging == "cursor_and_page"))
        after = _place(cursor) if by_cursor else 0
        found = procore.of_tool(tool_type, project_id, item_id, after)
        if state.flags["filters"] == "ignored":
            found = procore.of_level(project_id, after)
            active = assignee_id = overdue = tool_subtype = None
        # Lazily, so that a page by cursor does not visit all of 100,000 instances.
        if active is None and state.flags["active_default"] == "active_only":
            active = True
        if active is not None:
            found = (i for i in found if (i.ended_at is None) == active)
        if assignee_id is not None:
            pending_only = state.flags["assignee_filter"] == "pending_only"
            found = (i for i in found if _is_assignee(i, assignee_id, pending_only))
        if overdue is not None:
            found = (i for i in found if (procore.status_of(i) == "overdue") == overdue)
        if tool_subtype is not None:
            found = (i for i in found if i.template.tool_subtype == str(tool_subtype))
        if by_cursor:
            return _cursor_page(procore, request, response, found, per_page)
        if is_numbered:
            return _numbered_page(procore, response, list(found), page or 1, per_page, style)
        shown = page_of(request, response, list(found), page or 1, per_page)
        return as_json(response, {"data": [row(procore, i) for i in shown]})

    @both.post("/workflows/instances", **INSTANCE, status_code=201)
    async def start_instance(response: Response, project_id: Project, body: schemas.StartInstance) -> dict[str, Any]:
        active = procore.active_of(body.tool_type, body.item_id, project_id)
        if active is not None and state.flags["active_instance"] == "existing":
            response.status_code = 200
            return {"data": show(procore, active)}
        return {"data": show(procore, procore.start(body, project_id, INTEGRATION_USER, "api"))}


def _item_histories(state: EmulatorState, procore: Procore, both: APIRouter) -> None:
    @both.get("/workflows/instances/history", response_model=schemas.HistoryList, response_model_exclude_unset=True)
    async def item_histories(project_id: Project, tool_type: str, item_id: str) -> dict[str, Any]:
        if state.flags["item_history"] == "absent":
            raise rejection(404, "not_found", "Not found.")
        procore.check_visible(tool_type, [item_id], project_id)
        found = procore.of_item(tool_type, item_id, project_id)
        return {"data": [history(procore, instance, instance_id=True) for instance in found]}

    @both.post(
        "/workflows/instances/bulk_history",
        response_model=schemas.BulkHistoryResponse,
        response_model_exclude_unset=True,
    )
    async def bulk_history(project_id: Project, body: schemas.BulkHistory) -> dict[str, Any]:
        flags = state.flags
        if flags["bulk_history"] == "absent":
            raise rejection(404, "not_found", "Not found.")
        if flags["bulk_history"] == "not_allowed":
            raise rejection(405, "method_not_allowed", "Method not allowed.")
        if len(body.item_ids) > flags["bulk_history_limit"]:
            message = f"A request takes at most {flags['bulk_history_limit']:g} items."
            raise rejection(int(flags["bulk_history_too_many"]), "too_many_items", message, "item_ids")
        procore.check_visible(body.tool_type, body.item_ids, project_id)
        named = flags["bulk_history"] == "present"
        return {
            "data": [
                {
                    "item_id": item_id,
                    "instances": [
                        history(procore, instance, instance_id=named)
                        for instance in procore.of_item(body.tool_type, item_id, project_id)
                    ],
                }
                for item_id in body.item_ids
            ]
        }


def _one_instance(state: EmulatorState, procore: Procore, uploads: Uploads, both: APIRouter) -> None:
    @both.get("/workflows/instances/{id}", **INSTANCE)
    async def show_instance(project_id: Project, id: str) -> dict[str, Any]:
        return {"data": show(procore, procore.find(id, project_id))}

    @both.get(
        "/workflows/instances/{id}/history",
        response_model=schemas.HistoryResponse,
        response_model_exclude_unset=True,
    )
    async def show_history(project_id: Project, id: str) -> dict[str, Any]:
        if state.flags["history"] == "absent":
            raise rejection(404, "not_found", "Not found.")
        return {"data": history(procore, procore.find(id, project_id))}

    @both.post(
        "/workflows/instances/{id}/responses",
        status_code=204,
        response_model=None,
        dependencies=[Depends(check_idempotency)],
    )
    async def respond(
        project_id: Project, id: str, body: schemas.Respond, idempotency_token: Annotated[str | None, Header()] = None
    ) -> Response | None:
        response = body.response
        if state.flags["respond_status"] == "200_error":
            return JSONResponse({"error": {"code": "busy", "message": "The response was not recorded.", "details": []}})
        instance = procore.find(id, project_id)
        if idempotency_token in procore.response_tokens and state.flags["idempotency"] == "honoured":
            return None
        procore.respond(
            instance,
            response.current_step_occurrence_id,
            INTEGRATION_USER,
            response.selected_response_option_id,
            response.comment,
            uploads.attachments(response.attachments),
            "api",
        )
        if idempotency_token is not None:
            procore.response_tokens.add(idempotency_token)
        if state.flags["respond_status"] == "200":
            return JSONResponse({"data": show(procore, instance)})
        return None

    @both.post(
        "/workflows/instances/{id}/additional_assignees",
        response_model=schemas.InstanceResponse,
        response_model_exclude_unset=True,
    )
    async def add_assignees(project_id: Project, id: str, body: schemas.AddAssignees) -> dict[str, Any]:
        instance = procore.find(id, project_id)
        procore.add_assignees(instance, body, INTEGRATION_USER)
        return {"data": show(procore, instance)}

    @both.post("/workflows/instances/{id}/terminate", **INSTANCE)
    async def terminate(project_id: Project, id: str) -> dict[str, Any]:
        instance = procore.find(id, project_id)
        if state.flags["terminate_enabled"] == "off":
            raise rejection(403, "terminate_disabled", "Terminating workflows is disabled for this tool.")
        procore.terminate(instance, INTEGRATION_USER, "api")
        return {"data": show(procore, instance)}

    @both.post("/workflows/instances/{id}/restart", **INSTANCE)
    async def restart(project_id: Project, id: str, body: schemas.RestartInstance | None = None) -> dict[str, Any]:
        mode = None if body is None else body.restart_mode
        return {"data": show(procore, procore.restart(procore.find(id, project_id), INTEGRATION_USER, mode))}

    @both.post("/workflows/instances/{id}/refresh", **INSTANCE)
    async def refresh(project_id: Project, id: str) -> dict[str, Any]:
        instance = procore.find(id, project_id)
        procore.refresh(instance, INTEGRATION_USER)
        return {"data": show(procore, instance)}


def _is_assignee(instance: Instance, user_id: str, pending_only: bool) -> bool:
    step = instance.current
    return step is not None and user_id in step.assignees and not (pending_only and user_id in step.responses)


def _place(cursor: str | None) -> int:
    """Return the id of the last instance before a cursor."""
    try:
        return 0 if cursor is None else int(base64.urlsafe_b64decode(cursor).decode().removeprefix("after:"))
    except ValueError:
        raise rejection(400, "invalid_parameter", "The cursor is invalid.", "cursor") from None


def _cursor_page(
    procore: Procore, request: Request, response: Response, found: Iterator[Instance], per_page: int
) -> Response:
    shown = list(islice(found, per_page))
    more = next(found, None) is not None
    end = base64.urlsafe_b64encode(f"after:{shown[-1].id}".encode()).decode() if shown else None
    following = end if more else None
    url = None if following is None else str(request.url.include_query_params(cursor=following, per_page=per_page))
    place = procore.state.flags["cursor_place"]
    envelopes: dict[str, dict[str, Any]] = {
        "body_meta_next_cursor": {"meta": {"next_cursor": following}},
        "body_pagination_next_cursor": {"pagination": {"next_cursor": following}},
        "body_links_next": {"links": {"next": url}},
        "body_next_page_token": {"next_page_token": following} if more else {},
        "body_pagination_cursor": {"pagination": {"cursor": following}},
        # These name the end of the page even on the last page.
        "body_page_info_end_cursor": {"page_info": {"end_cursor": end, "has_next_page": more}},
        "body_meta_cursors_after": {"meta": {"cursors": {"after": end}}},
    }
    if place == "link_header":
        response.headers["Per-Page"] = str(per_page)
    if place == "header_next_cursor":
        response.headers["X-Next-Cursor"] = following or ""
    elif place.startswith("link_") and url is not None:
        # A gateway can return the internal address of the server.
        inner = "http://api.internal:8080" + url.partition(request.url.netloc)[2]
        response.headers["Link"] = f'<{url if place == "link_header" else inner}>; rel="next"'
    return as_json(response, {"data": [row(procore, i) for i in shown], **envelopes.get(place, {})})


def _numbered_page(
    procore: Procore, response: Response, found: list[Instance], page: int, per_page: int, style: str
) -> Response:
    """Return a numbered page whose body only shows whether there are more pages."""
    pages = max(-(-len(found) // per_page), 1)
    envelope = {"has_more": page < pages} if style == "body_has_more" else {"meta": {"total_pages": pages}}
    shown = found[(page - 1) * per_page : page * per_page]
    return as_json(response, {"data": [row(procore, i) for i in shown], **envelope})
