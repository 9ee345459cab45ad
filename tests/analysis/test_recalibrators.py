"""Which recalibration is chosen, against scipy on small cases, and what none of them may change."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp

from confshift import recalibration
from confshift.analysis import linear_maps
from confshift.analysis.causes.label_noise import LabelNoise, looks_wrong
from confshift.analysis.history import summarize
from confshift.analysis.linear_maps import cross_fit, why_not
from confshift.analysis.recalibrator import Recalibrator
from confshift.analysis.recalibrators import METHODS, choose, table_of
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions


def truth(samples, classes, *, sharpness=2.0, seed=0):
    """Draw logits of a calibrated model, and targets by its own probabilities."""
    random = np.random.default_rng(seed)
    logits = sharpness * random.normal(size=(samples, classes))
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)


def checkpoint_of(logits, targets, epoch=3.0):
    return Checkpoint.from_predictions(Predictions(logits, targets), epoch=epoch)


def recommended(logits, targets):
    return choose(checkpoint_of(logits, targets)).recommended


def fit_of(method, checkpoint):
    return {trial.method: trial for trial in choose(checkpoint).trials}[method].recalibrator


def loss_of(scores, targets):
    return float((logsumexp(scores, axis=1) - scores[np.arange(len(targets)), targets]).mean())


BIASES = np.array([1.0, -1.0, 0.0, 0.0])


def biased():
    logits, targets = truth(600, 4)
    return 1.5 * (logits - BIASES), targets


def unequal():
    """One class has logits twice too large, another twice too small."""
    logits, targets = truth(1200, 4)
    centred = logits - logits.mean(axis=1, keepdims=True)
    return centred * [2.0, 1.0, 1.0, 0.5], targets


def mixed():
    """Two classes share their evidence: each logit holds half of the other's."""
    logits, targets = truth(1200, 4)
    mixing = np.eye(4)
    mixing[0, 1] = mixing[1, 0] = 0.5
    return logits @ mixing.T, targets


def wrongly_labelled():
    logits, targets = truth(800, 4, sharpness=6.0)
    random = np.random.default_rng(1)
    wrong = random.random(800) < 0.15
    return logits, np.where(wrong, random.integers(0, 4, 800), targets), targets


# ---------------------------------------------------------------------------------------- against scipy
def test_the_temperature_is_that_of_a_scalar_search():
    logits, targets = truth(200, 3)
    logits = 3 * logits
    found = fit_of("temperature", checkpoint_of(logits, targets)).temperature
    sought = minimize_scalar(lambda t: loss_of(logits / t, targets), bounds=(0.1, 20), method="bounded")
    assert found == pytest.approx(sought.x, rel=1e-4)


def test_temperature_and_biases_are_those_of_a_search_without_derivatives():
    logits, targets = biased()

    def objective(theta):
        scores = logits * theta[0] + theta[1:]
        return len(targets) * loss_of(scores, targets) + theta[1:] @ theta[1:] / 2

    sought = minimize(objective, np.r_[1.0, np.zeros(4)], method="BFGS").x
    found = fit_of("temperature_and_biases", checkpoint_of(logits, targets))
    np.testing.assert_allclose(1 / found.temperature, sought[0], rtol=1e-3)
    np.testing.assert_allclose(found.biases, sought[1:], atol=2e-3)


def test_scales_and_biases_are_those_of_a_search_without_derivatives():
    logits, targets = unequal()
    checkpoint = checkpoint_of(logits, targets)
    joint, found = (fit_of(name, checkpoint) for name in ("temperature_and_biases", "vector"))
    centre = np.r_[np.ones(4), joint.biases]
    units = (logits - logits.mean(axis=1, keepdims=True)) / joint.temperature

    def objective(theta):
        away = theta - centre
        return len(targets) * loss_of(units * theta[:4] + theta[4:], targets) + away @ away / 2

    sought = minimize(objective, centre, method="BFGS", options={"gtol": 1e-4})
    assert objective(np.r_[found.scales, found.biases]) == pytest.approx(sought.fun, abs=1e-3)
    np.testing.assert_allclose(np.r_[found.scales, found.biases], sought.x, atol=5e-3)


