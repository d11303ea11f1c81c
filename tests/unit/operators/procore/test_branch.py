"""A branch on the outcome of a workflow: by its decision, its item's status, its state; never by a guess."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import DAG, TaskGroup

from airflow_provider_workflows.exceptions import ConfigurationError, OutcomeUnclear
from airflow_provider_workflows.operators.procore import ProcoreBranchOnOutcomeOperator, outcome_names
from airflow_provider_workflows.sensors.procore import ProcoreInstanceSensor
from airflow_provider_workflows.sensors.procore_legacy import ProcoreLegacyInstanceSensor
from airflow_provider_workflows.version_compat import SKIPS_IN_MAPPED_GROUPS
from tests.support import examples
from tests.support.examples import run_source
from tests.unit.operators.procore.test_respond import INSTANCE, respond_as_user
from tests.unit.operators.procore_legacy.test_perform_activity import INSTANCE as LEGACY_INSTANCE

pytestmark = pytest.mark.compat


def decision(option: str | None, *candidates: str, **more: Any) -> dict[str, Any]:
    reported = {"option": option, "type": None, "by": "dana@example.com", "at": "2026-01-01T00:00:00Z"}
    problem = "unknown which decided" if candidates else None
    return {**reported, "source": "overall_response", "candidates": list(candidates), "problem": problem, **more}


COMPLETE = {
    "instance_id": "7",
    "state": "complete",
    "item_status": "Approved",
    "decision": decision("Approve with comments"),
    "last_response": {"option": "Reject", "type": "reject"},
    "ambiguous": [],
    "occurrence": None,
}
LEGACY = {"instance_id": "9", "state": "Pending Signature", "status": "Out For Signature", "terminated_at": None}


def choose(outcome: Any, branches: dict[str, Any], default: Any = None) -> Any:
    """Return what the operator continues with, in a DAG that has all these tasks."""
    with DAG("any", schedule=None) as dag:
        operator = ProcoreBranchOnOutcomeOperator(task_id="branch", outcome=outcome, branches=branches, default=default)
    for name in ("a", "b", "c", "other"):
        ProcoreBranchOnOutcomeOperator(task_id=name, outcome=None, branches={}, dag=dag)
    return operator.choose_branch({})


@pytest.mark.parametrize(
    ("outcome", "names"),
    [
        (COMPLETE, ["Approve with comments", "Approved", "complete"]),
        ({**COMPLETE, "decision": None, "item_status": None}, ["complete"]),
        ({**COMPLETE, "decision": decision(None, type="reject")}, ["reject", "Approved", "complete"]),
        ({**COMPLETE, "state": "overdue", "item_status": "In Review"}, ["In Review", "overdue"]),
        ({**COMPLETE, "state": "terminated"}, ["terminated"]),
        ({**COMPLETE, "state": "ended"}, ["ended"]),
        (
            {**COMPLETE, "state": "in_progress", "item_status": None, "occurrence": {"decision": decision("Return")}},
            ["Return", "in_progress"],
        ),
        ({**COMPLETE, "occurrence": {"decision": decision("Return")}}, ["Return", "Approved", "complete"]),
        ({**COMPLETE, "occurrence": {"decision": None}}, ["Approve with comments", "Approved", "complete"]),
        (LEGACY, ["Pending Signature", "Out For Signature"]),
        ({**LEGACY, "terminated_at": "2026-01-01T00:00:00Z"}, ["terminated"]),
    ],
)
def test_outcome_is_named_by_response_then_item_status_then_state(outcome, names):
    assert outcome_names(outcome) == names


def test_response_in_flight_is_not_an_outcome_when_terminated():
    terminated = {**COMPLETE, "state": "terminated"}

    assert choose(terminated, {"Approve with comments": "a", "Approved": "a", "Terminated": "b"}) == ["b"]


def test_the_first_name_that_has_a_branch_decides_in_any_case():
    assert choose(COMPLETE, {"complete": "a", " APPROVED ": "b"}) == ["b"]
    assert choose(COMPLETE, {"approved": "b", "approve WITH comments": ["a", "c"]}) == ["a", "c"]
    assert choose(LEGACY, {"out for signature": "a", "pending signature": "b"}) == ["b"]


def test_outcome_without_a_branch_takes_the_default():
    assert choose(COMPLETE, {"Rejected": "a"}, default="other") == ["other"]
    assert choose(COMPLETE, {"Rejected": "a"}, default=[]) == []


def test_an_outcome_without_a_branch_is_named_with_the_branches():
    message = "'Approve with comments' / 'Approved' / 'complete' of instance 7. Branches: 'Rejected', 'terminated'"
    with pytest.raises(ConfigurationError, match=message):
        choose(COMPLETE, {"Rejected": "a", "terminated": "b"})


UNDECIDED = {**COMPLETE, "item_status": "Rejected", "decision": decision(None, "Approve", "Reject", source=None)}
CONTRADICTING = {
    **COMPLETE,
    "item_status": "Rejected",
    "decision": decision("Approve", "Approve", problem="'Approve' contradicts 'Rejected'"),
}


@pytest.mark.parametrize(
    ("outcome", "branches"),
    [
        (UNDECIDED, {"Approve": "a", "Reject": "b"}),
        (UNDECIDED, {"reject": "b"}),
        (UNDECIDED, {"Approved": "a", "Rejected": "b"}),
        (CONTRADICTING, {"Approve": "a", "Reject": "b"}),
        (CONTRADICTING, {"Approved": "a", "Rejected": "b"}),
        ({**COMPLETE, "occurrence": {"decision": CONTRADICTING["decision"]}}, {"Approve": "a"}),
        ({**COMPLETE, "decision": None, "item_status": None, "ambiguous": ["item_status"]}, {"Approved": "a"}),
        ({**COMPLETE, "decision": None, "item_status": None, "ambiguous": ["item_status"]}, {"complete": "a"}),
    ],
)
def test_outcome_that_is_not_clear_takes_no_branch(outcome, branches):
    for default in (None, "other"):
        with pytest.raises(OutcomeUnclear) as error:
            choose(outcome, branches, default=default)
    assert repr(outcome["item_status"]) in str(error.value)
    candidates = ((outcome["occurrence"] or outcome)["decision"] or {"candidates": []})["candidates"]
    assert all(repr(candidate) in str(error.value) for candidate in candidates)
    with pytest.raises(OutcomeUnclear):
        outcome_names(outcome)


def test_branches_on_what_is_clear_are_taken():
    assert choose(UNDECIDED, {"complete": "a", "terminated": "b"}) == ["a"]
    assert choose({**UNDECIDED, "state": "terminated"}, {"Approve": "a", "terminated": "b"}) == ["b"]
    assert choose({**UNDECIDED, "state": "overdue"}, {"overdue": "a", "Approve": "b"}) == ["a"]
    of_status_unknown = {**COMPLETE, "item_status": None, "ambiguous": ["item_status"]}
    assert choose(of_status_unknown, {"approve with comments": "a"}) == ["a"]


def test_unclear_outcome_is_not_retried():
    with DAG("any", schedule=None):
        operator = ProcoreBranchOnOutcomeOperator(
            task_id="branch", outcome=UNDECIDED, branches={"Approve": "branch"}, retries=3
        )

    with pytest.raises(AirflowFailException, match="OutcomeUnclear"):
        operator.execute({})


def test_log_names_the_decision_and_what_is_skipped(capsys):
    choose(COMPLETE, {"Approved": "a"})
    (chosen,) = (line for line in capsys.readouterr().out.splitlines() if "continuing with a" in line)
    choose(COMPLETE, {"Rejected": "a"}, default=[])
    (skipped,) = (line for line in capsys.readouterr().out.splitlines() if "skipped" in line)

    assert "'Approve with comments' by dana@example.com" in chosen
    assert all("instance 7" in line and "'Approved'" in line for line in (chosen, skipped))


NO_OUTCOMES = [
    *(None, "complete", [COMPLETE], {"instance_id": "7"}, {"dry_run": False}, {"state": None}),
    *({**COMPLETE, "decision": wrong} for wrong in ("Approve", {"option": "Approve", "type": "approve"})),
    *({**COMPLETE, "occurrence": wrong} for wrong in ("x", {"decision": "Approve"})),
    {**COMPLETE, "ambiguous": None},
]


@pytest.mark.parametrize("outcome", NO_OUTCOMES, ids=str)
def test_a_value_that_is_not_an_outcome_is_named(outcome):
    with pytest.raises(ConfigurationError, match="outcome must be the result of ProcoreInstanceSensor"):
        outcome_names(outcome)
    with pytest.raises(ConfigurationError, match="outcome must be the result of ProcoreInstanceSensor"):
        choose(outcome, {"Approved": "a"}, default="b")


def test_a_branch_to_a_task_that_does_not_exist_is_named():
    with pytest.raises(ConfigurationError, match="there is no task or task group 'nowhere' in DAG 'any'"):
        choose(COMPLETE, {"Approved": "nowhere"})


def test_branch_to_an_unknown_task_is_rejected_at_once():
    with pytest.raises(ConfigurationError, match="there is no task or task group 'nowhere'"):
        choose(COMPLETE, {"Approved": "a", "terminated": "nowhere"})
    with pytest.raises(ConfigurationError, match="there is no task or task group 'nowhere'"):
        choose(COMPLETE, {"Approved": "a"}, default="nowhere")
    with pytest.raises(ConfigurationError, match="branches must be .name of an outcome"):
        choose(COMPLETE, {"Approved": None})


def test_outcome_that_is_named_twice_is_rejected():
    with pytest.raises(ConfigurationError, match="branches: 'Approve', 'approve ' are the same outcome"):
        choose(COMPLETE, {"Approve": "a", "approve ": "b", "Reject": "c"})


def test_mapped_branch_is_rejected():
    with DAG("any", schedule=None):
        operator = ProcoreBranchOnOutcomeOperator(task_id="branch", outcome=COMPLETE, branches={"Approved": "branch"})

    with pytest.raises(ConfigurationError, match="runs the tasks that a mapped branch did not choose"):
        operator.choose_branch({"ti": SimpleNamespace(map_index=0)})


def test_a_name_means_the_nearest_task_of_that_name():
    def branch(task_id: str) -> ProcoreBranchOnOutcomeOperator:
        return ProcoreBranchOnOutcomeOperator(
            task_id=task_id, outcome=COMPLETE, branches={"complete": ["near", "far", "outside", "outer.inner"]}
        )

    with DAG("any", schedule=None):
        branch("outside")
        branch("near")
        with TaskGroup("outer"):
            branch("far")
            with TaskGroup("inner"):
                operator = branch("branch")
                branch("near")

    assert operator.choose_branch({}) == ["outer.inner.near", "outer.far", "outside", "outer.inner"]


@pytest.mark.usefixtures("airflow_connections")
def test_the_results_of_both_sensors_are_outcomes(emulator):
    respond_as_user(emulator, "integration@example.com", "Approve")
    respond_as_user(emulator, "dana@example.com", "Reject")
    ended = ProcoreInstanceSensor(task_id="outcome", instance_id=INSTANCE).execute({})
    assert (ended["state"], outcome_names(ended)[0], ended["decision"]["option"]) == ("complete", "Reject", "Reject")
    assert choose(ended, {"Reject": "a", "Approve": "b"}) == ["a"]

    legacy = ProcoreLegacyInstanceSensor(task_id="legacy", instance_id=LEGACY_INSTANCE, until=["Start"]).execute({})
    assert choose(legacy, {"start": "c"}) == ["c"]


FLOW = """
from airflow.sdk import dag, task, task_group
from airflow_provider_workflows.operators.procore import ProcoreBranchOnOutcomeOperator


