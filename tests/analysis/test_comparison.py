"""One comparison: its table of changes against scikit-learn and the bootstrap, its tables of samples."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from pairs import checkpoints, comparison_of, pairs, scored
from scipy.optimize import brentq
from scipy.special import logsumexp, softmax
from scipy.stats import t as student
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

from confshift.analysis.comparison import compare
from confshift.analysis.reliability import (
    consistency_band,
    isotonic_curve,
    reliability_bins,
)
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions

QUANTITIES = [
    "loss",
    "calibration_loss",
    "refinement_loss",
    "hedge",
    "error_rate",
    "mistake_cost",
    "accuracy",
    "confidence",
    "confidence_gap",
    "temperature",
    "scale_loss",
    "balance_loss",
]
COLUMNS = ["before", "after", "change", "change_se", "change_low", "change_high", "unit", "samples", "units"]


@pytest.fixture
def run(make_logits):
    return make_logits(400, 5, 2, seed=3, churn=0.3)


def test_the_change_is_what_scikit_learn_says_of_both_sides(run):
    logits, targets = run
    change = comparison_of(*logits, targets).change
    assert change.index.tolist() == QUANTITIES
    assert change.columns.tolist() == COLUMNS
    for side, z in zip(("before", "after"), logits, strict=True):
        p = softmax(z, axis=1)
        predicted = z.argmax(axis=1)
        wrong = predicted != targets
        costs = z.max(axis=1) - z[np.arange(400), targets]
        expected = {
            "loss": log_loss(targets, p),
            "accuracy": accuracy_score(targets, predicted),
            "error_rate": wrong.mean(),
            "confidence": p.max(axis=1).mean(),
            "confidence_gap": p.max(axis=1).mean() - 1 + wrong.mean(),
            "hedge": -np.log(p.max(axis=1)).mean(),
            "mistake_cost": costs[wrong].mean(),
        }
        for name, value in expected.items():
            assert change.loc[name, side] == pytest.approx(value, rel=1e-10), name
    np.testing.assert_allclose(change["change"], change["after"] - change["before"], atol=1e-12)
    parts = change.loc["calibration_loss"] + change.loc["refinement_loss"]
    assert parts["change"] == pytest.approx(change.loc["loss", "change"], abs=1e-13)
    parts = change.loc["scale_loss"] + change.loc["balance_loss"]
    assert parts["change"] == pytest.approx(change.loc["calibration_loss", "change"], abs=1e-13)
    assert change.loc["mistake_cost", "unit"] == "nats"
    assert change.loc["temperature", "unit"] == "ratio"


def test_metrics_and_change_agree(run):
    comparison = comparison_of(*run[0], run[1])
    for side in ("before", "after"):
        for name, value in getattr(comparison, side).metrics().items():
            if name in QUANTITIES:
                assert comparison.change.loc[name, side] == pytest.approx(value, rel=1e-12), name


def temperature_of(logits, targets, precision=1e-10):
    """By root finding on the slope, another road than Newton's."""

    def slope(log_beta):
        z = np.exp(log_beta) * logits
        return ((softmax(z, axis=1) * logits).sum(axis=1) - logits[np.arange(len(targets)), targets]).mean()

    return math.exp(-brentq(slope, -3, 3, xtol=precision))


def test_the_standard_errors_of_ratios_are_those_of_the_bootstrap(run):
    logits, targets = run
    change = comparison_of(*logits, targets).change
    rng = np.random.default_rng(0)
    draws = {"mistake_cost": [], "temperature": [], "loss": []}
    for _ in range(250):
        rows = rng.integers(0, 400, 400)
        y = targets[rows]
        costs, temperatures, means = [], [], []
        for z in logits[:, rows]:
            at_target = z[np.arange(400), y]
            costs.append((z.max(axis=1) - at_target)[z.argmax(axis=1) != y].mean())
            temperatures.append(temperature_of(z, y, precision=1e-4))
            means.append((logsumexp(z, axis=1) - at_target).mean())
        draws["mistake_cost"].append(costs[1] - costs[0])
        draws["temperature"].append(temperatures[1] - temperatures[0])
        draws["loss"].append(means[1] - means[0])
    for name, values in draws.items():
        assert change.loc[name, "change_se"] == pytest.approx(np.std(values), rel=0.15), name


