"""Pairs of checkpoints for property tests: ties, masked classes, rows that can't be scored."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from confshift.analysis.comparison import Comparison, compare
from confshift.checkpoint import Checkpoint
from confshift.predictions import Predictions

EPS = np.finfo(np.float64).eps


@st.composite
def pairs(draw, classes=(2, 3, 5, 40), scales=(1e-3, 1.0, 30.0), masked=True, broken=True):
    """Logits before and after, and targets; the first sample can always be scored."""
    samples, width = draw(st.integers(1, 12)), draw(st.sampled_from(classes))
    targets = draw(arrays(np.int64, samples, elements=st.integers(0, width - 1)))
    sides = []
    for _ in range(2):
        scale = draw(st.sampled_from(scales))
        steps = draw(arrays(np.int8, (samples, width), elements=st.integers(-64, 64)))
        sides.append((steps / 64 - 2) * scale)  # below 0, so never taken for probabilities
    if masked and width > 2:
        hidden = draw(arrays(np.bool_, (2, samples, width), elements=st.booleans(), fill=st.just(False)))
        hidden &= draw(st.booleans())
        hidden[:, np.arange(samples), targets] &= broken  # a masked true class: an infinite loss
        hidden[:, 0, targets[0]] = False
        hidden[:, np.arange(samples), (targets + 1) % width] = False  # some class is left
        for side, cover in zip(sides, hidden, strict=True):
            side[cover] = -np.inf
    if broken:
        bad = draw(arrays(np.bool_, (2, samples), elements=st.booleans(), fill=st.just(False)))
        bad[:, 0] = False
        for side, rows in zip(sides, bad, strict=True):
            side[rows] = np.nan
    return sides[0], sides[1], targets


def checkpoints(logits, targets, epochs=None, split="val", **given):
    """One checkpoint for each array of logits."""
    epochs = range(len(logits)) if epochs is None else epochs
    return [
        Checkpoint.from_predictions(Predictions(z, targets, **given), epoch=epoch, split=split)
        for z, epoch in zip(logits, epochs, strict=True)
    ]


def comparison_of(before, after, targets, **given) -> Comparison:
    return compare(*checkpoints([before, after], targets, **given))


def rounding(comparison) -> float:
    """How far a split may be from the change of the loss: 8 eps of the summed mean losses."""
    return 8 * EPS * float(comparison.panel.loss.mean(axis=1).sum())


def scored(before, after, targets):
    """The samples with a finite loss on both sides, by another road than the library's."""
    rows = np.arange(len(targets))
    keep = np.ones(len(targets), bool)
    for side in (before, after):
        keep &= ~np.isnan(side).any(axis=1) & np.isfinite(side[rows, targets])
    return keep
