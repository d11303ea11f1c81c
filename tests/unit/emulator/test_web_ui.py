"""The page at `/`, without a browser: its files, the overview it reads, and who may act through it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import requests

from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.emulator.app import EmulatorApp
from airflow_provider_workflows.emulator.behaviour_flags import BEHAVIOUR_FLAGS
from airflow_provider_workflows.emulator.web_ui import FILES, PAGE_FOLDER
from tests.unit.emulator.conftest import PROJECT

INTEGRATION = {"login": "integration@example.com", "option": "Approve"}


def get(emulator: Emulator, path: str, headers: dict[str, str] | None = None) -> requests.Response:
    return requests.get(emulator.url + path, headers=headers, timeout=10)


def overview(emulator: Emulator, search: str = "") -> Any:
    return emulator.control("GET", "overview", search=search)


def instances(emulator: Emulator, api: str, search: str = "") -> dict[str, Any]:
    return {instance["id"]: instance for instance in overview(emulator, search)["apis"][api]["instances"]}


def press(emulator: Emulator, action: dict[str, Any], **more: Any) -> Any:
    return emulator.control("POST", action["path"], **action["body"], **more)


class Elements(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


# --- the files ---


def test_emulator_page_needs_nothing_external_and_no_frame(emulator):
    page = get(emulator, "/")
    elements = Elements(page.text).found

    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    for tag, attributes in elements:
        assert tag != "style"
        assert tag != "script" or attributes["src"]
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
    linked = {value for _, attributes in elements for name, value in attributes.items() if name in ("src", "href")}
    assert all(get(emulator, path).status_code == 200 for path in linked)
    for file in PAGE_FOLDER.iterdir():
        assert set(re.findall(r"\w+://[\w./]*", file.read_text())) <= {"http://www.w3.org/2000/svg"}, file.name


def test_the_page_serves_only_its_own_files(emulator):
    for path, (content, media_type) in FILES.items():
        served = get(emulator, path)
        assert (served.status_code, served.content) == (200, content)
        assert served.headers["Content-Type"].startswith(media_type)
    assert sorted(file.read_bytes() for file in PAGE_FOLDER.iterdir()) == sorted(
        content for content, _ in FILES.values()
    )
    for path in ("/index.html", "/page/page.js", "/_emulator/page/page.js", "/_emulator/..%2fapp.py", "/_emulator/"):
        assert get(emulator, path).status_code == 404


def test_every_control_has_a_name_and_every_label_a_control(emulator):
    elements = Elements(get(emulator, "/").text).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]

    assert len(ids) == len(set(ids))
    named_by = [
        value
        for _, attributes in elements
        for name in ("for", "aria-labelledby")
        for value in [attributes.get(name)]
        if value
    ]
    assert set(named_by) <= set(ids)


def test_page_polls_do_not_count_as_requests(emulator):
    emulator.control("POST", "faults", status=500, times=100)
    for path in ("/", "/_emulator/overview", "/_emulator/page.js", "/_emulator/page.svg"):
        assert get(emulator, path).status_code == 200

    assert emulator.requests() == []
    assert emulator.control("GET", "counts")["served"] == 0
    assert emulator.control("GET", "faults")[0]["fired"] == 0


# --- the overview ---


def test_page_shows_state_step_history_and_actions_of_v2(emulator):
    emulator.control("POST", "procore/instances/700001/respond", **INTEGRATION, comment="Within budget.")
    instance = instances(emulator, "procore")["700001"]

    assert (instance["title"], instance["item"], instance["state"], instance["step"]) == (
        "Purchase Order Approval",
        "5001",
        "in progress",
        "Director Approval",
    )
    assert instance["pending_with"] == ["Dana Director"]
    shown = [(event["what"], event["by"], event["comment"]) for event in instance["history"]]
    assert shown == [
        ("Started", "Pat Manager", None),
        ("Budget Check: Approve", "Airflow Integration", "Within budget."),
        ("Over 10,000?", None, None),
    ]
    assert [(action["by"], action["label"]) for action in instance["actions"]] == [
        ("Dana Director", "Approve"),
        ("Dana Director", "Return"),
        ("Dana Director", "Reject"),
        (None, "Block"),
        (None, "Terminate"),
    ]
    press(emulator, instance["actions"][0])
    instance = instances(emulator, "procore")["700001"]
    assert (instance["state"], instance["tone"], instance["step"], instance["pending_with"]) == (
        "complete",
        "good",
        "Approved",
        [],
    )
    assert instance["actions"] == []


def test_a_step_of_v2_that_moves_accepts_no_response(emulator):
    emulator.control("PATCH", "flags", transition="delayed", transition_delay=3600)
    emulator.control("POST", "procore/instances/700001/respond", **INTEGRATION)
    instance = instances(emulator, "procore")["700001"]

    assert instance["state"] == "processing"
    assert [action["label"] for action in instance["actions"]] == ["Block", "Terminate"]


@pytest.mark.parametrize(
    ("label", "state", "tone", "note"),
    [
        ("Block", "blocked", "trouble", "The role has no members."),
        ("Terminate", "terminated", "ended", None),
        ("Reject", "complete", "ended", None),
    ],
)
def test_each_button_of_v2_does_what_it_says(emulator, label, state, tone, note):
    (action,) = [action for action in instances(emulator, "procore")["700001"]["actions"] if action["label"] == label]
    press(emulator, action)

    instance = instances(emulator, "procore")["700001"]
    assert (instance["state"], instance["tone"], instance["note"]) == (state, tone, note)


def test_time_makes_an_instance_overdue_on_the_page(emulator):
    emulator.control("POST", "clock", advance=4 * 86400)

    assert overview(emulator)["moved"] == 4 * 86400
    instance = instances(emulator, "procore")["700001"]
    assert (instance["state"], instance["tone"]) == ("overdue", "trouble")


def test_users_perform_a_legacy_instance_to_its_end(emulator):
    instance = instances(emulator, "legacy")["568150"]
    assert (instance["state"], instance["step"], instance["pending_with"]) == (
        "draft",
        "Start",
        ["Airflow Integration"],
    )
    assert [(action["by"], action["label"]) for action in instance["actions"]] == [
        ("Airflow Integration", "Submit for Approval"),
        ("Pat Manager", "Submit for Approval"),
        (None, "Upgrade tool"),
        (None, "Terminate"),
    ]
    press(emulator, instance["actions"][1])
    instance = instances(emulator, "legacy")["568150"]
    assert (instance["step"], instance["pending_with"], instance["tone"]) == (
        "Pending Approval",
        ["Rita Reviewer"],
        "waits",
    )
    press(emulator, instance["actions"][0])
    instance = instances(emulator, "legacy")["568150"]

    assert (instance["state"], instance["step"], instance["tone"]) == ("approved", "PO Approved", "good")
    assert [(event["what"], event["by"]) for event in instance["history"]] == [
        ("Start: Submit for Approval", "Pat Manager"),
        ("Pending Approval: Approve", "Rita Reviewer"),
    ]


def test_a_legacy_instance_can_be_terminated(emulator):
    press(emulator, instances(emulator, "legacy")["568151"]["actions"][-1])

    instance = instances(emulator, "legacy")["568151"]
    assert (instance["state"], instance["tone"], instance["actions"]) == ("terminated", "ended", [])
    assert [(event["what"], event["by"]) for event in instance["history"]] == [("Terminated", "Pat Manager")]


@pytest.mark.parametrize("has_workflow", [True, False])
def test_button_upgrades_the_tool_of_a_legacy_instance(emulator, has_workflow):
    emulator.control("POST", "procore/presets/401", default=has_workflow)
    press(emulator, next(a for a in instances(emulator, "legacy")["568150"]["actions"] if a["label"] == "Upgrade tool"))

    instance = instances(emulator, "legacy")["568151"]
    state = ("draft", "ended") if has_workflow else ("stuck", "trouble")
    assert (instance["state"], instance["tone"], instance["pending_with"]) == (*state, [])
    assert len(instance["actions"]) == has_workflow
    for action in instance["actions"]:
        press(emulator, action)
        assert "1953146" in {instance["item"] for instance in instances(emulator, "procore").values()}
        assert instances(emulator, "legacy")["568151"]["actions"] == []


def test_an_instance_of_workflowsoft_can_be_filled_and_completed(emulator):
    started = emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
    instance = instances(emulator, "workflowsoft")[started["integration_instance_id"]]
    assert (instance["title"], instance["step"], instance["state"]) == ("Event planning", "Check event", "open")
    fields = {field["label"]: field for field in instance["fields"]}
    assert fields["Event name"]["json"] == '"Event Test"'
    assert fields["Requested by"]["read_only"]
    assert fields["Venue"]["required"]

    complete, reject = instance["actions"]
    assert (complete["label"], reject["label"]) == ("Complete", "Reject")
    with pytest.raises(RuntimeError, match="Required fields are empty: Venue"):
        press(emulator, complete)
    press(emulator, complete, fields={fields["Venue"]["name"]: "Hall 2"})
    first, second = (
        instances(emulator, "workflowsoft")[instance["id"]],
        overview(emulator)["apis"]["workflowsoft"]["instances"][0],
    )
    assert (first["state"], first["tone"], first["actions"]) == ("completed", "good", [])
    assert [(event["what"], event["by"]) for event in first["history"]] == [("Complete", "Olga Owner")]
    assert (second["step"], second["state"]) == ("Publish event", "open")


def test_what_was_read_and_consumed_is_reported(emulator, workflowsoft):
    emulator.control("PATCH", "flags", new_integrations="consumed_on_read")
    started = emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
    workflowsoft.get("/api/v2/workflows/instances/new-integrations", id=101)

    instance = instances(emulator, "workflowsoft")[started["integration_instance_id"]]
    assert (instance["state"], instance["note"]) == ("consumed", "read once")


@pytest.mark.parametrize("api", ["procore", "legacy", "workflowsoft"])
def test_everything_that_is_offered_to_be_started_can_be(emulator, api):
    starts = overview(emulator)["apis"][api]["starts"]
    item = {"item_id": "6001"} if api == "procore" else {}
    had = overview(emulator)["apis"][api]["total"]
    for start in starts:
        press(emulator, start, **item)

    shown = overview(emulator)["apis"][api]
    assert shown["total"] == had + len(starts)
    assert {instance["title"] for instance in shown["instances"]} >= {start["label"] for start in starts}


def test_faults_and_flags_are_reported(emulator):
    emulator.control("POST", "faults", status=429, path="^/rest")
    emulator.control("PATCH", "flags", history="absent")
    shown = overview(emulator)

    assert [(fault["status"], fault["path"], fault["fired"]) for fault in shown["faults"]] == [(429, "^/rest", 0)]
    flags = {flag["name"]: flag for flag in shown["flags"]}
    assert list(flags) == list(BEHAVIOUR_FLAGS)
    assert (flags["history"]["value"], flags["history"]["values"][0]) == ("absent", "full")


def test_every_fault_that_the_page_offers_is_taken(emulator):
    options = [
        attributes.get("value") for tag, attributes in Elements(get(emulator, "/").text).found if tag == "option"
    ]
    kinds = [json.loads(value) for value in options if value and value.startswith("{")]
    for kind in kinds:
        emulator.control("POST", "faults", **kind, path="^/(rest|api)/", method=None, times=1)

    assert len(emulator.control("GET", "faults")) == len(kinds) >= 5


# --- what it costs ---


def test_a_poll_without_changes_gets_no_body(emulator):
    def poll_again(version: str) -> requests.Response:
        return get(emulator, "/_emulator/overview", {"If-None-Match": version})

    # A minute that passes is news, so there are two chances.
    responses = [poll_again(get(emulator, "/_emulator/overview").headers["ETag"]) for _ in range(2)]
    assert (304, b"") in [(response.status_code, response.content) for response in responses]
    version = responses[-1].headers["ETag"]
    for path, body in (
        ("clock", {"advance": 60}),
        ("procore/instances/700001/respond", INTEGRATION),
        ("faults", {"status": 500, "path": "tools"}),
        ("reset", {}),
    ):
        emulator.control("POST", path, **body)
        assert poll_again(version).status_code == 200
        version = poll_again("").headers["ETag"]


def test_a_request_to_an_emulated_api_changes_the_overview(emulator, procore):
    version = get(emulator, "/_emulator/overview").headers["ETag"]
    procore.get(f"{PROJECT}/workflows/instances/700001")

    response = get(emulator, "/_emulator/overview", {"If-None-Match": version})
    assert response.json()["requests"] == 2  # with the one that signed in


def test_a_transition_without_a_request_changes_the_overview():
    app = EmulatorApp("default")
    app.state.flags.update(transition="delayed", transition_delay=2)
    instance = app.procore.instances["700001"]
    option = instance.occurrences[-1].step.wire_options[0]["id"]
    app.procore.respond(instance, instance.occurrences[-1].id, "90001", option, None, [], "user")
    version = app.version
    app.state.clock.offset += 3
    app.procore.catch_up()

    assert app.version != version


def test_newest_hundred_of_many_instances_are_shown(emulator):
    emulator.control("POST", "reset", seed="large")
    for api, newest in (("procore", "710001"), ("legacy", "578151")):
        shown = overview(emulator)["apis"][api]
        assert (shown["total"], shown["more"], len(shown["instances"])) == (10_002 - (api == "procore"), True, 100)
        assert shown["instances"][0]["id"] == newest
    assert len(get(emulator, "/_emulator/overview").content) < 500_000

    emulator.control("POST", "procore/instances/700001/terminate")
    for search in ("700001", " 5001 ", "Terminated"):
        assert "700001" in instances(emulator, "procore", search)
    assert next(iter(instances(emulator, "procore", "in progress"))) == "710001"
    assert list(instances(emulator, "legacy", "1953146")) == ["568151"]
    assert list(instances(emulator, "legacy", "JOINT review")) == ["568151"]
    assert instances(emulator, "procore", "no such thing") == {}


# --- who may act ---


def test_what_others_wrote_is_data_and_never_part_of_the_page(emulator):
    name = '"><script>alert(1)</script>'
    emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id=name)
    response = get(emulator, f"/_emulator/overview?search={name}")

    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert [instance["item"] for instance in response.json()["apis"]["procore"]["instances"]] == [name]
    assert "alert(1)" not in get(emulator, f"/?search={name}").text


def post_from(emulator: Emulator, origin: str | None, host: str | None = None, path: str = "") -> int:
    """Send what a button sends, as a page of that origin does in a request to that host."""
    headers = {name: value for name, value in (("Origin", origin), ("Host", host)) if value is not None}
    url = emulator.url + (path or "/_emulator/procore/instances/700001/respond")
    return requests.post(url, json=INTEGRATION, headers=headers, timeout=10).status_code


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://elsewhere.example", None),
        ("null", None),
        ("http://127.0.0.1:1", None),
        ("https://127.0.0.1:PORT", None),
        ("http://localhost:PORT", None),
        # A name that was made to lead to this machine.
        ("http://elsewhere.example:PORT", "elsewhere.example:PORT"),
        ("http://127.0.0.1.elsewhere.example:PORT", "127.0.0.1.elsewhere.example:PORT"),
    ],
)
@pytest.mark.parametrize("path", ["", "/_emulator/reset", "/oauth/token"])
def test_a_page_of_another_site_cannot_send_actions(emulator, origin, host, path):
    port = emulator.url.rpartition(":")[2]

    assert post_from(emulator, origin.replace("PORT", port), host and host.replace("PORT", port), path) == 403
    assert emulator.effects() == []
    assert emulator.requests() == []


@pytest.mark.parametrize("host", [None, "127.0.0.1:PORT", "localhost:PORT", "[::1]:PORT"])
def test_the_emulators_page_can_act_by_each_of_its_addresses(emulator, host):
    port = emulator.url.rpartition(":")[2]
    host = host and host.replace("PORT", port)

    assert post_from(emulator, f"http://{host}" if host else None, host) == 200
    assert [effect["action"] for effect in emulator.effects()] == ["respond"]


def test_request_without_an_origin_may_act_under_any_name(emulator):
    assert post_from(emulator, None, "emulator.internal:8099") == 200
