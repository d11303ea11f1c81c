"""Tasks that do what none may do: with them the harness must find what it is there to find."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow_provider_workflows.exceptions import OutcomeUnknown, StepMoved
from airflow_provider_workflows.operators.procore import ProcoreRespondOperator
from airflow_provider_workflows.operators.workflowsoft import WorkflowsoftCreateTaskOperator
from airflow_provider_workflows.sensors.workflowsoft import WorkflowsoftIntegrationSensor

from . import truth
from .flows import CONSUMED, ONE_POLL, TOOL, WAIT, Flow, Inputs, Task, event_is_planned, polling


class Forgets(WorkflowsoftCreateTaskOperator):
    """Records nothing."""

    def act(self, context: Any) -> dict[str, Any]:
        task = self.hook.create_task(self.title, on_behalf_of="12")
        return {"title": task["title"]}


class SaysDone(WorkflowsoftCreateTaskOperator):
    """Records before its write action what it may record only afterwards."""

    def act(self, context: Any) -> dict[str, Any]:
        store = context["task_state_store"]
        if store.get("done.0") is None:
            store.set("done.0", True)
            self.hook.create_task(self.title, on_behalf_of="12")
        return {"title": self.title}


class SaysNothing(WorkflowsoftIntegrationSensor):
    """Records what it has lost, and does not report it."""

    def _record_loss(self, why: Any, instances: Any = (), failures: int = 0) -> None:
        self._persist(self._journal.poll_lost(datetime.now(timezone.utc), instances, failures))


class TakesTheCredit(ProcoreRespondOperator):
    """Says of each response that this try has sent it."""

    def act(self, context: Any) -> Any:
        return {**(super().act(context) or {}), "already_recorded": False}


class Denies(WorkflowsoftCreateTaskOperator):
    """Reports that nothing was done where the outcome is unknown."""

    def act(self, context: Any) -> Any:
        try:
            return super().act(context)
        except OutcomeUnknown as unknown:
            raise StepMoved("It is too late for a task; nothing was sent.") from unknown


def forget(inputs: Inputs) -> Any:
    return Forgets(task_id="careless", title="Look at it", on_behalf_of="12")


def say_done(inputs: Inputs) -> Any:
    return SaysDone(task_id="careless", title="Look at it", on_behalf_of="12")


def say_nothing(inputs: Inputs) -> Any:
    return SaysNothing(task_id="careless", **WAIT)


def take_the_credit(inputs: Inputs) -> Any:
    return TakesTheCredit(task_id="careless", tool_type=TOOL, item_id="5001", option="Approve", **ONE_POLL)


def deny(inputs: Inputs) -> Any:
    return Denies(task_id="careless", title="Look at it", on_behalf_of="12", retries=3)


FORGETS = Flow("forgets", (Task("careless", forget, is_readable=False),))
SAYS_DONE = Flow("says done", (Task("careless", say_done, is_readable=False),))
SAYS_NOTHING = Flow(
    "says nothing", (Task("careless", say_nothing, in_doubt=polling),), CONSUMED, prepare=event_is_planned
)
TAKES_THE_CREDIT = Flow("takes the credit", (Task("careless", take_the_credit, claims=truth.responded),))
DENIES = Flow("denies", (Task("careless", deny, is_readable=False),))
