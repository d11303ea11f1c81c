"""The report on running Legacy instances: the unknown counts as unclear, never as ready."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from airflow_provider_workflows import cli

pytestmark = pytest.mark.usefixtures("airflow_connections")
LIST = "/rest/v1.0/workflow_instances$"
PRESETS = "/workflows/presets$"
ORDERS = ("1001", "purchase_order_contract")
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "before-you-switch.md"
INVOICE = {"workflow": "Invoice Approval Workflow"}


@pytest.fixture(autouse=True)
def environment_is_put_back(monkeypatch):
    """What the command sets for its own process must not stay in that of the tests."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")


@pytest.fixture
def readiness(capsys):
    """Return a function that runs the command and returns its report, and its exit code as ``exit``."""

    def run(*arguments, conn_id="procore_default"):
        code = cli.main(["legacy-readiness", conn_id, "--json", *arguments])
        return {**json.loads(capsys.readouterr().out), "exit": code}

    return run


def start(emulator, **body):
    return emulator.control("POST", "procore/legacy/instances", **body)["id"]


def fault(emulator, path, **response):
    emulator.control("POST", "faults", path=path, **{"times": 1000, "status": 200, **response})


def place_of(report, project_id="1001", tool="purchase_order_contract"):
    [place] = [p for p in report["places"] if (p["project_id"], p["tool"]) == (project_id, tool)]
    return place


def numbers(report):
    return tuple(report[name] for name in ("running", "ready", "stuck", "unclear", "exit"))


def listed(emulator, *changes):
    """Let the list have rows that differ from the first one's."""
    row = {
        "id": 1,
        "workflowed_object_id": 5,
        "workflowed_object_type": "Contract",
        "project": {"id": 1001, "name": "Riverside Tower"},
        "current_workflow_activities": [{"id": 3, "name": "Approve", "workflow_user_role": {"id": 4, "name": "Boss"}}],
        "current_workflow_state": {"id": 2, "name": "Review", "status": "Review"},
        "current_state_set_at": "2026-01-01T00:00:00Z",
        "workflow": {"name": "W", "class_name": "PurchaseOrderContract", "friendly_name": "Purchase Order"},
        "terminated_at": None,
    }
    rows = [{**row, "id": number, **change} for number, change in enumerate(changes, start=1)]
    fault(emulator, LIST, json=rows)


def test_instances_with_a_default_preset_are_ready(emulator, readiness):
    report = readiness()

    assert numbers(report) == (2, 2, 0, 0, 0)
    assert report["ok"] is True
    place = place_of(report)
    assert (place["project"], place["preset"]["id"], place["reason"]) == ("Riverside Tower", "401", "")
    assert [row["instance_id"] for row in place["instances"]] == ["568150", "568151"]


def test_report_agrees_with_what_the_upgrade_then_does(emulator, readiness):
    start(emulator, project_id="1002")
    stuck = [start(emulator, **INVOICE, project_id="1002"), start(emulator, **INVOICE, project_id="1002")]
    start(emulator, **INVOICE)

    report = readiness()

    assert numbers(report) == (6, 4, 2, 0, 1)
    for place in report["places"]:
        ids = [row["instance_id"] for row in place["instances"]]
        where = {"project_id": place["project_id"], "tool_type": place["tool"]}
        done = emulator.control("POST", "procore/legacy/upgrade", **where)
        assert done == ({"moved": [], "stuck": ids} if place["stuck"] else {"moved": ids, "stuck": []})
    assert [row["instance_id"] for row in place_of(report, "1002", "requisition")["instances"]] == stuck


@pytest.mark.parametrize("change", [{"default": False}, {"valid": False}])
def test_preset_that_is_not_a_valid_default_makes_none_ready(emulator, readiness, change):
    emulator.control("POST", "procore/presets/401", **change)

    report = readiness()

    outcome = "stuck" if "default" in change else "unclear"
    assert (report["exit"], report["ready"], report[outcome]) == (1, 0, 2)
    assert place_of(report)["reason"]


@pytest.mark.parametrize(
    "preset",
    [{"id": "9", "valid": True}, {"id": "9", "default": True}, {"id": "9", "default": "yes", "valid": True}],
)
def test_preset_of_which_something_is_unknown_is_unclear(emulator, readiness, preset):
    fault(emulator, PRESETS, json={"data": [preset]})

    report = readiness()

    assert (report["exit"], report["ready"], place_of(report)["preset"]) == (1, 0, None)
    assert report["stuck"] + report["unclear"] == 2


