"""The seed's tools and templates of Procore Workflows v2."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .common import refusal

PURCHASE_ORDER = "purchase_order_contract"
RFI_LETTER = "-123456789"
ROLE_GROUP = "responsible_role"
TOOLS: list[dict[str, Any]] = [
    {"name": "Purchase Order Contract", "type": PURCHASE_ORDER, "provider": "Project", "subtype": None},
    {"name": "Generic Tool Item", "type": "generic_tool_item", "provider": "Project", "subtype": None},
    {"name": "RFI Letter", "type": "correspondence", "provider": "Project", "subtype": RFI_LETTER},
    {"name": "Prequalification", "type": "prequalification", "provider": "Company", "subtype": None},
]


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


@dataclass(frozen=True)
class Group:
    """A responsible group; ``members`` are who is in it where no preset says otherwise."""

    template_id: str
    name: str
    members: tuple[str, ...]
    kind: str = ROLE_GROUP  # or ITEM_CREATOR

    @cached_property
    def uuid(self) -> str:
        return _uuid(f"group:{self.template_id}:{self.name}")


@dataclass(frozen=True)
class Step:
    """One step of a template; ``options`` are (label, type, name of the following step)."""

    name: str
    kind: str  # response, conditional, action, end
    options: tuple[tuple[str, str, str], ...] = ()
    groups: tuple[tuple[Group, str], ...] = ()  # with how many must respond: one, all
    decision_type: str = "first"
    following: str = ""
    status: str | None = None
    end_type: str | None = None

    @cached_property
    def uuid(self) -> str:
        return _uuid(f"step:{self.name}")

    @cached_property
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
    tool_subtype: str | None
    version_id: str
    steps: dict[str, Step]
    first: str
    groups: dict[str, Group]  # by uuid

    @cached_property
    def members(self) -> dict[str, list[str]]:
        """The template's own members of each group."""
        return {uuid: list(group.members) for uuid, group in self.groups.items()}


def _template(template_id: str, name: str, tool_type: str, *steps: Step, tool_subtype: str | None = None) -> Template:
    groups = {group.uuid: group for step in steps for group, _ in step.groups}
    named = {step.name: step for step in steps}
    return Template(template_id, name, tool_type, tool_subtype, f"{template_id}1", named, steps[0].name, groups)


APPROVED = Step("Approved", "end", status="Approved", end_type="success")
REJECTED = Step("Rejected", "end", status="Rejected", end_type="failure")
APPROVE_OR_REJECT = (("Approve", "approve", "Approved"), ("Reject", "reject", "Rejected"))


def _joint_review(template_id: str, name: str, tool_type: str) -> Template:
    reviewers = Group(template_id, "Reviewers", ("90001", "90003"))
    review = Step(
        "Joint Review",
        "response",
        APPROVE_OR_REJECT,
        ((reviewers, "all"),),
        decision_type="all",
        status="Under Review",
    )
    return _template(template_id, name, tool_type, review, APPROVED, REJECTED)


TEMPLATES = [
    _template(
        "301",
        "Purchase Order Approval",
        PURCHASE_ORDER,
        Step(
            "Budget Check",
            "response",
            (
                ("Approve", "approve", "Over 10,000?"),
                ("Return", "return", "Correct Order"),
                ("Reject", "reject", "Rejected"),
            ),
            ((Group("301", "Integration", ("90001",)), "one"),),
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
            ((Group("301", "Directors", ("90004",)), "one"),),
            status="Pending Director",
        ),
        Step(
            "Correct Order",
            "response",
            (("Resubmit", "approve", "Budget Check"),),
            ((Group("301", "Creator", ("90002",), "ITEM_CREATOR"), "one"),),
            status="Submitted",
        ),
        APPROVED,
        REJECTED,
    ),
    _joint_review("302", "Item Review", "generic_tool_item"),
    _joint_review("303", "Prequalification", "prequalification"),
    _template(
        "304",
        "Letter Approval",
        "correspondence",
        Step("Stamp Letter", "action", following="Letter Review"),
        Step(
            "Letter Review",
            "response",
            APPROVE_OR_REJECT,
            ((Group("304", "Letter Office", ("90001", "90003")), "one"),),
            status="Under Review",
        ),
        APPROVED,
        REJECTED,
        tool_subtype=RFI_LETTER,
    ),
]
PURCHASE_ORDER_APPROVAL = TEMPLATES[0]


def find_template(template_id: str) -> Template:
    for template in TEMPLATES:
        if template.id == template_id:
            return template
    raise refusal(404, "template_not_found", f"Template {template_id} was not found.")


def check_tool(tool_type: str, tool_subtype: str | int | None, project_id: str | None) -> None:
    """Refuse a tool without its subtype, or at the other level than its own."""
    tool = next((tool for tool in TOOLS if tool["type"] == tool_type), None)
    if tool is None:
        return
    if (tool["provider"] == "Project") != (project_id is not None):
        raise refusal(400, "wrong_level", f"Tool {tool_type} belongs to a {tool['provider']}.", "tool_type")
    if tool["subtype"] is not None and tool_subtype is None:
        raise refusal(400, "missing_parameter", f"Tool {tool_type} needs a tool_subtype.", "tool_subtype")
