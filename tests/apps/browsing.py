"""A real browser for pages: Debian's Chromium, driven by Playwright; every page is looked at by axe and photographed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
TALL = ViewportSize(width=1280, height=1500)  # Streamlit scrolls inside the page: a photograph shows what fits
# Streamlit's own: its drop zone has a role and a name at once. Minor, by axe's word.
_NOT_OURS = {"presentation-role-conflict"}


@pytest.fixture(scope="module")  # while it runs its thread has an event loop, which no other test expects
def browser() -> Iterator[Browser]:
    """The browser; tests that need it say so where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium on this machine: pages are not tested in a browser")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield running
        running.close()


def look_at(page: Page, name: str) -> None:
    """Photograph a page and assert that axe finds nothing that keeps people out."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    kept_out = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found if one["id"] not in _NOT_OURS]
    assert not kept_out, kept_out
