"""Every pair at once has the numbers that `compare` has of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from confshift.analysis import pairs
from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.errors import ConfshiftError
from confshift.predictions import Predictions

SIDES = {
    "loss": "loss",
    "refinement": "refinement_loss",
    "calibration": "calibration_loss",
    "scale": "scale_loss",
    "accuracy": "accuracy",
}


def history_of(logits, targets, groups=None):
    checkpoints = [
        Checkpoint.from_predictions(Predictions(z, targets), epoch=epoch) for epoch, z in enumerate(logits)
    ]
    return summarize(checkpoints, groups=groups)


def expected(comparison):
    change, account = comparison.change, comparison.account
    numbers = {
        f"{name}_{side}": change.loc[of, side] for name, of in SIDES.items() for side in ("before", "after")
    }
    for name in ("loss", "refinement", "accuracy"):
        numbers |= {f"{name}_{end}": change.loc[SIDES[name], f"change_{end}"] for end in ("low", "high")}
    return {
        **numbers,
        **account["contribution"],
        "cost_before": account.loc["mistake_cost", "before"],
        "cost_after": account.loc["mistake_cost", "after"],
        "scored": len(comparison.panel.targets),
        "answered": len(comparison.answered.targets),
        "learned_answers": comparison.switches.learned,
        "forgotten_answers": comparison.switches.forgotten,
    }


def assert_as_compared(history):
    checkpoints = history.main.checkpoints
    for (before, after), row in history.pairs.iterrows():
        try:
            comparison = compare(checkpoints[before], checkpoints[after], groups=history.groups)
        except ConfshiftError:  # nothing shared
            assert row["scored"] == 0
            continue
        numbers = expected(comparison)
        assert set(numbers) == set(row.index)
        for name, value in numbers.items():
            assert row[name] == pytest.approx(value, rel=1e-6, abs=1e-6, nan_ok=True), (before, after, name)


def broken(logits, targets, rng):
    """Take answers away, and probabilities of true classes, each at some epochs."""
    for one in logits:
        silent = rng.random(len(targets)) < rng.choice([0, 0.1, 0.95])
        one[silent, 0] = np.nan
        sure = np.flatnonzero(rng.random(len(targets)) < rng.choice([0, 0.1]))
        one[sure, targets[sure]] = -np.inf


@settings(max_examples=25)
@given(
    st.integers(0, 1_000),
    st.integers(2, 60),
    st.integers(2, 4),
    st.sampled_from([0.01, 1.0, 30.0]),
    st.booleans(),
    st.booleans(),
)
def test_every_pair_has_the_numbers_of_compare(seed, samples, classes, scale, gaps, grouped):
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(5, samples, classes))
    targets = rng.integers(0, classes, samples)
    logits[2] = logits[1]  # no change at all
    if gaps:
        broken(logits, targets, rng)
    groups = rng.integers(0, max(2, samples // 3), samples) if grouped else None
    assert_as_compared(history_of(logits, targets, groups))


def test_an_epoch_that_explodes_costs_the_other_pairs_no_digits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 200, 3)) + 1e-4 * rng.normal(size=(6, 200, 3))
    logits[3] *= 1e5
    assert_as_compared(history_of(logits, rng.integers(0, 3, 200)))


def test_blocks_of_samples_add_up(monkeypatch, make_logits):
    logits, targets = make_logits(250, 4, 4, churn=0.3)
    logits[1, :30], logits[2, 20:60, 1] = np.nan, np.inf
    whole = history_of(logits, targets).pairs
    monkeypatch.setattr(pairs, "_BLOCK", 64)
    np.testing.assert_allclose(history_of(logits, targets).pairs.to_numpy(), whole.to_numpy(), rtol=1e-9)
