"""A headless chromium, driven by selenium: for the tests that look at a page, and for its benchmark."""

from __future__ import annotations

import shutil
from typing import Any

__all__ = ["missing_chromium", "start_chromium"]


def missing_chromium() -> bool:
    """Tell whether the browser or its driver is not installed."""
    return not (shutil.which("chromium") and shutil.which("chromedriver"))


def start_chromium() -> Any:
    """Start a browser that keeps what pages say and ask for; whoever starts it quits it."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        "--window-size=1280,1000",
    ):
        options.add_argument(argument)
    session = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    session.set_script_timeout(180)  # a busy machine is slow, not wrong
    return session
