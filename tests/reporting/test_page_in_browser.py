"""The page in a real browser: drawn, silent, offline, and with the numbers that Python gives."""

from __future__ import annotations

import csv
import io
import time

import numpy as np
import pytest
from hostile_names import HOSTILE_NAMES
from PIL import Image
from visiting import CATCH_DOWNLOAD, Visit, messages, requests

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting.binning import odds_ticks
from confshift.reporting.captions import FORMATS, READINGS, fill
from confshift.reporting.epoch_tables import epoch_table
from confshift.reporting.page import report
from confshift.reporting.pair_tables import paper_tables, shown_classes
from confshift.reporting.pair_values import pair_values
from confshift.reporting.vega import to_png
from reading_pages import Page

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("pictures_on_shared_pages_alone")]

#: Readings that need no samples, only numbers that the page has exactly.
EXACT = [
    "pair",
    "loss_detail",
    "calibrated_detail",
    "calibrated_status",
    "stayed_wrong_amount",
    "accuracy",
    "account",
    "cells",
    "history",
    "parts",
    "reliability",
    "confidence_wrong",
]


def test_every_chart_is_drawn_in_silence_and_without_a_network(visit, record_property):
    visit.reopen(anew=True)  # any request would come while it opens
    figures = visit.run("return document.querySelectorAll('.figure').length")
    drawn = visit.run("return document.querySelectorAll('.figure .live svg').length")
    record_property("drawn after, ms", visit.run("return document.body.dataset.ready"))
    assert figures == drawn >= 15
    assert not messages(visit.browser)
    assert not requests(visit.browser)


def test_the_script_writes_the_sentences_that_python_wrote(visit, page):
    visit.reopen(anew=True)  # as it is before anything was chosen
    before = visit.readings()
    visit.choose(0, 3)
    visit.run("document.querySelector('#back').click()")
    visit.wait("return document.body.dataset.shown", ",".join(str(one) for one in visit.chosen()))
    after = visit.readings()
    assert after == before
    assert visit.run(
        "return document.querySelector('[data-reading=pair]').textContent.startsWith('Epoch\\xa0')"
    )
    written = Page(page.html).text
    assert [sentence for sentence in before if sentence not in written] == []


@pytest.mark.parametrize(
    "pair", [tuple(sorted(np.random.default_rng(seed).choice(7, 2, False))) for seed in range(5)]
)
def test_any_pair_has_the_numbers_of_compare(visit, history, pair):
    before, after = (int(one) for one in pair)
    visit.choose(before, after)
    checkpoints, rows = history.main.checkpoints, epoch_table(history)
    comparison = compare(checkpoints[before], checkpoints[after])
    classes = list(comparison.classes.index)
    at = (f"epoch {before}", f"epoch {after}")
    expected = pair_values(comparison, classes, at, before=rows.iloc[before], after=rows.iloc[after])
    values = visit.values()
    assert set(values) == set(expected)
    estimated = {"top_1", "top_10"}  # from losses kept in 16 bits
    for name, value in expected.items():
        if isinstance(value, float) and not name.startswith(
            ("refinement_l", "refinement_h", "calibration_l")
        ):
            tolerance = 2e-3 if name in estimated else 1e-6
            assert values[name] == pytest.approx(value, rel=tolerance, abs=tolerance / 10), name
        elif not isinstance(value, float):  # counts, and names of classes
            assert values[name] == value, name
    for reading in EXACT:
        assert visit.text(f'[data-reading="{reading}"]') == fill(READINGS[reading], expected)
    cells = {row["key"]: row for row in visit.run("return window.confshift.rows('cells')")}
    for (transition, direction), row in comparison.cells.drop("unchanged", level="direction").iterrows():
        shown = cells[f"{transition}_{direction}"]
        assert shown["samples"] == row["samples"]
        assert shown["contribution"] == pytest.approx(row["contribution"], rel=1e-5, abs=1e-8)
    assert visit.run("return location.hash") == f"#A={before}&B={after}"
    assert not messages(visit.browser)


