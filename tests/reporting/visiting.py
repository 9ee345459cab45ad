"""A page opened in a browser: what it shows, says and asks for."""

from __future__ import annotations

import json
import time

#: No test asserts on a clock; whatever takes longer than this will never finish.
PATIENCE = 90
#: Store the text that a download would save.
CATCH_DOWNLOAD = (
    "URL.createObjectURL = blob => { blob.text().then(text => { window.saved = text; }); return '#'; };"
    "HTMLAnchorElement.prototype.click = () => {};"
)


#: What a reader sees of the choice on a page that has just opened.
LOOKS = (
    "JSON.stringify([window.confshift.values(), window.confshift.pairs.data.classes.names,"
    " ...['A', 'B'].map(side => document.querySelector(`#epoch-${side}`)?.value),"
    " ...Array.from(document.querySelectorAll('[data-reading], #pinned, output'), one => one.textContent),"
    " ...Array.from(document.querySelectorAll('#movers button, button[data-variant], details'),"
    " one => [one.getAttribute('aria-pressed'), one.open])])"
)
#: Reset everything that a reader, or a test, may have chosen.
PUT_BACK = """
    const done = arguments[0];
    const {data} = window.confshift.pairs;
    delete HTMLAnchorElement.prototype.click;
    window.saved = null;
    document.activeElement?.blur();
    for (const details of document.querySelectorAll('details')) details.open = false;
    for (const [variant, value] of [['scale', 'probability'], ['span', 'near']])
      document.querySelector(`button[data-variant=${variant}][value=${value}][aria-pressed=false]`)?.click();
    const only = document.querySelector('#only');
    if (only) only.value = '';
    const [before, after] = data.pair;
    window.confshift.choose({before, after, only: null, pinned: window.pinnedAtFirst}).then(() => {
      history.replaceState(null, '', location.pathname);
      scrollTo({top: 0, behavior: 'instant'});
      done(true);
    });
"""


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

    def reopen(self, *, anew=False):
        """Show the page as it opens: put back what was chosen on it, or open it where that is not enough."""
        if (
            not anew
            and self.browser.current_url.partition("#")[0] == f"file://{self.path}"
            and self.run("return Boolean(window.looksAtFirst)")
        ):
            self.browser.execute_async_script(PUT_BACK)
            for kind in ("browser", "performance"):
                self.browser.get_log(kind)
            if self.run(f"return {LOOKS} === window.looksAtFirst"):
                return self
        self.open()
        self.run(
            "window.pinnedAtFirst = window.confshift.rows('pinned')[0]?.i ?? null;"
            f"window.looksAtFirst = {LOOKS}"
        )
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
        """Return a text as it is read, without what keeps numbers on one line."""
        return self.run(
            "return document.querySelector(arguments[0]).textContent.replaceAll('\\xa0', ' ')", selector
        )

    def chosen(self):
        return self.run(
            "return ['A', 'B'].map(side => Number(document.querySelector(`#epoch-${side}`).value))"
        )

    def end_of_first_screen(self):
        """Return how far down the first screen reaches, in pixels."""
        parts = "'header > *, .three, .bar, .first > section'"
        return self.run(
            f"return Math.max(...Array.from(document.querySelectorAll({parts}), "
            "one => one.getBoundingClientRect().bottom + scrollY))"
        )

    def readings(self):
        script = "return Array.from(document.querySelectorAll('[data-reading]'), one => one.textContent)"
        return [text.replace("\xa0", " ") for text in self.run(script)]


def messages(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def requests(browser):
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith(("file:", "data:", "blob:", "about:"))]