@dag(schedule=None)
def branches():
    @task
    def outcomes():
        row = {"instance_id": "7", "state": "complete", "item_status": "Approved", "last_response": None}
        return [row, {**row, "item_status": "Rejected"}, {**row, "state": "terminated"}]

    @task_group
    def decided(outcome):
        branch = ProcoreBranchOnOutcomeOperator(
            task_id="branch", outcome=outcome, branches={"Approved": "buy", "Rejected": "tell"}, default=[]
        )

        @task
        def buy(): ...

        @task
        def tell(): ...

        branch >> [buy(), tell()]

    decided.expand(outcome=outcomes())


branches()
"""


@pytest.mark.usefixtures("airflow_db")
def test_in_a_mapped_group_no_task_runs_that_was_not_chosen(monkeypatch, tmp_path):
    flow = run_source("branches", FLOW, monkeypatch, tmp_path)

    states = {
        (task_instance.task_id, task_instance.map_index): str(task_instance.state)
        for task_instance in flow.get_task_instances()
    }
    found = [[states[f"decided.{name}", index] for index in range(3)] for name in ("branch", "buy", "tell")]
    if not SKIPS_IN_MAPPED_GROUPS:
        assert found == [["failed"] * 3, ["upstream_failed"] * 3, ["upstream_failed"] * 3]
        return
    assert found == [
        ["success", "success", "success"],
        ["success", "skipped", "skipped"],
        ["skipped", "success", "skipped"],
    ]


@pytest.mark.usefixtures("airflow_db", "airflow_connections")
@pytest.mark.parametrize(
    ("director", "followed"),
    [
        ("Approve", {"buy.order_the_goods", "buy.book_the_cost"}),
        pytest.param("Reject", {"notify_the_buyer"}, marks=pytest.mark.slow),
        pytest.param(None, {"notify_the_buyer", "notify_the_director"}, marks=pytest.mark.slow),
    ],
)
def test_example_follows_the_decision(emulator, director, followed):
    respond_as_user(emulator, "integration@example.com", "Approve")
    if director is None:
        emulator.control("POST", f"procore/instances/{INSTANCE}/terminate", login="pat@example.com")
    else:
        respond_as_user(emulator, "dana@example.com", director)

    states = examples.states(examples.run("example_procore_branch_on_outcome"))

    branches = {"buy.order_the_goods", "buy.book_the_cost", "notify_the_buyer", "notify_the_director"}
    assert {name for name in branches if states[name] == ["success"]} == followed
    assert {name for name in branches if states[name] == ["skipped"]} == branches - followed
