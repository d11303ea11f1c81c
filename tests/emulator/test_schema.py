"""The checker itself: an answer that is not as described does not pass."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.emulator.schema import check_against_contract, check_answer

JSON = {"Content-Type": "application/json; charset=utf-8"}
TOOLS = "/rest/v2.0/companies/4264807/workflows/tools"
TOOL = {"name": "Drawing", "type": "drawing", "provider": "Project", "subtype": None}


def test_an_answer_as_described_passes(openapi):
    check_answer(openapi, "GET", TOOLS, 200, JSON, json.dumps({"data": [TOOL]}).encode())
    check_answer(openapi, "POST", "/rest/v2.0/companies/1/workflows/instances/2/responses", 204, {}, b"")


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
def test_an_answer_that_is_not_as_described_fails(openapi, method, path, status, content_type, body):
    with pytest.raises(AssertionError):
        check_answer(openapi, method, path, status, {"Content-Type": content_type}, json.dumps(body).encode())


def test_a_contract_is_held_to_the_types_it_knows():
    row = {"type": "object", "required": ["id", "at"], "properties": {"id": {"type": "integer"}}}
    described = {"200": {"content": {"application/json": {"schema": {"type": "array", "items": row}}}}, "204": {}}
    contract: dict[str, Any] = {"paths": {"/rows/{id}": {"get": {"responses": described}}}}

    check_against_contract(contract, "GET", "/rows/1", 200, [{"id": 1}, {"id": None, "colour": "red"}])
    check_against_contract(contract, "GET", "/rows/1", 204, None)
    with pytest.raises(AssertionError, match=r"\$\[0\].id"):
        check_against_contract(contract, "GET", "/rows/1", 200, [{"id": "1"}])
