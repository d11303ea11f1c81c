"""What there is on the emulator's page, for the tests that read it or click on it."""

from __future__ import annotations

from playwright.sync_api import Locator, Page


def card(page: Page, instance_id: str) -> Locator:
    return page.locator(f".card[data-id='{instance_id}']")


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)
