"""The operator that starts the workflow of an item in Procore (Workflows v2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import (
    NOTHING_DONE,
    ConfigurationError,
    DryRun,
    InstanceActive,
    OutcomeUnknown,
    ServerError,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.links.airflow import ApprovalsLink
from airflow_provider_workflows.links.procore import ProcoreItemLink
from airflow_provider_workflows.operators.base import Pin, WaitingOperator
from airflow_provider_workflows.operators.procore.base import (
    ON_ACTIVE_INSTANCE,
    REJECTED,
    ProcoreOperator,
    current_position,
)
from airflow_provider_workflows.operators.unknown_outcome import describe, poll_until_found, resolve_unknown_outcome
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.parameters import check_choice, check_optional, check_required, str_id
from airflow_provider_workflows.version_compat import lasting_state_store, task_state_store

if TYPE_CHECKING:
    from datetime import timedelta

    from airflow.sdk import Context

LAST_STARTED = "last_started"  # key in the part of the task state store that survives a clear of the task


class ProcoreStartInstanceOperator(ProcoreOperator, WaitingOperator):
    """
    Start the workflow of an item, once, and optionally wait for its end.

    An item has at most one active instance. The task adopts an instance that is already active and succeeds with it; a
    retry, or the task after a clear, does the same with the instance that an earlier try started, which is not adopted.
    Each try stores what it read and sent in Airflow's task state store (3.3+). Without that store a retry knows only
    the active instance, adopts it, and starts another one if the first has ended in the meantime. If the response to
    the start was lost, the task reports a new instance of the item as started if Procore names the connection's user
    as its creator, and as adopted otherwise.

    Returns ``{instance_id, item_id, tool_type, project_id, step, step_occurrence_id, started_at, ended_at,
    adopted, outcome}``; ``outcome`` is None, or with ``wait_for_completion`` what ``ProcoreInstanceSensor`` returns.

    Reference: https://developers.procore.com/reference/rest/workflows-instances

    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param item_id: The item (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param template_id: Template to start from (templated).
    :param preset_id: Preset to start from; overrides the template; with neither, the default preset (templated).
    :param on_active_instance: What to do when the item has an active instance that the task did not start: ``adopt``
        (default) or ``fail``.
    :param wait_for_completion: Wait until the instance is complete or terminated.
    :param cancel_on_kill: Terminate the instance when the task is killed while it waits, unless it was adopted.
        Deferred tasks need Airflow 3.3 for this.
    :param confirm_timeout: Seconds, or a timedelta, to poll for a new instance after a lost response; default 60.
    :param dry_run: Only read, and return what would be sent, as ``{dry_run: True, would_send: [{method, path,
        body}], ...}`` (templated).
    :param wait_timeout: Maximum seconds of the wait; default 7 days.
    :param poll_interval: Seconds between two polls; by default ``[workflows] poke_interval``, else 60.
    :param deferrable: Wait in the triggerer; by default ``[operators] default_deferrable``.
    :raises ConfigurationError: a parameter is missing, an unknown tool, or a preset that is not valid.
    :raises InstanceActive: the item has an active instance, with ``on_active_instance="fail"``; never retried.
    :raises OutcomeUnknown: the response was lost, and the item shows no new instance of this task; never retried.
    """

    operator_extra_links = (ProcoreItemLink(), ApprovalsLink())
    template_fields: Sequence[str] = (
        *ProcoreOperator.template_fields,
        "tool_type",
        "item_id",
        "tool_subtype",
        "template_id",
        "preset_id",
        "dry_run",
    )

    def __init__(
        self,
        *,
        tool_type: str,
        item_id: str | int,
        tool_subtype: str | int | None = None,
        template_id: str | int | None = None,
        preset_id: str | int | None = None,
        on_active_instance: str = "adopt",
        wait_for_completion: bool = False,
        cancel_on_kill: bool = False,
        confirm_timeout: timedelta | float = 60.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tool_type = tool_type
        self.item_id = item_id
        self.tool_subtype = tool_subtype
        self.template_id = template_id
        self.preset_id = preset_id
        self.on_active_instance = on_active_instance
        self.wait_for_completion = wait_for_completion
        self.cancel_on_kill = cancel_on_kill
        self.confirm_timeout = confirm_timeout
        self._awaited: str | None = None  # the instance that a kill would terminate
        self._server = ""  # of that instance
        self._created: Mapping[str, Any] | None = None  # as in Procore's response to the start
        self._last_started = Pin(None, LAST_STARTED, None)  # by this task, also before it was cleared

    def act(self, context: Context) -> Any:
        self._check_parameters()
        self.known = {
            "item_id": str_id(self.item_id),
            "tool_type": self.tool_type,
            "project_id": self.level,
            # A branch that reads this as the result of a sensor must see that it was a dry run.
            "outcome": {"dry_run": True} if self.wait_for_completion else None,
        }
        journal = Pin(task_state_store(context), "start", None)
        self._last_started = Pin(lasting_state_store(context), LAST_STARTED, None)
        instance_id, adopted = self._started(journal) or self._start(journal)
        if not self.wait_for_completion:
            instance = self._show(instance_id, self._created)
            self.link_to(instance)
            return self._result(instance_id, instance, adopted, None)
        # Only for the link: the wait does not depend on this read.
        known = self._created or {"id": instance_id, "item_id": str_id(self.item_id)}
        instance = self._show(instance_id, known)
        self.link_to(instance)
        self.known = self._result(instance_id, instance, adopted, {"dry_run": True})
        cancels = self.cancel_on_kill and not adopted
        self._awaited, self._server = instance_id if cancels else None, self.hook.client.base_url
        # Imported here, because DAG files are parsed far more often than a task waits.
        from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger

        return self.wait(
            context,
            partial(
                ProcoreInstanceWaitTrigger,
                procore_conn_id=self.procore_conn_id,
                company_id=str_id(self.company_id),
                project_id=self.level,
                instance_id=instance_id,
                tool_type=self.tool_type,
                item_id=str_id(self.item_id),
                terminate_on_kill=cancels,
                resume_kwargs={"adopted": adopted},
            ),
        )

    def _show(self, instance_id: str, known: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Read an instance; if that fails, return its known fields, if there are any."""
        try:
            return self.hook.get_instance(instance_id, project_id=self.level)
        except WorkflowsError as unreadable:
            if known is None:
                raise
            self.log.warning("%s The task continues with the known fields of instance %s.", unreadable, instance_id)
            return known

    def finish(self, context: Context, response: Mapping[str, Any]) -> dict[str, Any]:
        outcome = response["result"]
        known = {
            "id": outcome["instance_id"],
            **{name: outcome[name] for name in ("item_id", "started_at", "ended_at")},
            "tool_type": self.tool_type,
        }
        instance = self._show(outcome["instance_id"], known)
        self.link_to(instance)
        self.log.info("%s", response["reason"])
        if outcome["state"] == "terminated" and self.cancel_on_kill and not response["resume_kwargs"]["adopted"]:
            self._check_kill(outcome["instance_id"])
        return self._result(outcome["instance_id"], instance, response["resume_kwargs"]["adopted"], outcome)

    def _check_kill(self, instance_id: str) -> None:
        """Fail if the connection's user terminated the instance, as a killed try of the task does."""
        by = rules.terminated_by(self.hook.get_instance_history(instance_id, project_id=self.level))
        if by == self.hook.user_id:
            raise AirflowFailException(
                f"WaitFailed: user {by} of this connection terminated instance {instance_id}, most likely a killed try "
                "of this task. Clear the task to start another instance."
            )

    def on_kill(self) -> None:
        if self._awaited is None:
            return
        if self.hook.client.base_url != self._server:
            self.log.warning(
                "Not terminating instance %s: the connection has another server than at the start. Terminate it there.",
                self._awaited,
            )
            return
        self.log.info("Terminating instance %s, because the task was killed.", self._awaited)
        try:
            self.hook.terminate_instance(self._awaited, project_id=self.level)
        except OutcomeUnknown:  # Procore documents that a repeated request changes nothing
            self.hook.terminate_instance(self._awaited, project_id=self.level)
        except DryRun as not_sent:  # the connection has become one since the task started the instance
            self.log.warning("%s", not_sent)
            return
        self.log.info("Terminated instance %s (item %s).", self._awaited, str_id(self.item_id))

    def _check_parameters(self) -> None:
        check_required(tool_type=self.tool_type, item_id=self.item_id)
        check_choice("on_active_instance", self.on_active_instance, ON_ACTIVE_INSTANCE)
        check_optional(self, "project_id", "tool_subtype", "template_id", "preset_id")
        self.check_wait()

    def _started(self, journal: Pin) -> tuple[str, bool] | None:
        """Return the instance that already exists and whether it is adopted, or None if the task has to start one."""
        if journal.value is not None:
            if journal.value["instance_id"] is not None:
                instance_id, adopted = str(journal.value["instance_id"]), bool(journal.value["adopted"])
                did = "adopted" if adopted else "started"
                self.log.info("An earlier try of this task has %s instance %s; nothing is sent.", did, instance_id)
                return instance_id, adopted
            if journal.value["sent"]:
                return self._resolved(
                    journal, OutcomeUnknown("An earlier try was interrupted while it started the workflow")
                )
            new = self._new_instance(journal.value["before"]) if journal.value["failed"] else None
            if new is not None:  # the failed start has created an instance after all
                return self._stored(journal, *new)
        active = rules.active_instance(self._instances())
        return None if active is None else self._adopt(journal, active)

    def _start(self, journal: Pin) -> tuple[str, bool]:
        self._check_preset()
        user_id = self.hook.user_id
        before = [str(instance["id"]) for instance in self._instances()]
        found = {"before": before, "sent": True, "failed": False, "instance_id": None, "adopted": False}
        journal.persist(found)
        try:
            instance = self.hook.start_instance(
                self.tool_type,
                str(str_id(self.item_id)),
                tool_subtype=str_id(self.tool_subtype),
                template_id=str_id(self.template_id),
                preset_id=str_id(self.preset_id),
                project_id=self.level,
            )
            instance_id = str_id(instance.get("id"))
            if not instance_id or not rules.matches_filters(instance, item_id=str_id(self.item_id)):
                raise UnexpectedResponse("The response to the start does not show an instance of the item")
        except NOTHING_DONE as rejection:
            journal.persist({**found, "sent": False})
            if not isinstance(rejection, REJECTED):
                raise
            active = poll_until_found(lambda: rules.active_instance(self._instances()), 0)
            if active is None:
                self.hook.check_tool(self.tool_type)
                raise
            self.log.info("%s But the item has an active instance now.", describe(rejection))
            return self._adopt(journal, active)
        except WorkflowsError as lost:
            return self._resolved(journal, lost)
        self._created = instance
        if instance_id in before:
            return self._adopt(journal, instance_id)
        by = rules.created_by(instance)
        if by not in (None, user_id):
            self.log.warning(
                "Procore names user %s as the creator of instance %s: the task adopts it.", by, instance_id
            )
        return self._stored(journal, instance_id, by not in (None, user_id))

    def _resolved(self, journal: Pin, lost: WorkflowsError) -> tuple[str, bool]:
        """Poll until the item has a new instance; the task starts none after an unknown outcome."""
        before = (journal.value or {})["before"]
        try:
            instance_id, adopted = resolve_unknown_outcome(
                lost,
                partial(self._new_instance, before),
                self.confirm_timeout,
                missing=(
                    f"{self.confirm_timeout:.0f} s later item {self.item_id} of tool {self.tool_type} shows no new "
                    "instance that this task has certainly started"
                ),
            )
        except ServerError:  # and there is no new instance: the next try reads again, and starts one
            journal.persist({**(journal.value or {}), "sent": False, "failed": True})
            raise
        return self._stored(journal, instance_id, adopted)

    def _new_instance(self, before: Sequence[str]) -> tuple[str, bool] | None:
        """
        Return the item's new instance and whether it is adopted, or None.

        The instance is this task's if the connection's user created it. An unknown creator may be another user, so the
        task adopts the instance.
        """
        new = [(row, self._creator(row)) for row in self._instances() if str(row["id"]) not in before]
        own = [row for row, by in new if by == self.hook.user_id]
        if own:
            return rules.newest_instance(own), False
        others = [row for row, by in new if by is None or not rules.has_ended(row)]
        if not others:
            return None
        instance_id = rules.newest_instance(others)
        by = next(by for row, by in new if str(row["id"]) == instance_id)
        creator = "its creator is unknown" if by is None else f"its creator is user {by}"
        if self.on_active_instance == "fail":
            raise OutcomeUnknown(f"Item {self.item_id} has the new instance {instance_id}; {creator}")
        self.log.info("Item %s has the new instance %s; %s. The task adopts it.", self.item_id, instance_id, creator)
        return instance_id, True

    def _creator(self, row: Mapping[str, Any]) -> str | None:
        by = rules.created_by(row)
        return by or rules.created_by(self.hook.get_instance(str(row["id"]), project_id=self.level))

    def _stored(self, journal: Pin, instance_id: str, adopted: bool) -> tuple[str, bool]:
        if not adopted:
            self._last_started.persist({"instance_id": instance_id})
        journal.persist({**(journal.value or {}), "instance_id": instance_id, "adopted": adopted})
        if not adopted:
            self.log.info(
                "Started instance %s of item %s (%s)%s as user %s.",
                *(instance_id, str_id(self.item_id), self.tool_type),
                *(current_position(self._created or {}), self.hook.user_id),
            )
        return instance_id, adopted

    def _adopt(self, journal: Pin, instance_id: str) -> tuple[str, bool]:
        found = {"before": [], "sent": False, "failed": False, "instance_id": instance_id}
        if self._last_started.value == {"instance_id": instance_id}:
            self.log.info(
                "This task started the active instance %s before it was cleared; nothing is sent.", instance_id
            )
            journal.persist({**found, "adopted": False})
            return instance_id, False
        if self.on_active_instance == "fail":
            raise InstanceActive(
                f"Item {self.item_id} of tool {self.tool_type} has the active instance {instance_id}. Set "
                "on_active_instance to 'adopt' if this is not a failure."
            )
        self.log.info("Item %s already has the active instance %s; no other one is started.", self.item_id, instance_id)
        journal.persist({**found, "adopted": True})
        return instance_id, True

    def _check_preset(self) -> None:
        if self.preset_id is None:
            return
        preset_id = str(str_id(self.preset_id))
        if self.hook.get_preset(preset_id, project_id=self.level).get("valid") is False:
            raise ConfigurationError(
                f"preset_id: preset {preset_id} is not valid, so no workflow can start from it. Complete it in Procore."
            )

    def _instances(self) -> list[dict[str, Any]]:
        rows = self.hook.list_item_instances(
            self.tool_type,
            str(str_id(self.item_id)),
            self.level,
            tool_subtype=str_id(self.tool_subtype),
            required=False,
        )
        return [row for row in rows if row.get("id") is not None]

    def _result(
        self, instance_id: str, instance: Mapping[str, Any], adopted: bool, outcome: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        step = rules.current_step(instance) or {}
        return {
            "instance_id": instance_id,
            "item_id": str_id(instance.get("item_id")),
            "tool_type": instance.get("tool_type"),
            "project_id": self.level,
            "step": step.get("name"),
            "step_occurrence_id": str_id(step.get("id")),
            "started_at": instance.get("started_at"),
            "ended_at": instance.get("ended_at"),
            "adopted": adopted,
            "outcome": outcome,
        }
