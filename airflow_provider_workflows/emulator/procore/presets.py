"""Presets of Procore Workflows v2: who is in the responsible groups of the instances to come; and the templates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from .. import models
from ..state import INTEGRATION_USER, MANAGER, POSSIBLE_ASSIGNEES, USERS, World
from .common import (
    Project,
    at_levels,
    check_possible_assignees,
    page_of,
    refusal,
    user_name,
    user_ref,
)
from .templates import ROLE_GROUP, TEMPLATES, TOOLS, Step, Template, find_template

SEEDED = (("301", "1001"), ("301", "1002"), ("302", "1001"), ("303", None), ("304", "1001"))
TEMPLATES_SINCE = "2026-01-01T00:00:00Z"


@dataclass
class Preset:
    """``members`` are by the uuid of their group, ``individuals`` by the uuid of their step."""

    id: str
    template: Template
    project_id: str | None  # None at company level
    default: bool
    valid: bool
    members: dict[str, list[str]]
    individuals: dict[str, list[dict[str, Any]]]
    manager: str
    created_at: float
    updated_at: float
    before: Preset | None = None  # as it was before its last change, while reads still show that
    stale_reads: float = 0

    @property
    def tool(self) -> tuple[str, str | None, str | None]:
        return self.template.tool_type, self.template.tool_subtype, self.project_id


class Presets:
    def __init__(self, world: World):
        self.world = world
        self.clear()

    def clear(self) -> None:
        self.by_id: dict[str, Preset] = {}
        for template_id, project_id in SEEDED:
            self.add(find_template(template_id), project_id, default=True)

    def add(self, template: Template, project_id: str | None, *, default: bool, valid: bool = True) -> Preset:
        now = self.world.clock.time()
        preset_id = str(401 + len(self.by_id))
        preset = Preset(preset_id, template, project_id, False, valid, template.members, {}, MANAGER, now, now)
        self.by_id[preset_id] = preset
        self.set_default(preset, default)
        return preset

    def find(self, preset_id: str, project_id: str | None) -> Preset:
        preset = self.by_id.get(preset_id)
        if preset is None or preset.project_id != project_id:
            raise refusal(404, "preset_not_found", f"Preset {preset_id} was not found.", "preset_id")
        return preset

    def shown(self, preset: Preset) -> Preset:
        """Return a preset as a read shows it now, which may be late."""
        if preset.before is None or preset.stale_reads <= 0:
            return preset
        preset.stale_reads -= 1
        return preset.before

    def of_tool(self, tool_type: str, tool_subtype: str | None, project_id: str | None) -> list[Preset]:
        return [preset for preset in self.by_id.values() if preset.tool == (tool_type, tool_subtype, project_id)]

    def of_template(self, template: Template, project_id: str | None) -> Preset | None:
        """Return the preset that an instance of a template takes where none is named, the default one first."""
        found = [p for p in self.by_id.values() if p.template is template and p.project_id == project_id]
        return next((p for p in found if p.default), found[0] if found else None)

    def set_default(self, preset: Preset, default: bool) -> None:
        """Make a preset its tool's default, which another one then no longer is."""
        if default:
            for other in self.of_tool(*preset.tool):
                other.default = False
        preset.default = default
        preset.updated_at = self.world.clock.time()

    def update_assignees(self, preset: Preset, wanted: models.PresetAssignees, by: str, via: str) -> None:
        """Put others into the groups, or change nothing if one of them cannot be there."""
        given = wanted.responsible_group_memberships
        individuals = wanted.individual_assignees
        self._check(preset, wanted)
        preset.before = replace(preset, before=None)
        preset.stale_reads = self.world.flags["preset_stale_reads"]
        if wanted.workflow_manager_id is not None:
            preset.manager = wanted.workflow_manager_id
        if given is not None:
            kept = preset.members if self.world.flags["preset_groups"] == "merge" or via == "person" else {}
            named = {group.uuid: list(dict.fromkeys(group.login_ids)) for group in given}
            preset.members = {uuid: named.get(uuid, kept.get(uuid, [])) for uuid in preset.template.groups}
        if individuals is None and via == "api" and self.world.flags["preset_rest"] == "emptied":
            preset.individuals = {}
        if individuals is not None:
            preset.individuals = {one.step_uuid: [login.model_dump() for login in one.logins] for one in individuals}
        preset.updated_at = self.world.clock.time()
        groups = {uuid: list(members) for uuid, members in preset.members.items()}
        self.world.record_effect(
            "procore", "update_preset_assignees", by, {"preset_id": preset.id}, {"groups": groups}, via
        )

    def state(self) -> list[dict[str, Any]]:
        return [
            {
                "id": preset.id,
                "template": preset.template.id,
                "project_id": preset.project_id,
                "valid": preset.valid,
                "default": preset.default,
                "groups": {
                    group.name: [USERS[user_id].login for user_id in preset.members[uuid]]
                    for uuid, group in preset.template.groups.items()
                },
            }
            for preset in self.by_id.values()
        ]

    @staticmethod
    def _check(preset: Preset, wanted: models.PresetAssignees) -> None:
        if wanted.workflow_manager_id not in (None, MANAGER):
            words = f"User {wanted.workflow_manager_id} is no possible workflow manager."
            raise refusal(422, "not_a_possible_manager", words, "workflow_manager_id")
        for group in wanted.responsible_group_memberships or ():
            if group.uuid not in preset.template.groups:
                words = f"The template has no group {group.uuid}."
                raise refusal(422, "unknown_group", words, "responsible_group_memberships")
            check_possible_assignees(group.login_ids, "responsible_group_memberships")
        steps = {step.uuid for step in preset.template.steps.values() if step.kind == "response"}
        for one in wanted.individual_assignees or ():
            if one.step_uuid not in steps:
                words = f"The template has no response step {one.step_uuid}."
                raise refusal(422, "unknown_step", words, "individual_assignees")
            check_possible_assignees([login.id for login in one.logins], "individual_assignees")


