"""The ASGI application: routes each request, and applies the request log, rate limits and faults before the routes."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import traceback
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from . import control_api, web_ui
from .procore import gateway, instance_routes, instances, operation_routes, operations, preset_routes, uploads
from .procore.templates import PURCHASE_ORDER_APPROVAL
from .procore.variations import varied
from .procore_legacy import instances as procore_legacy
from .procore_legacy import routes as procore_legacy_routes
from .procore_legacy.workflows import JOINT_REVIEW, PURCHASE_ORDER
from .state import PROJECT, EmulatorState, Fault, Rejection
from .workflowsoft import instances as workflowsoft
from .workflowsoft import routes as workflowsoft_routes
from .workflowsoft.response_formats import rewrite_response

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

EMULATOR_PATHS = ("/_emulator/", "/openapi.json")  # and the page at /
READ_METHODS = ("GET", "HEAD", "OPTIONS")
UNRECORDED_BODIES = ("/oauth/", "/_storage/")  # they contain secrets and files
EXTRA_INSTANCES = {"large": 10_000, "huge": 100_000}  # additional instances of each Procore API, by seed


class EmulatorApp:
    """Serve all emulated APIs, the control API and the web UI on one shared state."""

    def __init__(self, seed: str):
        self.state = EmulatorState(seed)
        self.procore = instances.Procore(self.state)
        self.operations = operations.Operations(self.state, self.procore)
        self.uploads = uploads.Uploads(self.state)
        self.legacy = procore_legacy.ProcoreLegacy(self.state)
        self.workflowsoft = workflowsoft.Workflowsoft(self.state)
        self._changes = 0
        self._fill(seed)
        self.app = self._routes()

    @property
    def version(self) -> str:
        """A version of the data of the web UI, which changes with each request, each transition and each minute."""
        state = self.state
        moving = len(self.procore.moving) + len(self.legacy.moving)
        return f"{self._changes}-{state.requests_served}-{moving}-{int(state.clock.time() / 60)}"

    def reset(self, seed: str) -> None:
        """Start again with a seed. The objects are refilled, not replaced, because the routes refer to them."""
        self.state.clear(seed)
        for product in (self.procore, self.operations, self.uploads, self.legacy, self.workflowsoft):
            product.clear()
        self._fill(seed)

    def _fill(self, seed: str) -> None:
        preset = self.procore.presets.by_id["401"]
        self.procore.add("5001", PURCHASE_ORDER_APPROVAL, PROJECT["id"], "90002", preset)
        self.legacy.add(PURCHASE_ORDER, 1953145)
        self.legacy.add(JOINT_REVIEW, 1953146)
        more = range(EXTRA_INSTANCES.get(seed, 0))
        item_ids = (str(100_000 + number) for number in more)
        self.procore.add_many(item_ids, PURCHASE_ORDER_APPROVAL, PROJECT["id"], "90002", preset)
        self.legacy.add_many(PURCHASE_ORDER, (2_000_000 + number for number in more))

    def _routes(self) -> FastAPI:
        app = FastAPI(
            title="Emulator of Procore Workflows and Workflowsoft", version="1", docs_url=None, redoc_url=None
        )
        app.include_router(gateway.routes(self.state))
        app.include_router(preset_routes.routes(self.state, self.procore.presets))
        app.include_router(instance_routes.routes(self.state, self.procore, self.uploads))
        app.include_router(operation_routes.routes(self.state, self.operations))
        app.include_router(uploads.routes(self.state, self.uploads))
        app.include_router(procore_legacy_routes.routes(self.state, self.legacy))
        app.include_router(workflowsoft_routes.routes(self.state, self.workflowsoft))
        app.include_router(control_api.routes(self))
        app.include_router(web_ui.routes(self))
        app.add_exception_handler(Rejection, _rejected)
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(ValidationError, _invalid)
        app.add_exception_handler(HTTPException, _route_not_found)
        return app

    # --- in front of the routes ---

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        scope = _with_whole_segments(scope)
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # the server leaves out the body of a response to HEAD
        if scope["type"] == "http" and _is_cross_site_write(scope):
            await _cross_site_rejection(scope, receive, send)
            return
        if scope["type"] != "http" or (_is_own(scope["path"]) and scope["method"] in READ_METHODS):
            await self._route(scope, receive, send)
            return
        if _is_own(scope["path"]):
            body = await _whole_body(receive)
            if (problem := _json_problem(scope, body)) is not None:
                await JSONResponse({"error": problem}, 400)(scope, receive, send)
            else:
                await self._route(scope, _replay(body), send)
            return
        body = await _whole_body(receive)
        matching = (fault for fault in self.state.faults if fault.applies_to(scope["method"], scope["path"]))
        fault = next(matching, None)
        if fault is None:
            response = await self._limited_response(scope, body)
        else:
            await asyncio.sleep(0 if fault.after else fault.delay)
            response = await self._faulty_response(scope, body, fault)
            await asyncio.sleep(fault.delay if fault.after else 0)
        response.add_headers({"X-Request-Id": str(uuid.uuid4())})
        # The emulator's clock can be ahead of the clock of this machine.
        response.headers.setdefault("date", formatdate(self.state.clock.time(), usegmt=True))
        self._record(scope, body, response.status)
        if fault is not None and fault.reset is not None:
            _connection(send).abort()
        else:
            await response.send_to(send, None if fault is None else fault.truncate)

    async def _faulty_response(self, scope: Message, body: bytes, fault: Fault) -> _BufferedResponse:
        if fault.reset == "before":
            response = _BufferedResponse(0)
        elif fault.status is not None and not fault.after:
            response = _BufferedResponse()
        else:
            response = await self._limited_response(scope, body)
        if fault.status is not None:
            response.status = fault.status
        if fault.status is not None or fault.body is not None or fault.json is not None:
            response.set_body(fault.json, fault.body)
        response.add_headers(fault.headers)
        return response

    async def _limited_response(self, scope: Message, body: bytes) -> _BufferedResponse:
        response = _BufferedResponse()
        # Procore's rate limits apply to Workflowsoft only with the flag ws_rate_limit.
        limited = ("/rest/", "/api/") if self.state.flags["ws_rate_limit"] == "as_procore" else ("/rest/",)
        counts = scope["path"].startswith(limited)
        allowed, limits = self.state.acquire_rate_limit() if counts else (True, {})
        if allowed and (problem := _json_problem(scope, body)) is not None:
            response.status = 400
            response.set_body(_error_body(scope["path"], 400, "invalid", [("body", problem)]))
        elif allowed:
            await self._route(scope, _replay(body), response.receive)
            if scope["path"].startswith("/api/"):
                response.body = rewrite_response(self.state.flags, scope["path"], response.body)
            elif scope["path"].startswith("/rest/"):
                changed = varied(self.state.flags, scope["path"], response.status, response.body)
                if changed is not None:
                    response.set_body(*changed)
        else:
            response.status = 429
            response.set_body(
                {"message": "You have surpassed the max number of requests. Please wait until your limit resets."}
            )
        response.add_headers(limits)
        return response

    async def _route(self, scope: Message, receive: Receive, send: Send) -> None:
        self.procore.catch_up()
        self.operations.catch_up()
        self.legacy.catch_up()
        try:
            await self.app(scope, receive, send)
        except Exception:
            # A bug in the emulator. The client already has its 500, so only the traceback is missing.
            traceback.print_exc()
        finally:
            if not (scope.get("method") in READ_METHODS and _is_own(scope["path"])):
                self._changes += 1

    def _record(self, scope: Message, body: bytes, status: int) -> None:
        state = self.state
        state.requests_served += 1
        state.requests_by_route[f"{scope['method']} {self._template(scope)}"] += 1
        headers = _headers(scope)
        state.requests.append(
            {
                "n": state.requests_served,
                "at": state.clock.iso(),
                "method": scope["method"],
                "path": scope["path"],
                "query": dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True)),
                "status": status,
                "host": headers.get("host"),
                "company_header": headers.get("procore-company-id"),
                "on_behalf_of": headers.get("x-onbehalfof-id"),
                "has_auth": "authorization" in headers,
                "idempotency_token": headers.get("idempotency-token"),
                "body": None if scope["path"].startswith(UNRECORDED_BODIES) else _json_or_none(body),
            }
        )

    def _template(self, scope: Message) -> str:
        """Return the path of the route, such as ``/instances/{id}``, even if the request did not reach the route."""
        route = scope.get("route")
        if route is None:
            route = next((known for known in self.app.routes if known.matches(scope)[0] is Match.FULL), None)
        return str(getattr(route, "path", "(no such route)"))


def _with_whole_segments(scope: Message) -> Message:
    """Return a request in which an encoded slash stays encoded, because a decoded one would select another route."""
    raw = (scope.get("raw_path") or b"").decode("latin-1")
    if "%2f" not in raw.lower():
        return scope
    return {**scope, "path": unquote(re.sub("%2f", "%252F", raw, flags=re.IGNORECASE))}


def _is_own(path: str) -> bool:
    return path == "/" or path.startswith(EMULATOR_PATHS)


def _is_cross_site_write(scope: Message) -> bool:
    """
    Return whether a browser sends a write request for a page of another site. Only browsers send an ``Origin``.

    After DNS rebinding, the origin of an attacker's page equals the host of the request. Both are names then, so only
    an IP address or ``localhost`` counts as the emulator's own.
    """
    if scope["method"] in READ_METHODS:
        return False
    headers = _headers(scope)
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is not None and (origin != f"{scope['scheme']}://{host}" or not _is_address(host))


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _is_address(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


_cross_site_rejection = JSONResponse(
    {"error": "Pages of other sites cannot act here. Open the emulator by its IP address or as localhost."}, 403
)


class _BufferedResponse:
    """Buffer a response, so that faults and rate limits can change it before it is sent."""

    def __init__(self, status: int = 500) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.body = b""

    def add_headers(self, headers: dict[str, str]) -> None:
        self.headers.update({name.lower(): value for name, value in headers.items()})

    def set_body(self, body: Any, text: str | None = None) -> None:
        if text is None:
            text = "" if body is None else json.dumps(body)
        self.headers["content-type"] = "text/html" if text.lstrip().startswith("<") else "application/json"
        self.body = text.encode()

    async def receive(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    async def send_to(self, send: Send, truncate: int | None) -> None:
        if self.status not in (204, 304):
            self.headers["content-length"] = str(len(self.body))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if truncate is None:
            await send({"type": "http.response.body", "body": self.body})
            return
        # The body stays shorter than its Content-Length.
        await send({"type": "http.response.body", "body": self.body[:truncate], "more_body": True})
        _connection(send).close()


def _connection(send: Send) -> asyncio.Transport:
    # uvicorn passes the bound method of its request cycle, which knows the connection.
    return send.__self__.transport  # type: ignore[attr-defined,no-any-return]


async def _whole_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            return bytes(body)


def _replay(body: bytes) -> Receive:
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        return next(messages, {"type": "http.disconnect"})

    return receive


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (RecursionError, ValueError):
        return None


def _json_problem(scope: Message, body: bytes) -> str | None:
    """Return what is wrong with JSON that Python reads, but cannot store or send; files may contain anything."""
    if scope["path"].startswith("/_storage/") or not body:
        return None
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except RecursionError:
        return "The JSON is nested too deeply"
    except UnicodeEncodeError:
        return "A text has half of a surrogate pair"
    except ValueError:  # it is not JSON; the route says whether it must be
        return None
    return None


async def _rejected(request: Request, error: Exception) -> Response:
    assert isinstance(error, Rejection)
    if isinstance(error.body, str):
        return HTMLResponse(error.body, error.status, error.headers)
    return JSONResponse(error.body, error.status, error.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, (RequestValidationError, ValidationError))
    problems = [(".".join(str(part) for part in e["loc"]), str(e["msg"])) for e in error.errors()]
    return _error_response(request, 422 if _is_own(request.url.path) else 400, "invalid", problems)


async def _route_not_found(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    reason = "method_not_allowed" if error.status_code == 405 else "not_found"
    response = _error_response(request, error.status_code, reason, [(request.url.path, str(error.detail))])
    if error.status_code == 405:  # a path has a route for each method
        matching = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
        methods = {method for route in matching for method in getattr(route, "methods", None) or ()}
        response.headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
    return response


def _error_response(request: Request, status: int, reason: str, problems: list[tuple[str, str]]) -> JSONResponse:
    """Return an error response in the format of the API that the path belongs to."""
    return JSONResponse(_error_body(request.url.path, status, reason, problems), status)


def _error_body(path: str, status: int, reason: str, problems: list[tuple[str, str]]) -> dict[str, Any]:
    message = "; ".join(f"{where}: {what}" for where, what in problems)
    if path.startswith("/api/"):
        return {"Message": message}
    if path.startswith("/rest/v1."):
        return {"message": message, "code": status}
    if path.startswith(("/rest/", "/_storage/")):
        details = [{"reason_code": reason, "message": what, "source": where} for where, what in problems]
        return {"error": {"code": reason, "message": message, "details": details}}
    return {"error": message}