def test_oldest_instance_and_pending_assignees_are_named(emulator, readiness, capsys):
    emulator.control("POST", "clock", advance=3 * 86400)
    newer = start(emulator)
    submit = {"activity": "Submit for Approval", "login": "pat@example.com"}
    emulator.control("POST", f"procore/legacy/instances/{newer}/perform", **submit)

    place = place_of(readiness())

    assert place["oldest"]["instance_id"] == "568150"
    assert (place["oldest"]["state"], place["oldest"]["days"]) == ("Start", 3)
    turns = {turn["name"]: turn["instances"] for turn in place["pending_with"]}
    assert turns == {"Airflow Integration": 2, "Rita Reviewer": 2}
    assert cli.main(["legacy-readiness", "procore_default"]) == 0
    assert "568150, 3 days, Start" in capsys.readouterr().out


def test_instance_without_time_or_assignee_is_counted_and_named(emulator, readiness):
    now = (datetime.now(timezone.utc) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    listed(emulator, {"current_state_set_at": None}, {"current_workflow_activities": [], "current_state_set_at": now})

    place = place_of(readiness())

    assert (place["running"], place["pending_with_unassigned"]) == (2, 1)
    assert [row["instance_id"] for row in place["instances"]] == ["2", "1"]
    assert place["instances"][1]["since"] is None


def test_row_that_cannot_be_read_concerns_only_itself(emulator, readiness):
    listed(emulator, {}, {"current_workflow_state": "broken"}, {"workflow": ["broken"]}, {"id": None}, {})

    report = readiness()

    assert (report["running"], report["ready"], report["exit"]) == (2, 2, 1)
    assert [missing["what"] for missing in report["not_read"]] == [
        "Legacy instance 2",
        "Legacy instance 3",
        "Legacy instance None",
    ]


def test_project_that_cannot_be_read_concerns_only_itself(emulator, readiness):
    start(emulator, project_id="1002")
    fault(emulator, "/projects/1002/workflows/presets$", status=403, json={"error": {"message": "hidden"}})

    report = readiness()

    assert numbers(report) == (3, 2, 0, 1, 1)
    [missing] = report["not_read"]
    assert ("1002" in missing["what"], "hidden" in missing["reason"]) == (True, True)


def test_list_that_breaks_off_fails_with_what_was_read(emulator, readiness, monkeypatch):
    monkeypatch.setattr("airflow_provider_workflows.hooks.procore_legacy.V1_PAGE_SIZE", 1)
    fault(emulator, LIST, skip=1, status=404, json={})

    report = readiness()

    assert (report["running"], report["ready"], report["exit"]) == (1, 1, 1)


@pytest.mark.parametrize("response", [{"status": 403, "json": {}}, {"json": {"unexpected": 1}}])
def test_list_that_cannot_be_read_is_not_readiness(emulator, readiness, response):
    fault(emulator, LIST, **response)

    report = readiness()

    assert (report["exit"], report["ok"], report["places"]) == (1, False, [])
    assert report["not_read"][0]["is_failure"]


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"workflow": {"class_name": "PrimeContract"}, "workflowed_object_type": "PrimeContract"}, "PrimeContract"),
        ({"workflow": None}, "Contract"),  # a base class, which can be another tool's, too
        ({"workflow": None, "workflowed_object_type": None}, "unknown"),
    ],
)
def test_tool_that_v2_does_not_name_is_unclear(emulator, readiness, change, label):
    listed(emulator, change)

    report = readiness()

    assert numbers(report) == (1, 0, 0, 1, 1)
    assert place_of(report, tool=label)["reason"]


def test_instance_without_its_project_is_unclear(emulator, readiness):
    listed(emulator, {"project": None})

    assert numbers(readiness("--project", "1001")) == (1, 0, 0, 1, 1)


@pytest.mark.parametrize("default", [True, False])
def test_tools_that_may_not_be_listed_leave_only_absence_unclear(emulator, readiness, default):
    emulator.control("POST", "procore/presets/401", default=default)
    emulator.control("PATCH", "flags", tools_list="forbidden")

    report = readiness()

    assert numbers(report) == ((2, 2, 0, 0, 0) if default else (2, 0, 0, 2, 1))


def test_terminated_rows_and_rows_seen_twice_do_not_count(emulator, readiness):
    listed(emulator, {}, {"terminated_at": "2026-01-02T00:00:00Z"}, {"id": 1})

    assert numbers(readiness()) == (1, 1, 0, 0, 0)


