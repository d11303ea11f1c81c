"""The checker itself: a response that is not as described does not pass."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.emulator.conftest import PROJECT
from tests.unit.emulator.schema import check_against_contract, check_response

JSON = {"Content-Type": "application/json; charset=utf-8"}
TOOLS = "/rest/v2.0/companies/4264807/workflows/tools"
TOOL = {"name": "Drawing", "type": "drawing", "provider": "Project", "subtype": None}


def test_a_response_as_described_passes(openapi):
    check_response(openapi, "GET", TOOLS, 200, JSON, json.dumps({"data": [TOOL]}).encode())
    check_response(openapi, "POST", "/rest/v2.0/companies/1/workflows/instances/2/responses", 204, {}, b"")


def test_unchecked_lists_are_as_described_in_every_state(emulator, procore, legacy):
    v2 = emulator.control("POST", "procore/instances/many", count=4)["ids"]
    where = "procore/instances"
    emulator.control("POST", f"{where}/respond-many", ids=v2[:2], login="integration@example.com", option="Approve")
    emulator.control("POST", f"{where}/respond-many", ids=v2[:1], login="dana@example.com", option="Approve")
    emulator.control("POST", f"{where}/{v2[3]}/terminate")
    emulator.control("POST", where, tool_type="correspondence", tool_subtype="-123456789", item_id="1")
    v1 = emulator.control("POST", "procore/legacy/instances/many", count=3)["ids"]
    submit = {"ids": v1[:1], "login": "pat@example.com", "activity": "Submit for Approval"}
    emulator.control("POST", "procore/legacy/instances/perform-many", **submit)
    emulator.control("POST", "procore/legacy/instances/568151/perform", login="rita@example.com", activity="Accept")
    emulator.control("POST", f"procore/legacy/instances/{v1[2]}/terminate")

    # The clients check each response against the description.
    letters = {"filters[tool_type]": "correspondence", "filters[tool_subtype]": "-123456789"}
    for query, count in (({"filters[tool_type]": "purchase_order_contract"}, 5), (letters, 1)):
        for paging in ({}, {"page": "1"}):
            assert len(procore.get(f"{PROJECT}/workflows/instances", **query, **paging)["data"]) == count
    assert len(legacy.get("/rest/v1.0/workflow_instances")) == 4


@pytest.mark.parametrize(
    ("method", "path", "status", "content_type", "body"),
    [
        ("GET", TOOLS, 200, "application/json", {"data": [{**TOOL, "colour": "red"}]}),
        ("GET", TOOLS, 200, "application/json", {"data": [{"name": "Drawing"}]}),
        ("GET", TOOLS, 200, "application/json", {"data": [{**TOOL, "type": 5}]}),
        ("GET", TOOLS, 200, "text/plain", {"data": []}),
        ("GET", TOOLS, 404, "application/json", {"detail": "Not Found"}),
        ("POST", TOOLS, 200, "application/json", {"data": []}),
        ("GET", "/rest/v2.0/nothing", 200, "application/json", {}),
        ("POST", "/rest/v2.0/companies/1/workflows/instances/2/responses", 204, "application/json", {}),
    ],
)
def test_a_response_that_is_not_as_described_fails(openapi, method, path, status, content_type, body):
    with pytest.raises(AssertionError):
        check_response(openapi, method, path, status, {"Content-Type": content_type}, json.dumps(body).encode())


def test_known_types_of_a_contract_are_checked():
    row = {"type": "object", "required": ["id", "at"], "properties": {"id": {"type": "integer"}}}
    described = {"200": {"content": {"application/json": {"schema": {"type": "array", "items": row}}}}, "204": {}}
    contract: dict[str, Any] = {"paths": {"/rows/{id}": {"get": {"responses": described}}}}

    check_against_contract(contract, "GET", "/rows/1", 200, [{"id": 1}, {"id": None, "colour": "red"}])
    check_against_contract(contract, "GET", "/rows/1", 204, None)
    with pytest.raises(AssertionError, match=r"\$\[0\].id"):
        check_against_contract(contract, "GET", "/rows/1", 200, [{"id": "1"}])
