"""Is it measured right? What the collector tried, and train against validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import confshift
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint, Provenance
from confshift.findings.measuring import evaluates_plainly, train_gap
from confshift.findings.start import start_loss
from confshift.predictions import Predictions

PASSED = {
    "modes": {"status": "passed", "count": 0, "modules": []},
    "repeatable": {"status": "passed", "difference": 0.0},
    "alone": {"status": "passed", "difference": 3e-7, "tolerance": 1e-4},
    "samples": {"status": "passed", "samples": 4, "count": 0, "where": "dataset"},
}


def checkpoint(epoch, *, split="val", shift=1.5, samples=300, seed=0, **provenance):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 4, samples)
    logits = rng.normal(size=(samples, 4))
    logits[np.arange(samples), targets] += shift
    made = Checkpoint.from_predictions(Predictions(logits, targets), epoch=epoch, split=split)
    return replace(made, provenance=Provenance(**provenance))


def with_checks(**changed):
    return summarize([checkpoint(0, checks={**PASSED, **changed}), checkpoint(1)])


def test_a_model_that_passed_every_check_evaluates_plainly():
    finding = evaluates_plainly(with_checks())
    assert (finding.verdict, finding.next_step) == ("yes", "")
    assert finding.evidence["status"].tolist() == ["passed"] * 4
    assert finding.sentence.startswith("4 checks passed; ")
    assert finding.answer == "Evaluation is repeatable and independent of the batch"
    assert "Tried at epoch 0: every module is in eval mode: passed; " in finding.details


@pytest.mark.parametrize(
    ("name", "result", "said", "repair"),
    [
        (
            "modes",
            {"status": "failed", "count": 5, "modules": ["a", "b", "c", "d", "e"]},
            "a, b, c, ...",
            ".train()",
        ),
        ("repeatable", {"status": "failed", "difference": 0.31}, "0.3 of the largest logit", "F.dropout"),
        ("alone", {"status": "failed", "difference": 0.02, "tolerance": 1e-4}, "0.02", "BatchNorm"),
        (
            "own_loss",
            {"status": "failed", "own": 6.1974, "rows": 6.2113},
            "(6.1974 and 6.2113 nats on the first batch)",
            "a shift by one token",
        ),
        (
            "samples",
            {"status": "failed", "samples": 4, "count": 3, "where": "dataset"},
            "changes its samples (3 of 4 were changed)",
            "draws nothing at random",
        ),
        (
            "samples",
            {"status": "failed", "samples": 4, "count": 4, "where": "collate_fn"},
            "(4 of 4 were changed by collate_fn)",
            "draws nothing at random",
        ),
        ("buffers", {"status": "failed", "count": 2}, "evaluate different models", "SyncBatchNorm"),
    ],
)
def test_a_failed_check_is_named_with_its_repair(name, result, said, repair):
    finding = evaluates_plainly(with_checks(**{name: result}))
    assert finding.verdict == "no"
    assert said in finding.sentence
    assert repair in finding.next_step
    assert len(finding.sentence.split()) <= 40
    assert len(finding.answer.split()) <= 10


def test_of_two_failed_checks_both_are_named_and_both_repairs_given():
    broken = {name: {"status": "failed", "difference": 0.3} for name in ("repeatable", "alone")}
    finding = evaluates_plainly(with_checks(**broken))
    assert finding.answer == "2 checks of the evaluation failed"
    assert finding.sentence.startswith("The same batch gives different logits each time (they differ by 0.3")
    assert "; a sample's logits depend on its batch (" in finding.sentence
    assert "F.dropout" in finding.next_step
    assert "BatchNorm" in finding.details


def test_a_check_that_could_not_be_made_is_shown_and_not_held_against_the_model():
    alone = {"status": "not made", "reason": "the first batch holds one sample"}
    finding = evaluates_plainly(with_checks(alone=alone))
    assert finding.verdict == "yes"
    assert finding.evidence.loc["alone", "detail"] == alone["reason"]
    assert "1 check could not be made" in finding.sentence
    assert finding.answer == "The evaluation passed 3 checks"


@pytest.mark.parametrize(
    "passed",
    [
        {"buffers": {"status": "passed", "count": 2, "hash": "a"}},
        {"own_loss": {"status": "passed", "own": 0.69, "rows": 0.69}},
    ],
)
def test_checks_that_only_some_runs_have_are_checks_like_the_others(passed):
    finding = evaluates_plainly(with_checks(**passed))
    assert finding.sentence.startswith("5 checks passed; ")
    assert finding.answer == "Evaluation is repeatable and independent of the batch"
    alone = evaluates_plainly(with_checks(buffers={"status": "measured", "count": 2, "hash": "a"}))
    assert "buffers" not in alone.evidence.index
    assert alone.sentence.startswith("4 checks passed; ")


@pytest.mark.parametrize(
    ("late", "said"),
    [({"split": "val"}, "epoch 1:"), ({"split": "train"}, "epoch 1 in train: ")],
    ids=["epoch", "split"],
)
def test_a_check_that_failed_later_or_in_another_split_is_the_one_that_is_shown(late, said):
    failed = {**PASSED, "repeatable": {"status": "failed", "difference": 0.3}}
    first = checkpoint(0, checks=PASSED)
    finding = evaluates_plainly(summarize([first, checkpoint(1, checks=failed, **late)]))
    assert finding.verdict == "no"
    assert f"Tried at {said}" in finding.details
    assert ("in train. Losses" in finding.sentence) == (late["split"] == "train")


def test_a_record_from_before_a_check_existed_is_read_without_it():
    checks = {name: result for name, result in PASSED.items() if name != "samples"}
    finding = evaluates_plainly(summarize([checkpoint(0, checks=checks), checkpoint(1)]))
    assert finding.verdict == "yes"
    assert "could not be made" not in finding.sentence
    assert finding.evidence.loc["samples", ["status", "detail"]].tolist() == ["not made", ""]


@pytest.mark.parametrize("checks", [{}, {name: {"status": "not made", "reason": "x"} for name in PASSED}])
def test_without_checks_the_question_does_not_apply(checks):
    finding = evaluates_plainly(summarize([checkpoint(1, checks=checks)]))
    assert finding.verdict == "not applicable"


def test_the_gap_is_taken_at_the_epochs_that_both_splits_have():
    run = [
        *(checkpoint(epoch, shift=1.0) for epoch in (0, 1, 2)),
        *(checkpoint(epoch, split="train", shift=3.0, seed=1) for epoch in (1, 2)),
    ]
    finding = train_gap(summarize(run))
    assert finding.verdict == "yes"
    assert finding.evidence.index.tolist() == [1, 2]
    losses = [run[2].metrics()["loss"], run[4].metrics()["loss"]]
    assert finding.evidence["loss_gap"].iloc[-1] == pytest.approx(losses[0] - losses[1])
    errors = [one.columns["loss"].std(ddof=1) / np.sqrt(300) for one in (run[2], run[4])]
    assert finding.evidence["loss_gap_se"].iloc[-1] == pytest.approx(np.hypot(*errors))


@pytest.mark.parametrize(("shift", "verdict"), [(1.5, "cannot tell"), (0.5, "no")])
def test_equal_splits_are_not_told_apart_and_a_worse_train_split_is(shift, verdict):
    run = [checkpoint(1), checkpoint(1, split="train", shift=shift, seed=1)]
    finding = train_gap(summarize(run))
    assert finding.verdict == verdict
    assert finding.next_step == ""
    assert ("no measurable" in finding.answer) == (verdict == "cannot tell")
    assert ("below train loss" in finding.answer) == (verdict == "no")


def test_a_gap_before_training_means_different_data():
    run = [checkpoint(0, shift=0.0), checkpoint(0, split="train", shift=1.0, seed=1)]
    finding = train_gap(summarize(run))
    assert "Before training" in finding.sentence
    assert "so the two sets differ" in finding.sentence
    assert "preprocessing" in finding.next_step


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ([checkpoint(1)], "not inspected"),
        ([checkpoint(1), checkpoint(2, split="train")], "no epoch has both"),
        ([checkpoint(1, split="train")], "not inspected"),
    ],
)
def test_without_the_train_split_the_gap_is_not_known(run, said):
    finding = train_gap(summarize(run))
    assert finding.verdict == "not applicable"
    assert said in finding.sentence
    assert 'split="train"' in finding.next_step


class Net(nn.Module):
    """A classifier that drops out whenever `careless`, in eval mode too."""

    def __init__(self, *, careless):
        super().__init__()
        self.body, self.head, self.careless = nn.Linear(8, 32), nn.Linear(32, 5), careless

    def forward(self, inputs):
        hidden = functional.relu(self.body(inputs))
        return self.head(functional.dropout(hidden, 0.5, training=self.training or self.careless))


@pytest.mark.parametrize(("careless", "verdict"), [(False, "yes"), (True, "no")])
def test_what_the_collector_tried_is_understood(tmp_path, careless, verdict):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(200, 8), torch.randint(5, (200,)))
    net, run = Net(careless=careless), confshift.Run(tmp_path / "run")
    confshift.inspect(net, DataLoader(data, batch_size=64), run=run, epoch=0)
    history = summarize(run)
    finding = evaluates_plainly(history)
    assert finding.verdict == verdict
    assert ("F.dropout" in finding.next_step) == careless
    start = start_loss(history).evidence["loss"]
    assert start["untrained head"] == pytest.approx(start["start"], abs=0.15)
