"""The label-noise floor recovers what was flipped, and the suspects are the flipped ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from confshift.analysis import loss_curves
from confshift.analysis.causes import label_noise, mixture
from confshift.analysis.causes.label_noise import label_noise_floor, label_noise_of
from confshift.analysis.dynamics import label_suspects
from confshift.analysis.stacking import stack
from confshift.checkpoint import Checkpoint
from confshift.draws import own_generator
from confshift.predictions import Predictions


def noisy(samples, classes, rate, *, seed=0, shift=2.5, scale=3.0):
    """Calibrated evidence made over-confident by `scale`, and targets of which a share `rate` is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, samples)
    evidence = rng.normal(size=(samples, classes))
    evidence[np.arange(samples), truth] += shift
    wrong = rng.random(samples) < rate
    targets = np.where(wrong, (truth + rng.integers(1, classes, samples)) % classes, truth)
    return evidence * shift * scale, targets, wrong


@pytest.mark.parametrize(("samples", "classes"), [(3000, 2), (2000, 10), (2000, 40)])
@pytest.mark.parametrize("rate", [0.05, 0.10])
def test_the_rate_of_flipped_labels_is_recovered_within_its_error(samples, classes, rate):
    logits, targets, wrong = noisy(samples, classes, rate, seed=classes)
    found = label_noise_floor(logits, targets)
    assert abs(found.wrong_labels - wrong.mean()) < 2.5 * found.wrong_labels_se
    assert found.wrong_labels_se < 0.02
    assert found.gain > max(2 * found.gain_se, 0.01 * found.loss)
    assert found.temperature == pytest.approx(3.0, rel=0.15)  # that of the clean samples


@pytest.mark.parametrize("classes", [2, 10, 40])
def test_clean_labels_have_no_floor(classes):
    found = [label_noise_floor(*noisy(1500, classes, 0.0, seed=seed)[:2]) for seed in range(6)]
    assert np.mean([one.wrong_labels for one in found]) < 0.005
    assert sum(one.gain > 2 * one.gain_se for one in found) == 0


def test_the_fit_is_the_maximum_of_the_likelihood_that_scipy_finds_without_derivatives():
    logits, targets, _ = noisy(600, 5, 0.1)
    found = label_noise_floor(logits, targets)

    def objective(parameters):
        p = np.exp(log_softmax(np.exp(parameters[0]) * logits, axis=1))[np.arange(600), targets]
        return -np.log((1 - parameters[1]) * p + parameters[1] / 5).mean()

    best = minimize(
        objective,
        [-1.0, 0.05],
        method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-12, "maxiter": 2000},
    )
    assert found.floor == pytest.approx(best.x[1], abs=2e-4)
    assert 1 / found.temperature == pytest.approx(math.exp(best.x[0]), rel=2e-3)


def test_the_error_of_the_floor_is_the_spread_over_samples_of_samples():
    found = [label_noise_floor(*noisy(800, 6, 0.08, seed=seed)[:2]) for seed in range(30)]
    spread = np.std([one.floor for one in found], ddof=1)
    assert np.mean([one.floor_se for one in found]) == pytest.approx(spread, rel=0.35)


def computed_in_full(logits, targets, fold):
    """Floor, 1/T, and each sample's gain by the fits to the other folds: scipy, all logits each time."""
    rows, classes = np.arange(len(targets)), logits.shape[1]

    def log_p(some, beta, eps):
        p = np.exp(log_softmax(beta * logits[some], axis=1))[np.arange(len(some)), targets[some]]
        return np.log((1 - eps) * p + eps / classes)

    def fitted(some):
        def objective(parameters):
            return -log_p(some, np.exp(parameters[0]), 1 / (1 + np.exp(-parameters[1]))).mean()

        start, options = [math.log(1 / 3), -3.0], {"xatol": 1e-7, "fatol": 1e-13, "maxiter": 4000}
        at = minimize(objective, start, method="Nelder-Mead", options=options).x
        return math.exp(at[0]), 1 / (1 + math.exp(-at[1]))

    gains = np.empty(len(targets))
    for left_out in range(5):
        test, others = rows[fold == left_out], rows[fold != left_out]
        alone = minimize_scalar(lambda beta, of: -log_p(of, beta, 0).mean(), (0.2, 0.4), args=(others,))
        gains[test] = log_p(test, *fitted(others)) - log_p(test, alone.x, 0)
    return *fitted(rows), gains


