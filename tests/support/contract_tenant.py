"""An emulator in which there is evidence for every open question that reading can resolve."""

from __future__ import annotations

import json
from typing import Any

import requests

from airflow_provider_workflows.emulator import Emulator

REPLACEMENT = {
    "replacement_type": "permanent",
    "modify_project_roles": False,
    "reason": "original_assignee_on_vacation",
}
REPLACEMENTS = "/rest/v2.0/companies/4264807/workflows/bulk_replace_requests"


class ContractTenant:
    """Fill an emulator, and connect to it."""

    def __init__(self, emulator: Emulator):
        self.emulator = emulator
        self._fill_procore()
        self._fill_legacy()
        self.ws_instances = [
            self.start_process("Event planning", {"Event exists": None}),
            self.start_process("Purchase request", {"Decision": "Approved"}),
        ]

    def control(self, path: str, /, method: str = "POST", **body: Any) -> Any:
        return self.emulator.control(method, path, **body)

    def later(self, seconds: float = 5) -> None:
        """Let the next event have a later time."""
        self.control("clock", advance=seconds)

    def start_process(self, diagram: str, fields: dict[str, Any]) -> str:
        return str(self.control("workflowsoft/processes", diagram=diagram, fields=fields)["integration_instance_id"])

    def replace(self, old: str = "90006", new: str = "90005", **changed: Any) -> None:
        """Send a bulk replacement."""
        token = requests.post(
            f"{self.emulator.url}/oauth/token",
            json={
                "grant_type": "client_credentials",
                "client_id": "emulator-client",
                "client_secret": "emulator-secret",
            },
            timeout=10,
        ).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}", "Procore-Company-Id": "4264807"}
        body = {**REPLACEMENT, "old_assignee_id": old, "new_assignee_ids": [new], **changed}
        requests.post(self.emulator.url + REPLACEMENTS, json=body, headers=headers, timeout=10).raise_for_status()

    def connection(self, conn_type: str, **extra: Any) -> str:
        """Return a connection to the emulator as the text of an environment variable."""
        connection = self.emulator.connection(conn_type)
        password = extra.pop("password", connection["password"])
        return json.dumps({**connection, "password": password, "extra": {**connection["extra"], **extra}})

    def _fill_procore(self) -> None:
        respond = {"login": "integration@example.com", "option": "Approve"}
        ended, terminated = self.control("procore/instances/many", count=2)["ids"]
        self.later()
        self.control(f"procore/instances/{ended}/respond", **respond, comment="Fine")
        self.later()
        self.control(f"procore/instances/{ended}/respond", login="dana@example.com", option="Approve")
        self.control(f"procore/instances/{terminated}/terminate")
        self.later()
        review = self.control("procore/instances", tool_type="generic_tool_item", item_id="7001")["id"]
        (moved,) = self.control("procore/instances/many", count=1)["ids"]
        self.later()
        self.control(f"procore/instances/{review}/respond", login="rita@example.com", option="Approve")
        self.control(f"procore/instances/{moved}/respond", **respond)
        self.replace()
        self.replace(new="90009")
        self.replace(replacement_type="temporary", start_date="2990-01-01", end_date="2990-02-01")

    def _fill_legacy(self) -> None:
        submit = {"activity": "Submit for Approval", "login": "integration@example.com"}
        for activity in (submit, {"activity": "Deny", "login": "rita@example.com"}, submit):
            self.control("procore/legacy/instances/568150/perform", **activity)
            self.later()
        self.control("procore/legacy/instances/568151/perform", activity="Accept", login="integration@example.com")
        old = self.control("procore/legacy/instances", object_id=1953200)["id"]
        self.control(f"procore/legacy/instances/{old}/terminate")
        self.later()
        new = self.control("procore/legacy/instances", object_id=1953200)["id"]
        self.later()
        self.control(f"procore/legacy/instances/{new}/perform", **submit, comments="Please")
