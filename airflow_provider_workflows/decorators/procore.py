"""The decorator that turns a function into a task that responds to a step of a Procore workflow instance, once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseSensorOperator
from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_provider_workflows.decorators.signature import arguments_of, call, called_with
from airflow_provider_workflows.exceptions import RESOURCE_ERRORS, TRANSIENT_ERRORS, ConfigurationError
from airflow_provider_workflows.files.object_storage import attached_files
from airflow_provider_workflows.operators.base import Pin
from airflow_provider_workflows.operators.procore.base import ON_STEP_MOVED
from airflow_provider_workflows.operators.procore.respond import MAX_FILE_BYTES, ProcoreRespondOperator
from airflow_provider_workflows.operators.waiting import DEADLINE, Read
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_responses as response_rules
from airflow_provider_workflows.rules.parameters import (
    as_list,
    as_text,
    check_choice,
    check_optional,
    rendered_to_none,
    str_id,
)
from airflow_provider_workflows.sensors.base import WorkflowsSensor
from airflow_provider_workflows.version_compat import XCOM_HOLDS_NONE, task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

    from airflow_provider_workflows.triggers.wakeup import WakeUpTrigger

INSTANCE = "instance"


@dataclass(frozen=True)
class Respond:
    """
    The decision to respond to the step.

    :param option: Label of the response option, in any case, or its id; a label wins over an id.
    :param comment: A note about the response.
    :param files: Paths or URLs of files to upload and attach, one or several, on the worker or in any object storage
        that Airflow knows. A retry may run on another worker: what it must find there belongs in an object storage.
    :param attachments: Ids of what is in Procore already, by kind, such as ``{"file_version_ids": ["1"]}``.
    :param option_type: Type of the option, such as ``approve``; instead of ``option``.
    """

    option: str | int | None = None
    _: KW_ONLY
    comment: str | None = None
    files: Any = None
    attachments: Mapping[str, Sequence[str]] | None = None
    option_type: str | None = None


@dataclass(frozen=True)
class Wait:
    """
    Decide later: nothing is sent, and the task calls the function again after ``poke_interval``.

    :param reason: What the function waits for, for the log.
    """

    reason: str = ""


@dataclass(frozen=True)
class Skip:
    """
    Leave the step to others: nothing is sent, and the task is skipped.

    :param reason: Reason, for the log.
    """

    reason: str = ""


# Options of sensors that this task fixes: it never occupies a worker, and a failed response is not a skip.
FIXED: dict[str, Any] = {
    "mode": "reschedule",
    "soft_fail": False,
    "never_fail": False,
    "silent_fail": False,
    "exponential_backoff": False,
    "max_wait": None,
}


class _ResponseDecoratedOperator(DecoratedOperator, ProcoreRespondOperator, WorkflowsSensor):
    custom_operator_name = "@task.procore_response"
    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        # The instance comes with the arguments of the function, the response from the function.
        "procore_conn_id",
        "company_id",
        "project_id",
        "on_step_moved",
        "dry_run",
    )

    def __init__(self, **kwargs: Any):
        if wrong := sorted(set(kwargs) & NO_OPTIONS):  # includes those of override()
            raise TypeError(f"procore_response takes no option {', '.join(wrong)}.")
        super().__init__(**FIXED, **kwargs)
        self._occurrence_before_sleep: str | None = None
        self._is_occurrence_stored = True
        self._is_waiting = False  # the function has waited before

    def execute(self, context: Context) -> Any:
        self.start_wait(context)
        return self.returned(context, lambda: self.perform(context))

    def start_wait(self, context: Context, key: str = DEADLINE) -> None:
        super().start_wait(context, key)
        self._is_waiting = bool(context.get("task_reschedule_count"))

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Call the function again after a sleep."""
        self.restore_wait(context, event or {})
        self._is_waiting = True
        self._occurrence_before_sleep = (event or {}).get("step_occurrence_id")
        return self.returned(context, lambda: self.perform(context))

    def act(self, context: Context) -> dict[str, Any] | None:
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)
        arguments = arguments_of(self.python_callable, self.op_args, self.op_kwargs)
        for name in ("step_occurrence_id", "tool_type", "project_id"):
            if self.rendered_to_none & {f"op_args: {name}", f"op_kwargs: {INSTANCE}: {name}"}:
                raise rendered_to_none(f"{INSTANCE}: {name}")
        row = self._take_row(arguments.get(INSTANCE))  # expand() allows leaving it out
        decision = Pin(task_state_store(context), f"decision_{self.step_occurrence_id or self.instance_id}", None)
        if decision.value is not None:
            self.log.info("An earlier try decided: %s. The function is not called again.", decision.value)
            self._take_response(decision.value)
            return super().act(context)
        pin = self._occurrence_pin(context)
        instance_id = str(self.instance_id)
        view = self._read_patiently(
            context, lambda: self.first_view(instance_id, (pin.value or {}).get("step_occurrence_id"))
        )
        if pin.is_outdated or decision.is_outdated:
            return self.act(context)
        if view.recorded is None and not view.is_current:
            self.moved(f"{self._over(view, instance_id)} The function was not called.", self.on_step_moved)
            return None
        if view.recorded is None:
            self.check_pending(view)
        # Only now it is certain that the user may respond to this step occurrence.
        self.step_occurrence_id = view.occurrence_id
        if pin.value is None:
            pin.persist({"instance_id": instance_id, "step_occurrence_id": view.occurrence_id})
        if view.recorded is not None:
            self.log.info("The response %r is already recorded; the function is not called.", view.recorded["name"])
            return self._result(view, instance_id, view.recorded, already_recorded=True, confirmed=True)
        instance = self._read_patiently(context, lambda: self._described(row, view.instance, view.step or {}))
        self._rejections = None
        decision.persist(self._decided(context, {**arguments, INSTANCE: instance}))
        # The operator reads again, because the step may have moved while the function ran.
        return super().act(context)

    def _read_patiently(self, context: Context, read: Callable[[], Read]) -> Read:
        """Read; once the function has waited, an error ends the task only when it would end a sensor's wait."""
        try:
            return read()
        except (*TRANSIENT_ERRORS, *RESOURCE_ERRORS) as error:
            if not (self._is_waiting and self._is_occurrence_stored) or self._ends_the_wait(error):
                raise
            self.record_error(error)
            self.check_deadline()
            self._store_polls(context)
            self._sleep(context)

    def _take_row(self, instance: Any) -> Mapping[str, Any]:
        row = instance if isinstance(instance, Mapping) else {"instance_id": instance}
        instance_id = row.get("instance_id")
        if not isinstance(instance_id, (str, int)) or str(instance_id).strip() in ("", "None"):
            raise ConfigurationError(
                f"instance must be a row of ProcoreResponseRequestedSensor, or the id of an instance; got {instance!r}."
            )
        self.instance_id = as_text("instance", instance_id, is_id=True).strip()
        self.item_id = self.tool_subtype = None  # even if a DAG's default_args set them
        self.step_occurrence_id = row.get("step_occurrence_id")
        self.tool_type = row.get("tool_type")
        if self.project_id is None:
            self.project_id = row.get("project_id")
        check_optional(self, "step_occurrence_id", "tool_type", "project_id")
        return row

    def _occurrence_pin(self, context: Context) -> Pin:
        """Return the pin of the step occurrence: given, stored, passed by a wake-up, or not known yet."""
        requested = self._requested_pin()
        if requested is None and task_state_store(context) is None:
            self._is_occurrence_stored = self.deferrable
            if self._occurrence_before_sleep is not None:
                requested = {"instance_id": self.instance_id, "step_occurrence_id": self._occurrence_before_sleep}
        return self.pinned(context, "respond", requested, "step_occurrence_id")

    def _described(self, row: Mapping[str, Any], shown: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
        """Return the function's ``instance``: the row, updated with what was just read."""
        history = self.hook.get_instance_history(str(self.instance_id), project_id=self.level)
        item_id = str_id(shown.get("item_id"))
        return {
            **row,
            **rules.describe_instance(history, instance_id=str(self.instance_id), item_id=item_id),
            **(rules.response_request(shown, self.hook.user_id) or {}),
            "project_id": self.level,
            "assignees": [
                {"id": str_id(person.get("id")), "name": person.get("name"), "login": person.get("login")}
                for person in rules.pending_assignees(step)
            ],
        }

    def _decided(self, context: Context, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Call the function and return its response as parameters of the operator, as JSON primitives."""
        instance = arguments[INSTANCE]
        # The function may change its copy.
        decision = call(self.python_callable, context, {**arguments, INSTANCE: copy.deepcopy(instance)})
        if isinstance(decision, Wait):
            self._delay(context, instance, decision.reason)
        if isinstance(decision, Skip):
            message = f"Skipped instance {self.instance_id}. {decision.reason}".rstrip()
            self.log.info("%s Nothing is sent.", message)
            raise AirflowSkipException(message)
        if not isinstance(decision, Respond):
            raise ConfigurationError(
                f"{self.python_callable.__name__} must return Respond(option), Wait() or Skip() of "
                f"{__name__}; got {decision!r}."
            )
        response = _as_parameters(decision)
        # A response that the operator would reject is not persisted, so a retry may decide again.
        self._take_response(response)
        self._check_parameters()
        response_rules.choose_option(instance["options"], **self._requested())
        attached_files("files", self.files, largest=MAX_FILE_BYTES)
        return response

    def _take_response(self, response: Mapping[str, Any]) -> None:
        for name, value in response.items():
            setattr(self, name, value)

    def _delay(self, context: Context, instance: Mapping[str, Any], reason: str) -> NoReturn:
        pending_with = ", ".join(str(assignee["name"]) for assignee in instance["assignees"])
        self._last_poll = (
            f"Instance {self.instance_id} has been at step {instance['step']!r} since {instance['step_started_at']}, "
            f"pending with {pending_with}; the function waits{f': {reason}' if reason else ''}."
        )
        self._last_error = ""
        self.check_deadline()
        if not self._is_occurrence_stored:
            raise ConfigurationError(
                "Wait() needs the step occurrence before Airflow 3.3, or the next call could respond to another one. "
                "Call the task with a row of ProcoreResponseRequestedSensor instead of an id, or set deferrable=True."
            )
        self._store_polls(context)
        self._sleep(context)

    def _sleep(self, context: Context) -> NoReturn:
        """Release the worker until the next call of the function."""
        self.log.info(
            "%s The next call is in %g s, until %s at most.", self.standing, self.poke_interval, self._deadline
        )
        if self.deferrable:
            self.defer_to(self.build_trigger())
        BaseSensorOperator.execute(self, context)  # raises AirflowRescheduleException, because poke() returns False
        raise AssertionError

    def poke(self, context: Context) -> bool:
        return False

    def build_trigger(self) -> WakeUpTrigger:  # type: ignore[override]  # the function decides, not a trigger
        return self.wake_up()

    def wake_up_event(self) -> dict[str, Any]:
        occurrence_id = str_id(self.step_occurrence_id) or self._occurrence_before_sleep
        return {**super().wake_up_event(), "step_occurrence_id": occurrence_id}


# The response comes from the function, and the instance with its arguments.
NO_OPTIONS = {*FIXED, *ProcoreRespondOperator.template_fields} - {*_ResponseDecoratedOperator.template_fields}


def _as_parameters(response: Respond) -> dict[str, Any]:
    files = None if response.files is None else [str(file) for file in as_list(response.files)]
    values = {
        "option": response.option,
        "option_type": response.option_type,
        "comment": response.comment,
    }
    texts = {name: None if value is None else as_text(name, value).strip() for name, value in values.items()}
    return {**texts, "files": files, "attachments": rules.attachment_ids(response.attachments)}


def procore_response(
    python_callable: Callable[..., Any] | None = None,
    *,
    procore_conn_id: str | None = None,
    company_id: str | int | None = None,
    project_id: str | int | None = None,
    on_step_moved: str | None = None,
    confirm_timeout: timedelta | float | None = None,
    timeout: timedelta | float | None = None,
    poke_interval: timedelta | float | None = None,
    deferrable: bool | None = None,
    dry_run: bool | str | None = None,
    **kwargs: Any,
) -> Any:
    """
    Turn a function that decides how to respond to a step of a Procore workflow instance (Workflows v2) into a task.

    Also available as ``@task.procore_response``. The function's parameter ``instance`` describes the instance. The
    function returns :class:`Respond`, :class:`Wait` or :class:`Skip`. The task reads, calls the function, persists the
    response in Airflow's task state store, reads again, sends and verifies, as ``ProcoreRespondOperator`` does: a
    retry sends the same response and does not call the function again. ``Wait`` and ``Skip`` are not persisted. If the
    response of the connection's user is already recorded, or the step is over, the function is not called.

    Call the task with ``instance``, a row of ``ProcoreResponseRequestedSensor`` (or the id of an instance), and the
    function's other arguments, or map it over them with ``expand``. The response is bound to the row's step
    occurrence, or with only an id to the first one that waits for the user, as with ``ProcoreRespondOperator``.
    Parameters of the function that are named as in Airflow's context receive those values.

    ``instance`` is the row, updated with what was just read: ``{instance_id, item_id,
    tool_type, project_id, step, step_occurrence_id, step_started_at, overdue_at, options: [{id, name, type}],
    assignees: [{id, name, login}], state, item_status, decision, last_response: {option, type, comment, by, at},
    started_at, ended_at, blocked_reason, ambiguous}``. ``assignees`` have not responded to the step yet; the
    connection's user is one of them. ``decision`` is the decision of the step before, as ``ProcoreInstanceSensor``
    returns it. ``last_response`` is None before the first response. Times are the API's own strings.

    ``Wait()`` releases the worker: the task is deferred, or rescheduled if it is not deferrable, and calls the function
    again after ``poke_interval``. ``timeout`` is wall-clock from the first try on.

    Before Airflow 3.3 there is no such store: a retry calls the function again unless the response is recorded, and an
    id without its row requires ``retries=0``.

    Returns what ``ProcoreRespondOperator`` returns: ``{instance_id, item_id, project_id, step, step_occurrence_id,
    option, option_id, type, matched_by, comment, user_id, already_recorded, confirmed}``, or None with
    ``on_step_moved="succeed"``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param procore_conn_id: Id of a connection of type ``procore``; default ``procore_default`` (templated).
    :param company_id: Company id; overrides the connection's (templated).
    :param project_id: Project id, or ``company``; default: the row's (templated).
    :param on_step_moved: What to do if the row's step occurrence is over, or the instance ended, without a response of
        the connection's user: ``fail`` (default), ``skip`` or ``succeed`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, for which the task reads the response back; default 60.
    :param timeout: Seconds, or a timedelta, until the function must have decided; default: Airflow's setting
        ``[sensors] default_timeout``, 7 days. From Airflow 3.3 on it survives retries.
    :param poke_interval: Seconds, or a timedelta, between two calls of a function that waits; by default
        ``[workflows] poke_interval``, else 60. At least a minute if the task is not deferrable.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :param dry_run: Only read and call the function, and return what would be sent: ``{dry_run: True, would_send:
        [{method, path, body}], ...}`` (templated).
    :raises ConfigurationError: the function returned something else; the option does not exist; the step does not wait
        for the connection's user.
    :raises AirflowSensorTimeout: the function still waits when the deadline has passed; never retried.
    :raises ResponseConflict: another option is already recorded at this step; never retried.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: the response may have been sent, but the history does not show it; never retried.
    """
    if wrong := sorted(set(kwargs) & NO_OPTIONS):  # fails in the line of the DAG that is wrong
        raise TypeError(f"procore_response takes no option {', '.join(wrong)}.")
    own = {
        "procore_conn_id": procore_conn_id,
        "company_id": company_id,
        "project_id": project_id,
        "on_step_moved": on_step_moved,
        "confirm_timeout": confirm_timeout,
        "timeout": timeout,
        "poke_interval": poke_interval,
        "deferrable": deferrable,
        "dry_run": dry_run,
    }
    # An option that is not given is left to a DAG's default_args.
    present = {name: value for name, value in own.items() if value is not None}
    options = {"multiple_outputs": XCOM_HOLDS_NONE, **present, **kwargs}

    def decorate(function: Callable[..., Any]) -> Any:
        return task_decorator_factory(
            called_with(function, INSTANCE), decorated_operator_class=_ResponseDecoratedOperator, **options
        )

    return decorate if python_callable is None else decorate(python_callable)
