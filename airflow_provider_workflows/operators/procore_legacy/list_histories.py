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
    Read the activities that were performed in a legacy workflow instance, newest first.

    Returns a list of rows as Procore sends them, with ids as strings: ``{id, workflow_activity_id,
    workflow_user_role_id, performed_by_id, comments, created_at, bic_start, bic_end, attachments, ...}``. Only
    newer versions of the API add names and the state. The operator sorts the list.

    Reference: https://developers.procore.com/documentation/tutorial-workflows

    :param instance_id: Id of the instance; or give the object (templated).
    :param object_type: Tool or class of the object, such as ``PurchaseOrderContract`` (templated).
    :param object_id: Id of the object of the instance (templated).
    :raises ConfigurationError: both instance and object given, or neither.
    """

    returns_mapping = False

    def act(self, context: Context) -> list[dict[str, Any]]:
        self.check_instance()
        instance_id = self.find_instance_id()
        self.link_to(rules.describe_instance(self.hook.get_instance(instance_id)))
        return self.hook.list_activity_histories(instance_id)
