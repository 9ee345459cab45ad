"""Losses between two passes over the logits are those that a pass there would find."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis import loss_curves
from confshift.analysis.loss_curves import LossCurves
from confshift.temperature import curve_at, fit, optimum


def drawn(samples, classes, seed=0):
    random = np.random.default_rng(seed)
    logits = 2.5 * random.normal(size=(samples, classes))
    targets = random.integers(0, classes, samples)
    logits[np.arange(samples), targets] += np.log(classes) * random.gamma(2.0, 1.0, samples)
    return logits, targets


@pytest.mark.parametrize("classes", [2, 10, 100, 3000])
def test_between_passes_losses_slopes_and_curvatures_are_interpolated(classes):
    logits, targets = drawn(200, classes)
    curves = LossCurves(logits, targets, curve_at(logits, targets, 0.8))
    for beta in 0.8 * np.exp(np.linspace(-1, 1, 41)):
        exact, found = curve_at(logits, targets, beta), curves.at(beta, slice(None))
        np.testing.assert_allclose(found[0], exact.loss, atol=2e-5)
        assert found[0].mean() == pytest.approx(exact.loss.mean(), abs=5e-6)
        np.testing.assert_allclose(found[1], exact.slope, atol=1e-3 * np.abs(exact.slope).max())
        np.testing.assert_allclose(found[2], exact.curvature, atol=5e-3 * exact.curvature.max())


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=8))
def test_the_order_in_which_temperatures_are_asked_matters_only_within_that_error(places):
    logits, targets = drawn(50, 8)
    curves = LossCurves(logits, targets, curve_at(logits, targets, 1.0))
    for place in places:
        exact = curve_at(logits, targets, np.exp(place))
        np.testing.assert_allclose(curves.at(np.exp(place), slice(None))[0], exact.loss, atol=2e-5)
        some = np.array([3, 41])
        np.testing.assert_array_equal(
            curves.at(np.exp(place), some)[0], curves.at(np.exp(place), slice(None))[0, some]
        )


def test_of_many_samples_losses_near_a_pass_are_expanded(monkeypatch):
    logits, targets = drawn(500, 10)
    monkeypatch.setattr(loss_curves, "MANY", 100)
    curves, beta = LossCurves(logits, targets, curve_at(logits, targets, 1.0)), math.exp(1.9e-3)
    monkeypatch.setattr(loss_curves, "derivatives", None)  # no pass is made
    exact, found = curve_at(logits, targets, beta), curves.at(beta, slice(None))
    np.testing.assert_allclose(found[0], exact.loss, atol=1e-7)
    assert found[0].mean() == pytest.approx(exact.loss.mean(), abs=1e-8)
    assert found[1].mean() == pytest.approx(exact.slope.mean(), abs=1e-5 * exact.slope.std())


@pytest.mark.parametrize("classes", [2, 10])
def test_the_best_temperatures_without_a_fold_are_those_of_fits_to_the_others(classes):
    logits, targets = drawn(600, classes)
    curves, fold = LossCurves(logits, targets, fit(logits, targets)), np.arange(600) % 4
    start, _ = curves.best(curves.first.beta, np.ones(600))
    for left_out, (found, status) in enumerate(curves.best_without(fold, 4, start)):
        expected, _ = optimum(fit(logits[fold != left_out], targets[fold != left_out]))
        assert (found, status) == (pytest.approx(expected, rel=1e-5), "ok")


@pytest.mark.parametrize("start", [0.5, 1.0, 1.3])
def test_the_best_temperature_of_some_samples_is_that_of_a_fit_to_them(start):
    logits, targets = drawn(400, 10)
    logits *= 1.7
    some = np.arange(400) % 5 != 2
    curves = LossCurves(logits, targets, curve_at(logits, targets, start))
    expected, status = optimum(fit(logits[some], targets[some]))
    found = curves.best(start, some.astype(float))
    assert found == (pytest.approx(expected, rel=1e-5), status) == (found[0], "ok")


@pytest.mark.parametrize(("sign", "status"), [(1.0, "separable"), (-1.0, "uniform")])
def test_samples_without_a_best_temperature_are_told(sign, status):
    targets = np.arange(40) % 4
    logits = sign * np.eye(4)[targets]
    assert LossCurves(logits, targets, curve_at(logits, targets, 1.0)).best(1.0, np.ones(40))[1] == status
