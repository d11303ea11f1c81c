"""The flows that are disturbed: each acts by the operators of this package as a DAG would."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from airflow.sdk import DAG

from airflow_provider_workflows.decorators.workflowsoft import workflowsoft_integration
from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.operators.procore import (
    ProcoreAddAssigneesOperator,
    ProcoreRespondOperator,
    ProcoreRestartInstanceOperator,
    ProcoreStartInstanceOperator,
    ProcoreTerminateInstanceOperator,
)
from airflow_provider_workflows.operators.procore_assignees import (
    ProcoreBulkReplaceAssigneesOperator,
    ProcorePresetAssigneesOperator,
)
from airflow_provider_workflows.operators.procore_bulk import ProcoreBulkStartInstancesOperator
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCompleteIntegrationOperator,
    WorkflowsoftGetFieldsOperator,
    WorkflowsoftUpdateFieldsOperator,
)
from airflow_provider_workflows.operators.workflowsoft_processes import (
    WorkflowsoftCreateTaskOperator,
    WorkflowsoftStartProcessOperator,
)
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

CONSUMED, KEPT = "consumed_on_read", "kept_until_completed"
TOOL = "purchase_order_contract"
# One look settles what became of a change: whatever is to arrive has arrived by then, or is meant to be late.
ONE_LOOK = {"confirm_timeout": 0.0, "retries": 3}
# The API has no key that would tell the repetition: both take effect, with the same values.
WRITES_AGAIN = re.compile(r"/instances/variables$|/presets/\d+/assignees$")
# What a second try may say in other words.
VARYING = (
    *("already_recorded", "already_performed", "already_completed", "already_ended", "option_id", "suspected_lost"),
    "operation_ids",  # of an order whose response was lost nobody knows
    *("performed_at", "started_at", "ended_at", "state_before"),
)

Given = Mapping[str, Any]
Kept = Mapping[str, Any]


def _never(kept: Kept) -> bool:
    return False


def _same_but_for_words(result: Any) -> Any:
    if not isinstance(result, dict):
        return result
    return {name: value for name, value in result.items() if name not in VARYING}


@dataclass(frozen=True)
class Task:
    """
    One task of a flow.

    :param build: Makes the operator, of ``{mode, <upstream task>: its XCom}``; the child finds it by its name.
    :param in_doubt: Tells of what the store keeps whether something was begun whose end is not noted there.
    :param is_readable: Whether the product shows afterwards what was done: then a try that is in doubt may fail only if
        it was not done.
    :param settles: Whether it always comes to an end by itself: then it may never fail.
    :param look_for: What the message of a failure must name.
    :param instead: What a person runs where it failed halfway; else the task is cleared.
    :param told: What the results of a disturbed and an undisturbed run must have in common.
    """

    name: str
    build: Callable[[Given], Any]
    in_doubt: Callable[[Kept], bool] = _never
    is_readable: bool = True
    settles: bool = False
    look_for: str = ""
    instead: Callable[[Given], Any] | None = None
    told: Callable[[Any], Any] = _same_but_for_words


@dataclass(frozen=True)
class Flow:
    """
    Tasks that run one after the other, each with the results of those before it.

    :param mode: How new integration instances are read, in the emulator and by the connection, if any are.
    :param prepare: What people do before it begins.
    """

    name: str
    tasks: tuple[Task, ...]
    mode: str | None = None
    prepare: Callable[[Emulator], Any] = lambda emulator: None

    def acts(self, request: str) -> bool:
        """Tell whether a request changes something in a product."""
        if request.startswith(("write ", "end of ")) or "/oauth/" in request:
            return False
        return not request.startswith("GET") or self.consumes(request)

    def consumes(self, request: str) -> bool:
        """Tell whether a request takes something out by reading it."""
        return self.mode == CONSUMED and request.endswith("/new-integrations")

    def may_be_late(self, request: str) -> bool:
        """Tell whether a request acts, and changes nothing if it arrives after the next try has sent it again."""
        return self.acts(request) and not WRITES_AGAIN.search(request)


# --- Procore ---


def respond(given: Given) -> Any:
    return ProcoreRespondOperator(
        task_id="respond", tool_type=TOOL, item_id="5001", option="Approve", comment="Within budget.", **ONE_LOOK
    )


def perform(given: Given) -> Any:
    return ProcoreLegacyPerformActivityOperator(
        task_id="perform", instance_id="568150", activity="Submit for Approval", comments="Please.", **ONE_LOOK
    )


def start(given: Given) -> Any:
    return ProcoreStartInstanceOperator(task_id="start", tool_type=TOOL, item_id="6001", **ONE_LOOK)


def add_assignees(given: Given) -> Any:
    return ProcoreAddAssigneesOperator(
        task_id="add_assignees",
        tool_type=TOOL,
        item_id="5001",
        assignees=["rita@example.com", "lee@example.com"],
        reason="other",
        **ONE_LOOK,
    )


def terminate(given: Given) -> Any:
    return ProcoreTerminateInstanceOperator(task_id="terminate", tool_type=TOOL, item_id="5001", **ONE_LOOK)


def restart(given: Given) -> Any:
    return ProcoreRestartInstanceOperator(task_id="restart", tool_type=TOOL, item_id="5001", **ONE_LOOK)


def bulk_replace(given: Given) -> Any:
    return ProcoreBulkReplaceAssigneesOperator(
        task_id="bulk_replace",
        old_assignee="dana@example.com",
        new_assignees="lee@example.com",
        reason="left",
        poll_interval=0.01,
        wait_timeout=60,
        **ONE_LOOK,
    )


def bulk_start(given: Given) -> Any:
    return ProcoreBulkStartInstancesOperator(
        task_id="bulk_start",
        tool_type=TOOL,
        items=["6001", "6002", "6003"],
        chunk_size=2,
        poll_interval=0.01,
        wait_timeout=60,
        retries=3,
    )


def preset_assignees(given: Given) -> Any:
    directors = {"Directors": ["dana@example.com", "rita@example.com"]}
    return ProcorePresetAssigneesOperator(
        task_id="preset_assignees",
        tool_type=TOOL,
        assignments=[{"template": "301", "project_id": ["1001", "1002"], "groups": directors}],
        mode="apply",
        members="replace",
        **ONE_LOOK,
    )


def _sent(kept: Kept) -> bool:
    return bool((kept.get("activity") or {}).get("sent"))


def _starting(kept: Kept) -> bool:
    journal = kept.get("start") or {}
    return bool(journal.get("sent")) and journal.get("instance_id") is None


def _adding(kept: Kept) -> bool:
    return (kept.get("added") or {}).get("outcome") == "unknown"


def _replacing(kept: Kept) -> bool:
    journal = kept.get("bulk_replace") or {}
    return bool(journal.get("sent")) and journal.get("request_id") is None


def _asked(result: Any) -> Any:
    return sorted(result["added"] + result["already_assigned"])


def _changed(result: Any) -> Any:
    return result["changed"], result["refused"]


# --- Workflowsoft ---


WAIT = {
    "diagram": "Event planning",
    "step": "Check event",
    "mode": "reschedule",
    "poke_interval": 0.01,
    "timeout": 600,
    "retries": 3,
}


def wait(given: Given) -> Any:
    return WorkflowsoftIntegrationSensor(task_id="wait", **WAIT)


def handle(given: Given) -> Any:
    @workflowsoft_integration(**ONE_LOOK)
    def longer(fields: dict[str, Any]) -> dict[str, Any]:
        # A decision that comes out otherwise when it is taken again.
        return {"Event duration": fields["Event duration"] + Decimal("30.25"), "Venue": "Main hall"}

    with DAG("faults", schedule=None):
        return longer(integration_instance_id=given["wait"][0]).operator


def get_fields(given: Given) -> Any:
    return WorkflowsoftGetFieldsOperator(task_id="get_fields", integration_instance_id=given["wait"][0], retries=3)


def update_fields(given: Given) -> Any:
    duration = str(Decimal(given["get_fields"]["Event duration"]) + Decimal("30.25"))
    return WorkflowsoftUpdateFieldsOperator(
        task_id="update_fields",
        integration_instance_id=given["wait"][0],
        fields={**given["get_fields"], "Event duration": duration, "Venue": "Main hall"},
        **ONE_LOOK,
    )


def complete(given: Given) -> Any:
    return WorkflowsoftCompleteIntegrationOperator(
        task_id="complete", integration_instance_id=given["wait"][0], **ONE_LOOK
    )


def start_process(given: Given) -> Any:
    return WorkflowsoftStartProcessOperator(
        task_id="start_process", diagram="Event planning", on_behalf_of="sam@example.com", retries=3
    )


def create_task(given: Given) -> Any:
    return WorkflowsoftCreateTaskOperator(
        task_id="create_task", title="Look at it", on_behalf_of="sam@example.com", retries=3
    )


def event_is_planned(emulator: Emulator) -> None:
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning")


def _received(rows: Any) -> list[dict[str, Any]]:
    """Return what came, without what was lost."""
    return [{name: value for name, value in row.items() if name != "suspected_lost"} for row in rows]


def polling(kept: Kept) -> bool:
    return (kept.get("new_integrations") or {}).get("polling_since") is not None


def _completing(kept: Kept) -> bool:
    journals = [value for key, value in kept.items() if key.startswith("completion_")]
    return any("completing" in journal for journal in journals)


def _creating(kept: Kept) -> bool:
    return "begun" in (kept.get("created") or {})


def _integration_flows(mode: str) -> tuple[Flow, Flow]:
    """
    Return both ways to work on an integration step.

    Whether it is completed shows only where polls leave it there until then.
    """
    completing = {"in_doubt": _completing, "is_readable": mode == KEPT, "look_for": r"instance \d+"}
    waiting = Task("wait", wait, in_doubt=polling, told=_received)
    function = Flow(
        "integration step, function",
        (waiting, Task("handle", handle, instead=complete, **completing)),
        mode,
        prepare=event_is_planned,
    )
    operators = Flow(
        "integration step, operators",
        (
            waiting,
            Task("get_fields", get_fields),
            Task("update_fields", update_fields),
            Task("complete", complete, **completing),
        ),
        mode,
        prepare=event_is_planned,
    )
    return function, operators


def _one(task: Task, **more: Any) -> Flow:
    return Flow(task.name.replace("_", " "), (task,), **more)


FLOWS = (
    _one(Task("respond", respond, settles=True)),
    _one(Task("perform", perform, in_doubt=_sent, look_for="history of instance 568150")),
    _one(Task("start", start, in_doubt=_starting, look_for="item 6001")),
    _one(Task("bulk_start", bulk_start, settles=True)),
    _one(Task("terminate", terminate, settles=True)),
    _one(Task("restart", restart, settles=True)),
    _one(
        Task(
            "add_assignees",
            add_assignees,
            in_doubt=_adding,
            look_for="does not show all of 90003, 90005",
            told=_asked,
        )
    ),
    _one(Task("bulk_replace", bulk_replace, in_doubt=_replacing, look_for="the list shows no new request")),
    _one(Task("preset_assignees", preset_assignees, look_for=r"preset \d+", told=_changed)),
    *_integration_flows(CONSUMED),
    *_integration_flows(KEPT),
    _one(
        Task(
            "start_process",
            start_process,
            in_doubt=_creating,
            is_readable=False,
            look_for="Look for a process of diagram 'Event planning'",
        )
    ),
    _one(
        Task("create_task", create_task, in_doubt=_creating, is_readable=False, look_for="Look for a task 'Look at it'")
    ),
)


def find(name: str, mode: str | None = None) -> list[Flow]:
    """Return the flow of this name, in each of its modes; else all with these words in their name."""
    found = [flow for flow in FLOWS if flow.name == name] or [flow for flow in FLOWS if name in flow.name]
    return [flow for flow in found if mode in (None, flow.mode)]
