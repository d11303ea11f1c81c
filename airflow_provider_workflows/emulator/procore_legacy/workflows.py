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
