"""Workflowsoft: process diagrams, integration steps with typed fields, tasks, and the routes."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import simplejson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse

from . import models
from .world import ADMIN_LOGIN, ADMIN_PASSWORD, Refusal, World

AUTO = "__AUTO__"
OWNER = "11"
TOKEN_PATH = "/api/v2/app/apitoken"
USERS = [
    {"Id": 11, "FullName": "Olga Owner", "Email": "olga@example.com"},
    {"Id": 12, "FullName": "Sam Steward", "Email": "sam@example.com"},
    {"Id": 13, "FullName": "Sam Stewardson", "Email": "sam.stewardson@example.com"},
    {"Id": 14, "FullName": "Olga Owner", "Email": "olga.owner@example.com"},
    {"Id": 15, "FullName": "Dana Director", "Email": "dana@example.com"},
    {"Id": 16, "FullName": "Shared One", "Email": "shared@example.com"},
    {"Id": 17, "FullName": "Shared Two", "Email": "shared@example.com"},
]
USER_IDS = {str(user["Id"]) for user in USERS}


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
    ways_out: Mapping[str, Literal["next", "end"]] = field(default_factory=lambda: {AUTO: "next"})

    def shown(self, texts: Mapping[FieldDefinition, str | None]) -> dict[str, str | None]:
        """Name fields by their label, or by their key where several have the same label."""
        labels = [definition.label for definition in self.fields]
        return {d.label if labels.count(d.label) == 1 else wire_key(d.key): text for d, text in texts.items()}


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
EVIDENCE_FIELDS = (
    FieldDefinition("Check", "String", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b01"),
    FieldDefinition("Failed rows", "Int32?", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b02"),
    FieldDefinition("Details", "String", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b03"),
    FieldDefinition("Owner comment", "String", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b04"),
)
PURCHASE_FIELDS = (
    FieldDefinition("Purchase order id", "Int32?", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e01", "5002"),
    FieldDefinition("Amount", "Decimal?", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e02", "12500.75"),
    FieldDefinition(
        "Decision",
        "String",
        "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e03",
        required=True,
        options=("Approved", "Rejected"),
    ),
    FieldDefinition("Decided by", "String", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e04"),
    FieldDefinition("Decided at", "DateTime?", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e05"),
    FieldDefinition("Remarks", "String", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e06"),
)
ORDER_FIELDS = (FieldDefinition("Order number", "String", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e07"),)
FIELDS_OF_EVERY_TYPE = (
    FieldDefinition("Text", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f01", '"Plain text"'),
    FieldDefinition("Flag", "Boolean", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f02", "false"),
    FieldDefinition("Flag or none", "Boolean?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f03"),
    FieldDefinition("Moment", "DateTime", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f04", '"2026-03-01T08:30:00Z"'),
    FieldDefinition("Amount", "Decimal", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f05", "12345678901234.5678"),
    FieldDefinition("Amount or none", "Decimal?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f06"),
    FieldDefinition("Small number", "Int16", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f07", "7"),
    FieldDefinition("Number", "Int32?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f08"),
    FieldDefinition("Large number", "Int64?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f09", "9007199254740993"),
    FieldDefinition("Single", "Single?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f10", "0.5"),
    FieldDefinition("Double", "Double?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f11"),
    FieldDefinition("Identifier", "Guid?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f12"),
    FieldDefinition("Day", "Date?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f13"),
    FieldDefinition(
        "Choice", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f14", '"Low"', options=("Low", "Medium", "High")
    ),
    FieldDefinition("Place", "GeoPoint", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f15", '{"lat": 1.5, "lon": 2}'),
    FieldDefinition("Twin", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f16", '"First"'),
    FieldDefinition("Twin", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f17", '"Second"'),
)
DIAGRAMS = [
    Diagram(
        1,
        "Event planning",
        (
            StepDefinition(101, "Check event", EVENT_FIELDS, {AUTO: "next", "Reject": "end"}),
            StepDefinition(102, "Publish event", EVENT_FIELDS[:1]),
        ),
        ((100, "Plan event"),),
    ),
    Diagram(2, "Vendor onboarding", (StepDefinition(201, "Register vendor", VENDOR_FIELDS),)),
    Diagram(3, "Contract review", (StepDefinition(301, "Check event", EVENT_FIELDS[:2]),)),
    Diagram(4, "Data issue", (StepDefinition(401, "Collect evidence", EVIDENCE_FIELDS),)),
    Diagram(
        5,
        "Purchase request",
        (
            StepDefinition(501, "Approve in Procore", PURCHASE_FIELDS, {AUTO: "next", "Reject": "end"}),
            StepDefinition(502, "Book order", ORDER_FIELDS),
        ),
    ),
    Diagram(6, "Field types", (StepDefinition(601, "Check fields", FIELDS_OF_EVERY_TYPE),)),
]


@dataclass
class Process:
    id: int
    diagram: Diagram
    started_by: str
    ended: bool = False


@dataclass
class Instance:
    """An integration instance: one opening of an integration step."""

    id: int
    process: Process
    step_index: int
    texts: dict[FieldDefinition, str | None]  # JSON
    completions: list[dict[str, str]] = field(default_factory=list)
    consumed: bool = False
    times_read: int = 0

    @property
    def step(self) -> StepDefinition:
        return self.process.diagram.steps[self.step_index]


class Workflowsoft:
    """The processes and tasks."""

    def __init__(self, world: World):
        self.world = world
        self.clear()

    def clear(self) -> None:
        self.processes: list[Process] = []
        self.instances: dict[int, Instance] = {}
        self.tasks: list[dict[str, str | None]] = []
        self.next_id = 1

    def number(self) -> int:
        self.next_id += 1
        return self.next_id

    def start(self, diagram: Diagram, by: str, fields: dict[str, Any], via: str) -> Instance:
        """
        Start a process; its first integration step opens at once.

        :param fields: Values of that step's fields, by label or by the key they are written with.
        """
        texts = self._texts(diagram.steps[0], fields, by_label=True)
        process = Process(self.number(), diagram, by)
        self.processes.append(process)
        first = self._open(process, 0)
        first.texts |= texts
        self._record("start_process", by, first, {"diagram": diagram.title, "fields": first.step.shown(texts)}, via)
        return first

    def take_new(self, step_id: int) -> list[Instance]:
        """Return what a poll of a step returns, and consume it where reading does."""
        waiting = [i for i in self.instances.values() if i.step.id == step_id and not i.completions and not i.consumed]
        if self.world.switches["new_integration_shape"] == "object":
            waiting = waiting[:1]
        for instance in waiting:
            instance.times_read += 1
            if self.world.switches["new_integrations"] == "consumed_on_read":
                instance.consumed = True
                self._record("deliver", "system", instance, {"step": instance.step.title}, "api")
        return waiting

    def fields(self, instance: Instance) -> list[dict[str, Any]]:
        """Return the fields of an instance as they are read."""
        after_completion = self.world.switches["ws_fields_after_completion"] if instance.completions else "readable"
        if after_completion == "gone":
            raise Refusal(404, {"Message": f"Task {instance.id} was not found."})
        if after_completion == "error":
            raise self.business_error("The task is already completed.")
        return [
            {
                "label": definition.label,
                "type": definition.type,
                "key": definition.key,
                "options": self._options(definition),
                "valueJson": text,
                "isReadonly": definition.read_only or after_completion == "read_only",
                "isRequired": definition.required,
            }
            for definition, text in instance.texts.items()
        ]

    def write(self, instance: Instance, fields: dict[str, Any], by: str, via: str) -> None:
        """Write fields by the key they are written with; a person also by label."""
        if instance.completions:
            raise self.business_error("The task is already completed.")
        texts = self._texts(instance.step, fields, by_label=via == "person")
        for definition in texts:
            if definition.read_only:
                raise self.business_error(f"Field '{definition.label}' is read-only.")
        instance.texts |= texts
        self._record("write_fields", by, instance, {"fields": instance.step.shown(texts)}, via)

    def complete(self, instance: Instance, custom_action: str, by: str, via: str) -> None:
        if instance.completions and self.world.switches["ws_complete_again"] == "error":
            raise self.business_error("The task is already completed.")
        ways_out = instance.step.ways_out
        if custom_action not in ways_out:
            raise self.business_error(f"Custom action '{custom_action}' is unknown; known are {', '.join(ways_out)}.")
        empty = [d.label for d, text in instance.texts.items() if d.required and text in (None, '""', "null")]
        if empty:
            raise self.business_error(f"Required fields are empty: {', '.join(empty)}.")
        instance.completions.append(
            {"at": self.world.clock.iso(), "by": by, "custom_action": custom_action, "via": via}
        )
        if len(instance.completions) == 1:
            self._leave(instance, ways_out[custom_action])
        detail = {"custom_action": custom_action, "times": len(instance.completions), "step": instance.step.title}
        self._record("complete", by, instance, detail, via)

    def create_task(self, title: str, description: str | None, assigned_to: str | None, by: str) -> int:
        if not title.strip():
            raise self.business_error("Title is required.")
        if assigned_to is not None and assigned_to not in USER_IDS:
            raise self.business_error(f"AssignedUserId '{assigned_to}' is no user.")
        task_id = self.number()
        target = {"task_id": str(task_id)}
        detail = {"title": title, "description": description, "assigned_to": assigned_to or by}
        self.tasks.append({**target, **detail, "created_by": by, "created_at": self.world.clock.iso()})
        self.world.record_effect("workflowsoft", "create_task", by, target, detail, "api")
        return task_id

    def on_behalf_of(self, header: str | None) -> str:
        """Return whom a request is for, as its header says."""
        if header != "system" and header not in USER_IDS:
            raise self.business_error(f"X-OnBehalfOf-Id '{header}' is neither 'system' nor a user.")
        return header

    def spell(self, path: str, body: bytes) -> bytes:
        """Spell the keys of an answer as the switch says; the answer that holds the token has a switch of its own."""
        spelling = {"camel": models.camel, "pascal": models.pascal}.get(self.world.switches["ws_names"])
        if spelling is None or not body or path == TOKEN_PATH:
            return body
        return json.dumps(_spelt(json.loads(body), spelling)).encode()

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
                "diagram": instance.process.diagram.title,
                "step": instance.step.title,
                "state": "completed" if instance.completions else "open",
                "consumed": instance.consumed,
                "times_read": instance.times_read,
                "completions": instance.completions,
                "fields": instance.step.shown(instance.texts),
            }
            for instance in self.instances.values()
        ]

    def process_state(self) -> list[dict[str, str]]:
        return [
            {
                "process_instance_id": str(process.id),
                "diagram": process.diagram.title,
                "started_by": process.started_by,
                "state": "ended" if process.ended else "running",
            }
            for process in self.processes
        ]

    def _open(self, process: Process, step_index: int) -> Instance:
        texts = {definition: definition.value for definition in process.diagram.steps[step_index].fields}
        instance = Instance(self.number(), process, step_index, texts)
        self.instances[instance.id] = instance
        return instance

    def _leave(self, instance: Instance, way: Literal["next", "end"]) -> None:
        following = instance.step_index + 1
        if way == "next" and following < len(instance.process.diagram.steps):
            self._open(instance.process, following)
        else:
            instance.process.ended = True

    def _texts(self, step: StepDefinition, fields: dict[str, Any], *, by_label: bool) -> dict[FieldDefinition, str]:
        """Return the JSON of values that are to be written, or refuse them all."""
        texts = {}
        for name, value in fields.items():
            found = [d for d in step.fields if name == wire_key(d.key) or (by_label and name == d.label)]
            if not found:
                raise self.business_error(f"Field {name} does not exist.")
            if len(found) > 1:
                keys = ", ".join(wire_key(d.key) for d in found)
                raise self.business_error(f"There are {len(found)} fields '{name}': {keys}.")
            if not _fits(found[0], value):
                raise self.business_error(f"Value of field '{found[0].label}' is not a {found[0].type}.")
            texts[found[0]] = simplejson.dumps(value)
        return texts

    def _options(self, definition: FieldDefinition) -> Any:
        shape = self.world.switches["ws_options_shape"]
        if definition.options is None:
            return None
        if shape == "id_value":
            return [{"Id": number, "Value": option} for number, option in enumerate(definition.options, 1)]
        return list(definition.options) if shape == "texts" else {"items": ";".join(definition.options)}

    def _record(self, action: str, by: str, instance: Instance, detail: dict[str, Any], via: str) -> None:
        self.world.record_effect("workflowsoft", action, by, _ids(instance), detail, via)


def person_completes(workflowsoft: Workflowsoft, instance_id: str, fields: dict[str, Any], custom_action: str) -> None:
    """Fill fields and complete an instance as its owner does by hand."""
    instance = workflowsoft.find(instance_id)
    if fields:
        workflowsoft.write(instance, fields, OWNER, "person")
    workflowsoft.complete(instance, custom_action, OWNER, "person")


def _ids(instance: Instance) -> dict[str, str]:
    return {"integration_instance_id": str(instance.id), "process_instance_id": str(instance.process.id)}


def _spelt(value: Any, spelling: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_spelt(item, spelling) for item in value]
    if isinstance(value, dict):
        return {spelling(key): _spelt(item, spelling) for key, item in value.items()}
    return value


def wire_key(key: str) -> str:
    return "field_" + key.replace("-", "_")


INTEGER_BITS = {"Int16": 16, "Int32": 32, "Int64": 64}


def _fits(definition: FieldDefinition, value: Any) -> bool:
    type_name = definition.type.rstrip("?")
    if value is None:
        return definition.type.endswith("?") or type_name == "String"
    if definition.options is not None and value not in definition.options:
        return False
    kinds: dict[str, tuple[type, ...]] = {
        "String": (str,),
        "Boolean": (bool,),
        "DateTime": (str,),
        "Date": (str,),
        "Guid": (str,),
        "Decimal": (int, Decimal),
        "Double": (int, Decimal),
        "Single": (int, Decimal),
        **dict.fromkeys(INTEGER_BITS, (int,)),
    }
    if type_name in kinds and type(value) not in kinds[type_name]:
        return False
    if type_name in INTEGER_BITS:
        limit = 2 ** (INTEGER_BITS[type_name] - 1)
        return bool(-limit <= value < limit)
    readers: dict[str, Callable[[str], Any]] = {
        "DateTime": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
        "Date": date.fromisoformat,
        "Guid": uuid.UUID,
    }
    try:
        readers.get(type_name, str)(value)
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
        status: {"model": models.WsError | models.CamelWsError} for status in (400, 401, 404, 500, "default")
    }
    open_router = APIRouter(responses=errors, tags=["Workflowsoft"])
    router = APIRouter(dependencies=[Depends(signed_in)], responses=errors, tags=["Workflowsoft"])

    @open_router.get(
        TOKEN_PATH,
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

    @router.get("/api/v2/workflows", response_model=list[models.IdTitle] | list[models.CamelIdTitle])
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
        responses={200: {"content": {"text/plain": {}}}, 204: {"description": "Nothing new"}},
    )
    async def new_integrations(id: int) -> Any:
        if not any(step.id == id for diagram in DIAGRAMS for step in diagram.steps):
            raise Refusal(404, {"Message": f"Integration step {id} was not found."})
        found = workflowsoft.take_new(id)
        wire = [{"IntegrationInstanceId": i.id, "ProcessInstanceId": i.process.id} for i in found]
        if wire:
            return JSONResponse(wire if world.switches["new_integration_shape"] == "list" else wire[0])
        empty = world.switches["no_new_integration"]
        if empty == "204":
            return Response(status_code=204)
        if empty == "empty":
            return PlainTextResponse("")
        if empty == "not_found":
            raise Refusal(404, {"Message": "No new integrations."})
        return JSONResponse({"null": None, "empty_object": {}, "empty_list": []}[empty])

    @router.get(
        "/api/v2/workflows/instances/tasks/{instance_id}/variables",
        response_model=list[models.WsField] | list[models.PascalWsField],
    )
    async def get_fields(instance_id: str) -> Any:
        return workflowsoft.fields(workflowsoft.find(instance_id))

    @router.post("/api/v2/workflows/instances/variables", status_code=204, response_model=None)
    async def write_fields(request: Request, body: models.WriteFields, on_behalf_of: OnBehalfOf = None) -> None:
        fields = await exact_fields(request, "Fields")
        by = workflowsoft.on_behalf_of(on_behalf_of)
        workflowsoft.write(workflowsoft.find(body.TaskId), fields, by, "api")

    @router.patch("/api/v2/tasks/{instance_id}/action", status_code=204, response_model=None)
    async def act(instance_id: str, body: models.TaskAction, on_behalf_of: OnBehalfOf = None) -> None:
        by = workflowsoft.on_behalf_of(on_behalf_of)
        if body.Action != "Complete":
            raise workflowsoft.business_error(f"Action '{body.Action}' is not supported.")
        workflowsoft.complete(workflowsoft.find(instance_id), body.CustomAction, by, "api")

    @router.get("/api/v2/workflows/{diagram_id}/tasks", response_model=list[models.IdTitle] | list[models.CamelIdTitle])
    async def list_steps(diagram_id: int, integration: Literal["true", "false"] = "false") -> Any:
        diagram = next((d for d in DIAGRAMS if d.id == diagram_id), None)
        if diagram is None:
            raise Refusal(404, {"Message": f"Workflow {diagram_id} was not found."})
        found = [(step.id, step.title) for step in diagram.steps]
        if integration == "false":
            found += diagram.user_tasks
        return [{"Id": step_id, "Title": title} for step_id, title in found]

    @router.get("/api/users/search", response_model=list[models.WsUser] | list[models.CamelWsUser])
    async def search_users(
        query: Annotated[str, Query(alias="Query")],
        entity_type: Annotated[Literal["users"], Query(alias="entityType")],
        limit: int = 15,
    ) -> Any:
        wanted = query.casefold()
        found = [u for u in USERS if any(wanted in str(u[name]).casefold() for name in ("FullName", "Email"))]
        return found[: max(limit, 0)]

    @router.post("/api/v2/workflows/start", response_model=models.IdTitle | models.CamelIdTitle)
    async def start_process(request: Request, body: models.StartProcess, on_behalf_of: OnBehalfOf = None) -> Any:
        fields = await exact_fields(request, "Fields")
        diagram = next((d for d in DIAGRAMS if str(d.id) == str(body.TemplateId)), None)
        if diagram is None:
            raise workflowsoft.business_error(f"Template {body.TemplateId} was not found.")
        first = workflowsoft.start(diagram, workflowsoft.on_behalf_of(on_behalf_of), fields, "api")
        return {"Id": first.process.id, "Title": diagram.title}

    @router.post("/api/v2/tasks", response_model=models.WsTask | models.CamelWsTask)
    async def create_task(body: models.CreateTask, on_behalf_of: OnBehalfOf = None) -> Any:
        by = workflowsoft.on_behalf_of(on_behalf_of)
        assigned_to = None if body.AssignedUserId is None else str(body.AssignedUserId)
        task_id = workflowsoft.create_task(body.Title, body.Description, assigned_to, by)
        return {"Id": task_id, "Title": body.Title, "Description": body.Description}

    both = APIRouter()
    both.include_router(open_router)
    both.include_router(router)
    return both


async def exact_fields(request: Request, name: str) -> dict[str, Any]:
    """Read the fields in a body that FastAPI has checked, with their decimals as they are; it makes floats of them."""
    try:
        fields: dict[str, Any] = simplejson.loads(await request.body(), use_decimal=True).get(name, {})
    except ValueError:
        raise Refusal(400, {"Message": "The body is not JSON."}) from None
    return fields


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
