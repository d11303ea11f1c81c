"""A headless Chromium, and screenshots for the documentation; ``SCREENSHOTS=1`` writes them."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

    from tests.browser.running import Running

IMAGES = Path(__file__).parents[2] / "docs" / "img"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--no-sandbox",  # in a container Chromium runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# Without playwright, which `make browser` installs, these files cannot even be imported.
collect_ignore_glob = [] if importlib.util.find_spec("playwright") else ["test_*.py"]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    here = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        path = here or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("no Chromium on this machine; `make browser` fetches one")
        browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """One Airflow for all tests of its UI, because a start takes long."""
    from tests.browser.running import running_airflow

    with running_airflow() as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own for each test, the same on every machine."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900},
        color_scheme="light",
        locale="en-GB",
        reduced_motion="reduce",
        timezone_id="UTC",
    )
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def shot() -> Callable[..., None]:
    """Return a function that writes ``docs/img/NAME.png`` of a page or a part of it, if ``SCREENSHOTS=1``."""

    def take(target: Page | Locator, name: str, **options: Any) -> None:
        if os.environ.get("SCREENSHOTS") == "1":
            target.screenshot(path=IMAGES / f"{name}.png", animations="disabled", **options)

    return take
