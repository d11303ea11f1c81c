"""The doctor finds what is wrong with a connection, says how to fix it, only reads, and gives no secret away."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_workflows import cli
from airflow_provider_workflows.diagnostics import checks
from airflow_provider_workflows.diagnostics.diagnosis import Diagnosis
from tests.robustness.secrets.connections import failing_connections
from tests.robustness.secrets.failures import PROCORE, WORKFLOWSOFT
from tests.robustness.secrets.scanner import Scanner
from tests.robustness.secrets.servers import Hostile, OtherHost
from tests.support.versions import AIRFLOW

PAGE = Path(__file__).parents[3] / "docs" / "doctor.md"
MAX_REQUESTS = 20


@pytest.fixture(autouse=True)
def environment_is_put_back(monkeypatch):
    """What the command sets for its own process must not stay in that of the tests."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def examine(emulator, set_connection):
    """Return a function that changes a good connection and returns its checks by name."""

    def examine_it(conn_type="procore", extra=None, **changed):
        good = emulator.connection(conn_type)
        fields = {name: value for name, value in {**good["extra"], **(extra or {})}.items() if value is not None}
        set_connection("patient", {**good, "extra": fields, **changed})
        return {check.name: check for check in Diagnosis("patient").checks()}

    return examine_it


def test_an_extra_that_is_not_an_object_is_a_failure_with_a_fix(set_connection):
    set_connection("patient", {"conn_type": "procore", "extra": "[1]"})

    failed = only_failure({check.name: check for check in Diagnosis("patient").checks()})

    assert failed.name == "connection"
    # Before 3.2 Airflow does not even read such a connection.
    variable = "environment variable AIRFLOW_CONN_PATIENT"
    unread = f"Airflow cannot read connection 'patient' from the {variable} (AirflowNotFoundException)."
    assert failed.detail == ("The extra is not a JSON object." if AIRFLOW >= (3, 2) else unread)


def statuses(checks):
    return {name: check.status for name, check in checks.items()}


def fault(emulator, path, times=100, **response):
    emulator.control("POST", "faults", path=path, times=times, **response)


def only_failure(checks):
    """Return the one check that failed, having seen that it says how to fix it."""
    (failed,) = [check for check in checks.values() if check.status == "failed"]
    assert failed.fix
    return failed


@pytest.mark.parametrize("conn_type", ["procore", "workflowsoft"])
def test_a_dry_run_is_shown_and_says_how_to_end_it(examine, conn_type):
    checks = examine(conn_type, extra={"dry_run": True})

    assert (checks["fields"].status, "dry run" in checks["fields"].detail) == ("warning", True)
    assert "dry_run" in checks["fields"].fix
    assert "failed" not in statuses(checks).values()
    if conn_type == "workflowsoft":
        assert (checks["consume"].status, "dry run" in checks["consume"].detail) == ("warning", True)


def test_a_dry_run_that_is_not_a_boolean_is_named_as_a_failure(examine):
    failed = only_failure(examine(extra={"dry_run": "perhaps"}))

    assert (failed.name, "dry_run" in failed.detail) == ("fields", True)


# --- what is well ---


@pytest.mark.parametrize("conn_type", ["procore", "workflowsoft"])
def test_a_good_connection_passes_and_is_only_read(emulator, examine, conn_type):
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning", fields={})
    before = emulator.effects()
    emulator.control("PATCH", "flags", rate_headers="always", hourly_limit=3600)

    checks = examine(conn_type, extra={"requests_per_hour": 3600})

    assert {check.name: check.detail for check in checks.values() if check.status not in ("ok", "warning")} == {}
    assert all(bool(check.fix) == (check.status != "ok") for check in checks.values())
    sent = emulator.requests()
    assert {request["method"] for request in sent if request["path"] != "/oauth/token"} == {"GET"}
    assert not [request for request in sent if "new-integrations" in request["path"]]
    assert len(sent) <= MAX_REQUESTS
    assert emulator.effects() == before


