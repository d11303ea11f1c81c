"""Other people edit presets, too: whom they add stays, and a change that shows late is no edit of theirs."""

from __future__ import annotations

import logging

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_workflows.operators.procore import ProcorePresetAssigneesOperator
from tests.support.killed import Killed
from tests.unit.operators.procore.test_preset_assignees import (
    DANA,
    LEE,
    NORA,
    PRESET,
    RITA,
    assign,
    calls,
    directors,
    groups_of,
    only,
    writes,
)

pytestmark = pytest.mark.usefixtures("airflow_connections")


def put(emulator, *people: str, group: str = "Directors") -> None:
    emulator.control("POST", f"procore/presets/{PRESET}/assignees", group=group, logins=list(people))


def edited_after_read(emulator, operator, number: int, *people: str, group: str = "Directors"):
    """Let a person edit a group right after the operator's read of that number."""
    read, reads = operator.hook.get_preset, []

    def read_and_edit(*args, **kwargs):
        preset = read(*args, **kwargs)
        reads.append(preset)
        if len(reads) == number:
            put(emulator, *people, group=group)
        return preset

    operator.hook.get_preset = read_and_edit
    return operator


@pytest.mark.parametrize("group", ["Directors", "Integration"])
def test_person_added_between_read_and_change_stays(emulator, store, group):
    operator = assign(directors(LEE), mode="apply")
    edited_after_read(emulator, operator, 1, *groups_of(emulator)[group], NORA, group=group)

    row, _ = only(operator.execute({"task_state_store": store}))

    assert row["status"] == "applied"
    assert LEE in groups_of(emulator)["Directors"]
    assert NORA in groups_of(emulator)[group]


def test_person_added_after_the_change_is_not_a_difference(emulator, store):
    operator = assign(directors(LEE), mode="apply")
    update = operator.hook.update_preset_assignees

    def update_then_edit(*args, **kwargs):
        response = update(*args, **kwargs)
        put(emulator, DANA, LEE, NORA)
        return response

    operator.hook.update_preset_assignees = update_then_edit

    assert only(operator.execute({"task_state_store": store}))[0]["status"] == "applied"
    assert groups_of(emulator)["Directors"] == [DANA, LEE, NORA]


def test_person_removed_after_the_change_is_a_difference(emulator, store):
    operator = assign(directors(LEE), mode="apply")
    update = operator.hook.update_preset_assignees

    def update_then_edit(*args, **kwargs):
        response = update(*args, **kwargs)
        put(emulator, LEE)
        return response

    operator.hook.update_preset_assignees = update_then_edit

    with pytest.raises(AirflowFailException, match="PresetConflict: .*missing 90004"):
        operator.execute({"task_state_store": store})


def test_replacing_uses_the_group_right_before(emulator, store):
    operator = edited_after_read(emulator, assign(directors(LEE), members="replace", mode="apply"), 1, DANA, NORA)

    _, group = only(operator.execute({"task_state_store": store}))

    assert group["removed"] == [DANA, NORA]
    assert groups_of(emulator)["Directors"] == [LEE]


def test_plan_is_compared_with_the_group_right_before(emulator, store):
    plan = assign(directors(LEE), members="replace").execute({})
    operator = assign(directors(LEE), members="replace", mode="apply", approved_plan=plan, on_rejected="skip")
    edited_after_read(emulator, operator, 1, DANA, NORA)

    row, _ = only(operator.execute({"task_state_store": store}))

    assert row["status"] == "rejected"
    assert writes(emulator) == []


def test_preset_that_changes_with_every_read_is_left_alone(emulator, store):
    operator = assign(directors(LEE), mode="apply", on_rejected="skip")
    read, others = operator.hook.get_preset, [[NORA], [RITA], [NORA], [RITA], [NORA]]

    def read_and_edit(*args, **kwargs):
        preset = read(*args, **kwargs)
        put(emulator, *others.pop())
        return preset

    operator.hook.get_preset = read_and_edit

    assert only(operator.execute({"task_state_store": store}))[0]["status"] == "rejected"
    assert writes(emulator) == []


