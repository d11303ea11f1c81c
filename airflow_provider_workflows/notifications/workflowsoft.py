"""The notifier that creates a task in Workflowsoft when something happens in Airflow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from airflow_provider_workflows.exceptions import NOTHING_DONE, DryRun, WorkflowsError
from airflow_provider_workflows.rules.parameters import as_flag, check_optional, check_rendered, check_required
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

SENT_TTL = timedelta(days=365)


class WorkflowsoftTaskNotifier(BaseNotifier):
    """
    Create a task in Workflowsoft, such as for a run that failed.

    Use it as a callback of a task or a DAG (``on_failure_callback`` and the like), and in an ``AsyncCallback`` of a
    deadline alert. A callback of a DAG creates one task for a run, a callback of a task one for each task instance. An
    error of the notifier is logged and does not change the state of the run.

    One call sends one request, and never repeats it: when the response is lost, there may be no task. Airflow itself
    may rarely run a callback twice, and then a task may be created twice: ``on_failure_callback`` runs on the worker
    and again in the DAG processor when the worker dies, or loses its heartbeat, before it has reported the failure; an
    ``AsyncCallback`` runs again when its triggerer dies. From Airflow 3.3 on the task state store prevents other
    repetitions: calls on a worker, such as ``on_retry_callback`` and a sensor's ``on_overdue``, create one task for
    each message of a task instance over all its tries. The message is connection, title, users and the description as
    it was given. After a rejection the next call sends it again, and so does a task that was cleared.

    :param title: Title of the task, such as ``{{ dag.dag_id }} failed``; in a deadline alert
        ``{{ dag_run.dag_id }}``, because ``dag`` does not exist there (templated).
    :param on_behalf_of: E-mail address or id of the user who creates it (templated).
    :param assigned_to: E-mail address or id of the user who is to do it; default: ``on_behalf_of`` (templated).
    :param description: Text of the task; default: DAG, run, task and the address of the log (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    :param dry_run: Only log what would be sent; also if the connection's extra ``dry_run`` is true (templated).
    """

    template_fields: Sequence[str] = (
        "workflowsoft_conn_id",
        "title",
        "on_behalf_of",
        "assigned_to",
        "description",
        "dry_run",
    )

    def __init__(
        self,
        *,
        title: str,
        on_behalf_of: str | int,
        assigned_to: str | int | None = None,
        description: str | None = None,
        workflowsoft_conn_id: str = "workflowsoft_default",
        dry_run: bool | str = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.title = title
        self.on_behalf_of = on_behalf_of
        self.assigned_to = assigned_to
        self.description = description
        self.workflowsoft_conn_id = workflowsoft_conn_id
        self.dry_run = dry_run

    def __call__(self, *args: Any) -> None:
        try:
            # Rendering replaces the templates, which other tasks and runs in the same process need too.
            BaseNotifier.__call__(copy(self), *args)
        except Exception:  # a failing notification must not fail the task or the triggerer
            self.log.exception("No task was created in Workflowsoft.")

    def notify(self, context: Context) -> None:
        try:
            self._notify(context)
        except Exception as error:  # likewise
            self._log_failure(error)

    async def async_notify(self, context: Context) -> None:
        try:
            await self._anotify(context)
        except Exception as error:  # likewise
            self._log_failure(error)

    def _notify(self, context: Context) -> None:
        hook = self._checked_hook()
        try:
            users = self._find_users(hook)
            record = _SentRecord(context, self)
            if record.exists:
                self.log.info("Nothing was sent: this task instance has sent the same message before: %s", self.title)
                return
            if not hook.dry_run:
                record.persist(True)
            try:
                self._create(hook, users, context)
            except NOTHING_DONE:
                record.persist(False)
                raise
        finally:
            hook.close()

    async def _anotify(self, context: Context) -> None:
        from airflow_provider_workflows.polling.channel import in_new_thread

        hook = self._checked_hook()  # a triggerer has no task state store
        try:
            await hook.prepare()
            users = await in_new_thread(self._find_users, hook)
            await in_new_thread(self._create, hook, users, context)
        finally:
            hook.close()

    def _checked_hook(self) -> WorkflowsoftHook:
        """Check the rendered parameters and return the hook."""
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        check_rendered(self)
        check_required(workflowsoft_conn_id=self.workflowsoft_conn_id, title=self.title, on_behalf_of=self.on_behalf_of)
        check_optional(self, "assigned_to")
        hook = WorkflowsoftHook(self.workflowsoft_conn_id)
        if as_flag("dry_run", self.dry_run):
            hook.start_dry_run()
        return hook

    def _find_users(self, hook: WorkflowsoftHook) -> tuple[str, str | None]:
        """Sign in, and return the ids of the user who creates the task and of the assignee, if one is given."""
        hook.get_api_token()
        by = hook.find_user_id(str(self.on_behalf_of).strip(), parameter="on_behalf_of")
        if self.assigned_to is None:
            return by, None
        return by, hook.find_user_id(str(self.assigned_to).strip(), parameter="assigned_to")

    def _create(self, hook: WorkflowsoftHook, users: tuple[str, str | None], context: Context) -> None:
        by, to = users
        text = _default_description(context) if self.description is None else self.description
        try:
            created = hook.create_task(self.title, on_behalf_of=by, assigned_to=to, description=text)
        except DryRun as not_sent:
            self.log.info("Dry run: no task was created in Workflowsoft. Would send: %s", not_sent.description)
            return
        self.log.info("Created task %s in Workflowsoft: %s", created["id"], self.title)

    def _log_failure(self, error: Exception) -> None:
        # The texts of this package's errors say what to do. For others only the traceback may help.
        details = None if isinstance(error, WorkflowsError) else error
        self.log.error("Creating a task in Workflowsoft failed. %s", error, exc_info=details)


class _SentRecord:
    """
    Persist in the task state store that a message was sent, or is about to be.

    Only a worker has that store (Airflow 3.3+). Elsewhere nothing is persisted: a message that is sent twice in rare
    cases is better than a failure that is never reported.
    """

    def __init__(self, context: Context, notifier: WorkflowsoftTaskNotifier):
        message = [getattr(notifier, name) for name in notifier.template_fields if name != "dry_run"]
        self._key = f"workflowsoft_task_{hashlib.sha256(json.dumps(message, default=str).encode()).hexdigest()[:32]}"
        self._log = notifier.log
        self._store = task_state_store(context)
        self.exists = False
        if self._store is None:
            return
        try:
            self.exists = bool(self._store.get(self._key))
        except Exception as error:  # the DAG processor does not serve the store
            self._without_store(error)

    def persist(self, is_sent: bool) -> None:
        if self._store is None:
            return
        try:
            self._store.set(self._key, is_sent, retention=SENT_TTL)
        except Exception as error:  # of Airflow's API server: the notification must not depend on it
            self._without_store(error)

    def _without_store(self, error: Exception) -> None:
        self._store = None
        self._log.info(
            "The task state store is not available here (%s): Airflow may run this callback again, and create a second "
            "task.",
            type(error).__name__,
        )


def _run_of(context: Context) -> tuple[str, str]:
    """Return the ids of the DAG and its run."""
    run: Any = context.get("dag_run")
    if isinstance(run, Mapping):  # a deadline alert
        return run["dag_id"], run["dag_run_id"]
    return context["dag"].dag_id, context["run_id"]


def _default_description(context: Context) -> str:
    """Return which run or task the message is about, with the address of its page or log."""
    dag_id, run_id = _run_of(context)
    run = f"run {run_id} of DAG {dag_id} in Airflow"
    ti: Any = context.get("ti")
    if ti is None:
        return f"This is about {run}."
    if "reason" in context:  # a callback of the DAG: the task instance is but one of the run's
        return f"This is about {run}: {ti.log_url.partition('/tasks/')[0]}"
    return f"This is about task {ti.task_id} in {run}: {ti.log_url}"
