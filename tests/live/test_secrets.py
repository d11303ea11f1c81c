"""A real Airflow that logs all it can: after every example, and every failure, no secret is anywhere."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.fernet import Fernet

from airflow_provider_workflows.emulator import Emulator, control_api
from airflow_provider_workflows.emulator.procore import gateway
from airflow_provider_workflows.emulator.state import EmulatorState
from airflow_provider_workflows.emulator.workflowsoft import routes as workflowsoft
from tests.robustness.secrets.connections import failing_connections, new_secret
from tests.robustness.secrets.failures import PROCORE, WORKFLOWSOFT
from tests.robustness.secrets.scanner import Sampler, Scanner, database, files
from tests.robustness.secrets.servers import Hostile, OtherHost
from tests.support.engines import postgresql
from tests.support.examples import EXAMPLES, NEEDS
from tests.support.live_airflow import ENDED, POLL_SECONDS, LiveAirflow
from tests.support.versions import AIRFLOW

pytestmark = pytest.mark.live
DAGS = Path(__file__).parents[1] / "robustness" / "secrets"
NAMES = {path.stem for path in EXAMPLES.glob("example_*.py") if NEEDS.get(path.stem, AIRFLOW) <= AIRFLOW}
# Other examples would take what these need, if these started at once.
BY_EVENTS = {"example_procore_event_driven_approval", "example_workflowsoft_event_driven_integration"}
TASKFLOW = "example_procore_taskflow_approval"
LATER = {*BY_EVENTS, "example_procore_fan_out", TASKFLOW}
STARTS_ORDERS = "example_procore_follow_the_erp"
# These wait for no person, and change what the others wait for.
ALONE = {
    STARTS_ORDERS,
    "example_procore_before_you_switch",
    "example_procore_leave_cover",
    "example_procore_nightly_audit_export",
    "example_workflowsoft_check_names",
    "example_workflowsoft_data_quality",
}
BY_HAND = {
    "example_both_products",
    "example_procore_before_you_switch",
    "example_procore_branch_on_outcome",
    "example_procore_item_approval",
    "example_procore_legacy_purchase_order_approval",
    "example_procore_overdue_escalation",
    "example_procore_purchase_order_approval",
    "example_workflowsoft_integration_step",
    "failures",
    "planted",
}
TOOL = "purchase_order_contract"
DAY = 24 * 3600
THINKING = 6.0  # seconds that people take, so that there is something to wait for
FERNET_KEY = Fernet.generate_key().decode()
SIGN_IN = "AuthenticationError|SignInFailed"  # the second is for one without a token
FAILURES = {
    **dict.fromkeys((*PROCORE, *WORKFLOWSOFT), SIGN_IN),
    **{
        name: "ConfigurationError"
        for name in PROCORE
        if name.startswith(("ready_token_in", "ready_token_as", "secret"))
    },
    "extra_is_not_json": "ConfigurationError",
    "secret_in_a_proxy": "ConnectionFailed",
    "invalid": "InvalidRequest",
    "failing": "ServerError",
    "moved": "UnexpectedResponse",
    "linking": "UnexpectedResponse",
    "lost": "OutcomeUnknown",
    "connection_is_missing": "nowhere",
    "a_hook_at_hand": "ValueError",
    "a_callable_of_an_integration_step": "ValueError",
    "upload_to_another_host": "UploadFailed",
    "deferred": SIGN_IN,
    "deferred_with_a_stored_connection": SIGN_IN,
    "deferred_at_a_step": SIGN_IN,
}
SETTINGS = {
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "5",
    "AIRFLOW__CORE__FERNET_KEY": FERNET_KEY,
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
    "AIRFLOW__LOGGING__NAMESPACE_LEVELS": "urllib3=DEBUG requests=DEBUG http=DEBUG",
    "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "AIRFLOW__WORKFLOWS__POKE_INTERVAL": "2",
    "AIRFLOW__WORKFLOWS__REJECTION_PATIENCE": "0",  # so that a rejected sign-in fails its task soon
}


def ended(runs: dict[str, str]) -> set[str]:
    """Return how runs have ended; on the hour a schedule starts another one."""
    return ENDED & set(runs.values())


class Story:
    """What people do in the products until every example has ended."""

    def __init__(self, emulator: Emulator, airflow: LiveAirflow):
        self.emulator = emulator
        self.airflow = airflow
        self._first_seen: dict[str, float] = {}
        self._leave = threading.Event()
        self._executor = ThreadPoolExecutor(1)

    def __enter__(self) -> Story:
        self._people = self._executor.submit(self._work)
        return self

    def __exit__(self, *failure: object) -> None:
        self._leave.set()
        self._executor.shutdown()

    def _work(self) -> None:
        while not self._leave.wait(POLL_SECONDS):
            state = self.emulator.control("GET", "state")
            for row in state["procore"]:
                # 5002 stays with Dana, so that it is overdue.
                person = next((login for login in row["waits_for"] if login.startswith(("dana", "rita"))), None)
                alone = row["waits_for"] == [person] and row["item_id"] != "5002"
                if alone and self._have_thought(row["step_occurrence_id"]):
                    self.respond(row["id"], person)
            for row in state["procore_legacy"]:
                if row["state"] == "Pending Approval" and self._have_thought(row["id"]):
                    where = f"procore/legacy/instances/{row['id']}/perform"
                    self.emulator.control("POST", where, login="rita@example.com", activity="Approve")
            self._approve_in_airflow()

    def _approve_in_airflow(self) -> None:
        """Approve what waits in Airflow's Required Actions, and only there."""
        where = "dags/~/dagRuns/~/hitlDetails"
        for request in self.airflow.all_rows(where, "hitl_details", response_received="false"):
            task = request["task_instance"]
            is_open = task["state"] == "awaiting_input" and self._have_thought(task["id"])
            names = task["dag_id"], task["dag_run_id"], task["task_id"]
            if is_open and self.airflow.worker_has_ended(*names):
                run = f"dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}"
                approval = {"chosen_options": request["options"][:1], "params_input": {}}
                of_task = f"{run}/taskInstances/{task['task_id']}/{task['map_index']}/hitlDetails"
                self.airflow._call("PATCH", of_task, json=approval)

    def _have_thought(self, about: str) -> bool:
        return time.monotonic() - self._first_seen.setdefault(about, time.monotonic()) >= THINKING

    def respond(self, instance_id: str, login: str) -> None:
        self.emulator.control("POST", f"procore/instances/{instance_id}/respond", login=login, option="Approve")

    def start(self, item_id: str, tool_type: str = TOOL) -> str:
        started = self.emulator.control("POST", "procore/instances", tool_type=tool_type, item_id=item_id)
        return str(started["id"])

    def start_process(self, diagram: str, **fields: Any) -> str:
        started = self.emulator.control("POST", "workflowsoft/processes", diagram=diagram, fields=fields)
        return str(started["integration_instance_id"])

    def responded(self) -> set[str]:
        """Return the items to which the integration has responded."""
        own = [e for e in self.emulator.effects() if (e["action"], e["via"]) == ("respond", "api")]
        return {effect["target"]["item_id"] for effect in own}

    def until(self, what: str, is_true: Callable[[], bool]) -> None:
        """Wait until something is true, as long as people work and no example has failed."""

        def check() -> bool:
            if self._people.done():
                self._people.result()  # raises what ended it
            for run in self.airflow.all_rows("dags/~/dagRuns", "dag_runs", state="failed"):
                dag_id = run["dag_id"]
                assert dag_id not in NAMES, f"{what}: {dag_id}: {self.airflow.failures(dag_id, run['dag_run_id'])}"
            return is_true()

        self.airflow.until(what, check, interval=1.0)

    def start_dag(self, dag_id: str, conf: dict[str, str] | None = None) -> None:
        """Let a DAG run, once where it has no schedule."""
        if dag_id in BY_HAND:
            self.airflow.trigger(dag_id, conf)
        else:
            self.airflow.unpause(dag_id)

    def has_ended(self, dag_id: str) -> bool:
        return bool(ended(self.airflow.runs(dag_id)))


