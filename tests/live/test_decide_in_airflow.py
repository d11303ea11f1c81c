"""Decisions in a real Airflow: clicks, a response in Procore, a click that resumes nothing, and a dead triggerer."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.version_compat import RESPONSES_RESUME_DEFERRED
from tests.live.demo import SETTINGS
from tests.support.live_airflow import LiveAirflow

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not RESPONSES_RESUME_DEFERRED, reason="before Airflow 3.3 a click does not resume a task"),
]

DAG = "decided_in_airflow"
TASKS = ("airflow", "procore", "early")


class Finished(NamedTuple):
    """What the tasks returned, what the emulator recorded, and what Airflow's API returned meanwhile."""

    tasks: dict[str, dict[str, Any]]
    responses: dict[str, list[tuple[str, str, str]]]  # via, by and option, by instance
    instances: dict[str, str]
    listed: set[str]  # in Required Actions while all tasks were deferred
    request: dict[str, Any]
    clicks: list[int]
    early_state: str  # of the task when its request had a response


class Clicks:
    """A person in Required Actions, by Airflow's API."""

    def __init__(self, airflow: LiveAirflow, run_id: str):
        self._airflow = airflow
        self._run = f"dags/{DAG}/dagRuns/{run_id}"

    def click(self, task_id: str, option: str, note: str | None) -> int:
        where = f"{self._run}/taskInstances/{task_id}/-1/hitlDetails"
        decision = {"chosen_options": [option], "params_input": {"note": note}}
        return self._airflow._call("PATCH", where, ok=(200, 404, 409), json=decision).status_code

    def required(self) -> dict[str, dict[str, Any]]:
        """Return what Required Actions lists, by task."""
        query = {"state": ["deferred", "awaiting_input"], "response_received": "false"}
        rows = self._airflow._call("GET", f"{self._run}/hitlDetails", params=query).json()["hitl_details"]
        return {row["task_instance"]["task_id"]: row for row in rows}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    dags: Path = tmp_path_factory.mktemp("dags")
    shutil.copy(Path(__file__).parent / "dags" / f"{DAG}.py", dags)
    with Emulator() as emulator:
        started = [
            emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id=str(item))["id"]
            for item in (5101, 5102, 5103)
        ]
        instances = dict(zip(TASKS, started, strict=True))
        with LiveAirflow(dags, {"procore_default": emulator.connection("procore")}, SETTINGS) as airflow:
            airflow.kill("triggerer")
            run_id = airflow.trigger(DAG, instances)
            person = Clicks(airflow, run_id)
            clicks: list[int] = []

            def click_early() -> bool:
                """Click as soon as there is a request, which the worker creates just before it defers."""
                clicks.append(person.click("early", "Return", "Before the request."))
                return clicks[-1] == 200

            airflow.until("the request is there", click_early)
            (early_state,) = [
                task["state"] for task in airflow.task_instances(DAG, run_id) if task["task_id"] == "early"
            ]
            for task_id in ("airflow", "procore"):
                airflow.until_deferred(DAG, run_id, task_id)
            listed = person.required()
            airflow.start("triggerer")
            path = f"procore/instances/{instances['procore']}/respond"
            emulator.control("POST", path, login="integration@example.com", option="Reject")
            both = [
                threading.Thread(target=lambda: clicks.append(person.click("airflow", "Approve", "Fine.")))
                for _ in "ab"
            ]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
            clicks.append(person.click("airflow", "Reject", None))
            airflow.wait(DAG, run_id)
            tasks = airflow.tasks_with_results(DAG, run_id)
            assert person.required() == {}
        responses: dict[str, list[tuple[str, str, str]]] = {name: [] for name in instances.values()}
        for effect in emulator.effects():
            if effect["action"] == "respond":
                found = (effect["via"], effect["by"], effect["detail"]["option"])
                responses[effect["target"]["instance_id"]].append(found)
        yield Finished(tasks, responses, instances, set(listed), listed["airflow"], clicks, early_state)


@pytest.mark.parametrize(
    ("task_id", "where", "by", "option", "via"),
    [
        ("airflow", "airflow", "Anonymous", "Approve", "api"),
        ("procore", "procore", "integration@example.com", "Reject", "user"),
        ("early", "airflow", "Anonymous", "Return", "api"),
    ],
)
def test_each_step_gets_one_response_and_its_task_says_whose(finished, task_id, where, by, option, via):
    task = finished.tasks[task_id]

    assert task["state"] == "success", task["log"][-3000:]
    assert (task["xcom"]["responded_in"], task["xcom"]["responded_by"], task["xcom"]["option"]) == (where, by, option)
    assert finished.responses[finished.instances[task_id]] == [(via, "90001", option)]


def test_open_steps_are_in_required_actions(finished):
    assert {"airflow", "procore"} <= finished.listed
    assert finished.request["options"] == ["Approve", "Return", "Reject"]
    assert r"1\,200 EUR" in finished.request["body"]


def test_click_while_the_task_runs_is_not_lost(finished):
    assert finished.early_state == "running"
    assert finished.tasks["early"]["xcom"]["note"] == "Before the request."


def test_later_click_is_rejected_and_one_of_two_at_once_counts(finished):
    *at_once, later = finished.clicks[-3:]

    assert 200 in at_once  # on SQLite Airflow can accept both
    assert later == 409
