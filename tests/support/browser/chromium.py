"""Find and start Chromium."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, sync_playwright

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING: Final = "Chromium not found: run `apt-get install chromium`, or set CHROMIUM to its path"
# Chromium sends requests only to the service, and also runs as root in a container.
ARGUMENTS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)


def find() -> str | None:
    names = [chosen] if (chosen := os.environ.get("CHROMIUM")) else NAMES
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def running(path: str) -> Iterator[Browser]:
    """Start Chromium with an empty profile. Inside, Playwright's event loop makes Django's ORM refuse."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()
