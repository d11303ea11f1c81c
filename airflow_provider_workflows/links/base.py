"""The base class of the links from a task to its item in Procore or Workflowsoft."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ItemLink(BaseOperatorLink):
    """
    Open the item in the UI of Procore or Workflowsoft.

    Neither Procore nor Workflowsoft documents the URLs of its items, so a task has the link only if the connection's
    extra ``item_url`` has a pattern for them.
    """

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        # Airflow calls this on the worker when the task ends, and stores the link as an XCom.
        return getattr(operator, "item_url", "")