def test_a_matrix_is_that_of_a_search_without_derivatives_with_the_penalties_of_the_paper():
    """The mean loss + k/n times squares of biases and diagonal + k (k - 1)/n times those of the others."""
    logits, targets = mixed()
    checkpoint = checkpoint_of(logits, targets)
    found = fit_of("matrix", checkpoint)
    units = logits - logits.mean(axis=1, keepdims=True)
    units /= fit_of("temperature", checkpoint).temperature

    def objective(theta):
        change, biases = theta[:16].reshape(4, 4), theta[16:]
        diagonal = np.sum(np.diag(change) ** 2)
        penalty = 4 * (biases @ biases + diagonal) + 12 * (np.sum(change**2) - diagonal)
        return loss_of(units + units @ change.T + biases, targets) + penalty / 1200

    sought = minimize(objective, np.zeros(20), method="BFGS").x
    np.testing.assert_allclose(found.matrix, np.eye(4) + sought[:16].reshape(4, 4), atol=1e-3)
    np.testing.assert_allclose(found.biases, sought[16:], atol=1e-3)


def test_the_temperature_that_allows_for_wrong_labels_is_that_of_a_simplex_search():
    logits, targets, _ = wrongly_labelled()

    def objective(theta):
        share = 1 / (1 + np.exp(-theta[1]))
        log_p = log_softmax(logits * np.exp(theta[0]), axis=1)[np.arange(len(targets)), targets]
        return -np.log((1 - share) * np.exp(log_p) + share / 4).mean()

    sought = minimize(objective, [0.0, -2.0], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9}).x
    trial = recommended(logits, targets)
    assert trial.method == "label_noise_temperature"
    assert trial.recalibrator.temperature == pytest.approx(np.exp(-sought[0]), rel=1e-2)


# ------------------------------------------------------------------------------------------ what is chosen
@pytest.mark.parametrize(
    ("make", "method"),
    [
        pytest.param(lambda: truth(600, 4), "none", id="calibrated"),
        pytest.param(lambda: (3 * truth(600, 4)[0], truth(600, 4)[1]), "temperature", id="too sure"),
        pytest.param(biased, "temperature_and_biases", id="biased"),
        pytest.param(unequal, "vector", id="classes of another scale each"),
        pytest.param(mixed, "matrix", id="two classes mixed"),
        pytest.param(lambda: wrongly_labelled()[:2], "label_noise_temperature", id="wrong labels"),
    ],
)
def test_the_planted_fault_chooses_the_method(make, method):
    checkpoint = checkpoint_of(*make())
    choice = choose(checkpoint)
    assert choice.recommended.method == method
    table = table_of(choice, checkpoint)
    assert list(table.index) == list(METHODS)
    assert table.index[table["recommended"]].tolist() == [method]
    assert (table["reason"] != "").all()


def test_a_planted_bias_is_taken_back():
    found = fit_of("temperature_and_biases", checkpoint_of(*biased()))
    np.testing.assert_allclose(found.biases, BIASES, atol=0.35)
    assert found.temperature == pytest.approx(1.5, rel=0.15)


def test_where_labels_are_wrong_the_advice_lowers_the_loss_on_right_ones():
    logits, labels, right = wrongly_labelled()
    table = table_of(choose(checkpoint_of(logits, labels)), checkpoint_of(logits, labels))
    maps = {name: fit_of(name, checkpoint_of(logits, labels)) for name in METHODS[1:2] + METHODS[5:]}
    on_right = {name: loss_of(found.apply(logits), right) for name, found in maps.items()}
    assert on_right["label_noise_temperature"] < on_right["temperature"] - 0.02
    assert table.loc["label_noise_temperature", "expected_loss"] > table.loc["temperature", "expected_loss"]
    assert "on these labels the loss looks higher" in table.loc["label_noise_temperature", "reason"]


def test_biases_that_cost_are_fitted_and_not_recommended():
    """A calibrated model of eight classes with 50 samples each: biases add noise alone."""
    logits, targets = truth(400, 8)
    checkpoint = checkpoint_of(logits * 3, targets)
    choice = choose(checkpoint)
    table = table_of(choice, checkpoint)
    assert table.loc["temperature_and_biases", "lead"] < 0
    assert choice.recommended.method == "temperature"
    assert table.loc["temperature_and_biases", "reason"] == "gains nothing over temperature"


@given(seed=st.integers(0, 10_000))
def test_a_method_is_recommended_only_where_it_beats_each_simpler_one_by_two_errors(seed):
    logits, targets = truth(150, 3, seed=seed)
    choice = choose(checkpoint_of(logits * 1.3, targets), quick=True)
    chosen = choice.recommended
    for simpler in choice.trials[: choice.trials.index(chosen)]:
        gains = simpler.losses - chosen.losses
        assert gains.mean() > 2 * gains.std(ddof=1) / np.sqrt(len(gains))


