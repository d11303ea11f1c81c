"""The state machine of Procore Workflows v2: instances, their step occurrences, and the responses to steps."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from ..state import MANAGER, MAX_TIMESTAMP, USERS, EmulatorState, Rejection, user_by_login
from . import schemas
from .common import check_possible_assignees, rejection
from .presets import Preset, Presets
from .templates import TEMPLATES, Step, Template, check_tool

STEP_OVERDUE_AFTER_SECONDS = 3 * 24 * 3600
NOTHING: Mapping[str, Any] = {}  # shared by all objects with an empty mapping

# There may be 100,000 objects of the classes below. They share equal values, so a value is replaced and never changed
# in place.


@dataclass(frozen=True, slots=True)
class StepResponse:
    option: dict[str, str]
    comment: str | None
    attachments: list[dict[str, str]]
    at: float


@dataclass(frozen=True, slots=True)
class Assignment:
    """Record why a user is an assignee of a step: as a member of a group, as an individual, or added later."""

    group: str | None = None  # UUID
    required: bool = True
    role_type: str = "responder"  # or commenter, whose response does not decide
    added_at: float | None = None
    added_by: str | None = None
    reason: str | None = None
    comment: str | None = None


@dataclass(slots=True)
class Occurrence:
    """Record one occurrence of a step."""

    id: str
    step: Step
    started_at: float
    assignees: Mapping[str, Assignment]  # by user id
    ended_at: float | None = None
    responses: Mapping[str, StepResponse] = field(default_factory=lambda: NOTHING)
    outcome: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # the deciding option
    override: Mapping[str, Any] = field(default_factory=lambda: NOTHING)  # who decided instead of the assignees
    updates: tuple[dict[str, Any], ...] = ()  # which assignee was replaced by whom


@dataclass(slots=True)
class Instance:
    """Record an instance. ``groups`` and ``individuals`` are copied from its preset at the start."""

    id: str
    item_id: str
    template: Template
    project_id: str | None
    created_by: str
    started_at: float
    updated_at: float
    groups: Mapping[str, list[str]]
    preset: Preset | None = None
    individuals: Mapping[str, list[dict[str, Any]]] = field(default_factory=lambda: NOTHING)
    manager: str = MANAGER
    ended_at: float | None = None
    occurrences: tuple[Occurrence, ...] = ()
    terminated_by: str | None = None
    blocked_reason: str | None = None
    blocked_is_retriable: bool = False
    refreshes: int = 0  # still needed to unblock it
    restarted_as: str | None = None
    following: str | None = None  # the next step, while there is no current step

    @property
    def current(self) -> Occurrence | None:
        return self.occurrences[-1] if self.ended_at is None and self.following is None else None


class Procore:
    """Run the instances of all tools and projects."""

    def __init__(self, state: EmulatorState):
        self.state = state
        self.presets = Presets(state)
        self.clear()

    def clear(self) -> None:
        self.presets.clear()
        self.instances: dict[str, Instance] = {}
        self.tools: dict[tuple[str, str | None], list[Instance]] = {}  # by tool type and project
        # By tool type and project, then by item.
        self.items: dict[tuple[str, str | None], dict[str, tuple[Instance, ...]]] = {}
        self.moving: dict[str, float] = {}  # by instance id: the time of its delayed transition
        self.next_move = 0.0  # the time of the next transition
        self.hidden: set[str] = set()  # ids of instances that are hidden from the integration user
        self.response_tokens: set[str] = set()  # idempotency tokens of the recorded responses
        self.next_id = 700001

    # --- actions of users and of the API ---

    def start(self, requested: schemas.StartInstance, project_id: str | None, by: str, via: str) -> Instance:
        check_tool(requested.tool_type, requested.tool_subtype, project_id)
        preset, template = self._preset_and_template(requested, project_id)
        self._check_not_running(template, requested.item_id, project_id)
        instance = self.add(requested.item_id, template, project_id, by, preset)
        self._record("start", by, instance, {}, via)
        return instance

    def start_many(
        self, requested: schemas.StartInstance, count: int, project_id: str | None, by: str
    ) -> list[Instance]:
        """Start, as a user, an instance for the item and each of the next ``count - 1`` items, or none at all."""
        check_tool(requested.tool_type, requested.tool_subtype, project_id)
        preset, template = self._preset_and_template(requested, project_id)
        first = int(requested.item_id)
        item_ids = [str(number) for number in range(first, first + count)]
        for item_id in item_ids:
            self._check_not_running(template, item_id, project_id)
        instances = self.add_many(item_ids, template, project_id, by, preset)
        target = {"instance_ids": [instance.id for instance in instances], "item_ids": item_ids}
        self.state.record_effect("procore", "start_many", by, target, {"count": count}, "user")
        return instances

    def add(
        self, item_id: str, template: Template, project_id: str | None, by: str, preset: Preset | None = None
    ) -> Instance:
        return self.add_many([item_id], template, project_id, by, preset)[0]

    def add_many(
        self, item_ids: Iterable[str], template: Template, project_id: str | None, by: str, preset: Preset | None
    ) -> list[Instance]:
        """Start an instance for each item, with the same start time."""
        added = []
        now = self.state.clock.time()
        groups = template.members if preset is None else preset.members
        of_tool = self.tools.setdefault((template.tool_type, project_id), [])
        items = self.items.setdefault((template.tool_type, project_id), {})
        for item_id in item_ids:
            instance = Instance(str(self.next_id), item_id, template, project_id, by, now, now, groups, preset)
            if preset is not None:
                instance.manager = preset.manager
                instance.individuals = preset.individuals
            self.next_id += 1
            self.instances[instance.id] = instance
            of_tool.append(instance)
            items[item_id] = (*items.get(item_id, ()), instance)
            self._enter(instance, template.first, now)
            added.append(instance)
        return added

    def respond(
        self,
        instance: Instance,
        occurrence_id: str,
        user_id: str,
        option_id: str,
        comment: str | None,
        attachments: list[dict[str, str]],
        via: str,
    ) -> None:
        response = self._checked_response(instance, occurrence_id, user_id, option_id, comment, attachments)
        if response is None:
            return
        current = instance.occurrences[-1]
        detail: dict[str, Any] = {"step": current.step.name, "option": response.option["name"], "comment": comment}
        if attachments:
            detail["attachments"] = [attachment["name"] for attachment in attachments]
        self._record("respond", user_id, instance, detail, via, step_occurrence_id=current.id)
        self._store_response(instance, user_id, response)
        self.catch_up()

    def respond_many(self, instances: Sequence[Instance], user_id: str, option: str) -> None:
        """Respond, as a user, to the current steps of all instances, or to none if one of them rejects it."""
        responses = [
            self._checked_response(
                instance, instance.occurrences[-1].id, user_id, _option_id(instance, option), None, []
            )
            for instance in instances
        ]
        new = [
            (instance, response)
            for instance, response in zip(instances, responses, strict=True)
            if response is not None
        ]
        for instance, response in new:
            self._store_response(instance, user_id, response)
        self.catch_up()
        if new:
            target = {"instance_ids": [instance.id for instance, _ in new]}
            detail = {"option": new[0][1].option["name"], "count": len(new)}
            self.state.record_effect("procore", "respond_many", user_id, target, detail, "user")

    def _checked_response(
        self,
        instance: Instance,
        occurrence_id: str,
        user_id: str,
        option_id: str,
        comment: str | None,
        attachments: list[dict[str, str]],
    ) -> StepResponse | None:
        """Return the response, or None if it was already recorded."""
        current = self._current(instance, occurrence_id, user_id)
        option = next((o for o in current.step.wire_options if o["id"] == option_id), None)
        if option is None:
            raise rejection(422, "unknown_option", f"Response option {option_id} does not belong to the current step.")
        if user_id not in current.assignees:
            status = int(self.state.flags["non_assignee"])
            raise rejection(status, "not_an_assignee", "Only assignees of the step can respond.")
        earlier = current.responses.get(user_id)
        if earlier is not None:
            if (earlier.option["id"], earlier.comment or "") == (option_id, comment or ""):
                return None
            raise rejection(422, "already_responded", "A response with different values has already been recorded.")
        return StepResponse(option, comment, attachments, self.state.clock.time())

    def _store_response(self, instance: Instance, user_id: str, response: StepResponse) -> None:
        """Store a response. If it decides, the next ``catch_up`` moves the step."""
        current = instance.occurrences[-1]
        current.responses = {**current.responses, user_id: response}
        current.outcome = _outcome(current)
        if current.outcome:
            self._move(instance, response.at)

    def _move(self, instance: Instance, decided_at: float) -> None:
        flags = self.state.flags
        delay = 0.0 if flags["transition"] == "at_once" else flags["transition_delay"]
        self.moving[instance.id] = decided_at + delay
        self.next_move = min(self.next_move, decided_at + delay)

    def override(self, instance: Instance, user_id: str, option_id: str, reason: str | None) -> None:
        """Decide the current step instead of its assignees."""
        current = self._current(instance, instance.occurrences[-1].id)
        current.outcome = next(option for option in current.step.wire_options if option["id"] == option_id)
        now = self.state.clock.time()
        current.override = {"at": now, "by": user_id, "reason": reason}
        detail = {"step": current.step.name, "option": current.outcome["name"], "reason": reason}
        self._record("override", user_id, instance, detail, "user", step_occurrence_id=current.id)
        self._move(instance, now)
        self.catch_up()

    def add_assignees(self, instance: Instance, requested: schemas.AddAssignees, by: str) -> None:
        current = self._current(instance, requested.step_occurrence_id)
        check_possible_assignees(requested.assignee_ids, "assignee_ids")
        unchanged = set(current.assignees)
        if self.state.flags["added_commenter"] == "becomes_responder" and requested.role_type != "commenter":
            unchanged -= {user_id for user_id, known in current.assignees.items() if known.role_type == "commenter"}
        new = [user_id for user_id in dict.fromkeys(requested.assignee_ids) if user_id not in unchanged]
        if not new:
            return
        now = self.state.clock.time()
        assignment = Assignment(
            None, requested.required, requested.role_type, now, by, requested.reason, requested.comment
        )
        current.assignees = {**current.assignees, **dict.fromkeys(new, assignment)}
        instance.updated_at = now
        detail = {"assignee_ids": new, "reason": requested.reason}
        self._record("add_assignees", by, instance, detail, "api", step_occurrence_id=current.id)

    def terminate(self, instance: Instance, by: str, via: str) -> None:
        if instance.ended_at is not None:
            return
        now = self.state.clock.time()
        self.moving.pop(instance.id, None)
        if instance.current is not None:
            instance.current.ended_at = now
        instance.following = None
        instance.ended_at = instance.updated_at = now
        instance.terminated_by = by
        self._record("terminate", by, instance, {}, via)

    def restart(self, instance: Instance, by: str, mode: str | None) -> Instance:
        """End an instance and start a new one, with the current preset or with the instance's own configuration."""
        if instance.restarted_as is None:
            self.terminate(instance, by, "api")
            self._check_not_running(instance.template, instance.item_id, instance.project_id)
            preset = instance.preset
            if mode == "current_configuration" and preset is not None:
                own, individuals = instance.groups, instance.individuals
                preset = replace(preset, members=dict(own), individuals=dict(individuals), manager=instance.manager)
            restarted = self.add(instance.item_id, instance.template, instance.project_id, by, preset)
            restarted.preset = instance.preset
            instance.restarted_as = restarted.id
            self._record("restart", by, instance, {"new_instance_id": restarted.id}, "api")
        return self.instances[instance.restarted_as]

    def block(self, instance: Instance, reason: str, retriable: bool, refreshes: int) -> None:
        """Block the current step. The next step is not blocked."""
        instance.blocked_reason = reason
        instance.blocked_is_retriable = retriable
        instance.refreshes = refreshes
        self._record("block", "system", instance, {"reason": reason, "retriable": retriable}, "user")

    def refresh(self, instance: Instance, by: str) -> None:
        if instance.ended_at is not None or instance.blocked_reason is None:
            raise rejection(422, "not_blocked", "The workflow instance is not blocked.")
        if not instance.blocked_is_retriable:
            raise rejection(422, "not_retriable", "The block of the workflow instance cannot be retried.")
        instance.refreshes -= 1
        if instance.refreshes <= 0:
            instance.blocked_reason = None
            instance.blocked_is_retriable = False
        self._record("refresh", by, instance, {"lifted": instance.blocked_reason is None}, "api")

    def catch_up(self) -> None:
        """Run the transitions that are due."""
        now = self.state.clock.time()
        if now < self.next_move:
            return
        gap = self.state.flags["step_gap"]
        while due := [i for i, moves_at in self.moving.items() if moves_at <= now]:
            for instance_id in due:
                self._step(self.instances[instance_id], self.moving.pop(instance_id), gap)
        self.next_move = min(self.moving.values(), default=MAX_TIMESTAMP)

    def _step(self, instance: Instance, moves_at: float, gap: float) -> None:
        """End the current step, and enter the next one now or after the flag ``step_gap``."""
        flags = self.state.flags
        is_late = flags["transition"] != "at_once" and flags["transition_time"] == "when_decided"
        at = moves_at - (flags["transition_delay"] if is_late else 0.0)
        following, instance.following = instance.following, None
        if following is None:
            occurrence = instance.occurrences[-1]
            occurrence.ended_at = instance.updated_at = at
            following = next(to for name, _, to in occurrence.step.options if name == occurrence.outcome["name"])
            if gap:
                instance.following = following
                self.moving[instance.id] = moves_at + gap
                return
        self._enter(instance, following, at)

    def replace_assignee(self, instance: Instance, old: str, new: list[str], by: str) -> bool:
        """Replace an assignee who has not responded yet. Return whether the instance changed."""
        if instance.ended_at is not None:
            return False
        changed = False
        for uuid, members in instance.groups.items():
            if old in members:
                instance.groups = {**instance.groups, uuid: replaced(members, old, new)}
                changed = True
        current = instance.occurrences[-1]
        if old in current.assignees and old not in current.responses:
            names = replaced(list(current.assignees), old, new)
            place = current.assignees[old]
            current.assignees = {user_id: current.assignees.get(user_id, place) for user_id in names}
            at = self.state.clock.time()
            current.updates += ({"at": at, "by": by, "old": old, "new": new},)
            changed = True
        return changed

    # --- look-ups ---

    def find(self, instance_id: str, project_id: str | None) -> Instance:
        """Return an instance that the integration user can see."""
        instance = self.instances.get(instance_id)
        if instance is None or instance.project_id != project_id or instance_id in self.hidden:
            raise rejection(404, "not_found", f"Workflow instance {instance_id} was not found.")
        return instance

    def of_tool(
        self, tool_type: str, project_id: str | None, item_id: str | None = None, after: int = 0
    ) -> Iterator[Instance]:
        """Return the visible instances of a tool with an id above ``after``, oldest first."""
        found: Sequence[Instance] = self.tools.get((tool_type, project_id), [])
        if item_id is not None:
            found = self.items.get((tool_type, project_id), {}).get(item_id, ())
        rest = islice(found, bisect.bisect_right(found, after, key=lambda instance: int(instance.id)), None)
        return (i for i in rest if i.id not in self.hidden) if self.hidden else rest

    def of_item(self, tool_type: str, item_id: str, project_id: str | None) -> Sequence[Instance]:
        """Return the instances of an item, newest first."""
        return self.items.get((tool_type, project_id), {}).get(item_id, ())[::-1]

    def of_level(self, project_id: str | None, after: int = 0) -> Iterator[Instance]:
        """Return the visible instances of all tools of a project, or of the company, with an id above ``after``."""
        found = [i for (_, level), instances in self.tools.items() if level == project_id for i in instances]
        found.sort(key=lambda instance: int(instance.id))
        return (i for i in found if int(i.id) > after and i.id not in self.hidden)

    def active_of(self, tool_type: str, item_id: str, project_id: str | None) -> Instance | None:
        """Return the active instance of an item, or None."""
        return next((i for i in self.of_item(tool_type, item_id, project_id) if i.ended_at is None), None)

    def next_item_id(self, tool_type: str, project_id: str | None) -> int:
        """Return a number above the item ids of a tool."""
        used = self.items.get((tool_type, project_id), {})
        return max((int(item_id) for item_id in used if item_id.isdecimal()), default=0) + 1

    def check_visible(self, tool_type: str, item_ids: list[str], project_id: str | None) -> None:
        if not self.hidden:
            return
        for item_id in item_ids:
            if any(i.id in self.hidden for i in self.of_item(tool_type, item_id, project_id)):
                raise rejection(403, "forbidden", f"A workflow instance of item {item_id} cannot be seen.", "item_id")

    def summary(self) -> list[dict[str, Any]]:
        return [self._summary(instance) for instance in self.instances.values()]

    # --- internals ---

    def _preset_and_template(
        self, requested: schemas.StartInstance, project_id: str | None
    ) -> tuple[Preset | None, Template]:
        """Return the preset, if there is one, and the template that a start request selects."""
        preset, template = self._find_preset_and_template(requested, project_id)
        if preset is not None and not preset.valid:
            raise rejection(400, "preset_invalid", f"Preset {preset.id} is not ready to use.", "preset_id")
        return preset, template

    def _find_preset_and_template(
        self, requested: schemas.StartInstance, project_id: str | None
    ) -> tuple[Preset | None, Template]:
        if requested.preset_id is not None:
            preset = self.presets.find(requested.preset_id, project_id)
            if preset.tool != (requested.tool_type, requested.tool_subtype, project_id):
                message = f"Preset {preset.id} belongs to another tool."
                raise rejection(404, "preset_not_found", message, "preset_id")
            return preset, preset.template
        fitting = [
            t
            for t in TEMPLATES
            if (t.tool_type, t.tool_subtype) == (requested.tool_type, requested.tool_subtype)
            and requested.template_id in (None, t.id)
        ]
        if not fitting:
            message = f"Tool {requested.tool_type} has no such template."
            raise rejection(404, "template_not_found", message)
        if requested.template_id is None:
            tools_own = self.presets.of_tool(requested.tool_type, requested.tool_subtype, project_id)
            default = next((preset for preset in tools_own if preset.default), None)
            return default, fitting[0] if default is None else default.template
        return self.presets.of_template(fitting[0], project_id), fitting[0]

    def _current(self, instance: Instance, occurrence_id: str, user_id: str | None = None) -> Occurrence:
        """Return the current step occurrence. Reject any other occurrence."""
        flags = self.state.flags
        current = instance.current
        if instance.ended_at is not None:
            raise rejection(int(flags["ended_instance"]), "instance_ended", "The workflow instance has ended.")
        if current is None:
            raise rejection(int(flags["stale_step"]), "stale_step", "The step occurrence is over.")
        if current.id != occurrence_id or (instance.id in self.moving and user_id not in current.responses):
            raise rejection(int(flags["stale_step"]), "stale_step", "The step occurrence is not the current one.")
        return current

    def _check_not_running(self, template: Template, item_id: str, project_id: str | None) -> None:
        if self.active_of(template.tool_type, item_id, project_id) is not None:
            status = self.state.flags["active_instance"]
            message = f"Item {item_id} already has an active workflow instance."
            raise rejection(400 if status == "existing" else int(status), "active_instance_exists", message)

    def _enter(self, instance: Instance, name: str, now: float) -> None:
        step = instance.template.steps[name]
        instance.blocked_reason = None
        instance.blocked_is_retriable = False
        occurrence = Occurrence(
            f"{instance.id}{len(instance.occurrences) + 1:02d}", step, now, _assignments(instance, step)
        )
        instance.occurrences += (occurrence,)
        instance.updated_at = now
        if step.kind == "response":
            return
        occurrence.ended_at = now
        if step.kind == "end":
            instance.ended_at = now
        else:
            self._enter(instance, step.following, now)

    def _record(self, action: str, by: str, instance: Instance, detail: dict[str, Any], via: str, **ids: str) -> None:
        target = {"instance_id": instance.id, "item_id": instance.item_id, **ids}
        self.state.record_effect("procore", action, by, target, detail, via)

    def status_of(self, instance: Instance) -> str:
        if instance.terminated_by is not None:
            return "terminated"
        if instance.ended_at is not None:
            return "complete"
        if instance.blocked_reason is not None:
            return "blocked"
        current = instance.current
        if current is None or instance.id in self.moving:
            return "processing"
        return "overdue" if self.state.clock.time() > current.started_at + STEP_OVERDUE_AFTER_SECONDS else "in_progress"

    def _summary(self, instance: Instance) -> dict[str, Any]:
        current = instance.current
        pending_assignees = [] if current is None else [u for u in current.assignees if u not in current.responses]
        return {
            "id": instance.id,
            "item_id": instance.item_id,
            "project_id": instance.project_id,
            "tool_type": instance.template.tool_type,
            "state": self.status_of(instance),
            "step": current.step.name if current else None,
            "step_occurrence_id": current.id if current else None,
            "waits_for": [USERS[u].login for u in pending_assignees],
            "item_status": _item_status(instance),
        }


