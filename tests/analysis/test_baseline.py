"""Reference values, the untrained head against torch, and the permutation test against its definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import entropy
from sklearn.dummy import DummyClassifier
from sklearn.metrics import accuracy_score, log_loss

from confshift.analysis.causes import baseline
from confshift.analysis.causes.baseline import column_permutation_test, references, untrained_loss
from confshift.scoring import score

LEVEL = 0.05


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_the_references_are_those_of_a_uniform_and_of_a_constant_prediction(labels):
    targets = np.array(labels)
    known = references(targets, 5)
    share = np.bincount(targets, minlength=5) / len(targets)
    uniform = np.full((len(targets), 5), 0.2)
    assert known.loc["uniform guess", "loss"] == pytest.approx(log_loss(targets, uniform, labels=range(5)))
    assert known.loc["uniform guess", "accuracy"] == pytest.approx(0.2)
    assert known.loc["best constant", "loss"] == pytest.approx(entropy(share), abs=1e-12)
    guess = DummyClassifier(strategy="most_frequent").fit(targets[:, None], targets)
    constant = guess.predict(targets[:, None])
    assert known.loc["best constant", "accuracy"] == accuracy_score(targets, constant)


@pytest.mark.parametrize(
    ("classes", "features", "size", "bias"),
    [(2, 16, 1.0, True), (8, 512, 1.0, True), (10, 64, 1.5, False), (128, 64, 6.0, True)],
)
def test_the_expected_loss_is_the_mean_over_untrained_torch_heads(classes, features, size, bias):
    torch.manual_seed(classes)
    inputs = torch.randn(300, features) * size
    targets = torch.randint(classes, (300,))
    losses = [
        torch.nn.functional.cross_entropy(torch.nn.Linear(features, classes, bias)(inputs), targets).item()
        for _ in range(120)
    ]
    norm = inputs.square().sum(dim=1).mean().item()
    expected = untrained_loss(classes, in_features=features, mean_squared_norm=norm, bias=bias)
    assert expected == pytest.approx(np.mean(losses), abs=4 * np.std(losses) / math.sqrt(120) + 0.01)


@pytest.mark.parametrize("classes", [2, 8, 10, 1000])
def test_the_expected_loss_is_the_second_order_formula_where_the_logits_are_small(classes):
    variance = 0.01
    found = untrained_loss(classes, in_features=100, mean_squared_norm=300 * variance, bias=False)
    assert found == pytest.approx(math.log(classes) + variance / 2 * (1 - 1 / classes), abs=variance**2)


def test_the_expected_loss_is_that_of_simulated_normal_logits_where_they_are_large():
    logits = np.random.default_rng(0).normal(scale=5, size=(200_000, 10))
    simulated = logsumexp(logits, axis=1)
    found = untrained_loss(10, in_features=1, mean_squared_norm=74.0)
    assert found == pytest.approx(simulated.mean(), abs=4 * simulated.std() / math.sqrt(200_000))


def random_head(seed, classes, *, features=32, samples=400, steps=0, rate=1.0):
    """Features that cluster by class, a head as torch starts it, and full-batch gradient steps on it."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, samples)
    centres = rng.normal(size=(classes, features)) * 1.5
    inputs = centres[targets] + rng.normal(size=(samples, features))
    weights = rng.uniform(-1, 1, size=(features, classes)) / math.sqrt(features)
    for _ in range(steps):
        logits = inputs @ weights
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        p[np.arange(samples), targets] -= 1
        weights -= rate * inputs.T @ p / samples
    return inputs @ weights, targets


@pytest.mark.parametrize(("classes", "seeds"), [(5, 120), (8, 80)])
def test_few_untrained_heads_are_called_too_good(classes, seeds):
    p_values = [
        column_permutation_test(*random_head(seed, classes), permutations=400).loss_p for seed in range(seeds)
    ]
    assert np.mean(np.array(p_values) <= LEVEL) <= 0.10
    assert np.mean(np.array(p_values) <= 0.01) <= 0.025


