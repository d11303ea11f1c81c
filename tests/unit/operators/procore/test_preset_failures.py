"""One preset that Procore cannot show or change is one preset: the rest is done, and a retry does what is missing."""

from __future__ import annotations

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.exceptions import ConfigurationError, OutcomeUnknown, PresetsUnfinished
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators.procore import ProcorePresetAssigneesOperator
from airflow_provider_workflows.operators.procore import preset_assignees as procore_preset_assignees
from tests.unit.operators.procore.test_preset_assignees import (
    DANA,
    LEE,
    NORA,
    PRESET,
    TOOL,
    assign,
    calls,
    directors,
    groups_of,
    writes,
)

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

# What becomes of a change, and whether it is made.
BROKEN_WRITES = {
    "500": ({"status": 500, "json": {"error": "boom"}}, False),
    "500_after": ({"status": 500, "json": {"error": "boom"}, "after": True}, True),
    "502": ({"status": 502, "json": {}}, False),
    "502_after": ({"status": 502, "json": {}, "after": True}, True),
    "lost": ({"reset": "before"}, False),
    "lost_after": ({"reset": "after"}, True),
    "malformed": ({"status": 200, "json": {"data": "?"}}, False),
}


@pytest.fixture
def presets(emulator) -> list[str]:
    return emulator.control("POST", "procore/presets", count=4)["ids"]


def sync(presets, **parameters) -> ProcorePresetAssigneesOperator:
    whole = {"mode": "apply", "confirm_timeout": 0, **parameters}
    return assign(*(directors(LEE, preset_id=preset) for preset in presets), **whole)


def statuses(result: dict) -> list[str]:
    return [row["status"] for row in result["presets"]]


def break_preset(emulator, preset_id: str, method: str = "GET", **fault) -> None:
    path = f"/presets/{preset_id}/assignees$" if method == "PATCH" else f"/presets/{preset_id}$"
    emulator.control("POST", "faults", method=method, path=path, times=99, **fault)


@pytest.mark.sample(3)
@pytest.mark.parametrize("on_rejected", ["fail", "skip"])
@pytest.mark.parametrize(("fault", "is_made"), BROKEN_WRITES.values(), ids=BROKEN_WRITES)
def test_broken_write_stops_no_other_and_a_retry_repairs_it(emulator, store, presets, on_rejected, fault, is_made):
    broken = presets[1]
    break_preset(emulator, broken, "PATCH", **fault)

    if is_made:
        assert statuses(sync(presets, on_rejected=on_rejected).execute({"task_state_store": store})) == ["applied"] * 4
        assert writes(emulator) == presets
        return
    with pytest.raises(PresetsUnfinished, match=f"1 of 4 .*\n.*\n{broken} "):
        sync(presets, on_rejected=on_rejected).execute({"task_state_store": store})
    assert writes(emulator) == [preset for preset in presets if preset != broken]

    emulator.control("DELETE", "faults")
    result = sync(presets, on_rejected=on_rejected).execute({"task_state_store": store})

    assert statuses(result) == ["applied"] * 4
    assert sorted(writes(emulator)) == presets


@pytest.mark.sample(3)
@pytest.mark.parametrize("number", [0, 1], ids=["first read", "second read"])
@pytest.mark.parametrize(
    "fault",
    [{"status": 500, "json": {}}, {"status": 504, "body": "<html>"}, {"status": 200, "body": "?"}, {"reset": "before"}],
    ids=["500", "504", "not_json", "reset"],
)
def test_broken_read_stops_no_other_and_writes_nothing(emulator, store, presets, fault, number):
    broken = presets[0]
    break_preset(emulator, broken, skip=number, **fault)

    with pytest.raises(PresetsUnfinished, match=f"\n{broken} .* failed"):
        sync(presets).execute({"task_state_store": store})
    assert writes(emulator) == presets[1:]
    emulator.control("DELETE", "faults")
    emulator.control("POST", f"procore/presets/{broken}/assignees", group="Directors", logins=[NORA])

    assert statuses(sync(presets).execute({"task_state_store": store})) == ["applied"] * 4
    assert groups_of(emulator, broken)["Directors"] == [NORA, LEE]


