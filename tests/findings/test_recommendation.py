"""One checkpoint is recommended, in every sentence and step of a page, whatever the run looks like."""

from __future__ import annotations

import re

import numpy as np
import pytest
from odd_runs import ODD, SAMPLES, TARGETS, UP, epochs_of, history_of, told
from real_runs import ARRAYS

from confshift.analysis.comparison import compare
from confshift.analysis.history import summarize
from confshift.analysis.recalibrators import choose, gain_over
from confshift.checkpoint import Checkpoint
from confshift.findings.answer import answer_run
from confshift.findings.best_checkpoint import best_checkpoint
from confshift.findings.diagnosis import answers
from confshift.findings.told import is_judged
from confshift.findings.wording import interval, nats
from confshift.predictions import Predictions

#: What is to be kept, in the words of any sentence.
ADVICE = re.compile(r"(?:[Kk]eep|[Gg]o back to|[Pp]refer|[Tt]he checkpoint to keep is) epoch (\d+(?:\.\d+)?)")
VAGUE = re.compile(r"[Kk]eep (?:the|an|this)\b|[Pp]refer (?:the|an)\b|earlier checkpoint|if you keep")


def calibrated(samples, make, classes=4):
    """Return a model whose logits are those of its own probabilities, then changed."""
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(samples, classes))
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return Checkpoint.from_predictions(Predictions(make(logits), targets), epoch=1)


def one_that_is_worse(checkpoint):
    """Return a later checkpoint that is a little worse."""
    predictions = checkpoint.predictions
    return Checkpoint.from_predictions(Predictions(1.3 * predictions.logits, predictions.targets), epoch=2)


RUNS = [*ODD, *sorted(path.stem for path in ARRAYS.glob("*.npz"))]


