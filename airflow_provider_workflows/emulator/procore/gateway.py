"""What both Procore APIs share: signing in, the company header, page headers, and who am I."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from .. import models
from ..state import CLIENT_ID, CLIENT_SECRET, COMPANY, INTEGRATION_USER, USERS, Refusal, World


def check_access(world: World, request: Request) -> None:
    """Refuse a call without a valid token or without the company, in the forms that live servers were seen to use."""
    request.state.flags = world.flags  # for the pages of its list
    request.state.world = world
    check_token(world, request)
    company = request.headers.get("Procore-Company-Id")
    if company is None:
        message = "Missing Procore-Company-Id header! Every call needs it."
        raise Refusal(int(world.flags["missing_company_header"]), {"message": message})
    if company != COMPANY["id"]:
        raise Refusal(403, {"message": "App is not connected to this company."})


def check_token(world: World, request: Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Refusal(401, {"error": "Invalid Token"})
    if not world.is_valid(world.tokens, token):
        raise world.token_refusal({"errors": "The access token expired or was revoked."})
    return token


def page_of(request: Request, response: Response, rows: list[Any], page: int, per_page: int) -> list[Any]:
    """Return one page of a v1 list, and put its headers into the response."""
    largest = largest_page(request, 2000)
    if page < 1 or not 1 <= per_page <= largest:
        raise Refusal(400, {"message": f"page starts at 1 and per_page is 1 to {largest}", "code": 400})
    response.headers.update(page_headers(request, page, per_page, len(rows)))
    return rows[(page - 1) * per_page : page * per_page]


def largest_page(request: Request, documented: int) -> int:
    """Return how many rows a page may have."""
    limit = request.state.flags["page_limit"]
    return documented if limit == "documented" else int(limit)


def as_json(response: Response, content: Any) -> JSONResponse:
    """Return an answer as it is, with the headers set so far: to hold a long list against its model takes long."""
    return JSONResponse(content, headers=dict(response.headers))


def page_headers(request: Request, page: int, per_page: int, total: int) -> dict[str, str]:
    """Return the headers of a page of a list that is read by page numbers."""
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


def routes(world: World) -> APIRouter:
    refusals: dict[int | str, dict[str, Any]] = {
        400: {"model": models.OAuthError | models.LegacyError},
        401: {"model": models.OAuthError | models.LegacyError},
        403: {"model": models.LegacyError},
        "default": {"model": models.LegacyError},
    }
    router = APIRouter(tags=["Procore sign-in"], responses=refusals)

    @router.post("/oauth/token", response_model=models.OAuthToken)
    async def create_token(request: Request) -> dict[str, Any]:
        grant = await _grant(request)
        if grant.get("grant_type") != "client_credentials":
            raise _oauth_refusal(400, "unsupported_grant_type", "Only client_credentials is known here.")
        if (grant.get("client_id"), grant.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            words = "Client authentication failed due to unknown client, or no client authentication included."
            raise _oauth_refusal(401, "invalid_client", words)
        lifetime = int(world.flags["token_lifetime"])
        token = world.issue(world.tokens, lifetime)
        now = int(world.clock.time())
        return {"access_token": token, "token_type": "bearer", "expires_in": lifetime, "created_at": now}

    @router.get("/oauth/token/info", response_model=models.OAuthTokenInfo)
    async def token_info(request: Request) -> dict[str, Any]:
        end = world.tokens[check_token(world, request)]
        return {
            "resource_owner_id": int(INTEGRATION_USER),
            "scopes": [],
            "expires_in_seconds": int(end - world.clock.time()),
            "application": {"uid": CLIENT_ID},
            "created_at": int(end - world.flags["token_lifetime"]),
        }

    @router.post("/oauth/revoke", response_model=models.Nothing)
    async def revoke(request: Request) -> dict[str, Any]:
        world.tokens.pop(str((await _grant(request)).get("token")), None)
        return {}

    @router.get("/rest/v1.0/me", response_model=models.Me, response_model_exclude_unset=True)
    async def me(request: Request, company_id: int | None = None, project_id: int | None = None) -> dict[str, Any]:
        check_access(world, request)
        user = USERS[INTEGRATION_USER]
        shown: dict[str, Any] = {"id": int(user.id), "login": user.login}
        return shown if company_id is None and project_id is None else {**shown, "name": user.name}

    @router.get("/rest/v1.0/companies", response_model=list[models.Company])
    async def companies(request: Request) -> list[dict[str, Any]]:
        check_access(world, request)
        return [{"id": int(COMPANY["id"]), "name": COMPANY["name"], "is_active": True}]

    @router.get(
        "/rest/v1.3/companies/{company_id}/users",
        response_model=list[models.CompanyUser],
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
        check_access(world, request)
        if str(company_id) != COMPANY["id"]:
            raise Refusal(403, {"message": "Access denied", "code": 403})
        wanted = search.casefold()
        found = [user for user in USERS.values() if wanted in f"{user.login} {user.name}".casefold()]
        ids = world.flags["directory_ids"]
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
    """Read the grant from JSON or a form, and the client from HTTP Basic where it is there."""
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
        raise _oauth_refusal(400, "invalid_request", "The request cannot be read.") from None
    return grant


def _oauth_refusal(status: int, error: str, description: str) -> Refusal:
    return Refusal(status, {"error": error, "error_description": description})
