"""What the page at `/` shows: the same few facts of an instance of each API, what a person may do, and its files."""

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
from .state import PROJECT, SEEDS, USERS, Clock
from .workflowsoft import instances as workflowsoft
from .workflowsoft.diagrams import AUTO, DIAGRAMS, wire_key

if TYPE_CHECKING:
    from .app import Emulated

Shown = dict[str, Any]
AnInstance = TypeVar("AnInstance", procore.Instance, procore_legacy.Instance, workflowsoft.Instance)

MOST = 100  # instances of each API
MOST_EVENTS = 100  # the last ones of an instance's history
MANAGER = "pat@example.com"
FOLDER = Path(__file__).with_name("page")
# Read here and nowhere else: no route reads a file.
FILES = {
    path: ((FOLDER / name).read_bytes(), media_type)
    for path, name, media_type in (
        ("/", "index.html", "text/html"),
        ("/_emulator/page.css", "page.css", "text/css"),
        ("/_emulator/page.js", "page.js", "text/javascript"),
        ("/_emulator/page.svg", "page.svg", "image/svg+xml"),
    )
}
# The page loads nothing from elsewhere, and nobody else may show it in a frame.
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def routes(emulated: Emulated) -> APIRouter:
    router = APIRouter(tags=["Emulator"])
    this_run = secrets.token_hex(4)

    @router.get(
        "/_emulator/overview",
        response_model=Shown,
        responses={304: {"description": "Nothing has changed since the version that is known"}},
    )
    async def look(search: str = "", known: Annotated[str | None, Header(alias="If-None-Match")] = None) -> Response:
        version = f'"{this_run}-{emulated.version}"'
        headers = {**HEADERS, "ETag": version}
        if known == version:
            return Response(status_code=304, headers=headers)
        return JSONResponse(overview(emulated, search), headers=headers)

    for path, (content, media_type) in FILES.items():
        router.add_api_route(path, _serve(content, media_type), include_in_schema=False)
    return router


def _serve(content: bytes, media_type: str) -> Callable[[], Response]:
    def serve() -> Response:
        return Response(content, headers=HEADERS, media_type=media_type)

    return serve


def overview(emulated: Emulated, search: str = "") -> Shown:
    """Return what the page shows: of each API the newest instances that have the search in what is shown of them."""
    world = emulated.world
    v2, v1, ws = emulated.procore, emulated.legacy, emulated.workflowsoft
    search = " ".join(search.casefold().split())
    return {
        "now": world.clock.iso(),
        "moved": round(world.clock.offset),
        "requests": world.requests_served,
        "seed": world.seed,
        "seeds": SEEDS,
        "apis": {
            "procore": {
                **_newest(v2.instances, search, lambda one: _text_of_v2(v2, one), lambda one: _of_v2(v2, one)),
                "starts": _starts_of_v2(),
            },
            "legacy": {
                **_newest(v1.instances, search, _text_of_v1, lambda one: _of_v1(one, world.clock)),
                "starts": _starts_of_v1(),
            },
            "workflowsoft": {**_newest(ws.instances, search, _text_of_ws, _of_ws), "starts": _starts_of_ws()},
        },
        "faults": [vars(fault) for fault in world.faults],
        "flags": [
            {
                "name": name,
                "value": world.flags[name],
                "values": flag.values,
                "number": flag.takes_number,
                "why": flag.why,
            }
            for name, flag in BEHAVIOUR_FLAGS.items()
        ],
    }


def _newest(
    instances: Mapping[Any, AnInstance],
    search: str,
    text_of: Callable[[AnInstance], str],
    shown: Callable[[AnInstance], Shown],
) -> Shown:
    newest: Iterator[AnInstance] = iter(reversed(instances.values()))  # type: ignore[call-overload]
    if search:
        newest = (one for one in newest if search in text_of(one))
    found = list(islice(newest, MOST + 1))
    return {"total": len(instances), "more": len(found) > MOST, "instances": [shown(one) for one in found[:MOST]]}


@lru_cache
def _lower(*words: str) -> str:
    """Many instances are in few states, so most of what is searched is made once."""
    return " ".join(words).replace("_", " ").casefold()


def _act(label: str, path: str, by: str | None = None, **body: Any) -> Shown:
    """Return a button: what it says, as whom it acts, and the order it sends to which control route."""
    return {"label": label, "by": by, "path": path, "body": body}


# --- Procore v2 ---


def _text_of_v2(v2: procore.Procore, one: procore.Instance) -> str:
    where = _lower(one.template.name, v2.status_of(one), one.visits[-1].step.name)
    return f"{one.id} {one.item_id.casefold()} {where}"


def _of_v2(v2: procore.Procore, one: procore.Instance) -> Shown:
    status = v2.status_of(one)
    current = one.current
    holders = [] if current is None else [u for u in current.assignees if u not in current.answers]
    return {
        "id": one.id,
        "title": one.template.name,
        "item": one.item_id,
        "where": "company" if one.project_id is None else f"project {one.project_id}",
        "state": status.replace("_", " "),
        "tone": _tone_of_v2(one, status),
        "step": one.visits[-1].step.name,
        "holders": [USERS[user_id].name for user_id in holders],
        "note": one.blocked_reason or ("hidden from the integration" if one.id in v2.hidden else None),
        "acts": _acts_of_v2(one, [] if status == "processing" else holders),
        "fields": [],
        "history": _history_of_v2(one, v2.world.clock)[-MOST_EVENTS:],
    }


