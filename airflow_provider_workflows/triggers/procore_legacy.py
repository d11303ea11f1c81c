"""Wait triggers for Procore's Legacy Workflows (v1) API: an instance's state, or the end of its current state."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import NotFound, UnexpectedResponse
from airflow_provider_workflows.rules import procore_legacy as rules
from airflow_provider_workflows.rules.datetimes import parse_time
from airflow_provider_workflows.rules.wait_result import WaitResult
from airflow_provider_workflows.triggers.procore import ProcoreConnectionWaitTrigger, name_of

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
    from airflow_provider_workflows.polling.poll import PollScope
    from airflow_provider_workflows.rules.overdue import OverdueStep


# An instance without activities may be between two states; after this time without activities it has ended.
ENDED_AFTER_SECONDS = 600.0


class ProcoreLegacyWaitTrigger(ProcoreConnectionWaitTrigger):
    """
    Wait for one Legacy instance.

    :param project_id: Project of the object, or None for the project of the connection.
    :param instance_id: The instance; or None if a subclass looks it up.
    :param mark: Version of the instance as of a poll on the worker, or None.
    :param idle: Since when all polls have found no activity at the same occurrence of a state: ``{occurrence, since}``,
        ``since`` in unix time; or None.
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
        """Poll, and store the instance's mark, by which a list shows whether it has changed since."""
        snapshot, wait_result = super().poll_once(hook)
        self.mark = None if self.is_undecided(snapshot) else rules.mark_of(snapshot)
        return snapshot, wait_result

    def show(self, hook: ProcoreLegacyHook, instance_id: str) -> dict[str, Any]:
        """
        Read an instance's state, its pending assignees, and since when it lists no activity.

        :raises NotFound: the instance is gone, or not visible; the message names the move to the new Workflows tool.
        """
        try:
            record = hook.get_instance(instance_id)
        except NotFound as gone:
            gone.advice = f"{gone.advice} {rules.SWITCH}"
            raise gone.reworded(f"Legacy instance {instance_id} cannot be found") from gone
        self.pending_step = rules.pending_step_of(record)
        instance = rules.describe_instance(record)
        self.workflow = name_of(instance["workflow"])
        occurrence = f"{instance['state_id']}@{instance['state_set_at']}"
        if not rules.is_idle(instance):
            self.idle = None
        elif self.idle is None or self.idle["occurrence"] != occurrence:
            self.idle = {"occurrence": occurrence, "since": time.time()}
        return instance

    @property
    def is_over(self) -> bool:
        """Whether the instance has ended, because it has listed no activity for :data:`ENDED_AFTER_SECONDS`."""
        return self.idle is not None and time.time() - float(self.idle["since"]) >= ENDED_AFTER_SECONDS

    @property
    def requested_item(self) -> dict[str, str | None]:
        return {"instance_id": self.instance_id, "project_id": self.project_id}

    def item_of(self, snapshot: dict[str, Any]) -> dict[str, str | None]:
        return {
            "instance_id": snapshot["instance_id"],
            "item_id": snapshot["object_id"],
            "tool_type": snapshot["object_type"],
            "project_id": snapshot["project_id"] or self.project_id,
        }

    def where(self, instance: dict[str, Any]) -> str:
        """Return the state of an instance and its pending assignees, for the log."""
        pending = f"since {instance['state_set_at']}" if self.pending_step is None else self.pending_step.describe()
        return (
            f"Instance {instance['instance_id']} of {instance['object_type']} {instance['object_id']} is in state "
            f"{instance['state']!r} {pending}"
            f"{'; it lists no activity: it has ended, or is between two states' if rules.is_idle(instance) else ''}"
        )

    def is_undecided(self, instance: dict[str, Any]) -> bool:
        """Return whether the result depends on more than the instance's row shows, such as time."""
        return rules.is_idle(instance)

    def open_hook(self) -> ProcoreLegacyHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)


class ProcoreLegacyInstanceWaitTrigger(ProcoreLegacyWaitTrigger):
    """
    Wait until a Legacy instance is in one of the given states, or until an activity can be performed.

    :param project_id: Project of the object, or None for the project of the connection.
    :param instance_id: The instance; or None to look it up by its object.
    :param object_type: Tool or class of the object, if the wait is by object.
    :param object_id: The object, if the wait is by object.
    :param until: States that end the wait with success: names, statuses or ids.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param after: The action before the wait: a history id, a time, or the action as a poll has read it; or None.
    :param activity: Name or id of the activity that ends the wait when it can be performed, or None.
    :param role: Name or id of the role that must be able to perform it, or None for any.
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
        # Looked up once: these are arguments of the trigger, so the triggerer gets them, too.
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
            self.after = {**self.after, "state_id": None}  # a later action has ended that occurrence of the state
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
        return f"{self.where(snapshot)}; waiting for: {self.subject}."

    @property
    def subject(self) -> str:
        return ", ".join([*self.until, *([] if self.activity is None else [f"activity {self.activity}"])])

    @property
    def requested_item(self) -> dict[str, str | None]:
        return {**super().requested_item, "item_id": self.object_id, "tool_type": self.object_type}

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
                f"History {after} has no time (got {action['at']!r}), so it does not show which state followed. Give "
                "after as a time instead"
            )
        return action


class ProcoreLegacyStateChangeWaitTrigger(ProcoreLegacyWaitTrigger):
    """
    Wait until the instance has left the state in which an activity was performed, or has ended.

    The trigger passes the performed activity on in its event, so that the resumed task need not read it again.

    :param project_id: Project of the object, or None for the project of the connection.
    :param instance_id: The instance.
    :param occurrence: The occurrence of the state: ``{id, name, status, set_at}``.
    :param performed: The operator's result for the activity.
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
        return f"{self.where(snapshot)}; waiting for: {self.subject} since {self.occurrence['set_at']}."

    @property
    def subject(self) -> str:
        return f"another state than {self.occurrence['name'] or self.occurrence['id']!r}"
