"""The temperature against scipy, scikit-learn and leave-one-out refits; its edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from confshift import temperature
from confshift.temperature import MAX_BETA, curve_at, expand, fit, left_out_betas, optimum

COLUMNS = ("loss", "slope", "curvature")


def losses(logits, targets, beta):
    """The literal formula, in double precision."""
    z = logits.astype(np.float64)
    z = np.asarray(beta)[..., None] * (z - z.max(axis=1, keepdims=True))
    return logsumexp(z, axis=1) - z[np.arange(len(targets)), targets]


def best_beta(logits, targets):
    """The optimum by scipy, on log beta."""

    def mean_loss(u):
        return losses(logits, targets, np.exp(u)).mean()

    found = minimize_scalar(mean_loss, bounds=(-12, 10), method="bounded", options={"xatol": 1e-10})
    return float(np.exp(found.x))


@st.composite
def samples(draw):
    count, classes = draw(st.integers(1, 12)), draw(st.sampled_from([2, 3, 10, 40]))
    scale = draw(st.sampled_from([1e-2, 1.0, 30.0]))
    logits = draw(arrays(np.int8, (count, classes), elements=st.integers(-64, 64))) / 64 * scale
    return logits, draw(arrays(np.int64, count, elements=st.integers(0, classes - 1)))


@pytest.mark.parametrize(("dtype", "digits"), [("float64", 1e-12), ("float32", 1e-6), ("float16", 1e-6)])
@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 7, 40])
def test_the_curve_is_the_loss_with_its_mean_and_variance_formulas(make_logits, classes, beta, dtype, digits):
    logits, targets = make_logits(50, classes, 1, seed=classes)
    z = logits[0].astype(dtype)
    curve = curve_at(z, targets, beta)
    z = z.astype(np.float64)
    p = softmax(beta * z, axis=1)
    mean = (p * z).sum(axis=1)
    size = np.abs(z).max()
    np.testing.assert_allclose(curve.loss, losses(z, targets, beta), atol=digits * size)
    np.testing.assert_allclose(curve.slope, mean - z[np.arange(50), targets], atol=digits * size)
    variance = (p * (z - mean[:, None]) ** 2).sum(axis=1)
    np.testing.assert_allclose(curve.curvature, variance, atol=digits * size**2)


@pytest.mark.parametrize("scale", [1e-3, 0.2, 1.0, 25.0, 1e3])
@pytest.mark.parametrize("classes", [2, 3, 10, 128])
def test_the_optimum_is_that_of_scipy(make_logits, classes, scale):
    logits, targets = make_logits(300, classes, 1, seed=classes)
    logits = logits[0] * scale
    beta, status = optimum(fit(logits, targets))
    assert status == "ok"
    assert beta == pytest.approx(
        best_beta(logits, targets), rel=2e-6
    )  # a minimum is found to the root of eps
    total = curve_at(logits, targets, beta)
    newton = total.slope.sum() / total.curvature.sum()
    assert abs(newton) <= 1e-7 * beta  # and this is sharper: the slope there is zero


class Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its input."""

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def decision_function(self, x):
        return x

    def predict(self, x):
        return self.classes_[x.argmax(axis=1)]


@pytest.mark.parametrize("classes", [3, 10, 40])
def test_the_optimum_is_that_of_scikit_learn(make_logits, classes):
    logits, targets = make_logits(1500, classes, 1, seed=classes)
    model = FrozenEstimator(Logits().fit(logits[0], targets))
    calibrated = CalibratedClassifierCV(model, method="temperature").fit(logits[0], targets)
    theirs = calibrated.calibrated_classifiers_[0].calibrators[0].beta_
    assert optimum(fit(logits[0], targets))[0] == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("classes", [3, 40])
def test_single_precision_finds_the_optimum_of_double(make_logits, classes, dtype):
    logits, targets = make_logits(500, classes, 1)
    z = logits[0].astype(dtype)
    expected = optimum(fit(z.astype(np.float64), targets))[0]
    assert optimum(fit(z, targets))[0] == pytest.approx(expected, rel=1e-6)


