"""A real browser, if one is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# No sandbox, because it does not work in a container. The other options stop requests to the maker of the browser.
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """The installed Chromium, or that of Playwright. While it is open, this thread cannot run another event loop."""
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, [*_NAMES, playwright.chromium.executable_path])), None)
        if path is None:
            pytest.skip(f"no browser found: none of {', '.join(_NAMES)} is on PATH, and Playwright has installed none")
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
