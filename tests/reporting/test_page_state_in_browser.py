"""What the reader chose, in every chart, table and address; the page on paper, and without scripts."""

from __future__ import annotations

import csv
import io
import re
import time

import numpy as np
import pytest
from visiting import CATCH_DOWNLOAD, PATIENCE, Visit, messages

from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting import template_context
from confshift.reporting.page import report
from reading_pages import Page

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("pictures_on_shared_pages_alone")]

#: Whether the marks of a kind in a chart are those of the current rows of its table.
DRAWN_AS_TABLE = """
    const marks = document.querySelectorAll('#figure-{figure} .live .mark-{mark}.role-mark path');
    const drawn = Array.from(marks, one => one.__data__.datum['{column}']).sort();
    const rows = window.confshift.rows('{table}').map(row => row['{column}']).sort();
    return rows.length > 0 && JSON.stringify(drawn) === JSON.stringify(rows);
"""
#: The note for readers without scripts, by its place on the page.
SAID = (
    "const said = document.querySelector('noscript');"
    "return said.getBoundingClientRect().height > 10 ? said.textContent : ''"
)
#: The table behind a chart, as text.
CELLS = (
    "return Array.from(document.querySelectorAll(`#figure-${arguments[0]} details.rows tr`))"
    ".map(line => Array.from(line.children, one => one.textContent))"
)
CHOOSE_CLASS = (
    "const menu = document.querySelector('#only');"
    "menu.value = arguments[0]; menu.dispatchEvent(new Event('change'))"
)


@pytest.fixture(scope="module")
def backwards(make_run):
    return report(make_run(), before=6, after=2)


@pytest.fixture
def without_scripts(browser, path):
    browser.set_window_size(1280, 1000)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(f"file://{path}")
    yield browser
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def pair_of(visit):
    return visit.run("return window.confshift.pairs.data.pair")


def hash_of(pair):
    return "#A={}&B={}".format(*pair)


# ---------------------------------------------------------------------------------------- classes and samples
@pytest.mark.parametrize("chosen", ["2", ""])
def test_a_class_comes_with_its_sample_that_rose_most(visit, chosen):
    visit.run(CHOOSE_CLASS, "1")
    visit.run(CHOOSE_CLASS, chosen)
    top = visit.run("return window.confshift.rows('movers')[0]")
    assert chosen in ("", top["true"])
    assert visit.text("#pinned").startswith(f"Sample {top['sample']}, true class {top['true']}:")
    visit.wait("return document.body.dataset.shown")
    pressed = visit.run(
        "return Array.from(document.querySelectorAll('#movers [aria-pressed=true]'), one => one.textContent)"
    )
    assert pressed == [top["sample"]]
    visit.run("return window.confshift.choose({})")  # waits until every chart has followed
    assert not messages(visit.browser)


def test_without_a_followed_sample_nothing_is_told_of_one(visit):
    assert visit.text("#pinned")
    visit.run("return window.confshift.choose({pinned: null})")
    assert visit.text("#pinned") == ""


def test_a_sample_of_one_checkpoint_has_one_loss(browser, tmp_path, make_run):
    made = report(make_run(60, 3, 1))
    visit = Visit(browser, made.save(tmp_path / "one.html").path).open()
    assert re.fullmatch(
        r"Sample \d+, true class \d: predicted \d at epoch 0; loss [\d.]+ nats\.", visit.text("#pinned")
    )


def test_a_class_of_which_no_sample_is_carried_cannot_be_picked(browser, tmp_path, monkeypatch):
    targets = np.r_[np.zeros(200, int), np.ones(200, int), 2]
    logits = np.random.default_rng(0).normal(size=(2, 401, 3)) + 2 * np.eye(3)[targets]
    logits[1, 400] = logits[0, 400]  # it does not change: not carried for its change
    monkeypatch.setattr(template_context, "_MAX_SAMPLES", 40)
    made = report(
        [Checkpoint.from_predictions(Predictions(one, targets), epoch=at) for at, one in enumerate(logits)]
    )
    visit = Visit(browser, made.save(tmp_path / "few.html").path).open()
    usable = visit.run(
        "return Array.from(document.querySelectorAll('#only option:not([disabled])'), one => one.value)"
    )
    assert usable == ["", "0", "1"]


