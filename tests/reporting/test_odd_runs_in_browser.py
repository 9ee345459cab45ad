"""Odd runs in a browser: for every pair of checkpoints the script has the numbers that Python gives."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from visiting import Visit, messages

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings import wording
from confshift.predictions import Predictions
from confshift.reporting.epoch_tables import epoch_table
from confshift.reporting.page import report
from confshift.reporting.pair_tables import shown_classes
from confshift.reporting.pair_values import pair_values

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("blank_pictures")]


def checkpoints(logits, targets, epochs):
    return [
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for one, epoch in zip(logits, epochs, strict=True)
    ]


@pytest.fixture(scope="module")
def odd_runs(make_logits):
    """Return runs by what is odd about them; 250 samples make a half of a per cent."""
    logits, targets = make_logits(250, 4, 4, churn=0.3)
    gaps = logits.copy()
    gaps[1, :80], gaps[2, 80:130] = np.nan, np.nan
    infinite = logits.copy()
    masked = np.arange(250)
    infinite[1, masked[:20], targets[:20]] = -np.inf
    infinite[2, masked[10:40], targets[10:40]] = -np.inf
    infinite[2, 60:75], infinite[3, 70:78] = np.nan, np.inf
    one_gone = logits.copy()
    one_gone[2] = np.nan
    right = 3 * np.eye(4)[targets]
    return {
        "ties in rounding": checkpoints(logits, targets, range(4)),
        "samples without a loss": checkpoints(gaps, targets, range(4)),
        "infinite losses": checkpoints(infinite, targets, range(4)),
        "a checkpoint without a loss": checkpoints(one_gone, targets, range(4)),
        "steps for epochs": checkpoints(logits, targets, [1234561, 1234562, 1234567, 9876543]),
        "parts of epochs": checkpoints(logits, targets, [0.1, 0.2, 0.1 * 3, 1 / 3]),
        "a falling loss": checkpoints(logits[::-1], targets, range(4)),
        "no mistakes": checkpoints([right, 2 * right, 0.5 * right], targets, range(3)),
        "nothing but mistakes": checkpoints(
            [np.roll(one, 1, axis=1) for one in (right, 2 * right, 0.5 * right)], targets, range(3)
        ),
    }


NAMES = (
    "ties in rounding",
    "samples without a loss",
    "infinite losses",
    "a checkpoint without a loss",
    "steps for epochs",
    "parts of epochs",
    "a falling loss",
    "no mistakes",
    "nothing but mistakes",
)


@pytest.fixture(scope="module", params=NAMES)
def opened(browser, tmp_path_factory, odd_runs, request):
    """Return the page of an odd run, opened, and the run."""
    run, path = odd_runs[request.param], tmp_path_factory.mktemp("odd") / "odd.html"
    browser.set_window_size(1280, 1000)
    return Visit(browser, report(run, path).path).open(), run


#: Choose one pair after the other; numbers and rows are ready before the charts are.
ALL_PAIRS = """
    return arguments[0].map(([before, after]) => {
      window.confshift.choose({before, after});
      const tables = ['history_total', 'class_totals', 'class_cells'];
      const rows = tables.map(name => [name, window.confshift.rows(name)]);
      return {values: window.confshift.values(), ...Object.fromEntries(rows)};
    });
