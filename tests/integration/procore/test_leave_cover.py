"""The example that puts deputies in: each cover is requested once, and a cancelled leave stops its own."""

from __future__ import annotations

import datetime

import pytest

from tests.support.examples import once_and_in_full, result, run, states

EXAMPLE = "example_procore_leave_cover"

pytestmark = pytest.mark.usefixtures("airflow_db", "airflow_connections")


def leave(starts_in: int, *, deputy: str = "lee@example.com", days: int = 10, cancelled: bool = False) -> dict:
    first_day = datetime.datetime.now(datetime.timezone.utc).date() + datetime.timedelta(starts_in)
    return {
        "person": "dana@example.com",
        "deputy": deputy,
        "first_day": first_day.isoformat(),
        "last_day": (first_day + datetime.timedelta(days)).isoformat(),
        "cancelled": cancelled,
    }


def cover(*leaves: dict):
    return run(EXAMPLE, leaves=list(leaves))


def replacements(emulator) -> list[dict]:
    sent = [r for r in emulator.requests() if r["path"].endswith("/bulk_replace_requests") and r["method"] == "POST"]
    return [request["body"] for request in sent]


def directors(emulator) -> list[str]:
    presets = emulator.control("GET", "state")["procore_presets"]
    return next(preset["groups"]["Directors"] for preset in presets if preset["id"] == "401")


@once_and_in_full()
def test_each_cover_is_requested_once_and_none_for_the_past(emulator, again):
    leaves = leave(-40), leave(0), leave(30)

    first = cover(*leaves)
    second = cover(*leaves) if again else None

    report = result(first, "report")
    assert sorted(status for _, status in report["requested"]) == ["active", "upcoming"]
    assert report["with_errors"] == report["stopped"] == []
    sent = [
        (request["old_assignee_id"], request["new_assignee_ids"], request["start_date"])
        for request in replacements(emulator)
    ]
    assert sorted(sent) == [("90004", ["90005"], leave["first_day"]) for leave in leaves[1:]]
    assert directors(emulator) == ["lee@example.com"]
    if again:
        assert str(second.state) == "success"
        assert states(second)["cover"] == states(second)["stop"] == ["skipped"]


@pytest.mark.slow
def test_cancelled_leave_stops_its_own_replacement_once(emulator):
    running, later = leave(0), leave(30)
    ids = {status: request_id for request_id, status in result(cover(running, later), "report")["requested"]}

    stopped = cover(running, {**later, "cancelled": True})
    again = cover(running, {**later, "cancelled": True})

    assert result(stopped, "report") == {"requested": [], "with_errors": [], "stopped": [ids["upcoming"]]}
    assert states(again)["stop"] == states(again)["cover"] == ["skipped"]
    assert len(replacements(emulator)) == 2


@pytest.mark.slow
def test_deputy_who_cannot_be_assigned_fails_the_run(emulator):
    wrong = leave(0, deputy="guest@example.com")

    failed = cover(wrong, leave(30))

    assert str(failed.state) == "failed"
    assert states(failed)["cover"] == ["failed", "success"]
    assert directors(emulator) == ["dana@example.com"]

    fixed = cover({**wrong, "deputy": "lee@example.com"}, leave(30))

    assert str(fixed.state) == "success"
    assert directors(emulator) == ["lee@example.com"]
    assert len(replacements(emulator)) == 3
