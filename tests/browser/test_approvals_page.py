"""The Approvals page in a browser, in an iframe as Airflow's UI makes it, with made-up responses of its server."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import FrameLocator, Page, Route, expect

from airflow_provider_workflows import plugin
from airflow_provider_workflows.plugin.app import FILES, FOLDER, HEADERS

pytestmark = pytest.mark.browser

expect.set_options(timeout=60_000)  # milliseconds; a busy machine takes its time

BASE = "http://airflow.test/air"  # Airflow served below a path
APP = f"{BASE}{plugin.URL_PREFIX}"
SHELL = f"{BASE}/plugin/workflows-approvals"
SANDBOX = "allow-scripts allow-same-origin allow-forms"  # of Airflow 3.1 and 3.2; later ones allow more
NOW = datetime(2030, 1, 7, 9, tzinfo=timezone.utc)
MARKUP = "<img src=x onerror='window.hit = 1'><script>window.hit = 1</script>\"'>"


def wait(item_id: str = "5001", **values: Any) -> dict[str, Any]:
    """Return a row as the server sends it."""
    texts = [
        "asset",
        "watcher",
        "label",
        "instance_id",
        "project_id",
        "item_url",
        "due",
        "deadline",
        "last_error",
        "note",
        "subject",
    ]
    return {
        **dict.fromkeys(texts),
        "kind": "task",
        "dag_id": "orders",
        "run_id": "manual__2030-01-07T08:00:00+00:00",
        "task_id": "wait",
        "map_index": -1,
        "try_number": 1,
        "state": "deferred",
        "product": "procore",
        "workflow": "Order Approval",
        "item_id": item_id,
        "tool_type": "purchase_order_contract",
        "step": "Director Approval",
        "assignees": ["dana@example.com"],
        "more_assignees": 0,
        "since": (NOW - timedelta(days=3)).isoformat(),
        "started_at": NOW.isoformat(),
        "overdue": False,
        "poll_interval": 60.0,
        "as_of": NOW.isoformat(),
        **values,
    }


class Server:
    """Serve the page's files, and responses that a test can change; record what the page requests."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.rows = [wait()]
        self.response: dict[str, Any] = {}  # what differs from the usual response
        self.task: dict[str, Any] = {"row": None, "message": "Nothing to show.", "reads_allowed": False}
        self.status = 200
        self.report: tuple[int, dict[str, Any]] = (200, {"read": 1, "skipped": [], "errors": []})
        self.requested: list[tuple[str, dict[str, str]]] = []
        self.foreign: list[str] = []
        self.wrong: list[str] = []
        page.context.route("**/*", self._serve)
        page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _serve(self, route: Route) -> None:
        address = urlsplit(route.request.url)
        if not route.request.url.startswith(f"{BASE}/"):
            self.foreign.append(route.request.url)
            return route.fulfill(body="<title>elsewhere</title>", content_type="text/html")
        path = address.path.removeprefix("/air")
        name = path.removeprefix(f"{plugin.URL_PREFIX}/")
        if path.startswith(("/plugin/", "/dags/")) or path == "/":
            return route.fulfill(body=self._airflow(address.path, address.query), content_type="text/html")
        if name in ("", "task") or name in FILES:
            kind = FILES.get(name, "text/html")
            return route.fulfill(
                body=(FOLDER / (name if name in FILES else "index.html")).read_text(),
                content_type=kind,
                headers=HEADERS,
            )
        self.requested.append((name, dict(parse_qsl(address.query, keep_blank_values=True))))
        if name == "api/waits.csv":
            headers = {"Content-Disposition": 'attachment; filename="approvals.csv"'}
            return route.fulfill(body="product\r\nprocore\r\n", content_type="text/csv", headers=headers)
        status, body = self.status, self.task if name == "api/task" else self.waits()
        if name == "api/read":
            assert route.request.headers["content-type"] == "application/json"
            status, body = self.report
        return route.fulfill(status=status, body=json.dumps(body), content_type="application/json")

    def waits(self) -> dict[str, Any]:
        people = sorted({name for row in self.rows for name in row["assignees"]})
        overdue = sum(row["overdue"] for row in self.rows)
        tiles = {"open": len(self.rows), "overdue": overdue, "oldest_since": (NOW - timedelta(days=3)).isoformat()}
        return {
            "as_of": NOW.isoformat(),
            "page": 1,
            "pages": 1,
            "total": len(self.rows),
            "reads_allowed": False,
            "tiles": {**tiles, "median_age_seconds": 7200},
            "people": [{"name": name, "count": 2, "overdue": 1} for name in people],
            "dags": ["invoices", "orders"],
            "products": ["procore", "workflowsoft"],
            "rows": self.rows,
            **self.response,
        }

    def _airflow(self, path: str, query: str) -> str:
        """Return a page like Airflow's: its address shows where the iframe is."""
        inner = path.removeprefix("/air/plugin/workflows-approvals")
        source = f"{inner}?{query}" if inner else f"{APP}/"
        source = f"{APP}/task?{query}" if path.endswith("/task-tab") else source
        return (
            f"<html class=light><title>Airflow</title><body><iframe sandbox='{SANDBOX}' width=100% height=850 "
            f"src='{source.replace(chr(39), '%27')}'></iframe></body></html>"
        )

    def open(self, query: str = "") -> FrameLocator:
        """Open the page inside Airflow and return the iframe."""
        self.page.goto(f"{SHELL}{query}")
        return self.frame()

    def frame(self) -> FrameLocator:
        return self.page.frame_locator("iframe")

    def refresh(self) -> None:
        """Let the page refresh now, as it does when it becomes visible."""
        inner = self.page.frames[1]
        with self.page.expect_response(re.compile("/api/(waits|task)")):
            inner.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


