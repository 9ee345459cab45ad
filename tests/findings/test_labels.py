"""When labels are said to look wrong: two checkpoints agree, and the gain is worth a word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from confshift.analysis.comparison import compare
from confshift.analysis.history import History, summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.diagnosis import answers
from confshift.findings.labels import label_noise
from confshift.predictions import Predictions
from confshift.reporting.calibration_file import calibrate


@pytest.fixture
def judged(make_logits, monkeypatch):
    """Return the finding about two checkpoints with these fits: wrong labels, gain, its error, the loss."""
    logits, targets = make_logits(120, 4, 2)
    run = [
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for epoch, one in zip((3, 30), logits, strict=True)
    ]

    def finding(*fits, same=False):
        history = summarize(run[:1] if same else run)
        comparison = compare(run[0], run[0] if same else run[1])
        table = pd.DataFrame(fits, columns=["wrong_labels", "gain", "gain_se", "loss"])
        table = table.assign(floor=table["wrong_labels"], floor_se=0.01, wrong_labels_se=0.01)
        table.index = pd.Index([3, 3] if same else [3, 30], name="epoch")
        monkeypatch.setattr(History, "label_noise", table)
        found = label_noise(history, comparison)
        assert history.labels_look_wrong == (found.verdict == "yes")
        advised = [
            history.recommendation.method,
            calibrate(run[0], wrong_labels=history.labels_look_wrong).method,
        ]
        assert [one == "label_noise_temperature" for one in advised] == [found.verdict == "yes"] * 2
        return found

    return finding


GOOD = (0.13, 0.15, 0.02, 1.1)


@pytest.mark.parametrize(
    ("other", "verdict", "reason"),
    [
        ((0.12, 0.15, 0.02, 1.1), "yes", "consistent with wrong labels"),
        ((0.13, 0.03, 0.02, 1.1), "cannot tell", "at one of the two checkpoints only"),
        ((0.13, 0.010, 0.002, 1.1), "cannot tell", "a gain of less than 1.0 % may be any other misfit"),
        ((0.06, 0.15, 0.02, 1.1), "cannot tell", "do not agree on the share"),
        ((0.20, 0.15, 0.02, 1.1), "cannot tell", "do not agree on the share"),
    ],
)
def test_both_checkpoints_must_gain_enough_and_agree(judged, other, verdict, reason):
    for fits in ((GOOD, other), (other, GOOD)):
        finding = judged(*fits)
        assert finding.verdict == verdict
        assert reason in finding.sentence
        assert len(finding.sentence.split()) <= 40
        assert len(finding.answer.split()) <= 10
        assert bool(finding.next_step) == (verdict == "yes")


def test_no_share_has_a_standard_error_as_if_the_model_were_right(judged):
    finding = judged(GOOD, (0.12, 0.14, 0.02, 1.0))
    assert finding.answer == "About 13.0 % of the labels look wrong"
    assert "13.0 % at epoch 3 and 12.0 % at epoch 30" in finding.details
    assert "0.15 nats, 13.6 % of it (epoch 3," in finding.details
    assert "standard error" not in finding.sentence + finding.details


@pytest.mark.parametrize(("wrong", "verdict"), [(0.05, "cannot tell"), (0.01, "no")])
def test_a_share_that_gains_nothing_is_a_suspicion_at_most(judged, wrong, verdict):
    finding = judged(*[(wrong, 0.001, 0.002, 1.1)] * 2)
    assert finding.verdict == verdict
    improvement = (
        "lower the loss at epochs 3 and 30" if verdict == "cannot tell" else "improve the fit at epochs 3"
    )
    assert f"does not {improvement}" in finding.sentence
    assert finding.sentence.endswith("beyond its error.")
    assert "lowers the loss" not in finding.details


def test_one_checkpoint_alone_has_to_be_surer(judged):
    barely = (0.13, 0.15, 0.06, 1.1)
    finding = judged(barely, barely, same=True)
    assert finding.verdict == "cannot tell"
    assert "only a second checkpoint shows" in finding.sentence
    assert judged(GOOD, GOOD, same=True).verdict == "yes"


def test_the_pair_that_is_compared_does_not_change_the_answer_about_the_labels():
    """Labels are wrong or not: the advised temperature and every page of a run say the same."""
    random = np.random.default_rng(0)
    logits = 6 * random.normal(size=(800, 4))
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    targets = np.where(random.random(800) < 0.15, random.integers(0, 4, 800), targets)
    noise = random.normal(size=logits.shape)
    run = [
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for epoch, one in enumerate((noise, 0.02 * logits + noise, logits, 1.2 * logits))
    ]
    history = summarize(run)
    assert history.recommendation.method == "label_noise_temperature"
    for ends in ((0, 1), (1, 2), (2, 3), (3, 3)):
        found = {one.code: one for one in answers(history, compare(*(run[at] for at in ends)))}
        assert found["label_noise"].verdict == "yes"
        assert (
            "ome labels look wrong" in found["best_checkpoint"].next_step + found["best_checkpoint"].details
        )
