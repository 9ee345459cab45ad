"""A page opened in a browser: what it shows, says and asks for."""

from __future__ import annotations

import json
import time

#: Nothing here is asserted on a clock; what isn't done by then never will be.
PATIENCE = 90
#: Keep what a download would save.
CATCH_DOWNLOAD = (
    "URL.createObjectURL = blob => { blob.text().then(text => { window.saved = text; }); return '#'; };"
    "HTMLAnchorElement.prototype.click = () => {};"
)


class Visit:
    """A page opened in the browser."""

    def __init__(self, browser, path):
        self.browser, self.path = browser, path

    def open(self, address=""):
        self.browser.get("about:blank")
        for kind in ("browser", "performance"):
            self.browser.get_log(kind)
        self.browser.get(f"file://{self.path}{address}")
        self.wait("return document.body.dataset.shown && document.body.dataset.ready")
        return self

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def wait(self, script, expected=None):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            value = self.run(script)
            if value and (expected is None or value == expected):
                return value
            time.sleep(0.02)
        raise AssertionError(f"never true: {script}; last {self.run(script)!r}")

    def choose(self, before, after):
        self.run("window.confshift.choose({before: arguments[0], after: arguments[1]})", before, after)
        self.wait("return document.body.dataset.shown", f"{before},{after}")

    def values(self):
        return self.run("return window.confshift.values()")

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def chosen(self):
        return self.run(
            "return ['A', 'B'].map(side => Number(document.querySelector(`#epoch-${side}`).value))"
        )

    def readings(self):
        script = "return Array.from(document.querySelectorAll('[data-reading]'), one => one.textContent)"
        return self.run(script)


def messages(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("file:", "data:", "blob:", "about:"))]
