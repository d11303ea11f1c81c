"""Every action, killed before and after each request and each note it makes, is done once, or says what to look for."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.version_compat import HAS_TASK_STATE_STORE
from tests.robustness.faults.careless import FORGETS, SAYS_DONE, SAYS_NOTHING
from tests.robustness.faults.flows import FLOWS
from tests.robustness.faults.harness import AFTER, BEFORE, DONE, FAILED, points, run_flow

pytestmark = pytest.mark.skipif(
    not HAS_TASK_STATE_STORE, reason="Before Airflow 3.3 a task can keep nothing for its retries."
)
SEED = 1


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: f"{flow.name}, {flow.mode}".replace(" ", "_"))
def test_whenever_a_try_dies_nothing_is_lost_doubled_or_silent(harness, rows, flow):
    row = run_flow(harness, flow, SEED, quick=True)
    rows.append(row)

    assert row.violations() == []


def test_each_flow_is_struck_at_all_of_its_boundaries_and_before_and_after_each_in_the_whole_run(harness):
    total = 0
    for flow in FLOWS:
        model = harness.undisturbed(flow)
        part, whole = (points(flow, model, SEED, quick=quick) for quick in (True, False))
        total += len(part)
        assert {first.at for first, *_ in part} == set(range(len(model.boundaries)))
        struck = {(first.at, first.how) for first, *_ in whole}
        for at, label in enumerate(model.boundaries):
            assert (at, BEFORE) in struck
            assert (at, AFTER) in struck or label.startswith("end of")
    assert total >= 300


def test_a_task_that_forgets_what_it_has_sent_is_seen_to_do_it_twice(harness):
    row = run_flow(harness, FORGETS, SEED, quick=True)

    assert sum(outcome.doubled for outcome in row.outcomes.values()) > 0
    assert row.violations()


def test_a_task_that_notes_too_early_that_it_is_done_is_seen_to_lose_it(harness):
    row = run_flow(harness, SAYS_DONE, SEED, quick=True)

    assert sum(outcome.lost for outcome in row.outcomes.values()) > 0
    assert DONE in {outcome.ended for outcome in row.outcomes.values() if outcome.lost}
    assert row.violations()


def test_a_sensor_that_does_not_say_what_it_has_lost_is_seen_to_be_silent(harness):
    row = run_flow(harness, SAYS_NOTHING, SEED, quick=True)

    assert any("does not say so" in why for outcome in row.outcomes.values() for why in outcome.wrong)
    assert FAILED not in {outcome.ended for outcome in row.outcomes.values()}
