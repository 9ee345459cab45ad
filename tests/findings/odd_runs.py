"""Small runs of every kind, as logits made by a formula: what their losses do is known."""

from __future__ import annotations

from functools import cache

import numpy as np
from real_runs import checkpoints_of

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.diagnosis import answers
from confshift.predictions import Predictions

RANDOM = np.random.default_rng(7)
SAMPLES = 500
TARGETS = RANDOM.integers(0, 4, SAMPLES)
SIGNAL, NOISE = np.eye(4)[TARGETS], RANDOM.normal(size=(SAMPLES, 4))


def epochs_of(strengths, scales, jitter=0.05):
    """Logits whose shape knows as much as a strength says, on a scale, with jitter of their own."""
    random = np.random.default_rng(3)
    return [
        scale * (strength * SIGNAL + NOISE + jitter * random.normal(size=NOISE.shape)) - 9
        for strength, scale in zip(strengths, scales, strict=True)
    ]


UP, FLAT = np.linspace(0.2, 2, 8), np.full(16, 2.0)
NOTHING = np.full_like(NOISE, np.nan)
SOME = np.where(np.arange(SAMPLES)[:, None] < 100, np.nan, 0.0)
BIAS = np.array([1.5, 0, 0, 0])

ODD = {
    "confidence": epochs_of([*UP, *FLAT], np.r_[np.ones(8), np.linspace(1, 5, 16)]),
    "overfitting": epochs_of([*UP, *np.linspace(2, 0.8, 16)], np.r_[np.ones(8), np.linspace(1, 3, 16)]),
    "more mistakes": epochs_of([*UP, *np.linspace(2, 0.5, 16)], np.ones(24)),
    "hidden": epochs_of([*UP, *np.linspace(2, 1.4, 16)], np.linspace(0.1, 0.5, 24)),
    "jitter": epochs_of([*UP, *FLAT], np.ones(24), jitter=0.5),
    "improving": epochs_of(np.linspace(0.2, 2, 24), np.ones(24)),
    "class drift": [z + t * BIAS / 12 for t, z in enumerate(epochs_of([*UP, *FLAT], np.ones(24)))],
    "the first is the best": epochs_of(np.linspace(2, 0.5, 20), np.linspace(1, 3, 20)),
    "two epochs": epochs_of([1, 2], [1, 9]),
    "one epoch": epochs_of([1], [1]),
    "a little worse": epochs_of(
        [*UP, *np.linspace(2, 1.93, 16)], np.r_[np.ones(8), np.linspace(1, 5, 16)], jitter=0.02
    ),
    "underconfident": epochs_of([*UP, *FLAT], np.r_[np.full(8, 2), np.linspace(2, 0.3, 16)]),
    "flat": epochs_of([*UP, *FLAT], np.r_[np.linspace(0.5, 2, 8), np.full(16, 2.1)]),
    "rise of either kind": epochs_of(
        [*UP, *FLAT], np.r_[np.linspace(0.5, 2, 8), np.linspace(2, 3.2, 16)], jitter=0.1
    ),
    "some samples lost, the others flat": [
        *epochs_of([*UP, *FLAT[:8]], np.full(16, 2.0)),
        *(SOME + z for z in epochs_of(FLAT[:8], np.full(8, 2.0))),
    ],
    "up at the end only": epochs_of(
        [*UP, *FLAT], np.r_[np.linspace(0.5, 2, 8), 3 * np.exp(0.15 * np.sin(np.arange(15) ** 2)), 6]
    ),
    "nothing at the end": [*epochs_of([*UP, *FLAT], np.linspace(0.5, 3, 24)), NOTHING, NOTHING],
    "nothing in the middle": [
        *epochs_of([*UP, *FLAT[:4]], np.linspace(0.5, 3, 12)),
        NOTHING,
        *epochs_of(FLAT[:8], np.linspace(3, 5, 8)),
    ],
    "some samples lost at the end": [
        *epochs_of([*UP, *FLAT[:8]], np.linspace(0.5, 3, 16)),
        *(SOME + z for z in epochs_of(FLAT[:8], np.linspace(3, 6, 8))),
    ],
    "collapse": [*epochs_of(UP, np.ones(8)), *[0 * NOISE - BIAS] * 3],
    "separable": [scale * SIGNAL - 9 for scale in (0.5, 2, 5, 9, 20, 30)],
    "never learned": [scale * NOISE - 9 for scale in (0.1, 1, 2, 4, 6, 8)],
    "infinite at the end": [
        *epochs_of([*UP, *FLAT[:8]], np.linspace(0.5, 3, 16)),
        *[np.where((np.arange(SAMPLES) < 9)[:, None] & (SIGNAL > 0), -np.inf, 0.0) + 3 * SIGNAL + NOISE] * 6,
    ],
}


@cache
def history_of(name):
    """Return the history of an odd run, or of a real one."""
    if name not in ODD:
        return summarize(checkpoints_of(name))
    return summarize(
        Checkpoint.from_predictions(Predictions(z, TARGETS), epoch=epoch) for epoch, z in enumerate(ODD[name])
    )


@cache
def told(name):
    """Return the answer and the findings about the two checkpoints that the verdict on a run is about."""
    history = history_of(name)
    comparison = compare(*history.pair)
    findings = answers(history, comparison)
    return answer_run(history, comparison, findings), findings


def noisier(samples, seed, *, growth, noise, signal=1.0):
    """Compare logits of few samples and 4 classes with the same ones, multiplied and with noise added."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 4, samples)
    logits = random.normal(size=(samples, 4))
    logits[np.arange(samples), targets] += 1.5
    logits *= signal
    sides = (logits, growth * (logits + noise * random.normal(size=logits.shape)))
    return compare(
        *(Checkpoint.from_predictions(Predictions(z, targets), epoch=e) for e, z in enumerate(sides))
    )
