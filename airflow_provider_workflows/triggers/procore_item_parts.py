"""
The parts of the wait for an item's approval: each reads the item in one of Procore's tools, Legacy or Workflows v2.

A part joins the shared polls of its tool, as the waits for a single tool do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import (
    REJECTIONS,
    ConfigurationError,
    NotFound,
    UnexpectedResponse,
    WorkflowsError,
)
from airflow_provider_workflows.rules import procore as rules_v2
from airflow_provider_workflows.rules import procore_item as rules
from airflow_provider_workflows.rules import procore_legacy as legacy_rules
from airflow_provider_workflows.rules.datetimes import time_text, unix_time
from airflow_provider_workflows.rules.patience import Rejections
from airflow_provider_workflows.rules.wait_result import WaitResult
from airflow_provider_workflows.settings import rejection_patience_seconds
from airflow_provider_workflows.triggers.base import WaitTrigger
from airflow_provider_workflows.triggers.procore import ProcoreInstanceWaitTrigger
from airflow_provider_workflows.triggers.procore_legacy import ENDED_AFTER_SECONDS, ProcoreLegacyWaitTrigger

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook


class ToolPart(WaitTrigger):
    """
    Read an item in one of the tools, for a :class:`ProcoreItemWaitTrigger`, which evaluates what both parts have read.

    A rejected poll is recorded instead of raised, because the other tool may run the item.
    """

    reading: dict[str, Any] | None = None  # of the last successful poll; None: no instance, or not polled yet
    read_at = 0.0  # unix time of the last poll, rejected or not
    is_read = False  # by the last poll
    rejection: WorkflowsError | None = None  # of the last poll
    rejections: Rejections | None = None
    is_rejected = False  # for longer than the patience
    on_poll: Callable[[ToolPart, Any], None] | None = None
    on_outage: Callable[[ToolPart, str | None], None] | None = None
    _was_rejected = False  # by a poll that was not delivered yet

    def poll_once(self, hook: Any) -> tuple[Any, Any]:
        try:
            snapshot, _ = super().poll_once(hook)
        except (*REJECTIONS, UnexpectedResponse) as rejection:
            self.reject(rejection)
            return None, None
        return snapshot, None

    def evaluate(self, snapshot: Any) -> WaitResult | None:
        self.reading, self.read_at = snapshot, time.time()
        self._accept()
        return None  # the trigger evaluates both parts

    def reject(self, rejection: WorkflowsError) -> None:
        """Record a rejected poll; what was read before it stays."""
        self.read_at = now = time.time()
        self.rejections = Rejections.following(self.rejections, now)
        self.is_rejected = self.rejections.are_final(now, rejection_patience_seconds())
        self.rejection, self.is_read, self._was_rejected = rejection, False, True

    def _accept(self) -> None:
        self.is_read, self.rejection, self.rejections, self.is_rejected = True, None, None, False

    def deliver(self, outcome: Any) -> None:
        if isinstance(outcome, WorkflowsError):  # rejected for longer than the patience of the poll
            self.reject(outcome)
            self.is_rejected, outcome = True, None
        elif outcome is None and not self._was_rejected and not self.is_absent and self.read_at:
            self._accept()  # a list shows that nothing has changed since the last poll
        self._was_rejected = False
        if self.on_poll is not None:
            self.on_poll(self, outcome)

    def report_outage(self, fault: str | None) -> None:
        self.last_fault = fault or ""
        if self.on_outage is not None:
            self.on_outage(self, fault)


class V2Part(ToolPart, ProcoreInstanceWaitTrigger):
    """Read the newest v2 instance of an item; None if it has none."""

    def snapshot(self, hook: ProcoreHook) -> Any:
        self.project_id = self._level(hook)
        rows = hook.list_item_instances(
            str(self.tool_type), str(self.item_id), self.project_id, tool_subtype=self.tool_subtype, required=False
        )
        if not rows:
            self._has_nothing()
            return None
        instance_id = rules_v2.newest_instance(rows)
        return self._snapshot(hook.get_instance_history(instance_id, project_id=self.project_id), instance_id)[0]

    def evaluate_histories(self, histories: list[Any]) -> Any:
        if not histories:
            self._has_nothing()
            return self.outcome_of(None)
        instance_id, history = self._own_history(histories)
        return self.outcome_of(self._snapshot(history, instance_id)[0])

    def _has_nothing(self) -> None:
        self.pending_step, self.workflow = None, None

    def _level(self, hook: ProcoreHook) -> str:
        """Return the project to search, or ``company``; before the switch Procore may not list the tool."""
        try:
            return hook.level_for(self.project_id, self.tool_type)
        except ConfigurationError as unknown:
            if self.project_id is None and hook.project_id is not None:
                return hook.project_id
            raise ConfigurationError(
                f"{unknown} If the tool has workflows in Legacy only, give project_id, or 'company'."
            ) from unknown

    @property
    def is_absent(self) -> bool:
        return (self.is_read and self.reading is None) or self.is_rejected

    def describe(self, snapshot: Any) -> str:
        if snapshot is None:
            return f"Item {self.item_id} ({self.tool_type}) has no workflow in the new Workflows tool."
        return super().describe((snapshot, None))

    def item_of(self, snapshot: Any) -> dict[str, str | None]:
        return self.requested_item if snapshot is None else super().item_of((snapshot, None))


class LegacyPart(ToolPart, ProcoreLegacyWaitTrigger):
    """
    Read the Legacy instance of an item: the given one, or else that of the item.

    If it was terminated or is gone, another one of the same item that lists an activity takes its place.

    :param object_type: Tool or class of the item in Legacy.
    :param item_id: The item.
    :param until: States that are an outcome.
    """

    def __init__(self, *, object_type: str, item_id: str, until: Collection[str] = (), **kwargs: Any):
        super().__init__(**kwargs)
        self.object_type = object_type
        self.item_id = item_id
        self.until = list(until)
        self.seen: dict[str, Any] | None = None  # as it last listed an activity, else as it was first seen
        self.stage: rules.Stage | None = None
        self.decision: dict[str, Any] | None = None
        self.is_left = False

    def arguments(self) -> dict[str, Any]:
        own = {"object_type": self.object_type, "item_id": self.item_id, "until": self.until}
        return {**super().arguments(), **own}

    def snapshot(self, hook: ProcoreLegacyHook) -> dict[str, Any]:
        if self.instance_id is None:
            self.instance_id = hook.find_instance_id(self.object_type, self.item_id)
        instance = self._current(hook, self.instance_id)
        histories = None
        if not instance["terminated_at"] and (legacy_rules.is_idle(instance) or rules.is_named(instance, self.until)):
            histories = self._histories(hook)
        entered = unix_time(instance["state_set_at"])
        age = 0.0 if entered is None else hook.client.server_time().timestamp() - entered
        self.stage = rules.stage_of(
            instance,
            until=self.until,
            histories=histories,
            seen=self.seen,
            is_over=self.is_over,
            is_old=age >= ENDED_AFTER_SECONDS,
        )
        is_outcome = self.stage in ("complete", "elsewhere")
        self.decision = rules.legacy_decision(instance, histories) if is_outcome else None
        if self.seen is None or (instance["activities"] and not instance["terminated_at"]):
            self.seen = {**instance, "seen_at": time_text(datetime.fromtimestamp(time.time(), timezone.utc))}
        return instance

    def _current(self, hook: ProcoreLegacyHook, instance_id: str) -> dict[str, Any]:
        """Read the instance, or the one that was started instead of it."""
        other = None
        try:
            instance = self.show(hook, instance_id)
        except NotFound:
            other = None if self.seen is None else self._other(hook)
            if other is None:
                raise
        else:
            other = self._other(hook) if instance["terminated_at"] else None
            if other is None:
                return instance
        self.instance_id = other
        return self.show(hook, other)

    def show(self, hook: ProcoreLegacyHook, instance_id: str) -> dict[str, Any]:
        instance = super().show(hook, instance_id)
        if instance["object_id"] not in (None, self.item_id):
            raise ConfigurationError(
                f"Legacy instance {instance_id} belongs to {instance['object_type']} {instance['object_id']}, not to "
                f"item {self.item_id}. Check legacy_instance_id."
            )
        return instance

    def _other(self, hook: ProcoreLegacyHook) -> str | None:
        """Return another instance of the item that lists an activity, or None; an ended one may be an older one."""
        try:
            other = hook.find_instance_id(self.object_type, self.item_id)
            if other == self.instance_id:
                return None
            instance = legacy_rules.describe_instance(hook.get_instance(other))
        except REJECTIONS:
            return None
        return None if instance["terminated_at"] or legacy_rules.is_idle(instance) else other

    def _histories(self, hook: ProcoreLegacyHook) -> list[dict[str, Any]] | None:
        try:
            return hook.list_activity_histories(str(self.instance_id))
        except REJECTIONS:  # the switch may have removed it
            return None

    @property
    def is_absent(self) -> bool:
        return self.is_left or self.is_rejected

    def is_undecided(self, instance: dict[str, Any]) -> bool:
        return self.stage not in ("open", "idle")

    def describe(self, snapshot: dict[str, Any]) -> str:
        return f"{self.where(snapshot)}."
