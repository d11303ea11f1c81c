"""Sensors for Workflowsoft's API."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import NOTHING_DONE, ConfigurationError, OutcomeUnknown, ServerError
from airflow_provider_workflows.links.workflowsoft import WorkflowsoftItemLink
from airflow_provider_workflows.rules.parameters import check_required, one_of, text_id
from airflow_provider_workflows.rules.workflowsoft import UnreadableInstances
from airflow_provider_workflows.sensors.base import WorkflowsSensor
from airflow_provider_workflows.triggers.workflowsoft import (
    MOST_INSTANCES,
    MOST_STRETCHES,
    WHAT_TO_DO,
    WorkflowsoftIntegrationWaitTrigger,
    named,
)

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.triggers.base import WaitTrigger
    from airflow_provider_workflows.version_compat import StateStore

    Instances = Sequence[Mapping[str, str | None]]

JOURNAL_KEPT = timedelta(days=365)  # after the deadline; a person may clear the task long after it has failed
JOURNAL = "new_integrations"  # key in the task state store, which a clear leaves alone
STARTED = "new_integrations_started"  # likewise, but forgotten by a clear


class WorkflowsoftIntegrationSensor(WorkflowsSensor):
    """
    Waits for new integration instances of one step and takes them over, each once over all tries of the task.

    Nobody documents whether reading a new instance takes it out of Workflowsoft, so the connection says it. With
    ``consumed_on_read`` (the default) every poll runs on a worker and is written down in Airflow's task state store
    (3.3+) before and after: a retry delivers what an earlier try received, a task that was cleared what was never
    delivered, and both report a poll that never got its answer. With ``kept_until_completed`` a deferred sensor polls
    in the triggerer, and an instance is found again until it is completed. Either way let one DAG run at a time wait
    for a step.

    Returns a list, usually of one row ``{integration_instance_id, process_instance_id, diagram_id, step_id, step,
    suspected_lost}``, to map tasks over; the same in every mode. Ids are strings; ``diagram_id`` and ``step`` are None
    with ``step_id``. ``suspected_lost`` are stretches ``{since, until}``, ISO-8601 times in UTC, in which a poll's
    answer was lost and perhaps an instance with it; the first row has them all.

    :param step: Title or id of the integration step in its process diagram (templated).
    :param diagram: Title or id of the process diagram; goes with ``step`` (templated).
    :param step_id: The step's id instead of both, without looking them up (templated).
    :param max_instances: How many to take, 1 to 500; default 1. The sensor polls again until nothing new comes or so
        many are there. Where reading consumes, one answer can bring more, and then the list is longer (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``; its extra ``allow_consume`` must be true
        (templated).
    :param poke_interval: Seconds, or a timedelta, between two polls: at least 15, and up to a fifth more by chance;
        by default ``[workflows] poke_interval``, else 60.
    :param timeout: Seconds, or a timedelta, until the wait fails, or skips with ``soft_fail``; by default
        ``[sensors] default_timeout``.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: a parameter is wrong; polling is not allowed; no such diagram or step, or several
        (they are listed).
    :raises NotFound: Workflowsoft does not know ``step_id``.
    :raises ContractError: polls had a malformed response, in which no instance can be read, for as long as
        ``[workflows] rejection_patience`` says; what came with them is a suspected loss.
    """

    template_fields: Sequence[str] = ("workflowsoft_conn_id", "diagram", "step", "step_id", "max_instances")
    operator_extra_links = (WorkflowsoftItemLink(),)
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
        self._asked_interval: float = self.poke_interval
        self._interval_is_given = poke_interval is not None
        self._shortest_interval = 0.0
        self._journal: Journal | None = None
        self._carried: Mapping[str, Any] | None = None  # what an event brought of it
        self._is_resumed = False
        self._place: Mapping[str, str | None] | None = None

    @cached_property
    def hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)

    def build_trigger(self) -> WorkflowsoftIntegrationWaitTrigger:
        one_of(step=self.step, step_id=self.step_id)
        one_of(diagram=self.diagram, step_id=self.step_id)
        max_instances = self._checked_max_instances()
        self.hook.check_may_consume()
        place = self._place or {"step": text_id(self.step), "step_id": text_id(self.step_id)}
        return WorkflowsoftIntegrationWaitTrigger(
            workflowsoft_conn_id=self.workflowsoft_conn_id,
            diagram=text_id(self.diagram),
            **place,
            max_instances=max_instances,
            poll_interval=self._checked_interval(),
            deadline=self.deadline,
        )

    @property
    def journal(self) -> Journal:
        """What the task knows of its polls."""
        return Journal(None, self._carried) if self._journal is None else self._journal

    def item_ids(self, result: Mapping[str, Any]) -> dict[str, str | None]:
        return dict(result["instances"][0])  # a link has room for one

    def finish(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        rows = [{**ids, **result["place"], "suspected_lost": []} for ids in result["instances"]]
        rows[0]["suspected_lost"] = result["suspected_lost"]
        self.journal.mark_delivered()
        return rows

    def restore_wait(self, context: Context, event: Mapping[str, Any]) -> None:
        super().restore_wait(context, event)
        self._is_resumed = True
        self._place, self._carried = event.get("place"), event.get("journal")

    def wake_up_event(self) -> dict[str, Any]:
        # What a poll has read must be written down at once, which only a worker can do.
        journal = self._carried if self._journal is None else None if self._journal.is_kept else self._journal.entry
        return {**super().wake_up_event(), "place": self._place, "journal": journal}

    def deferred_trigger(self, trigger: WaitTrigger) -> BaseTrigger:
        assert isinstance(trigger, WorkflowsoftIntegrationWaitTrigger)
        self._place = None if trigger.step_id is None else trigger.place
        return trigger if self.hook.keeps_until_completed else self.wake_up()

    def prepare_poke(self, context: Context) -> None:
        if self._journal is not None:
            return
        self.poke_interval = self._checked_interval() * random.uniform(1.0, 1.2)
        retention = timedelta(seconds=self.timeout) + JOURNAL_KEPT
        self._journal = Journal(version_compat.lasting_state_store(context), self._carried, retention)
        since_clear = version_compat.task_state_store(context)
        if since_clear is not None and since_clear.get(STARTED) is None:
            # The first try of all, or the first since the task was cleared.
            if instances := self._journal.start_after_clear():
                self.log.warning(
                    "Before this task was cleared it delivered %s. They are not delivered again. Where a task after it "
                    "never got one, give its id to the operators by hand.",
                    named(instances),
                )
            since_clear.set(STARTED, True, retention=retention)
        if self._journal.is_polling:
            self._lose("The worker died in it.")
        # In reschedule mode each poke is an execution of its own.
        if not (context.get("task_reschedule_count") or self._is_resumed or self.hook.keeps_until_completed):
            self._warn_of_losses(self._journal)

    def _warn_of_losses(self, journal: Journal) -> None:
        if not journal.is_kept:
            self.log.warning(
                "This Airflow has no task state store (3.3+), so polls are not written down: an instance "
                "that was read by a task which then died is lost without a trace."
            )
        elif not self.retries:
            self.log.warning(
                "This sensor takes instances out of Workflowsoft and has retries=0: if its worker dies, what it "
                "has received is delivered only after a person has cleared the task. Set retries."
            )

    def poll_on_worker(self, trigger: WaitTrigger) -> Mapping[str, Any] | None:
        assert isinstance(trigger, WorkflowsoftIntegrationWaitTrigger)
        journal = self.journal
        how = "received by an earlier try of this task; nothing was polled"
        trigger.failures = journal.failures
        if not journal.received:
            if self.hook.keeps_until_completed:
                try:
                    return super().poll_on_worker(trigger)
                finally:
                    journal.note_failures(trigger.failures)
            try:
                trigger.locate(self.hook)
                trigger.last_look = trigger.describe(trigger.drain(lambda: self._poll(trigger)))
                self.log.info("%s", trigger.last_look)
            except OutcomeUnknown as lost:  # was said as a suspected loss; its advice is for actions
                self._last_error = str(lost).removesuffix(lost.advice).strip()
                self.log.info("The wait goes on.")
            except UnreadableInstances:  # was said, too
                if not journal.received:
                    raise
            how = f"new at step {trigger.name}"
        received = journal.received
        if not received:
            return None
        names = ("instances", "place", "suspected_lost")
        result = dict(zip(names, (received, journal.place, journal.suspected_lost), strict=True))
        return {"word": "succeed", "result": result, "reason": f"Taken over, {how}: {named(received)}."}

    def _poll(self, trigger: WorkflowsoftIntegrationWaitTrigger) -> list[dict[str, str | None]]:
        """Poll once between two lines of the journal."""
        self.hook.get_api_token()  # a sign-in that fails is no lost answer
        self.journal.begin(trigger.place)
        try:
            instances = trigger.poll(self.hook)
        except NOTHING_DONE:
            self.journal.end()
            raise
        except UnreadableInstances as odd:
            self._log_received(trigger, odd.instances)
            self._lose(str(odd), odd.instances)
            raise
        except ServerError as failed:
            self._lose(str(failed).removesuffix(failed.advice).strip(), failures=trigger.failures)
            raise
        except AirflowTaskTimeout:
            self._lose("The task's execution_timeout ended it.")
            raise
        except Exception as fault:
            # An advice is for actions: this one is done again.
            self._lose(str(fault).removesuffix(getattr(fault, "advice", "")).strip())
            raise
        self._log_received(trigger, instances)
        self.journal.end(instances)
        return instances

    def _log_received(self, trigger: WorkflowsoftIntegrationWaitTrigger, instances: Instances) -> None:
        # Before the receipt: should that one fail, the ids are found in the log.
        if instances:
            self.log.info("Received at step %s: %s.", trigger.name, named(instances))

    def _lose(self, why: str, instances: Instances = (), failures: int = 0) -> None:
        """Note that the answer of the poll that has begun will never come, but for these instances, and say so."""
        step_id, since, until = self.journal.lose(instances, failures)
        self.log.warning(
            "Suspected loss: a poll of integration step %s between %s and %s never got its whole answer. %s %s",
            step_id,
            since,
            until,
            why,
            WHAT_TO_DO,
        )
        version_compat.count("workflows.suspected_lost_delivery", step_id=step_id)

    def time_out(self, last_poll: str) -> NoReturn:
        words = [last_poll]
        if lost := self.journal.suspected_lost:
            stretches = ", ".join(f"{stretch['since']} to {stretch['until']}" for stretch in lost)
            words.append(f"Polls never got their whole answer: {stretches}. {WHAT_TO_DO}")
        super().time_out(" ".join(words).strip())

    def seconds_to_next_poll(self, interval: float) -> float:
        # exponential_backoff begins below the interval, and max_wait may end there.
        return super().seconds_to_next_poll(max(interval, self._shortest_interval))

    def _checked_interval(self) -> float:
        shortest = self._shortest_interval = self.hook.shortest_poll
        if self._interval_is_given and self._asked_interval < shortest:
            raise ConfigurationError(
                f"poke_interval must be at least {shortest:g} seconds, for Workflowsoft asks to be polled every few "
                f"minutes; got {self._asked_interval:g}."
            )
        return max(self._asked_interval, shortest)

    def _checked_max_instances(self) -> int:
        check_required(max_instances=self.max_instances)
        given = str(self.max_instances).strip()
        number = int(given) if given.isdecimal() else 0
        if number < 1:
            raise ConfigurationError(f"max_instances must be a whole number of at least 1; got {self.max_instances!r}.")
        if number > MOST_INSTANCES:
            raise ConfigurationError(
                f"max_instances must be at most {MOST_INSTANCES}; got {number}. What was received is kept in Airflow's "
                "task state store, which holds 64 KB. Let several runs take them."
            )
        return number


class Journal:
    """
    What one task knows of its polls, kept in its task state store so that a retry knows it too.

    Clearing the task leaves it there: what was received and never delivered is delivered by the next run.

    :param store: The task's store, or None to keep it in memory only.
    :param carried: What is known already, where there is no store.
    :param retention: How long the store keeps it.
    """

    def __init__(
        self,
        store: StateStore | None,
        carried: Mapping[str, Any] | None = None,
        retention: timedelta = JOURNAL_KEPT,
    ):
        self._store = store
        self._retention = retention
        known = carried if store is None else store.get(JOURNAL)
        self.entry: dict[str, Any] = {
            "place": {},
            "polling_since": None,
            "received": [],  # [integration instance, process instance]: the store has little room
            "suspected_lost": [],
            "answered": True,  # whether a poll was answered after the last loss
            "delivered": False,  # whether the task has returned what was received
            "failures": 0,  # polls in a row that the server answered with an error of its own
            **(known or {}),
        }

    @property
    def is_kept(self) -> bool:
        return self._store is not None

    @property
    def is_polling(self) -> bool:
        """Whether a poll has begun whose end nobody has noted."""
        return self.entry["polling_since"] is not None

    @property
    def place(self) -> dict[str, str | None]:
        """Where it was polled: ``{diagram_id, step_id, step}``."""
        return dict(self.entry["place"])

    @property
    def received(self) -> list[dict[str, str | None]]:
        """The instances that were received, each once."""
        names = ("integration_instance_id", "process_instance_id")
        return [dict(zip(names, ids, strict=True)) for ids in self.entry["received"]]

    @property
    def suspected_lost(self) -> list[dict[str, str]]:
        """The stretches ``{since, until}`` in which an answer was lost."""
        return list(self.entry["suspected_lost"])

    @property
    def failures(self) -> int:
        """How many polls in a row the server has answered with an error of its own."""
        return int(self.entry["failures"])

    def start_after_clear(self) -> Instances:
        """Forget what was delivered before the task was cleared, and return it; the rest is still to be delivered."""
        if not self.entry["delivered"]:
            return ()
        instances = self.received
        self._keep(received=[], suspected_lost=[], answered=True, delivered=False)
        return instances

    def mark_delivered(self) -> None:
        """Note that the task returns what was received."""
        if self.entry["received"] and not self.entry["delivered"]:
            self._keep(delivered=True)

    def note_failures(self, failures: int) -> None:
        """Note how many polls in a row the server has answered with an error of its own."""
        if failures != self.failures:
            self._keep(failures=failures)

    def begin(self, place: Mapping[str, str | None]) -> None:
        """Note that a poll begins."""
        self._keep(place=dict(place), polling_since=_now())

    def end(self, instances: Instances | None = None) -> None:
        """Note what a poll has delivered; None: it was not answered, and delivered nothing for certain."""
        answered = self.entry["answered"] or instances is not None
        self._keep(polling_since=None, received=self._with(instances or ()), answered=answered, failures=0)

    def lose(self, instances: Instances = (), failures: int = 0) -> tuple[str, str, str]:
        """
        Note that a poll's answer was lost; return the step, since when it was polled, and now.

        Losses with no answer in between are one stretch, so that an outage of hours stays small.

        :param instances: What it has delivered nevertheless.
        :param failures: How many polls in a row the server has answered with an error of its own.
        """
        since, until, stretches = self.entry["polling_since"], _now(), self.suspected_lost
        if stretches and (not self.entry["answered"] or len(stretches) >= MOST_STRETCHES):
            stretches[-1] = {**stretches[-1], "until": until}
        else:
            stretches.append({"since": since, "until": until})
        self._keep(
            polling_since=None,
            received=self._with(instances),
            suspected_lost=stretches,
            answered=bool(instances),
            failures=failures,
        )
        return str(self.entry["place"]["step_id"]), since, until

    def _with(self, instances: Instances) -> list[list[str | None]]:
        received = {row[0]: row for row in self.entry["received"]}
        received |= {row["integration_instance_id"]: list(row.values()) for row in instances}
        return list(received.values())

    def _keep(self, **changes: Any) -> None:
        self.entry = {**self.entry, **changes}
        if self._store is not None:
            self._store.set(JOURNAL, self.entry, retention=self._retention)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
