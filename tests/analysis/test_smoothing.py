"""Label smoothing: what it adds is a part of its own, and with it the loss is torch's."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import checkpoints, pairs

from confshift.analysis.causes.logged_loss import logged_losses
from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.analysis.objective import uniform_losses
from confshift.analysis.significance import paired_interval
from confshift.checkpoint import Checkpoint, Provenance
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions

WEIGHTS = np.array([1.0, 0.0, 3.0, 2.0])


def by_torch(checkpoint, weights, smoothing, reduction="mean"):
    predictions = checkpoint.predictions
    return torch.nn.functional.cross_entropy(
        torch.tensor(predictions.logits, dtype=torch.float64),
        torch.tensor(predictions.targets),
        weight=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
        reduction=reduction,
    ).numpy()


@pytest.fixture(scope="module")
def run(make_logits):
    logits, targets = make_logits(200, 4, 8, churn=0.3)
    return checkpoints(logits, targets)


@pytest.mark.parametrize("smoothing", [0.1, 1.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("classes", [4, 40])
def test_the_trained_loss_is_that_of_torch(run, weights, smoothing, classes):
    if classes > 4:
        wide = np.random.default_rng(0).normal(size=(3, 60, classes))
        run = checkpoints(wide, np.arange(60) % 4)
        weights = None if weights is None else np.tile(weights, classes // 4)
    history = summarize(run, class_weight=weights, label_smoothing=smoothing)
    expected = [by_torch(one, weights, smoothing) for one in run]
    np.testing.assert_allclose(history.table["trained_loss"], expected, rtol=1e-12)
    table = history.table
    np.testing.assert_allclose(table["loss"] + table["smoothing_loss"], table["trained_loss"])
    comparison = history.compare(run[0], run[-1])
    change = comparison.change
    assert change.loc["trained_loss", "change"] == pytest.approx(expected[-1] - expected[0])
    assert comparison.account["contribution"].sum() == pytest.approx(expected[-1] - expected[0])
    pieces = comparison.cells["contribution"].sum() + change.loc["smoothing_loss", "change"]
    assert pieces == pytest.approx(expected[-1] - expected[0])


def test_samples_without_a_label_are_left_out_as_in_torch():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(50, 4)), np.where(np.arange(50) % 7 == 0, -100, np.arange(50) % 4)
    one = Checkpoint.from_predictions(Predictions(logits, targets), epoch=1)
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(logits), torch.tensor(targets), weight=torch.tensor(WEIGHTS), label_smoothing=0.2
    )
    found = summarize([one], class_weight=WEIGHTS, label_smoothing=0.2).table["trained_loss"]
    assert found[0] == pytest.approx(float(expected))


def test_without_weights_its_errors_are_those_of_the_samples_smoothed_losses(run):
    losses = np.stack([by_torch(one, None, 0.1, "none") for one in (run[0], run[-1])])
    expected = paired_interval(losses[1] - losses[0])
    found = compare(run[0], run[-1], label_smoothing=0.1).change.loc["trained_loss"]
    assert found[["change", "change_se", "change_low", "change_high"]].tolist() == pytest.approx(expected)
    table = summarize(run, label_smoothing=0.1).table
    assert table["trained_loss_se"].iloc[0] == pytest.approx(losses[0].std(ddof=1) / math.sqrt(200))


def test_smoothing_leaves_the_cross_entropy_and_its_verdicts_as_they_are(run):
    plain, smoothed = summarize(run), summarize(run, label_smoothing=0.1)
    assert smoothed.rise.equals(plain.rise)
    assert smoothed.table[plain.table.columns].equals(plain.table)
    ends = run[0], run[-1]
    changes = plain.compare(*ends).change, smoothed.compare(*ends).change
    assert changes[1].loc[changes[0].index].equals(changes[0])
    assert "trained_loss" not in plain.table
    assert "label_smoothing" not in plain.compare(*ends).account.index


@settings(max_examples=15)
@given(pairs(masked=False), st.sampled_from([0.05, 0.5]))
def test_samples_without_a_finite_loss_are_left_out_of_every_part(sides, smoothing):
    comparison = compare(*checkpoints(sides[:2], sides[2]), label_smoothing=smoothing)
    row, kept = comparison.change.loc["trained_loss"], comparison.panel.sample_ids
    for side, name in ((comparison.before, "before"), (comparison.after, "after")):
        at = np.isin(side.predictions.sample_ids, kept)
        expected = by_torch(side, None, smoothing, "none")[at].mean()
        assert row[name] == pytest.approx(expected, rel=1e-9)
    assert comparison.account["contribution"].sum() == pytest.approx(row["change"], rel=1e-9, abs=1e-9)


def test_a_class_without_probability_makes_the_trained_loss_infinite_and_nothing_else():
    logits = np.random.default_rng(0).normal(size=(2, 40, 4))
    targets = np.arange(40) % 3
    logits[1, 5, 3] = -np.inf
    history = summarize(checkpoints(logits, targets), label_smoothing=0.1)
    assert np.isfinite(history.table["loss"]).all()
    assert history.table["trained_loss"].tolist()[1] == math.inf
    row = history.compare(*history.main.checkpoints).change.loc["trained_loss"]
    assert (row["after"], row["change"]) == (math.inf, math.inf)
    assert math.isnan(row["change_low"])


def test_without_logits_the_smoothing_part_is_missing_and_the_rest_is_there(run):
    def unreadable():
        raise ConfshiftError("gone")

    lost = [replace(one, read_predictions=unreadable) for one in run]
    history = summarize(lost, label_smoothing=0.1)
    assert history.table["trained_loss"].isna().all()
    assert history.table["loss"].equals(summarize(run).table["loss"])
    assert math.isnan(history.compare(lost[0], lost[1]).change.loc["trained_loss", "change"])


def test_a_logged_loss_with_the_smoothing_that_is_stored_is_the_one_that_is_accounted_for(run):
    stored = {"label_smoothing": 0.1, "class_weights": WEIGHTS.tolist()}
    logged = [
        replace(
            one, metadata=stored, provenance=Provenance(logged={"loss": float(by_torch(one, WEIGHTS, 0.1))})
        )
        for one in run
    ]
    assert logged_losses(summarize(logged).main)["equal"].all()
    assert not logged_losses(summarize(logged, label_smoothing=0).main)["equal"].any()


def test_the_pass_over_the_logits_is_made_once(run):
    first = uniform_losses(run[0], WEIGHTS)
    assert uniform_losses(run[0], WEIGHTS) is first