def test_the_charts_show_the_tables_that_python_makes(visit, comparison):
    account = visit.run("return window.confshift.rows('account')")
    assert [row["value"] for row in account[1:4]] == pytest.approx(list(comparison.account["contribution"]))
    assert account[3]["end"] == pytest.approx(comparison.change.loc["loss", "after"])
    parts = visit.run("return window.confshift.rows('class_cells')")
    by_class = comparison.classes.set_index("class_name")["contribution"]
    for name, contribution in by_class.items():
        total = sum(row["contribution"] for row in parts if row["class_name"] == name)
        assert total == pytest.approx(contribution, rel=1e-3, abs=1e-6)
    curve = visit.run("return window.confshift.rows('concentration')")
    assert curve[-1]["share"] == pytest.approx(1)
    assert curve[-1]["cumulative"] == pytest.approx(comparison.change.loc["loss", "change"], rel=1e-3)
    top = comparison.samples.nlargest(12, "change").index
    shown = visit.run("return window.confshift.rows('movers').map(row => row.sample)")
    assert shown == [str(one) for one in top]


def test_the_script_makes_the_tables_that_python_makes_for_pictures(visit, history, comparison):
    ticks = odds_ticks(history.main)
    classes = shown_classes(comparison.classes, 20)
    for scale in ("probability", "odds"):
        visit.run("document.querySelector(`button[value='${arguments[0]}']`).click()", scale)
        made = paper_tables(comparison, classes=classes, ticks=ticks, scale=scale)
        for name in set(made) - {"samples", "pinned", "even", "concentration", "tops"}:
            rows = visit.run("return window.confshift.rows(arguments[0])", name)
            assert len(rows) == len(made[name]), name
            for column in made[name].columns:
                shown, expected = [row[column] for row in rows], made[name][column].tolist()
                if isinstance(expected[0], str):
                    assert shown == expected, (name, column)
                else:
                    assert shown == pytest.approx(expected, rel=1e-3, abs=2e-6), (name, column)


def test_the_script_weighs_samples_by_their_class_as_python_does(browser, tmp_path, make_run):
    run = make_run(checkpoints=4)
    logits = [one.predictions.logits.copy() for one in run]
    logits[2][:9] = np.nan  # so that the script adds up the classes itself
    run = [
        Checkpoint.from_predictions(Predictions(part, run[0].predictions.targets), epoch=at)
        for at, part in enumerate(logits)
    ]
    history = summarize(run, class_weight=[0, 1, 2, 5])
    page = report(run, tmp_path / "weighted.html", class_weight=[0, 1, 2, 5])
    visit = Visit(browser, page.path)
    visit.open()
    visit.choose(0, 2)
    comparison, rows = history.compare(run[0], run[2]), epoch_table(history)
    classes = shown_classes(comparison.classes)
    sides = {"before": rows.iloc[0], "after": rows.iloc[2]}
    expected = pair_values(comparison, classes, ("epoch 0", "epoch 2"), **sides)
    values = visit.values()
    for name in (
        *("loss_before", "loss_after", "loss_low", "loss_high", "refinement_change", "hedging", "error_rate"),
        *("mistake_cost", "cost_before", "accuracy_change", "stayed_wrong", "up", "down", "up_samples"),
        *("top_contribution", "shown_contribution", "cancelling", "top_1", "top_10", "fell_before"),
    ):
        assert values[name] == pytest.approx(expected[name], rel=2e-3, abs=1e-5), name
    change = comparison.change.loc["loss", "change"]
    parts = visit.run("return window.confshift.rows('class_cells').map(row => row.contribution)")
    assert sum(parts) == pytest.approx(change, rel=1e-3)
    curve = visit.run("return window.confshift.rows('concentration')")
    assert curve[-1]["cumulative"] == pytest.approx(change, rel=1e-3)
    movers = visit.run("return window.confshift.rows('movers').map(row => row.sample)")
    assert movers == [str(one) for one in comparison.samples.nlargest(12, "change").index]


def test_the_history_of_an_epoch_adds_up_to_the_change_of_the_loss(visit):
    visit.choose(2, 6)
    bars = visit.run("return window.confshift.rows('history')")
    totals = visit.run("return window.confshift.rows('history_total')")
    assert [row["epoch"] for row in totals][-5:] == [2, 3, 4, 5, 6]
    for total in totals:
        added = sum(row["contribution"] for row in bars if row["epoch"] == total["epoch"])
        assert added == pytest.approx(total["change"], abs=1e-6)


