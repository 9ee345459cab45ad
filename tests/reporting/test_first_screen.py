"""The first screen speaks of the same epochs everywhere, and each interval is that of its verdict."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.diagnosis import choose_pair
from confshift.findings.wording import points, signed
from confshift.predictions import Predictions
from confshift.reporting.captions import READINGS, fill
from confshift.reporting.first_screen import verdicts
from confshift.reporting.pair_values import PARTS, key_values

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
    names = [*parts, "split", "total_amount", "not_counted"]
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


def picked(seed, samples=300, epochs=16):
    """Return a run that learns nothing after its second epoch; a best one is picked of its fluctuations."""
    random = np.random.default_rng(seed)
    targets, noise = random.integers(0, 4, samples), random.normal(size=(samples, 4))
    strengths = [0.3, 1, *[1.5] * (epochs - 2)]
    return summarize(
        Checkpoint.from_predictions(
            Predictions(
                strength * np.eye(4)[targets] + noise + 0.3 * random.normal(size=noise.shape), targets
            ),
            epoch=epoch,
        )
        for epoch, strength in enumerate(strengths)
    )


SEES_NOTHING = re.compile("no rise|no fall|too few|jitter between|perhaps chance|no measurable")


def excludes_0(detail):
    ends = re.search(r"interval (\S+) to (\S+)", detail)
    low, high = (float(end.replace("−", "-")) for end in ends.groups()) if ends else (0.0, 0.0)
    return low * high > 0 and detail.endswith(ends[2])


@pytest.mark.parametrize("name", [*ODD, *REAL])
def test_no_interval_that_excludes_0_stands_beside_a_verdict_that_sees_nothing(name):
    _, _, texts = shown(name)
    for figure in FIGURES:
        status, detail = texts[f"{figure}_status"], texts[f"{figure}_detail"]
        assert not (SEES_NOTHING.search(status) and excludes_0(detail)), (status, detail)


@pytest.mark.parametrize(("seed", "figure"), [(6, "loss"), (6, "calibrated"), (5, "accuracy")])
def test_beside_chance_stands_the_bound_of_the_verdict_where_there_is_one(seed, figure):
    history = picked(seed)
    row = history.rise.loc[{"loss": "loss", "calibrated": "refinement_loss"}.get(figure, "error_rate")]
    said = verdicts(history, compare(*history.pair))
    least = points(-row["lower_bound"]) if figure == "accuracy" else signed(row["lower_bound"])
    assert row["lower_bound"] < 0
    assert said[f"{figure}_detail"].endswith(
        f" at {'most' if figure == 'accuracy' else 'least'} {least}, as A was picked"
    )
    run = summarize([*history.main.checkpoints, checkpoint_after(history)])
    other = verdicts(run, compare(*history.pair))  # a pair that a reader chose: no verdict has its bound
    assert other[f"{figure}_status"] == "perhaps chance: A was picked as the best"
    assert other[f"{figure}_detail"].endswith(" had A not been picked")


def checkpoint_after(history):
    last = history.main.checkpoints[-1]
    return Checkpoint.from_predictions(last.predictions, epoch=last.epoch + 1)


@pytest.mark.parametrize("name", ["hidden", "confidence", "class drift", "infinite at the end"])
def test_calibration_and_the_rest_add_up_to_the_change_as_they_are_written(name):
    _, _, texts = shown(name)
    numbers = (texts["split"].rstrip(".") + " " + texts["total_amount"]).replace("−", "-")
    calibration, rest, total = (float(number) for number in re.findall(r"[-+][\d.]+", numbers))
    assert calibration + rest == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("name", ["hidden", "class drift", "some samples lost at the end", *REAL])
def test_the_parts_of_the_loss_add_up_in_every_column(name):
    _, comparison, _ = shown(name)
    values = key_values(comparison, ("A", "B"))
    rows = []
    for part, quantity in zip(PARTS, ("scale_loss", "balance_loss", "refinement_loss"), strict=True):
        texts = (*values[f"{part}_levels"].split(" → "), values[f"{part}_amount"])
        rows.append([float(text.replace("−", "-")) for text in texts])
        exact = comparison.change.loc[quantity, ["before", "after", "change"]].tolist()
        assert rows[-1] == pytest.approx(exact, abs=0.02)
        assert rows[-1][1] - rows[-1][0] == pytest.approx(rows[-1][2], abs=1e-9)
    loss = [values[f"loss_{end}"].replace("−", "-") for end in ("from", "to", "difference")]
    assert np.sum(rows, axis=0) == pytest.approx([float(text) for text in loss], abs=1e-9)


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


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("confidence", ""),
        ("some samples lost at the end", "Without one at B: 100 samples."),
        ("infinite at the end", "Without one at B: 9 samples (9 infinite)."),
    ],
)
def test_only_the_side_that_lacks_samples_is_named(name, missing):
    _, _, texts = shown(name)
    assert missing in texts["not_counted"]
    assert bool(missing) == bool(texts["not_counted"])
    assert "0 " not in re.sub(r"[1-9,]\d* ", "", texts["not_counted"])
