"""Was the start sane? Each fault is put into a run and has to be found; and nothing in a run without it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from confshift.analysis.history import History, summarize
from confshift.checkpoint import Checkpoint, Provenance
from confshift.findings.start import about_start, outputs_in_order, start_loss, too_good
from confshift.predictions import Predictions

HEAD = {
    "status": "measured",
    "module": "fc",
    "in_features": 64,
    "out_features": 8,
    "bias": True,
    "zero_weights": False,
    "mean_squared_norm": 64.0,
}


def checkpoint(logits, targets, epoch, checks=None, names=None):
    made = Checkpoint.from_predictions(Predictions(logits, targets, class_names=names), epoch=epoch)
    return replace(made, provenance=Provenance(checks=checks or {}))


def untrained_run(classes=8, *, seed=0, size=1.0, samples=600, checks=None):
    """Epoch 0 of a real torch head on features that cluster by class, and a trained epoch."""
    torch.manual_seed(seed)
    targets = torch.randint(classes, (samples,))
    features = (torch.randn(classes, 64)[targets] + torch.randn(samples, 64)) * size
    with torch.inference_mode():
        first = nn.Linear(64, classes)(features).numpy()
    later = np.eye(classes)[targets] * 3 + np.random.default_rng(seed).normal(size=(samples, classes))
    return [
        checkpoint(first, targets.numpy(), 0, checks),
        checkpoint(later.astype(np.float32), targets.numpy(), 1),
    ]


def test_an_untrained_head_starts_sanely():
    run = untrained_run(checks={"head": {**HEAD, "mean_squared_norm": 128.0}})
    finding = start_loss(summarize(run))
    assert finding.verdict == "yes"
    assert finding.next_step == ""
    table = finding.evidence
    assert table.loc["uniform guess", "loss"] == pytest.approx(math.log(8))
    assert table.loc["untrained head", "loss"] == pytest.approx(table.loc["start", "loss"], abs=0.2)
    assert too_good(summarize(run)).verdict == "no"


def test_large_features_are_named_where_the_head_was_measured():
    norm = 2 * 64 * 8.0**2
    run = untrained_run(size=8.0, checks={"head": {**HEAD, "mean_squared_norm": norm}})
    finding = start_loss(summarize(run))
    assert finding.verdict == "no"
    assert "features" in finding.next_step


def test_a_start_far_above_a_uniform_guess_is_flagged_without_measurements_too():
    targets = np.arange(400) % 4
    logits = 6 * np.eye(4)[(targets + 1) % 4]  # sure, and always wrong
    finding = start_loss(summarize([checkpoint(logits, targets, 0)]))
    assert finding.verdict == "no"
    assert "another task" in finding.next_step
    assert finding.answer.endswith("far above guessing")


def test_few_samples_near_the_limit_decide_nothing():
    rng = np.random.default_rng(2)
    targets = np.arange(12) % 4
    logits = rng.normal(size=(12, 4)) * 2.2
    finding = start_loss(summarize([checkpoint(logits, targets, 0)]))
    loss = finding.evidence.loc["start", "loss"]
    assert finding.verdict == ("yes" if loss <= math.log(4) + 1 else "cannot tell")


def test_without_a_checkpoint_before_training_the_references_are_shown():
    history = summarize(untrained_run()[1:])
    for finding in (start_loss(history), too_good(history)):
        assert finding.verdict == "not applicable"
        assert "2.08" in finding.sentence
        assert "epoch=0" in finding.next_step


def test_a_head_that_has_seen_labels_is_too_good():
    run = untrained_run()
    late = [replace(run[1], epoch=0)]
    finding = too_good(summarize(late))
    assert finding.verdict == "yes"
    assert finding.evidence.loc["loss", "p_value"] < 0.001
    assert "probably seen labels" in finding.sentence
    assert "trained weights" in finding.next_step


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        (untrained_run(3), "With 3 classes"),
        (untrained_run(5), "With 5 classes"),
        (untrained_run(checks={"head": {**HEAD, "zero_weights": True}}), "starts at zero"),
        ([checkpoint(np.zeros((40, 8)), np.arange(40) % 8, 0)], "starts at zero"),
        ([checkpoint(np.full((40, 8), np.nan), np.arange(40) % 8, 0)], "can be scored"),
    ],
)
def test_where_the_permutations_say_nothing_no_verdict_is_given(run, reason):
    finding = too_good(summarize(run))
    assert finding.verdict == "cannot tell"
    assert reason in finding.sentence


def trained(names, *, classes=6, seed=0):
    """Two trained epochs whose outputs stand for `names`."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, 900)
    logits = rng.normal(size=(2, 900, classes))
    logits[:, np.arange(900), np.array(names)[targets]] += 2.5
    labels = [f"kind{k}" for k in range(classes)]
    return [checkpoint(z, targets, epoch, names=labels) for epoch, z in enumerate(logits, 1)]


