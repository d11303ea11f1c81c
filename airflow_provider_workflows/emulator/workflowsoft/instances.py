"""The state machine of Workflowsoft: processes, integration instances with their fields, and tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Literal

import simplejson

from ..state import EmulatorState, Rejection
from .diagrams import AUTO, Diagram, FieldDefinition, StepDefinition, fits, wire_key
from .response_formats import NUMBERS_WITH_FRACTIONS, shown_fields, shown_options

OWNER = "11"
USERS = [
    {"Id": 11, "FullName": "Olga Owner", "Email": "olga@example.com"},
    {"Id": 12, "FullName": "Sam Steward", "Email": "sam@example.com"},
    {"Id": 13, "FullName": "Sam Stewardson", "Email": "sam.stewardson@example.com"},
    {"Id": 14, "FullName": "Olga Owner", "Email": "olga.owner@example.com"},
    {"Id": 15, "FullName": "Dana Director", "Email": "dana@example.com"},
    {"Id": 16, "FullName": "Shared One", "Email": "shared@example.com"},
    {"Id": 17, "FullName": "Shared Two", "Email": "shared@example.com"},
]
USER_IDS = {str(user["Id"]) for user in USERS}


@dataclass
class Process:
    id: int
    diagram: Diagram
    started_by: str
    ended: bool = False


@dataclass
class Instance:
    """Record an integration instance, which is one occurrence of an integration step."""

    id: int
    process: Process
    step_index: int
    texts: dict[FieldDefinition, str | None]  # as JSON text
    completions: list[dict[str, str]] = field(default_factory=list)
    consumed: bool = False
    times_read: int = 0

    @property
    def step(self) -> StepDefinition:
        return self.process.diagram.steps[self.step_index]


class Workflowsoft:
    """Run the processes, integration instances and tasks."""

    def __init__(self, state: EmulatorState):
        self.state = state
        self.clear()

    def clear(self) -> None:
        self.processes: list[Process] = []
        self.instances: dict[int, Instance] = {}
        self.tasks: list[dict[str, Any]] = []
        self.next_id = 1

    def number(self) -> int:
        self.next_id += 1
        return self.next_id

    def start(self, diagram: Diagram, by: str, fields: dict[str, Any], via: str) -> Instance:
        """
        Start a process, which opens its first integration step at once.

        :param fields: Values for the fields of that step, by label or key.
        """
        named_by = self.state.flags["ws_start_fields"] if via == "api" else "label_or_key"
        texts = self._texts(diagram.steps[0], fields, by_label=named_by != "key", by_key=named_by != "label")
        process = Process(self.number(), diagram, by)
        self.processes.append(process)
        first = self._open(process, 0)
        first.texts |= texts
        self._record("start_process", by, first, {"diagram": diagram.title, "fields": first.step.shown(texts)}, via)
        return first

    def poll_new(self, step_id: int) -> list[Instance]:
        """Return the new instances of a step, and consume them if the flag says that reading does."""
        waiting = [i for i in self.instances.values() if i.step.id == step_id and not i.completions and not i.consumed]
        if self.state.flags["new_integration_shape"] == "object":
            waiting = waiting[:1]
        for instance in waiting:
            instance.times_read += 1
            if self.state.flags["new_integrations"] == "consumed_on_read":
                instance.consumed = True
                self._record("deliver", "system", instance, {"step": instance.step.title}, "api")
        return waiting

    def fields(self, instance: Instance) -> list[dict[str, Any]]:
        """Return the fields of an instance in the response format of the flags."""
        return shown_fields(self.state.flags, self.plain_fields(instance))

    def plain_fields(self, instance: Instance) -> list[dict[str, Any]]:
        """Return the fields of an instance in the documented response format."""
        after_completion = self.state.flags["ws_fields_after_completion"] if instance.completions else "readable"
        if after_completion == "gone":
            raise Rejection(404, {"Message": f"Task {instance.id} was not found."})
        if after_completion == "error":
            raise self.business_error("The task is already completed.")
        return [
            {
                "label": definition.label,
                "type": definition.type,
                "key": definition.key,
                "options": shown_options(self.state.flags["ws_options_shape"], definition.options),
                "valueJson": text,
                "isReadonly": definition.read_only or after_completion == "read_only",
                "isRequired": definition.required,
            }
            for definition, text in instance.texts.items()
        ]

    def write(self, instance: Instance, fields: dict[str, Any], by: str, via: str) -> None:
        """Write fields by key, or as a user also by label."""
        if instance.completions:
            raise self.business_error("The task is already completed.")
        texts = self._texts(instance.step, fields, by_label=via == "user")
        for definition in texts:
            if definition.read_only:
                raise self.business_error(f"Field '{definition.label}' is read-only.")
        if self.state.flags["ws_write"] == "replace":
            instance.texts |= {d: None for d in instance.texts if not d.read_only}
        instance.texts |= texts
        self._record("write_fields", by, instance, {"fields": instance.step.shown(texts)}, via)

    def complete(self, instance: Instance, custom_action: str, by: str, via: str) -> None:
        if instance.completions and self.state.flags["ws_complete_again"] == "error":
            raise self.business_error("The task is already completed.")
        custom_actions = instance.step.custom_actions
        if self.state.flags["ws_custom_actions"] == "auto_only":
            custom_actions = {AUTO: custom_actions[AUTO]}
        if custom_action not in custom_actions:
            raise self.business_error(
                f"Custom action '{custom_action}' is unknown; expected one of: {', '.join(custom_actions)}."
            )
        empty_texts = [None, '""', "null"]
        if self.state.flags["ws_empty_required"] == "also_zero_and_false":
            empty_texts += ["0", "false"]
        empty = [d.label for d, text in instance.texts.items() if d.required and text in empty_texts]
        if empty:
            raise self.business_error(f"Required fields are empty: {', '.join(empty)}.")
        instance.completions.append(
            {"at": self.state.clock.iso(), "by": by, "custom_action": custom_action, "via": via}
        )
        if len(instance.completions) == 1:
            self._leave(instance, custom_actions[custom_action])
        detail = {"custom_action": custom_action, "times": len(instance.completions), "step": instance.step.title}
        self._record("complete", by, instance, detail, via)

    def create_task(
        self, title: str, description: str | None, assigned_to: str | None, by: str, files: Any = None
    ) -> int:
        if not title.strip():
            raise self.business_error("Title is required.")
        if assigned_to is not None and assigned_to not in USER_IDS:
            raise self.business_error(f"AssignedUserId '{assigned_to}' is not a user.")
        task_id = self.number()
        target = {"task_id": str(task_id)}
        detail = {"title": title, "description": description, "assigned_to": assigned_to or by}
        if files is not None:
            detail["files"] = files
        self.tasks.append({**target, **detail, "created_by": by, "created_at": self.state.clock.iso()})
        self.state.record_effect("workflowsoft", "create_task", by, target, detail, "api")
        return task_id

    def row_limit(self, limit: int) -> int:
        """Return the number of rows that a list returns for a requested limit."""
        max_rows = 3 if self.state.flags["ws_list_limit"] == "at_most_3" else limit
        return max(min(limit, max_rows), 0)

    def on_behalf_of(self, header: str | None) -> str:
        """Return the user that the header of a request names."""
        if header != "system" and header not in USER_IDS:
            raise self.business_error(f"X-OnBehalfOf-Id '{header}' is neither 'system' nor a user.")
        return header

    def business_error(self, message: str) -> Rejection:
        status = self.state.flags["ws_error_status"]
        if status == "200":
            return Rejection(200, {"Success": False, "Message": message})
        if status == "400":
            return Rejection(400, {"Message": message})
        return server_error(message)

    def find(self, instance_id: int | str) -> Instance:
        instance = self.instances.get(int(instance_id)) if str(instance_id).isdecimal() else None
        if instance is None:
            raise Rejection(404, {"Message": f"Task {instance_id} was not found."})
        return instance

    def summary(self) -> list[dict[str, Any]]:
        return [
            {
                **_ids(instance),
                "diagram": instance.process.diagram.title,
                "step": instance.step.title,
                "state": "completed" if instance.completions else "open",
                "consumed": instance.consumed,
                "times_read": instance.times_read,
                "completions": instance.completions,
                "fields": instance.step.shown(instance.texts),
            }
            for instance in self.instances.values()
        ]

    def process_summary(self) -> list[dict[str, str]]:
        return [
            {
                "process_instance_id": str(process.id),
                "diagram": process.diagram.title,
                "started_by": process.started_by,
                "state": "ended" if process.ended else "running",
            }
            for process in self.processes
        ]

    def _open(self, process: Process, step_index: int) -> Instance:
        texts = {definition: definition.value for definition in process.diagram.steps[step_index].fields}
        instance = Instance(self.number(), process, step_index, texts)
        self.instances[instance.id] = instance
        return instance

    def _leave(self, instance: Instance, way: Literal["next", "end"]) -> None:
        following = instance.step_index + 1
        if way == "next" and following < len(instance.process.diagram.steps):
            self._open(instance.process, following)
        else:
            instance.process.ended = True

    def _texts(
        self, step: StepDefinition, fields: dict[str, Any], *, by_label: bool, by_key: bool = True
    ) -> dict[FieldDefinition, str]:
        """Return the JSON text of the new values, or reject them all."""
        texts = {}
        for name, value in fields.items():
            found = [d for d in step.fields if (by_key and name == wire_key(d.key)) or (by_label and name == d.label)]
            if not found:
                raise self.business_error(f"Field {name} does not exist.")
            if len(found) > 1:
                keys = ", ".join(wire_key(d.key) for d in found)
                raise self.business_error(f"There are {len(found)} fields '{name}': {keys}.")
            if not fits(found[0], value, options_by_id=self.state.flags["ws_option_value"] == "id"):
                raise self.business_error(f"Value of field '{found[0].label}' is not a {found[0].type}.")
            texts[found[0]] = simplejson.dumps(normalized(self.state.flags["ws_normalise"], found[0], value))
        return texts

    def _record(self, action: str, by: str, instance: Instance, detail: dict[str, Any], via: str) -> None:
        self.state.record_effect("workflowsoft", action, by, _ids(instance), detail, via)


def server_error(message: str) -> Rejection:
    """Return a server error in the format of ASP.NET."""
    body = {
        "Message": "An error has occurred.",
        "ExceptionMessage": message,
        "ExceptionType": "Workflowsoft.BusinessException",
    }
    return Rejection(500, body)


def complete_as_user(workflowsoft: Workflowsoft, instance_id: str, fields: dict[str, Any], custom_action: str) -> None:
    """Write fields and complete an instance as its owner."""
    instance = workflowsoft.find(instance_id)
    if fields:
        workflowsoft.write(instance, fields, OWNER, "user")
    workflowsoft.complete(instance, custom_action, OWNER, "user")


def _ids(instance: Instance) -> dict[str, str]:
    return {"integration_instance_id": str(instance.id), "process_instance_id": str(instance.process.id)}


def normalized(rule: str, definition: FieldDefinition, value: Any) -> Any:
    """Return the value that the server stores."""
    kind = definition.type.rstrip("?")
    if isinstance(value, str) and kind == "String":
        if rule == "trim":
            return value.strip()
        if rule == "crlf":
            return "\r\n".join(value.splitlines())
    if rule == "round" and kind in NUMBERS_WITH_FRACTIONS and isinstance(value, Decimal):
        return value.quantize(Decimal("0.01"), ROUND_HALF_UP)
    if rule == "minutes" and kind == "DateTime" and isinstance(value, str):
        return value[:16] + ":00Z"
    return value
