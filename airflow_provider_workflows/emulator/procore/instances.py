"""Procore Workflows v2: instances, their step occurrences and the responses."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any

from .. import models
from ..state import LATEST, MANAGER, USERS, Refusal, World, user_by_login
from .common import check_possible_assignees, refusal
from .presets import Preset, Presets
from .templates import TEMPLATES, Step, Template, check_tool

STEP_TIME = 3 * 24 * 3600  # seconds until a step is overdue
NOTHING: Mapping[str, Any] = {}  # shared by all that have nothing there

# Of the classes below there may be 100,000 objects. What several of them have in common they share, so whatever they
# hold is replaced and never changed in place.


@dataclass(frozen=True, slots=True)
class Answer:
    option: dict[str, str]
    comment: str | None
    attachments: list[dict[str, str]]
    at: float


@dataclass(frozen=True, slots=True)
class Asked:
    """Why somebody is asked in a step: as a member of a group, as an individual, or because somebody added them."""

    group: str | None = None  # its uuid
    required: bool = True
    role_type: str = "responder"  # or commenter, who does not decide
    added_at: float | None = None
    added_by: str | None = None
    reason: str | None = None
    comment: str | None = None


@dataclass(slots=True)
class Occurrence:
    """One visit of a step."""

    id: str
    step: Step
    started_at: float
    assignees: Mapping[str, Asked]  # by user
    ended_at: float | None = None
    answers: Mapping[str, Answer] = field(default_factory=lambda: NOTHING)
    outcome: Mapping[str, str] = field(default_factory=lambda: NOTHING)  # the option that decided
    override: Mapping[str, Any] = field(default_factory=lambda: NOTHING)  # who decided instead of the assignees
    updates: tuple[dict[str, Any], ...] = ()  # who was replaced by whom


@dataclass(slots=True)
class Instance:
    """``groups`` and ``individuals`` are what its preset said when it was started."""

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
    visits: tuple[Occurrence, ...] = ()
    terminated_by: str | None = None
    blocked_reason: str | None = None
    blocked_is_retriable: bool = False
    refreshes: int = 0  # that are needed to lift the block
    restarted_as: str | None = None
    following: str | None = None  # the step that it comes to; until then it stands at none

    @property
    def current(self) -> Occurrence | None:
        return self.visits[-1] if self.ended_at is None and self.following is None else None


class Procore:
    """The state machine of v2."""

    def __init__(self, world: World):
        self.world = world
        self.presets = Presets(world)
        self.clear()

    def clear(self) -> None:
        self.presets.clear()
        self.instances: dict[str, Instance] = {}
        self.tools: dict[tuple[str, str | None], list[Instance]] = {}  # by tool type and project
        # By tool type and project, then by item.
        self.items: dict[tuple[str, str | None], dict[str, tuple[Instance, ...]]] = {}
        self.moving: dict[str, float] = {}  # instance id: when its delayed transition takes place
        self.next_move = 0.0  # no transition takes place before
        self.hidden: set[str] = set()  # ids of the instances that the integration user cannot see
        self.taken_tokens: set[str] = set()  # idempotency tokens of the responses that were taken
        self.next_id = 700001

    # --- what people and the API do ---

    def start(self, wanted: models.StartInstance, project_id: str | None, by: str, via: str) -> Instance:
        check_tool(wanted.tool_type, wanted.tool_subtype, project_id)
        preset, template = self._chosen(wanted, project_id)
        self._check_not_running(template, wanted.item_id, project_id)
        instance = self.add(wanted.item_id, template, project_id, by, preset)
        self._record("start", by, instance, {}, via)
        return instance

    def start_many(self, wanted: models.StartInstance, count: int, project_id: str | None, by: str) -> list[Instance]:
        """Let a person start an instance for the item that is named and for those that follow it, or for none."""
        check_tool(wanted.tool_type, wanted.tool_subtype, project_id)
        preset, template = self._chosen(wanted, project_id)
        first = int(wanted.item_id)
        item_ids = [str(number) for number in range(first, first + count)]
        for item_id in item_ids:
            self._check_not_running(template, item_id, project_id)
        instances = self.add_many(item_ids, template, project_id, by, preset)
        target = {"instance_ids": [instance.id for instance in instances], "item_ids": item_ids}
        self.world.record_effect("procore", "start_many", by, target, {"count": count}, "person")
        return instances

    def add(
        self, item_id: str, template: Template, project_id: str | None, by: str, preset: Preset | None = None
    ) -> Instance:
        return self.add_many([item_id], template, project_id, by, preset)[0]

    def add_many(
        self, item_ids: Iterable[str], template: Template, project_id: str | None, by: str, preset: Preset | None
    ) -> list[Instance]:
        """Start an instance for each item, all at the same time."""
        added = []
        now = self.world.clock.time()
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
        answer = self._checked_answer(instance, occurrence_id, user_id, option_id, comment, attachments)
        if answer is None:
            return
        current = instance.visits[-1]
        detail: dict[str, Any] = {"step": current.step.name, "option": answer.option["name"], "comment": comment}
        if attachments:
            detail["attachments"] = [attachment["name"] for attachment in attachments]
        self._record("respond", user_id, instance, detail, via, step_occurrence_id=current.id)
        self._take(instance, user_id, answer)
        self.catch_up()

    def respond_many(self, instances: Sequence[Instance], user_id: str, option: str) -> None:
        """Let a person give the same answer to the current steps of many, or to none if one of them cannot take it."""
        answers = [
            self._checked_answer(instance, instance.visits[-1].id, user_id, _option_id(instance, option), None, [])
            for instance in instances
        ]
        new = [(one, answer) for one, answer in zip(instances, answers, strict=True) if answer is not None]
        for instance, answer in new:
            self._take(instance, user_id, answer)
        self.catch_up()
        if new:
            target = {"instance_ids": [instance.id for instance, _ in new]}
            detail = {"option": new[0][1].option["name"], "count": len(new)}
            self.world.record_effect("procore", "respond_many", user_id, target, detail, "person")

    def _checked_answer(
        self,
        instance: Instance,
        occurrence_id: str,
        user_id: str,
        option_id: str,
        comment: str | None,
        attachments: list[dict[str, str]],
    ) -> Answer | None:
        """Return the answer, or nothing where it is there already."""
        current = self._current(instance, occurrence_id, user_id)
        option = next((o for o in current.step.wire_options if o["id"] == option_id), None)
        if option is None:
            raise refusal(422, "unknown_option", f"Response option {option_id} does not belong to the current step.")
        if user_id not in current.assignees:
            status = int(self.world.flags["non_assignee"])
            raise refusal(status, "not_an_assignee", "Only assignees of the step can respond.")
        earlier = current.answers.get(user_id)
        if earlier is not None:
            if (earlier.option["id"], earlier.comment or "") == (option_id, comment or ""):
                return None
            raise refusal(422, "already_responded", "A response with different values has already been recorded.")
        return Answer(option, comment, attachments, self.world.clock.time())

    def _take(self, instance: Instance, user_id: str, answer: Answer) -> None:
        """Write an answer down; where it decides, the step moves with the next ``catch_up``."""
        current = instance.visits[-1]
        current.answers = {**current.answers, user_id: answer}
        current.outcome = _outcome(current)
        if current.outcome:
            self._move(instance, answer.at)

    def _move(self, instance: Instance, decided_at: float) -> None:
        flags = self.world.flags
        delay = 0.0 if flags["transition"] == "at_once" else flags["transition_delay"]
        self.moving[instance.id] = decided_at + delay
        self.next_move = min(self.next_move, decided_at + delay)

    def override(self, instance: Instance, user_id: str, option_id: str, reason: str | None) -> None:
        """Let somebody decide the current step in the place of its assignees."""
        current = self._current(instance, instance.visits[-1].id)
        current.outcome = next(option for option in current.step.wire_options if option["id"] == option_id)
        now = self.world.clock.time()
        current.override = {"at": now, "by": user_id, "reason": reason}
        detail = {"step": current.step.name, "option": current.outcome["name"], "reason": reason}
        self._record("override", user_id, instance, detail, "person", step_occurrence_id=current.id)
        self._move(instance, now)
        self.catch_up()

    def add_assignees(self, instance: Instance, wanted: models.AddAssignees, by: str) -> None:
        current = self._current(instance, wanted.step_occurrence_id)
        check_possible_assignees(wanted.assignee_ids, "assignee_ids")
        new = [user_id for user_id in dict.fromkeys(wanted.assignee_ids) if user_id not in current.assignees]
        if not new:
            return
        now = self.world.clock.time()
        asked = Asked(None, wanted.required, wanted.role_type, now, by, wanted.reason, wanted.comment)
        current.assignees = {**current.assignees, **dict.fromkeys(new, asked)}
        instance.updated_at = now
        detail = {"assignee_ids": new, "reason": wanted.reason}
        self._record("add_assignees", by, instance, detail, "api", step_occurrence_id=current.id)

    def terminate(self, instance: Instance, by: str, via: str) -> None:
        if instance.ended_at is not None:
            return
        now = self.world.clock.time()
        self.moving.pop(instance.id, None)
        if instance.current is not None:
            instance.current.ended_at = now
        instance.following = None
        instance.ended_at = instance.updated_at = now
        instance.terminated_by = by
        self._record("terminate", by, instance, {}, via)

    def restart(self, instance: Instance, by: str, mode: str | None) -> Instance:
        """End an instance and start another one: with the preset as it is now, or with the instance's own people."""
        if instance.restarted_as is None:
            self.terminate(instance, by, "api")
            self._check_not_running(instance.template, instance.item_id, instance.project_id)
            preset = instance.preset
            if mode == "current_configuration" and preset is not None:
                own, individuals = instance.groups, instance.individuals
                preset = replace(preset, members=dict(own), individuals=dict(individuals), manager=instance.manager)
            again = self.add(instance.item_id, instance.template, instance.project_id, by, preset)
            again.preset = instance.preset
            instance.restarted_as = again.id
            self._record("restart", by, instance, {"new_instance_id": again.id}, "api")
        return self.instances[instance.restarted_as]

    def block(self, instance: Instance, reason: str, retriable: bool, refreshes: int) -> None:
        """Let a step fail; the next step is not blocked."""
        instance.blocked_reason = reason
        instance.blocked_is_retriable = retriable
        instance.refreshes = refreshes
        self._record("block", "system", instance, {"reason": reason, "retriable": retriable}, "person")

    def refresh(self, instance: Instance, by: str) -> None:
        if instance.ended_at is not None or instance.blocked_reason is None:
            raise refusal(422, "not_blocked", "The workflow instance is not blocked.")
        if not instance.blocked_is_retriable:
            raise refusal(422, "not_retriable", "What blocks the workflow instance cannot be retried.")
        instance.refreshes -= 1
        if instance.refreshes <= 0:
            instance.blocked_reason = None
            instance.blocked_is_retriable = False
        self._record("refresh", by, instance, {"lifted": instance.blocked_reason is None}, "api")

    def catch_up(self) -> None:
        """Let the transitions take place whose time has come."""
        now = self.world.clock.time()
        if now < self.next_move:
            return
        gap = self.world.flags["step_gap"]
        while due := [i for i, moves_at in self.moving.items() if moves_at <= now]:
            for instance_id in due:
                self._step(self.instances[instance_id], self.moving.pop(instance_id), gap)
        self.next_move = min(self.moving.values(), default=LATEST)

    def _step(self, instance: Instance, moves_at: float, gap: float) -> None:
        """Close the current step, and come to the following one at once, or after a gap without a step."""
        flags = self.world.flags
        is_late = flags["transition"] != "at_once" and flags["transition_time"] == "when_decided"
        at = moves_at - (flags["transition_delay"] if is_late else 0.0)
        following, instance.following = instance.following, None
        if following is None:
            visit = instance.visits[-1]
            visit.ended_at = instance.updated_at = at
            following = next(to for name, _, to in visit.step.options if name == visit.outcome["name"])
            if gap:
                instance.following = following
                self.moving[instance.id] = moves_at + gap
                return
        self._enter(instance, following, at)

    def replace_assignee(self, instance: Instance, old: str, new: list[str], by: str) -> bool:
        """Put others in somebody's place, except where an answer is there already; tell whether that changed it."""
        if instance.ended_at is not None:
            return False
        changed = False
        for uuid, members in instance.groups.items():
            if old in members:
                instance.groups = {**instance.groups, uuid: replaced(members, old, new)}
                changed = True
        current = instance.visits[-1]
        if old in current.assignees and old not in current.answers:
            names = replaced(list(current.assignees), old, new)
            place = current.assignees[old]
            current.assignees = {user_id: current.assignees.get(user_id, place) for user_id in names}
            at = self.world.clock.time()
            current.updates += ({"at": at, "by": by, "old": old, "new": new},)
            changed = True
        return changed

    # --- looking ---

    def find(self, instance_id: str, project_id: str | None) -> Instance:
        """Return an instance that the integration user can see."""
        instance = self.instances.get(instance_id)
        if instance is None or instance.project_id != project_id or instance_id in self.hidden:
            raise refusal(404, "not_found", f"Workflow instance {instance_id} was not found.")
        return instance

    def of_tool(
        self, tool_type: str, project_id: str | None, item_id: str | None = None, after: int = 0
    ) -> Iterator[Instance]:
        """Return a tool's instances that the integration user can see, the oldest first, those with a higher id."""
        found: Sequence[Instance] = self.tools.get((tool_type, project_id), [])
        if item_id is not None:
            found = self.items.get((tool_type, project_id), {}).get(item_id, ())
        rest = islice(found, bisect.bisect_right(found, after, key=lambda instance: int(instance.id)), None)
        return (i for i in rest if i.id not in self.hidden) if self.hidden else rest

    def of_item(self, tool_type: str, item_id: str, project_id: str | None) -> Sequence[Instance]:
        """Return an item's instances, the newest first."""
        return self.items.get((tool_type, project_id), {}).get(item_id, ())[::-1]

    def of_level(self, project_id: str | None, after: int = 0) -> Iterator[Instance]:
        """Return the instances of all tools of a project, or of the company, as :meth:`of_tool` does those of one."""
        found = [i for (_, level), instances in self.tools.items() if level == project_id for i in instances]
        found.sort(key=lambda instance: int(instance.id))
        return (i for i in found if int(i.id) > after and i.id not in self.hidden)

    def active_of(self, tool_type: str, item_id: str, project_id: str | None) -> Instance | None:
        """Return the item's active instance, or nothing."""
        return next((i for i in self.of_item(tool_type, item_id, project_id) if i.ended_at is None), None)

    def next_item_id(self, tool_type: str, project_id: str | None) -> int:
        """Return a number above the ids of the tool's items."""
        used = self.items.get((tool_type, project_id), {})
        return max((int(item_id) for item_id in used if item_id.isdecimal()), default=0) + 1

    def check_visible(self, tool_type: str, item_ids: list[str], project_id: str | None) -> None:
        if not self.hidden:
            return
        for item_id in item_ids:
            if any(i.id in self.hidden for i in self.of_item(tool_type, item_id, project_id)):
                raise refusal(403, "forbidden", f"A workflow instance of item {item_id} cannot be seen.", "item_id")

    def state(self) -> list[dict[str, Any]]:
        return [self._summary(instance) for instance in self.instances.values()]

    # --- inner ---

    def _chosen(self, wanted: models.StartInstance, project_id: str | None) -> tuple[Preset | None, Template]:
        """Return the preset, where there is one, and the template that a start means."""
        preset, template = self._named(wanted, project_id)
        if preset is not None and not preset.valid:
            raise refusal(400, "preset_invalid", f"Preset {preset.id} is not ready to use.", "preset_id")
        return preset, template

    def _named(self, wanted: models.StartInstance, project_id: str | None) -> tuple[Preset | None, Template]:
        if wanted.preset_id is not None:
            preset = self.presets.find(wanted.preset_id, project_id)
            if preset.tool != (wanted.tool_type, wanted.tool_subtype, project_id):
                words = f"Preset {preset.id} belongs to another tool."
                raise refusal(404, "preset_not_found", words, "preset_id")
            return preset, preset.template
        fitting = [
            t
            for t in TEMPLATES
            if (t.tool_type, t.tool_subtype) == (wanted.tool_type, wanted.tool_subtype)
            and wanted.template_id in (None, t.id)
        ]
        if not fitting:
            words = f"No template {wanted.template_id or 'at all'} for tool {wanted.tool_type}."
            raise refusal(404, "template_not_found", words)
        if wanted.template_id is None:
            tools_own = self.presets.of_tool(wanted.tool_type, wanted.tool_subtype, project_id)
            default = next((preset for preset in tools_own if preset.default), None)
            return default, fitting[0] if default is None else default.template
        return self.presets.of_template(fitting[0], project_id), fitting[0]

    def _current(self, instance: Instance, occurrence_id: str, user_id: str | None = None) -> Occurrence:
        """Return the current occurrence, which must be the one that is meant."""
        flags = self.world.flags
        current = instance.current
        if instance.ended_at is not None:
            raise refusal(int(flags["ended_instance"]), "instance_ended", "The workflow instance has ended.")
        if current is None:
            raise refusal(int(flags["stale_step"]), "stale_step", "The step occurrence is over.")
        if current.id != occurrence_id or (instance.id in self.moving and user_id not in current.answers):
            raise refusal(int(flags["stale_step"]), "stale_step", "The step occurrence is not the current one.")
        return current

    def _check_not_running(self, template: Template, item_id: str, project_id: str | None) -> None:
        if self.active_of(template.tool_type, item_id, project_id) is not None:
            status = self.world.flags["active_instance"]
            words = f"Item {item_id} already has an active workflow instance."
            raise refusal(400 if status == "existing" else int(status), "active_instance_exists", words)

    def _enter(self, instance: Instance, name: str, now: float) -> None:
        step = instance.template.steps[name]
        instance.blocked_reason = None
        instance.blocked_is_retriable = False
        occurrence = Occurrence(f"{instance.id}{len(instance.visits) + 1:02d}", step, now, _asked(instance, step))
        instance.visits += (occurrence,)
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
        self.world.record_effect("procore", action, by, target, detail, via)

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
        return "overdue" if self.world.clock.time() > current.started_at + STEP_TIME else "in_progress"

    def _summary(self, instance: Instance) -> dict[str, Any]:
        current = instance.current
        holders = [] if current is None else [u for u in current.assignees if u not in current.answers]
        return {
            "id": instance.id,
            "item_id": instance.item_id,
            "project_id": instance.project_id,
            "tool_type": instance.template.tool_type,
            "state": self.status_of(instance),
            "step": current.step.name if current else None,
            "step_occurrence_id": current.id if current else None,
            "waits_for": [USERS[u].login for u in holders],
            "item_status": _item_status(instance),
        }