"""


#: Numbers that the script looks up; it adds up the others from losses stored in 16 bits.
BY_PYTHON = {
    *(f"{name}_{end}" for name in ("loss", "accuracy") for end in ("low", "high", "change")),
    *("hedging", "error_rate", "mistake_cost"),
}


def expected_values(run, pairs):
    """Return what Python says of pairs."""
    history = summarize(run)
    rows = epoch_table(history)
    own = compare(*history.pair)  # the page shows the classes of the pair that it was made for
    classes = shown_classes(own.classes, 20)
    for before, after in pairs:
        at = tuple(f"epoch {wording.epoch(run[place].epoch)}" for place in (before, after))
        comparison = compare(run[before], run[after])
        yield pair_values(comparison, classes, at, before=rows.iloc[before], after=rows.iloc[after])


def without_numbers(text):
    return re.sub(r"[+−]?[\d.,]+(?: %)?|\?|–|∞", "#", text)


def test_the_first_screen_of_an_odd_run_needs_no_scrolling(opened):
    assert opened[0].end_of_first_screen() <= 800


def test_every_pair_has_the_numbers_of_python_and_adds_up(opened):
    visit, run = opened
    scored = [place for place, one in enumerate(run) if np.isfinite(one.scores.loss).any()]
    pairs = list(combinations(scored, 2))
    found = visit.run(ALL_PAIRS, pairs)
    own = visit.run("return window.confshift.pairs.data.pair")
    for (before, after), tables, expected in zip(pairs, found, expected_values(run, pairs), strict=True):
        shown = tables["values"]
        assert set(shown) >= set(expected)
        for key, value in expected.items():
            if key.endswith(("_status", "_levels", "_detail")) and [before, after] == own:
                continue  # the run's verdicts know about all epochs
            if key == "N":
                continue  # of the samples that the pair shares; the script counts those in its cells
            if isinstance(value, str):
                assert without_numbers(shown[key]) == without_numbers(value), (before, after, key)
            elif not np.isfinite(value):
                assert shown[key] is None, (before, after, key)
            else:
                assert shown[key] == pytest.approx(value, rel=2e-3, abs=2e-5), (before, after, key)
        assert shown["N"] == expected["up_samples"] + expected["down_samples"] + unchanged(run, before, after)
        check_sums(tables, run[after].epoch)
    visit.choose(scored[0], scored[-1])
    assert not messages(visit.browser)


def unchanged(run, before, after):
    return int(compare(run[before], run[after]).cells.xs("unchanged", level="direction")["samples"].sum())


def check_sums(tables, epoch):
    """Check that all that the page shows of a pair adds up to the change of its loss."""
    values = tables["values"]
    change = values["loss_change"]
    assert values["up"] + values["down"] == pytest.approx(change, abs=1e-6)
    parts = values["hedging"] + values["error_rate"] + values["mistake_cost"]
    assert parts == pytest.approx(change, abs=1e-6)
    totals = {row["epoch"]: row["change"] for row in tables["history_total"]}
    assert totals[epoch] == pytest.approx(change, abs=1e-6)
    for name in ("class_totals", "class_cells"):  # of losses kept in 16 bits
        total = sum(row["contribution"] for row in tables[name])
        assert total == pytest.approx(change, rel=5e-4, abs=1e-4), name


def test_steps_are_told_from_each_other(browser, tmp_path, odd_runs):
    visit = Visit(browser, report(odd_runs["steps for epochs"]).save(tmp_path / "steps.html").path).open()
    menu = visit.run(
        "return Array.from(document.querySelectorAll('#epoch-A option'), one => one.textContent)"
    )
    assert menu == ["1234561", "1234562", "1234567", "9876543"]
    visit.choose(0, 2)
    assert "Epoch 1234561" in visit.text("[data-reading=pair]")


def test_two_runs_of_one_checkpoint_each_are_seen(browser, tmp_path, odd_runs):
    run = odd_runs["ties in rounding"]
    made = report(run[:1], other=run[3:])
    visit = Visit(browser, made.save(tmp_path / "two.html").path).open()
    drawn = (
        "return Array.from(document.querySelectorAll(`#figure-${arguments[0]} .live .mark-symbol path`))"
        ".filter(one => Number(one.getAttribute('opacity') ?? 1) > 0).length"
    )
    assert visit.run(drawn, "loss") >= 4
    assert visit.run(drawn, "accuracy") >= 2
    assert not messages(browser)


def test_a_run_against_itself_differs_in_nothing(browser, tmp_path, odd_runs):
    run = odd_runs["ties in rounding"]
    made = report(run, other=run)
    assert made.answer.why.endswith("are the same within noise.")
    visit = Visit(browser, made.save(tmp_path / "same.html").path).open()
    assert visit.values()["loss_change"] == 0
    assert [row["label"] for row in visit.run("return window.confshift.rows('ends')")] == ["A", "B"]