@pytest.mark.parametrize("name", RUNS)
def test_every_sentence_that_names_a_checkpoint_to_keep_names_the_same(name):
    history = history_of(name)
    checkpoints = history.main.checkpoints
    pairs = {history.pair}
    if name in RUNS[::4]:  # of a pair that was chosen, the sentences come from the same places
        pairs.add(history.pair_ending_at(checkpoints[len(checkpoints) // 2]))
    for pair in pairs:
        if not (pair[0].columns["finite"] & pair[1].columns["finite"]).any():
            continue
        if pair == history.pair:
            answer, findings = told(name)
        else:
            comparison = compare(*pair)
            findings = answers(history, comparison)
            answer = answer_run(history, comparison, findings)
        texts = [answer.text, *(step.text for step in answer.steps)]
        for finding in findings:
            texts += [finding.sentence, finding.next_step]
        found = {float(epoch) for text in texts for epoch in ADVICE.findall(text)}
        assert found <= {history.recommendation.epoch}
        assert not [text for text in texts if VAGUE.search(text)]


MIXING, SCALES = np.eye(4) + 0.5 * np.eye(4)[[1, 0, 2, 3]] * np.array([1, 1, 0, 0]), np.array([2, 1, 1, 0.5])


@pytest.mark.parametrize(
    ("make", "says", "method"),
    [
        (lambda z: z @ MIXING, "mixes the classes by a matrix: another ", "matrix"),
        (lambda z: (z - z.mean(axis=1, keepdims=True)) * SCALES, "scales each class: another ", "vector"),
        (lambda z: 3 * z, "Neither a scale for each class nor a matrix gains more.", "temperature"),
    ],
)
def test_the_page_says_what_a_richer_map_gains_as_calibrate_finds_it(make, says, method):
    checkpoint = calibrated(1200, make)
    history = summarize([checkpoint, one_that_is_worse(checkpoint)])
    details = best_checkpoint(history).details
    choice = choose(checkpoint)
    assert choice.recommended.method == method
    assert says in details
    if method != "temperature":
        simpler = next(trial for trial in choice.trials if trial.method == history.recommendation.method)
        gain, error = gain_over(simpler, choice.recommended)
        assert (
            f"another {nats(gain)} nats lower (standard error {nats(error)}) on samples left out" in details
        )


@pytest.mark.parametrize(
    ("samples", "classes"),
    [(399, 4), (50_001, 4)],
    ids=["fewer than 100 samples a class", "more than 200,000 logits"],
)
def test_a_richer_map_that_was_not_tried_is_not_mentioned(samples, classes):
    checkpoint = calibrated(samples, lambda z: 3 * z, classes)
    history = summarize([checkpoint, one_that_is_worse(checkpoint)])
    assert history.richer_map is None
    details = best_checkpoint(history).details
    assert "matrix" not in details
    assert "scale" not in details
    assert details.endswith(".softmax(dim=-1).")


def test_a_richer_map_that_gains_where_biases_do_not_is_not_called_nothing():
    history = summarize([first := calibrated(1200, lambda z: 0.8 * z @ MIXING), one_that_is_worse(first)])
    assert history.richer_map.method == "matrix"
    details = best_checkpoint(history).details
    assert "Calibration gains nothing" not in details
    assert "mixes the classes by a matrix" in details


def test_a_verdict_is_quoted_for_its_own_pair_where_the_last_epochs_are_left_out():
    history = history_of("rate_rises_until_nothing_is_finite")
    row = history.rise.loc["loss"]
    assert row["epochs_left_out"] == 10
    own = compare(*history.pair)
    assert (own.before.epoch, own.after.epoch) == (row["best_epoch"], row["last_epoch"])
    assert is_judged(history, own)
    checkpoints = {one.epoch: one for one in history.main.checkpoints}
    assert not is_judged(history, compare(checkpoints[4], checkpoints[20]))


def test_a_verdict_over_other_samples_than_the_pairs_says_so_and_names_no_samples():
    """A third of the samples has no answer in the middle: the verdict is about the others."""
    random = np.random.default_rng(0)
    logits = np.array(epochs_of(np.full(20, 2.0), np.linspace(0.8, 4, 20)))
    whole = summarize(
        Checkpoint.from_predictions(Predictions(z, TARGETS), epoch=t) for t, z in enumerate(logits)
    )
    for share, named in ((0.3, False), (0.006, True)):
        some = logits.copy()
        some[10, random.random(SAMPLES) < share] = np.nan
        history = summarize(
            Checkpoint.from_predictions(Predictions(z, TARGETS), epoch=t) for t, z in enumerate(some)
        )
        comparison = compare(*history.pair)
        assert history.rise.loc["loss", "status"] == "systematic"
        samples = history.rise.loc["loss", "samples"]
        assert samples < SAMPLES == len(comparison.panel.targets)
        answer = answer_run(history, comparison, ())
        assert f"The verdict is over {samples:,} samples, the numbers are over {SAMPLES:,}." in answer.remarks
        assert ("about samples" in answer.why) == named
        amount = comparison.change.loc["loss", "change"] if named else history.rise.loc["loss", "amount"]
        assert answer.why.startswith(f"The loss rose by {nats(amount)} nats since epoch ")
    assert not answer_run(whole, compare(*whole.pair), ()).remarks


@pytest.mark.parametrize("name", ["hidden", "noisy_digits"])
def test_a_loss_that_hides_the_harm_is_compared_from_the_best_epoch_by_what_it_hides(name):
    history = history_of(name)
    row, comparison = history.rise.loc["refinement_loss"], compare(*history.pair)
    best = row["best_epoch"]
    assert (comparison.before.epoch, comparison.after.epoch) == (best, row["last_epoch"])
    answer = answer_run(history, comparison, ())
    change = comparison.change["change"]
    assert answer.why == (
        f"The model got worse since epoch {best:g}: once calibrated, its loss rose by "
        f"{nats(change['refinement_loss'])} nats, more than noise explains. The plain loss hides "
        f"that: it fell by {nats(-change['loss'])} nats, because its confidence fits better."
    )
    lost = next(one for one in answers(history, comparison) if one.code == "lost_information")
    assert "The loss hides this rise" in lost.sentence


@pytest.mark.parametrize("name", ["overfitting", "biased_start"])
def test_harm_that_came_while_the_loss_fell_is_counted_from_the_best_epoch_by_the_rest(name):
    history = history_of(name)
    comparison = compare(*history.pair)
    row = history.rise.loc["refinement_loss"]
    assert comparison.before.epoch > row["best_epoch"]
    losses = history.table.set_index("epoch")["loss"]
    assert losses[comparison.before.epoch] < losses[row["best_epoch"]]
    answer = answer_run(history, comparison, ())
    assert f" rose by {nats(row['amount'])} nats" in answer.why
    assert "alibrated, it" in answer.why
    assert answer.action.startswith(f"Keep epoch {history.recommendation.epoch:g}")
    lost = next(one for one in answers(history, comparison) if one.code == "lost_information")
    assert (
        f"The loss hides it: from epoch {row['best_epoch']:g}, the best by calibrated loss, to"
        in lost.details
    )
    assert "The loss hides this rise" in lost.sentence
    since = compare(
        next(one for one in history.main.checkpoints if one.epoch == row["best_epoch"]), comparison.after
    )
    assert f"forgotten: {since.switches.forgotten:,} samples" in lost.details
    assert interval(since.change.loc["refinement_loss"]) in lost.details


def test_harm_is_hidden_where_the_least_loss_is_the_last_epochs():
    history = summarize(
        Checkpoint.from_predictions(Predictions(z, TARGETS), epoch=epoch)
        for epoch, z in enumerate(epochs_of([*UP, *np.linspace(2, 1.7, 16)], np.linspace(0.03, 0.5, 24)))
    )
    comparison = compare(*history.pair)
    assert (comparison.before.epoch, comparison.after.epoch) == (7, 23)
    answer = answer_run(history, comparison, ())
    assert answer.kind == "hidden_overfitting"
    assert answer.action == "Keep epoch 7, and calibrate it."
    assert answer.why.startswith("The model got worse since epoch 7: once calibrated, its loss rose by ")
    assert "The plain loss hides that: it fell by " in answer.why


@pytest.mark.parametrize(
    "name", ["confidence", "improving", "more mistakes", "class drift", "jitter", "lr_drops"]
)
def test_no_harm_is_hidden_where_the_pair_shows_it_or_there_is_none(name):
    history = history_of(name)
    comparison = compare(*history.pair)
    assert "hides it" not in answer_run(history, comparison, ()).why
    assert not [one for one in answers(history, comparison) if "The loss hides" in one.sentence + one.details]


def test_the_answer_about_a_pair_that_the_user_chose_does_not_claim_the_harm_of_the_run():
    history = history_of("hidden")
    checkpoints = history.main.checkpoints
    for pair in ((10, 15), (20, 23)):
        answer = answer_run(history, compare(*(checkpoints[at] for at in pair)), ())
        assert answer.kind == "chosen_pair"
        assert "hides it" not in answer.text


def test_the_last_checkpoint_as_the_best_is_compared_with_the_first_which_no_verdict_is_about():
    history = history_of("improving")
    comparison = compare(*history.pair)
    assert comparison.before is history.main.checkpoints[0]
    assert not is_judged(history, comparison)