def test_sixty_samples_and_two_classes_take_a_temperature_or_nothing():
    logits, targets = truth(60, 2)
    checkpoint = checkpoint_of(4 * logits, targets)
    table = table_of(choose(checkpoint), checkpoint)
    assert np.isnan(table.loc[["temperature_and_biases", "vector"], "gain"]).all()
    assert table.loc["temperature_and_biases", "reason"] == "needs 50 samples a class, 100 in all"
    assert table.index[table["recommended"]].item() in ("none", "temperature")


def test_few_wrong_samples_recommend_nothing():
    logits, targets = truth(400, 3, sharpness=30.0)
    targets = logits.argmax(axis=1)
    targets[:9] = (targets[:9] + 1) % 3
    choice = choose(checkpoint_of(logits, targets))
    assert choice.recommended.method == "none"
    assert choice.reason(choice.recommended) == "9 wrong samples are too few to fit a temperature to"


@pytest.mark.parametrize("kind", ["uniform", "separable", "unscored"])
def test_without_a_best_temperature_nothing_is_recommended_and_the_table_says_why(kind):
    logits, targets = truth(200, 2)
    logits = {
        "uniform": np.where(np.arange(2) == targets[:, None], -1.0, 1.0) * np.abs(logits),
        "separable": np.where(np.arange(2) == targets[:, None], 1.0, -1.0) * np.abs(logits),
        "unscored": np.full((200, 2), np.nan),
    }[kind]
    checkpoint = checkpoint_of(logits, targets)
    assert checkpoint.fit_status == kind
    choice = choose(checkpoint)
    table = table_of(choice, checkpoint)
    assert choice.recommended.method == "none"
    assert np.isnan(table["temperature"].iloc[1:]).all()
    assert (table["reason"] != "").all()


def test_masked_classes_stay_masked_and_a_masked_target_is_left_out():
    logits, targets = unequal()
    logits[:400, 3] = -np.inf
    checkpoint = checkpoint_of(logits, targets)
    left_out = int((targets[:400] == 3).sum())
    assert left_out > 10
    choice = choose(checkpoint)
    assert all(len(trial.losses) == 1200 - left_out for trial in choice.trials[:5])
    for trial in choice.trials[:5]:
        scores = trial.recalibrator.apply(logits)
        assert np.isneginf(scores[:400, 3]).all()
        assert np.isfinite(scores).sum() == 4 * 1200 - 400


def test_an_absent_class_has_finite_numbers():
    logits, targets = truth(900, 3)
    found = choose(checkpoint_of(np.c_[2 * logits, np.full(900, -8.0)], targets)).trials
    assert all(np.isfinite([*trial.recalibrator.biases, *trial.recalibrator.scales]).all() for trial in found)


@pytest.mark.parametrize(
    ("kind", "samples", "classes", "reason"),
    [
        ("vector", 199, 2, "two classes: scales can do nothing that temperature and biases can't"),
        ("matrix", 1999, 2, "two classes: a matrix can do nothing that temperature and biases can't"),
        ("vector", 299, 3, "needs 100 samples a class"),
        ("matrix", 299, 3, "needs 100 samples a class"),
        ("vector", 300, 3, ""),
        ("matrix", 300, 3, ""),
        ("vector", 20_000, 200, ""),
        ("vector", 20_100, 201, "takes too long for so many classes"),
        ("matrix", 10_000, 100, ""),
        ("matrix", 20_000, 101, "takes too long for more than 100 classes"),
    ],
)
def test_scales_and_a_matrix_are_tried_where_a_class_has_a_hundred_samples(kind, samples, classes, reason):
    assert why_not(kind, samples, classes) == reason


