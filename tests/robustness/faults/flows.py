"""The flows that are disturbed: each uses the operators of this package as a DAG would."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from airflow.sdk import DAG

from airflow_provider_workflows.decorators.procore import Respond, procore_response
from airflow_provider_workflows.decorators.workflowsoft import workflowsoft_integration
from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.operators.procore import (
    ProcoreAddAssigneesOperator,
    ProcoreApprovalOperator,
    ProcoreBulkReplaceAssigneesOperator,
    ProcoreBulkRespondOperator,
    ProcoreBulkStartInstancesOperator,
    ProcorePresetAssigneesOperator,
    ProcoreRespondOperator,
    ProcoreRestartInstanceOperator,
    ProcoreStartInstanceOperator,
    ProcoreTerminateInstanceOperator,
)
from airflow_provider_workflows.operators.procore_legacy import ProcoreLegacyPerformActivityOperator
from airflow_provider_workflows.operators.workflowsoft import (
    WorkflowsoftCompleteIntegrationOperator,
    WorkflowsoftCreateTaskOperator,
    WorkflowsoftGetFieldsOperator,
    WorkflowsoftStartProcessOperator,
    WorkflowsoftUpdateFieldsOperator,
)
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

from . import truth
from .strikes import KILLS, REJECTED_READS, TWO_TRIES, is_end

CONSUMED, LISTED = "consumed_on_read", "listed_until_completed"
TOOL = "purchase_order_contract"
# One poll resolves the outcome of a change: each request has arrived by then, or is late on purpose.
ONE_POLL = {"confirm_timeout": 0.0, "retries": 3}
WAITED = {"poll_interval": 0.01, "wait_timeout": 60}
DEFERRED = {"poll_interval": 0.01, "wait_timeout": 3600, "deferrable": True}
# The API has no key that identifies the repetition: both take effect, with the same values.
WRITES_AGAIN = re.compile(r"/instances/variables$|/presets/\d+/assignees$")
RECORDS = re.compile(r"/(workflows/instances|workflow_instances|workflow_activity_histories)\b")
# What may differ in the result of a second try.
VARYING = (
    *("already_recorded", "already_performed", "already_completed", "already_ended", "option_id", "possibly_lost"),
    "operation_ids",  # unknown for an order whose response was lost
    *("performed_at", "started_at", "ended_at", "state_before"),
)

Inputs = Mapping[str, Any]
Stored = Mapping[str, Any]


def _never(stored: Stored) -> bool:
    return False


def _same_but_for_varying(result: Any) -> Any:
    if not isinstance(result, dict):
        return result
    return {name: value for name, value in result.items() if name not in VARYING}


@dataclass(frozen=True)
class Task:
    """
    One task of a flow.

    :param build: Makes the operator, of ``{mode, <upstream task>: its XCom}``; the child finds it by its name.
    :param in_doubt: Returns whether the store has the start of an action without its end.
    :param is_readable: Whether the product shows afterwards what was done: then a try that is in doubt may fail only if
        it was not done.
    :param resolves: Whether a retry always resolves an unknown outcome: then the task may never fail.
    :param names: What the message of a failure must name.
    :param instead: What a person runs where it failed halfway; else the task is cleared.
    :param reported: What the results of a disturbed and an undisturbed run must have in common.
    :param claims: Yields what a result says that contradicts what is recorded.
    :param people: What people do while the task is deferred.
    :param click: What a person chooses in Airflow while the task is deferred, as Airflow's event.
    :param is_click_late: Whether Airflow only records it, because the task was not deferred yet.
    """

    name: str
    build: Callable[[Inputs], Any]
    in_doubt: Callable[[Stored], bool] = _never
    is_readable: bool = True
    resolves: bool = False
    names: str = ""
    instead: Callable[[Inputs], Any] | None = None
    reported: Callable[[Any], Any] = _same_but_for_varying
    claims: Callable[[Any, truth.Seen], Iterable[str]] = lambda result, seen: ()
    people: Callable[[Emulator], Any] = lambda emulator: None
    click: Mapping[str, Any] | None = None
    is_click_late: bool = False


@dataclass(frozen=True)
class Flow:
    """
    Tasks that run one after the other, each with the results of those before it.

    :param mode: How new integration instances are read, in the emulator and by the connection, if any are.
    :param prepare: What people do before it starts.
    :param kind: What it is struck with.
    :param flags: The emulator's flags that are not as by default.
    :param records_doubt: Whether a retry knows that an earlier try was cut off while it wrote: then the retry may not
        report another outcome either where reading is rejected.
    """

    name: str
    tasks: tuple[Task, ...]
    mode: str | None = None
    prepare: Callable[[Emulator], Any] = lambda emulator: None
    kind: str = KILLS
    flags: Mapping[str, str | float] = field(default_factory=dict)
    records_doubt: bool = False

    def writes(self, request: str) -> bool:
        """Return whether a request changes something in a product."""
        if request.startswith("write ") or is_end(request) or request.endswith(("/oauth/token", "/bulk_history")):
            return False
        return not request.startswith("GET") or self.consumes(request)

    def consumes(self, request: str) -> bool:
        """Return whether a request takes something out by reading it."""
        return self.mode == CONSUMED and request.endswith("/new-integrations")

    def may_be_late(self, request: str) -> bool:
        """Return whether a request writes, and changes nothing if it arrives after the next try has sent it again."""
        return self.writes(request) and not WRITES_AGAIN.search(request)

    def reads(self, request: str) -> bool:
        """Return whether a request reads what shows the outcome of an action."""
        return RECORDS.search(request) is not None

    def same(self, effect: str) -> str:
        """Return what must be the same of an effect, however many tries it took."""
        return re.sub(r"at try \d+", "at a try", effect)


# --- Procore ---


def respond(inputs: Inputs) -> Any:
    return ProcoreRespondOperator(
        task_id="respond", tool_type=TOOL, item_id="5001", option="Approve", comment="Within budget.", **ONE_POLL
    )


def respond_with_file(inputs: Inputs) -> Any:
    return ProcoreRespondOperator(
        task_id="respond", instance_id="700001", option="Approve", comment="Within budget.", files=__file__, **ONE_POLL
    )


def respond_by_function(inputs: Inputs) -> Any:
    @procore_response(**ONE_POLL)
    def decide(instance: dict[str, Any], ti: Any) -> Any:
        # Another comment when it decides again.
        return Respond("Approve", comment=f"Seen at try {ti.try_number}.")

    with DAG("faults", schedule=None):
        return decide(instance="700001").operator


def decide_in_airflow(inputs: Inputs) -> Any:
    wait = {"poll_interval": 0.01, "wait_timeout": 3600}
    return ProcoreApprovalOperator(task_id="decide", tool_type=TOOL, item_id="5001", **wait, **ONE_POLL)


CLICK = {
    "chosen_options": ["Approve"],
    "params_input": {"note": "Within budget."},
    "responded_at": "2026-11-30T08:00:00+00:00",
    "responded_by_user": {"id": "7", "name": "Kim"},
}


def perform(inputs: Inputs) -> Any:
    return ProcoreLegacyPerformActivityOperator(
        task_id="perform", instance_id="568150", activity="Submit for Approval", comments="Please.", **ONE_POLL
    )


def perform_and_wait(inputs: Inputs) -> Any:
    return ProcoreLegacyPerformActivityOperator(
        task_id="perform",
        instance_id="568151",
        activity="Accept",
        role="Project Manager",
        comments="Please.",
        wait_for_state_change=True,
        **DEFERRED,
        **ONE_POLL,
    )


def start(inputs: Inputs) -> Any:
    return ProcoreStartInstanceOperator(task_id="start", tool_type=TOOL, item_id="6001", **ONE_POLL)


def start_and_wait(inputs: Inputs) -> Any:
    return ProcoreStartInstanceOperator(
        task_id="start", tool_type=TOOL, item_id="6001", wait_for_completion=True, **DEFERRED, **ONE_POLL
    )


def wait_for_end(inputs: Inputs) -> Any:
    return ProcoreInstanceSensor(
        task_id="wait_for_end",
        instance_id=inputs["respond"]["instance_id"],
        project_id=inputs["respond"]["project_id"],
        deferrable=True,
        poke_interval=0.01,
        timeout=3600,
        retries=3,
    )


def add_assignees(inputs: Inputs) -> Any:
    return ProcoreAddAssigneesOperator(
        task_id="add_assignees",
        tool_type=TOOL,
        item_id="5001",
        assignees=["rita@example.com", "lee@example.com"],
        reason="other",
        **ONE_POLL,
    )


def terminate(inputs: Inputs) -> Any:
    return ProcoreTerminateInstanceOperator(task_id="terminate", tool_type=TOOL, item_id="5001", **ONE_POLL)


def restart(inputs: Inputs) -> Any:
    return ProcoreRestartInstanceOperator(task_id="restart", tool_type=TOOL, item_id="5001", **ONE_POLL)


def bulk_replace(inputs: Inputs, **more: Any) -> Any:
    return ProcoreBulkReplaceAssigneesOperator(
        task_id="bulk_replace",
        old_assignee="dana@example.com",
        new_assignees="lee@example.com",
        reason="left",
        **{**WAITED, **more},
        **ONE_POLL,
    )


def bulk_replace_deferrable(inputs: Inputs) -> Any:
    return bulk_replace(inputs, **DEFERRED)


def bulk_start(inputs: Inputs, **more: Any) -> Any:
    return ProcoreBulkStartInstancesOperator(
        task_id="bulk_start",
        tool_type=TOOL,
        items=["6001", "6002", "6003"],
        chunk_size=2,
        **{**WAITED, **more},
        retries=3,
    )


def bulk_start_deferrable(inputs: Inputs) -> Any:
    return bulk_start(inputs, **DEFERRED)


def bulk_respond(inputs: Inputs) -> Any:
    comments = {"700001": "Within budget.", "700002": "Checked.", "700003": None}
    return ProcoreBulkRespondOperator(
        task_id="bulk_respond",
        responses={each: {"response": "Approve", "comment": comment} for each, comment in comments.items()},
        mode="apply",
        **ONE_POLL,
    )


def preset_assignees(inputs: Inputs) -> Any:
    directors = {"Directors": ["dana@example.com", "rita@example.com"]}
    return ProcorePresetAssigneesOperator(
        task_id="preset_assignees",
        tool_type=TOOL,
        assignments=[{"template": "301", "project_id": ["1001", "1002"], "groups": directors}],
        mode="apply",
        members="replace",
        **ONE_POLL,
    )


def one_change_fails(emulator: Emulator) -> None:
    emulator.control("POST", "faults", method="PATCH", path="/presets/401/assignees$", status=500, json={})


def two_more_wait(emulator: Emulator) -> None:
    emulator.control("POST", "procore/instances/many", count=2)


def others_complete(emulator: Emulator) -> None:
    """Let people bring the newest instance to its end."""
    (*_, newest) = emulator.control("GET", "state")["procore"]
    emulator.control("POST", f"procore/instances/{newest['id']}/terminate")


def others_perform(emulator: Emulator) -> None:
    emulator.control("POST", "procore/legacy/instances/568151/perform", login="rita@example.com", activity="Accept")


def an_hour_passes(emulator: Emulator) -> None:
    emulator.control("POST", "clock", advance=3600)


def _responding(stored: Stored) -> bool:
    return (stored.get("chosen_option") or {}).get("outcome") in ("unknown", "accepted")


def _responding_in_bulk(stored: Stored) -> bool:
    outcomes = [outcome for key, part in stored.items() if key.startswith("bulk_outcomes") for outcome in part.values()]
    return bool({"unknown", "accepted", "reported unknown"} & set(outcomes))


def _sent(stored: Stored) -> bool:
    return bool((stored.get("activity") or {}).get("sent"))


def _starting(stored: Stored) -> bool:
    journal = stored.get("start") or {}
    return bool(journal.get("sent")) and journal.get("instance_id") is None


def _adding(stored: Stored) -> bool:
    return (stored.get("added") or {}).get("outcome") == "unknown"


def _replacing(stored: Stored) -> bool:
    journal = stored.get("bulk_replace") or {}
    return bool(journal.get("sent")) and journal.get("request_id") is None


def _same_but_for(*names: str) -> Callable[[Any], Any]:
    """Return what compares results without these values, as well."""
    return lambda result: {name: value for name, value in _same_but_for_varying(result).items() if name not in names}


def _same_but_for_times(result: Any) -> Any:
    outcome = result.get("outcome") or {}
    return {**_same_but_for("state_after", "terminated_at")(result), "outcome": outcome.get("state")}


def _all_items(result: Any) -> Any:
    """Return the items that have an instance, from either of two tries."""
    return sorted(row["item_id"] for row in [*result["completed"], *result["already_active"]]), result["failed"]


def _all_responded(result: Any) -> Any:
    """Return what was responded to what, by either try."""
    return result["plan_hash"], result["sent"] + result["already_recorded"], result["failed"], result["unknown"]


def _state(result: Any) -> Any:
    return result["instance_id"], result["state"], result["item_status"]


def _assigned(result: Any) -> Any:
    return sorted(result["added"] + result["already_assigned"])


def _changed(result: Any) -> Any:
    return result["changed"], result["rejected"]


# --- Workflowsoft ---


WAIT = {
    "diagram": "Event planning",
    "step": "Check event",
    "mode": "reschedule",
    "poke_interval": 0.01,
    "timeout": 600,
    "retries": 3,
}


def wait(inputs: Inputs) -> Any:
    return WorkflowsoftIntegrationSensor(task_id="wait", **WAIT)


def handle(inputs: Inputs) -> Any:
    @workflowsoft_integration(**ONE_POLL)
    def longer(fields: dict[str, Any]) -> dict[str, Any]:
        # A decision that comes out otherwise when it is taken again.
        return {"Event duration": fields["Event duration"] + Decimal("30.25"), "Venue": "Main hall"}

    with DAG("faults", schedule=None):
        return longer(integration_instance_id=inputs["wait"][0]).operator


def get_fields(inputs: Inputs) -> Any:
    return WorkflowsoftGetFieldsOperator(task_id="get_fields", integration_instance_id=inputs["wait"][0], retries=3)


def update_fields(inputs: Inputs) -> Any:
    duration = str(Decimal(inputs["get_fields"]["Event duration"]) + Decimal("30.25"))
    return WorkflowsoftUpdateFieldsOperator(
        task_id="update_fields",
        integration_instance_id=inputs["wait"][0],
        fields={**inputs["get_fields"], "Event duration": duration, "Venue": "Main hall"},
        **ONE_POLL,
    )


def complete(inputs: Inputs) -> Any:
    return WorkflowsoftCompleteIntegrationOperator(
        task_id="complete", integration_instance_id=inputs["wait"][0], **ONE_POLL
    )


def start_process(inputs: Inputs) -> Any:
    return WorkflowsoftStartProcessOperator(
        task_id="start_process", diagram="Event planning", on_behalf_of="sam@example.com", retries=3
    )


def create_task(inputs: Inputs) -> Any:
    return WorkflowsoftCreateTaskOperator(
        task_id="create_task", title="Look at it", on_behalf_of="sam@example.com", retries=3
    )


def event_is_planned(emulator: Emulator) -> None:
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning")


def _received(rows: Any) -> list[dict[str, Any]]:
    """Return what came, without what was lost."""
    return [{name: value for name, value in row.items() if name != "possibly_lost"} for row in rows]


def polling(stored: Stored) -> bool:
    return (stored.get("new_integrations") or {}).get("polling_since") is not None


def _completing(stored: Stored) -> bool:
    journals = [value for key, value in stored.items() if key.startswith("completion_")]
    return any("completing" in journal for journal in journals)


def _creating(stored: Stored) -> bool:
    return "started" in (stored.get("created") or {})


def _integration_flows(mode: str) -> tuple[Flow, Flow]:
    """
    Return both ways to work on an integration step.

    Whether it is completed shows only where polls leave it there until then.
    """
    completing: Any = {"in_doubt": _completing, "is_readable": mode == LISTED, "names": r"instance \d+"}
    waiting = Task("wait", wait, in_doubt=polling, reported=_received, claims=truth.received)
    function = Flow(
        "integration step, function",
        (waiting, Task("handle", handle, instead=complete, claims=truth.handled, **completing)),
        mode,
        prepare=event_is_planned,
    )
    operators = Flow(
        "integration step, operators",
        (
            waiting,
            Task("get_fields", get_fields),
            Task("update_fields", update_fields, claims=truth.written),
            Task("complete", complete, claims=truth.completed, **completing),
        ),
        mode,
        prepare=event_is_planned,
    )
    return function, operators


def _single(task: Task, name: str | None = None, **more: Any) -> Flow:
    return Flow(name or task.name.replace("_", " "), (task,), **more)


RESPOND = Task("respond", respond, in_doubt=_responding, resolves=True, claims=truth.responded)
DECIDE = replace(RESPOND, name="decide", build=decide_in_airflow, click=CLICK)
PERFORM = Task("perform", perform, in_doubt=_sent, names=r"history of instance 56815\d", claims=truth.performed)
START = Task("start", start, in_doubt=_starting, names="item 6001", claims=truth.started)
BULK_START = Task("bulk_start", bulk_start, resolves=True, claims=truth.all_started)
BULK_RESPOND = Task(
    "bulk_respond",
    bulk_respond,
    in_doubt=_responding_in_bulk,
    resolves=True,
    names=r"instance 70000\d",
    reported=_all_responded,
    claims=truth.all_responded,
)
# Where the record cannot be read, Procore's 204 is all there is.
_UNREAD = replace(RESPOND, reported=_same_but_for("confirmed"))
_HIDDEN = replace(_UNREAD, resolves=False, is_readable=False, names="step occurrence 70000101 of instance 700001")
TERMINATE = Task("terminate", terminate, resolves=True, claims=truth.terminated)
RESTART = Task("restart", restart, resolves=True, claims=truth.restarted)
ADD_ASSIGNEES = Task(
    "add_assignees",
    add_assignees,
    in_doubt=_adding,
    names="does not show all of 90003, 90005",
    reported=_assigned,
    claims=truth.added,
)
BULK_REPLACE = Task(
    "bulk_replace",
    bulk_replace,
    in_doubt=_replacing,
    names="the list shows no new request",
    claims=truth.replaced,
)
PRESET_ASSIGNEES = Task(
    "preset_assignees", preset_assignees, names=r"preset \d+", reported=_changed, claims=truth.presets_changed
)

FLOWS = (
    *map(_single, (RESPOND, PERFORM, START, BULK_START, TERMINATE, RESTART, ADD_ASSIGNEES, BULK_REPLACE)),
    _single(PRESET_ASSIGNEES),
    _single(BULK_RESPOND, prepare=two_more_wait),
    *_integration_flows(CONSUMED),
    *_integration_flows(LISTED),
    _single(
        Task(
            "start_process",
            start_process,
            in_doubt=_creating,
            is_readable=False,
            names="Look for a process of diagram 'Event planning'",
            claims=truth.process_started,
        )
    ),
    _single(
        Task(
            "create_task",
            create_task,
            in_doubt=_creating,
            is_readable=False,
            names="Look for a task 'Look at it'",
            claims=truth.task_created,
        )
    ),
    # The decision of a function.
    _single(replace(RESPOND, build=respond_by_function, reported=_same_but_for("comment")), "respond, function"),
    _single(replace(RESPOND, build=respond_with_file), "respond, with a file"),
    # A person decides in Airflow: while the task is deferred, or just before.
    _single(DECIDE, "decide in Airflow"),
    _single(replace(DECIDE, is_click_late=True), "decide in Airflow, late"),
    # Waits without a worker: a try starts what it waits for, a trigger waits, and the resumed try goes on.
    _single(
        replace(PERFORM, build=perform_and_wait, people=others_perform, reported=_same_but_for_times),
        "perform, deferrable",
    ),
    _single(
        replace(START, build=start_and_wait, people=others_complete, reported=_same_but_for_times), "start, deferrable"
    ),
    _single(
        replace(BULK_START, build=bulk_start_deferrable, people=an_hour_passes),
        "bulk start, deferrable",
        flags={"operation_delay": 1800},
    ),
    _single(
        replace(BULK_REPLACE, build=bulk_replace_deferrable, people=an_hour_passes),
        "bulk replace, deferrable",
        flags={"operation_delay": 1800},
    ),
    Flow(
        "respond, deferrable sensor",
        (RESPOND, Task("wait_for_end", wait_for_end, people=others_complete, reported=_state, claims=truth.waited)),
    ),
    # The other side of what the documents leave open.
    _single(RESPOND, "respond, idempotency honoured", flags={"idempotency": "honoured"}),
    _single(BULK_START, "bulk start, idempotency honoured", flags={"idempotency": "honoured"}),
    # A response that does not show cannot be distinguished from none, once its step is over.
    _single(_HIDDEN, "respond, responses hidden", flags={"hidden_events": "responses"}),
    _single(_HIDDEN, "respond, steps hidden", flags={"hidden_events": "response_steps"}),
    # After an unknown outcome.
    _single(_UNREAD, "respond, reading rejected", kind=REJECTED_READS, records_doubt=True),
    _single(PERFORM, "perform, reading rejected", kind=REJECTED_READS, records_doubt=True),
    _single(START, "start, reading rejected", kind=REJECTED_READS, records_doubt=True),
    _single(BULK_START, "bulk start, reading rejected", kind=REJECTED_READS),
    _single(TERMINATE, "terminate, reading rejected", kind=REJECTED_READS),
    _single(RESTART, "restart, reading rejected", kind=REJECTED_READS),
    _single(ADD_ASSIGNEES, "add assignees, reading rejected", kind=REJECTED_READS, records_doubt=True),
    # A worker goes on that Airflow took for dead, and has replaced. Not of create task, start process and bulk replace:
    # there the API takes the same order twice, and a try that has read before the other one writes cannot know of it.
    # Nor of a sensor whose polls consume: what the suspended one has received, it alone knows.
    _single(RESPOND, "respond, two tries", kind=TWO_TRIES),
    _single(BULK_RESPOND, "bulk respond, two tries", kind=TWO_TRIES, prepare=two_more_wait),
    _single(PERFORM, "perform, two tries", kind=TWO_TRIES),
    # What the other try has started is adopted: the safe side, for `cancel_on_kill` leaves it alone.
    _single(replace(START, reported=_same_but_for("adopted")), "start, two tries", kind=TWO_TRIES),
    _single(replace(BULK_START, reported=_all_items), "bulk start, two tries", kind=TWO_TRIES),
    _single(TERMINATE, "terminate, two tries", kind=TWO_TRIES),
    _single(RESTART, "restart, two tries", kind=TWO_TRIES),
    _single(ADD_ASSIGNEES, "add assignees, two tries", kind=TWO_TRIES),
    # Procore fails at one of the presets once, before it changes it: the other one is changed, and a retry repairs it.
    _single(PRESET_ASSIGNEES, "preset assignees, one fails", prepare=one_change_fails),
    # What the other try has changed is unchanged.
    _single(
        replace(PRESET_ASSIGNEES, reported=lambda result: result["rejected"]),
        "preset assignees, two tries",
        kind=TWO_TRIES,
    ),
)


def find(name: str, mode: str | None = None) -> list[Flow]:
    """Return the flow of this name, in each of its modes; else all whose names contain this text."""
    found = [flow for flow in FLOWS if flow.name == name] or [flow for flow in FLOWS if name in flow.name]
    return [flow for flow in found if mode in (None, flow.mode)]
