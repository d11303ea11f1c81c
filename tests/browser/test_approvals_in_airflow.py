"""The Approvals page in Airflow's own UI, with waits of a real triggerer, seen by a browser."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from tests.browser.page import button, card
from tests.browser.running import Running
from tests.support.open_waits import WAITS, open_waits

pytestmark = [pytest.mark.browser, pytest.mark.live]

expect.set_options(timeout=120_000)  # milliseconds; a busy machine takes its time

ITEM = "<img src=x onerror='window.hit = 1'>"


@pytest.fixture(scope="module")
def open_run(running: Running) -> str:
    return open_waits(running.airflow, running.workflows)


def approvals(running: Running, page: Page, query: str = "") -> FrameLocator:
    """Open the Approvals page and return its iframe."""
    page.goto(f"{running.airflow.url}/plugin/workflows-approvals{query}")
    frame = page.frame_locator("iframe[title=Approvals]")
    expect(frame.get_by_role("heading", name="Approvals")).to_be_visible()
    return frame


def rows(frame: FrameLocator, text: str = "") -> Locator:
    return frame.locator("tbody tr").filter(has_text=text)


def test_navigation_leads_to_all_open_waits(running, open_run, page, shot):
    page.goto(running.airflow.url)
    page.get_by_role("button", name="Browse").click()
    page.get_by_role("menuitem", name="Approvals").click()
    frame = page.frame_locator("iframe[title=Approvals]")

    expect(rows(frame, "open_waits")).to_have_count(WAITS)
    for people in ("dana@example.com", "pat@example.com", "rita@example.com"):
        expect(rows(frame, people).first).to_be_visible()
    for product, count in (("Procore Legacy", 2), ("Workflowsoft", 2)):
        expect(rows(frame, "open_waits").filter(has=frame.get_by_role("cell", name=product, exact=True))).to_have_count(
            count
        )
    expect(rows(frame, "purchase order contract 5101").get_by_text("overdue")).to_be_visible()
    expect(rows(frame, "wait_for_approval [instance ")).to_have_count(4)
    page.set_viewport_size({"width": 1440, "height": 1000})
    shot(page, "approvals-page")


def test_airflows_address_contains_the_filters(running, open_run, page):
    frame = approvals(running, page)
    frame.get_by_role("combobox", name="Product").select_option("Workflowsoft")
    expect(rows(frame)).to_have_count(2)
    frame.get_by_role("button", name="Due").click()
    expect(page).to_have_url(re.compile("sort=due"))

    page.reload()
    frame = page.frame_locator("iframe[title=Approvals]")
    expect(rows(frame)).to_have_count(2)
    expect(frame.get_by_role("combobox", name="Product")).to_have_value("=workflowsoft")
    assert dict(parse_qsl(urlsplit(page.url).query)) == {"product": "workflowsoft", "sort": "due"}


def test_links_and_csv_leave_the_sandbox(running, open_run, page):
    frame = approvals(running, page, "?search=5101")
    with page.expect_popup() as item:
        frame.get_by_role("link", name="purchase order contract 5101").click()
    assert item.value.url.endswith("&item=5101")
    with page.expect_download() as download:
        frame.get_by_role("link", name="Download CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert (len(lines), "5101" in lines[1]) == (2, True)

    frame.get_by_role("link", name=re.compile("wait_for_approval")).click()
    page.wait_for_url(re.compile(r"/dags/open_waits/runs/[^/]+/tasks/wait_for_approval/mapped/0"))


def test_read_now_reads_procore(running, open_run, page):
    frame = approvals(running, page, "?product=procore&search=open_waits")
    expect(rows(frame)).to_have_count(4)
    frame.get_by_role("button", name="Read now").click()
    expect(frame.get_by_role("status")).to_contain_text("4 waits read.")


def test_the_page_follows_airflows_dark_mode(running, open_run, page):
    frame = approvals(running, page)
    expect(frame.locator("html")).to_have_attribute("data-theme", "light")
    page.evaluate("localStorage.setItem('theme', 'dark')")
    page.reload()
    expect(page.frame_locator("iframe[title=Approvals]").locator("html")).to_have_attribute("data-theme", "dark")


def test_the_tab_of_a_task_shows_its_wait_or_one_line(running, page):
    page.goto(running.task("wait_for_the_director", "plugin/workflows-approval"))
    frame = page.frame_locator("iframe[title=Approval]")
    expect(frame.locator("#wait")).to_contain_text("Director Approval")
    expect(frame.locator("#wait")).to_contain_text("dana@example.com")

    page.goto(running.task("respond", "plugin/workflows-approval"))
    expect(frame.locator("#nothing")).to_have_text("This task does not wait for an approval now.")


def test_a_wait_moves_from_person_to_person_and_ends(running, page):
    airflow, emulator = running.airflow, running.emulator
    instance_id = emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id=ITEM)["id"]
    frame = approvals(running, page, "?search=waits_for_a_click")
    row = rows(frame)
    run = airflow.trigger("waits_for_a_click", {"instance_id": instance_id})
    airflow.until_deferred("waits_for_a_click", run, "decided")

    expect(row).to_contain_text("integration@example.com")
    expect(row).to_contain_text(ITEM)
    assert [frame.evaluate("window.hit") for frame in page.frames] == [None] * len(page.frames)

    clicks = page.context.new_page()
    clicks.goto(f"{emulator.url}/")
    button(clicks, f"Approve {instance_id} as Airflow Integration").click()
    expect(row).to_contain_text("Director Approval")
    expect(row).to_contain_text("dana@example.com")
    expect(row).not_to_contain_text("integration@example.com")
    expect(row).not_to_have_class(re.compile("late"))

    button(clicks, "+1 d: move the clock forward by a day").click(click_count=4)
    expect(card(clicks, instance_id)).to_contain_text("overdue")
    expect(row).to_have_class("late")
    expect(frame.locator("#overdue-count")).to_have_text("1")

    button(clicks, f"Approve {instance_id} as Dana Director").click()
    assert airflow.wait("waits_for_a_click", run) == "success"
    expect(frame.get_by_text("No wait matches the filters.")).to_be_visible()