def test_numbers_are_written_as_in_python(visit):
    rng = np.random.default_rng(0)
    numbers = [0.0, 0.001, 0.0995, 0.99, 1.0, 99.99, 123.4, -0.5, 1e-5, 3.2e-7, 1e-12, -1e-12, 0.9999]
    numbers += [0.7125, 0.7135, -0.7125, 0.115, 1.15, 2.125, 2.375]  # ties, and what looks like one
    numbers += list(rng.choice([-1.0, 1.0], 60) * 10 ** rng.uniform(-6, 3, 60))
    counts = [abs(round(one)) for one in numbers] + [1234567]
    given = dict.fromkeys(FORMATS.keys() - {"text"}, numbers)
    given |= {"count": counts, "samples": counts, "epoch": [one for one in numbers if abs(one) > 1e-3]}
    for name, usable in given.items():
        template = f"{{x:{name}}}"
        script = "return arguments[1].map(x => window.confshift.fill(arguments[0], {x}))"
        written = visit.run(script, template, usable)
        assert written == [fill(template, {"x": one}) for one in usable], name


def test_the_address_restores_the_choice(visit):
    visit.open("#A=1&B=4")
    assert visit.chosen() == [1, 4]
    assert visit.values()["A"] == 1
    visit.run("location.hash = '#A=5&B=2'")
    visit.wait("return document.body.dataset.shown", "2,5")
    assert visit.chosen() == [2, 5]
    visit.open("#A=99&B=-1")
    assert visit.chosen() == visit.run("return window.confshift.pairs.data.pair")


def test_a_link_inside_the_page_keeps_the_address(visit):
    visit.choose(1, 4)
    visit.run("document.querySelector('.checks a').click()")
    assert visit.run("return location.hash") == "#A=1&B=4"


def test_dragging_on_the_loss_chooses_two_epochs(visit):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    visit.reopen(anew=True)  # one that was put back may still be scrolling to where a link led
    chart = visit.browser.find_element(By.CSS_SELECTOR, "#figure-loss .live")
    width = chart.size["width"]
    drag = ActionChains(visit.browser).move_to_element_with_offset(chart, -width // 4, 10).click_and_hold()
    drag.move_by_offset(width // 8, 0).move_by_offset(width // 8, 5).move_by_offset(
        width // 5, 0
    ).release().perform()
    visit.wait("return location.hash")
    before, after = visit.chosen()
    assert 0 < before < 3 < after < 6
    visit.wait("return document.body.dataset.shown", f"{before},{after}")


def test_the_keyboard_chooses_two_epochs(visit):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    visit.choose(1, 5)
    menu = visit.browser.find_element(By.CSS_SELECTOR, "#epoch-A")
    menu.send_keys(Keys.ARROW_DOWN)
    visit.wait("return document.body.dataset.shown", "2,5")
    assert "Epoch 2 to 5" in visit.text(".bar output")


def test_a_finding_says_which_epochs_it_speaks_of_once_others_are_chosen(visit):
    shown = "return getComputedStyle(document.querySelector('.finding .stays')).display"
    assert visit.run(shown) == "none"
    visit.choose(0, 1)
    assert visit.run(shown) == "block"


def test_a_class_and_a_sample_can_be_picked(visit):
    menu = "const menu = document.querySelector('#only');"
    visit.run(menu + "menu.value = '2'; menu.dispatchEvent(new Event('change'))")
    visit.wait("return window.confshift.rows('samples').every(row => row.true === '2')")
    visit.run("document.querySelectorAll('#movers button')[1].click()")
    pinned = visit.run("return window.confshift.rows('pinned')[0]")
    assert pinned["sample"] == visit.run("return document.querySelectorAll('#movers button')[1].textContent")
    assert f"Sample {pinned['sample']}, true class 2" in visit.text("#pinned")
    assert len(visit.run("return window.confshift.rows('trajectory')")) == 7
    assert not messages(visit.browser)


def test_both_axes_and_both_ranges_can_be_drawn(browser, tmp_path, make_logits):
    logits, targets = make_logits(120, 3, 5, churn=0.3)
    fall = [-4 * logits[0], *logits]  # at first surely wrong
    run = [Checkpoint.from_predictions(Predictions(one, targets), epoch=at) for at, one in enumerate(fall)]
    visit = Visit(browser, report(run).save(tmp_path / "fall.html").path).open()
    labels = (
        "Array.from(document.querySelectorAll('#figure-{} .role-axis-label text'), one => one.textContent)"
        ".join()"
    )
    figures = {"span": ("loss", "accuracy", "parts"), "scale": ("reliability", "confidence_right")}
    axes = {figure: labels.format(figure) for drawn_alike in figures.values() for figure in drawn_alike}
    drawn = {figure: visit.run("return " + axis) for figure, axis in axes.items()}
    assert all(drawn.values())
    buttons = browser.find_elements("css selector", "button[data-variant][aria-pressed=false]")
    assert {one.get_attribute("data-variant") for one in buttons} == set(figures)
    for button in buttons:
        visit.run("arguments[0].click()", button)
        assert button.get_attribute("aria-pressed") == "true"
    for figure, axis in axes.items():
        visit.wait(f"const drawn = {axis}; return drawn && drawn !== '{drawn[figure]}'")
    assert not messages(browser)


@pytest.mark.parametrize("chart", ["scatter", "history", "reliability"])
def test_a_chart_is_saved_as_a_picture_in_colours_of_its_own(visit, tmp_path, chart):
    visit.wait(f"return document.querySelector('#figure-{chart} .live svg') !== null")
    visit.run(f"{CATCH_DOWNLOAD} document.querySelector('#figure-{chart} .svg').click()")
    svg = visit.wait("return window.saved")
    assert "var(" not in svg
    picture = to_png(svg, scale=1)
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3)
    assert (pixels[0] == 255).all()
    assert len(np.unique(pixels, axis=0)) > 20


