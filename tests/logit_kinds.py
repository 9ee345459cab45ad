"""Logits as classifiers give them: calibrated, overconfident, biased, weak, masked, all but a few right."""

from __future__ import annotations

import numpy as np

KINDS = (
    "calibrated",
    "overconfident",
    "biased",
    "weak",
    "worse than uniform",
    "five wrong",
    "masked",
    "absent class",
    "imbalanced",
)


def draw(kind, samples, classes, seed=0):
    """Return logits (N, K) and targets (N,). Evidence of strength s, scaled by s, is calibrated."""
    rng = np.random.default_rng([seed, KINDS.index(kind), samples, classes])
    prior = (
        2.0 ** -np.arange(min(classes, 6))
        if kind == "imbalanced"
        else np.ones(classes - (kind == "absent class"))
    )
    prior = np.concatenate([prior, np.full(classes - len(prior), prior[-1] if kind == "imbalanced" else 0.0)])
    targets = rng.choice(classes, samples, p=prior / prior.sum())
    strength = {"weak": 0.3, "worse than uniform": 0.2, "five wrong": 4.0}.get(kind, 1.5)
    evidence = rng.normal(size=(samples, classes))
    evidence[np.arange(samples), targets] += strength
    logits = strength * evidence
    if kind == "overconfident":
        logits *= 3
    elif kind == "biased":
        logits += rng.normal(size=classes)
    elif kind == "worse than uniform":
        logits *= -1
    elif kind == "five wrong":
        logits[:, 0] += 1
        targets = logits.argmax(axis=1)
        few = rng.choice(samples, 5, replace=False)
        targets[few] = np.argsort(logits[few], axis=1)[:, -2]
    elif kind == "masked":
        hidden = rng.random((samples, classes)) < 0.2
        hidden[np.arange(samples), targets] = False
        logits[hidden] = -np.inf
    elif kind == "imbalanced":
        logits = 2 * logits  # and the prior is left out: an unequal bias beside the overconfidence
    return logits, targets


def accurate(samples, classes, seed=0):
    """Return logits (N, K) in single precision and targets (N,): 99 % right, the classes unequally alike.

    Classes lie in 24 dimensions, or fewer. A few wrong samples carry much of a fit.
    """
    rng, dimensions = np.random.default_rng([seed, samples, classes]), min(24, classes + 2)
    targets, centres = rng.integers(0, classes, samples), rng.normal(size=(classes, dimensions))
    inputs = centres[targets] + 0.8 * rng.normal(size=(samples, dimensions))
    logits = inputs @ centres.T - (centres**2).sum(axis=1) / 2 + 0.4 * rng.normal(size=classes)
    return (1.6 * logits).astype(np.float32), targets
