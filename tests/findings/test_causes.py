"""What is behind the rise? Each cause is built into a run and has to be found there, and only there."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from odd_runs import noisier

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.analysis.rise import SMALL, Judgement
from confshift.checkpoint import Checkpoint, Provenance
from confshift.findings.causes import about_causes, lost_information, scale_growth
from confshift.findings.question import VERDICTS
from confshift.findings.start import about_start
from confshift.findings.wording import percent
from confshift.predictions import Predictions

SAMPLES, CLASSES = 1500, 6


def evidence(seed=0, shift=2.0, samples=SAMPLES, classes=CLASSES):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, samples)
    logits = rng.normal(size=(samples, classes))
    logits[np.arange(samples), targets] += shift
    return logits * shift, targets


def run_of(logits, targets, *, rates=None):
    metadata = [{} if rates is None else {"lr": rate} for rate in rates or [0.0] * len(logits)]
    return [
        Checkpoint.from_predictions(Predictions(z, targets), epoch=epoch, metadata=metadata[epoch])
        for epoch, z in enumerate(logits)
    ]


def causes_of(run):
    history = summarize(run)
    return {finding.code: finding for finding in about_causes(history, compare(*history.pair))}


def growing(seed=0):
    """The same decisions, ever surer."""
    logits, targets = evidence(seed)
    return run_of([logits * scale for scale in (0.8, 1.0, 2.0, 3.0, 4.0)], targets)


def forgetting(seed=0):
    """The scale stays, the evidence drowns in noise."""
    logits, targets = evidence(seed)
    noise = np.random.default_rng(9).normal(size=logits.shape)
    return run_of([logits + 2 * level * noise for level in (0.0, 0.4, 0.8, 1.2)], targets)


def mislabelled(seed=0, rate=0.08):
    """Ever surer, on targets of which a share is wrong."""
    logits, targets = evidence(seed)
    rng = np.random.default_rng(5)
    wrong = rng.random(SAMPLES) < rate
    targets = np.where(wrong, (targets + rng.integers(1, CLASSES, SAMPLES)) % CLASSES, targets)
    return run_of([logits * scale for scale in (0.5, 1.0, 2.0, 4.0, 6.0)], targets), wrong


def stepping(drop=20, *, rates=False, gain=0.5, epochs=40):
    """Noise of the training until the rate drops, then less of it and more information."""
    logits, targets = evidence(shift=1.5)
    rng = np.random.default_rng(3)
    lasting = rng.normal(size=logits.shape)
    steps = []
    for epoch in range(epochs):
        calm = epoch >= drop
        jitter = rng.normal() * (0.002 if calm else 0.15)
        steps.append((logits + (2 - gain * calm) * (1 + jitter) * lasting) * (1.5 + 0.5 * jitter))
    return run_of(steps, targets, rates=[0.1 if e < drop else 0.01 for e in range(epochs)] if rates else None)


def biased(seed=0):
    logits, targets = evidence(seed)
    tilt = np.zeros(CLASSES)
    tilt[2] = 2.0
    return run_of([logits, logits + 0.5 * tilt, logits + tilt], targets)


def test_growing_logits_are_found():
    found = causes_of(growing())
    growth = found["scale_growth"]
    assert growth.verdict == "yes"
    table = growth.evidence["change"]
    assert table["kappa"] == pytest.approx(4.0)
    assert table["scale"] == pytest.approx(table["loss"])
    assert table["shape"] == pytest.approx(0, abs=1e-9)
    assert "Few decisions changed (0.0 % of the samples have another answer)." in growth.sentence
    assert growth.answer == "The logits became 4 times as large"
    for other in ("lost_information", "label_noise", "class_bias"):
        assert found[other].verdict == "no", other


def test_growth_beside_many_other_answers_does_not_change_few_decisions():
    logits, targets = evidence()
    other = logits + 0.8 * np.random.default_rng(8).normal(size=logits.shape)
    history = summarize(run_of([logits, 4 * other], targets))
    comparison = compare(*history.main.checkpoints)
    growth = scale_growth(comparison)
    share = (comparison.answered.predicted[0] != comparison.answered.predicted[1]).mean()
    assert share > 0.1
    assert growth.verdict == "yes"
    assert "ew decisions" not in growth.sentence
    assert f"But {percent(share)} of the samples have another answer" in growth.sentence


def test_lost_information_is_found_and_not_taken_for_growth():
    found = causes_of(forgetting())
    lost = found["lost_information"]
    assert lost.verdict == "yes"
    assert lost.evidence["forgotten"].iloc[0] > lost.evidence["learned"].iloc[0]
    assert "epoch 0" in lost.next_step
    assert found["scale_growth"].verdict != "yes"


def test_a_lone_checkpoint_can_have_lost_nothing():
    lost = causes_of(growing()[:1])["lost_information"]
    assert (lost.verdict, lost.next_step) == ("not applicable", "")
    assert lost.sentence == "There is only one checkpoint: nothing to compare it with."


def test_a_loss_of_refinement_without_a_change_of_answers_is_not_decided():
    logits, targets = evidence()
    # Confidence is shuffled between the samples, answers stay as they are.
    sizes = np.exp(np.random.default_rng(0).normal(size=(SAMPLES, 1)) * 0.8)
    found = causes_of(run_of([logits, logits * sizes], targets))
    assert found["lost_information"].verdict == "cannot tell"


def test_a_tiny_loss_of_refinement_beside_a_large_rise_is_small():
    logits, targets = evidence()
    noise = np.random.default_rng(1).normal(size=logits.shape)
    found = causes_of(run_of([logits, (logits + 0.35 * noise) * 8], targets))
    assert found["lost_information"].verdict != "yes"
    assert "real but small" in found["lost_information"].sentence


def test_growth_is_named_only_where_it_is_most_of_the_rise_beyond_its_error():
    comparison = noisier(80, 2, growth=3, noise=0.8)
    parts = comparison.scale[["scale", "shape"]].sum()
    assert parts["scale"] > parts["shape"] > 0
    assert comparison.change.loc["calibration_loss", "change_low"] > 0
    assert scale_growth(comparison).verdict == "cannot tell"


@pytest.mark.parametrize(("growth", "is_small"), [(3, False), (4, True)])
def test_what_calibration_leaves_rose_little_only_where_its_error_allows_it(growth, is_small):
    comparison = noisier(600, 0, growth=growth, noise=0.2, signal=1.4)
    refinement, loss = (comparison.change.loc[name] for name in ("refinement_loss", "loss"))
    assert 0 < refinement["change_low"] < refinement["change"] < SMALL * loss["change"]
    finding = lost_information(summarize([comparison.before, comparison.after]), comparison)
    assert finding.verdict == ("no" if is_small else "cannot tell")
    assert ("real but small" in finding.sentence) == is_small


@pytest.mark.parametrize(
    ("refinement", "errors", "verdict"),
    [
        ("systematic", "flat", "yes"),
        ("flat", "systematic", "yes"),
        ("small", "flat", "no"),
        ("flat", "below_resolution", "no"),
        ("within_jitter", "flat", "cannot tell"),
        ("too_few_epochs", "within_jitter", "cannot tell"),
    ],
)
def test_whether_information_was_lost_is_answered_as_the_run_was_judged(refinement, errors, verdict):
    logits, targets = evidence()
    history = summarize(run_of([logits * scale for scale in np.linspace(1, 4, 12)], targets))
    rise = history.rise.copy()
    rise["status"] = ["systematic", refinement, errors]
    history.__dict__["judgement"] = Judgement(rise, history.candidates)
    finding = lost_information(history, compare(*history.pair))
    assert finding.verdict == verdict
    judged = f"judged {refinement.replace('_', ' ')}, the error rate {errors.replace('_', ' ')}."
    assert finding.details.endswith(judged)
    assert ("rose systematically" in finding.sentence) == ("systematic" in (refinement, errors))
    assert bool(finding.next_step) == (verdict == "yes")


def test_a_pair_that_does_not_end_where_the_run_was_judged_speaks_for_itself():
    logits, targets = evidence()
    noise = np.random.default_rng(9).normal(size=logits.shape)
    levels = [0.0, 2.5, *[0.0] * 12]
    run = run_of([logits + level * noise for level in levels], targets)
    history = summarize(run)
    assert "yes" not in set(history.rise["verdict"])
    assert lost_information(history, compare(run[0], run[1])).verdict == "yes"
    assert lost_information(history, compare(run[0], run[-1])).verdict == "no"


@pytest.mark.parametrize(
    ("stuck", "never", "words"),
    [
        (
            1,
            1,
            "1 sample of 200 has had the same confident wrong answer in the last 3 checkpoints, and was "
            "never right.",
        ),
        (1, 0, "checkpoints, but was right before."),
        (3, 1, "3 samples of 200 have had"),
        (3, 1, "checkpoints; 1 of them was never right."),
        (3, 2, "checkpoints; 2 of them were never right."),
        (3, 3, "checkpoints; they were never right."),
        (3, 0, "checkpoints; all were right before."),
        (0, 0, "No sample had the same confident wrong answer"),
    ],
)
def test_stuck_samples_are_counted_in_good_grammar(stuck, never, words):
    targets = np.arange(200) % 3
    first = 20.0 * np.eye(3)[targets]
    late = first.copy()
    late[:stuck] = np.roll(late[:stuck], 1, axis=1)
    first[:never] = late[:never]
    found = causes_of(run_of([first, late, late, late], targets))["stuck_samples"]
    assert words in found.sentence
    assert "above 99 % in each of the last 3 of 4 checkpoints" in found.details
    assert found.verdict == ("yes" if stuck else "no")


def test_wrong_validation_labels_are_found_with_their_rate_and_their_samples():
    run, wrong = mislabelled()
    found = causes_of(run)
    noise, stuck = found["label_noise"], found["stuck_samples"]
    assert noise.verdict == "yes"
    last = noise.evidence.iloc[-1]
    assert abs(last["wrong_labels"] - wrong.mean()) < 2.5 * last["wrong_labels_se"]
    assert "most suspect samples add +" in noise.details
    assert stuck.verdict == "yes"
    assert len(stuck.evidence) == 100
    assert wrong[stuck.evidence.index].mean() > 0.7


def test_a_run_of_two_checkpoints_is_too_short_for_stuck_samples():
    logits, targets = evidence()
    assert causes_of(run_of([logits, 2 * logits], targets))["stuck_samples"].verdict == "not applicable"


def test_a_drop_of_the_learning_rate_is_found_in_the_curves():
    drop = causes_of(stepping())["learning_rate_drop"]
    assert drop.verdict == "cannot tell"  # a drop is one reason of several for curves that grow calm
    assert 20 in drop.evidence.index
    assert drop.evidence.loc[20, "refinement_loss_change"] < 0
    assert "times smaller" in drop.sentence
    assert "Consistent with a smaller learning rate, but also" in drop.sentence
    assert drop.next_step.startswith('Pass metadata={"lr": ...}')


def test_a_drop_that_was_recorded_is_named():
    drop = causes_of(stepping(rates=True))["learning_rate_drop"]
    assert drop.verdict == "yes"
    assert drop.evidence.index.tolist() == [20]
    assert "from 0.1 to 0.01" in drop.sentence
    assert "averages out" in drop.sentence
    assert not drop.next_step


def test_calm_without_gain_may_be_a_training_set_fitted_perfectly():
    drop = causes_of(stepping(gain=0.0))["learning_rate_drop"]
    assert drop.verdict == "cannot tell"
    assert "fitted perfectly" in drop.sentence


@pytest.mark.parametrize("rate", ["0.1", [], {"group": 0.1}, float("nan"), True])
def test_recorded_rates_that_can_not_be_read_are_said_to_be_so(rate):
    run = [replace(checkpoint, metadata={"lr": rate}) for checkpoint in stepping()]
    drop = causes_of(run)["learning_rate_drop"]
    assert drop.verdict == "not applicable"
    assert f"at {len(run)} checkpoints can't be read as a number: {rate!r} at epoch 0." in drop.sentence
    assert drop.next_step == 'Pass the learning rate as a number: metadata={"lr": ...}.'
    assert drop.to_dict()["evidence"][0] == {"epoch": 0, "recorded": repr(rate)}


def test_one_rate_that_can_not_be_read_leaves_the_others_in_force():
    run = stepping(rates=True)
    run[3] = replace(run[3], metadata={"lr": "0.1"})
    drop = causes_of(run)["learning_rate_drop"]
    assert drop.verdict == "yes"
    assert drop.evidence.index.tolist() == [20]
    assert "at 1 checkpoint can't be read as a number: '0.1' at epoch 3." in drop.sentence


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        ([0.1] * 12, "The rate is constant, 0.1."),
        ([0.02, 0.06, *[0.1] * 10], "The rate is constant, 0.1, after a warmup until epoch 2."),
        (
            list(0.05 + 0.05 * np.cos(np.linspace(0, math.pi, 12))),
            "The rate follows a cosine, from 0.1 to 0.",
        ),
        (
            [0.1, 0.08, 0.05, 0.03, 0.01, 0] * 2,
            "The rate falls smoothly, with a warm restart at epoch 6.",
        ),
        ([0.1, 0.05] * 6, "The rate falls in steps, with warm restarts at epochs 2, 4, 6, 8, 10."),
        ([0.1, 0.05, 0.01] * 8, "The rate falls smoothly, with 7 warm restarts, the last at epoch 21."),
        (
            [0.1, 0.2, 0.3, 0.2] * 3,
            "The rate goes up and down in cycles, between 0.1 and 0.3, after a warmup",
        ),
    ],
)
def test_the_schedule_of_recorded_rates_is_named(rates, words):
    logits, targets = evidence(samples=60)
    drop = causes_of(run_of([logits] * len(rates), targets, rates=rates))["learning_rate_drop"]
    assert words in f"{drop.sentence} {drop.details}"
    assert drop.verdict == ("yes" if "steps" in words else "no")


@pytest.mark.parametrize(
    ("run", "verdict"),
    [
        (stepping(drop=99), "no"),
        (stepping(drop=99, rates=True), "no"),
        (growing(), "not applicable"),
    ],
)
def test_no_drop_is_seen_where_there_is_none(run, verdict):
    assert causes_of(run)["learning_rate_drop"].verdict == verdict


def test_a_biased_class_is_found_and_named():
    bias = causes_of(biased())["class_bias"]
    assert bias.verdict == "yes"
    assert bias.evidence.index[0] == 2
    assert bias.answer == "Class 2 gets too much probability"
    assert "class 2 gets " in bias.sentence


def test_too_few_samples_for_the_classes_are_not_tested_for_bias():
    logits, targets = evidence(samples=60, classes=30)
    assert causes_of(run_of([logits, 2 * logits], targets))["class_bias"].verdict == "not applicable"


def test_wrong_labels_without_a_rise_carry_none_of_it():
    run, _ = mislabelled()
    noise = causes_of(run_of([run[1].predictions.logits] * 2, run[1].predictions.targets))["label_noise"]
    assert noise.verdict == "yes"
    assert "of the rise" not in noise.sentence


@pytest.mark.parametrize("build", [growing, forgetting])
def test_clean_labels_are_seldom_called_wrong(build):
    verdicts = [causes_of(build(seed))["label_noise"].verdict for seed in range(8)]
    assert "yes" not in verdicts
    assert verdicts.count("no") >= 7


def test_growth_that_is_not_told_from_zero_is_not_explained():
    logits, targets = evidence(samples=200)
    finding = causes_of(run_of([logits, 1.001 * logits + 1e-4], targets))["scale_growth"]
    assert finding.verdict in ("cannot tell", "not applicable")
    noise = np.random.default_rng(4).normal(size=logits.shape)
    finding = causes_of(run_of([logits, logits + 0.05 * noise], targets))["scale_growth"]
    assert finding.verdict in ("cannot tell", "not applicable")


def test_a_wider_spread_of_the_answers_is_shape_and_not_scale():
    logits, targets = evidence(shift=2.5)
    swapped = logits.copy()
    rows = np.random.default_rng(0).random(SAMPLES) < 0.08
    swapped[rows] = swapped[rows][:, ::-1]
    found = causes_of(run_of([logits, swapped], targets))
    table = found["scale_growth"].evidence["change"]
    assert table["kappa"] == pytest.approx(1.0)
    assert table["shape"] == pytest.approx(table["loss"])
    assert found["scale_growth"].verdict == "no"
    assert found["lost_information"].verdict == "yes"


def odd_runs():
    logits, targets = evidence(samples=60)
    masked, broken = 3 * logits, 2 * logits
    masked[np.arange(60) % 7 == 0, (targets[0] + 1) % CLASSES] = -np.inf
    broken[3] = np.nan
    one = evidence(samples=1)
    sure = np.eye(CLASSES)[targets] * 20
    yield "one checkpoint", run_of([logits], targets)
    yield "identical checkpoints", run_of([logits] * 20, targets)
    yield "all right", run_of([sure, 2 * sure], targets)
    yield "all wrong", run_of([-sure, -2 * sure], targets)
    yield "all zero", run_of([0 * sure, 0 * sure], targets)
    yield "from all zero", run_of([0 * sure, logits, 9 * logits], targets)
    yield "masked and broken", run_of([logits, broken, masked], targets)
    yield "one sample", run_of([one[0], -one[0]], one[1])
    yield "two samples", run_of([logits[:2], -2 * logits[:2]], targets[:2])
    yield "two classes", run_of([logits[:, :2], 5 * logits[:, :2]], targets % 2)
    yield "one class seen", run_of([logits, 5 * logits], 0 * targets)
    yield "no epoch", [Checkpoint.from_predictions(Predictions(logits, targets))]
    yield "one rate", run_of([logits, 2 * logits, 3 * logits], targets, rates=[0.1, 0.1, 0.001])
    yield "diverged", run_of([logits, 2 * logits, np.full_like(logits, np.nan)], targets)
    logged = Provenance(logged={"loss": float("nan")}, checks={"head": {"status": "not made", "reason": "x"}})
    yield "odd provenance", [replace(one, provenance=logged) for one in run_of([logits, 2 * logits], targets)]


@pytest.mark.parametrize(("name", "run"), list(odd_runs()))
def test_every_question_is_answered_in_words_without_unknown_numbers(name, run):
    history = summarize(run)
    findings = [*about_causes(history, compare(*history.pair)), *about_start(history)]
    assert len({finding.code for finding in findings}) == 12
    for finding in findings:
        text = f"{finding.title} {finding.answer} {finding.sentence} {finding.details} {finding.next_step}"
        assert finding.verdict in VERDICTS
        assert finding.sentence.endswith("."), text
        said = f"{finding.answer} {finding.sentence} {finding.details}"
        assert not re.search(r"\bnan\b|(?<![Ee]poch )\?|\binf\b|∞|\bNone\b(?! of)", said), text
        finding.to_dict()
