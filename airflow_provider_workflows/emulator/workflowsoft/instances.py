"""Workflowsoft: processes, integration instances, tasks, and the routes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import simplejson
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse

from .. import models
from ..state import ADMIN_LOGIN, ADMIN_PASSWORD, Refusal, World
from .diagrams import AUTO, DIAGRAMS, Diagram, FieldDefinition, StepDefinition, fits, wire_key
from .values import normalised, shown_fields, shown_options, shown_title

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
        self.tasks: list[dict[str, Any]] = []
        self.next_id = 1

    def number(self) -> int:
        self.next_id += 1
        return self.next_id

    def start(self, diagram: Diagram, by: str, fields: dict[str, Any], via: str) -> Instance:
        """
        Start a process; its first integration step opens at once.

        :param fields: Values of that step's fields, by label or by the key they are written with.
        """
        named_by = self.world.flags["ws_start_fields"] if via == "api" else "label_or_key"
        texts = self._texts(diagram.steps[0], fields, by_label=named_by != "key", by_key=named_by != "label")
        process = Process(self.number(), diagram, by)
        self.processes.append(process)
        first = self._open(process, 0)
        first.texts |= texts
        self._record("start_process", by, first, {"diagram": diagram.title, "fields": first.step.shown(texts)}, via)
        return first

    def take_new(self, step_id: int) -> list[Instance]:
        """Return what a poll of a step returns, and consume it where reading does."""
        waiting = [i for i in self.instances.values() if i.step.id == step_id and not i.completions and not i.consumed]
        if self.world.flags["new_integration_shape"] == "object":
            waiting = waiting[:1]
        for instance in waiting:
            instance.times_read += 1
            if self.world.flags["new_integrations"] == "consumed_on_read":
                instance.consumed = True
                self._record("deliver", "system", instance, {"step": instance.step.title}, "api")
        return waiting

    def fields(self, instance: Instance) -> list[dict[str, Any]]:
        """Return the fields of an instance as they are read, in the form that the flags say."""
        return shown_fields(self.world.flags, self.plain_fields(instance))

    def plain_fields(self, instance: Instance) -> list[dict[str, Any]]:
        """Return the fields of an instance in the form of the vendor's sample."""
        after_completion = self.world.flags["ws_fields_after_completion"] if instance.completions else "readable"
        if after_completion == "gone":
            raise Refusal(404, {"Message": f"Task {instance.id} was not found."})
        if after_completion == "error":
            raise self.business_error("The task is already completed.")
        return [
            {
                "label": definition.label,
                "type": definition.type,
                "key": definition.key,
                "options": shown_options(self.world.flags["ws_options_shape"], definition.options),
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
        if self.world.flags["ws_write"] == "replace":
            instance.texts |= {d: None for d in instance.texts if not d.read_only}
        instance.texts |= texts
        self._record("write_fields", by, instance, {"fields": instance.step.shown(texts)}, via)

    def complete(self, instance: Instance, custom_action: str, by: str, via: str) -> None:
        if instance.completions and self.world.flags["ws_complete_again"] == "error":
            raise self.business_error("The task is already completed.")
        ways_out = instance.step.ways_out
        if self.world.flags["ws_custom_actions"] == "auto_only":
            ways_out = {AUTO: ways_out[AUTO]}
        if custom_action not in ways_out:
            raise self.business_error(f"Custom action '{custom_action}' is unknown; known are {', '.join(ways_out)}.")
        nothing = [None, '""', "null"]
        if self.world.flags["ws_empty_required"] == "also_zero_and_false":
            nothing += ["0", "false"]
        empty = [d.label for d, text in instance.texts.items() if d.required and text in nothing]
        if empty:
            raise self.business_error(f"Required fields are empty: {', '.join(empty)}.")
        instance.completions.append(
            {"at": self.world.clock.iso(), "by": by, "custom_action": custom_action, "via": via}
        )
        if len(instance.completions) == 1:
            self._leave(instance, ways_out[custom_action])
        detail = {"custom_action": custom_action, "times": len(instance.completions), "step": instance.step.title}
        self._record("complete", by, instance, detail, via)

    def create_task(
        self, title: str, description: str | None, assigned_to: str | None, by: str, files: Any = None
    ) -> int:
        if not title.strip():
            raise self.business_error("Title is required.")
        if assigned_to is not None and assigned_to not in USER_IDS:
            raise self.business_error(f"AssignedUserId '{assigned_to}' is no user.")
        task_id = self.number()
        target = {"task_id": str(task_id)}
        detail = {"title": title, "description": description, "assigned_to": assigned_to or by}
        if files is not None:
            detail["files"] = files
        self.tasks.append({**target, **detail, "created_by": by, "created_at": self.world.clock.iso()})
        self.world.record_effect("workflowsoft", "create_task", by, target, detail, "api")
        return task_id

    def rows_of(self, limit: int) -> int:
        """Return how many rows a list has that was asked for so many."""
        most = 3 if self.world.flags["ws_list_limit"] == "at_most_3" else limit
        return max(min(limit, most), 0)

    def on_behalf_of(self, header: str | None) -> str:
        """Return whom a request is for, as its header says."""
        if header != "system" and header not in USER_IDS:
            raise self.business_error(f"X-OnBehalfOf-Id '{header}' is neither 'system' nor a user.")
        return header

    def spell(self, path: str, body: bytes) -> bytes:
        """Spell keys and ids of an answer as the flags say; the answer that holds the token has one of its own."""
        spelling = {"camel": models.camel, "pascal": models.pascal}.get(self.world.flags["ws_names"])
        texts = self.world.flags["ws_ids"] == "texts"
        if (spelling is None and not texts) or not body or path == TOKEN_PATH:
            return body
        answer = json.loads(body)
        if texts:
            answer = _with_text_ids(answer)
        return json.dumps(answer if spelling is None else _spelt(answer, spelling)).encode()

    def business_error(self, message: str) -> Refusal:
        status = self.world.flags["ws_error_status"]
        if status == "200":
            return Refusal(200, {"Success": False, "Message": message})
        if status == "400":
            return Refusal(400, {"Message": message})
        return server_error(message)

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

    def _texts(
        self, step: StepDefinition, fields: dict[str, Any], *, by_label: bool, by_key: bool = True
    ) -> dict[FieldDefinition, str]:
        """Return the JSON of values that are to be written, or refuse them all."""
        texts = {}
        for name, value in fields.items():
            found = [d for d in step.fields if (by_key and name == wire_key(d.key)) or (by_label and name == d.label)]
            if not found:
                raise self.business_error(f"Field {name} does not exist.")
            if len(found) > 1:
                keys = ", ".join(wire_key(d.key) for d in found)
                raise self.business_error(f"There are {len(found)} fields '{name}': {keys}.")
            if not fits(found[0], value, options_by_id=self.world.flags["ws_option_value"] == "id"):
                raise self.business_error(f"Value of field '{found[0].label}' is not a {found[0].type}.")
            texts[found[0]] = simplejson.dumps(normalised(self.world.flags["ws_normalise"], found[0], value))
        return texts

    def _record(self, action: str, by: str, instance: Instance, detail: dict[str, Any], via: str) -> None:
        self.world.record_effect("workflowsoft", action, by, _ids(instance), detail, via)


def server_error(message: str) -> Refusal:
    """Return an exception of the server's as ASP.NET shows it."""
    body = {
        "Message": "An error has occurred.",
        "ExceptionMessage": message,
        "ExceptionType": "Workflowsoft.BusinessException",
    }
    return Refusal(500, body)


def person_completes(workflowsoft: Workflowsoft, instance_id: str, fields: dict[str, Any], custom_action: str) -> None:
    """Fill fields and complete an instance as its owner does by hand."""
    instance = workflowsoft.find(instance_id)
    if fields:
        workflowsoft.write(instance, fields, OWNER, "person")
    workflowsoft.complete(instance, custom_action, OWNER, "person")


def _ids(instance: Instance) -> dict[str, str]:
    return {"integration_instance_id": str(instance.id), "process_instance_id": str(instance.process.id)}


def _with_text_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_text_ids(item) for item in value]
    if isinstance(value, dict):
        return {key: str(item) if key.lower().endswith("id") else item for key, item in value.items()}
    return value


def _spelt(value: Any, spelling: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_spelt(item, spelling) for item in value]
    if isinstance(value, dict):
        return {spelling(key): _spelt(item, spelling) for key, item in value.items()}
    return value


# --- routes ---


OnBehalfOf = Annotated[str | None, Header(alias="X-OnBehalfOf-Id")]


def routes(world: World, workflowsoft: Workflowsoft) -> APIRouter:
    async def signed_in(request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not world.is_valid(world.ws_tokens, token):
            raise world.token_refusal({"Message": "Authorization has been denied for this request."})

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
        shape = world.flags["ws_token_shape"]
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
        return [
            {"Id": diagram.id, "Title": shown_title(world.flags, diagram.title)}
            for diagram in found[: workflowsoft.rows_of(limit)]
        ]

    @router.get(
        "/api/v2/workflows/instances/new-integrations",
        response_model=models.NewIntegrations,
        responses={200: {"content": {"text/plain": {}}}, 204: {"description": "Nothing new"}},
    )
    async def new_integrations(id: int) -> Any:
        unknown = world.flags["ws_unknown_step"]
        if unknown != "nothing" and not any(step.id == id for diagram in DIAGRAMS for step in diagram.steps):
            message = f"Integration step {id} was not found."
            raise Refusal(404, {"Message": message}) if unknown == "404" else server_error(message)
        found = workflowsoft.take_new(id)
        wire = [{"IntegrationInstanceId": i.id, "ProcessInstanceId": i.process.id} for i in found]
        if wire:
            return JSONResponse(wire if world.flags["new_integration_shape"] == "list" else wire[0])
        empty = world.flags["no_new_integration"]
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
        response_model_exclude_unset=True,
    )
    async def get_fields(instance_id: str, on_behalf_of: OnBehalfOf = None) -> Any:
        if world.flags["ws_read_on_behalf"] == "needed":
            if on_behalf_of is None:
                raise Refusal(403, {"Message": "You take no part in this task."})
            workflowsoft.on_behalf_of(on_behalf_of)
        return workflowsoft.fields(workflowsoft.find(instance_id))

    done: dict[int | str, dict[str, Any]] = {
        200: {"model": models.WsDone | models.CamelWsDone, "content": {"text/plain": {}}}
    }

    def answer(**ids: Any) -> Response:
        shape = world.flags["ws_write_answer"]
        if shape == "204":
            return Response(status_code=204)
        return PlainTextResponse("OK") if shape == "200_text" else JSONResponse({"Success": True, **ids})

    @router.post("/api/v2/workflows/instances/variables", status_code=204, response_model=None, responses=done)
    async def write_fields(request: Request, body: models.WriteFields, on_behalf_of: OnBehalfOf = None) -> Response:
        fields = await exact_fields(request, "Fields")
        by = workflowsoft.on_behalf_of(on_behalf_of)
        workflowsoft.write(workflowsoft.find(body.TaskId), fields, by, "api")
        return answer(TaskId=body.TaskId)

    @router.patch("/api/v2/tasks/{instance_id}/action", status_code=204, response_model=None, responses=done)
    async def act(instance_id: str, body: models.TaskAction, on_behalf_of: OnBehalfOf = None) -> Response:
        by = workflowsoft.on_behalf_of(on_behalf_of)
        if body.Action != "Complete":
            raise workflowsoft.business_error(f"Action '{body.Action}' is not supported.")
        workflowsoft.complete(workflowsoft.find(instance_id), body.CustomAction, by, "api")
        return answer(Id=instance_id)

    @router.get("/api/v2/workflows/{diagram_id}/tasks", response_model=list[models.IdTitle] | list[models.CamelIdTitle])
    async def list_steps(diagram_id: int, integration: str = "false") -> Any:
        if world.flags["ws_true"] == "any_case":
            integration = integration.lower()
        if integration not in ("true", "false"):
            raise Refusal(400, {"Message": f"'{integration}' is no boolean."})
        diagram = next((d for d in DIAGRAMS if d.id == diagram_id), None)
        if diagram is None:
            raise Refusal(404, {"Message": f"Workflow {diagram_id} was not found."})
        found = [(step.id, step.title) for step in diagram.steps]
        if integration == "false":
            found += diagram.user_tasks
        return [{"Id": step_id, "Title": shown_title(world.flags, title)} for step_id, title in found]

    @router.get("/api/users/search", response_model=list[models.WsUser] | list[models.CamelWsUser])
    async def search_users(
        query: Annotated[str, Query(alias="Query")],
        entity_type: Annotated[Literal["users"], Query(alias="entityType")],
        limit: int = 15,
    ) -> Any:
        wanted = query.casefold()
        exact = world.flags["ws_user_search"] == "exact"
        texts = [(user, [str(user[name]).casefold() for name in ("FullName", "Email")]) for user in USERS]
        found = [user for user, own in texts if any(wanted == text if exact else wanted in text for text in own)]
        return found[: workflowsoft.rows_of(limit)]

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
        if body.Files is not None and world.flags["ws_files"] == "refused":
            raise workflowsoft.business_error("Files are not in the expected format.")
        task_id = workflowsoft.create_task(body.Title, body.Description, assigned_to, by, body.Files)
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
    accepted = world.flags["ws_mint_auth"]
    return any(ways.values()) if accepted == "any" else ways[accepted]