def test_enter_on_a_sample_keeps_the_focus_there(visit):
    from selenium.webdriver.common.keys import Keys

    button = visit.browser.find_elements("css selector", "#movers button")[3]
    name = button.text
    button.send_keys(Keys.ENTER)
    assert visit.text("#pinned").startswith(f"Sample {name},")
    assert visit.run("return document.activeElement.textContent") == name


# ------------------------------------------------------------------------------------------------ the address
@pytest.mark.parametrize("address", ["#A=3&B=3", "#A=Infinity&B=2e", "#B="])
def test_an_address_never_makes_a_pair_of_one_epoch(browser, path, address):
    visit = Visit(browser, path).open(address)
    pair = pair_of(visit)
    assert pair == [0, 6]
    assert visit.chosen() == pair
    assert visit.values()["A"] < visit.values()["B"]
    assert visit.run("return location.hash") == hash_of(pair)
    assert not messages(browser)


def test_an_address_of_one_epoch_or_none_changes_nothing_on_an_open_page(visit):
    for pair, addresses in {(0, 6): ("#A=6", "#B=0", "#A=&B=", "#A=0x"), (1, 4): ("#A=5&B=5",)}.items():
        visit.choose(*pair)
        for address in addresses:
            visit.run("location.hash = arguments[0]", address)
            visit.wait("return location.hash", hash_of(pair))
            assert visit.chosen() == list(pair)
            assert (visit.values()["A"], visit.values()["B"]) == pair
    assert not messages(visit.browser)


def test_an_address_that_speaks_of_no_epochs_is_left_alone(browser, path):
    visit = Visit(browser, path).open("#samples")
    assert visit.run("return location.hash") == "#samples"
    assert visit.chosen() == pair_of(visit)


def test_epochs_in_an_address_are_known_but_for_their_rounding(browser, tmp_path, make_logits):
    logits, targets = make_logits(60, 3, 4, churn=0.3)
    run = [
        Checkpoint.from_predictions(Predictions(one, targets), epoch=0.1 * at)
        for at, one in enumerate(logits)
    ]
    visit = Visit(browser, report(run).save(tmp_path / "tenths.html").path).open("#A=0.1&B=0.3")
    assert 0.1 * 3 != 0.3
    assert visit.chosen() == [1, 3]
    visit.run("location.hash = '#A=0&B=0.2001'")
    visit.wait("return document.body.dataset.shown", "0,3")


def test_inside_another_page_the_charts_follow_without_an_address(browser, tmp_path, page):
    host = tmp_path / "host.html"
    host.write_text("<!doctype html><title>host</title><iframe width=1200 height=900></iframe>")
    browser.get(f"file://{host}")
    browser.get_log("browser")
    browser.execute_script("document.querySelector('iframe').srcdoc = arguments[0]", page.html)
    browser.switch_to.frame(0)
    try:
        visit = Visit(browser, host)
        visit.wait("return document.body?.dataset.ready && document.body.dataset.shown")
        visit.choose(1, 4)
        assert visit.chosen() == [1, 4]
    finally:
        browser.switch_to.default_content()
    assert not messages(browser)


# -------------------------------------------------------------------------------------- drawing and following
@pytest.mark.parametrize("clicks", [1, 2, 3])
def test_a_chart_that_is_drawn_anew_while_a_pair_is_chosen_shows_that_pair(visit, clicks):
    visit.run(
        "for (let click = 0; click < arguments[0]; click++)"
        "  document.querySelector(`button[data-variant='scale'][aria-pressed='false']`).click();"
        "window.confshift.choose({before: 2, after: 4})",
        clicks,
    )
    dots = DRAWN_AS_TABLE.format(figure="reliability", table="reliability", mark="symbol", column="x")
    visit.wait(dots)
    visit.choose(1, 5)
    visit.wait(dots)
    assert not messages(visit.browser)


def test_a_switch_does_not_keep_the_other_charts_from_following(visit):
    visit.run(
        "window.confshift.choose({before: 2, after: 4});"
        "document.querySelector(`button[data-variant='scale'][aria-pressed='false']`).click()"
    )
    visit.wait("return document.body.dataset.shown", "2,4")
    assert visit.run(DRAWN_AS_TABLE.format(figure="cells", mark="rect", column="contribution", table="cells"))


