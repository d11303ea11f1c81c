"""`/_emulator/`: play the people, move the clock, turn the flags, make faults, read the record."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from . import models
from .procore import instances as procore
from .procore import presets as procore_presets
from .procore.templates import PURCHASE_ORDER, find_template
from .procore_legacy import instances as procore_legacy
from .state import (
    ADMIN_LOGIN,
    ADMIN_PASSWORD,
    CLIENT_ID,
    CLIENT_SECRET,
    COMPANY,
    PROJECT,
    Fault,
    Refusal,
    user_by_login,
)
from .workflowsoft import instances as workflowsoft
from .workflowsoft.diagrams import AUTO, diagram_by_title

if TYPE_CHECKING:
    from .app import Emulated


MOST = 100_000  # instances that one order starts
ProjectId = Literal["1001", "1002"] | None  # None: at company level


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Reset(Order):
    seed: str | None = None


class Clock(Order):
    advance: float | None = None
    set: AwareDatetime | None = None


class NewFault(Order):
    method: str | None = None
    path: str = ""
    times: int = Field(1, ge=1)
    skip: int = Field(0, ge=0)
    status: int | None = Field(None, ge=200, le=599)
    headers: dict[str, str] = {}
    body: str | None = None
    json_answer: Any = Field(None, alias="json")
    delay: float = Field(0.0, ge=0)
    reset: Literal["before", "after"] | None = None
    truncate: int | None = Field(None, ge=0)
    after: bool = False

    @field_validator("path")
    @classmethod
    def _is_regular_expression(cls, path: str) -> str:
        try:
            re.compile(path)
        except re.error as wrong:
            raise ValueError(f"is no regular expression: {wrong}") from None
        return path


class StartInstance(Order):
    tool_type: str
    item_id: str
    tool_subtype: str | None = None
    project_id: ProjectId = "1001"
    template_id: str | None = None
    preset_id: str | None = None
    by: str = "pat@example.com"


class StartMany(Order):
    count: int = Field(ge=1, le=MOST)
    tool_type: str = PURCHASE_ORDER
    tool_subtype: str | None = None
    project_id: ProjectId = "1001"
    first_item_id: int | None = Field(None, ge=1)
    by: str = "pat@example.com"


class ManyRespond(Order):
    ids: list[str] = Field(min_length=1)
    login: str
    option: str


class Hide(Order):
    hidden: bool = True


class NewPresets(Order):
    template_id: str = "301"
    project_id: ProjectId = "1001"
    count: int = Field(1, ge=1)
    default: bool = False
    valid: bool = True


class ChangePreset(Order):
    valid: bool | None = None
    default: bool | None = None


class EditGroup(Order):
    group: str
    logins: list[str]


class PersonResponds(Order):
    login: str
    option: str
    comment: str | None = None


class Override(Order):
    login: str = "pat@example.com"
    option: str
    reason: str | None = None


class Terminate(Order):
    login: str = "pat@example.com"


class Block(Order):
    reason: str
    retriable: bool = True
    refreshes: int = Field(1, ge=1)


class StartLegacy(Order):
    workflow: str = procore_legacy.PURCHASE_ORDER.name
    object_id: int | None = None
    by: str = "pat@example.com"


class PersonPerforms(Order):
    activity: str
    login: str
    comments: str | None = None


class StartManyLegacy(Order):
    count: int = Field(ge=1, le=MOST)
    workflow: str = procore_legacy.PURCHASE_ORDER.name
    by: str = "pat@example.com"


class ManyPerform(Order):
    ids: list[int] = Field(min_length=1)
    activity: str
    login: str


class StartProcess(Order):
    diagram: str
    fields: dict[str, Any] = {}


class PersonCompletes(Order):
    custom_action: str = AUTO
    fields: dict[str, Any] = {}


def connections(url: str) -> dict[str, dict[str, Any]]:
    """Return the emulator's Airflow connections by their id."""
    return {
        "procore_default": {
            "conn_type": "procore",
            "host": url,
            "login": CLIENT_ID,
            "password": CLIENT_SECRET,
            "extra": {
                "environment": "custom",
                "login_url": url,
                # As numbers: Airflow warns in each log that it cannot mask so short a text.
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


def routes(emulated: Emulated) -> APIRouter:
    router = APIRouter(prefix="/_emulator", tags=["Emulator"])

    @router.post("/reset")
    async def reset(order: Reset) -> dict[str, Any]:
        emulated.reset(order.seed or emulated.world.seed)
        return {"seed": emulated.world.seed}

    @router.get("/clock")
    async def clock() -> dict[str, Any]:
        return {"now": emulated.world.clock.iso()}

    @router.post("/clock")
    async def move_clock(order: Clock) -> dict[str, Any]:
        world = emulated.world
        if (order.advance is None) == (order.set is None):
            raise Refusal(422, {"error": "give either advance (seconds) or set (a time)"})
        world.clock.advance(order.advance or 0.0 if order.set is None else order.set.timestamp() - world.clock.time())
        return {"now": world.clock.iso()}

    @router.get("/flags")
    async def flags() -> dict[str, Any]:
        return emulated.world.flags

    @router.patch("/flags")
    async def set_flags(wanted: dict[str, Any]) -> dict[str, Any]:
        emulated.world.set_flags(wanted)
        return emulated.world.flags

    @router.get("/faults")
    async def faults() -> list[dict[str, Any]]:
        return [vars(fault) for fault in emulated.world.faults]

    @router.post("/faults")
    async def add_fault(order: NewFault, replace: bool = False) -> dict[str, Any]:
        if replace:  # at once, so that no request comes in between
            emulated.world.faults.clear()
        fault = Fault(id=next(emulated.world.fault_ids), **order.model_dump(by_alias=True))
        emulated.world.faults.append(fault)
        return {"id": fault.id}

    @router.delete("/faults")
    async def clear_faults() -> dict[str, Any]:
        emulated.world.faults.clear()
        return {}

    @router.post("/tokens/revoke")
    async def revoke_tokens() -> dict[str, Any]:
        emulated.world.revoke_all()
        return {}

    @router.get("/effects")
    async def effects() -> list[dict[str, Any]]:
        return emulated.world.effects

    @router.get("/requests")
    async def requests(since: int = 0) -> list[dict[str, Any]]:
        return [request for request in emulated.world.requests if request["n"] > since]

    @router.get("/counts")
    async def counts() -> dict[str, Any]:
        return {"served": emulated.world.requests_served, "by_path": emulated.world.requests_by_route}

    @router.get("/state")
    async def state() -> dict[str, Any]:
        return {
            "procore": emulated.procore.state(),
            "procore_presets": emulated.procore.presets.state(),
            "procore_legacy": emulated.legacy.state(),
            "workflowsoft": emulated.workflowsoft.state(),
            "workflowsoft_processes": emulated.workflowsoft.process_state(),
            "workflowsoft_tasks": emulated.workflowsoft.tasks,
        }

    @router.get("/connections")
    async def airflow_connections(request: Request) -> dict[str, Any]:
        return connections(str(request.base_url).rstrip("/"))

    @router.get("/uploads")
    async def uploads() -> list[dict[str, Any]]:
        return emulated.uploads.state()

    def v2(instance_id: str) -> procore.Instance:
        instance = emulated.procore.instances.get(instance_id)
        if instance is None:
            raise Refusal(404, {"error": f"no instance {instance_id}"})
        return instance

    def v1(instance_id: int) -> procore_legacy.Instance:
        instance = emulated.legacy.instances.get(instance_id)
        if instance is None:
            raise Refusal(404, {"error": f"no legacy instance {instance_id}"})
        return instance

    @router.post("/procore/instances")
    async def start_instance(order: StartInstance) -> dict[str, Any]:
        by = user_by_login(order.by).id
        wanted = models.StartInstance(**order.model_dump(exclude={"project_id", "by"}))
        instance = emulated.procore.start(wanted, order.project_id, by, "person")
        return {"id": instance.id}

    @router.post("/procore/instances/many")
    async def start_many(order: StartMany) -> dict[str, Any]:
        first = order.first_item_id or emulated.procore.next_item_id(order.tool_type, order.project_id)
        wanted = models.StartInstance(tool_type=order.tool_type, tool_subtype=order.tool_subtype, item_id=str(first))
        by = user_by_login(order.by).id
        started = emulated.procore.start_many(wanted, order.count, order.project_id, by)
        return {"ids": [one.id for one in started], "item_ids": [one.item_id for one in started]}

    @router.post("/procore/instances/respond-many")
    async def many_respond(order: ManyRespond) -> dict[str, Any]:
        instances = [v2(instance_id) for instance_id in dict.fromkeys(order.ids)]
        emulated.procore.respond_many(instances, user_by_login(order.login).id, order.option)
        return {}

    @router.post("/procore/instances/{id}/respond")
    async def person_responds(id: str, order: PersonResponds) -> dict[str, Any]:
        procore.person_responds(emulated.procore, v2(id), order.login, order.option, order.comment)
        return {}

    @router.post("/procore/instances/{id}/override")
    async def person_overrides(id: str, order: Override) -> dict[str, Any]:
        procore.person_overrides(emulated.procore, v2(id), order.login, order.option, order.reason)
        return {}

    @router.post("/procore/instances/{id}/terminate")
    async def person_terminates(id: str, order: Terminate) -> dict[str, Any]:
        emulated.procore.terminate(v2(id), user_by_login(order.login).id, "person")
        return {}

    @router.post("/procore/instances/{id}/block")
    async def block(id: str, order: Block) -> dict[str, Any]:
        emulated.procore.block(v2(id), order.reason, order.retriable, order.refreshes)
        return {}

    @router.post("/procore/instances/{id}/hide")
    async def hide(id: str, order: Hide) -> dict[str, Any]:
        instance = v2(id)
        if order.hidden:
            emulated.procore.hidden.add(instance.id)
        else:
            emulated.procore.hidden.discard(instance.id)
        return {}

    def preset(preset_id: str) -> procore_presets.Preset:
        found = emulated.procore.presets.by_id.get(preset_id)
        if found is None:
            raise Refusal(404, {"error": f"no preset {preset_id}"})
        return found

    @router.post("/procore/presets")
    async def add_presets(order: NewPresets) -> dict[str, Any]:
        template = find_template(order.template_id)
        presets = emulated.procore.presets
        added = [
            presets.add(template, order.project_id, default=order.default, valid=order.valid)
            for _ in range(order.count)
        ]
        return {"ids": [one.id for one in added]}

    @router.post("/procore/presets/{id}")
    async def change_preset(id: str, order: ChangePreset) -> dict[str, Any]:
        found = preset(id)
        if order.valid is not None:
            found.valid = order.valid
        if order.default is not None:
            emulated.procore.presets.set_default(found, order.default)
        return {}

    @router.post("/procore/presets/{id}/assignees")
    async def edit_group(id: str, order: EditGroup) -> dict[str, Any]:
        user_ids = [user_by_login(login).id for login in order.logins]
        procore_presets.person_edits_group(emulated.procore.presets, preset(id), order.group, user_ids)
        return {}

    def workflow(name: str) -> procore_legacy.Workflow:
        found = procore_legacy.WORKFLOWS.get(name)
        if found is None:
            words = f"no workflow {name!r}; there are {', '.join(procore_legacy.WORKFLOWS)}"
            raise Refusal(422, {"error": words})
        return found

    @router.post("/procore/legacy/instances")
    async def start_legacy(order: StartLegacy) -> dict[str, Any]:
        legacy = emulated.legacy
        object_id = order.object_id or legacy.next_object_id()
        instance = legacy.start(workflow(order.workflow), object_id, user_by_login(order.by).id)
        return {"id": str(instance.id), "object_id": str(object_id)}

    @router.post("/procore/legacy/instances/many")
    async def start_many_legacy(order: StartManyLegacy) -> dict[str, Any]:
        by = user_by_login(order.by).id
        started = emulated.legacy.start_many(workflow(order.workflow), order.count, by)
        return {"ids": [str(one.id) for one in started], "object_ids": [str(one.object_id) for one in started]}

    @router.post("/procore/legacy/instances/perform-many")
    async def many_perform(order: ManyPerform) -> dict[str, Any]:
        instances = [v1(instance_id) for instance_id in dict.fromkeys(order.ids)]
        emulated.legacy.perform_many(instances, order.activity, user_by_login(order.login).id)
        return {}

    @router.post("/procore/legacy/instances/{id}/perform")
    async def person_performs(id: int, order: PersonPerforms) -> dict[str, Any]:
        row = procore_legacy.person_performs(emulated.legacy, v1(id), order.activity, order.login, order.comments)
        return {"history_id": str(row.id)}

    @router.post("/procore/legacy/instances/{id}/terminate")
    async def person_terminates_legacy(id: int, order: Terminate) -> dict[str, Any]:
        emulated.legacy.terminate(v1(id), user_by_login(order.login).id)
        return {}

    @router.post("/workflowsoft/processes")
    async def start_process(order: StartProcess, request: Request) -> dict[str, Any]:
        diagram = diagram_by_title(order.diagram)
        fields = await workflowsoft.exact_fields(request, "fields")
        first = emulated.workflowsoft.start(diagram, workflowsoft.OWNER, fields, "person")
        return {"process_instance_id": str(first.process.id), "integration_instance_id": str(first.id)}

    @router.post("/workflowsoft/instances/{id}/complete")
    async def person_completes(id: str, order: PersonCompletes, request: Request) -> dict[str, Any]:
        fields = await workflowsoft.exact_fields(request, "fields")
        workflowsoft.person_completes(emulated.workflowsoft, id, fields, order.custom_action)
        return {}

    return router
