"""The first screen in a real browser: it fits, it adds up, it can be copied from; what is fine is folded."""

from __future__ import annotations

from decimal import Decimal
from itertools import combinations, pairwise

import numpy as np
import pytest
from visiting import Visit, messages

from confshift.checkpoint import Checkpoint
from confshift.findings.wording import shares_and_change
from confshift.predictions import Predictions
from confshift.reporting.page import report

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("pictures_on_shared_pages_alone")]

#: The parts of the first screen, in the order in which they are read.
PARTS = (".run", "h1", ".why", ".three", ".curves", ".sources", ".steps", ".checks")
PLACES = (
    "return arguments[0].map(part => document.querySelector(part).getBoundingClientRect())"
    ".map(box => [box.top + scrollY, box.bottom + scrollY])"
)
AMOUNTS = """
    return arguments[0].map(([before, after]) => {
      window.confshift.choose({before, after});
      const cells = document.querySelectorAll('.sources tbody td:nth-child(3)');
      return Array.from(cells, cell => cell.textContent);
    });
"""


@pytest.fixture(scope="module")
def sized(browser):
    """Return a function that gives the browser's window a size, as that of a phone where it is narrow."""

    def size(width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    yield size
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="module")
def like_the_demo(tmp_path_factory, make_run):
    run = [*make_run(400, 10, 14, churn=0.05), *make_run(100, 10, 14, split="train", seed=1)]
    return report(run, tmp_path_factory.mktemp("demo") / "demo.html", title="like the demo")


@pytest.fixture
def opened(browser, sized, like_the_demo):
    sized(1280, 800)
    return Visit(browser, like_the_demo.path).reopen()


def test_the_first_screen_needs_no_scrolling(opened, like_the_demo):
    assert like_the_demo.answer.steps
    assert sum(finding.severity == "problem" for finding in like_the_demo.findings) >= 2
    assert max(bottom for _, bottom in opened.run(PLACES, PARTS)) <= 800


LONG = "a run whose name has many words, of the second of May, with a rate of 0.0003 and smoothed labels"


@pytest.fixture(scope="module")
def spoiled_runs(make_logits):
    """Return a run with outputs that are not finite and one that also has infinite losses, late in each."""
    logits, targets = make_logits(400, 6, 14, churn=0.05)
    logits[9:, ::3] = np.nan
    zeros = np.arange(1, 400, 60)
    infinite = logits.copy()
    infinite[11:, zeros, targets[zeros]] = -np.inf
    names = [f"n{number}, a name that is rather long" for number in range(6)]
    return [
        [
            Checkpoint.from_predictions(Predictions(one, targets, class_names=names), epoch=epoch)
            for epoch, one in enumerate(part)
        ]
        for part in (infinite, infinite[::-1])
    ]


@pytest.mark.parametrize("is_pair", [False, True])
def test_several_remarks_are_in_sight_on_the_first_screen(browser, sized, tmp_path, spoiled_runs, is_pair):
    sized(1280, 800)
    run, other = spoiled_runs
    more = {"other": other, "before": 13, "after": 0} if is_pair else {"title": LONG}
    made = report(run, tmp_path / "page.html", **more)
    visit = Visit(browser, made.path).open()
    assert len(made.answer.remarks) >= 3
    shown = browser.find_element("css selector", "header").text
    assert all(remark in shown for remark in made.answer.remarks)
    assert visit.end_of_first_screen() <= 800


def test_on_a_phone_its_parts_follow_in_the_order_of_reading(browser, sized, like_the_demo):
    sized(390, 844)
    visit = Visit(browser, like_the_demo.path).open()
    places = visit.run(PLACES, PARTS)
    assert all(bottom <= top + 1 for (_, bottom), (top, _) in pairwise(places))
    assert visit.run("return document.documentElement.scrollWidth") <= 390


def test_the_page_is_short_while_everything_fine_is_folded(opened):
    assert opened.run("return document.documentElement.scrollHeight") <= 7000