@pytest.fixture
def server(page: Page) -> Server:
    return Server(page)


def test_a_wait_shows_what_on_whom_and_since_when(server):
    more = {"assignees": ["dana@example.com", "pat@example.com"], "more_assignees": 3, "last_error": "HTTP 503"}
    server.rows = [wait(due="2030-01-06", overdue=True, escalation_level=2, instance_id="700001", **more)]
    frame = server.open()
    row = frame.locator("tbody tr")

    for text in ("Procore", "purchase order contract 5001", "instance 700001", "Director Approval", "3 d", "overdue"):
        expect(row).to_contain_text(text)
    for text in ("dana@example.com", "pat@example.com", "and 3 more", "HTTP 503", "every 1 min", "DAG orders"):
        expect(row).to_contain_text(text)
    expect(row).to_contain_text("escalation level 2")
    expect(row.locator("td").nth(4).locator("time")).to_have_attribute("title", re.compile("4 January 2030.*09:00"))
    tiles = frame.locator("#tiles")
    for text in ("Open1", "Overdue1", "Oldest3 d", "Median age2 h"):
        expect(tiles).to_contain_text(re.compile(r"\s*".join((text[:-1], text[-1]))))
    assert (server.foreign, server.wrong) == ([], [])


def test_a_watcher_and_an_unknown_wait_say_what_is_known(server):
    nothing = dict.fromkeys(["workflow", "item_id", "tool_type", "step", "since", "as_of", "poll_interval"])
    server.rows = [
        wait(**nothing, assignees=[], note="Nothing is stored."),
        wait(**nothing, **dict.fromkeys(["dag_id", "run_id", "task_id", "map_index", "try_number"]))
        | {"kind": "watcher", "asset": "events", "watcher": "w1", "assignees": [], "state": "watching"},
        wait(map_index=4, label="item 9", task_id="mapped"),
    ]
    rows = server.open().locator("tbody tr")

    expect(rows.nth(0)).to_contain_text("Nothing is stored.")
    expect(rows.nth(0)).to_contain_text("task started")
    expect(rows.nth(1)).to_contain_text("watcher of asset events")
    expect(rows.nth(2).get_by_role("link", name="mapped [item 9]")).to_have_attribute("href", re.compile("/mapped/4$"))
    assert server.wrong == []


def test_names_become_text_and_links_lead_to_the_web_only(server):
    names = dict.fromkeys(["step", "workflow", "item_id", "subject", "last_error", "note", "label", "dag_id"], MARKUP)
    server.rows = [wait(**names, map_index=1, assignees=[MARKUP], item_url="javascript:window.hit=1")]
    server.response = {"dags": [MARKUP], "people": [{"name": MARKUP, "count": 1, "overdue": 0}]}
    frame = server.open("?group=true")
    expect(frame.locator("tbody tr")).to_contain_text(MARKUP)
    expect(frame.locator("#people")).to_contain_text(MARKUP)

    assert frame.locator("main :is(img, script, [href^=javascript])").count() == 0
    assert [inner.evaluate("window.hit") for inner in server.page.frames] == [None, None]


