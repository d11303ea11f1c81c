"""The description of an open wait survives storage, also by another version of the package."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from airflow_provider_workflows.rules.open_wait import OpenWait, current_open_wait


def test_description_survives_storage_as_json():
    wait = OpenWait(
        product="procore", instance_id="7", step="Review", assignees=("pat@example.com",), is_overdue=True, deadline="d"
    )
    assert OpenWait.from_dict(json.loads(json.dumps(wait.to_dict()))) == wait


def test_unknown_values_take_no_space():
    assert OpenWait(product="procore").to_dict() == {"product": "procore", "assignees": []}


def test_fields_of_another_version_are_ignored():
    assert OpenWait.from_dict({"product": "procore", "new_field": 1}) == OpenWait(product="procore")


@pytest.mark.parametrize("stored", [None, "text", [], {}, {"product": 3}])
def test_unreadable_description_is_read_as_none(stored):
    assert OpenWait.from_dict(stored) is None


def test_malformed_assignees_are_unknown():
    wait = OpenWait.from_dict({"product": "procore", "assignees": "pat"})
    assert wait is not None
    assert wait.assignees == ()


def test_stored_description_is_bounded_for_any_names():
    names = tuple(f"{number}{'x' * 1000}" for number in range(500))
    wait = OpenWait("procore", **dict.fromkeys(TEXTS, "é" * 10000), assignees=names, more_assignees=3)

    stored = wait.to_dict()

    assert len(json.dumps(stored)) < 40_000
    assert (len(stored["assignees"]), stored["more_assignees"]) == (20, 483)
    assert "item_url" not in stored


TEXTS = [field.name for field in fields(OpenWait) if field.type == "str | None"]


@pytest.mark.parametrize(
    "change",
    [
        {"step": "Approval"},
        {"since": "2026-01-02"},
        {"due": "2026-01-02"},
        {"assignees": ("dana@example.com",)},
        {"is_overdue": True},
        {"escalation_level": 2},
        {"last_error": "503"},
        {"instance_id": "8"},
        {"try_number": 2},
        {"subject": "complete"},
    ],
    ids=str,
)
def test_fingerprint_differs_when_people_see_a_change(change):
    wait = OpenWait("procore", instance_id="7", step="Review", assignees=("pat@example.com",), try_number=1)

    assert replace(wait, **change).fingerprint != wait.fingerprint


def test_fingerprint_ignores_the_time_and_the_text_of_an_error():
    wait = OpenWait("procore", step="Review", last_error="503 (request id 1)", polled_at="2026-01-01T00:00:00Z")

    later = replace(wait, last_error="503 (request id 2)", polled_at="2026-01-02T00:00:00Z")

    assert later.fingerprint == wait.fingerprint


EARLY, LATE = "2026-01-01T00:00:00.000+00:00", "2026-01-01T00:00:00.001+00:00"


@pytest.mark.parametrize(
    ("stored", "step"),
    [
        (
            [{"step": "of the sensor", "polled_at": EARLY}, {"step": "of the trigger", "polled_at": LATE}],
            "of the trigger",
        ),
        (
            [{"step": "of the sensor", "polled_at": LATE}, {"step": "of the trigger", "polled_at": EARLY}],
            "of the sensor",
        ),
        ([{"step": "now", "try_number": 2}, {"step": "before the clear", "try_number": 1, "polled_at": LATE}], "now"),
        ([{"step": "of the sensor"}, None], "of the sensor"),
    ],
)
def test_current_description_is_the_latest_of_this_try(stored, step):
    found = current_open_wait(
        [row and OpenWait.from_dict({"product": "procore", **row}) for row in stored], try_number=2
    )

    assert found is not None
    assert found.step == step


@pytest.mark.parametrize("stored", [[], [None, None], [OpenWait("procore", try_number=1)]])
def test_without_a_description_of_this_try_the_result_is_none(stored):
    assert current_open_wait(stored, try_number=2) is None
