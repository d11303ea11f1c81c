"""What all routes of Procore v2 share: error responses, references to users, paging, and company and project level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Request, Response

from ..state import COMPANY, POSSIBLE_ASSIGNEES, PROJECTS, SECOND_PROJECT, USERS, EmulatorState, Rejection
from . import schemas
from .gateway import accepted_size, check_access, max_page_size, page_headers

Row = TypeVar("Row")


def rejection(status: int, reason: str, message: str, source: str | None = None) -> Rejection:
    detail = {"reason_code": reason, "message": message, "source": source}
    return Rejection(status, {"error": {"code": reason, "message": message, "details": [detail]}})


def user_name(user_id: str) -> dict[str, Any]:
    user = USERS[user_id]
    return {"id": user.id, "login": user.login, "name": user.name}


def user_ref(user_id: str) -> dict[str, Any]:
    return {**user_name(user_id), "company": {"name": COMPANY["name"]}}


def check_possible_assignees(user_ids: Sequence[str], source: str) -> None:
    for user_id in user_ids:
        if user_id not in POSSIBLE_ASSIGNEES:
            raise rejection(422, "not_a_possible_assignee", f"User {user_id} cannot be assigned.", source)


def check_page(request: Request, page: int, per_page: int) -> int:
    """Check the parameters of a list; return the size of its pages."""
    max_size = max_page_size(request, 100)
    if page < 1 or not 1 <= per_page <= max_size:
        raise rejection(400, "invalid_parameter", f"page must be at least 1, and per_page 1 to {max_size}.", "per_page")
    return accepted_size(request, per_page)


def page_of(request: Request, response: Response, found: Sequence[Row], page: int, per_page: int) -> Sequence[Row]:
    """Return the rows of one page, and set the paging headers of the response."""
    per_page = check_page(request, page, per_page)
    response.headers.update(page_headers(request, page, per_page, len(found)))
    return found[(page - 1) * per_page : page * per_page]


async def _project(request: Request) -> str | None:
    return request.path_params.get("project_id")


Project = Annotated[str | None, Depends(_project)]  # None at company level


async def check_idempotency(request: Request, idempotency_token: Annotated[str | None, Header()] = None) -> None:
    """Reject a token that an earlier request sent with another body. Use it as a dependency of a route."""
    if request.state.state.is_reused(idempotency_token, await request.body()):
        message = "The Idempotency-Token was used for another request."
        raise rejection(422, "idempotency_token_reused", message, "Idempotency-Token")


def at_levels(
    state: EmulatorState, company: APIRouter | None = None, both: APIRouter | None = None, version: str = "v2.0"
) -> APIRouter:
    """Mount the company routes below a company, and the routes of both levels below a company and a project."""

    async def company_level(request: Request, company_id: str) -> None:
        check_access(state, request)
        if company_id != COMPANY["id"]:
            raise rejection(404, "not_found", f"Company {company_id} was not found.")

    async def project_level(request: Request, company_id: str, project_id: str) -> None:
        await company_level(request, company_id)
        is_hidden = project_id == SECOND_PROJECT and state.flags["second_project"] != "visible"
        if is_hidden and state.flags["second_project"] == "403":
            raise rejection(403, "forbidden", f"Project {project_id} cannot be seen by this user.")
        if is_hidden or project_id not in PROJECTS:
            raise rejection(404, "not_found", f"Project {project_id} was not found.")

    rejections: dict[int | str, dict[str, Any]] = {
        **{status: {"model": schemas.Error | schemas.GatewayError} for status in (400, 403, 404)},
        **{status: {"model": schemas.Error} for status in (413, 422)},
        "default": {"model": schemas.GatewayError},  # the gateway responds before v2 does
    }
    router = APIRouter(prefix=f"/rest/{version}/companies/{{company_id}}", responses=rejections, tags=["Procore v2"])
    if company is not None:
        router.include_router(company, dependencies=[Depends(company_level)])
    if both is not None:
        router.include_router(both, dependencies=[Depends(company_level)])
        router.include_router(both, prefix="/projects/{project_id}", dependencies=[Depends(project_level)])
    return router
