"""What both Procore APIs share: sign-in, the company header, paging headers, the current user and the directory."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from ..schemas import Empty
from ..state import CLIENT_ID, CLIENT_SECRET, COMPANY, INTEGRATION_USER, USERS, EmulatorState, Rejection
from . import schemas


def check_access(state: EmulatorState, request: Request) -> None:
    """Reject a call without a valid token or company header, in the format that live servers use."""
    request.state.flags = state.flags  # read by the paging functions
    request.state.state = state
    check_token(state, request)
    company = request.headers.get("Procore-Company-Id")
    if company is None:
        message = "Missing Procore-Company-Id header! Every call needs it."
        raise Rejection(int(state.flags["missing_company_header"]), {"message": message})
    if company != COMPANY["id"]:
        raise Rejection(403, {"message": "App is not connected to this company."})


def check_token(state: EmulatorState, request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Rejection(401, {"error": "Invalid Token"})
    if not state.is_valid(state.tokens, token):
        raise state.token_rejection({"errors": "The access token expired or was revoked."})
    return token


def page_of(request: Request, response: Response, rows: list[Any], page: int, per_page: int) -> list[Any]:
    """Return one page of a v1 list, and set the paging headers of the response."""
    max_size = max_page_size(request, 2000)
    per_page = accepted_size(request, per_page)
    if page < 1 or not 1 <= per_page <= max_size:
        raise Rejection(400, {"message": f"page must be at least 1, and per_page 1 to {max_size}", "code": 400})
    response.headers.update(page_headers(request, page, per_page, len(rows)))
    return rows[(page - 1) * per_page : page * per_page]


def max_page_size(request: Request, documented: int) -> int:
    """Return the maximum page size."""
    return 50 if request.state.flags["page_limit"] == "50" else documented


def accepted_size(request: Request, per_page: int) -> int:
    """Return the size of a page for the requested one."""
    return min(per_page, 50) if request.state.flags["page_limit"] == "lowered" else per_page


def as_json(response: Response, content: Any) -> JSONResponse:
    """Return content unchecked, with the headers set so far. Validating a long list against its schema is slow."""
    return JSONResponse(content, headers=dict(response.headers))


def page_headers(request: Request, page: int, per_page: int, total: int) -> dict[str, str]:
    """Return the paging headers of a list with numbered pages."""
    pages = max(-(-total // per_page), 1)
    counted = str(total + (request.state.flags["list_total"] == "hidden_rows_too"))
    style = request.state.flags["page_headers"]
    others: dict[str, dict[str, str]] = {
        "next_page": {"X-Next-Page": str(page + 1) if page < pages else ""},
        "total_pages": {"X-Total-Pages": str(pages)},
        "has_more": {"X-Has-More": str(page < pages).lower()},
        "none": {},
    }
    if style in others:
        return others[style]
    places = {"first": 1, "prev": page - 1, "next": page + 1, "last": pages}
    links = [
        f'<{request.url.include_query_params(page=number, per_page=per_page)}>; rel="{rel}"'
        for rel, number in places.items()
        if 1 <= number <= pages
    ]
    return {"Link": ", ".join(links), "Total": counted, "Per-Page": str(per_page)}


def routes(state: EmulatorState) -> APIRouter:
    rejections: dict[int | str, dict[str, Any]] = {
        400: {"model": schemas.OAuthError | schemas.GatewayError},
        401: {"model": schemas.OAuthError | schemas.GatewayError},
        403: {"model": schemas.GatewayError},
        "default": {"model": schemas.GatewayError},
    }
    router = APIRouter(tags=["Procore sign-in"], responses=rejections)

    @router.post("/oauth/token", response_model=schemas.OAuthToken)
    async def create_token(request: Request) -> dict[str, Any]:
        grant = await _grant(request)
        if grant.get("grant_type") != "client_credentials":
            raise _oauth_rejection(400, "unsupported_grant_type", "Only client_credentials is supported.")
        if (grant.get("client_id"), grant.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            message = "Client authentication failed due to unknown client, or no client authentication included."
            raise _oauth_rejection(401, "invalid_client", message)
        lifetime = int(state.flags["token_lifetime"])
        token = state.issue(state.tokens, lifetime)
        now = int(state.clock.time())
        return {"access_token": token, "token_type": "bearer", "expires_in": lifetime, "created_at": now}

    @router.get("/oauth/token/info", response_model=schemas.OAuthTokenInfo)
    async def token_info(request: Request) -> dict[str, Any]:
        end = state.tokens[check_token(state, request)]
        return {
            "resource_owner_id": int(INTEGRATION_USER),
            "scopes": [],
            "expires_in_seconds": int(end - state.clock.time()),
            "application": {"uid": CLIENT_ID},
            "created_at": int(end - state.flags["token_lifetime"]),
        }

    @router.post("/oauth/revoke", response_model=Empty)
    async def revoke(request: Request) -> dict[str, Any]:
        state.tokens.pop(str((await _grant(request)).get("token")), None)
        return {}

    @router.get("/rest/v1.0/me", response_model=schemas.Me, response_model_exclude_unset=True)
    async def me(request: Request, company_id: int | None = None, project_id: int | None = None) -> dict[str, Any]:
        check_access(state, request)
        user = USERS[INTEGRATION_USER]
        shown: dict[str, Any] = {"id": int(user.id), "login": user.login}
        return shown if company_id is None and project_id is None else {**shown, "name": user.name}

    @router.get("/rest/v1.0/companies", response_model=list[schemas.Company])
    async def companies(request: Request) -> list[dict[str, Any]]:
        check_access(state, request)
        return [{"id": int(COMPANY["id"]), "name": COMPANY["name"], "is_active": True}]

    @router.get(
        "/rest/v1.3/companies/{company_id}/users",
        response_model=list[schemas.CompanyUser],
        response_model_exclude_unset=True,
    )
    async def company_users(
        request: Request,
        response: Response,
        company_id: int,
        search: Annotated[str, Query(alias="filters[search]")] = "",
        page: int = 1,
        per_page: int = 100,
    ) -> list[dict[str, Any]]:
        check_access(state, request)
        if str(company_id) != COMPANY["id"]:
            raise Rejection(403, {"message": "Access denied", "code": 403})
        text = search.casefold()
        found = [user for user in USERS.values() if text in f"{user.login} {user.name}".casefold()]
        ids = state.flags["directory_ids"]
        beside = ids == "own_beside"
        return [
            {
                **({"login_information_id": int(user.id)} if beside else {}),
                "id": int(user.id) + (0 if ids == "login_information" else 1_000_000),
                "login": user.login,
                "email_address": user.login,
                "name": user.name,
                "is_active": True,
            }
            for user in page_of(request, response, found, page, per_page)
        ]

    return router


async def _grant(request: Request) -> dict[str, Any]:
    """Read the grant from JSON or a form, and the client from HTTP Basic if it is present."""
    try:
        if "json" in request.headers.get("Content-Type", ""):
            grant = dict(await request.json())
        else:
            grant = dict(await request.form())
        scheme, _, packed = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            login, _, password = base64.b64decode(packed).decode().partition(":")
            grant |= {"client_id": login, "client_secret": password}
    except (ValueError, TypeError):
        raise _oauth_rejection(400, "invalid_request", "The request is malformed.") from None
    return grant


def _oauth_rejection(status: int, error: str, description: str) -> Rejection:
    return Rejection(status, {"error": error, "error_description": description})