def test_halls_interval_is_the_set_of_means_his_statistic_does_not_reject(run):
    comparison = comparison_of(*run[0], run[1])
    row, d = comparison.change.loc["loss"], comparison.samples["change"].to_numpy()
    n, spread = len(d), d.std(ddof=1)
    k = (((d - d.mean()) / spread) ** 3).mean() / math.sqrt(n)
    q = student.ppf(0.975, n - 1)
    for bound, expected in ((row["change_low"], q), (row["change_high"], -q)):
        t = (d.mean() - bound) / (spread / math.sqrt(n))
        assert t + k * t**2 / 3 + k**2 * t**3 / 27 + k / 6 == pytest.approx(expected, rel=1e-9)


def test_the_gap_of_a_sure_model_has_the_interval_of_its_accuracy(run):
    logits, targets = run
    other = logits[0].copy()
    wrong = np.flatnonzero(logits[0].argmax(axis=1) == targets)[:4]
    other[wrong] = np.roll(other[wrong], 1, axis=1)
    change = comparison_of(1e4 * logits[0], 1e4 * other, targets).change
    gap, accuracy = change.loc["confidence_gap"], change.loc["accuracy"]
    assert change.loc["confidence", "after"] > 0.999
    assert gap["change_low"] == pytest.approx(-accuracy["change_high"], abs=2e-3)
    assert gap["change_high"] == pytest.approx(-accuracy["change_low"], abs=2e-3)
    assert gap["change_low"] < 0 < gap["change"]  # four switches are not told from none


@settings(max_examples=30)
@given(pairs())
def test_samples_that_cannot_be_scored_are_left_out_of_both_sides_and_counted(data):
    before, after, targets = data
    comparison = comparison_of(before, after, targets)
    keep = scored(before, after, targets)
    assert comparison.samples_left_out == (~keep).sum()
    assert comparison.samples.index.tolist() == np.flatnonzero(keep).tolist()
    assert comparison.cells["samples"].sum() == keep.sum()
    assert len(comparison.cells) == 12
    assert np.isfinite(comparison.change.loc["loss", ["before", "after", "change"]].astype(float)).all()


def test_without_a_common_sample_that_can_be_scored_there_is_nothing_to_say():
    broken = np.full((3, 2), np.nan)
    with pytest.raises(ConfshiftError, match="no sample has a finite loss on both sides; look for NaN"):
        comparison_of(np.eye(3)[:, :2], broken, [0, 1, 0])


@pytest.mark.parametrize("side", [None, np.zeros((3, 2)), "runs/a"])
def test_only_checkpoints_and_predictions_are_compared(side):
    good = Predictions(-np.eye(3)[:, :2], [0, 1, 0])
    with pytest.raises(ConfshiftError, match=f"not {type(side).__name__}; use run.epoch. or Predictions"):
        compare(good, side)


def test_other_samples_are_refused_saying_how_many():
    one, other = np.zeros((5, 3)), np.zeros((5, 3))
    with pytest.raises(ConfshiftError, match="targets of 2 of 5 samples changed"):
        compare(Predictions(one, [0, 1, 2, 1, 0]), Predictions(other, [1, 0, 2, 1, 0]))


def test_bare_predictions_are_compared_as_checkpoints_are(run):
    logits, targets = run
    bare = compare(*(Predictions(z, targets) for z in logits))
    pd.testing.assert_frame_equal(bare.change, comparison_of(*logits, targets).change)
    assert math.isnan(bare.before.epoch)


def test_identical_checkpoints_differ_by_exactly_zero(run):
    change = comparison_of(run[0][0], run[0][0].copy(), run[1]).change
    assert (change[["change", "change_se", "change_low", "change_high"]] == 0).all(axis=None)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_few_samples_have_changes_but_not_always_intervals(run, samples):
    logits, targets = run
    comparison = comparison_of(*logits[:, :samples], targets[:samples])
    row = comparison.change.loc["loss"]
    expected = comparison.samples["loss_after"].mean() - comparison.samples["loss_before"].mean()
    assert row["change"] == pytest.approx(expected)
    assert math.isnan(row["change_se"]) == (samples < 3)
    for table in ("classes", "competitors", "scale", "reliability", "reliability_curve", "confusion"):
        assert len(getattr(comparison, table))
    assert len(comparison.reliability_band)
    assert comparison.concentration["value"]["cancelling_samples"] <= samples


@pytest.mark.parametrize("which", [0, 1])
def test_where_no_temperature_is_best_it_is_unknown_and_the_rest_is_not(which):
    targets = np.arange(60) % 3
    rng = np.random.default_rng(0)
    some = rng.normal(size=(60, 3)) + np.eye(3)[targets]
    sides = [some, some]
    sides[which] = 3 * np.eye(3)[targets] - 5  # every sample is right
    change = comparison_of(*sides, targets).change
    row = change.loc["temperature"]
    assert math.isnan(row[["before", "after"][which]])
    assert row[["after", "before"][which]] == pytest.approx(temperature_of(some, targets), rel=1e-6)
    assert row[["change", "change_se", "change_low", "change_high"]].isna().all()
    assert math.isnan(change.loc["mistake_cost", "change"])
    assert change.drop(["temperature", "mistake_cost"])[COLUMNS[:-1]].notna().all(axis=None)