def test_the_table_behind_a_chart_opens_and_downloads(visit):
    visit.run(
        CATCH_DOWNLOAD + "document.querySelector('#figure-cells details').open = true;"
        "document.querySelector('#figure-cells .csv').click()"
    )
    lines = list(csv.reader(visit.wait("return window.saved").split("\r\n")))
    rows = visit.run("return window.confshift.rows('cells')")
    assert lines[0][:3] == ["label", "direction", "transition"]
    assert len(lines) == 9
    assert str(rows[0]["contribution"]) in lines[1]
    visit.wait("return document.querySelectorAll('#figure-cells details td').length >= 8 * 5")


def test_hostile_names_run_nothing_and_stay_text(browser, tmp_path, hostile_page):
    trap = "window.alert = text => { window.trapped = text; };"
    trapped = browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": trap})
    visit = Visit(browser, hostile_page.save(tmp_path / "hostile.html").path).open()
    visit.choose(0, 2)
    visit.run(
        "for (const one of document.querySelectorAll('.live svg *, td, li'))"
        " one.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));"
        "for (const one of document.querySelectorAll('details')) one.open = true;"
    )
    time.sleep(0.3)
    assert visit.run("return window.trapped ?? null") is None
    assert visit.run("return document.querySelectorAll('img').length") == 0
    first = "#figure-class_accuracy td:first-child"
    script = "return Array.from(document.querySelectorAll(arguments[0]), one => one.textContent)"
    names = visit.run(script, first)
    assert set(names) == set(HOSTILE_NAMES)
    browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", trapped)
    assert not messages(browser)


def test_a_page_of_two_runs_is_drawn_in_silence(browser, tmp_path, make_run):
    made = report(make_run(80, 3, 4), other=make_run(80, 3, 6, churn=0.6))
    visit = Visit(browser, made.save(tmp_path / "two.html").path).open("#A=3&B=1")
    figures = visit.run("return document.querySelectorAll('.figure').length")
    assert visit.run("return document.querySelectorAll('.figure .live svg').length") == figures
    written = Page(made.html).text
    assert [sentence for sentence in visit.readings() if sentence not in written] == []
    visit.run("document.querySelectorAll('#movers button')[2].click()")
    picked = visit.run("return window.confshift.rows('movers')[2].sample")
    assert visit.text("#pinned").startswith(f"Sample {picked},")
    for details in browser.find_elements("css selector", "details.rows"):
        visit.run("arguments[0].open = true", details)
    assert visit.run("return document.querySelectorAll('details.rows:not([open])').length") == 0
    assert not messages(browser)


def test_inputs_stand_beside_their_samples(browser, tmp_path, make_run):
    shades = np.linspace(0, 255, 40).astype(np.uint8)
    made = report(
        make_run(40, 3, 3), thumbnail=lambda one: np.full((9, 9), shades[one]) if one % 2 else "a text"
    )
    visit = Visit(browser, made.save(tmp_path / "inputs.html").path).open()
    assert len(visit.run("return document.querySelectorAll('#movers .thumb, #movers .input')")) == 12
    picked = visit.run("return window.confshift.rows('samples').findIndex(row => row.sample === '7')")
    visit.run("window.confshift.choose({pinned: arguments[0]})", picked)
    assert visit.run("return document.querySelectorAll('#pinned .thumb').length") == 1
    place = visit.run("return getComputedStyle(document.querySelector('#pinned .thumb')).backgroundImage")
    assert place.startswith('url("data:image/webp')
    assert not messages(browser)
    assert not requests(browser)


