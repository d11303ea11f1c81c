"""Flags about the format of all responses: times, errors, and members and values beyond or below the documents'."""

from __future__ import annotations

from typing import Any

import pytest
import requests

from tests.unit.emulator.conftest import PROJECT

INSTANCE = f"{PROJECT}/workflows/instances/700001"


@pytest.fixture
def read(emulator, procore):
    """Return a function that sets flags and reads a path, whose response the emulator's description may lack."""

    def get(path: str, **flags: Any) -> requests.Response:
        emulator.control("PATCH", "flags", **flags)
        return requests.get(emulator.url + path, headers=dict(procore.session.headers), timeout=10)

    return get


@pytest.mark.parametrize(("side", "end"), [("utc", "Z"), ("milliseconds", ".000Z"), ("offset", "+00:00")])
@pytest.mark.parametrize("path", [INSTANCE, "/rest/v1.0/workflow_instances?company_id=4264807"])
def test_times_have_the_format_of_the_flag(read, side, end, path):
    body = read(path, time_format=side).json()

    row = body[0] if isinstance(body, list) else body["data"]
    time = row.get("started_at") or row["current_state_set_at"]
    assert time[19:] == end


def test_an_error_has_the_format_of_the_flag(read):
    unknown = INSTANCE.replace("700001", "1")

    documented, of_v1, page = (read(unknown, error_body=side) for side in ("documented", "v1", "page"))

    assert [response.status_code for response in (documented, of_v1, page)] == [404, 404, 404]
    assert of_v1.json()["message"] == documented.json()["error"]["message"]
    assert page.text.startswith("<!DOCTYPE html>")
    assert page.headers["Content-Type"] == "text/html"


def test_a_step_lacks_what_older_texts_lack(read):
    step = read(INSTANCE, optional_members="absent").json()["data"]["current_step_occurrence"]

    assert not {"name", "step_histories", "notification_recipients"} & set(step)
    assert all("comment" not in row for row in step["response_occurrences"])


def test_there_may_be_more_members_and_values(read):
    plain = read(f"{INSTANCE}/history").json()["data"]
    more = read(f"{INSTANCE}/history", more_words="more", more_members="more").json()["data"]

    assert len(more["history"]) == len(plain["history"]) + 1
    assert "undocumented" in read(INSTANCE).json()["data"]
