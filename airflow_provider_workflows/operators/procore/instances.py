"""The operators that terminate, restart and refresh a Procore workflow instance (v2), or add assignees to it."""

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
from airflow_provider_workflows.operators.base import Pin
from airflow_provider_workflows.operators.procore.base import (
    ACCEPTED,
    DONE,
    NOT_ACCEPTED,
    ON_STEP_MOVED,
    PERHAPS_MOVED,
    REJECTED,
    UNKNOWN,
    ProcoreInstanceOperator,
    current_position,
)
from airflow_provider_workflows.operators.unknown_outcome import (
    describe,
    poll_until,
    poll_until_found,
    resolve_unknown_outcome,
)
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import as_list, check_choice, check_optional, check_required, str_id
from airflow_provider_workflows.version_compat import task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

# Whether a step occurrence shows the added assignees: it does; it does not; it is over, and no record shows them.
SHOWN, MISSING, OVER = "shown", "missing", "over"
RESTART_MODES = ("defaults", "current_configuration")


class ProcoreTerminateInstanceOperator(ProcoreInstanceOperator):
    """
    Terminate a workflow instance, unless it has already ended.

    If an item is given, the first try stores the instance that it finds in Airflow's task state store (3.3+), so no
    retry terminates another one.

    Returns ``{instance_id, item_id, tool_type, project_id, ended_at, already_ended}``; ``already_ended`` is True if
    the instance ended without this task, and None if its history cannot be read or does not show the end.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance, else newest one, to use (templated).
    :param confirm_timeout: Seconds, or a timedelta, to poll for the end if the response was lost, or if it or the
        history does not show it; default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool.
    :raises PermissionDenied: the user may not terminate it, or Procore has this switched off for the tool.
    :raises OutcomeUnknown: neither a response nor the record shows the end; never retried.
    """

    def __init__(self, *, confirm_timeout: timedelta | float = 60.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        instance_id = self.pinned_instance_id(context, "terminate")
        instance = self.show(instance_id)
        self.known = {
            "instance_id": instance_id,
            "item_id": str_id(instance.get("item_id")),
            "tool_type": instance.get("tool_type"),
            "project_id": self.level,
        }
        already_ended: bool | None = True
        if rules.has_ended(instance):
            self.log.info("Instance %s ended at %s; nothing is sent.", instance_id, instance["ended_at"])
        else:
            ended, already_ended = self._terminate(instance_id, instance)
            instance = {**instance, **{name: value for name, value in ended.items() if value is not None}}
        return {**self.known, "ended_at": instance.get("ended_at"), "already_ended": already_ended}

    def _terminate(self, instance_id: str, before: Mapping[str, Any]) -> tuple[dict[str, Any], bool | None]:
        """Terminate an instance; return it, and whether it had ended before this task terminated it, if known."""
        user_id = self.hook.user_id

        def send() -> dict[str, Any]:
            terminated = self.hook.terminate_instance(instance_id, project_id=self.level)
            if not rules.has_ended(terminated):
                raise UnexpectedResponse(
                    f"The response to terminating instance {instance_id} does not show that it has ended"
                )
            return terminated

        def read() -> dict[str, Any] | None:
            shown = self.hook.get_instance(instance_id, project_id=self.level)
            return shown if rules.has_ended(shown) else None

        missing = f"{self.confirm_timeout:.0f} s later instance {instance_id} does not show that it has ended"
        try:
            ended = self.change(send, read, missing=missing)
        except REJECTED as rejection:
            already_ended = poll_until_found(read, 0)
            if already_ended is None:
                raise
            self.log.info("%s Instance %s has ended in the meantime.", describe(rejection), instance_id)
            return already_ended, True

        def read_cause() -> bool | None:
            history = self.hook.get_instance_history(instance_id, project_id=self.level)
            return rules.ended_otherwise(history, user_id)

        fault = "its history does not show the end"
        try:  # a request for an instance that has ended succeeds, too
            had_ended = read_cause()
            if had_ended is None:
                had_ended = poll_until_found(read_cause, self.confirm_timeout)
        except WorkflowsError as unreadable:
            had_ended, fault = None, str(unreadable)
        if had_ended is None:
            self.log.warning("It is not known who ended instance %s: %s", instance_id, fault)
            return ended, None
        if had_ended:
            self.log.info("Instance %s has ended in the meantime, and not by this task.", instance_id)
            return ended, True
        self.log.info(
            "Terminated instance %s (item %s)%s as user %s.",
            *(instance_id, str_id(before.get("item_id")), current_position(before), user_id),
        )
        return ended, False


class ProcoreRestartInstanceOperator(ProcoreInstanceOperator):
    """
    Terminate a workflow instance and start a new one for the same item, once.

    Procore responds to a repeated request with the new instance that already exists. If an item is given, the first try
    stores the instance that it finds in Airflow's task state store (3.3+), so no retry restarts the new one.

    Returns ``{instance_id, item_id, tool_type, project_id, step, step_occurrence_id, started_at,
    restarted_instance_id}``; ``instance_id`` is the new instance.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance, else newest one, to use (templated).
    :param restart_mode: ``defaults`` or ``current_configuration``: the assignees of the new instance; default:
        Procore's own choice (templated).
    :param confirm_timeout: Seconds, or a timedelta, to poll for a new instance that the response does not show;
        default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool or mode.
    :raises OutcomeUnknown: neither a response nor the record shows a new instance; never retried.
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
        old = self.show(instance_id)
        self.known = {
            "item_id": str_id(old.get("item_id")),
            "tool_type": old.get("tool_type"),
            "project_id": self.level,
            "restarted_instance_id": instance_id,
        }
        new = self._restart(instance_id, old)
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
        except REJECTED as rejection:  # a user who may not list instances may still restart one
            self.log.info("%s Only Procore's response can show the new instance.", describe(rejection))
            before = None

        def send() -> dict[str, Any]:
            new = self.hook.restart_instance(instance_id, restart_mode=self.restart_mode, project_id=self.level)
            if str_id(new.get("id")) in (None, "", instance_id) or not rules.matches_filters(new, item_id=item_id):
                raise UnexpectedResponse(
                    f"The response to restarting instance {instance_id} shows no new instance of the item"
                )
            return new

        def read() -> dict[str, Any] | None:
            if not rules.has_ended(self.hook.get_instance(instance_id, project_id=self.level)):
                return None
            if before is None:
                raise WorkflowsError(f"It is unknown which instance of item {item_id} is new.")
            new = [row for row in self._instances(old) if str_id(row.get("id")) not in {*before, instance_id, None}]
            return self.hook.get_instance(rules.newest_instance(new), project_id=self.level) if new else None

        missing = (
            f"{self.confirm_timeout:.0f} s later item {item_id} shows no new instance after instance {instance_id}"
        )
        new = self.change(send, read, missing=missing)
        if str_id(new["id"]) in (before or ()):
            self.log.info(
                "Instance %s was already restarted, as instance %s; no other one is started.", instance_id, new["id"]
            )
        else:
            self.log.info(
                "Restarted instance %s (item %s) as instance %s%s as user %s.",
                *(instance_id, item_id, new["id"], current_position(new), user_id),
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
    Retry the failed step of a blocked workflow instance, a few times at most.

    The operator sends nothing for an instance that is not blocked, or that Procore calls not retriable.

    Returns ``{instance_id, item_id, state, step, project_id, blocked_reason, refreshes}``: the state now, the first
    reason why the instance was blocked, and the number of refreshes.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance, else newest one, to use (templated).
    :param max_refreshes: How many refreshes to send; default 3.
    :param confirm_timeout: Seconds, or a timedelta, to poll after each refresh until the instance is no longer blocked;
        default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :raises ConfigurationError: both instance and item given, or neither; an unknown tool.
    :raises InstanceBlocked: the step cannot be retried, or the instance is still blocked; never retried.
    :raises OutcomeUnknown: a response was lost, and the history cannot be read; never retried.
    """

    def __init__(self, *, max_refreshes: int = 3, confirm_timeout: timedelta | float = 60.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_refreshes = max_refreshes
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any]:
        self.check_instance()
        if type(self.max_refreshes) is not int or self.max_refreshes < 1:
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
                raise InstanceBlocked(f"{self._message(instance_id, history)} Its step cannot be retried.")
            if refreshes == self.max_refreshes:
                message = self._message(instance_id, history)
                raise InstanceBlocked(f"{message} Still blocked after {refreshes} refreshes.")
            self.known = self._result(instance_id, item_id, history, reason)
            self._refresh(instance_id, shown)
            refreshes += 1
            history = poll_until_found(partial(self._free, instance_id), self.confirm_timeout) or self._history(
                instance_id
            )
        return {**self._result(instance_id, item_id, history, reason), "refreshes": refreshes}

    def _result(self, instance_id: str, item_id: str | None, history: Mapping[str, Any], reason: Any) -> dict[str, Any]:
        now = rules.describe_instance(history, instance_id=instance_id, item_id=item_id)
        result = {name: now[name] for name in ("instance_id", "item_id", "state", "step")}
        return {**result, "project_id": self.level, "blocked_reason": reason}

    def _refresh(self, instance_id: str, shown: Mapping[str, Any]) -> None:
        user_id = self.hook.user_id
        try:
            self.hook.refresh_instance(instance_id, project_id=self.level)
        except InvalidRequest as rejection:
            if rules.is_blocked(self._history(instance_id)):
                raise
            self.log.info("%s But the instance is no longer blocked.", describe(rejection))
            return
        except NOTHING_DONE:
            raise
        except WorkflowsError as lost:
            # Whether it is still blocked is then known, and the caller can continue.
            missing = f"the history of instance {instance_id}, which shows whether it is still blocked, cannot be read"
            history = resolve_unknown_outcome(
                lost, partial(self._history, instance_id), self.confirm_timeout, missing=missing
            )
            if rules.is_blocked(history):
                if isinstance(lost, ServerError):
                    raise
                self.log.warning(
                    "Instance %s is still blocked; it is unknown whether the refresh has arrived.", instance_id
                )
                return
        self.log.info(
            "Refreshed instance %s (item %s)%s as user %s.",
            *(instance_id, str_id(shown.get("item_id")), current_position(shown), user_id),
        )

    def _history(self, instance_id: str) -> dict[str, Any]:
        return self.hook.get_instance_history(instance_id, project_id=self.level)

    def _free(self, instance_id: str) -> dict[str, Any] | None:
        history = self._history(instance_id)
        return None if rules.is_blocked(history) else history

    @staticmethod
    def _message(instance_id: str, history: Mapping[str, Any]) -> str:
        more = f" See {history['blocked_learn_more_url']}." if history.get("blocked_learn_more_url") else ""
        return f"Instance {instance_id} is blocked: {history.get('blocked_reason') or 'no reason given'}.{more}"


class ProcoreAddAssigneesOperator(ProcoreInstanceOperator):
    """
    Add assignees to the current step of a workflow instance, each of them once.

    Users who are already assignees of the step are not added again; one who may only comment counts as an assignee only
    if ``role_type`` is ``commenter``. Before the operator sends the request, it stores the step occurrence in Airflow's
    task state store (3.3+), so no retry adds users to a later one.

    Returns ``{instance_id, item_id, project_id, step, step_occurrence_id, added: [ids], already_assigned: [ids],
    confirmed}``, or None with ``on_step_moved="succeed"``. ``confirmed`` is False where Procore accepted the request,
    but the step is over and its record does not show the new assignees.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param assignees: Logins, e-mail addresses or ids of users, one or several (templated).
    :param reason: new_employee, original_assignee_left_company, original_assignee_left_the_project,
        original_assignee_on_extended_leave, original_assignee_on_vacation or other (templated).
    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose active instance, else newest one, to use (templated).
    :param step_occurrence_id: The step occurrence to add them to (templated).
    :param required: Whether the step waits for their responses; default True.
    :param role_type: ``responder`` or ``commenter``; default: Procore's own choice, presumably responder (templated).
    :param comment: Comment for the history (templated).
    :param message: Message to the new assignees (templated).
    :param on_step_moved: What to do when the step occurrence is over: ``fail`` (default), ``skip`` or ``succeed``
        (templated).
    :param confirm_timeout: Seconds, or a timedelta, to poll until the step shows the new assignees; default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :raises ConfigurationError: a parameter is missing or wrong, or a user is not a possible assignee.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: Procore may have added them, and the record does not show it; never retried.
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
        pin = self.pinned(context, "add_assignees", self._requested_pin(), "step_occurrence_id")
        # What this task adds, and the outcome.
        self._journal = Pin(task_state_store(context), "added", None)
        earlier = self._journal.value or {}
        if earlier.get("outcome") in (UNKNOWN, ACCEPTED, DONE):
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
        assigned = rules.assignee_ids(step, self.role_type)
        result = {
            "instance_id": instance_id,
            "item_id": str_id(instance.get("item_id")),
            "project_id": self.level,
            "step": step.get("name"),
            "step_occurrence_id": occurrence_id,
            "added": [user_id for user_id in desired if user_id not in assigned],
            "already_assigned": [user_id for user_id in desired if user_id in assigned],
            "confirmed": True,
        }
        self.known = {name: value for name, value in result.items() if name not in ("added", "confirmed")}
        if result["added"]:
            if pin.value is None:
                pin.persist({"instance_id": instance_id, "step_occurrence_id": occurrence_id})
            return self._add(result)
        self.log.info("Users %s are already assignees of this step; nothing is sent.", ", ".join(desired))
        return self._persist(result, DONE)

    def _check_parameters(self) -> None:
        self.check_instance()
        check_optional(self, "step_occurrence_id")
        users = as_list(self.assignees)
        if not users:
            raise ConfigurationError("assignees must be logins or ids, at least one.")
        for user in users:
            check_required(assignees=user)
        check_choice("reason", self.reason, rules.ADDED_ASSIGNEE_REASONS)
        if self.role_type is not None:
            check_choice("role_type", self.role_type, rules.ROLE_TYPES)
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)

    def _requested_pin(self) -> dict[str, Any] | None:
        if self.step_occurrence_id is None:
            return None
        return {"instance_id": str_id(self.instance_id), "step_occurrence_id": str_id(self.step_occurrence_id)}

    def _ids(self, instance: Mapping[str, Any]) -> list[str]:
        desired = list(dict.fromkeys(str(user).strip() for user in as_list(self.assignees)))
        if all(user.isdecimal() for user in desired):
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
        """Add assignees, and find out the outcome; the request is never sent twice."""
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
        except NOTHING_DONE as rejection:
            self._persist(result, NOT_ACCEPTED)
            self._rejected(rejection, result)
            return None
        except WorkflowsError as lost:
            result = self._resolved(lost, result)
        else:
            self._persist(result, ACCEPTED)
            result = self._confirmed(result)
        self.log.info(
            "Added %s to step %r of instance %s (item %s) as user %s (occurrence %s).",
            *(", ".join(result["added"]), result["step"], result["instance_id"], result["item_id"]),
            *(user_id, result["step_occurrence_id"]),
        )
        return result

    def _after_earlier_try(self, earlier: Mapping[str, Any]) -> dict[str, Any]:
        result = {name: value for name, value in earlier.items() if name != "outcome"}
        self.log.info("An earlier try of this task has sent the request to add assignees; nothing is sent.")
        self.link_to({"id": result["instance_id"], "item_id": result["item_id"], "tool_type": self.tool_type})
        if earlier["outcome"] == UNKNOWN:
            return self._resolved(OutcomeUnknown("An earlier try was interrupted while it added assignees"), result)
        return self._confirmed(result) if earlier["outcome"] == ACCEPTED else result

    def _resolved(self, lost: WorkflowsError, result: dict[str, Any]) -> dict[str, Any]:
        """Poll until the record shows the assignees that were sent, after the response was lost."""

        def read() -> str | None:
            found = self._shown(result)
            if found == OVER:
                raise WorkflowsError(f"Step occurrence {result['step_occurrence_id']} is over and does not show them.")
            return found if found == SHOWN else None

        missing = f"the record does not show all of {', '.join(result['added'])}"
        try:
            resolve_unknown_outcome(lost, read, self.confirm_timeout, missing=missing)
        except ServerError:  # and they are no assignees of the step: a retry adds them
            self._persist(result, NOT_ACCEPTED)
            raise
        return self._persist(result, DONE)

    def _confirmed(self, result: dict[str, Any]) -> dict[str, Any]:
        """Poll until the record shows the assignees that Procore has accepted, or the step is over."""
        found = poll_until(partial(self._shown, result), lambda found: found == SHOWN, self.confirm_timeout)
        if found == MISSING:
            raise OutcomeUnknown(
                f"Procore accepted the new assignees; but {self.confirm_timeout:.0f} s later step occurrence "
                f"{result['step_occurrence_id']} of instance {result['instance_id']} does not show all of "
                f"{', '.join(result['added'])}"
            )
        if found != SHOWN:
            self.log.warning("Procore accepted the new assignees, but the step is over and does not show them.")
        return self._persist({**result, "confirmed": found == SHOWN}, DONE)

    def _rejected(self, rejection: WorkflowsError, result: Mapping[str, Any]) -> None:
        """End the task after Procore rejected the request, perhaps because the step has moved on."""
        instance_id, occurrence_id = result["instance_id"], result["step_occurrence_id"]
        if isinstance(rejection, REJECTED):
            shown = poll_until(
                partial(self.show, instance_id),
                lambda shown: self._is_over(shown, occurrence_id),
                self.confirm_timeout if rejection.status_code in PERHAPS_MOVED else 0,
            )
            if shown is not None and self._is_over(shown, occurrence_id):
                self.log.info("%s", rejection)
                self._moved(shown, instance_id, occurrence_id)
                return
        raise rejection

    def _shown(self, result: Mapping[str, Any]) -> str:
        """Return whether the step occurrence shows the added assignees: SHOWN, MISSING, or OVER without a record."""
        instance = self.show(result["instance_id"])
        step, missing = rules.current_step(instance), MISSING
        if step is None or str(step["id"]) != result["step_occurrence_id"]:
            missing = OVER
            history = self.hook.get_instance_history(result["instance_id"], project_id=self.level)
            step = rules.step_in_history(history, result["step_occurrence_id"])
        return SHOWN if set(result["added"]) <= rules.assignee_ids(step or {}, self.role_type) else missing

    @staticmethod
    def _is_over(instance: Mapping[str, Any], occurrence_id: str) -> bool:
        step = rules.current_step(instance)
        return rules.has_ended(instance) or (step is not None and str(step["id"]) != occurrence_id)

    def _moved(self, instance: Mapping[str, Any], instance_id: str, occurrence_id: str) -> None:
        step = rules.current_step(instance)
        where = f"is now at {step.get('name')!r} ({step['id']})" if step else "has ended"
        over = f"Step occurrence {occurrence_id} of instance {instance_id} is over; it" if occurrence_id else None
        self.moved(f"{over or f'Instance {instance_id}'} {where}.", self.on_step_moved)

    def _persist(self, result: dict[str, Any], outcome: str) -> dict[str, Any]:
        self._journal.persist({**result, "outcome": outcome})
        return result
