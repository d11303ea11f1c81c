"""The presets of Procore v2: who is in the responsible groups of instances that are started from now on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..state import MANAGER, USERS, EmulatorState
from . import schemas
from .common import (
    check_possible_assignees,
    rejection,
)
from .templates import Template, find_template

# By preset id: template and project. Presets that are added later get ids from 406 on.
DEFAULT_PRESETS = {
    "401": ("301", "1001"),
    "402": ("301", "1002"),
    "403": ("302", "1001"),
    "404": ("303", None),
    "405": ("304", "1001"),
    "391": ("305", "1001"),
    "392": ("306", "1001"),
    "393": ("307", "1001"),
}
FIRST_ADDED_ID = 406


@dataclass
class Preset:
    """Store a preset. ``members`` are by the UUID of their group, ``individuals`` by the UUID of their step."""

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
    before: Preset | None = None  # the state before the last change, while stale reads return it
    stale_reads: float = 0

    @property
    def tool(self) -> tuple[str, str | None, str | None]:
        return self.template.tool_type, self.template.tool_subtype, self.project_id


class Presets:
    def __init__(self, state: EmulatorState):
        self.state = state
        self.clear()

    def clear(self) -> None:
        self.by_id: dict[str, Preset] = {}
        self.next_id = FIRST_ADDED_ID
        for preset_id, (template_id, project_id) in DEFAULT_PRESETS.items():
            self._store(preset_id, find_template(template_id), project_id, default=True, valid=True)

    def add(self, template: Template, project_id: str | None, *, default: bool, valid: bool = True) -> Preset:
        preset_id = str(self.next_id)
        self.next_id += 1
        return self._store(preset_id, template, project_id, default=default, valid=valid)

    def _store(
        self, preset_id: str, template: Template, project_id: str | None, *, default: bool, valid: bool
    ) -> Preset:
        now = self.state.clock.time()
        preset = Preset(preset_id, template, project_id, False, valid, template.members, {}, MANAGER, now, now)
        self.by_id[preset_id] = preset
        self.set_default(preset, default)
        return preset

    def find(self, preset_id: str, project_id: str | None) -> Preset:
        preset = self.by_id.get(preset_id)
        if preset is None or preset.project_id != project_id:
            raise rejection(404, "preset_not_found", f"Preset {preset_id} was not found.", "preset_id")
        return preset

    def shown(self, preset: Preset) -> Preset:
        """Return the preset as a read shows it now, which may be stale."""
        if preset.before is None or preset.stale_reads <= 0:
            return preset
        preset.stale_reads -= 1
        return preset.before

    def of_tool(self, tool_type: str, tool_subtype: str | None, project_id: str | None) -> list[Preset]:
        return [preset for preset in self.by_id.values() if preset.tool == (tool_type, tool_subtype, project_id)]

    def of_template(self, template: Template, project_id: str | None) -> Preset | None:
        """Return the preset of an instance that is started by template: the default preset, else the first one."""
        found = [p for p in self.by_id.values() if p.template is template and p.project_id == project_id]
        return next((p for p in found if p.default), found[0] if found else None)

    def set_default(self, preset: Preset, default: bool) -> None:
        """Make a preset the default of its tool, or stop it from being the default."""
        if default:
            for other in self.of_tool(*preset.tool):
                other.default = False
        preset.default = default
        preset.updated_at = self.state.clock.time()

    def update_assignees(self, preset: Preset, requested: schemas.PresetAssignees, by: str, via: str) -> None:
        """Set the members of the groups, or change nothing if one of them cannot be assigned."""
        memberships = requested.responsible_group_memberships
        individuals = requested.individual_assignees
        self._check(preset, requested)
        preset.before = replace(preset, before=None)
        preset.stale_reads = self.state.flags["preset_stale_reads"]
        if requested.workflow_manager_id is not None:
            preset.manager = requested.workflow_manager_id
        if memberships is not None:
            remaining = preset.members if self.state.flags["preset_groups"] == "merge" or via == "user" else {}
            named = {group.uuid: list(dict.fromkeys(group.login_ids)) for group in memberships}
            preset.members = {uuid: named.get(uuid, remaining.get(uuid, [])) for uuid in preset.template.groups}
        if individuals is None and via == "api" and self.state.flags["preset_rest"] == "emptied":
            preset.individuals = {}
        if individuals is not None:
            preset.individuals = {step.step_uuid: [login.model_dump() for login in step.logins] for step in individuals}
        preset.updated_at = self.state.clock.time()
        groups = {uuid: list(members) for uuid, members in preset.members.items()}
        self.state.record_effect(
            "procore", "update_preset_assignees", by, {"preset_id": preset.id}, {"groups": groups}, via
        )

    def summary(self) -> list[dict[str, Any]]:
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
    def _check(preset: Preset, requested: schemas.PresetAssignees) -> None:
        if requested.workflow_manager_id not in (None, MANAGER):
            message = f"User {requested.workflow_manager_id} cannot be a workflow manager."
            raise rejection(422, "not_a_possible_manager", message, "workflow_manager_id")
        for group in requested.responsible_group_memberships or ():
            if group.uuid not in preset.template.groups:
                message = f"The template has no group {group.uuid}."
                raise rejection(422, "unknown_group", message, "responsible_group_memberships")
            check_possible_assignees(group.login_ids, "responsible_group_memberships")
        steps = {step.uuid for step in preset.template.steps.values() if step.kind == "response"}
        for step in requested.individual_assignees or ():
            if step.step_uuid not in steps:
                message = f"The template has no response step {step.step_uuid}."
                raise rejection(422, "unknown_step", message, "individual_assignees")
            check_possible_assignees([login.id for login in step.logins], "individual_assignees")


def edit_group_as_user(presets: Presets, preset: Preset, group: str, user_ids: list[str]) -> None:
    """Set the members of one group as a user. ``group`` is its name or UUID."""
    uuid = next((uuid for uuid, candidate in preset.template.groups.items() if group in (uuid, candidate.name)), group)
    membership = schemas.PresetMembership(uuid=uuid, login_ids=user_ids)
    presets.update_assignees(
        preset, schemas.PresetAssignees(responsible_group_memberships=[membership]), MANAGER, "user"
    )
