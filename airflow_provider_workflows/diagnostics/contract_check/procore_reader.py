"""Read what shows the sides of Procore's open questions, v2 and Legacy, in about forty requests."""

from __future__ import annotations

from typing import Any

from airflow_provider_workflows.diagnostics.contract_check.recording import Reader, Reading
from airflow_provider_workflows.hooks.procore import USERS, ProcoreHook
from airflow_provider_workflows.hooks.procore_legacy import HISTORIES as LEGACY_HISTORIES
from airflow_provider_workflows.hooks.procore_legacy import INSTANCES as LEGACY_INSTANCES

COMPANY = "/rest/v2.0/companies/{}/"
PROJECT = COMPANY + "projects/{}/"
PAGE_SIZES = (100, 50, 10)  # rows; the largest documented page first
MAX_TOOLS = 4
MAX_INSTANCES = 5  # each costs two requests
MAX_VERSIONS = 2
MAX_REPLACEMENTS = 2
MAX_LEGACY_INSTANCES = 4
# The tool types that the documents name; the list of tools may be forbidden.
DOCUMENTED_TOOLS = [{"type": "purchase_order_contract"}, {"type": "generic_tool_item"}]
UNUSED_STATUS = "expired"  # of a bulk replacement: the rarest one
UNKNOWN_ID = "0"

Row = dict[str, Any]


