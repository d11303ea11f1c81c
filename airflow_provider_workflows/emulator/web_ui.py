"""The web UI at ``/``: its files, and an overview with the state and the possible actions of each instance."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Response
from fastapi.responses import JSONResponse

from .behaviour_flags import BEHAVIOUR_FLAGS
from .procore import instances as procore
from .procore.templates import TEMPLATES, TOOLS
from .procore_legacy import instances as procore_legacy
from .procore_legacy.workflows import ROLES, WORKFLOWS
from .state import PROJECT, SEEDS, USERS, Clock
from .workflowsoft import instances as workflowsoft
from .workflowsoft.diagrams import AUTO, DIAGRAMS, wire_key

if TYPE_CHECKING:
    from .app import EmulatorApp

JsonObject = dict[str, Any]
AnyInstance = TypeVar("AnyInstance", procore.Instance, procore_legacy.Instance, workflowsoft.Instance)

MAX_INSTANCES = 100  # of each API
MAX_HISTORY_EVENTS = 100  # the most recent ones of an instance
MANAGER = "pat@example.com"
PAGE_FOLDER = Path(__file__).with_name("page")
# The files are read once, at import, so that no route opens a file.
FILES = {
    path: ((PAGE_FOLDER / name).read_bytes(), media_type)
    for path, name, media_type in (
        ("/", "index.html", "text/html"),
        ("/_emulator/page.css", "page.css", "text/css"),
        ("/_emulator/page.js", "page.js", "text/javascript"),
        ("/_emulator/page.svg", "page.svg", "image/svg+xml"),
    )
}
# The page loads nothing from other sites, and no other site may show it in a frame.
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes(app: EmulatorApp) -> APIRouter:
    router = APIRouter(tags=["Emulator"])
    this_run = secrets.token_hex(4)

    @router.get(
        "/_emulator/overview",
        response_model=JsonObject,
        responses={304: {"description": "Nothing has changed since the version of If-None-Match"}},
    )
    async def get_overview(
        search: str = "", known: Annotated[str | None, Header(alias="If-None-Match")] = None
    ) -> Response:
        version = f'"{this_run}-{app.version}"'
        headers = {**HEADERS, "ETag": version}
        if known == version:
            return Response(status_code=304, headers=headers)
        return JSONResponse(overview(app, search), headers=headers)

    for path, (content, media_type) in FILES.items():
        router.add_api_route(path, _serve(content, media_type), include_in_schema=False)
    return router


def _serve(content: bytes, media_type: str) -> Callable[[], Response]:
    def serve() -> Response:
        return Response(content, headers=HEADERS, media_type=media_type)

    return serve


def overview(app: EmulatorApp, search: str = "") -> JsonObject:
    """Return the data of the page: flags, faults, and of each API the newest instances that contain the search text."""
    state = app.state
    v2, v1, ws = app.procore, app.legacy, app.workflowsoft
    search = " ".join(search.casefold().split())
    return {
        "now": state.clock.iso(),
        "moved": round(state.clock.offset),
        "requests": state.requests_served,
        "seed": state.seed,
        "seeds": SEEDS,
        "apis": {
            "procore": {
                **_newest(
                    v2.instances,
                    search,
                    lambda instance: _search_text_v2(v2, instance),
                    lambda instance: _show_v2(v2, instance),
                ),
                "starts": _starts_v2(),
            },
            "legacy": {
                **_newest(v1.instances, search, _search_text_v1, lambda instance: _show_v1(app, instance)),
                "starts": _starts_v1(),
            },
            "workflowsoft": {**_newest(ws.instances, search, _search_text_ws, _show_ws), "starts": _starts_ws()},
        },
        "faults": [vars(fault) for fault in state.faults],
        "flags": [
            {
                "name": name,
                "value": state.flags[name],
                "values": flag.values,
                "number": flag.takes_number,
                "why": flag.why,
            }
            for name, flag in BEHAVIOUR_FLAGS.items()
        ],
    }


def _newest(
    instances: Mapping[Any, AnyInstance],
    search: str,
    text_of: Callable[[AnyInstance], str],
    shown: Callable[[AnyInstance], JsonObject],
) -> JsonObject:
    newest: Iterator[AnyInstance] = iter(reversed(instances.values()))  # type: ignore[call-overload]
    if search:
        newest = (instance for instance in newest if search in text_of(instance))
    found = list(islice(newest, MAX_INSTANCES + 1))
    return {
        "total": len(instances),
        "more": len(found) > MAX_INSTANCES,
        "instances": [shown(instance) for instance in found[:MAX_INSTANCES]],
    }


@lru_cache
def _lower(*words: str) -> str:
    """Return the words in lower case. The cache helps because many instances share few states."""
    return " ".join(words).replace("_", " ").casefold()


def _action(label: str, path: str, by: str | None = None, **body: Any) -> JsonObject:
    """Return a button: its label, the control call that it sends, and the user as whom it acts."""
    return {"label": label, "by": by, "path": path, "body": body}


# --- Procore v2 ---


def _search_text_v2(v2: procore.Procore, instance: procore.Instance) -> str:
    where = _lower(instance.template.name, v2.status_of(instance), instance.occurrences[-1].step.name)
    return f"{instance.id} {instance.item_id.casefold()} {where}"


def _show_v2(v2: procore.Procore, instance: procore.Instance) -> JsonObject:
    status = v2.status_of(instance)
    current = instance.current
    pending_assignees = [] if current is None else [u for u in current.assignees if u not in current.responses]
    return {
        "id": instance.id,
        "title": instance.template.name,
        "item": instance.item_id,
        "where": "company" if instance.project_id is None else f"project {instance.project_id}",
        "state": status.replace("_", " "),
        "tone": _tone_v2(instance, status),
        "step": instance.occurrences[-1].step.name,
        "pending_with": [USERS[user_id].name for user_id in pending_assignees],
        "note": instance.blocked_reason or ("hidden from the integration" if instance.id in v2.hidden else None),
        "actions": _actions_v2(instance, [] if status == "processing" else pending_assignees),
        "fields": [],
        "history": _history_v2(instance, v2.state.clock)[-MAX_HISTORY_EVENTS:],
    }


def _tone_v2(instance: procore.Instance, status: str) -> str:
    if status == "complete":
        return "good" if instance.occurrences[-1].step.end_type == "success" else "ended"
    return {"terminated": "ended", "blocked": "trouble", "overdue": "trouble"}.get(status, "waits")


def _actions_v2(instance: procore.Instance, pending_assignees: list[str]) -> list[JsonObject]:
    if instance.current is None:
        return []
    path = f"procore/instances/{instance.id}"
    responses = [
        _action(option["name"], f"{path}/respond", USERS[user].name, login=USERS[user].login, option=option["name"])
        for user in pending_assignees
        for option in instance.current.step.wire_options
    ]
    return [
        *responses,
        _action("Block", f"{path}/block", reason="The role has no members."),
        _action("Terminate", f"{path}/terminate", login=MANAGER),
    ]


def _history_v2(instance: procore.Instance, clock: Clock) -> list[JsonObject]:
    rows = [_event(clock, instance.started_at, "Started", instance.created_by)]
    for occurrence in instance.occurrences:
        for user_id, response in occurrence.responses.items():
            rows.append(
                _event(
                    clock, response.at, f"{occurrence.step.name}: {response.option['name']}", user_id, response.comment
                )
            )
        if occurrence.override:
            what = f"{occurrence.step.name}: overridden to {occurrence.outcome['name']}"
            rows.append(
                _event(clock, occurrence.override["at"], what, occurrence.override["by"], occurrence.override["reason"])
            )
        if occurrence.step.kind != "response":
            rows.append(_event(clock, occurrence.started_at, occurrence.step.name))
    if instance.terminated_by is not None:
        rows.append(_event(clock, instance.ended_at or 0.0, "Terminated", instance.terminated_by))
    return rows


def _event(clock: Clock, at: float, what: str, by: str | None = None, comment: str | None = None) -> JsonObject:
    name = USERS[by].name if by in USERS else by
    return {"at": clock.iso(at), "what": what, "by": name, "comment": comment}


def _starts_v2() -> list[JsonObject]:
    at_company_level = {tool["type"] for tool in TOOLS if tool["provider"] == "Company"}
    return [
        _action(
            template.name,
            "procore/instances",
            tool_type=template.tool_type,
            tool_subtype=template.tool_subtype,
            template_id=template.id,
            project_id=None if template.tool_type in at_company_level else PROJECT["id"],
        )
        for template in TEMPLATES
    ]


# --- Procore Legacy ---


def _search_text_v1(instance: procore_legacy.Instance) -> str:
    where = _lower(instance.workflow.name, _state_v1(instance), instance.state.name)
    return f"{instance.id} {instance.object_id} {where}"


def _state_v1(instance: procore_legacy.Instance) -> str:
    if instance.upgraded_at is not None:
        return "stuck" if instance.is_stuck else "draft"
    return "terminated" if instance.terminated_at is not None else instance.state.status.lower()


def _show_v1(app: EmulatorApp, instance: procore_legacy.Instance) -> JsonObject:
    clock = app.state.clock
    available = procore_legacy.open_activities(instance)
    members = [(activity, user_id) for activity, role in available for user_id in ROLES[role][1]]
    path = f"procore/legacy/instances/{instance.id}"
    actions = [
        _action(activity.name, f"{path}/perform", USERS[user].name, login=USERS[user].login, activity=activity.name)
        for activity, user in sorted(members, key=lambda member: member[1])
    ]
    if instance.upgraded_at is not None:
        tone = "trouble" if instance.is_stuck else "ended"
        actions += _restart_in_v2(app, instance)
    elif instance.terminated_at is not None:
        tone = "ended"
    else:
        tone = "waits" if available else "good"
        if available:
            tool = {"tool_type": instance.workflow.tool.type, "project_id": instance.project_id}
            actions.append(_action("Upgrade tool", "procore/legacy/upgrade", **tool))
        actions.append(_action("Terminate", f"{path}/terminate", login=MANAGER))
    rows = [
        _event(clock, row.at, f"{row.state.name}: {row.activity.name}", row.performed_by, row.comments)
        for row in instance.history
    ]
    if instance.terminated_at is not None:
        rows.append(_event(clock, instance.terminated_at, "Terminated", instance.terminated_by))
    return {
        "id": str(instance.id),
        "title": instance.workflow.name,
        "item": str(instance.object_id),
        "where": f"project {instance.project_id}",
        "state": _state_v1(instance),
        "tone": tone,
        "step": instance.state.name,
        "pending_with": [USERS[user_id].name for user_id in procore_legacy.pending_assignees(available)],
        "note": _note_v1(instance),
        "actions": actions,
        "fields": [],
        "history": rows[-MAX_HISTORY_EVENTS:],
    }


def _note_v1(instance: procore_legacy.Instance) -> str | None:
    if instance.upgraded_at is None:
        return None
    return "no workflow of v2 took it over" if instance.is_stuck else "to be started again in Workflows v2"


def _restart_in_v2(app: EmulatorApp, instance: procore_legacy.Instance) -> list[JsonObject]:
    """Return the button that starts a moved instance's item in v2, unless it was started there."""
    tool_type, item_id = instance.workflow.tool.type, str(instance.object_id)
    started = app.procore.items.get((tool_type, instance.project_id), {}).get(item_id, ())
    if instance.is_stuck or started:
        return []
    body = {"tool_type": tool_type, "item_id": item_id, "project_id": instance.project_id}
    return [_action("Start in Workflows v2", "procore/instances", **body)]