def test_it_says_where_airflow_has_the_connection_from(examine):
    assert "variable AIRFLOW_CONN_PATIENT" in examine()["connection"].detail


def test_an_instance_that_waits_for_the_user_makes_it_an_assignee(examine):
    assert examine()["assignee"].detail == "active instances that wait for this user: 1"


def test_preset_that_names_the_user_makes_it_an_assignee(emulator, examine):
    emulator.control("POST", "procore/instances/700001/terminate")

    assert "preset 401 has it as an assignee" in examine()["assignee"].detail


def test_user_who_is_never_an_assignee_is_a_warning(emulator, examine):
    emulator.control("POST", "procore/instances/700001/terminate")
    fault(emulator, r"/workflows/presets/\d+$", json={"data": {"id": "401"}}, status=200)

    checks = examine()

    assert len(emulator.requests()) <= MAX_REQUESTS
    assert checks["assignee"].status == "warning"
    assert "make the user an assignee" in checks["assignee"].fix


# --- what is not ---


def test_wrong_secret_fails_the_token_check_and_skips_the_rest(examine):
    checks = examine(password="wrong-secret")

    assert "no token for this client id and secret" in only_failure(checks).detail
    assert statuses(checks) | {"token": "failed"} == {
        **dict.fromkeys(("connection", "fields", "reachable"), "ok"),
        "token": "failed",
        **dict.fromkeys(list(checks)[4:], "skipped"),
    }
    assert checks["clock"].detail == "not checked: token failed"


def test_a_login_page_in_the_place_of_a_token_is_named(emulator, examine):
    emulator.control("PATCH", "flags", ws_token_shape="login_page")

    failed = only_failure(examine("workflowsoft"))

    assert (failed.name, "login page" in failed.detail) == ("token", True)


def test_a_page_in_the_place_of_the_api_means_another_host(emulator, examine):
    fault(emulator, "^/rest/v1.0/me", status=200, body="<!DOCTYPE html><title>Procore</title>")

    failed = only_failure(examine())

    assert failed.name == "company"
    assert "not of the web application" in failed.fix


def test_a_wrong_company_is_reported_with_its_number(examine):
    failed = only_failure(examine(extra={"company_id": "99"}))

    assert (failed.name, "99" in failed.fix) == ("company", True)
    assert "403" in failed.detail


def test_a_wrong_project_is_reported_and_the_rest_is_still_checked(examine):
    checks = examine(extra={"project_id": "7"})

    assert only_failure(checks).name == "project"
    assert [checks[name].status for name in ("instances", "presets", "assignee")] == ["skipped"] * 3
    assert [checks[name].status for name in ("legacy", "clock")] == ["ok", "ok"]
    assert checks["assignee"].detail == "not checked: project failed"


def test_without_a_project_only_company_level_tools_are_checked(examine):
    checks = examine(extra={"project_id": None})

    assert checks["project"].status == "warning"
    assert checks["instances"].detail == "readable in 1 tool"


def test_no_tool_with_workflows_is_a_failure(emulator, examine):
    fault(emulator, "/workflows/tools$", status=200, json={"data": []})

    assert only_failure(examine()).name == "tools"


def test_a_tool_that_is_off_is_named_and_the_others_are_read(emulator, examine):
    fault(emulator, "/projects/1001/workflows/instances$", times=1, status=403, json={"message": "Workflows are off"})

    checks = examine()

    assert checks["instances"].status == "warning"
    assert "purchase_order_contract" in checks["instances"].detail
    assert "Workflows are off" in checks["instances"].detail
    assert "Enable Workflows" in checks["instances"].fix


def test_instances_forbidden_for_all_tools_are_a_failure(emulator, examine):
    fault(emulator, "/workflows/instances$", status=403, json={"message": "no"})

    assert only_failure(examine()).name == "instances"


