"""The base of the operators for Procore Legacy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.operators.procore.base import ProcoreConnectionOperator
from airflow_provider_workflows.rules.parameters import check_optional, check_required, require_exactly_one, str_id

if TYPE_CHECKING:
    from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

Json = Mapping[str, Any]


class ProcoreLegacyConnectionOperator(ProcoreConnectionOperator):
    """Call Procore's Legacy Workflows (v1) API."""

    @cached_property
    def hook(self) -> ProcoreLegacyHook:
        from airflow_provider_workflows.hooks.procore_legacy import ProcoreLegacyHook

        return ProcoreLegacyHook(self.procore_conn_id, company_id=self.company_id, project_id=self.project_id)


class ProcoreLegacyOperator(ProcoreLegacyConnectionOperator):
    """
    Work on one legacy workflow instance.

    :param procore_conn_id: Id of a connection of type ``procore`` (templated).
    :param company_id: Company id; overrides the connection's (templated).
    :param project_id: Project id of the object; overrides the connection's (templated).
    :param instance_id: Id of the instance; or give the object (templated).
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: Id of the object of the instance (templated).
    """

    template_fields: Sequence[str] = (
        *ProcoreConnectionOperator.template_fields,
        "instance_id",
        "object_type",
        "object_id",
    )

    def __init__(
        self,
        *,
        instance_id: str | int | None = None,
        object_type: str | None = None,
        object_id: str | int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.instance_id = instance_id
        self.object_type = object_type
        self.object_id = object_id

    def check_instance(self) -> None:
        """Require either an instance or an object."""
        require_exactly_one(instance_id=self.instance_id, object_id=self.object_id)
        if self.object_id is not None:
            check_required(object_type=self.object_type)
        check_optional(self, "project_id", "object_type")

    def find_instance_id(self) -> str:
        """Return the id of the instance, also if the object is given."""
        if self.instance_id is not None:
            return str(str_id(self.instance_id))
        return self.hook.find_instance_id(str(self.object_type), str(str_id(self.object_id)))

    def link_to(self, instance: Json) -> None:
        """Set the task's link to the object in Procore."""
        self.item_url = self.hook.item_url(
            instance_id=instance["instance_id"],
            item_id=instance["object_id"],
            tool_type=instance["object_type"],
            project_id=instance["project_id"],
        )