def _starts_v1() -> list[JsonObject]:
    return [_action(name, "procore/legacy/instances", workflow=name) for name in WORKFLOWS]


# --- Workflowsoft ---


def _search_text_ws(instance: workflowsoft.Instance) -> str:
    where = _lower(instance.process.diagram.title, _state_ws(instance), instance.step.title)
    return f"{instance.id} {instance.process.id} {where}"


def _state_ws(instance: workflowsoft.Instance) -> str:
    if instance.completions:
        return "completed"
    return "consumed" if instance.consumed else "open"


def _show_ws(instance: workflowsoft.Instance) -> JsonObject:
    is_open = not instance.completions
    actions = [
        _action(_label_of(name), f"workflowsoft/instances/{instance.id}/complete", "Olga Owner", custom_action=name)
        for name in instance.step.custom_actions
    ]
    return {
        "id": str(instance.id),
        "title": instance.process.diagram.title,
        "item": str(instance.process.id),
        "where": "process",
        "state": _state_ws(instance),
        "tone": "waits" if is_open else "good",
        "step": instance.step.title,
        "pending_with": ["the integration"] if is_open else [],
        "note": _times_read(instance.times_read),
        "actions": actions if is_open else [],
        "fields": [
            {
                "label": definition.label,
                "name": wire_key(definition.key),
                "type": definition.type,
                "json": text,
                "options": definition.options,
                "required": definition.required,
                "read_only": definition.read_only or not is_open,
            }
            for definition, text in instance.texts.items()
        ],
        "history": [
            {"at": done["at"], "what": _label_of(done["custom_action"]), "by": _name_ws(done["by"]), "comment": None}
            for done in instance.completions
        ],
    }


def _times_read(times: int) -> str | None:
    return {0: None, 1: "read once"}.get(times, f"read {times} times")


def _label_of(custom_action: str) -> str:
    return "Complete" if custom_action == AUTO else custom_action


def _name_ws(user_id: str) -> str:
    return next((str(user["FullName"]) for user in workflowsoft.USERS if str(user["Id"]) == user_id), user_id)


def _starts_ws() -> list[JsonObject]:
    return [_action(diagram.title, "workflowsoft/processes", diagram=diagram.title) for diagram in DIAGRAMS]
