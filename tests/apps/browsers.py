"""A real browser, where one is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

# No sandbox: a container has none. The others keep the browser from talking with its maker.
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine, or Playwright's own. While it is open, this thread can run no other event loop."""
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, [*_NAMES, playwright.chromium.executable_path])), None)
        if path is None:
            pytest.skip(f"no browser is here: none of {', '.join(_NAMES)} is on PATH, and Playwright has none")
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()