def test_an_open_table_follows_the_axis(visit):
    visit.run("document.querySelector('#figure-confidence_right details').open = true")
    visit.wait("return document.querySelectorAll('#figure-confidence_right td').length")
    tables = []
    for scale in ("odds", "probability"):
        visit.run("document.querySelector(`button[value='${arguments[0]}']`).click()", scale)
        cells = visit.run(CELLS, "confidence_right")
        place = cells[0].index("from")
        rows = visit.run("return window.confshift.rows('confidence_right')")
        assert [line[place] for line in cells[1:]] == [row["from"] for row in rows]
        tables.append(cells)
    assert tables[0] != tables[1]


# ---------------------------------------------------------------------------------------- a pair back in time
def test_a_report_that_looks_back_in_time_stays_that_way(browser, tmp_path, backwards):
    visit = Visit(browser, backwards.save(tmp_path / "back.html").path).open()
    written = Page(backwards.html).text
    shown = visit.readings()
    assert visit.chosen() == pair_of(visit) == [6, 2]
    assert [sentence for sentence in shown if sentence not in written] == []
    assert not visit.run("return document.body.classList.contains('moved')")
    bands = [visit.run("return window.confshift.rows(arguments[0])", f"band_{side}") for side in "AB"]
    assert all(bands)
    visit.run("window.confshift.choose({before: 1, after: 4})")
    visit.wait("return document.body.dataset.shown", "1,4")
    assert visit.run("return document.body.classList.contains('moved')")
    visit.run("document.querySelector('#back').click()")
    visit.wait("return document.body.dataset.shown", "6,2")
    assert visit.readings() == shown
    assert visit.run("return location.hash") == "#A=6&B=2"
    assert not messages(browser)


def test_of_a_report_that_looks_back_other_pairs_look_forward(browser, tmp_path, backwards):
    visit = Visit(browser, backwards.save(tmp_path / "back.html").path).open("#A=5&B=1")
    assert visit.chosen() == [1, 5]
    back = "return window.confshift.pairs.values(6, 2)"
    forward = visit.run(
        "return window.confshift.choose({before: 2, after: 6}).then(() => window.confshift.values())"
    )
    assert visit.chosen() == [2, 6]
    there = visit.run(back)
    for name in ("loss_change", "accuracy_change", "hedging", "error_rate", "mistake_cost", "up", "down"):
        other = {"up": "down", "down": "up"}.get(name, name)
        assert forward[name] == pytest.approx(-there[other], abs=1e-6), name
    assert forward["learned_samples"] == there["forgotten_samples"]


# ------------------------------------------------------------------------------------------- tables and files
#: Texts that a spreadsheet may read as formulas, split at commas, semicolons or tabs; four names at a time.
FORMULAS = [
    ["=1+1", "\n=1+1", "a;=1+1", "a\t=1"],
    ["+1", "-1", "@x", " \t=1"],
    ["\r=1", "＝1", '";=1;"', '",=1'],
]


@pytest.mark.parametrize("names", FORMULAS)
def test_no_text_is_a_formula_in_the_download_wherever_a_spreadsheet_splits_it(visit, names):
    old = visit.run("return window.confshift.pairs.data.classes.names")
    visit.run(
        f"{CATCH_DOWNLOAD} window.confshift.pairs.data.classes.names = arguments[0];"
        "window.confshift.choose({}); window.saved = null;"
        "document.querySelector('#figure-class_accuracy .csv').click()",
        names,
    )
    saved = visit.wait("return window.saved")
    visit.run("window.confshift.pairs.data.classes.names = arguments[0]; window.confshift.choose({})", old)
    for delimiter in ",;\t":
        lines = csv.reader(io.StringIO(saved, ""), delimiter=delimiter)
        texts = [one for line in lines for one in line if not re.fullmatch(r"[-+.0-9e,]+", one)]
        assert [one for one in texts if re.match(r"\s*[=+\-@＝]|[\t\r\n]", one)] == []
    shown = {line[0].removeprefix("'") for line in csv.reader(io.StringIO(saved, ""))}
    assert shown >= set(names)


