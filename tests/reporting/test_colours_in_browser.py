"""The colours of the page in a real browser: the system's, or those that the reader chose."""

from __future__ import annotations

import pytest
from visiting import Visit, messages

pytestmark = pytest.mark.browser

DARK, LIGHT = [14, 17, 22], [255, 255, 255]
#: The colour of the page, and those of a line on a still picture and on a live chart.
BACKGROUND = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
LINES = (
    "return Array.from(document.querySelectorAll('.chart [stroke=\"var(--vermilion)\"]'),"
    " one => getComputedStyle(one).stroke)"
)
PALETTE = (
    "const style = getComputedStyle(document.documentElement);"
    "return ['text', 'soft', 'tint', 'link', 'blue', 'pink', 'problem', 'fine']"
    ".map(name => style.getPropertyValue(`--${name}`))"
)
#: What form controls and scroll bars are drawn in: the browser's own colours.
CANVAS = (
    "const probe = document.body.appendChild(document.createElement('i')); probe.style.color = 'Canvas';"
    "const colour = getComputedStyle(probe).color; probe.remove(); return colour"
)
PRESSED = (
    "return Array.from(document.querySelectorAll('.colours [aria-pressed=true]'), button => button.value)"
)
NO_STORAGE = (
    "Object.defineProperty(window, 'localStorage', "
    "{get() { throw new DOMException('no', 'SecurityError'); }})"
)


def emulate(browser, scheme="light", media=""):
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": [feature]})


@pytest.fixture
def opened(browser, path):
    """Return the page on a light system; afterwards nothing is chosen."""
    emulate(browser)
    yield Visit(browser, path).reopen()
    browser.execute_script(
        "document.querySelector('.colours [value=system]').click(); try { localStorage.clear(); } catch {}"
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def press(visit, value):
    from selenium.webdriver.common.keys import Keys

    button = visit.browser.find_element("css selector", f".colours [value={value}]")
    button.send_keys(Keys.SPACE)
    assert visit.run("return document.activeElement.value") == value


def test_the_page_has_the_colours_of_the_system_until_others_are_chosen(opened):
    assert opened.run(PRESSED) == ["system"]
    assert opened.run(BACKGROUND) == LIGHT
    emulate(opened.browser, "dark")
    assert opened.run(BACKGROUND) == DARK


def test_the_keyboard_chooses_colours_which_charts_and_controls_follow(opened):
    emulate(opened.browser, "dark")
    dark = [opened.run(script) for script in (PALETTE, LINES, CANVAS)]
    emulate(opened.browser, "light")
    light = [opened.run(script) for script in (PALETTE, LINES, CANVAS)]
    assert all(here != there for here, there in zip(dark, light, strict=True))
    for chosen, system, background, colours in (
        ("dark", "light", DARK, dark),
        ("light", "dark", LIGHT, light),
        ("system", "dark", DARK, dark),
    ):
        emulate(opened.browser, system)
        press(opened, chosen)
        assert opened.run(PRESSED) == [chosen]
        assert opened.run(BACKGROUND) == background
        assert [opened.run(script) for script in (PALETTE, LINES, CANVAS)] == colours
    assert not messages(opened.browser)


def test_the_choice_is_kept_for_the_next_page(opened):
    press(opened, "dark")
    opened.open()
    assert opened.run(PRESSED) == ["dark"]
    assert opened.run(BACKGROUND) == DARK
    press(opened, "system")
    opened.reopen(anew=True)
    assert opened.run(PRESSED) == ["system"]
    assert opened.run(BACKGROUND) == LIGHT


def test_without_storage_the_choice_lasts_as_long_as_the_page_in_silence(opened):
    name = "Page.addScriptToEvaluateOnNewDocument"
    script = opened.browser.execute_cdp_cmd(name, {"source": NO_STORAGE})
    try:
        opened.open()
        press(opened, "dark")
        assert opened.run(BACKGROUND) == DARK
        assert opened.run(PRESSED) == ["dark"]
        assert not messages(opened.browser)
        opened.open()
        assert opened.run(BACKGROUND) == LIGHT
    finally:
        opened.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_paper_is_light_whatever_is_chosen(opened):
    light = [opened.run(LINES), opened.run(CANVAS)]
    press(opened, "dark")
    emulate(opened.browser, "dark", "print")
    assert opened.run(BACKGROUND) == LIGHT
    assert [opened.run(LINES), opened.run(CANVAS)] == light
    assert not opened.browser.find_element("css selector", ".colours").is_displayed()


def test_without_scripts_the_colours_are_those_of_the_system_and_no_switch_is_shown(opened):
    press(opened, "light")
    opened.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        emulate(opened.browser, "dark")
        opened.browser.get(f"file://{opened.path}")
        assert not opened.browser.find_element("css selector", ".colours").is_displayed()
        assert opened.run(BACKGROUND) == DARK
    finally:
        opened.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_a_chosen_colour_is_there_before_anything_is_shown(page):
    head, _ = page.html.split("<body", 1)
    assert "localStorage" in head


def test_the_switch_is_at_the_top_right_of_the_first_screen(opened):
    box = "return document.querySelector(arguments[0]).getBoundingClientRect()"
    switch, action, tiles = (opened.run(box, part) for part in (".colours", "h1", ".three"))
    assert switch["top"] < action["top"]
    assert switch["right"] == pytest.approx(tiles["right"], abs=1)
