"""The ASGI application: both products and the control routes, behind the record, the limits and the faults."""

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
from .procore import gateway, instance_routes, instances, operations, presets, uploads
from .procore.templates import PURCHASE_ORDER_APPROVAL
from .procore_legacy import instances as procore_legacy
from .state import PROJECT, Fault, Refusal, World
from .workflowsoft import instances as workflowsoft

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

OWN_PATHS = ("/_emulator/", "/openapi.json")  # and the page at /
READING = ("GET", "HEAD", "OPTIONS")
UNRECORDED_BODIES = ("/oauth/", "/_storage/")  # secrets, and files
MANY = {"large": 10_000, "huge": 100_000}  # more instances of each Procore API, by the seed


class Emulated:
    """The two products on one world; a reset makes all of it anew."""

    def __init__(self, seed: str):
        self.world = World(seed)
        self.procore = instances.Procore(self.world)
        self.operations = operations.Operations(self.world, self.procore)
        self.uploads = uploads.Uploads(self.world)
        self.legacy = procore_legacy.ProcoreLegacy(self.world)
        self.workflowsoft = workflowsoft.Workflowsoft(self.world)
        self._changes = 0
        self._fill(seed)
        self.app = self._routes()

    @property
    def version(self) -> str:
        """What the page shows is the same as long as this is: it tells each request and each transition, and time."""
        world = self.world
        moving = len(self.procore.moving) + len(self.legacy.moving)
        return f"{self._changes}-{world.requests_served}-{moving}-{int(world.clock.time() / 60)}"

    def reset(self, seed: str) -> None:
        """Begin anew; the routes hold on to these objects, so they are refilled instead of replaced."""
        self.world.clear(seed)
        for product in (self.procore, self.operations, self.uploads, self.legacy, self.workflowsoft):
            product.clear()
        self._fill(seed)

    def _fill(self, seed: str) -> None:
        preset = self.procore.presets.by_id["401"]
        self.procore.add("5001", PURCHASE_ORDER_APPROVAL, PROJECT["id"], "90002", preset)
        self.legacy.add(procore_legacy.PURCHASE_ORDER, 1953145)
        self.legacy.add(procore_legacy.JOINT_REVIEW, 1953146)
        more = range(MANY.get(seed, 0))
        item_ids = (str(100_000 + number) for number in more)
        self.procore.add_many(item_ids, PURCHASE_ORDER_APPROVAL, PROJECT["id"], "90002", preset)
        self.legacy.add_many(procore_legacy.PURCHASE_ORDER, (2_000_000 + number for number in more))

    def _routes(self) -> FastAPI:
        app = FastAPI(
            title="Emulator of Procore Workflows and Workflowsoft", version="1", docs_url=None, redoc_url=None
        )
        app.include_router(gateway.routes(self.world))
        app.include_router(presets.routes(self.world, self.procore.presets))
        app.include_router(instance_routes.routes(self.world, self.procore, self.uploads))
        app.include_router(operations.routes(self.world, self.operations))
        app.include_router(uploads.routes(self.world, self.uploads))
        app.include_router(procore_legacy.routes(self.world, self.legacy))
        app.include_router(workflowsoft.routes(self.world, self.workflowsoft))
        app.include_router(control_api.routes(self))
        app.include_router(web_ui.routes(self))
        app.add_exception_handler(Refusal, _refused)
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(ValidationError, _invalid)
        app.add_exception_handler(HTTPException, _no_such_route)
        return app

    # --- in front of the routes ---

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        scope = _with_whole_segments(scope)
        if scope["type"] == "http" and _acts_from_elsewhere(scope):
            await _elsewhere(scope, receive, send)
            return
        if scope["type"] != "http" or _is_own(scope["path"]):
            await self._route(scope, receive, send)
            return
        body = await _whole_body(receive)
        strikes = (fault for fault in self.world.faults if fault.strikes(scope["method"], scope["path"]))
        fault = next(strikes, None)
        if fault is None:
            answer = await self._answer(scope, body)
        else:
            await asyncio.sleep(0 if fault.after else fault.delay)
            answer = await self._spoiled_answer(scope, body, fault)
            await asyncio.sleep(fault.delay if fault.after else 0)
        answer.add({"X-Request-Id": str(uuid.uuid4())})
        # By the emulator's own clock, which can be ahead of this machine's.
        answer.headers.setdefault("date", formatdate(self.world.clock.time(), usegmt=True))
        self._record(scope, body, answer.status)
        if fault is not None and fault.reset is not None:
            _connection(send).abort()
        else:
            await answer.give(send, None if fault is None else fault.truncate)

    async def _spoiled_answer(self, scope: Message, body: bytes, fault: Fault) -> _Answer:
        if fault.reset == "before":
            answer = _Answer(0)
        elif fault.status is not None and not fault.after:
            answer = _Answer()
        else:
            answer = await self._answer(scope, body)
        if fault.status is not None:
            answer.status = fault.status
        if fault.status is not None or fault.body is not None or fault.json is not None:
            answer.say(fault.json, fault.body)
        answer.add(fault.headers)
        return answer

    async def _answer(self, scope: Message, body: bytes) -> _Answer:
        answer = _Answer()
        # The limits are those of Procore's API, and of the other one only if a flag says so.
        limited = ("/rest/", "/api/") if self.world.flags["ws_rate_limit"] == "as_procore" else ("/rest/",)
        counts = scope["path"].startswith(limited)
        allowed, limits = self.world.take_from_budget() if counts else (True, {})
        if allowed:
            await self._route(scope, _replay(body), answer.take)
            if scope["path"].startswith("/api/"):
                answer.body = self.workflowsoft.spell(scope["path"], answer.body)
        else:
            answer.status = 429
            answer.say(
                {"message": "You have surpassed the max number of requests. Please wait until your limit resets."}
            )
        answer.add(limits)
        return answer

    async def _route(self, scope: Message, receive: Receive, send: Send) -> None:
        self.procore.catch_up()
        self.operations.catch_up()
        self.legacy.catch_up()
        try:
            await self.app(scope, receive, send)
        except Exception:
            # A bug of the emulator. The client has its 500 already; here is what the log needs.
            traceback.print_exc()
        finally:
            if not (scope.get("method") in READING and _is_own(scope["path"])):
                self._changes += 1

    def _record(self, scope: Message, body: bytes, status: int) -> None:
        world = self.world
        world.requests_served += 1
        world.requests_by_route[f"{scope['method']} {self._template(scope)}"] += 1
        headers = _headers(scope)
        world.requests.append(
            {
                "n": world.requests_served,
                "at": world.clock.iso(),
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
        """Return the path with names in the place of its ids; a request that never got to its route counts, too."""
        route = scope.get("route")
        if route is None:
            route = next((one for one in self.app.routes if one.matches(scope)[0] is Match.FULL), None)
        return str(getattr(route, "path", "(no such route)"))


def _with_whole_segments(scope: Message) -> Message:
    """Return a request whose ids keep a slash that came encoded, which would else lead to another route."""
    raw = (scope.get("raw_path") or b"").decode("latin-1")
    if "%2f" not in raw.lower():
        return scope
    return {**scope, "path": unquote(re.sub("%2f", "%252F", raw, flags=re.IGNORECASE))}


def _is_own(path: str) -> bool:
    return path == "/" or path.startswith(OWN_PATHS)


def _acts_from_elsewhere(scope: Message) -> bool:
    """
    Tell whether a browser sends this for a page that is not the emulator's own. Only browsers name an origin.

    A page whose name was made to lead to this machine (DNS rebinding) has an origin like the host that is asked; but
    that is a name, and only an address or ``localhost`` is certain to be the emulator.
    """
    if scope["method"] in READING:
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


_elsewhere = JSONResponse(
    {"error": "pages of other sites may not act here; open the emulator's own by its address or as localhost"}, 403
)


class _Answer:
    """Holds an answer back until it is decided what becomes of it."""

    def __init__(self, status: int = 500) -> None:
        self.status = status
        self.headers: dict[str, str] = {}
        self.body = b""

    def add(self, headers: dict[str, str]) -> None:
        self.headers.update({name.lower(): value for name, value in headers.items()})

    def say(self, body: Any, text: str | None = None) -> None:
        if text is None:
            text = "" if body is None else json.dumps(body)
        self.headers["content-type"] = "text/html" if text.lstrip().startswith("<") else "application/json"
        self.body = text.encode()

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    async def give(self, send: Send, truncate: int | None) -> None:
        if self.status not in (204, 304):
            self.headers["content-length"] = str(len(self.body))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if truncate is None:
            await send({"type": "http.response.body", "body": self.body})
            return
        # The promised length is not kept: the rest never comes.
        await send({"type": "http.response.body", "body": self.body[:truncate], "more_body": True})
        _connection(send).close()


def _connection(send: Send) -> asyncio.Transport:
    # uvicorn hands the bound method of its request cycle; the cycle holds the connection.
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
    except ValueError:
        return None


async def _refused(request: Request, refused: Exception) -> Response:
    assert isinstance(refused, Refusal)
    if isinstance(refused.body, str):
        return HTMLResponse(refused.body, refused.status, refused.headers)
    return JSONResponse(refused.body, refused.status, refused.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, (RequestValidationError, ValidationError))
    problems = [(".".join(str(part) for part in e["loc"]), str(e["msg"])) for e in error.errors()]
    return _refuse(request, 422 if _is_own(request.url.path) else 400, "invalid", problems)


async def _no_such_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _refuse(request, error.status_code, "not_found", [(request.url.path, str(error.detail))])


def _refuse(request: Request, status: int, reason: str, problems: list[tuple[str, str]]) -> JSONResponse:
    """Refuse in the form of the API that was asked."""
    path = request.url.path
    words = "; ".join(f"{where}: {what}" for where, what in problems)
    if path.startswith("/api/"):
        return JSONResponse({"Message": words}, status)
    if path.startswith("/rest/v1."):
        return JSONResponse({"message": words, "code": status}, status)
    if path.startswith(("/rest/", "/_storage/")):
        details = [{"reason_code": reason, "message": what, "source": where} for where, what in problems]
        return JSONResponse({"error": {"code": reason, "message": words, "details": details}}, status)
    return JSONResponse({"error": words}, status)