# --- the API's forms ---


def _template_row(template: Template, projects: int) -> dict[str, Any]:
    version = {"id": template.version_id, "version": "1.0"}
    return {
        "id": template.id,
        "name": template.name,
        "created_at": TEMPLATES_SINCE,
        "updated_at": TEMPLATES_SINCE,
        "archived_at": None,
        "assigned_projects_count": projects,
        "tool_type": template.tool_type,
        "tool_subtype": template.tool_subtype,
        "format": "diagram",
        "latest_published_version": version,
        "versions": [version],
    }


def _version(world: World, template: Template) -> dict[str, Any]:
    role = world.flags["role_group_type"]
    return {
        "id": template.version_id,
        "version": "1.0",
        "created_at": TEMPLATES_SINCE,
        "updated_at": TEMPLATES_SINCE,
        "tool_type": template.tool_type,
        "tool_subtype": template.tool_subtype,
        "format": "diagram",
        "steps": [
            {
                "uuid": step.uuid,
                "name": step.name,
                "type": "STANDARD",
                "responsible_groups": [
                    {"uuid": group.uuid, "responses_required": required} for group, required in step.groups
                ],
            }
            for step in template.steps.values()
            if step.kind == "response"
        ],
        "dynamic_steps": [
            {"uuid": step.uuid, "name": step.name, "type": "WORKFLOW", "configuration": {}}
            for step in template.steps.values()
            if step.kind in ("conditional", "action")
        ],
        "responsible_groups": [
            {"uuid": group.uuid, "name": group.name, "type": role if group.kind == ROLE_GROUP else group.kind}
            for group in template.groups.values()
        ],
        "flow_visualizer_settings": {
            "nodes": [{"id": step.uuid, "data": {"label": step.name}} for step in template.steps.values()],
            "edges": [edge for step in template.steps.values() for edge in _edges(template, step)],
        },
    }


def _edges(template: Template, step: Step) -> list[dict[str, str]]:
    ways = [(label, to) for label, _, to in step.options] or ([("", step.following)] if step.following else [])
    return [
        {"id": f"{step.uuid}-{label}", "source": step.uuid, "target": template.steps[to].uuid, "label": label}
        for label, to in ways
    ]


def _preset_row(preset: Preset) -> dict[str, Any]:
    return {
        "id": preset.id,
        "valid": preset.valid,
        "default": preset.default,
        "template": {"name": preset.template.name, **_template_ref(preset)},
    }


def _template_ref(preset: Preset) -> dict[str, Any]:
    template = preset.template
    return {"id": template.id, "last_published_version_id": template.version_id, "format": "diagram"}


def _preset(world: World, preset: Preset) -> dict[str, Any]:
    return {
        **_preset_row(preset),
        "created_at": world.clock.iso(preset.created_at),
        "updated_at": world.clock.iso(preset.updated_at),
        "template": _template_ref(preset),
        "workflow_manager": user_ref(preset.manager),
        "distribution_list": None,
        "responsible_group_memberships": [
            {"responsible_group_uuid": uuid, "assignees": [user_name(user_id) for user_id in members]}
            for uuid, members in preset.members.items()
        ],
        "individual_assignees": _individuals(preset),
    }


def _individuals(preset: Preset) -> list[dict[str, Any]]:
    return [{"step_uuid": uuid, "logins": logins} for uuid, logins in preset.individuals.items()]


# --- routes ---


