"""Workflowsoft: process diagrams, integration steps with typed fields, tasks, and the routes."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import simplejson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse

from . import models
from .world import ADMIN_LOGIN, ADMIN_PASSWORD, Refusal, World

USERS = [
    {"Id": 11, "FullName": "Olga Owner", "Email": "olga@example.com"},
    {"Id": 12, "FullName": "Sam Steward", "Email": "sam@example.com"},
]


@dataclass(frozen=True)
class FieldDefinition:
    label: str
    type: str
    key: str
    value: str | None = None  # JSON text
    read_only: bool = False
    required: bool = False
    options: tuple[str, ...] | None = None


@dataclass(frozen=True)
class StepDefinition:
    id: int
    title: str
    fields: tuple[FieldDefinition, ...]


@dataclass(frozen=True)
class Diagram:
    """A process diagram; its integration steps open one after the other."""

    id: int
    title: str
    steps: tuple[StepDefinition, ...]
    user_tasks: tuple[tuple[int, str], ...] = ()  # steps that are no integration steps: id and title


EVENT_FIELDS = (
    FieldDefinition("Event name", "String", "9aae87b4-2b01-43eb-be17-d0080a225f54", '"Event Test"'),
    FieldDefinition("Event exists", "Boolean?", "3db9d864-d2ea-43f5-8907-2a350c5708d5", "true"),
    FieldDefinition("Event start", "DateTime?", "cdb815a3-0c60-4cd6-88b2-ef3f9becddc7", '"2021-08-24T21:00:00Z"'),
    FieldDefinition("Event duration", "Decimal?", "4dc8a917-da0c-4cf7-a43e-064785e42785", "1640.0"),
    FieldDefinition("Requested by", "String", "5f0c2b52-6a3e-4a5e-9a57-0d3c6a1e7b11", '"Olga Owner"', read_only=True),
    FieldDefinition("Venue", "String", "b7e6d1c0-1f2a-4c3b-8d4e-5f6a7b8c9d0e", required=True),
)
VENDOR_FIELDS = (
    FieldDefinition("Vendor", "String", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e01", '"Example Supplies"'),
    FieldDefinition("Vendor number", "Int32?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e02"),
    FieldDefinition("Rating", "String", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e03", options=("A", "B", "C")),
    FieldDefinition("External id", "Guid?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e04"),
    FieldDefinition("Valid until", "Date?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e05"),
    FieldDefinition("Score", "Double?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e06"),
    FieldDefinition("Location", "GeoPoint", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e07", '{"lat": 1.5, "lon": 2}'),
)
DIAGRAMS = [
    Diagram(
        1,
        "Event planning",
        (
            StepDefinition(101, "Check event", EVENT_FIELDS),
            StepDefinition(102, "Publish event", EVENT_FIELDS[:1]),
        ),
        ((100, "Plan event"),),
    ),
    Diagram(2, "Vendor onboarding", (StepDefinition(201, "Register vendor", VENDOR_FIELDS),)),
    Diagram(3, "Contract review", (StepDefinition(301, "Check event", EVENT_FIELDS[:2]),)),
]


@dataclass
class Instance:
    """An integration instance: one opening of an integration step."""

    id: int
    process_id: int
    diagram: Diagram
    step_index: int
    values: dict[str, str | None] = field(default_factory=dict)  # key -> JSON text
    completed: int = 0
    consumed: bool = False

    @property
    def step(self) -> StepDefinition:
        return self.diagram.steps[self.step_index]


class Workflowsoft:
    """The processes and tasks."""

    def __init__(self, world: World):
        self.world = world
        self.clear()

    def clear(self) -> None:
        self.instances: dict[int, Instance] = {}
        self.next_id = 1

    def number(self) -> int:
        self.next_id += 1
        return self.next_id

    def start(self, diagram: Diagram, by: str, fields: dict[str, Any], via: str) -> Instance:
        """
        Start a process; its first integration step opens at once.

        :param fields: Values of that step's fields, by label or by the key they are written with.
        """
        definitions = {name: d for d in diagram.steps[0].fields for name in (d.label, wire_key(d.key))}
        unknown = [name for name in fields if name not in definitions]
        if unknown:
            raise self.business_error(f"Field {', '.join(unknown)} does not exist.")
        process_id = self.number()
        first = self._open(diagram, 0, process_id)
        first.values |= {definitions[name].key: simplejson.dumps(value) for name, value in fields.items()}
        detail = {
            "diagram": diagram.title,
            "fields": {definitions[n].label: simplejson.dumps(v) for n, v in fields.items()},
        }
        self._record("start_process", by, _ids(first), detail, via)
        return first

    def take_new(self, step_id: int) -> list[Instance]:
        """Return what a poll of a step returns, and consume it where reading does."""
        waiting = [i for i in self.instances.values() if i.step.id == step_id and not i.completed and not i.consumed]
        if self.world.switches["new_integration_shape"] == "object":
            waiting = waiting[:1]
        if self.world.switches["new_integrations"] == "consumed_on_read":
            for instance in waiting:
                instance.consumed = True
                self._record("deliver", "system", _ids(instance), {"step": instance.step.title}, "api")
        return waiting

    def write(self, instance: Instance, fields: dict[str, Any], by: str) -> None:
        if instance.completed:
            raise self.business_error("The task is already completed.")
        definitions = {wire_key(d.key): d for d in instance.step.fields}
        for name, value in fields.items():
            definition = definitions.get(name)
            if definition is None:
                raise self.business_error(f"Field {name} does not exist.")
            if definition.read_only:
                raise self.business_error(f"Field '{definition.label}' is read-only.")
            if not _fits(definition, value):
                raise self.business_error(f"Value of field '{definition.label}' is not a {definition.type}.")
        for name, value in fields.items():
            instance.values[definitions[name].key] = simplejson.dumps(value)
        written = {definitions[name].label: simplejson.dumps(value) for name, value in fields.items()}
        self._record("write_fields", by, _ids(instance), {"fields": written}, "api")

    def complete(self, instance: Instance, custom_action: str, by: str) -> None:
        if instance.completed and self.world.switches["ws_complete_again"] == "error":
            raise self.business_error("The task is already completed.")
        empty = [d.label for d in instance.step.fields if d.required and instance.values[d.key] in (None, '""', "null")]
        if empty:
            raise self.business_error(f"Required fields are empty: {', '.join(empty)}.")
        instance.completed += 1
        if instance.completed == 1 and instance.step_index + 1 < len(instance.diagram.steps):
            self._open(instance.diagram, instance.step_index + 1, instance.process_id)
        detail = {"custom_action": custom_action, "times": instance.completed, "step": instance.step.title}
        self._record("complete", by, _ids(instance), detail, "api")

    def business_error(self, message: str) -> Refusal:
        if self.world.switches["ws_error_status"] == "400":
            return Refusal(400, {"Message": message})
        body = {
            "Message": "An error has occurred.",
            "ExceptionMessage": message,
            "ExceptionType": "Workflowsoft.BusinessException",
        }
        return Refusal(500, body)

    def find(self, instance_id: int | str) -> Instance:
        instance = self.instances.get(int(instance_id)) if str(instance_id).isdecimal() else None
        if instance is None:
            raise Refusal(404, {"Message": f"Task {instance_id} was not found."})
        return instance

    def state(self) -> list[dict[str, Any]]:
        return [
            {
                **_ids(instance),
                "diagram": instance.diagram.title,
                "step": instance.step.title,
                "state": "completed" if instance.completed else "open",
                "fields": {d.label: instance.values[d.key] for d in instance.step.fields},
            }
            for instance in self.instances.values()
        ]

    def _open(self, diagram: Diagram, step_index: int, process_id: int) -> Instance:
        instance = Instance(self.number(), process_id, diagram, step_index)
        instance.values = {definition.key: definition.value for definition in instance.step.fields}
        self.instances[instance.id] = instance
        return instance

    def _record(self, action: str, by: str, target: dict[str, Any], detail: dict[str, Any], via: str) -> None:
        self.world.record_effect("workflowsoft", action, by, target, detail, via)


def _ids(instance: Instance) -> dict[str, str]:
    return {"integration_instance_id": str(instance.id), "process_instance_id": str(instance.process_id)}


def wire_key(key: str) -> str:
    return "field_" + key.replace("-", "_")


def _fits(definition: FieldDefinition, value: Any) -> bool:
    type_name = definition.type.rstrip("?")
    if value is None:
        return definition.type.endswith("?") or type_name == "String"
    if definition.options is not None and value not in definition.options:
        return False
    readers: dict[str, tuple[tuple[type, ...], Callable[[Any], Any]]] = {
        "String": ((str,), str),
        "Boolean": ((bool,), bool),
        "DateTime": ((str,), lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))),
        "Date": ((str,), date.fromisoformat),
        "Guid": ((str,), uuid.UUID),
        "Decimal": ((int, Decimal), Decimal),
        "Double": ((int, Decimal), float),
        "Int32": ((int,), int),
    }
    if type_name not in readers:
        return True
    kinds, read = readers[type_name]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    try:
        read(value)
    except ValueError:
        return False
    return True


# --- routes ---


OnBehalfOf = Annotated[str | None, Header(alias="X-OnBehalfOf-Id")]


def routes(world: World, workflowsoft: Workflowsoft) -> APIRouter:
    async def signed_in(request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not world.is_valid(world.ws_tokens, token):
            raise Refusal(401, {"Message": "Authorization has been denied for this request."})

    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": models.WsError} for status in (400, 401, 404, 500, "default")
    }
    open_router = APIRouter(responses=errors, tags=["Workflowsoft"])
    router = APIRouter(dependencies=[Depends(signed_in)], responses=errors, tags=["Workflowsoft"])

    @open_router.get(
        "/api/v2/app/apitoken",
        response_model=str | models.ApiToken,
        responses={200: {"content": {"text/plain": {}, "text/html": {}}}, 302: {"description": "To the login page"}},
    )
    async def mint(request: Request, lifetime: Annotated[int, Query(alias="lifeTimeInSec")] = 3600) -> Response:
        if not _is_administrator(world, request):
            raise Refusal(401, {"Message": "Authorization has been denied for this request."})
        shape = world.switches["ws_token_shape"]
        if shape == "login_page":
            return HTMLResponse("<!DOCTYPE html><html><head><title>Sign in</title></head><body></body></html>")
        if shape == "redirect":
            return RedirectResponse("/account/login", status_code=302)
        token = world.issue(world.ws_tokens, lifetime)
        if shape == "text":
            return PlainTextResponse(token)
        return JSONResponse(token if shape == "json_string" else {"access_token": token, "expires_in": lifetime})

    @router.get("/api/v2/workflows", response_model=list[models.IdTitle])
    async def list_diagrams(
        search_term: Annotated[str | None, Query(alias="searchTerm")] = None,
        mode: str = "view",
        limit: int = 100,
    ) -> Any:
        found = [d for d in DIAGRAMS if search_term is None or search_term.casefold() in d.title.casefold()]
        return [{"Id": diagram.id, "Title": diagram.title} for diagram in found[: max(limit, 0)]]

    @router.get(
        "/api/v2/workflows/instances/new-integrations",
        response_model=models.NewIntegrations,
        responses={204: {"description": "Nothing new"}},
    )
    async def new_integrations(id: int) -> Any:
        if not any(step.id == id for diagram in DIAGRAMS for step in diagram.steps):
            raise Refusal(404, {"Message": f"Integration step {id} was not found."})
        found = workflowsoft.take_new(id)
        wire = [{"IntegrationInstanceId": i.id, "ProcessInstanceId": i.process_id} for i in found]
        if wire:
            return JSONResponse(wire if world.switches["new_integration_shape"] == "list" else wire[0])
        empty = world.switches["no_new_integration"]
        if empty == "204":
            return Response(status_code=204)
        if empty == "not_found":
            raise Refusal(404, {"Message": "No new integrations."})
        return JSONResponse({"null": None, "empty_object": {}, "empty_list": []}[empty])

    @router.get("/api/v2/workflows/instances/tasks/{instance_id}/variables", response_model=list[models.WsField])
    async def get_fields(instance_id: str) -> Any:
        instance = workflowsoft.find(instance_id)
        return [
            {
                "label": definition.label,
                "type": definition.type,
                "key": definition.key,
                "options": None if definition.options is None else list(definition.options),
                "valueJson": instance.values[definition.key],
                "isReadonly": definition.read_only,
                "isRequired": definition.required,
            }
            for definition in instance.step.fields
        ]

    @router.post("/api/v2/workflows/instances/variables", status_code=204, response_model=None)
    async def write_fields(request: Request, on_behalf_of: OnBehalfOf = None) -> None:
        body = models.WriteFields.model_validate(await _exact_json(request))
        workflowsoft.write(workflowsoft.find(body.TaskId), body.Fields, _behalf(workflowsoft, on_behalf_of))

    @router.patch("/api/v2/tasks/{instance_id}/action", status_code=204, response_model=None)
    async def act(instance_id: str, body: models.TaskAction, on_behalf_of: OnBehalfOf = None) -> None:
        by = _behalf(workflowsoft, on_behalf_of)
        if body.Action != "Complete":
            raise workflowsoft.business_error(f"Action '{body.Action}' is not supported.")
        workflowsoft.complete(workflowsoft.find(instance_id), body.CustomAction, by)

    @router.get("/api/v2/workflows/{diagram_id}/tasks", response_model=list[models.IdTitle])
    async def list_steps(diagram_id: int, integration: Literal["true", "false"] = "false") -> Any:
        diagram = next((d for d in DIAGRAMS if d.id == diagram_id), None)
        if diagram is None:
            raise Refusal(404, {"Message": f"Workflow {diagram_id} was not found."})
        found = [(step.id, step.title) for step in diagram.steps]
        if integration == "false":
            found += diagram.user_tasks
        return [{"Id": step_id, "Title": title} for step_id, title in found]

    @router.get("/api/users/search", response_model=list[models.WsUser])
    async def search_users(
        query: Annotated[str, Query(alias="Query")],
        entity_type: Annotated[Literal["users"], Query(alias="entityType")],
        limit: int = 15,
    ) -> Any:
        wanted = query.casefold()
        return [u for u in USERS if wanted in f"{u['FullName']} {u['Email']}".casefold()][: max(limit, 0)]

    @router.post("/api/v2/workflows/start", response_model=models.IdTitle)
    async def start_process(request: Request, on_behalf_of: OnBehalfOf = None) -> Any:
        body = models.StartProcess.model_validate(await _exact_json(request))
        diagram = next((d for d in DIAGRAMS if str(d.id) == str(body.TemplateId)), None)
        if diagram is None:
            raise workflowsoft.business_error(f"Template {body.TemplateId} was not found.")
        first = workflowsoft.start(diagram, _behalf(workflowsoft, on_behalf_of), body.Fields, "api")
        return {"Id": first.process_id, "Title": diagram.title}

    @router.post("/api/v2/tasks", response_model=models.WsTask)
    async def create_task(body: models.CreateTask, on_behalf_of: OnBehalfOf = None) -> Any:
        by = _behalf(workflowsoft, on_behalf_of)
        task_id = workflowsoft.number()
        detail = {"title": body.Title, "assigned_to": str(body.AssignedUserId or by)}
        world.record_effect("workflowsoft", "create_task", by, {"task_id": str(task_id)}, detail, "api")
        return {"Id": task_id, "Title": body.Title, "Description": body.Description}

    both = APIRouter()
    both.include_router(open_router)
    both.include_router(router)
    return both


async def _exact_json(request: Request) -> Any:
    """Read a body with its decimals as they are; FastAPI would make floats of them."""
    try:
        return simplejson.loads(await request.body(), use_decimal=True)
    except ValueError:
        raise Refusal(400, {"Message": "The body is not JSON."}) from None


def _behalf(workflowsoft: Workflowsoft, on_behalf_of: str | None) -> str:
    if on_behalf_of != "system" and on_behalf_of not in {str(user["Id"]) for user in USERS}:
        raise workflowsoft.business_error(f"X-OnBehalfOf-Id '{on_behalf_of}' is neither 'system' nor a user.")
    return on_behalf_of


def _is_administrator(world: World, request: Request) -> bool:
    authorization = request.headers.get("Authorization", "")
    basic = base64.b64encode(f"{ADMIN_LOGIN}:{ADMIN_PASSWORD}".encode()).decode()
    ways = {
        "basic": authorization == f"Basic {basic}",
        "bearer": authorization == f"Bearer {ADMIN_PASSWORD}",
        "cookie": ADMIN_PASSWORD in request.headers.get("Cookie", ""),
    }
    accepted = world.switches["ws_mint_auth"]
    return any(ways.values()) if accepted == "any" else ways[accepted]


def diagram_by_title(title: str) -> Diagram:
    for diagram in DIAGRAMS:
        if title in (diagram.title, str(diagram.id)):
            return diagram
    raise Refusal(422, {"error": f"no diagram {title!r}; there are {', '.join(d.title for d in DIAGRAMS)}"})
