"""The list of active instances: complete or reported as incomplete, only read, the same as text and as JSON."""

from __future__ import annotations

import json

import pytest

from airflow_provider_workflows import cli
from tests.unit.polling.conftest import end, start

pytestmark = pytest.mark.usefixtures("airflow_connections")


@pytest.fixture(autouse=True)
def environment_is_put_back(monkeypatch):
    """What the command sets for its own process must not stay in that of the tests."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")


@pytest.fixture
def listed(capsys):
    """Return a function that runs the command and returns its report, and its exit code as ``exit``."""

    def run(*arguments, conn_id="procore_default"):
        code = cli.main(["waiting", conn_id, "--json", *arguments])
        return {**json.loads(capsys.readouterr().out), "exit": code}

    return run


def fault(emulator, path, **response):
    emulator.control("POST", "faults", path=path, **{"times": 1000, **response})


def of_v2(report):
    return {row["instance_id"]: row for row in report["waiting"] if row["product"] == "procore"}


def legacy(report):
    return {row["instance_id"]: row for row in report["waiting"] if row["product"] == "procore_legacy"}


def test_each_active_instance_has_its_step_and_assignees(emulator, listed):
    started = start(emulator, 3)
    end(emulator, started[0][0])

    report = listed()

    found = of_v2(report)
    assert set(found) == {"700001", started[1][0], started[2][0]}
    row = found["700001"]
    assert (row["workflow"], row["item_id"], row["project_id"]) == ("Purchase Order Approval", "5001", "1001")
    assert (row["step"], row["assignees"]) == ("Budget Check", ["integration@example.com"])
    assert None not in (row["since"], row["due"], row["tool_type"])
    assert (row["is_overdue"], report["ok"], report["exit"]) == (False, True, 0)


def test_legacy_instances_are_listed_with_their_states(emulator, listed):
    report = listed()

    found = legacy(report)
    assert found
    assert all(row["step"] and row["since"] and row["item_id"] for row in found.values())
    assert any(row["assignees"] for row in found.values())


def test_hundreds_of_instances_cost_a_few_requests(emulator, listed):
    start(emulator, 200)
    before = len(emulator.requests())

    report = listed("--tool", "purchase_order_contract")

    assert len(of_v2(report)) == 201
    assert len(emulator.requests()) - before <= 15


def test_it_only_reads(emulator, listed):
    before, sent = emulator.effects(), len(emulator.requests())

    listed()
    listed(conn_id="workflowsoft_default")

    assert emulator.effects() == before
    requests = emulator.requests()[sent:]
    writes = [request["path"] for request in requests if request["method"] != "GET"]
    assert not [path for path in writes if not path.endswith(("/oauth/token", "/bulk_history"))]
    assert not [request for request in requests if "new-integrations" in request["path"]]


@pytest.mark.parametrize("user", ["dana@example.com", "DANA@example.com"])
def test_user_sees_only_what_is_pending_with_that_user(emulator, listed, user):
    first, second = (instance_id for instance_id, _ in start(emulator, 2))
    emulator.control("POST", f"procore/instances/{first}/respond", login="integration@example.com", option="Approve")

    assert set(of_v2(listed("--user", user))) == {first}
    assert set(of_v2(listed("--user", "integration@example.com"))) == {"700001", second}


def test_user_filter_that_the_server_ignores_is_applied(emulator, listed):
    rows = [{"id": "700001", "item_id": "5001", "tool_type": "purchase_order_contract", "ended_at": None}]
    fault(emulator, "/workflows/instances$", method="GET", status=200, json={"data": rows})

    assert of_v2(listed("--user", "dana@example.com", "--tool", "purchase_order_contract")) == {}


def test_unknown_user_is_an_error_that_names_the_option(listed):
    report = listed("--user", "nobody@example.com")

    assert (report["exit"], report["waiting"]) == (1, [])
    assert "--user" in report["not_read"][0]["reason"]


def test_overdue_lists_what_is_overdue_by_the_servers_clock(emulator, listed):
    before = of_v2(listed("--overdue"))
    emulator.control("POST", "clock", advance=30 * 24 * 3600)
    start(emulator, 1)

    after = of_v2(listed("--overdue"))

    assert (set(before), set(after)) == (set(), {"700001"})
    assert after["700001"]["is_overdue"]


def test_instance_whose_history_cannot_be_read_is_listed(emulator, listed):
    ((broken, _),) = start(emulator, 1)
    fault(emulator, "bulk_history$", status=404, json={})
    fault(emulator, "/instances/history", status=404, json={})
    fault(emulator, f"/instances/{broken}/history$", status=403, json={"error": {"message": "hidden"}})

    found = of_v2(listed("--tool", "purchase_order_contract"))

    assert set(found) == {"700001", broken}
    assert (found["700001"]["step"], found[broken]["step"]) == ("Budget Check", None)
    assert "hidden" in found[broken]["last_error"]


def test_tool_that_cannot_be_read_fails_and_the_others_are_listed(emulator, listed):
    fault(emulator, "/projects/1001/workflows/instances$", times=1, status=403, json={"error": {"message": "hidden"}})

    report = listed()

    assert report["exit"] == 1
    assert [missing["is_failure"] for missing in report["not_read"]].count(True) == 1
    assert legacy(report)


def test_missing_permission_for_legacy_is_not_a_failure(emulator, listed):
    fault(emulator, "/rest/v1.0/workflow_instances", status=403, json={"error": "no"})

    report = listed()

    assert (report["exit"], legacy(report)) == (0, {})
    assert [missing["what"] for missing in report["not_read"]] == ["Legacy Workflows"]


def test_unknown_tool_is_an_error_that_lists_the_tools(listed):
    report = listed("--tool", "purchase_odor")

    assert report["exit"] == 1
    assert "purchase_order_contract" in report["not_read"][0]["reason"]


def test_tools_of_projects_need_a_project(emulator, set_connection, listed):
    connection = emulator.connection("procore")
    del connection["extra"]["project_id"]
    set_connection("procore_default", connection)

    without, of_project = listed(), listed("--project", "1001")

    assert any("--project" in missing["reason"] for missing in without["not_read"])
    assert of_v2(without) == {}
    assert set(of_v2(of_project)) == {"700001"}


def test_workflowsoft_names_the_steps_that_it_does_not_read(listed):
    report = listed(conn_id="workflowsoft_default")

    assert (report["waiting"], report["exit"]) == ([], 0)
    assert any("'Check event'" in missing["what"] for missing in report["not_read"])


@pytest.mark.parametrize("conn_id", ["nobody_knows_it", "http"])
def test_connection_that_cannot_be_used_is_named(set_connection, listed, conn_id):
    set_connection("http", {"conn_type": "http"})

    report = listed(conn_id=conn_id)

    assert (report["exit"], report["ok"], report["waiting"]) == (1, False, [])
    assert conn_id in report["not_read"][0]["what"]


def test_text_has_a_line_for_each_instance_and_its_step(capsys):
    assert cli.main(["waiting", "procore_default"]) == 0

    lines = capsys.readouterr().out.splitlines()
    number = next(number for number, line in enumerate(lines) if "700001" in line)
    assert "5001" in lines[number]
    assert "Budget Check" in lines[number + 1]
    assert "integration@example.com" in lines[number + 1]


def test_text_states_no_number_where_instances_cannot_be_listed(capsys):
    assert cli.main(["waiting", "workflowsoft_default"]) == 0

    assert "0 active" not in capsys.readouterr().out


def test_control_characters_of_names_do_not_reach_the_terminal(emulator, capsys):
    step = {"type": "ResponseStep", "details": {"id": 1, "name": "\x1b[2J Check", "started_at": "2026-01-01T00:00:00Z"}}
    history = {"name": "x", "status": "in_progress", "history": [step], "instance_id": "700001"}
    fault(emulator, "bulk_history$", status=200, json={"data": [{"item_id": "5001", "instances": [history]}]})

    cli.main(["waiting", "procore_default", "--tool", "purchase_order_contract"])

    out = capsys.readouterr().out
    assert "Check" in out
    assert "\x1b" not in out


def test_wrong_use_exits_with_two(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["waiting", "--user"])

    assert exit_.value.code == 2