@given(samples())
def test_no_temperature_is_better_than_the_one_found(data):
    logits, targets = data
    beta, status = optimum(fit(logits, targets))
    found = losses(logits, targets, beta).mean()
    for other in (0.0, 1.0, best_beta(logits, targets), MAX_BETA, *(beta * np.array([0.5, 0.99, 1.01, 2.0]))):
        if status != "separable" or other <= MAX_BETA:
            assert found <= losses(logits, targets, other).mean() + 1e-12


@given(samples())
def test_in_sample_refined_loss_is_at_most_the_loss_and_the_uniform_loss(data):
    logits, targets = data
    beta, _ = optimum(fit(logits, targets))
    refined = losses(logits, targets, beta).mean()
    assert refined <= min(losses(logits, targets, 1.0).mean(), np.log(logits.shape[1])) + 1e-12


@given(samples(), st.sampled_from([0.1, 0.5, 7.0]))
def test_scaling_the_logits_scales_beta_inversely(data, factor):
    logits, targets = data
    (beta, status), (scaled, scaled_status) = (optimum(fit(z, targets)) for z in (logits, factor * logits))
    assume("separable" not in (status, scaled_status))  # the cap does not scale
    assert status == scaled_status
    if np.ptp(logits, axis=1).any():  # else any beta will do
        assert scaled * factor == pytest.approx(beta, rel=1e-6)


@given(samples(), st.integers(0, 2**32 - 1))
def test_a_constant_per_row_and_the_order_of_rows_change_nothing(data, seed):
    logits, targets = data
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(targets))
    moved = (logits + rng.normal(0, 5, (len(targets), 1)))[order]
    (beta, status), (again, status_again) = optimum(fit(logits, targets)), optimum(fit(moved, targets[order]))
    assert status == status_again
    assert again == pytest.approx(beta, rel=1e-6)


@given(samples())
def test_the_mean_loss_is_convex_in_beta(data):
    logits, targets = data
    slopes = [curve_at(logits, targets, beta).slope.sum() for beta in np.geomspace(1e-3, 1e3, 13)]
    size = np.abs(logits).max() * len(targets)
    assert (np.diff(slopes) >= -1e-13 * size).all()


def test_a_scaled_run_has_temperatures_in_proportion_and_one_refined_loss(make_logits):
    logits, targets = make_logits(2000, 5, 4, seed=3)
    curves = [fit(z, targets) for z in logits]
    temperatures = np.array([1 / optimum(curve)[0] for curve in curves])
    np.testing.assert_allclose(temperatures / temperatures[0], 4 ** (np.arange(4) / 3), rtol=1e-7)
    assert temperatures[0] == pytest.approx(1, abs=0.1)  # calibrated by construction
    refined = [losses(z, targets, 1 / t).mean() for z, t in zip(logits, temperatures, strict=True)]
    np.testing.assert_allclose(refined, refined[0], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_data_sorted_by_class_starts_from_a_subset_and_ends_at_the_same_optimum(make_logits, dtype):
    logits, targets = make_logits(6000, 4, 1, seed=4)
    order = np.argsort(targets, kind="stable")
    z, y = logits[0][order].astype(dtype), targets[order]
    found = [optimum(fit(z, y, seed=seed))[0] for seed in (0, 1)]
    np.testing.assert_allclose(found, best_beta(z, y), rtol=2e-6)
    assert found[0] == pytest.approx(found[1], rel=1e-7)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_search_takes_few_passes_wherever_the_optimum_lies(make_logits, scale, monkeypatch):
    passes = []

    def counted(*arguments):
        passes.append(arguments)
        return curve_at(*arguments)

    monkeypatch.setattr(temperature, "curve_at", counted)
    logits, targets = make_logits(300, 4, 1)
    fit(logits[0] * scale, targets)
    assert len(passes) <= 20


@pytest.mark.parametrize("count", [60, 5000])
def test_where_the_uniform_prediction_is_best_beta_is_zero_and_the_refined_loss_is_ln_k(make_logits, count):
    logits, targets = make_logits(count, 3, 1)
    curve = fit(-logits[0], targets)
    assert optimum(curve) == (0.0, "uniform")
    assert not left_out_betas(curve).any()
    np.testing.assert_allclose(expand(curve, left_out_betas(curve)), np.log(3), rtol=1e-15)


@pytest.mark.parametrize("count", [1, 60, 5000])
def test_separable_data_ends_at_the_cap_and_is_flagged(make_logits, count):
    logits, _ = make_logits(count, 3, 1)
    targets = logits[0].argmax(axis=1)
    curve = fit(logits[0], targets)
    assert optimum(curve) == (MAX_BETA, "separable")
    assert (left_out_betas(curve) == MAX_BETA).all()
    assert (expand(curve, left_out_betas(curve)) >= 0).all()


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999, 1.0, 1.001, 30.0])
@pytest.mark.parametrize("count", [300, 5000])
def test_an_optimum_about_or_beyond_the_cap_of_separable_data_is_found(make_logits, share, count):
    logits, targets = make_logits(count, 4, 1)
    z = logits[0] * optimum(fit(logits[0], targets))[0] / (share * MAX_BETA)
    beta, status = optimum(fit(z, targets))
    assert status == "ok"
    assert beta == pytest.approx(share * MAX_BETA, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-15, 1e-10, 1e-6, 1e6, 1e14, 1e15, 1e20, 1e30, 1e37])
