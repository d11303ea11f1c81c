"""Every public member of the hooks that calls a server, with arguments that the emulator accepts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from airflow_provider_workflows.emulator.procore.templates import PURCHASE_ORDER_APPROVAL
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

TOOL = "purchase_order_contract"
OBJECT = "PurchaseOrderContract"
AT = {"project_id": "1001"}  # stated, so that no request looks up the level of the tool
SEGMENT = {"size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
APPROVE = PURCHASE_ORDER_APPROVAL.steps["Budget Check"].wire_options[0]["id"]
REPLACE = {
    "replacement_type": "temporary",
    "old_assignee_id": "90004",
    "new_assignee_ids": ["90006"],
    "modify_project_roles": False,
    "reason": "other",
    "start_date": "2999-01-01",
    "end_date": "2999-02-01",
}


@dataclass(frozen=True)
class Call:
    """
    One use of a member of a hook.

    :param writes: When its response is lost, its outcome is unknown, so the client does not repeat it.
    """

    hook: type
    name: str
    use: Callable[[Any], Any]
    writes: bool = False

    def __str__(self) -> str:
        return f"{self.hook.__name__}.{self.name}"

    def made(self, hook: Any) -> Any:
        """Use it; a list is read to its end."""
        result = self.use(hook)
        return list(result) if isinstance(result, Iterator) else result


def of(hook: type, *, writes: set[str], **uses: Callable[[Any], Any]) -> list[Call]:
    return [Call(hook, name, use, name in writes) for name, use in uses.items()]


def upload(hook: ProcoreHook) -> str:
    """Upload a small file."""
    return hook.upload("x.txt", "text/plain", [SEGMENT], [b"x"], **AT)


# What both take from the base of Procore's two APIs.
OF_BOTH_PROCORE_HOOKS = {
    "me": lambda hook: hook.me(),
    "user_id": lambda hook: hook.user_id,
    "user_login": lambda hook: hook.user_login,
    "find_user_id": lambda hook: hook.find_user_id("dana@example.com"),
    "check": lambda hook: hook.check(),
    "test_connection": lambda hook: hook.test_connection(),
}
# In an order in which each finds what it needs on one emulator.
CALLS = [
    *of(
        ProcoreHook,
        writes={
            "update_preset_assignees",
            "start_instance",
            "bulk_start_instances",
            "respond",
            "add_assignees",
            "refresh_instance",
            "restart_instance",
            "terminate_instance",
            "create_bulk_replace_request",
            "update_bulk_replace_request",
        },
        **OF_BOTH_PROCORE_HOOKS,
        list_tools=lambda hook: hook.list_tools(),
        find_tool=lambda hook: hook.find_tool(TOOL),
        check_tool=lambda hook: hook.check_tool(TOOL),
        project_for=lambda hook: hook.project_for(None, TOOL),
        level_for=lambda hook: hook.level_for(None, TOOL),
        list_templates=lambda hook: hook.list_templates(),
        get_template_version=lambda hook: hook.get_template_version("3011"),
        list_presets=lambda hook: hook.list_presets(TOOL, **AT),
        get_preset=lambda hook: hook.get_preset("401", **AT),
        set_default_preset=lambda hook: hook.set_default_preset("401", **AT),
        update_preset_assignees=lambda hook: hook.update_preset_assignees("401", workflow_manager_id="90002", **AT),
        list_possible_assignees=lambda hook: hook.list_possible_assignees(TOOL, **AT),
        list_workflow_managers=lambda hook: hook.list_workflow_managers(TOOL, **AT),
        list_instances=lambda hook: hook.list_instances(TOOL, **AT),
        list_item_instances=lambda hook: hook.list_item_instances(TOOL, "5001", "1001"),
        get_instance=lambda hook: hook.get_instance("700001", **AT),
        add_assignees=lambda hook: hook.add_assignees(
            "700001", step_occurrence_id="70000101", assignee_ids=["90006"], reason="other", required=False, **AT
        ),
        respond=lambda hook: hook.respond("700001", step_occurrence_id="70000101", option_id=APPROVE, **AT),
        get_instance_history=lambda hook: hook.get_instance_history("700001", **AT),
        list_item_histories=lambda hook: hook.list_item_histories(TOOL, "5001", **AT),
        bulk_history=lambda hook: hook.bulk_history(TOOL, ["5001"], **AT),
        each_bulk_history=lambda hook: hook.each_bulk_history(TOOL, ["5001"], **AT),
        start_instance=lambda hook: hook.start_instance(TOOL, "5002", **AT),
        bulk_start_instances=lambda hook: hook.bulk_start_instances(TOOL, [{"item_id": "5003"}], **AT),
        get_async_operation=lambda hook: hook.get_async_operation("901001"),
        refresh_instance=lambda hook: hook.refresh_instance("700002", **AT),
        restart_instance=lambda hook: hook.restart_instance("700001", **AT),
        terminate_instance=lambda hook: hook.terminate_instance("700001", **AT),
        create_bulk_replace_request=lambda hook: hook.create_bulk_replace_request(REPLACE),
        list_bulk_replace_requests=lambda hook: hook.list_bulk_replace_requests(),
        get_bulk_replace_request=lambda hook: hook.get_bulk_replace_request("801"),
        update_bulk_replace_request=lambda hook: hook.update_bulk_replace_request("801", REPLACE),
        get_bulk_replace_errors=lambda hook: hook.get_bulk_replace_errors("801"),
        stop_bulk_replace_request=lambda hook: hook.stop_bulk_replace_request("801"),
        upload=upload,
        await_upload=lambda hook: hook.await_upload(upload(hook), **AT),
    ),
    *of(
        ProcoreLegacyHook,
        writes={"perform_activity"},
        **OF_BOTH_PROCORE_HOOKS,
        list_instances=lambda hook: hook.list_instances(),
        get_instance=lambda hook: hook.get_instance("568150"),
        find_instance_id=lambda hook: hook.find_instance_id(OBJECT, "1953145"),
        list_permanent_logs=lambda hook: hook.list_permanent_logs(OBJECT, "1953145"),
        perform_activity=lambda hook: hook.perform_activity(
            "568150", activity_id="29945", role_id="14301", performed_by="90001"
        ),
        list_activity_histories=lambda hook: hook.list_activity_histories("568150"),
        get_activity_history=lambda hook: hook.get_activity_history("1586809", instance_id="568150"),
    ),
    *of(
        WorkflowsoftHook,
        writes={"poll_new_integrations", "update_fields", "complete", "start_process", "create_task"},
        check=lambda hook: hook.check(),
        test_connection=lambda hook: hook.test_connection(),
        get_api_token=lambda hook: hook.get_api_token(),
        list_process_diagrams=lambda hook: hook.list_process_diagrams(),
        find_process_diagram=lambda hook: hook.find_process_diagram("Field types"),
        list_integration_steps=lambda hook: hook.list_integration_steps("1"),
        resolve_step=lambda hook: hook.resolve_step("Event planning", "Check event"),
        search_users=lambda hook: hook.search_users("Olga"),
        find_user_id=lambda hook: hook.find_user_id("olga@example.com"),
        start_process=lambda hook: hook.start_process("1", on_behalf_of="11"),
        poll_new_integrations=lambda hook: hook.poll_new_integrations("101"),
        get_fields=lambda hook: hook.get_fields("3"),
        update_fields=lambda hook: hook.update_fields("3", {}),
        complete=lambda hook: hook.complete("3"),
        create_task=lambda hook: hook.create_task("Look", on_behalf_of="11"),
    ),
]
# Members that send no request: they show what the connection says.
# It reads a file that may lie elsewhere: it follows one redirect, to another host without the token.
FOLLOWS = "ProcoreHook.get_bulk_replace_errors"
POLLS = "WorkflowsoftHook.poll_new_integrations"  # a GET: the sign-in page in its place has consumed nothing
SENDS_NOTHING = {
    "account",
    "advice",
    "base_url",
    "check_may_consume",
    "client",
    "current_conn",
    "close",
    "company_id",
    "conn_name_attr",
    "conn_type",
    "default_conn_name",
    "default_headers",
    "dry_run",
    "product",
    "server",
    "extras",
    "find_connection",
    "get_conn",
    "get_connection_form_widgets",
    "get_ui_field_behaviour",
    "hook_name",
    "item_url",
    "lists_until_completed",
    "on_behalf_of",
    "may_consume",
    "prepare",
    "project_id",
    "request_look_up",
    "requests_per_hour",
    "shortest_poll",
    "start_dry_run",
    "token_source",
    "without_retries",
}


def public_members(hook: type) -> set[str]:
    """Return the public names of a hook that are this package's own."""
    own = [kind for kind in hook.__mro__ if kind.__module__.startswith("airflow_provider_workflows")]
    return {name for kind in own for name in vars(kind) if not name.startswith("_")}
