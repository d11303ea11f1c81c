"""Templates, presets and the people that can be assigned, in Procore Workflows v2."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.emulator.conftest import COMPANY, PROJECT, Client
from tests.unit.emulator.procore.test_instances import INSTANCE, INSTANCES, TOOL, reasons, respond_as, step_of

PRESETS = f"{PROJECT}/workflows/presets"
PRESET = f"{PRESETS}/401"
FILTER = {"filters[tool_type]": TOOL}


def groups_of(procore: Client, preset: str = PRESET) -> dict[str, list[str]]:
    shown = procore.get(preset)["data"]["responsible_group_memberships"]
    return {group["responsible_group_uuid"]: [assignee["id"] for assignee in group["assignees"]] for group in shown}


def uuids(procore: Client, version: str = "3011") -> dict[str, str]:
    groups = procore.get(f"{COMPANY}/workflows/templates/versions/{version}")["data"]["responsible_groups"]
    return {group["name"]: group["uuid"] for group in groups}


def put_into(procore: Client, groups: dict[str, list[str]], status: int = 200, preset: str = PRESET) -> Any:
    memberships = [{"uuid": uuid, "login_ids": ids} for uuid, ids in groups.items()]
    return procore.patch(f"{preset}/assignees", {"responsible_group_memberships": memberships}, status)


def presets_of(emulator: Any) -> dict[str, dict[str, Any]]:
    return {preset["id"]: preset for preset in emulator.control("GET", "state")["procore_presets"]}


# --- templates ---


def test_a_template_version_shows_its_steps_and_groups(procore):
    version = procore.get(f"{COMPANY}/workflows/templates/versions/3011")["data"]

    types = {group["name"]: group["type"] for group in version["responsible_groups"]}
    assert types == {
        "Integration": "responsible_role",
        "Directors": "responsible_role",
        "Creator": "ITEM_CREATOR",
    }
    groups = {step["name"]: step["responsible_groups"] for step in version["steps"]}
    assert list(groups) == ["Budget Check", "Director Approval", "Correct Order"]
    directors = uuids(procore)["Directors"]
    assert groups["Director Approval"] == [{"uuid": directors, "responses_required": "one"}]
    assert [step["name"] for step in version["dynamic_steps"]] == ["Over 10,000?"]
    nodes = {node["id"] for node in version["flow_visualizer_settings"]["nodes"]}
    assert all({edge["source"], edge["target"]} <= nodes for edge in version["flow_visualizer_settings"]["edges"])
    procore.get(f"{COMPANY}/workflows/templates/versions/9", status=404)


def test_a_template_counts_the_projects_that_use_it(procore):
    rows = procore.get(f"{COMPANY}/workflows/templates")["data"]

    counts = {row["id"]: (row["assigned_projects_count"], row["tool_subtype"]) for row in rows}
    assert counts == {
        "301": (2, None),
        "302": (1, None),
        "303": (0, None),
        "304": (1, "-123456789"),
        "305": (1, None),
        "306": (1, None),
        "307": (1, None),
    }


# --- presets ---


def test_presets_of_a_tool_are_listed_in_project_and_level(procore):
    def ids(where: str, tool: str = TOOL, **filters: str) -> list[str]:
        query = {f"filters[{name}]": value for name, value in {"tool_type": tool, **filters}.items()}
        return [row["id"] for row in procore.get(f"{where}/workflows/presets", **query)["data"]]

    assert ids(PROJECT) == ["401"]
    assert ids(f"{COMPANY}/projects/1002") == ["402"]
    assert ids(COMPANY) == []
    assert ids(COMPANY, "prequalification") == ["404"]
    assert ids(PROJECT, "correspondence", tool_subtype="-123456789") == ["405"]
    assert ids(PROJECT, "correspondence", tool_subtype="5") == []
    assert ids(PROJECT, is_default="true", is_valid="true") == ["401"]
    assert ids(PROJECT, is_default="false") == []
    assert reasons(procore.get(PRESETS, status=400)) == ["missing_parameter"]


def test_many_presets_come_in_pages(emulator, procore):
    added = emulator.control("POST", "procore/presets", count=12, valid=False)["ids"]

    first = procore.send("GET", PRESETS, params=FILTER)
    assert (len(first.json()["data"]), first.headers["Total"]) == (10, "13")
    second = procore.get(PRESETS, **FILTER, page="2")["data"]
    assert [row["id"] for row in second] == added[-3:]
    assert not any(row["valid"] for row in second)


def test_a_preset_shows_who_is_in_its_groups(procore):
    shown = procore.get(PRESET)["data"]

    assert (shown["valid"], shown["default"], shown["template"]["id"]) == (True, True, "301")
    assert shown["workflow_manager"]["login"] == "pat@example.com"
    assert list(groups_of(procore).values()) == [["90001"], ["90004"], ["90002"]]
    procore.get(f"{PRESETS}/402", status=404)
    procore.get(f"{PRESETS}/999", status=404)
    procore.get(f"{COMPANY}/projects/1003/workflows/presets", status=404, **FILTER)


def test_a_tool_has_one_default_preset(emulator, procore):
    [other] = emulator.control("POST", "procore/presets")["ids"]

    assert procore.patch(f"{PRESETS}/{other}", {"default": True})["data"]["default"] is True
    assert {i: preset["default"] for i, preset in presets_of(emulator).items() if i in ("401", "402", other)} == {
        "401": False,
        "402": True,
        other: True,
    }
    emulator.control("POST", "procore/presets/401", default=True, valid=False)
    assert [presets_of(emulator)[i]["default"] for i in ("401", other)] == [True, False]
    assert procore.get(PRESET)["data"]["valid"] is False
    assert [e["action"] for e in emulator.effects()] == ["update_preset"]


@pytest.mark.parametrize(("mode", "creators"), [("replace", []), ("merge", ["90002"])])
def test_groups_that_an_update_omits_are_emptied_or_preserved(emulator, procore, mode, creators):
    emulator.control("PATCH", "flags", preset_groups=mode)
    names = uuids(procore)
    members = {names["Integration"]: ["90001", "90005"], names["Directors"]: ["90006"]}

    echoed = put_into(procore, members)["data"]

    assert {group["uuid"]: group["login_ids"] for group in echoed["responsible_group_memberships"]} == members
    assert groups_of(procore) == {**members, names["Creator"]: creators}
    [effect] = emulator.effects()
    assert (effect["action"], effect["by"], effect["target"]) == (
        "update_preset_assignees",
        "90001",
        {"preset_id": "401"},
    )
    assert effect["detail"]["groups"] == groups_of(procore)


def test_no_one_who_cannot_be_assigned_comes_into_a_group(emulator, procore):
    directors = uuids(procore)["Directors"]
    before = groups_of(procore)

    for user_id in ("90009", "1"):
        assert reasons(put_into(procore, {directors: ["90005", user_id]}, 422)) == ["not_a_possible_assignee"]
    assert reasons(put_into(procore, {"no-such-group": ["90005"]}, 422)) == ["unknown_group"]
    managed = {"workflow_manager_id": "90005"}
    assert reasons(procore.patch(f"{PRESET}/assignees", managed, 422)) == ["not_a_possible_manager"]
    stepped = {"individual_assignees": [{"step_uuid": "no-such-step", "logins": []}]}
    assert reasons(procore.patch(f"{PRESET}/assignees", stepped, 422)) == ["unknown_step"]
    put_into(procore, {directors: ["90005"]}, 404, f"{PRESETS}/402")
    assert groups_of(procore) == before
    assert emulator.effects() == []


def test_an_update_counts_for_the_instances_to_come_only(emulator, procore):
    emulator.control("PATCH", "flags", preset_groups="merge")
    put_into(procore, {uuids(procore)["Integration"]: ["90005"]})
    started = procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "9"}, status=201)["data"]

    assert [o["assignee"]["id"] for o in step_of(procore)["response_occurrences"]] == ["90001"]
    step = started["current_step_occurrence"]
    assert [o["assignee"]["id"] for o in step["response_occurrences"]] == ["90005"]
    shown = {g["responsible_group_uuid"]: g["name"] for g in started["responsible_group_memberships"]}
    assert shown == {uuid: name for name, uuid in uuids(procore).items()}


def test_individual_assignees_are_added_to_the_group(emulator, procore):
    logins = [{"id": "90005", "required": False, "role_type": "commenter"}]
    step_uuid = step_of(procore)["step_uuid"]
    procore.patch(f"{PRESET}/assignees", {"individual_assignees": [{"step_uuid": step_uuid, "logins": logins}]})
    assert procore.get(PRESET)["data"]["individual_assignees"] == [{"step_uuid": step_uuid, "logins": logins}]

    started = procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "9"}, status=201)["data"]
    path = f"{INSTANCES}/{started['id']}"
    assert [assignee["id"] for assignee in started["current_step_occurrence"]["individual_assignees"]] == ["90005"]
    respond_as(emulator, "lee", "Reject", started["id"])
    assert step_of(procore, path)["name"] == "Budget Check"
    respond_as(emulator, "integration", "Approve", started["id"])
    assert step_of(procore, path)["name"] == "Director Approval"


def test_a_person_edits_one_group_by_its_name(emulator, procore):
    edit = {"group": "Directors", "logins": ["lee@example.com", "90006"]}
    emulator.control("POST", "procore/presets/401/assignees", **edit)

    assert presets_of(emulator)["401"]["groups"] == {
        "Integration": ["integration@example.com"],
        "Directors": ["lee@example.com", "nora@example.com"],
        "Creator": ["pat@example.com"],
    }
    assert [(e["action"], e["via"]) for e in emulator.effects()] == [("update_preset_assignees", "user")]
    for wrong in ({"group": "Nobody", "logins": []}, {"group": "Directors", "logins": ["guest@example.com"]}):
        with pytest.raises(RuntimeError, match="422"):
            emulator.control("POST", "procore/presets/401/assignees", **wrong)
    with pytest.raises(RuntimeError, match="404"):
        emulator.control("POST", "procore/presets/999", valid=False)


def test_a_change_of_a_preset_can_show_some_reads_later(emulator, procore):
    emulator.control("PATCH", "flags", preset_stale_reads=2)
    before = groups_of(procore)
    put_into(procore, {uuids(procore)["Directors"]: ["90006"]})

    assert groups_of(procore) == groups_of(procore) == before
    assert groups_of(procore)[uuids(procore)["Directors"]] == ["90006"]


@pytest.mark.parametrize(("rest", "stay"), [("preserved", True), ("emptied", False)])
def test_omitted_individual_assignees_stay_or_are_removed(emulator, procore, rest, stay):
    emulator.control("PATCH", "flags", preset_rest=rest)
    step_uuid = step_of(procore)["step_uuid"]
    logins = [{"id": "90005", "required": False, "role_type": "commenter"}]
    procore.patch(f"{PRESET}/assignees", {"individual_assignees": [{"step_uuid": step_uuid, "logins": logins}]})

    put_into(procore, {uuids(procore)["Directors"]: ["90006"]})

    assert bool(procore.get(PRESET)["data"]["individual_assignees"]) == stay


@pytest.mark.parametrize("kind", ["responsible_role", "project_role", "RESPONSIBLE_ROLE"])
def test_a_group_of_people_has_one_of_several_types(emulator, procore, kind):
    emulator.control("PATCH", "flags", role_group_type=kind)

    groups = procore.get(f"{COMPANY}/workflows/templates/versions/3011")["data"]["responsible_groups"]
    assert [group["type"] for group in groups] == [kind, kind, "ITEM_CREATOR"]


# --- starting with a preset ---


def test_instance_takes_the_named_or_the_default_preset(emulator, procore):
    named, default = emulator.control("POST", "procore/presets", count=2)["ids"]
    for preset, login in ((named, "lee@example.com"), (default, "nora@example.com")):
        emulator.control("POST", f"procore/presets/{preset}/assignees", group="Integration", logins=[login])
    emulator.control("POST", f"procore/presets/{default}", default=True)

    def assignees(item_id: str, **chosen: str) -> list[str]:
        started = procore.post(INSTANCES, {"tool_type": TOOL, "item_id": item_id, **chosen}, status=201)["data"]
        return [o["assignee"]["id"] for o in started["current_step_occurrence"]["response_occurrences"]]

    assert assignees("1", preset_id=named) == ["90005"]
    assert assignees("2") == ["90006"]
    assert assignees("3", template_id="301") == ["90006"]
    emulator.control("POST", f"procore/presets/{default}", valid=False)
    rejected = procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "4"}, status=400)
    assert reasons(rejected) == ["preset_invalid"]
    procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "4", "preset_id": "402"}, status=404)
    procore.post(INSTANCES, {"tool_type": TOOL, "item_id": "4", "preset_id": "403"}, status=404)


def test_a_tool_without_a_preset_takes_the_templates_own_people(procore):
    other = f"{COMPANY}/projects/1002/workflows/instances"
    started = procore.post(other, {"tool_type": "generic_tool_item", "item_id": "1"}, status=201)["data"]

    assert len(started["current_step_occurrence"]["response_occurrences"]) == 2
    procore.get(f"{INSTANCES}/{started['id']}", status=404)
    assert procore.get(other, **{"filters[tool_type]": "generic_tool_item"})["data"]


@pytest.mark.parametrize(("mode", "assignee"), [("current_configuration", "90001"), ("defaults", "90005")])
def test_a_restart_copies_the_assignees_or_uses_the_preset(emulator, procore, mode, assignee):
    emulator.control("POST", "procore/presets/401/assignees", group="Integration", logins=["lee@example.com"])

    again = procore.post(f"{INSTANCE}/restart", {"restart_mode": mode})["data"]

    step = again["current_step_occurrence"]
    assert [o["assignee"]["id"] for o in step["response_occurrences"]] == [assignee]
    procore.post(f"{INSTANCE}/restart", {"restart_mode": "anyhow"}, status=400)


# --- people ---


def test_possible_assignees_come_in_pages_without_the_guest(procore):
    response = procore.send(
        "GET", f"{PROJECT}/workflows/possible_assignees", params={"tool_type": TOOL, "per_page": "4", "page": "2"}
    )

    assert [user["login"] for user in response.json()["data"]] == ["lee@example.com", "nora@example.com"]
    assert response.headers["Total"] == "6"
    managers = procore.get(f"{COMPANY}/workflows/workflow_managers", tool_type=TOOL)["data"]
    assert [user["id"] for user in managers] == ["90002"]
    procore.get(f"{COMPANY}/workflows/possible_assignees", status=400)
