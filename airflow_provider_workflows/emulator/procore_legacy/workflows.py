"""The legacy workflows of the default company: their states, the activities of each state, and the roles."""

from __future__ import annotations

from dataclasses import dataclass

from ..state import INTEGRATION_USER

ROLES = {14301: ("Project Manager", (INTEGRATION_USER, "90002")), 14304: ("Reviewer", ("90003",))}


@dataclass(frozen=True)
class Activity:
    """Describe an activity. It leads to the next state once every role in ``roles`` has performed it."""

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
class Tool:
    """Describe a tool by the names of its objects' class and by its type in Workflows v2."""

    type: str
    base_class: str
    class_name: str
    friendly_name: str
    domain: str

    @property
    def object_types(self) -> tuple[str, str, str]:
        return self.base_class, self.class_name, self.type


@dataclass(frozen=True)
class Workflow:
    id: int
    name: str
    description: str
    states: dict[int, State]
    first: int
    tool: Tool


PURCHASE_ORDERS = Tool(
    "purchase_order_contract", "Contract", "PurchaseOrderContract", "Purchase Order", domain="commitments"
)
# The guide names no class of other tools. This one follows the name of the REST resource.
INVOICES = Tool("requisition", "Requisition", "Requisition", "Subcontractor Invoice", domain="invoicing")
DRAFT = State(18700, "Draft", "Draft")  # of a running instance whose tool was upgraded


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
    PURCHASE_ORDERS,
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
    PURCHASE_ORDERS,
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
    PURCHASE_ORDERS,
)
INVOICE_APPROVAL = Workflow(
    3296,
    "Invoice Approval Workflow",
    "Workflow of another tool",
    {
        18730: State(18730, "Invoice Review", "Under Review", (Activity(29970, "Approve", (14304,), 18731),)),
        18731: State(18731, "Invoice Approved", "Approved"),
    },
    18730,
    INVOICES,
)
WORKFLOWS = {workflow.name: workflow for workflow in (PURCHASE_ORDER, JOINT_REVIEW, TWO_APPROVALS, INVOICE_APPROVAL)}
TOOLS = {workflow.tool.type: workflow.tool for workflow in WORKFLOWS.values()}
