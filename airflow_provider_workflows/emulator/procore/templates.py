"""The tools of the default company, and the workflow templates of Procore v2 for them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .common import rejection

PURCHASE_ORDER = "purchase_order_contract"
# The documentation has no list of tool types. These three follow the names of Procore's REST resources; a real company
# names its own in the list of tools.
CHANGE_ORDER = "commitment_change_order"
INVOICE = "requisition"
SUBMITTAL = "submittal"
RFI_LETTER = "-123456789"
ROLE_GROUP = "responsible_role"
ITEM_CREATOR = "ITEM_CREATOR"
TOOLS: list[dict[str, Any]] = [
    {"name": "Purchase Order Contract", "type": PURCHASE_ORDER, "provider": "Project", "subtype": None},
    {"name": "Generic Tool Item", "type": "generic_tool_item", "provider": "Project", "subtype": None},
    {"name": "RFI Letter", "type": "correspondence", "provider": "Project", "subtype": RFI_LETTER},
    {"name": "Prequalification", "type": "prequalification", "provider": "Company", "subtype": None},
    {"name": "Commitment Change Order", "type": CHANGE_ORDER, "provider": "Project", "subtype": None},
    {"name": "Subcontractor Invoice", "type": INVOICE, "provider": "Project", "subtype": None},
    {"name": "Submittal", "type": SUBMITTAL, "provider": "Project", "subtype": None},
]


def _uuid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


@dataclass(frozen=True)
class Group:
    """Describe a responsible group. ``members`` applies where a preset names no members."""

    template_id: str
    name: str
    members: tuple[str, ...]
    kind: str = ROLE_GROUP  # or ITEM_CREATOR

    @cached_property
    def uuid(self) -> str:
        return _uuid(f"group:{self.template_id}:{self.name}")


@dataclass(frozen=True)
class Step:
    """Describe a step of a template. ``options`` are tuples of label, type and name of the next step."""

    name: str
    kind: str  # response, conditional, action, end
    options: tuple[tuple[str, str, str], ...] = ()
    groups: tuple[tuple[Group, str], ...] = ()  # with the number of required responses: one or all
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
        """The default members of each group."""
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
            ((Group("301", "Creator", ("90002",), ITEM_CREATOR), "one"),),
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
    _template(
        "305",
        "Change Order Approval",
        CHANGE_ORDER,
        Step(
            "Cost Review",
            "response",
            (
                ("Approve", "approve", "Owner Approval"),
                ("Return", "return", "Revise Change Order"),
                ("Reject", "reject", "Rejected"),
            ),
            ((Group("305", "Cost Control", ("90001",)), "one"),),
            status="Under Review",
        ),
        Step(
            "Owner Approval",
            "response",
            APPROVE_OR_REJECT,
            ((Group("305", "Owners", ("90004",)), "one"),),
            status="Pending Owner",
        ),
        Step(
            "Revise Change Order",
            "response",
            (("Resubmit", "approve", "Cost Review"),),
            ((Group("305", "Creator", ("90002",), ITEM_CREATOR), "one"),),
            status="Revise and Resubmit",
        ),
        APPROVED,
        REJECTED,
    ),
    _template(
        "306",
        "Invoice Approval",
        INVOICE,
        Step(
            "Match Invoice",
            "response",
            (("Match", "approve", "Payment Approval"), ("Reject", "reject", "Rejected")),
            ((Group("306", "Accounting", ("90001",)), "one"),),
            status="Under Review",
        ),
        Step(
            "Payment Approval",
            "response",
            APPROVE_OR_REJECT,
            ((Group("306", "Payers", ("90004",)), "one"),),
            status="Pending Payment",
        ),
        APPROVED,
        REJECTED,
    ),
    _template(
        "307",
        "Submittal Review",
        SUBMITTAL,
        Step(
            "Technical Review",
            "response",
            (
                ("Approve", "approve", "Release Submittal"),
                ("Approve as Noted", "approve", "Release Submittal"),
                ("Revise and Resubmit", "return", "Revise Submittal"),
                ("Reject", "reject", "Rejected"),
            ),
            ((Group("307", "Technical Reviewers", ("90003", "90005")), "all"),),
            decision_type="all",
            status="Under Review",
        ),
        Step(
            "Release Submittal",
            "response",
            (("Release", "approve", "Approved"), ("Reject", "reject", "Rejected")),
            ((Group("307", "Document Control", ("90001",)), "one"),),
            status="Pending Release",
        ),
        Step(
            "Revise Submittal",
            "response",
            (("Resubmit", "approve", "Technical Review"),),
            ((Group("307", "Creator", ("90002",), ITEM_CREATOR), "one"),),
            status="Revise and Resubmit",
        ),
        APPROVED,
        REJECTED,
    ),
]
PURCHASE_ORDER_APPROVAL = TEMPLATES[0]


def find_template(template_id: str) -> Template:
    for template in TEMPLATES:
        if template.id == template_id:
            return template
    raise rejection(404, "template_not_found", f"Template {template_id} was not found.")


def check_tool(tool_type: str, tool_subtype: str | int | None, project_id: str | None) -> None:
    """Reject a tool that is named without its required subtype, or at the wrong level."""
    tool = next((tool for tool in TOOLS if tool["type"] == tool_type), None)
    if tool is None:
        return
    if (tool["provider"] == "Project") != (project_id is not None):
        raise rejection(400, "wrong_level", f"Tool {tool_type} belongs to a {tool['provider']}.", "tool_type")
    if tool["subtype"] is not None and tool_subtype is None:
        raise rejection(400, "missing_parameter", f"Tool {tool_type} needs a tool_subtype.", "tool_subtype")
