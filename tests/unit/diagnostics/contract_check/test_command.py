"""The command ``contract-check`` reads only, says what it found, and ends with the code that its help names."""

from __future__ import annotations

import json

import pytest

from airflow_provider_workflows import cli
from airflow_provider_workflows.diagnostics.contract_check import recording
from airflow_provider_workflows.diagnostics.contract_check.check import check_contract
from airflow_provider_workflows.emulator import Emulator
from tests.support.contract_tenant import ContractTenant


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """What the command sets for its own process must not stay in that of the tests; it needs no wait here."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    monkeypatch.setattr(recording, "WINDOW_SECONDS", 0.0)


@pytest.fixture
def run(tenant, monkeypatch, capsys):
    """Return a function that runs the command on the tenant, and returns its exit code and its output."""
    for conn_type in ("procore", "workflowsoft"):
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_type.upper()}_TENANT", tenant.connection(conn_type))

    def command(*arguments, conn_id="procore_tenant"):
        code = cli.main(["contract-check", conn_id, *map(str, arguments)])
        return code, capsys.readouterr().out

    return command


@pytest.mark.parametrize("conn_type", ["procore", "workflowsoft"])
def test_it_reads_only_and_few_times(tenant, run, conn_type):
    effects, sent = tenant.emulator.effects(), tenant.emulator.requests()[-1]["n"] if tenant.emulator.requests() else 0

    code, _ = run(conn_id=f"{conn_type}_tenant")

    requests = tenant.emulator.requests(since=sent)
    assert code == 0
    assert tenant.emulator.effects() == effects
    assert 0 < len(requests) <= recording.MAX_REQUESTS
    posts = [request["path"] for request in requests if request["method"] != "GET"]
    assert not [path for path in posts if not path.endswith(("/oauth/token", "/instances/bulk_history"))]
    assert not [request for request in requests if "new-integrations" in request["path"]]


def test_dry_run_of_a_connection_checks_as_much(tenant, run, monkeypatch):
    code, found = run("--json")
    monkeypatch.setenv("AIRFLOW_CONN_PROCORE_TENANT", tenant.connection("procore", dry_run=True))

    dry_code, dry_found = run("--json")

    assert dry_code == code == 0
    results = [
        {finding["flag"]: finding["result"] for finding in json.loads(text)["findings"]} for text in (found, dry_found)
    ]
    assert results[0] == results[1]


def test_text_and_json_say_the_same(run):
    code, text = run()
    json_code, found = run("--json")

    found = json.loads(found)
    assert code == json_code == 0
    assert (found["ok"], found["problem"], found["type"]) == (True, "", "procore")
    assert all(finding["flag"] in text for finding in found["findings"])
    assert {finding["result"] for finding in found["findings"]} == {"seen", "not_seen", "cannot_be_read"}
    assert all(finding["detail"] for finding in found["findings"])
    assert all(finding["answer"] for finding in found["findings"] if finding["result"] == "seen")


def test_unexpected_side_ends_with_one(tenant, run):
    tenant.control("faults", path="/workflows/tools$", times=100, status=451, json={"message": "No"})

    code, found = run("--json")

    results = {finding["flag"]: finding["result"] for finding in json.loads(found)["findings"]}
    assert code == 1
    assert results["tools_list"] == "unexpected"


def test_next_page_named_in_an_unknown_way_is_unexpected(tenant, run):
    rows = [{"id": str(number), "item_id": str(number), "ended_at": None} for number in (1, 2)]
    body = {"data": rows, "meta": {"next_marker": "abc"}}
    tenant.control("faults", path="/workflows/instances$", times=100, status=200, json=body)

    code, found = run("--json")

    (finding,) = [f for f in json.loads(found)["findings"] if f["flag"] == "cursor_place"]
    assert (code, finding["result"], finding["side"]) == (1, "unexpected", None)


def test_sign_in_that_fails_is_the_problem(tenant, run, monkeypatch):
    connection = json.loads(tenant.connection("procore"))
    monkeypatch.setenv("AIRFLOW_CONN_PROCORE_TENANT", json.dumps({**connection, "password": "wrong-secret"}))

    code, found = run("--json")

    assert code == 1
    assert "401" in json.loads(found)["problem"]
    assert "wrong-secret" not in found
    assert {f["result"] for f in json.loads(found)["findings"]} == {"not_seen", "cannot_be_read"}


@pytest.mark.parametrize("sent_before", [0, 7])
def test_rate_limited_check_stops_at_once(tenant, run, sent_before):
    tenant.control("faults", path="^/rest", times=100, skip=sent_before, status=429, headers={"Retry-After": "60"})
    start = len(tenant.emulator.requests())

    code, found = run("--json")

    assert (code, bool(json.loads(found)["problem"])) == (1, True)
    assert len(tenant.emulator.requests()) - start <= sent_before + 2


def test_server_that_goes_down_does_not_get_forty_requests(tenant, run):
    tenant.control("faults", path="^/rest", times=100, skip=3, reset="before")
    start = len(tenant.emulator.requests())

    code, found = run("--json")

    assert (code, bool(json.loads(found)["problem"])) == (1, True)
    assert len(tenant.emulator.requests()) - start <= 10


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["procore_unknown"], 1),
        (["http_tenant"], 1),
        (["procore_tenant", "--instance-id", "1"], 1),
        (["procore_tenant", "--json", "--emulator-flags"], 2),
        (["procore_tenant", "--report", "/no/such/folder/report.json"], 2),
        (["procore_tenant", "--report", "/"], 2),
    ],
)
def test_bad_input_is_an_error_before_anything_is_sent(tenant, run, monkeypatch, arguments, code):
    monkeypatch.setenv("AIRFLOW_CONN_HTTP_TENANT", json.dumps({"conn_type": "http", "host": "example.com"}))
    start = len(tenant.emulator.requests())

    try:
        ended = cli.main(["contract-check", *arguments])
    except SystemExit as error:
        ended = error.code

    assert ended == code
    assert len(tenant.emulator.requests()) == start


def test_report_is_written_beside_the_text(run, tmp_path):
    path = tmp_path / "report.json"

    code, text = run("--report", path)

    report = json.loads(path.read_text())
    assert code == 0
    assert "cursor_place" in text
    assert len(report["responses"]) == report["requests"]
    assert {finding["flag"] for finding in report["findings"]} > {"cursor_place", "legacy_list"}


# Sides that differ from the emulator's defaults and can be seen together.
SIDES = {
    "procore": {
        "cursor_place": "link_other_host",
        "page_headers": "total_pages",
        "page_limit": "50",
        "rate_headers": "always",
        "spike_limit": 400,
        "token_lifetime": 900,
        "missing_company_header": "403",
        "history_labels": "status",
        "history_response_id": "response",
        "history_order": "newest_first",
        "history_step_id": "step",
        "created_by": "absent",
        "termination_event": "both",
        "status_case": "upper",
        "item_history": "absent",
        "bulk_history": "not_allowed",
        "updated_at": "start_only",
        "assignee_filter": "pending_only",
        "active_default": "active_only",
        "role_group_type": "project_role",
        "overall_response": "absent",
        "time_format": "milliseconds",
        "error_body": "v1",
        "more_members": "more",
        "bulk_replace_rows": "ids",
        "bulk_replace_csv": "utf-16",
        "legacy_history_order": "newest_first",
        "legacy_status": "object",
        "legacy_object_type": "class",
        "directory_ids": "own_beside",
        "permanent_logs": "none",
    },
    "workflowsoft": {
        "ws_token_shape": "object",
        "ws_token_lifetime": "shorter",
        "ws_names": "pascal",
        "ws_ids": "texts",
        "ws_times": "offset",
        "ws_type_names": "system",
        "ws_value_format": "comma",
        "ws_read_on_behalf": "needed",
        "ws_options_shape": "id_title",
        "ws_list_limit": "at_most_3",
        "ws_true": "any_case",
    },
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("conn_type", SIDES)
def test_emulator_with_the_printed_flags_is_checked_the_same(tenant, run, monkeypatch, conn_type):
    arguments = {
        "procore": [],
        "workflowsoft": [f"--instance-id={instance_id}" for instance_id in tenant.ws_instances[:2]],
    }[conn_type]
    tenant.control("flags", "PATCH", **SIDES[conn_type])
    first = json.loads(run("--json", *arguments, conn_id=f"{conn_type}_tenant")[1])["findings"]
    flags = json.loads(run("--emulator-flags", *arguments, conn_id=f"{conn_type}_tenant")[1])

    with Emulator() as other:
        same = ContractTenant(other)
        other.control("PATCH", "flags", **flags)
        monkeypatch.setenv("AIRFLOW_CONN_SAME_TENANT", same.connection(conn_type))
        second = json.loads(run("--json", *arguments, conn_id="same_tenant")[1])["findings"]

    assert SIDES[conn_type].items() <= flags.items()
    assert [(f["flag"], f["result"], f["side"]) for f in first] == [(f["flag"], f["result"], f["side"]) for f in second]


@pytest.mark.parametrize("stated", ["when_on", "never"])
def test_check_never_meets_the_servers_rate_limit(tenant, monkeypatch, stated):
    monkeypatch.setattr(recording, "WINDOW_SECONDS", 10.0)
    monkeypatch.setenv("AIRFLOW_CONN_TENANT", tenant.connection("procore"))
    tenant.later(3700)  # the requests of other tests count no more
    tenant.control("flags", "PATCH", rate_limit="on", rate_headers=stated)
    start = tenant.emulator.requests()[-1]["n"]

    checked = check_contract("tenant", sleep=tenant.later)

    assert checked.problem == ""
    assert 429 not in [request["status"] for request in tenant.emulator.requests(since=start)]
