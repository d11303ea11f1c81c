"""The process diagrams of the default company: integration steps, their fields, and which values a field accepts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from ..state import unknown_value

AUTO = "__AUTO__"
INTEGER_BITS = {"Int16": 16, "Int32": 32, "Int64": 64}


@dataclass(frozen=True)
class FieldDefinition:
    label: str
    type: str
    key: str
    value: str | None = None  # as JSON text
    read_only: bool = False
    required: bool = False
    options: tuple[str, ...] | None = None


@dataclass(frozen=True)
class StepDefinition:
    id: int
    title: str
    fields: tuple[FieldDefinition, ...]
    custom_actions: Mapping[str, Literal["next", "end"]] = field(default_factory=lambda: {AUTO: "next"})

    def shown(self, texts: Mapping[FieldDefinition, str | None]) -> dict[str, str | None]:
        """Return texts by the label of their field, or by its key where several fields have the same label."""
        labels = [definition.label for definition in self.fields]
        return {d.label if labels.count(d.label) == 1 else wire_key(d.key): text for d, text in texts.items()}


@dataclass(frozen=True)
class Diagram:
    """Describe a process whose integration steps open one after the other."""

    id: int
    title: str
    steps: tuple[StepDefinition, ...]
    user_tasks: tuple[tuple[int, str], ...] = ()  # id and title of the steps for people


EVENT_FIELDS = (
    FieldDefinition("Event name", "String", "9aae87b4-2b01-43eb-be17-d0080a225f54", '"Event Test"'),
    FieldDefinition("Event exists", "Boolean?", "3db9d864-d2ea-43f5-8907-2a350c5708d5", "true"),
    FieldDefinition("Event start", "DateTime?", "cdb815a3-0c60-4cd6-88b2-ef3f9becddc7", '"2021-08-24T21:00:00Z"'),
    FieldDefinition("Event duration", "Decimal?", "4dc8a917-da0c-4cf7-a43e-064785e42785", "1640.0"),
    FieldDefinition("Requested by", "String", "5f0c2b52-6a3e-4a5e-9a57-0d3c6a1e7b11", '"Olga Owner"', read_only=True),
    FieldDefinition("Venue", "String", "b7e6d1c0-1f2a-4c3b-8d4e-5f6a7b8c9d0e", required=True),
)
VENDOR_FIELDS = (
    FieldDefinition("Vendor", "String", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e01", '"Example Supplies"'),
    FieldDefinition("Vendor number", "Int32?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e02"),
    FieldDefinition("Rating", "String", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e03", options=("A", "B", "C")),
    FieldDefinition("External id", "Guid?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e04"),
    FieldDefinition("Valid until", "Date?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e05"),
    FieldDefinition("Score", "Double?", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e06"),
    FieldDefinition("Location", "GeoPoint", "0a4b1a52-11d5-4a0c-9f6e-2b8f4d1c3e07", '{"lat": 1.5, "lon": 2}'),
)
EVIDENCE_FIELDS = (
    FieldDefinition("Check", "String", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b01"),
    FieldDefinition("Failed rows", "Int32?", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b02"),
    FieldDefinition("Details", "String", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b03"),
    FieldDefinition("Owner comment", "String", "41d7a3f0-6c52-4be9-8f1d-72a9c05e4b04"),
)
PURCHASE_FIELDS = (
    FieldDefinition("Purchase order id", "Int32?", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e01", "5002"),
    FieldDefinition("Amount", "Decimal?", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e02", "12500.75"),
    FieldDefinition(
        "Decision",
        "String",
        "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e03",
        required=True,
        options=("Approved", "Rejected"),
    ),
    FieldDefinition("Decided by", "String", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e04"),
    FieldDefinition("Decided at", "DateTime?", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e05"),
    FieldDefinition("Remarks", "String", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e06"),
)
ORDER_FIELDS = (FieldDefinition("Order number", "String", "58e2b6c4-93fd-4a17-b0c8-1d64f7a20e07"),)
FIELDS_OF_EVERY_TYPE = (
    FieldDefinition("Text", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f01", '"Plain text"'),
    FieldDefinition("Flag", "Boolean", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f02", "false"),
    FieldDefinition("Flag or none", "Boolean?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f03"),
    FieldDefinition("Moment", "DateTime", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f04", '"2026-03-01T08:30:00Z"'),
    FieldDefinition("Amount", "Decimal", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f05", "12345678901234.5678"),
    FieldDefinition("Amount or none", "Decimal?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f06"),
    FieldDefinition("Small number", "Int16", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f07", "7"),
    FieldDefinition("Number", "Int32?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f08"),
    FieldDefinition("Large number", "Int64?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f09", "9007199254740993"),
    FieldDefinition("Single", "Single?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f10", "0.5"),
    FieldDefinition("Double", "Double?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f11"),
    FieldDefinition("Identifier", "Guid?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f12"),
    FieldDefinition("Day", "Date?", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f13"),
    FieldDefinition(
        "Choice", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f14", '"Low"', options=("Low", "Medium", "High")
    ),
    FieldDefinition("Place", "GeoPoint", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f15", '{"lat": 1.5, "lon": 2}'),
    FieldDefinition("Twin", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f16", '"First"'),
    FieldDefinition("Twin", "String", "6f9c1e85-2ab7-4d30-a4e6-3c80b95d7f17", '"Second"'),
)
DIAGRAMS = [
    Diagram(
        1,
        "Event planning",
        (
            StepDefinition(101, "Check event", EVENT_FIELDS, {AUTO: "next", "Reject": "end"}),
            StepDefinition(102, "Publish event", EVENT_FIELDS[:1]),
        ),
        ((100, "Plan event"),),
    ),
    Diagram(
        2,
        "Vendor onboarding",
        (StepDefinition(201, "Register vendor", VENDOR_FIELDS, {AUTO: "next", "Reject": "end"}),),
    ),
    Diagram(3, "Contract review", (StepDefinition(301, "Check event", EVENT_FIELDS[:2]),)),
    Diagram(4, "Data issue", (StepDefinition(401, "Collect evidence", EVIDENCE_FIELDS),)),
    Diagram(
        5,
        "Purchase request",
        (
            StepDefinition(501, "Approve in Procore", PURCHASE_FIELDS, {AUTO: "next", "Reject": "end"}),
            StepDefinition(502, "Book order", ORDER_FIELDS),
        ),
    ),
    Diagram(6, "Field types", (StepDefinition(601, "Check fields", FIELDS_OF_EVERY_TYPE),)),
]


def diagram_by_title(title: str) -> Diagram:
    for diagram in DIAGRAMS:
        if title in (diagram.title, str(diagram.id)):
            return diagram
    raise unknown_value("diagram", title, (diagram.title for diagram in DIAGRAMS))


def wire_key(key: str) -> str:
    return "field_" + key.replace("-", "_")


def fits(definition: FieldDefinition, value: Any, *, options_by_id: bool = False) -> bool:
    """
    Return whether a value may be written into a field.

    :param options_by_id: Accept the id of an option, which is its number in the list, instead of its text.
    """
    type_name = definition.type.rstrip("?")
    if value is None:
        return definition.type.endswith("?") or type_name == "String"
    if definition.options is not None and options_by_id:
        return str(value) in map(str, range(1, len(definition.options) + 1))
    if definition.options is not None and value not in definition.options:
        return False
    kinds: dict[str, tuple[type, ...]] = {
        "String": (str,),
        "Boolean": (bool,),
        "DateTime": (str,),
        "Date": (str,),
        "Guid": (str,),
        "Decimal": (int, Decimal),
        "Double": (int, Decimal),
        "Single": (int, Decimal),
        **dict.fromkeys(INTEGER_BITS, (int,)),
    }
    if type_name in kinds and type(value) not in kinds[type_name]:
        return False
    if type_name in INTEGER_BITS:
        limit = 2 ** (INTEGER_BITS[type_name] - 1)
        return bool(-limit <= value < limit)
    readers: dict[str, Callable[[str], Any]] = {
        "DateTime": lambda text: datetime.fromisoformat(text.replace("Z", "+00:00")),
        "Date": date.fromisoformat,
        "Guid": uuid.UUID,
    }
    try:
        readers.get(type_name, str)(value)
    except ValueError:
        return False
    return True
