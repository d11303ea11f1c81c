"""The parameters that name a Procore item or instance (Workflows v2), shared by operators and sensors."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.rules.parameters import as_list, check_optional, check_required, require_exactly_one


class ItemParameters(BaseOperator):
    """
    Hold the parameters of an operator or sensor that works on one instance: its id, or the item that it belongs to.

    A base class of Airflow's own kind: in a plain mixin a DAG's ``default_args`` would not reach these parameters.

    :param instance_id: The instance (templated); or give the item.
    :param tool_type: Tool of the item, such as ``purchase_order_contract`` (templated).
    :param tool_subtype: Subtype of the tool; needed for correspondence (templated).
    :param item_id: The item whose instance to use (templated).
    """

    ITEM_FIELDS = ("instance_id", "tool_type", "tool_subtype", "item_id")  # for template_fields
    project_id: Any

    def __init__(
        self,
        *,
        instance_id: str | int | None = None,
        tool_type: str | None = None,
        tool_subtype: str | int | None = None,
        item_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.tool_type = tool_type
        self.tool_subtype = tool_subtype
        self.item_id = item_id

    def check_instance(self) -> None:
        """Require either an instance or an item with its tool."""
        require_exactly_one(instance_id=self.instance_id, item_id=self.item_id)
        if self.item_id is not None:
            check_required(tool_type=self.tool_type)
        check_optional(self, "project_id", "tool_type", "tool_subtype")


def check_tools_and_projects(tool_type: Any, project_id: Any) -> None:
    """Require one tool or a list of tools, and likewise projects; ``project_id`` may also be None."""
    for name, values in (("tool_type", tool_type), ("project_id", project_id)):
        if not as_list(values):
            raise ConfigurationError(f"{name} is an empty list. Name at least one.")
        for value in as_list(values):
            if values is not None or name == "tool_type":
                check_required(**{name: value})
