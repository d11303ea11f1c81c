"""Read what shows the sides of Workflowsoft's open questions; a poll for new integration instances is never sent."""

from __future__ import annotations

from typing import Any

from airflow_provider_workflows.diagnostics.contract_check.recording import Reader
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook

DIAGRAMS = "/api/v2/workflows"
STEPS = "/api/v2/workflows/{}/tasks"
FIELDS = "/api/v2/workflows/instances/tasks/{}/variables"
SEARCH = "/api/users/search"
LIMIT = 100
# Search terms, the most frequent first: letters, and pairs of letters for a long list, whose titles have all letters.
TERMS = "e t a o i n s r h l d c u m f p g w y b v k x j q z th he in er an re nd at on nt st es en of te ed or ti"
MAX_SEARCHES = 4
MAX_DIAGRAMS = 3


class WorkflowsoftReader:
    """
    Read the tenant of one connection.

    :param reader: Sends the requests.
    :param hook: The connection's hook.
    :param instance_ids: Integration instances whose fields may be read; no call lists them.
    """

    def __init__(self, reader: Reader, hook: WorkflowsoftHook, instance_ids: list[str]):
        self._reader = reader
        self._on_behalf_of = hook.on_behalf_of
        self._instance_ids = instance_ids

    def read(self) -> None:
        """Send the requests."""
        listed = self._diagrams(LIMIT)
        if listed is not None and 0 < len(listed.rows) < LIMIT:
            for term in _rare_terms(listed.rows):
                self._diagrams(LIMIT, searchTerm=term)
        ids = [value for row in listed.rows for key, value in row.items() if key.lower() == "id"] if listed else []
        for diagram_id in ids[:MAX_DIAGRAMS]:
            rows = {}
            for name, value in (("steps", "true"), ("steps_all", "false")):
                found = self._reader.read(
                    name, STEPS, diagram_id, query={"integration": value}, subject=str(diagram_id)
                )
                rows[name] = len(found.rows) if found is not None else 0
            if rows["steps"] != rows["steps_all"]:
                query = {"integration": "True"}
                self._reader.read("steps_capital", STEPS, diagram_id, query=query, subject=str(diagram_id))
                break
        self._reader.read("users", SEARCH, query={"Query": "@", "entityType": "users", "limit": LIMIT})
        for instance_id in self._instance_ids:
            found = self._reader.read("fields", FIELDS, instance_id, subject=instance_id)
            if found is not None and found.status == 403:
                headers = {"X-OnBehalfOf-Id": self._on_behalf_of}
                self._reader.read("fields_on_behalf", FIELDS, instance_id, headers=headers, subject=instance_id)

    def _diagrams(self, limit: int, **query: Any) -> Any:
        name = "diagrams_found" if query else "diagrams"
        return self._reader.read(name, DIAGRAMS, query={"mode": "view", "limit": limit, **query})


def _rare_terms(rows: list[dict[str, Any]]) -> list[str]:
    """Return frequent terms that the fewest listed titles have, which find diagrams that are not listed."""
    titles = [str(value).casefold() for row in rows for key, value in row.items() if key.lower() == "title"]
    return sorted(TERMS.split(), key=lambda term: sum(term in title for title in titles))[:MAX_SEARCHES]