def _tone_of_v2(one: procore.Instance, status: str) -> str:
    if status == "complete":
        return "good" if one.visits[-1].step.end_type == "success" else "ended"
    return {"terminated": "ended", "blocked": "trouble", "overdue": "trouble"}.get(status, "waits")


def _acts_of_v2(one: procore.Instance, holders: list[str]) -> list[Shown]:
    if one.current is None:
        return []
    path = f"procore/instances/{one.id}"
    responses = [
        _act(option["name"], f"{path}/respond", USERS[user].name, login=USERS[user].login, option=option["name"])
        for user in holders
        for option in one.current.step.wire_options
    ]
    return [
        *responses,
        _act("Block", f"{path}/block", reason="The role has no members."),
        _act("Terminate", f"{path}/terminate", login=MANAGER),
    ]


def _history_of_v2(one: procore.Instance, clock: Clock) -> list[Shown]:
    rows = [_event(clock, one.started_at, "Started", one.created_by)]
    for visit in one.visits:
        for user_id, answer in visit.answers.items():
            rows.append(
                _event(clock, answer.at, f"{visit.step.name}: {answer.option['name']}", user_id, answer.comment)
            )
        if visit.override:
            words = f"{visit.step.name}: overridden to {visit.outcome['name']}"
            rows.append(_event(clock, visit.override["at"], words, visit.override["by"], visit.override["reason"]))
        if visit.step.kind != "response":
            rows.append(_event(clock, visit.started_at, visit.step.name))
    if one.terminated_by is not None:
        rows.append(_event(clock, one.ended_at or 0.0, "Terminated", one.terminated_by))
    return rows


def _event(clock: Clock, at: float, what: str, by: str | None = None, comment: str | None = None) -> Shown:
    name = USERS[by].name if by in USERS else by
    return {"at": clock.iso(at), "what": what, "by": name, "comment": comment}


def _starts_of_v2() -> list[Shown]:
    at_company_level = {tool["type"] for tool in TOOLS if tool["provider"] == "Company"}
    return [
        _act(
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


def _text_of_v1(one: procore_legacy.Instance) -> str:
    return f"{one.id} {one.object_id} {_lower(one.workflow.name, _state_of_v1(one), one.state.name)}"


def _state_of_v1(one: procore_legacy.Instance) -> str:
    return "terminated" if one.terminated_at is not None else one.state.status.lower()


def _of_v1(one: procore_legacy.Instance, clock: Clock) -> Shown:
    available = procore_legacy.open_activities(one)
    members = [(activity, user_id) for activity, role in available for user_id in procore_legacy.ROLES[role][1]]
    path = f"procore/legacy/instances/{one.id}"
    acts = [
        _act(activity.name, f"{path}/perform", USERS[user].name, login=USERS[user].login, activity=activity.name)
        for activity, user in sorted(members, key=lambda member: member[1])
    ]
    if one.terminated_at is not None:
        tone = "ended"
    else:
        tone = "waits" if available else "good"
        acts.append(_act("Terminate", f"{path}/terminate", login=MANAGER))
    rows = [
        _event(clock, row.at, f"{row.state.name}: {row.activity.name}", row.performed_by, row.comments)
        for row in one.history
    ]
    if one.terminated_at is not None:
        rows.append(_event(clock, one.terminated_at, "Terminated", one.terminated_by))
    return {
        "id": str(one.id),
        "title": one.workflow.name,
        "item": str(one.object_id),
        "where": f"project {PROJECT['id']}",
        "state": _state_of_v1(one),
        "tone": tone,
        "step": one.state.name,
        "holders": [USERS[user_id].name for user_id in procore_legacy.holders(one)],
        "note": None,
        "acts": acts,
        "fields": [],
        "history": rows[-MOST_EVENTS:],
    }


def _starts_of_v1() -> list[Shown]:
    return [_act(name, "procore/legacy/instances", workflow=name) for name in procore_legacy.WORKFLOWS]


# --- Workflowsoft ---


def _text_of_ws(one: workflowsoft.Instance) -> str:
    where = _lower(one.process.diagram.title, _state_of_ws(one), one.step.title)
    return f"{one.id} {one.process.id} {where}"


def _state_of_ws(one: workflowsoft.Instance) -> str:
    if one.completions:
        return "completed"
    return "consumed" if one.consumed else "open"


def _of_ws(one: workflowsoft.Instance) -> Shown:
    is_open = not one.completions
    acts = [
        _act(_way_out(way), f"workflowsoft/instances/{one.id}/complete", "Olga Owner", custom_action=way)
        for way in one.step.ways_out
    ]
    return {
        "id": str(one.id),
        "title": one.process.diagram.title,
        "item": str(one.process.id),
        "where": "process",
        "state": _state_of_ws(one),
        "tone": "waits" if is_open else "good",
        "step": one.step.title,
        "holders": ["the integration"] if is_open else [],
        "note": _times_read(one.times_read),
        "acts": acts if is_open else [],
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
            for definition, text in one.texts.items()
        ],
        "history": [
            {"at": done["at"], "what": _way_out(done["custom_action"]), "by": _name_of_ws(done["by"]), "comment": None}
            for done in one.completions
        ],
    }


def _times_read(times: int) -> str | None:
    return {0: None, 1: "read once"}.get(times, f"read {times} times")


def _way_out(custom_action: str) -> str:
    return "Complete" if custom_action == AUTO else custom_action


def _name_of_ws(user_id: str) -> str:
    return next((str(user["FullName"]) for user in workflowsoft.USERS if str(user["Id"]) == user_id), user_id)


def _starts_of_ws() -> list[Shown]:
    return [_act(diagram.title, "workflowsoft/processes", diagram=diagram.title) for diagram in DIAGRAMS]
