"""Assignees of presets: what has to change is planned, changed once, and never over another user's edit."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import ConfigurationError, PresetsUnfinished, RateLimited
from airflow_provider_workflows.operators.procore import ProcorePresetAssigneesOperator
from airflow_provider_workflows.rules.procore_presets import table_of
from tests.support.killed import Killed

pytestmark = pytest.mark.usefixtures("airflow_connections")

TOOL = "purchase_order_contract"
DANA, LEE, NORA, RITA = "dana@example.com", "lee@example.com", "nora@example.com", "rita@example.com"
PRESET = "401"


def assign(*assignments, **parameters) -> ProcorePresetAssigneesOperator:
    whole = {"tool_type": TOOL, "confirm_timeout": 0.2, **parameters}
    return ProcorePresetAssigneesOperator(task_id="assign", assignments=list(assignments), **whole)


def directors(*people: str, preset_id: str = PRESET) -> dict:
    return {"preset_id": preset_id, "groups": {"Directors": list(people)}}


def groups_of(emulator, preset_id: str = PRESET) -> dict[str, list[str]]:
    presets = emulator.control("GET", "state")["procore_presets"]
    return next(preset["groups"] for preset in presets if preset["id"] == preset_id)


def writes(emulator) -> list[str]:
    """Return the presets that the operator changed, in order."""
    effects = [e for e in emulator.effects() if e["action"] == "update_preset_assignees" and e["via"] == "api"]
    return [effect["target"]["preset_id"] for effect in effects]


def calls(emulator, since: int = 0) -> list[tuple[str, str]]:
    requests = [request for request in emulator.requests() if "/workflows/presets/" in request["path"]]
    return [(r["method"], r["path"].rpartition("/presets/")[2]) for r in requests if r["n"] > since]


@pytest.fixture
def another(emulator) -> str:
    """A second preset of the tool."""
    return emulator.control("POST", "procore/presets")["ids"][0]


def only(result: dict) -> tuple[dict, dict]:
    (row,) = result["presets"]
    (group,) = row["groups"]
    return row, group


# --- plan ---


def test_a_plan_says_what_would_change_and_sends_nothing_but_reads(emulator):
    result = assign(directors(DANA, LEE)).execute({})

    row, group = only(result)
    assert (result["mode"], result["changed"], result["unchanged"], result["rejected"]) == ("plan", 1, 0, 0)
    assert (row["preset_id"], row["project_id"], row["template"]) == (PRESET, "1001", "Purchase Order Approval")
    assert (row["valid"], row["status"], row["reason"]) == (True, "change", None)
    assert (group["group"], group["added"], group["removed"], group["unchanged"]) == ("Directors", [LEE], [], [DANA])
    assert {request["method"] for request in emulator.requests() if "/workflows/" in request["path"]} == {"GET"}
    assert [e for e in emulator.effects() if e["action"] == "update_preset_assignees"] == []


def test_replacing_removes_other_members_and_merging_does_not(emulator):
    merged = only(assign(directors(LEE)).execute({}))[1]
    replaced = only(assign(directors(LEE), members="replace").execute({}))[1]

    assert (merged["added"], merged["removed"], merged["unchanged"]) == ([LEE], [], [DANA])
    assert (replaced["added"], replaced["removed"], replaced["unchanged"]) == ([LEE], [DANA], [])


def test_people_are_named_by_login_in_any_case_or_by_id(emulator):
    group = only(assign(directors("Dana@Example.com", "90005")).execute({}))[1]

    assert (group["added"], group["unchanged"]) == ([LEE], [DANA])


def test_a_template_means_its_presets_in_each_of_the_projects(emulator):
    desired = {"template": "purchase order approval", "project_id": ["1001", "1002"], "groups": {"Directors": [LEE]}}

    by_name = assign(desired).execute({})
    by_id = assign({**desired, "template": "301"}).execute({})

    assert [(row["preset_id"], row["project_id"]) for row in by_name["presets"]] == [("401", "1001"), ("402", "1002")]
    assert by_id["presets"] == by_name["presets"]


def test_a_tool_of_the_company_has_its_presets_there(emulator):
    desired = {"preset_id": "404", "groups": {"Reviewers": [LEE]}}

    row, group = only(assign(desired, tool_type="prequalification").execute({}))

    assert (row["project_id"], row["status"], group["added"]) == ("company", "change", [LEE])


@pytest.mark.parametrize(
    ("assignment", "parameters", "reason"),
    [
        (directors("guest@example.com"), {}, "Directors: guest@example.com is not a possible assignee"),
        (directors("90009"), {}, "Directors: 90009 is not a possible assignee"),
        (directors(members_none := "nobody@example.com"), {}, f"Directors: {members_none} is not a possible"),
        (directors(), {"members": "replace"}, "it would have no members"),
        ({"preset_id": PRESET, "groups": {"Creator": [LEE]}}, {}, "its type is 'ITEM_CREATOR'"),
        ({"preset_id": PRESET, "groups": {"Dirctors": [LEE]}}, {}, "no such group; groups: 'Integration', 'Directors'"),
        (directors(LEE, preset_id="999"), {}, "no preset with this id exists"),
        (
            {"template": "Nothing", "groups": {"A": [LEE]}},
            {},
            "no preset of template 'Nothing' exists, or the user may not see it; templates with presets: Purchase",
        ),
    ],
)
def test_forbidden_change_is_rejected_with_its_reason(emulator, assignment, parameters, reason):
    planned = assign(assignment, **parameters).execute({})
    assert planned["rejected"] == 1
    assert reason in str(planned["presets"][0])

    desired = [assignment, {"preset_id": "405", "groups": {"Directors": [LEE]}}]
    with pytest.raises(ConfigurationError, match="nothing was changed"):
        assign(*desired, mode="apply", **parameters).execute({})
    assert writes(emulator) == []


def test_the_table_in_the_log_has_a_line_for_each_group():
    rows = [
        {
            "preset_id": "1",
            "project_id": "company",
            "template": "T",
            "status": "change",
            "reason": None,
            "groups": [
                {"group": "A", "added": ["x", "y"], "removed": [], "rejected": [], "reason": None},
                {
                    "group": "B",
                    "added": [],
                    "removed": ["z"],
                    "rejected": [{"who": "g", "reason": "no"}],
                    "reason": None,
                },
            ],
        },
        {"preset_id": "22", "project_id": "7", "template": None, "status": "rejected", "reason": "why", "groups": []},
    ]

    assert table_of(rows).splitlines() == [
        "preset  project  template  status    group  added  removed  rejected",
        "1       company  T         change    A      x, y",
        "1       company  T         change    B             z        g no",
        "22      7        None      rejected                         why",
    ]


# --- apply ---


@pytest.mark.parametrize("server", ["replace", "merge"])
def test_change_is_written_once_and_leaves_other_groups_unchanged(emulator, server):
    emulator.control("PATCH", "flags", preset_groups=server)
    before = groups_of(emulator)

    row, _ = only(assign(directors(LEE), members="replace", mode="apply").execute({}))

    assert row["status"] == "applied"
    assert groups_of(emulator) == {**before, "Directors": [LEE]}
    assert calls(emulator) == [*[("GET", PRESET)] * 2, ("PATCH", f"{PRESET}/assignees"), ("GET", PRESET)]


def test_an_unchanged_preset_costs_one_call_and_no_write(emulator):
    result = assign(directors(DANA), members="replace", mode="apply").execute({})

    assert (result["changed"], result["unchanged"]) == (0, 1)
    assert calls(emulator) == [("GET", PRESET)]


def test_a_group_is_emptied_only_with_allow_empty(emulator):
    assign(directors(), members="replace", mode="apply", allow_empty=True).execute({})

    assert groups_of(emulator)["Directors"] == []


def test_the_rest_is_done_when_rejections_may_be_skipped(emulator):
    assignments = [directors(LEE, "guest@example.com"), {"preset_id": "405", "groups": {"Creator": [LEE]}}]

    result = assign(*assignments, mode="apply", on_rejected="skip").execute({})

    assert [row["status"] for row in result["presets"]] == ["applied", "rejected"]
    assert (result["changed"], result["unchanged"], result["rejected"]) == (1, 0, 2)
    assert writes(emulator) == [PRESET]
    assert groups_of(emulator)["Directors"] == [DANA, LEE]
    assert result["presets"][0]["groups"][0]["rejected"] == [
        {"who": "guest@example.com", "reason": "is not a possible assignee of the tool"}
    ]


def test_individual_assignees_and_manager_are_sent_as_read(emulator, requests_mock):
    from airflow_provider_workflows.rules.procore_presets import assignees_to_send

    preset = {
        "workflow_manager": {"id": 5},
        "individual_assignees": [{"step_uuid": "s", "logins": [{"id": "1", "required": True, "name": "x"}, "2"]}],
        "responsible_group_memberships": [{"responsible_group_uuid": "g", "assignees": [{"id": 1}]}],
    }

    assert assignees_to_send(preset, {"g": ["1", "2"]}) == {
        "responsible_group_memberships": [{"uuid": "g", "login_ids": ["1", "2"]}],
        "individual_assignees": [{"step_uuid": "s", "logins": [{"id": "1", "required": True}, {"id": "2"}]}],
        "workflow_manager_id": "5",
    }


def test_concurrent_edit_fails_with_the_difference(emulator, monkeypatch):
    operator = assign(directors(LEE), members="replace", mode="apply")
    update = operator.hook.update_preset_assignees

    def edited_right_after(*arguments, **named):
        response = update(*arguments, **named)
        emulator.control("POST", f"procore/presets/{PRESET}/assignees", group="Directors", logins=[NORA])
        return response

    monkeypatch.setattr(operator.hook, "update_preset_assignees", edited_right_after)

    with pytest.raises(AirflowFailException, match=r"PresetConflict: .*unexpected 90006 missing 90005"):
        operator.execute({})
    assert writes(emulator) == [PRESET]
    assert groups_of(emulator)["Directors"] == [NORA]


@pytest.mark.parametrize("reset", ["after", "before"])
def test_a_lost_response_is_reconciled_by_reading(emulator, store, reset):
    emulator.control("POST", "faults", method="PATCH", path="/assignees$", reset=reset)
    operator = assign(directors(LEE), members="replace", mode="apply")

    if reset == "after":
        assert operator.execute({"task_state_store": store})["changed"] == 1
    else:
        with pytest.raises(PresetsUnfinished, match="preset 401 is unchanged"):
            operator.execute({"task_state_store": store})
    assert len(writes(emulator)) == (1 if reset == "after" else 0)


def test_rejected_preset_is_reported_and_stops_no_other(emulator, another):
    emulator.control("POST", "faults", method="PATCH", path="/401/assignees$", status=422, json={"error": "no"})
    assignments = [directors(LEE), directors(LEE, preset_id=another)]

    with pytest.raises(ConfigurationError, match=r"1 preset\(s\) were not changed. preset 401: .*422"):
        assign(*assignments, mode="apply").execute({})
    assert writes(emulator) == [another]


def test_retry_after_a_429_in_the_middle_repeats_nothing(emulator, store):
    presets = emulator.control("POST", "procore/presets", count=4)["ids"]
    assignments = [directors(LEE, preset_id=preset) for preset in presets]
    emulator.control(
        "POST", "faults", method="PATCH", path="/assignees$", skip=2, status=429, headers={"Retry-After": "3600"}
    )

    with pytest.raises(RateLimited):
        assign(*assignments, mode="apply").execute({"task_state_store": store})
    assert writes(emulator) == presets[:2]
    result = assign(*assignments, mode="apply").execute({"task_state_store": store})

    assert writes(emulator) == presets
    assert [row["status"] for row in result["presets"]] == ["applied"] * 4
    assert [row["reason"] for row in result["presets"]] == ["by an earlier try"] * 2 + [None] * 2
    assert result["changed"] == 4


def test_300_presets_take_four_calls_for_a_change_else_one(emulator):
    presets = emulator.control("POST", "procore/presets", count=300)["ids"]
    for preset in presets[:100]:
        emulator.control("POST", f"procore/presets/{preset}/assignees", group="Directors", logins=[LEE])
    assignments = [directors(LEE, preset_id=preset) for preset in presets]

    result = assign(*assignments, members="replace", mode="apply").execute({})

    assert (result["changed"], result["unchanged"]) == (200, 100)
    assert len(calls(emulator)) == 200 * 4 + 100
    shared = [r for r in emulator.requests() if "/workflows/" in r["path"] and "/presets/" not in r["path"]]
    assert len(shared) <= 4 + 3  # pages of presets; tools, template version, possible assignees


# --- an approved plan ---


def test_what_was_approved_is_applied_and_nothing_beyond_it(emulator, another):
    assignments = [directors(LEE), directors(LEE, preset_id=another)]
    plan = assign(*assignments, members="replace").execute({})
    emulator.control("POST", f"procore/presets/{PRESET}/assignees", group="Directors", logins=[DANA, NORA])

    operator = assign(*assignments, members="replace", mode="apply", approved_plan=plan, on_rejected="skip")
    result = operator.execute({})

    assert [row["status"] for row in result["presets"]] == ["rejected", "applied"]
    assert result["presets"][0]["reason"] == f"not in the approved plan: Directors: {NORA} would be removed"
    assert writes(emulator) == [another]


# --- bad input ---


@pytest.mark.parametrize(
    ("assignments", "parameters", "problem"),
    [
        ([], {}, "assignments must be a list"),
        ("x", {}, "assignments must be a list"),
        ([{"groups": {"A": ["x"]}}], {}, "either a preset_id or a template"),
        ([{"preset_id": "1", "template": "t", "groups": {"A": ["x"]}}], {}, "either a preset_id or a template"),
        ([{"preset_id": "1", "groups": {}}], {}, "groups must be a non-empty dict"),
        ([{"preset_id": "1", "group": {"A": ["x"]}}], {}, "unknown key group"),
        ([{"preset_id": "1", "groups": {"A": "x"}}], {}, "members of 'A' must be a list"),
        ([{"preset_id": "1", "groups": {"A": [""]}}], {}, "a member of 'A' is empty"),
        (["1"], {}, "each element must be a dict"),
        ([directors(LEE)], {"tool_type": None}, "tool_type is missing"),
        ([directors(LEE)], {"mode": "go"}, "mode must be one of plan, apply"),
        ([directors(LEE)], {"members": "add"}, "members must be one of merge, replace"),
        ([directors(LEE)], {"on_rejected": "x"}, "on_rejected must be one of"),
        ([directors(LEE)], {"approved_plan": {}}, "approved_plan must be the result"),
        ([directors(LEE)], {"project_id": ""}, "project_id is missing"),
    ],
)
def test_bad_input_is_rejected_before_anything_is_sent(emulator, assignments, parameters, problem):
    before = len(emulator.requests())
    operator = assign(directors(LEE), **parameters)
    operator.assignments = assignments

    with pytest.raises(ConfigurationError, match=problem):
        operator.execute({})
    assert len(emulator.requests()) == before


def test_a_preset_that_two_assignments_mean_is_rejected(emulator):
    with pytest.raises(ConfigurationError, match="preset 401 is in several"):
        assign(directors(LEE), {"preset_id": PRESET, "groups": {"Integration": [LEE]}}).execute({})


def test_an_unknown_tool_is_rejected_with_the_tools_there_are(emulator):
    with pytest.raises(ConfigurationError, match="Unknown tool_type 'po'.*purchase_order_contract"):
        assign(directors(LEE), tool_type="po").execute({})


# --- between two tries ---


def test_an_edit_after_an_earlier_try_is_not_written_over(emulator, store, another):
    assignments = [directors(LEE), directors(LEE, preset_id=another)]
    emulator.control(
        "POST", "faults", method="PATCH", path="/assignees$", skip=1, status=429, headers={"Retry-After": "3600"}
    )
    with pytest.raises(RateLimited):
        assign(*assignments, members="replace", mode="apply").execute({"task_state_store": store})
    emulator.control("POST", f"procore/presets/{PRESET}/assignees", group="Directors", logins=[NORA])

    with pytest.raises(AirflowFailException, match="PresetConflict"):
        assign(*assignments, members="replace", mode="apply").execute({"task_state_store": store})
    assert writes(emulator) == [PRESET, another]
    assert groups_of(emulator)["Directors"] == [NORA]


@pytest.mark.parametrize("took_effect", [True, False])
@pytest.mark.parametrize("edited", [True, False])
def test_death_around_the_change_is_resolved_by_the_retry(emulator, store, monkeypatch, took_effect, edited):
    operator = assign(directors(LEE), members="replace", mode="apply")
    update = operator.hook.update_preset_assignees

    def die(*arguments, **named):
        if took_effect:
            update(*arguments, **named)
        raise Killed

    monkeypatch.setattr(operator.hook, "update_preset_assignees", die)
    with pytest.raises(Killed):
        operator.execute({"task_state_store": store})
    if edited:
        emulator.control("POST", f"procore/presets/{PRESET}/assignees", group="Directors", logins=[NORA])

    again = assign(directors(LEE), members="replace", mode="apply")
    if edited:
        with pytest.raises(AirflowFailException, match="PresetConflict"):
            again.execute({"task_state_store": store})
    else:
        assert only(again.execute({"task_state_store": store}))[0]["status"] == "applied"
    assert writes(emulator) == ([PRESET] if took_effect or not edited else [])


def test_change_found_by_a_later_try_is_remembered_by_the_next(emulator, store, monkeypatch, another):
    assignments = [directors(LEE), directors(LEE, preset_id=another)]
    operator = assign(*assignments, members="replace", mode="apply")
    update = operator.hook.update_preset_assignees

    def die(*arguments, **named):
        update(*arguments, **named)
        raise Killed

    monkeypatch.setattr(operator.hook, "update_preset_assignees", die)
    with pytest.raises(Killed):
        operator.execute({"task_state_store": store})
    emulator.control("POST", "faults", method="PATCH", path="/assignees$", status=429, headers={"Retry-After": "3600"})
    with pytest.raises(RateLimited):
        assign(*assignments, members="replace", mode="apply").execute({"task_state_store": store})
    emulator.control("POST", f"procore/presets/{PRESET}/assignees", group="Directors", logins=[NORA])

    with pytest.raises(AirflowFailException, match="PresetConflict"):
        assign(*assignments, members="replace", mode="apply").execute({"task_state_store": store})
    assert writes(emulator) == [PRESET, another]


def test_a_change_that_cannot_be_read_back_is_not_called_rejected(emulator, store):
    emulator.control("POST", "faults", method="GET", path=f"/presets/{PRESET}$", skip=2, status=404, json={}, times=99)
    with pytest.raises(PresetsUnfinished, match="unknown .*cannot be read"):
        assign(directors(LEE), mode="apply").execute({"task_state_store": store})
    emulator.control("DELETE", "faults")

    assert only(assign(directors(LEE), mode="apply").execute({"task_state_store": store}))[0]["status"] == "applied"
    assert writes(emulator) == [PRESET]


def test_lost_response_that_cannot_be_read_back_is_unknown(emulator, store):
    emulator.control("POST", "faults", method="PATCH", path="/assignees$", reset="before")
    emulator.control("POST", "faults", method="GET", path=f"/presets/{PRESET}$", skip=2, times=99, status=403, json={})

    with pytest.raises(PresetsUnfinished, match="unknown .*cannot be read"):
        assign(directors(LEE), mode="apply", on_rejected="skip").execute({"task_state_store": store})


def test_change_with_a_server_error_is_reconciled_by_reading(emulator, store):
    emulator.control("POST", "faults", method="PATCH", path="/assignees$", status=500, json={}, after=True)

    assert assign(directors(LEE), mode="apply").execute({"task_state_store": store})["changed"] == 1
    assert writes(emulator) == [PRESET]


def test_misspelt_login_empties_no_group(emulator):
    result = assign(
        directors("typo@example.com"), members="replace", mode="apply", allow_empty=True, on_rejected="skip"
    ).execute({})

    assert (result["changed"], result["rejected"]) == (0, 1)
    assert groups_of(emulator)["Directors"] == [DANA]


def test_what_a_change_does_beside_the_groups_is_noticed():
    from airflow_provider_workflows.rules.procore_presets import losses

    before = {"workflow_manager": {"id": 5}, "individual_assignees": [{"step_uuid": "s", "logins": ["1"]}]}

    assert losses(before, before) == []
    assert losses({"workflow_manager": {"id": 6}}, before) == [
        "the individual assignees have changed",
        "the workflow manager is 6 instead of 5",
    ]


@pytest.mark.parametrize(
    ("assignment", "parameters", "problem"),
    [
        ({"preset_id": "1", "project_id": [], "groups": {"A": ["x"]}}, {}, "project_id is an empty list"),
        (directors(LEE), {"approved_plan": "{...}"}, "approved_plan must be the result"),
        ({"template": "", "groups": {"A": ["x"]}}, {}, "template is empty"),
        *(
            ({"preset_id": "1", name: "", "groups": {"A": ["x"]}}, {}, f"assignments: {name} is empty")
            for name in ("tool_type", "tool_subtype", "project_id")
        ),
    ],
)
def test_more_bad_input_is_rejected_before_anything_is_sent(emulator, assignment, parameters, problem):
    before = len(emulator.requests())

    with pytest.raises(ConfigurationError, match=problem):
        assign(assignment, **parameters).execute({})
    assert len(emulator.requests()) == before