@pytest.mark.parametrize("reads", [0, 1, 2])
@pytest.mark.parametrize("members", ["merge", "replace"])
def test_change_that_shows_some_reads_later_is_not_an_edit(emulator, store, reads, members):
    emulator.control("PATCH", "flags", preset_stale_reads=reads)
    operator = assign(directors(LEE), members=members, mode="apply", confirm_timeout=10)

    assert only(operator.execute({"task_state_store": store}))[0]["status"] == "applied"
    assert writes(emulator) == [PRESET]
    assert [method for method, _ in calls(emulator)] == ["GET", "GET", "PATCH", *["GET"] * (reads + 1)]


def test_lost_change_that_shows_some_reads_later_is_reconciled(emulator, store):
    emulator.control("PATCH", "flags", preset_stale_reads=2)
    emulator.control("POST", "faults", method="PATCH", path="/assignees$", reset="after")
    operator = assign(directors(LEE), members="replace", mode="apply", confirm_timeout=10)

    assert only(operator.execute({"task_state_store": store}))[0]["status"] == "applied"
    assert writes(emulator) == [PRESET]


@pytest.mark.parametrize("took_effect", [True, False])
def test_retry_after_a_kill_preserves_members_added_meanwhile(emulator, store, monkeypatch, took_effect):
    operator = assign(directors(LEE), mode="apply")
    update = operator.hook.update_preset_assignees

    def die(*arguments, **named):
        if took_effect:
            update(*arguments, **named)
        raise Killed

    monkeypatch.setattr(operator.hook, "update_preset_assignees", die)
    with pytest.raises(Killed):
        operator.execute({"task_state_store": store})
    put(emulator, *groups_of(emulator)["Directors"], NORA)

    again = assign(directors(LEE), mode="apply").execute({"task_state_store": store})

    assert only(again)[0]["status"] == "applied"
    assert sorted(groups_of(emulator)["Directors"]) == sorted([DANA, LEE, NORA])


@pytest.mark.parametrize("rest", ["preserved", "emptied"])
@pytest.mark.parametrize("groups", ["replace", "merge"])
def test_individual_assignees_survive_a_change_of_groups(emulator, store, rest, groups):
    emulator.control("PATCH", "flags", preset_rest=rest, preset_groups=groups)
    operator = assign(directors(LEE), mode="apply")
    groups = operator.hook.get_preset(PRESET, project_id="1001")["responsible_group_memberships"]
    step_uuid = next(step["uuid"] for step in operator.hook.get_template_version("3011")["steps"])
    logins = [{"id": "90005", "required": False, "role_type": "commenter"}]
    operator.hook.update_preset_assignees(
        PRESET, individual_assignees=[{"step_uuid": step_uuid, "logins": logins}], project_id="1001"
    )

    operator.execute({"task_state_store": store})

    after = operator.hook.get_preset(PRESET, project_id="1001")
    assert after["individual_assignees"] == [{"step_uuid": step_uuid, "logins": logins}]
    assert len(after["responsible_group_memberships"]) == len(groups)


@pytest.mark.parametrize("kind", ["responsible_role", "project_role", "RESPONSIBLE_ROLE"])
def test_group_of_people_is_known_by_any_spelling_of_its_type(emulator, store, kind):
    emulator.control("PATCH", "flags", role_group_type=kind)
    creator = {"preset_id": PRESET, "groups": {"Creator": [LEE]}}

    assert only(assign(directors(LEE)).execute({"task_state_store": store}))[0]["status"] == "change"
    assert only(assign(creator).execute({"task_state_store": store}))[0]["status"] == "rejected"


def test_log_names_each_change_and_as_whom(emulator, store, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="logged")
    monkeypatch.setattr(ProcorePresetAssigneesOperator, "log", logging.getLogger("logged"))

    assign(directors(LEE), members="replace", mode="apply").execute({"task_state_store": store})

    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "INFO" and "user 90001" in r.getMessage()]
    assert all(text in line for text in (PRESET, "1001", "Directors", LEE, DANA))
