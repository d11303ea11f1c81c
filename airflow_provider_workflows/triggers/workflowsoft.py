"""Waits for Workflowsoft's API."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import NotFound, ServerError, WorkflowsError
from airflow_provider_workflows.rules.wait_result import WaitResult
from airflow_provider_workflows.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.polling.poll import PollScope


MAX_INSTANCES = 500  # that one wait, or a watcher in a row, takes
MAX_FAILURES = 3  # polls in a row that a server answers with an error of its own before a wrong step is suspected
WHAT_TO_DO = (
    "If an integration instance was taken out of Workflowsoft, nobody works on it: compare with the processes running "
    "there. One that you find there can be handled by giving its id to the operators by hand."
)


class WorkflowsoftIntegrationWaitTrigger(WaitTrigger):
    """
    Waits until an integration step has new instances.

    It polls in a triggerer only where reading leaves them there (``listed_until_completed``), for a trigger cannot
    keep what it has read; else a sensor on a worker calls its parts. Where a triggerer begins with it and the
    connection says otherwise by now, it sends the task back to a worker.

    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``.
    :param diagram: Title or id of the process diagram, or None when ``step_id`` is known.
    :param step: Title or id of the integration step, or None.
    :param diagram_id: The diagram's id, once known.
    :param step_id: The step's id, once known.
    :param max_instances: How many to take; None for one.
    :param poll_interval: Seconds between two looks.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    """

    def __init__(
        self,
        *,
        workflowsoft_conn_id: str,
        diagram: str | None,
        step: str | None,
        diagram_id: str | None = None,
        step_id: str | None = None,
        max_instances: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.workflowsoft_conn_id = workflowsoft_conn_id
        self.diagram = diagram
        self.step = step
        self.diagram_id = diagram_id
        self.step_id = step_id
        self.max_instances = max_instances
        self.failures = 0  # polls in a row that the server has answered with an error of its own

    def arguments(self) -> dict[str, Any]:
        own = ("workflowsoft_conn_id", "diagram", "step", "diagram_id", "step_id", "max_instances")
        return {name: getattr(self, name) for name in own}

    @property
    def place(self) -> dict[str, str | None]:
        """Where the wait is: ``{diagram_id, step_id, step}``."""
        return {"diagram_id": self.diagram_id, "step_id": self.step_id, "step": self.step}

    @property
    def name(self) -> str:
        return f"{self.step!r} ({self.step_id})" if self.step else str(self.step_id)

    @property
    def desired(self) -> int:
        return self.max_instances or 1

    def open_hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)

    @property
    def connection(self) -> tuple[str | None, ...]:
        return ("workflowsoft", self.workflowsoft_conn_id)

    def scope(self) -> PollScope:
        from airflow_provider_workflows.polling.workflowsoft import IntegrationStepScope

        return IntegrationStepScope(self)

    def locate(self, hook: WorkflowsoftHook) -> None:
        """Look the step's id up by the titles where it is not known yet."""
        if self.step_id is None:
            found = hook.resolve_step(str(self.diagram), str(self.step))
            self.diagram_id, self.step_id, self.step = found["diagram_id"], found["step_id"], found["step"]

    def poll(self, hook: WorkflowsoftHook) -> list[dict[str, str | None]]:
        """
        Ask once for new instances of the step, which was located before.

        :raises NotFound: there is no such step, or nothing new at a step that nobody has looked up.
        :raises ServerError: the server failed; after three times in a row it says what may be wrong.
        """
        try:
            instances = hook.poll_new_integrations(str(self.step_id), is_known=self.diagram_id is not None)
        except ServerError as failed:
            self.failures += 1
            if self.failures < MAX_FAILURES:
                raise
            raise failed.reworded(
                f"{self.failures} polls in a row of integration step {self.name} failed in the server, which is how "
                "some answer a mistake of ours: check that this step is an integration step and still exists"
            ) from failed
        except NotFound as unknown:
            raise unknown.reworded(
                f"step_id: Workflowsoft knows no integration step {self.step_id}, or has nothing new there. Check the "
                "id, or give diagram and step instead, for then a 404 is read as 'nothing new'"
            ) from unknown
        self.failures = 0
        return instances

    def drain(
        self, poll: Callable[[], list[dict[str, str | None]]], desired: int | None = None
    ) -> list[dict[str, str | None]]:
        """
        Poll until enough is there, nothing new comes or an instance comes again, and return each instance once.

        A fault ends it, and is raised where nothing was received before.
        """
        desired = desired or self.desired
        found: dict[str | None, dict[str, str | None]] = {}
        while True:
            try:
                rows = poll()
            except WorkflowsError as fault:
                if not found:
                    raise
                self.log.warning("%s What was received before is handed on.", fault)
                break
            expected = len(found) + len(rows)
            found |= {row["integration_instance_id"]: row for row in rows}
            if not rows or len(found) < expected or len(found) >= desired:
                break
        return list(found.values())

    def poke_event(self) -> dict[str, Any]:
        """Return the event that lets the sensor poll again, on a worker; with all that it has to know then."""
        place = None if self.step_id is None else self.place
        return {"status": "poke", "deadline": self.deadline, "place": place, "last_poll": self.standing}

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_workflows.polling.workflowsoft import DestructivePoll

        try:
            return await super()._wait()
        except DestructivePoll:
            self.log.info("By now reading takes instances out, as the connection says, so a worker goes on polling.")
            return self.poke_event()

    def snapshot(self, hook: WorkflowsoftHook) -> list[dict[str, str | None]]:
        if not hook.lists_until_completed:
            from airflow_provider_workflows.polling.workflowsoft import DestructivePoll

            raise DestructivePoll
        self.locate(hook)
        return self.drain(lambda: self.poll(hook))

    def evaluate(self, snapshot: list[dict[str, str | None]]) -> WaitResult | None:
        if not snapshot:
            return None
        # Where reading leaves them there, what is more than wanted is for the next look.
        instances = snapshot[: self.desired]
        result = {"instances": instances, "place": self.place, "possibly_lost": []}
        return WaitResult("succeed", result, f"Step {self.name} has {named(instances)}.")

    def describe(self, snapshot: list[dict[str, str | None]]) -> str:
        return f"Step {self.name}: {len(snapshot) or 'no'} new integration instance(s)."


def named(instances: Iterable[Mapping[str, str | None]]) -> str:
    """Name instances for the log, so that they can be found there again."""
    listed = (f"{row['integration_instance_id']} (process {row['process_instance_id']})" for row in instances)
    return f"integration instance {', '.join(listed)}"


def report_loss(log: Any, step_id: str | None, why: str | Exception, since: str | None, until: datetime) -> None:
    """Say that a poll's whole response will never come, and that an instance may be lost with it."""
    if isinstance(why, Exception):  # its advice is for actions: this one is done again
        why = str(why).removesuffix(getattr(why, "advice", "")).strip()
    log.warning(
        "Suspected loss: a poll of integration step %s between %s and %s never got its whole answer. %s %s",
        step_id,
        since,
        until.isoformat(timespec="milliseconds"),
        why,
        WHAT_TO_DO,
    )
    version_compat.count("workflows.suspected_lost_delivery", step_id=str(step_id))