def test_the_amounts_add_up_as_they_are_written_for_every_pair(visit):
    pairs = list(combinations(range(7), 2))
    for amounts in visit.run(AMOUNTS, pairs):
        *parts, total = (Decimal(amount.replace("−", "-")) for amount in amounts)
        assert sum(parts) == total
        assert len({part.as_tuple().exponent for part in (*parts, total)}) == 1


def test_the_figures_follow_another_pair_and_the_answer_says_that_it_does_not(visit, page):
    first = visit.text("[data-reading=loss_levels]")
    visit.choose(0, 3)
    assert visit.text("[data-reading=loss_levels]") != first
    first, second, _ = shares_and_change(
        *(visit.values()[f"accuracy_{side}"] for side in ("before", "after"))
    )
    assert visit.text("[data-reading=accuracy_levels]") == f"{first} → {second}"
    assert visit.text("h1") == page.answer.action
    assert visit.run("return document.querySelector('header .stays').checkVisibility()")


def test_the_bars_are_as_long_as_their_amounts(visit):
    visit.choose(1, 6)
    values = visit.values()
    amounts = [values[name] for name in ("stayed_wrong", "forgotten", "learned", "stayed_right")]
    widths = visit.run("return Array.from(document.querySelectorAll('[data-bar]'), bar => bar.style.width)")
    room = max(0, *amounts, values["loss_change"]) - min(0, *amounts, values["loss_change"])
    expected = [100 * abs(amount) / room for amount in (*amounts, values["loss_change"])]
    assert [float(width.rstrip("%")) for width in widths] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("has_clipboard", [True, False])
def test_code_can_be_copied_also_from_a_page_without_a_clipboard(opened, like_the_demo, has_clipboard):
    opened.run(  # what comes after two seconds waits until this test has seen what stands there before
        "const later = window.setTimeout;"
        "window.setTimeout = (then, wait) => {"
        "  if (wait !== 2000) return later(then, wait);"
        "  window.setTimeout = later; window.then = then; };"
        "const clipboard = {writeText: text => { window.copied = text; return Promise.resolve(); }};"
        "Object.defineProperty(navigator, 'clipboard', "
        "  {value: arguments[0] ? clipboard : undefined, configurable: true});"
        "document.execCommand = kind => { window.copied = `${kind} ${getSelection()}`; return true; };"
        "window.copied = null; document.querySelector('.steps .copy').click()",
        has_clipboard,
    )
    copied = opened.wait("return window.copied")
    code = next(step.code for step in like_the_demo.answer.steps if step.code)
    assert copied == (code if has_clipboard else f"copy {code}")
    assert opened.wait("return document.querySelector('.steps .copy').textContent", "Copied")
    opened.run("window.then()")
    assert opened.wait("return document.querySelector('.steps .copy').textContent", "Copy")
    assert not messages(opened.browser)


def test_problems_are_open_and_all_others_a_line_each(opened, like_the_demo):
    for finding in like_the_demo.findings:
        place = f"#finding-{finding.code}"
        tag = opened.run("return document.querySelector(arguments[0]).tagName", place)
        assert tag == ("ARTICLE" if finding.severity == "problem" else "DETAILS")
        height = opened.run("return document.querySelector(arguments[0]).offsetHeight", place)
        assert finding.severity == "problem" or height < 60


def test_a_link_to_a_check_unfolds_it_and_the_keyboard_goes_on_there(opened):
    link = next(
        one
        for one in opened.browser.find_elements("css selector", ".checks h2 a")
        if "fine" in one.get_attribute("textContent")
    )
    place = link.get_attribute("href").rpartition("#")[2]
    opened.run("arguments[0].click()", link)
    assert opened.run("return document.getElementById(arguments[0]).open", place)
    assert opened.run("return document.activeElement.id") == place


def test_every_word_that_is_explained_is_linked_once(opened):
    links = opened.run(
        "return Array.from(document.querySelectorAll('a.word'), link => link.getAttribute('href'))"
    )
    assert links
    assert len(links) == len(set(links))
    assert all(opened.run("return document.querySelector(arguments[0]) !== null", link) for link in links)