def test_legacy_that_may_not_be_listed_is_a_warning(emulator, examine):
    emulator.control("PATCH", "flags", legacy_list="forbidden")

    assert examine()["legacy"].status == "warning"


def test_running_legacy_instances_are_mentioned(emulator, examine):
    assert "airflow-workflows legacy-readiness" in examine()["legacy"].detail

    for instance_id in ("568150", "568151"):
        emulator.control("POST", f"procore/legacy/instances/{instance_id}/terminate")
    legacy = examine()["legacy"]
    assert (legacy.status, "legacy-readiness" in legacy.detail) == ("ok", False)


def test_rate_limited_diagnosis_sends_no_more_requests(emulator, examine):
    reset = str(int(time.time()) + 3000)
    fault(emulator, "/workflows/tools$", status=429, headers={"X-Rate-Limit-Reset": reset}, json={"message": "wait"})

    checks = examine()

    assert only_failure(checks).name == "tools"
    assert "Wait until then" in checks["tools"].fix
    assert {check.detail for check in list(checks.values())[6:]} == {"not checked: rate-limited by the server"}


def test_little_left_of_the_rate_limit_is_a_warning(emulator, examine):
    emulator.control("PATCH", "flags", rate_headers="always", hourly_limit=13)

    checks = examine()

    assert checks["rate limit"].status == "warning"
    assert "of 13 requests left until" in checks["rate limit"].detail


def test_a_clock_that_goes_wrong_is_a_warning(examine, monkeypatch):
    monkeypatch.setattr(checks, "parsedate_to_datetime", lambda date: past)
    past = checks.datetime.fromtimestamp(time.time() - 400, checks.timezone.utc)

    clock = examine()["clock"]

    assert clock.status == "warning"
    assert re.search(r"40\d seconds ahead of the server's", clock.detail)
    assert "NTP" in clock.fix


def test_a_server_that_nothing_listens_at_is_not_reachable(examine):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    failed = only_failure(examine(host=f"http://127.0.0.1:{port}"))

    assert failed.name == "reachable"
    assert failed.fix == "Correct the host and its port: no server listens there."


def test_a_host_that_no_dns_knows_is_not_reachable(examine):
    failed = only_failure(examine(host="https://nowhere.invalid"))

    assert failed.name == "reachable"
    assert "DNS does not know its name" in failed.fix


def test_a_proxy_that_is_not_there_is_named(examine):
    failed = only_failure(examine(extra={"proxies": {"http": "http://127.0.0.1:9"}}))

    assert "'proxies'" in failed.fix


def test_a_hanging_dns_lookup_ends_at_the_time_limit(examine, monkeypatch):
    released = threading.Event()
    resolve = socket.getaddrinfo

    def slow(host, *more, **named):
        if host == "slow.invalid":
            released.wait(20)
        return resolve(host, *more, **named)

    monkeypatch.setattr(checks, "MAX_CALL_SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", slow)

    failed = only_failure(examine(host="https://slow.invalid"))
    released.set()

    assert failed.name == "reachable"
    assert "No response within" in failed.detail


def test_an_unknown_field_is_a_warning_that_names_the_known_ones(examine):
    fields = examine(extra={"compnay_id": "1"})["fields"]

    assert fields.status == "warning"
    assert "compnay_id" in fields.detail
    assert "company_id" in fields.fix


def test_a_static_token_is_a_warning(examine):
    checks = examine(extra={"access_token": "a-ready-token"})

    assert checks["token"].status == "warning"
    assert only_failure(checks).name == "company"


def test_workflowsoft_that_may_not_poll_is_a_warning(examine):
    consume = examine("workflowsoft", extra={"allow_consume": None, "new_integrations": None})["consume"]

    assert consume.status == "warning"
    assert "consumed on read" in consume.detail
    assert "allow_consume" in consume.fix


# --- the command ---