def replaced(users: list[str], old: str, new: list[str]) -> list[str]:
    """Return the users with one of them replaced by others, without duplicates."""
    return list(
        dict.fromkeys(replacement for user_id in users for replacement in (new if user_id == old else [user_id]))
    )


def _assignments(instance: Instance, step: Step) -> Mapping[str, Assignment]:
    members = tuple((group.uuid, tuple(instance.groups[group.uuid])) for group, _ in step.groups)
    added = instance.individuals.get(step.uuid, ())
    return _all_assignments(members, tuple((login["id"], login["required"], login["role_type"]) for login in added))


@lru_cache(maxsize=1024)
def _all_assignments(
    members: tuple[tuple[str, tuple[str, ...]], ...], individuals: tuple[tuple[str, bool, str], ...]
) -> Mapping[str, Assignment]:
    assignments = {user_id: Assignment(group) for group, users in members for user_id in users}
    for user_id, required, role_type in individuals:
        assignments.setdefault(user_id, Assignment(None, required, role_type))
    return assignments


def _outcome(occurrence: Occurrence) -> Mapping[str, str]:
    """Return the deciding option, or an empty mapping while required responses are missing."""
    deciding = {u: assignment for u, assignment in occurrence.assignees.items() if assignment.role_type == "responder"}
    submitted = [(deciding[u], response.option) for u, response in occurrence.responses.items() if u in deciding]
    if not submitted:
        return {}
    if occurrence.step.decision_type == "first":
        return submitted[0][1]
    rejecting = next(
        (o for assignment, o in submitted if assignment.required and o["response_type"] != "approve"), None
    )
    one_is_enough = {group.uuid for group, required in occurrence.step.groups if required == "one"}
    satisfied = {assignment.group for assignment, _ in submitted} & one_is_enough
    missing = [
        u for u, a in deciding.items() if a.required and u not in occurrence.responses and a.group not in satisfied
    ]
    return rejecting or ({} if missing else submitted[0][1])


def _item_status(instance: Instance) -> str | None:
    return next(
        (occurrence.step.status for occurrence in reversed(instance.occurrences) if occurrence.step.status), None
    )


# --- acting as a user ---


def override_as_user(procore: Procore, instance: Instance, login: str, option: str, reason: str | None) -> None:
    procore.override(instance, user_by_login(login).id, _option_id(instance, option), reason)


def respond_as_user(procore: Procore, instance: Instance, login: str, option: str, comment: str | None) -> None:
    option_id = _option_id(instance, option)
    procore.respond(instance, instance.occurrences[-1].id, user_by_login(login).id, option_id, comment, [], "user")


def _option_id(instance: Instance, option: str) -> str:
    """Return the id of a response option of the current step by its label."""
    current = instance.current
    options: Iterable[dict[str, str]] = current.step.wire_options if current else ()
    chosen = next((o for o in options if o["name"].casefold() == option.casefold()), None)
    if current is None or chosen is None:
        names = ", ".join(o["name"] for o in options) or "none, because there is no current step"
        raise Rejection(
            422, {"error": f"Instance {instance.id} has no option {option!r} now. Expected one of: {names}."}
        )
    return chosen["id"]