def test_hovering_tells_the_numbers_of_a_point(visit):
    from selenium.webdriver import ActionChains

    visit.run("document.querySelector('#figure-cells').scrollIntoView({block: 'center'})")
    time.sleep(0.3)  # a page that scrolls hides the tip
    bars = visit.browser.find_elements("css selector", "#figure-cells .mark-rect.role-mark path")
    bar = max(bars, key=lambda one: one.size["width"])
    ActionChains(visit.browser).move_to_element(bar).perform()
    visit.wait("return !document.querySelector('#tip').hidden")
    assert "samples that" in visit.text("#tip")
    ActionChains(visit.browser).move_to_element(visit.browser.find_element("css selector", "h1")).perform()
    visit.wait("return document.querySelector('#tip').hidden")


def test_hovering_a_dot_tells_its_sample(visit):
    from selenium.webdriver import ActionChains

    visit.run("document.querySelector('#figure-scatter').scrollIntoView({block: 'center'})")
    time.sleep(0.3)
    row = visit.run("return window.confshift.rows('samples')[7]")
    dots = visit.browser.find_elements("css selector", "#figure-scatter .mark-symbol.role-mark path")
    dot = next(one for one in dots if visit.run("return arguments[0].__data__.datum.i", one) == row["i"])
    visit.run(  # on top, so that no other dot covers it
        "arguments[0].parentNode.append(arguments[0])", dot
    )
    ActionChains(visit.browser).move_to_element(dot).perform()
    visit.wait("return !document.querySelector('#tip').hidden")
    lines = visit.run("return Array.from(document.querySelectorAll('#tip tr'), one => one.innerText)")
    told = dict(line.split("\t") for line in lines)
    assert told["sample"] == row["sample"]
    assert told["true class"] == row["true"]
    assert told["predicted at B"] == row["said_after"]
    assert told["transition"] == row["transition"]
    assert float(told["loss at B"]) == pytest.approx(row["loss_after"], rel=1e-4)


def test_every_dot_stays_with_its_sample_when_another_pair_is_chosen(visit):
    of_dots = (
        "return Array.from(document.querySelectorAll('#figure-scatter .mark-symbol.role-mark path'))"
        ".map(one => one.__data__.datum).filter(one => one.sample).map(one => [one.i, one.before, one.after])"
    )
    visit.run("window.dot = document.querySelectorAll('#figure-scatter .mark-symbol.role-mark path')[5]")
    number = visit.run("return window.dot.__data__.datum.i")
    assert number > 0
    for pair in ((0, 3), (2, 5)):
        visit.choose(*pair)
        rows = visit.run("return window.confshift.rows('samples').map(row => [row.i, row.before, row.after])")
        drawn = [one for one in visit.run(of_dots) if one is not None]
        assert {tuple(one) for one in rows} <= {tuple(one) for one in drawn}
        kept = visit.run("return [window.dot.isConnected, window.dot.__data__.datum.i]")
        assert kept == [True, number]


def test_without_scripts_the_answer_is_readable(browser, path, page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(f"file://{path}")
        assert browser.find_element("css selector", "h1").text == page.answer.action
        pictures = browser.find_elements("css selector", ".chart svg")
        assert len(pictures) == 5
        assert all(one.is_displayed() and one.size["height"] > 50 for one in pictures)
        assert "calibration loss, nats" in browser.find_element("css selector", "#measured").text
        assert not browser.find_element("css selector", ".bar").is_displayed()
        assert not browser.find_element("css selector", ".tools").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# All rules in the light; in the dark only the rule about colours, since nothing else differs.
@pytest.mark.parametrize(
    ("scheme", "options", "passes"), [("light", {}, 20), ("dark", {"runOnly": ["color-contrast"]}, 0)]
)
def test_accessibility_rules_find_nothing(browser, path, scheme, options, passes):
    from importlib.resources import files

    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        visit = Visit(browser, path).reopen()
        background = visit.run("return getComputedStyle(document.body).backgroundColor")
        assert (sum(int(one) for one in background[4:-1].split(",")) < 150) == (scheme == "dark")
        visit.run((files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8"))
        found = browser.execute_async_script(
            "axe.run(document, {resultTypes: ['violations'], ...arguments[0]}).then(arguments[1])", options
        )
        assert [(one["id"], len(one["nodes"])) for one in found["violations"]] == []
        assert len(found["passes"]) > passes
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_narrow_screen_does_not_scroll_sideways(browser, path):
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        visit = Visit(browser, path).open()
        assert visit.run("return document.documentElement.scrollWidth") <= 390
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