def test_unknown_change_that_arrives_late_is_not_sent_again(emulator, store, presets, monkeypatch):
    operator = sync(presets)
    update, late = operator.hook.update_preset_assignees, []

    def delayed(preset_id, **body):
        if preset_id == presets[2]:
            late.append((preset_id, body))
            raise OutcomeUnknown("The response was lost")
        return update(preset_id, **body)

    monkeypatch.setattr(operator.hook, "update_preset_assignees", delayed)
    with pytest.raises(PresetsUnfinished):
        operator.execute({"task_state_store": store})
    for preset_id, body in late:
        update(preset_id, **body)
    before = len(emulator.requests())

    result = sync(presets).execute({"task_state_store": store})

    assert [row["reason"] for row in result["presets"]] == ["by an earlier try"] * 4
    assert "PATCH" not in [method for method, _ in calls(emulator, before)]


@pytest.mark.parametrize("status", [403, 404])
def test_unknown_change_stays_unknown_where_it_cannot_be_read(emulator, store, presets, status):
    break_preset(emulator, presets[0], "PATCH", reset="after")
    break_preset(emulator, presets[0], skip=2, status=status, json={})
    for on_rejected in ("fail", "skip"):
        with pytest.raises(PresetsUnfinished, match=f"\n{presets[0]} .* unknown"):
            sync(presets, on_rejected=on_rejected).execute({"task_state_store": store})
    emulator.control("DELETE", "faults")

    assert statuses(sync(presets).execute({"task_state_store": store})) == ["applied"] * 4
    assert writes(emulator) == presets


def test_without_a_store_a_retry_does_only_what_is_missing(emulator, presets):
    break_preset(emulator, presets[1], "PATCH", reset="before")
    with pytest.raises(PresetsUnfinished):
        sync(presets, members="replace").execute({})
    emulator.control("DELETE", "faults")

    assert statuses(sync(presets, members="replace").execute({})) == ["unchanged", "applied", "unchanged", "unchanged"]
    assert sorted(writes(emulator)) == presets


def test_edited_preset_is_left_alone_while_the_others_are_changed(emulator, store, presets, monkeypatch):
    operator = sync(presets, members="replace")
    update = operator.hook.update_preset_assignees

    def edited_right_after(preset_id, **body):
        response = update(preset_id, **body)
        if preset_id == presets[0]:
            emulator.control("POST", f"procore/presets/{preset_id}/assignees", group="Directors", logins=[NORA])
        return response

    monkeypatch.setattr(operator.hook, "update_preset_assignees", edited_right_after)

    with pytest.raises(AirflowFailException, match="PresetConflict: .*missing 90005"):
        operator.execute({"task_state_store": store})
    assert writes(emulator) == presets
    assert groups_of(emulator, presets[0])["Directors"] == [NORA]


@pytest.mark.parametrize("mode", ["plan", "apply"])
def test_rejected_project_does_not_stop_the_others(emulator, store, mode):
    emulator.control("POST", "faults", path="/projects/1002/workflows/presets$", times=99, status=403, json={})
    desired = {"template": "301", "project_id": ["1001", "1002"], "groups": {"Directors": [LEE]}}

    result = assign(desired, mode=mode, on_rejected="skip").execute({"task_state_store": store})

    shown = [(row["preset_id"], row["project_id"], row["status"]) for row in result["presets"]]
    assert shown == [("401", "1001", "change" if mode == "plan" else "applied"), ("-", "1002", "rejected")]
    assert result["rejected"] == 1
    if mode == "apply":
        with pytest.raises(ConfigurationError, match="403"):
            assign(desired, mode=mode).execute({"task_state_store": store})


@pytest.mark.parametrize(
    "path",
    ["/projects/1002/workflows/presets$", "/projects/1002/workflows/possible_assignees$"],
    ids=["list", "people"],
)
def test_unreadable_project_fails_and_the_others_are_done(emulator, store, path):
    emulator.control("POST", "faults", path=path, times=99, status=500, json={})
    desired = {"template": "301", "project_id": ["1001", "1002"], "groups": {"Directors": [LEE]}}

    with pytest.raises(PresetsUnfinished, match=r"1 of 2 .*\n.*\n\S+ +1002 .* failed"):
        assign(desired, mode="apply").execute({"task_state_store": store})
    assert writes(emulator) == [PRESET]
    emulator.control("DELETE", "faults")

    assert statuses(assign(desired, mode="apply").execute({"task_state_store": store})) == ["applied", "applied"]
    assert writes(emulator) == [PRESET, "402"]


