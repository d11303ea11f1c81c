"""
The report of ``airflow-workflows legacy-readiness``: what an upgrade to Workflows v2 would do to running instances.

Procore's transition guide: where the project has a default workflow in v2, the item of a running Legacy instance is a
draft again, and the instance's history is removed; elsewhere the instance is stuck. The report only reads.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_workflows.diagnostics.checks import Fault
from airflow_provider_workflows.diagnostics.diagnosis import find_connection
from airflow_provider_workflows.diagnostics.texts import counted, named, printable
from airflow_provider_workflows.diagnostics.waiting import NotRead
from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    NotFound,
    PermissionDenied,
    RateLimited,
    WorkflowsError,
)
from airflow_provider_workflows.hooks.base import type_problem
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.rules import procore_legacy as rules
from airflow_provider_workflows.rules.datetimes import parse_time, seconds_of
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.rules.payload import documented_form, is_id
from airflow_provider_workflows.rules.procore import COMPANY_LEVEL, same_tool

READY, STUCK, UNCLEAR = "ready", "stuck", "unclear"
OUTCOMES = (READY, STUCK, UNCLEAR)
HEADINGS = ("project", "tool", "running", *OUTCOMES, "longest in its state", "pending with")
Json = Mapping[str, Any]


@dataclass
class Place:
    """
    Hold the running instances of a tool in a project, which an upgrade treats alike.

    :param outcome: ``ready`` with a default preset in v2, ``stuck`` without one, ``unclear`` if that is unknown.
    :param reason: Why the outcome is not ``ready``.
    :param preset: The default preset: ``{id, template}``.
    :param instances: ``{instance_id, object_id, state, since}``, the longest in its state first.
    :param pending_with: How many instances each name has to act on; an instance can have several.
    :param unassigned: How many instances show no open activity, so its pending assignees are unknown.
    """

    project_id: str | None
    project: str | None
    tool: str
    outcome: str = UNCLEAR
    reason: str = ""
    preset: dict[str, Any] | None = None
    instances: list[dict[str, Any]] = field(default_factory=list)
    pending_with: Counter[str] = field(default_factory=Counter)
    unassigned: int = 0

    @property
    def running(self) -> int:
        return len(self.instances)

    def count(self, outcome: str) -> int:
        return self.running if self.outcome == outcome else 0

    def add(self, row: Json) -> None:
        """Add a running instance, a row of the list."""
        described, step = rules.describe_instance(row), rules.pending_step_of(row)
        since = described["state_set_at"]
        self.instances.append(
            {
                "instance_id": described["instance_id"],
                "object_id": described["object_id"],
                "state": described["state"],
                "since": since if parse_time(since) is not None else None,
            }
        )
        self.pending_with.update(() if step is None else step.assignees)
        self.unassigned += step is None or not step.assignees

    def judge(self, presets: Sequence[Json]) -> None:
        """Set the outcome by the default presets that Workflows v2 lists for the tool in the project."""
        defaults = [preset for preset in presets if preset.get("default") is True]
        usable = [preset for preset in defaults if preset.get("valid") is True]
        if usable:
            template = (usable[0].get("template") or {}).get("name")
            self.outcome, self.preset = READY, {"id": str_id(usable[0].get("id")), "template": template}
        elif defaults:
            self.outcome = UNCLEAR
            self.reason = f"default preset {str_id(defaults[0].get('id'))} is not shown as valid"
        elif presets:
            self.outcome = UNCLEAR
            self.reason = "Procore does not show which preset is the default"
        else:
            self.outcome, self.reason = STUCK, "the project has no default preset for the tool in Workflows v2"

    def oldest(self, now: datetime | None) -> dict[str, Any]:
        """Return the instance that is longest in its state, and for how many ``days``; None if its time is unknown."""
        since = parse_time(self.instances[0]["since"])
        days = None if since is None or now is None else max(0, (now - since).days)
        return {**self.instances[0], "days": days}

    def to_dict(self, now: datetime | None) -> dict[str, Any]:
        """Return the row of the report as JSON primitives."""
        return {
            "project_id": self.project_id,
            "project": self.project,
            "tool": self.tool,
            "running": self.running,
            **{outcome: self.count(outcome) for outcome in OUTCOMES},
            "reason": self.reason,
            "preset": self.preset,
            "oldest": self.oldest(now),
            "pending_with": [{"name": name, "instances": number} for name, number in self.pending_with.most_common()],
            "pending_with_unassigned": self.unassigned,
            "instances": self.instances,
        }


@dataclass
class LegacyReadiness:
    """
    Read the running Legacy instances of a connection's company, and where an upgrade would leave them.

    The requests: the pages of the list of instances, the tools of Workflows v2, and the default preset of each tool in
    each project that has running instances; for a project of ``projects`` without one, those of one tool, because an
    unknown project is an error.

    :param conn_id: Id of an Airflow connection of type ``procore``.
    :param tools: Only these tools, by their names in Legacy or in v2; default: all.
    :param projects: Only these projects; default: all.
    """

    conn_id: str
    tools: Sequence[str] = ()
    projects: Sequence[str] = ()
    conn_type: str | None = None
    places: list[Place] = field(default_factory=list)
    not_read: list[NotRead] = field(default_factory=list)
    read_at: datetime | None = None  # by the server's clock

    @property
    def is_ready(self) -> bool:
        """Whether everything was read, and no instance would be stuck or may be."""
        failed = any(missing.is_failure for missing in self.not_read)
        return not failed and all(place.outcome == READY for place in self.places)

    def count(self, outcome: str) -> int:
        return sum(place.count(outcome) for place in self.places)

    @property
    def running(self) -> int:
        return sum(place.running for place in self.places)

    def read(self) -> LegacyReadiness:
        """Read the report; record what could not be read."""
        try:
            self._check_filters()
            connection = find_connection(self.conn_id)
            self.conn_type = connection.conn_type
            if (problem := type_problem(self.conn_id, self.conn_type, "procore")) is not None:
                raise Fault(*problem)
            self._read(ProcoreHook(self.conn_id), ProcoreLegacyHook(self.conn_id))
        except Fault as fault:
            self._miss(f"connection {self.conn_id}", f"{fault} {fault.fix}")
        except WorkflowsError as error:
            self._miss(f"connection {self.conn_id}", str(error))
        for place in self.places:
            place.instances.sort(key=_longest_first)
        self.places.sort(key=lambda place: (place.project or "~", str(place.project_id), place.tool))
        return self

    def _check_filters(self) -> None:
        for name, values in (("--tool", self.tools), ("--project", self.projects)):
            if any(not value.strip() for value in values):
                raise ConfigurationError(f"{name} is empty. Name one, or omit {name} to read all.")
        for project in self.projects:
            if not project.strip().isdecimal():
                raise ConfigurationError(f"--project must be the id of a project, a whole number; got {project!r}.")

    def _miss(self, what: str, reason: str, *, is_failure: bool = True) -> None:
        self.not_read.append(NotRead(what, reason, is_failure))

    def _read(self, hook: ProcoreHook, legacy: ProcoreLegacyHook) -> None:
        tools = self._tools_of_v2(hook)
        found: dict[tuple[str | None, str], tuple[Place, Json | str]] = {}
        kinds: dict[tuple[str, ...], tuple[str, Json | str, bool]] = {}  # so that names are compared once
        seen: set[str] = set()
        projects: set[str | None] = set()

        def add(row: Json) -> None:
            project = row.get("project") or {}
            project_id = str_id(project.get("id"))
            if not is_id(row["id"]):
                raise ValueError(f"its id is {row['id']!r}")
            if row["id"] in seen or row.get("terminated_at"):
                return
            seen.add(row["id"])
            projects.add(project_id)
            names = _names_of(row)
            if names not in kinds:
                label, tool = _tool_of(row, names, tools)
                kinds[names] = label, tool, self._is_selected(row, label)
            label, tool, is_selected = kinds[names]
            if is_selected and self._is_of_projects(project_id):
                name = None if project.get("name") is None else str(project["name"])
                place, _ = found.get((project_id, label)) or (Place(project_id, name, label), None)
                place.add(row)
                found[project_id, label] = place, tool

        try:
            for row in legacy.list_instances():
                try:
                    with documented_form():
                        add(row)
                except WorkflowsError as error:
                    self._miss(f"Legacy instance {row.get('id')}", str(error))
        except WorkflowsError as error:  # what was read before it stays in the report
            self._miss("the list of Legacy instances", str(error))
        self._check_tools(kinds, tools)
        self._check_projects(hook, projects, tools)
        self.read_at = legacy.client.server_time()
        self.places = [place for place, _ in found.values()]
        self._judge_all(hook, list(found.values()), is_sure=tools is not None)

    def _check_tools(self, kinds: Collection[Sequence[str]], tools: Sequence[Json] | None) -> None:
        """Report each requested tool that neither a Legacy instance nor Workflows v2 has."""
        types = sorted({str(tool["type"]) for tool in tools or ()})
        listed = ", ".join(types) or "not known"
        reason = f"--tool: no running Legacy instance and no tool of Workflows v2 has this name. The tools: {listed}."
        for name in self.tools:
            in_legacy = any(rules.same_type(name, known) for names in kinds for known in names)
            if not in_legacy and not any(same_tool(name, tool_type) for tool_type in types):
                self._miss(f"tool {name}", reason)

    def _check_projects(self, hook: ProcoreHook, found: Collection[str | None], tools: Sequence[Json] | None) -> None:
        """Report each requested project that has no running Legacy instance and that Procore does not show."""
        tool = next((tool for tool in tools or () if tool.get("provider") != "Company"), None)
        for project_id in dict.fromkeys(project.strip() for project in self.projects):
            if project_id in found:
                continue
            try:
                if tool is None:
                    raise ConfigurationError(
                        "no running Legacy instance is of this project, and no tool of Workflows v2 shows whether it "
                        "exists. Check the id."
                    )
                _default_presets(hook, project_id, tool)
            except WorkflowsError as error:
                self._miss(f"project {project_id}", f"--project: {error}")

    def _is_of_projects(self, project_id: str | None) -> bool:
        return not self.projects or project_id in {None, *(project.strip() for project in self.projects)}

    def _is_selected(self, row: Json, label: str) -> bool:
        return not self.tools or any(same_tool(name, label) or rules.has_type(row, name) for name in self.tools)

    def _tools_of_v2(self, hook: ProcoreHook) -> list[dict[str, Any]] | None:
        """Return the tools of Workflows v2, or None if they may not be listed."""
        try:
            return [tool for tool in hook.list_tools() if tool.get("type")]
        except WorkflowsError as error:
            is_failure = not isinstance(error, (NotFound, PermissionDenied))
            self._miss("the tools of Workflows v2", str(error), is_failure=is_failure)
            return None

    def _judge_all(self, hook: ProcoreHook, places: list[tuple[Place, Json | str]], *, is_sure: bool) -> None:
        limited: RateLimited | None = None
        for place, tool in places:
            if isinstance(tool, str):
                place.reason = tool
            elif place.project_id is None and tool.get("provider") != "Company":
                place.reason = "the instances do not show their project"
            elif limited is not None:  # the client has waited as long as it may; more requests would not help
                self._miss_presets(place, limited)
            else:
                try:
                    with documented_form():
                        place.judge(_default_presets(hook, place.project_id, tool))
                except WorkflowsError as error:
                    limited = error if isinstance(error, RateLimited) else None
                    self._miss_presets(place, error)
            if place.outcome == STUCK and not is_sure and not isinstance(tool, str):
                place.outcome = UNCLEAR
                place.reason = f"no default preset is listed for {tool['type']}, but v2 may name the tool otherwise"

    def _miss_presets(self, place: Place, error: WorkflowsError) -> None:
        place.reason = "the presets of Workflows v2 could not be read"
        self._miss(f"presets of tool {place.tool} in project {place.project_id}", str(error))

    # --- the report ---

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON primitives."""
        return {
            "connection": self.conn_id,
            "type": self.conn_type,
            "ok": self.is_ready,
            "running": self.running,
            **{outcome: self.count(outcome) for outcome in OUTCOMES},
            "places": [place.to_dict(self.read_at) for place in self.places],
            "not_read": [asdict(missing) for missing in self.not_read],
        }

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report as text: a table, then what would be stuck and what is unknown."""
        rows = [HEADINGS, *(self._cells(place) for place in self.places)]
        if self.places:
            widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
            for row in rows:
                yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for place in self.places:
            if place.outcome != READY:
                ids = named(instance["instance_id"] for instance in place.instances)
                label = "Would be stuck" if place.outcome == STUCK else "Unclear"
                yield printable(f"{label}: {place.tool} in {_project(place)}, {place.reason}: instances {ids}")
        if self.conn_type == "procore":
            numbers = ", ".join(f"{self.count(outcome)} {outcome}" for outcome in OUTCOMES)
            more = " Not everything was read." if self.not_read else ""
            yield f"{counted(self.running, 'running Legacy instance')}: {numbers}.{more}"
        for missing in self.not_read:
            yield printable(f"Not read{' (FAILED)' if missing.is_failure else ''}: {missing.what}: {missing.reason}")

    def _cells(self, place: Place) -> tuple[str, ...]:
        oldest = place.oldest(self.read_at)
        age = "unknown"
        if oldest["days"] is not None:
            age = f"{oldest['instance_id']}, {counted(oldest['days'], 'day')}, {oldest['state']}"
        people = [f"{name} ({number})" for name, number in place.pending_with.most_common()]
        people += [f"unknown ({place.unassigned})"] if place.unassigned else []
        counts = (place.running, *(place.count(outcome) for outcome in OUTCOMES))
        cells = (_project(place), place.tool, *map(str, counts), age, named(people))
        return tuple(printable(cell) for cell in cells)


def _longest_first(instance: Json) -> tuple[bool, float, str]:
    since = parse_time(instance["since"])
    return since is None, seconds_of(since), str(instance["instance_id"])


def _project(place: Place) -> str:
    return f"{place.project} ({place.project_id})" if place.project else f"project {place.project_id}"


def _default_presets(hook: ProcoreHook, project_id: str | None, tool: Json) -> list[dict[str, Any]]:
    level = COMPANY_LEVEL if tool.get("provider") == "Company" else project_id
    subtype = str_id(tool.get("subtype"))
    return list(hook.list_presets(str(tool["type"]), tool_subtype=subtype, is_default=True, project_id=level))


def _names_of(row: Json) -> tuple[str, ...]:
    """Return the names of an instance's tool, the most telling first."""
    workflow = row.get("workflow") or {}
    names = (workflow.get("class_name"), row.get("workflowed_object_type"), workflow.get("friendly_name"))
    return tuple(str(name) for name in names if name)


def _tool_of(row: Json, names: Sequence[str], tools: Sequence[Json] | None) -> tuple[str, Json | str]:
    """
    Return the label of an instance's tool, and its tool in Workflows v2 or why that is unknown.

    :param tools: The tools of Workflows v2, or None if they are unknown; the type then is the class in snake case.
    """
    if not names:
        return "unknown", "the instances do not show their tool"
    if tools is None:
        return names[0], {"type": re.sub(r"(?<=[a-z0-9])(?=[A-Z])|\W+", "_", names[0]).lower(), "provider": "Project"}
    found = [tool for tool in tools if rules.has_type(row, str(tool["type"]))]
    if len(found) == 1:
        return str(found[0]["type"]), found[0]
    types = named(str(tool["type"]) for tool in found or tools) or "none"
    problem = "several tools of Workflows v2 have this name" if found else "no tool of Workflows v2 has this name"
    return names[0], f"{problem}: {types}"
