"""The state machine of Procore Legacy Workflows v1: instances, activities that are performed, and their history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..state import PROJECT, USERS, EmulatorState, Rejection, user_by_login
from .workflows import ROLES, Activity, State, Tool, Workflow

OVERRIDING_USER = "1498096"  # the user in the guide's sample responses, whoever the request names


@dataclass(frozen=True, slots=True)
class Attachments:
    """List the attachments of an activity: names, sizes in bytes of the uploaded files, and ids of stored files."""

    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    prostore_file_ids: tuple[int, ...] = ()

    @property
    def detail(self) -> dict[str, Any]:
        uploaded = [{"name": name, "size": size} for name, size in zip(self.names, self.sizes, strict=False)]
        found = {"attachments": uploaded, "prostore_file_ids": list(self.prostore_file_ids)}
        return {kind: files for kind, files in found.items() if files}

    @property
    def shown(self) -> list[str]:
        return [*self.names, *(f"prostore-{number}" for number in self.prostore_file_ids)]


@dataclass(frozen=True, slots=True)
class Performed:
    """Record one row of the activity history."""

    id: int
    instance_id: int
    activity: Activity
    state: State
    role: int
    performed_by: str
    comments: str | None
    attachments: Attachments
    state_set_at: float
    at: float


@dataclass(slots=True)
class Instance:
    id: int
    object_id: int
    workflow: Workflow
    state: State
    state_set_at: float
    history: tuple[Performed, ...] = ()
    done_here: frozenset[tuple[int, int]] = frozenset()  # pairs of activity and role since the state was entered
    terminated_at: float | None = None
    terminated_by: str | None = None
    moves_to: State | None = None  # set during a delayed transition
    project_id: str = PROJECT["id"]
    upgraded_at: float | None = None  # when its tool was upgraded, if it was running then
    is_stuck: bool = False  # no workflow of v2 took it over at the upgrade

    @property
    def has_ended(self) -> bool:
        return self.terminated_at is not None or not (self.state.activities or self.moves_to)


class ProcoreLegacy:
    """Run the legacy instances."""

    def __init__(self, state: EmulatorState):
        self.state = state
        self.clear()

    def clear(self) -> None:
        self.instances: dict[int, Instance] = {}
        self.by_object: dict[int, tuple[Instance, ...]] = {}
        self.history: dict[int, Performed] = {}
        self.moving: list[tuple[float, Instance]] = []  # with the time of the delayed transition
        self.upgraded: set[tuple[str, Tool]] = set()  # projects and tools
        self.next_instance_id = 568150
        self.next_history_id = 1586809

    def add(self, workflow: Workflow, object_id: int) -> Instance:
        return self.add_many(workflow, [object_id])[0]

    def add_many(
        self, workflow: Workflow, object_ids: Iterable[int], project_id: str = PROJECT["id"]
    ) -> list[Instance]:
        """Start an instance for each object, with the same start time."""
        state = workflow.states[workflow.first]
        now = self.state.clock.time()
        added = []
        for object_id in object_ids:
            instance = Instance(self.next_instance_id, object_id, workflow, state, now, project_id=project_id)
            self.instances[instance.id] = instance
            self.by_object[object_id] = (*self.by_object.get(object_id, ()), instance)
            self.next_instance_id += 1
            added.append(instance)
        return added

    def perform(
        self,
        instance: Instance,
        activity_id: int,
        role: int,
        user_id: str,
        comments: str | None,
        attachments: Attachments,
        via: str,
    ) -> Performed:
        activity = self._checked_activity(instance, activity_id, role, user_id)
        state = instance.state
        row = self._store_activity(instance, activity, role, user_id, comments, attachments)
        detail = {
            "activity": activity.name,
            "state": state.name,
            "comments": comments,
            **attachments.detail,
        }
        self._record("perform_activity", user_id, instance, detail, via, history_id=str(row.id))
        return row

    def perform_many(self, instances: Sequence[Instance], activity: str, user_id: str) -> None:
        """Perform, as a user, the same activity on all instances, or on none if one of them rejects it."""
        chosen = [_named_activity(instance, activity, user_id) for instance in instances]
        for instance, (named, role) in zip(instances, chosen, strict=True):
            self._store_activity(instance, named, role, user_id, None, Attachments())
        target = {"instance_ids": [str(instance.id) for instance in instances]}
        detail = {"activity": chosen[0][0].name, "count": len(instances)}
        self.state.record_effect("procore_legacy", "perform_many", user_id, target, detail, "user")

    def _checked_activity(self, instance: Instance, activity_id: int, role: int, user_id: str) -> Activity:
        status = int(self.state.flags["legacy_rejection"])
        is_over = instance.has_ended or instance.upgraded_at is not None
        available = [] if is_over else self.listed_activities(instance)
        activity = next((a for a, _ in available if a.id == activity_id), None)
        if activity is None:
            raise Rejection(
                status, {"errors": f"Activity {activity_id} is not available in state {instance.state.name}"}
            )
        if (activity, role) not in available:
            raise Rejection(status, {"errors": {"workflow_user_role_id": ["is not assigned to this activity"]}})
        if user_id not in ROLES[role][1]:
            raise Rejection(403, {"message": "You do not have access to perform this activity", "code": 403})
        return activity

    def _store_activity(
        self,
        instance: Instance,
        activity: Activity,
        role: int,
        user_id: str,
        comments: str | None,
        attachments: Attachments,
    ) -> Performed:
        """Store an activity, and start the transition if all roles have performed it."""
        now = self.state.clock.time()
        stored_by = OVERRIDING_USER if self.state.flags["performed_by"] == "overridden" else user_id
        row = Performed(
            self.next_history_id,
            instance.id,
            activity,
            instance.state,
            role,
            stored_by,
            comments,
            attachments,
            instance.state_set_at,
            now,
        )
        self.next_history_id += 1
        self.history[row.id] = row
        instance.history += (row,)
        instance.done_here |= {(activity.id, role)}
        if all((activity.id, needed) in instance.done_here for needed in activity.roles):
            flags = self.state.flags
            delay = flags["transition_delay"] if flags["legacy_transition"] == "delayed" else 0.0
            instance.moves_to = instance.workflow.states[activity.leads_to]
            self.moving.append((now + delay, instance))
            self.catch_up()
        return row

    def catch_up(self) -> None:
        """Run the transitions that are due."""
        now = self.state.clock.time()
        for moves_at, instance in [move for move in self.moving if move[0] <= now]:
            self.moving.remove((moves_at, instance))
            if instance.moves_to is not None and instance.terminated_at is None and instance.upgraded_at is None:
                instance.state, instance.state_set_at = instance.moves_to, moves_at
                instance.done_here = frozenset()
            instance.moves_to = None

    def listed_activities(self, instance: Instance) -> list[tuple[Activity, int]]:
        """Return the activities that the API lists, as pairs of activity and role."""
        flags = self.state.flags
        if instance.has_ended:
            lists_all = flags["legacy_ended"] == "activities_listed"
        else:
            lists_all = instance.moves_to is None and flags["legacy_open_activities"] == "until_state_moves"
        if not lists_all:
            return pending_activities(instance)
        return [(activity, role) for activity in instance.state.activities for role in activity.roles]

    def start(self, workflow: Workflow, object_id: int, project_id: str, by: str) -> Instance:
        self._check_not_upgraded(workflow.tool, project_id)
        [instance] = self.add_many(workflow, [object_id], project_id)
        self._record("start", by, instance, {"workflow": workflow.name}, "user")
        return instance

    def start_many(self, workflow: Workflow, count: int, project_id: str, by: str) -> list[Instance]:
        """Start, as a user, instances for ``count`` new objects."""
        self._check_not_upgraded(workflow.tool, project_id)
        first = self.next_object_id()
        instances = self.add_many(workflow, range(first, first + count), project_id)
        ids = {
            "instance_ids": [str(instance.id) for instance in instances],
            "object_ids": [str(instance.object_id) for instance in instances],
        }
        detail = {"workflow": workflow.name, "count": count}
        self.state.record_effect("procore_legacy", "start_many", by, ids, detail, "user")
        return instances

    def next_object_id(self) -> int:
        """Return a number above all object ids."""
        return max(self.by_object) + 1

    def of_object(self, object_type: str | None, object_id: int | None) -> Iterable[Instance]:
        """Return the instances of an object, or all instances if no object is named, oldest first."""
        if self.state.flags["legacy_filters"] == "ignored":
            return self.instances.values()
        found = self.instances.values() if object_id is None else self.by_object.get(object_id, ())
        if object_type is None:
            return found
        return [instance for instance in found if object_type in instance.workflow.tool.object_types]

    def upgrade(self, tool: Tool, project_id: str, by: str, *, has_workflow: bool) -> tuple[list[str], list[str]]:
        """
        Move a tool of a project to Workflows v2. Ended instances stay as they are.

        :param has_workflow: Whether the project has a workflow in v2 for the tool. If so, the item of a running
            instance is a draft again, and its legacy history is removed; if not, the instance is stuck.
        :return: The ids of the instances whose items are drafts now, and of those that are stuck.
        """
        self._check_not_upgraded(tool, project_id)
        self.upgraded.add((project_id, tool))
        now = self.state.clock.time()
        running = [
            instance
            for instance in self.instances.values()
            if instance.workflow.tool is tool and instance.project_id == project_id and not instance.has_ended
        ]
        for instance in running:
            instance.upgraded_at = now
            instance.is_stuck = not has_workflow
            if has_workflow:
                for row in instance.history:
                    del self.history[row.id]
                instance.history = ()
        ids = [str(instance.id) for instance in running]
        moved, stuck = (ids, []) if has_workflow else ([], ids)
        target = {"tool_type": tool.type, "project_id": project_id}
        self.state.record_effect("procore_legacy", "upgrade", by, target, {"moved": moved, "stuck": stuck}, "user")
        return moved, stuck

    def _check_not_upgraded(self, tool: Tool, project_id: str) -> None:
        if (project_id, tool) in self.upgraded:
            raise Rejection(422, {"error": f"Tool {tool.type} of project {project_id} was upgraded to Workflows v2."})

    def terminate(self, instance: Instance, by: str) -> None:
        if instance.upgraded_at is not None:
            self._check_not_upgraded(instance.workflow.tool, instance.project_id)
        if instance.terminated_at is None:
            instance.terminated_at = self.state.clock.time()
            instance.terminated_by = by
            self._record("terminate", by, instance, {}, "user")

    def _record(self, action: str, by: str, instance: Instance, detail: dict[str, Any], via: str, **ids: str) -> None:
        target = {"instance_id": str(instance.id), "object_id": str(instance.object_id), **ids}
        self.state.record_effect("procore_legacy", action, by, target, detail, via)

    def summary(self) -> list[dict[str, Any]]:
        return [
            {
                "id": str(instance.id),
                "object_id": str(instance.object_id),
                "project_id": instance.project_id,
                "tool_type": instance.workflow.tool.type,
                "workflow": instance.workflow.name,
                "state": instance.state.name,
                "status": instance.state.status,
                "activities": [activity.name for activity, _ in open_activities(instance)],
                "waits_for": [USERS[user_id].login for user_id in pending_assignees(open_activities(instance))],
                "terminated": instance.terminated_at is not None,
                "upgraded": upgrade_of(instance),
            }
            for instance in self.instances.values()
        ]


def upgrade_of(instance: Instance) -> str | None:
    """Return what the upgrade of its tool made of an instance: ``moved``, ``stuck`` or nothing."""
    if instance.upgraded_at is None:
        return None
    return "stuck" if instance.is_stuck else "moved"


def open_activities(instance: Instance) -> list[tuple[Activity, int]]:
    """Return the activities that can be performed now, as pairs of activity and role."""
    return [] if instance.upgraded_at is not None else pending_activities(instance)


def pending_activities(instance: Instance) -> list[tuple[Activity, int]]:
    """Return the activities that the record has as pending, also after the tool was upgraded."""
    if instance.terminated_at is not None or instance.moves_to is not None:
        return []
    return [
        (activity, role)
        for activity in instance.state.activities
        for role in activity.roles
        if (activity.id, role) not in instance.done_here
    ]


def pending_assignees(activities: list[tuple[Activity, int]]) -> list[str]:
    """Return the first user of each role that still has to act."""
    return list(dict.fromkeys(ROLES[role][1][0] for _, role in activities))


def perform_as_user(
    legacy: ProcoreLegacy, instance: Instance, activity: str, login: str, comments: str | None
) -> Performed:
    user_id = user_by_login(login).id
    chosen, role = _named_activity(instance, activity, user_id)
    return legacy.perform(instance, chosen.id, role, user_id, comments, Attachments(), "user")


def _named_activity(instance: Instance, name: str, user_id: str) -> tuple[Activity, int]:
    """Return an activity by its name, and the role in which the user can perform it."""
    for candidate, role in open_activities(instance):
        if candidate.name.casefold() == name.casefold() and user_id in ROLES[role][1]:
            return candidate, role
    login = USERS[user_id].login
    names = ", ".join(f"{a.name} ({ROLES[r][0]})" for a, r in open_activities(instance)) or "none"
    raise Rejection(422, {"error": f"{login} cannot perform {name!r} now. Available activities: {names}."})