def test_the_scale_of_the_logits_changes_the_temperature_and_nothing_else(make_logits, scale, dtype):
    logits, targets = make_logits(300, 4, 1)
    usual, extreme = (fit((factor * logits[0]).astype(dtype), targets) for factor in (1.0, scale))
    beta, status = optimum(extreme)
    assert status == "ok"
    assert beta * scale == pytest.approx(optimum(usual)[0], rel=1e-5)
    refined = [expand(curve, left_out_betas(curve)) for curve in (usual, extreme)]
    np.testing.assert_allclose(refined[1], refined[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sample_with_an_enormous_loss_is_fitted_and_one_with_a_masked_true_class_is_not(make_logits, dtype):
    logits, targets = make_logits(300, 4, 1)
    z = logits[0].astype(dtype)
    z[3], targets[3] = [0, 1e16, 0, 0], 0
    z[7], targets[7] = [-np.inf, 1, 0, 0], 0
    curve = fit(z, targets)
    refined = expand(curve, left_out_betas(curve))
    assert np.flatnonzero(np.isnan(refined)).tolist() == [7]
    assert curve.beta < 1e-12  # it is so wrong that it takes all confidence away


@pytest.mark.parametrize("spoiled", [[np.nan, 0, 0], [np.inf, 0, 0], [-np.inf, 1, 0], [-np.inf] * 3])
def test_separable_data_is_found_out_beside_a_sample_that_can_not_be_fitted(make_logits, spoiled):
    logits, _ = make_logits(60, 3, 1)
    z = logits[0]
    targets = z.argmax(axis=1)
    z[5], targets[5] = spoiled, 0
    assert optimum(fit(z, targets)) == (MAX_BETA, "separable")


@pytest.mark.parametrize("logits", [np.zeros((5, 4)), np.full((5, 40), 7.0)])
def test_logits_that_say_nothing_give_the_uniform_loss_at_any_temperature(logits):
    curve = fit(logits, np.arange(5) % 4)
    beta, _ = optimum(curve)
    assert np.isfinite(beta)
    refined = expand(curve, left_out_betas(curve))
    np.testing.assert_allclose(refined, np.log(logits.shape[1]), rtol=1e-15)


@pytest.mark.parametrize("spoiled", [[np.nan, 0, 0], [np.inf, 0, 0], [-np.inf, 1, 0], [-np.inf] * 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_that_can_not_be_scored_takes_no_part(make_logits, spoiled, dtype):
    logits, targets = make_logits(60, 3, 1)
    z = logits[0].astype(dtype)
    z[5], targets[5] = spoiled, 0
    curve = fit(z, targets)
    rest = np.arange(60) != 5
    without = fit(z[rest], targets[rest])
    assert optimum(curve)[0] == pytest.approx(optimum(without)[0], rel=1e-12)
    np.testing.assert_allclose(left_out_betas(curve)[rest], left_out_betas(without), rtol=1e-12)
    for column in (*(getattr(curve, name) for name in COLUMNS), left_out_betas(curve)):
        np.testing.assert_array_equal(np.isnan(column), ~rest)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_masked_class_weighs_nothing(make_logits, dtype):
    logits, targets = make_logits(200, 4, 1)
    z = logits[0].astype(dtype)
    masked = np.column_stack([z, np.full(200, -np.inf, dtype)])
    for name in COLUMNS:
        for beta in (0.01, 1.0, 4.0):
            with_mask, without = (getattr(curve_at(x, targets, beta), name) for x in (masked, z))
            np.testing.assert_allclose(with_mask, without, rtol=1e-6, atol=1e-5)
    assert optimum(fit(masked, targets))[0] == pytest.approx(optimum(fit(z, targets))[0], rel=1e-6)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_left_out_betas_are_those_of_refits_without_each_sample(make_logits, classes):
    logits, targets = make_logits(200, classes, 2, seed=classes)
    for z in logits:
        curve = fit(z, targets)
        rest = ~np.eye(200, dtype=bool)
        refits = np.array([optimum(fit(z[others], targets[others]))[0] for others in rest])
        betas = left_out_betas(curve)
        np.testing.assert_allclose(betas, refits, rtol=4e-3)
        assert np.abs(betas / refits - 1).mean() < 2e-4
        exact = losses(z, targets, refits).mean()
        assert expand(curve, betas).mean() == pytest.approx(exact, abs=3e-4)


@pytest.mark.parametrize("offset", [0.95, 1.0, 1.05])
def test_left_out_losses_need_no_exact_optimum_to_start_from(make_logits, offset):
    logits, targets = make_logits(500, 5, 1)
    best = optimum(fit(logits[0], targets))[0]
    reference = losses(logits[0], targets, left_out_betas(curve_at(logits[0], targets, best))).mean()
    off = curve_at(logits[0], targets, offset * best)
    assert expand(off, left_out_betas(off)).mean() == pytest.approx(reference, abs=2e-4)
    assert optimum(off)[0] == pytest.approx(best, rel=5e-3)


@pytest.mark.parametrize("samples", [100, 1000])
def test_leaving_out_costs_what_theory_says(make_logits, samples):
    # V / (J N): half for the optimism of fitting in sample, half for the one parameter.
    excess, theory = [], []
    for seed in range(20):
        logits, targets = make_logits(samples, 4, 1, seed=seed)
        curve = fit(logits[0], targets)
        excess.append(expand(curve, left_out_betas(curve)).mean() - curve.loss.mean())
        theory.append(curve.slope.var() / (curve.curvature.mean() * samples))
    assert np.mean(excess) == pytest.approx(np.mean(theory), rel=0.1)


@given(samples())
def test_left_out_losses_are_never_nan_and_no_sample_moves_the_fit_beyond_a_factor_of_two(data):
    logits, targets = data
    curve = fit(logits, targets)
    beta, _ = optimum(curve)
    betas = left_out_betas(curve)
    assert (betas >= beta / 2).all()
    assert (betas <= 2 * beta).all()
    assert np.isfinite(expand(curve, betas)).all()


def test_where_one_sample_carries_the_fit_leaving_it_out_is_held_by_the_clip():
    logits, targets = np.array([[10.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    curve = fit(logits, targets)
    beta, status = optimum(curve)
    assert status == "ok"
    assert beta + curve.slope[0] / curve.curvature[1] < 0  # the step without the only right sample
    assert left_out_betas(curve)[0] == beta / 2
    assert beta < left_out_betas(curve)[1] < 2 * beta


def test_expand_is_the_second_order_expansion(make_logits):
    logits, targets = make_logits(300, 5, 1)
    curve = fit(logits[0], targets)
    betas = left_out_betas(curve)
    exact = losses(logits[0], targets, betas)
    assert expand(curve, betas).mean() == pytest.approx(exact.mean(), abs=2e-5)
    np.testing.assert_allclose(expand(curve, np.full(300, curve.beta)), curve.loss, rtol=0, atol=0)
