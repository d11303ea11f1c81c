"""Notifier that leaves word in Workflowsoft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from airflow_provider_workflows.exceptions import NOTHING_DONE, WorkflowsError
from airflow_provider_workflows.notifications.claims import Claim
from airflow_provider_workflows.rules.parameters import check_given, check_rendered, check_required, str_id

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook


class WorkflowsoftTaskNotifier(BaseNotifier):
    """
    Creates a task in Workflowsoft, at most once per DAG run and message.

    For ``on_failure_callback`` and the like of a task or a DAG, and for an ``AsyncCallback`` of a deadline alert; not
    for a ``SyncCallback``, where Airflow lets nobody write a Variable. What goes wrong is in the log and fails no DAG.

    The message is connection, title, assignee and the description as it was given. Tasks that fail at the same
    moment on several workers, a callback that Airflow runs twice, and a run that is cleared and fails again make
    one task. Airflow remembers it in a Variable for each DAG, ``workflowsoft_tasks_<dag_id>``, which keeps the
    newest 200 messages. Claiming takes 2 to 3 seconds. Without that memory, or where Airflow takes longer than a
    second for it, nothing is sent. When the answer of Workflowsoft is lost nothing is sent again, so there may be
    no task; when it rejects, the next callback of the run tries again.

    :param title: Title of the task, such as ``{{ dag.dag_id }} failed``; in a deadline alert
        ``{{ dag_run.dag_id }}``, for there is no ``dag`` (templated).
    :param on_behalf_of: E-mail address or id of the user who creates it (templated).
    :param assigned_to: E-mail address or id of the user who is to do it; default: ``on_behalf_of`` (templated).
    :param description: Text of the task; default: DAG, run, task and the address of the log (templated).
    :param workflowsoft_conn_id: Id of a connection of type ``workflowsoft`` (templated).
    """

    template_fields: Sequence[str] = ("workflowsoft_conn_id", "title", "on_behalf_of", "assigned_to", "description")

    def __init__(
        self,
        *,
        title: str,
        on_behalf_of: str | int,
        assigned_to: str | int | None = None,
        description: str | None = None,
        workflowsoft_conn_id: str = "workflowsoft_default",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.title = title
        self.on_behalf_of = on_behalf_of
        self.assigned_to = assigned_to
        self.description = description
        self.workflowsoft_conn_id = workflowsoft_conn_id

    def __call__(self, *args: Any) -> None:
        try:
            # Rendering replaces the templates, which other tasks and runs in the same process need too.
            BaseNotifier.__call__(copy(self), *args)
        except Exception:
            self.log.exception("No task was created in Workflowsoft.")

    def notify(self, context: Context) -> None:
        try:
            self._notify(context)
        except Exception as error:
            self._log_failure(error)

    async def async_notify(self, context: Context) -> None:
        try:
            await self._anotify(context)
        except Exception as error:
            self._log_failure(error)

    def _notify(self, context: Context) -> None:
        claim = self._claim(context)
        hook = self._hook()
        try:
            people = self._find_people(hook)
            if not claim.take():
                self._log_done()
                return
            try:
                self._create(hook, people, context)
            except NOTHING_DONE as rejected:
                self._log_failure(rejected)
                claim.withdraw()
        finally:
            hook.close()

    async def _anotify(self, context: Context) -> None:
        from airflow_provider_workflows.polling.channel import in_new_thread

        claim = self._claim(context)
        hook = self._hook()
        try:
            await hook.prepare()
            people = await in_new_thread(self._find_people, hook)
            if not await claim.atake():
                self._log_done()
                return
            try:
                await in_new_thread(self._create, hook, people, context)
            except NOTHING_DONE as rejected:
                self._log_failure(rejected)
                await claim.awithdraw()
        finally:
            hook.close()

    def _claim(self, context: Context) -> Claim:
        """Check the rendered parameters and return the claim to this message about this run."""
        check_rendered(self)
        check_required(workflowsoft_conn_id=self.workflowsoft_conn_id, title=self.title, on_behalf_of=self.on_behalf_of)
        check_given(self, "assigned_to")
        who = str_id(self.on_behalf_of if self.assigned_to is None else self.assigned_to)
        return Claim(*_run_of(context), [self.workflowsoft_conn_id, self.title, who, self.description])

    def _hook(self) -> WorkflowsoftHook:
        from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

        return WorkflowsoftHook(self.workflowsoft_conn_id)

    def _find_people(self, hook: WorkflowsoftHook) -> tuple[str, str | None]:
        """Return the ids of both users; signed in, for after the claim it is too late to fail at that."""
        hook.get_api_token()
        by = hook.find_user_id(str(self.on_behalf_of).strip(), parameter="on_behalf_of")
        if self.assigned_to is None:
            return by, None
        return by, hook.find_user_id(str(self.assigned_to).strip(), parameter="assigned_to")

    def _create(self, hook: WorkflowsoftHook, people: tuple[str, str | None], context: Context) -> None:
        by, to = people
        text = _whereabouts(context) if self.description is None else self.description
        created = hook.create_task(self.title, on_behalf_of=by, assigned_to=to, description=text)
        self.log.info("Created task %s in Workflowsoft: %s", created["id"], self.title)

    def _log_done(self) -> None:
        self.log.info("This run has had its task in Workflowsoft: %s", self.title)

    def _log_failure(self, error: Exception) -> None:
        # The texts of our own errors say what to do; of others only the traceback may.
        details = None if isinstance(error, WorkflowsError) else error
        self.log.error("No task is known to be created in Workflowsoft. %s", error, exc_info=details)


def _run_of(context: Context) -> tuple[str, str]:
    """Return the ids of the DAG and its run."""
    run: Any = context.get("dag_run")
    if isinstance(run, Mapping):  # a deadline alert
        return run["dag_id"], run["dag_run_id"]
    return context["dag"].dag_id, context["run_id"]


def _whereabouts(context: Context) -> str:
    """Say what the task is about, and where to look."""
    dag_id, run_id = _run_of(context)
    run = f"run {run_id} of DAG {dag_id} in Airflow"
    ti: Any = context.get("ti")
    if ti is None:
        return f"This is about {run}."
    if "reason" in context:  # a callback of the DAG: the task instance is but one of the run's
        return f"This is about {run}: {ti.log_url.partition('/tasks/')[0]}"
    return f"This is about task {ti.task_id} in {run}: {ti.log_url}"
