"""Procore Workflows v2: templates, instances, step occurrences and responses, and their routes."""

from __future__ import annotations

import base64
import bisect
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from . import models
from .procore_gateway import check_access, page_headers
from .world import COMPANY, INTEGRATION_USER, PROJECT, USERS, Refusal, User, World, user_by_login

STEP_TIME = 3 * 24 * 3600  # seconds until a step is overdue
TOOLS = [
    {
        "name": "Purchase Order Contract",
        "type": "purchase_order_contract",
        "provider": "Project",
        "subtype": None,
    },
    {"name": "Generic Tool Item", "type": "generic_tool_item", "provider": "Project", "subtype": None},
    {"name": "Prequalification", "type": "prequalification", "provider": "Company", "subtype": None},
]


@dataclass(frozen=True)
class Step:
    """One step of a template; ``options`` are (label, type, name of the following step)."""

    name: str
    kind: str  # response, conditional, end
    options: tuple[tuple[str, str, str], ...] = ()
    assignees: tuple[str, ...] = ()
    decision_type: str = "first"
    following: str = ""
    status: str | None = None
    end_type: str | None = None

    @property
    def uuid(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"step:{self.name}"))

    @property
    def wire_options(self) -> list[dict[str, str]]:
        return [
            {
                "id": str(1 + int(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.name}:{name}").int % 10**6)),
                "response_type": kind,
                "name": name,
            }
            for name, kind, _ in self.options
        ]


@dataclass(frozen=True)
class Template:
    id: str
    name: str
    tool_type: str
    version_id: str
    steps: dict[str, Step]
    first: str


def _template(template_id: str, name: str, tool_type: str, *steps: Step) -> Template:
    return Template(template_id, name, tool_type, f"{template_id}1", {step.name: step for step in steps}, steps[0].name)


APPROVED = Step("Approved", "end", status="Approved", end_type="success")
REJECTED = Step("Rejected", "end", status="Rejected", end_type="failure")
TEMPLATES = [
    _template(
        "301",
        "Purchase Order Approval",
        "purchase_order_contract",
        Step(
            "Budget Check",
            "response",
            (
                ("Approve", "approve", "Over 10,000?"),
                ("Return", "return", "Correct Order"),
                ("Reject", "reject", "Rejected"),
            ),
            (INTEGRATION_USER,),
            status="Under Review",
        ),
        Step("Over 10,000?", "conditional", following="Director Approval"),
        Step(
            "Director Approval",
            "response",
            (
                ("Approve", "approve", "Approved"),
                ("Return", "return", "Budget Check"),
                ("Reject", "reject", "Rejected"),
            ),
            ("90004",),
            status="Pending Director",
        ),
        Step(
            "Correct Order",
            "response",
            (("Resubmit", "approve", "Budget Check"),),
            ("90002",),
            status="Submitted",
        ),
        APPROVED,
        REJECTED,
    ),
    *(
        _template(
            template_id,
            name,
            tool_type,
            Step(
                "Joint Review",
                "response",
                (("Approve", "approve", "Approved"), ("Reject", "reject", "Rejected")),
                (INTEGRATION_USER, "90003"),
                decision_type="all",
                status="Under Review",
            ),
            APPROVED,
            REJECTED,
        )
        for template_id, name, tool_type in (
            ("302", "Item Review", "generic_tool_item"),
            ("303", "Prequalification", "prequalification"),
        )
    ),
]


@dataclass
class Answer:
    option: dict[str, str]
    comment: str | None
    attachments: dict[str, list[str]]
    at: float


@dataclass
class Occurrence:
    """One visit of a step."""

    id: str
    step: Step
    started_at: float
    assignees: list[str]
    ended_at: float | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    outcome: dict[str, str] = field(default_factory=dict)  # the option that decided


@dataclass
class Instance:
    id: str
    item_id: str
    template: Template
    project_id: str | None
    created_by: str
    started_at: float
    updated_at: float
    ended_at: float | None = None
    visits: list[Occurrence] = field(default_factory=list)
    terminated_by: str | None = None
    blocked_reason: str | None = None
    blocked_is_retriable: bool = False
    restarted_as: str | None = None

    @property
    def current(self) -> Occurrence | None:
        return self.visits[-1] if self.ended_at is None else None


class Procore:
    """The state machine of v2."""

    def __init__(self, world: World):
        self.world = world
        self.clear()

    def clear(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.tools: dict[tuple[str, str | None], list[Instance]] = {}  # by tool type and project
        self.items: dict[tuple[str, str, str | None], list[Instance]] = {}  # by tool type, item and project
        self.moving: dict[str, float] = {}  # instance id: when its delayed transition takes place
        self.next_id = 700001

    # --- what people and the API do ---

    def start(
        self,
        tool_type: str,
        item_id: str,
        project_id: str | None,
        by: str,
        via: str,
        template_id: str | None = None,
    ) -> Instance:
        _check_level(tool_type, project_id)
        fitting = [t for t in TEMPLATES if t.tool_type == tool_type and template_id in (None, t.id)]
        if not fitting:
            raise refusal(404, "template_not_found", f"No template {template_id or ''} for tool {tool_type}.")
        self._check_not_running(fitting[0], item_id, project_id)
        instance = self.add(item_id, fitting[0], project_id, by)
        self._record("start", by, instance, {}, via)
        return instance

    def add(self, item_id: str, template: Template, project_id: str | None, by: str) -> Instance:
        now = self.world.clock.time()
        instance = Instance(str(self.next_id), item_id, template, project_id, by, now, now)
        self.next_id += 1
        self.instances[instance.id] = instance
        self.tools.setdefault((template.tool_type, project_id), []).append(instance)
        self.items.setdefault((template.tool_type, item_id, project_id), []).append(instance)
        self._enter(instance, template.first, now)
        return instance

    def respond(
        self,
        instance: Instance,
        occurrence_id: str,
        user_id: str,
        option_id: str,
        comment: str | None,
        attachments: dict[str, list[str]],
        via: str,
    ) -> None:
        switches = self.world.switches
        now = self.world.clock.time()
        current = instance.current
        if current is None:
            raise refusal(int(switches["ended_instance"]), "instance_ended", "The workflow instance has ended.")
        if current.id != occurrence_id or (instance.id in self.moving and user_id not in current.answers):
            raise refusal(int(switches["stale_step"]), "stale_step", "The step occurrence is not the current one.")
        option = next((o for o in current.step.wire_options if o["id"] == option_id), None)
        if option is None:
            raise refusal(422, "unknown_option", f"Response option {option_id} does not belong to the current step.")
        if user_id not in current.assignees:
            raise refusal(int(switches["non_assignee"]), "not_an_assignee", "Only assignees of the step can respond.")
        earlier = current.answers.get(user_id)
        if earlier is not None:
            if (earlier.option["id"], earlier.comment or "") == (option_id, comment or ""):
                return
            raise refusal(422, "already_responded", "A response with different values has already been recorded.")
        current.answers[user_id] = Answer(option, comment, attachments, now)
        detail = {"step": current.step.name, "option": option["name"], "comment": comment}
        self._record("respond", user_id, instance, detail, via, step_occurrence_id=current.id)
        current.outcome = self._outcome(current)
        if current.outcome:
            delay = switches["transition_delay"] if switches["transition"] == "delayed" else 0.0
            self.moving[instance.id] = now + delay
            self.catch_up()

    def terminate(self, instance: Instance, by: str, via: str) -> None:
        if instance.ended_at is not None:
            return
        now = self.world.clock.time()
        self.moving.pop(instance.id, None)
        instance.visits[-1].ended_at = instance.ended_at = instance.updated_at = now
        instance.terminated_by = by
        self._record("terminate", by, instance, {}, via)

    def restart(self, instance: Instance, by: str) -> Instance:
        if instance.restarted_as is None:
            self.terminate(instance, by, "api")
            self._check_not_running(instance.template, instance.item_id, instance.project_id)
            again = self.add(instance.item_id, instance.template, instance.project_id, by)
            instance.restarted_as = again.id
            self._record("restart", by, instance, {"new_instance_id": again.id}, "api")
        return self.instances[instance.restarted_as]

    def block(self, instance: Instance, reason: str, retriable: bool) -> None:
        """Let a step fail; the next step is not blocked."""
        instance.blocked_reason = reason
        instance.blocked_is_retriable = retriable
        self._record("block", "system", instance, {"reason": reason, "retriable": retriable}, "person")

    def catch_up(self) -> None:
        """Let the transitions take place whose time has come."""
        now = self.world.clock.time()
        for instance_id in [i for i, moves_at in self.moving.items() if moves_at <= now]:
            moves_at = self.moving.pop(instance_id)
            instance = self.instances[instance_id]
            visit = instance.visits[-1]
            visit.ended_at = moves_at
            following = next(to for name, _, to in visit.step.options if name == visit.outcome["name"])
            self._enter(instance, following, moves_at)

    # --- looking ---

    def find(self, instance_id: str, project_id: str | None) -> Instance:
        instance = self.instances.get(instance_id)
        if instance is None or instance.project_id != project_id:
            raise refusal(404, "not_found", f"Workflow instance {instance_id} was not found.")
        return instance

    def of_tool(self, tool_type: str, project_id: str | None) -> list[Instance]:
        """Return a tool's instances, the oldest first."""
        return self.tools.get((tool_type, project_id), [])

    def of_item(self, tool_type: str, item_id: str, project_id: str | None) -> list[Instance]:
        """Return an item's instances, the newest first."""
        return self.items.get((tool_type, item_id, project_id), [])[::-1]

    def state(self) -> list[dict[str, Any]]:
        return [self._summary(instance) for instance in self.instances.values()]

    # --- inner ---

    def _check_not_running(self, template: Template, item_id: str, project_id: str | None) -> None:
        if any(i.ended_at is None for i in self.of_item(template.tool_type, item_id, project_id)):
            raise refusal(400, "active_instance_exists", f"Item {item_id} already has an active workflow instance.")

    def _enter(self, instance: Instance, name: str, now: float) -> None:
        step = instance.template.steps[name]
        instance.blocked_reason = None
        instance.blocked_is_retriable = False
        occurrence = Occurrence(f"{instance.id}{len(instance.visits) + 1:02d}", step, now, list(step.assignees))
        instance.visits.append(occurrence)
        instance.updated_at = now
        if step.kind == "response":
            return
        occurrence.ended_at = now
        if step.kind == "end":
            instance.ended_at = now
        else:
            self._enter(instance, step.following, now)

    @staticmethod
    def _outcome(occurrence: Occurrence) -> dict[str, str]:
        """Return the option that decides, or nothing while answers are missing."""
        given = list(occurrence.answers.values())
        if occurrence.step.decision_type == "first":
            return given[0].option
        refused = next((a.option for a in given if a.option["response_type"] != "approve"), None)
        return refused or (given[0].option if len(given) == len(occurrence.assignees) else {})

    def _record(self, action: str, by: str, instance: Instance, detail: dict[str, Any], via: str, **ids: str) -> None:
        target = {"instance_id": instance.id, "item_id": instance.item_id, **ids}
        self.world.record_effect("procore", action, by, target, detail, via)

    def status_of(self, instance: Instance) -> str:
        if instance.terminated_by is not None:
            return "terminated"
        current = instance.current
        if current is None:
            return "complete"
        if instance.blocked_reason is not None:
            return "blocked"
        if instance.id in self.moving:
            return "processing"
        return "overdue" if self.world.clock.time() > current.started_at + STEP_TIME else "in_progress"

    def _summary(self, instance: Instance) -> dict[str, Any]:
        current = instance.current
        holders = [] if current is None else [u for u in current.assignees if u not in current.answers]
        return {
            "id": instance.id,
            "item_id": instance.item_id,
            "tool_type": instance.template.tool_type,
            "state": self.status_of(instance),
            "step": current.step.name if current else None,
            "step_occurrence_id": current.id if current else None,
            "waits_for": [USERS[u].login for u in holders],
            "item_status": _item_status(instance),
        }


# --- the API's forms ---


def refusal(status: int, reason: str, message: str, source: str | None = None) -> Refusal:
    detail = {"reason_code": reason, "message": message, "source": source}
    return Refusal(status, {"error": {"code": reason, "message": message, "details": [detail]}})


def _check_level(tool_type: str, project_id: str | None) -> None:
    """Refuse to start a project's tool at company level, and the other way round."""
    provider = next((tool["provider"] for tool in TOOLS if tool["type"] == tool_type), None)
    if provider is not None and (provider == "Project") != (project_id is not None):
        raise refusal(400, "wrong_level", f"Tool {tool_type} belongs to a {provider}.", "tool_type")


def user_ref(user: User) -> dict[str, Any]:
    return {"id": user.id, "login": user.login, "name": user.name, "company": {"name": COMPANY["name"]}}


def _item_status(instance: Instance) -> str | None:
    return next((visit.step.status for visit in reversed(instance.visits) if visit.step.status), None)


def _row(procore: Procore, instance: Instance) -> dict[str, Any]:
    iso = procore.world.clock.iso
    return {
        "id": instance.id,
        "item_id": instance.item_id,
        "tool_type": instance.template.tool_type,
        "tool_subtype": None,
        "created_at": iso(instance.started_at),
        "updated_at": iso(instance.updated_at),
        "started_at": iso(instance.started_at),
        "ended_at": None if instance.ended_at is None else iso(instance.ended_at),
        "created_by": user_ref(USERS[instance.created_by]),
    }


def _show(procore: Procore, instance: Instance) -> dict[str, Any]:
    everyone = dict.fromkeys(u for step in instance.template.steps.values() for u in step.assignees)
    return {
        **_row(procore, instance),
        "template_version_id": instance.template.version_id,
        "current_step_occurrence": None if instance.current is None else _occurrence(procore, instance.current),
        "workflow_manager": user_ref(USERS["90002"]),
        "responsible_group_memberships": [
            {
                "responsible_group_uuid": step.uuid,
                "name": step.name,
                "assignees": [{"id": u, "name": USERS[u].name, "login": USERS[u].login} for u in step.assignees],
            }
            for step in instance.template.steps.values()
            if step.assignees
        ],
        "all_assignees": [user_ref(USERS[u]) for u in everyone],
    }


def _occurrence(procore: Procore, occurrence: Occurrence) -> dict[str, Any]:
    iso = procore.world.clock.iso
    return {
        "id": occurrence.id,
        "step_uuid": occurrence.step.uuid,
        "name": occurrence.step.name,
        "started_at": iso(occurrence.started_at),
        "overdue_at": iso(occurrence.started_at + STEP_TIME),
        "step_histories": [],
        "available_response_options": occurrence.step.wire_options,
        "individual_assignees": [],
        "notification_recipients": [],
        "response_occurrences": [
            {
                "submitted_at": iso(answer.at) if answer else None,
                "selected_response_option": answer.option if answer else None,
                "comment": answer.comment if answer else None,
                "attachments": _attachments(answer) if answer else [],
                "assignee": {**user_ref(USERS[user_id]), "required": True},
            }
            for user_id in occurrence.assignees
            for answer in [occurrence.answers.get(user_id)]
        ],
    }


def _attachments(answer: Answer) -> list[dict[str, str]]:
    ids = [one for kind in answer.attachments.values() for one in kind]
    return [{"name": one, "url": f"https://storage.example.com/{one}"} for one in ids]


def _history(procore: Procore, instance: Instance, *, instance_id: bool = False) -> dict[str, Any]:
    iso = procore.world.clock.iso
    events: list[dict[str, Any]] = [{"type": "WorkflowStarted", "details": {"started_at": iso(instance.started_at)}}]
    events += [_visit_event(procore, visit) for visit in instance.visits]
    index = len(events) - 1 if instance.ended_at is None else None
    if instance.terminated_by is not None and instance.ended_at is not None:
        by = USERS[instance.terminated_by]
        events.append(
            {
                "type": "WorkflowTerminated",
                "details": {
                    "name": instance.template.name,
                    "terminated_at": iso(instance.ended_at),
                    "terminated_by": {"id": by.id, "login": by.login, "name": by.name},
                    "terminate_reason": None,
                    "terminate_result": {"details": []},
                },
            }
        )
    named = {"instance_id": instance.id} if instance_id else {}
    if procore.world.switches["history"] == "events_only":
        return {"history": events, **named}
    return {
        **named,
        "name": instance.template.name,
        "format": "diagram",
        "status": procore.status_of(instance),
        "started_at": iso(instance.started_at),
        "ended_at": None if instance.ended_at is None else iso(instance.ended_at),
        "blocked_reason": instance.blocked_reason,
        "blocked_is_retriable": instance.blocked_is_retriable,
        "blocked_learn_more_url": None,
        "current_step_index": index,
        "history": events,
    }


def _visit_event(procore: Procore, visit: Occurrence) -> dict[str, Any]:
    iso = procore.world.clock.iso
    step = visit.step
    details: dict[str, Any] = {"id": visit.id, "uuid": step.uuid, "name": step.name}
    if step.kind == "conditional":
        evaluated = {"evaluated_at": iso(visit.started_at), "description": "Evaluated to yes."}
        return {"type": "Conditional", "details": {**details, **evaluated}}
    details |= {
        "started_at": iso(visit.started_at),
        "ended_at": None if visit.ended_at is None else iso(visit.ended_at),
        "due_date": iso(visit.started_at + STEP_TIME),
        "status": step.status,
    }
    if step.kind == "end":
        return {"type": "EndStep", "details": {**details, "end_type": step.end_type}}
    return {
        "type": "ResponseStep",
        "details": {
            **details,
            "decision_type": step.decision_type,
            "required_responders_decide": False,
            "responses": [_history_response(procore, visit, user_id) for user_id in visit.assignees],
            "overall_response": visit.outcome.get("name"),
            "overall_response_type": visit.outcome.get("response_type"),
            "overall_response_description": None,
            "available_response_options": step.wire_options if visit.ended_at is None else None,
            "events": [],
            "assignee_updates": [],
            "override": None,
            "responsible_groups": [],
            "additional_assignees": [],
            "individual_assignees": [],
            "notification_recipients": [],
        },
    }


def _history_response(procore: Procore, visit: Occurrence, user_id: str) -> dict[str, Any]:
    answer = visit.answers.get(user_id)
    user = USERS[user_id]
    return {
        "id": user.id,
        "response_id": answer.option["id"] if answer else None,
        "login": user.login,
        "name": user.name,
        "response": answer.option["name"] if answer else None,
        "response_type": answer.option["response_type"] if answer else None,
        "role_type": "responder",
        "required": True,
        "comment": answer.comment if answer else None,
        "responded_at": procore.world.clock.iso(answer.at) if answer else None,
        "attachments": [{"id": a["name"], **a} for a in _attachments(answer)] if answer else [],
        "original_assignees": [],
    }


# --- routes ---


async def _project(request: Request) -> str | None:
    return request.path_params.get("project_id")


Project = Annotated[str | None, Depends(_project)]  # None at company level


def routes(world: World, procore: Procore) -> APIRouter:
    async def company_level(request: Request, company_id: str) -> None:
        check_access(world, request)
        if company_id != COMPANY["id"]:
            raise refusal(404, "not_found", f"Company {company_id} was not found.")

    async def project_level(request: Request, company_id: str, project_id: str) -> None:
        await company_level(request, company_id)
        if project_id != PROJECT["id"]:
            raise refusal(404, "not_found", f"Project {project_id} was not found.")

    company = APIRouter()
    both = APIRouter()

    @company.get("/workflows/tools", response_model=models.ToolList)
    async def list_tools() -> dict[str, Any]:
        return {"data": TOOLS}

    @company.get("/workflows/templates", response_model=models.TemplateList)
    async def list_templates(request: Request, response: Response, page: int = 1, per_page: int = 10) -> Any:
        _check_page(page, per_page)
        response.headers.update(page_headers(request, page, per_page, len(TEMPLATES)))
        return {"data": [_template_row(t) for t in TEMPLATES[(page - 1) * per_page : page * per_page]]}

    @both.get("/workflows/instances", response_model=models.InstanceList, response_model_exclude_unset=True)
    async def list_instances(
        request: Request,
        response: Response,
        project_id: Project,
        tool_type: Annotated[str | None, Query(alias="filters[tool_type]")] = None,
        tool_subtype: Annotated[int | None, Query(alias="filters[tool_subtype]")] = None,
        item_id: Annotated[str | None, Query(alias="filters[item_id]")] = None,
        assignee_id: Annotated[str | None, Query(alias="filters[assignee_id]")] = None,
        active: Annotated[bool | None, Query(alias="filters[active]")] = None,
        overdue: Annotated[bool | None, Query(alias="filters[overdue]")] = None,
        include_internal: bool = False,
        per_page: int = 10,
        cursor: str | None = None,
        page: int | None = None,
    ) -> Any:
        if tool_type is None:
            raise refusal(400, "missing_parameter", "filters[tool_type] is required.", "filters[tool_type]")
        if cursor is not None and page is not None:
            raise refusal(400, "invalid_parameter", "cursor and page cannot be combined.", "cursor")
        _check_page(1 if page is None else page, per_page)
        found = procore.of_tool(tool_type, project_id)
        # One pass for each filter that is given keeps a page of 10,000 instances quick.
        if item_id is not None:
            found = [i for i in found if i.item_id == item_id]
        if active is not None:
            found = [i for i in found if (i.ended_at is None) == active]
        if assignee_id is not None:
            found = [i for i in found if i.ended_at is None and assignee_id in i.visits[-1].assignees]
        if overdue is not None:
            found = [i for i in found if (procore.status_of(i) == "overdue") == overdue]
        if tool_subtype is not None:
            found = []  # no tool of the seed has any
        if page is None and world.switches["instances_paging"] == "cursor_and_page":
            return _cursor_page(procore, request, response, found, cursor, per_page)
        page = page or 1
        response.headers.update(page_headers(request, page, per_page, len(found)))
        return {"data": [_row(procore, instance) for instance in found[(page - 1) * per_page : page * per_page]]}

    @both.post("/workflows/instances", response_model=models.InstanceAnswer, status_code=201)
    async def start_instance(project_id: Project, body: models.StartInstance) -> dict[str, Any]:
        if body.preset_id is not None:
            raise refusal(404, "preset_not_found", f"Preset {body.preset_id} was not found.", "preset_id")
        instance = procore.start(body.tool_type, body.item_id, project_id, INTEGRATION_USER, "api", body.template_id)
        return {"data": _show(procore, instance)}

    @both.get("/workflows/instances/history", response_model=models.HistoryList, response_model_exclude_unset=True)
    async def item_histories(project_id: Project, tool_type: str, item_id: str) -> dict[str, Any]:
        if world.switches["item_history"] == "absent":
            raise refusal(404, "not_found", "Not found.")
        found = procore.of_item(tool_type, item_id, project_id)
        return {"data": [_history(procore, instance, instance_id=True) for instance in found]}

    @both.post(
        "/workflows/instances/bulk_history",
        response_model=models.BulkHistoryAnswer,
        response_model_exclude_unset=True,
    )
    async def bulk_history(project_id: Project, body: models.BulkHistory) -> dict[str, Any]:
        if world.switches["bulk_history"] == "absent":
            raise refusal(404, "not_found", "Not found.")
        named = world.switches["bulk_history"] == "present"
        return {
            "data": [
                {
                    "item_id": item_id,
                    "instances": [
                        _history(procore, instance, instance_id=named)
                        for instance in procore.of_item(body.tool_type, item_id, project_id)
                    ],
                }
                for item_id in body.item_ids
            ]
        }

    @both.get("/workflows/instances/{id}", response_model=models.InstanceAnswer)
    async def show_instance(project_id: Project, id: str) -> dict[str, Any]:
        return {"data": _show(procore, procore.find(id, project_id))}

    @both.get(
        "/workflows/instances/{id}/history",
        response_model=models.HistoryAnswer,
        response_model_exclude_unset=True,
    )
    async def show_history(project_id: Project, id: str) -> dict[str, Any]:
        if world.switches["history"] == "absent":
            raise refusal(404, "not_found", "Not found.")
        return {"data": _history(procore, procore.find(id, project_id))}

    @both.post(
        "/workflows/instances/{id}/responses",
        status_code=204,
        response_model=None,
        responses={422: {"model": models.Error}},
    )
    async def respond(project_id: Project, id: str, body: models.Respond) -> None:
        given = body.response
        procore.respond(
            procore.find(id, project_id),
            given.current_step_occurrence_id,
            INTEGRATION_USER,
            given.selected_response_option_id,
            given.comment,
            given.attachments,
            "api",
        )

    @both.post("/workflows/instances/{id}/terminate", response_model=models.InstanceAnswer)
    async def terminate(project_id: Project, id: str) -> dict[str, Any]:
        instance = procore.find(id, project_id)
        procore.terminate(instance, INTEGRATION_USER, "api")
        return {"data": _show(procore, instance)}

    @both.post("/workflows/instances/{id}/restart", response_model=models.InstanceAnswer)
    async def restart(project_id: Project, id: str, body: models.RestartInstance | None = None) -> dict[str, Any]:
        return {"data": _show(procore, procore.restart(procore.find(id, project_id), INTEGRATION_USER))}

    refusals: dict[int | str, dict[str, Any]] = {
        **{status: {"model": models.Error | models.LegacyError} for status in (400, 403, 404)},
        "default": {"model": models.LegacyError},  # what answers before v2 is reached
    }
    router = APIRouter(prefix="/rest/v2.0/companies/{company_id}", responses=refusals, tags=["Procore v2"])
    at_company, at_project = [Depends(company_level)], [Depends(project_level)]
    router.include_router(company, dependencies=at_company)
    router.include_router(both, dependencies=at_company)
    router.include_router(both, prefix="/projects/{project_id}", dependencies=at_project)
    return router


def _check_page(page: int, per_page: int) -> None:
    if page < 1 or not 1 <= per_page <= 100:
        raise refusal(400, "invalid_parameter", "page starts at 1 and per_page is 1 to 100.", "per_page")


def _cursor_page(
    procore: Procore,
    request: Request,
    response: Response,
    found: list[Instance],
    cursor: str | None,
    per_page: int,
) -> dict[str, Any]:
    try:
        after = 0 if cursor is None else int(base64.urlsafe_b64decode(cursor).decode().removeprefix("after:"))
    except ValueError:
        raise refusal(400, "invalid_parameter", "The cursor is not one of ours.", "cursor") from None
    rest = found[bisect.bisect_right(found, after, key=lambda instance: int(instance.id)) :]
    shown = rest[:per_page]
    following = None
    if len(rest) > per_page:
        following = base64.urlsafe_b64encode(f"after:{shown[-1].id}".encode()).decode()
    body: dict[str, Any] = {"data": [_row(procore, instance) for instance in shown]}
    url = None if following is None else str(request.url.include_query_params(cursor=following, per_page=per_page))
    place = procore.world.switches["cursor_place"]
    if place == "link_header":
        response.headers["Per-Page"] = str(per_page)
        if url is not None:
            response.headers["Link"] = f'<{url}>; rel="next"'
    elif place == "body_links_next":
        body["links"] = {"next": url}
    else:
        body["meta" if place == "body_meta_next_cursor" else "pagination"] = {"next_cursor": following}
    return body


def _template_row(template: Template) -> dict[str, Any]:
    version = {"id": template.version_id, "version": "1.0"}
    return {
        "id": template.id,
        "name": template.name,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
        "archived_at": None,
        "assigned_projects_count": 1,
        "tool_type": template.tool_type,
        "tool_subtype": None,
        "format": "diagram",
        "latest_published_version": version,
        "versions": [version],
    }


# --- what people do ---


def person_responds(procore: Procore, instance: Instance, login: str, option: str, comment: str | None) -> None:
    current = instance.current
    options: Iterable[dict[str, str]] = current.step.wire_options if current else ()
    chosen = next((o for o in options if o["name"].casefold() == option.casefold()), None)
    if current is None or chosen is None:
        names = ", ".join(o["name"] for o in options) or "none, it has ended"
        raise Refusal(422, {"error": f"instance {instance.id} has no option {option!r} now; options: {names}"})
    procore.respond(instance, current.id, user_by_login(login).id, chosen["id"], comment, {}, "person")
