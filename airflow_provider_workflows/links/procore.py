"""The link from a task to its item in Procore."""

from __future__ import annotations

from airflow_provider_workflows.links.base import ItemLink


class ProcoreItemLink(ItemLink):
    """Open the item in Procore."""

    name = "Item in Procore"
