"""The operators that end, restart and refresh an instance of Procore Workflows v2, and add assignees to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    ConfigurationError,
    InstanceBlocked,
    InvalidRequest,
    OutcomeUnknown,
    ServerError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.operators.base import (
    Pin,
    describe,
    poll_until,
    poll_until_found,
    resolve_unknown_outcome,
)
from airflow_provider_workflows.operators.procore.base import (
    DONE,
    NOT_TAKEN,
    ON_STEP_MOVED,
    PERHAPS_MOVED,
    REJECTED,
    TAKEN,
    UNKNOWN,
    ProcoreInstanceOperator,
    where_it_stands,
)
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import as_list, check_choice, check_given, check_required, str_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

# Of those who were added to a step occurrence: it shows them; it does not; it is over, and nothing shows them.
SHOWN, MISSING, OVER = "shown", "missing", "over"
RESTART_MODES = ("defaults", "current_configuration")


class ProcoreTerminateInstanceOperator(ProcoreInstanceOperator):
    """
    Terminates a workflow instance; one that has ended already stays as it is.

    By item, the instance found by the first try is stored in Airflow's task state store (3.3+): no retry ends
    another one.

    Returns ``{instance_id, item_id, tool_type, project_id, ended_at, already_ended}``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :param confirm_timeout: Seconds, or a timedelta, to read on for an end whose answer was lost or
        does not show it; default 60.
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool.
    :raises PermissionDenied: the user may not, or terminating is switched off for the tool.
    :raises OutcomeUnknown: neither an answer nor the record shows the end; never retried.
    """

    def __init__(self, *, confirm_timeout: timedelta | float = 60.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        instance_id = self.pinned_instance_id(context, "terminate")
        instance = self.show(instance_id)
        already_ended = rules.has_ended(instance)
        if already_ended:
            self.log.info("Instance %s has ended at %s; nothing is sent.", instance_id, instance["ended_at"])
        else:
            ended, already_ended = self._terminate(instance_id, instance)
            instance = {**instance, **{name: value for name, value in ended.items() if value is not None}}
        return {
            "instance_id": instance_id,
            "item_id": str_id(instance.get("item_id")),
            "tool_type": instance.get("tool_type"),
            "project_id": self.level,
            "ended_at": instance.get("ended_at"),
            "already_ended": already_ended,
        }

    def _terminate(self, instance_id: str, before: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Terminate an instance; return it, and whether somebody else was faster."""
        user_id = self.hook.user_id

        def send() -> dict[str, Any]:
            answered = self.hook.terminate_instance(instance_id, project_id=self.level)
            if not rules.has_ended(answered):
                raise UnexpectedResponse(
                    f"The answer to terminating instance {instance_id} does not show that it has ended"
                )
            return answered

        def read() -> dict[str, Any] | None:
            shown = self.hook.get_instance(instance_id, project_id=self.level)
            return shown if rules.has_ended(shown) else None

        missing = f"{self.confirm_timeout:.0f} s later instance {instance_id} does not show that it has ended"
        try:
            ended = self.change(send, read, missing=missing)
        except REJECTED as rejected:
            faster = poll_until_found(read, 0)
            if faster is None:
                raise
            self.log.info("%s Instance %s has ended in between.", describe(rejected), instance_id)
            return faster, True
        self.log.info(
            "Terminated instance %s (item %s)%s as user %s.",
            *(instance_id, str_id(before.get("item_id")), where_it_stands(before), user_id),
        )
        return ended, False


