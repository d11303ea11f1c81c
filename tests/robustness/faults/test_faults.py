"""Every action, however it is disturbed, is done once, or reports what to check; and what it reports is true."""

from __future__ import annotations

import pytest

from airflow_provider_workflows.version_compat import HAS_TASK_STATE_STORE
from tests.robustness.faults.careless import DENIES, FORGETS, SAYS_DONE, SAYS_NOTHING, TAKES_THE_CREDIT
from tests.robustness.faults.flows import CONSUMED, FLOWS, Flow
from tests.robustness.faults.harness import run_flow
from tests.robustness.faults.reports import DONE, FAILED
from tests.robustness.faults.strikes import AFTER, BEFORE, KILLS, is_end, points

pytestmark = pytest.mark.skipif(
    not HAS_TASK_STATE_STORE, reason="Before Airflow 3.3 a task can keep nothing for its retries."
)
SEED = 1
# One flow of each sort, and of how many points the quick tests run one: its outcome can be read, it cannot, reading
# consumes, reading is rejected, two tries run at once, it waits without a worker, and a person decides in Airflow.
REPRESENTATIVE = {
    ("respond", None): 5,
    ("create task", None): 3,
    ("integration step, function", CONSUMED): 6,
    ("respond, reading rejected", None): 2,
    ("respond, two tries", None): 9,
    ("start, deferrable", None): 9,
    ("decide in Airflow", None): 9,
}


def name_of(flow: Flow) -> str:
    return f"{flow.name}, {flow.mode}".replace(" ", "_")


@pytest.mark.parametrize(
    ("flow", "every"),
    [
        *(
            pytest.param(flow, REPRESENTATIVE[flow.name, flow.mode], id=name_of(flow))
            for flow in FLOWS
            if (flow.name, flow.mode) in REPRESENTATIVE
        ),
        # Every second point of all flows; `make faults` strikes at each.
        *(pytest.param(flow, 2, id=f"{name_of(flow)}-all", marks=pytest.mark.slow) for flow in FLOWS),
    ],
)
def test_disturbed_task_loses_doubles_and_hides_nothing(harness, rows, flow, every):
    row = run_flow(harness, flow, SEED, quick=True, every=every)
    rows.append(row)

    assert row.outcomes
    assert row.violations() == []


@pytest.mark.slow
def test_each_flow_is_killed_at_all_of_its_boundaries(harness):
    total = 0
    for flow in FLOWS:
        model = harness.undisturbed(flow)
        part, whole = (points(flow, model.boundaries, SEED, quick=quick) for quick in (True, False))
        total += len(part)
        if flow.kind != KILLS:
            assert 0 < len(part) < len(whole)
            continue
        assert {first.at for first, *_ in part} == set(range(len(model.boundaries)))
        struck = {(first.at, first.how) for first, *_ in whole}
        for at, label in enumerate(model.boundaries):
            assert (at, BEFORE) in struck
            assert (at, AFTER) in struck or is_end(label)
    assert total >= 300


def test_harness_sees_a_task_that_sends_twice(harness):
    row = run_flow(harness, FORGETS, SEED, quick=True)

    assert sum(outcome.doubled for outcome in row.outcomes.values()) > 0
    assert row.violations()


def test_harness_sees_a_task_that_loses_its_action(harness):
    row = run_flow(harness, SAYS_DONE, SEED, quick=True)

    assert sum(outcome.lost for outcome in row.outcomes.values()) > 0
    assert DONE in {outcome.ended for outcome in row.outcomes.values() if outcome.lost}
    assert row.violations()


def test_harness_sees_a_sensor_that_hides_a_loss(harness):
    row = run_flow(harness, SAYS_NOTHING, SEED, quick=True)

    assert any("does not say so" in why for outcome in row.outcomes.values() for why in outcome.wrong)
    assert FAILED not in {outcome.ended for outcome in row.outcomes.values()}


@pytest.mark.parametrize("flow", [TAKES_THE_CREDIT, DENIES], ids=name_of)
def test_harness_sees_a_task_that_says_what_is_not_so(harness, flow):
    row = run_flow(harness, flow, SEED, quick=True, every=3)

    assert sum(len(outcome.untrue) for outcome in row.outcomes.values()) > 0
    assert row.violations()
