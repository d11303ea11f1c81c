"""
How a deferred task that a user has killed terminates its Procore instance, and why nothing else does.

Airflow calls ``on_kill()`` of a trigger from version 3.3 on, and not only when a user has killed the task. On 3.3.0 to
3.3.2 it does so whenever another triggerer has taken the trigger over (apache/airflow#73454), on later versions still
where the wait has ended in the other triggerer. So Airflow's own record of the task decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RateLimited,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.rules import procore as rules

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

log = logging.getLogger(__name__)

BUDGET_SECONDS = 25.0  # Airflow itself ends on_kill() after 30, and its log line does not name the instance
MAX_REQUEST_SECONDS = 6.0  # so that there is time for another attempt after a server that did not respond
FIRST_DELAY_SECONDS = 1.0  # between two attempts, then doubled
MAX_DELAY_SECONDS = 4.0
# States in which a task goes on with its instance. No user's act leads to them: a task that is marked is over, and one
# that is cleared has no state until Airflow schedules it again.
GOES_ON = frozenset({"deferred", "up_for_retry"})
_at_work: set[asyncio.Task[None]] = set()  # an event loop itself does not keep its tasks alive
REJECTED = (InvalidRequest, NotFound, PermissionDenied)


async def terminate_if_killed(
    hook: ProcoreHook, instance_id: str, *, project_id: str | None, deadline: str | None, task_instance: Any
) -> None:
    """
    Terminate an instance if Airflow says that its task no longer waits for it; log what was done and why.

    Failures are logged and not raised: Airflow would only log them, without the instance.

    :param hook: Opened for this; closed afterwards.
    :param instance_id: The instance.
    :param project_id: Its project, or ``company``.
    :param deadline: End of the wait as an ISO-8601 time, or None.
    :param task_instance: The trigger's task instance.
    """
    termination = _Termination(hook, instance_id, project_id)
    work = asyncio.get_running_loop().create_task(termination.run(deadline, task_instance))
    _at_work.add(work)
    work.add_done_callback(_at_work.discard)
    # Airflow cancels a trigger again at each sync, about once a second, until it has ended: also on_kill(), which it
    # means to wait for. When the triggerer itself stops, the loop cancels the task, too.
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(work)


def read_task_state(task_instance: Any) -> str | None:
    """
    Ask Airflow for the current state of a task instance; for a thread, because it blocks until the supervisor responds.

    :return: The state; None for a task that was cleared and not scheduled again yet.
    :raises LookupError: Airflow does not name one state of this task instance.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    task_id, run_id, map_index = task_instance.task_id, task_instance.run_id, task_instance.map_index
    is_mapped = map_index is not None and map_index >= 0
    states = RuntimeTaskInstance.get_task_states(
        dag_id=task_instance.dag_id,
        map_index=map_index if is_mapped else None,
        task_ids=[task_id],
        run_ids=[run_id],
    )
    # Airflow adds the index to the id of a mapped task.
    names = {task_id, f"{task_id}_{map_index}"} if is_mapped else {task_id}
    found = [state for name, state in (states.get(run_id) or {}).items() if name in names]
    if len(found) != 1:
        raise LookupError(f"it names {len(found)} states of the task instance")
    state: str | None = found[0]
    return state


