"""The routes of Procore v2's tools, templates, presets and possible assignees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ..state import INTEGRATION_USER, MANAGER, POSSIBLE_ASSIGNEES, EmulatorState
from . import schemas
from .common import Project, at_levels, page_of, rejection, user_name, user_ref
from .presets import Preset, Presets
from .templates import ROLE_GROUP, TEMPLATES, TOOLS, Step, Template

TEMPLATES_SINCE = "2026-01-01T00:00:00Z"


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


def _version(state: EmulatorState, template: Template) -> dict[str, Any]:
    role = state.flags["role_group_type"]
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


def _preset(state: EmulatorState, preset: Preset) -> dict[str, Any]:
    return {
        **_preset_row(preset),
        "created_at": state.clock.iso(preset.created_at),
        "updated_at": state.clock.iso(preset.updated_at),
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


def routes(state: EmulatorState, presets: Presets) -> APIRouter:
    company = APIRouter()
    both = APIRouter()

    @company.get("/workflows/tools", response_model=schemas.ToolList)
    async def list_tools() -> dict[str, Any]:
        if state.flags["tools_list"] == "forbidden":
            raise rejection(403, "forbidden", "You may not list the tools of this company.")
        return {"data": TOOLS}

    @company.get("/workflows/templates", response_model=schemas.TemplateList)
    async def list_templates(request: Request, response: Response, page: int = 1, per_page: int = 10) -> Any:
        shown = page_of(request, response, TEMPLATES, page, per_page)
        counts = [len({p.project_id for p in presets.by_id.values() if p.template is t} - {None}) for t in shown]
        return {"data": [_template_row(t, count) for t, count in zip(shown, counts, strict=True)]}

    @company.get("/workflows/templates/versions/{id}", response_model=schemas.TemplateVersionResponse)
    async def show_version(id: str) -> dict[str, Any]:
        template = next((t for t in TEMPLATES if t.version_id == id), None)
        if template is None:
            raise rejection(404, "not_found", f"Template version {id} was not found.")
        return {"data": _version(state, template)}

    @both.get("/workflows/presets", response_model=schemas.PresetList)
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
            raise rejection(400, "missing_parameter", "filters[tool_type] is required.", "filters[tool_type]")
        found = [
            preset
            for preset in presets.by_id.values()
            if (preset.template.tool_type, preset.project_id) == (tool_type, project_id)
            and tool_subtype in (None, int(preset.template.tool_subtype or 0))
            and is_default in (None, preset.default)
            and is_valid in (None, preset.valid)
        ]
        return {"data": [_preset_row(preset) for preset in page_of(request, response, found, page, per_page)]}

    @both.get("/workflows/presets/{id}", response_model=schemas.PresetResponse)
    async def show_preset(project_id: Project, id: str) -> dict[str, Any]:
        return {"data": _preset(state, presets.shown(presets.find(id, project_id)))}

    @both.patch("/workflows/presets/{id}", response_model=schemas.PresetResponse)
    async def update_preset(project_id: Project, id: str, body: schemas.UpdatePreset) -> dict[str, Any]:
        preset = presets.find(id, project_id)
        presets.set_default(preset, body.default)
        detail = {"default": body.default}
        state.record_effect("procore", "update_preset", INTEGRATION_USER, {"preset_id": id}, detail, "api")
        return {"data": _preset(state, preset)}

    @both.patch("/workflows/presets/{id}/assignees", response_model=schemas.PresetAssigneesResponse)
    async def update_assignees(project_id: Project, id: str, body: schemas.PresetAssignees) -> dict[str, Any]:
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
        both.get(f"/workflows/{name}", response_model=schemas.UserList, name=name)(list_people(people))

    return at_levels(state, company, both)