def test_a_head_that_starts_at_zero_can_be_compared(run):
    logits, targets = run
    comparison = comparison_of(np.zeros_like(logits[0]), logits[1], targets)
    assert comparison.change.loc["loss", "before"] == pytest.approx(np.log(5))
    assert comparison.cells.notna().all(axis=None)
    assert comparison.scale[["contribution", "scale", "shape"]].notna().all(axis=None)


def test_the_sample_table_has_a_row_for_each_id(run):
    logits, targets = run
    ids = [f"image-{i:03d}.png" for i in range(400)]
    samples = comparison_of(*logits, targets, sample_ids=ids).samples
    assert samples.index.tolist() == ids
    assert samples["target"].tolist() == targets.tolist()
    before, after = (z.argmax(axis=1) == targets for z in logits)
    names = np.select(
        [before & after, before & ~after, ~before & after],
        ["stayed_right", "forgotten", "learned"],
        "stayed_wrong",
    )
    assert samples["transition"].tolist() == names.tolist()
    sign = np.sign(samples["loss_after"] - samples["loss_before"]).map(
        {1.0: "up", -1.0: "down", 0.0: "unchanged"}
    )
    assert samples["direction"].tolist() == sign.tolist()
    margins = logits[1][np.arange(400), targets] - np.where(
        np.eye(5, dtype=bool)[targets], -np.inf, logits[1]
    ).max(axis=1)
    np.testing.assert_allclose(samples["margin_after"], margins, atol=1e-12)


def test_the_confusion_is_scikit_learns(run):
    logits, targets = run
    confusion = comparison_of(*logits, targets).confusion
    for side, z in zip(("before", "after"), logits, strict=True):
        of_side = confusion[confusion["side"] == side]
        table = np.zeros((5, 5), int)
        table[of_side["class"], of_side["predicted"]] = of_side["samples"]
        np.testing.assert_array_equal(table, confusion_matrix(targets, z.argmax(axis=1)))


def test_reliability_is_that_of_each_side(run):
    comparison = comparison_of(*run[0], run[1])
    panel, bins = comparison.panel, comparison.reliability
    for at, side in enumerate(("before", "after")):
        confidence, correct = panel.confidence[at], panel.correct[at]
        for binning in ("equal_mass", "equal_width"):
            table = bins[(bins["side"] == side) & (bins["binning"] == binning)]
            expected = reliability_bins(confidence, correct, binning=binning)
            pd.testing.assert_frame_equal(table[expected.columns].reset_index(drop=True), expected)
        for name, expected in (
            ("reliability_curve", isotonic_curve(confidence, correct)),
            ("reliability_band", consistency_band(confidence)),
        ):
            table = getattr(comparison, name)
            table = table[table["side"] == side].drop(columns="side")
            pd.testing.assert_frame_equal(table.reset_index(drop=True), expected)


def test_it_names_what_it_compares(make_logits):
    logits, targets = make_logits(10, 3, 2)
    one, other = checkpoints(logits, targets, epochs=[0.5, 12])
    assert repr(compare(one, other)) == "Comparison(val epoch 0.5 -> 12, 10 samples)"


def test_tables_are_computed_once(run):
    comparison = comparison_of(*run[0], run[1])
    assert comparison.change is comparison.change
    assert isinstance(comparison.before, Checkpoint)


def test_two_sides_with_a_permuted_list_of_class_names_are_not_compared(run):
    logits, targets = run
    names = ["cat", "dog", "emu", "fox", "gnu"]
    before, after = (
        Predictions(z, targets, class_names=each)
        for z, each in zip(logits, (names, names[1:] + names[:1]), strict=True)
    )
    with pytest.raises(ConfshiftError, match=r"5 of 5 differ; class 0 is 'cat' in .* and 'dog' in "):
        compare(before, after)


@pytest.mark.parametrize("side", [0, 1])
def test_the_classes_of_a_comparison_have_the_names_of_the_side_that_has_any(run, side):
    logits, targets = run
    names = ["cat", "dog", "emu", "fox", "gnu"]
    both = [Predictions(z, targets, class_names=names if at == side else None) for at, z in enumerate(logits)]
    assert compare(*both).panel.class_names == tuple(names)