@pytest.mark.parametrize(
    ("figure", "columns"),
    [
        ("reliability", ["side", "confidence", "accuracy", "samples", "accuracy low", "accuracy high"]),
        (
            "scatter",
            [
                *("sample", "true class", "predicted at A", "predicted at B"),
                *("loss at A", "loss at B", "change", "transition"),
            ],
        ),
        ("trajectory", ["epoch", "loss", "verdict", "predicted"]),
        ("class_accuracy", ["class name", "samples", "A", "B", "contribution"]),
    ],
)
def test_a_table_holds_numbers_and_no_places_on_an_axis(visit, figure, columns):
    visit.run(
        CATCH_DOWNLOAD + "const figure = document.querySelector(`#figure-${arguments[0]}`);"
        "figure.querySelector('details').open = true; figure.querySelector('.csv').click()",
        figure,
    )
    (head,) = csv.reader(visit.wait("return window.saved").split("\r\n")[:1])
    assert [name.replace("_", " ") for name in head] == columns
    visit.wait(f"return document.querySelectorAll('#figure-{figure} td').length")
    assert visit.run(CELLS, figure)[0] == columns


def test_the_table_of_a_sample_holds_its_losses_as_they_are(visit):
    small = visit.run("return window.confshift.rows('samples').findIndex(row => row.loss_after < 1e-3)")
    assert small >= 0
    sample = visit.run("return window.confshift.rows('samples')[arguments[0]]", small)
    visit.run("return window.confshift.choose({pinned: arguments[0]})", sample["i"])
    visit.run(CATCH_DOWNLOAD + "document.querySelector('#figure-trajectory .csv').click()")
    last = visit.wait("return window.saved").split("\r\n")[-1].split(",")
    assert float(last[1]) == pytest.approx(sample["loss_after"])
    assert float(last[1]) < 1e-3


# ----------------------------------------------------------------------------- narrow, out of sight, on paper
def test_a_long_name_of_a_class_does_not_widen_a_narrow_page(browser, tmp_path, make_run):
    made = report(make_run(60, 3, 3, class_names=["a" * 250, "b " * 125, "c"]))
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        visit = Visit(browser, made.save(tmp_path / "long.html").path).open()
        assert visit.run("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_marks_of_a_chart_are_hidden_from_assistive_technology_and_from_the_keyboard(visit):
    hidden = (
        "return document.querySelectorAll('.chart[role=img][aria-label] > .live[aria-hidden=true]').length"
    )
    assert visit.run(hidden) == visit.run("return document.querySelectorAll('.figure').length") > 0
    inside = "return Array.from(document.querySelectorAll('.live *')).filter(one => one.tabIndex >= 0).length"
    assert visit.run(inside) == 0


def test_without_scripts_no_chart_is_an_empty_box(without_scripts):
    charts = without_scripts.find_elements("css selector", ".chart")
    shown = [one for one in charts if one.is_displayed()]
    assert 0 < len(shown) < len(charts)
    assert all(one.find_elements("css selector", "svg") for one in shown)
    said = without_scripts.execute_script(SAID)
    assert said.startswith(f"Without JavaScript this page shows {len(shown)} of its charts")
    for section in without_scripts.find_elements("css selector", "main section"):
        assert section.text.count("\n") >= 1, section.text  # no heading stands alone


def test_with_scripts_every_chart_has_its_place(visit):
    charts = visit.browser.find_elements("css selector", ".chart")
    assert all(one.is_displayed() for one in charts)
    assert visit.run(SAID) == ""


def test_what_is_folded_is_printed_and_folded_again_after(visit):
    visit.run(
        "for (const name of ['beforeprint', 'afterprint']) addEventListener(name, () => {"
        "  window[name] = document.querySelector('details.line').open; })"
    )
    assert visit.browser.find_elements("css selector", "details.line:not([open])")
    visit.browser.execute_cdp_cmd("Page.printToPDF", {})
    assert visit.run("return [window.beforeprint, window.afterprint]") == [True, False]


def test_without_scripts_what_is_folded_is_printed(without_scripts):
    later = without_scripts.find_element("css selector", "details.line > div")
    seen = "return arguments[0].checkVisibility() && arguments[0].getBoundingClientRect().height > 10"
    assert not without_scripts.execute_script(seen, later)
    without_scripts.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        end = time.monotonic() + PATIENCE  # what was folded is laid out with the next frame
        while not without_scripts.execute_script(seen, later) and time.monotonic() < end:
            time.sleep(0.02)
        assert without_scripts.execute_script(seen, later)
    finally:
        without_scripts.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
