"""
The wait trigger for the approval of an item in either of Procore's tools: Legacy, or Workflows v2 after the switch.

As long as no v2 instance runs the item, the trigger joins the polls of both tools, then only those of v2.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import NotFound, WorkflowsError
from airflow_provider_workflows.rules import procore as rules_v2
from airflow_provider_workflows.rules import procore_item as rules
from airflow_provider_workflows.rules.datetimes import time_text
from airflow_provider_workflows.rules.overdue import OverdueStep
from airflow_provider_workflows.rules.patience import Rejections
from airflow_provider_workflows.rules.payload import documented_form
from airflow_provider_workflows.rules.wait_result import WaitAction, WaitResult
from airflow_provider_workflows.settings import rejection_patience_seconds
from airflow_provider_workflows.triggers.base import WaitTrigger
from airflow_provider_workflows.triggers.procore import ProcoreWaitTrigger
from airflow_provider_workflows.triggers.procore_item_parts import LegacyPart, ToolPart, V2Part

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook


class LeftItem(OverdueStep):
    """
    Describe an item whose Legacy instance was left behind, so that a worker stores that, or calls ``on_stuck``.

    Airflow builds a trigger from its first arguments after a restart, so only a worker can store what a trigger sees.
    """


class ProcoreItemWaitTrigger(ProcoreWaitTrigger):
    """
    Wait for the approval of an item, whichever tool runs it.

    :param project_id: Project to search, ``company``, or None for the level of the tool.
    :param tool_type: Tool of the item.
    :param tool_subtype: Subtype of the tool, or None.
    :param item_id: The item.
    :param legacy_instance_id: Its Legacy instance, or None to look it up by the item.
    :param legacy_object_type: Tool or class of the item in Legacy, or None if it is the tool's type.
    :param legacy_until: Legacy states that are an outcome: names, statuses or ids; empty: each final state.
    :param until: States that end the wait with success.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param on_stuck: ``fail``, ``skip`` or ``notify``.
    :param stuck_after: Seconds without a new workflow after which an item counts as stuck.
    :param seen: What earlier polls have seen, as :attr:`seen` returned it, or None.
    """

    own = (
        "project_id",
        "tool_type",
        "tool_subtype",
        "item_id",
        "legacy_instance_id",
        "legacy_object_type",
        "legacy_until",
        "until",
        "fail_on",
        "skip_on",
        "on_stuck",
        "stuck_after",
        "seen",
    )

    def __init__(
        self,
        *,
        project_id: str | None,
        tool_type: str,
        item_id: str,
        on_stuck: str,
        stuck_after: float,
        tool_subtype: str | None = None,
        legacy_instance_id: str | None = None,
        legacy_object_type: str | None = None,
        legacy_until: Collection[str] = (),
        until: Collection[str] = tuple(sorted(rules_v2.ENDED_STATES)),
        fail_on: Collection[str] = (),
        skip_on: Collection[str] = (),
        seen: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_id = item_id
        self.legacy_instance_id = legacy_instance_id
        self.legacy_object_type = legacy_object_type
        self.legacy_until = list(legacy_until)
        self.until = list(until)
        self.fail_on = list(fail_on)
        self.skip_on = list(skip_on)
        self.on_stuck = on_stuck
        self.stuck_after = stuck_after
        self.legacy_hook: ProcoreLegacyHook | None = None  # on a worker
        self._current: ToolPart | None = None  # the part that shows what the item waits for
        self._unclear: Rejections | None = None  # evaluations that failed in the triggerer
        self._in_outage: set[ToolPart] = set()
        shared: dict[str, Any] = {
            "procore_conn_id": self.procore_conn_id,
            "company_id": self.company_id,
            "project_id": project_id,
            "poll_interval": self.poll_interval,
            "deadline": self.deadline,
        }
        known = seen or {}
        self.v2 = V2Part(
            **shared, instance_id=None, tool_type=tool_type, tool_subtype=tool_subtype, item_id=item_id, until=until
        )
        self.legacy = LegacyPart(
            **shared,
            instance_id=known.get("instance_id") or legacy_instance_id,
            mark=known.get("mark"),
            idle=known.get("idle"),
            object_type=legacy_object_type or tool_type,
            item_id=item_id,
            until=legacy_until,
        )
        self.legacy.seen, self.legacy.stage = known.get("legacy"), known.get("stage")
        rejections = known.get("rejections") or {}
        for name, part in (("procore", self.v2), ("procore_legacy", self.legacy)):
            part.rejections = Rejections.from_dict(rejections.get(name))
            part.on_poll, part.on_outage = self._on_poll, self._on_outage
        self.follows_v2 = bool(known.get("follows_v2"))  # an active v2 instance was seen
        self.v2_was_absent = bool(known.get("v2_was_absent"))  # so a v2 instance that appears later is a new one
        self.left: dict[str, Any] | None = known.get("left")  # {how, since} of the Legacy instance
        self._left_is_stored = self.left is not None  # in the arguments
        self.notified: float | None = known.get("notified")  # ``since`` for which on_stuck was called

    @property
    def seen(self) -> dict[str, Any]:
        """What the polls have seen so far, as JSON primitives: for the trigger's arguments, its event, and a retry."""
        legacy = self.legacy
        rejections = {"procore": self.v2.rejections, "procore_legacy": legacy.rejections}
        return {
            "instance_id": legacy.instance_id,
            "legacy": legacy.seen,
            "stage": legacy.stage,
            "mark": legacy.mark,
            "idle": legacy.idle,
            "left": self.left,
            "follows_v2": self.follows_v2,
            "v2_was_absent": self.v2_was_absent,
            "notified": self.notified,
            "rejections": {name: None if each is None else each.to_dict() for name, each in rejections.items()},
        }

    # --- on a worker ---

    def snapshot(self, hook: ProcoreHook) -> None:
        self.v2.poll_once(hook)
        self.project_id = self.v2.project_id
        if not self._runs_in_v2:
            self.legacy_hook = self.legacy_hook or self.legacy.open_hook()
            self.legacy.poll_once(self.legacy_hook)
        if self.v2.is_read and self.v2.reading is None and self._is_unknown_in_legacy:
            hook.check_tool(self.tool_type)  # a misspelt tool has no instances either

    # --- in a triggerer ---

    @property
    def parts(self) -> Sequence[WaitTrigger]:
        return (self.v2,) if self.follows_v2 else (self.v2, self.legacy)

    def _on_poll(self, part: ToolPart, outcome: Any) -> None:
        """Evaluate what both parts know after a poll of one of them."""
        from airflow_provider_workflows.polling.list_poll import MOVED

        followed = self.follows_v2
        if outcome is None:
            try:
                with documented_form():
                    outcome = self.outcome_of(None)
                self._unclear = None
            except WorkflowsError as fault:
                self.last_fault = str(fault)
                self._unclear = Rejections.following(self._unclear, time.time())
                outcome = fault if self._unclear.are_final(time.time(), rejection_patience_seconds()) else None
        if outcome is None and self.left is not None and not self._left_is_stored:
            outcome = self._left_item(self.left)
        self.deliver(MOVED if outcome is None and self.follows_v2 != followed else outcome)

    def _on_outage(self, part: ToolPart, fault: str | None) -> None:
        was_out = bool(self._in_outage)
        if fault is None:
            self._in_outage.discard(part)
        else:
            self._in_outage.add(part)
        if bool(self._in_outage) is not was_out:
            self.report_outage(fault)

    async def _wait(self) -> dict[str, Any]:
        # In the event, because dag.test() drops the arguments of a deferral.
        return {**await super()._wait(), "seen": self.seen}

    def _overdue_event(self, overdue_step: OverdueStep) -> dict[str, Any]:
        if isinstance(overdue_step, LeftItem):
            return {"status": "poke", "deadline": self.deadline}
        return super()._overdue_event(overdue_step)

    # --- the evaluation ---

    def evaluate(self, snapshot: None) -> WaitResult | None:
        states = {"until": self.until, "fail_on": self.fail_on, "skip_on": self.skip_on}
        v2, legacy = self.v2, self.legacy
        if v2.reading is None and v2.is_read:
            self.v2_was_absent = True
        elif v2.reading is not None and not rules_v2.has_ended(v2.reading):
            self.follows_v2 = True
        if v2.reading is not None and self._is_newer_in_v2(v2.reading):
            self._take(v2)
            if self.follows_v2 and v2.rejection is not None:
                raise v2.rejection
            return rules.v2_outcome(v2.reading, self._seen_of_legacy("unchanged"), self.tool_type, **states)
        if self.follows_v2 and not v2.is_read and v2.rejection is None:
            return None  # not polled yet
        if self.follows_v2:
            raise v2.rejection or NotFound(f"Item {self.item_id} of tool {self.tool_type} has no workflow any more")
        self._update_left()
        self._take(legacy)
        if legacy.reading is not None and legacy.stage in ("complete", "elsewhere"):
            if not (v2.is_read or v2.is_rejected):
                return None
            item = {"item_id": self.item_id, "tool_type": self.tool_type, "project_id": self.project_id}
            read_at = datetime.fromtimestamp(legacy.read_at, timezone.utc)
            seen = rules.seen_of_legacy({**legacy.reading, "seen_at": time_text(read_at)}, None) or {}
            return rules.legacy_outcome(
                legacy.reading,
                legacy.stage,
                legacy.decision,
                seen,
                item=item,
                legacy_until=self.legacy_until,
                **states,
            )
        return self._result_of_missing()

    def _result_of_missing(self) -> WaitResult | None:
        """Return the result for an item that no tool is known to run, or None while one may do so."""
        v2, legacy = self.v2, self.legacy
        if self.left is not None:
            if v2.rejection is not None:
                raise v2.rejection
            if self.is_stuck and self.on_stuck != "notify":
                action: WaitAction = "skip" if self.on_stuck == "skip" else "fail"
                return WaitResult(action, {"legacy": self._seen_of_legacy(None)}, self.stuck_reason)
            return None
        if legacy.rejection is None or (legacy.seen is not None and isinstance(legacy.rejection, NotFound)):
            return None  # it runs, or it may be gone, which is believed after the patience
        if v2.rejection is not None:
            raise v2.rejection
        if not v2.is_read:
            return None
        if isinstance(legacy.rejection, NotFound):
            raise NotFound(
                f"Item {self.item_id} of tool {self.tool_type} has no workflow instance that is visible to the "
                f"connection's user, neither in the new Workflows tool nor in Legacy: {legacy.rejection}",
                is_documented=legacy.rejection.is_documented,
            )
        raise legacy.rejection

    def _is_newer_in_v2(self, instance: dict[str, Any]) -> bool:
        """Return whether a v2 instance decides, and not the Legacy instance; False while that is unknown."""
        legacy = self.legacy
        if self._runs_in_v2:
            return True
        if not legacy.is_read and legacy.seen is None:
            return self._is_unknown_in_legacy or legacy.is_rejected
        if legacy.is_read:
            return rules.is_newer_in_v2(instance, legacy.reading, legacy.stage)
        return rules.is_newer_in_v2(instance, legacy.seen, None if self.left else legacy.stage)

    @property
    def _runs_in_v2(self) -> bool:
        found = self.v2.reading
        return found is not None and (self.follows_v2 or self.v2_was_absent or not rules_v2.has_ended(found))

    @property
    def _is_unknown_in_legacy(self) -> bool:
        """Whether Legacy has said that the item has no instance, and none was ever seen."""
        return self.legacy.seen is None and isinstance(self.legacy.rejection, NotFound)

    @property
    def _is_gone(self) -> bool:
        """Whether the Legacy instance was seen, and is not found for longer than the patience."""
        legacy = self.legacy
        is_missing = isinstance(legacy.rejection, NotFound) and legacy.seen is not None
        return is_missing and (legacy.is_rejected or self.left is not None)

    def _update_left(self) -> None:
        """Record since when the Legacy instance is left behind; forget it if it runs again."""
        legacy = self.legacy
        if legacy.is_read:
            idle_since = None if legacy.idle is None else float(legacy.idle["since"])
            if legacy.stage == "idle":
                self._record_left("idle", idle_since)
            elif legacy.stage == "terminated":
                self._record_left("terminated", rules.terminated_at(legacy.reading))
            else:
                self.left = None
        elif self._is_gone and legacy.rejections is not None:
            self._record_left("gone", legacy.rejections.since)
        left = self.left
        needs_poll = left is not None and self.notified != left["since"] and self._is_due(time.time())
        legacy.is_left = left is not None and not needs_poll
        if needs_poll:
            legacy.mark = None  # so that the next poll reads it, even if its row in the list is unchanged

    def _record_left(self, how: str, since: float | None) -> None:
        """Record how it is left behind now, and the earliest time since which it is left behind in any way."""
        times = [time.time(), *([] if since is None else [since]), *([] if self.left is None else [self.left["since"]])]
        self.left = {"how": how, "since": min(times)}

    def _is_due(self, at: float) -> bool:
        return self.left is not None and at - self.left["since"] >= self.stuck_after

    @property
    def is_stuck(self) -> bool:
        """Whether, as of the last polls of both tools, the item is stuck."""
        is_known = self.v2.is_read and not self._runs_in_v2
        return is_known and self._is_due(min(self.v2.read_at, self.legacy.read_at))

    @property
    def stuck_reason(self) -> str:
        assert self.left is not None
        seen = self.legacy.seen
        return rules.stuck_reason(self.tool_type, self.item_id, self.legacy.instance_id, seen, self.left)

    @property
    def stuck(self) -> LeftItem | None:
        """The stuck item, if on_stuck is to be called for it."""
        is_new = self.left is not None and self.notified != self.left["since"]
        if self.left is None or not is_new or self.on_stuck != "notify" or not self.is_stuck:
            return None
        return self._left_item(self.left)

    def _left_item(self, left: dict[str, Any]) -> LeftItem:
        seen = self.legacy.seen or {}
        return LeftItem(
            step_occurrence_id=f"{self.legacy.instance_id}@{left['since']:.0f}",
            step=seen.get("state"),
            since=seen.get("state_set_at"),
            due=None,
            reason=self.stuck_reason,
            at=left["since"],
        )

    def outcome_of(self, snapshot: None) -> WaitResult | OverdueStep | None:
        planned = None if self.overdue_watch is None else self.overdue_watch["next"]
        outcome = super().outcome_of(snapshot)
        part = self._current
        self.is_polled = part is not None and part.is_polled
        if self.overdue_watch is not None and not self.is_polled and self.left is None:
            # The step has not changed since a worker read it, so the level that is due next has not, either.
            self.overdue_watch["next"] = planned
            outcome = self.overdue() if outcome is None else outcome
        return self.stuck if outcome is None else outcome

    def _seen_of_legacy(self, how: str | None) -> dict[str, Any] | None:
        return rules.seen_of_legacy(self.legacy.seen, self.left, how)

    # --- the description for people ---

    def _take(self, part: ToolPart) -> None:
        """Describe the wait by what a part has read."""
        self._current, self.workflow = part, part.workflow
        self.pending_step = None if part is self.legacy and self.left is not None else part.pending_step
        if part.is_polled:
            self._server_time, self._item_url = part._server_time, part._item_url

    def describe(self, snapshot: None) -> str:
        part = self._current
        if part is self.legacy and self.left is not None:
            return (
                f"Legacy instance {self.legacy.instance_id} of item {self.item_id} ({self.tool_type}) "
                f"{rules.HOW_LEFT[self.left['how']]}; waiting for a new workflow of the item in either tool."
            )
        return self.last_poll if part is None or not part.is_polled else part.last_poll

    @property
    def product(self) -> str:
        return rules.LEGACY if self._current is self.legacy else rules.PROCORE

    @property
    def subject(self) -> str:
        return ", ".join([*self.until, *self.legacy_until])

    @property
    def current_error(self) -> str:
        is_gone = self.left is not None and self.left["how"] == "gone"
        parts = [self.v2] if is_gone or self.follows_v2 else [self.v2, self.legacy]
        return self.last_fault or "; ".join(str(part.rejection) for part in parts if part.rejection is not None)

    @property
    def standing(self) -> str:
        fault = self.current_error
        return f"{self.last_poll} The last poll failed: {fault}" if fault else self.last_poll

    @property
    def requested_item(self) -> dict[str, str | None]:
        ids = {"item_id": self.item_id, "tool_type": self.tool_type, "project_id": self.project_id}
        return {"instance_id": self.legacy.instance_id, **ids}

    def item_of(self, snapshot: None) -> dict[str, str | None]:
        found = self.v2.reading if self._current is self.v2 else None
        return {**self.requested_item, **({} if found is None else {"instance_id": found["instance_id"]})}
