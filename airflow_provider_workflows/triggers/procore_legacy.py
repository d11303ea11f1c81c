"""Wait for Procore's Legacy Workflows (v1) API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.rules import procore_legacy as rules
from airflow_provider_workflows.rules.verdicts import Verdict
from airflow_provider_workflows.triggers.procore import ProcoreWaitTrigger

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook


class ProcoreLegacyInstanceWaitTrigger(ProcoreWaitTrigger):
    """
    Waits until a legacy instance is in one of the given states.

    :param project_id: Project of the object, or None for the connection's.
    :param instance_id: The instance; or None to look it up by its object.
    :param object_type: Tool or class of the object, when waiting by object.
    :param object_id: The object, when waiting by object.
    :param until: States that end the wait with success: names, statuses or ids.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    :param after: The action before the wait: a history id, a time, or what a look made of it; or None.
    """

    def __init__(
        self,
        *,
        project_id: str | None,
        instance_id: str | None,
        object_type: str | None,
        object_id: str | None,
        until: list[str],
        fail_on: list[str],
        skip_on: list[str],
        after: str | dict[str, Any] | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.instance_id = instance_id
        self.object_type = object_type
        self.object_id = object_id
        self.until = until
        self.fail_on = fail_on
        self.skip_on = skip_on
        self.after = after

    def arguments(self) -> dict[str, Any]:
        own = ("project_id", "instance_id", "object_type", "object_id", "until", "fail_on", "skip_on", "after")
        return {**super().arguments(), **{name: getattr(self, name) for name in own}}

    # The legacy API has a hook of its own; what the two hooks share is all that a wait asks of one.
    def open_hook(self) -> ProcoreLegacyHook:  # type: ignore[override]
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)

    def snapshot(self, hook: ProcoreLegacyHook) -> dict[str, Any]:
        # Both are asked for once: what is found here travels to the triggerer.
        if self.instance_id is None:
            self.instance_id = hook.find_instance_id(str(self.object_type), str(self.object_id))
        if isinstance(self.after, str):
            self.after = self._action(hook, self.after, self.instance_id)
        instance = rules.describe_instance(hook.get_instance(self.instance_id))
        if self.after is not None and rules.is_undecided(instance, self.after):
            newest = hook.list_activity_histories(self.instance_id)[0]
            if newest["id"] != self.after["history_id"]:
                self.after = {**self.after, "state_id": None}  # somebody acted since, so that visit is over
        return instance

    def decide(self, snapshot: dict[str, Any]) -> Verdict | None:
        assert not isinstance(self.after, str)
        return rules.decide_instance(
            snapshot, until=self.until, fail_on=self.fail_on, skip_on=self.skip_on, after=self.after
        )

    def describe(self, snapshot: dict[str, Any]) -> str:
        return (
            f"Instance {snapshot['instance_id']} of {snapshot['object_type']} {snapshot['object_id']} is in state "
            f"{snapshot['state']!r} since {snapshot['state_set_at']}; waited for: {', '.join(self.until)}."
        )

    @staticmethod
    def _action(hook: ProcoreLegacyHook, after: str, instance_id: str) -> dict[str, Any]:
        if not after.isdecimal():
            return rules.moment_of(after)
        return rules.action_of(hook.get_activity_history(after, instance_id=instance_id))
