"""The description of an open wait survives storage, also by another version of the package."""

from __future__ import annotations

import json

import pytest

from airflow_provider_workflows.rules.open_wait import OpenWait


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
def test_unreadable_description_is_none(stored):
    assert OpenWait.from_dict(stored) is None


def test_malformed_assignees_are_unknown():
    wait = OpenWait.from_dict({"product": "procore", "assignees": "pat"})
    assert wait is not None
    assert wait.assignees == ()