@pytest.mark.parametrize("part_first", [False, True])
@pytest.mark.parametrize("classes", [2, 30])
def test_the_shortcuts_are_off_by_far_less_than_the_standard_errors(classes, part_first, monkeypatch):
    """Passes between which losses are interpolated, and a part fitted first, against no shortcut."""
    monkeypatch.setattr(mixture, "_FIRST", 0 if part_first else 10**9)
    logits, targets, _ = noisy(700, classes, 0.08)
    found = label_noise_floor(logits, targets)
    fold = label_noise.folds_of(own_generator(0), 700, 5)
    beta, eps, gains = computed_in_full(logits, targets, fold)
    assert found.floor == pytest.approx(eps, abs=0.005 * found.floor_se)
    assert found.gain == pytest.approx(gains.mean(), abs=0.005 * found.gain_se)
    assert found.gain_se == pytest.approx(gains.std(ddof=1) / math.sqrt(700), rel=1e-3)
    assert 1 / found.temperature == pytest.approx(beta, rel=5e-4)


@pytest.mark.parametrize(("classes", "rate"), [(2, 0.08), (10, 0.08), (10, 0.3), (10, 0.0)])
def test_the_shortcuts_of_many_samples_are_off_by_less_than_a_tenth_of_the_standard_errors(
    classes, rate, monkeypatch
):
    logits, targets, _ = noisy(30_000, classes, rate)
    full, asked = label_noise_floor(logits, targets), []
    monkeypatch.setattr(loss_curves, "MANY", 20_000)
    objective = mixture._objective
    monkeypatch.setattr(mixture, "_objective", lambda *of: asked.append(len(of[1])) or objective(*of))
    found = label_noise_floor(logits, targets)
    # Without the shortcut more than 20; without a floor there is no curvature to step by.
    assert asked.count(30_000) <= 12 or not rate
    for name in ("floor", "gain", "temperature_gain"):
        error = getattr(full, f"{name}_se")
        assert getattr(found, name) == pytest.approx(getattr(full, name), abs=0.1 * error)
        assert getattr(found, f"{name}_se") == pytest.approx(error, rel=0.05)
    assert found.temperature == pytest.approx(full.temperature, rel=2e-3)


def test_folds_of_many_samples_that_need_passes_of_their_own_need_a_few_each(monkeypatch):
    # Nearly all are right but for the labels: any 1/T will do.
    logits, targets, _ = noisy(30_000, 2, 0.1, shift=5.0)
    made, derivatives = [], loss_curves.derivatives
    monkeypatch.setattr(loss_curves, "MANY", 20_000)
    monkeypatch.setattr(loss_curves, "derivatives", lambda *of: made.append(len(of[1])) or derivatives(*of))
    found = label_noise_floor(logits, targets)
    assert made.count(30_000) <= 35  # 20 to 28 with ten seeds of the folds, for eleven fits
    assert abs(found.wrong_labels - 0.1) < 3 * found.wrong_labels_se


def test_what_a_checkpoint_knows_saves_passes_and_changes_nothing(monkeypatch):
    logits, targets, _ = noisy(600, 10, 0.08)
    checkpoint = Checkpoint.from_predictions(Predictions(logits, targets), epoch=0)
    made, derivatives = [], loss_curves.derivatives
    monkeypatch.setattr(loss_curves, "derivatives", lambda *of: made.append(of) or derivatives(*of))
    found = label_noise_of(checkpoint)
    assert 1 <= len(made) <= 8  # for twelve fits
    np.testing.assert_allclose(found, label_noise_floor(logits, targets), rtol=1e-6)