class ProcoreReader:
    """
    Read the tenant of one connection.

    :param reader: Sends the requests.
    :param hook: The connection's hook.
    """

    def __init__(self, reader: Reader, hook: ProcoreHook):
        self._reader = reader
        self._company = hook.company_id
        self._project = hook.project_id
        self._page_size = PAGE_SIZES[0]

    def read(self) -> None:
        """Send the requests of both APIs."""
        me = self._reader.read("me", "/rest/v1.0/me", query={"company_id": self._company})
        self._v2()
        self._legacy()
        login = None if me is None else me.item.get("login")
        if login:
            query = {"filters[search]": login, "per_page": 10, "page": 1}
            self._reader.read("users", USERS, self._company, query=query, subject=str(me and me.item.get("id")))

    # --- v2 ---

    def _v2(self) -> None:
        read = self._reader.read
        tools = read("tools", COMPANY + "workflows/tools", self._company)
        read(
            "no_company_header",
            COMPANY + "workflows/tools",
            self._company,
            headers={"Procore-Company-Id": None},
        )
        self._at("unknown_instance", None, "instances/{}", UNKNOWN_ID)
        listed = [self._listed(tool) for tool in self._tools(tools)]
        main = max(listed, key=lambda reading: len(reading.rows) if reading else 0, default=None)
        if main is not None and main.rows:
            self._lists(main)
        for reading, row in self._sample([reading for reading in listed if reading is not None]):
            self._instance(reading, row)
        self._assignee_filter()
        self._company_lists()

    def _tools(self, tools: Reading | None) -> list[Row]:
        """Return the first tools that the connection can reach."""
        rows = [row for row in tools.rows if row.get("type")] if tools is not None else []
        here = [row for row in rows or DOCUMENTED_TOOLS if self._project or row.get("provider") == "Company"]
        return here[:MAX_TOOLS]

    def _at(self, name: str, tool: Row | None, path: str, *ids: object, **options: Any) -> Reading | None:
        """Read something of a tool's level: the company, or the connection's project."""
        if self._project is None or (tool or {}).get("provider") == "Company":
            return self._reader.read(name, COMPANY + "workflows/" + path, self._company, *ids, **options)
        return self._reader.read(name, PROJECT + "workflows/" + path, self._company, self._project, *ids, **options)

    def _filters(self, tool: Row) -> Row:
        return {"filters[tool_type]": tool["type"], "filters[tool_subtype]": tool.get("subtype")}

    def _listed(self, tool: Row) -> Reading | None:
        """List a tool's instances in the largest page that the server takes."""
        for size in (size for size in PAGE_SIZES if size <= self._page_size):
            query = {**self._filters(tool), "per_page": size}
            reading = self._at("instances", tool, "instances", query=query, subject=str(tool["type"]))
            if reading is None or reading.status not in (400, 422):
                self._page_size = size
                return reading
        return None

    def _again(self, name: str, listed: Reading, **query: Any) -> Reading | None:
        """Read a list of instances again with other parameters."""
        whole = {**{k: v for k, v in listed.query.items() if k != "cursor"}, **query}
        return self._reader.read(name, listed.path, *self._ids(listed), query=whole, subject=listed.subject)

    def _ids(self, reading: Reading) -> tuple[str, ...]:
        return (self._company, str(self._project)) if "/projects/" in reading.path else (self._company,)

    def _lists(self, main: Reading) -> None:
        """Read the list with the most rows again: page by page, the ended instances, one item's."""
        self._again("instances_first", main, per_page=1)
        self._again("instances_second", main, per_page=1, page=2)
        self._again("instances_ended", main, **{"filters[active]": "false"})
        self._again("instances_item", main, **{"filters[item_id]": main.rows[-1].get("item_id")})

    def _sample(self, listed: list[Reading]) -> list[tuple[Reading, Row]]:
        """Return the instances to read: active ones of each tool in turn, the latest changed first, and ended ones."""
        ended = self._reader.records.last("instances_ended")
        rows: dict[str, tuple[Reading, Row]] = {}
        queues = [
            *([(reading, row) for row in _latest_first(reading, active=True)] for reading in listed),
            [(reading, row) for reading in (*listed, ended) if reading for row in _latest_first(reading, active=False)],
        ]
        while any(queues) and len(rows) < MAX_INSTANCES:
            for queue in queues:
                if queue and len(rows) < MAX_INSTANCES:
                    reading, row = queue.pop(0)
                    rows.setdefault(str(row.get("id")), (reading, row))
        return list(rows.values())

    def _instance(self, listed: Reading, row: Row) -> None:
        """Read an instance and its history; of the first one also the two other routes to its history."""
        is_first = not self._reader.records.all("instance")
        ids = (*self._ids(listed), str(row.get("id")))
        self._reader.read("instance", listed.path + "/{}", *ids, subject=ids[-1])
        self._reader.read("history", listed.path + "/{}/history", *ids, subject=ids[-1])
        if is_first and row.get("item_id"):
            tool, item = row.get("tool_type") or listed.subject, row["item_id"]
            where = self._ids(listed)
            query = {"tool_type": tool, "item_id": item}
            self._reader.read("item_history", listed.path + "/history", *where, query=query, subject=ids[-1])
            body = {"tool_type": tool, "item_ids": [item]}
            self._reader.read("bulk_history", listed.path + "/bulk_history", *where, json=body, subject=ids[-1])

    def _assignee_filter(self) -> None:
        """List the instances of a user who has responded to a step that still waits for others."""
        for shown in self._reader.records.all("instance"):
            for user_id in responded_while_open(shown.item):
                listed = next(
                    (r for r in self._reader.records.all("instances") if shown.subject in _ids_of(r)),
                    None,
                )
                if listed is not None:
                    self._again("instances_assignee", listed, **{"filters[assignee_id]": user_id})
                    return

    def _company_lists(self) -> None:
        """Read the lists by page numbers: templates, their versions, and bulk replacements."""
        read = self._reader.read
        where = COMPANY + "workflows/templates"
        read("templates_first", where, self._company, query={"page": 1, "per_page": 1})
        templates = read("templates", where, self._company, query={"page": 1, "per_page": self._page_size})
        versions = [row.get("latest_published_version") for row in templates.rows] if templates else []
        ids = [version["id"] for version in versions if isinstance(version, dict) and version.get("id")]
        for version_id in ids[:MAX_VERSIONS]:
            read("version", COMPANY + "workflows/templates/versions/{}", self._company, str(version_id))
        where = COMPANY + "workflows/bulk_replace_requests"
        requests = read("replacements", where, self._company, query={"page": 1, "per_page": self._page_size})
        if requests is None or not requests.rows:
            return
        query = {"page": 1, "per_page": self._page_size, "filters[status]": UNUSED_STATUS}
        read("replacements_filtered", where, self._company, query=query)
        for request_id in self._reports_of(requests.rows):
            read("replacement_errors", where + "/{}/errors", self._company, request_id, subject=request_id)

    def _reports_of(self, rows: list[Row]) -> list[str]:
        """Return requests whose errors to read: one that was completed, and one that failed."""
        chosen: dict[str, str] = {}
        for row in rows:
            status = str(row.get("status")).lower()
            if status in ("completed", "failed") and row.get("id"):
                chosen.setdefault(status, str(row["id"]))
        return list(chosen.values())[:MAX_REPLACEMENTS]

    # --- Legacy ---

    def _legacy(self) -> None:
        company = {"company_id": self._company}
        pages = {**company, "page": 1, "per_page": self._page_size}
        listed = self._reader.read("legacy_instances", LEGACY_INSTANCES, query=pages)
        rows = [row for row in listed.rows if row.get("id")] if listed is not None else []
        for row in rows[:1]:
            self._reader.read("legacy_instance", LEGACY_INSTANCES + "/{}", str(row["id"]), query=company)
            self._reader.read(
                "legacy_object",
                LEGACY_INSTANCES,
                query={
                    **pages,
                    "filters[workflowed_object_type]": row.get("workflowed_object_type"),
                    "filters[workflowed_object_id]": row.get("workflowed_object_id"),
                },
            )
        for row in sorted(rows, key=_moved_at, reverse=True)[:MAX_LEGACY_INSTANCES]:
            query = {**pages, "workflow_instance_id": str(row["id"])}
            found = self._reader.read("legacy_histories", LEGACY_HISTORIES, query=query, subject=str(row["id"]))
            if found is not None and found.rows and not self._reader.records.all("legacy_logs"):
                self._logs(row, pages)

    def _logs(self, row: Row, pages: Row) -> None:
        query = {
            **pages,
            "filters[workflowed_object_type]": row.get("workflowed_object_type"),
            "filters[workflowed_object_id]": row.get("workflowed_object_id"),
        }
        where = "/rest/v1.0/companies/{}/workflow_permanent_logs"
        self._reader.read("legacy_logs", where, self._company, query=query)


def responded_while_open(instance: Row) -> list[str]:
    """Return the users who have responded to the current step of an instance while it waits for others."""
    step = instance.get("current_step_occurrence")
    rows = step.get("response_occurrences") if isinstance(step, dict) else None
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    users = [row.get("assignee") for row in rows if row.get("submitted_at")]
    is_open = any(not row.get("submitted_at") for row in rows)
    return [str(user["id"]) for user in users if isinstance(user, dict) and user.get("id")] if is_open else []


def _latest_first(listed: Reading, *, active: bool) -> list[Row]:
    rows = [row for row in listed.rows if row.get("id") and bool(row.get("ended_at")) != active]
    return sorted(rows, key=lambda row: str(row.get("updated_at") or ""), reverse=True)


def _ids_of(listed: Reading) -> set[str]:
    return {str(row.get("id")) for row in listed.rows}


def _moved_at(row: Row) -> str:
    return str(row.get("current_state_set_at") or row.get("id"))