def test_a_binomial_test_would_call_many_untrained_heads_too_good():
    # The reason for the permutations: the same heads, the accuracy tested against 1/K.
    accuracies = [column_permutation_test(*random_head(s, 8), permutations=2).accuracy for s in range(80)]
    limit = 1 / 8 + 1.645 * math.sqrt(1 / 8 * 7 / 8 / 400)
    assert np.mean(np.array(accuracies) > limit) > 0.15


def test_most_heads_are_found_out_after_one_gradient_step_and_all_after_three():
    found = {
        steps: np.mean(
            [
                column_permutation_test(*random_head(seed, 8, steps=steps, rate=0.3), permutations=400).loss_p
                <= LEVEL
                for seed in range(25)
            ]
        )
        for steps in (1, 3)
    }
    assert found[1] >= 0.5
    assert found[3] == 1.0


def test_with_few_classes_all_permutations_are_tried():
    logits, targets = random_head(3, 4, samples=30)
    test = column_permutation_test(logits, targets)
    losses, accuracies = [], []
    for columns in itertools.permutations(range(4)):
        moved = logits[:, columns]
        losses.append((logsumexp(moved, axis=1) - moved[np.arange(30), targets]).mean())
        accuracies.append((moved.argmax(axis=1) == targets).mean())
    assert test.permutations == 24
    assert test.loss == pytest.approx(losses[0])
    assert test.accuracy == pytest.approx(accuracies[0])
    assert test.loss_p == pytest.approx(np.mean(np.array(losses) <= losses[0] + 1e-12))
    assert test.accuracy_p == pytest.approx(np.mean(np.array(accuracies) >= accuracies[0]))


def test_what_is_known_of_the_samples_is_not_computed_again_and_blocks_do_not_matter(monkeypatch):
    logits, targets = random_head(4, 9)
    plain = column_permutation_test(logits, targets, permutations=200)
    monkeypatch.setattr(baseline, "_BLOCK", 7 * 9)
    scores = score(logits, targets)
    monkeypatch.delattr(baseline, "score")
    known = {"losses": scores.loss, "predicted": scores.predicted}
    assert column_permutation_test(logits, targets, permutations=200, **known) == pytest.approx(plain)


def test_drawn_permutations_agree_with_all_of_them(monkeypatch):
    logits, targets = random_head(5, 6)
    exact = column_permutation_test(logits, targets)
    monkeypatch.setattr(baseline, "_ALL_PERMUTATIONS", 1)
    drawn = column_permutation_test(logits, targets, permutations=4000)
    assert (exact.permutations, drawn.permutations) == (720, 4001)
    assert drawn.loss_p == pytest.approx(exact.loss_p, abs=0.03)
    assert drawn.accuracy_p == pytest.approx(exact.accuracy_p, abs=0.03)


def test_classes_without_samples_and_masked_classes_are_no_obstacle():
    logits, targets = random_head(7, 9)
    targets[targets == 2] = 3
    logits[:, 2] = -np.inf
    test = column_permutation_test(logits, targets, permutations=200)
    assert np.isfinite(test.loss)
    assert 0 < test.loss_p <= 1


def test_a_large_set_is_tested_on_a_subset(monkeypatch):
    logits, targets = random_head(1, 8, steps=3)
    monkeypatch.setattr(baseline, "_READ", 800)
    test = column_permutation_test(logits, targets, permutations=300)
    assert test.samples == 100
    assert test.loss_p <= LEVEL


@given(st.permutations(range(5)), st.integers(0, 50))
def test_the_names_of_the_classes_and_row_constants_do_not_change_the_exact_test(names, seed):
    logits, targets = random_head(seed, 5, samples=40, features=4)
    moved = np.empty_like(logits)
    moved[:, names] = logits + np.random.default_rng(seed).normal(scale=9, size=(40, 1))
    plain = column_permutation_test(logits, targets)
    other = column_permutation_test(moved, np.array(names)[targets])
    assert other == pytest.approx(plain)
