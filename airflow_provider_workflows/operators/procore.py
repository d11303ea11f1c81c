"""Operators for Procore's Workflows v2 API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_workflows.exceptions import (
    ConfigurationError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    ResponseConflict,
    StepMoved,
    WorkflowsError,
)
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.operators.base import WorkflowsOperator, read_until_found
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import check_choice, check_required, one_of, text_id

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_workflows.hooks.procore import ProcoreHook

ON_STEP_MOVED = ("fail", "skip", "succeed")


class ProcoreOperator(WorkflowsOperator):
    """
    An operator on one Procore connection.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company to work in; beats the connection's (templated).
    :param project_id: Project to work in; beats the connection's (templated).
    """

    operator_extra_links = (ProcoreItemLink(),)

    def __init__(
        self,
        *,
        procore_conn_id: str = "procore_default",
        company_id: str | int | None = None,
        project_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.procore_conn_id = procore_conn_id
        self.company_id = company_id
        self.project_id = project_id

    @cached_property
    def hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)


class ProcoreRespondOperator(ProcoreOperator):
    """
    Answers one step occurrence of a workflow instance as the connection's user, once.

    The answer belongs to one visit of the step. Give ``step_occurrence_id`` from
    ``ProcoreResponseRequestedSensor``; without it the step found by the first try is kept in Airflow's task
    state store (3.3+) and every retry answers that one or nothing. A retry that finds the same option
    recorded succeeds without writing. Clearing the task asks for a new decision: it may answer a later visit.

    Returns ``{instance_id, item_id, step, step_occurrence_id, option, option_id, type, comment, user_id,
    already_recorded}``, or None with ``on_step_moved="succeed"``.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param instance_id: The instance to answer (templated); or give the item.
    :param tool_type: Tool of the item (templated).
    :param item_id: The item whose active instance to answer (templated).
    :param step_occurrence_id: The step occurrence that the answer is meant for (templated).
    :param option: Label of the response option, in any case (templated).
    :param option_id: Its id (templated); instead of ``option``.
    :param option_type: Its type, such as ``approve`` (templated); instead of ``option``.
    :param comment: A note about the response (templated).
    :param on_step_moved: What to do when that step occurrence is over, or the instance ended, without our
        answer: ``fail`` (default), ``skip`` or ``succeed``.
    :param confirm_timeout: Seconds to read on for the answer after it was sent; default 60.
    :raises ConfigurationError: a parameter is missing or fits nothing; the candidates are listed.
    :raises ResponseConflict: another option is already recorded at this step; never retried.
    :raises StepMoved: the step is over, with ``on_step_moved="fail"``; never retried.
    :raises OutcomeUnknown: the answer was lost twice and reading does not show it; never retried.
    """

    template_fields: Sequence[str] = (
        "procore_conn_id",
        "company_id",
        "project_id",
        "instance_id",
        "tool_type",
        "item_id",
        "step_occurrence_id",
        "option",
        "option_id",
        "option_type",
        "comment",
        "on_step_moved",
    )

    def __init__(
        self,
        *,
        instance_id: str | int | None = None,
        tool_type: str | None = None,
        item_id: str | int | None = None,
        step_occurrence_id: str | int | None = None,
        option: str | None = None,
        option_id: str | int | None = None,
        option_type: str | None = None,
        comment: str | None = None,
        on_step_moved: str = "fail",
        confirm_timeout: float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.tool_type = tool_type
        self.item_id = item_id
        self.step_occurrence_id = step_occurrence_id
        self.option = option
        self.option_id = option_id
        self.option_type = option_type
        self.comment = comment
        self.on_step_moved = on_step_moved
        self.confirm_timeout = confirm_timeout

    def act(self, context: Context) -> dict[str, Any] | None:
        self._check_parameters()
        pin = self.pinned(context, "respond", self._given_pin(), "step_occurrence_id")
        instance_id = (pin.value or {}).get("instance_id") or self._find_instance()
        instance = self.hook.get_instance(instance_id)
        self.item_url = self.hook.item_url(
            instance_id=instance_id, item_id=str(instance.get("item_id")), tool_type=instance.get("tool_type")
        )
        step = rules.current_step(instance)
        if pin.value is None:
            if step is None:
                self._moved(f"Instance {instance_id} has ended; no step of it waits for an answer.")
                return None
            pin.keep({"instance_id": instance_id, "step_occurrence_id": str(step["id"])})
        occurrence_id = str((pin.value or {})["step_occurrence_id"])

        recorded = self._recorded(instance, instance_id, occurrence_id)
        if recorded is not None:
            self._check_same(recorded)
            self.log.info("The response %r is already recorded; nothing is sent.", recorded["name"])
            return self._result(instance, occurrence_id, recorded, already_recorded=True)
        if step is None or str(step["id"]) != occurrence_id:
            where = f"now stands at {step.get('name')!r} ({step['id']})" if step else "has ended"
            self._moved(
                f"Step occurrence {occurrence_id} of instance {instance_id} is over without a response of user "
                f"{self.hook.user_id}; the instance {where}."
            )
            return None
        self._check_pending(step)
        chosen = rules.choose_option(rules.response_options(step), **self._wish())
        self._send(instance_id, occurrence_id, chosen)
        self._confirm(instance_id, occurrence_id)
        answer = {**chosen, "step": step.get("name"), "comment": self.comment}
        return self._result(instance, occurrence_id, answer, already_recorded=False)

    def _check_parameters(self) -> None:
        one_of(instance_id=self.instance_id, item_id=self.item_id)
        if self.item_id is not None:
            check_required(tool_type=self.tool_type)
        one_of(option=self.option, option_id=self.option_id, option_type=self.option_type)
        if self.step_occurrence_id is not None:
            check_required(step_occurrence_id=self.step_occurrence_id)
        check_choice("on_step_moved", self.on_step_moved, ON_STEP_MOVED)

    def _given_pin(self) -> dict[str, Any] | None:
        if self.step_occurrence_id is None:
            return None
        return {
            "instance_id": text_id(self.instance_id),
            "step_occurrence_id": text_id(self.step_occurrence_id),
        }

    def _wish(self) -> dict[str, str | None]:
        return {"name": self.option, "option_id": text_id(self.option_id), "option_type": self.option_type}

    def _find_instance(self) -> str:
        if self.instance_id is not None:
            return str(text_id(self.instance_id))
        instances = list(self.hook.list_instances(str(self.tool_type), item_id=text_id(self.item_id)))
        if not instances:
            raise NotFound(
                f"Item {self.item_id} of tool {self.tool_type} has no workflow instance, or none visible to us"
            )
        return rules.newest_instance(instances)

    def _recorded(self, instance: Mapping[str, Any], instance_id: str, occurrence_id: str) -> dict[str, Any] | None:
        user_id = self.hook.user_id
        step = rules.current_step(instance)
        if step is not None and str(step["id"]) == occurrence_id:
            return rules.recorded_response(instance, occurrence_id, user_id)
        return rules.recorded_in_history(self.hook.get_instance_history(instance_id), occurrence_id, user_id)

    def _check_same(self, recorded: Mapping[str, Any]) -> None:
        wish = self._wish()
        if not rules.option_fits(recorded, **wish):
            raise ResponseConflict(
                f"This step already carries the response {recorded['name']!r} (type {recorded['type']}, at "
                f"{recorded['at']}) of user {self.hook.user_id}; it was not changed to "
                f"{next(value for value in wish.values() if value is not None)!r}. Procore keeps the first response."
            )
        if (recorded.get("comment") or "") != (self.comment or ""):
            self.log.warning("The recorded response has another comment; Procore keeps the first one.")

    def _check_pending(self, step: Mapping[str, Any]) -> None:
        pending = rules.pending_assignees(step)
        if any(str(assignee.get("id")) == self.hook.user_id for assignee in pending):
            return
        names = ", ".join(f"{a.get('name')} ({a.get('login')}, id {a.get('id')})" for a in pending) or "nobody"
        raise ConfigurationError(
            f"User {self.hook.user_id} of connection {self.procore_conn_id!r} is not a pending assignee of step "
            f"{step.get('name')!r}; it waits for {names}. Make the integration's user an assignee of the step."
        )

    def _send(self, instance_id: str, occurrence_id: str, chosen: Mapping[str, Any]) -> None:
        token = rules.idempotency_token(
            self.hook.company_id,
            instance_id,
            occurrence_id,
            self.hook.user_id,
            chosen["id"],
            self.comment,
            {},
        )

        unsettled: WorkflowsError
        for last_try in (False, True):
            try:
                self.hook.respond(
                    instance_id,
                    step_occurrence_id=occurrence_id,
                    option_id=chosen["id"],
                    comment=self.comment,
                    idempotency_token=token,
                )
                return
            except OutcomeUnknown as lost:
                self.log.warning("%s Reading whether the response arrived.", lost)
                found = read_until_found(lambda: self._read_back(instance_id, occurrence_id), self.confirm_timeout)
                if found is None and not last_try:
                    continue  # by contract the identical response is a no-op if the first one arrives after all
                unsettled = lost
            except (InvalidRequest, NotFound, PermissionDenied) as refused:
                # Perhaps somebody, or an earlier try of ours, was faster. The record decides.
                found = self._read_back(instance_id, occurrence_id)
                unsettled = refused
            if found is None:
                raise unsettled
            self._check_same(found)
            return

    def _confirm(self, instance_id: str, occurrence_id: str) -> None:
        # 204 says it is recorded; what follows from it may take Procore a while.
        if read_until_found(lambda: self._read_back(instance_id, occurrence_id), self.confirm_timeout) is None:
            self.log.warning("Procore accepted the response but does not show it after %.0f s.", self.confirm_timeout)

    def _read_back(self, instance_id: str, occurrence_id: str) -> dict[str, Any] | None:
        return self._recorded(self.hook.get_instance(instance_id), instance_id, occurrence_id)

    def _moved(self, message: str) -> None:
        if self.on_step_moved == "fail":
            raise StepMoved(f"{message} Set on_step_moved to 'skip' or 'succeed' if that is no failure.")
        self.log.info("%s", message)
        if self.on_step_moved == "skip":
            raise AirflowSkipException(message)

    def _result(
        self,
        instance: Mapping[str, Any],
        occurrence_id: str,
        answer: Mapping[str, Any],
        *,
        already_recorded: bool,
    ) -> dict[str, Any]:
        return {
            "instance_id": str(instance["id"]),
            "item_id": str(instance.get("item_id")),
            "step": answer["step"],
            "step_occurrence_id": occurrence_id,
            "option": answer["name"],
            "option_id": answer["id"],
            "type": answer["type"],
            "comment": answer.get("comment"),
            "user_id": self.hook.user_id,
            "already_recorded": already_recorded,
        }