class ProcoreRestartInstanceOperator(ProcoreInstanceOperator):
    """
    Terminates a workflow instance and starts a new one for the same item, once.

    Procore answers a repetition with the new instance that is there already. By item, the instance found by the
    first try is stored in Airflow's task state store (3.3+): no retry restarts the new one.

    Returns ``{instance_id, item_id, tool_type, project_id, step, step_occurrence_id, started_at,
    restarted_instance_id}``,
    ``instance_id`` being the new one.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :param restart_mode: ``defaults`` or ``current_configuration``: who is asked by the new instance; default:
        Procore's own choice (templated).
    :param confirm_timeout: Seconds, or a timedelta, to read on for a new instance that the answer does not
        show; default 60.
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool or mode.
    :raises OutcomeUnknown: neither an answer nor the record shows a new instance; never retried.
    """

    template_fields: Sequence[str] = (*ProcoreInstanceOperator.template_fields, "restart_mode")

    def __init__(self, *, restart_mode: str | None = None, confirm_timeout: timedelta | float = 60.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.restart_mode = restart_mode
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        if self.restart_mode is not None:
            check_choice("restart_mode", self.restart_mode, RESTART_MODES)
        instance_id = self.pinned_instance_id(context, "restart")
        new = self._restart(instance_id, self.show(instance_id))
        self.link_to(new)
        step = rules.current_step(new) or {}
        return {
            "instance_id": str(new["id"]),
            "item_id": str_id(new.get("item_id")),
            "tool_type": new.get("tool_type"),
            "project_id": self.level,
            "step": step.get("name"),
            "step_occurrence_id": str_id(step.get("id")),
            "started_at": new.get("started_at"),
            "restarted_instance_id": instance_id,
        }

    def _restart(self, instance_id: str, old: Mapping[str, Any]) -> dict[str, Any]:
        user_id, item_id = self.hook.user_id, str_id(old.get("item_id"))
        try:
            before = {str_id(row.get("id")) for row in self._instances(old)}
        except REJECTED as rejected:  # who may not list may still restart
            self.log.info("%s So a new instance is found by Procore's answer only.", describe(rejected))
            before = None

        def send() -> dict[str, Any]:
            answered = self.hook.restart_instance(instance_id, restart_mode=self.restart_mode, project_id=self.level)
            if str_id(answered.get("id")) in (None, "", instance_id) or not rules.is_response_requested_from(
                answered, item_id=item_id
            ):
                raise UnexpectedResponse(
                    f"The answer to restarting instance {instance_id} shows no new instance of the item"
                )
            return answered

        def read() -> dict[str, Any] | None:
            if not rules.has_ended(self.hook.get_instance(instance_id, project_id=self.level)):
                return None
            if before is None:
                raise WorkflowsError(f"Nothing tells which instance of item {item_id} is new.")
            new = [row for row in self._instances(old) if str_id(row.get("id")) not in {*before, instance_id, None}]
            return self.hook.get_instance(rules.newest_instance(new), project_id=self.level) if new else None

        missing = (
            f"{self.confirm_timeout:.0f} s later item {item_id} shows no new instance after instance {instance_id}"
        )
        new = self.change(send, read, missing=missing)
        if str_id(new["id"]) in (before or ()):
            self.log.info(
                "Instance %s was restarted before, as instance %s; no other is started.", instance_id, new["id"]
            )
        else:
            self.log.info(
                "Restarted instance %s (item %s) as instance %s%s as user %s.",
                *(instance_id, item_id, new["id"], where_it_stands(new), user_id),
            )
        return new

    def _instances(self, old: Mapping[str, Any]) -> list[dict[str, Any]]:
        if old.get("item_id") is None:
            return []
        return self.hook.list_item_instances(
            str(old.get("tool_type") or self.tool_type),
            str(str_id(old.get("item_id"))),
            self.level,
            tool_subtype=str_id(old.get("tool_subtype")),
            required=False,
        )


class ProcoreRefreshInstanceOperator(ProcoreInstanceOperator):
    """
    Lets a blocked workflow instance try its failed step again, a few times at most.

    An instance that is not blocked is left alone, so is one that Procore says cannot be tried again.

    Returns ``{instance_id, item_id, state, step, project_id, blocked_reason, refreshes}``: where it stands now, why
    it was blocked at first, and how often it was tried.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :param max_refreshes: How often to try; default 3.
    :param confirm_timeout: Seconds, or a timedelta, to wait after each for the instance to come free; default 60.
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool.
    :raises InstanceBlocked: it cannot be tried again, or is blocked still; never retried.
    :raises OutcomeUnknown: an answer was lost, and the history cannot be read; never retried.
    """

    def __init__(self, *, max_refreshes: int = 3, confirm_timeout: timedelta | float = 60.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_refreshes = max_refreshes
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        if not isinstance(self.max_refreshes, int) or self.max_refreshes < 1:
            raise ConfigurationError(f"max_refreshes must be a whole number, 1 or more; got {self.max_refreshes!r}.")
        instance_id = self.pinned_instance_id(context, "refresh")
        shown = self.show(instance_id)
        item_id = str_id(shown.get("item_id"))
        history = self._history(instance_id)
        reason = history.get("blocked_reason")
        refreshes = 0
        if not rules.is_blocked(history):
            self.log.info("Instance %s is not blocked; nothing is sent.", instance_id)
        while rules.is_blocked(history):
            if history.get("blocked_is_retriable") is False:
                raise InstanceBlocked(f"{self._blocked(instance_id, history)} It cannot be tried again.")
            if refreshes == self.max_refreshes:
                raise InstanceBlocked(f"{self._blocked(instance_id, history)} It was tried again {refreshes} times.")
            self._refresh(instance_id, shown)
            refreshes += 1
            history = poll_until_found(partial(self._free, instance_id), self.confirm_timeout) or self._history(
                instance_id
            )
        now = rules.describe_instance(history, instance_id=instance_id, item_id=item_id)
        result = {name: now[name] for name in ("instance_id", "item_id", "state", "step")}
        return {**result, "project_id": self.level, "blocked_reason": reason, "refreshes": refreshes}

    def _refresh(self, instance_id: str, shown: Mapping[str, Any]) -> None:
        user_id = self.hook.user_id
        try:
            self.hook.refresh_instance(instance_id, project_id=self.level)
        except InvalidRequest as rejected:
            if rules.is_blocked(self._history(instance_id)):
                raise
            self.log.info("%s Somebody else was faster.", describe(rejected))
            return
        except NOTHING_DONE:
            raise
        except WorkflowsError as lost:
            # Blocked still or not: either is known, and lets the caller go on.
            missing = f"the history of instance {instance_id} cannot be read, which shows whether it is blocked still"
            history = resolve_unknown_outcome(
                lost, partial(self._history, instance_id), self.confirm_timeout, missing=missing
            )
            if rules.is_blocked(history):
                if isinstance(lost, ServerError):
                    raise
                self.log.warning(
                    "Instance %s is blocked still; whether the refresh has arrived is not known.", instance_id
                )
                return
        self.log.info(
            "Refreshed instance %s (item %s)%s as user %s.",
            *(instance_id, str_id(shown.get("item_id")), where_it_stands(shown), user_id),
        )

    def _history(self, instance_id: str) -> dict[str, Any]:
        return self.hook.get_instance_history(instance_id, project_id=self.level)

    def _free(self, instance_id: str) -> dict[str, Any] | None:
        history = self._history(instance_id)
        return None if rules.is_blocked(history) else history

    @staticmethod
    def _blocked(instance_id: str, history: Mapping[str, Any]) -> str:
        more = f" See {history['blocked_learn_more_url']}." if history.get("blocked_learn_more_url") else ""
        return f"Instance {instance_id} is blocked: {history.get('blocked_reason') or 'no reason given'}.{more}"


class ProcoreAddAssigneesOperator(ProcoreInstanceOperator):
    """
    Adds assignees to the step where a workflow instance stands, each of them once.

    Who is an assignee there already is left alone. From the moment when the addition is sent, the step occurrence is
    stored in Airflow's task state store (3.3+): a retry adds nobody to a later one.

    Returns ``{instance_id, item_id, project_id, step, step_occurrence_id, added: [ids], already_assigned: [ids],
    confirmed}``, or None with ``on_step_moved="succeed"``. ``confirmed`` is False where Procore took the addition, but
    the step is over and its record does not show it.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param assignees: Logins, e-mail addresses or ids of users, one or several (templated).
    :param reason: new_employee, original_assignee_left_company, original_assignee_left_the_project,
        original_assignee_on_extended_leave, original_assignee_on_vacation or other (templated).
    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance is meant: the active one, else the newest (templated).
    :param step_occurrence_id: The step occurrence that they are added to (templated).
    :param required: Whether the step waits for them; default True.
    :param role_type: ``responder`` or ``commenter``; default: Procore's own choice (templated).
    :param comment: A note for the history (templated).
    :param message: A message to those who are added (templated).
    :param on_step_moved: What to do when that step occurrence is over: ``fail`` (default), ``skip`` or ``succeed``
        (templated).
    :param confirm_timeout: Seconds, or a timedelta, to read on for an addition that the answer does not
        show; default 60.
    :raises ConfigurationError: a parameter is missing or wrong, or somebody is not a possible assignee.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: the addition may have been made, and the record does not show it; never retried.
    """

    template_fields: Sequence[str] = (
        *ProcoreInstanceOperator.template_fields,
        "assignees",
        "reason",
        "step_occurrence_id",
        "role_type",
        "comment",
        "message",
        "on_step_moved",
    )

    def __init__(
        self,
        *,
        assignees: str | int | Sequence[str | int],
        reason: str,
        step_occurrence_id: str | int | None = None,
        required: bool = True,
        role_type: str | None = None,
        comment: str | None = None,
        message: str | None = None,
        on_step_moved: str = "fail",
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.assignees = assignees
        self.reason = reason
        self.step_occurrence_id = step_occurrence_id
        self.required = required
        self.role_type = role_type
        self.comment = comment
        self.message = message
        self.on_step_moved = on_step_moved
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any] | None:
        self._check_parameters()
        pin = self.pinned(context, "add_assignees", self._given_pin(), "step_occurrence_id")
        # What this task adds, and what became of it.
        self._journal = Pin(task_state_store(context), "added", None)
        earlier = self._journal.value or {}
        if earlier.get("outcome") in (UNKNOWN, TAKEN, DONE):
            return self._after_earlier_try(earlier)
        bound = {name: value for name, value in (pin.value or {}).items() if value}
        instance_id = str(bound.get("instance_id") or self.find_instance_id())
        instance = self.at_a_step(instance_id, partial(self.show, instance_id), rules.is_between_steps)
        if pin.is_outdated or self._journal.is_outdated:
            return self.act(context)
        step = rules.current_step(instance)
        occurrence_id = str(bound.get("step_occurrence_id") or (step or {}).get("id") or "")
        if step is None or str(step["id"]) != occurrence_id:
            self._moved(instance, instance_id, occurrence_id)
            return None
        desired = self._ids(instance)
        there = rules.assignee_ids(step)
        result = {
            "instance_id": instance_id,
            "item_id": str_id(instance.get("item_id")),
            "project_id": self.level,
            "step": step.get("name"),
            "step_occurrence_id": occurrence_id,
            "added": [one for one in desired if one not in there],
            "already_assigned": [one for one in desired if one in there],
            "confirmed": True,
        }
        if result["added"]:
            if pin.value is None:
                pin.persist({"instance_id": instance_id, "step_occurrence_id": occurrence_id})
            return self._add(result)
        self.log.info("All of %s are assignees of this step already; nothing is sent.", ", ".join(desired))
        return self._persist(result, DONE)

    def _check_parameters(self) -> None:
        self.check_instance()
        check_given(self, "step_occurrence_id")
        people = as_list(self.assignees)
        if not people:
            raise ConfigurationError("assignees must hold logins or ids, and not be empty.")
        for one in people:
            check_required(assignees=one)
        check_choice("reason", self.reason, rules.ADDED_ASSIGNEE_REASONS)
        if self.role_type is not None:
            check_choice("role_type", self.role_type, rules.ROLE_TYPES)
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)

    def _given_pin(self) -> dict[str, Any] | None:
        if self.step_occurrence_id is None:
            return None
        return {"instance_id": str_id(self.instance_id), "step_occurrence_id": str_id(self.step_occurrence_id)}

    def _ids(self, instance: Mapping[str, Any]) -> list[str]:
        desired = list(dict.fromkeys(str(one).strip() for one in as_list(self.assignees)))
        if all(one.isdecimal() for one in desired):
            return desired
        tool_type = self.tool_type or str(instance.get("tool_type"))
        tool_subtype = instance.get("tool_subtype") if self.tool_subtype is None else self.tool_subtype
        people = self.hook.list_possible_assignees(tool_type, tool_subtype=str_id(tool_subtype), project_id=self.level)
        found, rejected = rules.people_ids(people, desired)
        if rejected:
            problems = "; ".join(f"{user} {reason}" for user, reason in rejected.items())
            raise ConfigurationError(
                f"assignees: {problems}. Give logins or ids of users who are in the directory and have access to tool "
                f"{tool_type}."
            )
        return list(dict.fromkeys(found.values()))

    def _add(self, result: dict[str, Any]) -> dict[str, Any] | None:
        """Add assignees, and find out what became of that; it is never sent twice."""
        user_id = self.hook.user_id
        self._persist(result, UNKNOWN)
        try:
            self.hook.add_assignees(
                result["instance_id"],
                step_occurrence_id=result["step_occurrence_id"],
                assignee_ids=result["added"],
                reason=self.reason,
                required=self.required,
                role_type=self.role_type,
                comment=self.comment,
                message=self.message,
                project_id=self.level,
            )
        except NOTHING_DONE as rejected:
            self._persist(result, NOT_TAKEN)
            self._rejected(rejected, result)
            return None
        except WorkflowsError as lost:
            result = self._resolved(lost, result)
        else:
            self._persist(result, TAKEN)
            result = self._confirmed(result)
        self.log.info(
            "Added %s to step %r of instance %s (item %s) as user %s (occurrence %s).",
            *(", ".join(result["added"]), result["step"], result["instance_id"], result["item_id"]),
            *(user_id, result["step_occurrence_id"]),
        )
        return result

    def _after_earlier_try(self, earlier: Mapping[str, Any]) -> dict[str, Any]:
        result = {name: value for name, value in earlier.items() if name != "outcome"}
        self.log.info("An earlier try of this task has sent the addition; nothing is sent.")
        self.link_to({"id": result["instance_id"], "item_id": result["item_id"], "tool_type": self.tool_type})
        if earlier["outcome"] == UNKNOWN:
            return self._resolved(OutcomeUnknown("An earlier try was cut off while it added assignees"), result)
        return self._confirmed(result) if earlier["outcome"] == TAKEN else result

    def _resolved(self, lost: WorkflowsError, result: dict[str, Any]) -> dict[str, Any]:
        """Read until the record shows those who were added, after their addition was sent and its answer lost."""

        def read() -> str | None:
            found = self._look(result)
            if found == OVER:
                raise WorkflowsError(f"Step occurrence {result['step_occurrence_id']} is over, and does not show them.")
            return found if found == SHOWN else None

        missing = f"the record does not show all of {', '.join(result['added'])}"
        try:
            resolve_unknown_outcome(lost, read, self.confirm_timeout, missing=missing)
        except ServerError:  # and the step does not have them: a retry adds them
            self._persist(result, NOT_TAKEN)
            raise
        return self._persist(result, DONE)

    def _confirmed(self, result: dict[str, Any]) -> dict[str, Any]:
        """Read until the record shows those whose addition Procore has taken; a step that is over cannot contradict."""
        found = poll_until(partial(self._look, result), lambda found: found == SHOWN, self.confirm_timeout)
        if found == MISSING:
            raise OutcomeUnknown(
                f"Procore took the addition; but {self.confirm_timeout:.0f} s later step occurrence "
                f"{result['step_occurrence_id']} of instance {result['instance_id']} does not show all of "
                f"{', '.join(result['added'])}"
            )
        if found != SHOWN:
            self.log.warning("Procore took the addition, and its record does not show it: the step is over.")
        return self._persist({**result, "confirmed": found == SHOWN}, DONE)

    def _rejected(self, rejected: WorkflowsError, result: Mapping[str, Any]) -> None:
        """End the task where Procore did not take the addition: perhaps the step has moved on."""
        instance_id, occurrence_id = result["instance_id"], result["step_occurrence_id"]
        if isinstance(rejected, REJECTED):
            shown = poll_until(
                partial(self.show, instance_id),
                lambda shown: self._is_over(shown, occurrence_id),
                self.confirm_timeout if rejected.status_code in PERHAPS_MOVED else 0,
            )
            if shown is not None and self._is_over(shown, occurrence_id):
                self.log.info("%s", rejected)
                self._moved(shown, instance_id, occurrence_id)
                return
        raise rejected

    def _look(self, result: Mapping[str, Any]) -> str:
        """Return whether the step occurrence shows those who were added: SHOWN, MISSING, or OVER without a trace."""
        instance = self.show(result["instance_id"])
        step = rules.current_step(instance)
        if step is None or str(step["id"]) != result["step_occurrence_id"]:
            history = self.hook.get_instance_history(result["instance_id"], project_id=self.level)
            step = rules.step_in_history(history, result["step_occurrence_id"])
            return SHOWN if step is not None and set(result["added"]) <= rules.assignee_ids(step) else OVER
        return SHOWN if set(result["added"]) <= rules.assignee_ids(step) else MISSING

    @staticmethod
    def _is_over(instance: Mapping[str, Any], occurrence_id: str) -> bool:
        step = rules.current_step(instance)
        return rules.has_ended(instance) or (step is not None and str(step["id"]) != occurrence_id)

    def _moved(self, instance: Mapping[str, Any], instance_id: str, occurrence_id: str) -> None:
        step = rules.current_step(instance)
        where = f"now stands at {step.get('name')!r} ({step['id']})" if step else "has ended"
        over = f"Step occurrence {occurrence_id} of instance {instance_id} is over; it" if occurrence_id else None
        self.moved(f"{over or f'Instance {instance_id}'} {where}.", self.on_step_moved)

    def _persist(self, result: dict[str, Any], outcome: str) -> dict[str, Any]:
        self._journal.persist({**result, "outcome": outcome})
        return result
