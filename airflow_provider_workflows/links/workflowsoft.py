"""The link from a task to its item in Workflowsoft."""

from __future__ import annotations

from airflow_provider_workflows.links.base import ItemLink


class WorkflowsoftItemLink(ItemLink):
    """Open the item in Workflowsoft."""

    name = "Item in Workflowsoft"