def test_filters_limit_the_report_and_its_requests(emulator, readiness):
    start(emulator, project_id="1002")
    start(emulator, **INVOICE)

    sent = len(emulator.requests())
    assert numbers(readiness("--project", "1002")) == (1, 1, 0, 0, 0)
    presets = [request["path"] for request in emulator.requests()[sent:] if request["path"].endswith("/presets")]
    assert [path.split("/projects/")[1] for path in presets] == ["1002/workflows/presets"]
    for tool in ("requisition", "Requisition", "Subcontractor Invoice"):
        assert numbers(readiness("--tool", tool)) == (1, 1, 0, 0, 0)
    assert numbers(readiness("--tool", "submittal")) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("--tool", "purchse_order_contract"), "purchase_order_contract"), (("--project", "999"), "not found")],
)
def test_filter_of_something_unknown_is_not_readiness(emulator, readiness, arguments, named):
    report = readiness(*arguments)

    assert (report["ok"], numbers(report)) == (False, (0, 0, 0, 0, 1))
    assert named in report["not_read"][0]["reason"].lower()


def test_project_that_no_one_can_check_is_not_readiness(emulator, readiness):
    fault(emulator, "/workflows/tools$", status=403, json={})

    report = readiness("--project", "1002")

    assert (report["exit"], report["not_read"][-1]["what"]) == (1, "project 1002")


def test_project_without_running_instances_is_ready(emulator, readiness):
    assert numbers(readiness("--project", "1002")) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("arguments", [("--project", " "), ("--tool", ""), ("--project", "Riverside")])
def test_bad_filter_is_named_before_anything_is_sent(emulator, readiness, arguments):
    sent = len(emulator.requests())

    report = readiness(*arguments)

    assert (report["exit"], arguments[0] in report["not_read"][0]["reason"]) == (1, True)
    assert len(emulator.requests()) == sent


def test_report_only_reads_and_requests_each_place_once(emulator, readiness):
    emulator.control("POST", "procore/legacy/instances/many", count=4500)
    start(emulator, project_id="1002")
    before, sent = emulator.effects(), len(emulator.requests())

    assert readiness()["running"] == 4503

    requests = [request for request in emulator.requests()[sent:] if not request["path"].endswith("/oauth/token")]
    assert {request["method"] for request in requests} == {"GET"}
    assert len(requests) == 1 + 3 + 2  # the tools, pages of 2000 rows, and the presets of two places
    assert emulator.effects() == before


def test_report_sends_no_more_once_it_is_rate_limited(emulator, readiness, monkeypatch):
    start(emulator, project_id="1002")
    start(emulator, **INVOICE)
    fault(emulator, PRESETS, status=429, headers={"Retry-After": "86400"}, json={})
    sent = len(emulator.requests())

    report = readiness()

    assert numbers(report) == (4, 0, 0, 4, 1)
    assert len([request for request in emulator.requests()[sent:] if request["path"].endswith("/presets")]) == 1
    assert len(report["not_read"]) == 3


def test_no_running_instance_is_ready(emulator, readiness):
    for number in ("568150", "568151"):
        emulator.control("POST", f"procore/legacy/instances/{number}/terminate")

    assert numbers(readiness()) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("conn_id", ["nobody_knows_it", "workflowsoft_default"])
def test_connection_without_legacy_is_named(readiness, conn_id):
    report = readiness(conn_id=conn_id)

    assert (report["exit"], report["places"]) == (1, [])
    assert conn_id in report["not_read"][0]["what"]


def test_text_is_a_table_and_names_what_would_be_stuck(emulator, capsys):
    stuck = start(emulator, **INVOICE, project_id="1002")

    assert cli.main(["legacy-readiness", "procore_default"]) == 1

    lines = capsys.readouterr().out.splitlines()
    columns = [lines[0].index(name) for name in ("tool", "running", "pending with")]
    assert lines[1][columns[0] :].startswith("requisition")
    assert lines[2][columns[0] :].startswith("purchase_order_contract")
    assert (lines[1][columns[1]], lines[2][columns[1]]) == ("1", "2")
    assert any(stuck in line and "Harbour Bridge" in line for line in lines[3:])


def test_guide_shows_what_the_command_prints(emulator, capsys):
    start(emulator, **INVOICE, project_id="1002")
    cli.main(["legacy-readiness", "procore_default"])

    assert f"legacy-readiness procore_default\n{capsys.readouterr().out}```" in GUIDE.read_text()


def test_control_characters_do_not_reach_the_terminal(emulator, capsys):
    listed(emulator, {"project": {"id": 1001, "name": "\x1b[2J Tower"}})

    cli.main(["legacy-readiness", "procore_default"])

    out = capsys.readouterr().out
    assert ("Tower" in out, "\x1b" in out) == (True, False)


def test_wrong_use_of_legacy_readiness_exits_with_two():
    with pytest.raises(SystemExit) as exit_:
        cli.main(["legacy-readiness"])

    assert exit_.value.code == 2
