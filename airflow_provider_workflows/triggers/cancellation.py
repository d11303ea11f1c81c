"""
Terminate the Procore instance of a deferred task that a user has killed.

Airflow calls ``on_kill()`` of a trigger since version 3.3, but not only when a user has killed the task: 3.3.0 to 3.3.2
call it whenever another triggerer has taken over the trigger (apache/airflow#73454), and later versions still call it
if the wait has ended in the other triggerer. Therefore the state of the task in Airflow decides whether to terminate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import REJECTIONS, DryRun, RateLimited, UnexpectedResponse, WorkflowsError
from airflow_provider_workflows.rules import procore as rules

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook

log = logging.getLogger(__name__)

MAX_KILL_SECONDS = 25.0  # Airflow ends on_kill() after 30 seconds, with a log line that does not name the instance
MAX_REQUEST_SECONDS = 6.0  # short enough for another attempt after a request without a response
FIRST_DELAY_SECONDS = 1.0  # between two attempts; doubled after each one
MAX_DELAY_SECONDS = 4.0
# States in which the task continues with its instance. No action of a user leads to them: a task that a user has marked
# is in a final state, and a cleared task has no state until Airflow schedules it again.
CONTINUES = frozenset({"deferred", "up_for_retry"})
_running: set[asyncio.Task[None]] = set()  # references, because an event loop does not keep its tasks alive


async def terminate_if_killed(
    hook: ProcoreHook, instance_id: str, *, project_id: str | None, deadline: str | None, task_instance: Any
) -> None:
    """
    Terminate an instance if its task, according to Airflow, does not wait for it any more; log the decision.

    Failures are logged and not raised, because Airflow would only log them, without the instance.

    :param hook: Hook for this termination; closed afterwards.
    :param instance_id: The instance.
    :param project_id: Its project, or ``company``.
    :param deadline: End of the wait as an ISO-8601 time, or None.
    :param task_instance: The trigger's task instance.
    """
    termination = _Termination(hook, instance_id, project_id)
    work = asyncio.get_running_loop().create_task(termination.run(deadline, task_instance))
    _running.add(work)
    work.add_done_callback(_running.discard)
    # Until the trigger has ended, Airflow cancels it at each sync, about once a second, and with it on_kill(), although
    # it waits for on_kill(). When the triggerer stops, the event loop cancels the task, too.
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(work)


def read_task_state(task_instance: Any) -> str | None:
    """
    Read the current state of a task instance from Airflow; blocks until the supervisor responds, so run it in a thread.

    :return: The state; None for a task that was cleared and not scheduled again yet.
    :raises LookupError: Airflow does not return exactly one state of this task instance.
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
    # Airflow appends the map index to the id of a mapped task.
    names = {task_id, f"{task_id}_{map_index}"} if is_mapped else {task_id}
    found = [state for name, state in (states.get(run_id) or {}).items() if name in names]
    if len(found) != 1:
        raise LookupError(f"expected one state of the task instance, got {len(found)}")
    state: str | None = found[0]
    return state


class _Termination:
    """Terminate one instance, with as many attempts as fit into :data:`MAX_KILL_SECONDS`."""

    def __init__(self, hook: ProcoreHook, instance_id: str, project_id: str | None):
        self._hook = hook
        self._instance_id = instance_id
        self._project_id = project_id
        self._failure = "Airflow did not return the state of the task"
        # A thread of its own: requests to a hanging server can occupy all threads of the polls, and other triggers all
        # threads of Airflow's event loop (asyncio.to_thread), for longer than a kill may take.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="workflows-kill")

    async def run(self, deadline: str | None, task_instance: Any) -> None:
        try:
            await asyncio.wait_for(self._terminate_if_killed(deadline, task_instance), MAX_KILL_SECONDS)
        except asyncio.TimeoutError:
            self._log_failure()
        except asyncio.CancelledError:  # the triggerer stops
            self._log_failure()
            raise
        finally:
            self._hook.close()
            self._thread.shutdown(wait=False)

    async def _terminate_if_killed(self, deadline: str | None, task_instance: Any) -> None:
        end = asyncio.get_running_loop().time() + MAX_KILL_SECONDS
        if await self._was_killed(deadline, task_instance):
            self._failure = "Procore did not respond"
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
        except Exception as error:  # any error of Airflow: without the state of the task, nothing may be terminated
            log.warning(
                "Not terminating instance %s: reading the state of its task from Airflow failed (%s: %s). If a user "
                "has killed the task, terminate the instance in Procore.",
                *(self._instance_id, type(error).__name__, error),
            )
            return False
        if state in CONTINUES:
            log.info(
                "Not terminating instance %s: its task is %s, so no user has killed it. Probably another triggerer has "
                "taken over the wait.",
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
                is_terminated = await self._in_thread(self._attempt)
            except DryRun as rejected:
                log.warning("Not terminating instance %s. %s", self._instance_id, rejected)
                return
            except Exception as error:  # another attempt may succeed, and the last failure must name the instance
                self._failure = _message_of(error)
                is_rejected = isinstance(error, REJECTIONS) and error.is_documented
                stated = error.wait if isinstance(error, RateLimited) else None
                wait = delay if stated is None else max(stated, delay)
                # A rejection can mean that the instance has just ended; the next attempt reads its state.
                if (is_rejected and was_rejected) or asyncio.get_running_loop().time() + wait >= end:
                    self._log_failure()
                    return
                log.warning(
                    "Terminating instance %s failed, will retry in %.0f s: %s", self._instance_id, wait, self._failure
                )
                delay, was_rejected = min(2 * delay, MAX_DELAY_SECONDS), is_rejected
                await asyncio.sleep(wait)
            else:
                message = "Terminated instance %s." if is_terminated else "Instance %s has already ended."
                log.info(message, self._instance_id)
                return

    def _attempt(self) -> bool:
        """Terminate the instance unless it has ended; return whether this call terminated it."""
        client = self._hook.client
        client.timeout = min(client.timeout, MAX_REQUEST_SECONDS)
        try:
            if rules.has_ended(self._hook.get_instance(self._instance_id, project_id=self._project_id)):
                return False
        except RateLimited:
            raise
        except WorkflowsError as unreadable:
            # Terminate it nevertheless: according to Procore's documentation that does not change an ended instance.
            self._failure = _message_of(unreadable)
        response = self._hook.terminate_instance(self._instance_id, project_id=self._project_id)
        if not rules.has_ended(response):
            raise UnexpectedResponse(
                f"The response to terminating instance {self._instance_id} shows it as still running"
            )
        return True

    async def _in_thread(self, call: Any, *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def _message_of(error: Exception) -> str:
    """Return an error's message without its advice, which may be not to send the call again."""
    if isinstance(error, WorkflowsError):
        return str(error).removesuffix(getattr(error, "advice", "")).rstrip()
    return type(error).__name__  # the message of a secrets backend's error may contain a secret
