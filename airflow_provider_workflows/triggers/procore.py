"""Waits for Procore's Workflows v2 API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.exceptions import NotFound
from airflow_provider_workflows.rules import procore as rules
from airflow_provider_workflows.rules.verdicts import Verdict
from airflow_provider_workflows.triggers.base import WaitTrigger

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore import ProcoreHook


class ProcoreWaitTrigger(WaitTrigger):
    """
    A wait on one Procore connection.

    :param procore_conn_id: Id of a connection of type ``procore``.
    :param company_id: Company to work in, or None for the connection's.
    :param poll_interval: Seconds between two looks.
    :param deadline: Wall-clock end of the wait as an ISO-8601 time, or None.
    """

    def __init__(self, *, procore_conn_id: str, company_id: str | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.procore_conn_id = procore_conn_id
        self.company_id = company_id

    def arguments(self) -> dict[str, Any]:
        return {"procore_conn_id": self.procore_conn_id, "company_id": self.company_id}

    def open_hook(self) -> ProcoreHook:
        from airflow_provider_workflows.hooks.procore import ProcoreHook

        return ProcoreHook(self.procore_conn_id, company_id=self.company_id)


class ProcoreInstanceWaitTrigger(ProcoreWaitTrigger):
    """
    Waits until an instance is in one of the given states.

    :param project_id: Project to look in, or None for the connection's.
    :param instance_id: The instance; or None to follow the item's newest one, through restarts.
    :param tool_type: Tool of the item, when waiting by item.
    :param item_id: The item, when waiting by item; else what is known of it.
    :param until: States that end the wait with success.
    :param fail_on: States that fail it.
    :param skip_on: States that skip it.
    """

    def __init__(
        self,
        *,
        project_id: str | None,
        instance_id: str | None,
        tool_type: str | None,
        item_id: str | None,
        until: list[str],
        fail_on: list[str],
        skip_on: list[str],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.project_id = project_id
        self.instance_id = instance_id
        self.tool_type = tool_type
        self.item_id = item_id
        self.until = until
        self.fail_on = fail_on
        self.skip_on = skip_on

    def arguments(self) -> dict[str, Any]:
        own = ("project_id", "instance_id", "tool_type", "item_id", "until", "fail_on", "skip_on")
        return {**super().arguments(), **{name: getattr(self, name) for name in own}}

    def snapshot(self, hook: ProcoreHook) -> dict[str, Any]:
        instance_id = self.instance_id or self._newest_of_item(hook)
        if self.item_id is None:  # the history does not name the item; asked for once
            self.item_id = str(hook.get_instance(instance_id, project_id=self.project_id)["item_id"])
        history = hook.get_instance_history(instance_id, project_id=self.project_id)
        return rules.describe_instance(history, instance_id=instance_id, item_id=self.item_id)

    def decide(self, snapshot: dict[str, Any]) -> Verdict | None:
        return rules.decide_instance(snapshot, until=self.until, fail_on=self.fail_on, skip_on=self.skip_on)

    def describe(self, snapshot: dict[str, Any]) -> str:
        return (
            f"Instance {snapshot['instance_id']} of item {snapshot['item_id']} is {snapshot['state']}"
            f" at step {snapshot['step']!r}; waited for: {', '.join(self.until)}."
        )

    def _newest_of_item(self, hook: ProcoreHook) -> str:
        instances = list(hook.list_instances(str(self.tool_type), item_id=self.item_id, project_id=self.project_id))
        if not instances:
            raise NotFound(
                f"Item {self.item_id} of tool {self.tool_type} has no workflow instance, or none that this user may see"
            )
        return rules.newest_instance(instances)


class ProcoreResponseRequestedWaitTrigger(ProcoreWaitTrigger):
    """
    Waits until some instance asks for the response of a user.

    :param tool_types: Tools to look in.
    :param project_ids: Projects to look in; ``[None]`` for the connection's.
    :param user_id: Login information id of the user, or None for the connection's own.
    """

    def __init__(self, *, tool_types: list[str], project_ids: list[str | None], user_id: str | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.tool_types = tool_types
        self.project_ids = project_ids
        self.user_id = user_id

    def arguments(self) -> dict[str, Any]:
        own = ("tool_types", "project_ids", "user_id")
        return {**super().arguments(), **{name: getattr(self, name) for name in own}}

    def snapshot(self, hook: ProcoreHook) -> list[dict[str, Any]]:
        if self.user_id is None:
            self.user_id = hook.user_id
        requests = []
        for project_id in self.project_ids:
            for tool_type in self.tool_types:
                rows = hook.list_instances(tool_type, assignee_id=self.user_id, active=True, project_id=project_id)
                for row in rows:
                    instance = hook.get_instance(str(row["id"]), project_id=project_id)
                    request = rules.response_request(instance, self.user_id)
                    if request is not None:
                        requests.append({**request, "project_id": project_id or hook.project_id})
        return requests

    def decide(self, snapshot: list[dict[str, Any]]) -> Verdict | None:
        if not snapshot:
            return None
        return Verdict("succeed", snapshot, f"{len(snapshot)} instance(s) wait for a response of user {self.user_id}")

    def describe(self, snapshot: list[dict[str, Any]]) -> str:
        waiting = ", ".join(f"{r['instance_id']} at {r['step']!r}" for r in snapshot) or "none"
        return f"Instances of {', '.join(self.tool_types)} that wait for user {self.user_id}: {waiting}."
