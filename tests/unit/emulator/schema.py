"""Check a response against an OpenAPI description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from jsonschema import Draft202012Validator


def check_response(
    openapi: dict[str, Any], method: str, path: str, status: int, headers: Mapping[str, str], body: bytes
) -> None:
    """
    Check a response strictly: its status, content type and every key must be described.

    :param openapi: The emulator's own description.
    :param path: Path of the request, without the query.
    :param body: The body as it came.
    :raises AssertionError: the response is not as described.
    """
    described = described_response(openapi, method, path, status)
    content = described.get("content")
    if content is None:
        assert body == b"", f"{method} {path} {status} has a body that is not described"
        return
    content_type = headers["Content-Type"].partition(";")[0]
    assert content_type in content, f"{method} {path} {status} is {content_type}, described are {list(content)}"
    if content_type == "application/json":
        _validate(openapi, content[content_type]["schema"], json.loads(body), f"{method} {path} {status}")


def check_against_contract(oas: dict[str, Any], method: str, path: str, status: int, body: Any) -> None:
    """
    Check the types of the keys that a vendor's description knows; null and further keys are allowed anywhere.

    :raises AssertionError: a known key has another type.
    """
    content = described_response(oas, method, path, status).get("content")
    if content is not None:
        schema = _tolerant(content["application/json"]["schema"])
        _validate({"components": _tolerant(oas.get("components", {}))}, schema, body, f"{method} {path} {status}")


def described_response(openapi: dict[str, Any], method: str, path: str, status: int) -> dict[str, Any]:
    """Return the description of a response; the route with the fewest parameters wins."""
    for template in sorted(openapi["paths"], key=lambda template: template.count("{")):
        if not re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            continue
        responses = openapi["paths"][template].get(method.lower(), {}).get("responses", {})
        described = responses.get(str(status), responses.get("default"))
        assert described is not None, f"{method} {template} describes {list(responses)}, not {status}"
        found: dict[str, Any] = described
        return found
    raise AssertionError(f"{path} is not described")


def _validate(openapi: dict[str, Any], schema: dict[str, Any], value: Any, where: str) -> None:
    whole = {**schema, "components": openapi["components"]}
    problems = [f"{e.json_path}: {e.message}" for e in Draft202012Validator(whole).iter_errors(value)]
    assert not problems, f"{where} is not as described: {problems}"


def _tolerant(schema: Any) -> Any:
    """Allow null wherever a type is named, and take no key for required; enums of OpenAPI say nothing of null."""
    if isinstance(schema, list):
        return [_tolerant(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    loose = {key: _tolerant(part) for key, part in schema.items() if key not in ("required", "enum")}
    if isinstance(schema.get("type"), str):
        loose["type"] = [schema["type"], "null"]
    return loose