def test_the_command_prints_one_json_object_and_fails_with_one(emulator, set_connection, capsys):
    set_connection("patient", {**emulator.connection("procore"), "conn_type": "http"})

    assert cli.main(["doctor", "patient", "--json"]) == 1

    report = json.loads(capsys.readouterr().out)
    assert set(report) == {"connection", "type", "ok", "checks"}
    assert (report["connection"], report["type"], report["ok"]) == ("patient", "http", False)
    assert report["checks"][0]["status"] == "failed"
    assert {check["status"] for check in report["checks"][1:]} == {"skipped"}
    assert all(set(check) == {"name", "status", "detail", "fix"} for check in report["checks"])


def test_a_connection_that_airflow_does_not_know_fails(capsys):
    assert cli.main(["doctor", "nobody_knows_it"]) == 1

    assert "AIRFLOW_CONN_NOBODY_KNOWS_IT" in capsys.readouterr().out


def test_a_variable_that_airflow_cannot_read_is_named(monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW_CONN_PATIENT", '{"conn_type": ')

    assert cli.main(["doctor", "patient"]) == 1

    assert "variable AIRFLOW_CONN_PATIENT" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("arguments", [[], ["doctor"], ["doctor", "a", "--xml"], ["nurse"]])
def test_wrong_use_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)

    assert exit_.value.code == 2
    assert "usage: airflow-workflows" in capsys.readouterr().err


def test_piped_output_has_no_long_line_and_no_colour(airflow_connections, capsys):
    assert cli.main(["doctor", "procore_default"]) == 0

    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_text_of_a_server_reaches_no_terminal_as_commands(emulator, airflow_connections, capsys):
    tools = {"data": [{"type": "\x1b]0;title\x07[bold red]tool", "provider": "Company"}]}
    fault(emulator, "/workflows/tools$", status=200, json=tools)

    cli.main(["doctor", "procore_default"])

    out = capsys.readouterr().out
    assert "[bold red]tool" in out
    assert not {"\x1b", "\x07"} & set(out)


@pytest.mark.parametrize("conn_type", ["procore", "workflowsoft"])
def test_the_page_shows_what_the_command_prints(emulator, airflow_connections, capsys, conn_type):
    assert cli.main(["doctor", f"{conn_type}_default"]) == 0

    printed = capsys.readouterr().out.replace(emulator.url, "http://127.0.0.1:8099")
    shown = re.findall(r"```console\n\$ airflow-workflows doctor (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert unwrapped(dict(shown)[f"{conn_type}_default"]) == unwrapped(printed)


def test_the_page_shows_a_failure_as_the_command_prints_it(emulator, set_connection, capsys):
    set_connection("procore_default", {**emulator.connection("procore"), "password": "wrong-secret"})
    assert cli.main(["doctor", "procore_default"]) == 1

    printed = capsys.readouterr().out.replace(emulator.url, "http://127.0.0.1:8099")
    (shown,) = re.findall(r"```text\n(Connection .*?)\.\.\.\n```", PAGE.read_text(), re.DOTALL)
    printed, shown = (re.sub(r"request id [\w-]+", "request id", unwrapped(text)) for text in (printed, shown))
    assert printed.startswith(shown)


def unwrapped(text):
    """Return a text without its line ends, which the length of the port decides."""
    return " ".join(text.split())


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "name", [name for name in (*PROCORE, *WORKFLOWSOFT) if AIRFLOW >= (3, 2) or "json" not in name]
)
def test_no_report_repeats_a_secret(emulator, set_connection, capsys, name):
    secret: dict[str, str] = {}
    with OtherHost() as other, Hostile(other) as hostile:
        set_connection(name, failing_connections(emulator, hostile, secret)[name])
        cli.main(["doctor", name])
        cli.main(["doctor", name, "--json"])

    shown = capsys.readouterr()
    scanner = Scanner({**secret, **{f"token {number}": token for number, token in enumerate(hostile.tokens)}})
    assert scanner.find((shown.out + shown.err).encode()) == set(), shown.out