def routes(world: World, presets: Presets) -> APIRouter:
    company = APIRouter()
    both = APIRouter()

    @company.get("/workflows/tools", response_model=models.ToolList)
    async def list_tools() -> dict[str, Any]:
        if world.flags["tools_list"] == "forbidden":
            raise refusal(403, "forbidden", "You may not list the tools of this company.")
        return {"data": TOOLS}

    @company.get("/workflows/templates", response_model=models.TemplateList)
    async def list_templates(request: Request, response: Response, page: int = 1, per_page: int = 10) -> Any:
        shown = page_of(request, response, TEMPLATES, page, per_page)
        counts = [len({p.project_id for p in presets.by_id.values() if p.template is t} - {None}) for t in shown]
        return {"data": [_template_row(t, count) for t, count in zip(shown, counts, strict=True)]}

    @company.get("/workflows/templates/versions/{id}", response_model=models.TemplateVersionAnswer)
    async def show_version(id: str) -> dict[str, Any]:
        template = next((t for t in TEMPLATES if t.version_id == id), None)
        if template is None:
            raise refusal(404, "not_found", f"Template version {id} was not found.")
        return {"data": _version(world, template)}

    @both.get("/workflows/presets", response_model=models.PresetList)
    async def list_presets(
        request: Request,
        response: Response,
        project_id: Project,
        tool_type: Annotated[str | None, Query(alias="filters[tool_type]")] = None,
        tool_subtype: Annotated[int | None, Query(alias="filters[tool_subtype]")] = None,
        is_default: Annotated[bool | None, Query(alias="filters[is_default]")] = None,
        is_valid: Annotated[bool | None, Query(alias="filters[is_valid]")] = None,
        page: int = 1,
        per_page: int = 10,
    ) -> Any:
        if tool_type is None:
            raise refusal(400, "missing_parameter", "filters[tool_type] is required.", "filters[tool_type]")
        found = [
            preset
            for preset in presets.by_id.values()
            if (preset.template.tool_type, preset.project_id) == (tool_type, project_id)
            and tool_subtype in (None, int(preset.template.tool_subtype or 0))
            and is_default in (None, preset.default)
            and is_valid in (None, preset.valid)
        ]
        return {"data": [_preset_row(preset) for preset in page_of(request, response, found, page, per_page)]}

    @both.get("/workflows/presets/{id}", response_model=models.PresetAnswer)
    async def show_preset(project_id: Project, id: str) -> dict[str, Any]:
        return {"data": _preset(world, presets.shown(presets.find(id, project_id)))}

    @both.patch("/workflows/presets/{id}", response_model=models.PresetAnswer)
    async def update_preset(project_id: Project, id: str, body: models.UpdatePreset) -> dict[str, Any]:
        preset = presets.find(id, project_id)
        presets.set_default(preset, body.default)
        detail = {"default": body.default}
        world.record_effect("procore", "update_preset", INTEGRATION_USER, {"preset_id": id}, detail, "api")
        return {"data": _preset(world, preset)}

    @both.patch("/workflows/presets/{id}/assignees", response_model=models.PresetAssigneesAnswer)
    async def update_assignees(project_id: Project, id: str, body: models.PresetAssignees) -> dict[str, Any]:
        preset = presets.find(id, project_id)
        presets.update_assignees(preset, body, INTEGRATION_USER, "api")
        memberships = [group.model_dump() for group in body.responsible_group_memberships or ()]
        echoed = {"workflow_manager_id": preset.manager, "responsible_group_memberships": memberships}
        return {"data": {**echoed, "individual_assignees": _individuals(preset)}}

    def list_people(people: Sequence[str]) -> Callable[..., Any]:
        async def shown(
            request: Request,
            response: Response,
            tool_type: str,
            tool_subtype: int | None = None,
            page: int = 1,
            per_page: int = 10,
        ) -> Any:
            return {"data": [user_ref(user_id) for user_id in page_of(request, response, people, page, per_page)]}

        return shown

    for name, people in (("possible_assignees", POSSIBLE_ASSIGNEES), ("workflow_managers", [MANAGER])):
        both.get(f"/workflows/{name}", response_model=models.UserList, name=name)(list_people(people))

    return at_levels(world, company, both)


# --- what people do ---


def person_edits_group(presets: Presets, preset: Preset, group: str, user_ids: list[str]) -> None:
    """Let a person put others into one group, which the emulator's user names by its name or its uuid."""
    uuid = next((uuid for uuid, one in preset.template.groups.items() if group in (uuid, one.name)), group)
    membership = models.PresetMembership(uuid=uuid, login_ids=user_ids)
    presets.update_assignees(
        preset, models.PresetAssignees(responsible_group_memberships=[membership]), MANAGER, "person"
    )
