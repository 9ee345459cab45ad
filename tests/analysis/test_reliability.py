"""Bins, intervals, curve and band against scikit-learn, scipy and what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.isotonic import isotonic_regression

from confshift.analysis.calibration import expected_calibration_error
from confshift.analysis.reliability import (
    BINNINGS,
    bin_columns,
    consistency_band,
    isotonic_curve,
    reliability_bins,
    wilson_interval,
)


@st.composite
def answers(draw):
    count = draw(st.integers(1, 60))
    confidence = draw(arrays(np.int16, count, elements=st.integers(0, 1000))) / 1000
    return confidence, draw(arrays(np.bool_, count))


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(
    ("right", "of"), [(0, 1), (1, 1), (0, 40), (40, 40), (99, 100), (666, 667), (13, 37)]
)
def test_wilsons_interval_is_scipys(right, of, level):
    low, high = wilson_interval(np.array([right]), np.array([of]), level=level)
    expected = binomtest(right, of).proportion_ci(level, method="wilson")
    assert (low[0], high[0]) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high))


def test_without_a_trial_there_is_no_interval():
    low, high = wilson_interval(np.array([0]), np.array([0]))
    assert math.isnan(low[0])
    assert math.isnan(high[0])


@given(answers(), st.sampled_from(BINNINGS), st.integers(1, 20))
def test_every_sample_is_in_exactly_one_bin(data, binning, bins):
    confidence, correct = data
    table = reliability_bins(confidence, correct, binning=binning, bins=bins)
    assert table["samples"].sum() == len(confidence)
    assert len(table) <= bins
    for _, row in table.iterrows():
        above = (confidence > row["edge_low"]) | (row["edge_low"] == 0)
        inside = above & (confidence <= row["edge_high"])
        if row["edge_low"] == 0 and row["bin"] > 0:
            inside = (confidence > 0) & (confidence <= row["edge_high"])
        assert row["samples"] == inside.sum()
        assert row["confidence"] == pytest.approx(confidence[inside].mean())
        assert row["accuracy"] == pytest.approx(correct[inside].mean())
        assert row["accuracy_low"] <= row["accuracy"] + 1e-12
        assert row["accuracy_high"] >= row["accuracy"] - 1e-12
        assert binning == "equal_mass" or row["edge_high"] == pytest.approx((row["bin"] + 1) / bins)


@given(answers())
def test_the_expected_calibration_error_is_that_of_the_table(data):
    confidence, correct = data
    table = reliability_bins(confidence, correct, binning="equal_width")
    gaps = (table["confidence"] - table["accuracy"]).abs() * table["samples"] / len(confidence)
    assert gaps.sum() == pytest.approx(expected_calibration_error(confidence, correct)[0], abs=1e-12)


@pytest.mark.parametrize(("binning", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")])
def test_the_bins_are_those_of_scikit_learn(binning, strategy):
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.2, 1, 1500)
    correct = rng.random(1500) < confidence
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15, strategy=strategy)
    table = reliability_bins(confidence, correct, binning=binning)
    # Its quantiles lie between two samples, ours on one: a sample at an edge may change its bin.
    tolerance = 1e-12 if binning == "equal_width" else 0.02
    np.testing.assert_allclose(table["accuracy"], accuracy, atol=tolerance)
    np.testing.assert_allclose(table["confidence"], mean, atol=tolerance)


def test_without_ties_bins_of_equal_mass_hold_equally_many():
    confidence = np.random.default_rng(4).permutation(np.linspace(0.3, 1, 1500))
    table = reliability_bins(confidence, np.ones(1500, bool), binning="equal_mass")
    assert table["samples"].tolist() == [100] * 15


def test_tied_confidences_stay_in_one_bin():
    confidence = np.r_[np.full(50, 0.9), np.ones(30), np.linspace(0.2, 0.8, 20)]
    table = reliability_bins(confidence, np.ones(100, bool), binning="equal_mass", bins=10)
    of_ties = table.set_index("edge_high")["samples"]
    assert of_ties[0.9] >= 50
    assert of_ties[1.0] == 30
    assert table["samples"].sum() == 100


def test_a_subset_with_one_class_and_one_confidence_is_one_bin():
    for binning in BINNINGS:
        table = reliability_bins(np.ones(7), np.zeros(7, bool), binning=binning)
        assert table[["samples", "confidence", "accuracy"]].to_numpy().tolist() == [[7, 1, 0]]


@pytest.mark.parametrize("binning", BINNINGS)
def test_without_samples_there_are_no_bins(binning):
    columns = bin_columns(np.array([]), np.array([], bool), binning=binning)
    assert {len(values) for values in columns.values()} == {0}


# ---- the isotonic curve


@given(answers())
def test_the_curve_goes_through_scikit_learns_isotonic_fit(data):
    confidence, correct = data
    levels, index, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    means = np.bincount(index, correct) / counts
    fitted = isotonic_regression(means, sample_weight=counts.astype(float))
    curve = isotonic_curve(confidence, correct)
    assert curve["confidence"].is_monotonic_increasing
    assert curve["accuracy"].is_monotonic_increasing
    np.testing.assert_allclose(np.interp(levels, curve["confidence"], curve["accuracy"]), fitted, atol=1e-9)
    assert set(curve["confidence"]) <= set(levels)


def test_a_level_of_the_curve_is_two_points_at_most():
    confidence = np.linspace(0.1, 1, 400)
    correct = np.random.default_rng(0).random(400) < confidence
    curve = isotonic_curve(confidence, correct)
    assert curve.groupby("accuracy").size().max() <= 2
    assert (curve["confidence"].iloc[0], curve["confidence"].iloc[-1]) == (0.1, 1.0)


# ---- the consistency band


def test_the_band_covers_the_curve_of_a_calibrated_model_and_not_of_another():
    rng = np.random.default_rng(8)
    confidence = rng.uniform(0.4, 1, 1000)
    band = consistency_band(confidence)
    inside, shifted = [], []
    for _ in range(40):
        for outcome, into in ((confidence, inside), (confidence - 0.2, shifted)):
            curve = isotonic_curve(confidence, rng.random(1000) < outcome)
            fitted = np.interp(band["confidence"], curve["confidence"], curve["accuracy"])
            into.append(((band["low"] - 1e-9 <= fitted) & (fitted <= band["high"] + 1e-9)).mean())
    assert np.mean(inside) == pytest.approx(0.9, abs=0.05)
    assert np.mean(shifted) < 0.2


def test_the_band_is_the_same_each_time_and_holds_the_diagonal():
    confidence = np.random.default_rng(1).uniform(0.5, 1, 3000)
    band = consistency_band(confidence, max_samples=500)
    assert band.equals(consistency_band(confidence, max_samples=500))
    assert not band.equals(consistency_band(confidence, max_samples=500, seed=1))
    middle = band.iloc[10:-10]
    assert ((middle["low"] <= middle["confidence"]) & (middle["confidence"] <= middle["high"])).all()
    assert set(band["confidence"]) <= set(confidence)


def test_the_band_of_one_sample_is_everything():
    band = consistency_band(np.array([0.5]))
    assert band[["confidence", "low", "high"]].to_numpy().tolist() == [[0.5, 0.0, 1.0]]
