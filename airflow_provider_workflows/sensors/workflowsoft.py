"""Sensors for Workflowsoft's API."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    RateLimited,
)
from airflow_provider_workflows.links.workflowsoft import WorkflowsoftItemLink
from airflow_provider_workflows.rules.parameters import one_of, text_id
from airflow_provider_workflows.sensors.base import KEPT_AFTER_DEADLINE, WorkflowsSensor
from airflow_provider_workflows.triggers.base import PASSING_FAULTS
from airflow_provider_workflows.triggers.workflowsoft import (
    WorkflowsoftIntegrationWaitTrigger,
    WorkflowsoftPauseTrigger,
)
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.triggers.base import WaitTrigger
    from airflow_provider_workflows.version_compat import StateStore

JOURNAL = "new_integrations"  # key in the task state store
# Only these say for certain that a poll took nothing with it. A 500 or an unreadable answer does not.
NOTHING_DELIVERED = (
    AuthenticationError,
    ConnectionFailed,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
)


class WorkflowsoftIntegrationSensor(WorkflowsSensor):
    """
    Waits for a new integration instance of one step and takes it over.

    Nobody documents whether reading a new instance takes it out of Workflowsoft, so the connection says it:
    with ``consumed_on_read`` (the default) every poll runs on a worker and is written down in Airflow's task
    state store (3.3+) before and after, so that a retry hands on what an earlier try received and reports a
    poll that never got its answer. With ``kept_until_completed`` a deferred sensor polls in the triggerer,
    and the same instance is found again until it is completed: let one DAG run at a time wait for a step.

    Returns ``{integration_instance_id, process_instance_id, diagram_id, step_id, step, also_delivered,
    suspected_lost}``, the same in every mode. ``also_delivered`` are further instances
    ``{integration_instance_id, process_instance_id}`` that the same poll took out and nobody will see again;
    ``suspected_lost`` are stretches ``{since, until}`` in which a poll's answer was lost, and perhaps an
    instance with it.

    :param step: Title or id of the integration step in its process diagram (templated).
    :param diagram: Title or id of the process diagram; goes with ``step`` (templated).
    :param step_id: The step's id instead of both, without looking them up (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``; its extra ``allow_consume`` must
        be true (templated).
    :raises ConfigurationError: polling is not allowed; no such diagram or step, or several (they are listed).
    """

    template_fields: Sequence[str] = ("workflowsoft_conn_id", "diagram", "step", "step_id")
    operator_extra_links = (WorkflowsoftItemLink(),)

    def __init__(
        self,
        *,
        step: str | int | None = None,
        diagram: str | int | None = None,
        step_id: str | int | None = None,
        workflowsoft_conn_id: str = "workflowsoft_default",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.step = step
        self.diagram = diagram
        self.step_id = step_id
        self.workflowsoft_conn_id = workflowsoft_conn_id
        self._journal = Journal(None)
        self._place: Mapping[str, str | None] | None = None

    @cached_property
    def hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)

    def build_trigger(self) -> WorkflowsoftIntegrationWaitTrigger:
        one_of(step=self.step, step_id=self.step_id)
        one_of(diagram=self.diagram, step_id=self.step_id)
        self.hook.check_may_consume()
        place = self._place or {"step": text_id(self.step), "step_id": text_id(self.step_id)}
        return WorkflowsoftIntegrationWaitTrigger(
            workflowsoft_conn_id=self.workflowsoft_conn_id,
            diagram=text_id(self.diagram),
            **place,
            poll_interval=self.poke_interval,
            deadline=self.deadline,
        )

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        return {name: result[name] for name in ("integration_instance_id", "process_instance_id")}

    def execute(self, context: Context) -> Any:
        self._open_journal(context)
        if task_state_store(context) is None and not self.hook.keeps_until_completed:
            self.log.warning(
                "This Airflow has no task state store (3.3+), so polls are not written down: an instance "
                "that was read by a task which then died is lost without a trace."
            )
        return super().execute(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        if event is None or event.get("status") != "look":
            return super().execute_complete(context, event)
        self._deadline = datetime.fromisoformat(event["deadline"])
        self._place = event["place"]
        self._open_journal(context, event["journal"])
        return self.look_or_defer(context)

    def deferred_trigger(self, trigger: WaitTrigger) -> BaseTrigger:
        if self.hook.keeps_until_completed:
            return trigger
        # What a poll has read must be written down at once, which only a worker can do.
        assert isinstance(trigger, WorkflowsoftIntegrationWaitTrigger)
        pause = timedelta(seconds=self.poke_interval * random.uniform(0.9, 1.1))
        assert self._deadline is not None
        # The event carries all, for dag.test() drops the keyword arguments of a deferral.
        return WorkflowsoftPauseTrigger(
            until=min(datetime.now(timezone.utc) + pause, self._deadline).isoformat(),
            event={
                "status": "look",
                "deadline": self.deadline,
                "place": None if trigger.step_id is None else trigger.place,
                "journal": self._journal.entry,
            },
        )

    def _look(self, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        if self.hook.keeps_until_completed:
            return super()._look(trigger)
        assert isinstance(trigger, WorkflowsoftIntegrationWaitTrigger)
        received = self._journal.received
        if received is not None:
            return _taken_over(received, "received by an earlier try of this task; nothing was polled")
        try:
            self._poll(trigger)
        except OutcomeUnknown as lost:
            self.log.warning("A poll's answer was lost, and with it perhaps an instance. %s", lost)
        except PASSING_FAULTS as fault:
            self.log.warning("%s Looking again at the next poke.", fault)
        received = self._journal.received
        return None if received is None else _taken_over(received, f"new at step {trigger.name}")

    def _poll(self, trigger: WorkflowsoftIntegrationWaitTrigger) -> None:
        """Poll once between two lines of the journal; a lost answer leaves the first one standing alone."""
        step_id = trigger.locate(self.hook)
        lost_since = self._journal.begin()
        if lost_since is not None:
            self.log.warning(
                "A poll of step %s after %s never got its answer. If it took an integration instance out of "
                "Workflowsoft, nobody works on that one: compare with the running processes there.",
                trigger.name,
                lost_since,
            )
        try:
            instances = self.hook.poll_new_integrations(step_id, is_known=trigger.diagram_id is not None)
        except NOTHING_DELIVERED:
            self._journal.end(None)
            raise
        verdict = trigger.decide(instances)
        self._journal.end(None if verdict is None else {**verdict.result, "also_delivered": instances[1:]})
        self.log.info("%s", trigger.describe(instances))

    def _open_journal(self, context: Context, entry: Mapping[str, Any] | None = None) -> None:
        retention = timedelta(seconds=self.timeout) + KEPT_AFTER_DEADLINE
        self._journal = Journal(task_state_store(context), entry, retention)


class Journal:
    """
    What one task knows of its polls, kept in its task state store so that a retry knows it too.

    :param store: The task's store, or None to keep it in memory only.
    :param entry: What is known already, where there is no store.
    :param retention: How long the store keeps it.
    """

    def __init__(
        self,
        store: StateStore | None,
        entry: Mapping[str, Any] | None = None,
        retention: timedelta = KEPT_AFTER_DEADLINE,
    ):
        self._store = store
        self._retention = retention
        self.entry: dict[str, Any] = dict((entry if store is None else store.get(JOURNAL)) or {})

    @property
    def received(self) -> dict[str, Any] | None:
        """The result of a poll that found an instance."""
        return self.entry.get("received")

    def begin(self) -> str | None:
        """Note that a poll begins; return since when an earlier one waits for its answer, if one does."""
        now = datetime.now(timezone.utc).isoformat()
        lost_since = self.entry.get("lost_since") or self.entry.get("polling_since")
        self._keep(polling_since=now, lost_since=lost_since)
        return lost_since

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Note what a poll has delivered, or that it delivered nothing for certain."""
        suspected_lost = list(self.entry.get("suspected_lost", []))
        if self.entry["lost_since"] is not None:
            suspected_lost.append({"since": self.entry["lost_since"], "until": self.entry["polling_since"]})
        self._keep(
            polling_since=None,
            lost_since=None,
            suspected_lost=suspected_lost,
            received=None if result is None else {**result, "suspected_lost": suspected_lost},
        )

    def _keep(self, **changes: Any) -> None:
        self.entry = {**self.entry, **changes}
        if self._store is not None:
            self._store.set(JOURNAL, self.entry, retention=self._retention)


def _taken_over(result: Mapping[str, Any], how: str) -> dict[str, Any]:
    reason = f"Integration instance {result['integration_instance_id']}: {how}."
    return {"word": "succeed", "result": dict(result), "reason": reason}
