"""The control routes: the clock, the flags, faults, the record, and acting as users."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from airflow_provider_workflows.emulator import app
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from tests.support.delays import HeldDelays
from tests.support.past_emulator import DAYS_BEHIND, past_emulator
from tests.support.processor_time import slowness
from tests.unit.emulator.conftest import COMPANY, PROJECT

TOOLS = f"{COMPANY}/workflows/tools"
INSTANCE = f"{PROJECT}/workflows/instances/700001"


def response_to(shown: dict[str, Any]) -> dict[str, Any]:
    step = shown["data"]["current_step_occurrence"]
    return {
        "response": {
            "current_step_occurrence_id": step["id"],
            "selected_response_option_id": step["available_response_options"][0]["id"],
            "attachments": {},
        }
    }


# --- clock and reset ---


def test_the_clock_moves_forward_by_seconds_and_to_a_time(emulator):
    def now() -> datetime:
        return datetime.fromisoformat(emulator.control("GET", "clock")["now"].replace("Z", "+00:00"))

    start = now()
    emulator.control("POST", "clock", advance=3600)
    assert timedelta(seconds=3599) < now() - start < timedelta(seconds=3630)
    emulator.control("POST", "clock", set="2999-01-01T00:00:00+02:00")
    assert now().isoformat().startswith("2998-12-31T22:00")


@pytest.mark.parametrize(
    "order",
    [
        {"advance": -1},
        {"set": "2020-01-01T00:00:00Z"},
        {"set": "3001-01-01T00:00:00Z"},
        {"set": "2999-01-01T00:00:00"},
        {"set": "later"},
        {},
        {"advance": 1, "set": "2999-01-01T00:00:00Z"},
        {"forward": 1},
    ],
)
def test_the_clock_rejects_what_it_cannot_do(emulator, order):
    with pytest.raises(RuntimeError, match="422"):
        emulator.control("POST", "clock", **order)


def test_a_reset_brings_back_all_but_the_tokens(emulator, procore):
    emulator.control("POST", "clock", advance=3600)
    emulator.control("PATCH", "flags", history="absent")
    emulator.control("POST", "faults", path="never", status=500)
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
    emulator.control("POST", "procore/instances/700001/terminate")
    before = time.time()
    seeded = emulator.control("POST", "reset")

    assert seeded == {"seed": "default"}
    state = emulator.control("GET", "state")
    assert [(i["id"], i["state"]) for i in state["procore"]] == [("700001", "in_progress")]
    assert [i["id"] for i in state["procore_legacy"]] == ["568150", "568151"]
    assert state["workflowsoft"] == []
    assert emulator.control("GET", "flags")["history"] == "full"
    assert (emulator.effects(), emulator.requests(), emulator.control("GET", "faults")) == ([], [], [])
    moment = datetime.fromisoformat(emulator.control("GET", "clock")["now"].replace("Z", "+00:00"))
    assert before - 1 <= moment.timestamp() <= time.time()  # it shows whole seconds
    procore.get(TOOLS)
    with pytest.raises(RuntimeError, match="default, large"):
        emulator.control("POST", "reset", seed="small")


# --- flags ---


def test_reset_beside_an_emulator_in_the_past_has_the_right_time(emulator):
    with past_emulator() as past:
        emulator.control("POST", "reset")
        now = datetime.fromisoformat(emulator.control("GET", "clock")["now"].replace("Z", "+00:00"))
        then = datetime.fromisoformat(past.control("GET", "clock")["now"].replace("Z", "+00:00"))

    assert now - then > timedelta(days=DAYS_BEHIND - 1)


def test_every_flag_starts_with_its_first_value_and_takes_others(emulator):
    assert emulator.control("GET", "flags") == {name: flag.values[0] for name, flag in BEHAVIOUR_FLAGS.items()}
    for name, flag in BEHAVIOUR_FLAGS.items():
        assert flag.why
        for value in (17,) if flag.takes_number else flag.values:
            assert emulator.control("PATCH", "flags", **{name: value})[name] == value


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"weather": "fine"}, "cursor_place"),
        ({"history": "long"}, "full, events_only, no_status, absent"),
        ({"history": 5}, "full, events_only, no_status, absent"),
        ({"spike_limit": "many"}, "a number"),
        ({"spike_limit": True}, "a number"),
        ({"spike_limit": -1}, "a number"),
        ({"stale_step": "404", "history": "long"}, "full, events_only, no_status, absent"),
    ],
)
def test_an_unknown_flag_or_value_is_rejected_with_the_allowed(emulator, flags, message):
    with pytest.raises(RuntimeError, match=message):
        emulator.control("PATCH", "flags", **flags)
    assert emulator.control("GET", "flags")["stale_step"] == "422"


# --- faults ---


def test_a_fault_strikes_the_matching_requests_so_many_times(emulator, procore):
    emulator.control(
        "POST", "faults", method="GET", path="/tools$", status=503, headers={"Retry-After": "7"}, times=2, skip=1
    )
    emulator.control("POST", "faults", method="POST", path="/tools$", status=500)

    seen = []
    for _ in range(4):
        response = requests.get(procore.url + TOOLS, headers=procore.session.headers, timeout=5)
        seen.append((response.status_code, response.headers.get("Retry-After"), response.content != b""))

    assert seen == [(200, None, True), (503, "7", False), (503, "7", False), (200, None, True)]
    assert [fault["fired"] for fault in emulator.control("GET", "faults")] == [2, 0]
    emulator.control("DELETE", "faults")
    assert emulator.control("GET", "faults") == []


def test_faults_take_turns_in_the_order_they_were_made(emulator, procore):
    emulator.control("POST", "faults", path="/tools$", status=500, skip=1)
    emulator.control("POST", "faults", path="/tools$", status=502)

    seen = [requests.get(procore.url + TOOLS, headers=procore.session.headers, timeout=5) for _ in range(3)]

    assert [response.status_code for response in seen] == [502, 500, 200]


@pytest.mark.parametrize(
    ("fault", "status", "content_type", "text"),
    [
        ({"status": 400, "json": {"error": "no"}}, 400, "application/json", '{"error": "no"}'),
        ({"status": 502, "body": " <html>Bad gateway</html>"}, 502, "text/html", " <html>Bad gateway</html>"),
        ({"body": '{"data": '}, 200, "application/json", '{"data": '),
        ({"json": [1]}, 200, "application/json", "[1]"),
        ({"headers": {"Content-Type": "text/csv"}, "body": "a,b"}, 200, "text/csv", "a,b"),
    ],
)
def test_a_fault_replaces_the_response(emulator, procore, fault, status, content_type, text):
    emulator.control("POST", "faults", path="/tools$", **fault)

    response = requests.get(procore.url + TOOLS, headers=procore.session.headers, timeout=5)

    assert (response.status_code, response.headers["Content-Type"], response.text) == (status, content_type, text)


@pytest.mark.parametrize(
    ("fault", "committed"),
    [
        ({"status": 503}, 0),
        ({"status": 503, "after": True}, 1),
        ({"body": "<html>"}, 1),
        ({"reset": "before"}, 0),
        ({"reset": "after"}, 1),
    ],
)
def test_a_fault_comes_before_or_after_the_effect(emulator, procore, fault, committed):
    response = response_to(procore.get(INSTANCE))
    emulator.control("POST", "faults", method="POST", path="/responses$", **fault)

    try:
        requests.post(f"{procore.url}{INSTANCE}/responses", json=response, headers=procore.session.headers, timeout=5)
        broken = False
    except requests.ConnectionError:
        broken = True

    assert broken == ("reset" in fault)
    assert len(emulator.effects()) == committed


def test_a_reset_reaches_the_client_as_a_reset_of_the_connection(emulator, procore):
    emulator.control("POST", "faults", path="/tools$", reset="before")
    host, port = procore.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(f"GET {TOOLS} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        try:
            received = connection.recv(100)
        except ConnectionResetError:
            received = b""
    assert received == b""
    assert emulator.requests()[-1]["status"] == 0


def test_a_truncated_response_breaks_off(emulator, procore):
    emulator.control("POST", "faults", path="/tools$", truncate=10)

    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError), match="10 bytes read"):
        requests.get(procore.url + TOOLS, headers=procore.session.headers, timeout=5)


def test_delay_postpones_one_response_and_no_other(emulator, procore, monkeypatch):
    delays = HeldDelays(monkeypatch)
    emulator.control("POST", "faults", path="/tools$", delay=0.3)
    ended: list[str] = []

    def request(name: str, path: str) -> None:
        response = requests.get(procore.url + path, headers=procore.session.headers, timeout=60)
        assert response.status_code == 200
        ended.append(name)

    slow = threading.Thread(target=request, args=("delayed", TOOLS))
    slow.start()
    assert delays.started.wait(60)
    request("other", INSTANCE)
    delays.end.set()
    slow.join()

    assert ended == ["other", "delayed"]


def test_delay_lasts_as_long_as_the_fault_says(emulator, procore, monkeypatch):
    emulator.control("POST", "faults", path="/tools$", delay=0.3)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(app, "asyncio", SimpleNamespace(sleep=sleep, Transport=asyncio.Transport))
    procore.get(TOOLS)

    assert sum(slept) == 0.3


@pytest.mark.parametrize(
    "fault",
    [{"path": "("}, {"reset": "during"}, {"times": 0}, {"status": 99}, {"colour": "red"}, {"truncate": -1}],
)
def test_a_fault_that_makes_no_sense_is_rejected(emulator, fault):
    with pytest.raises(RuntimeError, match="422"):
        emulator.control("POST", "faults", **fault)
    assert emulator.control("GET", "faults") == []


# --- rate limits ---


def limited(emulator: Any, procore: Any, **flags: Any) -> requests.Response:
    """Exhaust a spike of two and return the third response."""
    emulator.control("PATCH", "flags", rate_limit="on", spike_limit=2, **flags)
    first = procore.send("GET", TOOLS)
    assert first.headers.get("X-Rate-Limit-Remaining") == (None if flags.get("rate_headers") == "never" else "1")
    procore.get(TOOLS)
    response: requests.Response = procore.send("GET", TOOLS)
    assert response.status_code == 429
    return response


def test_a_spike_is_rejected_until_its_reset(emulator, procore):
    rejected = limited(emulator, procore)

    assert rejected.headers["X-Rate-Limit-Limit"] == "2"
    assert rejected.headers["X-Rate-Limit-Remaining"] == "0"
    assert "Retry-After" not in rejected.headers
    reset = int(rejected.headers["X-Rate-Limit-Reset"])
    assert reset <= time.time() + 11
    emulator.control("POST", "clock", advance=11)
    procore.get(TOOLS)


def test_the_hourly_limit_is_reported_when_it_is_nearer(emulator, procore):
    emulator.control("PATCH", "flags", rate_limit="on", hourly_limit=3)
    before = time.time()

    responses = [procore.send("GET", TOOLS) for _ in range(4)]

    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert responses[-1].headers["X-Rate-Limit-Limit"] == "3"
    assert int(responses[-1].headers["X-Rate-Limit-Reset"]) >= before + 3600 - 1
    emulator.control("POST", "clock", advance=11)
    assert procore.send("GET", TOOLS).status_code == 429


@pytest.mark.parametrize(
    ("flags", "present"),
    [
        ({"rate_429": "retry_after"}, {"Retry-After"}),
        ({"rate_429": "both"}, {"Retry-After", "X-Rate-Limit-Reset"}),
        ({"rate_headers": "never"}, {"Retry-After"}),
    ],
)
def test_a_rejection_names_the_wait_in_the_flagged_headers(emulator, procore, flags, present):
    rejected = limited(emulator, procore, **flags)

    assert {name for name in ("Retry-After", "X-Rate-Limit-Reset") if name in rejected.headers} == present
    assert 0 < int(rejected.headers["Retry-After"]) <= 11


def test_rate_headers_may_be_there_without_limits(emulator, procore, workflowsoft):
    emulator.control("PATCH", "flags", rate_headers="always", spike_limit=1)

    for _ in range(2):
        assert procore.send("GET", TOOLS).headers["X-Rate-Limit-Remaining"] == "0"
    assert "X-Rate-Limit-Limit" not in workflowsoft.send("GET", "/api/v2/workflows").headers


# --- the record ---


def test_requests_are_recorded_without_secrets(emulator, procore):
    before = len(emulator.requests())
    response = response_to(procore.get(INSTANCE))
    path = f"{INSTANCE}/responses"
    procore.post(path, response, status=204, params={"a": "1"}, headers={"Idempotency-Token": "once"})

    signing_in = emulator.requests()[0]
    assert (signing_in["path"], signing_in["body"], signing_in["has_auth"]) == ("/oauth/token", None, False)
    [shown, responded] = emulator.requests(since=before)
    assert (shown["method"], shown["body"], shown["n"]) == ("GET", None, before + 1)
    at, host = responded.pop("at"), responded.pop("host")
    assert at.endswith("Z")
    assert f"http://{host}" == emulator.url
    assert responded == {
        "n": before + 2,
        "method": "POST",
        "path": path,
        "query": {"a": "1"},
        "status": 204,
        "company_header": "4264807",
        "on_behalf_of": None,
        "has_auth": True,
        "idempotency_token": "once",
        "body": response,
    }


def test_effects_say_who_did_what_to_what(emulator, procore):
    procore.post(f"{INSTANCE}/responses", response_to(procore.get(INSTANCE)), status=204)

    [effect] = emulator.effects()
    assert effect.pop("at").endswith("Z")
    assert effect == {
        "n": 1,
        "product": "procore",
        "action": "respond",
        "by": "90001",
        "target": {"instance_id": "700001", "item_id": "5001", "step_occurrence_id": "70000101"},
        "detail": {"step": "Budget Check", "option": "Approve", "comment": None},
        "via": "api",
    }


def test_of_many_responses_at_once_exactly_one_counts(emulator, procore):
    shown = procore.get(INSTANCE)
    bodies = [response_to(shown) for _ in range(20)]
    for number, body in enumerate(bodies):
        body["response"]["comment"] = str(number)

    def respond(body: dict[str, Any]) -> int:
        url = f"{procore.url}{INSTANCE}/responses"
        return requests.post(url, json=body, headers=procore.session.headers, timeout=10).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(respond, bodies))

    assert sorted(statuses) == [204] + [422] * 19
    assert len(emulator.effects()) == 1


# --- people, connections, wrong orders ---


@pytest.mark.parametrize(
    ("path", "order", "message"),
    [
        ("procore/instances/700001/respond", {"login": "nobody", "option": "Approve"}, "pat@example.com"),
        ("procore/instances/700001/respond", {"login": "rita@example.com", "option": "Agree"}, "Approve, Return"),
        ("procore/instances/700001/respond", {"login": "rita@example.com", "option": "Approve"}, "not_an_assignee"),
        ("procore/instances/1/terminate", {}, "404"),
        ("procore/instances", {"tool_type": "drawing", "item_id": "1"}, "template_not_found"),
        ("procore/instances", {"tool_type": "drawing", "item_id": "1", "project_id": "2"}, "422"),
        ("procore/instances", {"item_id": "1"}, "tool_type"),
        ("no/such/order", {}, "404"),
    ],
)
def test_an_order_that_cannot_be_followed_says_why(emulator, path, order, message):
    with pytest.raises(RuntimeError, match=message):
        emulator.control("POST", path, **order)
    assert emulator.effects() == []


def test_a_user_starts_an_instance_and_an_ended_one_has_no_options(emulator):
    started = emulator.control("POST", "procore/instances", tool_type="prequalification", item_id="1", project_id=None)
    emulator.control("POST", f"procore/instances/{started['id']}/terminate", login="dana@example.com")

    assert [(e["action"], e["by"]) for e in emulator.effects()] == [("start", "90002"), ("terminate", "90004")]
    with pytest.raises(RuntimeError, match="no current step"):
        emulator.control(
            "POST", f"procore/instances/{started['id']}/respond", login="rita@example.com", option="Approve"
        )


# --- many at once, for load tests ---


def test_many_starts_are_recorded_as_one_effect(emulator, procore):
    where = "procore/instances/many"
    started = emulator.control("POST", where, count=3)
    assert started == {"ids": ["700002", "700003", "700004"], "item_ids": ["5002", "5003", "5004"]}
    [effect] = emulator.effects()
    assert (effect["action"], effect["by"], effect["detail"]) == ("start_many", "90002", {"count": 3})
    assert effect["target"] == {"instance_ids": started["ids"], "item_ids": started["item_ids"]}

    shown = [procore.get(f"{PROJECT}/workflows/instances/{instance_id}")["data"] for instance_id in started["ids"]]
    assert [instance["item_id"] for instance in shown] == started["item_ids"]
    assert {instance["current_step_occurrence"]["name"] for instance in shown} == {"Budget Check"}
    assert emulator.control("POST", where, count=1, first_item_id=9000)["item_ids"] == ["9000"]
    other = emulator.control("POST", where, count=2, tool_type="prequalification", project_id=None)
    assert other["item_ids"] == ["1", "2"]


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"count": 2, "first_item_id": 5000}, 400),  # 5001 has an active one
        ({"count": 0}, 422),
        ({"count": 100_001}, 422),
        ({"count": 1, "tool_type": "prequalification"}, 400),
        ({"count": 1, "tool_type": "drawing"}, 404),
        ({"count": 1, "first_item_id": "a"}, 422),
    ],
)
def test_many_instances_are_started_all_or_none(emulator, order, status):
    with pytest.raises(RuntimeError, match=f"returned {status}"):
        emulator.control("POST", "procore/instances/many", **order)
    assert emulator.effects() == []
    assert len(emulator.control("GET", "state")["procore"]) == 1


def test_a_user_responds_to_many_or_none(emulator, procore):
    ids = emulator.control("POST", "procore/instances/many", count=3)["ids"]

    def respond(ids: list[str], login: str) -> None:
        order = {"ids": ids, "login": f"{login}@example.com", "option": "approve"}
        emulator.control("POST", "procore/instances/respond-many", **order)

    def steps() -> list[str | None]:
        return [row["step"] for row in emulator.control("GET", "state")["procore"]]

    respond(ids[:2] * 2, "integration")
    assert steps() == ["Budget Check", "Director Approval", "Director Approval", "Budget Check"]
    for wrong, status in ((ids, 403), ([*ids[:2], "1"], 404)):
        with pytest.raises(RuntimeError, match=f"returned {status}"):
            respond(wrong, "dana")
    assert steps() == ["Budget Check", "Director Approval", "Director Approval", "Budget Check"]
    respond(ids[:2], "dana")
    assert steps() == ["Budget Check", None, None, "Budget Check"]
    with pytest.raises(RuntimeError, match="no current step"):
        respond(ids[:1], "dana")

    responded = [effect for effect in emulator.effects() if effect["action"] == "respond_many"]
    assert [(e["by"], e["target"]["instance_ids"], e["detail"]) for e in responded] == [
        ("90001", ids[:2], {"option": "Approve", "count": 2}),
        ("90004", ids[:2], {"option": "Approve", "count": 2}),
    ]


def test_bulk_response_repeated_changes_only_open_steps(emulator):
    ids = emulator.control("POST", "procore/instances/many", count=2, tool_type="generic_tool_item")["ids"]
    order = {"login": "rita@example.com", "option": "Approve"}
    for some in (ids[:1], ids, ids):
        emulator.control("POST", "procore/instances/respond-many", ids=some, **order)

    changed = [e["target"]["instance_ids"] for e in emulator.effects() if e["action"] == "respond_many"]
    assert changed == [ids[:1], ids[1:]]
    with pytest.raises(RuntimeError, match="returned 422"):
        emulator.control("POST", "procore/instances/respond-many", ids=[], **order)


def test_many_responses_wait_for_a_delayed_transition(emulator):
    emulator.control("PATCH", "flags", transition="delayed")
    ids = emulator.control("POST", "procore/instances/many", count=2)["ids"]
    order = {"ids": ids, "login": "integration@example.com", "option": "Approve"}
    emulator.control("POST", "procore/instances/respond-many", **order)

    def states() -> list[str]:
        return [row["state"] for row in emulator.control("GET", "state")["procore"]]

    assert states() == ["in_progress", "processing", "processing"]
    emulator.control("POST", "clock", advance=3)
    assert states() == ["in_progress"] * 3


def test_many_legacy_instances_are_started_and_performed_on(emulator, legacy):
    started = emulator.control("POST", "procore/legacy/instances/many", count=2)
    assert started == {"ids": ["568152", "568153"], "object_ids": ["1953147", "1953148"]}
    joint = emulator.control("POST", "procore/legacy/instances/many", count=1, workflow="Joint Review Workflow")

    def perform(ids: list[str], login: str, activity: str) -> None:
        order = {"ids": ids, "login": f"{login}@example.com", "activity": activity}
        emulator.control("POST", "procore/legacy/instances/perform-many", **order)

    def states() -> list[str]:
        return [row["state"] for row in emulator.control("GET", "state")["procore_legacy"]]

    with pytest.raises(RuntimeError, match="returned 422"):
        perform([*started["ids"], *joint["ids"]], "pat", "submit for approval")
    with pytest.raises(RuntimeError, match="returned 404"):
        perform([*started["ids"], "1"], "pat", "submit for approval")
    assert states() == ["Start", "Joint Review", "Start", "Start", "Joint Review"]
    perform(started["ids"], "pat", "submit for approval")
    perform(joint["ids"], "pat", "Accept")
    perform(joint["ids"], "rita", "Accept")
    assert states() == ["Start", "Joint Review", "Pending Approval", "Pending Approval", "Accepted"]

    rows = legacy.get("/rest/v1.0/workflow_activity_histories", workflow_instance_id=started["ids"][1])
    assert [row["workflow_activity_name"] for row in rows] == ["Submit for Approval"]
    assert [effect["action"] for effect in emulator.effects()] == ["start_many"] * 2 + ["perform_many"] * 3
    with pytest.raises(RuntimeError, match="Purchase Order Approval Workflow"):
        emulator.control("POST", "procore/legacy/instances/many", count=1, workflow="No such workflow")


def test_ten_thousand_instances_are_started_at_little_cost(emulator):
    for where, numbered in (("procore/instances/many", "item_ids"), ("procore/legacy/instances/many", "object_ids")):
        started = time.process_time()  # the emulator runs in this process
        response = emulator.control("POST", where, count=10_000)
        assert (time.process_time() - started) / slowness() < 3
        assert len(set(response["ids"])) == len(set(response[numbered])) == 10_000


def test_requests_are_counted_by_their_route(emulator, procore, legacy):
    emulator.control("POST", "reset")
    assert emulator.control("GET", "counts") == {"served": 0, "by_path": {}}
    for _ in range(2):
        procore.get(INSTANCE)
    procore.get(f"{PROJECT}/workflows/instances/1", status=404)
    emulator.control("POST", "faults", path="workflow_instances", status=503)
    for number in (568150, 568151):
        legacy_url = f"{legacy.url}/rest/v1.0/workflow_instances/{number}"
        requests.get(legacy_url, params=legacy.query, headers=legacy.session.headers, timeout=5)
    requests.get(f"{emulator.url}/rest/v2.0/nothing", timeout=5)

    counted = {
        "GET /rest/v2.0/companies/{company_id}/projects/{project_id}/workflows/instances/{id}": 3,
        "GET /rest/v1.0/workflow_instances/{id}": 2,
        "GET (no such route)": 1,
    }
    assert emulator.control("GET", "counts") == {"served": 6, "by_path": counted}


def test_the_counts_continue_when_the_record_is_full(emulator, procore, monkeypatch):
    monkeypatch.setattr("airflow_provider_workflows.emulator.state.MAX_STORED_REQUESTS", 3)
    emulator.control("POST", "reset")
    for _ in range(5):
        procore.get(TOOLS)

    assert len(emulator.requests()) == 3
    assert emulator.control("GET", "counts") == {
        "served": 5,
        "by_path": {"GET /rest/v2.0/companies/{company_id}/workflows/tools": 5},
    }


def test_the_state_names_the_pending_assignees(emulator):
    state = emulator.control("GET", "state")

    assert state["procore"][0]["waits_for"] == ["integration@example.com"]
    assert (state["procore"][0]["step"], state["procore"][0]["step_occurrence_id"]) == ("Budget Check", "70000101")
    assert [row["waits_for"] for row in state["procore_legacy"]] == [
        ["integration@example.com"],
        ["integration@example.com", "rita@example.com"],
    ]


def test_the_connections_lead_to_the_emulator(emulator):
    procore = emulator.connection("procore")
    assert (procore["conn_type"], procore["host"], procore["login"]) == ("procore", emulator.url, "emulator-client")
    assert procore["extra"]["login_url"] == emulator.url
    workflowsoft = emulator.connection("workflowsoft")
    assert workflowsoft["extra"] == {"allow_consume": True}  # reading consumes, as in production
    with pytest.raises(KeyError):
        emulator.connection("other")


@pytest.mark.parametrize(
    ("path", "status", "form"),
    [
        ("/rest/v2.0/nothing", 404, "error"),
        ("/rest/v1.0/nothing", 404, "message"),
        ("/api/v2/nothing", 404, "Message"),
        ("/oauth/nothing", 404, "error"),
    ],
)
def test_unknown_route_is_rejected_in_the_format_of_its_api(emulator, path, status, form):
    response = requests.get(emulator.url + path, timeout=5)

    assert response.status_code == status
    assert form in response.json()


API_ERRORS = {
    "/rest/v2.0/companies/4264807/projects/1001/workflows/instances": lambda body: body["error"]["message"],
    "/rest/v1.0/workflow_activity_histories": lambda body: body["message"],
    "/api/v2/tasks": lambda body: body["Message"],
    "/_emulator/procore/instances": lambda body: body["error"],
}


@pytest.mark.parametrize("path", API_ERRORS)
@pytest.mark.parametrize(
    ("body", "problem"),
    [(b'{"comment": "\\ud800"}', "half of a surrogate pair"), (b"[" * 100_000, "nested too deeply")],
)
def test_json_that_cannot_be_stored_is_rejected(emulator, path, body, problem):
    response = requests.post(emulator.url + path, data=body, headers={"Content-Type": "application/json"}, timeout=10)

    assert response.status_code == 400
    assert problem in API_ERRORS[path](response.json())


def test_a_wrong_method_is_rejected_with_the_allowed_ones(emulator):
    response = requests.put(f"{emulator.url}{next(iter(API_ERRORS))}", timeout=10)

    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, HEAD, POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_head_is_get_without_a_body(emulator):
    response = requests.head(f"{emulator.url}/_emulator/state", timeout=10)

    assert (response.status_code, response.content) == (200, b"")


def test_too_many_presets_at_once_are_rejected(emulator):
    with pytest.raises(RuntimeError, match="count"):
        emulator.control("POST", "procore/presets", count=10_001)