@pytest.mark.parametrize("classes", [2, 6])
def test_the_fits_of_many_samples_are_off_by_far_less_than_the_standard_error(classes, monkeypatch):
    rng = np.random.default_rng(classes)
    targets = rng.choice(classes, 20_000, p=np.arange(1, classes + 1) / sum(range(classes + 1)))
    logits = (
        2 * rng.normal(size=(20_000, classes)) + np.linspace(-1, 1, classes) + 3 * np.eye(classes)[targets]
    )
    logits[::3, 0][targets[::3] != 0] = -np.inf
    full, fits = cross_fit(logits, targets, "biases"), []
    joint_fit, whole = recalibration.joint_fit, linear_maps.joint_fit(logits, targets)
    for module in (recalibration, linear_maps):
        monkeypatch.setattr(module, "MANY_SAMPLES", 10_000)
        monkeypatch.setattr(
            module, "joint_fit", lambda *of, **start: fits.append(of) or joint_fit(*of, **start)
        )
    monkeypatch.setattr(recalibration, "_FIRST_OF_MANY", 5000)
    found = cross_fit(logits, targets, "biases")
    assert [len(targets) for _, targets in fits] == [20_000, 5000]  # and none to each fold
    error = full.losses.std() / math.sqrt(20_000)
    assert found.losses.mean() == pytest.approx(full.losses.mean(), abs=0.01 * error)
    np.testing.assert_allclose(found.losses, full.losses, atol=0.01)
    assert (found.hits != full.hits).sum() < 10
    errors = np.sqrt(whole.optimum.inverse.diagonal())
    assert found.whole.beta == pytest.approx(full.whole.beta, abs=0.05 * errors[0] * whole.unit)
    assert np.abs(found.whole.biases - full.whole.biases).max() < 0.05 * errors[1:].max()


@pytest.mark.parametrize("kind", ["biases", "vector"])
def test_labels_in_an_order_that_numpy_drew_from_a_usual_seed_do_not_fill_a_fold_each(kind):
    draws = np.random.default_rng(1)
    order = np.random.default_rng(0).permutation(1000)
    logits = draws.normal(size=(1000, 5))
    hits = {}
    for name, targets in (("drawn", order % 5), ("in turn", np.arange(1000) % 5)):
        biased = logits + np.arange(5)
        biased[np.arange(1000), targets] += 3
        hits[name] = cross_fit(biased, targets, kind).hits.mean()
    assert hits["drawn"] == pytest.approx(hits["in turn"], abs=0.05)
    assert hits["drawn"] > 0.8


def test_scales_are_held_against_biases_fitted_to_the_same_folds():
    """Biases fitted to all samples but one would have a quarter more to learn from."""
    logits, targets = unequal()
    table = table_of(choose(checkpoint_of(logits, targets)), checkpoint_of(logits, targets))
    with_scales, without = (cross_fit(logits, targets, kind) for kind in ("vector", "biases"))
    gains = without.losses - with_scales.losses
    assert table.loc["vector", "rival"] == "temperature_and_biases"
    assert table.loc["vector", "lead"] == pytest.approx(gains.mean(), abs=1e-12)
    assert table.loc["vector", "lead_se"] == pytest.approx(gains.std(ddof=1) / 1200**0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({}, True),
        ({"gain": 0.0299}, False),  # not beyond three errors
        ({"loss": 4.1}, False),  # less than 1 % of the loss
        ({"floor_se": 0.04}, False),
        ({"floor": 0.0, "gain": 0.0, "floor_se": np.nan, "gain_se": np.nan}, False),  # nothing was fitted
    ],
)
def test_labels_look_wrong_where_a_floor_is_real_and_worth_a_hundredth_of_the_loss(numbers, expected):
    fit = {"floor": 0.1, "floor_se": 0.03, "wrong_labels": 0.09, "wrong_labels_se": 0.04, "temperature": 1.0}
    fit |= {"gain": 0.04, "gain_se": 0.01, "samples": 500, "loss": 1.0}
    assert looks_wrong(LabelNoise(**{**fit, **numbers})) == expected


# ------------------------------------------------------------------------------------------ what is exact
@pytest.mark.parametrize("make", [biased, unequal, mixed, lambda: wrongly_labelled()[:2]])
def test_a_constant_of_each_row_and_the_scale_of_all_logits_change_no_probability(make):
    logits, targets = make()
    random = np.random.default_rng(2)
    moved = 8 * (logits + random.normal(size=(len(logits), 1)))
    one, other = recommended(logits, targets), recommended(moved, targets)
    assert one.method == other.method
    assert other.recalibrator.temperature == pytest.approx(8 * one.recalibrator.temperature, rel=1e-3)
    np.testing.assert_allclose(
        log_softmax(other.recalibrator.apply(moved), axis=1),
        log_softmax(one.recalibrator.apply(logits), axis=1),
        atol=5e-3,
    )