def test_a_checkpoint_with_infinite_losses_is_fitted_without_them():
    logits, targets, _ = noisy(600, 10, 0.08)
    logits[::7, 0] = -np.inf
    found = label_noise_of(Checkpoint.from_predictions(Predictions(logits, targets), epoch=0))
    finite = np.isfinite(logits[np.arange(600), targets])
    assert found.samples == finite.sum() < 600
    np.testing.assert_allclose(found, label_noise_floor(logits[finite], targets[finite]), rtol=1e-5)


@pytest.mark.parametrize("right", [True, False])
def test_nothing_is_found_where_no_temperature_is_best(right):
    targets = np.arange(60) % 3
    logits = np.eye(3)[targets] * (4.0 if right else -4.0)
    found = label_noise_floor(logits, targets)
    assert (found.floor, found.gain) == (0.0, 0.0)
    assert math.isnan(found.floor_se)


def test_many_logits_are_read_in_part(monkeypatch):
    monkeypatch.setattr(label_noise, "_FEWEST", 500)
    monkeypatch.setattr(label_noise, "_READ", 1000)
    logits, targets, _ = noisy(4000, 10, 0.1)
    found = label_noise_floor(logits, targets)
    assert found.samples == 500
    assert abs(found.wrong_labels - 0.1) < 3 * found.wrong_labels_se


@pytest.fixture(scope="module")
def run():
    logits, targets, wrong = noisy(1000, 10, 0.08)
    checkpoints = [
        Checkpoint.from_predictions(Predictions(logits * scale, targets), epoch=epoch)
        for epoch, scale in enumerate([0.1, 0.5, 1.0, 2.0])
    ]
    return checkpoints, wrong


def test_the_flipped_labels_are_the_most_suspect(run):
    checkpoints, wrong = run
    ranked = label_suspects(stack(checkpoints), limit=None)
    assert ranked["target_probability"].is_monotonic_increasing
    assert roc_auc_score(wrong[ranked.index], -ranked["target_probability"]) > 0.95
    assert label_suspects(stack(checkpoints), limit=7).index.tolist() == ranked.index[:7].tolist()


def test_the_lengths_of_stay_are_counted_from_the_end():
    # Sample 0 ends wrong twice the same way, once surely; 1 changes its mind at the end; 2 ends right.
    targets = np.array([0, 0, 0])
    steps = [
        [[5, 0, 0], [0, 9, 0], [0, 9, 0]],
        [[0, 2, 0], [0, 9, 0], [0, 9, 0]],
        [[0, 9, 0], [0, 0, 9], [9, 0, 0]],
    ]
    panel = stack(
        [
            Checkpoint.from_predictions(Predictions(np.array(z, float), targets), epoch=epoch)
            for epoch, z in enumerate(steps)
        ]
    )
    table = label_suspects(panel).sort_index()
    assert table["same_wrong_checkpoints"].tolist() == [2, 1, 0]
    assert table["sure_checkpoints"].tolist() == [1, 1, 0]
    assert table["correctness"].round(3).tolist() == [0.333, 0.0, 0.333]
    assert table["predicted_name"].tolist() == ["1", "2", "0"]


def test_row_constants_and_the_names_of_the_classes_do_not_matter():
    logits, targets, _ = noisy(500, 4, 0.1)
    names = np.array([2, 0, 3, 1])
    moved = np.empty_like(logits)
    moved[:, names] = logits + np.random.default_rng(0).normal(scale=20, size=(500, 1))
    plain, other = label_noise_floor(logits, targets), label_noise_floor(moved, names[targets])
    np.testing.assert_allclose(other, plain, rtol=1e-3)


def test_a_fold_without_an_optimum_gains_nothing_and_breaks_nothing():
    # One sample is wrong: where it is held out, the others are separable.
    targets = np.arange(50) % 2
    logits = 4.0 * np.eye(2)[targets]
    logits[7] = logits[7, ::-1]
    found = label_noise_floor(logits, targets)
    assert found.gain <= 0
    assert found.gain_se < 1e-6
    assert math.isnan(found.floor_se)  # a single sample decides: no information on both parameters
