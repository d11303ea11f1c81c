"""Procore's legacy workflows (v1): states, activities and their history, and the routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import FormData, UploadFile

from .. import models
from ..procore.gateway import as_json, check_access, page_of
from ..state import COMPANY, INTEGRATION_USER, PROJECT, USERS, Refusal, World, user_by_login

OVERDUE_AFTER = 5 * 24 * 3600  # seconds in a state
BODY_IDS = ("workflow_activity_id", "workflow_instance_id", "workflow_user_role_id", "performed_by_id")
OBJECT_TYPES = ("Contract", "PurchaseOrderContract", "purchase_order_contract")  # three names of one class
NESTED_ATTACHMENTS = "workflow_activity_history[attachments][]"
OVERRIDING_USER = "1498096"  # who the guide's sample answers name, whoever was sent
ROLES = {14301: ("Project Manager", (INTEGRATION_USER, "90002")), 14304: ("Reviewer", ("90003",))}


@dataclass(frozen=True)
class Activity:
    """What may be done in a state; it leads to the next state once every role in ``roles`` has done it."""

    id: int
    name: str
    roles: tuple[int, ...]
    leads_to: int


@dataclass(frozen=True)
class State:
    id: int
    name: str
    status: str
    activities: tuple[Activity, ...] = ()


@dataclass(frozen=True)
class Workflow:
    id: int
    name: str
    description: str
    states: dict[int, State]
    first: int


PURCHASE_ORDER = Workflow(
    3293,
    "Purchase Order Approval Workflow",
    "Workflow for purchase order approval automation",
    {
        18706: State(18706, "Start", "Draft", (Activity(29945, "Submit for Approval", (14301,), 18707),)),
        18707: State(
            18707,
            "Pending Approval",
            "Under Review",
            (Activity(29947, "Approve", (14304,), 18708), Activity(29948, "Deny", (14304,), 18706)),
        ),
        18708: State(18708, "PO Approved", "Approved"),
    },
    18706,
)
JOINT_REVIEW = Workflow(
    3294,
    "Joint Review Workflow",
    "Two roles must accept",
    {
        18710: State(18710, "Joint Review", "Under Review", (Activity(29950, "Accept", (14301, 14304), 18711),)),
        18711: State(18711, "Accepted", "Accepted"),
    },
    18710,
)
TWO_APPROVALS = Workflow(
    3295,
    "Two Approvals Workflow",
    "Two states have an activity of the same name",
    {
        18720: State(18720, "First Review", "Under Review", (Activity(29960, "Approve", (14301,), 18721),)),
        18721: State(18721, "Second Review", "Under Review", (Activity(29961, "Approve", (14301,), 18722),)),
        18722: State(18722, "Released", "Approved"),
    },
    18720,
)
WORKFLOWS = {workflow.name: workflow for workflow in (PURCHASE_ORDER, JOINT_REVIEW, TWO_APPROVALS)}


@dataclass(frozen=True, slots=True)
class Attachments:
    """What comes with an activity: names, the sizes in bytes of those that were uploaded, and stored files."""

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
    """One row of the activity history."""

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
    done_here: frozenset[tuple[int, int]] = frozenset()  # (activity, role) in this visit of the state
    terminated_at: float | None = None
    terminated_by: str | None = None
    moves_to: State | None = None  # set while a delayed transition is under way

    @property
    def has_ended(self) -> bool:
        return self.terminated_at is not None or not (self.state.activities or self.moves_to)


class ProcoreLegacy:
    """The state machine of v1."""

    def __init__(self, world: World):
        self.world = world
        self.clear()

    def clear(self) -> None:
        self.instances: dict[int, Instance] = {}
        self.by_object: dict[int, tuple[Instance, ...]] = {}
        self.history: dict[int, Performed] = {}
        self.moving: list[tuple[float, Instance]] = []  # when a delayed transition takes place
        self.next_instance_id = 568150
        self.next_history_id = 1586809

    def add(self, workflow: Workflow, object_id: int) -> Instance:
        return self.add_many(workflow, [object_id])[0]

    def add_many(self, workflow: Workflow, object_ids: Iterable[int]) -> list[Instance]:
        """Start an instance for each object, all at the same time."""
        state = workflow.states[workflow.first]
        now = self.world.clock.time()
        added = []
        for object_id in object_ids:
            instance = Instance(self.next_instance_id, object_id, workflow, state, now)
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
        row = self._take(instance, activity, role, user_id, comments, attachments)
        detail = {
            "activity": activity.name,
            "state": state.name,
            "comments": comments,
            **attachments.detail,
        }
        self._record("perform_activity", user_id, instance, detail, via, history_id=str(row.id))
        return row

    def perform_many(self, instances: Sequence[Instance], activity: str, user_id: str) -> None:
        """Let a person perform the same activity on many instances, or on none if one of them does not allow it."""
        chosen = [_named_activity(instance, activity, user_id) for instance in instances]
        for instance, (named, role) in zip(instances, chosen, strict=True):
            self._take(instance, named, role, user_id, None, Attachments())
        target = {"instance_ids": [str(instance.id) for instance in instances]}
        detail = {"activity": chosen[0][0].name, "count": len(instances)}
        self.world.record_effect("procore_legacy", "perform_many", user_id, target, detail, "person")

    def _checked_activity(self, instance: Instance, activity_id: int, role: int, user_id: str) -> Activity:
        status = int(self.world.flags["legacy_rejection"])
        available = [] if instance.has_ended else self.listed_activities(instance)
        activity = next((a for a, _ in available if a.id == activity_id), None)
        if activity is None:
            raise Refusal(status, {"errors": f"Activity {activity_id} is not available in state {instance.state.name}"})
        if (activity, role) not in available:
            raise Refusal(status, {"errors": {"workflow_user_role_id": ["is not asked to perform this activity"]}})
        if user_id not in ROLES[role][1]:
            raise Refusal(403, {"message": "You do not have access to perform this activity", "code": 403})
        return activity

    def _take(
        self,
        instance: Instance,
        activity: Activity,
        role: int,
        user_id: str,
        comments: str | None,
        attachments: Attachments,
    ) -> Performed:
        """Write an activity down, and let the state move if it was the last one."""
        now = self.world.clock.time()
        stored_by = OVERRIDING_USER if self.world.flags["performed_by"] == "overridden" else user_id
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
            flags = self.world.flags
            delay = flags["transition_delay"] if flags["legacy_transition"] == "delayed" else 0.0
            instance.moves_to = instance.workflow.states[activity.leads_to]
            self.moving.append((now + delay, instance))
            self.catch_up()
        return row

    def catch_up(self) -> None:
        """Let the transitions take place whose time has come."""
        now = self.world.clock.time()
        for moves_at, instance in [move for move in self.moving if move[0] <= now]:
            self.moving.remove((moves_at, instance))
            if instance.moves_to is not None and instance.terminated_at is None:
                instance.state, instance.state_set_at = instance.moves_to, moves_at
                instance.done_here = frozenset()
            instance.moves_to = None

    def listed_activities(self, instance: Instance) -> list[tuple[Activity, int]]:
        """Return the activities that the API lists, each with a role."""
        flags = self.world.flags
        if instance.has_ended:
            lists_all = flags["legacy_ended"] == "activities_listed"
        else:
            lists_all = instance.moves_to is None and flags["legacy_open_activities"] == "until_state_moves"
        if not lists_all:
            return open_activities(instance)
        return [(activity, role) for activity in instance.state.activities for role in activity.roles]

    def start(self, workflow: Workflow, object_id: int, by: str) -> Instance:
        instance = self.add(workflow, object_id)
        self._record("start", by, instance, {"workflow": workflow.name}, "person")
        return instance

    def start_many(self, workflow: Workflow, count: int, by: str) -> list[Instance]:
        """Let a person start instances for so many objects that had none."""
        first = self.next_object_id()
        instances = self.add_many(workflow, range(first, first + count))
        ids = {
            "instance_ids": [str(instance.id) for instance in instances],
            "object_ids": [str(instance.object_id) for instance in instances],
        }
        detail = {"workflow": workflow.name, "count": count}
        self.world.record_effect("procore_legacy", "start_many", by, ids, detail, "person")
        return instances

    def next_object_id(self) -> int:
        """Return a number above the ids of all objects."""
        return max(self.by_object) + 1

    def of_object(self, object_type: str | None, object_id: int | None) -> Iterable[Instance]:
        """Return the instances of an object, or all of them where none is named; the oldest first."""
        if self.world.flags["legacy_filters"] == "ignored":
            return self.instances.values()
        if object_type not in (None, *OBJECT_TYPES):
            return ()
        return self.instances.values() if object_id is None else self.by_object.get(object_id, ())

    def terminate(self, instance: Instance, by: str) -> None:
        if instance.terminated_at is None:
            instance.terminated_at = self.world.clock.time()
            instance.terminated_by = by
            self._record("terminate", by, instance, {}, "person")

    def _record(self, action: str, by: str, instance: Instance, detail: dict[str, Any], via: str, **ids: str) -> None:
        target = {"instance_id": str(instance.id), "object_id": str(instance.object_id), **ids}
        self.world.record_effect("procore_legacy", action, by, target, detail, via)

    def state(self) -> list[dict[str, Any]]:
        return [
            {
                "id": str(instance.id),
                "object_id": str(instance.object_id),
                "workflow": instance.workflow.name,
                "state": instance.state.name,
                "status": instance.state.status,
                "activities": [activity.name for activity, _ in open_activities(instance)],
                "waits_for": [USERS[user_id].login for user_id in holders(instance)],
                "terminated": instance.terminated_at is not None,
            }
            for instance in self.instances.values()
        ]


# --- the API's forms ---


def open_activities(instance: Instance) -> list[tuple[Activity, int]]:
    if instance.terminated_at is not None or instance.moves_to is not None:
        return []
    return [
        (activity, role)
        for activity in instance.state.activities
        for role in activity.roles
        if (activity.id, role) not in instance.done_here
    ]


def holders(instance: Instance) -> list[str]:
    """Return one user of each role that the instance waits for."""
    return list(dict.fromkeys(ROLES[role][1][0] for _, role in open_activities(instance)))


def _show(legacy: ProcoreLegacy, instance: Instance, base_url: str, *, is_listed: bool = False) -> dict[str, Any]:
    iso, flags = legacy.world.clock.iso, legacy.world.flags
    left_behind = "unchanged" if instance.has_ended else flags["legacy_left_behind"]
    state = instance.workflow.states[instance.workflow.first] if left_behind == "draft" else instance.state
    activities = legacy.listed_activities(instance) if left_behind == "unchanged" else []
    own_status = f"Order: {state.status}" if flags["legacy_status"] == "object" else None
    terminated_at = legacy.world.clock.time() if left_behind == "terminated" else instance.terminated_at
    by = USERS.get(instance.terminated_by or "")
    return {
        "id": instance.id,
        "becomes_overdue_at": iso(instance.state_set_at + OVERDUE_AFTER) if activities else None,
        "current_state_set_at": None if flags["legacy_state_set_at"] == "null" else iso(instance.state_set_at),
        "workflowed_object_id": instance.object_id,
        "workflowed_object_type": OBJECT_TYPES[flags["legacy_object_type"] == "class"],
        "project": {"id": int(PROJECT["id"]), "name": PROJECT["name"]},
        "current_workflow_activities": [
            {
                "id": activity.id,
                "name": activity.name,
                "workflow_user_role": _role(role),
                "perform_activity": {
                    "url": f"{base_url}/rest/v1.0/workflow_activity_histories",
                    "method": "POST",
                    "data": {
                        "workflow_activity_history": {
                            "workflow_activity_id": activity.id,
                            "workflow_instance_id": instance.id,
                            "workflow_user_role_id": role,
                        }
                    },
                },
            }
            for activity, role in activities
        ],
        "current_workflow_state": {
            "id": state.id,
            "name": state.name,
            "status": state.status if is_listed else own_status or state.status,
            "ball_in_court": [{"name": USERS[user_id].name} for user_id in holders(instance)],
        },
        "workflow": {
            "id": instance.workflow.id,
            "name": instance.workflow.name,
            "description": instance.workflow.description,
            "class_name": "PurchaseOrderContract",
            "friendly_name": "Purchase Order",
            "created_at": "2018-02-08T23:16:18Z",
            "updated_at": "2018-02-08T23:59:20Z",
            "domain": "commitments",
        },
        "terminated_at": None if terminated_at is None else iso(terminated_at),
        "terminated_by": None if by is None else {"id": int(by.id), "login": by.login, "name": by.name},
        "permissions": {
            "can_view": True,
            "can_respond": any(INTEGRATION_USER in ROLES[role][1] for _, role in activities),
            "can_act_on_behalf_of": False,
            "can_terminate": False,
            "can_restart": False,
        },
    }


def _role(role: int) -> dict[str, Any]:
    name, members = ROLES[role]
    user = USERS[members[0]]
    return {
        "id": role,
        "name": name,
        "assignee": {"id": int(user.id), "name": f"{user.name} ({COMPANY['name']})"},
    }


def _history(legacy: ProcoreLegacy, row: Performed) -> dict[str, Any]:
    iso = legacy.world.clock.iso
    bare = {
        "id": row.id,
        "attachments": [_stored_at(name) for name in row.attachments.shown],
        "bic_start": iso(row.state_set_at),
        "bic_end": iso(row.at),
        "comments": row.comments,
        "created_at": iso(row.at),
        "updated_at": iso(row.at),
        "performed_by_id": int(row.performed_by),
        "workflow_activity_id": row.activity.id,
        "workflow_instance_id": row.instance_id,
        "workflow_user_role_id": row.role,
    }
    if legacy.world.flags["history_names"] == "without":
        return bare
    user = USERS.get(row.performed_by)
    role_name, members = ROLES[row.role]
    return {
        **bare,
        "file_attachments": [
            {"id": n, "name": name, "url": _stored_at(name)} for n, name in enumerate(row.attachments.shown, start=1)
        ],
        "assigned_to_id": int(members[0]),
        "assigned_to_name": USERS[members[0]].name,
        "bic_duration": _duration(row),
        "performed_by_name": user.name if user else "Somebody Else",
        "workflow_activity_name": row.activity.name,
        "workflow_user_role_name": role_name,
        "workflow_state_id": row.state.id,
        "workflow_state_name": row.state.name,
    }


def _permanent_log(legacy: ProcoreLegacy, row: Performed) -> dict[str, Any]:
    user = USERS.get(row.performed_by)
    return {
        "id": row.id,
        "activity": row.activity.name,
        "attachments": [
            {"id": n, "name": name, "url": _stored_at(name), "filename": name}
            for n, name in enumerate(row.attachments.shown, start=1)
        ],
        "ball_in_court_duration": _duration(row),
        "comments": row.comments,
        "created_at": legacy.world.clock.iso(row.at),
        "performed_by": user.name if user else "Somebody Else",
        "user_role": ROLES[row.role][0],
    }


def _termination_log(legacy: ProcoreLegacy, instance: Instance) -> dict[str, Any]:
    user = USERS.get(instance.terminated_by or "")
    return {
        "id": instance.id,
        "activity": "Terminated",
        "attachments": [],
        "ball_in_court_duration": "0 days",
        "comments": None,
        "created_at": legacy.world.clock.iso(instance.terminated_at),
        "performed_by": user.name if user else "Somebody Else",
        "user_role": "",
    }


def _duration(row: Performed) -> str:
    return f"{int((row.at - row.state_set_at) // 86400)} days"


def _stored_at(name: str) -> str:
    return f"https://storage.example.com/{quote(name)}"


# --- routes ---


ObjectType = Annotated[str | None, Query(alias="filters[workflowed_object_type]")]
ObjectId = Annotated[int | None, Query(alias="filters[workflowed_object_id]")]


def routes(world: World, legacy: ProcoreLegacy) -> APIRouter:
    async def signed_in(request: Request, company_id: int | None = None) -> None:
        check_access(world, request)
        if company_id is None:
            raise Refusal(400, {"message": "company_id is missing", "code": 400})
        if str(company_id) != COMPANY["id"]:
            raise Refusal(403, {"message": "Access denied", "code": 403})

    def find(instance_id: int | None, object_type: str | None, object_id: int | None) -> Instance:
        if object_type is not None and object_id is not None and world.flags["legacy_filters"] == "honoured":
            found = next(iter(legacy.of_object(object_type, object_id)), None)
        else:
            found = legacy.instances.get(instance_id) if instance_id is not None else None
        if found is None or world.flags["legacy_ended" if found.has_ended else "legacy_left_behind"] == "not_found":
            raise Refusal(404, {"errors": "Not Found"})
        return found

    router = APIRouter(
        prefix="/rest/v1.0",
        dependencies=[Depends(signed_in)],
        responses={status: {"model": models.LegacyError} for status in (400, 401, 403, 404, "default")},
        tags=["Procore legacy"],
    )

    @router.get("/workflow_instances", response_model=list[models.LegacyInstance])
    async def list_instances(
        request: Request,
        response: Response,
        object_type: ObjectType = None,
        object_id: ObjectId = None,
        project_id: int | None = None,
        page: int = 1,
        per_page: int = 100,
    ) -> Any:
        if world.flags["legacy_list"] == "forbidden":
            raise Refusal(403, {"message": "You do not have access to the workflows of this company", "code": 403})
        some = legacy.of_object(object_type, object_id)
        # Not by has_ended: a hundred thousand calls take longer than a page may.
        found = [i for i in some if i.terminated_at is None and (i.state.activities or i.moves_to is not None)]
        base_url = _base(request)
        shown = page_of(request, response, found, page, per_page)
        return as_json(response, [_show(legacy, instance, base_url, is_listed=True) for instance in shown])

    @router.get("/workflow_instances/{id}", response_model=models.LegacyInstance)
    async def show_instance(
        request: Request, id: int, object_type: ObjectType = None, object_id: ObjectId = None
    ) -> Any:
        return _show(legacy, find(id, object_type, object_id), _base(request))

    @router.get(
        "/workflow_activity_histories",
        response_model=list[models.LegacyHistory],
        response_model_exclude_unset=True,
    )
    async def list_histories(
        request: Request,
        response: Response,
        workflow_instance_id: int | None = None,
        object_type: ObjectType = None,
        object_id: ObjectId = None,
        sort: Literal["created_at", "-created_at"] | None = None,
        page: int = 1,
        per_page: int = 100,
    ) -> Any:
        if workflow_instance_id is None and (object_type is None or object_id is None):
            raise Refusal(400, {"message": "workflow_instance_id is missing", "code": 400})
        if world.flags["legacy_filters"] == "ignored":
            rows = list(legacy.history.values())
        else:
            rows = list(find(workflow_instance_id, object_type, object_id).history)
        newest_first = sort == "-created_at" or (sort is None and world.flags["legacy_history_order"] == "newest_first")
        rows.sort(key=lambda row: (row.at, row.id), reverse=newest_first)
        return [_history(legacy, row) for row in page_of(request, response, rows, page, per_page)]

    @router.get(
        "/workflow_activity_histories/{id}",
        response_model=models.LegacyHistory,
        response_model_exclude_unset=True,
    )
    async def show_history(id: int, workflow_instance_id: int | None = None) -> Any:
        row = legacy.history.get(id)
        if row is None or workflow_instance_id not in (None, row.instance_id):
            raise Refusal(404, {"errors": "Not Found"})
        return _history(legacy, row)

    @router.post(
        "/workflow_activity_histories",
        response_model=models.LegacyHistory,
        response_model_exclude_unset=True,
        status_code=201,
    )
    async def perform_activity(request: Request, workflow_instance_id: int | None = None) -> Any:
        body, attachments = await _activity_body(request, is_plain=world.flags["legacy_attachments"] == "plain")
        ids = {name: _whole_number(body.get(name)) for name in BODY_IDS}
        wrong = [name for name, number in ids.items() if not number]
        if wrong or workflow_instance_id is None:
            names = wrong or ["workflow_instance_id"]
            raise Refusal(400, {"errors": {name: ["is missing or no number"] for name in names}})
        if ids["workflow_instance_id"] != workflow_instance_id:
            raise Refusal(400, {"errors": {"workflow_instance_id": ["does not match the query"]}})
        row = legacy.perform(
            find(workflow_instance_id, None, None),
            ids["workflow_activity_id"],
            ids["workflow_user_role_id"],
            str(ids["performed_by_id"]),
            body.get("comments"),
            attachments,
            "api",
        )
        return _history(legacy, row)

    both = APIRouter()
    both.include_router(router)
    both.include_router(_permanent_log_routes(world, legacy))
    return both


def _permanent_log_routes(world: World, legacy: ProcoreLegacy) -> APIRouter:
    """The logs name the company or the project in their path, and nothing in the query but the object."""
    router = APIRouter(
        prefix="/rest/v1.0",
        responses={
            400: {"model": models.PermanentLogError | models.LegacyError},
            **{status: {"model": models.LegacyError} for status in (401, 403, 404, "default")},
        },
        tags=["Procore legacy"],
    )

    def logs(object_type: str | None, object_id: int | None) -> list[dict[str, Any]]:
        filters = {"workflowed_object_type": object_type, "workflowed_object_id": object_id}
        missing = [name for name, value in filters.items() if value is None]
        if missing:
            raise Refusal(400, dict.fromkeys(missing, "is missing"))
        kind = world.flags["permanent_logs"]
        of_object = [] if kind == "none" else list(legacy.of_object(object_type, object_id))
        rows = [_permanent_log(legacy, row) for instance in of_object for row in instance.history]
        ended = [instance for instance in of_object if instance.terminated_at is not None and kind == "all_events"]
        return rows + [_termination_log(legacy, instance) for instance in ended]

    async def of_company(request: Request, company_id: int) -> None:
        check_access(world, request)
        if str(company_id) != COMPANY["id"]:
            raise Refusal(403, {"message": "Access denied", "code": 403})

    async def of_project(request: Request, project_id: int) -> None:
        check_access(world, request)
        if str(project_id) != PROJECT["id"]:
            raise Refusal(404, {"errors": "Not Found"})

    async def permanent_logs(
        request: Request,
        response: Response,
        object_type: ObjectType = None,
        object_id: ObjectId = None,
        page: int = 1,
        per_page: int = 100,
    ) -> Any:
        return page_of(request, response, logs(object_type, object_id), page, per_page)

    for level, check in (("/companies/{company_id}", of_company), ("/projects/{project_id}", of_project)):
        where = f"{level}/workflow_permanent_logs"
        router.get(where, response_model=list[models.PermanentLog], dependencies=[Depends(check)])(permanent_logs)

    return router


async def _activity_body(request: Request, *, is_plain: bool) -> tuple[dict[str, Any], Attachments]:
    if "multipart" in request.headers.get("Content-Type", ""):
        return _multipart_activity(await request.form(), "attachments[]" if is_plain else NESTED_ATTACHMENTS)
    try:
        whole = await request.json()
        body = dict(whole["workflow_activity_history"])
        return body, Attachments(
            tuple(str(name) for name in body.get("attachments", [])),
            prostore_file_ids=_stored_files(list(body.get("prostore_file_ids", []))),
        )
    except (ValueError, KeyError, TypeError):
        raise Refusal(400, {"message": "param is missing: workflow_activity_history", "code": 400}) from None


def _multipart_activity(form: FormData, field_of_files: str) -> tuple[dict[str, Any], Attachments]:
    body: dict[str, Any] = {}
    uploads: list[UploadFile] = []
    stored: list[Any] = []
    for name, value in form.multi_items():
        inner = name.removeprefix("workflow_activity_history[").removesuffix("[]").removesuffix("]")
        if isinstance(value, UploadFile):
            uploads += [value] if name == field_of_files else []
        elif inner == "prostore_file_ids":
            stored.append(value)
        else:
            body[inner] = value
    names = tuple(upload.filename or "" for upload in uploads)
    sizes = tuple(upload.size or 0 for upload in uploads)
    return body, Attachments(names, sizes, _stored_files(stored))


def _stored_files(ids: list[Any]) -> tuple[int, ...]:
    if not all(map(_whole_number, ids)):
        raise Refusal(400, {"errors": {"prostore_file_ids": ["must be numbers"]}})
    return tuple(map(_whole_number, ids))


def _whole_number(value: Any) -> int:
    """Read an id that is a JSON integer, or digits in a form; 0, which no id is, for anything else."""
    return int(value) if isinstance(value, (int, str)) and str(value).isdecimal() else 0


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


# --- what people do ---


def person_performs(
    legacy: ProcoreLegacy, instance: Instance, activity: str, login: str, comments: str | None
) -> Performed:
    user_id = user_by_login(login).id
    chosen, role = _named_activity(instance, activity, user_id)
    return legacy.perform(instance, chosen.id, role, user_id, comments, Attachments(), "person")


def _named_activity(instance: Instance, name: str, user_id: str) -> tuple[Activity, int]:
    """Return an activity by its name, with the role in which somebody can perform it."""
    for candidate, role in open_activities(instance):
        if candidate.name.casefold() == name.casefold() and user_id in ROLES[role][1]:
            return candidate, role
    login = USERS[user_id].login
    names = ", ".join(f"{a.name} ({ROLES[r][0]})" for a, r in open_activities(instance)) or "none"
    raise Refusal(422, {"error": f"{login} cannot perform {name!r} now; activities: {names}"})