def test_filters_are_sent_and_survive_a_reload(server):
    frame = server.open()
    frame.get_by_role("combobox", name="Person").select_option("dana@example.com (2)")
    frame.get_by_role("combobox", name="DAG").select_option("orders")
    frame.get_by_role("combobox", name="Product").select_option("Procore")
    frame.get_by_label("Overdue only").check()
    frame.get_by_label("Search").fill("700 & 1")
    frame.get_by_role("button", name="Due", exact=True).click()
    frame.get_by_role("button", name="Due", exact=True).click()
    filters = {"person": "dana@example.com", "dag_id": "orders", "product": "procore", "overdue": "true"}
    filters |= {"search": "700 & 1", "sort": "due", "descending": "true"}
    expect(frame.get_by_role("columnheader", name="Due")).to_have_attribute("aria-sort", "descending")
    expect(server.page).to_have_url(re.compile("search=700"))
    assert dict(parse_qsl(urlsplit(server.page.url).query)) == filters

    server.requested.clear()
    server.page.reload()
    expect(server.frame().locator("tbody tr")).to_be_visible()
    assert server.requested[0] == ("api/waits", filters)
    expect(server.frame().get_by_label("Search")).to_have_value("700 & 1")
    expect(server.frame().get_by_label("Overdue only")).to_be_checked()

    server.frame().get_by_role("button", name="Reset filters").click()
    expect(server.frame().get_by_label("Overdue only")).not_to_be_checked()
    assert urlsplit(server.page.url).query == ""


def test_group_by_person_counts_and_selects(server):
    server.response = {"people": [{"name": "dana", "count": 7, "overdue": 2}, {"name": "", "count": 1, "overdue": 0}]}
    frame = server.open()
    frame.get_by_label("Group by person").check()
    expect(frame.get_by_role("button", name=re.compile("dana ?7, 2 overdue"))).to_be_visible()

    unknown = frame.get_by_role("button", name=re.compile("not known ?1"))
    with server.page.expect_response(re.compile("/api/waits")):
        unknown.click()
    assert server.requested[-1] == ("api/waits", {"person": ""})
    expect(unknown).to_have_attribute("aria-pressed", "true")
    expect(unknown).to_be_focused()


def test_pages_of_many_waits_are_turned(server):
    server.response = {"pages": 3, "total": 117}
    frame = server.open()
    expect(frame.locator("#page")).to_have_text("Page 1 of 3")
    server.response["page"] = 2
    frame.get_by_role("button", name="Next").click()
    expect(frame.locator("#page")).to_have_text("Page 2 of 3")
    assert server.requested[-1] == ("api/waits", {"page": "2"})


def test_csv_is_downloaded_with_the_filters_out_of_the_sandbox(server):
    frame = server.open("?overdue=true")
    with server.page.expect_download() as download:
        frame.get_by_role("link", name="Download CSV").click()
    assert download.value.url == f"{APP}/api/waits.csv?overdue=true"
    assert download.value.suggested_filename == "approvals.csv"


def test_links_lead_out_of_the_iframe(server):
    server.rows = [wait(item_url="https://procore.test/orders/5001")]
    frame = server.open()
    with server.page.expect_popup() as item:
        frame.get_by_role("link", name="purchase order contract 5001").click()
    assert item.value.url == "https://procore.test/orders/5001"

    frame.get_by_role("link", name="wait", exact=True).click()
    server.page.wait_for_url(f"{BASE}/dags/orders/runs/manual__2030-01-07T08%3A00%3A00%2B00%3A00/tasks/wait")


def test_without_login_airflow_is_opened_and_no_row_is_shown(server):
    server.status = 401
    server.page.goto(SHELL)
    server.page.wait_for_url(f"{BASE}/")


def test_read_now_appears_only_where_reads_are_allowed(server):
    frame = server.open()
    expect(frame.locator("tbody tr")).to_be_visible()
    read = frame.get_by_role("button", name="Read now")
    expect(read).to_be_hidden()

    server.response = {"reads_allowed": True}
    server.report = (200, {"read": 12, "skipped": [{"conn_id": "c1", "reason": "Wait 40 s."}], "errors": []})
    server.refresh()
    read.click()
    expect(frame.get_by_role("status")).to_have_text("12 waits read. c1: Wait 40 s.")
    server.report = (403, {"detail": "Reading is off."})
    read.click()
    expect(frame.get_by_role("status")).to_have_text("Reading is off.")


def test_a_refresh_keeps_the_focus_and_announces_the_figures(server):
    server.rows = [wait("1"), wait("2", task_id="second")]
    frame = server.open()
    frame.get_by_role("link", name="second").focus()
    server.rows = [wait("2", task_id="second", step="Final Approval", overdue=True)]
    server.refresh()

    expect(frame.locator("tbody tr")).to_have_count(1)
    expect(frame.locator("tbody tr")).to_contain_text("Final Approval")
    expect(frame.get_by_role("link", name="second")).to_be_focused()
    expect(frame.get_by_role("status")).to_have_text("1 open, 1 overdue.")
    server.rows = []
    server.refresh()
    expect(frame.get_by_text("No task waits now.")).to_be_visible()
    expect(frame.get_by_role("heading", name="Approvals")).to_be_focused()