def play(story: Story) -> None:
    """Let every example and every failure come to its end."""
    with_dana = story.start("5002")
    story.respond(with_dana, "integration@example.com")
    story.emulator.control("POST", "clock", advance=4 * DAY)
    blocked = story.start("8001", "generic_tool_item")
    block = f"procore/instances/{blocked}/block"
    story.emulator.control("POST", block, reason="The role has no members.", retriable=True)
    story.start_process("Event planning")
    story.start_process("Vendor onboarding", Vendor="Example Supplies")
    story.start_process("Purchase request", **{"Purchase order id": 5003})
    in_review = story.start_process("Contract review")
    for dag_id in sorted(NAMES - LATER - ALONE):
        story.start_dag(dag_id)
    story.start_dag("failures", {"integration_instance_id": in_review})
    story.until("two orders have responses", lambda: story.responded() >= {"5001", "5003"})
    story.start("5011")
    story.start_dag("example_procore_fan_out")
    story.start_dag("planted")
    story.until("the order has a response", lambda: "5011" in story.responded())
    story.until("the event is checked", lambda: story.has_ended("example_workflowsoft_integration_step"))
    # All who wait for people have their decisions, before assignees change.
    for dag_id in sorted(NAMES - LATER - ALONE):
        story.until(f"{dag_id} ends", lambda dag_id=dag_id: story.has_ended(dag_id))
    story.start("5001")
    for dag_id in sorted(ALONE - {STARTS_ORDERS} | {TASKFLOW}):
        story.start_dag(dag_id)
    # This one has a price for the order, and would wait for the prices of those that another example starts.
    story.until("a function has responded", lambda: story.has_ended(TASKFLOW))
    for dag_id in sorted({STARTS_ORDERS, *BY_EVENTS}):
        story.start_dag(dag_id)
    story.start("5012")
    story.start_process("Event planning")
    for dag_id in NAMES | {"planted", "failures"}:
        story.until(f"{dag_id} ends", lambda dag_id=dag_id: story.has_ended(dag_id))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Everything that the run left behind, without what the connections in the environment say."""
    folder = tmp_path_factory.mktemp("secrets")
    dags = folder / "dags"
    shutil.copytree(EXAMPLES, dags)
    for name in ("failures.py", "planted.py"):
        shutil.copy(DAGS / name, dags)
    with contextlib.ExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        secret = {"client secret": new_secret(), "administrator's password": new_secret()}
        issued: list[str] = []
        issue = EmulatorState.issue

        def issue_and_store(state: EmulatorState, store: dict[str, float], lifetime: float) -> str:
            issued.append(issue(state, store, lifetime))
            return issued[-1]

        patched.setattr(EmulatorState, "issue", issue_and_store)
        for module in (gateway, control_api):
            patched.setattr(module, "CLIENT_SECRET", secret["client secret"])
        for module in (workflowsoft, control_api):
            patched.setattr(module, "ADMIN_PASSWORD", secret["administrator's password"])
        other = stack.enter_context(OtherHost())
        hostile = stack.enter_context(Hostile(other))
        emulator = stack.enter_context(Emulator())
        signed = secret.setdefault("signature", secrets.token_hex(20))
        target = {"url": f"{other.url}/bucket/plan?X-Amz-Signature={signed}", "headers": {}}
        upload = {"data": {"upload_id": "u1", "segments": [target]}}
        emulator.control("POST", "faults", method="POST", path="/uploads$", status=201, json=upload, times=100)
        emulator.control("PATCH", "flags", new_integration_shape="list")
        connections = {
            **{f"{kind}_default": emulator.connection(kind) for kind in ("procore", "workflowsoft")},
            **failing_connections(emulator, hostile, secret),
        }
        airflow = stack.enter_context(
            LiveAirflow(dags, connections, SETTINGS, database=stack.enter_context(postgresql()))
        )
        stored = {**connections["later"], "password": secret.setdefault("stored", new_secret())}
        order = {"connection_id": "stored_later", **stored, "extra": json.dumps(stored["extra"])}
        airflow._call("POST", "connections", ok=(201,), json=order)
        with Sampler(airflow.database, FERNET_KEY) as sampler, Story(emulator, airflow) as story:
            play(story)
        secret |= {f"token {number} of the emulator": token for number, token in enumerate(issued)}
        secret |= {f"token {number} of the hostile server": token for number, token in enumerate(hostile.tokens)}
        scanner = Scanner(secret)
        runs = {dag_id: airflow.runs(dag_id) for dag_id in [*NAMES, "failures", "planted"]}
        (failed_run,) = runs["failures"]
        failures = airflow.task_instances("failures", failed_run)
        last_try = {task["task_id"]: task["try_number"] for task in failures}
        yield SimpleNamespace(
            scanner=scanner,
            secret=secret,
            runs=runs,
            failures=failures,
            # On a busy machine Airflow can fail a try before its task starts; another try then fails as expected.
            errors=lambda task_id: [
                airflow.log("failures", failed_run, task_id, number) for number in range(1, last_try[task_id] + 1)
            ],
            in_files=scanner.find_in(files(airflow.home)),
            in_rows=scanner.find_in(database(airflow.database, FERNET_KEY)),
            sampler=sampler,
            other=other,
            emulator=emulator,
        )


def without_planted(found: list[str]) -> list[str]:
    return [line for line in found if not line.endswith(": planted")]


def test_every_example_succeeds(traces):
    assert {dag_id: ended(traces.runs[dag_id]) for dag_id in NAMES} == {dag_id: {"success"} for dag_id in NAMES}


def test_every_failure_is_the_expected_one(traces):
    assert {task["task_id"]: task["state"] for task in traces.failures} == dict.fromkeys(FAILURES, "failed")
    messages = {task_id: "\n".join(traces.errors(task_id)) for task_id in FAILURES}
    assert {task_id: text[-2000:] for task_id, text in messages.items() if not re.search(FAILURES[task_id], text)} == {}


def test_no_log_and_no_other_file_shows_a_secret(traces):
    assert without_planted(traces.in_files) == []


def test_no_value_of_the_database_shows_a_secret(traces):
    assert without_planted(traces.in_rows) == []


def test_no_trigger_shows_a_secret(traces):
    assert traces.sampler.triggers
    assert traces.scanner.find_in(traces.sampler.triggers) == []


def test_no_argument_of_a_process_shows_a_secret(traces):
    assert any(b"airflow" in line for line in traces.sampler.arguments)
    assert traces.scanner.find_in(("process", line) for line in traces.sampler.arguments) == []


def test_the_emulators_record_of_requests_shows_no_secret(traces):
    recorded = json.dumps(traces.emulator.requests()).encode()

    assert traces.scanner.find(recorded) == set()


def test_another_host_receives_the_file_and_no_token(traces):
    (stored,) = traces.other.received

    assert (stored["method"], stored["body"]) == ("PUT", "a plan")
    assert "Authorization" not in stored["headers"]
    assert traces.scanner.find(json.dumps(stored).encode()) == {"signature"}


def test_a_secret_that_a_dag_prints_is_found(traces):
    planted = [line for line in traces.in_files if line.endswith(": planted")]

    assert any("dag_id=planted" in line for line in planted)
    assert "xcom.value: planted" in traces.in_rows
