"""The routes of Workflowsoft."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import simplejson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse

from ..state import ADMIN_LOGIN, ADMIN_PASSWORD, EmulatorState, Rejection
from . import schemas
from .diagrams import DIAGRAMS
from .instances import USERS, Workflowsoft, server_error
from .response_formats import TOKEN_PATH, shown_title

OnBehalfOf = Annotated[str | None, Header(alias="X-OnBehalfOf-Id")]


def routes(state: EmulatorState, workflowsoft: Workflowsoft) -> APIRouter:
    async def signed_in(request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not state.is_valid(state.ws_tokens, token):
            raise state.token_rejection({"Message": "Authorization has been denied for this request."})

    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": schemas.WsError | schemas.CamelWsError} for status in (400, 401, 404, 500, "default")
    }
    open_router = APIRouter(responses=errors, tags=["Workflowsoft"])
    router = APIRouter(dependencies=[Depends(signed_in)], responses=errors, tags=["Workflowsoft"])

    @open_router.get(
        TOKEN_PATH,
        response_model=str | schemas.ApiToken,
        responses={200: {"content": {"text/plain": {}, "text/html": {}}}, 302: {"description": "To the login page"}},
    )
    async def create_api_token(
        request: Request, lifetime: Annotated[int, Query(alias="lifeTimeInSec")] = 3600
    ) -> Response:
        if not _is_administrator(state, request):
            raise Rejection(401, {"Message": "Authorization has been denied for this request."})
        shape = state.flags["ws_token_shape"]
        if shape == "login_page":
            return HTMLResponse("<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>")
        if shape == "redirect":
            return RedirectResponse("/account/login", status_code=302)
        stated = state.flags["ws_token_lifetime"]
        lifetime = max(lifetime // 2, 1) if stated == "shorter" else lifetime
        token = state.issue(state.ws_tokens, lifetime)
        if shape == "text":
            return PlainTextResponse(token)
        end = {} if stated == "not_stated" else {"expires_in": lifetime}
        return JSONResponse(token if shape == "json_string" else {"access_token": token, **end})

    @router.get("/api/v2/workflows", response_model=list[schemas.IdTitle] | list[schemas.CamelIdTitle])
    async def list_diagrams(
        search_term: Annotated[str | None, Query(alias="searchTerm")] = None,
        mode: str = "view",
        limit: int = 100,
    ) -> Any:
        found = [d for d in DIAGRAMS if search_term is None or search_term.casefold() in d.title.casefold()]
        return [
            {"Id": diagram.id, "Title": shown_title(state.flags, diagram.title)}
            for diagram in found[: workflowsoft.row_limit(limit)]
        ]

    @router.get(
        "/api/v2/workflows/instances/new-integrations",
        response_model=schemas.NewIntegrations,
        responses={200: {"content": {"text/plain": {}}}, 204: {"description": "Nothing new"}},
    )
    async def new_integrations(id: int) -> Any:
        unknown = state.flags["ws_unknown_step"]
        if unknown != "nothing" and not any(step.id == id for diagram in DIAGRAMS for step in diagram.steps):
            message = f"Integration step {id} was not found."
            raise Rejection(404, {"Message": message}) if unknown == "404" else server_error(message)
        found = workflowsoft.poll_new(id)
        wire = [{"IntegrationInstanceId": i.id, "ProcessInstanceId": i.process.id} for i in found]
        if wire:
            return JSONResponse(wire if state.flags["new_integration_shape"] == "list" else wire[0])
        empty = state.flags["no_new_integration"]
        if empty == "204":
            return Response(status_code=204)
        if empty == "empty":
            return PlainTextResponse("")
        if empty == "not_found":
            raise Rejection(404, {"Message": "No new integrations."})
        return JSONResponse({"null": None, "empty_object": {}, "empty_list": []}[empty])

    @router.get(
        "/api/v2/workflows/instances/tasks/{instance_id}/variables",
        response_model=list[schemas.WsField] | list[schemas.PascalWsField],
        response_model_exclude_unset=True,
    )
    async def get_fields(instance_id: str, on_behalf_of: OnBehalfOf = None) -> Any:
        if state.flags["ws_read_on_behalf"] == "needed":
            if on_behalf_of is None:
                raise Rejection(403, {"Message": "You are not a participant of this task."})
            workflowsoft.on_behalf_of(on_behalf_of)
        return workflowsoft.fields(workflowsoft.find(instance_id))

    done: dict[int | str, dict[str, Any]] = {
        200: {"model": schemas.WsDone | schemas.CamelWsDone, "content": {"text/plain": {}}}
    }

    def write_response(**ids: Any) -> Response:
        shape = state.flags["ws_write_response"]
        if shape == "204":
            return Response(status_code=204)
        return PlainTextResponse("OK") if shape == "200_text" else JSONResponse({"Success": True, **ids})

    @router.post("/api/v2/workflows/instances/variables", status_code=204, response_model=None, responses=done)
    async def write_fields(request: Request, body: schemas.WriteFields, on_behalf_of: OnBehalfOf = None) -> Response:
        fields = await exact_fields(request, "Fields")
        by = workflowsoft.on_behalf_of(on_behalf_of)
        workflowsoft.write(workflowsoft.find(body.TaskId), fields, by, "api")
        return write_response(TaskId=body.TaskId)

    @router.patch("/api/v2/tasks/{instance_id}/action", status_code=204, response_model=None, responses=done)
    async def act(instance_id: str, body: schemas.TaskAction, on_behalf_of: OnBehalfOf = None) -> Response:
        by = workflowsoft.on_behalf_of(on_behalf_of)
        if body.Action != "Complete":
            raise workflowsoft.business_error(f"Action '{body.Action}' is not supported.")
        workflowsoft.complete(workflowsoft.find(instance_id), body.CustomAction, by, "api")
        return write_response(Id=instance_id)

    @router.get(
        "/api/v2/workflows/{diagram_id}/tasks", response_model=list[schemas.IdTitle] | list[schemas.CamelIdTitle]
    )
    async def list_steps(diagram_id: int, integration: str = "false") -> Any:
        if state.flags["ws_true"] == "any_case":
            integration = integration.lower()
        if integration not in ("true", "false"):
            raise Rejection(400, {"Message": f"'{integration}' is not a boolean."})
        diagram = next((d for d in DIAGRAMS if d.id == diagram_id), None)
        if diagram is None:
            raise Rejection(404, {"Message": f"Workflow {diagram_id} was not found."})
        found = [(step.id, step.title) for step in diagram.steps]
        if integration == "false":
            found += diagram.user_tasks
        return [{"Id": step_id, "Title": shown_title(state.flags, title)} for step_id, title in found]

    @router.get("/api/users/search", response_model=list[schemas.WsUser] | list[schemas.CamelWsUser])
    async def search_users(
        query: Annotated[str, Query(alias="Query")],
        entity_type: Annotated[Literal["users"], Query(alias="entityType")],
        limit: int = 15,
    ) -> Any:
        text = query.casefold()
        exact = state.flags["ws_user_search"] == "exact"
        texts = [(user, [str(user[name]).casefold() for name in ("FullName", "Email")]) for user in USERS]
        found = [user for user, own in texts if any(text == value if exact else text in value for value in own)]
        return found[: workflowsoft.row_limit(limit)]

    @router.post("/api/v2/workflows/start", response_model=schemas.IdTitle | schemas.CamelIdTitle)
    async def start_process(request: Request, body: schemas.StartProcess, on_behalf_of: OnBehalfOf = None) -> Any:
        fields = await exact_fields(request, "Fields")
        diagram = next((d for d in DIAGRAMS if str(d.id) == str(body.TemplateId)), None)
        if diagram is None:
            raise workflowsoft.business_error(f"Template {body.TemplateId} was not found.")
        first = workflowsoft.start(diagram, workflowsoft.on_behalf_of(on_behalf_of), fields, "api")
        return {"Id": first.process.id, "Title": diagram.title}

    @router.post("/api/v2/tasks", response_model=schemas.WsTask | schemas.CamelWsTask)
    async def create_task(body: schemas.CreateTask, on_behalf_of: OnBehalfOf = None) -> Any:
        by = workflowsoft.on_behalf_of(on_behalf_of)
        assigned_to = None if body.AssignedUserId is None else str(body.AssignedUserId)
        if body.Files is not None and state.flags["ws_files"] == "rejected":
            raise workflowsoft.business_error("Files are not in the expected format.")
        task_id = workflowsoft.create_task(body.Title, body.Description, assigned_to, by, body.Files)
        return {"Id": task_id, "Title": body.Title, "Description": body.Description}

    all_routes = APIRouter()
    all_routes.include_router(open_router)
    all_routes.include_router(router)
    return all_routes


async def exact_fields(request: Request, name: str) -> dict[str, Any]:
    """Read the fields of a validated body again with exact decimals, because FastAPI converts them to floats."""
    try:
        fields: dict[str, Any] = simplejson.loads(await request.body(), use_decimal=True).get(name, {})
    except ValueError:
        raise Rejection(400, {"Message": "The body is not JSON."}) from None
    return fields


def _is_administrator(state: EmulatorState, request: Request) -> bool:
    authorization = request.headers.get("Authorization", "")
    basic = base64.b64encode(f"{ADMIN_LOGIN}:{ADMIN_PASSWORD}".encode()).decode()
    matches = {
        "basic": authorization == f"Basic {basic}",
        "bearer": authorization == f"Bearer {ADMIN_PASSWORD}",
        "cookie": ADMIN_PASSWORD in request.headers.get("Cookie", ""),
    }
    accepted = state.flags["ws_api_token_auth"]
    return any(matches.values()) if accepted == "any" else matches[accepted]