def test_the_page_refreshes_by_itself_and_less_often_when_hidden(server):
    server.page.clock.install(time=NOW)
    frame = server.open()
    expect(frame.locator("tbody tr")).to_be_visible()
    server.rows = [wait(step="Final Approval")]
    server.page.clock.run_for(11_000)
    expect(frame.locator("tbody tr")).to_contain_text("Final Approval")

    server.page.frames[1].evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    server.page.frames[1].evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    count = len(server.requested)
    server.page.clock.run_for(50_000)
    assert len(server.requested) == count
    with server.page.expect_response(re.compile("/api/waits")):
        server.page.clock.run_for(11_000)


def test_an_outage_is_shown_and_the_last_rows_stay(server):
    frame = server.open()
    expect(frame.locator("tbody tr")).to_be_visible()
    server.status, server.response = 503, {"detail": "The database is away."}
    server.refresh()
    expect(frame.get_by_role("alert")).to_have_text("The database is away.")
    expect(frame.locator("tbody tr")).to_be_visible()
    server.status, server.response = 200, {}
    server.refresh()
    expect(frame.locator("#problem")).to_have_text("")


def test_inside_airflow_the_page_follows_airflows_theme(server):
    server.page.emulate_media(color_scheme="dark")
    frame = server.open()
    expect(frame.locator("body")).to_have_css("background-color", "rgb(245, 246, 247)")
    server.page.evaluate("document.documentElement.className = 'dark'")
    expect(frame.locator("body")).to_have_css("background-color", "rgb(20, 24, 27)")


def test_outside_airflow_the_page_follows_the_system(server):
    server.page.emulate_media(color_scheme="dark")
    server.page.goto(f"{APP}/")
    expect(server.page.locator("tbody tr")).to_be_visible()
    expect(server.page.locator("body")).to_have_css("background-color", "rgb(20, 24, 27)")
    server.page.get_by_role("link", name="wait", exact=True).click()
    server.page.wait_for_url(f"{BASE}/dags/**")


def test_the_keyboard_reaches_filters_sorting_and_links(server):
    frame = server.open()
    expect(frame.locator("tbody tr")).to_be_visible()
    frame.get_by_label("Search").focus()
    expected = {"person", "dag_id", "product", "overdue", "group", "Item", "Since", "wait", "orders"}
    for _ in range(40):
        server.page.keyboard.press("Tab")
        active = server.page.frames[1].evaluate("[document.activeElement.name, document.activeElement.textContent]")
        assert server.page.frames[1].evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        expected -= set(active)
        if not expected:
            break
        if active[1] == "Due":
            server.page.keyboard.press("Enter")
            expect(frame.get_by_role("columnheader", name="Due")).to_have_attribute("aria-sort", "ascending")
    assert expected == set()


def test_a_phone_shows_cards_without_scrolling_sideways(server):
    server.rows = [wait("long" * 60, assignees=["a" * 120], last_error="e" * 300)]
    server.page.set_viewport_size({"width": 360, "height": 740})
    server.page.goto(f"{APP}/?group=true")
    page = server.page
    expect(page.locator("tbody tr")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("td").first.evaluate("(cell) => getComputedStyle(cell, '::before').content") == '"Product"'
    outside = (
        "(all) => all.filter((element) => element.offsetParent && element.getBoundingClientRect().right > 360).length"
    )
    assert page.locator("button, input, select, a").evaluate_all(outside) == 0
    with page.expect_response(re.compile("/api/waits")):
        page.get_by_label("Sort by").select_option("Due")
    assert server.requested[-1][1]["sort"] == "due"


def test_the_tab_of_a_task_shows_its_wait_or_one_line(server):
    ids = "?dag_id=orders&run_id=manual__2030-01-07T08%3A00%3A00+00:00&task_id=wait&map_index={MAP_INDEX}"
    server.page.goto(f"{SHELL}/task-tab{ids}")
    frame = server.frame()
    expect(frame.get_by_text("Nothing to show.")).to_be_visible()
    assert server.requested[0][1]["run_id"] == "manual__2030-01-07T08:00:00+00:00"

    server.task = {"row": wait(), "message": None, "reads_allowed": True}
    server.refresh()
    expect(frame.locator("#wait")).to_contain_text("Director Approval")
    expect(frame.locator("#wait")).to_contain_text("dana@example.com")
    frame.get_by_role("button", name="Read now").click()
    expect(frame.get_by_role("status")).to_have_text("1 wait read.")
    run = "manual__2030-01-07T08:00:00+00:00"
    assert ("api/read", {"dag_id": "orders", "search": run}) in server.requested