def replaced(users: list[str], old: str, new: list[str]) -> list[str]:
    """Return the users with others in the place of one of them, nobody twice."""
    return list(dict.fromkeys(one for user_id in users for one in (new if user_id == old else [user_id])))


def _asked(instance: Instance, step: Step) -> Mapping[str, Asked]:
    members = tuple((group.uuid, tuple(instance.groups[group.uuid])) for group, _ in step.groups)
    added = instance.individuals.get(step.uuid, ())
    return _all_asked(members, tuple((one["id"], one["required"], one["role_type"]) for one in added))


@lru_cache(maxsize=1024)
def _all_asked(
    members: tuple[tuple[str, tuple[str, ...]], ...], individuals: tuple[tuple[str, bool, str], ...]
) -> Mapping[str, Asked]:
    asked = {user_id: Asked(group) for group, users in members for user_id in users}
    for user_id, required, role_type in individuals:
        asked.setdefault(user_id, Asked(None, required, role_type))
    return asked


def _outcome(occurrence: Occurrence) -> Mapping[str, str]:
    """Return the option that decides, or nothing while answers are missing."""
    deciding = {u: asked for u, asked in occurrence.assignees.items() if asked.role_type == "responder"}
    given = [(deciding[u], answer.option) for u, answer in occurrence.answers.items() if u in deciding]
    if not given:
        return {}
    if occurrence.step.decision_type == "first":
        return given[0][1]
    refused = next((o for asked, o in given if asked.required and o["response_type"] != "approve"), None)
    one_is_enough = {group.uuid for group, required in occurrence.step.groups if required == "one"}
    satisfied = {asked.group for asked, _ in given} & one_is_enough
    missing = [
        u for u, a in deciding.items() if a.required and u not in occurrence.answers and a.group not in satisfied
    ]
    return refused or ({} if missing else given[0][1])


def _item_status(instance: Instance) -> str | None:
    return next((visit.step.status for visit in reversed(instance.visits) if visit.step.status), None)


# --- what people do ---


def person_overrides(procore: Procore, instance: Instance, login: str, option: str, reason: str | None) -> None:
    procore.override(instance, user_by_login(login).id, _option_id(instance, option), reason)


def person_responds(procore: Procore, instance: Instance, login: str, option: str, comment: str | None) -> None:
    option_id = _option_id(instance, option)
    procore.respond(instance, instance.visits[-1].id, user_by_login(login).id, option_id, comment, [], "person")


def _option_id(instance: Instance, option: str) -> str:
    """Return the id of an option of the current step by its name."""
    current = instance.current
    options: Iterable[dict[str, str]] = current.step.wire_options if current else ()
    chosen = next((o for o in options if o["name"].casefold() == option.casefold()), None)
    if current is None or chosen is None:
        names = ", ".join(o["name"] for o in options) or "none, it has ended or stands at no step"
        raise Refusal(422, {"error": f"instance {instance.id} has no option {option!r} now; options: {names}"})
    return chosen["id"]
