"""The report of a contract check has the structure of a tenant, and nothing of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_workflows.diagnostics.contract_check import documented, report
from airflow_provider_workflows.diagnostics.contract_check.pseudonyms import Pseudonyms

MARKER = "Zeppelin"
HIDDEN = {
    f"{MARKER} key": f"{MARKER} value",
    "zeppelin_member": [f"{MARKER}@example.com", f"https://{MARKER}.example.com/path?{MARKER}=1"],
    "description": f"<b>{MARKER}</b> 2026-02-03",
    "start_date": "2026-02-03",
    "amount": 4711.25,
    "subtype": f"{MARKER}-9",
}


def texts(value: Any) -> Iterator[str]:
    """Yield all texts and numbers of a body, and the times in it."""
    if isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def is_of_the_tenant(text: str) -> bool:
    """Return whether a text reveals something of the tenant: it is no term of the API, and no short number."""
    is_term = text.lower() in documented.WORDS or text.rstrip("?") in documented.FIELD_TYPES
    return len(text) > 3 and not is_term and not (text.isdecimal() and len(text) < 4)


@pytest.mark.parametrize("conn_type", ["procore", "workflowsoft"])
def test_nothing_of_the_tenants_own_is_in_the_report(tenant, check, conn_type):
    checked = check(conn_type)
    own = {text for reading in checked.records.readings for text in texts(reading.json) if is_of_the_tenant(text)}
    connection = tenant.emulator.connection(conn_type)
    own |= {tenant.emulator.url.partition("//")[2], connection["login"], connection["password"], "4264807", "1001"}
    assert len(own) > 30

    whole = json.loads(report.anonymous(checked))

    for finding in whole["findings"]:
        del finding["question"], finding["answer"]  # the texts of the table
    found = [text for text in texts(whole["responses"]) if text in own]
    found += [text for text in own if len(text) > 6 and text in json.dumps(whole)]
    assert found == []


@pytest.mark.sample(3)
@pytest.mark.parametrize("path", ["/workflows/tools$", "/workflows/instances$", "/history$", "/me$", "/templates"])
def test_markers_anywhere_in_a_response_are_not_in_the_report(tenant, check, path):
    rows = [{"id": f"{MARKER}1", "type": MARKER, "name": MARKER, "status": MARKER, **HIDDEN, "nested": HIDDEN}]
    body = {"data": rows, "meta": {"next_cursor": MARKER}, "errors": {MARKER: MARKER}, "id": MARKER, "login": MARKER}
    headers = {
        "Link": f'<https://{MARKER}.example.com/?{MARKER}={MARKER}>; rel="next"',
        "X-Zeppelin": MARKER,
        "Content-Type": f"application/{MARKER}",
        "Total": MARKER,
    }
    for status in (200, 418):
        tenant.control("faults", path=path, times=1000, status=status, json=body, headers=headers)

        shown = report.anonymous(check())

        assert MARKER.lower() not in shown.lower()
        assert "2026" not in shown
        assert "4711" not in shown
        tenant.control("faults", "DELETE")


def test_markers_in_what_users_write_are_not_in_the_report(tenant, check):
    tenant.control("procore/instances/700001/block", reason=MARKER)
    instance = tenant.start_process("Event planning", {"Event name": MARKER, "Venue": f"{MARKER} 12"})
    tenant.ws_instances.append(instance)

    for conn_type in ("procore", "workflowsoft"):
        checked = check(conn_type)
        assert any(MARKER.encode() in reading.body for reading in checked.records.readings), conn_type
        assert MARKER.lower() not in report.anonymous(checked).lower()


def test_a_text_has_the_same_pseudonym_everywhere(tenant, check):
    responses = json.loads(report.anonymous(check()))["responses"]

    listed = next(r for r in responses if r["read"] == "instances")["body"]["data"][:3]
    by_item = next(r for r in responses if r["read"] == "instances_item")
    shown = [r["body"]["data"] for r in responses if r["read"] == "instance"]
    assert by_item["query"]["filters[item_id]"] == by_item["body"]["data"][0]["item_id"]
    assert {row["id"] for row in listed} & {row["id"] for row in shown}
    assert len({row["id"] for row in listed}) == len(listed)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("started_at", "2026-01-31T12:34:56Z", "9999-99-99T99:99:99Z"),
        ("started_at", "2026-01-31T12:34:56.123+02:00", "9999-99-99T99:99:99.999+99:99"),
        ("status", "In_Progress", "In_Progress"),
        ("valueJson", '"Event"', '"<text A>"'),
        ("valueJson", '{"lat": 1.5}', '{"<member A>": "<number>"}'),
        ("type", "System.Decimal?", "System.Decimal?"),
        ("id", 700001, "<number A>"),
        ("id", "700001", "<id A>"),
        ("blocked", None, None),
        ("required", True, True),
        ("comment", "", ""),
        ("login_ids", ["1", "2", "1", "3"], ["<id A>", "<id B>", "<id A>", "<more: 1>"]),
    ],
)
def test_only_the_format_of_a_value_is_reported(name, value, shown):
    assert Pseudonyms().value(name, value) == shown
