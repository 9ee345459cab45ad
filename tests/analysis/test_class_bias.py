"""The class-bias test: its level, its power, and its numbers against a literal computation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import kstest

from confshift import temperature
from confshift.analysis.causes.class_bias import class_bias_test


def calibrated(samples, classes, *, seed, scale=2.0):
    """Logits of which the targets are drawn, made over-confident by `scale`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(samples, classes)) * 1.5
    targets = np.array([rng.choice(classes, p=p) for p in softmax(logits, axis=1)])
    return logits * scale, targets


def fitted(logits, targets):
    beta, status = temperature.optimum(temperature.fit(logits, targets))
    assert status == "ok"
    return class_bias_test(logits, targets, beta=beta)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_p_values_of_unbiased_models_are_uniform(classes):
    p_values = [fitted(*calibrated(400, classes, seed=seed)).p_value for seed in range(80)]
    assert kstest(p_values, "uniform").pvalue > 0.01


def test_without_the_error_of_beta_the_test_would_be_too_timid():
    # Two classes, one of them rare: the bias and the temperature then pull alike.
    def p_value(seed, fitted):
        rng = np.random.default_rng(seed)
        logits = np.column_stack([rng.normal(3, 1, 300), np.zeros(300)])
        targets = (rng.random(300) > softmax(logits, axis=1)[:, 0]).astype(int)
        beta, _ = temperature.optimum(temperature.fit(logits, targets))
        return class_bias_test(logits, targets, beta=beta, fitted=fitted).p_value

    plain = [p_value(seed, False) for seed in range(60)]
    corrected = [p_value(seed, True) for seed in range(60)]
    assert min(plain) > 0.05
    assert kstest(corrected, "uniform").pvalue > 0.01


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_bias_is_found_and_the_class_named(classes):
    logits, targets = calibrated(2000, classes, seed=1)
    logits[:, classes - 1] += 1.5
    found = fitted(logits, targets)
    assert found.p_value < 1e-6
    assert found.classes["excess"].idxmax() == classes - 1
    assert found.classes["excess"][classes - 1] > 4 * found.classes["excess_se"][classes - 1]


def test_the_classes_are_counted_and_averaged_literally():
    logits, targets = calibrated(300, 6, seed=4)
    beta, _ = temperature.optimum(temperature.fit(logits, targets))
    table = class_bias_test(logits, targets, beta=beta).classes
    probability = softmax(beta * logits, axis=1).mean(axis=0)
    frequency = np.bincount(targets, minlength=6) / 300
    np.testing.assert_allclose(table["probability"], probability, atol=1e-12)
    np.testing.assert_allclose(table["frequency"], frequency)
    np.testing.assert_allclose(table["excess"], probability - frequency, atol=1e-12)


def test_the_statistic_is_hotellings_on_corrected_residuals():
    logits, targets = calibrated(200, 4, seed=5)
    beta, _ = temperature.optimum(temperature.fit(logits, targets))
    p = softmax(beta * logits, axis=1)
    centred = logits - (p * logits).sum(axis=1, keepdims=True)
    slope = -centred[np.arange(200), targets]
    influence = (p * centred).mean(axis=0) / (p * centred**2).sum(axis=1).mean()
    residual = (np.eye(4)[targets] - p + slope[:, None] * influence)[:, :3]  # the last class is redundant
    mean = residual.mean(axis=0)
    expected = 200 * mean @ np.linalg.solve(np.cov(residual.T), mean)
    found = class_bias_test(logits, targets, beta=beta)
    assert found.degrees == 3
    assert found.statistic == pytest.approx(expected, rel=1e-6)


def test_adding_a_constant_to_a_row_changes_nothing():
    logits, targets = calibrated(300, 3, seed=6)
    moved = logits + np.random.default_rng(0).normal(scale=50, size=(300, 1))
    before, after = (class_bias_test(z, targets, beta=0.5) for z in (logits, moved))
    assert after.statistic == pytest.approx(before.statistic, rel=1e-9)


def test_masked_and_absent_classes_are_no_obstacle():
    logits, targets = calibrated(500, 5, seed=7)
    logits[:, 4] = -np.inf
    targets[targets == 4] = 0
    found = class_bias_test(logits, targets, beta=0.5)
    assert found.degrees == 3
    assert np.isfinite(found.p_value)


def test_a_model_that_is_always_right_and_sure_has_nothing_to_test():
    targets = np.arange(40) % 4
    found = class_bias_test(np.eye(4)[targets] * 1e4, targets, beta=1.0, fitted=False)
    assert np.isnan(found.p_value)


def test_the_names_of_the_classes_do_not_matter():
    logits, targets = calibrated(300, 5, seed=8)
    names = np.array([3, 0, 4, 1, 2])
    moved = np.empty_like(logits)
    moved[:, names] = logits
    plain, other = (
        class_bias_test(logits, targets, beta=0.5),
        class_bias_test(moved, names[targets], beta=0.5),
    )
    assert other.statistic == pytest.approx(plain.statistic)
    np.testing.assert_allclose(other.classes["excess"][names], plain.classes["excess"], atol=1e-12)