def test_classes_in_another_order_have_their_numbers_in_that_order():
    logits, targets = unequal()
    order = np.array([2, 0, 3, 1])
    one, other = recommended(logits, targets), recommended(logits[:, order], np.argsort(order)[targets])
    assert one.method == other.method == "vector"
    np.testing.assert_allclose(other.recalibrator.scales, np.array(one.recalibrator.scales)[order], atol=2e-3)
    np.testing.assert_allclose(other.recalibrator.biases, np.array(one.recalibrator.biases)[order], atol=2e-3)


def test_a_matrix_of_classes_in_another_order_has_its_rows_and_columns_in_that_order():
    logits, targets = mixed()
    order = np.array([2, 0, 3, 1])
    one, other = recommended(logits, targets), recommended(logits[:, order], np.argsort(order)[targets])
    assert one.method == other.method == "matrix"
    expected = np.array(one.recalibrator.matrix)[np.ix_(order, order)]
    np.testing.assert_allclose(other.recalibrator.matrix, expected, atol=2e-3)
    np.testing.assert_allclose(other.recalibrator.biases, np.array(one.recalibrator.biases)[order], atol=2e-3)


@pytest.mark.parametrize("make", [lambda: truth(1200, 4), biased, unequal])
def test_a_matrix_that_gains_no_more_than_a_simpler_map_is_not_recommended(make):
    checkpoint = checkpoint_of(*make())
    choice = choose(checkpoint)
    matrix = next(trial for trial in choice.trials if trial.method == "matrix")
    assert matrix.fitted
    assert not choice.leads(matrix)
    assert choice.recommended.method != "matrix"
    _, lead, error = choice.lead(matrix)
    assert table_of(choice, checkpoint).loc["matrix", "reason"].startswith("gains ")
    assert lead < 2 * error


def test_a_matrix_is_held_against_scales_fitted_to_the_same_folds():
    logits, targets = mixed()
    table = table_of(choose(checkpoint_of(logits, targets)), checkpoint_of(logits, targets))
    by = {kind: cross_fit(logits, targets, kind).losses for kind in ("biases", "vector", "matrix")}
    rival = table.loc["matrix", "rival"]
    gains = by["biases" if rival == "temperature_and_biases" else rival] - by["matrix"]
    assert table.loc["matrix", "lead"] == pytest.approx(gains.mean(), abs=1e-12)
    assert table.loc["matrix", "lead_se"] == pytest.approx(gains.std(ddof=1) / 1200**0.5, abs=1e-12)


def test_plain_logits_come_back_as_they_were():
    logits, _ = truth(20, 3)
    assert (Recalibrator("none", 1.0, (0.0,) * 3, (1.0,) * 3).apply(logits) == logits).all()


def test_the_accuracy_is_that_of_samples_left_out():
    """Biases of 2 nats change predictions; fitted to four fifths, they win most of that back on the fifth."""
    logits, targets = truth(1200, 4)
    logits -= 2 * BIASES
    checkpoint = checkpoint_of(logits, targets)
    table = table_of(choose(checkpoint), checkpoint)
    fitted = fit_of("temperature_and_biases", checkpoint).apply(logits).argmax(axis=1) == targets
    assert table.loc["none", "accuracy"] == table.loc["temperature", "accuracy"] == checkpoint.accuracy
    assert checkpoint.accuracy + 0.05 < table.loc["temperature_and_biases", "accuracy"]
    assert abs(table.loc["temperature_and_biases", "accuracy"] - fitted.mean()) < 0.01


# --------------------------------------------------------------------------------- the run's recommendation
@pytest.mark.parametrize("make", [lambda: truth(600, 4), biased, lambda: wrongly_labelled()[:2]])
def test_the_recommendation_of_a_run_is_the_choice_for_its_checkpoint(make):
    logits, targets = make()
    run = [checkpoint_of(logits * factor, targets, epoch) for epoch, factor in enumerate([0.1, 1.0, 2.0])]
    found = summarize(run).recommendation
    chosen = choose(run[int(found.epoch)])
    trial = chosen.recommended
    assert found.method == trial.method
    assert (found.temperature, found.biases) == (trial.recalibrator.temperature, trial.recalibrator.biases)
    table = table_of(chosen, run[int(found.epoch)])
    assert found.loss == pytest.approx(table.loc[found.method, "expected_loss"], abs=1e-12)