class _Termination:
    """Terminates one instance, with as many attempts as fit into the time."""

    def __init__(self, hook: ProcoreHook, instance_id: str, project_id: str | None):
        self._hook = hook
        self._instance_id = instance_id
        self._project_id = project_id
        self._failure = "Airflow did not return the state of the task"
        # A thread of its own. Requests to a server that hangs can occupy every thread of the polls, and other
        # triggers those that Airflow's event loop has (asyncio.to_thread), for longer than a kill may take.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="workflows-kill")

    async def run(self, deadline: str | None, task_instance: Any) -> None:
        try:
            await asyncio.wait_for(self._terminate_if_killed(deadline, task_instance), BUDGET_SECONDS)
        except asyncio.TimeoutError:
            self._log_failure()
        except asyncio.CancelledError:  # the triggerer stops
            self._log_failure()
            raise
        finally:
            self._hook.close()
            self._thread.shutdown(wait=False)

    async def _terminate_if_killed(self, deadline: str | None, task_instance: Any) -> None:
        end = asyncio.get_running_loop().time() + BUDGET_SECONDS
        if await self._was_killed(deadline, task_instance):
            self._failure = "there was no response"
            await self._terminate(end)

    def _log_failure(self) -> None:
        log.error(
            "Terminating instance %s failed, although a user may have killed its task: %s Check the instance in "
            "Procore, and terminate it there unless it is still needed.",
            self._instance_id,
            f"{self._failure.rstrip('.')}.",
        )

    async def _was_killed(self, deadline: str | None, task_instance: Any) -> bool:
        if deadline is not None and datetime.fromisoformat(deadline) <= datetime.now(timezone.utc):
            log.info("Not terminating instance %s: the deadline of the wait has passed.", self._instance_id)
            return False
        try:
            state = await self._in_thread(read_task_state, task_instance)
        except Exception as error:  # of whatever kind in Airflow: without the state nothing may be terminated
            log.warning(
                "Not terminating instance %s: reading the state of its task from Airflow failed (%s: %s). If a user "
                "has killed the task, terminate the instance in Procore.",
                *(self._instance_id, type(error).__name__, error),
            )
            return False
        if state in GOES_ON:
            log.info(
                "Not terminating instance %s: its task is %s, so no user has killed it. Another triggerer has taken "
                "the wait over, most likely.",
                *(self._instance_id, state),
            )
            return False
        log.info("Terminating instance %s: its task is %s.", self._instance_id, state or "cleared")
        return True

    async def _terminate(self, end: float) -> None:
        delay, was_rejected = FIRST_DELAY_SECONDS, False
        while True:
            try:
                await self._hook.prepare()
                is_ended_by_us = await self._in_thread(self._attempt)
            except Exception as error:  # another attempt may succeed, and the last failure must name the instance
                self._failure = _in_words(error)
                is_rejected = isinstance(error, REJECTED) and error.is_documented
                stated = error.wait if isinstance(error, RateLimited) else None
                wait = delay if stated is None else max(stated, delay)
                # A rejection can mean that the instance has just ended, which the next attempt reads.
                if (is_rejected and was_rejected) or asyncio.get_running_loop().time() + wait >= end:
                    self._log_failure()
                    return
                log.warning(
                    "Terminating instance %s failed, will retry in %.0f s: %s", self._instance_id, wait, self._failure
                )
                delay, was_rejected = min(2 * delay, MAX_DELAY_SECONDS), is_rejected
                await asyncio.sleep(wait)
            else:
                did = "Terminated instance %s." if is_ended_by_us else "Instance %s has ended already."
                log.info(did, self._instance_id)
                return

    def _attempt(self) -> bool:
        """Terminate the instance unless it has ended; return whether this call did it."""
        client = self._hook.client
        client.timeout = min(client.timeout, MAX_REQUEST_SECONDS)
        try:
            if rules.has_ended(self._hook.get_instance(self._instance_id, project_id=self._project_id)):
                return False
        except RateLimited:
            raise
        except WorkflowsError as unreadable:
            # Terminate all the same: Procore documents that an instance that has ended stays as it is.
            self._failure = _in_words(unreadable)
        response = self._hook.terminate_instance(self._instance_id, project_id=self._project_id)
        if not rules.has_ended(response):
            raise UnexpectedResponse(f"The response to terminating instance {self._instance_id} does not show its end")
        return True

    async def _in_thread(self, call: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def _in_words(error: Exception) -> str:
    """Return an error's words without its advice, which can be not to send the call again."""
    if isinstance(error, WorkflowsError):
        return str(error).removesuffix(getattr(error, "advice", "")).rstrip()
    return type(error).__name__  # it can come from a secrets backend, whose words may hold a secret
