"""The sensor for Workflowsoft's integration steps, which receives new instances and loses none without a report."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    ConfigurationError,
    OutcomeUnknown,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.links.airflow import ApprovalsLink
from airflow_provider_workflows.links.workflowsoft import WorkflowsoftItemLink
from airflow_provider_workflows.operators.dry_run import DryRunParameter
from airflow_provider_workflows.rules.parameters import check_required, require_exactly_one, str_id, whole_number
from airflow_provider_workflows.rules.poll_journal import (
    LOSS_ADVICE,
    MAX_INSTANCES,
    MAX_STORE_ATTEMPTS,
    PollJournal,
    name_instances,
)
from airflow_provider_workflows.rules.workflowsoft import UnreadableInstances
from airflow_provider_workflows.sensors.base import WorkflowsSensor

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.rules.poll_journal import Instance
    from airflow_provider_workflows.triggers.base import WaitTrigger
    from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger
    from airflow_provider_workflows.version_compat import StateStore

JOURNAL_TTL = timedelta(days=365)  # after the deadline, because a user may clear the task long after it has failed
JOURNAL = "new_integrations"  # key in the part of the task state store that survives a clear of the task
STARTED = "new_integrations_started"  # key in the part that Airflow deletes when the task is cleared


class WorkflowsoftIntegrationSensor(DryRunParameter, WorkflowsSensor):
    """
    Wait for new integration instances of a step, and return each of them once over all tries of the task.

    Workflowsoft does not document whether polling removes a new instance, so the connection's extra says it. With
    ``consumed_on_read`` (the default) every poll runs on a worker, which records it in Airflow's task state store
    (3.3+) before and after: a retry delivers what an earlier try has received, a cleared task delivers what was never
    delivered, and both report a poll whose response was lost. With ``listed_until_completed`` a deferred sensor polls
    in the triggerer, and polls return an instance until it is completed. With either setting, let only one DAG run at a
    time wait for a step.

    Returns a list, usually of one row ``{integration_instance_id, process_instance_id, diagram_id, step_id, step,
    possibly_lost}``, to map tasks over; the same in every mode. Ids are strings; ``diagram_id`` and ``step`` are None
    with ``step_id``. ``possibly_lost`` are periods ``{since, until}``, ISO-8601 times in UTC, in which the response to
    a poll was lost, and possibly an instance with it; the first row has all of them.

    :param step: Title or id of the integration step in its process diagram (templated).
    :param diagram: Title or id of the process diagram; goes with ``step`` (templated).
    :param step_id: The step's id instead of both, without a lookup (templated).
    :param max_instances: Number of instances to take, 1 to 500; default 1. The sensor polls again until it has this
        number, or nothing new comes. With ``consumed_on_read`` one response can bring more, and the list is longer
        (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``; its extra ``allow_consume`` must be true
        (templated).
    :param poke_interval: Seconds, or a timedelta, between two polls: at least 15, plus a random part of up to 20
        percent; by default ``[workflows] poke_interval``, else 60.
    :param timeout: Seconds, or a timedelta, until the wait fails, or skips with ``soft_fail``; by default
        ``[sensors] default_timeout``.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :param dry_run: Whether to fail instead of polling if a poll consumes instances; also if the connection's extra
        ``dry_run`` is true (templated).
    :raises ConfigurationError: a parameter is wrong; polling is not allowed; no such diagram or step, or several
        (they are listed).
    :raises NotFound: Workflowsoft does not have ``step_id``.
    :raises UnexpectedResponse: for longer than ``[workflows] rejection_patience`` all responses were malformed, without
        an instance that can be read; instances in them are reported as possibly lost.
    """

    label_parameters = {"step": "step", "step id": "step_id"}
    template_fields: Sequence[str] = ("workflowsoft_conn_id", "diagram", "step", "step_id", "max_instances", "dry_run")
    operator_extra_links = (WorkflowsoftItemLink(), ApprovalsLink())
    returns_mapping = False

    def __init__(
        self,
        *,
        step: str | int | None = None,
        diagram: str | int | None = None,
        step_id: str | int | None = None,
        max_instances: int | str = 1,
        workflowsoft_conn_id: str = "workflowsoft_default",
        poke_interval: timedelta | float | None = None,
        **kwargs: Any,
    ):
        super().__init__(poke_interval=poke_interval, **kwargs)
        self.step = step
        self.diagram = diagram
        self.step_id = step_id
        self.max_instances = max_instances
        self.workflowsoft_conn_id = workflowsoft_conn_id
        self._requested_interval: float = self.poke_interval
        self._interval_is_given = poke_interval is not None
        self._min_interval = 0.0
        self._journal: PollJournal | None = None  # loaded by the first poke
        self._store: StateStore | None = None  # of the journal; None before Airflow 3.3
        self._journal_of_event: Mapping[str, Any] | None = None
        self._is_resumed = False
        self._found: Mapping[str, str | None] | None = None  # the step that was looked up, and its server

    @cached_property
    def hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)

    def build_trigger(self) -> WorkflowsoftIntegrationWaitTrigger:
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger

        require_exactly_one(step=self.step, step_id=self.step_id)
        require_exactly_one(diagram=self.diagram, step_id=self.step_id)
        max_instances = self._checked_max_instances()
        self.start_dry_run()
        self.hook.check_may_consume()
        return WorkflowsoftIntegrationWaitTrigger(
            workflowsoft_conn_id=self.workflowsoft_conn_id,
            diagram=str_id(self.diagram),
            step=str_id(self.step),
            **(self._found or {"step_id": str_id(self.step_id)}),
            max_instances=max_instances,
            poll_interval=self._checked_interval(),
            deadline=self.deadline,
        )

    @property
    def journal(self) -> PollJournal:
        """The journal of this task's polls."""
        return PollJournal.from_dict(self._journal_of_event) if self._journal is None else self._journal

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        return dict(result["instances"][0])  # the link can show only one

    def finish(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = [{**ids, **result["place"], "possibly_lost": []} for ids in result["instances"]]
        rows[0]["possibly_lost"] = result["possibly_lost"]
        if self.journal.received and not self.journal.delivered:
            self._persist_result(self.journal._replace(delivered=True))
        return rows

    def restore_wait(self, context: Context, event: Mapping[str, Any]) -> None:
        super().restore_wait(context, event)
        self._is_resumed = True
        self._found, self._journal_of_event = event.get("found"), event.get("journal")

    def wake_up_event(self) -> dict[str, Any]:
        # The event carries the journal if there is no store for it.
        if self._journal is None:
            journal = self._journal_of_event
        else:
            journal = self._journal.to_dict() if self._store is None else None
        return {**super().wake_up_event(), "found": self._found, "journal": journal}

    def deferred_trigger(self, trigger: WaitTrigger) -> BaseTrigger:
        from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger  # likewise

        assert isinstance(trigger, WorkflowsoftIntegrationWaitTrigger)
        self._found = trigger.found
        return trigger if self.hook.lists_until_completed else self.wake_up()

    def prepare_poke(self, context: Context) -> None:
        if self._journal is not None:
            return
        self.poke_interval = self._checked_interval() * random.uniform(1.0, 1.2)
        self._store = version_compat.lasting_state_store(context)
        self._journal = PollJournal.from_dict(
            self._journal_of_event if self._store is None else self._store.get(JOURNAL)
        )
        since_clear = version_compat.task_state_store(context)
        if since_clear is not None and since_clear.get(STARTED) is None:
            # The first try of the run, or the first one since the task was cleared.
            if self._journal.delivered:
                instances = self._journal.instances
                self._persist(self._journal.forget(self._journal.received, self._journal.possibly_lost))
                self.log.warning(
                    "Before this task was cleared it delivered %s, which it does not deliver again. If a downstream "
                    "task has not received one of them, pass its id to the operators by hand.",
                    name_instances(instances),
                )
            since_clear.set(STARTED, True, retention=self._retention)
        if self._journal.polling_since is not None:
            self._record_loss("The worker died during the poll.")
        # Once per wait: in reschedule mode each poke is a new execution.
        if not (context.get("task_reschedule_count") or self._is_resumed or self.hook.lists_until_completed):
            self._warn_of_losses()

    def _warn_of_losses(self) -> None:
        if self._store is None:
            self.log.warning(
                "This Airflow version has no task state store (3.3+), so polls are not recorded: if the worker dies "
                "after a poll, the received instances are lost without a report. Use Airflow 3.3 or newer."
            )
        elif not self.retries:
            self.log.warning(
                "This sensor removes instances from Workflowsoft and has retries=0: if its worker dies, the instances "
                "that it has received are delivered only after the task was cleared. Set retries."
            )

    def poll_on_worker(self, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        from airflow_provider_workflows.triggers.workflowsoft import WorkflowsoftIntegrationWaitTrigger  # likewise

        assert isinstance(trigger, WorkflowsoftIntegrationWaitTrigger)
        how = "from an earlier try of this task, without a poll"
        trigger.failures = self.journal.failures
        if not self.journal.received:
            if self.hook.lists_until_completed:
                try:
                    return super().poll_on_worker(trigger)
                finally:
                    if trigger.failures != self.journal.failures:
                        self._persist(self.journal._replace(failures=trigger.failures))
            try:
                trigger.locate(self.hook)
                trigger.last_poll = trigger.describe(trigger.drain(lambda: self._poll(trigger)))
                self.log.info("%s", trigger.last_poll)
            except OutcomeUnknown as lost:  # logged as a suspected loss; without its advice, which is for actions
                self._last_error = str(lost).removesuffix(lost.advice).strip()
                self.honour_wait(lost)
                self.log.info("The wait continues.")
            except UnreadableInstances:  # logged as a suspected loss
                if not self.journal.received:
                    raise
            how = f"from step {trigger.name}"
        instances, periods = self.journal.instances, list(self.journal.possibly_lost)
        if not instances:
            return None
        result = {"instances": instances, "place": dict(self.journal.place), "possibly_lost": periods}
        return {"action": "succeed", "result": result, "reason": f"Received {how}: {name_instances(instances)}."}

    def _poll(self, trigger: WorkflowsoftIntegrationWaitTrigger) -> list[dict[str, str | None]]:
        """Poll once, and record it in the journal before and after."""
        self.hook.get_api_token()  # before the poll, because a sign-in that fails is not a lost response
        try:
            self._persist(self.journal.poll_started(trigger.place, datetime.now(timezone.utc)))
        except Exception as fault:  # any failure of the store: instances of an earlier poll must still be delivered
            if not self.journal.received:
                raise
            # Raised as an error that ends the polling, so what was received before is delivered.
            raise WorkflowsError(f"The start of the poll could not be stored: {fault}") from fault
        try:
            instances = trigger.poll(self.hook)
        except NOTHING_DONE:
            self._persist_result(self.journal.poll_ended())
            raise
        except UnreadableInstances as malformed:
            self._log_received(trigger, malformed.instances)
            self._record_loss(malformed, malformed.instances)
            raise
        except AirflowTaskTimeout:
            self._record_loss("The task's execution_timeout ended the poll.")
            raise
        except Exception as fault:  # after any error the response may be lost; it is raised again
            self._record_loss(fault, failures=trigger.failures if isinstance(fault, ServerError) else 0)
            raise
        self._log_received(trigger, instances)
        self._persist_result(self.journal.poll_ended(instances))
        return instances

    def _log_received(self, trigger: WorkflowsoftIntegrationWaitTrigger, instances: Sequence[Instance]) -> None:
        # Before the journal is written: if that fails, the log has the ids.
        if instances:
            self.log.info("Received at step %s: %s.", trigger.name, name_instances(instances))

    def _record_loss(self, why: str | Exception, instances: Sequence[Instance] = (), failures: int = 0) -> None:
        """Record and report that the response to the running poll was lost, except for these instances."""
        from airflow_provider_workflows.triggers.workflowsoft import report_loss  # likewise

        since, now = self.journal.polling_since, datetime.now(timezone.utc)
        self._persist_result(self.journal.poll_lost(now, instances, failures))
        report_loss(self.log, self.journal.place["step_id"], why, since, now)

    def _persist(self, journal: PollJournal) -> None:
        """Store the journal at once, if there is a store; raise if that fails."""
        if self._store is not None:
            self._store.set(JOURNAL, journal.to_dict(), retention=self._retention)
        self._journal = journal

    def _persist_result(self, journal: PollJournal) -> None:
        """Store the journal after a poll, with retries for about a minute; if they fail, only this try has it."""
        for attempt in range(MAX_STORE_ATTEMPTS):
            try:
                self._persist(journal)
                break
            except Exception as fault:  # any failure of the store: these instances are not returned by another poll
                if attempt == MAX_STORE_ATTEMPTS - 1:
                    self._journal = journal
                    self.log.error(
                        "Storing the result of a poll in the task state store failed: %s. %s. If this try delivers no "
                        "instance of it, pass its id to the operators by hand.",
                        *(name_instances(journal.instances), fault),
                    )
                    return
                time.sleep(2.0**attempt)  # on the worker, because a deferral would need the same store
        if self._store is not None and (unstored := journal.instances[MAX_INSTANCES:]):
            self.log.warning(
                "The task state store has only the first %d of %d received instances, so a retry of this task would "
                "not deliver these: %s.",
                *(MAX_INSTANCES, len(journal.received), name_instances(unstored)),
            )

    @property
    def _retention(self) -> timedelta:
        return timedelta(seconds=self.timeout) + JOURNAL_TTL

    def time_out(self, last_poll: str) -> NoReturn:
        sentences = [last_poll]
        if lost := self.journal.possibly_lost:
            periods = ", ".join(f"{period['since']} to {period['until']}" for period in lost)
            sentences.append(f"The responses to some polls were lost: {periods}. {LOSS_ADVICE}")
        super().time_out(" ".join(sentences).strip())

    def seconds_to_next_poll(self, interval: float) -> float:
        # exponential_backoff starts with shorter delays, and max_wait may be shorter, too.
        return super().seconds_to_next_poll(max(interval, self._min_interval))

    def _checked_interval(self) -> float:
        shortest = self._min_interval = self.hook.shortest_poll
        if self._interval_is_given and self._requested_interval < shortest:
            raise ConfigurationError(
                f"poke_interval must be at least {shortest:g} seconds, because Workflowsoft recommends polling every "
                f"few minutes; got {self._requested_interval:g}."
            )
        return max(self._requested_interval, shortest)

    def _checked_max_instances(self) -> int:
        check_required(max_instances=self.max_instances)
        number = whole_number("max_instances", self.max_instances)
        if number > MAX_INSTANCES:
            raise ConfigurationError(
                f"max_instances must be at most {MAX_INSTANCES}; got {number}. The sensor stores received instances in "
                "Airflow's task state store, which accepts 64 KB. Let several runs take them."
            )
        return number