def test_failed_read_of_shared_data_is_not_repeated(emulator, store, presets):
    emulator.control("POST", "faults", path="/templates/versions/", times=99, status=500, json={})

    with pytest.raises(PresetsUnfinished, match="4 of 4"):
        sync(presets).execute({"task_state_store": store})
    assert len([r for r in emulator.requests() if "/templates/versions/" in r["path"]]) == 1


def test_preset_on_two_pages_is_changed_once(emulator, store, monkeypatch):
    operator = assign(directors(LEE), {"template": "Nothing", "groups": {"A": [LEE]}}, mode="apply", on_rejected="skip")
    rows = list(operator.hook.list_presets(TOOL, project_id="1001"))
    monkeypatch.setattr(operator.hook, "list_presets", lambda *args, **more: iter([*rows, {"id": None}, *rows]))

    result = operator.execute({"task_state_store": store})

    assert statuses(result) == ["applied", "rejected"]
    assert writes(emulator) == [PRESET]


def test_project_that_is_named_twice_means_its_presets_once(emulator, store):
    desired = {"template": "301", "project_id": ["1001", 1001], "groups": {"Directors": [LEE]}}

    assert statuses(assign(desired, mode="apply").execute({"task_state_store": store})) == ["applied"]


@pytest.mark.parametrize("mode", ["plan", "apply"])
def test_server_that_fails_at_each_preset_is_left_in_peace(emulator, store, presets, monkeypatch, mode):
    monkeypatch.setattr(procore_preset_assignees, "MAX_CONSECUTIVE_FAILURES", 2)
    emulator.control("POST", "faults", method="GET", path=r"/presets/\d+$", times=99, status=500, json={})

    with pytest.raises(PresetsUnfinished, match="4 of 4"):
        sync(presets, mode=mode).execute({"task_state_store": store})
    assert calls(emulator) == [("GET", presets[0]), ("GET", presets[1])]


def test_project_where_each_preset_fails_stops_no_other_project(emulator, store, presets, monkeypatch):
    monkeypatch.setattr(procore_preset_assignees, "MAX_CONSECUTIVE_FAILURES", 2)
    emulator.control("POST", "faults", method="GET", path=r"/1001/.*/presets/\d+$", times=99, status=500, json={})
    desired = {"template": "301", "project_id": ["1001", "1002"], "groups": {"Directors": [LEE]}}

    with pytest.raises(PresetsUnfinished, match="5 of 6"):
        assign(desired, mode="apply", confirm_timeout=0).execute({"task_state_store": store})
    assert writes(emulator) == ["402"]


def test_preset_that_changes_with_every_read_is_left_to_a_retry(emulator, store):
    operator = assign(directors(LEE), mode="apply", members="replace", on_rejected="skip")
    read, others = operator.hook.get_preset, [[NORA], [DANA], [NORA], [DANA], [NORA]]

    def read_and_edit(*args, **kwargs):
        preset = read(*args, **kwargs)
        emulator.control("POST", f"procore/presets/{PRESET}/assignees", group="Directors", logins=others.pop())
        return preset

    operator.hook.get_preset = read_and_edit
    assert statuses(operator.execute({"task_state_store": store})) == ["rejected"]
    again = assign(directors(LEE), mode="apply", members="replace")

    assert statuses(again.execute({"task_state_store": store})) == ["applied"]


@pytest.mark.parametrize("members", ["merge", "replace"])
def test_group_whose_people_are_hidden_is_not_emptied(emulator, store, members):
    shown = ProcoreHook().get_preset(PRESET)
    for group in shown["responsible_group_memberships"][1:]:
        del group["assignees"]
    break_preset(emulator, PRESET, status=200, json={"data": shown})

    with pytest.raises(PresetsUnfinished, match="does not show all its groups"):
        assign(directors(LEE), mode="apply", members=members).execute({"task_state_store": store})
    assert writes(emulator) == []


def test_group_that_is_named_twice_is_rejected(emulator, store):
    twice = {**directors(LEE), "groups": {"Directors": [DANA], "directors ": [LEE]}}

    with pytest.raises(ConfigurationError, match="names it twice"):
        assign(twice, mode="apply", members="replace").execute({"task_state_store": store})
    assert writes(emulator) == []
