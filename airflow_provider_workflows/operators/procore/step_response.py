"""How one response to one step occurrence is sent once, and its outcome found; without Airflow's operators."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    ApiError,
    ConfigurationError,
    OutcomeUnknown,
    ResponseConflict,
    ServerError,
    WorkflowsError,
)
from airflow_provider_workflows.links.airflow import with_footer
from airflow_provider_workflows.operators.procore.base import (
    ACCEPTED,
    NOT_ACCEPTED,
    PERHAPS_MOVED,
    REJECTED,
    SERVER_FAILED,
    UNKNOWN,
)
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until, resolve_unknown_outcome
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_responses as response_rules
from airflow_provider_workflows.rules.parameters import str_id
from airflow_provider_workflows.rules.payload import is_same_comment

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.operators.base import Pin


class View(NamedTuple):
    """
    Hold what one read of Procore shows of a step occurrence and of a user's response to it.

    :param instance: The instance.
    :param occurrence_id: The step occurrence; None if none was given and the instance has no current step.
    :param user_id: The user.
    :param recorded: The user's response, or None.
    :param unreadable: Why the history could not be read, the only record of a step that is over; or None.
    """

    instance: Mapping[str, Any]
    occurrence_id: str | None
    user_id: str
    recorded: Mapping[str, Any] | None = None
    unreadable: ApiError | None = None

    @property
    def step(self) -> Mapping[str, Any] | None:
        return rules.current_step(self.instance)

    @property
    def is_current(self) -> bool:
        """Whether the step occurrence is the current step of the instance."""
        step = self.step
        return step is not None and str(step["id"]) == self.occurrence_id

    @property
    def is_over(self) -> bool:
        """Whether the step occurrence is certainly over; between two steps this is not certain."""
        return rules.has_ended(self.instance) or (self.step is not None and not self.is_current)

    @property
    def waits(self) -> bool:
        """Whether the step occurrence waits for the user."""
        step = self.step
        return step is not None and self.is_current and rules.is_pending(step, self.user_id)

    @property
    def is_between(self) -> bool:
        """Whether to read again: the view shows neither a response nor the position of the instance."""
        return self.recorded is None and self.unreadable is None and rules.is_between_steps(self.instance)

    @property
    def where(self) -> str:
        """The position of the instance, as the end of a sentence."""
        step = self.step
        if step is not None:
            return f"is now at {step.get('name')!r} ({step['id']})"
        return "has ended" if rules.has_ended(self.instance) else "is between two steps"


class StepResponder(ABC):
    """
    Send one response to one step occurrence once, find out its outcome, and describe it.

    The operators mix it in, or create it for each response; the attributes below are what it needs of them.
    """

    procore_conn_id: str
    option: Any
    option_type: str | None
    comment: str | None
    on_step_moved: str
    _stored: Pin  # of the chosen option and its outcome
    decided_at: str | None = None  # time of the recorded response
    _footer: str | None = None  # the end of the comment, unless an earlier try has fixed it

    @property
    @abstractmethod
    def hook(self) -> ProcoreHook: ...

    @property
    @abstractmethod
    def level(self) -> str: ...

    @property
    @abstractmethod
    def confirm_timeout(self) -> float: ...

    @property
    @abstractmethod
    def log(self) -> Any: ...

    @abstractmethod
    def show(self, instance_id: str) -> dict[str, Any]:
        """Read an instance."""

    @abstractmethod
    def moved(self, message: str, on_step_moved: str) -> None:
        """End the response, because its step occurrence is over."""

    def _requested(self) -> dict[str, str | None]:
        return {"option": str_id(self.option), "option_type": self.option_type}

    # --- reading the record ---

    def view(self, instance_id: str, occurrence_id: str | None) -> View:
        """
        Read an instance, and the user's response at a step occurrence.

        :param occurrence_id: The step occurrence; None for the current step of the instance.
        """
        user_id = self.hook.user_id
        instance = self.show(instance_id)
        step = rules.current_step(instance)
        occurrence_id = occurrence_id or (None if step is None else str(step["id"]))
        if occurrence_id is None:
            return View(instance, None, user_id)
        if step is not None and str(step["id"]) == occurrence_id:
            recorded = response_rules.recorded_response(instance, occurrence_id, user_id)
            return View(instance, occurrence_id, user_id, recorded)
        try:
            history = self.hook.get_instance_history(instance_id, project_id=self.level)
            recorded = response_rules.recorded_in_history(history, occurrence_id, user_id)
        except ApiError as unreadable:
            return View(instance, occurrence_id, user_id, unreadable=unreadable)
        return View(instance, occurrence_id, user_id, recorded)

    def _view_after_sending(self, instance_id: str, occurrence_id: str) -> View:
        """Poll until the record shows the response that an earlier try has sent, or the step is still current."""
        self.log.info("An earlier try of this task has sent a response. Polling for its outcome.")
        read = partial(self.view, instance_id, occurrence_id)
        view = poll_until(read, lambda view: view.recorded is not None or view.is_current, self.confirm_timeout)
        if view is None or (view.recorded is None and not view.is_current):
            option = self._earlier_choice(occurrence_id).get("name")
            record = "the record cannot be read" if view is None else self._no_record(view)
            raise OutcomeUnknown(
                f"An earlier try of this task has sent the response {option!r} to step occurrence {occurrence_id} of "
                f"instance {instance_id}; {record}"
            )
        return view

    def _accepted_before(self, instance_id: str, occurrence_id: str) -> dict[str, Any]:
        """Return the result of a response that Procore accepted from an earlier try, which ended before it returned."""
        view = self._confirmed(instance_id, occurrence_id)
        if view.recorded is not None and self._compare(view)[0] is not None:
            return self.already_recorded(view, instance_id)
        chosen = self._earlier_choice(occurrence_id)
        options = [chosen, *chosen.get("others", [])]
        if chosen not in response_rules.matching_options(options, **self._requested())[1]:
            raise ResponseConflict(
                f"An earlier try of this task has sent the response {chosen['name']!r} to step occurrence "
                f"{occurrence_id} of instance {instance_id}; it was not changed to {self._requested_label!r}."
            )
        self.log.info("Procore accepted the response %r of an earlier try; nothing is sent.", chosen["name"])
        response = {**chosen, "comment": self._comment_at(occurrence_id)}
        return self._result(view, instance_id, response, already_recorded=True, confirmed=False)

    def check_pending(self, view: View) -> None:
        """
        Require that the step waits for the connection's user.

        :raises ConfigurationError: it does not; the message names the pending assignees.
        """
        if view.waits or view.step is None:
            return
        pending = rules.pending_assignees(view.step)
        names = ", ".join(f"{a.get('name')} ({a.get('login')}, id {a.get('id')})" for a in pending) or "no user"
        raise ConfigurationError(
            f"User {view.user_id} ({self.hook.user_login}) of connection {self.procore_conn_id!r} is not a pending "
            f"assignee of step {view.step.get('name')!r} of instance {view.instance.get('id')}; it waits for {names}. "
            "If the step waits for this user later, wait with ProcoreResponseRequestedSensor and pass its "
            "step_occurrence_id to this task. Otherwise make the user an assignee of the step."
        )

    def _compare(self, view: View, chosen: Mapping[str, Any] | None = None) -> tuple[bool | None, dict[str, Any]]:
        """Return whether the recorded response is the requested one (None if unknown), and the response to report."""
        recorded = {**(view.recorded or {})}
        options = rules.response_options(view.step) if view.step is not None and view.is_current else []
        earlier = self._earlier_choice(view.occurrence_id)
        if not options and "others" in earlier:
            options = [earlier, *earlier["others"]]
        if chosen is None and options:
            with contextlib.suppress(ConfigurationError):
                chosen = response_rules.choose_option(options, **self._requested())
        if chosen is None:
            matched_by = response_rules.matched_by(recorded, **self._requested())
            same = response_rules.is_recorded_response(recorded, **self._requested())
            return same, {**recorded, "matched_by": matched_by}
        option = {name: chosen.get(name) for name in ("id", "name", "type", "matched_by")}
        return response_rules.is_recorded_option(recorded, chosen), {**recorded, **option}

    def _check_same(self, view: View, same: bool | None) -> None:
        recorded = view.recorded or {}
        if same is not True:
            explanation = (
                f"it was not changed to {self._requested_label!r}. Procore does not replace a response."
                if same is False
                else f"the record does not show whether that is {self._requested_label!r}. If it is, all is done."
            )
            raise ResponseConflict(
                f"The step already has the response {recorded['name']!r} (type {recorded['type']}, at "
                f"{recorded['at']}) of user {view.user_id}; {explanation}"
            )
        if not is_same_comment(recorded.get("comment"), self._comment_at(view.occurrence_id)):
            self.log.warning("The recorded response has another comment; Procore does not replace it.")

    @property
    def _requested_label(self) -> str | None:
        return next(value for value in self._requested().values() if value is not None)

    def already_recorded(self, view: View, instance_id: str, *, is_outcome_unknown: bool = False) -> dict[str, Any]:
        """
        Return the task's result for a response that was recorded before this try sent anything.

        :param is_outcome_unknown: Whether an earlier try of the task may have sent it.
        """
        same, reported = self._compare(view)
        if same is None and is_outcome_unknown:
            raise self._cannot_tell(view, OutcomeUnknown("An earlier try of this task has sent a response"))
        self._check_same(view, same)
        self.log.info(
            "The response %r is already recorded (the request matches its %s); nothing is sent.",
            *((view.recorded or {}).get("name"), reported["matched_by"]),
        )
        return self._result(view, instance_id, reported, already_recorded=True, confirmed=True)

    # --- sending ---

    def _respond(
        self, request: Callable[[], None], instance_id: str, chosen: Mapping[str, Any], *, is_outcome_unknown: bool
    ) -> dict[str, Any] | None:
        """
        Send the response, and find out its outcome.

        :param request: Sends the response.
        :param is_outcome_unknown: Whether an earlier try has sent a response whose outcome is unknown.
        """
        self._persist_outcome(chosen, UNKNOWN)  # before sending: if the try dies from here on, the outcome is unknown
        lost: WorkflowsError | None = None
        can_be_repeated = False
        try:
            request()
        except NOTHING_DONE as rejection:
            if not is_outcome_unknown:
                return self._rejected(rejection, instance_id, chosen)
            lost = rejection
        except WorkflowsError as error:
            lost = error
            can_be_repeated = True
        if lost is None:
            self._persist_outcome(chosen, ACCEPTED)
            view = self._confirmed(instance_id, str(chosen["step_occurrence_id"]))
        else:
            if is_outcome_unknown:  # the unknown outcome is that of the earlier response
                lost = OutcomeUnknown(describe(lost).rstrip("."))
            view = self._resolved(lost, instance_id, chosen, request if can_be_repeated else None)
        return self._sent_result(view, lost, instance_id, chosen)

    def _resolved(
        self, lost: WorkflowsError, instance_id: str, chosen: Mapping[str, Any], request: Callable[[], None] | None
    ) -> View:
        """Find out the outcome of a request whose response was lost; send it again, once, if that changes nothing."""
        occurrence_id = str(chosen["step_occurrence_id"])
        where = f"step occurrence {occurrence_id} of instance {instance_id}"
        seen: list[View] = []

        def read() -> View | None:
            view = self.view(instance_id, occurrence_id)
            seen[:] = [view]
            if view.recorded is None and not view.waits:
                raise view.unreadable or WorkflowsError(
                    f"For {where}, {self._no_record(view)}; the instance {view.where}."
                )
            return None if view.recorded is None else view

        def again() -> View | None:
            # Procore documents that an identical response changes nothing as long as the step is current.
            if request is None or (seen and seen[0].is_over):
                return None
            request()
            self._persist_outcome(chosen, ACCEPTED)
            return self._confirmed(instance_id, occurrence_id)

        missing = f"the record does not show a response of user {self.hook.user_id} to {where}"
        try:
            return resolve_unknown_outcome(lost, read, self.confirm_timeout, missing=missing, again=again)
        except ServerError:  # and the step still waits: the next try may send the response as if it were the first
            self._persist_outcome(chosen, SERVER_FAILED)
            raise

    def _rejected(
        self, rejection: WorkflowsError, instance_id: str, chosen: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """End the task after Procore rejected the response: another task responded first, or the step has moved on."""
        if not isinstance(rejection, REJECTED):  # the request was not sent, or not processed
            self._persist_outcome(chosen, NOT_ACCEPTED)
            raise rejection
        view = poll_until(
            partial(self.view, instance_id, str(chosen["step_occurrence_id"])),
            lambda view: view.recorded is not None or view.is_over,
            self.confirm_timeout if rejection.status_code in PERHAPS_MOVED else 0,
        )
        if view is None:
            raise rejection
        if view.recorded is not None:
            self.log.info("%s But a response is recorded.", describe(rejection))
            return self.already_recorded(view, instance_id)
        self._persist_outcome(chosen, NOT_ACCEPTED)
        if not view.is_over:
            raise rejection
        self.moved(f"{self._over(view, instance_id)} {describe(rejection)}", self.on_step_moved)
        return None

    def _confirmed(self, instance_id: str, occurrence_id: str) -> View:
        """
        Poll until the record shows a response that Procore has accepted with the documented 204.

        The history may be hidden from the user, but a step occurrence that still waits contradicts the 204.
        """
        read = partial(self.view, instance_id, occurrence_id)
        view = poll_until(read, lambda view: view.recorded is not None, self.confirm_timeout)
        if view is not None and view.recorded is None and view.waits:
            raise OutcomeUnknown(
                f"Procore accepted the response (204); but {self.confirm_timeout:.0f} s later step occurrence "
                f"{occurrence_id} of instance {instance_id} still waits for user {view.user_id}"
            )
        if view is None or view.recorded is None:
            self.log.warning(
                "Procore accepted the response (204), but %.0f s later the record does not show it: %s.",
                self.confirm_timeout,
                "it cannot be read" if view is None else f"the instance {view.where}, and {self._no_record(view)}",
            )
        return View({}, occurrence_id, self.hook.user_id) if view is None else view

    def _sent_result(
        self, view: View, lost: WorkflowsError | None, instance_id: str, chosen: Mapping[str, Any]
    ) -> dict[str, Any]:
        """
        Return the task's result for a response that this try has sent.

        :param view: The last view of the record; where Procore accepted the response, it need not show it.
        :param lost: Why the outcome was unknown; None if Procore accepted the response at once.
        """
        same = None if view.recorded is None else self._compare(view, chosen)[0]
        if view.recorded is not None and same is None and lost is not None:
            raise self._cannot_tell(view, lost)
        if same is not None:
            self._check_same(view, same)
        self.log.info(
            "Responded %r (option %s, found by its %s) to step %r of instance %s (item %s) as user %s (occurrence %s).",
            *(chosen["name"], chosen["id"], chosen["matched_by"], chosen["step"], instance_id, chosen["item_id"]),
            *(view.user_id, view.occurrence_id),
        )
        response = {**chosen, "comment": self._comment_at(view.occurrence_id)}
        return self._result(view, instance_id, response, already_recorded=False, confirmed=same is True)

    def build_request(
        self, instance_id: str, chosen: Mapping[str, Any], attachments: Mapping[str, Sequence[str]]
    ) -> Callable[[], None]:
        """Return a function that sends the response."""
        comment = with_footer(self.comment, chosen.get("footer"))
        # Made of all that is sent: a server that compares requests rejects a known token with another content.
        token = rules.idempotency_token(
            self.hook.company_id,
            instance_id,
            chosen["step_occurrence_id"],
            self.hook.user_id,
            chosen["id"],
            comment,
            attachments,
        )
        return partial(
            self.hook.respond,
            instance_id,
            step_occurrence_id=chosen["step_occurrence_id"],
            option_id=chosen["id"],
            comment=comment,
            attachments=attachments,
            idempotency_token=token,
            project_id=self.level,
        )

    # --- stored state, messages and results ---

    def _earlier_choice(self, occurrence_id: str | None) -> dict[str, Any]:
        """Return the option that an earlier try chose at a step occurrence, and its outcome; empty if there is none."""
        earlier = self._stored.value or {}
        return earlier if earlier.get("step_occurrence_id") in (None, occurrence_id) else {}

    def _comment_at(self, occurrence_id: str | None) -> str | None:
        """Return the comment as an earlier try or this one sends it at a step occurrence, with its footer."""
        return with_footer(self.comment, self._earlier_choice(occurrence_id).get("footer", self._footer))

    def _persist_outcome(self, chosen: Mapping[str, Any], outcome: str) -> None:
        self._stored.persist({**chosen, "outcome": outcome})

    def _over(self, view: View, instance_id: str) -> str:
        if view.occurrence_id is None:
            return f"Instance {instance_id} has ended; none of its steps waits for a response."
        return (
            f"Step occurrence {view.occurrence_id} of instance {instance_id} is over, and {self._no_record(view)}; the "
            f"instance {view.where}."
        )

    @staticmethod
    def _no_record(view: View) -> str:
        if view.unreadable is not None:
            return f"its history cannot be read ({describe(view.unreadable).rstrip('.')})"
        return f"the record shows no response of user {view.user_id}"

    def _cannot_tell(self, view: View, lost: WorkflowsError) -> OutcomeUnknown:
        recorded = view.recorded or {}
        return OutcomeUnknown(
            f"{describe(lost).rstrip('.')}; the record shows the response {recorded.get('name')!r} (type "
            f"{recorded.get('type')}) of user {view.user_id} to step occurrence {view.occurrence_id}, but not whether "
            f"that is {self._requested_label!r}"
        )

    def _result(
        self, view: View, instance_id: str, response: Mapping[str, Any], *, already_recorded: bool, confirmed: bool
    ) -> dict[str, Any]:
        self.decided_at = (view.recorded or {}).get("at")
        return {
            "instance_id": instance_id,
            "item_id": str_id(view.instance.get("item_id")) or response.get("item_id"),
            "project_id": self.level,
            "step": response.get("step"),
            "step_occurrence_id": view.occurrence_id,
            "option": response.get("name"),
            "option_id": response.get("id"),
            "type": response.get("type"),
            "matched_by": response.get("matched_by"),
            "comment": response.get("comment"),
            "user_id": view.user_id,
            "already_recorded": already_recorded,
            "confirmed": confirmed,
        }
