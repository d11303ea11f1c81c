"""Waits for Procore's Legacy Workflows (v1) API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import UnexpectedResponse
from airflow_provider_workflows.rules import procore_legacy as rules
from airflow_provider_workflows.rules.datetimes import parse_time
from airflow_provider_workflows.rules.wait_result import WaitResult
from airflow_provider_workflows.triggers.procore import ProcoreConnectionWaitTrigger

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
    from airflow_provider_workflows.polling.poll import PollScope
    from airflow_provider_workflows.rules.overdue import OverdueStep


# An instance without an activity can be between two states; it has ended if each poll finds it so for that long.
ENDED_AFTER_SECONDS = 600.0


class ProcoreLegacyWaitTrigger(ProcoreConnectionWaitTrigger):
    """
    A wait on one legacy instance.

    :param project_id: Project of the object, or None for the connection's.
    :param instance_id: The instance; or None where a subclass looks it up.
    :param mark: Of where a look on the worker has found it, or None.
    :param idle: Since when all polls have found it without an activity in the same visit of a state: ``{occurrence,
        since}``, in unix time; or None.
    """

    def __init__(
        self,
        *,
        project_id: str | None,
        instance_id: str | None,
        mark: str | None = None,
        idle: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.instance_id = instance_id
        self.mark = mark
        self.idle = idle
        self.polled_at = 0.0

    def arguments(self) -> dict[str, Any]:
        known = {name: value for name in ("mark", "idle") if (value := getattr(self, name)) is not None}
        return {**super().arguments(), "project_id": self.project_id, "instance_id": self.instance_id, **known}

    @property
    def connection(self) -> tuple[str | None, ...]:
        return ("procore_legacy", self.procore_conn_id, self.company_id, self.project_id)

    def scope(self) -> PollScope:
        if self.instance_id is None:
            return super().scope()
        from airflow_provider_workflows.polling.procore_legacy import LegacyInstancesScope

        return LegacyInstancesScope(self.procore_conn_id, self.company_id)

    @property
    def list_key(self) -> str | None:
        return self.instance_id

    def poll_once(self, hook: ProcoreLegacyHook) -> tuple[Any, WaitResult | OverdueStep | None]:
        """Look, and remember by its mark what was seen: a list shows then whether it has changed since."""
        snapshot, wait_result = super().poll_once(hook)
        self.mark = None if self.is_undecided(snapshot) else rules.mark_of(snapshot)
        return snapshot, wait_result

    def show(self, hook: ProcoreLegacyHook, instance_id: str) -> dict[str, Any]:
        """Read where an instance stands, who holds it, and since when it lists no activity."""
        shown = hook.get_instance(instance_id)
        self.pending_step = rules.pending_step_of(shown)
        described = rules.describe_instance(shown)
        occurrence = f"{described['state_id']}@{described['state_set_at']}"
        if not rules.is_idle(described):
            self.idle = None
        elif self.idle is None or self.idle["occurrence"] != occurrence:
            self.idle = {"occurrence": occurrence, "since": time.time()}
        return described

    @property
    def is_over(self) -> bool:
        """Whether the instance has listed no activity for so long that it has ended."""
        return self.idle is not None and time.time() - float(self.idle["since"]) >= ENDED_AFTER_SECONDS

    def item_of(self, snapshot: dict[str, Any]) -> dict[str, Any]:
        return snapshot

    def where(self, instance: dict[str, Any]) -> str:
        """Say for the log where an instance stands."""
        held = f"since {instance['state_set_at']}" if self.pending_step is None else self.pending_step.describe()
        return (
            f"Instance {instance['instance_id']} of {instance['object_type']} {instance['object_id']} is in state "
            f"{instance['state']!r} {held}"
            f"{'; it lists no activity: it has ended, or is between two states' if rules.is_idle(instance) else ''}"
        )

    def is_undecided(self, instance: dict[str, Any]) -> bool:
        """Tell whether something else than the instance decides, which no list shows, such as time."""
        return rules.is_idle(instance)

    def open_hook(self) -> ProcoreLegacyHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)


class ProcoreLegacyInstanceWaitTrigger(ProcoreLegacyWaitTrigger):
    """
    Waits until a legacy instance is in one of the given states, or until an activity can be performed.

    :param project_id: Project of the object, or None for the connection's.
    :param instance_id: The instance; or None to look it up by its object.
    :param object_type: Tool or class of the object, when waiting by object.
    :param object_id: The object, when waiting by object.
    :param until: States that end the wait with success: names, statuses or ids.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param after: The action before the wait: a history id, a time, or what a look made of it; or None.
    :param activity: Name or id of the activity that ends the wait once it can be performed, or None.
    :param role: Name or id of the role it must be open to, or None for any.
    """

    def __init__(
        self,
        *,
        object_type: str | None,
        object_id: str | None,
        until: list[str],
        fail_on: list[str],
        skip_on: list[str],
        after: str | dict[str, Any] | None,
        activity: str | None,
        role: str | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.object_type = object_type
        self.object_id = object_id
        self.until = until
        self.fail_on = fail_on
        self.skip_on = skip_on
        self.after = after
        self.activity = activity
        self.role = role

    def arguments(self) -> dict[str, Any]:
        own = ("object_type", "object_id", "until", "fail_on", "skip_on", "after", "activity", "role")
        return {**super().arguments(), **{name: getattr(self, name) for name in own}}

    def snapshot(self, hook: ProcoreLegacyHook) -> dict[str, Any]:
        # Both are asked for once: what is found here travels to the triggerer.
        if self.instance_id is None:
            self.instance_id = hook.find_instance_id(str(self.object_type), str(self.object_id))
        if isinstance(self.after, str):
            self.after = self._action(hook, self.after, self.instance_id)
        instance = self.show(hook, self.instance_id)
        if (
            self.after is not None
            and rules.is_undecided(instance, self.after)
            and rules.is_followed(hook.list_activity_histories(self.instance_id), self.after)
        ):
            self.after = {**self.after, "state_id": None}  # somebody acted since, so that visit is over
        return instance

    def evaluate(self, snapshot: dict[str, Any]) -> WaitResult | None:
        assert not isinstance(self.after, str)
        return rules.evaluate_instance(
            snapshot,
            until=self.until,
            fail_on=self.fail_on,
            skip_on=self.skip_on,
            after=self.after,
            activity=self.activity,
            role=self.role,
            is_over=self.is_over,
        )

    def describe(self, snapshot: dict[str, Any]) -> str:
        desired_groups = [*self.until, *([] if self.activity is None else [f"activity {self.activity}"])]
        return f"{self.where(snapshot)}; waited for: {', '.join(desired_groups)}."

    def is_undecided(self, instance: dict[str, Any]) -> bool:
        is_within_a_second = isinstance(self.after, dict) and rules.is_undecided(instance, self.after)
        return is_within_a_second or super().is_undecided(instance)

    @staticmethod
    def _action(hook: ProcoreLegacyHook, after: str, instance_id: str) -> dict[str, Any]:
        if not after.isdecimal():
            return rules.moment_of(after)
        action = rules.action_of(hook.get_activity_history(after, instance_id=instance_id))
        if parse_time(action["at"]) is None:
            raise UnexpectedResponse(
                f"History {after} has no time ({action['at']!r}), so nothing tells which state came after it. Give "
                "after as a time instead"
            )
        return action


class ProcoreLegacyStateChangeWaitTrigger(ProcoreLegacyWaitTrigger):
    """
    Waits until the state has moved on in which an activity was performed, or the instance ended.

    It knows what was performed and hands that on in its event, so that the resumed task need not look it up.

    :param project_id: Project of the object, or None for the connection's.
    :param instance_id: The instance.
    :param occurrence: The visit of the state: ``{id, name, status, set_at}``.
    :param performed: What the operator returns of the activity.
    """

    def __init__(self, *, occurrence: dict[str, Any], performed: dict[str, Any], **kwargs: Any):
        super().__init__(**kwargs)
        self.occurrence = occurrence
        self.performed = performed

    def arguments(self) -> dict[str, Any]:
        return {**super().arguments(), "occurrence": self.occurrence, "performed": self.performed}

    def snapshot(self, hook: ProcoreLegacyHook) -> dict[str, Any]:
        return self.show(hook, str(self.instance_id))

    def evaluate(self, snapshot: dict[str, Any]) -> WaitResult | None:
        return rules.evaluate_state_change(snapshot, self.occurrence, self.performed, is_over=self.is_over)

    def describe(self, snapshot: dict[str, Any]) -> str:
        return (
            f"{self.where(snapshot)}; waited for: another state than "
            f"{self.occurrence['name'] or self.occurrence['id']!r} since {self.occurrence['set_at']}."
        )
