"""The page of the cycle-time report in a real browser: offline, on a phone, in the dark and on paper."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from airflow_provider_workflows.reports.report_files import write_report
from tests.browser.test_page import CONTRASTS
from tests.support.busy_history import AS_OF, busy_history

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    result = write_report(
        busy_history(folder / "history"),
        f"{folder.as_uri()}/report.html",
        time_zone="Europe/Berlin",
        country="DE-BY",
        working_hours="08:00-12:00,13:00-17:00",
        item_url="https://app.example.com/{company_id}/{project_id}/{item_id}",
        as_of=AS_OF,
    )
    return str(result["page"])


@pytest.fixture
def at_the_report(report_url: str, page: Page) -> Page:
    page.goto(report_url)
    return page


def test_report_loads_nothing_and_breaks_no_rule_of_its_own(report_url, page):
    requested: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(report_url)

    assert (requested, wrong) == ([report_url], [])
    # The policy allows only the page's own styles; without them a legend would have no colour.
    colour = page.locator(".swatch").first.evaluate("(swatch) => getComputedStyle(swatch).backgroundColor")
    assert colour == "rgb(36, 99, 171)"


def test_charts_are_pictures_with_a_name_and_a_table(at_the_report):
    page = at_the_report
    titles = (
        "Where the total time goes",
        "How long each step waits",
        "How old the open steps are",
        "Instances per week",
    )
    for title in titles:
        chart = page.get_by_role("img", name=title)
        expect(chart).to_be_visible()
        section = page.locator("section").filter(has=chart)
        section.get_by_text("The chart as a table").press("Enter")
        expect(section.get_by_role("table")).to_be_visible()


def test_all_text_of_a_chart_is_inside_its_picture(at_the_report):
    outside = """(all) => all.flatMap((svg) => {
      const box = svg.getBoundingClientRect();
      return [...svg.querySelectorAll("text")].filter((text) => {
        const at = text.getBoundingClientRect();
        return at.left < box.left - 1 || at.right > box.right + 1 || at.top < box.top - 1 || at.bottom > box.bottom + 1;
      }).map((text) => text.textContent);
    })"""

    assert at_the_report.locator("svg").evaluate_all(outside) == []


def test_phone_shows_the_report_without_scrolling_sideways(at_the_report):
    page = at_the_report
    page.set_viewport_size({"width": 360, "height": 740})

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    # What is wider scrolls inside its own frame, which the keyboard reaches.
    wide = (
        "(all) => all.filter((element) => element.scrollWidth > element.clientWidth && element.tabIndex !== 0).length"
    )
    assert page.locator(".chart, .scroll").evaluate_all(wide) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_is_readable_in_light_and_dark(at_the_report, scheme):
    page = at_the_report
    page.emulate_media(color_scheme=scheme)

    pale = page.evaluate(CONTRASTS)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.locator("svg text").first.evaluate("(text) => getComputedStyle(text).fill")

    assert {label: contrast for label, contrast in pale.items() if contrast < 4.5} == {}
    assert (ground, ink) == {
        "light": ("rgb(245, 246, 247)", "rgb(87, 99, 107)"),
        "dark": ("rgb(20, 24, 27)", "rgb(163, 175, 182)"),
    }[scheme]


def test_paper_is_light_and_shows_every_chart(at_the_report):
    page = at_the_report
    page.emulate_media(media="print", color_scheme="dark")

    expect(page.get_by_role("img")).to_have_count(4)
    expect(page.locator("details").first).to_be_hidden()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 36, 41)"
    assert page.pdf()[:5] == b"%PDF-"


def test_pictures_of_the_report_in_the_documentation(at_the_report, shot):
    page = at_the_report
    page.set_viewport_size({"width": 1180, "height": 1420})
    expect(page.get_by_role("img")).to_have_count(4)
    shot(page, "cycle-times")
    shot(page.locator("section").filter(has_text="The ten oldest open steps"), "cycle-times-oldest")
