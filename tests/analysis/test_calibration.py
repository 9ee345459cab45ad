"""Calibration errors against their definitions, their limits and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm

from confshift.analysis.calibration import (
    calibration_errors,
    cumulative_differences,
    expected_calibration_error,
    smooth_calibration_error,
)


@st.composite
def answers(draw):
    """Confidences, some tied and some exactly 1, and whether each answer is right."""
    count = draw(st.integers(1, 40))
    confidence = draw(arrays(np.int16, count, elements=st.integers(100, 1000))) / 1000
    return confidence, draw(arrays(np.bool_, count))


def calibrated(random, samples, low=0.5):
    confidence = random.uniform(low, 1, samples)
    return confidence, random.random(samples) < confidence


def literal_ece(confidence, correct, bins=15):
    total = 0.0
    for b in range(bins):
        inside = [
            i for i, c in enumerate(confidence) if b / bins < c <= (b + 1) / bins or (b == 0 and c == 0)
        ]
        if inside:
            gap = np.mean(confidence[inside]) - np.mean(correct[inside])
            total += len(inside) / len(confidence) * abs(gap)
    return total


@given(answers())
def test_the_expected_calibration_error_is_that_of_the_literal_bins(data):
    confidence, correct = data
    found, _ = expected_calibration_error(confidence, correct)
    assert found == pytest.approx(literal_ece(confidence, correct), abs=1e-12)


def test_a_confidence_on_an_edge_is_in_the_bin_below_it():
    found, _ = expected_calibration_error(np.array([0.2, 0.21]), np.array([True, False]))
    assert found == pytest.approx((0.8 + 0.21) / 2)  # together they would give 0.295


@given(answers(), st.integers(1, 60))
def test_under_uniform_over_confidence_every_weighted_error_is_the_gap(data, bins):
    confidence, _ = data
    wrong = np.zeros(len(confidence), bool)  # in every bin the confidence is above the accuracy
    found, _ = expected_calibration_error(confidence, wrong, bins=bins)
    assert found == pytest.approx(confidence.mean(), rel=1e-12)
    assert smooth_calibration_error(confidence, wrong) == pytest.approx(confidence.mean(), abs=2e-6)


def test_over_confidence_by_a_constant_is_that_constant_however_it_is_measured():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.7, 1, 200_000)
    correct = rng.random(200_000) < confidence - 0.2
    errors = calibration_errors(confidence, correct)
    gap = confidence.mean() - correct.mean()
    assert errors.confidence_gap == pytest.approx(gap, rel=1e-12)
    assert errors.ece == pytest.approx(gap, rel=1e-12)
    assert errors.smooth_ece == pytest.approx(gap, abs=1e-4)


def test_a_confidence_of_one_is_in_the_last_bin():
    confidence = np.array([1.0, 1.0, 0.95, 0.95])
    correct = np.array([True, False, True, True])
    # One bin: |0.975 - 0.75|. A hidden bin for 1.0 would make it (0.5 + 0.05) / 2.
    assert expected_calibration_error(confidence, correct)[0] == pytest.approx(0.225)


@pytest.mark.parametrize(("samples", "low"), [(500, 0.5), (2000, 0.6), (2000, 0.9)])
def test_the_null_value_is_what_a_calibrated_model_shows(samples, low):
    rng = np.random.default_rng(samples)
    confidence = rng.uniform(low, 1, samples)
    draws = [expected_calibration_error(confidence, rng.random(samples) < confidence) for _ in range(300)]
    simulated, nulls = np.mean(draws, axis=0)
    assert nulls == pytest.approx(draws[0][1])  # it does not depend on the answers
    assert nulls == pytest.approx(simulated, rel=0.06)


# ---- smooth calibration error


def literal_smoothed(confidence, correct, width):
    """The integral over [0, 1] of the absolute residuals, each a Gaussian reflected at both ends."""
    places = (np.arange(4000) + 0.5) / 4000
    total = np.zeros_like(places)
    for c, a in zip(confidence, correct, strict=True):
        for image in range(-6, 7):
            for centre in (2 * image + c, 2 * image - c):
                total += (a - c) * norm.pdf(places, centre, width)
    return np.abs(total / len(confidence)).mean()


@pytest.mark.parametrize("seed", range(4))
def test_the_smooth_error_is_the_width_at_which_the_literal_integral_equals_it(seed):
    rng = np.random.default_rng(seed)
    confidence = np.clip(rng.uniform(0.3, 1.1, 25), 0, 1)  # some are exactly 1
    correct = rng.random(25) < confidence - 0.1 * seed
    found = smooth_calibration_error(confidence, correct)
    assert literal_smoothed(confidence, correct, found) == pytest.approx(found, rel=2e-3)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_at_saturation_the_smooth_error_is_the_error_rate(share):
    confidence = np.ones(1000)
    correct = np.arange(1000) >= share * 1000
    assert smooth_calibration_error(confidence, correct) == pytest.approx(share, abs=2e-6)


def test_the_smooth_error_agrees_with_a_filter_of_scipy():
    rng = np.random.default_rng(5)
    confidence, correct = calibrated(rng, 3000, low=0.4)
    found = smooth_calibration_error(confidence, correct)
    cells = np.minimum((confidence * 2000).astype(int), 1999)
    residuals = np.bincount(cells, (correct - confidence) / 3000, 2000)
    smoothed = gaussian_filter1d(residuals, found * 2000, mode="reflect", truncate=8)
    assert np.abs(smoothed).sum() == pytest.approx(found, rel=2e-2)


@given(answers())
def test_the_smooth_error_is_at_least_the_gap_and_at_most_the_mean_residual(data):
    confidence, correct = data
    found = smooth_calibration_error(confidence, correct)
    assert abs((confidence - correct).mean()) - 2e-6 <= found <= np.abs(confidence - correct).mean() + 2e-6


# ---- cumulative differences


def test_the_p_value_of_a_calibrated_model_is_uniform():
    rng = np.random.default_rng(11)
    p = [cumulative_differences(*calibrated(rng, 1500))[1] for _ in range(1000)]
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(
            level, abs=4 * math.sqrt(level * (1 - level) / 1000)
        )


@pytest.mark.parametrize("excess", [0, 2, 15, 40, 75, 112, 200])
def test_the_p_value_is_that_of_the_other_series_of_the_same_law(excess):
    # One tie group: the statistic is |sum of residuals| / sqrt(sum of c (1 - c)) = excess / 50.
    correct = np.arange(10_000) < 5000 + excess
    statistic, p_value = cumulative_differences(np.full(10_000, 0.5), correct)
    assert statistic == pytest.approx(excess / 50)
    # P(sup |B| <= x) = 4/pi sum (-1)^k/(2k+1) exp(-(2k+1)^2 pi^2 / (8 x^2)); ours is by reflection.
    odd = 2 * np.arange(200) + 1
    exponents = (odd * math.pi) ** 2 / 8 / max(statistic, 1e-3) ** 2
    within = 4 / math.pi * (np.where(odd % 4 == 1, 1, -1) / odd * np.exp(-exponents)).sum()
    assert p_value == pytest.approx(1 - within, abs=1e-12)


@given(answers(), st.randoms(use_true_random=False))
def test_the_order_of_tied_samples_does_not_matter(data, random):
    confidence, correct = data
    order = list(range(len(confidence)))
    random.shuffle(order)
    one, other = (
        cumulative_differences(confidence, correct),
        cumulative_differences(confidence[order], correct[order]),
    )
    np.testing.assert_allclose(one, other, atol=1e-9)


def test_an_untrained_head_in_a_folder_sorted_by_class_is_not_called_miscalibrated():
    # Every confidence is 1/K and class 0 is always predicted: right for exactly 1/K of the samples.
    correct = np.repeat(np.arange(10), 500) == 0
    statistic, p_value = cumulative_differences(np.full(5000, 0.1), correct)
    assert statistic == pytest.approx(0, abs=1e-9)
    assert p_value == 1


def test_saturated_confidences_have_no_p_value():
    assert all(math.isnan(x) for x in cumulative_differences(np.ones(5), np.ones(5, bool)))


def test_the_gap_has_its_standard_error():
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1, 800)
    gaps = [calibration_errors(confidence, rng.random(800) < confidence) for _ in range(400)]
    assert np.std([errors.confidence_gap for errors in gaps]) == pytest.approx(
        gaps[0].confidence_gap_se, rel=0.15
    )
    assert np.mean([errors.confidence_gap for errors in gaps]) == pytest.approx(0, abs=0.003)


def test_without_samples_everything_is_unknown():
    assert all(math.isnan(x) for x in calibration_errors(np.array([]), np.array([], bool)))
