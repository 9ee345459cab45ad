"""The first screen speaks of the same epochs everywhere, and each interval is that of its verdict."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from confshift.analysis.comparison import compare
from confshift.findings.answer import answer_run
from confshift.findings.diagnosis import choose_pair
from confshift.reporting.captions import READINGS, fill
from confshift.reporting.first_screen import verdicts
from confshift.reporting.pair_values import key_values

sys.path.insert(0, str(Path(__file__).parents[1] / "findings"))
from odd_runs import ODD, history_of

REAL = ["accident", "biased_start", "class_drift", "many_classes", "noisy_digits"]
DIVERGED = ["collapse", "nothing at the end", "rate_rises_until_it_collapses"]
FIGURES = ("loss", "accuracy", "calibrated")


def shown(name):
    """Return the history, the default comparison, and what the first screen writes of it."""
    history = history_of(name)
    comparison = compare(*history.pair)
    values = key_values(comparison, ("A", "B")) | verdicts(history, comparison)
    parts = [f"{figure}_{part}" for figure in FIGURES for part in ("status", "detail")]
    names = [*parts, "split", "total_amount"]
    return history, comparison, {key: fill(READINGS[key], values) for key in names}


@pytest.mark.parametrize("name", [*ODD, *REAL])
def test_the_epochs_of_the_headline_are_those_of_the_figures(name):
    history, comparison, texts = shown(name)
    answer = answer_run(history, comparison, ())
    first, *others = re.findall(r"since epoch (\d+)", answer.why) or [f"{comparison.before.epoch:g}"]
    assert float(first) == comparison.before.epoch
    for other in others:  # a part of the harm that counts from another epoch: its figure names it, too
        named = any(f"since epoch {other}" in texts[f"{figure}_status"] for figure in FIGURES)
        assert named or float(other) == comparison.before.epoch


@pytest.mark.parametrize("name", DIVERGED)
def test_a_run_that_diverged_is_compared_with_the_checkpoint_to_keep(name):
    history, comparison, _ = shown(name)
    answer = answer_run(history, comparison, ())
    assert f"Epoch {comparison.before.epoch:g} is the best before that." in answer.why
    assert comparison.before.epoch == history.recommendation.epoch
    assert "The verdict compares" not in answer.text


@pytest.mark.parametrize("name", [*ODD, *REAL])
def test_the_interval_of_a_systematic_figure_is_of_its_own_epochs_and_excludes_0(name):
    _, comparison, texts = shown(name)
    for figure in FIGURES:
        status, detail = texts[f"{figure}_status"], texts[f"{figure}_detail"]
        since = re.search(r"since epoch (\d+)", status)
        start = f"Epoch {since[1]} to {comparison.after.epoch:g}: " if since else ""
        assert detail.startswith(start)
        assert bool(since) == detail.startswith("Epoch ")
        if "systematic" in status:
            low, high = re.search(r"interval (\S+) to (\S+)", detail).groups()
            sign = "+" if status.startswith("up") else "−"
            assert (low[0], high[0]) == (sign, sign)


@pytest.mark.parametrize("name", ["hidden", "confidence", "class drift", "infinite at the end"])
def test_calibration_and_the_rest_add_up_to_the_change_as_they_are_written(name):
    _, _, texts = shown(name)
    numbers = (texts["split"].rstrip(".") + " " + texts["total_amount"]).replace("−", "-")
    calibration, rest, total = (float(number) for number in re.findall(r"[-+][\d.]+", numbers))
    assert calibration + rest == pytest.approx(total, abs=1e-9)


def test_an_infinite_end_is_no_verdict_on_the_samples_whose_loss_is_finite():
    history, comparison, texts = shown("infinite at the end")
    assert history.rise.loc["refinement_loss", "status"] == "systematic"
    assert comparison.change.loc["refinement_loss", "change"] < 0
    assert texts["calibrated_status"] == "measurably down"


def test_an_epoch_alone_is_compared_as_if_the_run_had_ended_there():
    history = history_of("hidden")
    until = history.until(23)
    assert choose_pair(history, after=22) == until.pair
    assert until.pair[0].epoch == until.rise.loc["refinement_loss", "best_epoch"]
    assert until.pair[0].epoch < until.rise.loc["loss", "best_epoch"]
