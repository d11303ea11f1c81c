"""The wait trigger for Workflowsoft's integration steps; a sensor on a worker calls its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows import version_compat
from airflow_provider_workflows.exceptions import NotFound, ServerError, WorkflowsError
from airflow_provider_workflows.rules.poll_journal import LOSS_ADVICE, name_instances
from airflow_provider_workflows.rules.wait_result import WaitResult
from airflow_provider_workflows.rules.workflowsoft import UnreadableInstances
from airflow_provider_workflows.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
    from airflow_provider_workflows.polling.poll import PollScope


MAX_FAILURES = 3  # consecutive polls with a server error (5xx), after which the error suggests that the step is wrong


class WorkflowsoftIntegrationWaitTrigger(WaitTrigger):
    """
    Wait until an integration step has new instances.

    The trigger polls in a triggerer only if polling leaves instances in place (``listed_until_completed``), because a
    trigger cannot persist what it has received; otherwise a sensor on a worker calls its parts. If the connection was
    changed to ``consumed_on_read`` since the deferral, the trigger sends the task back to a worker.

    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft``.
    :param diagram: Title or id of the process diagram, or None if ``step_id`` is given.
    :param step: Title or id of the integration step, or None.
    :param step_id: The step's id when it is known.
    :param diagram_id: The diagram's id if the step was looked up by its titles.
    :param title: The step's title, likewise.
    :param server: The server on which it was looked up: another one has other steps with the same ids.
    :param max_instances: Number of instances to take; None for one.
    :param poll_interval: Seconds between two polls.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    """

    def __init__(
        self,
        *,
        workflowsoft_conn_id: str,
        diagram: str | None,
        step: str | None,
        step_id: str | None = None,
        diagram_id: str | None = None,
        title: str | None = None,
        server: str | None = None,
        max_instances: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.workflowsoft_conn_id = workflowsoft_conn_id
        self.diagram = diagram
        self.step = step
        self.step_id = step_id
        self.diagram_id = diagram_id
        self.title = title
        self.server = server
        self.max_instances = max_instances
        self.failures = 0  # consecutive polls with a server error (5xx)
        self.is_malformed = False  # the last response, in part
        self.release: Callable[[], None] | None = None  # the instances that the last poll has assigned to this wait

    def arguments(self) -> dict[str, Any]:
        own = ("workflowsoft_conn_id", "diagram", "step", "step_id", "max_instances")
        return {**{name: getattr(self, name) for name in own}, **(self.found or {})}

    @property
    def place(self) -> dict[str, str | None]:
        """The step: ``{diagram_id, step_id, step}``."""
        return {"diagram_id": self.diagram_id, "step_id": self.step_id, "step": self.title}

    @property
    def found(self) -> dict[str, str | None] | None:
        """What :meth:`locate` has looked up, as arguments of another trigger; None if it has looked up nothing."""
        names = ("step_id", "diagram_id", "title", "server")
        return None if self.server is None else {name: getattr(self, name) for name in names}

    @property
    def name(self) -> str:
        title = self.title or self.step
        return f"{title!r} ({self.step_id})" if title else str(self.step_id)

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
        """Look up the step's id by the titles unless it is known on the connection's server."""
        if self.is_located_on(hook.server):
            return
        self.forget_step()
        found = hook.resolve_step(str(self.diagram), str(self.step))
        self.diagram_id, self.step_id, self.title = found["diagram_id"], found["step_id"], found["step"]
        self.server = hook.server

    def is_located_on(self, server: str) -> bool:
        """Return whether the step's id is known on a server; an id that the DAG author gave is valid on each."""
        return self.diagram is None or (self.step_id is not None and self.server == server)

    def forget_step(self) -> None:
        """Forget the step that was looked up by its titles."""
        self.step_id = self.diagram_id = self.title = self.server = None

    def poll(self, hook: WorkflowsoftHook) -> list[dict[str, str | None]]:
        """
        Poll once for new instances of the step, which :meth:`locate` has looked up.

        :raises NotFound: there is no such step, or it was given by its id and has nothing new.
        :raises ServerError: the server failed; after three consecutive failures the message says what may be wrong.
        """
        try:
            instances = hook.poll_new_integrations(str(self.step_id), is_known=self.diagram_id is not None)
        except ServerError as failed:
            self.failures += 1
            if self.failures < MAX_FAILURES:
                raise
            raise failed.reworded(
                f"{self.failures} consecutive polls of integration step {self.name} failed with a server error, which "
                "can also mean a wrong step: check that it is an integration step and still exists"
            ) from failed
        except NotFound as unknown:
            if self.diagram_id is not None:  # the step exists, so a gateway returned the 404
                raise
            raise unknown.reworded(
                f"step_id: Workflowsoft has no integration step {self.step_id}, or nothing new there. Check the id, or "
                "give diagram and step instead; then a 404 is read as 'nothing new'"
            ) from unknown
        except UnreadableInstances as malformed:
            if not malformed.instances or not hook.lists_until_completed:
                raise
            # The instances of the other rows stay in place.
            if not self.is_malformed:
                self.log.warning(
                    "Polling step %s: the response is malformed in part, polling continues with the rest. %s",
                    *(self.name, malformed),
                )
            self.is_malformed, self.failures = True, 0
            return malformed.instances
        self.is_malformed, self.failures = False, 0
        return instances

    def drain(
        self, poll: Callable[[], list[dict[str, str | None]]], desired: int | None = None
    ) -> list[dict[str, str | None]]:
        """
        Poll until enough instances were received, or nothing new or an instance again; return each instance once.

        An error ends the polling; it is raised only if nothing was received before.

        :param poll: Polls once.
        :param desired: Number of instances that is enough; None for :attr:`desired`.
        """
        desired = desired or self.desired
        found: dict[str | None, dict[str, str | None]] = {}
        while True:
            try:
                rows = poll()
            except WorkflowsError as fault:
                if not found:
                    raise
                self.log.warning(
                    "Polling step %s failed after %d instance(s) were received, which are delivered: %s",
                    *(self.name, len(found), fault),
                )
                break
            expected = len(found) + len(rows)
            found |= {row["integration_instance_id"]: row for row in rows}
            if not rows or len(found) < expected or len(found) >= desired:
                break
        return list(found.values())

    def poke_event(self) -> dict[str, Any]:
        """Return the event that makes the sensor poll on a worker again, with all state that it needs then."""
        return {"status": "poke", "deadline": self.deadline, "found": self.found, "last_poll": self.standing}

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_workflows.polling.workflowsoft import DestructivePoll

        try:
            return await super()._wait()
        except DestructivePoll:
            self.log.info("The connection was changed to consumed_on_read, so a worker continues polling.")
            return self.poke_event()
        except asyncio.CancelledError:  # the task never gets them, so other waits may
            if self.release is not None:
                self.release()
            raise

    def snapshot(self, hook: WorkflowsoftHook) -> list[dict[str, str | None]]:
        if not hook.lists_until_completed:
            from airflow_provider_workflows.polling.workflowsoft import DestructivePoll

            raise DestructivePoll
        self.locate(hook)
        return self.drain(lambda: self.poll(hook))

    def evaluate(self, snapshot: list[dict[str, str | None]]) -> WaitResult | None:
        if not snapshot:
            return None
        # Polling leaves instances in place, so the next poll returns the remaining ones again.
        instances = snapshot[: self.desired]
        result = {"instances": instances, "place": self.place, "possibly_lost": []}
        return WaitResult("succeed", result, f"Step {self.name} has {name_instances(instances)}.")

    def describe(self, snapshot: list[dict[str, str | None]]) -> str:
        return f"Step {self.name}: {len(snapshot) or 'no'} new integration instance(s)."

    @property
    def subject(self) -> str:
        return f"new instance of integration step {self.name}"


def report_loss(log: Any, step_id: str | None, why: str | Exception, since: str | None, until: datetime) -> None:
    """
    Log that the response of a poll was lost, and that an instance may be lost with it.

    :param log: Logger of the task or the triggerer.
    :param step_id: Id of the step.
    :param why: The reason.
    :param since: Start of the poll, as an ISO-8601 time.
    :param until: When the loss was noticed.
    """
    if isinstance(why, Exception):  # without its advice, which is not to repeat an action: polling continues
        why = str(why).removesuffix(getattr(why, "advice", "")).strip()
    log.warning(
        "Suspected loss: the response to a poll of integration step %s between %s and %s was lost. %s %s",
        step_id,
        since,
        until.isoformat(timespec="milliseconds"),
        why,
        LOSS_ADVICE,
    )
    version_compat.count("workflows.suspected_lost_delivery", step_id=str(step_id))
