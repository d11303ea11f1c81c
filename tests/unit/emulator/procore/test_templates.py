"""The tools of the default company: each has a template and a preset, and a workflow that users can finish."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emulator.conftest import COMPANY, PROJECT

TOOLS = {
    "purchase_order_contract": "301",
    "generic_tool_item": "302",
    "correspondence": "304",
    "commitment_change_order": "305",
    "requisition": "306",
    "submittal": "307",
}
SUBTYPE = {"correspondence": "-123456789"}


@pytest.fixture
def tools(procore) -> dict[str, dict[str, Any]]:
    return {tool["type"]: tool for tool in procore.get(f"{COMPANY}/workflows/tools")["data"]}


def start(emulator: Any, tool_type: str) -> str:
    subtype = SUBTYPE.get(tool_type)
    order = {"tool_type": tool_type, "tool_subtype": subtype, "item_id": "7001"}
    return emulator.control("POST", "procore/instances", **order)["id"]


def state_of(emulator: Any, instance_id: str) -> dict[str, Any]:
    return next(row for row in emulator.control("GET", "state")["procore"] if row["id"] == instance_id)


def test_the_company_lists_a_tool_for_each_kind_of_story(tools):
    assert set(tools) == {*TOOLS, "prequalification"}
    assert {name: tool["subtype"] for name, tool in tools.items() if tool["subtype"]} == SUBTYPE
    assert {name for name, tool in tools.items() if tool["provider"] == "Company"} == {"prequalification"}


@pytest.mark.parametrize(("tool_type", "template"), TOOLS.items())
def test_each_tool_has_a_default_preset_of_its_template(procore, tool_type, template):
    query = {"filters[tool_type]": tool_type, "filters[is_default]": "true", "filters[is_valid]": "true"}
    (preset,) = procore.get(f"{PROJECT}/workflows/presets", **query)["data"]
    shown = procore.get(f"{PROJECT}/workflows/presets/{preset['id']}")["data"]
    version = procore.get(f"{COMPANY}/workflows/templates/versions/{shown['template']['last_published_version_id']}")

    assert (preset["template"]["id"], version["data"]["tool_type"]) == (template, tool_type)
    assert all(group["assignees"] for group in shown["responsible_group_memberships"])


@pytest.mark.parametrize("tool_type", TOOLS)
def test_users_approve_an_item_of_each_tool_to_its_end(emulator, procore, tool_type):
    instance_id = start(emulator, tool_type)
    where = f"{PROJECT}/workflows/instances/{instance_id}"
    acted = set()
    while (row := state_of(emulator, instance_id))["state"] != "complete":
        login = row["waits_for"][0]
        step = procore.get(where)["data"]["current_step_occurrence"]
        option = next(o["name"] for o in step["available_response_options"] if o["response_type"] == "approve")
        emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option=option)
        acted.add(login)

    assert (row["tool_type"], row["item_status"]) == (tool_type, "Approved")
    assert "integration@example.com" in acted


@pytest.mark.parametrize(
    ("tool_type", "approvals", "returned", "back"),
    [
        ("commitment_change_order", [], "Return", "Revise Change Order"),
        ("submittal", ["Approve as Noted"], "Revise and Resubmit", "Revise Submittal"),
    ],
)
def test_a_returned_item_comes_back_to_its_first_step(emulator, tool_type, approvals, returned, back):
    instance_id = start(emulator, tool_type)
    first = state_of(emulator, instance_id)["step"]
    for option in [*approvals, returned]:
        login = state_of(emulator, instance_id)["waits_for"][0]
        emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option=option)
    row = state_of(emulator, instance_id)
    assert (row["step"], row["waits_for"]) == (back, ["pat@example.com"])

    emulator.control("POST", f"procore/instances/{instance_id}/respond", login="pat@example.com", option="Resubmit")
    assert state_of(emulator, instance_id)["step"] == first


def test_ids_of_presets_that_are_added_stay_as_documented(emulator):
    added = emulator.control("POST", "procore/presets", count=2)["ids"]
    assert added == ["406", "407"]
