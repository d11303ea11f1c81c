"""The emulator's page in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from airflow_provider_workflows.emulator import Emulator
from airflow_provider_workflows.hooks.workflowsoft import WorkflowsoftHook
from tests.browser.page import button, card

pytestmark = pytest.mark.browser

MAX_TABS = 60


@pytest.fixture
def at_the_page(emulator: Emulator, page: Page) -> Page:
    page.goto(f"{emulator.url}/")
    expect(card(page, "700001")).to_be_visible()
    return page


def tab_to(page: Page, target: Locator) -> None:
    """Go on by the Tab key until something has the focus, as one who has no mouse does."""
    handle = target.element_handle()
    for _ in range(MAX_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("(target) => document.activeElement === target", handle):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return
    raise AssertionError(f"{MAX_TABS} tabs do not lead there")


def test_the_keyboard_alone_approves_without_losing_focus(emulator, at_the_page):
    page = at_the_page
    tab_to(page, button(page, "Approve 700001 as Airflow Integration"))
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(card(page, "700001")).to_contain_text("Director Approval")
    expect(page.get_by_role("status")).to_contain_text(
        "700001: Director Approval, in progress pending with Dana Director"
    )
    expect(card(page, "700001")).to_be_focused()

    tab_to(page, button(page, "Approve 700001 as Dana Director"))
    page.keyboard.press("Space")
    expect(card(page, "700001")).to_contain_text("complete")
    expect(card(page, "700001")).to_be_focused()
    tab_to(page, card(page, "700001").locator("summary"))
    page.keyboard.press("Enter")
    expect(card(page, "700001").locator("ol")).to_contain_text("Director Approval: Approve · Dana Director")
    assert [(e["action"], e["by"]) for e in emulator.effects()] == [("respond", "90001"), ("respond", "90004")]


def test_the_page_updates_itself_and_calls_no_other_server(emulator, page):
    requested: set[str] = set()
    wrong: list[str] = []
    page.on("request", lambda request: requested.add(request.url.partition("/_emulator")[0].rstrip("/")))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{emulator.url}/")
    expect(card(page, "700001")).to_contain_text("Budget Check")
    page.evaluate("window.since = 'the start'")
    with page.expect_response(lambda response: response.status == 304):
        pass  # nothing happens, so nothing is sent

    emulator.control("POST", "procore/instances/700001/respond", login="integration@example.com", option="Return")
    expect(card(page, "700001")).to_contain_text("Correct Order")
    expect(card(page, "700001")).to_contain_text("pending with Pat Manager")
    expect(page.get_by_role("status")).to_contain_text("Correct Order")
    emulator.control("POST", "procore/legacy/instances", workflow="Joint Review Workflow")
    expect(card(page, "568152")).to_be_visible()
    emulator.control("POST", "reset")
    expect(card(page, "568152")).to_have_count(0)
    assert page.evaluate("window.since") == "the start"
    assert (requested, wrong) == ({emulator.url}, [])


def test_typed_text_and_focus_survive_an_update_of_the_page(airflow_connections, emulator, at_the_page):
    page = at_the_page
    emulator.control("POST", "workflowsoft/processes", diagram="Event planning")
    venue = page.get_by_label("Venue")
    venue.fill("Hall")
    WorkflowsoftHook().poll_new_integrations("101")
    expect(card(page, "3")).to_contain_text("read once")

    expect(venue).to_be_focused()
    page.keyboard.type(" 2")
    button(page, "Complete 3 as Olga Owner").press("Enter")
    expect(card(page, "3")).to_contain_text("completed")
    assert [e["detail"]["fields"] for e in emulator.effects() if e["action"] == "write_fields"] == [
        {"Venue": '"Hall 2"'}
    ]


def test_fields_are_written_as_typed_and_a_rejection_is_shown(emulator, at_the_page):
    page = at_the_page
    page.get_by_label("Workflowsoft process to start").select_option("Field types")
    page.locator("[data-api=workflowsoft]").get_by_role("button", name="Start").click()
    card(page, "3").locator("summary", has_text="Fields").click()
    number = page.get_by_label("Number Int32?")
    number.fill("many")
    page.get_by_label("Large number").fill("9007199254740995")
    page.get_by_label("Amount Decimal", exact=True).fill("0.10000000000000000001")
    page.get_by_label("Flag or none").select_option("true")
    complete = button(page, "Complete 3 as Olga Owner")
    complete.click()
    expect(page.get_by_role("alert")).to_have_text("Value of field 'Number' is not a Int32?.")

    number.fill("")
    complete.click()
    expect(card(page, "3")).to_contain_text("completed")
    expect(page.get_by_role("alert")).to_have_text("")
    (written,) = [e["detail"]["fields"] for e in emulator.effects() if e["action"] == "write_fields"]
    assert written == {"Large number": "9007199254740995", "Amount": "0.10000000000000000001", "Flag or none": "true"}


def test_clock_faults_and_behaviour_flags_are_set_on_the_page(emulator, at_the_page):
    page = at_the_page
    page.get_by_role("button", name="+1 d").click(click_count=4)
    expect(page.locator("#moved")).to_have_text("(4 d ahead)")
    expect(card(page, "700001")).to_contain_text("overdue")

    page.get_by_label("Kind of fault").select_option("503, unavailable")
    page.get_by_role("combobox", name="Requests").select_option("POST")
    page.get_by_label("How many").fill("3")
    button(page, "Add fault").click()
    expect(page.locator("#broken")).to_have_text("503: POST ^/(rest|api)/, 0 of 3")
    (fault,) = emulator.control("GET", "faults")
    assert (fault["status"], fault["method"], fault["times"]) == (503, "POST", 3)
    button(page, "Clear all faults").click()
    expect(page.locator("#broken li")).to_have_count(0)
    assert emulator.control("GET", "faults") == []

    page.locator("summary", has_text="Behaviour flags").click()
    page.get_by_label("spike limit").fill("7")
    emulator.control("PATCH", "flags", non_assignee="422")
    expect(page.locator("#changed-flags")).to_have_text("1 changed")
    page.get_by_label("spike limit").press("Enter")
    expect(page.locator("#changed-flags")).to_have_text("2 changed")
    emulator.control("PATCH", "flags", non_assignee="403")
    page.get_by_label("stale step").select_option("404")
    expect(page.locator("#changed-flags")).to_have_text("2 changed")
    flags = emulator.control("GET", "flags")
    assert (flags["stale_step"], flags["spike_limit"]) == ("404", 7)
    page.get_by_label("spike limit").fill("-1")
    page.get_by_label("spike limit").press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("spike_limit")
    expect(page.get_by_label("spike limit")).to_have_value("7")

    page.locator("summary", has_text="Reset").click()
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#moved")).to_have_text("")
    expect(page.locator("#changed-flags")).to_have_text("")


def test_text_of_others_is_shown_and_never_executed(emulator, at_the_page):
    page = at_the_page
    name = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'>\"'><svg onload='window.hit = 1'>"
    page.get_by_label("Item ID").fill(name)
    page.locator("[data-api=procore]").get_by_role("button", name="Start").click()
    who = {"login": "integration@example.com", "option": "Approve", "comment": name}
    expect(card(page, "700002")).to_be_visible()
    emulator.control("POST", "procore/instances/700002/respond", **who)
    emulator.control("POST", "procore/instances/700002/block", reason=name)
    expect(card(page, "700002").locator(".ids")).to_have_text(f"700002 · item {name}")
    expect(card(page, "700002").locator(".pending").last).to_have_text(name)
    expect(card(page, "700002").locator("q")).to_have_text(name)

    page.get_by_role("searchbox", name="Search").fill(name)
    expect(page.locator("[data-api=procore] .count")).to_have_text("1 found of 2.")
    assert page.evaluate("window.hit") is None
    assert page.locator("main img, main svg, main script").count() == 0


def test_a_phone_shows_everything_without_scrolling_sideways(emulator, at_the_page):
    page = at_the_page
    page.set_viewport_size({"width": 360, "height": 740})
    emulator.control("POST", "workflowsoft/processes", diagram="Field types")
    emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="long" * 60)
    emulator.control("POST", "faults", status=503, path="(very)?" * 30)
    expect(page.locator("#broken li")).to_be_visible()
    expect(page.locator("[data-api=procore] .card")).to_have_count(2)
    page.evaluate("for (const element of document.querySelectorAll('details')) element.open = true")

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    outside = (
        "(all) => all.filter((element) => element.offsetParent && element.getBoundingClientRect().right > 360).length"
    )
    controls = page.locator("button, input, select, summary")
    assert controls.evaluate_all(outside) == 0
    smallest = (
        "(all) => Math.min(...all.filter((element) => element.offsetParent).map((element) => element.offsetHeight))"
    )
    assert controls.evaluate_all(smallest) >= 24


def test_phone_shows_the_buttons_of_the_clock_in_place(emulator, at_the_page):
    page = at_the_page
    page.set_viewport_size({"width": 360, "height": 740})
    day = page.get_by_role("button", name="+1 d")
    before = day.bounding_box()

    day.click(click_count=4)

    expect(page.locator("#moved")).to_have_text("(4 d ahead)")
    assert day.bounding_box() == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_in_light_and_dark(emulator, at_the_page, scheme):
    page = at_the_page
    page.emulate_media(color_scheme=scheme)
    emulator.control("POST", "procore/instances/700001/block", reason="The role has no members.")
    expect(card(page, "700001")).to_contain_text("blocked")

    pale = page.evaluate(CONTRASTS)
    assert {label: contrast for label, contrast in pale.items() if contrast < 4.5} == {}


# The contrast of each text with the nearest ground that is not transparent, as WCAG counts it.
CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = parts(colour).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return parts(colour)[3] === 0 ? ground(element.parentElement) : colour;
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].map((node) => node.nodeType === 3 ? node.data.trim() : "").join("");
    if (!text || !element.offsetParent) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))];
    found[text] = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  }
  return found;
}"""


