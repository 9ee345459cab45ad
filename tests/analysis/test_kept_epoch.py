"""Of the epochs that are as good once calibrated, the one with the lowest loss as it is is kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confshift.analysis.calibration import calibrated_accuracy
from confshift.analysis.history import summarize
from confshift.analysis.recalibrators import by_gain
from confshift.analysis.recommendation import keep
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions
from confshift.reporting.calibration_file import calibrate

CLASSES = 3


def checkpoints_of(logits, targets):
    return [
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for epoch, one in enumerate(logits)
    ]


def run_of(strengths, scales, *, samples=600, churn=0.0, drift=0.0, seed=0):
    """Return logits (T, N, K) that know as much as a strength says, and targets."""
    random = np.random.default_rng(seed)
    targets, noise = random.integers(0, CLASSES, samples), random.normal(size=(samples, CLASSES))
    logits = [
        scale * (strength * np.eye(CLASSES)[targets] + noise + churn * random.normal(size=noise.shape))
        for strength, scale in zip(strengths, scales, strict=True)
    ]
    biases = np.multiply.outer(np.broadcast_to(drift, len(logits)), np.array([1.0, -1.0, 0.0]))
    return np.array(logits) + biases[:, None], targets


def expected(checkpoint, groups):
    """Return the losses by sample of the recalibration that gains something; NaN where not finite."""
    losses = np.full(len(checkpoint), np.nan)
    losses[np.isfinite(checkpoint.scores.loss)] = by_gain(checkpoint, codes=groups).recommended.losses
    return losses.tolist()


def error_of(differences, groups):
    """Return the standard error of a mean over samples whose groups err together, from the sums of groups."""
    number, mean = len(differences), sum(differences) / len(differences)
    sums = {}
    for value, group in zip(differences, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value - mean
    if len(sums) == 1:
        return float("nan")
    return (sum(one * one for one in sums.values()) * len(sums) / (len(sums) - 1)) ** 0.5 / number


def oracle(checkpoints, groups=None):
    """Return the epoch to keep, and the one with the lowest expected loss, by plain loops."""
    number = len(checkpoints[0])
    kept = [(one.epoch, expected(one, groups), one.scores.loss.tolist()) for one in checkpoints]
    groups = range(number) if groups is None else groups
    lowest = min(kept, key=lambda one: sum(one[1]))
    as_good = []
    for one in kept:
        differences = [mine - least for mine, least in zip(one[1], lowest[1], strict=True)]
        behind = sum(differences) / number
        if one is lowest or (behind <= error_of(differences, groups) and behind <= 0.01):
            as_good.append(one)
    chosen = min(as_good, key=lambda one: sum(one[2]))
    differences = [mine - least for mine, least in zip(chosen[1], lowest[1], strict=True)]
    return chosen[0], lowest[0], error_of(differences, groups)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([30, 120]), st.booleans(), st.floats(0, 0.5))
def test_the_epoch_to_keep_is_that_of_the_rule_written_as_loops(seed, samples, grouped, churn):
    random = np.random.default_rng(seed)
    strengths, scales = random.uniform(1, 1.6, 5), random.uniform(0.5, 3, 5)
    drift = random.uniform(-0.5, 0.5, 5)
    logits, targets = run_of(strengths, scales, samples=samples, churn=churn, drift=drift, seed=seed)
    checkpoints = checkpoints_of(logits, targets)
    alike = np.argsort(np.argsort(checkpoints[0].scores.loss - checkpoints[1].scores.loss))
    codes = alike // 6 if grouped else None
    kept = kept_with(summarize(checkpoints), codes)
    assert (kept.epoch, kept.lowest, kept.behind_se) == pytest.approx(oracle(checkpoints, codes), abs=1e-12)


def kept_with(history, codes):
    """Return what is kept where the samples with one code err together."""
    return keep(replace(history.main, codes=codes), history.table, history.best.loc["accuracy", "epoch"])


def kept_of(logits, targets):
    history = summarize(checkpoints_of(logits, targets))
    return history.recommendation, history.table.set_index("epoch")["loss"]


def test_of_a_run_whose_confidence_alone_grows_the_epoch_with_the_lowest_plain_loss_is_kept():
    """Once calibrated all epochs are one model: the one that needs no calibration is the simplest."""
    choice, losses = kept_of(*run_of(np.full(6, 1.5), [0.3, 0.8, 1.5, 2.5, 4, 6]))
    assert choice.epoch == losses.idxmin() == 2
    assert choice.kept.behind < 2e-3


def test_of_a_run_that_drifts_between_classes_no_drifted_epoch_is_kept_for_what_noise_explains():
    """The later epochs are as good once biases undo the drift; the last one is so on every sample."""
    logits, targets = run_of(np.full(6, 1.5), np.full(6, 1.0), churn=0.05, drift=np.linspace(0, 2, 6), seed=1)
    choice, losses = kept_of(logits, targets)
    assert choice.epoch <= 1
    assert losses[choice.epoch] < losses[5] - 0.3
    assert choice.kept.behind <= choice.kept.behind_se


def test_of_a_run_that_improves_beyond_noise_the_last_epoch_is_kept_though_an_older_one_needs_less_repair():
    logits, targets = run_of(np.linspace(0.5, 3, 6), np.r_[np.ones(5), 20.0])
    choice, losses = kept_of(logits, targets)
    assert losses.idxmin() == 4  # as it is, the last epoch is the worse one
    assert choice.epoch == choice.kept.lowest == 5
    assert choice.calibrated


def test_of_equal_epochs_the_earliest_is_kept():
    logits, targets = run_of([1.5], [1.0])
    choice, _ = kept_of(np.repeat(logits, 4, axis=0), targets)
    assert (choice.epoch, choice.kept.lowest) == (0, 0)


def test_one_checkpoint_is_kept():
    choice, _ = kept_of(*run_of([1.5], [3.0]))
    assert (choice.epoch, choice.kept.lowest, choice.calibrated) == (0, 0, True)


def test_an_epoch_that_is_behind_by_more_than_a_hundredth_is_not_as_good_however_large_the_error():
    """30 samples: the error of the difference is larger than what the epoch is behind."""
    logits, targets = run_of([1.5, 1.5], [1, 1], samples=30, churn=1.5, seed=4)
    calm = logits[0] * 0.8
    checkpoints = checkpoints_of([calm, 6 * logits[1]], targets)
    lowest, other = sorted(checkpoints, key=lambda one: np.mean(expected(one, None)))
    differences = np.subtract(expected(other, None), expected(lowest, None))
    assert 0.05 < differences.mean() < 0.7 * error_of(differences.tolist(), range(30))
    assert other.scores.loss.mean() < lowest.scores.loss.mean()
    assert kept_of([calm, 6 * logits[1]], targets)[0].epoch == lowest.epoch


def test_an_epoch_with_infinite_losses_is_kept_only_where_every_loss_is_infinite():
    logits, targets = run_of([1.0, 2.0, 3.0], np.ones(3))
    logits[2, 0, targets[0]] = -np.inf
    assert kept_of(logits, targets)[0].epoch == 1
    logits[:, 0, targets[0]] = -np.inf
    choice, _ = kept_of(logits, targets)
    assert choice.epoch == 2
    assert "best by accuracy" in choice.reason


def test_wrong_labels_change_the_temperature_and_not_the_epoch():
    logits, targets = run_of(np.full(3, 4.0), [1, 3, 6], samples=900)
    wrong = np.arange(900) % 10 == 0
    targets = np.where(wrong, (targets + 1) % CLASSES, targets)
    checkpoints = checkpoints_of(logits, targets)
    history = summarize(checkpoints)
    assert history.labels_look_wrong
    kept = history.recommendation.kept
    assert (kept.epoch, kept.lowest) == oracle(checkpoints)[:2]


@pytest.mark.parametrize("drift", [0.0, 0.8])
def test_the_accuracy_once_calibrated_is_that_of_the_table_of_a_calibration(drift):
    logits, targets = run_of([1.5], [2.0], drift=drift, samples=900)
    checkpoint = checkpoints_of(logits, targets)[0]
    found = calibrated_accuracy(checkpoint)
    table = calibrate(checkpoint).table
    assert found.value == pytest.approx(table.loc["temperature_and_biases", "accuracy"], rel=1e-12)
    assert (found.value > checkpoint.accuracy + 0.02) == (drift > 0) == (found.p_value < 0.01)


def test_too_few_samples_for_biases_leave_the_accuracy_as_it_is():
    checkpoint = checkpoints_of(*run_of([1.5], [2.0], samples=30))[0]
    assert calibrated_accuracy(checkpoint) == (checkpoint.accuracy, 1.0)
