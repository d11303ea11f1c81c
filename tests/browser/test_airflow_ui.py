"""What this package shows in Airflow's own UI, seen by a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Locator, Page, expect

from airflow_provider_workflows.get_provider_info import get_provider_info
from tests.browser.page import button, card
from tests.browser.running import Running

pytestmark = [pytest.mark.browser, pytest.mark.live]

FORMS = {form["connection-type"]: form for form in get_provider_info()["connection-types"]}
STANDARD = {"description": "Description", "host": "Host", "login": "Login", "password": "Password", "port": "Port"}

expect.set_options(timeout=120_000)  # milliseconds; a busy machine takes its time


# The connection forms


@pytest.mark.parametrize("conn_type", FORMS)
def test_a_connection_form_has_each_field_as_declared(running, page, shot, conn_type):
    form = FORMS[conn_type]
    behaviour = form["ui-field-behaviour"]
    dialog = add_connection(running, page, conn_type)

    for name, label in STANDARD.items():
        field = dialog.get_by_label(behaviour["relabeling"].get(name, label), exact=True)
        if name in behaviour["hidden-fields"]:
            expect(field).to_have_count(0)
        else:
            expect(field).to_have_attribute("placeholder", behaviour["placeholders"].get(name, ""))
    secret = dialog.get_by_label(behaviour["relabeling"]["password"], exact=True)
    expect(secret).to_have_attribute("type", "password")

    open_extra_fields(dialog)
    for field in form["conn-fields"].values():
        expect_field(dialog, field)
    heading = dialog.get_by_role("heading", name="Add Connection")
    heading.click()  # takes the focus away
    page.set_viewport_size({"width": 1024, "height": 1200})
    shot_between(shot, heading, group(dialog, "Timeout"), dialog, f"connection-{conn_type}")


def test_a_saved_connection_opens_again_without_its_secrets(running, page):
    responses: list[str] = []
    dialog = add_connection(running, page, "procore")
    dialog.get_by_label("Connection ID").fill("saved_by_hand")
    dialog.get_by_label("API base URL").fill(running.emulator.url)
    dialog.get_by_label("Client ID").fill("the-client-id")
    dialog.get_by_label("Client secret").fill("hush-the-client-secret")
    open_extra_fields(dialog)
    choose(dialog, "Environment", "sandbox")
    group(dialog, "Company ID").locator("input").fill("4264807")
    group(dialog, "Access token").locator("input").fill("hush-the-ready-token")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_be_hidden()

    # After a reload the browser knows only what the server sends.
    page.on("response", lambda response: "/api/v2/connections" in response.url and responses.append(response.text()))
    page.reload()
    row(page, "saved_by_hand").get_by_role("button", name="Edit Connection").click()
    dialog = page.get_by_role("dialog")

    expect(dialog.get_by_label("Client ID")).to_have_value("the-client-id")
    expect(dialog.get_by_label("Client secret")).to_have_value("***")
    open_extra_fields(dialog)
    expect(group(dialog, "Environment")).to_contain_text("sandbox")
    expect(group(dialog, "Company ID").locator("input")).to_have_value("4264807")
    expect(group(dialog, "Access token").locator("input")).to_have_value("***")
    dialog.get_by_role("button", name="Extra Fields JSON").click()
    expect(dialog).to_contain_text("access_token")
    assert any("saved_by_hand" in response for response in responses)
    assert not [text for text in (*responses, page.content()) if "hush-" in text]


@pytest.mark.parametrize("conn_type", FORMS)
def test_the_test_button_shows_the_user_that_signed_in(running, page, conn_type):
    store_connection(running, page, conn_type, "right")

    row(page, "right").get_by_role("button", name="Test Connection").click()

    who = {"procore": "as integration@example.com (user 90001), company 4264807", "workflowsoft": "Signed in to"}
    message = page.get_by_role("status").filter(has_text="Test Connection Successful")
    expect(message).to_contain_text(who[conn_type])


@pytest.mark.parametrize("conn_type", FORMS)
def test_the_test_button_shows_what_to_fix_and_no_secret(running, page, conn_type):
    store_connection(running, page, conn_type, "wrong", password="a-wrong-guess")

    row(page, "wrong").get_by_role("button", name="Test Connection").click()

    fix = {
        "procore": "issued no token for this client id and secret",
        "workflowsoft": "put an API token into the password",
    }
    message = page.get_by_role("status").filter(has_text="Test Connection Failed")
    expect(message).to_contain_text(fix[conn_type])
    assert "a-wrong-guess" not in page.content()


# The tasks


@pytest.mark.parametrize("task_id", ["respond", "wait_for_the_director", "plan_an_event"])
def test_a_task_links_to_its_item_also_while_it_waits(running, page, shot, task_id):
    page.goto(running.task(task_id, "details"))
    link = page.get_by_role("link", name="Item in ")
    expect(link).to_be_visible()
    if task_id == "respond":
        table = page.get_by_role("table").first
        shot_between(shot, page.get_by_role("link", name="Logs"), table.get_by_text("Run ID"), table, "extra-link", 12)

    with page.expect_popup() as opened:
        link.click()

    (process,) = (e["target"] for e in running.emulator.effects() if e["action"] == "start_process")
    event, order = f"process={process['process_instance_id']}", "company=4264807&project=1001&item=5001"
    assert opened.value.url == f"{running.emulator.url}/?{event if task_id == 'plan_an_event' else order}"


def test_the_log_of_a_wait_shows_step_assignee_and_next_poll(running, page, shot):
    page.goto(running.task("wait_for_the_director"))
    log = page.get_by_test_id("virtualized-list")
    for setting in ("Wrap", "Hide Timestamps"):
        page.get_by_role("button", name="Log Settings").click()
        page.get_by_role("menuitem", name=setting).click()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    expect(log).to_contain_text("Instance 700001 of item 5001 (purchase_order_contract)")
    expect(log).to_contain_text(re.compile(f"at step 'Director Approval' since {time}, pending with dana@example.com"))
    expect(log).to_contain_text("waiting for: complete, terminated")
    expect(log).to_contain_text(
        re.compile(f"Waiting since {time}, until {time} at most; the triggerer polls every 60 s")
    )
    expect(log).not_to_contain_text("WARNING")
    shot(log, "wait-log")


# A click on the emulator's page


def test_a_click_lets_a_waiting_dag_continue(running, page):
    airflow, emulator = running.airflow, running.emulator
    instance_id = emulator.control("POST", "procore/instances", tool_type="purchase_order_contract", item_id="5002")[
        "id"
    ]
    page.goto(f"{emulator.url}/")
    run = airflow.trigger("waits_for_a_click", {"instance_id": instance_id})
    airflow.until_deferred("waits_for_a_click", run, "decided")
    button(page, f"Approve {instance_id} as Airflow Integration").click()
    button(page, f"Approve {instance_id} as Dana Director").click()
    expect(card(page, instance_id)).to_contain_text("Approved")

    assert airflow.wait("waits_for_a_click", run) == "success"
    assert airflow.xcom("waits_for_a_click", run, "goes_on") == "Approved"


def add_connection(running: Running, page: Page, conn_type: str) -> Locator:
    """Open the form of a new connection of a type."""
    page.goto(f"{running.airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Connection Type").click()
    page.get_by_role("option", name=FORMS[conn_type]["hook-name"], exact=True).click()
    return dialog


def open_extra_fields(dialog: Locator) -> None:
    dialog.get_by_role("button", name="Extra Fields", exact=True).click()


def group(dialog: Locator, label: str) -> Locator:
    """Return a field with its label and its help; Airflow ties the label of a text field to nothing."""
    return dialog.get_by_role("group").filter(has=dialog.page.get_by_text(label, exact=True))


def choose(dialog: Locator, label: str, option: str) -> list[str]:
    """Choose an option and return what there was to choose from."""
    dialog.get_by_role("combobox", name=label).click()
    target = dialog.page.get_by_role("option", name=option, exact=True)
    expect(target).to_be_visible()
    options = dialog.page.get_by_role("option").all_inner_texts()
    target.click()
    return options


def expect_field(dialog: Locator, field: dict[str, Any]) -> None:
    """Check a field of the form against its declaration."""
    label, schema = field["label"], field["schema"]
    default = schema.get("default")
    whole = group(dialog, label)
    expect(whole).to_contain_text(field["description"])
    if "enum" in schema:
        expect(whole).to_contain_text(default)
        assert choose(dialog, label, default) == schema["enum"]
    elif "boolean" in schema["type"]:
        expect(whole.get_by_role("checkbox")).to_be_checked(checked=default)
    else:
        expect(whole.locator("input")).to_have_value("" if default is None else str(default))
        kind = "password" if schema.get("format") == "password" else "text"
        expect(whole.locator("input")).to_have_js_property("type", kind)


def store_connection(running: Running, page: Page, conn_type: str, how: str, **other: Any) -> None:
    """Store the emulator's connection and open the list of connections."""
    connection = {**running.connections[f"{conn_type}_default"], **other}
    # Airflow 3.3.1 and 3.3.2 test no stored connection without a port.
    address = urlsplit(connection["host"])
    connection["host"], connection["port"] = f"{address.scheme}://{address.hostname}", address.port
    connection["extra"] = json.dumps(connection["extra"])
    page.goto(f"{running.airflow.url}/connections")
    response = page.request.post(
        f"{running.airflow.url}/api/v2/connections", data={"connection_id": f"{how}_{conn_type}", **connection}
    )
    assert response.ok, response.text()
    page.goto(f"{running.airflow.url}/connections?name_pattern={how}_{conn_type}")


def row(page: Page, text: str) -> Locator:
    return page.get_by_role("row").filter(has_text=text)


def shot_between(
    shot: Callable[..., None], first: Locator, after: Locator, within: Locator, name: str, margin: int = 0
) -> None:
    """Take a picture as wide as an element, from a second one down to a third one, which is not in it."""
    top, end, whole = first.bounding_box(), after.bounding_box(), within.bounding_box()
    size = {"width": whole["width"] + 2 * margin, "height": end["y"] - top["y"]}
    shot(within.page, name, clip={"x": whole["x"] - margin, "y": top["y"] - 12, **size})