def test_exchanged_labels_are_named():
    finding = outputs_in_order(summarize(trained([1, 0, 2, 3, 4, 5])))
    assert finding.verdict == "no"
    assert finding.evidence[["class_name", "output_name"]].to_numpy().tolist() == [
        ["kind0", "kind1"],
        ["kind1", "kind0"],
    ]
    assert finding.answer == "Outputs are in the wrong order: kind0 as kind1"
    assert "kind0 as kind1, kind1 as kind0" in finding.details
    assert "class_to_idx" in finding.next_step


def test_labels_in_order_are_not_flagged():
    finding = outputs_in_order(summarize(trained(list(range(6)))))
    assert (finding.verdict, finding.next_step) == ("yes", "")
    assert finding.evidence.empty


def test_an_untrained_head_says_nothing_about_the_order():
    finding = outputs_in_order(summarize(untrained_run()[:1]))
    assert finding.verdict == "not applicable"


def test_a_poor_model_with_few_samples_of_many_classes_is_not_flagged():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 60, 180)
    logits = rng.normal(size=(180, 60))
    logits[np.arange(180), targets] += 1
    finding = outputs_in_order(summarize([checkpoint(logits, targets, 5)]))
    assert finding.verdict == "yes"


def test_every_question_about_the_start_is_answered_once():
    findings = about_start(summarize(untrained_run()))
    codes = [finding.code for finding in findings]
    assert codes == [
        *("start_loss", "too_good", "outputs_in_order"),
        *("evaluates_plainly", "train_gap", "logged_loss"),
    ]


def test_a_start_without_a_finite_loss_is_not_judged():
    run = untrained_run(samples=40)
    broken = checkpoint(np.full((40, 8), np.nan), run[1].predictions.targets, 0)
    finding = start_loss(summarize([broken, run[1]]))
    assert finding.verdict == "cannot tell"
    assert "NaN" in finding.next_step


def test_too_many_classes_are_not_matched(monkeypatch):
    monkeypatch.setattr("confshift.findings.start._MOST_CLASSES", 5)
    finding = outputs_in_order(summarize(trained(list(range(6)))))
    assert finding.verdict == "not applicable"
    assert "With 6 classes" in finding.sentence


@pytest.mark.parametrize("head", [{"status": "not made", "reason": "x"}, {**HEAD, "mean_squared_norm": None}])
def test_a_head_that_was_not_measured_is_not_predicted(head):
    finding = start_loss(summarize(untrained_run(checks={"head": head})))
    assert "untrained head" not in finding.evidence.index
    assert finding.verdict == "yes"


@pytest.mark.parametrize(("p_value", "verdict"), [(0.009, "yes"), (0.011, "no")])
def test_one_honest_head_in_a_hundred_is_called_too_good(p_value, verdict, monkeypatch):
    table = pd.DataFrame(
        {"value": 0.5, "p_value": p_value, "permutations": 5001, "samples": 300}, index=["loss", "accuracy"]
    )
    monkeypatch.setattr(History, "start_test", table)
    assert too_good(summarize(untrained_run())).verdict == verdict


@pytest.mark.parametrize(
    ("classes", "present", "orders"), [(5, 5, 120), (6, 6, 720), (10, 2, 90), (7, 6, 5040)]
)
def test_a_start_is_tested_where_the_classes_that_occur_can_be_ordered_in_ways_enough(
    classes, present, orders
):
    logits = np.random.default_rng(0).normal(size=(300, classes))
    finding = too_good(summarize([checkpoint(logits, np.arange(300) % present, 0)]))
    among = f"{present} of {classes} classes among the targets" if present < classes else f"{classes} classes"
    untested = f"With {among} there are only {orders} ways" in finding.sentence
    assert untested == (finding.verdict == "cannot tell") == (orders < 720)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("skilled", [True, False])
def test_among_few_classes_a_good_start_is_not_called_luck(classes, skilled):
    random = np.random.default_rng(0)
    targets = np.arange(300) % classes
    logits = random.normal(size=(300, classes)) + (3 if skilled else 0) * np.eye(classes)[targets]
    finding = too_good(summarize([checkpoint(logits.astype(np.float32), targets, 0)]))
    assert finding.verdict == "cannot tell"
    assert f"only {math.factorial(classes)} ways" in finding.sentence
    assert ("far more than by chance" in finding.sentence) == skilled
    assert ("it was trained before" in finding.details) == skilled


@pytest.mark.parametrize(
    "run",
    [
        untrained_run(),
        untrained_run(size=8.0, checks={"head": {**HEAD, "mean_squared_norm": 8192.0}}),
        untrained_run(3),
        untrained_run()[1:],
        trained([1, 0, 2, 3, 4, 5]),
        [checkpoint(9e30 * np.eye(8)[np.arange(40) % 8], (np.arange(40) + 1) % 8, 0)],
    ],
)
def test_what_is_said_of_a_start_fits_a_heading_a_sentence_and_a_step(run):
    for finding in about_start(summarize(run)):
        assert 0 < len(finding.answer.split()) <= 10
        assert len(finding.sentence.split()) <= 40
        assert len(finding.next_step.split()) <= 20
