"""Outputs that stand for other classes than the targets name are matched by assignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confshift.analysis.causes.baseline import label_order


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=40))
def test_the_matching_makes_as_many_right_as_the_best_of_all_permutations(pairs):
    predicted, targets = (np.array(column) for column in zip(*pairs, strict=True))
    found = label_order(predicted, targets, 4)
    best = max((np.array(names)[targets] == predicted).sum() for names in itertools.permutations(range(4)))
    assert (found.taken_for[targets] == predicted).sum() == best


@pytest.mark.parametrize("names", [[1, 0, 2, 3, 4], [1, 2, 3, 4, 0]])
def test_exchanged_labels_are_named(names):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 5, 1000)
    noisy = np.where(rng.random(1000) < 0.3, rng.integers(0, 5, 1000), targets)
    found = label_order(np.array(names)[noisy], targets, 5)
    assert found.taken_for.tolist() == names
    assert found.matched_accuracy == pytest.approx((noisy == targets).mean())
    assert found.matched_accuracy - found.accuracy > 5 * found.gain_se


def test_a_model_in_order_keeps_its_own_names():
    rng = np.random.default_rng(1)
    targets = rng.integers(0, 20, 300)
    predicted = np.where(rng.random(300) < 0.4, rng.integers(0, 20, 300), targets)
    found = label_order(predicted, targets, 20)
    assert found.taken_for.tolist() == list(range(20))
    assert found.matched_accuracy == pytest.approx(found.accuracy, abs=0.02)


def test_predictions_at_random_gain_nothing_however_few_samples_a_class_has():
    rng = np.random.default_rng(2)
    gains, naive = [], []
    for _ in range(20):
        targets, predicted = rng.integers(0, 100, (2, 200))
        found = label_order(predicted, targets, 100)
        gains.append(found.matched_accuracy - found.accuracy)
        naive.append((found.taken_for[targets] == predicted).mean())
    assert np.mean(naive) > 0.25  # what the same samples would promise
    assert abs(np.mean(gains)) < 0.02
