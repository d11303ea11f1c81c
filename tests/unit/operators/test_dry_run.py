"""A dry run of each operator: what it returns is what the next real run sends, and nothing else is sent or stored."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_workflows.exceptions import ConfigurationError
from airflow_provider_workflows.get_provider_info import get_provider_info
from airflow_provider_workflows.hooks.procore import ProcoreHook
from airflow_provider_workflows.operators import procore, procore_legacy, workflowsoft
from airflow_provider_workflows.operators.base import WritingOperator
from airflow_provider_workflows.operators.dry_run import DryRunStore

pytestmark = pytest.mark.usefixtures("airflow_connections", "no_delays")

TOOL = "purchase_order_contract"
INSTANCE = "700001"
WHO = {"old_assignee": "dana@example.com", "new_assignees": "lee@example.com", "reason": "left"}
ON_BEHALF = "olga@example.com"
Setup = Callable[[Any], dict[str, Any]]


def directors(preset_id: str) -> dict[str, Any]:
    return {"preset_id": preset_id, "groups": {"Directors": ["lee@example.com"]}}


def blocked(emulator) -> dict[str, Any]:
    emulator.control("POST", f"procore/instances/{INSTANCE}/block", reason="ERP is down", refreshes=1)
    return {"instance_id": INSTANCE}


def two_presets(emulator) -> dict[str, Any]:
    other = emulator.control("POST", "procore/presets")["ids"][0]
    return {"assignments": [directors("401"), directors(other)], "tool_type": TOOL, "mode": "apply"}


def running_replacement(emulator) -> dict[str, Any]:
    done = procore.ProcoreBulkReplaceAssigneesOperator(
        task_id="earlier",
        **WHO,
        replacement_type="temporary",
        first_day="2990-01-01",
        last_day="2999-01-01",
        poll_interval=0.05,
    ).execute({})
    return {"action": "stop", "request_id": done["request_id"]}


def started_process(emulator) -> str:
    return str(emulator.control("POST", "workflowsoft/processes", diagram="Event planning")["integration_instance_id"])


def filled_process(emulator) -> dict[str, Any]:
    instance_id = started_process(emulator)
    workflowsoft.WorkflowsoftUpdateFieldsOperator(
        task_id="earlier", integration_instance_id=instance_id, fields={"Venue": "Main hall"}
    ).execute({})
    return {"integration_instance_id": instance_id}


# Each operator that writes, with parameters for one action, and what it knows of its result before.
WRITES: list[tuple[type, dict[str, Any] | Setup, dict[str, Any]]] = [
    (
        procore.ProcoreRespondOperator,
        {"instance_id": INSTANCE, "option": "approve", "comment": "fine"},
        {"instance_id": INSTANCE, "item_id": "5001", "option": "Approve", "comment": "fine", "confirmed": False},
    ),
    (
        procore.ProcoreBulkRespondOperator,
        {"responses": {INSTANCE: {"response": "approve", "comment": "fine"}}, "mode": "apply"},
        {"mode": "apply", "sent": 0, "already_recorded": 0, "skipped": 0, "failed": 0, "unknown": 0},
    ),
    (
        procore.ProcoreStartInstanceOperator,
        {"tool_type": TOOL, "item_id": "5002"},
        {"item_id": "5002", "tool_type": TOOL, "project_id": "1001"},
    ),
    (
        procore.ProcoreBulkStartInstancesOperator,
        {"tool_type": TOOL, "items": ["5003", "5004", "5005"], "chunk_size": 2},
        {"completed": [], "already_active": []},
    ),
    (procore.ProcoreTerminateInstanceOperator, {"instance_id": INSTANCE}, {"instance_id": INSTANCE, "item_id": "5001"}),
    (procore.ProcoreRestartInstanceOperator, {"instance_id": INSTANCE}, {"restarted_instance_id": INSTANCE}),
    (procore.ProcoreRefreshInstanceOperator, blocked, {"instance_id": INSTANCE, "blocked_reason": "ERP is down"}),
    (
        procore.ProcoreAddAssigneesOperator,
        {"instance_id": INSTANCE, "assignees": "lee@example.com", "reason": "other"},
        {"instance_id": INSTANCE, "already_assigned": []},
    ),
    (procore.ProcorePresetAssigneesOperator, two_presets, {"mode": "apply", "changed": 2}),
    (procore.ProcoreBulkReplaceAssigneesOperator, WHO, {}),
    (procore.ProcoreBulkReplaceAssigneesOperator, running_replacement, {"status": "upcoming"}),
    (
        procore_legacy.ProcoreLegacyPerformActivityOperator,
        {"instance_id": "568150", "activity": "submit for approval", "comments": "please"},
        {"instance_id": "568150", "activity": "Submit for Approval", "already_performed": False},
    ),
    (
        workflowsoft.WorkflowsoftUpdateFieldsOperator,
        lambda emulator: {
            "integration_instance_id": started_process(emulator),
            "fields": {"Venue": "Main hall", "Event name": "Event Test"},
        },
        {"unchanged": ["Event name"]},
    ),
    (workflowsoft.WorkflowsoftCompleteIntegrationOperator, filled_process, {"custom_action": "__AUTO__"}),
    (
        workflowsoft.WorkflowsoftStartProcessOperator,
        {"diagram": "Event planning", "on_behalf_of": ON_BEHALF},
        {"diagram": "Event planning", "on_behalf_of": "11"},
    ),
    (
        workflowsoft.WorkflowsoftCreateTaskOperator,
        {"title": "Call", "on_behalf_of": ON_BEHALF},
        {"title": "Call", "on_behalf_of": "11"},
    ),
]
# A person decides before it writes, so its dry runs are in test_approval.
WRITERS = {cls for cls, _, _ in WRITES} | {procore.ProcoreApprovalOperator}
ONLY_READ = {
    procore.ProcoreBranchOnOutcomeOperator,
    procore.ProcoreCycleTimeReportOperator,
    procore.ProcoreHistoryToObjectStorageOperator,
    procore.ProcoreListInstancesOperator,
    procore_legacy.ProcoreLegacyHistoryToObjectStorageOperator,
    procore_legacy.ProcoreLegacyListActivityHistoriesOperator,
    workflowsoft.WorkflowsoftGetFieldsOperator,
    workflowsoft.WorkflowsoftListOperator,
}
EVERY_WRITE = pytest.mark.parametrize(
    ("cls", "parameters", "known"), WRITES, ids=[f"{cls.__name__}-{n}" for n, (cls, _, _) in enumerate(WRITES)]
)


def registered() -> set[type]:
    """Return the operators of the modules that the provider registers."""
    modules = [module for package in get_provider_info()["operators"] for module in package["python-modules"]]
    named = [getattr(module, name) for module in map(importlib.import_module, modules) for name in module.__all__]
    return {thing for thing in named if isinstance(thing, type)}


def build(cls: type, parameters: dict[str, Any], **more: Any) -> Any:
    quick = {"confirm_timeout": 0.2} if "confirm_timeout" not in parameters else {}
    if cls is procore.ProcoreBulkStartInstancesOperator:
        quick = {}
    if cls in (procore.ProcoreBulkStartInstancesOperator, procore.ProcoreBulkReplaceAssigneesOperator):
        quick["poll_interval"] = 0.05
    if issubclass(cls, workflowsoft.WorkflowsoftStartProcessOperator | workflowsoft.WorkflowsoftCreateTaskOperator):
        quick = {}
    return cls(task_id="act", **{**quick, **parameters, **more})


@pytest.fixture
def connection_dry_run(emulator, set_connection):
    """Return a function that sets the extra of both default connections."""

    def set_dry_run(**extra):
        for conn_type in ("procore", "workflowsoft"):
            connection = emulator.connection(conn_type)
            connection["extra"] |= extra
            set_connection(f"{conn_type}_default", connection)

    return set_dry_run


def changes(emulator, since: int) -> list[dict[str, Any]]:
    """Return the requests that are neither reads nor requests for a token, as a dry run describes them."""
    reading = ("/oauth/token", "/bulk_history")
    sent = [r for r in emulator.requests(since) if r["method"] != "GET" and not r["path"].endswith(reading)]
    return [{name: request[name] for name in ("method", "path", "body")} for request in sent]


def described(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: call[name] for name in ("method", "path", "body")} for call in result["would_send"]]


def test_every_operator_that_writes_has_a_dry_run():
    assert registered() == WRITERS | ONLY_READ

    for cls in WRITERS:
        assert issubclass(cls, WritingOperator)
        assert "dry_run" in cls.template_fields
        assert ":param dry_run:" in cls.__doc__
    for cls in ONLY_READ:
        assert not issubclass(cls, WritingOperator)
        assert "dry_run" not in cls.template_fields


@pytest.mark.sample(6)
@pytest.mark.parametrize("how", ["parameter", "template", "connection"])
@EVERY_WRITE
def test_dry_run_returns_what_the_next_run_sends(emulator, store, connection_dry_run, cls, parameters, known, how):
    parameters = parameters(emulator) if callable(parameters) else parameters
    since, effects = emulator.requests()[-1]["n"] if emulator.requests() else 0, emulator.effects()
    connection_dry_run(dry_run=how == "connection")
    values = {"parameter": True, "template": "True", "connection": False}

    result = build(cls, parameters, dry_run=values[how]).execute({"task_state_store": store})

    assert changes(emulator, since) == []
    assert emulator.effects() == effects
    assert store == {}
    assert list(result)[:2] == ["dry_run", "would_send"]
    assert result["dry_run"] is True
    assert {**result, **known} == result
    assert json.loads(json.dumps(result)) == result

    connection_dry_run(dry_run=False)
    real = build(cls, parameters).execute({"task_state_store": store})

    assert described(result) == changes(emulator, since) != []
    assert "dry_run" not in real
    assert "would_send" not in real


@pytest.mark.sample(3)
@EVERY_WRITE
def test_dry_run_after_a_real_run_returns_what_a_retry_sends(emulator, store, cls, parameters, known):
    parameters = parameters(emulator) if callable(parameters) else parameters
    build(cls, parameters).execute({"task_state_store": store})
    stored, since = dict(store), emulator.requests()[-1]["n"]

    result = build(cls, parameters, dry_run=True).execute({"task_state_store": store})

    assert result["dry_run"] is True
    assert changes(emulator, since) == []
    assert store == stored

    build(cls, parameters).execute({"task_state_store": store})

    # Only a restart is sent again: Procore documents that it changes nothing.
    assert described(result) == changes(emulator, since)
    assert bool(result["would_send"]) == (cls is procore.ProcoreRestartInstanceOperator)


@pytest.mark.parametrize("value", ["maybe", "", None, 1, 0, [True], "None"])
def test_a_value_that_is_not_a_boolean_is_an_error(emulator, value):
    with pytest.raises(ConfigurationError, match="dry_run"):
        build(procore.ProcoreTerminateInstanceOperator, {"instance_id": INSTANCE}, dry_run=value).execute({})
    assert emulator.requests() == []


def test_bad_input_is_an_error_in_a_dry_run_too(emulator):
    for option, match in (({"option": "no such option"}, "no such option"), ({"option": None}, "option")):
        with pytest.raises(ConfigurationError, match=match):
            build(procore.ProcoreRespondOperator, {"instance_id": INSTANCE, **option}, dry_run=True).execute({})
    with pytest.raises(ConfigurationError, match="required fields are empty"):
        build(
            workflowsoft.WorkflowsoftCompleteIntegrationOperator,
            {"integration_instance_id": started_process(emulator)},
            dry_run=True,
        ).execute({})


def test_a_dag_makes_dry_runs_of_its_tasks_by_default_args():
    with DAG("any", schedule=None, default_args={"dry_run": True}):
        writes = build(procore.ProcoreTerminateInstanceOperator, {"instance_id": INSTANCE})
        reads = procore.ProcoreListInstancesOperator(task_id="list", tool_type=TOOL)

    assert writes.execute({})["dry_run"] is True
    assert "dry_run" not in vars(reads)


def test_files_are_not_uploaded_and_named_in_the_response(emulator, tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("content of the file")
    parameters = {
        "instance_id": INSTANCE,
        "option": "approve",
        "files": [str(tmp_path / name) for name in ("a.txt", "b.txt")],
    }

    result = build(procore.ProcoreRespondOperator, parameters, dry_run=True).execute({})

    first, second, response = described(result)
    assert [upload["body"]["file_name"] for upload in (first, second)] == ["a.txt", "b.txt"]
    assert first["path"].endswith("/uploads")
    assert response["path"].endswith("/responses")
    ids = response["body"]["response"]["attachments"]["upload_ids"]
    assert [name in given_id for name, given_id in zip(("a.txt", "b.txt"), ids, strict=True)] == [True, True]
    assert "content of the file" not in json.dumps(result)
    assert emulator.control("GET", "uploads") == []


@pytest.mark.parametrize("item_id", ["5002", "5001"], ids=["would start", "would adopt"])
@pytest.mark.parametrize("deferrable", [True, False])
def test_dry_run_does_not_wait(emulator, store, item_id, deferrable):
    parameters = {"tool_type": TOOL, "item_id": item_id, "wait_for_completion": True, "deferrable": deferrable}

    result = build(procore.ProcoreStartInstanceOperator, parameters, dry_run=True).execute({"task_state_store": store})

    assert result["outcome"] == {"dry_run": True}
    assert len(result["would_send"]) == (item_id == "5002")
    assert result.get("adopted") is (True if item_id == "5001" else None)
    assert store == {}


def test_dry_run_of_a_legacy_activity_does_not_wait(store):
    parameters = {"instance_id": "568150", "activity": "submit for approval", "wait_for_state_change": True}

    result = build(procore_legacy.ProcoreLegacyPerformActivityOperator, parameters, dry_run=True).execute(
        {"task_state_store": store}
    )

    assert len(result["would_send"]) == 1
    assert store == {}


def test_branch_distinguishes_a_dry_run(emulator):
    parameters = {"tool_type": TOOL, "item_id": "5002", "wait_for_completion": True}
    result = build(procore.ProcoreStartInstanceOperator, parameters, dry_run=True).execute({})

    for outcome in (result, result["outcome"]):
        assert procore.outcome_names(outcome) == ["dry_run"]
        with DAG("any", schedule=None):
            branch = procore.ProcoreBranchOnOutcomeOperator(
                task_id="branch", outcome=outcome, branches={"dry_run": [], "Approve": []}
            )
        assert branch.choose_branch({}) == []


def test_result_of_a_real_run_is_not_a_dry_run_for_a_branch():
    outcome = {"state": "complete", "item_status": "Approved", "decision": None, "dry_run": False}
    assert procore.outcome_names(outcome) == ["Approved", "complete"]


def test_kill_over_a_dry_run_connection_terminates_nothing(emulator, connection_dry_run):
    parameters = {"tool_type": TOOL, "item_id": "5002", "wait_for_completion": True, "cancel_on_kill": True}
    operator = build(procore.ProcoreStartInstanceOperator, parameters)
    operator._awaited = INSTANCE
    connection_dry_run(dry_run=True)

    operator.on_kill()

    assert emulator.effects() == []


def test_dry_run_that_fails_leaves_nothing_for_its_retry(emulator, store):
    (instance,) = [i for i in emulator.control("GET", "state")["procore"] if i["id"] == INSTANCE]
    parameters = {"instance_id": INSTANCE, "option": "approve", "files": ["/no/such/file"]}
    with pytest.raises(ConfigurationError):
        build(procore.ProcoreRespondOperator, parameters, dry_run=True).execute({"task_state_store": store})

    assert store == {}
    assert instance["step"] == "Budget Check"


def test_the_log_names_every_call_that_was_not_sent(caplog, capsys):
    parameters = {"tool_type": TOOL, "items": ["5003", "5004"], "chunk_size": 1}

    build(procore.ProcoreBulkStartInstancesOperator, parameters, dry_run=True).execute({})

    logged = caplog.text + capsys.readouterr().out
    for item in ("5003", "5004"):
        assert [line for line in logged.splitlines() if "POST" in line and "bulk_create" in line and item in line]


def test_operator_says_false_and_the_connection_true(emulator, connection_dry_run):
    connection_dry_run(dry_run="true")

    result = build(procore.ProcoreTerminateInstanceOperator, {"instance_id": INSTANCE}, dry_run=False).execute({})

    assert result["dry_run"] is True
    assert emulator.effects() == []


def test_what_a_wait_stores_is_stored_with_the_number_of_clears(store):
    forgetful = DryRunStore(store, lambda: True)
    forgetful.set("clears", {"clears": 1})
    forgetful.set("respond.1", {"instance_id": INSTANCE})
    assert store == {}
    assert forgetful.get("respond.1") == {"instance_id": INSTANCE}

    forgetful.set("deadline.1", "2026-01-01T00:00:00+00:00")
    assert store == {"clears": {"clears": 1}, "deadline.1": "2026-01-01T00:00:00+00:00"}


def test_cleared_dry_run_does_not_warn_the_run_that_creates(emulator, store, caplog, capsys):
    """What was created before the task was cleared is stored for good; a dry run has created nothing."""
    parameters = {"title": "Call", "on_behalf_of": ON_BEHALF, "retries": 1}
    ti = SimpleNamespace(max_tries=1, try_number=1, dag_id="d", run_id="r", task_id="act", map_index=-1)
    build(workflowsoft.WorkflowsoftCreateTaskOperator, parameters, dry_run=True).execute(
        {"task_state_store": store, "ti": ti}
    )
    assert store == {}

    cleared = SimpleNamespace(**{**vars(ti), "max_tries": 3, "try_number": 2})
    build(workflowsoft.WorkflowsoftCreateTaskOperator, parameters).execute({"task_state_store": store, "ti": cleared})

    assert "created again" not in caplog.text + capsys.readouterr().out
    assert len([e for e in emulator.effects() if e["action"] == "create_task"]) == 1


def test_an_instance_can_be_read_with_its_history_in_a_dry_run(connection_dry_run):
    """Reading in bulk is a POST."""
    connection_dry_run(dry_run=True)
    assert [row["item_id"] for row in ProcoreHook().bulk_history(TOOL, ["5001"], project_id="1001")] == ["5001"]
