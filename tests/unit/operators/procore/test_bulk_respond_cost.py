"""What many responses cost: how many requests, and how long the rate limit makes them take."""

from __future__ import annotations

from collections import Counter
from math import ceil

import pytest

from tests.support.stepped_time import SteppedTime
from tests.unit.operators.procore.test_bulk_respond import apply, plan_of, responses, start

pytestmark = [pytest.mark.compat, pytest.mark.usefixtures("airflow_connections")]

SPIKE = 25  # requests in 10 seconds, as documented


@pytest.fixture
def clock(monkeypatch) -> SteppedTime:
    return SteppedTime(monkeypatch)


def requests_of(emulator, before: int) -> Counter[str]:
    """Return how many requests of each kind were counted by the rate limit since then."""
    kinds = {"/responses": "respond", "/bulk_history": "bulk history", "/instances": "list", "/me": "me"}
    found = [r for r in emulator.requests(since=before) if r["path"].startswith("/rest/")]
    return Counter(next((kind for end, kind in kinds.items() if r["path"].endswith(end)), "show") for r in found)


def seconds_at_least(requests: int, hourly: int = 3600) -> float:
    """Return how long so many requests take at least, if nothing else is sent."""
    hours, rest = divmod(requests - 1, hourly)
    return hours * 3600 + rest // SPIKE * 10.0


def last_request(emulator) -> int:
    return max((r["n"] for r in emulator.requests()), default=0)


@pytest.mark.parametrize(
    ("count", "hourly"),
    [
        (200, 3600),
        pytest.param(1000, 3600, marks=pytest.mark.slow),
        pytest.param(1000, 600, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("headers", ["when_on", pytest.param("never", marks=pytest.mark.slow)])
def test_responses_take_hardly_longer_than_the_limit_allows(emulator, clock, store, count, hourly, headers):
    ids = start(emulator, count)
    emulator.control("PATCH", "flags", rate_limit="on", hourly_limit=hourly, rate_headers=headers)

    result = apply(dict.fromkeys(ids, "Approve"), store=store, max_responses=count)

    assert (result["sent"], result["unconfirmed"], len(responses(emulator))) == (count, 0, count)
    assert clock.elapsed <= 1.2 * seconds_at_least(count, hourly)


def test_reads_are_few_and_all_of_the_limit_is_used(emulator, clock, store):
    ids = start(emulator, 200)
    emulator.control("PATCH", "flags", rate_limit="on")
    before = last_request(emulator)

    apply(dict.fromkeys(ids, "Approve"), store=store, max_responses=200)
    sent = requests_of(emulator, before)

    # Pages of 100 (there is another instance), 50 histories in a request, before and after; one is read in both ways.
    assert sent == {"me": 1, "show": 1, "list": 3, "bulk history": 8, "respond": 200}
    assert clock.elapsed <= ceil(sent.total() / SPIKE) * 10


def test_approved_plan_is_applied_without_listing(emulator, clock, store):
    ids = start(emulator, 60)
    plan = plan_of(dict.fromkeys(ids, "Approve"), max_responses=60)
    before = last_request(emulator)

    apply(plan=plan, store=store)

    assert requests_of(emulator, before) == {"me": 1, "show": 1, "bulk history": 4, "respond": 60}


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "flags",
    [
        {"bulk_history": "absent"},
        {"bulk_history": "no_instance_ids"},
        {"history_step_id": "step"},
        {"hidden_events": "responses"},
        {"hidden_events": "response_steps"},
        {"history": "absent", "bulk_history": "not_allowed"},
        {"history": "events_only"},
        {"history_labels": "status"},
        {"filters": "ignored"},
        {"transition": "delayed", "transition_delay": 0.05},
        {"transition": "in_between", "transition_delay": 0.05},
        {"bulk_history_limit": 3},
        {"page_limit": "50"},
        {"tools_list": "forbidden"},
    ],
    ids=lambda flags: " ".join(f"{name}={value}" for name, value in flags.items()),
)
def test_open_questions_change_the_cost_and_not_the_result(emulator, store, flags):
    ids = start(emulator, 8)
    emulator.control("PATCH", "flags", **flags)

    result = apply(dict.fromkeys(ids, "Approve"), store=store)

    assert responses(emulator) == [(each, "Approve") for each in ids]
    assert (result["sent"], result["unknown"]) == (8, 0)
