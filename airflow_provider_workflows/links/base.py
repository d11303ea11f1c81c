"""A link from a task to what it acted on or waited for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ItemLink(BaseOperatorLink):
    """
    Opens the item in the product's own UI.

    Neither product documents the addresses of its items, so the link is there only where the connection's
    extra ``item_url`` says how they are made.
    """

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        # Airflow asks on the worker when the task ends, and keeps the answer as an XCom.
        return getattr(operator, "item_url", "")