def test_a_hundred_of_10000_instances_are_shown_others_found(emulator, at_the_page):
    page = at_the_page
    emulator.control("POST", "reset", seed="large")
    shown = page.locator("[data-api=procore] .card")
    expect(shown).to_have_count(100)
    expect(page.locator("[data-api=procore] .count")).to_have_text("The newest 100 of 10,001. Search to find others.")
    page.get_by_role("searchbox", name="Search").fill("700001")
    expect(shown).to_have_count(1)
    expect(card(page, "700001")).to_be_visible()
    page.get_by_role("searchbox", name="Search").fill("nothing of the kind")
    expect(page.locator("[data-api=procore] .count")).to_have_text("None found of 10,001.")


def test_the_picture_in_the_documentation(emulator, page, shot):
    emulator.control("POST", "clock", set="2030-01-07T09:00:00Z")
    emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="5002")
    emulator.control("POST", "procore/legacy/instances/568150/terminate")
    emulator.control("POST", "workflowsoft/processes", diagram="Vendor onboarding")
    emulator.control("POST", "faults", status=503, path="^/rest")
    page.goto(f"{emulator.url}/")
    card(page, "700002").locator("summary").click()
    who = {"login": "integration@example.com", "option": "Approve", "comment": "Within budget."}
    emulator.control("POST", "procore/instances/700002/respond", **who)
    expect(card(page, "700002").locator("q")).to_have_text("Within budget.")
    # How far the clock is ahead differs each day.
    page.evaluate("document.activeElement.blur(); document.querySelector('#moved').textContent = ''")
    shot(page, "emulator", full_page=True)
