"""The loss that was logged: what is said of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import log_softmax

import confshift
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint, Provenance
from confshift.findings.logged import _STEPS, logged_loss
from confshift.predictions import Predictions
from confshift.storage.writer import _forget_writers


def checkpoint(epoch, *, samples=300, seed=0, metadata=None, split="val", **provenance):
    targets = np.random.default_rng(0).integers(0, 4, samples)
    logits = np.random.default_rng(seed).normal(size=(samples, 4))
    logits[np.arange(samples), targets] += 1.5
    plain = Checkpoint.from_predictions(
        Predictions(logits, targets), epoch=epoch, split=split, metadata=metadata
    )
    return replace(plain, provenance=Provenance(**provenance))


def with_logged(*values):
    return summarize([checkpoint(epoch, logged={"loss": value}) for epoch, value in enumerate(values, 1)])


def test_the_exact_mean_is_recognised():
    exact = checkpoint(1).metrics()["loss"]
    finding = logged_loss(with_logged(exact, exact))
    assert (finding.verdict, finding.next_step) == ("yes", "")
    assert "2 epochs" in finding.sentence


def test_a_mean_of_batch_means_is_named_with_its_remedy():
    losses = checkpoint(1).columns["loss"].to_numpy()
    logged = np.mean([losses[start : start + 64].mean() for start in range(0, 300, 64)])
    finding = logged_loss(with_logged(logged))
    assert finding.verdict == "no"
    assert "consistent with mean of batch means (batches of 64)" in finding.sentence
    assert "reduction='sum'" in finding.next_step


def test_a_difference_that_nothing_explains_is_said_so():
    finding = logged_loss(with_logged(checkpoint(1).metrics()["loss"] * 1.37))
    assert finding.verdict == "no"
    assert "No way that can be recomputed" in finding.sentence
    assert "by up to +37 %" in finding.sentence
    assert finding.answer == "Your logged loss is off by +37 %"
    assert "model.eval()" in finding.next_step
    assert "metadata={'class_weights': ...}" in finding.details
    assert not finding.evidence["fits"].any()


def test_without_a_logged_loss_there_is_nothing_to_compare():
    assert logged_loss(summarize([checkpoint(1)])).verdict == "not applicable"


def smoothed(one, eps=0.1):
    predictions = one.predictions
    z = predictions.logits
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    own = log_p[np.arange(len(z)), predictions.targets]
    return float(-((1 - eps) * own + eps * log_p.mean(axis=1)).mean())


def with_smoothed(epochs):
    plain = [checkpoint(epoch, seed=epoch) for epoch in range(1, epochs + 1)]
    return [replace(one, provenance=Provenance(logged={"loss": smoothed(one)})) for one in plain]


def test_the_details_say_at_how_many_epochs_a_way_agrees_and_the_chance_of_a_match():
    finding = logged_loss(summarize(with_smoothed(3)))
    assert finding.answer == "Your logged loss looks like label smoothing"
    assert finding.sentence.endswith("consistent with label smoothing (0.1).")
    assert "label smoothing (0.1), which agrees at 3 of 3 epochs" in finding.details
    assert (
        "an unrelated number would agree with some way as simple with a probability of less than 0.1 %"
        in (finding.details)
    )
    assert "Tried at" not in finding.details


def test_the_details_say_that_only_some_epochs_were_tried():
    finding = logged_loss(summarize(with_smoothed(24)))
    tried = finding.evidence["epochs"].max()
    assert tried < 24
    assert f"Tried at {tried} of the 24 epochs with a logged loss." in finding.details


def test_ways_that_agree_by_chance_are_named_as_the_closest_with_the_chance():
    finding = logged_loss(with_logged(round(1.02 * checkpoint(1).metrics()["loss"], 2)))
    assert "chance is ruled out. The closest is" in finding.details
    assert "which agrees at 1 of 1 epoch (an unrelated number" in finding.details


def test_a_damaged_logits_file_leaves_the_other_epochs_usable(tmp_path):
    run = confshift.Run(tmp_path / "run")
    for one in with_smoothed(4):
        run.append(one.predictions, epoch=one.epoch, logged=one.provenance.logged)
    run.flush()
    file = sorted(run.path.glob("val/*.logits.npy"))[1]
    content = bytearray(file.read_bytes())
    content[-2] ^= 64
    file.write_bytes(content)
    _forget_writers()
    finding = logged_loss(summarize(confshift.Run(run.path)))
    assert "label smoothing (0.1), which agrees at 3 of 3 epochs" in finding.details
    assert "Tried at 3 of the 4 epochs" in finding.details
    assert f"The logits of epoch 2 can't be used: {file.name} is damaged" in finding.details.replace(
        str(file.parent) + "/", ""
    )


def test_an_accuracy_that_differs_is_said_whatever_the_loss_is():
    one = checkpoint(1)
    right = one.metrics()["accuracy"]
    for logged in ({}, {"loss": one.metrics()["loss"]}, {"loss": 7.0}):
        finding = logged_loss(summarize([checkpoint(1, logged={**logged, "val_acc": right + 0.02})]))
        assert (
            "The accuracy you logged differs from that of the answers saved at 1 of 1 epoch"
            in finding.details
        )
        assert "The accuracy you logged differs at 1 of 1 epoch." in finding.sentence
        same = logged_loss(summarize([checkpoint(1, logged={**logged, "val_acc": right})]))
        assert "accuracy" not in same.sentence + same.details


def test_names_that_are_not_understood_are_named_with_those_that_would_be():
    finding = logged_loss(summarize([checkpoint(1, logged={"val_ce": 1.0, "ce": 1.0, "acc": 0.5})]))
    assert finding.verdict == "not applicable"
    assert "is read as the loss of val: 'ce', 'val_ce'; 'loss' or 'val_loss' would be." in finding.sentence


def test_class_weights_that_can_not_be_read_are_named():
    for weights, named in (([1, 2], True), ({"0": 1.0}, True), ("balanced", True), ([1, 2, 3, 4], False)):
        finding = logged_loss(
            summarize([checkpoint(1, logged={"loss": 7.0}, metadata={"class_weights": weights})])
        )
        assert ("metadata['class_weights'] of epoch 1 can't be read" in finding.details) == named


def test_each_way_that_is_tried_has_a_remedy():
    rng = np.random.default_rng(0)
    targets = np.where(rng.random(90) < 0.1, -100, np.repeat([0, 1, 2, 2, 2, 1], 15))
    plain = [
        Checkpoint.from_predictions(Predictions(rng.normal(size=(90, 3)), targets), epoch=epoch)
        for epoch in (1, 2)
    ]
    checkpoints = [
        replace(one, provenance=replace(one.provenance, logged={"loss": 7.0}, duplicate_samples=2))
        for one in plain
    ]
    causes = set(logged_loss(summarize(checkpoints, class_weight=[1, 2, 2])).evidence["cause"])
    assert causes == set(_STEPS)


def test_a_loss_that_is_logged_with_its_class_weights_is_the_one_that_is_accounted_for():
    weights, rng = [1.0, 2.0, 5.0], np.random.default_rng(0)
    targets = np.arange(90) % 3
    run = []
    for epoch in range(3):
        logits = rng.normal(size=(90, 3))
        losses = -log_softmax(logits, axis=1)[np.arange(90), targets]
        logged = {"loss": np.average(losses, weights=np.array(weights)[targets])}
        one = Checkpoint.from_predictions(
            Predictions(logits, targets), epoch=epoch, metadata={"class_weights": weights}
        )
        run.append(replace(one, provenance=Provenance(logged=logged)))
    finding = logged_loss(summarize(run))
    assert finding.verdict == "yes"
    assert "weighted by class" in finding.details
    fitting = logged_loss(summarize(run, class_weight=None)).evidence.iloc[0]
    assert fitting["cause"] == "class weights"
    other = logged_loss(summarize(run, class_weight=[5, 2, 1])).evidence.iloc[0]
    assert other["detail"] == 'metadata["class_weights"]'
    plain = [replace(one, provenance=Provenance(logged={"loss": one.loss})) for one in run]
    assert logged_loss(summarize(plain)).evidence.iloc[0]["cause"] == "a plain cross-entropy"


@pytest.mark.parametrize(("agreeing", "named"), [(3, True), (1, False)])
def test_a_way_that_agrees_at_some_epochs_is_named_where_these_are_half_of_them(agreeing, named):
    checkpoints = with_smoothed(5)
    checkpoints[agreeing:] = [
        replace(one, provenance=Provenance(logged={"loss": 9.0 + one.epoch**2}))
        for one in checkpoints[agreeing:]
    ]
    details = logged_loss(summarize(checkpoints)).details
    closest = f"The closest is label smoothing (0.1), which agrees at {agreeing} of 5 epochs only."
    assert (closest in details) == named
    assert ("The closest" in details) == named


def test_every_remedy_is_one_short_step():
    assert all(len(step.split()) <= 20 for step in _STEPS.values())


@pytest.mark.parametrize(("factor", "text"), [(1.004, "+0.4 %"), (0.9, "−10 %"), (13.0, "+1,200 %")])
def test_a_difference_is_a_percentage_with_the_digits_that_it_takes(factor, text):
    finding = logged_loss(with_logged(checkpoint(1).metrics()["loss"] * factor))
    assert f"by up to {text}." in finding.sentence
    assert len(finding.sentence.split()) <= 40
