"""diagnose() on runs too small, too short or too perfect for most questions: it says so, in words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from confshift.checkpoint import Checkpoint
from confshift.findings.diagnosis import diagnose
from confshift.findings.question import VERDICTS
from confshift.predictions import Predictions

CLASSES = 3
RUNS = {
    "any": lambda z, y: (z, 3 * z[::-1], y),
    "one class only": lambda z, y: (z, 2 * z, 0 * y),
    "all right": lambda z, y: (z + 20 * np.eye(CLASSES)[y], z + 30 * np.eye(CLASSES)[y], y),
    "all wrong": lambda z, y: (z - 20 * np.eye(CLASSES)[y], z - 30 * np.eye(CLASSES)[y], y),
    "all equal": lambda z, y: (0 * z, 0 * z, y),
    "identical checkpoints": lambda z, y: (z, z, y),
    "wrong, and better than a guess": lambda z, y: (
        np.eye(CLASSES)[y] + 2 * np.eye(CLASSES)[(y + 1) % 3],
        z,
        y,
    ),
}
UNKNOWN = re.compile(r"\b(nan|inf|None)\b|∞|\?(?! *$)")


def run_of(name, samples, checkpoints):
    random = np.random.default_rng(samples)
    targets = random.integers(0, CLASSES, samples)
    logits = random.normal(size=(samples, CLASSES)) - 5  # below 0, so never taken for probabilities
    *sides, targets = RUNS[name](logits, targets)
    return [
        Checkpoint.from_predictions(Predictions(side - 40, targets), epoch=epoch)
        for epoch, side in enumerate(sides[:checkpoints])
    ]


@pytest.mark.parametrize("checkpoints", [1, 2])
@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_at_the_edge_is_told_in_words(name, samples, checkpoints):
    findings = diagnose(run_of(name, samples, checkpoints))
    assert len({finding.code for finding in findings}) == len(findings) > 20
    for finding in findings:
        assert finding.verdict in VERDICTS
        text = f"{finding.sentence} {finding.next_step}".replace("again and again?", "")
        text = text.replace("copies of one sample?", "")
        assert not UNKNOWN.search(text), text
        assert finding.sentence.endswith((".", "?"))
    assert findings[0].code == "rise"
    assert findings[0].verdict == "not applicable"  # two checkpoints are no course
    assert ("nly one checkpoint" if checkpoints == 1 else "2 checkpoints") in findings[0].sentence + (
        findings[0].details
    )


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_too_few_samples_for_five_folds_have_no_label_noise_to_find(samples):
    findings = diagnose(run_of("wrong, and better than a guess", samples, 2))
    noise = next(finding for finding in findings if finding.code == "label_noise")
    assert noise.verdict == "not applicable"
    assert "too few samples" in noise.sentence
    assert noise.evidence["floor_se"].isna().any()
