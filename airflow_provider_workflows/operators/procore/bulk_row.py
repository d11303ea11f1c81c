"""One row of many responses: how it is read, sent once, and reconciled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_workflows.exceptions import OutcomeUnknown, UnexpectedResponse
from airflow_provider_workflows.operators.procore.base import SERVER_FAILED, UNKNOWN
from airflow_provider_workflows.operators.procore.step_response import StepResponder, View
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules import procore_bulk_responses as bulk_rules
from airflow_provider_workflows.rules import procore_responses as response_rules

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.operators.procore.bulk_journal import ResponseJournal

REPORTED = "reported unknown"  # outcome of a row that was reported as unknown: a retry only reads it


class RowSkipped(Exception):
    """
    Raised when nothing is sent for a row, although it is no failure.

    :param code: Why, as in the plan.
    """

    def __init__(self, code: str, reason: str):
        super().__init__(reason)
        self.code = code


class BulkTask(Protocol):
    """The part of the operator that a row uses."""

    procore_conn_id: str

    @property
    def hook(self) -> ProcoreHook: ...

    @property
    def log(self) -> Any: ...

    @property
    def confirm_timeout(self) -> float: ...


class RowResponder(StepResponder):
    """
    Send the response of one row, and find out its outcome; the verification of all rows together follows later.

    :param operator: The operator, whose hook, log and ``confirm_timeout`` it uses.
    :param row: The row of the plan.
    :param show: Reads the instance.
    """

    option_type = None
    on_step_moved = "fail"

    def __init__(
        self,
        operator: BulkTask,
        row: Mapping[str, Any],
        show: Callable[[str, str], dict[str, Any]] | None = None,
    ):
        self._operator = operator
        self._row = row
        self._show = show
        self.procore_conn_id = operator.procore_conn_id
        self.option = row["option_id"] or row["response"]
        self.comment = row["comment"]
        self._stored: Any = RowPin(None, 0, None)

    @property
    def hook(self) -> ProcoreHook:
        return self._operator.hook

    @property
    def level(self) -> str:
        return str(self._row["project_id"])

    @property
    def confirm_timeout(self) -> float:
        return self._operator.confirm_timeout

    @property
    def log(self) -> Any:
        return self._operator.log

    @property
    def instance_id(self) -> str:
        return str(self._row["instance_id"])

    def show(self, instance_id: str) -> dict[str, Any]:
        if self._show is not None:
            instance = self._show(instance_id, self.level)
        else:
            instance = self.hook.get_instance(instance_id, project_id=self.level)
        item_id, tool_type = self._row["item_id"], self._row["tool_type"]
        if item_id is not None and not rules.matches_filters(instance, tool_type=tool_type, item_id=item_id):
            raise UnexpectedResponse(
                f"Instance {instance_id} belongs to item {instance.get('item_id')} of tool "
                f"{instance.get('tool_type')}, not to item {item_id} of tool {tool_type}"
            )
        return instance

    def moved(self, message: str, on_step_moved: str) -> None:
        raise RowSkipped(bulk_rules.MOVED_ON, message)

    def problem_of(self, view: View, step: str | None = None) -> tuple[str, str] | None:
        """
        Return why nothing is to be sent to the step occurrence that a view shows, as code and reason; None if it waits.

        :param step: The expected step, or None for any.
        """
        current = view.step
        name = None if current is None else str(current.get("name"))
        if view.unreadable is not None:
            return bulk_rules.UNREADABLE, self._over(view, self.instance_id)
        if view.recorded is not None:
            same, recorded = self._compare(view)
            kinds = {True: "the requested one", False: "another one than requested", None: "perhaps the requested one"}
            response = f"{recorded.get('name')!r} at {recorded.get('at')}, {kinds[same]}"
            return bulk_rules.ALREADY_RESPONDED, f"user {view.user_id} has responded {response}"
        if rules.has_ended(view.instance):
            return bulk_rules.ENDED, self._over(view, self.instance_id)
        if current is None:
            return bulk_rules.BETWEEN_STEPS, f"the instance {view.where}; make another plan when it is at a step"
        if not view.is_current:
            return bulk_rules.MOVED_ON, self._over(view, self.instance_id)
        if step is not None and step.casefold() != str(name).strip().casefold():
            return bulk_rules.MOVED_ON, f"the instance {view.where}, not at {step!r}"
        if not view.waits:
            pending = rules.pending_assignees(current)
            people = (f"{assignee.get('name')} ({assignee.get('login')})" for assignee in pending)
            return bulk_rules.NOT_PENDING, f"step {name!r} waits for {', '.join(people) or 'no user'}"
        return None

    def send(self, chosen: Mapping[str, Any], stored: Any) -> dict[str, Any]:
        """
        Send the response, or find out the outcome of the one that an earlier try has sent.

        :param chosen: The option.
        :param stored: The pin of the outcome.
        """
        self._stored = stored
        earlier = (stored.value or {}).get("outcome")
        if earlier in (UNKNOWN, SERVER_FAILED, REPORTED):
            view = self._view_after_sending(self.instance_id, str(chosen["step_occurrence_id"]))
            if view.recorded is not None:
                return self.already_recorded(view, self.instance_id, is_outcome_unknown=True)
            if earlier == REPORTED:
                raise OutcomeUnknown(
                    f"An earlier try of this task has sent the response {chosen['name']!r} to step occurrence "
                    f"{view.occurrence_id} of instance {self.instance_id}; {self._no_record(view)}"
                )
        request = self.build_request(self.instance_id, chosen, {})
        result = self._respond(request, self.instance_id, chosen, is_outcome_unknown=earlier == UNKNOWN)
        assert result is not None  # moved() has raised
        return result

    def recorded_before(self, view: View, chosen: Mapping[str, Any], stored: Any) -> dict[str, Any]:
        """Return the result of a row whose response was recorded before this try sent anything."""
        stored.value = dict(chosen)  # to compare with
        self._stored = stored
        return self.already_recorded(view, self.instance_id)

    def is_requested(self, recorded: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
        """
        Return whether a recorded response certainly is the one that was sent.

        :raises ResponseConflict: it certainly is another one.
        """
        same = response_rules.is_recorded_option(recorded, chosen)
        if same is False:
            self._check_same(View({}, chosen["step_occurrence_id"], self.hook.user_id, recorded), same)
        return same is True

    def check_accepted(self, chosen: Mapping[str, Any]) -> bool:
        """
        Return whether the record shows a response that Procore has accepted and the bulk history does not show.

        :raises OutcomeUnknown: the step still waits for the user.
        """
        view = self.view(self.instance_id, str(chosen["step_occurrence_id"]))
        if view.recorded is None and view.waits:
            raise OutcomeUnknown(
                f"Procore accepted the response (204); but step occurrence {view.occurrence_id} of instance "
                f"{self.instance_id} still waits for user {view.user_id}"
            )
        return view.recorded is not None and self.is_requested(view.recorded, chosen)

    def _confirmed(self, instance_id: str, occurrence_id: str) -> View:
        return View({}, occurrence_id, self.hook.user_id)  # all accepted rows are verified together


class RowPin:
    """Hold the chosen option of a row and its outcome; store only the outcome."""

    def __init__(self, journal: ResponseJournal | None, row: int, chosen: Mapping[str, Any] | None):
        self._journal = journal
        self._row = row
        outcome = None if journal is None else journal.outcome(row)
        self.value: dict[str, Any] | None = None if outcome is None else {**(chosen or {}), "outcome": outcome}

    def persist(self, value: dict[str, Any]) -> None:
        self.value = value
        if self._journal is not None:
            self._journal.record(self._row, value["outcome"])
