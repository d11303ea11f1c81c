"""The ASGI application: both products and the control routes, behind the record, the limits and the faults."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from . import control, procore, procore_legacy, workflowsoft
from .world import PROJECT, Fault, Refusal, World

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

OWN_PATHS = ("/_emulator/", "/openapi.json", "/docs")
LARGE = 10_000  # instances of each Procore API in the seed "large"


class Emulated:
    """The two products on one world; a reset makes all of it anew."""

    def __init__(self, seed: str = "default"):
        self.reset(seed)
        self.app = self._routes()

    def reset(self, seed: str) -> None:
        if seed not in ("default", "large"):
            raise Refusal(422, {"error": f"no seed {seed!r}; there are default, large"})
        if hasattr(self, "world"):
            # The routes hold on to these objects, so they are filled anew instead of replaced.
            for holder, fresh in zip((self.world, self.procore, self.legacy, self.workflowsoft), self._fresh(seed)):
                world = self.world
                vars(holder).update({name: value for name, value in vars(fresh).items() if name != "world"})
                assert self.world is world
        else:
            self.world, self.procore, self.legacy, self.workflowsoft = self._fresh(seed)
        self._fill(seed)

    @staticmethod
    def _fresh(seed: str) -> tuple[World, procore.Procore, procore_legacy.ProcoreLegacy, workflowsoft.Workflowsoft]:
        world = World(seed)
        return (
            world,
            procore.Procore(world),
            procore_legacy.ProcoreLegacy(world),
            workflowsoft.Workflowsoft(world),
        )

    def _fill(self, seed: str) -> None:
        purchase_order = procore.TEMPLATES[0]
        self.procore.add("5001", purchase_order, PROJECT["id"], "90002")
        self.legacy.add(procore_legacy.PURCHASE_ORDER, 1953145)
        self.legacy.add(procore_legacy.JOINT_REVIEW, 1953146)
        if seed == "large":
            for number in range(LARGE):
                self.procore.add(str(100_000 + number), purchase_order, PROJECT["id"], "90002")
                self.legacy.add(procore_legacy.PURCHASE_ORDER, 2_000_000 + number)

    def _routes(self) -> FastAPI:
        app = FastAPI(title="Emulator of Procore Workflows and Workflowsoft", version="1", redoc_url=None)
        app.include_router(procore.sign_in_routes(self.world))
        app.include_router(procore.routes(self.world, self.procore))
        app.include_router(procore_legacy.routes(self.world, self.legacy))
        app.include_router(workflowsoft.routes(self.world, self.workflowsoft))
        app.include_router(control.routes(self))
        app.add_exception_handler(Refusal, _refused)
        app.add_exception_handler(RequestValidationError, _invalid)
        app.add_exception_handler(ValidationError, _invalid)
        return app

    # --- in front of the routes ---

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(OWN_PATHS):
            await self.app(scope, receive, send)
            return
        body = await _whole_body(receive)
        request_id = str(uuid.uuid4())
        fault = self._fault(scope)
        if fault is not None and fault.delay:
            await asyncio.sleep(fault.delay)
        answer = _Answer()
        allowed, limits = (True, {}) if _is_workflowsoft(scope) else self.world.take_from_budget()
        if fault is not None and fault.reset == "before":
            answer.status = 0
        elif not allowed:
            await _say(answer, 429, {"message": "You have surpassed the max number of requests."})
        elif fault is not None and fault.status is not None and not fault.after:
            await _say(answer, fault.status, fault.json, fault.body)
        else:
            await self.app(scope, _replay(body), answer.take)
            if fault is not None and fault.status is not None:
                answer = _Answer()
                await _say(answer, fault.status, fault.json, fault.body)
            elif fault is not None and (fault.body is not None or fault.json is not None):
                status = answer.status
                answer = _Answer()
                await _say(answer, status, fault.json, fault.body)
        answer.headers.update(limits)
        answer.headers["X-Request-Id"] = request_id
        if fault is not None:
            answer.headers.update(fault.headers)
        self._record(scope, body, answer.status)
        if fault is not None and fault.reset is not None:
            _connection(send).abort()
        else:
            await answer.give(send, None if fault is None else fault.truncate)

    def _fault(self, scope: Message) -> Fault | None:
        for fault in self.world.faults:
            if fault.method not in (None, scope["method"]) or not re.search(fault.path, scope["path"]):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                return None
            if fault.fired < fault.times:
                fault.fired += 1
                return fault
        return None

    def _record(self, scope: Message, body: bytes, status: int) -> None:
        world = self.world
        world.served += 1
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        world.requests.append(
            {
                "n": world.served,
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
                "body": None if scope["path"].startswith("/oauth/") else _json_or_none(body),
            }
        )


class _Answer:
    """Holds an answer back until it is decided what becomes of it."""

    def __init__(self) -> None:
        self.status = 500
        self.headers: dict[str, str] = {}
        self.body = b""

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")

    async def give(self, send: Send, truncate: int | None) -> None:
        if self.status not in (204, 304):
            self.headers["content-length"] = str(len(self.body))
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.headers.items()]
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


async def _say(answer: _Answer, status: int, body: Any, text: str | None = None) -> None:
    answer.status = status
    answer.headers = {"content-type": "application/json" if text is None else _kind_of(text)}
    answer.body = b"" if text is None and body is None else (json.dumps(body) if text is None else text).encode()


def _kind_of(text: str) -> str:
    return "text/html" if text.lstrip().startswith("<") else "application/json"


async def _whole_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            return body


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


def _is_workflowsoft(scope: Message) -> bool:
    return str(scope["path"]).startswith("/api/")


async def _refused(request: Request, refused: Exception) -> JSONResponse:
    assert isinstance(refused, Refusal)
    return JSONResponse(refused.body, refused.status, refused.headers)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    """Answer a malformed request in the form of the API that was asked."""
    assert isinstance(error, (RequestValidationError, ValidationError))
    problems = [(".".join(str(part) for part in e["loc"]), e["msg"]) for e in error.errors()]
    words = "; ".join(f"{where}: {what}" for where, what in problems)
    if request.url.path.startswith("/_emulator/"):
        return JSONResponse({"error": words}, 422)
    if request.url.path.startswith("/api/"):
        return JSONResponse({"Message": words}, 400)
    if request.url.path.startswith("/rest/v1.0/"):
        return JSONResponse({"message": words, "code": 400}, 400)
    details = [{"reason_code": "invalid", "message": what, "source": where} for where, what in problems]
    status = 400 if request.method == "GET" else 422
    return JSONResponse({"error": {"code": "invalid", "message": words, "details": details}}, status)
