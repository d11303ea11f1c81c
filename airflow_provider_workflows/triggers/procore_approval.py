"""The trigger of a task whose Procore step (Workflows v2) can be decided in Airflow's Required Actions, too."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.procore_approval import over_as_shown, over_in_history
from airflow_provider_workflows.rules.procore_decisions import AmbiguousHistory
from airflow_provider_workflows.rules.wait_result import WaitResult
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from airflow_provider_workflows.triggers.required_actions import read_response

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.rules.procore_decisions import Timeline

DECIDED_IN_AIRFLOW = "decided_in_airflow"  # status of the event with a response that was given before the deferral


class ProcoreApprovalWaitTrigger(ProcoreInstanceWaitTrigger):
    """
    Wait until a step occurrence no longer waits for the connection's user.

    A response in Airflow resumes the deferred task without this trigger. But Airflow only records a response that was
    given while the task was not deferred, so the trigger reads the task's request when it starts. It shares its polls
    with all other waits for instances of the tool.

    :param step_occurrence_id: The step occurrence.
    :param user_id: Login information id of the connection's user.
    :param ti_id: Id of the task instance that has the request in Required Actions.
    """

    own = (*ProcoreInstanceWaitTrigger.own, "step_occurrence_id", "user_id", "ti_id")

    def __init__(self, *, step_occurrence_id: str, user_id: str, ti_id: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.step_occurrence_id = step_occurrence_id
        self.user_id = user_id
        self.ti_id = ti_id

    def snapshot(self, hook: ProcoreHook) -> tuple[dict[str, Any], dict[str, Any] | None]:
        try:
            return super().snapshot(hook)
        except AmbiguousHistory:  # hidden from the user; the instance as shown names its current step
            shown = hook.get_instance(str(self.instance_id), project_id=self.project_id)
        ids = {"instance_id": self.instance_id, "item_id": self.item_id, "project_id": self.project_id}
        step = rules.current_step(shown) or {}
        state = "ended" if rules.has_ended(shown) else "in_progress"
        why = over_as_shown(shown, self.step_occurrence_id, self.user_id)
        return {**ids, "state": state, "step": step.get("name")}, None if why is None else {"why": why}

    def _occurrence(self, history: Timeline) -> dict[str, Any] | None:
        try:
            why = over_in_history(history, self.step_occurrence_id, self.user_id)
        except LookupError:
            raise AmbiguousHistory(True) from None
        return None if why is None else {"why": why}

    def evaluate(self, snapshot: tuple[dict[str, Any], dict[str, Any] | None]) -> WaitResult | None:
        instance, over = snapshot
        if over is None:
            return None
        result = {"instance_id": instance["instance_id"], "step_occurrence_id": self.step_occurrence_id}
        return WaitResult("succeed", result, f"Step occurrence {self.step_occurrence_id} is over: {over['why']}.")

    @property
    def subject(self) -> str:
        return f"a response to step occurrence {self.step_occurrence_id}, in Airflow or in Procore"

    async def on_kill(self) -> None:
        """Do nothing: Airflow calls it after each response in Required Actions, too."""

    async def _wait(self) -> dict[str, Any]:
        from airflow_provider_workflows.polling.poll import MIN_FIRST_DELAY_SECONDS

        reading = asyncio.create_task(self._read_response())
        tasks: list[asyncio.Task[Any]] = [reading]
        try:
            # First alone, because dag.test() mixes up the responses to two requests at once.
            await asyncio.wait(tasks, timeout=MIN_FIRST_DELAY_SECONDS)
            waiting = asyncio.create_task(super()._wait())
            tasks.append(waiting)
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            response = reading.result() if reading.done() else None
            return await waiting if response is None else response
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_response(self) -> dict[str, Any] | None:
        """Return the event of a response that Airflow has recorded, or None; read until Airflow says which."""
        from airflow_provider_workflows.polling.poll import MIN_FIRST_DELAY_SECONDS

        started, is_logged = time.monotonic(), False
        while True:
            try:
                response = await read_response(self.ti_id)
            except Exception as error:  # any error of Airflow: the wait for Procore continues meanwhile
                if not is_logged:
                    is_logged = True
                    self.log.warning(
                        "Reading the response to the request in Required Actions failed, will retry. %s: %s",
                        *(type(error).__name__, error),
                    )
                await asyncio.sleep(self.poll_interval)
                continue
            if response is None:
                return None
            # Airflow can fail a task whose trigger fires right after the deferral.
            await asyncio.sleep(started + MIN_FIRST_DELAY_SECONDS - time.monotonic())
            return {"status": DECIDED_IN_AIRFLOW, **response}
