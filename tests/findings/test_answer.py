"""The answer at the top: each clause is true of the run, and its numbers are those of the tables."""

import re

import numpy as np
import pytest
from odd_runs import FLAT, TARGETS, UP, epochs_of
from odd_runs import history_of as named_run

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.run_kind import KINDS, kind_of
from confshift.findings.two_runs import answer_two_runs, course
from confshift.findings.wording import nats, percent
from confshift.predictions import Predictions


def history_of(logits, targets, first=0):
    return summarize(
        Checkpoint.from_predictions(Predictions(one, targets), epoch=epoch)
        for epoch, one in enumerate(logits, first)
    )


def answer_of(history, comparison=None):
    return answer_run(history, comparison or compare(*history.pair), ())


@pytest.fixture(scope="module")
def confident():
    """A run whose logits only grow: nothing changes but the confidence."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 4, 2000)
    base = random.normal(size=(2000, 4))
    base[np.arange(2000), targets] += 1.5
    scales = np.r_[0.3, 0.6, 1.0, np.linspace(1.1, 4, 17)]
    return history_of(scales[:, None, None] * base, targets)


def test_a_rise_of_confidence_alone_ends_in_keep_the_epoch_that_needs_no_calibration(confident):
    comparison, choice = compare(*confident.pair), confident.recommendation
    answer = answer_of(confident)
    assert answer.action == f"Keep epoch {choice.epoch:g}."
    assert choice.epoch == comparison.before.epoch
    rise = nats(comparison.change.loc["loss", "change"])
    assert answer.why == (
        f"The loss rose by {rise} nats since epoch {comparison.before.epoch:g}, more than noise explains. "
        "Most of that is overconfidence about samples it already got wrong; whether the model itself got "
        "worse too is undecided."
    )
    assert not answer.remarks
    step = answer.steps[0]
    assert not step.code
    assert step.text.startswith(f"Keep epoch {choice.epoch:g} as it is, ")
    assert "; no calibration gains anything measurable." in step.text


def test_most_of_a_rise_is_overconfidence_only_where_that_is_beyond_its_error():
    history = named_run("the first is the best")
    comparison = compare(*history.pair)
    change = comparison.change["change"]
    assert change["calibration_loss"] > change["loss"] / 2
    assert "Most of that" not in answer_of(history, comparison).why
    assert "Most of that is overconfidence, but" in answer_of(named_run("imbalanced")).why


@pytest.fixture(scope="module")
def unlearning():
    """A run whose logits lose the signal again, late."""
    random = np.random.default_rng(1)
    targets = random.integers(0, 4, 3000)
    noise = random.normal(size=(3000, 4))
    signal = np.eye(4)[targets]
    strengths = np.r_[0.5, 1.5, 2.5, np.linspace(2.4, 0.6, 20)]
    return history_of([strength * signal + noise for strength in strengths], targets)


@pytest.mark.parametrize(
    ("seed", "strengths"), [(2, [*np.linspace(0.2, 2, 12), *[2.2] * 6]), (1, [0.2, 1, *[2.2] * 22])]
)
def test_a_difference_within_noise_is_not_called_a_rise(seed, strengths):
    random = np.random.default_rng(seed)
    targets, noise = random.integers(0, 4, 800), random.normal(size=(800, 4))
    history = history_of(
        [
            strength * np.eye(4)[targets] + noise + 0.15 * random.normal(size=(800, 4))
            for strength in strengths
        ],
        targets,
    )
    comparison = compare(*history.pair)
    assert 0 < comparison.change.loc["loss", "change"] < 0.002
    answer = answer_of(history)
    assert answer.why.startswith("The loss does not rise beyond noise")
    assert (answer.action == "Keep training: the run still improves.") == (seed == 2)
    assert answer.kind == kind_of(history) == ("improving" if seed == 2 else "no_rise")
    assert not re.search(r" rose|the rise", answer.text)


@pytest.mark.parametrize("pair", [(3, 10), (16, -1)])
def test_a_pair_that_the_user_chose_does_not_get_the_verdict_of_the_run(confident, pair):
    # Against an epoch worse than the best one, a temperature seems to gain more than it does.
    checkpoints = confident.main.checkpoints
    answer = answer_of(confident, compare(*(checkpoints[at] for at in pair)))
    assert answer.kind == "chosen_pair"
    assert "more than noise explains" not in answer.why
    assert "eep epoch" not in answer.action + answer.why
    assert answer.remarks == (f"About the whole run: {answer_of(confident).action}",)


def test_the_rounding_of_a_sum_is_no_change(confident):
    one = confident.main.checkpoints[5].predictions
    history = history_of([one.logits, one.logits + 7.3], one.targets)
    answer = answer_of(history, compare(*history.main.checkpoints[::-1]))
    assert "the loss did not change;" in answer.why
    assert "nats" not in answer.why


def test_the_course_of_a_run_is_told_against_its_own_best(confident, unlearning):
    for history in (confident, unlearning):
        row = history.rise.loc["loss"]
        told = f"ends, at epoch {row['last_epoch']:g}, {nats(row['amount'])} nats above its best"
        assert course(history, "one").startswith(f"one {told}, epoch {row['best_epoch']:g}: a systematic")
    falling = history_of(
        [one.predictions.logits for one in confident.main.checkpoints[:4]],
        confident.main.checkpoints[0].predictions.targets,
    )
    assert course(falling, "two") in (
        "two ends at its best, epoch 3.",
        "two has too few epochs to judge its course.",
    )


def test_a_fall_speaks_of_no_rise(confident):
    checkpoints = confident.main.checkpoints
    answer = answer_of(confident, compare(checkpoints[0], checkpoints[2]))
    assert answer.action == "Epoch 2 has the lower loss."
    assert "the loss fell by" in answer.why
    assert "rise" not in answer.text


def test_a_run_that_loses_information_goes_back_to_its_best_and_forgot_samples(unlearning):
    answer, best = answer_of(unlearning), unlearning.best.loc["refinement_loss", "epoch"]
    row = unlearning.rise.loc["refinement_loss"]
    assert answer.action == f"Keep epoch {best:g}, and calibrate it."
    assert ", more than noise explains, mostly on samples it forgot. " in answer.why
    said = f"even calibrated, its loss rose by {nats(row['amount'])} nats since epoch {row['best_epoch']:g}."
    assert answer.why.endswith(f"The model itself got worse: {said}")


def test_one_checkpoint_is_described_not_compared():
    logits = np.random.default_rng(3).normal(size=(1, 50, 3))
    history = history_of(logits, np.arange(50) % 3)
    row, answer = history.table.iloc[0], answer_of(history)
    accuracy = percent(row["accuracy"])
    assert answer.kind == "one_checkpoint"
    assert answer.action == "Inspect a second checkpoint."
    assert answer.why == (
        f"Epoch 0 has a loss of {nats(row['loss'])} nats and an accuracy of {accuracy}. "
        "A second one will show what changes."
    )


@pytest.fixture(scope="module")
def two_models():
    """The same samples by two models: the second sees more of the signal and is too confident."""
    random = np.random.default_rng(5)
    targets = random.integers(0, 3, 3000)
    noise = random.normal(size=(3000, 3))
    signal = np.eye(3)[targets]
    logits = [scale * (strength * signal + noise) for strength, scale in ((1, 1), (1.6, 8))]
    return [history_of([one], targets, first=epoch) for epoch, one in zip((3, 9), logits, strict=True)]


def answer_about(histories, names):
    comparison = compare(*(history.main.checkpoints[0] for history in histories))
    return comparison, answer_two_runs(comparison, tuple(histories), names, ())


def test_two_runs_are_held_against_each_other_in_loss_accuracy_and_once_calibrated(two_models):
    comparison, answer = answer_about(two_models, ("small", "large"))
    change = comparison.change["change"]
    loss, calibrated = (nats(abs(change[name])) for name in ("loss", "refinement_loss"))
    assert change["loss"] > 0 > change["refinement_loss"]
    assert answer.action == "Prefer large: better once calibrated."
    assert answer.why == (
        f"large at epoch 9 against small at epoch 3: its loss is {loss} nats higher, its accuracy is "
        f"{100 * change['accuracy']:.1f} points higher and its calibrated loss is {calibrated} nats lower."
    )
    assert answer.steps[0].text.startswith("Keep epoch 9 of large, the lowest loss once calibrated: ")


def test_names_that_make_no_short_sentence_are_replaced(two_models):
    for names in (("a run", "b"), ("x" * 40, "b"), ("first run", "second run")):
        _, answer = answer_about(two_models, names)
        assert answer.action == "Prefer the second run: better once calibrated."
        assert answer.why.startswith(
            "The second run at epoch 9 against the first run at epoch 3: its loss is "
        )


def test_what_two_runs_do_not_differ_in_is_said(two_models):
    _, answer = answer_about([two_models[0]] * 2, ("a", "b"))
    assert answer.action == "Keep either: they are equal within noise."
    assert answer.why.endswith(": loss, accuracy and calibrated loss are the same within noise.")


def test_two_runs_that_differ_only_in_scale_are_equal_once_calibrated(two_models):
    history = two_models[0]
    checkpoint = history.main.checkpoints[0].predictions
    louder = history_of([4 * checkpoint.logits], checkpoint.targets)
    _, answer = answer_about([history, louder], ("a", "b"))
    assert answer.action == "Calibrate either: then they are equal within noise."


def test_a_rise_that_may_be_noise_does_not_hide_that_the_model_keeps_what_it_learned(confident):
    """The loss goes up and down with the temperature alone, so the loss once calibrated stays the same."""
    base = confident.main.checkpoints[2].predictions
    scales = np.r_[0.2, 0.4, np.tile([1.5, 4.0], 9)]
    history = history_of(scales[:, None, None] * base.logits, base.targets)
    assert (history.rise.loc["loss", "status"], kind_of(history)) == ("within_jitter", "loss_undecided")
    answer = answer_of(history)
    assert answer.why.startswith("The model did not get worse: at most ")
    assert answer.why.endswith("whether that is a lasting rise is undecided.")
    assert len(answer.why.split()) <= 35


OVERCONFIDENT = "overconfident about samples it already got wrong"
MOSTLY = "Most of that is overconfidence about samples it already got wrong"
BEYOND = "more than noise explains"

#: What each kind of run is told, word for word: by run, the kind, what to do, and why.
TOLD = {
    "confidence": (
        "confidence",
        "Keep epoch 16, and calibrate it.",
        f"The loss rose by 0.17 nats since epoch 13, {BEYOND}. The model did not get worse: it became "
        f"{OVERCONFIDENT}.",
    ),
    "underconfident": (
        "confidence",
        "Keep epoch 7.",
        f"The loss rose by 0.57 nats since epoch 7, {BEYOND}. The model did not get worse: it became "
        "underconfident about samples it still gets right.",
    ),
    "some samples lost at the end": (
        "confidence",
        "Keep epoch 10.",
        f"The loss rose by 0.29 nats since epoch 9, {BEYOND}. Where its outputs are finite, the model "
        "did not get worse: it became overconfident about samples it already got wrong.",
    ),
    "lr_drops": (
        "mostly_confidence",
        "Keep epoch 4, and calibrate it.",
        f"The loss rose by 2.46 nats since epoch 4, {BEYOND}. {MOSTLY}; whether the model itself got "
        "worse too is undecided.",
    ),
    "a little worse": (
        "confidence_and_more",
        "Keep epoch 7, and calibrate it.",
        f"The loss rose by 0.23 nats since epoch 12, {BEYOND}. {MOSTLY}; the model itself got worse too, but "
        "only a little.",
    ),
    "class drift": (
        "class_drift",
        "Keep epoch 7, and calibrate it.",
        f"The loss rose by 0.52 nats since epoch 7, {BEYOND}. Most of that is drift between classes: "
        "some get too much probability, others too little; one bias per class repairs it.",
    ),
    "class_drift": (
        "class_drift",
        "Keep epoch 18, and calibrate it.",
        f"The loss rose by 0.14 nats since epoch 16, {BEYOND}. Most of that is drift between classes, "
        "which one bias per class repairs; the model itself got worse too, but by less.",
    ),
    "overfitting": (
        "overfitting",
        "Keep epoch 7, and calibrate it.",
        f"The loss rose by 1.24 nats since epoch 9, {BEYOND}. The model itself got worse: even "
        "calibrated, its loss rose by 0.73 nats since epoch 7.",
    ),
    "more mistakes": (
        "overfitting",
        "Keep epoch 7, and calibrate it.",
        f"The loss rose by 0.80 nats since epoch 7, {BEYOND}, mostly on samples it forgot. The model "
        "itself got worse: even calibrated, its loss rose by 0.86 nats since epoch 7.",
    ),
    "imbalanced": (
        "overfitting",
        "Keep epoch 4.",
        f"The loss rose by 0.30 nats since epoch 4, {BEYOND}. Most of that is overconfidence, but the model "
        "itself got worse too: even calibrated, its loss rose by 0.061 nats.",
    ),
    "hidden": (
        "hidden_overfitting",
        "Keep epoch 7, and calibrate it.",
        f"The model got worse since epoch 7: once calibrated, its loss rose by 0.37 nats, {BEYOND}. The "
        "plain loss hides that: it fell by 0.091 nats, because its confidence fits better.",
    ),
    "improving": (
        "improving",
        "Keep training: the run still improves.",
        "The loss fell by 1.01 nats since epoch 0, and the last epoch is better than the middle of the "
        "run. If you stop now, keep epoch 23, and calibrate it.",
    ),
    "flat": (
        "no_rise",
        "Nothing to fix: keep any of epochs 7\N{EN DASH}23.",
        "The loss does not rise beyond noise (0.43 to 0.44 nats), and the run no longer improves visibly.",
    ),
    "jitter": (
        "no_rise",
        "Keep epoch 22, and calibrate it.",
        "The loss does not rise beyond noise, and the run no longer improves visibly. Epoch 22 is "
        "underconfident: calibrated, it has 0.52 instead of 0.60 nats.",
    ),
    "rate_rises_until_it_collapses": (
        "diverged",
        "Keep epoch 4; lower the learning rate.",
        "The run diverged at epoch 18 (learning rate 0.6): from then on its answers are no better than "
        "a guess. Epoch 4 is the best before that.",
    ),
    "nothing at the end": (
        "diverged",
        "Keep epoch 16; lower the learning rate.",
        "The run diverged at epoch 24: from then on its outputs are not finite. Epoch 16 is the best before "
        "that.",
    ),
    "infinite at the end": (
        "infinite",
        "Find why some probabilities are exactly 0.",
        "At epoch 21 the loss is infinite: 9 samples give their true class a probability of 0. Until that is "
        "repaired, epoch 10 is the best.",
    ),
    "some samples lost, the others flat": (
        "unscored",
        "Find why some outputs are not finite.",
        "The loss shows no rise, but samples without a finite output were left out and could hide one. "
        "So far epoch 7 is the best.",
    ),
    "up at the end only": (
        "undecidable",
        "Keep epoch 7; more epochs would decide.",
        "The loss rose by 0.27 nats since epoch 7, no more than it jitters from epoch to epoch. A real rise "
        "would go on; jitter would not.",
    ),
    "two epochs": (
        "too_early",
        "Too early to judge: inspect more epochs.",
        "From epoch 0 to 1 the loss fell by 0.038 nats. A verdict takes 8 epochs after the first fall, "
        "4 after the lowest.",
    ),
    "one epoch": (
        "one_checkpoint",
        "Inspect a second checkpoint.",
        "Epoch 0 has a loss of 1.06 nats and an accuracy of 52.2 %. A second one will show what changes.",
    ),
}


@pytest.mark.parametrize("name", TOLD)
def test_each_kind_of_run_is_told_what_to_do_and_why_word_for_word(name):
    answer = answer_of(named_run(name))
    assert (answer.kind, answer.action, answer.why) == TOLD[name]


def test_every_kind_of_run_is_told_something():
    others = {"setback", "loss_undecided"}  # their runs are elsewhere
    assert {kind for kind, _, _ in TOLD.values()} == {*KINDS, "one_checkpoint"} - others


def test_a_set_too_small_to_tell_says_what_it_could_resolve():
    few = slice(70)
    logits = epochs_of([*UP, *FLAT], np.r_[np.linspace(0.5, 2, 8), np.linspace(2, 3.1, 16)])
    history = history_of([z[few] for z in logits], TARGETS[few])
    answer, row = answer_of(history), history.rise.loc["loss"]
    assert (answer.kind, row["status"]) == ("undecidable", "below_resolution")
    assert answer.action == f"Keep epoch {history.recommendation.epoch:g}; more samples would decide."
    assert answer.why == (
        f"The loss rose by {nats(row['amount'])} nats since epoch {row['best_epoch']:g}, which may be "
        f"noise: with 70 samples, this set can only resolve rises above {nats(row['resolution'])} nats."
    )
