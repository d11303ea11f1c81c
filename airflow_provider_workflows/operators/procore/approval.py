"""The operator that has a Procore step (Workflows v2) decided in Airflow or in Procore, whichever responds first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import ConfigurationError, ResponseConflict, StepMoved, WorkflowsError
from airflow_provider_workflows.operators.base import Pin, WaitingOperator
from airflow_provider_workflows.operators.dry_run import dry_run_context
from airflow_provider_workflows.operators.procore.base import (
    ACCEPTED,
    ON_STEP_MOVED,
    REJECTED,
    SERVER_FAILED,
    UNKNOWN,
    ProcoreInstanceOperator,
)
from airflow_provider_workflows.operators.procore.respond import ProcoreRespondOperator
from airflow_provider_workflows.operators.procore.step_response import View
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_approval as approval
from airflow_provider_workflows.rules.parameters import as_list, check_choice, check_optional, str_id
from airflow_provider_workflows.rules.procore_approval import Choice
from airflow_provider_workflows.version_compat import (
    lasting_state_store,
    require_responses_in_airflow,
    task_state_store,
)

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.rules.procore_decisions import Timeline
    from airflow_provider_workflows.triggers.procore_approval import ProcoreApprovalWaitTrigger

CHOICE = "choice"  # key in the task state store: what a person chose in Airflow
REQUEST = "request"  # likewise: the request in Required Actions, since the task was last cleared
SHOWN_REQUEST = "required_action"  # likewise: the same, but Airflow keeps a request when a task is cleared
AIRFLOW, PROCORE, UNCLEAR = "airflow", "procore", "unknown"  # where a response was given
# Parameters of the base classes that a person decides, or that this operator fixes.


class ProcoreApprovalOperator(ProcoreRespondOperator, WaitingOperator):
    """
    Have a step that waits for the connection's user decided in Airflow or in Procore, whichever responds first.

    Needs Airflow 3.3 and a triggerer. While the task is deferred, the step appears in Airflow's Required Actions with
    its response options as the choices. A choice there is sent to Procore once, as the connection's user, with the
    Airflow user and an optional note in the comment. If the step is decided in Procore first, moves on or ends, the
    task ends with that and its request leaves Required Actions.

    The task is bound to one step occurrence, like ``ProcoreRespondOperator``: ``step_occurrence_id``, or the one that
    the first try finds. A choice is stored in Airflow's task state store before anything else, and a retry sends it
    without asking again. A cleared task asks again; Airflow then shows the request of before the clear, so the task
    fails if that one is about another step occurrence, or with other fields or users.

    Returns ``{instance_id, item_id, project_id, step, step_occurrence_id, option, option_id, type, matched_by, comment,
    user_id, already_recorded, confirmed, responded_in, responded_by, responded_by_id, responded_at, note, decision}``.
    ``responded_in`` is ``airflow``, ``procore``, None if the step is over and the record shows no decision, or
    ``unknown``: the record shows the option that was sent, but not whether it is this task's response. ``responded_by``
    is the name of the Airflow user, or the login or name of the Procore user. ``decision`` is that of the step, as
    ``ProcoreInstanceSensor`` returns it, if others have decided it in Procore; ``option`` is None if it is not certain.
    ``already_recorded`` and ``confirmed`` are as for ``ProcoreRespondOperator``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance to decide about (templated).
    :param step_occurrence_id: The step occurrence to decide about (templated).
    :param fields: Further values that the request shows, by their labels, such as ``{"Amount": "1,200 EUR"}``
        (templated). A text is shown as it is, also with ``render_template_as_native_obj``; a template that is then
        rendered to a number with a fraction, a tuple or a list is an error.
    :param assigned_users: The Airflow users who may respond, as in Airflow's ``HITLOperator``: ``{"id", "name"}`` or a
        list of them. Default: everybody with the permission.
    :param on_step_moved: What to do when the step is over and the record shows no decision: ``succeed`` (default),
        ``skip`` or ``fail`` (templated).
    :param confirm_timeout: Seconds, or a timedelta, to poll for the response after it was sent; default 60.
    :param wait_timeout: Seconds, or a timedelta, that the wait may take, wall-clock over all retries; default 7 days.
    :param poll_interval: Seconds between two polls of Procore; by default ``[workflows] poke_interval``, else 60.
    :param dry_run: Let people choose as usual, and then return what would be sent, as ``{dry_run: True, would_send:
        [{method, path, body}], ...}``; the request says so (templated).
    :raises ConfigurationError: Airflow is older than 3.3; a parameter is missing or wrong; the step does not wait for
        the user, or no longer offers the chosen option; the request of a cleared task cannot be replaced.
    :raises ResponseConflict: the user's recorded response cannot be compared with the choice; never retried.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: the response may have been recorded, and the record does not show it; never retried.
    :raises AirflowFailException: no response within ``wait_timeout``.
    """

    # Parameters of the base classes; a person decides, not the DAG file.
    not_taken = frozenset({"option", "option_type", "comment", "attachments", "files", "deferrable"})
    template_fields: Sequence[str] = (
        *ProcoreInstanceOperator.template_fields,
        "step_occurrence_id",
        "fields",
        "on_step_moved",
    )
    template_fields_renderers = {"fields": "json"}

    def __init__(
        self,
        *,
        step_occurrence_id: str | int | None = None,
        fields: Mapping[str, Any] | None = None,
        assigned_users: Any = None,
        on_step_moved: str = "succeed",
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        if wrong := sorted(set(kwargs) & self.not_taken):
            raise TypeError(f"ProcoreApprovalOperator takes no parameter {', '.join(wrong)}.")
        super().__init__(
            step_occurrence_id=step_occurrence_id,
            on_step_moved=on_step_moved,
            confirm_timeout=confirm_timeout,
            deferrable=True,  # only a deferred task appears in Required Actions
            **kwargs,
        )
        self.fields = fields
        self._given_fields = fields
        self.assigned_users = assigned_users
        # A person decides, not a DAG's default_args.
        self.option = self.option_type = self.comment = self.attachments = self.files = None
        self._choice: Choice | None = None
        self._is_rejected = False  # the response that this try has sent

    def execute(self, context: Context) -> Any:
        require_responses_in_airflow(type(self).__name__)
        return super().execute(context)

    def act(self, context: Context) -> dict[str, Any] | None:
        self._check_parameters()
        pin, by_item = self.read_pins(context)
        choice = Choice.from_dict(Pin(self._store, CHOICE, None).value)
        if choice is not None:
            self.log.info("An earlier try has received the choice %r of %s. Sending it.", choice.option, choice.who)
            return self._send(context, choice)
        self.start_wait(context)
        instance_id, occurrence_id = self.target(pin, by_item)
        view = self.first_view(instance_id, occurrence_id)
        if pin.is_outdated:
            return self.act(context)
        request = Pin(self._store, REQUEST, None)
        if view.occurrence_id is None or not view.waits:
            if view.recorded is None and view.is_current and request.value is None:
                self.check_pending(view)
            return self._ended_in_procore(view, instance_id)
        # Only now it is certain that this step occurrence waits for the user's response.
        self.bind(pin, by_item, instance_id, view)
        return self._wait_for_response(context, view, instance_id, request)

    def execute_complete(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Resume with a choice, in Airflow's event or in the trigger's, or with what the trigger saw in Procore."""
        choice = Choice.of(event)
        if choice is not None:  # before anything else: a worker cannot read it in Airflow a second time
            stored = Pin(task_state_store(context), CHOICE, None)
            if stored.value is None:
                stored.persist(choice.to_dict())
            # Of two clicks at the same moment Airflow can accept both; the first one that arrives here counts.
            choice = Choice.from_dict(stored.value)
        return self.returned(context, lambda: self._perform(lambda: self._resume(context, choice, event)))

    def perform(self, context: Context) -> Any:
        # People choose in a dry run, too, so the task stores its request and their choice as usual.
        return self._perform(lambda: self.act(context))

    def _perform(self, act: Callable[[], Any]) -> Any:
        self.start_dry_run()
        return self.or_would_send(act)

    def _resume(self, context: Context, choice: Choice | None, event: Mapping[str, Any] | None) -> Any:
        self._check_parameters()
        pin, by_item = self.read_pins(context)
        if choice is not None:
            self.log.info("%s chose %r in Airflow. Sending it.", choice.who, choice.option)
            return self._send(context, choice)
        is_ended_by_airflow = isinstance(event, Mapping) and event.get("status") == "poke"
        if not is_ended_by_airflow:
            self.finish(context, self.checked_result(event))
        instance_id, occurrence_id = self.target(pin, by_item)
        view = self.first_view(instance_id, occurrence_id)
        if not view.waits:
            return self._ended_in_procore(view, instance_id)
        self.log.info("Step occurrence %s still waits for the connection's user; so does the task.", occurrence_id)
        self.start_wait(context)
        self.check_deadline()
        # The request stays as it is: to create it again would delete a response that was given in the meantime.
        return self._defer(context, self._trigger(context, view, instance_id))

    def finish(self, context: Context, response: Mapping[str, Any]) -> None:
        """Log what the trigger saw; the task reads Procore itself before it ends with that."""
        self.log.info("%s", response["reason"])

    def _check_parameters(self) -> None:
        self.check_instance()
        self.check_wait()
        check_optional(self, "step_occurrence_id")
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)
        if self.fields is not None and not isinstance(self.fields, Mapping):
            raise ConfigurationError(f"fields must be a mapping of labels to values; got {self.fields!r}.")
        for label in self.fields or {}:
            if not str(label).strip():
                raise ConfigurationError("fields has an empty label. Name every value.")
        self.fields = approval.with_original_text(self.fields or {}, self._given_fields)
        self._assigned_users()

    def _assigned_users(self) -> list[dict[str, str]]:
        users = [] if self.assigned_users is None else as_list(self.assigned_users)
        for user in users:
            if not isinstance(user, Mapping) or any(str(user.get(key) or "").strip() == "" for key in ("id", "name")):
                raise ConfigurationError(
                    'assigned_users must be a user of Airflow or a list of them, each {"id": ..., "name": ...}; got '
                    f"{user!r}."
                )
        return [{"id": str(user["id"]).strip(), "name": str(user["name"])} for user in users]

    # --- the request in Required Actions ---

    def _wait_for_response(self, context: Context, view: View, instance_id: str, request: Pin) -> NoReturn:
        """Create the task's request, unless an earlier try has done so, and defer."""
        step = view.step or {}
        choices = approval.choices_of(rules.response_options(step))
        fields = dict(self.fields or {})
        users = self._assigned_users()
        self.check_deadline()
        trigger = self._trigger(context, view, instance_id)
        self.poll(context, trigger)  # for the log, and for the description of the wait
        is_dry_run = self.hook.dry_run
        texts = {str(label): str(value) for label, value in fields.items()}
        content = [view.occurrence_id, list(choices), texts, users, is_dry_run]
        described = {
            "step_occurrence_id": view.occurrence_id,
            "choices": choices,
            "dry_run": is_dry_run,
            "content": hashlib.sha256(json.dumps(content).encode()).hexdigest(),
        }
        self._check_shown(context, request.value, described)
        # Airflow moves the request to the next try, with its response, and would delete the response now.
        if request.value is None:
            from airflow_provider_workflows.triggers.required_actions import create_request  # likewise

            create_request(
                context,
                subject=approval.subject_of(view.instance, step),
                body=approval.body_of(view.instance, step, fields, self.item_url, is_dry_run=is_dry_run),
                options=list(choices),
                params=approval.NOTE_FIELD,
                assigned_users=users,
            )
            request.persist(described)
            Pin(lasting_state_store(context), SHOWN_REQUEST, None).persist(described)
        self._defer(context, trigger)

    def _check_shown(self, context: Context, request: Mapping[str, Any] | None, described: Mapping[str, Any]) -> None:
        """Require that Airflow does not show another request of this task, which nothing can replace."""
        if request is not None:  # a retry still waits with the text of the first try
            shown, is_same = request, request["step_occurrence_id"] == described["step_occurrence_id"]
        else:
            shown = Pin(lasting_state_store(context), SHOWN_REQUEST, None).value or described
            is_same = shown["content"] == described["content"]
        if is_same:
            return
        raise ConfigurationError(
            f"Airflow keeps the request of an earlier try or run of this task, about step occurrence "
            f"{shown['step_occurrence_id']}, and shows it instead of one about step occurrence "
            f"{described['step_occurrence_id']} with its current options, fields and users. People would decide about "
            "something else. Start a new DAG run instead of clearing the task, or respond in Procore."
        )

    def _trigger(self, context: Context, view: View, instance_id: str) -> ProcoreApprovalWaitTrigger:
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.procore_approval import ProcoreApprovalWaitTrigger

        return ProcoreApprovalWaitTrigger(
            procore_conn_id=self.procore_conn_id,
            company_id=str_id(self.company_id),
            project_id=self.level,
            instance_id=instance_id,
            tool_type=str_id(view.instance.get("tool_type")) or self.tool_type,
            tool_subtype=str_id(view.instance.get("tool_subtype")) or str_id(self.tool_subtype),
            item_id=str_id(view.instance.get("item_id")),
            step_occurrence_id=str(view.occurrence_id),
            user_id=view.user_id,
            ti_id=str(context["ti"].id),
            poll_interval=self.poll_interval,
            deadline=self.deadline,
        )

    def _defer(self, context: Context, trigger: ProcoreApprovalWaitTrigger) -> NoReturn:
        how = (
            f"in Airflow's Required Actions and in Procore, which the triggerer polls every {self.poll_interval:.0f} s"
        )
        self.go_on(context, trigger, how)
        self.defer_to(trigger)

    # --- a choice in Airflow ---

    def _send(self, context: Context, choice: Choice) -> dict[str, Any] | None:
        """Send a choice to Procore, or return what was decided in Procore before it."""
        self._choice = choice
        request = Pin(self._store, REQUEST, None).value or {}
        if request.get("dry_run"):  # the request said that the choice is not sent
            self.hook.start_dry_run()
        self.option = (request.get("choices") or {}).get(choice.option, choice.option)
        self.comment = choice.comment
        try:
            return super().act(dry_run_context(context, lambda: self.hook.dry_run))
        except (StepMoved, ResponseConflict) as too_late:
            self.log.info("%s", describe(too_late))
            instance_id, occurrence_id = self.target(*self.read_pins(context))
            view = self.first_view(instance_id, occurrence_id)
            is_sent = self._earlier_choice(view.occurrence_id).get("outcome") in (UNKNOWN, ACCEPTED, SERVER_FAILED)
            may_be_own = is_sent and view.recorded is not None and self._compare(view)[0] is not False
            if view.waits or may_be_own:
                raise
            return self._ended_in_procore(view, instance_id)

    def _rejected(self, rejection: WorkflowsError, instance_id: str, chosen: Mapping[str, Any]) -> Any:
        self._is_rejected = isinstance(rejection, REJECTED)
        return super()._rejected(rejection, instance_id, chosen)

    def moved(self, message: str, on_step_moved: str) -> None:
        """Raise, because the task ends with what was decided in Procore instead."""
        raise StepMoved(message)

    def _result(self, view: View, instance_id: str, response: Mapping[str, Any], **recorded: bool) -> dict[str, Any]:
        """Return the task's result for a response of the connection's user, whoever of the two has given it."""
        assert self._choice is not None
        result = super()._result(view, instance_id, response, **recorded)
        source = AIRFLOW if view.recorded is None else self._source(view)
        if source == PROCORE:
            return self._report(
                view, instance_id, {**response, "comment": (view.recorded or {}).get("comment")}, source
            )
        return self._with_source(result, source, by=self._choice.by, by_id=self._choice.by_id, at=self._choice.at)

    def _source(self, view: View) -> str:
        """Return where the recorded response of the connection's user was given; its comment names the Airflow user."""
        outcome = self._earlier_choice(view.occurrence_id).get("outcome")
        if outcome == ACCEPTED:
            return AIRFLOW
        if outcome not in (UNKNOWN, SERVER_FAILED):  # none was sent, or Procore has rejected it
            return PROCORE
        comment = str((view.recorded or {}).get("comment") or "").split()
        if not comment:
            return PROCORE if self._is_rejected else UNCLEAR
        return AIRFLOW if comment == str(self._comment_at(view.occurrence_id)).split() else PROCORE

    # --- what was decided in Procore ---

    def _ended_in_procore(self, view: View, instance_id: str) -> dict[str, Any]:
        """Return the task's result for a step occurrence that no longer waits, or end the task."""
        if view.recorded is not None:
            return self._report(view, instance_id, view.recorded, PROCORE)
        decision, step = self._decision(view, instance_id)
        if decision is not None:
            self.log.info("Step %r was %s.", step, rules.describe_decision(decision))
            is_certain = decision["problem"] is None
            option = {"name": decision["option"], "type": decision["type"]} if is_certain else {}
            return self._report(view, instance_id, {"step": step, **option}, PROCORE, decision)
        over = view.occurrence_id is None or not view.is_current
        super().moved(
            self._over(view, instance_id)
            if over
            else f"Step occurrence {view.occurrence_id} of instance {instance_id} no longer waits for user "
            f"{view.user_id}.",
            self.on_step_moved,
        )
        result = super()._result(view, instance_id, {"step": step}, already_recorded=False, confirmed=False)
        return self._with_source(result, None)

    def _decision(self, view: View, instance_id: str) -> tuple[dict[str, Any] | None, Any]:
        """Return the decision at a step occurrence, None if the record shows none, and the name of the step."""

        def read() -> Timeline:
            return rules.timeline_of(self.hook.get_instance_history(instance_id, project_id=self.level))

        def decided(history: Timeline) -> dict[str, Any] | None:
            step = approval.occurrence_in(history, str(view.occurrence_id))
            return None if step is None else history.decision_at(step)

        history = poll_until(
            read,
            lambda history: decided(history) is not None or history.state in rules.ENDED_STATES,
            self.confirm_timeout,
        )
        if history is None:
            raise WorkflowsError(
                f"Step occurrence {view.occurrence_id} of instance {instance_id} no longer waits, and its history "
                "cannot be read. Nothing was sent; a retry reads it again."
            )
        step = approval.occurrence_in(history, str(view.occurrence_id))
        return decided(history), None if step is None else step.details.get("name")

    def _report(
        self,
        view: View,
        instance_id: str,
        response: Mapping[str, Any],
        source: str,
        decision: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return the task's result for a response or a decision in Procore."""
        result = super()._result(view, instance_id, response, already_recorded=True, confirmed=True)
        if decision is not None:
            return self._with_source(result, source, by=decision["by"], at=decision["at"], decision=dict(decision))
        at = (view.recorded or {}).get("at")
        return self._with_source(result, source, by=self.hook.user_login, by_id=view.user_id, at=at)

    def _with_source(
        self,
        result: Mapping[str, Any],
        source: str | None,
        *,
        by: Any = None,
        by_id: Any = None,
        at: Any = None,
        decision: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        note = None if self._choice is None or source != AIRFLOW else self._choice.note
        who = {"responded_in": source, "responded_by": by, "responded_by_id": by_id, "responded_at": at}
        return {**result, **who, "note": note, "decision": decision}

    # --- the end of the wait ---

    def give_up(self, message: str, error: WorkflowsError | None = None) -> NoReturn:
        raise WorkflowsError(
            f"{message.rstrip('.')}. The wait failed, and the step still waits in Procore. A retry waits with the same "
            "request."
        ) from error

    def time_out(self, last_poll: str) -> NoReturn:
        raise AirflowFailException(
            f"WaitFailed: no response within {timedelta(seconds=self.wait_timeout)}, neither in Airflow nor in "
            f"Procore. Nothing was sent. {last_poll}".rstrip()
        )
