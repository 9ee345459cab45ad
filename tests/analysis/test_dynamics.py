"""Single samples over the epochs, against loops over one sample after the other."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pairs import checkpoints
from scipy.special import softmax

from confshift.analysis.dynamics import dynamics_of
from confshift.analysis.stacking import stack


@st.composite
def runs(draw):
    epochs, samples = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(size=(epochs, samples, 3)) - 5
    bad = rng.random((epochs, samples)) < draw(st.sampled_from([0.0, 0.3]))
    logits[bad] = np.nan
    return logits, rng.integers(0, 3, samples), np.sort(rng.choice(50, epochs, replace=False)) / 2


def followed(logits, target, epochs):
    """One sample, epoch by epoch; those without an answer are skipped."""
    right, answered, probabilities, margins = [], [], [], []
    for z, epoch in zip(logits, epochs, strict=True):
        if np.isnan(z).any():
            continue
        answered.append(epoch)
        right.append(int(z.argmax()) == target)
        probabilities.append(softmax(z)[target])
        margins.append(z[target] - max(z[j] for j in range(3) if j != target))
    first = math.nan
    for at in reversed(range(len(right))):
        if not right[at]:
            break
        first = answered[at]
    mean = sum(probabilities) / len(probabilities) if probabilities else math.nan
    spread = [(p - mean) ** 2 for p in probabilities]
    return {
        "target": target,
        "target_probability": mean,
        "variability": math.sqrt(sum(spread) / len(spread)) if spread else math.nan,
        "aum": sum(margins) / len(margins) if margins else math.nan,
        "correctness": sum(right) / len(right) if right else math.nan,
        "first_learned": first,
        "forgetting_events": sum(a and not b for a, b in itertools.pairwise(right)),
        "learning_events": sum(b and not a for a, b in itertools.pairwise(right)),
        "last_loss": -math.log(softmax(logits[-1])[target]) if not np.isnan(logits[-1]).any() else math.nan,
    }


@settings(max_examples=40)
@given(runs())
def test_each_sample_is_what_following_it_alone_says(run):
    logits, targets, epochs = run
    table = dynamics_of(stack(checkpoints(logits, targets, epochs=epochs)))
    assert table.index.name == "sample_id"
    for sample, row in table.iterrows():
        expected = followed(logits[:, sample], targets[sample], epochs)
        assert row.index.tolist() == list(expected)
        np.testing.assert_allclose(row.astype(float), list(expected.values()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("right", "first", "forgotten", "learned"),
    [
        ("1111", 10, 0, 0),
        ("0000", math.nan, 0, 0),
        ("0011", 30, 0, 1),
        ("1100", math.nan, 1, 0),
        ("1101", 40, 1, 1),
        ("0101", 40, 1, 2),
        ("1110", math.nan, 1, 0),
    ],
)
def test_when_a_sample_was_learned_and_how_often_forgotten(right, first, forgotten, learned):
    logits = [np.array([[0.0, -1.0]]) if digit == "1" else np.array([[-1.0, 0.0]]) for digit in right]
    row = dynamics_of(stack(checkpoints(logits, [0], epochs=[10, 20, 30, 40]))).iloc[0]
    assert row["first_learned"] == pytest.approx(first, nan_ok=True)
    assert (row["forgetting_events"], row["learning_events"]) == (forgotten, learned)


def test_the_net_of_learning_and_forgetting_is_the_change_of_accuracy(make_logits):
    logits, targets = make_logits(120, 4, 6, churn=0.5)
    panel = stack(checkpoints(logits, targets))
    table = dynamics_of(panel)
    net = table["learning_events"].sum() - table["forgetting_events"].sum()
    assert net == panel.correct[-1].sum() - panel.correct[0].sum()
    assert table["forgetting_events"].sum() > 0
