"""The operator that reads the activity history of a Procore Legacy instance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_workflows.rules import procore_legacy as rules

if TYPE_CHECKING:
    from airflow.sdk import Context


from airflow_provider_workflows.operators.procore_legacy.base import ProcoreLegacyOperator

Json = Mapping[str, Any]


class ProcoreLegacyListActivityHistoriesOperator(ProcoreLegacyOperator):
    """
    Returns the activities that were performed in a legacy workflow instance, newest first.

    Returns a list of rows as Procore gives them, ids as strings: ``{id, workflow_activity_id,
    workflow_user_role_id, performed_by_id, comments, created_at, bic_start, bic_end, attachments, ...}``; only
    newer versions of the API add names and the state. The list is sorted here, whatever order Procore has.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_id: The instance (templated); or give the object.
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: The object whose instance is meant (templated).
    :raises ConfigurationError: both instance and object given, or neither.
    """

    returns_mapping = False

    def act(self, context: Context) -> list[dict[str, Any]]:
        self.check_instance()
        instance_id = self.find_instance_id()
        self.link_to(rules.describe_instance(self.hook.get_instance(instance_id)))
        return self.hook.list_activity_histories(instance_id)
