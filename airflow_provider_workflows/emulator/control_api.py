"""The control API below ``/_emulator/``: act as a user, move the clock, set flags, add faults, read the log."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from .procore import instances as procore
from .procore import presets as procore_presets
from .procore import schemas as procore_schemas
from .procore.templates import PURCHASE_ORDER, find_template
from .procore_legacy import instances as procore_legacy
from .procore_legacy import workflows as legacy_workflows
from .state import (
    ADMIN_LOGIN,
    ADMIN_PASSWORD,
    CLIENT_ID,
    CLIENT_SECRET,
    COMPANY,
    PROJECT,
    Fault,
    Rejection,
    unknown_value,
    user_by_login,
)
from .workflowsoft import instances as workflowsoft
from .workflowsoft.diagrams import AUTO, diagram_by_title
from .workflowsoft.routes import exact_fields

if TYPE_CHECKING:
    from .app import EmulatorApp


MAX_INSTANCES_PER_CALL = 100_000
MAX_PRESETS_PER_CALL = 10_000
ProjectId = Literal["1001", "1002"] | None  # None: at company level


class RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Reset(RequestBody):
    seed: str | None = None


class Clock(RequestBody):
    advance: float | None = None
    set: AwareDatetime | None = None


class NewFault(RequestBody):
    method: str | None = None
    path: str = ""
    times: int = Field(1, ge=1)
    skip: int = Field(0, ge=0)
    status: int | None = Field(None, ge=200, le=599)
    headers: dict[str, str] = {}
    body: str | None = None
    json_body: Any = Field(None, alias="json")
    delay: float = Field(0.0, ge=0)
    reset: Literal["before", "after"] | None = None
    truncate: int | None = Field(None, ge=0)
    after: bool = False

    @field_validator("path")
    @classmethod
    def _is_regular_expression(cls, path: str) -> str:
        try:
            re.compile(path)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return path


class StartInstance(RequestBody):
    tool_type: str
    item_id: str
    tool_subtype: str | None = None
    project_id: ProjectId = "1001"
    template_id: str | None = None
    preset_id: str | None = None
    by: str = "pat@example.com"


class StartMany(RequestBody):
    count: int = Field(ge=1, le=MAX_INSTANCES_PER_CALL)
    tool_type: str = PURCHASE_ORDER
    tool_subtype: str | None = None
    project_id: ProjectId = "1001"
    first_item_id: int | None = Field(None, ge=1)
    by: str = "pat@example.com"


class RespondMany(RequestBody):
    ids: list[str] = Field(min_length=1)
    login: str
    option: str


class Hide(RequestBody):
    hidden: bool = True


class NewPresets(RequestBody):
    template_id: str = "301"
    project_id: ProjectId = "1001"
    count: int = Field(1, ge=1, le=MAX_PRESETS_PER_CALL)
    default: bool = False
    valid: bool = True


class ChangePreset(RequestBody):
    valid: bool | None = None
    default: bool | None = None


class EditGroup(RequestBody):
    group: str
    logins: list[str]


class RespondAsUser(RequestBody):
    login: str
    option: str
    comment: str | None = None


class Override(RequestBody):
    login: str = "pat@example.com"
    option: str
    reason: str | None = None


class Terminate(RequestBody):
    login: str = "pat@example.com"


class Block(RequestBody):
    reason: str
    retriable: bool = True
    refreshes: int = Field(1, ge=1)


class StartLegacy(RequestBody):
    workflow: str = legacy_workflows.PURCHASE_ORDER.name
    object_id: int | None = None
    project_id: Literal["1001", "1002"] = "1001"
    by: str = "pat@example.com"


class PerformAsUser(RequestBody):
    activity: str
    login: str
    comments: str | None = None


class StartManyLegacy(RequestBody):
    count: int = Field(ge=1, le=MAX_INSTANCES_PER_CALL)
    workflow: str = legacy_workflows.PURCHASE_ORDER.name
    project_id: Literal["1001", "1002"] = "1001"
    by: str = "pat@example.com"


class UpgradeTool(RequestBody):
    tool_type: str = PURCHASE_ORDER
    project_id: Literal["1001", "1002"] = "1001"
    by: str = "pat@example.com"


class PerformMany(RequestBody):
    ids: list[int] = Field(min_length=1)
    activity: str
    login: str


class StartProcess(RequestBody):
    diagram: str
    fields: dict[str, Any] = {}


class CompleteAsUser(RequestBody):
    custom_action: str = AUTO
    fields: dict[str, Any] = {}


def connections(url: str) -> dict[str, dict[str, Any]]:
    """Return Airflow connections to the emulator, by connection id."""
    return {
        "procore_default": {
            "conn_type": "procore",
            "host": url,
            "login": CLIENT_ID,
            "password": CLIENT_SECRET,
            "extra": {
                "environment": "custom",
                "login_url": url,
                # Numbers, because Airflow warns in each log that it cannot mask such a short text.
                "company_id": int(COMPANY["id"]),
                "project_id": int(PROJECT["id"]),
            },
        },
        "workflowsoft_default": {
            "conn_type": "workflowsoft",
            "host": url,
            "login": ADMIN_LOGIN,
            "password": ADMIN_PASSWORD,
            "extra": {"allow_consume": True},
        },
    }


def routes(app: EmulatorApp) -> APIRouter:
    router = APIRouter(prefix="/_emulator", tags=["Emulator"])

    @router.post("/reset")
    async def reset(body: Reset) -> dict[str, Any]:
        app.reset(body.seed or app.state.seed)
        return {"seed": app.state.seed}

    @router.get("/clock")
    async def clock() -> dict[str, Any]:
        return {"now": app.state.clock.iso()}

    @router.post("/clock")
    async def move_clock(body: Clock) -> dict[str, Any]:
        state = app.state
        if (body.advance is None) == (body.set is None):
            raise Rejection(422, {"error": "Expected either 'advance' (seconds) or 'set' (a time)."})
        state.clock.advance(body.advance or 0.0 if body.set is None else body.set.timestamp() - state.clock.time())
        return {"now": state.clock.iso()}

    @router.get("/flags")
    async def flags() -> dict[str, Any]:
        return app.state.flags

    @router.patch("/flags")
    async def set_flags(values: dict[str, Any]) -> dict[str, Any]:
        app.state.set_flags(values)
        return app.state.flags

    @router.get("/faults")
    async def faults() -> list[dict[str, Any]]:
        return [vars(fault) for fault in app.state.faults]

    @router.post("/faults")
    async def add_fault(body: NewFault, replace: bool = False) -> dict[str, Any]:
        if replace:  # in one call, so that no request can come between the old faults and the new one
            app.state.faults.clear()
        fault = Fault(id=next(app.state.fault_ids), **body.model_dump(by_alias=True))
        app.state.faults.append(fault)
        return {"id": fault.id}

    @router.delete("/faults")
    async def clear_faults() -> dict[str, Any]:
        app.state.faults.clear()
        return {}

    @router.post("/tokens/revoke")
    async def revoke_tokens() -> dict[str, Any]:
        app.state.revoke_all()
        return {}

    @router.get("/effects")
    async def effects() -> list[dict[str, Any]]:
        return app.state.effects

    @router.get("/requests")
    async def requests(since: int = 0) -> list[dict[str, Any]]:
        return [request for request in app.state.requests if request["n"] > since]

    @router.get("/counts")
    async def counts() -> dict[str, Any]:
        return {"served": app.state.requests_served, "by_path": app.state.requests_by_route}

    @router.get("/state")
    async def state() -> dict[str, Any]:
        return {
            "procore": app.procore.summary(),
            "procore_presets": app.procore.presets.summary(),
            "procore_legacy": app.legacy.summary(),
            "workflowsoft": app.workflowsoft.summary(),
            "workflowsoft_processes": app.workflowsoft.process_summary(),
            "workflowsoft_tasks": app.workflowsoft.tasks,
        }

    @router.get("/connections")
    async def airflow_connections(request: Request) -> dict[str, Any]:
        return connections(str(request.base_url).rstrip("/"))

    @router.get("/uploads")
    async def uploads() -> list[dict[str, Any]]:
        return app.uploads.summary()

    def v2(instance_id: str) -> procore.Instance:
        instance = app.procore.instances.get(instance_id)
        if instance is None:
            raise Rejection(404, {"error": f"There is no instance {instance_id}."})
        return instance

    def v1(instance_id: int) -> procore_legacy.Instance:
        instance = app.legacy.instances.get(instance_id)
        if instance is None:
            raise Rejection(404, {"error": f"There is no legacy instance {instance_id}."})
        return instance

    @router.post("/procore/instances")
    async def start_instance(body: StartInstance) -> dict[str, Any]:
        by = user_by_login(body.by).id
        requested = procore_schemas.StartInstance(**body.model_dump(exclude={"project_id", "by"}))
        instance = app.procore.start(requested, body.project_id, by, "user")
        return {"id": instance.id}

    @router.post("/procore/instances/many")
    async def start_many(body: StartMany) -> dict[str, Any]:
        first = body.first_item_id or app.procore.next_item_id(body.tool_type, body.project_id)
        requested = procore_schemas.StartInstance(
            tool_type=body.tool_type, tool_subtype=body.tool_subtype, item_id=str(first)
        )
        by = user_by_login(body.by).id
        started = app.procore.start_many(requested, body.count, body.project_id, by)
        return {"ids": [instance.id for instance in started], "item_ids": [instance.item_id for instance in started]}

    @router.post("/procore/instances/respond-many")
    async def respond_many(body: RespondMany) -> dict[str, Any]:
        instances = [v2(instance_id) for instance_id in dict.fromkeys(body.ids)]
        app.procore.respond_many(instances, user_by_login(body.login).id, body.option)
        return {}

    @router.post("/procore/instances/{id}/respond")
    async def respond_as_user(id: str, body: RespondAsUser) -> dict[str, Any]:
        procore.respond_as_user(app.procore, v2(id), body.login, body.option, body.comment)
        return {}

    @router.post("/procore/instances/{id}/override")
    async def override_as_user(id: str, body: Override) -> dict[str, Any]:
        procore.override_as_user(app.procore, v2(id), body.login, body.option, body.reason)
        return {}

    @router.post("/procore/instances/{id}/terminate")
    async def terminate_as_user(id: str, body: Terminate) -> dict[str, Any]:
        app.procore.terminate(v2(id), user_by_login(body.login).id, "user")
        return {}

    @router.post("/procore/instances/{id}/block")
    async def block(id: str, body: Block) -> dict[str, Any]:
        app.procore.block(v2(id), body.reason, body.retriable, body.refreshes)
        return {}

    @router.post("/procore/instances/{id}/hide")
    async def hide(id: str, body: Hide) -> dict[str, Any]:
        instance = v2(id)
        if body.hidden:
            app.procore.hidden.add(instance.id)
        else:
            app.procore.hidden.discard(instance.id)
        return {}

    def preset(preset_id: str) -> procore_presets.Preset:
        found = app.procore.presets.by_id.get(preset_id)
        if found is None:
            raise Rejection(404, {"error": f"There is no preset {preset_id}."})
        return found

    @router.post("/procore/presets")
    async def add_presets(body: NewPresets) -> dict[str, Any]:
        template = find_template(body.template_id)
        presets = app.procore.presets
        added = [
            presets.add(template, body.project_id, default=body.default, valid=body.valid) for _ in range(body.count)
        ]
        return {"ids": [preset.id for preset in added]}

    @router.post("/procore/presets/{id}")
    async def change_preset(id: str, body: ChangePreset) -> dict[str, Any]:
        found = preset(id)
        if body.valid is not None:
            found.valid = body.valid
        if body.default is not None:
            app.procore.presets.set_default(found, body.default)
        return {}

    @router.post("/procore/presets/{id}/assignees")
    async def edit_group(id: str, body: EditGroup) -> dict[str, Any]:
        user_ids = [user_by_login(login).id for login in body.logins]
        procore_presets.edit_group_as_user(app.procore.presets, preset(id), body.group, user_ids)
        return {}

    def workflow(name: str) -> legacy_workflows.Workflow:
        found = legacy_workflows.WORKFLOWS.get(name)
        if found is None:
            raise unknown_value("workflow", name, legacy_workflows.WORKFLOWS)
        return found

    @router.post("/procore/legacy/instances")
    async def start_legacy(body: StartLegacy) -> dict[str, Any]:
        legacy = app.legacy
        object_id = body.object_id or legacy.next_object_id()
        instance = legacy.start(workflow(body.workflow), object_id, body.project_id, user_by_login(body.by).id)
        return {"id": str(instance.id), "object_id": str(object_id)}

    @router.post("/procore/legacy/instances/many")
    async def start_many_legacy(body: StartManyLegacy) -> dict[str, Any]:
        by = user_by_login(body.by).id
        started = app.legacy.start_many(workflow(body.workflow), body.count, body.project_id, by)
        return {
            "ids": [str(instance.id) for instance in started],
            "object_ids": [str(instance.object_id) for instance in started],
        }

    @router.post("/procore/legacy/upgrade")
    async def upgrade_tool(body: UpgradeTool) -> dict[str, Any]:
        tool = legacy_workflows.TOOLS.get(body.tool_type)
        if tool is None:
            raise unknown_value("legacy tool", body.tool_type, legacy_workflows.TOOLS)
        presets = app.procore.presets.of_tool(tool.type, None, body.project_id)
        has_workflow = any(preset.default and preset.valid for preset in presets)
        by = user_by_login(body.by).id
        moved, stuck = app.legacy.upgrade(tool, body.project_id, by, has_workflow=has_workflow)
        return {"moved": moved, "stuck": stuck}

    @router.post("/procore/legacy/instances/perform-many")
    async def perform_many(body: PerformMany) -> dict[str, Any]:
        instances = [v1(instance_id) for instance_id in dict.fromkeys(body.ids)]
        app.legacy.perform_many(instances, body.activity, user_by_login(body.login).id)
        return {}

    @router.post("/procore/legacy/instances/{id}/perform")
    async def perform_as_user(id: int, body: PerformAsUser) -> dict[str, Any]:
        row = procore_legacy.perform_as_user(app.legacy, v1(id), body.activity, body.login, body.comments)
        return {"history_id": str(row.id)}

    @router.post("/procore/legacy/instances/{id}/terminate")
    async def terminate_legacy_as_user(id: int, body: Terminate) -> dict[str, Any]:
        app.legacy.terminate(v1(id), user_by_login(body.login).id)
        return {}

    @router.post("/workflowsoft/processes")
    async def start_process(body: StartProcess, request: Request) -> dict[str, Any]:
        diagram = diagram_by_title(body.diagram)
        fields = await exact_fields(request, "fields")
        first = app.workflowsoft.start(diagram, workflowsoft.OWNER, fields, "user")
        return {"process_instance_id": str(first.process.id), "integration_instance_id": str(first.id)}

    @router.post("/workflowsoft/instances/{id}/complete")
    async def complete_as_user(id: str, body: CompleteAsUser, request: Request) -> dict[str, Any]:
        fields = await exact_fields(request, "fields")
        workflowsoft.complete_as_user(app.workflowsoft, id, fields, body.custom_action)
        return {}

    return router
